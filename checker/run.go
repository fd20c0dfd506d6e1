package checker

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"meridian/checker/state"
	"meridian/schema"
)

// Options are what a [Checker] is made from. Settings and Log are required.
type Options struct {
	Settings Settings
	Log      *slog.Logger

	// Version of the program, for the User-Agent.
	Version string

	// Store keeps the findings. Nil: what Settings.State names.
	Store Store

	// Notifier is told of every event. Nil: nobody is.
	Notifier Notifier

	// ReadOverrides reads the file that Settings.Overrides names, and reports what
	// is wrong with it. It is called at the start and after each change of the
	// file. Nil: administrators decide nothing.
	ReadOverrides func() (*Overrides, error)

	// Probe replaces the network of mirrors, for tests: Dial, Lookup and RootCAs
	// count.
	Probe ProbeOptions
}

// A Notifier tells people of events. Notify does not block.
type Notifier interface {
	Notify(events []state.Event)
}

// A Checker visits the mirrors of a network and keeps what it finds out. Its
// methods are safe for concurrent use; Run and Once are called once.
type Checker struct {
	opts  Options
	log   *slog.Logger
	store Store
	close func() error // of a store that New has opened

	originCAs *x509.CertPool // that tier0 is asked with; nil is the system's

	hints    chan string
	reload   chan reloadRequest
	standing atomic.Pointer[Standing]
}

// A Standing is what a checker does and knows at one moment. It is never changed
// after it was made.
type Standing struct {
	// Active: this checker holds the lease and visits mirrors. Otherwise it waits
	// for the lease, and knows nothing.
	Active bool
	Since  time.Time // when it became what Active says

	// Snapshot is what is known, whether or not it could be stored already. Nil
	// unless Active.
	Snapshot *state.Snapshot

	// Network with the versions that are pending, and its mirrors by name. Never
	// nil.
	Network *schema.Network
	Mirrors []*schema.Mirror

	// Stored is when the store last took what is known; zero if it has not yet.
	// StoreErr is why it did not the last time, or nil; the lease that could not be
	// asked for included.
	Stored   time.Time
	StoreErr error

	// WriteErrors are the writes since the start that failed for another reason
	// than that another checker is the writer.
	WriteErrors uint64

	// Complete: every mirror that can be visited, of which there are Visitable, was
	// visited since the checker became active, or shortly before. Unvisited were
	// not: new ones, when it is complete.
	Complete             bool
	Visitable, Unvisited int

	// Blind: hardly any mirror answers, so that it is more likely that this host
	// has no network. Nothing is judged by silence then, and findings grow old.
	Blind bool

	Origin OriginNumbers

	// Visits made since the start, the requests and bytes that they cost, how many
	// are under way, and how many should have begun more than a minute ago.
	Visits, Requests, Bytes uint64
	UnderWay, Overdue       int

	// Events since the start, by their kind, and how long publications took.
	Events map[string]uint64
	Lags   Lags

	// Problems are what is wrong with files now, by their subject: "network",
	// "mirrors", "files", "overrides".
	Problems map[string][]string
}

// New returns a checker. It fails when the settings or the network file cannot be
// used.
func New(opts Options) (*Checker, error) {
	if err := opts.Settings.Check(); err != nil {
		return nil, err
	}
	c := &Checker{
		opts: opts, log: opts.Log, store: opts.Store,
		hints: make(chan string, 1024), reload: make(chan reloadRequest),
	}
	if c.opts.Settings.CacheDir == "" {
		// Never below the directory for everybody's temporary files: what somebody
		// else put there would be believed.
		if base, err := os.UserCacheDir(); err == nil {
			c.opts.Settings.CacheDir = filepath.Join(base, "meridian-checker")
		}
	}
	var err error
	if c.originCAs, err = ReadCAs(opts.Settings.OriginCAFile); err != nil {
		return nil, fmt.Errorf("origin_ca_file: %w", err)
	}
	if c.opts.Probe.RootCAs == nil {
		if c.opts.Probe.RootCAs, err = ReadCAs(opts.Settings.MirrorsCAFile); err != nil {
			return nil, fmt.Errorf("mirrors_ca_file: %w", err)
		}
	}
	tree, err := schema.ReadTree(opts.Settings.Network, "", nil)
	if tree == nil {
		return nil, err
	}
	if err := c.checkNetwork(tree.Network); err != nil {
		return nil, err
	}
	if c.store == nil {
		w, err := state.OpenWriter(opts.Settings.State, state.Options{Vantage: opts.Settings.Vantage})
		if err != nil {
			return nil, err
		}
		c.store, c.close = w, w.Close
	}
	c.standing.Store(&Standing{Network: WithPending(tree.Network, opts.Settings.PendingVersions), Mirrors: tree.Mirrors})
	return c, nil
}

// Close closes what New has opened, after Run or Once.
func (c *Checker) Close() error {
	if c.close == nil {
		return nil
	}
	return c.close()
}

// checkNetwork tells whether tier0s are named for trees that there are.
func (c *Checker) checkNetwork(n *schema.Network) error {
	for tree := range c.opts.Settings.Origin {
		if err := checkTree(n, tree); err != nil {
			return err
		}
	}
	return nil
}

// Standing returns what the checker does and knows now.
func (c *Checker) Standing() *Standing { return c.standing.Load() }

// Store returns where the findings are kept.
func (c *Checker) Store() Store { return c.store }

// Hint asks for a visit of a mirror soon: it says that it has synced. A mirror is
// visited at most once a minute because of hints, and what it says is not
// believed. It reports whether there is such a mirror.
func (c *Checker) Hint(mirror string) bool {
	s := c.Standing()
	for _, m := range s.Mirrors {
		if m.Name == mirror {
			select {
			case c.hints <- mirror:
			default: // so many wait that it will be visited anyway
			}
			return true
		}
	}
	return false
}

// reloadRequest asks for the files to be read again.
type reloadRequest struct {
	force bool
	done  chan error
}

// Reload reads the network and the mirrors again, now. With force it accepts what
// a change of files alone does not: that more than 30 % of the mirrors are gone
// at once. The error says what is wrong with the files. It needs Run.
func (c *Checker) Reload(ctx context.Context, force bool) error {
	r := reloadRequest{force, make(chan error, 1)}
	select {
	case c.reload <- r:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

const (
	// storeTimeout is for one question to the store.
	storeTimeout = 20 * time.Second

	// standbyEvery is how often a checker that is not the writer asks whether it
	// may be. A lease ends 30 seconds after its holder has.
	standbyEvery = 5 * time.Second
)

// errLeaseLost ends the active part of Run.
var errLeaseLost = errors.New("the lease has gone to another checker")

// Run checks the network until ctx ends, as long as this checker is the one
// writer, and waits to become it as long as another one is. While it waits it
// asks nothing of anybody: two checkers cost mirrors no more than one. It returns
// nil when ctx has ended and all is stored.
func (c *Checker) Run(ctx context.Context) error {
	return c.run(ctx, false)
}

// run is Run, or with once a round that ends by itself.
func (c *Checker) run(ctx context.Context, once bool) error {
	files := newWatch(c)
	for {
		lease, err := c.acquire(ctx, once)
		if err == nil {
			if err = files.first(ctx); err == nil {
				err = c.active(ctx, lease, files, once)
			}
			c.release(ctx)
		}
		if once {
			return err
		}
		c.standing.Store(c.asleep())
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, errLeaseLost) {
			return err
		}
		c.log.Warn("standing by", "err", err)
	}
}

// asleep is the standing of a checker that is not the writer.
func (c *Checker) asleep() *Standing {
	was := c.Standing()
	is := &Standing{
		Network: was.Network, Mirrors: was.Mirrors, Since: time.Now().UTC(), Stored: was.Stored, StoreErr: was.StoreErr,
		Visits: was.Visits, Requests: was.Requests, Bytes: was.Bytes, Problems: was.Problems,
		WriteErrors: was.WriteErrors, Events: was.Events, Lags: was.Lags,
	}
	if !was.Active {
		is.Since = was.Since
	}
	return is
}

// acquire waits until this checker is the writer. With once it does not wait.
func (c *Checker) acquire(ctx context.Context, once bool) (lease time.Duration, err error) {
	told := ""
	for {
		lease, err := c.tryAcquire(ctx)
		if err == nil {
			return lease, nil
		}
		if once {
			return 0, beside(err)
		}
		is := c.asleep()
		if is.StoreErr = err; errors.Is(err, ErrNotHolder) {
			is.StoreErr = nil
		}
		c.standing.Store(is)
		if text := err.Error(); text != told && ctx.Err() == nil {
			told = text
			if errors.Is(err, ErrNotHolder) {
				c.log.Info("standing by", "err", err)
			} else {
				c.log.Warn("the state cannot be written: waiting for it", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(standbyEvery):
		case r := <-c.reload:
			r.done <- nil // files are read when it is this checker's turn
		}
	}
}

// beside says to a person why a state could not be taken.
func beside(err error) error {
	if !errors.Is(err, ErrNotHolder) {
		return err
	}
	by := ""
	if held, ok := errors.AsType[*state.HeldError](err); ok {
		by = " (" + held.By + ")"
	}
	return &busyError{by}
}

// A busyError is ErrNotHolder for people.
type busyError struct {
	by string // " (…)", or ""
}

func (e *busyError) Error() string {
	return "another checker writes here" + e.by + ": stop it, or look at what it knows with checker origin"
}

func (e *busyError) Unwrap() error { return ErrNotHolder }

func (c *Checker) tryAcquire(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return c.store.Acquire(ctx)
}

// release gives the lease back, so that nobody has to wait for its end.
func (c *Checker) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := c.store.Release(ctx); err != nil {
		c.log.Warn("the lease is not given back: others wait until it ends", "err", err)
	}
}

// pause waits for d, and reports whether ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// load returns the findings of before, nil if there are none. The lease is held
// already: a store that cannot be read although it can be written holds something
// that is no snapshot.
func (c *Checker) load(ctx context.Context) (*state.Snapshot, error) {
	var err error
	for try := range 3 {
		if try > 0 && !pause(ctx, time.Second) {
			return nil, ctx.Err()
		}
		var snap *state.Snapshot
		if snap, err = c.loadOnce(ctx); err == nil || errors.Is(err, state.ErrNoSnapshot) {
			return snap, nil
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	c.log.Error("the findings of before cannot be read: beginning anew", "err", err)
	return nil, nil
}

func (c *Checker) loadOnce(ctx context.Context) (*state.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return c.store.Load(ctx)
}

// A Round is what a single round over all mirrors has found.
type Round struct {
	Snapshot *state.Snapshot

	// Mirrors that were visited, and Answered how many of them gave any answer.
	Mirrors, Answered int
}

// Once visits every mirror of the network once, those that fail a second time,
// stores what it finds, and returns that. The error says that nothing could be
// found out, or not be stored: another checker holding the lease is one, and so
// is an origin of which nothing is known.
func (c *Checker) Once(ctx context.Context) (*Round, error) {
	if err := c.run(ctx, true); err != nil {
		return nil, err
	}
	s := c.Standing()
	r := &Round{Snapshot: s.Snapshot}
	for _, m := range s.Mirrors {
		st := s.Snapshot.Mirrors[m.Name]
		if st == nil || st.Visited.IsZero() {
			continue
		}
		if r.Mirrors++; st.Failures == 0 {
			r.Answered++
		}
	}
	return r, nil
}

// logEvent writes one line about an event.
func (c *Checker) logEvent(e *state.Event) {
	attrs := []any{"kind", e.Kind}
	level := slog.LevelInfo
	if e.Mirror != "" {
		attrs = append(attrs, "mirror", e.Mirror)
	}
	if n := len(e.Keys); n > 0 {
		attrs = append(attrs, "repositories", n, "first", e.Keys[0].String())
	}
	message := "changed"
	switch e.Kind {
	case state.HealthChanged:
		message = "mirror is " + e.To.String()
		attrs = append(attrs, "was", e.From.String())
		if e.Lag > 0 {
			attrs = append(attrs, "lag", e.Lag.Round(time.Second))
		}
		if e.From.Listable() && !e.To.Listable() {
			level = slog.LevelWarn
		}
	case state.Published:
		message = "the origin has published"
	case state.OriginTroubled:
		message = "the origin is as it should be again"
		if e.Problem != nil {
			message, level = "the origin is not believed", slog.LevelWarn
		}
	case state.TLSExpiring:
		message, level = "certificate ends soon", slog.LevelWarn
	case state.OverrideChanged:
		message = "an administrator has decided"
	case state.SchemeChanged, state.FamilyChanged:
		message = "a way to the mirror has changed"
	}
	if e.Problem != nil {
		attrs = append(attrs, "reason", e.Problem.Reason)
		if ev := e.Problem.Evidence; ev != nil {
			attrs = append(attrs, "url", ev.URL)
			switch {
			case ev.Error != "":
				attrs = append(attrs, "answer", ev.Error)
			case ev.Status != 0: // files have none
				attrs = append(attrs, "answer", ev.Status)
			}
		}
	}
	c.log.Log(context.Background(), level, message, attrs...)
}
