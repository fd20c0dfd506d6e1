package fetch

import (
	"container/list"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// connsPerHost is how many connections, and requests, one host has at a time.
	connsPerHost = 2

	// maxIdleHosts bounds the hosts that connections are kept to while nothing is
	// asked of them, and with them the idle connections.
	maxIdleHosts = 256

	// makeRoom is how often a connection that may not be made yet looks for an
	// idle one of another scheme or family that can be closed for it.
	makeRoom = 20 * time.Millisecond
)

// hosts is the transport of a client: one of http.Transport for each host and
// family, so that limits hold for a host however it is asked.
type hosts struct {
	client *Client
	tls    *tls.Config

	mu     sync.Mutex // guards the rest, and users and idle of each host
	byName map[string]*host
	idle   list.List // of *host without users, the last one used at the front
}

// A host is what is kept of one host name or address.
type host struct {
	name       string
	requests   chan struct{} // one for each that is under way
	conns      chan struct{} // one for each connection that is open, or being made
	transports [3]*http.Transport
	users      int
	idle       *list.Element // nil while there are users
}

func newHosts(c *Client) *hosts {
	return &hosts{client: c, tls: &tls.Config{RootCAs: c.opts.RootCAs}, byName: map[string]*host{}}
}

func (hs *hosts) newHost(name string) *host {
	h := &host{name: name, requests: make(chan struct{}, connsPerHost), conns: make(chan struct{}, connsPerHost)}
	// HTTP/1 only: its limits on headers and bodies are the ones tested here.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	for f := range h.transports {
		h.transports[f] = &http.Transport{
			Proxy:                  nil, // never one from the environment: it would resolve names for us
			DialContext:            hs.client.dialer(h, Family(f)),
			TLSClientConfig:        hs.tls,
			TLSHandshakeTimeout:    connectTimeout,
			Protocols:              protocols,
			DisableCompression:     true, // done in read, where it can be bounded
			DisableKeepAlives:      Family(f) != AnyFamily,
			MaxResponseHeaderBytes: maxHeaderBytes,
			MaxConnsPerHost:        connsPerHost,
			MaxIdleConnsPerHost:    connsPerHost,
			IdleConnTimeout:        idleTimeout,
		}
	}
	return h
}

// RoundTrip makes one hop of a request, when it is its turn.
func (hs *hosts) RoundTrip(req *http.Request) (*http.Response, error) {
	h := hs.get(strings.ToLower(req.URL.Hostname()))
	ctx := req.Context()
	select {
	case h.requests <- struct{}{}:
	case <-ctx.Done():
		hs.put(h)
		return nil, context.Cause(ctx)
	}
	done := sync.OnceFunc(func() {
		<-h.requests
		hs.put(h)
	})
	res, err := h.transports[traceOf(ctx).family].RoundTrip(req)
	if err != nil {
		done()
		return nil, err
	}
	res.Body = &hop{res.Body, done}
	return res, nil
}

// A hop is the body of an answer; when it is closed, the next request may go to
// that host.
type hop struct {
	io.ReadCloser
	done func()
}

func (h *hop) Close() error {
	defer h.done()
	return h.ReadCloser.Close()
}

func (hs *hosts) get(name string) *host {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	h := hs.byName[name]
	if h == nil {
		h = hs.newHost(name)
		hs.byName[name] = h
	}
	if h.idle != nil {
		hs.idle.Remove(h.idle)
		h.idle = nil
	}
	h.users++
	return h
}

// put ends a use of h. The host that was left alone the longest is forgotten
// when there are too many.
func (hs *hosts) put(h *host) {
	hs.mu.Lock()
	h.users--
	var oldest *host
	if h.users == 0 {
		h.idle = hs.idle.PushFront(h)
		if hs.idle.Len() > maxIdleHosts {
			oldest = hs.idle.Remove(hs.idle.Back()).(*host)
			delete(hs.byName, oldest.name)
		}
	}
	hs.mu.Unlock()
	if oldest != nil {
		oldest.closeIdle()
	}
}

func (hs *hosts) closeIdle() {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	for _, h := range hs.byName {
		h.closeIdle()
	}
}

func (h *host) closeIdle() {
	for _, t := range h.transports {
		t.CloseIdleConnections()
	}
}

// acquire waits until h may have one more connection. Idle ones, which are of
// another scheme or family, give way.
func (h *host) acquire(ctx context.Context) error {
	for {
		select {
		case h.conns <- struct{}{}:
			return nil
		default:
			h.closeIdle()
		}
		select {
		case h.conns <- struct{}{}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(makeRoom):
		}
	}
}

// dialer returns what connects to h.
func (c *Client) dialer(h *host, f Family) func(ctx context.Context, network, address string) (net.Conn, error) {
	dial := c.opts.Dial
	if dial == nil {
		dial = c.dial
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		if err := h.acquire(ctx); err != nil {
			return nil, err
		}
		raw := c.dialApart(ctx, dial, network+f.suffix(), address)
		var err error
		if raw == nil {
			raw, err = dial(ctx, network+f.suffix(), address)
		}
		if err != nil {
			<-h.conns
			return nil, err
		}
		conn := &conn{Conn: raw, closed: sync.OnceFunc(func() { <-h.conns })}
		if remote := conn.remote(); remote.IsValid() && !c.permit(remote.Addr()) {
			conn.Close()
			return nil, private(remote.Addr())
		}
		traceOf(ctx).dialed(conn)
		return conn, nil
	}
}

// dial connects over the system's network. Names are resolved by Options.Lookup;
// their addresses share the time there is, in the order in which it gives them.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{ControlContext: c.control}
	host, port, err := net.SplitHostPort(address)
	if err != nil || !c.ownLookup || net.ParseIP(host) != nil {
		return d.DialContext(ctx, network, address) // which knows more ways to try several addresses
	}
	all, err := c.opts.Lookup(ctx, "ip"+strings.TrimPrefix(network, "tcp"), host)
	if err != nil {
		return nil, err
	}
	first := error(&net.DNSError{Err: "no address", Name: host, IsNotFound: true})
	for i, a := range all {
		each, cancel := ctx, context.CancelFunc(func() {})
		if end, ok := ctx.Deadline(); ok {
			each, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(len(all)-i))
		}
		conn, err := d.DialContext(each, network, net.JoinHostPort(a.Unmap().String(), port))
		cancel()
		if err == nil {
			return conn, nil
		}
		if i == 0 {
			first = err
		}
	}
	return nil, first
}

// dialApart connects to another address of the host than the one that the request
// wants to be apart from; it returns nil if there is none.
func (c *Client) dialApart(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), network, address string) net.Conn {
	from := traceOf(ctx).apart
	host, port, err := net.SplitHostPort(address)
	if !from.IsValid() || err != nil {
		return nil
	}
	all, _ := c.Addresses(ctx, host) // if there is none, to dial says why
	for _, a := range all {
		if a == from || familyOf(a) != familyOf(from) {
			continue
		}
		if conn, err := dial(ctx, network, net.JoinHostPort(a.String(), port)); err == nil {
			return conn
		}
	}
	return nil
}

// control runs between the making of a socket and its connection, when the name
// has become an address for good: a name that resolves differently the second
// time (DNS rebinding) gains nothing.
func (c *Client) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !c.permit(ap.Addr()) {
		return private(ap.Addr())
	}
	return nil
}

func private(a netip.Addr) error { return fmt.Errorf("%s: %w", a, ErrPrivate) }

// A conn counts what it receives, and tells its host when it is closed.
type conn struct {
	net.Conn
	received atomic.Int64
	closed   func()
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(int64(n))
	return n, err
}

func (c *conn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

// remote is invalid for what is no TCP connection.
func (c *conn) remote() netip.AddrPort {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
