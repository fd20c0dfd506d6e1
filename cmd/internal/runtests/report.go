package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

// report follows go test -json and counts. What has subtests is not counted
// itself, unless it failed and none of them did.
type report struct {
	printer  *printer
	packages int // how many will report, for the progress

	passed, failed int
	failures       []string
	skips          []skip
	done           int // packages
	running        map[string]*packageRun
}

type skip struct{ test, reason string }

// packageRun is a package whose tests have not all ended.
type packageRun struct {
	output strings.Builder // of the package itself
	tests  map[string]*testRun
	failed int
}

type testRun struct {
	output      strings.Builder
	hasSubtests bool
	ended       bool
	failedBelow bool
}

// event is a line of go test -json: see go doc test2json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// fail counts a failure that no test reported.
func (r *report) fail(what, why string) {
	r.failed++
	r.failures = append(r.failures, what)
	r.printer.print("FAIL: " + what + ": " + why)
}

// collect runs go test -json and reads it to its end. That tests failed is not an
// error here; that go test itself could not run is.
func (r *report) collect(cmd *exec.Cmd) error {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = r.printer
	if err := cmd.Start(); err != nil {
		return err
	}
	r.read(out)
	err = cmd.Wait()
	// What a killed test left behind is in the group that goCommand made; with
	// nothing left this says "no such process".
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if exit, ok := err.(*exec.ExitError); ok && exit.Exited() && r.failed > 0 {
		return nil // already counted
	}
	return err
}

func (r *report) read(events io.Reader) {
	r.running = make(map[string]*packageRun)
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil {
				r.take(e)
			} else {
				r.printer.print(line)
			}
		}
		if err != nil {
			break
		}
	}
	// Packages that never ended: go test was killed.
	for _, name := range slices.Sorted(maps.Keys(r.running)) {
		r.endPackage(name, "fail")
	}
}

func (r *report) take(e event) {
	switch {
	case e.Action == "build-output":
		r.printer.print(e.Output)
	case e.Package == "":
		// build-fail: the package that needs it fails too.
	case e.Test != "":
		r.takeTest(e)
	case e.Action == "output":
		r.pkg(e.Package).output.WriteString(e.Output)
	case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
		r.endPackage(e.Package, e.Action)
	}
	r.printer.show(bar(r.done, r.packages, fmt.Sprintf("%d passed, %d failed, %d skipped", r.passed, r.failed, len(r.skips))))
}

func (r *report) pkg(name string) *packageRun {
	p := r.running[name]
	if p == nil {
		p = &packageRun{tests: make(map[string]*testRun)}
		r.running[name] = p
	}
	return p
}

func (r *report) takeTest(e event) {
	p := r.pkg(e.Package)
	t := p.tests[e.Test]
	if t == nil {
		t = new(testRun)
		p.tests[e.Test] = t
	}
	switch e.Action {
	case "run":
		for above := range p.above(e.Test) {
			above.hasSubtests = true
		}
	case "output":
		// What was said before the end, without the marks of progress.
		if !strings.HasPrefix(e.Output, "=== ") {
			t.output.WriteString(e.Output)
		}
	case "pass", "fail", "skip":
		r.endTest(e.Package, p, e.Test, t, e.Action)
	}
}

// above yields the tests that the named one is a subtest of.
func (p *packageRun) above(name string) func(yield func(*testRun) bool) {
	return func(yield func(*testRun) bool) {
		for i := len(name) - 1; i > 0; i-- {
			if name[i] != '/' {
				continue
			}
			if t := p.tests[name[:i]]; t != nil && !yield(t) {
				return
			}
		}
	}
}

func (r *report) endTest(pkg string, p *packageRun, name string, t *testRun, result string) {
	t.ended = true
	switch result {
	case "pass":
		if !t.hasSubtests {
			r.passed++
		}
	case "skip":
		r.skips = append(r.skips, skip{pkg + " " + name, reason(t.output.String())})
	case "fail":
		r.printer.print(t.output.String())
		for above := range p.above(name) {
			above.failedBelow = true
		}
		if !t.failedBelow {
			p.failed++
			r.failed++
			r.failures = append(r.failures, pkg+" "+name)
		}
	}
	t.output.Reset()
}

// reason is the text of a skip: what the test said, on one line.
func reason(output string) string {
	var said []string
	for line := range strings.Lines(output) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}

func (r *report) endPackage(name, result string) {
	p := r.pkg(name)
	// Deepest first, so that what hung is named and not the test around it.
	for _, test := range slices.Backward(slices.Sorted(maps.Keys(p.tests))) {
		if t := p.tests[test]; !t.ended {
			t.output.WriteString("--- FAIL: " + test + " did not end\n")
			r.endTest(name, p, test, t, "fail")
		}
	}
	for line := range strings.Lines(p.output.String()) {
		// A bare PASS or FAIL says what the line of the package says again.
		keep := result == "fail" && line != "FAIL\n" && line != "PASS\n"
		if keep || strings.HasPrefix(line, "ok  \t") || strings.HasPrefix(line, "?   \t") {
			r.printer.print(line)
		}
	}
	if result == "fail" && p.failed == 0 {
		r.failed++
		r.failures = append(r.failures, name)
	}
	delete(r.running, name)
	r.done++
}

// finish prints what there is to say at the end. The last line is the count and
// nothing else.
func (r *report) finish(rows []row) {
	p := r.printer
	p.show("")
	if len(r.skips) > 0 {
		p.print("\nskipped:")
		for _, s := range r.skips {
			p.print("  " + s.test + ": " + s.reason)
		}
	}
	if len(r.failures) > 0 {
		p.print("\nfailed:")
		for _, f := range r.failures {
			p.print("  " + f)
		}
	}
	p.print("\n" + table(rows) + "\n")
	p.print(fmt.Sprintf("%d passed, %d failed, %d skipped", r.passed, r.failed, len(r.skips)))
}
