package builder

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"meridian/builder/repodata"
	"meridian/builder/rpm"
	"meridian/internal/durable"
)

// RepoOptions say which repository to make, and of what. Only Dir is required.
type RepoOptions struct {
	// Dir is the repository. Packages are below it, and repodata is written into
	// it.
	Dir string

	// Update reuses what is known of packages that have not changed, keeps the
	// group, modules and updateinfo files that the repository has, with whatever
	// else its repomd.xml names, and touches nothing when nothing has changed.
	Update bool

	// Cache is the file that remembers what was read. It is written whether or
	// not Update is set. Without it every package is read each time.
	Cache string

	// Receipts are what others found when they read the same packages. A package
	// whose size and head are those of a receipt is not read again.
	Receipts []rpm.Receipt

	// Revision goes into repomd.xml. Default: the time in seconds, and more than
	// the revision that is there.
	Revision string

	// Timestamps makes the revision, which must be a number, the time of the new
	// files too, in repomd.xml and on the disk.
	Timestamps bool

	// BaseURL is where clients find the packages, if not beside repodata.
	BaseURL string

	// Excludes are patterns of packages to leave out, of the path relative to Dir or,
	// unless Packages is set, of the name alone; * and ? match slashes too.
	Excludes []string

	// Packages are the packages to take, relative to Dir. Nil is every file below
	// Dir whose name ends with .rpm.
	Packages []string

	// RetainOld is how many older files of each kind stay in repodata.
	RetainOld int

	// Workers is how many packages are read at once. Default: one for each
	// processor.
	Workers int

	// Checksum is sha256 (default), sha384 or sha512.
	Checksum string

	// Compression is that of the lists. The zero value is for all clients.
	Compression repodata.Compression

	// Groups, Modules and Updates are files to pass on to clients: comps XML, a
	// stream of modulemd YAML, updateinfo XML. They may be compressed.
	Groups, Modules, Updates string

	// Refused is told of each package that was left out, and why. May be nil.
	Refused func(path string, why error)

	// Progress is told how many packages of how many are done. May be nil.
	Progress func(done, total int)

	// Receipt is told of each package of the repository, in the order of the
	// lists; Path is relative to Dir. May be nil.
	Receipt func(rpm.Receipt)

	// step is told where the run is; a test ends the process there.
	step func(string)
}

// A RepoReport says what Repo did.
type RepoReport struct {
	Packages int // in the repository
	Read     int // read from beginning to end
	Refused  int // left out
	Changed  bool
	Revision string
}

// lockName is beside repodata and not in it, because what is in it is published.
const lockName = ".repodata.lock"

// Repo makes the repository in o.Dir. Packages that cannot be used are left out
// and counted, and are no error. After an error the repository is what it was, with
// two exceptions: that of [durable.Write], and when repomd.xml itself could not be
// replaced, the signature of the old one is gone already. Two calls on one directory
// exclude each other: the second gets [durable.ErrLocked].
func Repo(ctx context.Context, o RepoOptions) (report RepoReport, err error) {
	r, err := newRun(o)
	if err != nil {
		return report, err
	}
	if err := os.MkdirAll(r.out.Dir, 0o755); err != nil {
		return report, err
	}
	lock, err := durable.TryLock(filepath.Join(r.Dir, lockName))
	if err != nil {
		return report, err
	}
	defer lock.Unlock()
	if err := repodata.RemoveTemporaries(r.out.Dir); err != nil {
		return report, err
	}
	if err := r.find(ctx); err != nil {
		return report, err
	}
	if err := r.loadOld(); err != nil {
		return report, err
	}
	if err := r.loadExtras(); err != nil {
		return report, err
	}
	r.openCache()
	defer r.closeCache()

	if r.cache != nil {
		same, err := r.unchanged(ctx)
		if err != nil {
			return report, err
		}
		if same {
			return r.report, nil
		}
	}
	if err := r.write(ctx); err != nil {
		return report, err
	}
	return r.report, nil
}

// run is one call of Repo.
type run struct {
	RepoOptions
	report  RepoReport
	out     repodata.Output
	tasks   []found
	known   map[string][]rpm.Receipt // by the name of the file
	refusal []refused                // not yet told

	old       *repodata.Repomd // nil: there is none
	oldDigest rpm.Digest
	extras    []extra

	cache    *cacheReader // nil: nothing to reuse
	oldFiles [3]*os.File  // the lists that it belongs to
}

type refused struct {
	path string
	why  error
}

func newRun(o RepoOptions) (*run, error) {
	r := &run{RepoOptions: o}
	r.Checksum = cmp.Or(o.Checksum, "sha256")
	if _, err := repodata.NewHash(r.Checksum); err != nil {
		return nil, err
	}
	if err := repodata.CheckRevision(o.Revision); err != nil {
		return nil, err
	}
	if r.Workers <= 0 {
		r.Workers = runtime.GOMAXPROCS(0)
	}
	info, err := os.Stat(o.Dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory; name the one that the packages are in", o.Dir)
	}
	r.out = repodata.Output{
		Dir:         filepath.Join(o.Dir, repodata.Dir),
		Compression: o.Compression,
		Checksum:    r.Checksum,
		Time:        time.Now().Truncate(time.Second),
	}
	if o.Timestamps {
		seconds, err := strconv.ParseInt(o.Revision, 10, 64)
		if err != nil || seconds < 0 {
			return nil, fmt.Errorf("revision %q is no time; with timestamps from it write seconds since 1970", o.Revision)
		}
		r.out.Time, r.out.FixedTime = time.Unix(seconds, 0), true
	}
	if len(o.Receipts) > 0 {
		r.known = make(map[string][]rpm.Receipt, len(o.Receipts))
		for _, one := range o.Receipts {
			base := filepath.Base(one.Path)
			r.known[base] = append(r.known[base], one)
		}
	}
	return r, nil
}

// find fills tasks.
func (r *run) find(ctx context.Context) (err error) {
	excluded := matcher(r.Excludes)
	if r.Packages != nil {
		r.tasks = listed(r.Packages, excluded, r.refuse)
	} else if r.tasks, err = walk(ctx, r.Dir, excluded, r.refuse); err != nil {
		return err
	}
	r.flushRefusals()
	return nil
}

// at is called after each thing that a crash could come behind.
func (r *run) at(step string) {
	if r.step != nil {
		r.step(step)
	}
}

// refuse remembers a refusal until flushRefusals.
func (r *run) refuse(path string, why error) {
	r.refusal = append(r.refusal, refused{path, why})
}

func (r *run) flushRefusals() {
	for _, one := range r.refusal {
		r.report.Refused++
		if r.Refused != nil {
			r.Refused(one.path, one.why)
		}
	}
	r.refusal = nil
}

// loadOld reads the repomd.xml that is there. One that cannot be read is replaced
// like any other, but nothing of it is kept.
func (r *run) loadOld() error {
	text, err := os.ReadFile(filepath.Join(r.out.Dir, repodata.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r.oldDigest = sha256.Sum256(text)
	m, err := parseRepomd(text)
	if err != nil && r.Update {
		return fmt.Errorf("%s: %w; repair it, or do without update", r.out.Dir, err)
	}
	r.old = m
	return nil
}

// options is what all text in a cache depends on.
func (r *run) options() string {
	return fmt.Sprintf("%s %s %q", r.Checksum, r.Compression, r.BaseURL)
}

// openCache opens the cache if it belongs to what is on the disk, byte for byte.
func (r *run) openCache() {
	if !r.Update || r.Cache == "" || r.old == nil {
		return
	}
	c, err := openCache(r.Cache)
	if err != nil {
		return
	}
	r.cache = c
	if c.footer.Repomd != r.oldDigest || c.footer.Options != r.options() {
		r.closeCache()
		return
	}
	for i, name := range []string{"primary", "filelists", "other"} {
		d := r.old.Lookup(name)
		if d == nil {
			r.closeCache()
			return
		}
		f, err := os.Open(filepath.Join(r.Dir, filepath.FromSlash(d.Location)))
		if err != nil {
			r.closeCache()
			return
		}
		r.oldFiles[i] = f
		if repodata.Verify(f, d) != nil {
			r.closeCache()
			return
		}
	}
}

func (r *run) closeCache() {
	for i, f := range r.oldFiles {
		if f != nil {
			f.Close()
		}
		r.oldFiles[i] = nil
	}
	if r.cache != nil {
		r.cache.close()
		r.cache = nil
	}
}

// unchanged tells whether the repository is exactly what it would become. It reads
// no package that is known without a doubt.
func (r *run) unchanged(ctx context.Context) (bool, error) {
	if r.Revision != "" && r.Revision != r.old.Revision || r.cache.footer.Extras != r.extrasKey() {
		return false, nil
	}
	w := newWorker(r)
	defer w.close()
	refreshed, packages := false, 0
	batch, err := r.cache.next()
	i := 0
	for _, t := range r.tasks {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		for err == nil && batch != nil && i == len(batch.packages) {
			batch, err = r.cache.next()
			i = 0
		}
		if err != nil {
			return false, nil
		}
		if batch == nil || batch.packages[i].at != t {
			// It was refused the last time, or it is new.
			v, err := w.examine(t, nil)
			if err == nil {
				w.loaded.Reset()
				err = w.render(&w.loaded, v.p, t)
			}
			if err == nil {
				return false, nil
			}
			r.refuse(t.href(), bare(err))
			continue
		}
		v, err := w.examine(t, &batch.packages[i])
		if err != nil || !v.reuse {
			r.refusal = nil
			return false, nil
		}
		refreshed = refreshed || v.kept.receipt.Stamp != batch.packages[i].receipt.Stamp || v.kept.doubtful != batch.packages[i].doubtful
		packages++
		i++
	}
	for err == nil && batch != nil && i == len(batch.packages) {
		batch, err = r.cache.next()
		i = 0
	}
	if err != nil || batch != nil {
		r.refusal = nil
		return false, nil
	}
	r.flushRefusals()
	r.report.Packages, r.report.Revision = packages, r.old.Revision
	return true, r.settle(refreshed, w)
}

// settle tells the receipts of an unchanged repository, and writes the cache again
// if the stamps in it are not the present ones.
func (r *run) settle(refreshed bool, w *worker) error {
	if !refreshed && r.Receipt == nil {
		return nil
	}
	if err := r.cache.rewind(); err != nil {
		return err
	}
	var c *cacheWriter
	if refreshed {
		var err error
		if c, err = newCacheWriter(r.Cache); err != nil {
			return err
		}
		defer c.discard()
	}
	for {
		b, err := r.cache.next()
		if err != nil {
			return err
		}
		if b == nil {
			break
		}
		for i := range b.packages {
			k := &b.packages[i]
			if refreshed {
				// What changes between the two looks is seen by the next run.
				if v, err := w.examine(k.at, k); err == nil && v.reuse {
					*k = v.kept
				}
			}
			r.tell(k)
		}
		if c != nil {
			for i := range b.segments {
				b.segments[i].Offset -= r.cache.footer.Moved[i]
			}
			if err := c.append(b); err != nil {
				return err
			}
		}
	}
	if c == nil {
		return nil
	}
	return c.commit(r.cache.footer)
}

// tell hands out the receipt of one package.
func (r *run) tell(k *kept) {
	if r.Receipt != nil {
		one := k.receipt
		one.Path = k.at.href()
		r.Receipt(one)
	}
}

// revision is that of the new generation.
func (r *run) revision() string {
	if r.Revision != "" {
		return r.Revision
	}
	now := r.out.Time.Unix()
	if r.old != nil {
		// It has to grow, also after a clock that was wrong.
		if last, err := strconv.ParseInt(r.old.Revision, 10, 64); err == nil && last >= now && last < 1<<62 {
			now = last + 1
		}
	}
	return strconv.FormatInt(now, 10)
}

// finish writes the remaining files and switches to the new generation.
func (r *run) finish(lists []repodata.Data, packages int, moved [3]int64, c *cacheWriter) error {
	r.at("lists")
	m := &repodata.Repomd{Data: lists}
	for _, e := range r.extras {
		more, err := e.store(r.out)
		if err != nil {
			return err
		}
		m.Data = append(m.Data, more...)
		r.at("extra")
	}
	r.report.Packages = packages
	digest := r.oldDigest
	if r.Update && r.old != nil && slices.Equal(r.old.Data, m.Data) && (r.Revision == "" || r.Revision == r.old.Revision) {
		r.report.Revision = r.old.Revision
	} else {
		m.Revision = r.revision()
		text := m.Marshal()
		// What we could not read ourselves nobody else is given.
		if _, err := parseRepomd(text); err != nil {
			return err
		}
		if err := r.publish(text); err != nil {
			return err
		}
		r.at("repomd")
		r.report.Changed, r.report.Revision = true, m.Revision
		digest = sha256.Sum256(text)
		if err := r.clean(m); err != nil {
			return err
		}
		r.at("clean")
	}
	if c == nil {
		return nil
	}
	return c.commit(cacheFooter{Repomd: digest, Options: r.options(), Extras: r.extrasKey(), Packages: packages, Moved: moved})
}

// publish puts repomd.xml in its place. A signature that is there is of another
// file, and goes first: a client that wants one finds none, rather than a bad one.
func (r *run) publish(text []byte) error {
	name := filepath.Join(r.out.Dir, repodata.Name)
	if err := os.Remove(name + ".asc"); err == nil {
		err = durable.SyncDir(r.out.Dir)
		if err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.at("signature")
	if err := durable.WriteFile(name, text, 0o644); err != nil {
		return err
	}
	if r.out.FixedTime {
		return os.Chtimes(name, r.out.Time, r.out.Time)
	}
	return nil
}
