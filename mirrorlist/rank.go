package mirrorlist

import (
	"encoding/binary"
	"math"
	"net/netip"
	"sort"
	"time"

	"github.com/zeebo/xxh3"
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
	d := &draw{hour: hour, width: len(names), scores: make([]uint32, classes*len(names)), end: classes}
	d.fill(0, classes, names, weights, secret)
	return d
}

// fill computes the rows of the classes first to end-1.
func (d *draw) fill(first, end int, names []uint64, weights []int, secret uint64) {
	inverse := make([]float64, len(weights))
	for i, w := range weights {
		inverse[i] = 1 / float64(w)
	}
	var b [16]byte
	for class := first; class < end; class++ {
		binary.LittleEndian.PutUint64(b[8:], uint64(d.hour)<<16|uint64(class))
		row := d.row(class)
		for i, name := range names {
			binary.LittleEndian.PutUint64(b[:], name)
			// 53 bits, moved off zero: the logarithm is finite.
			u := (float64(xxh3.HashSeed(b[:], secret)>>11) + 0.5) / (1 << 53)
			row[i] = math.Float32bits(float32(-logarithm(u) * inverse[i]))
		}
	}
}

// logarithms[i] holds the logarithm of 1 + i/4096 and the inverse of that.
var logarithms = func() (t [4096]struct{ log, inverse float64 }) {
	for i := range t {
		m := 1 + float64(i)/float64(len(t))
		t[i].log, t[i].inverse = math.Log(m), 1/m
	}
	return t
}()

// logarithm returns the natural logarithm of a normal positive number, as near as
// 1e-13: far nearer than the float32 that it ends up in. A table of an hour takes
// millions, which math.Log makes the longest part of a start.
func logarithm(x float64) float64 {
	bits := math.Float64bits(x)
	t := &logarithms[bits>>40&4095]
	m := math.Float64frombits(bits&(1<<52-1) | 1023<<52) // 1 to 2
	r := m*t.inverse - 1                                 // 0 to 1/4096
	return float64(int(bits>>52)-1023)*math.Ln2 + t.log + r*(1-r*(1.0/2-r*(1.0/3-r/4)))
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
			d.scores = make([]uint32, classes*d.width)
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
