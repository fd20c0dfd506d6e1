package testworld

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A Counterpart is a program of others that ours is tested against.
type Counterpart struct {
	Program string // as on a command line
	Counted string // the program whose row of the table it is in: rpmbuild is rpm's

	// Debian and EL are the packages that have it, "" where there is none.
	Debian, EL string

	VersionFlag string // makes it print its version
	Required    bool   // in CI at least one test case runs with it
}

//go:embed counterparts.txt
var counterparts string

// Counterparts returns every program that [Need] knows, in the order of the
// table. The error is a line of counterparts.txt that cannot be read.
func Counterparts() ([]Counterpart, error) { return parseCounterparts(counterparts) }

func parseCounterparts(text string) ([]Counterpart, error) {
	var all []Counterpart
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 7 || (f[6] != "yes" && f[6] != "no") {
			return nil, fmt.Errorf("counterparts.txt:%d: %q has not seven columns, of which the last is yes or no", n, line)
		}
		for i := range f {
			if f[i] == "-" {
				f[i] = ""
			}
		}
		all = append(all, Counterpart{Program: f[0], Counted: f[1], Debian: f[2], EL: f[3], VersionFlag: f[4], Required: f[6] == "yes"})
	}
	return all, nil
}

// CounterpartsFile names the environment variable that names the file in which
// [Need] records who used what. The runner of make test sets and reads it.
const CounterpartsFile = "MERIDIAN_COUNTERPARTS"

// Need returns the path of program, one of [Counterparts]. Where it is not
// installed the test is skipped, and fails when the environment says CI=true:
// what CI skips is skipped for ever. A test that ran to its end, well or not, is
// recorded as one case of that program.
func Need(t testing.TB, program string) string {
	t.Helper()
	all, err := Counterparts()
	if err != nil {
		t.Fatalf("testworld: %v", err)
	}
	for _, c := range all {
		if c.Program != program {
			continue
		}
		path, err := c.Find()
		switch {
		case err == nil:
			t.Cleanup(func() { record(t, program) })
			return path
		case os.Getenv("CI") == "true":
			t.Fatalf("needs %v", err)
		default:
			t.Skipf("needs %v", err)
		}
	}
	t.Fatalf("testworld: %q is not in counterparts.txt; add a line for it", program)
	return ""
}

// Find returns the absolute path of the program, also where administrators'
// programs are and users' PATH does not go. The error says how to install it.
func (c Counterpart) Find() (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/local/sbin", "/usr/sbin", "/sbin") {
		// The path is that of a file, so LookPath only asks if it can be run.
		if path, err := exec.LookPath(filepath.Join(dir, c.Program)); err == nil && filepath.IsAbs(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s, which is not installed: run make setup, or install the package %s (Debian) or %s (EL)",
		c.Program, orNone(c.Debian), orNone(c.EL))
}

func orNone(pkg string) string {
	if pkg == "" {
		return "(none)"
	}
	return pkg
}

// record appends one line, which the kernel keeps whole among those of other
// test processes.
func record(t testing.TB, program string) {
	file := os.Getenv(CounterpartsFile)
	if file == "" || t.Skipped() {
		return
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		t.Errorf("record a case of %s: %v", program, err)
		return
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "%s\t%s/%s\n", program, filepath.Base(os.Args[0]), t.Name()); err != nil {
		t.Errorf("record a case of %s: %v", program, err)
	}
}
