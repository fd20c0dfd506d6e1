package mirrorlist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"unsafe"

	"github.com/zeebo/xxh3"

	"meridian/mirrorlist/geo"
)

// orderDepth is how many public mirrors the order of a place holds at least,
// rounded up to whole bands: enough to fill a list of ten when two thirds of
// them are not eligible. What needs more is ranked over the whole network.
const orderDepth = 32

// A site is where the clients of one place are, as ranking sees it.
type site struct {
	at      point
	country [2]byte
}

// seat is where one public mirror is. A mirror without position keeps its
// country, and stands after all mirrors of that country that have one.
type seat struct {
	mirror  uint16
	country [2]byte
	at      point
}

// rankOf returns the rank of a mirror for a place: its band, and foreign more
// when it is in another country.
func (s site) rankOf(m *seat) int {
	b := nowhere
	if m.at.known() && s.at.known() {
		b = band(s.at.chord(m.at))
	}
	if m.country != s.country {
		b += foreign
	}
	return b
}

// ranks is the number of different ranks.
const ranks = 2 * foreign

// orders holds, for every place of a geo database, the nearest public mirrors:
// whole bands, nearest first, in the client's country first. It is flat, without
// pointers, and is saved, because making it takes longer than a start should. Read
// again its memory is not the collector's, so who walks it keeps it alive until the
// end.
type orders struct {
	// A place's part of data is data[start[place]:start[place+1]]: for each band
	// its rank, marked as one, and the mirrors in ascending order.
	start []uint32
	data  []uint16
}

// bandMark marks the rank that a band begins with. No mirror's number is as high.
const bandMark = 1 << 15

// of returns the bands of one place, to be walked with nextBand. Without orders
// there are none, and everything is ranked.
func (o *orders) of(place uint32) []uint16 {
	if o == nil || int(place)+1 >= len(o.start) {
		return nil
	}
	return o.data[o.start[place]:o.start[place+1]]
}

// nextBand splits the first band off.
func nextBand(bands []uint16) (rank int, mirrors, rest []uint16) {
	n := 1
	for n < len(bands) && bands[n] < bandMark {
		n++
	}
	return int(bands[0] - bandMark), bands[1:n], bands[n:]
}

// newOrders computes the orders of n places. sites may be called concurrently.
func newOrders(n int, sites func(i int) (site, bool), seats []seat) *orders {
	const chunk = 1024
	type part struct {
		lengths []uint32
		data    []uint16
	}
	parts := make([]part, (n+chunk-1)/chunk)
	var (
		wg   sync.WaitGroup
		next = make(chan int)
	)
	for range min(runtime.GOMAXPROCS(0), len(parts)) {
		wg.Go(func() {
			r := make([]uint8, len(seats))
			for p := range next {
				first, last := p*chunk, min((p+1)*chunk, n)
				part := part{lengths: make([]uint32, 0, last-first)}
				for i := first; i < last; i++ {
					before := len(part.data)
					if s, ok := sites(i); ok {
						part.data = appendOrder(part.data, s, seats, r)
					}
					part.lengths = append(part.lengths, uint32(len(part.data)-before))
				}
				parts[p] = part
			}
		})
	}
	for p := range parts {
		next <- p
	}
	close(next)
	wg.Wait()

	total := 0
	for _, p := range parts {
		total += len(p.data)
	}
	o := &orders{start: make([]uint32, 1, n+1), data: make([]uint16, 0, total)}
	for _, p := range parts {
		at := uint32(len(o.data))
		for _, l := range p.lengths {
			at += l
			o.start = append(o.start, at)
		}
		o.data = append(o.data, p.data...)
	}
	return o
}

// newOrders computes the orders of all places of the database.
func (g *geometry) newOrders() *orders {
	return newOrders(g.db.Places(), func(i int) (site, bool) {
		s := g.siteOf(uint32(i))
		return s, s.country != [2]byte{}
	}, g.seats)
}

// appendOrder appends the order of one site; r has room for the rank of each
// seat.
func appendOrder(out []uint16, s site, seats []seat, r []uint8) []uint16 {
	var count [ranks]uint16
	for i := range seats {
		k := s.rankOf(&seats[i])
		r[i] = uint8(k)
		count[k]++
	}
	// One position in out for each band that is deep enough to be kept.
	var at [ranks]int
	pos, kept, last := len(out), 0, -1
	for k, n := range count {
		if n == 0 {
			continue
		}
		if kept >= orderDepth {
			break
		}
		at[k] = pos + 1
		pos += 1 + int(n)
		kept += int(n)
		last = k
	}
	start := len(out)
	out = append(out, make([]uint16, pos-start)...)
	for k := 0; k <= last; k++ {
		if count[k] > 0 {
			out[at[k]-1] = bandMark + uint16(k)
		}
	}
	for i := range seats {
		if k := int(r[i]); k <= last {
			out[at[k]] = seats[i].mirror
			at[k]++
		}
	}
	return out
}

// The file of saved orders: ordersMagic, the key of what they were made from,
// the two lengths, start, data, and the xxh3 of all before it; little endian.
const ordersMagic = "MERIDIAN orders2"

// ordersKey identifies what orders depend on.
func ordersKey(db *geo.DB, seats []seat) uint64 {
	h := xxh3.New()
	var b [8 * 5]byte
	binary.LittleEndian.PutUint64(b[:], db.Sum())
	binary.LittleEndian.PutUint64(b[8:], uint64(orderDepth)<<32|uint64(len(seats)))
	_, _ = h.Write(b[:16])
	for _, s := range seats {
		binary.LittleEndian.PutUint64(b[0:], math.Float64bits(s.at.x))
		binary.LittleEndian.PutUint64(b[8:], math.Float64bits(s.at.y))
		binary.LittleEndian.PutUint64(b[16:], math.Float64bits(s.at.z))
		binary.LittleEndian.PutUint64(b[24:], uint64(s.mirror)<<16|uint64(s.country[0])<<8|uint64(s.country[1]))
		_, _ = h.Write(b[:32])
	}
	return h.Sum64()
}

// encode returns the file of o.
func (o *orders) encode(key uint64) []byte {
	b := make([]byte, 0, len(ordersMagic)+16+4*len(o.start)+2*len(o.data)+8)
	b = append(b, ordersMagic...)
	b = binary.LittleEndian.AppendUint64(b, key)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(o.start)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(o.data)))
	for _, v := range o.start {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	for _, v := range o.data {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return binary.LittleEndian.AppendUint64(b, xxh3.Hash(b))
}

var errOtherOrders = errors.New("orders of another network or database")

// decodeOrders reads what encode wrote. errOtherOrders says that they were made
// from something else.
//
// It keeps b, which must not be changed afterwards.
func decodeOrders(b []byte, key uint64, mirrors int) (*orders, error) {
	const head = len(ordersMagic) + 16
	if len(b) < head+8 || string(b[:len(ordersMagic)]) != ordersMagic {
		return nil, errors.New("not a file of orders")
	}
	if binary.LittleEndian.Uint64(b[len(ordersMagic):]) != key {
		return nil, errOtherOrders
	}
	body, sum := b[:len(b)-8], binary.LittleEndian.Uint64(b[len(b)-8:])
	if xxh3.Hash(body) != sum {
		return nil, errors.New("wrong checksum")
	}
	starts := int(binary.LittleEndian.Uint32(b[head-8:]))
	n := int(binary.LittleEndian.Uint32(b[head-4:]))
	if len(body) != head+4*starts+2*n || starts == 0 {
		return nil, errors.New("wrong length")
	}
	o := &orders{
		start: numbers(body[head:head+4*starts], binary.LittleEndian.Uint32),
		data:  numbers(body[head+4*starts:], binary.LittleEndian.Uint16),
	}
	// The checksum says that the file is what was written; this, that what was
	// written can be walked.
	if !inBounds(body[head+4*starts:], mirrors) {
		return nil, fmt.Errorf("a band has rank %d or more, or mirror %d of %d", ranks, mirrors, mirrors)
	}
	last := o.start[0]
	for i, to := range o.start[1:] {
		if last > to || int(to) > n {
			return nil, fmt.Errorf("place %d is out of bounds", i)
		}
		if last < to && o.data[last] < bandMark {
			return nil, fmt.Errorf("place %d does not begin with a band", i)
		}
		last = to
	}
	return o, nil
}

// inBounds reports whether each little-endian uint16 of b is the number of one of
// the mirrors, at most bandMark, or the rank of a band. There are millions, which
// every start reads, so it looks at four at a time: below its mark a number gets
// added what carries into the mark if it is too high.
func inBounds(b []byte, mirrors int) bool {
	const (
		each  = 1<<48 | 1<<32 | 1<<16 | 1
		marks = each * bandMark
		rank  = each * (bandMark - ranks)
	)
	mirror := uint64(bandMark-mirrors) * each
	var high uint64
	for ; len(b) >= 8; b = b[8:] {
		v := binary.LittleEndian.Uint64(b)
		low := v &^ marks
		high |= (low+mirror)&^v | (low+rank)&v
	}
	for ; len(b) > 0; b = b[2:] {
		v := uint64(binary.LittleEndian.Uint16(b))
		low := v &^ marks
		high |= (low+mirror)&^v&0xffff | (low+rank)&v
	}
	return high&marks == 0
}

// numbers reads little-endian numbers, without copying them where the machine
// writes them like that and they lie as it wants them: the file has millions, and
// every start reads it.
func numbers[T uint16 | uint32](b []byte, read func([]byte) T) []T {
	size := int(unsafe.Sizeof(T(0)))
	if len(b) < size {
		return nil
	}
	little := binary.NativeEndian.Uint16([]byte{1, 0}) == 1
	if p := unsafe.Pointer(&b[0]); little && uintptr(p)%unsafe.Alignof(T(0)) == 0 {
		return unsafe.Slice((*T)(p), len(b)/size)
	}
	out := make([]T, len(b)/size)
	for i := range out {
		out[i] = read(b[size*i:])
	}
	return out
}
