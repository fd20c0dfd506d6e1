package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"meridian/internal/store"
)

// ErrNotHolder is returned to a writer that is not, or is no longer, the one
// that may write, or that has not loaded what another has written since.
var ErrNotHolder = store.ErrNotHolder

// HeldError is ErrNotHolder with who is the writer.
type HeldError = store.HeldError

// Options are what else a state is opened with. The zero value works.
type Options struct {
	// Vantage is the place that a writer looks from: letters, digits, "-" and "_".
	// Writers of one state at several places write snapshots of their own, which
	// readers combine. Default "", the only place.
	Vantage string

	// Lease is for how long a writer may write without renewing that. Default
	// 30 s.
	Lease time.Duration

	// Getenv finds passwords that the URL does not hold. Default os.Getenv.
	Getenv func(string) string
}

// recordKind and the kinds of logs, to which the vantage point is added.
const (
	recordKind  = "snapshot"
	historyKind = "history"
	originKind  = "origin"

	originLog = "history" // the name of the one log of that kind
)

// of returns a kind of logs of a vantage point.
func of(kind, vantage string) string {
	if vantage == "" {
		return kind
	}
	return kind + "." + vantage
}

// Writer is what a checker keeps its findings in. Several may be open; the one
// that has the lease writes. It remembers what was written, and writes all of it
// again where that was lost: a Redis that restarts empty is filled by the next
// Write. Its methods are safe for concurrent use.
type Writer struct {
	vantage   string
	store     *store.Store
	rec       *store.Writer
	decisions store.Documents

	mu   sync.Mutex
	view view
	told bool // the vantage point is written
}

// OpenWriter returns the state that url names, to be written: dir:PATH,
// redis://HOST:PORT/DB, redis+sentinel://HOST:PORT,…/MASTER/DB and what else
// docs/OPERATING.md lists. It connects to nothing, and makes nothing before the
// first Acquire.
func OpenWriter(url string, o Options) (*Writer, error) {
	for _, c := range o.Vantage {
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return nil, fmt.Errorf("state: vantage %q is not a word of letters, digits, - and _; write such as paris", o.Vantage)
		}
	}
	s, err := store.Open(url, store.Options{Lease: o.Lease, Getenv: o.Getenv})
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	return &Writer{vantage: o.Vantage, store: s, rec: s.Writer(recordKind, o.Vantage), decisions: s.Documents()}, nil
}

// String is the URL of the state without user, password and options.
func (w *Writer) String() string { return w.store.String() }

// Close ends the connections. It does not give the lease back: see Release.
func (w *Writer) Close() error { return w.store.Close() }

// Load returns the newest snapshot of this vantage point, or ErrNoSnapshot. Where
// the store has lost it, that is what this writer last wrote or loaded.
func (w *Writer) Load(ctx context.Context) (*Snapshot, error) {
	rec, err := w.rec.Read(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return nil, ErrNoSnapshot
	}
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	snap, err := w.view.take(rec)
	if err != nil {
		return nil, fmt.Errorf("state: %s: %w", w.store, err)
	}
	return snap, nil
}

// Acquire makes the caller the one writer of this vantage point, or renews that,
// and returns for how long from now on. ErrNotHolder, wrapped, says that another
// one has the lease, and who; after it, Load before the next Write.
func (w *Writer) Acquire(ctx context.Context) (time.Duration, error) {
	d, err := w.rec.Acquire(ctx)
	if err != nil {
		return 0, fmt.Errorf("state: %w", err)
	}
	return d, nil
}

// Write stores a change in one step, or nothing of it. A writer whose lease has
// gone to another gets ErrNotHolder, wrapped, and has changed nothing, however
// late it wakes up. After another error the change may be stored; to write it
// again, alone or with later ones, does no harm. A change with nothing but Taken
// costs little.
func (w *Writer) Write(ctx context.Context, c *Change) error {
	change, err := w.encode(c)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if err := w.rec.Write(ctx, change); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = true
	return nil
}

func (w *Writer) encode(c *Change) (*store.Change, error) {
	out := &store.Change{Taken: c.Taken, Set: make(map[string]string, len(c.Mirrors)+len(c.Truth))}
	w.mu.Lock()
	told := w.told
	w.mu.Unlock()
	if w.vantage != "" && !told {
		out.Set[vantageField] = `"` + w.vantage + `"`
	}
	for name, st := range c.Mirrors {
		if st == nil {
			out.Remove = append(out.Remove, mirrorGroup+name)
			continue
		}
		text, err := json.Marshal(st)
		if err != nil {
			return nil, fmt.Errorf("mirror %q: %w", name, err)
		}
		out.Set[mirrorGroup+name] = string(text)
	}
	for k, t := range c.Truth {
		text, err := json.Marshal(t)
		if err != nil {
			return nil, fmt.Errorf("truth of %s: %w", k, err)
		}
		out.Set[truthGroup+k.String()] = string(text)
	}
	for _, k := range c.Forget {
		out.Remove = append(out.Remove, truthGroup+k.String())
	}
	for id, pub := range c.Publications {
		if pub == nil {
			out.Remove = append(out.Remove, publicationGroup+id)
			continue
		}
		text, err := json.Marshal(pub)
		if err != nil {
			return nil, fmt.Errorf("publication of %s: %w", id, err)
		}
		out.Set[publicationGroup+id] = string(text)
	}
	for i := range c.Events {
		e := c.Events[i]
		e.Time = e.Time.UTC() // as logs want it
		text, err := json.Marshal(&e)
		if err != nil {
			return nil, fmt.Errorf("event of %q: %w", e.Mirror, err)
		}
		log := store.LogEntry{Kind: of(historyKind, w.vantage), Name: e.Mirror, Value: string(text)}
		if e.Mirror == "" {
			log.Kind, log.Name = of(originKind, w.vantage), originLog
		}
		out.Log = append(out.Log, log)
	}
	return out, nil
}

// Release gives the lease back, so that another checker need not wait for its
// end.
func (w *Writer) Release(ctx context.Context) error {
	if err := w.rec.Release(ctx); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}

// History returns the events of a mirror ("" is the origin) as this vantage point
// saw them, newest first, at most limit.
func (w *Writer) History(ctx context.Context, mirror string, limit int) ([]Event, error) {
	return history(ctx, w.store, w.vantage, mirror, limit)
}

func history(ctx context.Context, s *store.Store, vantage, mirror string, limit int) ([]Event, error) {
	kind, name := of(historyKind, vantage), mirror
	if mirror == "" {
		kind, name = of(originKind, vantage), originLog
	}
	entries, err := s.Log(ctx, kind, name, limit)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	var events []Event
	for _, text := range entries {
		var e Event
		// One that a newer release writes differently is not worth all the others.
		if json.Unmarshal([]byte(text), &e) == nil {
			events = append(events, e)
		}
	}
	return events, nil
}
