// Package store keeps small documents where several processes find them: in a
// directory of this host. It never looks into what it keeps.
package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"meridian/internal/durable"
)

// ErrNotHolder is returned to a writer that does not hold the lease.
var ErrNotHolder = errors.New("store: another process holds the lease")

// Dir is a directory of documents and logs.
type Dir struct {
	path string

	mu   sync.Mutex // guards lock
	lock *durable.Lock
}

// OpenDir returns the directory at path, which is made by the first Acquire.
func OpenDir(path string) *Dir { return &Dir{path: path} }

// Path is where the file name is kept.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// Acquire makes this process the one writer of name. It does not wait.
func (d *Dir) Acquire(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock != nil {
		return nil
	}
	if err := os.MkdirAll(d.path, 0o755); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	lock, err := durable.TryLock(d.Path(name + ".lock"))
	if errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("%w: %w", ErrNotHolder, err)
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	d.lock = lock
	return nil
}

// Holds reports whether this process is the one writer.
func (d *Dir) Holds() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lock != nil
}

// Release lets another process be the writer.
func (d *Dir) Release() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock == nil {
		return nil
	}
	err := d.lock.Unlock()
	d.lock = nil
	return err
}

// Replace writes the file name whole, or leaves it as it was.
func (d *Dir) Replace(name string, data []byte) error {
	if !d.Holds() {
		return ErrNotHolder
	}
	if err := durable.WriteFile(d.Path(name), data, 0o644); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// Append adds lines to the end of the file name.
func (d *Dir) Append(name string, lines []byte) (err error) {
	if !d.Holds() {
		return ErrNotHolder
	}
	if err := os.MkdirAll(filepath.Dir(d.Path(name)), 0o755); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	f, err := os.OpenFile(d.Path(name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(lines); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// Put writes the file name whole, whoever holds the lease.
func (d *Dir) Put(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(d.Path(name)), 0o755); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := durable.WriteFile(d.Path(name), data, 0o644); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}
