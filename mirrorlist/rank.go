package mirrorlist

import (
	"math"
	"math/bits"
	"net/netip"
	"sort"
	"time"

	"github.com/zeebo/xxh3"

	"meridian/internal/hugepages"
)

// Inside a tier or band the order is a weighted rendezvous: every mirror draws a
// number from (class of clients, mirror, hour, secret), and the smallest goes
// first. Divided by the bandwidth, an exponential draw makes mirror i the first
// with probability bandwidth_i / Σ bandwidth (Efraimidis and Spirakis, 2006).
// Logarithms are too slow for a request, so the draws of an hour are a table.

// classes is how many kinds of clients the order tells apart.
const classes = 4096

// A draw is the table of one hour: the same on every node that has the secret.
// Its classes enter the hour one after another, the last class first, and leave
// it so; it has the rows of those that are in it, or will be soon.
type draw struct {
	hour   int64    // hours since 1970
	width  int      // mirrors
	scores []uint32 // [class*width+mirror], as the bits of a positive float32

	// Classes first to end-1 have their rows. The rest of scores must not be read:
	// it may be written while this draw is in use, for the one that comes after.
	first, end int
}

// newDraw makes the table of one hour. weights are Mbit/s.
func newDraw(hour int64, names []uint64, weights []int, secret uint64) *draw {
	d := &draw{hour: hour, width: len(names), scores: hugepages.Make(classes * len(names)), end: classes}
	d.fill(0, classes, names, weights, secret)
	return d
}

// fill computes the rows of the classes first to end-1: each cell is the exponential
// of the xxh3 of 16 bytes, the mirror's name and the class in its hour, divided by
// the bandwidth. There are millions, and a start waits for them: what a column or a
// row has in common of that hash is worked out once.
func (d *draw) fill(first, end int, names []uint64, weights []int, secret uint64) {
	type column struct {
		low, sum uint64
		scale    float32
	}
	columns := make([]column, len(names))
	for i, name := range names {
		low := name ^ (xxh3Low + secret)
		columns[i] = column{low, bits.ReverseBytes64(low) + 16, float32(math.Ln2 / one / float64(weights[i]))}
	}
	for class := first; class < end; class++ {
		high := (uint64(d.hour)<<16 | uint64(class)) ^ (xxh3High - secret)
		row := d.row(class)[:len(columns)]
		for i := range columns {
			c := &columns[i]
			hi, lo := bits.Mul64(c.low, high)
			h := c.sum + high + (hi ^ lo)
			h ^= h >> 37
			h *= 0x165667919e3779f9
			h ^= h >> 32
			row[i] = math.Float32bits(float32(halvings(h)) * c.scale)
		}
	}
}

// What xxh3 mixes into the two halves of 16 bytes.
const (
	xxh3Low  = 0x1f67b3b7a4a44072 ^ 0x78e5c0cc4ee679cb
	xxh3High = 0x2172ffcc7dd05a82 ^ 0x8e2443f7744608b8
)

// one is 1 as a number of fixed point.
const one = 1 << 52

// logarithms[i] holds the binary logarithm of 1 + i/1024, and how much it grows from
// there to the next for each of 2²⁰ steps.
var logarithms = func() (t [1024]struct{ at, slope int64 }) {
	log := func(i int) int64 { return int64(one * math.Log2(1+float64(i)/1024)) }
	for i := range t {
		t[i].at, t[i].slope = log(i), (log(i+1)-log(i))>>20
	}
	return t
}()

// halvings returns how often 2⁶⁴ has to be halved until it is the given number: the
// negative binary logarithm of a fraction, in fixed point. It is positive, never
// grows with the number, and is right to 0.04 % or 1e-9, which no share of clients
// shows; math.Log would be the longest part of a start.
func halvings(number uint64) int64 {
	n := bits.LeadingZeros64(number | 1)
	number <<= n & 63
	t := &logarithms[number>>53&1023]
	return int64(n+1)*one - t.at - t.slope*int64(number>>33&(1<<20-1))
}

// has reports whether the row of a class may be read.
func (d *draw) has(class int) bool { return d.first <= class && class < d.end }

// row returns the draws of one class.
func (d *draw) row(class int) []uint32 { return d.scores[class*d.width:][:d.width] }

// coin returns a number in [0, 1) for one class and hour, independent of the
// draws.
func (d *draw) coin(class int) float64 {
	x := (uint64(d.hour)<<12 | uint64(class)) * 0x9e3779b97f4a7c15
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	return float64(x>>11) / (1 << 53)
}

// draws are the tables of successive hours; a class enters its next hour at an
// offset of its own, so two of them are in use at most times.
type draws []*draw

// at returns the table of a class at a time. Outside the time it was made for the
// nearest one serves: an order that is an hour old is still an order.
func (ds draws) at(now time.Time, class int) *draw {
	i := int(max(0, min(hourOf(now, class)-ds[0].hour, int64(len(ds)-1))))
	if ds[i].has(class) {
		return ds[i]
	}
	for away := 1; ; away++ {
		if i-away >= 0 && ds[i-away].has(class) {
			return ds[i-away]
		}
		if i+away < len(ds) && ds[i+away].has(class) {
			return ds[i+away]
		}
	}
}

// hourOf returns the hour that a class is in. Hours begin at an offset that is
// spread over the classes, so that clients do not all move at once.
func hourOf(now time.Time, class int) int64 {
	return (now.Unix() + int64(class)*3600/classes) / 3600
}

// drawsAhead is how long before a class enters an hour its row is made: longer than
// a keeper is ever held up. One that looks every few seconds makes a few rows each
// time, and never a whole table at once.
const drawsAhead = 5 * time.Minute

// next returns the tables needed at now and until drawsAhead later, reusing the
// rows that ds has. It may be called again only with the draws that it returned
// last, because they grow in place.
func (ds draws) next(now time.Time, names []uint64, weights []int, secret uint64) draws {
	until := now.Add(drawsAhead)
	var out draws
	for hour := hourOf(now, 0); hour <= hourOf(until, classes-1); hour++ {
		// Classes enter and leave an hour in descending order.
		first := sort.Search(classes, func(c int) bool { return hourOf(until, c) >= hour })
		end := sort.Search(classes, func(c int) bool { return hourOf(now, c) > hour })
		d := &draw{hour: hour, width: len(names), first: first, end: end}
		for _, have := range ds {
			if have.hour != hour || first > have.end || end > have.end {
				continue // another hour, or the clock was set back
			}
			d.scores, d.end = have.scores, have.end
			d.first = min(first, have.first)
			d.fill(d.first, have.first, names, weights, secret)
		}
		if d.scores == nil {
			d.scores = hugepages.Make(classes * d.width)
			d.fill(first, end, names, weights, secret)
		}
		out = append(out, d)
	}
	return out
}

// A prefix is what the order sees of a client: hashes of its /24 or /48, so that
// neighbours, and one client behind changing addresses, get one order.
func prefixHash(a netip.Addr, secret uint64) uint64 {
	var b [7]byte
	if a.Is4() {
		v4 := a.As4()
		copy(b[:3], v4[:])
		b[6] = 4
	} else {
		v6 := a.As16()
		copy(b[:6], v6[:])
		b[6] = 6
	}
	return xxh3.HashSeed(b[:], secret)
}
