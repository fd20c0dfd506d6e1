package testworld

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"meridian/internal/testworld/counterpart"
)

// spy is a test whose end can be watched: skipping or failing ends the goroutine
// and nothing else.
type spy struct {
	testing.TB
	name            string
	skipped, failed string
	cleanups        []func()
}

func (s *spy) Helper()          {}
func (s *spy) Name() string     { return s.name }
func (s *spy) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }
func (s *spy) Skipped() bool    { return s.skipped != "" }
func (s *spy) Skipf(format string, args ...any) {
	s.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (s *spy) Fatalf(format string, args ...any) {
	s.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// run calls f as a test of its own, with its cleanups.
func (s *spy) run(f func(t testing.TB)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(s)
	}()
	<-done
	for _, c := range s.cleanups {
		c()
	}
}

// onlyProgram makes a PATH with nothing but an executable of that name.
func onlyProgram(t *testing.T, name string) (path string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	return path
}

func TestNeedRecordsOneCaseForEachTestThatRan(t *testing.T) {
	want := onlyProgram(t, "createrepo_c")
	file := filepath.Join(t.TempDir(), "cases")
	t.Setenv(counterpart.CasesFile, file)

	runs := &spy{name: "TestRuns/a_case"}
	runs.run(func(t testing.TB) {
		if got := Need(t, "createrepo_c"); got != want {
			runs.failed = "Need returned " + got
		}
	})
	skips := &spy{name: "TestSkips"}
	skips.run(func(t testing.TB) {
		Need(t, "createrepo_c")
		t.Skipf("for another reason")
	})
	if runs.failed != "" {
		t.Fatal(runs.failed)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := "createrepo_c\ttestworld.test/TestRuns/a_case\n"; string(got) != want {
		t.Errorf("recorded %q, want %q", got, want)
	}
}

func TestMissingProgramSkipsAndFailsInCI(t *testing.T) {
	// A program that no machine of ours has in a directory beside PATH.
	onlyProgram(t, "other")
	missing := "chromium"
	need := func(t testing.TB) { Need(t, missing) }

	t.Setenv("CI", "")
	laptop := &spy{name: "TestLaptop"}
	laptop.run(need)
	if !strings.Contains(laptop.skipped, "chromium") || !strings.Contains(laptop.skipped, "make setup") || laptop.failed != "" {
		t.Errorf("skipped %q, failed %q; want a skip that names the program and how to install it", laptop.skipped, laptop.failed)
	}

	t.Setenv("CI", "true")
	ci := &spy{name: "TestCI"}
	ci.run(need)
	if !strings.Contains(ci.failed, "chromium") || ci.skipped != "" {
		t.Errorf("skipped %q, failed %q; want a failure that names the program", ci.skipped, ci.failed)
	}
}

func TestUnknownProgramIsAMistakeOfTheTest(t *testing.T) {
	s := &spy{name: "TestUnknown"}
	s.run(func(t testing.TB) { Need(t, "creatrepo") })
	if !strings.Contains(s.failed, `"creatrepo"`) {
		t.Errorf("failed with %q, want a failure that names the program", s.failed)
	}
}
