package stats

import (
	"runtime"
	"slices"
	"sync/atomic"

	"meridian/schema"
)

// A Layout says what the numbers of a [Tally] stand for. It must not be changed
// after it was given away.
type Layout struct {
	Slots   []Slot
	Mirrors []string // labels of mirrors; several may have one
}

// A Slot is what a list can be asked for. Several slots may have equal names.
type Slot struct {
	Version, Repo, Arch string

	// Bytes is what one list is expected to lead its client to download.
	Bytes uint64
}

func (l *Layout) equal(m *Layout) bool {
	return slices.Equal(l.Slots, m.Slots) && slices.Equal(l.Mirrors, m.Mirrors)
}

// A Tally is the counters that requests raise, for one layout: flat arrays of
// numbers, as large as the layout and no larger, whatever clients send. Raising
// one takes no lock and allocates nothing.
//
// Who holds the pointer may count: a tally is emptied for the last time when
// nobody does, so that no count is lost when a table is replaced under a request
// that began with it.
type Tally struct{ *counters }

// counters are the arrays of a tally.
type counters struct {
	layout *Layout

	lists   []atomic.Uint32 // [slot*countryN + country]
	countme []atomic.Uint32 // [slot*kindN + kind]

	// firsts has a row of mirrors for each different Slot.Bytes, the vault behind
	// the last; rows says where that of a slot begins.
	firsts []atomic.Uint32 // [rows[slot] + mirror]
	rows   []int32
	bytes  []uint64 // by row
}

// kindN is the number of different systems of a slot.
const kindN = ages << (variantBits + systemBits)

// NewTally returns counters of zero.
func NewTally(l *Layout) *Tally {
	c := &counters{
		layout:  l,
		lists:   make([]atomic.Uint32, len(l.Slots)*countryN),
		countme: make([]atomic.Uint32, len(l.Slots)*kindN),
		rows:    make([]int32, len(l.Slots)),
	}
	width := len(l.Mirrors) + 1
	for i, s := range l.Slots {
		row := slices.Index(c.bytes, s.Bytes)
		if row < 0 {
			row = len(c.bytes)
			c.bytes = append(c.bytes, s.Bytes)
		}
		c.rows[i] = int32(row * width)
	}
	c.firsts = make([]atomic.Uint32, len(c.bytes)*width)
	return &Tally{c}
}

// List counts an answered list: for which slot, where the client is, and which
// mirror was first in it. It panics if there is no such slot or mirror.
func (t *Tally) List(slot int, from Country, first int) {
	t.lists[slot*countryN+int(from)].Add(1)
	t.firsts[int(t.rows[slot])+first].Add(1)
	runtime.KeepAlive(t)
}

// ListOfVault counts a list that was the vault alone.
func (t *Tally) ListOfVault(slot int, from Country) { t.List(slot, from, len(t.layout.Mirrors)) }

// Countme counts a system that asked for a slot. age is from ParseAge and is not
// 0.
func (t *Tally) Countme(slot int, age uint8, s System) {
	kind := int(age-1)<<(variantBits+systemBits) | int(s.variant)<<systemBits | int(s.arch)
	t.counters.countme[slot*kindN+kind].Add(1)
	runtime.KeepAlive(t)
}

// drain takes all counts out of the counters.
func (c *counters) drain(add func(*Table, cell, Value)) {
	each := func(counts []atomic.Uint32, f func(i int, n uint64)) {
		for i := range counts {
			if counts[i].Load() != 0 {
				f(i, uint64(counts[i].Swap(0)))
			}
		}
	}
	each(c.lists, func(i int, n uint64) {
		s := &c.layout.Slots[i/countryN]
		add(Lists, cell{countryLabels[i%countryN], s.Version, s.Repo, s.Arch}, Value{Count: n})
	})
	each(c.countme, func(i int, n uint64) {
		s, kind := &c.layout.Slots[i/kindN], i%kindN
		age := kind >> (variantBits + systemBits)
		system := System{uint8(kind >> systemBits % (1 << variantBits)), uint8(kind % (1 << systemBits))}
		add(Countme, cell{s.Version, s.Repo, s.Arch, string(rune('1' + age)), system.Variant(), system.Arch()}, Value{Count: n})
	})
	width := len(c.layout.Mirrors) + 1
	each(c.firsts, func(i int, n uint64) {
		label := Vault
		if m := i % width; m < len(c.layout.Mirrors) {
			label = c.layout.Mirrors[m]
		}
		add(Mirrors, cell{label}, Value{Count: n, Bytes: n * c.bytes[i/width]})
	})
}

// A Country is the number of a country. The zero value is that of clients whose
// country is not known.
type Country uint8

const (
	countryN             = 256
	otherCountry Country = countryN - 1 // a code that is no country
)

// countryLabels has the name of each number; countryNumbers the number of each
// pair of letters, by five bits of each.
var countryLabels, countryNumbers = func() (labels [countryN]string, numbers [1024]Country) {
	labels[0], labels[otherCountry] = Unknown, Other
	n := Country(0)
	for a := byte('A'); a <= 'Z'; a++ {
		for b := byte('A'); b <= 'Z'; b++ {
			code, number := string([]byte{a, b}), otherCountry
			if schema.ValidCountry(code) {
				n++ // ISO 3166-1 has 249
				labels[n], number = code, n
			}
			numbers[pair([2]byte{a, b})] = number
		}
	}
	return labels, numbers
}()

func pair(code [2]byte) int { return int(code[0]&31)<<5 | int(code[1]&31) }

// CountryOf returns the number of a code of two capital letters, or of two zero
// bytes for a country that is not known.
func CountryOf(code [2]byte) Country { return countryNumbers[pair(code)] }
