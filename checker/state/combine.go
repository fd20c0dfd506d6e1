package state

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// maxBehind is how much earlier than the newest a snapshot may have been taken.
// A checker that lives renews its own every minute.
const maxBehind = 15 * time.Minute

// Combine makes one snapshot of those of several vantage points. It depends on
// nothing but its arguments, so that all nodes make the same:
//
//   - A snapshot that was taken more than 15 minutes before the newest is left
//     out: its checker is dead. A clock that is ahead of now counts as now.
//   - A key of a mirror that was proven to lie anywhere is Broken.
//   - A key is Down, or Broken without a lie, only where more than half of those
//     who have tried say that it is one of both.
//   - Otherwise those who got a repomd.xml, or a 404, decide: the middle one in
//     the order Fresh, Ahead, Lagging, Stale, Absent; of two the worse. Who calls
//     a generation fresh that another has seen to be superseded means Lagging.
//   - Pending, Unprobed and Unknown are no opinion.
//   - An address family that answered anywhere answers. A scheme works unless
//     more than half of those who tried say that it does not.
//   - How publications spread is told by the one that has seen most of them: the
//     first by name, of several.
//   - The truth of a key is that whose newest generation was published last; of
//     the same generation, the one confirmed last. What was withdrawn or expired
//     anywhere is.
//
// What one place alone sees and the others do not is left as a warning. A single
// snapshot is returned as it is.
func Combine(now time.Time, snaps ...*Snapshot) *Snapshot {
	var c combiner
	return c.combine(now, snaps)
}

// A combiner combines again and again, and makes no new Status of a mirror of
// which no vantage point says anything new.
type combiner struct {
	now   []*Snapshot // what was combined last
	out   *Snapshot
	late  []map[Key]GenerationID
	parts map[string][]*Status // what each Status of out was made of
}

func (c *combiner) combine(now time.Time, snaps []*Snapshot) *Snapshot {
	snaps, taken := alive(now, snaps)
	if len(snaps) == 1 {
		*c = combiner{}
		return snaps[0]
	}
	if slices.Equal(snaps, c.now) {
		return c.out
	}
	out := &Snapshot{Taken: taken, Mirrors: make(map[string]*Status), Truth: combineTruth(snaps)}
	for _, s := range snaps {
		if len(s.Publications) > len(out.Publications) {
			out.Publications = s.Publications
		}
	}
	late := make([]map[Key]GenerationID, len(snaps))
	for i, s := range snaps {
		late[i] = superseded(s.Truth, out.Truth)
	}
	// What a vantage point means by fresh depends on its truth.
	again := len(late) == len(c.late)
	for i := range late {
		again = again && maps.Equal(late[i], c.late[i])
	}
	parts := make(map[string][]*Status)
	for _, s := range snaps {
		for name := range s.Mirrors {
			if parts[name] != nil {
				continue
			}
			part := make([]*Status, len(snaps))
			for i, s := range snaps {
				part[i] = s.Mirrors[name]
			}
			parts[name] = part
			if again && slices.Equal(part, c.parts[name]) {
				out.Mirrors[name] = c.out.Mirrors[name]
			} else {
				out.Mirrors[name] = combineStatus(snaps, part, late)
			}
		}
	}
	*c = combiner{now: snaps, out: out, late: late, parts: parts}
	return out
}

// alive returns the snapshots of checkers that are not dead, and when the newest
// was taken.
func alive(now time.Time, snaps []*Snapshot) ([]*Snapshot, time.Time) {
	var newest time.Time
	for _, s := range snaps {
		if t := earlier(s.Taken, now); t.After(newest) {
			newest = t
		}
	}
	var live []*Snapshot
	for _, s := range snaps {
		if newest.Sub(earlier(s.Taken, now)) <= maxBehind {
			live = append(live, s)
		}
	}
	return live, newest
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// superseded returns what is the newest generation of each key in one truth and
// not in the other; nil if there is none.
func superseded(truth, than map[Key]Truth) map[Key]GenerationID {
	var out map[Key]GenerationID
	for k, t := range truth {
		all := than[k]
		if mine, best := t.Newest(), all.Newest(); mine != nil && best != nil && mine.SHA256 != best.SHA256 {
			if out == nil {
				out = make(map[Key]GenerationID)
			}
			out[k] = mine.ID()
		}
	}
	return out
}

func combineTruth(snaps []*Snapshot) map[Key]Truth {
	out := make(map[Key]Truth)
	for _, s := range snaps {
		for k, t := range s.Truth {
			best, ok := out[k]
			if !ok {
				out[k] = t
				continue
			}
			worse := t
			if better(&t, &best) {
				best, worse = t, best
			}
			out[k] = withdrawnToo(best, worse)
		}
	}
	return out
}

// better reports whether a knows more than b.
func better(a, b *Truth) bool {
	ga, gb := a.Newest(), b.Newest()
	switch {
	case ga == nil || gb == nil:
		if (ga == nil) != (gb == nil) {
			return ga != nil
		}
	case ga.SHA256 != gb.SHA256:
		return ga.FirstSeen.After(gb.FirstSeen)
	}
	return a.Confirmed.After(b.Confirmed)
}

// withdrawnToo returns t with what another truth of the key has withdrawn.
func withdrawnToo(t, other Truth) Truth {
	expired := func(g *Generation) bool {
		return !g.Expired && slices.ContainsFunc(other.Generations, func(o Generation) bool { return o.Expired && o.SHA256 == g.SHA256 })
	}
	for i := range t.Generations {
		if expired(&t.Generations[i]) {
			t.Generations = slices.Clone(t.Generations)
			for j := i; j < len(t.Generations); j++ {
				t.Generations[j].Expired = t.Generations[j].Expired || expired(&t.Generations[j])
			}
			break
		}
	}
	if a, b := t.Newest(), other.Newest(); a != nil && b != nil && a.SHA256 == b.SHA256 {
		t.Expired = t.Expired || other.Expired
	}
	t.Withdrawn = cmp.Or(t.Withdrawn, other.Withdrawn)
	return t
}

// combineStatus makes one status of those that each snapshot has of a mirror; nil
// where it has none. At least one has.
func combineStatus(snaps []*Snapshot, parts []*Status, late []map[Key]GenerationID) *Status {
	out := &Status{Health: make(map[Key]Health)}
	var told []*Status
	alone := 0 // if one has
	for i, st := range parts {
		if st == nil {
			continue
		}
		told, alone = append(told, st), i
		for k := range st.Health {
			if _, done := out.Health[k]; !done {
				combineKey(out, k, parts[i:], late[i:])
			}
		}
	}
	if len(told) == 1 && late[alone] == nil {
		return told[0]
	}
	reaches := func(of func(*Status) Reach) Reach {
		return combineReach(told, of, func(good, bad int) bool { return good > 0 })
	}
	out.IPv4 = reaches(func(st *Status) Reach { return st.IPv4 })
	out.IPv6 = reaches(func(st *Status) Reach { return st.IPv6 })
	combineSchemes(out, told)
	out.Failures, out.Successes, out.Unrouted = told[0].Failures, told[0].Successes, told[0].Unrouted
	for _, st := range told {
		out.Failures, out.Successes = min(out.Failures, st.Failures), min(out.Successes, st.Successes)
		out.Strikes, out.Struck = max(out.Strikes, st.Strikes), later(out.Struck, st.Struck)
		out.OtherHost, out.ClockAhead = cmp.Or(out.OtherHost, st.OtherHost), cmp.Or(out.ClockAhead, st.ClockAhead)
		out.Apart, out.Unrouted = out.Apart || st.Apart, out.Unrouted && st.Unrouted
		out.Visited, out.Changed = later(out.Visited, st.Visited), later(out.Changed, st.Changed)
		out.Time = later(out.Time, st.Time)
		out.Override = combineOverride(out.Override, st.Override)
		out.Warnings = append(out.Warnings, st.Warnings...)
	}
	kept := keptOut(out)
	for i, st := range parts {
		switch {
		case st == nil || st.Problem == nil:
		case !kept:
			out.Warnings = append(out.Warnings, "seen from "+cmp.Or(snaps[i].Vantage, "the first vantage point")+" only: "+st.Problem.Reason)
		case out.Problem == nil || st.Problem.Since.Before(out.Problem.Since):
			out.Problem = st.Problem
		}
	}
	slices.Sort(out.Warnings)
	out.Warnings = slices.Compact(out.Warnings)
	return out
}

// keptOut reports whether anything keeps the mirror out of lists.
func keptOut(st *Status) bool {
	for _, h := range st.Health {
		if h == Stale || h == Broken || h == Down {
			return true
		}
	}
	for _, s := range st.Schemes {
		if s.Works == Unreached {
			return true
		}
	}
	return false
}

// A vote is what one vantage point says of a key.
type vote struct {
	health  Health
	holds   GenerationID // if it is Lagging or Stale, and known
	known   bool
	finding *Finding
}

// freshness is the order of those who got an answer.
var freshness = []Health{Fresh, Ahead, Lagging, Stale, Absent}

func combineKey(out *Status, k Key, parts []*Status, late []map[Key]GenerationID) {
	var failed, answered []vote
	down := 0
	none, hasNone := Unknown, false
	for i, st := range parts {
		if st == nil {
			continue
		}
		h, ok := st.Health[k]
		if !ok {
			continue
		}
		v := vote{health: h, finding: st.Findings[k]}
		v.holds, v.known = st.Holds[k]
		switch h {
		case Down, Broken:
			if h == Broken && v.finding != nil && v.finding.Lied {
				settle(out, k, v)
				return
			}
			if h == Down {
				down++
			}
			failed = append(failed, v)
		case Fresh, Ahead, Lagging, Stale, Absent:
			if id, ok := late[i][k]; ok && h == Fresh {
				v.health, v.holds, v.known = Lagging, id, true
			}
			answered = append(answered, v)
		default:
			if !hasNone {
				none, hasNone = h, true
			}
		}
	}
	switch {
	case len(failed) > len(answered):
		worst := Broken
		if 2*down >= len(failed) {
			worst = Down
		}
		settle(out, k, failed[slices.IndexFunc(failed, func(v vote) bool { return v.health == worst })])
	case len(answered) > 0:
		slices.SortStableFunc(answered, func(a, b vote) int {
			return cmp.Compare(slices.Index(freshness, a.health), slices.Index(freshness, b.health))
		})
		settle(out, k, answered[len(answered)/2])
	default:
		settle(out, k, vote{health: none})
	}
}

// settle takes one vote for all.
func settle(out *Status, k Key, v vote) {
	out.Health[k] = v.health
	if v.known && (v.health == Lagging || v.health == Stale) {
		if out.Holds == nil {
			out.Holds = make(map[Key]GenerationID)
		}
		out.Holds[k] = v.holds
	}
	if v.finding != nil {
		if out.Findings == nil {
			out.Findings = make(map[Key]*Finding)
		}
		out.Findings[k] = v.finding
	}
}

// combineReach is Reached or Unreached, as decided by how many say which, and
// Untested if nobody says either.
func combineReach(told []*Status, of func(*Status) Reach, reached func(good, bad int) bool) Reach {
	good, bad := 0, 0
	for _, st := range told {
		switch of(st) {
		case Reached:
			good++
		case Unreached:
			bad++
		}
	}
	switch {
	case good+bad == 0:
		return Untested
	case reached(good, bad):
		return Reached
	}
	return Unreached
}

func combineSchemes(out *Status, told []*Status) {
	for _, st := range told {
		for name := range st.Schemes {
			if out.Schemes[name] != nil {
				continue
			}
			of := func(st *Status) Reach {
				if s := st.Schemes[name]; s != nil {
					return s.Works
				}
				return Untested
			}
			all := &Scheme{Works: combineReach(told, of, func(good, bad int) bool { return good >= bad })}
			for _, st := range told {
				s := st.Schemes[name]
				if s == nil {
					continue
				}
				// Of two certificates the one that ends first is the one to renew.
				if !s.TLSExpires.IsZero() && (all.TLSExpires.IsZero() || s.TLSExpires.Before(all.TLSExpires)) {
					all.TLSBegins, all.TLSExpires = s.TLSBegins, s.TLSExpires
				}
				if all.Problem == nil && s.Works == all.Works {
					all.Problem = s.Problem
				}
			}
			if out.Schemes == nil {
				out.Schemes = make(map[string]*Scheme)
			}
			out.Schemes[name] = all
		}
	}
}

// combineOverride is both: administrators may tell one checker or each.
func combineOverride(a, b *Override) *Override {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	both := *a
	both.Disabled = a.Disabled || b.Disabled
	both.Draining = a.Draining || b.Draining
	both.Weight = cmp.Or(a.Weight, b.Weight)
	both.Reason = cmp.Or(a.Reason, b.Reason)
	if a.Until.IsZero() || b.Until.IsZero() {
		both.Until = time.Time{}
	} else {
		both.Until = later(a.Until, b.Until)
	}
	both.Withdrawn = slices.Clone(a.Withdrawn)
	for _, k := range b.Withdrawn {
		if !slices.Contains(both.Withdrawn, k) {
			both.Withdrawn = append(both.Withdrawn, k)
		}
	}
	return &both
}
