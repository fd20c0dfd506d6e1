package mirrorlist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"meridian/internal/durable"
	"meridian/internal/fetch"
)

const (
	// resolveInterval is how often a host is looked up again. Mirrors move
	// rarely, and a place that is an hour old is as good as a new one.
	resolveInterval = time.Hour

	// resolveLimit is how many hosts are looked up at the same time.
	resolveLimit = 16

	// resolveTimeout bounds the lookups of one host.
	resolveTimeout = 10 * time.Second

	// resolveSettle is how long answers wait for others before they are used:
	// every use makes a new table.
	resolveSettle = 5 * time.Second

	// maxHostAddrs bounds the addresses that are kept of a host and family.
	maxHostAddrs = 16
)

// A Resolver finds the addresses of a host, of the network "ip4" or "ip6". It
// returns when its context ends. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// hostAddrs are the addresses of a host: each list ascending, without
// duplicates, shared and never changed.
type hostAddrs struct {
	V4 []netip.Addr `json:"v4,omitempty"`
	V6 []netip.Addr `json:"v6,omitempty"`
}

// first returns the address that says where the host is: the lowest IPv4
// address, else the lowest IPv6 one, else the invalid address.
func (h hostAddrs) first() netip.Addr {
	for _, list := range [][]netip.Addr{h.V4, h.V6} {
		if len(list) > 0 {
			return list[0]
		}
	}
	return netip.Addr{}
}

func (h hostAddrs) equal(o hostAddrs) bool {
	return slices.Equal(h.V4, o.V4) && slices.Equal(h.V6, o.V6)
}

// A resolver knows the addresses of the mirrors' hosts. It looks them up in the
// background and keeps what it found last, over failures and restarts, so that
// a mirror does not lose its place because a name server is away.
type resolver struct {
	lookup    Resolver
	cacheFile string // "" keeps no copy on disk
	private   bool   // addresses that are not public count too

	known atomic.Pointer[map[string]hostAddrs] // replaced under mu, never changed
	wake  chan struct{}                        // the hosts are others

	// mu guards the fields below, and the replacing of known.
	mu     sync.Mutex
	hosts  map[string]bool  // to look up
	failed map[string]error // hosts whose last lookup failed
	faulty error            // of the copy on disk
}

// newResolver returns a resolver that knows what the copy in cacheDir says; ""
// is no copy. A nil lookup is the system's. With allowPrivate, addresses count
// that are not public.
func newResolver(lookup Resolver, cacheDir string, allowPrivate bool) *resolver {
	if lookup == nil {
		lookup = net.DefaultResolver
	}
	r := &resolver{
		lookup:  lookup,
		private: allowPrivate,
		wake:    make(chan struct{}, 1),
		failed:  make(map[string]error),
	}
	known := make(map[string]hostAddrs)
	if cacheDir != "" {
		r.cacheFile = filepath.Join(cacheDir, "hosts.json")
		r.faulty = r.restore(known)
	}
	r.known.Store(&known)
	return r
}

// addrs returns the addresses of all hosts that have some.
func (r *resolver) addrs() map[string]hostAddrs { return *r.known.Load() }

// problems lists, by host, whose last lookup failed and why, and what is wrong
// with the copy on disk.
func (r *resolver) problems() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []error
	for _, host := range slices.Sorted(maps.Keys(r.failed)) {
		list = append(list, fmt.Errorf("%s: %w", host, r.failed[host]))
	}
	if r.faulty != nil {
		list = append(list, r.faulty)
	}
	return list
}

// setHosts says whose addresses are wanted: names, or literal addresses, which
// are known at once. Others are forgotten.
func (r *resolver) setHosts(hosts []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, known := r.addrs(), make(map[string]hostAddrs)
	r.hosts = make(map[string]bool)
	for _, host := range hosts {
		if host == "" {
			continue
		}
		if a, err := netip.ParseAddr(host); err == nil {
			if h := r.usable(hostAddrs{V4: []netip.Addr{a}, V6: []netip.Addr{a}}); h.first().IsValid() {
				known[host] = h
			}
			continue
		}
		r.hosts[host] = true
		if h, ok := old[host]; ok {
			known[host] = h
		}
	}
	maps.DeleteFunc(r.failed, func(host string, _ error) bool { return !r.hosts[host] })
	r.known.Store(&known)
	nudge(r.wake)
}

// turn is when a host is to be looked up. The goroutine of run owns it.
type turn struct {
	due      time.Time
	failures int
	running  bool
}

// answer is what a lookup found of a host.
type answer struct {
	host   string
	v4, v6 []netip.Addr // nil: there are none, or the lookup failed
	e4, e6 error
}

// run looks up the hosts until ctx ends. When an answer differs it sends to
// changed, which has room for one.
func (r *resolver) run(ctx context.Context, changed chan<- struct{}) error {
	var lookups sync.WaitGroup
	defer lookups.Wait()
	answers := make(chan answer)
	running := 0
	turns := make(map[string]*turn)
	var fresh []answer // not yet in known
	var settled time.Time
	for {
		r.follow(turns)
		now := time.Now()
		if len(fresh) > 0 && (running == 0 || !now.Before(settled)) {
			if r.take(fresh) {
				nudge(changed)
			}
			fresh = nil
		}
		wait := resolveInterval // an upper bound; wake and answers come sooner
		for host, t := range turns {
			switch {
			case t.running:
			case t.due.After(now):
				wait = min(wait, t.due.Sub(now))
			case running < resolveLimit:
				running++
				t.running = true
				lookups.Go(func() {
					select {
					case answers <- r.ask(ctx, host):
					case <-ctx.Done():
					}
				})
			}
		}
		if len(fresh) > 0 {
			wait = min(wait, settled.Sub(now))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		case <-r.wake:
		case a := <-answers:
			running--
			if len(fresh) == 0 {
				settled = time.Now().Add(resolveSettle)
			}
			fresh = append(fresh, a)
			if t := turns[a.host]; t != nil {
				_, err := a.merge(hostAddrs{})
				t.running = false
				t.failures++
				if err == nil {
					t.failures = 0
				}
				t.due = time.Now().Add(retryDelay(resolveInterval, t.failures))
			}
		}
	}
}

// follow gives every wanted host a turn, new ones at once, and no other.
func (r *resolver) follow(turns map[string]*turn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(turns, func(host string, _ *turn) bool { return !r.hosts[host] })
	for host := range r.hosts {
		if turns[host] == nil {
			turns[host] = new(turn)
		}
	}
}

// ask looks up a host in both families at once.
func (r *resolver) ask(ctx context.Context, host string) answer {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	a := answer{host: host}
	var v6 sync.WaitGroup
	v6.Go(func() { a.v6, a.e6 = r.askFamily(ctx, "ip6", host) })
	a.v4, a.e4 = r.askFamily(ctx, "ip4", host)
	v6.Wait()
	h := r.usable(hostAddrs{V4: a.v4, V6: a.v6})
	a.v4, a.v6 = h.V4, h.V6
	return a
}

// askFamily is one lookup. That there is no such name, or no address of that
// family, is an answer.
func (r *resolver) askFamily(ctx context.Context, network, host string) ([]netip.Addr, error) {
	list, err := r.lookup.LookupNetIP(ctx, network, host)
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return nil, nil
	}
	return list, err
}

// errNoAddress is a complete answer without an address that counts.
var errNoAddress = errors.New("no public address; the mirror's place stays where it was")

// merge returns the addresses of a host that had the old ones. A family whose
// lookup failed keeps its addresses, and so do both when there is none at all.
func (a answer) merge(old hostAddrs) (hostAddrs, error) {
	err := errors.Join(a.e4, a.e6)
	if len(a.v4)+len(a.v6) == 0 {
		if err == nil {
			err = errNoAddress
		}
		return old, err
	}
	h := hostAddrs{V4: a.v4, V6: a.v6}
	if a.e4 != nil {
		h.V4 = old.V4
	}
	if a.e6 != nil {
		h.V6 = old.V6
	}
	return h, err
}

// take brings answers into use, and reports whether one of them differs from
// what was known.
func (r *resolver) take(answers []answer) (changed bool) {
	changed = r.learn(answers)
	r.mu.Lock()
	stale := changed || r.faulty != nil
	r.mu.Unlock()
	if stale {
		err := r.save(r.addrs()) // not under mu: a disk can be slow
		r.mu.Lock()
		r.faulty = err
		r.mu.Unlock()
	}
	return changed
}

// learn is take without the copy on disk. Answers of hosts that are not wanted
// any more are dropped.
func (r *resolver) learn(answers []answer) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := maps.Clone(r.addrs())
	for _, a := range answers {
		if !r.hosts[a.host] {
			continue
		}
		h, err := a.merge(known[a.host])
		delete(r.failed, a.host)
		if err != nil {
			r.failed[a.host] = err
		}
		if !h.equal(known[a.host]) {
			known[a.host] = h
			changed = true
		}
	}
	if changed {
		r.known.Store(&known)
	}
	return changed
}

// usable returns the addresses that count, in their plain form and each in its
// family.
func (r *resolver) usable(h hostAddrs) hostAddrs {
	keep := func(list []netip.Addr, wanted func(netip.Addr) bool) []netip.Addr {
		var out []netip.Addr
		for _, a := range list {
			a = a.Unmap().WithZone("")
			if wanted(a) && (r.private || fetch.Public(a)) {
				out = append(out, a)
			}
		}
		slices.SortFunc(out, netip.Addr.Compare)
		out = slices.Compact(out)
		return slices.Clip(out[:min(len(out), maxHostAddrs)])
	}
	return hostAddrs{V4: keep(h.V4, netip.Addr.Is4), V6: keep(h.V6, netip.Addr.Is6)}
}

func (r *resolver) save(known map[string]hostAddrs) error {
	if r.cacheFile == "" {
		return nil
	}
	data, err := json.Marshal(known)
	if err == nil {
		err = durable.WriteFile(r.cacheFile, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("copy of the hosts' addresses: %w", err)
	}
	return nil
}

// restore adds the copy on disk to known.
func (r *resolver) restore(known map[string]hostAddrs) error {
	data, err := readBounded(r.cacheFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var saved map[string]hostAddrs
	if err == nil {
		err = json.Unmarshal(data, &saved)
	}
	if err != nil {
		return fmt.Errorf("copy of the hosts' addresses: %s: %w", r.cacheFile, err)
	}
	for host, h := range saved {
		if h = r.usable(h); h.first().IsValid() {
			known[host] = h
		}
	}
	return nil
}
