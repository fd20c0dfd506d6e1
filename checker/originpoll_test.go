package checker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"meridian/checker/state"
	"meridian/internal/fetch"
)

// memory is a tier0 without files: it has whatever is not said to be missing, and
// counts who asks when.
type memory struct {
	mu      sync.Mutex // guards what follows
	asked   map[string][]time.Time
	whole   map[string]int // of asked, without a stamp
	missing map[string]bool
	next    map[string]bool // what has a second generation
	broken  bool            // no answer comes
	slow    time.Duration   // what every answer takes
}

func (m *memory) read(ctx context.Context, path string, known stamp) reply {
	m.mu.Lock()
	m.asked[path] = append(m.asked[path], time.Now())
	broken, slow, missing := m.broken, m.slow, m.missing[path]
	revision := "100"
	if m.next[path] {
		revision = "101"
	}
	unchanged := known.web.ETag == revision
	if !unchanged {
		m.whole[path]++
	}
	m.mu.Unlock()
	time.Sleep(slow)
	none := func(error) *state.Evidence { return &state.Evidence{URL: path} }
	switch {
	case broken:
		return reply{outcome: Unreachable, broken: true, err: errors.New("no answer"), evidence: none}
	case missing, strings.HasSuffix(path, checksumFile):
		return reply{outcome: Missing, err: errors.New("not there"), evidence: none}
	}
	return reply{
		outcome: Served, unchanged: unchanged, stamp: stamp{web: fetch.Validators{ETag: revision}},
		body: testGeneration(revision, path)["repodata/repomd.xml"], evidence: none,
	}
}

func (m *memory) publish(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next[path] = true
}

func (m *memory) size(context.Context, string) reply {
	return reply{outcome: Served, size: -1}
}

func (m *memory) copy(context.Context, string, io.Writer, int64) error {
	return errors.New("it has no files")
}

// inMemory returns an Origin of n whose tier0s are m.
func inMemory(t *testing.T, opts OriginOptions) (*Origin, *memory) {
	t.Helper()
	o, err := NewOrigin(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	m := &memory{asked: map[string][]time.Time{}, whole: map[string]int{}, missing: map[string]bool{}, next: map[string]bool{}}
	for _, tier0 := range o.tier0s {
		tier0.documents = m
	}
	return o, m
}

// run polls as a daemon does, until ctx ends.
func run(ctx context.Context, t *testing.T, o *Origin, each func(map[state.Key]state.Truth, []state.Event)) {
	t.Helper()
	for {
		wait := max(time.Second, time.Until(o.Next()))
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		truth, events, err := o.Poll(ctx, time.Now())
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		each(truth, events)
	}
}

// wideNetwork has 30 repositories that mirrors have, and 20 in the vault.
const wideNetwork = `
config_version: 3
versions: ["8.10", "9.8", "10.2"]
vault_versions: ["9.6", "9.7"]
vault_mirror: https://vault.example.org/
arches: {"8": [x86_64, aarch64], "9": [x86_64, aarch64], "10": [x86_64, aarch64]}
repos:
  - {name: a, path: A/$basearch/os/}
  - {name: b, path: B/$basearch/os/}
  - {name: c, path: C/$basearch/os/}
  - {name: d, path: D/$basearch/os/}
  - {name: e, path: E/$basearch/os/}
`

func TestScheduleOfADay(t *testing.T) {
	n := parseNetwork(t, wideNetwork)
	synctest.Test(t, func(t *testing.T) {
		o, m := inMemory(t, OriginOptions{Network: n, Tier0s: Origins{"main": {"/main"}, "vault": {"/vault"}}})
		m.slow = 10 * time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		began := time.Now()
		changed := 0
		run(ctx, t, o, func(truth map[state.Key]state.Truth, events []state.Event) {
			changed += len(truth)
			for _, e := range events {
				if e.Problem != nil {
					t.Errorf("%v: %s", e.Keys, e.Problem.Reason)
				}
			}
		})
		perSecond := map[int]int{}
		for path, at := range m.asked {
			vault := strings.HasPrefix(path, "9.6/") || strings.HasPrefix(path, "9.7/")
			least, most := 24*60-5, 24*60+5
			if vault || strings.HasSuffix(path, checksumFile) {
				// Twice what is adopted, and once again at its own moment of the day.
				least, most = 1, 3
			}
			if len(at) < least || len(at) > most {
				t.Errorf("%s was asked for %d times in a day, want %d to %d", path, len(at), least, most)
			}
			if w := m.whole[path]; !vault && least > 1 && (w < 24 || w > 28) {
				t.Errorf("%s was read whole %d times, want once an hour", path, w)
			}
			for _, a := range at {
				if since := a.Sub(began); since > 10*time.Minute {
					perSecond[int(since/time.Second)]++
				}
			}
		}
		for second, n := range perSecond {
			if n > 10 {
				t.Errorf("in second %d of the day %d questions were asked, want them spread", second, n)
			}
		}
		// The vault's are looked at once, and then confirmed; the others' confirmation
		// is worth writing now and then, all at once.
		if most := 30*24*60/5 + 100; changed > most {
			t.Errorf("%d truths were written in a day without a change, want at most %d", changed, most)
		}
	})
}

// The first look at a vault takes its time; a restart does not look again.
func TestVaultIsNotHurried(t *testing.T) {
	n := parseNetwork(t, wideNetwork)
	opts := OriginOptions{Network: n, Tier0s: Origins{"main": {"/main"}, "vault": {"/vault"}}}
	synctest.Test(t, func(t *testing.T) {
		o, m := inMemory(t, opts)
		known := map[state.Key]state.Truth{}
		vault := func() (n int) {
			for path := range m.asked {
				if strings.HasPrefix(path, "9.6/") || strings.HasPrefix(path, "9.7/") {
					n++
				}
			}
			return n
		}
		poll := func(d time.Duration) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			run(ctx, t, o, func(truth map[state.Key]state.Truth, _ []state.Event) {
				for k, tr := range truth {
					known[k] = tr
				}
			})
		}
		poll(90 * time.Second)
		if n := vault(); n > 10 {
			t.Errorf("%d repositories of the vault were asked for at once", n)
		}
		poll(10 * time.Minute)
		if n := vault(); n != 20 {
			t.Errorf("%d repositories of the vault were asked for, want all 20", n)
		}
		opts.Known = known
		o, m = inMemory(t, opts)
		poll(15 * time.Minute)
		if n := vault(); n > 2 { // those whose moment of the day it is
			t.Errorf("after a restart %d repositories of the vault were asked for again", n)
		}
	})
}

// A publication that takes a while is one, and is not taken for granted for ever.
func TestPublicationTakesAWhile(t *testing.T) {
	n := parseNetwork(t, wideNetwork)
	for _, tt := range []struct {
		name         string
		step         time.Duration // from one repository to the next
		publications int
	}{
		{"within a second", 30 * time.Millisecond, 1},
		{"within five", 150 * time.Millisecond, 1},
		{"within five minutes", 10 * time.Second, 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, m := inMemory(t, OriginOptions{Network: n, Tier0s: Origins{"main": {"/main"}}})
				if _, _, err := o.Poll(t.Context(), time.Now()); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				var publisher sync.WaitGroup
				publisher.Go(func() {
					time.Sleep(time.Minute)
					for _, k := range Keys(n) {
						time.Sleep(tt.step)
						m.publish(RepoURL("", n, k) + "repodata/repomd.xml")
					}
				})
				publications := 0
				keys := map[state.Key]int{}
				run(ctx, t, o, func(_ map[state.Key]state.Truth, events []state.Event) {
					for _, e := range events {
						publications++
						for _, k := range e.Keys {
							keys[k]++
						}
					}
				})
				publisher.Wait()
				if publications > tt.publications {
					t.Errorf("told as %d publications, want %d at most", publications, tt.publications)
				}
				if len(keys) != 30 {
					t.Errorf("told of %d repositories, want 30", len(keys))
				}
				for k, n := range keys {
					if n != 1 {
						t.Errorf("told of %s %d times", k, n)
					}
				}
			})
		})
	}
}

// A tier0 that does not answer costs two waits a poll, however many repositories
// are due, and is left alone longer and longer.
func TestDeadTier0IsLeftAlone(t *testing.T) {
	n := parseNetwork(t, wideNetwork)
	synctest.Test(t, func(t *testing.T) {
		o, m := inMemory(t, OriginOptions{Network: n, Tier0s: Origins{"main": {"/main"}}})
		if _, _, err := o.Poll(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		m.asked, m.broken, m.slow = map[string][]time.Time{}, true, tier0Timeout
		m.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var events []state.Event
		longest := time.Duration(0)
		last := time.Now()
		run(ctx, t, o, func(_ map[state.Key]state.Truth, e []state.Event) {
			events = append(events, e...)
			longest = max(longest, time.Since(last))
			last = time.Now()
		})
		total := 0
		for _, at := range m.asked {
			total += len(at)
		}
		if total < 60 || total > 4*60 {
			t.Errorf("a dead tier0 was asked %d questions in an hour", total)
		}
		// Two passes of two questions side by side, and the time until the next.
		if longest > 2*tier0Timeout+time.Minute {
			t.Errorf("from poll to poll it took %v", longest)
		}
		if len(events) != 1 || len(events[0].Keys) != 30 {
			t.Errorf("%d events, want one that names all 30 repositories", len(events))
		}
		// It comes back, and all is well within a minute or so.
		m.mu.Lock()
		m.broken, m.slow = false, 0
		m.mu.Unlock()
		ctx, cancel = context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		events = nil
		run(ctx, t, o, func(_ map[state.Key]state.Truth, e []state.Event) { events = append(events, e...) })
		if len(events) != 1 || len(events[0].Keys) != 30 || events[0].Problem != nil {
			t.Errorf("%d events, want one that says of all 30 repositories that it is over", len(events))
		}
	})
}

// A file system that hangs holds up to four goroutines for ever, and no poll
// longer than a tier0 may take.
func TestHangingFileSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("/nowhere/", "")
		hang := make(chan struct{})
		for range 3 * cap(d.slots) {
			began := time.Now()
			r := d.touch(t.Context(), http.MethodGet, "x", func(string) (reply, error) {
				<-hang
				return reply{}, nil
			})
			if r.outcome != Unreachable || !r.broken || time.Since(began) != tier0Timeout {
				t.Fatalf("after %v: %+v", time.Since(began), r)
			}
		}
		if n := len(d.slots); n != cap(d.slots) {
			t.Errorf("%d goroutines hang, want %d", n, cap(d.slots))
		}
		close(hang)
		synctest.Wait()
		if r := d.touch(t.Context(), http.MethodGet, "x", func(string) (reply, error) { return reply{outcome: Served}, nil }); r.outcome != Served {
			t.Errorf("after the file system came back: %+v", r)
		}
	})
}

// Nothing is transferred again that has not changed; but a file that was written
// in the second in which it was read, as long as it was, is read again.
func TestConditionalRequests(t *testing.T) {
	w := emptyWorld(t, true)
	for _, k := range []state.Key{base8, base9} {
		w.publish(k, "100")
	}
	var mu sync.Mutex
	status := map[int]int{}
	files := http.FileServer(http.Dir(w.root))
	w.opts.Tier0s = Origins{"main": {w.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cache-Control") != "no-cache" || !strings.HasPrefix(r.UserAgent(), "meridian-checker/1.0 (+https://example.org/)") {
			t.Errorf("%s %s with %v", r.Method, r.URL, r.Header)
		}
		rec := &statusWriter{ResponseWriter: rw}
		files.ServeHTTP(rec, r)
		if r.Method == http.MethodGet {
			mu.Lock()
			status[rec.code]++
			mu.Unlock()
		}
	}))}}
	w.opts.Version, w.opts.ContactURL = "1.0", "https://example.org/"
	path := filepath.Join(w.dir(base9), "repodata", "repomd.xml")
	hourAgo := time.Now().Add(-time.Hour)
	age := func() {
		t.Helper()
		for _, k := range []state.Key{base8, base9} {
			if err := os.Chtimes(filepath.Join(w.dir(k), "repodata", "repomd.xml"), hourAgo, hourAgo); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func(code int) int {
		mu.Lock()
		defer mu.Unlock()
		return status[code]
	}
	age()
	w.start()
	w.poll()
	if got := count(200); got != 4 { // each once, and once more before it was adopted
		t.Errorf("the first look at 2 repositories transferred %d documents, want 4", got)
	}
	w.pass(30 * time.Minute)
	if got, unchanged := count(200), count(304); got != 4 || unchanged != 60 {
		t.Errorf("after half an hour %d documents were transferred and %d not, want 4 and 60", got, unchanged)
	}
	w.pass(35 * time.Minute)
	if got := count(200); got != 6 {
		t.Errorf("after an hour %d documents were transferred, want 2 more", got)
	}

	// Fresh files: the same size, the same second.
	for i := range 4 {
		w.publish(base9, fmt.Sprint(101+i))
		now := time.Now()
		if err := os.Chtimes(path, now, now.Truncate(time.Second)); err != nil {
			t.Fatal(err)
		}
		wantEvents(t, w.pass(time.Minute), "publish 9.8/baseos/x86_64")
	}
	w.wantRevisions(base9, "104", "103", "102", "101", "100")
}

type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

func TestNetworkChanges(t *testing.T) {
	w := newWorld(t, false)
	w.publish(base9, "101")
	w.pass(time.Minute)
	before := w.truth[base9]
	// crb is in both versions now, appstream is elsewhere, and 8.10 has no baseos.
	w.n = parseNetwork(t, strings.NewReplacer(
		`path: CRB/$basearch/os/, versions: ["9.8"]`, `path: CRB/$basearch/os/`,
		"AppStream/", "apps/",
		"path: BaseOS/$basearch/os/", `path: BaseOS/$basearch/os/, versions: ["9.8"]`,
	).Replace(originNetwork))
	crb8 := state.Key{Version: "8.10", Repo: "crb", Arch: "x86_64"}
	w.publish(crb8, "100")
	w.publish(app9, "101")
	w.publish(app8, "100")
	w.publish(base8, "101")
	w.o.SetNetwork(w.n)
	wantEvents(t, w.pass(time.Second), "publish 8.10/crb/x86_64 9.8/appstream/x86_64")
	w.wantRevisions(crb8, "100")
	w.wantRevisions(app9, "101", "100")
	// Nobody is asked for what is not to be there, so nothing is told of it.
	w.wantRevisions(base8)
	if w.truth[base8].Absent {
		t.Error("what tier0 has is said to be absent")
	}
	after := w.truth[base9]
	if mustJSON(t, before.Generations) != mustJSON(t, after.Generations) {
		t.Errorf("what did not change was %v, and is %v", before.Generations, after.Generations)
	}
	wantEvents(t, w.pass(2*time.Minute))
	if n := w.o.Numbers().Keys; n != 5 {
		t.Errorf("%d repositories are asked for, want 5", n)
	}
}

func TestPollThatIsInterrupted(t *testing.T) {
	w := newWorld(t, false)
	w.publish(base9, "101")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.now = w.now.Add(2 * time.Minute)
	changed, events, err := w.o.Poll(ctx, w.now)
	if !errors.Is(err, context.Canceled) || changed != nil || events != nil {
		t.Errorf("an interrupted poll returned %v, %v, %v", changed, events, err)
	}
	wantEvents(t, w.pass(time.Second), "publish 9.8/baseos/x86_64")
	w.wantProblem(base9, "")
}

// Whatever a tier0 serves as its next repomd.xml is believed when it can be read,
// follows the last one, and nothing else; it is told in a line that people can
// read, and what is believed can be stored.
func FuzzAdoption(f *testing.F) {
	for _, seed := range []map[string][]byte{testGeneration("101", "x"), testGeneration("99", "x"), testGeneration("100", "x"), testGeneration("spring", "x")} {
		f.Add(seed["repodata/repomd.xml"])
	}
	f.Add([]byte("<html>parked</html>"))
	f.Add([]byte("<repomd><revision>\n102 \n</revision><data type='primary'><checksum type='md5'>d41d8cd98f00b204e9800998ecf8427e</checksum><location href='a'/><timestamp>1.5</timestamp></data></repomd>"))
	f.Add([]byte("&\x01\x02;<repomd/>"))
	n := parseNetwork(f, originNetwork)
	first := testGeneration("100", "first")["repodata/repomd.xml"]
	known, _, err := readGeneration(first, time.Time{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := NewOrigin(OriginOptions{Network: n, Tier0s: Origins{"main": {"/main"}}})
		if err != nil {
			t.Fatal(err)
		}
		o.pause = 0
		now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		served := &document{text: first}
		o.tier0s[0].documents = served
		if _, _, err := o.Poll(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		served.text = text
		now = now.Add(2 * time.Minute)
		changed, _, err := o.Poll(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		g, _, unreadable := readGeneration(text, now)
		follows := unreadable == nil && compareRevisions(g.Revision, g.Timestamp, known.Revision, known.Timestamp) > 0
		tr, ok := changed[base9]
		switch {
		case g.SHA256 == known.SHA256 && unreadable == nil:
			if ok {
				t.Errorf("the same file again changed what is believed: %+v", tr)
			}
			return
		case !ok:
			t.Fatal("what is served went unnoticed")
		case follows != (tr.Newest().SHA256 == g.SHA256) || follows != (len(tr.Generations) == 2):
			t.Errorf("believed are %+v; what is served follows: %v", tr.Generations, follows)
		case follows != (tr.Problem == nil):
			t.Errorf("problem %+v; what is served follows: %v", tr.Problem, follows)
		}
		if p := tr.Problem; p != nil && (len(p.Reason) > 1000 || strings.IndexFunc(p.Reason, func(c rune) bool { return !unicode.IsPrint(c) }) >= 0) {
			t.Errorf("the problem is no line to read: %q", p.Reason)
		}
		if back := throughJSON(t, tr); !sameTruth(&back, &state.Truth{Generations: tr.Generations, Offered: tr.Offered, Problem: back.Problem}) {
			t.Errorf("what was stored comes back as %+v, and was %+v", back, tr)
		}
	})
}

// A document is a tier0 that has it everywhere, and every file that it names.
type document struct{ text []byte }

func (d *document) read(_ context.Context, path string, _ stamp) reply {
	if strings.HasSuffix(path, checksumFile) {
		return reply{outcome: Missing, err: errors.New("not there")}
	}
	return reply{outcome: Served, body: d.text, evidence: func(error) *state.Evidence { return &state.Evidence{URL: path} }}
}

func (d *document) size(context.Context, string) reply { return reply{outcome: Served, size: -1} }

func (d *document) copy(context.Context, string, io.Writer, int64) error {
	return errors.New("it has no files")
}
