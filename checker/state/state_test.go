package state

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"meridian/schema"
)

var update = flag.Bool("update", false, "rewrite testdata/snapshot.json")

func TestHealthDecidesWhatIsListed(t *testing.T) {
	// The zero value is listed: nobody knows anything bad.
	listable := map[Health]bool{Unknown: true, Fresh: true, Ahead: true, Lagging: true, Unprobed: true}
	for h := range Health(len(healthNames)) {
		if got := h.Listable(); got != listable[h] {
			t.Errorf("%v.Listable() = %v", h, got)
		}
	}
	if Health(200).Listable() {
		t.Error("a number that is no health is listed")
	}
}

func TestNamesReadBack(t *testing.T) {
	for h := range Health(len(healthNames)) {
		text, err := h.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		got := Health(99)
		if err := got.UnmarshalText(text); err != nil || got != h {
			t.Errorf("%v is written as %q and read as %v, %v", h, text, got, err)
		}
	}
	for r := range Reach(len(reachNames)) {
		text, err := r.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		got := Reach(99)
		if err := got.UnmarshalText(text); err != nil || got != r {
			t.Errorf("%v is written as %q and read as %v, %v", r, text, got, err)
		}
	}
	if got := Health(99).String(); got != "unknown" {
		t.Errorf("a number that is no health is called %q", got)
	}
	if got := Reach(99).String(); got != "untested" {
		t.Errorf("a number that is no reach is called %q", got)
	}
}

func TestKeyReadsBack(t *testing.T) {
	for _, k := range []Key{{"9.8", "baseos", "x86_64"}, {"10-kitten", "extras-common", "aarch64"}, {"9.8", "isos", ""}, {}} {
		text, err := k.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got Key
		if err := got.UnmarshalText(text); err != nil || got != k {
			t.Errorf("%v is written as %q and read as %v, %v", k, text, got, err)
		}
	}
	for _, bad := range []string{"", "9.8", "9.8/baseos", "9.8/baseos/x86_64/os"} {
		var k Key
		if err := k.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is read as %v", bad, k)
		}
	}
}

// everything is a snapshot with each verdict, and each thing that can be said:
// TestEverythingIsSaid sees to that.
func everything() *Snapshot {
	key := func(v, r, a string) Key {
		var k Key
		if err := k.UnmarshalText([]byte(v + "/" + r + "/" + a)); err != nil {
			panic(err)
		}
		return k
	}
	at := func(hour int) time.Time { return time.Date(2026, 7, 1, hour, 30, 0, 0, time.UTC) }
	health := map[Key]Health{}
	for h := range Health(len(healthNames)) {
		health[key("9.8", h.String(), "x86_64")] = h
	}
	problem := &Problem{
		Reason: "repomd.xml is an HTML page", Remedy: "serve files, not pages", Since: at(7),
		Evidence: &Evidence{
			At: at(8), Vantage: "paris", Method: "GET", URL: "https://all.example.org/9.8/BaseOS/x86_64/os/repodata/repomd.xml",
			Request: []string{"Range: bytes=0-99"}, Family: "ipv6", Redirects: []string{"https://all.example.org/a"}, Final: "https://other.example.org/a",
			Remote: "[2001:db8::1]:443", Status: 200, Header: []string{"Age: 9"}, Body: "<html>\\x00", Error: "unexpected EOF",
		},
	}
	all := &Status{
		Health: health,
		Holds:  map[Key]GenerationID{key("9.8", "lagging", "x86_64"): {1, 2, 3}, key("9.8", "stale", "x86_64"): {4}},
		Findings: map[Key]*Finding{key("9.8", "broken", "x86_64"): {
			Since: at(6), Failures: 1, Lied: true, Clean: 2, Strikes: 3, Struck: at(5), Path: "repodata/primary.xml.gz", Never: true, Last: GenerationID{7, 8, 9}, Revision: "1719835200", Problem: problem,
		}},
		IPv4: Reached, IPv6: Unreached,
		Schemes: map[string]*Scheme{
			"http":  {Works: Reached},
			"https": {Works: Unreached, TLSBegins: at(1), TLSExpires: at(2), Problem: &Problem{Reason: "the certificate has ended"}},
		},
		Failures: 1, Strikes: 2, Successes: 3, Struck: at(4), Misses: map[string]int{"ipv6": 1}, OtherHost: "other.example.org", ClockAhead: time.Hour, Apart: true, Unrouted: true,
		Visited: at(9), Changed: at(10), Time: at(11), Problem: problem, Warnings: []string{"IPv6 does not answer"},
		Override: &Override{
			Disabled: true, Draining: true, Weight: 100, Reason: "moves", Until: at(23), Withdrawn: []Key{key("9.8", "baseos", "x86_64")},
		},
	}
	published := &Publication{
		Time: at(11), Repositories: 2, Versions: []schema.Version{"9.8"},
		Generations: map[Key]GenerationID{key("9.8", "baseos", "x86_64"): {1, 2, 3}},
		Samples: []Sample{
			{All: Share{Of: 2, OfMbits: 3000}, Continents: map[string]Share{"EU": {Of: 2, OfMbits: 3000}}},
			{After: 125, All: Share{Mirrors: 1, Of: 2, Mbits: 1000, OfMbits: 3000}, Continents: map[string]Share{"EU": {Mirrors: 1, Of: 2, Mbits: 1000, OfMbits: 3000}}},
		},
	}
	return &Snapshot{
		Taken: at(12), Vantage: "paris",
		Publications: map[string]*Publication{published.ID(): published},
		Mirrors: map[string]*Status{
			"all.example.org":   all,
			"empty.example.org": {},
			"ipv6.example.org":  {Health: map[Key]Health{key("9.8", "isos", ""): Fresh}, IPv6: Reached},
		},
		Truth: map[Key]Truth{
			key("9.8", "baseos", "x86_64"): {
				Generations: []Generation{
					{Revision: "1719835200", Timestamp: 1719835201, Size: 3141, SHA256: Hash256{1, 2, 3}, SHA512: Hash512{4, 5, 6}, FirstSeen: at(3)},
					{Revision: "1719831600", Expired: true},
				},
				Confirmed: at(4), Expired: true, Withdrawn: "it eats data", Absent: true, Disputed: at(5), Problem: problem,
				Offered: []Offer{{SHA256: Hash256{7, 8, 9}, Gone: at(6)}}, Partial: true,
			},
			key("9.8", "appstream", "x86_64"): {},
			key("9.8", "isos", "x86_64"):      {Images: []Image{{Name: "minimal.iso", Size: 2718, Algorithm: "sha256", Digest: "ab"}}},
		},
	}
}

// A field that is new has to be in the golden file, and so read by every later
// release.
func TestEverythingIsSaid(t *testing.T) {
	said := map[string]bool{}
	var look func(v reflect.Value)
	look = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				look(v.Elem())
			}
		case reflect.Slice:
			for i := range v.Len() {
				look(v.Index(i))
			}
		case reflect.Map:
			for _, k := range v.MapKeys() {
				look(v.MapIndex(k))
			}
		case reflect.Struct:
			if v.Type().PkgPath() != reflect.TypeFor[Snapshot]().PkgPath() {
				return
			}
			for i := range v.NumField() {
				name := v.Type().Name() + "." + v.Type().Field(i).Name
				said[name] = said[name] || !v.Field(i).IsZero()
				look(v.Field(i))
			}
		}
	}
	look(reflect.ValueOf(everything()))
	for name, ok := range said {
		if !ok {
			t.Errorf("nothing is said of %s: say something in everything, and run go test -update", name)
		}
	}
}

// Servers of this release read snapshots of the next, and the other way round,
// while a cluster is upgraded: fields are only ever added. The file is what this
// release writes, indented; files of earlier releases are kept beside it and still
// read.
func TestSnapshotOfThisRelease(t *testing.T) {
	path := filepath.Join("testdata", "snapshot.json")
	data, err := json.MarshalIndent(everything(), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	data = append(data, '\n')
	if *update {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, golden) {
		t.Errorf("a snapshot is written as\n%s\nwant, as in %s,\n%s", data, path, golden)
	}
	if got, want := loadFile(t, path), everything(); !reflect.DeepEqual(got, want) {
		t.Errorf("the golden file reads as\n%s\nwant\n%s", text(t, got), text(t, want))
	}
}

// loadFile reads a file as the snapshot of a state directory.
func loadFile(t *testing.T, path string) *Snapshot {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put(t, dir, string(text))
	return load(t, reader(t, dir))
}

// The first release knew verdicts, IPv6 and whether truth had expired.
func TestSnapshotOfTheFirstRelease(t *testing.T) {
	now := everything()
	all := now.Mirrors["all.example.org"]
	now.Mirrors["all.example.org"] = &Status{Health: all.Health, IPv6: all.IPv6}
	want := &Snapshot{Taken: now.Taken, Mirrors: now.Mirrors, Truth: map[Key]Truth{baseos: {Expired: true}, {"9.8", "appstream", "x86_64"}: {}}}
	if got := loadFile(t, filepath.Join("testdata", "snapshot-1.json")); !reflect.DeepEqual(got, want) {
		t.Errorf("it reads as\n%s\nwant\n%s", text(t, got), text(t, want))
	}
}
