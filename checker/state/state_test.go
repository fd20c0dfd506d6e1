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

// everything is a snapshot with each verdict, and each thing that can be said.
func everything() *Snapshot {
	key := func(v, r, a string) Key {
		var k Key
		if err := k.UnmarshalText([]byte(v + "/" + r + "/" + a)); err != nil {
			panic(err)
		}
		return k
	}
	all := &Status{Health: map[Key]Health{}, IPv6: Unreached}
	for h := range Health(len(healthNames)) {
		all.Health[key("9.8", h.String(), "x86_64")] = h
	}
	published := &Publication{
		Time: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), Repositories: 2, Versions: []schema.Version{"9.8"},
		Generations: map[Key]GenerationID{key("9.8", "baseos", "x86_64"): {1, 2, 3}},
		Samples: []Sample{
			{All: Share{Of: 2, OfMbits: 3000}, Continents: map[string]Share{"EU": {Of: 2, OfMbits: 3000}}},
			{After: 125, All: Share{Mirrors: 1, Of: 2, Mbits: 1000, OfMbits: 3000}, Continents: map[string]Share{"EU": {Mirrors: 1, Of: 2, Mbits: 1000, OfMbits: 3000}}},
		},
	}
	return &Snapshot{
		Taken:        time.Date(2026, 7, 1, 12, 30, 0, 0, time.UTC),
		Publications: map[string]*Publication{published.ID(): published},
		Mirrors: map[string]*Status{
			"all.example.org":   all,
			"empty.example.org": {},
			"ipv6.example.org":  {Health: map[Key]Health{key("9.8", "isos", ""): Fresh}, IPv6: Reached},
		},
		Truth: map[Key]Truth{key("9.8", "baseos", "x86_64"): {Expired: true}, key("9.8", "appstream", "x86_64"): {}},
	}
}

// Servers of this release read snapshots of the next, and the other way round,
// while a cluster is upgraded: fields are only ever added. The file is what this
// release writes; files of earlier releases are kept beside it and still read.
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
	got, err := reader(t, "testdata").Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := everything(); !reflect.DeepEqual(got, want) {
		t.Errorf("the golden file reads as\n%+v\nwant\n%+v", got, want)
	}
}
