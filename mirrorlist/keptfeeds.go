package mirrorlist

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"meridian/internal/fetch"
)

// keptFeeds are the feeds that settings and mirror files name now. Each is read
// by a goroutine of its own once they run.
type keptFeeds struct {
	client   *fetch.Client
	cacheDir string
	private  bool // private addresses are allowed
	log      *slog.Logger
	changed  chan<- struct{}

	clouds  map[string]*feed[cloudRange]   // by provider
	subnets map[string]*feed[netip.Prefix] // by the name of the mirror

	ctx     context.Context // nil until they run
	running map[anyFeed]context.CancelFunc
	wg      sync.WaitGroup
}

// anyFeed is a feed of whatever.
type anyFeed interface {
	remote() bool
	restore() error
	load(ctx context.Context, force bool) (changed bool, err error)
	run(ctx context.Context, log *slog.Logger, changed chan<- struct{})
	status() feedStatus
}

// newKeptFeeds returns an empty set of feeds. Copies are kept in cacheDir; "" is
// none.
func newKeptFeeds(cfg *Config, cacheDir string, log *slog.Logger, changed chan<- struct{}) *keptFeeds {
	return &keptFeeds{
		client: newFeedClient(cfg.AllowPrivateAddresses), cacheDir: cacheDir, private: cfg.AllowPrivateAddresses,
		log: log, changed: changed,
		clouds: map[string]*feed[cloudRange]{}, subnets: map[string]*feed[netip.Prefix]{},
		running: map[anyFeed]context.CancelFunc{},
	}
}

// follow makes the feeds those of the given sources: clouds by provider, subnet
// lists by mirror. What is new begins with its file, or with the copy of a URL
// that is on disk: no start waits for somebody else's server.
func (k *keptFeeds) follow(ctx context.Context, clouds, subnets map[string]string) {
	followEach(k, ctx, k.clouds, clouds, func(name, source string) *feed[cloudRange] {
		return newCloudFeed(name, source, k.cacheDir, k.client)
	})
	followEach(k, ctx, k.subnets, subnets, func(name, source string) *feed[netip.Prefix] {
		return newSubnetFeed(name, source, k.cacheDir, k.client, k.private)
	})
	for f, cancel := range k.running {
		if !slices.Contains(k.all(), f) {
			cancel()
			delete(k.running, f)
		}
	}
}

func followEach[T any](k *keptFeeds, ctx context.Context, have map[string]*feed[T], want map[string]string, open func(name, source string) *feed[T]) {
	maps.DeleteFunc(have, func(name string, f *feed[T]) bool {
		if want[name] == f.source {
			return false
		}
		if f.cacheFile != "" {
			_ = os.Remove(f.cacheFile) // nobody asks for it again
		}
		return true
	})
	for name, source := range want {
		if have[name] != nil {
			continue
		}
		f := open(name, source)
		have[name] = f
		if isURL(source) {
			if err := f.restore(); err != nil {
				k.log.Warn("beginning without a saved list", "err", err)
			}
		} else {
			_, _ = f.load(ctx, false) // what is wrong is in its status
		}
		k.begin(f)
	}
}

// begin starts the goroutine of a feed, once they run.
func (k *keptFeeds) begin(f anyFeed) {
	if k.ctx == nil {
		return
	}
	ctx, cancel := context.WithCancel(k.ctx)
	k.running[f] = cancel
	k.wg.Go(func() { f.run(ctx, k.log, k.changed) })
}

// run reads all feeds, also those that follow adds, until ctx ends; wait then
// returns when all of them have stopped.
func (k *keptFeeds) run(ctx context.Context) {
	k.ctx = ctx
	for _, f := range k.all() {
		k.begin(f)
	}
}

func (k *keptFeeds) wait() { k.wg.Wait() }

func (k *keptFeeds) all() []anyFeed {
	var all []anyFeed
	for _, f := range k.clouds {
		all = append(all, f)
	}
	for _, f := range k.subnets {
		all = append(all, f)
	}
	return all
}

// loadFiles loads every feed that is a file now. With force, a list may shrink.
func (k *keptFeeds) loadFiles(ctx context.Context, force bool) {
	for _, f := range k.all() {
		if !f.remote() {
			_, _ = f.load(ctx, force) // what is wrong is in its status
		}
	}
}

// remotes are the feeds that are URLs.
func (k *keptFeeds) remotes() []anyFeed {
	return slices.DeleteFunc(k.all(), func(f anyFeed) bool { return !f.remote() })
}

// fetchAll loads feeds that are URLs, for a minute at most, and touches nothing
// but them: others may go on meanwhile.
func fetchAll(ctx context.Context, feeds []anyFeed, force bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(16)
	for _, f := range feeds {
		g.Go(func() error {
			_, _ = f.load(ctx, force) // what is wrong is in its status
			return nil
		})
	}
	_ = g.Wait()
}

// statuses lists all feeds by name.
func (k *keptFeeds) statuses() []feedStatus {
	var out []feedStatus
	for _, f := range k.all() {
		out = append(out, f.status())
	}
	slices.SortFunc(out, func(a, b feedStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (f *feed[E]) remote() bool { return isURL(f.source) }

// values returns the lists as a table wants them.
func (k *keptFeeds) values() (clouds map[string][]cloudRange, subnets map[string][]netip.Prefix) {
	clouds, subnets = map[string][]cloudRange{}, map[string][]netip.Prefix{}
	for name, f := range k.clouds {
		clouds[name] = f.value()
	}
	for name, f := range k.subnets {
		subnets[name] = f.value()
	}
	return clouds, subnets
}
