package geotest

import (
	"os"
	"testing"

	"meridian/mirrorlist/geo"
)

var small = Size{Networks: 5000, ASNRanges: 1000, Places: 300, Seed: 7}

func TestSizes(t *testing.T) {
	for name, tt := range map[string]struct {
		got, want int
	}{
		"networks":   {count(small.Locations()), 5000},
		"ASN ranges": {count(small.ASNs()), 1000},
	} {
		if tt.got != tt.want {
			t.Errorf("%d %s, want %d", tt.got, name, tt.want)
		}
	}
	n := 0
	for range small.Locations() {
		if n++; n == 10 {
			break // must not go on
		}
	}
}

func count(records func(func(geo.Record) bool)) int {
	n := 0
	for range records {
		n++
	}
	return n
}

// The direct way and the way through an .mmdb file, which another library
// writes, lead to the same answers.
func TestSnapshotsAndMMDBsAgree(t *testing.T) {
	dir := t.TempDir()
	location, asn, err := small.Snapshots(dir)
	if err != nil {
		t.Fatal(err)
	}
	locationMMDB, asnMMDB, err := small.MMDBs(dir)
	if err != nil {
		t.Fatal(err)
	}
	direct := geo.Join(open(t, location), open(t, asn))
	compiled := geo.Join(open(t, compile(t, locationMMDB)), open(t, compile(t, asnMMDB)))
	if direct.Places() != compiled.Places() || direct.Places() < 200 {
		t.Errorf("%d places in the snapshot, %d in the .mmdb file", direct.Places(), compiled.Places())
	}
	found := 0
	for _, a := range Clients(20_000, 1) {
		want, got := direct.Find(a), compiled.Find(a)
		if got != want || direct.Place(want) != compiled.Place(got) || direct.ASN(a) != compiled.ASN(a) {
			t.Fatalf("%v: AS%d in %+v through the .mmdb file, AS%d in %+v directly", a,
				compiled.ASN(a), compiled.Place(got), direct.ASN(a), direct.Place(want))
		}
		if want != geo.NoPlace && direct.ASN(a) != 0 {
			found++
		}
	}
	if found < 15_000 {
		t.Errorf("%d of 20,000 clients found: the networks are not where the clients are", found)
	}
}

func TestSnapshotsAreMadeOnce(t *testing.T) {
	dir := t.TempDir()
	location, _, err := small.Snapshots(dir)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(location)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := small.Snapshots(dir); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(location)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("made again")
	}
	again, _, err := small.Snapshots(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if a, b := open(t, location), open(t, again); a.Sum() != b.Sum() {
		t.Errorf("sums %x and %x of the same size and seed", a.Sum(), b.Sum())
	}
}

func compile(t *testing.T, mmdb string) string {
	t.Helper()
	if err := geo.Compile(mmdb, mmdb+".geo"); err != nil {
		t.Fatal(err)
	}
	return mmdb + ".geo"
}

func open(t *testing.T, snapshot string) *geo.DB {
	t.Helper()
	db, err := geo.Open(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}
