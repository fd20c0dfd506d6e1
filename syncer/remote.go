package syncer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A remote is a tree that is reached through rsync: its daemon, or ssh.
type remote struct {
	rsync Rsync
	place
}

func (t *remote) String() string { return strings.TrimRight(t.text, "/") }

func (t *remote) close() error { return nil }

// args are those that every run against this tier needs.
func (t *remote) args(more ...string) []string {
	switch t.kind {
	case overSSH:
		// Batch mode: a question for a password would wait for ever. -s: no shell
		// over there sees the names.
		more = append(more, "-s", "-e", "ssh -oBatchMode=yes -oConnectTimeout=30")
	case atDaemon:
		// Much is small, and asked and answered in turn.
		more = append(more, "--sockopts=TCP_NODELAY")
		if t.rsync.PasswordFile != "" {
			more = append(more, "--password-file="+t.rsync.PasswordFile)
		}
	}
	return more
}

// fetch copies names, directories with what is in them, into a new directory
// that discard removes. What is not there is left out.
//
// They are chosen by filters: the daemon of rsync 3.5.0 loses all files that
// --files-from names when the destination is a directory inside of a module, and
// says that they vanished.
func (t *remote) fetch(ctx context.Context, names []string, more ...string) (root *os.Root, discard func(), err error) {
	dir, err := os.MkdirTemp("", "syncer-")
	if err != nil {
		return nil, nil, err
	}
	// No links: nothing of what is read is one.
	args := t.args(append([]string{"-rt", "--no-links", "--prune-empty-dirs", "--from0", "--include-from=-", "--exclude=*"}, more...)...)
	_, err = t.rsync.run(ctx, patternList(filters(names)), nil, append(args, "--", t.text, dir+"/")...)
	if err == nil {
		root, err = os.OpenRoot(dir)
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, nil, err
	}
	return root, func() { root.Close(); os.RemoveAll(dir) }, nil
}

// filters are patterns that match exactly names, what is below them, and the
// directories on the way.
func filters(names []string) []string {
	var list []string
	seen := make(map[string]bool)
	for _, name := range names {
		for dir := path.Dir(name); dir != "." && !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			list = append(list, pattern(dir)+"/")
		}
		list = append(list, pattern(name))
		if name == lockDir {
			list = append(list, pattern(name)+"/*")
		}
	}
	return list
}

// pattern matches name alone. A backslash stands for itself unless there is
// something to escape.
func pattern(name string) string {
	if !strings.ContainsAny(name, "*?[") {
		return "/" + name
	}
	return "/" + strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(name)
}

func (t *remote) read(ctx context.Context, names []string) (map[string][]byte, error) {
	return t.readFiles(ctx, names)
}

// readSmall is read of a stranger: a file of more than max bytes is not there.
func (t *remote) readSmall(ctx context.Context, names []string, max int) (map[string][]byte, error) {
	return t.readFiles(ctx, names, "--max-size="+strconv.Itoa(max))
}

func (t *remote) readFiles(ctx context.Context, names []string, more ...string) (map[string][]byte, error) {
	root, discard, err := t.fetch(ctx, names, more...)
	if err != nil {
		return nil, err
	}
	defer discard()
	return readFrom(root, names)
}

func (t *remote) look(ctx context.Context, names []string) (files, locks map[string][]byte, err error) {
	all := append([]string{lockDir}, names...)
	root, discard, err := t.fetch(ctx, all)
	for range 3 {
		// Others come and go: a lock may be released while it is copied.
		if failed, ok := errors.AsType[*runError](err); !ok || failed.code != rsyncVanished {
			break
		}
		root, discard, err = t.fetch(ctx, all)
	}
	if err != nil {
		return nil, nil, err
	}
	defer discard()
	if files, err = readFrom(root, names); err != nil {
		return nil, nil, err
	}
	locks, err = readLocks(root)
	return files, locks, err
}

func (t *remote) write(ctx context.Context, files []small) (stats, error) {
	dir, err := os.MkdirTemp("", "syncer-")
	if err != nil {
		return stats{}, err
	}
	defer os.RemoveAll(dir)
	var names []string
	for i := range files {
		if err := files[i].stage(dir); err != nil {
			return stats{}, err
		}
		names = append(names, files[i].name)
	}
	// What has the same size and second as before may still be another content.
	// Without -p, new names have the permissions that they were staged with, and
	// the directories that are there keep theirs.
	args := t.args("-tO", "--ignore-times", "--files-from=-", "--from0")
	if len(names) > 1 {
		args = append(args, "--delay-updates")
	}
	if t.rsync.Fsync {
		args = append(args, "--fsync")
	}
	return t.rsync.run(ctx, nameList(names), nil, append(args, "--", dir+"/", t.text)...)
}

// stage writes s below dir with the permissions that it is to have, and its
// directories with theirs, whatever the umask of this process is.
func (s *small) stage(dir string) error {
	perm := fs.FileMode(0o755)
	if s.private {
		perm = 0o700
	}
	at := dir
	for part := range strings.SplitSeq(path.Dir(s.name), "/") {
		at = filepath.Join(at, part)
		if err := os.Mkdir(at, perm); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		} else if err == nil {
			if err := os.Chmod(at, perm); err != nil {
				return err
			}
		}
	}
	file := filepath.Join(dir, s.name)
	if err := os.WriteFile(file, s.data, s.perm()); err != nil {
		return err
	}
	if err := os.Chmod(file, s.perm()); err != nil {
		return err
	}
	if s.modTime.IsZero() {
		return nil
	}
	return os.Chtimes(file, s.modTime, s.modTime)
}

func (t *remote) send(ctx context.Context, src string, names []string, compare bool) (stats, error) {
	return t.rsync.push(ctx, src, t.text, names, compare, t.args()...)
}

// settle has nothing to do: Rsync.Fsync is what can be asked of another machine.
func (t *remote) settle() error { return nil }

func (t *remote) differ(ctx context.Context, src string, entries []*Entry) ([]string, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	var names, wrong []string
	for _, e := range entries {
		names = append(names, e.Path)
	}
	args := t.args("-ltOn", "--files-from=-", "--from0")
	_, err := t.rsync.run(ctx, nameList(names), func(it item) error {
		// A dot means that at most attributes differ.
		if it.op[0] != '.' {
			wrong = append(wrong, it.path)
		}
		return nil
	}, append(args, "--", strings.TrimRight(src, "/")+"/", t.text)...)
	return wrong, err
}

// remove has rsync find out that names are missing in a directory that has
// nothing but their parents. Directories go one level at a time, because rsync
// would begin with the outer one and find it full.
func (t *remote) remove(ctx context.Context, names []string, dry bool) (int, error) {
	if len(names) == 1 && !dry {
		return t.removeMissing(ctx, names) // one level is all there is
	}
	there, err := t.types(ctx, names)
	if err != nil {
		return 0, err
	}
	rounds := make(map[int][]string) // 0 for files, else by depth
	for name, typ := range there {
		depth := 0
		if typ == Dir {
			depth = 1 + strings.Count(name, "/")
		}
		rounds[depth] = append(rounds[depth], name)
	}
	if dry {
		return len(there), nil
	}
	var depths []int
	for d := range rounds {
		depths = append(depths, d)
	}
	slices.Sort(depths)
	if len(depths) > 0 && depths[0] == 0 {
		depths = append(depths[1:], 0)
	}
	n := 0
	for _, d := range slices.Backward(depths) {
		deleted, err := t.removeMissing(ctx, rounds[d])
		n += deleted
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// types says of those of the names that are there what they are.
func (t *remote) types(ctx context.Context, names []string) (map[string]Type, error) {
	there := make(map[string]Type)
	if len(names) == 0 {
		return there, nil
	}
	wanted := make(map[string]bool, len(names))
	for _, n := range names {
		wanted[n] = true
	}
	empty, err := os.MkdirTemp("", "syncer-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(empty)
	args := t.args("-ltn", "--ignore-missing-args", "--files-from=-", "--from0")
	_, err = t.rsync.run(ctx, nameList(names), func(it item) error {
		if typ, ok := typeOf(it); ok && wanted[it.path] {
			there[it.path] = typ
		}
		return nil
	}, append(args, "--", t.text, empty+"/")...)
	return there, err
}

func typeOf(it item) (Type, bool) {
	switch it.op[1] {
	case 'f':
		return File, true
	case 'd':
		return Dir, true
	case 'L':
		return Link, true
	}
	return 0, false
}

func (t *remote) removeMissing(ctx context.Context, names []string) (int, error) {
	if len(names) == 0 {
		return 0, nil
	}
	dir, err := os.MkdirTemp("", "syncer-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	made := make(map[string]bool)
	for _, name := range names {
		if parent := path.Dir(name); !made[parent] {
			made[parent] = true
			if err := os.MkdirAll(filepath.Join(dir, parent), 0o755); err != nil {
				return 0, err
			}
		}
	}
	n := 0
	args := t.args("--existing", "--ignore-existing", "--delete-missing-args", "--files-from=-", "--from0")
	_, err = t.rsync.run(ctx, nameList(names), func(it item) error {
		if strings.HasPrefix(it.op, "*deleting") {
			n++
		}
		return nil
	}, append(args, "--", dir+"/", t.text)...)
	return n, err
}

func (t *remote) list(ctx context.Context) (*Manifest, error) { return t.listing(ctx) }

// listing is list with more arguments for rsync.
func (t *remote) listing(ctx context.Context, more ...string) (*Manifest, error) {
	empty, err := os.MkdirTemp("", "syncer-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(empty)
	m := new(Manifest)
	args := t.args(append([]string{"-rltn", "--exclude=/" + StateDir}, more...)...)
	_, err = t.rsync.run(ctx, nil, func(it item) error {
		typ, ok := typeOf(it)
		if !ok || it.path == "." || ours(it.path) {
			return nil
		}
		e := Entry{Path: it.path, Type: typ, Target: it.target}
		if typ == File {
			e.Size, e.ModTime = it.size, it.modTime
		}
		m.Entries = append(m.Entries, e)
		return nil
	}, append(args, "--", t.text, empty+"/")...)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", t, err)
	}
	slices.SortFunc(m.Entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return m, nil
}

func (t *remote) free() (int64, bool, error) { return 0, false, nil }
