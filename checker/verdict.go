package checker

import (
	"maps"
	"slices"
	"time"

	"meridian/checker/state"
	"meridian/schema"
)

// All policy about mirrors is in this file, and nothing in it asks a clock, a disk
// or a network: a verdict follows from what was known before, what was seen, and
// what the origin has published. The memory of a mirror is its state.Status and
// nothing else, so a checker goes on where another one has stopped.

// How much is forgiven, and how it is earned back.
const (
	// forgiven failures in a row change no verdict. A question that was not
	// answered is forgiven, and never a wrong answer: a client that gets none goes
	// on to the next mirror, and one that gets HTML for metadata may stop there.
	forgiven = 1

	// A strike fades in strikeLife. As many answers in a row have to be right as
	// there are strikes, and there are never more than maxStrikes.
	strikeLife = 6 * time.Hour
	maxStrikes = 8

	// relapseStrikes are given for an older generation after a newer one, as when
	// two servers behind one name are not in step. A client that is sent there gets
	// files of two generations and may stop, so it is sent elsewhere until they
	// agree.
	relapseStrikes = 3

	// lieAnswers have to be right in a row after a proven lie.
	lieAnswers = 5

	// goneFor is how long a repository that was there has to be missing before the
	// mirror is taken for a partial one.
	goneFor = 7 * 24 * time.Hour

	// wholeMirror is how many repositories have to be refused, and none served,
	// before the mirror itself is taken to refuse.
	wholeMirror = 3

	// clockSlack is how far a clock may be off, and TIME be in the future.
	clockSlack = 10 * time.Minute
)

// tlsWarnings are the times before the end of a certificate at which that is
// said. They count in the last quarter of its life only, or one that lives for a
// week would always be about to end.
var tlsWarnings = [...]time.Duration{21 * 24 * time.Hour, 7 * 24 * time.Hour, 24 * time.Hour}

// rules are what verdicts depend on beside what was seen.
type rules struct {
	allowedOutdate time.Duration
}

// A subject is a mirror as it is judged: what its operator promises.
type subject struct {
	*schema.Mirror
	*promises
}

// promises are the repositories and the ISO sets that a mirror should have.
// Mirrors that promise the same share one.
type promises struct {
	keys []state.Key
	has  map[state.Key]struct{}
}

func newPromises(keys []state.Key) *promises {
	p := &promises{keys: keys, has: make(map[state.Key]struct{}, len(keys))}
	for _, k := range keys {
		p.has[k] = struct{}{}
	}
	return p
}

// public tells whether the mirror is for everybody, and so in the reach of a
// checker.
func (m subject) public() bool { return !m.Private && m.CloudType == "" }

// claims tells whether the operator has written down a URL of that scheme.
func (m subject) claims(scheme string) bool {
	has := func(a schema.Address) bool {
		return scheme == "http" && a.HTTP != "" || scheme == "https" && a.HTTPS != "" || scheme == "rsync" && a.Rsync != ""
	}
	if has(m.Address) {
		return true
	}
	for _, a := range m.AddressOptional {
		if has(a) {
			return true
		}
	}
	return false
}

// truths looks up what the origin has published; nil for what it was never asked
// about.
type truths func(state.Key) *state.Truth

// judge says what is to be thought of a mirror after a visit, and which changes
// of verdict that are. prev is nil for a mirror that was never heard of. To judge
// the same visit twice changes nothing.
func judge(prev *state.Status, o *Observation, truth truths, m subject, r rules) (*state.Status, []state.Event) {
	if prev != nil && o.At.Equal(prev.Visited) {
		return prev, nil
	}
	v := newVerdict(prev, o.At, truth, m, r)
	looked := m.public() && asked(o)
	if looked && v.next.Unrouted != o.Unrouted {
		v.next.Unrouted, v.changed = o.Unrouted, true
	}
	v.age()
	if looked {
		if !o.Unrouted {
			v.visit(o)
		}
		v.next.Visited = v.at
	}
	v.summarize()
	return v.result(o.Vantage)
}

// age says what is to be thought of a mirror that was not visited: what time, the
// origin and the promises of its operator alone have changed. It returns prev
// itself if that is nothing.
func age(prev *state.Status, now time.Time, truth truths, m subject, r rules) (*state.Status, []state.Event) {
	v := newVerdict(prev, now, truth, m, r)
	v.age()
	if prev != nil && !v.changed {
		return prev, nil
	}
	v.summarize()
	return v.result("")
}

// supersede says of a mirror that the origin has published newer generations of
// keys than was has: what was Fresh is Lagging. It has to be called at each change
// of truth, before anything is judged by the new one, since Fresh does not say
// which generation it means. A publication is no event of a mirror: nothing has
// changed there. It returns prev itself if nothing was Fresh.
func supersede(prev *state.Status, keys []state.Key, was truths) *state.Status {
	v := verdict{prev: prev, next: *prev}
	for _, k := range keys {
		if t := was(k); t != nil && t.Newest() != nil && prev.Health[k] == state.Fresh {
			v.set(k, state.Lagging)
			v.hold(k, t.Newest().ID())
		}
	}
	if !v.changed {
		return prev
	}
	return &v.next
}

// asked tells whether the visit asked for anything at all.
func asked(o *Observation) bool {
	return o.Unrouted || len(o.Families)+len(o.Schemes)+len(o.Keys)+len(o.Files) > 0 || !o.Time.IsZero()
}

// A verdict is a status in the making. It shares its maps with the status before
// it until it writes to them.
type verdict struct {
	prev  *state.Status // never nil
	next  state.Status
	at    time.Time
	truth truths
	m     subject
	r     rules

	changed     bool // anything but Visited and Time
	ownHealth   bool // the map was copied
	ownHolds    bool
	ownFindings bool
	ownSchemes  bool
	ownMisses   bool
	silence     *state.Problem // of a mirror that does not answer at all
	held        bool           // a mirror that answers well, and has to do so more often
	seen        map[state.Key]KeySeen
}

var nothingKnown state.Status

func newVerdict(prev *state.Status, at time.Time, truth truths, m subject, r rules) *verdict {
	if prev == nil {
		prev = &nothingKnown
	}
	return &verdict{prev: prev, next: *prev, at: at.UTC().Round(0), truth: truth, m: m, r: r}
}

// age applies what time, the origin and the promises have changed.
func (v *verdict) age() {
	v.promise()
	for k, h := range v.next.Health {
		if h != state.Lagging || k.Repo == isos {
			continue
		}
		if t := v.truth(k); t != nil && !v.recent(v.supersededAt(k, t)) {
			v.set(k, state.Stale)
			f := v.finding(k)
			f.Since = v.at
			v.keep(k, f)
		}
	}
	for k := range v.next.Findings {
		f := v.finding(k)
		f.Strikes, f.Struck = fade(f.Strikes, f.Struck, v.at)
		v.keep(k, f)
	}
	if strikes, struck := fade(v.next.Strikes, v.next.Struck, v.at); struck != v.next.Struck {
		v.next.Strikes, v.next.Struck, v.changed = strikes, struck, true
		v.next.Successes = min(v.next.Successes, strikes)
	}
}

// promise begins with what is new among the promises and forgets what is no
// longer promised.
func (v *verdict) promise() {
	first := state.Pending
	switch {
	case !v.m.public():
		first, v.next.Unrouted = state.Unprobed, false
		// Nobody can tell from here what such a mirror is like.
		v.next.Problem, v.next.Warnings, v.next.OtherHost, v.next.ClockAhead, v.next.Apart = nil, nil, "", 0, false
		v.next.Failures, v.next.Strikes, v.next.Successes, v.next.Struck = 0, 0, 0, time.Time{}
		v.next.Findings, v.next.Holds, v.next.Schemes, v.next.Misses = nil, nil, nil, nil
		v.next.IPv4, v.next.IPv6 = state.Untested, state.Untested
	case v.next.Unrouted:
		// Nor like this one, for now. What it was caught with, it has to get rid of.
		first = state.Unprobed
		v.next.Failures, v.next.Schemes, v.next.Misses = 0, nil, nil
		v.next.IPv4, v.next.IPv6 = state.Untested, state.Untested
	}
	known := 0
	for _, k := range v.m.keys {
		h, ok := v.next.Health[k]
		if t := v.truth(k); t != nil && t.Absent {
			if ok {
				v.forget(k)
			}
			continue
		}
		known++
		if v.next.Unrouted && ok && h == state.Broken {
			continue
		}
		if !ok || (h == state.Unprobed) != (first == state.Unprobed) {
			v.set(k, first)
			if v.next.Unrouted {
				f := v.finding(k)
				v.keep(k, state.Finding{Strikes: f.Strikes, Struck: f.Struck, Clean: f.Clean, Never: f.Never})
				v.unhold(k)
			}
		}
	}
	if len(v.next.Health) > known {
		for k := range v.prev.Health {
			if _, ok := v.m.has[k]; !ok {
				v.forget(k)
			}
		}
	}
	for scheme := range v.next.Schemes {
		if !v.m.claims(scheme) {
			v.schemes()
			delete(v.next.Schemes, scheme)
			v.changed = true
		}
	}
}

// fade takes off the strikes that have faded.
func fade(strikes int, struck, now time.Time) (int, time.Time) {
	if strikes == 0 {
		return 0, time.Time{}
	}
	n := int(now.Sub(struck) / strikeLife)
	if n <= 0 {
		return strikes, struck
	}
	if n >= strikes {
		return 0, time.Time{}
	}
	return strikes - n, struck.Add(time.Duration(n) * strikeLife)
}

// visit judges what was seen.
func (v *verdict) visit(o *Observation) {
	if silent(o, len(v.m.keys)) {
		v.unreached(o)
		return
	}
	if v.next.Failures > 0 {
		v.next.Failures, v.changed = 0, true
	}
	v.ways(o)
	if !o.Time.IsZero() {
		v.next.Time = o.Time.UTC().Round(0)
	}
	v.held, v.seen = v.returning(o), o.Keys
	for i := range o.Files {
		if fs := &o.Files[i]; v.promised(fs.Key) {
			v.file(fs)
		}
	}
	for _, k := range v.m.keys {
		seen, ok := o.Keys[k]
		if !ok || !v.promised(k) {
			continue
		}
		if k.Repo == isos {
			v.images(k, &seen)
		} else {
			v.repository(k, &seen)
			if seen.Again != nil {
				v.again(k, seen.Again)
			}
		}
	}
}

// promised tells whether k is judged for this mirror.
func (v *verdict) promised(k state.Key) bool {
	_, ok := v.next.Health[k]
	return ok
}

// silent tells whether a visit reached nothing of a mirror with so many
// repositories: that is about the mirror and not about one of them.
func silent(o *Observation, promised int) bool {
	refused := 0
	for _, k := range o.Keys {
		switch k.Outcome {
		case Unreachable:
		case Refused:
			refused++
		default:
			return false
		}
	}
	for i := range o.Files {
		if o.Files[i].Outcome > Refused {
			return false
		}
	}
	if !o.Time.IsZero() || refused > 0 && refused < wholeMirror && len(o.Keys) < promised {
		return false
	}
	for _, a := range o.Schemes {
		if a.OK && refused == 0 {
			return false
		}
	}
	for _, a := range o.Families {
		if a.OK && refused == 0 {
			return false
		}
	}
	return true
}

// unreached judges a mirror that did not answer.
func (v *verdict) unreached(o *Observation) {
	v.next.Failures++
	v.changed = true
	if v.next.Successes < v.next.Strikes || v.next.Failures > forgiven {
		v.next.Successes = 0
	}
	if v.next.Failures <= forgiven {
		return
	}
	v.silence = since(v.prev.Problem, silence(o), v.at)
	relapse := false
	for _, k := range v.m.keys {
		h, ok := v.next.Health[k]
		if !ok || h == state.Absent || h == state.Down {
			continue
		}
		f := v.finding(k)
		if f.Lied {
			continue
		}
		relapse = relapse || h.Listable()
		if h == state.Pending {
			f.Never = true
		}
		v.recall(k, &f)
		f.Since, f.Path, f.Failures, f.Problem = time.Time{}, "", 0, nil
		v.keep(k, f)
		v.set(k, state.Down)
		v.unhold(k)
	}
	if relapse {
		v.next.Strikes, v.next.Struck = min(v.next.Strikes+1, maxStrikes), v.at
	}
}

// returning tells whether the mirror still has to earn its way back, and counts.
func (v *verdict) returning(o *Observation) bool {
	if v.next.Successes >= v.next.Strikes {
		return false
	}
	v.changed = true
	// A repository that is refused while others are served has a verdict of its
	// own, and keeps no others out.
	refused := 0
	for _, k := range o.Keys {
		if k.Outcome == Refused {
			refused++
		}
		if k.Outcome == Unreachable || refused == len(o.Keys) {
			v.next.Successes = 0
			return true
		}
	}
	v.next.Successes++
	return v.next.Successes < v.next.Strikes
}

// repository judges what was served as the repomd.xml of k.
func (v *verdict) repository(k state.Key, seen *KeySeen) {
	t := v.truth(k)
	h, f := v.next.Health[k], v.finding(k)
	switch seen.Outcome {
	case Served:
	case Missing:
		v.missing(k, h, f, seen.Evidence)
		return
	case Garbage:
		v.fail(k, f, state.Broken, garbage(k, seen.Evidence))
		return
	default:
		v.unanswered(k, f, refusal(k, "repomd.xml", seen.Outcome, seen.Evidence))
		return
	}

	f.Never = false
	if t == nil || t.Newest() == nil {
		if f.Lied {
			return // nobody can tell whether this is the truth
		}
		v.right(k, f, says{health: state.Unknown, earns: true})
		return
	}
	p := locate(t, seen)
	switch {
	case p.forged:
		v.lie(k, f, "", forged(k, seen))
		return
	case p.at < 0 && !p.offered && !unconfirmed(t, v.at):
		v.lie(k, f, "", unpublished(k, seen, t))
		return
	case p.at < 0 && f.Lied:
		return // nobody can tell that it is clean
	}
	fellBack := v.relapses(k, t, p, seen)
	remember(&f, t, p, seen)
	switch {
	case fellBack:
		v.relapse(k, f, seen)
	case h == state.Broken && hasToAgree(&f) && twoMinds(seen):
		// The next answer may be of either again. Where the older one comes first each
		// time, and something is published in between, it looks like getting on.
		f.Failures, f.Clean = 0, 0
		v.keep(k, f)
	case p.at < 0:
		v.right(k, f, says{health: state.Ahead, problem: ahead(k, seen, t), earns: true})
	case p.at == 0:
		v.newest(k, f, h, seen)
	default:
		a := says{health: state.Stale, earns: p.known >= 0}
		if p.known >= 0 {
			a.holds = &t.Generations[p.known]
		}
		switch between := p.known < 0 && p.at < 2*len(t.Generations)-1; {
		case between && !p.offered:
			// Two publications within a minute, or while nobody watched: one of them was
			// never seen, and what claims to be it may be anybody's.
			a.problem = unseen(k, seen)
		case v.recent(p.superseded):
			a.health = state.Lagging
		}
		v.right(k, f, a)
	}
}

// twoMinds tells whether two answers of one visit are of two generations.
func twoMinds(seen *KeySeen) bool {
	return seen.Again != nil && seen.Again.Outcome == Served && seen.Again.SHA256 != seen.SHA256
}

// again judges what the mirror answered when it was asked once more in the same
// visit. To agree is no second merit, and not to answer no fault.
func (v *verdict) again(k state.Key, seen *KeySeen) {
	t, f := v.truth(k), v.finding(k)
	switch {
	case seen.Outcome == Garbage:
		v.fail(k, f, state.Broken, garbage(k, seen.Evidence))
	case seen.Outcome != Served || t == nil || t.Newest() == nil:
	default:
		switch p := locate(t, seen); {
		case p.forged:
			v.lie(k, f, "", forged(k, seen))
		case v.relapses(k, t, p, seen):
			remember(&f, t, p, seen)
			v.relapse(k, f, seen)
		case p.at >= 0 && p.at < v.position(k, t):
			remember(&f, t, p, seen)
			v.keep(k, f)
		}
	}
}

// relapse judges an answer that is older than the one before.
func (v *verdict) relapse(k state.Key, f state.Finding, seen *KeySeen) {
	n := relapseStrikes
	if v.next.Health[k] == state.Broken && f.Strikes >= relapseStrikes {
		n = 1 // one more of what it is out of lists for
	}
	strike(&f, n, v.at)
	f.Failures, f.Clean = 0, 0
	if f.Lied {
		v.keep(k, f) // which is worse
		return
	}
	if v.next.Health[k] != state.Broken || f.Since.IsZero() {
		f.Since = v.at
	}
	f.Problem = since(f.Problem, relapsed(k, seen), v.at)
	v.keep(k, f)
	v.set(k, state.Broken)
	v.unhold(k)
}

// newest judges the files that the newest repomd.xml names.
func (v *verdict) newest(k state.Key, f state.Finding, h state.Health, seen *KeySeen) {
	for i := range seen.FilesWrong {
		fs := &seen.FilesWrong[i]
		switch {
		case fs.Content && fs.Wrong != "":
			v.lie(k, f, fs.Path, wrongFile(k, fs))
			return
		case fs.Outcome <= Refused:
			v.unanswered(k, f, refusal(k, fs.Path, fs.Outcome, fs.Evidence))
			return
		default:
			v.fail(k, f, state.Broken, wrongFile(k, fs))
			return
		}
	}
	if h == state.Fresh || seen.FilesAsked > 0 || h == state.Broken && hasToAgree(&f) && f.Clean+1 < needs(&f) {
		v.right(k, f, says{health: state.Fresh, earns: true})
		return
	}
	// It has the new repomd.xml. Whether it has what that names is asked next, and
	// where that would not list it, with a later answer.
	f.Failures = 0
	v.keep(k, f)
}

// unanswered judges a question about k that was not answered, by a mirror that
// answers others.
func (v *verdict) unanswered(k state.Key, f state.Finding, p *state.Problem) {
	if v.next.Health[k] == state.Absent {
		return
	}
	f.Failures++
	if returning(&f) {
		f.Clean = 0
	}
	if f.Failures <= forgiven || f.Lied {
		v.keep(k, f)
		return
	}
	v.drop(k, f, state.Down, p)
}

// missing judges a 404. A mirror that never had the repository is a partial one.
func (v *verdict) missing(k state.Key, h state.Health, f state.Finding, e *state.Evidence) {
	switch {
	case h == state.Absent:
	case f.Lied:
		f.Clean = 0
		v.keep(k, f)
	case h == state.Pending, f.Never, h == state.Down && !f.Since.IsZero() && v.at.Sub(f.Since) >= goneFor:
		v.set(k, state.Absent)
		v.keep(k, state.Finding{})
		v.unhold(k)
	default:
		v.unanswered(k, f, gone(k, e))
	}
}

// fail judges what a client chokes on: at once.
func (v *verdict) fail(k state.Key, f state.Finding, h state.Health, p *state.Problem) {
	if f.Lied {
		f.Clean = 0
		v.keep(k, f)
		return
	}
	v.drop(k, f, h, p)
}

// lie judges bytes that tier0 never published. What else the mirror has claimed
// that nobody knows is no measure of what it answers next.
func (v *verdict) lie(k state.Key, f state.Finding, path string, p *state.Problem) {
	f.Lied, f.Path, f.Revision = true, path, ""
	v.drop(k, f, state.Broken, p)
}

// drop takes k out of lists.
func (v *verdict) drop(k state.Key, f state.Finding, h state.Health, p *state.Problem) {
	was := v.next.Health[k]
	if was.Listable() {
		strike(&f, 1, v.at)
	}
	if was == state.Pending && h == state.Down {
		f.Never = true
	}
	if was != h || f.Since.IsZero() {
		f.Since = v.at
	}
	v.recall(k, &f)
	f.Clean = 0
	f.Problem = since(f.Problem, p, v.at)
	v.keep(k, f)
	v.set(k, h)
	v.unhold(k)
}

// says is what a valid repomd.xml says of a mirror.
type says struct {
	health  state.Health
	holds   *state.Generation // a known one that is not the newest; else nil
	problem *state.Problem    // that the mirror has though the answer is right

	// earns: tier0 may have published it. Of anything else nobody can say that it
	// is clean.
	earns bool
}

// right judges a right answer. As long as a mirror has to earn what the answer
// says, it stays what it was.
func (v *verdict) right(k state.Key, f state.Finding, a says) {
	f.Failures = 0
	if f.Path != "" && v.next.Health[k] == state.Broken && !(f.Lied && f.Clean >= needs(&f)) {
		v.keep(k, f) // a file is what has to become right
		return
	}
	if v.held && v.next.Health[k] == state.Down {
		v.keep(k, f) // well, and not often enough yet
		return
	}
	if returning(&f) {
		if f.Clean++; !a.earns && f.Lied {
			f.Clean = 0
		}
		if returning(&f) {
			v.keep(k, f)
			return
		}
	}
	if v.held && v.next.Health[k] == state.Broken {
		v.keep(k, f) // it is the mirror that has to earn more
		return
	}
	if f.Lied {
		f.Lied, f.Path = false, ""
	}
	f.Problem = since(f.Problem, a.problem, v.at)
	v.settle(k, f, a)
}

// settle makes of k what an answer says.
func (v *verdict) settle(k state.Key, f state.Finding, a says) {
	if a.health != v.next.Health[k] {
		f.Since = v.at
	}
	f.Last = state.GenerationID{} // health and what is held say the same
	v.keep(k, f)
	v.set(k, a.health)
	if a.holds != nil {
		v.hold(k, a.holds.ID())
	} else {
		v.unhold(k)
	}
}

// needs is how many right answers in a row a key needs that was struck. It has
// earned enough once Clean is as many, and keeps them when a failure is forgiven
// later.
func needs(f *state.Finding) int {
	n := min(f.Strikes, maxStrikes)
	if f.Lied {
		n = max(n, lieAnswers)
	}
	return n
}

func returning(f *state.Finding) bool { return f.Clean < needs(f) }

// hasToAgree tells whether what is right has to be so several times more, of what is
// neither a lie nor a file.
func hasToAgree(f *state.Finding) bool {
	return !f.Lied && f.Path == "" && f.Strikes >= relapseStrikes && returning(f)
}

func strike(f *state.Finding, n int, at time.Time) {
	f.Strikes, f.Struck = min(f.Strikes+n, maxStrikes), at
}

// file judges one file of the closure check.
func (v *verdict) file(fs *FileSeen) {
	f := v.finding(fs.Key)
	switch {
	case fs.Gone && f.Lied:
		// A new generation is no absolution: who forged one primary.xml forges the
		// next, and its repomd.xml was right all the time.
		if f.Path == fs.Path && fs.Next != "" {
			f.Path = fs.Next
			v.keep(fs.Key, f)
		}
	case fs.Gone || fs.Outcome == Served && fs.Wrong == "":
		if f.Path != fs.Path {
			return
		}
		if f.Lied {
			f.Clean = min(f.Clean+1, needs(&f)) // with repomd.xml it is over
		} else {
			f.Path = ""
		}
		v.keep(fs.Key, f)
	case fs.Outcome <= Refused || fs.Key.Repo == isos:
	case fs.Content && fs.Outcome == Served:
		v.lie(fs.Key, f, fs.Path, wrongFile(fs.Key, fs))
	case fs.Outcome == Missing && f.Path != fs.Path:
		// It may have been deleted between its list and itself. Who was found out
		// before is not let off for that.
		if f.Path == "" {
			f.Path = fs.Path
			v.keep(fs.Key, f)
		}
	default:
		if !f.Lied {
			f.Path = fs.Path
		}
		v.fail(fs.Key, f, state.Broken, wrongFile(fs.Key, fs))
	}
}

// images judges an ISO set. What is incomplete is not listed, and is no fault.
func (v *verdict) images(k state.Key, seen *KeySeen) {
	f := v.finding(k)
	lacks := func(p *state.Problem) {
		f.Failures, f.Never = 0, false
		f.Problem = since(f.Problem, p, v.at)
		v.keep(k, f)
		v.set(k, state.Absent)
	}
	switch seen.Outcome {
	case Unreachable, Refused:
		v.unanswered(k, f, refusal(k, "the images", seen.Outcome, seen.Evidence))
		return
	case Missing:
		lacks(nil)
		return
	case Garbage:
		v.fail(k, f, state.Broken, garbage(k, seen.Evidence))
		return
	}
	for i := range seen.FilesWrong {
		switch fs := &seen.FilesWrong[i]; {
		case fs.Outcome <= Refused:
			v.unanswered(k, f, refusal(k, fs.Path, fs.Outcome, fs.Evidence))
			return
		case fs.Outcome == Missing:
			lacks(wrongFile(k, fs))
			return
		default:
			v.fail(k, f, state.Broken, wrongFile(k, fs))
			return
		}
	}
	if seen.FilesAsked > 0 {
		f.Never = false
		v.right(k, f, says{health: state.Fresh, earns: true})
	}
}

// ways judges the schemes and families that were tried.
func (v *verdict) ways(o *Observation) {
	for _, name := range slices.Sorted(maps.Keys(o.Schemes)) {
		a := o.Schemes[name]
		if !v.m.claims(name) {
			continue
		}
		old := v.next.Schemes[name]
		if old == nil {
			old = &state.Scheme{}
		}
		s := *old
		switch {
		case a.Untested:
			s.Works = state.Untested
		case a.OK:
			s = state.Scheme{Works: state.Reached, TLSExpires: a.TLSExpires.UTC().Round(0), TLSBegins: a.TLSBegins.UTC().Round(0)}
			v.miss(name, 0)
		case !a.Insecure && v.miss(name, v.next.Misses[name]+1) <= forgiven:
			continue
		default:
			s.Works, s.Problem = state.Unreached, since(old.Problem, brokenScheme(name, a), v.at)
		}
		if s != *old || v.next.Schemes[name] == nil {
			v.schemes()
			v.next.Schemes[name] = &s
			v.changed = true
		}
	}
	if len(o.Families) > 0 {
		v.next.IPv4 = v.family(IPv4, v.next.IPv4, o)
		v.next.IPv6 = v.family(IPv6, v.next.IPv6, o)
	}
	if host, ok := otherHost(o); ok && host != v.next.OtherHost {
		v.next.OtherHost, v.changed = host, true
	}
	ahead := o.Clock.Truncate(time.Minute)
	if ahead.Abs() <= clockSlack {
		ahead = 0
	}
	if ahead != v.next.ClockAhead {
		v.next.ClockAhead, v.changed = ahead, true
	}
	if apart, ok := apart(o); ok && apart != v.next.Apart {
		v.next.Apart, v.changed = apart, true
	}
}

func (v *verdict) family(name Family, was state.Reach, o *Observation) state.Reach {
	reach := was
	switch a, ok := o.Families[name]; {
	case !ok || a.Untested:
		v.miss(string(name), 0)
		reach = state.Untested
	case a.OK:
		v.miss(string(name), 0)
		reach = state.Reached
	case v.miss(string(name), v.next.Misses[string(name)]+1) > forgiven:
		reach = state.Unreached
	}
	v.changed = v.changed || reach != was
	return reach
}

// miss remembers how often in a row a way has failed.
func (v *verdict) miss(name string, n int) int {
	n = min(n, forgiven+1)
	if n != v.next.Misses[name] {
		if !v.ownMisses {
			v.next.Misses, v.ownMisses = cloned(v.next.Misses), true
		}
		if v.next.Misses[name] = n; n == 0 {
			delete(v.next.Misses, name)
		}
		v.changed = true
	}
	return n
}

// apart tells whether two ways led to different files; ok, whether two were tried.
func apart(o *Observation) (differ, ok bool) {
	var first state.Hash256
	look := func(a Answer) {
		switch {
		case !a.OK || a.SHA256 == (state.Hash256{}):
		case first == (state.Hash256{}):
			first = a.SHA256
		default:
			ok, differ = true, differ || a.SHA256 != first
		}
	}
	for _, a := range o.Schemes {
		look(a)
	}
	for _, a := range o.Families {
		look(a)
	}
	return differ, ok
}

// otherHost returns the host that answered instead of the mirror's, "" if none
// did; ok tells whether anything answered.
func otherHost(o *Observation) (host string, ok bool) {
	for _, k := range o.Keys {
		if k.Outcome >= Missing {
			host, ok = max(host, k.OtherHost), true
		}
	}
	for _, a := range o.Schemes {
		if a.OK {
			host, ok = max(host, a.OtherHost), true
		}
	}
	return host, ok
}

// unconfirmed tells whether the origin may have published something newer that
// the checker has not been able to read: it, or one of several, could not be
// asked since, what it serves was not believed, or several mirrors have the same.
func unconfirmed(t *state.Truth, since time.Time) bool {
	return t.Confirmed.Before(since) || t.Problem != nil || t.Partial || !t.Disputed.IsZero()
}

// summarize puts together what the operator is told about the whole mirror.
func (v *verdict) summarize() {
	if w := v.warnings(); !slices.Equal(w, v.prev.Warnings) {
		v.next.Warnings, v.changed = w, true
	}
	if !v.changed {
		return
	}
	worst := v.worst()
	if worst != nil {
		worst = since(v.prev.Problem, worst, v.at)
	}
	v.next.Problem = worst
}

// warnings are what does not keep the mirror out of lists.
func (v *verdict) warnings() (all []string) {
	if s := v.next.Schemes["https"]; s != nil && s.Works == state.Reached && tlsWarning(s, v.at) > 0 {
		all = append(all, endingCertificate(s))
	}
	if v.next.OtherHost != "" {
		all = append(all, redirected(v.next.OtherHost))
	}
	if v.next.IPv6 == state.Unreached {
		all = append(all, deafFamily(IPv6))
	}
	if v.next.IPv4 == state.Unreached {
		all = append(all, deafFamily(IPv4))
	}
	if !v.next.Visited.IsZero() && v.next.Time.Sub(v.next.Visited) > clockSlack {
		all = append(all, futureTime(v.next.Time))
	}
	if v.next.ClockAhead != 0 {
		all = append(all, wrongClock)
	}
	if v.next.Apart {
		all = append(all, waysApart)
	}
	return all
}

// tlsWarning is how many of tlsWarnings the end of the certificate has passed.
func tlsWarning(s *state.Scheme, now time.Time) (n int) {
	if s.TLSExpires.IsZero() {
		return 0
	}
	left := s.TLSExpires.Sub(now)
	for _, d := range tlsWarnings {
		if !s.TLSBegins.IsZero() {
			d = min(d, s.TLSExpires.Sub(s.TLSBegins)/4)
		}
		if left <= d {
			n++
		}
	}
	return n
}

// worst is the worst that is wrong now, or nil. What is said of one repository
// stands for others with the same trouble.
func (v *verdict) worst() *state.Problem {
	var lied, broken, down, stale, odd troubles
	for _, k := range v.m.keys {
		h := v.next.Health[k]
		f := v.next.Findings[k]
		if f == nil || f.Problem == nil {
			if h == state.Stale {
				stale.add(outdated(k, v.r.allowedOutdate, v.seen[k].Evidence))
			}
			continue
		}
		switch {
		case h == state.Stale:
			stale.add(f.Problem)
		case f.Lied:
			lied.add(f.Problem)
		case h == state.Broken:
			broken.add(f.Problem)
		case h == state.Down:
			down.add(f.Problem)
		case h == state.Lagging || h == state.Ahead:
			odd.add(f.Problem)
		}
	}
	switch {
	case lied.n > 0:
		return lied.problem()
	case v.next.Unrouted:
		return &outOfReach
	case v.silence != nil:
		return v.silence
	case v.next.Failures > forgiven:
		return v.prev.Problem
	case v.next.Successes < v.next.Strikes:
		return flapping(v.next.Strikes - v.next.Successes)
	}
	for _, t := range []troubles{broken, down, stale, odd} {
		if t.n > 0 {
			return t.problem()
		}
	}
	for _, name := range []string{"https", "http", "rsync"} {
		if s := v.next.Schemes[name]; s != nil && s.Works == state.Unreached {
			return s.Problem
		}
	}
	return nil
}

// troubles are repositories with the same kind of trouble.
type troubles struct {
	n     int
	first *state.Problem
}

func (t *troubles) add(p *state.Problem) {
	if t.n++; t.first == nil {
		t.first = p
	}
}

func (t *troubles) problem() *state.Problem {
	p := *t.first
	if t.n > 1 {
		p.Reason += " (and " + count(t.n-1, "more repository", "more repositories") + ")"
	}
	return &p
}
