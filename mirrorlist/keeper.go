package mirrorlist

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"

	"meridian/checker/state"
	"meridian/internal/durable"
	"meridian/internal/hugepages"
	"meridian/mirrorlist/geo"
	"meridian/schema"
)

// A keeper reads everything that a table is made from, and keeps the server's
// table up to date. Whatever goes wrong, the last good input stays: an old list
// is better than none. One goroutine owns it.
type keeper struct {
	s   *Server
	cfg Config
	log *slog.Logger

	in       inputs
	tree     *schema.Tree        // the network and its mirrors, nil before the first
	problems map[string][]string // what is wrong now, by subject
	seen     schema.Listing      // what the inputs were read from
	loaded   time.Time
	restart  []string // settings whose new values need a restart, in the log already

	// mirrorsDir is what the network file names, even if nothing can be read there
	// yet. cache is Config.CacheDir, or "" if nothing can be kept there.
	mirrorsDir string
	cache      string

	// What is known of files that are not at rest: how often they were looked at,
	// the listing of the last time, and who waits for them.
	looks  int
	before schema.Listing
	asked  []reloadRequest
	idle   chan []reloadRequest // those whose feeds were fetched
	wg     sync.WaitGroup       // who fetches them

	geo      map[string]geoFile // databases in use, by path
	feeds    *keptFeeds
	resolver *resolver
	source   Source

	draws  drawsFor
	orders *orders
	ordKey uint64

	running bool          // tables are renewed
	changed chan struct{} // a feed or an address is new
	found   chan struct{} // the findings are other ones
}

// drawsFor remembers what draws were made from.
type drawsFor struct {
	draws
	names   []uint64
	weights []int
	secret  uint64
}

type geoFile struct {
	db   *geo.DB // nil as long as none was good
	from schema.Listing

	// The state of the file that was refused last, and why: it is not compiled
	// twice to find out the same.
	refused schema.Listing
	err     error
}

// reloadRequest asks the keeper to read everything again.
type reloadRequest struct {
	force bool
	done  chan error
}

// maxGone is the part of the mirrors that may disappear at once without being
// asked twice: what looks like half a network is mostly half a checkout.
const maxGone = 0.3

func newKeeper(s *Server) *keeper {
	k := &keeper{
		s: s, cfg: s.opts.Config, log: s.log,
		problems: map[string][]string{},
		geo:      map[string]geoFile{}, changed: make(chan struct{}, 1), found: make(chan struct{}, 1), idle: make(chan []reloadRequest),
	}
	k.in.served = map[state.Key]*atomic.Uint64{}
	return k
}

// start reads everything for the first time.
func (k *keeper) start(ctx context.Context) error {
	k.openCache()
	k.feeds = newKeptFeeds(&k.cfg, k.cache, k.log, k.changed)
	k.source = k.s.opts.Source
	if k.source == nil && k.cfg.State != "" {
		reader, err := state.OpenReader(k.cfg.State, state.Options{})
		if err != nil {
			return fmt.Errorf("mirrorlist: state: %w", err)
		}
		k.source = reader
	}
	k.configure()
	if err := k.readSecret(); err != nil {
		return fmt.Errorf("mirrorlist: secret_file: %w", err)
	}
	if err := k.readCertificate(); err != nil {
		return fmt.Errorf("mirrorlist: tls: %w", err)
	}
	found, err := k.firstFiles(ctx)
	if err != nil {
		return err
	}
	if err := k.take(found, true); err != nil {
		return err
	}
	k.readGeo(ctx, false)
	k.followFeeds(ctx)
	k.readHosts()
	k.readState(ctx)
	k.build(false)
	return nil
}

// firstFiles reads network and mirrors for the first time, and waits a little for
// who is writing them.
func (k *keeper) firstFiles(ctx context.Context) (*schema.Tree, error) {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	// The listing is to be of the mirrors too, and only the network file tells
	// where they are.
	if network, _, err := k.loadNetwork(); err == nil {
		k.mirrorsDir = network.MirrorsDir
	}
	for try := 1; ; try++ {
		before, lock := schema.List(k.paths()), schema.GitLock(k.paths())
		found, err := k.readFiles()
		if k.seen = schema.List(k.paths()); lock == "" && (err != nil || k.seen == before) {
			return found, err
		}
		if try >= startTries {
			k.problem("files", unrest(lock, try))
			return found, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// openCache makes the cache directory. Without one the server works, and does
// again at each start what it could have kept.
func (k *keeper) openCache() {
	err := errors.New("there is no home directory; write cache_dir: DIRECTORY")
	if k.cfg.CacheDir != "" {
		err = os.MkdirAll(k.cfg.CacheDir, 0o700)
	}
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(k.cfg.CacheDir, ".try-*"); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	}
	if err != nil {
		k.problem("cache_dir", fmt.Errorf("nothing is kept for the next start: %w", err))
		return
	}
	k.cache = k.cfg.CacheDir
}

// configure takes over what settings may change without a restart.
func (k *keeper) configure() {
	k.in.fallback = k.cfg.FallbackMirrors
	k.in.maxAge = k.cfg.StateMaxAge
	if k.resolver == nil {
		k.resolver = newResolver(k.s.opts.Resolver, k.cache, k.cfg.AllowPrivateAddresses)
	}
}

// problem records what is wrong with one of the inputs; nil errors clear it.
func (k *keeper) problem(subject string, errs ...error) {
	var texts []string
	for _, err := range errs {
		if err != nil {
			texts = append(texts, err.Error())
		}
	}
	if slices.Equal(texts, k.problems[subject]) {
		return
	}
	if len(texts) == 0 {
		delete(k.problems, subject)
		k.log.Info("input is good again", "input", subject)
		return
	}
	k.problems[subject] = texts
	for _, t := range texts {
		k.log.Warn("input is not as it should be", "input", subject, "err", t)
	}
}

// paths are the files whose change means a reload.
func (k *keeper) paths() []string {
	var paths []string
	for _, p := range []string{
		k.s.opts.ConfigFile, k.cfg.Network, k.mirrorsDir, k.cfg.SecretFile,
		k.cfg.TLS.Cert, k.cfg.TLS.Key, k.cfg.Geo.Location, k.cfg.Geo.ASN,
	} {
		if p != "" && p != demoGeo {
			paths = append(paths, p)
		}
	}
	for _, source := range k.cfg.CloudRanges {
		if !isURL(source) {
			paths = append(paths, source)
		}
	}
	slices.Sort(paths) // a map has no order, and a listing does
	return paths
}

// readSecret reads the secret of the weighted orders. Without a file it is
// derived from what all nodes of a network have in common.
func (k *keeper) readSecret() error {
	if k.cfg.SecretFile == "" {
		return nil // see take
	}
	data, err := os.ReadFile(k.cfg.SecretFile)
	if err != nil {
		return err
	}
	data = bytes.TrimSpace(data)
	if len(data) < 16 {
		return fmt.Errorf("%s is too short; write at least 16 random characters into it", k.cfg.SecretFile)
	}
	k.in.secret = secretOf(data)
	return nil
}

func secretOf(data []byte) uint64 {
	sum := sha256.Sum256(data)
	return binary.LittleEndian.Uint64(sum[:])
}

// loadNetwork reads the network file. Options may have the mirrors elsewhere.
func (k *keeper) loadNetwork() (*schema.Network, []schema.Problem, error) {
	n, problems, err := schema.LoadNetwork(k.cfg.Network)
	if err == nil && k.s.opts.MirrorsDir != "" {
		n.MirrorsDir = k.s.opts.MirrorsDir
	}
	return n, problems, err
}

// readFiles reads the network file and the mirrors, as [schema.ReadTree] does. It
// changes nothing but which directory is watched.
func (k *keeper) readFiles() (*schema.Tree, error) {
	t, err := schema.ReadTree(k.cfg.Network, k.s.opts.MirrorsDir, k.tree)
	if t != nil {
		k.mirrorsDir = t.Network.MirrorsDir
	}
	return t, err
}

// take puts files in use. It refuses them if too many mirrors are gone, unless it
// is forced.
func (k *keeper) take(t *schema.Tree, force bool) error {
	k.problem("network", t.NetworkFaults...)
	if len(t.Mirrors) > maxMirrors {
		err := fmt.Errorf("mirrorlist: %d mirrors are more than %d", len(t.Mirrors), maxMirrors)
		k.problem("mirrors", append(t.MirrorFaults, err)...)
		return err
	}
	k.problem("mirrors", t.MirrorFaults...)
	if k.tree != nil {
		if gone := t.Gone(k.tree); !force && float64(gone) > maxGone*float64(len(k.tree.Mirrors)) {
			err := fmt.Errorf("%d of %d mirrors are gone at once: if that is meant, ask for a reload (SIGHUP, or POST /-/reload)", gone, len(k.tree.Mirrors))
			k.problem("removed mirrors", err)
			return err
		}
	}
	k.problem("removed mirrors")
	var useless []error
	for _, name := range k.in.fallback {
		i, ok := slices.BinarySearchFunc(t.Mirrors, name, func(m *schema.Mirror, name string) int { return strings.Compare(m.Name, name) })
		switch {
		case !ok:
			useless = append(useless, fmt.Errorf("fallback_mirrors: no mirror is called %q; write a name from %s", name, t.Network.MirrorsDir))
		case t.Mirrors[i].Private || t.Mirrors[i].CloudType != "":
			useless = append(useless, fmt.Errorf("fallback_mirrors: %s is private or inside a cloud, and is never listed to everybody; write the name of a public mirror", name))
		}
	}
	k.problem("fallback_mirrors", useless...)
	if k.cfg.SecretFile == "" {
		if k.tree == nil {
			k.log.Warn("no secret_file: whoever knows the network can tell every client's order")
		}
		k.in.secret = secretOf([]byte(t.Network.VaultMirror + fmt.Sprint(t.Network.Versions)))
	}
	k.tree, k.in.network, k.in.mirrors = t, t.Network, t.Mirrors
	k.loaded = k.s.now()
	return nil
}

// maxMirrors is what a mirror's number can count, with room for its sets.
const maxMirrors = 1 << 14

// readGeo opens the databases, and compiles those that are new. One that is bad
// keeps its old form; again tries one that was refused before.
func (k *keeper) readGeo(ctx context.Context, again bool) {
	location, errLocation := k.database(ctx, k.cfg.Geo.Location, again)
	asn, errASN := k.database(ctx, k.cfg.Geo.ASN, again && k.cfg.Geo.ASN != k.cfg.Geo.Location)
	if errLocation == nil && location != nil && !location.HasLocation() {
		errLocation = fmt.Errorf("%s is a %s and knows no places; write one such as GeoLite2-City or IPinfo location", k.cfg.Geo.Location, location.Type())
	}
	if errASN == nil && asn != nil && !asn.HasASN() {
		errASN = fmt.Errorf("%s is a %s and knows no ASNs; write one such as GeoLite2-ASN or IPinfo ASN", k.cfg.Geo.ASN, asn.Type())
	}
	k.problem("geo.location", errLocation)
	k.problem("geo.asn", errASN)
	// Joining the same two again would make a new database of the same content.
	if db := geo.Join(location, asn); db.Sum() != k.in.db.Sum() {
		k.in.db = db
	}
	for path := range k.geo {
		if path != k.cfg.Geo.Location && path != k.cfg.Geo.ASN {
			delete(k.geo, path)
		}
	}
}

// database returns the compiled form of a database, or its last good form and
// what is wrong now.
func (k *keeper) database(ctx context.Context, path string, again bool) (*geo.DB, error) {
	if path == "" {
		return nil, nil
	}
	have := k.geo[path]
	if path == demoGeo {
		if have.db == nil {
			have.db = geo.Demo()
			k.geo[path] = have
		}
		return have.db, nil
	}
	if _, err := os.Stat(path); err != nil {
		return have.db, err
	}
	from := schema.List([]string{path})
	switch {
	case have.db != nil && have.from == from:
		return have.db, nil
	case have.err != nil && have.refused == from && !again:
		return have.db, have.err
	}
	db, err := k.compiled(ctx, path, from)
	if err != nil {
		have.refused, have.err = from, err
		k.geo[path] = have
		return have.db, err
	}
	// The mapping is released when no table uses the database any more, and no
	// request uses that table: only the collector knows when that is.
	runtime.SetFinalizer(db, func(db *geo.DB) { _ = db.Close() })
	k.geo[path] = geoFile{db: db, from: from}
	return db, nil
}

// compiled opens the snapshot of a database in one state of its file. It is made
// when there is none, or none that can be used.
func (k *keeper) compiled(ctx context.Context, path string, from schema.Listing) (*geo.DB, error) {
	dir := k.cache
	if dir == "" {
		// Mapped, the snapshot needs no name.
		tmp, err := os.MkdirTemp("", "meridian-geo-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(tmp)
		dir = tmp
	}
	// The name tells the file and its state: a snapshot of another state of the
	// database is another file, and a bad database has none.
	prefix := fmt.Sprintf("geo-%016x-", xxh3.HashString(path))
	snapshot := filepath.Join(dir, fmt.Sprintf("%s%016x", prefix, uint64(from)))
	if db, err := geo.Open(snapshot); err == nil {
		return db, nil
	}
	// Two servers on one cache directory compile in turn: the second finds what
	// the first has made, and neither removes it while the other looks for it.
	lock := k.lockGeo(ctx, dir)
	if lock != nil {
		defer lock.Unlock()
	}
	db, err := geo.Open(snapshot)
	if err == nil {
		return db, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		k.log.Warn("compiling the database again", "path", path, "err", err)
	}
	compile := k.s.opts.Compile
	if compile == nil {
		compile = func(_ context.Context, mmdb, out string) error { return geo.Compile(mmdb, out) }
	}
	if err := compile(ctx, path, snapshot); err != nil {
		return nil, err
	}
	if db, err = geo.Open(snapshot); err != nil {
		return nil, err
	}
	k.log.Info("compiled a database", "path", path, "type", db.Type(), "built", db.Built())
	sweep(dir, prefix, filepath.Base(snapshot))
	return db, nil
}

// lockGeo waits until nobody else compiles into a directory. After a minute it
// returns nil: snapshots are replaced whole, so that twice the work is all that
// can come of it.
func (k *keeper) lockGeo(ctx context.Context, dir string) *durable.Lock {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		lock, err := durable.TryLock(filepath.Join(dir, "geo.lock"))
		if err == nil {
			return lock
		}
		if !errors.Is(err, durable.ErrLocked) {
			return nil
		}
		sleep(ctx, settleEvery)
		if ctx.Err() != nil {
			return nil
		}
	}
}

// sweep removes the snapshots of earlier states of a database.
func sweep(dir, prefix, keep string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && e.Name() != keep {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// followFeeds reads the lists that settings and mirror files name.
func (k *keeper) followFeeds(ctx context.Context) {
	subnets := map[string]string{}
	for _, m := range k.in.mirrors {
		if m.SubnetsURL != "" {
			subnets[m.Name] = m.SubnetsURL
		}
	}
	k.feeds.follow(ctx, k.cfg.CloudRanges, subnets)
}

// readHosts says whose addresses are wanted, and takes those that are known.
func (k *keeper) readHosts() {
	var hosts []string
	for _, m := range k.in.mirrors {
		hosts = append(hosts, hostOf(base{m.Address.HTTP, m.Address.HTTPS}.url(anyScheme)))
	}
	k.resolver.setHosts(hosts)
	k.in.hosts = k.resolver.addrs()
}

// readState takes the newest findings, and reports whether they changed. Those of
// a source that has lost them, or is away, stay until they are too old: they tell
// who was proven to lie.
func (k *keeper) readState(ctx context.Context) (changed bool) {
	if k.source == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	snap, err := k.source.Load(ctx)
	if errors.Is(err, state.ErrNoSnapshot) && snap == nil && k.in.snap == nil {
		err = nil // nothing has been checked yet: list every mirror
	}
	k.problem("state", err)
	if snap == nil || snap == k.in.snap {
		return false
	}
	k.in.snap = snap
	return true
}

// build makes a table of the inputs and puts it in service. Without wait it may
// put one in service first whose orders are still to be made.
func (k *keeper) build(wait bool) {
	k.in.clouds, k.in.subnets = k.feeds.values()
	g := newGeometry(&k.in)
	t := &Table{geometry: g, orders: k.ordersOf(g, wait)}
	t.fallback = newSet(len(g.mirrors))
	for _, name := range k.in.fallback {
		if i, ok := g.byName[name]; ok {
			t.fallback.add(i)
		}
	}
	t.trusted = nil
	for _, p := range k.cfg.TrustedProxies {
		if n, err := parseNetwork(p); err == nil { // check has seen to it
			t.trusted = append(t.trusted, n)
		}
	}
	t.header, t.limit, t.secret, t.base = k.cfg.ClientHeader, k.cfg.Limit, k.in.secret, k.cfg.PublicURL
	if k.s.recorder != nil {
		t.tally = k.s.recorder.Attach(statsLayout(g, &k.cfg))
	}
	k.serve(t)
}

// serve completes a table with what changes by itself, health and the hour, and
// puts it in service.
func (k *keeper) serve(t *Table) {
	now := k.s.now()
	t.now, t.date = now, nil
	if k.running {
		// Formatting a time for each answer costs more than the whole decision.
		t.date = []string{now.UTC().Format(http.TimeFormat)}
	}
	old := k.s.table.Load()
	live := k.in.snap != nil && now.Sub(k.in.snap.Taken) < k.in.maxAge
	if old != nil && old.geometry == t.geometry && old.snap == k.in.snap && old.live == live && (old.until.IsZero() || now.Before(old.until)) {
		t.findings = old.findings
	} else {
		t.findings = newFindings(t.geometry, k.in.snap, live, now)
	}
	if d := &k.draws; d.secret != t.secret || !slices.Equal(d.names, t.names) || !slices.Equal(d.weights, t.weights) {
		*d = drawsFor{names: t.names, weights: t.weights, secret: t.secret}
	}
	k.draws.draws = k.draws.next(now, t.names, t.weights, t.secret)
	t.draws = k.draws.draws
	if k.in.snap != nil && !live {
		k.problem("state age", fmt.Errorf("findings are of %s: every health is unknown", k.in.snap.Taken.Format(time.RFC3339)))
	} else {
		k.problem("state age")
	}
	if k.s.recorder != nil {
		k.problem("stats", k.s.recorder.Err())
	}
	k.s.table.Store(t)
	k.publish()
}

// publish says what is in service, and what is wrong.
func (k *keeper) publish() {
	t := k.s.table.Load()
	k.s.status.Store(&Status{
		Mirrors: len(t.mirrors), Loaded: k.loaded, Database: t.db.Type(), Built: t.db.Built(),
		Snapshot: snapTime(t.snap), Problems: maps.Clone(k.problems), feeds: k.feeds.statuses(),
		unresolved: len(k.resolver.problems()),
	})
}

func snapTime(s *state.Snapshot) time.Time {
	if s == nil {
		return time.Time{}
	}
	return s.Taken
}

// refresh puts a table in service that differs from the one that is by health or
// hour alone.
func (k *keeper) refresh() {
	t := *k.s.table.Load()
	k.serve(&t)
}

// ordersOf returns the orders for a geometry: those of the last table, saved
// ones, or, if wait, new ones.
func (k *keeper) ordersOf(g *geometry, wait bool) *orders {
	if !g.db.HasLocation() {
		return nil
	}
	key := ordersKey(g.db, g.seats)
	if k.orders != nil && k.ordKey == key {
		return k.orders
	}
	path := filepath.Join(k.cache, "orders")
	if k.cache != "" {
		if o := k.savedOrders(path, key, g); o != nil {
			k.orders, k.ordKey = o, key
			return o
		}
	}
	if !wait {
		return nil
	}
	o := g.newOrders()
	k.orders, k.ordKey = o, key
	if k.cache == "" {
		return o
	}
	if err := durable.WriteFile(path, o.encode(key), 0o600); err != nil {
		k.log.Warn("orders cannot be saved: the next start has to compute them", "err", err)
	}
	return o
}

// savedOrders returns the orders in a file, if they are those of a geometry.
func (k *keeper) savedOrders(path string, key uint64, g *geometry) *orders {
	file, err := durable.Map(path)
	if err != nil {
		return nil
	}
	// Every list reads them somewhere else.
	mem, release := hugepages.Alloc(len(file.Bytes()))
	copy(mem, file.Bytes())
	_ = file.Close()
	o, err := decodeOrders(mem, key, len(g.mirrors))
	if err == nil && len(o.start) != g.db.Places()+1 {
		err = errOtherOrders
	}
	if err != nil {
		if !errors.Is(err, errOtherOrders) {
			k.log.Warn("computing the saved orders again", "path", path, "err", err)
		}
		_ = release()
		return nil
	}
	// As with databases, only the collector knows when nobody walks them any more.
	runtime.SetFinalizer(o, func(*orders) { _ = release() })
	return o
}

// How often the keeper looks for itself, beside being told.
const (
	pollFiles = 30 * time.Second
	pollState = 2 * time.Second

	// stateTimeout is for how long findings are waited for while nobody follows
	// them: at a start.
	stateTimeout = 5 * time.Second
)

// run keeps the table up to date until ctx ends.
func (k *keeper) run(ctx context.Context) error {
	defer close(k.s.stopped)
	g, ctx := errgroup.WithContext(ctx)
	k.feeds.run(ctx)
	defer k.feeds.wait()
	g.Go(func() error { return k.resolver.run(ctx, k.changed) })
	if reader, ok := k.source.(*state.Reader); ok {
		// Nothing here waits for a Redis that is slow or away.
		g.Go(func() error {
			defer reader.Close()
			reader.Follow(ctx, func() {
				select {
				case k.found <- struct{}{}:
				default:
				}
			})
			return nil
		})
	}
	g.Go(func() error {
		defer k.wg.Wait()
		return k.loop(ctx)
	})
	err := g.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

func (k *keeper) loop(ctx context.Context) error {
	k.running = true
	if t := k.s.table.Load(); t.orders == nil && t.db.HasLocation() {
		k.build(true)
	} else {
		k.refresh()
	}
	var (
		events  <-chan fsnotify.Event // nil where files cannot be watched
		faults  <-chan error
		watched []string
	)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		k.log.Warn("files are not watched, only polled", "every", pollFiles, "err", err)
	} else {
		defer watcher.Close()
		events, faults = watcher.Events, watcher.Errors
		watched = k.watch(watcher, nil)
	}
	files, states := time.NewTicker(pollFiles), time.NewTicker(pollState)
	defer files.Stop()
	defer states.Stop()
	// At once, for what has changed between the start and the watch. News that
	// come while one looks already change nothing: what matters are listings. Nor
	// is it looked more often than every so often: the directory may be a busy one.
	settle, looking, last := time.NewTimer(0), true, time.Time{}
	defer settle.Stop()
	look := func() {
		if !looking {
			looking = true
			settle.Reset(settleEvery - time.Since(last))
		}
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-k.s.reload:
			k.asked = append(k.asked, r)
			look()
		case _, ok := <-events:
			if !ok {
				return errors.New("mirrorlist: the file watcher has ended")
			}
			look()
		case err := <-faults:
			k.log.Debug("file watcher", "err", err)
			look()
		case <-files.C:
			look()
		case <-settle.C:
			if looking = k.look(ctx); looking {
				settle.Reset(settleEvery)
			}
			last = time.Now()
			watched = k.watch(watcher, watched)
		case <-k.found:
			k.readState(ctx)
			k.refresh()
		case <-states.C: // the time, too, changes what is known
			k.readState(ctx)
			k.refresh()
		case <-k.changed:
			k.readHosts()
			k.build(true)
		case asked := <-k.idle:
			k.build(true)
			k.answer(asked)
		}
	}
}

// watch watches the directories of the files that count now.
func (k *keeper) watch(w *fsnotify.Watcher, before []string) []string {
	if w == nil {
		return nil
	}
	dirs := dirsOf(k.paths())
	for _, dir := range before {
		if !slices.Contains(dirs, dir) {
			_ = w.Remove(dir)
		}
	}
	for _, dir := range dirs {
		// Again each time: a directory that was replaced is another one.
		if err := w.Add(dir); err != nil {
			k.log.Debug("directory is not watched", "dir", dir, "err", err)
		}
	}
	return dirs
}

// look takes one look at the files, and reads them if they are others than those
// in use, or somebody asked, and they have come to rest: two listings in a row
// are equal, git holds no lock in a work tree around them, and both are still so
// after they were read. It reports whether another look is needed.
func (k *keeper) look(ctx context.Context) (again bool) {
	now, lock := schema.List(k.paths()), schema.GitLock(k.paths())
	if now == k.seen && lock == "" && len(k.asked) == 0 {
		k.looks = 0
		k.problem("files")
		return false
	}
	rests := k.looks > 0 && now == k.before && lock == ""
	k.before = now
	k.looks++
	if rests {
		k.readSettings()
		found, err := k.readFiles()
		if k.before = schema.List(k.paths()); k.before == now && schema.GitLock(k.paths()) == "" {
			k.looks = 0
			k.seen = now
			k.reload(ctx, found, err)
			return false
		}
	}
	if k.looks%settleTries == 0 {
		k.problem("files", unrest(lock, k.looks))
		k.publish()
		k.answer(k.asked)
		k.asked = nil
	}
	return true
}

// reload puts what was read in use, as far as it is good, and reads all else.
func (k *keeper) reload(ctx context.Context, found *schema.Tree, err error) {
	asked := k.asked
	k.asked = nil
	k.problem("files")
	force := slices.ContainsFunc(asked, func(r reloadRequest) bool { return r.force })
	switch {
	case err == nil:
		err = k.take(found, force)
	case found != nil:
		k.problem("network", found.NetworkFaults...)
		k.problem("mirrors", err)
	}
	k.problem("secret_file", k.readSecret())
	k.problem("tls", k.readCertificate())
	k.readGeo(ctx, len(asked) > 0)
	k.followFeeds(ctx)
	k.feeds.loadFiles(ctx, force)
	k.readHosts()
	k.readState(ctx)
	k.build(true)
	if err == nil {
		k.log.Info("reloaded", "mirrors", len(k.in.mirrors))
	}
	if len(asked) == 0 {
		return
	}
	// Other people's servers are waited for by who asked, not by everybody.
	remotes := k.feeds.remotes()
	if len(remotes) == 0 {
		k.answer(asked)
		return
	}
	k.wg.Go(func() {
		fetchAll(ctx, remotes, force)
		select {
		case k.idle <- asked:
		case <-ctx.Done():
		}
	})
}

// answer tells who asked for a reload what is wrong after it.
func (k *keeper) answer(asked []reloadRequest) {
	var err error
	if lines := k.s.Status().Lines(); len(lines) > 0 {
		err = errors.New(strings.Join(lines, "\n"))
	}
	for _, r := range asked {
		r.done <- err
	}
}

// readSettings reads the settings file again. What needs a restart stays.
func (k *keeper) readSettings() {
	if k.s.opts.ReadConfig == nil {
		return
	}
	cfg, err := k.s.opts.ReadConfig()
	if err == nil {
		err = cfg.check()
	}
	k.problem("settings", err)
	if err != nil {
		return
	}
	var restart []string
	for _, fixed := range []struct {
		name     string
		now, was any
	}{
		{"listen", cfg.Listen, k.cfg.Listen}, {"admin_listen", cfg.AdminListen, k.cfg.AdminListen}, {"tls", cfg.TLS, k.cfg.TLS},
		{"state", cfg.State, k.cfg.State}, {"stats", cfg.Stats, k.cfg.Stats}, {"stats_days", cfg.StatsDays, k.cfg.StatsDays}, {"node", cfg.Node, k.cfg.Node}, {"cache_dir", cfg.CacheDir, k.cfg.CacheDir},
		{"allow_private_addresses", cfg.AllowPrivateAddresses, k.cfg.AllowPrivateAddresses},
	} {
		if fixed.now != fixed.was {
			restart = append(restart, fixed.name)
		}
	}
	if !slices.Equal(restart, k.restart) {
		k.restart = restart
		for _, name := range restart {
			k.log.Warn("this setting needs a restart", "setting", name)
		}
	}
	cfg.Listen, cfg.AdminListen, cfg.TLS = k.cfg.Listen, k.cfg.AdminListen, k.cfg.TLS
	cfg.State, cfg.CacheDir, cfg.AllowPrivateAddresses = k.cfg.State, k.cfg.CacheDir, k.cfg.AllowPrivateAddresses
	cfg.Stats, cfg.StatsDays, cfg.Node = k.cfg.Stats, k.cfg.StatsDays, k.cfg.Node
	k.cfg = cfg
	k.configure()
	k.s.limit.setRate(cfg.RequestsPerSecond)
}
