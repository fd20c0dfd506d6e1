package daemon

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Whatever makes a library write, a log grows by a short line a minute.
func TestLibrariesDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := &libraryLog{to: NewLogger(&out, slog.LevelInfo)}
		for range 3 {
			for i := range 1000 {
				fmt.Fprintf(l, "Unsolicited response %d: %s\n", i, strings.Repeat("x", 10000))
			}
			time.Sleep(libraryEvery)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != 3 {
			t.Fatalf("%d lines, want one a minute:\n%s", len(lines), &out)
		}
		for i, line := range lines {
			if len(line) > 2*maxLibraryLine || !strings.Contains(line, "Unsolicited response 0") || strings.Contains(line, "left_out=999") != (i > 0) {
				t.Errorf("line %d is %q", i, line)
			}
		}
	})
}

func TestMainBoundsTheStandardLogger(t *testing.T) {
	c := start(t, "logs")
	if got, stderr := c.wait(); got.ExitStatus() != 0 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, `msg="a library says" text="line 0"`) {
		t.Errorf("it ended with %v, and wrote %q", got, stderr)
	}
}
