package repodata

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/rpmpack"

	"meridian/builder/rpm"
	"meridian/internal/testworld"
)

// A fixture is a package with values of interest, and what is done to its bytes
// after it was made.
type fixture struct {
	name  string
	make  func(p *rpmpack.RPM)
	patch func(b []byte) []byte

	// useless: nobody could name or install it. createrepo_c lists it, and we
	// refuse it already when we read it.
	useless bool

	// poison: createrepo_c lists it, and its list can then be read by nobody.
	poison bool
}

func tag(p *rpmpack.RPM, at rpm.Tag, e rpmpack.IndexEntry) { p.AddCustomTag(int(at), e) }

func texts(s ...string) rpmpack.IndexEntry   { return rpmpack.EntryStringSlice(s) }
func numbers(n ...uint32) rpmpack.IndexEntry { return rpmpack.EntryUint32(n) }

// long is a number of 64 bits, which rpmpack has no function for.
func long(n uint64) rpmpack.IndexEntry {
	e := rpmpack.EntryBytes(binary.BigEndian.AppendUint64(nil, n))
	// Its fields are not exported, and only the type and the count differ.
	return patchEntry(e)
}

// dep is one dependency with its flags as numbers.
type dep struct {
	name    string
	flags   uint32
	version string
}

const (
	equal   = 8
	less    = 2
	greater = 4
)

// depend gives the package a list of dependencies.
func depend(p *rpmpack.RPM, name, flags, version rpm.Tag, deps ...dep) {
	var n, v []string
	var f []uint32
	for _, d := range deps {
		n, f, v = append(n, d.name), append(f, d.flags), append(v, d.version)
	}
	tag(p, name, texts(n...))
	tag(p, flags, numbers(f...))
	tag(p, version, texts(v...))
}

func require(p *rpmpack.RPM, deps ...dep) {
	depend(p, rpm.TagRequireName, rpm.TagRequireFlags, rpm.TagRequireVersion, deps...)
}

func provide(p *rpmpack.RPM, deps ...dep) {
	depend(p, rpm.TagProvideName, rpm.TagProvideFlags, rpm.TagProvideVersion, deps...)
}

func addFiles(p *rpmpack.RPM, paths ...string) {
	for _, path := range paths {
		p.AddFile(rpmpack.RPMFile{Name: path, Body: []byte("x"), Mode: 0o100644, Owner: "root", Group: "root"})
	}
}

func logged(p *rpmpack.RPM, entries ...struct {
	at     uint32
	author string
	text   string
}) {
	var at []uint32
	var who, what []string
	for _, e := range entries {
		at, who, what = append(at, e.at), append(who, e.author), append(what, e.text)
	}
	tag(p, rpm.TagChangelogTime, numbers(at...))
	tag(p, rpm.TagChangelogName, texts(who...))
	tag(p, rpm.TagChangelogText, texts(what...))
}

type logEntry = struct {
	at     uint32
	author string
	text   string
}

// noRegion makes the header one from before rpm 4: it has no mark that spans what
// was built.
func noRegion(b []byte) []byte {
	at := headerStart(b)
	entries, size := binary.BigEndian.Uint32(b[at+8:]), binary.BigEndian.Uint32(b[at+12:])
	data := at + 16 + 16*int(entries)
	var out []byte
	out = append(out, b[:at+8]...)
	out = binary.BigEndian.AppendUint32(out, entries-1)
	out = binary.BigEndian.AppendUint32(out, size-16)
	out = append(out, b[at+32:data+int(size)-16]...)
	return append(out, b[data+int(size):]...)
}

func headerStart(b []byte) int {
	sig := 96 + 16 + 16*int(binary.BigEndian.Uint32(b[96+8:])) + int(binary.BigEndian.Uint32(b[96+12:]))
	return (sig + 7) / 8 * 8
}

// dropSignatureSize takes the payload's size out of the signatures.
func dropSignatureSize(b []byte) []byte {
	for i := range int(binary.BigEndian.Uint32(b[96+8:])) {
		if e := b[96+16+16*i:]; rpm.Tag(binary.BigEndian.Uint32(e)) == rpm.SigPayloadSize {
			binary.BigEndian.PutUint32(e, 9990)
		}
	}
	return b
}

// dropTag gives the first entry of the main header with this tag another that
// nobody knows.
func dropTag(b []byte, at rpm.Tag) []byte {
	l := headerStart(b)
	n := int(binary.BigEndian.Uint32(b[l+8:]))
	for i := range n {
		e := b[l+16+16*i:]
		if rpm.Tag(binary.BigEndian.Uint32(e)) == at {
			binary.BigEndian.PutUint32(e, 9990)
		}
	}
	return b
}

var fixtures = []fixture{
	{name: "plain", make: func(p *rpmpack.RPM) { addFiles(p, "/usr/share/plain/file") }},
	{name: "empty"},
	{name: "rpmlib", make: func(p *rpmpack.RPM) {
		require(p, dep{"rpmlib(PayloadIsZstd)", 1<<24 | less | equal, "5.4.18-1"}, dep{"rpmlib", 0, ""})
	}},
	{name: "own-file", make: func(p *rpmpack.RPM) {
		addFiles(p, "/usr/bin/own", "/usr/share/own", "/etc/own.conf", "/usr/lib/sendmail")
		require(p, dep{"/usr/bin/own", 0, ""}, dep{"/usr/share/own", 0, ""}, dep{"/etc/own.conf", 0, ""},
			dep{"/usr/lib/sendmail", 0, ""}, dep{"/usr/bin/other", 0, ""}, dep{"/usr/bin/own", 1 << 9, ""})
	}},
	{name: "own-provide", make: func(p *rpmpack.RPM) {
		provide(p, dep{"self", equal, "1-1"}, dep{"virtual", 0, ""})
		require(p, dep{"self", equal, "1-1"}, dep{"self", equal, "1-2"}, dep{"virtual", 0, ""}, dep{"virtual", greater, "1"})
	}},
	{name: "duplicate", make: func(p *rpmpack.RPM) {
		require(p, dep{"a", 0, ""}, dep{"a", 0, ""}, dep{"a", equal, "1"}, dep{"a", 0, ""}, dep{"b", 1 << 9, ""}, dep{"b", 0, ""},
			dep{"b", 0, ""}, dep{"c", greater, "1"}, dep{"c", greater, "1"}, dep{"c", greater | equal, "1"})
	}},
	{name: "libc", make: func(p *rpmpack.RPM) {
		require(p, dep{"before", 0, ""}, dep{"libc.so.6()(64bit)", 0, ""}, dep{"libc.so.6(GLIBC_2.34)(64bit)", 0, ""},
			dep{"libc.so.6(GLIBC_2.4)(64bit)", 0, ""}, dep{"libc.so.6(GLIBC_2.2.5)(64bit)", 0, ""}, dep{"after", 0, ""})
	}},
	{name: "libc-odd", make: func(p *rpmpack.RPM) {
		require(p, dep{"libc.so.6", 0, ""}, dep{"libc.so.6(", 0, ""}, dep{"libc.so.6()", 0, ""}, dep{"libc.so.6(GLIBC_PRIVATE)", 0, ""},
			dep{"libc.so.6(GLIBC_PRIVATE)(64bit)", 0, ""}, dep{"libc.so.60", 1 << 9, "x"}, dep{"z", 0, ""})
	}},
	{name: "pre", make: func(p *rpmpack.RPM) {
		var all []dep
		for bit := range 28 {
			if bit != 19 {
				all = append(all, dep{fmt.Sprintf("bit%d", bit), 1 << bit, ""})
			}
		}
		require(p, all...)
	}},
	{name: "missing-ok", make: func(p *rpmpack.RPM) {
		require(p, dep{"hard", 0, ""}, dep{"soft", 1 << 19, ""}, dep{"soft-pre", 1<<19 | 1<<9, ""}, dep{"libc.so.6(GLIBC_9)", 1 << 19, ""})
		depend(p, rpm.TagRecommendName, rpm.TagRecommendFlags, rpm.TagRecommendVersion, dep{"new", 0, ""})
	}},
	{name: "weak", make: func(p *rpmpack.RPM) {
		depend(p, rpm.TagRecommendName, rpm.TagRecommendFlags, rpm.TagRecommendVersion, dep{"rec", greater | equal, "1:2-3"})
		depend(p, rpm.TagSuggestName, rpm.TagSuggestFlags, rpm.TagSuggestVersion, dep{"sug", 0, ""})
		depend(p, rpm.TagSupplementName, rpm.TagSupplementFlags, rpm.TagSupplementVersion, dep{"(sup and langpacks-de)", 0, ""})
		depend(p, rpm.TagEnhanceName, rpm.TagEnhanceFlags, rpm.TagEnhanceVersion, dep{"enh", less, "9"})
		depend(p, rpm.TagConflictName, rpm.TagConflictFlags, rpm.TagConflictVersion, dep{"con", less | equal, "1"}, dep{"con", less | equal, "1"})
		depend(p, rpm.TagObsoleteName, rpm.TagObsoleteFlags, rpm.TagObsoleteVersion, dep{"obs", equal, "0:1-1"})
	}},
	{name: "old-weak", make: func(p *rpmpack.RPM) {
		depend(p, rpm.TagOldSuggestsName, rpm.TagOldSuggestsFlags, rpm.TagOldSuggestsVersion, dep{"sug", 0, ""}, dep{"rec", 1 << 27, ""})
		depend(p, rpm.TagOldEnhancesName, rpm.TagOldEnhancesFlags, rpm.TagOldEnhancesVersion, dep{"enh", 0, ""}, dep{"sup", 1 << 27, ""})
		depend(p, rpm.TagRecommendName, rpm.TagRecommendFlags, rpm.TagRecommendVersion, dep{"new", 1 << 27, ""})
	}},
	{name: "rich", make: func(p *rpmpack.RPM) {
		require(p, dep{"(a if b else c)", 1 << 25, ""}, dep{"((x >= 1 or y) and z)", 1 << 25, ""})
	}},
	{name: "versions", make: func(p *rpmpack.RPM) {
		provide(p, dep{"a", equal, "1:2-3"}, dep{"b", equal, ":2"}, dep{"c", equal, "1:"}, dep{"d", equal, "-1"}, dep{"e", equal, "1-"},
			dep{"f", equal, "1-2-3"}, dep{"g", equal, " 7:1"}, dep{"h", equal, "+7:1"}, dep{"i", equal, "1:2:3"}, dep{"j", 0, "1:2-3"},
			dep{"k", less | greater, "1"}, dep{"l", 14, "1"}, dep{"m", equal, "~rc^1"})
	}},
	{name: "bad-epoch", make: func(p *rpmpack.RPM) {
		provide(p, dep{"ok", equal, "1:1"}, dep{"bad", equal, "x:1"}, dep{"worse", equal, "1x:1"}, dep{"blank", equal, " :1"})
		require(p, dep{"bad", equal, "x:1"})
	}},
	{name: "empty-name", make: func(p *rpmpack.RPM) {
		require(p, dep{"", 0, ""}, dep{"a", 0, ""})
		depend(p, rpm.TagConflictName, rpm.TagConflictFlags, rpm.TagConflictVersion, dep{"", equal, "1"})
	}},
	{name: "files", make: func(p *rpmpack.RPM) {
		addFiles(p, "/etc/a", "/etcetera", "/usr/bin/b", "/opt/cabin/c", "/usr/sbin/d", "/usr/lib/sendmail", "/usr/lib/sendmail2", "/srv/etc/x", "/a/bin")
	}},
	{name: "file-types", make: func(p *rpmpack.RPM) {
		p.AddFile(rpmpack.RPMFile{Name: "/etc/dir", Mode: 0o040755, Owner: "root", Group: "root"})
		p.AddFile(rpmpack.RPMFile{Name: "/etc/ghost", Mode: 0o100644, Type: rpmpack.GhostFile, Owner: "root", Group: "root"})
		p.AddFile(rpmpack.RPMFile{Name: "/etc/ghostdir", Mode: 0o040755, Type: rpmpack.GhostFile, Owner: "root", Group: "root"})
		p.AddFile(rpmpack.RPMFile{Name: "/etc/link", Mode: 0o120777, Body: []byte("dir"), Owner: "root", Group: "root"})
		p.AddFile(rpmpack.RPMFile{Name: "/etc/config", Mode: 0o100644, Type: rpmpack.ConfigFile, Body: []byte("x"), Owner: "root", Group: "root"})
	}},
	{name: "many-files", make: func(p *rpmpack.RPM) {
		for i := range 20000 {
			addFiles(p, fmt.Sprintf("/usr/share/many/%03d/%05d & <%d>", i/100, i, i))
		}
	}},
	{name: "old-filenames", make: func(p *rpmpack.RPM) {
		tag(p, rpm.TagOldFilenames, texts("/etc/old", "/usr/bin/old", "/usr/share/old"))
		tag(p, rpm.TagFileModes, rpmpack.EntryUint16([]uint16{0o100644, 0o100755, 0o040755}))
		tag(p, rpm.TagFileFlags, numbers(1<<6, 0, 0))
		require(p, dep{"/usr/bin/old", 0, ""}, dep{"/usr/share/old", 0, ""})
	}},
	{name: "ancient", patch: noRegion, make: func(p *rpmpack.RPM) {
		provide(p, dep{"other", 0, ""})
		require(p, dep{"ancient", equal, "1-1"}, dep{"ancient", equal, "7:1-1"})
		tag(p, rpm.TagEpoch, numbers(7))
	}},
	{name: "ancient-unversioned", make: func(p *rpmpack.RPM) {
		tag(p, rpm.TagProvideName, texts("other", "another"))
	}, patch: func(b []byte) []byte {
		return dropTag(dropTag(noRegion(b), rpm.TagProvideVersion), rpm.TagProvideFlags)
	}},
	{name: "ancient-source", patch: func(b []byte) []byte { return dropTag(noRegion(b), rpm.TagSourceRPM) }},
	{name: "ancient-source-lead", patch: func(b []byte) []byte {
		b = dropTag(noRegion(b), rpm.TagSourceRPM)
		b[7] = 1
		return b
	}},
	{name: "source-lead", patch: func(b []byte) []byte {
		b = dropTag(b, rpm.TagSourceRPM)
		b[7] = 1
		return b
	}},
	{name: "source", make: func(p *rpmpack.RPM) {
		tag(p, rpm.TagSourcePackage, numbers(1))
	}, patch: func(b []byte) []byte { return dropTag(b, rpm.TagSourceRPM) }},
	{name: "changelogs", make: func(p *rpmpack.RPM) {
		var all []logEntry
		for i := range 14 {
			all = append(all, logEntry{uint32(1700000000 - i*86400), fmt.Sprintf("A %d <a@example.org> - %d", i, i), fmt.Sprintf("- entry %d", i)})
		}
		logged(p, all...)
	}},
	{name: "changelog-times", make: func(p *rpmpack.RPM) {
		logged(p, logEntry{3000, "a", "1"}, logEntry{2001, "b", "2"}, logEntry{2000, "c", "3"}, logEntry{2000, "d", "4"}, logEntry{2000, "e", "5"},
			logEntry{1999, "f", "6"}, logEntry{2000, "g", "7"}, logEntry{0, "h", "8"}, logEntry{0, "i", "9"})
	}},
	{name: "changelog-authors", make: func(p *rpmpack.RPM) {
		logged(p, logEntry{5, "spaces   ", "text  "}, logEntry{4, "   ", ""}, logEntry{3, "tab\t ", "\n\nlines\n"}, logEntry{2, "", "x"})
	}},
	{name: "long-size", make: func(p *rpmpack.RPM) { tag(p, rpm.TagLongSize, long(5<<32+1)) }},
	{name: "long-archive", make: func(p *rpmpack.RPM) {
		tag(p, 100, rpmpack.EntryString("C234567")) // eight bytes
		tag(p, rpm.SigLongArchiveSize, long(6<<32+1))
	}},
	{name: "header-archive-alone", make: func(p *rpmpack.RPM) { tag(p, rpm.TagArchiveSize, numbers(11)) }, patch: dropSignatureSize},
	{name: "long-archive-alone", make: func(p *rpmpack.RPM) {
		tag(p, 100, rpmpack.EntryString("C234567")) // eight bytes
		tag(p, rpm.SigLongArchiveSize, long(6<<32+1))
	}, patch: dropSignatureSize},
	{name: "signature-tag", make: func(p *rpmpack.RPM) { tag(p, 269, rpmpack.EntryString("abc")) }},
	{name: "signature-archive", make: func(p *rpmpack.RPM) { p.AddCustomSig(int(rpm.SigPayloadSize), numbers(4242)) }},
	{name: "signature-long-archive", make: func(p *rpmpack.RPM) { p.AddCustomSig(int(rpm.SigLongArchiveSize), long(7<<32+1)) }},
	{name: "header-archive", make: func(p *rpmpack.RPM) {
		tag(p, rpm.TagArchiveSize, numbers(11))
		p.AddCustomSig(int(rpm.SigPayloadSize), numbers(12))
	}},
	{name: "epoch", make: func(p *rpmpack.RPM) { tag(p, rpm.TagEpoch, numbers(4294967295)) }},
	{name: "markup", make: func(p *rpmpack.RPM) {
		const all = "<a href=\"x\">&amp; 'q'</a>\ttab\nline\rreturn ]]> é ☃ 😀"
		for _, at := range []rpm.Tag{rpm.TagSummary, rpm.TagDescription, rpm.TagURL, rpm.TagLicense, rpm.TagVendor, rpm.TagGroup,
			rpm.TagBuildHost, rpm.TagPackager, rpm.TagName, rpm.TagVersion, rpm.TagRelease, rpm.TagArch, rpm.TagSourceRPM} {
			tag(p, at, rpmpack.EntryString(all))
		}
		provide(p, dep{all, equal, "1:" + all})
		addFiles(p, "/etc/"+strings.ReplaceAll(all, "/", "_"))
		logged(p, logEntry{1, all, all})
	}},
	{name: "latin1", make: func(p *rpmpack.RPM) {
		const word = "caf\xe9 \x80\x9f na\xefve"
		for _, at := range []rpm.Tag{rpm.TagSummary, rpm.TagDescription, rpm.TagVendor, rpm.TagVersion} {
			tag(p, at, rpmpack.EntryString(word))
		}
		provide(p, dep{word, equal, word})
		addFiles(p, "/etc/"+word)
		logged(p, logEntry{1, word + " ", word})
	}},
	{name: "characters", make: func(p *rpmpack.RPM) {
		tag(p, rpm.TagSummary, rpmpack.EntryString("\u0080\u0085\u2028\u7fff\ufffd\U0001f600\x7f"))
		tag(p, rpm.TagDescription, rpmpack.EntryString("half of one at the end\xc3"))
		provide(p, dep{"a\xc0\xaf", 0, ""}, dep{"b\xed\xa0\x80.", 0, ""}, dep{"c\xef\xbf\xbe.", 0, ""}, dep{"d\xf8\x88\x80\x80\x80.", 0, ""},
			dep{"e\xc3", 0, ""}, dep{"f\xf4\x90\x80\x80.", 0, ""}, dep{"g\xf0\x9f\x98\x80", 0, ""}, dep{"h\xc2\x85\x7f", 0, ""}, dep{"i\xc1\x81\xc0\x80.", 0, ""})
	}},
	// With one of these the list of all packages is no XML any more.
	{name: "overlong", poison: true, make: func(p *rpmpack.RPM) { tag(p, rpm.TagSummary, rpmpack.EntryString("\xc0\xaf")) }},
	{name: "surrogate", poison: true, make: func(p *rpmpack.RPM) { tag(p, rpm.TagSummary, rpmpack.EntryString("\xed\xa0\x80")) }},
	{name: "noncharacter", poison: true, make: func(p *rpmpack.RPM) { tag(p, rpm.TagSummary, rpmpack.EntryString("\ufffe")) }},
	{name: "half-version", poison: true, make: func(p *rpmpack.RPM) { tag(p, rpm.TagVersion, rpmpack.EntryString("1\xe9")) }},
	{name: "control", make: func(p *rpmpack.RPM) { tag(p, rpm.TagSummary, rpmpack.EntryString("bell\x07")) }},
	{name: "control-unseen", make: func(p *rpmpack.RPM) { provide(p, dep{"a", 0, "1\x07"}) }},
	{name: "control-file", make: func(p *rpmpack.RPM) { addFiles(p, "/usr/share/\x1b[2J") }},
	{name: "control-latin1", make: func(p *rpmpack.RPM) { tag(p, rpm.TagSummary, rpmpack.EntryString("\xe9\x01")) }},
	{name: "control-dropped", make: func(p *rpmpack.RPM) { require(p, dep{"rpmlib(\x01)", 0, ""}) }},
	{name: "vendor-list", make: func(p *rpmpack.RPM) { tag(p, rpm.TagVendor, texts("one", "two")) }},
	{name: "packager-list", make: func(p *rpmpack.RPM) { tag(p, rpm.TagPackager, texts("alone")) }},
	{name: "url-number", make: func(p *rpmpack.RPM) { tag(p, rpm.TagURL, numbers(5)) }},
	{name: "size-16", make: func(p *rpmpack.RPM) { tag(p, rpm.TagSize, rpmpack.EntryUint16([]uint16{7})) }},
	{name: "size-text", make: func(p *rpmpack.RPM) { tag(p, rpm.TagSize, rpmpack.EntryString("7")) }},
	{name: "modes-32", make: func(p *rpmpack.RPM) { addFiles(p, "/etc/x"); tag(p, rpm.TagFileModes, numbers(0o40755)) }},
	{name: "one-name", make: func(p *rpmpack.RPM) {
		tag(p, rpm.TagConflictName, rpmpack.EntryString("a"))
		tag(p, rpm.TagConflictFlags, numbers(0))
		tag(p, rpm.TagConflictVersion, rpmpack.EntryString(""))
	}},
	{name: "epoch-two", make: func(p *rpmpack.RPM) { tag(p, rpm.TagEpoch, numbers(3, 4)) }},
	{name: "no-arch", patch: func(b []byte) []byte { return dropTag(b, rpm.TagArch) }, useless: true},
	{name: "no-release", patch: func(b []byte) []byte { return dropTag(b, rpm.TagRelease) }, useless: true},
	{name: "no-name", patch: func(b []byte) []byte { return dropTag(b, rpm.TagName) }, useless: true},
	{name: "empty-version", make: func(p *rpmpack.RPM) { tag(p, rpm.TagVersion, rpmpack.EntryString("")) }, useless: true},
	{name: "dir-index", make: func(p *rpmpack.RPM) { addFiles(p, "/etc/x"); tag(p, rpm.TagDirIndexes, numbers(0)) }},
	{name: "modular", make: func(p *rpmpack.RPM) {
		tag(p, 5096, rpmpack.EntryString("perl:5.32:8060020210901:9fe1d287"))
		provide(p, dep{"module(platform:el8)", 0, ""}, dep{"perl(:MODULE_COMPAT_5.32.1)", equal, "4:5.32.1-1"})
	}},
	{name: "uneven-lists", make: func(p *rpmpack.RPM) {
		tag(p, rpm.TagConflictName, texts("a", "b", "c"))
		tag(p, rpm.TagConflictFlags, numbers(0, 0))
		tag(p, rpm.TagConflictVersion, texts("", "", ""))
		tag(p, rpm.TagObsoleteName, texts("without flags"))
	}},
}

// patchEntry turns eight bytes into one number: the fields of an entry are not
// exported.
func patchEntry(e rpmpack.IndexEntry) rpmpack.IndexEntry {
	v := reflect.ValueOf(&e).Elem()
	set := func(name string, n int64) {
		f := v.FieldByName(name)
		reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem().SetInt(n)
	}
	set("rpmtype", int64(rpm.TypeInt64))
	set("count", 1)
	return e
}

// write makes the package in dir and returns its path.
func (f *fixture) write(dir string) (string, error) {
	p, err := rpmpack.NewRPM(rpmpack.RPMMetaData{
		Name: f.name, Version: "1", Release: "1", Arch: "noarch", Epoch: rpmpack.NoEpoch,
		Summary: "summary", Description: "description", Licence: "MIT", BuildHost: "localhost", BuildTime: time.Unix(1700000000, 0),
	})
	if err != nil {
		return "", err
	}
	if f.make != nil {
		f.make(p)
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return "", err
	}
	out := b.Bytes()
	if f.patch != nil {
		out = f.patch(out)
	}
	path := filepath.Join(dir, f.name+".rpm")
	if err := os.WriteFile(path, out, 0o644); err != nil {
		return "", err
	}
	return path, os.Chtimes(path, time.Time{}, time.Unix(1700000001, 5))
}

// theOracle is what createrepo_c writes for the fixtures, made once.
var theOracle struct {
	sync.Once
	dir  string
	text map[string]Lists // by name of the fixture; absent where it refused it
	err  error
}

func oracle(t *testing.T) map[string]Lists {
	t.Helper()
	program := testworld.Need(t, "createrepo_c")
	theOracle.Do(func() {
		theOracle.dir, theOracle.err = os.MkdirTemp("", "oracle")
		if theOracle.err != nil {
			return
		}
		for i := range fixtures {
			if _, err := fixtures[i].write(theOracle.dir); err != nil {
				theOracle.err = fmt.Errorf("%s: %w", fixtures[i].name, err)
				return
			}
		}
		theOracle.text, theOracle.err = createrepo(program, theOracle.dir)
	})
	if theOracle.err != nil {
		t.Fatal(theOracle.err)
	}
	return theOracle.text
}

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(theOracle.dir)
	os.Exit(code)
}

// createrepo runs createrepo_c on dir and cuts its lists into packages, by the
// name of their file without .rpm.
func createrepo(program, dir string) (map[string]Lists, error) {
	cmd := exec.Command(program, "--quiet", "--no-database", dir)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	// It complains of packages that it refuses, and goes on.
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("createrepo_c: %w\n%s", err, out)
	}
	var parts [3][]string
	for i, name := range listNames {
		files, err := filepath.Glob(filepath.Join(dir, Dir, "*-"+name+".xml.gz"))
		if err != nil || len(files) != 1 {
			return nil, fmt.Errorf("%s: %q, %v", name, files, err)
		}
		f, err := os.Open(files[0])
		if err != nil {
			return nil, err
		}
		defer f.Close()
		gz, err := gzip.NewReader(f)
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(gz)
		if err != nil {
			return nil, err
		}
		const end = "</package>\n"
		body := strings.TrimSuffix(string(text), closings[i])
		n := strings.Count(body, end)
		if want := string(opening(i, n)); !strings.HasPrefix(body, want) {
			return nil, fmt.Errorf("%s begins with %.200q, want %q", name, body, want)
		}
		body = body[len(opening(i, n)):]
		for range n {
			at := strings.Index(body, end) + len(end)
			parts[i] = append(parts[i], body[:at])
			body = body[at:]
		}
		if body != "" {
			return nil, fmt.Errorf("%s ends with %q", name, body)
		}
	}
	all := make(map[string]Lists)
	for i := range parts[0] {
		_, href, _ := strings.Cut(parts[0][i], `<location href="`)
		name, _, _ := strings.Cut(href, ".rpm")
		all[name] = Lists{[]byte(parts[0][i]), []byte(parts[1][i]), []byte(parts[2][i])}
	}
	return all, nil
}

// ours reads and renders a fixture.
func ours(t *testing.T, name string, off rules) (Lists, error) {
	t.Helper()
	var reader rpm.Reader
	p, err := reader.Read(filepath.Join(theOracle.dir, name+".rpm"))
	if err != nil {
		return Lists{}, err
	}
	r := Renderer{off: off}
	var l Lists
	err = r.Append(&l, p, name+".rpm")
	return l, err
}

func (l Lists) diff(other Lists) string {
	for i, pair := range [][2][]byte{{l.Primary, other.Primary}, {l.Filelists, other.Filelists}, {l.Other, other.Other}} {
		a, b := strings.SplitAfter(string(pair[0]), "\n"), strings.SplitAfter(string(pair[1]), "\n")
		for n := range max(len(a), len(b)) {
			var x, y string
			if n < len(a) {
				x = a[n]
			}
			if n < len(b) {
				y = b[n]
			}
			if x != y {
				return fmt.Sprintf("%s, line %d:\n%q, want\n%q", listNames[i], n+1, x, y)
			}
		}
	}
	return ""
}

func TestEveryFixtureIsWhatTheOracleWrites(t *testing.T) {
	want := oracle(t)
	for _, f := range fixtures {
		t.Run(f.name, func(t *testing.T) {
			got, err := ours(t, f.name, rules{})
			text, accepted := want[f.name]
			switch {
			case f.useless || f.poison:
				if err == nil || !accepted {
					t.Errorf("refused: %v; by createrepo_c: %v; want by us alone", err, !accepted)
				}
				if whole := append(append(append(text.Primary, text.Filelists...), text.Other...), ' '); f.poison && wellFormed(whole) == nil {
					t.Error("there is nothing wrong with it")
				}
			case err != nil && accepted:
				t.Errorf("refused: %v; createrepo_c takes it", err)
			case err == nil && !accepted:
				t.Error("accepted; createrepo_c refuses it")
			default:
				if d := got.diff(text); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

// needs says which fixture shows that a rule is followed.
var needs = map[string]string{
	"keepRPMLib":      "rpmlib",
	"keepOwnFile":     "own-file",
	"keepOwnProvide":  "own-provide",
	"keepDuplicate":   "duplicate",
	"keepAllLibc":     "libc",
	"libcInPlace":     "libc",
	"noPre":           "pre",
	"missingOKIsHard": "missing-ok",
	"oldWeakIgnored":  "old-weak",
	"allFilesPrimary": "files",
	"noEtc":           "files",
	"noBin":           "files",
	"noSendmail":      "files",
	"noDir":           "file-types",
	"noGhost":         "file-types",
	"allChangelogs":   "changelogs",
	"newestFirst":     "changelogs",
	"sameTimes":       "changelog-times",
	"authorSpaces":    "changelog-authors",
	"noLongSize":      "long-size",
	"noLongArchive":   "signature-long-archive",
	"noSignatureSize": "signature-archive",
	"archIsArch":      "source",
	"badEpochKept":    "bad-epoch",
	"noLatin1":        "latin1",
	"controlKept":     "control",
	"noOldFilenames":  "old-filenames",
	"noRetrofit":      "ancient",
	"emptyNamesKept":  "empty-name",
	"noSourceNone":    "source-lead",
}

func TestEachRuleIsNeededByItsFixture(t *testing.T) {
	want := oracle(t)
	typ := reflect.TypeFor[rules]()
	for i := range typ.NumField() {
		rule := typ.Field(i).Name
		t.Run(rule, func(t *testing.T) {
			name := needs[rule]
			if name == "" {
				t.Fatal("no fixture shows this rule; add one to needs")
			}
			var off rules
			f := reflect.ValueOf(&off).Elem().Field(i)
			reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem().SetBool(true)
			got, err := ours(t, name, off)
			text, accepted := want[name]
			if (err == nil) == accepted && got.diff(text) == "" {
				t.Errorf("without the rule %s is still what createrepo_c writes", name)
			}
		})
	}
}

func wellFormed(text []byte) error {
	dec := xml.NewDecoder(bytes.NewReader(text))
	for {
		if _, err := dec.Token(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// FuzzRender: whatever a header says, the lists are XML, and a package that is
// refused leaves no trace in them.
func FuzzRender(f *testing.F) {
	dir := f.TempDir()
	for i := range fixtures {
		if fixtures[i].name == "many-files" {
			continue
		}
		path, err := fixtures[i].write(dir)
		if err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[headerStart(b):])
	}
	nothing, err := rpm.ParseHeader([]byte("\x8e\xad\xe8\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x27\x0f\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x01\x00"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := rpm.ParseHeader(b)
		if err != nil {
			return
		}
		l := Lists{[]byte("<a>"), []byte("<a>"), []byte("<a>")}
		var r Renderer
		err = r.Append(&l, &rpm.Package{Signature: nothing, Header: h}, "a \"b\" <c>.rpm")
		for i, text := range [][]byte{l.Primary, l.Filelists, l.Other} {
			if err != nil && string(text) != "<a>" {
				t.Fatalf("%v, and %s has %q", err, listNames[i], text)
			}
			if err := wellFormed(append(text, "</a>"...)); err != nil {
				t.Fatalf("%s: %v\n%s", listNames[i], err, text)
			}
		}
	})
}
