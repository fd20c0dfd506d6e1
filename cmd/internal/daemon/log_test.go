package daemon

import (
	"bytes"
	"log/slog"
	"os"
	"regexp"
	"runtime/debug"
	"testing"
	"time"
)

func TestLoggerLevelChangesWhileRunning(t *testing.T) {
	var out bytes.Buffer
	var level slog.LevelVar
	log := NewLogger(&out, &level)

	log.Debug("hidden")
	level.Set(slog.LevelDebug)
	log.Debug("shown", "mirror", "m1")

	line := regexp.MustCompile(`^time=\d{4}-\d\d-\d\dT\S+ level=DEBUG msg=shown mirror=m1\n$`)
	if !line.MatchString(out.String()) {
		t.Errorf("the log is %q, want one line that matches %v", &out, line)
	}
}

func TestTimeOnATerminalIsAClock(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	if got := clockOnly(nil, slog.Time(slog.TimeKey, at)); got.Value.String() != "03:04:05" {
		t.Errorf("the time of a line is %v, want 03:04:05", got)
	}
	// A "time" that the caller logged inside a group is the caller's.
	if got := clockOnly([]string{"file"}, slog.Time(slog.TimeKey, at)); got.Value.Kind() != slog.KindTime {
		t.Errorf("a time inside a group became %v", got)
	}
}

func TestNobodyLooksAtFilesAndTheNullDevice(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if IsTerminal(file) || IsTerminal(null) || IsTerminal(new(bytes.Buffer)) {
		t.Errorf("terminal: file %v, null device %v, buffer %v; want none", IsTerminal(file), IsTerminal(null), IsTerminal(new(bytes.Buffer)))
	}
}

func TestVersion(t *testing.T) {
	commit := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}
	dirty := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	tests := []struct {
		name     string
		release  string
		module   string
		settings []debug.BuildSetting
		want     string
	}{
		{name: "a tag", module: "v1.2.3", settings: []debug.BuildSetting{commit}, want: "v1.2.3"},
		{name: "a commit", module: "(devel)", settings: []debug.BuildSetting{commit}, want: "0123456789ab"},
		{name: "a commit with changes", settings: []debug.BuildSetting{commit, dirty}, want: "0123456789ab+dirty"},
		{name: "no version control", module: "(devel)", want: "unknown"},
		{name: "no version control, and a builder who knows", release: "2.1", module: "(devel)", want: "2.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			info := &debug.BuildInfo{Main: debug.Module{Version: tt.module}, Settings: tt.settings}
			if got := version(tt.release, info); got != tt.want {
				t.Errorf("version = %q, want %q", got, tt.want)
			}
		})
	}
}
