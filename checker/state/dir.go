package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// ErrNoSnapshot is returned by Load before a checker has written anything.
var ErrNoSnapshot = errors.New("state: no snapshot yet")

// maxSnapshot bounds what Load reads: 2,000 mirrors of 1,000 keys each.
const maxSnapshot = 256 << 20

// Dir is a state directory on this host.
type Dir struct {
	path string

	mu   sync.Mutex // guards what follows
	of   os.FileInfo
	last *Snapshot // what of is, or nil
	err  error     // why of is none
}

// NewDir returns the state directory at path, which need not exist yet.
func NewDir(path string) *Dir { return &Dir{path: path} }

// Load reads the newest snapshot. As long as that is the one it read before, it
// returns the same pointer. A file that is no snapshot is an error, and so is one
// of more than 256 MiB; it is not read again before it has changed.
func (d *Dir) Load(context.Context) (*Snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	path := filepath.Join(d.path, "snapshot.json")
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoSnapshot
	}
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if d.of == nil || !os.SameFile(fi, d.of) || !fi.ModTime().Equal(d.of.ModTime()) || fi.Size() != d.of.Size() {
		d.of = fi
		if d.last, err = read(path, fi); err != nil {
			err = fmt.Errorf("state: %s: %w", path, err)
		}
		d.err = err
	}
	return d.last, d.err
}

func read(path string, fi os.FileInfo) (*Snapshot, error) {
	if !fi.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if fi.Size() > maxSnapshot {
		return nil, fmt.Errorf("%d bytes is more than a snapshot can have (%d)", fi.Size(), maxSnapshot)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	snap := new(Snapshot)
	if err := json.Unmarshal(data, snap); err != nil {
		return nil, err
	}
	if snap.Taken.IsZero() {
		return nil, errors.New(`not a snapshot: it does not say when it was taken`)
	}
	for name, st := range snap.Mirrors {
		if st == nil {
			return nil, fmt.Errorf("not a snapshot: nothing is said of mirror %q", name)
		}
	}
	return snap, nil
}
