package verify

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// A Type is what sort of file is signed.
type Type uint8

// The sorts: a package carries its signature, that of a repomd.xml is in a file
// beside it. The zero value is neither.
const (
	Other Type = iota
	Package
	Repomd
)

// An Artifact is a file that is signed, or should be.
type Artifact struct {
	// Path is how to open it.
	Path string

	// Rel is where it is below the directory that was searched, and its base
	// name when it was named itself.
	Rel string

	Type Type

	// Link says that it is a symbolic link, found below a directory.
	Link bool

	// Size is in bytes, as it was when the file was found.
	Size int64
}

// String is the path, quoted when it would not print as one word of one line.
func (a Artifact) String() string {
	if q := strconv.Quote(a.Path); len(q) != len(a.Path)+2 {
		return q
	}
	return a.Path
}

// The name of repository metadata, and what is added to it for its signature and
// for the key to verify that with.
const (
	RepomdName      = "repomd.xml"
	SignatureSuffix = ".asc"
	KeySuffix       = ".key"
)

// typeOf judges a file by its name: in a tree everything else is none of ours.
func typeOf(name string) Type {
	switch {
	case name == RepomdName:
		return Repomd
	case strings.HasSuffix(name, ".rpm") && !strings.HasPrefix(name, "."):
		return Package
	}
	return Other
}

// Find lists what is signed, or should be, at paths: the files that are named, and
// of directories all packages and the metadata below them, in the order of their
// names. Below a directory, links to files are listed when they lead to one, or
// nowhere, and links to directories are not followed.
func Find(ctx context.Context, paths ...string) ([]Artifact, error) {
	var list []Artifact
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			t := typeOf(filepath.Base(path))
			if t == Other {
				return nil, fmt.Errorf("%s: neither a package nor metadata; name files ending in .rpm, repomd.xml, or a directory", path)
			}
			list = append(list, Artifact{Path: path, Rel: filepath.Base(path), Type: t, Size: info.Size()})
			continue
		}
		// A link that is named is followed; WalkDir alone would not.
		below := filepath.Clean(path)
		if real, err := filepath.EvalSymlinks(path); err == nil && real != below {
			below = real
		}
		err = filepath.WalkDir(below, func(at string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			t := typeOf(d.Name())
			if d.IsDir() || t == Other {
				return nil
			}
			var size int64
			if info, err := os.Stat(at); err == nil {
				if info.IsDir() {
					return nil
				}
				size = info.Size()
			}
			rel, err := filepath.Rel(below, at)
			if err != nil {
				return err
			}
			list = append(list, Artifact{
				Path: filepath.Join(path, rel), Rel: rel, Type: t,
				Link: d.Type()&fs.ModeSymlink != 0, Size: size,
			})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// InOrder calls work for every number below n, in several goroutines at once, and
// done with each result: in order, and never twice at once. After ctx has ended
// no work begins, and the error is that of ctx.
func InOrder[R any](ctx context.Context, n, workers int, work func(i int) R, done func(i int, r R)) error {
	var (
		mu      sync.Mutex
		next    int // to begin
		printed int // results before it are done
		waiting = make(map[int]R)
		wg      sync.WaitGroup
	)
	begin := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == n || ctx.Err() != nil {
			return 0, false
		}
		next++
		return next - 1, true
	}
	end := func(i int, r R) {
		mu.Lock()
		defer mu.Unlock()
		waiting[i] = r
		for {
			r, ok := waiting[printed]
			if !ok {
				return
			}
			delete(waiting, printed)
			done(printed, r)
			printed++
		}
	}
	for range min(max(workers, 1), n) {
		wg.Go(func() {
			for {
				i, ok := begin()
				if !ok {
					return
				}
				end(i, work(i))
			}
		})
	}
	wg.Wait()
	if printed < n {
		return ctx.Err()
	}
	return nil
}
