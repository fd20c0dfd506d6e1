package syncer

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// An Rsync is how rsync(1) is run. The zero value runs the installed one and
// lets it agree with the other side on protocol and checksum.
type Rsync struct {
	// Program is the rsync to run. Default "rsync".
	Program string

	// Protocol, if not 0, is the newest protocol to speak: 30 for a server that
	// is too old, or says it is newer than it is.
	Protocol int

	// Checksum, if not "", is rsync's --checksum-choice: "md5" for a server that
	// negotiates badly.
	Checksum string

	// PasswordFile is for the users of rsync daemons. Only its owner may read it.
	PasswordFile string

	// Timeout is how long nothing may happen on a connection. Default 10m.
	Timeout time.Duration

	// Fsync has the receiving side put each file on its disk before it goes on.
	// An rsync before 3.2.4 there refuses. Local destinations need it not.
	Fsync bool

	// maxMemory is how much of it one rsync may take; 0 is [maxMemory].
	maxMemory uint64
}

// maxMemory is enough for lists of tens of millions of names, and not for one
// without end, which rsync would gather whole before it prints any of it.
const maxMemory = 4 << 30

// The statuses of rsync that mean something of their own to a publisher.
const (
	rsyncPartial  = 23
	rsyncVanished = 24
	rsyncDeletion = 25
)

// A runError is an rsync that did not do all it was asked.
type runError struct {
	code   int
	stderr string // the last of what it said
	err    error
}

func (e *runError) Error() string {
	why := ""
	switch e.code {
	case rsyncPartial:
		why = "some files were not transferred"
	case rsyncVanished:
		why = "files vanished from the source while it was read; publish a tree that nothing changes"
	case rsyncDeletion:
		why = "it was asked to delete more than --max-delete"
	case -1:
		why = e.err.Error()
	default:
		why = "status " + strconv.Itoa(e.code)
	}
	if e.full() {
		why = "the disk is full"
	}
	if said := strings.TrimSpace(e.stderr); said != "" {
		why += ": " + said
	}
	return "rsync: " + why
}

func (e *runError) Unwrap() error { return e.err }

// full reports whether it was for want of room.
func (e *runError) full() bool {
	return strings.Contains(e.stderr, "No space left on device") || strings.Contains(e.stderr, "Disk quota exceeded")
}

// An item is a line that rsync prints about one name.
type item struct {
	// op is the eleven letters that --itemize-changes documents: how the name
	// is updated, its type, and what differs. "*deleting  " for a deletion.
	op      string
	size    int64
	modTime time.Time
	path    string // without the slash that ends a directory
	target  string // of a link
}

// stats is what rsync counts at its end, in bytes.
type stats struct {
	sent, received, literal int64
	files                   int64 // regular files transferred
}

// Output goes line by line; what --out-format prints is told by the tab that it
// begins with, because no other line of rsync's does.
const outFormat = "\t%i\t%l\t%M\t%n%L"

// Bounds on what a program that talks to strangers may make of us.
const (
	maxOutputLine = 32 << 10
	maxItems      = 50_000_000
	maxStderr     = 4 << 10
)

// run runs rsync with args, its standard input from stdin, and calls each for
// every item that it prints. It is always an argument vector, never a shell.
func (r *Rsync) run(ctx context.Context, stdin io.Reader, each func(item) error, args ...string) (stats, error) {
	// The child is to die with this process, and Linux ties that to the thread
	// that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	program := r.Program
	if program == "" {
		program = "rsync"
	}
	timeout := r.Timeout
	if timeout == 0 {
		timeout = 10 * time.Minute
	}
	all := []string{"--stats", "--no-human-readable", "--no-motd", "--timeout=" + strconv.Itoa(max(1, int(timeout.Seconds())))}
	if each != nil {
		all = append(all, "--out-format="+outFormat)
	}
	if r.Protocol != 0 {
		all = append(all, "--protocol="+strconv.Itoa(r.Protocol))
	}
	if r.Checksum != "" {
		all = append(all, "--checksum-choice="+r.Checksum)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, program, append(all, args...)...)
	cmd.Env = environment(os.Environ())
	cmd.Stdin = stdin
	said := &tail{max: maxStderr}
	cmd.Stderr = said
	cmd.WaitDelay = 10 * time.Second
	dieWithParent(cmd)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return stats{}, err
	}
	if err := cmd.Start(); err != nil {
		return stats{}, fmt.Errorf("rsync: %w; install rsync 3.1 or newer", err)
	}
	limitMemory(cmd.Process.Pid, cmp.Or(r.maxMemory, maxMemory))
	st, err := parseOutput(out, each)
	if err != nil {
		cancel(err) // whoever prints this is not to be waited for
	}
	werr := cmd.Wait()
	switch exit := (*exec.ExitError)(nil); {
	case err != nil:
		return st, fmt.Errorf("rsync: its output: %w", err)
	case ctx.Err() != nil:
		return st, context.Cause(ctx)
	case werr == nil:
		return st, nil
	case errors.As(werr, &exit) && exit.Exited():
		return st, &runError{exit.ExitCode(), said.String(), werr}
	default:
		return st, &runError{-1, said.String(), werr}
	}
}

// environment drops what would change the meaning of the arguments, and has
// rsync print in one language and one time zone.
func environment(env []string) []string {
	var kept []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case name == "RSYNC_PASSWORD", name == "RSYNC_PROXY":
		case strings.HasPrefix(name, "RSYNC_"), strings.HasPrefix(name, "LC_"), name == "LANG", name == "LANGUAGE", name == "TZ":
			continue
		}
		kept = append(kept, kv)
	}
	return append(kept, "LC_ALL=C", "TZ=UTC")
}

// parseOutput reads what rsync prints to its end.
func parseOutput(r io.Reader, each func(item) error) (stats, error) {
	var st stats
	in := bufio.NewReaderSize(r, maxOutputLine)
	for n := 0; ; {
		line, err := in.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			return st, fmt.Errorf("a line of more than %d bytes", maxOutputLine)
		}
		if len(line) > 0 {
			text := strings.TrimSuffix(string(line), "\n")
			switch {
			case text[:min(1, len(text))] == "\t":
				if n++; n > maxItems {
					return st, fmt.Errorf("more than %d names", maxItems)
				}
				it, err := parseItem(text)
				if err != nil {
					return st, err
				}
				if each == nil {
					continue
				}
				if err := each(it); err != nil {
					return st, err
				}
			default:
				st.parse(text)
			}
		}
		if err == io.EOF {
			return st, nil
		}
		if err != nil {
			return st, err
		}
	}
}

func (s *stats) parse(line string) {
	what, value, ok := strings.Cut(line, ": ")
	if !ok {
		return
	}
	digits, _, _ := strings.Cut(value, " ")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return
	}
	switch what {
	case "Total bytes sent":
		s.sent = n
	case "Total bytes received":
		s.received = n
	case "Literal data":
		s.literal = n
	case "Number of regular files transferred":
		s.files = n
	}
}

const rsyncTime = "2006/01/02-15:04:05"

// parseItem parses a line of outFormat. A name that leads out of the tree is an
// error: no honest rsync prints one.
func parseItem(line string) (item, error) {
	f := strings.SplitN(line, "\t", 5)
	if len(f) != 5 || f[0] != "" || len(f[1]) != 11 {
		return item{}, fmt.Errorf("line %+q is not what was asked for", line)
	}
	it := item{op: f[1]}
	var err error
	if it.size, err = strconv.ParseInt(f[2], 10, 64); err != nil || it.size < 0 {
		return item{}, fmt.Errorf("line %+q has no size", line)
	}
	if it.modTime, err = time.Parse(rsyncTime, f[3]); err != nil {
		return item{}, fmt.Errorf("line %+q has no time", line)
	}
	name := f[4]
	if it.op[1] == 'L' {
		// The first arrow: a link whose own name has one is listed under half of
		// it, and then found to be missing.
		var ok bool
		if name, it.target, ok = strings.Cut(name, " -> "); !ok {
			return item{}, fmt.Errorf("line %+q has no target", line)
		}
		it.target = unescapeOctal(it.target)
	}
	it.path = unescapeOctal(name)
	if it.path == "./" {
		it.path = "."
		return it, nil
	}
	it.path = strings.TrimSuffix(it.path, "/")
	if !inside(it.path) {
		return item{}, fmt.Errorf("name %+q leads out of the tree", it.path)
	}
	return it, nil
}

func (it item) String() string {
	name := escapeOctal(it.path)
	if it.op[1] == 'L' {
		name += " -> " + escapeOctal(it.target)
	}
	return fmt.Sprintf("\t%s\t%d\t%s\t%s", it.op, it.size, it.modTime.Format(rsyncTime), name)
}

// unescapeOctal undoes rsync's \#ooo. rsync escapes a backslash only where three
// digits and a # would make it look like an escape.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\#`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if n, ok := octal(s[i:]); ok {
			b.WriteByte(n)
			i += 4
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// octal reads the byte that s begins with, when that is an escape.
func octal(s string) (byte, bool) {
	if len(s) < 5 || s[0] != '\\' || s[1] != '#' {
		return 0, false
	}
	n, err := strconv.ParseUint(s[2:5], 8, 8)
	return byte(n), err == nil
}

// escapeOctal escapes as rsync does in the C locale, except that it leaves no
// tab either.
func escapeOctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		_, looks := octal(s[i:])
		if s[i] < 0x20 || s[i] > 0x7e || looks {
			fmt.Fprintf(&b, `\#%03o`, s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// A tail keeps the last bytes that are written to it.
type tail struct {
	b   []byte
	max int
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - t.max; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
		t.cut = true
	}
	return len(p), nil
}

// String is whole lines, without what a terminal would obey.
func (t *tail) String() string {
	b := t.b
	if t.cut {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r >= 0x20 && r != 0x7f {
			return r
		}
		return '?'
	}, string(b))
}
