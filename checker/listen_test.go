package checker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"meridian/checker/notify"
	"meridian/checker/state"
	"meridian/schema"
)

var listenSecret = []byte("a secret of the tests")

// ask makes a request to a handler, as from the peer, with headers "NAME: VALUE".
func ask(h http.Handler, method, target, peer string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr = peer
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const (
	here      = "127.0.0.1:4711"
	elsewhere = "203.0.113.9:4711"
)

func TestSyncedIsAHint(t *testing.T) {
	inBubble(t, []string{"a.example", "b.example"}, func(s *station) {
		s.start()
		h := s.c.Handler(ListenOptions{Secret: listenSecret})
		hint := func(mirror, token string) *httptest.ResponseRecorder {
			return ask(h, "POST", "/api/v1/mirrors/"+mirror+"/synced", elsewhere, "Authorization: Bearer "+token)
		}
		good := Token(listenSecret, "a.example")
		if w := hint("a.example", good); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			s.t.Errorf("before the checker is active: %d %s", w.Code, w.Body)
		}
		s.pass(10 * time.Minute)

		refused := hint("a.example", Token(listenSecret, "b.example"))
		if refused.Code != http.StatusUnauthorized || refused.Header().Get("WWW-Authenticate") != "Bearer" {
			s.t.Errorf("the token of another mirror: %d %s", refused.Code, refused.Body)
		}
		for what, w := range map[string]*httptest.ResponseRecorder{
			"no such mirror":            hint("none.example", Token(listenSecret, "none.example")),
			"no token":                  ask(h, "POST", "/api/v1/mirrors/a.example/synced", elsewhere),
			"another scheme":            ask(h, "POST", "/api/v1/mirrors/a.example/synced", elsewhere, "Authorization: Basic "+good),
			"a token of another secret": hint("a.example", Token([]byte("another secret here"), "a.example")),
			"a listener without secret": ask(s.c.Handler(ListenOptions{}), "POST", "/api/v1/mirrors/a.example/synced", elsewhere, "Authorization: Bearer "+Token(nil, "a.example")),
		} {
			if w.Code != refused.Code || w.Body.String() != refused.Body.String() || fmt.Sprint(w.Header()) != fmt.Sprint(refused.Header()) {
				s.t.Errorf("%s: %d %v %s; want what a wrong token is answered", what, w.Code, w.Header(), w.Body)
			}
		}
		if w := ask(h, "GET", "/api/v1/mirrors/a.example/synced", elsewhere); w.Code != http.StatusMethodNotAllowed {
			s.t.Errorf("GET: %d", w.Code)
		}

		// It says that it has a new generation, and has: it is visited at once.
		s.publish("200")
		s.pass(70 * time.Second)
		s.sites["a.example"].sync(s.t)
		before := time.Now()
		if w := hint("a.example", good); w.Code != http.StatusAccepted {
			s.t.Fatalf("a hint: %d %s", w.Code, w.Body)
		}
		s.pass(5 * time.Second)
		if s.sites["a.example"].requests(before) == 0 {
			s.t.Error("nobody comes")
		}
		if h := s.stored().Mirrors["a.example"].Health[base9]; h != state.Fresh {
			s.t.Errorf("after the visit the mirror is %s", h)
		}

		w := hint("a.example", good)
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "55" {
			s.t.Errorf("again after five seconds: %d, Retry-After %q: %s", w.Code, w.Header().Get("Retry-After"), w.Body)
		}
		if w := hint("b.example", Token(listenSecret, "b.example")); w.Code != http.StatusAccepted {
			s.t.Errorf("another mirror at the same time: %d", w.Code)
		}
		s.pass(55 * time.Second)
		if w := hint("a.example", good); w.Code != http.StatusAccepted {
			s.t.Errorf("again after a minute: %d", w.Code)
		}
		// b has said the same, and lied.
		s.wants("b.example", "lagging")
		s.halt()
	})
}

func TestFeedOfAMirror(t *testing.T) {
	inBubble(t, []string{"a.example", "secret.example"}, func(s *station) {
		s.write("mirrors.d/secret.example.yml", "name: secret.example\naddress: {http: http://secret.example/}\nprivate: true\nsubnets: [192.0.2.0/24]\n")
		s.sites["a.example"].does(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") })
		s.start()
		s.pass(3 * time.Minute)
		h := s.c.Handler(ListenOptions{})
		w := ask(h, "GET", "/mirrors/a.example/feed.atom", elsewhere)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/atom+xml; charset=utf-8" {
			s.t.Fatalf("%d %v", w.Code, w.Header())
		}
		for _, want := range []string{"are broken", `rel="self" href="http://example.com/mirrors/a.example/feed.atom"`, "curl -q"} {
			if !strings.Contains(w.Body.String(), want) {
				s.t.Errorf("the feed does not say %q:\n%s", want, w.Body)
			}
		}
		for _, name := range []string{"secret.example", "none.example", "..%2F..%2Fetc"} {
			if w := ask(h, "GET", "/mirrors/"+name+"/feed.atom", here); w.Code != http.StatusNotFound || strings.Contains(w.Body.String(), name) {
				s.t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
		}
		s.halt()

		s.settings.PublicURL = "https://mirrors.example.org/"
		s.reopen()
		s.start()
		s.pass(time.Minute)
		body := ask(s.c.Handler(ListenOptions{}), "GET", "/mirrors/a.example/feed.atom", elsewhere).Body.String()
		for _, want := range []string{`rel="self" href="https://mirrors.example.org/mirrors/a.example/feed.atom"`, `rel="alternate" href="https://mirrors.example.org/mirrors/a.example"`} {
			if !strings.Contains(body, want) {
				s.t.Errorf("with public_url the feed does not link %s:\n%s", want, body)
			}
		}
		s.halt()
	})
}

// What names mirrors and files is for who is on this host.
func TestDetailsAreForThisHost(t *testing.T) {
	inBubble(t, []string{"a.example"}, func(s *station) {
		s.decided = func() (*Overrides, error) { return nil, errors.New("overrides.yml:3: it is bad") }
		s.write("overrides.yml", "{")
		s.start()
		s.pass(3 * time.Minute)
		h := s.c.Handler(ListenOptions{Metrics: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "numbers") })})
		if w := ask(h, "GET", "/readyz", here); w.Code != 200 || w.Body.String() != "ready\ndegraded: overrides: overrides.yml:3: it is bad\n" {
			s.t.Errorf("here: %d %s", w.Code, w.Body)
		}
		if w := ask(h, "GET", "/metrics", "[::1]:1"); w.Code != 200 || w.Body.String() != "numbers\n" {
			s.t.Errorf("metrics here: %d %s", w.Code, w.Body)
		}
		for _, from := range [][]string{{elsewhere}, {here, "X-Forwarded-For: 203.0.113.9"}, {here, "Origin: https://evil.example"}, {"@"}} {
			if w := ask(h, "GET", "/readyz", from[0], from[1:]...); w.Code != 200 || w.Body.String() != "ready\ndegraded: 1 things are not as they should be: ask on this host\n" {
				s.t.Errorf("from %v: %d %s", from, w.Code, w.Body)
			}
			if w := ask(h, "GET", "/metrics", from[0], from[1:]...); w.Code != http.StatusForbidden {
				s.t.Errorf("metrics from %v: %d %s", from, w.Code, w.Body)
			}
		}
		if w := ask(h, "GET", "/healthz", elsewhere); w.Code != 200 || w.Body.String() != "ok\n" {
			s.t.Errorf("healthz: %d %s", w.Code, w.Body)
		}
		if w := ask(s.c.Handler(ListenOptions{}), "GET", "/metrics", here); w.Code != http.StatusNotFound {
			s.t.Errorf("without metrics: %d", w.Code)
		}
		s.halt()
	})
}

func TestReadiness(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	well := Standing{
		Active: true, Since: ago(time.Hour), Complete: true, Visitable: 500, Stored: ago(20 * time.Second),
		Origin: OriginNumbers{Keys: 140, Confirmed: ago(time.Minute)},
	}
	tests := []struct {
		name   string
		change func(s *Standing)
		ready  bool
		lines  []string
	}{
		{name: "all is well", ready: true},
		{name: "the state was not asked yet", change: func(s *Standing) { *s = Standing{} }, lines: []string{"starting: the state was not asked yet"}},
		{
			name: "another checker is active", change: func(s *Standing) { *s = Standing{Since: ago(time.Hour)} },
			ready: true, lines: []string{"standing by since 2026-11-22T11:00:00Z: another checker has the lease"},
		},
		{
			name: "the state cannot be asked who is active", change: func(s *Standing) { *s = Standing{Since: ago(time.Hour), StoreErr: errors.New("refused")} },
			lines: []string{"degraded: state: not written ever: refused"},
		},
		{
			name: "the first round is under way", change: func(s *Standing) { s.Complete, s.Unvisited = false, 20 },
			lines: []string{"degraded: first round: 20 of 500 mirrors were not visited yet"},
		},
		{name: "a new mirror waits for its first visit", change: func(s *Standing) { s.Unvisited = 1 }, ready: true},
		{
			name: "the state is away for a while", change: func(s *Standing) { s.StoreErr, s.Stored = errors.New("refused"), ago(4*time.Minute) },
			ready: true, lines: []string{"degraded: state: not written since 2026-11-22T11:56:00Z: refused"},
		},
		{
			name: "the state is away for long", change: func(s *Standing) { s.StoreErr, s.Stored = errors.New("refused"), ago(6*time.Minute) },
			lines: []string{"degraded: state: not written since 2026-11-22T11:54:00Z: refused"},
		},
		{
			name: "a write hangs", change: func(s *Standing) { s.Stored = ago(6 * time.Minute) },
			lines: []string{"degraded: state: last written 2026-11-22T11:54:00Z"},
		},
		{
			name: "the origin was never seen", change: func(s *Standing) { s.Origin.Confirmed = time.Time{} },
			lines: []string{"degraded: origin: nothing of it was seen yet: checker origin says why"},
		},
		{
			name: "the origin is away, and in trouble", change: func(s *Standing) {
				s.Origin.Confirmed, s.Origin.Troubled, s.Origin.Disputed = ago(6*time.Minute), 140, 3
			},
			ready: true, lines: []string{
				"degraded: origin: last confirmed 2026-11-22T11:54:00Z: checker origin says why",
				"degraded: origin: what it serves of 140 repositories is not believed: checker origin says why",
				"degraded: origin: mirrors have something newer of 3 repositories, which it does not confirm: their metalinks go without hashes after 15 minutes",
			},
		},
		{
			name: "this host has no network", change: func(s *Standing) { s.Blind, s.Overdue = true, 3 },
			ready: true, lines: []string{
				"degraded: network: hardly any mirror answers, so this host has lost its network: findings grow old",
				"degraded: visits: 3 are more than a minute late",
			},
		},
		{
			name: "files are bad", change: func(s *Standing) {
				s.Problems = map[string][]string{"overrides": {"o.yml:1: a\no.yml:2: b"}, "mirrors": {"m.yml:1: c"}}
			},
			ready: true, lines: []string{"degraded: mirrors: m.yml:1: c", "degraded: overrides: o.yml:1: a; o.yml:2: b"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := well
			if tt.change != nil {
				tt.change(&s)
			}
			if ready, lines := s.Readiness(now); ready != tt.ready || !slices.Equal(lines, tt.lines) {
				t.Errorf("ready %v,\n%s\nwant %v,\n%s", ready, strings.Join(lines, "\n"), tt.ready, strings.Join(tt.lines, "\n"))
			}
		})
	}
}

// counted is a notifier that has told something.
type counted struct{ audience }

func (*counted) Counts() map[string]notify.Counts {
	return map[string]notify.Counts{"mail": {Told: 5, Dropped: 1, Failures: 2, Waiting: 7}}
}

func TestMetrics(t *testing.T) {
	now := time.Now()
	status := func(h ...state.Health) *state.Status {
		st := &state.Status{Health: map[state.Key]state.Health{}}
		for i, h := range h {
			st.Health[[]state.Key{base9, app9, crb9}[i]] = h
		}
		return st
	}
	ending, disabled, weighted := status(state.Fresh, state.Fresh), status(state.Broken, state.Fresh), status(state.Lagging, state.Lagging)
	ending.Schemes = map[string]*state.Scheme{"https": {TLSExpires: now.Add(20 * 24 * time.Hour)}}
	disabled.Schemes = map[string]*state.Scheme{"https": {TLSExpires: now.Add(22 * 24 * time.Hour)}}
	disabled.Override = &state.Override{Disabled: true}
	weighted.Override = &state.Override{Weight: 7, Until: now.Add(time.Hour)}
	over := status(state.Fresh)
	over.Override = &state.Override{Draining: true, Until: now.Add(-time.Hour)}
	lags := Lags{}
	for _, lag := range []time.Duration{30 * time.Second, 4 * time.Minute, 5 * time.Minute, 25 * time.Hour} {
		lags.add(lag)
	}
	c := &Checker{opts: Options{Notifier: &counted{}}}
	c.standing.Store(&Standing{
		Active: true, Since: now.Add(-time.Hour), Complete: true, Stored: time.Unix(1_700_000_000, 0), WriteErrors: 3,
		Snapshot: &state.Snapshot{
			Mirrors: map[string]*state.Status{
				"ending.example": ending, "disabled.example": disabled, "weighted.example": weighted, "over.example": over,
				"partial.example": status(state.Fresh, state.Absent), "empty.example": status(state.Absent), "new.example": {},
			},
			Truth: map[state.Key]state.Truth{base9: {}, crb9: {Withdrawn: "broken"}},
		},
		Origin: OriginNumbers{Keys: 140, Absent: 2, Troubled: 1, Disputed: 3, Confirmed: time.Unix(1_700_000_100, 0), Publications: 4, Generations: 80, Troubles: 1},
		Visits: 1000, Requests: 50000, Bytes: 123456, UnderWay: 3, Overdue: 2,
		Events: map[string]uint64{state.HealthChanged: 12}, Lags: lags,
		Problems: map[string][]string{"overrides": {"a", "b"}},
	})
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c.Collector())
	page := ask(promhttp.HandlerFor(reg, promhttp.HandlerOpts{}), "GET", "/metrics", here).Body.String()
	for _, want := range []string{
		"active 1", "ready 0", "blind 0",
		`mirrors{health="fresh"} 3`, `mirrors{health="broken"} 1`, `mirrors{health="lagging"} 1`, `mirrors{health="absent"} 1`, `mirrors{health="pending"} 1`, `mirrors{health="down"} 0`,
		`repositories{health="fresh",repo="baseos"} 3`, `repositories{health="broken",repo="baseos"} 1`, `repositories{health="absent",repo="appstream"} 1`,
		`propagation_lag_seconds_bucket{le="60"} 1`, `propagation_lag_seconds_bucket{le="120"} 1`, `propagation_lag_seconds_bucket{le="300"} 3`,
		`propagation_lag_seconds_bucket{le="86400"} 3`, `propagation_lag_seconds_bucket{le="+Inf"} 4`, "propagation_lag_seconds_sum 90570", "propagation_lag_seconds_count 4",
		"origin_confirmed_timestamp_seconds 1.7000001e+09", `origin_repositories{state="troubled"} 1`, `origin_repositories{state="disputed"} 3`, `origin_repositories{state="all"} 140`,
		"publications_total 4", "generations_total 80", "origin_troubles_total 1",
		"visits_total 1000", "requests_total 50000", "received_bytes_total 123456", "visits_under_way 3", "visits_overdue 2",
		`events_total{kind="health"} 12`, `events_total{kind="tls"} 0`,
		"stored_timestamp_seconds 1.7e+09", "write_errors_total 3", "certificates_ending 1",
		`overrides{decision="disabled"} 1`, `overrides{decision="weight"} 1`, `overrides{decision="draining"} 0`, `overrides{decision="withdrawn from all"} 1`,
		`problems{input="overrides"} 2`,
		`notifications_total{outcome="told",way="mail"} 5`, `notifications_total{outcome="dropped",way="mail"} 1`, `notification_failures_total{way="mail"} 2`, `notifications_waiting{way="mail"} 7`,
	} {
		if !strings.Contains(page, "\nmeridian_checker_"+want+"\n") {
			t.Errorf("the page has no %q", want)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
	for name := range c.Standing().Snapshot.Mirrors {
		if strings.Contains(page, name) {
			t.Errorf("metrics name the mirror %s", name)
		}
	}

	// One that stands by knows nothing of the network.
	c.standing.Store(&Standing{Since: now, Network: &schema.Network{}})
	page = ask(promhttp.HandlerFor(reg, promhttp.HandlerOpts{}), "GET", "/metrics", here).Body.String()
	if !strings.Contains(page, "\nmeridian_checker_active 0\n") || !strings.Contains(page, "\nmeridian_checker_ready 1\n") || strings.Contains(page, "meridian_checker_mirrors{") {
		t.Errorf("standing by:\n%s", page)
	}
}

// The listener as it is met by clients that are not well-behaved, and its end.
func TestServe(t *testing.T) {
	c := &Checker{log: slog.New(slog.DiscardHandler)}
	c.standing.Store(&Standing{Network: &schema.Network{}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- c.Serve(ctx, ln, ListenOptions{Secret: listenSecret}) }()
	send := func(text string) *http.Response {
		t.Helper()
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%.60s: %v", text, err)
		}
		return resp
	}
	if resp := send("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("before it has begun: %s", resp.Status)
	}
	if resp := send("GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2*maxListenHeader) + "\r\n\r\n"); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("an endless header: %s", resp.Status)
	}
	// What a hint has as its body is not waited for.
	if resp := send("POST /api/v1/mirrors/a/synced HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"); resp.StatusCode != http.StatusUnauthorized || !resp.Close {
		t.Errorf("an endless body: %s, connection to be closed: %v", resp.Status, resp.Close)
	}
	cancel()
	if err := <-end; err != nil {
		t.Errorf("the listener ends with %v", err)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("it still listens")
	}
}
