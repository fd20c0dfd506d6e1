package daemon

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// manager is a service manager's socket that a test reads.
func manager(t *testing.T) (path string, receive func() string) {
	t.Helper()
	// Not t.TempDir: a socket path is at most 107 bytes long, and that one holds
	// the name of the test.
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return path, func() string {
		t.Helper()
		buf := make([]byte, 256)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func environment(vars map[string]string) Env {
	return Env{Getenv: func(key string) string { return vars[key] }}
}

func TestNotify(t *testing.T) {
	path, receive := manager(t)
	if err := Notify(environment(map[string]string{"NOTIFY_SOCKET": path}), Ready); err != nil {
		t.Fatal(err)
	}
	if got := receive(); got != "READY=1" {
		t.Errorf("the service manager was told %q, want READY=1", got)
	}
}

func TestNotifyWithoutServiceManagerDoesNothing(t *testing.T) {
	if err := Notify(Env{}, Ready); err != nil {
		t.Error(err)
	}
	gone := environment(map[string]string{"NOTIFY_SOCKET": filepath.Join(t.TempDir(), "gone")})
	if err := Notify(gone, Ready); err == nil {
		t.Error("a socket that is not there was no error")
	}
}

func TestWatchdogSpeaksOnlyWhileHealthy(t *testing.T) {
	path, receive := manager(t)
	env := environment(map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2000"})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	calls := 0
	go func() {
		done <- Watchdog(ctx, env, func() bool {
			calls++
			if calls == 5 {
				cancel()
			}
			return calls == 1 || calls == 5
		})
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// Five times asked, twice healthy: two datagrams, then the one that follows
	// here.
	if err := Notify(env, "END"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"WATCHDOG=1", "WATCHDOG=1", "END"} {
		if got := receive(); got != want {
			t.Fatalf("the service manager was told %q, want %q", got, want)
		}
	}
}

func TestWatchdogLimit(t *testing.T) {
	const pid = 100
	tests := []struct {
		name      string
		usec, pid string
		want      time.Duration
		fails     bool
	}{
		{name: "nobody watches"},
		{name: "half a minute", usec: "30000000", want: 30 * time.Second},
		{name: "this process is watched", usec: "2000", pid: strconv.Itoa(pid), want: 2 * time.Millisecond},
		{name: "the parent is watched", usec: "2000", pid: strconv.Itoa(pid - 1)},
		{name: "not a number", usec: "30s", fails: true},
		{name: "too short to halve", usec: "1", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := environment(map[string]string{"WATCHDOG_USEC": tt.usec, "WATCHDOG_PID": tt.pid})
			got, err := watchdogLimit(env, pid)
			if got != tt.want || (err != nil) != tt.fails {
				t.Errorf("WATCHDOG_USEC=%q WATCHDOG_PID=%q: %v, %v; want %v, fails %v", tt.usec, tt.pid, got, err, tt.want, tt.fails)
			}
		})
	}
}
