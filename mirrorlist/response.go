package mirrorlist

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

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

	tag    string // of the body; "": not computed yet
	zipped []byte // the body, compressed; nil: not yet, or not worth it
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
		uri := c.Request.URL.RequestURI()
		if a := s.larder.get(t, uri, time.Now()); a != nil {
			return a.send(c) // without waiting for others: it is there
		}
		a, err := s.cook(c, t, uri, h)
		if err != nil {
			return err
		}
		return a.send(c)
	}
}

// cook calls a handler when there is room for it, unless another request has had
// the same made meanwhile.
func (s *Server) cook(c *gin.Context, t *Table, uri string, h func(*gin.Context) (*response, error)) (*response, error) {
	select {
	case s.kitchen <- struct{}{}:
	case <-c.Request.Context().Done():
		return nil, &refusal{code: http.StatusServiceUnavailable, text: "the client has gone"}
	}
	defer func() { <-s.kitchen }()
	if a := s.larder.get(t, uri, time.Now()); a != nil {
		return a, nil
	}
	a, err := h(c)
	if err != nil {
		return nil, err
	}
	keep := a.keeps()
	if keep || acceptsGzip(c.Request.Header.Values("Accept-Encoding")) {
		if err := a.compress(); err != nil {
			return nil, err
		}
	}
	a.tag = tagOf(a.body)
	if keep {
		s.larder.put(t, uri, time.Now(), a)
	}
	return a, nil
}

// A larder keeps answers that are the same for everybody for a short time, since
// many people look at the same page and few milliseconds of a processor are many
// lists. Its zero value is empty. Answers in it are not changed any more.
type larder struct {
	mu    sync.Mutex // guards what follows
	of    *Table     // that all answers were made of
	kept  map[string]keptResponse
	order []string // the oldest first
	size  int      // bytes of bodies
}

type keptResponse struct {
	*response
	until time.Time
}

// How long answers are kept, how many, and how large all of them may be, in bytes.
const (
	keptFor       = 5 * time.Second
	mostKept      = 200
	mostKeptBytes = 16 << 20
)

// keeps reports whether an answer is the same for everybody for a while.
func (a *response) keeps() bool {
	return a.cache == shortly && a.vary == "" && a.code == 0 && a.location == "" && a.size() <= mostKeptBytes/8
}

func (a *response) size() int { return len(a.body) + len(a.zipped) }

// get returns what was made for a URL out of a table, nil if that is not kept.
func (l *larder) get(t *Table, uri string, now time.Time) *response {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k, ok := l.kept[uri]; ok && l.of == t && now.Before(k.until) {
		return k.response
	}
	return nil
}

func (l *larder) put(t *Table, uri string, now time.Time, a *response) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of != t || l.kept == nil {
		l.of, l.kept, l.order, l.size = t, map[string]keptResponse{}, nil, 0
	}
	if old, ok := l.kept[uri]; ok {
		l.size -= old.size()
	} else {
		l.order = append(l.order, uri)
	}
	l.kept[uri] = keptResponse{a, now.Add(keptFor)}
	l.size += a.size()
	for len(l.order) > 1 && (len(l.order) > mostKept || l.size > mostKeptBytes) {
		l.size -= l.kept[l.order[0]].size()
		delete(l.kept, l.order[0])
		l.order = l.order[1:]
	}
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
	h.Set("Cache-Control", cmp.Or(a.cache, "private, no-store"))
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
	tag := a.tag
	if tag == "" {
		tag = tagOf(a.body)
	}
	h.Set("ETag", tag)
	code := cmp.Or(a.code, http.StatusOK)
	if code == http.StatusOK && matches(c.Request.Header.Values("If-None-Match"), tag) {
		c.Status(http.StatusNotModified)
		c.Writer.WriteHeaderNow()
		return nil
	}
	body := a.body
	if a.zipped != nil && acceptsGzip(c.Request.Header.Values("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		body = a.zipped
	}
	h.Set("Content-Type", a.kind)
	declareLength(h, len(body))
	c.Status(code)
	_, err := c.Writer.Write(body)
	return hungUp(err)
}

// compress makes the compressed body, where that is worth it. It is part of making
// an answer: it takes as long as all else.
func (a *response) compress() error {
	if len(a.body) < leastGzip || a.zipped != nil {
		return nil
	}
	var b bytes.Buffer
	w := gzipWriters.Get().(*gzip.Writer)
	w.Reset(&b)
	if _, err := w.Write(a.body); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	gzipWriters.Put(w)
	a.zipped = b.Bytes()
	return nil
}

// tagOf is the ETag of a body: a weak one, since bytes differ by encoding.
func tagOf(body []byte) string {
	sum := xxh3.Hash128(body).Bytes()
	return `W/"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"`
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
