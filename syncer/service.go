package syncer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"meridian/internal/fetch"
	"meridian/internal/peer"
	"meridian/signer/verify"
)

// A Service follows the upstreams of a settings file. Its methods are safe for
// concurrent use.
type Service struct {
	listen string
	log    *slog.Logger
	jobs   []*job // in the order of their names
}

// A job keeps one tree.
type job struct {
	name     string
	follower Follower
	interval time.Duration
	synced   Synced
	log      *slog.Logger

	// asked holds a wish for a run that has not begun yet.
	asked chan struct{}

	mu     sync.Mutex
	status status // guarded by mu
}

// status is what became of the runs of a job.
type status struct {
	running  bool
	runs     [len(results)]uint64
	failures int       // since the last success
	success  time.Time // when the tree was last known to be what the upstream has
	err      error     // of the last run
	upstream time.Time // its TIME
	held     int
	seconds  float64 // of the last run that changed something
	bytes    int64   // received and sent
	deleted  int
	hints    [2]uint64 // that arrived, and that did not
}

// A result is how a run ended.
type result int

const (
	changed    result = iota // something was new, and is here now
	current                  // nothing was new
	behind                   // the upstream is older than the tree
	asked                    // another process follows, and will once more
	incomplete               // not all that is new is here
	failed
)

var results = [...]string{"changed", "current", "behind", "asked", "incomplete", "failed"}

func (r result) String() string { return results[r] }

// resultOf judges a run.
func resultOf(report *Report, err error) result {
	switch {
	case errors.Is(err, ErrAsked):
		return asked
	case errors.Is(err, ErrIncomplete):
		return incomplete
	case err != nil:
		return failed
	case report.Behind:
		return behind
	case len(report.Dests) == 1 && report.Dests[0].Current:
		return current
	}
	return changed
}

// NewService checks settings, reads the keys that they name, and starts nothing.
func NewService(cfg Config, log *slog.Logger) (*Service, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Service{listen: cfg.Listen, log: log}
	for _, name := range slices.Sorted(maps.Keys(cfg.Trees)) {
		t := cfg.Trees[name]
		j := &job{
			name: name, interval: t.Interval, synced: t.Synced, log: log.With("tree", name),
			asked: make(chan struct{}, 1),
			follower: Follower{
				Upstream: t.Upstream, Tree: t.Path, Exclude: t.Exclude, Grace: t.Grace, MaxDelete: t.MaxDelete, ListEvery: t.ListInterval,
				Rsync: Rsync{Program: t.Rsync, Protocol: t.Protocol, Checksum: t.Checksum, PasswordFile: t.PasswordFile, Timeout: t.Timeout},
			},
		}
		if len(t.Pub) > 0 {
			ring, err := verify.OpenRing(t.Pub...)
			if err != nil {
				return nil, fmt.Errorf("trees: %s: pub: %w", name, err)
			}
			j.follower.Keys = ring
		}
		s.jobs = append(s.jobs, j)
	}
	return s, nil
}

// Names are those of the trees, in order.
func (s *Service) Names() []string {
	var names []string
	for _, j := range s.jobs {
		names = append(names, j.name)
	}
	return names
}

func (s *Service) job(name string) *job {
	i := slices.IndexFunc(s.jobs, func(j *job) bool { return j.name == name })
	if i < 0 {
		return nil
	}
	return s.jobs[i]
}

// Once follows one tree, now. with, if not nil, may change how.
func (s *Service) Once(ctx context.Context, name string, with func(*Follower)) (*Report, error) {
	j := s.job(name)
	if j == nil {
		return nil, fmt.Errorf("no tree %q; write one of %s", name, strings.Join(s.Names(), ", "))
	}
	f := j.follower
	f.ListEvery = 0 // somebody wants it now
	if with != nil {
		with(&f)
	}
	return j.run(ctx, f)
}

// Ask has a tree followed at once, or after the run that is under way. The empty
// name is all of them. It is false for a name that is none.
func (s *Service) Ask(name string) bool {
	known := name == ""
	for _, j := range s.jobs {
		if name != "" && j.name != name {
			continue
		}
		known = true
		select {
		case j.asked <- struct{}{}:
		default: // somebody has asked already
		}
	}
	return known
}

// Run follows all trees until ctx ends. ready is called once it listens, with the
// address, "" without one. Runs that are under way when ctx ends are broken off;
// the next ones go on from there.
func (s *Service) Run(ctx context.Context, metrics http.Handler, ready func(addr string)) error {
	g, ctx := errgroup.WithContext(ctx)
	addr := ""
	if s.listen != "" {
		l, err := net.Listen("tcp", s.listen)
		if err != nil {
			return fmt.Errorf("syncer: %w; write another address for listen", err)
		}
		addr = l.Addr().String()
		srv := &http.Server{
			Handler: s.handler(metrics), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second,
			WriteTimeout: 30 * time.Second, IdleTimeout: 75 * time.Second, MaxHeaderBytes: 16 << 10,
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		}
		g.Go(func() error {
			if err := srv.Serve(l); ctx.Err() == nil {
				return fmt.Errorf("syncer: %w", err)
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			return srv.Close() // who asks for metrics asks again
		})
	}
	for _, j := range s.jobs {
		g.Go(func() error {
			j.loop(ctx)
			return nil
		})
	}
	if ready != nil {
		ready(addr)
	}
	return g.Wait()
}

// loop follows a tree until ctx ends.
func (j *job) loop(ctx context.Context) {
	wanted := false
	for {
		f := j.follower
		if wanted {
			f.ListEvery = 0
		}
		report, err := j.run(ctx, f)
		if ctx.Err() != nil {
			return
		}
		j.tell(ctx, report, err)
		timer := time.NewTimer(j.pause())
		select {
		case <-ctx.Done():
		case <-timer.C:
			wanted = false
		case <-j.asked:
			wanted = true
		}
		timer.Stop()
	}
}

// pause is the time to the next run: about the interval, so that mirrors that
// were started together do not ask together for ever, and longer after failures.
func (j *job) pause() time.Duration {
	j.mu.Lock()
	failures := j.status.failures
	j.mu.Unlock()
	d := j.interval
	for ; failures > 1 && d < maxBackoff; failures-- {
		d = max(min(2*d, maxBackoff), j.interval)
	}
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}

// run follows once, and keeps what became of it.
func (j *job) run(ctx context.Context, f Follower) (*Report, error) {
	j.mu.Lock()
	j.status.running = true
	j.mu.Unlock()
	report, err := Follow(ctx, f)
	if report == nil {
		report = new(Report)
	}
	if len(report.Dests) == 0 { // it did not come so far
		report.Dests = []DestReport{{Dest: f.Tree}}
	}
	r, d := resultOf(report, err), &report.Dests[0]
	hinted := r == changed && !f.DryRun && j.synced != (Synced{})
	var unheard error
	if hinted {
		if unheard = j.synced.send(ctx); unheard != nil {
			d.Notes = append(d.Notes, fmt.Sprintf("the checker was not told: %v", unheard))
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	st := &j.status
	st.running = false
	if ctx.Err() != nil {
		return report, err // that it was interrupted says nothing of the tree
	}
	st.runs[r]++
	st.err = err
	st.held = report.Held
	if !report.Upstream.IsZero() {
		st.upstream = report.Upstream
	}
	st.bytes += d.Sent
	st.deleted += d.Deleted
	switch r {
	case changed:
		st.failures, st.success, st.seconds = 0, time.Now(), report.Seconds
	case current:
		st.failures, st.success = 0, time.Now()
	case incomplete, failed:
		st.failures++
	}
	switch {
	case unheard != nil:
		st.hints[1]++
	case hinted:
		st.hints[0]++
	}
	return report, err
}

// tell writes into the log what became of a run: what changed, and not that
// nothing did.
func (j *job) tell(ctx context.Context, report *Report, err error) {
	d := report.Dests[0]
	for _, n := range d.Notes {
		j.log.WarnContext(ctx, "noticed", "what", n)
	}
	switch resultOf(report, err) {
	case changed:
		j.log.InfoContext(ctx, "followed", "generation", d.Generation, "repositories", len(report.Repos), "added", d.Added, "changed", d.Changed,
			"bytes", d.Bytes, "retired", d.Retired, "deleted", d.Deleted, "seconds", report.Seconds)
	case current:
		j.log.DebugContext(ctx, "nothing is new")
	case behind:
		j.log.InfoContext(ctx, "the upstream is older than the tree", "upstream", report.Source)
	case asked:
		j.log.InfoContext(ctx, "another process follows", "what", err)
	case incomplete:
		j.log.WarnContext(ctx, "followed in part", "held", report.Held, "added", d.Added, "changed", d.Changed, "err", err)
	case failed:
		j.log.ErrorContext(ctx, "not followed", "err", err)
	}
}

// send tells the checker that the mirror has something new.
func (s Synced) send(ctx context.Context) error {
	token, err := os.ReadFile(s.TokenFile)
	if err != nil {
		return err
	}
	// The checker may be anywhere that the operator says.
	client := fetch.New(fetch.Options{AllowPrivate: true, MaxBytes: 64 << 10, MaxRedirects: -1, UserAgent: "meridian-syncer"})
	defer client.CloseIdleConnections()
	u := strings.TrimRight(s.URL, "/") + "/api/v1/mirrors/" + url.PathEscape(s.Mirror) + "/synced"
	resp, err := client.Do(ctx, fetch.Request{
		URL: u, Method: http.MethodPost,
		Header: http.Header{"Authorization": {"Bearer " + strings.TrimSpace(string(token))}},
	})
	if err != nil {
		return err
	}
	if resp.Status/100 != 2 {
		return fmt.Errorf("%s: status %d: %.200q", u, resp.Status, resp.Body)
	}
	return nil
}

// late is how old the last success may be before somebody should look.
func (j *job) late() time.Duration { return max(4*j.interval, time.Hour) }

// trouble says why a tree is not ready; "" when it is.
func (j *job) trouble(now time.Time) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	why := ""
	if j.status.err != nil {
		why = ": " + j.status.err.Error()
	}
	switch age := now.Sub(j.status.success).Round(time.Second); {
	case j.status.success.IsZero():
		return "not followed yet" + why
	case age > j.late():
		return fmt.Sprintf("not followed for %v%s", age, why)
	}
	return ""
}

// handler serves the pages for the operator.
func (s *Service) handler(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		var lines []string
		for _, j := range s.jobs {
			if why := j.trouble(time.Now()); why != "" {
				lines = append(lines, j.name+": "+why)
			}
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if len(lines) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, strings.Join(lines, "\n"))
			return
		}
		fmt.Fprintln(w, "ready")
	})
	follow := func(w http.ResponseWriter, r *http.Request) {
		if !peer.Local(r) {
			http.Error(w, "only this host may ask; run \"syncer once\" there", http.StatusForbidden)
			return
		}
		if !s.Ask(r.PathValue("tree")) {
			http.Error(w, fmt.Sprintf("no tree %q; write one of %s", r.PathValue("tree"), strings.Join(s.Names(), ", ")), http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintln(w, "asked")
	}
	mux.HandleFunc("POST /-/follow", follow)
	mux.HandleFunc("POST /-/follow/{tree}", follow)
	if metrics != nil {
		mux.Handle("GET /metrics", metrics)
	}
	return mux
}
