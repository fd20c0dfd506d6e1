package syncer

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Read lists a tree and hashes its files. A file that previous has with the same
// size and time is not read again; one that was written in the second in which
// previous was made is, because its time cannot show a later change.
//
// What is neither file, directory nor symbolic link, and a link that leads out
// of the tree, is an error that names it.
func Read(ctx context.Context, tree string, previous *Manifest) (*Manifest, error) {
	m, bad, err := walk(ctx, tree)
	if err == nil {
		err = problems(tree+" holds what cannot be published", bad)
	}
	if err != nil {
		return nil, err
	}
	if err := m.hash(ctx, tree, previous); err != nil {
		return nil, err
	}
	return m, nil
}

// walk lists a tree and hashes nothing. bad says of each name that must not be
// published why.
func walk(ctx context.Context, tree string) (m *Manifest, bad []string, err error) {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	m = &Manifest{Time: time.Now().UTC()}
	// Directories are listed as they come, and the result is sorted once.
	dirs := []string{"."}
	for len(dirs) > 0 {
		dir := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		infos, err := readDir(root, dir)
		if err != nil {
			return nil, nil, err
		}
		for _, info := range infos {
			name := path.Join(dir, info.Name())
			if ours(name) {
				continue
			}
			e := Entry{Path: name}
			switch info.Mode().Type() {
			case 0:
				e.Type, e.Size, e.ModTime = File, info.Size(), info.ModTime().UTC()
			case fs.ModeDir:
				e.Type = Dir
				dirs = append(dirs, name)
			case fs.ModeSymlink:
				e.Type = Link
				if e.Target, err = root.Readlink(name); err != nil {
					return nil, nil, err
				}
				if why := leaves(root, name, e.Target); why != "" {
					bad = append(bad, fmt.Sprintf("%+q is a link to %+q, %s", name, e.Target, why))
				}
			default:
				bad = append(bad, fmt.Sprintf("%+q is a %s; a tree holds files, directories and links", name, kind(info.Mode())))
			}
			m.Entries = append(m.Entries, e)
		}
	}
	slices.SortFunc(m.Entries, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
	return m, bad, nil
}

// readDir does not sort and does not follow links. A file that vanishes while it
// is listed is left out.
func readDir(root *os.Root, dir string) ([]fs.FileInfo, error) {
	f, err := root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdir(-1)
}

// leaves says why a link must not be published; "" when it may. A link whose
// target is missing may: nothing outside can be reached by it.
func leaves(root *os.Root, name, target string) string {
	if why := leadsOut(name, target); why != "" {
		return why
	}
	// And so must what the links on its way really lead to.
	if _, err := root.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "which cannot be followed inside the tree: " + errors.Unwrap(err).Error()
	}
	return ""
}

// leadsOut says why the words of a target do not stay in the tree, whatever is
// there or not; "" when they do.
func leadsOut(name, target string) string {
	if path.IsAbs(target) {
		return "which is another place on every machine; make it relative"
	}
	depth := strings.Count(name, "/")
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return "outside the tree; make it lead to something inside"
			}
		default:
			depth++
		}
	}
	return ""
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

// hash fills in the checksums of all files, from previous where it can.
func (m *Manifest) hash(ctx context.Context, tree string, previous *Manifest) error {
	var todo []*Entry
	for i := range m.Entries {
		e := &m.Entries[i]
		if e.Type != File {
			continue
		}
		p := previous.Lookup(e.Path)
		if p != nil && p.Hashed && p.Type == File && p.Size == e.Size && p.ModTime.Equal(e.ModTime) &&
			e.ModTime.Before(previous.Time.Add(-time.Second)) && (p.SHA256 != "" || repository(e.Path) == "") {
			e.Hashed, e.XXH3, e.SHA256 = true, p.XXH3, p.SHA256
			continue
		}
		todo = append(todo, e)
	}
	return hashAll(ctx, tree, todo)
}

// hashAll reads files, several at a time.
func hashAll(ctx context.Context, tree string, files []*Entry) error {
	return readFiles(ctx, tree, files, func(e *Entry, got Entry, err error) error {
		if err == nil {
			*e = got
		}
		return err
	})
}

// readFiles reads files, several at a time, and tells each what was found: the
// entry with checksums, or why there are none. No two calls of each overlap, and
// the first error that one returns ends all. Files of one directory should come
// together.
func readFiles(ctx context.Context, tree string, files []*Entry, each func(e *Entry, got Entry, err error) error) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	const share = 32 // files that a worker takes at a time
	var taken atomic.Int64
	var mu sync.Mutex // held while each is called
	g, ctx := errgroup.WithContext(ctx)
	for range min(hashers(), (len(files)+share-1)/share) {
		g.Go(func() error {
			r := newFileReader(root)
			defer r.close()
			for {
				to := int(taken.Add(share))
				if to-share >= len(files) {
					return nil
				}
				for _, e := range files[to-share : min(to, len(files))] {
					if err := ctx.Err(); err != nil {
						return err
					}
					got := *e
					err := r.hash(&got)
					mu.Lock()
					err = each(e, got, err)
					mu.Unlock()
					if err != nil {
						return err
					}
				}
			}
		})
	}
	return g.Wait()
}

// hashers is how many files are read at once: more would fight for one disk.
func hashers() int { return min(runtime.GOMAXPROCS(0), 8) }

// errChanged is wrapped by the error of a file that is not as long as it was
// when it was listed.
var errChanged = errors.New("changed while it was read")

// A fileReader hashes one file after another. It asks the system for no more than
// that takes, because most files of a tree are small.
type fileReader struct {
	root *os.Root
	dir  *os.File // of the last file
	name string   // of dir
	buf  []byte
	xxh3 *xxh3.Hasher
	sha  hash.Hash
}

func newFileReader(root *os.Root) *fileReader {
	return &fileReader{root: root, buf: make([]byte, 256<<10), xxh3: xxh3.New(), sha: sha256.New()}
}

func (r *fileReader) close() {
	if r.dir != nil {
		r.dir.Close()
		r.dir = nil
	}
}

// open opens a file and no link; what is no file either has no content. Its
// directory is opened once for many.
func (r *fileReader) open(name string) (fd int, err error) {
	dir, base := path.Split(name)
	if dir == "" {
		dir = "."
	}
	if r.dir == nil || r.name != dir {
		r.close()
		if r.dir, err = r.root.Open(filepath.FromSlash(dir)); err != nil {
			r.dir = nil
			return 0, err
		}
		r.name = dir
	}
	for {
		fd, err = unix.Openat(int(r.dir.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// hash fills in the checksums of an entry from the content of its file. That this
// has the size that was listed is part of it.
func (r *fileReader) hash(e *Entry) error {
	fd, err := r.open(e.Path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r.xxh3.Reset()
	r.sha.Reset()
	withSHA := repository(e.Path) != ""
	var size int64
	for size <= e.Size { // one that grows for ever is not read for ever
		n, err := unix.Read(fd, r.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "read", Path: e.Path, Err: err}
		}
		if n == 0 {
			break
		}
		size += int64(n)
		r.xxh3.Write(r.buf[:n])
		if withSHA {
			r.sha.Write(r.buf[:n])
		}
	}
	if size != e.Size {
		return fmt.Errorf("%s: %w: it had %d bytes", e.Path, errChanged, e.Size)
	}
	e.Hashed, e.XXH3 = true, r.xxh3.Sum64()
	if withSHA {
		e.SHA256 = hex.EncodeToString(r.sha.Sum(nil))
	}
	return nil
}
