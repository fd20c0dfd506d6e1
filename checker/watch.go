package checker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"meridian/schema"
)

// How files that people edit are read: after two equal listings in a row, and
// never while git holds its lock on them.
const (
	watchFilesEvery     = 10 * time.Second
	watchDecisionsEvery = 2 * time.Second
	settleEvery         = 200 * time.Millisecond

	// settleFor is how long it takes until it is said that files do not come to
	// rest.
	settleFor = 30 * time.Second

	// maxGone is the part of the mirrors that may disappear at once without being
	// asked twice: what looks like half a network is mostly half a checkout.
	maxGone = 0.3
)

// A watch reads the files that people edit, and keeps the last good form of each.
type watch struct {
	c    *Checker
	tree *schema.Tree

	seen      schema.Listing // what tree was read from
	overrides schema.Listing // and what the decisions were
	decisions *Overrides

	problems map[string][]string // what is wrong now, by subject
}

// news is what has changed in the files.
type news struct {
	tree      *schema.Tree
	decisions *Overrides
	problems  map[string][]string
}

func newWatch(c *Checker) *watch {
	return &watch{c: c, problems: map[string][]string{}}
}

func (w *watch) paths() []string {
	paths := []string{w.c.opts.Settings.Network}
	if w.tree != nil {
		paths = append(paths, w.tree.Network.MirrorsDir)
	}
	return paths
}

// first reads everything for the first time. It waits a little for who is writing
// the files, and then takes what there is.
func (w *watch) first(ctx context.Context) error {
	until := time.Now().Add(settleFor / 3)
	for {
		before, lock := schema.List(w.paths()), schema.GitLock(w.paths())
		tree, err := schema.ReadTree(w.c.opts.Settings.Network, "", w.tree)
		if tree == nil {
			return err
		}
		known := w.tree != nil
		w.tree = tree
		w.seen = schema.List(w.paths())
		if (known && lock == "" && w.seen == before) || time.Now().After(until) {
			w.judge(err)
			break
		}
		if known && !pause(ctx, settleEvery) {
			return ctx.Err()
		}
	}
	w.decide()
	return nil
}

// run reads what has changed, and tells it to out, until ctx ends.
func (w *watch) run(ctx context.Context, out chan<- news) error {
	files, decisions := time.NewTicker(watchFilesEvery), time.NewTicker(watchDecisionsEvery)
	defer files.Stop()
	defer decisions.Stop()
	for {
		var asked *reloadRequest
		look := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-w.c.reload:
			asked, look = &r, true
		case <-files.C:
			look = true
		case <-decisions.C:
		}
		changed := asked != nil || look && schema.List(w.paths()) != w.seen
		var err error
		if changed {
			err = w.read(ctx, asked != nil && asked.force)
		}
		if decided := w.decide(); changed || decided {
			select {
			case out <- news{w.tree, w.decisions, maps.Clone(w.problems)}:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if asked != nil {
			asked.done <- errors.Join(err, w.faults())
		}
	}
}

// read waits until the files rest, and reads them.
func (w *watch) read(ctx context.Context, force bool) error {
	until := time.Now().Add(settleFor)
	for {
		before := schema.List(w.paths())
		if !pause(ctx, settleEvery) {
			return ctx.Err()
		}
		now, lock := schema.List(w.paths()), schema.GitLock(w.paths())
		if now == before && lock == "" {
			tree, err := schema.ReadTree(w.c.opts.Settings.Network, "", w.tree)
			if schema.List(w.paths()) == now && schema.GitLock(w.paths()) == "" {
				w.seen = now
				w.problem("files")
				return w.take(tree, err, force)
			}
		}
		if time.Now().After(until) {
			err := fmt.Errorf("they keep changing for longer than %s: nothing is read until they rest", settleFor)
			if lock != "" {
				err = fmt.Errorf("%s is there for longer than %s: finish what git does, or delete it", lock, settleFor)
			}
			w.problem("files", err)
			return nil
		}
	}
}

// take puts a tree in use.
func (w *watch) take(tree *schema.Tree, err error, force bool) error {
	if tree == nil {
		w.problem("network", err)
		return nil
	}
	if bad := w.c.checkNetwork(tree.Network); bad != nil {
		tree.NetworkFaults = append(tree.NetworkFaults, bad)
	}
	gone := tree.Gone(w.tree)
	if !force && err == nil && float64(gone) > maxGone*float64(len(w.tree.Mirrors)) {
		w.problem("removed mirrors", fmt.Errorf("%d of %d mirrors are gone at once: if that is meant, ask for a reload (SIGHUP)", gone, len(w.tree.Mirrors)))
		return nil
	}
	w.problem("removed mirrors")
	if tree.Network.MirrorsDir != w.tree.Network.MirrorsDir {
		w.seen = 0 // what was listed is not what was read: look again
	}
	w.tree = tree
	w.judge(err)
	return nil
}

// judge says what is wrong with the tree.
func (w *watch) judge(err error) {
	w.problem("network", w.tree.NetworkFaults...)
	w.problem("mirrors", append(slices.Clone(w.tree.MirrorFaults), err)...)
}

// decide reads the decisions of administrators if their file has changed, and
// reports whether it has. Decisions that cannot be read stay as they were.
func (w *watch) decide() bool {
	path, read := w.c.opts.Settings.Overrides, w.c.opts.ReadOverrides
	if path == "" || read == nil {
		return false
	}
	now := schema.List([]string{path})
	if now == w.overrides {
		return false
	}
	decisions, err := read()
	if schema.List([]string{path}) != now {
		return false // it is being written
	}
	w.overrides = now
	if errors.Is(err, fs.ErrNotExist) {
		decisions, err = &Overrides{}, nil
	}
	if err == nil {
		err = decisions.Check()
	}
	if err == nil {
		w.decisions = decisions
		var names []string
		for _, m := range w.tree.Mirrors {
			names = append(names, m.Name)
		}
		var errs []error
		for _, text := range decisions.Unknown(names, Keys(WithPending(w.tree.Network, w.c.opts.Settings.PendingVersions))) {
			errs = append(errs, errors.New(text))
		}
		err = errors.Join(errs...)
	}
	w.problem("overrides", err)
	return true
}

// problem records what is wrong with one of the inputs; nil errors clear it.
func (w *watch) problem(subject string, errs ...error) {
	var texts []string
	for _, err := range errs {
		if err != nil {
			texts = append(texts, err.Error())
		}
	}
	if slices.Equal(texts, w.problems[subject]) {
		return
	}
	if len(texts) == 0 {
		delete(w.problems, subject)
		w.c.log.Info("input is good again", "input", subject)
		return
	}
	w.problems[subject] = texts
	for _, t := range texts {
		w.c.log.Warn("input is not as it should be", "input", subject, "err", t)
	}
}

// faults are all problems as one error.
func (w *watch) faults() error {
	var lines []string
	for _, subject := range slices.Sorted(maps.Keys(w.problems)) {
		lines = append(lines, w.problems[subject]...)
	}
	if len(lines) == 0 {
		return nil
	}
	return errors.New(strings.Join(lines, "\n"))
}
