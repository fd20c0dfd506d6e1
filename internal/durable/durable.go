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
	renamed := false
	defer func() {
		if !renamed { // an error, or a panic in fill
			tmp.Close()
			os.Remove(tmp.Name())
		}
		if err != nil {
			err = fmt.Errorf("durable: write %s: %w", path, err)
		}
	}()

	buf := bufio.NewWriterSize(tmp, 256<<10)
	if err := fill(buf); err != nil {
		return err
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	if err := tmp.Chmod(perm); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	// Some file systems report a full disk or a spent quota only here.
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	renamed = true
	return syncDir(dir)
}

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
