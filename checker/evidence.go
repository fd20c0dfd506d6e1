package checker

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"meridian/checker/state"
	"meridian/internal/fetch"
)

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

// evidence writes down a request and its answer. why says what is wrong with an
// answer that came as it should; nil if it did not, or nothing is.
func (v *visit) evidence(a *answer, why error) *state.Evidence {
	e := &state.Evidence{
		At:      a.at.UTC(),
		Vantage: v.p.opts.Vantage,
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
	if err := cmp.Or(why, a.err); err != nil {
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
