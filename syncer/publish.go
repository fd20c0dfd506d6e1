package syncer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/sync/errgroup"

	"meridian/internal/fetch"
	"meridian/signer/verify"
)

// A Job is a publication: what goes where, and how carefully.
type Job struct {
	// Source is the tree to publish.
	Source string

	// Dests are the tier0s: directories, rsync://[USER@]HOST/MODULE,
	// [USER@]HOST::MODULE, or [USER@]HOST:DIRECTORY over ssh. They are switched
	// together, and one that cannot be reached stops all before anything changed.
	Dests []string

	// URLs are where the tier0s serve their trees. Each is asked for every
	// repomd.xml that was switched, and the job is not done before it has the new
	// one.
	URLs []string

	Rsync Rsync

	// Grace is how long a generation stays after the next one became current:
	// allowed_outdate and 48 hours. Default 60h. Two generations stay whatever
	// their age.
	Grace time.Duration

	// MaxDelete is how many names may leave the current tree, and how many may be
	// deleted, at a time. 0: a tenth of the tree, and at least 1000. Negative: any.
	MaxDelete int

	// Replace allows a package, or metadata, to change under the same name, which
	// breaks clients that have read the old metadata.
	Replace bool

	// Keys, if not nil, must have signed the metadata of every repository that is
	// switched and every package that is new.
	Keys *verify.Ring

	// AcceptClock publishes although the last publication is in the future.
	AcceptClock bool

	// BreakLock is the name of a lock whose owner is known to be gone.
	BreakLock string

	// DryRun ends the job before anything is transferred.
	DryRun bool

	// Progress, if not nil, is told what is being done.
	Progress func(what string)

	// step, in tests, is told the name of each step after it.
	step func(name string)

	// now is the clock; nil is time.Now.
	now func() time.Time
}

// The steps of a publication, after each of which it may be killed.
var steps = []string{"locked", "begun", "content", "metadata", "switched", "links", "confirmed", "marked", "deleted"}

// A Report is what a job changed.
type Report struct {
	Source  string       `json:"source,omitempty"`
	DryRun  bool         `json:"dry_run,omitempty"`
	Began   time.Time    `json:"began"`
	Seconds float64      `json:"seconds"`
	Repos   []RepoChange `json:"repositories,omitempty"`
	Dests   []DestReport `json:"destinations"`

	// Of a follower: when its upstream says that it was current, how many
	// repositories stay behind because their new generation is not whole, and
	// whether the upstream has no manifest, or one that is older than the tree.
	Upstream time.Time `json:"upstream,omitzero"`
	Held     int       `json:"held,omitempty"`
	Listed   bool      `json:"listed,omitempty"`
	Behind   bool      `json:"behind,omitempty"`
}

// A RepoChange is a repository with a new repomd.xml.
type RepoChange struct {
	Path string `json:"path"`
	From string `json:"from,omitempty"` // its revision at the first tier0; "" for a new repository
	To   string `json:"to"`
}

// A DestReport is what changed on one tier0.
type DestReport struct {
	Dest       string   `json:"dest"`
	Generation int      `json:"generation"`
	Current    bool     `json:"current"` // it had everything before
	Added      int      `json:"added"`
	Changed    int      `json:"changed"`
	Bytes      int64    `json:"bytes"` // of what was added and changed
	Retired    int      `json:"retired"`
	Deleted    int      `json:"deleted"`
	Sent       int64    `json:"sent"` // over a connection, both ways
	Notes      []string `json:"notes,omitempty"`
}

// publisher is a job that runs.
type publisher struct {
	Job
	began  time.Time
	start  time.Time // by the clock that measures
	src    *Manifest
	repos  []*repo
	report *Report
	dests  []*dest

	// stamp is the new content of TIME; nil leaves it as it is.
	stamp []byte

	// follower: the source is an upstream, and what is here was looked at where
	// that is needed.
	follower bool

	// held: parts of the tree stay behind, so that nothing may be deleted.
	held bool
}

func newPublisher(job Job) *publisher {
	p := &publisher{Job: job, began: job.clock(), start: time.Now()}
	p.report = &Report{DryRun: job.DryRun, Began: p.began.UTC()}
	p.stamp = fmt.Appendln(nil, p.began.Unix())
	return p
}

// end completes the report.
func (p *publisher) end() *Report {
	p.report.Seconds = time.Since(p.start).Seconds()
	for _, d := range p.dests {
		p.report.Dests = append(p.report.Dests, d.report)
	}
	return p.report
}

// dest is one tier0 of a job, and what is to happen to it.
type dest struct {
	tier
	lock *held

	state  []byte            // as it was before the lock was written
	looked map[string][]byte // what else was, until it is used
	notes  []string          // of what was found before

	old     *state
	have    *Manifest         // everything that is there
	written time.Time         // of the manifest that is there, if it is believed
	entries map[string][]byte // entry files that are there, by name

	// Of a publication that did not end: the names that it was to add, and whether
	// readers may have seen some of them.
	added map[string]bool
	seen  bool

	waiting int64 // bytes of what is new that are on its disk already
	planned

	report DestReport
}

// planned is what plan found out, and nothing else writes.
type planned struct {
	next    *state
	content []*Entry // new or changed, of class content
	links   []*Entry // changed links to directories
	meta    []*Entry
	touch   []*Entry // that have another time, and the same content
	entry   []small
	drop    []string // entry files that the repository has no more
	doomed  []string
	listed  []Entry // of the manifest to come
	changed bool
}

func (j *Job) clock() time.Time {
	if j.now != nil {
		return j.now()
	}
	return time.Now()
}

func (j *Job) done(step string) {
	if j.step != nil {
		j.step(step)
	}
}

func (j *Job) say(format string, args ...any) {
	if j.Progress != nil {
		j.Progress(fmt.Sprintf(format, args...))
	}
}

func (j *Job) grace() time.Duration {
	if j.Grace == 0 {
		return 60 * time.Hour
	}
	return j.Grace
}

// Publish makes every destination serve the tree. When it returns nil, they do.
// After an error, or when it is killed, readers of each repository have the old
// generation or the new one, whole; the same job again takes up where it ended.
func Publish(ctx context.Context, job Job) (*Report, error) {
	p := newPublisher(job)
	p.report.Source = job.Source
	err := p.run(ctx)
	return p.end(), err
}

func (p *publisher) run(ctx context.Context) (err error) {
	p.say("reading %s", p.Source)
	if err := p.readSource(ctx); err != nil {
		return err
	}
	if err := p.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close(ctx)) }()
	p.done("locked")

	// While others are looked for: most of the time there are none, and each
	// question to a tier0 takes its time.
	var prepared error
	wait := make(chan struct{})
	prepare, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer close(wait)
		prepared = p.prepare(prepare)
	}()
	moved, err := p.alone(ctx)
	if err != nil {
		stop()
	}
	<-wait
	if err != nil {
		return err
	}
	if moved {
		// Somebody else has published between the first look and the lock.
		prepared = p.prepare(ctx)
	}
	if prepared != nil {
		return prepared
	}
	if p.DryRun {
		return nil
	}
	if err := p.steps(ctx, []step{
		{"begun", "begin", (*dest).begin},
		{"content", "send packages", (*dest).sendContent},
		{"metadata", "send metadata", (*dest).sendMetadata},
	}); err != nil {
		return err
	}
	if err := p.sourceIsTheSame(); err != nil {
		return err
	}
	return p.steps(ctx, []step{
		{"switched", "switch", (*dest).switchOver},
		{"links", "switch links", (*dest).sendLinks},
		{"confirmed", "confirm", (*dest).confirm},
		{"marked", "write markers", (*dest).mark},
		{"deleted", "delete what is expired", (*dest).delete},
	})
}

// prepare finds out what is to be done and whether it may be, and changes
// nothing.
func (p *publisher) prepare(ctx context.Context) error {
	if err := p.each(ctx, "read what is there", (*dest).load); err != nil {
		return err
	}
	p.say("hashing what is new")
	if err := p.src.hash(ctx, p.Source, p.dests[0].have); err != nil {
		return err
	}
	if err := p.each(ctx, "plan", (*dest).plan); err != nil {
		return err
	}
	p.say("checking %d repositories", len(p.repos))
	return p.preflight(ctx)
}

// A step is done to all destinations before the next one begins.
type step struct {
	name, what string
	do         func(*dest, context.Context, *publisher) error
}

// steps does one after the other.
func (p *publisher) steps(ctx context.Context, list []step) error {
	for _, s := range list {
		p.say("%s", s.what)
		if err := p.each(ctx, s.what, s.do); err != nil {
			return err
		}
		if s.name == "confirmed" {
			if err := p.askURLs(ctx); err != nil {
				return err
			}
		}
		p.done(s.name)
	}
	return nil
}

// each does the same to all destinations at once, and waits for all: no tier0
// goes on to a step before the others are ready for it.
func (p *publisher) each(ctx context.Context, what string, do func(*dest, context.Context, *publisher) error) error {
	var g errgroup.Group
	errs := make([]error, len(p.dests))
	for i, d := range p.dests {
		g.Go(func() error {
			if err := do(d, ctx, p); err != nil {
				errs[i] = fmt.Errorf("%s: %s: %w", d, what, err)
			}
			return nil
		})
	}
	g.Wait()
	return errors.Join(errs...)
}

// readSource lists the tree and reads what readers begin with.
func (p *publisher) readSource(ctx context.Context) error {
	src, bad, err := walk(ctx, p.Source)
	if err != nil {
		return err
	}
	for _, e := range src.Entries {
		if strings.ContainsFunc(e.Path, unicode.IsControl) {
			// The list that mirrors follow has no way to write it.
			bad = append(bad, fmt.Sprintf("%+q has a control character in its name; rename it", e.Path))
		}
	}
	if err := problems(p.Source+" holds what cannot be published", bad); err != nil {
		return err
	}
	p.src = src
	root, err := os.OpenRoot(p.Source)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, e := range src.Entries {
		if classOf(e.Path) != entry || path.Base(e.Path) != "repomd.xml" {
			continue
		}
		r, err := readRepo(root, src, repository(e.Path))
		if err != nil {
			return err
		}
		p.repos = append(p.repos, r)
	}
	return nil
}

// open finds all destinations, looks at them and writes a lock into each. Nobody
// waits for another: two jobs with the same destinations both end.
func (p *publisher) open(ctx context.Context) (err error) {
	if len(p.Dests) == 0 {
		return errors.New("no destination")
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close(ctx))
			p.dests = nil
		}
	}()
	for _, spec := range p.Dests {
		t, err := openTier(spec, p.Rsync)
		if err != nil {
			return err
		}
		p.dests = append(p.dests, &dest{tier: t, report: DestReport{Dest: t.String()}})
	}
	self := me(p.Source, p.began.UTC())
	self.Asked = p.follower
	return p.each(ctx, "lock", func(d *dest, ctx context.Context, p *publisher) (err error) {
		d.lock, d.looked, d.notes, err = acquire(ctx, d.tier, self, p.BreakLock, p.names())
		d.state = d.looked[stateFile]
		return err
	})
}

// lock is open for who looks at the destinations later.
func (p *publisher) lock(ctx context.Context) error {
	if err := p.open(ctx); err != nil {
		return err
	}
	if _, err := p.alone(ctx); err != nil {
		err = errors.Join(err, p.close(ctx))
		p.dests = nil
		return err
	}
	for _, d := range p.dests {
		d.looked = nil
	}
	return nil
}

// names are the small files that load reads.
func (p *publisher) names() []string {
	names := []string{stateFile, ManifestFile}
	for _, r := range p.repos {
		names = append(names, r.entryNames()...)
	}
	return names
}

// alone makes sure that nobody else has a lock. Moved is that some tier0 changed
// after it was looked at and before the lock was there: what was read of it is
// forgotten.
func (p *publisher) alone(ctx context.Context) (moved bool, err error) {
	var any atomic.Bool
	err = p.each(ctx, "lock", func(d *dest, ctx context.Context, p *publisher) error {
		state, err := d.lock.alone(ctx, p.began)
		if err == nil && !bytes.Equal(state, d.state) {
			any.Store(true)
		}
		return err
	})
	return any.Load(), err
}

func (p *publisher) close(ctx context.Context) error {
	var errs []error
	for _, d := range p.dests {
		if d.lock != nil {
			if err := d.lock.release(ctx); err != nil {
				errs = append(errs, fmt.Errorf("%s: release the lock: %w", d, err))
			}
		}
		errs = append(errs, d.tier.close())
	}
	return errors.Join(errs...)
}

// load reads what a tier0 has: its state, its list, and the entry files of all
// repositories that the source has.
func (d *dest) load(ctx context.Context, p *publisher) error {
	var err error
	d.report.Notes = slices.Clone(d.notes)
	d.added, d.seen, d.written = nil, false, time.Time{}
	if d.entries, d.looked = d.looked, nil; d.entries == nil {
		if d.entries, err = d.read(ctx, p.names()); err != nil {
			return err
		}
	}
	d.old = &state{Format: stateFormat}
	if b, ok := d.entries[stateFile]; ok {
		if d.old, err = parseState(b); err != nil {
			return err
		}
	}
	zipped := d.entries[ManifestFile]
	delete(d.entries, stateFile)
	delete(d.entries, ManifestFile)
	var written *Manifest
	if zipped != nil && sum(zipped) == d.old.Manifest {
		if written, err = ReadManifest(bytes.NewReader(zipped)); err != nil {
			return err
		}
		d.written = written.Time
		if d.old.Pending == nil {
			d.have = written
			return nil
		}
	}
	// The first publication, or the last one did not end, or somebody else wrote
	// the list: what is really there is adopted, and stays for the time of grace.
	if d.have, err = d.list(ctx); err != nil {
		return err
	}
	d.have.Entries = slices.DeleteFunc(d.have.Entries, func(e Entry) bool {
		odd := strings.ContainsFunc(e.Path, unicode.IsControl)
		if odd {
			d.report.Notes = append(d.report.Notes, fmt.Sprintf("left %+q alone, whose name no list can hold", e.Path))
		}
		return odd
	})
	d.have.adopt(written)
	if d.old.Pending != nil {
		d.added, d.seen = make(map[string]bool), written == nil
		for _, name := range d.old.Pending.Added {
			d.added[name] = true
		}
		for name, b := range d.entries {
			if e := written.Lookup(name); e == nil || e.SHA256 != sum(b) {
				d.seen = true
			}
		}
	}
	if d.old.current() == nil && len(d.have.Entries) > 0 {
		d.old.Generations = []generation{{Number: 1, Published: p.began}}
		d.report.Notes = append(d.report.Notes, fmt.Sprintf("adopted a tree of %d names that was not published by syncer", len(d.have.Entries)))
	}
	return nil
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// plan finds out what is to be sent, switched, kept and deleted.
func (d *dest) plan(_ context.Context, p *publisher) error {
	d.planned = planned{next: d.old.clone()}
	d.report.Added, d.report.Changed, d.report.Bytes = 0, 0, 0
	current := 0
	if g := d.old.current(); g != nil {
		current = g.Number
	}
	var bad []string
	for i := range p.src.Entries {
		e := &p.src.Entries[i]
		delete(d.next.Retired, e.Path)
		if classOf(e.Path) == entry && e.Type == File {
			continue // below, by content
		}
		old := d.have.Lookup(e.Path)
		alike := old != nil && old.same(e)
		// Size and time prove nothing about what somebody else wrote, or a publication
		// that did not end, perhaps in the same second. Of files that keep their
		// names for ever, what is not ours is believed all the same.
		if alike && (p.follower || old.Hashed || e.Type != File || fixed(e.Path) && d.old.Pending == nil) {
			d.listed = append(d.listed, p.kept(d, old, e))
			continue
		}
		if old != nil && (old.Type == Dir) != (e.Type == Dir) {
			remedy := "publish it under another name"
			if p.follower {
				remedy = "remove it here when nobody needs it"
			}
			bad = append(bad, fmt.Sprintf("%+q was a %s and is a %s; %s", e.Path, old.Type, e.Type, remedy))
		}
		if old != nil && old.Type == File && !alike && fixed(e.Path) && !p.Replace && (d.seen || !d.added[e.Path]) {
			bad = append(bad, fmt.Sprintf("%+q has other content than the one that is published, and clients with older metadata would refuse it; give it another name, or add -replace", e.Path))
		}
		d.count(old, e)
		d.listed = append(d.listed, *e)
		switch {
		case classOf(e.Path) == metadata:
			d.meta = append(d.meta, e)
		case old != nil && e.Type == Link && p.src.leadsToDir(e.Path):
			d.links = append(d.links, e)
		default:
			d.content = append(d.content, e)
		}
	}
	replaced := d.planEntries(p)

	// What is not in the tree any more stays until nobody can rely on it.
	gone := 0
	for i := range d.have.Entries {
		e := &d.have.Entries[i]
		if p.src.Lookup(e.Path) != nil || slices.Contains(d.drop, e.Path) || d.added[e.Path] {
			continue // what was pending is retired with its generation
		}
		if _, ok := d.next.Retired[e.Path]; !ok {
			d.next.Retired[e.Path] = current
			gone++
		}
	}
	d.report.Retired = gone
	d.changed = len(d.content)+len(d.meta)+len(d.links)+len(d.touch)+len(d.entry)+len(d.drop)+gone > 0 || d.old.Pending != nil || d.old.current() == nil
	if d.changed {
		d.next.advance(p.began, replaced)
		for i := range p.src.Entries { // advance retires what was pending
			delete(d.next.Retired, p.src.Entries[i].Path)
		}
	}
	d.report.Generation = d.next.number()
	if !p.held {
		d.doomed = d.next.expire(p.began, p.grace())
	}
	d.keep()
	if over := p.over(gone, d); over != "" {
		bad = append(bad, over)
	}
	return problems("nothing was changed", bad)
}

// kept is what the manifest to come says of a file whose content stays.
func (p *publisher) kept(d *dest, old, e *Entry) Entry {
	kept := *e
	if p.follower && e.Type == File && old.ModTime.Unix() != e.ModTime.Unix() {
		// Who follows the mirror by size and time would fetch it again.
		d.touch = append(d.touch, &kept)
	} else {
		kept.ModTime = old.ModTime // which is what it has there
	}
	return kept
}

// keep completes the manifest to come with what is retired and not doomed.
func (d *dest) keep() {
	for i := range d.have.Entries {
		e := &d.have.Entries[i]
		if _, retired := d.next.Retired[e.Path]; !retired {
			continue
		}
		if _, doomed := slices.BinarySearch(d.doomed, e.Path); !doomed {
			d.listed = append(d.listed, *e)
		}
	}
	slices.SortFunc(d.listed, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
}

func (d *dest) count(old, e *Entry) {
	if e.Type == Dir {
		return
	}
	if old == nil {
		d.report.Added++
	} else {
		d.report.Changed++
	}
	d.report.Bytes += e.Size
}

// planEntries compares the files that readers begin with, byte for byte and with
// what is really there: no list is believed about them.
func (d *dest) planEntries(p *publisher) map[string]replaced {
	was := make(map[string]replaced)
	for _, r := range p.repos {
		switched := false
		here := make(map[string]bool)
		for _, f := range r.files {
			here[f.name] = true
			e := *p.src.Lookup(f.name)
			old := d.have.Lookup(f.name)
			if there, ok := d.entries[f.name]; !ok || !bytes.Equal(there, f.data) {
				switched = true
			} else if old != nil {
				e = p.kept(d, old, &e)
			}
			d.listed = append(d.listed, e)
		}
		for _, base := range []string{"repomd.xml.asc", "repomd.xml.key"} {
			if _, there := d.entries[r.path(base)]; there && !here[r.path(base)] {
				// An old signature of the new metadata would stop every client.
				d.drop = append(d.drop, r.path(base))
			}
		}
		if !switched {
			continue
		}
		for _, f := range r.files {
			d.count(d.have.Lookup(f.name), p.src.Lookup(f.name))
			// All of them, also those that are the same: their times go together.
			d.entry = append(d.entry, f)
			for i := range d.listed {
				if d.listed[i].Path == f.name {
					d.listed[i].ModTime = f.modTime
				}
			}
		}
		if b, ok := d.entries[r.path("repomd.xml")]; ok {
			_, signed := d.entries[r.path("repomd.xml.asc")]
			was[r.dir] = replaced{b, signed}
		}
	}
	return was
}

// over says that more would leave the tree than is allowed.
func (p *publisher) over(n int, d *dest) string {
	limit := p.limit(d)
	if limit < 0 || n <= limit {
		return ""
	}
	return fmt.Sprintf("%d of %d names would leave the tree, and %d may; if that is meant, add -max-delete %d", n, len(d.have.Entries), limit, n)
}

func (p *publisher) limit(d *dest) int {
	if p.MaxDelete != 0 {
		return p.MaxDelete
	}
	return max(1000, len(d.have.Entries)/10)
}

// preflight finds whatever would make the new tree wrong, before anything of it
// is there.
func (p *publisher) preflight(ctx context.Context) error {
	var bad []string
	for _, d := range p.dests {
		why, err := d.check(ctx, p)
		if err != nil {
			return fmt.Errorf("%s: %w", d, err)
		}
		for _, r := range p.repos {
			switch order, from := d.goesBack(r); order {
			case -1:
				why = append(why, fmt.Sprintf("%s goes back from revision %s to %s; to return to older content, use syncer rollback", r.dir, from, r.md.Revision))
			case 0:
				why = append(why, fmt.Sprintf("%s has revision %s already, with other content; make its metadata again with a higher revision", r.dir, from))
			}
		}
		for _, w := range why {
			bad = append(bad, d.String()+": "+w)
		}
	}
	p.reportRepos()
	root, err := os.OpenRoot(p.Source)
	if err != nil {
		return err
	}
	defer root.Close()
	open := func(name string) (io.ReadCloser, error) { return root.Open(name) }
	for _, r := range p.repos {
		// What was whole when it was published still is, unless something that is
		// fixed changes around it.
		if !p.switches(r) && !p.disturbs(r) {
			continue
		}
		missing, err := r.closure(ctx, p.src, open)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Source, err)
		}
		bad = append(bad, missing...)
	}
	if p.Keys != nil {
		why, err := p.signatures(ctx)
		if err != nil {
			return err
		}
		bad = append(bad, why...)
	}
	return problems("not published", bad)
}

// reportRepos says which repositories are switched.
func (p *publisher) reportRepos() {
	p.report.Repos = nil
	for _, r := range p.repos {
		if !p.switches(r) {
			continue
		}
		change := RepoChange{Path: r.dir, To: r.md.Revision}
		if md := parseRepomd(p.dests[0].entries[r.path("repomd.xml")]); md != nil {
			change.From = md.Revision
		}
		p.report.Repos = append(p.report.Repos, change)
	}
}

// switches reports whether any tier0 gets a new repomd.xml for r.
func (p *publisher) switches(r *repo) bool {
	name := r.path("repomd.xml")
	return slices.ContainsFunc(p.dests, func(d *dest) bool {
		return slices.ContainsFunc(d.entry, func(f small) bool { return f.name == name })
	})
}

// disturbs reports whether a file that the metadata of r may name goes or
// changes: one below its directory, or a link anywhere, which may lead there.
func (p *publisher) disturbs(r *repo) bool {
	may := func(d *dest, name string) bool {
		old := d.have.Lookup(name)
		return old != nil && (old.Type == Link || r.dir == "." || strings.HasPrefix(name, r.dir+"/"))
	}
	for _, d := range p.dests {
		for _, e := range slices.Concat(d.content, d.meta, d.links) {
			if may(d, e.Path) {
				return true
			}
		}
		for name := range d.next.Retired {
			if _, before := d.old.Retired[name]; !before && may(d, name) {
				return true
			}
		}
	}
	return false
}

// check says what speaks against publishing to one tier0.
func (d *dest) check(ctx context.Context, p *publisher) ([]string, error) {
	var bad []string
	if err := d.old.checkClock(p.began); err != nil && !p.AcceptClock {
		bad = append(bad, err.Error())
	}
	if free, ok, err := d.free(); err != nil {
		return nil, err
	} else if need := d.need(); ok && free < need {
		bad = append(bad, fmt.Sprintf("%d bytes are free and %d are needed; make room", free, need))
	}
	// Counted by what is really there, because deleting cannot be taken back.
	n, err := d.remove(ctx, d.doomed, true)
	if err != nil {
		return nil, err
	}
	if limit := p.limit(d); limit >= 0 && n > limit {
		bad = append(bad, fmt.Sprintf("%d expired names would be deleted, and %d may; if that is meant, add -max-delete %d", n, limit, n))
	}
	if p.DryRun {
		d.report.Deleted = n
	}
	d.report.Current = !d.changed && n == 0
	return bad, nil
}

// goesBack compares the metadata of a repository with what is there: negative
// when it is older, 0 when it has the same revision and other content.
func (d *dest) goesBack(r *repo) (order int, from string) {
	there, ok := d.entries[r.path("repomd.xml")]
	if !ok || bytes.Equal(there, r.repomd()) {
		return 1, ""
	}
	md := parseRepomd(there)
	if md == nil {
		return 1, "" // whatever that is, it is to be replaced
	}
	return compareRevisions(r.md, md), md.Revision
}

// need is how many more bytes the new files take, with the old ones still there,
// and one block more for each of them.
func (d *dest) need() int64 {
	const block = 4096
	var n int64
	add := func(size int64) {
		if n += size + block; n < 0 { // an upstream may claim any size
			n = math.MaxInt64 - 1<<50
		}
	}
	for _, e := range slices.Concat(d.content, d.meta, d.links) {
		if old := d.have.Lookup(e.Path); old == nil || !old.same(e) {
			add(e.Size)
		}
	}
	for _, f := range d.entry {
		add(int64(len(f.data)))
	}
	return n - d.waiting
}

// signatures judges what is new by the keys.
func (p *publisher) signatures(ctx context.Context) ([]string, error) {
	var bad []string
	for _, r := range p.repos {
		if p.switches(r) {
			bad = append(bad, p.unsigned(r)...)
		}
	}
	var files []*Entry
	seen := make(map[string]bool)
	for _, d := range p.dests {
		for _, e := range d.content {
			if !seen[e.Path] {
				seen[e.Path] = true
				files = append(files, e)
			}
		}
	}
	err := p.packages(ctx, p.Source, files, func(_, why string) { bad = append(bad, why) })
	return bad, err
}

// unsigned says what is wrong with the signature of a repository's metadata.
func (p *publisher) unsigned(r *repo) []string {
	var asc []byte
	for _, f := range r.files {
		if strings.HasSuffix(f.name, ".asc") {
			asc = f.data
		}
	}
	if asc == nil {
		return []string{r.path("repomd.xml") + ": unsigned"}
	}
	var bad []string
	c := &verify.Checker{Keys: p.Keys}
	for _, f := range c.Detached(r.repomd(), asc) {
		bad = append(bad, fmt.Sprintf("%s: %s", r.path("repomd.xml"), f))
	}
	return bad
}

// packages verifies those of the entries of the tree dir that are packages, and
// calls bad for what is wrong with each.
func (p *publisher) packages(ctx context.Context, dir string, entries []*Entry, bad func(name, why string)) error {
	var files []verify.Artifact
	for _, e := range entries {
		if e.Type == File && strings.HasSuffix(e.Path, ".rpm") {
			files = append(files, verify.Artifact{Path: filepath.Join(dir, e.Path), Rel: e.Path, Type: verify.Package, Size: e.Size})
		}
	}
	p.say("verifying %d packages", len(files))
	c := &verify.Checker{Keys: p.Keys}
	return c.Tree(ctx, files, func(r verify.Result) {
		for _, f := range r.Findings {
			bad(r.Artifact.Rel, fmt.Sprintf("%s: %s", r.Artifact.Rel, f))
		}
	})
}

// begin leaves word of what is about to come, so that nothing of it is lost
// sight of if this process does not live to see the end.
func (d *dest) begin(ctx context.Context, _ *publisher) error {
	if !d.changed {
		return nil
	}
	s := d.old.clone()
	now := &pending{Number: d.next.number(), Started: d.next.current().Published, Replaced: d.next.current().Replaced}
	if s.Pending != nil {
		now.Added = s.Pending.Added
	}
	for _, e := range slices.Concat(d.content, d.meta) {
		if d.have.Lookup(e.Path) == nil {
			now.Added = append(now.Added, e.Path)
		}
	}
	slices.Sort(now.Added)
	now.Added = slices.Compact(now.Added)
	s.Pending = now
	return d.writeState(ctx, s)
}

func (d *dest) writeState(ctx context.Context, s *state) error {
	b, err := s.bytes()
	if err != nil {
		return err
	}
	st, err := d.write(ctx, []small{{name: stateFile, data: b, private: true}})
	d.sent(st)
	return err
}

func (d *dest) sent(st stats) { d.report.Sent += st.sent + st.received }

// sendAll leaves it to rsync to see by size and time what is there already, but
// for files that may be there with both and with other content: those that were
// changed within one second, and all when nobody knows how far a publication
// came.
func (d *dest) sendAll(ctx context.Context, p *publisher, list []*Entry) error {
	var plain, compare []string
	for _, e := range list {
		old := d.have.Lookup(e.Path)
		alike := old != nil && e.Type == File && old.Size == e.Size && old.ModTime.Unix() == e.ModTime.Unix()
		if alike || d.old.Pending != nil {
			compare = append(compare, e.Path)
		} else {
			plain = append(plain, e.Path)
		}
	}
	if len(plain) > 0 {
		st, err := d.send(ctx, p.Source, plain, false)
		d.sent(st)
		if err != nil {
			return err
		}
	}
	if len(compare) > 0 {
		st, err := d.send(ctx, p.Source, compare, true)
		d.sent(st)
		return err
	}
	return nil
}

func (d *dest) sendContent(ctx context.Context, p *publisher) error {
	return d.sendAll(ctx, p, d.content)
}

// sendMetadata also makes sure that all that the switch makes readers ask for
// survives a crash of the machine.
func (d *dest) sendMetadata(ctx context.Context, p *publisher) error {
	if err := d.sendAll(ctx, p, d.meta); err != nil {
		return err
	}
	if len(d.entry) == 0 {
		return nil
	}
	return d.settle()
}

// sourceIsTheSame looks again at what was sent: somebody may have built while it
// was read.
func (p *publisher) sourceIsTheSame() error {
	root, err := os.OpenRoot(p.Source)
	if err != nil {
		return err
	}
	defer root.Close()
	var bad []string
	seen := make(map[string]bool)
	for _, d := range p.dests {
		for _, e := range slices.Concat(d.content, d.meta, d.links) {
			if e.Type != File || seen[e.Path] {
				continue
			}
			seen[e.Path] = true
			info, err := root.Lstat(e.Path)
			if err != nil || info.Size() != e.Size || !info.ModTime().Equal(e.ModTime) {
				bad = append(bad, fmt.Sprintf("%+q", e.Path))
			}
		}
	}
	return problems("the source changed while it was published; nothing was switched. Publish a tree that nothing changes", bad)
}

func (d *dest) switchOver(ctx context.Context, _ *publisher) error {
	if len(d.entry) > 0 {
		st, err := d.write(ctx, d.entry)
		d.sent(st)
		if err != nil {
			return err
		}
	}
	if len(d.drop) == 0 {
		return nil
	}
	_, err := d.remove(ctx, d.drop, false)
	return err
}

// sendLinks moves the links that lead to directories ("9" to "9.8"), after the
// repositories that they lead to are complete.
func (d *dest) sendLinks(ctx context.Context, p *publisher) error {
	return d.sendAll(ctx, p, d.links)
}

// confirm reads back what was written, and that it was written where the lock
// is. Both questions are asked at once, because each takes its time.
func (d *dest) confirm(ctx context.Context, p *publisher) error {
	var names, bad, wrong []string
	for _, f := range d.entry {
		names = append(names, f.name)
	}
	var there map[string][]byte
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		there, err = d.lock.read(ctx, names)
		return err
	})
	g.Go(func() (err error) {
		wrong, err = d.differ(ctx, p.Source, slices.Concat(d.content, d.meta, d.links))
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	for _, f := range d.entry {
		if !bytes.Equal(there[f.name], f.data) {
			bad = append(bad, fmt.Sprintf("%+q is not what was written", f.name))
		}
	}
	for _, name := range wrong {
		bad = append(bad, fmt.Sprintf("%+q is not what was sent", name))
	}
	return problems("it does not have the new generation", bad)
}

// askURLs reads back what tier0 serves, as its clients do.
func (p *publisher) askURLs(ctx context.Context) error {
	client := fetch.New(fetch.Options{AllowPrivate: true, MaxBytes: 4 << 20, UserAgent: "meridian-syncer"})
	defer client.CloseIdleConnections()
	var bad []string
	for _, base := range p.URLs {
		for _, r := range p.repos {
			if !p.switches(r) {
				continue
			}
			u := strings.TrimRight(base, "/") + "/" + escapePath(r.path("repomd.xml"))
			resp, err := client.Get(ctx, u, fetch.Validators{})
			switch {
			case err != nil:
				bad = append(bad, err.Error())
			case resp.Status != 200:
				bad = append(bad, fmt.Sprintf("%s: status %d", u, resp.Status))
			case !bytes.Equal(resp.Body, r.repomd()):
				bad = append(bad, u+": not the new generation")
			}
		}
	}
	return problems("what is served is not what was published", bad)
}

// mark writes the markers and the state: from here on the publication is over.
func (d *dest) mark(ctx context.Context, p *publisher) error {
	var files []small
	if d.changed || len(d.doomed) > 0 {
		m := &Manifest{Time: p.src.Time, Entries: d.listed}
		zipped, err := m.zipped()
		if err != nil {
			return err
		}
		var list bytes.Buffer
		if err := m.WriteTimeList(&list); err != nil {
			return err
		}
		d.next.Manifest = sum(zipped)
		files = []small{{name: ManifestFile, data: zipped}, {name: ListFile, data: list.Bytes()}}
	}
	if files != nil || d.next.Followed != d.old.Followed || !d.next.Listed.Equal(d.old.Listed) {
		b, err := d.next.bytes()
		if err != nil {
			return err
		}
		// First, because without it nobody believes the manifest.
		files = append([]small{{name: stateFile, data: b, private: true}}, files...)
	}
	if p.stamp != nil {
		files = append(files, small{name: TimeFile, data: p.stamp})
	}
	if files == nil {
		return nil
	}
	st, err := d.write(ctx, files)
	d.sent(st)
	return err
}

// delete removes what the state says nobody can rely on any more, and only then
// forgets it.
func (d *dest) delete(ctx context.Context, _ *publisher) error {
	if len(d.doomed) == 0 {
		return nil
	}
	for _, name := range d.doomed {
		if _, ok := d.next.Retired[name]; !ok || ours(name) {
			return fmt.Errorf("about to delete %+q, which is not retired; this is a mistake in syncer", name)
		}
	}
	n, err := d.remove(ctx, d.doomed, false)
	d.report.Deleted = n
	if err != nil {
		return err
	}
	for _, name := range d.doomed {
		delete(d.next.Retired, name)
	}
	return d.writeState(ctx, d.next)
}
