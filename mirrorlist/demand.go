package mirrorlist

import (
	"bufio"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"

	"meridian/mirrorlist/stats"
)

// ReadClients reads a file of clients: one a line, ADDRESS LISTS VERSION/REPO
// ARCH, of which only the first is required. LISTS is how many it asks for in a
// day, 1 by default; without a list it asks for the first of the network. Empty
// lines and what follows a "#" do not count. name is that of the file, for errors.
func ReadClients(name string, r io.Reader) ([]Demand, error) {
	var out []Demand
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		bad := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d: %s", name, n, fmt.Sprintf(format, args...))
		}
		a, err := netip.ParseAddr(words[0])
		if err != nil {
			return nil, bad("%q is no address; write one such as 192.0.2.1 or 2001:db8::1", clip(words[0]))
		}
		d := Demand{Addr: a.Unmap().WithZone(""), Lists: 1}
		if len(words) > 1 {
			if d.Lists, err = parseLists(words[1]); err != nil {
				return nil, bad("%v", err)
			}
		}
		if len(words) > 2 {
			var ok bool
			if d.Version, d.Repo, ok = strings.Cut(words[2], "/"); !ok {
				return nil, bad("%q is no list; write VERSION/REPO, such as 9/baseos", clip(words[2]))
			}
		}
		if len(words) > 3 {
			d.Arch = words[3]
		}
		if len(words) > 4 {
			return nil, bad("%q is too much; write ADDRESS LISTS VERSION/REPO ARCH", clip(words[4]))
		}
		out = append(out, d)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

func parseLists(s string) (float64, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || n < 0 || math.IsInf(n, 0) || math.IsNaN(n) {
		return 0, fmt.Errorf("%q is no number of lists a day; write one such as 25", clip(s))
	}
	return n, nil
}

// populationClients is about how many clients stand for a population. Each row of
// it has at least rowClients.
const (
	populationClients = 200_000
	rowClients        = 8
)

// ReadPopulation reads a file of countries, and returns clients that stand for
// them: CSV, whose first line names its columns, as mirrorlist stats writes it.
// "country" and "count" are required, "version", "repo" and "arch" are used, and
// counts are divided by the number of different values of "period". The clients of
// a country are spread evenly over the IPv4 addresses that the database has there;
// those of a country that it does not have, or that was folded, have no place.
func (s *Server) ReadPopulation(name string, r io.Reader) ([]Demand, error) {
	rows, err := readPopulation(name, r)
	if err != nil {
		return nil, err
	}
	total := 0.0
	wanted := map[[2]byte]*territory{}
	for _, row := range rows {
		total += row.Lists
		wanted[row.country] = &territory{}
	}
	delete(wanted, [2]byte{})
	db := s.table.Load().db
	for span := range db.Spans() {
		country := db.Country(span.Place)
		if a := wanted[country]; a != nil {
			a.add(span.First, span.Last)
		}
	}
	var out []Demand
	for _, row := range rows {
		a := wanted[row.country]
		n := max(rowClients, int(row.Lists/max(total, math.SmallestNonzeroFloat64)*populationClients))
		row.Lists /= float64(n)
		for i := range n {
			d := row.Demand
			if a != nil && a.count > 0 {
				d.Addr = a.at((float64(i) + 0.5) / float64(n))
			}
			out = append(out, d)
		}
	}
	return out, nil
}

// A populationRow is what all clients of a country ask for of one kind.
type populationRow struct {
	country [2]byte // zero: not known
	Demand          // without an address
}

func readPopulation(name string, r io.Reader) ([]populationRow, error) {
	in := csv.NewReader(r)
	in.ReuseRecord = true
	head, err := in.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: it is empty; write a first line such as country,version,repo,count", name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	head = slices.Clone(head)
	column := func(name string) int { return slices.Index(head, name) }
	for _, required := range []string{"country", "count"} {
		if column(required) < 0 {
			return nil, fmt.Errorf("%s:1: there is no column %q; write a first line such as country,version,repo,count", name, required)
		}
	}
	var rows []populationRow
	periods := map[string]bool{}
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		// What is folded, or was not said, is the first list of the network.
		value := func(name string) string {
			i := column(name)
			if i < 0 || record[i] == stats.Other || record[i] == stats.Unnamed {
				return ""
			}
			return strings.Clone(record[i])
		}
		line, _ := in.FieldPos(0)
		var row populationRow
		if code := value("country"); code != "" && code != stats.Unknown {
			c, no := parseCountry(code)
			if no != nil {
				return nil, fmt.Errorf("%s:%d: %q is no country; write a code of two letters, such as DE", name, line, clip(code))
			}
			row.country = c
		}
		if row.Lists, err = parseLists(value("count")); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, line, err)
		}
		row.Version, row.Repo, row.Arch = value("version"), value("repo"), value("arch")
		periods[value(stats.Period)] = true
		rows = append(rows, row)
	}
	for i := range rows {
		rows[i].Lists /= float64(len(periods))
	}
	return merge(rows), nil
}

// merge adds rows up that differ by the period alone. They stay in order.
func merge(rows []populationRow) []populationRow {
	type key struct {
		country             [2]byte
		version, repo, arch string
	}
	at := map[key]int{}
	out := rows[:0]
	for _, row := range rows {
		k := key{row.country, row.Version, row.Repo, row.Arch}
		if i, ok := at[k]; ok {
			out[i].Lists += row.Lists
			continue
		}
		at[k] = len(out)
		out = append(out, row)
	}
	return out
}

// A territory is ranges of IPv4 addresses, one behind the other.
type territory struct {
	first []uint32
	ends  []uint64 // how many addresses there are up to the end of each range
	count uint64
}

func (a *territory) add(first, last uint32) {
	a.count += uint64(last-first) + 1
	a.first = append(a.first, first)
	a.ends = append(a.ends, a.count)
}

// at returns the address that is so far along, 0 to 1.
func (a *territory) at(part float64) netip.Addr {
	n := min(uint64(part*float64(a.count)), a.count-1)
	i := sort.Search(len(a.ends), func(i int) bool { return a.ends[i] > n })
	begins := uint64(0)
	if i > 0 {
		begins = a.ends[i-1]
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], a.first[i]+uint32(n-begins))
	return netip.AddrFrom4(b)
}
