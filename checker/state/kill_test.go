package state

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meridian/internal/testworld"
)

// checkerEnv makes this test binary a checker that writes without pause, "NUMBER
// SEED LEASE URL": see runChecker.
const checkerEnv = "STATE_TEST_CHECKER"

// Leases of checkers that are killed. The long one ends when its holder is dead or
// asleep, the short one also while that is at work.
const (
	longLease  = 150 * time.Millisecond
	shortLease = 3 * time.Millisecond
)

func TestMain(m *testing.M) {
	if args := os.Getenv(checkerEnv); args != "" {
		fmt.Println("error", runChecker(args))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Two checkers that write without pause, one at a time, are killed, stopped and
// woken at any moment. Readers see whole snapshots and never an older one; what a
// checker was told to be stored stays; the other goes on with a greater token; and
// every step is one step of one checker after the one before.
func TestCheckersKilledAtRandomMoments(t *testing.T) {
	moments := testworld.RandomKills(t)
	moments.For /= 4
	for name, lease := range map[string]time.Duration{"": longLease, ", and leases end too early": shortLease} {
		t.Run("directory"+name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			killCheckers(t, moments, "dir:"+dir, lease, func() stamp { return stampOfDir(t, dir) })
			wantNothingLeft(t, dir)
		})
		t.Run("redis"+name, func(t *testing.T) {
			server := testworld.StartRedis(t)
			killCheckers(t, moments, "redis+unix://"+server.Socket, lease, func() stamp { return stampOfRedis(t, server) })
		})
	}
}

// A stamp says who has written a snapshot, with which token of the lease.
type stamp struct {
	ID      string `json:"id"`
	Token   int64  `json:"token"`
	Version int64  `json:"version"`
}

func stampOfDir(t *testing.T, dir string) stamp {
	t.Helper()
	var file struct{ Writer stamp }
	text, err := os.ReadFile(filepath.Join(dir, "snapshot.json"))
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err != nil {
		t.Error(err)
	}
	return file.Writer
}

func stampOfRedis(t *testing.T, server *testworld.Redis) (s stamp) {
	t.Helper()
	head := server.Command(t, "HMGET", "meridian:snapshot::head", "id", "token", "version")
	if _, err := fmt.Sscan(head, &s.ID, &s.Token, &s.Version); err != nil {
		t.Errorf("the head of the snapshot is %q: %v", head, err)
	}
	return s
}

// wantNothingLeft checks that a directory has the snapshot, its logs, and the last
// lease alone.
func wantNothingLeft(t *testing.T, dir string) {
	t.Helper()
	leases := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		name := filepath.Base(path)
		switch {
		case err != nil || !strings.HasPrefix(name, "."):
		case strings.HasPrefix(name, ".snapshot.lease-"):
			leases++
		default:
			t.Errorf("%s is left of a checker that was killed", name)
		}
		return err
	})
	if err != nil || leases != 1 {
		t.Errorf("%v; there are %d leases, want the last", err, leases)
	}
}

func killCheckers(t *testing.T, moments testworld.Kills, url string, lease time.Duration, stored func() stamp) {
	const few = 6 // kills, where that is enough
	k := &killing{t: t, url: url, lease: lease, rnd: moments.Rand(0), steps: make(map[int]string), holders: make(map[string]bool)}
	k.changed = sync.NewCond(&k.mu)
	var reader sync.WaitGroup
	reader.Go(k.read)
	defer reader.Wait()
	defer k.stop()
	pair := []*killable{k.start(), k.start()}

	begun := time.Now()
	var last stamp
	for n := 0; !t.Failed() && (n < few || time.Since(begun) < moments.For); n++ {
		k.await("a step is made", 0, func() bool { return k.last > 0 })
		// Some follow upon another at once, before there is a step again.
		if k.rnd.IntN(4) > 0 {
			from := k.lastStep()
			k.await("a step is made", 0, func() bool { return k.last > from })
		}
		i := k.rnd.IntN(2)
		if k.rnd.IntN(4) > 0 { // rather the one that writes
			i = k.writes(pair)
		}
		victim, other := pair[i], pair[1-i]
		moment := time.Duration(k.rnd.Int64N(int64(40 * time.Millisecond)))
		stop := k.rnd.IntN(4) == 0
		<-time.After(moment)
		if stop {
			victim.Signal(syscall.SIGSTOP)
			from := k.lastStep()
			k.await("the other one takes over from one that sleeps", victim.number, func() bool { return k.last > from && k.by == other.number })
			victim.Signal(syscall.SIGCONT)
			k.stops++
		} else {
			victim.Signal(syscall.SIGKILL)
			victim.end()
			k.kills++
			k.wantStored()
			pair[i] = k.start()
			from := k.lastStep()
			k.await("the other one goes on", victim.number, func() bool { return k.last > from && k.by != victim.number })
		}
		switch now := stored(); {
		case now.Token < last.Token, now.ID != last.ID && now.Token == last.Token, now.Version < last.Version:
			t.Errorf("after %+v the snapshot is of %+v", last, now)
		default:
			last = now
		}
		k.wantHistory()
	}
	for _, c := range pair {
		c.Signal(syscall.SIGKILL)
		c.end()
	}
	k.wantStored()

	// Whoever comes next finds everything, and all is as if nothing had been.
	w, err := OpenWriter(url, Options{Lease: lease})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := acquire(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	n := k.wantWhole(load(t, w))
	write(t, w, killStep(n+1, "the last one"))
	k.stop()
	reader.Wait()
	if got := k.wantWhole(load(t, openReader(t, url))); got != n+1 {
		t.Errorf("after step %d the snapshot is that of step %d", n+1, got)
	}
	k.wantHistory()
	if err := w.Release(t.Context()); err != nil {
		t.Error(err)
	}
	t.Logf("killed %d and stopped %d times in %d steps by %d holders of the lease; %d snapshots were read, %d times a step was made of which nobody was told",
		k.kills, k.stops, n+1, len(k.holders), k.reads, k.untold)
}

// A killing is what is known of checkers that are killed.
type killing struct {
	t     *testing.T
	url   string
	lease time.Duration
	rnd   *rand.Rand

	checkers, kills, stops, untold int // of the goroutine that kills

	mu      sync.Mutex     // guards what follows
	changed *sync.Cond     // told when what follows changes
	steps   map[int]string // by whom each step was made that a checker was told to be stored
	last    int            // the last of them
	by      int            // the number of the checker that has made it
	holders map[string]bool
	reads   int
	over    bool // a checker cannot go on, or the readers are to end
}

// A killable is a checker in a process of its own.
type killable struct {
	*testworld.Child
	number int
	heard  chan struct{} // closed when all it has said is known
}

// end waits until the checker is gone, and known what it has said.
func (c *killable) end() {
	<-c.Done()
	<-c.heard
}

func (k *killing) start() *killable {
	k.t.Helper()
	k.checkers++
	c := &killable{number: k.checkers, heard: make(chan struct{})}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %s %s", checkerEnv, c.number, k.rnd.Uint64(), k.lease, k.url))
	r, w, err := os.Pipe()
	if err != nil {
		k.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	c.Child, err = testworld.Start(cmd)
	w.Close()
	if err != nil {
		k.t.Fatal(err)
	}
	go func() {
		defer close(c.heard)
		defer r.Close()
		for lines := bufio.NewScanner(r); lines.Scan(); {
			k.hear(c.number, lines.Text())
		}
	}()
	k.t.Cleanup(func() {
		c.Signal(syscall.SIGKILL)
		c.end()
	})
	return c
}

// hear takes notice of a line that a checker has said: that it was told a step to
// be stored, or that it cannot go on.
func (k *killing) hear(number int, line string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.changed.Broadcast()
	var n int
	var holder string
	if _, err := fmt.Sscanf(line, "wrote %d %s", &n, &holder); err != nil {
		k.t.Errorf("checker %d says %q", number, line)
		k.over = true
		return
	}
	if before, twice := k.steps[n]; twice {
		k.t.Errorf("step %d was made by %s, and by %s", n, before, holder)
	}
	k.steps[n], k.holders[holder] = holder, true
	if n > k.last {
		k.last, k.by = n, number
	}
}

func (k *killing) lastStep() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last
}

// writes returns which of the pair has made the last step.
func (k *killing) writes(pair []*killable) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.by == pair[1].number {
		return 1
	}
	return 0
}

// await waits until ok, which is called with what is known locked.
func (k *killing) await(what string, victim int, ok func() bool) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 5*time.Minute)
	defer cancel()
	defer context.AfterFunc(ctx, k.changed.Broadcast)()
	k.mu.Lock()
	defer k.mu.Unlock()
	for !ok() {
		if ctx.Err() != nil || k.over {
			k.t.Fatalf("not to be seen after checker %d: %s; the last step is %d of checker %d", victim, what, k.last, k.by)
		}
		k.changed.Wait()
	}
}

// read reads the snapshot without pause until stop.
func (k *killing) read() {
	r := openReader(k.t, k.url)
	for n := 0; ; {
		k.mu.Lock()
		over := k.over
		k.reads++
		k.mu.Unlock()
		if over {
			return
		}
		snap, err := r.Load(context.Background())
		if errors.Is(err, ErrNoSnapshot) && n == 0 {
			continue
		}
		if err != nil {
			k.t.Errorf("a reader gets %v after step %d", err, n)
			return
		}
		got := k.wantWhole(snap)
		if got < n {
			k.t.Errorf("a reader gets step %d after step %d", got, n)
		}
		n = got
	}
}

func (k *killing) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = true
}

// wantStored checks that all is stored that a checker was told to be.
func (k *killing) wantStored() {
	k.t.Helper()
	told := k.lastStep()
	got := k.wantWhole(load(k.t, openReader(k.t, k.url)))
	if got < told {
		k.t.Errorf("step %d is stored, and a checker was told that step %d is", got, told)
	}
	if got > told {
		k.untold++
	}
}

// wantHistory checks that the history has each of the last steps once, one after
// the other, and that no holder of the lease comes back once there was another.
func (k *killing) wantHistory() {
	k.t.Helper()
	told := k.lastStep()
	for _, mirror := range []string{"m0", ""} {
		events, err := openReader(k.t, k.url).History(k.t.Context(), mirror, 1000)
		if err != nil || len(events) == 0 {
			k.t.Errorf("the history of %q: %d events, %v", mirror, len(events), err)
			continue
		}
		// The entries of the last step may not be there yet.
		if newest := int(events[0].Lag); newest < told-1 {
			k.t.Errorf("the history of %q ends with step %d, and a checker was told that step %d is stored", mirror, newest, told)
		}
		gone := make(map[string]bool)
		for i := 1; i < len(events); i++ {
			before, after := events[i], events[i-1]
			if before.Lag+1 != after.Lag {
				k.t.Errorf("in the history of %q step %d by %s comes after step %d by %s", mirror, after.Lag, after.Problem.Reason, before.Lag, before.Problem.Reason)
			}
			if before.Problem.Reason != after.Problem.Reason {
				gone[after.Problem.Reason] = true
			}
			if gone[before.Problem.Reason] {
				k.t.Errorf("in the history of %q %s writes step %d though another has written after it", mirror, before.Problem.Reason, before.Lag)
			}
		}
	}
}

// killMirrors is how many mirrors a step of a checker is about.
const killMirrors = 40

// killStep is step n of a checker, which says the same of everything: a snapshot
// of which a part is of another step shows that.
func killStep(n int, holder string) *Change {
	c := &Change{
		Taken: noon.Add(time.Duration(n) * time.Millisecond), Mirrors: map[string]*Status{fmt.Sprint("new", n-1): nil, fmt.Sprint("new", n): {Failures: n}},
		Truth:        map[Key]Truth{baseos: {Generations: []Generation{{Revision: fmt.Sprint(n)}}}, appstream: {Generations: []Generation{{Revision: fmt.Sprint(n)}}}},
		Publications: map[string]*Publication{fmt.Sprint(n - 1): nil, fmt.Sprint(n): {Repositories: n}},
	}
	for i := range killMirrors {
		st := says(Fresh)
		st.Failures = n
		// The longer they are, the more is written while it is killed.
		st.Warnings = []string{strings.Repeat("w", 1+n*7%2000)}
		c.Mirrors[fmt.Sprint("m", i)] = st
	}
	// Long enough for a log to be compacted every now and then.
	why := &Problem{Reason: holder, Remedy: strings.Repeat("r", n*13%16000)}
	for _, mirror := range []string{"m0", ""} {
		c.Events = append(c.Events, Event{Time: noon.Add(time.Duration(n) * time.Millisecond), Mirror: mirror, Kind: HealthChanged, Lag: time.Duration(n), Problem: why})
	}
	return c
}

// stepOf returns which step has made a snapshot, and what of it is of another one.
func stepOf(snap *Snapshot) (n int, err error) {
	for id, pub := range snap.Publications {
		if n = pub.Repositories; id != fmt.Sprint(n) {
			return n, fmt.Errorf("publication %s is of step %d", id, n)
		}
	}
	if len(snap.Publications) != 1 || len(snap.Truth) != 2 || len(snap.Mirrors) != killMirrors+1 || snap.Mirrors[fmt.Sprint("new", n)] == nil {
		return n, fmt.Errorf("in step %d there are %d publications, %d truths and %d mirrors", n, len(snap.Publications), len(snap.Truth), len(snap.Mirrors))
	}
	for name, st := range snap.Mirrors {
		if st.Failures != n {
			return n, fmt.Errorf("in step %d mirror %s is of step %d", n, name, st.Failures)
		}
	}
	for key, truth := range snap.Truth {
		if truth.Newest().Revision != fmt.Sprint(n) {
			return n, fmt.Errorf("in step %d the truth of %s is of step %s", n, key, truth.Newest().Revision)
		}
	}
	if at := noon.Add(time.Duration(n) * time.Millisecond); !snap.Taken.Equal(at) {
		return n, fmt.Errorf("step %d was taken at %v, want %v", n, snap.Taken, at)
	}
	return n, nil
}

func (k *killing) wantWhole(snap *Snapshot) (n int) {
	n, err := stepOf(snap)
	if err != nil {
		k.t.Error(err)
	}
	return n
}

// acquire waits for the lease.
func acquire(ctx context.Context, w *Writer) error {
	tick := time.NewTicker(shortLease)
	defer tick.Stop()
	for {
		if _, err := w.Acquire(ctx); !errors.Is(err, ErrNotHolder) {
			return err
		}
		<-tick.C
	}
}

// runChecker takes the lease and makes one step after the other, gives it back
// sometimes, and waits for it again. What it was told to be stored, it says. It
// never ends by itself without an error.
func runChecker(args string) error {
	var number, seed uint64
	var url, length string
	if _, err := fmt.Sscan(args, &number, &seed, &length, &url); err != nil {
		return err
	}
	lease, err := time.ParseDuration(length)
	if err != nil {
		return err
	}
	rnd := rand.New(rand.NewPCG(seed, number))
	ctx := context.Background()
	w, err := OpenWriter(url, Options{Lease: lease})
	if err != nil {
		return err
	}
	for times := 0; ; times++ {
		if err := acquire(ctx, w); err != nil {
			return err
		}
		n := 0
		switch snap, err := w.Load(ctx); {
		case err == nil:
			if n, err = stepOf(snap); err != nil {
				return err
			}
		case !errors.Is(err, ErrNoSnapshot):
			return err
		}
		holder := fmt.Sprintf("%d-%d", number, times)
		for range 1 + rnd.IntN(100) {
			n++
			err := w.Write(ctx, killStep(n, holder))
			if err == nil {
				fmt.Println("wrote", n, holder)
				_, err = w.Acquire(ctx) // renewed as often as can be
			}
			if errors.Is(err, ErrNotHolder) {
				break
			}
			if err != nil {
				return err
			}
		}
		if err := w.Release(ctx); err != nil {
			return err
		}
	}
}
