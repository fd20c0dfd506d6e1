package daemon

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asProgram makes the test binary run as the program that a test of the process
// itself needs: signals and exit status cannot be seen from inside.
const asProgram = "DAEMON_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if name := os.Getenv(asProgram); name != "" {
		Main(programs[name])
	}
	os.Exit(m.Run())
}

var programs = map[string]func(context.Context, Env) error{
	"kills itself when it stops": func(ctx context.Context, env Env) error {
		fmt.Fprintln(env.Stdout, "started")
		<-ctx.Done()
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
		<-time.After(time.Minute) // a signal that nobody heard of ends nothing
		return nil
	},
	"drains": func(ctx context.Context, env Env) error {
		fmt.Fprintln(env.Stdout, "started")
		<-ctx.Done()
		fmt.Fprintln(env.Stdout, "drained")
		return nil
	},
	"logs": func(ctx context.Context, env Env) error {
		fmt.Fprintln(env.Stdout, "started")
		for i := range 100 {
			log.Printf("line %d", i)
		}
		return nil
	},
	"hangs": func(ctx context.Context, env Env) error {
		fmt.Fprintln(env.Stdout, "started")
		<-make(chan struct{}) // not ctx.Done: it does not listen
		return nil
	},
	"is interrupted": func(ctx context.Context, env Env) error {
		fmt.Fprintln(env.Stdout, "started")
		<-ctx.Done()
		return fmt.Errorf("write file: %w", ctx.Err())
	},
	"reloads": func(ctx context.Context, env Env) error {
		stop := OnHangup(ctx, func(context.Context) { fmt.Fprintln(env.Stdout, "reloaded") })
		defer stop()
		fmt.Fprintln(env.Stdout, "started")
		<-ctx.Done()
		return nil
	},
}

// child is a program of this file in a process of its own.
type child struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    *bufio.Scanner
	stderr bytes.Buffer
}

func start(t *testing.T, program string, environment ...string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(append(os.Environ(), asProgram+"="+program), environment...)
	c.cmd.Stderr = &c.stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewScanner(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.cmd.Process.Kill() })
	c.expect("started")
	return c
}

// expect waits for the next line that the program prints.
func (c *child) expect(line string) {
	c.t.Helper()
	if !c.out.Scan() {
		c.t.Fatalf("the program ended before it printed %q: %v\n%s", line, c.out.Err(), &c.stderr)
	}
	if got := c.out.Text(); got != line {
		c.t.Fatalf("the program printed %q, want %q", got, line)
	}
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// wait returns how the process ended and what it wrote to standard error.
func (c *child) wait() (syscall.WaitStatus, string) {
	for c.out.Scan() {
	}
	c.cmd.Wait()
	return c.cmd.ProcessState.Sys().(syscall.WaitStatus), c.stderr.String()
}

func TestFirstSignalEndsTheContext(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			c := start(t, "drains")
			c.signal(s)
			c.expect("drained")
			if got, stderr := c.wait(); !got.Exited() || got.ExitStatus() != 0 || stderr != "" {
				t.Errorf("a daemon that drained ended with %v and %q on stderr, want status 0 and silence", got, stderr)
			}
		})
	}
}

func TestSecondSignalKills(t *testing.T) {
	path, receive := manager(t)
	c := start(t, "hangs", "NOTIFY_SOCKET="+path)
	c.signal(syscall.SIGTERM)
	// The service manager is told after signals have their default action again.
	if got := receive(); got != Stopping {
		t.Fatalf("the service manager was told %q, want %q", got, Stopping)
	}
	c.signal(syscall.SIGTERM)
	if got, _ := c.wait(); !got.Signaled() || got.Signal() != syscall.SIGTERM {
		t.Errorf("after the second SIGTERM the process ended with %v, want killed by SIGTERM", got)
	}
}

// Whoever sees that the daemon stops can kill it by a second signal, and the
// service manager has been told, however little time passes between the two.
func TestStoppingIsKnownBeforeAnythingStops(t *testing.T) {
	path, receive := manager(t)
	for range 20 {
		c := start(t, "kills itself when it stops", "NOTIFY_SOCKET="+path)
		c.signal(syscall.SIGTERM)
		if got, _ := c.wait(); !got.Signaled() || got.Signal() != syscall.SIGTERM {
			t.Fatalf("by its second SIGTERM the process ended with %v, want killed by SIGTERM", got)
		}
		if got := receive(); got != Stopping {
			t.Fatalf("the service manager was told %q, want %q", got, Stopping)
		}
	}
}

func TestInterruptedCommandNamesTheSignal(t *testing.T) {
	c := start(t, "is interrupted")
	c.signal(syscall.SIGINT)
	got, stderr := c.wait()
	if got.ExitStatus() != 1 || !strings.HasSuffix(stderr, ": interrupt signal received\n") {
		t.Errorf("ended with status %d and %q, want 1 and the name of the signal", got.ExitStatus(), stderr)
	}
}

func TestHangupReloadsAndDoesNotKill(t *testing.T) {
	c := start(t, "reloads")
	for range 3 {
		c.signal(syscall.SIGHUP)
		c.expect("reloaded")
	}
	c.signal(syscall.SIGTERM)
	if got, _ := c.wait(); got.ExitStatus() != 0 {
		t.Errorf("ended with %v, want status 0", got)
	}
}

func TestExitStatus(t *testing.T) {
	interrupted, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("terminated signal received"))

	flags := func(args ...string) error {
		fs := flag.NewFlagSet("run", flag.ContinueOnError)
		fs.Int("limit", 10, "")
		return ParseFlags(fs, args, "usage: run\n")
	}
	tests := []struct {
		name           string
		ctx            context.Context
		err            error
		status         int
		stdout, stderr string
	}{
		{name: "success says nothing"},
		{name: "an error is printed after the name", err: errors.New("read a.yml: gone"), status: 1, stderr: "prog: read a.yml: gone\n"},
		{name: "help was asked for", err: Help("usage: prog\n"), stdout: "usage: prog\n"},
		{name: "usage was not", err: Usage("usage: prog\n"), status: 2, stderr: "usage: prog\n"},
		{name: "misuse is one line", err: Misuse("no %q; write run", "rum"), status: 2, stderr: "prog: no \"rum\"; write run\n"},
		{name: "exit is silent", err: Exit(1), status: 1},
		{name: "a wrapped ending is one all the same", err: fmt.Errorf("lint: %w", Exit(3)), status: 3},
		{name: "an interruption names its cause", ctx: interrupted, err: context.Canceled, status: 1, stderr: "prog: terminated signal received\n"},
		{name: "a failure during an interruption is that failure", ctx: interrupted, err: errors.New("disk full"), status: 1, stderr: "prog: disk full\n"},
		{name: "good flags", err: flags("-limit", "3", "x")},
		{name: "-h of a verb", err: flags("-h"), stdout: "usage: run\n"},
		{name: "help of a verb", err: flags("help"), stdout: "usage: run\n"},
		{name: "an argument that happens to be help", err: flags("help", "me")},
		{name: "an unknown flag", err: flags("-limt", "3"), status: 2, stderr: "prog: flag provided but not defined: -limt; -h lists the flags\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.ctx == nil {
				tt.ctx = t.Context()
			}
			var stdout, stderr bytes.Buffer
			env := Env{Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr}
			got := execute(tt.ctx, "prog", env, func(context.Context, Env) error { return tt.err })
			if got != tt.status || stdout.String() != tt.stdout || stderr.String() != tt.stderr {
				t.Errorf("%v ends with status %d, stdout %q, stderr %q; want %d, %q, %q",
					tt.err, got, &stdout, &stderr, tt.status, tt.stdout, tt.stderr)
			}
		})
	}
}

func TestVersionIsAnsweredForEveryCommand(t *testing.T) {
	for _, arg := range []string{"version", "-version", "--version"} {
		var out bytes.Buffer
		env := Env{Args: []string{arg}, Stdout: &out, Stderr: io.Discard}
		got := execute(t.Context(), "prog", env, func(context.Context, Env) error {
			t.Errorf("%s ran the command", arg)
			return nil
		})
		if want := "prog " + Version() + "\n"; got != 0 || out.String() != want {
			t.Errorf("%s: status %d, %q; want 0, %q", arg, got, &out, want)
		}
	}
}

func TestVerb(t *testing.T) {
	const usage = "usage: prog run\n"
	if verb, args, err := Verb(Env{Args: []string{"run", "-x", "y"}}, usage); verb != "run" || len(args) != 2 || err != nil {
		t.Errorf("Verb(run -x y) = %q, %q, %v", verb, args, err)
	}
	for arg, want := range map[string]int{"": 2, "-h": 0, "-help": 0, "--help": 0, "help": 0} {
		var args []string
		if arg != "" {
			args = []string{arg}
		}
		_, _, err := Verb(Env{Args: args}, usage)
		var stop *ending
		if !errors.As(err, &stop) || stop.status != want || stop.text != usage {
			t.Errorf("Verb(%q) = %v, want the usage text and status %d", arg, err, want)
		}
	}
}
