package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"meridian/checker"
	"meridian/checker/state"
	"meridian/cmd/internal/daemon"
	"meridian/schema"
)

const probeUsage = `usage:
    checker probe [-network FILE] [-origin URL|DIR | -config checker.yml]
                  [-format text|json] FILE...

probe reads files of mirrors.d as lint does, and visits their mirrors, once:
each way to them, certificate, repositories, images, some files. Each trouble is
told with the request that shows it, as a line to paste, and with what to do.
The exit status is 1 when something failed: the network should wait with the
mirror.

    -network FILE   says what a mirror has (default network.yml)
    -origin URL     tier0, as a URL or a directory: what the mirror has is
                    compared with it. Without, only with what the mirror says of
                    itself.
    -config FILE    the settings of a checker, which name both
    -format text    for people (default); json has every check and all evidence
    -allow-private-addresses   for mirrors of a test network

    checker probe -origin https://tier0.example.org/ mirror.example.org.yml
`

// reports are the ways to print what was found, of all files of one run at once.
var reports = map[string]func(io.Writer, []probed) error{
	"text": printProbed,
	"json": printProbedJSON,
}

// A probed is one mirror file, and what was found out about it.
type probed struct {
	file     string
	problems []schema.Problem // of the file itself

	// mirror is nil when the file cannot be read; found is nil then too.
	mirror *schema.Mirror
	found  *checker.Examination
}

// failed tells whether a network should not take the mirror as it is.
func (p *probed) failed() bool {
	return slices.ContainsFunc(p.problems, isError) || p.found == nil ||
		slices.ContainsFunc(p.found.Checks, func(c checker.Check) bool { return c.Result == checker.Failed })
}

func probe(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("probe", flag.ContinueOnError)
	config := flags.String("config", "", "")
	networkFile := flags.String("network", "", "")
	tier0 := flags.String("origin", "", "")
	format := flags.String("format", "text", "")
	private := flags.Bool("allow-private-addresses", false, "")
	files, err := parseArgs(flags, args, probeUsage)
	if err != nil {
		return err
	}
	print, ok := reports[*format]
	if !ok {
		return daemon.Misuse("unknown format %q; write text or json", *format)
	}
	if len(files) == 0 {
		return daemon.Misuse("which mirrors? name their files: checker probe mirrors.d/mirror.example.org.yml")
	}
	s, n, err := probeSettings(*config, *networkFile, *tier0)
	if err != nil {
		return err
	}

	progress := &asked{to: env.Stderr, mute: !daemon.IsTerminal(env.Stderr)}
	defer progress.end()
	opts := checker.ProbeOptions{
		Version: daemon.Version(), ContactURL: s.ContactURL, Vantage: s.Vantage,
		AllowPrivateAddresses: s.AllowPrivateAddresses || *private,
		Asking:                progress.asking,
	}
	ofTier0 := opts
	if ofTier0.RootCAs, err = checker.ReadCAs(s.OriginCAFile); err != nil {
		return fmt.Errorf("origin_ca_file: %w", err)
	}
	if opts.RootCAs, err = checker.ReadCAs(s.MirrorsCAFile); err != nil {
		return fmt.Errorf("mirrors_ca_file: %w", err)
	}
	var all []probed
	for _, file := range files {
		p := probed{file: file, problems: slices.Compact(schema.LintFiles(n, []string{file}))}
		// Who brings a mirror does not correct the network.
		p.problems = slices.DeleteFunc(p.problems, func(p schema.Problem) bool { return p.File != file && !sameFile(p.File, file) })
		p.mirror, _ = schema.LoadMirror(file)
		all = append(all, p)
	}
	truth, err := probeTruth(ctx, env, n, s.Origin, all, ofTier0)
	if err != nil {
		return err
	}
	prober := checker.NewProber(opts)
	defer prober.Close()
	failed := false
	for i := range all {
		if p := &all[i]; p.mirror != nil {
			progress.begin(p.mirror.Name)
			p.found = checker.Examine(ctx, prober, n, p.mirror, truth)
		}
		if ctx.Err() != nil {
			return ctx.Err() // what was seen until then says too little
		}
		failed = failed || all[i].failed()
	}
	progress.end()
	if err := print(env.Stdout, all); err != nil {
		return err
	}
	if failed {
		return daemon.Exit(1)
	}
	return nil
}

// probeSettings puts together what the command line says, or a file of settings.
func probeSettings(config, networkFile, tier0 string) (checker.Settings, *schema.Network, error) {
	var s checker.Settings
	var n *schema.Network
	var err error
	switch {
	case config != "" && (networkFile != "" || tier0 != ""):
		return s, nil, daemon.Misuse("-config names the network and the origin; leave out the other flag")
	case config != "":
		return readSettings(config)
	}
	n, _, err = schema.LoadNetwork(cmp.Or(networkFile, defaultNetwork))
	if errors.Is(err, fs.ErrNotExist) && networkFile == "" {
		return s, nil, daemon.Misuse("there is no %s here; name the network with -network FILE: it says what a mirror has", defaultNetwork)
	}
	if err == nil && tier0 != "" {
		if !strings.Contains(tier0, "://") {
			tier0, err = filepath.Abs(tier0)
		}
		s.Origin = checker.Origins{"main": {tier0}}
	}
	return s, n, err
}

// probeTruth asks tier0 for what the mirrors should have; nil when it is not
// known where that is.
func probeTruth(ctx context.Context, env daemon.Env, n *schema.Network, tier0s checker.Origins, all []probed, opts checker.ProbeOptions) (map[state.Key]state.Truth, error) {
	if len(tier0s) == 0 {
		return nil, nil
	}
	var keys []state.Key
	seen := map[state.Key]bool{}
	for _, p := range all {
		if p.mirror == nil {
			continue
		}
		for _, k := range slices.Concat(checker.KeysOf(n, p.mirror), checker.ISOKeysOf(n, p.mirror)) {
			if !seen[k] {
				seen[k] = true
				keys = append(keys, k)
			}
		}
	}
	truth, err := checker.ReadTruth(ctx, n, tier0s, keys, opts)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	known := false
	for _, t := range truth {
		known = known || t.Newest() != nil
	}
	switch {
	case len(keys) > 0 && !known && err != nil:
		first, _, _ := strings.Cut(err.Error(), "\n") // they are all alike
		return nil, fmt.Errorf("nothing is known of tier0: %s; correct -origin, or origin in the settings", first)
	case len(keys) > 0 && !known:
		return nil, fmt.Errorf("tier0 has nothing of what these mirrors should have: correct -origin, or origin in the settings")
	case err == nil:
		return truth, nil
	}
	fmt.Fprintf(env.Stderr, "some of what tier0 has is not known:\n%v\n", err)
	return truth, nil
}

// asked is a line at the bottom of a terminal that says what is being asked.
type asked struct {
	to   io.Writer
	mute bool

	mu     sync.Mutex // guards the rest: requests are made two at a time
	mirror string
	n      int
	drawn  time.Time
}

// redraw is how often the line changes.
const redraw = 100 * time.Millisecond

func (a *asked) begin(mirror string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mirror, a.n = mirror, 0
}

func (a *asked) asking(_, url string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n++
	if a.mute || time.Since(a.drawn) < redraw {
		return
	}
	a.drawn = time.Now()
	const room = 60 // more may be wrapped, and then it cannot be taken back
	if len(url) > room {
		url = "…" + url[len(url)-room:]
	}
	fmt.Fprintf(a.to, "\r\x1b[K%4d  %q", a.n, url)
}

// end takes the line away.
func (a *asked) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.drawn.IsZero() {
		a.drawn = time.Time{}
		fmt.Fprint(a.to, "\r\x1b[K")
	}
}

// printProbed writes for people: what is fine in few lines, and what is not with
// all that helps.
func printProbed(w io.Writer, all []probed) error {
	var b strings.Builder
	for i, p := range all {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s:\n", p.file)
		for _, problem := range p.problems {
			fmt.Fprintf(&b, "  %-8s %s\n", severity(problem), strings.TrimPrefix(problem.String(), p.file+":"))
		}
		if p.found == nil {
			b.WriteString("  the mirror is not asked before its file can be read\n")
			continue
		}
		counts := printChecks(&b, p.found.Checks)
		o := p.found.Observation
		fmt.Fprintf(&b, "  %s; %d requests, %s, %v\n", counts, o.Requests, megabytes(o.Bytes), p.found.Took.Round(time.Second/10))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// mostTold is how many troubles of one kind are told with all that is known.
const mostTold = 3

// printChecks writes one line for each kind of check that went well, and more for
// others. It returns how many there were.
func printChecks(b *strings.Builder, checks []checker.Check) string {
	total := map[checker.Result]int{}
	for _, c := range checks {
		total[c.Result]++
	}
	for len(checks) > 0 {
		n := slices.IndexFunc(checks, func(c checker.Check) bool { return c.Group != checks[0].Group })
		if n < 0 {
			n = len(checks)
		}
		printGroup(b, checks[:n])
		checks = checks[n:]
	}
	var counts []string
	for _, r := range []checker.Result{checker.Failed, checker.Warning, checker.Passed, checker.Skipped} {
		switch n := total[r]; {
		case n > 1 && r == checker.Warning:
			counts = append(counts, fmt.Sprintf("%d warnings", n))
		case n > 0:
			counts = append(counts, fmt.Sprintf("%d %s", n, r))
		}
	}
	return strings.Join(counts, ", ")
}

// summed are the groups with so many checks that those without a problem are
// counted.
var summed = []string{"repositories", "images"}

func printGroup(b *strings.Builder, checks []checker.Check) {
	group := checks[0].Group
	sum := slices.Contains(summed, group)
	fine := 0
	skipped := map[string]int{}
	var reasons []string      // of skipped, in order
	var told, untold []string // names
	wrong := 0
	for _, c := range checks {
		if c.Problem != nil {
			wrong++
		}
	}
	for _, c := range checks {
		switch {
		case c.Problem != nil:
			if len(told) < mostTold {
				told = append(told, c.Name)
				printProblem(b, c)
			} else {
				untold = append(untold, c.Name)
			}
			if len(told)+len(untold) == wrong && len(untold) > 0 {
				fmt.Fprintf(b, "           and so on: %s\n", andSoOn(told, untold))
			}
		case !sum:
			fmt.Fprintf(b, "  %-8s %s: %s\n", c.Result, c.Name, c.Text)
		case c.Result == checker.Skipped:
			if skipped[c.Text] == 0 {
				reasons = append(reasons, c.Text)
			}
			skipped[c.Text]++
		default:
			fine++
		}
	}
	if fine > 0 {
		fmt.Fprintf(b, "  %-8s %s: %d of %d\n", checker.Passed, group, fine, len(checks))
	}
	for _, why := range reasons {
		fmt.Fprintf(b, "  %-8s %s: %d of %d: %s\n", checker.Skipped, group, skipped[why], len(checks), why)
	}
}

// andSoOn names what is not told, each once, and counts what has a name that was
// told.
func andSoOn(told, untold []string) string {
	var names []string
	again := 0
	for _, name := range untold {
		if slices.Contains(told, name) || slices.Contains(names, name) {
			again++
		} else {
			names = append(names, name)
		}
	}
	if again > 0 {
		names = append(names, fmt.Sprintf("and %d more of these", again))
	}
	return strings.Join(names, " ")
}

// printProblem writes what is wrong, what to do, the answer that shows it, and a
// line that repeats the request.
func printProblem(b *strings.Builder, c checker.Check) {
	subject := c.Name + ": "
	if strings.HasPrefix(c.Text, c.Name) {
		subject = "" // the sentence begins with it
	}
	fmt.Fprintf(b, "  %-8s %s%s\n", c.Result, subject, c.Text)
	if c.Problem.Remedy != "" {
		fmt.Fprintf(b, "           %s\n", c.Problem.Remedy)
	}
	if e := c.Problem.Evidence; e != nil {
		if answer := answerOf(e); answer != "" {
			fmt.Fprintf(b, "           %s\n", answer)
		}
		if line := e.Curl(); line != "" {
			fmt.Fprintf(b, "           $ %s\n", line)
		}
	}
}

// answerOf is what came back, in short.
func answerOf(e *state.Evidence) string {
	var parts []string
	if e.Status != 0 {
		parts = append(parts, fmt.Sprintf("status %d", e.Status))
	}
	if e.Remote != "" {
		parts = append(parts, "from "+e.Remote)
	}
	if e.Final != "" {
		parts = append(parts, "at "+e.Final)
	}
	if e.Error != "" {
		parts = append(parts, e.Error)
	}
	if e.Body != "" && e.Error != "" {
		body := e.Body
		if r := []rune(body); len(r) > 60 {
			body = string(r[:60]) + "…"
		}
		parts = append(parts, "it begins "+body)
	}
	return strings.Join(parts, "; ")
}

func severity(p schema.Problem) string {
	if p.Error {
		return "failed"
	}
	return "warning"
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// jsonProbed is one element of -format json, which other programs read.
type jsonProbed struct {
	File     string        `json:"file"`
	Mirror   string        `json:"mirror,omitempty"`
	Failed   bool          `json:"failed"`
	Problems []jsonProblem `json:"problems"` // of the file
	Checks   []jsonCheck   `json:"checks"`
	Requests int           `json:"requests"`
	Bytes    int64         `json:"bytes"`
	Seconds  float64       `json:"seconds"`
}

type jsonCheck struct {
	Group    string          `json:"group"`
	Name     string          `json:"name"`
	Result   checker.Result  `json:"result"`
	Text     string          `json:"text"`
	Remedy   string          `json:"remedy,omitempty"`
	Curl     string          `json:"curl,omitempty"`
	Evidence *state.Evidence `json:"evidence,omitempty"`
}

func printProbedJSON(w io.Writer, all []probed) error {
	list := []jsonProbed{}
	for _, p := range all {
		out := jsonProbed{File: p.file, Failed: p.failed(), Problems: jsonProblems(p.problems), Checks: []jsonCheck{}}
		if p.mirror != nil {
			out.Mirror = p.mirror.Name
		}
		if p.found != nil {
			o := p.found.Observation
			out.Requests, out.Bytes, out.Seconds = o.Requests, o.Bytes, p.found.Took.Round(time.Millisecond).Seconds()
			for _, c := range p.found.Checks {
				check := jsonCheck{Group: c.Group, Name: c.Name, Result: c.Result, Text: c.Text}
				if c.Problem != nil {
					check.Remedy, check.Evidence, check.Curl = c.Problem.Remedy, c.Problem.Evidence, c.Problem.Evidence.Curl()
				}
				out.Checks = append(out.Checks, check)
			}
		}
		list = append(list, out)
	}
	return writeJSON(w, list)
}
