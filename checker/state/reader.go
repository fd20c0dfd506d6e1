package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"meridian/internal/store"
)

// ErrNoSnapshot is returned by Load before a checker has written anything, or
// when what was there is gone.
var ErrNoSnapshot = errors.New("state: no snapshot yet")

// How often a Reader that follows looks for itself. Jitter keeps many nodes from
// asking one Redis at once.
const (
	pollDir   = 2 * time.Second
	pollRedis = 5 * time.Second
	jitter    = 0.25 // of it, either way

	// restBetween two looks, however much is heard: a checker that takes over a
	// publication writes many times a second.
	restBetween = 250 * time.Millisecond

	// readTimeout bounds one look. While one follows, nobody waits for it.
	readTimeout = 30 * time.Second
)

// Reader reads what checkers write, at whatever vantage points. Its methods are
// safe for concurrent use.
type Reader struct {
	store *store.Store
	local bool // a directory: to look costs next to nothing
	poll  time.Duration
	now   func() time.Time

	looking  sync.Mutex // guards views and combined, and is held while something is read
	views    map[string]*view
	combined combiner

	mu        sync.Mutex // guards what follows, and is held for no longer than that takes
	last      *Snapshot  // nil: none yet
	err       error      // of the last look
	following int        // calls of Follow that keep last up to date
}

// OpenReader returns the state that url names, to be read: see OpenWriter.
func OpenReader(url string, o Options) (*Reader, error) {
	s, err := store.Open(url, store.Options{Getenv: o.Getenv})
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	r := &Reader{store: s, poll: pollRedis, now: time.Now, views: make(map[string]*view)}
	if strings.HasPrefix(url, "dir:") {
		r.poll, r.local = pollDir, true
	}
	return r, nil
}

// CheckURL reports what is wrong with the URL of a state, and what to write
// instead. It quotes no password.
func CheckURL(url string) error { return store.CheckURL(url) }

// String is the URL of the state without user, password and options.
func (r *Reader) String() string { return r.store.String() }

// Close ends the connections.
func (r *Reader) Close() error { return r.store.Close() }

// Load returns the newest findings of all vantage points, combined. It returns
// the same pointer as long as they are the same, and the same Status for a mirror
// of which nothing else is said. While Follow runs, what is in Redis is returned
// as that has read it, without waiting.
//
// An error tells what is wrong now; the snapshot beside it, if it is not nil, is
// the last good one. ErrNoSnapshot is returned as long as nobody has written
// anything, and when all of it is gone.
func (r *Reader) Load(ctx context.Context) (*Snapshot, error) {
	r.mu.Lock()
	last, err, following := r.last, r.err, r.following > 0 && !r.local
	r.mu.Unlock()
	if following && (last != nil || err != nil) {
		return last, err
	}
	return r.read(ctx)
}

// Follow keeps what Load returns up to date until ctx ends, and calls changed,
// from one goroutine, whenever that is something else: of a change in Redis it
// hears at once, otherwise it looks by itself.
func (r *Reader) Follow(ctx context.Context, changed func()) {
	r.mu.Lock()
	r.following++
	r.mu.Unlock()
	heard := make(chan struct{}, 1)
	var listening sync.WaitGroup
	listening.Go(func() {
		r.store.Watch(ctx, recordKind, func() {
			select {
			case heard <- struct{}{}:
			default: // it will look anyway
			}
		})
	})
	defer func() {
		listening.Wait()
		r.mu.Lock()
		r.following--
		r.mu.Unlock()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-heard:
		}
		r.mu.Lock()
		last, before := r.last, r.err
		r.mu.Unlock()
		look, cancel := context.WithTimeout(ctx, readTimeout)
		snap, err := r.read(look)
		cancel()
		if ctx.Err() == nil && (snap != last || said(err) != said(before)) {
			changed()
		}
		timer.Reset(restBetween)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(time.Duration(float64(r.poll) * (1 + jitter*(2*rand.Float64()-1))))
	}
}

func said(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// read looks at what is stored now.
func (r *Reader) read(ctx context.Context) (*Snapshot, error) {
	r.looking.Lock()
	defer r.looking.Unlock()
	snap, err := r.look(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if snap != nil {
		r.last = snap
	}
	r.err = err
	return r.last, r.err
}

// look returns the combined snapshot, nil without any, and what is wrong.
func (r *Reader) look(ctx context.Context) (*Snapshot, error) {
	names, err := r.store.Names(ctx, recordKind)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	var errs []error
	for _, name := range names {
		v := r.views[name]
		if v == nil {
			v = new(view)
		}
		rec, err := r.store.Read(ctx, recordKind, name, v.last())
		if errors.Is(err, store.ErrNotFound) {
			continue // gone since it was listed
		}
		if err == nil {
			_, err = v.take(rec)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("state: %s: %w", r.store, err))
		}
		if v.snap != nil || v.bad != nil {
			r.views[name] = v
		}
	}
	var snaps []*Snapshot
	for _, name := range slices.Sorted(maps.Keys(r.views)) {
		if s := r.views[name].snap; s != nil {
			snaps = append(snaps, s)
		}
	}
	// What is gone while another is there is left out when it is too old, as it
	// is while it is there: a Redis that was empty is filled by one checker after
	// the other.
	if len(names) == 0 {
		errs = append(errs, ErrNoSnapshot)
	}
	if len(snaps) == 0 {
		return nil, errors.Join(errs...)
	}
	return r.combined.combine(r.now(), snaps), errors.Join(errs...)
}

// last is the newest record that was read, also one that made no sense.
func (v *view) last() *store.Record {
	if v.bad != nil {
		return v.bad
	}
	return v.rec
}

// History returns the events of a mirror ("" is the origin) that any vantage
// point saw, newest first, at most limit.
func (r *Reader) History(ctx context.Context, mirror string, limit int) ([]Event, error) {
	names, err := r.store.Names(ctx, recordKind)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	var all []Event
	for _, name := range names {
		events, err := history(ctx, r.store, name, mirror, limit)
		if err != nil {
			return nil, err
		}
		all = append(all, events...)
	}
	slices.SortStableFunc(all, func(a, b Event) int { return b.Time.Compare(a.Time) })
	return all[:min(limit, len(all))], nil
}
