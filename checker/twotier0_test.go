package checker

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"meridian/checker/state"
)

// repomdOf is where a mirror of a station has the repomd.xml of BaseOS.
const repomdOf = "/9.8/BaseOS/x86_64/os/repodata/repomd.xml"

// secondTier0 gives the station another tier0, which has what the first one has
// now, and returns a function that puts files of a repository there.
func (s *station) secondTier0() func(k state.Key, files map[string][]byte) {
	s.t.Helper()
	if err := os.CopyFS(s.path("second"), os.DirFS(s.path("tier0"))); err != nil {
		s.t.Fatal(err)
	}
	s.settings.Origin = Origins{mainTree: {s.path("tier0"), s.path("second")}}
	n := parseNetwork(s.t, stationNetwork)
	return func(k state.Key, files map[string][]byte) {
		s.t.Helper()
		for name, text := range files {
			s.write("second/"+RepoURL("", n, k)+name, string(text))
		}
	}
}

// holds has a mirror serve something as the repomd.xml of BaseOS.
func (s *site) holding(text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = maps.Clone(s.holds)
	s.holds[repomdOf] = text
}

// A mirror may have synced from any tier0: what one of them serves was not made up,
// whatever the others say, and whatever is missing there still.
func TestWhatAnyTier0ServesIsNoLie(t *testing.T) {
	half := testGeneration("200", "half")
	again := testGeneration("100", "made again")
	for _, tt := range []struct {
		name   string
		second map[string][]byte // what the second tier0 has of BaseOS beside revision 100
		mirror []byte
		want   string
	}{
		{"a generation that is not whole yet", map[string][]byte{"repodata/repomd.xml": half["repodata/repomd.xml"]}, half["repodata/repomd.xml"], "ahead fresh fresh"},
		{"the newest revision, made again", again, again["repodata/repomd.xml"], "ahead fresh fresh"},
		{"a generation that no tier0 serves", map[string][]byte{"repodata/repomd.xml": half["repodata/repomd.xml"]},
			testGeneration("200", "of my own")["repodata/repomd.xml"], "broken fresh fresh"},
		{"a revision that no tier0 made again", nil, again["repodata/repomd.xml"], "broken fresh fresh"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, []string{"a.example"}, func(s *station) {
				put := s.secondTier0()
				s.start()
				s.pass(soon * 10)
				s.wants("a.example", "fresh")
				put(base9, tt.second)
				s.sites["a.example"].holding(tt.mirror)
				s.pass(soon * 30)
				s.wants("a.example", tt.want)
				if tr := s.stored().Truth[base9]; tr.Newest().Revision != "100" || tr.Problem != nil {
					s.t.Errorf("the truth is %s, want revision 100, which the first tier0 serves", asJSON(s.t, tr))
				}
				s.halt()
			})
		})
	}
}

// What is published in the end is no longer ahead of anything, and whoever had it
// early is not held back for that.
func TestAheadUntilItIsAdopted(t *testing.T) {
	inBubble(t, []string{"a.example"}, func(s *station) {
		put := s.secondTier0()
		s.start()
		s.pass(soon * 10)
		files := testGeneration("200", "slow")
		put(base9, map[string][]byte{"repodata/repomd.xml": files["repodata/repomd.xml"]})
		at := s.sites["a.example"]
		at.mu.Lock()
		at.holds = maps.Clone(at.holds)
		for name, text := range files {
			at.holds[strings.TrimSuffix(repomdOf, "repodata/repomd.xml")+name] = text
		}
		at.mu.Unlock()
		s.pass(soon * 30)
		s.wants("a.example", "ahead fresh fresh")
		put(base9, files)
		s.pass(soon * 20)
		s.wants("a.example", "fresh")
		if tr := s.stored().Truth[base9]; tr.Newest().Revision != "200" || len(tr.Offered) != 0 {
			s.t.Errorf("the truth is %s, want revision 200 and nothing beside it", asJSON(s.t, tr))
		}
		s.halt()
	})
}

// A tier0 that cannot be asked may have published what its mirrors have.
func TestAMirrorOfATier0ThatIsAway(t *testing.T) {
	inBubble(t, []string{"a.example"}, func(s *station) {
		s.secondTier0()
		s.start()
		s.pass(soon * 10)
		if err := os.Rename(s.path("second"), s.path("away")); err != nil {
			s.t.Fatal(err)
		}
		s.pass(soon * 2)
		s.sites["a.example"].holding(testGeneration("200", "of the second")["repodata/repomd.xml"])
		s.pass(soon * 30)
		s.wants("a.example", "ahead fresh fresh")
		if tr := s.stored().Truth[base9]; tr.Problem != nil || !tr.Partial {
			s.t.Errorf("the truth is %s, want no problem, and that one tier0 is not heard", asJSON(s.t, tr))
		}
		// It is back, and does not know of it.
		if err := os.Rename(s.path("away"), s.path("second")); err != nil {
			s.t.Fatal(err)
		}
		s.pass(soon * 30)
		s.wants("a.example", "broken fresh fresh")
		s.halt()
	})
}

// What tier0s serve and nobody believes is remembered for as long as mirrors may
// have it, over a restart too, and not without bound.
func TestOffers(t *testing.T) {
	t.Run("what was taken back is remembered for a while", func(t *testing.T) {
		w := newWorld(t, false)
		good, err := os.ReadFile(filepath.Join(w.dir(base9), "repodata", "repomd.xml"))
		if err != nil {
			t.Fatal(err)
		}
		half := testGeneration("101", "half")["repodata/repomd.xml"]
		w.put(base9, map[string][]byte{"repodata/repomd.xml": half})
		w.pass(2 * truthEvery)
		if o := w.truth[base9].Offered; len(o) != 1 || !o[0].Gone.IsZero() {
			t.Fatalf("offered %+v, want the one that is not whole", o)
		}
		w.put(base9, map[string][]byte{"repodata/repomd.xml": good})
		w.pass(2 * truthEvery)
		o := w.truth[base9].Offered
		if len(o) != 1 || o[0].Gone.IsZero() {
			t.Fatalf("offered %+v, want one that is gone", o)
		}
		w.start()
		w.pass(2 * truthEvery)
		if again := w.truth[base9].Offered; len(again) != 1 || !again[0].Gone.Equal(o[0].Gone) {
			t.Errorf("offered %+v after a restart, want %+v", again, o)
		}
		w.sleep(w.n.AllowedOutdate + generationsAfter + truthEvery)
		if o := w.truth[base9].Offered; len(o) != 0 {
			t.Errorf("offered %+v when no mirror can have it any more", o)
		}
	})
	t.Run("a tier0 that goes away takes nothing back", func(t *testing.T) {
		w := newWorld(t, false)
		w.put(base9, map[string][]byte{"repodata/repomd.xml": testGeneration("101", "half")["repodata/repomd.xml"]})
		w.pass(2 * truthEvery)
		if err := os.Rename(w.root, w.root+".away"); err != nil {
			t.Fatal(err)
		}
		w.pass(5 * truthEvery)
		if o := w.truth[base9].Offered; len(o) != 1 || !o[0].Gone.IsZero() {
			t.Errorf("offered %+v, want the one that was there last", o)
		}
	})
	t.Run("files that cannot be looked for", func(t *testing.T) {
		w := newWorld(t, false)
		files := http.FileServer(http.Dir(w.root))
		var mu sync.Mutex
		ill := false
		s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			mu.Lock()
			fails := ill && !strings.HasSuffix(r.URL.Path, "/repomd.xml")
			mu.Unlock()
			if fails {
				rw.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			files.ServeHTTP(rw, r)
		}))
		t.Cleanup(s.Close)
		w.opts.Tier0s = Origins{"main": {s.URL + "/"}}
		w.start()
		w.poll()
		mu.Lock()
		ill = true
		mu.Unlock()
		w.publish(base9, "101")
		w.pass(2 * truthEvery)
		if o := w.truth[base9].Offered; len(o) != 1 {
			t.Errorf("offered %+v, want the generation that is there", o)
		}
	})
	t.Run("an origin that changes its mind all the time", func(t *testing.T) {
		w := newWorld(t, false)
		for i := range 3 * maxOffers {
			w.put(base9, map[string][]byte{"repodata/repomd.xml": testGeneration("101", string(rune('a'+i)))["repodata/repomd.xml"]})
			w.pass(2 * truthEvery)
		}
		o := w.truth[base9].Offered
		if len(o) != maxOffers || !o[len(o)-1].Gone.IsZero() || o[0].Gone.IsZero() {
			t.Errorf("offered %+v, want the %d last ones", o, maxOffers)
		}
	})
}
