package checker

import (
	"cmp"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"meridian/builder/repodata"
	"meridian/checker/state"
)

// Who is asked what, and when. Nothing here asks a clock or starts anything: the
// loop in run.go does what this file says.

// How often mirrors are asked. A Settings.Interval that is shorter than quietest
// bounds the first four, and shortens the others in proportion.
const (
	// quietest is how long a mirror is left alone at most.
	quietest = 15 * time.Minute

	// watchEvery is how often a mirror is asked for watchFor after a publication,
	// and how often at most a mirror that syncs all the time.
	watchEvery = 2 * time.Minute
	watchFor   = 30 * time.Minute

	// looksAgain is how many times more a mirror that has something new is asked as
	// often: whether all of its servers have it.
	looksAgain = 3

	// soon is when a failure is looked at again for the first time, in which time
	// a new mirror or repository is probed, and what a visit has left undone done.
	soon = time.Minute

	// visitGap is between two visits of one mirror at least.
	visitGap = 5 * time.Second

	// A repository is asked for once in seenWithin, whatever happens. The rounds
	// of those that nothing is expected of are planned to take rotation.
	seenWithin = 5 * time.Hour
	rotation   = 4 * time.Hour

	waysEvery    = time.Hour      // families, schemes, TIME
	imagesEvery  = 24 * time.Hour // each set of images
	closureEvery = 6 * time.Hour  // a file of metadata and a package

	// imagesAtOnce are the sets of one visit when none is new.
	imagesAtOnce = 2

	// suspectsAtOnce are the repositories of one visit to a liar whose lists of
	// packages are read. They are large.
	suspectsAtOnce = 16
)

// Manners: what one host is asked at most, whoever its mirrors are.
const (
	hostRate  = 1.0 // requests a second, sustained
	hostBurst = 600 // requests at once, after a time of rest

	// hostReserve is kept of the burst for what cannot wait, when there is
	// something that can; hostSlack for what a visit makes beyond its budget,
	// which is redirects of the last requests.
	hostReserve = 100
	hostSlack   = 8

	// hostLeast is how many requests a visit is worth making for.
	hostLeast = 20
)

// A bucket is what may be asked of a host still. One goroutine owns it.
type bucket struct {
	tokens float64
	at     time.Time
	scale  float64 // 1, or more for hosts that need no manners
}

func newBucket(now time.Time, scale float64) *bucket {
	return &bucket{tokens: hostBurst * scale, at: now, scale: scale}
}

func (b *bucket) fill(now time.Time) {
	if d := now.Sub(b.at).Seconds(); d > 0 {
		b.tokens, b.at = min(b.tokens+d*hostRate*b.scale, hostBurst*b.scale), now
	}
}

// take books what a visit may ask, before it does.
func (b *bucket) take(now time.Time) (budget int) {
	b.fill(now)
	n := max(0, int(b.tokens)-hostSlack)
	b.tokens -= float64(n)
	return n
}

// back returns what was booked and not used; it may be negative.
func (b *bucket) back(unused int, now time.Time) {
	b.fill(now)
	b.tokens = min(b.tokens+float64(unused), hostBurst*b.scale)
}

// ready is when a visit is worth making.
func (b *bucket) ready(now time.Time) time.Time {
	b.fill(now)
	if short := hostLeast + hostSlack - b.tokens; short > 0 {
		return now.Add(time.Duration(short / (hostRate * b.scale) * float64(time.Second)))
	}
	return now
}

// A stock is what is known of the files of generations.
type stock interface {
	// metadata are the files that the repomd.xml of a generation names, primary
	// first; nil if it is not known.
	metadata(k state.Key, id state.GenerationID) []repodata.Data

	// images is the set of images of k, and the hash of its CHECKSUM; ok if the
	// origin has one.
	images(k state.Key) (sum state.Hash256, files []repodata.Data, ok bool)

	// sample is some package of the generation; nil if none is at hand. With order
	// there will be some later.
	sample(k state.Key, id state.GenerationID, rnd *rand.Rand, order bool) *FilePlan

	// file is the plan for one path. known tells whether that can be said now; a
	// nil plan is then of a path that the generation does not name.
	file(k state.Key, id state.GenerationID, path string) (plan *FilePlan, known bool)
}

// An agenda is what is remembered of the visits to one mirror. It is lost at a
// restart, and then made from the status.
type agenda struct {
	hash    uint64
	first   time.Time // when the first visit of this process is due
	visited time.Time // when the last visit of this process ended
	hinted  time.Time // when a visit was asked for, zero after it was made

	asked []int64                 // by place among the promises: seconds since 1970; 0: never
	left  map[int][]repodata.Data // files that are yet to be asked for, of what is Fresh
	flip  time.Time               // when the mirror was last seen to have something new
	back  time.Time               // when it came back after it was down
	doubt time.Time               // until when what is listed was asked for before a repository fell back
	ways  time.Time               // when each way was last tried
	files time.Time               // when the closure was last looked at

	suspect int // where among the promises of a liar the next look begins
}

// A schedule says when a mirror is visited, and for what.
type schedule struct {
	interval time.Duration // Settings.Interval
	truth    truths
	stock    stock
}

// step is d, or the interval if that is less.
func (s *schedule) step(d time.Duration) time.Duration { return min(d, s.interval) }

// scaled is d for an interval of quietest, and less for a shorter one.
func (s *schedule) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) * float64(min(s.interval, quietest)) / float64(quietest))
}

func hashOf(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return h.Sum64()
}

// part returns a part of d that depends on the mirror alone.
func (a *agenda) part(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(a.hash % uint64(d))
}

// enroll begins an agenda. A mirror that is new to the store is visited within a
// minute; one that is known, after a restart, in the time in which it would have
// been anyway: restarting the daemon neither probes all mirrors at once nor
// reorders them.
func (s *schedule) enroll(m subject, st *state.Status, now time.Time) *agenda {
	a := &agenda{hash: hashOf(m.Name), asked: make([]int64, len(m.keys))}
	spread := s.step(soon)
	if st != nil && !st.Visited.IsZero() {
		spread = s.quiet(m)
		for i, k := range m.keys {
			if h := st.Health[k]; h != state.Pending {
				// When each was asked is not known, and not all at once.
				ago := time.Duration(hashOf(m.Name+k.String()) % uint64(s.scaled(rotation)))
				a.asked[i] = st.Visited.Add(-ago).Unix()
			}
		}
		a.ways = st.Visited.Add(-a.part(s.scaled(waysEvery)))
		a.files = st.Visited.Add(-a.part(s.scaled(closureEvery)))
	}
	a.first = now.Add(a.part(spread))
	return a
}

// reenroll carries an agenda over to other promises.
func (a *agenda) reenroll(was, is *promises) {
	if was == is {
		return
	}
	old := make(map[state.Key]int64, len(was.keys))
	for i, k := range was.keys {
		old[k] = a.asked[i]
	}
	a.asked, a.left = make([]int64, len(is.keys)), nil
	for i, k := range is.keys {
		a.asked[i] = old[k]
	}
}

// quiet is how long a mirror is left alone of which nothing is expected.
func (s *schedule) quiet(m subject) time.Duration {
	return s.step(min(max(m.UpdateFrequency/4, watchEvery), quietest))
}

// backoff is how long a mirror is left alone after so many failures in a row:
// a minute, then twice as long each time.
func (s *schedule) backoff(a *agenda, failures int) time.Duration {
	d := quietest
	if failures < 5 {
		d = soon << (failures - 1)
	}
	d = s.step(d)
	return d - a.part(d/5) // so that mirrors that fail together do not return together
}

// due returns when the mirror is visited next; zero if never.
func (s *schedule) due(a *agenda, m subject, st *state.Status) time.Time {
	if !m.public() {
		return time.Time{}
	}
	next := a.first
	if !a.visited.IsZero() {
		next = a.visited.Add(s.wait(a, m, st))
	}
	if !a.hinted.IsZero() && a.hinted.Before(next) {
		next = a.hinted
	}
	if least := a.visited.Add(s.step(visitGap)); next.Before(least) {
		next = least
	}
	return next
}

// wait is how long the next visit has time after the last one.
func (s *schedule) wait(a *agenda, m subject, st *state.Status) time.Duration {
	if st.Unrouted {
		return s.quiet(m)
	}
	if st.Failures > 0 {
		return s.backoff(a, st.Failures)
	}
	if held(st) {
		return s.backoff(a, 1)
	}
	next := a.visited.Add(s.quiet(m))
	last := inFront(m, st)
	for i, k := range m.keys {
		if k.Repo == isos {
			continue // there is no hurry, and perhaps nothing to ask for
		}
		if i > last && outOfStep(k, st) {
			continue
		}
		if w := s.wants(a, m, i, st); w.why != nothing && w.at.Before(next) {
			next = w.at
		}
	}
	if len(a.left) > 0 {
		next = earliest(next, a.visited.Add(s.step(soon)))
	}
	if a.visited.Sub(a.flip) < s.step(watchEvery)*looksAgain {
		next = earliest(next, a.visited.Add(s.step(watchEvery)))
	}
	return next.Sub(a.visited)
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// held tells whether the mirror answers, and has to do so more often.
func held(st *state.Status) bool { return st.Successes < st.Strikes }

// A reason is why a repository is asked for. The more urgent ones are greater.
type reason uint8

const (
	nothing reason = iota
	inTurn         // it is long ago
	watched        // it may have changed: one of those that change together is enough
	wanted         // it is new, in trouble, or what it changes with has changed
)

// A want is when a repository is to be asked for, and why.
type want struct {
	at  time.Time
	why reason
}

// wants says when the repository i is to be asked for. What is not expected to
// change waits for its turn.
func (s *schedule) wants(a *agenda, m subject, i int, st *state.Status) want {
	k := m.keys[i]
	h, ok := st.Health[k]
	if !ok {
		return want{}
	}
	never := a.asked[i] == 0
	asked := time.Unix(a.asked[i], 0)
	f := st.Findings[k]
	switch {
	case never:
		return want{time.Time{}, wanted}
	case f != nil && f.Failures > 0 && f.Failures <= forgiven:
		return want{asked.Add(s.backoff(a, 1)), wanted}
	case h == state.Broken && f != nil && !f.Lied && f.Path == "" && f.Clean > 0:
		// It is right again, and has to be a few times more: those who come and go
		// often more slowly.
		return want{asked.Add(s.backoff(a, 1+min(f.Strikes/(relapseStrikes+1), 1))), wanted}
	case h.Listable() && k.Repo != isos && asked.Before(a.doubt):
		return want{time.Time{}, wanted} // it is hardly one repository alone
	case h == state.Broken || h == state.Ahead || f != nil && (f.Failures > 0 || f.Path != "" || returning(f)):
		// The longer it lasts, the less often.
		return want{asked.Add(min(max(asked.Sub(f.Since), s.step(soon)), s.quiet(m))), wanted}
	case h == state.Down && asked.Before(a.back):
		return want{time.Time{}, wanted}
	case h == state.Down || h == state.Pending:
		return want{asked.Add(s.step(soon)), wanted}
	case k.Repo == isos:
		return want{asked.Add(s.scaled(imagesEvery - a.part(imagesEvery/10))), inTurn}
	}
	turn := want{asked.Add(s.scaled(seenWithin)), inTurn}
	t := s.truth(k)
	if t == nil || t.Newest() == nil {
		return turn
	}
	published := t.Newest().FirstSeen
	switch {
	case h == state.Unknown:
		return want{asked.Add(s.step(soon)), wanted}
	case h != state.Lagging && h != state.Stale:
		return turn
	case asked.Before(a.flip):
		return want{time.Time{}, wanted}
	case a.flip.After(published) && asked.Sub(a.flip) < watchFor:
		// A mirror that syncs piece by piece.
		return want{asked.Add(s.step(watchEvery)), wanted}
	}
	if at := s.tick(a, published); !at.IsZero() {
		return want{at, watched}
	}
	return want{a.visited.Add(s.quiet(m)), watched}
}

// tick is the first moment after the last visit at which the mirror is watched
// because of a publication; zero if it is no longer.
func (s *schedule) tick(a *agenda, published time.Time) time.Time {
	every := s.step(watchEvery)
	first := published.Add(a.part(every))
	n := time.Duration(0)
	if d := a.visited.Sub(first); d >= 0 {
		n = d/every + 1
	}
	if at := first.Add(n * every); at.Sub(published) <= watchFor {
		return at
	}
	return time.Time{}
}

// plan says what a visit asks for that may make budget requests.
func (s *schedule) plan(a *agenda, m subject, st *state.Status, now time.Time, budget int, rnd *rand.Rand) Plan {
	p := Plan{Budget: budget}
	if h := st.Schemes["http"]; h != nil && h.Works == state.Unreached {
		p.Scheme = "https"
	}
	troubled := st.Failures > 0 || held(st)
	if now.Sub(a.ways) >= s.waysWait(st) || st.Failures == forgiven {
		p.Families, p.Schemes, p.Time = true, true, true
	}
	if st.Unrouted || st.Failures > 0 || held(st) && st.Successes+1 < st.Strikes {
		s.fewKeys(&p, m, st)
		if len(p.Keys) > 0 {
			p.Keys[0].Confirm = true
		}
		return p
	}

	var watch, want, turn []int
	var pending, images []int
	overdue := 0
	last := inFront(m, st)
	for i := range m.keys {
		w := s.wants(a, m, i, st)
		late := !w.at.After(now)
		switch {
		case w.why == nothing:
		case outOfStep(m.keys[i], st) && (i > last || !late):
			// In a row are answers that have time between them.
		case m.keys[i].Repo == isos:
			if late && w.why == wanted {
				pending = append(pending, i)
			} else if late {
				images = append(images, i)
			}
		case w.why == wanted && (late || troubled && st.Health[m.keys[i]] == state.Down):
			want = append(want, i)
		case w.why == watched:
			watch = append(watch, i)
		default:
			if turn = append(turn, i); late {
				overdue++
			}
		}
	}
	oldestFirst := func(list []int) {
		slices.SortFunc(list, func(x, y int) int { return cmp.Or(cmp.Compare(a.asked[x], a.asked[y]), cmp.Compare(x, y)) })
	}
	keys, rest := s.sentinels(m, watch)
	oldestFirst(want)
	oldestFirst(turn)
	confirmed := 1
	if i := s.witness(m, st, turn); i >= 0 {
		keys = slices.Insert(keys, 0, i)
		turn = slices.DeleteFunc(turn, func(j int) bool { return j == i })
		confirmed = min(2, len(keys))
	}
	keys = append(keys, want...)
	// Each of them may cost two requests, the file and its primary; what was asked
	// for without its primary would have to be asked for again.
	keys = keys[:min(len(keys), max(1, budget/2))]
	for _, i := range rest {
		// What the sentinels stand for has its turn as well: it may break alone.
		if turn = append(turn, i); now.Unix()-a.asked[i] >= int64(s.scaled(seenWithin)/time.Second) {
			overdue++
		}
	}
	oldestFirst(turn)
	spare := budget - hostReserve - 2*len(keys)
	if spare > 0 {
		// As many as keep the round going, and those that have waited too long.
		n := 1 + int(float64(len(m.keys))*float64(now.Sub(a.last(now)))/float64(s.scaled(rotation)))
		n = min(max(n, overdue), spare, len(turn))
		spare -= n
		keys = append(keys, turn[:n]...)
	}
	if len(keys) == 0 && len(turn) > 0 {
		keys = turn[:1]
	}
	p.Budget = min(budget, max(2*len(keys)+hostLeast, budget-hostReserve))
	planned := map[int]bool{}
	for _, i := range keys {
		planned[i] = true
		p.Keys = append(p.Keys, s.keyPlan(a, m, i, st))
	}
	for _, i := range a.leftKeys() {
		cost := 1 + len(a.left[i])
		if planned[i] || spare < cost {
			continue
		}
		spare -= cost
		p.Keys = append(p.Keys, s.keyPlan(a, m, i, st))
	}

	front := vanguard
	for i := range p.Keys {
		k := &p.Keys[i]
		k.Confirm = i < confirmed
		if front > 0 && outOfStep(k.Key, st) {
			k.Confirm = true
			front--
		}
	}

	oldestFirst(images)
	for n, i := range append(pending, images[:min(len(images), imagesAtOnce)]...) {
		sum, files, ok := s.stock.images(m.keys[i])
		if !ok || n >= len(pending) && spare < 1+len(files) {
			continue
		}
		spare -= 1 + len(files)
		p.ISOs = append(p.ISOs, KeyPlan{Key: m.keys[i], Newest: sum, Files: files})
	}
	s.closure(&p, a, m, st, now, spare, rnd)
	return p
}

// witness is which of turn, those asked for longest ago first, is asked for in any
// case, and twice: one that was published last of those that are listed, -1 if
// there is none. If one of several servers has stayed behind, that shows there.
func (s *schedule) witness(m subject, st *state.Status, turn []int) int {
	found, last := -1, time.Time{}
	for _, i := range turn {
		if t := s.truth(m.keys[i]); st.Health[m.keys[i]] == state.Fresh && t != nil && t.Newest() != nil && t.Newest().FirstSeen.After(last) {
			found, last = i, t.Newest().FirstSeen
		}
	}
	return found
}

// Where many repositories are out of step, the first few are asked for instead of
// all of them, until each has given marching answers in step.
const (
	vanguard = 4
	marching = 2
)

// inFront is the last repository out of step that is worth asking for.
func inFront(m subject, st *state.Status) int {
	n, unsteady := 0, false
	for i, k := range m.keys {
		if !outOfStep(k, st) {
			continue
		}
		unsteady = unsteady || st.Findings[k].Clean < marching
		if n++; n == vanguard && unsteady {
			return i
		}
	}
	return len(m.keys)
}

// waysWait is how long after the last time each way to the mirror is tried again.
func (s *schedule) waysWait(st *state.Status) time.Duration {
	wait := s.scaled(waysEvery)
	for _, n := range st.Misses {
		if n <= forgiven {
			return s.step(soon)
		}
		wait = s.step(quietest)
	}
	for _, way := range st.Schemes {
		if way.Works == state.Unreached {
			wait = s.step(quietest)
		}
	}
	return wait
}

// last is when the mirror was last visited, as far as that is known.
func (a *agenda) last(now time.Time) time.Time {
	if a.visited.IsZero() {
		return now
	}
	return a.visited
}

func (a *agenda) leftKeys() []int {
	var all []int
	for i := range a.left {
		all = append(all, i)
	}
	slices.Sort(all)
	return all
}

// fewKeys asks a mirror whether it is there: for several repositories, because a
// single one can be missing alone.
func (s *schedule) fewKeys(p *Plan, m subject, st *state.Status) {
	repos := map[string]bool{}
	for _, healthy := range []bool{true, false} {
		for i, k := range m.keys {
			h, ok := st.Health[k]
			if !ok || k.Repo == isos || repos[k.Repo] || len(p.Keys) >= wholeMirror || healthy && h == state.Absent {
				continue
			}
			repos[k.Repo] = true
			p.Keys = append(p.Keys, s.keyPlan(&agenda{}, m, i, st))
		}
	}
}

// sentinels are the repositories that show whether a mirror has synced: one of
// each publication that it lacks, the newest publications first. The others that
// are watched are the rest.
func (s *schedule) sentinels(m subject, watch []int) (first, rest []int) {
	published := func(i int) time.Time { return s.truth(m.keys[i]).Newest().FirstSeen }
	slices.SortStableFunc(watch, func(x, y int) int { return published(y).Compare(published(x)) })
	for n, i := range watch {
		if len(first) < maxSentinels && (n == 0 || !published(i).Equal(published(watch[n-1]))) {
			first = append(first, i)
		} else {
			rest = append(rest, i)
		}
	}
	return first, rest
}

// maxSentinels bounds them: an origin may publish each repository for itself.
const maxSentinels = 8

// keyPlan asks for a repository, and for its files if the answer may list it.
func (s *schedule) keyPlan(a *agenda, m subject, i int, st *state.Status) KeyPlan {
	k := m.keys[i]
	f := st.Findings[k]
	p := KeyPlan{Key: k}
	t := s.truth(k)
	if t == nil || t.Newest() == nil {
		return p
	}
	p.Newest = t.Newest().SHA256
	if st.Health[k] == state.Fresh {
		p.Files = a.left[i]
	} else if !outOfStep(k, st) || f.Clean+1 >= needs(f) {
		p.Files = s.stock.metadata(k, t.Newest().ID())
		p.OwnFiles = p.Files == nil
	}
	return p
}

// closure asks for files: those that were wrong, and now and then some others.
func (s *schedule) closure(p *Plan, a *agenda, m subject, st *state.Status, now time.Time, spare int, rnd *rand.Rand) {
	for _, k := range p.Keys {
		f := st.Findings[k.Key]
		if f == nil || f.Path == "" {
			continue
		}
		if id, ok := s.holding(k.Key, st); ok {
			if plan, _ := s.stock.file(k.Key, id, f.Path); plan != nil {
				p.Closure = append(p.Closure, *plan)
			}
		}
	}
	spare -= s.suspect(p, a, m, st, spare)
	if now.Sub(a.files) < s.scaled(closureEvery) || spare < 2 || len(m.keys) == 0 {
		return
	}
	// Of some repository, and a package of the same, or of the next of which one is
	// at hand: lists of packages are read as they are needed.
	start := rnd.IntN(len(m.keys))
	chosen := false
	for n := range m.keys {
		k := m.keys[(start+n)%len(m.keys)]
		id, ok := s.holding(k, st)
		if h := st.Health[k]; !ok || k.Repo == isos || h != state.Fresh && h != state.Lagging {
			continue
		}
		files := s.stock.metadata(k, id)
		p.sampled = p.sampled || len(files) > 0
		if !chosen && len(files) > 0 {
			p.Closure = append(p.Closure, MetadataPlan(k, &files[rnd.IntN(len(files))]))
		}
		if plan := s.stock.sample(k, id, rnd, !chosen); plan != nil {
			p.sampled = true
			p.Closure = append(p.Closure, *plan)
			return
		}
		chosen = true
	}
}

// suspect asks a mirror that has lied about one repository for the lists of packages
// of others, some at each visit: chance would take months to find what they hide.
// It returns how many it asks for.
func (s *schedule) suspect(p *Plan, a *agenda, m subject, st *state.Status, spare int) (n int) {
	lied := false
	for _, f := range st.Findings {
		lied = lied || f.Lied
	}
	if !lied {
		return 0
	}
	for range m.keys {
		if n >= min(suspectsAtOnce, spare) {
			break
		}
		k := m.keys[a.suspect%len(m.keys)]
		a.suspect++
		id, ok := s.holding(k, st)
		if h := st.Health[k]; !ok || k.Repo == isos || h != state.Fresh && h != state.Lagging {
			continue
		}
		if files := s.stock.metadata(k, id); len(files) > 0 {
			p.Closure = append(p.Closure, MetadataPlan(k, &files[0]))
			n++
		}
	}
	return n
}

// holding is the generation whose files the mirror should have.
func (s *schedule) holding(k state.Key, st *state.Status) (id state.GenerationID, ok bool) {
	if id, ok := st.Holds[k]; ok {
		return id, true
	}
	if f := st.Findings[k]; f != nil && f.Last != (state.GenerationID{}) {
		return f.Last, true
	} else if f != nil && f.Revision != "" {
		return id, false // one of which only its revision is known
	}
	if t := s.truth(k); t != nil && t.Newest() != nil {
		return t.Newest().ID(), true
	}
	return id, false
}

// gone completes an observation with the files that were wrong and that no
// generation names any more.
func (s *schedule) gone(o *Observation, st *state.Status) {
	for k := range o.Keys {
		f := st.Findings[k]
		if f == nil || f.Path == "" {
			continue
		}
		if id, ok := s.holding(k, st); ok {
			if plan, known := s.stock.file(k, id, f.Path); known && plan == nil {
				o.Files = append(o.Files, FileSeen{Key: k, Path: f.Path, Gone: true, Next: s.successor(k, id, f.Path)})
			}
		}
	}
}

// successor is the file that a generation names in the role of one that an older
// generation named: the metadata of the same kind, or some package.
func (s *schedule) successor(k state.Key, id state.GenerationID, path string) string {
	files := s.stock.metadata(k, id)
	if !strings.HasPrefix(path, "repodata/") {
		if plan := s.stock.sample(k, id, rand.New(rand.NewPCG(hashOf(path), 0)), true); plan != nil {
			return plan.Path
		}
		return ""
	}
	kind := func(path string) string { // without the hash in its name
		return path[strings.LastIndexAny(path, "-/")+1:]
	}
	for i := range files {
		if kind(files[i].Location) == kind(path) {
			return files[i].Location
		}
	}
	if len(files) > 0 {
		return files[0].Location
	}
	return ""
}

// made remembers a visit: what was asked, and what came of it.
func (s *schedule) made(a *agenda, m subject, p Plan, o *Observation, prev, next *state.Status, ended time.Time) {
	a.visited, a.hinted = ended, time.Time{}
	if len(o.Schemes) > 0 {
		a.ways = o.At
	}
	if p.sampled && len(o.Files) > 0 {
		a.files = o.At
	}
	if next.Failures > 0 {
		return
	}
	if prev != nil && prev.Failures > forgiven {
		a.back = o.At
	}
	files := make(map[state.Key][]repodata.Data, len(p.Keys))
	for _, k := range p.Keys {
		files[k.Key] = k.Files
	}
	for i, k := range m.keys {
		seen, ok := o.Keys[k]
		if !ok {
			continue
		}
		a.asked[i] = o.At.Unix()
		if k.Repo == isos {
			continue
		}
		if outOfStep(k, next) && next.Findings[k].Struck.Equal(o.At) && prev != nil && prev.Health[k] != state.Broken {
			a.doubt = time.Unix(o.At.Unix()+1, 0) // what was asked for meanwhile too
		}
		delete(a.left, i)
		t := s.truth(k)
		if t == nil || t.Newest() == nil || seen.Outcome != Served || seen.SHA256 != t.Newest().SHA256 {
			continue
		}
		if prev == nil || prev.Health[k] != state.Fresh {
			a.flip = time.Unix(o.At.Unix(), 0)
		}
		if n := seen.FilesAsked; n > 0 && n < len(files[k]) && len(seen.FilesWrong) == 0 {
			if a.left == nil {
				a.left = map[int][]repodata.Data{}
			}
			a.left[i] = files[k][n:]
		}
	}
}

// outOfStep tells whether a repository is not listed because it fell back to an
// older generation, or comes and goes as one that does.
func outOfStep(k state.Key, st *state.Status) bool {
	f := st.Findings[k]
	return f != nil && k.Repo != isos && st.Health[k] == state.Broken && hasToAgree(f)
}

// hint asks for a visit soon: not more than once a minute, and as a favour.
func (s *schedule) hint(a *agenda, now time.Time) {
	if at := a.visited.Add(s.step(soon)); at.After(now) {
		now = at
	}
	if a.hinted.IsZero() || now.Before(a.hinted) {
		a.hinted = now
	}
}
