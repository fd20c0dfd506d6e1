// Package counterpart knows the programs of others that ours are tested against,
// what they are called in a distribution, and in which of them tests must have
// run. It runs none of them, and imports nothing of this tree, so that whoever
// reports on the tests can be built when what they test cannot.
package counterpart

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// CasesFile names the environment variable that names the file in which tests
// record what they used: the program, a tab, and the test, a line each.
const CasesFile = "MERIDIAN_COUNTERPARTS"

// A Program is one line of counterparts.txt.
type Program struct {
	Name    string // as on a command line
	Counted string // the program whose row of the report it is in: rpmbuild is rpm's

	// Debian and EL are the packages that have it, "" where there is none.
	Debian, EL string

	VersionFlag string // makes it print its version
	ForTests    bool   // in CI at least one test case runs with it
}

//go:embed counterparts.txt
var lines string

// All returns every program, in the order of the report. The error is a line of
// counterparts.txt that cannot be read.
func All() ([]Program, error) { return parse(lines) }

func parse(text string) ([]Program, error) {
	var all []Program
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 6 || (f[5] != "test" && f[5] != "bench" && f[5] != "-") {
			return nil, fmt.Errorf("counterparts.txt:%d: %q has not six columns, of which the last is test, bench or -", n, line)
		}
		for i := range f {
			if f[i] == "-" {
				f[i] = ""
			}
		}
		all = append(all, Program{Name: f[0], Counted: f[1], Debian: f[2], EL: f[3], VersionFlag: f[4], ForTests: f[5] == "test"})
	}
	return all, nil
}

// Find returns the absolute path of the program, also where administrators'
// programs are and users' PATH does not go. The error says how to install it.
func (p Program) Find() (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/local/sbin", "/usr/sbin", "/sbin") {
		// The path is that of a file, so LookPath only asks if it can be run.
		if path, err := exec.LookPath(filepath.Join(dir, p.Name)); err == nil && filepath.IsAbs(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: run make setup, or install the package %s (Debian) or %s (EL)",
		p.Name, orNone(p.Debian), orNone(p.EL))
}

func orNone(pkg string) string {
	if pkg == "" {
		return "(none)"
	}
	return pkg
}
