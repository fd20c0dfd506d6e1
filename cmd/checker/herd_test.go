package main

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meridian/builder/repodata"
	"meridian/checker"
	"meridian/checker/state"
	"meridian/mirrorlist"
	"meridian/mirrorlist/geo"
	"meridian/schema"
)

// What is promised of a checker with its default settings, at the size of a real
// network: see TestOnePublication.
const (
	promisedRate  = 1.0 // requests a second of each host, sustained
	promisedBurst = 600

	watchedEvery = 2 * time.Minute
	watchedFor   = 30 * time.Minute
	leftAlone    = 15 * time.Minute

	listedWithin = 2 * time.Minute // after the mirror was first asked and had it
	mostOfShare  = 3.0             // of its share of the bandwidth
)

// herdRepos are in herdArches each: 140 repositories.
const herdRepos = 28

var herdArches = []schema.Arch{"x86_64", "aarch64", "ppc64le", "s390x", "riscv64"}

// syncTimes are how often 255 mirrors of a real network sync.
var syncTimes = slices.Concat(
	slices.Repeat([]time.Duration{3 * time.Hour}, 145), slices.Repeat([]time.Duration{time.Hour}, 47),
	slices.Repeat([]time.Duration{2 * time.Hour}, 28), slices.Repeat([]time.Duration{4 * time.Hour}, 16),
	slices.Repeat([]time.Duration{6 * time.Hour}, 10), slices.Repeat([]time.Duration{12 * time.Hour}, 3),
	[]time.Duration{8 * time.Hour, 8 * time.Hour, 9 * time.Hour, 30 * time.Minute, 24 * time.Hour, 15 * time.Minute},
)

// herdCities are where mirrors and clients are: far enough apart to be bands of
// their own.
var herdCities = []struct {
	country  string
	lat, lon float64
}{
	{"DE", 52.5, 13.4}, {"FR", 43.3, 5.4}, {"US", 40.7, -74}, {"US", 37.8, -122.4}, {"BR", -23.5, -46.6}, {"JP", 35.7, 139.7}, {"IN", 19.1, 72.9}, {"ZA", -33.9, 18.4},
}

// A herd is a network of mirrors in memory, that sync by their own clocks.
type herd struct {
	t       *testing.T
	dir     string
	network *schema.Network
	keys    []state.Key
	mirrors []*herdMirror
	byAddr  map[string]*herdMirror
	before  map[string][]byte // of each path, what tier0 has
	after   map[string][]byte // and has after the publication
	servers sync.WaitGroup
}

type herdMirror struct {
	name, addr string
	city       int
	bandwidth  int
	frequency  time.Duration
	flips      time.Time // when it has the publication; zero: not in this test
	conns      chan net.Conn
	server     *http.Server

	mu  sync.Mutex // guards what follows
	log []herdRequest
}

type herdRequest struct {
	at   time.Time
	path string
}

func newHerd(t *testing.T, mirrors int) *herd {
	h := &herd{t: t, dir: t.TempDir(), byAddr: map[string]*herdMirror{}, before: map[string][]byte{}, after: map[string][]byte{}}
	var text strings.Builder
	fmt.Fprintf(&text, "config_version: 3\nallowed_outdate: 12h\nmirrors_dir: mirrors.d\nversions: [\"9.8\"]\narches: {\"9\": [%s]}\nrequired_protocols: [http]\nrepos:\n", joined(herdArches))
	for i := range herdRepos {
		fmt.Fprintf(&text, "  - {name: repo%02d, path: Repo%02d/$basearch/os/}\n", i, i)
	}
	files := map[string]string{"network.yml": text.String()}
	for i := range mirrors {
		m := &herdMirror{
			name: fmt.Sprintf("m%03d.example.org", i), addr: fmt.Sprintf("8.8.%d.%d:80", i/200, 1+i%200),
			city: i % len(herdCities), bandwidth: []int{100, 1000, 1000, 1000, 2000, 10000, 10000, 40000}[i/len(herdCities)%8],
			frequency: syncTimes[i*37%len(syncTimes)],
		}
		city := herdCities[m.city]
		files["mirrors.d/"+m.name+".yml"] = fmt.Sprintf("name: %s\naddress: {http: http://%s/}\nupdate_frequency: %dm\nbandwidth: %d\ngeolocation: {country: %s, latitude: %v, longitude: %v}\n",
			m.name, m.name, m.frequency/time.Minute, m.bandwidth, city.country, city.lat, city.lon)
		h.mirrors = append(h.mirrors, m)
		h.byAddr[m.addr], h.byAddr[m.name+":80"] = m, m
	}
	writeFiles(t, h.dir, files)
	tree, err := schema.ReadTree(filepath.Join(h.dir, "network.yml"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	h.network, h.keys = tree.Network, checker.Keys(tree.Network)
	for _, k := range h.keys {
		path := "/" + checker.RepoURL("", h.network, k)
		maps.Copy(h.before, generationFiles(path, k.String()+" before", 1_000_000_000))
		maps.Copy(h.after, generationFiles(path, k.String()+" after", 1_000_001_000))
	}
	maps.Copy(h.after, h.before) // the old metadata stays
	for _, k := range h.keys {
		path := "/" + checker.RepoURL("", h.network, k)
		maps.Copy(h.after, generationFiles(path, k.String()+" after", 1_000_001_000))
	}
	return h
}

func joined[T ~string](list []T) string {
	var all []string
	for _, s := range list {
		all = append(all, string(s))
	}
	return strings.Join(all, ", ")
}

// generationFiles are the metadata of a repository at path: more of all of them
// than a host may be asked for at once.
func generationFiles(path, content string, revision int64) map[string][]byte {
	md := &repodata.Repomd{Revision: strconv.FormatInt(revision, 10)}
	files := map[string][]byte{}
	for _, typ := range []string{"primary", "filelists", "other", "updateinfo"} {
		text := []byte(typ + " of " + content)
		sum := fmt.Sprintf("%x", sha256.Sum256(text))
		d := repodata.Data{Type: typ, Checksum: repodata.Checksum{Type: "sha256", Value: sum}, Location: "repodata/" + sum + "-" + typ + ".xml.gz", Timestamp: revision, Size: int64(len(text)), OpenSize: -1}
		md.Data = append(md.Data, d)
		files[path+d.Location] = text
	}
	files[path+"repodata/repomd.xml"] = md.Marshal()
	return files
}

// write puts what tier0 has onto the disk, with times of the bubble.
func (h *herd) write(files map[string][]byte) {
	h.t.Helper()
	for _, last := range []bool{false, true} {
		for path, text := range files {
			if strings.HasSuffix(path, "/repomd.xml") != last {
				continue
			}
			path = filepath.Join(h.dir, "tier0", path)
			err := os.MkdirAll(filepath.Dir(path), 0o755)
			err = errors.Join(err, os.WriteFile(path+".new", text, 0o644), os.Chtimes(path+".new", time.Now(), time.Now()), os.Rename(path+".new", path))
			if err != nil {
				h.t.Fatal(err)
			}
		}
	}
}

// serve starts the web server of each mirror.
func (h *herd) serve() {
	for _, m := range h.mirrors {
		m.conns = make(chan net.Conn) // of the bubble
		m.server = &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m.mu.Lock()
			m.log = append(m.log, herdRequest{time.Now(), r.URL.Path})
			m.mu.Unlock()
			files := h.before
			if !m.flips.IsZero() && !time.Now().Before(m.flips) {
				files = h.after
			}
			body, ok := files[r.URL.Path]
			if !ok {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.Header()["Content-Type"] = []string{"application/xml"}
			w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
			if r.Method != http.MethodHead {
				w.Write(body)
			}
		})}
		h.servers.Go(func() { m.server.Serve(&pipeListener{m.conns, make(chan struct{}), sync.Once{}}) })
	}
}

// Lookup and Dial are the network.
func (h *herd) Lookup(_ context.Context, network, host string) ([]netip.Addr, error) {
	if m := h.byAddr[host+":80"]; m != nil && !strings.HasSuffix(network, "6") {
		return []netip.Addr{netip.MustParseAddrPort(m.addr).Addr()}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func (h *herd) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	m := h.byAddr[address]
	if m == nil {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	select {
	case m.conns <- theirs:
		return &pipeConn{ours, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(m.addr))}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type pipeConn struct {
	net.Conn
	remote net.Addr
}

func (c *pipeConn) RemoteAddr() net.Addr { return c.remote }

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// A herdStore keeps what the checker writes, and when.
type herdStore struct {
	mu     sync.Mutex // guards what follows
	snap   *state.Snapshot
	listed map[string]time.Time // when each mirror was stored as having all of the publication
	newest func(state.Key) state.Hash256
}

func (s *herdStore) Load(context.Context) (*state.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snap, nil
}
func (s *herdStore) Acquire(context.Context) (time.Duration, error) { return 30 * time.Second, nil }
func (s *herdStore) Release(context.Context) error                  { return nil }
func (s *herdStore) History(context.Context, string, int) ([]state.Event, error) {
	return nil, nil
}
func (s *herdStore) Decisions(context.Context) ([]state.Decision, error) { return nil, nil }
func (s *herdStore) Decide(context.Context, []state.Decision) error      { return nil }

func (s *herdStore) Write(_ context.Context, c *state.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &state.Snapshot{Taken: c.Taken, Mirrors: maps.Clone(s.snap.Mirrors), Truth: maps.Clone(s.snap.Truth)}
	maps.Copy(next.Mirrors, c.Mirrors)
	maps.Copy(next.Truth, c.Truth)
	s.snap = next
	for name, st := range c.Mirrors {
		if _, ok := s.listed[name]; ok || st == nil {
			continue
		}
		fresh := 0
		for k, h := range st.Health {
			if t := next.Truth[k]; h == state.Fresh && t.Newest() != nil && t.Newest().SHA256 == s.newest(k) {
				fresh++
			}
		}
		if fresh == herdRepos*len(herdArches) {
			s.listed[name] = time.Now()
		}
	}
	return nil
}

// known is what a checker has written that knows all mirrors, and their health.
func (h *herd) known(now time.Time) *state.Snapshot {
	snap := &state.Snapshot{Taken: now, Mirrors: map[string]*state.Status{}, Truth: map[state.Key]state.Truth{}}
	health := map[state.Key]state.Health{}
	for _, k := range h.keys {
		text := h.before["/"+checker.RepoURL("", h.network, k)+"repodata/repomd.xml"]
		snap.Truth[k] = state.Truth{Confirmed: now, Generations: []state.Generation{{
			Revision: "1000000000", Timestamp: 1_000_000_000, Size: int64(len(text)), SHA256: sha256.Sum256(text), SHA512: sha512.Sum512(text), FirstSeen: now.Add(-24 * time.Hour),
		}}}
		health[k] = state.Fresh
	}
	for _, a := range herdArches {
		health[state.Key{Version: "9.8", Repo: "isos", Arch: a}] = state.Absent
	}
	for _, m := range h.mirrors {
		snap.Mirrors[m.name] = &state.Status{
			Health: maps.Clone(health), Visited: now.Add(-time.Minute), IPv4: state.Reached, Schemes: map[string]*state.Scheme{"http": {Works: state.Reached}},
		}
	}
	return snap
}

// A whole publication, at the size of a real network, with the default settings:
// no host is asked more than its budget; what a mirror got is listed within two
// minutes of the first question that it answers with it, which comes when it is
// due; and at no moment is a mirror sent more than three times the share of its
// band that its bandwidth is.
func TestOnePublication(t *testing.T) {
	mirrors, hours := 500, 3
	if raceEnabled || testing.Short() {
		mirrors, hours = 32, 2
	}
	h := newHerd(t, mirrors)
	var samples []*state.Snapshot
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		h.t = t
		samples = h.publication(time.Duration(hours) * time.Hour)
	})
	h.t = t
	h.checkBudgets()
	t.Logf("%d requests in %s", h.requests(), time.Since(began).Round(time.Second))
	h.checkShares(samples)
}

// publication lets a checker that knows the network see one.
func (h *herd) publication(d time.Duration) (samples []*state.Snapshot) {
	t := h.t
	h.write(h.before)
	h.serve()
	t.Cleanup(func() {
		for _, m := range h.mirrors {
			m.server.Close()
		}
		h.servers.Wait()
	})
	store := &herdStore{snap: h.known(time.Now()), listed: map[string]time.Time{}, newest: func(k state.Key) state.Hash256 {
		return sha256.Sum256(h.after["/"+checker.RepoURL("", h.network, k)+"repodata/repomd.xml"])
	}}
	c, err := checker.New(checker.Options{
		Settings: checker.Settings{
			Network: filepath.Join(h.dir, "network.yml"), Origin: checker.Origins{"main": {filepath.Join(h.dir, "tier0")}}, State: "dir:unused", CacheDir: filepath.Join(h.dir, "cache"),
		},
		Store: store, Log: slog.New(slog.DiscardHandler), Probe: checker.ProbeOptions{Dial: h.Dial, Lookup: h.Lookup},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- c.Run(ctx) }()
	time.Sleep(20 * time.Minute)

	published := time.Now()
	for i, m := range h.mirrors {
		// By its own clock; whoever would not sync in this test does not.
		if flips := published.Add(m.frequency * time.Duration(i*61%1000) / 1000); flips.Before(published.Add(d - 30*time.Minute)) {
			m.flips = flips
		}
	}
	h.write(h.after)
	const every = 6 * time.Minute
	for at := time.Duration(0); at < d; at += every {
		time.Sleep(every)
		synctest.Wait()
		snap, _ := store.Load(ctx)
		samples = append(samples, snap)
	}
	cancel()
	if err := <-end; err != nil {
		t.Error(err)
	}
	h.checkFlips(published, store.listed)
	return samples
}

// checkFlips compares what each mirror was asked with when it was listed.
func (h *herd) checkFlips(published time.Time, listed map[string]time.Time) {
	flipped, worstAsked, worstListed := 0, time.Duration(0), time.Duration(0)
	for _, m := range h.mirrors {
		if m.flips.IsZero() {
			continue
		}
		flipped++
		i := slices.IndexFunc(m.log, func(r herdRequest) bool {
			return !r.at.Before(m.flips) && strings.HasSuffix(r.path, "/repomd.xml")
		})
		if i < 0 {
			h.t.Errorf("%s is never asked after its flip", m.name)
			continue
		}
		asked := m.log[i].at
		// What the checker has promised to wait: it has seen the publication a minute
		// later at most.
		wait := max(min(m.frequency/4, leftAlone), watchedEvery)
		if asked.Before(published.Add(watchedFor)) {
			wait = watchedEvery + time.Minute
		}
		if late := asked.Sub(m.flips); late > wait {
			h.t.Errorf("%s flips %s after the publication, and is asked %s after that; want at most %s", m.name, m.flips.Sub(published), late, wait)
		}
		at, ok := listed[m.name]
		if !ok {
			h.t.Errorf("%s flips %s after the publication, and is never listed", m.name, m.flips.Sub(published))
			continue
		}
		worstAsked, worstListed = max(worstAsked, asked.Sub(m.flips)), max(worstListed, at.Sub(asked))
		if late := at.Sub(asked); late > listedWithin {
			h.t.Errorf("%s has shown the publication, and is listed %s later; want at most %s", m.name, late, listedWithin)
		}
	}
	h.t.Logf("%d of %d mirrors flip; asked after %s, listed after %s more at most", flipped, len(h.mirrors), worstAsked.Round(time.Second), worstListed.Round(time.Second))
	if flipped < len(h.mirrors)/3 {
		h.t.Errorf("only %d mirrors take part", flipped)
	}
}

func (h *herd) requests() (n int) {
	for _, m := range h.mirrors {
		n += len(m.log)
	}
	return n
}

// checkBudgets replays the log of each host against what is promised.
func (h *herd) checkBudgets() {
	least := promisedBurst + 0.0
	for _, m := range h.mirrors {
		tokens, at := float64(promisedBurst), time.Time{}
		for _, r := range m.log {
			if !at.IsZero() {
				tokens = min(tokens+r.at.Sub(at).Seconds()*promisedRate, promisedBurst)
			}
			at = r.at
			tokens--
			least = min(least, tokens)
			if tokens < 0 {
				h.t.Errorf("%s is asked too much: its bucket is empty at %s, after %d requests", m.name, r.at.Format(time.TimeOnly), len(m.log))
				break
			}
		}
	}
	h.t.Logf("of the %d requests that a host may be asked at once, %.0f were left at least", promisedBurst, least)
}

// herdClients are networks of clients in each city, at most 4096: networkOf has as
// many.
const herdClients = 1000

func networkOf(city int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(city << 4)}), 12)
}

func clientOf(city, i int) netip.Addr {
	return netip.AddrFrom4([4]byte{11, byte(city<<4 + i>>8), byte(i), 1})
}

// tooMany tells whether n of the clients are more than mostOfShare times what is
// fair; what chance gives to one mirror of many is not the server's doing.
func tooMany(n int, fair float64) (ofBound float64, is bool) {
	most := mostOfShare*fair + 4*math.Sqrt(mostOfShare*fair) + 3
	return float64(n) / most, float64(n) > most
}

// checkShares asks a mirrorlist server at each moment for many clients of each
// city, and adds up who is first.
func (h *herd) checkShares(samples []*state.Snapshot) {
	t := h.t
	bandwidth := map[int]float64{}
	mirror := map[string]*herdMirror{}
	for _, m := range h.mirrors {
		bandwidth[m.city] += float64(m.bandwidth)
		mirror[m.name] = m
	}
	writeFiles(t, h.dir, map[string]string{"places.mmdb": "its records are made by the test"})
	records := func() iter.Seq[geo.Record] {
		return func(yield func(geo.Record) bool) {
			for i, c := range herdCities {
				place := &geo.Place{Country: [2]byte([]byte(c.country)), Lat: c.lat, Lon: c.lon, HasCoordinates: true}
				if !yield(geo.Record{Prefix: networkOf(i), Place: place}) {
					return
				}
			}
		}
	}
	worst, worstFresh, states := 0.0, 0.0, map[int]bool{}
	for _, snap := range samples {
		s, err := mirrorlist.New(t.Context(), mirrorlist.Options{
			Config: mirrorlist.Config{Network: filepath.Join(h.dir, "network.yml"), Geo: mirrorlist.Geo{Location: filepath.Join(h.dir, "places.mmdb")}, TrustedProxies: []string{"192.0.2.1"}, CacheDir: filepath.Join(h.dir, "lists")},
			Log:    slog.New(slog.DiscardHandler), Source: fixed{snap}, Now: func() time.Time { return snap.Taken },
			Compile: func(_ context.Context, _, out string) error { return geo.Write(out, "herd", snap.Taken, records()) },
		})
		if err != nil {
			t.Fatal(err)
		}
		handler, _ := s.Handlers()
		fresh := 0
		for _, st := range snap.Mirrors {
			if st.Health[h.keys[0]] == state.Fresh {
				fresh++
			}
		}
		states[fresh*10/len(h.mirrors)] = true
		for city := range herdCities {
			first := map[string]int{}
			for i := range herdClients {
				r := httptest.NewRequest(http.MethodGet, "/mirrorlist/9.8/repo00?arch=x86_64", nil)
				r.RemoteAddr = "192.0.2.1:1000"
				r.Header.Set("X-Forwarded-For", clientOf(city, i).String())
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)
				line, _, _ := strings.Cut(w.Body.String(), "\n")
				name, _, _ := strings.Cut(strings.TrimPrefix(line, "http://"), "/")
				if mirror[name] == nil || mirror[name].city != city {
					t.Fatalf("a client in city %d is sent to %q (status %d)", city, line, w.Code)
				}
				first[name]++
			}
			// Each mirror, and the fresh ones together: of these chance hides less.
			freshFirst, freshBandwidth := 0, 0.0
			for _, m := range h.mirrors {
				if m.city != city {
					continue
				}
				fair := float64(m.bandwidth) / bandwidth[city] * herdClients
				near, is := tooMany(first[m.name], fair)
				if worst = max(worst, near); is {
					t.Errorf("%s: %s is first for %d of %d clients, and has %.1f %% of the bandwidth of its band (%d %% of the mirrors are fresh)",
						snap.Taken.Format(time.TimeOnly), m.name, first[m.name], herdClients, 100*fair/herdClients, 100*fresh/len(h.mirrors))
				}
				if snap.Mirrors[m.name].Health[h.keys[0]] == state.Fresh {
					freshFirst, freshBandwidth = freshFirst+first[m.name], freshBandwidth+float64(m.bandwidth)
				}
			}
			near, is := tooMany(freshFirst, freshBandwidth/bandwidth[city]*herdClients)
			if worstFresh = max(worstFresh, near); is {
				t.Errorf("%s: the fresh mirrors of city %d are first for %d of %d clients, and have %.1f %% of the bandwidth",
					snap.Taken.Format(time.TimeOnly), city, freshFirst, herdClients, 100*freshBandwidth/bandwidth[city])
			}
		}
	}
	t.Logf("%d moments, tenths of mirrors fresh: %v; no mirror comes nearer to the bound than %.2f of it, and the fresh together %.2f", len(samples), slices.Sorted(maps.Keys(states)), worst, worstFresh)
	if len(states) < 4 {
		t.Errorf("the moments show %d states of the publication, want some of each part of it", len(states))
	}
}

// fixed are findings that stay.
type fixed struct{ snap *state.Snapshot }

func (f fixed) Load(context.Context) (*state.Snapshot, error) { return f.snap, nil }
