package testworld

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A Redis is a real redis-server of a test. It keeps nothing over a restart
// unless its settings say otherwise.
type Redis struct {
	Dir    string // of its files, and its working directory
	Socket string // path of its socket

	program string
	args    []string
	child   *Child
}

// StartRedis starts redis-server, which ends with the test. It listens on a
// socket alone, unless the settings, as on its command line ("--port", "7000"),
// name a port.
func StartRedis(t testing.TB, settings ...string) *Redis {
	t.Helper()
	r := &Redis{Dir: TempDir(t), program: Need(t, "redis-server")}
	r.Socket = filepath.Join(r.Dir, "redis.sock")
	r.args = append([]string{"--port", "0", "--unixsocket", r.Socket, "--dir", r.Dir, "--save", "", "--loglevel", "warning"}, settings...)
	r.Start(t)
	t.Cleanup(func() { r.Kill(t) })
	return r
}

// StartSentinel starts redis-server as a Sentinel on a loopback port, with the
// lines of configuration given.
func StartSentinel(t testing.TB, addr, config string) *Redis {
	t.Helper()
	r := &Redis{Dir: TempDir(t), program: Need(t, "redis-server")}
	r.Socket = filepath.Join(r.Dir, "redis.sock")
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(r.Dir, "sentinel.conf")
	config = fmt.Sprintf("bind %s\nport %s\nunixsocket %s\ndir %s\n%s", host, port, r.Socket, r.Dir, config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r.args = []string{file, "--sentinel"}
	r.Start(t)
	t.Cleanup(func() { r.Kill(t) })
	return r
}

// Start starts it again after Kill, and waits until it listens.
func (r *Redis) Start(t testing.TB) {
	t.Helper()
	os.Remove(r.Socket) // of one that was killed
	cmd := exec.Command(r.program, r.args...)
	cmd.Dir, cmd.Env = r.Dir, environ(r.Dir)
	log, err := os.OpenFile(filepath.Join(r.Dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if r.child, err = Start(cmd); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		conn, err := net.Dial("unix", r.Socket)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-tick.C:
		case <-r.child.Done():
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("redis-server ended: %v\n%s", r.child.Err(), text)
		case <-ctx.Done():
			t.Fatalf("redis-server does not listen: %v", err)
		}
	}
}

// Kill ends it at once, as a crash does.
func (r *Redis) Kill(t testing.TB) {
	t.Helper()
	_ = r.child.Signal(syscall.SIGKILL)
	<-r.child.Done()
}

// Signal sends it a signal, such as SIGSTOP and SIGCONT.
func (r *Redis) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := r.child.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// Command is a command for redis-server, such as "PING" or "SET", "a", "b"; the
// answer is what redis-cli prints for machines.
func (r *Redis) Command(t testing.TB, args ...string) string {
	t.Helper()
	cli, err := exec.LookPath(filepath.Join(filepath.Dir(r.program), "redis-cli"))
	if err != nil {
		t.Fatalf("redis-cli is not where redis-server is: %v", err)
	}
	cmd := exec.Command(cli, append([]string{"-s", r.Socket}, args...)...)
	cmd.Env = environ(r.Dir)
	out, err := output(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
