package state

import (
	"time"

	"meridian/schema"
)

// A Publication is what the origin published at one time, and how it has reached
// the mirrors since.
type Publication struct {
	// Time is when the origin was first seen to serve it whole.
	Time time.Time `json:"time"`

	// Repositories is how many were published, and Versions of which versions.
	Repositories int              `json:"repositories"`
	Versions     []schema.Version `json:"versions"`

	// Generations are what was published, while it is still followed: for two
	// days. Nil after that.
	Generations map[Key]GenerationID `json:"generations,omitempty"`

	// Samples say how far it had come, in order: one where that has changed, more
	// closely in the beginning, and 41 at most.
	Samples []Sample `json:"samples,omitempty"`
}

// ID names a publication within a snapshot. IDs are in the order of time.
func (p *Publication) ID() string { return p.Time.UTC().Format("2006-01-02T15:04:05.000000000Z") }

// A Sample is how far a publication had come at one time. It counts the public
// mirrors that answer with any generation of what was published, and carry it; of
// these, those that have this one or a later one of all of it.
type Sample struct {
	After      int64            `json:"after"` // seconds after the publication
	All        Share            `json:"all"`
	Continents map[string]Share `json:"continents"` // "" where a mirror does not say
}

// A Share is a part of some mirrors, by their number and by their bandwidth.
type Share struct {
	Mirrors int `json:"mirrors"`
	Of      int `json:"of"`

	Mbits   int `json:"mbits"` // their bandwidth, Mbit/s
	OfMbits int `json:"of_mbits"`
}

// Add counts a mirror, which is in the part or not.
func (s *Share) Add(in bool, mbits int) {
	s.Of++
	s.OfMbits += mbits
	if in {
		s.Mirrors++
		s.Mbits += mbits
	}
}

// Count is the share by the number of mirrors, from 0 to 1. Of nobody it is all.
func (s Share) Count() float64 { return part(s.Mirrors, s.Of) }

// Bandwidth is the share by bandwidth, from 0 to 1.
func (s Share) Bandwidth() float64 { return part(s.Mbits, s.OfMbits) }

func part(n, of int) float64 {
	if of == 0 {
		return 1
	}
	return float64(n) / float64(of)
}
