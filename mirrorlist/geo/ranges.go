package geo

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"
)

// NoPlace is the number of no place: the address is not in the database.
const NoPlace = ^uint32(0)

// none marks the gaps between ranges. It is NoPlace, so that a look-up of a
// place needs no translation.
const none = NoPlace

// Ranges maps addresses to small numbers. It is immutable and safe for concurrent
// use, and a look-up allocates nothing. A nil Ranges is empty.
type Ranges struct {
	// Flat sorted arrays of the addresses at which the number changes, which are
	// kept and walked: value4[i] holds from start4[i] up to the next start. The
	// first start is 0: the arrays are empty or cover every address, with none in
	// the gaps.
	start4 []uint32
	value4 []uint32
	start6 []addr6
	value6 []uint32

	// What look-ups read instead, made of these.
	table4 table4
	table6 table6

	// aliases are IPv6 networks that stand for the whole of IPv4: 2002::/16.
	aliases []alias
}

// addr6 is an IPv6 address as a number.
type addr6 struct{ hi, lo uint64 }

func (a addr6) less(b addr6) bool {
	return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo
}

// next returns a + 1, and false if a was the last address.
func (a addr6) next() (addr6, bool) {
	lo, carry := bits.Add64(a.lo, 1, 0)
	hi, carry := bits.Add64(a.hi, 0, carry)
	return addr6{hi, lo}, carry == 0
}

// An alias is an IPv6 network in which the 32 bits after the prefix are an IPv4
// address.
type alias struct {
	hi   uint64
	lo   uint32 // the 32 bits that follow; a prefix ends before the last 32
	bits uint32 // at most 96
}

// cut returns the IPv4 address in a, if a is in the network.
func (al alias) cut(a addr6) (uint32, bool) {
	hi, lo := uint64(math.MaxUint64), uint64(0)
	if al.bits < 64 {
		hi = ^(uint64(math.MaxUint64) >> al.bits)
	} else {
		lo = ^(uint64(math.MaxUint64) >> (al.bits - 64))
	}
	if a.hi&hi != al.hi || a.lo&lo != uint64(al.lo)<<32 {
		return 0, false
	}
	switch {
	case al.bits <= 32:
		return uint32(a.hi >> (32 - al.bits)), true
	case al.bits < 64:
		return uint32(a.hi<<(al.bits-32) | a.lo>>(96-al.bits)), true
	default:
		return uint32(a.lo >> (96 - al.bits)), true
	}
}

// A Key is an address as look-ups want it: who makes several makes it once. The
// zero Key is in no range.
type Key struct {
	addr6  // an IPv4 address is in the low half of lo
	family family
}

type family uint8

const (
	noFamily family = iota
	ipv4
	ipv6
)

// KeyOf returns the key of an address. An IPv4-mapped IPv6 address is looked up as
// IPv4; ::a.b.c.d is not. An address that is invalid or has a zone has the zero Key.
func KeyOf(a netip.Addr) Key {
	switch {
	case a.Is4():
		b := a.As4()
		return Key{addr6{lo: uint64(binary.BigEndian.Uint32(b[:]))}, ipv4}
	case !a.Is6() || a.Zone() != "":
		return Key{}
	}
	b := a.As16()
	k := Key{addr6{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}, ipv6}
	if k.hi == 0 && k.lo>>32 == 0xffff {
		return Key{addr6{lo: k.lo & math.MaxUint32}, ipv4}
	}
	return k
}

// Lookup returns the number that holds for an address, and whether there is one;
// value is NoPlace if not.
func (r *Ranges) Lookup(k Key) (value uint32, ok bool) {
	if r == nil {
		return none, false
	}
	switch k.family {
	case ipv4:
		value = r.table4.find(uint32(k.lo))
	case ipv6:
		value = r.find6(k.addr6)
	default:
		value = none
	}
	return value, value != none
}

func (r *Ranges) find6(a addr6) uint32 {
	for _, al := range r.aliases {
		if v4, ok := al.cut(a); ok {
			return r.table4.find(v4)
		}
	}
	return r.table6.find(a)
}

// Len counts the ranges. Gaps are none.
func (r *Ranges) Len() int {
	if r == nil {
		return 0
	}
	n := 0
	for _, values := range [][]uint32{r.value4, r.value6} {
		for _, v := range values {
			if v != none {
				n++
			}
		}
	}
	return n
}

// ranger collects ranges in ascending order, IPv4 and IPv6 apart. Neighbours
// with equal values become one range.
type ranger struct {
	r Ranges

	next4 uint64 // the first address after the last range
	next6 addr6
	full6 bool // the last range reaches the end: next6 means nothing
}

func (b *ranger) add4(first, last uint32, value uint32) {
	if uint64(first) > b.next4 {
		b.push4(uint32(b.next4), none)
	}
	b.push4(first, value)
	b.next4 = uint64(last) + 1
}

func (b *ranger) push4(start, value uint32) {
	if n := len(b.r.value4); n > 0 && b.r.value4[n-1] == value {
		return
	}
	b.r.start4 = append(b.r.start4, start)
	b.r.value4 = append(b.r.value4, value)
}

func (b *ranger) add6(first, last addr6, value uint32) {
	if b.next6.less(first) {
		b.push6(b.next6, none)
	}
	b.push6(first, value)
	next, ok := last.next()
	b.next6, b.full6 = next, !ok
}

func (b *ranger) push6(start addr6, value uint32) {
	if n := len(b.r.value6); n > 0 && b.r.value6[n-1] == value {
		return
	}
	b.r.start6 = append(b.r.start6, start)
	b.r.value6 = append(b.r.value6, value)
}

// done closes the last gaps and returns the ranges; b must not be used again.
func (b *ranger) done() *Ranges {
	if len(b.r.start4) > 0 && b.next4 <= math.MaxUint32 {
		b.push4(uint32(b.next4), none)
	}
	if len(b.r.start6) > 0 && !b.full6 {
		b.push6(b.next6, none)
	}
	b.r.index(aligned)
	return &b.r
}

// An Entry gives all addresses of a network a number.
type Entry struct {
	// Prefix may have host bits, which do not count. An IPv4-mapped prefix
	// (::ffff:192.0.2.0/120) means the IPv4 network. A zero Prefix is ignored.
	Prefix netip.Prefix

	// Value is below NoPlace.
	Value uint32
}

// NewRanges returns the ranges of entries. Where several contain an address the
// longest prefix wins; of equal prefixes, the later entry.
func NewRanges(entries []Entry) *Ranges {
	nets := flatten(entries)
	b := newRanger(nets)
	sweep(nets, func(first, last addr6, is4 bool, innermost int) {
		b.add(first, last, is4, nets[innermost].value)
	})
	return b.done()
}

// A SetMember is one entry of the set that an address is in.
type SetMember struct {
	Value uint32
	Bits  uint8 // length of the entry's prefix, of 32 or of 128
}

// NewSetRanges is NewRanges for entries that all count where they overlap: the
// number that Lookup returns is the index of a set, which lists the entries that
// contain the address, longest prefix first and equal prefixes by Value. An
// entry that is there twice is listed once.
func NewSetRanges(entries []Entry) (r *Ranges, sets [][]SetMember) {
	nets := flatten(entries)
	b := newRanger(nets)
	numbers := make([]uint32, len(nets)) // of the set, plus 1, by innermost network
	alone := make([]SetMember, 0, len(nets))
	sets = make([][]SetMember, 0, len(nets))
	sweep(nets, func(first, last addr6, is4 bool, innermost int) {
		if numbers[innermost] == 0 {
			n := &nets[innermost]
			if n.outer >= 0 {
				sets = append(sets, members(nets, innermost))
			} else { // as nearly all are: without an array of its own
				alone = append(alone, SetMember{Value: n.value, Bits: n.bits})
				sets = append(sets, alone[len(alone)-1:len(alone):len(alone)])
			}
			numbers[innermost] = uint32(len(sets))
		}
		b.add(first, last, is4, numbers[innermost]-1)
	})
	return b.done(), sets
}

// members lists network i, its equals, and all networks around them.
func members(nets []network, i int) []SetMember {
	var set []SetMember
	for ; i >= 0; i = nets[i].outer {
		m := SetMember{Value: nets[i].value, Bits: nets[i].bits}
		set = append(set, m)
	}
	slices.SortFunc(set, func(a, b SetMember) int {
		return cmp.Or(cmp.Compare(b.Bits, a.Bits), cmp.Compare(a.Value, b.Value))
	})
	return slices.Compact(set)
}

// newRanger has room for the ranges of nets, and as many gaps.
func newRanger(nets []network) *ranger {
	n4, _ := slices.BinarySearchFunc(nets, false, func(n network, _ bool) int {
		if n.is4 {
			return -1
		}
		return 1
	})
	room4, room6 := 2*n4, 2*(len(nets)-n4)
	b := new(ranger)
	b.r.start4, b.r.value4 = make([]uint32, 0, room4), make([]uint32, 0, room4)
	b.r.start6, b.r.value6 = make([]addr6, 0, room6), make([]uint32, 0, room6)
	return b
}

func (b *ranger) add(first, last addr6, is4 bool, value uint32) {
	if is4 {
		b.add4(uint32(first.lo), uint32(last.lo), value)
	} else {
		b.add6(first, last, value)
	}
}

// network is an entry as numbers. An IPv4 address is in the low half of lo.
type network struct {
	first, last addr6
	value       uint32
	outer       int // index of the smallest network around it, or -1
	is4         bool
	bits        uint8
}

// flatten turns entries into networks: IPv4 first, ascending, an outer network
// before the inner ones, and equal ones in the order of entries.
func flatten(entries []Entry) []network {
	nets := make([]network, 0, len(entries))
	for _, e := range entries {
		if n, ok := newNetwork(e.Prefix); ok {
			n.value = e.Value
			nets = append(nets, n)
		}
	}
	return sortRuns(nets)
}

// precedes is the order of flatten.
func (n *network) precedes(m *network) bool {
	switch {
	case n.is4 != m.is4:
		return n.is4
	case n.first != m.first:
		return n.first.less(m.first)
	}
	return n.bits < m.bits
}

// sortRuns sorts nets stably, by merging what ascends already: the entries are
// mostly a few sorted lists, one after another.
func sortRuns(nets []network) []network {
	ends := []int{0}
	for i := range nets {
		if i > 0 && nets[i].precedes(&nets[i-1]) {
			ends = append(ends, i)
		}
	}
	ends = append(ends, len(nets))
	var out []network
	for len(ends) > 2 {
		if out == nil {
			out = make([]network, len(nets))
		}
		merged := ends[:1]
		for i := 2; i < len(ends); i += 2 {
			merge(out[ends[i-2]:ends[i]], nets[ends[i-2]:ends[i-1]], nets[ends[i-1]:ends[i]])
			merged = append(merged, ends[i])
		}
		if len(ends)%2 == 0 { // one is left over
			copy(out[ends[len(ends)-2]:], nets[ends[len(ends)-2]:])
			merged = append(merged, len(nets))
		}
		nets, out, ends = out, nets, merged
	}
	return nets
}

// merge fills out with a and b, which ascend; of equal networks those of a first.
func merge(out, a, b []network) {
	for i := range out {
		if len(a) == 0 || len(b) > 0 && b[0].precedes(&a[0]) {
			out[i], b = b[0], b[1:]
		} else {
			out[i], a = a[0], a[1:]
		}
	}
}

func newNetwork(p netip.Prefix) (network, bool) {
	if !p.IsValid() {
		return network{}, false
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	p = p.Masked()
	n := network{is4: p.Addr().Is4(), bits: uint8(p.Bits()), outer: -1}
	if n.is4 {
		b := p.Addr().As4()
		first := binary.BigEndian.Uint32(b[:])
		n.first.lo = uint64(first)
		n.last.lo = uint64(first | uint32(uint64(math.MaxUint32)>>n.bits))
		return n, true
	}
	b := p.Addr().As16()
	n.first = addr6{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
	n.last = lastAddr6(n.first, int(n.bits))
	return n, true
}

// lastAddr6 returns the last address of the network first/bits.
func lastAddr6(first addr6, bits int) addr6 {
	if bits < 64 {
		return addr6{first.hi | math.MaxUint64>>bits, math.MaxUint64}
	}
	return addr6{first.hi, first.lo | uint64(math.MaxUint64)>>(bits-64)}
}

// sweep cuts nets, as flatten returns them, into disjoint ranges and calls emit
// for each in ascending order with the innermost network around it; of equal
// networks that is the last. It sets outer on the way: when emit is called, it is
// right for the network named and all around it.
func sweep(nets []network, emit func(first, last addr6, is4 bool, innermost int)) {
	top := -1 // the innermost network that is open
	var at addr6
	// leave closes the networks that end before n begins; at is the first address
	// nobody has been told of yet.
	leave := func(until *network) {
		for top >= 0 {
			t := &nets[top]
			if until != nil && until.is4 == t.is4 && !t.last.less(until.first) {
				return // until is inside t
			}
			if !t.last.less(at) {
				emit(at, t.last, t.is4, top)
				next, ok := t.last.next()
				if !ok {
					top = -1 // nothing is left to tell of
					return
				}
				at = next
			}
			top = t.outer
		}
	}
	for i := range nets {
		n := &nets[i]
		leave(n)
		if top >= 0 && at.less(n.first) {
			emit(at, before(n.first), n.is4, top)
		}
		n.outer = top
		top, at = i, n.first
	}
	leave(nil)
}

// before returns a - 1; a is not the first address.
func before(a addr6) addr6 {
	lo, borrow := bits.Sub64(a.lo, 1, 0)
	return addr6{a.hi - borrow, lo}
}
