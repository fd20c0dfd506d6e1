package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meridian/builder/repodata"
	"meridian/builder/rpm"
	"meridian/internal/durable"
	"meridian/internal/testworld"
)

// a repository in a directory of its own, with a cache beside it.
type repository struct {
	t       *testing.T
	dir     string
	options RepoOptions
	refused map[string]string
}

func newRepository(t *testing.T, packages int) *repository {
	t.Helper()
	r := &repository{t: t, dir: filepath.Join(t.TempDir(), "repo")}
	if err := os.MkdirAll(filepath.Join(r.dir, "Packages"), 0o755); err != nil {
		t.Fatal(err)
	}
	Generate(t, filepath.Join(r.dir, "Packages"), packages, 0)
	r.options = RepoOptions{Dir: r.dir, Cache: filepath.Join(filepath.Dir(r.dir), "cache"), Workers: 2}
	return r
}

// make runs Repo with change applied to the usual options.
func (r *repository) make(change func(*RepoOptions)) RepoReport {
	r.t.Helper()
	report, err := r.try(r.t.Context(), change)
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

func (r *repository) try(ctx context.Context, change func(*RepoOptions)) (RepoReport, error) {
	o := r.options
	r.refused = make(map[string]string)
	o.Refused = func(path string, why error) { r.refused[path] = why.Error() }
	if change != nil {
		change(&o)
	}
	return Repo(ctx, o)
}

func update(o *RepoOptions) { o.Update = true }

func (r *repository) path(elem ...string) string {
	return filepath.Join(append([]string{r.dir}, elem...)...)
}

// text returns a list without its compression, after checking the checksums of
// the whole repository.
func (r *repository) text(list string) string {
	r.t.Helper()
	return texts(r.t, r.dir)[list]
}

// texts reads a whole repository as a client does.
func texts(t *testing.T, dir string) map[string]string {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, repodata.Dir, repodata.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := repodata.ReadRepomd(f)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"revision": m.Revision}
	for _, d := range m.Data {
		body, err := os.ReadFile(filepath.Join(dir, d.Location))
		if err != nil {
			t.Fatal(err)
		}
		if err := repodata.Verify(bytes.NewReader(body), &d); err != nil {
			t.Fatal(err)
		}
		plain, err := repodata.Decompress(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(plain)
		if err != nil {
			t.Fatalf("%s: %v", d.Location, err)
		}
		if d.Open.Type != "" {
			open := repodata.Data{Location: d.Location, Checksum: d.Open, Size: d.OpenSize}
			if err := repodata.Verify(bytes.NewReader(text), &open); err != nil {
				t.Fatal(err)
			}
		}
		all[d.Type] = string(text)
	}
	return all
}

// oracle is what createrepo_c makes of the same packages.
func (r *repository) oracle(args ...string) map[string]string {
	r.t.Helper()
	program := testworld.Need(r.t, "createrepo_c")
	out := r.t.TempDir()
	cmd := exec.Command(program, append([]string{"--quiet", "--no-database", "--outputdir", out, r.dir}, args...)...)
	if b, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("createrepo_c: %v\n%s", err, b)
	}
	return texts(r.t, out)
}

func (r *repository) compare(args ...string) {
	r.t.Helper()
	got, want := texts(r.t, r.dir), r.oracle(args...)
	for _, list := range []string{"primary", "filelists", "other"} {
		if got[list] != want[list] {
			at := 0
			for at < len(got[list]) && at < len(want[list]) && got[list][at] == want[list][at] {
				at++
			}
			r.t.Errorf("%s differs at byte %d:\n%.300s\nwant\n%.300s", list, at, got[list][max(0, at-100):], want[list][max(0, at-100):])
		}
	}
}

// state is everything that is below the repository: names, inodes, times.
func (r *repository) state() map[string]rpm.Stamp {
	r.t.Helper()
	all := make(map[string]rpm.Stamp)
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() || d.Name() == lockName {
			return nil
		}
		all[path] = rpm.StampOf(info)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func (r *repository) write(name string, body []byte) string {
	r.t.Helper()
	path := r.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, body, 0o644); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func TestListsAreThoseOfTheOracle(t *testing.T) {
	r := newRepository(t, 300)
	// The same name in several directories, names that sort differently with
	// and without their directory, and names with surprises.
	for i, name := range []string{"a.rpm", "Packages/a.rpm", "Packages/z/a.rpm", "Packages-z/a.rpm", "B/a.rpm", "B.rpm", "b.rpm",
		"x & \"y\" <z>.rpm", "caf\u00e9.rpm", "latin\xe91.rpm", "new\nline.rpm", ".hidden.rpm", ".dir/in.rpm", "a+b~c^d%20.rpm"} {
		r.write(name, onePackage(t, 1000+i))
	}
	if err := os.Symlink("Packages", r.path("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a.rpm", r.path("linked.rpm")); err != nil {
		t.Fatal(err)
	}
	r.make(nil)
	r.compare()
	tests := map[string]struct {
		change func(*RepoOptions)
		args   []string
	}{
		"zst":              {func(o *RepoOptions) { o.Compression = repodata.Zstd }, nil},
		"baseurl":          {func(o *RepoOptions) { o.BaseURL = "https://example.org/a?b&c/" }, []string{"--baseurl", "https://example.org/a?b&c/"}},
		"excludes":         {func(o *RepoOptions) { o.Excludes = []string{"*/a.rpm", "*-001?[0-9]-*", "*0005*"} }, []string{"-x", "*/a.rpm", "-x", "*-001?[0-9]-*", "-x", "*0005*"}},
		"excludes by name": {func(o *RepoOptions) { o.Excludes = []string{"a.rpm", "B?rpm", ".hid*"} }, []string{"-x", "a.rpm", "-x", "B?rpm", "-x", ".hid*"}},
		"excludes by path": {func(o *RepoOptions) { o.Excludes = []string{"Packages/z/*", "B/?.rpm", "link/*"} }, []string{"-x", "Packages/z/*", "-x", "B/?.rpm", "-x", "link/*"}},
		"sha512":           {func(o *RepoOptions) { o.Checksum = "sha512" }, []string{"--checksum", "sha512"}},
		"workers":          {func(o *RepoOptions) { o.Workers = 7 }, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := &repository{t: t, dir: r.dir, options: r.options}
			r.make(tt.change)
			r.compare(tt.args...)
		})
	}
	t.Run("pkglist", func(t *testing.T) {
		r := &repository{t: t, dir: r.dir, options: r.options}
		list := filepath.Join(t.TempDir(), "list")
		if err := os.WriteFile(list, []byte("Packages/z/a.rpm\n\nb.rpm\r\nB.rpm\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(list)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		packages, err := ReadPackageList(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(list, []byte("Packages/z/a.rpm\nb.rpm\nB.rpm\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, excludes := range [][]string{nil, {"a.rpm", "B*"}, {"*/a.rpm"}, {"Packages/?/*"}} {
			r.make(func(o *RepoOptions) { o.Packages, o.Excludes = packages, excludes })
			args := []string{"--pkglist", list}
			for _, pattern := range excludes {
				args = append(args, "-x", pattern)
			}
			r.compare(args...)
		}
	})
}

// settle makes the changes of the packages old enough to be believed, which takes
// two seconds otherwise.
func (r *repository) settle() {
	r.t.Helper()
	c, err := openCache(r.options.Cache)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.close()
	w, err := newCacheWriter(r.options.Cache)
	if err != nil {
		r.t.Fatal(err)
	}
	defer w.discard()
	for {
		b, err := c.next()
		if err != nil {
			r.t.Fatal(err)
		}
		if b == nil {
			break
		}
		for i := range b.packages {
			b.packages[i].doubtful = false
		}
		if err := w.append(b); err != nil {
			r.t.Fatal(err)
		}
	}
	c.footer.Moved = [3]int64{}
	if err := w.commit(c.footer); err != nil {
		r.t.Fatal(err)
	}
}

func TestUpdateTouchesNothingWhenNothingChanged(t *testing.T) {
	for _, settled := range []bool{false, true} {
		t.Run(fmt.Sprintf("settled=%v", settled), func(t *testing.T) {
			r := newRepository(t, 200)
			bad := r.write("bad.rpm", []byte("no package"))
			if report := r.make(nil); !report.Changed || report.Read != 200 || report.Refused != 1 {
				t.Fatalf("%+v", report)
			}
			if settled {
				r.settle()
			}
			before := r.state()
			for range 2 {
				report := r.make(update)
				if report.Changed || report.Read != 0 || report.Packages != 200 || report.Refused != 1 {
					t.Errorf("%+v, refused %q; want 200 packages and nothing changed", report, r.refused)
				}
				if r.refused["bad.rpm"] == "" {
					t.Errorf("refused %q, want %s too", r.refused, bad)
				}
				if after := r.state(); !maps.Equal(before, after) {
					t.Errorf("files before %v\nand after %v", before, after)
				}
			}
			// Without a cache everything is read, and still nothing touched.
			report := r.make(func(o *RepoOptions) { o.Update, o.Cache = true, "" })
			if after := r.state(); report.Changed || report.Read != 200 || !maps.Equal(before, after) {
				t.Errorf("without a cache: %+v; files before %v\nand after %v", report, before, after)
			}
		})
	}
}

func TestUpdateReadsWhatChanged(t *testing.T) {
	for _, compression := range []repodata.Compression{repodata.Gzip, repodata.Zstd} {
		t.Run(compression.String(), func(t *testing.T) {
			r := newRepository(t, 400)
			r.options.Compression = compression
			r.make(nil)
			r.settle()
			names, err := filepath.Glob(r.path("Packages", "*.rpm"))
			if err != nil {
				t.Fatal(err)
			}
			steps := []struct {
				name   string
				change func() error
				read   int
			}{
				{"one more", func() error {
					return os.WriteFile(r.path("Packages", "package-00100-new.rpm"), onePackage(t, 7777), 0o644)
				}, 1},
				{"one less", func() error { return os.Remove(names[33]) }, 0},
				{"the first and the last less", func() error { return errors.Join(os.Remove(names[0]), os.Remove(names[399])) }, 0},
				{"another with the same name", func() error { return os.WriteFile(names[50], onePackage(t, 8888), 0o644) }, 1},
				{"another time", func() error { return os.Chtimes(names[60], time.Time{}, time.Unix(1600000000, 0)) }, 0},
				{"moved", func() error { return os.Rename(names[70], r.path("moved.rpm")) }, 1},
				{"one that is no package any more", func() error { return os.WriteFile(names[80], []byte("gone"), 0o644) }, 0},
				{"everything gone", func() error { return os.RemoveAll(r.path("Packages")) }, 0},
			}
			for _, step := range steps {
				if err := step.change(); err != nil {
					t.Fatal(err)
				}
				report := r.make(update)
				if !report.Changed || report.Read != step.read {
					t.Errorf("%s: %+v, want %d read", step.name, report, step.read)
				}
				r.compare()
				if again := r.make(update); again.Changed {
					t.Errorf("%s: changed again: %+v", step.name, again)
				}
			}
		})
	}
}

// A file whose size and modification time are what they were is read again when
// anything else says that it is another.
func TestTheKeyOfTheCacheDoesNotLie(t *testing.T) {
	r := newRepository(t, 3)
	victim := r.path("Packages", "package-00001-1.1-1.el9.x86_64.rpm")
	info, err := os.Stat(victim)
	if err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(victim)
	if err != nil {
		t.Fatal(err)
	}
	// The same length: another summary, as if it were another build.
	other := bytes.Replace(body, []byte("Package number 1"), []byte("Package number 9"), 1)
	put := func(t *testing.T, b []byte) {
		t.Helper()
		if err := os.WriteFile(victim, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(victim, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("another change time", func(t *testing.T) {
		r.make(nil)
		r.settle()
		put(t, other)
		if report := r.make(update); !report.Changed || !strings.Contains(r.text("primary"), "Package number 9") {
			t.Errorf("%+v; createrepo_c would not have seen it either, but we must", report)
		}
	})
	t.Run("the same change time, because the file system's clock has not ticked", func(t *testing.T) {
		put(t, body)
		r.make(nil)
		put(t, other)
		// The stamp in the cache is made that of the changed file.
		now, err := os.Stat(victim)
		if err != nil {
			t.Fatal(err)
		}
		r.forge(t, "package-00001-1.1-1.el9.x86_64.rpm", rpm.StampOf(now))
		if report := r.make(update); !report.Changed || !strings.Contains(r.text("primary"), "Package number 9") {
			t.Errorf("%+v", report)
		}
	})
	t.Run("only the links to it", func(t *testing.T) {
		r.make(nil)
		r.settle()
		if err := os.Link(victim, filepath.Join(t.TempDir(), "link")); err != nil {
			t.Fatal(err)
		}
		if report := r.make(update); report.Changed || report.Read != 0 {
			t.Errorf("%+v; its head says that it is the same", report)
		}
	})
}

// forge changes the stamp of one package in the cache.
func (r *repository) forge(t *testing.T, base string, stamp rpm.Stamp) {
	t.Helper()
	c, err := openCache(r.options.Cache)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	w, err := newCacheWriter(r.options.Cache)
	if err != nil {
		t.Fatal(err)
	}
	defer w.discard()
	for {
		b, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if b == nil {
			break
		}
		for i := range b.packages {
			if b.packages[i].at.base == base {
				b.packages[i].receipt.Stamp = stamp
			}
		}
		if err := w.append(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.commit(c.footer); err != nil {
		t.Fatal(err)
	}
}

func TestABrokenCacheIsNoCache(t *testing.T) {
	r := newRepository(t, 150)
	r.make(nil)
	r.settle()
	want := texts(t, r.dir)
	whole, err := os.ReadFile(r.options.Cache)
	if err != nil {
		t.Fatal(err)
	}
	broken := map[string][]byte{"empty": {}, "of something else": []byte("#!/bin/sh\n"), "half": whole[:len(whole)/2], "without its end": whole[:len(whole)-1]}
	for at := 0; at < len(whole); at += len(whole)/40 + 1 {
		b := bytes.Clone(whole)
		b[at] ^= 0x40
		broken[fmt.Sprintf("other at byte %d", at)] = b
	}
	for name, b := range broken {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(r.options.Cache, b, 0o600); err != nil {
				t.Fatal(err)
			}
			r := &repository{t: t, dir: r.dir, options: r.options}
			report, err := r.try(t.Context(), update)
			if err != nil {
				t.Fatal(err)
			}
			got := texts(t, r.dir)
			if report.Packages != 150 || report.Changed || got["primary"] != want["primary"] {
				t.Errorf("%+v", report)
			}
		})
	}
}

func TestADamagedListIsNotReused(t *testing.T) {
	r := newRepository(t, 150)
	r.make(nil)
	r.settle()
	want := r.text("primary")
	lists, err := filepath.Glob(r.path("repodata", "*-primary.xml.gz"))
	if err != nil || len(lists) != 1 {
		t.Fatal(lists, err)
	}
	b, err := os.ReadFile(lists[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(lists[0], b, 0o644); err != nil {
		t.Fatal(err)
	}
	if report := r.make(update); report.Read != 150 || r.text("primary") != want {
		t.Errorf("%+v, want everything read", report)
	}
}

func TestReceiptsSaveReading(t *testing.T) {
	r := newRepository(t, 100)
	var receipts []rpm.Receipt
	r.make(func(o *RepoOptions) { o.Receipt = func(one rpm.Receipt) { receipts = append(receipts, one) } })
	want := r.text("primary")
	if len(receipts) != 100 {
		t.Fatalf("%d receipts", len(receipts))
	}
	for _, one := range receipts {
		var reader rpm.Reader
		p, err := reader.Read(r.path(one.Path))
		if err != nil {
			t.Fatal(err)
		}
		p.Receipt.Path = one.Path
		if p.Receipt != one {
			t.Fatalf("receipt %+v, want %+v", one, p.Receipt)
		}
	}
	var file bytes.Buffer
	if err := rpm.WriteReceipts(&file, receipts); err != nil {
		t.Fatal(err)
	}
	read, err := rpm.ReadReceipts(&file)
	if err != nil || !slices.Equal(read, receipts) {
		t.Fatalf("%v; written and read: %v", err, read)
	}
	// They are for another directory, which has the same packages by links.
	other := newRepository(t, 0)
	for _, one := range receipts {
		if err := os.Link(r.path(one.Path), other.path(one.Path)); err != nil {
			t.Fatal(err)
		}
	}
	wrong := other.write("Packages/package-00000-1.0-1.el9.x86_64.rpm.new", onePackage(t, 4444))
	if err := os.Rename(wrong, strings.TrimSuffix(wrong, ".new")); err != nil {
		t.Fatal(err)
	}
	report := other.make(func(o *RepoOptions) { o.Receipts = receipts })
	if report.Read != 1 || report.Packages != 100 {
		t.Errorf("%+v, want only the one read that is another", report)
	}
	other.compare()
	// An unchanged repository tells them from its cache.
	var again []rpm.Receipt
	r.make(func(o *RepoOptions) {
		o.Update, o.Receipt = true, func(one rpm.Receipt) { again = append(again, one) }
	})
	for i := range again {
		again[i].CTime = receipts[i].CTime // the links
	}
	if !slices.Equal(again, receipts) {
		t.Error("the second run tells other receipts than the first")
	}
	if r.text("primary") != want {
		t.Error("receipts changed the list")
	}
}

func TestRefusedPackagesDoNotStopTheOthers(t *testing.T) {
	r := newRepository(t, 200)
	good := onePackage(t, 0)
	bad := map[string][]byte{
		"empty.rpm":        {},
		"text.rpm":         []byte(strings.Repeat("text\n", 100)),
		"truncated.rpm":    good[:len(good)/2],
		"Packages/p.rpm":   good[:96+16],
		"package-0010.rpm": append([]byte("\xed\xab\xee\xdb"), bytes.Repeat([]byte{0xff}, 500)...),
	}
	for name, b := range bad {
		r.write(name, b)
	}
	if err := os.Mkdir(r.path("directory.rpm"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", r.path("dangling.rpm")); err != nil {
		t.Fatal(err)
	}
	report := r.make(nil)
	if report.Packages != 200 || report.Refused != len(bad)+2 {
		t.Errorf("%+v", report)
	}
	for name := range bad {
		if why := r.refused[name]; why == "" || strings.Contains(why, "\n") || strings.Contains(why, r.dir) {
			t.Errorf("%s: %q; want a reason on one line", name, why)
		}
	}
	if r.refused["directory.rpm"] == "" || r.refused["dangling.rpm"] == "" {
		t.Errorf("refused %q", r.refused)
	}
	for name := range bad {
		if err := os.Remove(r.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	// createrepo_c counts what it refuses, unless that is not there.
	if err := errors.Join(os.Remove(r.path("directory.rpm")), os.Remove(r.path("dangling.rpm"))); err != nil {
		t.Fatal(err)
	}
	r.compare()
	if again := r.make(update); again.Changed || again.Refused != 0 {
		t.Errorf("%+v", again)
	}
	// The lists were written twice, so the cache has to know where they moved.
	r.write("Packages/another.rpm", onePackage(t, 3))
	if again := r.make(update); !again.Changed || again.Read != 1 {
		t.Errorf("%+v", again)
	}
	r.compare()
}

func TestRevisions(t *testing.T) {
	r := newRepository(t, 1)
	now := time.Now().Unix()
	r.make(nil)
	first := r.text("revision")
	if n := len(first); n < len(fmt.Sprint(now)) || first < fmt.Sprint(now) {
		t.Errorf("revision %s, want the time, %d", first, now)
	}
	r.make(func(o *RepoOptions) { o.Revision = "99999999999" })
	r.make(nil)
	if got := r.text("revision"); got != "100000000000" {
		t.Errorf("revision %s after 99999999999: it went back", got)
	}
	r.make(func(o *RepoOptions) { o.Revision = "a & b" })
	if got := r.text("revision"); got != "a & b" {
		t.Errorf("revision %q", got)
	}
	r.make(func(o *RepoOptions) { o.Revision, o.Timestamps = "1700000000", true })
	for path, stamp := range r.state() {
		if filepath.Base(filepath.Dir(path)) == repodata.Dir && stamp.MTime != 1700000000e9 {
			t.Errorf("%s is from %d, want the revision", path, stamp.MTime)
		}
	}
	if _, err := r.try(t.Context(), func(o *RepoOptions) { o.Timestamps = true }); err == nil {
		t.Error("timestamps from no revision: no error")
	}
}

func TestOldMetadataIsKeptAsLongAsAsked(t *testing.T) {
	r := newRepository(t, 1)
	r.write("repodata/notes.txt", []byte("mine"))
	for i := range 6 {
		r.write(fmt.Sprintf("Packages/more-%d.rpm", i), onePackage(t, i))
		r.make(func(o *RepoOptions) {
			o.Update, o.RetainOld = true, 2
			o.Revision, o.Timestamps = fmt.Sprint(1700000000+i), true
		})
	}
	for _, kind := range []string{"primary", "filelists", "other"} {
		files, err := filepath.Glob(r.path("repodata", "*-"+kind+".xml.gz"))
		if err != nil || len(files) != 3 {
			t.Errorf("%q, %v; want the present one and two", files, err)
		}
		for _, f := range files {
			info, err := os.Stat(f)
			if err != nil || info.ModTime().Unix() < 1700000003 {
				t.Errorf("%s of %v, %v; want the newest", f, info.ModTime(), err)
			}
		}
	}
	r.make(nil)
	if files, _ := filepath.Glob(r.path("repodata", "*-primary.xml.gz")); len(files) != 1 {
		t.Errorf("%q, want one", files)
	}
	if _, err := os.Stat(r.path("repodata", "notes.txt")); err != nil {
		t.Errorf("what is not metadata is gone: %v", err)
	}
}

func TestTwoAtOnceExcludeEachOther(t *testing.T) {
	r := newRepository(t, 1)
	lock, err := durable.TryLock(r.path(lockName))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if _, err := r.try(t.Context(), nil); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("%v, want ErrLocked", err)
	}
}

func TestAnInterruptedRunLeavesTheOldRepository(t *testing.T) {
	r := newRepository(t, 300)
	r.make(nil)
	r.write("Packages/new.rpm", onePackage(t, 1))
	before := r.state()
	for _, after := range []int{0, 1, 100} {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := r.try(ctx, func(o *RepoOptions) {
			if after == 0 {
				cancel()
			}
			o.Progress = func(done, total int) {
				if done >= after {
					cancel()
				}
			}
		})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("after %d packages: %v", after, err)
		}
		if now := r.state(); !maps.Equal(before, now) {
			t.Errorf("after %d packages: files %v\nwere %v", after, slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(before)))
		}
	}
	r.make(update)
	r.compare()
}

// What modifyrepo_c or another program has added stays when it is whole.
func TestUpdateKeepsWhatOthersAdded(t *testing.T) {
	r := newRepository(t, 2)
	r.make(nil)
	out := repodata.Output{Dir: r.path("repodata"), Checksum: "sha256", Time: time.Unix(1700000000, 0)}
	added, err := repodata.Store(out, "productid", "productid", true, strings.NewReader("a certificate"))
	if err != nil {
		t.Fatal(err)
	}
	name := r.path("repodata", "repomd.xml")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseRepomd(text)
	if err != nil {
		t.Fatal(err)
	}
	m.Data = append(m.Data, added)
	if err := os.WriteFile(name, m.Marshal(), 0o644); err != nil {
		t.Fatal(err)
	}
	if report := r.make(update); report.Changed {
		t.Errorf("%+v; nothing changed", report)
	}
	r.write("Packages/new.rpm", onePackage(t, 9))
	if report := r.make(update); !report.Changed || r.text("productid") != "a certificate" {
		t.Errorf("%+v, productid %q", report, r.text("productid"))
	}
	if err := os.WriteFile(r.path(added.Location), []byte("torn"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := r.state()
	if _, err := r.try(t.Context(), update); err == nil || !strings.Contains(err.Error(), "keep productid: ") {
		t.Errorf("%v, want that it cannot be kept", err)
	}
	if !maps.Equal(before, r.state()) {
		t.Error("something was written")
	}
	if report := r.make(nil); !report.Changed || r.text("productid") != "" {
		t.Errorf("without update: %+v", report)
	}
}

func TestFilesThatArePassedOnAreChecked(t *testing.T) {
	r := newRepository(t, 1)
	r.make(nil)
	before := r.state()
	tests := []struct {
		name, text string
		set        func(*RepoOptions, string)
		want       string
	}{
		{"groups without root", "x", func(o *RepoOptions, f string) { o.Groups = f }, "not XML"},
		{"groups of another kind", "<updates/>", func(o *RepoOptions, f string) { o.Groups = f }, `"updates"; want "comps"`},
		{"groups that end early", "<comps><group>", func(o *RepoOptions, f string) { o.Groups = f }, "unexpected EOF"},
		{"a group twice", "<comps><group><id>a</id></group><group><id>a</id></group></comps>", func(o *RepoOptions, f string) { o.Groups = f }, `group "a" twice`},
		{"an update without id", "<updates>\n<update><title>x</title></update></updates>", func(o *RepoOptions, f string) { o.Updates = f }, "line 2: has a update without id"},
		{"no modules", "", func(o *RepoOptions, f string) { o.Modules = f }, "is empty"},
		{"modules that are no YAML", "a: b: c\n", func(o *RepoOptions, f string) { o.Modules = f }, "document 1"},
		{"another document", "document: x\nversion: 1\ndata: {}\n", func(o *RepoOptions, f string) { o.Modules = f }, `document 1 is "x"`},
		{"a module without name", "document: modulemd\nversion: 2\ndata: {stream: '1'}\n", func(o *RepoOptions, f string) { o.Modules = f }, "no data.name"},
		{"a second document without version", "document: modulemd-defaults\nversion: 1\ndata: {module: a}\n---\ndocument: modulemd\n", func(o *RepoOptions, f string) { o.Modules = f }, "document 2 has no version"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := r.try(t.Context(), func(o *RepoOptions) { tt.set(o, file) })
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), file+": ") {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if !maps.Equal(before, r.state()) {
				t.Error("something was written")
			}
		})
	}
}
