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

	// Published: the origin has it.
	Published bool `json:"published"`

	// All of the mirrors that promise to carry it, and those of each continent
	// ("" where a mirror does not say).
	All        Share            `json:"all"`
	Continents map[string]Share `json:"continents"`

	// Missing are the names of the mirrors that do not have it yet, and why.
	Missing map[string]state.Health `json:"missing,omitempty"`
}

// A Share is a part of some mirrors, by their number and by their bandwidth.
type Share struct {
	Mirrors int `json:"mirrors"` // that have the newest generation
	Of      int `json:"of"`

	Mbits   int `json:"mbits"` // their bandwidth, Mbit/s
	OfMbits int `json:"of_mbits"`
}

// Count is the share by the number of mirrors, from 0 to 1. Of nobody everybody
// is ready.
func (s Share) Count() float64 { return part(s.Mirrors, s.Of) }

// Bandwidth is the share by bandwidth, from 0 to 1.
func (s Share) Bandwidth() float64 { return part(s.Mbits, s.OfMbits) }

func part(n, of int) float64 {
	if of == 0 {
		return 1
	}
	return float64(n) / float64(of)
}

func (s *Share) add(ready bool, mbits int) {
	s.Of++
	s.OfMbits += mbits
	if ready {
		s.Mirrors++
		s.Mbits += mbits
	}
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
		ks := KeyShare{Key: k, Continents: map[string]Share{}, Missing: map[string]state.Health{}}
		truth := snap.Truth[k]
		ks.Published = len(truth.Generations) > 0
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
			ks.All.add(ready, mbits)
			s := ks.Continents[continent]
			s.add(ready, mbits)
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
