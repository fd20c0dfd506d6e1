package checker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meridian/checker/state"
	"meridian/internal/testworld"
	"meridian/schema"
)

// A station is a checker with everything around it: a tier0 on disk, mirrors on a
// network in memory, files that people edit, and a state directory.
type station struct {
	t     *testing.T
	dir   string
	net   *memNet
	sites map[string]*site
	log   *testworld.Output

	settings Settings
	store    *faultyStore
	told     *audience
	decided  func() (*Overrides, error)

	c    *Checker
	stop context.CancelFunc
	end  chan error
}

// A site is what one mirror serves: a copy of tier0, or what a test makes of it.
type site struct {
	mu      sync.Mutex // guards what follows
	root    string     // a directory that is served
	holds   map[string][]byte
	respond http.HandlerFunc // instead of all that
	asked   []hit
}

type hit struct {
	at   time.Time
	path string
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, hit{time.Now(), r.URL.Path})
	respond := s.respond
	body, ok := s.holds[r.URL.Path]
	s.mu.Unlock()
	switch {
	case respond != nil:
		respond(w, r)
	case !ok:
		http.NotFound(w, r)
	default:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}
}

// sync takes what the directory has now.
func (s *site) sync(t testing.TB) {
	t.Helper()
	holds := map[string][]byte{}
	err := filepath.WalkDir(s.root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		holds[strings.TrimPrefix(path, s.root)] = text
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = holds
}

func (s *site) does(f http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.respond = f
}

// requests are those since a moment.
func (s *site) requests(since time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if !a.at.Before(since) {
			n++
		}
	}
	return n
}

// An audience is who is told of events.
type audience struct {
	mu  sync.Mutex
	all []state.Event
}

func (n *audience) Notify(events []state.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, events...)
}

// A faultyStore fails when a test says so.
type faultyStore struct {
	Store
	mu      sync.Mutex
	acquire error
	write   error
	writes  []*state.Change
}

func (s *faultyStore) fail(acquire, write error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acquire, s.write = acquire, write
}

func (s *faultyStore) Acquire(ctx context.Context) (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acquire != nil {
		return 0, s.acquire
	}
	return s.Store.Acquire(ctx)
}

func (s *faultyStore) Write(ctx context.Context, c *state.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.write != nil {
		return s.write
	}
	s.writes = append(s.writes, c)
	return s.Store.Write(ctx, c)
}

const stationNetwork = `config_version: 3
allowed_outdate: 2h
mirrors_dir: mirrors.d
versions: ["9.8"]
arches: {"9": [x86_64]}
repos:
  - {name: baseos, path: BaseOS/$basearch/os/}
  - {name: appstream, path: AppStream/$basearch/os/}
  - {name: crb, path: CRB/$basearch/os/}
`

var stationKeys = []state.Key{base9, app9, crb9}

// isos9 are the images of the station, of which tier0 has none.
var isos9 = state.Key{Version: "9.8", Repo: isos, Arch: "x86_64"}

// newStation has mirrors of these names, in step with the origin.
func newStation(t *testing.T, mirrors ...string) *station {
	s := &station{t: t, dir: t.TempDir(), net: newMemNet(t), sites: map[string]*site{}, log: new(testworld.Output), told: &audience{}}
	s.decided = func() (*Overrides, error) { return &Overrides{}, nil }
	s.write("network.yml", stationNetwork)
	if err := os.MkdirAll(s.path("mirrors.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.publish("100")
	for _, name := range mirrors {
		s.mirror(name)
	}
	s.settings = Settings{
		Network: s.path("network.yml"), Origin: Origins{mainTree: {s.path("tier0")}}, State: "dir:" + s.path("state"),
		Overrides: s.path("overrides.yml"), CacheDir: s.path("cache"),
	}
	s.reopen()
	return s
}

// reopen opens the state, as another process does.
func (s *station) reopen() {
	s.t.Helper()
	w, err := state.OpenWriter(s.settings.State, state.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.store = &faultyStore{Store: w}
}

func (s *station) path(name string) string { return filepath.Join(s.dir, name) }

func (s *station) write(name, text string) {
	s.t.Helper()
	path := s.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
}

// publish writes a generation of keys, or of all, to tier0.
func (s *station) publish(revision string, keys ...state.Key) {
	s.t.Helper()
	if keys == nil {
		keys = stationKeys
	}
	n := parseNetwork(s.t, stationNetwork)
	for _, k := range keys {
		files := testGeneration(revision, k.String()+" "+revision)
		for _, name := range slices.Backward(slices.Sorted(maps.Keys(files))) { // repomd.xml after the others
			if name != "repodata/repomd.xml" {
				s.write("tier0/"+RepoURL("", n, k)+name, string(files[name]))
			}
		}
		s.write("tier0/"+RepoURL("", n, k)+"repodata/repomd.xml", string(files["repodata/repomd.xml"]))
	}
}

// mirror adds one that has what tier0 has now.
func (s *station) mirror(name string) *site {
	s.t.Helper()
	at := &site{root: s.path("tier0")}
	at.sync(s.t)
	s.sites[name] = at
	addr := fmt.Sprintf("8.8.%d.%d", len(s.sites)/250, 1+len(s.sites)%250)
	s.net.host(name, addr)
	s.net.serve(addr+":80", at, nil)
	s.write("mirrors.d/"+name+".yml", "name: "+name+"\naddress: {http: http://"+name+"/}\nupdate_frequency: 1h\n")
	return at
}

// start starts the checker.
func (s *station) start() {
	s.t.Helper()
	c, err := New(Options{
		Settings: s.settings, Store: s.store, Notifier: s.told, ReadOverrides: func() (*Overrides, error) { return s.decided() },
		Log:   slog.New(slog.NewTextHandler(s.log, nil)),
		Probe: ProbeOptions{Dial: s.net.Dial, Lookup: s.net.Lookup},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	end := make(chan error, 1)
	s.c, s.stop, s.end = c, cancel, end
	go func() { end <- c.Run(ctx) }()
}

// halt stops it, and waits.
func (s *station) halt() {
	s.t.Helper()
	s.stop()
	if err := <-s.end; err != nil {
		s.t.Errorf("the checker ends with %v", err)
	}
}

// pass lets time pass.
func (s *station) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// stored is what a mirrorlist server reads.
func (s *station) stored() *state.Snapshot {
	s.t.Helper()
	r, err := state.OpenReader(s.settings.State, state.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	snap, err := r.Load(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return snap
}

// wants checks what is stored of a mirror: "fresh fresh lagging", in the order of
// stationKeys, or one word for all.
func (s *station) wants(mirror, healths string) {
	s.t.Helper()
	want := strings.Fields(healths)
	st := s.stored().Mirrors[mirror]
	if st == nil {
		s.t.Fatalf("nothing is stored of %s", mirror)
	}
	for i, k := range stationKeys {
		if h, w := st.Health[k].String(), want[min(i, len(want)-1)]; h != w {
			s.t.Errorf("%s: %s is %s, want %s: %s", mirror, k, h, w, asJSON(s.t, st))
		}
	}
}

// inBubble plays a test in virtual time.
func inBubble(t *testing.T, mirrors []string, play func(s *station)) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, mirrors...)
		play(s)
		if s.stop != nil {
			s.stop()
		}
	})
}

func TestRunFindsOutAndStores(t *testing.T) {
	inBubble(t, []string{"good.example", "html.example", "partial.example", "gone.example", "secret.example"}, func(s *station) {
		s.sites["html.example"].does(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>welcome</html>") })
		s.sites["gone.example"].does(func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
		delete(s.sites["partial.example"].holds, "/9.8/CRB/x86_64/os/repodata/repomd.xml")
		s.write("mirrors.d/secret.example.yml", "name: secret.example\naddress: {http: http://secret.example/}\nprivate: true\nsubnets: [192.0.2.0/24]\n")
		s.start()
		s.pass(3 * time.Minute)
		s.wants("good.example", "fresh")
		s.wants("html.example", "broken")
		s.wants("partial.example", "fresh fresh absent")
		s.wants("gone.example", "down")
		s.wants("secret.example", "unprobed")
		for name, st := range s.stored().Mirrors {
			if h, judged := st.Health[isos9]; judged {
				s.t.Errorf("%s is %s for images that tier0 does not have", name, h)
			}
		}
		if n := s.sites["secret.example"].requests(time.Time{}); n > 0 {
			s.t.Errorf("a private mirror was asked %d times", n)
		}
		snap := s.stored()
		if len(snap.Truth) != 4 || !snap.Truth[isos9].Absent || snap.Truth[base9].Generations[0].Revision != "100" {
			s.t.Errorf("the truth is %s", asJSON(s.t, snap.Truth))
		}
		if p := snap.Mirrors["html.example"].Problem; p == nil || p.Evidence == nil || !strings.Contains(p.Evidence.Body, "welcome") {
			s.t.Errorf("html.example is shown %s", asJSON(s.t, p))
		}
		history, err := s.store.History(s.t.Context(), "html.example", 10)
		if err != nil || len(history) != 1 || history[0].To != state.Broken {
			s.t.Errorf("history %s, %v", asJSON(s.t, history), err)
		}
		if n := strings.Count(s.log.String(), `msg="mirror is broken"`); n != 1 {
			s.t.Errorf("a change of verdict has %d lines in the log, want 1:\n%s", n, s.log)
		}
		if at := s.c.Standing(); !at.Active || at.Stored.IsZero() || at.Visits < 5 || at.Snapshot.Mirrors["good.example"].Health[base9] != state.Fresh {
			s.t.Errorf("the checker shows %+v", at)
		}
		s.pass(time.Hour)
		if age := time.Since(s.stored().Taken); age > restEvery+2*time.Second {
			s.t.Errorf("what is stored is %s old: nobody can tell that the checker lives", age)
		}
		s.halt()
	})
}

func TestRunFollowsAPublication(t *testing.T) {
	inBubble(t, []string{"a.example", "b.example", "c.example"}, func(s *station) {
		s.start()
		s.pass(10 * time.Minute)
		s.wants("a.example", "fresh")
		s.publish("200", base9, app9)
		published := time.Now()
		s.sites["a.example"].sync(s.t)
		s.pass(2*time.Minute + 10*time.Second)
		s.wants("a.example", "fresh")
		s.wants("b.example", "lagging lagging fresh")
		if holds := s.stored().Mirrors["b.example"].Holds[base9]; holds != s.stored().Truth[base9].Generations[1].ID() {
			s.t.Errorf("b.example holds %s", holds)
		}
		for k, t := range s.stored().Truth {
			if k != isos9 && t.Newest().FirstSeen.Sub(published) > time.Minute+5*time.Second && k != crb9 {
				s.t.Errorf("%s was seen %s after it was published", k, t.Newest().FirstSeen.Sub(published))
			}
		}
		// b syncs ten minutes later, and c never.
		s.pass(8 * time.Minute)
		s.sites["b.example"].sync(s.t)
		s.pass(2*time.Minute + 10*time.Second)
		s.wants("b.example", "fresh")
		history, _ := s.store.History(s.t.Context(), "b.example", 1)
		if len(history) != 1 || history[0].Lag < 9*time.Minute || history[0].Lag > 13*time.Minute {
			s.t.Errorf("history %s, want a lag of about eleven minutes", asJSON(s.t, history))
		}
		s.pass(2 * time.Hour)
		s.wants("c.example", "stale stale fresh")
		s.sites["c.example"].sync(s.t)
		s.pass(quietest)
		s.wants("c.example", "fresh")
		s.halt()
	})
}

// What was found out before a restart counts after it, and nobody is asked for
// everything again.
func TestRunAfterARestart(t *testing.T) {
	inBubble(t, []string{"good.example", "liar.example", "late.example"}, func(s *station) {
		s.start()
		s.pass(5 * time.Minute)
		s.publish("200")
		for _, name := range []string{"good.example", "liar.example"} {
			s.sites[name].sync(s.t)
		}
		path := "/9.8/BaseOS/x86_64/os/repodata/repomd.xml"
		liar := s.sites["liar.example"]
		liar.mu.Lock()
		liar.holds[path] = append(bytes.TrimSpace(liar.holds[path]), "<!-- mine -->"...)
		liar.mu.Unlock()
		s.pass(5 * time.Minute)
		s.wants("good.example", "fresh")
		s.wants("liar.example", "broken fresh fresh")
		s.wants("late.example", "lagging")
		s.halt()
		before := s.stored()

		liar.sync(s.t)
		s.pass(time.Minute)
		from := time.Now()
		s.reopen()
		s.start()
		s.pass(time.Second)
		s.wants("good.example", "fresh")
		s.wants("liar.example", "broken fresh fresh")
		s.wants("late.example", "lagging")
		if got, want := asJSON(s.t, s.stored().Truth[base9].Generations), asJSON(s.t, before.Truth[base9].Generations); got != want {
			s.t.Errorf("the truth is %s after a restart, and was %s", got, want)
		}
		s.pass(quietest)
		s.wants("liar.example", "broken fresh fresh")
		if n := s.sites["good.example"].requests(from); n == 0 || n > 8 {
			s.t.Errorf("a mirror is asked %d times in the quarter of an hour after a restart, want a few", n)
		}
		s.pass(2 * time.Hour)
		s.wants("liar.example", "fresh")
		s.halt()
	})
}

// With the origin away, and what was remembered of it lost, mirrors that have what
// it has published are known by that.
func TestNewMirrorsWhileTheOriginIsAway(t *testing.T) {
	inBubble(t, []string{"old.example"}, func(s *station) {
		s.start()
		s.pass(5 * time.Minute)
		s.halt()
		s.mirror("new.example")
		short := s.mirror("short.example")
		for path := range short.holds {
			if strings.Contains(path, "primary") {
				delete(short.holds, path)
			}
		}
		if err := os.Rename(s.path("tier0"), s.path("away")); err != nil {
			s.t.Fatal(err)
		}
		if err := os.RemoveAll(s.path("cache")); err != nil {
			s.t.Fatal(err)
		}
		s.reopen()
		s.start()
		s.pass(5 * time.Minute)
		s.wants("old.example", "fresh")
		s.wants("new.example", "fresh")
		s.wants("short.example", "broken")
		s.halt()
	})
}

// Of two checkers one visits mirrors and writes, and the other takes over when it
// stops, knowing what the first one knew.
func TestTwoCheckers(t *testing.T) {
	inBubble(t, []string{"a.example"}, func(s *station) {
		s.start()
		s.pass(2 * time.Minute)
		first, stopFirst, endFirst := s.c, s.stop, s.end
		s.reopen()
		s.start()
		s.pass(2 * time.Minute)
		if s.c.Standing().Active || !first.Standing().Active {
			s.t.Fatal("two checkers are active")
		}
		if n := strings.Count(s.log.String(), "standing by"); n != 1 {
			s.t.Errorf("the second one says %d times that it stands by", n)
		}
		from := time.Now()
		stopFirst()
		if err := <-endFirst; err != nil {
			s.t.Error(err)
		}
		s.pass(standbyEvery + time.Second)
		if !s.c.Standing().Active {
			s.t.Fatal("the second checker does not take over")
		}
		s.wants("a.example", "fresh")
		s.pass(quietest)
		if n := s.sites["a.example"].requests(from); n == 0 || n > 8 {
			s.t.Errorf("the mirror is asked %d times by who takes over", n)
		}
		s.halt()
	})
}

// A checker whose lease has gone to another one writes nothing any more, and
// waits.
func TestTheLeaseIsLost(t *testing.T) {
	for _, tt := range []struct {
		name           string
		acquire, write error
	}{
		{"a renewal tells", ErrNotHolder, nil},
		{"a write tells", nil, fmt.Errorf("fenced: %w", ErrNotHolder)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, []string{"a.example"}, func(s *station) {
				s.start()
				s.pass(2 * time.Minute)
				s.store.fail(tt.acquire, tt.write)
				s.pass(2 * time.Minute)
				if tt.acquire != nil && s.c.Standing().Active {
					s.t.Fatal("it is still active")
				}
				if strings.Count(s.log.String(), "gone to another checker") == 0 {
					s.t.Errorf("nobody is told:\n%s", s.log)
				}
				s.store.fail(nil, nil)
				s.pass(time.Minute)
				if !s.c.Standing().Active {
					s.t.Error("it does not take up the lease again")
				}
				s.halt()
			})
		})
	}
}

// While the store is away, findings are kept; when it is back, even empty, it has
// all of them.
func TestTheStoreIsAway(t *testing.T) {
	inBubble(t, []string{"a.example", "b.example"}, func(s *station) {
		s.start()
		s.pass(2 * time.Minute)
		away := errors.New("connection refused")
		s.store.fail(away, away)
		s.sites["b.example"].does(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") })
		s.pass(quietest)
		s.wants("b.example", "fresh")
		if st := s.c.Standing(); st.StoreErr == nil || st.Snapshot.Mirrors["b.example"].Health[base9] != state.Broken {
			s.t.Errorf("the checker does not go on: %+v", st)
		}
		if n := strings.Count(s.log.String(), "findings cannot be stored"); n != 1 {
			s.t.Errorf("it is said %d times that the store is away", n)
		}
		// It comes back empty.
		if err := os.RemoveAll(s.path("state")); err != nil {
			s.t.Fatal(err)
		}
		s.store.fail(nil, nil)
		s.pass(time.Minute)
		s.wants("a.example", "fresh")
		s.wants("b.example", "broken")
		history, _ := s.store.History(s.t.Context(), "b.example", 10)
		n := 0
		for _, e := range history {
			if e.To == state.Broken {
				n += len(e.Keys)
			}
		}
		if n != len(stationKeys) {
			s.t.Errorf("what happened meanwhile is lost: %s", asJSON(s.t, history))
		}
		if s.c.Standing().StoreErr != nil {
			s.t.Error(s.c.Standing().StoreErr)
		}
		s.halt()
	})
}

func TestFilesAreReloaded(t *testing.T) {
	inBubble(t, []string{"a.example", "b.example", "c.example", "d.example"}, func(s *station) {
		s.start()
		s.pass(2 * time.Minute)
		s.mirror("new.example")
		s.pass(80 * time.Second)
		s.wants("new.example", "fresh")

		// A file that becomes bad changes nothing.
		s.write("mirrors.d/a.example.yml", "name: [")
		s.pass(15 * time.Second)
		s.wants("a.example", "fresh")
		if s.c.Standing().Problems["mirrors"] == nil {
			s.t.Error("nobody is told of the bad file")
		}
		// A mirror that is gone is gone from the state.
		if err := os.Remove(s.path("mirrors.d/a.example.yml")); err != nil {
			s.t.Fatal(err)
		}
		s.pass(15 * time.Second)
		if s.stored().Mirrors["a.example"] != nil || s.c.Hint("a.example") {
			s.t.Error("a mirror whose file is gone is still there")
		}
		// Half of the mirrors at once needs to be said twice.
		for _, name := range []string{"b.example", "c.example"} {
			if err := os.Remove(s.path("mirrors.d/" + name + ".yml")); err != nil {
				s.t.Fatal(err)
			}
		}
		s.pass(15 * time.Second)
		if s.stored().Mirrors["b.example"] == nil {
			s.t.Error("half of the mirrors are gone without being asked for")
		}
		if err := s.c.Reload(s.t.Context(), true); err != nil {
			s.t.Error(err)
		}
		s.pass(2 * time.Second)
		if s.stored().Mirrors["b.example"] != nil {
			s.t.Error("a forced reload does not take the mirrors away")
		}
		// A repository that is new is probed within a minute.
		s.write("tier0/9.8/NFV/x86_64/os/repodata/x", "")
		s.write("network.yml", stationNetwork+"  - {name: nfv, path: NFV/$basearch/os/}\n")
		nfv := state.Key{Version: "9.8", Repo: "nfv", Arch: "x86_64"}
		files := testGeneration("100", "nfv")
		for name, text := range files {
			s.write("tier0/9.8/NFV/x86_64/os/"+name, string(text))
		}
		s.sites["d.example"].sync(s.t)
		s.pass(90 * time.Second)
		if h := s.stored().Mirrors["d.example"].Health[nfv]; h != state.Fresh {
			s.t.Errorf("a new repository is %s\n%s", h, s.log)
		}
		if h := s.stored().Mirrors["new.example"].Health[nfv]; h != state.Absent {
			s.t.Errorf("a new repository that the mirror lacks is %s", h)
		}
		s.halt()
	})
}

func TestOverridesTakeEffectWithinSeconds(t *testing.T) {
	inBubble(t, []string{"a.example", "b.example"}, func(s *station) {
		var mu sync.Mutex
		decisions := &Overrides{}
		s.decided = func() (*Overrides, error) {
			mu.Lock()
			defer mu.Unlock()
			return decisions, nil
		}
		decide := func(o *Overrides) {
			mu.Lock()
			decisions = o
			mu.Unlock()
			s.write("overrides.yml", fmt.Sprint(time.Now().UnixNano()))
		}
		s.start()
		s.pass(2 * time.Minute)
		decide(&Overrides{
			Mirrors:   map[string]MirrorOverride{"a.example": {Disabled: true, Reason: "moving", Until: time.Now().Add(time.Hour)}},
			Withdrawn: []Withdrawal{{Key: "9.8/crb/*", Reason: "a bad build"}},
		})
		s.pass(5 * time.Second)
		snap := s.stored()
		if o := snap.Mirrors["a.example"].Override; o == nil || !o.Disabled || o.Reason != "moving" {
			s.t.Errorf("a.example has the override %s", asJSON(s.t, o))
		}
		if snap.Mirrors["b.example"].Override != nil || snap.Truth[crb9].Withdrawn != "a bad build" || snap.Truth[base9].Withdrawn != "" {
			s.t.Errorf("withdrawn: %q, %q", snap.Truth[crb9].Withdrawn, snap.Truth[base9].Withdrawn)
		}
		s.publish("200")
		s.pass(30 * time.Minute)
		if o := s.stored().Mirrors["a.example"].Override; o == nil {
			s.t.Error("the override is gone after some visits")
		}
		if t := s.stored().Truth[crb9]; t.Withdrawn != "a bad build" || t.Newest().Revision != "200" {
			s.t.Errorf("after a publication the truth is %s", asJSON(s.t, t))
		}
		s.pass(31 * time.Minute)
		if o := s.stored().Mirrors["a.example"].Override; o != nil {
			s.t.Error("the override has not ended by itself")
		}
		history, _ := s.store.History(s.t.Context(), "a.example", 100)
		n := 0
		for _, e := range history {
			if e.Kind == state.OverrideChanged {
				n++
			}
		}
		if n != 2 {
			s.t.Errorf("%d events of the override, want that it began and that it ended", n)
		}
		decide(&Overrides{})
		s.pass(5 * time.Second)
		var told []string
		history, _ = s.store.History(s.t.Context(), "", 100)
		for _, e := range history {
			if e.Kind == state.OverrideChanged && slices.Equal(e.Keys, []state.Key{crb9}) {
				told = append(told, e.Problem.Reason)
			}
		}
		if want := []string{"the decision of an administrator has ended: a bad build", "withdrawn from everybody by an administrator: a bad build"}; !slices.Equal(told, want) {
			s.t.Errorf("of the withdrawal is told %q, want %q", told, want)
		}
		s.halt()
	})
}

// A file of decisions that cannot be read takes back nothing.
func TestOverridesOutliveARestart(t *testing.T) {
	inBubble(t, []string{"a.example"}, func(s *station) {
		s.decided = func() (*Overrides, error) {
			return &Overrides{
				Mirrors:   map[string]MirrorOverride{"a.example": {Disabled: true, Reason: "compromised"}},
				Withdrawn: []Withdrawal{{Key: "9.8/crb/*", Reason: "a bad build"}},
			}, nil
		}
		s.write("overrides.yml", "1")
		s.start()
		s.pass(2 * time.Minute)
		s.halt()

		good := s.decided
		s.decided = func() (*Overrides, error) { return nil, errors.New("line 3: not YAML") }
		s.reopen()
		s.start()
		s.publish("200")
		s.pass(2 * time.Minute)
		snap := s.stored()
		if o := snap.Mirrors["a.example"].Override; o == nil || !o.Disabled {
			s.t.Errorf("a mirror that is disabled has the override %s", asJSON(s.t, o))
		}
		if t := snap.Truth[crb9]; t.Withdrawn != "a bad build" || t.Newest().Revision != "200" {
			s.t.Errorf("the truth of what is withdrawn is %s", asJSON(s.t, t))
		}

		s.decided = func() (*Overrides, error) {
			o, err := good()
			clear(o.Mirrors)
			return o, err
		}
		s.write("overrides.yml", "22")
		s.pass(5 * time.Second)
		if o := s.stored().Mirrors["a.example"].Override; o != nil {
			s.t.Errorf("what was taken out of the file is still %s", asJSON(s.t, o))
		}
		s.halt()
	})
}

func TestAHintIsFollowed(t *testing.T) {
	inBubble(t, []string{"a.example"}, func(s *station) {
		s.start()
		s.pass(5 * time.Minute)
		s.publish("200")
		s.pass(70 * time.Minute)
		s.wants("a.example", "lagging")
		s.sites["a.example"].sync(s.t)
		if !s.c.Hint("a.example") || s.c.Hint("nobody.example") {
			s.t.Error("a hint is taken for a mirror that there is, and for no other")
		}
		s.pass(soon + 10*time.Second)
		s.wants("a.example", "fresh")
		s.halt()
	})
}

// A mirror that has something newer is not believed before the origin was asked,
// nor accused.
func TestTheOriginIsAskedFirst(t *testing.T) {
	inBubble(t, []string{"fast.example", "liar.example"}, func(s *station) {
		s.start()
		s.pass(10 * time.Minute)
		// The origin publishes, and has been synced from before it is polled.
		s.publish("200")
		s.sites["fast.example"].sync(s.t)
		s.c.Hint("fast.example")
		s.pass(10 * time.Second)
		s.wants("fast.example", "fresh")
		s.pass(10 * time.Minute)

		// Somebody makes a generation of his own.
		liar := s.sites["liar.example"]
		forged := testGeneration("300", "other")["repodata/repomd.xml"]
		liar.mu.Lock()
		liar.holds["/9.8/BaseOS/x86_64/os/repodata/repomd.xml"] = forged
		liar.mu.Unlock()
		s.c.Hint("liar.example")
		s.pass(soon + 10*time.Second)
		s.wants("liar.example", "broken lagging lagging")
		for _, e := range s.told.all {
			if e.To == state.Ahead {
				s.t.Errorf("somebody was listed as ahead of an origin that can be asked: %s", asJSON(s.t, e))
			}
		}

		// Without the origin nobody can tell.
		if err := os.Rename(s.path("tier0"), s.path("away")); err != nil {
			s.t.Fatal(err)
		}
		s.pass(2 * time.Minute)
		fast := s.sites["fast.example"]
		fast.mu.Lock()
		fast.holds["/9.8/BaseOS/x86_64/os/repodata/repomd.xml"] = forged
		fast.mu.Unlock()
		s.c.Hint("fast.example")
		s.pass(2 * time.Minute)
		s.wants("fast.example", "ahead fresh fresh")
		s.halt()
	})
}

// One host, under however many names, makes nobody doubt the origin: not when it
// is away, and not of what nobody else has.
func TestOneHostDisputesNothing(t *testing.T) {
	inBubble(t, []string{"a.example", "other.example"}, func(s *station) {
		for _, name := range []string{"b.example", "c.example", "d.example"} {
			s.write("mirrors.d/"+name+".yml", "name: "+name+"\naddress: {http: http://a.example/}\nupdate_frequency: 1h\n")
		}
		s.settings.Interval = 2 * time.Minute
		s.start()
		s.pass(10 * time.Minute)
		if err := os.Rename(s.path("tier0"), s.path("away")); err != nil {
			s.t.Fatal(err)
		}
		s.pass(2 * time.Minute)
		newer := testGeneration("200", "newer")["repodata/repomd.xml"]
		s.sites["a.example"].holding(newer)
		s.pass(time.Hour)
		for _, name := range []string{"a.example", "b.example", "c.example", "d.example"} {
			s.wants(name, "ahead fresh fresh")
		}
		if at := s.stored().Truth[base9].Disputed; !at.IsZero() {
			s.t.Errorf("four mirrors on one host have doubted the origin at %s", at)
		}
		s.sites["other.example"].holding(newer)
		s.pass(time.Hour)
		s.wants("other.example", "ahead fresh fresh")
		if s.stored().Truth[base9].Disputed.IsZero() {
			s.t.Error("both hosts that there are have something newer, and it is not said")
		}
		// The files of one that leaves count no more.
		if err := os.Remove(s.path("mirrors.d/other.example.yml")); err != nil {
			s.t.Fatal(err)
		}
		s.pass(time.Minute)
		if at := s.stored().Truth[base9].Disputed; !at.IsZero() {
			s.t.Errorf("one host is left, and the origin is doubted since %s", at)
		}
		s.halt()
	})
}

// Files may change while a visit waits for what the origin says: it has left the
// host, which would never be visited again if it counted.
func TestReloadWhileTheOriginIsAsked(t *testing.T) {
	busy := func(name string) *member {
		m := &schema.Mirror{Name: name, Address: schema.Address{HTTP: "http://" + name + "/"}}
		return &member{subject: subject{m, newPromises(nil)}, busy: true}
	}
	waits, visits := busy("waits.example"), busy("visits.example")
	l := &loop{c: &Checker{}, order: []*member{waits, visits}, parked: []visited{{m: waits}}}
	l.gather(time.Now())
	if waits.host.visits > 0 {
		t.Error("the host of a visit that waits for the origin is taken for busy")
	}
	if visits.host.visits != 1 {
		t.Error("a host that is visited is taken for free")
	}
}

// What is no repository of the network any more is no longer in the state, though
// the store could not be written when it left.
func TestTruthIsForgotten(t *testing.T) {
	inBubble(t, []string{"a.example"}, func(s *station) {
		s.start()
		s.pass(2 * time.Minute)
		s.store.fail(nil, errors.New("disk full"))
		less, _, _ := strings.Cut(stationNetwork, "  - {name: crb")
		s.write("network.yml", less)
		s.pass(time.Minute)
		s.store.fail(nil, nil)
		s.pass(time.Minute)
		if t, ok := s.stored().Truth[crb9]; ok {
			s.t.Errorf("of a repository that is no more, %s is stored", asJSON(s.t, t))
		}
		if len(s.stored().Truth) != 3 {
			s.t.Errorf("the truth is %s", asJSON(s.t, s.stored().Truth))
		}
		s.write("network.yml", stationNetwork)
		s.pass(2 * time.Minute)
		s.wants("a.example", "fresh")
		if tr := s.stored().Truth[crb9]; tr.Newest() == nil {
			s.t.Error("what is back is not known")
		}
		s.halt()
		// So it is when the network changes while no checker runs.
		s.write("network.yml", less)
		s.reopen()
		s.start()
		s.pass(2 * time.Minute)
		if _, ok := s.stored().Truth[crb9]; ok {
			s.t.Error("after a restart, a repository that is no more is stored")
		}
		s.halt()
	})
}

// Two hosts that turn out to be one, while both are visited, are free when both
// visits have ended.
func TestHostsThatBecomeOne(t *testing.T) {
	visiting := func(name string) *member {
		m := &schema.Mirror{Name: name, Address: schema.Address{HTTP: "http://" + name + "/"}}
		return &member{subject: subject{m, newPromises(nil)}, busy: true, agenda: &agenda{}, status: &state.Status{}}
	}
	a, b := visiting("a.example"), visiting("b.example")
	l := &loop{
		c: &Checker{}, sched: &schedule{interval: quietest}, order: []*member{a, b},
		members: map[string]*member{"a.example": a, "b.example": b},
	}
	l.gather(time.Now())
	if a.host == b.host {
		t.Fatal("two hosts are one")
	}
	was := b.Mirror
	b.Mirror = &schema.Mirror{Name: b.Name, Address: schema.Address{HTTP: "http://a.example/"}}
	l.gather(time.Now())
	if a.host != b.host || a.host.visits != 2 {
		t.Fatalf("hosts %p and %p with %d visits, want one with two", a.host, b.host, a.host.visits)
	}
	l.came(visited{m: b, mirror: was, o: &Observation{}, ended: time.Now()})
	if a.host.visits != 1 {
		t.Errorf("%d visits are under way, want that of a", a.host.visits)
	}
}

// When this host has no network, no mirror is blamed for it, and what is stored
// grows old, so that it is not believed for ever.
func TestThisHostIsCutOff(t *testing.T) {
	names := []string{"a.example", "b.example", "c.example", "d.example", "e.example", "f.example", "g.example", "h.example"}
	inBubble(t, names, func(s *station) {
		s.settings.Interval = 2 * time.Minute
		s.start()
		s.pass(10 * time.Minute)
		for _, at := range s.sites {
			at.does(func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
		}
		cut := time.Now()
		s.pass(time.Hour)
		for _, name := range names {
			s.wants(name, "fresh")
		}
		if !s.c.Standing().Blind || strings.Count(s.log.String(), "lost its network") != 1 {
			s.t.Errorf("it is not noticed:\n%s", s.log)
		}
		if taken := s.stored().Taken; taken.After(cut.Add(time.Minute)) {
			s.t.Errorf("what is stored claims to be of %s, %s after the network went away", taken, taken.Sub(cut))
		}
		for _, at := range s.sites {
			at.does(nil)
		}
		s.sites["a.example"].does(func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
		s.pass(10 * time.Minute)
		if s.c.Standing().Blind {
			s.t.Error("it is not noticed that the network is back")
		}
		s.wants("a.example", "down")
		s.wants("b.example", "fresh")
		s.halt()
	})
}

func TestOnce(t *testing.T) {
	inBubble(t, []string{"good.example", "down.example"}, func(s *station) {
		s.sites["down.example"].does(func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
		once := func() (*Round, error) {
			c, err := New(Options{
				Settings: s.settings, Store: s.store, Log: slog.New(slog.NewTextHandler(s.log, nil)),
				Probe: ProbeOptions{Dial: s.net.Dial, Lookup: s.net.Lookup},
			})
			if err != nil {
				s.t.Fatal(err)
			}
			return c.Once(s.t.Context())
		}
		began := time.Now()
		r, err := once()
		if err != nil {
			s.t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Minute {
			s.t.Errorf("a round takes %s", took)
		}
		if r.Mirrors != 2 || r.Answered != 1 || r.Snapshot.Mirrors["good.example"].Health[base9] != state.Fresh {
			s.t.Errorf("the round is %+v", r)
		}
		s.wants("good.example", "fresh")
		s.wants("down.example", "down")

		// Once more, with what is known: everybody is asked for everything.
		s.publish("200", crb9)
		from := time.Now()
		s.reopen()
		if r, err = once(); err != nil {
			s.t.Fatal(err)
		}
		s.wants("good.example", "fresh fresh lagging")
		if n := s.sites["good.example"].requests(from); n < 3 {
			s.t.Errorf("only %d requests", n)
		}
		// Not beside another one.
		s.reopen()
		s.start()
		s.pass(time.Minute)
		s.reopen()
		if _, err = once(); !errors.Is(err, ErrNotHolder) {
			s.t.Errorf("beside a checker that runs: %v", err)
		}
		s.halt()
	})
}

func TestSettingsAreChecked(t *testing.T) {
	good := Settings{Network: "network.yml", Origin: Origins{mainTree: {"/srv/tier0"}}, State: "dir:/var/lib/meridian"}
	if err := good.Check(); err != nil || good.Interval != quietest {
		t.Errorf("good settings: %v, interval %s", err, good.Interval)
	}
	for name, tt := range map[string]struct {
		edit func(*Settings)
		want string
	}{
		"no network":       {func(s *Settings) { s.Network = "" }, "the network is not named"},
		"no origin":        {func(s *Settings) { s.Origin = nil }, "the origin is not named"},
		"no state":         {func(s *Settings) { s.State = "" }, "where findings are kept"},
		"a long interval":  {func(s *Settings) { s.Interval = time.Hour }, "write 1s to 15m"},
		"a short interval": {func(s *Settings) { s.Interval = time.Millisecond }, "write 1s to 15m"},
		"an odd address":   {func(s *Settings) { s.Listen = "8082" }, "write HOST:PORT"},
		"an odd contact":   {func(s *Settings) { s.ContactURL = "me" }, "contact_url"},
		"an odd vantage":   {func(s *Settings) { s.Vantage = "Frankfurt am Main" }, "vantage"},
	} {
		s := good
		tt.edit(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// However many mirrors are slow at once, no more than maxVisits are visited, and
// all have their turn.
func TestVisitsUnderWayAreBounded(t *testing.T) {
	var names []string
	for i := range 2 * maxVisits {
		names = append(names, fmt.Sprintf("m%03d.example", i))
	}
	inBubble(t, names, func(s *station) {
		var mu sync.Mutex
		now, most := 0, 0
		for _, at := range s.sites {
			asked := 0 // at a time: one visit may ask for several things
			at.does(func(_ http.ResponseWriter, r *http.Request) {
				time.Sleep(time.Millisecond) // whoever has just ended is gone by then
				mu.Lock()
				if asked++; asked == 1 {
					now++
				}
				most = max(most, now)
				mu.Unlock()
				select {
				case <-r.Context().Done():
				case <-time.After(time.Hour):
				}
				mu.Lock()
				if asked--; asked == 0 {
					now--
				}
				mu.Unlock()
			})
		}
		began := time.Now()
		s.start()
		s.pass(5 * time.Minute)
		if most != maxVisits {
			s.t.Errorf("%d mirrors are asked at a time, want %d", most, maxVisits)
		}
		for name, at := range s.sites {
			if at.requests(began) == 0 {
				s.t.Errorf("%s is not visited", name)
			}
		}
		s.halt()
	})
}

// A status is that of an answer over HTTP: of a file there is none.
func TestAnswerInTheLog(t *testing.T) {
	for _, tt := range []struct {
		name     string
		evidence state.Evidence
		want     string // "": nothing
	}{
		{"a status", state.Evidence{URL: "http://m.example.org/TIME", Status: 503}, "answer=503"},
		{"an error", state.Evidence{URL: "http://m.example.org/TIME", Error: "refused"}, "answer=refused"},
		{"a file", state.Evidence{URL: "file:///srv/tier0/TIME"}, ""},
	} {
		var out strings.Builder
		c := &Checker{log: slog.New(slog.NewTextHandler(&out, nil))}
		c.logEvent(&state.Event{Kind: state.OriginTroubled, Problem: &state.Problem{Reason: "wrong", Evidence: &tt.evidence}})
		if line := out.String(); !strings.Contains(line, "url="+tt.evidence.URL) || !strings.Contains(line, tt.want) || tt.want == "" && strings.Contains(line, "answer=") {
			t.Errorf("%s: logged %s", tt.name, line)
		}
	}
}
