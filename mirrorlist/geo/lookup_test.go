package geo

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// flatFind is what a look-up returns, found in the arrays that it is made of.
func flatFind(r *Ranges, k Key) uint32 {
	if k.family == ipv4 {
		i, found := slices.BinarySearch(r.start4, uint32(k.lo))
		if !found {
			i--
		}
		return r.value4[i]
	}
	i, found := slices.BinarySearchFunc(r.start6, k.addr6, func(a, b addr6) int {
		switch {
		case a.less(b):
			return -1
		case b.less(a):
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	return r.value6[i]
}

// randomRanges has n ranges of each family, some of them in a crowd, with values of
// every size.
func randomRanges(rng *rand.Rand, n int, long bool) *Ranges {
	r := &Ranges{start4: []uint32{0}, start6: []addr6{{}}}
	for range n - 1 {
		a4, a6 := rng.Uint32(), addr6{hi: rng.Uint64()}
		switch rng.IntN(3) {
		case 0:
			a4 = 0x0a00_0000 | a4&0xffff
			a6.hi = 0x2001_0db8<<32 | a6.hi&0xfff
		case 1:
			a4 &^= 0xffff // a /16 begins
		}
		if long {
			a6.lo = rng.Uint64N(3)
		}
		r.start4, r.start6 = append(r.start4, a4), append(r.start6, a6)
	}
	r.start4 = append(r.start4, math.MaxUint32)
	r.start6 = append(r.start6, addr6{math.MaxUint64, 0})
	slices.Sort(r.start4)
	slices.SortFunc(r.start6, func(a, b addr6) int {
		if a.less(b) {
			return -1
		}
		return 1
	})
	r.start4, r.start6 = slices.Compact(r.start4), slices.Compact(r.start6)
	for range r.start4 {
		r.value4 = append(r.value4, rng.Uint32())
	}
	for range r.start6 {
		r.value6 = append(r.value6, rng.Uint32())
	}
	return r
}

func TestLookupFindsWhatTheArraysSay(t *testing.T) {
	for _, tt := range []struct {
		name string
		n    int
		long bool
	}{
		{"one range", 1, false},
		{"few", 7, false},
		{"as many as are behind a fence", fence, false},
		{"one fence more", fence + 1, false},
		{"as many as are behind a far fence, with long prefixes", fence * fence, true},
		{"more than that, with long prefixes", 5*fence*fence + 3, true},
		{"so many that there are more blocks", 2 * manyBlocks, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(tt.n), 1))
			r := randomRanges(rng, tt.n, tt.long)
			r.index(carve(aligned(r.tableSize())))
			check := func(k Key) {
				t.Helper()
				want := flatFind(r, k)
				if got, ok := r.Lookup(k); got != want || ok != (want != none) {
					t.Fatalf("Lookup(%+v) = %d, %t, want %d", k, got, ok, want)
				}
			}
			edges := func(i int) {
				if i < len(r.start4) {
					check(Key{addr6{lo: uint64(r.start4[i])}, ipv4})
					check(Key{addr6{lo: uint64(r.start4[i] - 1)}, ipv4})
				}
				if i < len(r.start6) {
					a := r.start6[i]
					check(Key{a, ipv6})
					check(Key{addr6{a.hi, a.lo + 1}, ipv6})
					check(Key{addr6{a.hi, a.lo - 1}, ipv6})
					check(Key{addr6{a.hi - 1, a.lo}, ipv6})
					check(Key{addr6{a.hi, math.MaxUint64}, ipv6})
				}
			}
			for i := range max(len(r.start4), len(r.start6)) {
				edges(i)
			}
			for range 10_000 {
				check(Key{addr6{lo: uint64(rng.Uint32())}, ipv4})
				check(Key{addr6{rng.Uint64(), rng.Uint64()}, ipv6})
			}
		})
	}
}
