package checker

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"meridian/checker/state"
	"meridian/schema"
)

const (
	// maxVisits bounds the visits under way.
	maxVisits = 64

	// visitTimeout bounds one visit: a flip of all repositories of a slow mirror.
	visitTimeout = 10 * time.Minute

	// flushEvery is how often a change is stored at most; what changes nothing for
	// clients is stored once in restEvery, and so is that the checker lives.
	flushEvery = time.Second
	restEvery  = time.Minute

	// showEvery is how old what others see can be.
	showEvery = 5 * time.Second

	// overdueAfter is how late a visit may be before that is said.
	overdueAfter = time.Minute

	// maxWaiting bounds the events that wait for a store that is away.
	maxWaiting = 20000

	// enough hosts have to be seen with something newer before the origin is
	// doubted. Of a repository that few have, most of them are enough, but one
	// alone, under however many names, can claim anything.
	enough    = 3
	enoughFew = 2
)

// A loop is the active part of a checker: it owns all that is known, decides who
// is visited, judges what comes back, and has changes stored. One goroutine runs
// it; visits, polls of the origin, writes and reading files are others', who send
// it what they have.
type loop struct {
	c     *Checker
	ctx   context.Context
	once  bool
	rules rules
	sched *schedule
	paths *propagation

	origin *Origin
	prober *Prober
	stock  *library
	rnd    *rand.Rand

	tree      *schema.Tree
	network   *schema.Network // that of tree, with the versions that are pending
	decisions *Overrides
	decided   time.Time // when the next decision ends by itself; zero for never

	members  map[string]*member
	order    []*member        // by name
	hosts    map[string]*host // by each name that mirrors are reached under
	truth    map[state.Key]*state.Truth
	subjects map[state.Key]bool // of which there is truth
	known    bool               // the origin was asked at least once
	began    time.Time
	horizon  horizon
	underWay int
	visits   sync.WaitGroup
	parked   []visited // that wait for what the origin says

	done  chan visited
	polls chan polled
	files chan news
	wrote chan error
	wake  chan struct{} // a poll of the origin is wanted; holds one
	write chan *state.Change

	// What is yet to be stored.
	change  state.Change
	sent    *state.Change // that a write is under way of
	urgent  bool          // clients would be answered otherwise
	writing bool          // a write is under way
	flushed time.Time     // when the last one began
	retry   time.Duration
	aged    time.Time
	shown   time.Time

	now Standing // less what is computed when it is shown
}

// A member is a mirror of the network.
type member struct {
	subject
	*host
	agenda *agenda
	status *state.Status
	due    time.Time // zero: never
	busy   bool      // it is being visited, or its visit is parked
}

// A host is a machine, or several that share mirrors' addresses: it is visited
// for one mirror at a time.
type host struct {
	*bucket
	visits int // under way: one, or as many as were when hosts turned out to be one
}

// visited is a visit that has ended.
type visited struct {
	m      *member
	mirror *schema.Mirror // as it was visited
	plan   Plan
	budget int
	o      *Observation
	ended  time.Time
	asked  time.Time // when the origin was asked about it
}

// polled is what a poll of the origin has brought.
type polled struct {
	began  time.Time
	truth  map[state.Key]state.Truth
	events []state.Event
}

// active checks the network as long as the lease is held. It returns nil after a
// round that ends by itself.
func (c *Checker) active(ctx context.Context, lease time.Duration, files *watch, once bool) error {
	snap, err := c.load(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l, err := c.newLoop(ctx, files, snap, once)
	if err != nil {
		return err
	}
	defer l.prober.Close()
	defer l.origin.Close()
	c.log.Info("checking", "mirrors", len(l.order), "repositories", len(Keys(l.network)), "known", snap != nil)

	var g errgroup.Group
	g.Go(func() error { return c.renew(ctx, lease, cancel) })
	g.Go(func() error { return l.pollOrigin(ctx) })
	g.Go(func() error { return files.run(ctx, l.files) })
	g.Go(func() error { return l.store(ctx) })
	g.Go(func() error {
		l.stock.run(ctx)
		return nil
	})
	err = l.run()
	if lost := context.Cause(ctx); errors.Is(lost, errLeaseLost) {
		err = lost
	}
	cancel(err)
	l.visits.Wait()
	_ = g.Wait() // each has ended because ctx has
	if errors.Is(err, errLeaseLost) {
		return err
	}
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer stop()
	if stored := l.finish(last); stored != nil && (once || err == nil) {
		return stored
	}
	return err
}

// renew renews the lease. That the store cannot be asked is no reason to stop:
// what is found out is kept until it can.
func (c *Checker) renew(ctx context.Context, lease time.Duration, lost context.CancelCauseFunc) error {
	for away := false; pause(ctx, lease/3); {
		switch _, err := c.tryAcquire(ctx); {
		case err == nil && away:
			away = false
			c.log.Info("the lease is renewed again")
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, ErrNotHolder):
			lost(errLeaseLost)
		case !away:
			away = true
			c.log.Warn("the lease cannot be renewed: findings are kept until it can", "err", err)
		}
	}
	return ctx.Err()
}

func (c *Checker) newLoop(ctx context.Context, files *watch, snap *state.Snapshot, once bool) (*loop, error) {
	s := &c.opts.Settings
	if snap == nil {
		snap = &state.Snapshot{}
	}
	now := time.Now()
	l := &loop{
		c: c, ctx: ctx, once: once, began: now, aged: now, flushed: now,
		members: map[string]*member{}, hosts: map[string]*host{}, truth: make(map[state.Key]*state.Truth, len(snap.Truth)),
		done: make(chan visited), polls: make(chan polled), files: make(chan news), wrote: make(chan error, 1),
		wake: make(chan struct{}, 1), write: make(chan *state.Change),
		rnd: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}
	for k, t := range snap.Truth {
		l.truth[k] = &t
	}
	l.paths = newPropagation(snap.Publications, l.truthOf)
	l.network = WithPending(files.tree.Network, s.PendingVersions)
	dir := s.CacheDir
	if dir != "" {
		dir = filepath.Join(dir, "origin")
	}
	var err error
	l.origin, err = NewOrigin(OriginOptions{
		Network: l.network, Tier0s: s.Origin, Known: snap.Truth, Decisions: c.store.Decisions, Dir: dir,
		Version: c.opts.Version, ContactURL: s.ContactURL, Vantage: s.Vantage, RootCAs: c.originCAs, Log: c.log,
	})
	if err != nil {
		return nil, err
	}
	for _, tree := range l.origin.Unasked() {
		c.log.Warn("no tier0 is named for a tree: nothing is known of its repositories", "tree", tree)
	}
	p := c.opts.Probe
	p.Version, p.ContactURL, p.Vantage, p.AllowPrivateAddresses = c.opts.Version, s.ContactURL, s.Vantage, s.AllowPrivateAddresses
	l.prober = NewProber(p)
	l.stock = newLibrary(l.origin, c.log)
	l.sched = &schedule{interval: s.Interval, truth: l.truthOf, stock: l.stock}
	l.now = Standing{Active: true, Since: now.UTC(), Problems: files.problems}
	if was := c.Standing(); was != nil {
		l.now.Stored, l.now.Visits, l.now.Requests, l.now.Bytes = was.Stored, was.Visits, was.Requests, was.Bytes
		l.now.WriteErrors, l.now.Events, l.paths.lags = was.WriteErrors, was.Events, was.Lags
	}
	l.adopt(news{tree: files.tree, decisions: files.decisions, problems: maps.Clone(files.problems)}, snap.Mirrors)
	return l, nil
}

func (l *loop) truthOf(k state.Key) *state.Truth { return l.truth[k] }

// run is the loop. It returns nil after a round that ends by itself, and else the
// error of ctx.
func (l *loop) run() error {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if next := l.visit(time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		} else {
			timer.Stop()
		}
		if l.once && l.complete() {
			return nil
		}
		select {
		case <-l.ctx.Done():
			return l.ctx.Err()
		case v := <-l.done:
			l.came(v)
		case p := <-l.polls:
			l.learn(p)
		case n := <-l.files:
			l.adopt(n, nil)
		case name := <-l.c.hints:
			if m := l.members[name]; m != nil {
				l.sched.hint(m.agenda, time.Now())
				l.plan(m)
			}
		case err := <-l.wrote:
			if err := l.stored(err); err != nil {
				return err
			}
		case <-second.C:
			l.tick(time.Now())
		case <-timer.C:
		}
	}
}

// visit starts the visits that are due, those that have waited longest first, and
// returns when the next one is; zero if that depends on something else.
func (l *loop) visit(now time.Time) (next time.Time) {
	if !l.known && now.Sub(l.began) < time.Minute && !l.anythingKnown() {
		return l.began.Add(time.Minute) // what would mirrors be compared with?
	}
	var due []*member
	for _, m := range l.order {
		if m.due.IsZero() || m.busy || m.host.visits > 0 {
			continue
		}
		at := m.due
		if !at.After(now) {
			if at = m.ready(now); !at.After(now) {
				due = append(due, m)
				continue
			}
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	slices.SortStableFunc(due, func(a, b *member) int { return a.due.Compare(b.due) })
	for _, m := range due {
		if l.underWay >= maxVisits {
			return time.Time{} // the end of one of them is next
		}
		if m.host.visits == 0 {
			l.start(m, now)
		}
	}
	return next
}

func (l *loop) anythingKnown() bool {
	for _, t := range l.truth {
		if t.Newest() != nil {
			return true
		}
	}
	return false
}

// start begins a visit.
func (l *loop) start(m *member, now time.Time) {
	m.busy = true
	m.host.visits++
	l.underWay++
	v := visited{m: m, mirror: m.Mirror, budget: m.take(now)}
	v.plan = l.sched.plan(m.agenda, m.subject, m.status, now, v.budget, l.rnd)
	v.plan.Network = l.network
	l.visits.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, visitTimeout)
		defer cancel()
		v.o = l.prober.Visit(ctx, v.mirror, v.plan)
		v.ended = time.Now()
		select {
		case l.done <- v:
		case <-l.ctx.Done():
		}
	})
}

// came takes what a visit has seen.
func (l *loop) came(v visited) {
	now := time.Now()
	l.underWay--
	if l.members[v.m.Name] == v.m {
		v.m.host.visits--
	}
	v.m.back(v.budget-v.o.Requests, now)
	l.now.Visits++
	l.now.Requests += uint64(v.o.Requests)
	l.now.Bytes += uint64(v.o.Bytes)
	if l.members[v.m.Name] != v.m || v.m.Mirror != v.mirror {
		v.m.busy = false
		v.m.agenda.visited = v.ended // of what the mirror was before its file changed
		l.plan(v.m)
		return
	}
	if doubted := l.newer(v); len(doubted) > 0 {
		// The origin is asked before anybody is accused, or believed.
		v.asked = now
		l.parked = append(l.parked, v)
		l.origin.AskAgain(doubted)
		l.wakeOrigin()
		return
	}
	l.judge(v)
}

// newer returns the repositories that the mirror has in a generation that is newer
// than what the origin was last seen to have.
func (l *loop) newer(v visited) (keys []state.Key) {
	for k, seen := range v.o.Keys {
		t := l.truth[k]
		if seen.Outcome != Served || k.Repo == isos || t == nil || t.Newest() == nil {
			continue
		}
		asked := t.Problem != nil || t.Partial || !t.Disputed.IsZero() || !t.Confirmed.Before(v.o.At)
		if p := locate(t, &seen); p.at < 0 && !asked {
			keys = append(keys, k)
		}
	}
	return keys
}

// judge makes a verdict of a visit.
func (l *loop) judge(v visited) {
	m := v.m
	m.busy = false
	l.sched.gone(v.o, m.status)
	if l.horizon.see(m.Name, m.status.Failures > forgiven || m.status.Unrouted, silent(v.o, len(m.keys)), v.ended) != l.now.Blind {
		if l.now.Blind = !l.now.Blind; l.now.Blind {
			l.c.log.Error("hardly any mirror answers: this host may have lost its network, and mirrors are not judged by that")
		} else {
			l.c.log.Info("mirrors answer again")
		}
	}
	prev := m.status
	if l.now.Blind && silent(v.o, len(m.keys)) {
		m.agenda.visited = v.ended
		m.due = v.ended.Add(l.sched.backoff(m.agenda, 1))
		return
	}
	next, events := judge(prev, v.o, l.truthOf, m.subject, l.rules)
	l.sched.made(m.agenda, m.subject, v.plan, v.o, prev, next, v.ended)
	l.become(m, next, events)
	l.plan(m)
}

// become takes a new status of a mirror.
func (l *loop) become(m *member, next *state.Status, events []state.Event) {
	if next == m.status {
		return
	}
	m.status = next
	l.change.Mirrors[m.Name] = next
	l.paths.saw(m.Mirror, next, time.Now())
	l.tell(events)
	if slices.ContainsFunc(events, func(e state.Event) bool { return e.From == state.Ahead || e.To == state.Ahead }) {
		l.countAhead()
	}
}

// tell stores and tells events.
func (l *loop) tell(events []state.Event) {
	if len(events) == 0 {
		return
	}
	l.urgent = true
	l.change.Events = append(l.change.Events, events...)
	counts := map[string]uint64{}
	maps.Copy(counts, l.now.Events) // others look at it
	for i := range events {
		l.c.logEvent(&events[i])
		counts[events[i].Kind]++
	}
	l.now.Events = counts
	if l.c.opts.Notifier != nil {
		l.c.opts.Notifier.Notify(events)
	}
}

// countAhead tells the origin what enough mirrors are ahead of.
func (l *loop) countAhead() {
	ahead, all := map[state.Key]map[*host]bool{}, map[state.Key]map[*host]bool{}
	add := func(to map[state.Key]map[*host]bool, k state.Key, h *host) {
		if to[k] == nil {
			to[k] = map[*host]bool{}
		}
		to[k][h] = true
	}
	for _, m := range l.order {
		for k, h := range m.status.Health {
			if h == state.Ahead {
				add(ahead, k, m.host)
			}
		}
	}
	if len(ahead) > 0 {
		for _, m := range l.order {
			for k := range ahead {
				if h, ok := m.status.Health[k]; ok && h != state.Unprobed && h != state.Absent {
					add(all, k, m.host)
				}
			}
		}
	}
	var keys []state.Key
	for k, hosts := range ahead {
		if n := len(hosts); n >= enough || n >= enoughFew && 2*n > len(all[k]) {
			keys = append(keys, k)
		}
	}
	l.origin.SetAhead(keys)
	l.wakeOrigin()
}

// plan says when a mirror is visited next.
func (l *loop) plan(m *member) { m.due = l.sched.due(m.agenda, m.subject, m.status) }

// learn takes what a poll of the origin has brought.
func (l *loop) learn(p polled) {
	l.known = true
	knew := l.anythingKnown()
	l.now.Origin = l.origin.Numbers()
	was := make(map[state.Key]*state.Truth, len(p.truth))
	var followed []state.Key
	matters := false
	for k, t := range p.truth {
		if !l.subjects[k] {
			continue // the poll began before the network changed
		}
		old := l.truth[k]
		was[k] = old
		if !l.undecided() {
			t.Withdrawn = l.decisions.withdrawn(k, time.Now())
		} else if old != nil {
			t.Withdrawn = old.Withdrawn
		}
		l.truth[k], l.change.Truth[k] = &t, t
		if old != nil && sameTruth(old, &t) {
			continue
		}
		matters = true
		if old != nil && old.Newest() != nil && t.Newest() != nil && old.Newest().SHA256 != t.Newest().SHA256 {
			followed = append(followed, k)
		}
	}
	if len(followed) > 0 {
		for _, m := range l.order {
			l.become(m, supersede(m.status, followed, func(k state.Key) *state.Truth { return was[k] }), nil)
		}
	}
	if matters {
		l.urgent = true
		l.ageAll(time.Now(), true)
	}
	l.tell(p.events)
	for i := range p.events {
		// The first look finds all there is: when that was published nobody knows.
		if e := &p.events[i]; e.Kind == state.Published && knew {
			l.paths.published(e.Time, e.Keys)
			l.sawAll(time.Now())
		}
	}
	// What waits for the origin was asked about before this poll began, or after.
	var later []visited
	for _, v := range l.parked {
		switch {
		case p.began.Before(v.asked):
			later = append(later, v)
		case l.members[v.m.Name] != v.m || v.m.Mirror != v.mirror:
			v.m.busy = false
		default:
			l.judge(v)
		}
	}
	l.parked = later
}

// sawAll follows publications to where all mirrors are.
func (l *loop) sawAll(now time.Time) {
	for _, m := range l.order {
		l.paths.saw(m.Mirror, m.status, now)
	}
}

// ageAll applies what time and the origin have changed. With replan there is
// something new to be asked for.
func (l *loop) ageAll(now time.Time, replan bool) {
	l.aged = now
	for _, m := range l.order {
		next, events := age(m.status, now, l.truthOf, m.subject, l.rules)
		aged := next != m.status
		l.become(m, next, events)
		if !m.busy && (aged || replan) {
			l.plan(m)
		}
	}
}

// tick does what is done now and then.
func (l *loop) tick(now time.Time) {
	if !l.decided.IsZero() && !now.Before(l.decided) {
		l.override(now)
	}
	if now.Sub(l.aged) >= restEvery {
		l.ageAll(now, false)
	}
	l.flush(now)
	if now.Sub(l.shown) >= showEvery {
		l.show()
	}
}

// undecided tells whether the decisions of administrators could not be read since
// this process began. Those that are stored stay then: a mirror that somebody has
// disabled does not come back because of a typing error and a restart.
func (l *loop) undecided() bool {
	return l.decisions == nil && l.c.opts.Settings.Overrides != "" && l.c.opts.ReadOverrides != nil
}

// override applies the decisions of administrators that hold now.
func (l *loop) override(now time.Time) {
	if l.undecided() {
		return
	}
	l.decided = l.decisions.changes(now)
	for _, m := range l.order {
		is := l.decisions.of(m.Name, m.keys, now)
		e := overridden(m.Name, m.status.Override, is, now.UTC(), l.c.opts.Settings.Vantage)
		if e == nil {
			continue
		}
		next := *m.status
		next.Override = is
		l.become(m, &next, []state.Event{*e})
	}
	told := map[string][]state.Key{}
	for k, t := range l.truth {
		if reason := l.decisions.withdrawn(k, now); reason != t.Withdrawn {
			next := *t
			next.Withdrawn = reason
			l.truth[k], l.change.Truth[k], l.urgent = &next, next, true
			said := "withdrawn from everybody by an administrator: " + reason
			if reason == "" {
				said = "the decision of an administrator has ended: " + t.Withdrawn
			}
			told[said] = append(told[said], k)
		}
	}
	for _, said := range slices.Sorted(maps.Keys(told)) {
		slices.SortFunc(told[said], compareKeys)
		l.tell([]state.Event{{
			Time: now.UTC(), Vantage: l.c.opts.Settings.Vantage, Kind: state.OverrideChanged, Keys: told[said],
			Problem: &state.Problem{Reason: said, Since: now.UTC()},
		}})
	}
}

// adopt takes files that have changed. known are the findings of before, at a
// start.
func (l *loop) adopt(n news, known map[string]*state.Status) {
	now := time.Now()
	l.now.Problems = n.problems
	if n.tree != l.tree {
		l.network = WithPending(n.tree.Network, l.c.opts.Settings.PendingVersions)
		if l.tree != nil {
			l.origin.SetNetwork(l.network)
			l.wakeOrigin()
			l.c.log.Info("reloaded", "mirrors", len(n.tree.Mirrors))
		}
		l.tree = n.tree
		l.rules.allowedOutdate = l.network.AllowedOutdate
		l.enroll(known, now)
		l.gather(now)
		l.forget()
		l.countAhead()
		l.sawAll(now)
		l.urgent = true
	}
	l.decisions = n.decisions
	l.override(now)
	l.ageAll(now, true)
	l.show()
}

// forget takes out of the state what is no repository of the network any more.
func (l *loop) forget() {
	l.subjects = map[state.Key]bool{}
	for _, keys := range [][]state.Key{Keys(l.network), VaultKeys(l.network), ISOKeys(l.network), ExcludedKeys(l.network)} {
		for _, k := range keys {
			l.subjects[k] = true
		}
	}
	for k := range l.truth {
		if !l.subjects[k] {
			delete(l.truth, k)
			delete(l.change.Truth, k)
			l.change.Forget = append(l.change.Forget, k)
		}
	}
}

// enroll makes the members of the mirrors.
func (l *loop) enroll(known map[string]*state.Status, now time.Time) {
	if l.change.Mirrors == nil {
		l.change = emptyChange()
	}
	for name := range known {
		l.change.Mirrors[name] = nil // unless it is a member
	}
	old := l.members
	l.members, l.order = make(map[string]*member, len(l.tree.Mirrors)), nil
	sets := map[string]*promises{}
	all, allISOs := Keys(l.network), ISOKeys(l.network)
	for _, m := range l.tree.Mirrors {
		p := l.promisesOf(m, all, allISOs, sets)
		is := old[m.Name]
		if is != nil {
			is.agenda.reenroll(is.promises, p)
			if !reflect.DeepEqual(is.Mirror, m) {
				is.Mirror = m
			}
			is.promises = p
		} else {
			is = &member{subject: subject{m, p}}
			st := known[m.Name]
			is.agenda = l.sched.enroll(is.subject, st, now)
			if l.once {
				is.agenda.first = now
				clear(is.agenda.asked)
			}
			if is.status = st; st != nil {
				delete(l.change.Mirrors, m.Name)
			} else {
				is.status, _ = age(nil, now, l.truthOf, is.subject, l.rules)
				l.change.Mirrors[m.Name] = is.status
			}
		}
		l.members[m.Name] = is
		l.order = append(l.order, is)
	}
	for name := range old {
		if l.members[name] == nil {
			l.change.Mirrors[name] = nil
			l.paths.left(name)
		}
	}
}

// promisesOf returns what m should have. Most mirrors should have the same.
func (l *loop) promisesOf(m *schema.Mirror, all, allISOs []state.Key, sets map[string]*promises) *promises {
	keys := carried(l.network, m, slices.Clone(all))
	if !m.Carries.NoISOs {
		keys = append(keys, carried(l.network, m, slices.Clone(allISOs))...)
	}
	var name []byte
	for _, k := range keys {
		name = append(append(name, k.String()...), 0)
	}
	if p := sets[string(name)]; p != nil {
		return p
	}
	p := newPromises(keys)
	sets[string(name)] = p
	return p
}

// gather finds out which mirrors share a host: those that are reached under one
// name, and those that share a name with one of these.
func (l *loop) gather(now time.Time) {
	scale := 1.0
	private := l.c.opts.Settings.AllowPrivateAddresses
	if private {
		scale = 100
	}
	old := l.hosts
	l.hosts = map[string]*host{}
	group := map[*host]*host{} // what was joined to another
	find := func(h *host) *host {
		for group[h] != nil {
			h = group[h]
		}
		return h
	}
	for _, m := range l.order {
		names := hostsOf(m.Mirror, private)
		var h *host
		for _, name := range names {
			of := l.hosts[name]
			if of == nil {
				if of = old[name]; of == nil {
					of = &host{bucket: newBucket(now, scale)}
				}
				l.hosts[name] = of
			}
			switch of = find(of); {
			case h == nil:
				h = of
			case h != of:
				group[of] = h
				h.fill(now)
				of.fill(now)
				h.tokens = min(h.tokens, of.tokens)
			}
		}
		m.host = h
	}
	for name, h := range l.hosts {
		l.hosts[name] = find(h)
	}
	for _, m := range l.order {
		m.host = find(m.host)
		m.host.visits = 0
	}
	for _, m := range l.order {
		// A visit that waits for the origin has left the host, and nothing would say
		// so a second time.
		if m.busy && !slices.ContainsFunc(l.parked, func(v visited) bool { return v.m == m }) {
			m.host.visits++
		}
	}
}

// hostsOf are the names of the machines that have a mirror; with ports where
// ports tell them apart.
func hostsOf(m *schema.Mirror, ports bool) []string {
	var names []string
	for _, a := range append([]schema.Address{m.Address}, slices.Collect(maps.Values(m.AddressOptional))...) {
		for _, base := range []string{a.HTTP, a.HTTPS, a.Rsync} {
			u, err := url.Parse(base)
			if err != nil || u.Host == "" {
				continue
			}
			name := u.Hostname()
			if ports {
				name = u.Host
			}
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// complete tells whether a single round has ended: each mirror was visited, and
// those that failed were given a second chance.
func (l *loop) complete() bool {
	if !l.known || l.underWay > 0 || len(l.parked) > 0 {
		return false
	}
	for _, m := range l.order {
		if !m.public() {
			continue
		}
		if m.agenda.visited.IsZero() {
			return false
		}
		if st := m.status; st.Failures > 0 && st.Failures <= forgiven {
			return false
		}
		for _, f := range m.status.Findings {
			if f.Failures > 0 && f.Failures <= forgiven {
				return false
			}
		}
		if m.status.Failures == 0 && slices.Contains(m.agenda.asked, 0) && !onlyImagesUnasked(m) {
			return false
		}
	}
	return true
}

// onlyImagesUnasked: of images there may be nothing to ask.
func onlyImagesUnasked(m *member) bool {
	for i, at := range m.agenda.asked {
		if _, ok := m.status.Health[m.keys[i]]; ok && at == 0 && m.keys[i].Repo != isos {
			return false
		}
	}
	return true
}

// pollOrigin polls the origin whenever that is due.
func (l *loop) pollOrigin(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-l.wake:
		}
		began := time.Now()
		truth, events, err := l.origin.Poll(ctx, began)
		if err != nil {
			return err
		}
		select {
		case l.polls <- polled{began, truth, events}:
		case <-ctx.Done():
			return ctx.Err()
		}
		timer.Reset(time.Until(l.origin.Next()))
	}
}

func (l *loop) wakeOrigin() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func emptyChange() state.Change {
	return state.Change{Mirrors: map[string]*state.Status{}, Truth: map[state.Key]state.Truth{}, Publications: map[string]*state.Publication{}}
}

// flush has what is new stored, if it is time for that.
func (l *loop) flush(now time.Time) {
	since := now.Sub(l.flushed)
	if l.blank() || l.writing || since < l.retry || since < flushEvery || !l.urgent && since < restEvery {
		return
	}
	l.writing, l.flushed = true, now
	c := l.pending(now)
	l.show()
	select {
	case l.write <- c:
	case <-l.ctx.Done():
	}
}

// blank tells whether nothing was ever seen: this host has no network, and what
// it would write takes the place of what another one has seen.
func (l *loop) blank() bool { return l.now.Blind && l.horizon.last.IsZero() }

// pending takes what is to be stored.
func (l *loop) pending(now time.Time) *state.Change {
	c := l.change
	c.Forget = slices.DeleteFunc(c.Forget, func(k state.Key) bool { _, again := c.Truth[k]; return again })
	l.paths.take(now, c.Publications)
	l.change, l.urgent = emptyChange(), false
	if c.Taken = now.UTC(); l.now.Blind {
		// What is not seen any more grows old, whatever else is written.
		c.Taken = l.horizon.last.UTC()
	}
	l.sent = &c
	return &c
}

// stored takes what came of a write. What was not stored is kept for the next.
func (l *loop) stored(err error) error {
	l.writing = false
	sent := l.sent
	l.sent = nil
	if l.now.StoreErr != nil && err == nil {
		l.c.log.Info("findings are stored again")
	}
	if err != nil && l.now.StoreErr == nil {
		l.c.log.Warn("findings cannot be stored: they are kept until they can", "err", err)
	}
	if l.now.StoreErr = err; err == nil {
		l.retry = 0
		l.now.Stored = time.Now().UTC()
		l.show()
		return nil
	}
	if errors.Is(err, ErrNotHolder) {
		return errLeaseLost
	}
	l.now.WriteErrors++
	for name, st := range sent.Mirrors {
		if _, newer := l.change.Mirrors[name]; !newer {
			l.change.Mirrors[name] = st
		}
	}
	for id, pub := range sent.Publications {
		if _, newer := l.change.Publications[id]; !newer {
			l.change.Publications[id] = pub
		}
	}
	for k, t := range sent.Truth {
		if _, newer := l.change.Truth[k]; !newer && l.subjects[k] {
			l.change.Truth[k] = t
		}
	}
	l.change.Forget = append(sent.Forget, l.change.Forget...)
	l.change.Events = append(sent.Events, l.change.Events...)
	if n := len(l.change.Events) - maxWaiting; n > 0 {
		l.c.log.Warn("events are lost to the history: the store is away for too long", "events", n)
		l.change.Events = l.change.Events[n:]
	}
	l.urgent = true
	l.retry = min(cmp.Or(2*l.retry, 2*time.Second), 30*time.Second)
	l.show()
	return nil
}

// store writes what it is given.
func (l *loop) store(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c := <-l.write:
			l.wrote <- l.put(ctx, c)
		}
	}
}

func (l *loop) put(ctx context.Context, c *state.Change) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return l.c.store.Write(ctx, c)
}

// finish stores what is left.
func (l *loop) finish(ctx context.Context) error {
	select {
	case err := <-l.wrote:
		if err := l.stored(err); err != nil {
			return err
		}
	default:
		if l.writing {
			l.stored(context.Canceled)
		}
	}
	if l.blank() {
		return nil
	}
	c := l.pending(time.Now())
	var err error
	if len(c.Mirrors)+len(c.Truth)+len(c.Forget)+len(c.Events) > 0 {
		if err = l.put(ctx, c); err == nil {
			l.now.Stored = c.Taken
		}
	}
	l.now.StoreErr = err
	l.show()
	if err != nil {
		l.c.log.Error("the last findings are not stored", "err", err)
		return err
	}
	return nil
}

// show makes what is known visible to others.
func (l *loop) show() {
	now := time.Now()
	l.shown = now
	s := l.now
	s.UnderWay, s.Lags = l.underWay, l.paths.lags
	for _, m := range l.order {
		if m.public() {
			s.Visitable++
			if m.agenda.visited.IsZero() {
				s.Unvisited++
			}
		}
		if !m.busy && !m.due.IsZero() && now.Sub(m.due) > overdueAfter {
			s.Overdue++
		}
	}
	s.Network, s.Mirrors = l.network, l.tree.Mirrors
	snap := &state.Snapshot{
		Taken: now.UTC(), Vantage: l.c.opts.Settings.Vantage,
		Mirrors: make(map[string]*state.Status, len(l.order)), Truth: make(map[state.Key]state.Truth, len(l.truth)),
		Publications: maps.Clone(l.paths.all),
	}
	for _, m := range l.order {
		snap.Mirrors[m.Name] = m.status
	}
	for k, t := range l.truth {
		snap.Truth[k] = *t
	}
	l.now.Complete = l.now.Complete || s.Unvisited == 0
	s.Snapshot, s.Complete = snap, l.now.Complete
	l.c.standing.Store(&s)
}

// A horizon tells whether it is the mirrors that do not answer, or this host that
// cannot ask.
type horizon struct {
	recent []glimpse // of each mirror the last, oldest first
	last   time.Time // when something was last seen
}

type glimpse struct {
	mirror string
	at     time.Time
	silent bool
}

const (
	// seenFor is how long a visit tells something about this host.
	seenFor = 3 * time.Minute

	// seenLeast is of how many mirrors it has to tell.
	seenLeast = 5
)

// see takes a visit, and returns whether this host seems to be cut off: of the
// mirrors that were not down already, hardly any has answered lately.
func (s *horizon) see(mirror string, down, silent bool, at time.Time) (blind bool) {
	if !silent {
		s.last = at
	}
	s.recent = slices.DeleteFunc(s.recent, func(g glimpse) bool { return g.mirror == mirror || at.Sub(g.at) > seenFor })
	if !down || !silent {
		s.recent = append(s.recent, glimpse{mirror, at, silent})
	}
	n := 0
	for _, g := range s.recent {
		if g.silent {
			n++
		}
	}
	return n >= seenLeast && n*10 >= len(s.recent)*9
}
