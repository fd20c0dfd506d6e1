package rpm

// A Tag names a value in a header.
type Tag uint32

// Tags of the main header. Those of lists belong together in threes or more: the
// n-th element of one describes the n-th of the others.
const (
	TagName          Tag = 1000
	TagVersion       Tag = 1001
	TagRelease       Tag = 1002
	TagEpoch         Tag = 1003
	TagSummary       Tag = 1004
	TagDescription   Tag = 1005
	TagBuildTime     Tag = 1006
	TagBuildHost     Tag = 1007
	TagSize          Tag = 1009
	TagVendor        Tag = 1011
	TagLicense       Tag = 1014
	TagPackager      Tag = 1015
	TagGroup         Tag = 1016
	TagURL           Tag = 1020
	TagArch          Tag = 1022
	TagOldFilenames  Tag = 1027
	TagFileModes     Tag = 1030
	TagFileFlags     Tag = 1037
	TagSourceRPM     Tag = 1044
	TagArchiveSize   Tag = 1046
	TagSourcePackage Tag = 1106
	TagDirIndexes    Tag = 1116
	TagBasenames     Tag = 1117
	TagDirNames      Tag = 1118
	TagLongSize      Tag = 5009

	TagProvideName        Tag = 1047
	TagRequireFlags       Tag = 1048
	TagRequireName        Tag = 1049
	TagRequireVersion     Tag = 1050
	TagConflictFlags      Tag = 1053
	TagConflictName       Tag = 1054
	TagConflictVersion    Tag = 1055
	TagObsoleteName       Tag = 1090
	TagProvideFlags       Tag = 1112
	TagProvideVersion     Tag = 1113
	TagObsoleteFlags      Tag = 1114
	TagObsoleteVersion    Tag = 1115
	TagOldSuggestsName    Tag = 1156
	TagOldSuggestsVersion Tag = 1157
	TagOldSuggestsFlags   Tag = 1158
	TagOldEnhancesName    Tag = 1159
	TagOldEnhancesVersion Tag = 1160
	TagOldEnhancesFlags   Tag = 1161
	TagRecommendName      Tag = 5046
	TagRecommendVersion   Tag = 5047
	TagRecommendFlags     Tag = 5048
	TagSuggestName        Tag = 5049
	TagSuggestVersion     Tag = 5050
	TagSuggestFlags       Tag = 5051
	TagSupplementName     Tag = 5052
	TagSupplementVersion  Tag = 5053
	TagSupplementFlags    Tag = 5054
	TagEnhanceName        Tag = 5055
	TagEnhanceVersion     Tag = 5056
	TagEnhanceFlags       Tag = 5057

	TagChangelogTime Tag = 1080
	TagChangelogName Tag = 1081
	TagChangelogText Tag = 1082

	TagPayloadDigest Tag = 5092
)

// Tags of the signature header.
const (
	SigLongArchiveSize Tag = 271
	SigPayloadSize     Tag = 1007
)

// forms are the types that the values of tags of the main header must have, as rpm
// demands it. Strings of all kinds count as one.
var forms = func() map[Tag]Type {
	m := make(map[Tag]Type)
	for typ, tags := range map[Type][]Tag{
		TypeString: {TagName, TagVersion, TagRelease, TagSummary, TagDescription, TagBuildHost, TagVendor, TagLicense, TagPackager, TagGroup,
			TagURL, TagArch, TagOldFilenames, TagSourceRPM, TagBasenames, TagDirNames, TagProvideName, TagRequireName, TagRequireVersion,
			TagConflictName, TagConflictVersion, TagObsoleteName, TagProvideVersion, TagObsoleteVersion, TagOldSuggestsName,
			TagOldSuggestsVersion, TagOldEnhancesName, TagOldEnhancesVersion, TagRecommendName, TagRecommendVersion, TagSuggestName,
			TagSuggestVersion, TagSupplementName, TagSupplementVersion, TagEnhanceName, TagEnhanceVersion, TagChangelogName,
			TagChangelogText, TagPayloadDigest},
		TypeInt16: {TagFileModes},
		TypeInt32: {TagEpoch, TagBuildTime, TagSize, TagFileFlags, TagArchiveSize, TagSourcePackage, TagDirIndexes, TagRequireFlags,
			TagConflictFlags, TagProvideFlags, TagObsoleteFlags, TagOldSuggestsFlags, TagOldEnhancesFlags, TagRecommendFlags,
			TagSuggestFlags, TagSupplementFlags, TagEnhanceFlags, TagChangelogTime},
		TypeInt64: {TagLongSize},
	} {
		for _, tag := range tags {
			m[tag] = typ
		}
	}
	return m
}()

// signatureTags are those that rpm gives to signatures, which have a header of
// their own: in the main header they would pass for what nobody signed.
var signatureTags = map[Tag]bool{257: true, 259: true, 261: true, 262: true, 267: true, 268: true, 269: true, 270: true, 271: true,
	273: true, 274: true, 275: true, 276: true, 277: true}

// checkMain checks what rpm checks of the main header beyond its form.
func checkMain(h, signature *Header) error {
	for i := range len(h.index) / entrySize {
		e := h.entry(i)
		typ := e.typ
		if typ == TypeStringArray || typ == TypeI18NString {
			typ = TypeString
		}
		if want, known := forms[e.tag]; known && typ != want {
			return malformed("tag %d has type %d, not %d", e.tag, e.typ, want)
		}
		if signatureTags[e.tag] {
			return malformed("tag %d, of a signature, is in the header itself", e.tag)
		}
	}
	if h.Has(TagArchiveSize) && signature.Has(SigPayloadSize) {
		return malformed("the size of the payload is there twice, in tags %d and %d", TagArchiveSize, SigPayloadSize)
	}
	for tag, want := range map[Tag]Type{SigPayloadSize: TypeInt32, SigLongArchiveSize: TypeInt64} {
		if v := signature.Get(tag); v.Len() > 0 && v.typ != want {
			return malformed("tag %d of the signatures has type %d, not %d", tag, v.typ, want)
		}
	}
	return nil
}
