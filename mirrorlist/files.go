package mirrorlist

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zeebo/xxh3"
)

// A listing identifies the state of files: their names, sizes and times. Equal
// listings mean that nothing was edited in between.
type listing uint64

// list takes the listing of files, and of all that lies directly in directories.
// What is missing, or cannot be looked at, is part of it.
func list(paths []string) listing {
	h := xxh3.New()
	var b []byte
	// What is added cannot be taken for anything else: no path holds a zero byte,
	// and the numbers behind it have one length.
	add := func(path string, fi fs.FileInfo, err error) {
		b = append(append(b[:0], path...), 0)
		if err != nil {
			b = append(append(append(b, 'e'), err.Error()...), 0)
		} else {
			b = append(b, 'f')
			for _, v := range []uint64{uint64(fi.Mode()), uint64(fi.Size()), uint64(fi.ModTime().UnixNano()), inodeOf(fi)} {
				b = binary.LittleEndian.AppendUint64(b, v)
			}
		}
		_, _ = h.Write(b)
	}
	for _, path := range paths {
		fi, err := os.Stat(path)
		add(path, fi, err)
		if err != nil || !fi.IsDir() {
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			add(path, nil, err)
		}
		for _, e := range entries {
			// Stat, not the entry: what a link points to is what counts.
			name := filepath.Join(path, e.Name())
			fi, err := os.Stat(name)
			add(name, fi, err)
		}
	}
	return listing(h.Sum64())
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
	settleTries = 200 // half a minute, after which it is said that one waits
	startTries  = 60  // a start waits for nine seconds and then takes what there is
)

// unrest says what keeps files from being read after so many looks at them.
func unrest(lock string, looks int) error {
	waited := (time.Duration(looks) * settleEvery).Round(time.Second)
	if lock != "" {
		return fmt.Errorf("%s is there for longer than %s: finish what git does, or delete it", lock, waited)
	}
	return fmt.Errorf("files keep changing for longer than %s: nothing is read until they rest", waited)
}

// gitLock returns the lock that git holds on a work tree around one of paths, or
// "". Git holds it from before the first file that it writes until after the
// last.
func gitLock(paths []string) string {
	seen := map[string]bool{}
	look := func(path string) string {
		for dir := path; !seen[dir]; dir = filepath.Dir(dir) {
			seen[dir] = true
			lock := filepath.Join(gitDir(filepath.Join(dir, ".git")), "index.lock")
			if _, err := os.Lstat(lock); err == nil {
				return lock
			}
		}
		return ""
	}
	for _, path := range paths {
		path, err := filepath.Abs(path)
		if err != nil {
			continue
		}
		if lock := look(path); lock != "" {
			return lock
		}
		// The work tree may be where a link leads to.
		if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
			if lock := look(real); lock != "" {
				return lock
			}
		}
	}
	return ""
}

// gitDir returns the directory that git keeps its own files in. A linked work
// tree and a submodule have it elsewhere, and a file that says where.
func gitDir(path string) string {
	fi, err := os.Stat(path)
	if err != nil || !fi.Mode().IsRegular() || fi.Size() > 4096 {
		return path
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return path
	}
	dir, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "gitdir: ")
	if !ok {
		return path
	}
	return rooted(filepath.Dir(path), dir)
}

// dirsOf returns the directories to watch for changes of paths. A directory is
// watched from outside as well: it may be replaced as a whole, or be a link that
// will lead elsewhere.
func dirsOf(paths []string) []string {
	var dirs []string
	for _, path := range paths {
		of := []string{filepath.Dir(path)}
		if fi, err := os.Stat(path); err == nil && fi.IsDir() {
			of = append(of, path)
		}
		for _, dir := range of {
			if !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}
