package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"meridian/internal/testworld"
	"meridian/mirrorlist/geo/geotest"
)

// built is where the real command is compiled to, once for all tests here.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// serverBinary returns the path of the real command.
func serverBinary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "mirrorlist-test-"); built.err == nil {
			built.err = testworld.BuildCommands(context.Background(), built.dir, "./cmd/mirrorlist")
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "mirrorlist")
}

// A daemonChild is the real server as a child process, on a network of its own.
type daemonChild struct {
	*testworld.Child
	t     *testing.T
	dir   string
	cmd   *exec.Cmd
	url   string
	admin string
}

// startDaemon runs the server on a network with n mirrors. more is added to its
// settings. edit may change the command.
func startDaemon(t *testing.T, n int, more string) *daemonChild {
	t.Helper()
	d := &daemonChild{t: t, dir: t.TempDir()}
	network := testworld.SampleNetwork("https://vault.example.org/")
	if err := testworld.WriteNetwork(d.dir, network, nil); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		d.writeMirror(fmt.Sprintf("m%d.example.org", i), "linux")
	}
	var addrs [2]string
	for i := range addrs {
		var err error
		if addrs[i], err = testworld.FreeAddr("127.0.44.101"); err != nil {
			t.Fatal(err)
		}
	}
	d.url, d.admin = "http://"+addrs[0], "http://"+addrs[1]
	d.write("secret", "the secret of these tests")
	d.write("mirrorlist.yml", fmt.Sprintf("listen: %s\nadmin_listen: %s\nnetwork: network.yml\nsecret_file: secret\ncache_dir: cache\n%s", addrs[0], addrs[1], more))

	d.cmd = exec.Command(serverBinary(t), "serve", "-config", filepath.Join(d.dir, "mirrorlist.yml"))
	d.Child = testworld.Run(t, d.cmd)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := d.Ready(ctx, d.admin+"/readyz"); err != nil {
		t.Fatalf("%v\n%s", err, d.Log())
	}
	return d
}

func (d *daemonChild) write(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// writeMirror puts the file of a mirror whose tree is called dir in its place.
func (d *daemonChild) writeMirror(name, dir string) {
	d.t.Helper()
	d.write("next.tmp", "name: "+name+"\naddress: {http: http://"+name+"/"+dir+"/}\nupdate_frequency: 3h\nsponsor: Example\n"+
		"sponsor_url: https://www.example.org/\nemail: admin@example.org\ngeolocation: {country: DE}\n")
	if err := os.Rename(filepath.Join(d.dir, "next.tmp"), filepath.Join(d.dir, "mirrors.d", name+".yml")); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemonChild) get(url string) (body string, code int) {
	d.t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(b), resp.StatusCode
}

func (d *daemonChild) list() []string {
	d.t.Helper()
	body, code := d.get(d.url + "/mirrorlist/9/baseos")
	if code != http.StatusOK {
		d.t.Fatalf("a list: %d %s", code, body)
	}
	return strings.Split(body, "\n")
}

// pid is the server's process number.
func (d *daemonChild) pid() int { return d.cmd.Process.Pid }

// metric returns the value of a metric without labels.
func (d *daemonChild) metric(name string) float64 {
	d.t.Helper()
	page, _ := d.get(d.admin + "/metrics")
	for line := range strings.SplitSeq(page, "\n") {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(rest, 64)
			if err != nil {
				d.t.Fatal(err)
			}
			return v
		}
	}
	d.t.Fatalf("there is no metric %s", name)
	return 0
}

// eventually waits for a condition. The deadline is for a test that would never
// end.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never came: %s", what)
		}
	}
}

// The three ways to have files read again, on the real process.
func TestReloadWithoutRestart(t *testing.T) {
	d := startDaemon(t, 6, "")
	settings, err := os.ReadFile(filepath.Join(d.dir, "mirrorlist.yml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("by a change of files", func(t *testing.T) {
		d.writeMirror("new.example.org", "linux")
		eventually(t, "a new mirror", func() bool { return len(d.list()) == 7 })
		d.write("mirrorlist.yml", string(settings)+"limit: 3\n")
		eventually(t, "a smaller limit", func() bool { return len(d.list()) == 3 })
		d.write("mirrorlist.yml", string(settings)+"limitt: 3\n")
		eventually(t, "settings that are wrong", func() bool {
			body, _ := d.get(d.admin + "/readyz")
			page, _ := d.get(d.admin + "/metrics")
			return strings.Contains(body, `unknown key "limitt"; write limit`) && strings.Contains(page, `meridian_mirrorlist_problems{input="settings"} 1`)
		})
		if n := len(d.list()); n != 3 {
			t.Errorf("with wrong settings a list has %d lines, want still 3", n)
		}
		d.write("mirrorlist.yml", string(settings))
		eventually(t, "the settings of before", func() bool {
			body, _ := d.get(d.admin + "/readyz")
			return body == "ready\n" && len(d.list()) == 7
		})
	})
	remove := func(from, to int) {
		for i := from; i < to; i++ {
			if err := os.Remove(filepath.Join(d.dir, "mirrors.d", fmt.Sprintf("m%d.example.org.yml", i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("by SIGHUP, which also accepts that many mirrors are gone", func(t *testing.T) {
		remove(0, 3)
		eventually(t, "that three of seven mirrors are missed", func() bool {
			body, _ := d.get(d.admin + "/readyz")
			return strings.Contains(body, "3 of 7 mirrors are gone at once")
		})
		if n := len(d.list()); n != 7 {
			t.Errorf("a list has %d lines, want still 7", n)
		}
		if err := d.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a list without them", func() bool { return len(d.list()) == 4 })
	})
	t.Run("by POST /-/reload, which answers when it is done", func(t *testing.T) {
		remove(3, 5)
		resp, err := http.Post(d.admin+"/-/reload", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || string(body) != "reloaded\n" {
			t.Errorf("POST /-/reload: %d %s", resp.StatusCode, body)
		}
		if n := len(d.list()); n != 2 {
			t.Errorf("right after it a list has %d lines, want 2", n)
		}
	})
	select {
	case <-d.Done():
		t.Errorf("the server has ended: %v", d.Err())
	default:
	}
}

func TestTermDrainsAndEndsWithZero(t *testing.T) {
	d := startDaemon(t, 3, "")
	addr := strings.TrimPrefix(d.url, "http://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\n"); err != nil {
		t.Fatal(err)
	}
	d.list() // so that the server has the first connection
	if err := d.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no new connections", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case <-d.Done():
		t.Fatalf("the server ended in the middle of a request: %v", d.Err())
	default:
	}
	if _, err := io.WriteString(conn, "\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") || strings.Count(string(answer), "/9.8/BaseOS/") != 3 {
		t.Errorf("the answer after SIGTERM: %v\n%s", err, answer)
	}
	if err := d.Err(); err != nil {
		t.Errorf("the server ended with %v, want status 0", err)
	}
}

func TestSecondTermKills(t *testing.T) {
	d := startDaemon(t, 1, "")
	addr := strings.TrimPrefix(d.url, "http://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /mirrorlist/9/baseos HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	d.list()
	if err := d.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no new connections", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if err := d.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.Err(); err == nil || !strings.Contains(err.Error(), "signal: terminated") {
		t.Errorf("the server ended with %v, want the signal", err)
	}
}

func TestPortThatIsTaken(t *testing.T) {
	d := startDaemon(t, 1, "")
	out, err := exec.Command(d.cmd.Path, d.cmd.Args[1:]...).CombinedOutput()
	want := "mirrorlist: mirrorlist: another program listens on " + strings.TrimPrefix(d.url, "http://") + ": stop it, or write another address"
	if err == nil || !strings.Contains(string(out), want) {
		t.Errorf("a second server: %v\n%s\nwant %s", err, out, want)
	}
	if n := len(d.list()); n != 1 {
		t.Errorf("the first one has %d mirrors, want 1", n)
	}
}

// A database is compiled by a process of its own. When that is killed, as by a
// kernel that is out of memory, the server lives, and tells.
func TestCompilerIsKilled(t *testing.T) {
	mmdb := filepath.Join(t.TempDir(), "city.mmdb")
	size := geotest.Size{Networks: 50_000, Places: 1000, Seed: 1}
	if err := geotest.WriteMMDB(mmdb, "GeoLite2-City", size.Locations()); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, 2, "")
	settings, err := os.ReadFile(filepath.Join(d.dir, "mirrorlist.yml"))
	if err != nil {
		t.Fatal(err)
	}
	pid := d.pid()
	if _, err := os.Stat("/proc/thread-self/children"); err != nil {
		t.Skip("no way to find the compiler: this kernel has no /proc/PID/task/TID/children")
	}
	children := func() (pids []int) {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		if len(files) == 0 {
			t.Fatalf("the server has no threads any more\n%s", d.Log())
		}
		for _, file := range files {
			data, _ := os.ReadFile(file)
			for _, field := range strings.Fields(string(data)) {
				if n, err := strconv.Atoi(field); err == nil {
					pids = append(pids, n)
				}
			}
		}
		return pids
	}
	d.write("mirrorlist.yml", string(settings)+"geo: {location: "+mmdb+"}\n")
	killed := func() bool {
		body, _ := d.get(d.admin + "/readyz")
		return strings.Contains(body, "degraded: geo.location: compile "+mmdb+" in a process of its own: signal: killed")
	}
	// A compiler that was done before it was found is started again by a file of
	// another time.
	stamp := time.Unix(1_700_000_000, 0)
	eventually(t, "a compiler that is killed", func() bool {
		for _, child := range children() {
			// A pid that is a child's now is nobody else's before it is waited for;
			// the server waits only for those that have ended.
			_ = syscall.Kill(child, syscall.SIGKILL)
		}
		if page, _ := d.get(d.admin + "/metrics"); strings.Contains(page, "meridian_mirrorlist_database_timestamp_seconds ") {
			stamp = stamp.Add(time.Second)
			if err := os.Chtimes(mmdb, stamp, stamp); err != nil {
				t.Fatal(err)
			}
		}
		return killed()
	})
	if n := len(d.list()); n != 2 {
		t.Errorf("a list has %d lines, want 2", n)
	}
	// Who asks has it tried again.
	resp, err := http.Post(d.admin+"/-/reload", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("a reload: %s %s", resp.Status, body)
	}
	if n := d.metric("meridian_mirrorlist_database_timestamp_seconds"); n == 0 {
		t.Error("there is no database")
	}
}

// A reload as often as it goes, while several clients ask as fast as they can: no
// request fails, and each list is that of one network.
func TestReloadsUnderFullLoad(t *testing.T) {
	d := startDaemon(t, 10, "geo: {location: demo, asn: demo}\n")
	done := make(chan struct{})
	var load sync.WaitGroup
	var lists atomic.Int64
	for range 4 {
		load.Go(func() {
			client := &http.Client{Transport: new(http.Transport)}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-done:
					return
				default:
				}
				resp, err := client.Get(d.url + "/mirrorlist/9/baseos")
				if err != nil {
					t.Errorf("a request failed: %v", err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("a request failed: %s %v", resp.Status, err)
					return
				}
				var trees []string
				for line := range strings.SplitSeq(string(body), "\n") {
					trees = append(trees, strings.Split(line, "/")[3])
				}
				if len(trees) != 10 || len(slices.Compact(trees)) != 1 {
					t.Errorf("a list of more than one network:\n%s", body)
					return
				}
				lists.Add(1)
			}
		})
	}
	// As many reloads as it takes for the load to be one, however slow the clients.
	const leastReloads, leastLists = 12, 120
	reloads := 0
	for ; (reloads < leastReloads || lists.Load() < leastLists) && !t.Failed(); reloads++ {
		i := reloads
		tree := fmt.Sprintf("net%d", i)
		for j := range 10 {
			d.writeMirror(fmt.Sprintf("m%d.example.org", j), tree)
		}
		resp, err := http.Post(d.admin+"/-/reload", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("reload %d: %s", i, resp.Status)
		}
		if list := d.list(); !strings.Contains(list[0], "/"+tree+"/") {
			t.Errorf("after reload %d the list begins with %s", i, list[0])
		}
	}
	close(done)
	load.Wait()
	t.Logf("%d lists during %d reloads", lists.Load(), reloads)
	if n := d.metric("meridian_mirrorlist_empty_total"); n != 0 {
		t.Errorf("%v lists were empty", n)
	}
}
