package geo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/xxh3"
)

func TestNilKnowsNothing(t *testing.T) {
	var db *DB
	wantAnswer(t, db, addr("192.0.2.1"), nil, 0)
	if db.HasLocation() || db.HasASN() || db.Places() != 0 || db.Sum() != 0 || db.Type() != "" || !db.Built().IsZero() || db.Place(0) != (Place{}) {
		t.Error("a nil DB knows something")
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func TestPlaceOfNoPlace(t *testing.T) {
	db := Demo()
	for _, i := range []uint32{NoPlace, uint32(db.Places()), 1 << 31} {
		if p := db.Place(i); p != (Place{}) {
			t.Errorf("Place(%d) = %+v", i, p)
		}
	}
}

func TestLocateSaysWhatPlaceSays(t *testing.T) {
	db := made(t, "x", older, true, false)
	defer db.Close()
	for _, i := range []uint32{0, 1, 2, NoPlace} {
		p := db.Place(i)
		country, lat, lon, ok := db.Locate(i)
		if country != p.Country || lat != p.Lat || lon != p.Lon || ok != p.HasCoordinates {
			t.Errorf("Locate(%d) = %q, %v, %v, %v; Place says %+v", i, country[:], lat, lon, ok, p)
		}
		if country := db.Country(i); country != p.Country {
			t.Errorf("Country(%d) = %q; Place says %+v", i, country[:], p)
		}
	}
	if _, _, _, ok := (*DB)(nil).Locate(0); ok || (*DB)(nil).Country(0) != [2]byte{} {
		t.Error("a nil DB locates something")
	}
}

func TestDemo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "demo")
	if err := WriteDemo(path); err != nil {
		t.Fatal(err)
	}
	written, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer written.Close()
	memory := Demo()
	if written.Sum() != memory.Sum() || memory.Sum() == 0 {
		t.Errorf("sum %x in the file, %x in memory", written.Sum(), memory.Sum())
	}
	for _, db := range []*DB{written, memory} {
		wantAnswer(t, db, addr("127.0.1.77"), place("EU", "DE", "Land Berlin", "Berlin", 52.52, 13.405), 64496)
		wantAnswer(t, db, addr("127.0.0.1"), nil, 0)
		wantAnswer(t, db, addr("192.0.2.200"), place("EU", "FR", "Île-de-France", "Paris", 48.8566, 2.3522), 64505)
		wantAnswer(t, db, addr("2001:db8:9::9"), place("AF", "ZA", "Western Cape", "Cape Town", -33.9249, 18.4241), 64504)
		wantAnswer(t, db, addr("2001:db8:4::1"), nil, 0)
		wantAnswer(t, db, addr("8.8.8.8"), nil, 0)
		if db.Places() != 10 || db.Type() != "Meridian-Demo" || !db.HasLocation() || !db.HasASN() {
			t.Errorf("%d places of type %q", db.Places(), db.Type())
		}
	}
	// Nobody real is put anywhere.
	for _, n := range demoNetworks {
		p := prefix(n.prefix)
		documentation := slices.ContainsFunc([]string{"127.0.0.0/8", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"},
			func(s string) bool { return prefix(s).Contains(p.Addr()) && p.Bits() >= prefix(s).Bits() })
		if !documentation || n.asn < 64496 || n.asn > 64511 {
			t.Errorf("%v in AS%d is not for documentation", p, n.asn)
		}
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	db := Demo()
	for _, a := range sampleAddrs {
		if n := testing.AllocsPerRun(100, func() { db.Find(a); db.ASN(a) }); n != 0 {
			t.Errorf("Find and ASN of %v allocate %v times", a, n)
		}
	}
}

// records of a small database: places, AS numbers or both.
func records(withPlace, withASN bool) func(func(Record) bool) {
	return func(yield func(Record) bool) {
		for i, p := range []string{"192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32"} {
			r := Record{Prefix: prefix(p)}
			if withPlace {
				r.Place = place("EU", []string{"DE", "FR", "DE"}[i], "", "Name", 50, float64(i%2))
			}
			if withASN {
				r.ASN = 64496 + uint32(i)
			}
			if !yield(r) {
				return
			}
		}
	}
}

// made writes records as a snapshot and opens it.
func made(t *testing.T, kind string, built time.Time, withPlace, withASN bool) *DB {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snapshot")
	if err := Write(path, kind, built, records(withPlace, withASN)); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

var (
	older = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	newer = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func TestEqualPlacesAreOne(t *testing.T) {
	db := made(t, "x", older, true, false)
	defer db.Close()
	if db.Places() != 2 || db.Find(addr("192.0.2.1")) != db.Find(addr("2001:db8::1")) || db.Find(addr("192.0.2.1")) == db.Find(addr("198.51.100.1")) {
		t.Errorf("%d places, want 2, of which the first and third network share one", db.Places())
	}
	if len(db.names) != len("Name") {
		t.Errorf("names %q, want each once", db.names)
	}
}

func TestWriteRefusesDisorder(t *testing.T) {
	for name, prefixes := range map[string][]string{
		"descending":        {"198.51.100.0/24", "192.0.2.0/24"},
		"overlapping":       {"192.0.2.0/24", "192.0.2.128/25"},
		"twice":             {"192.0.2.0/24", "192.0.2.0/24"},
		"IPv6 before IPv4":  {"2001:db8::/32", "192.0.2.0/24"},
		"IPv6 descending":   {"2001:db9::/32", "2001:db8::/32"},
		"after everything":  {"ffff::/16", "ffff::/17"},
		"all IPv6 and more": {"::/0", "2001:db8::/32"},
	} {
		path := filepath.Join(t.TempDir(), "snapshot")
		err := Write(path, "x", older, func(yield func(Record) bool) {
			for _, p := range prefixes {
				if !yield(Record{Prefix: prefix(p), ASN: 1}) {
					return
				}
			}
		})
		if err == nil || !strings.Contains(err.Error(), "does not follow") {
			t.Errorf("%s: error %v", name, err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: a file was written", name)
		}
	}
}

func TestJoin(t *testing.T) {
	germany := place("EU", "DE", "", "Name", 50, 0)
	a := addr("192.0.2.1")

	t.Run("takes places from the first and AS numbers from the second", func(t *testing.T) {
		// Both have both; the second says AS64499 where the first says AS64496.
		location := made(t, "one", newer, true, true)
		path := filepath.Join(t.TempDir(), "asn")
		err := Write(path, "two", older, func(yield func(Record) bool) {
			yield(Record{Prefix: prefix("192.0.2.0/24"), ASN: 64499, Place: place("", "US", "", "")})
		})
		if err != nil {
			t.Fatal(err)
		}
		asn, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		sums := []uint64{location.Sum(), asn.Sum()}
		db := Join(location, asn)
		wantAnswer(t, db, a, germany, 64499)
		// The second says nothing about it: the first is not asked.
		if got := db.ASN(addr("198.51.100.1")); got != 0 {
			t.Errorf("AS%d from the location database", got)
		}
		if db.Type() != "one + two" || !db.Built().Equal(older) || slices.Contains(sums, db.Sum()) {
			t.Errorf("type %q, built %v, sum %x", db.Type(), db.Built(), db.Sum())
		}
		for range 2 {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
		if !location.closed.Load() || !asn.closed.Load() {
			t.Error("the parts are still open")
		}
		wantAnswer(t, db, a, nil, 0)
	})
	t.Run("of one that has both serves both", func(t *testing.T) {
		db := made(t, "one", newer, true, true)
		if j := Join(db, nil); j != db {
			t.Error("not the database itself")
		}
		if j := Join(db, db); j != db {
			t.Error("twice the same is not the database itself")
		}
		wantAnswer(t, db, a, germany, 64496)
		db.Close()
	})
	t.Run("without the first has no places", func(t *testing.T) {
		asn := made(t, "two", newer, true, true)
		db := Join(nil, asn)
		wantAnswer(t, db, a, nil, 64496)
		if db.HasLocation() || !db.HasASN() || db.Sum() == asn.Sum() || db.Type() != "two" || !db.Built().Equal(newer) {
			t.Errorf("HasLocation %v, type %q, built %v", db.HasLocation(), db.Type(), db.Built())
		}
		db.Close()
	})
	t.Run("of nothing is nothing", func(t *testing.T) {
		if db := Join(nil, nil); db != nil {
			t.Errorf("%+v", db)
		}
	})
	t.Run("gives another sum the other way round", func(t *testing.T) {
		if joinSums(1, 2) == joinSums(2, 1) || joinSums(0, 1) == joinSums(1, 0) {
			t.Error("equal sums")
		}
	})
}

func TestSumIsOfTheContent(t *testing.T) {
	sums := map[uint64]string{}
	for name, db := range map[string]*DB{
		"":             made(t, "x", older, true, true),
		"type":         made(t, "y", older, true, true),
		"time":         made(t, "x", newer, true, true),
		"only places":  made(t, "x", older, true, false),
		"only numbers": made(t, "x", older, false, true),
	} {
		if other, ok := sums[db.Sum()]; ok {
			t.Errorf("%q and %q have the sum %x", name, other, db.Sum())
		}
		sums[db.Sum()] = name
		db.Close()
	}
	if db := made(t, "x", older, true, true); sums[db.Sum()] != "" || len(sums) != 5 {
		t.Error("the same content has another sum the second time")
	}
}

// mapped reports whether this process has the file mapped.
func mapped(t *testing.T, path string) bool {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skipf("cannot see what is mapped: %v", err)
	}
	return strings.Contains(string(maps), path)
}

func TestFileThatOnlyWeCanWriteIsMapped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	if err := Write(path, "x", older, records(true, true)); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if !mapped(t, path) {
		t.Error("the file is not mapped")
	}
	// A new file in its place changes nothing for those who have the old one.
	if err := WriteDemo(path); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, db, addr("192.0.2.1"), place("EU", "DE", "", "Name", 50, 0), 64496)
	p := db.Place(db.Find(addr("192.0.2.1")))
	for range 2 {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	if mapped(t, path) {
		t.Error("the file is mapped after Close")
	}
	if p.City != "Name" {
		t.Error("a name went with the mapping")
	}
	wantAnswer(t, db, addr("192.0.2.1"), nil, 0)
	if db.HasLocation() || db.Places() != 0 {
		t.Error("a closed database knows something")
	}
}

func TestFileThatOthersCanWriteIsRead(t *testing.T) {
	type damage func(path string) error
	for name, change := range map[string]damage{
		"its group":    func(path string) error { return os.Chmod(path, 0o664) },
		"everybody":    func(path string) error { return os.Chmod(path, 0o646) },
		"another user": func(path string) error { return os.Chown(path, 12345, -1) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "snapshot")
			if err := Write(path, "x", older, records(true, true)); err != nil {
				t.Fatal(err)
			}
			if err := change(path); err != nil {
				t.Skip(err) // only root can give files away
			}
			db, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if mapped(t, path) {
				t.Error("the file is mapped")
			}
			// With a mapping this would end the process.
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			wantAnswer(t, db, addr("192.0.2.1"), place("EU", "DE", "", "Name", 50, 0), 64496)
		})
	}
}

// snapshot returns a small snapshot in memory.
func snapshot(t testing.TB) []byte {
	t.Helper()
	db, err := build("x", older, records(true, true))
	if err != nil {
		t.Fatal(err)
	}
	db.location.aliases = []alias{{hi: 0x2002 << 48, bits: 16}}
	db.asn.aliases = db.location.aliases
	var b bytes.Buffer
	if err := db.encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// seal makes the checksum right again.
func seal(b []byte) []byte {
	binary.LittleEndian.PutUint64(b[len(b)-trailerSize:], xxh3.Hash(b[:len(b)-trailerSize]))
	return b
}

// section returns section i of a snapshot.
func section(b []byte, i int) []byte {
	offset := binary.LittleEndian.Uint64(b[32+16*i:])
	return b[offset:][:binary.LittleEndian.Uint64(b[40+16*i:])]
}

func TestOpenRefusesDamage(t *testing.T) {
	put32, put64 := binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	for _, tt := range []struct {
		name   string
		damage func(b []byte) []byte
		want   string
	}{
		{"an empty file", func(b []byte) []byte { return nil }, ErrNotSnapshot.Error()},
		{"another file", func(b []byte) []byte { return []byte("<!DOCTYPE html><html>") }, ErrNotSnapshot.Error()},
		{"only the beginning", func(b []byte) []byte { return b[:100] }, "cut short"},
		{"one byte less", func(b []byte) []byte { return b[:len(b)-1] }, "bytes of"},
		{"one byte more", func(b []byte) []byte { return append(b, 0) }, "bytes of"},
		{"a later format", func(b []byte) []byte { b[8]++; return seal(b) }, "format version 2, want 1"},
		{"a bit that fell over", func(b []byte) []byte { section(b, sectionNames)[0] ^= 1; return b }, "checksum"},
		{"another checksum", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, "checksum"},
		{"a section behind the end", func(b []byte) []byte { put64(b[32:], uint64(len(b))&^63+64); return seal(b) }, "section 0 is outside"},
		{"a section over the header", func(b []byte) []byte { put64(b[32:], 64); return seal(b) }, "section 0 is outside"},
		{"a section between the lines", func(b []byte) []byte { put64(b[32+16:], 257); return seal(b) }, "section 1 is outside"},
		{"a section of all bytes there are", func(b []byte) []byte { put64(b[40+16:], math.MaxUint64); return seal(b) }, "section 1 is outside"},
		{"half a place", func(b []byte) []byte { put64(b[40+16*sectionPlaces:], 33); return seal(b) }, "inside a record"},
		{"half a range", func(b []byte) []byte { put64(b[40+16*sectionLocation:], 7); return seal(b) }, "locations: a section ends inside a record"},
		{"a range without a value", func(b []byte) []byte { put64(b[40+16*(sectionASN+1):], 4); return seal(b) }, "AS numbers: not one value"},
		{"no first range", func(b []byte) []byte { put32(section(b, sectionLocation), 1); return seal(b) }, "does not begin"},
		{"no first IPv6 range", func(b []byte) []byte { put32(section(b, sectionASN+2), 1); return seal(b) }, "does not begin"},
		{"ranges that go back", func(b []byte) []byte { put32(section(b, sectionLocation)[8:], 1); return seal(b) }, "IPv4 ranges do not ascend"},
		{"IPv6 ranges that go back", func(b []byte) []byte { put64(section(b, sectionLocation+2)[32:], 1); return seal(b) }, "IPv6 ranges do not ascend"},
		{"a place that is not there", func(b []byte) []byte { put32(section(b, sectionLocation+1)[4:], 2); return seal(b) }, "value 2, limit 2"},
		{"a name that is not there", func(b []byte) []byte { put32(section(b, sectionPlaces)[16:], 1); return seal(b) }, "outside the section of names"},
		{"a name at the end of all numbers", func(b []byte) []byte { put32(section(b, sectionPlaces)[20:], math.MaxUint32); return seal(b) }, "outside the section of names"},
		{"a country in digits", func(b []byte) []byte { section(b, sectionPlaces)[24] = '1'; return seal(b) }, "two capital letters"},
		{"coordinates that are none", func(b []byte) []byte { put64(section(b, sectionPlaces), math.Float64bits(math.NaN())); return seal(b) }, "no such coordinates"},
		{"an alias longer than 96", func(b []byte) []byte { put32(section(b, sectionAliases)[12:], 97); return seal(b) }, "97 bits, at most 96"},
		{"too many aliases", func(b []byte) []byte { put64(b[40+16*sectionAliases:], 17*16); return seal(grow(b)) }, "17 aliases"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "snapshot")
			if err := os.WriteFile(path, tt.damage(snapshot(t)), 0o644); err != nil {
				t.Fatal(err)
			}
			db, err := Open(path)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open = %v, %v; want %q in the error", db, err, tt.want)
			}
			if err != nil && !strings.Contains(err.Error(), path) {
				t.Errorf("error %v does not name the file", err)
			}
			if errors.Is(err, ErrNotSnapshot) != (tt.want == ErrNotSnapshot.Error()) {
				t.Errorf("errors.Is(%v, ErrNotSnapshot) is wrong", err)
			}
			if mapped(t, path) {
				t.Error("the file is still mapped")
			}
		})
	}
}

// grow adds bytes at the end of a snapshot, for a last section that is longer.
func grow(b []byte) []byte {
	b = append(b, make([]byte, 17*16)...)
	binary.LittleEndian.PutUint64(b[16:], uint64(len(b)))
	return b
}

// trySnapshot opens what may be a snapshot, with its own checksum and with the
// right one. What opens can be used.
func trySnapshot(t testing.TB, b []byte) {
	t.Helper()
	for range 2 {
		data := aligned(len(b))
		copy(data, b)
		if db, err := decode(data, aligned); err == nil {
			use(t, db)
		}
		if len(b) < trailerSize {
			return
		}
		b = seal(slices.Clone(b))
	}
}

// Every byte of a snapshot is damaged in turn, and the checksum made right.
func TestDamageUnderARightChecksum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	good := snapshot(t)
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= byte(1 + rng.IntN(255))
		trySnapshot(t, bad)
	}
}

func FuzzSnapshot(f *testing.F) {
	f.Add(snapshot(f))
	var demo bytes.Buffer
	db, err := build(demoType, demoBuilt, demoRecords())
	if err != nil {
		f.Fatal(err)
	}
	if err := db.encode(&demo); err != nil {
		f.Fatal(err)
	}
	f.Add(demo.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) { trySnapshot(t, b) })
}

// A database can be used by many while nobody closes it.
func TestConcurrentUse(t *testing.T) {
	db := Demo()
	done := make(chan bool)
	for range 4 {
		go func() {
			defer func() { done <- true }()
			for _, n := range demoNetworks {
				a := prefix(n.prefix).Addr()
				if got := db.Place(db.Find(a)); got.City != n.city || db.ASN(a) != n.asn {
					t.Errorf("%v is in %q", a, got.City)
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
}
