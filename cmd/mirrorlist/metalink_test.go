package main

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"meridian/builder/repodata"
	"meridian/checker/state"
	"meridian/internal/testworld"
	"meridian/schema"
)

// A metalinkWorld is a signed repository in two generations, three mirrors of it,
// and the real server, which reads what a checker would have found out.
type metalinkWorld struct {
	clientWorld
	dir       string
	trees     [2]string // by generation, older first
	published [2]state.Generation
}

var baseos = state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}

// Each mirror is told apart by the package that is installed from it: the older
// generation has meridian-hello-1.1, the newer one 1.2.
const (
	olderHello = "meridian-hello-1.1-1.el9_8.x86_64"
	newerHello = "meridian-hello-1.2-1.el9_8.x86_64"
)

func TestRealClientsWithMetalinks(t *testing.T) {
	w := newMetalinkWorld(t)
	t.Run("install", w.testMetalinkInstall)
	t.Run("dnf reads nothing again that did not change", w.testMetalinkRefresh)
	t.Run("dnf takes nothing from a mirror that plays back the older generation", w.testReplay)
	t.Run("a lagging mirror is used while its generation may be", w.testLagging)
	t.Run("dnf goes on without hashes when the findings are old", w.testOldFindings)
}

func (w *metalinkWorld) testMetalinkInstall(t *testing.T) {
	for client := range newClients {
		t.Run(client, func(t *testing.T) {
			w.serve(t, 1, 1, 1)
			w.findings(t, nil, state.Fresh, state.Fresh, state.Fresh)
			c := w.metalinkClient(t, client)
			install(t, c, "meridian-hello", newerHello)
			for _, r := range w.front.requests() {
				if r.code != http.StatusOK || r.path != "/metalink/9/baseos" || !strings.Contains(r.body, w.published[1].SHA256.String()) {
					t.Errorf("%s?%s: %d %s", r.path, r.query, r.code, r.body)
				}
			}
		})
	}
}

func (w *metalinkWorld) testMetalinkRefresh(t *testing.T) {
	w.serve(t, 1, 1, 1)
	w.findings(t, nil, state.Fresh, state.Fresh, state.Fresh)
	c := w.metalinkClient(t, "dnf")
	for i := range 2 {
		w.forget()
		if res, err := c.Run(t.Context(), "--refresh", "makecache"); err != nil || res.Code != 0 {
			t.Fatalf("dnf exited %d: %v\n%s", res.Code, err, res.Output)
		}
		hits := 0
		for _, m := range w.mirrors {
			hits += len(m.Hits())
		}
		if asked := len(w.front.requests()); i > 0 && (asked != 1 || hits != 0) || hits == 0 && i == 0 {
			t.Errorf("time %d: %d requests to the server and %d to mirrors", i+1, asked, hits)
		}
	}
}

// The older generation is signed as well as the newer one: only the hash tells
// that it is not the newest. zypper ignores hashes, so it is not asked.
func (w *metalinkWorld) testReplay(t *testing.T) {
	for liar := range w.mirrors {
		generations := []int{1, 1, 1}
		generations[liar] = 0
		w.serve(t, generations...)
		w.findings(t, nil, state.Fresh, state.Fresh, state.Fresh)
		install(t, w.metalinkClient(t, "dnf"), "meridian-hello", newerHello)
	}
}

func (w *metalinkWorld) testLagging(t *testing.T) {
	only := func(t *testing.T, healthy int) {
		t.Helper()
		for i, m := range w.mirrors {
			fault := testworld.Down
			if i == healthy {
				fault = testworld.Healthy
			}
			if err := m.Break(fault); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() {
		for _, m := range w.mirrors {
			if err := m.Break(testworld.Healthy); err != nil {
				t.Error(err)
			}
		}
	})
	w.serve(t, 0, 1, 1)
	lagging := []state.Health{state.Lagging, state.Fresh, state.Fresh}
	t.Run("dnf takes the older generation from it", func(t *testing.T) {
		w.findings(t, nil, lagging...)
		c := w.metalinkClient(t, "dnf")
		only(t, 0)
		install(t, c, "meridian-hello", olderHello)
	})
	t.Run("dnf rather fails once that was withdrawn", func(t *testing.T) {
		w.findings(t, func(s *state.Snapshot) {
			truth := s.Truth[baseos]
			truth.Generations[1].Expired = true
			s.Truth[baseos] = truth
		}, lagging...)
		c := w.metalinkClient(t, "dnf")
		only(t, 0)
		if res, err := c.Run(t.Context(), "install", "meridian-hello"); err != nil || res.Code == 0 {
			t.Errorf("dnf exited %d: %v\n%s", res.Code, err, res.Output)
		}
		only(t, 1)
		install(t, c, "meridian-hello", newerHello)
	})
}

func (w *metalinkWorld) testOldFindings(t *testing.T) {
	w.serve(t, 0, 0, 0)
	w.findings(t, func(s *state.Snapshot) { s.Taken = s.Taken.Add(-20 * time.Minute) }, state.Fresh, state.Fresh, state.Fresh)
	c := w.metalinkClient(t, "dnf")
	install(t, c, "meridian-hello", olderHello)
	for _, r := range w.front.requests() {
		if strings.Contains(r.body, "<hash") {
			t.Errorf("hashes are served:\n%s", r.body)
		}
	}
}

// metalinkClient waits until the server has read the findings that were written
// last, and sets up a client.
func (w *metalinkWorld) metalinkClient(t *testing.T, program string) *testworld.Client {
	t.Helper()
	c := w.client(t, program, "x86_64", "9", testworld.Source{Metalink: w.front.URL + "/metalink/$releasever/baseos?arch=$basearch"})
	w.forget()
	return c
}

// serve gives each mirror a tree.
func (w *metalinkWorld) serve(t *testing.T, generations ...int) {
	t.Helper()
	for i, g := range generations {
		w.mirrors[i].Serve(w.trees[g])
	}
}

// findings writes what a checker would, changed by edit, and waits until it is in
// service.
func (w *metalinkWorld) findings(t *testing.T, edit func(*state.Snapshot), health ...state.Health) {
	t.Helper()
	snap := &state.Snapshot{
		Taken:   time.Now().UTC(),
		Mirrors: map[string]*state.Status{},
		Truth:   map[state.Key]state.Truth{baseos: {Generations: []state.Generation{w.published[1], w.published[0]}, Confirmed: time.Now()}},
	}
	for i, h := range health {
		st := &state.Status{Health: map[state.Key]state.Health{baseos: h}}
		if h == state.Lagging {
			st.Holds = map[state.Key]state.GenerationID{baseos: w.published[0].ID()}
		}
		snap.Mirrors[mirrorName(i)] = st
	}
	if edit != nil {
		edit(snap)
	}
	data, err := json.Marshal(snap)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.dir, "state", "snapshot.json")
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(w.server+"/-/reload", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("reload: %s", resp.Status)
	}
}

func mirrorName(i int) string { return "mirror" + strconv.Itoa(i+1) + ".example.org" }

func newMetalinkWorld(t *testing.T) *metalinkWorld {
	t.Helper()
	for _, program := range []string{"rpmbuild", "createrepo_c", "gpg"} {
		testworld.Need(t, program)
	}
	network := testworld.SampleNetwork("http://vault.example.org/")
	w := &metalinkWorld{dir: t.TempDir()}
	w.key = newKey(t, w.dir)
	repos := slices.DeleteFunc(testworld.Repositories(network), func(r testworld.Repository) bool {
		return r.Repo != "baseos" || r.Arch != "x86_64" || r.Version != "9.8"
	})
	for i := range w.trees {
		w.trees[i] = filepath.Join(w.dir, "generation"+strconv.Itoa(i+1))
		if i > 0 {
			if err := os.CopyFS(w.trees[i], os.DirFS(w.trees[i-1])); err != nil {
				t.Fatal(err)
			}
		}
		if err := testworld.Publish(t.Context(), w.trees[i], filepath.Join(w.dir, "pool"), w.key, i+1, repos); err != nil {
			t.Fatal(err)
		}
		w.published[i] = generationOf(t, filepath.Join(w.trees[i], repos[0].Dir(), "repodata", "repomd.xml"))
		w.published[i].FirstSeen = time.Now().Add(time.Duration(i-len(w.trees)) * time.Hour)
	}
	var files []*schema.Mirror
	for i := range 3 {
		m, err := testworld.StartMirror("127.0.45."+strconv.Itoa(i+1)+":0", w.trees[1])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		w.mirrors = append(w.mirrors, m)
		files = append(files, testworld.SampleMirror(mirrorName(i), m.URL(), network, schema.Location{Country: "DE"}))
	}
	if err := testworld.WriteNetwork(w.dir, network, files); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(w.dir, "state"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.server = startServer(t, w.dir, "dir:state")
	w.front = startFront(t, w.server)
	return w
}

// generationOf reads a repomd.xml as a checker does.
func generationOf(t *testing.T, path string) (g state.Generation) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	md, err := repodata.ReadRepomd(strings.NewReader(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	g = state.Generation{Revision: md.Revision, Size: int64(len(data)), SHA256: sha256.Sum256(data), SHA512: sha512.Sum512(data)}
	for _, d := range md.Data {
		g.Timestamp = max(g.Timestamp, d.Timestamp)
	}
	return g
}
