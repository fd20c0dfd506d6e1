package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"meridian/internal/durable"
)

// DirDocuments is a directory in which each of several nodes keeps documents of
// its own, and reads those of all: DIR/NODE/NAME.json. A document is called
// NODE/NAME.
type DirDocuments struct{ dir string }

// OpenDirDocuments returns the documents below dir, which is made by the first
// Update.
func OpenDirDocuments(dir string) *DirDocuments { return &DirDocuments{dir} }

const documentExt = ".json"

func (d *DirDocuments) path(name string) string {
	return filepath.Join(d.dir, filepath.FromSlash(name)+documentExt)
}

// lockPoll is how often a lock is tried that somebody holds. Nobody does for
// longer than it takes to write a file.
const lockPoll = 20 * time.Millisecond

// Update replaces a document by what change makes of it: nil where there is none
// yet. Another Update of that node, by this process or another one of this host,
// waits meanwhile. The document stays as it is when change returns nil.
func (d *DirDocuments) Update(ctx context.Context, name string, change func(old []byte) ([]byte, error)) error {
	path := d.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	lock, err := waitLock(ctx, filepath.Join(filepath.Dir(path), "lock"))
	if err != nil {
		return err
	}
	defer lock.Unlock()
	old, err := d.Load(ctx, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data, err := change(old)
	if err != nil || data == nil {
		return err
	}
	if err := durable.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func waitLock(ctx context.Context, path string) (*durable.Lock, error) {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		lock, err := durable.TryLock(path)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, durable.ErrLocked) {
			return nil, fmt.Errorf("store: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("store: %w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// List returns the names of all documents, each with a tag that is another
// whenever the content is.
func (d *DirDocuments) List(context.Context) (map[string]string, error) {
	names := map[string]string{}
	nodes, err := os.ReadDir(d.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("store: %w", err)
	}
	for _, node := range nodes {
		if !node.IsDir() || strings.HasPrefix(node.Name(), ".") {
			continue
		}
		files, err := os.ReadDir(filepath.Join(d.dir, node.Name()))
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		for _, f := range files {
			name, ok := strings.CutSuffix(f.Name(), documentExt)
			if !ok || strings.HasPrefix(name, ".") {
				continue
			}
			fi, err := f.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				return nil, fmt.Errorf("store: %w", err)
			}
			tag := fmt.Sprintf("%d %d", fi.Size(), fi.ModTime().UnixNano())
			if st, ok := fi.Sys().(*syscall.Stat_t); ok {
				tag += fmt.Sprintf(" %d", st.Ino) // each change is a file of its own
			}
			names[node.Name()+"/"+name] = tag
		}
	}
	return names, nil
}

// maxDocument bounds what Load reads, in bytes.
const maxDocument = 64 << 20

// Load returns a document. Its error is fs.ErrNotExist, wrapped, where there is
// none.
func (d *DirDocuments) Load(_ context.Context, name string) ([]byte, error) {
	path := d.path(name)
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxDocument {
		return nil, fmt.Errorf("store: %s is not a file of at most %d bytes; move it away", path, maxDocument)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return data, nil
}

// Remove removes a document, if there is one.
func (d *DirDocuments) Remove(_ context.Context, name string) error {
	if err := os.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}
