package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"meridian/internal/store"
)

// ErrNotHolder is returned to a writer that is not, or is no longer, the one
// that may write.
var ErrNotHolder = store.ErrNotHolder

// Options are what else a state is opened with. The zero value works.
type Options struct {
	// Vantage is the place that the writer looks from. Writers of one state at
	// several places write snapshots of their own, which readers combine. Default
	// "", the only place.
	Vantage string

	// Lease is for how long a writer may write without renewing that. Default
	// 30 s.
	Lease time.Duration
}

// DefaultLease is for how long a writer that says nothing remains the writer.
const DefaultLease = 30 * time.Second

// Writer is what a checker keeps its findings in. Its methods are safe for
// concurrent use.
type Writer struct {
	opts Options
	dir  *store.Dir
	read *Dir

	mu   sync.Mutex
	last *Snapshot // what was read or written last
}

// OpenWriter returns the state that url names, dir:PATH, to be written. Nothing
// is made before the first Acquire.
func OpenWriter(url string, o Options) (*Writer, error) {
	path, ok := strings.CutPrefix(url, "dir:")
	if !ok || path == "" {
		return nil, fmt.Errorf("state: %q cannot be written by this release; write dir:PATH", url)
	}
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	return &Writer{opts: o, dir: store.OpenDir(path), read: NewDir(path)}, nil
}

// Load returns the newest snapshot of this vantage point, or ErrNoSnapshot.
func (w *Writer) Load(ctx context.Context) (*Snapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.load(ctx)
}

func (w *Writer) load(ctx context.Context) (*Snapshot, error) {
	snap, err := w.read.Load(ctx)
	if err == nil {
		w.last = snap
	}
	return snap, err
}

// Acquire makes the caller the one writer, or renews that, and returns for how
// long from now on. ErrNotHolder, wrapped, says that another one has the lease.
func (w *Writer) Acquire(context.Context) (time.Duration, error) {
	if err := w.dir.Acquire("snapshot"); err != nil {
		return 0, err
	}
	return w.opts.Lease, nil
}

// Write stores a change in one step, or nothing of it.
func (w *Writer) Write(ctx context.Context, c *Change) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.dir.Holds() {
		return ErrNotHolder
	}
	if w.last == nil {
		if _, err := w.load(ctx); err != nil && !errors.Is(err, ErrNoSnapshot) {
			return err
		}
	}
	next := &Snapshot{Taken: c.Taken, Vantage: w.opts.Vantage, Mirrors: map[string]*Status{}, Truth: map[Key]Truth{}}
	if w.last != nil {
		maps.Copy(next.Mirrors, w.last.Mirrors)
		maps.Copy(next.Truth, w.last.Truth)
	}
	for name, st := range c.Mirrors {
		if st == nil {
			delete(next.Mirrors, name)
			continue
		}
		next.Mirrors[name] = st
	}
	maps.Copy(next.Truth, c.Truth)
	data, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if err := w.dir.Replace("snapshot.json", data); err != nil {
		return err
	}
	w.last = next
	lines := map[string][]byte{}
	for i := range c.Events {
		line, err := json.Marshal(&c.Events[i])
		if err != nil {
			return fmt.Errorf("state: %w", err)
		}
		name := historyFile(c.Events[i].Mirror)
		lines[name] = append(append(lines[name], line...), '\n')
	}
	for name, text := range lines {
		if err := w.dir.Append(name, text); err != nil {
			return err
		}
	}
	return nil
}

// Release gives the lease back.
func (w *Writer) Release(context.Context) error { return w.dir.Release() }

// History returns the events of a mirror ("" is the origin), newest first, at
// most limit.
func (w *Writer) History(_ context.Context, mirror string, limit int) ([]Event, error) {
	data, err := os.ReadFile(w.dir.Path(historyFile(mirror)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	var events []Event
	for line := range bytes.Lines(data) {
		var e Event
		if json.Unmarshal(line, &e) == nil {
			events = append(events, e)
		}
	}
	slices.Reverse(events)
	return events[:min(limit, len(events))], nil
}

// Decisions returns what administrators have decided, in any order.
func (w *Writer) Decisions(context.Context) ([]Decision, error) {
	files, err := filepath.Glob(w.dir.Path("decisions/*.json"))
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	var all []Decision
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		var d Decision
		if err := json.Unmarshal(data, &d); err != nil {
			return nil, fmt.Errorf("state: %s: %w", file, err)
		}
		all = append(all, d)
	}
	return all, nil
}

// Decide keeps decisions, each in the place of what was decided before with the
// same verb about the same key. It needs no lease.
func (w *Writer) Decide(_ context.Context, decisions []Decision) error {
	for i := range decisions {
		d := &decisions[i]
		data, err := json.Marshal(d)
		if err != nil {
			return fmt.Errorf("state: %w", err)
		}
		if err := w.dir.Put("decisions/"+url.QueryEscape(d.Verb+"/"+d.Key.String())+".json", data); err != nil {
			return err
		}
	}
	return nil
}

func historyFile(mirror string) string { return "history/" + url.QueryEscape(mirror) + ".jsonl" }
