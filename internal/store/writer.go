package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Writer writes one record. It remembers the record as it last was, and writes
// all of it again where that has been lost. Its methods are safe for concurrent
// use.
type Writer struct {
	b   backend
	w   recordWriter
	ref ref
	id  string // of this writer, among all there ever were
	ttl time.Duration

	lease sync.Mutex // guards the two below, and is held while a lease is asked for
	asked bool       // Acquire was called, and Release not since
	token int64      // of the lease that was last held; 0 after it was lost

	mu   sync.Mutex // guards what follows, and is held while the record is read or written
	base *Record    // what is or was stored; nil: nothing
	seen *Record    // the base that the caller knows
	sure bool       // base is stored, or gone if lost is set
	lost bool       // base is to be stored again, whole
}

// Writer returns a writer of a record. It is not the writer yet: see Acquire.
// Kind and name are letters, digits, "-" and "_"; the name may be "".
func (s *Store) Writer(kind, name string) *Writer {
	r, id := ref{kind, name}, rand.Text()
	return &Writer{b: s.b, w: s.b.writer(r, id, s.lease), ref: r, id: id, ttl: s.lease}
}

// Acquire makes w the one writer, or renews that, and returns for how long from
// now on; ErrNotHolder, wrapped, if another one is: an error that reads the same
// as long as that is the same one. After it, Read before the next Write.
func (w *Writer) Acquire(ctx context.Context) (time.Duration, error) {
	w.lease.Lock()
	defer w.lease.Unlock()
	w.asked = true
	return w.acquire(ctx)
}

func (w *Writer) acquire(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	token, err := w.w.acquire(ctx, w.token)
	if errors.Is(err, ErrNotHolder) {
		w.token = 0
	}
	if err != nil {
		return 0, err
	}
	w.token = token
	return max(0, w.ttl-time.Since(begin)), nil
}

// held returns the token of the lease, which it takes again if it has ended while
// nobody else wanted it.
func (w *Writer) held(ctx context.Context) (int64, error) {
	w.lease.Lock()
	defer w.lease.Unlock()
	if !w.asked {
		return 0, ErrNotHolder
	}
	if w.token == 0 {
		if _, err := w.acquire(ctx); err != nil {
			return 0, err
		}
	}
	return w.token, nil
}

// ended notes that the lease with token has gone.
func (w *Writer) ended(token int64) {
	w.lease.Lock()
	defer w.lease.Unlock()
	if w.token == token {
		w.token = 0
	}
}

// Release lets another be the writer at once.
func (w *Writer) Release(ctx context.Context) error {
	w.mu.Lock() // a write under way ends first
	defer w.mu.Unlock()
	w.lease.Lock()
	defer w.lease.Unlock()
	w.asked = false
	token := w.token
	w.token = 0
	if token == 0 {
		return nil
	}
	return w.w.release(ctx, token)
}

// Read returns the record: what is stored, or what this writer last knew of it
// where that is lost or older. ErrNotFound says that there never was one.
func (w *Writer) Read(ctx context.Context) (*Record, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.sync(ctx); err != nil {
		return nil, err
	}
	if w.base == nil {
		return nil, ErrNotFound
	}
	w.seen = w.base
	return w.base, nil
}

// sync finds out what is stored.
func (w *Writer) sync(ctx context.Context) error {
	w.sure = false
	rec, err := w.b.read(ctx, w.ref, w.base)
	var bad *unreadable
	switch {
	case errors.Is(err, ErrNotFound), err == nil && rec.olderThan(w.base), errors.As(err, &bad) && w.base != nil:
		w.lost = w.base != nil
	case err != nil:
		return err
	default:
		if rec.stamp.Writer == w.id && w.seen == w.base {
			w.seen = rec // of a write of ours whose success we were not told of
		}
		w.base, w.lost = rec, false
	}
	w.sure = true
	return nil
}

// Write makes one step, or nothing of it: a writer whose lease has gone to
// another gets ErrNotHolder and has changed nothing, however late it wakes up.
// After any other error the step may have been made; it can be made again, alone
// or as a part of another one, without harm.
func (w *Writer) Write(ctx context.Context, c *Change) error {
	if err := c.check(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	// A lease that ended, and a record that is not what it was, are met once each,
	// or again when they happen again meanwhile.
	const tries = 5
	var err error
	for range tries {
		var token int64
		if token, err = w.held(ctx); err != nil {
			return err
		}
		if !w.sure {
			if err := w.sync(ctx); err != nil {
				return err
			}
		}
		if w.base != w.seen {
			return fmt.Errorf("%w: %s was written by another since it was read; read it again", ErrNotHolder, w.ref)
		}
		var stored *Record
		stored, err = w.w.commit(ctx, w.base, w.base.with(c, w.id, token), c, w.lost)
		if err == nil {
			w.base, w.seen, w.sure, w.lost = stored, stored, true, false
			return nil
		}
		w.sure = false
		switch {
		case errors.Is(err, errLost):
			w.ended(token)
		case !errors.Is(err, errMoved):
			return err
		}
	}
	// Each time, nothing was changed.
	return fmt.Errorf("%w: %w", ErrNotHolder, err)
}
