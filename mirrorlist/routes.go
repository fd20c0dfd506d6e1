package mirrorlist

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"meridian/internal/peer"
)

// Handlers returns the handler of the public listener and that of the admin
// listener. Without admin_listen the first serves everything.
func (s *Server) Handlers() (public, admin http.Handler) {
	r := s.engine()

	// The lists: everything that is measured in millions.
	s.get(r, "/mirrorlist/:version/:repo", s.list)
	s.get(r, "/mirrorlist/:version/:repo/", s.list)
	s.get(r, "/mirrorlist", s.listByQuery)
	s.get(r, "/mirrorlist/", s.listByQuery)
	s.get(r, "/metalink/:version/:repo", s.metalink)
	s.get(r, "/metalink/:version/:repo/", s.metalink)
	s.get(r, "/metalink", s.metalinkByQuery)
	s.get(r, "/metalink/", s.metalinkByQuery)
	s.get(r, "/isolist/:version/:arch", s.isos)
	s.get(r, "/isolist/:version/:arch/", s.isos)

	s.pageRoutes(r)

	// For people and their tools.
	s.apiRoutes(r)
	s.get(r, "/debug/json/ip_info", s.dear(s.debugIP))
	s.get(r, "/debug/json/nearest_mirrors", s.dear(s.debugNearest))
	s.get(r, "/debug/json/all_mirrors", s.dear(s.debugAll))
	s.get(r, "/debug/html/all", s.dear(s.debugTable))

	if s.opts.Config.AdminListen == "" {
		s.adminRoutes(r, false)
		return r, nil
	}
	a := s.engine()
	s.adminRoutes(a, true)
	s.get(a, "/api/v1/explain", s.dear(s.apiExplainAll))
	return r, a
}

// adminRoutes adds what an administrator asks. On a listener that strangers can
// reach, a reload is accepted from this host alone, and what names files and
// mirrors is shown there alone.
func (s *Server) adminRoutes(r *gin.Engine, separate bool) {
	s.get(r, "/healthz", s.healthz)
	s.get(r, "/readyz", func(c *gin.Context) error { return s.readyz(c, separate || s.fromHere(c.Request)) })
	if s.opts.Metrics != nil {
		s.get(r, "/metrics", func(c *gin.Context) error {
			// They name mirrors, private ones too.
			if !separate && !s.fromHere(c.Request) {
				return &refusal{code: http.StatusForbidden, text: "metrics are shown on this host only: ask there, or set admin_listen"}
			}
			s.opts.Metrics.ServeHTTP(c.Writer, c.Request)
			return nil
		})
	}
	r.POST("/-/reload", s.wrap(func(c *gin.Context) error {
		if !separate && !s.fromHere(c.Request) {
			return &refusal{code: http.StatusForbidden, text: "a reload is accepted from this host only: ask there, or set admin_listen"}
		}
		if err := s.Reload(c.Request.Context(), true); err != nil {
			return &refusal{code: http.StatusUnprocessableEntity, text: "reloaded, except: " + strings.ReplaceAll(err.Error(), "\n", "; ")}
		}
		c.String(http.StatusOK, "reloaded\n")
		return nil
	}))
}

// engine returns a router with what both listeners have in common.
func (s *Server) engine() *gin.Engine {
	r := gin.New()
	r.RedirectTrailingSlash, r.RedirectFixedPath = false, false
	r.HandleMethodNotAllowed = true
	// The client is found by clientOf alone.
	if err := r.SetTrustedProxies(nil); err != nil {
		panic(fmt.Sprintf("mirrorlist: no proxies: %v", err))
	}
	r.NoRoute(s.wrap(func(c *gin.Context) error {
		if p := c.Request.URL.Path; strings.Contains(p, "//") {
			// One leading slash and no more: never to another host.
			to := path.Clean(p)
			if strings.HasSuffix(p, "/") && to != "/" {
				to += "/"
			}
			u := *c.Request.URL
			u.Path, u.RawPath, u.Scheme, u.Host = to, "", "", ""
			c.Redirect(http.StatusPermanentRedirect, u.String())
			return nil
		}
		if ok, err := s.modulePage(c); ok {
			return err
		}
		repo, version := s.table.Load().exampleNames()
		return &refusal{code: http.StatusNotFound, text: "no such page: lists are at /mirrorlist/VERSION/REPO, such as /mirrorlist/" + version + "/" + repo}
	}))
	r.NoMethod(s.wrap(func(c *gin.Context) error {
		allow := c.Writer.Header().Get("Allow")
		if allow == "GET, HEAD" || allow == "HEAD, GET" {
			allow = "GET, HEAD, OPTIONS"
			c.Header("Allow", allow)
		}
		if c.Request.Method == http.MethodOptions {
			if isAPI(c.Request) {
				preflight(c.Writer.Header())
			}
			c.Status(http.StatusOK)
			c.Header("Content-Length", "0")
			return nil
		}
		return &refusal{code: http.StatusMethodNotAllowed, text: fmt.Sprintf("method %s is not for this URL: use one of %s", clip(c.Request.Method), allow)}
	}))
	return r
}

// get routes GET and HEAD to a handler that may refuse.
func (s *Server) get(r *gin.Engine, path string, h func(*gin.Context) error) {
	wrapped := s.wrap(h)
	r.GET(path, wrapped)
	r.HEAD(path, wrapped)
}

// wrap turns what a handler returns into the response: a refusal into what it
// says, a failure into a bare 500 and a line in the log. A panic is a failure.
func (s *Server) wrap(h func(*gin.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		defer func() {
			if p := recover(); p != nil {
				s.log.ErrorContext(c.Request.Context(), "request failed", "path", c.FullPath(), "err", p, "stack", string(debug.Stack()))
				s.counts.status(http.StatusInternalServerError)
				if c.Writer.Written() {
					panic(http.ErrAbortHandler) // half an answer must not look whole
				}
				internalError(c)
			}
		}()
		if c.Request.TransferEncoding != nil {
			// No client of ours sends chunks. A proxy before us may have read the
			// length that came with them, and take what follows for a body.
			c.Header("Connection", "close")
		}
		err := h(c)
		if err == nil {
			s.counts.status(c.Writer.Status())
			return
		}
		var no *refusal
		switch {
		case !errors.As(err, &no):
			s.log.ErrorContext(c.Request.Context(), "request failed", "path", c.FullPath(), "err", err)
			internalError(c)
		case isAPI(c.Request):
			writeProblem(c, no.code, no.text)
		case s.isPage(c):
			s.errorPage(c, no)
		case no.envelope:
			writeEnvelope(c, no.code, map[string]string{"message": no.text}, "error", s.now())
		default:
			c.String(no.code, "%s\n", no.text)
		}
		s.counts.status(c.Writer.Status())
	}
}

// internalError answers a request that nobody could have made better.
func internalError(c *gin.Context) {
	if isAPI(c.Request) {
		writeProblem(c, http.StatusInternalServerError, "the server made a mistake: its log has more")
		return
	}
	c.String(http.StatusInternalServerError, "internal error\n")
}

// envelope is the form that the debug endpoints and the 404s of lists have always
// had.
type envelope struct {
	Result    any    `json:"result"`
	Status    string `json:"status"`
	Timestamp int64  `json:"timestamp"`
}

// writeEnvelope answers in that form.
func writeEnvelope(c *gin.Context, code int, result any, status string, now time.Time) {
	body, err := json.Marshal(envelope{result, status, now.Unix()})
	if err != nil {
		c.String(http.StatusInternalServerError, "internal error\n")
		return
	}
	c.Data(code, "application/json", append(body, '\n'))
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Header values of lists, shared by all answers.
var (
	typePlain  = []string{"text/plain; charset=utf-8"}
	typeJSON   = []string{"application/json"}
	noStore    = []string{"private, no-store"}
	varyAgent  = []string{"User-Agent"}
	varyAccept = []string{"Accept"}
)

// list answers /mirrorlist/VERSION/REPO.
func (s *Server) list(c *gin.Context) error {
	version, repo := c.Params[0].Value, c.Params[1].Value // in the order of the path
	return s.answer(c, s.table.Load(), version, repo, parseParams(c.Request.URL.RawQuery))
}

// listByQuery answers /mirrorlist?repo=NAME-VERSION&arch=ARCH.
func (s *Server) listByQuery(c *gin.Context) error {
	t := s.table.Load()
	p := parseParams(c.Request.URL.RawQuery)
	if p.repo == "" {
		return badRequest(`missing "repo": try /mirrorlist?repo=%s&arch=x86_64`, t.exampleRepo())
	}
	repo, version, no := t.splitRepo(p.repo)
	if no != nil {
		return no
	}
	return s.answer(c, t, version, repo, p)
}

func (s *Server) answer(c *gin.Context, t *Table, version, repo string, p params) error {
	agent := ""
	if p.arch == "" {
		agent = c.Request.UserAgent()
	}
	q, vault, no := t.listRequest(version, repo, agent, p)
	if no != nil {
		return no
	}
	h := c.Writer.Header()
	h["Content-Type"], h["Cache-Control"] = typePlain, noStore
	if t.date != nil {
		h["Date"] = t.date
	}
	if p.arch == "" && t.snap != nil {
		h["Vary"] = varyAgent
	}
	if vault != "" {
		t.countVault(c.Request, q.slot, &p)
		_, err := c.Writer.WriteString(vault)
		return hungUp(err)
	}
	sc := scratches.Get().(*scratch) // after a panic it is not used again
	if no := s.decide(c.Request, t, &q, sc); no != nil {
		scratches.Put(sc)
		return no
	}
	t.count(c.Request, q.slot, &p, sc)
	sc.body = t.appendList(sc.body[:0], &q, sc.picks)
	declareLength(h, len(sc.body))
	_, err := c.Writer.Write(sc.body)
	scratches.Put(sc)
	return hungUp(err)
}

// decide answers a question for the client of a request.
func (s *Server) decide(r *http.Request, t *Table, q *question, sc *scratch) error {
	q.client = clientOf(r, t.trusted, t.header, t.secret)
	q.limit, q.now = t.limit, t.now
	t.decide(q, sc)
	if len(sc.picks) == 0 {
		s.counts.empty.Add(1)
		return &refusal{code: http.StatusServiceUnavailable, text: "no mirror has " + t.slots[q.slot].suffix + ": ask again later"}
	}
	s.counts.picked(sc.picks[0].tier)
	return nil
}

// declareLength says how long a body is. Of one that it can hold back until it is
// complete, net/http says so itself, for less.
func declareLength(h http.Header, n int) {
	if n > 2048 {
		h["Content-Length"] = []string{strconv.Itoa(n)}
	}
}

// hungUp drops the error of writing to a client that has gone: nobody is left to
// be told, and nothing is wrong here.
func hungUp(error) error { return nil }

// isos answers /isolist/VERSION/ARCH.
func (s *Server) isos(c *gin.Context) error {
	t := s.table.Load()
	p := parseParams(c.Request.URL.RawQuery)
	q, vault, no := t.isoRequest(c.Param("version"), c.Param("arch"), p)
	if no != nil {
		return no
	}
	var urls []string
	if vault != "" {
		t.countVault(c.Request, q.slot, &p)
		urls = []string{vault}
	} else {
		sc := scratches.Get().(*scratch)
		defer scratches.Put(sc)
		if no := s.decide(c.Request, t, &q, sc); no != nil {
			return no
		}
		t.count(c.Request, q.slot, &p, sc)
		for _, p := range sc.picks {
			urls = append(urls, string(t.appendURL(nil, &q, p)))
		}
	}
	h := c.Writer.Header()
	h["Cache-Control"], h["Vary"] = noStore, varyAccept
	if wantsPlain(c.Request.Header.Get("Accept")) {
		h["Content-Type"] = typePlain
		body := strings.Join(urls, "\n")
		declareLength(h, len(body))
		_, err := c.Writer.WriteString(body)
		return hungUp(err)
	}
	h["Content-Type"] = typeJSON
	body, err := json.Marshal(urls)
	if err != nil {
		return err
	}
	declareLength(h, len(body)+1)
	_, err = c.Writer.Write(append(body, '\n'))
	return hungUp(err)
}

// wantsPlain reports whether an Accept header names text/plain before JSON.
func wantsPlain(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		kind, _, _ := strings.Cut(part, ";")
		switch strings.TrimSpace(kind) {
		case "text/plain":
			return true
		case "application/json", "*/*":
			return false
		}
	}
	return false
}

// fromHere reports whether a request was made on this host, by nobody's proxy.
func (s *Server) fromHere(r *http.Request) bool {
	return peer.Local(r, s.table.Load().header)
}
