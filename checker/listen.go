package checker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"meridian/checker/atom"
	"meridian/internal/peer"
	"meridian/schema"
)

// What a client of the listener may take: everything it asks for is small.
const (
	maxListenHeader = 16 << 10 // bytes
	maxHintBody     = 4 << 10  // which nobody reads

	headerTimeout = 10 * time.Second
	readTimeout   = 20 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 75 * time.Second
	drainTimeout  = 5 * time.Second

	// hintEvery is how often a mirror may ask for a visit.
	hintEvery = time.Minute

	// feedEvents are as many as a feed tells of.
	feedEvents = 50
)

// ListenOptions are what the listener of a checker needs beside its settings.
type ListenOptions struct {
	// Secret is what tokens are derived from; empty: hints are refused.
	Secret []byte

	// Metrics is what /metrics answers; nil: there are none.
	Metrics http.Handler
}

// Serve answers hints, feeds, and who asks how the checker is, until ctx ends. It
// closes ln.
func (c *Checker) Serve(ctx context.Context, ln net.Listener, o ListenOptions) error {
	srv := &http.Server{
		Handler: c.Handler(o), ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxListenHeader,
		ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if err := srv.Shutdown(drain); err != nil {
			c.log.Warn("requests were cut off", "after", drainTimeout, "err", err)
			return srv.Close()
		}
		return nil
	})
	return g.Wait()
}

// Handler is what Serve answers with.
func (c *Checker) Handler(o ListenOptions) http.Handler {
	d := &door{c: c, secret: o.Secret, hinted: map[string]time.Time{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/mirrors/{name}/synced", d.synced)
	mux.HandleFunc("GET /mirrors/{name}/feed.atom", d.feed)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", d.readyz)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case o.Metrics == nil:
			http.NotFound(w, r)
		case !peer.Local(r):
			say(w, http.StatusForbidden, "metrics are shown on this host only: ask there")
		default:
			o.Metrics.ServeHTTP(w, r)
		}
	})
	return mux
}

// A door is who answers.
type door struct {
	c      *Checker
	secret []byte

	mu     sync.Mutex           // guards hinted
	hinted map[string]time.Time // when a mirror last said that it has synced; as long as that counts
}

// say answers with one line of text.
func say(w http.ResponseWriter, code int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	fmt.Fprintln(w, text)
}

// synced takes the hint of a mirror that it has something new. It is a hint only:
// what the mirror serves decides.
func (d *door) synced(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxHintBody)
	name := r.PathValue("name")
	token, ok := bearer(r)
	// Who has no token does not learn which mirrors there are.
	if m := d.c.mirror(name); !ok || !validToken(d.secret, name, token) || m == nil {
		w.Header().Set("WWW-Authenticate", "Bearer")
		say(w, http.StatusUnauthorized, "this is not the token of a mirror of this name: ask the administrators of the network for it (checker token NAME)")
		return
	}
	if !d.c.Standing().Active {
		w.Header().Set("Retry-After", fmt.Sprint(int(standbyEvery/time.Second)))
		say(w, http.StatusServiceUnavailable, "this checker stands by: tell the one that is active, or try again")
		return
	}
	if wait := d.hint(name, time.Now()); wait > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int((wait+time.Second-1)/time.Second)))
		say(w, http.StatusTooManyRequests, "the mirror was announced less than a minute ago, and will be visited: say it again later")
		return
	}
	d.c.Hint(name)
	d.c.log.Info("mirror says that it has synced", "mirror", name)
	say(w, http.StatusAccepted, "the mirror will be visited soon")
}

func bearer(r *http.Request) (token string, ok bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}

// hint notes that a mirror has said something, unless it did so lately: then it
// returns how long it has to wait.
func (d *door) hint(name string, now time.Time) (wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, at := range d.hinted {
		if now.Sub(at) >= hintEvery {
			delete(d.hinted, name)
		}
	}
	if at, lately := d.hinted[name]; lately {
		return hintEvery - now.Sub(at)
	}
	d.hinted[name] = now
	return 0
}

// mirror returns a mirror of the network, or nil.
func (c *Checker) mirror(name string) *schema.Mirror {
	for _, m := range c.Standing().Mirrors {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// feed tells what happened to a public mirror.
func (d *door) feed(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if m := d.c.mirror(name); m == nil || m.Private {
		say(w, http.StatusNotFound, "no public mirror has this name")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	events, err := d.c.store.History(ctx, name, feedEvents)
	if err != nil {
		d.c.log.Warn("a feed cannot be written", "mirror", name, "err", err)
		say(w, http.StatusServiceUnavailable, "the history cannot be read now: try again later")
		return
	}
	src := atom.Source{Mirror: name, Self: "http://" + r.Host + r.URL.EscapedPath()}
	if page := d.c.opts.Settings.Page(name); page != "" {
		src.Self, src.Page = page+"/feed.atom", page
	}
	var body bytes.Buffer
	if err := atom.Write(&body, src, events); err != nil {
		d.c.log.Warn("a feed cannot be written", "mirror", name, "err", err)
		say(w, http.StatusInternalServerError, "internal error")
		return
	}
	w.Header().Set("Content-Type", atom.ContentType)
	w.Header().Set("Cache-Control", "max-age=60")
	_, _ = w.Write(body.Bytes()) // who does not read has hung up
}

// readyz says whether the checker does its work, and what keeps it from that. Who
// asks from elsewhere learns how much that is and not what: it names mirrors,
// files and hosts.
func (d *door) readyz(w http.ResponseWriter, r *http.Request) {
	ready, lines := d.c.Standing().Readiness(time.Now())
	code, text := http.StatusOK, "ready"
	if !ready {
		code, text = http.StatusServiceUnavailable, "not ready"
	}
	if n := len(lines); n > 0 && !peer.Local(r) {
		lines = []string{fmt.Sprintf("degraded: %d things are not as they should be: ask on this host", n)}
	}
	say(w, code, strings.Join(append([]string{text}, lines...), "\n"))
}
