package testworld

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A Child is a daemon that was started here and ends here. Everything that it
// starts itself is in its process group and ends with it.
type Child struct {
	name string
	pid  int
	done chan struct{}
	err  error // of Wait; read after done is closed
	log  *Output
}

// An Output is what a program has written so far. It may be read meanwhile; the
// zero value is empty.
type Output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Run runs a daemon until the end of the test, which fails when it does not end
// well on SIGTERM, and then shows what the daemon has written. A daemon that has
// ended before is the test's affair.
func Run(t testing.TB, cmd *exec.Cmd) *Child {
	t.Helper()
	var log Output
	cmd.Stdout, cmd.Stderr = &log, &log
	c, err := Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	c.log = &log
	t.Cleanup(func() {
		select {
		case <-c.done:
		default:
			if err := c.Stop(5 * time.Minute); err != nil {
				t.Errorf("stop: %v", err)
			}
		}
		if t.Failed() {
			t.Logf("the log of %s:\n%s", c.name, &log)
		}
	})
	return c
}

// Log is what a daemon that was started by Run has written so far.
func (c *Child) Log() string { return c.log.String() }

// Start runs cmd in the background. On Linux it cannot outlive this process.
func Start(cmd *exec.Cmd) (*Child, error) {
	c := &Child{name: filepath.Base(cmd.Path), done: make(chan struct{})}
	ownGroup(cmd)
	if cmd.Cancel != nil { // made with a context: its end is the group's
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		// A daemon that escaped the group may hold the pipe open for ever.
		cmd.WaitDelay = 10 * time.Second
	}
	started := make(chan error)
	go func() {
		// The signal that tells a child that its parent is gone is tied to the
		// thread that started it, and Go may end a thread at any time but this.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			c.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	return c, nil
}

// Done is closed when the child has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// Err is how the child ended: nil for exit status 0. It waits for the end.
func (c *Child) Err() error {
	<-c.done
	if c.err != nil {
		return fmt.Errorf("%s: %w", c.name, c.err)
	}
	return nil
}

// Ready asks url until it answers 200. It gives up when ctx ends or the child
// does.
func (c *Child) Ready(ctx context.Context, url string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := answers(ctx, url)
		if err == nil {
			return nil
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s ended before %s answered: %w", c.name, url, errors.Join(c.err, err))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; last: %w", c.name, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// answers is nil when url says 200 within a few seconds.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return nil
}

// Signal sends sig to the child alone, not to its group.
func (c *Child) Signal(sig syscall.Signal) error {
	select {
	case <-c.done:
		return os.ErrProcessDone
	default:
		return syscall.Kill(c.pid, sig)
	}
}

// Stop asks the child to end, kills its group after grace, and returns how it
// ended.
func (c *Child) Stop(grace time.Duration) error {
	if err := c.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", c.name, err)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
	}
	// The child's own children have no claim to stay. ESRCH: nobody is left.
	if err := syscall.Kill(-c.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s: %w", c.name, err)
	}
	return c.Err()
}

// reserved holds the sockets of FreeAddr until the process ends.
var reserved struct {
	sync.Mutex
	fds []int
}

// FreeAddr is an address with a port that is the caller's until its process ends,
// on an IPv4 loopback host such as "127.0.0.9". A program that sets SO_REUSEADDR,
// as servers do, can listen there, stop, and listen again. Meanwhile the kernel
// gives the port to nobody who asks for any port, listening or connecting: a
// socket stays bound to it and never listens, see bind(2) and ip(7) of Linux.
func FreeAddr(host string) (string, error) {
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.Is4() || !ip.IsLoopback() {
		return "", fmt.Errorf("find a free port: %q is not an IPv4 loopback address; use 127.0.0.N", host)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("find a free port: socket: %w", err)
	}
	port, err := bindReusable(fd, ip)
	if err != nil {
		_ = syscall.Close(fd) // nothing was written to it
		return "", fmt.Errorf("find a free port on %s: %w", host, err)
	}
	reserved.Lock()
	defer reserved.Unlock()
	reserved.fds = append(reserved.fds, fd)
	return netip.AddrPortFrom(ip, port).String(), nil
}

// bindReusable binds fd to a port of the kernel's choice and does not mind others
// who bind to it too.
func bindReusable(fd int, ip netip.Addr) (port uint16, err error) {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, fmt.Errorf("SO_REUSEADDR: %w", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: ip.As4()}); err != nil {
		return 0, fmt.Errorf("bind: %w", err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("getsockname: %w", err)
	}
	return uint16(name.(*syscall.SockaddrInet4).Port), nil
}

// BuildCommands compiles commands of this module ("./cmd/mirrorlist") into the
// directory out, each under the last part of its path, from the source tree that
// the current directory is in.
func BuildCommands(ctx context.Context, out string, commands ...string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	gobin, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("go is not installed: install Go 1.26 or newer, see https://go.dev/dl: %w", err)
	}
	cmd := exec.CommandContext(ctx, gobin, append([]string{"build", "-trimpath", "-o", out + string(filepath.Separator)}, commands...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := output(cmd); err != nil {
		return fmt.Errorf("build %v: %w", commands, err)
	}
	return nil
}

// moduleRoot is the nearest directory, from the current one upwards, that has a
// go.mod.
func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find go.mod: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod above %s: run it inside the source tree", start)
		}
	}
}
