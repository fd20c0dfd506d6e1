package mirrorlist

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
)

// serveOne asks a handler for one page, from an address, with headers.
func serveOne(h http.Handler, method, target, from string, headers map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr = from
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAdminRoutes(t *testing.T) {
	routes := []string{"GET /healthz", "GET /readyz", "GET /metrics", "POST /-/reload"}
	split := func(route string) (method, path string) {
		method, path, _ = strings.Cut(route, " ")
		return method, path
	}
	t.Run("with admin_listen they are only there", func(t *testing.T) {
		st := startIn(t, newFiles(t, 1), func(o *Options) { o.Config.AdminListen = "127.0.0.1:0" })
		public, admin := st.Handlers()
		for _, route := range routes {
			method, path := split(route)
			if w := serveOne(public, method, path, "127.0.0.1:1", nil); w.Code != http.StatusNotFound {
				t.Errorf("%s on the public listener: %d %s", route, w.Code, w.Body)
			}
			// Whoever reaches it is an administrator.
			if w := serveOne(admin, method, path, "192.0.2.1:1", nil); w.Code != http.StatusOK {
				t.Errorf("%s on the admin listener: %d %s", route, w.Code, w.Body)
			}
		}
		if w := serveOne(admin, "GET", "/mirrorlist/9/baseos", "127.0.0.1:1", nil); w.Code != http.StatusNotFound {
			t.Errorf("a list on the admin listener: %d", w.Code)
		}
		if st.main == st.admin {
			t.Error("both listeners have one address")
		}
		if body, code := st.get(st.admin + "/readyz"); code != http.StatusOK || body != "ready\n" {
			t.Errorf("/readyz at its own address: %d %q", code, body)
		}
	})
	t.Run("without admin_listen they are for this host", func(t *testing.T) {
		st := startIn(t, newFiles(t, 1), func(o *Options) { o.Config.ClientHeader = "CF-Connecting-IP" })
		public, _ := st.Handlers()
		for _, tt := range []struct {
			name    string
			from    string
			headers map[string]string
			allowed bool
		}{
			{"from loopback", "127.0.0.1:1", nil, true},
			{"from IPv6 loopback", "[::1]:1", nil, true},
			{"from mapped loopback", "[::ffff:127.0.0.1]:1", nil, true},
			{"from elsewhere", "192.0.2.1:1", nil, false},
			{"from a neighbour", "10.0.0.1:1", nil, false},
			{"through a proxy", "127.0.0.1:1", map[string]string{"X-Forwarded-For": "127.0.0.1"}, false},
			{"through a proxy that says so otherwise", "127.0.0.1:1", map[string]string{"Forwarded": "for=127.0.0.1"}, false},
			{"through nginx", "127.0.0.1:1", map[string]string{"X-Real-IP": "127.0.0.1"}, false},
			{"through a proxy that only signs", "127.0.0.1:1", map[string]string{"Via": "1.1 proxy"}, false},
			{"through the configured proxy", "127.0.0.1:1", map[string]string{"CF-Connecting-IP": "127.0.0.1"}, false},
			{"from a web page", "127.0.0.1:1", map[string]string{"Origin": "https://evil.example"}, false},
			{"from a web page without origin", "127.0.0.1:1", map[string]string{"Sec-Fetch-Site": "cross-site"}, false},
		} {
			for _, route := range []string{"POST /-/reload", "GET /metrics"} {
				method, path := split(route)
				w := serveOne(public, method, path, tt.from, tt.headers)
				if want := map[bool]int{true: http.StatusOK, false: http.StatusForbidden}[tt.allowed]; w.Code != want {
					t.Errorf("%s %s: %d, want %d: %s", route, tt.name, w.Code, want, w.Body)
				}
			}
			if w := serveOne(public, "GET", "/healthz", tt.from, tt.headers); w.Code != http.StatusOK {
				t.Errorf("/healthz %s: %d", tt.name, w.Code)
			}
		}
		if w := serveOne(public, "GET", "/-/reload", "127.0.0.1:1", nil); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") == "" {
			t.Errorf("GET /-/reload: %d, Allow %q", w.Code, w.Header().Get("Allow"))
		}
	})
	t.Run("a reload says what is wrong, to administrators alone", func(t *testing.T) {
		st := startIn(t, newFiles(t, 2), nil)
		st.write("mirrors.d/bad.yml", "name: [\n")
		public, _ := st.Handlers()
		w := serveOne(public, "POST", "/-/reload", "127.0.0.1:1", nil)
		if w.Code != http.StatusUnprocessableEntity || !strings.HasPrefix(w.Body.String(), "reloaded, except: degraded: mirrors: ") || !strings.Contains(w.Body.String(), "bad.yml:1: ") {
			t.Errorf("a reload of a bad file: %d %s", w.Code, w.Body)
		}
		if w := serveOne(public, "GET", "/readyz", "192.0.2.1:1", nil); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "bad.yml") || !strings.Contains(w.Body.String(), "degraded") {
			t.Errorf("/readyz for a stranger: %d %s", w.Code, w.Body)
		}
	})
}

func TestRequestsAreBoundedPerClientNetwork(t *testing.T) {
	clock := new(atomic.Int64)
	at := func() time.Time { return time.Unix(1_800_000_000, clock.Load()) }
	opts, _ := optionsFor(t, newFiles(t, 2))
	opts.Config.RequestsPerSecond = 2
	opts.Now = at
	s, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	h, _ := s.Handlers()
	limited := []string{
		"/api/v1/explain?version=9&repo=baseos", "/api/v1/mirrors", "/api/v1/mirrors/m1.example.org", "/api/v1/network",
		"/debug/json/ip_info", "/debug/json/nearest_mirrors", "/debug/json/all_mirrors", "/debug/html/all",
	}
	// Each from a network of its own; the last part of the address does not count.
	for i, target := range limited {
		for n := range 8 { // four seconds' worth
			if w := serveOne(h, "GET", target, fmt.Sprintf("192.0.%d.%d:1", i, n+1), nil); w.Code != http.StatusOK {
				t.Fatalf("%s, request %d: %d %s", target, n+1, w.Code, w.Body)
			}
		}
		w := serveOne(h, "GET", target, fmt.Sprintf("192.0.%d.99:1", i), nil)
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "too many requests from your network: ask again in a second") {
			t.Errorf("%s, once too often: %d, Retry-After %q: %s", target, w.Code, w.Header().Get("Retry-After"), w.Body)
		}
		// Who may ask no more of these may ask for lists.
		for _, list := range []string{"/mirrorlist/9/baseos", "/mirrorlist?repo=baseos-9", "/isolist/9/x86_64"} {
			for range 20 {
				if w := serveOne(h, "GET", list, fmt.Sprintf("192.0.%d.1:1", i), nil); w.Code != http.StatusOK {
					t.Fatalf("%s: %d %s", list, w.Code, w.Body)
				}
			}
		}
	}
	clock.Add(int64(500 * time.Millisecond))
	if w := serveOne(h, "GET", limited[0], "192.0.0.1:1", nil); w.Code != http.StatusOK {
		t.Errorf("half a second later: %d", w.Code)
	}
	if w := serveOne(h, "GET", limited[0], "192.0.0.1:1", nil); w.Code != http.StatusTooManyRequests {
		t.Errorf("twice in half a second: %d", w.Code)
	}
	clock.Add(int64(-time.Hour)) // a clock that is set back takes nothing away and gives nothing
	if w := serveOne(h, "GET", limited[0], "192.0.0.1:1", nil); w.Code != http.StatusTooManyRequests {
		t.Errorf("after the clock was set back: %d", w.Code)
	}
}

func TestLimiterHasNoBoundWhenTheRateIsNegative(t *testing.T) {
	l := newLimiter(-1)
	for range 1000 {
		if !l.allow(1, time.Unix(1, 0)) {
			t.Fatal("refused")
		}
	}
	l.setRate(0.5) // fewer than one in the whole burst would be none at all
	allowed := 0
	for range 10 {
		if l.allow(2, time.Unix(1, 0)) {
			allowed++
		}
	}
	if allowed != 2 {
		t.Errorf("%d of 10 at once at 0.5 a second, want 2", allowed)
	}
}

func TestPanicIsAFailureOfOneRequest(t *testing.T) {
	opts, log := optionsFor(t, newFiles(t, 1))
	s, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	r := s.engine()
	s.get(r, "/early", func(*gin.Context) error { panic("before the answer") })
	s.get(r, "/late", func(c *gin.Context) error {
		c.String(http.StatusOK, "half an ")
		c.Writer.Flush()
		panic("within the answer")
	})
	s.get(r, "/fails", func(*gin.Context) error { return errors.New("the disk is on fire") })
	server := httptest.NewServer(r)
	defer server.Close()
	for _, path := range []string{"/early", "/fails"} {
		resp, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusInternalServerError || string(body) != "internal error\n" {
			t.Errorf("%s: %d %q, want a bare 500", path, resp.StatusCode, body)
		}
	}
	resp, err := http.Get(server.URL + "/late")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("half an answer looked like a whole one")
	}
	for _, want := range []string{`path=/early err="before the answer"`, `path=/late err="within the answer"`, `path=/fails err="the disk is on fire"`, "server_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %s:\n%s", want, log)
		}
	}
}

func TestPortInUse(t *testing.T) {
	for _, admin := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		opts, _ := optionsFor(t, newFiles(t, 1))
		if admin {
			opts.Config.AdminListen = l.Addr().String()
		} else {
			opts.Config.Listen = l.Addr().String()
		}
		s, err := New(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Run(t.Context(), func(string, string) { t.Error("it is ready") })
		wantError(t, err, "another program listens on "+l.Addr().String()+": stop it, or write another address")
	}
}

// dialed is a connection on which a test says what no client would.
type dialed struct {
	net.Conn
	*bufio.Reader
}

func (d dialed) Read(p []byte) (int, error) { return d.Reader.Read(p) }

func dial(t *testing.T, url string) dialed {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	// For a test that would never end.
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return dialed{conn, bufio.NewReader(conn)}
}

func (d dialed) say(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(d.Conn, text); err != nil {
		t.Fatal(err)
	}
}

func (d dialed) answer(t *testing.T) (code int, body string) {
	t.Helper()
	resp, err := http.ReadResponse(d.Reader, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("no whole answer: %v", err)
	}
	return resp.StatusCode, string(b)
}

func TestStopDrains(t *testing.T) {
	st := startIn(t, newFiles(t, 3), nil)
	// One client in the middle of its request, and one that has not read the answer
	// to its own: which is on its way, since the server answers in order.
	slow, idle := dial(t, st.main), dial(t, st.main)
	slow.say(t, "GET /mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\n")
	idle.say(t, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	if code, _ := idle.answer(t); code != http.StatusOK {
		t.Fatalf("the first answer: %d", code)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- st.stop() }()
	until(t, "no new connection", func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(st.main, "http://"))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	select {
	case err := <-stopped:
		t.Fatalf("the server has stopped in the middle of a request: %v", err)
	default:
	}
	slow.say(t, "Connection: keep-alive\r\n\r\n")
	if code, body := slow.answer(t); code != http.StatusOK || strings.Count(body, "\n") != 2 {
		t.Errorf("the answer after the stop: %d %q", code, body)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the idle connection: %v, want it closed", err)
	}
}

// A client that never reads its answer cannot keep the server from stopping, nor
// make its stop a failure.
func TestStopDoesNotWaitForever(t *testing.T) {
	st := startIn(t, newFiles(t, 1), func(o *Options) { o.Timeouts.Drain = time.Nanosecond })
	c := dial(t, st.main)
	c.say(t, "GET /mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\n")
	until(t, "the connection is accepted", func() bool {
		_, code := st.get(st.main + "/healthz") // after c in the queue of the listener
		return code == http.StatusOK
	})
	if err := st.stop(); err != nil {
		t.Errorf("Run: %v, want nil", err)
	}
	if !strings.Contains(st.log.String(), "requests were cut off") {
		t.Errorf("the log does not say that requests were cut off:\n%s", st.log)
	}
}

func TestReloadDuringAStopIsAnswered(t *testing.T) {
	st := startIn(t, newFiles(t, 1), nil)
	if err := st.stop(); err != nil {
		t.Fatal(err)
	}
	if err := st.Reload(t.Context(), true); !errors.Is(err, errStopped) {
		t.Errorf("Reload after Run: %v, want %v", err, errStopped)
	}
	public, _ := st.Handlers()
	if w := serveOne(public, "POST", "/-/reload", "127.0.0.1:1", nil); !strings.Contains(w.Body.String(), "the server is stopping") {
		t.Errorf("a reload during the stop: %d %s", w.Code, w.Body)
	}
}

// Each timeout cuts off who is too slow, and nobody else.
func TestSlowClientsAreCutOff(t *testing.T) {
	st := startIn(t, newFiles(t, 2), func(o *Options) {
		o.Timeouts = Timeouts{Header: 150 * time.Millisecond, Read: 300 * time.Millisecond, Idle: 200 * time.Millisecond}
	})
	// A test that is held up itself for as long is cut off by right, and asks again.
	answered := func(t *testing.T, request string) (c dialed) {
		t.Helper()
		until(t, "an answer", func() bool {
			c = dial(t, st.main)
			io.WriteString(c.Conn, request)
			resp, err := http.ReadResponse(c.Reader, nil)
			if err != nil || resp.StatusCode == http.StatusRequestTimeout {
				return false
			}
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("status %d", resp.StatusCode)
			}
			_, err = io.Copy(io.Discard, resp.Body)
			return err == nil
		})
		return c
	}
	t.Run("a header that drips", func(t *testing.T) {
		c := dial(t, st.main)
		io.WriteString(c.Conn, "GET /mirrorlist/9/baseos HTTP/1.1\r\n") // if it is not too late already
		go func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(c.Conn, "X-%d: y\r\n", i); err != nil {
					return // as it should be
				}
				<-tick.C
			}
		}()
		// Either a reset or an answer that says so: never a wait for the rest.
		resp, err := http.ReadResponse(c.Reader, nil)
		if err == nil && resp.StatusCode != http.StatusRequestTimeout && resp.StatusCode != http.StatusBadRequest {
			t.Errorf("half a header was answered with %s", resp.Status)
		}
	})
	t.Run("a body that never comes", func(t *testing.T) {
		c := answered(t, "GET /mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the connection is open still")
		}
	})
	t.Run("a connection without requests", func(t *testing.T) {
		c := answered(t, "GET /mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the idle connection: %v, want it closed", err)
		}
	})
}

func TestTimeoutsHaveDefaults(t *testing.T) {
	got := Timeouts{Read: time.Second}.withDefaults()
	want := Timeouts{headerTimeout, time.Second, writeTimeout, idleTimeout, drainTimeout}
	if got != want {
		t.Errorf("withDefaults = %+v, want %+v", got, want)
	}
}

// hostile is what no good client sends, in one connection each. want are the
// statuses of the answers, in order, after which the connection is closed or can
// be used on.
var hostile = []struct {
	name string
	text string
	want []int
	open bool // after the last answer the connection serves the next request
}{
	{"a header of 1 MB", "GET /mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", []int{431}, false},
	{"a header of a hundred thousand lines", "GET /mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 100_000) + "\r\n", []int{431}, false},
	{"a URL of 1 MB", "GET /mirrorlist/9/" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n", []int{431}, false},
	{"a URL of 10 kB", "GET /mirrorlist/9/" + strings.Repeat("x", 10<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", []int{404}, true},
	{"garbage", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 nobody speaks TLS here\r\n\r\n", []int{400}, false},
	{"a request, and garbage behind it", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n\x00\x01\x02\x03\r\n\r\n", []int{200, 400}, false},
	{"a hundred requests at once", strings.Repeat("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 100), repeatCode(200, 100), true},
	{"no Host", "GET /healthz HTTP/1.1\r\n\r\n", []int{400}, false},
	{"two Hosts", "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", []int{400}, false},
	{"a Host with a blank", "GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", []int{400}, false},
	{"two lengths", "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", []int{400}, false},
	{"a negative length", "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", []int{400}, false},
	{"a length with a sign", "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\nabcd", []int{400}, false},
	{"an encoding that nobody knows", "GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", []int{501}, false},
	{"two encodings", "GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", []int{501}, false},
	{"a blank before the colon", "GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", []int{400}, false},
	{"a folded header", "GET /healthz HTTP/1.1\r\n Host: x\r\n\r\n", []int{400}, false},
	{"a null byte in the URL", "GET /mirrorlist/9/base\x00os HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}, false},
	{"an escaped null byte", "GET /mirrorlist/9/base%00os HTTP/1.1\r\nHost: x\r\n\r\n", []int{404}, true},
	{"a null byte in a header", "GET /healthz HTTP/1.1\r\nHost: x\r\nUser-Agent: a\x00b\r\n\r\n", []int{400}, false},
	{"an escape that is none", "GET /mirrorlist/%zz/baseos HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}, false},
	{"a URL with a host", "GET http://elsewhere.example/mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\n\r\n", []int{200}, true},
	{"an asterisk", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", []int{200}, true},
	{"a tunnel", "CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: elsewhere.example:443\r\n\r\n", []int{404}, true},
	{"HTTP/1.0", "GET /mirrorlist/9/baseos HTTP/1.0\r\n\r\n", []int{200}, false},
	{"HTTP/1.0 that stays", "GET /mirrorlist/9/baseos HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", []int{200}, true},
	{"HTTP/0.9", "GET /mirrorlist/9/baseos\r\n\r\n", []int{400}, false},
	{"HTTP/9.9", "GET /mirrorlist/9/baseos HTTP/9.9\r\nHost: x\r\n\r\n", []int{505}, false},
	{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{404}, false},
	{"a method of 10 kB", strings.Repeat("X", 10<<10) + " /healthz HTTP/1.1\r\nHost: x\r\n\r\n", []int{405}, true},
	{"climbing out", "GET /mirrorlist/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", []int{404}, true},
	{"a body that is small", "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", []int{200}, true},
}

func repeatCode(code, n int) []int {
	var out []int
	for range n {
		out = append(out, code)
	}
	return out
}

func TestHostileRequests(t *testing.T) {
	st := startIn(t, newFiles(t, 3), nil)
	for _, tt := range hostile {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, st.main)
			go io.WriteString(c.Conn, tt.text) // the server may answer before it has read all
			for i, want := range tt.want {
				if code, body := c.answer(t); code != want {
					t.Fatalf("answer %d: %d, want %d: %.200s", i+1, code, want, body)
				}
			}
			if !tt.open {
				if n, err := c.Read(make([]byte, 1)); err == nil || n > 0 {
					t.Errorf("the connection is open still")
				}
			} else {
				c.say(t, "GET /mirrorlist/9/appstream HTTP/1.1\r\nHost: x\r\n\r\n")
				if code, body := c.answer(t); code != http.StatusOK || !strings.Contains(body, "AppStream") {
					t.Errorf("the next request: %d %s", code, body)
				}
			}
			if list := st.list("/mirrorlist/9/baseos"); len(list) != 3 {
				t.Errorf("after it a list is %q", list)
			}
		})
	}
}

// What two servers in a row could read as different requests is read here as one,
// or ends the connection: what follows is never answered as a request of its own.
func TestRequestSmuggling(t *testing.T) {
	st := startIn(t, newFiles(t, 3), nil)
	const hidden = "GET /mirrorlist/9/appstream HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, text := range map[string]string{
		"length and chunks: the length would hide a request":   fmt.Sprintf("GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s", 5+len(hidden), hidden),
		"length and chunks: the chunks would hide a request":   fmt.Sprintf("GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden),
		"a body that looks like a request":                     fmt.Sprintf("GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(hidden), hidden),
		"chunks on HTTP/1.0, where there are none":             "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"a chunk whose size has a line feed of its own":        "GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\n\n" + hidden,
		"a chunk whose extension has a line feed of its own":   "GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;\nhello\r\n0\r\n\r\n" + hidden,
		"a body that is larger than what one cares to discard": "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" + strings.Repeat(hidden, 10_000),
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, st.main)
			go func() {
				io.WriteString(c.Conn, text)
				c.Conn.(*net.TCPConn).CloseWrite()
			}()
			answers := 0
			for {
				resp, err := http.ReadResponse(c.Reader, nil)
				if err != nil {
					break
				}
				body, _ := io.ReadAll(resp.Body)
				answers++
				if strings.Contains(string(body), "AppStream") {
					t.Errorf("answer %d is for the hidden request", answers)
				}
			}
			if answers == 0 {
				t.Error("no answer at all")
			}
		})
	}
}

func TestRelativePathsAreRelativeToTheSettings(t *testing.T) {
	cfg := Config{
		Network: "network.yml", SecretFile: "secret", CacheDir: "cache", TLS: TLS{"tls/cert", "/abs/key"},
		State: "dir:state", Stats: "dir:stats", Geo: Geo{"db/city.mmdb", "demo"},
		CloudRanges: map[string]string{"aws": "aws.json", "gcp": "https://example.org/cloud.json", "oci": "/abs/oci.json"},
	}
	got := cfg.Rooted("/etc/meridian")
	for _, tt := range [][3]string{
		{"network", got.Network, "/etc/meridian/network.yml"},
		{"secret_file", got.SecretFile, "/etc/meridian/secret"},
		{"cache_dir", got.CacheDir, "/etc/meridian/cache"},
		{"tls.cert", got.TLS.Cert, "/etc/meridian/tls/cert"},
		{"tls.key", got.TLS.Key, "/abs/key"},
		{"state", got.State, "dir:/etc/meridian/state"},
		{"stats", got.Stats, "dir:/etc/meridian/stats"},
		{"geo.location", got.Geo.Location, "/etc/meridian/db/city.mmdb"},
		{"geo.asn", got.Geo.ASN, "demo"},
		{"a cloud's file", got.CloudRanges["aws"], "/etc/meridian/aws.json"},
		{"a cloud's URL", got.CloudRanges["gcp"], "https://example.org/cloud.json"},
		{"a cloud's absolute file", got.CloudRanges["oci"], "/abs/oci.json"},
	} {
		if tt[1] != tt[2] {
			t.Errorf("%s: %s, want %s", tt[0], tt[1], tt[2])
		}
	}
	if cfg.CloudRanges["aws"] != "aws.json" {
		t.Error("the settings that were given have changed")
	}
	if got := (Config{Network: "n", State: "redis://h/0"}).Rooted("/etc"); got.State != "redis://h/0" || got.SecretFile != "" {
		t.Errorf("what is no path has changed: %+v", got)
	}
}

// Nobody but the owner reads what is cached: addresses and lists of mirrors.
func TestCacheIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "cache")
	opts, _ := optionsFor(t, newFiles(t, 1))
	opts.Config.CacheDir = dir
	if _, err := New(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o700 {
		t.Errorf("the cache directory has mode %v", fi.Mode())
	}
}
