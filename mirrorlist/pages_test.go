package mirrorlist

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
func pagesServer(t *testing.T, world map[string]string) http.Handler {
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
	s, err := New(t.Context(), Options{
		Config: Config{Network: filepath.Join(dir, "network.yml"), CacheDir: t.TempDir(), RequestsPerSecond: -1},
		Log:    slog.New(slog.DiscardHandler), Resolver: noNames{},
	})
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
		for _, never := range []string{"secret.example.org", "hidden@", "192.0.2.0", "<script", "<b>"} {
			if strings.Contains(body, never) {
				t.Errorf("%s: the page contains %q", tt.path, never)
			}
		}
		if w.Code == 200 && !strings.HasPrefix(w.Header().Get("Content-Security-Policy"), "default-src 'none'; style-src 'sha256-") {
			t.Errorf("%s: Content-Security-Policy %q lets more in than the style sheet", tt.path, w.Header().Get("Content-Security-Policy"))
		}
	}
}

func TestPagesOfTheRealNetworkAreSmall(t *testing.T) {
	_, base := recordedWorld(t)
	if a := ask(t, base, "GET", "/", "5.6.7.8"); a.status != 200 || len(a.body) > 100_000 {
		t.Errorf("the page of 255 mirrors has status %d and %d bytes, want at most 100,000", a.status, len(a.body))
	}
}
