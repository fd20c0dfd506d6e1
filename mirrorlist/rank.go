package mirrorlist

import (
	"encoding/binary"
	"math"
	"net/netip"
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
type draw struct {
	hour   int64    // hours since 1970
	width  int      // mirrors
	scores []uint32 // [class*width+mirror], as the bits of a positive float32
}

// newDraw makes the table of one hour. weights are Mbit/s.
func newDraw(hour int64, names []uint64, weights []int, secret uint64) *draw {
	d := &draw{hour: hour, width: len(names), scores: make([]uint32, classes*len(names))}
	inverse := make([]float64, len(weights))
	for i, w := range weights {
		inverse[i] = 1 / float64(w)
	}
	var b [16]byte
	for class := range classes {
		binary.LittleEndian.PutUint64(b[8:], uint64(hour)<<16|uint64(class))
		row := d.scores[class*d.width:][:d.width]
		for i, name := range names {
			binary.LittleEndian.PutUint64(b[:], name)
			// 53 bits, moved off zero: the logarithm is finite.
			u := (float64(xxh3.HashSeed(b[:], secret)>>11) + 0.5) / (1 << 53)
			row[i] = math.Float32bits(float32(-math.Log(u) * inverse[i]))
		}
	}
	return d
}

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
// offset of its own, so two of them are in use at any time.
type draws []*draw

// at returns the table of a class at a time. Outside the hours it has, the
// nearest one serves: an order that is an hour old is still an order.
func (ds draws) at(now time.Time, class int) *draw {
	hour := hourOf(now, class) - ds[0].hour
	return ds[max(0, min(hour, int64(len(ds)-1)))]
}

// hourOf returns the hour that a class is in. Hours begin at an offset that is
// spread over the classes, so that clients do not all move at once.
func hourOf(now time.Time, class int) int64 {
	return (now.Unix() + int64(class)*3600/classes) / 3600
}

// next returns the tables needed at now and for at least half an hour after it,
// reusing those that ds has.
func (ds draws) next(now time.Time, names []uint64, weights []int, secret uint64) draws {
	first, last := hourOf(now, 0), hourOf(now.Add(30*time.Minute), classes-1)
	var out draws
	for hour := first; hour <= last; hour++ {
		var have *draw
		for _, d := range ds {
			if d.hour == hour {
				have = d
			}
		}
		if have == nil {
			have = newDraw(hour, names, weights, secret)
		}
		out = append(out, have)
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
