package checker

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"meridian/builder/repodata"
	"meridian/checker/state"
	"meridian/internal/fetch"
	"meridian/schema"
)

const (
	// Tier0 is asked for each repository once in truthEvery, at a moment of its
	// own; what nobody writes to any more once in vaultEvery.
	truthEvery = time.Minute
	vaultEvery = 24 * time.Hour

	// A vault is asked for what is not known of it yet in this time.
	vaultFirst = 10 * time.Minute

	// readEvery is how long an answer that nothing has changed is believed before
	// the document is read again.
	readEvery = time.Hour

	// What is in trouble is asked again after firstRetry, then after twice as
	// long, and so on up to the interval, but not more than lastRetry.
	firstRetry = 2 * time.Second
	lastRetry  = time.Hour

	// publicationPause is what a publication that was seen is given to reach all
	// repositories, before they are asked again.
	publicationPause = 2 * time.Second

	// maxPasses bounds how often one poll asks everything again because something
	// has changed meanwhile.
	maxPasses = 5

	// perTier0 is how many questions one tier0 is asked at a time.
	perTier0 = 2

	// generationsAfter is how long a generation is remembered that no mirror may
	// have any more: those who have it are told which one it is. maxGenerations
	// bounds that for an origin that publishes all the time.
	generationsAfter = 48 * time.Hour
	maxGenerations   = 256

	// maxOffers bounds what is remembered of repositories that were served and not
	// believed.
	maxOffers = 8

	// confirmEvery is how often a change of Confirmed alone is worth writing.
	confirmEvery = 5 * time.Minute

	decisionsEvery   = 3 * time.Second
	decisionsTimeout = 2 * time.Second
)

// OriginOptions are what an [Origin] is made from. Network and Tier0s are
// required.
type OriginOptions struct {
	// Network whose repositories are asked for, with pending versions: see
	// [WithPending].
	Network *schema.Network

	// Tier0s are the bases by tree. Repositories of trees that are missing here
	// are not asked for.
	Tier0s Origins

	// Known is what a former process has found out, from the store.
	Known map[state.Key]state.Truth

	// Decisions returns those of administrators, as [Store] does. Nil: nobody
	// decides anything.
	Decisions func(context.Context) ([]state.Decision, error)

	// Dir is a private directory that remembers the metadata of generations over a
	// restart. It may be lost at any time. "": after a restart the newest of each
	// key is read from the origin again, and the older ones are not known.
	Dir string

	// Version of the program, ContactURL of who runs it: for the User-Agent.
	Version, ContactURL string

	// Vantage names the place that is looked from.
	Vantage string

	// RootCAs replace the system's certificate authorities unless nil: see
	// [ReadCAs].
	RootCAs *x509.CertPool

	// Log takes what concerns this process and not the origin. Default: nowhere.
	Log *slog.Logger
}

// An Origin owns what is known of tier0: it asks, and decides what to believe.
//
// Poll and Next are called by one goroutine. The other methods may be called by
// any.
type Origin struct {
	opts   OriginOptions
	client *fetch.Client
	tier0s []*tier0
	files  *generationFiles
	pause  time.Duration // publicationPause, but in tests

	// Of the goroutine that polls.
	keys      []*topic // repositories in the order of the network, then sets of images
	byKey     map[state.Key]*topic
	retention time.Duration
	began     time.Time // of the first poll
	confirmed time.Time // when Confirmed was last handed out
	decided   time.Time // when decisions were last read
	deaf      bool      // decisions could not be read
	saidAhead bool      // SetAhead was called

	// To be told at the end of the poll.
	published []state.Key
	withdrawn []withdrawal

	mu      sync.Mutex // guards what follows
	network *schema.Network
	replace bool               // network is to be taken up
	ahead   map[state.Key]bool // nil until somebody says
	heard   bool               // ahead is to be taken up
	doubted []state.Key        // to be asked again
	images  map[state.Key]*ImageSet
	numbers OriginNumbers
}

// OriginNumbers are what an Origin measures of itself.
type OriginNumbers struct {
	Keys     int // repositories that are asked for each minute
	Absent   int // of these, those that the origin does not have
	Troubled int // of these, those whose truth has a Problem
	Disputed int // of these, those of which mirrors have something newer that is not confirmed

	// Confirmed is when that key of these was confirmed whose confirmation is the
	// oldest; zero while there is none.
	Confirmed time.Time

	// Since the start: publications, generations in them, and how often the
	// origin was said to be in trouble.
	Publications, Generations, Troubles int
}

// A topic is a repository or a set of images, and what tier0 is known to have
// of it.
type topic struct {
	key   state.Key
	tree  string
	every time.Duration

	// excluded: the network file says that there is no such repository. Nothing is
	// believed of it but whether it is there.
	excluded bool

	looks []*look // at each tier0 of the tree

	truth state.Truth
	given state.Truth // what Poll returned last

	expire, accept *state.Decision // of an administrator, nil if there is none

	ahead   bool // mirrors are
	doubted bool // somebody waits for when it was confirmed
}

// A look is what one tier0 was last seen to serve of one topic.
type look struct {
	of    *topic
	tier0 *tier0
	path  string // of the directory, below the base; ends in "/"

	due   time.Time
	tries int // in a row that ended in trouble

	at     time.Time // of the last question; zero: none was asked yet
	reply  reply
	stamp  stamp         // of what was read
	readAt time.Time     // when it was read whole
	sight  *sighting     // what was read: a repository
	serves state.Hash256 // of the last one that was read, though others of its files could not be looked for
	images *ImageSet     // or a set of images
	lacks  error         // something that is named and not there
	proof  *state.Evidence

	trouble   *trouble
	recovered bool      // from a trouble that was told, which is to be told too
	was       situation // as of the last time that it was settled
}

// A sighting is a repomd.xml that a tier0 serves.
type sighting struct {
	generation state.Generation
	repomd     *repodata.Repomd
	text       []byte
	proof      *state.Evidence

	// whole: the files that it names were all there, and it was still there
	// afterwards.
	whole bool
}

// NewOrigin returns an Origin that has not asked anything yet.
func NewOrigin(opts OriginOptions) (*Origin, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	o := &Origin{
		opts: opts, pause: publicationPause, byKey: map[state.Key]*topic{}, images: map[state.Key]*ImageSet{}, files: newGenerationFiles(opts.Dir, opts.Log),
		// Where tier0 is, an administrator has said: it may well be on a private
		// address.
		client: fetch.New(fetch.Options{
			AllowPrivate: true, MaxBytes: repodata.MaxRepomd, Timeout: tier0Timeout, MinRate: minRate,
			UserAgent: userAgent(opts.Version, opts.ContactURL), RootCAs: opts.RootCAs,
		}),
	}
	var trees []string
	for tree := range opts.Tier0s {
		trees = append(trees, tree)
	}
	slices.Sort(trees)
	for _, tree := range trees {
		if err := checkTree(opts.Network, tree); err != nil {
			return nil, err
		}
		for _, base := range opts.Tier0s[tree] {
			t, err := newTier0(tree, base, o.client, opts.Vantage)
			if err != nil {
				return nil, fmt.Errorf("origin: %s: %w", tree, err)
			}
			o.tier0s = append(o.tier0s, t)
		}
	}
	if len(opts.Tier0s[mainTree]) == 0 {
		return nil, errors.New("origin: tier0 is not named; write origin: https://tier0.example.org/")
	}
	o.arrange(opts.Network)
	o.files.keepOnly(o.keys)
	return o, nil
}

func checkTree(n *schema.Network, tree string) error {
	known := []string{mainTree, vaultTree}
	for _, m := range n.Modules {
		known = append(known, m.Name)
	}
	if !slices.Contains(known, tree) {
		return fmt.Errorf("origin: the network has no tree %q; write one of %s", tree, strings.Join(known, ", "))
	}
	return nil
}

// Close closes connections that are kept.
func (o *Origin) Close() { o.client.CloseIdleConnections() }

// Unasked returns the trees of the network that no tier0 is named for: their
// repositories have no truth.
func (o *Origin) Unasked() []string {
	o.mu.Lock()
	n := o.network
	o.mu.Unlock()
	var missing []string
	for _, m := range n.Modules {
		if len(o.opts.Tier0s[m.Name]) == 0 {
			missing = append(missing, m.Name)
		}
	}
	if len(VaultKeys(n)) > 0 && len(o.opts.Tier0s[vaultTree]) == 0 {
		missing = append(missing, vaultTree)
	}
	return missing
}

// SetNetwork replaces the network from the next poll on. What is known of
// repositories that are in both stays known.
func (o *Origin) SetNetwork(n *schema.Network) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.network, o.replace = n, true
}

// SetAhead says of which keys mirrors are seen Ahead now, all of them. What is new
// among them is asked of the origin by the next poll, which is due at once.
//
// One mirror alone can claim anything; who calls this decides how many it takes.
func (o *Origin) SetAhead(keys []state.Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ahead, o.heard = make(map[state.Key]bool, len(keys)), true
	for _, k := range keys {
		o.ahead[k] = true
	}
}

// AskAgain has keys asked of the origin by the next poll, which is due at once.
// The truths that it returns say when they were confirmed.
func (o *Origin) AskAgain(keys []state.Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.doubted = append(o.doubted, keys...)
}

// Numbers returns what is measured, as of the last poll.
func (o *Origin) Numbers() OriginNumbers {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.numbers
}

// Repomd returns the parsed repomd.xml of a generation of k, and nil when it is not
// known, or no longer. The caller must not change it.
func (o *Origin) Repomd(k state.Key, id state.GenerationID) *repodata.Repomd {
	return o.files.get(k, id)
}

// Images returns the set of images of the key VERSION/isos/ARCH as the origin has
// it, and nil while that is not known. The caller must not change it.
func (o *Origin) Images(k state.Key) *ImageSet {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.images[k]
}

// arrange takes up a network.
func (o *Origin) arrange(n *schema.Network) {
	old := o.byKey
	o.network, o.keys, o.byKey = n, nil, map[state.Key]*topic{}
	o.retention = n.AllowedOutdate + generationsAfter
	excluded := map[state.Key]bool{}
	add := func(k state.Key, tree string, every time.Duration) {
		path := RepoURL("", n, k)
		s := &topic{key: k, tree: tree, every: every, excluded: excluded[k]}
		was := old[k]
		switch {
		case was != nil && was.excluded == s.excluded:
			*s = *was
			s.tree, s.every, s.looks = tree, every, nil
		case was != nil:
			// All that was known is of another kind, and is to be taken back.
			s.given, was = was.given, nil
		default:
			if t, ok := o.opts.Known[k]; ok && k.Repo != isos {
				s.remember(t)
			}
		}
		for _, t := range o.tier0s {
			if t.tree != tree {
				continue
			}
			l := &look{of: s, tier0: t, path: path}
			if was != nil {
				for _, have := range was.looks {
					if have.tier0 == t && have.path == path {
						l = have
						l.of = s
					}
				}
			}
			s.looks = append(s.looks, l)
		}
		if len(s.looks) == 0 {
			return
		}
		if was == nil && s.truth.Problem != nil {
			s.looks[0].trouble = rememberedTrouble(s.truth.Problem)
		}
		o.keys = append(o.keys, s)
		o.byKey[k] = s
	}
	treeOf := func(k state.Key) string { return cmp.Or(n.Module(k.Version), mainTree) }
	for _, k := range Keys(n) {
		add(k, treeOf(k), truthEvery)
	}
	for _, k := range VaultKeys(n) {
		add(k, vaultTree, vaultEvery)
	}
	for _, k := range ISOKeys(n) {
		add(k, treeOf(k), vaultEvery)
	}
	for _, k := range ExcludedKeys(n) {
		excluded[k] = true
		add(k, treeOf(k), vaultEvery)
	}
	// What a former process knew is known from here on.
	o.opts.Known = nil
}

// remember takes up what a former process has found out.
func (s *topic) remember(t state.Truth) {
	// Who withdraws a key is not asked here.
	t.Withdrawn = ""
	s.truth, s.given = t, t
	if s.excluded {
		s.truth = state.Truth{Absent: t.Absent}
	}
}

// phase is a moment within d that depends on the key alone, so that what is asked
// is spread evenly, and equally on each day.
func phase(k state.Key, d time.Duration) time.Duration {
	h := fnv.New64a()
	h.Write([]byte(k.String()))
	return time.Duration(h.Sum64() % uint64(d)).Truncate(time.Second)
}

// next is the moment of s after now.
func (s *topic) next(now time.Time) time.Time {
	t := now.Truncate(s.every).Add(phase(s.key, s.every))
	if !t.After(now) {
		t = t.Add(s.every)
	}
	return t
}

// first is when l is asked first: the vault, which is large and changes little,
// when it is its turn, or, if it is not known yet, soon.
func (l *look) first(now time.Time) time.Time {
	switch s := l.of; {
	case s.tree != vaultTree && !(s.excluded && s.truth.Absent):
		return now
	case s.truth.Newest() != nil || s.truth.Absent:
		return s.next(now)
	default:
		return now.Add(phase(s.key, vaultFirst))
	}
}

// Next returns when the next poll is due. It may be over.
func (o *Origin) Next() time.Time {
	o.mu.Lock()
	now := o.began.IsZero() || o.replace || o.heard || len(o.doubted) > 0
	o.mu.Unlock()
	if now {
		return time.Time{}
	}
	next := o.confirmed.Add(confirmEvery)
	if o.opts.Decisions != nil {
		next = earlier(next, o.decided.Add(decisionsEvery))
	}
	for _, s := range o.keys {
		for _, l := range s.looks {
			next = earlier(next, l.due)
		}
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Poll asks tier0 for what is due, and returns the truths that have changed and
// what is to be told. It takes as long as tier0 takes to answer, tens of seconds
// if it does not.
//
// One publication changes many keys, and whoever writes it may be half way. So
// when anything has changed, all keys of that tree are asked again, until nothing
// changes, with a pause of two seconds after each new generation: what comes of
// that is one event.
//
// Withdrawn is never set in what is returned: that is not Origin's to know. The
// error is that of ctx; then nothing is returned, and what was found out comes
// with the next poll.
func (o *Origin) Poll(ctx context.Context, now time.Time) (map[state.Key]state.Truth, []state.Event, error) {
	now = now.UTC()
	start := time.Now()
	if o.began.IsZero() {
		o.began, o.confirmed = now, now
		for _, s := range o.keys {
			for _, l := range s.looks {
				l.due = l.first(now)
			}
		}
	}
	o.listen(now)
	o.readDecisions(ctx, now)

	var due []*look
	for _, s := range o.keys {
		for _, l := range s.looks {
			if !l.due.After(now) {
				due = append(due, l)
			}
		}
	}
	asked := map[*look]bool{}
	for pass := 0; len(due) > 0 && pass < maxPasses; pass++ {
		if err := o.ask(ctx, due, now); err != nil {
			return nil, nil, err
		}
		adopted := len(o.published)
		topics := map[*topic]bool{}
		for _, l := range due {
			asked[l], topics[l.of] = true, true
		}
		serving := o.serving()
		news := map[string]bool{}
		for _, s := range o.keys {
			if (topics[s] || s.waits(serving)) && o.settle(s, serving, now) {
				news[s.tree] = true
			}
		}
		if due = o.again(news); len(o.published) > adopted {
			select {
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			case <-time.After(o.pause):
			}
		}
	}
	took := time.Since(start)
	for l := range asked {
		l.schedule(now.Add(took))
	}
	if len(o.published) > 0 {
		o.files.keepOnly(o.keys)
	}
	return o.changes(now), o.tell(now), nil
}

// listen takes up what others have said since the last poll.
func (o *Origin) listen(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.replace {
		o.replace = false
		o.arrange(o.network)
		for _, s := range o.keys {
			for _, l := range s.looks {
				if l.due.IsZero() {
					l.due = l.first(now)
				}
			}
		}
	}
	for _, k := range o.doubted {
		if s := o.byKey[k]; s != nil {
			s.askNow(now)
			s.doubted = true
		}
	}
	o.doubted = nil
	if o.heard {
		o.heard, o.saidAhead = false, true
		for _, s := range o.keys {
			is := o.ahead[s.key]
			if is && !s.ahead {
				s.askNow(now)
			}
			if !is {
				s.truth.Disputed = time.Time{}
			}
			s.ahead = is
		}
	}
}

// askNow makes the next look a whole one, and due.
func (s *topic) askNow(now time.Time) {
	for _, l := range s.looks {
		l.due, l.stamp = now, stamp{}
	}
}

// ask asks for all of looks, each tier0 for itself. What was asked when ctx ended
// counts as not asked.
func (o *Origin) ask(ctx context.Context, looks []*look, now time.Time) error {
	byTier0 := map[*tier0][]*look{}
	for _, l := range looks {
		byTier0[l.tier0] = append(byTier0[l.tier0], l)
	}
	var all sync.WaitGroup
	for _, looks := range byTier0 {
		all.Go(func() { askOne(ctx, looks, now) })
	}
	all.Wait()
	return ctx.Err()
}

// askOne asks one tier0. When its first answers do not come, the rest is not waited
// for: they share what was found.
func askOne(ctx context.Context, looks []*look, now time.Time) {
	var (
		mu     sync.Mutex // guards what follows
		whole  bool
		broken []reply
	)
	var g errgroup.Group
	g.SetLimit(perTier0)
	for _, l := range looks {
		g.Go(func() error {
			mu.Lock()
			if !whole && len(broken) >= perTier0 {
				l.become(broken[0], now)
				mu.Unlock()
				return nil
			}
			mu.Unlock()
			l.ask(ctx, now)
			mu.Lock()
			defer mu.Unlock()
			if l.reply.broken {
				broken = append(broken, l.reply)
			} else {
				whole = true
			}
			return nil
		})
	}
	g.Wait()
}

// again returns what is asked once more because there is news of the trees that
// are named: what is written to all the time as a whole, and of the rest what is
// in trouble.
func (o *Origin) again(news map[string]bool) (due []*look) {
	for _, s := range o.keys {
		if !news[s.tree] {
			continue
		}
		for _, l := range s.looks {
			if s.every == truthEvery || l.trouble != nil {
				due = append(due, l)
			}
		}
	}
	return due
}

// schedule says when l, which was asked now, is asked next.
func (l *look) schedule(now time.Time) {
	unanswered := l.of.excluded && l.reply.outcome != Served && l.reply.outcome != Missing
	if l.trouble == nil && !unanswered {
		l.tries, l.due = 0, l.of.next(now)
		return
	}
	wait := min(l.of.every, lastRetry)
	if l.tries < 16 { // beyond, the shift would overflow some day
		wait = min(wait, firstRetry<<l.tries)
	}
	l.tries++
	l.due = now.Add(wait)
}

// changes returns the truths that are not what Poll returned before.
func (o *Origin) changes(now time.Time) map[state.Key]state.Truth {
	all := now.Sub(o.confirmed) >= confirmEvery
	if all {
		o.confirmed = now
	}
	changed := map[state.Key]state.Truth{}
	numbers := OriginNumbers{}
	for _, s := range o.keys {
		if s.key.Repo == isos || s.excluded {
			if !sameTruth(&s.truth, &s.given) {
				changed[s.key], s.given = s.truth, s.truth
			}
			continue
		}
		if t := &s.truth; !sameTruth(t, &s.given) || (all || s.doubted) && !t.Confirmed.Equal(s.given.Confirmed) {
			changed[s.key], s.given = s.truth, s.truth
		}
		s.doubted = false
		if s.tree == vaultTree {
			continue
		}
		numbers.Keys++
		switch c := s.truth.Confirmed; {
		case s.truth.Absent:
			numbers.Absent++
		case s.truth.Newest() != nil && (numbers.Confirmed.IsZero() || c.Before(numbers.Confirmed)):
			numbers.Confirmed = c
		}
		if s.truth.Problem != nil {
			numbers.Troubled++
		}
		if !s.truth.Disputed.IsZero() {
			numbers.Disputed++
		}
	}
	o.count(func(n *OriginNumbers) {
		numbers.Publications, numbers.Generations, numbers.Troubles = n.Publications, n.Generations, n.Troubles
		*n = numbers
	})
	return changed
}

func (o *Origin) count(change func(*OriginNumbers)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change(&o.numbers)
}

// A Serving is what one tier0 serves of one repository at this moment.
type Serving struct {
	Tier0 string // its base

	// Generation that is served; nil if there is none that can be read. FirstSeen
	// is not set.
	Generation *state.Generation

	// Newest: it is what is believed to be the newest. Follows: it would be
	// believed as it is. Whole: everything that it names is there; only what
	// Follows is looked at.
	Newest, Follows, Whole bool

	// Problem is what is wrong with it. Nil: nothing.
	Problem *state.Problem
}

// Look asks each tier0 for one repository now, and changes nothing of what is
// known. It is for a person who wants to decide, and not for a process that
// polls. A generation that an administrator wants to accept follows.
func (o *Origin) Look(ctx context.Context, k state.Key, accepted *state.Decision) ([]Serving, error) {
	s := o.byKey[k]
	if s == nil || k.Repo == isos || s.excluded {
		return nil, fmt.Errorf("origin: %s is not a repository that tier0 is asked for", k)
	}
	now := time.Now()
	asked := &topic{key: s.key, tree: s.tree, every: s.every, truth: s.truth, accept: accepted}
	var all []Serving
	for _, l := range s.looks {
		l := &look{of: asked, tier0: l.tier0, path: l.path}
		l.ask(ctx, now)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		one := Serving{Tier0: l.tier0.base}
		if l.sight != nil {
			g := l.sight.generation
			g.FirstSeen = time.Time{}
			one.Generation = &g
			one.Newest = standingOf(&asked.truth, &g) == isNewest
			one.Follows, one.Whole = asked.wants(&g), l.sight.whole
		}
		if f := l.judge(&asked.truth, false, servesSome); f != nil {
			one.Problem = &state.Problem{Reason: f.reason, Remedy: f.remedy, Since: now, Evidence: f.evidence}
		}
		all = append(all, one)
	}
	return all, nil
}

// Latest returns what of the generations that follow is the last one, nil if none
// does.
func Latest(seen []Serving) *state.Generation {
	var latest *state.Generation
	for i := range seen {
		g := seen[i].Generation
		if seen[i].Follows && (latest == nil || compareRevisions(g.Revision, g.Timestamp, latest.Revision, latest.Timestamp) > 0) {
			latest = g
		}
	}
	return latest
}
