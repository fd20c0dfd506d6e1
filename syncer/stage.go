package syncer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// fetch brings what is new into the stage, judges it there, and plans again with
// what it found.
func (w *followRun) fetch(ctx context.Context) error {
	d := w.d
	if err := w.tree.here(); err != nil {
		return err
	}
	var plain, compare []string
	wanted := make(map[string]*Entry)
	for _, e := range slices.Concat(d.content, d.meta) {
		if e.Type != File {
			continue
		}
		wanted[e.Path] = e
		// rsync would take what is there for the same.
		if old := d.have.Lookup(e.Path); old != nil && old.Type == File && old.Size == e.Size && old.ModTime.Unix() == e.ModTime.Unix() {
			compare = append(compare, e.Path)
		} else {
			plain = append(plain, e.Path)
		}
	}
	if err := w.openStage(wanted); err != nil {
		return err
	}
	largest := int64(0)
	for _, e := range wanted {
		largest = max(largest, e.Size)
	}
	w.say("fetching %d files", len(wanted))
	pull := func(names []string, compare bool) error {
		st, err := w.up.pull(ctx, w.path(stageDir), w.tree.path, names, largest, compare)
		d.sent(st)
		if err := tolerate(err); err != nil {
			return fmt.Errorf("%s: %w", w.up, err)
		}
		return nil
	}
	if err := pull(plain, false); err != nil {
		return err
	}
	if err := pull(compare, true); err != nil {
		return err
	}
	bad, err := w.staged(ctx, wanted)
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		// Once more: what was on its way of another generation may have looked like
		// this one.
		again := make(map[string]*Entry)
		for name := range bad {
			again[name] = wanted[name]
		}
		if err := pull(slices.Collect(maps.Keys(again)), true); err != nil {
			return err
		}
		if bad, err = w.staged(ctx, again); err != nil {
			return err
		}
	}
	// What did not come stays as it is.
	keep, drop := make(map[string]Entry), make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		w.problems = append(w.problems, bad[name])
		drop[name] = true
		if old := d.have.Lookup(name); old != nil {
			keep[name] = *old
		}
	}
	w.amend(keep, func(name string) bool { return drop[name] })
	if err := w.plan(ctx); err != nil {
		return err
	}
	return w.holdBroken(ctx)
}

// openStage makes the directory for files on their way, and removes what is
// there and not wanted.
func (w *followRun) openStage(wanted map[string]*Entry) error {
	root := w.tree.root
	if info, err := root.Lstat(stageDir); err == nil && !info.IsDir() {
		if err := root.Remove(stageDir); err != nil {
			return err
		}
	}
	if err := root.MkdirAll(stageDir, 0o700); err != nil {
		return err
	}
	stage := w.path(stageDir)
	return filepath.WalkDir(stage, func(file string, f fs.DirEntry, err error) error {
		if err != nil || f.IsDir() {
			return err
		}
		name, err := filepath.Rel(stage, file)
		if err != nil {
			return err
		}
		if wanted[name] != nil && f.Type().IsRegular() {
			return nil
		}
		return root.Remove(path.Join(stageDir, name))
	})
}

// stagedBytes is how much is in the stage.
func (w *followRun) stagedBytes() int64 {
	var n int64
	filepath.WalkDir(w.path(stageDir), func(_ string, f fs.DirEntry, err error) error {
		if err != nil {
			return nil // there is none
		}
		if info, err := f.Info(); err == nil && f.Type().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}

// staged reads what has come, and completes the entries with what it finds. bad
// says of each file that is not what it should be why.
func (w *followRun) staged(ctx context.Context, wanted map[string]*Entry) (bad map[string]string, err error) {
	w.say("verifying %d files", len(wanted))
	root, err := os.OpenRoot(w.path(stageDir))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	bad = make(map[string]string)
	files := slices.SortedFunc(maps.Values(wanted), func(a, b *Entry) int { return strings.Compare(a.Path, b.Path) })
	files = slices.DeleteFunc(files, func(e *Entry) bool {
		info, err := root.Lstat(e.Path)
		switch {
		case err != nil || !info.Mode().IsRegular():
			bad[e.Path] = fmt.Sprintf("%+q did not come", e.Path)
			return true
		case info.Size() != e.Size:
			// It may be a part that the next run completes.
			bad[e.Path] = fmt.Sprintf("%+q has %d bytes at the upstream, want %d", e.Path, info.Size(), e.Size)
			return true
		}
		e.ModTime = info.ModTime().UTC()
		return false
	})
	wrong := func(name, why string) {
		bad[name] = why
		root.Remove(name) // or it would be taken for good the next time
	}
	err = readFiles(ctx, root.Name(), files, func(want *Entry, got Entry, err error) error {
		switch {
		case err != nil:
			wrong(want.Path, err.Error())
		case want.Hashed && got.XXH3 != want.XXH3, want.SHA256 != "" && got.SHA256 != want.SHA256:
			wrong(want.Path, fmt.Sprintf("%+q has other content at the upstream than its manifest says", want.Path))
		default:
			*want = got
		}
		return nil
	})
	if err == nil && w.Keys != nil {
		err = w.packages(ctx, root.Name(), slices.DeleteFunc(files, func(e *Entry) bool { return bad[e.Path] != "" }), wrong)
	}
	return bad, err
}

// holdBroken leaves those repositories as they are that would not be whole with
// what has come.
func (w *followRun) holdBroken(ctx context.Context) error {
	stage, err := w.tree.root.OpenRoot(stageDir)
	if err != nil {
		return err
	}
	defer stage.Close()
	tree := stagedTree{stage, w.tree.root}
	broken := false
	for _, r := range slices.Clone(w.repos) {
		if !w.switches(r) && !w.disturbs(r) {
			continue
		}
		why := ""
		missing, err := r.closure(ctx, w.src, tree.open)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			why = err.Error()
		case len(missing) > 1:
			why = fmt.Sprintf("%s; and %d more", missing[0], len(missing)-1)
		case len(missing) == 1:
			why = missing[0]
		}
		if why != "" {
			broken = true
			w.hold(r, why)
		}
	}
	if !broken {
		return nil
	}
	return w.plan(ctx)
}

func (w *followRun) putContent(d *dest, _ context.Context, _ *publisher) error {
	if err := w.put(d.content); err != nil {
		return err
	}
	for _, e := range d.touch {
		if err := w.tree.root.Chtimes(e.Path, e.ModTime, e.ModTime); err != nil {
			return err
		}
	}
	return nil
}

func (w *followRun) putLinks(d *dest, _ context.Context, _ *publisher) error {
	return w.put(d.links)
}

// putMetadata also makes sure that all that the switch makes readers ask for
// survives a crash of the machine.
func (w *followRun) putMetadata(d *dest, _ context.Context, _ *publisher) error {
	if err := w.put(d.meta); err != nil {
		return err
	}
	if len(d.content)+len(d.meta) == 0 {
		return nil
	}
	return d.settle()
}

// put gives names what they are to be, each at once. The order of the list is
// that of its paths, so that directories come before what is in them.
func (w *followRun) put(list []*Entry) error {
	if err := w.tree.here(); err != nil {
		return err
	}
	for _, e := range list {
		var err error
		switch e.Type {
		case Dir:
			err = w.putDir(e.Path)
		case Link:
			err = w.putLink(e.Path, e.Target)
		case File:
			err = w.putFile(e.Path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *followRun) putFile(name string) error {
	root, from := w.tree.root, path.Join(stageDir, name)
	err := root.Rename(from, name)
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody removed a directory that the manifest has.
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		err = root.Rename(from, name)
	}
	if errors.Is(err, syscall.EXDEV) {
		return fmt.Errorf("%w; a tree must be on one file system, to be switched at once", err)
	}
	return err
}

func (w *followRun) putDir(name string) error {
	err := w.tree.root.Mkdir(name, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return w.tree.root.Chmod(name, 0o755) // whatever the umask
}

func (w *followRun) putLink(name, target string) error {
	temporary := beside(name)
	if err := w.tree.root.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := w.tree.root.Symlink(filepath.FromSlash(target), temporary); err != nil {
		return err
	}
	return w.tree.root.Rename(temporary, name)
}
