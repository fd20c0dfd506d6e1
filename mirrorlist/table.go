package mirrorlist

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"

	"meridian/checker/state"
	"meridian/mirrorlist/geo"
	"meridian/mirrorlist/stats"
	"meridian/schema"
)

// inputs is everything a table is made from. Its values are never changed after
// they were put here.
type inputs struct {
	network *schema.Network
	mirrors []*schema.Mirror          // by name, each name once
	subnets map[string][]netip.Prefix // fetched lists, by the name of the mirror
	clouds  map[string][]cloudRange   // by provider
	hosts   map[string]hostAddrs      // by host name
	db      *geo.DB                   // nil: nobody has a place
	snap    *state.Snapshot           // nil: every health is Unknown
	secret  uint64
	served  map[state.Key]*atomic.Uint64 // lists per key; outlives the table

	fallback []string // names of mirrors
	maxAge   time.Duration
}

// Table is all that a request needs to know: geometry, and the health that
// belongs to it. One goroutine builds it; it is never changed, and a request
// loads it once.
type Table struct {
	*geometry
	findings
	draws  draws
	orders *orders // nil until they were computed

	date     []string  // of answers, while a keeper renews it; nil: net/http writes one itself
	now      time.Time // the hour of every order; a keeper that runs is at most seconds behind
	fallback set

	// What the settings say that a request depends on.
	trusted []netip.Prefix
	header  string
	limit   int
	secret  uint64
	base    string // of this server, for clients; "": what a request says

	tally *stats.Tally // nil: no statistics are kept
}

// geometry is the part of a table that changes only when somebody edits a file,
// a host moves, or a database is replaced.
type geometry struct {
	network *schema.Network
	db      *geo.DB
	mirrors []mirror
	byName  map[string]uint16

	names     []uint64 // hashes, for the draws
	bandwidth []int    // Mbit/s, as their files say
	ownASN    []uint32 // of the mirror's address; 0: not known
	keys      []cand   // what candidates are made of, beside a draw
	seats     []seat   // public mirrors
	public    set      // neither private nor in a cloud
	monopoly  set
	anycast   set
	none      set

	trees     []tree          // 0 is the main one
	promised  []addresses     // by tree
	countries map[[2]byte]set // by the mirror's country
	releases  map[string]*release
	slots     []slot

	subnets    *geo.Ranges
	subnetSets [][]onSubnet
	clouds     *geo.Ranges
	cloudSets  [][]onCloud
	asns       map[uint32]onASN
}

// A scheme is a protocol that a client may ask for.
type scheme uint8

const (
	anyScheme scheme = iota
	httpScheme
	httpsScheme
	schemeN
)

// A mirror is one mirror as requests see it.
type mirror struct {
	*schema.Mirror
	bases   []base // by tree
	at      point
	lat     float64
	lon     float64
	from    origin // of the position
	country [2]byte
	host    string
	addrs   hostAddrs
}

// addresses say who has a scheme in one tree, and where.
type addresses struct {
	schemes [schemeN]set
	urls    [schemeN][]string // by mirror: what base.url returns
}

func newAddresses(n int, baseOf func(i int) base) (a addresses) {
	for k := range a.schemes {
		a.schemes[k], a.urls[k] = newSet(n), make([]string, n)
	}
	for i := range n {
		b := baseOf(i)
		if b.http != "" {
			a.schemes[httpScheme].add(uint16(i))
			a.schemes[anyScheme].add(uint16(i))
		}
		if b.https != "" {
			a.schemes[httpsScheme].add(uint16(i))
			a.schemes[anyScheme].add(uint16(i))
		}
		for k := range a.urls {
			a.urls[k][i] = b.url(scheme(k))
		}
	}
	return a
}

// base holds the base URLs of one tree on one mirror; "" where it has none.
type base struct{ http, https string }

// url returns the base URL for a client that wants s. Who wants nothing gets
// http: every client speaks it, and packages are signed. The other scheme serves
// where there is no choice.
func (b base) url(s scheme) string {
	if b.http == "" || s == httpsScheme && b.https != "" {
		return b.https
	}
	return b.http
}

// origin tells where a mirror's position comes from.
type origin uint8

const (
	fromNowhere origin = iota
	fromFile           // latitude and longitude in its file
	fromAddress        // the database, for the address that its host has
	fromCountry        // the middle of the country it declares
)

var originNames = [...]string{"none", "file", "address", "country"}

func (o origin) String() string { return originNames[o] }

// A tree is the main tree (name "") or an optional module.
type tree struct{ name string }

// A release is one version that clients may ask for.
type release struct {
	version schema.Version
	vault   bool
	tree    int
	arches  []schema.Arch
	repos   map[string]*repository
	isos    []int // slots, by arch
}

// A repository is one repo of a release. Its slots are: 0 for every arch of it
// together, then each of release.arches, then one for a client that is x86_64 by
// its User-Agent, which may want x86_64_v2 as well.
type repository struct {
	repo  *schema.Repo
	vault bool
	slots []int
}

// A slot is what a list can be asked for: a repository and an arch, or a
// directory of ISO images.
type slot struct {
	key    state.Key
	keys   []state.Key // whose health decides; empty: nobody checks it
	suffix string      // of the URL, after the mirror's base
	carry  set         // mirrors that promise to have it
	vault  bool        // kept on the vault alone

	// perArch: there is one such repository for each architecture. truth is the
	// key of what the origin published, of one of them.
	perArch bool
	truth   state.Key

	// excluded are the repositories of the slot if the network file says that there
	// is none of them. They are checked at no mirror, and served until the origin is
	// known to have none.
	excluded []state.Key
	served   *atomic.Uint64

	// told is the architecture that a client has told whose list this is, or "".
	told schema.Arch
}

type onSubnet struct {
	mirror uint16
	bits   uint8
}

type onCloud struct {
	mirror uint16
	tier   tier
}

// onASN is what mirrors have to do with one autonomous system.
type onASN struct {
	declared []uint16 // who want its clients
	own      bool     // some have an address in it
}

// newGeometry arranges a network. It does not look at health.
func newGeometry(in *inputs) *geometry {
	n := len(in.mirrors)
	g := &geometry{
		network: in.network, db: in.db,
		byName: make(map[string]uint16, n), releases: map[string]*release{},
		public: newSet(n), monopoly: newSet(n), anycast: newSet(n), none: newSet(n),
		countries: map[[2]byte]set{}, asns: map[uint32]onASN{},
		trees: []tree{{}},
	}
	for _, m := range in.network.Modules {
		g.trees = append(g.trees, tree{m.Name})
	}
	for i, m := range in.mirrors {
		g.addMirror(uint16(i), m, in)
	}
	for t := range g.trees {
		g.promised = append(g.promised, newAddresses(n, func(i int) base { return g.mirrors[i].bases[t] }))
	}
	g.addSubnets(in)
	g.addClouds(in)
	g.addReleases(in)
	return g
}

func (g *geometry) addMirror(i uint16, m *schema.Mirror, in *inputs) {
	r := mirror{Mirror: m, bases: make([]base, len(g.trees))}
	r.bases[0] = base{m.Address.HTTP, m.Address.HTTPS}
	for t := 1; t < len(g.trees); t++ {
		a := m.AddressOptional[g.trees[t].name]
		r.bases[t] = base{a.HTTP, a.HTTPS}
	}
	r.host = hostOf(r.bases[0].url(anyScheme))
	r.addrs = in.hosts[r.host]
	r.place(in.db)
	g.byName[m.Name] = i
	g.names = append(g.names, xxh3.HashString(m.Name))
	g.bandwidth = append(g.bandwidth, max(1, m.Bandwidth))

	public := !m.Private && m.CloudType == ""
	if public {
		g.public.add(i)
		g.seats = append(g.seats, seat{i, r.country, r.at})
	}
	if m.Monopoly {
		g.monopoly.add(i)
	}
	var own uint32
	if m.Anycast {
		g.anycast.add(i)
	} else {
		own = in.db.ASN(r.addrs.first())
		for _, asn := range m.ASN {
			if as := g.asns[asn]; !slices.Contains(as.declared, i) {
				as.declared = append(as.declared, i)
				g.asns[asn] = as
			}
		}
	}
	g.ownASN = append(g.ownASN, own)
	if own != 0 {
		as := g.asns[own]
		as.own = true
		g.asns[own] = as
	}
	key := keyForeign | cand(i)
	if m.Anycast {
		key |= keyLast
	}
	g.keys = append(g.keys, key)
	if r.country != ([2]byte{}) {
		s := g.countries[r.country]
		if s == nil {
			s = newSet(len(in.mirrors))
			g.countries[r.country] = s
		}
		s.add(i)
	}
	g.mirrors = append(g.mirrors, r)
}

// place finds where a mirror is: its file, else the database on its address,
// else the middle of its country. A declared country beats the database.
func (r *mirror) place(db *geo.DB) {
	declared := twoLetters(r.Location.Country)
	r.country = declared
	set := func(lat, lon float64, from origin) {
		r.lat, r.lon, r.at, r.from = lat, lon, pointAt(lat, lon), from
	}
	if r.Location.HasCoordinates {
		set(r.Location.Latitude, r.Location.Longitude, fromFile)
	}
	if i := db.Find(r.addrs.first()); i != geo.NoPlace {
		p := db.Place(i)
		if declared == ([2]byte{}) {
			r.country = p.Country
		}
		if r.from == fromNowhere && p.HasCoordinates && p.Country == r.country {
			set(p.Lat, p.Lon, fromAddress)
		}
	}
	if r.from == fromNowhere && r.country != ([2]byte{}) {
		if lat, lon, ok := schema.Centroid(string(r.country[:])); ok {
			set(lat, lon, fromCountry)
		}
	}
}

func twoLetters(s string) (c [2]byte) {
	if len(s) == 2 {
		c[0], c[1] = s[0], s[1]
	}
	return c
}

// addSubnets finds for every subnet the mirrors that declare it or one around
// it, longest prefix first.
func (g *geometry) addSubnets(in *inputs) {
	var entries []geo.Entry
	for i := range g.mirrors {
		for _, list := range [][]netip.Prefix{g.mirrors[i].Subnets, in.subnets[g.mirrors[i].Name]} {
			for _, p := range list {
				entries = append(entries, geo.Entry{Prefix: p, Value: uint32(i)})
			}
		}
	}
	var sets [][]geo.SetMember
	g.subnets, sets = geo.NewSetRanges(entries)
	for _, s := range sets {
		var on []onSubnet
		for _, m := range s {
			if !slices.ContainsFunc(on, func(o onSubnet) bool { return uint32(o.mirror) == m.Value }) {
				on = append(on, onSubnet{uint16(m.Value), m.Bits})
			}
		}
		g.subnetSets = append(g.subnetSets, on)
	}
}

// addClouds finds for every range of a provider the mirrors for its region, then
// those for all regions.
func (g *geometry) addClouds(in *inputs) {
	type region struct{ cloud, name string }
	var regions []region
	numbers := map[string]map[string]uint32{} // of regions, by cloud and name
	var entries []geo.Entry
	for i := range g.mirrors {
		// Ranges of clouds that no mirror is in would only take memory.
		cloud := g.mirrors[i].CloudType
		if cloud == "" || numbers[cloud] != nil {
			continue
		}
		number := map[string]uint32{}
		numbers[cloud] = number
		entries = slices.Grow(entries, len(in.clouds[cloud]))
		for _, r := range in.clouds[cloud] {
			n, ok := number[r.Region]
			if !ok {
				n = uint32(len(regions))
				number[r.Region] = n
				regions = append(regions, region{cloud, r.Region})
			}
			entries = append(entries, geo.Entry{Prefix: r.Prefix, Value: n})
		}
	}
	var inClouds []uint16
	for i := range g.mirrors {
		if g.mirrors[i].CloudType != "" {
			inClouds = append(inClouds, uint16(i))
		}
	}
	// Nearly every range is in one region, of which there are few.
	ofRegion := make([][]onCloud, len(regions))
	var sets [][]geo.SetMember
	g.clouds, sets = geo.NewSetRanges(entries)
	g.cloudSets = make([][]onCloud, 0, len(sets))
	for _, s := range sets {
		if len(s) == 1 && ofRegion[s[0].Value] != nil {
			g.cloudSets = append(g.cloudSets, ofRegion[s[0].Value])
			continue
		}
		on := []onCloud{}
		for _, i := range inClouds {
			m := &g.mirrors[i]
			t, ok := tierCloud, false
			for _, member := range s {
				r := regions[member.Value]
				if r.cloud != m.CloudType {
					continue
				}
				if slices.ContainsFunc(m.CloudRegions, func(name string) bool { return strings.EqualFold(name, r.name) }) {
					t, ok = tierRegion, true
				} else if m.AllRegions {
					ok = true
				}
			}
			if ok {
				on = append(on, onCloud{i, t})
			}
		}
		slices.SortStableFunc(on, func(a, b onCloud) int { return cmp.Compare(a.tier, b.tier) })
		if len(s) == 1 {
			ofRegion[s[0].Value] = on
		}
		g.cloudSets = append(g.cloudSets, on)
	}
}

func (g *geometry) subnetsOf(k geo.Key) []onSubnet {
	if i, ok := g.subnets.Lookup(k); ok {
		return g.subnetSets[i]
	}
	return nil
}

func (g *geometry) cloudsOf(k geo.Key) []onCloud {
	if i, ok := g.clouds.Lookup(k); ok {
		return g.cloudSets[i]
	}
	return nil
}

func (g *geometry) countrySet(c [2]byte) set {
	if s := g.countries[c]; s != nil {
		return s
	}
	return g.none
}

// siteOf returns where the clients of a place are. A place without coordinates
// is in the middle of its country.
func (g *geometry) siteOf(place uint32) site {
	country, lat, lon, ok := g.db.Locate(place)
	s := site{country: country}
	if ok {
		s.at = pointAt(lat, lon)
	} else {
		s.at = centroids[country]
	}
	return s
}

// centroids are the middles of countries, for requests: looking one up by a
// string allocates.
var centroids = func() map[[2]byte]point {
	all := map[[2]byte]point{}
	for a := byte('A'); a <= 'Z'; a++ {
		for b := byte('A'); b <= 'Z'; b++ {
			if lat, lon, ok := schema.Centroid(string([]byte{a, b})); ok {
				all[[2]byte{a, b}] = pointAt(lat, lon)
			}
		}
	}
	return all
}()

// release finds the version that a client asked for.
func (g *geometry) release(requested string) *release {
	if r := g.releases[requested]; r != nil {
		return r
	}
	if v, ok := g.network.Resolve(requested); ok {
		return g.releases[string(v)]
	}
	return nil
}

// arch returns the place of an arch in the release, or -1.
func (r *release) arch(a string) int {
	for i, have := range r.arches {
		if string(have) == a {
			return i
		}
	}
	return -1
}

// allArches and byUserAgent are places in repository.slots, beside those of the
// arches.
const allArches = 0

func (r *release) archSlot(arch int) int { return 1 + arch }
func (r *release) x86Slot() int          { return 1 + len(r.arches) }

// addReleases lays out every list that can be asked for.
func (g *geometry) addReleases(in *inputs) {
	served := in.network.Served()
	for _, v := range served {
		g.addRelease(v, false, in)
	}
	for _, v := range in.network.Vault {
		if g.releases[string(v)] == nil {
			g.addRelease(v, true, in)
		}
	}
	for alias, v := range in.network.Aliases {
		if r := g.releases[string(v)]; r != nil {
			g.releases[string(alias)] = r
		}
	}
}

func (g *geometry) addRelease(v schema.Version, vault bool, in *inputs) {
	net := in.network
	r := &release{version: v, vault: vault, arches: net.ArchesOf(v), repos: make(map[string]*repository, len(net.Repos))}
	if name := net.Module(v); name != "" {
		r.tree = slices.IndexFunc(g.trees, func(t tree) bool { return t.name == name })
	}
	carries := make([]set, 1+len(r.arches)) // 0: all arches
	for k := range carries {
		carries[k] = newSet(len(g.mirrors))
		arch := schema.Arch("")
		if k > 0 {
			arch = r.arches[k-1]
		}
		for i := range g.mirrors {
			m := &g.mirrors[i]
			if m.bases[r.tree] != (base{}) && m.Carries.Has(net, v, arch) {
				carries[k].add(uint16(i))
			}
		}
	}
	for i := range net.Repos {
		repo := &net.Repos[i]
		q := &repository{repo: repo, vault: vault || repo.Vault}
		var keys []state.Key
		arches := repo.ArchesIn(net, v)
		has := arches
		if !net.Allows(v, repo, "") {
			has = nil
		}
		perArch := repo.PerArch()
		none := func(of []schema.Arch) (keys []state.Key) {
			switch {
			case q.vault:
			case perArch:
				for _, a := range of {
					keys = append(keys, state.Key{Version: v, Repo: repo.Name, Arch: a})
				}
			case len(has) == 0: // one directory for all
				keys = []state.Key{{Version: v, Repo: repo.Name}}
			}
			return keys
		}
		for _, a := range has {
			if perArch {
				keys = append(keys, state.Key{Version: v, Repo: repo.Name, Arch: a})
			}
		}
		if !perArch && len(has) > 0 {
			keys = []state.Key{{Version: v, Repo: repo.Name}}
		}
		add := func(arch schema.Arch, keys []state.Key, carry set, excluded []state.Key) {
			k := state.Key{Version: v, Repo: repo.Name, Arch: arch}
			s := slot{key: k, keys: keys, suffix: string(v) + "/" + repo.PathFor(arch), carry: carry, served: in.counter(k), excluded: excluded, perArch: perArch, truth: k, told: arch}
			if !perArch {
				s.truth.Arch = ""
			}
			if q.vault {
				s.keys, s.carry, s.vault = nil, g.none, true
			}
			q.slots = append(q.slots, len(g.slots))
			g.slots = append(g.slots, s)
		}
		// A client that does not say what it is may be any of them.
		every := slices.Clone(carries[0])
		for _, a := range arches {
			every.and(every, carries[1+r.arch(string(a))])
		}
		var excluded []state.Key
		if len(has) == 0 {
			excluded = none(r.arches)
		}
		add("", keys, every, excluded)
		for k, a := range r.arches {
			only, excluded := keys, []state.Key(nil)
			switch {
			case !slices.Contains(has, a):
				only, excluded = nil, none([]schema.Arch{a})
			case perArch:
				only = []state.Key{{Version: v, Repo: repo.Name, Arch: a}}
			}
			add(a, only, carries[1+k], excluded)
		}
		x86 := slices.DeleteFunc(slices.Clone(keys), func(k state.Key) bool { return k.Arch != "" && k.Arch != "x86_64" && k.Arch != "x86_64_v2" })
		carry := slices.Clone(carries[0])
		for k, a := range r.arches {
			if a == "x86_64" || a == "x86_64_v2" {
				carry.and(carry, carries[1+k])
			}
		}
		excluded = nil
		if len(x86) == 0 {
			excluded = none(slices.DeleteFunc(slices.Clone(r.arches), func(a schema.Arch) bool { return a != "x86_64" && a != "x86_64_v2" }))
		}
		add("", x86, carry, excluded)
		g.slots[len(g.slots)-1].told = "x86_64"
		r.repos[repo.Name] = q
	}
	for k, a := range r.arches {
		carry := slices.Clone(carries[1+k])
		for i := range g.mirrors {
			if g.mirrors[i].Carries.NoISOs {
				carry[i>>6] &^= 1 << (i & 63)
			}
		}
		key := state.Key{Version: v, Repo: isoRepo, Arch: a}
		r.isos = append(r.isos, len(g.slots))
		s := slot{key: key, keys: []state.Key{key}, suffix: string(v) + "/isos/" + string(a), carry: carry, served: in.counter(key), told: a}
		if vault {
			s.keys, s.vault = nil, true
		}
		g.slots = append(g.slots, s)
	}
	g.releases[string(v)] = r
}

// counter returns the count of lists served for a key, which outlives tables.
func (in *inputs) counter(k state.Key) *atomic.Uint64 {
	c := in.served[k]
	if c == nil {
		c = new(atomic.Uint64)
		in.served[k] = c
	}
	return c
}
