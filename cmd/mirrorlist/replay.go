package main

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"meridian/cmd/internal/daemon"
	"meridian/mirrorlist"
)

const replayUsage = `usage:
    mirrorlist replay -log ACCESSLOG -against URL
                      (-config mirrorlist.yml | -server URL)
                      [-header NAME] [-rate N] [-max N]
                      [-show-clients] [-format text|json]

replay asks for the lists of an access log once more: of this server, which is
made of -config without being started or is the one at -server, and of another
one. It says where they differ: in status, in the first line of a list, to which
dnf sends everything, and why; and which share of first lines each mirror has.

The log is in the combined format of nginx and Apache or in that of gin, may be
compressed (.gz), and "-" is standard input. Only lists are asked for again, and
without countme, so that no system is counted twice.

Both servers must learn who the client was. A server at a URL is told in
X-Forwarded-For, or in the one header that -header names; it must trust the
address that replay asks from, such as with "trusted_proxies: [127.0.0.0/8]" and
replay on the same host. With -config nothing has to be trusted.

    -rate N         requests a second to each server, 20 by default
    -max N          requests at most, 10000 by default
    -show-clients   print the clients of examples; without it no address is
                    printed

example:
    mirrorlist replay -log access.log -config mirrorlist.yml \
        -against https://mirrors.example.org
`

// Bounds of a replay.
const (
	askAtOnce    = 8                // requests under way, of each server
	askTimeout   = 10 * time.Second // of one
	maxAnswer    = 1 << 20          // bytes of one that are read
	maxLine      = 64 << 10         // bytes of a line of the log
	maxNames     = 10_000           // different hosts and reasons that are told apart
	failuresToGo = 25               // that many in a row, and nobody is there
)

func replay(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	log := flags.String("log", "", "")
	against := flags.String("against", "", "")
	config := flags.String("config", "", "")
	server := flags.String("server", "", "")
	header := flags.String("header", "X-Forwarded-For", "")
	rate := flags.Float64("rate", 20, "")
	limit := flags.Int("max", 10_000, "")
	show := flags.Bool("show-clients", false, "")
	format := flags.String("format", "text", "")
	if err := daemon.ParseFlags(flags, args, replayUsage); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return daemon.Misuse("replay takes no argument %q: everything is a flag", flags.Arg(0))
	case *log == "":
		return daemon.Misuse("missing -log: write -log access.log")
	case *against == "":
		return daemon.Misuse("missing -against: write the URL of the other server, such as -against https://mirrors.example.org")
	case (*config == "") == (*server == ""):
		return daemon.Misuse("which server is ours? write either -config mirrorlist.yml or -server URL")
	case !(*rate > 0 && *rate <= 10_000):
		return daemon.Misuse("-rate %v is out of range; write a number of requests a second up to 10000", *rate)
	case *limit < 1:
		return daemon.Misuse("-max %d is out of range; write 1 or more", *limit)
	case *format != "text" && *format != "json":
		return daemon.Misuse("unknown format %q: write -format text or -format json", *format)
	}
	theirs, err := newRemote(*against, *header)
	if err != nil {
		return daemon.Misuse("-against: %v", err)
	}
	var ours asker
	if *server != "" {
		if ours, err = newRemote(*server, *header); err != nil {
			return daemon.Misuse("-server: %v", err)
		}
	} else if ours, err = newLocal(ctx, env, *config); err != nil {
		return err
	}
	lines, err := openLog(env, *log)
	if err != nil {
		return err
	}
	defer lines.Close()

	r := &comparison{ours: ours, theirs: theirs, showClients: *show, outcome: newOutcome()}
	err = r.run(ctx, lines, *rate, *limit, progressOn(env))
	if err != nil && r.outcome.Asked == 0 {
		return err
	}
	// Also of what was interrupted.
	if *format == "json" {
		return errors.Join(writeJSON(env.Stdout, r.outcome.done()), err)
	}
	return errors.Join(r.outcome.done().print(env.Stdout), err)
}

// openLog opens an access log.
func openLog(env daemon.Env, path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(env.Stdin), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(path, ".gz") {
		return f, nil
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{z, f}, nil
}

// An asker is a server that can be asked for a client.
type asker interface {
	// ask returns what a client is answered.
	ask(ctx context.Context, client netip.Addr, method, target, agent string) (answer, error)
}

type answer struct {
	status int
	body   []byte
}

// A remote is a server at a URL.
type remote struct {
	base   string // without a slash at its end
	header string
	client *http.Client
}

func newRemote(base, header string) (*remote, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is no URL of a server; write one such as https://mirrors.example.org", base)
	}
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: askTimeout}).DialContext,
		MaxIdleConnsPerHost: askAtOnce, ResponseHeaderTimeout: askTimeout, DisableCompression: true,
	}
	return &remote{base: strings.TrimRight(base, "/"), header: header, client: &http.Client{
		Transport: t, Timeout: askTimeout,
		// A redirect is the answer.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (r *remote) ask(ctx context.Context, client netip.Addr, method, target, agent string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.base+target, nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set(r.header, client.String())
	req.Header.Set("User-Agent", agent) // "" sends none
	resp, err := r.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the URL may have what a client sent
		}
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer{}, err
	}
	return answer{resp.StatusCode, body}, nil
}

// A local is a server that answers in this process, and to which each client
// comes itself.
type local struct{ public, admin http.Handler }

func newLocal(ctx context.Context, env daemon.Env, config string) (*local, error) {
	cfg, err := readConfig(config)
	if err != nil {
		return nil, err
	}
	// Nothing is counted and nobody forwards. With a listener for administrators,
	// which is never opened, its handler explains private mirrors as well.
	cfg.Stats, cfg.TrustedProxies, cfg.ClientHeader, cfg.AdminListen = "", nil, "", "127.0.0.1:0"
	s, err := mirrorlist.New(ctx, mirrorlist.Options{
		Config: cfg, Log: daemon.NewLogger(env.Stderr, slog.LevelError), Compile: compileInChild,
	})
	if err != nil {
		return nil, err
	}
	for _, line := range s.Status().Lines() {
		fmt.Fprintln(env.Stderr, "mirrorlist:", line)
	}
	l := &local{}
	l.public, l.admin = s.Handlers()
	return l, nil
}

func (l *local) ask(ctx context.Context, client netip.Addr, method, target, agent string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return answer{}, err
	}
	req.RemoteAddr = netip.AddrPortFrom(client, 1).String()
	if agent != "" {
		req.Header.Set("User-Agent", agent)
	}
	h := l.public
	if strings.HasPrefix(target, explainPath) {
		h = l.admin
	}
	w := &recorder{header: http.Header{}}
	h.ServeHTTP(w, req)
	return answer{cmp.Or(w.code, http.StatusOK), w.body.Bytes()}, nil
}

// A recorder is a response that stays in memory.
type recorder struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) Write(b []byte) (int, error) { return w.body.Write(b) }
func (w *recorder) WriteHeader(code int)        { w.code = cmp.Or(w.code, code) }

const explainPath = "/api/v1/explain"

// A comparison asks two servers the same.
type comparison struct {
	ours, theirs asker
	showClients  bool

	mu      sync.Mutex // guards outcome, and the failures in a row
	outcome *outcome
	failed  [2]int
}

// job is one request, and the number of its line.
type job struct {
	logged
	line int
}

// run asks for what the log has until it ends, or limit was asked for.
func (c *comparison) run(ctx context.Context, lines io.Reader, rate float64, limit int, progress func(asked, limit int)) error {
	g, ctx := errgroup.WithContext(ctx)
	jobs := make(chan job)
	g.Go(func() error {
		defer close(jobs)
		tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
		defer tick.Stop()
		in := bufio.NewReaderSize(lines, maxLine)
		asked := 0
		for n := 1; asked < limit; n++ {
			line, whole, err := readLine(in)
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return fmt.Errorf("line %d of the log: %w", n, err)
			}
			r, ok := parseLine(line)
			c.mu.Lock()
			c.outcome.Lines++
			switch {
			case !whole || !ok:
				c.outcome.Unread++
			case !r.isList():
				c.outcome.NoList++
			}
			c.mu.Unlock()
			if !whole || !ok || !r.isList() {
				continue
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case jobs <- job{r, n}:
				asked++
				progress(asked, limit)
			}
		}
		return nil
	})
	for range askAtOnce {
		g.Go(func() error {
			for j := range jobs {
				if err := c.compare(ctx, j); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := g.Wait()
	progress(-1, limit)
	return err
}

// readLine returns the next line; of one that is too long the beginning, and that
// it is not whole.
func readLine(in *bufio.Reader) (line string, whole bool, err error) {
	b, err := in.ReadSlice('\n')
	line, whole = strings.TrimRight(string(b), "\r\n"), true
	for err == bufio.ErrBufferFull {
		whole = false
		_, err = in.ReadSlice('\n')
	}
	if err == io.EOF && len(line) > 0 {
		err = nil
	}
	return line, whole, err
}

// compare asks both servers, and records in what they differ.
func (c *comparison) compare(ctx context.Context, j job) error {
	target := j.uncounted()
	var got [2]answer
	var errs [2]error
	var wg sync.WaitGroup
	for i, s := range [2]asker{c.ours, c.theirs} {
		wg.Go(func() { got[i], errs[i] = s.ask(ctx, j.client, j.method, target, j.agent) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var reason, ourTier, theirTier string
	first := [2]string{firstHost(got[0]), firstHost(got[1])}
	if errs[0] == nil && errs[1] == nil && j.method != "HEAD" && first[0] != first[1] && first[0] != "" && first[1] != "" {
		reason, ourTier, theirTier = c.why(ctx, j, first)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.outcome
	r.Asked++
	for i, err := range errs {
		if err == nil {
			c.failed[i] = 0
			continue
		}
		r.failures[i]++
		if c.failed[i]++; c.failed[i] >= failuresToGo {
			return fmt.Errorf("%s does not answer: %w", [2]string{"our server", "the other server"}[i], err)
		}
	}
	if errs[0] != nil || errs[1] != nil {
		return nil
	}
	example := example{j.line, j.shown(), ""}
	if c.showClients {
		example.Client = j.client.String()
	}
	if got[0].status != got[1].status {
		what := fmt.Sprintf("%d, theirs %d", got[0].status, got[1].status)
		if got[0].status >= 400 {
			what += ": " + refusalText(got[0].body)
		}
		r.statuses.add(what, example)
	} else {
		r.SameStatus++
	}
	if j.method == "HEAD" {
		return nil
	}
	for i, host := range first {
		if host != "" {
			r.firsts[i].add(host)
		}
	}
	switch {
	case first[0] == "" || first[1] == "":
	case first[0] == first[1]:
		r.Compared++
		r.SameFirst++
	default:
		r.Compared++
		r.reasons.add(reason, example)
		if ourTier != "" && theirTier != "" && ourTier != theirTier {
			r.tiers.add(ourTier+", theirs "+theirTier, example)
		}
	}
	return nil
}

// refusalText is the reason in the body of a refusal, of which some are JSON.
func refusalText(body []byte) string {
	var envelope struct{ Result struct{ Message string } }
	text := string(body)
	if json.Unmarshal(body, &envelope) == nil && envelope.Result.Message != "" {
		text = envelope.Result.Message
	}
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	if len(text) > maxShown {
		text = text[:maxShown] + "…"
	}
	return strconv.QuoteToGraphic(text)
}

// firstHost returns the host of the first URL of an answer, or "".
func firstHost(a answer) string {
	if a.status != http.StatusOK {
		return ""
	}
	body := bytes.TrimSpace(a.body)
	switch {
	case bytes.HasPrefix(body, []byte("[")):
		var list []string
		if json.Unmarshal(body, &list) == nil && len(list) > 0 {
			return hostOf(list[0])
		}
	case bytes.HasPrefix(body, []byte("<")):
		return firstOfMetalink(body)
	default:
		for line := range strings.Lines(string(body)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				return hostOf(line)
			}
		}
	}
	return ""
}

// firstOfMetalink returns the host of the first http or https URL in document
// order, which is what librepo begins with.
func firstOfMetalink(body []byte) string {
	d := xml.NewDecoder(bytes.NewReader(body))
	for {
		token, err := d.Token()
		if err != nil {
			return ""
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "url" {
			var text string
			if d.DecodeElement(&text, &start) != nil {
				return ""
			}
			if text = strings.TrimSpace(text); strings.HasPrefix(text, "http") {
				return hostOf(text)
			}
		}
	}
}

func hostOf(s string) string {
	u, err := url.Parse(s)
	if err != nil || len(u.Host) > 255 {
		return ""
	}
	return strings.ToLower(u.Hostname())
}

// why says what our server thinks of the two mirrors that come first, and in
// which tier each is.
func (c *comparison) why(ctx context.Context, j job, first [2]string) (reason, ours, theirs string) {
	e, err := c.explain(ctx, j)
	if err != nil {
		return "not explained: " + err.Error(), "", ""
	}
	var mine, other *mirrorlist.Candidate
	for i := range e.Candidates {
		switch hostOf(e.Candidates[i].URL) {
		case first[0]:
			mine = cmp.Or(mine, &e.Candidates[i])
		case first[1]:
			other = cmp.Or(other, &e.Candidates[i])
		}
	}
	if mine != nil {
		ours = mine.Tier
	}
	if other == nil {
		for _, x := range e.Excluded {
			if strings.EqualFold(x.Mirror, first[1]) {
				return "theirs is not for this client by us: " + x.Reason, ours, ""
			}
		}
		if e.Vault != "" {
			return "the vault is the only mirror by us", ours, ""
		}
		return "theirs is none of our mirrors that this client may have", ours, ""
	}
	theirs = other.Tier
	switch {
	case mine == nil:
		return "ours is private, and not explained", ours, theirs
	case mine.Tier != other.Tier:
		return fmt.Sprintf("theirs is in a later tier by us: %s behind %s", other.Tier, mine.Tier), ours, theirs
	case band(mine) != band(other):
		return "theirs is farther away by us: in a later band of 500 km", ours, theirs
	}
	for _, r := range other.Reasons {
		if !slices.Contains(mine.Reasons, r) {
			return "equally near: theirs " + r, ours, theirs
		}
	}
	return "equally near: the order is drawn by bandwidth", ours, theirs
}

func band(c *mirrorlist.Candidate) int {
	if c.Band == nil {
		return -1
	}
	return *c.Band
}

// explain asks our server for the reasons of a list.
func (c *comparison) explain(ctx context.Context, j job) (*mirrorlist.Explanation, error) {
	asked := j.target.Query()
	q := url.Values{"ip": {j.client.String()}, "user_agent": {j.agent}}
	for _, name := range []string{"arch", "protocol", "country", "repo"} {
		if v := asked.Get(name); v != "" {
			q.Set(name, v)
		}
	}
	if words := strings.Split(strings.Trim(j.target.Path, "/"), "/"); len(words) == 3 {
		if words[0] == "isolist" {
			return nil, errors.New("lists of images are not")
		}
		q.Set("version", words[1])
		q.Set("repo", words[2])
	}
	a, err := c.ours.ask(ctx, j.client, http.MethodGet, explainPath+"?"+q.Encode(), "")
	if err != nil {
		return nil, errors.New("our server did not answer")
	}
	if a.status != http.StatusOK {
		return nil, fmt.Errorf("our server answered %d", a.status)
	}
	e := new(mirrorlist.Explanation)
	if err := json.Unmarshal(a.body, e); err != nil {
		return nil, errors.New("our server answered something else")
	}
	return e, nil
}

// An outcome is in what two servers differ.
type outcome struct {
	Lines    int `json:"lines"`     // of the log that were read
	Unread   int `json:"unread"`    // of them in no known format
	NoList   int `json:"no_list"`   // for something else than a list
	Asked    int `json:"asked"`     // of both servers
	OursLost int `json:"ours_lost"` // requests that had no answer at all
	Lost     int `json:"theirs_lost"`

	SameStatus int          `json:"same_status"`
	Statuses   []difference `json:"statuses"`

	Compared  int          `json:"compared"` // lists that both have answered
	SameFirst int          `json:"same_first_line"`
	Reasons   []difference `json:"reasons"`
	Tiers     []difference `json:"tiers"`
	Shares    []share      `json:"shares"` // by the size of the difference

	failures [2]int
	statuses differences
	reasons  differences
	tiers    differences
	firsts   [2]hosts
}

// A difference is one kind, and the first request that shows it.
type difference struct {
	What    string  `json:"what"`
	Count   int     `json:"count"`
	Example example `json:"example"`
}

type example struct {
	Line   int    `json:"line"` // of the log
	Target string `json:"target"`
	Client string `json:"client,omitempty"`
}

// A share is the part of first lines, 0 to 1, that one host has.
type share struct {
	Host   string  `json:"host"`
	Ours   float64 `json:"ours"`
	Theirs float64 `json:"theirs"`
}

func newOutcome() *outcome {
	return &outcome{statuses: differences{}, reasons: differences{}, tiers: differences{}, firsts: [2]hosts{{}, {}}}
}

type differences map[string]*difference

func (d differences) add(what string, e example) {
	have := d[what]
	if have == nil {
		if len(d) >= maxNames {
			return
		}
		have = &difference{What: what, Example: e}
		d[what] = have
	}
	if have.Count++; e.Line < have.Example.Line {
		have.Example = e
	}
}

func (d differences) sorted() []difference {
	out := []difference{}
	for _, what := range slices.Sorted(maps.Keys(d)) {
		out = append(out, *d[what])
	}
	slices.SortStableFunc(out, func(a, b difference) int { return cmp.Compare(b.Count, a.Count) })
	return out
}

type hosts map[string]int

func (h hosts) add(host string) {
	if _, ok := h[host]; !ok && len(h) >= maxNames {
		host = "others"
	}
	h[host]++
}

// done sums up, and returns the outcome.
func (r *outcome) done() *outcome {
	r.OursLost, r.Lost = r.failures[0], r.failures[1]
	r.Statuses, r.Reasons, r.Tiers = r.statuses.sorted(), r.reasons.sorted(), r.tiers.sorted()
	var sums [2]int
	names := map[string]bool{}
	for i, h := range r.firsts {
		for host, n := range h {
			sums[i] += n
			names[host] = true
		}
	}
	r.Shares = []share{}
	for _, host := range slices.Sorted(maps.Keys(names)) {
		part := func(i int) float64 { return float64(r.firsts[i][host]) / float64(max(1, sums[i])) }
		r.Shares = append(r.Shares, share{host, part(0), part(1)})
	}
	slices.SortStableFunc(r.Shares, func(a, b share) int {
		return cmp.Compare(math.Abs(b.Ours-b.Theirs), math.Abs(a.Ours-a.Theirs))
	})
	return r
}

// shownShares is how many mirrors are printed.
const shownShares = 20

func (r *outcome) print(w io.Writer) error {
	fmt.Fprintf(w, "%d lines: %d lists asked of both, %d other requests, %d lines in no known format\n", r.Lines, r.Asked, r.NoList, r.Unread)
	if r.OursLost+r.Lost > 0 {
		fmt.Fprintf(w, "without an answer: %d of ours, %d of theirs\n", r.OursLost, r.Lost)
	}
	fmt.Fprintf(w, "\nstatus: %s are the same\n", of(r.SameStatus, r.Asked))
	printDifferences(w, "ours ", r.Statuses)
	fmt.Fprintf(w, "\nfirst line: %s are the same\n", of(r.SameFirst, r.Compared))
	printDifferences(w, "", r.Reasons)
	if len(r.Tiers) > 0 {
		fmt.Fprintf(w, "\ntier of the first line, by our rules\n")
		printDifferences(w, "ours ", r.Tiers)
	}
	fmt.Fprintf(w, "\nshare of first lines\n")
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "  mirror\tours\ttheirs\tdifference\n")
	for _, s := range r.Shares[:min(shownShares, len(r.Shares))] {
		fmt.Fprintf(tw, "  %s\t%.2f %%\t%.2f %%\t%+.2f %%\n", printable(s.Host), 100*s.Ours, 100*s.Theirs, 100*(s.Ours-s.Theirs))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if more := len(r.Shares) - shownShares; more > 0 {
		fmt.Fprintf(w, "  and %d more that differ less\n", more)
	}
	return nil
}

func of(part, all int) string {
	return fmt.Sprintf("%d of %d (%.1f %%)", part, all, 100*float64(part)/float64(max(1, all)))
}

func printDifferences(w io.Writer, prefix string, list []difference) {
	for _, d := range list {
		fmt.Fprintf(w, "  %6d  %s%s\n          line %d: %s", d.Count, prefix, printable(d.What), d.Example.Line, printable(d.Example.Target))
		if d.Example.Client != "" {
			fmt.Fprintf(w, " for %s", d.Example.Client)
		}
		fmt.Fprintln(w)
	}
}

// printable keeps what somebody else wrote from moving the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsGraphic(r) {
			return r
		}
		return '?'
	}, s)
}

// progressOn returns what tells a person how far it is; nothing in a log. It is
// called with -1 when all is done.
func progressOn(env daemon.Env) func(asked, limit int) {
	if !daemon.IsTerminal(env.Stderr) {
		return func(int, int) {}
	}
	var last time.Time
	return func(asked, limit int) {
		if asked < 0 {
			fmt.Fprint(env.Stderr, "\r\x1b[K")
			return
		}
		if now := time.Now(); now.Sub(last) > 200*time.Millisecond {
			last = now
			fmt.Fprintf(env.Stderr, "\r%d lists asked, of at most %d\x1b[K", asked, limit)
		}
	}
}
