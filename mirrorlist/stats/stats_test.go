package stats

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"meridian/schema"
)

func TestDays(t *testing.T) {
	for _, tt := range []struct {
		at           string
		day, monday  string
		sinceThe1970 Day
	}{
		{"1970-01-01T00:00:00Z", "1970-01-01", "1969-12-29", 0},
		{"1969-12-31T23:59:59Z", "1969-12-31", "1969-12-29", -1},
		{"1969-12-28T12:00:00Z", "1969-12-28", "1969-12-22", -4},
		{"2026-03-01T23:59:59Z", "2026-03-01", "2026-02-23", 20513},
		{"2026-03-02T00:00:00Z", "2026-03-02", "2026-03-02", 20514},
		{"2026-03-02T00:30:00+02:00", "2026-03-01", "2026-02-23", 20513},
		{"2024-02-29T12:00:00Z", "2024-02-29", "2024-02-26", 19782},
	} {
		at, err := time.Parse(time.RFC3339, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		d := DayOf(at)
		if d != tt.sinceThe1970 || d.String() != tt.day || d.Monday().String() != tt.monday || d.Monday().Time().Weekday() != time.Monday {
			t.Errorf("%s is day %d, %s, of the week of %s; want %d, %s, %s", tt.at, d, d, d.Monday(), tt.sinceThe1970, tt.day, tt.monday)
		}
		var back Day
		if err := back.UnmarshalText([]byte(tt.day)); err != nil || back != d {
			t.Errorf("%s reads back as %s, %v", tt.day, back, err)
		}
	}
	var d Day
	for _, bad := range []string{"", "2026-3-1", "2026-02-30", "yesterday", "2026-03-01T00:00:00Z"} {
		if d.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q is read as %s", bad, d)
		}
	}
}

func TestSystemOf(t *testing.T) {
	for _, tt := range []struct{ agent, variant, arch string }{
		{"libdnf (AlmaLinux 9.8; generic; Linux.x86_64)", "generic", "x86_64"},
		{"libdnf/0.73.1 (AlmaLinux 10.2; server; Linux.x86_64_v2)", "server", "x86_64_v2"},
		{"rpm-ostree (Fedora Linux 42; coreos; Linux.aarch64)", "coreos", "aarch64"},
		{"libdnf (AlmaLinux 9.8; alices-laptop; Linux.x86_64)", Other, "x86_64"},
		{"libdnf (AlmaLinux 9.8; generic; Linux.vax)", "generic", Other},
		{"libdnf (AlmaLinux 9.8; generic; Darwin.x86_64)", "generic", Other},
		{"libdnf (AlmaLinux 9.8; generic; x86_64)", "generic", Other},
		{"libdnf (AlmaLinux 9.8; other; Linux.other)", Other, Other},
		{"libdnf", Other, Other},
		{"libdnf (AlmaLinux 9.8; generic; Linux.x86_64", Other, Other},
		{"libdnf (generic; Linux.x86_64)", Other, Other},
		{"libdnf (a; b; generic; Linux.x86_64)", Other, Other},
		{"()", Other, Other},
		{")(", Other, Other},
		{"", Other, Other},
		{"curl/8.5", Other, Other},
	} {
		if s := SystemOf(tt.agent); s.Variant() != tt.variant || s.Arch() != tt.arch {
			t.Errorf("SystemOf(%q) = %s, %s; want %s, %s", tt.agent, s.Variant(), s.Arch(), tt.variant, tt.arch)
		}
	}
	for s, want := range map[string]uint8{"1": 1, "2": 2, "3": 3, "4": 4, "0": 0, "5": 0, "": 0, "11": 0, "01": 0, "+1": 0, "-1": 0, "1 ": 0, "a": 0, "١": 0} {
		if got := ParseAge(s); got != want {
			t.Errorf("ParseAge(%q) = %d, want %d", s, got, want)
		}
	}
}

func TestCountriesAreToldApart(t *testing.T) {
	seen := map[string]bool{}
	for a := byte('A'); a <= 'Z'; a++ {
		for b := byte('A'); b <= 'Z'; b++ {
			code := string([]byte{a, b})
			label := countryLabels[CountryOf([2]byte{a, b})]
			switch {
			case !schema.ValidCountry(code):
				if label != Other {
					t.Errorf("%s, which is no country, counts as %q", code, label)
				}
			case label != code || seen[label]:
				t.Errorf("%s counts as %q", code, label)
			}
			seen[code] = true
		}
	}
	if got := countryLabels[CountryOf([2]byte{})]; got != Unknown {
		t.Errorf("no country counts as %q", got)
	}
}

// layout is one with n slots and m mirrors, of which the last is private.
func layout(n, m int) *Layout {
	l := &Layout{}
	for i := range n {
		l.Slots = append(l.Slots, Slot{Version: fmt.Sprintf("9.%d", i%3), Repo: fmt.Sprintf("repo%d", i/3), Arch: "x86_64", Bytes: uint64(i % 2)})
	}
	for i := range m {
		l.Mirrors = append(l.Mirrors, fmt.Sprintf("m%d.example.org", i))
	}
	l.Mirrors[m-1] = Private
	return l
}

// cells is what a tally has counted, as text.
func cells(t *Tally) []string {
	var out []string
	t.counters.drain(func(table *Table, c cell, v Value) {
		out = append(out, fmt.Sprintf("%s %s %d %d", table.Name, strings.Join(c[:len(table.Columns)], " "), v.Count, v.Bytes))
	})
	slices.Sort(out)
	return out
}

func TestTallyCounts(t *testing.T) {
	l := &Layout{
		Slots: []Slot{
			{"9.8", "baseos", Unnamed, 5}, {"9.8", "baseos", "x86_64", 5}, {"10.2", "appstream", "aarch64", 7},
		},
		Mirrors: []string{"a.example.org", Private, "c.example.org"},
	}
	y := NewTally(l)
	de, none := CountryOf([2]byte{'D', 'E'}), CountryOf([2]byte{})
	y.List(0, de, 0)
	y.List(0, de, 2)
	y.List(1, none, 1)
	y.List(2, CountryOf([2]byte{'Z', 'W'}), 2)
	y.List(2, CountryOf([2]byte{'A', 'D'}), 2)
	y.ListOfVault(2, CountryOf([2]byte{'X', 'X'}))
	y.Countme(0, 1, System{})
	y.Countme(2, 4, SystemOf("libdnf (x; soas; Linux.i386)"))
	y.Countme(2, 4, SystemOf("libdnf (x; soas; Linux.i386)"))
	want := []string{
		"countme 10.2 appstream aarch64 4 soas i386 2 0",
		"countme 9.8 baseos unnamed 1 other other 1 0",
		"lists AD 10.2 appstream aarch64 1 0",
		"lists DE 9.8 baseos unnamed 2 0",
		"lists ZW 10.2 appstream aarch64 1 0",
		"lists other 10.2 appstream aarch64 1 0",
		"lists unknown 9.8 baseos x86_64 1 0",
		"mirrors a.example.org 1 5",
		"mirrors c.example.org 1 5",
		"mirrors c.example.org 2 14",
		"mirrors private 1 5",
		"mirrors vault 1 7",
	}
	if got := cells(y); !slices.Equal(got, want) {
		t.Errorf("counted\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := cells(y); len(got) != 0 {
		t.Errorf("what was taken out is counted again: %q", got)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	y := NewTally(layout(9, 5))
	agent := "libdnf (AlmaLinux 9.8; generic; Linux.x86_64)"
	if n := testing.AllocsPerRun(100, func() {
		y.List(3, CountryOf([2]byte{'D', 'E'}), 4)
		y.ListOfVault(3, 0)
		y.Countme(3, 2, System{1, 1})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { y.Countme(3, 2, SystemOf(agent)) }); n > 1 {
		t.Errorf("%v allocations to read a User-Agent", n)
	}
}

// The agent of a stranger is never more than a word of the vocabulary.
func FuzzSystemOf(f *testing.F) {
	f.Add("libdnf (AlmaLinux 9.8; generic; Linux.x86_64)")
	f.Add("(;;)")
	f.Fuzz(func(t *testing.T, agent string) {
		s := SystemOf(agent)
		if !slices.Contains(variants[:], s.Variant()) || !slices.Contains(systems[:], s.Arch()) {
			t.Errorf("SystemOf(%q) = %q, %q", agent, s.Variant(), s.Arch())
		}
	})
}

func BenchmarkTally(b *testing.B) {
	y := NewTally(layout(450, 600))
	from := CountryOf([2]byte{'D', 'E'})
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		y.List(i%450, from, i%600)
		i++
	}
}
