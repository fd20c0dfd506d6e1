package mirrorlist

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

func newTestFeeds(cacheDir string) (*keptFeeds, chan struct{}) {
	changed := make(chan struct{}, 1)
	return newKeptFeeds(&Config{AllowPrivateAddresses: true}, cacheDir, slog.New(slog.NewTextHandler(io.Discard, nil)), changed), changed
}

// listServer serves a list that a test changes; "" is a failure.
func listServer(t *testing.T, list string) (url string, set func(string)) {
	t.Helper()
	var body atomic.Pointer[string]
	body.Store(&list)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if *body.Load() == "" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		io.WriteString(w, *body.Load())
	}))
	t.Cleanup(server.Close)
	return server.URL, func(list string) { body.Store(&list) }
}

func (k *keptFeeds) names() (out []string) {
	for _, st := range k.statuses() {
		out = append(out, st.Name)
	}
	return out
}

func TestFeedsFollowWhatIsNamed(t *testing.T) {
	dir := t.TempDir()
	aws := filepath.Join(dir, "aws.json")
	writeFile(t, aws, `{"prefixes":[{"ip_prefix":"3.0.0.0/15","region":"eu-west-1"}]}`)
	url, _ := listServer(t, `["192.0.2.0/24","198.51.100.0/24"]`)
	k, changed := newTestFeeds(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	k.follow(ctx, map[string]string{"aws": aws}, map[string]string{"a.example.org": url})
	if got, want := k.names(), []string{"cloud ranges of aws", "subnets of a.example.org"}; !slices.Equal(got, want) {
		t.Errorf("feeds %q, want %q", got, want)
	}
	// A file is there at once; a URL nobody waits for.
	clouds, subnets := k.values()
	if len(clouds["aws"]) != 1 || len(subnets["a.example.org"]) != 0 {
		t.Errorf("%d ranges and %d subnets at the start, want 1 and none", len(clouds["aws"]), len(subnets["a.example.org"]))
	}
	k.run(ctx)
	until(t, "the list of the URL", func() bool {
		_, subnets := k.values()
		return len(subnets["a.example.org"]) == 2
	})
	<-changed

	// One goes, one comes, one stays: and only those who stay or come are run.
	same := k.clouds["aws"]
	k.follow(ctx, map[string]string{"aws": aws}, map[string]string{"b.example.org": url})
	if k.clouds["aws"] != same {
		t.Error("a feed whose source is the same was begun anew")
	}
	until(t, "the list of the second mirror", func() bool {
		_, subnets := k.values()
		return len(subnets["b.example.org"]) == 2 && subnets["a.example.org"] == nil
	})
	if n := len(k.running); n != 2 {
		t.Errorf("%d feeds are run, want 2", n)
	}
	k.follow(ctx, nil, nil)
	if n := len(k.running); n != 0 || len(k.all()) != 0 {
		t.Errorf("%d feeds of %d are run, want none", n, len(k.all()))
	}
	cancel()
	k.wait() // returns, or the test never ends
}

func TestFeedsAreLoadedOnDemand(t *testing.T) {
	dir := t.TempDir()
	aws := filepath.Join(dir, "aws.json")
	ranges := func(n int) {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`{"ip_prefix":"3.%d.0.0/16","region":"eu-west-1"}`, i))
		}
		writeFile(t, aws, `{"prefixes":[`+strings.Join(list, ",")+`]}`)
	}
	ranges(10)
	url, set := listServer(t, `["192.0.2.0/24","198.51.100.0/24"]`)
	k, _ := newTestFeeds(t.TempDir())
	k.follow(t.Context(), map[string]string{"aws": aws}, map[string]string{"a.example.org": url})
	count := func() (int, int) {
		clouds, subnets := k.values()
		return len(clouds["aws"]), len(subnets["a.example.org"])
	}
	fetchAll(t.Context(), k.remotes(), false)
	if c, s := count(); c != 10 || s != 2 {
		t.Fatalf("%d ranges and %d subnets, want 10 and 2", c, s)
	}
	for _, step := range []struct {
		name            string
		edit            func()
		force           bool
		ranges, subnets int
		failing         bool
	}{
		{"both grow", func() { ranges(12); set(`["192.0.2.0/24","198.51.100.0/24","203.0.113.0/24"]`) }, false, 12, 3, false},
		{"both shrink by too much", func() { ranges(5); set(`["192.0.2.0/24"]`) }, false, 12, 3, true},
		{"and that is meant", func() {}, true, 5, 1, false},
		{"both break", func() { writeFile(t, aws, "{"); set("") }, true, 5, 1, true},
		{"both are repaired", func() { ranges(6); set(`["192.0.2.0/24","198.51.100.0/24"]`) }, false, 6, 2, false},
	} {
		step.edit()
		k.loadFiles(t.Context(), step.force)
		fetchAll(t.Context(), k.remotes(), step.force)
		if c, s := count(); c != step.ranges || s != step.subnets {
			t.Errorf("%s: %d ranges and %d subnets, want %d and %d", step.name, c, s, step.ranges, step.subnets)
		}
		for _, st := range k.statuses() {
			if (st.Err != nil) != step.failing {
				t.Errorf("%s: %s: error %v, want one: %v", step.name, st.Name, st.Err, step.failing)
			}
		}
	}
}

// A server begins with the copies of what it fetched before, and with none where
// there is no cache.
func TestFeedsBeginWithTheirCopies(t *testing.T) {
	cache := t.TempDir()
	url, set := listServer(t, `["192.0.2.0/24"]`)
	k, _ := newTestFeeds(cache)
	want := map[string]string{"a.example.org": url}
	k.follow(t.Context(), nil, want)
	fetchAll(t.Context(), k.remotes(), false)
	set("") // away
	for dir, n := range map[string]int{cache: 1, "": 0} {
		k, _ := newTestFeeds(dir)
		k.follow(t.Context(), nil, want)
		_, subnets := k.values()
		if got := subnets["a.example.org"]; len(got) != n || n == 1 && got[0] != netip.MustParsePrefix("192.0.2.0/24") {
			t.Errorf("with the cache %q: %v, want %d prefixes", dir, got, n)
		}
	}
}

// An explicit reload waits for the lists of others; health and hours do not, nor
// do lists.
func TestReloadFetchesLists(t *testing.T) {
	release, asked := make(chan struct{}), make(chan struct{}, 16)
	var held atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if held.Load() {
			asked <- struct{}{}
			<-release
			io.WriteString(w, `["127.0.0.0/8","192.0.2.0/24"]`)
			return
		}
		io.WriteString(w, `["192.0.2.0/24"]`)
	}))
	defer server.Close()
	dir := newFiles(t, 2)
	writeFile(t, filepath.Join(dir, "mirrors.d", "near.yml"), mirrorYAML("near.example.org", "subnets: "+server.URL+"\n"))
	st := startIn(t, dir, nil)
	until(t, "the list", func() bool {
		for _, f := range st.Status().feeds {
			if f.Items == 1 {
				return true
			}
		}
		return false
	})
	held.Store(true)
	reloaded := make(chan error, 1)
	go func() { reloaded <- st.Reload(t.Context(), true) }()
	<-asked
	// The keeper is not held up: it takes an edit meanwhile.
	st.write("mirrors.d/new.yml", mirrorYAML("new.example.org", ""))
	until(t, "the new mirror", func() bool { return st.mirrors() == 4 })
	select {
	case err := <-reloaded:
		t.Errorf("the reload has not waited for the list: %v", err)
	default:
	}
	close(release)
	if err := <-reloaded; err != nil {
		t.Errorf("Reload: %v", err)
	}
	if list := st.list("/mirrorlist/9/baseos"); list[0] != "http://near.example.org/linux/9.8/BaseOS/$basearch/os/" {
		t.Errorf("the list begins with %s: the fetched subnets are not in use", list[0])
	}
}

func TestTheCopyOfAFeedGoesWithTheFeed(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "aws.json")
	if err := os.WriteFile(source, []byte(`{"prefixes": [{"ip_prefix": "198.51.100.0/24", "region": "r"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	k := newKeptFeeds(&Config{}, cache, slog.New(slog.DiscardHandler), make(chan struct{}, 1))
	k.follow(t.Context(), map[string]string{"aws": source}, nil)
	copies := func() []os.DirEntry {
		entries, err := os.ReadDir(cache)
		if err != nil {
			t.Fatal(err)
		}
		return entries
	}
	if len(copies()) != 1 {
		t.Fatalf("%d copies on disk of one feed", len(copies()))
	}
	k.follow(t.Context(), nil, nil)
	if left := copies(); len(left) != 0 {
		t.Errorf("%v is left of a feed that nobody wants", left)
	}
}
