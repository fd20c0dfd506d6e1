package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"meridian/cmd/internal/daemon"
)

// module makes the files of a txtar the working directory.
func module(t *testing.T, name string) {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := txtar.Write(archive, dir); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("GOFLAGS", "")
	t.Setenv("GOWORK", "off")
}

// runTests runs the command and returns what it printed.
func runTests(t *testing.T, ci bool, args ...string) (out string, err error) {
	t.Helper()
	var stdout bytes.Buffer
	env := daemon.Env{Args: args, Stdout: &stdout, Stderr: &stdout, Getenv: func(key string) string {
		if key == "CI" && ci {
			return "true"
		}
		return ""
	}}
	err = run(t.Context(), env)
	return stdout.String(), err
}

func lastLine(out string) string {
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	return lines[len(lines)-1]
}

// lines returns out with every run of blanks as one space, since columns and
// times are not what a test is about.
func lines(out string) []string {
	var all []string
	for line := range strings.Lines(out) {
		all = append(all, strings.Join(strings.Fields(line), " "))
	}
	return all
}

func TestEveryEndingIsCountedAndShown(t *testing.T) {
	module(t, "suite.txtar")
	out, err := runTests(t, false, "test")
	if err == nil {
		t.Error("a suite that failed ended well")
	}
	// Passed: TestPasses, good, er, good, TestUsesPrograms, two seeds, TestBefore.
	// Failed: bad, TestFailsItself, TestPanics, TestExits, the package unbuilt, go
	// vet (of unbuilt), gofmt.
	if got, want := lastLine(out), "8 passed, 7 failed, 1 skipped"; got != want {
		t.Errorf("the last line is %q, want %q", got, want)
	}
	for _, want := range []string{
		"FAIL: gofmt: not formatted as gofmt would, run gofmt -w on: untested/untested.go",
		"mixed_test.go:12: two is not three",
		"mixed_test.go:20: the parent is to blame",
		"panic: assignment to entry in nil map [recovered, repanicked]",
		"example/mixed TestSkips: mixed_test.go:23: the moon is full",
		"example/mixed TestHasSubtests/bad",
		"example/mixed TestFailsItself",
		"example/panics TestPanics",
		"--- FAIL: TestExits did not end",
		"example/exits TestExits",
		"example/unbuilt",
		"? example/untested [no test files]",
	} {
		if !slices.Contains(lines(out), want) {
			t.Errorf("no line is %q", want)
		}
	}
	for _, no := range []string{"nobody reads this", "example/mixed TestHasSubtests\n"} {
		if strings.Contains(out, no) {
			t.Errorf("the output contains %q", no)
		}
	}
	if !slices.ContainsFunc(lines(out), func(line string) bool {
		return strings.HasPrefix(line, "rpm ") && strings.HasSuffix(line, " 2")
	}) {
		t.Error("the table has no row of rpm with two cases")
	}
	if t.Failed() {
		t.Logf("the output:\n%s", out)
	}
}

func TestUnusedCounterpartFailsInCI(t *testing.T) {
	module(t, "good.txtar")
	if out, err := runTests(t, false, "test"); err != nil || lastLine(out) != "2 passed, 0 failed, 0 skipped" {
		t.Errorf("on a laptop: %v\n%s", err, out)
	}
	out, err := runTests(t, true, "test")
	if err == nil || !strings.Contains(out, "FAIL: dnf: no test case ran with dnf") {
		t.Errorf("in CI: %v, want a failure that names dnf\n%s", err, out)
	}
	if strings.Contains(out, "valgrind") {
		t.Errorf("in CI, what only benchmarks use is missed\n%s", out)
	}
	if out, err := runTests(t, true, "test", "./good"); err != nil {
		t.Errorf("in CI, for one package: %v\n%s", err, out)
	}
}

func TestNoTestsIsAFailure(t *testing.T) {
	module(t, "empty.txtar")
	out, err := runTests(t, false, "test")
	if err == nil || lastLine(out) != "0 passed, 0 failed, 0 skipped" {
		t.Errorf("without any test: %v, want a failure\n%s", err, out)
	}
}

func TestLimitEndsARun(t *testing.T) {
	module(t, "good.txtar")
	out, err := runTests(t, false, "test", "-limit", "1ns")
	if err == nil || !strings.Contains(out, "not done after 1ns") {
		t.Errorf("a run beyond its limit: %v, want a failure that says so\n%s", err, out)
	}
}

func TestFuzzFindsItsTargets(t *testing.T) {
	module(t, "good.txtar")
	out, err := runTests(t, false, "fuzz", "-time", "1x")
	if err != nil || !strings.Contains(out, "# FuzzNothing in good for 1x\n") || lastLine(out) != "1 fuzz targets, no finding" {
		t.Errorf("fuzz: %v\n%s", err, out)
	}
	if out, err := runTests(t, false, "fuzz", "-run", "Missing"); err == nil {
		t.Errorf("fuzzing nothing was no error\n%s", out)
	}
}

func TestSoakStopsAtAFailure(t *testing.T) {
	module(t, "empty.txtar")
	out, err := runTests(t, false, "soak", "-time", "1h")
	if err == nil || strings.Contains(out, "round 2") {
		t.Errorf("a soak whose first round failed: %v\n%s", err, out)
	}
}

func TestProgressStaysBelowWhatIsPrinted(t *testing.T) {
	var out bytes.Buffer
	p := &printer{w: &out, terminal: true}
	p.show("1/2")
	p.print("a line")
	p.Write([]byte("half"))
	p.Write([]byte(" whole\nrest"))
	p.show("")
	want := clearLine + "1/2" + clearLine + "a line\n1/2" + clearLine + "half whole\n1/2" + clearLine
	if out.String() != want {
		t.Errorf("the terminal got %q, want %q", &out, want)
	}
}

func TestHelp(t *testing.T) {
	if _, err := os.Stat("main.go"); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"help"}, {"-h"}, {"test", "-h"}, {"fuzz", "-h"}, {"soak", "-h"}} {
		if _, err := runTests(t, false, args...); err == nil || err.Error() != daemon.Help("").Error() {
			t.Errorf("%q: %v, want help", args, err)
		}
	}
}
