package geo

import (
	"math/bits"
	"sort"
	"unsafe"
)

// A look-up in millions of ranges waits for memory and for branches that nobody
// can foretell, and for little else. So the ranges are laid out once more for it:
// what it reads together lies together, and it compares without branches, which
// lets a processor begin the next look-up while this one waits.

// A table4 finds the range of an IPv4 address: with the upper bits of it a block,
// and in the block by the lower ones.
type table4 struct {
	// first[h] is where the block of the addresses whose upper bits are h begins;
	// one more closes the last.
	first []uint32

	// A block holds n ranges in 3n-1 numbers: where all but the first of them begin
	// (lower bits; the first reaches in from before), and their n values, the low
	// half of each before the high one.
	blocks []uint16

	shift uint8 // the number of lower bits, at most 16
}

// find returns the value of the range that a is in.
func (t *table4) find(a uint32) uint32 {
	h := int(a >> (t.shift & 31))
	if h+1 >= len(t.first) {
		return none
	}
	block := t.blocks[t.first[h]:t.first[h+1]]
	n := (len(block) + 1) / 3
	key := int(a & (1<<(t.shift&31) - 1))
	i := 0
	for m := n; m > 1; {
		half := m / 2
		i += half & atMost(int(block[i+half-1]), key)
		m -= half
	}
	i = n - 1 + 2*i
	return uint32(block[i]) | uint32(block[i+1])<<16
}

// atMost is -1 if start is not above key, else 0; both are small and not negative.
func atMost(start, key int) int { return (start - key - 1) >> (bits.UintSize - 1) }

// A table6 finds the range of an IPv6 address by the upper half of it, which
// nearly always tells: first among the fences, then in two steps of one fence each.
type table6 struct {
	far  []uint64 // every fence-th of near
	near []uint64 // every fence-th of hi
	hi   []uint64 // the upper half of where each range begins
	lo   []uint64 // the lower half; nil: all are 0, as long as no prefix is over 64

	value []uint32
}

// fence is how many starts lie between two fences: two cache lines of them.
const fence = 16

func (t *table6) find(a addr6) uint32 {
	if len(t.hi) == 0 {
		return none
	}
	i := last(t.far, a.hi)
	i = i*fence + last(group(t.near, i), a.hi)
	i = i*fence + last(group(t.hi, i), a.hi)
	if t.lo != nil && t.hi[i] == a.hi {
		i = t.lastOfEqual(a, i)
	}
	return t.value[i]
}

// lastOfEqual returns the last range up to i that does not begin above a.
func (t *table6) lastOfEqual(a addr6, i int) int {
	return sort.Search(i, func(k int) bool { return a.less(addr6{t.hi[k+1], t.lo[k+1]}) })
}

// group returns what lies behind fence i.
func group(starts []uint64, i int) []uint64 {
	return starts[i*fence : min((i+1)*fence, len(starts))]
}

// last returns the index of the last element that is not above x; the first must
// not be.
func last(starts []uint64, x uint64) int {
	i := 0
	for m := len(starts); m > 1; {
		half := m / 2
		_, above := bits.Sub64(x, starts[i+half], 0)
		i += half & (int(above) - 1)
		m -= half
	}
	return i
}

// memory hands out zeros that begin at a multiple of 8: aligned does, on the heap.
type memory func(bytes int) []byte

func room[T uint16 | uint32 | uint64](m memory, n int) (s []T) {
	view(&s, m(n*int(unsafe.Sizeof(T(0)))))
	return s
}

// index lays out what look-ups need.
func (r *Ranges) index(m memory) {
	if r == nil {
		return
	}
	if len(r.start4) > 0 {
		r.table4 = newTable4(r.start4, r.value4, m)
	}
	if len(r.start6) > 0 {
		r.table6 = newTable6(r.start6, r.value6, m)
	}
}

// Upper bits for which there is a block: few ranges do not need many, and lower
// bits are no more than 16.
const (
	fewBlocks  = 1 << 16
	manyBlocks = 1 << 18
)

func blocksFor(ranges int) int {
	if ranges < manyBlocks {
		return fewBlocks
	}
	return manyBlocks
}

func newTable4(start, value []uint32, m memory) table4 {
	n := blocksFor(len(start))
	t := table4{shift: uint8(32 - bits.Len(uint(n-1)))}
	shift, lower := t.shift&31, uint32(1)<<(t.shift&31)-1
	t.first = room[uint32](m, n+1)
	t.blocks = room[uint16](m, numbers4(len(start)))
	// There are millions, and a start waits for them: first the last range that
	// begins in each block, without a condition, then each block at once.
	for i, s := range start {
		t.first[s>>shift] = uint32(i) // the last one stays
	}
	at, last := 0, uint32(0)
	for h := range n {
		from := last
		last = max(last, t.first[h])
		if from < last && start[from+1]&lower == 0 {
			from++
		}
		t.first[h] = uint32(at)
		inside := start[from+1 : last+1]
		out := t.blocks[at:][:len(inside)]
		for i, s := range inside {
			out[i] = uint16(s & lower)
		}
		at += len(out)
		for _, v := range value[from : last+1] {
			out := t.blocks[at:][:2]
			out[0], out[1] = uint16(v), uint16(v>>16)
			at += 2
		}
	}
	t.first[n] = uint32(at)
	t.blocks = t.blocks[:at:at]
	return t
}

// numbers4 returns how many numbers the blocks of so many ranges have at most: each
// range may reach in from the block before.
func numbers4(ranges int) int { return 3*ranges + 2*blocksFor(ranges) }

func newTable6(start []addr6, value []uint32, m memory) table6 {
	t := table6{hi: room[uint64](m, len(start)), value: room[uint32](m, len(value))}
	copy(t.value, value)
	long := uint64(0)
	for i, a := range start {
		t.hi[i] = a.hi
		long |= a.lo
	}
	if long != 0 {
		t.lo = room[uint64](m, len(start))
		for i, a := range start {
			t.lo[i] = a.lo
		}
	}
	t.near = fences(t.hi, m)
	t.far = fences(t.near, m)
	return t
}

// fences returns every fence-th of starts.
func fences(starts []uint64, m memory) []uint64 {
	out := room[uint64](m, (len(starts)+fence-1)/fence)
	for i := range out {
		out[i] = starts[i*fence]
	}
	return out
}

// tableSize returns how many bytes index asks for at most, with what each of its
// tables may be rounded up by.
func (r *Ranges) tableSize() (n int) {
	if r == nil {
		return 0
	}
	if len(r.start4) > 0 {
		n += 4*(blocksFor(len(r.start4))+1) + 2*numbers4(len(r.start4))
	}
	return n + len(r.start6)*(8+8+4+1) + 8*sectionAlign
}

// carve returns memory that is cut from mem.
func carve(mem []byte) memory {
	return func(n int) []byte {
		out := mem[:n:n]
		mem = mem[align(n):]
		return out
	}
}
