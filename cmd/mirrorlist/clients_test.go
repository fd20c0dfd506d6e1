package main

import (
	"bytes"
	"context"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"meridian/internal/testworld"
	"meridian/schema"
)

// A clientWorld is what dnf and zypper are sent into: a signed repository in two
// versions and two arches on four mirrors, and the real server.
type clientWorld struct {
	key     *testworld.Key
	mirrors []*testworld.Mirror
	front   *front
	server  string // its URL
}

// newClients are the clients that everything is tried with.
var newClients = map[string]func(dir, arch, release string) (*testworld.Client, error){
	"dnf":    testworld.NewDnf,
	"zypper": testworld.NewZypper,
}

// Building and signing what is installed takes longer than to install it, so all
// cases share one world.
func TestRealClients(t *testing.T) {
	w := newClientWorld(t)
	t.Run("install through the server", w.testInstall)
	t.Run("install while three of four mirrors are broken", w.testBrokenMirrors)
	t.Run("dnf downloads without installing", w.testDownload)
	t.Run("dnf counts itself with countme", w.testCountme)
	t.Run("dnf reports what the server refuses", w.testRefusal)
	t.Run("dnf uses the file that the server makes", w.testRepoFile)
	t.Run("a system is switched to the server by one line", w.testSwitch)
}

func (w *clientWorld) testInstall(t *testing.T) {
	tests := []struct {
		name    string
		path    string
		release string // default 9
		arch    string // default x86_64
		want    string // default meridian-hello-1.2-1.el9_8.ARCH
		query   string // of the request that reaches the server; its order is the client's
		only    string // the one client that asks so
	}{
		{name: "without arch, and fills $basearch in itself", path: "/mirrorlist/$releasever/baseos"},
		{name: "with its arch", path: "/mirrorlist/$releasever/baseos?arch=$basearch", query: "arch=x86_64"},
		{name: "for another arch than the machine's", path: "/mirrorlist/$releasever/baseos?arch=$basearch", arch: "aarch64", query: "arch=aarch64"},
		{name: "for another arch that the list does not name", path: "/mirrorlist/$releasever/baseos", arch: "aarch64"},
		{name: "with one protocol", path: "/mirrorlist/$releasever/baseos?arch=$basearch&protocol=http", query: "arch=x86_64&protocol=http"},
		{name: "of a minor version that does not exist yet", path: "/mirrorlist/$releasever/baseos", release: "9.99"},
		{name: "of the minor version that is current", path: "/mirrorlist/$releasever/baseos", release: "9.8"},
		{name: "with a slash at the end", path: "/mirrorlist/$releasever/baseos/", only: "dnf"}, // zypper takes it off
		{name: "as clients of other distributions ask", path: "/mirrorlist?repo=baseos-$releasever&arch=$basearch", query: "repo=baseos-9&arch=x86_64"},
		{name: "of an optional module", path: "/mirrorlist/$releasever/baseos?arch=$basearch", release: "10-kitten",
			want: "meridian-hello-1.2-1.el10_kitten.x86_64", query: "arch=x86_64"},
	}
	// The order of a prefix changes once an hour, so that one transaction of the
	// whole test may see two orders, and no more.
	turned := false
	for client := range newClients {
		for _, tt := range tests {
			if tt.only != "" && tt.only != client {
				continue
			}
			t.Run(client+" asks "+tt.name, func(t *testing.T) {
				release, arch := or(tt.release, "9"), or(tt.arch, "x86_64")
				c := w.client(t, client, arch, release, testworld.Source{Mirrorlist: w.front.URL + tt.path})
				w.forget()
				install(t, c, "meridian-hello", or(tt.want, "meridian-hello-1.2-1.el9_8."+arch))

				path, _, _ := strings.Cut(strings.ReplaceAll(tt.path, "$releasever", release), "?")
				asked := w.front.requests()
				if len(asked) == 0 {
					t.Fatal("the server was not asked")
				}
				for _, r := range asked {
					if r.path != path || !sameQuery(t, r.query, tt.query) {
						t.Errorf("the server was asked for %s?%s, want %s?%s", r.path, r.query, path, tt.query)
					}
					if r.code != http.StatusOK {
						t.Errorf("%s: %d %s", r.path, r.code, r.body)
					}
					if strings.HasSuffix(r.body, "\n") {
						t.Errorf("%s: the list ends in a newline: %q", r.path, r.body)
					}
					if literal := strings.Contains(r.body, "$basearch"); literal != !strings.Contains(tt.query, "arch=") {
						t.Errorf("%s?%s: the list has $basearch: %v\n%s", r.path, r.query, literal, r.body)
					}
				}
				if slices.ContainsFunc(asked, func(r listRequest) bool { return r.body != asked[0].body }) {
					if turned {
						t.Errorf("two lists for one transaction again:\n%s\n\n%s", asked[0].body, asked[len(asked)-1].body)
					}
					turned = true
					return
				}
				w.checkTraffic(t, asked[0].body)
			})
		}
	}
}

func sameQuery(t *testing.T, a, b string) bool {
	t.Helper()
	va, err := url.ParseQuery(a)
	if err != nil {
		t.Fatal(err)
	}
	vb, err := url.ParseQuery(b)
	if err != nil {
		t.Fatal(err)
	}
	return maps.EqualFunc(va, vb, slices.Equal)
}

// checkTraffic: every client reads the mirror of the first line alone, as long as
// that works. So the order of the list is where the load goes.
func (w *clientWorld) checkTraffic(t *testing.T, list string) {
	t.Helper()
	first, _, _ := strings.Cut(list, "\n")
	for _, m := range w.mirrors {
		isFirst := strings.HasPrefix(first, m.URL())
		if hits := len(m.Hits()); isFirst != (hits > 0) {
			t.Errorf("%s was asked %d times; the first line is %s", m.URL(), hits, first)
		}
	}
}

func (w *clientWorld) testBrokenMirrors(t *testing.T) {
	t.Cleanup(func() {
		for _, m := range w.mirrors {
			if err := m.Break(testworld.Healthy); err != nil {
				t.Error(err)
			}
		}
	})
	faults := []testworld.Fault{testworld.Down, testworld.NotFound, testworld.ServerError, testworld.Truncated}
	for client := range newClients {
		// Each mirror is the healthy one once, so it is at every place of the list
		// whatever the order is.
		for healthy := range w.mirrors {
			name := client + " finds mirror " + strconv.Itoa(healthy+1) + " alone healthy"
			t.Run(name, func(t *testing.T) {
				c := w.client(t, client, "x86_64", "9",
					testworld.Source{Mirrorlist: w.front.URL + "/mirrorlist/$releasever/baseos?arch=$basearch"})
				for i, m := range w.mirrors {
					fault := faults[(i+healthy)%len(faults)]
					if i == healthy {
						fault = testworld.Healthy
					}
					if err := m.Break(fault); err != nil {
						t.Fatal(err)
					}
				}
				w.forget()
				install(t, c, "meridian-hello", "meridian-hello-1.2-1.el9_8.x86_64")
				if len(w.mirrors[healthy].Hits()) == 0 {
					t.Error("the healthy mirror was not asked")
				}
			})
		}
	}
}

func (w *clientWorld) testDownload(t *testing.T) {
	c := w.client(t, "dnf", "aarch64", "9", testworld.Source{Mirrorlist: w.front.URL + "/mirrorlist/$releasever/baseos"})
	dir := testworld.TempDir(t)
	res, err := c.Run(t.Context(), "install", "--downloadonly", "--downloaddir="+dir, "meridian-hello")
	if err != nil || res.Code != 0 {
		t.Fatalf("dnf exited %d: %v\n%s", res.Code, err, res.Output)
	}
	if _, err := os.Stat(filepath.Join(dir, "meridian-hello-1.2-1.el9_8.aarch64.rpm")); err != nil {
		t.Error(err)
	}
}

// dnf counts a system in one of its first four requests of a week, which one is
// chance. The other clients do not count.
func (w *clientWorld) testCountme(t *testing.T) {
	c := w.client(t, "dnf", "x86_64", "9", testworld.Source{
		Mirrorlist: w.front.URL + "/mirrorlist/$releasever/baseos?arch=$basearch",
		Countme:    true,
	})
	w.forget()
	for range 4 {
		res, err := c.Run(t.Context(), "--refresh", "makecache")
		if err != nil || res.Code != 0 {
			t.Fatalf("dnf exited %d: %v\n%s", res.Code, err, res.Output)
		}
	}
	var counted int
	for _, r := range w.front.requests() {
		if r.code != http.StatusOK {
			t.Errorf("%s?%s: %d %s", r.path, r.query, r.code, r.body)
		}
		if !strings.Contains(r.query, "countme=") {
			continue
		}
		counted++
		// A new system: the first of the four ages.
		if want := "arch=x86_64&countme=1"; r.query != want {
			t.Errorf("asked with %q, want %q", r.query, want)
		}
	}
	if counted != 1 {
		t.Errorf("counted %d times in %d requests, want once", counted, len(w.front.requests()))
	}
}

func (w *clientWorld) testRefusal(t *testing.T) {
	c := w.client(t, "dnf", "x86_64", "9", testworld.Source{Mirrorlist: w.front.URL + "/mirrorlist/$releasever/no-such-repo"})
	res, err := c.Run(t.Context(), "makecache")
	if err != nil {
		t.Fatal(err)
	}
	if res.Code == 0 || !strings.Contains(res.Output, "404") {
		t.Errorf("dnf exited %d without a word of the 404:\n%s", res.Code, res.Output)
	}
}

// page asks the server for a text.
func (w *clientWorld) page(t *testing.T, path string) string {
	t.Helper()
	resp, err := http.Get(w.server + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s: %v", path, resp.StatusCode, text, err)
	}
	return string(text)
}

// The file is put where dnf looks, as it is, and a package is installed.
func (w *clientWorld) testRepoFile(t *testing.T) {
	testworld.Need(t, "dnf")
	key := "&gpgkey=" + url.QueryEscape("file://"+w.key.Public)
	for _, query := range []string{"?list=mirrorlist" + key, "?list=metalink" + key} {
		t.Run(strings.TrimSuffix(query, key), func(t *testing.T) {
			c, err := testworld.NewDnf(testworld.TempDir(t), "x86_64", "9")
			if err != nil {
				t.Fatal(err)
			}
			if err := c.AddRepoFile("meridian.repo", w.page(t, "/repo-file/9"+query)); err != nil {
				t.Fatal(err)
			}
			w.forget()
			install(t, c, "meridian-hello", "meridian-hello-1.2-1.el9_8.x86_64")
			if !slices.ContainsFunc(w.mirrors, func(m *testworld.Mirror) bool { return len(m.Hits()) > 0 }) {
				t.Error("no mirror was asked")
			}
		})
	}
}

// The line of the page is given to a shell as a person pastes it: only the
// directory is that of the test's system, sudo is nobody, and dnf knows the test's
// system for its own. Then that system installs from the mirrors of this server.
func (w *clientWorld) testSwitch(t *testing.T) {
	dnf := testworld.Need(t, "dnf")
	m := regexp.MustCompile(`<pre id="switch"><code>(.*)</code>`).FindStringSubmatch(w.page(t, "/repo-file"))
	if m == nil {
		t.Fatal("the page has no such line")
	}
	line := html.UnescapeString(m[1])
	for name, list := range map[string]string{
		"mirrorlist": "mirrorlist=http://old.invalid/mirrorlist/$releasever/baseos", "metalink": "metalink=http://old.invalid/metalink/$releasever/baseos?arch=$basearch",
		"mirrorlist with repo": "mirrorlist=http://old.invalid/mirrorlist?repo=baseos-$releasever&arch=$basearch", "metalink with repo": "metalink=http://old.invalid/metalink?repo=baseos-$releasever&arch=$basearch",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := testworld.NewDnf(testworld.TempDir(t), "x86_64", "9")
			if err != nil {
				t.Fatal(err)
			}
			if err := c.AddRepoFile("distribution.repo", "[baseos]\nname=BaseOS\n"+list+"\nenabled=1\ngpgcheck=1\nrepo_gpgcheck=1\ngpgkey=file://"+w.key.Public+"\n"); err != nil {
				t.Fatal(err)
			}
			bin := t.TempDir()
			for program, script := range map[string]string{"sudo": `exec "$@"`, "dnf": "exec " + dnf + " '" + strings.Join(c.Args(), "' '") + `' "$@"`} {
				if err := os.WriteFile(filepath.Join(bin, program), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(line, "/etc/yum.repos.d", c.RepoFiles()))
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+t.TempDir())
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			install(t, c, "meridian-hello", "meridian-hello-1.2-1.el9_8.x86_64")
		})
	}
}

// install runs the client and looks into the database of its root.
func install(t *testing.T, c *testworld.Client, pkg, want string) {
	t.Helper()
	res, err := c.Run(t.Context(), "install", pkg)
	if err != nil || res.Code != 0 {
		t.Fatalf("exit status %d: %v\n%s", res.Code, err, res.Output)
	}
	got, err := c.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []string{want}) {
		t.Errorf("installed %q, want %q", got, want)
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// client sets up one client with one repository, src, whose ID and key are
// filled in. It skips the test where the program is missing.
func (w *clientWorld) client(t *testing.T, program, arch, release string, src testworld.Source) *testworld.Client {
	t.Helper()
	testworld.Need(t, program)
	c, err := newClients[program](testworld.TempDir(t), arch, release)
	if err != nil {
		t.Fatal(err)
	}
	src.ID, src.Key = "baseos", w.key.Public
	if err := c.AddRepo(src); err != nil {
		t.Fatal(err)
	}
	return c
}

// forget empties what the mirrors and the front remember.
func (w *clientWorld) forget() {
	for _, m := range w.mirrors {
		m.Forget()
	}
	w.front.mu.Lock()
	defer w.front.mu.Unlock()
	w.front.seen = nil
}

// newClientWorld publishes the repositories and starts the mirrors and the server.
func newClientWorld(t *testing.T) *clientWorld {
	t.Helper()
	for _, program := range []string{"rpmbuild", "createrepo_c", "gpg"} {
		testworld.Need(t, program)
	}
	network := testworld.SampleNetwork("http://vault.example.org/")
	dir := t.TempDir()
	root := filepath.Join(dir, "tree")
	w := &clientWorld{key: publish(t, dir, root, network)}
	var files []*schema.Mirror
	for i, city := range []schema.Location{
		{Country: "DE", City: "Berlin", Latitude: 52.52, Longitude: 13.405, HasCoordinates: true},
		{Country: "FR", City: "Paris", Latitude: 48.8566, Longitude: 2.3522, HasCoordinates: true},
		{Country: "US", City: "New York", Latitude: 40.7128, Longitude: -74.006, HasCoordinates: true},
		{Country: "JP", City: "Tokyo", Latitude: 35.6762, Longitude: 139.6503, HasCoordinates: true},
	} {
		n := strconv.Itoa(i + 1)
		m, err := testworld.StartMirror("127.0.44."+n+":0", root)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		w.mirrors = append(w.mirrors, m)
		files = append(files, testworld.SampleMirror("mirror"+n+".example.org", m.URL(), network, city))
	}
	if err := testworld.WriteNetwork(dir, network, files); err != nil {
		t.Fatal(err)
	}
	w.server = startServer(t, dir, "")
	w.front = startFront(t, w.server)
	return w
}

// publish makes what the tests install below root, in two generations, so that
// the older package is there to be chosen by mistake.
func publish(t *testing.T, dir, root string, n *schema.Network) *testworld.Key {
	t.Helper()
	key := newKey(t, dir)
	repos := slices.DeleteFunc(testworld.Repositories(n), func(r testworld.Repository) bool {
		// What a .repo file has enabled is there, for one arch.
		if r.Repo == "appstream" && r.Version == "9.8" && r.Arch == "x86_64" {
			return false
		}
		return r.Repo != "baseos" || r.Arch == "x86_64_v2" || r.Version != "9.8" && r.Version != "10-kitten"
	})
	for generation := 1; generation <= 2; generation++ {
		if err := testworld.Publish(t.Context(), root, filepath.Join(dir, "pool"), key, generation, repos); err != nil {
			t.Fatal(err)
		}
	}
	return key
}

func newKey(t *testing.T, dir string) *testworld.Key {
	t.Helper()
	key, err := testworld.NewKey(t.Context(), filepath.Join(dir, "key.asc"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := key.Close(); err != nil {
			t.Error(err)
		}
	})
	return key
}

// startServer compiles the real command, runs it as a child on the network in dir
// and returns its URL once it answers. The test fails when it does not end well on SIGTERM.
func startServer(t *testing.T, dir, state string) string {
	t.Helper()
	if err := testworld.BuildCommands(t.Context(), dir, "./cmd/mirrorlist"); err != nil {
		t.Fatal(err)
	}
	listen, err := testworld.FreeAddr("127.0.44.100")
	if err != nil {
		t.Fatal(err)
	}
	settings, err := testworld.WriteSettings(dir, testworld.Settings{Listen: listen, CacheDir: "cache", State: state})
	if err != nil {
		t.Fatal(err)
	}
	server := testworld.Run(t, exec.Command(filepath.Join(dir, "mirrorlist"), "serve", "-config", settings))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := server.Ready(ctx, "http://"+listen+"/readyz"); err != nil {
		t.Fatal(err)
	}
	return "http://" + listen
}

// A front is a reverse proxy before the server that remembers what clients really
// asked, and what they were answered.
type front struct {
	*httptest.Server

	mu   sync.Mutex // guards seen
	seen []listRequest
}

type listRequest struct {
	path, query string
	code        int
	body        string
}

func startFront(t *testing.T, server string) *front {
	t.Helper()
	target, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	f := new(front)
	f.Server = httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		// Without this the proxy would ask for gzip in the client's name.
		Transport: &http.Transport{DisableCompression: true},
		ModifyResponse: func(resp *http.Response) error {
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			resp.Body = io.NopCloser(bytes.NewReader(body))
			f.mu.Lock()
			defer f.mu.Unlock()
			u := resp.Request.URL
			f.seen = append(f.seen, listRequest{u.Path, u.RawQuery, resp.StatusCode, string(body)})
			return nil
		},
	})
	t.Cleanup(f.Close)
	return f
}

// requests are those since the last forget, oldest first.
func (f *front) requests() []listRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seen)
}
