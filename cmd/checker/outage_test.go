package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"meridian/internal/testworld"
)

// An outageWorld is the real checker and the real mirrorlist server, which share
// what is known by way of a real Redis that fails, and clients that ask for lists
// all the time. Of four mirrors two are fit for lists: one that serves web pages,
// and one that has nothing, would be listed too if what is known were lost.
type outageWorld struct {
	t       *testing.T
	dir     string
	redis   *testworld.Redis
	wire    *testworld.Wire // from both to it
	checker *testworld.Child
	server  *testworld.Child

	checkerURL, serverURL string
	mirrors               map[string]string // URLs by name

	edits int

	lists, metalinks atomic.Int64
}

// listedInOutage are the mirrors of every list.
var listedInOutage = []string{"good.example", "other.example"}

// Whatever happens to Redis, no list fails, nor loses what was known; the server
// says what is wrong, and how old its findings are; and all is well again by
// itself once Redis is.
func TestRedisFailsUnderTheServer(t *testing.T) {
	w := newOutageWorld(t)
	stop := w.ask(4)
	defer stop()

	t.Run("killed, and back without anything", func(t *testing.T) {
		before := w.taken()
		w.redis.Kill(t)
		w.edit() // which the checker cannot write
		w.untilServer("that Redis is away", func(ready string) bool { return strings.Contains(ready, "degraded: state: ") })
		w.untilChecker("that nothing is written", func(ready string) bool { return strings.Contains(ready, "degraded: state: not written since ") })
		if now := w.taken(); now.Before(before) {
			t.Errorf("the findings are of %v, and were of %v before", now, before)
		}
		w.redis.Start(t)
		w.recovers(before)
	})
	t.Run("killed, and back while there is no checker", func(t *testing.T) {
		before := w.taken()
		w.signal(w.checker, syscall.SIGSTOP)
		w.redis.Kill(t)
		w.redis.Start(t)
		w.untilServer("that Redis is empty", func(ready string) bool { return strings.Contains(ready, "degraded: state: state: no snapshot yet") })
		if now := w.taken(); now.Before(before) {
			t.Errorf("the findings are of %v, and were of %v before", now, before)
		}
		w.signal(w.checker, syscall.SIGCONT)
		w.edit()
		w.recovers(before)
	})
	t.Run("read-only", func(t *testing.T) {
		before := w.taken()
		// Of a master that nobody is.
		w.redis.Command(t, "REPLICAOF", "127.0.46.1", "1")
		w.edit()
		w.untilChecker("that it cannot write", func(ready string) bool { return strings.Contains(ready, "READONLY") })
		w.untilServer("nothing", func(ready string) bool { return ready == "ready\n" })
		w.redis.Command(t, "REPLICAOF", "NO", "ONE")
		w.recovers(before)
	})
	t.Run("slow", func(t *testing.T) {
		before := w.taken()
		up, down := w.wire.Passed()
		w.wire.Slow(5 * time.Millisecond)
		w.edit()
		w.recovers(before)
		if upNow, downNow := w.wire.Passed(); upNow == up || downNow == down {
			t.Error("nothing went over the wire that is slow")
		}
		w.wire.Mend()
	})
	if testing.Short() {
		return // what follows waits for the ten seconds that an answer may take
	}
	t.Run("asleep", func(t *testing.T) {
		before := w.taken()
		w.redis.Signal(t, syscall.SIGSTOP)
		w.edit()
		w.untilServer("that Redis does not answer", func(ready string) bool { return strings.Contains(ready, "degraded: state: ") })
		w.redis.Signal(t, syscall.SIGCONT)
		w.recovers(before)
	})
	t.Run("behind a network that swallows everything", func(t *testing.T) {
		before := w.taken()
		w.wire.Hold()
		w.edit()
		w.untilServer("that Redis does not answer", func(ready string) bool { return strings.Contains(ready, "degraded: state: ") })
		w.wire.Mend()
		w.recovers(before)
	})
	stop()
	t.Logf("%d lists and %d metalinks", w.lists.Load(), w.metalinks.Load())
}

func newOutageWorld(t *testing.T) *outageWorld {
	t.Helper()
	bin := t.TempDir()
	// Before the world has a cache directory of its own, which would be Go's too.
	if err := testworld.BuildCommands(t.Context(), bin, "./cmd/checker", "./cmd/mirrorlist"); err != nil {
		t.Fatal(err)
	}
	w := &outageWorld{t: t, dir: checkerWorld(t), redis: testworld.StartRedis(t), mirrors: map[string]string{}}
	w.wire = testworld.NewWire(t, w.redis.Socket)
	for name, handler := range map[string]http.Handler{"other.example": http.FileServer(http.Dir(filepath.Join(w.dir, "tier0"))), "none.example": http.NotFoundHandler()} {
		s := httptest.NewServer(handler)
		t.Cleanup(s.Close)
		writeFiles(t, w.dir, map[string]string{"mirrors.d/" + name + ".yml": "name: " + name + "\naddress: {http: " + s.URL + "/}\n"})
	}
	files, err := filepath.Glob(filepath.Join(w.dir, "mirrors.d", "*.yml"))
	if err != nil || len(files) != 4 {
		t.Fatalf("%d mirrors, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, url, _ := strings.Cut(string(text), "{http: ")
		url, _, _ = strings.Cut(url, "}")
		w.mirrors[strings.TrimSuffix(filepath.Base(file), ".yml")] = url
	}
	var addrs [2]string
	for i := range addrs {
		var err error
		if addrs[i], err = testworld.FreeAddr("127.0.46.102"); err != nil {
			t.Fatal(err)
		}
	}
	w.checkerURL, w.serverURL = "http://"+addrs[0], "http://"+addrs[1]
	state := "state: redis+unix://" + w.wire.Socket + "\n"
	writeFiles(t, w.dir, map[string]string{
		"checker.yml":    "network: network.yml\norigin: tier0\noverrides: overrides.yml\ninterval: 2s\ncache_dir: cache-checker\nallow_private_addresses: true\nlisten: " + addrs[0] + "\n" + state,
		"mirrorlist.yml": "network: network.yml\nsecret_file: secret\ncache_dir: cache\nallow_private_addresses: true\nrequests_per_second: -1\nlisten: " + addrs[1] + "\n" + state,
		"secret":         "0123456789abcdef\n",
	})
	w.checker = w.start(filepath.Join(bin, "checker"), "run", "-config", filepath.Join(w.dir, "checker.yml"))
	w.untilChecker("that every mirror was visited", func(ready string) bool { return ready == "ready\n" })
	w.server = w.start(filepath.Join(bin, "mirrorlist"), "serve", "-config", filepath.Join(w.dir, "mirrorlist.yml"))
	w.untilServer("the findings", func(ready string) bool {
		return ready == "ready\n" && slices.Equal(w.listed(http.DefaultClient, "/mirrorlist/9/baseos?arch=x86_64", &w.lists), listedInOutage)
	})
	return w
}

// start runs a program until the end of the test, and demands that it ends well.
func (w *outageWorld) start(program string, args ...string) *testworld.Child {
	w.t.Helper()
	var log testworld.Output
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	child, err := testworld.Start(cmd)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := child.Stop(patience); err != nil {
			w.t.Error(err)
		}
		if w.t.Failed() {
			w.t.Logf("the log of %s:\n%s", filepath.Base(program), log.String())
		}
	})
	return child
}

func (w *outageWorld) signal(c *testworld.Child, sig syscall.Signal) {
	w.t.Helper()
	if err := c.Signal(sig); err != nil {
		w.t.Fatal(err)
	}
}

// get returns the body of an answer, which is to have one of these codes.
func (w *outageWorld) get(client *http.Client, url string, codes ...int) string {
	resp, err := client.Get(url)
	if err != nil {
		w.t.Errorf("%s: %v", url, err)
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !slices.Contains(codes, resp.StatusCode) {
		w.t.Errorf("%s: %d, %v\n%s", url, resp.StatusCode, err, body)
	}
	return string(body)
}

// listed returns which of the mirrors a list has, or a metalink.
func (w *outageWorld) listed(client *http.Client, path string, count *atomic.Int64) (names []string) {
	body := w.get(client, w.serverURL+path, http.StatusOK)
	count.Add(1)
	for name, url := range w.mirrors {
		if strings.Contains(body, url) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// ask has clients ask for lists until the function that it returns is called.
// Every answer has to be the same.
func (w *outageWorld) ask(clients int) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var asking sync.WaitGroup
	for i := range clients {
		asking.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
			defer client.CloseIdleConnections()
			path, count := "/mirrorlist/9/baseos?arch=x86_64", &w.lists
			if i%2 == 1 {
				path, count = "/metalink/9/baseos?arch=x86_64", &w.metalinks
			}
			// Hundreds a second show as much as all that the processors can do, and leave
			// some of these to the tests beside this one.
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ; ctx.Err() == nil && !w.t.Failed(); <-tick.C {
				if got := w.listed(client, path, count); !slices.Equal(got, listedInOutage) {
					w.t.Errorf("%s lists %q, want %q", path, got, listedInOutage)
				}
			}
		})
	}
	return func() {
		cancel()
		asking.Wait()
	}
}

// until asks url until what is said there is as it should be. A checker that is
// not ready says so with another code.
func (w *outageWorld) until(what, url string, ok func(body string) bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		body := ""
		if resp, err := http.Get(url); err == nil {
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if body = string(text); ok(body) {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("%s does not say within %v: %s\n%s", url, patience, what, body)
		}
	}
}

func (w *outageWorld) untilServer(what string, ok func(ready string) bool) {
	w.t.Helper()
	w.until(what, w.serverURL+"/readyz", ok)
}

func (w *outageWorld) untilChecker(what string, ok func(ready string) bool) {
	w.t.Helper()
	w.until(what, w.checkerURL+"/readyz", ok)
}

// taken is of when the server says that its findings are.
func (w *outageWorld) taken() time.Time {
	w.t.Helper()
	var status struct{ Findings struct{ Taken time.Time } }
	if err := json.Unmarshal([]byte(w.get(http.DefaultClient, w.serverURL+"/api/v1/status", http.StatusOK)), &status); err != nil {
		w.t.Fatal(err)
	}
	return status.Findings.Taken
}

// edit makes a decision of an administrator that changes no list, which the
// checker wants to write within seconds.
func (w *outageWorld) edit() {
	w.t.Helper()
	w.edits++
	writeFiles(w.t, w.dir, map[string]string{"overrides.yml": fmt.Sprintf("mirrors:\n  good.example: {weight: %d, reason: a test}\n", 1000+w.edits)})
}

// recovers waits until the last edit has arrived at the server, and nothing is
// wrong any more.
func (w *outageWorld) recovers(before time.Time) {
	w.t.Helper()
	w.until("the decision that was made meanwhile", w.serverURL+"/api/v1/mirrors/good.example", func(body string) bool {
		var mirror struct{ Decision struct{ Weight int } }
		return json.Unmarshal([]byte(body), &mirror) == nil && mirror.Decision.Weight == 1000+w.edits
	})
	w.untilServer("that all is well", func(ready string) bool { return ready == "ready\n" })
	w.untilChecker("that all is well", func(ready string) bool { return ready == "ready\n" })
	if now := w.taken(); !now.After(before) {
		w.t.Errorf("the findings are of %v, and were of %v before", now, before)
	}
}
