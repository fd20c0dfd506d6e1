package mirrorlist

import (
	"compress/gzip"
	"context"
	"encoding/xml"
	"fmt"
	"html"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"meridian/checker/state"
	"meridian/schema"
)

// pagesWorld is a network in which everything that people write is hostile, or
// must not be seen.
var pagesWorld = map[string]string{
	"network.yml": `config_version: 3
allowed_outdate: 12h
mirrors_dir: mirrors.d
versions: ["9", "9.8"]
optional_module_versions: {kitten: ["10"]}
duplicated_versions: {"9": "9.8"}
vault_versions: ["9.7"]
vault_mirror: https://vault.example.org/
arches: {"9": [x86_64, aarch64], 10-kitten: [x86_64]}
required_protocols: [http, https]
repos: [{name: baseos, path: BaseOS/$basearch/os/}]
`,
	"mirrors.d/hostile.yml": `name: hostile.example.org
address: {http: http://hostile.example.org/, https: https://hostile.example.org/}
address_optional: {kitten: {https: https://hostile.example.org/kitten/}}
sponsor: <script>alert(1)</script>
sponsor_url: "https://sponsor.example.org/\"><script>alert(2)</script>"
email: hidden@example.org
geolocation: {country: AT, city: "<b>Graz</b>"}
`,
	"mirrors.d/private.yml": `name: secret.example.org
address: {https: https://secret.example.org/}
address_optional: {kitten: {https: https://secret.example.org/kitten/}}
sponsor: Nobody
email: hidden@example.org
private: true
subnets: [192.0.2.0/24]
`,
}

// pagesServer serves a world that is written into a directory.
func pagesServer(t testing.TB, world map[string]string, change ...func(*Options)) http.Handler {
	t.Helper()
	dir := t.TempDir()
	for name, text := range world {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	opts := Options{
		Config: Config{Network: filepath.Join(dir, "network.yml"), CacheDir: t.TempDir(), RequestsPerSecond: -1},
		Log:    slog.New(slog.DiscardHandler), Resolver: noNames{},
	}
	for _, f := range change {
		f(&opts)
	}
	s, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	public, _ := s.Handlers()
	return public
}

func TestPages(t *testing.T) {
	h := pagesServer(t, pagesWorld, func(o *Options) { o.Config.PublicURL = "https://mirrors.example.org" })
	for _, tt := range []struct {
		path   string
		status int
		has    string
	}{
		{"/", 200, "hostile.example.org"},
		{"/index.html", 200, "hostile.example.org"},
		{"/kitten", 200, "https://hostile.example.org/kitten/"},
		{"/kitten.html", 200, "https://hostile.example.org/kitten/"},
		{"/isos", 200, `href="/isos/aarch64/9.8"`},
		{"/isos.html", 200, `href="/isos/x86_64/9.8"`},
		{"/kitten/isos", 200, `href="/kitten/isos/x86_64/10-kitten"`},
		{"/kitten/isos.html", 200, "10-kitten"},
		{"/isos/x86_64/9", 200, "https://hostile.example.org/9.8/isos/x86_64/"},
		{"/isos/x86_64/9.html", 200, "https://hostile.example.org/9.8/isos/x86_64/"},
		{"/kitten/isos/x86_64/10-kitten", 200, "https://hostile.example.org/kitten/10-kitten/isos/x86_64/"},
		{"/isos/x86_64/9.7", 200, "https://vault.example.org/9.7/isos/x86_64"},
		{"/isos/mips/9", 404, "x86_64, aarch64"},
		{"/map", 200, "Map of"},
		{"/explain", 200, "hostile.example.org"},
		{"/explain?ip=192.0.2.9", 200, "1 private mirrors are for this address too"},
		{"/explain?ip=nonsense", 400, "malformed address"},
		{"/explain?mirror=secret.example.org", 200, "No public mirror is called"},
		{"/explain?mirror=hostile.example.org", 200, "hostile.example.org is number"},
		{"/explain?version=9.7", 200, "https://vault.example.org/9.7/"},
		{"/status", 200, "This node"},
		{"/propagation", 200, "No publication is known"},
		{"/statistics", 200, "keeps no statistics"},
		{"/repo-file", 200, "https://mirrors.example.org/metalink/9.8/baseos?arch=$basearch"},
		{"/repo-file/9", 200, "metalink=https://mirrors.example.org/metalink/9.8/baseos?arch=$basearch\n"},
		{"/repo-file/9.repo?list=mirrorlist&protocol=https&gpgkey=file:///etc/pki/k", 200, "mirrorlist=https://mirrors.example.org/mirrorlist/9.8/baseos?protocol=https\nenabled=1\ngpgcheck=1\ngpgkey=file:///etc/pki/k\n"},
		{"/repo-file/7", 404, "9.8"},
		{"/repo-file/9?list=torrent", 400, "list=metalink"},
		{"/repo-file/9?gpgkey=http://x", 400, "https://"},
		{"/isos/x86_64/7", 404, "9.8"},
		{"/kitten/nope", 404, "no such page"},
		{"/nope", 404, "no such page"},
	} {
		// As a client of the private mirror's own network: even it sees no more.
		r := httptest.NewRequest("GET", tt.path, nil)
		r.RemoteAddr = "192.0.2.7:1234"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		body := w.Body.String()
		if w.Code != tt.status || !strings.Contains(body, tt.has) {
			t.Errorf("%s: status %d, want %d with %q in\n%s", tt.path, w.Code, tt.status, tt.has, body)
		}
		for _, never := range []string{"secret.example.org", "hidden@", "192.0.2.0", "<script>", "alert(1)</script>", "<b>"} {
			// What a client has asked for itself is repeated to it.
			if strings.Contains(body, never) && !strings.Contains(tt.path, never) {
				t.Errorf("%s: the page contains %q", tt.path, never)
			}
		}
		policy := w.Header().Get("Content-Security-Policy")
		if w.Code == 200 && strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") && (!strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || strings.Contains(policy, "http")) {
			t.Errorf("%s: Content-Security-Policy %q lets in more than what this server has", tt.path, policy)
		}
	}
}

func TestPagesOfTheRealNetworkAreSmall(t *testing.T) {
	_, base := recordedWorld(t)
	if a := ask(t, base, "GET", "/", "5.6.7.8"); a.status != 200 || len(a.body) > 100_000 {
		t.Errorf("the page of 255 mirrors has status %d and %d bytes, want at most 100,000", a.status, len(a.body))
	}
}

// checkedWorld is a source of findings about pagesWorld, with a past.
type checkedWorld struct {
	snap   *state.Snapshot
	events map[string][]state.Event
}

func (w *checkedWorld) Load(context.Context) (*state.Snapshot, error) { return w.snap, nil }

func (w *checkedWorld) History(_ context.Context, mirror string, limit int) ([]state.Event, error) {
	all := w.events[mirror]
	return all[:min(limit, len(all))], nil
}

var pagesNow = time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)

// newCheckedWorld knows of both mirrors: what it says of the private one must be
// seen nowhere.
func newCheckedWorld() *checkedWorld {
	x86, arm := state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}, state.Key{Version: "9.8", Repo: "baseos", Arch: "aarch64"}
	generation := func(n byte, ago time.Duration) state.Generation {
		return state.Generation{Revision: fmt.Sprint(1000 + int(n)), Size: 3000, SHA256: state.Hash256{n}, FirstSeen: pagesNow.Add(-ago)}
	}
	truth := state.Truth{Generations: []state.Generation{generation(2, 3*time.Hour), generation(1, 48*time.Hour)}, Confirmed: pagesNow}
	images := state.Truth{Images: []state.Image{
		{Name: "dvd.iso", Size: 10_000_000_000, Algorithm: "sha256", Digest: strings.Repeat("ab", 32)}, {Name: "boot.iso", Size: 900_000_000, Algorithm: "sha256", Digest: strings.Repeat("cd", 32)},
	}}
	published := &state.Publication{
		Time: pagesNow.Add(-3 * time.Hour), Repositories: 2, Versions: []schema.Version{"9.8"},
		Samples: []state.Sample{
			{All: state.Share{Of: 20, OfMbits: 30_000}, Continents: map[string]state.Share{"EU": {Of: 15, OfMbits: 20_000}, "AS": {Of: 5, OfMbits: 10_000}}},
			{After: 1800, All: state.Share{Mirrors: 5, Of: 20, Mbits: 3000, OfMbits: 30_000}, Continents: map[string]state.Share{"EU": {Mirrors: 5, Of: 15, Mbits: 3000, OfMbits: 20_000}, "AS": {Of: 5, OfMbits: 10_000}}},
			{After: 9000, All: state.Share{Mirrors: 15, Of: 20, Mbits: 27_000, OfMbits: 30_000}, Continents: map[string]state.Share{"EU": {Mirrors: 12, Of: 15, Mbits: 19_000, OfMbits: 20_000}, "AS": {Mirrors: 3, Of: 5, Mbits: 8000, OfMbits: 10_000}}},
		},
	}
	wrong := &state.Problem{
		Reason: "repomd.xml is <b>HTML</b>", Remedy: "Look at secret things", Since: pagesNow.Add(-time.Hour),
		Evidence: &state.Evidence{At: pagesNow.Add(-time.Minute), Method: "GET", URL: "http://hostile.example.org/9.8/BaseOS/aarch64/os/repodata/repomd.xml", Status: 200, Body: "<script>alert(3)</script>"},
	}
	past := []state.Event{
		{Time: pagesNow.Add(-time.Hour), Kind: state.HealthChanged, Mirror: "hostile.example.org", Keys: []state.Key{arm}, From: state.Fresh, To: state.Broken, Problem: wrong},
		{Time: pagesNow.Add(-40 * time.Hour), Kind: state.HealthChanged, Mirror: "hostile.example.org", Keys: []state.Key{x86, arm}, From: state.Lagging, To: state.Fresh, Lag: 8 * time.Hour},
		{Time: pagesNow.Add(-48 * time.Hour), Kind: state.HealthChanged, Mirror: "hostile.example.org", Keys: []state.Key{x86, arm}, From: state.Fresh, To: state.Lagging},
	}
	return &checkedWorld{
		snap: &state.Snapshot{
			Taken: pagesNow.Add(-time.Minute), Truth: map[state.Key]state.Truth{x86: truth, arm: truth, {Version: "9.8", Repo: isoRepo, Arch: "x86_64"}: images},
			Publications: map[string]*state.Publication{published.ID(): published},
			Mirrors: map[string]*state.Status{
				"hostile.example.org": {
					Health:   map[state.Key]state.Health{x86: state.Lagging, arm: state.Broken},
					Holds:    map[state.Key]state.GenerationID{x86: truth.Generations[1].ID()},
					Findings: map[state.Key]*state.Finding{arm: {Since: pagesNow.Add(-time.Hour), Problem: wrong}},
					Schemes: map[string]*state.Scheme{
						"http":  {Works: state.Reached},
						"https": {Works: state.Unreached, TLSExpires: pagesNow.AddDate(0, 0, -1), Problem: &state.Problem{Reason: "the certificate has expired"}},
					},
					IPv4: state.Reached, IPv6: state.Unreached, Visited: pagesNow.Add(-time.Minute), Problem: wrong,
					Warnings: []string{"its clock is 3 minutes ahead"},
				},
				"secret.example.org": {Health: map[state.Key]state.Health{x86: state.Down}},
			},
		},
		events: map[string][]state.Event{"hostile.example.org": past, "secret.example.org": past},
	}
}

func TestPagesOfOneMirror(t *testing.T) {
	world := newCheckedWorld()
	h := pagesServer(t, pagesWorld, func(o *Options) {
		o.Source, o.Now = world, func() time.Time { return pagesNow }
		o.Config.PublicURL = "https://mirrors.example.org/"
	})
	const name = "/mirrors/hostile.example.org"
	for _, tt := range []struct {
		path string
		kind string
		has  []string
	}{
		{name, "text/html", []string{
			"repomd.xml is &lt;b&gt;HTML&lt;/b&gt;", "curl -q -g -sS -i --max-time 30 http://hostile.example.org/9.8/BaseOS/aarch64/os/repodata/repomd.xml",
			"&lt;script&gt;alert(3)", "its clock is 3 minutes ahead", "the certificate has expired", "works", "does not work", "aarch64", "feed.atom", "8 h",
		}},
		{name + "/badge.svg", "image/svg+xml", []string{"<title>mirror: broken</title>"}},
		{name + "/feed.atom", "application/atom+xml", []string{"https://mirrors.example.org/mirrors/hostile.example.org/feed.atom", "9.8/baseos/aarch64 is broken"}},
		{"/api/v1" + name, "application/json", []string{`"health":"broken"`, `"behind_since":"2026-03-31T09:00:00Z"`, `"revision":"1001"`, `"works":"unreached"`, `"curl":"curl `}},
		{"/api/v1" + name + "/history?limit=2", "application/json", []string{`"total":3`, `"next":"/api/v1/mirrors/hostile.example.org/history?cursor=`, `"lag_seconds":28800`, `"health":"broken"`}},
		{"/", "text/html", []string{`<span class="health broken">broken</span>`, `<td class="number">3 h</td>`}},
	} {
		w := serveOne(h, "GET", tt.path, "192.0.2.7:1", nil)
		body := w.Body.String()
		if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), tt.kind) {
			t.Errorf("%s: %d, %s: %s", tt.path, w.Code, w.Header().Get("Content-Type"), body)
		}
		for _, has := range tt.has {
			if !strings.Contains(body, has) {
				t.Errorf("%s: no %q in\n%s", tt.path, has, body)
			}
		}
		for _, never := range []string{"secret.example.org", "hidden@", "192.0.2.0", "<script>", "<b>"} {
			if strings.Contains(body, never) {
				t.Errorf("%s: contains %q", tt.path, never)
			}
		}
	}
}

func TestPrivateMirrorIsAnsweredForAsOneThatDoesNotExist(t *testing.T) {
	world := newCheckedWorld()
	h := pagesServer(t, pagesWorld, func(o *Options) { o.Source, o.Now = world, func() time.Time { return pagesNow } })
	for _, format := range []string{
		"/mirrors/%s", "/mirrors/%s/badge.svg", "/mirrors/%s/feed.atom", "/api/v1/mirrors/%s", "/api/v1/mirrors/%s/history",
	} {
		for _, accept := range []string{"", "text/html"} {
			// As a client of its own network.
			ask := func(name string) (int, string) {
				w := serveOne(h, "GET", fmt.Sprintf(format, name), "192.0.2.7:1", map[string]string{"Accept": accept})
				return w.Code, strings.ReplaceAll(w.Body.String(), name, "NAME")
			}
			code, text := ask("secret.example.org")
			none, same := ask("nobody.example.org")
			if code != http.StatusNotFound || none != code || text != same {
				t.Errorf("%s: %d %s; for a name that is not there: %d %s", format, code, text, none, same)
			}
		}
	}
}

// bigWorld has a thousand mirrors that say much of themselves.
func bigWorld() map[string]string {
	world := maps.Clone(pagesWorld)
	for i := range 1000 {
		name := fmt.Sprintf("mirror-%04d.some-university.example.org", i)
		world["mirrors.d/"+name+".yml"] = fmt.Sprintf(`name: %[1]s
address: {http: http://%[1]s/pub/linux/distribution/, https: https://%[1]s/pub/linux/distribution/, rsync: rsync://%[1]s/distribution/}
sponsor: The computing centre of the university number %[2]d, faculty of science
sponsor_url: https://www.some-university.example.org/faculties/science/computing/%[2]d/
geolocation: {country: %[3]s, city: Town %[4]d}
bandwidth: %[5]d
update_frequency: %[6]dh
`, name, i, []string{"DE", "US", "JP", "BR", "ZA"}[i%5], i%97, 100*(1+i%100), 1+i%12)
	}
	return world
}

func TestTableOfAThousandMirrors(t *testing.T) {
	h := pagesServer(t, bigWorld())
	rows := regexp.MustCompile(`<tr><th scope="row"><a href="/mirrors/([^"]+)">`)
	get := func(target string) (names []string, body string) {
		t.Helper()
		w := serveOne(h, "GET", target, "198.51.100.1:1", nil)
		body = w.Body.String()
		if w.Code != http.StatusOK || len(body) > 100_000 {
			t.Fatalf("%s: status %d and %d bytes, want at most 100,000", target, w.Code, len(body))
		}
		for _, m := range rows.FindAllStringSubmatch(body, -1) {
			names = append(names, m[1])
		}
		return names, body
	}

	// Every mirror is on one of the pages that follow each other.
	seen := map[string]bool{}
	next := regexp.MustCompile(`<a href="([^"]+)" rel="next"`)
	for target := "/"; target != ""; {
		names, body := get(target)
		for _, name := range names {
			if seen[name] {
				t.Fatalf("%s is there twice", name)
			}
			seen[name] = true
		}
		target = ""
		if m := next.FindStringSubmatch(body); m != nil {
			target = html.UnescapeString(m[1])
		}
	}
	if len(seen) != 1001 {
		t.Errorf("all pages together have %d mirrors, want 1001", len(seen))
	}

	for _, tt := range []struct {
		query, first string
		found        string
	}{
		{"q=mirror-0042", "mirror-0042.some-university.example.org", "1 of 1001 mirrors"},
		{"q=MIRROR-007+science&sort=name", "mirror-0070.some-university.example.org", "10 of 1001 mirrors"},
		{"q=germany&sort=name", "mirror-0000.some-university.example.org", "Mirrors 1 to 100 of 200"},
		{"country=jp&sort=name&order=desc", "mirror-0997.some-university.example.org", "of 200"},
		{"sort=bandwidth&order=desc", "mirror-0099.some-university.example.org", "of 1001"},
		{"sort=frequency&order=desc&country=US", "mirror-0011.some-university.example.org", "of 200"},
		{"protocol=rsync&sort=name&page=10", "mirror-0900.some-university.example.org", "Mirrors 901 to 1000 of 1000"},
		{"sort=sponsor", "hostile.example.org", "of 1001"},
		{"health=broken", "", "No mirror is like that"},
		{"q=mirror&page=99", "", "of 1000"},
		{"family=ipv6", "", "No mirror is like that"},
	} {
		names, body := get("/?" + tt.query)
		first := ""
		if len(names) > 0 {
			first = names[0]
		}
		if first != tt.first || !strings.Contains(body, tt.found) {
			t.Errorf("%s: the first is %q, want %q, and %q in the page: %v", tt.query, first, tt.first, tt.found, strings.Contains(body, tt.found))
		}
	}
	for query, says := range map[string]string{
		"sort=size": "write one of name", "health=good": "write one of unknown", "order=up": "order=asc", "page=0": "from 1", "country=germany": "country=DE",
	} {
		if w := serveOne(h, "GET", "/?"+query, "198.51.100.1:1", nil); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %d %s, want 400 with %q", query, w.Code, w.Body, says)
		}
	}
}

// A page that is the same for everybody is made once for many who look at it, and
// again when anything of the network has changed; what depends on who asks is made
// for each.
func TestPagesAreMadeOnceForMany(t *testing.T) {
	dir := newFiles(t, 3)
	st := startIn(t, dir, func(o *Options) { o.Config.Geo = Geo{demoGeo, demoGeo} })
	table := st.table.Load()
	h, _ := st.Handlers()
	ask := func(target, client string) string {
		t.Helper()
		w := serveOne(h, "GET", target, client+":1", map[string]string{"Accept-Encoding": "gzip"})
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", target, w.Code, w.Body)
		}
		return w.Body.String()
	}
	for range 2 {
		ask("/", "192.0.2.1")
		ask("/?q=m1", "192.0.2.1")
		ask("/explain", "192.0.2.1")
		ask("/map", "192.0.2.1")
		ask("/status", "192.0.2.1")
	}
	if got := slices.Sorted(maps.Keys(st.larder.kept)); !slices.Equal(got, []string{"/", "/?q=m1"}) && st.table.Load() == table {
		t.Errorf("kept are %q", got)
	}
	if ask("/explain", "192.0.2.1") == ask("/explain", "203.0.113.7") {
		t.Error("two clients get one explanation")
	}
	before := ask("/", "192.0.2.1")
	writeFile(t, dir+"/mirrors.d/new.yml", mirrorYAML("new.example.org", ""))
	if err := st.Reload(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if ask("/", "192.0.2.1") == before {
		t.Error("a page is that of the network before")
	}

	// What is kept is bounded, and old answers go first.
	var l larder
	now := time.Now()
	for i := range 3 * mostKept {
		l.put(table, fmt.Sprint(i), now, &response{body: make([]byte, mostKeptBytes/100)})
	}
	sum := 0
	for _, k := range l.kept {
		sum += k.size()
	}
	if sum != l.size || l.size > mostKeptBytes || len(l.kept) > mostKept || len(l.kept) != len(l.order) {
		t.Errorf("%d answers of %d bytes are kept, counted as %d", len(l.kept), sum, l.size)
	}
	last := fmt.Sprint(3*mostKept - 1)
	if l.get(table, last, now) == nil || l.get(table, "0", now) != nil || l.get(table, last, now.Add(keptFor)) != nil || l.get(nil, last, now) != nil {
		t.Error("kept is not what was put in last, for its time and table")
	}
}

func TestResponsesAreCompressedAndNotSentTwice(t *testing.T) {
	h := pagesServer(t, pagesWorld)
	for _, target := range []string{"/", "/api/v1/network", "/assets/style.css", "/mirrors/hostile.example.org"} {
		plain := serveOne(h, "GET", target, "198.51.100.1:1", nil)
		tag := plain.Header().Get("ETag")
		if plain.Code != http.StatusOK || tag == "" || plain.Header().Get("Content-Encoding") != "" {
			t.Fatalf("%s: %d, ETag %q, encoding %q", target, plain.Code, tag, plain.Header().Get("Content-Encoding"))
		}
		if plain.Body.Len() > leastGzip {
			small := serveOne(h, "GET", target, "198.51.100.1:1", map[string]string{"Accept-Encoding": "br, gzip"})
			r, err := gzip.NewReader(small.Body)
			if err != nil || small.Header().Get("Content-Encoding") != "gzip" {
				t.Fatalf("%s: encoding %q: %v", target, small.Header().Get("Content-Encoding"), err)
			}
			if same, err := io.ReadAll(r); err != nil || string(same) != plain.Body.String() {
				t.Errorf("%s: the compressed body is another one: %v", target, err)
			}
			if w := serveOne(h, "GET", target, "198.51.100.1:1", map[string]string{"Accept-Encoding": "gzip;q=0, *;q=0.5"}); w.Header().Get("Content-Encoding") != "" {
				t.Errorf("%s: compressed for who refuses it", target)
			}
		}
		for _, sent := range []string{tag, strings.TrimPrefix(tag, "W/"), `"x", ` + tag, "*"} {
			if w := serveOne(h, "GET", target, "198.51.100.1:1", map[string]string{"If-None-Match": sent}); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
				t.Errorf("%s, If-None-Match %s: %d with %d bytes, want 304", target, sent, w.Code, w.Body.Len())
			}
		}
		if w := serveOne(h, "GET", target, "198.51.100.1:1", map[string]string{"If-None-Match": `"other"`}); w.Code != http.StatusOK {
			t.Errorf("%s with the tag of something else: %d", target, w.Code)
		}
	}
}

func TestImagesComeFromTheNearestMirrorThatHasThem(t *testing.T) {
	iso := state.Key{Version: "9.8", Repo: isoRepo, Arch: "x86_64"}
	world := newCheckedWorld()
	status := func(h state.Health) *state.Status {
		return &state.Status{Health: map[state.Key]state.Health{iso: h}}
	}
	files := maps.Clone(pagesWorld)
	files["mirrors.d/hostile.yml"] = strings.Replace(files["mirrors.d/hostile.yml"], "country: AT,", "country: AT, latitude: 47.1, longitude: 15.4,", 1)
	for i, m := range []struct {
		name   string
		health state.Health
	}{{"wrong-size.example.org", state.Broken}, {"not-asked.example.org", state.Unknown}, {"near.example.org", state.Fresh}, {"far.example.org", state.Fresh}} {
		// Without a place the client is as near to all of them.
		files["mirrors.d/"+m.name+".yml"] = fmt.Sprintf("name: %s\naddress: {http: http://%[1]s/, https: https://%[1]s/}\nsponsor: S\nbandwidth: %d\n", m.name, []int{1_000_000, 1_000_000, 100_000, 1}[i])
		if m.health != state.Unknown {
			world.snap.Mirrors[m.name] = status(m.health)
		}
	}
	world.snap.Mirrors["hostile.example.org"].Health[iso] = state.Broken
	h := pagesServer(t, files, func(o *Options) { o.Source, o.Now = world, func() time.Time { return pagesNow } })
	get := func(target string) *httptest.ResponseRecorder {
		return serveOne(h, "GET", target, "198.51.100.1:1", nil)
	}
	const at = ".example.org/9.8/isos/x86_64/dvd.iso"
	for _, target := range []string{"/isos/x86_64/9.8/dvd.iso", "/isos/x86_64/9/dvd.iso"} {
		w := get(target)
		if to := w.Header().Get("Location"); w.Code != http.StatusFound || to != "https://near"+at && to != "https://far"+at {
			t.Errorf("%s: %d to %q", target, w.Code, to)
		}
	}
	if w := get("/isos/x86_64/9.7/any.iso"); w.Code != http.StatusFound || w.Header().Get("Location") != "https://vault.example.org/9.7/isos/x86_64/any.iso" {
		t.Errorf("an image of the vault: %d to %q", w.Code, w.Header().Get("Location"))
	}
	if w := get("/isos/aarch64/9.8/any.iso"); w.Code != http.StatusFound {
		t.Errorf("an image of a set of which nothing is known: %d %s", w.Code, w.Body)
	}
	if w := get("/kitten/isos/x86_64/10-kitten/any.iso"); w.Code != http.StatusFound || w.Header().Get("Location") != "https://hostile.example.org/kitten/10-kitten/isos/x86_64/any.iso" {
		t.Errorf("an image of a module: %d to %q", w.Code, w.Header().Get("Location"))
	}
	for target, says := range map[string]string{
		"/isos/x86_64/9.8/none.iso": "dvd.iso, boot.iso", "/isos/x86_64/9.8/none.iso.meta4": "dvd.iso", "/isos/x86_64/9.8/%2e%2e": "plain name", "/isos/x86_64/9.8/a%22b": "plain name",
		"/isos/aarch64/9.8/any.iso.meta4": "/isos/aarch64/9.8/any.iso",
	} {
		if w := get(target); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %d %s, want 404 with %q", target, w.Code, w.Body, says)
		}
	}

	w := get("/isos/x86_64/9.8/dvd.iso.meta4")
	var doc struct {
		XMLName xml.Name `xml:"urn:ietf:params:xml:ns:metalink metalink"`
		File    struct {
			Name string `xml:"name,attr"`
			Size int64  `xml:"size"`
			Hash struct {
				Type  string `xml:"type,attr"`
				Value string `xml:",chardata"`
			} `xml:"hash"`
			URLs []struct {
				Priority int    `xml:"priority,attr"`
				URL      string `xml:",chardata"`
			} `xml:"url"`
		} `xml:"file"`
	}
	if err := xml.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Header().Get("Content-Type") != "application/metalink4+xml" {
		t.Fatalf("the metalink: %d, %s: %v\n%s", w.Code, w.Header().Get("Content-Type"), err, w.Body)
	}
	f := doc.File
	if f.Name != "dvd.iso" || f.Size != 10_000_000_000 || f.Hash.Type != "sha-256" || f.Hash.Value != strings.Repeat("ab", 32) {
		t.Errorf("the metalink is about %+v", f)
	}
	if len(f.URLs) != 3 || f.URLs[0].Priority != 1 || f.URLs[2].Priority != 3 || f.URLs[2].URL != "https://not-asked"+at {
		t.Errorf("its URLs are %+v; want the two mirrors that have it, then the one that nobody has asked", f.URLs)
	}
	if w := get("/isos/x86_64/9.8"); !strings.Contains(w.Body.String(), strings.Repeat("ab", 32)) || !strings.Contains(w.Body.String(), "10.0 GB") || !strings.Contains(w.Body.String(), `href="/isos/x86_64/9.8/dvd.iso.meta4"`) {
		t.Errorf("the page of the images does not say what they are:\n%s", w.Body)
	}
}

// The line is pasted into a shell as it is: what it does to files of a distribution,
// and to those of others, which it must leave alone.
func TestLineThatSwitchesASystem(t *testing.T) {
	sed, err := exec.LookPath("sed")
	if err != nil {
		t.Skip("there is no sed")
	}
	h := pagesServer(t, pagesWorld, func(o *Options) { o.Config.PublicURL = "https://new.example.org" })
	body := serveOne(h, "GET", "/repo-file", "198.51.100.1:1", nil).Body.String()
	m := regexp.MustCompile(`<pre id="switch"><code>sudo sed (.*) /etc/yum\.repos\.d/\*\.repo &amp;&amp; sudo dnf clean metadata</code>`).FindStringSubmatch(body)
	if m == nil {
		t.Fatalf("no such line in\n%s", body)
	}
	const before = `[baseos]
name=BaseOS
mirrorlist=https://old.example.net/mirrorlist/$releasever/baseos
# baseurl=https://old.example.net/$releasever/BaseOS/$basearch/os/
gpgkey=file:///etc/pki/rpm-gpg/KEY
enabled=1
[baseos-verified]
metalink=https://old.example.net/metalink/9/baseos?arch=$basearch&protocol=https
[baseos-by-query]
mirrorlist=https://old.example.net/mirrorlist?repo=baseos-$releasever&arch=$basearch
metalink=https://old.example.net/metalink?repo=baseos-9.8
[baseos-debug]
mirrorlist=https://old.example.net/mirrorlist/$releasever/baseos-debug
metalink=https://old.example.net/metalink?repo=baseos-debug-9&arch=$basearch
[epel]
metalink=https://elsewhere.example/metalink?repo=epel-9&arch=$basearch
`
	file := filepath.Join(t.TempDir(), "distribution.repo")
	if err := os.WriteFile(file, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", sed+" "+html.UnescapeString(m[1])+` "$0"`, file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	after, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(
		"https://old.example.net/mirrorlist/$releasever/baseos\n", "https://new.example.org/mirrorlist/$releasever/baseos?arch=$basearch\n",
		"https://old.example.net/metalink/9/baseos?arch=$basearch&protocol=https\n", "https://new.example.org/metalink/9/baseos?arch=$basearch\n",
		"https://old.example.net/mirrorlist?repo=baseos-$releasever&arch=$basearch\n", "https://new.example.org/mirrorlist/$releasever/baseos?arch=$basearch\n",
		"https://old.example.net/metalink?repo=baseos-9.8\n", "https://new.example.org/metalink/9.8/baseos?arch=$basearch\n",
	).Replace(before)
	if string(after) != want {
		t.Errorf("it became\n%s\nwant\n%s", after, want)
	}
	if kept, err := os.ReadFile(file + ".before-switch"); err != nil || string(kept) != before {
		t.Errorf("what was before is not kept: %v", err)
	}
}
