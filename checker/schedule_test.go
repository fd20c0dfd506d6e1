package checker

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"meridian/builder/repodata"
	"meridian/checker/state"
	"meridian/schema"
)

// A fleet is an origin and mirrors that the schedule asks, without a network: a
// visit is carried out at once, by the rules of the Prober.
type fleet struct {
	t     *testing.T
	now   time.Time
	start time.Time
	sched *schedule
	keys  []state.Key
	truth map[state.Key]*state.Truth
	all   []*fakeMirror
	hosts map[string]*fakeHost
}

type fakeHost struct {
	*bucket
	asked []time.Time // each request
}

type fakeMirror struct {
	subject
	*agenda
	host   *fakeHost
	status *state.Status
	holds  map[state.Key]int // which generation, counted from the first
	syncs  func(now time.Time) bool
	down   func(now time.Time) bool
	apart  bool                        // there is no way to it
	late   map[state.Key]time.Duration // how much later than the others a key is synced
	other  func() bool                 // whether a server answers that is a generation behind
	synced time.Time
	due    time.Time // zero: to be asked of the schedule

	visits  []time.Time
	plans   []Plan
	seen    map[state.Key][]time.Time
	flipped map[state.Key]time.Time // when it had the newest
	listed  map[state.Key]time.Time // when that was known
}

func newFleet(t *testing.T, repos int) *fleet {
	w := &fleet{t: t, now: time.Unix(1_800_000_000, 0).UTC(), truth: map[state.Key]*state.Truth{}, hosts: map[string]*fakeHost{}}
	w.start = w.now
	w.sched = &schedule{interval: quietest, truth: func(k state.Key) *state.Truth { return w.truth[k] }, stock: w}
	for i := range repos {
		k := state.Key{Version: "9.8", Repo: fmt.Sprintf("r%03d", i/4), Arch: schema.Arch([]string{"x86_64", "aarch64", "ppc64le", "s390x"}[i%4])}
		w.keys = append(w.keys, k)
	}
	w.publish(w.keys)
	return w
}

func (w *fleet) publish(keys []state.Key) {
	for _, k := range keys {
		t := w.truth[k]
		if t == nil {
			t = &state.Truth{}
		}
		n := len(t.Generations)
		g := state.Generation{
			Revision: strconv.FormatInt(w.now.Unix(), 10), Timestamp: w.now.Unix(), FirstSeen: w.now,
			SHA256: sha256.Sum256([]byte(k.String() + strconv.Itoa(n))),
		}
		w.truth[k] = &state.Truth{Generations: append([]state.Generation{g}, t.Generations...), Confirmed: w.now}
		for _, m := range w.all {
			m.status = supersede(m.status, []state.Key{k}, func(state.Key) *state.Truth { return t })
			delete(m.flipped, k)
			delete(m.listed, k)
		}
	}
}

func (w *fleet) add(name, host string, frequency time.Duration) *fakeMirror {
	h := w.hosts[host]
	if h == nil {
		h = &fakeHost{bucket: newBucket(w.now, 1)}
		w.hosts[host] = h
	}
	m := &fakeMirror{
		subject: subject{&schema.Mirror{Name: name, UpdateFrequency: frequency, Address: schema.Address{HTTP: "http://" + host + "/"}},
			newPromises(append(slices.Clone(w.keys), state.Key{Version: "9.8", Repo: isos, Arch: "x86_64"}))},
		host: h, holds: map[state.Key]int{}, seen: map[state.Key][]time.Time{},
		flipped: map[state.Key]time.Time{}, listed: map[state.Key]time.Time{},
		syncs: func(time.Time) bool { return true }, down: func(time.Time) bool { return false },
		other: func() bool { return false },
	}
	m.status, _ = age(nil, w.now, w.sched.truth, m.subject, ofTwelve)
	m.agenda = w.sched.enroll(m.subject, nil, w.now)
	w.all = append(w.all, m)
	return m
}

var sixFiles = func() (all []repodata.Data) {
	for _, name := range []string{"primary", "filelists", "other", "updateinfo", "group", "modules"} {
		all = append(all, repodata.Data{Type: name, Location: "repodata/" + name + ".xml.gz", Size: 100})
	}
	return all
}()

func (w *fleet) metadata(state.Key, state.GenerationID) []repodata.Data { return sixFiles }
func (w *fleet) images(state.Key) (state.Hash256, []repodata.Data, bool) {
	return state.Hash256{1}, sixFiles[:3], true
}
func (w *fleet) sample(k state.Key, _ state.GenerationID, _ *rand.Rand, _ bool) *FilePlan {
	return &FilePlan{Key: k, Path: "Packages/a.rpm", Size: 100}
}
func (w *fleet) file(k state.Key, _ state.GenerationID, path string) (*FilePlan, bool) {
	return &FilePlan{Key: k, Path: path}, true
}

// sync brings a mirror what the origin has, if it is time for that.
func (w *fleet) sync(m *fakeMirror) {
	if !m.syncs(w.now) {
		return
	}
	for _, k := range w.keys {
		n := len(w.truth[k].Generations)
		published := w.truth[k].Newest().FirstSeen
		if m.holds[k] < n && w.now.Sub(published) >= m.late[k] {
			m.holds[k] = n
			if _, ok := m.flipped[k]; !ok {
				m.flipped[k] = w.now
			}
		}
	}
}

// visit carries out a plan as a Prober does, and books what it costs.
func (w *fleet) visit(m *fakeMirror, p Plan) *Observation {
	o := &Observation{Mirror: m.Name, At: w.now, Keys: map[state.Key]KeySeen{}}
	ask := func() bool {
		if o.Requests >= p.Budget {
			return false
		}
		o.Requests++
		m.host.asked = append(m.host.asked, w.now)
		return true
	}
	if m.apart && ask() {
		o.Unrouted = true
		return o
	}
	down := m.down(w.now)
	if p.Schemes && ask() {
		o.Schemes = map[string]Answer{"http": {OK: !down}}
	}
	for _, k := range p.Keys {
		if !ask() {
			return o
		}
		if down {
			o.Keys[k.Key] = KeySeen{Outcome: Unreachable}
			return o
		}
		seen := w.answer(m, k.Key)
		if k.Confirm && ask() {
			again := w.answer(m, k.Key)
			seen.Again = &again
		}
		o.Keys[k.Key] = seen
		m.seen[k.Key] = append(m.seen[k.Key], w.now)
	}
	for rank := range sixFiles {
		for _, k := range p.Keys {
			if seen := o.Keys[k.Key]; rank < len(k.Files) && seen.SHA256 == k.Newest && ask() {
				seen.FilesAsked++
				o.Keys[k.Key] = seen
			}
		}
	}
	for _, k := range p.ISOs {
		if ask() {
			m.seen[k.Key] = append(m.seen[k.Key], w.now)
			o.Keys[k.Key] = KeySeen{Outcome: Served, FilesAsked: len(k.Files)}
			for range k.Files {
				ask()
			}
		}
	}
	for _, f := range p.Closure {
		if ask() {
			o.Files = append(o.Files, FileSeen{Key: f.Key, Path: f.Path, Outcome: Served})
		}
	}
	return o
}

func (w *fleet) answer(m *fakeMirror, k state.Key) KeySeen {
	gens := w.truth[k].Generations
	i := len(gens) - m.holds[k]
	if m.other() {
		i = min(i+1, len(gens)-1)
	}
	g := gens[i]
	return KeySeen{Outcome: Served, SHA256: g.SHA256, Revision: g.Revision, Timestamp: g.Timestamp}
}

// run lets time pass until the end, from one visit to the next, and calls each
// before each visit.
func (w *fleet) run(d time.Duration, events ...event) {
	w.t.Helper()
	for _, m := range w.all {
		m.due = time.Time{}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	end := w.now.Add(d)
	slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.after, b.after) })
	begin := w.now
	for {
		var next *fakeMirror
		at := end
		for _, m := range w.all {
			if m.due.IsZero() {
				m.due = w.sched.due(m.agenda, m.subject, m.status)
			}
			if m.due.IsZero() {
				continue
			}
			due := m.due.Add(max(0, w.now.Sub(m.due)))
			if ready := m.host.ready(w.now); ready.After(due) {
				due = ready
			}
			if due.Before(at) {
				next, at = m, due
			}
		}
		if len(events) > 0 && !begin.Add(events[0].after).After(at) {
			w.now = begin.Add(events[0].after)
			events[0].do()
			events = events[1:]
			for _, m := range w.all {
				m.due = time.Time{}
			}
			continue
		}
		w.now = at
		if next == nil {
			return
		}
		next.due = time.Time{}
		w.sync(next)
		budget := next.host.take(w.now)
		p := w.sched.plan(next.agenda, next.subject, next.status, w.now, budget, rnd)
		o := w.visit(next, p)
		next.host.back(budget-o.Requests, w.now)
		next.visits, next.plans = append(next.visits, w.now), append(next.plans, p)
		prev := next.status
		next.status, _ = judge(prev, o, w.sched.truth, next.subject, ofTwelve)
		w.sched.made(next.agenda, next.subject, p, o, prev, next.status, w.now)
		for _, k := range w.keys {
			if _, ok := next.listed[k]; !ok && next.status.Health[k] == state.Fresh {
				next.listed[k] = w.now
			}
		}
		if len(next.visits) > 1_000_000 {
			w.t.Fatal("the schedule does not let time pass")
		}
	}
}

// An event happens so long after the beginning of a run.
type event struct {
	after time.Duration
	do    func()
}

// every returns the same event again and again.
func every(d, until time.Duration, do func()) (all []event) {
	for at := d; at < until; at += d {
		all = append(all, event{at, do})
	}
	return all
}

// checkBudgets replays what each host was asked against the budget.
func (w *fleet) checkBudgets() {
	w.t.Helper()
	for name, h := range w.hosts {
		tokens, at := float64(hostBurst), w.start
		for _, when := range h.asked {
			tokens = min(tokens+when.Sub(at).Seconds()*hostRate, hostBurst) - 1
			if at = when; tokens < 0 {
				w.t.Fatalf("%s is asked too much: the bucket is empty at %s", name, when.Sub(w.start))
			}
		}
	}
}

// A week with a publication each few hours, hosts that are shared, mirrors that
// sync at their own times, fail, and come back.
func TestScheduleOfAWeek(t *testing.T) {
	const week = 7 * 24 * time.Hour
	w := newFleet(t, 100)
	for i, frequency := range []time.Duration{10 * time.Minute, time.Hour, 3 * time.Hour, 24 * time.Hour} {
		m := w.add(fmt.Sprintf("m%d.example.org", i), fmt.Sprintf("m%d.example.org", i), frequency)
		m.syncs = func(now time.Time) bool {
			if now.Sub(m.synced) < frequency {
				return false
			}
			m.synced = now
			return true
		}
	}
	// Two files of one host.
	w.add("shared-a.example.org", "shared.example.org", time.Hour)
	w.add("shared-b.example.org", "shared.example.org", time.Hour)
	flaky := w.add("flaky.example.org", "flaky.example.org", time.Hour)
	flaky.down = func(now time.Time) bool { return now.Sub(w.start)/(37*time.Minute)%5 == 4 }
	dead := w.add("dead.example.org", "dead.example.org", time.Hour)
	dead.down = func(time.Time) bool { return true }

	n := 0
	w.run(week, every(3*time.Hour+17*time.Minute, week, func() {
		n++
		switch n % 3 {
		case 0:
			w.publish(w.keys)
		case 1:
			w.publish(w.keys[:12])
		case 2:
			w.publish(w.keys[n%len(w.keys) : n%len(w.keys)+1])
		}
	})...)
	w.checkBudgets()

	for _, m := range w.all {
		if m == dead || m == flaky {
			continue
		}
		for _, k := range m.keys {
			longest, before := time.Duration(0), w.start
			for _, at := range append(m.seen[k], w.now) {
				longest, before = max(longest, at.Sub(before)), at
			}
			most := 6 * time.Hour
			if k.Repo == isos {
				most = 24*time.Hour + quietest
			}
			if longest > most {
				t.Errorf("%s: %s is not asked for during %s", m.Name, k, longest)
			}
		}
	}
	perDay := len(dead.visits) / 7
	t.Logf("a dead mirror is visited %d times a day; the others: %d requests in a week", perDay, len(w.hosts["m2.example.org"].asked))
	if most := int(24 * time.Hour / (quietest * 3 / 4)); perDay > most {
		t.Errorf("a dead mirror is visited %d times a day, want at most %d", perDay, most)
	}
	for _, h := range flaky.status.Health {
		if h == state.Pending {
			t.Error("a mirror that comes and goes is never probed as a whole")
		}
	}
}

// After a publication a mirror that has not got it is asked each two minutes for
// half an hour, at moments of its own, and then as seldom as before.
func TestMirrorsAreWatchedAfterAPublication(t *testing.T) {
	w := newFleet(t, 140)
	for i := range 40 {
		m := w.add(fmt.Sprintf("m%d.example.org", i), fmt.Sprintf("m%d.example.org", i), 3*time.Hour)
		w.sync(m)
		m.syncs = func(time.Time) bool { return false }
	}
	w.run(2 * time.Hour)
	published := w.now
	w.publish(w.keys)
	w.run(time.Hour)
	first := map[time.Duration]int{}
	for _, m := range w.all {
		before := published
		for i, at := range m.visits {
			if !at.After(published) {
				continue
			}
			since := at.Sub(published)
			if before == published {
				first[since.Truncate(10*time.Second)]++
			}
			if gap := at.Sub(before); since < watchFor && gap > watchEvery || gap > quietest {
				t.Errorf("%s is left alone for %s, %s after the publication", m.Name, gap, since)
			}
			if n := len(m.plans[i].Keys); since < watchFor && n > 4 {
				t.Errorf("%s is asked for %d repositories, %s after the publication: one is enough", m.Name, n, since)
			}
			before = at
		}
		if n := len(m.visits); n > 40 {
			t.Errorf("%s is visited %d times in three hours", m.Name, n)
		}
	}
	if len(first) < 6 {
		t.Errorf("40 mirrors are first asked at %v: they should be spread over %s", first, watchEvery)
	}
	w.checkBudgets()
}

// Whenever a mirror syncs: what it got is listed within the interval of its
// watch, all of it within a minute of the first, and its host is not asked too
// much for that.
func TestAFlipIsListedInTime(t *testing.T) {
	for _, repos := range []int{1, 12, 140} {
		t.Run(fmt.Sprintf("%d repositories", repos), func(t *testing.T) {
			w := newFleet(t, 140)
			for i := range 40 {
				m := w.add(fmt.Sprintf("m%d.example.org", i), fmt.Sprintf("m%d.example.org", i), 3*time.Hour)
				w.sync(m)
			}
			w.run(2 * time.Hour)
			published := w.now
			for i, m := range w.all {
				flips := published.Add(time.Duration(i) * 40 * time.Second)
				m.syncs = func(now time.Time) bool { return !now.Before(flips) }
				m.synced = flips
			}
			w.publish(w.keys[:repos])
			w.run(time.Hour)
			worst, spread := time.Duration(0), time.Duration(0)
			for _, m := range w.all {
				first := w.now
				for _, k := range w.keys[:repos] {
					at, ok := m.listed[k]
					if !ok {
						t.Fatalf("%s: %s is not listed an hour later", m.Name, k)
					}
					if at.Before(first) {
						first = at
					}
					worst = max(worst, at.Sub(m.synced))
				}
				for _, k := range w.keys[:repos] {
					spread = max(spread, m.listed[k].Sub(first))
				}
				if len(m.left) > 0 {
					t.Errorf("%s: files of %d repositories were not asked for within an hour", m.Name, len(m.left))
				}
			}
			t.Logf("listed after %s at most, the last repository %s after the first", worst, spread)
			if worst > watchEvery+soon || spread > soon {
				t.Errorf("listed after %s, the last repository %s after the first", worst, spread)
			}
			w.checkBudgets()
		})
	}
}

// A mirror that gets one repository after the other is followed.
func TestAMirrorThatSyncsPieceByPiece(t *testing.T) {
	w := newFleet(t, 20)
	m := w.add("slow.example.org", "slow.example.org", 3*time.Hour)
	w.run(time.Hour)
	m.late = map[state.Key]time.Duration{}
	for i, k := range w.keys {
		m.late[k] = 5*time.Minute + time.Duration(i)*time.Minute
	}
	w.publish(w.keys)
	w.run(time.Hour)
	for _, k := range w.keys {
		if late := m.listed[k].Sub(m.flipped[k]); late > watchEvery || m.listed[k].IsZero() {
			t.Errorf("%s is listed %s after it was there", k, late)
		}
	}
	w.checkBudgets()
}

func TestScheduleOfFailures(t *testing.T) {
	w := newFleet(t, 40)
	m := w.add("m.example.org", "m.example.org", 3*time.Hour)
	w.run(time.Hour)
	from := w.now
	m.down = func(now time.Time) bool { return now.Before(from.Add(2 * time.Hour)) }
	w.run(4 * time.Hour)
	var gaps []time.Duration
	var before time.Time
	back := 0
	for i, at := range m.visits {
		if !at.After(from) {
			continue
		}
		if !before.IsZero() && at.Before(from.Add(2*time.Hour)) {
			gaps = append(gaps, at.Sub(before))
		}
		if before = at; at.After(from.Add(2*time.Hour)) && back == 0 {
			back = i
		}
	}
	want := []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 15 * time.Minute, 15 * time.Minute}
	for i := range want {
		if gaps[i] > want[i] || gaps[i] < want[i]*4/5 {
			t.Errorf("failure %d is followed by a visit after %s, want about %s", i+1, gaps[i], want[i])
		}
	}
	// The first visit that is answered, and one right after it for the rest.
	if n := len(m.plans[back].Keys); n > wholeMirror {
		t.Errorf("a mirror that is down is asked for %d repositories, want a few", n)
	}
	if n, after := len(m.plans[back+1].Keys), m.visits[back+1].Sub(m.visits[back]); n < 30 || after > 10*time.Second {
		t.Errorf("when it is back, %d repositories are asked for after %s, want all the others at once", n, after)
	}
	for k, h := range m.status.Health {
		if h != state.Fresh {
			t.Errorf("%s is %s in the end", k, h)
		}
	}
}

// A repository that has fallen back is asked for every minute, and listed when it
// was in step three times. It is hardly alone, so that the others are asked for at
// once.
func TestWhoFallsBackIsAskedSoon(t *testing.T) {
	w := newFleet(t, 40)
	m := w.add("m.example.org", "m.example.org", 3*time.Hour)
	w.run(time.Hour)
	w.now = w.now.Add(time.Minute)
	w.publish(w.keys)
	w.run(time.Hour)

	k := w.keys[7]
	before := len(m.seen[k])
	m.syncs = func(time.Time) bool { return false }
	m.holds[k]--
	for m.status.Health[k] == state.Fresh {
		w.run(time.Minute)
	}
	asked := m.seen[k][before:]
	fell := asked[0]
	w.run(6 * time.Minute)
	asked = m.seen[k][before:]
	if len(asked) != 4 || m.status.Health[k] != state.Lagging {
		t.Fatalf("it fell back at %s, was asked for at %v, and is %s; want three more times, and lagging", fell, asked, m.status.Health[k])
	}
	for i := range 3 {
		if gap := asked[i+1].Sub(asked[i]); gap > time.Minute || gap < 45*time.Second {
			t.Errorf("question %d comes %s after the one before, want about a minute", i+1, gap)
		}
	}
	for _, other := range w.keys {
		if i := slices.IndexFunc(m.seen[other], func(at time.Time) bool { return at.After(fell) }); i < 0 || m.seen[other][i].Sub(fell) > time.Minute {
			t.Errorf("%s is not asked for when %s falls back", other, k)
		}
	}
	w.checkBudgets()
}

// Of two servers behind one name, of which any answers, one stays a generation
// behind for hours. What differs between them is soon out of lists and stays there
// but for luck, the mirror is asked little, and when its servers are in step again
// all of it is fresh within the hour.
func TestServersOutOfStep(t *testing.T) {
	const hours = 6
	for _, tt := range []struct {
		name    string
		changed int // repositories
		found   int // minutes until all of them are out of lists
	}{
		{"a publication of one repository", 1, 15},
		{"a publication of ten repositories", 10, 15},
		// Then the budget is what it takes: to have so much that is new costs a host a
		// quarter of an hour of questions in any case.
		{"a publication of everything", 140, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newFleet(t, 140)
			rnd := rand.New(rand.NewPCG(3, 4))
			for i := range 8 {
				name := fmt.Sprintf("m%d.example.org", i)
				w.add(name, name, 3*time.Hour)
			}
			w.run(time.Hour)
			w.now = w.now.Add(time.Minute)
			changed := w.keys[:tt.changed]
			w.publish(changed)
			flips := true
			for _, m := range w.all {
				m.other = func() bool { return flips && rnd.IntN(2) == 0 }
			}
			requests := func() (n int) {
				for _, h := range w.hosts {
					n += len(h.asked)
				}
				return n
			}
			// share is how many of what has changed have a verdict that is good.
			share := func(keys []state.Key, good func(state.Health) bool) float64 {
				n := 0
				for _, m := range w.all {
					for _, k := range keys {
						if good(m.status.Health[k]) {
							n++
						}
					}
				}
				return float64(n) / float64(len(keys)*len(w.all))
			}
			before, listed := 0, 0.0
			var course []string
			for n := range hours * 60 {
				w.run(time.Minute)
				now := share(changed, state.Health.Listable)
				if n < tt.found {
					course = append(course, fmt.Sprintf("%.2f", now))
					before = requests()
				} else {
					listed += now / float64(hours*60-tt.found)
				}
			}
			perHour := float64(requests()-before) / float64(len(w.all)) * 60 / float64(hours*60-tt.found)
			t.Logf("listed minute by minute: %s; then %.4f on average, by %.0f requests an hour", strings.Join(course, " "), listed, perHour)
			if listed > 0.05 {
				t.Errorf("on average %.3f of what is out of step is listed, want hardly any", listed)
			}
			if perHour > 400 {
				t.Errorf("%.0f requests an hour for a mirror out of step, want few", perHour)
			}
			flips = false
			fresh := func(h state.Health) bool { return h == state.Fresh }
			mended := 0
			for ; mended < 60 && share(w.keys, fresh) < 1; mended++ {
				w.run(time.Minute)
			}
			t.Logf("all fresh %d minutes after all are in step", mended)
			if mended == 60 {
				t.Errorf("an hour after all are in step %.2f of all repositories are fresh", share(w.keys, fresh))
			}
			w.checkBudgets()
		})
	}
}

func TestFirstVisits(t *testing.T) {
	w := newFleet(t, 12)
	for i := range 200 {
		w.add(fmt.Sprintf("m%d.example.org", i), fmt.Sprintf("m%d.example.org", i), 3*time.Hour)
	}
	count := func(from time.Time, d time.Duration) (visits, most int) {
		perSecond := map[int64]int{}
		for _, m := range w.all {
			for _, at := range m.visits {
				if !at.Before(from) && at.Before(from.Add(d)) {
					visits++
					perSecond[at.Unix()]++
					most = max(most, perSecond[at.Unix()])
				}
			}
		}
		return visits, most
	}
	w.run(soon)
	if visits, most := count(w.start, soon); visits != 200 || most > 20 {
		t.Errorf("%d of 200 new mirrors are visited within a minute, at most %d in a second", visits, most)
	}
	w.run(time.Hour)

	// A restart: the same mirrors, in an order of their own, over the interval.
	from := w.now
	for _, m := range w.all {
		m.agenda = w.sched.enroll(m.subject, m.status, w.now)
		m.visits = nil
	}
	w.run(quietest)
	early, _ := count(from, time.Minute)
	if early > 40 || early < 3 {
		t.Errorf("%d of 200 known mirrors are visited in the first minute after a restart, want about 13", early)
	}
	for _, m := range w.all {
		if len(m.visits) == 0 {
			t.Errorf("%s is not visited within %s of a restart", m.Name, quietest)
		}
	}
}

func TestHints(t *testing.T) {
	w := newFleet(t, 12)
	m := w.add("m.example.org", "m.example.org", 24*time.Hour)
	w.run(time.Hour)
	visits := len(m.visits)
	w.run(10*time.Minute, every(time.Second, 10*time.Minute, func() { w.sched.hint(m.agenda, w.now) })...)
	if n := len(m.visits) - visits; n < 9 || n > 11 {
		t.Errorf("a hint each second leads to %d visits in ten minutes, want one a minute", n)
	}
}

// What is private is never asked, whatever is known of it.
func TestPrivateMirrorsAreNotVisited(t *testing.T) {
	w := newFleet(t, 4)
	m := w.add("m.example.org", "m.example.org", time.Hour)
	m.Private = true
	m.status, _ = age(nil, w.now, w.sched.truth, m.subject, ofTwelve)
	w.sched.hint(m.agenda, w.now)
	w.run(24 * time.Hour)
	if len(m.visits) > 0 {
		t.Errorf("a private mirror is visited %d times a day", len(m.visits))
	}
}

// Nothing hastens to a mirror that there is no way to.
func TestMirrorsOutOfReachAreTriedNowAndThen(t *testing.T) {
	w := newFleet(t, 40)
	m := w.add("m.example.org", "m.example.org", 24*time.Hour)
	m.apart = true
	w.run(2 * time.Hour)
	if n := len(m.visits); n < 8 || n > 10 {
		t.Errorf("it is tried %d times in two hours, want once in %v", n, quietest)
	}
	if n := len(m.plans[len(m.plans)-1].Keys); n > wholeMirror {
		t.Errorf("it is asked for %d repositories, want a few", n)
	}
	m.apart = false
	w.run(quietest + 2*soon)
	for k, h := range m.status.Health {
		if h != state.Fresh {
			t.Errorf("when there is a way, %s is %s", k, h)
		}
	}
}

// A short interval, as of test networks, makes everything faster.
func TestShortInterval(t *testing.T) {
	w := newFleet(t, 12)
	w.sched.interval = 2 * time.Second
	m := w.add("m.example.org", "m.example.org", 3*time.Hour)
	m.host.bucket = newBucket(w.now, 100)
	w.run(30 * time.Second)
	w.publish(w.keys[:3])
	flipped := w.now
	w.run(10 * time.Second)
	for _, k := range w.keys[:3] {
		if after := m.listed[k].Sub(flipped); m.listed[k].IsZero() || after > 4*time.Second {
			t.Errorf("%s is listed after %s", k, after)
		}
	}
	if n := len(m.visits); n < 15 || n > 40 {
		t.Errorf("%d visits in 40 seconds", n)
	}
}

// Who forged a file has its successor looked at when a generation names that no
// more.
func TestSuccessorIsOfTheSameKind(t *testing.T) {
	k := state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}
	s := &schedule{stock: hashNamed{}}
	for _, tt := range []struct{ name, path, want string }{
		{"the next primary", "repodata/0000-primary.xml.gz", "repodata/1111-primary.xml.gz"},
		{"the next of files", "repodata/0000-filelists.xml.gz", "repodata/1111-filelists.xml.gz"},
		{"without a hash in its name", "repodata/filelists.xml.gz", "repodata/1111-filelists.xml.gz"},
		{"of a kind that there is no more", "repodata/0000-modules.yaml.gz", "repodata/1111-primary.xml.gz"},
		{"some package for a package", "Packages/old.rpm", "Packages/a.rpm"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := s.successor(k, state.GenerationID{}, tt.path); got != tt.want {
				t.Errorf("successor(%q) = %q, want %q", tt.path, got, tt.want)
			}
		})
	}
}

// hashNamed is a generation whose metadata has hashes in its names.
type hashNamed struct{}

func (hashNamed) metadata(state.Key, state.GenerationID) []repodata.Data {
	return []repodata.Data{{Location: "repodata/1111-primary.xml.gz"}, {Location: "repodata/1111-filelists.xml.gz"}}
}

func (hashNamed) sample(k state.Key, _ state.GenerationID, _ *rand.Rand, _ bool) *FilePlan {
	return &FilePlan{Key: k, Path: "Packages/a.rpm"}
}

func (hashNamed) file(state.Key, state.GenerationID, string) (*FilePlan, bool) { return nil, true }

func (hashNamed) images(state.Key) (state.Hash256, []repodata.Data, bool) {
	return state.Hash256{}, nil, false
}

// A file that has to become right does not stand for those that are looked at by
// chance.
func TestAFileThatWasWrongIsNoSample(t *testing.T) {
	k, other := state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}, state.Key{Version: "9.8", Repo: "crb", Arch: "x86_64"}
	truth := &state.Truth{Generations: make([]state.Generation, 1)}
	st := &state.Status{Health: map[state.Key]state.Health{k: state.Broken, other: state.Fresh}}
	s := &schedule{interval: quietest, truth: func(state.Key) *state.Truth { return truth }, stock: hashNamed{}}
	now := time.Unix(1_800_000_000, 0)
	m, a := subject{&schema.Mirror{Name: "m.example.org"}, newPromises([]state.Key{k, other})}, &agenda{asked: make([]int64, 2)}
	visit := func(p Plan) {
		s.made(a, m, p, &Observation{At: now, Files: []FileSeen{{Key: k, Path: "a.rpm", Outcome: Missing}}}, st, st, now)
	}
	visit(Plan{Closure: []FilePlan{{Key: k, Path: "a.rpm"}}})
	if !a.files.IsZero() {
		t.Error("the sample is put off by a file that was wrong before")
	}
	var p Plan
	s.closure(&p, a, m, st, now, 500, rand.New(rand.NewPCG(1, 2)))
	if len(p.Closure) == 0 {
		t.Fatal("nothing is sampled")
	}
	if visit(p); !a.files.Equal(now) {
		t.Errorf("a sample is remembered as of %v", a.files)
	}
}

// Who was caught with one file is looked at everywhere, within a few visits.
func TestALiarIsLookedAtEverywhere(t *testing.T) {
	liar := state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}
	st := &state.Status{Health: map[state.Key]state.Health{liar: state.Broken}, Findings: map[state.Key]*state.Finding{liar: {Path: "repodata/0000-primary.xml.gz"}}}
	keys := []state.Key{liar}
	for i := range 40 {
		k := state.Key{Version: "9.8", Repo: fmt.Sprint("r", i), Arch: "x86_64"}
		keys, st.Health[k] = append(keys, k), []state.Health{state.Fresh, state.Lagging}[i%2]
	}
	truth := &state.Truth{Generations: make([]state.Generation, 1)}
	s := &schedule{interval: quietest, truth: func(state.Key) *state.Truth { return truth }, stock: hashNamed{}}
	now := time.Unix(1_800_000_000, 0)
	m, a := subject{&schema.Mirror{Name: "m.example.org"}, newPromises(keys)}, &agenda{files: now}
	visit := func(spare int) (plans []FilePlan) {
		var p Plan
		s.closure(&p, a, m, st, now, spare, rand.New(rand.NewPCG(1, 2)))
		return p.Closure
	}
	if plans := visit(500); len(plans) > 0 {
		t.Errorf("of a mirror that has lost a file %d others are read", len(plans))
	}
	st.Findings[liar].Lied = true
	seen := map[state.Key]bool{}
	for range 3 {
		plans := visit(500)
		if len(plans) == 0 || len(plans) > suspectsAtOnce {
			t.Errorf("%d files at once, want at most %d", len(plans), suspectsAtOnce)
		}
		for _, f := range plans {
			if !strings.HasSuffix(f.Path, "-primary.xml.gz") || !f.Metadata {
				t.Errorf("asks for %+v", f)
			}
			seen[f.Key] = true
		}
	}
	if len(seen) != 40 || seen[liar] {
		t.Errorf("%d of the 40 others are looked at in three visits", len(seen))
	}
	if plans := visit(3); len(plans) > 3 {
		t.Errorf("%d files with a budget of 3", len(plans))
	}
}

// Of a mirror that holds a generation that nobody remembers no file is asked for:
// those of the newest are not what it should have.
func TestNothingIsHeldOfAnUnknownGeneration(t *testing.T) {
	k := state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}
	truth := &state.Truth{Generations: []state.Generation{{SHA256: state.Hash256{2}}, {SHA256: state.Hash256{1}}}}
	s := &schedule{truth: func(state.Key) *state.Truth { return truth }}
	for _, tt := range []struct {
		name string
		st   state.Status
		want byte // of the hash; 0 for nothing
	}{
		{"the newest", state.Status{Health: map[state.Key]state.Health{k: state.Fresh}}, 2},
		{"a known one", state.Status{Holds: map[state.Key]state.GenerationID{k: {1}}}, 1},
		{"one of which only the revision is known", state.Status{Findings: map[state.Key]*state.Finding{k: {Revision: "7"}}}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if id, ok := s.holding(k, &tt.st); ok != (tt.want != 0) || id[0] != tt.want {
				t.Errorf("holds %v, %v, want %d", id, ok, tt.want)
			}
		})
	}
}
