package checker

import (
	"cmp"
	"maps"
	"slices"

	"meridian/checker/state"
	"meridian/schema"
)

// A KeyShare is how much of the network carries one repository: the gate before
// an alias is turned to a new version.
type KeyShare struct {
	Key state.Key `json:"key"`

	// Published: the origin has it: a generation of a repository, or the images of
	// a set.
	Published bool `json:"published"`

	// All of the mirrors that promise to carry it, and those of each continent
	// ("" where a mirror does not say).
	All        state.Share            `json:"all"`
	Continents map[string]state.Share `json:"continents"`

	// Missing are the names of the mirrors that do not have it yet, and why.
	Missing map[string]state.Health `json:"missing,omitempty"`
}

// Ready says of each repository and set of images of a version how much of the
// network carries it. Private mirrors and those inside clouds do not count: they
// are not asked, or serve their own networks alone.
func Ready(n *schema.Network, mirrors []*schema.Mirror, snap *state.Snapshot, v schema.Version) []KeyShare {
	var out []KeyShare
	for _, k := range append(Keys(n), ISOKeys(n)...) {
		if k.Version != v {
			continue
		}
		ks := KeyShare{Key: k, Continents: map[string]state.Share{}, Missing: map[string]state.Health{}}
		truth := snap.Truth[k]
		ks.Published = len(truth.Generations)+len(truth.Images) > 0
		for _, m := range mirrors {
			if m.Private || m.CloudType != "" || !slices.Contains(KeysOf(n, m), k) && !slices.Contains(ISOKeysOf(n, m), k) {
				continue
			}
			health := state.Pending
			if st := snap.Mirrors[m.Name]; st != nil {
				if h, ok := st.Health[k]; ok {
					health = h
				}
			}
			ready := health == state.Fresh || health == state.Ahead
			continent := cmp.Or(m.Location.Continent, schema.Continent(m.Location.Country))
			mbits := max(1, m.Bandwidth)
			ks.All.Add(ready, mbits)
			s := ks.Continents[continent]
			s.Add(ready, mbits)
			ks.Continents[continent] = s
			if !ready {
				ks.Missing[m.Name] = health
			}
		}
		out = append(out, ks)
	}
	return out
}

// ContinentsOf returns the continents of shares, sorted.
func ContinentsOf(shares []KeyShare) []string {
	seen := map[string]bool{}
	for _, ks := range shares {
		for c := range ks.Continents {
			seen[c] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
