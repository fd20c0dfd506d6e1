package mirrorlist

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/zeebo/xxh3"
)

// A listing identifies the state of files: their names, sizes and times. Equal
// listings mean that nothing was edited in between.
type listing uint64

// list takes the listing of files, and of all that lies directly in directories.
// What is missing is part of it.
func list(paths []string) (listing, error) {
	h := xxh3.New()
	add := func(path string, fi fs.FileInfo, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			fmt.Fprintf(h, "%s\x00missing\x00", path)
		case err != nil:
			return err
		default:
			fmt.Fprintf(h, "%s\x00%d\x00%d\x00%d\x00", path, fi.Size(), fi.ModTime().UnixNano(), inodeOf(fi))
		}
		return nil
	}
	for _, path := range paths {
		fi, err := os.Stat(path)
		if err == nil && fi.IsDir() {
			entries, err := os.ReadDir(path)
			if err != nil {
				return 0, err
			}
			for _, e := range entries {
				// Stat, not the entry: what a link points to is what counts.
				name := filepath.Join(path, e.Name())
				fi, err := os.Stat(name)
				if err := add(name, fi, err); err != nil {
					return 0, err
				}
			}
			continue
		}
		if err := add(path, fi, err); err != nil {
			return 0, err
		}
	}
	return listing(h.Sum64()), nil
}

// inodeOf tells a file from another one that was moved into its place.
func inodeOf(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// How files are waited for to come to rest.
const (
	settleEvery = 150 * time.Millisecond
	settleTries = 200 // half a minute
)

// settled waits until nobody is writing: two listings in a row are equal, and
// git holds no lock in a work tree around the files.
func settled(ctx context.Context, paths []string) (listing, error) {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	var before listing
	for try := range settleTries {
		lock := gitLock(paths)
		now, err := list(paths)
		if err != nil {
			return 0, err
		}
		if try > 0 && lock == "" && now == before {
			return now, nil
		}
		before = now
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
	}
	if lock := gitLock(paths); lock != "" {
		return 0, fmt.Errorf("%s is there for longer than %s: finish what git does, or delete it", lock, settleEvery*settleTries)
	}
	return 0, fmt.Errorf("files keep changing for longer than %s", settleEvery*settleTries)
}

// gitLock returns the lock that git holds on a work tree around one of paths, or
// "".
func gitLock(paths []string) string {
	seen := map[string]bool{}
	for _, path := range paths {
		for dir := path; !seen[dir]; dir = filepath.Dir(dir) {
			seen[dir] = true
			lock := filepath.Join(dir, ".git", "index.lock")
			if _, err := os.Lstat(lock); err == nil {
				return lock
			}
		}
	}
	return ""
}

// dirsOf returns the directories to watch for changes of paths.
func dirsOf(paths []string) []string {
	var dirs []string
	for _, path := range paths {
		dir := filepath.Dir(path)
		if fi, err := os.Stat(path); err == nil && fi.IsDir() {
			dir = path
		}
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
