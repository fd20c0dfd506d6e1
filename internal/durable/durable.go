// Package durable keeps files that others rely on: a reader finds the old
// content or the new, never a part of either, whatever happens to the writer
// or to the machine. It also holds locks that end with the process that took
// them. It never retries, never logs, and never looks into what it writes.
package durable

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile replaces the content of path with data, as [Write] does.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return Write(path, perm, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(data))
		return err
	})
}

// Write replaces path with what fill writes. The file has exactly the
// permissions perm, whatever the umask. If path is a symbolic link, the link
// is replaced and its target left alone.
//
// Until Write has returned nil the new content may be lost in a crash; after
// an error path holds what it held before, with one exception: when the last
// step fails, the sync of the directory, readers see the new content already.
//
// The content is gathered in a hidden file beside path, called
// ".NAME.tmp-NUMBER". It is removed on error; one that outlived a killed
// process can be deleted at any time.
func Write(path string, perm fs.FileMode, fill func(io.Writer) error) (err error) {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	tmp, err := os.CreateTemp(dir, "."+name+".tmp-*")
	if err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	s := &Staged{tmp: tmp.Name(), path: path}
	done := false
	defer func() {
		if !done { // an error, or a panic in fill
			tmp.Close()
			s.Discard()
		}
	}()
	if err := complete(tmp, perm, fill); err != nil {
		return fmt.Errorf("durable: write %s: %w", path, err)
	}
	done = true
	return s.Commit()
}

// A Staged file is complete and on disk, but not in its place yet.
type Staged struct{ tmp, path string }

// Stage writes what shall replace path into the file tmp of the same file
// system, over what tmp held. [Staged.Commit] then moves it into place, and
// fails if somebody has removed tmp meanwhile: whoever takes over from a writer
// that may be asleep removes what that one has staged, and so keeps it from
// waking up to overwrite what is newer.
func Stage(tmp, path string, perm fs.FileMode, fill func(io.Writer) error) (*Staged, error) {
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("durable: %w", err)
	}
	s := &Staged{tmp: tmp, path: path}
	done := false
	defer func() {
		if !done {
			f.Close()
			s.Discard()
		}
	}()
	if err := complete(f, perm, fill); err != nil {
		return nil, fmt.Errorf("durable: write %s: %w", path, err)
	}
	done = true
	return s, nil
}

// complete fills f, puts it on disk and closes it.
func complete(f *os.File, perm fs.FileMode, fill func(io.Writer) error) error {
	buf := bufio.NewWriterSize(f, 256<<10)
	if err := fill(buf); err != nil {
		return err
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// Some file systems report a full disk or a spent quota only here.
	return f.Close()
}

// Commit puts the file in its place. The error is fs.ErrNotExist, wrapped, if
// what was staged is gone. As of [Write], an error of the very last step leaves
// the new content where readers see it.
func (s *Staged) Commit() error {
	err := os.Rename(s.tmp, s.path)
	if err != nil {
		s.Discard()
	} else {
		err = syncDir(filepath.Dir(s.path))
	}
	if err != nil {
		return fmt.Errorf("durable: write %s: %w", s.path, err)
	}
	return nil
}

// Discard removes what was staged, if it was not committed.
func (s *Staged) Discard() { os.Remove(s.tmp) }

// SyncDir makes the names in dir survive a crash: what was created, renamed or
// removed there before the call.
func SyncDir(dir string) error {
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
