package repodata

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"meridian/internal/testworld"
)

const digits = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// document makes a repomd.xml of one entry, changed in one place.
func document(old, new string) string {
	const text = `<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">
  <revision>1700000000</revision>
  <data type="primary">
    <checksum type="sha256">` + digits + `</checksum>
    <open-checksum type="sha256">` + digits + `</open-checksum>
    <location href="repodata/primary.xml.gz"/>
    <timestamp>1700000001</timestamp>
    <size>12</size>
    <open-size>34</open-size>
  </data>
</repomd>
`
	if old != "" && !strings.Contains(text, old) {
		panic(old)
	}
	return strings.Replace(text, old, new, 1)
}

func TestRepomdIsReadAndWritten(t *testing.T) {
	want := &Repomd{Revision: "1700000000", Data: []Data{{
		Type: "primary", Checksum: Checksum{"sha256", digits}, Open: Checksum{"sha256", digits},
		Location: "repodata/primary.xml.gz", Timestamp: 1700000001, Size: 12, OpenSize: 34,
	}}}
	got, err := ReadRepomd(strings.NewReader(document("", "")))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v, want %+v", got, err, want)
	}
	if text := string(want.Marshal()); text != document("", "") {
		t.Errorf("written:\n%s\nread:\n%s", text, document("", ""))
	}
}

func TestRepomdOfOthers(t *testing.T) {
	tests := []struct {
		name, old, new string
		check          func(*Repomd) bool
	}{
		{"without revision", "<revision>1700000000</revision>", "", func(m *Repomd) bool { return m.Revision == "" }},
		{"a revision of words", "1700000000", " 2026-01-01 ", func(m *Repomd) bool { return m.Revision == "2026-01-01" }},
		{"the fraction that yum wrote", "1700000001", "1700000001.25", func(m *Repomd) bool { return m.Data[0].Timestamp == 1700000001 }},
		{"without sizes", "<size>12</size>", "", func(m *Repomd) bool { return m.Data[0].Size == -1 }},
		{"without what is inside", "<open-size>34</open-size>", "", func(m *Repomd) bool { return m.Data[0].OpenSize == -1 }},
		{"capital digits", digits + "</checksum>", strings.ToUpper(digits) + "</checksum>", func(m *Repomd) bool { return m.Data[0].Checksum.Value == digits }},
		{"yum's name for sha1", `<checksum type="sha256">` + digits, `<checksum type="sha">` + digits[:40], func(m *Repomd) bool { return m.Data[0].Checksum.Type == "sha" }},
		{"elements that we do not know", "<size>", "<header-size>1</header-size><database_version>10</database_version><size>", func(m *Repomd) bool { return m.Data[0].Size == 12 }},
		{"tags", "<revision>", `<tags><distro cpeid="cpe:/o:x">X</distro></tags><revision>`, func(m *Repomd) bool { return m.Revision == "1700000000" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := ReadRepomd(strings.NewReader(document(tt.old, tt.new)))
			if err != nil || !tt.check(m) {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
}

func TestHostileRepomdIsRefused(t *testing.T) {
	entry := document("", "")[strings.Index(document("", ""), "  <data"):strings.Index(document("", ""), "</repomd>")]
	var many strings.Builder
	for i := range maxEntries {
		many.WriteString(strings.Replace(entry, `"primary"`, fmt.Sprintf(`"t%d"`, i), 1))
	}
	href := func(s string) string { return document("repodata/primary.xml.gz", s) }
	tests := []struct{ name, text, want string }{
		{"nothing", "", "is not XML"},
		{"a page with status 200", "<!DOCTYPE html><html><body>404</body></html>", "document type"},
		{"another root", "<html/>", "expected element type <repomd>"},
		{"only a root", "<repomd/>", "names no metadata"},
		{"cut off", document("", "")[:300], "unexpected EOF"},
		{"two roots", document("", "") + document("<?xml version=\"1.0\" encoding=\"UTF-8\"?>", ""), "after its root"},
		{"text behind the root", document("", "") + "x", "outside of its root"},
		{"entities", document("<repomd", "<!DOCTYPE r [<!ENTITY a \"aaaa\">]><repomd"), "document type"},
		{"an entity that nobody defined", document("1700000000", "&a;"), "invalid character entity"},
		{"nesting", strings.Repeat("<a>", 50), "nested deeper"},
		{"too many entries", document("  <data", many.String()+"  <data"), "more than 256 entries"},
		{"too long", document("<revision>", strings.Repeat(" ", MaxRepomd)+"<revision>"), "longer than"},
		{"a revision without end", document("1700000000", strings.Repeat("1", 5000)), "revision of 5000 bytes"},
		{"a revision for the terminal", document("1700000000", "\u009b31m\u2028"), "control character"},
		{"another encoding", document("UTF-8", "ISO-8859-1"), "ISO-8859-1"},
		{"no type", document(`"primary"`, `""`), "has no type"},
		{"an entry twice", document("  <data", entry+"  <data"), "there twice"},
		{"no checksum", document(`<checksum type="sha256">`+digits+"</checksum>", ""), "no algorithm"},
		{"an algorithm nobody knows", document(`<checksum type="sha256"`, `<checksum type="crc32"`), `"crc32" is no algorithm`},
		{"too few digits", document(digits+"</checksum>", digits[1:]+"</checksum>"), "64 hexadecimal digits"},
		{"digits that are none", document(digits+"</checksum>", strings.Repeat("g", 64)+"</checksum>"), "64 hexadecimal digits"},
		{"a bad checksum inside", document(digits+"</open-checksum>", "</open-checksum>"), "open-checksum"},
		{"no location", href(""), "has no location"},
		{"a location above", href("../other/primary.xml.gz"), "inside the repository"},
		{"a location above, later", href("repodata/../../x"), "inside the repository"},
		{"the repository itself", href("."), "inside the repository"},
		{"an absolute location", href("/etc/passwd"), "plain relative path"},
		{"another server", href("https://example.org/primary.xml.gz"), "plain relative path"},
		{"another server without scheme", href("//example.org/x"), "plain relative path"},
		{"a location with an escape", href("repodata/%2e%2e/x"), "plain relative path"},
		{"a location with a query", href("repodata/x?y"), "plain relative path"},
		{"a location of another system", href(`..\x`), "plain relative path"},
		{"a location with a newline", href("repodata/&#10;x"), "control character"},
		{"a base", document("<location ", `<location xml:base="https://example.org/" `), "another server"},
		{"a negative size", document("<size>12", "<size>-12"), "no number of bytes"},
		{"a size that overflows", document("<size>12", "<size>99999999999999999999"), "no number of bytes"},
		{"a time that is none", document("1700000001", "yesterday"), `timestamp "yesterday"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := ReadRepomd(strings.NewReader(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "repomd.xml: ") || len(err.Error()) > 400 {
				t.Errorf("%+v, %v, want an error with %q", m, err, tt.want)
			}
		})
	}
}

func TestAReaderThatFailsIsNotAnEmptyFile(t *testing.T) {
	broken := errors.New("broken")
	if _, err := ReadRepomd(io.MultiReader(strings.NewReader("<repomd>"), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("%v, want %v", err, broken)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// What createrepo_c writes with everything that it can write.
func TestRepomdOfTheOracleIsRead(t *testing.T) {
	program := testworld.Need(t, "createrepo_c")
	dir := t.TempDir()
	groups := filepath.Join(t.TempDir(), "comps.xml")
	if err := os.WriteFile(groups, []byte("<comps/>"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--quiet", "--database", "--groupfile", groups, "--distro", "cpe:/o:x,X", "--content", "c", "--repo", "r", "--revision", "7 & 8", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("createrepo_c: %v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, Dir, Name))
	if err != nil {
		t.Fatal(err)
	}
	m, err := ReadRepomd(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if m.Revision != "7 & 8" || len(m.Data) != 8 {
		t.Errorf("%+v", m)
	}
	for _, d := range m.Data {
		f, err := os.Open(filepath.Join(dir, d.Location))
		if err != nil {
			t.Fatal(err)
		}
		if err := Verify(f, &d); err != nil {
			t.Error(err)
		}
		f.Close()
	}
}

// FuzzRepomd: what is accepted is written and read to the same.
func FuzzRepomd(f *testing.F) {
	f.Add([]byte(document("", "")))
	f.Add([]byte(document("<timestamp>1700000001</timestamp>", "")))
	f.Add([]byte("<repomd><data type='a'><checksum type='MD5'>" + digits[:32] + "</checksum><location href='a/b'/></data></repomd>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ReadRepomd(bytes.NewReader(text))
		if err != nil {
			return
		}
		again, err := ReadRepomd(bytes.NewReader(m.Marshal()))
		if err != nil {
			t.Fatalf("%v\n%s", err, m.Marshal())
		}
		if !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v\n%+v", m, again)
		}
		for _, d := range m.Data {
			if strings.HasPrefix(d.Location, "/") || strings.HasPrefix(filepath.Join("/repository", d.Location), "/repository/") == false {
				t.Fatalf("location %q", d.Location)
			}
			if m.Lookup(d.Type) == nil {
				t.Fatalf("no %q", d.Type)
			}
		}
	})
}
