// Package repodata writes and reads what dnf and zypper know of a repository: the
// three lists of its packages, and repomd.xml, which names them with their
// checksums. The lists are, byte for byte before compression, those of
// createrepo_c 0.17. It never follows a location that it reads, and never decides
// which packages belong to a repository.
package repodata

import (
	"bytes"
	"strconv"

	"meridian/builder/rpm"
)

// Lists are the three lists of packages, or a part of each, as XML.
type Lists struct {
	Primary, Filelists, Other []byte
}

// names of the lists, in the order in which they stand in repomd.xml.
var listNames = [3]string{"primary", "filelists", "other"}

// openings and closings are what stands around the packages of a list.
var openings = [3]string{
	`<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="`,
	`<filelists xmlns="http://linux.duke.edu/metadata/filelists" packages="`,
	`<otherdata xmlns="http://linux.duke.edu/metadata/other" packages="`,
}

var closings = [3]string{"</metadata>", "</filelists>", "</otherdata>"}

const xmlDeclaration = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

func opening(list, packages int) []byte {
	b := append([]byte(xmlDeclaration), openings[list]...)
	b = strconv.AppendInt(b, int64(packages), 10)
	return append(b, "\">\n"...)
}

// rules are the habits of createrepo_c that can be turned off, each on its own, by
// the test which shows that a fixture needs it. The zero value has them all.
type rules struct {
	keepRPMLib      bool // requirements on rpm's own features are left out
	keepOwnFile     bool // a package does not require the primary files that it has
	keepOwnProvide  bool // nor what it provides
	keepDuplicate   bool // nor the same thing twice
	keepAllLibc     bool // of the versions of libc only the highest is required
	libcInPlace     bool // and it is the last of the requirements
	noPre           bool // what is needed before or after installation is marked
	missingOKIsHard bool // a requirement that may be missing is a recommendation
	oldWeakIgnored  bool // the tags of weak dependencies that SUSE had first
	allFilesPrimary bool // only some files are in primary
	noEtc           bool // those below /etc/
	noBin           bool // those with bin/ in their path
	noSendmail      bool // and /usr/lib/sendmail
	noDir           bool // directories are marked
	noGhost         bool // files that are not in the payload are marked
	allChangelogs   bool // the newest changelogs only
	newestFirst     bool // the oldest of them first
	sameTimes       bool // and none at the same second as the next
	authorSpaces    bool // no spaces after their author
	noLongSize      bool // sizes beyond 32 bits are in tags of their own
	noLongArchive   bool
	noSignatureSize bool // the payload's size may be among the signatures
	archIsArch      bool // source packages have the architecture src
	badEpochKept    bool // a dependency whose epoch is no number is left out
	noLatin1        bool // text that is not UTF-8 is taken for Latin-1
	controlKept     bool // a package with text that XML cannot hold is refused
	noOldFilenames  bool // files may be listed with whole paths
	noRetrofit      bool // very old packages do not say that they provide themselves
	noSourceNone    bool // what is neither made from a source nor one says (none)
	emptyNamesKept  bool // a dependency without name is left out
}

// changelogLimit is how many changelogs of a package are listed.
const changelogLimit = 10

// A Renderer turns packages into entries of the lists. It is for one goroutine,
// and keeps its memory between packages.
type Renderer struct {
	// Checksum is the algorithm of the packages' checksums: "sha256" unless it
	// says something else, and then [rpm.Reader] must be told to make them.
	Checksum string

	// Base is where the packages are, if that is not where repodata is: a URL.
	Base string

	off rules

	deps     [numDeps][]dependency
	provided map[string]struct{}
	seen     map[string]required
	primary  map[string]struct{}
	dirs     [][]byte
	files    []file
	path     []byte
	key      []byte
	logs     []changelog
}

// Append adds one package to the lists. href is its location, relative to the
// repository. After an error, which is an [rpm.FormatError], the lists are what
// they were.
func (r *Renderer) Append(to *Lists, p *rpm.Package, href string) error {
	w := writer{r: r, latin1: !r.off.noLatin1}
	before := [3]int{len(to.Primary), len(to.Filelists), len(to.Other)}
	err := r.gather(p)
	if err == nil {
		sum := w.checksum(p)
		w.primary(&to.Primary, p, href, sum)
		w.filelists(&to.Filelists, p, sum)
		w.other(&to.Other, p, sum)
		if w.control && !r.off.controlKept {
			err = &rpm.FormatError{Reason: "a text in the header has control characters, or others that XML cannot hold"}
		}
	}
	if err != nil {
		to.Primary, to.Filelists, to.Other = to.Primary[:before[0]], to.Filelists[:before[1]], to.Other[:before[2]]
	}
	return err
}

// writer is one call of Append.
type writer struct {
	r       *Renderer
	latin1  bool
	control bool
	sum     [128]byte
}

func (w *writer) text(dst, s []byte) []byte {
	dst, ok := appendText(dst, s, w.latin1)
	if !ok {
		w.control = true
	}
	return dst
}

func (w *writer) attr(dst []byte, name string, s []byte) []byte {
	dst = append(dst, ' ')
	dst = append(dst, name...)
	dst = append(dst, '=', '"')
	dst, ok := appendAttr(dst, s, w.latin1)
	if !ok {
		w.control = true
	}
	return append(dst, '"')
}

func intAttr(dst []byte, name string, n int64) []byte {
	dst = append(dst, ' ')
	dst = append(dst, name...)
	dst = append(dst, '=', '"')
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, '"')
}

// element appends a line with an element that holds text.
func (w *writer) element(dst []byte, indent, name string, s []byte) []byte {
	dst = append(dst, indent...)
	dst = append(dst, '<')
	dst = append(dst, name...)
	dst = append(dst, '>')
	dst = w.text(dst, s)
	dst = append(dst, "</"...)
	dst = append(dst, name...)
	return append(dst, ">\n"...)
}

// one returns a string that is not a list.
func one(h *rpm.Header, tag rpm.Tag) []byte {
	v := h.Get(tag)
	if v.Len() != 1 && v.Type() != rpm.TypeI18NString {
		return nil
	}
	return v.First()
}

// only returns a number that is not a list.
func only(h *rpm.Header, tag rpm.Tag) uint64 {
	v := h.Get(tag)
	if v.Len() != 1 {
		return 0
	}
	return v.Uint(0)
}

func (w *writer) checksum(p *rpm.Package) []byte {
	const digits = "0123456789abcdef"
	sum := p.Sum
	if w.r.Checksum == "" || w.r.Checksum == "sha256" {
		sum = p.Receipt.SHA256[:]
	}
	out := w.sum[:0]
	for _, b := range sum {
		out = append(out, digits[b>>4], digits[b&15])
	}
	return out
}

func (w *writer) arch(h *rpm.Header) []byte {
	if only(h, rpm.TagSourcePackage) != 0 && !w.r.off.archIsArch {
		return []byte("src")
	}
	return one(h, rpm.TagArch)
}

// version appends the line that all three lists have.
func (w *writer) version(dst []byte, h *rpm.Header) []byte {
	dst = append(dst, `  <version epoch="`...)
	dst = strconv.AppendUint(dst, only(h, rpm.TagEpoch), 10)
	dst = append(dst, '"')
	dst = w.attr(dst, "ver", one(h, rpm.TagVersion))
	dst = w.attr(dst, "rel", one(h, rpm.TagRelease))
	return append(dst, "/>\n"...)
}

func (w *writer) primary(list *[]byte, p *rpm.Package, href string, sum []byte) {
	h, dst := p.Header, *list
	dst = append(dst, "<package type=\"rpm\">\n"...)
	dst = w.element(dst, "  ", "name", one(h, rpm.TagName))
	dst = w.element(dst, "  ", "arch", w.arch(h))
	dst = w.version(dst, h)
	dst = append(dst, `  <checksum type="`...)
	dst = append(dst, cmpOr(w.r.Checksum, "sha256")...)
	dst = append(dst, `" pkgid="YES">`...)
	dst = append(dst, sum...)
	dst = append(dst, "</checksum>\n"...)
	dst = w.element(dst, "  ", "summary", one(h, rpm.TagSummary))
	dst = w.element(dst, "  ", "description", one(h, rpm.TagDescription))
	dst = w.element(dst, "  ", "packager", one(h, rpm.TagPackager))
	dst = w.element(dst, "  ", "url", one(h, rpm.TagURL))

	dst = append(dst, "  <time"...)
	dst = intAttr(dst, "file", floorSeconds(p.Receipt.MTime))
	dst = intAttr(dst, "build", int64(h.Get(rpm.TagBuildTime).Uint(0)))
	dst = append(dst, "/>\n  <size"...)
	dst = intAttr(dst, "package", p.Receipt.Size)
	dst = intAttr(dst, "installed", int64(w.installed(h)))
	dst = intAttr(dst, "archive", int64(w.archive(p)))
	dst = append(dst, "/>\n  <location"...)
	if w.r.Base != "" {
		dst = w.attr(dst, "xml:base", []byte(w.r.Base))
	}
	dst = w.attr(dst, "href", []byte(href))
	dst = append(dst, "/>\n  <format>\n"...)

	dst = w.element(dst, "    ", "rpm:license", one(h, rpm.TagLicense))
	dst = w.element(dst, "    ", "rpm:vendor", one(h, rpm.TagVendor))
	dst = w.element(dst, "    ", "rpm:group", one(h, rpm.TagGroup))
	dst = w.element(dst, "    ", "rpm:buildhost", one(h, rpm.TagBuildHost))
	sourcerpm := one(h, rpm.TagSourceRPM)
	if !h.Has(rpm.TagSourceRPM) && !h.Has(rpm.TagSourcePackage) && !w.r.off.noSourceNone {
		sourcerpm = []byte("(none)") // rpm fills in what each package must say
	}
	dst = w.element(dst, "    ", "rpm:sourcerpm", sourcerpm)
	dst = append(dst, "    <rpm:header-range"...)
	dst = intAttr(dst, "start", p.Start)
	dst = intAttr(dst, "end", p.End)
	dst = append(dst, "/>\n"...)
	for kind := range w.r.deps {
		dst = w.dependencies(dst, kind)
	}
	for _, f := range w.r.files {
		w.r.path = append(append(w.r.path[:0], f.dir...), f.base...)
		if w.r.isPrimary(w.r.path) {
			dst = w.file(dst, "    ", w.r.path, f.kind)
		}
	}
	*list = append(dst, "  </format>\n</package>\n"...)
}

// floorSeconds is what the file system calls the seconds of a time.
func floorSeconds(ns int64) int64 {
	s := ns / 1e9
	if ns%1e9 < 0 {
		s--
	}
	return s
}

func (w *writer) installed(h *rpm.Header) uint64 {
	if long := h.Get(rpm.TagLongSize); long.Len() > 0 && !w.r.off.noLongSize {
		return long.Uint(0)
	}
	return h.Get(rpm.TagSize).Uint(0)
}

// archive is the size of the payload before compression. It is in one of three
// places.
func (w *writer) archive(p *rpm.Package) uint64 {
	places := []struct {
		header *rpm.Header
		tag    rpm.Tag
		off    bool
	}{
		{p.Signature, rpm.SigLongArchiveSize, w.r.off.noLongArchive},
		{p.Header, rpm.TagArchiveSize, false},
		{p.Signature, rpm.SigPayloadSize, w.r.off.noSignatureSize},
	}
	for _, at := range places {
		if v := at.header.Get(at.tag); v.Len() > 0 && !at.off {
			return v.Uint(0)
		}
	}
	return 0
}

func (w *writer) dependencies(dst []byte, kind int) []byte {
	list := w.r.deps[kind]
	if len(list) == 0 {
		return dst
	}
	name := depNames[kind]
	begin := len(dst)
	dst = append(append(append(dst, "    <rpm:"...), name...), ">\n"...)
	written := false
	for i := range list {
		d := &list[i]
		// What is not written must be clean too.
		if hasControl(d.epoch) || hasControl(d.version) || hasControl(d.release) {
			w.control = true
		}
		if len(d.name) == 0 && !w.r.off.emptyNamesKept {
			continue
		}
		written = true
		dst = append(dst, "      <rpm:entry"...)
		dst = w.attr(dst, "name", d.name)
		if d.flags != "" {
			dst = append(append(append(dst, ` flags="`...), d.flags...), '"')
			if len(d.epoch) > 0 {
				dst = w.attr(dst, "epoch", d.epoch)
			}
			if len(d.version) > 0 {
				dst = w.attr(dst, "ver", d.version)
			}
			if len(d.release) > 0 {
				dst = w.attr(dst, "rel", d.release)
			}
		}
		if d.pre {
			dst = append(dst, ` pre="1"`...)
		}
		dst = append(dst, "/>\n"...)
	}
	if !written {
		return append(append(append(dst[:begin], "    <rpm:"...), name...), "/>\n"...)
	}
	return append(append(append(dst, "    </rpm:"...), name...), ">\n"...)
}

func (w *writer) file(dst []byte, indent string, path []byte, kind string) []byte {
	dst = append(dst, indent...)
	dst = append(dst, "<file"...)
	if kind != "" {
		dst = append(append(append(dst, ` type="`...), kind...), '"')
	}
	dst = append(dst, '>')
	dst = w.text(dst, path)
	return append(dst, "</file>\n"...)
}

// head begins an entry of filelists or other.
func (w *writer) head(dst []byte, h *rpm.Header, sum []byte) []byte {
	dst = append(dst, `<package pkgid="`...)
	dst = append(dst, sum...)
	dst = append(dst, '"')
	dst = w.attr(dst, "name", one(h, rpm.TagName))
	dst = w.attr(dst, "arch", w.arch(h))
	dst = append(dst, ">\n"...)
	return w.version(dst, h)
}

func (w *writer) filelists(list *[]byte, p *rpm.Package, sum []byte) {
	dst := w.head(*list, p.Header, sum)
	for _, f := range w.r.files {
		w.r.path = append(append(w.r.path[:0], f.dir...), f.base...)
		dst = w.file(dst, "  ", w.r.path, f.kind)
	}
	*list = append(dst, "</package>\n"...)
}

func (w *writer) other(list *[]byte, p *rpm.Package, sum []byte) {
	// createrepo_c takes nothing in this list for Latin-1 but the texts below.
	latin1 := w.latin1
	w.latin1 = false
	dst := w.head(*list, p.Header, sum)
	w.latin1 = latin1
	for i := range w.r.logs {
		c := &w.r.logs[len(w.r.logs)-1-i]
		if w.r.off.newestFirst {
			c = &w.r.logs[i]
		}
		dst = append(dst, "  <changelog"...)
		dst = w.attr(dst, "author", c.author)
		dst = intAttr(dst, "date", c.date)
		dst = append(dst, '>')
		dst = w.text(dst, c.text)
		dst = append(dst, "</changelog>\n"...)
	}
	*list = append(dst, "</package>\n"...)
}

// ancient tells whether a header is from before rpm 4, and completed by rpm.
func (r *Renderer) ancient(h *rpm.Header) bool { return !h.Has(tagImmutable) && !r.off.noRetrofit }

// isPrimary tells whether a file is one of those that dnf looks for without
// loading the whole list of files.
func (r *Renderer) isPrimary(path []byte) bool {
	return r.off.allFilesPrimary ||
		!r.off.noEtc && bytes.HasPrefix(path, []byte("/etc/")) ||
		!r.off.noBin && bytes.Contains(path, []byte("bin/")) ||
		!r.off.noSendmail && string(path) == "/usr/lib/sendmail"
}

func cmpOr(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
