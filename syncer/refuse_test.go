package syncer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"meridian/internal/testworld"
	"meridian/signer/verify"
)

// directory is a destination on this machine.
func directory(t testing.TB) tier0 { return tierKinds["directory"](t) }

// Each of these is refused, with what to do, before anything has changed.
func TestPublishRefuses(t *testing.T) {
	os1 := releaseRepos[0]
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, src string)
		job    Job
		want   string // in the error
	}{
		{name: "a package that is missing", want: "which 9/BaseOS/x86_64/os/repodata/", change: func(t *testing.T, src string) {
			release(t, src, 2)
			remove(t, src, os1+"/Packages/p3-2-1.x86_64.rpm")
		}},
		{name: "a package that goes although its metadata stays", want: "p3-1-1.x86_64.rpm, which 9/BaseOS/x86_64/os/repodata/", change: func(t *testing.T, src string) {
			remove(t, src, os1+"/Packages/p3-1-1.x86_64.rpm")
		}},
		{name: "a package of another size", want: "has 3 bytes, want", change: func(t *testing.T, src string) {
			release(t, src, 2)
			write(t, src, map[string]string{os1 + "/Packages/p3-2-1.x86_64.rpm": "new"})
		}},
		{name: "metadata that is missing", want: "primary.xml.gz, which 9/BaseOS/x86_64/os/repodata/repomd.xml names, is missing", change: func(t *testing.T, src string) {
			release(t, src, 2)
			names, err := filepath.Glob(filepath.Join(src, os1, "repodata/*primary*"))
			if err != nil || len(names) != 1 {
				t.Fatal(names, err)
			}
			remove(t, "", names[0])
		}},
		{name: "metadata with another checksum", want: "has another checksum", change: func(t *testing.T, src string) {
			release(t, src, 2)
			names, err := filepath.Glob(filepath.Join(src, os1, "repodata/*primary*"))
			if err != nil || len(names) != 1 {
				t.Fatal(names, err)
			}
			b, err := os.ReadFile(names[0])
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)-1] ^= 1
			write(t, "", map[string]string{names[0]: string(b)})
		}},
		{name: "a repomd.xml that is none", want: "9/BaseOS/x86_64/os/repodata/repomd.xml: ", change: func(t *testing.T, src string) {
			write(t, src, map[string]string{os1 + "/repodata/repomd.xml": "<html>"})
		}},
		{name: "a revision that goes back", want: "goes back from revision 1001 to 1000; to return to older content, use syncer rollback", change: func(t *testing.T, src string) {
			release(t, src, 0)
		}},
		{name: "a revision that has other content", want: "has revision 1001 already, with other content", change: func(t *testing.T, src string) {
			makeRepo(t, filepath.Join(src, os1), 1001, map[string]string{"other.rpm": "other"})
		}},
		{name: "a package that changes under its name", want: "give it another name, or add -replace", change: func(t *testing.T, src string) {
			makeRepo(t, filepath.Join(src, os1), 1002, map[string]string{"p0-1-1.x86_64.rpm": "signed again"})
		}},
		{name: "a file that becomes a directory", want: `"README" was a file and is a directory`, change: func(t *testing.T, src string) {
			remove(t, src, "README")
			write(t, src, map[string]string{"README/x": ""})
		}},
		{name: "a newline in a name", want: `"new\nline" has a control character`, change: func(t *testing.T, src string) {
			write(t, src, map[string]string{"new\nline": ""})
		}},
		{name: "a link that leads out", want: `"out" is a link to "../../etc"`, change: func(t *testing.T, src string) {
			if err := os.Symlink("../../etc", filepath.Join(src, "out")); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "too much that leaves the tree", want: "names would leave the tree, and 3 may", job: Job{MaxDelete: 3}, change: func(t *testing.T, src string) {
			release(t, src, 2)
		}},
		{name: "a clock that went back", want: "set the clock", job: Job{now: func() time.Time { return time.Now().Add(-time.Hour) }}, change: func(t *testing.T, src string) {
			release(t, src, 2)
		}},
		{name: "metadata without signature", want: "repomd.xml: unsigned", job: Job{Keys: new(verify.Ring)}, change: func(t *testing.T, src string) {
			release(t, src, 2)
		}},
		{name: "a package without signature", want: "p4-2-1.x86_64.rpm: damaged", job: Job{Keys: new(verify.Ring)}, change: func(t *testing.T, src string) {
			release(t, src, 2)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t0, src := directory(t), t.TempDir()
			release(t, src, 1)
			t0.mustPublish(t, Job{}, src)
			before := snapshot(t, t0.dir)
			tt.change(t, src)
			_, err := t0.publish(t, tt.job, src)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
			if after := snapshot(t, t0.dir); !maps.Equal(before, after) {
				t.Errorf("the refused publication changed %q", difference(before, after))
			}
		})
	}
}

func remove(t testing.TB, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// What is refused for good reason can be meant.
func TestPublishIsToldOtherwise(t *testing.T) {
	t0, src := directory(t), t.TempDir()
	now := time.Now()
	release(t, src, 1)
	t0.mustPublish(t, Job{now: func() time.Time { return now.Add(time.Hour) }}, src)
	for repo, packages := range map[string]map[string]string{releaseRepos[0]: {"p0-1-1.x86_64.rpm": "again"}, releaseRepos[1]: {"b.rpm": "b"}} {
		makeRepo(t, filepath.Join(src, repo), 1002, packages)
	}
	t0.mustPublish(t, Job{Replace: true, AcceptClock: true, MaxDelete: -1}, src)
	t0.wantGeneration(t, 2)
}

func TestDryRunChangesNothing(t *testing.T) {
	eachTier(t, func(t *testing.T, t0 tier0) {
		src := t.TempDir()
		release(t, src, 1)
		t0.mustPublish(t, Job{}, src)
		before := snapshot(t, t0.dir)
		release(t, src, 2)
		got := t0.mustPublish(t, Job{DryRun: true}, src)
		if got.Generation != 2 || got.Added != 14 || got.Changed != 3 || got.Retired != 14 {
			t.Errorf("report %+v, want generation 2 with 14 added, 3 changed, 14 retired", got)
		}
		if after := snapshot(t, t0.dir); !maps.Equal(before, after) {
			t.Errorf("the dry run changed %q", difference(before, after))
		}
	})
}

// One that cannot be published to stops all: no tier0 is ahead of another.
func TestAllTiersOrNone(t *testing.T) {
	a, b, src := directory(t), directory(t), t.TempDir()
	job := Job{Source: src, Dests: []string{a.dest, b.dest}}
	release(t, src, 1)
	if _, err := Publish(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	a.wantGeneration(t, 1)
	b.wantGeneration(t, 1)

	// b breaks after everything was sent.
	release(t, src, 2)
	job.step = func(step string) {
		if step == "content" {
			if err := os.Rename(b.dir, b.dir+".away"); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := Publish(t.Context(), job); err == nil {
		t.Fatal("no error although one tier0 vanished")
	}
	if _, err := os.Lstat(b.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory that vanished was made again: %v", err)
	}
	if err := os.Rename(b.dir+".away", b.dir); err != nil {
		t.Fatal(err)
	}
	for _, t0 := range []tier0{a, b} {
		for _, repo := range releaseRepos {
			if got, err := overFiles(t0.dir).read(repo); got != "1001" || err != nil {
				t.Errorf("clients read revision %s, %v; want 1001 until both can switch", got, err)
			}
		}
	}
	job.step = nil
	if _, err := Publish(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	a.wantGeneration(t, 2)
	b.wantGeneration(t, 2)
}

// What is served is what counts, not what was written.
func TestPublishAsksWhatIsServed(t *testing.T) {
	t0, src := directory(t), t.TempDir()
	stale := t.TempDir()
	release(t, src, 1)
	serve := stale
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.FileServer(http.Dir(serve)).ServeHTTP(w, r)
	}))
	defer srv.Close()
	job := Job{URLs: []string{srv.URL}}
	if _, err := t0.publish(t, job, src); err == nil || !strings.Contains(err.Error(), "status 404") {
		t.Errorf("served from another place: %v, want that it is not there", err)
	}
	serve = t0.dir
	release(t, src, 2)
	t0.mustPublish(t, job, src)
}

func TestOnePublicationAtATime(t *testing.T) {
	eachTier(t, func(t *testing.T, t0 tier0) {
		src := t.TempDir()
		release(t, src, 1)
		var second error
		job := Job{step: func(step string) {
			if step == "content" {
				_, second = t0.publish(t, Job{}, src)
			}
		}}
		t0.mustPublish(t, job, src)
		if !errors.Is(second, ErrLocked) || !strings.Contains(second.Error(), fmt.Sprintf("process %d", os.Getpid())) || !strings.Contains(second.Error(), " ago; wait for it") {
			t.Errorf("a second publication: %v, want that the tier0 is locked, by whom and since when", second)
		}
		t0.wantGeneration(t, 1)
	})
}

func TestLocksOfOthers(t *testing.T) {
	now := time.Now()
	self := me("src", now)
	gone, alive := exec.Command("true"), exec.Command("sleep", "1h")
	if err := errors.Join(gone.Run(), alive.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { alive.Process.Kill(); alive.Wait() })
	for _, tt := range []struct {
		name   string
		change func(o *owner)
		stale  bool
		want   string
	}{
		{name: "a process that is alive", change: func(o *owner) { o.PID, o.Started = alive.Process.Pid, processStart(alive.Process.Pid) }, want: "taken 2h0m0s ago"},
		{name: "this process, which could not remove it", change: func(o *owner) {}, stale: true},
		{name: "a process that has ended", change: func(o *owner) { o.PID = gone.Process.Pid }, stale: true},
		{name: "a number that another process has now", change: func(o *owner) { o.Started = "1" }, stale: true},
		{name: "a machine that was restarted", change: func(o *owner) { o.Boot = "before" }, stale: true},
		{name: "another machine", change: func(o *owner) { o.Host, o.PID = "elsewhere", gone.Process.Pid }, want: "on elsewhere"},
		{name: "another machine of the same name", change: func(o *owner) { o.Machine, o.PID = "other", gone.Process.Pid }, want: "-break-lock other"},
		{name: "another container", change: func(o *owner) { o.Space, o.PID = "pid:[1]", gone.Process.Pid }, want: "-break-lock other"},
		{name: "a clock that is ahead", change: func(o *owner) {
			o.PID, o.Started, o.Taken = alive.Process.Pid, processStart(alive.Process.Pid), now.Add(time.Hour)
		}, want: "the clocks differ"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if self.Machine == "" || self.Boot == "" {
				t.Skip("this system does not tell which machine it is")
			}
			t0 := directory(t)
			tier, err := openTier(t0.dest, Rsync{})
			if err != nil {
				t.Fatal(err)
			}
			defer tier.close()
			o := self
			o.Taken = now.Add(-2 * time.Hour)
			tt.change(&o)
			b := fmt.Appendf(nil, `{"host":%q,"user":%q,"pid":%d,"started":%q,"boot":%q,"space":%q,"machine":%q,"source":"s","taken":%q}`,
				o.Host, o.User, o.PID, o.Started, o.Boot, o.Space, o.Machine, o.Taken.Format(time.RFC3339Nano))
			if _, err := tier.write(t.Context(), []small{{name: lockDir + "/other", data: b, private: true}}); err != nil {
				t.Fatal(err)
			}
			h, _, notes, err := acquire(t.Context(), tier, self, "", nil)
			if tt.stale {
				if err != nil || len(notes) != 1 {
					t.Fatalf("%v, notes %q; want the lock removed, with a note", err, notes)
				}
			} else {
				if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("error %v, want %q in it", err, tt.want)
				}
				if h, _, _, err = acquire(t.Context(), tier, self, "other", nil); err != nil {
					t.Fatalf("with -break-lock: %v", err)
				}
			}
			if _, err := h.alone(t.Context(), now); err != nil {
				t.Error(err)
			}
			if _, err := h.read(t.Context(), nil); err != nil {
				t.Error(err)
			}
			if err := h.release(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := h.read(t.Context(), nil); err == nil {
				t.Error("a lock that was released is still held")
			}
		})
	}
}

// What a publisher that was killed was about to make its lock is nobody's lock,
// and goes when it is old.
func TestLocksThatWereNeverWritten(t *testing.T) {
	t0 := directory(t)
	old, young := lockDir+"/.old.syncer", lockDir+"/.young.syncer"
	write(t, t0.dir, map[string]string{old: "{", young: "{"})
	age(t, t0.dir, time.Now().Add(-2*time.Hour))
	write(t, t0.dir, map[string]string{young: "{"})
	src := t.TempDir()
	release(t, src, 1)
	t0.mustPublish(t, Job{}, src)
	left := snapshot(t, t0.dir)
	if _, ok := left[old]; ok {
		t.Errorf("%s is still there", old)
	}
	if _, ok := left[young]; !ok {
		t.Errorf("%s is gone", young)
	}
}

// Of two that lock at the same time at least one goes away, and what one has
// published before the lock of the other is seen by it.
func TestPublishersThatComeTogether(t *testing.T) {
	t0 := directory(t)
	tier, err := openTier(t0.dest, Rsync{})
	if err != nil {
		t.Fatal(err)
	}
	defer tier.close()
	self := me("src", time.Now())
	var locks []*held
	for range 2 {
		// As if both had looked before either wrote.
		h, _, _, err := acquire(t.Context(), blind{tier}, self, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		h.tier = tier
		locks = append(locks, h)
	}
	for _, h := range locks {
		if _, err := h.alone(t.Context(), time.Now()); !errors.Is(err, ErrLocked) {
			t.Errorf("error %v, want %v", err, ErrLocked)
		}
	}
	if err := errors.Join(locks[0].release(t.Context()), locks[1].release(t.Context())); err != nil {
		t.Fatal(err)
	}

	src := t.TempDir()
	release(t, src, 1)
	p := newPublisher(Job{Source: src, Dests: []string{t0.dest}})
	if err := errors.Join(p.readSource(t.Context()), p.open(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := p.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.dests[0].lock.release(t.Context()) // so that the other may come
	t0.mustPublish(t, Job{}, src)
	if p.dests[0].lock, p.dests[0].looked, _, err = acquire(t.Context(), tier, self, "", p.names()); err != nil {
		t.Fatal(err)
	}
	if moved, err := p.alone(t.Context()); !moved || err != nil {
		t.Errorf("moved %v, %v; want that the other publication is noticed", moved, err)
	}
	if err := p.close(t.Context()); err != nil {
		t.Error(err)
	}
}

// blind is a tier whose locks are not to be seen yet.
type blind struct{ tier }

func (b blind) look(ctx context.Context, names []string) (files, locks map[string][]byte, err error) {
	files, _, err = b.tier.look(ctx, names)
	return files, nil, err
}

// A lock that is broken under a publication stops it.
func TestLockThatVanishes(t *testing.T) {
	t0, src := directory(t), t.TempDir()
	release(t, src, 1)
	_, err := t0.publish(t, Job{step: func(step string) {
		if step == "switched" {
			if err := os.RemoveAll(filepath.Join(t0.dir, lockDir)); err != nil {
				t.Error(err)
			}
		}
	}}, src)
	if err == nil || !strings.Contains(err.Error(), "lock of this publication vanished") {
		t.Errorf("error %v, want that the lock vanished", err)
	}
}

func TestSourceThatChangesMeanwhile(t *testing.T) {
	t0, src := directory(t), t.TempDir()
	release(t, src, 1)
	t0.mustPublish(t, Job{}, src)
	release(t, src, 2)
	name := releaseRepos[0] + "/Packages/p0-2-1.x86_64.rpm"
	_, err := t0.publish(t, Job{step: func(step string) {
		if step == "metadata" {
			write(t, src, map[string]string{name: "built again"})
		}
	}}, src)
	if err == nil || !strings.Contains(err.Error(), "nothing was switched") || !strings.Contains(err.Error(), name) {
		t.Errorf("error %v, want that nothing was switched, because of %s", err, name)
	}
	if got, err := overFiles(t0.dir).read(releaseRepos[0]); got != "1001" || err != nil {
		t.Errorf("clients read revision %s, %v; want 1001", got, err)
	}
	// What came of it was never seen by anybody, so it may come again otherwise.
	release(t, src, 2)
	makeRepo(t, filepath.Join(src, releaseRepos[0]), 1002, map[string]string{"p0-2-1.x86_64.rpm": "built again"})
	t0.mustPublish(t, Job{}, src)
	t0.wantGeneration(t, 2)
}

func TestPublishToAFullDisk(t *testing.T) {
	t0, src := directory(t), t.TempDir()
	mount(t, t0.dir, "size=1m")
	release(t, src, 1)
	t0.mustPublish(t, Job{}, src)
	release(t, src, 2)
	write(t, src, map[string]string{"big.iso": strings.Repeat("x", 2<<20)})
	before := snapshot(t, t0.dir)
	if _, err := t0.publish(t, Job{}, src); err == nil || !strings.Contains(err.Error(), "bytes are free") {
		t.Errorf("error %v, want how much is free", err)
	}
	if after := snapshot(t, t0.dir); !maps.Equal(before, after) {
		t.Errorf("the refused publication changed %q", difference(before, after))
	}
	// It is full after it was found to have room.
	remove(t, src, "big.iso")
	write(t, src, map[string]string{"small.iso": strings.Repeat("x", 500<<10)})
	filler := filepath.Join(t0.dir, "filler")
	job := Job{step: func(step string) {
		if step == "begun" {
			write(t, "", map[string]string{filler: strings.Repeat("x", 400<<10)})
		}
	}}
	if _, err := t0.publish(t, job, src); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("error %v, want that the disk is full", err)
	}
	for _, repo := range releaseRepos {
		if got, err := overFiles(t0.dir).read(repo); got != "1001" || err != nil {
			t.Errorf("clients read revision %s, %v; want 1001", got, err)
		}
	}
	remove(t, "", filler)
	t0.mustPublish(t, Job{}, src)
	t0.wantGeneration(t, 2)
}

func TestPublishToAReadOnlyDisk(t *testing.T) {
	t0, src := directory(t), t.TempDir()
	release(t, src, 1)
	t0.mustPublish(t, Job{}, src)
	before := snapshot(t, t0.dir)
	readOnly(t, t0.dir)
	release(t, src, 2)
	if _, err := t0.publish(t, Job{}, src); !errors.Is(err, syscall.EROFS) {
		t.Errorf("error %v, want %v in it", err, syscall.EROFS)
	}
	if after := snapshot(t, t0.dir); !maps.Equal(before, after) {
		t.Errorf("changed %q", difference(before, after))
	}
}

// readOnly makes dir read-only until the end of the test, which needs root.
func readOnly(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("cannot bind a directory: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	if err := syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("cannot make it read-only: %v", err)
	}
}

// mount puts a small file system of its own on dir, which needs root.
func mount(t *testing.T, dir, options string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}

// A link in the destination that leads out of it is never followed.
func TestNothingOutsideTheDestinationIsTouched(t *testing.T) {
	t0, src, outside := directory(t), t.TempDir(), t.TempDir()
	write(t, outside, map[string]string{"precious": "p"})
	before := snapshot(t, outside)
	release(t, src, 1)
	for _, name := range []string{"9", StateDir} {
		if err := os.RemoveAll(filepath.Join(t0.dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, filepath.Join(t0.dir, name)); err != nil {
			t.Fatal(err)
		}
		t0.publish(t, Job{}, src) // whatever it says of that
		if after := snapshot(t, outside); !maps.Equal(before, after) {
			t.Errorf("a link %s in the destination: %q changed outside of it", name, difference(before, after))
		}
		if err := os.RemoveAll(filepath.Join(t0.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t0.mustPublish(t, Job{}, src)
	t0.wantGeneration(t, 1)
}

func TestDestinationsThatAreNone(t *testing.T) {
	for _, good := range []string{"rsync://[::1]:8730/tree", "rsync://u@[2001:db8::1]/tree/x y", "host:/srv/tree", "u@host:tree", "host::tree", "."} {
		if tier, err := openTier(good, Rsync{}); err != nil {
			t.Errorf("%q: %v, want it understood", good, err)
		} else {
			tier.close()
		}
	}
	for _, tt := range []struct{ dest, want string }{
		{"", "is empty"},
		{"-e", "looks like an option"},
		{"a\nb", "control character"},
		{"/not/there", "mount it, or make the directory"},
		{"rsync://user:secret@host/tree", "password file"},
		{"rsync://host", "/MODULE"},
		{"rsync:///tree", "/MODULE"},
		{"rsync://host/tree?x", "expand"},
		{"host::", "HOST::MODULE"},
		{":dir", "HOST:DIRECTORY"},
	} {
		if _, err := openTier(tt.dest, Rsync{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q in it", tt.dest, err, tt.want)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error tells the password: %v", tt.dest, err)
		}
	}
}

// Names are chosen on the other side by patterns, which must match them alone.
func TestRemoteReadsExactlyWhatItIsAskedFor(t *testing.T) {
	dir := t.TempDir()
	tier := &remote{rsync: Rsync{Program: testworld.Need(t, "rsync")}, place: place{text: dir + "/"}}
	names := append([]string{"star*", `back\*slash`, "what?", "[ab]", "deep/[x]/y*/z"}, oddNames...)
	for _, n := range names {
		write(t, dir, map[string]string{n: n})
	}
	write(t, dir, map[string]string{"stars": "", "whatx": "", "a": "", "deep/x/yy/z": "", "deep/other": ""})
	for _, n := range append(names, "missing", "deep/missing") {
		got, err := tier.read(t.Context(), []string{n})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(n, "missing") {
			if len(got) != 0 {
				t.Errorf("%q: got %q, want nothing", n, got)
			}
		} else if len(got) != 1 || string(got[n]) != n {
			t.Errorf("%q: got %q, want that alone", n, got)
		}
	}
	all, err := tier.read(t.Context(), names)
	if err != nil || len(all) != len(names) {
		t.Errorf("together: %d names, %v; want %d", len(all), err, len(names))
	}
}

// A daemon that refuses, and one that is not there, change nothing and leave no
// lock.
func TestDaemonThatRefuses(t *testing.T) {
	t0, src := tierKinds["daemon"](t), t.TempDir()
	release(t, src, 1)
	wrong := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(wrong, []byte("wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	job := Job{Source: src, Dests: []string{t0.dest}, Rsync: Rsync{PasswordFile: wrong}}
	if _, err := Publish(t.Context(), job); err == nil || !strings.Contains(err.Error(), "auth failed") {
		t.Errorf("a wrong password: %v, want rsync's own words", err)
	}
	job.Rsync = t0.job.Rsync
	job.Dests = []string{strings.Replace(t0.dest, "/tree/pub", "/tree/not", 1)}
	if _, err := Publish(t.Context(), job); err == nil || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("a directory that is not there: %v, want that", err)
	}
	if got := snapshot(t, t0.dir); len(got) != 0 {
		t.Errorf("something was written: %q", slices.Collect(maps.Keys(got)))
	}
}

// An rsync server that names files outside of what it was asked for is not
// believed, and nothing is written where it says.
func TestServerThatLeadsOut(t *testing.T) {
	testworld.Need(t, "rsync")
	for _, name := range []string{"../evil", "/evil", ".meridian/../../evil", "a/../../evil"} {
		t.Run(name, func(t *testing.T) {
			tmp := t.TempDir()
			t.Setenv("TMPDIR", tmp)
			addr := hostileServer(t, name)
			tier, err := openTier("rsync://"+addr+"/tree", Rsync{Protocol: 29, Timeout: 5 * time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			defer tier.close()
			// In rsync's words; it looks at requests first when it can.
			refused := func(err error) bool {
				return err != nil && (strings.Contains(err.Error(), "unsafe pathname") || strings.Contains(err.Error(), "rejecting unrequested"))
			}
			if got, err := tier.read(t.Context(), []string{stateFile}); !refused(err) {
				t.Errorf("read %v, %v; want the name refused", got, err)
			}
			if m, err := tier.list(t.Context()); !refused(err) {
				t.Errorf("listed %+v, %v; want the name refused", m, err)
			}
			for file := range snapshot(t, tmp) {
				t.Errorf("%s was written", file)
			}
		})
	}
}

// hostileServer speaks as much of rsync's protocol 29 as it takes to send a list
// of one file with a name of its own choice.
func hostileServer(t *testing.T, name string) (addr string) {
	return hostile(t, func(conn net.Conn) {
		conn.Write(hostileList(name, true))
		// Until the client hangs up, or says what it wants.
		buf := make([]byte, 4096)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	})
}

// endlessServer sends a list of files that has no end.
func endlessServer(t *testing.T) (addr string) {
	return hostile(t, func(conn net.Conn) {
		// One that was asked for: rsync itself refuses others.
		some := bytes.Repeat(hostileList(TimeFile, false), 1000)
		for {
			if _, err := conn.Write(some); err != nil {
				return
			}
		}
	})
}

// hostile serves connections with send after the greetings of protocol 29.
func hostile(t *testing.T, send func(conn net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(5 * time.Minute))
				greet(conn)
				send(conn)
			}()
		}
	}()
	return ln.Addr().String()
}

func greet(conn net.Conn) {
	line := func() string {
		var b []byte
		one := make([]byte, 1)
		for {
			if _, err := conn.Read(one); err != nil || one[0] == '\n' {
				return string(b)
			}
			b = append(b, one[0])
		}
	}
	fmt.Fprint(conn, "@RSYNCD: 29.0\n")
	line() // its version
	line() // the module
	fmt.Fprint(conn, "@RSYNCD: OK\n")
	for line() != "" { // its arguments
	}
	conn.Write([]byte{1, 0, 0, 0}) // checksum seed
}

// hostileList is a list of one file, or a part of one that goes on.
func hostileList(name string, last bool) []byte {
	var list bytes.Buffer
	le := func(n uint32) { list.Write([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}) }
	list.WriteByte(0x18) // as uid and gid before; a name of one length byte
	list.WriteByte(byte(len(name)))
	list.WriteString(name)
	le(4)        // size
	le(1e9)      // time
	le(0o100644) // mode
	if last {
		list.WriteByte(0)
		le(0) // no error
	}
	b := list.Bytes()
	head := []byte{byte(len(b)), byte(len(b) >> 8), byte(len(b) >> 16), 7} // multiplexed data
	return append(head, b...)
}

func TestInterruptedPublicationLeavesNoLock(t *testing.T) {
	t0, src := directory(t), t.TempDir()
	release(t, src, 1)
	ctx, cancel := context.WithCancel(t.Context())
	job := Job{Source: src, Dests: []string{t0.dest}, step: func(step string) {
		if step == "begun" {
			cancel()
		}
	}}
	if _, err := Publish(ctx, job); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if locks, err := os.ReadDir(filepath.Join(t0.dir, lockDir)); err != nil || len(locks) != 0 {
		t.Errorf("locks left behind: %v, %v", locks, err)
	}
	t0.mustPublish(t, Job{}, src)
	t0.wantGeneration(t, 1)
}

// A tree that something else put there is taken over: nothing of it is deleted
// before the grace is over.
func TestForeignTreeIsAdopted(t *testing.T) {
	eachTier(t, func(t *testing.T, t0 tier0) {
		src := t.TempDir()
		release(t, t0.dir, 1)
		write(t, t0.dir, map[string]string{"old": "x"})
		release(t, src, 2)
		now := time.Now()
		got := t0.mustPublish(t, Job{now: func() time.Time { return now }}, src)
		if got.Generation != 2 || len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "adopted") {
			t.Errorf("report %+v, want generation 2 and a note", got)
		}
		t0.wantGeneration(t, 2)
		if _, err := os.Lstat(filepath.Join(t0.dir, "old")); err != nil {
			t.Error(err)
		}
		for n, after := range []time.Duration{time.Hour, 100 * time.Hour} {
			release(t, src, 3+n)
			t0.mustPublish(t, Job{now: func() time.Time { return now.Add(after) }}, src)
		}
		t0.wantGeneration(t, 4)
		if _, err := os.Lstat(filepath.Join(t0.dir, "old")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what was there before is still there: %v", err)
		}
	})
}
