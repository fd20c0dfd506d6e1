package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// libraryEvery is how often a library may write a line to the log, and
	// maxLibraryLine how long that may be, in bytes.
	libraryEvery   = time.Minute
	maxLibraryLine = 300
)

// A libraryLog is where the standard logger writes. Libraries use it for what they
// cannot return: net/http writes down what a server sends unasked, as often as it
// does. So that strangers do not fill a log, one line is let through at a time,
// with how many were left out before it.
type libraryLog struct {
	to *slog.Logger

	mu   sync.Mutex // guards what follows
	last time.Time  // of the last line; zero before the first
	left int        // since
}

func (l *libraryLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.last.IsZero() && now.Sub(l.last) < libraryEvery {
		l.left++
		return len(p), nil
	}
	text := strings.ToValidUTF8(string(bytes.TrimSpace(p[:min(len(p), maxLibraryLine)])), "�")
	attrs := []any{"text", text}
	if l.left > 0 {
		attrs = append(attrs, "left_out", l.left)
	}
	l.to.Warn("a library says", attrs...)
	l.last, l.left = now, 0
	return len(p), nil
}
