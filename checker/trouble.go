package checker

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"meridian/checker/state"
)

// A troubleKind is what can be wrong with what a tier0 serves.
type troubleKind uint8

const (
	isAway       troubleKind = iota // it does not answer
	isRefusing                      // it answers that it will not
	isGone                          // it does not have what it had
	isEmpty                         // it has nothing at all
	isGarbage                       // what it serves cannot be read
	isIncomplete                    // what its repomd.xml names is not there
	isBackwards                     // it serves an older generation
	isDiffering                     // it serves other bytes under the newest revision
	isBehind                        // it serves an older generation, and another tier0 the newest

	isRemembered // whatever a former process has found
)

// disbelieved tells the kinds apart: those where a tier0 is heard and not
// believed, and those where it is not heard.
func (k troubleKind) disbelieved() bool { return k != isAway && k != isRefusing }

// patience is for how long a trouble lasts before it is told. What a restart, or
// a publication under way, looks like is over by then.
func (k troubleKind) patience() time.Duration {
	switch k {
	case isIncomplete:
		return time.Minute
	case isBehind:
		return 15 * time.Minute
	}
	return 10 * time.Second
}

// A trouble lasts as long as every look at one topic on one tier0 finds
// something wrong.
type trouble struct {
	kind    troubleKind
	looks   int
	told    bool
	joined  bool           // told only in so far as others of the same tier0 were
	problem *state.Problem // the same one as long as it says the same
}

// rememberedTrouble is one that a former process has told.
func rememberedTrouble(p *state.Problem) *trouble {
	return &trouble{kind: isRemembered, told: true, problem: p}
}

// ripe tells whether it is time to tell.
func (t *trouble) ripe(now time.Time) bool {
	return !t.told && t.looks > 1 && now.Sub(t.problem.Since) >= t.kind.patience()
}

// A situation is what tells one look from the next.
type situation struct {
	at      time.Time
	sum     state.Hash256
	trouble bool
	unheard bool
}

func (l *look) situation() situation {
	s := situation{at: l.at, trouble: l.trouble != nil}
	if l.sight != nil {
		s.sum = l.sight.generation.SHA256
	}
	if s.trouble {
		s.unheard = !l.trouble.kind.disbelieved()
	}
	return s
}

func (s situation) same(o situation) bool {
	return s.sum == o.sum && s.trouble == o.trouble && s.unheard == o.unheard
}

// A finding is one thing that is wrong, in words that stay the same as long as
// it does.
type finding struct {
	kind           troubleKind
	reason, remedy string
	evidence       *state.Evidence
}

// troubled takes up what was found by a look; nil is nothing.
func (l *look) troubled(f *finding, now time.Time) {
	was := l.trouble
	if f == nil {
		l.recovered = l.recovered || was != nil && was.told && !was.joined
		l.trouble = nil
		return
	}
	t := &trouble{kind: f.kind, looks: 1}
	since := now
	if was != nil && (was.kind == isRemembered || was.kind.disbelieved() == f.kind.disbelieved()) {
		t.looks, t.told, t.joined, since = was.looks, was.told, was.joined, was.problem.Since
		if l.at.Equal(now) {
			t.looks++
		}
		if was.problem.Reason == f.reason {
			t.problem = was.problem
		}
	}
	if t.problem == nil {
		t.problem = &state.Problem{Reason: f.reason, Remedy: f.remedy, Since: since, Evidence: f.evidence}
	}
	l.trouble = t
}

const (
	remedyStart   = "see to it that it answers, or correct origin in the settings; until then lists rely on what was published last"
	remedyPublish = "publish again with a higher revision, as syncer rollback does; or if it is meant: checker origin accept %s"
)

// judge says what is wrong with what l has found, nil if nothing is. t is what is
// believed, and confirmed tells whether some tier0 serves the newest of it.
func (l *look) judge(t *state.Truth, confirmed bool, serves service) *finding {
	base := l.tier0.base
	n := t.Newest()
	if l.at.IsZero() {
		return nil
	}
	switch l.reply.outcome {
	case Served:
	case Garbage:
		if l.reply.broken {
			return l.unheard()
		}
		return &finding{isGarbage, fmt.Sprintf("what %s serves is no repomd.xml: %s", base, told(l.reply.err.Error())),
			"correct it, or correct origin in the settings", l.reply.proof()}
	case Missing:
		switch {
		case n != nil:
			return &finding{isGone, base + " does not have it any more",
				"publish it again, or take it out of the network file", l.reply.proof()}
		case serves == servesNone && !t.Absent:
			return &finding{isEmpty, base + " has no repository of the network",
				"correct origin in the settings: it names what is above the directories of the versions", l.reply.proof()}
		}
		return nil
	default:
		return l.unheard()
	}
	g := &l.sight.generation
	s, revision := standingOf(t, g), told(g.Revision)
	switch {
	case s == isNewest:
		return nil
	case l.lacks != nil:
		return &finding{isIncomplete, fmt.Sprintf("revision %s at %s is not complete: %s", revision, base, told(l.lacks.Error())),
			"nothing, if it is being published; else publish it again", l.proof}
	case s == isNewer:
		return nil // it was not looked for yet
	}
	accept := fmt.Sprintf(remedyPublish, l.of.key)
	switch {
	case s == isRewritten:
		return &finding{isDiffering, fmt.Sprintf("%s serves something else under revision %s than was published", base, told(n.Revision)), accept, l.sight.proof}
	case confirmed:
		return &finding{isBehind, fmt.Sprintf("%s serves revision %s, and another tier0 serves %s", base, revision, told(n.Revision)),
			"bring it up to date", l.sight.proof}
	}
	return &finding{isBackwards, fmt.Sprintf("%s serves revision %s, which is older than %s", base, revision, told(n.Revision)), accept, l.sight.proof}
}

// told is what strangers wrote, or what was found wrong with it, as a part of a
// sentence.
func told(s string) string { return escape([]byte(s), maxEvidenceValue) }

// unheard says why no whole answer came; nil if one did.
func (l *look) unheard() *finding {
	base := l.tier0.base
	switch {
	case l.reply.outcome == Refused:
		return &finding{isRefusing, fmt.Sprintf("%s refuses: %v", base, l.reply.err), remedyStart, l.reply.proof()}
	case l.reply.outcome == Unreachable:
		return &finding{isAway, base + " does not answer", remedyStart, l.reply.proof()}
	case l.reply.broken:
		return &finding{isAway, "what " + base + " sends does not end as it should", remedyStart, l.reply.proof()}
	}
	return nil
}

func (r *reply) proof() *state.Evidence {
	if r.evidence == nil {
		return nil
	}
	return r.evidence(r.err)
}

// tell returns what is to be told after a poll: what was published, what is wrong
// for long enough, and what is over.
func (o *Origin) tell(now time.Time) []state.Event {
	var events []state.Event
	add := func(kind string, keys []state.Key, p *state.Problem) {
		events = append(events, state.Event{Time: now, Vantage: o.opts.Vantage, Kind: kind, Keys: keys, Problem: p})
	}
	if len(o.published) > 0 {
		add(state.Published, o.inOrder(o.published), nil)
		o.count(func(n *OriginNumbers) { n.Publications++ })
		o.published = nil
	}
	for _, w := range o.withdrawn {
		add(state.OverrideChanged, o.inOrder(w.keys), &state.Problem{
			Reason: cmp.Or(w.by, "an administrator") + " has withdrawn every generation but the newest", Since: now,
		})
	}
	o.withdrawn = nil

	type group struct {
		tier0 *tier0
		kind  troubleKind
	}
	var (
		order []group
		of    = map[group][]*look{} // not told yet
		ripe  = map[group]bool{}
		heard = map[group]bool{} // of some keys at least
		over  = map[*tier0][]state.Key{}
	)
	for _, s := range o.keys {
		for _, l := range s.looks {
			if l.recovered {
				l.recovered = false
				over[l.tier0] = append(over[l.tier0], s.key)
			}
			if l.trouble == nil {
				continue
			}
			g := group{l.tier0, l.trouble.kind}
			heard[g] = heard[g] || l.trouble.told
			ripe[g] = ripe[g] || l.trouble.ripe(now)
			if !l.trouble.told {
				if of[g] == nil {
					order = append(order, g)
				}
				of[g] = append(of[g], l)
			}
		}
	}
	for _, t := range o.tier0s {
		if keys := over[t]; keys != nil {
			add(state.OriginTroubled, keys, nil)
		}
	}
	slices.SortStableFunc(order, func(a, b group) int {
		return cmp.Compare(slices.Index(o.tier0s, a.tier0), slices.Index(o.tier0s, b.tier0))
	})
	for _, g := range order {
		// That a tier0 is not heard is one story, however long it takes until all
		// its repositories were asked for.
		silent := heard[g] && !g.kind.disbelieved()
		if !ripe[g] && !silent {
			continue
		}
		var keys []state.Key
		for _, l := range of[g] {
			l.trouble.told, l.trouble.joined = true, silent
			keys = append(keys, l.of.key)
		}
		if !silent {
			add(state.OriginTroubled, keys, of[g][0].trouble.problem)
			o.count(func(n *OriginNumbers) { n.Troubles++ })
		}
	}
	return events
}

// inOrder returns keys in the order of the network.
func (o *Origin) inOrder(keys []state.Key) []state.Key {
	var sorted []state.Key
	for _, s := range o.keys {
		if slices.Contains(keys, s.key) {
			sorted = append(sorted, s.key)
		}
	}
	return sorted
}
