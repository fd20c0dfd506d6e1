package main

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"meridian/cmd/internal/daemon"
)

// printer writes whole lines, and on a terminal keeps one more below them that
// says how far the run is.
type printer struct {
	terminal bool

	mu       sync.Mutex // guards all below: go test's two streams are printed as they come
	w        io.Writer
	progress string
	partial  string // of Write: a line that has not ended yet
}

func newPrinter(w io.Writer) *printer {
	return &printer{w: w, terminal: daemon.IsTerminal(w)}
}

// clearLine returns to the first column and erases what is there.
const clearLine = "\r\x1b[K"

// print writes text, and a newline if it does not end in one.
func (p *printer) print(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.printLocked(text)
}

func (p *printer) printLocked(text string) {
	if text == "" {
		return
	}
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if p.progress != "" {
		text = clearLine + text + p.progress
	}
	io.WriteString(p.w, text)
}

// Write prints the lines that are complete, for a command's standard error.
func (p *printer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.partial += string(b)
	if i := strings.LastIndexByte(p.partial, '\n'); i >= 0 {
		p.printLocked(p.partial[:i+1])
		p.partial = p.partial[i+1:]
	}
	return len(b), nil
}

// stage says what is being done: on a terminal as the progress, in a log as a
// line.
func (p *printer) stage(name string) {
	if p.terminal {
		p.show(name)
	} else {
		p.print("# " + name)
	}
}

// show replaces the progress line; "" removes it. A log has none.
func (p *printer) show(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.terminal || line == p.progress {
		return
	}
	p.progress = line
	io.WriteString(p.w, clearLine+line)
}

// bar draws how many of all are done, and what else there is to say.
func bar(done, all int, text string) string {
	const width = 24
	filled := 0
	if all > 0 {
		filled = min(width, width*done/all)
	}
	return fmt.Sprintf("[%s%s] %d/%d packages, %s",
		strings.Repeat("#", filled), strings.Repeat(".", width-filled), done, all, text)
}
