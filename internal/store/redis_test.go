package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"meridian/internal/testworld"
)

// open returns a store, and its URL is none of a place.
func openURL(t *testing.T, url string, o Options) *Store {
	t.Helper()
	return place{url: url}.open(t, o)
}

// The connection of a writer breaks after each number of bytes, on the way there
// and back. The step is made or not; whoever makes it again makes it once.
func TestRedisIsCutOffAtEachByte(t *testing.T) {
	server := testworld.StartRedis(t)
	wire := testworld.NewWire(t, server.Socket)
	reader := openURL(t, "redis+unix://"+server.Socket, Options{})
	w := ready(t, openURL(t, "redis+unix://"+wire.Socket, Options{}))
	write(t, w, step(0, "n/first", "0", "n/second", "0", "n/0", "null"))

	n, made := 0, 0
	change := func() *Change {
		c := step(0, "n/first", strconv.Itoa(n), "n/second", strconv.Itoa(n), fmt.Sprintf("n/%d", n), "null")
		c.Remove = []string{fmt.Sprintf("n/%d", n-1)}
		c.Log = []LogEntry{{"log", "x", fmt.Sprintf(`{"n":%d}`, n)}}
		return c
	}
	every := 1
	if testing.Short() {
		every = 17
	}
	for _, dir := range []struct {
		name string
		cut  func(int)
	}{{"there", wire.CutUp}, {"back", wire.CutDown}} {
		for at := 0; ; at += every {
			n++
			dir.cut(at)
			err := w.Write(t.Context(), change())
			wire.Mend()
			rec := must[*Record](t)(reader.Read(t.Context(), "r", "", nil))
			got, _ := strconv.Atoi(rec.Fields["n/first"])
			wantFields(t, rec, map[string]string{"n/first": strconv.Itoa(got), "n/second": strconv.Itoa(got), fmt.Sprintf("n/%d", got): "null"})
			switch {
			case err == nil && got != n, err != nil && got != n && got != n-1, errors.Is(err, ErrNotHolder):
				t.Fatalf("cut after %d bytes on the way %s: %v, and the record is that of step %d, not %d", at, dir.name, err, got, n)
			case err != nil && got == n:
				made++
			}
			done := err == nil
			// Once more, as who does not know does.
			write(t, w, change())
			log := must[[]string](t)(reader.Log(t.Context(), "log", "x", 2))
			if want := []string{fmt.Sprintf(`{"n":%d}`, n), fmt.Sprintf(`{"n":%d}`, n-1)}; !slices.Equal(log, want[:min(n, 2)]) {
				t.Fatalf("cut after %d bytes on the way %s: the log ends with %q, want %q", at, dir.name, log, want)
			}
			if done { // the whole exchange is shorter than that
				if at == 0 {
					t.Errorf("nothing was cut on the way %s", dir.name)
				}
				break
			}
		}
	}
	if made == 0 {
		t.Error("no step was made of which nobody was told: the test shows less than it should")
	}
	t.Logf("%d exchanges were cut, of which %d made their step", n, made)
}

// A step that is still under way when another has taken over comes too late.
func TestRedisGetsAStepTooLate(t *testing.T) {
	server := testworld.StartRedis(t)
	wire := testworld.NewWire(t, server.Socket)
	direct := "redis+unix://" + server.Socket
	a := ready(t, openURL(t, "redis+unix://"+wire.Socket, Options{Lease: shortLease}))
	write(t, a, step(0, "by", `"a"`))
	wire.Hold()
	ctx, cancel := context.WithTimeout(t.Context(), 2*shortLease)
	defer cancel()
	if err := a.Write(ctx, step(1, "by", `"a again"`)); err == nil || errors.Is(err, ErrNotHolder) {
		t.Errorf("a step that nobody answers: %v", err)
	}
	b := openURL(t, direct, Options{}).Writer("r", "")
	takeOver(t, b)
	before := scriptsRun(t, server)
	wire.Mend()
	for tick := time.NewTicker(time.Millisecond); scriptsRun(t, server) == before; { // until it has come
		<-tick.C
	}
	wantFields(t, must[*Record](t)(b.Read(t.Context())), map[string]string{"by": `"a"`})
	if err := a.Write(t.Context(), step(2, "by", `"a"`)); !errors.Is(err, ErrNotHolder) {
		t.Errorf("the late writer: %v, want %v", err, ErrNotHolder)
	}
	write(t, b, step(3, "by", `"b"`))
}

// A replica can be read and not written.
func TestRedisIsReadOnly(t *testing.T) {
	master := testworld.StartRedis(t, "--bind", "127.0.46.1", "--port", freePort(t, "127.0.46.1"), "--repl-diskless-sync-delay", "0")
	host, port, _ := strings.Cut(addrOf(t, master), ":")
	replica := testworld.StartRedis(t, "--replicaof", host+" "+port)
	w := ready(t, openURL(t, "redis+unix://"+master.Socket, Options{}))
	write(t, w, step(0, "g/a", "1", "g/b", "1"))
	reader := openURL(t, "redis+unix://"+replica.Socket, Options{})
	var have *Record
	for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
		rec, err := reader.Read(t.Context(), "r", "", nil)
		if err == nil {
			have = rec
			break
		}
		// While it loads what its master has it says so, or has nothing.
		if !errors.Is(err, ErrNotFound) && !strings.Contains(err.Error(), "LOADING") {
			t.Fatal(err)
		}
	}
	write(t, w, step(1, "g/a", "2"))
	for tick := time.NewTicker(time.Millisecond); have.Fields["g/a"] != "2"; <-tick.C {
		have = must[*Record](t)(reader.Read(t.Context(), "r", "", have))
	}
	wantFields(t, have, map[string]string{"g/a": "2", "g/b": "1"})

	lost := reader.Writer("other", "")
	if _, err := lost.Acquire(t.Context()); err == nil || errors.Is(err, ErrNotHolder) || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("the lease of a replica: %v", err)
	}
	// A master that becomes a replica under its writer.
	master.Command(t, "REPLICAOF", "127.0.46.1", freePort(t, "127.0.46.1"))
	if err := w.Write(t.Context(), step(2, "g/a", "3")); err == nil || errors.Is(err, ErrNotHolder) || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("a step on a replica: %v", err)
	}
	master.Command(t, "REPLICAOF", "NO", "ONE")
	write(t, w, step(2, "g/a", "3"))
}

// A Redis that is full refuses whole steps.
func TestRedisIsFull(t *testing.T) {
	server := testworld.StartRedis(t, "--maxmemory-policy", "noeviction")
	s := openURL(t, "redis+unix://"+server.Socket, Options{})
	w := ready(t, s)
	write(t, w, step(0, "g/a", "1", "g/b", "1"))
	have := must[*Record](t)(s.Read(t.Context(), "r", "", nil))
	server.Command(t, "CONFIG", "SET", "maxmemory", "1")
	if err := w.Write(t.Context(), step(1, "g/a", "2", "g/b", "2")); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("a step in a full Redis: %v", err)
	}
	if rec := must[*Record](t)(s.Read(t.Context(), "r", "", have)); rec != have {
		t.Errorf("the record has become %v", rec.Fields)
	}
	server.Command(t, "CONFIG", "SET", "maxmemory", "0")
	write(t, w, step(1, "g/a", "2", "g/b", "2"))
}

// What somebody else has put in the place of a key is no reason for half a step.
func TestRedisHasSomethingElse(t *testing.T) {
	for _, key := range []string{"meridian:r::fields", "meridian:r::versions", "meridian:r", "meridian:log:log:x"} {
		t.Run(key, func(t *testing.T) {
			server := testworld.StartRedis(t)
			s := openURL(t, "redis+unix://"+server.Socket, Options{})
			w := ready(t, s)
			c := step(0, "g/a", "1")
			c.Log = []LogEntry{{"log", "x", "{}"}}
			write(t, w, c)
			head := server.Command(t, "HGETALL", "meridian:r::head")
			server.Command(t, "RENAME", key, "saved")
			server.Command(t, "SET", key, "something else")
			if err := w.Write(t.Context(), c); err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
				t.Errorf("%v, want that the type is wrong", err)
			}
			if now := server.Command(t, "HGETALL", "meridian:r::head"); now != head {
				t.Errorf("the head has become %s, want %s", now, head)
			}
			server.Command(t, "RENAME", "saved", key)
			write(t, w, c)
		})
	}
}

func TestRedisHoldsNoRecord(t *testing.T) {
	server := testworld.StartRedis(t)
	s := openURL(t, "redis+unix://"+server.Socket, Options{})
	w := ready(t, s)
	write(t, w, step(0, "g/a", "1"))
	server.Command(t, "HSET", "meridian:r::head", "version", "many")
	if _, err := s.Read(t.Context(), "r", "", nil); err == nil || !strings.Contains(err.Error(), `"many"`) || !strings.Contains(err.Error(), "delete its keys") {
		t.Errorf("a reader: %v", err)
	}
	if _, err := openURL(t, "redis+unix://"+server.Socket, Options{}).Writer("r", "").Read(t.Context()); err == nil {
		t.Error("a writer that knows nothing takes it for a record")
	}
	write(t, w, step(1, "g/a", "2")) // who knows better writes it again
	wantFields(t, must[*Record](t)(s.Read(t.Context(), "r", "", nil)), map[string]string{"g/a": "2"})
}

// A master is killed. Its Sentinel makes its replica the master, where the writer
// goes on, and where all is that the writer knows, whether or not that had been
// replicated.
func TestSentinelFailsOver(t *testing.T) {
	hosts := []string{"127.0.46.2", "127.0.46.3", "127.0.46.4"}
	master := testworld.StartRedis(t, "--bind", hosts[0], "--port", freePort(t, hosts[0]), "--repl-diskless-sync-delay", "0")
	replica := testworld.StartRedis(t, "--bind", hosts[1], "--port", freePort(t, hosts[1]), "--replica-announce-ip", hosts[1], "--repl-diskless-sync-delay", "0")
	host, port, _ := strings.Cut(addrOf(t, master), ":")
	replica.Command(t, "REPLICAOF", host, port)
	sentinelAddr := net.JoinHostPort(hosts[2], freePort(t, hosts[2]))
	sentinel := testworld.StartSentinel(t, sentinelAddr, fmt.Sprintf(
		"sentinel monitor m %s %s 1\nsentinel down-after-milliseconds m 2000\nsentinel failover-timeout m 6000\n", host, port))
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		if strings.Contains(sentinel.Command(t, "SENTINEL", "MASTER", "m"), "num-slaves\n1") && strings.Contains(replica.Command(t, "INFO", "replication"), "master_link_status:up") {
			break
		}
	}

	url := "redis+sentinel://127.0.46.5:1," + sentinelAddr + "/m/3" // one Sentinel is away
	s, reader := openURL(t, url, Options{}), openURL(t, url, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	heard, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		reader.Watch(ctx, "r", func() {
			select {
			case heard <- struct{}{}:
			default:
			}
		})
	}()
	defer func() { cancel(); <-done }()
	w := ready(t, s)
	write(t, w, step(0, "n/0", "0"))
	have := must[*Record](t)(reader.Read(t.Context(), "r", "", nil))
	// The next step is lost: the replica does not hear of it.
	for tick := time.NewTicker(time.Millisecond); replica.Command(t, "-n", "3", "HGET", "meridian:r::fields", "n/0") == ""; {
		<-tick.C
	}
	replica.Signal(t, syscall.SIGSTOP)
	master.Command(t, "CLIENT", "KILL", "TYPE", "replica")
	write(t, w, step(1, "n/1", "1"))
	have = must[*Record](t)(reader.Read(t.Context(), "r", "", have))
	master.Kill(t)
	replica.Signal(t, syscall.SIGCONT)
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err := w.Write(ctx, step(2, "n/2", "2"))
		cancel()
		if err == nil {
			break
		}
		if errors.Is(err, ErrNotHolder) {
			t.Fatal(err)
		}
	}
	if role := replica.Command(t, "ROLE"); !strings.HasPrefix(role, "master") {
		t.Errorf("the replica says that it is\n%s", role)
	}
	// The reader is told, or was while it subscribed again.
	late := time.After(5 * time.Minute)
	for have.Fields["n/2"] == "" {
		select {
		case <-heard:
		case <-late:
			t.Fatalf("nothing is heard; the record is %v", have.Fields)
		}
		rec, err := reader.Read(t.Context(), "r", "", have)
		if err == nil {
			have = rec
		}
	}
	wantFields(t, have, map[string]string{"n/0": "0", "n/1": "1", "n/2": "2"})
}

// Wherever a password comes from, it is used and never told.
func TestRedisWithPasswords(t *testing.T) {
	const password = "p@ss/w%rd?&x=1"
	const escaped = "p%40ss%2Fw%25rd%3F&x=1"
	server := testworld.StartRedis(t, "--requirepass", password)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(value string) func(string) string {
		return func(name string) string {
			if name == "MERIDIAN_REDIS_PASSWORD" {
				return value
			}
			return ""
		}
	}
	for _, tt := range []struct {
		name, url string
		getenv    func(string) string
		want      string
	}{
		{"in the URL", "redis+unix://:" + escaped + "@" + server.Socket, env("wrong"), ""},
		{"with the user in the URL", "redis+unix://default:" + escaped + "@" + server.Socket, nil, ""},
		{"in a file", "redis+unix://" + server.Socket + "?password_file=" + file, env("wrong"), ""},
		{"in the environment", "redis+unix://" + server.Socket, env(password), ""},
		{"a wrong one in the URL", "redis+unix://:wr0ng@" + server.Socket, nil, "WRONGPASS"},
		{"a wrong one in the environment", "redis+unix://" + server.Socket, env("wr0ng"), "WRONGPASS"},
		{"none", "redis+unix://" + server.Socket, env(""), "NOAUTH"},
		{"in a file that is not there", "redis+unix://" + server.Socket + "?password_file=" + file + ".none", nil, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openURL(t, tt.url, Options{Getenv: tt.getenv})
			_, err := s.Names(t.Context(), "r")
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			for _, text := range []string{fmt.Sprint(err), s.String()} {
				if strings.Contains(text, "wr0ng") || strings.Contains(text, "p@ss") || strings.Contains(text, "p%40ss") {
					t.Errorf("%q tells the password", text)
				}
			}
		})
	}
	t.Run("in a file that is replaced", func(t *testing.T) {
		s := openURL(t, "redis+unix://"+server.Socket+"?password_file="+file, Options{})
		if err := os.WriteFile(file, []byte("not yet"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Names(t.Context(), "r"); err == nil {
			t.Error("the wrong password is good")
		}
		if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Names(t.Context(), "r"); err != nil {
			t.Errorf("with the right one: %v", err)
		}
	})
}

// The users that the manual shows may do what they have to, and a node cannot
// write findings.
func TestRedisUsersOfTheManual(t *testing.T) {
	manual, err := os.ReadFile("../../docs/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	server := testworld.StartRedis(t)
	for line := range strings.Lines(string(manual)) {
		if f := strings.Fields(line); len(f) > 3 && f[0] == "user" {
			if got := server.Command(t, append([]string{"ACL", "SETUSER"}, f[1:]...)...); got != "OK" {
				t.Fatalf("%s: %s", line, got)
			}
		}
	}
	s := openURL(t, "redis+unix://checker:SECRET@"+server.Socket, Options{})
	w := ready(t, s)
	for i := range 3 {
		c := step(i, "g/a", strconv.Itoa(i), fmt.Sprintf("g/%d", i), "1")
		c.Remove = []string{"g/0"}
		c.Log = []LogEntry{{"log", "x", entry(i, "")}}
		write(t, w, c)
	}
	if err := s.Documents().Update(t.Context(), "n/x", func([]byte) ([]byte, error) { return []byte("x"), nil }); err != nil {
		t.Error(err)
	}
	node := openURL(t, "redis+unix://node:SECRET@"+server.Socket, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	heard, done := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(done)
		node.Watch(ctx, "r", func() { heard <- struct{}{} })
	}()
	defer func() { cancel(); <-done }()
	<-heard // that it has subscribed
	write(t, w, step(4, "g/a", "4"))
	<-heard
	if names := must[[]string](t)(node.Names(t.Context(), "r")); len(names) != 1 {
		t.Errorf("there are %q", names)
	}
	wantFields(t, must[*Record](t)(node.Read(t.Context(), "r", "", nil)), map[string]string{"g/a": "4", "g/1": "1", "g/2": "1"})
	if got := must[[]string](t)(node.Log(t.Context(), "log", "x", 10)); len(got) != 3 {
		t.Errorf("the log is %q", got)
	}
	if got := must[[]byte](t)(node.Documents().Load(t.Context(), "n/x")); string(got) != "x" {
		t.Errorf("the document is %q", got)
	}
	if _, err := node.Writer("r", "").Acquire(t.Context()); err == nil {
		t.Error("a node knows who the writer is, which only who may write does")
	}
	if _, err := node.Writer("other", "").Acquire(t.Context()); err == nil || errors.Is(err, ErrNotHolder) {
		t.Errorf("a node takes a lease: %v", err)
	}
	if err := node.Documents().Remove(t.Context(), "n/x"); err == nil {
		t.Error("a node removes a document")
	}

	extra := regexp.MustCompile("statistics there also needs `([^`]*)`").FindSubmatch(manual)
	if extra == nil {
		t.Fatal("the manual says nothing of nodes that keep statistics")
	}
	server.Command(t, append([]string{"ACL", "SETUSER", "node"}, strings.Fields(string(extra[1]))...)...)
	d := openURL(t, "redis+unix://node:SECRET@"+server.Socket, Options{}).Documents()
	if err := d.Update(t.Context(), "n/y", func([]byte) ([]byte, error) { return []byte("y"), nil }); err != nil {
		t.Error(err)
	}
	if tags := must[map[string]string](t)(d.List(t.Context())); len(tags) != 2 {
		t.Errorf("there are %v", tags)
	}
	if err := d.Remove(t.Context(), "n/y"); err != nil {
		t.Error(err)
	}
}

// Two installations share a Redis by a prefix, or by a database.
func TestRedisIsShared(t *testing.T) {
	server := testworld.StartRedis(t)
	for i, options := range []string{"", "?prefix=other", "?db=2", "?db=2&prefix=other"} {
		s := openURL(t, "redis+unix://"+server.Socket+options, Options{})
		write(t, ready(t, s), step(0, "n", strconv.Itoa(i)))
		wantFields(t, must[*Record](t)(s.Read(t.Context(), "r", "", nil)), map[string]string{"n": strconv.Itoa(i)})
	}
}

// scriptsRun tells how many scripts a Redis has run.
func scriptsRun(t *testing.T, r *testworld.Redis) string {
	t.Helper()
	_, stats, _ := strings.Cut(r.Command(t, "INFO", "commandstats"), "cmdstat_evalsha:calls=")
	calls, _, _ := strings.Cut(stats, ",")
	return calls
}

// freePort is a port of a loopback host that nobody listens on.
func freePort(t *testing.T, host string) string {
	t.Helper()
	addr, err := testworld.FreeAddr(host)
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// addrOf is where a Redis that was started with a port listens.
func addrOf(t *testing.T, r *testworld.Redis) string {
	t.Helper()
	host := strings.Fields(r.Command(t, "CONFIG", "GET", "bind"))[1]
	return net.JoinHostPort(host, strings.Fields(r.Command(t, "CONFIG", "GET", "port"))[1])
}
