package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"meridian/internal/durable"
)

// A directory holds
//
//	KIND.json, KIND.NAME.json   records, see encode
//	KIND/NAME.jsonl             logs, one entry a line
//	.KIND.lease-TOKEN           the lease of a record, and who has it
//	.FILE.tmp-KIND-TOKEN-ID     what its holder is about to put in the place of FILE
//
// No step of a writer leaves anything half done, and none needs a lock: a writer
// may be killed, or stopped for an hour, between any two of them.
//
// The lease with the highest token counts. It is taken by making the file with
// the next higher one, which only one process can. Its holder has the file locked,
// so that it is free as soon as that process ends; and touches it to renew it, so
// that it is free when that has not happened for a while, by the clock of whoever
// waits for it.
//
// Whoever has taken a lease removes what earlier holders have staged. A holder
// stages a file, then looks whether its token is still the highest, then renames:
// if another has taken over, either the look tells, or there is nothing left to
// rename.
type dir struct {
	path string
	step func(string)

	mu  sync.Mutex
	bad map[ref]badFile // records that could not be read
}

// A badFile is not read again before it has changed.
type badFile struct {
	info fs.FileInfo
	err  error
}

func newDir(path string, step func(string)) *dir {
	return &dir{path: path, step: step, bad: make(map[ref]badFile)}
}

const recordExt = ".json"

func (d *dir) file(r ref) string { return filepath.Join(d.path, r.String()+recordExt) }

func (d *dir) close() error { return nil }

// watch hears nothing: file systems of containers and networks tell nothing
// either, and a look costs a few microseconds.
func (d *dir) watch(ctx context.Context, _ string, _ func()) { <-ctx.Done() }

func (d *dir) names(_ context.Context, kind string) ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("store: %w", err)
	}
	var names []string
	for _, e := range entries {
		switch name, ok := strings.CutSuffix(e.Name(), recordExt); {
		case !ok:
		case name == kind:
			names = append(names, "")
		case strings.HasPrefix(name, kind+"."):
			names = append(names, name[len(kind)+1:])
		}
	}
	slices.Sort(names)
	return names, nil
}

func (d *dir) read(_ context.Context, r ref, have *Record) (*Record, error) {
	path := d.file(r)
	if have != nil {
		if fi, err := os.Stat(path); err == nil && same(have.src.(fs.FileInfo), fi) {
			return have, nil
		}
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if bad, ok := d.bad[r]; ok && same(bad.info, fi) {
		return nil, bad.err
	}
	delete(d.bad, r)
	rec, err := d.readFile(f, fi, have)
	if err != nil {
		err = &unreadable{fmt.Errorf("store: %s: %w; move it away to do without it", path, err)}
		d.bad[r] = badFile{fi, err}
		return nil, err
	}
	return rec, nil
}

func (d *dir) readFile(f *os.File, fi fs.FileInfo, have *Record) (*Record, error) {
	if !fi.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if fi.Size() > maxRecord {
		return nil, fmt.Errorf("%d bytes is more than there can be (%d)", fi.Size(), maxRecord)
	}
	var text strings.Builder
	text.Grow(int(fi.Size()))
	if _, err := io.Copy(&text, io.LimitReader(f, maxRecord)); err != nil {
		return nil, err
	}
	rec, err := decode(text.String(), have)
	if err != nil {
		return nil, err
	}
	rec.src = fi
	return rec, nil
}

// same reports whether a file is as it was. What a writer here has written has a
// time of its own, to the nanosecond.
func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// A dirWriter writes one record of a directory.
type dirWriter struct {
	d   *dir
	ref ref
	id  string
	ttl time.Duration

	mu    sync.Mutex // guards what follows
	lock  *durable.Lock
	token int64       // of lock
	lease fs.FileInfo // of its file

	// The lease of another as it was first seen, and when.
	other      int64
	otherTouch time.Time
	otherSince time.Time

	logs    sync.Mutex           // guards what follows, and is held while logs are written
	flushed stamp                // the state of the record whose entries are in their logs
	pruned  map[string]time.Time // when old logs of a kind were last removed
}

func (d *dir) writer(r ref, id string, ttl time.Duration) recordWriter {
	return &dirWriter{d: d, ref: r, id: id, ttl: ttl, pruned: make(map[string]time.Time)}
}

func (w *dirWriter) leasePrefix() string { return "." + w.ref.String() + ".lease-" }

func (w *dirWriter) leaseFile(token int64) string {
	return filepath.Join(w.d.path, w.leasePrefix()+strconv.FormatInt(token, 10))
}

// staged is what stands in the name of a file that is to take the place of
// another before the token.
func (w *dirWriter) staged() string { return ".tmp-" + w.ref.String() + "-" }

// stage also returns the file as readers will see it once it is in its place. Who
// asks after that may be told of the file of another, who has taken over.
func (w *dirWriter) stage(path string, token int64, fill func(io.Writer) error) (*durable.Staged, fs.FileInfo, error) {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+w.staged()+strconv.FormatInt(token, 10)+"-"+w.id)
	s, err := durable.Stage(tmp, path, 0o644, fill)
	if err != nil {
		return nil, nil, err
	}
	// A file that takes the inode of one that was there a moment ago, and has its
	// size, would look like that to a reader: the kernel's clock is that coarse.
	now := time.Now()
	err = os.Chtimes(tmp, now, now)
	var fi fs.FileInfo
	if err == nil {
		fi, err = os.Stat(tmp)
	}
	if err != nil {
		s.Discard()
		return nil, nil, err
	}
	return s, fi, nil
}

// highest returns the highest token of a lease, 0 without any, and whether that is
// ours: if somebody has emptied the directory, another may have the same token.
func (w *dirWriter) highest(lease fs.FileInfo) (highest int64, ours bool, err error) {
	entries, err := os.ReadDir(w.d.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, false, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), w.leasePrefix()) {
			highest = max(highest, tokenOf(e.Name(), w.leasePrefix()))
		}
	}
	if lease == nil || highest == 0 {
		return highest, false, nil
	}
	fi, err := os.Stat(w.leaseFile(highest))
	if errors.Is(err, fs.ErrNotExist) {
		return highest, false, nil
	}
	return highest, err == nil && os.SameFile(fi, lease), err
}

// tokenOf returns the number that follows mark in a name; 0 if there is none.
func tokenOf(name, mark string) int64 {
	i := strings.LastIndex(name, mark)
	if i < 0 {
		return 0
	}
	digits, _, _ := strings.Cut(name[i+len(mark):], "-")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0
	}
	return max(0, n)
}

func (w *dirWriter) acquire(_ context.Context, token int64) (int64, error) {
	w.mu.Lock()
	had := token
	token, err := w.take(token)
	w.mu.Unlock()
	if err != nil {
		return 0, fmt.Errorf("store: lease of %s: %w", w.ref, err)
	}
	if token != had {
		w.heal(token)
	}
	return token, nil
}

func (w *dirWriter) take(token int64) (int64, error) {
	if token != 0 && token == w.token {
		w.d.step("renew")
		_, ours, err := w.highest(w.lease)
		if err != nil {
			return 0, err
		}
		if ours {
			// Others judge by when it was touched, and not by what the clock said.
			now := time.Now()
			if err := os.Chtimes(w.leaseFile(token), now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return 0, err
			}
			if _, ours, err = w.highest(w.lease); err != nil || ours {
				return token, err
			}
		}
	}
	w.drop()
	if err := os.MkdirAll(w.d.path, 0o755); err != nil {
		return 0, err
	}
	highest, _, err := w.highest(nil)
	if err != nil {
		return 0, err
	}
	if highest > 0 {
		if err := w.free(highest); err != nil {
			return 0, err
		}
	}
	if token, err = w.claim(highest + 1); err != nil {
		return 0, err
	}
	w.other = 0
	w.d.step("sweep")
	if err := w.sweep(); err != nil {
		w.drop() // what is staged could still be renamed
		return 0, err
	}
	return token, nil
}

// free reports, as ErrNotHolder, that the lease is held by a process that lives
// and renews it.
func (w *dirWriter) free(token int64) error {
	path := w.leaseFile(token)
	fi, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotHolder, err) // removed meanwhile: by whoever took over
	}
	held, err := durable.TryLock(path)
	if err == nil {
		return held.Unlock()
	}
	if !errors.Is(err, durable.ErrLocked) {
		return err
	}
	now := time.Now()
	if w.other != token || !w.otherTouch.Equal(fi.ModTime()) {
		w.other, w.otherTouch, w.otherSince = token, fi.ModTime(), now
	}
	if now.Sub(w.otherSince) < w.ttl {
		if pid := durable.Holder(path); pid != 0 {
			return &HeldError{fmt.Sprintf("process %d", pid)}
		}
		return fmt.Errorf("%w: %w", ErrNotHolder, err)
	}
	return nil
}

// claim makes the lease with token, which is locked from the moment that it is
// there.
func (w *dirWriter) claim(token int64) (int64, error) {
	w.d.step("claim")
	tmp := filepath.Join(w.d.path, "."+w.ref.String()+".claim-"+w.id)
	lock, err := durable.TryLock(tmp)
	if err != nil {
		return 0, err
	}
	w.d.step("link")
	lease, err := os.Stat(tmp)
	if err == nil {
		err = os.Link(tmp, w.leaseFile(token))
	}
	w.d.step("unlink")
	os.Remove(tmp)
	switch {
	case errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrNotExist): // somebody was faster, or has swept
		lock.Unlock()
		return 0, fmt.Errorf("%w: %w", ErrNotHolder, err)
	case err != nil:
		lock.Unlock()
		return 0, err
	}
	w.lock, w.token, w.lease = lock, token, lease
	_, ours, err := w.highest(lease)
	if err == nil && !ours {
		err = ErrNotHolder
	}
	if err == nil {
		err = durable.SyncDir(w.d.path)
	}
	if err != nil {
		w.drop()
		return 0, err
	}
	return token, nil
}

// drop lets go of the lease, which then is free.
func (w *dirWriter) drop() {
	if w.lock != nil {
		w.lock.Unlock()
	}
	w.lock, w.token, w.lease = nil, 0, nil
}

// sweep removes what earlier holders have left. What they have staged must go; a
// lease of theirs that stays does no harm.
func (w *dirWriter) sweep() error {
	claims := "." + w.ref.String() + ".claim-"
	dirs := []string{w.d.path}
	for i := 0; i < len(dirs); i++ {
		entries, err := os.ReadDir(dirs[i])
		if err != nil {
			return err
		}
		for _, e := range entries {
			name, top := e.Name(), i == 0
			if top && e.IsDir() && !strings.HasPrefix(name, ".") {
				dirs = append(dirs, filepath.Join(w.d.path, name))
			}
			old := false
			switch staged := tokenOf(name, w.staged()); {
			case strings.HasPrefix(name, claims):
				old = true
			case strings.HasPrefix(name, w.leasePrefix()):
				old = tokenOf(name, w.leasePrefix()) < w.token
			case strings.HasPrefix(name, "."):
				old = staged > 0 && staged <= w.token && !strings.HasSuffix(name, w.id)
			}
			if old {
				if err := os.Remove(filepath.Join(dirs[i], name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		}
	}
	return nil
}

func (w *dirWriter) release(context.Context, int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop()
	return nil
}

// holds returns errLost unless the lease is still ours.
func (w *dirWriter) holds(token int64) error {
	w.mu.Lock()
	lease := w.lease
	if w.token != token {
		lease = nil
	}
	w.mu.Unlock()
	_, ours, err := w.highest(lease)
	if err == nil && !ours {
		err = errLost
	}
	return err
}

func (w *dirWriter) commit(_ context.Context, base, next *Record, c *Change, whole bool) (*Record, error) {
	path, token := w.d.file(w.ref), next.stamp.Token
	if err := w.unmoved(path, base, whole); err != nil {
		return nil, err
	}
	if base != nil {
		if err := w.flush(base, token); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	next.pending = c.Log
	w.d.step("stage")
	staged, fi, err := w.stage(path, token, func(out io.Writer) error { return next.encode(out, os.Getpid()) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errLost // with the directory, or swept
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	w.d.step("check")
	if err := w.holds(token); err != nil {
		staged.Discard()
		return nil, err
	}
	w.d.step("rename")
	err = staged.Commit()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errLost // swept
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	w.d.step("renamed")
	next.src = fi
	// The step is made. Entries that cannot be added now are, before the next one.
	_ = w.flush(next, token)
	return next, nil
}

// unmoved returns errMoved unless the file is that of base.
func (w *dirWriter) unmoved(path string, base *Record, whole bool) error {
	fi, err := os.Stat(path)
	switch {
	case whole:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if base == nil {
			return nil
		}
		return errMoved
	case err != nil:
		return fmt.Errorf("store: %w", err)
	case base == nil || !same(base.src.(fs.FileInfo), fi):
		return errMoved
	}
	return nil
}
