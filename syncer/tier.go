package syncer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"meridian/internal/durable"
)

// A tier is a tier0 as a publisher reaches it. Names are relative to its top.
type tier interface {
	String() string

	// read returns the content of those names that exist. They are small files.
	read(ctx context.Context, names []string) (map[string][]byte, error)

	// look is read, and returns the locks too, by their base names.
	look(ctx context.Context, names []string) (files, locks map[string][]byte, err error)

	// write puts small files in their places. Each appears whole, and none before
	// all are on the disk, so that what is left then is only to rename them.
	write(ctx context.Context, files []small) (stats, error)

	// send transfers names from the tree src, each whole or not at all, in the
	// order that rsync likes. With compare, files that have their size and time
	// already are compared by content. settle makes what was sent survive a crash.
	send(ctx context.Context, src string, names []string, compare bool) (stats, error)
	settle() error

	// differ returns those of the entries that are not there as they are in src.
	differ(ctx context.Context, src string, entries []*Entry) ([]string, error)

	// remove deletes names, those of directories only if they are empty, and
	// returns how many of them were there. With dry it only counts.
	remove(ctx context.Context, names []string, dry bool) (int, error)

	// list returns everything in the tree but what is the publisher's.
	list(ctx context.Context) (*Manifest, error)

	// free is how many bytes fit; ok is false when that cannot be known.
	free() (bytes int64, ok bool, err error)

	close() error
}

// A small file is written as one.
type small struct {
	name    string
	data    []byte
	modTime time.Time
	private bool // of the publisher, and nobody else's to read
}

func (s *small) perm() fs.FileMode {
	if s.private {
		return 0o600
	}
	return 0o644
}

var addressBrackets = regexp.MustCompile(`\[[0-9A-Fa-f:.]+\]`)

// A place is where a tree is, as it was written down.
type place struct {
	text string // as rsync wants it; of another machine, with a slash at its end
	kind placeKind
}

type placeKind int

const (
	onDisk   placeKind = iota // a directory of this machine
	atDaemon                  // rsync://HOST/MODULE or HOST::MODULE
	overSSH                   // HOST:DIRECTORY
)

// parsePlace understands a directory, rsync://, host::module or host:directory.
// What says in errors what the place is to be.
func parsePlace(what, text string) (place, error) {
	switch {
	case text == "":
		return place{}, fmt.Errorf("the %s is empty; write a directory, rsync://HOST/MODULE or HOST:DIRECTORY", what)
	case text[0] == '-':
		return place{}, fmt.Errorf("%s %q looks like an option; write ./%s", what, text, text)
	case strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return place{}, fmt.Errorf("%s %+q holds a control character", what, text)
	}
	host, dir, colon := strings.Cut(text, ":")
	if !colon || strings.Contains(host, "/") {
		return place{text, onDisk}, nil
	}
	// The brackets of an IPv6 address are not a pattern.
	if pattern := addressBrackets.ReplaceAllString(text, ""); strings.ContainsAny(pattern, "*?[") {
		return place{}, fmt.Errorf("%s %q: rsync would expand *, ? and [ over there; write it without", what, text)
	}
	p := place{text: strings.TrimRight(text, "/") + "/"}
	if strings.HasPrefix(text, rsyncScheme) {
		u, err := url.Parse(text)
		if err != nil {
			return place{}, fmt.Errorf("%s: %w", what, err)
		}
		if _, has := u.User.Password(); has {
			return place{}, fmt.Errorf("the %s must not hold a password; write it to a password file", what)
		}
		if u.Host == "" || strings.Trim(u.Path, "/") == "" {
			return place{}, fmt.Errorf("%s %q: write rsync://[USER@]HOST[:PORT]/MODULE[/DIRECTORY]", what, text)
		}
		p.kind = atDaemon
		return p, nil
	}
	if host == "" || dir == "" || strings.Trim(dir, ":/") == "" && dir != "/" {
		return place{}, fmt.Errorf("%s %q: write HOST:DIRECTORY or HOST::MODULE", what, text)
	}
	p.kind = overSSH
	if dir[0] == ':' {
		p.kind = atDaemon
	}
	return p, nil
}

const rsyncScheme = "rsync://"

// module divides the place of a daemon behind the module: "rsync://host/module/"
// and "dir/".
func (p place) module() (module, dir string) {
	at := strings.Index(p.text, "::") + 2
	if strings.HasPrefix(p.text, rsyncScheme) {
		at = len(rsyncScheme) + strings.Index(p.text[len(rsyncScheme):], "/") + 1
	}
	at += strings.Index(p.text[at:], "/") + 1
	return p.text[:at], strings.TrimLeft(p.text[at:], "/")
}

// openTier understands a destination. A local directory must exist.
func openTier(dest string, r Rsync) (tier, error) {
	p, err := parsePlace("destination", dest)
	if err != nil {
		return nil, err
	}
	if p.kind == onDisk {
		return openDir(dest, r)
	}
	return &remote{r, p}, nil
}

// dirTier is a tier0 on this machine.
type dirTier struct {
	path  string
	rsync Rsync

	// root keeps every path inside, whatever links there are, and stays the
	// directory that it was when somebody moves it.
	root *os.Root
}

func openDir(dest string, r Rsync) (*dirTier, error) {
	abs, err := filepath.Abs(dest)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(abs)
	if errors.Is(err, fs.ErrNotExist) {
		// Making it could fill the disk below a mount that is missing.
		return nil, fmt.Errorf("destination %s is not there; mount it, or make the directory: %w", abs, err)
	}
	if err != nil {
		return nil, fmt.Errorf("destination: %w", err)
	}
	r.Fsync = false // settle is for that
	return &dirTier{abs, r, root}, nil
}

func (t *dirTier) String() string { return t.path }

func (t *dirTier) close() error { return t.root.Close() }

// here is nil as long as the path is still the directory that was opened.
func (t *dirTier) here() error {
	opened, err := t.root.Stat(".")
	if err != nil {
		return err
	}
	now, err := os.Stat(t.path)
	if err != nil {
		return fmt.Errorf("the destination vanished: %w", err)
	}
	if !os.SameFile(opened, now) {
		return fmt.Errorf("%s is another directory than before; it was replaced or unmounted", t.path)
	}
	return nil
}

func (t *dirTier) read(_ context.Context, names []string) (map[string][]byte, error) {
	if err := t.here(); err != nil {
		return nil, err
	}
	return readFrom(t.root, names)
}

// readFrom reads those of the names that exist.
func readFrom(root *os.Root, names []string) (map[string][]byte, error) {
	got := make(map[string][]byte)
	for _, name := range names {
		b, err := root.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		got[name] = b
	}
	return got, nil
}

func (t *dirTier) look(ctx context.Context, names []string) (files, locks map[string][]byte, err error) {
	if files, err = t.read(ctx, names); err != nil {
		return nil, nil, err
	}
	locks, err = readLocks(t.root)
	return files, locks, err
}

// readLocks reads the locks of the tree root.
func readLocks(root *os.Root) (map[string][]byte, error) {
	dir, err := root.Open(lockDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	got := make(map[string][]byte)
	for _, name := range names {
		if strings.HasPrefix(name, ".") {
			// Being written, or left by a writer that was killed.
			info, err := root.Lstat(path.Join(lockDir, name))
			if err == nil && time.Since(info.ModTime()) > time.Hour {
				root.Remove(path.Join(lockDir, name))
			}
			continue
		}
		b, err := root.ReadFile(path.Join(lockDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		got[name] = b
	}
	return got, nil
}

// beside is where the new content of a file waits, hidden from clients.
func beside(name string) string {
	dir, base := path.Split(name)
	return dir + "." + base + ".syncer"
}

func (t *dirTier) write(_ context.Context, files []small) (st stats, err error) {
	if err := t.here(); err != nil {
		return st, err
	}
	renamed := 0
	defer func() {
		for _, f := range files[renamed:] {
			t.root.Remove(beside(f.name))
		}
	}()
	for i := range files {
		if err := t.prepare(&files[i]); err != nil {
			return st, fmt.Errorf("write %s: %w", path.Join(t.path, files[i].name), err)
		}
		st.literal += int64(len(files[i].data))
		st.files++
	}
	var dirs []string
	for _, f := range files {
		if err := t.root.Rename(beside(f.name), f.name); err != nil {
			return st, err
		}
		renamed++
		dirs = append(dirs, path.Dir(f.name))
	}
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		if err := durable.SyncDir(filepath.Join(t.path, dir)); err != nil {
			return st, err
		}
	}
	return st, nil
}

// prepare writes the new content of a file beside it.
func (t *dirTier) prepare(s *small) (err error) {
	if dir := path.Dir(s.name); dir != "." {
		perm := fs.FileMode(0o755)
		if s.private {
			perm = 0o700
		}
		if err := t.root.MkdirAll(dir, perm); err != nil {
			return err
		}
	}
	name := beside(s.name)
	f, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, s.perm())
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if _, err := f.Write(s.data); err != nil {
		return err
	}
	if err := f.Chmod(s.perm()); err != nil {
		return err
	}
	if !s.modTime.IsZero() {
		if err := t.root.Chtimes(name, s.modTime, s.modTime); err != nil {
			return err
		}
	}
	return f.Sync()
}

func (t *dirTier) send(ctx context.Context, src string, names []string, compare bool) (stats, error) {
	if err := t.here(); err != nil {
		return stats{}, err
	}
	return t.rsync.push(ctx, src, t.path+"/", names, compare)
}

// settle writes out everything at once, which is far quicker than file by file.
func (t *dirTier) settle() error {
	if err := t.here(); err != nil {
		return err
	}
	d, err := t.root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return syncFS(d)
}

func (t *dirTier) differ(_ context.Context, _ string, entries []*Entry) ([]string, error) {
	if err := t.here(); err != nil {
		return nil, err
	}
	var wrong []string
	for _, want := range entries {
		info, err := t.root.Lstat(want.Path)
		if errors.Is(err, fs.ErrNotExist) {
			wrong = append(wrong, want.Path)
			continue
		}
		if err != nil {
			return nil, err
		}
		ok := false
		switch want.Type {
		case File:
			ok = info.Mode().IsRegular() && info.Size() == want.Size && info.ModTime().Unix() == want.ModTime.Unix()
		case Dir:
			ok = info.IsDir()
		case Link:
			target, err := t.root.Readlink(want.Path)
			ok = err == nil && target == want.Target
		}
		if !ok {
			wrong = append(wrong, want.Path)
		}
	}
	return wrong, nil
}

// remove works also where the directory is not where it was: the lock in it has
// to go.
func (t *dirTier) remove(_ context.Context, names []string, dry bool) (int, error) {
	n := 0
	// Backwards, because what is in a directory sorts behind it.
	names = slices.Sorted(slices.Values(names))
	for _, name := range slices.Backward(names) {
		info, err := t.root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return n, err
		}
		if !dry {
			err = t.root.Remove(name)
			if info.IsDir() && (errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST)) {
				continue // somebody else's files are in it
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return n, err
			}
		}
		n++
	}
	return n, nil
}

func (t *dirTier) list(ctx context.Context) (*Manifest, error) {
	if err := t.here(); err != nil {
		return nil, err
	}
	m, _, err := walk(ctx, t.path)
	return m, err
}

func (t *dirTier) free() (int64, bool, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(t.path, &st); err != nil {
		return 0, false, err
	}
	return int64(st.Bavail) * int64(st.Bsize), true, nil
}

// nameList is what --files-from=- --from0 reads. Names that begin with # or ;
// would be taken for comments.
func nameList(names []string) io.Reader {
	var b strings.Builder
	for _, name := range names {
		if name[0] == '#' || name[0] == ';' {
			b.WriteString("./")
		}
		b.WriteString(name)
		b.WriteByte(0)
	}
	return strings.NewReader(b.String())
}

// patternList is what --include-from=- --from0 reads.
func patternList(patterns []string) io.Reader {
	return strings.NewReader(strings.Join(patterns, "\x00") + "\x00")
}

// push transfers names below from to a destination, with what readers need to
// read them and nothing of who owns them here.
func (r *Rsync) push(ctx context.Context, from, to string, names []string, compare bool, more ...string) (stats, error) {
	args := append([]string{"-lptHO", "--chmod=Du=rwx,Dgo=rx,Fu+rw,Fgo+r,Fgo-w", "--files-from=-", "--from0"}, more...)
	if compare {
		args = append(args, "--checksum")
	}
	if r.Fsync {
		args = append(args, "--fsync")
	}
	return r.run(ctx, nameList(names), nil, append(args, "--", strings.TrimRight(from, "/")+"/", to)...)
}
