package mirrorlist

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"
	"github.com/zeebo/xxh3"
)

// What is dear, a page or the API, is made whole before any of it is sent, by a
// bounded number of requests at a time: however many people look at pages, lists
// have a processor left. A client that reads slowly holds no place meanwhile.

// A response is what a page or the API says.
type response struct {
	code  int // 0: 200
	kind  string
	body  []byte
	cache string // Cache-Control; "": it is stored by nobody

	location string // of a redirect
	links    string // Link
	name     string // of the file that a browser saves it as

	// vary are the headers of requests, beside Accept-Encoding, that it depends on.
	vary string
}

// How long browsers may use an answer without asking again. What depends on who
// asks is stored by nobody.
const (
	shortly   = "public, max-age=30"
	anHour    = "public, max-age=3600"
	unchanged = "public, max-age=31536000, immutable"
)

// pagePolicy lets a page load what this server serves, and nothing else. Styles
// and scripts are files of their own: none is in a page.
const pagePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// kitchen bounds how many answers are made at once.
type kitchen chan struct{}

func newKitchen() kitchen { return make(kitchen, max(1, runtime.GOMAXPROCS(0)/2)) }

// dear makes a handler of one that returns its answer: bounded per client, and
// bounded in how many are at work.
func (s *Server) dear(h func(*gin.Context) (*response, error)) func(*gin.Context) error {
	return func(c *gin.Context) error {
		t := s.table.Load()
		if !s.limit.allow(clientOf(c.Request, t.trusted, t.header, t.secret).hash, s.now()) {
			c.Header("Retry-After", "1")
			return &refusal{code: http.StatusTooManyRequests, text: "too many requests from your network: ask again in a second"}
		}
		a, err := s.cook(c, h)
		if err != nil {
			return err
		}
		return a.send(c)
	}
}

// cook calls a handler when there is room for it.
func (s *Server) cook(c *gin.Context, h func(*gin.Context) (*response, error)) (*response, error) {
	select {
	case s.kitchen <- struct{}{}:
	case <-c.Request.Context().Done():
		return nil, &refusal{code: http.StatusServiceUnavailable, text: "the client has gone"}
	}
	defer func() { <-s.kitchen }()
	return h(c)
}

// gzipWriters are kept: one has 800 kB of tables.
var gzipWriters = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

// leastGzip is the smallest body that is worth compressing, in bytes.
const leastGzip = 1400

// send writes an answer, or that it has not changed since the client got it.
func (a *response) send(c *gin.Context) error {
	h := c.Writer.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	if strings.HasPrefix(a.kind, "text/html") {
		h.Set("Content-Security-Policy", pagePolicy)
	}
	if a.cache == "" {
		a.cache = "private, no-store"
	}
	h.Set("Cache-Control", a.cache)
	if a.links != "" {
		h.Set("Link", a.links)
	}
	if a.location != "" {
		h.Set("Location", a.location)
		h.Set("Content-Length", "0")
		c.Status(a.code)
		return nil
	}
	if a.name != "" {
		h.Set("Content-Disposition", `attachment; filename="`+a.name+`"`)
	}
	vary := "Accept-Encoding"
	if a.vary != "" {
		vary += ", " + a.vary
	}
	h.Set("Vary", vary)
	sum := xxh3.Hash128(a.body).Bytes()
	// Weak: the bytes differ by encoding.
	tag := `W/"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"`
	h.Set("ETag", tag)
	if a.code == 0 {
		a.code = http.StatusOK
	}
	if a.code == http.StatusOK && matches(c.Request.Header.Values("If-None-Match"), tag) {
		c.Status(http.StatusNotModified)
		c.Writer.WriteHeaderNow()
		return nil
	}
	body := a.body
	if len(body) >= leastGzip && acceptsGzip(c.Request.Header.Values("Accept-Encoding")) {
		var b bytes.Buffer
		w := gzipWriters.Get().(*gzip.Writer)
		w.Reset(&b)
		_, err := w.Write(body)
		if err := w.Close(); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		gzipWriters.Put(w)
		h.Set("Content-Encoding", "gzip")
		body = b.Bytes()
	}
	h.Set("Content-Type", a.kind)
	declareLength(h, len(body))
	c.Status(a.code)
	_, err := c.Writer.Write(body)
	return hungUp(err)
}

// matches reports whether one of the tags in If-None-Match is tag, by the weak
// comparison of RFC 9110.
func matches(lines []string, tag string) bool {
	opaque := strings.TrimPrefix(tag, "W/")
	for _, line := range lines {
		for one := range strings.SplitSeq(line, ",") {
			one = strings.TrimSpace(one)
			if one == "*" || strings.TrimPrefix(one, "W/") == opaque {
				return true
			}
		}
	}
	return false
}

// acceptsGzip reports whether a client wants a compressed body: it names gzip,
// or everything, and does not refuse it with a weight of 0.
func acceptsGzip(lines []string) bool {
	any := false
	for _, line := range lines {
		for one := range strings.SplitSeq(line, ",") {
			coding, params, _ := strings.Cut(one, ";")
			coding = strings.ToLower(strings.TrimSpace(coding))
			weight, weighted := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
			wanted := !weighted || strings.Trim(weight, "0.") != ""
			switch coding {
			case "gzip", "x-gzip":
				return wanted
			case "*":
				any = wanted
			}
		}
	}
	return any
}

// asJSON is the answer of a value, which is public.
func asJSON(v any, cache string) (*response, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return &response{kind: "application/json", body: append(body, '\n'), cache: cache}, nil
}

// redirect is an answer that leads elsewhere, for this time.
func redirect(to, cache string) *response {
	return &response{code: http.StatusFound, location: to, cache: cache}
}

// inEnvelope is the answer of a debug endpoint: see writeEnvelope.
func (s *Server) inEnvelope(result any) (*response, error) {
	return asJSON(envelope{result, "success", s.now().Unix()}, "")
}

// problem is an error of the API, as RFC 9457 has it.
type problem struct {
	Type   string `json:"type" doc:"always about:blank: the status says what kind of problem it is"`
	Title  string `json:"title" doc:"what the status means"`
	Status int    `json:"status" doc:"the HTTP status"`
	Detail string `json:"detail" doc:"what is wrong, and what to write instead"`
}

// writeProblem answers a request to the API that is refused.
func writeProblem(c *gin.Context, code int, text string) {
	body, err := json.Marshal(problem{"about:blank", http.StatusText(code), code, text})
	if err != nil {
		body = fmt.Appendf(nil, `{"status":%d}`, code)
	}
	c.Header("Cache-Control", "no-store")
	c.Data(code, "application/problem+json", append(body, '\n'))
}
