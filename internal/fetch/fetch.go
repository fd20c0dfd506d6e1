// Package fetch reads documents over HTTP from hosts that strangers named: a
// mirror operator's list of subnets, a provider's address ranges, a mirror's
// metadata. Whatever the other side does, a request ends within a known time,
// costs a known number of bytes, and reaches public addresses only. The package
// never decides what an answer is worth: status, headers and body are the
// caller's to judge, and are kept as evidence even when the request went wrong.
package fetch

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrPrivate is wrapped by the error of a request that would have connected to
// an address that is not [Public], by itself or by a redirect.
var ErrPrivate = errors.New("not a public address")

// ErrTooLarge is wrapped by the error of a request whose body exceeds
// [Options.MaxBytes], compressed or decompressed.
var ErrTooLarge = errors.New("body too large")

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
	// redirects included. There is no separate limit for a body that drips.
	Timeout time.Duration

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
}

// A Client makes requests within the limits of its Options. It is safe for
// concurrent use and reads no proxy, cookie or credential from anywhere.
type Client struct {
	opts      Options
	transport *http.Transport

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
	dialer := &net.Dialer{Timeout: connectTimeout, ControlContext: c.control}

	// HTTP/1 only: its limits on headers and bodies are the ones tested here.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	c.transport = &http.Transport{
		Proxy:                  nil, // never one from the environment: it would resolve names for us
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: opts.RootCAs},
		TLSHandshakeTimeout:    connectTimeout,
		Protocols:              protocols,
		DisableCompression:     true, // done here, where it can be bounded
		MaxResponseHeaderBytes: maxHeaderBytes,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        idleTimeout,
	}
	return c
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
		return fmt.Errorf("%s: %w", ap.Addr(), ErrPrivate)
	}
	return nil
}

// CloseIdleConnections closes the connections that are kept for a next request.
func (c *Client) CloseIdleConnections() { c.transport.CloseIdleConnections() }

// Validators identify the copy of a document that the caller already has, in
// the words of the server that gave it. The zero value is no copy.
type Validators struct {
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"last_modified,omitempty"`
}

// A Response is what came back, and from where.
type Response struct {
	// URL that answered, after redirects.
	URL string

	// Redirects are the URLs that answered with a redirect, in order.
	Redirects []string

	// Remote is the address that answered. Invalid if none was connected to.
	Remote netip.AddrPort

	Status int
	Header http.Header

	// Body is empty when Status is 304. After an error it holds the bytes that
	// were read before it.
	Body []byte
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
	u, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	total, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	resp, err := c.get(total, u, known)
	switch {
	case err == nil:
		return resp, nil
	case total.Err() != nil && ctx.Err() == nil:
		return resp, fmt.Errorf("%s: no whole answer within %v: %w", u, c.opts.Timeout, err)
	}
	return resp, fmt.Errorf("%s: %w", u, err)
}

func (c *Client) get(ctx context.Context, u *url.URL, known Validators) (*Response, error) {
	// The trace may be called from any goroutine of the transport.
	var remote atomic.Pointer[netip.AddrPort]
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if tcp, ok := info.Conn.RemoteAddr().(*net.TCPAddr); ok {
				ap := tcp.AddrPort()
				remote.Store(&ap)
			}
		},
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Set("Accept-Encoding", "identity")
	if c.opts.Gzip {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	if known.ETag != "" {
		req.Header.Set("If-None-Match", known.ETag)
	}
	if known.LastModified != "" {
		req.Header.Set("If-Modified-Since", known.LastModified)
	}

	var redirects []string
	hc := http.Client{
		Transport: c.transport,
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			last := via[len(via)-1].URL
			redirects = append(redirects, last.String())
			next.Header.Del("Referer") // the next host need not know this URL
			return c.checkRedirect(last, next.URL, len(via))
		},
	}
	res, err := hc.Do(req)
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // Get names the URL; url.Error would name it again
	}
	if res == nil {
		return nil, err
	}
	resp := &Response{
		URL:       res.Request.URL.String(),
		Redirects: redirects,
		Status:    res.StatusCode,
		Header:    res.Header,
	}
	if ap := remote.Load(); ap != nil {
		resp.Remote = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	if err != nil { // a redirect that is not followed; its body is closed
		return resp, err
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 599 {
		return resp, fmt.Errorf("status %d is not a final one", res.StatusCode)
	}
	if res.StatusCode == http.StatusNotModified {
		if known == (Validators{}) {
			return resp, errors.New("status 304 to a request without conditions")
		}
		return resp, nil
	}
	resp.Body, err = c.read(res)
	return resp, err
}

// checkRedirect says whether hop number n, from one URL to the next, may be
// made. Where the next URL leads is checked when it is connected to.
func (c *Client) checkRedirect(from, to *url.URL, n int) error {
	if n > max(c.opts.MaxRedirects, 0) {
		return fmt.Errorf("more than %d redirects", max(c.opts.MaxRedirects, 0))
	}
	if from.Scheme == "https" && to.Scheme == "http" {
		return errors.New("redirect from https to http")
	}
	if err := checkURL(to); err != nil {
		return fmt.Errorf("redirect: %w", err)
	}
	return nil
}

// read returns the body. With an error it returns what came before it.
func (c *Client) read(res *http.Response) ([]byte, error) {
	limit := c.opts.MaxBytes
	tooLarge := fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	if res.ContentLength > limit {
		return nil, tooLarge
	}
	// The compressed bytes are bounded too: a stream can be endless and yet
	// decompress to nothing.
	body := http.MaxBytesReader(nil, res.Body, limit)
	if c.opts.Gzip {
		switch encoding := strings.ToLower(res.Header.Get("Content-Encoding")); encoding {
		case "", "identity":
		case "gzip", "x-gzip":
			gz, err := gzip.NewReader(body)
			if err != nil {
				return nil, fmt.Errorf("gzip body: %w", err)
			}
			body = http.MaxBytesReader(nil, gz, limit)
		default:
			return nil, fmt.Errorf("body in encoding %q; only gzip was asked for", encoding)
		}
	}
	data, err := io.ReadAll(body)
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		err = tooLarge
	}
	return data, err
}

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
