package checker

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A memNet is a network in memory: names, addresses, and what listens there. Its
// connections are pipes, so that time may be virtual. Close it before the end of a
// bubble.
type memNet struct {
	mu    sync.Mutex
	names map[string][]netip.Addr
	ports map[netip.AddrPort]func(net.Conn)
	dials []netip.AddrPort   // every connection that was made
	open  map[netip.Addr]int // connections that the client has not closed
	most  int                // of them to one address at a time

	served sync.WaitGroup
	close  []func()
}

func newMemNet(t *testing.T) *memNet {
	t.Helper()
	n := &memNet{names: map[string][]netip.Addr{}, ports: map[netip.AddrPort]func(net.Conn){}, open: map[netip.Addr]int{}}
	t.Cleanup(func() {
		for _, f := range n.close {
			f()
		}
		n.served.Wait()
	})
	return n
}

// host gives a name its addresses.
func (n *memNet) host(name string, addrs ...string) {
	for _, a := range addrs {
		n.names[name] = append(n.names[name], netip.MustParseAddr(a))
	}
}

// listen has every connection to addr, "ADDRESS:PORT", served by f.
func (n *memNet) listen(addr string, f func(net.Conn)) { n.ports[netip.MustParseAddrPort(addr)] = f }

// serve has addr served by a web server, over TLS when there is a certificate.
func (n *memNet) serve(addr string, h http.Handler, cert *tls.Certificate) {
	ln := &memListener{conns: make(chan net.Conn), done: make(chan struct{})}
	s := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	n.close = append(n.close, func() { s.Close() })
	n.served.Go(func() { s.Serve(ln) })
	n.listen(addr, func(c net.Conn) {
		if cert != nil {
			c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}})
		}
		select {
		case ln.conns <- c:
		case <-ln.done:
			c.Close()
		}
	})
}

// Lookup and Dial are those of [ProbeOptions].
func (n *memNet) Lookup(_ context.Context, network, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var of []netip.Addr
	for _, a := range n.names[host] {
		if !strings.HasSuffix(network, "4") && a.Is6() || !strings.HasSuffix(network, "6") && a.Is4() {
			of = append(of, a)
		}
	}
	if len(of) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return of, nil
}

func (n *memNet) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := n.Lookup(ctx, network, host)
	if err != nil {
		return nil, err
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, uint16(p))
		n.mu.Lock()
		f := n.ports[at]
		n.mu.Unlock()
		if f == nil {
			continue
		}
		ours, theirs := net.Pipe()
		n.mu.Lock()
		n.dials = append(n.dials, at)
		n.open[a]++
		n.most = max(n.most, n.open[a])
		n.mu.Unlock()
		n.served.Go(func() { f(theirs) })
		c := &memConn{Conn: ours, to: at, out: make(chan []byte, 64), done: make(chan struct{})}
		c.end = sync.OnceFunc(func() {
			close(c.done)
			n.mu.Lock()
			defer n.mu.Unlock()
			n.open[a]--
		})
		n.served.Go(c.send)
		return c, nil
	}
	return nil, errors.New("connection refused")
}

// A memConn says that it is a TCP connection, and what is written to it is on its
// way: who writes to a pipe waits for its reader, and two who write would wait for
// ever.
type memConn struct {
	net.Conn
	to   netip.AddrPort
	out  chan []byte
	done chan struct{}
	end  func()
}

func (c *memConn) send() {
	for {
		select {
		case b := <-c.out:
			if _, err := c.Conn.Write(b); err != nil {
				return
			}
		case <-c.done:
			return
		}
	}
}

func (c *memConn) Write(p []byte) (int, error) {
	select {
	case <-c.done:
		return 0, net.ErrClosed
	case c.out <- bytes.Clone(p):
		return len(p), nil
	}
}

func (c *memConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.to) }

func (c *memConn) Close() error {
	c.end()
	return c.Conn.Close()
}

// A memListener hands out the connections that are put into it.
type memListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *memListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80} }

// A testCA issues certificates.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newTestCA(t testing.TB) *testCA {
	t.Helper()
	ca := &testCA{}
	ca.cert, ca.key = issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-365 * 24 * time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
	}, nil)
	return ca
}

// pool returns ca as the only authority.
func (ca *testCA) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// certificate returns one for a name, valid for a time from its beginning.
func (ca *testCA) certificate(t testing.TB, name string, begins time.Time, valid time.Duration) *tls.Certificate {
	t.Helper()
	cert, key := issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: begins, NotAfter: begins.Add(valid),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca)
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func issue(t testing.TB, template *x509.Certificate, by *testCA) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// contextFor returns a context of t that ends after d.
func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
