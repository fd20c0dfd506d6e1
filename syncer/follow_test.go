package syncer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"meridian/internal/testworld"
	"meridian/signer/verify"
)

// mirror is a tree that follows a tier0.
type mirror struct {
	tier0 // the tree, for what clients read of it
	f     Follower
}

// mirrorOf has an empty tree.
func mirrorOf(t testing.TB, up tier0) mirror {
	t.Helper()
	dir := t.TempDir()
	return mirror{tier0{dest: dir, dir: dir}, Follower{Upstream: up.dest, Tree: dir, Rsync: up.job.Rsync}}
}

func (m mirror) mustFollow(t testing.TB) DestReport {
	t.Helper()
	report, err := Follow(t.Context(), m.f)
	if err != nil {
		t.Fatal(err)
	}
	return report.Dests[0]
}

// publishTo publishes generation n to up, from a directory of its own.
func publishTo(t testing.TB, up tier0, n int) {
	t.Helper()
	src := t.TempDir()
	release(t, src, n)
	up.mustPublish(t, Job{}, src)
}

// followed is a directory with generation 1, and a tree that has followed it.
func followed(t testing.TB) (up tier0, m mirror) {
	t.Helper()
	up = directory(t)
	publishTo(t, up, 1)
	m = mirrorOf(t, up)
	m.mustFollow(t)
	return up, m
}

func TestFollow(t *testing.T) {
	eachTier(t, func(t *testing.T, up tier0) {
		m, src := mirrorOf(t, up), t.TempDir()
		release(t, src, 1)
		if err := os.Symlink("9", filepath.Join(src, "latest")); err != nil {
			t.Fatal(err)
		}
		write(t, src, map[string]string{"not utf-8 \xff": "1", "#odd ;name [x]*": "2", "9/;x": "3", "10/empty/": ""})
		up.mustPublish(t, Job{}, src)

		got := m.mustFollow(t)
		if got.Generation != 1 || got.Current || got.Added != 21 || got.Deleted != 0 {
			t.Errorf("first run: %+v, want generation 1 with 21 files and links", got)
		}
		m.wantGeneration(t, 1)
		wantSameTree(t, up.dir, m.dir)

		// Nothing changes when the upstream does not, and nobody is asked for much.
		before := snapshot(t, m.dir)
		got = m.mustFollow(t)
		if !got.Current || got.Generation != 1 || got.Sent > 3000 {
			t.Errorf("the same again: %+v, want nothing", got)
		}
		if after := snapshot(t, m.dir); !maps.Equal(before, after) {
			t.Errorf("the same again changed %q", difference(before, after))
		}

		// A publication of nothing new is another TIME.
		up.mustPublish(t, Job{now: func() time.Time { return time.Now().Add(time.Hour) }}, src)
		if got = m.mustFollow(t); !got.Current {
			t.Errorf("another TIME: %+v, want nothing else", got)
		}
		after := snapshot(t, m.dir)
		if changed := difference(before, after); !slices.Equal(changed, []string{StateDir + "/upstream/TIME", TimeFile}) {
			t.Errorf("another TIME changed %q", changed)
		}
		if here, there := read(t, m.dir, TimeFile), read(t, up.dir, TimeFile); here != there {
			t.Errorf("TIME is %q, want that of the upstream, %q", here, there)
		}

		// The next generation leaves the one before it readable.
		_, old, err := overFiles(m.dir).metadataOf(releaseRepos[0])
		if err != nil {
			t.Fatal(err)
		}
		release(t, src, 2)
		remove(t, src, "#odd ;name [x]*")
		up.mustPublish(t, Job{AcceptClock: true}, src)
		if got = m.mustFollow(t); got.Generation != 2 || got.Changed != 3 || got.Added != 14 {
			t.Errorf("second generation: %+v, want 14 added and 3 changed", got)
		}
		m.wantGeneration(t, 2)
		wantSameTree(t, up.dir, m.dir)
		if err := overFiles(m.dir).packages(releaseRepos[0], old); err != nil {
			t.Errorf("with metadata of generation 1: %v", err)
		}

		// A mirror of the mirror.
		second := mirrorOf(t, tier0{dest: m.dir})
		second.mustFollow(t)
		second.wantGeneration(t, 2)
	})
}

func read(t testing.TB, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// wantSameTree compares names, contents, types and times, and that anybody may
// read. Directories and the markers have times of their own.
func wantSameTree(t testing.TB, want, got string) {
	t.Helper()
	list := func(dir string) map[string]string {
		m, bad, err := walk(t.Context(), dir)
		if err == nil {
			err = m.hash(t.Context(), dir, nil)
		}
		if err != nil || len(bad) > 0 {
			t.Fatal(err, bad)
		}
		all := make(map[string]string)
		for _, e := range m.Entries {
			info, err := os.Lstat(filepath.Join(dir, e.Path))
			if err != nil {
				t.Fatal(err)
			}
			if e.Type == Dir && info.Mode().Perm() != 0o755 || e.Type == File && info.Mode().Perm() != 0o644 {
				t.Errorf("%q in %s has mode %v", e.Path, dir, info.Mode())
			}
			all[e.Path] = fmt.Sprint(e.Type, e.Size, e.ModTime.Unix(), e.XXH3, e.Target)
		}
		return all
	}
	if a, b := list(want), list(got); !maps.Equal(a, b) {
		t.Errorf("the trees differ in %q", difference(a, b))
	}
}

// An upstream that somebody else makes has no manifest.
func TestFollowWithoutManifest(t *testing.T) {
	eachTier(t, func(t *testing.T, up tier0) {
		m := mirrorOf(t, up)
		m.f.Grace = time.Hour
		now := time.Now()
		m.f.now = func() time.Time { return now }
		write(t, up.dir, map[string]string{"gone/soon": "x", "plain": "1"})
		list := func(n int) {
			release(t, up.dir, n)
			// A listing has times to the second, and README its size for ever.
			age(t, up.dir, now.Add(time.Duration(n)*time.Second))
		}
		for n := 1; n <= 3; n++ {
			list(n)
			report, err := Follow(t.Context(), m.f)
			if err != nil {
				t.Fatal(err)
			}
			if !report.Listed || report.Dests[0].Generation != n {
				t.Errorf("generation %d: %+v, want that the upstream was listed", n, report)
			}
			m.wantGeneration(t, n)
			wantContains(t, up.dir, m.dir)
			if n == 1 {
				if err := os.RemoveAll(filepath.Join(up.dir, "gone")); err != nil {
					t.Fatal(err)
				}
			}
			now = now.Add(2 * time.Hour)
		}
		// "gone" was of generation 1 alone, which two others have followed.
		list(4)
		m.mustFollow(t)
		if _, err := os.Lstat(filepath.Join(m.dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what the upstream deleted is still there: %v", err)
		}
		if _, err := os.Lstat(filepath.Join(m.dir, TimeFile)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("there is a TIME, which the upstream does not have: %v", err)
		}
		// Nothing new is found by listing, and within the time allowed not even that.
		if got := m.mustFollow(t); !got.Current || got.Added+got.Changed > 0 {
			t.Errorf("the same again: %+v, want nothing", got)
		}
		write(t, up.dir, map[string]string{"plain": "another"})
		m.f.ListEvery = time.Hour
		if got := m.mustFollow(t); !got.Current {
			t.Errorf("within the time: %+v, want nothing", got)
		}
		now = now.Add(time.Hour)
		if got := m.mustFollow(t); got.Changed != 1 {
			t.Errorf("after the time: %+v, want the change", got)
		}
	})
}

// wantContains checks that got has everything of want.
func wantContains(t testing.TB, want, got string) {
	t.Helper()
	m, err := Read(t.Context(), want, nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Verify(t.Context(), got, m, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range v.Findings {
		if f.Kind != "extra" {
			t.Errorf("%s is not as in %s: %+v", got, want, f)
		}
	}
}

// Killed after any step, readers find whole repositories, and the next run, of
// the same generation or a newer one, goes on from there.
func TestFollowerIsKilled(t *testing.T) {
	for _, kind := range []string{"directory", "daemon"} {
		t.Run(kind, func(t *testing.T) {
			for i, step := range followSteps {
				for k, next := range []string{"the same", "another"} {
					if !soak && (i%2 != k || kind == "daemon" && step != "fetched") {
						continue // a tenth of a second for each of many runs of rsync
					}
					t.Run(step+", then "+next, func(t *testing.T) {
						t.Parallel()
						up := tierKinds[kind](t)
						publishTo(t, up, 1)
						m := mirrorOf(t, up)
						m.mustFollow(t)
						publishTo(t, up, 2)
						childJob{Source: up.dest, Dest: m.dir, Rsync: up.job.Rsync, KillStep: step, Follow: true}.killed(t)
						for _, repo := range releaseRepos {
							if _, err := overFiles(m.dir).read(repo); err != nil {
								t.Errorf("after the kill: %v", err)
							}
						}
						n := 2
						if next == "another" {
							n = 3
							publishTo(t, up, 3)
						}
						got := m.mustFollow(t)
						if len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "the process has ended") {
							t.Errorf("notes %q, want one of the lock that was left", got.Notes)
						}
						m.wantGeneration(t, n)
						// When everything but the newest two has expired, nothing is left of
						// what was begun.
						m.f.Grace = time.Nanosecond
						for i := 1; i <= 3; i++ {
							src := t.TempDir()
							release(t, src, n+i)
							up.mustPublish(t, Job{Grace: time.Nanosecond}, src)
							m.mustFollow(t)
						}
						m.wantGeneration(t, n+3)
						for name := range snapshot(t, m.dir) {
							if strings.Contains(name, "-2-1.") {
								t.Errorf("%s of the run that was killed was never deleted", name)
							}
						}
						if left, err := os.ReadDir(filepath.Join(m.dir, stageDir)); err == nil {
							t.Errorf("left in the stage: %v", left)
						}
					})
				}
			}
		})
	}
}

// What has come of a file is not fetched again.
func TestFollowerResumesInTheMiddleOfAFile(t *testing.T) {
	up, src := tierKinds["daemon"](t), t.TempDir()
	release(t, src, 1)
	image := make([]byte, 4<<20)
	rand.NewChaCha8([32]byte{1}).Read(image)
	write(t, src, map[string]string{"image.iso": string(image)})
	up.mustPublish(t, Job{}, src)
	m := mirrorOf(t, up)
	write(t, filepath.Join(m.dir, stageDir), map[string]string{"image.iso": string(image[:3<<20]), "of another run": "x"})
	got := m.mustFollow(t)
	if got.Sent > 2<<20 {
		t.Errorf("%d bytes were sent, want little more than the last of 4 MB", got.Sent)
	}
	m.wantGeneration(t, 1)
	wantSameTree(t, up.dir, m.dir)
	// Nor is what stays the same in a file that changes in its place.
	image[1<<20] ^= 1
	write(t, src, map[string]string{"image.iso": string(image)})
	up.mustPublish(t, Job{}, src)
	if got = m.mustFollow(t); got.Changed != 1 || got.Sent > 1<<20 {
		t.Errorf("one byte of an image: %+v, want little sent", got)
	}
	wantSameTree(t, up.dir, m.dir)
}

// A tree that was made by other means is taken over without fetching it again.
func TestFollowerAdoptsATree(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string)
		fixed  int // how many files have to be fetched
	}{
		{name: "an exact copy", change: func(*testing.T, string) {}},
		{name: "a copy with other times", change: func(t *testing.T, dir string) { age(t, dir, time.Unix(1_700_000_000, 0)) }},
		{name: "a copy with damage that its time does not show", fixed: 1, change: func(t *testing.T, dir string) {
			info, err := os.Stat(filepath.Join(dir, "README"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, map[string]string{"README": "generation X\n"})
			if err := os.Chtimes(filepath.Join(dir, "README"), info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a copy that misses something", fixed: 1, change: func(t *testing.T, dir string) {
			remove(t, dir, releaseRepos[0]+"/Packages/p3-1-1.x86_64.rpm")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := directory(t)
			publishTo(t, up, 1)
			m := mirrorOf(t, up)
			if err := os.CopyFS(m.dir, os.DirFS(up.dir)); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(m.dir, StateDir)); err != nil {
				t.Fatal(err)
			}
			copyTimes(t, up.dir, m.dir)
			tt.change(t, m.dir)
			before := snapshot(t, m.dir)
			got := m.mustFollow(t)
			if got.Added+got.Changed != tt.fixed {
				t.Errorf("%+v, want %d files fetched", got, tt.fixed)
			}
			m.wantGeneration(t, 1)
			wantSameTree(t, up.dir, m.dir)
			after := snapshot(t, m.dir)
			for name, was := range before {
				if strings.HasSuffix(name, ".rpm") && strings.Fields(after[name])[0] != strings.Fields(was)[0] {
					t.Errorf("%s was fetched again", name)
				}
			}
		})
	}
}

// copyTimes gives the files of a copy the times of their originals.
func copyTimes(t testing.TB, from, to string) {
	t.Helper()
	m, _, err := walk(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range m.Entries {
		if e.Type == File {
			if err := os.Chtimes(filepath.Join(to, e.Path), e.ModTime, e.ModTime); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// With Full, what was damaged here is found and mended; without, the tree is not
// read.
func TestFollowerReadsEverythingWhenAsked(t *testing.T) {
	_, m := followed(t)
	damaged := releaseRepos[0] + "/Packages/p3-1-1.x86_64.rpm"
	info, err := os.Stat(filepath.Join(m.dir, damaged))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ToUpper(read(t, m.dir, damaged))
	write(t, m.dir, map[string]string{damaged: text})
	if err := os.Chtimes(filepath.Join(m.dir, damaged), info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if got := m.mustFollow(t); !got.Current {
		t.Errorf("%+v, want that nothing was looked at", got)
	}
	m.f.Full = true
	if got := m.mustFollow(t); got.Changed != 1 {
		t.Errorf("%+v, want the damaged package fetched", got)
	}
	m.wantGeneration(t, 1)
}

func TestFollowerExcludes(t *testing.T) {
	eachTier(t, func(t *testing.T, up tier0) {
		src := t.TempDir()
		release(t, src, 1)
		extra := map[string]string{"vault/8/x": "x", "9/isos/dvd.iso": "i", "9/AppStream/x86_64/debug/y": "d", "vaults": "v"}
		write(t, src, extra)
		up.mustPublish(t, Job{}, src)
		m := mirrorOf(t, up)
		write(t, m.dir, map[string]string{"own/page.html": "mine", "9/isos/own.iso": "mine"})
		m.f.Exclude = []string{"vault", "9*/isos", "*/*/*/debug", "own"}
		m.mustFollow(t)
		release(t, src, 2)
		write(t, src, extra)
		write(t, src, map[string]string{"own/page.html": "theirs"})
		up.mustPublish(t, Job{}, src)
		m.f.Grace = time.Nanosecond
		for range 3 {
			m.mustFollow(t)
		}
		for name, want := range map[string]string{"own/page.html": "mine", "9/isos/own.iso": "mine", "vaults": "v"} {
			if got := read(t, m.dir, name); got != want {
				t.Errorf("%s has %q, want %q", name, got, want)
			}
		}
		for _, name := range []string{"vault", "9/isos/dvd.iso", "9/AppStream/x86_64/debug"} {
			if _, err := os.Lstat(filepath.Join(m.dir, name)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s was fetched although it is excluded", name)
			}
		}
		for _, repo := range releaseRepos {
			if got, err := overFiles(m.dir).read(repo); err != nil || got != "1002" {
				t.Errorf("clients read revision %s, %v; want 1002", got, err)
			}
		}
	})
}

func TestExcluded(t *testing.T) {
	patterns := []string{"vault", "9*/isos", "*/*/debug", "a[0-9]"}
	for name, want := range map[string]bool{
		"vault": true, "vault/8/x": true, "vaults": false, "x/vault": false, "9.8/isos/x86_64/dvd.iso": true, "9/isos": true,
		"9/os/isos": false, "9/x/debug/y": true, "9/debug": false, "a1": true, "a1/b": true, "ab": false,
	} {
		if got := excluded(patterns, name); got != want {
			t.Errorf("%q is excluded: %v, want %v", name, got, want)
		}
	}
	for _, bad := range []string{"", "/vault", "vault/", "a/../b", "[", "./a", "a//b"} {
		if err := checkPattern(bad); err == nil {
			t.Errorf("pattern %q was accepted", bad)
		}
	}
}

// relist makes the manifest of a tree that was changed behind its publisher's
// back, as change wants it.
func relist(t testing.TB, dir string, change func(m *Manifest)) {
	t.Helper()
	m, _, err := walk(t.Context(), dir)
	if err == nil {
		err = m.hash(t.Context(), dir, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(m)
		slices.SortFunc(m.Entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	}
	zipped, err := m.zipped()
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{ManifestFile: string(zipped)})
}

// Whatever an upstream does, readers of the mirror find whole repositories: those
// that would not be whole stay as they are, and the others go on.
func TestFollowerHolds(t *testing.T) {
	os1, os2 := releaseRepos[0], releaseRepos[1]
	const p3 = "/Packages/p3-2-1.x86_64.rpm"
	primary := func(t *testing.T, dir string) string {
		names, err := filepath.Glob(filepath.Join(dir, os1, "repodata/*primary*"))
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		return slices.MaxFunc(names, func(a, b string) int {
			x, errX := os.Stat(a)
			y, errY := os.Stat(b)
			if errX != nil || errY != nil {
				t.Fatal(errX, errY)
			}
			return x.ModTime().Compare(y.ModTime())
		})
	}
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string) // the upstream, which has generation 2
		f      Follower
		want   string // in the error, which is ErrIncomplete
		note   string // instead of an error
		first  string // revision of the first repository then
		second string
	}{
		{name: "a package that is not there", want: "p3-2-1.x86_64.rpm\" did not come", first: "1001", second: "1002", change: func(t *testing.T, dir string) {
			remove(t, dir, os1+p3)
		}},
		{name: "a package that is cut off", want: "bytes at the upstream, want", first: "1001", second: "1002", change: func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, os1+p3), 5); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a package of another content", want: "other content at the upstream than its manifest says", first: "1001", second: "1002", change: func(t *testing.T, dir string) {
			write(t, dir, map[string]string{os1 + p3: strings.ToUpper(read(t, dir, os1+p3))})
		}},
		{name: "a package that its manifest does not have", want: p3[1:] + ", which " + os1, first: "1001", second: "1002", change: func(t *testing.T, dir string) {
			remove(t, dir, os1+p3)
			relist(t, dir, nil)
		}},
		{name: "metadata that is not there", want: "did not come", first: "1001", second: "1002", change: func(t *testing.T, dir string) {
			remove(t, "", primary(t, dir))
		}},
		{name: "metadata that cannot be read", want: os1 + " stays as it is", first: "1001", second: "1002", change: func(t *testing.T, dir string) {
			write(t, "", map[string]string{primary(t, dir): "no gzip"})
			relist(t, dir, nil)
		}},
		{name: "a repomd.xml that is not that of its manifest", want: "is not the one of its manifest", first: "1001", second: "1002", change: func(t *testing.T, dir string) {
			write(t, dir, map[string]string{os1 + "/repodata/repomd.xml": "<html>"})
		}},
		{name: "a repomd.xml that is none", want: "repomd.xml: ", first: "1001", second: "1002", change: func(t *testing.T, dir string) {
			write(t, dir, map[string]string{os1 + "/repodata/repomd.xml": "<html>"})
			relist(t, dir, nil)
		}},
		{name: "a repomd.xml that is a directory", want: "is a directory", first: "1001", second: "1002", change: func(t *testing.T, dir string) {
			relist(t, dir, func(m *Manifest) {
				*m.Lookup(os1 + "/repodata/repomd.xml") = Entry{Path: os1 + "/repodata/repomd.xml", Type: Dir}
			})
		}},
		{name: "a revision that goes back", want: "goes back from revision 1001 to 1000; if that is meant, add -accept-older", first: "1001", second: "1001", change: func(t *testing.T, dir string) {
			release(t, dir, 0)
			relist(t, dir, nil)
		}},
		{name: "a revision that goes back, as was meant", f: Follower{AcceptOlder: true}, first: "1000", second: "1000", change: func(t *testing.T, dir string) {
			release(t, dir, 0)
			relist(t, dir, nil)
		}},
		{name: "metadata without signature", f: Follower{Keys: new(verify.Ring)}, want: "repomd.xml: unsigned", first: "1001", second: "1001", change: func(*testing.T, string) {}},
		{name: "a file that changes in its place", want: "\"README\" has other content", first: "1002", second: "1002", change: func(t *testing.T, dir string) {
			write(t, dir, map[string]string{"README": "generation 3\n"})
		}},
		{name: "a link that leads out", note: `left out "out": it is a link to "../../etc"`, first: "1002", second: "1002", change: func(t *testing.T, dir string) {
			relist(t, dir, func(m *Manifest) { m.Entries = append(m.Entries, Entry{Path: "out", Type: Link, Target: "../../etc"}) })
		}},
		{name: "links that lead out together", note: `left out "b": it is a link to "9/BaseOS/top/.."`, first: "1002", second: "1002", change: func(t *testing.T, dir string) {
			relist(t, dir, func(m *Manifest) {
				m.Entries = append(m.Entries, Entry{Path: "9/BaseOS/top", Type: Link, Target: "../.."}, Entry{Path: "b", Type: Link, Target: "9/BaseOS/top/.."})
			})
		}},
		{name: "a file below a link", note: `left out "l/x": it is in a directory that is none`, first: "1002", second: "1002", change: func(t *testing.T, dir string) {
			relist(t, dir, func(m *Manifest) {
				m.Entries = append(m.Entries, Entry{Path: "l", Type: Link, Target: "9"}, Entry{Path: "l/x", Type: File, Size: 1})
			})
		}},
		{name: "a newline in a name", note: `left out "a\nb": it has a control character`, first: "1002", second: "1002", change: func(t *testing.T, dir string) {
			write(t, dir, map[string]string{"a\nb": ""})
			relist(t, dir, nil)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up, m := followed(t)
			m.f.Keys, m.f.AcceptOlder = tt.f.Keys, tt.f.AcceptOlder
			m.f.pauses = []time.Duration{0}
			publishTo(t, up, 2)
			tt.change(t, up.dir)

			report, err := Follow(t.Context(), m.f)
			switch {
			case tt.want != "" && (!errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %v with %q in it", err, ErrIncomplete, tt.want)
			case tt.want == "" && err != nil:
				t.Error(err)
			}
			if tt.note != "" && !slices.ContainsFunc(report.Dests[0].Notes, func(n string) bool { return strings.Contains(n, tt.note) }) {
				t.Errorf("notes %q, want one with %q", report.Dests[0].Notes, tt.note)
			}
			for repo, want := range map[string]string{os1: tt.first, os2: tt.second} {
				if got, err := overFiles(m.dir).read(repo); err != nil || got != want {
					t.Errorf("clients of %s read revision %s, %v; want %s", repo, got, err, want)
				}
			}
			v, verr := VerifyTree(t.Context(), m.dir, 0)
			if verr != nil {
				t.Fatal(verr)
			}
			for _, f := range v.Findings {
				t.Errorf("the tree is not as its manifest says: %+v", f)
			}
			if tt.want != "" {
				// Nothing is deleted as long as something stays behind, however old.
				m.f.Grace = time.Nanosecond
				if got, err := Follow(t.Context(), m.f); err == nil || got.Dests[0].Deleted > 0 {
					t.Errorf("again: %+v, %v; want the same", got, err)
				}
				for _, repo := range releaseRepos {
					if _, err := overFiles(m.dir).read(repo); err != nil {
						t.Error(err)
					}
				}
				m.f.Grace = 0
			}

			// When the upstream has nothing of it any more, all is well.
			m.f.Keys = nil
			for n := 3; n <= 5; n++ {
				src := t.TempDir()
				release(t, src, n)
				up.mustPublish(t, Job{Replace: true, Grace: time.Nanosecond}, src)
			}
			m.mustFollow(t)
			m.wantGeneration(t, 5)
		})
	}
}

// A repository that stays as it is does not keep back one that is inside of it.
func TestFollowerHoldsARepositoryAroundAnother(t *testing.T) {
	up := directory(t)
	m := mirrorOf(t, up)
	for n := 1; n <= 2; n++ {
		src := t.TempDir()
		for _, dir := range []string{"", "sub"} { // the outer one first, which empties its directory
			makeRepo(t, filepath.Join(src, dir), 1000+n, map[string]string{fmt.Sprintf("p%s-%d.rpm", dir, n): fmt.Sprint("package ", dir, n)})
		}
		up.mustPublish(t, Job{}, src)
		if n == 2 {
			remove(t, up.dir, "Packages/p-2.rpm")
		}
		if report, err := Follow(t.Context(), m.f); n == 1 && err != nil || n == 2 && (!errors.Is(err, ErrIncomplete) || report.Held != 1) {
			t.Fatalf("generation %d: %+v, %v; want one repository held in the second", n, report, err)
		}
	}
	for repo, want := range map[string]string{".": "1001", "sub": "1002"} {
		if got, err := overFiles(m.dir).read(repo); err != nil || got != want {
			t.Errorf("clients of %s read revision %s, %v; want %s", repo, got, err, want)
		}
	}
	v, err := VerifyTree(t.Context(), m.dir, 0)
	if err != nil || len(v.Findings) > 0 {
		t.Errorf("the tree is not as its manifest says: %+v, %v", v, err)
	}
}

// A dry run does not take a wish for a real one away.
func TestDryRunOfAFollowerChangesNothing(t *testing.T) {
	up, m := followed(t)
	publishTo(t, up, 2)
	write(t, m.dir, map[string]string{askedFile: ""})
	before := snapshot(t, m.dir)
	m.f.DryRun = true
	if got := m.mustFollow(t); got.Generation != 2 || got.Added != 14 || got.Changed != 3 {
		t.Errorf("report %+v, want generation 2 with 14 added and 3 changed", got)
	}
	after := snapshot(t, m.dir)
	for _, name := range difference(before, after) {
		if !strings.HasPrefix(name, lookDir) {
			t.Errorf("the dry run changed %s", name)
		}
	}
}

// What is refused as a whole changes nothing.
func TestFollowerRefuses(t *testing.T) {
	raw := func(t *testing.T, dir, text string) {
		write(t, dir, map[string]string{ManifestFile: text})
	}
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, up, tree string) // the upstream, which has generation 2
		f      Follower
		want   string // in the error
	}{
		{name: "a manifest that is cut off", want: "the upstream's manifest: ", change: func(t *testing.T, up, _ string) {
			raw(t, up, read(t, up, ManifestFile)[:300])
		}},
		{name: "a manifest that ends early", want: "it ends before its last line", change: func(t *testing.T, up, _ string) {
			raw(t, up, "meridian-manifest 1\t1.000000000\nd\t9\n")
		}},
		{name: "a manifest that leads out of the tree", want: `"../evil" is not a path inside a tree`, change: func(t *testing.T, up, _ string) {
			relist(t, up, func(m *Manifest) { m.Entries = append(m.Entries, Entry{Path: "../evil", Type: File, Size: 1}) })
		}},
		{name: "an empty manifest", f: Follower{MaxDelete: 5}, want: "names would leave the tree, and 5 may", change: func(t *testing.T, up, _ string) {
			relist(t, up, func(m *Manifest) { m.Entries = nil })
		}},
		{name: "more than the disk has room for", want: "bytes are free", change: func(t *testing.T, up, _ string) {
			relist(t, up, func(m *Manifest) {
				for i := range 4 {
					m.Entries = append(m.Entries, Entry{Path: fmt.Sprint("big", i), Type: File, Size: 1<<62 + 1<<61})
				}
			})
		}},
		{name: "a file that becomes a directory", want: `"README" was a file and is a directory; remove it here`, change: func(t *testing.T, up, _ string) {
			remove(t, up, "README")
			write(t, up, map[string]string{"README/x": ""})
			relist(t, up, nil)
		}},
		{name: "a clock that went back", want: "set the clock", f: Follower{now: func() time.Time { return time.Now().Add(-time.Hour) }}, change: func(*testing.T, string, string) {}},
		{name: "a lock of somebody else", want: "locked by somebody unknown", change: func(t *testing.T, _, tree string) {
			write(t, tree, map[string]string{lockDir + "/x": ""})
		}},
		{name: "a state of another version", want: "has format 9", change: func(t *testing.T, _, tree string) {
			write(t, tree, map[string]string{stateFile: `{"format":9}`})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up, m := followed(t)
			m.f.MaxDelete, m.f.now = tt.f.MaxDelete, tt.f.now
			publishTo(t, up, 2)
			tt.change(t, up.dir, m.dir)
			before := snapshot(t, m.dir)
			_, err := Follow(t.Context(), m.f)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
			after := snapshot(t, m.dir)
			for _, name := range difference(before, after) {
				if !strings.HasPrefix(name, lookDir) && name != askedFile {
					t.Errorf("the refused run changed %s", name)
				}
			}
		})
	}
}

// A host of several that has not caught up takes nothing back.
func TestFollowerOfAnUpstreamThatIsBehind(t *testing.T) {
	a, b := directory(t), directory(t)
	publishTo(t, b, 1)
	publishTo(t, a, 2)
	m := mirrorOf(t, a)
	m.mustFollow(t)
	before := snapshot(t, m.dir)
	m.f.Upstream = b.dest
	report, err := Follow(t.Context(), m.f)
	if err != nil || !report.Behind {
		t.Errorf("%+v, %v; want that the upstream is behind", report, err)
	}
	after := snapshot(t, m.dir)
	for _, name := range difference(before, after) {
		if !strings.HasPrefix(name, lookDir) {
			t.Errorf("changed %s", name)
		}
	}
	m.f.AcceptOlder = true
	m.mustFollow(t)
	m.wantGeneration(t, 1)
}

// A run that is asked for while another one is under way takes place after it.
func TestFollowerIsAskedMeanwhile(t *testing.T) {
	up, m := followed(t)
	publishTo(t, up, 2)
	var second error
	once := sync.OnceFunc(func() {
		publishTo(t, up, 3)
		_, second = Follow(t.Context(), m.f)
	})
	first := m.f
	first.step = func(step string) {
		if step == "marked" {
			once()
		}
	}
	if _, err := Follow(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(second, ErrAsked) || !strings.Contains(second.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("the second run: %v, want %v and who will do it", second, ErrAsked)
	}
	m.wantGeneration(t, 3)

	// A publisher does no such thing.
	src := t.TempDir()
	release(t, src, 4)
	_, err := m.publish(t, Job{step: func(step string) {
		if step == "locked" {
			_, second = Follow(t.Context(), m.f)
		}
	}}, src)
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(second, ErrLocked) || errors.Is(second, ErrAsked) {
		t.Errorf("a run during a publication into the tree: %v, want %v", second, ErrLocked)
	}
}

// wrapped is an rsync that runs a command before each transfer of files, and then
// ends with the status, whatever the real one said.
func wrapped(t testing.TB, command string, status int) string {
	t.Helper()
	file := filepath.Join(testworld.TempDir(t), "rsync")
	write(t, "", map[string]string{file: "#!/bin/sh\ncase \"$*\" in *--inplace*) " + command + "; " +
		testworld.Need(t, "rsync") + " \"$@\"; exit " + strconv.Itoa(status) + ";; *) exec rsync \"$@\";; esac\n"})
	if err := os.Chmod(file, 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// Files that vanish while they are read, and others that cannot be, are missed by
// their repository alone.
func TestFollowerOfFilesThatVanish(t *testing.T) {
	for _, status := range []int{rsyncPartial, rsyncVanished} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			up, m := followed(t)
			publishTo(t, up, 2)
			m.f.Rsync.Program = wrapped(t, "rm -f '"+filepath.Join(up.dir, releaseRepos[0])+"'/Packages/p3-2*", status)
			if _, err := Follow(t.Context(), m.f); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "did not come") {
				t.Errorf("error %v, want that a file did not come", err)
			}
			for i, want := range []string{"1001", "1002"} {
				if got, err := overFiles(m.dir).read(releaseRepos[i]); err != nil || got != want {
					t.Errorf("clients of %s read revision %s, %v; want %s", releaseRepos[i], got, err, want)
				}
			}
		})
	}
	// Any other status ends the run, which goes on the next time.
	up := directory(t)
	publishTo(t, up, 1)
	m := mirrorOf(t, up)
	m.f.Rsync.Program = wrapped(t, ":", 12)
	if _, err := Follow(t.Context(), m.f); err == nil || !strings.Contains(err.Error(), "status 12") {
		t.Errorf("error %v, want the status", err)
	}
	m.f.Rsync.Program = ""
	m.mustFollow(t)
	m.wantGeneration(t, 1)
}

func TestFollowerOfAServerThatLeadsOut(t *testing.T) {
	testworld.Need(t, "rsync")
	for _, name := range []string{"../evil", "/evil", ".meridian/../../evil"} {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			tree := filepath.Join(outside, "tree")
			if err := os.Mkdir(tree, 0o755); err != nil {
				t.Fatal(err)
			}
			f := Follower{Upstream: "rsync://" + hostileServer(t, name) + "/tree/x", Tree: tree, Rsync: Rsync{Protocol: 29, Timeout: 5 * time.Minute}}
			if _, err := Follow(t.Context(), f); err == nil || !strings.Contains(err.Error(), "rsync: ") {
				t.Errorf("error %v, want rsync's", err)
			}
			for file := range snapshot(t, outside) {
				if !strings.HasPrefix(file, "tree/"+StateDir) {
					t.Errorf("%s was written", file)
				}
			}
		})
	}
}

// A list without end takes a bounded amount of memory and no disk.
func TestFollowerOfAServerWithAListWithoutEnd(t *testing.T) {
	testworld.Need(t, "rsync")
	tree := t.TempDir()
	f := Follower{Upstream: "rsync://" + endlessServer(t) + "/tree", Tree: tree, Rsync: Rsync{Protocol: 29, Timeout: 5 * time.Minute, maxMemory: 128 << 20}}
	_, err := Follow(t.Context(), f)
	if err == nil || !strings.Contains(err.Error(), "out of memory") {
		t.Errorf("error %v, want that rsync had no more memory", err)
	}
	for file := range snapshot(t, tree) {
		if file != askedFile && !strings.HasPrefix(file, lookDir) {
			t.Errorf("%s was written", file)
		}
	}
}

func TestFollowIntoAFullDisk(t *testing.T) {
	up, src := directory(t), t.TempDir()
	publishTo(t, up, 1)
	m := mirrorOf(t, up)
	mount(t, m.dir, "size=1m")
	m.mustFollow(t)
	release(t, src, 2)
	write(t, src, map[string]string{"small.iso": strings.Repeat("x", 500<<10)})
	up.mustPublish(t, Job{}, src)
	filler := filepath.Join(m.dir, "filler")
	full := m.f
	full.step = func(step string) {
		if step == "begun" {
			write(t, "", map[string]string{filler: strings.Repeat("x", 450<<10)})
		}
	}
	if _, err := Follow(t.Context(), full); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("error %v, want that the disk is full", err)
	}
	for _, repo := range releaseRepos {
		if got, err := overFiles(m.dir).read(repo); got != "1001" || err != nil {
			t.Errorf("clients read revision %s, %v; want 1001", got, err)
		}
	}
	// It is found out before, too.
	if _, err := Follow(t.Context(), m.f); err == nil || !strings.Contains(err.Error(), "bytes are free") {
		t.Errorf("error %v, want how much is free", err)
	}
	remove(t, "", filler)
	m.mustFollow(t)
	m.wantGeneration(t, 2)
}

func TestFollowIntoAReadOnlyDisk(t *testing.T) {
	up, m := followed(t)
	publishTo(t, up, 2)
	before := snapshot(t, m.dir)
	readOnly(t, m.dir)
	if _, err := Follow(t.Context(), m.f); !errors.Is(err, syscall.EROFS) {
		t.Errorf("error %v, want %v in it", err, syscall.EROFS)
	}
	if after := snapshot(t, m.dir); !maps.Equal(before, after) {
		t.Errorf("changed %q", difference(before, after))
	}
}

// A tree that is unmounted meanwhile is not made again in the directory below.
func TestFollowIntoATreeThatVanishes(t *testing.T) {
	for _, at := range []string{"begun", "fetched", "metadata"} {
		t.Run(at, func(t *testing.T) {
			up, m := followed(t)
			publishTo(t, up, 2)
			f := m.f
			f.step = func(step string) {
				if step != at {
					return
				}
				if err := errors.Join(os.Rename(m.dir, m.dir+".away"), os.Mkdir(m.dir, 0o755)); err != nil {
					t.Error(err)
				}
			}
			if _, err := Follow(t.Context(), f); err == nil || !strings.Contains(err.Error(), "another directory than before") {
				t.Errorf("error %v, want that the tree vanished", err)
			}
			if got := snapshot(t, m.dir); len(got) > 0 {
				t.Errorf("written into the directory below: %q", slices.Collect(maps.Keys(got)))
			}
			if err := errors.Join(os.Remove(m.dir), os.Rename(m.dir+".away", m.dir)); err != nil {
				t.Fatal(err)
			}
			m.mustFollow(t)
			m.wantGeneration(t, 2)
		})
	}
}

// A link in the tree that leads out of it is never followed.
func TestFollowerTouchesNothingOutside(t *testing.T) {
	up, outside := directory(t), t.TempDir()
	publishTo(t, up, 1)
	m := mirrorOf(t, up)
	write(t, outside, map[string]string{"precious": "p", "BaseOS/precious": "q"})
	before := snapshot(t, outside)
	for _, name := range []string{"9", StateDir} {
		if err := os.RemoveAll(filepath.Join(m.dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, filepath.Join(m.dir, name)); err != nil {
			t.Fatal(err)
		}
		Follow(t.Context(), m.f) // whatever it says of that
		if after := snapshot(t, outside); !maps.Equal(before, after) {
			t.Errorf("a link %s in the tree: %q changed outside of it", name, difference(before, after))
		}
		if err := os.RemoveAll(filepath.Join(m.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	m.mustFollow(t)
	m.wantGeneration(t, 1)
}

func TestFollowerIsInterrupted(t *testing.T) {
	up := directory(t)
	publishTo(t, up, 1)
	m := mirrorOf(t, up)
	ctx, cancel := context.WithCancel(t.Context())
	f := m.f
	f.step = func(step string) {
		if step == "begun" {
			cancel()
		}
	}
	if _, err := Follow(ctx, f); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if locks, err := os.ReadDir(filepath.Join(m.dir, lockDir)); err != nil || len(locks) != 0 {
		t.Errorf("locks left behind: %v, %v", locks, err)
	}
	m.mustFollow(t)
	m.wantGeneration(t, 1)
}

// Readers of a mirror that never pause see whole repositories, while its upstream
// publishes without pause and it follows without pause, and is killed.
func TestReadersOfAMirrorSeeWholeRepositories(t *testing.T) {
	reads := 300
	if soak {
		reads = 10_000
	}
	up := directory(t)
	publishTo(t, up, 0)
	m := mirrorOf(t, up)
	m.mustFollow(t)
	r := startReaders(t, m.dir)
	var published atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ctx.Err() == nil; n++ {
			publishTo(t, up, n)
			published.Store(int64(n))
		}
	})
	// Until enough was read, and each step was the last one of some follower.
	runs, incomplete := 0, 0
	for ; r.done() < int64(reads) || runs < 2*len(followSteps); runs++ {
		if runs%2 == 0 {
			// Whether it lives to see that step depends on what there is to do.
			c := childJob{Source: up.dest, Dest: m.dir, KillStep: followSteps[runs/2%len(followSteps)], Follow: true}
			c.run(t).Run()
			continue
		}
		report, err := Follow(t.Context(), m.f)
		switch {
		case errors.Is(err, ErrIncomplete) && report.Held == 0:
			incomplete++ // README changed meanwhile
		case err != nil:
			t.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
	seen := r.stop()
	if seen < len(followSteps)/2 {
		t.Errorf("%d generations were seen in %d runs, want most", seen, runs)
	}
	m.mustFollow(t)
	m.wantGeneration(t, int(published.Load()))
	t.Logf("%d reads of %d generations of %d; %d runs, %d incomplete", r.done(), seen, published.Load(), runs, incomplete)
}
