package mirrorlist

import "math/bits"

// A set holds mirrors by their number, one bit each. All sets of a table have
// the same length.
type set []uint64

func newSet(n int) set { return make(set, (n+63)/64) }

func (s set) has(i uint16) bool { return s[i>>6]>>(i&63)&1 != 0 }
func (s set) add(i uint16)      { s[i>>6] |= 1 << (i & 63) }
func (s set) remove(i uint16)   { s[i>>6] &^= 1 << (i & 63) }

func (s set) empty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return true
}

func (s set) count() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// and stores a ∩ b in s.
func (s set) and(a, b set) {
	a, b = a[:len(s)], b[:len(s)]
	for i := range s {
		s[i] = a[i] & b[i]
	}
}

// and3 stores a ∩ b ∩ c in s.
func (s set) and3(a, b, c set) {
	a, b, c = a[:len(s)], b[:len(s)], c[:len(s)]
	for i := range s {
		s[i] = a[i] & b[i] & c[i]
	}
}

// without stores a \ b in s.
func (s set) without(a, b set) {
	a, b = a[:len(s)], b[:len(s)]
	for i := range s {
		s[i] = a[i] &^ b[i]
	}
}

// each calls f for every member in ascending order.
func (s set) each(f func(i uint16)) {
	for w, word := range s {
		for word != 0 {
			f(uint16(w<<6 | bits.TrailingZeros64(word)))
			word &= word - 1
		}
	}
}
