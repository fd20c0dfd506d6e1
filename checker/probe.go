package checker

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"slices"
	"sync"
	"time"

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

	// ISOs are sets of images; for these Newest is the hash of the file CHECKSUM,
	// and Files are the images. Where Files is nil, the mirror's own CHECKSUM says
	// which there are.
	ISOs []KeyPlan

	// Closure are files that repodata of a generation names: see [SamplePackages]
	// and [MetadataPlan].
	Closure []FilePlan

	// sampled: some of Closure are there by chance, and not because of what was
	// wrong before.
	sampled bool

	// Own is for who looks at a mirror without knowing what the files of its
	// generations are: of each of Keys, the files that the mirror's own repomd.xml
	// names are asked for their size. Of Sample of the repositories, chosen at
	// random, some files are compared with their checksums besides.
	Own    bool
	Sample int

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

	// Confirm: what is Served is asked for once more, over a connection of its own
	// and from another address of the host if it has one. Behind one name there may
	// be several servers.
	Confirm bool

	// OwnFiles: nobody here remembers the Files. When the mirror serves Newest they
	// are those that its repomd.xml names, whose bytes are the origin's.
	OwnFiles bool
}

// ProbeOptions are what a [Prober] is made from. The zero value works.
type ProbeOptions struct {
	// Version of the program, ContactURL of who runs it: for the User-Agent.
	Version, ContactURL string

	// Vantage names the place that is looked from.
	Vantage string

	// Rsync is the path of rsync(1). Default: the one in PATH. Without any, and
	// with Dial, rsync URLs are not tried.
	Rsync string

	// AllowPrivateAddresses is for test networks whose mirrors are on loopback.
	AllowPrivateAddresses bool

	// RootCAs replace the system's certificate authorities unless nil.
	RootCAs *x509.CertPool

	// Asking is called before each request, unless nil: for those who wait and
	// watch. It may be called by several goroutines at a time.
	Asking func(method, url string)

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

	rsync        string // path of the program; "" without it
	rsyncTimeout time.Duration
}

// NewProber returns a prober. Close it.
func NewProber(opts ProbeOptions) *Prober {
	p := &Prober{opts: opts, rsync: opts.Rsync, rsyncTimeout: rsyncTimeout}
	if p.rsync == "" && opts.Dial == nil {
		p.rsync, _ = exec.LookPath("rsync") // not there: not tried
	}
	p.client = fetch.New(fetch.Options{
		AllowPrivate: opts.AllowPrivateAddresses,
		MaxBytes:     repodata.MaxRepomd,
		Timeout:      probeTimeout,
		MinRate:      minRate,
		UserAgent:    userAgent(opts.Version, opts.ContactURL),
		RootCAs:      opts.RootCAs,
		Dial:         opts.Dial,
		Lookup:       opts.Lookup,
	})
	return p
}

// Close closes the connections that are kept.
func (p *Prober) Close() { p.client.CloseIdleConnections() }

// Visit asks m for what plan says. What goes wrong is in the Observation. When
// ctx ends, what was not answered yet is absent from it. A mirror that answers
// slowly, but does, is asked on: how long a visit may take is for ctx to say.
func (p *Prober) Visit(ctx context.Context, m *schema.Mirror, plan Plan) *Observation {
	v := &visit{p: p, ctx: ctx, m: m, plan: plan, scheme: plan.Scheme, trouble: map[string]int{}, own: map[state.Key][]repodata.Data{}, o: &Observation{
		Mirror: m.Name, At: time.Now(), Vantage: p.opts.Vantage,
		Keys: map[state.Key]KeySeen{},
	}}
	v.schemes()
	v.askSentinel()
	if k := v.first(); k != nil && v.sentinel != nil {
		v.confirm(k, v.base(k.Key.Version), v.sentinel)
	}
	if v.unrouted() {
		return &Observation{
			Mirror: v.o.Mirror, At: v.o.At, Vantage: v.o.Vantage, Requests: v.o.Requests, Bytes: v.o.Bytes,
			Unrouted: true, Families: v.untested,
		}
	}
	v.families()
	if v.sentinel != nil && v.sentinel.Outcome == Unreachable {
		return v.o
	}
	v.time()
	v.keys()
	v.images()
	v.closure(plan.Closure)
	v.sample()
	return v.o
}

// A visit is one under way.
type visit struct {
	p    *Prober
	ctx  context.Context
	m    *schema.Mirror
	plan Plan

	scheme   string // that judges: "https", or http where there is one
	sentinel *sight // over that scheme; nil until it was asked

	mu      sync.Mutex // guards the rest
	o       *Observation
	trouble map[string]int // costly failures by base URL

	// untested are the families of a mirror that there is no way to.
	untested map[Family]Answer

	// own is what files of the mirror say that there is: CHECKSUM of sets of
	// images, and when Plan.Own says so repomd.xml.
	own map[state.Key][]repodata.Data
}

// base returns the URL of the tree that ver is in, "" when m has none.
func (v *visit) base(ver schema.Version) string { return v.over(v.m.AddressOf(v.plan.Network, ver)) }

// over returns the URL of a for the scheme that judges, or for the one there is.
func (v *visit) over(a schema.Address) string {
	if a.HTTP == "" || v.scheme == "https" && a.HTTPS != "" {
		return a.HTTPS
	}
	return a.HTTP
}

// take tells whether the budget has room for one more request, and books it.
func (v *visit) take() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	ok := v.affordable()
	if ok {
		v.o.Requests++
	}
	return ok
}

// affordable tells whether the budget has room, to who holds the lock.
func (v *visit) affordable() bool {
	return v.ctx.Err() == nil &&
		(v.plan.Budget == 0 || v.o.Requests < v.plan.Budget) &&
		v.o.Bytes < cmp.Or(v.plan.Bytes, visitBytes)
}

// ask makes a request that was booked. It returns nil when the visit was ended
// meanwhile, which says nothing about the mirror.
func (v *visit) ask(r fetch.Request) *answer {
	if r.Header == nil {
		r.Header = noCache
	}
	if v.p.opts.Asking != nil {
		v.p.opts.Asking(cmp.Or(r.Method, http.MethodGet), r.URL)
	}
	a := request(v.ctx, v.p.client, r)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.o.Requests += max(1, a.resp.Requests) - 1 // a connection that fails costs one
	v.o.Bytes += a.resp.Received
	if v.ctx.Err() != nil && a.err != nil {
		return nil
	}
	return a
}

// each calls f for the numbers below n, in order and two at a time, with a request
// booked for each.
func (v *visit) each(n int, f func(int)) {
	next := 0 // guarded by v.mu
	work := func() {
		for {
			v.mu.Lock()
			i := next
			more := i < n && v.affordable()
			if more {
				v.o.Requests++
				next++
			}
			v.mu.Unlock()
			if !more {
				return
			}
			f(i)
		}
	}
	var other sync.WaitGroup
	if n > 1 {
		other.Go(work)
	}
	work()
	other.Wait()
}

// keys asks for what the sentinel is not, and then for the files of what is new.
func (v *visit) keys() {
	var rest []*KeyPlan
	for i := range v.plan.Keys {
		k := &v.plan.Keys[i]
		if _, asked := v.o.Keys[k.Key]; !asked && v.base(k.Key.Version) != "" {
			rest = append(rest, k)
		}
	}
	v.each(len(rest), func(i int) {
		k := rest[i]
		base := v.base(k.Key.Version)
		if v.hopeless(base) {
			return
		}
		if s := v.repomd(fetch.Request{URL: v.repomdURL(base, k.Key)}); s != nil {
			v.note(k, base, s)
			v.confirm(k, base, s)
		}
	})
	v.files(v.plan.Keys, func(k *KeyPlan, seen KeySeen) []repodata.Data {
		if v.plan.Own {
			return v.own[k.Key]
		}
		if seen.Outcome != Served || seen.SHA256 != k.Newest {
			return nil
		}
		if k.OwnFiles {
			return forClients(v.own[k.Key])
		}
		return k.Files
	})
}

func (v *visit) repomdURL(base string, k state.Key) string {
	return RepoURL(base, v.plan.Network, k) + repodata.Dir + "/" + repodata.Name
}

// hopeless tells whether a tree has cost enough for nothing; then a request that
// was booked is given back.
func (v *visit) hopeless(base string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.trouble[base] < costlyFailures {
		return false
	}
	v.o.Requests--
	return true
}

// note keeps what was seen of a key, in the tree at base.
func (v *visit) note(k *KeyPlan, base string, s *sight) {
	v.prove(k, s)
	v.mu.Lock()
	defer v.mu.Unlock()
	if s.answer.costly() {
		v.trouble[base]++
	}
	v.o.Keys[k.Key] = s.KeySeen
	if (v.plan.Own || k.OwnFiles && s.SHA256 == k.Newest) && k.Key.Repo != isos && s.Outcome == Served {
		v.own[k.Key] = s.metadata()
	}
}

// prove keeps the request for what is not the newest generation.
func (v *visit) prove(k *KeyPlan, s *sight) {
	if s.Outcome == Served && s.Evidence == nil && k.Newest != (state.Hash256{}) && s.SHA256 != k.Newest {
		s.Evidence = s.answer.evidence(v.p.opts.Vantage, nil)
	}
}

// confirm asks once more for what was seen of a key in the tree at base, if the
// plan says so.
func (v *visit) confirm(k *KeyPlan, base string, s *sight) {
	if !k.Confirm || s.Outcome != Served || !v.take() {
		return
	}
	again := v.repomd(fetch.Request{URL: v.repomdURL(base, k.Key), Apart: s.answer.resp.Remote.Addr()})
	if again == nil {
		return
	}
	v.prove(k, again)
	v.mu.Lock()
	defer v.mu.Unlock()
	seen := v.o.Keys[k.Key]
	seen.Again = &again.KeySeen
	v.o.Keys[k.Key] = seen
}

// A sight is a document that was asked for.
type sight struct {
	KeySeen
	answer *answer
}

// metadata returns the files that a repomd.xml names, those that every client
// needs first.
func (s *sight) metadata() []repodata.Data {
	md, err := repodata.ReadRepomd(bytes.NewReader(s.answer.resp.Body))
	if err != nil {
		return nil // it was read before
	}
	needed := []string{"other", "filelists", "primary"}
	slices.SortStableFunc(md.Data, func(a, b repodata.Data) int {
		return cmp.Compare(slices.Index(needed, b.Type), slices.Index(needed, a.Type))
	})
	return md.Data
}

// repomd asks for a repomd.xml and reads it. It returns nil when the visit was
// ended.
func (v *visit) repomd(r fetch.Request) *sight {
	return v.document(r, func(s *sight, body []byte) error {
		said, err := v.p.parsed.repomd(s.SHA256, body)
		s.Revision, s.Timestamp = said.revision, said.timestamp
		return err
	})
}

// document asks for a file that is small enough to be kept, and has it read by a
// function whose error says why it is not the one that was meant. It returns nil
// when the visit was ended.
func (v *visit) document(r fetch.Request, read func(s *sight, body []byte) error) *sight {
	a := v.ask(r)
	if a == nil {
		return nil
	}
	s := &sight{answer: a, KeySeen: KeySeen{Outcome: a.outcome, OtherHost: a.otherHost()}}
	if a.outcome != Served {
		s.Evidence = a.evidence(v.p.opts.Vantage, nil)
		return s
	}
	s.SHA256, s.Size = sha256.Sum256(a.resp.Body), int64(len(a.resp.Body))
	if err := read(s, a.resp.Body); err != nil {
		s.KeySeen = KeySeen{Outcome: Garbage, OtherHost: s.OtherHost, Evidence: a.evidence(v.p.opts.Vantage, err)}
	} else if s.OtherHost != "" {
		s.Evidence = a.evidence(v.p.opts.Vantage, nil)
	}
	return s
}

// files asks for the sizes of the files that belong to keys and of those which
// pick returns for what was seen: of every key the first file, then of every key
// the second.
func (v *visit) files(keys []KeyPlan, pick func(*KeyPlan, KeySeen) []repodata.Data) {
	type file struct {
		key  state.Key
		data *repodata.Data
	}
	picked := make([][]repodata.Data, len(keys))
	for i := range keys {
		picked[i] = pick(&keys[i], v.o.Keys[keys[i].Key])
	}
	var all []file
	for rank, more := 0, true; more; rank++ {
		more = false
		for i := range keys {
			if rank < len(picked[i]) {
				all, more = append(all, file{keys[i].Key, &picked[i][rank]}), true
			}
		}
	}
	v.each(len(all), func(i int) {
		k, d := all[i].key, all[i].data
		base := v.base(k.Version)
		if v.hopeless(base) {
			return
		}
		seen := v.size(RepoURL(base, v.plan.Network, k)+d.Location, d.Size)
		if seen == nil {
			return
		}
		seen.Key, seen.Path = k, d.Location
		v.mu.Lock()
		defer v.mu.Unlock()
		if seen.Outcome == Unreachable {
			v.trouble[base]++
		}
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
	wrong := a.outcome == Served && want >= 0 && a.size() != want
	if (wrong || a.headRefused()) && v.take() {
		if a = v.ask(oneByte(a.Request)); a == nil {
			return nil
		}
	}
	seen := &FileSeen{Outcome: a.outcome}
	if got := a.size(); a.outcome == Served && got >= 0 && want >= 0 && got != want {
		seen.Wrong = fmt.Sprintf("it is %d bytes long; %d are right", got, want)
	}
	if seen.Outcome != Served || seen.Wrong != "" {
		seen.Evidence = a.evidence(v.p.opts.Vantage, nil)
	}
	return seen
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
	said = repomdText{md.Revision, newestTimestamp(md)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil || len(p.all) >= maxParsed {
		p.all = map[state.Hash256]repomdText{}
	}
	p.all[sum] = said
	return said, nil
}
