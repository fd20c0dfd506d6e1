//go:build soak

package syncer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"meridian/builder/rpm/rpmtest"
	"meridian/internal/testworld"
)

// The real programs build, publish and follow without pause and are killed with
// SIGKILL at any moment, of their own and of what they start. Readers of what is
// built, of tier0 and of a mirror find whole repositories all the time, and in the
// end nothing is left of what was killed.
func TestKilledAtRandomMoments(t *testing.T) {
	moments := testworld.RandomKills(t)
	length := cmp.Or(moments.For, time.Minute)
	w := newKillWorld(t, moments)
	if err := w.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.mustRun(t.Context(), "publish", "syncer", "publish", w.compose, w.tier0)
	w.mustRun(t.Context(), "follow", "syncer", "once", "-config", w.settings[0])
	tier0, mirror := startReaders(t, w.tier0), startReaders(t, w.mirror)

	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var wg sync.WaitGroup
	var published, follows atomic.Int64
	wg.Go(func() { // until the time is up, and then to the end of what was begun
		for n := 0; ctx.Err() == nil && !t.Failed(); n++ {
			if err := w.build(t.Context()); err != nil {
				t.Error(err)
			}
			// To the directory, or to the daemon that has the same.
			dest := []string{w.tier0, w.tier0URL}[w.rnd["publish"].IntN(2)]
			w.untilDone(t.Context(), "publish", nil, "syncer", "publish", w.compose, dest)
			published.Add(1)
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil && !t.Failed() {
			w.untilDone(t.Context(), "follow", acceptable, "syncer", "once", "-config", w.settings[w.rnd["follow"].IntN(2)])
			follows.Add(1)
		}
	})
	wg.Wait()
	seen0, seen1 := tier0.stop(), mirror.stop()
	t.Logf("killed %v; %d generations published, %d followed; readers saw %d of them at tier0 in %d reads, and %d at the mirror in %d",
		w.kills, published.Load(), follows.Load(), seen0, tier0.done(), seen1, mirror.done())
	for _, what := range []string{"build", "publish", "follow"} {
		if w.kills[what] == 0 {
			t.Errorf("nothing was killed while it was to %s; give it more time than %v", what, length)
		}
	}

	// When all but the newest two have expired, everything is as it would be had
	// nothing been killed.
	for range 3 {
		if err := w.build(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.mustRun(t.Context(), "publish", "syncer", "publish", "-grace", "1ns", w.compose, w.tier0)
		w.mustRun(t.Context(), "follow", "syncer", "once", "-config", w.settings[2])
	}
	for _, dir := range []string{w.tier0, w.mirror} {
		for _, repo := range releaseRepos {
			if got, err := overFiles(dir).read(repo); err != nil || got != fmt.Sprint(w.generation) {
				t.Errorf("clients of %s read revision %s, %v; want %d", dir, got, err, w.generation)
			}
		}
		v, err := VerifyTree(t.Context(), dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range v.Findings {
			t.Errorf("%s is not as its manifest says: %+v", dir, f)
		}
		var left []string
		for name := range snapshot(t, dir) {
			// What is about to be a lock goes an hour later.
			if strings.HasPrefix(name, StateDir+"/") && name != stateFile && !strings.HasPrefix(name, lookDir) && !strings.HasPrefix(name, lockDir+"/.") {
				left = append(left, name)
			}
		}
		if len(left) > 0 {
			t.Errorf("left in %s: %q", dir, left)
		}
	}
}

// acceptable reports whether a follower may end like this while its upstream is
// published to: a file that is no package changed between two looks.
func acceptable(output string) bool {
	return strings.Contains(output, ErrIncomplete.Error()) && !strings.Contains(output, "stays as it is")
}

type killWorld struct {
	t        *testing.T
	bin      string
	pool     []string // packages
	compose  string
	tier0    string
	tier0URL string // the same
	mirror   string
	settings []string // the mirror follows tier0 by its directory, its daemon, and without grace

	generation int

	rnd map[string]*rand.Rand // of each kind of run: when it is killed

	mu    sync.Mutex               // guards what follows
	took  map[string]time.Duration // the last run of each kind that was not killed
	kills map[string]int
}

func newKillWorld(t *testing.T, moments testworld.Kills) *killWorld {
	t.Helper()
	testworld.Need(t, "rsync")
	dir := testworld.TempDir(t)
	w := &killWorld{
		t: t, bin: filepath.Join(dir, "bin"), compose: filepath.Join(dir, "compose"), tier0: filepath.Join(dir, "tier0"), mirror: filepath.Join(dir, "mirror"),
		rnd: make(map[string]*rand.Rand), took: make(map[string]time.Duration), kills: make(map[string]int),
	}
	for i, what := range []string{"build", "publish", "follow"} {
		w.rnd[what] = moments.Rand(uint64(i))
	}
	pool := filepath.Join(dir, "pool")
	for _, d := range []string{w.bin, pool, w.compose, w.tier0, w.mirror} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := testworld.BuildCommands(t.Context(), w.bin, "./cmd/builder", "./cmd/syncer"); err != nil {
		t.Fatal(err)
	}
	if err := rpmtest.Generate(pool, 200, 16<<10); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.pool, err = filepath.Glob(filepath.Join(pool, "*.rpm")); err != nil {
		t.Fatal(err)
	}
	addr, daemon, err := testworld.StartRsync(t.Context(), dir, fmt.Sprintf("[tier0]\npath = %s\nread only = no\n", w.tier0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { daemon.Stop(10 * time.Second) })
	w.tier0URL = "rsync://" + addr + "/tier0"
	for i, tree := range []string{"upstream: " + w.tier0, "upstream: " + w.tier0URL, "grace: 1ns, upstream: " + w.tier0} {
		name := fmt.Sprintf("syncer%d.yml", i)
		write(t, dir, map[string]string{name: fmt.Sprintf("trees: {mirror: {path: %s, %s}}\n", w.mirror, tree)})
		w.settings = append(w.settings, filepath.Join(dir, name))
	}
	return w
}

// build composes the next generation: another 40 packages of the pool in each
// repository, and their metadata.
func (w *killWorld) build(ctx context.Context) error {
	w.generation++
	for i, repo := range releaseRepos {
		dir := filepath.Join(w.compose, repo)
		packages := filepath.Join(dir, "Packages")
		if err := os.MkdirAll(packages, 0o755); err != nil {
			return err
		}
		want := make(map[string]string)
		for k := range 40 {
			file := w.pool[(100*i+7*w.generation+k)%len(w.pool)]
			want[filepath.Base(file)] = file
		}
		have, err := os.ReadDir(packages)
		if err != nil {
			return err
		}
		for _, f := range have {
			if want[f.Name()] == "" {
				err = errors.Join(err, os.Remove(filepath.Join(packages, f.Name())))
			}
			delete(want, f.Name())
		}
		for name, file := range want {
			err = errors.Join(err, os.Link(file, filepath.Join(packages, name)))
		}
		if err != nil {
			return err
		}
		w.untilDone(ctx, "build", nil, "builder", "repo", "-quiet", "-update", "-revision", fmt.Sprint(w.generation), dir)
		if revision, _, err := overFiles(w.compose).metadataOf(repo); err != nil || revision != fmt.Sprint(w.generation) {
			return fmt.Errorf("what was built of %s has revision %s, %v; want %d", repo, revision, err, w.generation)
		}
	}
	write(w.t, w.compose, map[string]string{"README": fmt.Sprintf("generation %d\n", w.generation)})
	return nil
}

// untilDone runs a program, kills it at a random moment or not, and runs it again
// until one came to its end. It may end with an error only if ok says so of what
// it printed.
func (w *killWorld) untilDone(ctx context.Context, what string, ok func(output string) bool, program string, args ...string) {
	for w.run(ctx, what, w.rnd[what].IntN(3) > 0, ok, program, args...) {
		if what != "build" {
			continue
		}
		// Who reads what was left finds metadata of one generation, whole.
		repo, err := filepath.Rel(w.compose, args[len(args)-1])
		if err != nil {
			w.t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(w.compose, repo, "repodata/repomd.xml")); err == nil {
			if _, _, err := overFiles(w.compose).metadataOf(repo); err != nil {
				w.t.Errorf("after builder was killed: %v", err)
			}
		}
	}
}

func (w *killWorld) mustRun(ctx context.Context, what, program string, args ...string) {
	w.t.Helper()
	w.run(ctx, what, false, nil, program, args...)
}

// run returns whether it was killed.
func (w *killWorld) run(ctx context.Context, what string, kill bool, ok func(output string) bool, program string, args ...string) (killed bool) {
	var said strings.Builder
	cmd := exec.CommandContext(ctx, filepath.Join(w.bin, program), args...)
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(w.bin, "cache"))
	cmd.Stdout, cmd.Stderr = &said, &said
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		w.t.Error(err)
		return false
	}
	if kill {
		w.mu.Lock()
		most := w.took[what]*5/4 + time.Millisecond
		w.mu.Unlock()
		timer := time.AfterFunc(time.Duration(w.rnd[what].Int64N(int64(most))), func() { cmd.Process.Kill() })
		defer timer.Stop()
	}
	err := cmd.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if exit, is := errors.AsType[*exec.ExitError](err); is && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		w.kills[what]++
		return true
	}
	w.took[what] = time.Since(begun)
	if err != nil && (ok == nil || !ok(said.String())) {
		w.t.Errorf("%s %s: %v\n%s", program, strings.Join(args, " "), err, &said)
	}
	return false
}
