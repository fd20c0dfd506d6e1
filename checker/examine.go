package checker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"meridian/checker/state"
	"meridian/internal/fetch"
	"meridian/schema"
)

// An Examination is everything that can be asked of one mirror, asked at once:
// what an operator wants to know before the mirror is in a network. It remembers
// nothing and forgives nothing.
type Examination struct {
	Observation *Observation
	Took        time.Duration
	Checks      []Check
}

// A Check is one thing that was looked at.
type Check struct {
	// Group is "ways", "markers", "repositories", "images" or "files", and Name is
	// what it is about: "https", "IPv6", "TIME", "9.8/baseos/x86_64".
	Group, Name string

	Result Result

	// Text is what was seen, one sentence without a full stop.
	Text string

	// Problem says more of a Warning and of what Failed: what to do, and the request
	// that shows it.
	Problem *state.Problem
}

// A Result is what came of a check.
type Result string

// The results. What is Skipped could not be looked at, and says nothing of the
// mirror.
const (
	Passed  Result = "ok"
	Warning Result = "warning"
	Failed  Result = "failed"
	Skipped Result = "skipped"
)

const (
	// examineBudget is what a host takes in one burst at any time.
	examineBudget = hostBurst

	// examineSample is how many repositories have files compared.
	examineSample = 4
)

// Examine asks m, a mirror of n, everything. truth is what tier0 serves, by
// [ReadTruth] or from a store; nil if nobody knows, and then m is compared with
// nothing but itself.
func Examine(ctx context.Context, p *Prober, n *schema.Network, m *schema.Mirror, truth map[state.Key]state.Truth) *Examination {
	plan := Plan{
		Network: n, Schemes: true, Families: true, Time: true,
		Own: true, Sample: examineSample, Budget: examineBudget,
	}
	newest := func(k state.Key) (sum state.Hash256) {
		t := truth[k]
		if g := t.Newest(); g != nil {
			sum = g.SHA256
		}
		return sum
	}
	for _, k := range KeysOf(n, m) {
		plan.Keys = append(plan.Keys, KeyPlan{Key: k, Newest: newest(k), Confirm: len(plan.Keys) == 0})
	}
	for _, k := range ISOKeysOf(n, m) {
		plan.ISOs = append(plan.ISOs, KeyPlan{Key: k, Newest: newest(k)})
	}
	began := time.Now()
	o := p.Visit(ctx, m, plan)
	e := &examiner{o: o, n: n, m: m, truth: truth}
	e.look()
	return &Examination{Observation: o, Took: time.Since(began), Checks: e.checks}
}

// ReadTruth asks tier0 what it serves now of keys, repositories and sets of
// images: one generation of each. A key that it does not have is Absent, and one
// of a tree that no tier0 is named for is not in the result; nor is one that could
// not be read, which is said in the error. Of agent count Version, ContactURL,
// Vantage, and RootCAs, which are those that tier0 is believed with.
func ReadTruth(ctx context.Context, n *schema.Network, tier0s Origins, keys []state.Key, agent ProbeOptions) (map[state.Key]state.Truth, error) {
	client := fetch.New(fetch.Options{
		AllowPrivate: true, // an administrator has said where it is
		Timeout:      tier0Timeout, MinRate: minRate, UserAgent: userAgent(agent.Version, agent.ContactURL),
		RootCAs: agent.RootCAs,
	})
	defer client.CloseIdleConnections()
	var sources []*tier0
	for tree, bases := range tier0s {
		if err := checkTree(n, tree); err != nil {
			return nil, err
		}
		for _, base := range bases {
			t, err := newTier0(tree, base, client, agent.Vantage)
			if err != nil {
				return nil, fmt.Errorf("origin: %w", err)
			}
			sources = append(sources, t)
		}
	}
	var (
		mu    sync.Mutex
		truth = map[state.Key]state.Truth{}
		errs  []error
		g     errgroup.Group
	)
	g.SetLimit(4)
	for _, k := range keys {
		tree := cmp.Or(n.Module(k.Version), mainTree)
		i := slices.IndexFunc(sources, func(t *tier0) bool { return t.tree == tree })
		if i < 0 {
			continue
		}
		g.Go(func() error {
			t, err := truthOf(ctx, sources[i], n, k)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("%v at %s: %w", k, sources[i].base, err))
			} else {
				truth[k] = t
			}
			return nil
		})
	}
	g.Wait()
	return truth, errors.Join(errs...)
}

// truthOf reads one key.
func truthOf(ctx context.Context, t *tier0, n *schema.Network, k state.Key) (state.Truth, error) {
	path := RepoURL("", n, k) + "repodata/repomd.xml"
	if k.Repo == isos {
		path = RepoURL("", n, k) + checksumFile
	}
	r := t.read(ctx, path, stamp{})
	switch {
	case r.outcome == Missing:
		return state.Truth{Absent: true}, nil
	case r.outcome != Served:
		return state.Truth{}, r.err
	}
	now := time.Now()
	g, _, err := readGeneration(r.body, now)
	if k.Repo == isos {
		g, err = readImageList(r.body, now)
	}
	if err != nil {
		return state.Truth{}, err
	}
	if made := time.Unix(g.Timestamp, 0); g.Timestamp > 0 && made.Before(now) {
		g.FirstSeen = made // it cannot have been published before
	}
	return state.Truth{Generations: []state.Generation{g}, Confirmed: now}, nil
}

// An examiner makes checks out of an observation. It asks nobody.
type examiner struct {
	o      *Observation
	n      *schema.Network
	m      *schema.Mirror
	truth  map[state.Key]state.Truth
	checks []Check
}

func (e *examiner) add(group, name string, r Result, text string, p *state.Problem) {
	if p != nil {
		said := *p
		said.Remedy = strings.TrimSuffix(strings.TrimSuffix(p.Remedy, itselfAgain), " ")
		said.Since = time.Time{}
		text, p = cmp.Or(text, p.Reason), &said
	}
	e.checks = append(e.checks, Check{group, name, r, text, p})
}

func (e *examiner) pass(group, name, format string, args ...any) {
	e.add(group, name, Passed, fmt.Sprintf(format, args...), nil)
}

func (e *examiner) skip(group, name, why string) { e.add(group, name, Skipped, why, nil) }

// look makes all checks, in the order in which people fix things.
func (e *examiner) look() {
	if e.o.Unrouted {
		e.add("ways", e.m.Name, Warning, "", &state.Problem{
			Reason: "this host has no way to any address of the mirror, so nothing was looked at",
			Remedy: "Run it on a host that has: for a mirror with IPv6 only, on one with IPv6.",
		})
		return
	}
	if e.deaf() {
		e.add("ways", e.m.Name, Failed, "", silence(e.o))
		return
	}
	e.ways()
	e.markers()
	e.repositories()
	e.images()
	e.files()
}

// deaf tells whether the mirror has answered nothing.
func (e *examiner) deaf() bool {
	for name, a := range e.o.Schemes {
		if name != "rsync" && (a.OK || a.Insecure || a.Evidence != nil && a.Evidence.Status != 0) {
			return false
		}
	}
	for _, seen := range e.o.Keys {
		if seen.Outcome != Unreachable {
			return false
		}
	}
	return true
}

func (e *examiner) ways() {
	for _, name := range []string{"http", "https", "rsync"} {
		a, tried := e.o.Schemes[name]
		switch {
		case !tried:
		case a.Untested:
			e.skip("ways", name, "it cannot be tried: rsync is not installed here, or there is no way from here to its address")
		case !a.OK:
			e.add("ways", name, Failed, "", brokenScheme(name, a))
		case name == "https":
			s := &state.Scheme{TLSBegins: a.TLSBegins, TLSExpires: a.TLSExpires}
			if tlsWarning(s, e.o.At) > 0 {
				e.add("ways", name, Warning, "", &state.Problem{Reason: endingCertificate(s), Remedy: renewCertificate})
				break
			}
			e.pass("ways", name, "works; the certificate ends in %d days", int(a.TLSExpires.Sub(e.o.At).Hours()/24))
		case name == "rsync":
			e.pass("ways", name, "the module is there")
		default:
			e.pass("ways", name, "works")
		}
	}
	for _, f := range []struct {
		family Family
		name   string
	}{{IPv4, "IPv4"}, {IPv6, "IPv6"}} {
		a, tried := e.o.Families[f.family]
		switch {
		case !tried:
			e.skip("ways", f.name, "the host has no such address")
		case a.Untested:
			e.skip("ways", f.name, "there is no way from here to such an address")
		case a.OK:
			e.pass("ways", f.name, "answers")
		case !e.o.Schemes["http"].OK && !e.o.Schemes["https"].OK:
			e.skip("ways", f.name, "it does not show while neither http nor https works")
		case a.Evidence != nil && a.Evidence.Status != 0:
			e.add("ways", f.name, Failed, "", &state.Problem{
				Reason:   "over " + f.name + " the mirror serves something else",
				Remedy:   "Make the web server answer alike on all of its addresses.",
				Evidence: a.Evidence,
			})
		default:
			p := problem(deafFamily(f.family), a.Evidence)
			p.Remedy = cmp.Or(p.Remedy, "Make the web server answer on it, or take the A record away.")
			e.add("ways", f.name, Failed, "", p)
		}
	}
	if host, _ := otherHost(e.o); host != "" {
		e.add("ways", "redirects", Warning, "", problem(redirected(host), e.evidence()))
	}
	if differ, _ := apart(e.o); differ {
		e.add("ways", "same files", Warning, "", problem(waysApart, e.evidence()))
	}
}

// evidence returns the request that shows something odd about a way that works.
func (e *examiner) evidence() *state.Evidence {
	for _, name := range []string{"http", "https"} {
		if a := e.o.Schemes[name]; a.OK && a.Evidence != nil {
			return a.Evidence
		}
	}
	for _, f := range []Family{IPv4, IPv6} {
		if a := e.o.Families[f]; a.OK && a.Evidence != nil {
			return a.Evidence
		}
	}
	return nil
}

func (e *examiner) markers() {
	const remedy = "Sync the root of the tree too, last of all: TIME says when what the mirror has was published."
	o := e.o
	age := o.At.Sub(o.Time)
	switch {
	case o.TimeEvidence != nil:
		e.add("markers", timeFile, Warning, "", &state.Problem{Reason: "TIME cannot be read", Remedy: remedy, Evidence: o.TimeEvidence})
	case o.Time.IsZero():
		e.skip("markers", timeFile, "it was not asked for")
	case age < -clockSlack:
		e.add("markers", timeFile, Warning, "", &state.Problem{Reason: futureTime(o.Time), Remedy: "See where the file is from."})
	case age > e.n.AllowedOutdate:
		e.add("markers", timeFile, Warning, "", &state.Problem{
			Reason: fmt.Sprintf("TIME is from %s, %s ago; a mirror may be %s behind", o.Time.Format("2 January 2006, 15:04 UTC"), schema.FormatDuration(age.Truncate(time.Minute)), short(e.n.AllowedOutdate)),
			Remedy: "See whether the mirror syncs, and whether anything was published since.",
		})
	default:
		e.pass("markers", timeFile, "%s, %s ago", o.Time.Format("2 January 2006, 15:04 UTC"), schema.FormatDuration(age.Truncate(time.Minute)))
	}
	if o.Clock.Abs() > clockSlack {
		e.add("markers", "clock", Warning, "", &state.Problem{Reason: wrongClock, Remedy: "Set the clock, by NTP for example."})
	}
}

func (e *examiner) repositories() {
	for _, k := range KeysOf(e.n, e.m) {
		e.repository(k)
	}
}

func (e *examiner) repository(k state.Key) {
	const group = "repositories"
	name := k.String()
	seen, asked := e.o.Keys[k]
	t, known := e.truth[k]
	switch {
	case known && t.Absent && (!asked || seen.Outcome == Missing):
		// The network file promises what tier0 does not have.
		e.skip(group, name, "tier0 does not have it")
	case !asked:
		e.skip(group, name, "it was not asked for: too much has gone wrong before, or taken too long")
	case seen.Outcome == Missing:
		p := &state.Problem{
			Reason:   fmt.Sprintf("%s: the mirror does not have it%s", k, byStatus(seen.Evidence)),
			Remedy:   "Sync it too; if the mirror is not to have it, write so below carries: in its file.",
			Evidence: seen.Evidence,
		}
		result := Failed
		if !known {
			result = Warning
			p.Remedy += " Whether tier0 has it is not known here."
		}
		e.add(group, name, result, "", p)
	case seen.Outcome == Garbage:
		e.add(group, name, Failed, "", garbage(k, seen.Evidence))
	case seen.Outcome != Served:
		e.add(group, name, Failed, "", refusal(k, "repomd.xml", seen.Outcome, seen.Evidence))
	case seen.Again != nil && seen.Again.Outcome >= Garbage && seen.Again.SHA256 != seen.SHA256:
		e.add(group, name, Failed, "", twoAnswers(k, &seen))
	case len(seen.FilesWrong) > 0:
		e.wrongFiles(group, k, seen.FilesWrong)
	case t.Newest() == nil:
		e.pass(group, name, "revision %s, made on %s", cmp.Or(seen.Revision, "without a number"), time.Unix(seen.Timestamp, 0).UTC().Format("2 January 2006, 15:04 UTC"))
	default:
		e.generation(group, k, &seen, &t)
	}
}

func (e *examiner) wrongFiles(group string, k state.Key, wrong []FileSeen) {
	p := wrongFile(k, &wrong[0])
	if n := len(wrong) - 1; n > 0 {
		p.Reason += fmt.Sprintf(", and %s", count(n, "more file is wrong", "more files are wrong"))
	}
	e.add(group, k.String(), Failed, "", p)
}

// generation says where what is served stands among what tier0 has published.
func (e *examiner) generation(group string, k state.Key, seen *KeySeen, t *state.Truth) {
	place := locate(t, seen)
	switch {
	case place.forged:
		e.add(group, k.String(), Failed, "", forged(k, seen))
	case place.at == 0:
		e.pass(group, k.String(), "the newest, revision %s", seen.Revision)
	case place.at < 0:
		e.add(group, k.String(), Warning, "", unpublished(k, seen, t))
	case e.o.At.Sub(place.superseded) > e.n.AllowedOutdate:
		e.add(group, k.String(), Failed, "", outdated(k, e.n.AllowedOutdate, seen.Evidence))
	default:
		e.add(group, k.String(), Warning, "", &state.Problem{
			Reason:   fmt.Sprintf("%s: tier0 has a newer repomd.xml, and has had it for less than %s", k, short(e.n.AllowedOutdate)),
			Remedy:   "Nothing has to be done if the next sync brings it.",
			Evidence: seen.Evidence,
		})
	}
}

func (e *examiner) images() {
	const group = "images"
	for _, k := range ISOKeysOf(e.n, e.m) {
		seen, asked := e.o.Keys[k]
		t, known := e.truth[k]
		newest := t.Newest()
		switch {
		case t.Absent && (!asked || seen.Outcome == Missing):
			e.skip(group, k.String(), "tier0 does not have them")
		case !asked:
			e.skip(group, k.String(), "they were not asked for: too much has gone wrong before, or taken too long")
		case seen.Outcome == Missing && !known:
			e.skip(group, k.String(), "there are none, and whether tier0 has them is not known here")
		case seen.Outcome == Missing:
			e.add(group, k.String(), Failed, "", &state.Problem{
				Reason:   fmt.Sprintf("%s: the mirror has no %s there%s", k, checksumFile, byStatus(seen.Evidence)),
				Remedy:   "Sync the images too; if the mirror is not to have any, write isos: false below carries: in its file.",
				Evidence: seen.Evidence,
			})
		case seen.Outcome == Garbage:
			e.add(group, k.String(), Failed, "", garbage(k, seen.Evidence))
		case seen.Outcome != Served:
			e.add(group, k.String(), Failed, "", refusal(k, checksumFile, seen.Outcome, seen.Evidence))
		case len(seen.FilesWrong) > 0:
			e.wrongFiles(group, k, seen.FilesWrong)
		case newest != nil && newest.SHA256 != seen.SHA256:
			e.add(group, k.String(), Failed, "", &state.Problem{
				Reason:   fmt.Sprintf("%s: %s is not that of tier0", k, checksumFile),
				Remedy:   "Sync the directory of images again.",
				Evidence: seen.Evidence,
			})
		default:
			e.pass(group, k.String(), "%s", count(seen.FilesAsked, "image is there", "images are there"))
		}
	}
}

func (e *examiner) files() {
	compared := 0
	for i := range e.o.Files {
		f := &e.o.Files[i]
		switch {
		case f.Outcome == Served && f.Wrong == "":
			compared++
		case f.Outcome == Unreachable || f.Outcome == Refused:
			e.add("files", f.Key.String(), Failed, "", refusal(f.Key, f.Path, f.Outcome, f.Evidence))
		default:
			e.add("files", f.Key.String(), Failed, "", wrongFile(f.Key, f))
		}
	}
	if compared > 0 {
		e.pass("files", "some at random", "%s as repodata says", count(compared, "file is", "files are"))
	}
}

// problem is what a warning of a status says in one sentence: what is wrong; what
// to do.
func problem(warning string, e *state.Evidence) *state.Problem {
	reason, remedy, _ := strings.Cut(warning, "; ")
	if remedy != "" {
		remedy = strings.ToUpper(remedy[:1]) + remedy[1:] + "."
	}
	return &state.Problem{Reason: reason, Remedy: remedy, Evidence: e}
}
