package daemon

import (
	"io"
	"log/slog"
	"os"
)

// NewLogger returns the logger of a program: lines of key=value on w, standard
// error for every daemon, because that is what service managers collect. On a
// terminal the time is a clock; in a log it is complete, with its zone.
//
// A [slog.LevelVar] as level can be changed while the program runs. slog.Level
// reads itself from a flag (flag.TextVar) and from YAML.
func NewLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if IsTerminal(w) {
		opts.ReplaceAttr = clockOnly
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

func clockOnly(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.String(slog.TimeKey, a.Value.Time().Format("15:04:05"))
	}
	return a
}

// IsTerminal tells whether a person may be looking at what is written to w.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	// The null device is a character device too, and nobody looks at it.
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
