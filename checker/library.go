package checker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"meridian/builder/repodata"
	"meridian/checker/state"
)

// A library knows the files of generations: what repomd.xml names, which the
// origin remembers, and some packages of each, which are read from the list of
// packages at tier0 when somebody first asks for one. It is a [stock].
type library struct {
	origin *Origin
	log    *slog.Logger
	orders chan edition // lists that are to be read

	failing bool // the last list could not be read; of run

	mu    sync.Mutex // guards what follows
	files map[edition][]repodata.Data
	lists map[edition]*sampled
}

// An edition is one generation of one repository.
type edition struct {
	key state.Key
	id  state.GenerationID
}

// sampled is what is known of the packages of an edition.
type sampled struct {
	due    time.Time            // when its list may be ordered
	some   []FilePlan           // at random
	wanted map[string]bool      // paths that somebody asked for, not looked up yet
	found  map[string]*FilePlan // paths that were; nil is not in the list
}

const (
	// sampleSize is how many packages of an edition are kept for mirrors to be
	// asked for.
	sampleSize = 24

	// maxEditions bounds what is remembered: every repository of a network in a few
	// generations.
	maxEditions = 4096

	// listTimeout is for one list of packages, which may be large.
	listTimeout = 5 * time.Minute

	// listAgain is when a list that could not be read is tried again.
	listAgain = 15 * time.Minute
)

func newLibrary(o *Origin, log *slog.Logger) *library {
	return &library{origin: o, log: log, orders: make(chan edition, 64), files: map[edition][]repodata.Data{}, lists: map[edition]*sampled{}}
}

// metadata returns what clients ask for, primary first.
func (l *library) metadata(k state.Key, id state.GenerationID) []repodata.Data {
	e := edition{k, id}
	l.mu.Lock()
	defer l.mu.Unlock()
	if files, ok := l.files[e]; ok {
		return files
	}
	md := l.origin.Repomd(k, id)
	if md == nil {
		return nil
	}
	files := forClients(md.Data)
	if len(l.files) >= maxEditions {
		clear(l.files)
	}
	l.files[e] = files
	return files
}

// forClients returns what clients ask for of the files that a repomd.xml names,
// primary first: databases are for tools that none has any more.
func forClients(all []repodata.Data) []repodata.Data {
	files := slices.DeleteFunc(slices.Clone(all), func(d repodata.Data) bool { return strings.HasSuffix(d.Type, "_db") })
	slices.SortStableFunc(files, func(a, b repodata.Data) int {
		switch {
		case a.Type == b.Type:
			return 0
		case a.Type == "primary":
			return -1
		case b.Type == "primary":
			return 1
		}
		return 0
	})
	return files
}

func (l *library) images(k state.Key) (sum state.Hash256, files []repodata.Data, ok bool) {
	set := l.origin.Images(k)
	if set == nil {
		return sum, nil, false
	}
	return set.Sum, set.Files, true
}

func (l *library) sample(k state.Key, id state.GenerationID, rnd *rand.Rand, order bool) *FilePlan {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.lists[edition{k, id}]
	if s == nil && order {
		s = l.list(edition{k, id})
	}
	if s == nil {
		return nil
	}
	if s.some == nil && order {
		l.order(edition{k, id}, s)
	}
	if len(s.some) == 0 {
		return nil
	}
	return &s.some[rnd.IntN(len(s.some))]
}

func (l *library) file(k state.Key, id state.GenerationID, path string) (plan *FilePlan, known bool) {
	for _, d := range l.metadata(k, id) {
		if d.Location == path {
			p := MetadataPlan(k, &d)
			return &p, true
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.list(edition{k, id})
	if plan, ok := s.found[path]; ok {
		return plan, true
	}
	for i := range s.some {
		if s.some[i].Path == path {
			return &s.some[i], true
		}
	}
	s.wanted[path] = true
	l.order(edition{k, id}, s)
	return nil, false
}

// list returns what is known of an edition. l.mu is held.
func (l *library) list(e edition) *sampled {
	s := l.lists[e]
	if s == nil {
		if len(l.lists) >= maxEditions {
			clear(l.lists)
		}
		s = &sampled{wanted: map[string]bool{}, found: map[string]*FilePlan{}}
		l.lists[e] = s
	}
	return s
}

// order has the list of an edition read, soon and not too often. l.mu is held.
func (l *library) order(e edition, s *sampled) {
	if now := time.Now(); !now.Before(s.due) {
		select {
		case l.orders <- e:
			s.due = now.Add(listAgain)
		default: // others are before it; who asks will ask again
		}
	}
}

// run reads the lists that are ordered, one after the other.
func (l *library) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-l.orders:
			err := l.read(ctx, e)
			if ctx.Err() != nil {
				return
			}
			// Once for each time that it begins: it may be so of every repository.
			if err != nil && !l.failing {
				l.log.Warn("packages of mirrors are not compared: the list of packages cannot be read", "repo", e.key.String(), "err", err)
			}
			l.failing = err != nil
		}
	}
}

// read reads a list of packages.
func (l *library) read(ctx context.Context, e edition) error {
	var primary *repodata.Data
	for _, d := range l.metadata(e.key, e.id) {
		if d.Type == "primary" {
			primary = &d
			break
		}
	}
	if primary == nil {
		return errors.New("its repomd.xml is not remembered, or names no list of packages")
	}
	l.mu.Lock()
	wanted := l.list(e).wanted
	l.list(e).wanted = map[string]bool{}
	l.mu.Unlock()
	path, from := l.origin.sources(e.key)
	path += primary.Location
	// What one tier0 does not have, or has something else for, another may have:
	// which list is the right one its checksum says.
	var some []FilePlan
	var found map[string]*FilePlan
	err := errors.New("no tier0 is named for its tree")
	for _, t := range from {
		if some, found, err = t.packages(ctx, path, e.key, primary, wanted); err == nil || ctx.Err() != nil {
			break
		}
		err = fmt.Errorf("%s%s: %w", t.base, path, err)
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.list(e)
	s.some = some
	if s.some == nil {
		s.some = []FilePlan{} // an empty repository has no packages, and needs no second look
	}
	for path, plan := range found {
		s.found[path] = plan
	}
	if len(s.wanted) > 0 {
		s.due = time.Time{}
	}
	return nil
}

// packages reads a list of packages from a tier0: some at random, and those whose
// paths are wanted; nil of these is not in the list.
func (t *tier0) packages(ctx context.Context, path string, k state.Key, primary *repodata.Data, wanted map[string]bool) (some []FilePlan, found map[string]*FilePlan, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	found = map[string]*FilePlan{}
	for path := range wanted {
		found[path] = nil
	}
	most := primary.Size
	if most < 0 {
		most = maxPrimary
	}
	r, w := io.Pipe()
	var copied sync.WaitGroup
	copied.Go(func() { w.CloseWithError(t.copy(ctx, path, w, most)) })
	some, err = samplePackages(r, k, primary, sampleSize, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), func(f *FilePlan) {
		if _, ok := found[f.Path]; ok {
			plan := *f
			found[f.Path] = &plan
		}
	})
	r.Close() // whoever still writes ends
	copied.Wait()
	return some, found, err
}

// sources returns the tier0s that have the tree of k, in the order in which they
// are asked, and where the repository is below each.
func (o *Origin) sources(k state.Key) (path string, all []*tier0) {
	o.mu.Lock()
	network := o.network
	o.mu.Unlock()
	tree := cmp.Or(network.Module(k.Version), mainTree)
	for _, t := range o.tier0s {
		if t.tree == tree {
			all = append(all, t)
		}
	}
	return RepoURL("", network, k), all
}
