package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"meridian/cmd/internal/daemon"
	"meridian/internal/strictyaml"
	"meridian/internal/testworld"
	"meridian/syncer"
)

// The example is what people begin with: it has every setting, it is right as it
// is, and it is right with every setting in use.
func TestExampleSettings(t *testing.T) {
	text, err := os.ReadFile("example.yml")
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`(?m)^( *)#([a-z_]+:)`).ReplaceAllString(string(text), "$1$2")
	for name, text := range map[string]string{"as it is": string(text), "with every setting": all} {
		t.Run(name, func(t *testing.T) {
			var cfg syncer.Config
			if err := strictyaml.Unmarshal("example.yml", []byte(text), &cfg); err != nil {
				t.Fatal(err)
			}
			if name == "as it is" {
				return
			}
			for _, v := range []reflect.Value{reflect.ValueOf(cfg), reflect.ValueOf(cfg.Trees["almalinux"])} {
				for i := range v.NumField() {
					if v.Field(i).IsZero() {
						t.Errorf("the setting %q is missing", v.Type().Field(i).Tag.Get("yaml"))
					}
				}
			}
		})
	}
	var out, errs strings.Builder
	err = run(t.Context(), daemon.Env{Args: []string{"run", "-config", "example.yml", "-check"}, Stdout: &out, Stderr: &errs})
	if err != nil {
		t.Errorf("run -check: %v\n%s%s", err, out.String(), errs.String())
	}
}

func TestEverySettingIsDocumented(t *testing.T) {
	testworld.ReadManual(t, "The syncer of a mirror").HasSettings("key", reflect.TypeFor[syncer.Tree]())
}

// world is a tier0 and a daemon of the real program that follows it.
type world struct {
	t      *testing.T
	dir    string
	child  *testworld.Child
	notify net.PacketConn
}

func newWorld(t *testing.T) *world {
	t.Helper()
	testworld.Need(t, "rsync")
	w := &world{t: t, dir: testworld.TempDir(t)}
	if err := testworld.BuildCommands(t.Context(), w.dir, "./cmd/syncer"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"tree", "tier0", "mirror"} {
		if err := os.Mkdir(w.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, text string, perm os.FileMode) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), []byte(text), perm); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) publish(text string) {
	w.t.Helper()
	w.write("tree/README", text, 0o644)
	if out, err := exec.CommandContext(w.t.Context(), w.path("syncer"), "publish", w.path("tree"), w.path("tier0")).CombinedOutput(); err != nil {
		w.t.Fatalf("publish: %v\n%s", err, out)
	}
}

// start runs the daemon and returns when it has told the service manager that it
// is ready. Its log goes to each line by line.
func (w *world) start(settings string, each func(line string)) {
	w.t.Helper()
	w.write("syncer.yml", settings, 0o644)
	socket := w.path("notify")
	os.Remove(socket)
	manager, err := net.ListenPacket("unixgram", socket)
	if err != nil {
		w.t.Fatal(err)
	}
	w.notify = manager
	w.t.Cleanup(func() { manager.Close() })
	cmd := exec.Command(w.path("syncer"), "run", "-config", w.path("syncer.yml"))
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	r, log := io.Pipe()
	cmd.Stderr = log
	if w.child, err = testworld.Start(cmd); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			each(lines.Text())
		}
	}()
	w.t.Cleanup(func() { w.child.Stop(10 * time.Second); log.Close() })
	if got := w.receive(); got != daemon.Ready {
		w.t.Fatalf("the service manager was told %q, want %q", got, daemon.Ready)
	}
}

func (w *world) receive() string {
	w.t.Helper()
	buf := make([]byte, 100)
	n, _, err := w.notify.ReadFrom(buf)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(buf[:n])
}

// A daemon follows at its start, when it is asked by a signal or over HTTP, and
// ends with status 0 when it is stopped.
func TestDaemonFollowsWhenAsked(t *testing.T) {
	w := newWorld(t)
	addr, err := testworld.FreeAddr("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	log := make(chan string, 100)
	w.publish("one\n")
	w.start(fmt.Sprintf("listen: %s\ntrees: {main: {upstream: tier0, path: mirror, interval: 1h}}\n", addr), func(line string) {
		if strings.Contains(line, "msg=followed") {
			log <- line
		}
	})
	followed := func(want string) {
		t.Helper()
		line := <-log
		got, err := os.ReadFile(w.path("mirror/README"))
		if string(got) != want {
			t.Errorf("the mirror has %q, %v; want %q; the log has %s", got, err, want, line)
		}
	}
	followed("one\n")
	w.publish("two\n")
	if err := w.child.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	followed("two\n")
	w.publish("three\n")
	resp, err := http.Post("http://"+addr+"/-/follow", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("asked over HTTP: %s", resp.Status)
	}
	followed("three\n")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := w.child.Ready(ctx, "http://"+addr+"/readyz"); err != nil {
		t.Error(err)
	}
	if err := w.child.Stop(5 * time.Minute); err != nil {
		t.Errorf("stopped: %v, want status 0", err)
	}
	if got := w.receive(); got != daemon.Stopping {
		t.Errorf("the service manager was told %q, want %q", got, daemon.Stopping)
	}
}

// A stop does not wait for a transfer, which goes on after the next start.
func TestDaemonStopsInTheMiddleOfATransfer(t *testing.T) {
	w := newWorld(t)
	w.publish("one\n")
	fifo := w.path("begun")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// It says that it has begun, and then nothing more for ever.
	w.write("rsync", "#!/bin/sh\ncase \"$*\" in *--inplace*) echo $$ >'"+fifo+"'; exec sleep 1000;; *) exec rsync \"$@\";; esac\n", 0o755)
	w.start("trees: {main: {upstream: tier0, path: mirror, rsync: ./rsync}}\n", func(string) {})
	pid, err := os.ReadFile(fifo)
	if err != nil {
		t.Fatal(err)
	}
	// Not Stop, which would end rsync too.
	if err := w.child.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := w.child.Err(); err != nil {
		t.Errorf("stopped: %v, want status 0", err)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid))); err == nil {
		t.Errorf("rsync, process %s, outlived the daemon", pid)
	}
	if locks, err := os.ReadDir(w.path("mirror/.meridian/lock")); err != nil || len(locks) != 0 {
		t.Errorf("locks left behind: %v, %v", locks, err)
	}
	followed := make(chan bool, 1)
	w.start("trees: {main: {upstream: tier0, path: mirror}}\n", func(line string) {
		if strings.Contains(line, "msg=followed") {
			followed <- true
		}
	})
	<-followed
	if got, err := os.ReadFile(w.path("mirror/README")); string(got) != "one\n" {
		t.Errorf("the mirror has %q, %v; want \"one\\n\"", got, err)
	}
}
