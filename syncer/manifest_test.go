package syncer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// write makes files below dir: name → content. A name that ends in a slash is a
// directory.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, name)
		parent := filepath.Dir(file)
		if strings.HasSuffix(name, "/") {
			parent = file
		}
		if err := os.MkdirAll(parent, 0o755); err != nil {
			t.Fatal(err)
		}
		if parent == file {
			continue
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// age sets the time of every file below dir to one that is long ago.
func age(t testing.TB, dir string, when time.Time) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			err = os.Chtimes(p, when, when)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Names that exist and that nobody should have: the last is not UTF-8.
var oddNames = []string{"a b", "new\nline", "tab\there", `back\slash`, "\x01\x7f", "ünï", "not utf-8 \xff\xfe", `\#012`, " -> ", "-rf", "#", "[Files]", "end"}

func TestManifestPrintsAndReadsBack(t *testing.T) {
	dir := t.TempDir()
	for _, n := range oddNames {
		write(t, dir, map[string]string{n: "content of " + n})
	}
	write(t, dir, map[string]string{"repo/repodata/repomd.xml": "<repomd/>", "empty/": "", "TIME": "1", "manifest.gz": "", ".meridian/lock/x": ""})
	if err := os.Symlink("repo/repodata", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	m, err := Read(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The names, and: repo, repodata, repomd.xml, empty, link.
	if want := len(oddNames) + 5; len(m.Entries) != want {
		t.Errorf("%d entries, want %d: markers and state are not part of a tree", len(m.Entries), want)
	}
	if e := m.Lookup("repo/repodata/repomd.xml"); e == nil || e.SHA256 == "" || !e.Hashed || e.Size != 9 {
		t.Errorf("repomd.xml is %+v, want size 9 and both checksums", e)
	}
	if e := m.Lookup("a b"); e == nil || e.SHA256 != "" || !e.Hashed {
		t.Errorf("a file outside repodata is %+v, want xxh3 alone", e)
	}
	zipped, err := m.zipped()
	if err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer
	if err := m.Write(&plain); err != nil {
		t.Fatal(err)
	}
	for form, text := range map[string][]byte{"plain": plain.Bytes(), "compressed": zipped} {
		back, err := ReadManifest(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("%s: %v\n%s", form, err, &plain)
		}
		if !reflect.DeepEqual(back, m) {
			t.Errorf("%s: read back\n%+v, want\n%+v", form, back, m)
		}
	}
}

// Any part of a manifest, and any manifest with one byte changed, is refused.
func TestManifestThatIsNotWholeIsRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1", "b/repodata/c": "2"})
	m, err := Read(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := m.Write(&b); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	for n := range whole {
		if _, err := ReadManifest(bytes.NewReader(whole[:n])); err == nil {
			t.Errorf("its first %d of %d bytes were accepted", n, len(whole))
		}
		changed := slices.Clone(whole)
		changed[n] ^= 1
		if _, err := ReadManifest(bytes.NewReader(changed)); err == nil {
			t.Errorf("accepted with byte %d changed:\n%s", n, changed)
		}
	}
	if _, err := ReadManifest(bytes.NewReader(append(whole, 'x'))); err == nil {
		t.Error("accepted with a byte too many")
	}
}

func TestManifestOfAHostileServerIsRefused(t *testing.T) {
	for _, tt := range []struct{ name, line string }{
		{"a path above the tree", "d\t../etc"},
		{"an absolute path", "d\t/etc"},
		{"a path that goes up in the middle", "d\ta/../../etc"},
		{"the tree itself", "d\t."},
		{"no path", "d\t"},
		{"a NUL", `d	a\x00b`},
		{"a size that is not one", "f\t-1\t0.000000000\t-\t-\ta"},
		{"a size with a sign", "f\t+1\t0.000000000\t-\t-\ta"},
		{"an unknown type", "b\ta"},
		{"too few fields", "f\t1\ta"},
		{"a needless escape", `d	\x61`},
		{"an escape cut off", `d	a\x6`},
		{"paths out of order", "d\tb\nd\ta"},
		{"a path twice", "d\ta\nd\ta"},
		{"a long line", "d\t" + strings.Repeat("a", maxLine)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := manifestMagic + "\t0.000000000\n" + tt.line + "\nend\t1\t0\n"
			_, err := ReadManifest(strings.NewReader(text))
			if err == nil || strings.Contains(err.Error(), "checksum") {
				t.Errorf("%q: %v, want it refused for its line", tt.line, err)
			}
		})
	}
}

func TestTimeListIsWhatMirrorsOfFedoraRead(t *testing.T) {
	at := time.Unix(1767700953, 999).UTC()
	sum := strings.Repeat("ab", 32)
	m := &Manifest{Entries: []Entry{
		{Path: "linux", Type: Dir},
		{Path: "linux/link", Type: Link, Target: "README"},
		{Path: "linux/README", Type: File, Size: 282, ModTime: at},
		{Path: "linux/repodata/repomd.xml", Type: File, Size: 3, ModTime: at, SHA256: sum},
	}}
	var b bytes.Buffer
	if err := m.WriteTimeList(&b); err != nil {
		t.Fatal(err)
	}
	want := "[Version]\n2\n\n[Files]\n" +
		"0\td\t0\tlinux\n0\tl\t0\tlinux/link\n1767700953\tf\t282\tlinux/README\n1767700953\tf\t3\tlinux/repodata/repomd.xml\n" +
		"\n[Checksums SHA1]\n\n[Checksums SHA256]\n" + sum + "\tlinux/repodata/repomd.xml\n\n[End]\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &b, want)
	}
}

func TestTimeListRefusesNamesByName(t *testing.T) {
	m := &Manifest{Entries: []Entry{{Path: "fine", Type: Dir}, {Path: "new\nline", Type: Dir}, {Path: "tab\t", Type: Dir}}}
	var b bytes.Buffer
	err := m.WriteTimeList(&b)
	if err == nil || !strings.Contains(err.Error(), `"new\nline"`) || !strings.Contains(err.Error(), `"tab\t"`) || b.Len() > 0 {
		t.Errorf("error %v after %d bytes; want both names and nothing written", err, b.Len())
	}
}

// What has not changed is not read again. A file of the same size and time with
// other content shows that.
func TestReadAgainReadsOnlyWhatChanged(t *testing.T) {
	dir := t.TempDir()
	long := time.Now().Add(-time.Hour)
	write(t, dir, map[string]string{"same": "one", "touched": "one", "grown": "one", "repodata/x": "one"})
	age(t, dir, long)
	first, err := Read(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"same": "two", "touched": "two", "grown": "three", "fresh": "one"})
	age(t, dir, long)
	if err := os.Chtimes(filepath.Join(dir, "touched"), long, long.Add(time.Nanosecond)); err != nil {
		t.Fatal(err)
	}
	second, err := Read(t.Context(), dir, first)
	if err != nil {
		t.Fatal(err)
	}
	for name, again := range map[string]bool{"same": false, "touched": true, "grown": true, "repodata/x": false} {
		changed := first.Lookup(name).XXH3 != second.Lookup(name).XXH3
		if changed != again {
			t.Errorf("%s was read again: %v, want %v", name, changed, again)
		}
	}
	if e := second.Lookup("fresh"); !e.Hashed {
		t.Error("a new file was not hashed")
	}
	if first.Lookup("repodata/x").SHA256 != second.Lookup("repodata/x").SHA256 {
		t.Error("the sha256 was not carried over")
	}
}

// A file that was written while the previous manifest was made may have changed
// after it was hashed, without another time.
func TestReadAgainDoesNotTrustTheSameSecond(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"f": "one"})
	first, err := Read(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := first.Lookup("f").ModTime
	write(t, dir, map[string]string{"f": "two"})
	if err := os.Chtimes(filepath.Join(dir, "f"), at, at); err != nil {
		t.Fatal(err)
	}
	second, err := Read(t.Context(), dir, first)
	if err != nil {
		t.Fatal(err)
	}
	if first.Lookup("f").XXH3 == second.Lookup("f").XXH3 {
		t.Error("a change within the same tick of the clock was missed")
	}
}

func TestReadRefusesWhatLeadsOutOfTheTree(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, map[string]string{"secret": "s"})
	links := map[string]string{
		"absolute":      outside,
		"up":            "../" + filepath.Base(outside),
		"deep/up":       "../../x",
		"through":       "absolute/secret",
		"missing/up":    "nothing/../../../x",
		"fine":          "deep",
		"deep/fine":     "../deep",
		"deep/dangling": "../not/yet/there",
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"deep/": "", "missing/": ""})
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Read(t.Context(), dir, nil)
	if err == nil {
		t.Fatal("nothing was refused")
	}
	for _, bad := range []string{`"absolute"`, `"up"`, `"deep/up"`, `"through"`, `"missing/up"`, `"pipe" is a pipe`} {
		if !strings.Contains(err.Error(), bad) {
			t.Errorf("the error does not name %s:\n%v", bad, err)
		}
	}
	for _, good := range []string{`"fine"`, `"deep/fine"`, `"deep/dangling"`} {
		if strings.Contains(err.Error(), good) {
			t.Errorf("the error names %s, which stays inside:\n%v", good, err)
		}
	}
}

func TestReadOfNothing(t *testing.T) {
	if _, err := Read(t.Context(), filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want %v in it", err, fs.ErrNotExist)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, t.TempDir(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v in it", err, context.Canceled)
	}
}

func TestReadOfAHugeDirectory(t *testing.T) {
	n := 5_000
	if soak {
		n = 100_000
	}
	dir := t.TempDir()
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%06d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m, err := Read(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Entries) != n {
		t.Errorf("%d entries, want %d", len(m.Entries), n)
	}
	if !slices.IsSortedFunc(m.Entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) }) {
		t.Error("the entries are not sorted")
	}
}

func TestVerifyNamesWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"good": "1", "gone": "1", "torn": "1234", "grown": "1", "flipped": "1234", "typed": "1", "d/": ""})
	if err := os.Symlink("good", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	m, err := Read(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := Verify(t.Context(), dir, m, 0); err != nil || len(v.Findings) != 0 || v.Files != 6 || v.Hashed != 6 || v.Bytes != 12 {
		t.Fatalf("the tree itself: %+v, %v; want 6 files, 12 bytes and no finding", v, err)
	}
	for _, name := range []string{"gone", "typed", "link"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir, map[string]string{"torn": "12", "grown": "1234", "flipped": "1235", "typed/": "", "more/new": "x"})
	if err := os.Symlink("d", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	v, err := Verify(t.Context(), dir, m, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range v.Findings {
		got = append(got, f.Kind+" "+f.Path)
	}
	want := []string{"changed flipped", "missing gone", "torn grown", "changed link", "extra more", "extra more/new", "torn torn", "changed typed"}
	if !slices.Equal(got, want) {
		t.Errorf("findings %q, want %q", got, want)
	}
}

func TestVerifyOfASample(t *testing.T) {
	dir := t.TempDir()
	for i := range 50 {
		write(t, dir, map[string]string{fmt.Sprint("f", i): "1234"})
	}
	m, err := Read(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		write(t, dir, map[string]string{fmt.Sprint("f", i): "1235"})
	}
	if err := os.Remove(filepath.Join(dir, "f0")); err != nil {
		t.Fatal(err)
	}
	v, err := Verify(t.Context(), dir, m, 5)
	if err != nil {
		t.Fatal(err)
	}
	// The missing one is seen whatever the sample.
	if v.Hashed != 5 || len(v.Findings) != 6 {
		t.Errorf("%d files read, %d findings; want 5 and 6", v.Hashed, len(v.Findings))
	}
}

func TestVerifyTreeWithoutManifest(t *testing.T) {
	_, err := VerifyTree(t.Context(), t.TempDir(), 0)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "syncer manifest") {
		t.Errorf("error %v, want one that says how to make a manifest", err)
	}
}

// No input makes it panic, and what is accepted prints back as it was.
func FuzzManifest(f *testing.F) {
	dir := f.TempDir()
	for _, n := range oddNames {
		write(f, dir, map[string]string{n: n})
	}
	m, err := Read(f.Context(), dir, nil)
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if err := m.Write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(manifestMagic + "\t0.000000000\nd\ta\nend\t1\t0\n"))
	f.Add([]byte("\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ReadManifest(bytes.NewReader(text))
		// The checksum keeps inputs out that are otherwise fine, so lines are also
		// tried by themselves.
		if err == nil {
			for _, e := range m.Entries {
				if !inside(e.Path) {
					t.Errorf("path %q is outside the tree", e.Path)
				}
			}
			var b bytes.Buffer
			if err := m.Write(&b); err != nil {
				t.Fatal(err)
			}
			if text[0] != 0x1f && !bytes.Equal(b.Bytes(), text) {
				t.Errorf("%q prints back as %q", text, &b)
			}
		}
		for line := range bytes.Lines(text) {
			m := new(Manifest)
			s := strings.TrimSuffix(string(line), "\n")
			if m.parseLine(s) == nil {
				if back := string(m.Entries[0].append(nil)); back != s+"\n" {
					t.Errorf("%q prints back as %q", s, back)
				}
			}
		}
	})
}
