package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"meridian/cmd/internal/daemon"
)

// A section measures one part of the project, in a file of its own.
type section struct {
	name  string // what -run selects
	about string // one line for -list
	run   func(ctx context.Context, b *bench) error
}

// bench collects what the sections find and prints it as it comes.
type bench struct {
	out io.Writer
	dir string // temporary, and empty at first

	held, missed int
	skipped      []string
	binaries     sync.Map // what was built already, by path
}

// A value is a measurement: a number and its unit, as it is printed.
type value struct {
	n    float64
	unit string
}

func (v value) String() string {
	digits := 2
	switch {
	case v.n == float64(int(v.n)):
		digits = 0
	case v.n >= 100:
		digits = 0
	case v.n >= 10:
		digits = 1
	}
	return fmt.Sprintf("%.*f %s", digits, v.n, v.unit)
}

func (b *bench) header() { b.line("what", "value", "limit", "verdict") }

func (b *bench) line(what, value, limit, verdict string) {
	fmt.Fprintln(b.out, strings.TrimRight(fmt.Sprintf("%-58s %14s %14s  %s", what, value, limit, verdict), " "))
}

// gate prints a measurement that has an upper limit, in the same unit.
func (b *bench) gate(what string, v value, limit float64) {
	verdict := "ok"
	if v.n > limit {
		verdict = "MISSED"
		b.missed++
	}
	b.held++
	b.line(what, v.String(), "≤ "+value{limit, v.unit}.String(), verdict)
}

// note prints a measurement without a limit.
func (b *bench) note(what string, v value) { b.line(what, v.String(), "", "") }

// skip says what cannot be measured here, and why.
func (b *bench) skip(what, why string) {
	b.skipped = append(b.skipped, what)
	b.line(what, "", "", "skipped: "+why)
}

// verdict prints the last line. The error sets the exit status.
func (b *bench) verdict() error {
	fmt.Fprintf(b.out, "\n%d of %d limits held", b.held-b.missed, b.held)
	if len(b.skipped) > 0 {
		fmt.Fprintf(b.out, "; not measured: %s", strings.Join(b.skipped, ", "))
	}
	fmt.Fprintln(b.out)
	if b.missed > 0 {
		return daemon.Exit(1)
	}
	return nil
}

// has reports whether a foreign program is installed, and skips what otherwise.
func (b *bench) has(program, what string) bool {
	_, err := exec.LookPath(program)
	if err != nil {
		b.skip(what, program+" is not installed")
	}
	return err == nil
}

// build compiles the command pkg, or with test its benchmarks, once, and returns
// the program.
func (b *bench) build(ctx context.Context, pkg string, test bool) (string, error) {
	out := filepath.Join(b.dir, filepath.Base(pkg))
	args := []string{"build"}
	if test {
		out += ".test"
		args = []string{"test", "-c"}
	}
	if _, done := b.binaries.LoadOrStore(out, true); done {
		return out, nil
	}
	// By its import path: the current directory need only be in the module.
	args = append(args, "-trimpath", "-o", out, "meridian/"+pkg)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if _, err := output(cmd); err != nil {
		return "", err
	}
	return out, nil
}

// output runs a command and returns what it prints. What it complains of is in
// the error.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, out, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	return string(out), nil
}

// median returns the middle of list, or of an even number the mean of both.
func median[T ~int64 | ~float64](list []T) T {
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	if n == 0 {
		return 0
	}
	return (list[(n-1)/2] + list[n/2]) / 2
}
