package checker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"meridian/builder/repodata"
	"meridian/checker/state"
)

// A standing is what a generation is beside those that are known.
type standing uint8

const (
	isNewest    standing = iota // it is the newest known one
	isKnown                     // it is an older one
	isNewer                     // it is not known, and follows the newest
	isOlder                     // it is not known, and came before the newest
	isRewritten                 // it is not known, and has the newest one's revision
)

// standingOf compares by bytes what is known, and by revisions what is not.
func standingOf(t *state.Truth, g *state.Generation) standing {
	for i := range t.Generations {
		switch {
		case t.Generations[i].SHA256 != g.SHA256:
		case i == 0:
			return isNewest
		default:
			return isKnown
		}
	}
	n := t.Newest()
	if n == nil {
		return isNewer
	}
	switch c := compareRevisions(g.Revision, g.Timestamp, n.Revision, n.Timestamp); {
	case c > 0:
		return isNewer
	case c < 0:
		return isOlder
	}
	return isRewritten
}

// accepts tells whether an administrator has decided that g follows what is the
// newest generation of t. A decision about another newest one is spent.
func accepts(d *state.Decision, t *state.Truth, g *state.Generation) bool {
	if d == nil || d.Generation != g.SHA256 {
		return false
	}
	n := t.Newest()
	return n == nil && d.Instead == state.Hash256{} || n != nil && d.Instead == n.SHA256
}

// adopt returns t with g as its newest generation, seen now for the first time. A
// generation that was the newest before, and is accepted again, is so anew.
func adopt(t state.Truth, g state.Generation, now time.Time) state.Truth {
	g.FirstSeen, g.Expired = now, false
	if n := t.Newest(); n != nil && n.FirstSeen.After(now) {
		g.FirstSeen = n.FirstSeen // the clock has gone back; the order has not
	}
	rest := slices.DeleteFunc(slices.Clone(t.Generations), func(o state.Generation) bool { return o.SHA256 == g.SHA256 })
	return withGenerations(t, append([]state.Generation{g}, rest...))
}

// forget returns t without generations that were superseded before then. Two
// stay in any case.
func forget(t state.Truth, then time.Time) state.Truth {
	keep := len(t.Generations)
	for keep > 2 && (keep > maxGenerations || t.Generations[keep-2].FirstSeen.Before(then)) {
		keep--
	}
	if keep == len(t.Generations) {
		return t
	}
	return withGenerations(t, slices.Clone(t.Generations[:keep]))
}

// expire returns t after a decision: the generation that it names is withdrawn,
// and every one that it followed. As long as that is the newest one, there is
// nothing to do yet.
func expire(t state.Truth, d *state.Decision) state.Truth {
	if d == nil {
		return t
	}
	from := slices.IndexFunc(t.Generations, func(g state.Generation) bool { return g.SHA256 == d.Generation })
	if from < 1 || !slices.ContainsFunc(t.Generations[from:], func(g state.Generation) bool { return !g.Expired }) {
		return t
	}
	all := slices.Clone(t.Generations)
	for i := range all[from:] {
		all[from+i].Expired = true
	}
	return withGenerations(t, all)
}

func withGenerations(t state.Truth, all []state.Generation) state.Truth {
	t.Generations = all
	t.Expired = len(all) > 1 && !slices.ContainsFunc(all[1:], func(g state.Generation) bool { return !g.Expired })
	return t
}

// sameTruth tells whether a and b differ in Confirmed at most.
func sameTruth(a, b *state.Truth) bool {
	return slices.Equal(a.Generations, b.Generations) && a.Expired == b.Expired && a.Absent == b.Absent &&
		a.Withdrawn == b.Withdrawn && a.Disputed.Equal(b.Disputed) && a.Problem == b.Problem && a.Partial == b.Partial &&
		slices.Equal(a.Images, b.Images) && slices.Equal(a.Offered, b.Offered)
}

// offer returns what of t is known to be served, or to have been, beside its
// generations: served is what tier0s have now. What nobody serves any more is
// remembered as long as mirrors may have it.
func offer(t state.Truth, served []state.Hash256, now, then time.Time) []state.Offer {
	var all []state.Offer
	for _, o := range t.Offered {
		switch {
		case slices.Contains(served, o.SHA256):
			o.Gone = time.Time{}
		case o.Gone.IsZero():
			o.Gone = now
		case o.Gone.Before(then):
			continue
		}
		all = append(all, o)
	}
	for _, sum := range served {
		if !slices.ContainsFunc(all, func(o state.Offer) bool { return o.SHA256 == sum }) {
			all = append(all, state.Offer{SHA256: sum})
		}
	}
	all = slices.DeleteFunc(all, func(o state.Offer) bool {
		return slices.ContainsFunc(t.Generations, func(g state.Generation) bool { return g.SHA256 == o.SHA256 })
	})
	return all[max(0, len(all)-maxOffers):]
}

// wants tells whether g may be adopted as far as its revision goes.
func (s *topic) wants(g *state.Generation) bool {
	return standingOf(&s.truth, g) == isNewer || accepts(s.accept, &s.truth, g)
}

// ask asks for what l is about. Of a repository that may be adopted it asks for
// everything that its repomd.xml names, and then for that once more: what is
// adopted was there before its files were looked for, and after.
func (l *look) ask(ctx context.Context, now time.Time) {
	l.at, l.lacks, l.proof = now, nil, nil
	switch {
	case l.of.key.Repo == isos:
		l.askImages(ctx)
		return
	case l.of.excluded:
		l.reply = l.tier0.size(ctx, l.path+repodata.Dir+"/"+repodata.Name)
		return
	}
	have := l.stamp
	if l.sight == nil || now.Sub(l.readAt) >= readEvery {
		have = stamp{}
	}
	var complete state.Hash256 // the generation whose files were all there
	for range 3 {
		if !l.readRepomd(ctx, have, now) {
			return
		}
		g := &l.sight.generation
		if l.sight.whole || !l.of.wants(g) {
			return
		}
		if complete == g.SHA256 {
			l.sight.whole = true
			return
		}
		if !l.find(ctx, l.sight.repomd.Data) {
			return
		}
		complete, have = g.SHA256, stamp{}
	}
	l.lacks, l.proof = errors.New("it is replaced again and again while its files are looked for"), l.sight.proof
}

// become takes a reply that is no document.
func (l *look) become(r reply, now time.Time) {
	l.at, l.reply, l.stamp, l.sight = now, r, stamp{}, nil
}

// readRepomd reads repomd.xml, unless it is the one that l has. It tells whether
// there is one.
func (l *look) readRepomd(ctx context.Context, have stamp, now time.Time) bool {
	r := l.tier0.read(ctx, l.path+repodata.Dir+"/"+repodata.Name, have)
	if r.outcome != Served {
		if r.outcome == Missing {
			l.serves = state.Hash256{}
		}
		l.become(r, now)
		return false
	}
	l.reply = reply{outcome: Served}
	if r.unchanged {
		return true
	}
	g, md, err := readGeneration(r.body, now)
	if err != nil {
		l.serves = state.Hash256{}
		r.outcome, r.err = Garbage, err
		l.become(r, now)
		return false
	}
	l.stamp, l.readAt, l.serves = r.stamp, now, g.SHA256
	if l.sight == nil || l.sight.generation.SHA256 != g.SHA256 {
		l.sight = &sighting{generation: g, repomd: md, text: r.body, proof: r.evidence(nil)}
	}
	return true
}

// find looks for files of a repository, and tells whether all are there.
func (l *look) find(ctx context.Context, files []repodata.Data) bool {
	for i := range files {
		d := &files[i]
		r := l.tier0.size(ctx, l.path+d.Location)
		switch {
		case r.outcome == Missing:
			l.lacks = fmt.Errorf("it names %s, which is not there", d.Location)
		case r.outcome != Served:
			l.become(r, l.at)
			return false
		case d.Size >= 0 && r.size >= 0 && d.Size != r.size:
			l.lacks = fmt.Errorf("it names %s with %d bytes, and there are %d", d.Location, d.Size, r.size)
		}
		if l.lacks != nil {
			l.proof = r.evidence(l.lacks)
			return false
		}
	}
	return true
}

// settle decides what to believe after some looks of s were asked, and tells
// whether any of them has found something else than before.
func (o *Origin) settle(s *topic, serving map[*tier0]service, now time.Time) (news bool) {
	switch {
	case s.key.Repo == isos:
		o.settleImages(s, serving, now)
	case s.excluded:
		// That tier0 cannot be asked others tell, and it changes nothing.
		present := slices.ContainsFunc(s.looks, func(l *look) bool { return l.reply.outcome == Served })
		s.truth.Absent = !present && (s.truth.Absent || s.missing(serving))
	default:
		o.settleTruth(s, serving, now)
	}
	for _, l := range s.looks {
		is := l.situation()
		news = news || !l.was.at.IsZero() && !l.was.same(is)
		l.was = is
	}
	return news
}

func (o *Origin) settleTruth(s *topic, serving map[*tier0]service, now time.Time) {
	t := s.truth
	// Several tier0s may have come to different generations of one publication,
	// or of several: mirrors may have each of them.
	var whole []*sighting
	for _, l := range s.looks {
		if l.sight != nil && l.sight.whole {
			whole = append(whole, l.sight)
		}
	}
	slices.SortStableFunc(whole, func(a, b *sighting) int {
		return compareRevisions(a.generation.Revision, a.generation.Timestamp, b.generation.Revision, b.generation.Timestamp)
	})
	for _, seen := range whole {
		if standingOf(&t, &seen.generation) == isNewer || accepts(s.accept, &t, &seen.generation) {
			t = adopt(t, seen.generation, now)
			o.publish(s.key)
		}
	}
	t = forget(o.withdraw(s, t), now.Add(-o.retention))
	var served []state.Hash256
	for _, l := range s.looks {
		if l.serves != (state.Hash256{}) && !slices.Contains(served, l.serves) {
			served = append(served, l.serves)
		}
	}
	t.Offered = offer(t, served, now, now.Add(-o.retention))

	confirmed, present, absent := false, false, s.missing(serving)
	for _, l := range s.looks {
		present = present || l.sight != nil
		if l.sight != nil && standingOf(&t, &l.sight.generation) == isNewest {
			confirmed = true
			if l.at.After(t.Confirmed) {
				t.Confirmed = l.at
			}
			o.files.put(s.key, &t, l.sight)
		}
	}
	if present || t.Newest() != nil {
		t.Absent = false
	} else if absent {
		t.Absent = true
	}
	t.Problem, t.Partial = nil, false
	for _, l := range s.looks {
		l.troubled(l.judge(&t, confirmed, serving[l.tier0]), now)
		if l.trouble == nil {
			continue
		}
		if !confirmed && t.Problem == nil {
			t.Problem = l.trouble.problem
		}
		t.Partial = t.Partial || confirmed && !l.trouble.kind.disbelieved()
	}
	switch {
	case confirmed, !s.ahead && o.saidAhead:
		t.Disputed = time.Time{}
	case s.ahead && t.Disputed.IsZero():
		t.Disputed = now
	}
	s.truth = t
}

// missing tells whether no tier0 has s, though each has something.
func (s *topic) missing(serving map[*tier0]service) bool {
	for _, l := range s.looks {
		if l.at.IsZero() || l.reply.outcome != Missing || serving[l.tier0] != servesSome {
			return false
		}
	}
	return len(s.looks) > 0
}

// waits tells whether s, which is seldom asked for, was missing on a tier0 that
// had nothing at all then, and now has something.
func (s *topic) waits(serving map[*tier0]service) bool {
	return (s.excluded || s.key.Repo == isos) && !s.truth.Absent && s.missing(serving)
}

// publish notes that k has a new generation.
func (o *Origin) publish(k state.Key) {
	if !slices.Contains(o.published, k) {
		o.published = append(o.published, k)
	}
	o.count(func(n *OriginNumbers) { n.Generations++ })
}

// withdraw applies what was decided about generations of s, and notes who was
// heard.
func (o *Origin) withdraw(s *topic, t state.Truth) state.Truth {
	after := expire(t, s.expire)
	if sameTruth(&after, &t) {
		return t
	}
	by := s.expire.By
	i := slices.IndexFunc(o.withdrawn, func(w withdrawal) bool { return w.by == by })
	if i < 0 {
		i = len(o.withdrawn)
		o.withdrawn = append(o.withdrawn, withdrawal{by: by})
	}
	o.withdrawn[i].keys = append(o.withdrawn[i].keys, s.key)
	return after
}

// A withdrawal is an administrator's decision that took effect.
type withdrawal struct {
	by   string
	keys []state.Key
}

// A service is what a tier0 was seen to have of its whole tree.
type service uint8

const (
	servesUnknown service = iota // not everything was asked for yet
	servesNone                   // it has no repository at all
	servesSome                   // it has at least one
)

// serving tells of each tier0 whether it has anything. What has nothing says of
// no repository that it is gone: it is an empty mount point, or a wrong URL.
func (o *Origin) serving() map[*tier0]service {
	all := map[*tier0]service{}
	for _, t := range o.tier0s {
		all[t] = servesNone
	}
	for _, s := range o.keys {
		if s.key.Repo == isos || s.excluded {
			continue
		}
		for _, l := range s.looks {
			switch {
			case l.sight != nil:
				all[l.tier0] = servesSome
			case l.at.IsZero() && all[l.tier0] == servesNone:
				all[l.tier0] = servesUnknown
			}
		}
	}
	return all
}

// readDecisions takes up what administrators have decided.
func (o *Origin) readDecisions(ctx context.Context, now time.Time) {
	if o.opts.Decisions == nil || now.Sub(o.decided) < decisionsEvery {
		return
	}
	o.decided = now
	ctx, cancel := context.WithTimeout(ctx, decisionsTimeout)
	defer cancel()
	all, err := o.opts.Decisions(ctx)
	if deaf := err != nil; deaf != o.deaf {
		o.deaf = deaf
		if deaf {
			o.opts.Log.Warn("decisions of administrators cannot be read", "err", err)
		} else {
			o.opts.Log.Info("decisions of administrators can be read again")
		}
	}
	for i := range all {
		d := &all[i]
		s := o.byKey[d.Key]
		if s == nil || err != nil {
			continue
		}
		switch d.Verb {
		case state.Expire:
			if s.expire == nil || s.expire.Generation != d.Generation {
				s.expire = d
				s.truth = o.withdraw(s, s.truth)
			}
		case state.Accept:
			if s.accept == nil || s.accept.Generation != d.Generation || s.accept.Instead != d.Instead {
				s.accept = d
				s.askNow(now)
			}
		}
	}
}
