package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"meridian/checker/state"
	"meridian/internal/testworld"
	"meridian/schema"
	"meridian/syncer"
)

// The circle: a real origin that publishes all the time, thirteen mirrors most of
// which misbehave, the real checker and the real mirrorlist server as processes,
// and real clients through them.

// outdate is how long mirrors may lag in the circle.
const outdate = time.Minute // the least that a network may have

// circleKey is the one repository of the circle.
var circleKey = state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}

type circle struct {
	t       *testing.T
	dir     string
	key     *testworld.Key
	network *schema.Network
	repo    testworld.Repository
	state   *state.Reader
	server  string // URL of the mirrorlist server
	bin     string

	mu         sync.Mutex // guards what follows
	generation int
	mirrors    map[string]*circleMirror
	listed     []sighting
}

// A sighting is one list that the server answered with.
type sighting struct {
	at   time.Time
	list string
}

// A circleMirror is a mirror and how it behaves.
type circleMirror struct {
	name  string
	url   string
	every int // it syncs each so many generations; 0: never again after the first
	first int // of which it syncs the one with this number, from 0

	mu      sync.Mutex // guards what follows
	tree    http.Handler
	old     http.Handler // what it had before the last sync
	given   http.Handler // the tree when a client was last given repomd.xml
	handler func(m *circleMirror, w http.ResponseWriter, r *http.Request)
	count   int // of requests to two backends
}

func (m *circleMirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	h := m.handler
	m.mu.Unlock()
	if h == nil {
		m.serve(w, r)
		return
	}
	h(m, w, r)
}

// serve answers from the tree that the mirror has. A client, of which there is one
// at a time, goes on in the tree that it was given repomd.xml of: dnf and zypper ask
// for its signature after it, and fail when a sync comes between the two, which
// says nothing about lists.
func (m *circleMirror) serve(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	tree := m.tree
	if agent := r.UserAgent(); strings.Contains(agent, "libdnf") || strings.Contains(agent, "ZYpp") {
		if m.given == nil || strings.HasSuffix(r.URL.Path, "/repomd.xml") {
			m.given = tree
		}
		tree = m.given
	}
	m.mu.Unlock()
	tree.ServeHTTP(w, r)
}

// bomb is little that becomes much.
var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(make([]byte, 32<<20))
	w.Close()
	return b.Bytes()
})

// misbehaviours of mirrors, by name.
var misbehaviours = map[string]func(m *circleMirror, w http.ResponseWriter, r *http.Request){
	"html": func(_ *circleMirror, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<html><body>This domain is parked.</body></html>")
	},
	"truncated": func(m *circleMirror, w http.ResponseWriter, r *http.Request) {
		m.half(w, r, func(body []byte) []byte { return body[:len(body)/2] })
	},
	"drips": func(m *circleMirror, w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		m.serve(rec, r)
		for i := range rec.Body.Bytes() {
			if _, err := w.Write(rec.Body.Bytes()[i : i+1]); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	},
	// Right in every size and name, and wrong in what it gives to be installed.
	"tampering": func(m *circleMirror, w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "-primary.xml") {
			m.serve(w, r)
			return
		}
		rec := httptest.NewRecorder()
		m.serve(rec, r)
		body := rec.Body.Bytes()
		for i := len(body) / 2; i < len(body); i++ {
			body[i] ^= 0x20
		}
		maps.Copy(w.Header(), rec.Header())
		w.WriteHeader(rec.Code)
		w.Write(body)
	},
	// Every other request is answered by a server that is a sync behind, whoever
	// asks: dnf gets repomd.xml and its signature of two generations.
	"two backends": func(m *circleMirror, w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		m.count++
		tree := m.tree
		if m.count%2 == 0 {
			tree = m.old
		}
		m.mu.Unlock()
		tree.ServeHTTP(w, r)
	},
	"bomb": func(_ *circleMirror, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(bomb())
	},
	// This one is fine but for its clock.
	"clock ahead": func(m *circleMirror, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(30*24*time.Hour).UTC().Format(http.TimeFormat))
		m.serve(w, r)
	},
	"redirect loop": func(_ *circleMirror, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path+"?again", http.StatusFound)
	},
	"endless": func(m *circleMirror, w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "repomd.xml") {
			m.serve(w, r)
			return
		}
		line := bytes.Repeat([]byte("<!-- more -->\n"), 1000)
		for {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	},
}

// half promises a whole file, sends a part of it and hangs up.
func (m *circleMirror) half(w http.ResponseWriter, r *http.Request, cut func([]byte) []byte) {
	rec := httptest.NewRecorder()
	m.serve(rec, r)
	w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
	w.WriteHeader(rec.Code)
	if r.Method != http.MethodHead {
		w.Write(cut(rec.Body.Bytes()))
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func (m *circleMirror) behave(how string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handler = misbehaviours[how]
}

func newCircle(t *testing.T) *circle {
	t.Helper()
	for _, program := range []string{"rpmbuild", "createrepo_c", "gpg", "rsync", "dnf", "zypper"} {
		testworld.Need(t, program)
	}
	c := &circle{t: t, dir: t.TempDir(), mirrors: map[string]*circleMirror{}}
	c.network = testworld.SampleNetwork("http://vault.example.org/")
	c.network.Versions = []schema.Version{"9", "9.8"}
	c.network.Aliases = map[schema.Version]schema.Version{"9": "9.8"}
	c.network.Modules, c.network.Vault = nil, nil
	c.network.Arches = map[schema.Version][]schema.Arch{"9": {"x86_64"}}
	c.network.Repos = c.network.Repos[:1]
	c.network.AllowedOutdate = outdate
	c.repo = testworld.Repositories(c.network)[0]
	key, err := testworld.NewKey(t.Context(), filepath.Join(c.dir, "key.asc"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := key.Close(); err != nil {
			t.Error(err)
		}
	})
	c.key = key
	if err := os.Mkdir(c.tier0(), 0o755); err != nil {
		t.Fatal(err)
	}
	if c.publish(); t.Failed() {
		t.FailNow()
	}

	// Two of the good ones never sync together: a client whose metalink is older than
	// a sync finds one that has what it says.
	c.add("fresh", 1, 0, "")
	c.add("second", 2, 0, "")
	c.add("third", 4, 3, "")
	c.add("stuck", 0, 0, "")
	c.add("clock-ahead", 1, 0, "clock ahead")
	for i, how := range []string{"html", "truncated", "drips", "tampering", "bomb", "redirect loop", "endless"} {
		c.add(strings.ReplaceAll(how, " ", "-"), 1+i%2, 0, how)
	}
	c.add("two-backends", 1, 0, "two backends")
	if len(c.mirrors) != 13 {
		t.Fatalf("%d mirrors", len(c.mirrors))
	}
	// Now the two backends differ, before anybody asks.
	if c.publish(); t.Failed() {
		t.FailNow()
	}
	var files []*schema.Mirror
	for name, m := range c.mirrors {
		file := testworld.SampleMirror(name+".example.org", m.url, c.network, schema.Location{Country: "DE"})
		if name == "two-backends" {
			// Of nearly all of the bandwidth: in whatever list it is, for whoever asks in
			// whatever hour, it is on the first line.
			file.Bandwidth = 1000 * schema.DefaultBandwidth
		}
		files = append(files, file)
	}
	if err := testworld.WriteNetwork(c.dir, c.network, files); err != nil {
		t.Fatal(err)
	}
	c.bin = filepath.Join(c.dir, "bin")
	if err := testworld.BuildCommands(t.Context(), c.bin, "./cmd/checker", "./cmd/mirrorlist"); err != nil {
		t.Fatal(err)
	}
	return c
}

// tier0 is the tree that is published, and stage the one that is built.
func (c *circle) tier0() string { return filepath.Join(c.dir, "tier0") }
func (c *circle) stage() string { return filepath.Join(c.dir, "stage") }

// publish makes the next generation, and has those mirrors sync that do.
func (c *circle) publish() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	if err := testworld.Publish(c.t.Context(), c.stage(), filepath.Join(c.dir, "pool"), c.key, c.generation, []testworld.Repository{c.repo}); err != nil {
		c.t.Error(err)
		return
	}
	if _, err := syncer.Publish(c.t.Context(), syncer.Job{Source: c.stage(), Dests: []string{c.tier0()}, MaxDelete: -1}); err != nil {
		c.t.Errorf("publish generation %d: %v", c.generation, err)
		return
	}
	for _, m := range c.mirrors {
		if m.every > 0 && c.generation%m.every == m.first {
			c.sync(m)
		}
	}
}

// sync gives a mirror what tier0 has now.
func (c *circle) sync(m *circleMirror) {
	c.t.Helper()
	tree := filepath.Join(c.dir, m.name+"-"+strconv.Itoa(c.generation))
	if err := os.RemoveAll(tree); err != nil {
		c.t.Error(err)
		return
	}
	if err := os.CopyFS(tree, os.DirFS(c.tier0())); err != nil {
		c.t.Error(err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.old, m.tree = m.tree, http.FileServer(http.Dir(tree))
	if m.old == nil {
		m.old = m.tree
	}
}

func (c *circle) add(name string, every, first int, how string) {
	c.t.Helper()
	m := &circleMirror{name: name, every: every, first: first, handler: misbehaviours[how]}
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.46.%d:0", len(c.mirrors)+1))
	if err != nil {
		c.t.Fatal(err)
	}
	srv := &httptest.Server{Listener: ln, Config: &http.Server{Handler: m, ReadHeaderTimeout: time.Minute}}
	srv.Start()
	c.t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	m.url = srv.URL + "/"
	c.sync(m)
	c.mirrors[name] = m
}

// start runs the checker until it has judged every mirror, and has seen both of the
// two backends, and then the server.
func (c *circle) start() {
	t := c.t
	t.Helper()
	settings := "network: network.yml\norigin: tier0/" + testworld.TreeDir("") + "\nstate: dir:state\ninterval: 1s\ncache_dir: cache-checker\nallow_private_addresses: true\n"
	config := filepath.Join(c.dir, "checker.yml")
	if err := os.WriteFile(config, []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.state, err = state.OpenReader("dir:"+filepath.Join(c.dir, "state"), state.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.state.Close() })
	c.child("checker", "run", "-config", config)
	c.until("every mirror is judged", func(s *state.Snapshot) bool {
		for name := range c.mirrors {
			st := s.Mirrors[name+".example.org"]
			if st == nil || st.Visited.IsZero() || st.Health[circleKey] == state.Pending {
				return false
			}
		}
		return outOfStep(s)
	})
	listen, err := testworld.FreeAddr("127.0.46.100")
	if err != nil {
		t.Fatal(err)
	}
	path, err := testworld.WriteSettings(c.dir, testworld.Settings{Listen: listen, CacheDir: "cache", State: "dir:state"})
	if err != nil {
		t.Fatal(err)
	}
	server := c.child("mirrorlist", "serve", "-config", path)
	c.server = "http://" + listen
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := server.Ready(ctx, c.server+"/readyz"); err != nil {
		t.Fatal(err)
	}
}

// outOfStep tells whether the mirror with two backends is kept out of lists for
// that.
func outOfStep(s *state.Snapshot) bool {
	st := s.Mirrors["two-backends.example.org"]
	f := st.Findings[circleKey]
	return st.Health[circleKey] == state.Broken && f != nil && f.Problem != nil && strings.HasSuffix(f.Problem.Reason, "an older repomd.xml follows a newer one")
}

// child runs a command until the end of the test, and demands that it ends well.
func (c *circle) child(name string, args ...string) *testworld.Child {
	c.t.Helper()
	return testworld.Run(c.t, exec.Command(filepath.Join(c.bin, name), args...))
}

// patience is for what would never come; nothing is late before.
const patience = 5 * time.Minute

// until waits until the findings are as a test wants them.
func (c *circle) until(what string, ok func(*state.Snapshot) bool) *state.Snapshot {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	for {
		snap, err := c.state.Load(ctx)
		if err == nil && ok(snap) {
			return snap
		}
		if err != nil && !errors.Is(err, state.ErrNoSnapshot) {
			c.t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			text, _ := json.MarshalIndent(snap, "", " ")
			c.t.Fatalf("%s: not within %v; the findings are\n%s", what, patience, text)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// list asks for the list and remembers it.
func (c *circle) list() string {
	c.t.Helper()
	at := time.Now()
	resp, err := http.Get(c.server + "/mirrorlist/9/baseos?arch=x86_64")
	if err != nil {
		c.t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || len(body) == 0 {
		c.t.Errorf("list: %d, %v: %q", resp.StatusCode, err, body)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listed = append(c.listed, sighting{at, string(body)})
	return string(body)
}

// listFrom asks for the list as a client with that address.
func (c *circle) listFrom(ip net.IP) string {
	c.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}}
	client := http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}}
	resp, err := client.Get(c.server + "/mirrorlist/9/baseos?arch=x86_64")
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		c.t.Errorf("list for %v: %d, %v: %q", ip, resp.StatusCode, err, body)
	}
	return string(body)
}

// helloVersion is the generation of what was installed.
var helloVersion = regexp.MustCompile(`^meridian-hello-1\.([0-9]+)-`)

// install has a new client install through the server, and returns the
// generation that it got.
func (c *circle) install(program string, src testworld.Source) (generation int, err error) {
	make := testworld.NewDnf
	if program == "zypper" {
		make = testworld.NewZypper
	}
	client, err := make(testworld.TempDir(c.t), "x86_64", "9")
	if err != nil {
		return 0, err
	}
	src.ID, src.Key = "baseos", c.key.Public
	if err := client.AddRepo(src); err != nil {
		return 0, err
	}
	res, err := client.Run(c.t.Context(), "install", "meridian-hello")
	if err != nil || res.Code != 0 {
		return 0, fmt.Errorf("exit status %d: %v\n%s", res.Code, err, res.Output)
	}
	got, err := client.Installed(c.t.Context())
	if err != nil {
		return 0, err
	}
	if len(got) != 1 || !helloVersion.MatchString(got[0]) {
		return 0, fmt.Errorf("installed %q", got)
	}
	return strconv.Atoi(helloVersion.FindStringSubmatch(got[0])[1])
}

// A way is how a client asks the server.
type way struct {
	program string
	source  func(server string) testworld.Source
}

var ways = map[string]way{
	"dnf and a mirrorlist":    {"dnf", mirrorlistSource},
	"dnf and a metalink":      {"dnf", metalinkSource},
	"zypper and a mirrorlist": {"zypper", mirrorlistSource},
	"zypper and a metalink":   {"zypper", metalinkSource},
}

func mirrorlistSource(server string) testworld.Source {
	return testworld.Source{Mirrorlist: server + "/mirrorlist/$releasever/baseos?arch=$basearch"}
}

func metalinkSource(server string) testworld.Source {
	return testworld.Source{Metalink: server + "/metalink/$releasever/baseos?arch=$basearch"}
}

// No client fails and none gets what is too old, while the origin publishes
// without a pause and most mirrors misbehave.
func TestCircle(t *testing.T) {
	t.Parallel()
	c := newCircle(t)
	c.start()

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	every := func(d time.Duration, f func()) {
		wg.Go(func() {
			for ctx.Err() == nil {
				f()
				select {
				case <-ctx.Done():
				case <-time.After(d):
				}
			}
		})
	}
	every(4*time.Second, c.publish)
	every(250*time.Millisecond, func() { c.list() })

	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		if round == rounds-1 {
			c.until("one mirror is stale while clients go on", func(s *state.Snapshot) bool {
				return s.Mirrors["stuck.example.org"].Health[circleKey] == state.Stale
			})
		}
		for name, w := range ways {
			asked := time.Now()
			g, err := c.install(w.program, w.source(c.server))
			if err != nil {
				t.Errorf("round %d, %s: %v", round, name, err)
				continue
			}
			c.checkAge(fmt.Sprintf("round %d, %s", round, name), g, asked)
		}
	}
	c.checkVerdicts()
	c.checkListsAfter("tampering", state.Broken)
	c.checkListsAfter("stuck", state.Stale)
	c.checkNeverListed("two-backends")
	stop()
	wg.Wait()
	if t.Failed() {
		return
	}
	c.checkReturn("tampering")
	c.checkExpire()
	c.checkReturn("two-backends")
}

// checkAge demands that a generation could be handed out when its list was asked
// for. A list is made of what the server last saw, which is at most its refresh
// of two seconds old.
func (c *circle) checkAge(what string, generation int, asked time.Time) {
	c.t.Helper()
	snap, err := c.state.Load(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	truth := snap.Truth[circleKey]
	for i, g := range truth.Generations {
		if g.Revision != strconv.Itoa(generation) {
			continue
		}
		if i > 0 {
			if ends := truth.Generations[i-1].FirstSeen.Add(outdate); ends.Before(asked.Add(-3 * time.Second)) {
				c.t.Errorf("%s: got generation %d, which was too old since %v when it was asked for at %v", what, generation, ends, asked)
			}
		}
		return
	}
	// Nobody has seen it at the origin yet, or never did: then it must be newer
	// than those that were.
	if newest := truth.Newest(); newest == nil || atoi(newest.Revision) > generation && !between(truth.Generations, generation, asked) {
		c.t.Errorf("%s: got generation %d, of which nothing is known", what, generation)
	}
}

// between: generations that the checker has not seen, since another one followed
// too soon, are as old as the next one that it has.
func between(known []state.Generation, generation int, asked time.Time) bool {
	for _, g := range slices.Backward(known) {
		if atoi(g.Revision) > generation {
			return g.FirstSeen.Add(outdate).After(asked.Add(-3 * time.Second))
		}
	}
	return false
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

// checkVerdicts demands that each misbehaviour has its verdict and its evidence.
func (c *circle) checkVerdicts() {
	c.t.Helper()
	c.until("the verdicts are those of what mirrors do", func(s *state.Snapshot) bool {
		health := func(name string) state.Health { return s.Mirrors[name+".example.org"].Health[circleKey] }
		return health("fresh").Listable() && health("clock-ahead").Listable() && health("stuck") == state.Stale &&
			health("html") == state.Broken && !health("truncated").Listable() && !health("drips").Listable() && health("bomb") == state.Broken &&
			health("tampering") == state.Broken && outOfStep(s) && !health("redirect-loop").Listable() && !health("endless").Listable()
	})
	snap, err := c.state.Load(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	if w := snap.Mirrors["clock-ahead.example.org"].Warnings; !slices.ContainsFunc(w, func(s string) bool { return strings.Contains(s, "clock") }) {
		c.t.Errorf("nobody is told of a clock that is ahead: %q", w)
	}
	for _, name := range []string{"html", "truncated", "drips", "tampering", "two-backends", "bomb", "redirect-loop", "endless"} {
		st := snap.Mirrors[name+".example.org"]
		problem := st.Problem
		if f := st.Findings[circleKey]; f != nil && f.Problem != nil {
			problem = f.Problem
		}
		if problem == nil || problem.Reason == "" || problem.Evidence == nil || problem.Evidence.Curl() == "" {
			c.t.Errorf("%s is %s without a reason that its operator can follow: %+v", name, st.Health[circleKey], problem)
		}
	}
}

// checkListsAfter demands that a mirror that was found to be something is in no
// list from then on, whatever is published meanwhile.
func (c *circle) checkListsAfter(name string, what state.Health) {
	c.t.Helper()
	m := c.mirrors[name]
	caught, until := c.caught(name, what), time.Time{}
	c.mu.Lock()
	generation := c.generation
	c.mu.Unlock()
	for at := generation; at < generation+3; {
		select {
		case <-c.t.Context().Done():
			c.t.Fatal("the origin does not publish any more")
		case <-time.After(100 * time.Millisecond):
		}
		c.mu.Lock()
		at = c.generation
		until = time.Now()
		c.mu.Unlock()
	}
	c.mu.Lock()
	listed := slices.Clone(c.listed)
	c.mu.Unlock()
	// The server may not have heard of it when it was caught. What counts is that it
	// does, and that the mirror does not come back.
	gone := false
	for _, s := range listed {
		if s.at.Before(caught) || s.at.After(until) {
			continue
		}
		has := strings.Contains(s.list, m.url)
		if has && gone {
			c.t.Errorf("%v after it was seen to be %s, %s is listed again:\n%s", s.at.Sub(caught), what, name, s.list)
			break
		}
		gone = !has
	}
	if !gone {
		c.t.Errorf("no list was seen without %s, which was seen to be %s", name, what)
	}
}

// caught is when a mirror was first found to be something.
func (c *circle) caught(name string, what state.Health) time.Time {
	c.t.Helper()
	events, err := c.history(name + ".example.org")
	if err != nil {
		c.t.Fatal(err)
	}
	i := slices.IndexFunc(events, func(e state.Event) bool { return e.To == what && slices.Contains(e.Keys, circleKey) })
	if i < 0 {
		c.t.Fatalf("no event tells that %s is %s: %+v", name, what, events)
	}
	return events[i].Time
}

// checkNeverListed demands that a mirror was in no list at all.
func (c *circle) checkNeverListed(name string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.listed {
		if strings.Contains(s.list, c.mirrors[name].url) {
			c.t.Errorf("at %v %s is listed:\n%s", s.at, name, s.list)
			return
		}
	}
}

// checkReturn demands that a mirror that was caught comes back once it is right,
// without anybody's help.
func (c *circle) checkReturn(name string) {
	c.t.Helper()
	m := c.mirrors[name]
	m.behave("")
	c.mu.Lock()
	c.sync(m)
	c.mu.Unlock()
	c.until(name+" is fresh", func(s *state.Snapshot) bool {
		return s.Mirrors[name+".example.org"].Health[circleKey] == state.Fresh
	})
}

// history returns the events of a mirror, oldest first.
func (c *circle) history(mirror string) ([]state.Event, error) {
	events, err := c.state.History(c.t.Context(), mirror, 10_000)
	slices.Reverse(events)
	return events, err
}

// checkExpire demands that after a security push nobody is given the generation
// before it, though a mirror has nothing else and would be listed.
func (c *circle) checkExpire() {
	c.t.Helper()
	// However long the steps below take, the mirror lags and is not too old.
	c.network.AllowedOutdate = 24 * time.Hour
	if err := testworld.WriteNetwork(c.dir, c.network, nil); err != nil {
		c.t.Fatal(err)
	}
	lagging := c.mirrors["third"]
	c.mu.Lock()
	c.sync(lagging)
	lagging.every = 0
	before := c.generation
	c.mu.Unlock()
	c.publish()
	c.until("the fix is seen on a mirror, and its absence on another", func(s *state.Snapshot) bool {
		return s.Mirrors["fresh.example.org"].Health[circleKey] == state.Fresh && s.Mirrors["third.example.org"].Health[circleKey] == state.Lagging
	})
	out, err := exec.CommandContext(c.t.Context(), filepath.Join(c.bin, "checker"), "origin", "-config", filepath.Join(c.dir, "checker.yml"), "expire", circleKey.String()).CombinedOutput()
	if err != nil {
		c.t.Fatalf("expire: %v\n%s", err, out)
	}
	c.until("the decision is in force", func(s *state.Snapshot) bool {
		t := s.Truth[circleKey]
		return len(t.Generations) > 1 && (t.Expired || t.Generations[1].Expired)
	})
	// The node reads the state each two seconds: its explanation says when it has.
	c.until("the server acts on it", func(*state.Snapshot) bool {
		return strings.Contains(c.explain(), "holds a generation that was withdrawn")
	})
	// Clients of one network are given one order, so many are asked for. Where third
	// stands by weight alone is chance.
	for i := range 20 {
		list := c.listFrom(net.IPv4(127, 0, byte(100+i), 1))
		if fresh, old := strings.Index(list, c.mirrors["fresh"].url), strings.Index(list, lagging.url); fresh < 0 || old >= 0 && old < fresh {
			c.t.Errorf("after expire, client %d is not led to the fix first:\n%s", i, list)
		}
	}
	for name, w := range ways {
		g, err := c.install(w.program, w.source(c.server))
		if err != nil {
			c.t.Errorf("after expire, %s: %v", name, err)
		} else if g <= before {
			c.t.Errorf("after expire, %s: got generation %d, and %d was withdrawn", name, g, before)
		}
	}
}

func (c *circle) explain() string {
	c.t.Helper()
	resp, err := http.Get(c.server + "/api/v1/explain?" + url.Values{"version": {"9"}, "repo": {"baseos"}, "arch": {"x86_64"}}.Encode())
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(body)
}
