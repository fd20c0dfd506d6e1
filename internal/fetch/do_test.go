package fetch

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meridian/internal/testworld"
)

func TestDo(t *testing.T) {
	const document = "0123456789"
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s %s without the header of the request: %v", r.Method, r.URL, r.Header)
		}
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "/file", http.StatusFound)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(document))
	})
	c := client(t, Options{})
	header := http.Header{"Cache-Control": {"no-cache"}}
	ranged := http.Header{"Cache-Control": {"no-cache"}, "Range": {"bytes=2-4"}}
	var to bytes.Buffer
	for _, tt := range []struct {
		name     string
		r        Request
		status   int
		length   int64
		body     string
		requests int
	}{
		{"a document", Request{Header: header}, 200, 10, document, 1},
		{"its header", Request{Method: "HEAD", Header: header}, 200, 10, "", 1},
		{"a part of it", Request{Header: ranged}, 206, 3, "234", 1},
		{"elsewhere, with the method and the header kept", Request{URL: "/moved", Method: "HEAD", Header: header}, 200, 10, "", 2},
		{"into a writer", Request{Header: header, To: &to}, 200, 10, document, 1},
		{"over IPv4", Request{Header: header, Family: IPv4}, 200, 10, document, 1},
	} {
		tt.r.URL = url + tt.r.URL
		resp, err := c.Do(t.Context(), tt.r)
		if err != nil || resp.Status != tt.status || resp.Length != tt.length || string(resp.Body) != tt.body || resp.Requests != tt.requests {
			t.Errorf("%s: %+v, %v", tt.name, resp, err)
		}
		if resp.Received < int64(100+len(tt.body)) || resp.Received > 1000 {
			t.Errorf("%s: %d bytes received", tt.name, resp.Received)
		}
	}
	if to.String() != document {
		t.Errorf("the writer got %q", to.String())
	}
	if len(header) != 1 {
		t.Errorf("the header of the caller has become %v", header)
	}
}

func TestDoWithoutAnAnswer(t *testing.T) {
	c := client(t, Options{})
	nobody, err := testworld.FreeAddr("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"http://" + nobody, "http://user:secret@127.0.0.1/", "ftp://127.0.0.1/", "http://[::1"} {
		resp, err := c.Do(t.Context(), Request{URL: url})
		if err == nil || resp == nil || resp.Status != 0 || resp.Length != -1 || resp.Requests != 0 {
			t.Errorf("%s: %+v, %v", url, resp, err)
		}
		if resp, _ := c.Get(t.Context(), url, Validators{}); resp != nil {
			t.Errorf("%s: Get returns %+v", url, resp)
		}
	}
}

func TestLimitsOfOneRequest(t *testing.T) {
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
			return
		}
		w.Write(make([]byte, 1000))
	})
	c := client(t, Options{MaxBytes: 1, Timeout: time.Hour})
	if resp, err := c.Do(t.Context(), Request{URL: url, MaxBytes: 1000}); err != nil || len(resp.Body) != 1000 {
		t.Errorf("a larger limit: %v", err)
	}
	if resp, err := c.Do(t.Context(), Request{URL: url, MaxBytes: 999}); !errors.Is(err, ErrTooLarge) || resp.Status != 200 || resp.Length != 1000 {
		t.Errorf("a smaller limit: %+v, %v", resp, err)
	}
	if _, err := c.Do(t.Context(), Request{URL: url + "/slow", Timeout: time.Millisecond}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("less time: %v", err)
	}
	full := errors.New("disk full")
	if _, err := c.Do(t.Context(), Request{URL: url, MaxBytes: 1000, To: failingWriter{full}}); !errors.Is(err, full) {
		t.Errorf("a writer that fails: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// memory is a network of one host, mirror.example.org, whose connections f
// serves.
func memory(f func(net.Conn)) (opts Options, wait func()) {
	var served sync.WaitGroup
	opts.Dial = func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		served.Go(func() {
			defer theirs.Close()
			f(theirs)
		})
		return ours, nil
	}
	return opts, served.Wait
}

func TestPaceOfABody(t *testing.T) {
	for _, tt := range []struct {
		name        string
		chunk       int
		pause       time.Duration
		total       int
		err         error
		least, most time.Duration // that the request takes
	}{
		{name: "twenty bytes a second", chunk: 20, pause: time.Second, total: 10000, err: ErrSlow, least: 10 * time.Second, most: 11 * time.Second},
		{name: "nothing after the header", chunk: 0, pause: time.Second, total: 10000, err: ErrSlow, least: 10 * time.Second, most: 11 * time.Second},
		{name: "fast at first, then nothing", chunk: 15000, pause: time.Hour, total: 20000, err: ErrSlow, least: 15 * time.Second, most: 17 * time.Second},
		{name: "just fast enough", chunk: 1100, pause: time.Second, total: 22000, least: 19 * time.Second, most: 21 * time.Second},
		{name: "slow, but soon at its end", chunk: 20, pause: time.Second, total: 180, least: 8 * time.Second, most: 9 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				done := make(chan struct{})
				opts, wait := memory(func(c net.Conn) {
					io.ReadAtLeast(c, make([]byte, 4096), 1)
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", tt.total)
					for left := tt.total; left > 0; left -= tt.chunk {
						if _, err := c.Write(make([]byte, min(left, tt.chunk))); err != nil {
							return
						}
						select {
						case <-time.After(tt.pause):
						case <-done:
							return
						}
					}
				})
				opts.MinRate, opts.Timeout = 1000, time.Hour
				c := New(opts)
				began := time.Now()
				resp, err := c.Do(t.Context(), Request{URL: "http://mirror.example.org/"})
				took := time.Since(began)
				if !errors.Is(err, tt.err) || took < tt.least || took > tt.most {
					t.Errorf("%v after %v, want %v within %v to %v", err, took, tt.err, tt.least, tt.most)
				}
				if resp.Status != 200 {
					t.Errorf("status %d", resp.Status)
				}
				close(done)
				c.CloseIdleConnections()
				wait()
			})
		})
	}
}

// Who asks one host for much at once waits, and uses the same two connections
// again and again.
func TestConnectionsAreFewAndKept(t *testing.T) {
	var mu sync.Mutex
	var open, most, made int
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		switch state {
		case http.StateNew:
			open++
			made++
			most = max(most, open)
		case http.StateClosed:
			open--
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := client(t, Options{})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, err := c.Do(t.Context(), Request{URL: s.URL}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	if most > connsPerHost || made > connsPerHost {
		t.Errorf("%d connections at a time, %d in all; want at most %d", most, made, connsPerHost)
	}
}

// Hosts that were asked long ago are forgotten, with their connections.
func TestIdleHostsAreBounded(t *testing.T) {
	var mu sync.Mutex
	open := 0
	opts, wait := memory(func(c net.Conn) {
		mu.Lock()
		open++
		mu.Unlock()
		defer func() {
			mu.Lock()
			open--
			mu.Unlock()
		}()
		for {
			if _, err := io.ReadAtLeast(c, make([]byte, 4096), 1); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	c := New(opts)
	for i := range maxIdleHosts + 50 {
		if _, err := c.Do(t.Context(), Request{URL: fmt.Sprintf("http://mirror%d.example.org/", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.hosts.byName); n != maxIdleHosts || c.hosts.idle.Len() != n {
		t.Errorf("%d hosts are kept, %d of them idle; want %d", n, c.hosts.idle.Len(), maxIdleHosts)
	}
	if c.hosts.byName["mirror0.example.org"] != nil {
		t.Error("the host that was asked first is still kept")
	}
	c.CloseIdleConnections()
	wait() // every connection was closed
	if open != 0 {
		t.Errorf("%d connections are open", open)
	}
}

func TestFamilyOfARequest(t *testing.T) {
	var networks []string
	opts := Options{Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
		networks = append(networks, network)
		return nil, errors.New("refused")
	}}
	c := New(opts)
	for _, f := range []Family{AnyFamily, IPv4, IPv6} {
		c.Do(t.Context(), Request{URL: "http://mirror.example.org/", Family: f})
	}
	if got := fmt.Sprint(networks); got != "[tcp tcp4 tcp6]" {
		t.Errorf("networks %s", got)
	}
}

func TestAnotherAddressOfAHost(t *testing.T) {
	for _, tt := range []struct {
		name   string
		all    string // addresses of the host
		apart  string
		down   string // of these
		dialed string
	}{
		{"there is another one", "198.51.100.1 198.51.100.2", "198.51.100.1", "", "tcp4 198.51.100.2:80"},
		{"in whatever order", "198.51.100.2 198.51.100.1", "198.51.100.1", "", "tcp4 198.51.100.2:80"},
		{"there is none", "198.51.100.1", "198.51.100.1", "", "tcp4 mirror.example.org:80"},
		{"there is one of the other family only", "198.51.100.1 2001:db8::1", "198.51.100.1", "", "tcp4 mirror.example.org:80"},
		{"of several IPv6 addresses", "2001:db8::1 198.51.100.1 2001:db8::2", "2001:db8::1", "", "tcp6 [2001:db8::2]:80"},
		{"the next one is down", "198.51.100.1 198.51.100.2 198.51.100.3", "198.51.100.1", "198.51.100.2:80", "tcp4 198.51.100.2:80 tcp4 198.51.100.3:80"},
		{"all others are down", "198.51.100.1 198.51.100.2", "198.51.100.1", "198.51.100.2:80", "tcp4 198.51.100.2:80 tcp4 mirror.example.org:80"},
		{"the name is gone", "", "198.51.100.1", "", "tcp4 mirror.example.org:80"},
		{"nobody wants another one", "198.51.100.1 198.51.100.2", "", "", "tcp mirror.example.org:80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var dialed []string
			opts, wait := memory(func(c net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
				}
			})
			dial := opts.Dial
			opts.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				dialed = append(dialed, network+" "+address)
				if address == tt.down {
					return nil, errors.New("refused")
				}
				return dial(ctx, network, address)
			}
			opts.Lookup = func(context.Context, string, string) (all []netip.Addr, err error) {
				for _, a := range strings.Fields(tt.all) {
					all = append(all, netip.MustParseAddr(a))
				}
				return all, nil
			}
			r := Request{URL: "http://mirror.example.org/"}
			if tt.apart != "" {
				r.Apart = netip.MustParseAddr(tt.apart)
			}
			if _, err := New(opts).Do(t.Context(), r); err != nil {
				t.Error(err)
			}
			wait()
			if got := strings.Join(dialed, " "); got != tt.dialed {
				t.Errorf("dialed %q, want %q", got, tt.dialed)
			}
		})
	}
}

// What dials is not believed to look where to.
// A Lookup without a Dial decides what names mean to connections too, which are
// made to public addresses only, as always.
func TestNamesOfConnectionsAreLookedUp(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) }))
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, addrs string
		family      Family
		strict      bool
		err         string // "": it is reached
	}{
		{name: "the address that was looked up is connected to", addrs: "127.0.0.1"},
		{name: "an IPv4-mapped address is the IPv4 address", addrs: "::ffff:127.0.0.1"},
		{name: "another address is tried when the first does not answer", addrs: "127.0.52.1 127.0.0.1"},
		{name: "the family of the request is what is looked up", addrs: "127.0.0.1", family: IPv4},
		{name: "no address", addrs: "", err: "no address"},
		{name: "a private address is refused", addrs: "127.0.0.1", strict: true, err: ErrPrivate.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := New(Options{AllowPrivate: !tt.strict, Lookup: func(_ context.Context, network, host string) (all []netip.Addr, err error) {
				if want := "ip" + tt.family.suffix(); network != want || host != "mirror.example.org" {
					t.Errorf("%s of %s is looked up, want %s", network, host, want)
				}
				for _, a := range strings.Fields(tt.addrs) {
					all = append(all, netip.MustParseAddr(a))
				}
				return all, nil
			}})
			t.Cleanup(c.CloseIdleConnections)
			resp, err := c.Do(t.Context(), Request{URL: "http://mirror.example.org:" + port + "/", Family: tt.family})
			if tt.err != "" {
				checkError(t, err, tt.err)
			} else if err != nil || string(resp.Body) != "mirror.example.org:"+port {
				t.Errorf("%q, %v", resp.Body, err)
			}
		})
	}
}

func TestDialToPrivateAddressIsRefused(t *testing.T) {
	asked := false
	url := server(t, func(http.ResponseWriter, *http.Request) { asked = true })
	c := New(Options{Dial: new(net.Dialer).DialContext})
	resp, err := c.Do(t.Context(), Request{URL: url})
	if !errors.Is(err, ErrPrivate) || resp.Status != 0 || asked {
		t.Errorf("%+v, %v; asked: %v", resp, err, asked)
	}
}

func TestCertificateOfAnAnswer(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	cert := s.Certificate()
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	c := client(t, Options{RootCAs: roots})
	for i := range 2 { // over a new connection, and over that again
		resp, err := c.Do(t.Context(), Request{URL: s.URL})
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.TLS; got == nil || !got.Expires.Equal(cert.NotAfter) || !got.Begins.Equal(cert.NotBefore) || got.Issuer != "O=Acme Co" || got.Err != nil {
			t.Errorf("request %d: the certificate is %+v", i, got)
		}
		if i == 0 && resp.Received < 1000 || i == 1 && resp.Received > 1000 {
			t.Errorf("request %d: %d bytes; the handshake belongs to the first", i, resp.Received)
		}
	}
}

func TestAddresses(t *testing.T) {
	c := New(Options{Lookup: func(_ context.Context, network, host string) ([]netip.Addr, error) {
		if network != "ip" || host != "mirror.example.org" {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{netip.MustParseAddr("::ffff:198.51.101.1"), netip.MustParseAddr("2001:470::1")}, nil
	}})
	got, err := c.Addresses(t.Context(), "mirror.example.org")
	if err != nil || fmt.Sprint(got) != "[198.51.101.1 2001:470::1]" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := c.Addresses(t.Context(), "other.example.org"); err == nil {
		t.Error("an unknown host has addresses")
	}
	if a := netip.MustParseAddr("10.0.0.1"); c.Permits(a) || !New(Options{AllowPrivate: true}).Permits(a) {
		t.Error("private addresses are permitted to those who allow them")
	}
}

func TestRouted(t *testing.T) {
	c := New(Options{})
	if !c.Routed(netip.MustParseAddr("127.0.0.1")) {
		t.Error("there is no way to this machine")
	}
	// With no public IPv6 address of its own, no machine gets an answer from one.
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	public := false
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		public = public || err == nil && prefix.Addr().Is6() && Public(prefix.Addr())
	}
	if c.Routed(netip.MustParseAddr("2001:4860:4860::8888")) && !public {
		t.Error("there is a way to IPv6 without an address to come from")
	}
	inMemory := New(Options{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }})
	if !inMemory.Routed(netip.MustParseAddr("2001:470::1")) {
		t.Error("a network in memory is asked for its routes")
	}
}
