package builder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"

	"meridian/builder/repodata"
	"meridian/builder/rpm"
)

const (
	// A batch ends after a package whose name says so, which is one in
	// batchMean: adding a package changes its own batch and no other.
	batchMean = 64
	maxBatch  = 2 * batchMean

	// racy is how long after its last change a file may change again without a
	// trace: the clocks of file systems tick, some only every other second.
	racy = 2 * time.Second
)

// endsBatch tells whether the package t is the last of its batch.
func endsBatch(t found) bool { return xxh3.HashString(t.base)%batchMean == 0 }

// A job is one batch on its way through a worker.
type job struct {
	tasks []found
	old   []*kept      // of each task, nil where nothing is known
	from  []*keptBatch // the batch that each is in
	pos   []int        // its place there

	done    chan struct{}
	batch   *repodata.Batch
	out     keptBatch
	read    int
	refused []refused
	err     error
}

// write reads what has to be read, and writes and publishes everything.
func (r *run) write(ctx context.Context) error {
	r.refusal = nil
	if r.cache != nil {
		if err := r.cache.rewind(); err != nil {
			return err
		}
	}
	w, err := repodata.NewWriter(r.out, len(r.tasks))
	if err != nil {
		return err
	}
	defer w.Close()
	r.at("begin")
	var c *cacheWriter
	if r.Cache != "" {
		if c, err = newCacheWriter(r.Cache); err != nil {
			return err
		}
		defer c.discard()
	}
	packages, err := r.pump(ctx, w, c)
	if err == nil {
		// Nothing is in place yet: who was interrupted at the last package wants the
		// old repository, not the new one.
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	lists, moved, err := w.Finish(packages)
	if err != nil {
		return err
	}
	return r.finish(lists, packages, moved, c)
}

// pump sends the batches through the workers and appends what comes out, in
// order. So many batches are in memory at once, and no more.
func (r *run) pump(ctx context.Context, w *repodata.Writer, c *cacheWriter) (packages int, err error) {
	inFlight := r.Workers + 1
	g, ctx := errgroup.WithContext(ctx)
	work := make(chan *job)
	ordered := make(chan *job, inFlight)
	free := make(chan *repodata.Batch, inFlight+1)
	for range inFlight + 1 {
		free <- new(repodata.Batch)
	}
	g.Go(func() error {
		defer close(work)
		defer close(ordered)
		return r.plan(func(j *job) error {
			select {
			case j.batch = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
			for _, ch := range []chan *job{ordered, work} {
				select {
				case ch <- j:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	})
	for range r.Workers {
		g.Go(func() error {
			wk := newWorker(r)
			defer wk.close()
			for j := range work {
				wk.do(ctx, j)
				close(j.done)
			}
			return nil
		})
	}
	g.Go(func() error {
		done := 0
		for j := range ordered {
			select {
			case <-j.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if j.err != nil {
				return j.err
			}
			if err := r.collect(j, w, c); err != nil {
				return err
			}
			packages += len(j.out.packages)
			done += len(j.tasks)
			if r.Progress != nil {
				r.Progress(done, len(r.tasks))
			}
			free <- j.batch
		}
		return nil
	})
	err = g.Wait()
	return packages, err
}

// collect appends a batch to the lists and to the cache.
func (r *run) collect(j *job, w *repodata.Writer, c *cacheWriter) (err error) {
	r.report.Read += j.read
	r.refusal = append(r.refusal, j.refused...)
	r.flushRefusals()
	if len(j.out.packages) == 0 {
		return nil
	}
	if j.out.segments, err = w.Append(j.batch); err != nil {
		return err
	}
	r.at("batch")
	for i := range j.out.packages {
		r.tell(&j.out.packages[i])
	}
	if c != nil {
		return c.append(&j.out)
	}
	return nil
}

// plan cuts the tasks into batches and finds what the cache knows of each. Both
// are in the same order, so it holds one batch of the cache.
func (r *run) plan(send func(*job) error) error {
	var batch *keptBatch
	at := 0
	next := func() (*kept, error) {
		for r.cache != nil && (batch == nil || at == len(batch.packages)) {
			b, err := r.cache.next()
			if err != nil {
				return nil, err
			}
			if b == nil {
				return nil, nil
			}
			batch, at = b, 0
		}
		if r.cache == nil {
			return nil, nil
		}
		return &batch.packages[at], nil
	}
	for from := 0; from < len(r.tasks); {
		to := from + 1
		for to < len(r.tasks) && to-from < maxBatch && !endsBatch(r.tasks[to-1]) {
			to++
		}
		j := &job{tasks: r.tasks[from:to], done: make(chan struct{})}
		n := len(j.tasks)
		j.old, j.from, j.pos = make([]*kept, n), make([]*keptBatch, n), make([]int, n)
		for i, t := range j.tasks {
			for {
				k, err := next()
				if err != nil {
					return err
				}
				if k == nil {
					break
				}
				order := compareFound(k.at, t)
				if order > 0 {
					break
				}
				if order == 0 {
					j.old[i], j.from[i], j.pos[i] = k, batch, at
				}
				at++
				if order == 0 {
					break
				}
			}
		}
		if err := send(j); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// A worker does one batch at a time.
type worker struct {
	r        *run
	reader   rpm.Reader
	renderer repodata.Renderer
	packer   *repodata.Packer
	loaded   repodata.Batch // the batch of the cache that was unpacked last
	which    *keptBatch
}

func newWorker(r *run) *worker {
	w := &worker{r: r, packer: repodata.NewPacker(r.Compression)}
	w.reader.NoXXH3 = r.Receipt == nil
	w.renderer = repodata.Renderer{Checksum: r.Checksum, Base: r.BaseURL}
	if r.Checksum != "sha256" {
		w.reader.Hash, _ = repodata.NewHash(r.Checksum)
	}
	return w
}

func (w *worker) close() { w.packer.Close() }

// A verdict says what is to be done about one package.
type verdict struct {
	kept kept

	// reuse: the text in the cache is right. Otherwise p is to be rendered.
	reuse bool
	p     *rpm.Package
	read  bool // from beginning to end
}

// examine finds out what is in the file of t, with as little reading as can be
// trusted: nothing if its stamp is what it was; its head if the stamp casts a
// doubt, and the head names what the payload must be; everything otherwise.
func (w *worker) examine(t found, old *kept) (v verdict, err error) {
	name := filepath.Join(w.r.Dir, filepath.FromSlash(t.href()))
	start := time.Now()
	info, err := os.Stat(name)
	if err != nil {
		return v, err
	}
	now := rpm.StampOf(info)
	v.kept.at = t
	if old != nil && w.lacks(&old.receipt) {
		old = nil
	}
	if old != nil && old.fresh(now) {
		v.kept, v.reuse = *old, true
		return v, nil
	}
	receipts := w.r.known[t.base]
	if old != nil {
		receipts = append([]rpm.Receipt{old.receipt}, receipts...)
	}
	for _, one := range receipts {
		if one.Size != now.Size || w.lacks(&one) {
			continue
		}
		p, err := w.reader.ReadHead(name)
		if err != nil {
			return v, bare(err)
		}
		if p.Receipt.Header != one.Header || p.Receipt.Size != one.Size || !p.Header.Has(rpm.TagPayloadDigest) {
			continue
		}
		p.Receipt.SHA256, p.Receipt.XXH3 = one.SHA256, one.XXH3
		v.p = p
		v.reuse = old != nil && one == old.receipt && seconds(one.MTime) == seconds(p.Receipt.MTime)
		if v.reuse || w.r.Checksum == "sha256" {
			break
		}
		v.p = nil
	}
	if v.p == nil {
		if v.p, err = w.reader.Read(name); err != nil {
			return v, bare(err)
		}
		v.read = true
	}
	if v.reuse {
		v.kept = *old
	}
	v.kept.receipt = v.p.Receipt
	v.kept.receipt.Path = ""
	changed := time.Unix(0, v.p.Receipt.CTime)
	v.kept.doubtful = changed.After(start.Add(-racy))
	return v, nil
}

// lacks tells whether a receipt has not all that will be asked of it.
func (w *worker) lacks(one *rpm.Receipt) bool {
	return w.r.Receipt != nil && one.XXH3 == (rpm.XXH3{})
}

// seconds is what a list says of a time.
func seconds(ns int64) int64 { return time.Unix(0, ns).Unix() }

// bare takes the path out of an error of the file system: it is told beside it.
func bare(err error) error {
	if at, ok := errors.AsType[*os.PathError](err); ok {
		return at.Err
	}
	return err
}

// do makes the batch of a job.
func (w *worker) do(ctx context.Context, j *job) {
	j.batch.Reset()
	whole := true // all of it is one batch of the cache
	for i, t := range j.tasks {
		if j.err = ctx.Err(); j.err != nil {
			return
		}
		v, err := w.examine(t, j.old[i])
		if err == nil && !v.reuse {
			whole = false
			err = w.render(j.batch, v.p, t)
		}
		if err != nil {
			j.refused = append(j.refused, refused{t.href(), bare(err)})
			continue
		}
		if v.read {
			j.read++
		}
		if v.reuse {
			if j.err = w.copy(j.batch, j.from[i], j.pos[i]); j.err != nil {
				return
			}
			whole = whole && j.from[i] == w.which && j.pos[i] == len(j.out.packages)
		}
		k := v.kept
		k.end = [3]int64{int64(len(j.batch.Text.Primary)), int64(len(j.batch.Text.Filelists)), int64(len(j.batch.Text.Other))}
		j.out.packages = append(j.out.packages, k)
	}
	if whole && w.which != nil && len(j.out.packages) == len(w.which.packages) {
		// The compressed form is there too.
		*j.batch, w.loaded = w.loaded, *j.batch
		w.which = nil
		return
	}
	j.err = w.packer.Pack(j.batch)
}

func (w *worker) render(b *repodata.Batch, p *rpm.Package, t found) error {
	if strings.ContainsRune(t.href(), 0) {
		return errors.New("its name holds a NUL")
	}
	return w.renderer.Append(&b.Text, p, t.href())
}

// copy appends the text of package i of an old batch.
func (w *worker) copy(b *repodata.Batch, from *keptBatch, i int) error {
	if w.which != from {
		w.which = nil
		if err := w.packer.Load(w.r.oldFiles, from.segments, &w.loaded); err != nil {
			return err
		}
		w.which = from
	}
	var begin [3]int64
	if i > 0 {
		begin = from.packages[i-1].end
	}
	end := from.packages[i].end
	t := &w.loaded.Text
	b.Text.Primary = append(b.Text.Primary, t.Primary[begin[0]:end[0]]...)
	b.Text.Filelists = append(b.Text.Filelists, t.Filelists[begin[1]:end[1]]...)
	b.Text.Other = append(b.Text.Other, t.Other[begin[2]:end[2]]...)
	return nil
}
