package repodata

import (
	"bytes"
	"fmt"
	"slices"

	"meridian/builder/rpm"
)

// tagImmutable is in every header since rpm 4: it spans what was built.
const tagImmutable rpm.Tag = 63

// The kinds of dependencies, in the order in which they are written.
const (
	provides = iota
	requires
	conflicts
	obsoletes
	suggests
	enhances
	recommends
	supplements
	numDeps
)

var depNames = [numDeps]string{"provides", "requires", "conflicts", "obsoletes", "suggests", "enhances", "recommends", "supplements"}

// Flags of a dependency.
const (
	senseMask       = 0xf
	sensePrereq     = 1 << 6
	senseScriptPre  = 1 << 9
	senseScriptPost = 1 << 10
	senseMissingOK  = 1 << 19
	senseStrong     = 1 << 27
)

// fileGhost is the flag of a file that belongs to a package and is not in it.
const fileGhost = 1 << 6

// Bits of a file's mode.
const (
	modeType = 0o170000
	modeDir  = 0o040000
)

// depTags are the lists of dependencies in a header, in the order in which the
// oracle reads them: what a package provides is known before what it requires, and
// old names add to new ones.
var depTags = []struct {
	kind                 int
	name, flags, version rpm.Tag
	strong               int // the kind of those that are flagged as strong
	old                  bool
}{
	{provides, rpm.TagProvideName, rpm.TagProvideFlags, rpm.TagProvideVersion, provides, false},
	{conflicts, rpm.TagConflictName, rpm.TagConflictFlags, rpm.TagConflictVersion, conflicts, false},
	{obsoletes, rpm.TagObsoleteName, rpm.TagObsoleteFlags, rpm.TagObsoleteVersion, obsoletes, false},
	{requires, rpm.TagRequireName, rpm.TagRequireFlags, rpm.TagRequireVersion, requires, false},
	{suggests, rpm.TagSuggestName, rpm.TagSuggestFlags, rpm.TagSuggestVersion, suggests, false},
	{enhances, rpm.TagEnhanceName, rpm.TagEnhanceFlags, rpm.TagEnhanceVersion, enhances, false},
	{recommends, rpm.TagRecommendName, rpm.TagRecommendFlags, rpm.TagRecommendVersion, recommends, false},
	{supplements, rpm.TagSupplementName, rpm.TagSupplementFlags, rpm.TagSupplementVersion, supplements, false},
	{suggests, rpm.TagOldSuggestsName, rpm.TagOldSuggestsFlags, rpm.TagOldSuggestsVersion, recommends, true},
	{enhances, rpm.TagOldEnhancesName, rpm.TagOldEnhancesFlags, rpm.TagOldEnhancesVersion, supplements, true},
}

type dependency struct {
	name                    []byte
	flags                   string // LT, LE, EQ, GE, GT or nothing
	epoch, version, release []byte
	pre                     bool
}

// required is what a requirement of the same name said last.
type required struct {
	flags   string
	version string
	pre     bool
}

type file struct {
	dir, base []byte
	kind      string // dir, ghost or nothing
}

type changelog struct {
	author, text []byte
	date         int64
}

// gather reads the lists of p into r.
func (r *Renderer) gather(p *rpm.Package) error {
	if err := r.gatherFiles(p.Header); err != nil {
		return err
	}
	r.gatherDependencies(p.Header)
	r.gatherChangelogs(p.Header)
	return nil
}

func (r *Renderer) gatherFiles(h *rpm.Header) error {
	r.files, r.dirs = r.files[:0], r.dirs[:0]
	modes, flags := h.Get(rpm.TagFileModes), h.Get(rpm.TagFileFlags)
	if old := h.Get(rpm.TagOldFilenames); old.Len() > 0 && !r.off.noOldFilenames {
		paths := old.Strings()
		for i := 0; i < modes.Len() && i < flags.Len(); i++ {
			path, ok := paths.Next()
			if !ok {
				break
			}
			r.files = append(r.files, file{base: path, kind: r.fileKind(modes.Uint(i), flags.Uint(i))})
		}
		return nil
	}
	indexes := h.Get(rpm.TagDirIndexes)
	dirs, bases := h.Get(rpm.TagDirNames).Strings(), h.Get(rpm.TagBasenames).Strings()
	for {
		dir, ok := dirs.Next()
		if !ok {
			break
		}
		r.dirs = append(r.dirs, dir)
	}
	if len(r.dirs) == 0 {
		return nil
	}
	for i := 0; i < modes.Len() && i < flags.Len() && i < indexes.Len(); i++ {
		base, ok := bases.Next()
		if !ok {
			break
		}
		at := indexes.Uint(i)
		if at >= uint64(len(r.dirs)) {
			return &rpm.FormatError{Reason: fmt.Sprintf("file %d is in directory %d, and the header has %d", i, at, len(r.dirs))}
		}
		r.files = append(r.files, file{r.dirs[at], base, r.fileKind(modes.Uint(i), flags.Uint(i))})
	}
	return nil
}

func (r *Renderer) fileKind(mode, flags uint64) string {
	switch {
	case mode&modeType == modeDir && !r.off.noDir:
		return "dir"
	case mode&modeType != modeDir && flags&fileGhost != 0 && !r.off.noGhost:
		return "ghost"
	}
	return ""
}

// ownsPrimary tells whether path is a primary file of the package. Most packages
// are never asked, so the set is made for the first question.
func (r *Renderer) ownsPrimary(path []byte) bool {
	if len(path) == 0 || path[0] != '/' || !r.isPrimary(path) {
		return false
	}
	if r.primary == nil {
		r.primary = make(map[string]struct{})
	}
	if len(r.primary) == 0 {
		for _, f := range r.files {
			r.path = append(append(r.path[:0], f.dir...), f.base...)
			if r.isPrimary(r.path) {
				r.primary[string(r.path)] = struct{}{}
			}
		}
	}
	_, ok := r.primary[string(path)]
	return ok
}

func (r *Renderer) gatherDependencies(h *rpm.Header) {
	for i := range r.deps {
		r.deps[i] = r.deps[i][:0]
	}
	if r.provided == nil {
		r.provided, r.seen = make(map[string]struct{}), make(map[string]required)
	}
	clear(r.provided)
	clear(r.seen)
	clear(r.primary)

	for _, tags := range depTags {
		if tags.old && r.off.oldWeakIgnored {
			continue
		}
		names, versions := h.Get(tags.name).Strings(), h.Get(tags.version).Strings()
		flags := h.Get(tags.flags)
		libc := dependency{}
		for i := 0; i < flags.Len(); i++ {
			name, ok := names.Next()
			if !ok {
				break
			}
			version, ok := versions.Next()
			if !ok {
				break
			}
			r.dependency(tags.kind, tags.strong, name, version, flags.Uint(i), &libc)
		}
		if libc.name != nil {
			r.deps[requires] = append(r.deps[requires], libc)
		}
		if tags.kind == provides && r.ancient(h) {
			r.provideItself(h)
		}
	}
}

// dependency adds one, unless a rule is against it. libc is the highest version of
// that library so far.
func (r *Renderer) dependency(kind, strong int, name, version []byte, bits uint64, libc *dependency) {
	d := dependency{name: name, flags: comparison(bits)}
	r.key = append(append(append(r.key[:0], name...), d.flags...), version...)
	if kind == requires {
		if bytes.HasPrefix(name, []byte("rpmlib(")) && !r.off.keepRPMLib {
			return
		}
		if !r.off.keepOwnFile && r.ownsPrimary(name) {
			return
		}
		if _, own := r.provided[string(r.key)]; own && !r.off.keepOwnProvide {
			return
		}
		d.pre = bits&(sensePrereq|senseScriptPre|senseScriptPost) != 0 && !r.off.noPre
		if last, ok := r.seen[string(name)]; ok && !r.off.keepDuplicate &&
			last.flags == d.flags && last.version == string(version) && last.pre == d.pre {
			return
		}
	}
	var ok bool
	if d.epoch, d.version, d.release, ok = splitVersion(version); !ok && !r.off.badEpochKept {
		return
	}
	switch {
	case kind == provides:
		r.provided[string(r.key)] = struct{}{}
	case kind == requires && bits&senseMissingOK != 0 && !r.off.missingOKIsHard:
		d.pre = false
		kind = recommends
	case kind == requires:
		if bytes.HasPrefix(name, []byte("libc.so.6")) && !r.off.keepAllLibc {
			if libc.name == nil || libcNewer(name, libc.name) {
				*libc = d
			}
			if !r.off.libcInPlace {
				return
			}
			*libc = dependency{}
		}
		r.seen[string(name)] = required{d.flags, string(version), d.pre}
	case bits&senseStrong != 0:
		kind = strong
	}
	r.deps[kind] = append(r.deps[kind], d)
}

// comparison is how flags of a dependency are written.
func comparison(flags uint64) string {
	switch flags & senseMask {
	case 2:
		return "LT"
	case 4:
		return "GT"
	case 8:
		return "EQ"
	case 10:
		return "LE"
	case 12:
		return "GE"
	}
	return ""
}

// splitVersion splits [epoch:]version[-release]. It is not ok when there is an
// epoch that is no number.
func splitVersion(s []byte) (epoch, version, release []byte, ok bool) {
	if len(s) == 0 {
		return nil, nil, nil, true
	}
	epoch, ok = []byte("0"), true
	if i := bytes.IndexByte(s, ':'); i >= 0 {
		if i > 0 {
			epoch, ok = s[:i], isNumber(s[:i])
		}
		s = s[i+1:]
	}
	version = s
	if i := bytes.IndexByte(s, '-'); i >= 0 {
		version, release = s[:i], s[i+1:]
	}
	return epoch, version, release, ok
}

// isNumber tells whether strtol reads all of s.
func isNumber(s []byte) bool {
	s = bytes.TrimLeft(s, " \t\n\v\f\r")
	if len(s) > 0 && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	return len(s) > 0 && !bytes.ContainsFunc(s, func(c rune) bool { return c < '0' || c > '9' })
}

// provideItself adds what rpm adds when it reads a package from before it did so
// when it built one; also when it is there already.
func (r *Renderer) provideItself(h *rpm.Header) {
	evr := []byte(nil)
	if e := h.Get(rpm.TagEpoch); e.Len() > 0 {
		evr = append(appendUint(evr, e.Uint(0)), ':')
	}
	evr = append(append(append(evr, one(h, rpm.TagVersion)...), '-'), one(h, rpm.TagRelease)...)
	name := one(h, rpm.TagName)
	names := h.Get(rpm.TagProvideName)
	if names.Len() > 0 && !h.Has(rpm.TagProvideVersion) {
		all := names.Strings()
		for n, ok := all.Next(); ok; n, ok = all.Next() {
			r.dependency(provides, provides, n, nil, 0, nil)
		}
	}
	r.dependency(provides, provides, name, evr, 8, nil)
}

func (r *Renderer) gatherChangelogs(h *rpm.Header) {
	r.logs = r.logs[:0]
	times := h.Get(rpm.TagChangelogTime)
	authors, texts := h.Get(rpm.TagChangelogName).Strings(), h.Get(rpm.TagChangelogText).Strings()
	last := int64(0)
	for i := 0; i < times.Len() && (i < changelogLimit || r.off.allChangelogs); i++ {
		author, ok := authors.Next()
		if !ok {
			break
		}
		text, ok := texts.Next()
		if !ok {
			break
		}
		if !r.off.authorSpaces {
			for len(author) > 1 && author[len(author)-1] == ' ' {
				author = author[:len(author)-1]
			}
		}
		at := int64(times.Uint(i))
		r.logs = append(r.logs, changelog{author, text, at})

		// A newer entry of the same second moves on by one, and pushes those that
		// are there already.
		if at != last {
			last = at
			continue
		}
		if r.off.sameTimes {
			continue
		}
		for newer, taken := len(r.logs)-2, at; newer >= 0 && r.logs[newer].date == taken; newer-- {
			r.logs[newer].date++
			taken++
		}
	}
}

// libcNewer tells whether the requirement a on libc is for a higher version than
// b: libc.so.6(GLIBC_2.34) than libc.so.6(GLIBC_2.4)(64bit).
func libcNewer(a, b []byte) bool {
	va, ka := libcVersion(a)
	vb, kb := libcVersion(b)
	if ka != versioned || kb != versioned {
		return ka > kb
	}
	return compareVersions(va, vb) > 0
}

// What a requirement on libc says of its version, in rising order.
const (
	bare       = iota // no parentheses
	unclosed          // only one
	empty             // nothing between them
	numberless        // something without a digit
	versioned
)

func libcVersion(name []byte) ([]byte, int) {
	open := bytes.IndexByte(name, '(')
	if open < 0 {
		return nil, bare
	}
	inside := name[open+1:]
	end := bytes.IndexByte(inside, ')')
	switch {
	case end < 0:
		return nil, unclosed
	case end == 0:
		return nil, empty
	}
	digit := slices.IndexFunc(inside, isDigit)
	// A digit exactly where the parenthesis is cannot be.
	if digit < 0 || digit > end {
		return nil, numberless
	}
	return inside[digit:end], versioned
}
