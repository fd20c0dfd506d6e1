package mirrorlist

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeebo/xxh3"

	"meridian/checker/state"
	"meridian/mirrorlist/geo"
	"meridian/schema"
)

// A world is a random network with everything that a decision depends on, in the
// form in which people and the checker write it.
type world struct {
	seed    uint64
	in      inputs
	records []geo.Record
	now     time.Time
	limit   int
	live    bool // the snapshot is believed

	// What the naive decision finds out once for each mirror.
	spots map[string]spot
}

type spot struct {
	country  string
	lat, lon float64
	known    bool
	asn      uint32
}

var (
	worldVersions  = []string{"9", "9.8", "9.99-beta", "10", "10.2", "10-kitten"}
	worldRepos     = []string{"baseos", "nfv", "source"}
	worldArches    = []string{"", "x86_64", "x86_64_v2", "aarch64", "s390x"}
	worldCountries = []string{"DE", "FR", "US", "JP", "BR", "GB"}
	worldAgents    = []string{
		"", "curl/8.0",
		"libdnf (Distro 9.8; generic; Linux.x86_64)",
		"libdnf (Distro 9.8; generic; Linux.aarch64)",
		"libdnf (Distro 9.8; generic; Linux.riscv64)",
	}
)

func worldNetwork(t testing.TB) *schema.Network {
	t.Helper()
	n, problems := schema.ParseNetwork("network.yml", []byte(`
config_version: 3
versions: ["9", "9.8", "10", "10.2"]
duplicated_versions: {"9": "9.8", "10": "10.2"}
optional_module_versions: {kitten: ["10"]}
vault_versions: ["9.7"]
vault_mirror: https://vault.example.org/
arches:
  "9": [x86_64, aarch64, s390x]
  "10": [x86_64, x86_64_v2, aarch64, s390x]
  10-kitten: [x86_64, x86_64_v2, aarch64]
required_protocols: [http, https]
repos:
  - {name: baseos, path: BaseOS/$basearch/os/}
  - {name: nfv, path: NFV/$basearch/os/, arches: [x86_64]}
  - {name: source, path: Source/}
  - {name: old-source, path: Old/Source/, vault: true}
`))
	if n == nil || len(problems) > 0 {
		t.Fatalf("the network of the test: %v", problems)
	}
	return n
}

func pickOne[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// newWorld makes a random network of n mirrors.
func newWorld(t testing.TB, seed uint64, n int) *world {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	w := &world{seed: seed, now: time.Unix(1_800_000_000+r.Int64N(1e7), 0)}
	w.in = inputs{
		network: worldNetwork(t), secret: r.Uint64(), served: map[state.Key]*atomic.Uint64{},
		subnets: map[string][]netip.Prefix{}, clouds: map[string][]cloudRange{}, hosts: map[string]hostAddrs{},
	}
	w.limit = pickOne(r, []int{1, 2, 3, 4, 5, 10, 10, 10, 20, 100})

	// 64 /16 networks of IPv4 and 32 of IPv6, around a few cities.
	cities := make([]*geo.Place, 12)
	for i := range cities {
		p := &geo.Place{Lat: r.Float64()*180 - 90, Lon: r.Float64()*360 - 180, HasCoordinates: r.IntN(8) > 0}
		if r.IntN(6) > 0 {
			copy(p.Country[:], pickOne(r, worldCountries))
		}
		cities[i] = p
	}
	record := func(prefix string) {
		rec := geo.Record{Prefix: netip.MustParsePrefix(prefix)}
		if r.IntN(8) > 0 {
			rec.Place = pickOne(r, cities)
		}
		if r.IntN(4) > 0 {
			rec.ASN = 64500 + r.Uint32N(6)
		}
		if rec.Place != nil || rec.ASN != 0 {
			w.records = append(w.records, rec)
		}
	}
	for i := range 64 {
		record(fmt.Sprintf("20.%d.0.0/16", i))
	}
	for i := range 32 {
		record(fmt.Sprintf("2001:%x::/32", 0x1000+i))
	}
	if seed%5 != 0 { // else there is no database
		w.in.db = openRecords(t, w.records)
	} else {
		w.records = nil
	}

	for _, cloud := range []string{"aws", "gcp"} {
		for range 6 {
			w.in.clouds[cloud] = append(w.in.clouds[cloud], cloudRange{randomPrefix(r), pickOne(r, []string{"east", "west", ""})})
		}
	}
	for i := range n {
		w.addMirror(r, i)
	}
	w.addFindings(r)
	for range r.IntN(3) {
		w.in.fallback = append(w.in.fallback, pickOne(r, w.in.mirrors).Name)
	}
	w.spots = map[string]spot{}
	for _, m := range w.in.mirrors {
		w.spots[m.Name] = w.spotOf(m)
	}
	return w
}

func openRecords(t testing.TB, records []geo.Record) *geo.DB {
	t.Helper()
	path := filepath.Join(t.TempDir(), "geo")
	if err := geo.Write(path, "Test-Location-ASN", time.Unix(1_790_000_000, 0), slices.Values(records)); err != nil {
		t.Fatal(err)
	}
	db, err := geo.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// randomPrefix returns a network around, or within, one of the records.
func randomPrefix(r *rand.Rand) netip.Prefix {
	a, bits := randomAddr(r), 10+r.IntN(23)
	if a.Is6() {
		bits = 28 + r.IntN(101)
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// randomAddr returns an address of few, so that prefixes of each other's
// neighbourhood meet.
func randomAddr(r *rand.Rand) netip.Addr {
	if r.IntN(3) == 0 {
		return netip.MustParseAddr(fmt.Sprintf("2001:%x:%x::%x", 0x1000+r.IntN(40), r.IntN(2), r.IntN(3)))
	}
	return netip.AddrFrom4([4]byte{20, byte(r.IntN(80)), byte(r.IntN(2) * 128), byte(r.IntN(4))})
}

func (w *world) addMirror(r *rand.Rand, i int) {
	m := &schema.Mirror{
		Name: fmt.Sprintf("m%03d.example.org", i), Email: fmt.Sprintf("admin%03d@private.example", i),
		Bandwidth: pickOne(r, []int{100, 1000, 1000, 1000, 10000}), Anycast: r.IntN(12) == 0,
	}
	address := func(dir string) (a schema.Address) {
		scheme := r.IntN(8)
		if scheme != 0 {
			a.HTTP = "http://" + m.Name + dir
		}
		if scheme > 2 || scheme == 0 {
			a.HTTPS = "https://" + m.Name + dir
		}
		if r.IntN(20) == 0 {
			a = schema.Address{Rsync: "rsync://" + m.Name + dir}
		}
		return a
	}
	m.Address = address("/distro/")
	if r.IntN(2) == 0 {
		m.AddressOptional = map[string]schema.Address{"kitten": address("/kitten/")}
	}
	if r.IntN(5) > 0 {
		m.Location.Country = pickOne(r, worldCountries)
	}
	if r.IntN(2) == 0 {
		m.Location.Latitude, m.Location.Longitude, m.Location.HasCoordinates = r.Float64()*180-90, r.Float64()*360-180, true
	}
	switch r.IntN(12) {
	case 0:
		m.CloudType = pickOne(r, []string{"aws", "gcp"})
		if m.AllRegions = r.IntN(2) == 0; !m.AllRegions {
			m.CloudRegions = []string{pickOne(r, []string{"east", "west"})}
		}
	case 1:
		m.Private = true
	}
	m.Monopoly = r.IntN(12) == 0
	if r.IntN(5) == 0 || m.Private {
		for range 1 + r.IntN(2) {
			m.Subnets = append(m.Subnets, randomPrefix(r))
		}
		if r.IntN(3) == 0 {
			w.in.subnets[m.Name] = []netip.Prefix{randomPrefix(r)}
		}
	}
	if r.IntN(8) == 0 {
		m.ASN = []uint32{64500 + r.Uint32N(6)}
	}
	if r.IntN(8) == 0 {
		m.Carries.Versions = []schema.Version{pickOne(r, []schema.Version{"9", "10", "10-kitten"})}
	}
	if r.IntN(8) == 0 {
		m.Carries.Arches = []schema.Arch{pickOne(r, []schema.Arch{"x86_64", "aarch64"})}
	}
	m.Carries.NoISOs = r.IntN(8) == 0
	if r.IntN(4) > 0 {
		var h hostAddrs
		if r.IntN(5) > 0 {
			h.V4 = []netip.Addr{netip.AddrFrom4([4]byte{20, byte(r.IntN(80)), 1, 1})}
		}
		if r.IntN(3) == 0 {
			h.V6 = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("2001:%x::80", 0x1000+r.IntN(40)))}
		}
		if h.first().IsValid() {
			w.in.hosts[m.Name] = h
		}
	}
	w.in.mirrors = append(w.in.mirrors, m)
}

// addFindings invents what a checker says: nothing, something old, or something
// new; of some repositories that all mirrors are bad.
func (w *world) addFindings(r *rand.Rand) {
	if r.IntN(4) == 0 {
		return
	}
	w.live = r.IntN(5) > 0
	snap := &state.Snapshot{Taken: w.now.Add(-time.Minute), Mirrors: map[string]*state.Status{}, Truth: map[state.Key]state.Truth{}}
	w.in.snap = snap
	var keys []state.Key
	for _, v := range []schema.Version{"9.8", "10.2", "10-kitten"} {
		for _, a := range worldArches[1:] {
			keys = append(keys, state.Key{Version: v, Repo: "baseos", Arch: schema.Arch(a)})
			keys = append(keys, state.Key{Version: v, Repo: "nfv", Arch: schema.Arch(a)})
		}
		keys = append(keys, state.Key{Version: v, Repo: "source"})
	}
	good := []state.Health{
		state.Fresh, state.Fresh, state.Fresh, state.Lagging, state.Lagging, state.Lagging, state.Ahead, state.Unprobed, state.Unknown,
	}
	bad := []state.Health{state.Stale, state.Broken, state.Absent, state.Down, state.Pending}
	w.in.network.AllowedOutdate = 24 * time.Hour
	for _, k := range keys {
		t := state.Truth{Expired: r.IntN(4) == 0}
		for i, age := range []time.Duration{time.Hour, 10 * time.Hour, 40 * time.Hour, 90 * time.Hour} {
			g := state.Generation{FirstSeen: w.now.Add(-age), Expired: i > 0 && r.IntN(4) == 0}
			g.SHA256[0] = byte(i)
			t.Generations = append(t.Generations, g)
		}
		snap.Truth[k] = t
	}
	allBad := map[state.Key]bool{}
	for _, k := range keys {
		allBad[k] = r.IntN(10) == 0
	}
	for _, m := range w.in.mirrors {
		if r.IntN(15) == 0 {
			continue
		}
		st := &state.Status{Health: map[state.Key]state.Health{}, Holds: map[state.Key]state.GenerationID{}, IPv6: state.Reach(r.IntN(3))}
		if r.IntN(8) == 0 {
			st.Override = &state.Override{Disabled: r.IntN(3) == 0, Draining: r.IntN(2) == 0, Withdrawn: []state.Key{pickOne(r, keys)}}
			if r.IntN(2) == 0 {
				st.Override.Weight = pickOne(r, []int{1, 50, 1000, 40_000})
			}
			if r.IntN(3) == 0 {
				st.Override.Until = w.now.Add(time.Duration(r.IntN(3)-1) * time.Hour)
			}
		}
		if r.IntN(8) == 0 {
			st.Schemes = map[string]*state.Scheme{"http": {Works: state.Reach(r.IntN(3))}, "https": {Works: state.Reach(r.IntN(3))}}
		}
		for _, k := range keys {
			if r.IntN(2) == 0 {
				st.Holds[k] = state.GenerationID{byte(r.IntN(6))} // some of them not known
			}
			switch n := r.IntN(100); {
			case allBad[k] || n < 6:
				st.Health[k] = pickOne(r, bad)
			case n < 98:
				st.Health[k] = pickOne(r, good)
			}
		}
		snap.Mirrors[m.Name] = st
	}
}

// table makes the table of a world, as a keeper does.
func (w *world) table(withOrders bool) *Table {
	g := newGeometry(&w.in)
	t := &Table{geometry: g, limit: w.limit, secret: w.in.secret, fallback: newSet(len(g.mirrors))}
	if withOrders && g.db.HasLocation() {
		t.orders = ordersFor(g)
	}
	for _, name := range w.in.fallback {
		t.fallback.add(g.byName[name])
	}
	t.findings = newFindings(g, w.in.snap, w.live, w.now)
	t.draws = draws(nil).next(w.now, g.names, t.weights, w.in.secret)
	return t
}

func ordersFor(g *geometry) *orders {
	return newOrders(g.db.Places(), func(i int) (site, bool) {
		s := g.siteOf(uint32(i))
		return s, s.country != [2]byte{}
	}, g.seats)
}

// An enquiry is a random request.
type enquiry struct {
	version, repo, arch, agent string
	protocol, country          string
	iso                        bool
	addr                       netip.Addr
	now                        time.Time
}

func (w *world) enquiry(r *rand.Rand) enquiry {
	e := enquiry{
		version: pickOne(r, worldVersions), repo: pickOne(r, worldRepos), arch: pickOne(r, worldArches), agent: pickOne(r, worldAgents),
		now: w.now.Add(time.Duration(r.IntN(int(drawsAhead/time.Second))) * time.Second),
	}
	if r.IntN(3) == 0 {
		e.protocol = pickOne(r, []string{"http", "https"})
	}
	if r.IntN(4) == 0 {
		e.country = pickOne(r, append([]string{"ZZ", "de", "UK"}, worldCountries...))
	}
	if r.IntN(10) == 0 {
		e.iso, e.arch = true, pickOne(r, worldArches[1:])
	}
	if r.IntN(20) > 0 {
		e.addr = randomAddr(r)
	}
	return e
}

// ask turns an enquiry into a question; refused when there is no such list.
func (e enquiry) ask(t *Table) (q question, refused bool) {
	p := params{arch: e.arch, protocol: e.protocol, country: e.country}
	var no *refusal
	if e.iso {
		q, _, no = t.isoRequest(e.version, e.arch, p)
	} else {
		q, _, no = t.listRequest(e.version, e.repo, e.agent, p)
	}
	q.client, q.limit, q.now = knownClient(e.addr, t.secret), t.limit, e.now
	return q, no != nil
}

// The naive decision. It knows nothing of tables, sets, bands that were computed
// before, or orders: it looks at every mirror, and sorts.

func (w *world) recordOf(a netip.Addr) geo.Record {
	for _, r := range w.records {
		if a.IsValid() && r.Prefix.Contains(a) {
			return r
		}
	}
	return geo.Record{}
}

func countryOf(p *geo.Place) string {
	if p == nil {
		return ""
	}
	return strings.TrimRight(string(p.Country[:]), "\x00")
}

// spotOf says where a mirror is.
func (w *world) spotOf(m *schema.Mirror) (s spot) {
	first := w.in.hosts[m.Name].first()
	if m.Address.HTTP == "" && m.Address.HTTPS == "" {
		first = netip.Addr{} // no URL to take a host from
	}
	rec := w.recordOf(first)
	s.country = cmp.Or(m.Location.Country, countryOf(rec.Place))
	if !m.Anycast {
		s.asn = rec.ASN
	}
	switch {
	case m.Location.HasCoordinates:
		s.lat, s.lon, s.known = m.Location.Latitude, m.Location.Longitude, true
	case rec.Place != nil && rec.Place.HasCoordinates && countryOf(rec.Place) == s.country:
		s.lat, s.lon, s.known = rec.Place.Lat, rec.Place.Lon, true
	default:
		s.lat, s.lon, s.known = schema.Centroid(s.country)
	}
	return s
}

// subject is what an enquiry is about, by name.
type subject struct {
	version schema.Version
	module  string
	path    string
	arches  []schema.Arch // whose health and promises count
	keys    []state.Key
	suffix  string
}

func (w *world) subjectOf(e enquiry) (s subject, ok bool) {
	s.version = map[string]schema.Version{"9": "9.8", "9.8": "9.8", "9.99-beta": "9.8", "10": "10.2", "10.2": "10.2", "10-kitten": "10-kitten"}[e.version]
	has := map[schema.Version][]schema.Arch{
		"9.8": {"x86_64", "aarch64", "s390x"}, "10.2": {"x86_64", "x86_64_v2", "aarch64", "s390x"}, "10-kitten": {"x86_64", "x86_64_v2", "aarch64"},
	}[s.version]
	if s.version == "10-kitten" {
		s.module = "kitten"
	}
	if e.arch != "" && !slices.Contains(has, schema.Arch(e.arch)) {
		return s, false
	}
	if e.iso {
		s.arches = []schema.Arch{schema.Arch(e.arch)}
		s.keys = []state.Key{{Version: s.version, Repo: "isos", Arch: schema.Arch(e.arch)}}
		s.suffix = string(s.version) + "/isos/" + e.arch
		return s, true
	}
	path := map[string]string{"baseos": "BaseOS/$basearch/os/", "nfv": "NFV/$basearch/os/", "source": "Source/"}[e.repo]
	s.suffix = string(s.version) + "/" + path
	built := has
	if e.repo == "nfv" {
		built = []schema.Arch{"x86_64"}
	}
	agent := ""
	if w.in.snap != nil && strings.HasPrefix(e.agent, "libdnf") {
		agent = strings.TrimSuffix(e.agent[strings.LastIndex(e.agent, ".")+1:], ")")
	}
	both := []schema.Arch{"x86_64", "x86_64_v2"}
	checked := built
	switch {
	case e.arch != "":
		s.arches, checked = []schema.Arch{schema.Arch(e.arch)}, []schema.Arch{schema.Arch(e.arch)}
		s.suffix = strings.ReplaceAll(s.suffix, "$basearch", e.arch)
	case agent == "x86_64":
		s.arches = slices.DeleteFunc(slices.Clone(has), func(a schema.Arch) bool { return !slices.Contains(both, a) })
		checked = slices.DeleteFunc(slices.Clone(built), func(a schema.Arch) bool { return !slices.Contains(both, a) })
	case slices.Contains(has, schema.Arch(agent)):
		s.arches, checked = []schema.Arch{schema.Arch(agent)}, []schema.Arch{schema.Arch(agent)}
	default:
		s.arches = built
	}
	if e.repo == "source" { // the same for all
		s.keys = []state.Key{{Version: s.version, Repo: "source"}}
	} else {
		for _, a := range checked {
			if !slices.Contains(built, a) {
				continue // by the network file there is no such repository
			}
			s.keys = append(s.keys, state.Key{Version: s.version, Repo: e.repo, Arch: a})
		}
	}
	return s, true
}

// nominee is a mirror that may be listed, and what its position depends on, most
// important first.
type nominee struct {
	m     *schema.Mirror
	group [4]int
	last  bool
	sunk  bool
	other bool // not in the client's ASN
	score float32
}

// near says how a mirror serves the network of an address: by which tier, and in
// it by a prefix of how many bits.
func (w *world) near(m *schema.Mirror, addr netip.Addr) (tier, bits int, ok bool) {
	if !addr.IsValid() {
		return 0, 0, false
	}
	for _, p := range slices.Concat(m.Subnets, w.in.subnets[m.Name]) {
		if p.Contains(addr) && (!ok || p.Bits() > bits) {
			bits, ok = p.Bits(), true
		}
	}
	if ok {
		return 0, bits, true
	}
	tier = 9
	for _, r := range w.in.clouds[m.CloudType] {
		switch {
		case !r.Prefix.Contains(addr):
		case slices.Contains(m.CloudRegions, r.Region):
			tier = 1
		case m.AllRegions:
			tier = min(tier, 2)
		}
	}
	if tier < 9 {
		return tier, 0, true
	}
	asn := w.recordOf(addr).ASN
	return 3, 0, !m.Anycast && asn != 0 && slices.Contains(m.ASN, asn)
}

func (w *world) naive(e enquiry) (urls []string, ok bool) {
	s, ok := w.subjectOf(e)
	if !ok {
		return nil, false
	}
	client := w.recordOf(e.addr)
	country := countryOf(client.Place)
	var lat, lon float64
	var known bool
	if client.Place != nil {
		lat, lon, known = client.Place.Lat, client.Place.Lon, client.Place.HasCoordinates
		if !known {
			lat, lon, known = schema.Centroid(country)
		}
	}
	wanted := strings.ToUpper(e.country)
	if wanted == "UK" {
		wanted = "GB"
	}

	status := func(m *schema.Mirror) *state.Status {
		if w.in.snap == nil || w.in.snap.Mirrors[m.Name] == nil {
			return &state.Status{}
		}
		return w.in.snap.Mirrors[m.Name]
	}
	base := func(m *schema.Mirror) schema.Address {
		a := m.Address
		if s.module != "" {
			a = m.AddressOptional[s.module]
		}
		works := a
		if ways := status(m).Schemes; ways != nil && w.live {
			if ways["http"].Works == state.Unreached {
				works.HTTP = ""
			}
			if ways["https"].Works == state.Unreached {
				works.HTTPS = ""
			}
		}
		if works.HTTP == "" && works.HTTPS == "" {
			return a
		}
		return works
	}
	decided := func(m *schema.Mirror) state.Override {
		o := status(m).Override
		if o == nil || !o.Until.IsZero() && !o.Until.After(w.now) {
			return state.Override{}
		}
		return *o
	}
	weight := func(m *schema.Mirror) int { return cmp.Or(decided(m).Weight, m.Bandwidth) }
	// held is the generation that a mirror lags behind with; -1: not known.
	held := func(m *schema.Mirror, k state.Key) int {
		id, ok := status(m).Holds[k]
		if n := int(id[0]); ok && n > 0 && n < 4 {
			return n
		}
		return -1
	}
	carries := func(m *schema.Mirror) bool {
		if b := base(m); b.HTTP == "" && b.HTTPS == "" || e.iso && m.Carries.NoISOs {
			return false
		}
		if v := m.Carries.Versions; len(v) > 0 && v[0] != s.version && !(s.module == "" && strings.HasPrefix(string(s.version), string(v[0])+".")) {
			return false
		}
		for _, a := range s.arches {
			if c := m.Carries.Arches; len(c) > 0 && !slices.Contains(c, a) {
				return false
			}
		}
		return true
	}
	has := func(m *schema.Mirror, protocol string) bool {
		b := base(m)
		return protocol == "" && (b.HTTP != "" || b.HTTPS != "") || protocol == "http" && b.HTTP != "" || protocol == "https" && b.HTTPS != ""
	}
	public := func(m *schema.Mirror) bool { return !m.Private && m.CloudType == "" }
	health := func(m *schema.Mirror, k state.Key) state.Health {
		if w.in.snap == nil {
			return state.Unknown
		}
		var h state.Health
		found := false
		if st := w.in.snap.Mirrors[m.Name]; st != nil {
			h, found = st.Health[k]
		}
		switch {
		case !w.live && h != state.Broken:
			return state.Unknown
		case found && h == state.Lagging && held(m, k) >= 0 && w.in.snap.Truth[k].Generations[held(m, k)-1].FirstSeen.Add(24*time.Hour).Before(w.now):
			return state.Stale
		case found:
			return h
		case k.Repo == "isos":
			return state.Unknown
		case public(m):
			return state.Pending
		}
		return state.Unprobed
	}
	all := func(m *schema.Mirror, good func(h state.Health) bool) bool {
		for _, k := range s.keys {
			if !good(health(m, k)) {
				return false
			}
		}
		return true
	}
	taken := func(m *schema.Mirror) bool {
		return w.in.snap != nil && (decided(m).Disabled || slices.ContainsFunc(s.keys, func(k state.Key) bool { return slices.Contains(decided(m).Withdrawn, k) }))
	}
	drains := func(m *schema.Mirror) bool { return decided(m).Draining && !decided(m).Disabled }
	listable := func(m *schema.Mirror) bool { return carries(m) && !taken(m) && all(m, state.Health.Listable) }
	lags := func(m *schema.Mirror) bool { return !all(m, func(h state.Health) bool { return h != state.Lagging }) }
	expired := func(m *schema.Mirror) bool {
		return slices.ContainsFunc(s.keys, func(k state.Key) bool {
			if health(m, k) != state.Lagging {
				return false
			}
			t := w.in.snap.Truth[k]
			return t.Expired || held(m, k) >= 0 && t.Generations[held(m, k)].Expired
		})
	}

	hash := knownClient(e.addr, w.in.secret).hash
	class := int64(hash % 4096)
	hour := (e.now.Unix() + class*3600/4096) / 3600
	score := func(m *schema.Mirror) float32 {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], xxh3.HashString(m.Name))
		binary.LittleEndian.PutUint64(b[8:], uint64(hour<<16|class))
		u := (float64(xxh3.HashSeed(b[:], w.in.secret)>>11) + 0.5) / (1 << 53)
		return float32(-math.Log(u) * (1 / float64(weight(m))))
	}
	coin := (&draw{hour: hour}).coin(int(class))

	nominate := func(m *schema.Mirror, group ...int) (n nominee) {
		n = nominee{m: m, last: m.Anycast, other: client.ASN == 0 || w.spots[m.Name].asn != client.ASN || m.Anycast, score: score(m)}
		copy(n.group[:], group)
		return n
	}
	order := func(list []nominee, freshFirst bool) []nominee {
		one := func(b bool) int {
			if b {
				return 1
			}
			return 0
		}
		for i := range list {
			fresh, total := 0, 0
			for _, n := range list {
				if n.group == list[i].group {
					total += weight(n.m)
					if !lags(n.m) {
						fresh += weight(n.m)
					}
				}
			}
			share := (float64(fresh)/float64(total) - 0.3) / (0.6 - 0.3)
			list[i].sunk = freshFirst && lags(list[i].m) && coin < share
		}
		slices.SortStableFunc(list, func(a, b nominee) int {
			return cmp.Or(slices.Compare(a.group[:], b.group[:]), one(a.last)-one(b.last), one(a.sunk)-one(b.sunk),
				one(a.other)-one(b.other), cmp.Compare(a.score, b.score))
		})
		return list
	}
	url := func(m *schema.Mirror) string {
		b := base(m)
		if e.protocol == "https" && b.HTTPS != "" || b.HTTP == "" {
			return b.HTTPS + s.suffix
		}
		return b.HTTP + s.suffix
	}

	// Monopolies: the nearest tier, then the longest prefix, then the draw.
	var alone []nominee
	for _, m := range w.in.mirrors {
		if tier, bits, ok := w.near(m, e.addr); ok && m.Monopoly && !e.iso && !drains(m) && listable(m) {
			// One that is reachable in two ways counts by the nearer.
			alone = append(alone, nominee{m: m, group: [4]int{tier, -bits}, score: score(m)})
		}
	}
	if len(alone) > 0 {
		slices.SortStableFunc(alone, func(a, b nominee) int {
			return cmp.Or(slices.Compare(a.group[:], b.group[:]), cmp.Compare(a.score, b.score))
		})
		return []string{url(alone[0].m)}, true
	}

	listWith := func(protocol string, onNet bool) (list []nominee) {
		for _, m := range w.in.mirrors {
			if !listable(m) || !has(m, protocol) {
				continue
			}
			away := wanted != "" && w.spots[m.Name].country != wanted
			if tier, bits, ok := w.near(m, e.addr); onNet && ok && !away && !drains(m) && (public(m) || !e.iso) {
				list = append(list, nominate(m, -2, tier, -bits))
				continue
			}
			if !public(m) {
				continue
			}
			pass, rank := 0, 0
			if away {
				pass = 1
			}
			if expired(m) || drains(m) {
				pass += 2
			}
			if country != "" {
				at := w.spots[m.Name]
				rank = 50
				if at.known && known {
					rank = int(schema.Distance(lat, lon, at.lat, at.lon)) / 500
				}
				if at.country != country {
					rank += 100
				}
			}
			list = append(list, nominate(m, pass, rank))
		}
		return order(list, true)
	}
	lastResort := func(protocol string, among func(m *schema.Mirror) bool) (list []nominee) {
		for _, m := range w.in.mirrors {
			if public(m) && carries(m) && !taken(m) && has(m, protocol) && among(m) && all(m, func(h state.Health) bool { return h != state.Broken }) {
				list = append(list, nominate(m))
			}
		}
		return order(list, false)
	}
	fallback := func(m *schema.Mirror) bool { return slices.Contains(w.in.fallback, m.Name) }
	anybody := func(*schema.Mirror) bool { return true }

	var list []nominee
	for _, attempt := range []func() []nominee{
		func() []nominee { return listWith(e.protocol, true) },
		func() []nominee { return lastResort(e.protocol, fallback) },
		func() []nominee { return lastResort(e.protocol, anybody) },
		func() []nominee { return listWith("", false) },
		func() []nominee { return lastResort("", fallback) },
		func() []nominee { return lastResort("", anybody) },
	} {
		if list = attempt(); len(list) > 0 {
			break
		}
	}

	// Two of the first four over IPv6.
	within := min(4, w.limit)
	six := func(n nominee) bool {
		reach := state.Untested
		if w.in.snap != nil && w.in.snap.Mirrors[n.m.Name] != nil {
			reach = w.in.snap.Mirrors[n.m.Name].IPv6
		}
		b := n.m.Address
		return reach == state.Reached || reach == state.Untested && (b.HTTP != "" || b.HTTPS != "") && len(w.in.hosts[n.m.Name].V6) > 0
	}
	for e.addr.Is6() && len(list) > within {
		have := 0
		for _, n := range list[:within] {
			if six(n) {
				have++
			}
		}
		from := slices.IndexFunc(list[within:], six)
		if have >= min(2, within) || from < 0 {
			break
		}
		up := list[within+from]
		list = slices.Delete(list, within+from, within+from+1)
		out := within - 1
		for six(list[out]) {
			out--
		}
		down := list[out]
		list = slices.Delete(list, out, out+1)
		list = slices.Insert(list, within-1, up, down)
	}
	for _, n := range list[:min(len(list), w.limit)] {
		urls = append(urls, url(n.m))
	}
	return urls, true
}

// worldSizes are the networks that properties are tried on, and how many
// requests of each: together more than 100,000.
var worldSizes = []struct{ mirrors, requests int }{
	{1, 1000}, {2, 2000}, {3, 3000}, {5, 6000}, {8, 8000}, {12, 10000}, {16, 10000}, {20, 10000}, {24, 10000},
	{30, 10000}, {36, 10000}, {40, 10000}, {48, 10000}, {64, 12000}, {65, 12000}, {300, 1000},
}

// eachWorld calls f with random worlds, in parallel, and with the source of the
// requests for each.
func eachWorld(t *testing.T, f func(t *testing.T, w *world, r *rand.Rand, requests int)) {
	for i, size := range worldSizes {
		seed := uint64(1000 + i)
		t.Run(fmt.Sprintf("%d mirrors, seed %d", size.mirrors, seed), func(t *testing.T) {
			t.Parallel()
			n := size.requests
			if testing.Short() {
				n /= 10
			}
			f(t, newWorld(t, seed, size.mirrors), rand.New(rand.NewPCG(seed, 2)), n)
		})
	}
}

func lines(t *Table, q *question, picks []pick) []string {
	if len(picks) == 0 {
		return nil
	}
	return strings.Split(string(t.appendList(nil, q, picks)), "\n")
}

// Every answer is what looking at all mirrors and sorting them gives, whether or
// not the orders of places were computed before.
func TestDecisionEqualsBruteForce(t *testing.T) {
	eachWorld(t, func(t *testing.T, w *world, r *rand.Rand, requests int) {
		with, without := w.table(true), w.table(false)
		var s, s2 scratch
		answered, tiers := 0, map[tier]int{}
		for range requests {
			e := w.enquiry(r)
			q, refused := e.ask(with)
			want, ok := w.naive(e)
			if refused == ok {
				t.Fatalf("%+v: refused %t, and the naive decision %t", e, refused, !ok)
			}
			if refused {
				continue
			}
			with.decide(&q, &s)
			got := lines(with, &q, s.picks)
			if !slices.Equal(got, want) {
				t.Fatalf("%+v, limit %d:\n got %q\nwant %q", e, w.limit, got, want)
			}
			without.decide(&q, &s2)
			if !slices.Equal(s.picks, s2.picks) {
				t.Fatalf("%+v: with computed orders\n%v, without\n%v", e, s.picks, s2.picks)
			}
			answered++
			for _, p := range s.picks {
				tiers[p.tier]++
			}
		}
		if answered < requests/2 {
			t.Errorf("only %d of %d requests were answered", answered, requests)
		}
		t.Log(answered, tiers)
	})
}

// What is answered is what the explanation calls listed, in its order, and the
// explanation leaves no mirror out. The public one says nothing of private
// mirrors but how many there are.
func TestExplanationIsTheAnswer(t *testing.T) {
	eachWorld(t, func(t *testing.T, w *world, r *rand.Rand, requests int) {
		table := w.table(true)
		var private []string
		for _, m := range w.in.mirrors {
			private = append(private, m.Email)
			for _, p := range slices.Concat(m.Subnets, w.in.subnets[m.Name]) {
				private = append(private, p.String(), p.Addr().String())
			}
			if m.Private {
				private = append(private, m.Name)
			}
		}
		var s scratch
		for i := range requests {
			e := w.enquiry(r)
			e.iso = false
			q, refused := e.ask(table)
			if refused {
				continue
			}
			table.decide(&q, &s)
			in := Inquiry{Addr: e.addr, Version: e.version, Repo: e.repo, Arch: e.arch, Protocol: e.protocol, Country: e.country, UserAgent: e.agent, All: true}
			asked := *table
			asked.now = e.now
			x, err := asked.explain(in)
			if err != nil {
				t.Fatalf("%+v: %v", e, err)
			}
			var listed []string
			seen := map[string]bool{}
			for i, c := range x.Candidates {
				if c.Listed {
					listed = append(listed, c.URL)
				}
				if c.Position != i+1 || c.Listed != (i < w.limit) || seen[c.Mirror] {
					t.Fatalf("%+v: candidate %d is %+v", e, i, c)
				}
				seen[c.Mirror] = true
			}
			if got := lines(table, &q, s.picks); !slices.Equal(got, listed) {
				t.Fatalf("%+v: answered\n%q, explained\n%q", e, got, listed)
			}
			for _, o := range x.Excluded {
				if seen[o.Mirror] {
					t.Fatalf("%+v: %s is there twice", e, o.Mirror)
				}
				seen[o.Mirror] = true
				m := table.mirrors[table.byName[o.Mirror]].Mirror
				_, _, near := w.near(m, e.addr)
				switch {
				case o.Reason == "" || o.Reason == "ranked below the list":
					t.Fatalf("%+v: %s is left out because it %q", e, o.Mirror, o.Reason)
				case near == strings.Contains(o.Reason, "the client is") && (near || strings.Contains(o.Reason, "the country")):
					t.Fatalf("%+v: near is %t, and %s is left out because it is %s", e, near, o.Mirror, o.Reason)
				}
			}
			if len(seen) != len(w.in.mirrors) {
				t.Fatalf("%+v: %d of %d mirrors are explained", e, len(seen), len(w.in.mirrors))
			}
			if i%32 > 0 {
				continue
			}
			in.All = false
			public, err := asked.explain(in)
			if err != nil {
				t.Fatalf("%+v: %v", e, err)
			}
			var b strings.Builder
			if err := public.PrintJSON(&b); err != nil {
				t.Fatal(err)
			}
			client, rest, _ := strings.Cut(b.String(), "\"version\"") // says the client's own address
			if !strings.Contains(client, "\"client\"") {
				t.Fatalf("not an explanation: %s", b.String())
			}
			for _, p := range private {
				if strings.Contains(rest, p) {
					t.Fatalf("%+v: the public explanation names %s:\n%s", e, p, b.String())
				}
			}
			if n := len(public.Candidates) + len(public.Excluded) + public.PrivateCandidates + public.PrivateExcluded; n != len(w.in.mirrors) {
				t.Fatalf("%+v: the public explanation counts %d of %d mirrors", e, n, len(w.in.mirrors))
			}
		}
	})
}

// An answer has at most as many URLs as the limit says, none twice, at least one
// as long as a public mirror could have it, and a mirror of a closed network for
// its own clients alone.
func TestEveryAnswerIsUsable(t *testing.T) {
	eachWorld(t, func(t *testing.T, w *world, r *rand.Rand, requests int) {
		table := w.table(true)
		var s scratch
		empty := 0
		for range requests {
			e := w.enquiry(r)
			q, refused := e.ask(table)
			if refused {
				continue
			}
			table.decide(&q, &s)
			urls := lines(table, &q, s.picks)
			if len(urls) > w.limit {
				t.Fatalf("%+v: %d URLs, and the limit is %d", e, len(urls), w.limit)
			}
			if sorted := slices.Sorted(slices.Values(urls)); len(slices.Compact(sorted)) != len(urls) {
				t.Fatalf("%+v: a URL is there twice: %q", e, urls)
			}
			for _, p := range s.picks {
				m := w.in.mirrors[p.mirror]
				if _, _, near := w.near(m, e.addr); (m.Private || m.CloudType != "") && (!near || e.iso) {
					t.Fatalf("%+v: %s is not for this client", e, m.Name)
				}
			}
			if len(urls) == 0 {
				empty++
				could := newSet(len(table.mirrors))
				could.and(table.health[q.slot].any, table.public)
				if !could.empty() {
					t.Fatalf("%+v: an empty list, and there are %d public mirrors", e, could.count())
				}
			}
		}
		if empty == requests {
			t.Error("every answer was empty")
		}
	})
}

// plainWorld is a random world whose mirrors all have everything, in good health.
func plainWorld(t *testing.T, seed uint64, n int) *world {
	w := newWorld(t, seed, n)
	w.in.snap, w.live = nil, false
	for _, m := range w.in.mirrors {
		m.Carries = schema.Carries{}
		m.Address.HTTP, m.Address.HTTPS = "http://"+m.Name+"/distro/", "https://"+m.Name+"/distro/"
	}
	for _, m := range w.in.mirrors {
		w.spots[m.Name] = w.spotOf(m)
	}
	return w
}

// names lists the mirrors of a decision.
func names(t *Table, picks []pick) (out []string) {
	for _, p := range picks {
		out = append(out, t.mirrors[p.mirror].Name)
	}
	return out
}

// One prefix gets one order for every repository of a transaction, from every
// node, whatever number a mirror has there, and however long the node runs.
func TestOneOrderForAPrefix(t *testing.T) {
	w := plainWorld(t, 77, 60)
	a := w.table(true)
	other := *w
	other.in.mirrors = slices.Clone(w.in.mirrors)
	r := rand.New(rand.NewPCG(77, 3))
	r.Shuffle(len(other.in.mirrors), func(i, j int) {
		m := other.in.mirrors
		m[i], m[j] = m[j], m[i]
	})
	b := other.table(true)
	b.draws = draws(nil).next(w.now.Add(time.Minute-drawsAhead), b.names, b.weights, b.secret)
	b.draws = b.draws.next(w.now, b.names, b.weights, b.secret)

	var s scratch
	firsts := map[string]bool{}
	for range 20_000 {
		addr := randomAddr(r)
		if addr.Is4() { // a neighbour in the /24
			v4 := addr.As4()
			addr = netip.AddrFrom4([4]byte{v4[0], v4[1], v4[2], byte(r.IntN(256))})
		}
		if len(a.subnetsOf(geo.KeyOf(addr))) > 0 {
			continue // subnets are longer than prefixes
		}
		now := w.now.Add(time.Duration(r.IntN(1800)) * time.Second)
		want := ""
		for _, version := range []string{"9", "9.8", "10.2"} {
			for _, repo := range worldRepos {
				for _, table := range []*Table{a, b} {
					q, _, no := table.listRequest(version, repo, "", params{})
					if no != nil {
						t.Fatal(no)
					}
					q.client, q.limit, q.now = knownClient(addr, table.secret), table.limit, now
					table.decide(&q, &s)
					got := strings.Join(names(table, s.picks), " ")
					if want == "" {
						want = got
					}
					if got != want {
						t.Fatalf("%s gets for %s/%s\n%s, and otherwise\n%s", addr, version, repo, got, want)
					}
				}
			}
		}
		first, _, _ := strings.Cut(want, " ")
		firsts[first] = true
	}
	if len(firsts) < 10 {
		t.Errorf("only %d mirrors are ever first", len(firsts))
	}
}

// bandWorld is one band around one place: mirrors of the given bandwidths.
func bandWorld(t *testing.T, weights ...int) *world {
	t.Helper()
	berlin := &geo.Place{Country: [2]byte{'D', 'E'}, Lat: 52.5, Lon: 13.4, HasCoordinates: true}
	w := &world{now: time.Unix(1_800_000_000, 0), limit: 10, records: []geo.Record{{Prefix: netip.MustParsePrefix("20.0.0.0/8"), Place: berlin}}}
	w.in = inputs{network: worldNetwork(t), secret: 42, served: map[state.Key]*atomic.Uint64{}, db: openRecords(t, w.records)}
	for i, weight := range weights {
		name := fmt.Sprintf("m%d.example.org", i)
		m := &schema.Mirror{Name: name, Address: schema.Address{HTTP: "http://" + name + "/"}, Bandwidth: weight}
		m.Location = schema.Location{Country: "DE", Latitude: 52, Longitude: 13 + float64(i)/100, HasCoordinates: true}
		w.in.mirrors = append(w.in.mirrors, m)
	}
	return w
}

func baseos(t *testing.T, table *Table) question {
	t.Helper()
	q, _, no := table.listRequest("9", "baseos", "", params{})
	if no != nil {
		t.Fatal(no)
	}
	q.limit = table.limit
	return q
}

// chiSquare is Pearson's statistic.
func chiSquare(seen []int, share []float64) (x float64) {
	n := 0
	for _, k := range seen {
		n += k
	}
	for i, k := range seen {
		want := share[i] * float64(n)
		x += (float64(k) - want) * (float64(k) - want) / want
	}
	return x
}

// A million clients: they fall evenly into the classes that the order tells
// apart, and over the classes of some hours the mirrors of a band are first in
// proportion to their bandwidth. Clients of one class are one sample. Secret and
// hours are fixed, so the outcome is; the bounds are those that chance exceeds
// once in a thousand.
func TestFirstLinesFollowBandwidth(t *testing.T) {
	weights := []int{100, 500, 1000, 1000, 2500, 10000}
	w := bandWorld(t, weights...)
	table := w.table(true)

	seen, even := make([]int, classes), make([]float64, classes)
	for i := range 1_000_000 { // different prefixes, side by side as on the Internet
		seen[prefixHash(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 1}), w.in.secret)%classes]++
	}
	for i := range even {
		even[i] = 1.0 / classes
	}
	// df = 4095: mean 4095, standard deviation √(2·4095) = 90.5.
	if x := chiSquare(seen, even); x > 4095+3.09*90.5 {
		t.Errorf("clients in classes: χ² = %.1f with 4,095 degrees of freedom", x)
	}

	total := 0
	for _, weight := range weights {
		total += weight
	}
	var share []float64
	for _, weight := range weights {
		share = append(share, float64(weight)/float64(total))
	}
	const hours = 24
	var s scratch
	q := baseos(t, table)
	q.addr = netip.MustParseAddr("20.1.2.3")
	first, second := make([]int, len(weights)), make([]int, len(weights))
	same := 0
	last := make([]uint16, classes)
	for hour := range hours {
		q.now = w.now.Add(time.Duration(hour) * time.Hour)
		table.draws = table.draws.next(q.now, table.names, table.weights, table.secret)
		for class := range classes {
			q.hash = uint64(class)
			table.decide(&q, &s)
			m := s.picks[0].mirror
			first[m]++
			if m == 5 {
				second[s.picks[1].mirror]++
			}
			if hour > 0 && last[class] == m {
				same++
			}
			last[class] = m
		}
	}
	// df = 5.
	if x := chiSquare(first, share); x > 20.5 {
		t.Errorf("first lines %v, shares %.3f: χ² = %.1f with 5 degrees of freedom", first, share, x)
	}
	// Behind the widest, the others by their own bandwidth; df = 4.
	rest := make([]float64, 5)
	for i := range rest {
		rest[i] = float64(weights[i]) / float64(total-weights[5])
	}
	if x := chiSquare(second[:5], rest); second[5] != 0 || x > 18.5 {
		t.Errorf("second lines %v, shares %.3f: χ² = %.1f with 4 degrees of freedom", second, rest, x)
	}
	// The hours are independent of each other: the first stays by chance alone.
	chance := 0.0
	for _, p := range share {
		chance += p * p
	}
	n := float64(classes * (hours - 1))
	if z := (float64(same) - n*chance) / math.Sqrt(n*chance*(1-chance)); math.Abs(z) > 3.3 {
		t.Errorf("from one hour to the next %d of %.0f first lines stayed, and chance makes it %.0f", same, n, n*chance)
	}
}

// After a publication the fresh mirrors of a band precede the lagging ones for
// none of the clients, for some or for all, as they have bandwidth for.
func TestFreshMirrorsPrecedeAsTheyHaveBandwidth(t *testing.T) {
	for _, tt := range []struct {
		fresh, lagging int
		want           float64 // share of clients that are given a fresh one first
	}{
		{200, 800, 0.2}, // nobody is moved: 20 % by the draw
		{300, 700, 0.3},
		{450, 550, 0.5 + 0.5*0.45}, // half are moved
		{600, 400, 1},
		{700, 300, 1},
	} {
		w := bandWorld(t, tt.fresh/2, tt.fresh/2, tt.lagging/2, tt.lagging/2)
		k := state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}
		w.in.snap, w.live = &state.Snapshot{Mirrors: map[string]*state.Status{}}, true
		for i, m := range w.in.mirrors {
			w.in.snap.Mirrors[m.Name] = &state.Status{Health: map[state.Key]state.Health{k: []state.Health{state.Fresh, state.Ahead, state.Lagging, state.Lagging}[i]}}
		}
		table := w.table(true)
		q, _, no := table.listRequest("9", "baseos", "", params{arch: "x86_64"})
		if no != nil {
			t.Fatal(no)
		}
		q.addr, q.limit = netip.MustParseAddr("20.1.2.3"), 10
		var s scratch
		first, n := 0, 0
		for hour := range 8 {
			q.now = w.now.Add(time.Duration(hour) * time.Hour)
			table.draws = table.draws.next(q.now, table.names, table.weights, table.secret)
			for class := range classes {
				q.hash = uint64(class)
				table.decide(&q, &s)
				n++
				if s.picks[0].mirror < 2 {
					first++
				}
				if tt.want == 1 && (s.picks[1].mirror > 1 || s.picks[2].mirror < 2) {
					t.Fatalf("fresh %d, lagging %d: a lagging one stands before a fresh one", tt.fresh, tt.lagging)
				}
			}
		}
		got := float64(first) / float64(n)
		bound := 3.3 * math.Sqrt(tt.want*(1-tt.want)/float64(n))
		if math.Abs(got-tt.want) > bound {
			t.Errorf("fresh %d, lagging %d: a fresh one is first for %.4f of the clients, want %.4f ± %.4f", tt.fresh, tt.lagging, got, tt.want, bound)
		}
	}
}

// whole returns the order of all public mirrors for a client, with their ranks.
func whole(t *testing.T, table *Table, addr netip.Addr, now time.Time) (order []string, ranks map[string]uint8) {
	var s scratch
	q := baseos(t, table)
	q.client, q.now, q.all = knownClient(addr, table.secret), now, true
	table.decide(&q, &s)
	ranks = map[string]uint8{}
	for _, p := range s.picks {
		ranks[table.mirrors[p.mirror].Name] = p.key.rank()
	}
	return names(table, s.picks), ranks
}

// What happens far away changes nothing near, and a mirror that goes takes
// nobody with it.
func TestOnlyThoseConcernedMove(t *testing.T) {
	w := plainWorld(t, 91, 50)
	for _, m := range w.in.mirrors {
		m.Monopoly = false
	}
	before := w.table(true)
	gone := w.in.mirrors[17].Name
	w.in.mirrors = slices.Delete(slices.Clone(w.in.mirrors), 17, 18)
	after := w.table(true)

	r := rand.New(rand.NewPCG(91, 4))
	listed := 0
	for range 3000 {
		addr := randomAddr(r)
		a, ranks := whole(t, before, addr, w.now)
		b, _ := whole(t, after, addr, w.now)
		i := slices.Index(a, gone)
		if addr.Is4() { // an IPv6 client may have another moved up in its place
			if i >= 0 {
				listed++
				a = slices.Delete(a, i, i+1)
			}
			if !slices.Equal(a, b) {
				t.Fatalf("without %s, %s gets\n%q, and before\n%q", gone, addr, b, a)
			}
			continue
		}
		// Seen from the network without it, it is the mirror that was added.
		for j := range min(i, len(a)) {
			if j > 4 && ranks[a[j]] < ranks[gone] && a[j] != b[j] {
				t.Fatalf("with %s, line %d for %s is %s, and without %s", gone, j+1, addr, a[j], b[j])
			}
		}
	}
	if listed == 0 {
		t.Error("the mirror was in no list")
	}
}

// Deciding allocates nothing, whatever the way through it.
func TestDecisionAllocatesNothing(t *testing.T) {
	// A large network goes deep, and in a small one lists are not full.
	seen := map[string]int{}
	for _, n := range []int{200, 25} {
		var w *world
		for seed := uint64(5001); ; seed++ { // one with a database and living findings
			if w = newWorld(t, seed, n); w.live && w.in.db != nil && w.in.snap != nil {
				break
			}
		}
		w.limit = 10
		allocatesNothing(t, w, seen)
	}
	for _, way := range []string{"IPv4", "IPv6", "country", "promoted", "monopoly", "filled", "deep", "subnet", "cloud region", "cloud", "asn", "world", "no place"} {
		if seen[way] == 0 {
			t.Errorf("no request went the way %q: %v", way, seen)
		}
	}
}

// allocatesNothing decides in a world, and counts in seen the ways it went.
func allocatesNothing(t *testing.T, w *world, seen map[string]int) {
	table := w.table(true)
	r := rand.New(rand.NewPCG(1, 9))
	// The first time through each way the scratch grows.
	var s scratch
	measure := func(e enquiry) {
		q, refused := e.ask(table)
		if refused {
			return
		}
		table.decide(&q, &s)
		ways := []string{"IPv4"}
		if e.addr.Is6() {
			ways[0] = "IPv6"
		}
		if e.country != "" {
			ways = append(ways, "country")
		}
		for _, p := range s.picks {
			ways = append(ways, p.tier.String())
			if p.flags&promoted != 0 {
				ways = append(ways, "promoted")
			}
			if p.flags&monopoly != 0 {
				ways = append(ways, "monopoly")
			}
			if p.flags&filled != 0 {
				ways = append(ways, "filled")
			}
		}
		if len(s.ranked) > 0 {
			ways = append(ways, "deep")
			s.ranked = s.ranked[:0]
		}
		slices.Sort(ways)
		for _, way := range slices.Compact(ways) {
			seen[way]++
		}
		if n := testing.AllocsPerRun(50, func() { table.decide(&q, &s) }); n != 0 {
			t.Fatalf("%+v (%v): %v allocations", e, ways, n)
		}
	}
	for range 5000 { // grow
		e := w.enquiry(r)
		if q, refused := e.ask(table); !refused {
			table.decide(&q, &s)
		}
	}
	for range 5000 {
		measure(w.enquiry(r))
	}
}

// discard is a ResponseWriter that is used again and again.
type discard struct {
	header http.Header
	code   int
	n      int
}

func (d *discard) Header() http.Header  { return d.header }
func (d *discard) WriteHeader(code int) { d.code = code }
func (d *discard) Write(b []byte) (int, error) {
	d.n += len(b)
	return len(b), nil
}

// A list costs few allocations from the router to the last byte.
func TestListHandlerAllocatesLittle(t *testing.T) {
	s := startWorld(t, fuzzWorld)
	h, _ := s.Handlers()
	for _, target := range []string{
		"/mirrorlist/9/baseos", "/mirrorlist/9/baseos?arch=x86_64&country=de&protocol=https", "/mirrorlist/10-kitten/baseos/", "/mirrorlist?repo=baseos-9&arch=aarch64",
	} {
		r := httptest.NewRequest("GET", target, nil)
		r.RemoteAddr = "192.0.2.1:4000"
		r.Header.Set("User-Agent", worldAgents[2])
		w := &discard{header: http.Header{}}
		n := testing.AllocsPerRun(1000, func() {
			clear(w.header)
			w.code, w.n = http.StatusOK, 0
			h.ServeHTTP(w, r)
		})
		if w.code != http.StatusOK || w.n == 0 {
			t.Fatalf("%s: status %d, %d bytes", target, w.code, w.n)
		}
		if t.Logf("%s: %v allocations", target, n); n > 20 {
			t.Errorf("%s: %v allocations, want at most 20", target, n)
		}
	}
}

// Two servers that were started apart, from files of other names and with another
// history, give a client the same lists.
func TestTwoServersAnswerAlike(t *testing.T) {
	one, other := map[string][]byte{}, map[string][]byte{}
	for i := range 40 {
		data := fmt.Appendf(nil, "{name: m%02d.example, address: {http: http://m%02d.example/}, bandwidth: %d, geolocation: {country: DE, latitude: %d, longitude: 10}}", i, i, 100*(1+i%7), 40+i/2)
		one[fmt.Sprintf("mirrors.d/m%02d.yml", i)] = data
		other[fmt.Sprintf("mirrors.d/z%02d.yml", 40-i)] = data
	}
	other["time"] = []byte("2026-11-22T12:20:00Z\n") // the table is made for another time
	a, b := startWorld(t, one), startWorld(t, other)
	now := a.now()
	b.now = func() time.Time { return now }
	b.keeper.build(true)
	ha, _ := a.Handlers()
	hb, _ := b.Handlers()
	lists := map[string]bool{}
	for i := range 500 {
		want := ""
		for _, repo := range []string{"baseos", "extras"} {
			for _, h := range []http.Handler{ha, hb} {
				r := httptest.NewRequest("GET", "/mirrorlist/9/"+repo, nil)
				r.RemoteAddr = fmt.Sprintf("192.%d.%d.%d:1", i/256, i%256, i%200)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				got := strings.ReplaceAll(w.Body.String(), "/BaseOS/", "/"+repo+"/")
				got = strings.ReplaceAll(got, "/"+repo+"/", "/")
				if want == "" {
					want = got
				}
				if w.Code != http.StatusOK || got != want {
					t.Fatalf("%s gets %d\n%s, and before\n%s", r.RemoteAddr, w.Code, got, want)
				}
			}
		}
		lists[want] = true
	}
	if len(lists) < 200 {
		t.Errorf("500 networks share %d lists", len(lists))
	}
}
