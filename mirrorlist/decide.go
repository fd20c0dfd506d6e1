package mirrorlist

import (
	"math/bits"
	"net/netip"
	"runtime"
	"slices"
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
	key    cand // what it was ordered by
	mirror uint16
	tier   tier
	flags  pickFlags
}

type pickFlags uint8

const (
	filled   pickFlags = 1 << iota // only fills the list
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

	mask  set    // who may still be taken
	fresh set    // see freshOnes
	cands []cand // room for every mirror

	// For what the precomputed orders do not reach.
	ranked []rankedSeat
	whole  []uint16    // all that is left, as orders hold it
	at     [ranks]uint // where each rank goes on in whole

	body []byte
}

type rankedSeat struct {
	mirror uint16
	rank   uint8
}

// cand is a candidate as the number that orders it, smaller first: by rank, then
// last in the band, sunk, not in the client's ASN, then the draw; the number of
// the mirror breaks ties.
//
// Until they are put in order, keyLags marks those that lag.
type cand uint64

const (
	drawShift = 16 // 32 bits
	sunkShift = 49
	rankShift = 51 // 7 bits
	lagsShift = 63

	keyForeign cand = 1 << 48
	keySunk    cand = 1 << sunkShift
	keyLast    cand = 1 << 50
	keyLags    cand = 1 << lagsShift
)

func (c cand) mirror() uint16 { return uint16(c) }
func (c cand) rank() uint8    { return uint8(c >> rankShift & (ranks - 1)) }
func (c cand) sameASN() bool  { return c&keyForeign == 0 }
func (c cand) sunk() bool     { return c&keySunk != 0 }

func (s *scratch) fit(t *Table) {
	if n := len(t.public); len(s.mask) != n {
		s.mask, s.fresh = make(set, n), make(set, n)
		s.cands = make([]cand, 0, 64*n)
	}
	s.picks = s.picks[:0]
}

// decide answers a question. It is pure: everything it depends on is in the
// table and the question. The answer is s.picks.
func (t *Table) decide(q *question, s *scratch) {
	s.fit(t)
	h := &t.health[q.slot]
	at := geo.KeyOf(q.addr)
	s.place, s.asn = t.db.Lookup(at)
	s.home = t.db.Country(s.place)
	class := int(q.hash % classes)
	d := t.draws.at(q.now, class)
	r := ranking{table: t, question: q, scratch: s, health: h, row: d.row(class), coin: d.coin(class), depth: q.limit}
	if q.all {
		r.depth = max(q.limit, len(t.mirrors))
	}

	if q.addr.IsValid() {
		r.subnets, r.clouds, r.as = t.subnetsOf(at), t.cloudsOf(at), t.asns[s.asn]
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
	list   set      // may be listed,
	reach  set      // and has the scheme
	late   bool     // some candidates lag
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
	r.list, r.reach = r.health.list, r.table.ways[r.tree].schemes[r.want]
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
	p.mirror, p.key = uint16(best), t.keys[best]
	r.picks = append(r.picks, p)
	return true
}

// onNet takes the mirrors that serve the client's own network: by subnet, the
// longest prefix first, then by cloud, then by autonomous system.
func (r *ranking) onNet() {
	t := r.table
	r.mask.and(r.list, r.reach)
	if r.country != ([2]byte{}) {
		r.mask.and(r.mask, t.countrySet(r.country))
	}
	if r.public {
		r.mask.and(r.mask, t.public)
	}
	if t.drain != nil {
		r.mask.without(r.mask, t.drain)
	}
	r.cands = r.cands[:0]
	for on := r.subnets; len(on) > 0; {
		n := 1
		for n < len(on) && on[n].bits == on[0].bits {
			n++
		}
		for _, o := range on[:n] {
			r.candidate(o.mirror)
		}
		r.group(tierSubnet)
		on = on[n:]
	}
	for on := r.clouds; len(on) > 0; {
		n := 1
		for n < len(on) && on[n].tier == on[0].tier {
			n++
		}
		for _, o := range on[:n] {
			r.candidate(o.mirror)
		}
		r.group(on[0].tier)
		on = on[n:]
	}
	for _, m := range r.as.declared {
		r.candidate(m)
	}
	r.group(tierASN)
}

// candidate adds a mirror to the group under way if it is eligible.
func (r *ranking) candidate(m uint16) {
	if !r.mask.has(m) {
		return
	}
	c := r.table.keys[m] | cand(r.row[m])<<drawShift
	if r.health.lag.has(m) {
		c |= keyLags
		r.late = true
	}
	r.cands = append(r.cands, c)
}

// group takes the best of a group on-net, and begins the next one.
func (r *ranking) group(t tier) {
	r.best(t, 0)
	r.cands = r.cands[:0]
	r.drop()
}

// drop takes those out of r.mask that were taken.
func (r *ranking) drop() {
	for i := range r.picks {
		r.mask.remove(r.picks[i].mirror)
	}
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
		r.mask.and3(r.list, r.reach, t.public)
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
	if len(r.picks) > 0 {
		r.drop()
	}
	if r.home == ([2]byte{}) {
		r.candidates()
		r.best(tierShuffle, flags)
		return
	}
	orders := r.table.orders
	r.bands(orders.of(r.place), flags)
	runtime.KeepAlive(orders) // its memory may not be the collector's
	if len(r.picks) < r.depth {
		// What the order of this place does not reach: rank all that is left.
		r.drop()
		r.bands(r.rankAll(), flags)
	}
}

// rankAll returns the order of the mirrors in r.mask, as orders hold it.
func (r *ranking) rankAll() []uint16 {
	t, here := r.table, r.table.siteOf(r.place)
	var count [ranks]uint16
	r.ranked = r.ranked[:0]
	for i := range t.seats {
		m := &t.seats[i]
		if r.mask.has(m.mirror) {
			k := here.rankOf(m)
			count[k]++
			r.ranked = append(r.ranked, rankedSeat{m.mirror, uint8(k)})
		}
	}
	r.whole = slices.Grow(r.whole[:0], len(t.seats)+ranks)
	for k, n := range count {
		if n == 0 {
			continue
		}
		r.whole = append(r.whole, bandMark+uint16(k))
		r.at[k] = uint(len(r.whole))
		r.whole = r.whole[:len(r.whole)+int(n)]
	}
	for _, m := range r.ranked {
		r.whole[r.at[m.rank]] = m.mirror
		r.at[m.rank]++
	}
	return r.whole
}

// bands takes the mirrors of r.mask that come first in an order of whole bands,
// as many as the list has room for. None of them may have been taken.
func (r *ranking) bands(order []uint16, flags pickFlags) {
	room, rank := r.depth-len(r.picks), cand(0)
	fresh, row := r.freshOnes(), r.row
	mask, keys := r.mask[:len(fresh)], r.table.keys[:len(row)]
	cands, n, late := r.cands[:cap(r.cands)], 0, false
	for _, m := range order {
		if m >= bandMark {
			if n >= room {
				break
			}
			rank = cand(m-bandMark) << rankShift
			continue
		}
		c := rank
		if fresh[m>>6]>>(m&63)&1 == 0 {
			if mask[m>>6]>>(m&63)&1 == 0 {
				continue
			}
			c |= keyLags
			late = true
		}
		cands[n] = c | keys[m] | cand(row[m])<<drawShift
		n++
	}
	r.cands, r.late = cands[:n], late
	r.best(tierCountry, flags)
}

// freshOnes returns the mirrors of r.mask that do not lag. It is one test for most
// candidates, of whom few lag.
func (r *ranking) freshOnes() set {
	if !r.health.lags {
		return r.mask
	}
	r.fresh.without(r.mask, r.health.lag)
	return r.fresh
}

// candidates are all of r.mask. None of them may have been taken.
func (r *ranking) candidates() {
	r.cands = r.cands[:0]
	fresh := r.freshOnes()
	r.members(fresh, 0)
	if r.health.lags {
		n := len(r.cands)
		fresh.without(r.mask, fresh)
		r.members(fresh, keyLags)
		r.late = len(r.cands) > n
	}
}

// members adds all of a set to the candidates.
func (r *ranking) members(of set, mark cand) {
	cands, n, row := r.cands[:cap(r.cands)], len(r.cands), r.row
	keys := r.table.keys[:len(row)]
	for w, word := range of {
		for ; word != 0; word &= word - 1 {
			m := w<<6 | bits.TrailingZeros64(word)
			cands[n] = mark | keys[m] | cand(row[m])<<drawShift
			n++
		}
	}
	r.cands = cands[:n]
}

// best takes the first of r.cands, as many as the list has room for. Of the
// geographic tiers t is the first: the rank tells them apart.
func (r *ranking) best(t tier, flags pickFlags) {
	cands, room := r.cands, r.depth-len(r.picks)
	if room <= 0 {
		return
	}
	if r.as.own {
		for i, c := range cands {
			if r.table.ownASN[c.mirror()] == r.asn {
				cands[i] = c &^ keyForeign
			}
		}
	}
	if r.late {
		r.late = false
		for i := 0; i < len(cands); i++ {
			if cands[i]&keyLags != 0 {
				i = r.sink(i) - 1
			}
		}
	}
	// Keep the best in order at the front of cands: there may be many, lists are
	// short, and most candidates lose their first comparison.
	n := min(room, len(cands))
	for i, c := range cands[:n] {
		insert(cands[:n], i, c&^keyLags)
	}
	for _, c := range cands[n:] {
		if c &^= keyLags; c < cands[n-1] {
			insert(cands[:n], n-1, c)
		}
	}
	// Nobody among them was taken before, and nobody is there twice.
	had := len(r.picks)
	r.picks = slices.Grow(r.picks, n)[:had+n]
	picks := r.picks[had:]
	for i, c := range cands[:len(picks)] {
		picks[i] = pick{c, c.mirror(), t + tier(c.rank()/foreign), flags}
	}
}

// insert puts c where it belongs among the first i, and moves those behind it to
// make room.
func insert(cands []cand, i int, c cand) {
	for ; i > 0 && cands[i-1] > c; i-- {
		cands[i] = cands[i-1]
	}
	cands[i] = c
}

// The share of a band's bandwidth that its fresh mirrors hold, from which on
// they begin to precede the lagging ones, and from which on they always do.
// After a publication few mirrors are fresh, and a client sends everything to
// the first: if fresh always came first, the world would meet at a few hosts.
const (
	freshSome = 0.3
	freshAll  = 0.6
)

// sink puts the fresh mirrors of the band that candidate i is in before the lagging
// ones, for as large a part of the clients as the fresh have bandwidth to serve. It
// returns where the band ends.
func (r *ranking) sink(i int) (end int) {
	rank, begin := r.cands[i].rank(), i
	for begin > 0 && r.cands[begin-1].rank() == rank {
		begin--
	}
	for end = i; end < len(r.cands) && r.cands[end].rank() == rank; end++ {
	}
	band := r.cands[begin:end]
	weights := r.table.weights
	old, all := 0, 0
	for _, c := range band {
		w := weights[c.mirror()]
		all += w
		// Without a branch: which mirrors lag is anybody's guess.
		old += w & -int(c>>lagsShift)
	}
	share := (float64(all-old)/float64(all) - freshSome) / (freshAll - freshSome)
	if r.coin < share {
		for i, c := range band {
			band[i] = c | c>>(lagsShift-sunkShift)&keySunk
		}
	}
	return end
}

// lastResort answers when no mirror may be listed: an old list is better than
// none. First the configured mirrors, then all public ones, whatever their health;
// a mirror that is private or was caught tampering is never among them. Only when
// nobody at all has the protocol that was asked for does another one serve.
func (r *ranking) lastResort() {
	t := r.table
	for _, want := range [2]scheme{r.want, anyScheme} {
		r.reach = t.ways[r.tree].schemes[want]
		if want != r.want {
			r.list = r.health.list
			r.geographic()
			if r.fill(); len(r.picks) > 0 {
				return
			}
		}
		r.list = r.health.any
		for _, tier := range [2]tier{tierFallback, tierAny} {
			r.mask.and3(r.list, r.reach, t.public)
			if tier == tierFallback {
				r.mask.and(r.mask, t.fallback)
			}
			r.candidates()
			if r.best(tier, 0); len(r.picks) > 0 {
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
	n := 0 // with those that were taken
	for i, w := range r.table.ipv6 {
		n += bits.OnesCount64(w & r.list[i] & r.reach[i])
	}
	return n > r.countSixes(r.picks)
}
