package syncer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"meridian/builder/repodata"
	"meridian/signer/verify"
)

// A Follower keeps a tree of this machine as its upstream publishes it.
type Follower struct {
	// Upstream is what is followed: a directory, rsync://[USER@]HOST/MODULE,
	// [USER@]HOST::MODULE, or [USER@]HOST:DIRECTORY over ssh.
	Upstream string

	// Tree is the directory to keep. It must exist. What it has and the upstream
	// has not is deleted when its time has come, Exclude aside.
	Tree string

	Rsync Rsync

	// Exclude are patterns of names, as of path.Match and relative to the top of
	// the tree, that are neither fetched nor deleted, with everything below them.
	Exclude []string

	// Grace is how long names stay that the upstream has no more, for readers of
	// older metadata. Default 48h. Two generations stay whatever their age.
	Grace time.Duration

	// MaxDelete is how many names may leave the tree, and how many may be deleted,
	// at a time. 0: a tenth of the tree, and at least 1000. Negative: any.
	MaxDelete int

	// Keys, if not nil, must have signed the metadata of every repository that is
	// switched and every package that is new.
	Keys *verify.Ring

	// ListEvery is how often an upstream without manifest is listed, if its TIME
	// does not say that nothing has changed. 0: each time.
	ListEvery time.Duration

	// Full believes nothing that was written about the tree, and reads all of it.
	Full bool

	// AcceptOlder follows an upstream that goes back to an older generation.
	AcceptOlder bool

	// AcceptClock follows although the last run is in the future.
	AcceptClock bool

	// BreakLock is the name of a lock whose owner is known to be gone.
	BreakLock string

	// DryRun ends the run before anything is transferred but what the upstream
	// says of itself.
	DryRun bool

	// Progress, if not nil, is told what is being done.
	Progress func(what string)

	// step and now are as in [Job].
	step func(name string)
	now  func() time.Time

	// pauses are those before the upstream is asked again while it is being
	// published to; nil is what is good for one that is.
	pauses []time.Duration
}

// ErrIncomplete is wrapped by the error of a run in which some of the tree had to
// stay as it was. All else is as the upstream has it, and each repository is
// whole.
var ErrIncomplete = errors.New("not everything could be brought up to date")

// ErrAsked is wrapped by the error of a run that did not begin because another
// process follows into the same tree. It will do so once more before it ends.
var ErrAsked = errors.New("asked")

// The steps of a run that changes something, after each of which it may be
// killed.
var followSteps = []string{"locked", "looked", "begun", "fetched", "content", "metadata", "switched", "links", "confirmed", "marked", "deleted"}

// Where a follower keeps what it needs below the tree.
const (
	lookDir   = StateDir + "/upstream" // the markers of the upstream as they were seen last
	stageDir  = StateDir + "/stage"    // files that are on their way
	askedFile = StateDir + "/asked"    // there when somebody wants another run
)

// Follow makes the tree what the upstream has. It first asks for no more than the
// upstream's markers; when those are as they were, nothing else happens.
//
// Files wait beside the tree until they are whole, and are what the upstream's
// manifest says. Then they are switched as [Publish] does it: readers of each
// repository have the old generation or the new one, whole, also when the
// process is killed; the next run goes on from there. A repository whose new
// generation is not whole stays as it is, and the error is [ErrIncomplete].
//
// When the tree is followed by another process the error is [ErrAsked].
func Follow(ctx context.Context, f Follower) (*Report, error) {
	up, err := openUpstream(f.Upstream, f.Rsync)
	if err != nil {
		return nil, err
	}
	for _, p := range f.Exclude {
		if err := checkPattern(p); err != nil {
			return nil, fmt.Errorf("exclude: %w", err)
		}
	}
	if p, err := parsePlace("tree", f.Tree); err != nil {
		return nil, err
	} else if p.kind != onDisk {
		return nil, fmt.Errorf("tree %q is on another machine; follow from there, or publish to it", f.Tree)
	}
	for {
		if err := f.ask(); err != nil {
			return nil, err
		}
		w := newRun(f, up)
		err := w.run(ctx)
		if held, ok := errors.AsType[*lockedError](err); ok && held.owner != nil && held.owner.Asked {
			return w.end(), fmt.Errorf("%w %v, %s, to do this once more when it is done", ErrAsked, held.owner, held.owner.age(w.began))
		}
		// Whoever asked while the lock was held was told that this would follow.
		if f.DryRun || errors.Is(err, ErrLocked) || ctx.Err() != nil || !f.asked() {
			return w.end(), err
		}
	}
}

// ask leaves word that a run is wanted, before the lock is tried: whoever holds it
// looks for that after it let go.
func (f *Follower) ask() error {
	if f.DryRun {
		return nil
	}
	t, err := openDir(f.Tree, f.Rsync)
	if err != nil {
		return err
	}
	defer t.close()
	if err := t.root.Mkdir(StateDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return t.root.WriteFile(askedFile, nil, 0o600)
}

func (f *Follower) asked() bool {
	_, err := os.Lstat(filepath.Join(f.Tree, askedFile))
	return err == nil
}

// followRun is one run of a follower.
type followRun struct {
	*publisher
	f    Follower
	up   *upstream
	d    *dest
	tree *dirTier

	seen     map[string]bool // markers that the upstream has
	print    string          // fingerprint of the upstream
	problems []string        // why some of the tree stays as it is
	notes    []string        // of what came before the upstream was asked
}

func newRun(f Follower, up *upstream) *followRun {
	p := newPublisher(Job{
		Source: up.String(), Dests: []string{f.Tree}, Rsync: f.Rsync,
		Grace: cmp.Or(f.Grace, 48*time.Hour), MaxDelete: f.MaxDelete, Replace: true, Keys: f.Keys,
		AcceptClock: f.AcceptClock, BreakLock: f.BreakLock, DryRun: f.DryRun, Progress: f.Progress,
		step: f.step, now: f.now,
	})
	p.report.Source = up.String()
	p.stamp, p.follower = nil, true
	return &followRun{publisher: p, f: f, up: up}
}

func (w *followRun) run(ctx context.Context) (err error) {
	if err := w.lock(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close(ctx)) }()
	w.d = w.dests[0]
	w.tree = w.d.tier.(*dirTier)
	if !w.DryRun { // which is not what was asked for
		if err := w.tree.root.Remove(askedFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	w.notes = w.d.notes
	w.done("locked")

	if done, err := w.look(ctx); done || err != nil {
		return err
	}
	w.done("looked")
	if err := w.learn(ctx); err != nil {
		return err
	}
	if err := w.plan(ctx); err != nil {
		return err
	}
	w.d.waiting = w.stagedBytes()
	if bad, err := w.d.check(ctx, w.publisher); err != nil {
		return err
	} else if err := problems("nothing was changed", bad); err != nil {
		return err
	}
	if w.DryRun {
		return w.incomplete()
	}
	if err := w.steps(ctx, []step{{"begun", "begin", (*dest).begin}}); err != nil {
		return err
	}
	if err := w.fetch(ctx); err != nil {
		return err
	}
	w.done("fetched")
	if err := w.steps(ctx, []step{
		{"content", "put packages in their places", w.putContent},
		{"metadata", "put metadata in its place", w.putMetadata},
		{"switched", "switch", (*dest).switchOver},
		{"links", "switch links", w.putLinks},
		{"confirmed", "confirm", (*dest).confirm},
		{"marked", "write markers", (*dest).mark},
		{"deleted", "delete what is expired", (*dest).delete},
	}); err != nil {
		return err
	}
	if err := w.tree.root.RemoveAll(stageDir); err != nil {
		return err
	}
	return w.incomplete()
}

func (w *followRun) incomplete() error {
	if err := problems(ErrIncomplete.Error(), w.problems); err != nil {
		return fmt.Errorf("%w%s", ErrIncomplete, strings.TrimPrefix(err.Error(), ErrIncomplete.Error()))
	}
	return nil
}

func (w *followRun) path(name string) string { return filepath.Join(w.tree.path, name) }

// errMoving says that the upstream is being switched at this moment: what was
// read of it are parts of two generations.
var errMoving = errors.New("the upstream is being published to")

// look asks the upstream what it has, and the tree. done is that there is nothing
// more to do.
func (w *followRun) look(ctx context.Context) (done bool, err error) {
	w.say("asking %s", w.up)
	pauses := w.f.pauses
	if pauses == nil {
		pauses = []time.Duration{0, 100 * time.Millisecond, time.Second, 5 * time.Second}
	}
	for _, pause := range pauses {
		if done, err = w.lookOnce(ctx, false); !errors.Is(err, errMoving) {
			return done, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(pause):
		}
	}
	// Not for a moment, but for good: its manifest is not that of its tree.
	return w.lookOnce(ctx, true)
}

// lookOnce reads the upstream and the tree. With settle, repositories that are
// not of the upstream's manifest stay behind.
func (w *followRun) lookOnce(ctx context.Context, settle bool) (done bool, err error) {
	if err := w.tree.root.MkdirAll(lookDir, 0o700); err != nil {
		return false, err
	}
	seen, st, err := w.up.look(ctx, w.path(lookDir))
	w.d.sent(st)
	if err != nil {
		return false, fmt.Errorf("%s: %w", w.up, err)
	}
	w.seen = seen
	if w.print, err = fingerprint(w.path(lookDir), seen, w.f.Exclude); err != nil {
		return false, err
	}
	if err := w.readStamp(ctx); err != nil {
		return false, err
	}
	if done, err := w.current(ctx); done || err != nil {
		return done, err
	}

	w.say("reading what %s has", w.up)
	if err := w.readUpstream(ctx); err != nil {
		return false, fmt.Errorf("%s: %w", w.up, err)
	}
	if err := w.each(ctx, "read what is there", (*dest).load); err != nil {
		return false, err
	}
	if w.f.Full {
		if w.d.have, err = w.d.list(ctx); err != nil {
			return false, err
		}
	}
	w.protect()
	if !w.f.AcceptOlder && w.src.Time.Before(w.d.written) && seen[ManifestFile] {
		// One host of several has not caught up, or was restored.
		w.report.Behind = true
		w.stamp = nil
		return true, nil
	}
	return false, w.readEntries(ctx, settle)
}

// readStamp finds out whether TIME has to be written: never backwards.
func (w *followRun) readStamp(ctx context.Context) error {
	w.stamp = nil
	if !w.seen[TimeFile] {
		return nil
	}
	w.report.Upstream = stampIn(w.path(lookDir))
	if w.report.Upstream.After(w.began.Add(24 * time.Hour)) {
		return nil // nobody knows that it is current tomorrow
	}
	here, err := w.d.read(ctx, []string{TimeFile})
	if err != nil {
		return err
	}
	if w.report.Upstream.After(parseTime(here[TimeFile])) {
		w.stamp = fmt.Appendln(nil, w.report.Upstream.Unix())
	}
	return nil
}

// current reports whether the tree is what the upstream has, and needs at most
// another TIME, which it then gets. It looks at little.
func (w *followRun) current(ctx context.Context) (bool, error) {
	d := w.d
	files, err := d.read(ctx, []string{stateFile, ManifestFile})
	if err != nil || files[stateFile] == nil || w.f.Full {
		return false, err
	}
	s, err := parseState(files[stateFile])
	if err != nil {
		return false, err
	}
	if s.Pending != nil || s.Manifest != sum(files[ManifestFile]) || len(s.clone().expire(w.began, w.grace())) > 0 {
		return false, nil
	}
	// Without anything that tells, the last list is good for a while.
	recent := !w.seen[ManifestFile] && w.began.Before(s.Listed.Add(w.f.ListEvery)) && !w.began.Before(s.Listed)
	if (w.print == "" || w.print != s.Followed) && !recent {
		return false, nil
	}
	d.old, d.planned, d.report.Notes = s, planned{next: s.clone()}, w.notes
	d.report.Current, d.report.Generation = true, s.number()
	if w.print != s.Followed || w.DryRun {
		return true, nil // TIME is of what is there, not of what was not looked at
	}
	return true, w.steps(ctx, []step{{"marked", "write markers", (*dest).mark}})
}

// readUpstream finds out what the upstream has.
func (w *followRun) readUpstream(ctx context.Context) (err error) {
	w.report.Listed = !w.seen[ManifestFile]
	if w.report.Listed {
		w.src, err = w.up.everything(ctx, w.f.Exclude)
	} else {
		w.src, err = readUpstreamManifest(w.path(lookDir))
	}
	if err != nil {
		return err
	}
	notes := trim(w.src, w.f.Exclude)
	if more := len(notes) - 20; more > 0 {
		notes = append(notes[:20], fmt.Sprintf("left out %d more", more))
	}
	w.d.notes = slices.Concat(w.notes, notes)
	w.repos = repositories(w.src)
	return nil
}

// protect takes what is excluded out of what is known of the tree, so that it is
// not deleted.
func (w *followRun) protect() {
	d := w.d
	d.have.Entries = slices.DeleteFunc(d.have.Entries, func(e Entry) bool { return excluded(w.f.Exclude, e.Path) })
	for name := range d.old.Retired {
		if excluded(w.f.Exclude, name) {
			delete(d.old.Retired, name)
		}
	}
}

// readEntries completes the repositories with the files that readers begin with:
// those of the tree where they are the upstream's too.
func (w *followRun) readEntries(ctx context.Context, settle bool) error {
	w.problems, w.held, w.report.Held = nil, false, 0
	var missing []string
	for _, r := range w.repos {
		for _, name := range r.entryNames() {
			e := w.src.Lookup(name)
			if e == nil || e.Type != File {
				continue
			}
			if here, ok := w.d.entries[name]; !ok || sum(here) != e.SHA256 {
				missing = append(missing, name)
			}
		}
	}
	got, err := w.up.entryFiles(ctx, missing)
	if err != nil {
		return fmt.Errorf("%s: %w", w.up, err)
	}
	for _, r := range slices.Clone(w.repos) {
		why := ""
		for _, name := range r.entryNames() {
			e := w.src.Lookup(name)
			if e == nil {
				continue
			}
			b, fetched := got[name]
			if !fetched && !slices.Contains(missing, name) {
				b = w.d.entries[name]
			}
			if e.Type != File {
				why = fmt.Sprintf("%s is a %s", name, e.Type)
				continue
			}
			switch {
			case b == nil && !settle, e.SHA256 != "" && sum(b) != e.SHA256 && !settle:
				return errMoving
			case b == nil:
				why = fmt.Sprintf("%s is not there, or longer than %d bytes", name, repodata.MaxRepomd)
			case e.SHA256 != "" && sum(b) != e.SHA256:
				why = fmt.Sprintf("%s is not the one of its manifest", name)
			}
			f := small{name: name, data: b, modTime: e.ModTime}
			*e = f.entry()
			r.files = append(r.files, f)
		}
		if why == "" {
			why = w.judge(r)
		}
		if why != "" {
			w.hold(r, why)
		}
	}
	return nil
}

// judge says why a repository must not be switched; "" when it may be, as far as
// its entry files tell.
func (w *followRun) judge(r *repo) string {
	var err error
	if r.md, err = repodata.ReadRepomd(bytes.NewReader(r.repomd())); err != nil {
		return fmt.Sprintf("%s: %v", r.path("repomd.xml"), err)
	}
	order, from := w.d.goesBack(r)
	if order < 0 && !w.f.AcceptOlder {
		return fmt.Sprintf("it goes back from revision %s to %s; if that is meant, add -accept-older", from, r.md.Revision)
	}
	isHere := func(f small) bool { return bytes.Equal(w.d.entries[f.name], f.data) }
	if w.Keys != nil && !slices.ContainsFunc(r.files, func(f small) bool { return !isHere(f) }) {
		return ""
	}
	if w.Keys != nil {
		return strings.Join(w.unsigned(r), "; ")
	}
	return ""
}

// hold leaves a repository as it is in the tree: as if the upstream had it so.
func (w *followRun) hold(r *repo, why string) {
	w.problems = append(w.problems, fmt.Sprintf("%s stays as it is: %s", r.dir, why))
	w.held = true
	w.report.Held++
	d := w.d
	isEntry := func(name string) bool { return classOf(name) == entry && repository(name) == r.dir }
	keep := make(map[string]Entry) // of the tree, whatever the upstream has
	for _, e := range d.have.Entries {
		// Another repository may be inside of this one, and go on.
		if classOf(e.Path) != entry && (r.dir == "." || strings.HasPrefix(e.Path, r.dir+"/")) {
			keep[e.Path] = e
		}
	}
	i := slices.Index(w.repos, r)
	if stay := w.here(r.dir); stay == nil {
		w.repos = slices.Delete(w.repos, i, i+1)
	} else {
		w.repos[i] = stay
		for _, f := range stay.files {
			keep[f.name] = f.entry()
		}
		// What it names may be anywhere. What cannot be read is of no use to readers
		// either.
		names, _ := stay.named(func(name string) (io.ReadCloser, error) { return w.tree.root.Open(name) })
		for _, name := range names {
			for ; name != "."; name = path.Dir(name) {
				if e := d.have.Lookup(name); e != nil {
					keep[name] = *e
				}
			}
		}
	}
	w.amend(keep, isEntry)
}

// here is a repository as it is in the tree; nil when none can be read there.
func (w *followRun) here(dir string) *repo {
	r := &repo{dir: dir}
	for _, name := range r.entryNames() {
		b, ok := w.d.entries[name]
		if !ok {
			continue
		}
		f := small{name: name, data: b}
		if e := w.d.have.Lookup(name); e != nil {
			f.modTime = e.ModTime
		}
		r.files = append(r.files, f)
		if path.Base(name) == repodata.Name {
			r.md = parseRepomd(b)
		}
	}
	if r.md == nil {
		return nil
	}
	return r
}

// amend makes the manifest that is followed have the entries of keep, and none
// for which drop says so.
func (w *followRun) amend(keep map[string]Entry, drop func(name string) bool) {
	m := &Manifest{Time: w.src.Time}
	for _, e := range w.src.Entries {
		if _, other := keep[e.Path]; !other && !drop(e.Path) {
			m.Entries = append(m.Entries, e)
		}
	}
	for _, e := range keep {
		m.Entries = append(m.Entries, e)
	}
	slices.SortFunc(m.Entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	w.src = m
}

// learn reads files of the tree of which it is not known whether they are the
// upstream's: what a run left that did not end, what was there before the first
// one, and everything with Full.
func (w *followRun) learn(ctx context.Context) error {
	d := w.d
	var files []*Entry
	for i := range d.have.Entries {
		e := &d.have.Entries[i]
		want := w.src.Lookup(e.Path)
		if want == nil || e.Type != File || want.Type != File || e.Hashed || e.Size != want.Size || classOf(e.Path) == entry {
			continue
		}
		alike := e.ModTime.Unix() == want.ModTime.Unix()
		switch {
		case !want.Hashed && !alike:
			continue // there is nothing to compare with
		case alike && strings.HasSuffix(e.Path, ".rpm") && d.old.Pending == nil && !w.f.Full:
			continue // packages keep their names for ever
		}
		files = append(files, e)
	}
	if len(files) > 0 {
		w.say("reading %d files that are here", len(files))
	}
	gone := make(map[string]bool)
	err := readFiles(ctx, w.tree.path, files, func(e *Entry, got Entry, err error) error {
		if err != nil {
			gone[e.Path] = true // it is fetched
			return nil
		}
		*e = got
		return nil
	})
	if len(gone) > 0 {
		d.have.Entries = slices.DeleteFunc(d.have.Entries, func(e Entry) bool { return gone[e.Path] })
	}
	return err
}

// plan finds out what is to be done, with what is known now.
func (w *followRun) plan(ctx context.Context) error {
	if err := w.each(ctx, "plan", (*dest).plan); err != nil {
		return err
	}
	d := w.d
	if d.next.Followed = w.print; len(w.problems) > 0 {
		d.next.Followed = ""
	}
	if w.held {
		w.stamp = nil
	}
	if w.report.Listed && len(w.problems) == 0 {
		d.next.Listed = w.began
	}
	w.reportRepos()
	return nil
}
