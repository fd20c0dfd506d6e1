package mirrorlist

import (
	"math/bits"
	"net/netip"
	"runtime"
	"time"

	"meridian/mirrorlist/geo"
)

// A client is who asks, as far as routing may know.
type client struct {
	// addr is unmapped and without zone; invalid when a trusted proxy named no
	// address. Then there is no place, and the rules for on-net clients are off.
	addr netip.Addr

	// hash stands for the client's prefix in every weighted order.
	hash uint64
}

// A question is a request for a list after its names were resolved.
type question struct {
	client
	slot int    // which repository, version and arch: an index of Table.slots
	tree int    // 0 is the main tree, others are optional modules
	want scheme // the protocol asked for, or anyScheme

	// suffix is what the URLs have after a mirror's base. It is not always that of
	// the slot: an arch that is known from the User-Agent alone decides about
	// health, and stays out of the URL.
	suffix string

	// country restricts the list, before it is padded; zero for none.
	country [2]byte

	// public leaves private and cloud mirrors out even on-net, and with them
	// monopolies: who downloads an image may do so for another network.
	public bool

	limit int
	now   time.Time

	// all asks for the mirrors behind the end of the list too, in their order.
	all bool
}

// A tier is a reason to list a mirror; lower ones come first in a list.
type tier uint8

const (
	tierSubnet   tier = iota // the client is in a declared subnet
	tierRegion               // in the mirror's own cloud region
	tierCloud                // in its cloud
	tierASN                  // in a declared autonomous system
	tierCountry              // geographic: the client's country
	tierWorld                // geographic: elsewhere
	tierShuffle              // the client's place is not known
	tierFallback             // nothing else was left: the configured ones
	tierAny                  // nothing at all was left: whatever its health
)

var tierNames = [...]string{"subnet", "cloud region", "cloud", "asn", "country", "world", "no place", "fallback", "any"}

func (t tier) String() string { return tierNames[t] }

// A pick is one mirror of an answer and why it stands where it does.
type pick struct {
	mirror uint16
	tier   tier
	rank   uint8 // geographic tiers: see site.rankOf
	flags  pickFlags
	score  uint32 // its draw among equals: smaller first
}

type pickFlags uint8

const (
	sameASN  pickFlags = 1 << iota // the mirror's own ASN is the client's
	lagging                        // listed in its place
	sunk                           // lagging, and behind the fresh ones of its band
	filled                         // only fills the list
	promoted                       // moved up for a client that arrived over IPv6
	padded                         // outside the country that was asked for
	monopoly                       // alone, by its operator's rule
)

// scratch is the memory of one decision, reused so that deciding allocates
// nothing. The answer is in picks until the next decision.
type scratch struct {
	picks []pick

	place uint32
	home  [2]byte // the client's country, zero when not known
	asn   uint32

	base, mask, taken set
	cands             []cand // room for every mirror

	// For what the precomputed orders do not reach.
	ranked []rankedSeat
	whole  []uint16      // mirrors in order of rank
	ends   [ranks]uint16 // where each rank ends in whole

	body []byte
}

type rankedSeat struct {
	mirror uint16
	rank   uint8
}

// cand is a candidate of one band, as the number that orders it, smaller first: last
// in the band, sunk, not in the client's ASN, then the draw; the number of the
// mirror breaks ties.
type cand uint64

const (
	keyLast    cand = 1 << 63
	keySunk    cand = 1 << 62
	keyForeign cand = 1 << 61
)

func (c cand) mirror() uint16 { return uint16(c) }
func (c cand) score() uint32  { return uint32(c >> 16) }

func (s *scratch) fit(t *Table) {
	if n := len(t.public); len(s.base) != n {
		s.base, s.mask, s.taken = make(set, n), make(set, n), make(set, n)
		s.cands = make([]cand, 0, 64*n)
	}
	clear(s.taken)
	s.picks = s.picks[:0]
}

// take adds a pick, which is not there yet.
func (s *scratch) take(p pick) {
	s.taken.add(p.mirror)
	s.picks = append(s.picks, p)
}

// decide answers a question. It is pure: everything it depends on is in the
// table and the question. The answer is s.picks.
func (t *Table) decide(q *question, s *scratch) {
	s.fit(t)
	h := &t.health[q.slot]
	s.place, s.asn, s.home = geo.NoPlace, 0, [2]byte{}
	if q.addr.IsValid() {
		s.place, s.asn = t.db.Find(q.addr), t.db.ASN(q.addr)
		s.home, _, _, _ = t.db.Locate(s.place)
	}
	class := int(q.hash % classes)
	d := t.draws.at(q.now, class)
	r := ranking{table: t, question: q, scratch: s, health: h, row: d.row(class), coin: d.coin(class), depth: q.limit}
	if q.all {
		r.depth = max(q.limit, len(t.mirrors))
	}

	if q.addr.IsValid() {
		r.subnets, r.clouds, r.as = t.subnetsOf(q.addr), t.cloudsOf(q.addr), t.asns[s.asn]
		r.near = len(r.subnets) > 0 || len(r.clouds) > 0 || len(r.as.declared) > 0
		if r.near && !q.public && r.monopoly() {
			return
		}
	}
	r.rank()
	if q.addr.Is6() {
		r.sixes()
	}
}

// ranking is a decision under way.
type ranking struct {
	*question
	*scratch
	table  *Table
	health *slotHealth
	row    []uint32 // the client's draws
	coin   float64
	depth  int // how many mirrors to take

	// What may be on-net; near if anything is.
	near    bool
	subnets []onSubnet
	clouds  []onCloud
	as      onASN
}

// rank takes the first mirrors of the whole order. That the order is longer
// never changes how it begins.
func (r *ranking) rank() {
	r.base.and(r.health.list, r.table.ways[r.tree].schemes[r.want])
	if r.near {
		r.onNet()
	}
	r.geographic()
	r.fill()
	if len(r.picks) == 0 {
		r.lastResort()
	}
}

// monopoly answers with the one mirror that wants its clients for itself,
// whatever country and protocol say.
func (r *ranking) monopoly() bool {
	t := r.table
	best, bits := -1, uint8(0)
	better := func(m uint16, n uint8) {
		if !t.monopoly.has(m) || !r.health.list.has(m) || t.drain != nil && t.drain.has(m) || !t.ways[r.tree].schemes[anyScheme].has(m) {
			return
		}
		if best < 0 || n == bits && r.row[m] < r.row[best] {
			best, bits = int(m), n
		}
	}
	p := pick{flags: monopoly}
	for _, on := range r.subnets {
		if best >= 0 && on.bits < bits {
			break
		}
		better(on.mirror, on.bits)
	}
	if best < 0 {
		for _, on := range r.clouds {
			if best >= 0 && on.tier != p.tier {
				break
			}
			p.tier = on.tier
			better(on.mirror, 0)
		}
	}
	if best < 0 {
		p.tier = tierASN
		for _, m := range r.as.declared {
			better(m, 0)
		}
	}
	if best < 0 {
		return false
	}
	p.mirror, p.score = uint16(best), r.row[best]
	r.take(p)
	return true
}

// onNet takes the mirrors that serve the client's own network: by subnet, the
// longest prefix first, then by cloud, then by autonomous system.
func (r *ranking) onNet() {
	t := r.table
	if r.country != ([2]byte{}) {
		r.mask.and(r.base, t.countrySet(r.country))
	} else {
		copy(r.mask, r.base)
	}
	if r.public {
		r.mask.and(r.mask, t.public)
	}
	if t.drain != nil {
		r.mask.without(r.mask, t.drain)
	}
	for on := r.subnets; len(on) > 0; {
		n := 1
		for n < len(on) && on[n].bits == on[0].bits {
			n++
		}
		r.begin()
		for _, o := range on[:n] {
			r.candidate(o.mirror)
		}
		r.end(tierSubnet, 0, 0)
		on = on[n:]
	}
	for on := r.clouds; len(on) > 0; {
		n := 1
		for n < len(on) && on[n].tier == on[0].tier {
			n++
		}
		r.begin()
		for _, o := range on[:n] {
			r.candidate(o.mirror)
		}
		r.end(on[0].tier, 0, 0)
		on = on[n:]
	}
	r.begin()
	for _, m := range r.as.declared {
		r.candidate(m)
	}
	r.end(tierASN, 0, 0)
}

// geographic fills the list with public mirrors by distance: those of the
// country that was asked for, if one was, then all others.
func (r *ranking) geographic() {
	r.walkCountries(false)
}

// fill adds the mirrors that still have a generation that was withdrawn at once,
// and those that are to be left, where the list is not full without them.
func (r *ranking) fill() {
	if r.health.fills {
		r.walkCountries(true)
	}
}

// walkCountries walks the public mirrors of the country that was asked for, then
// all. With fill it walks only those that fill a list, else only the others.
func (r *ranking) walkCountries(fill bool) {
	t := r.table
	for _, pad := range [2]bool{false, true} {
		if len(r.picks) >= r.depth || pad && r.country == ([2]byte{}) {
			return
		}
		var flags pickFlags
		r.mask.and(r.base, t.public)
		if r.country != ([2]byte{}) && !pad {
			r.mask.and(r.mask, t.countrySet(r.country))
		}
		if pad {
			flags |= padded
		}
		if r.health.fills {
			if fill {
				flags |= filled
				r.mask.and(r.mask, r.health.fill)
			} else {
				r.mask.without(r.mask, r.health.fill)
			}
		}
		r.walk(flags)
	}
}

// walk takes mirrors of r.mask in geographic order until the list is full.
func (r *ranking) walk(flags pickFlags) {
	t := r.table
	if len(r.picks) > 0 {
		r.mask.without(r.mask, r.taken)
	}
	if r.home == ([2]byte{}) {
		r.begin()
		r.candidates()
		r.end(tierShuffle, 0, flags)
		return
	}
	for bands := t.orders.of(r.place); len(bands) > 0; {
		rank, mirrors, rest := nextBand(bands)
		r.band(rank, mirrors, flags)
		if len(r.picks) >= r.depth {
			break
		}
		bands = rest
	}
	runtime.KeepAlive(t.orders) // it may be a mapped file
	if len(r.picks) >= r.depth {
		return
	}
	// What the order of this place does not reach: rank all that is left.
	n := r.rankAll()
	for rank, from := 0, 0; from < n; rank++ {
		to := int(r.ends[rank])
		if from < to {
			r.band(rank, r.whole[from:to], flags)
			if len(r.picks) >= r.depth {
				return
			}
			from = to
		}
	}
}

// rankAll sorts the mirrors of r.mask that are not taken yet by rank into
// r.whole, and leaves in r.ends where each rank ends. It returns their number.
func (r *ranking) rankAll() int {
	t, here := r.table, r.table.siteOf(r.place)
	clear(r.ends[:])
	r.ranked = r.ranked[:0]
	for i := range t.seats {
		m := &t.seats[i]
		if r.mask.has(m.mirror) && !r.taken.has(m.mirror) {
			k := here.rankOf(m)
			r.ends[k]++
			r.ranked = append(r.ranked, rankedSeat{m.mirror, uint8(k)})
		}
	}
	sum := uint16(0)
	for k, c := range r.ends {
		r.ends[k] = sum
		sum += c
	}
	n := len(r.ranked)
	if cap(r.whole) < n {
		r.whole = make([]uint16, len(t.seats))
	}
	r.whole = r.whole[:n]
	for _, m := range r.ranked {
		r.whole[r.ends[m.rank]] = m.mirror
		r.ends[m.rank]++
	}
	return n
}

// band takes the eligible mirrors of one geographic band. None of those in r.mask
// may have been taken.
func (r *ranking) band(rank int, mirrors []uint16, flags pickFlags) {
	cands, mask, keys, row := r.cands[:0], r.mask, r.table.keys, r.row
	for _, m := range mirrors {
		if mask.has(m) {
			cands = append(cands, keys[m]|cand(row[m])<<16)
		}
	}
	if r.cands = cands; len(cands) == 0 {
		return
	}
	t := tierCountry
	if rank >= foreign {
		t = tierWorld
	}
	r.end(t, rank, flags)
}

func (r *ranking) begin() { r.cands = r.cands[:0] }

// candidate adds a mirror to the band under way if it is eligible.
func (r *ranking) candidate(m uint16) {
	if r.mask.has(m) && !r.taken.has(m) {
		r.cands = append(r.cands, r.table.keys[m]|cand(r.row[m])<<16)
	}
}

// candidates adds all of r.mask. None of them may have been taken.
func (r *ranking) candidates() {
	cands, keys, row := r.cands, r.table.keys, r.row
	for w, word := range r.mask {
		for ; word != 0; word &= word - 1 {
			m := w<<6 | bits.TrailingZeros64(word)
			cands = append(cands, keys[m]|cand(row[m])<<16)
		}
	}
	r.cands = cands
}

// end takes the best of the band, as many as the list has room for.
func (r *ranking) end(t tier, rank int, flags pickFlags) {
	r.best(t, rank, flags, r.health.lags && r.sink())
}

// best takes the first of the band. With late, some of it lag behind.
func (r *ranking) best(t tier, rank int, flags pickFlags, late bool) {
	room := r.depth - len(r.picks)
	if room <= 0 {
		return
	}
	if r.as.own {
		for i, c := range r.cands {
			if r.table.ownASN[c.mirror()] == r.asn {
				r.cands[i] = c &^ keyForeign
			}
		}
	}
	// Keep the best in order at the front of cands: bands are large, lists are
	// short, and most candidates lose their first comparison. A band of one is in
	// order.
	best := r.cands
	if len(best) > 1 {
		best = best[:0]
		for _, c := range r.cands {
			i := len(best)
			if i < room {
				best = best[:i+1]
			} else if i--; c > best[i] {
				continue
			}
			for ; i > 0 && best[i-1] > c; i-- {
				best[i] = best[i-1]
			}
			best[i] = c
		}
	}
	// Nobody in the band was taken before, and nobody is in it twice.
	for _, c := range best {
		p := pick{mirror: c.mirror(), tier: t, rank: uint8(rank), flags: flags, score: c.score()}
		if c&keyForeign == 0 {
			p.flags |= sameASN
		}
		if late && r.health.lag.has(p.mirror) {
			p.flags |= lagging
			if c&keySunk != 0 {
				p.flags |= sunk
			}
		}
		r.take(p)
	}
}

// The share of a band's bandwidth that its fresh mirrors hold, from which on
// they begin to precede the lagging ones, and from which on they always do.
// After a publication few mirrors are fresh, and a client sends everything to
// the first: if fresh always came first, the world would meet at a few hosts.
const (
	freshSome = 0.3
	freshAll  = 0.6
)

// sink puts the fresh mirrors of the band before the lagging ones, for as large a
// part of the clients as the fresh have bandwidth to serve. It reports whether
// some are lagging.
func (r *ranking) sink() (late bool) {
	lag, weights := r.health.lag, r.table.weights
	if len(r.cands) == 1 {
		return lag.has(r.cands[0].mirror()) // and precedes nobody
	}
	old, all := 0, 0
	for _, c := range r.cands {
		m := c.mirror()
		w := weights[m]
		all += w
		// Without a branch: which mirrors lag is anybody's guess.
		old += w & -int(lag[m>>6]>>(m&63)&1)
	}
	if old == 0 {
		return false
	}
	share := (float64(all-old)/float64(all) - freshSome) / (freshAll - freshSome)
	if r.coin < share {
		for i, c := range r.cands {
			m := c.mirror()
			r.cands[i] = c | keySunk&-cand(lag[m>>6]>>(m&63)&1)
		}
	}
	return true
}

// lastResort answers when no mirror may be listed: an old list is better than
// none. First the configured mirrors, then all public ones, whatever their health;
// a mirror that is private or was caught tampering is never among them. Only when
// nobody at all has the protocol that was asked for does another one serve.
func (r *ranking) lastResort() {
	t := r.table
	for _, want := range [2]scheme{r.want, anyScheme} {
		if want != r.want {
			r.base.and(r.health.list, t.ways[r.tree].schemes[want])
			r.geographic()
			if r.fill(); len(r.picks) > 0 {
				return
			}
		}
		for _, tier := range [2]tier{tierFallback, tierAny} {
			r.base.and(r.health.any, t.ways[r.tree].schemes[want])
			if tier == tierFallback {
				r.base.and(r.base, t.fallback)
			}
			r.mask.and(r.base, t.public)
			r.begin()
			r.candidates()
			r.best(tier, 0, 0, false)
			if len(r.picks) > 0 {
				return
			}
		}
	}
}

// A client that arrives over IPv6 may have nothing else, and zypper tries four
// mirrors: sixesWanted of the first sixesWithin answer over IPv6.
const (
	sixesWanted = 2
	sixesWithin = 4
)

// sixes moves mirrors that are reachable over IPv6 up until there are enough of
// them among the first, without changing the order otherwise. Mirrors from behind
// the end of the list come in at the end of the first ones.
func (r *ranking) sixes() {
	t := r.table
	within := min(sixesWithin, r.limit)
	need := min(sixesWanted, within) - r.countSixes(r.picks[:min(within, len(r.picks))])
	if need <= 0 {
		return
	}
	// Not enough of them in the whole list: look behind its end, a few lists deep,
	// then everywhere.
	for len(r.picks) == r.depth && r.depth < len(t.mirrors) && r.countSixes(r.picks[within:]) < need && r.moreSixes() {
		if r.depth *= 4; r.depth >= 16*r.limit {
			r.depth = len(t.mirrors)
		}
		r.picks = r.picks[:0]
		clear(r.taken)
		r.rank()
	}
	for ; need > 0; need-- {
		from := -1
		for i := within; i < len(r.picks); i++ {
			if t.ipv6.has(r.picks[i].mirror) {
				from = i
				break
			}
		}
		if from < 0 {
			break
		}
		p := r.picks[from]
		p.flags |= promoted
		// In front of the last of the first ones that is not IPv6, which then
		// leads the rest: the order of all others stays.
		to := within - 1
		for to >= 0 && t.ipv6.has(r.picks[to].mirror) {
			to--
		}
		out := r.picks[to]
		copy(r.picks[to:within-1], r.picks[to+1:within])
		r.picks[within-1] = p
		copy(r.picks[within+1:from+1], r.picks[within:from])
		r.picks[within] = out
	}
	if len(r.picks) > r.limit && !r.all {
		r.picks = r.picks[:r.limit]
	}
}

func (r *ranking) countSixes(picks []pick) (n int) {
	for i := range picks {
		if r.table.ipv6.has(picks[i].mirror) {
			n++
		}
	}
	return n
}

// moreSixes reports whether a mirror that may be listed, is reachable over IPv6,
// and was not taken is left.
func (r *ranking) moreSixes() bool {
	for i, w := range r.base {
		if w&r.table.ipv6[i]&^r.taken[i] != 0 {
			return true
		}
	}
	return false
}
