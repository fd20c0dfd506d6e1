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
	last *Snapshot
}

// NewDir returns the state directory at path, which need not exist yet.
func NewDir(path string) *Dir { return &Dir{path: path} }

// Load reads the newest snapshot. As long as that is the one it read before, it
// returns the same pointer.
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
	if d.last != nil && os.SameFile(fi, d.of) && fi.ModTime().Equal(d.of.ModTime()) && fi.Size() == d.of.Size() {
		return d.last, nil
	}
	if fi.Size() > maxSnapshot {
		return nil, fmt.Errorf("state: %s: %d bytes is more than a snapshot can have (%d)", path, fi.Size(), maxSnapshot)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	snap := new(Snapshot)
	if err := json.Unmarshal(data, snap); err != nil {
		return nil, fmt.Errorf("state: %s: %w", path, err)
	}
	d.last, d.of = snap, fi
	return snap, nil
}
