package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http/httptrace"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A trace follows one request through its hops and connections. The transport
// calls it from goroutines of its own, some of which outlive the request.
type trace struct {
	family Family
	apart  netip.Addr

	mu       sync.Mutex // guards the rest
	remote   netip.AddrPort
	tls      *TLS
	requests int
	made     []*conn         // for this request, though another one may have got it
	used     map[*conn]int64 // what each had received before it was used for this request
}

type traceKey struct{}

func traceOf(ctx context.Context) *trace { return ctx.Value(traceKey{}).(*trace) }

// with returns a context whose requests t follows.
func (t *trace) with(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(context.WithValue(ctx, traceKey{}, t), &httptrace.ClientTrace{
		GotConn:          t.gotConn,
		TLSHandshakeDone: t.shook,
		WroteHeaders: func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.requests++
		},
	})
}

func (t *trace) dialed(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remote = c.remote()
	t.made = append(t.made, c)
}

func (t *trace) gotConn(info httptrace.GotConnInfo) {
	raw := info.Conn
	secure, ok := raw.(*tls.Conn)
	if ok {
		raw = secure.NetConn()
	}
	c := raw.(*conn)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remote = c.remote()
	if ok {
		state := secure.ConnectionState()
		t.show(accepted(&state))
	}
	if _, again := t.used[c]; again {
		return
	}
	if t.used == nil {
		t.used = map[*conn]int64{}
	}
	t.used[c] = 0 // a new one has cost its handshake
	if info.Reused {
		t.used[c] = c.received.Load()
	}
}

// shook notes a certificate that is not accepted: with it there is no
// connection to get.
func (t *trace) shook(_ tls.ConnectionState, err error) {
	bad, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(bad.UnverifiedCertificates) == 0 {
		return
	}
	leaf := bad.UnverifiedCertificates[0]
	t.mu.Lock()
	defer t.mu.Unlock()
	t.show(&TLS{Begins: leaf.NotBefore, Expires: leaf.NotAfter, Issuer: leaf.Issuer.String(), Err: bad.Err})
}

// show notes what a server has shown, unless one before it was as good and ends
// earlier: who follows a redirect depends on both.
func (t *trace) show(s *TLS) {
	if t.tls == nil || s.Err != nil || s.Expires.Before(t.tls.Expires) {
		t.tls = s
	}
}

// accepted tells what a server has shown that was accepted.
func accepted(state *tls.ConnectionState) *TLS {
	shown := &TLS{}
	if len(state.PeerCertificates) > 0 {
		leaf := state.PeerCertificates[0]
		shown.Begins, shown.Issuer = leaf.NotBefore, leaf.Issuer.String()
	}
	for _, chain := range state.VerifiedChains {
		if end := chainEnd(chain); end.After(shown.Expires) {
			shown.Expires = end
		}
	}
	return shown
}

// chainEnd is when the first certificate of a chain ends, and the chain with it.
func chainEnd(chain []*x509.Certificate) (end time.Time) {
	for i, cert := range chain {
		if i == 0 || cert.NotAfter.Before(end) {
			end = cert.NotAfter
		}
	}
	return end
}

// report adds to resp what t knows when the request has ended.
func (t *trace) report(resp *Response, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	resp.Remote, resp.TLS, resp.Requests = t.remote, t.tls, t.requests
	for c, before := range t.used {
		resp.Received += c.received.Load() - before
	}
	if err == nil {
		return
	}
	for _, c := range t.made {
		if _, counted := t.used[c]; !counted {
			resp.Received += c.received.Load()
		}
	}
}

// How long a body may be slow, and how often its pace is looked at after that.
const (
	slowStart = 10 * time.Second
	paceEvery = time.Second
)

// A pace reads a body and watches how fast it comes.
type pace struct {
	io.ReadCloser
	n     atomic.Int64
	began time.Time

	mu    sync.Mutex // guards timer, which is nil when nothing is watched
	timer *time.Timer
}

// newPace calls tooSlow once, from another goroutine, when body comes at less
// than rate bytes a second.
func newPace(body io.ReadCloser, rate int64, tooSlow func()) *pace {
	p := &pace{ReadCloser: body, began: time.Now()}
	if rate <= 0 {
		return p
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(slowStart, func() {
		if float64(p.n.Load()) < float64(rate)*time.Since(p.began).Seconds() {
			tooSlow()
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.timer != nil {
			p.timer.Reset(paceEvery)
		}
	})
	return p
}

func (p *pace) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	p.n.Add(int64(n))
	return n, err
}

func (p *pace) got() int64           { return p.n.Load() }
func (p *pace) since() time.Duration { return time.Since(p.began).Round(time.Second / 10) }

func (p *pace) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}
