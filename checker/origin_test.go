package checker

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"meridian/builder/repodata"
	"meridian/checker/state"
	"meridian/internal/testworld"
	"meridian/schema"
)

// An originWorld is a tier0 on disk, and an Origin that is polled when it wants to
// be, in a time that the test moves on.
type originWorld struct {
	t    testing.TB
	root string // of the tree
	base string // that the Origin is given
	n    *schema.Network

	o         *Origin
	opts      OriginOptions
	now       time.Time
	truth     map[state.Key]state.Truth
	decisions []state.Decision
}

// originNetwork has two repositories for one arch, one that only the other version
// has, and a vault.
const originNetwork = `
config_version: 3
allowed_outdate: 12h
versions: ["8.10", "9.8"]
vault_versions: ["9.7"]
vault_mirror: https://vault.example.org/
arches: {"8": [x86_64], "9": [x86_64]}
repos:
  - {name: baseos, path: BaseOS/$basearch/os/}
  - {name: appstream, path: AppStream/$basearch/os/}
  - {name: crb, path: CRB/$basearch/os/, versions: ["9.8"]}
`

var (
	base8 = state.Key{Version: "8.10", Repo: "baseos", Arch: "x86_64"}
	app8  = state.Key{Version: "8.10", Repo: "appstream", Arch: "x86_64"}
	base9 = state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}
	app9  = state.Key{Version: "9.8", Repo: "appstream", Arch: "x86_64"}
	crb9  = state.Key{Version: "9.8", Repo: "crb", Arch: "x86_64"}
)

// newWorld publishes revision 100 of all repositories but crb9, and polls once.
func newWorld(t testing.TB, overHTTP bool) *originWorld {
	w := emptyWorld(t, overHTTP)
	for _, k := range []state.Key{base8, app8, base9, app9} {
		w.publish(k, "100")
	}
	w.start()
	w.poll()
	return w
}

func emptyWorld(t testing.TB, overHTTP bool) *originWorld {
	t.Helper()
	w := &originWorld{
		t: t, root: t.TempDir(), n: parseNetwork(t, originNetwork),
		now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), truth: map[state.Key]state.Truth{},
	}
	w.base = w.root + "/"
	if overHTTP {
		w.base = w.serve(http.FileServer(http.Dir(w.root)))
	}
	w.opts = OriginOptions{Tier0s: Origins{"main": {w.base}}}
	return w
}

func parseNetwork(t testing.TB, text string) *schema.Network {
	t.Helper()
	n, problems := schema.ParseNetwork("network.yml", []byte(text))
	if n == nil {
		t.Fatal(problems)
	}
	return n
}

func (w *originWorld) serve(h http.Handler) string {
	s := httptest.NewServer(h)
	w.t.Cleanup(s.Close)
	return s.URL + "/"
}

// start makes a new Origin, as a restart does, which knows what the store does.
func (w *originWorld) start() {
	w.t.Helper()
	opts := w.opts
	opts.Network = w.n
	opts.Known = throughJSON(w.t, w.truth)
	opts.Decisions = func(context.Context) ([]state.Decision, error) { return w.decisions, nil }
	o, err := NewOrigin(opts)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(o.Close)
	o.pause = 0 // time is the test's
	w.o = o
}

func throughJSON[T any](t testing.TB, v T) (out T) {
	t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// poll polls once, now.
func (w *originWorld) poll() []state.Event {
	w.t.Helper()
	changed, events, err := w.o.Poll(w.t.Context(), w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	maps.Copy(w.truth, changed)
	return events
}

// pass lets time pass, and polls whenever it is due.
func (w *originWorld) pass(d time.Duration) (events []state.Event) {
	w.t.Helper()
	end := w.now.Add(d)
	for {
		// As a loop does, not more than once a second.
		next := w.o.Next()
		if soonest := w.now.Add(time.Second); next.Before(soonest) {
			next = soonest
		}
		if next.After(end) {
			w.now = end
			return events
		}
		w.now = next
		events = append(events, w.poll()...)
	}
}

// sleep lets time pass without a poll, as a machine that is suspended does, but
// for one at its beginning and one at its end.
func (w *originWorld) sleep(d time.Duration) {
	w.t.Helper()
	w.pass(time.Minute)
	w.now = w.now.Add(d - time.Minute)
	w.poll()
}

func (w *originWorld) dir(k state.Key) string {
	return filepath.Join(w.root, filepath.FromSlash(RepoURL("", w.n, k)))
}

// testGeneration returns the files of a repository by name, repomd.xml among them.
func testGeneration(revision, content string) map[string][]byte {
	md := &repodata.Repomd{Revision: revision}
	files := map[string][]byte{}
	for i, typ := range []string{"primary", "filelists", "other"} {
		text := []byte(typ + " of " + content)
		sum := fmt.Sprintf("%x", sha256.Sum256(text))
		d := repodata.Data{
			Type: typ, Checksum: repodata.Checksum{Type: "sha256", Value: sum}, Location: "repodata/" + sum + "-" + typ + ".xml.gz",
			Timestamp: 1767225600 + int64(i), Size: int64(len(text)), OpenSize: -1,
		}
		md.Data = append(md.Data, d)
		files[d.Location] = text
	}
	files["repodata/repomd.xml"] = md.Marshal()
	return files
}

// publish writes a generation whole, repomd.xml last and in one step.
func (w *originWorld) publish(k state.Key, revision string) {
	w.t.Helper()
	w.put(k, testGeneration(revision, k.String()+" "+revision))
}

func (w *originWorld) put(k state.Key, files map[string][]byte) {
	w.t.Helper()
	names := slices.SortedFunc(maps.Keys(files), func(a, b string) int {
		return strings.Compare(strings.TrimSuffix(a, "/repomd.xml")+map[bool]string{true: "~"}[strings.HasSuffix(a, "/repomd.xml")], b)
	})
	for _, name := range names {
		w.write(filepath.Join(w.dir(k), name), files[name])
	}
}

func (w *originWorld) write(path string, text []byte) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path+".tmp", text, 0o644); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		w.t.Fatal(err)
	}
}

// each runs a test with a tier0 that is a directory, and with one that is asked
// over HTTP: they must not differ.
func each(t *testing.T, test func(t *testing.T, overHTTP bool)) {
	t.Run("path", func(t *testing.T) { test(t, false) })
	t.Run("http", func(t *testing.T) { test(t, true) })
}

// wantEvents compares events with lines such as "publish 9.8/baseos/x86_64" and
// "origin 9.8/baseos/x86_64: does not answer", where a part of the reason is
// enough; "over" is a trouble that has ended.
func wantEvents(t testing.TB, got []state.Event, want ...string) {
	t.Helper()
	var lines []string
	for _, e := range got {
		line := e.Kind
		for _, k := range e.Keys {
			line += " " + k.String()
		}
		switch {
		case e.Problem != nil:
			line += ": " + e.Problem.Reason
		case e.Kind == state.OriginTroubled:
			line += " over"
		}
		lines = append(lines, line)
	}
	ok := len(lines) == len(want)
	for i := 0; ok && i < len(want); i++ {
		head, reason, _ := strings.Cut(want[i], ": ")
		ok = strings.HasPrefix(lines[i], head) && strings.Contains(lines[i], reason)
	}
	if !ok {
		t.Errorf("events\n\t%s\nwant\n\t%s", strings.Join(lines, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// wantRevisions compares what is believed of a key, newest first.
func (w *originWorld) wantRevisions(k state.Key, want ...string) {
	w.t.Helper()
	t := w.truth[k]
	var got []string
	for _, g := range t.Generations {
		r := g.Revision
		if g.Expired {
			r += " expired"
		}
		got = append(got, r)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: believed revisions %q, want %q", k, got, want)
	}
}

// wantProblem wants what is believed of a key to have a problem, with evidence;
// with "" it wants none.
func (w *originWorld) wantProblem(k state.Key, reason string) {
	w.t.Helper()
	p := w.truth[k].Problem
	switch {
	case reason == "" && p != nil:
		w.t.Errorf("%s: problem %q, want none", k, p.Reason)
	case reason == "":
	case p == nil:
		w.t.Errorf("%s: no problem, want %q", k, reason)
	case !strings.Contains(p.Reason, reason):
		w.t.Errorf("%s: problem %q, want %q", k, p.Reason, reason)
	case p.Remedy == "" || p.Since.IsZero() || p.Evidence == nil || p.Evidence.URL == "":
		w.t.Errorf("%s: problem without remedy, time or evidence: %+v", k, p)
	}
}

const allFour = " 8.10/baseos/x86_64 8.10/appstream/x86_64 9.8/baseos/x86_64 9.8/appstream/x86_64"

func TestFirstSight(t *testing.T) {
	each(t, func(t *testing.T, overHTTP bool) {
		w := emptyWorld(t, overHTTP)
		for _, k := range []state.Key{base8, app8, base9, app9} {
			w.publish(k, "100")
		}
		w.start()
		wantEvents(t, w.poll(), "publish"+allFour)
		w.wantRevisions(base8, "100")
		if tr := w.truth[base8]; !tr.Confirmed.Equal(w.now) || !tr.Newest().FirstSeen.Equal(w.now) {
			t.Errorf("confirmed %v, first seen %v; want now, %v", tr.Confirmed, tr.Newest().FirstSeen, w.now)
		}
		if tr := w.truth[crb9]; !tr.Absent || tr.Newest() != nil || tr.Problem != nil {
			t.Errorf("what tier0 does not have is %+v, want absent", tr)
		}
		newest := w.truth[base8].Generations[0]
		md := w.o.Repomd(base8, newest.ID())
		if md == nil || md.Lookup("primary") == nil {
			t.Errorf("the parsed file is %+v", md)
		}
		if n := w.o.Numbers(); n.Keys != 5 || n.Absent != 1 || n.Troubled != 0 || n.Publications != 1 || n.Generations != 4 || !n.Confirmed.Equal(w.now) {
			t.Errorf("numbers %+v", n)
		}
		wantEvents(t, w.pass(10*time.Minute))
		if tr := w.truth[base8]; w.now.Sub(tr.Confirmed) > 6*time.Minute {
			t.Errorf("at %v it was last confirmed at %v", w.now, tr.Confirmed)
		}
	})
}

func TestPublication(t *testing.T) {
	each(t, func(t *testing.T, overHTTP bool) {
		w := newWorld(t, overHTTP)
		began := w.now
		w.publish(base9, "101")
		w.publish(app9, "101")
		wantEvents(t, w.pass(time.Minute), "publish 9.8/baseos/x86_64 9.8/appstream/x86_64")
		w.wantRevisions(base9, "101", "100")
		w.wantRevisions(app9, "101", "100")
		w.wantRevisions(base8, "100")
		tr := w.truth[base9]
		if at := tr.Superseded(tr.Generations[1].ID()); !at.After(began) || at.After(w.now) {
			t.Errorf("superseded at %v, want within the minute from %v", at, began)
		}
		for _, g := range tr.Generations {
			if w.o.Repomd(base9, g.ID()) == nil {
				t.Errorf("the parsed file of revision %s is gone", g.Revision)
			}
		}
		w.publish(crb9, "101")
		wantEvents(t, w.pass(time.Minute), "publish 9.8/crb/x86_64")
		if w.truth[crb9].Absent {
			t.Error("what was published is still absent")
		}
	})
}

// While one repository of a publication is seen, the next one is being written.
func TestOnePublicationIsOneEvent(t *testing.T) {
	w := emptyWorld(t, false)
	keys := []state.Key{base8, app8, base9, app9}
	for _, k := range keys {
		w.publish(k, "100")
	}
	files := http.FileServer(http.Dir(w.root))
	var mu sync.Mutex
	rest := slices.Clone(keys)
	var publishing bool
	w.opts.Tier0s = Origins{"main": {w.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if publishing && r.Method == http.MethodHead && len(rest) > 0 {
			w.publish(rest[0], "101")
			rest = rest[1:]
		}
		mu.Unlock()
		files.ServeHTTP(rw, r)
	}))}}
	w.start()
	w.poll()
	mu.Lock()
	publishing = true
	w.publish(rest[0], "101")
	rest = rest[1:]
	mu.Unlock()
	wantEvents(t, w.pass(time.Minute), "publish"+allFour)
	for _, k := range keys {
		w.wantRevisions(k, "101", "100")
	}
	if n := w.o.Numbers(); n.Publications != 2 || n.Generations != 8 {
		t.Errorf("numbers %+v, want 2 publications of 8 generations", n)
	}
}

func TestHalfAPublicationIsNotBelieved(t *testing.T) {
	each(t, func(t *testing.T, overHTTP bool) {
		files := testGeneration("101", "half")
		var late string
		for name := range files {
			if strings.Contains(name, "-filelists") {
				late = name
			}
		}
		for _, tt := range []struct {
			name    string
			early   []byte // what is there in place of the file
			problem string
		}{
			{"a file is missing", nil, "which is not there"},
			{"a file is shorter", []byte("half"), "and there are 4"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				w := newWorld(t, overHTTP)
				path := filepath.Join(w.dir(base9), late)
				part := maps.Clone(files)
				delete(part, late)
				if tt.early != nil {
					part[late] = tt.early
				}
				w.put(base9, part)
				// Soon enough it is no trouble.
				wantEvents(t, w.pass(time.Minute))
				w.wantRevisions(base9, "100")
				w.wantProblem(base9, tt.problem)
				wantEvents(t, w.pass(time.Minute), "origin 9.8/baseos/x86_64: "+tt.problem)
				w.write(path, files[late])
				wantEvents(t, w.pass(time.Minute), "publish 9.8/baseos/x86_64", "origin 9.8/baseos/x86_64 over")
				w.wantRevisions(base9, "101", "100")
				w.wantProblem(base9, "")
			})
		}
	})
}

func TestBelief(t *testing.T) {
	reorder := func(revision string) map[string][]byte { return testGeneration(revision, "others") }
	each(t, func(t *testing.T, overHTTP bool) {
		for _, tt := range []struct {
			name      string
			first     string // revision that is published first; "" for 100
			files     map[string][]byte
			revisions []string // believed after ten minutes, newest first
			problem   string
			accepted  []string // and after an administrator has accepted it
		}{
			{name: "a higher revision is believed", files: reorder("101"), revisions: []string{"101", "100"}},
			{name: "a higher revision with the old content, which a rollback is, is believed",
				files: testGeneration("101", base9.String()+" 100"), revisions: []string{"101", "100"}},
			{name: "a lower revision is believed when it is accepted", files: reorder("99"),
				revisions: []string{"100"}, problem: "serves revision 99, which is older than 100", accepted: []string{"99", "100"}},
			{name: "the same revision with other bytes is believed when it is accepted", files: reorder("100"),
				revisions: []string{"100"}, problem: "something else under revision 100", accepted: []string{"100", "100"}},
			{name: "a lower number is lower, however it is written", first: "1000", files: reorder("999"),
				revisions: []string{"1000"}, problem: "older than 1000", accepted: []string{"999", "1000"}},
			{name: "a text after the same text is believed by its timestamps", first: "spring",
				files: laterBy(t, reorder("spring"), 1), revisions: []string{"spring", "spring"}},
			{name: "a text with the same timestamps is not", first: "spring",
				files: reorder("spring"), revisions: []string{"spring"}, problem: "something else under revision spring", accepted: []string{"spring", "spring"}},
			{name: "a web page is not", files: map[string][]byte{"repodata/repomd.xml": []byte("<!DOCTYPE html><title>parked</title>")},
				revisions: []string{"100"}, problem: "is no repomd.xml"},
			{name: "nothing is not", files: map[string][]byte{"repodata/repomd.xml": nil}, revisions: []string{"100"}, problem: "is no repomd.xml"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				w := newWorld(t, overHTTP)
				if tt.first != "" {
					w = emptyWorld(t, overHTTP)
					w.publish(base9, tt.first)
					w.start()
					w.poll()
				}
				w.put(base9, tt.files)
				events := w.pass(10 * time.Minute)
				w.wantRevisions(base9, tt.revisions...)
				w.wantProblem(base9, tt.problem)
				if tt.problem == "" {
					wantEvents(t, events, "publish 9.8/baseos/x86_64")
					return
				}
				wantEvents(t, events, "origin 9.8/baseos/x86_64: "+tt.problem)
				w.decide(state.Accept, base9)
				if tt.accepted == nil {
					wantEvents(t, w.pass(time.Minute))
					w.wantRevisions(base9, tt.revisions...)
					return
				}
				wantEvents(t, w.pass(10*time.Second), "publish 9.8/baseos/x86_64", "origin 9.8/baseos/x86_64 over")
				w.wantRevisions(base9, tt.accepted...)
				w.wantProblem(base9, "")

				// The decision is spent: a restart, and a newer generation, find it
				// without effect.
				w.start()
				wantEvents(t, w.pass(time.Minute))
				w.wantRevisions(base9, tt.accepted...)
			})
		}
	})
}

// laterBy returns the files of a repository with later timestamps.
func laterBy(t testing.TB, files map[string][]byte, seconds int64) map[string][]byte {
	t.Helper()
	_, md, err := readGeneration(files["repodata/repomd.xml"], time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range md.Data {
		md.Data[i].Timestamp += seconds
	}
	files = maps.Clone(files)
	files["repodata/repomd.xml"] = md.Marshal()
	return files
}

// decide is what the command line does: it looks, and writes down what it found.
func (w *originWorld) decide(verb string, k state.Key) {
	w.t.Helper()
	tr := w.truth[k]
	d := state.Decision{Time: w.now, By: "admin@example", Verb: verb, Key: k}
	if n := tr.Newest(); n != nil {
		d.Instead = n.SHA256
	}
	seen, err := w.o.Look(w.t.Context(), k, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	switch g := seen[0].Generation; {
	case verb == state.Accept && g == nil:
		return
	case verb == state.Accept:
		d.Generation = g.SHA256
	case Latest(seen) != nil:
		d.Generation = d.Instead // it is followed any moment
	default:
		d.Generation = tr.Generations[1].SHA256
	}
	w.decisions = append(slices.DeleteFunc(w.decisions, func(o state.Decision) bool { return o.Verb == verb && o.Key == k }), d)
}

// What was accepted once is not believed for ever.
func TestAcceptanceIsSpent(t *testing.T) {
	w := newWorld(t, false)
	bad := testGeneration("90", "accepted once")
	w.put(base9, bad)
	w.pass(time.Minute)
	w.decide(state.Accept, base9)
	w.pass(time.Minute)
	w.wantRevisions(base9, "90", "100")
	w.publish(base9, "110")
	w.pass(time.Minute)
	w.wantRevisions(base9, "110", "90", "100")
	w.put(base9, bad)
	wantEvents(t, w.pass(5*time.Minute), "origin 9.8/baseos/x86_64: revision 90, which is older than 110")
	w.wantRevisions(base9, "110", "90", "100")

	// An older generation that is known becomes the newest one again, when it is
	// said so, and loses its former place.
	w.decide(state.Accept, base9)
	w.pass(time.Minute)
	w.wantRevisions(base9, "90", "110", "100")
	tr := w.truth[base9]
	for i := range tr.Generations[1:] {
		if tr.Generations[i].FirstSeen.Before(tr.Generations[i+1].FirstSeen) {
			t.Errorf("generation %d was seen before the one that it follows", i)
		}
	}
}

func TestOriginIsAway(t *testing.T) {
	w := emptyWorld(t, false)
	for _, k := range []state.Key{base8, app8, base9, app9} {
		w.publish(k, "100")
	}
	server, err := testworld.StartMirror("127.0.0.1:0", w.root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	w.opts.Tier0s = Origins{"main": {server.URL()}}
	w.start()
	w.poll()
	if err := server.Break(testworld.Down); err != nil {
		t.Fatal(err)
	}

	const all = allFour + " 9.8/crb/x86_64"
	wantEvents(t, w.pass(20*time.Minute), "origin"+all+": does not answer")
	for _, k := range []state.Key{base8, app8, base9, app9} {
		w.wantRevisions(k, "100")
		w.wantProblem(k, "does not answer")
	}
	if !w.truth[crb9].Absent {
		t.Error("nobody knows any more that a repository was absent")
	}
	if n := w.o.Numbers(); n.Troubled != 5 || n.Troubles != 1 {
		t.Errorf("numbers %+v", n)
	}
	// The next process does not tell again.
	w.start()
	wantEvents(t, w.pass(10*time.Minute))

	if err := server.Break(testworld.Healthy); err != nil {
		t.Fatal(err)
	}
	w.publish(app9, "101")
	wantEvents(t, w.pass(2*time.Minute), "publish 9.8/appstream/x86_64", "origin"+all+" over")
	for _, k := range []state.Key{base8, app8, base9, app9} {
		w.wantProblem(k, "")
	}
}

func TestWhatIsMissing(t *testing.T) {
	each(t, func(t *testing.T, overHTTP bool) {
		t.Run("a repository that was there stays believed", func(t *testing.T) {
			w := newWorld(t, overHTTP)
			if err := os.RemoveAll(w.dir(app9)); err != nil {
				t.Fatal(err)
			}
			wantEvents(t, w.pass(20*time.Minute), "origin 9.8/appstream/x86_64: does not have it any more")
			w.wantRevisions(app9, "100")
			w.wantProblem(app9, "does not have it any more")
			w.wantProblem(base9, "")
			w.publish(app9, "100")
			wantEvents(t, w.pass(2*time.Minute), "origin 9.8/appstream/x86_64 over")
		})
		t.Run("an empty tree is a wrong address, and not an empty network", func(t *testing.T) {
			w := emptyWorld(t, overHTTP)
			w.start()
			wantEvents(t, w.pass(20*time.Minute), "origin"+allFour+" 9.8/crb/x86_64: has no repository of the network")
			for k, tr := range w.truth {
				if tr.Absent {
					t.Errorf("%s is absent", k)
				}
			}
			w.publish(base9, "100")
			wantEvents(t, w.pass(2*time.Minute), "publish 9.8/baseos/x86_64", "origin"+allFour+" 9.8/crb/x86_64 over")
			if !w.truth[app9].Absent {
				t.Error("what tier0 does not have is not absent")
			}
		})
		t.Run("a tree that became empty was not emptied", func(t *testing.T) {
			w := newWorld(t, overHTTP)
			for _, v := range []string{"8.10", "9.8"} {
				if err := os.RemoveAll(filepath.Join(w.root, v)); err != nil {
					t.Fatal(err)
				}
			}
			w.pass(5 * time.Minute)
			w.wantRevisions(base9, "100")
			w.wantProblem(base9, "does not have it any more")
		})
	})
	t.Run("a directory that is not mounted does not answer", func(t *testing.T) {
		w := newWorld(t, false)
		if err := os.Rename(w.root, w.root+".away"); err != nil {
			t.Fatal(err)
		}
		wantEvents(t, w.pass(time.Minute), "origin"+allFour+" 9.8/crb/x86_64: does not answer")
		if err := os.Rename(w.root+".away", w.root); err != nil {
			t.Fatal(err)
		}
		wantEvents(t, w.pass(time.Minute), "origin"+allFour+" 9.8/crb/x86_64 over")
	})
}

// What stands where a repomd.xml should be is neither waited for nor believed.
func TestOddFiles(t *testing.T) {
	for _, tt := range []struct {
		name    string
		put     func(path string) error
		problem string
	}{
		{"a directory", func(path string) error { return os.Mkdir(path, 0o755) }, "not a regular file"},
		{"a pipe without a writer", func(path string) error { return syscall.Mkfifo(path, 0o644) }, "not a regular file"},
		{"a link to nothing", func(path string) error { return os.Symlink("nowhere", path) }, "does not have it any more"},
		{"a link to itself", func(path string) error { return os.Symlink(path, path) }, "does not answer"},
		{"a file without end", func(path string) error { return os.Symlink("/dev/zero", path) }, "not a regular file"},
		{"a very long file", func(path string) error { return os.WriteFile(path, make([]byte, repodata.MaxRepomd+1), 0o644) }, "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, false)
			path := filepath.Join(w.dir(base9), "repodata", "repomd.xml")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := tt.put(path); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Minute)
			w.wantRevisions(base9, "100")
			w.wantProblem(base9, tt.problem)
		})
	}
	t.Run("a directory in place of a file that repomd.xml names", func(t *testing.T) {
		w := newWorld(t, false)
		files := testGeneration("101", "odd")
		for name := range files {
			if strings.Contains(name, "-other") {
				delete(files, name)
				if err := os.MkdirAll(filepath.Join(w.dir(base9), name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.put(base9, files)
		w.pass(time.Minute)
		w.wantRevisions(base9, "100")
		w.wantProblem(base9, "not a regular file")
	})
}

func TestLyingOrigin(t *testing.T) {
	good := testGeneration("101", "lies")["repodata/repomd.xml"]
	for _, tt := range []struct {
		name    string
		answer  func(http.ResponseWriter, *http.Request)
		problem string
		status  int // in the evidence
	}{
		{"a web page for everything", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<!DOCTYPE html><title>Welcome</title>")
		}, "is no repomd.xml", 200},
		{"half of what it promises", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(good)))
			w.Write(good[:len(good)/2])
		}, "does not end as it should", 200},
		{"half, and says that this is all", func(w http.ResponseWriter, _ *http.Request) {
			w.Write(good[:len(good)/2])
		}, "is no repomd.xml", 200},
		{"no end", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, "does not end as it should", 200},
		{"compressed without being asked", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			gz := gzip.NewWriter(w)
			gz.Write(good)
			gz.Close()
		}, "is no repomd.xml", 200},
		{"an error of its own", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no database", http.StatusInternalServerError)
		}, "refuses: it answers with status 500", 500},
		{"you may not", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no", http.StatusForbidden)
		}, "refuses: it answers with status 403", 403},
		{"nothing has changed, to who asks for the first time", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotModified)
		}, "does not end as it should", 304},
		{"an empty answer", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNoContent)
		}, "is no repomd.xml", 204},
		{"a part of it", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			w.Write(good)
		}, "is no repomd.xml", 206},
		{"always somewhere else", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"/", http.StatusFound)
		}, "does not end as it should", 302},
		{"the right document, and a web page for each file", func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/repomd.xml") {
				io.WriteString(w, "<!DOCTYPE html><title>Welcome</title>")
				return
			}
			w.Write(good)
		}, "revision 101", 200},
		{"another document each time", func(w http.ResponseWriter, r *http.Request) {
			files := testGeneration(strconv.FormatInt(time.Now().UnixNano(), 10), "each")
			if text := files["repodata/repomd.xml"]; strings.HasSuffix(r.URL.Path, "/repomd.xml") {
				w.Write(text)
				return
			}
			for name, text := range files {
				if strings.HasSuffix(r.URL.Path, name) {
					w.Write(text)
				}
			}
		}, "replaced again and again", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := emptyWorld(t, true)
			for _, k := range []state.Key{base8, base9} {
				w.publish(k, "100")
			}
			files := http.FileServer(http.Dir(w.root))
			var lies atomic.Bool
			w.opts.Tier0s = Origins{"main": {w.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if lies.Load() && strings.Contains(r.URL.Path, "/9.8/BaseOS/") {
					tt.answer(rw, r)
					return
				}
				files.ServeHTTP(rw, r)
			}))}}
			w.start()
			w.poll()
			lies.Store(true)
			events := w.pass(2 * time.Minute)
			// After an hour at most it is asked for the whole document.
			w.now = w.now.Add(time.Hour)
			events = append(events, w.pass(2*time.Minute)...)
			wantEvents(t, events, "origin 9.8/baseos/x86_64: "+tt.problem)
			w.wantRevisions(base9, "100")
			w.wantProblem(base9, tt.problem)
			if p := w.truth[base9].Problem; p != nil && p.Evidence.Status != tt.status {
				t.Errorf("evidence %+v, want status %d", p.Evidence, tt.status)
			}
			w.wantProblem(base8, "")
			lies.Store(false)
			wantEvents(t, w.pass(2*time.Minute), "origin 9.8/baseos/x86_64 over")
			w.wantRevisions(base9, "100")
			w.wantProblem(base9, "")
		})
	}
}

// A second tier0 counts as much as the first: a generation is believed when one
// has it whole, and what one lacks is told while the other serves.
func TestTwoTier0s(t *testing.T) {
	each(t, func(t *testing.T, overHTTP bool) {
		two := func(t *testing.T) (a, b *originWorld) {
			a, b = emptyWorld(t, overHTTP), emptyWorld(t, overHTTP)
			for _, k := range []state.Key{base9, app9} {
				a.publish(k, "100")
				b.publish(k, "100")
			}
			a.opts.Tier0s = Origins{"main": {a.base, b.base}}
			a.start()
			wantEvents(t, a.poll(), "publish 9.8/baseos/x86_64 9.8/appstream/x86_64")
			return a, b
		}
		t.Run("the second one is the first to have a generation", func(t *testing.T) {
			a, b := two(t)
			b.publish(base9, "101")
			wantEvents(t, a.pass(time.Minute), "publish 9.8/baseos/x86_64")
			a.wantRevisions(base9, "101", "100")
			a.wantProblem(base9, "")
			a.publish(base9, "101")
			wantEvents(t, a.pass(20*time.Minute))
		})
		t.Run("one stays behind", func(t *testing.T) {
			a, b := two(t)
			b.publish(base9, "101")
			wantEvents(t, a.pass(10*time.Minute), "publish 9.8/baseos/x86_64")
			wantEvents(t, a.pass(10*time.Minute), "origin 9.8/baseos/x86_64: serves revision 100, and another tier0 serves 101")
			a.wantProblem(base9, "")
		})
		t.Run("each has half of a generation", func(t *testing.T) {
			a, b := two(t)
			files := testGeneration("101", "half")
			i := 0
			for _, name := range slices.Sorted(maps.Keys(files)) {
				if strings.HasSuffix(name, "/repomd.xml") {
					continue
				}
				half := map[string][]byte{name: files[name]}
				if i++; i%2 == 0 {
					a.put(base9, half)
				} else {
					b.put(base9, half)
				}
			}
			for _, w := range []*originWorld{a, b} {
				w.put(base9, map[string][]byte{"repodata/repomd.xml": files["repodata/repomd.xml"]})
			}
			a.pass(5 * time.Minute)
			a.wantRevisions(base9, "100")
			a.wantProblem(base9, "is not complete")
		})
		t.Run("one has a generation that the other never saw", func(t *testing.T) {
			a, b := two(t)
			a.publish(base9, "101")
			b.publish(base9, "102")
			wantEvents(t, a.pass(time.Minute), "publish 9.8/baseos/x86_64")
			a.wantRevisions(base9, "102", "101", "100")
		})
		t.Run("they differ under one revision", func(t *testing.T) {
			a, b := two(t)
			a.publish(base9, "101")
			b.put(base9, testGeneration("101", "built again"))
			wantEvents(t, a.pass(5*time.Minute), "publish 9.8/baseos/x86_64", "origin 9.8/baseos/x86_64: something else under revision 101")
			a.wantRevisions(base9, "101", "100")
			a.wantProblem(base9, "")
		})
		t.Run("one is gone", func(t *testing.T) {
			a, b := two(t)
			if err := os.RemoveAll(filepath.Join(b.root, "9.8")); err != nil {
				t.Fatal(err)
			}
			events := a.pass(20 * time.Minute)
			wantEvents(t, events, "origin 9.8/baseos/x86_64 9.8/appstream/x86_64: does not have it any more")
			if p := events[0].Problem; !strings.Contains(p.Reason, b.base) {
				t.Errorf("problem %q does not name %s", p.Reason, b.base)
			}
			a.wantProblem(base9, "")
			a.publish(base9, "101")
			wantEvents(t, a.pass(time.Minute), "publish 9.8/baseos/x86_64")
		})
	})
}

func TestRestart(t *testing.T) {
	each(t, func(t *testing.T, overHTTP bool) {
		w := newWorld(t, overHTTP)
		w.opts.Dir = filepath.Join(t.TempDir(), "generations")
		w.start()
		w.poll()
		for _, revision := range []string{"101", "102"} {
			w.publish(base9, revision)
			w.pass(time.Minute)
		}
		w.put(app9, testGeneration("99", "older"))
		w.pass(time.Minute)
		before := throughJSON(t, w.truth)

		w.start()
		tr := w.truth[base9]
		for _, g := range tr.Generations {
			if md := w.o.Repomd(base9, g.ID()); md == nil || md.Revision != g.Revision {
				t.Errorf("before it has asked, the parsed file of revision %s is %+v", g.Revision, md)
			}
		}
		wantEvents(t, w.pass(4*time.Minute))
		for k, tr := range w.truth {
			was := before[k]
			tr.Confirmed, was.Confirmed = time.Time{}, time.Time{}
			if a, b := mustJSON(t, tr), mustJSON(t, was); a != b {
				t.Errorf("%s: believed before and after\n%s\n%s", k, b, a)
			}
		}
		// A file that was damaged is worth nothing, and that is seen.
		id := tr.Generations[1].ID()
		w.write(filepath.Join(w.opts.Dir, id.String()+".xml"), testGeneration("102", "damaged")["repodata/repomd.xml"])
		w.start()
		if md := w.o.Repomd(base9, id); md != nil {
			t.Errorf("a damaged file was read: %+v", md)
		}
		// What nobody remembers is removed.
		w.sleep(61 * time.Hour)
		w.publish(base9, "103")
		w.pass(time.Minute)
		w.wantRevisions(base9, "103", "102")
		left, err := os.ReadDir(w.opts.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) != 5 { // two of base9, one of each other
			t.Errorf("%d files are left: %v", len(left), left)
		}
	})
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A directory that cannot be written is worth a line in the log, and no more.
func TestRememberingFails(t *testing.T) {
	w := emptyWorld(t, false)
	w.publish(base9, "100")
	file := filepath.Join(t.TempDir(), "file")
	w.write(file, nil)
	w.opts.Dir = filepath.Join(file, "below")
	w.start()
	wantEvents(t, w.poll(), "publish 9.8/baseos/x86_64")
	if w.o.Repomd(base9, w.truth[base9].Generations[0].ID()) == nil {
		t.Error("the parsed file is not even known while the process lives")
	}
}

func TestHistoryIsForgotten(t *testing.T) {
	w := newWorld(t, false)
	for i := range 5 {
		w.publish(base9, strconv.Itoa(101+i))
		w.sleep(10 * time.Hour)
	}
	// Superseded longer ago than 12 h + 48 h: nothing yet.
	w.wantRevisions(base9, "105", "104", "103", "102", "101", "100")
	w.sleep(15 * time.Hour)
	w.wantRevisions(base9, "105", "104", "103", "102", "101")
	w.sleep(1000 * time.Hour)
	w.wantRevisions(base9, "105", "104")

	// An origin that publishes all the time does not fill the memory.
	tr := w.truth[base9]
	for i := range 2 * maxGenerations {
		tr = forget(adopt(tr, state.Generation{SHA256: sha256.Sum256([]byte{byte(i), byte(i >> 8)})}, w.now), w.now.Add(-time.Hour))
	}
	if len(tr.Generations) != maxGenerations {
		t.Errorf("%d generations are remembered, want %d", len(tr.Generations), maxGenerations)
	}
}

func TestExpire(t *testing.T) {
	w := newWorld(t, false)
	w.publish(base9, "101")
	w.pass(time.Minute)
	w.publish(base9, "102")
	w.pass(time.Minute)
	w.decide(state.Expire, base9)
	wantEvents(t, w.pass(5*time.Second), "override 9.8/baseos/x86_64: admin@example has withdrawn")
	w.wantRevisions(base9, "102", "101 expired", "100 expired")
	if !w.truth[base9].Expired {
		t.Error("the key is not expired")
	}
	wantEvents(t, w.pass(20*time.Minute))
	w.start() // decisions are read again, and change nothing
	wantEvents(t, w.pass(time.Minute))

	// What follows is not meant.
	w.publish(base9, "103")
	wantEvents(t, w.pass(time.Minute), "publish 9.8/baseos/x86_64")
	w.wantRevisions(base9, "103", "102", "101 expired", "100 expired")
	if w.truth[base9].Expired {
		t.Error("the key is expired, though 102 is not")
	}

	// A decision that is made before the checker has seen the publication waits for
	// it: otherwise the bad generation would be the one that stays.
	w.publish(base9, "104")
	w.decide(state.Expire, base9)
	wantEvents(t, w.pass(time.Minute), "publish 9.8/baseos/x86_64", "override 9.8/baseos/x86_64: withdrawn")
	w.wantRevisions(base9, "104", "103 expired", "102 expired", "101 expired", "100 expired")
	w.wantRevisions(app9, "100")

	// Whatever it is that follows: what was about to be published may be withdrawn
	// itself, and replaced.
	w.put(base9, map[string][]byte{"repodata/repomd.xml": testGeneration("105", "half")["repodata/repomd.xml"]})
	w.decide(state.Expire, base9)
	wantEvents(t, w.pass(30*time.Second))
	w.publish(base9, "106")
	wantEvents(t, w.pass(time.Minute), "publish 9.8/baseos/x86_64", "override 9.8/baseos/x86_64: withdrawn")
	w.wantRevisions(base9, "106", "104 expired", "103 expired", "102 expired", "101 expired", "100 expired")
}

// Decisions that cannot be read stay as they were.
func TestDecisionsAreUnreadable(t *testing.T) {
	w := newWorld(t, false)
	w.publish(base9, "101")
	w.pass(time.Minute)
	var fail atomic.Bool
	var log bytes.Buffer
	w.opts.Log = slog.New(slog.NewTextHandler(&log, nil))
	w.start()
	w.o.opts.Decisions = func(context.Context) ([]state.Decision, error) {
		if fail.Load() {
			return nil, errors.New("redis is away")
		}
		return w.decisions, nil
	}
	w.decide(state.Expire, base9)
	fail.Store(true)
	w.pass(time.Minute)
	w.wantRevisions(base9, "101", "100")
	fail.Store(false)
	w.pass(time.Minute)
	w.wantRevisions(base9, "101", "100 expired")
	if n := strings.Count(log.String(), "\n"); n != 2 || !strings.Contains(log.String(), "redis is away") {
		t.Errorf("the log has %d lines, want one for the failure and one for its end:\n%s", n, &log)
	}
}

func TestDisputed(t *testing.T) {
	w := newWorld(t, false)
	ahead := []state.Key{base9}

	// The origin is there and says what it said: a mirror lies.
	w.o.SetAhead(ahead)
	if next := w.o.Next(); next.After(w.now) {
		t.Errorf("the next poll is due at %v, want now", next)
	}
	w.pass(time.Hour)
	if tr := w.truth[base9]; !tr.Disputed.IsZero() {
		t.Errorf("disputed since %v, and the origin serves it", tr.Disputed)
	}
	w.o.SetAhead(nil)

	// The origin is away, and nobody says otherwise.
	if err := os.Rename(w.root, w.root+".away"); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Hour)
	if tr := w.truth[base9]; !tr.Disputed.IsZero() {
		t.Errorf("disputed since %v by nobody", tr.Disputed)
	}
	// Now mirrors do.
	w.o.SetAhead(ahead)
	from := w.now
	w.pass(10 * time.Minute)
	since := w.truth[base9].Disputed
	if since.Before(from) || since.After(from.Add(2*time.Second)) {
		t.Errorf("disputed since %v, want %v", since, from)
	}
	if tr := w.truth[app9]; !tr.Disputed.IsZero() {
		t.Errorf("another key is disputed since %v", tr.Disputed)
	}
	if n := w.o.Numbers().Disputed; n != 1 {
		t.Errorf("%d repositories are said to be disputed, want 1", n)
	}
	// A restart does not begin anew, and neither does saying it again.
	w.start()
	w.pass(time.Minute)
	w.o.SetAhead(ahead)
	w.pass(time.Minute)
	if again := w.truth[base9].Disputed; !again.Equal(since) {
		t.Errorf("disputed since %v after a restart, want %v", again, since)
	}
	t.Run("until mirrors are not ahead any more", func(t *testing.T) {
		w.o.SetAhead(nil)
		w.pass(3 * time.Second)
		if tr := w.truth[base9]; !tr.Disputed.IsZero() {
			t.Errorf("disputed since %v", tr.Disputed)
		}
		w.o.SetAhead(ahead)
		w.pass(time.Minute)
		if tr := w.truth[base9]; tr.Disputed.IsZero() {
			t.Error("not disputed again")
		}
	})
	t.Run("or until the origin confirms", func(t *testing.T) {
		if err := os.Rename(w.root+".away", w.root); err != nil {
			t.Fatal(err)
		}
		w.publish(base9, "101")
		w.pass(2 * time.Minute)
		if tr := w.truth[base9]; !tr.Disputed.IsZero() {
			t.Errorf("disputed since %v", tr.Disputed)
		}
		w.wantRevisions(base9, "101", "100")
	})
	t.Run("a generation that is served and not believed confirms nothing", func(t *testing.T) {
		w.put(base9, map[string][]byte{"repodata/repomd.xml": testGeneration("102", "half")["repodata/repomd.xml"]})
		w.pass(time.Minute)
		if tr := w.truth[base9]; tr.Disputed.IsZero() {
			t.Error("not disputed")
		}
	})
}

func TestImages(t *testing.T) {
	key := state.Key{Version: "9.8", Repo: isos, Arch: "x86_64"}
	sum := func(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }
	each(t, func(t *testing.T, overHTTP bool) {
		for _, tt := range []struct {
			name    string
			list    string
			images  map[string]string // that are there
			want    map[string]int64  // nil: no set is known
			problem string
		}{
			{"each with its size", "SHA256 (boot.iso) = " + sum("boot") + "\n" + sum("dvd") + "  dvd.iso\n",
				map[string]string{"boot.iso": "boot", "dvd.iso": "a dvd"}, map[string]int64{"boot.iso": 4, "dvd.iso": 5}, ""},
			{"one is not there", "SHA256 (boot.iso) = " + sum("boot") + "\nSHA256 (dvd.iso) = " + sum("dvd") + "\n",
				map[string]string{"boot.iso": "boot"}, map[string]int64{"boot.iso": 4}, "names dvd.iso, which is not there"},
			{"one is shorter than the list says", "# boot.iso: 40 bytes\nSHA256 (boot.iso) = " + sum("boot") + "\nSHA256 (dvd.iso) = " + sum("dvd") + "\n",
				map[string]string{"boot.iso": "boot", "dvd.iso": "dvd"}, map[string]int64{"dvd.iso": 3}, "names boot.iso with 40 bytes, and there are 4"},
			{"a list that is none", "<html>parked</html>", nil, nil, "is no CHECKSUM"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				w := newWorld(t, overHTTP)
				files := map[string][]byte{checksumFile: []byte(tt.list)}
				for name, text := range tt.images {
					files[name] = []byte(text)
				}
				w.put(key, files)
				w.start()
				events := w.pass(5 * time.Minute)
				set := w.o.Images(key)
				got := map[string]int64{}
				if set != nil {
					for _, f := range set.Files {
						got[f.Location] = f.Size
					}
					if set.Sum != sha256.Sum256([]byte(tt.list)) || set.Size != int64(len(tt.list)) {
						t.Errorf("the list itself is said to be %v, %d bytes", set.Sum, set.Size)
					}
				}
				if (set == nil) != (tt.want == nil) || set != nil && !maps.Equal(got, tt.want) {
					t.Errorf("images %v, want %v", got, tt.want)
				}
				told := map[string]int64{}
				for _, i := range w.truth[key].Images {
					told[i.Name] = i.Size
					if i.Algorithm != "sha256" || len(i.Digest) != 64 {
						t.Errorf("%s is told with %s %s", i.Name, i.Algorithm, i.Digest)
					}
				}
				if !maps.Equal(told, got) {
					t.Errorf("the servers are told of %v, want %v", told, got)
				}
				if tt.problem == "" {
					wantEvents(t, events)
					return
				}
				wantEvents(t, events, "origin 9.8/isos/x86_64: "+tt.problem)
				w.put(key, map[string][]byte{checksumFile: []byte(sum("boot") + " *boot.iso\n"), "boot.iso": []byte("boot")})
				wantEvents(t, w.pass(20*time.Minute), "origin 9.8/isos/x86_64 over")
				if set := w.o.Images(key); set == nil || len(set.Files) != 1 {
					t.Errorf("after it was corrected the set is %+v", set)
				}
			})
		}
		t.Run("the sets of the sample network", func(t *testing.T) {
			w := newWorld(t, overHTTP)
			if err := testworld.WriteISOs(w.root, "9.8", "x86_64"); err != nil {
				t.Fatal(err)
			}
			w.start()
			wantEvents(t, w.poll())
			set := w.o.Images(key)
			if set == nil || len(set.Files) != 3 {
				t.Fatalf("images %+v, want three", set)
			}
			for _, f := range set.Files {
				if info, err := os.Stat(filepath.Join(w.root, "9.8", "isos", "x86_64", f.Location)); err != nil || info.Size() != f.Size || f.Checksum.Type != "sha256" {
					t.Errorf("%s: %+v; the file is %v, %v", f.Location, f, info, err)
				}
			}
			if other := w.o.Images(state.Key{Version: "8.10", Repo: isos, Arch: "x86_64"}); other != nil {
				t.Errorf("a version without images has %+v", other)
			}
		})
	})
}

// A version without images has none to be asked for, until it has.
func TestNoImages(t *testing.T) {
	key := state.Key{Version: "9.8", Repo: isos, Arch: "x86_64"}
	each(t, func(t *testing.T, overHTTP bool) {
		w := newWorld(t, overHTTP)
		if !w.truth[key].Absent {
			t.Errorf("images that tier0 does not have are %+v, want absent", w.truth[key])
		}
		if err := testworld.WriteISOs(w.root, "9.8", "x86_64"); err != nil {
			t.Fatal(err)
		}
		w.pass(vaultEvery)
		if tr := w.truth[key]; tr.Absent || len(tr.Images) != 3 {
			t.Errorf("images that are there now are %+v", tr)
		}
		if err := os.RemoveAll(filepath.Join(w.root, "9.8", "isos")); err != nil {
			t.Fatal(err)
		}
		w.pass(vaultEvery)
		if tr := w.truth[key]; !tr.Absent || tr.Images != nil || w.o.Images(key) != nil {
			t.Errorf("images that are gone are %+v", tr)
		}
	})
	t.Run("a tier0 that has nothing says nothing", func(t *testing.T) {
		w := emptyWorld(t, false)
		w.start()
		w.pass(time.Minute)
		if w.truth[key].Absent {
			t.Error("images are absent from an empty tree")
		}
		w.publish(base9, "100")
		w.pass(5 * time.Minute)
		if !w.truth[key].Absent {
			t.Error("it has something, and no images, and that is not noticed before tomorrow")
		}
	})
}

// Of what the network file excludes it is found out once a day whether tier0 has
// it all the same, and nothing else.
func TestExcludedRepositories(t *testing.T) {
	crb8 := state.Key{Version: "8.10", Repo: "crb", Arch: "x86_64"}
	each(t, func(t *testing.T, overHTTP bool) {
		w := newWorld(t, overHTTP)
		if !slices.Equal(ExcludedKeys(w.n), []state.Key{crb8}) {
			t.Fatalf("excluded are %v, want %s", ExcludedKeys(w.n), crb8)
		}
		if !w.truth[crb8].Absent {
			t.Errorf("what neither the network nor tier0 has is %+v, want absent", w.truth[crb8])
		}
		if n := w.o.Numbers(); n.Keys != 5 {
			t.Errorf("%d repositories are asked for each minute, want 5", n.Keys)
		}
		w.publish(crb8, "100")
		wantEvents(t, w.pass(vaultEvery))
		if tr := w.truth[crb8]; tr.Absent || tr.Newest() != nil {
			t.Errorf("what tier0 has is %+v, want neither absent nor believed", tr)
		}
		if err := os.RemoveAll(w.dir(crb8)); err != nil {
			t.Fatal(err)
		}
		wantEvents(t, w.pass(vaultEvery))
		if !w.truth[crb8].Absent {
			t.Error("what is gone is not absent")
		}
		// A tier0 that is away, or empty, takes nothing back, over a restart either.
		if err := os.RemoveAll(filepath.Join(w.root, "9.8")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(w.root, "8.10")); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.pass(vaultEvery)
		if !w.truth[crb8].Absent {
			t.Error("what was absent is not any more since tier0 is empty")
		}
	})
	t.Run("what is excluded from now on is no longer believed", func(t *testing.T) {
		w := newWorld(t, false)
		w.n = parseNetwork(t, strings.Replace(originNetwork, "path: AppStream/$basearch/os/", `path: AppStream/$basearch/os/, versions: ["9.8"]`, 1))
		w.start()
		w.poll()
		if tr := w.truth[app8]; tr.Absent || tr.Newest() != nil {
			t.Errorf("it is %+v, want neither absent nor believed", tr)
		}
		w.n = parseNetwork(t, originNetwork)
		w.o.SetNetwork(w.n)
		w.poll()
		w.wantRevisions(app8, "100")
	})
}

func TestNewOriginRefuses(t *testing.T) {
	n := parseNetwork(t, originNetwork)
	for _, tt := range []struct {
		name   string
		tier0s Origins
		err    string
	}{
		{"no tier0", nil, "tier0 is not named"},
		{"no main tree", Origins{"vault": {"/srv/vault"}}, "tier0 is not named"},
		{"a tree that the network does not have", Origins{"main": {"/srv"}, "kitten": {"/srv"}}, `no tree "kitten"; write one of main, vault`},
		{"another scheme", Origins{"main": {"ftp://tier0.example.org/"}}, `has the scheme "ftp"; write https`},
		{"a file on another host", Origins{"main": {"file://tier0/srv"}}, "write file:///PATH/"},
		{"a relative path", Origins{"main": {"srv"}}, "neither a URL nor an absolute path"},
		{"a URL without host", Origins{"main": {"https:///srv"}}, "names no host"},
		{"a URL that carries a password", Origins{"main": {"https://u:secret@tier0.example.org/"}}, "more than a host and a path"},
		{"a URL with a query", Origins{"main": {"https://tier0.example.org/?x"}}, "more than a host and a path"},
		{"no URL", Origins{"main": {"https://tier0 .example.org/%"}}, "no URL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewOrigin(OriginOptions{Network: n, Tier0s: tt.tier0s})
			if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
	o, err := NewOrigin(OriginOptions{Network: n, Tier0s: Origins{"main": {"file:///srv/with%20space"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if got := o.tier0s[0].base; got != "/srv/with space/" {
		t.Errorf("the directory is %q", got)
	}
	if got := o.Unasked(); !slices.Equal(got, []string{"vault"}) {
		t.Errorf("nobody asks for %q, want the vault", got)
	}
}
