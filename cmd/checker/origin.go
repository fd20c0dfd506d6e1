package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"meridian/checker"
	"meridian/checker/state"
	"meridian/cmd/internal/daemon"
	"meridian/schema"
)

const originUsage = `usage:
    checker origin -config checker.yml [-format text|json] [KEY...]
    checker origin -config checker.yml expire KEY...
    checker origin -config checker.yml accept KEY...

origin prints what tier0 was seen to publish of each repository, and what of it
is not believed and why. KEY is VERSION/REPO/ARCH; * stands for anything, and so
does a part that is left out.

    expire   after a security push: every generation but the newest at tier0 is
             handed out only where nothing else is left, and metalinks do not
             accept it any more
    accept   believe what tier0 serves now, though its revision is not higher

They ask tier0 themselves, and write down which file they have seen; a checker
that runs, here or elsewhere, acts on it within seconds. The exit status is 1
when one of KEY cannot be decided.

    checker origin -config checker.yml expire '9/*/x86_64'
`

// looksAtOnce is how many repositories an administrator's command asks for at a
// time.
const looksAtOnce = 4

func origin(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("origin", flag.ContinueOnError)
	config := flags.String("config", "", "")
	format := flags.String("format", "text", "")
	args, err := parseArgs(flags, args, originUsage)
	if err != nil {
		return err
	}
	if *format != "text" && *format != "json" {
		return daemon.Misuse("unknown format %q; write text or json", *format)
	}
	verb := ""
	if len(args) > 0 && slices.Contains([]string{state.Expire, state.Accept}, args[0]) {
		verb, args = args[0], args[1:]
	}
	if verb != "" && len(args) == 0 {
		return daemon.Misuse("%s of what? write VERSION/REPO/ARCH, such as 9.8/baseos/x86_64", verb)
	}
	c, err := openTruth(ctx, *config)
	if err != nil {
		return err
	}
	keys, err := c.match(args)
	if err != nil {
		return err
	}
	switch {
	case verb == "" && *format == "json":
		return c.printJSON(env.Stdout, keys)
	case verb == "":
		return c.print(env.Stdout, keys)
	}
	cas, err := checker.ReadCAs(c.settings.OriginCAFile)
	if err != nil {
		return fmt.Errorf("origin_ca_file: %w", err)
	}
	o, err := checker.NewOrigin(checker.OriginOptions{
		Network: c.network, Tier0s: c.settings.Origin, Known: c.snap.Truth,
		Version: daemon.Version(), ContactURL: c.settings.ContactURL, Vantage: c.settings.Vantage, RootCAs: cas,
	})
	if err != nil {
		return err
	}
	defer o.Close()
	c.origin, c.by, c.at = o, who(env), time.Now().UTC().Truncate(time.Second)
	decide := c.expire
	if verb == state.Accept {
		decide = c.accept
	}
	outcomes, err := c.each(ctx, keys, decide)
	if err != nil {
		return err
	}
	return c.keep(ctx, env, outcomes, *format == "json")
}

// truth is what the commands about the origin have in front of them.
type truth struct {
	settings checker.Settings
	network  *schema.Network
	store    *state.Writer
	snap     *state.Snapshot // never nil
	made     []state.Decision

	// To decide.
	origin *checker.Origin
	by     string
	at     time.Time
}

func openTruth(ctx context.Context, config string) (*truth, error) {
	s, n, err := readSettings(config)
	if err != nil {
		return nil, err
	}
	store, err := state.OpenWriter(s.State, state.Options{Vantage: s.Vantage})
	if err != nil {
		return nil, err
	}
	c := &truth{settings: s, network: n, store: store}
	if c.snap, err = store.Load(ctx); errors.Is(err, state.ErrNoSnapshot) {
		c.snap, err = &state.Snapshot{}, nil
	}
	if err != nil {
		return nil, err
	}
	c.made, err = store.Decisions(ctx)
	return c, err
}

// who is the person at the terminal.
func who(env daemon.Env) string {
	name := "somebody"
	if env.Getenv != nil {
		name = cmp.Or(env.Getenv("SUDO_USER"), env.Getenv("USER"), name)
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// match returns the repositories that patterns stand for, in the order of the
// network; without a pattern all of them.
func (c *truth) match(patterns []string) ([]state.Key, error) {
	all := append(checker.Keys(c.network), checker.VaultKeys(c.network)...)
	if len(patterns) == 0 {
		return all, nil
	}
	chosen := map[state.Key]bool{}
	for _, p := range patterns {
		parts := strings.Split(strings.TrimSuffix(p, "/"), "/")
		for len(parts) < 3 {
			parts = append(parts, "*")
		}
		if v, ok := c.network.Resolve(parts[0]); ok {
			parts[0] = string(v)
		}
		found := false
		for _, k := range all {
			ok, err := path.Match(strings.Join(parts, "/"), k.String())
			if err != nil {
				return nil, daemon.Misuse("%q is no pattern; write VERSION/REPO/ARCH, with * for any", p)
			}
			if ok {
				chosen[k], found = true, true
			}
		}
		if !found {
			return nil, daemon.Misuse("the network has no repository %q; write VERSION/REPO/ARCH, such as %s", p, all[0])
		}
	}
	return slices.DeleteFunc(all, func(k state.Key) bool { return !chosen[k] }), nil
}

// print writes a line for each generation, and below what is wrong.
func (c *truth) print(w io.Writer, keys []state.Key) error {
	now := time.Now()
	if c.snap.Taken.IsZero() {
		fmt.Fprintf(w, "%s: nothing was found out yet; checker run does\n", c.settings.State)
	} else {
		fmt.Fprintf(w, "as of %s, %s ago\n\n", stamp(c.snap.Taken), age(now, c.snap.Taken))
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "REPOSITORY\tREVISION\tSEEN\tAGE\tSIZE\tSHA256\t")
	for _, k := range keys {
		t, ok := c.snap.Truth[k]
		switch {
		case !ok:
			continue
		case t.Absent:
			fmt.Fprintf(table, "%s\t-\t-\t-\t-\t-\tnot at the origin\n", k)
		}
		for i := range t.Generations {
			g := &t.Generations[i]
			note := "newest"
			if i > 0 {
				note = "superseded " + age(now, t.Superseded(g.ID())) + " ago"
			}
			if g.Expired {
				note += ", expired"
			}
			if i == 0 && t.Withdrawn != "" {
				note += fmt.Sprintf(", withdrawn from everybody: %q", t.Withdrawn)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", k, plain(g.Revision), stamp(g.FirstSeen), age(now, g.FirstSeen), g.Size, g.ID(), note)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, c.problems(keys, now)+c.waiting(keys))
	return err
}

// problems returns what is wrong with the truth of keys, the same problem once.
func (c *truth) problems(keys []state.Key, now time.Time) string {
	type group struct {
		problem *state.Problem
		keys    []string
	}
	var groups []*group
	index := map[string]*group{}
	add := func(k state.Key, p *state.Problem) {
		g := index[p.Reason]
		if g == nil {
			g = &group{problem: p}
			index[p.Reason] = g
			groups = append(groups, g)
		}
		g.keys = append(g.keys, k.String())
	}
	for _, k := range keys {
		t := c.snap.Truth[k]
		if t.Problem != nil {
			add(k, t.Problem)
		}
		if !t.Disputed.IsZero() {
			add(k, &state.Problem{
				Reason: "mirrors serve something newer, and the origin cannot be asked; metalinks go without hashes after 15 minutes",
				Remedy: "see to it that the origin answers", Since: t.Disputed,
			})
		}
	}
	var b strings.Builder
	for _, g := range groups {
		fmt.Fprintf(&b, "\n%s\n    %s\n    since %s, %s ago\n    %s\n", strings.Join(g.keys, " "),
			g.problem.Reason, stamp(g.problem.Since), age(now, g.problem.Since), g.problem.Remedy)
		if e := g.problem.Evidence; e != nil {
			fmt.Fprintf(&b, "    %s\n", cmp.Or(e.Curl(), e.URL))
			if e.Error != "" {
				fmt.Fprintf(&b, "    %s\n", e.Error)
			}
		}
	}
	return b.String()
}

// waiting returns the decisions that have not taken effect.
func (c *truth) waiting(keys []state.Key) string {
	var b strings.Builder
	for _, k := range keys {
		t := c.snap.Truth[k]
		n := t.Newest()
		if n == nil {
			continue
		}
		if d := decided(c.made, k, state.Expire); d.Generation == n.SHA256 {
			fmt.Fprintf(&b, "\n%s\n    %s has withdrawn revision %s, at %s: as soon as something follows it\n", k, d.By, plain(n.Revision), stamp(d.Time))
		}
		if d := decided(c.made, k, state.Accept); d.Verb != "" && d.Instead == n.SHA256 {
			fmt.Fprintf(&b, "\n%s\n    %s accepts %s, at %s: that was not seen whole since\n", k, d.By, short(d.Generation), stamp(d.Time))
		}
	}
	return b.String()
}

func decided(all []state.Decision, k state.Key, verb string) state.Decision {
	for _, d := range all {
		if d.Key == k && d.Verb == verb {
			return d
		}
	}
	return state.Decision{}
}

// jsonTruth is one element of -format json, which other programs read.
type jsonTruth struct {
	Key state.Key `json:"key"`
	state.Truth
	Decisions []state.Decision `json:"decisions,omitempty"`
}

func (c *truth) printJSON(w io.Writer, keys []state.Key) error {
	list := []jsonTruth{}
	for _, k := range keys {
		t, ok := c.snap.Truth[k]
		one := jsonTruth{Key: k, Truth: t}
		for _, d := range c.made {
			if d.Key == k {
				one.Decisions = append(one.Decisions, d)
			}
		}
		if ok || one.Decisions != nil {
			list = append(list, one)
		}
	}
	return writeJSON(w, list)
}

func writeJSON(w io.Writer, v any) error {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(v)
}

// An outcome is what came of deciding about one repository.
type outcome struct {
	Key      state.Key       `json:"key"`
	Decision *state.Decision `json:"decision,omitempty"` // nil: there was nothing to decide, or it cannot be
	Text     string          `json:"text"`
	Refused  bool            `json:"refused,omitempty"`
}

// each asks tier0 for every one of keys, and decides.
func (c *truth) each(ctx context.Context, keys []state.Key, decide func(context.Context, state.Key, []checker.Serving) (outcome, error)) ([]outcome, error) {
	all := make([]outcome, len(keys))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(looksAtOnce)
	for i, k := range keys {
		g.Go(func() error {
			seen, err := c.origin.Look(ctx, k, nil)
			if err != nil {
				return err
			}
			all[i], err = decide(ctx, k, seen)
			all[i].Key = k
			return err
		})
	}
	return all, g.Wait()
}

// expire decides that every generation of k but the newest is withdrawn: the
// newest at tier0, whether the daemon has seen it or not.
func (c *truth) expire(_ context.Context, k state.Key, seen []checker.Serving) (outcome, error) {
	t := c.snap.Truth[k]
	g := t.Generations
	next := checker.Latest(seen)
	switch {
	case len(g) == 0:
		return outcome{Text: "nothing that was published is known", Refused: true}, nil
	case next != nil:
		text := fmt.Sprintf("revision %s, which was published just now, stays; as soon as the checker has seen it whole, %d older withdrawn", plain(next.Revision), len(g))
		return outcome{Decision: c.decision(state.Expire, k, &g[0]), Text: text}, nil
	case len(g) == 1:
		return outcome{Text: fmt.Sprintf("has no older generation than revision %s", plain(g[0].Revision))}, nil
	}
	text := fmt.Sprintf("revision %s stays, first seen %s; %d older withdrawn", plain(g[0].Revision), stamp(g[0].FirstSeen), len(g)-1)
	if !slices.ContainsFunc(seen, func(s checker.Serving) bool { return s.Generation != nil }) {
		text += "; the origin does not answer, so it may have a newer one by now"
	}
	return outcome{Decision: c.decision(state.Expire, k, &g[1]), Text: text}, nil
}

// accept decides that what tier0 serves now is believed.
func (c *truth) accept(ctx context.Context, k state.Key, seen []checker.Serving) (outcome, error) {
	refuse := func(why string) (outcome, error) {
		return outcome{Text: "cannot be accepted: " + why, Refused: true}, nil
	}
	var g *state.Generation
	for i := range seen {
		switch s := &seen[i]; {
		case s.Newest:
			return outcome{Text: fmt.Sprintf("%s serves revision %s, which is believed", s.Tier0, plain(s.Generation.Revision))}, nil
		case s.Generation == nil && s.Problem == nil:
			return refuse(s.Tier0 + " does not have it")
		case s.Generation == nil:
			return refuse(s.Problem.Reason)
		case s.Follows && s.Whole:
			return outcome{Text: fmt.Sprintf("revision %s at %s follows what is believed; nothing needs to be accepted", plain(s.Generation.Revision), s.Tier0)}, nil
		case s.Follows:
			return refuse(s.Problem.Reason + "; it is believed as soon as it is complete")
		case g != nil && g.SHA256 != s.Generation.SHA256:
			return refuse("the tier0s serve different files; make them equal first")
		default:
			g = s.Generation
		}
	}
	if g == nil {
		return refuse("no tier0 is named for it")
	}
	d := c.decision(state.Accept, k, g)
	t := c.snap.Truth[k]
	if n := t.Newest(); n != nil {
		d.Instead = n.SHA256
	}
	// What it names must be there all the same.
	again, err := c.origin.Look(ctx, k, d)
	if err != nil {
		return outcome{}, err
	}
	text := fmt.Sprintf("revision %s is accepted in place of %s", plain(g.Revision), plain(t.Newest().Revision))
	if i := slices.IndexFunc(again, func(s checker.Serving) bool { return s.Whole }); i < 0 {
		text += "; as soon as it is complete"
		if p := again[0].Problem; p != nil {
			text += ": " + p.Reason
		}
	}
	return outcome{Decision: d, Text: text}, nil
}

func (c *truth) decision(verb string, k state.Key, g *state.Generation) *state.Decision {
	return &state.Decision{Time: c.at, By: c.by, Verb: verb, Key: k, Generation: g.SHA256}
}

// keep writes decisions down, all or none, and says what came of it.
func (c *truth) keep(ctx context.Context, env daemon.Env, outcomes []outcome, asJSON bool) error {
	var decisions []state.Decision
	refused := false
	for _, out := range outcomes {
		refused = refused || out.Refused
		if out.Decision != nil {
			decisions = append(decisions, *out.Decision)
		}
	}
	if len(decisions) > 0 {
		if err := c.store.Decide(ctx, decisions); err != nil {
			return err
		}
	}
	if asJSON {
		if err := writeJSON(env.Stdout, outcomes); err != nil {
			return err
		}
	} else {
		for _, out := range outcomes {
			fmt.Fprintf(env.Stdout, "%s: %s\n", out.Key, out.Text)
		}
		if len(decisions) > 0 {
			fmt.Fprintln(env.Stdout, "a checker that runs acts on it within seconds; another one when it starts")
		}
	}
	if refused {
		return daemon.Exit(1)
	}
	return nil
}

// stamp writes a moment for people, in UTC as in every log.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// age writes how long ago something was, in its two largest units.
func age(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

func short(h state.Hash256) string { return state.GenerationID(h[:8]).String() }

// plain keeps a stranger's words on one line of the screen.
func plain(s string) string {
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	if s == "" {
		return "-"
	}
	return s
}
