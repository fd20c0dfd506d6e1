package geo_test

import (
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"testing"

	"meridian/mirrorlist/geo"
	"meridian/mirrorlist/geo/geotest"
)

func full(b *testing.B) *geo.DB {
	b.Helper()
	dir, err := geotest.CacheDir()
	if err != nil {
		b.Fatal(err)
	}
	location, asn, err := geotest.Full.Snapshots(dir)
	if err != nil {
		b.Fatal(err)
	}
	l, err := geo.Open(location)
	if err != nil {
		b.Fatal(err)
	}
	a, err := geo.Open(asn)
	if err != nil {
		b.Fatal(err)
	}
	db := geo.Join(l, a)
	b.Cleanup(func() { db.Close() })
	return db
}

// BenchmarkLookup looks up addresses all over the world, in databases of
// 3,000,000 networks and 500,000 ranges of AS numbers.
func BenchmarkLookup(b *testing.B) {
	db := full(b)
	clients := geotest.Clients(1<<16, 1)
	families := map[string]bool{"IPv4": true, "IPv6": false}
	for name, is4 := range families {
		list := clients[:0:0]
		for _, a := range clients {
			if a.Is4() == is4 {
				list = append(list, a)
			}
		}
		b.Run("Find/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				db.Find(list[i%len(list)])
			}
		})
		b.Run("ASN/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				db.ASN(list[i%len(list)])
			}
		})
	}
}

// BenchmarkOpen opens a snapshot of 3,000,000 networks.
func BenchmarkOpen(b *testing.B) {
	dir, err := geotest.CacheDir()
	if err != nil {
		b.Fatal(err)
	}
	location, _, err := geotest.Full.Snapshots(dir)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		db, err := geo.Open(location)
		if err != nil {
			b.Fatal(err)
		}
		db.Close()
	}
}

// BenchmarkCompile compiles an .mmdb file of 3,000,000 networks.
func BenchmarkCompile(b *testing.B) {
	dir, err := geotest.CacheDir()
	if err != nil {
		b.Fatal(err)
	}
	location, _, err := geotest.Full.MMDBs(dir)
	if err != nil {
		b.Fatal(err)
	}
	out := filepath.Join(b.TempDir(), "out")
	b.ReportAllocs()
	for b.Loop() {
		if err := geo.Compile(location, out); err != nil {
			b.Fatal(err)
		}
	}
}

// cidrs are 40,000 prefixes that nest, as those of the clouds do: mostly IPv4.
func cidrs() []geo.Entry {
	rng := rand.New(rand.NewPCG(1, 1))
	var entries []geo.Entry
	for _, a := range geotest.Clients(40_000, 2) {
		bits := 16 + rng.IntN(17)
		if a.Is6() {
			bits = 28 + rng.IntN(37)
		}
		entries = append(entries, geo.Entry{Prefix: netip.PrefixFrom(a, bits), Value: uint32(len(entries))})
	}
	return entries
}

// BenchmarkSets makes and uses sets of 40,000 subnets.
func BenchmarkSets(b *testing.B) {
	entries := cidrs()
	b.Run("New", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			geo.NewSetRanges(entries)
		}
	})
	r, _ := geo.NewSetRanges(entries)
	clients := geotest.Clients(1<<16, 3)
	b.Run("Lookup", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			r.Lookup(geo.KeyOf(clients[i%len(clients)]))
		}
	})
}
