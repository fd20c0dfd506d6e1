// Package geotest makes databases of any size, for tests and benchmarks: always
// the same one for the same size and seed. Its places are made up. No daemon
// imports it.
package geotest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"meridian/internal/durable"
	"meridian/mirrorlist/geo"
)

// A Size says how much to make.
type Size struct {
	Networks  int // that have a place
	ASNRanges int // that have an AS number
	Places    int // to choose from
	Seed      uint64
}

// Full is the size of the databases on sale.
var Full = Size{Networks: 3_000_000, ASNRanges: 500_000, Places: 140_000, Seed: 1}

// built is when all databases of this package were built.
var built = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Locations are Networks adjoining networks, four of five IPv4, each with one of
// the places. The busiest places have most of them.
func (s Size) Locations() iter.Seq[geo.Record] {
	return func(yield func(geo.Record) bool) {
		rng := rand.New(rand.NewPCG(s.Seed, 1))
		places := make([]geo.Place, s.Places)
		for i := range places {
			places[i] = s.place(i)
		}
		for p := range networks(rng, s.Networks) {
			if !yield(geo.Record{Prefix: p, Place: &places[skewed(rng, s.Places)]}) {
				return
			}
		}
	}
}

// ASNs are ASNRanges adjoining networks, each with an AS number.
func (s Size) ASNs() iter.Seq[geo.Record] {
	return func(yield func(geo.Record) bool) {
		rng := rand.New(rand.NewPCG(s.Seed, 2))
		for p := range networks(rng, s.ASNRanges) {
			if !yield(geo.Record{Prefix: p, ASN: uint32(1 + skewed(rng, 80_000))}) {
				return
			}
		}
	}
}

// skewed returns a number below n, small ones more often.
func skewed(rng *rand.Rand, n int) int {
	x := rng.Float64()
	return int(x * x * float64(n))
}

// continents of the made-up countries, by number.
var continents = []string{"AF", "AN", "AS", "EU", "NA", "OC", "SA"}

// place returns place number i, of one of 250 countries.
func (s Size) place(i int) geo.Place {
	rng := rand.New(rand.NewPCG(s.Seed, uint64(i)<<8|3))
	country := skewed(rng, 250)
	state := rng.IntN(20)
	// A country is a square of 12 degrees; four decimals, as on sale.
	lat := float64(country/16)*9 - 70 + rng.Float64()*12
	lon := float64(country%16)*22 - 178 + rng.Float64()*12
	return geo.Place{
		Country:        [2]byte{'A' + byte(country/26), 'A' + byte(country%26)},
		Continent:      [2]byte([]byte(continents[country%len(continents)])),
		Lat:            math.Round(lat*1e4) / 1e4,
		Lon:            math.Round(lon*1e4) / 1e4,
		HasCoordinates: true,
		City:           fmt.Sprintf("City %d", i),
		State:          fmt.Sprintf("State %d", state),
	}
}

// networks divides the address space among n networks, in ascending order: the
// /8 networks of IPv4 that are not reserved, and the five /12 networks of IPv6
// that the regional registries give out.
func networks(rng *rand.Rand, n int) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		var roots4, roots6 []uint64
		for i := uint64(1); i < 224; i++ {
			if i != 10 && i != 127 {
				roots4 = append(roots4, i<<56)
			}
		}
		for _, i := range []uint64{0x24, 0x26, 0x28, 0x2a, 0x2c} {
			roots6 = append(roots6, i<<56)
		}
		n6 := n / 5
		_ = share(roots4, n-n6, func(root uint64, n int) bool {
			return split(rng, root, 8, 32, n, func(top uint64, bits int) bool {
				var b [4]byte
				binary.BigEndian.PutUint32(b[:], uint32(top>>32))
				return yield(netip.PrefixFrom(netip.AddrFrom4(b), bits))
			})
		}) && share(roots6, n6, func(root uint64, n int) bool {
			return split(rng, root, 12, 64, n, func(top uint64, bits int) bool {
				var b [16]byte
				binary.BigEndian.PutUint64(b[:], top)
				return yield(netip.PrefixFrom(netip.AddrFrom16(b), bits))
			})
		})
	}
}

// share calls f for each root with an equal part of n, until f returns false.
func share(roots []uint64, n int, f func(root uint64, n int) bool) bool {
	for i, root := range roots {
		part := n*(i+1)/len(roots) - n*i/len(roots)
		if part > 0 && !f(root, part) {
			return false
		}
	}
	return true
}

// split divides a network among n, none longer than limit, by halves of unequal
// number. Addresses are the top 64 bits.
func split(rng *rand.Rand, top uint64, bits, limit, n int, emit func(top uint64, bits int) bool) bool {
	if n == 1 || bits == limit {
		return emit(top, bits)
	}
	room := math.MaxInt
	if free := limit - bits - 1; free < 62 {
		room = 1 << free
	}
	left := int(float64(n) * (0.25 + rng.Float64()/2))
	left = max(min(left, n-1, room), 1, n-room)
	return split(rng, top, bits+1, limit, left, emit) &&
		split(rng, top|1<<(63-bits), bits+1, limit, n-left, emit)
}

// Clients returns n addresses from the space that the networks divide, one in
// five of them IPv6.
func Clients(n int, seed uint64) []netip.Addr {
	rng := rand.New(rand.NewPCG(seed, 4))
	list := make([]netip.Addr, n)
	for i := range list {
		if i%5 == 4 {
			var b [16]byte
			binary.BigEndian.PutUint64(b[:], rng.Uint64()>>12)
			binary.BigEndian.PutUint64(b[8:], rng.Uint64())
			b[0] = 0x24 + byte(rng.IntN(5))*2
			list[i] = netip.AddrFrom16(b)
			continue
		}
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], rng.Uint32())
		b[0] = 1 + byte(rng.IntN(223))
		list[i] = netip.AddrFrom4(b)
	}
	return list
}

// CacheDir returns the directory of this user for large inputs, which are made
// once and are in no source tree. It makes the directory if need be.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("geotest: %w", err)
	}
	dir = filepath.Join(dir, "meridian-geotest")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("geotest: %w", err)
	}
	return dir, nil
}

// version is part of the names of files. It changes with the content: when this
// package or the format of snapshots does.
const version = 1

func (s Size) path(dir, what, ext string, n int) string {
	return filepath.Join(dir, fmt.Sprintf("%s-v%d-n%d-p%d-s%d.%s", what, version, n, s.Places, s.Seed, ext))
}

// Snapshots returns the names of two snapshots in dir, with the locations and
// with the AS numbers, and makes those that are not there.
func (s Size) Snapshots(dir string) (location, asn string, err error) {
	location = s.path(dir, "location", "geo", s.Networks)
	asn = s.path(dir, "asn", "geo", s.ASNRanges)
	err = once(location, func() error { return geo.Write(location, "geotest City", built, s.Locations()) })
	if err != nil {
		return "", "", err
	}
	err = once(asn, func() error { return geo.Write(asn, "geotest ASN", built, s.ASNs()) })
	return location, asn, err
}

// MMDBs is Snapshots for .mmdb files in the schema of MaxMind, of which Compile
// makes the same snapshots.
func (s Size) MMDBs(dir string) (location, asn string, err error) {
	location = s.path(dir, "location", "mmdb", s.Networks)
	asn = s.path(dir, "asn", "mmdb", s.ASNRanges)
	err = once(location, func() error { return WriteMMDB(location, "geotest City", s.Locations()) })
	if err != nil {
		return "", "", err
	}
	err = once(asn, func() error { return WriteMMDB(asn, "geotest ASN", s.ASNs()) })
	return location, asn, err
}

// once calls makeFile unless path exists.
func once(path string, makeFile func() error) error {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeFile()
	}
	return err
}

// WriteMMDB writes records to out as a MaxMind database of the type kind.
func WriteMMDB(out, kind string, records iter.Seq[geo.Record]) error {
	tree, err := mmdbwriter.New(mmdbwriter.Options{
		BuildEpoch:              built.Unix(),
		DatabaseType:            kind,
		Description:             map[string]string{"en": "made up"},
		RecordSize:              28,
		IncludeReservedNetworks: true,
	})
	if err != nil {
		return fmt.Errorf("geotest: %w", err)
	}
	for r := range records {
		a := r.Prefix.Addr()
		n := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(r.Prefix.Bits(), a.BitLen())}
		if err := tree.Insert(n, value(r)); err != nil {
			return fmt.Errorf("geotest: %v: %w", r.Prefix, err)
		}
	}
	return durable.Write(out, 0o644, func(w io.Writer) error {
		_, err := tree.WriteTo(w)
		return err
	})
}

// value is r as MaxMind writes it.
func value(r geo.Record) mmdbtype.Map {
	m := mmdbtype.Map{}
	if r.ASN != 0 {
		m["autonomous_system_number"] = mmdbtype.Uint32(r.ASN)
		m["autonomous_system_organization"] = mmdbtype.String(fmt.Sprintf("Holder of AS%d", r.ASN))
	}
	p := r.Place
	if p == nil {
		return m
	}
	name := func(s string) mmdbtype.Map {
		return mmdbtype.Map{"names": mmdbtype.Map{"de": mmdbtype.String(s), "en": mmdbtype.String(s)}}
	}
	m["city"] = name(p.City)
	m["subdivisions"] = mmdbtype.Slice{name(p.State)}
	m["country"] = mmdbtype.Map{"iso_code": mmdbtype.String(p.Country[:])}
	m["continent"] = mmdbtype.Map{"code": mmdbtype.String(p.Continent[:])}
	if p.HasCoordinates {
		m["location"] = mmdbtype.Map{
			"accuracy_radius": mmdbtype.Uint16(20),
			"latitude":        mmdbtype.Float64(p.Lat),
			"longitude":       mmdbtype.Float64(p.Lon),
		}
	}
	return m
}
