package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"meridian/cmd/internal/daemon"
	"meridian/signer/verify"
)

// progress is a line at the bottom of a terminal that says how far a long task is.
// Where standard error is no terminal there is none, and say only prints.
type progress struct {
	to          io.Writer // nil where there is no terminal
	what        string
	files       int
	bytes       int64
	done        int
	doneBytes   int64
	shown       time.Time
	onTheScreen bool
}

// redraw is how often the line changes.
const redraw = 200 * time.Millisecond

func newProgress(env daemon.Env, what string, files []verify.Artifact) *progress {
	p := &progress{what: what, files: len(files), shown: time.Now()}
	for _, f := range files {
		p.bytes += f.Size
	}
	if f, ok := env.Stderr.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			p.to = f
		}
	}
	return p
}

// step counts a file of size bytes as done.
func (p *progress) step(size int64) {
	p.done++
	p.doneBytes += size
	if p.to == nil || time.Since(p.shown) < redraw {
		return
	}
	p.shown, p.onTheScreen = time.Now(), true
	fmt.Fprintf(p.to, "\r\x1b[K%s %d of %d files, %d of %d MB", p.what, p.done, p.files, p.doneBytes/1e6, p.bytes/1e6)
}

// say prints a line above the one that changes.
func (p *progress) say(w io.Writer, format string, args ...any) {
	p.end()
	fmt.Fprintf(w, format+"\n", args...)
}

// end takes the line away.
func (p *progress) end() {
	if p.onTheScreen {
		p.onTheScreen = false
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}
