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
// pointers, and is saved, because making it takes longer than a start should.
type orders struct {
	// A place's part of data is data[start[place]:start[place+1]]: for each band
	// its rank, the number of its mirrors, and the mirrors in ascending order.
	start []uint32
	data  []uint16
}

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
	n := 2 + int(bands[1])
	return int(bands[0]), bands[2:n], bands[n:]
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
		at[k] = pos + 2
		pos += 2 + int(n)
		kept += int(n)
		last = k
	}
	start := len(out)
	out = append(out, make([]uint16, pos-start)...)
	for k := 0; k <= last; k++ {
		if count[k] > 0 {
			out[at[k]-2], out[at[k]-1] = uint16(k), count[k]
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
const ordersMagic = "MERIDIAN orders1"

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
	o := &orders{start: make([]uint32, starts), data: uint16s(body[head+4*starts:])}
	for i := range o.start {
		o.start[i] = binary.LittleEndian.Uint32(body[head+4*i:])
	}
	// The checksum says that the file is what was written; this, that what was
	// written can be walked.
	for i := 1; i < starts; i++ {
		from, to := o.start[i-1], o.start[i]
		if from > to || int(to) > n {
			return nil, fmt.Errorf("place %d is out of bounds", i-1)
		}
		for part := o.data[from:to]; len(part) > 0; {
			if len(part) < 2 || len(part) < 2+int(part[1]) || part[0] >= ranks {
				return nil, fmt.Errorf("place %d is damaged", i-1)
			}
			var ids []uint16
			_, ids, part = nextBand(part)
			for _, m := range ids {
				if int(m) >= mirrors {
					return nil, fmt.Errorf("place %d names mirror %d of %d", i-1, m, mirrors)
				}
			}
		}
	}
	return o, nil
}

// uint16s reads little-endian numbers, without copying them where the machine
// writes them like that: the file has millions, and every start reads it.
func uint16s(b []byte) []uint16 {
	if len(b) < 2 {
		return nil
	}
	little := binary.NativeEndian.Uint16([]byte{1, 0}) == 1
	if p := unsafe.Pointer(&b[0]); little && uintptr(p)%unsafe.Alignof(uint16(0)) == 0 {
		return unsafe.Slice((*uint16)(p), len(b)/2)
	}
	out := make([]uint16, len(b)/2)
	for i := range out {
		out[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return out
}
