package stats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"meridian/internal/store"
)

// A Store keeps documents by name, NODE/NAME, for all nodes.
type Store interface {
	// Update replaces a document by what change makes of it, and nobody else's
	// change comes between: nil where there is none yet. When change returns nil
	// it stays as it is. change may be called again. When Update returns an error,
	// the document may be the old or the new one.
	Update(ctx context.Context, name string, change func(old []byte) ([]byte, error)) error

	// List returns the names of all documents, each with a tag that is another
	// whenever the content is.
	List(ctx context.Context) (map[string]string, error)

	// Load returns a document. Its error is fs.ErrNotExist where there is none.
	Load(ctx context.Context, name string) ([]byte, error)

	// Remove removes a document, if there is one.
	Remove(ctx context.Context, name string) error
}

// Open returns the store that a setting names: dir:PATH on one host, or a Redis for
// several. It is not touched before it is used.
func Open(url string) (Store, error) {
	s, err := store.OpenDocuments(url, store.Options{})
	if err != nil {
		return nil, fmt.Errorf("stats: %w", err)
	}
	return s, nil
}

// CheckURL reports what is wrong with the URL of a store, and what to write
// instead. It quotes none of it.
func CheckURL(url string) error { return store.CheckURL(url) }

// Options is what a Recorder needs.
type Options struct {
	Store Store
	Node  string // name of this node: no two of a network have one
	Days  int    // how long documents are kept
	Now   func() time.Time
	Log   *slog.Logger
}

// Times of a recorder.
const (
	flushEvery   = 30 * time.Second // what a kill may lose
	storeTimeout = 10 * time.Second
)

// maxParts is how many parts wait for a store that is away: a week of days, and
// the weeks around them. The oldest go first.
const maxParts = 20

// A Recorder takes the counts out of tallies and writes them for this node. Its
// methods are safe for concurrent use.
type Recorder struct {
	Options

	attaching sync.Mutex // guards attached
	attached  []attached // the last is the newest

	// session makes the marks of this process different from all others.
	session string
	err     atomic.Pointer[error] // what is wrong with the store now

	mu    sync.Mutex // guards what follows
	since time.Time  // what is in tallies was counted from then on
	parts map[part]*pending
	marks int
	swept Day // when old documents were removed
}

// attached are counters that somebody may still raise. Whoever can holds the
// tally.
type attached struct {
	*counters
	by weak.Pointer[Tally]
}

// pending is what was counted of a part and is not written yet.
type pending struct {
	change
	unsure change // may have been written: nobody knows; its mark is "" if there is none
}

// A change is what one write adds to a document.
type change struct {
	mark  string
	total Value
	cells map[cell]Value // what is added
	from  map[cell]Value // the counts that it was made from
}

// NewRecorder returns a recorder that has counted nothing. It touches the store
// only when it is flushed.
func NewRecorder(o Options) *Recorder {
	return &Recorder{Options: o, session: rand.Text(), since: o.Now(), parts: map[part]*pending{}, swept: -1}
}

// Attach returns counters for a layout, from which the recorder will take what
// they have counted, for as long as somebody holds them. For the layout of the
// last call it returns the same.
func (r *Recorder) Attach(l *Layout) *Tally {
	r.attaching.Lock()
	defer r.attaching.Unlock()
	if n := len(r.attached); n > 0 && r.attached[n-1].layout.equal(l) {
		if t := r.attached[n-1].by.Value(); t != nil {
			return t
		}
	}
	t := NewTally(l)
	r.attached = append(r.attached, attached{t.counters, weak.Make(t)})
	return t
}

// drain takes what was counted since the last time. It belongs to the period in
// which that was.
func (r *Recorder) drain() {
	day := DayOf(r.since)
	r.since = r.Now()
	r.attaching.Lock()
	var from []*counters
	r.attached = slices.DeleteFunc(r.attached, func(a attached) bool {
		// In this order: after the pointer is gone nobody can count any more.
		gone := a.by.Value() == nil
		from = append(from, a.counters)
		return gone
	})
	r.attaching.Unlock()
	for _, c := range from {
		c.drain(func(t *Table, c cell, v Value) {
			p := part{t, t.period(day), r.Node}
			d := r.parts[p]
			if d == nil {
				d = &pending{change: change{cells: map[cell]Value{}}}
				r.parts[p] = d
			}
			d.total.add(v)
			old := d.cells[c]
			old.add(v)
			d.cells[c] = old
		})
	}
}

// Run writes what was counted every half minute, and when a day ends, until ctx
// does. Whatever goes wrong is tried again; see Err.
func (r *Recorder) Run(ctx context.Context) error {
	for {
		// A request of the last moments of a day may count for the next one, and
		// no other may.
		now := r.Now()
		midnight := (DayOf(now) + 1).Time().Sub(now)
		timer := time.NewTimer(min(flushEvery, midnight))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
			_ = r.Flush(ctx) // Err has it
		}
	}
}

// Flush takes what was counted and writes it.
func (r *Recorder) Flush(ctx context.Context) error { return r.flush(ctx, false) }

// Close writes everything, as far as it may be written, after the last request
// was answered. What is too small to be told apart is folded, and fewer than Least
// of each table are lost.
func (r *Recorder) Close(ctx context.Context) error { return r.flush(ctx, true) }

// Err returns what was wrong with the last flush, or nil.
func (r *Recorder) Err() error {
	if err := r.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (r *Recorder) flush(ctx context.Context, last bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drain()
	today := DayOf(r.since)
	var errs []error
	for _, p := range slices.SortedFunc(maps.Keys(r.parts), func(a, b part) int { return int(a.start - b.start) }) {
		over := p.start < p.table.period(today)
		err := r.write(ctx, p, over || last)
		if over && (err == nil || len(r.parts) > maxParts) {
			if err != nil {
				r.Log.Error("counts are lost: the store has been away for too long", "document", p.name(), "lists", r.parts[p].total.Count, "err", err)
			}
			delete(r.parts, p)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name(), err))
		}
	}
	if r.swept != today && !last {
		if err := r.sweep(ctx, today); err != nil {
			errs = append(errs, err)
		} else {
			r.swept = today
		}
	}
	err := errors.Join(errs...)
	if err != nil {
		err = fmt.Errorf("stats: %w", err)
	}
	r.err.Store(&err)
	return err
}

// write adds what is pending to the document of a part. With all it is folded, so
// that nothing is left to wait for.
func (r *Recorder) write(ctx context.Context, p part, all bool) error {
	d := r.parts[p]
	if !all && d.unsure.mark == "" && d.ready(p.table, false).empty() {
		return nil
	}
	r.marks++
	mark := r.session + "-" + strconv.Itoa(r.marks)
	var (
		sent  change // by this call
		known change // found to have been written by an earlier one
		found bool   // the document was read, so what was unsure is known now
	)
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := r.Store.Update(ctx, p.name(), func(old []byte) ([]byte, error) {
		sent, known = change{}, change{}
		doc := &document{part: p, cells: map[cell]Value{}}
		if old != nil {
			var err error
			if doc, err = decode(p, old); err != nil {
				return nil, fmt.Errorf("the document is damaged; move it away: %w", err)
			}
		}
		found = true
		todo := d.change
		if d.unsure.mark != "" && d.unsure.mark == doc.mark {
			known = d.unsure
			todo = todo.without(known)
		}
		next := todo.ready(p.table, all)
		if next.empty() {
			return nil, nil
		}
		next.mark = mark
		doc.mark = mark
		doc.total.add(next.total)
		for c, v := range next.cells {
			have := doc.cells[c]
			have.add(v)
			doc.cells[c] = have
		}
		sent = next
		return doc.encode()
	})
	if found {
		d.change, d.unsure = d.change.without(known), sent
	}
	if err != nil {
		return err
	}
	d.change, d.unsure = d.change.without(sent), change{}
	return nil
}

// ready returns the part of what is pending that may be written now: whole steps
// of the total, and of each cell. With all the rest of cells is folded first. The
// total is never less than the cells: what they do not have of it is in steps too.
func (c change) ready(t *Table, all bool) change {
	out := change{total: c.total.whole()}
	if all {
		out.cells, out.from = fold(t, c.cells), maps.Clone(c.cells)
		return out
	}
	out.cells = map[cell]Value{}
	for k, v := range c.cells {
		if w := v.whole(); w.Count > 0 {
			out.cells[k] = w
		}
	}
	out.from = out.cells
	return out
}

// empty reports whether a change changes nothing.
func (c change) empty() bool { return c.total.Count == 0 && len(c.cells) == 0 }

// without returns what is left of pending counts after some were written.
func (c change) without(sent change) change {
	out := change{total: c.total, cells: maps.Clone(c.cells)}
	out.total.sub(sent.total)
	for k, v := range sent.from {
		left := out.cells[k]
		if left.sub(v); left.Count == 0 {
			delete(out.cells, k)
		} else {
			out.cells[k] = left
		}
	}
	return out
}

// sweep removes documents that are too old, of all nodes: one that is gone cannot
// remove its own.
func (r *Recorder) sweep(ctx context.Context, today Day) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	names, err := r.Store.List(ctx)
	if err != nil {
		return err
	}
	for name := range names {
		p, ok := parsePart(name)
		if ok && p.start+p.table.length() <= today-Day(r.Days) {
			if err := r.Store.Remove(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}
