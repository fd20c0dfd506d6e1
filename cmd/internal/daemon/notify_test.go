package daemon

import (
	"net"
	"os"
	"path/filepath"
	"testing"
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
