// Runtests runs the tests of this tree as people and CI want to read them: each
// failure in full as it happens, every skip with its reason, the programs of
// others that were really used, and a last line that counts. It decides nothing
// about a test that go test has not decided, and is not installed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"meridian/cmd/internal/daemon"
	"meridian/internal/testworld/counterpart"
)

const usage = `usage:
    runtests test [-race] [-short] [-limit 25m] [PACKAGE...]
    runtests soak [-time 1h] [-kills 5m] [PACKAGE...]
    runtests fuzz [-time 5m] [-run REGEXP] [DIR...]

test checks the formatting, runs go vet and every test, and ends with a table of
the foreign programs that tests ran against and one line that counts. With
CI=true it fails when a program that the tests need was used by none.

soak runs test again and again, shuffled, with the race detector and the tests
of the build tag soak, until the time is up or something fails. In each round
the programs that build, publish and follow, and checkers that write findings,
are killed at random moments for the time of -kills, while readers read without
pause. A failure tells the seed of the moments: MERIDIAN_KILL_SEED.

fuzz runs every fuzz target in turn, each for that time, and stops at the first
finding, which go test keeps as a new seed in testdata.

Packages default to ./..., directories to the whole tree. Example:
    go run ./cmd/internal/runtests test ./mirrorlist/...
`

func main() { daemon.Main(run) }

func run(ctx context.Context, env daemon.Env) error {
	verb, args, err := daemon.Verb(env, usage)
	if err != nil {
		return err
	}
	switch verb {
	case "test":
		return test(ctx, env, args)
	case "soak":
		return soak(ctx, env, args)
	case "fuzz":
		return fuzz(ctx, env, args)
	default:
		return daemon.Misuse("no verb %q; write test, soak or fuzz", verb)
	}
}

func test(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	race := flags.Bool("race", false, "with the race detector")
	short := flags.Bool("short", false, "without what takes long")
	limit := flags.Duration("limit", 25*time.Minute, "for everything together")
	if err := daemon.ParseFlags(flags, args, usage); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, *limit, fmt.Errorf("not done after %v; -limit allows more", *limit))
	defer cancel()

	var extra []string
	if *race {
		extra = append(extra, "-race")
	}
	if *short {
		extra = append(extra, "-short")
	}
	return suite(ctx, env, nil, extra, flags.Args())
}

func soak(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	length := flags.Duration("time", time.Hour, "after which no new round begins")
	kills := flags.Duration("kills", 5*time.Minute, "of each round, for killing at random")
	if err := daemon.ParseFlags(flags, args, usage); err != nil {
		return err
	}
	end := time.Now().Add(*length)
	for round := 1; time.Now().Before(end); round++ {
		fmt.Fprintf(env.Stdout, "round %d, %v left\n", round, time.Until(end).Round(time.Second))
		extra := []string{"-race", "-shuffle=on", "-tags=soak", fmt.Sprintf("-timeout=%v", 2*time.Hour+*kills)}
		if err := suite(ctx, env, []string{killTimeEnv + "=" + kills.String()}, extra, flags.Args()); err != nil {
			return err
		}
	}
	return nil
}

// killTimeEnv tells the tests that kill at random moments for how long.
const killTimeEnv = "MERIDIAN_KILL_TIME"

// suite runs the whole suite once, with more of an environment and arguments of go
// test. The error is silent: what failed is on the screen, the count in the last
// line.
func suite(ctx context.Context, env daemon.Env, environment, extra, packages []string) error {
	whole := len(packages) == 0
	if whole {
		packages = []string{"./..."}
	}
	cases, err := os.CreateTemp("", "counterparts")
	if err != nil {
		return err
	}
	cases.Close()
	defer os.Remove(cases.Name())

	p := newPrinter(env.Stdout)
	r := &report{printer: p}

	p.stage("gofmt")
	ugly, err := unformatted(".")
	if err != nil {
		return err
	}
	if len(ugly) > 0 {
		r.fail("gofmt", "not formatted as gofmt would, run gofmt -w on: "+strings.Join(ugly, " "))
	}

	p.stage("go vet")
	if out, err := goCommand(ctx, nil, append([]string{"vet"}, packages...)...).CombinedOutput(); err != nil {
		r.fail("go vet", strings.TrimSpace(string(out)))
	}

	p.stage("go list")
	list, err := goCommand(ctx, nil, append([]string{"list"}, packages...)...).Output()
	if err != nil {
		r.fail("go list", commandError(err))
	}
	r.packages = strings.Count(string(list), "\n")

	p.stage("go test")
	// -vet=off: all of vet has run above.
	testArgs := append([]string{"test", "-json", "-count=1", "-vet=off", "-timeout=20m"}, extra...)
	environment = append(environment, counterpart.CasesFile+"="+cases.Name())
	cmd := goCommand(ctx, environment, append(testArgs, packages...)...)
	if err := r.collect(cmd); err != nil {
		r.fail("go test", err.Error())
	}
	if ctx.Err() != nil {
		r.fail("runtests", context.Cause(ctx).Error())
	}

	rows, err := counterparts(cases.Name())
	if err != nil {
		return err
	}
	if whole && env.Getenv("CI") == "true" {
		for _, row := range rows {
			if row.cases == 0 {
				r.fail(row.program, "no test case ran with "+row.program+"; write one, or change its line in internal/testworld/counterpart/counterparts.txt")
			}
		}
	}
	r.finish(rows)
	if r.failed > 0 || r.passed == 0 {
		return daemon.Exit(1)
	}
	return nil
}

// goCommand is one run of the go command. When ctx ends it is interrupted with
// all the processes that its tests started, and killed if that does not help.
func goCommand(ctx context.Context, environment []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), environment...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// commandError is what a command said on standard error, or else how it ended.
func commandError(err error) string {
	if exit, ok := err.(*exec.ExitError); ok && len(exit.Stderr) > 0 {
		return strings.TrimSpace(string(exit.Stderr))
	}
	return err.Error()
}
