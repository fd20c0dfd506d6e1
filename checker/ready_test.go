package checker

import (
	"reflect"
	"slices"
	"testing"

	"meridian/checker/state"
	"meridian/schema"
)

func TestReadyCountsWhoHasAVersion(t *testing.T) {
	n := WithPending(&schema.Network{
		Versions: []schema.Version{"9", "9.8"}, Aliases: map[schema.Version]schema.Version{"9": "9.8"},
		Arches: map[schema.Version][]schema.Arch{"9": {"x86_64", "aarch64"}},
		Repos:  []schema.Repo{{Name: "baseos", Path: "BaseOS/$basearch/os/"}},
	}, []schema.Version{"9.9"})
	address := schema.Address{HTTP: "http://a.example/"}
	mirror := func(name, country string, mbits int) *schema.Mirror {
		return &schema.Mirror{Name: name, Address: address, Bandwidth: mbits, Location: schema.Location{Country: country}}
	}
	x86 := state.Key{Version: "9.9", Repo: "baseos", Arch: "x86_64"}
	arm := state.Key{Version: "9.9", Repo: "baseos", Arch: "aarch64"}
	partial := mirror("partial", "DE", 1000)
	partial.Carries.Arches = []schema.Arch{"x86_64"}
	private := mirror("private", "DE", 1000)
	private.Private = true
	mirrors := []*schema.Mirror{mirror("fast", "DE", 9000), mirror("slow", "FR", 1000), mirror("far", "JP", 500), mirror("unseen", "JP", 500), partial, private}
	has := func(x, a state.Health) *state.Status {
		return &state.Status{Health: map[state.Key]state.Health{x86: x, arm: a}}
	}
	snap := &state.Snapshot{
		Mirrors: map[string]*state.Status{
			"fast": has(state.Fresh, state.Absent), "slow": has(state.Lagging, state.Ahead), "far": has(state.Fresh, state.Down), "partial": has(state.Fresh, state.Fresh),
			"private": has(state.Fresh, state.Fresh),
		},
		Truth: map[state.Key]state.Truth{x86: {Generations: make([]state.Generation, 1)}},
	}
	got := slices.DeleteFunc(Ready(n, mirrors, snap, "9.9"), func(ks KeyShare) bool { return ks.Key.Repo != "baseos" })
	want := []KeyShare{
		{
			Key: x86, Published: true, All: state.Share{Mirrors: 3, Of: 5, Mbits: 10500, OfMbits: 12000},
			Continents: map[string]state.Share{"EU": {Mirrors: 2, Of: 3, Mbits: 10000, OfMbits: 11000}, "AS": {Mirrors: 1, Of: 2, Mbits: 500, OfMbits: 1000}},
			Missing:    map[string]state.Health{"slow": state.Lagging, "unseen": state.Pending},
		},
		{
			Key: arm, All: state.Share{Mirrors: 1, Of: 4, Mbits: 1000, OfMbits: 11000},
			Continents: map[string]state.Share{"EU": {Mirrors: 1, Of: 2, Mbits: 1000, OfMbits: 10000}, "AS": {Mirrors: 0, Of: 2, Mbits: 0, OfMbits: 1000}},
			Missing:    map[string]state.Health{"fast": state.Absent, "far": state.Down, "unseen": state.Pending},
		},
	}
	slices.SortFunc(got, func(a, b KeyShare) int { return -compareKeys(a.Key, b.Key) })
	slices.SortFunc(want, func(a, b KeyShare) int { return -compareKeys(a.Key, b.Key) })
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if c := ContinentsOf(got); !slices.Equal(c, []string{"AS", "EU"}) {
		t.Errorf("continents %q", c)
	}
	if s := (state.Share{}); s.Count() != 1 || s.Bandwidth() != 1 {
		t.Error("of nobody not everybody is ready")
	}
	if Ready(n, mirrors, snap, "9.7") != nil {
		t.Error("a version that nobody looks for is ready")
	}
}
