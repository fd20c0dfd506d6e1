package checker

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"meridian/builder/repodata"
	"meridian/checker/state"
	"meridian/internal/testworld"
	"meridian/schema"
)

// probeNetwork has two versions, a module, and two repositories for two arches.
func probeNetwork(t testing.TB) *schema.Network {
	t.Helper()
	n, problems := schema.ParseNetwork("network.yml", []byte(`
config_version: 3
versions: ["9", "9.8"]
duplicated_versions: {"9": "9.8"}
optional_module_versions: {kitten: ["10"]}
arches: {"9": [x86_64, aarch64], "10-kitten": [x86_64]}
repos:
  - {name: baseos, path: BaseOS/$basearch/os/}
  - {name: appstream, path: AppStream/$basearch/os/}
`))
	if n == nil {
		t.Fatal(problems)
	}
	return n
}

// repomdFile is the repomd.xml of one generation, with one file of metadata.
func repomdFile(revision string, size int64) []byte {
	md := repodata.Repomd{Revision: revision, Data: []repodata.Data{{
		Type:      "primary",
		Checksum:  repodata.Checksum{Type: "sha256", Value: fmt.Sprintf("%064x", size)},
		Location:  "repodata/primary.xml.gz",
		Timestamp: 1767225600,
		Size:      size, OpenSize: -1,
	}}}
	return md.Marshal()
}

// A tree is what a mirror of a test serves: files by path, below "/".
type tree struct {
	mu    sync.Mutex
	files map[string][]byte
	log   []string // METHOD PATH
}

func (tr *tree) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tr.mu.Lock()
	body, ok := tr.files[strings.TrimPrefix(r.URL.Path, "/")]
	tr.log = append(tr.log, r.Method+" "+r.URL.Path)
	tr.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}

// probeOf returns a prober, and a mirror that is the handler.
func probeOf(t *testing.T, h http.Handler) (*Prober, *schema.Mirror) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	p := NewProber(ProbeOptions{AllowPrivateAddresses: true, Version: "1", ContactURL: "https://mirrors.example.org/"})
	t.Cleanup(p.Close)
	return p, &schema.Mirror{Name: "mirror.example.org", Address: schema.Address{HTTP: s.URL + "/alma/"}}
}

func TestVisitSeesWhatEachKeyServes(t *testing.T) {
	n := probeNetwork(t)
	newest, older := repomdFile("200", 10), repomdFile("100", 10)
	tr := &tree{files: map[string][]byte{
		"alma/9.8/BaseOS/x86_64/os/repodata/repomd.xml":        newest,
		"alma/9.8/BaseOS/x86_64/os/repodata/primary.xml.gz":    make([]byte, 10),
		"alma/9.8/BaseOS/aarch64/os/repodata/repomd.xml":       newest,
		"alma/9.8/BaseOS/aarch64/os/repodata/primary.xml.gz":   make([]byte, 9),
		"alma/9.8/AppStream/x86_64/os/repodata/repomd.xml":     older,
		"alma/9.8/AppStream/x86_64/os/repodata/primary.xml.gz": make([]byte, 10),
	}}
	p, m := probeOf(t, tr)
	files := []repodata.Data{{Location: "repodata/primary.xml.gz", Size: 10}}
	plan := Plan{Network: n}
	for _, k := range KeysOf(n, m) {
		plan.Keys = append(plan.Keys, KeyPlan{Key: k, Newest: sha256.Sum256(newest), Files: files})
	}
	o := p.Visit(t.Context(), m, plan)

	if len(o.Keys) != 4 {
		t.Fatalf("%d keys, want 4: %+v", len(o.Keys), o.Keys)
	}
	key := func(repo string, a schema.Arch) KeySeen {
		return o.Keys[state.Key{Version: "9.8", Repo: repo, Arch: a}]
	}

	fresh := key("baseos", "x86_64")
	if fresh.Outcome != Served || fresh.SHA256 != sha256.Sum256(newest) || fresh.Size != int64(len(newest)) ||
		fresh.Revision != "200" || fresh.Timestamp != 1767225600 || fresh.FilesAsked != 1 || len(fresh.FilesWrong) != 0 || fresh.Evidence != nil {
		t.Errorf("the newest generation with its files is seen as %+v", fresh)
	}
	short := key("baseos", "aarch64")
	if short.Outcome != Served || short.FilesAsked != 1 || len(short.FilesWrong) != 1 {
		t.Fatalf("a short primary is seen as %+v", short)
	}
	if f := short.FilesWrong[0]; f.Wrong != "it is 9 bytes long; 10 are right" || f.Evidence == nil || f.Path != "repodata/primary.xml.gz" {
		t.Errorf("a short primary is seen as %+v", f)
	}
	old := key("appstream", "x86_64")
	if old.Outcome != Served || old.Revision != "100" || old.FilesAsked != 0 || old.Evidence == nil {
		t.Errorf("an older generation is seen as %+v", old)
	}
	if absent := key("appstream", "aarch64"); absent.Outcome != Missing || absent.Evidence == nil || absent.Evidence.Status != 404 {
		t.Errorf("a repository that is not there is seen as %+v", absent)
	}
	// Four repomd.xml, two primaries, and a second look at the one that is wrong.
	if o.Requests != 7 || len(tr.log) != 7 {
		t.Errorf("%d requests are counted, %d were made: %q", o.Requests, len(tr.log), tr.log)
	}
	if o.Bytes < int64(2*len(newest)+len(older)) {
		t.Errorf("%d bytes", o.Bytes)
	}
}

func TestVisitEndsWithItsBudget(t *testing.T) {
	n := probeNetwork(t)
	tr := &tree{}
	p, m := probeOf(t, tr)
	plan := Plan{Network: n, Budget: 2}
	for _, k := range KeysOf(n, m) {
		plan.Keys = append(plan.Keys, KeyPlan{Key: k})
	}
	o := p.Visit(t.Context(), m, plan)
	if len(o.Keys) != 2 || o.Requests != 2 || len(tr.log) != 2 {
		t.Errorf("%d keys with %d requests, want 2 and 2", len(o.Keys), o.Requests)
	}
}

func TestVisitLeavesAMirrorThatIsDown(t *testing.T) {
	n := probeNetwork(t)
	p, m := probeOf(t, http.NotFoundHandler())
	nobody, err := testworld.FreeAddr("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	m.Address.HTTP = "http://" + nobody + "/"
	var plan = Plan{Network: n}
	for _, k := range KeysOf(n, m) {
		plan.Keys = append(plan.Keys, KeyPlan{Key: k})
	}
	o := p.Visit(t.Context(), m, plan)
	if len(o.Keys) != 1 || o.Keys[plan.Keys[0].Key].Outcome != Unreachable {
		t.Errorf("seen: %+v; want the sentinel alone, unreachable", o.Keys)
	}
}

func TestProbesSayWhoTheyAre(t *testing.T) {
	var got []string
	p, m := probeOf(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.UserAgent(), r.Header.Get("Cache-Control"))
		io.WriteString(w, "hello")
	}))
	p.Visit(t.Context(), m, Plan{Network: probeNetwork(t), Keys: []KeyPlan{{Key: state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}}}})
	if want := []string{"meridian-checker/1 (+https://mirrors.example.org/)", "no-cache"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("requests say %q, want %q", got, want)
	}
}
