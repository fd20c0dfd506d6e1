package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"meridian/internal/testworld/counterpart"
)

// row is one foreign program in the table that ends a run.
type row struct {
	program string
	version string
	cases   int
}

// counterparts reads the file that testworld.Need wrote and returns a row for
// each program that is counted for itself and is there for tests.
func counterparts(file string) ([]row, error) {
	all, err := counterpart.All()
	if err != nil {
		return nil, err
	}
	recorded, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	countedAs := make(map[string]string)
	for _, p := range all {
		countedAs[p.Name] = p.Counted
	}
	// A test that needs one program twice is one case of it.
	cases := make(map[string]map[string]bool)
	for line := range strings.Lines(string(recorded)) {
		program, test, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		counted := countedAs[program]
		if !ok || counted == "" {
			return nil, fmt.Errorf("%s: %q is not a known program, a tab and a test", file, line)
		}
		if cases[counted] == nil {
			cases[counted] = make(map[string]bool)
		}
		cases[counted][test] = true
	}
	var rows []row
	for _, p := range all {
		if p.Counted == p.Name && p.ForTests {
			rows = append(rows, row{p.Name, installedVersion(p), len(cases[p.Name])})
		}
	}
	return rows, nil
}

var versionNumber = regexp.MustCompile(`\d+(\.\d+)+`)

// installedVersion asks the program. Some end with an error after they answered.
func installedVersion(p counterpart.Program) string {
	path, err := p.Find()
	if err != nil {
		return "not installed"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, path, p.VersionFlag).CombinedOutput()
	if v := versionNumber.Find(out); v != nil {
		return string(v)
	}
	return "unknown"
}

func table(rows []row) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "foreign program\tversion\ttest cases")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%d\n", r.program, r.version, r.cases)
	}
	w.Flush()
	return b.String()
}
