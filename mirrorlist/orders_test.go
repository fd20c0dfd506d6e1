package mirrorlist

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"meridian/mirrorlist/geo"
)

// The order of a place holds whole bands, nearest first, as deep as it needs to
// be, and every one of its mirrors is in the band of its rank.
func TestOrdersHoldWholeBands(t *testing.T) {
	for seed := uint64(2001); seed < 2005; seed++ {
		w := newWorld(t, seed, 150)
		if w.in.db == nil {
			continue
		}
		g := newGeometry(&w.in)
		o := ordersFor(g)
		if len(o.start) != g.db.Places()+1 {
			t.Fatalf("seed %d: orders of %d places instead of %d", seed, len(o.start)-1, g.db.Places())
		}
		for place := range uint32(g.db.Places()) {
			s := g.siteOf(place)
			of := o.of(place)
			if s.country == ([2]byte{}) {
				if len(of) > 0 {
					t.Fatalf("seed %d: a place without country has an order", seed)
				}
				continue
			}
			total, last := 0, -1
			for len(of) > 0 {
				var rank int
				var mirrors []uint16
				rank, mirrors, of = nextBand(of)
				if total >= orderDepth {
					t.Fatalf("seed %d, place %d: deeper than %d mirrors", seed, place, orderDepth)
				}
				var want []uint16
				for i := range g.seats {
					if s.rankOf(&g.seats[i]) == rank {
						want = append(want, g.seats[i].mirror)
					}
				}
				if rank <= last || !slices.Equal(mirrors, want) {
					t.Fatalf("seed %d, place %d: rank %d after %d holds %v, want %v", seed, place, rank, last, mirrors, want)
				}
				total, last = total+len(mirrors), rank
			}
			if total < min(orderDepth, len(g.seats)) {
				t.Fatalf("seed %d, place %d: %d mirrors of %d", seed, place, total, len(g.seats))
			}
		}
	}
}

func TestOrdersOfAnUnknownPlaceAreEmpty(t *testing.T) {
	var none *orders
	o := &orders{start: []uint32{0, 0}}
	for _, place := range []uint32{1, 2, geo.NoPlace} {
		if len(none.of(place)) > 0 || len(o.of(place)) > 0 {
			t.Errorf("place %d has an order", place)
		}
	}
}

func savedOrders(t testing.TB) (*orders, *geometry, uint64) {
	t.Helper()
	w := newWorld(t, 2001, 60)
	g := newGeometry(&w.in)
	return ordersFor(g), g, ordersKey(g.db, g.seats)
}

func TestSavedOrdersAreTheSame(t *testing.T) {
	o, g, key := savedOrders(t)
	got, err := decodeOrders(o.encode(key), key, len(g.mirrors))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.start, o.start) || !slices.Equal(got.data, o.data) {
		t.Error("what was read is not what was written")
	}
}

// One bit that is wrong anywhere, an end that is missing: refused, and never
// walked.
func TestDamagedOrdersAreRefused(t *testing.T) {
	o, g, key := savedOrders(t)
	file := o.encode(key)
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		bad := slices.Clone(file)
		bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
		if _, err := decodeOrders(bad, key, len(g.mirrors)); err == nil {
			t.Fatal("a file with a wrong bit is read")
		}
	}
	for _, n := range []int{0, 1, len(ordersMagic), len(ordersMagic) + 16, len(file) / 2, len(file) - 1} {
		if _, err := decodeOrders(file[:n], key, len(g.mirrors)); err == nil {
			t.Errorf("the first %d of %d bytes are read", n, len(file))
		}
	}
	if _, err := decodeOrders(append(slices.Clone(file), 0), key, len(g.mirrors)); err == nil {
		t.Error("a file with a byte too many is read")
	}
	if _, err := decodeOrders(file, key, len(g.mirrors)-5); err == nil {
		t.Error("orders with mirrors that are not there are read")
	}
	if _, err := decodeOrders(file, key+1, len(g.mirrors)); !errors.Is(err, errOtherOrders) {
		t.Errorf("orders of another network: %v", err)
	}
}

// Whatever the checksum says: wherever a number stands, one that is too high is
// seen, and the highest that may be there is not.
func TestOrdersOutOfBoundsAreRefused(t *testing.T) {
	const mirrors = 600
	for length := 1; length < 12; length++ {
		for at := range length {
			for _, tt := range []struct {
				number uint16
				good   bool
			}{
				{0, true}, {mirrors - 1, true}, {mirrors, false}, {bandMark - 1, false},
				{bandMark, true}, {bandMark + ranks - 1, true}, {bandMark + ranks, false}, {1<<16 - 1, false},
			} {
				o := &orders{start: []uint32{0, uint32(length + 1)}, data: make([]uint16, length+1)}
				o.data[0], o.data[at+1] = bandMark, tt.number
				_, err := decodeOrders(o.encode(1), 1, mirrors)
				if (err == nil) != tt.good {
					t.Errorf("%#x in place %d of %d: %v", tt.number, at+1, length+1, err)
				}
			}
		}
	}
	for _, tt := range []struct {
		name   string
		orders orders
	}{
		{"an order that does not begin with a band", orders{start: []uint32{0, 2}, data: []uint16{1, bandMark}}},
		{"an order that ends before it begins", orders{start: []uint32{0, 2, 1}, data: []uint16{bandMark, 1}}},
		{"an order behind the end", orders{start: []uint32{0, 3}, data: []uint16{bandMark, 1}}},
	} {
		if _, err := decodeOrders(tt.orders.encode(1), 1, mirrors); err == nil {
			t.Errorf("%s is read", tt.name)
		}
	}
}

// The key changes with everything that the orders depend on.
func TestOrdersKey(t *testing.T) {
	_, g, key := savedOrders(t)
	change := func(f func(s []seat) []seat) uint64 { return ordersKey(g.db, f(slices.Clone(g.seats))) }
	keys := []uint64{
		key,
		ordersKey(nil, g.seats),
		change(func(s []seat) []seat { return s[1:] }),
		change(func(s []seat) []seat { s[3].at = pointAt(1, 2); return s }),
		change(func(s []seat) []seat { s[3].country = [2]byte{'X', 'X'}; return s }),
		change(func(s []seat) []seat { s[3].mirror++; return s }),
	}
	if again := change(func(s []seat) []seat { return s }); again != key {
		t.Error("the same network has two keys")
	}
	slices.Sort(keys)
	if len(slices.Compact(keys)) != 6 {
		t.Error("a change left the key as it was")
	}
}
