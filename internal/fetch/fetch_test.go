package fetch

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// client returns a client for servers on loopback.
func client(t *testing.T, opts Options) *Client {
	t.Helper()
	opts.AllowPrivate = true
	c := New(opts)
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func server(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// rawServer answers each connection with what answer writes after the request's
// header was read, then closes it. It returns the URL.
func rawServer(t *testing.T, answer func(w io.Writer)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				answer(conn)
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return "http://" + l.Addr().String() + "/"
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGet(t *testing.T) {
	const document = "the document"
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("User-Agent"); got != "meridian-test/1" {
			t.Errorf("User-Agent is %q", got)
		}
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/here", http.StatusFound)
		case "/here":
			if ref := r.Header.Get("Referer"); ref != "" {
				t.Errorf("Referer %q tells the next host where we came from", ref)
			}
			w.Header().Set("Etag", `"one"`)
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			if r.Header.Get("If-None-Match") == `"one"` && r.Header.Get("If-Modified-Since") != "" {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			io.WriteString(w, document)
		default:
			http.NotFound(w, r)
		}
	})
	c := client(t, Options{UserAgent: "meridian-test/1"})

	first, err := c.Get(t.Context(), url+"/moved", Validators{})
	if err != nil {
		t.Fatal(err)
	}
	if first.Status != 200 || string(first.Body) != document {
		t.Errorf("got status %d, body %q", first.Status, first.Body)
	}
	if first.URL != url+"/here" || len(first.Redirects) != 1 || first.Redirects[0] != url+"/moved" {
		t.Errorf("final URL %s after %q", first.URL, first.Redirects)
	}
	if got := "http://" + first.Remote.String(); got != url {
		t.Errorf("answered by %s, want %s", got, url)
	}

	again, err := c.Get(t.Context(), url+"/here", first.Validators())
	if err != nil {
		t.Fatal(err)
	}
	if again.Status != http.StatusNotModified || len(again.Body) != 0 {
		t.Errorf("unchanged document: status %d, body %q", again.Status, again.Body)
	}

	missing, err := c.Get(t.Context(), url+"/missing", Validators{})
	if err != nil || missing.Status != 404 || len(missing.Body) == 0 {
		t.Errorf("a 404 is an answer: got %+v, %v", missing, err)
	}
}

func TestBodyEncodings(t *testing.T) {
	const text = "[\"192.0.2.0/24\"]"
	for _, tt := range []struct {
		name     string
		ask      bool
		encoding string
		body     []byte
		want     string
		err      string
	}{
		{name: "plain although gzip was asked for", ask: true, body: []byte(text), want: text},
		{name: "gzip that was asked for", ask: true, encoding: "gzip", body: gzipped(t, []byte(text)), want: text},
		{name: "gzip by its old name", ask: true, encoding: "X-Gzip", body: gzipped(t, []byte(text)), want: text},
		{name: "gzip that was not asked for stays as it is", encoding: "gzip", body: gzipped(t, []byte(text)), want: string(gzipped(t, []byte(text)))},
		{name: "an encoding nobody asked for", ask: true, encoding: "br", body: []byte(text), err: `encoding "br"`},
		{name: "two encodings", ask: true, encoding: "gzip, gzip", body: gzipped(t, gzipped(t, []byte(text))), err: `encoding "gzip, gzip"`},
		{name: "gzip in name only", ask: true, encoding: "gzip", body: []byte(text), err: "gzip body"},
		{name: "gzip that ends early", ask: true, encoding: "gzip", body: gzipped(t, []byte(text))[:20], err: "unexpected EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := server(t, func(w http.ResponseWriter, r *http.Request) {
				if asked := r.Header.Get("Accept-Encoding") == "gzip"; asked != tt.ask {
					t.Errorf("Accept-Encoding is %q", r.Header.Get("Accept-Encoding"))
				}
				if tt.encoding != "" {
					w.Header().Set("Content-Encoding", tt.encoding)
				}
				w.Write(tt.body)
			})
			resp, err := client(t, Options{Gzip: tt.ask}).Get(t.Context(), url, Validators{})
			checkError(t, err, tt.err)
			if tt.err == "" && string(resp.Body) != tt.want {
				t.Errorf("body %q, want %q", resp.Body, tt.want)
			}
		})
	}
}

// checkError fails t unless err contains want, or is nil where want is "".
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Fatalf("unexpected error: %v", err)
	case want != "" && err == nil:
		t.Fatalf("no error, want one with %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Fatalf("error %q, want one with %q", err, want)
	}
}

func TestLyingServers(t *testing.T) {
	endless := func(w io.Writer, chunk []byte) {
		for {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	// What inflates to a thousand times its size, and what inflates to nothing.
	bomb := gzipped(t, make([]byte, 4<<20))
	empty := bytes.Repeat(gzipped(t, nil), 100)

	for _, tt := range []struct {
		name   string
		answer func(w io.Writer)
		is     error
		err    string
		body   int // bytes kept as evidence, at most
	}{
		{
			name:   "an endless body without length",
			answer: func(w io.Writer) { io.WriteString(w, "HTTP/1.1 200 OK\r\n\r\n"); endless(w, make([]byte, 4096)) },
			is:     ErrTooLarge,
			body:   1 << 16,
		},
		{
			name: "an endless chunked body",
			answer: func(w io.Writer) {
				io.WriteString(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
				endless(w, []byte("4\r\nabcd\r\n"))
			},
			is:   ErrTooLarge,
			body: 1 << 16,
		},
		{
			name: "a length beyond the limit is refused unread",
			answer: func(w io.Writer) {
				io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\nabc")
			},
			is: ErrTooLarge,
		},
		{
			name: "a gzip bomb",
			answer: func(w io.Writer) {
				fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", len(bomb))
				w.Write(bomb)
			},
			is:   ErrTooLarge,
			body: 1 << 16,
		},
		{
			name: "endless gzip that inflates to nothing",
			answer: func(w io.Writer) {
				io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")
				endless(w, empty)
			},
			is: ErrTooLarge,
		},
		{
			name:   "a body shorter than its length",
			answer: func(w io.Writer) { io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc") },
			is:     io.ErrUnexpectedEOF,
			body:   3,
		},
		{
			name: "two lengths that differ",
			answer: func(w io.Writer) {
				io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd")
			},
			err: "Content-Length",
		},
		{
			name: "a huge header",
			answer: func(w io.Writer) {
				io.WriteString(w, "HTTP/1.1 200 OK\r\nX: ")
				endless(w, bytes.Repeat([]byte("x"), 4096))
			},
			err: "headers exceeded 65536 bytes",
		},
		{
			name: "endless headers",
			answer: func(w io.Writer) {
				io.WriteString(w, "HTTP/1.1 200 OK\r\n")
				endless(w, []byte("X-Y: z\r\n"))
			},
			err: "headers exceeded 65536 bytes",
		},
		{
			name:   "endless interim answers",
			answer: func(w io.Writer) { endless(w, []byte("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n")) },
			err:    "exceeded 65536 bytes",
		},
		{
			name:   "no HTTP at all",
			answer: func(w io.Writer) { io.WriteString(w, "SSH-2.0-OpenSSH_9.2\r\n") },
			err:    "malformed HTTP",
		},
		{
			name:   "a connection that closes without a word",
			answer: func(io.Writer) {},
			is:     io.EOF,
		},
		{
			name:   "a status that ends nothing",
			answer: func(w io.Writer) { io.WriteString(w, "HTTP/1.1 000 OK\r\n\r\nabc") },
			err:    "status 0",
		},
		{
			name:   "a change of protocol",
			answer: func(w io.Writer) { io.WriteString(w, "HTTP/1.1 101 Switching Protocols\r\n\r\nabc") },
			err:    "status 101",
		},
		{
			name:   "a 304 to a request without conditions",
			answer: func(w io.Writer) { io.WriteString(w, "HTTP/1.1 304 Not Modified\r\n\r\n") },
			err:    "status 304",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := client(t, Options{MaxBytes: 1 << 16, Gzip: true})
			resp, err := c.Get(t.Context(), rawServer(t, tt.answer), Validators{})
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Fatalf("error %v, want %v", err, tt.is)
			}
			if tt.is == nil {
				checkError(t, err, tt.err)
			}
			if resp == nil {
				return
			}
			if len(resp.Body) > tt.body || tt.body > 0 && len(resp.Body) == 0 {
				t.Errorf("%d bytes kept, want some and at most %d", len(resp.Body), tt.body)
			}
			if !resp.Remote.IsValid() || resp.Header == nil {
				t.Errorf("evidence without address or header: %+v", resp)
			}
		})
	}
}

func TestBodyAtTheLimitIsWhole(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 1000)
	url := server(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(body) })
	resp, err := client(t, Options{MaxBytes: 1000}).Get(t.Context(), url, Validators{})
	if err != nil || !bytes.Equal(resp.Body, body) {
		t.Errorf("a body of exactly MaxBytes: %v", err)
	}
	if _, err := client(t, Options{MaxBytes: 999}).Get(t.Context(), url, Validators{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a body of MaxBytes+1: %v, want ErrTooLarge", err)
	}
}

func TestTimeoutCoversTheBody(t *testing.T) {
	// The body drips for as long as anybody listens; only the deadline ends it.
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(time.Millisecond):
			}
		}
	})
	_, err := client(t, Options{Timeout: 200 * time.Millisecond}).Get(t.Context(), url, Validators{})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v, want the deadline", err)
	}
	checkError(t, err, "no whole answer within 200ms")
}

func TestCallerCancels(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if _, err := client(t, Options{}).Get(ctx, url, Validators{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestRedirects(t *testing.T) {
	// N redirects lead to /0, which answers.
	h := func(w http.ResponseWriter, r *http.Request) {
		var n int
		fmt.Sscanf(r.URL.Path, "/%d", &n)
		switch {
		case r.URL.Path == "/credentials":
			w.Header().Set("Location", "http://user:secret@127.0.0.1/")
			w.WriteHeader(http.StatusMovedPermanently)
		case r.URL.Path == "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case r.URL.Query().Has("to"):
			w.Header().Set("Location", r.URL.Query().Get("to"))
			w.WriteHeader(http.StatusMovedPermanently)
		case n > 0:
			http.Redirect(w, r, fmt.Sprintf("/%d", n-1), http.StatusTemporaryRedirect)
		}
	}
	plain := server(t, h)
	secure := httptest.NewTLSServer(http.HandlerFunc(h))
	t.Cleanup(secure.Close)
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())

	for _, tt := range []struct {
		name string
		max  int
		url  string
		hops int
		err  string
	}{
		{name: "three are followed", url: plain + "/3", hops: 3},
		{name: "a fourth is not", url: plain + "/4", hops: 4, err: "more than 3 redirects"},
		{name: "a loop ends", url: plain + "/loop", hops: 4, err: "more than 3 redirects"},
		{name: "none when none are wanted", max: -1, url: plain + "/1", hops: 1, err: "more than 0 redirects"},
		{name: "http to https", url: plain + "/?to=" + secure.URL, hops: 1},
		{name: "https to https", url: secure.URL + "/2", hops: 2},
		{name: "https to http", url: secure.URL + "/?to=" + plain, hops: 1, err: "from https to http"},
		{name: "to a file", url: plain + "/?to=file:///etc/passwd", hops: 1, err: `scheme "file"`},
		{name: "to a URL with credentials", url: plain + "/credentials", hops: 1, err: "credentials"},
		{name: "to no URL", url: plain + "/?to=http://%2501", err: "Location"},
		{name: "from credentials", url: "http://user:secret@127.0.0.1/", err: "credentials"},
		{name: "no URL, but credentials", url: "http://user:secret@127.0.0.1:port/", err: "not a URL: invalid port"},
		{name: "without scheme", url: "127.0.0.1/list.json", err: "write http or https"},
		{name: "another scheme", url: "ftp://127.0.0.1/list.json", err: "write http or https"},
		{name: "without host", url: "http:///list.json", err: "names no host"},
		{name: "too long", url: plain + "/" + strings.Repeat("x", maxURLBytes), err: "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := client(t, Options{MaxRedirects: tt.max, RootCAs: roots}).Get(t.Context(), tt.url, Validators{})
			checkError(t, err, tt.err)
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("error %q shows the password", err)
			}
			if tt.hops > 0 && (resp == nil || len(resp.Redirects) != tt.hops) {
				t.Errorf("got %+v, want %d redirects", resp, tt.hops)
			}
		})
	}
}

func TestCertificatesAreVerified(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it will tell that we hung up
	s.StartTLS()
	t.Cleanup(s.Close)
	_, err := client(t, Options{}).Get(t.Context(), s.URL, Validators{})
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		t.Errorf("error %v, want an unknown authority", err)
	}
}

// The limits are tested with HTTP/1; a server that has HTTP/2 too is not asked for
// it.
func TestOnlyHTTP1IsSpoken(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Proto)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	resp, err := client(t, Options{RootCAs: roots}).Get(t.Context(), s.URL, Validators{})
	if err != nil || string(resp.Body) != "HTTP/1.1" {
		t.Errorf("answered %+v, %v; want HTTP/1.1", resp, err)
	}
}

func TestNoProxy(t *testing.T) {
	// Seen in the transport: proxies of the environment are never used for
	// loopback, and are read once per process.
	for _, transport := range New(Options{}).hosts.newHost("mirror.example.org").transports {
		if transport.Proxy != nil {
			t.Error("a proxy would resolve names and connect in our place")
		}
	}
}

func TestPrivateAddressesAreRefused(t *testing.T) {
	var reached atomic.Int32
	url := server(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
	c := New(Options{})
	for _, target := range []string{
		url,
		"http://localhost:" + port, // a name: what it resolves to counts
		"http://[::ffff:127.0.0.1]:" + port,
		"http://0.0.0.0:" + port,
		"http://[::]:" + port,
		"http://10.255.255.1/",
		"http://169.254.169.254/latest/meta-data/",
		"http://[fe80::1]/",
	} {
		resp, err := c.Get(t.Context(), target, Validators{})
		if !errors.Is(err, ErrPrivate) || resp != nil {
			t.Errorf("%s: got %+v, %v; want ErrPrivate", target, resp, err)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

func TestRedirectToPrivateAddressIsRefused(t *testing.T) {
	var reached atomic.Int32
	inner := server(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	outer, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skipf("no second loopback address to play the public one: %v", err)
	}
	s := httptest.NewUnstartedServer(http.RedirectHandler(inner, http.StatusFound))
	s.Listener.Close()
	s.Listener = outer
	s.Start()
	t.Cleanup(s.Close)

	c := New(Options{})
	t.Cleanup(c.CloseIdleConnections)
	// For this test 127.0.0.2 is the Internet.
	c.permit = func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.2") || Public(a) }
	resp, err := c.Get(t.Context(), s.URL, Validators{})
	if !errors.Is(err, ErrPrivate) {
		t.Errorf("got %+v, %v; want ErrPrivate", resp, err)
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// What a server answers, byte by byte, never costs more than the limits.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"))
	f.Add([]byte("HTTP/0.0 000\r\n\r\n000"))
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 304 Not Modified\r\n\r\n"))
	f.Add(append([]byte("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"), gzipped(f, make([]byte, 1<<20))...))
	f.Fuzz(func(t *testing.T, data []byte) {
		var served sync.WaitGroup
		// A pipe: a real connection for each input would use up all ports.
		dial := func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			served.Go(func() {
				defer theirs.Close()
				if _, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
					theirs.Write(data)
				}
			})
			return ours, nil
		}
		// No redirects: the test talks to nobody, whatever a Location says.
		c := New(Options{MaxRedirects: -1, MaxBytes: 1 << 10, Gzip: true, Dial: dial})
		defer served.Wait()
		defer c.CloseIdleConnections()
		resp, err := c.Get(t.Context(), "http://mirror.example.org/", Validators{ETag: `"x"`})
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an answer that ended kept the request going: %v", err)
		}
		if err == nil && (resp == nil || resp.Status < 200 || resp.Status > 599) {
			t.Errorf("no error and no final answer: %+v", resp)
		}
		if resp != nil && len(resp.Body) > 1<<10 {
			t.Errorf("%d bytes of body", len(resp.Body))
		}
	})
}

func FuzzURL(f *testing.F) {
	f.Add("https://mirror.example.org/subnets.json?x=y#z")
	f.Add("http://user@[::1%25eth0]:80/")
	f.Add("http:opaque")
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := parseURL(raw)
		if err != nil {
			return
		}
		if again, err := parseURL(u.String()); err != nil || again.Host != u.Host {
			t.Errorf("%q is accepted, but what it prints is not: %v", raw, err)
		}
		if u.Host == "" || u.User != nil || !strings.HasPrefix(u.String(), "http") {
			t.Errorf("%q is accepted as %q", raw, u)
		}
	})
}
