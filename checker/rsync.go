package checker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"meridian/checker/state"
)

const (
	// rsyncTimeout is for the listing of one directory, all in all.
	rsyncTimeout = 20 * time.Second

	// maxListing bounds what is read of a listing, in bytes; rsync is ended there.
	maxListing = 64 << 10
)

// rsyncPath is what the path of an rsync URL may be: a module, and directories in
// it. Anything else would mean something to the other side, or to the program.
var rsyncPath = regexp.MustCompile(`^(/[A-Za-z0-9_][A-Za-z0-9_.+~@-]*)+/?$`)

// An rsyncURL is where a module is.
type rsyncURL struct {
	host string
	port uint16
	path string // begins with "/", and ends with it
}

// readRsyncURL reads what operators write. It refuses what is no host and module,
// for it becomes the argument of a program.
func readRsyncURL(raw string) (rsyncURL, error) {
	u, err := url.Parse(raw)
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return rsyncURL{}, fmt.Errorf("not a URL: %w; write rsync://HOST/MODULE/", wrapped.Err)
	}
	out := rsyncURL{host: u.Hostname(), port: 873, path: u.Path}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return out, fmt.Errorf("port %q; write a number up to 65535", p)
		}
		out.port = uint16(n)
	}
	switch {
	case u.Scheme != "rsync":
		return out, fmt.Errorf("scheme %q; write rsync://HOST/MODULE/", u.Scheme)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return out, errors.New("it has more than a host and a path; write rsync://HOST/MODULE/")
	case out.host == "":
		return out, errors.New("it names no host; write rsync://HOST/MODULE/")
	case out.path == "" || out.path == "/":
		return out, errors.New("it names no module; write rsync://HOST/MODULE/")
	case len(out.path) > 1024 || !rsyncPath.MatchString(out.path):
		return out, fmt.Errorf("path %q; write the module and its directories in letters, digits and . _ + ~ @ -", escape([]byte(out.path), 100))
	}
	if out.path[len(out.path)-1] != '/' {
		out.path += "/"
	}
	return out, nil
}

// at returns the URL for rsync, of an address in place of the name: what was
// looked up and found to be public is what is connected to. A daemon is not told
// its name anyway.
func (u rsyncURL) at(a netip.Addr) string {
	return "rsync://" + netip.AddrPortFrom(a, u.port).String() + u.path
}

// rsync lists the module of a URL, to see whether it is there.
func (v *visit) rsync(raw string) Answer {
	e := &state.Evidence{At: time.Now().UTC(), Vantage: v.p.opts.Vantage, Method: "rsync", URL: escape([]byte(raw), maxEvidenceBody)}
	fail := func(err error) Answer {
		e.Error = escape([]byte(err.Error()), maxEvidenceBody)
		return Answer{Evidence: e}
	}
	u, err := readRsyncURL(raw)
	if err != nil {
		return fail(err)
	}
	if v.p.rsync == "" {
		return Answer{Untested: true}
	}
	to, err := v.rsyncAddress(u.host)
	if err != nil {
		return fail(err)
	}
	if !to.IsValid() {
		return Answer{Untested: true}
	}
	e.Remote = netip.AddrPortFrom(to, u.port).String()
	list, said, err := v.listModule(u.at(to))
	v.mu.Lock()
	v.o.Bytes += int64(len(list))
	v.mu.Unlock()
	if v.ctx.Err() != nil {
		return Answer{Untested: true}
	}
	return moduleAnswer(e, list, said, err)
}

// moduleAnswer says what came of listing a module. With an error, e is completed
// and is part of the answer.
func moduleAnswer(e *state.Evidence, list, said []byte, err error) Answer {
	if err == nil {
		return Answer{OK: true}
	}
	e.Body = escape(list, maxEvidenceBody)
	text := err.Error()
	if said = bytes.TrimSpace(said); len(said) > 0 {
		text += ": " + string(said)
	}
	e.Error = escape([]byte(text), maxEvidenceBody)
	return Answer{Evidence: e}
}

// rsyncAddress returns an address of the host that may be connected to; the
// invalid one when there are only ones that this machine has no way to.
func (v *visit) rsyncAddress(host string) (netip.Addr, error) {
	all, err := v.p.client.Addresses(v.ctx, host)
	if err != nil {
		return netip.Addr{}, err
	}
	var permitted bool
	for _, a := range all {
		if !v.p.client.Permits(a) {
			continue
		}
		if permitted = true; v.p.client.Routed(a) {
			return a, nil
		}
	}
	if !permitted {
		return netip.Addr{}, fmt.Errorf("%s has no public address", host)
	}
	return netip.Addr{}, nil
}

// listModule runs rsync. It returns the beginning of what was listed, and of what
// else was said.
func (v *visit) listModule(url string) (list, said []byte, err error) {
	ctx, cancel := context.WithTimeout(v.ctx, v.p.rsyncTimeout)
	defer cancel()
	out := &bounded{most: maxListing, full: cancel}
	errs := &bounded{most: maxEvidenceBody, full: func() {}}
	cmd := exec.CommandContext(ctx, v.p.rsync, "--list-only", "--no-motd", "--contimeout=10", "--timeout=15", "--", url)
	// Nothing of ours: variables could make it connect elsewhere, through a program
	// of theirs, or with a password.
	cmd.Env = []string{"PATH=/nonexistent", "HOME=/nonexistent", "LC_ALL=C"}
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.WaitDelay = 2 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has children
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err = cmd.Run()
	switch {
	case out.over:
		err = nil // there is more than anybody wants to know
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("no whole listing within %v", v.p.rsyncTimeout)
	}
	return out.b.Bytes(), errs.b.Bytes(), err
}

// bounded keeps the beginning of what is written, and calls full at its end.
type bounded struct {
	b    bytes.Buffer
	most int
	full func()
	over bool
}

func (w *bounded) Write(p []byte) (int, error) {
	n := min(len(p), w.most-w.b.Len())
	w.b.Write(p[:n])
	if n < len(p) && !w.over {
		w.over = true
		w.full()
	}
	return len(p), nil
}
