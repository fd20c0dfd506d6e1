// Package stats counts what was served, and never by whom: a counter stands for
// a repository, a country or a kind of system, and nothing of a request is kept
// but the counters that it raised. It keeps the counts of each node apart, in a
// directory or in Redis, and merges them for readers.
//
// A number leaves the process only as a multiple of [Least], totals too: whoever
// subtracts two numbers, of one edition, of two, or of two tables, learns of no
// smaller group. What stays below is folded: it gives up its attributes one after
// another until enough of them are together.
package stats

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"
)

// Least is the smallest count that is ever told, and what every count is a
// multiple of.
const Least = 10

// Whole returns the part of a count that may be told.
func Whole(count uint64) uint64 { return count - count%Least }

// A Table is one kind of statistics: what is counted, by what, and for how long.
type Table struct {
	Name    string
	Columns []string

	// Weekly: a period is a week that begins on a Monday, not a day. Both are UTC.
	Weekly bool

	// fold are the columns in the order in which small cells give them up.
	fold []int
}

// The tables. Of every answered list there is one in Lists and one in Mirrors;
// of one that a system asked for with countme, one in Countme too.
var (
	// Lists: which lists were answered, by the country of the client.
	Lists = &Table{Name: "lists", Columns: []string{"country", "version", "repo", "arch"}, fold: []int{3, 2, 1, 0}}

	// Countme: systems, each once a week and repository, by what they say of
	// themselves: age is 1 for the first week, 2 for the first month, 3 for half a
	// year, 4 for longer. arch is that of the list, system that of the client.
	Countme = &Table{Name: "countme", Columns: []string{"version", "repo", "arch", "age", "variant", "system"}, Weekly: true, fold: []int{4, 5, 2, 3, 1, 0}}

	// Mirrors: lists by the mirror that was first in them, to which dnf sends
	// everything, and the bytes that they are expected to have led to.
	Mirrors = &Table{Name: "mirrors", Columns: []string{"mirror"}, fold: []int{0}}
)

// Tables are all of them.
var Tables = []*Table{Lists, Countme, Mirrors}

// TableNamed returns the table of a name, or nil.
func TableNamed(name string) *Table {
	for _, t := range Tables {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// Labels that stand for no value of their own.
const (
	// Other is a value that was folded, or is not in the vocabulary.
	Other = "other"

	// Unknown is the country of a client without place.
	Unknown = "unknown"

	// Unnamed is the arch of a list for clients that did not say theirs.
	Unnamed = "unnamed"

	// Private stands for every private mirror, and Vault for the vault.
	Private = "private"
	Vault   = "vault"
)

// maxColumns is the number of columns of the widest table.
const maxColumns = 6

// A cell is the labels of one count, in the order of the table's columns; those
// behind them are "".
type cell [maxColumns]string

// all is the cell that has given up everything.
func (t *Table) all() (c cell) {
	for i := range t.Columns {
		c[i] = Other
	}
	return c
}

// column returns the place of a column, or -1.
func (t *Table) column(name string) int { return slices.Index(t.Columns, name) }

// A Value is what is counted of a cell.
type Value struct {
	// Count is a number of lists.
	Count uint64 `json:"count"`

	// Bytes are those that the lists are expected to have led to; 0 but in
	// Mirrors.
	Bytes uint64 `json:"bytes,omitempty"`
}

func (v *Value) add(w Value) { v.Count += w.Count; v.Bytes += w.Bytes }
func (v *Value) sub(w Value) { v.Count -= w.Count; v.Bytes -= w.Bytes }

// whole returns the part of v that may be told, with its part of the bytes.
func (v Value) whole() Value {
	w := Value{Count: Whole(v.Count)}
	if w.Count > 0 {
		high, low := bits.Mul64(v.Bytes, w.Count)
		w.Bytes, _ = bits.Div64(high, low, v.Count) // no more than v.Bytes, so it fits
	}
	return w
}

// A Day is a day of UTC, counted from 1970-01-01.
type Day int32

// DayOf returns the day that t is in.
func DayOf(t time.Time) Day {
	s := t.Unix()
	if s < 0 {
		s -= 86399
	}
	return Day(s / 86400)
}

// Time returns the moment at which the day begins.
func (d Day) Time() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// Monday returns the first day of the week that d is in.
func (d Day) Monday() Day {
	// 1970-01-01 was a Thursday.
	back := (d + 3) % 7
	if back < 0 {
		back += 7
	}
	return d - back
}

func (d Day) String() string { return d.Time().Format(time.DateOnly) }

// MarshalText writes YYYY-MM-DD.
func (d Day) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads YYYY-MM-DD.
func (d *Day) UnmarshalText(text []byte) error {
	t, err := time.Parse(time.DateOnly, string(text))
	if err != nil {
		return fmt.Errorf("%q is no day; write one such as 2026-03-01", text)
	}
	*d = DayOf(t)
	return nil
}

// period returns the first day of the period of t that a day is in.
func (t *Table) period(d Day) Day {
	if t.Weekly {
		return d.Monday()
	}
	return d
}

// length is the number of days of a period.
func (t *Table) length() Day {
	if t.Weekly {
		return 7
	}
	return 1
}

// The vocabulary of what a system says of itself in its User-Agent. The first of
// each is what everything else counts as.
var (
	variants = [1 << variantBits]string{
		Other, "generic", "server", "workstation", "cloud", "container", "coreos", "iot",
		"kde", "xfce", "cinnamon", "matecompiz", "silverblue", "kinoite", "snappy", "soas",
	}
	systems = [1 << systemBits]string{Other, "x86_64", "x86_64_v2", "aarch64", "ppc64le", "s390x", "riscv64", "i386"}
)

const (
	variantBits = 4
	systemBits  = 3
	ages        = 4
)

// A System is what a User-Agent says of a system, in words of the vocabulary. The
// zero value says nothing.
type System struct{ variant, arch uint8 }

// SystemOf reads the User-Agent of libdnf and of what is built on it:
// PRODUCT (NAME VERSION; VARIANT; OS.ARCH). It takes nothing from it but words of
// the vocabulary.
func SystemOf(userAgent string) (s System) {
	open := strings.IndexByte(userAgent, '(')
	if open < 0 || !strings.HasSuffix(userAgent, ")") {
		return s
	}
	parts := strings.Split(userAgent[open+1:len(userAgent)-1], "; ")
	if len(parts) != 3 {
		return s
	}
	if i := slices.Index(variants[:], parts[1]); i > 0 {
		s.variant = uint8(i)
	}
	if name, arch, ok := strings.Cut(parts[2], "."); ok && name == "Linux" {
		if i := slices.Index(systems[:], arch); i > 0 {
			s.arch = uint8(i)
		}
	}
	return s
}

// Variant returns the word for the kind of system, or Other.
func (s System) Variant() string { return variants[s.variant] }

// Arch returns the system's architecture, or Other.
func (s System) Arch() string { return systems[s.arch] }

// ParseAge reads the value of countme, 1 to 4; 0 is for what is none.
func ParseAge(s string) uint8 {
	if len(s) == 1 && '1' <= s[0] && s[0] <= '0'+ages {
		return s[0] - '0'
	}
	return 0
}
