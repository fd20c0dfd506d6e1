package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"meridian/internal/testworld"
)

// childEnv makes this test binary a writer that does something to itself at one
// of its steps: "kill 3 URL", "stop 12 URL". The steps are those of childSteps.
const childEnv = "STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if args := os.Getenv(childEnv); args != "" {
		if err := child(args); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child takes the lease, renews it, and writes twice, as childChange says. Each
// thing that it has done it says, and each step that it is about to take.
func child(args string) error {
	var what, url string
	var at int
	if _, err := fmt.Sscan(args, &what, &at, &url); err != nil {
		return err
	}
	fmt.Println("pid", os.Getpid())
	n := 0
	do := func(step string) {
		fmt.Println("step", step)
		if n++; n != at {
			return
		}
		fmt.Println("now")
		if what == "kill" {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		// The signal may take a moment; what follows comes after it was woken up.
		awake := make(chan os.Signal, 1)
		signal.Notify(awake, syscall.SIGCONT)
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		<-awake
	}
	lease, _ := place{url: url}.leases()
	s, err := Open(url, Options{Lease: lease, step: do})
	if err != nil {
		return err
	}
	defer s.Close()
	w := s.Writer("r", "")
	ctx := context.Background()
	if _, err := w.Acquire(ctx); err != nil {
		fmt.Println("acquire", err)
	}
	if _, err := w.Read(ctx); err != nil {
		return err
	}
	for i := 1; i <= 2; i++ {
		do("between")
		if _, err := w.Acquire(ctx); err != nil {
			fmt.Println("renew", err)
		}
		switch err := w.Write(ctx, childChange(i)); {
		case err == nil:
			fmt.Println("wrote", i)
		case errors.Is(err, ErrNotHolder):
			fmt.Println("not holder")
		default:
			return err
		}
	}
	do("end")
	return w.Release(ctx)
}

// childChange has everything: fields that are new, that change and that go, two
// logs, and one of them is as long as it may be and has to be compacted.
func childChange(i int) *Change {
	n := strconv.Itoa(i)
	c := step(i, "g/first", n, "g/second", n, "g/new"+n, n)
	c.Remove = []string{"g/new" + strconv.Itoa(i-1)}
	c.Log = []LogEntry{{"log", "short", childEntry(i)}, {"log", "long", childEntry(i)}}
	return c
}

// childEntry has no time: that of the child is not that of its parent.
func childEntry(i int) string { return fmt.Sprintf(`{"by child":%d}`, i) }

// leases are those of a child and its parent. The parent waits for the end of the
// child's, and the child cannot wait for the end of its parent's, however slow both
// of them are: a lease in Redis ends when its holder has said, and one in a
// directory when whoever waits says.
func (p place) leases() (child, parent time.Duration) {
	if p.isDir() {
		return DefaultLease, shortLease
	}
	return shortLease, DefaultLease
}

// A running is a child and what it says.
type running struct {
	*testworld.Child
	out  *bufio.Scanner
	said []string
}

func startChild(t *testing.T, args string) *running {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+args)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	cmd.Stdout, cmd.Stderr = w, w
	c, err := testworld.Start(cmd)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Signal(syscall.SIGKILL)
		<-c.Done()
	})
	return &running{Child: c, out: bufio.NewScanner(r)}
}

// until reads what the child says up to a line, or its end. It reports whether
// there was such a line.
func (r *running) until(line string) bool {
	for r.out.Scan() {
		r.said = append(r.said, r.out.Text())
		if r.out.Text() == line {
			return true
		}
	}
	return false
}

// stopped waits until the child sleeps as the kernel sees it.
func (r *running) stopped(t *testing.T) {
	t.Helper()
	pid, _ := strings.CutPrefix(r.said[0], "pid ")
	for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			t.Skipf("cannot see whether a process is stopped: %v", err)
		}
		// The state follows the name, which is in parentheses.
		if _, state, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(state, "T") {
			return
		}
	}
}

// prepare makes a record and logs, and a lease that nobody has.
func prepare(t *testing.T, p place) {
	t.Helper()
	w := ready(t, p.open(t, Options{}))
	write(t, w, step(0, "g/first", "0", "g/second", "0", "g/new0", "0"))
	for i := -20; i < 0; i++ {
		c := step(0)
		c.Log = []LogEntry{{"log", "long", entry(i, strings.Repeat("x", maxLogBytes/20-46))}}
		write(t, w, c)
	}
	if err := w.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// whole checks that the record is in one of the states that childChange makes,
// and returns the number of it.
func whole(t *testing.T, rec *Record, err error) int {
	t.Helper()
	if err != nil {
		t.Errorf("a reader gets %v", err)
		return 0
	}
	n := rec.Fields["g/first"]
	wantFields(t, rec, map[string]string{"g/first": n, "g/second": n, "g/new" + n: n})
	i, _ := strconv.Atoi(n)
	return i
}

// A writer may be killed before any of its steps. Readers see a whole state, the
// lease of the dead is free (in a directory at once), and the logs say what the
// record says.
func TestKilledAtEachStep(t *testing.T) {
	atEachStep(t, "kill", func(t *testing.T, p place, c *running) {
		<-c.Done()
		reader := p.open(t, Options{})
		rec, err := reader.Read(t.Context(), "r", "", nil)
		state := whole(t, rec, err)
		_, lease := p.leases()
		w := p.open(t, Options{Lease: lease}).Writer("r", "")
		if p.isDir() {
			must[time.Duration](t)(w.Acquire(t.Context()))
		} else {
			takeOver(t, w)
		}
		wantLogs(t, reader, state)
		rec, err = w.Read(t.Context())
		if again := whole(t, rec, err); again != state {
			t.Errorf("state %d has become %d", state, again)
		}
		write(t, w, step(9, "g/ninth", "9"))
		wantLogs(t, reader, state)
		wantClean(t, p)
	})
}

// A writer may sleep before any of its steps while another takes over, and wakes
// up to a record that it must not touch.
func TestAsleepAtEachStep(t *testing.T) {
	atEachStep(t, "stop", func(t *testing.T, p place, c *running) {
		c.stopped(t)
		reader := p.open(t, Options{})
		rec, err := reader.Read(t.Context(), "r", "", nil)
		state := whole(t, rec, err)
		_, lease := p.leases()
		w := p.open(t, Options{Lease: lease}).Writer("r", "")
		takeOver(t, w)
		rec, err = w.Read(t.Context())
		if again := whole(t, rec, err); again != state {
			t.Errorf("state %d has become %d while its writer sleeps", state, again)
		}
		change := step(9, "g/ninth", "9")
		change.Log = []LogEntry{{"log", "long", entry(9, "by parent")}}
		write(t, w, change)
		have := must[*Record](t)(w.Read(t.Context()))

		before := len(c.said)
		c.Signal(syscall.SIGCONT)
		c.until("")
		if err := c.Err(); err != nil {
			t.Errorf("%v: %q", err, c.said)
		}
		// What it wrote before is all that it wrote.
		for _, line := range c.said[before:] {
			if n, ok := strings.CutPrefix(line, "wrote "); ok && n != strconv.Itoa(state) {
				t.Errorf("awake again it says %q, and the state was %d", line, state)
			}
		}
		if now := must[*Record](t)(reader.Read(t.Context(), "r", "", nil)); now.stamp != have.stamp {
			t.Errorf("the record is %v, and was written as %v", now, have)
		}
		if got := must[[]string](t)(reader.Log(t.Context(), "log", "long", 1)); len(got) != 1 || got[0] != entry(9, "by parent") {
			t.Errorf("the newest entry of the log is %q", got)
		}
		wantLogs(t, reader, state)
		// The parent goes on as if nothing had been.
		must[time.Duration](t)(w.Acquire(t.Context()))
		write(t, w, step(10, "g/tenth", "10"))
		if err := w.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		must[time.Duration](t)(p.open(t, Options{}).Writer("r", "").Acquire(t.Context()))
		wantClean(t, p)
	})
}

// A writer may sleep after its step is made and before it knows that, while another
// takes over, makes a step of its own, and is gone again. It must not take what
// that one has written for its own.
func TestAsleepWhileAnotherComesAndGoes(t *testing.T) {
	p := dirPlace(t)
	b := p.open(t, Options{Lease: shortLease}).Writer("r", "")
	asleep := false
	a := ready(t, p.open(t, Options{Lease: shortLease, step: func(step string) {
		if !asleep || step != "renamed" {
			return
		}
		asleep = false
		takeOver(t, b)
		wantFields(t, must[*Record](t)(b.Read(t.Context())), map[string]string{"n": "1", "by": `"a"`})
		write(t, b, signedStep(2, "b"))
		if err := b.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}}))
	write(t, a, signedStep(0, "a"))
	asleep = true
	write(t, a, signedStep(1, "a"))
	if err := a.Write(t.Context(), signedStep(2, "a")); !errors.Is(err, ErrNotHolder) {
		t.Errorf("a writer that has not read what another has written: %v, want %v", err, ErrNotHolder)
	}
	takeOver(t, a)
	wantFields(t, must[*Record](t)(a.Read(t.Context())), map[string]string{"n": "2", "by": `"b"`})
	write(t, a, signedStep(3, "a"))
}

// signedStep is step n, with who has made it.
func signedStep(n int, by string) *Change {
	return step(n, "n", strconv.Itoa(n), "by", strconv.Quote(by))
}

// atEachStep runs a child that does something to itself at its first step, then
// another at its second, and so on as long as there are steps.
func atEachStep(t *testing.T, what string, then func(t *testing.T, p place, c *running)) {
	everywhere(t, func(t *testing.T, p place) {
		want := []string{"acquire", "between", "commit", "end"}
		if p.isDir() {
			want = []string{"claim", "link", "unlink", "sweep", "between", "renew", "stage", "check", "rename", "renamed", "log", "compact", "compact check", "compact rename", "end"}
		}
		var steps []string
		for at := 1; ; at++ {
			p.lose(t)
			prepare(t, p)
			c := startChild(t, fmt.Sprintf("%s %d %s", what, at, p.url))
			if !c.until("now") {
				if err := c.Err(); err != nil {
					t.Fatalf("%v: %q", err, c.said)
				}
				break
			}
			name := strings.TrimPrefix(c.said[len(c.said)-2], "step ")
			steps = append(steps, name)
			t.Run(fmt.Sprintf("%d before %s", at, name), func(t *testing.T) { then(t, p, c) })
		}
		for _, name := range want {
			if !slices.Contains(steps, name) {
				t.Errorf("no writer got as far as %q; the steps were %q", name, steps)
			}
		}
	})
}

// wantLogs checks that the logs have the entries of all states up to one, once.
func wantLogs(t *testing.T, s *Store, state int) {
	t.Helper()
	for _, name := range []string{"short", "long"} {
		var got []string
		for _, e := range must[[]string](t)(s.Log(t.Context(), "log", name, 1000)) {
			if strings.Contains(e, "by child") {
				got = append(got, e)
			}
		}
		var want []string
		for i := state; i > 0; i-- {
			want = append(want, childEntry(i))
		}
		if !slices.Equal(got, want) {
			t.Errorf("in state %d, log %s holds %q, want %q", state, name, got, want)
		}
	}
}

// wantClean checks that nothing is left of who was here before.
func wantClean(t *testing.T, p place) {
	t.Helper()
	if !p.isDir() {
		return
	}
	dir := strings.TrimPrefix(p.url, "dir:")
	leases := 0
	for _, sub := range []string{dir, dir + "/log"} {
		entries, err := os.ReadDir(sub)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			switch name := e.Name(); {
			case strings.HasPrefix(name, ".r.lease-"):
				leases++
			case strings.HasPrefix(name, "."):
				t.Errorf("%s is left in %s", name, sub)
			}
		}
	}
	if leases != 1 {
		t.Errorf("there are %d leases, want the last", leases)
	}
}
