package mirrorlist

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
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
	for _, k := range keys {
		snap.Truth[k] = state.Truth{Expired: r.IntN(4) == 0}
	}
	allBad := map[state.Key]bool{}
	for _, k := range keys {
		allBad[k] = r.IntN(10) == 0
	}
	for _, m := range w.in.mirrors {
		if r.IntN(15) == 0 {
			continue
		}
		st := &state.Status{Health: map[state.Key]state.Health{}, IPv6: state.Reach(r.IntN(3))}
		for _, k := range keys {
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
	t := &Table{geometry: g, limit: w.limit, secret: w.in.secret, snap: w.in.snap, snapLive: w.live, fallback: newSet(len(g.mirrors))}
	if withOrders && g.db.HasLocation() {
		t.orders = ordersFor(g)
	}
	for _, name := range w.in.fallback {
		t.fallback.add(g.byName[name])
	}
	t.draws = draws(nil).next(w.now, g.names, g.weights, w.in.secret)
	t.health = newHealth(g, t.snap, t.snapLive)
	t.ipv6 = newSixes(g, t.snap)
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
		now: w.now.Add(time.Duration(r.IntN(1800)) * time.Second),
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
	if e.repo == "source" {
		s.keys = []state.Key{{Version: s.version, Repo: "source"}}
	} else {
		for _, a := range checked {
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

	base := func(m *schema.Mirror) schema.Address {
		if s.module != "" {
			return m.AddressOptional[s.module]
		}
		return m.Address
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
		case found:
			return h
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
	listable := func(m *schema.Mirror) bool { return carries(m) && all(m, state.Health.Listable) }
	lags := func(m *schema.Mirror) bool { return !all(m, func(h state.Health) bool { return h != state.Lagging }) }
	expired := false
	if w.in.snap != nil {
		for _, k := range s.keys {
			expired = expired || w.in.snap.Truth[k].Expired
		}
	}

	hash := knownClient(e.addr, w.in.secret).hash
	class := int64(hash % 4096)
	hour := (e.now.Unix() + class*3600/4096) / 3600
	score := func(m *schema.Mirror) float32 {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], xxh3.HashString(m.Name))
		binary.LittleEndian.PutUint64(b[8:], uint64(hour<<16|class))
		u := (float64(xxh3.HashSeed(b[:], w.in.secret)>>11) + 0.5) / (1 << 53)
		return float32(-math.Log(u) * (1 / float64(m.Bandwidth)))
	}
	coin := (&draw{hour: hour}).coin(int(class))

	// How a mirror is near on the network: the tier, and within it the length of
	// the prefix.
	near := func(m *schema.Mirror) (tier, bits int, ok bool) {
		if !e.addr.IsValid() {
			return 0, 0, false
		}
		for _, p := range slices.Concat(m.Subnets, w.in.subnets[m.Name]) {
			if p.Contains(e.addr) && (!ok || p.Bits() > bits) {
				bits, ok = p.Bits(), true
			}
		}
		if ok {
			return 0, bits, true
		}
		tier = 9
		for _, r := range w.in.clouds[m.CloudType] {
			switch {
			case !r.Prefix.Contains(e.addr):
			case slices.Contains(m.CloudRegions, r.Region):
				tier = 1
			case m.AllRegions:
				tier = min(tier, 2)
			}
		}
		if tier < 9 {
			return tier, 0, true
		}
		return 3, 0, !m.Anycast && client.ASN != 0 && slices.Contains(m.ASN, client.ASN)
	}

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
					total += n.m.Bandwidth
					if !lags(n.m) {
						fresh += n.m.Bandwidth
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
		if tier, bits, ok := near(m); ok && m.Monopoly && !e.iso && listable(m) {
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
			if tier, bits, ok := near(m); onNet && ok && !away && (public(m) || !e.iso) {
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
			if expired && lags(m) {
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
			if public(m) && carries(m) && has(m, protocol) && among(m) && all(m, func(h state.Health) bool { return h != state.Broken }) {
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
	{30, 10000}, {36, 10000}, {40, 10000}, {48, 10000}, {64, 20000}, {65, 20000}, {300, 1000},
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
