package checker

import (
	"maps"
	"time"

	"meridian/checker/state"
)

// result returns the status and what has changed.
func (v *verdict) result(vantage string) (*state.Status, []state.Event) {
	events := []state.Event(nil)
	if v.changed {
		events = v.events(vantage)
		v.trim()
	}
	next := new(state.Status)
	*next = v.next
	if len(events) > 0 && !next.Visited.Equal(v.prev.Visited) {
		next.Changed = v.at
	}
	return next, append(events, v.tls(vantage)...)
}

// maxEvidence is how many requests a status holds, of the repositories that come
// first. Who has more trouble than that has seen enough.
const maxEvidence = 8

// trim bounds the size of a status: a mirror can be wrong everywhere.
func (v *verdict) trim() {
	if !v.ownFindings {
		return
	}
	n := 0
	for _, k := range v.m.keys {
		f := v.next.Findings[k]
		if f == nil || f.Problem == nil || f.Problem.Evidence == nil {
			continue
		}
		if n++; n > maxEvidence {
			said, less := *f, *f.Problem
			less.Evidence = nil
			said.Problem = &less
			v.next.Findings[k] = &said
		}
	}
}

// events are the changes of verdict from the status before to the one now.
func (v *verdict) events(vantage string) (all []state.Event) {
	add := func(e state.Event) *state.Event {
		e.Time, e.Vantage, e.Mirror = v.at, vantage, v.m.Name
		all = append(all, e)
		return &all[len(all)-1]
	}
	type change struct{ from, to state.Health }
	groups := map[change]int{}
	for _, k := range v.m.keys {
		to, ok := v.next.Health[k]
		from, had := v.prev.Health[k]
		if !had {
			from = state.Pending
		}
		if !ok || from == to || to == state.Unprobed && !v.next.Unrouted {
			continue
		}
		c := change{from, to}
		i, ok := groups[c]
		if !ok {
			i = len(all)
			groups[c] = i
			add(state.Event{Kind: state.HealthChanged, From: from, To: to, Problem: v.cause(k, to)})
		}
		all[i].Keys = append(all[i].Keys, k)
		if to == state.Fresh && (from == state.Lagging || from == state.Stale) && k.Repo != isos {
			if t := v.truth(k); t != nil && t.Newest() != nil {
				all[i].Lag = max(all[i].Lag, v.at.Sub(t.Newest().FirstSeen))
			}
		}
	}
	for _, name := range []string{"http", "https", "rsync"} {
		var was, is state.Scheme
		if s := v.prev.Schemes[name]; s != nil {
			was = *s
		}
		if s := v.next.Schemes[name]; s != nil {
			is = *s
		}
		if p := turned(name, was.Works, is.Works, is.Problem, v.at); p != nil {
			add(state.Event{Kind: state.SchemeChanged, Problem: p})
		}
	}
	for _, f := range []struct {
		name    Family
		was, is state.Reach
	}{{IPv4, v.prev.IPv4, v.next.IPv4}, {IPv6, v.prev.IPv6, v.next.IPv6}} {
		if p := turned(string(f.name), f.was, f.is, &state.Problem{Reason: deafFamily(f.name), Since: v.at}, v.at); p != nil {
			add(state.Event{Kind: state.FamilyChanged, Problem: p})
		}
	}
	return all
}

// turned returns what is to be said when a way has ceased to work, or works
// again; nil when it has not changed, or was not known before.
func turned(name string, was, is state.Reach, trouble *state.Problem, at time.Time) *state.Problem {
	switch {
	case was == is:
	case is == state.Unreached:
		return trouble
	case is == state.Reached && was == state.Unreached:
		return &state.Problem{Reason: name + " works again", Since: at}
	}
	return nil
}

// cause is why k has become h; nil for what needs no reason.
func (v *verdict) cause(k state.Key, h state.Health) *state.Problem {
	if f := v.next.Findings[k]; f != nil && f.Problem != nil {
		return f.Problem
	}
	switch h {
	case state.Down, state.Unprobed:
		return v.next.Problem
	case state.Stale:
		return since(nil, outdated(k, v.r.allowedOutdate, v.seen[k].Evidence), v.at)
	}
	return nil
}

// tls is the event of a certificate that has come nearer to its end than one of
// tlsWarnings since the visit before.
func (v *verdict) tls(vantage string) []state.Event {
	s := v.next.Schemes["https"]
	if s == nil || v.next.Visited.Equal(v.prev.Visited) {
		return nil
	}
	n, before := tlsWarning(s, v.at), 0
	if was := v.prev.Schemes["https"]; was != nil && was.TLSExpires.Equal(s.TLSExpires) {
		before = tlsWarning(s, v.prev.Visited)
	}
	if n <= before {
		return nil
	}
	return []state.Event{{
		Time: v.at, Vantage: vantage, Mirror: v.m.Name, Kind: state.TLSExpiring,
		Problem: &state.Problem{Reason: endingCertificate(s), Remedy: renewCertificate, Since: v.at},
	}}
}

// set, hold, unhold, keep and schemes write to the status; each copies a map of
// the status before when it does so for the first time.

func (v *verdict) set(k state.Key, h state.Health) {
	if was, ok := v.next.Health[k]; ok && was == h {
		return
	}
	if !v.ownHealth {
		v.next.Health, v.ownHealth = cloned(v.next.Health), true
	}
	v.next.Health[k] = h
	v.changed = true
}

func (v *verdict) hold(k state.Key, id state.GenerationID) {
	if was, ok := v.next.Holds[k]; ok && was == id {
		return
	}
	if !v.ownHolds {
		v.next.Holds, v.ownHolds = cloned(v.next.Holds), true
	}
	v.next.Holds[k] = id
	v.changed = true
}

func (v *verdict) unhold(k state.Key) {
	if _, ok := v.next.Holds[k]; !ok {
		return
	}
	if !v.ownHolds {
		v.next.Holds, v.ownHolds = cloned(v.next.Holds), true
	}
	delete(v.next.Holds, k)
	v.changed = true
}

// finding returns a copy of what is remembered of k, to be kept or not.
func (v *verdict) finding(k state.Key) state.Finding {
	if f := v.next.Findings[k]; f != nil {
		return *f
	}
	return state.Finding{}
}

// keep remembers f of k; what says nothing is forgotten.
func (v *verdict) keep(k state.Key, f state.Finding) {
	said := f
	said.Since, said.Clean = time.Time{}, 0
	was := v.next.Findings[k]
	if said == (state.Finding{}) {
		if was == nil {
			return
		}
	} else if was != nil && *was == f {
		return
	}
	if !v.ownFindings {
		v.next.Findings, v.ownFindings = cloned(v.next.Findings), true
	}
	if v.changed = true; said == (state.Finding{}) {
		delete(v.next.Findings, k)
		return
	}
	kept := f // f itself stays on the stack of who finds out that nothing is new
	v.next.Findings[k] = &kept
}

func (v *verdict) schemes() {
	if !v.ownSchemes {
		v.next.Schemes, v.ownSchemes = cloned(v.next.Schemes), true
	}
}

// forget takes away all that was known of k.
func (v *verdict) forget(k state.Key) {
	if _, ok := v.next.Health[k]; ok {
		if !v.ownHealth {
			v.next.Health, v.ownHealth = cloned(v.next.Health), true
		}
		delete(v.next.Health, k)
		v.changed = true
	}
	v.unhold(k)
	v.keep(k, state.Finding{})
}

// cloned returns a copy of m that can be written to.
func cloned[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}
