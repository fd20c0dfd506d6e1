package syncer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"meridian/internal/testworld"
)

func TestConfigThatIsRefused(t *testing.T) {
	tree := func(change func(t *Tree)) Config {
		one := Tree{Upstream: "rsync://tier0.example.org/tree", Path: "/srv/mirror"}
		change(&one)
		return Config{Trees: map[string]Tree{"main": one}}
	}
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // in the error; "" for none
	}{
		{name: "the least that works", cfg: tree(func(*Tree) {})},
		{name: "no trees", cfg: Config{}, want: `missing "trees"`},
		{name: "an address without port", cfg: Config{Listen: "localhost"}, want: "write HOST:PORT"},
		{name: "a name with a slash", cfg: Config{Trees: map[string]Tree{"a/b": {}}}, want: `"a/b" is no name`},
		{name: "no upstream", cfg: tree(func(t *Tree) { t.Upstream = "" }), want: "main: the upstream is empty; write a directory, rsync://HOST/MODULE"},
		{name: "a password in the upstream", cfg: tree(func(t *Tree) { t.Upstream = "rsync://u:secret@h/m" }), want: "write it to a password file"},
		{name: "no path", cfg: tree(func(t *Tree) { t.Path = "" }), want: `missing "path"`},
		{name: "a pattern with a slash in front", cfg: tree(func(t *Tree) { t.Exclude = []string{"/vault"} }), want: "without a slash at either end"},
		{name: "an interval of nothing", cfg: tree(func(t *Tree) { t.Interval = time.Millisecond }), want: "interval: 1ms is too short; write one such as 10m"},
		{name: "a negative grace", cfg: tree(func(t *Tree) { t.Grace = -time.Hour }), want: "grace: -1h0m0s is too short"},
		{name: "a protocol of long ago", cfg: tree(func(t *Tree) { t.Protocol = 20 }), want: "rsync 3 speaks 30, 31 and 32"},
		{name: "a checker without scheme", cfg: tree(func(t *Tree) { t.Synced = Synced{URL: "mirrors.example.org", Mirror: "m", TokenFile: "t"} }), want: "write one such as https://"},
		{name: "a checker without token", cfg: tree(func(t *Tree) { t.Synced = Synced{URL: "https://mirrors.example.org"} }), want: "write mirror"},
		{name: "keys that are not there", cfg: tree(func(t *Tree) { t.Pub = []string{"/nonexistent.asc"} }), want: "main: pub: "},
		{name: "a tree in another", cfg: Config{Trees: map[string]Tree{
			"a": {Upstream: "h::m", Path: "/srv/mirror"}, "b": {Upstream: "h::n", Path: "/srv/mirror/sub"},
		}}, want: "a and b: one path is in the other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewService(tt.cfg, slog.New(slog.DiscardHandler))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			} else if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
}

func TestPathsAreRelativeToTheSettings(t *testing.T) {
	c := Config{Trees: map[string]Tree{
		"a": {Upstream: "up", Path: "tree", PasswordFile: "pw", Pub: []string{"k.asc", "/abs.asc"}, Rsync: "bin/rsync", Synced: Synced{TokenFile: "token"}},
		"b": {Upstream: "h::m", Path: "/srv", Rsync: "rsync"},
	}}
	got := c.Rooted("/etc/meridian")
	want := map[string]string{
		"a": "/etc/meridian/up /etc/meridian/tree /etc/meridian/pw [/etc/meridian/k.asc /abs.asc] /etc/meridian/bin/rsync /etc/meridian/token",
		"b": "h::m /srv  [] rsync ",
	}
	for name, want := range want {
		tree := got.Trees[name]
		if got := fmt.Sprint(tree.Upstream, " ", tree.Path, " ", tree.PasswordFile, " ", tree.Pub, " ", tree.Rsync, " ", tree.Synced.TokenFile); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if c.Trees["a"].Path != "tree" || c.Trees["a"].Pub[0] != "k.asc" {
		t.Error("the settings that were given have changed")
	}
}

// running is a service that follows, until the end of the test.
type running struct {
	*Service
	t    *testing.T
	url  string
	stop context.CancelFunc
	done chan error
}

func startService(t *testing.T, cfg Config) *running {
	t.Helper()
	testworld.Need(t, "rsync")
	cfg.Listen = "127.0.0.1:0"
	s, err := NewService(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(s.Collector())
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{s, t, "", cancel, make(chan error, 1)}
	addr := make(chan string, 1)
	go func() {
		r.done <- s.Run(ctx, promhttp.HandlerFor(reg, promhttp.HandlerOpts{}), func(a string) { addr <- a })
	}()
	select {
	case a := <-addr:
		r.url = "http://" + a
	case err := <-r.done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-r.done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *running) ask(method, path string, header ...string) (status int, body string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, name := range header {
		req.Header.Set(name, "https://elsewhere.example.org")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// until polls a page until want is in it.
func (r *running) until(path, want string) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		_, body := r.ask("GET", path)
		if strings.Contains(body, want) {
			return
		}
		select {
		case <-tick.C:
		case <-r.t.Context().Done():
			r.t.Fatalf("%s never had %q; it has\n%s", path, want, body)
		}
	}
}

func TestServiceFollows(t *testing.T) {
	up, other := directory(t), directory(t)
	publishTo(t, up, 1)
	publishTo(t, other, 1)
	m, n := mirrorOf(t, up), mirrorOf(t, other)
	var hints atomic.Int64
	checker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" || r.URL.Path != "/api/v1/mirrors/mirror.example.org/synced" || r.Header.Get("Authorization") != "Bearer t0ken" {
			t.Errorf("the checker was asked %s %s with %q", r.Method, r.URL, r.Header)
		}
		if hints.Add(1) == 2 {
			http.Error(w, "not now", http.StatusServiceUnavailable)
		}
	}))
	defer checker.Close()
	work := t.TempDir()
	write(t, work, map[string]string{"token": "t0ken\n"})
	r := startService(t, Config{Trees: map[string]Tree{
		"main": {Upstream: up.dest, Path: m.dir, Interval: time.Hour, Synced: Synced{checker.URL + "/", "mirror.example.org", filepath.Join(work, "token")}},
		"side": {Upstream: other.dest, Path: n.dir, Interval: time.Hour},
	}})
	r.until("/readyz", "ready\n")
	m.wantGeneration(t, 1)
	n.wantGeneration(t, 1)

	// Whoever publishes tells the mirror.
	publishTo(t, up, 2)
	if status, body := r.ask("POST", "/-/follow/main"); status != http.StatusAccepted {
		t.Errorf("asked to follow: %d %s", status, body)
	}
	r.until("/metrics", `meridian_syncer_runs_total{result="changed",tree="main"} 2`)
	m.wantGeneration(t, 2)
	if status, body := r.ask("POST", "/-/follow/none"); status != http.StatusNotFound || !strings.Contains(body, "write one of main, side") {
		t.Errorf("asked for a tree that is none: %d %s", status, body)
	}
	if status, _ := r.ask("POST", "/-/follow", "Origin"); status != http.StatusForbidden {
		t.Errorf("a web page asked to follow: %d, want %d", status, http.StatusForbidden)
	}
	if status, _ := r.ask("GET", "/-/follow"); status != http.StatusMethodNotAllowed {
		t.Errorf("GET /-/follow: %d, want %d", status, http.StatusMethodNotAllowed)
	}

	// A failure is told, and forgotten after the next success.
	if err := os.Rename(up.dir, up.dir+".away"); err != nil {
		t.Fatal(err)
	}
	r.Ask("")
	r.until("/metrics", `meridian_syncer_failures{tree="main"} 1`)
	r.until("/metrics", `meridian_syncer_runs_total{result="current",tree="side"} 1`)
	if err := os.Rename(up.dir+".away", up.dir); err != nil {
		t.Fatal(err)
	}
	r.Ask("main")
	r.until("/metrics", `meridian_syncer_failures{tree="main"} 0`)

	_, page := r.ask("GET", "/metrics")
	for _, want := range []string{`meridian_syncer_hints_total{result="arrived",tree="main"} 1`, `meridian_syncer_hints_total{result="failed",tree="main"} 1`,
		`meridian_syncer_running{tree="side"} 0`, `meridian_syncer_held_repositories{tree="main"} 0`} {
		if !strings.Contains(page, want) {
			t.Errorf("metrics do not have %s:\n%s", want, page)
		}
	}
	if hints.Load() != 2 {
		t.Errorf("%d hints, want one for each run that changed something", hints.Load())
	}
}

// A tree that was never followed, or not for long, is not ready.
func TestServiceThatIsNotReady(t *testing.T) {
	m := mirrorOf(t, tier0{dest: filepath.Join(t.TempDir(), "none")})
	r := startService(t, Config{Trees: map[string]Tree{"main": {Upstream: m.f.Upstream, Path: m.dir}}})
	r.until("/readyz", "No such file")
	if status, body := r.ask("GET", "/readyz"); status != http.StatusServiceUnavailable || !strings.HasPrefix(body, "main: not followed yet: ") {
		t.Errorf("%d %s, want 503 and why", status, body)
	}
	if status, _ := r.ask("GET", "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d", status)
	}
	j := &job{interval: time.Minute, status: status{success: time.Now().Add(-90 * time.Minute), err: errors.New("disk full")}}
	if got := j.trouble(time.Now()); !strings.HasPrefix(got, "not followed for 1h30m") || !strings.HasSuffix(got, ": disk full") {
		t.Errorf("trouble %q", got)
	}
}

// A run that is asked for while one is under way follows it, however often it was
// asked for, and a stop in the middle of one loses nothing.
func TestServiceIsAskedMeanwhile(t *testing.T) {
	up := directory(t)
	publishTo(t, up, 1)
	m := mirrorOf(t, up)
	s, err := NewService(Config{Trees: map[string]Tree{"main": {Upstream: up.dest, Path: m.dir, Interval: time.Hour}}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	runs := 0
	s.jobs[0].follower.step = func(step string) {
		switch {
		case step == "locked":
			runs++
		case step == "marked" && runs == 1:
			publishTo(t, up, 2)
			for range 3 {
				s.Ask("main")
			}
		case step == "marked" && runs == 2:
			publishTo(t, up, 3)
			s.Ask("")
		case step == "begun" && runs == 3:
			cancel()
		}
	}
	if err := s.Run(ctx, nil, nil); err != nil {
		t.Fatal(err)
	}
	if runs != 3 {
		t.Errorf("%d runs, want three", runs)
	}
	for _, repo := range releaseRepos {
		if got, err := overFiles(m.dir).read(repo); err != nil || got != "1002" {
			t.Errorf("clients read revision %s, %v; want 1002", got, err)
		}
	}
	m.mustFollow(t)
	m.wantGeneration(t, 3)
}

func TestPausesGrowWithFailures(t *testing.T) {
	for _, tt := range []struct {
		interval time.Duration
		failures int
		want     time.Duration
	}{
		{10 * time.Minute, 0, 10 * time.Minute},
		{10 * time.Minute, 1, 10 * time.Minute},
		{10 * time.Minute, 2, 20 * time.Minute},
		{10 * time.Minute, 4, 80 * time.Minute},
		{10 * time.Minute, 100, 4 * time.Hour},
		{6 * time.Hour, 5, 6 * time.Hour},
	} {
		j := &job{interval: tt.interval, status: status{failures: tt.failures}}
		lo, hi := tt.want, time.Duration(0)
		for range 100 {
			p := j.pause()
			lo, hi = min(lo, p), max(hi, p)
		}
		if lo < tt.want*9/10 || hi > tt.want*11/10 || lo == hi {
			t.Errorf("every %v after %d failures: pauses from %v to %v, want about %v", tt.interval, tt.failures, lo, hi, tt.want)
		}
	}
}

// The intervals that the settings give are those of the runs: an upstream that
// cannot be understood fails at once, so that only time passes.
func TestServiceKeepsItsIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := NewService(Config{Trees: map[string]Tree{"main": {Upstream: "up", Path: "/nonexistent"}}}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		if err := s.Run(ctx, nil, nil); err != nil {
			t.Fatal(err)
		}
		// At 0, 10, 30, 70, 150, 310 minutes, and then every four hours.
		if got := s.jobs[0].status.runs[failed]; got < 9 || got > 11 {
			t.Errorf("%d tries in a day, want about ten", got)
		}
	})
}

func TestEveryMetricIsDocumented(t *testing.T) {
	ch := make(chan *prometheus.Desc, 100)
	collector{}.Describe(ch)
	close(ch)
	var all []fmt.Stringer
	for d := range ch {
		all = append(all, d)
	}
	testworld.ReadManual(t, "The syncer of a mirror").HasMetrics(all)
}
