package checker

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"meridian/checker/state"
)

// A place is where an answer belongs among the generations of a key.
type place struct {
	// at is 0 for the newest, -1 for what is newer than that, 2·i for generation i,
	// and an odd number for one between two of them or behind the last.
	at int

	known      int       // the index of the generation; -1 if it is none of them
	superseded time.Time // of an older one: when its successor was first seen, or before
	forged     bool      // it says that it is a known one, and is not
	offered    bool      // a tier0 serves it, or has lately; it was not adopted
}

// locate finds out which generation was served.
func locate(t *state.Truth, seen *KeySeen) place {
	for i := range t.Generations {
		if g := &t.Generations[i]; g.SHA256 == seen.SHA256 {
			p := place{at: 2 * i, known: i}
			if i > 0 {
				p.superseded = t.Generations[i-1].FirstSeen
			}
			return p
		}
	}
	offered := slices.ContainsFunc(t.Offered, func(o state.Offer) bool { return o.SHA256 == seen.SHA256 })
	for i := range t.Generations {
		g := &t.Generations[i]
		switch {
		case order(seen.Revision, seen.Timestamp, g) != 0:
		case !offered:
			return place{known: -1, forged: true}
		case i == 0:
			return place{at: -1, known: -1, offered: true}
		}
	}
	p := older(t, func(g *state.Generation) bool { return order(seen.Revision, seen.Timestamp, g) > 0 })
	p.offered = offered
	return p
}

// older finds the place of a generation that is none of the known ones, from
// which of them it is newer than.
func older(t *state.Truth, newer func(*state.Generation) bool) place {
	for i := range t.Generations {
		if !newer(&t.Generations[i]) {
			continue
		}
		p := place{at: 2*i - 1, known: -1}
		if i > 0 {
			p.superseded = t.Generations[i-1].FirstSeen
		}
		return p
	}
	// Older than the oldest, whose own time is the last moment at which it can
	// have been the newest.
	last := &t.Generations[len(t.Generations)-1]
	p := place{at: 2*len(t.Generations) - 1, known: -1, superseded: last.FirstSeen}
	if made := time.Unix(last.Timestamp, 0); last.Timestamp > 0 && made.Before(p.superseded) {
		p.superseded = made
	}
	return p
}

// order compares what a repomd.xml says of its age with a generation: positive if
// it is newer, 0 if it claims to be that generation. The same number is the same
// generation only where revisions are times: a label or a counter that stands
// still says nothing, and the times of the data decide.
func order(revision string, timestamp int64, g *state.Generation) int {
	n := compareRevisions(revision, timestamp, g.Revision, g.Timestamp)
	if n == 0 && len(strings.TrimLeft(revision, "0")) < len("1000000000") {
		n = cmp.Compare(timestamp, g.Timestamp)
	}
	return n
}

// relapses tells whether an answer, which belongs to p, is older than the one
// before it.
func (v *verdict) relapses(k state.Key, t *state.Truth, p place, seen *KeySeen) bool {
	if was := v.position(k, t); p.at != was || p.known >= 0 {
		return p.at > was
	}
	// Two that nobody knows have one place.
	f := v.finding(k)
	return f.Revision != "" && compareRevisions(seen.Revision, 0, f.Revision, 0) < 0
}

// position is the place of what the mirror has last answered with, behind all
// others if that is not known.
func (v *verdict) position(k state.Key, t *state.Truth) int {
	unknown := 2*len(t.Generations) - 1
	h, f := v.next.Health[k], v.finding(k)
	id, ok := f.Last, f.Last != state.GenerationID{}
	if !ok {
		id, ok = v.next.Holds[k]
	}
	switch {
	case ok:
		for i := range t.Generations {
			if t.Generations[i].ID() == id {
				return 2 * i
			}
		}
		return unknown
	case h == state.Fresh, h == state.Ahead && !isWholeNumber(f.Revision):
		return 0
	case f.Revision != "":
		return olderBy(f.Revision, t).at
	}
	return unknown
}

// remember puts into f what was answered now, and recall what the verdict on k
// says that was answered before, for it is about to say that no more.
func remember(f *state.Finding, t *state.Truth, p place, seen *KeySeen) {
	if p.known >= 0 {
		f.Last, f.Revision = t.Generations[p.known].ID(), ""
	} else {
		f.Last, f.Revision = state.GenerationID{}, seen.Revision
	}
}

func (v *verdict) recall(k state.Key, f *state.Finding) {
	if f.Last != (state.GenerationID{}) || f.Revision != "" {
		return
	}
	if id, ok := v.next.Holds[k]; ok {
		f.Last = id
	} else if t := v.truth(k); v.next.Health[k] == state.Fresh && t != nil && t.Newest() != nil {
		f.Last = t.Newest().ID()
	}
}

// olderBy finds the place of an unknown generation by its revision alone.
func olderBy(revision string, t *state.Truth) place {
	return older(t, func(g *state.Generation) bool { return compareRevisions(revision, 0, g.Revision, 0) > 0 })
}

// supersededAt is when what the mirror holds was followed by another generation:
// long ago if it is not remembered.
func (v *verdict) supersededAt(k state.Key, t *state.Truth) time.Time {
	if t.Newest() == nil {
		return v.at
	}
	if id, ok := v.next.Holds[k]; ok {
		if id == t.Newest().ID() {
			return v.at // the origin went back to it
		}
		return t.Superseded(id)
	}
	if f := v.next.Findings[k]; f != nil && f.Revision != "" {
		return olderBy(f.Revision, t).superseded
	}
	return time.Time{}
}

// recent tells whether what was superseded then may still be handed out.
func (v *verdict) recent(superseded time.Time) bool {
	return v.at.Sub(superseded) < v.r.allowedOutdate
}
