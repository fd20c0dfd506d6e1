package testworld

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"meridian/internal/testworld/counterpart"
)

// Need returns the path of program, one of [counterpart.All]. Where it is not
// installed the test is skipped, and fails when the environment says CI=true:
// what CI skips is skipped for ever. A test that ran to its end, well or not, is
// recorded as one case of that program.
func Need(t testing.TB, program string) string {
	t.Helper()
	all, err := counterpart.All()
	if err != nil {
		t.Fatalf("testworld: %v", err)
	}
	for _, p := range all {
		if p.Name != program {
			continue
		}
		path, err := p.Find()
		switch {
		case err == nil:
			t.Cleanup(func() { record(t, program) })
			return path
		case os.Getenv("CI") == "true":
			t.Fatalf("%v", err)
		default:
			t.Skipf("%v", err)
		}
	}
	t.Fatalf("testworld: %q is not in counterparts.txt; add a line for it", program)
	return ""
}

// record appends one line, which the kernel keeps whole among those of other
// test processes.
func record(t testing.TB, program string) {
	file := os.Getenv(counterpart.CasesFile)
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
