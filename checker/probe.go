package checker

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"meridian/builder/repodata"
	"meridian/checker/state"
	"meridian/internal/fetch"
	"meridian/schema"
)

// A Plan says what one visit to a mirror asks for. What it does not name is not
// asked for.
type Plan struct {
	// Network that the mirror belongs to; it knows where repositories are.
	Network *schema.Network

	// Families and Schemes: try each address family, and each scheme that the
	// mirror claims, with one cheap request: the sentinel's repomd.xml, or TIME
	// when there are no Keys.
	Families, Schemes bool

	// Time: read TIME.
	Time bool

	// Keys in this order. The first is the sentinel: when it cannot be reached,
	// the others are not asked for.
	Keys []KeyPlan

	// ISOs are sets of images; for these Files are the images and Newest is the
	// hash of CHECKSUM.
	ISOs []KeyPlan

	// Closure are files that repodata of a generation names.
	Closure []FilePlan

	// Scheme that Keys, ISOs and Closure are asked over: "http" or "https". "" is
	// http where the mirror has it. Another one takes its place when this visit
	// tries the Schemes, and finds that this one does not work and another does.
	Scheme string

	// Budget is how many requests the visit may make, and Bytes how many it may
	// receive, before what is left stays undone and is absent from the
	// Observation. The last requests may exceed it by their redirects and bodies.
	// Zero: no bound on requests, and 32 MiB.
	Budget int
	Bytes  int64
}

// A KeyPlan asks for one repomd.xml.
type KeyPlan struct {
	Key state.Key

	// Newest is the hash of the newest generation's repomd.xml; zero if none is
	// known.
	Newest state.Hash256

	// Files of the newest generation, primary first, whose sizes are asked for
	// when that generation is what the mirror serves.
	Files []repodata.Data
}

// A FilePlan asks for one file that repodata names.
type FilePlan struct {
	Key  state.Key
	Path string // relative to the repository
	Size int64  // bytes; negative if it is not known

	// Checksum of the whole file. The zero value is unknown.
	Checksum repodata.Checksum
}

// ProbeOptions are what a [Prober] is made from. The zero value works.
type ProbeOptions struct {
	// Version of the program, ContactURL of who runs it: for the User-Agent.
	Version, ContactURL string

	// Vantage names the place that is looked from.
	Vantage string

	// AllowPrivateAddresses is for test networks whose mirrors are on loopback.
	AllowPrivateAddresses bool

	// RootCAs replace the system's certificate authorities unless nil.
	RootCAs *x509.CertPool

	// Dial and Lookup replace the network for tests, as in [fetch.Options].
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const (
	// probeTimeout is for one request. What takes longer helps no client.
	probeTimeout = 20 * time.Second

	// minRate, in bytes a second, is what dnf gives up below, too.
	minRate = 1000

	// visitBytes is the default of Plan.Bytes: forty times what the metadata of a
	// network takes.
	visitBytes = 32 << 20

	// costlyFailures is how many requests that took long, or were large, for
	// nothing a visit makes before it leaves the rest of the repositories.
	costlyFailures = 3
)

// A Prober visits mirrors. It is safe for concurrent use.
type Prober struct {
	client *fetch.Client
	opts   ProbeOptions
	parsed parsed
}

// NewProber returns a prober. Close it.
func NewProber(opts ProbeOptions) *Prober {
	agent := "meridian-checker"
	if opts.Version != "" {
		agent += "/" + opts.Version
	}
	if opts.ContactURL != "" {
		agent += " (+" + opts.ContactURL + ")"
	}
	return &Prober{opts: opts, client: fetch.New(fetch.Options{
		AllowPrivate: opts.AllowPrivateAddresses,
		MaxBytes:     repodata.MaxRepomd,
		Timeout:      probeTimeout,
		MinRate:      minRate,
		UserAgent:    agent,
		RootCAs:      opts.RootCAs,
		Dial:         opts.Dial,
		Lookup:       opts.Lookup,
	})}
}

// Close closes the connections that are kept.
func (p *Prober) Close() { p.client.CloseIdleConnections() }

// Visit asks m for what plan says. What goes wrong is in the Observation. When
// ctx ends, what was not answered yet is absent from it.
func (p *Prober) Visit(ctx context.Context, m *schema.Mirror, plan Plan) *Observation {
	v := &visit{p: p, ctx: ctx, m: m, plan: plan, trouble: map[string]int{}, o: &Observation{
		Mirror: m.Name, At: time.Now(), Vantage: p.opts.Vantage,
		Keys: map[state.Key]KeySeen{},
	}}
	v.keys()
	v.files()
	return v.o
}

// A visit is one under way.
type visit struct {
	p    *Prober
	ctx  context.Context
	m    *schema.Mirror
	plan Plan

	mu      sync.Mutex // guards the rest
	o       *Observation
	trouble map[string]int // costly failures by base URL
}

// base returns the URL of the tree that v is in, "" when m has none.
func (v *visit) base(ver schema.Version) string {
	a := v.m.AddressOf(v.plan.Network, ver)
	if a.HTTP == "" || v.plan.Scheme == "https" && a.HTTPS != "" {
		return a.HTTPS
	}
	return a.HTTP
}

// An answer is one request and what came of it.
type answer struct {
	fetch.Request
	at      time.Time
	resp    *fetch.Response
	err     error
	outcome Outcome
}

// take tells whether the budget has room for one more request, and books it.
func (v *visit) take() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	ok := v.ctx.Err() == nil &&
		(v.plan.Budget == 0 || v.o.Requests < v.plan.Budget) &&
		v.o.Bytes < cmp.Or(v.plan.Bytes, visitBytes)
	if ok {
		v.o.Requests++
	}
	return ok
}

// noCache is what every request says: what a cache between has is not what the
// mirror has.
var noCache = http.Header{"Cache-Control": {"no-cache"}}

// ask makes a request that was booked. It returns nil when the visit was ended meanwhile, which
// says nothing about the mirror.
func (v *visit) ask(r fetch.Request) *answer {
	if r.Header == nil {
		r.Header = noCache
	}
	a := &answer{Request: r, at: time.Now()}
	a.resp, a.err = v.p.client.Do(v.ctx, r)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.o.Requests += max(1, a.resp.Requests) - 1 // a connection that fails costs one
	v.o.Bytes += a.resp.Received
	if v.ctx.Err() != nil && a.err != nil {
		return nil
	}
	a.outcome = outcomeOf(a.resp, a.err)
	return a
}

// each calls f for the numbers below n, in order and two at a time, with a request
// booked for each.
func (v *visit) each(n int, f func(int)) {
	var g errgroup.Group
	g.SetLimit(2)
	for i := range n {
		if !v.take() {
			break
		}
		g.Go(func() error {
			f(i)
			return nil
		})
	}
	g.Wait()
}

// keys asks for the sentinel, and when that is reached for the others.
func (v *visit) keys() {
	keys := slices.DeleteFunc(slices.Clone(v.plan.Keys), func(k KeyPlan) bool { return v.base(k.Key.Version) == "" })
	if len(keys) == 0 || !v.take() || v.key(&keys[0]) == Unreachable {
		return
	}
	v.each(len(keys)-1, func(i int) { v.key(&keys[i+1]) })
}

// key asks for one repomd.xml.
func (v *visit) key(k *KeyPlan) Outcome {
	base := v.base(k.Key.Version)
	v.mu.Lock()
	enough := v.trouble[base] >= costlyFailures
	if enough {
		v.o.Requests--
	}
	v.mu.Unlock()
	if enough {
		return Unreachable
	}
	seen, a := v.repomd(RepoURL(base, v.plan.Network, k.Key)+repodata.Dir+"/"+repodata.Name, fetch.AnyFamily)
	if a == nil {
		return Unreachable
	}
	if seen.Outcome == Served && k.Newest != (state.Hash256{}) && seen.SHA256 != k.Newest && seen.Evidence == nil {
		seen.Evidence = v.evidence(a, nil)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if a.costly() {
		v.trouble[base]++
	}
	v.o.Keys[k.Key] = seen
	return seen.Outcome
}

// repomd asks for a repomd.xml and reads it. The answer is nil when the visit was
// ended.
func (v *visit) repomd(url string, family fetch.Family) (seen KeySeen, a *answer) {
	a = v.ask(fetch.Request{URL: url, Family: family})
	if a == nil {
		return seen, nil
	}
	seen.Outcome, seen.OtherHost = a.outcome, a.otherHost()
	if a.outcome != Served {
		seen.Evidence = v.evidence(a, nil)
		return seen, a
	}
	sum := sha256.Sum256(a.resp.Body)
	said, err := v.p.parsed.repomd(sum, a.resp.Body)
	if err != nil {
		seen.Outcome, seen.Evidence = Garbage, v.evidence(a, err)
		return seen, a
	}
	seen.SHA256, seen.Size = sum, int64(len(a.resp.Body))
	seen.Revision, seen.Timestamp = said.revision, said.timestamp
	if seen.OtherHost != "" {
		seen.Evidence = v.evidence(a, nil)
	}
	return seen, a
}

// files asks for the sizes of what the newest generation names, where that is
// what is served: of every key the first file, then of every key the second.
func (v *visit) files() {
	type file struct {
		plan *KeyPlan
		data *repodata.Data
	}
	var all []file
	for rank, more := 0, true; more; rank++ {
		more = false
		for i := range v.plan.Keys {
			k := &v.plan.Keys[i]
			if rank < len(k.Files) && v.o.Keys[k.Key].Outcome == Served && v.o.Keys[k.Key].SHA256 == k.Newest {
				all, more = append(all, file{k, &k.Files[rank]}), true
			}
		}
	}
	v.each(len(all), func(i int) {
		k, d := all[i].plan.Key, all[i].data
		base := RepoURL(v.base(k.Version), v.plan.Network, k)
		seen := v.size(base+d.Location, d.Size)
		if seen == nil {
			return
		}
		seen.Key, seen.Path = k, d.Location
		v.mu.Lock()
		defer v.mu.Unlock()
		of := v.o.Keys[k]
		of.FilesAsked++
		if seen.Outcome != Served || seen.Wrong != "" {
			of.FilesWrong = append(of.FilesWrong, *seen)
		}
		v.o.Keys[k] = of
	})
}

// size compares the size of the file at url with want, which is negative when
// nothing is known of it. The result is nil when the visit was ended.
func (v *visit) size(url string, want int64) *FileSeen {
	a := v.ask(fetch.Request{URL: url, Method: http.MethodHead})
	if a == nil {
		return nil
	}
	// Servers answer HEAD less carefully than GET, and clients only do the latter:
	// nobody is accused because of a HEAD.
	if (a.outcome == Refused || a.outcome == Served && a.size() != want) && v.take() {
		if a = v.firstByte(url); a == nil {
			return nil
		}
	}
	seen := &FileSeen{Outcome: a.outcome}
	if got := a.size(); a.outcome == Served && got >= 0 && want >= 0 && got != want {
		seen.Wrong = fmt.Sprintf("it is %d bytes long; %d are right", got, want)
	}
	if seen.Outcome != Served || seen.Wrong != "" {
		seen.Evidence = v.evidence(a, nil)
	}
	return seen
}

// firstByte asks for the first byte of a file, whose answer tells its size.
func (v *visit) firstByte(url string) *answer {
	a := v.ask(fetch.Request{
		URL:      url,
		Header:   http.Header{"Cache-Control": noCache["Cache-Control"], "Range": {"bytes=0-0"}},
		MaxBytes: 1,
	})
	if a == nil {
		return nil
	}
	// A server that knows no ranges sends all of it; its header is enough.
	all := a.resp.Status == http.StatusOK && errors.Is(a.err, fetch.ErrTooLarge)
	if all || a.err == nil && a.resp.Status == http.StatusPartialContent {
		a.outcome, a.err = Served, nil
	}
	return a
}

// parsed remembers what files of metadata say of themselves, because most mirrors
// serve the same ones and reading XML takes longer than asking for it.
type parsed struct {
	mu  sync.Mutex
	all map[state.Hash256]repomdText
}

type repomdText struct {
	revision  string
	timestamp int64
}

// maxParsed bounds what is remembered: every repository of a network in a few
// generations.
const maxParsed = 4096

func (p *parsed) repomd(sum state.Hash256, text []byte) (repomdText, error) {
	p.mu.Lock()
	said, ok := p.all[sum]
	p.mu.Unlock()
	if ok {
		return said, nil
	}
	md, err := repodata.ReadRepomd(bytes.NewReader(text))
	if err != nil {
		return said, err
	}
	said.revision = md.Revision
	for _, d := range md.Data {
		said.timestamp = max(said.timestamp, d.Timestamp)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil || len(p.all) >= maxParsed {
		p.all = map[state.Hash256]repomdText{}
	}
	p.all[sum] = said
	return said, nil
}

// outcomeOf says what came of asking for a document, before anybody reads it.
func outcomeOf(resp *fetch.Response, err error) Outcome {
	switch {
	case errors.Is(err, fetch.ErrPrivate) && len(resp.Redirects) > 0,
		errors.Is(err, fetch.ErrRedirects),
		errors.Is(err, fetch.ErrDowngrade):
		return Garbage
	case err != nil && resp.Status == 0:
		return Unreachable
	case resp.Status == http.StatusNotFound, resp.Status == http.StatusGone:
		return Missing
	case resp.Status >= 400:
		return Refused
	case err != nil, resp.Status != http.StatusOK:
		return Garbage
	}
	return Served
}

// costly tells whether the request cost time, or bytes, and brought nothing.
func (a *answer) costly() bool {
	return a.outcome == Unreachable || errors.Is(a.err, fetch.ErrTooLarge) ||
		errors.Is(a.err, fetch.ErrSlow) || errors.Is(a.err, context.DeadlineExceeded)
}

// size is that of the whole file, as the header says it; negative if it does not.
func (a *answer) size() int64 {
	if a.resp.Status != http.StatusPartialContent {
		return a.resp.Length
	}
	_, total, _ := strings.Cut(a.resp.Header.Get("Content-Range"), "/")
	n, err := strconv.ParseInt(total, 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// otherHost is the host that answered, if another than the one that was asked.
func (a *answer) otherHost() string {
	if len(a.resp.Redirects) == 0 {
		return ""
	}
	asked, err1 := url.Parse(a.URL)
	final, err2 := url.Parse(a.resp.URL)
	if err1 != nil || err2 != nil || strings.EqualFold(asked.Hostname(), final.Hostname()) {
		return ""
	}
	return final.Hostname()
}
