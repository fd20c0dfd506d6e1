package mirrorlist

import (
	"compress/gzip"
	"context"
	"fmt"
	"html"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"meridian/checker/state"
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
	h := pagesServer(t, pagesWorld)
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
			if strings.Contains(body, never) {
				t.Errorf("%s: the page contains %q", tt.path, never)
			}
		}
		policy := w.Header().Get("Content-Security-Policy")
		if w.Code == 200 && (!strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || strings.Contains(policy, "http")) {
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
			Taken: pagesNow.Add(-time.Minute), Truth: map[state.Key]state.Truth{x86: truth, arm: truth},
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
		{"/api/v1" + name + "/history?limit=2", "application/json", []string{`"total":3`, `"next":"/api/v1/mirrors/hostile.example.org/history?limit=2`, `"lag_seconds":28800`, `"health":"broken"`}},
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
