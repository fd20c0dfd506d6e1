// Package fetch reads documents over HTTP from hosts that strangers named: a
// mirror operator's list of subnets, a provider's address ranges, a mirror's
// metadata. Whatever the other side does, a request ends within a known time,
// costs a known number of bytes, and reaches public addresses only. The package
// never decides what an answer is worth: status, headers and body are the
// caller's to judge, and are kept as evidence even when the request went wrong.
package fetch

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// ErrPrivate is wrapped by the error of a request that would have connected to
// an address that is not [Public], by itself or by a redirect.
var ErrPrivate = errors.New("not a public address")

// ErrTooLarge is wrapped by the error of a request whose body exceeds
// [Options.MaxBytes], compressed or decompressed.
var ErrTooLarge = errors.New("body too large")

// ErrSlow is wrapped by the error of a request whose body came at less than
// [Options.MinRate].
var ErrSlow = errors.New("body too slow")

// ErrRedirects is wrapped by the error of a request that was redirected more
// than [Options.MaxRedirects] times.
var ErrRedirects = errors.New("too many redirects")

// ErrDowngrade is wrapped by the error of a request that was redirected from
// https to http.
var ErrDowngrade = errors.New("redirect from https to http")

// Defaults of the fields of Options that are zero.
const (
	DefaultMaxBytes     = 16 << 20
	DefaultTimeout      = 30 * time.Second
	DefaultMaxRedirects = 3
	DefaultUserAgent    = "meridian"
)

const (
	// connectTimeout is shorter than any sensible Options.Timeout, so that a
	// host with one dead address still gets its other ones tried.
	connectTimeout = 10 * time.Second

	// maxHeaderBytes bounds the header of one answer, interim answers included.
	maxHeaderBytes = 64 << 10

	// idleTimeout keeps a connection for a burst of requests to one host, not
	// for the next hour's.
	idleTimeout = 30 * time.Second

	maxURLBytes = 2048

	// mostPromised bounds what is set aside for a body because of its
	// Content-Length alone.
	mostPromised = 256 << 10

	// keptOfStream is what is kept of a body that goes elsewhere.
	keptOfStream = 512
)

// Options are the limits of a [Client]. The zero value is the strict one.
type Options struct {
	// AllowPrivate lifts the rule that only public addresses are connected to.
	// For test networks, whose mirrors are on loopback.
	AllowPrivate bool

	// MaxBytes bounds a body, both as it comes over the wire and after
	// decompression.
	MaxBytes int64

	// Timeout bounds one request from name lookup to the last byte of the body,
	// redirects included.
	Timeout time.Duration

	// MinRate, in bytes a second, is what a body must come at on average once it
	// has been coming for ten seconds. Zero: a body may drip until Timeout.
	MinRate int64

	// MaxRedirects is how many redirects are followed. Negative: none.
	MaxRedirects int

	// UserAgent is the name the client gives itself.
	UserAgent string

	// Gzip asks for compressed bodies and decodes them. Without it a body is
	// kept as it was sent, whatever its Content-Encoding says: that is what dnf
	// sees.
	Gzip bool

	// RootCAs replace the system's certificate authorities unless nil.
	RootCAs *x509.CertPool

	// Dial and Lookup replace the system's network, for tests whose hosts are in
	// memory and whose time is virtual. They are called as the methods
	// DialContext of net.Dialer and LookupNetIP of net.Resolver are. A connection
	// to an address that may not be connected to is closed unused. Lookup alone
	// says what names mean, and connections are the system's; with both, what a
	// name means to a connection is for Dial to say.
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// A Client makes requests within the limits of its Options. It is safe for
// concurrent use and reads no proxy, cookie or credential from anywhere. No host
// sees more than two of its connections at a time, whatever their ports, schemes
// and families; requests beyond that wait. Connections are kept for a next
// request, those of the hosts that were asked last.
type Client struct {
	opts  Options
	hosts *hosts

	ownLookup bool // Options.Lookup was given

	// permit says which addresses may be connected to. Set by New and constant
	// from the first request on.
	permit func(netip.Addr) bool
}

// New returns a client with the given limits.
func New(opts Options) *Client {
	if opts.MaxBytes == 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	if opts.Timeout == 0 {
		opts.Timeout = DefaultTimeout
	}
	if opts.MaxRedirects == 0 {
		opts.MaxRedirects = DefaultMaxRedirects
	}
	if opts.UserAgent == "" {
		opts.UserAgent = DefaultUserAgent
	}
	c := &Client{opts: opts, permit: Public}
	if opts.AllowPrivate {
		c.permit = netip.Addr.IsValid
	}
	if c.ownLookup = c.opts.Lookup != nil; !c.ownLookup {
		c.opts.Lookup = net.DefaultResolver.LookupNetIP
	}
	c.hosts = newHosts(c)
	return c
}

// CloseIdleConnections closes the connections that are kept for a next request.
func (c *Client) CloseIdleConnections() { c.hosts.closeIdle() }

// Validators identify the copy of a document that the caller already has, in
// the words of the server that gave it. The zero value is no copy.
type Validators struct {
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"last_modified,omitempty"`
}

// A Family is what kind of address a request is bound to.
type Family uint8

// The families. The zero value is whichever answers first.
const (
	AnyFamily Family = iota
	IPv4
	IPv6
)

func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// suffix is what net puts behind "tcp" and "ip" for the family.
func (f Family) suffix() string { return [...]string{"", "4", "6"}[f] }

// A Request is one question. Only URL must be set.
type Request struct {
	URL string

	// Method is "GET" unless it says otherwise. Requests have no body.
	Method string

	// Header holds what is sent beside the client's own header.
	Header http.Header

	// Known asks for changes only.
	Known Validators

	// Family binds the request, and its redirects, to addresses of one kind. Such
	// a request has a connection to itself.
	Family Family

	// Apart is an address that has answered: the request is bound to its family,
	// and made to another address where the host has one. It is for who wants to
	// know whether the servers behind a name are alike. Family is not looked at then.
	Apart netip.Addr

	// MaxBytes, Timeout and MinRate replace those of Options unless they are zero.
	MaxBytes int64
	Timeout  time.Duration
	MinRate  int64

	// To is where the body goes as it comes, unless nil: Body of the Response then
	// has its first bytes only, at most 512. An error of To ends the request.
	To io.Writer
}

// A Response is what came back, and from where.
type Response struct {
	// URL that answered, after redirects; that was asked last, if none did.
	URL string

	// Redirects are the URLs that answered with a redirect, in order.
	Redirects []string

	// Remote is the address that answered. Invalid if none was connected to.
	Remote netip.AddrPort

	// TLS is what servers on the way have shown of themselves: the certificate that
	// is not accepted, or of several that are the one that ends first. Nil without
	// https.
	TLS *TLS

	Status int // 0: no answer
	Header http.Header

	// Length is that of the whole body as the header says it, in bytes; negative
	// when it does not.
	Length int64

	// Body is empty when Status is 304. After an error it holds the bytes that
	// were read before it.
	Body []byte

	// Requests that were written, and bytes that came back, of all hops, with
	// everything that TLS and HTTP add to the body. Repetitions count: a request
	// over a kept connection that the server has closed meanwhile is made again.
	Requests int
	Received int64
}

// TLS is what a server has shown of itself.
type TLS struct {
	// Begins and Issuer are of the server's certificate.
	Begins time.Time
	Issuer string

	// Expires is when the last accepted chain of certificates ends; when there is
	// none, the server's certificate.
	Expires time.Time

	// Err is why the certificate is not accepted. Nil: it is.
	Err error
}

// Validators returns what a later request needs to ask for changes only.
func (r *Response) Validators() Validators {
	return Validators{ETag: r.Header.Get("ETag"), LastModified: r.Header.Get("Last-Modified")}
}

// Get requests rawURL. With validators it asks for changes only, and a Status
// of 304 says that there are none; a 304 that was not asked for is an error. Any
// other status, 404 and 500 included, is a Response and no error.
//
// Errors are those of the limits (ErrPrivate, ErrTooLarge and unnamed ones), of
// the network and of the protocol. The Response is nil unless the server began
// to answer; with an error it is evidence, not a document.
func (c *Client) Get(ctx context.Context, rawURL string, known Validators) (*Response, error) {
	resp, err := c.Do(ctx, Request{URL: rawURL, Known: known})
	if resp.Status == 0 {
		resp = nil
	}
	return resp, err
}

// Do makes a request. Answers and errors are those of [Client.Get], but the
// Response is never nil: it holds what is known when the request ends.
func (c *Client) Do(ctx context.Context, r Request) (*Response, error) {
	u, err := parseURL(r.URL)
	if err != nil {
		return &Response{Length: -1}, err
	}
	if r.MaxBytes == 0 {
		r.MaxBytes = c.opts.MaxBytes
	}
	if r.Timeout == 0 {
		r.Timeout = c.opts.Timeout
	}
	if r.MinRate == 0 {
		r.MinRate = c.opts.MinRate
	}
	total, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	t := &trace{family: r.Family, apart: r.Apart}
	if r.Apart.IsValid() {
		t.family = familyOf(r.Apart)
	}
	resp := &Response{URL: u.String(), Length: -1}
	err = c.do(t.with(total), u, &r, resp)
	t.report(resp, err)
	switch {
	case err == nil:
		return resp, nil
	case total.Err() != nil && ctx.Err() == nil && !errors.Is(err, ErrSlow):
		return resp, fmt.Errorf("%s: no whole answer within %v: %w", u, r.Timeout, err)
	}
	return resp, fmt.Errorf("%s: %w", u, err)
}

// do fills in resp, but for what the trace knows.
func (c *Client) do(ctx context.Context, u *url.URL, r *Request, resp *Response) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, cmp.Or(r.Method, http.MethodGet), u.String(), nil)
	if err != nil {
		return err
	}
	for name, values := range r.Header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Set("Accept-Encoding", "identity")
	if c.opts.Gzip {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	if r.Known.ETag != "" {
		req.Header.Set("If-None-Match", r.Known.ETag)
	}
	if r.Known.LastModified != "" {
		req.Header.Set("If-Modified-Since", r.Known.LastModified)
	}

	hc := http.Client{
		Transport: c.hosts,
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			last := via[len(via)-1].URL
			resp.Redirects = append(resp.Redirects, last.String())
			next.Header.Del("Referer") // the next host need not know this URL
			err := c.checkRedirect(last, next.URL, len(via))
			if err == nil {
				resp.URL = next.URL.String()
			}
			return err
		},
	}
	res, err := hc.Do(req)
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // Do names the URL; url.Error would name it again
	}
	if res == nil {
		return err
	}
	resp.Status, resp.Header, resp.Length = res.StatusCode, res.Header, res.ContentLength
	if err != nil { // a redirect that is not followed; its body is closed
		return err
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 599 {
		return fmt.Errorf("status %d is not a final one", res.StatusCode)
	}
	if res.StatusCode == http.StatusNotModified {
		if r.Known == (Validators{}) {
			return errors.New("status 304 to a request without conditions")
		}
		return nil
	}
	if req.Method == http.MethodHead {
		return nil
	}
	pace := newPace(res.Body, r.MinRate, func() { cancel(ErrSlow) })
	defer pace.stop()
	resp.Body, err = c.read(res, pace, r)
	if err != nil && context.Cause(ctx) == ErrSlow {
		err = fmt.Errorf("%w: %d bytes in %v, less than %d a second", ErrSlow, pace.got(), pace.since(), r.MinRate)
	}
	return err
}

// checkRedirect says whether hop number n, from one URL to the next, may be
// made. Where the next URL leads is checked when it is connected to.
func (c *Client) checkRedirect(from, to *url.URL, n int) error {
	if n > max(c.opts.MaxRedirects, 0) {
		return fmt.Errorf("%w: more than %d redirects", ErrRedirects, max(c.opts.MaxRedirects, 0))
	}
	if from.Scheme == "https" && to.Scheme == "http" {
		return ErrDowngrade
	}
	if err := checkURL(to); err != nil {
		return fmt.Errorf("redirect: %w", err)
	}
	return nil
}

// read returns the body, or its first bytes when it goes elsewhere. With an error
// it returns what came before it.
func (c *Client) read(res *http.Response, from io.ReadCloser, r *Request) ([]byte, error) {
	limit := r.MaxBytes
	tooLarge := func() error { return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit) }
	if res.ContentLength > limit {
		return nil, tooLarge()
	}
	// The compressed bytes are bounded too: a stream can be endless and yet
	// decompress to nothing.
	body := http.MaxBytesReader(nil, from, limit)
	size := res.ContentLength
	if c.opts.Gzip {
		switch encoding := strings.ToLower(res.Header.Get("Content-Encoding")); encoding {
		case "", "identity":
		case "gzip", "x-gzip":
			gz, err := gzip.NewReader(body)
			if err != nil {
				return nil, fmt.Errorf("gzip body: %w", err)
			}
			body, size = http.MaxBytesReader(nil, gz, limit), -1
		default:
			return nil, fmt.Errorf("body in encoding %q; only gzip was asked for", encoding)
		}
	}
	var data []byte
	var err error
	if r.To != nil {
		kept := &firstBytes{to: r.To}
		_, err = io.Copy(kept, body)
		data = kept.data
	} else {
		// What is promised is believed up to a point: it is only a promise.
		buf := bytes.NewBuffer(make([]byte, 0, max(bytes.MinRead, min(size+bytes.MinRead, mostPromised))))
		_, err = buf.ReadFrom(body)
		data = buf.Bytes()
	}
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		err = tooLarge()
	}
	return data, err
}

// firstBytes passes on what is written, and keeps its beginning.
type firstBytes struct {
	to   io.Writer
	data []byte
}

func (f *firstBytes) Write(p []byte) (int, error) {
	if room := keptOfStream - len(f.data); room > 0 {
		f.data = append(f.data, p[:min(room, len(p))]...)
	}
	return f.to.Write(p)
}

// Addresses returns the addresses of a host. It reaches nobody but name servers.
func (c *Client) Addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	all, err := c.opts.Lookup(ctx, "ip", host)
	for i := range all {
		all[i] = all[i].Unmap()
	}
	return all, err
}

// Routed tells whether this machine has a way to an address: a route to it and an
// address of its own to send from, which from inside a private IPv6 network is
// none to a public one. Nothing is sent.
func (c *Client) Routed(to netip.Addr) bool {
	if c.opts.Dial != nil {
		return true
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
	if err != nil {
		return false
	}
	defer conn.Close()
	from, ok := conn.LocalAddr().(*net.UDPAddr)
	return ok && (to.Unmap().Is4() || !Public(to) || Public(from.AddrPort().Addr()))
}

// Permits tells whether a may be connected to.
func (c *Client) Permits(a netip.Addr) bool { return c.permit(a) }

// parseURL is url.Parse for URLs that strangers write.
func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		// Its text is the whole URL, and a password in it.
		return nil, fmt.Errorf("not a URL: %w; write one like https://mirror.example.org/", wrapped.Err)
	}
	if err != nil {
		return nil, err
	}
	return u, checkURL(u)
}

func checkURL(u *url.URL) error {
	shown := u.Redacted()
	switch {
	case len(shown) > maxURLBytes:
		return fmt.Errorf("URL %.40s… is longer than %d bytes", shown, maxURLBytes)
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("URL %q: scheme %q; write http or https", shown, u.Scheme)
	case u.User != nil:
		return fmt.Errorf("URL %q carries credentials; write it without", shown)
	case u.Hostname() == "":
		return fmt.Errorf("URL %q names no host", shown)
	}
	return nil
}
