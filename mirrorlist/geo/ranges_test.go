package geo

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func TestRangesLookup(t *testing.T) {
	r := NewRanges([]Entry{
		{prefix("10.0.0.0/8"), 1},
		{prefix("10.1.2.3/16"), 2}, // host bits
		{prefix("10.1.128.0/17"), 3},
		{prefix("10.1.128.0/17"), 4}, // again
		{prefix("10.1.255.255/32"), 5},
		{prefix("0.0.0.0/32"), 6},
		{prefix("255.255.255.255/32"), 7},
		{prefix("::ffff:192.0.2.0/120"), 8},
		{netip.Prefix{}, 9},
		{prefix("2001:db8::/32"), 10},
		{prefix("2001:db8:0:1::/64"), 11},
		{prefix("2001:db8:0:1::ff/128"), 12},
		{prefix("::/128"), 13},
		{prefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"), 14},
	})
	for _, tt := range []struct {
		name string
		addr netip.Addr
		want uint32 // NoPlace: not found
	}{
		{"inside one prefix", addr("10.0.0.1"), 1},
		{"the first address of a prefix", addr("10.0.0.0"), 1},
		{"the last address of a prefix", addr("10.255.255.255"), 1},
		{"one before it", addr("9.255.255.255"), NoPlace},
		{"one after it", addr("11.0.0.0"), NoPlace},
		{"the longer prefix wins, host bits or not", addr("10.1.0.0"), 2},
		{"of equal prefixes the later wins", addr("10.1.128.0"), 4},
		{"a single address inside", addr("10.1.255.255"), 5},
		{"back in the outer prefix after it", addr("10.2.0.0"), 1},
		{"the first address of all", addr("0.0.0.0"), 6},
		{"the last IPv4 address", addr("255.255.255.255"), 7},
		{"an IPv4-mapped prefix is IPv4", addr("192.0.2.77"), 8},
		{"an IPv4-mapped address is IPv4", addr("::ffff:10.0.0.1"), 1},
		{"an IPv4-compatible address is not", addr("::10.0.0.1"), NoPlace},
		{"an IPv4-mapped address with a zone", addr("::ffff:10.0.0.1%eth0"), NoPlace},
		{"inside an IPv6 prefix", addr("2001:db8:ffff::"), 10},
		{"the longer IPv6 prefix wins", addr("2001:db8:0:1::fe"), 11},
		{"a single IPv6 address", addr("2001:db8:0:1::ff"), 12},
		{"the one after it", addr("2001:db8:0:1::100"), 11},
		{"with a zone", addr("2001:db8::1%eth0"), NoPlace},
		{"the first IPv6 address", addr("::"), 13},
		{"the one after it", addr("::1"), NoPlace},
		{"the last IPv6 address", addr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), 14},
		{"no address", netip.Addr{}, NoPlace},
	} {
		got, ok := r.Lookup(KeyOf(tt.addr))
		if got != tt.want || ok != (tt.want != NoPlace) {
			t.Errorf("%s: Lookup(%v) = %d, %v; want %d", tt.name, tt.addr, got, ok, tt.want)
		}
	}
	// 10/8 is in three pieces, 10.1.128/17 in one, ::/32 in three, …
	if got, want := r.Len(), 15; got != want {
		t.Errorf("Len() = %d, want %d", got, want)
	}
}

func TestEmptyRanges(t *testing.T) {
	none, sets := NewSetRanges(nil)
	if len(sets) != 0 {
		t.Errorf("%d sets of nothing", len(sets))
	}
	for name, r := range map[string]*Ranges{
		"nil":         nil,
		"of nothing":  NewRanges(nil),
		"set ranges":  none,
		"only IPv4":   NewRanges([]Entry{{prefix("192.0.2.0/24"), 1}}),
		"only IPv6":   NewRanges([]Entry{{prefix("2001:db8::/32"), 1}}),
		"zero prefix": NewRanges([]Entry{{netip.Prefix{}, 1}}),
	} {
		for _, a := range []string{"0.0.0.0", "203.0.113.1", "::", "2001:db7::1"} {
			if v, ok := r.Lookup(KeyOf(addr(a))); ok {
				t.Errorf("%s: Lookup(%s) = %d", name, a, v)
			}
		}
	}
}

func TestWholeFamilies(t *testing.T) {
	r := NewRanges([]Entry{{prefix("0.0.0.0/0"), 4}, {prefix("::/0"), 6}})
	for a, want := range map[string]uint32{
		"0.0.0.0": 4, "255.255.255.255": 4, "::": 6, "::1.2.3.4": 6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": 6,
	} {
		if v, _ := r.Lookup(KeyOf(addr(a))); v != want {
			t.Errorf("Lookup(%s) = %d, want %d", a, v, want)
		}
	}
	if r.Len() != 2 {
		t.Errorf("Len() = %d, want 2", r.Len())
	}
}

// randomEntries makes prefixes that nest, repeat and touch: all within a few
// bits at both ends of each family and around a /16 and a /64 boundary.
func randomEntries(rng *rand.Rand, n int) []Entry {
	bases := []netip.Addr{
		addr("0.0.0.0"), addr("255.255.255.255"), addr("10.0.255.0"), addr("10.1.0.0"),
		addr("::"), addr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), addr("2001:db8::ffff:ffff:ffff:ff00"), addr("2001:db8:0:1::"),
	}
	entries := make([]Entry, n)
	for i := range entries {
		a := nudge(rng, bases[rng.IntN(len(bases))])
		bits := rng.IntN(a.BitLen() + 1)
		if rng.IntN(4) > 0 { // mostly small, so that the ends matter
			bits = a.BitLen() - rng.IntN(12)
		}
		entries[i] = Entry{netip.PrefixFrom(a, bits), uint32(rng.IntN(5))}
	}
	return entries
}

// nudge changes the low ten bits of a.
func nudge(rng *rand.Rand, a netip.Addr) netip.Addr {
	b := a.AsSlice()
	b[len(b)-1] ^= byte(rng.IntN(256))
	b[len(b)-2] ^= byte(rng.IntN(4))
	a, _ = netip.AddrFromSlice(b)
	return a
}

// brute lists the entries that contain a, longest prefix first, equal prefixes
// by value, none twice; and what the last of the longest says.
func brute(entries []Entry, a netip.Addr) (set []SetMember, innermost uint32) {
	a = a.Unmap()
	innermost = NoPlace
	longest := -1
	for _, e := range entries {
		if e.Prefix.Contains(a) {
			set = append(set, SetMember{e.Value, uint8(e.Prefix.Bits())})
			if e.Prefix.Bits() >= longest {
				longest, innermost = e.Prefix.Bits(), e.Value
			}
		}
	}
	slices.SortFunc(set, func(a, b SetMember) int {
		return cmp.Or(-cmp.Compare(a.Bits, b.Bits), cmp.Compare(a.Value, b.Value))
	})
	return slices.Compact(set), innermost
}

// Whatever the entries, ranges and sets say of every address what a search
// through all entries says.
func TestRangesAgreeWithASearchThroughAllEntries(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 1))
		entries := randomEntries(rng, rng.IntN(60))
		r := NewRanges(entries)
		rs, sets := NewSetRanges(entries)
		check := func(a netip.Addr) {
			wantSet, want := brute(entries, a)
			if got, _ := r.Lookup(KeyOf(a)); got != want {
				t.Fatalf("seed %d: Lookup(%v) = %d, want %d of %v", seed, a, got, want, entries)
			}
			i, ok := rs.Lookup(KeyOf(a))
			if ok != (len(wantSet) > 0) || ok && !slices.Equal(sets[i], wantSet) {
				t.Fatalf("seed %d: set of %v is number %d, %v, want %v of %v", seed, a, i, ok, wantSet, entries)
			}
		}
		for _, e := range entries { // the edges of each
			n, _ := newNetwork(e.Prefix)
			for _, a := range []addr6{n.first, n.last} {
				a := toAddr(a, n.is4)
				for _, a := range []netip.Addr{a.Prev(), a, a.Next()} {
					if a.IsValid() {
						check(a)
					}
				}
			}
		}
		for range 200 {
			check(nudge(rng, randomEntries(rng, 1)[0].Prefix.Addr()))
		}
		used := map[uint32]bool{}
		for _, v := range append(slices.Clone(rs.value4), rs.value6...) {
			used[v] = true
		}
		delete(used, none)
		if len(used) != len(sets) {
			t.Fatalf("seed %d: %d sets, of which %d are used", seed, len(sets), len(used))
		}
	}
}

func toAddr(a addr6, is4 bool) netip.Addr {
	if is4 {
		return netip.AddrFrom4([4]byte{byte(a.lo >> 24), byte(a.lo >> 16), byte(a.lo >> 8), byte(a.lo)})
	}
	var b [16]byte
	for i := range 8 {
		b[i], b[8+i] = byte(a.hi>>(56-8*i)), byte(a.lo>>(56-8*i))
	}
	return netip.AddrFrom16(b)
}

func TestAliasesOfIPv4(t *testing.T) {
	for _, tt := range []struct {
		alias string
		addr  string
		want  string // "" if not inside
	}{
		{"2002::/16", "2002:c000:201::1", "192.0.2.1"},
		{"2002::/16", "2002:ffff:ffff:ffff::", "255.255.255.255"},
		{"2002::/16", "2003:c000:201::1", ""},
		{"2001::/32", "2001:0:c000:201::", "192.0.2.1"},
		{"2001::/32", "2001:1:c000:201::", ""},
		{"64:ff9b::/96", "64:ff9b::192.0.2.1", "192.0.2.1"},
		{"64:ff9b::/96", "64:ff9b::1:c000:201", ""},
		{"2001:db8::/40", "2001:db8:c0:2:100::", "192.0.2.1"},
		{"2001:db8::/40", "2001:db8:100::", ""},
		{"2001:db8::/64", "2001:db8::c000:201:0:0", "192.0.2.1"},
		{"2001:db8:0:0:1::/80", "2001:db8::1:c000:201:7", "192.0.2.1"},
		{"2001:db8:0:0:1::/80", "2001:db8::2:c000:201:7", ""},
	} {
		n, _ := newNetwork(prefix(tt.alias))
		al := alias{hi: n.first.hi, lo: uint32(n.first.lo >> 32), bits: uint32(n.bits)}
		a, _ := newNetwork(netip.PrefixFrom(addr(tt.addr), 128))
		v4, ok := al.cut(a.first)
		got := ""
		if ok {
			got = toAddr(addr6{lo: uint64(v4)}, true).String()
		}
		if got != tt.want {
			t.Errorf("%s in %s is %q, want %q", tt.addr, tt.alias, got, tt.want)
		}
	}
}

func TestRangesLookupAllocatesNothing(t *testing.T) {
	r, _ := NewSetRanges(randomEntries(rand.New(rand.NewPCG(1, 1)), 1000))
	for _, a := range []netip.Addr{addr("10.0.255.3"), addr("::ffff:10.1.0.1"), addr("2001:db8:0:1::5"), addr("fe80::1%eth0")} {
		if n := testing.AllocsPerRun(100, func() { r.Lookup(KeyOf(a)) }); n != 0 {
			t.Errorf("Lookup(%v) allocates %v times", a, n)
		}
	}
}
