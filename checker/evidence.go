package checker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"meridian/checker/state"
	"meridian/internal/fetch"
)

// An answer is one request and what came of it.
type answer struct {
	fetch.Request
	at      time.Time
	resp    *fetch.Response // never nil
	err     error
	outcome Outcome
}

// noCache is what every request says: what a cache between has is not what the
// mirror has.
var noCache = http.Header{"Cache-Control": {"no-cache"}}

func request(ctx context.Context, c *fetch.Client, r fetch.Request) *answer {
	a := &answer{Request: r, at: time.Now()}
	a.resp, a.err = c.Do(ctx, r)
	a.outcome = outcomeOf(a.resp, a.err)
	if r.Header.Get("Range") != "" {
		part := a.err == nil && a.resp.Status == http.StatusPartialContent
		// A server that knows no ranges sends all of it; its header is enough.
		whole := a.resp.Status == http.StatusOK && errors.Is(a.err, fetch.ErrTooLarge)
		if part || whole {
			a.outcome, a.err = Served, nil
		}
	}
	return a
}

// outcomeOf says what came of asking for a document, before anybody reads it.
func outcomeOf(resp *fetch.Response, err error) Outcome {
	switch {
	case errors.Is(err, fetch.ErrPrivate) && len(resp.Redirects) > 0, // a mirror that resolves to one is only lost
		errors.Is(err, fetch.ErrRedirects),
		errors.Is(err, fetch.ErrDowngrade):
		return Garbage
	case err != nil && resp.Status == 0:
		if resp.Requests > 0 && !cutOff(err) {
			return Garbage // an answer, but no HTTP
		}
		return Unreachable
	case resp.Status == http.StatusNotFound, resp.Status == http.StatusGone:
		return Missing
	case resp.Status >= 400:
		return Refused
	case err != nil, resp.Status != http.StatusOK:
		return Garbage
	}
	return Served
}

// cutOff tells whether an answer did not come, rather than being none.
func cutOff(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout() || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

// costly tells whether the request cost time, or bytes, and brought nothing.
func (a *answer) costly() bool {
	return a.outcome == Unreachable || errors.Is(a.err, fetch.ErrTooLarge) ||
		errors.Is(a.err, fetch.ErrSlow) || errors.Is(a.err, context.DeadlineExceeded)
}

// oneByte returns r as a request for the first byte, whose answer tells the size
// of all.
func oneByte(r fetch.Request) fetch.Request {
	r.Method = http.MethodGet
	r.Header = r.Header.Clone()
	r.Header.Set("Range", firstByte)
	r.MaxBytes = 1
	return r
}

const firstByte = "bytes=0-0"

// headRefused tells whether the answer to a HEAD does not tell the size, and that
// of oneByte may.
func (a *answer) headRefused() bool {
	return a.outcome == Refused || a.outcome == Served && a.resp.Length < 0
}

// size is that of the whole file, as the header says it; negative if it does not.
func (a *answer) size() int64 {
	if a.resp.Status != http.StatusPartialContent {
		return a.resp.Length
	}
	_, total, _ := strings.Cut(a.resp.Header.Get("Content-Range"), "/")
	n, err := strconv.ParseInt(total, 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// otherHost is the host that answered, if another than the one that was asked.
func (a *answer) otherHost() string {
	if len(a.resp.Redirects) == 0 {
		return ""
	}
	asked, err1 := url.Parse(a.URL)
	final, err2 := url.Parse(a.resp.URL)
	if err1 != nil || err2 != nil || strings.EqualFold(asked.Hostname(), final.Hostname()) {
		return ""
	}
	return final.Hostname()
}

// What is kept of an answer, in bytes after escaping.
const (
	maxEvidenceBody  = 512
	maxEvidenceValue = 200 // of one header, or of an error
)

// telling are the headers that explain an answer: which backend and which cache
// gave it, how old it is, what it claims to be.
var telling = []string{
	"Age", "Cache-Control", "Cf-Cache-Status", "Cf-Ray", "Content-Encoding", "Content-Length", "Content-Range",
	"Content-Type", "Date", "Etag", "Expires", "Last-Modified", "Location", "Retry-After", "Server", "Via",
	"X-Amz-Cf-Pop", "X-Backend", "X-Cache", "X-Cache-Hits", "X-Served-By", "X-Timer", "X-Varnish",
}

// evidence writes down a request and its answer. wrong says what is wrong with an
// answer that came as it should; nil if it did not, or nothing is.
func (a *answer) evidence(vantage string, wrong error) *state.Evidence {
	e := &state.Evidence{
		At:      a.at.UTC(),
		Vantage: vantage,
		Method:  cmp.Or(a.Method, http.MethodGet),
		URL:     a.URL,
		Status:  a.resp.Status,
		Body:    escape(a.resp.Body, maxEvidenceBody),
	}
	for _, name := range slices.Sorted(maps.Keys(a.Header)) {
		e.Request = append(e.Request, name+": "+strings.Join(a.Header[name], ", "))
	}
	switch a.Family {
	case fetch.IPv4:
		e.Family = string(IPv4)
	case fetch.IPv6:
		e.Family = string(IPv6)
	}
	for _, u := range a.resp.Redirects {
		e.Redirects = append(e.Redirects, escape([]byte(u), maxEvidenceBody))
	}
	if a.resp.URL != a.URL {
		e.Final = escape([]byte(a.resp.URL), maxEvidenceBody)
	}
	if a.resp.Remote.IsValid() {
		e.Remote = a.resp.Remote.String()
	}
	for _, name := range telling {
		if value := a.resp.Header.Get(name); value != "" {
			e.Header = append(e.Header, name+": "+escape([]byte(value), maxEvidenceValue))
		}
	}
	if err := cmp.Or(wrong, a.err); err != nil {
		e.Error = escape([]byte(strings.TrimPrefix(err.Error(), a.URL+": ")), maxEvidenceValue)
	}
	return e
}

// escape returns the beginning of text as printable characters on one line, at
// most that many bytes; "…" says that there is more.
func escape(text []byte, most int) string {
	b := make([]byte, 0, min(most, len(text)))
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		part := text[:n]
		switch {
		case r == utf8.RuneError && n == 1:
			part = fmt.Appendf(nil, `\x%02x`, text[0])
		case r == '\\' || !unicode.IsPrint(r):
			part = strconv.AppendQuoteRuneToASCII(nil, r)
			part = part[1 : len(part)-1]
		}
		room := most - len(b)
		if n < len(text) {
			room -= len("…")
		}
		if len(part) > room {
			return string(b) + "…"
		}
		b, text = append(b, part...), text[n:]
	}
	return string(b)
}
