package mirrorlist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"meridian/internal/testworld"
	"meridian/mirrorlist/geo"
)

// Everything here is tested with real files that change below a real server. It
// is told of changes by the file system, so tests wait for a condition, and never
// for a time.

// geoData are the public test databases.
const geoData = "../../shared/testdata/geo"

// networkYAML is a network of one version and two repositories.
const networkYAML = `config_version: 3
allowed_outdate: 12h
mirrors_dir: mirrors.d
versions: ["9", "9.8"]
duplicated_versions: {"9": "9.8"}
vault_versions: ["9.7"]
vault_mirror: https://vault.example.org/
arches: {"9": [x86_64, aarch64]}
required_protocols: [http, https]
repos:
  - {name: baseos, path: BaseOS/$basearch/os/}
  - {name: appstream, path: AppStream/$basearch/os/}
`

// mirrorYAML is the file of a mirror; more is added to it.
func mirrorYAML(name, more string) string {
	return "name: " + name + "\naddress:\n  http: http://" + name + "/linux/\nupdate_frequency: 3h\nsponsor: Example\n" +
		"sponsor_url: https://www.example.org/\nemail: admin@example.org\ngeolocation: {country: DE}\n" + more
}

// A station is a server that runs, and the files that it reads.
type station struct {
	*Server
	t     *testing.T
	dir   string
	main  string // URL of the public listener
	admin string // URL of the admin listener, or of the public one
	log   *testworld.Output
	stop  func() error // ends Run, and returns its error; again: the same
}

// newFiles writes the small network with n mirrors into a directory, which it
// returns.
func newFiles(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "network.yml"), networkYAML)
	if err := os.Mkdir(filepath.Join(dir, "mirrors.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		name := fmt.Sprintf("m%d.example.org", i)
		writeFile(t, filepath.Join(dir, "mirrors.d", name+".yml"), mirrorYAML(name, ""))
	}
	return dir
}

// optionsFor returns the options of a server for the network in dir.
func optionsFor(t *testing.T, dir string) (Options, *testworld.Output) {
	log := new(testworld.Output)
	return Options{
		Config: Config{
			Listen: "127.0.0.1:0", Network: filepath.Join(dir, "network.yml"), CacheDir: t.TempDir(),
			AllowPrivateAddresses: true, RequestsPerSecond: -1,
		},
		Log:      slog.New(slog.NewTextHandler(log, nil)),
		Resolver: noNames{},
	}, log
}

// startIn runs a server on the network in dir, with options that change may
// change, until the test ends.
func startIn(t *testing.T, dir string, change func(*Options)) *station {
	t.Helper()
	opts, log := optionsFor(t, dir)
	if change != nil {
		change(&opts)
	}
	reg := prometheus.NewRegistry()
	opts.Metrics = promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	s, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	reg.MustRegister(s.Collector())
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan [2]string, 1), make(chan error, 1)
	go func() { ended <- s.Run(ctx, func(main, admin string) { ready <- [2]string{main, admin} }) }()
	st := &station{Server: s, t: t, dir: dir, log: log}
	st.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	select {
	case addrs := <-ready:
		scheme := "http://"
		if opts.Config.TLS.Cert != "" {
			scheme = "https://"
		}
		st.main, st.admin = scheme+addrs[0], scheme+addrs[0]
		if addrs[1] != "" {
			st.admin = "http://" + addrs[1]
		}
	case err := <-ended:
		t.Fatalf("Run: %v", err)
	}
	t.Cleanup(func() {
		if err := st.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s", log)
		}
	})
	return st
}

// until waits for a condition. The deadline is for a test that would never end.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never came: %s", what)
		}
	}
}

// get returns the body of a page, and its status.
func (st *station) get(url string) (body string, code int) {
	st.t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		st.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		st.t.Fatal(err)
	}
	return string(b), resp.StatusCode
}

// list returns the lines of a list.
func (st *station) list(target string) []string {
	st.t.Helper()
	body, code := st.get(st.main + target)
	if code != http.StatusOK {
		return nil
	}
	return strings.Split(body, "\n")
}

func (st *station) write(name, text string) { writeFile(st.t, filepath.Join(st.dir, name), text) }

// degraded reports whether readiness and metrics both say that an input is bad,
// the first with the text. They have to agree, sooner or later.
func (st *station) degraded(input, text string) bool {
	ready, code := st.get(st.admin + "/readyz")
	page, _ := st.get(st.admin + "/metrics")
	if code != http.StatusOK {
		st.t.Fatalf("/readyz: status %d: %s", code, ready)
	}
	said := false
	for line := range strings.SplitSeq(ready, "\n") {
		said = said || strings.HasPrefix(line, "degraded: "+input+": ") && strings.Contains(line, text)
	}
	return said && strings.Contains(page, `meridian_mirrorlist_problems{input="`+input+`"}`)
}

// fine reports whether readiness and metrics both say that all is well.
func (st *station) fine() bool {
	ready, _ := st.get(st.admin + "/readyz")
	page, _ := st.get(st.admin + "/metrics")
	return ready == "ready\n" && !strings.Contains(page, "meridian_mirrorlist_problems{")
}

func (st *station) mirrors() int { return st.Status().Mirrors }

func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	t.Parallel()
	var settings atomic.Pointer[Config]
	st := startIn(t, newFiles(t, 4), func(o *Options) {
		dir := filepath.Dir(o.Config.Network)
		o.Config.SecretFile = filepath.Join(dir, "secret")
		o.Config.CloudRanges = map[string]string{"aws": filepath.Join(dir, "aws.json")}
		writeFile(t, o.Config.SecretFile, "a secret of 16 bytes or more")
		writeFile(t, filepath.Join(dir, "aws.json"), `{"prefixes":[{"ip_prefix":"3.0.0.0/15","region":"eu-west-1"}]}`)
		writeFile(t, filepath.Join(dir, "settings"), "first")
		writeFile(t, filepath.Join(dir, "mirrors.d", "cloud.example.org.yml"), mirrorYAML("cloud.example.org", "cloud_type: aws\ncloud_regions: [eu-west-1]\n"))
		cfg := o.Config
		settings.Store(&cfg)
		o.ConfigFile = filepath.Join(dir, "settings")
		o.ReadConfig = func() (Config, error) { return *settings.Load(), nil }
	})
	for _, step := range []struct {
		name  string
		edit  func()
		shown func() bool
	}{
		{"a repository is added", func() {
			st.write("network.yml", networkYAML+"  - {name: crb, path: CRB/$basearch/os/}\n")
		}, func() bool { return len(st.list("/mirrorlist/9/crb")) == 4 }},
		{"a mirror is added", func() {
			st.write("mirrors.d/new.example.org.yml", mirrorYAML("new.example.org", ""))
		}, func() bool {
			return slices.Contains(st.list("/mirrorlist/9/baseos"), "http://new.example.org/linux/9.8/BaseOS/$basearch/os/")
		}},
		{"a mirror moves", func() {
			st.write("mirrors.d/new.example.org.yml", strings.ReplaceAll(mirrorYAML("new.example.org", ""), "/linux/", "/elsewhere/"))
		}, func() bool {
			return slices.Contains(st.list("/mirrorlist/9/baseos"), "http://new.example.org/elsewhere/9.8/BaseOS/$basearch/os/")
		}},
		{"a mirror is removed", func() {
			if err := os.Remove(filepath.Join(st.dir, "mirrors.d/new.example.org.yml")); err != nil {
				t.Fatal(err)
			}
		}, func() bool { return len(st.list("/mirrorlist/9/baseos")) == 4 }},
		{"a mirror is renamed into its place", func() {
			st.write("new.tmp", mirrorYAML("renamed.example.org", ""))
			if err := os.Rename(filepath.Join(st.dir, "new.tmp"), filepath.Join(st.dir, "mirrors.d/r.yml")); err != nil {
				t.Fatal(err)
			}
		}, func() bool { return len(st.list("/mirrorlist/9/baseos")) == 5 }},
		{"the secret changes", func() { st.write("secret", "another secret of 16 bytes") }, func() bool {
			return st.table.Load().secret == secretOf([]byte("another secret of 16 bytes"))
		}},
		{"the ranges of a cloud grow", func() {
			st.write("aws.json", `{"prefixes":[{"ip_prefix":"3.0.0.0/15","region":"eu-west-1"},{"ip_prefix":"127.0.0.0/8","region":"eu-west-1"}]}`)
		}, func() bool {
			list := st.list("/mirrorlist/9/baseos")
			return list[0] == "http://cloud.example.org/linux/9.8/BaseOS/$basearch/os/"
		}},
		{"the settings have another limit", func() {
			cfg := *settings.Load()
			cfg.Limit = 2
			settings.Store(&cfg)
			st.write("settings", "a smaller limit")
		}, func() bool { return len(st.list("/mirrorlist/9/baseos")) == 2 }},
		{"the settings trust a proxy", func() {
			cfg := *settings.Load()
			cfg.TrustedProxies = []string{"127.0.0.0/8"}
			settings.Store(&cfg)
			st.write("settings", "a proxy is trusted")
		}, func() bool { return len(st.table.Load().trusted) == 1 }},
		{"the settings name a fallback", func() {
			cfg := *settings.Load()
			cfg.FallbackMirrors = []string{"m1.example.org"}
			settings.Store(&cfg)
			st.write("settings", "there is a fallback")
		}, func() bool {
			table := st.table.Load()
			return table.fallback.count() == 1 && table.fallback.has(table.byName["m1.example.org"])
		}},
		{"the settings name another database", func() {
			cfg := *settings.Load()
			cfg.Geo = Geo{Location: demoGeo, ASN: demoGeo}
			settings.Store(&cfg)
			st.write("settings", "geography by the demo")
		}, func() bool { return st.Status().Database == "Meridian-Demo" }},
		{"the settings name another network file", func() {
			cfg := *settings.Load()
			cfg.Network = filepath.Join(st.dir, "other.yml")
			settings.Store(&cfg)
			st.write("other.yml", strings.Replace(networkYAML, "name: appstream", "name: others", 1))
			st.write("settings", "another network file")
		}, func() bool { return len(st.list("/mirrorlist/9/others")) == 2 }},
		{"the settings want another port and cache", func() {
			cfg := *settings.Load()
			cfg.Listen, cfg.CacheDir = "127.0.0.1:1", "/elsewhere"
			settings.Store(&cfg)
			st.write("settings", "what needs a restart")
		}, func() bool {
			log := st.log.String()
			return strings.Contains(log, `msg="this setting needs a restart" setting=listen`) &&
				strings.Contains(log, `msg="this setting needs a restart" setting=cache_dir`)
		}},
	} {
		step.edit()
		until(t, step.name, step.shown)
		until(t, step.name+", and all is well", st.fine)
	}
	if n := strings.Count(st.log.String(), "this setting needs a restart"); n != 2 {
		t.Errorf("it was said %d times that settings need a restart, want once for each of 2", n)
	}
}

// Whatever is broken, the last good form of it stays in use, everybody can see
// that it does, and it is forgotten when it is repaired.
func TestBadEditKeepsTheOldState(t *testing.T) {
	t.Parallel()
	var settingsErr atomic.Pointer[error]
	st := startIn(t, newFiles(t, 4), func(o *Options) {
		dir := filepath.Dir(o.Config.Network)
		o.Config.SecretFile = filepath.Join(dir, "secret")
		o.Config.CloudRanges = map[string]string{"aws": filepath.Join(dir, "aws.json")}
		writeFile(t, o.Config.SecretFile, "a secret of 16 bytes or more")
		writeFile(t, filepath.Join(dir, "aws.json"), `{"prefixes":[{"ip_prefix":"3.0.0.0/15","region":"eu-west-1"}]}`)
		writeFile(t, filepath.Join(dir, "settings"), "good")
		now := time.Now() // stands still: the order changes with the hour
		o.Now = func() time.Time { return now }
		cfg := o.Config
		o.ConfigFile = filepath.Join(dir, "settings")
		o.ReadConfig = func() (Config, error) {
			if err := settingsErr.Load(); err != nil {
				return Config{}, *err
			}
			return cfg, nil
		}
	})
	before := st.list("/mirrorlist/9/baseos")
	for _, step := range []struct {
		name, file, bad string
		input, text     string
	}{
		{"the network file is no YAML", "network.yml", "config_version: [", "network", "network.yml:1: "},
		{"the network file is empty for a moment", "network.yml", "", "network", "network.yml: "},
		{"a mirror file has no address", "mirrors.d/m1.example.org.yml", "name: m1.example.org\n", "mirrors", "m1.example.org.yml"},
		{"a mirror file is empty", "mirrors.d/m1.example.org.yml", "", "mirrors", "m1.example.org.yml"},
		{"two files have one name", "mirrors.d/m2.example.org.yml", mirrorYAML("m1.example.org", ""), "mirrors", "m2.example.org.yml"},
		{"the secret is short", "secret", "short", "secret_file", "write at least 16 random characters"},
		{"the settings are refused", "settings", "bad", "settings", "unknown key"},
	} {
		path := filepath.Join(st.dir, step.file)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if step.file == "settings" {
			err := errors.New("settings:1: unknown key")
			settingsErr.Store(&err)
		}
		writeFile(t, path, step.bad)
		until(t, step.name, func() bool { return st.degraded(step.input, step.text) })
		if now := st.list("/mirrorlist/9/baseos"); !slices.Equal(now, before) {
			t.Errorf("%s: the list is\n%q\nwant that of before\n%q", step.name, now, before)
		}
		if log := st.log.String(); !strings.Contains(log, `msg="input is not as it should be" input=`+step.input) {
			t.Errorf("%s: the log does not say so:\n%s", step.name, log)
		}
		settingsErr.Store(nil)
		writeFile(t, path, string(good))
		until(t, step.name+", repaired", st.fine)
	}

	// A feed is no input of the settings' own kind, and shows under its name.
	st.write("aws.json", "{")
	until(t, "broken ranges", func() bool {
		ready, _ := st.get(st.admin + "/readyz")
		page, _ := st.get(st.admin + "/metrics")
		return strings.Contains(ready, "degraded: cloud ranges of aws: ") && strings.Contains(page, `meridian_mirrorlist_feed_failing{feed="cloud ranges of aws"} 1`) &&
			strings.Contains(page, `meridian_mirrorlist_feed_entries{feed="cloud ranges of aws"} 1`)
	})
	st.write("aws.json", `{"prefixes":[{"ip_prefix":"3.0.0.0/15","region":"eu-west-1"}]}`)
	until(t, "repaired ranges", st.fine)
}

// A fallback that can never be listed is said to be none, before it is needed.
func TestFallbackMirrorsThatCannotHelp(t *testing.T) {
	t.Parallel()
	dir := newFiles(t, 3)
	for name, more := range map[string]string{
		"private.example.org": "private: true\nsubnets: [203.0.113.0/24]\n",
		"cloud.example.org":   "cloud_type: aws\ncloud_regions: [eu-west-1]\n",
	} {
		writeFile(t, filepath.Join(dir, "mirrors.d", name+".yml"), mirrorYAML(name, more))
	}
	for name, want := range map[string]string{
		"m1.example.org":      "",
		"nobody.example.org":  `no mirror is called "nobody.example.org"`,
		"private.example.org": "private.example.org is private or inside a cloud",
		"cloud.example.org":   "cloud.example.org is private or inside a cloud",
	} {
		st := startIn(t, dir, func(o *Options) { o.Config.FallbackMirrors = []string{name} })
		switch {
		case want == "":
			until(t, name, st.fine)
		default:
			until(t, name, func() bool { return st.degraded("fallback_mirrors", want) })
		}
	}
}

func TestMissingMirrorsNeedAnExplicitReload(t *testing.T) {
	t.Parallel()
	st := startIn(t, newFiles(t, 10), nil)
	remove := func(names ...int) {
		for _, i := range names {
			if err := os.Remove(filepath.Join(st.dir, "mirrors.d", fmt.Sprintf("m%d.example.org.yml", i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove(0, 1, 2)
	until(t, "30 % may go", func() bool { return st.mirrors() == 7 })
	remove(3, 4, 5)
	until(t, "more than 30 % may not", func() bool {
		return st.degraded("removed mirrors", "3 of 7 mirrors are gone at once: if that is meant, ask for a reload (SIGHUP, or POST /-/reload)")
	})
	if n := st.mirrors(); n != 7 {
		t.Errorf("%d mirrors in use, want the 7 of before", n)
	}
	st.write("mirrors.d/new.example.org.yml", mirrorYAML("new.example.org", ""))
	if err := st.Reload(t.Context(), true); err != nil {
		t.Errorf("an explicit reload: %v", err)
	}
	if n := st.mirrors(); n != 5 {
		t.Errorf("%d mirrors after the explicit reload, want 5", n)
	}
	if !st.fine() {
		t.Error("something is wrong after the explicit reload")
	}
}

// A refused checkout is forgotten when it is undone.
func TestMissingMirrorsComeBack(t *testing.T) {
	t.Parallel()
	st := startIn(t, newFiles(t, 4), nil)
	dir, away := filepath.Join(st.dir, "mirrors.d"), filepath.Join(st.dir, "away")
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	until(t, "a directory that is gone", func() bool { return st.degraded("mirrors", "mirrors.d: no such file or directory") })
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	until(t, "an empty directory", func() bool { return st.degraded("removed mirrors", "4 of 4 mirrors are gone at once") })
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	until(t, "a directory that is back", st.fine)
	if n := st.mirrors(); n != 4 {
		t.Errorf("%d mirrors in use, want 4", n)
	}
}

func TestMirrorsDirectoryIsReplacedAsAWhole(t *testing.T) {
	t.Parallel()
	// Each arrangement returns what puts a directory with n mirrors in the place of
	// the one in use.
	fill := func(dir string, n int) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			name := fmt.Sprintf("m%d.example.org", i)
			writeFile(t, filepath.Join(dir, name+".yml"), mirrorYAML(name, ""))
		}
	}
	swapLink := func(link, target string) {
		if err := errors.Join(os.Symlink(target, link+".new"), os.Rename(link+".new", link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name    string
		arrange func(dir string) (replace func(n int))
	}{
		{"by a rename", func(dir string) func(int) {
			mirrors := filepath.Join(dir, "mirrors.d")
			fill(mirrors, 4)
			return func(n int) {
				next := filepath.Join(dir, "next")
				fill(next, n)
				if err := errors.Join(os.Rename(mirrors, filepath.Join(dir, "old"+strconv.Itoa(n))), os.Rename(next, mirrors)); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"by a link to another directory", func(dir string) func(int) {
			fill(filepath.Join(dir, "releases/4"), 4)
			swapLink(filepath.Join(dir, "mirrors.d"), "releases/4")
			return func(n int) {
				fill(filepath.Join(dir, "releases", strconv.Itoa(n)), n)
				swapLink(filepath.Join(dir, "mirrors.d"), "releases/"+strconv.Itoa(n))
			}
		}},
		{"by the links of a mounted volume", func(dir string) func(int) {
			// Each file is a link through ..data, and only that one is swapped.
			mirrors := filepath.Join(dir, "mirrors.d")
			link := func(n int) {
				for i := range n {
					name := fmt.Sprintf("m%d.example.org.yml", i)
					if err := os.Symlink("..data/"+name, filepath.Join(mirrors, name)); err != nil && !os.IsExist(err) {
						t.Fatal(err)
					}
				}
			}
			fill(filepath.Join(mirrors, "..4"), 4)
			swapLink(filepath.Join(mirrors, "..data"), "..4")
			link(4)
			return func(n int) {
				data := fmt.Sprintf("..%d", n)
				fill(filepath.Join(mirrors, data), n)
				swapLink(filepath.Join(mirrors, "..data"), data)
				link(n)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "network.yml"), networkYAML)
			replace := tt.arrange(dir)
			st := startIn(t, dir, nil)
			if n := st.mirrors(); n != 4 {
				t.Fatalf("%d mirrors at the start, want 4", n)
			}
			// Twice: what was replaced once has to be watched still.
			for _, n := range []int{6, 9} {
				replace(n)
				until(t, fmt.Sprintf("%d mirrors", n), func() bool { return st.mirrors() == n })
			}
			// And the files in it are.
			writeFile(t, filepath.Join(dir, "mirrors.d", "late.yml"), mirrorYAML("late.example.org", ""))
			until(t, "one more file", func() bool { return st.mirrors() == 10 })
		})
	}
}

func TestNetworkFileNamesADirectoryThatComesLater(t *testing.T) {
	t.Parallel()
	st := startIn(t, newFiles(t, 2), nil)
	st.write("network.yml", strings.Replace(networkYAML, "mirrors.d", "later.d", 1))
	until(t, "a directory that is not there yet", func() bool { return st.degraded("mirrors", "later.d: no such file or directory") })
	if n := st.mirrors(); n != 2 {
		t.Errorf("%d mirrors in use, want the 2 of before", n)
	}
	// As a whole, or it would be empty at first: which is more than 30 % less.
	tmp := filepath.Join(st.dir, "tmp.d")
	if err := os.CopyFS(tmp, os.DirFS(filepath.Join(st.dir, "mirrors.d"))); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(tmp, "third.yml"), mirrorYAML("third.example.org", ""))
	if err := os.Rename(tmp, filepath.Join(st.dir, "later.d")); err != nil {
		t.Fatal(err)
	}
	until(t, "the directory", func() bool { return st.mirrors() == 3 })
	until(t, "all well", st.fine)
}

// A server that starts before its mirrors are there says that it is not ready.
func TestMirrorsThatComeAfterTheStart(t *testing.T) {
	st := startIn(t, newFiles(t, 0), nil)
	if body, code := st.get(st.main + "/readyz"); code != http.StatusServiceUnavailable || body != "not ready: there are no mirrors\n" {
		t.Errorf("/readyz without mirrors: %d %q", code, body)
	}
	if body, code := st.get(st.main + "/mirrorlist/9/baseos"); code != http.StatusServiceUnavailable {
		t.Errorf("a list without mirrors: %d %q", code, body)
	}
	st.write("mirrors.d/m.yml", mirrorYAML("m.example.org", ""))
	until(t, "ready", st.fine)
	if list := st.list("/mirrorlist/9/baseos"); len(list) != 1 {
		t.Errorf("the list is %q, want the one mirror", list)
	}
}

// git runs git in a directory, with nobody's settings.
func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func needGit(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("git is not installed: %v", err)
	}
}

func TestNothingIsReadWhileGitWrites(t *testing.T) {
	t.Parallel()
	needGit(t)
	dir := newFiles(t, 4)
	git(t, dir, "init", "-q")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-q", "-m", "four mirrors")
	st := startIn(t, dir, nil)
	// git itself makes this file, and keeps it as long as it writes.
	lock := filepath.Join(dir, ".git", "index.lock")
	writeFile(t, lock, "")
	st.write("mirrors.d/new.yml", mirrorYAML("new.example.org", ""))

	// Who asks waits as well, and everything else goes on: the lock is looked at
	// several times meanwhile, which is what the context waits for.
	ctx, cancel := context.WithTimeout(t.Context(), 5*settleEvery)
	defer cancel()
	if err := st.Reload(ctx, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a reload during a checkout: %v, want %v", err, context.DeadlineExceeded)
	}
	if n := st.mirrors(); n != 4 {
		t.Errorf("%d mirrors during a checkout, want the 4 of before", n)
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	until(t, "the new mirror", func() bool { return st.mirrors() == 5 })
}

// What the tree of a commit holds is served as a whole or not at all.
func TestCheckoutsUnderTheRunningServer(t *testing.T) {
	t.Parallel()
	needGit(t)
	dir := newFiles(t, 0)
	commit := func(tag string, n int) {
		for i := range 300 {
			name := fmt.Sprintf("m%03d.example.org", i)
			path := filepath.Join(dir, "mirrors.d", name+".yml")
			if i >= n {
				if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				continue
			}
			// Each file is another one in each commit.
			writeFile(t, path, strings.Replace(mirrorYAML(name, ""), "sponsor: Example", "sponsor: "+tag, 1))
		}
		git(t, dir, "add", "-A", ".")
		git(t, dir, "commit", "-q", "-m", tag)
		git(t, dir, "tag", tag)
	}
	git(t, dir, "init", "-q")
	commit("large", 300)
	commit("small", 220) // less than 30 % fewer

	st := startIn(t, dir, nil)
	var torn atomic.Pointer[string]
	var tables atomic.Int64
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		var last *geometry
		for {
			select {
			case <-done:
				return
			default:
			}
			table := st.table.Load()
			if table.geometry == last {
				runtime.Gosched()
				continue
			}
			last = table.geometry
			tables.Add(1)
			count := map[string]int{}
			for i := range table.mirrors {
				count[table.mirrors[i].Sponsor]++
			}
			if len(count) != 1 || count["large"] != 300 && count["small"] != 220 {
				text := fmt.Sprint(count)
				torn.Store(&text)
			}
		}
	})
	page := func() string {
		page, _ := st.get(st.main + "/metrics")
		_, after, _ := strings.Cut(page, `meridian_mirrorlist_mirrors{kind="public"} `)
		n, _, _ := strings.Cut(after, "\n")
		return n
	}
	for i := range 6 {
		tag, want := "large", "300"
		if i%2 == 1 {
			tag, want = "small", "220"
		}
		git(t, dir, "checkout", "-q", tag)
		until(t, tag, func() bool {
			n := page()
			if n != "300" && n != "220" {
				t.Fatalf("%s mirrors are in service: that is half of a checkout", n)
			}
			return n == want
		})
	}
	close(done)
	watching.Wait()
	if text := torn.Load(); text != nil {
		t.Errorf("a table had mirrors of more than one commit, or not all of them: %s", *text)
	}
	if tables.Load() < 6 {
		t.Errorf("only %d tables were seen", tables.Load())
	}
	until(t, "all well", st.fine)
}

// needGeo returns the path of a public test database.
func needGeo(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(geoData, name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the databases are not here: %v", err)
	}
	return path
}

// replaceFile puts a copy of from in the place of to, as somebody does who
// updates a database.
func replaceFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, to+".new", string(data))
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
}

func TestDatabaseIsReplaced(t *testing.T) {
	t.Parallel()
	city, location := needGeo(t, "maxmind/GeoLite2-City-Test.mmdb"), needGeo(t, "ipinfo/ipinfo_location_sample.mmdb")
	st := startIn(t, newFiles(t, 2), func(o *Options) {
		o.Config.Geo.Location = filepath.Join(filepath.Dir(o.Config.Network), "location.mmdb")
		replaceFile(t, city, o.Config.Geo.Location)
	})
	mmdb := filepath.Join(st.dir, "location.mmdb")
	first := st.Status().Database
	if first != "GeoLite2-City" {
		t.Fatalf("the database is a %q", first)
	}
	replaceFile(t, location, mmdb)
	until(t, "another database", func() bool { return st.Status().Database != first })
	second := st.Status().Database

	bad, err := filepath.Glob(filepath.Join(geoData, "maxmind-bad", "*.mmdb"))
	if err != nil || len(bad) == 0 {
		t.Fatalf("no bad databases: %v", err)
	}
	for _, path := range bad {
		name := filepath.Base(path)
		replaceFile(t, path, mmdb)
		if err := st.Reload(t.Context(), false); err == nil || !strings.Contains(err.Error(), "geo.location: ") || !strings.Contains(err.Error(), mmdb) {
			t.Errorf("%s: reload: %v, want why it is refused", name, err)
		}
		if !st.degraded("geo.location", mmdb) {
			t.Errorf("%s: readiness and metrics do not tell", name)
		}
		if db := st.Status().Database; db != second {
			t.Errorf("after %s the database is %q, want still %q", name, db, second)
		}
	}
	replaceFile(t, location, mmdb)
	until(t, "the good one again", st.fine)

	if err := os.Remove(mmdb); err != nil {
		t.Fatal(err)
	}
	until(t, "a database that is gone", func() bool { return st.degraded("geo.location", "location.mmdb: no such file or directory") })
	if db := st.Status().Database; db != second {
		t.Errorf("without the file the database is %q, want still %q", db, second)
	}
	replaceFile(t, city, mmdb)
	until(t, "a database that is back", func() bool { return st.fine() && st.Status().Database == first })

	// Only the snapshot in use is kept.
	snapshots, err := filepath.Glob(filepath.Join(st.opts.Config.CacheDir, "geo-*"))
	if err != nil || len(snapshots) != 1 {
		t.Errorf("the cache has %q, %v; want one snapshot", snapshots, err)
	}
}

func TestDatabaseOfTheWrongKindIsRefused(t *testing.T) {
	asn := needGeo(t, "maxmind/GeoLite2-ASN-Test.mmdb")
	dir := newFiles(t, 1)
	for _, tt := range []struct{ geo, want string }{
		{"location", asn + " is a GeoLite2-ASN and knows no places; write one such as GeoLite2-City or IPinfo location"},
		{"asn", filepath.Join(geoData, "maxmind/GeoLite2-City-Test.mmdb") + " is a GeoLite2-City and knows no ASNs; write one such as GeoLite2-ASN or IPinfo ASN"},
	} {
		opts, _ := optionsFor(t, dir)
		if tt.geo == "location" {
			opts.Config.Geo.Location = asn
		} else {
			opts.Config.Geo.ASN = needGeo(t, "maxmind/GeoLite2-City-Test.mmdb")
		}
		s, err := New(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(s.Status().Lines(), "\n"); got != "degraded: geo."+tt.geo+": "+tt.want {
			t.Errorf("status:\n%s\nwant\n%s", got, tt.want)
		}
	}
}

// Compiling fails for reasons that are in no file. It is not tried again at every
// edit of a mirror, but it is when somebody asks.
func TestCompilationThatFails(t *testing.T) {
	t.Parallel()
	city := needGeo(t, "maxmind/GeoLite2-City-Test.mmdb")
	var tries atomic.Int64
	var heal atomic.Bool
	st := startIn(t, newFiles(t, 2), func(o *Options) {
		o.Config.Geo.Location = city
		o.Compile = func(_ context.Context, mmdb, out string) error {
			tries.Add(1)
			if heal.Load() {
				return geo.Compile(mmdb, out)
			}
			return errors.New("compile: signal: killed")
		}
	})
	if !st.degraded("geo.location", "signal: killed") {
		t.Error("the reason is not reported")
	}
	if list := st.list("/mirrorlist/9/baseos"); len(list) != 2 {
		t.Errorf("the list is %q, want both mirrors", list)
	}
	st.write("mirrors.d/new.yml", mirrorYAML("new.example.org", ""))
	until(t, "a new mirror", func() bool { return st.mirrors() == 3 })
	if n := tries.Load(); n != 1 {
		t.Errorf("compiled %d times, want once", n)
	}
	if err := st.Reload(t.Context(), false); err == nil || !strings.Contains(err.Error(), "geo.location: compile: signal: killed") {
		t.Errorf("reload: %v, want the reason", err)
	}
	heal.Store(true)
	if err := st.Reload(t.Context(), false); err != nil {
		t.Errorf("reload: %v", err)
	}
	if db := st.Status().Database; db != "GeoLite2-City" {
		t.Errorf("the database is %q", db)
	}
}

func TestStartFromWhatIsSaved(t *testing.T) {
	city := needGeo(t, "maxmind/GeoLite2-City-Test.mmdb")
	dir, cache := newFiles(t, 3), t.TempDir()
	var compiled atomic.Int64
	begin := func(t *testing.T) *station {
		return startIn(t, dir, func(o *Options) {
			o.Config.CacheDir = cache
			o.Config.Geo.Location = city
			o.Config.TrustedProxies = []string{"127.0.0.0/8"}
			o.Compile = func(_ context.Context, mmdb, out string) error {
				compiled.Add(1)
				return geo.Compile(mmdb, out)
			}
		})
	}
	t.Run("nothing is saved", func(t *testing.T) {
		st := begin(t)
		until(t, "orders", func() bool { return st.table.Load().orders != nil })
		if n := compiled.Load(); n != 1 {
			t.Errorf("compiled %d times, want once", n)
		}
	})
	t.Run("snapshot and orders are saved", func(t *testing.T) {
		opts, _ := optionsFor(t, dir)
		opts.Config.CacheDir, opts.Config.Geo.Location = cache, city
		opts.Compile = func(context.Context, string, string) error { return errors.New("there is nothing to compile") }
		s, err := New(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		if s.table.Load().orders == nil {
			t.Error("the saved orders are not in use from the start")
		}
		if lines := s.Status().Lines(); len(lines) > 0 {
			t.Errorf("problems: %q", lines)
		}
	})
	for _, pattern := range []string{"geo-*", "orders", "hosts.json"} {
		for damage, with := range map[string][]byte{"is garbage": []byte("garbage"), "is empty": {}} {
			t.Run(pattern+" "+damage, func(t *testing.T) {
				found, err := filepath.Glob(filepath.Join(cache, pattern))
				found = slices.DeleteFunc(found, func(path string) bool { return filepath.Base(path) == "geo.lock" })
				if err != nil || len(found) != 1 && pattern != "hosts.json" {
					t.Fatalf("%s: %q, %v", pattern, found, err)
				}
				if len(found) == 0 {
					found = []string{filepath.Join(cache, pattern)}
				}
				// By a rename: mapped files are never written to.
				writeFile(t, filepath.Join(cache, "x"), string(with))
				if err := os.Rename(filepath.Join(cache, "x"), found[0]); err != nil {
					t.Fatal(err)
				}
				before := compiled.Load()
				st := begin(t)
				until(t, "orders", func() bool { return st.table.Load().orders != nil })
				if db := st.Status().Database; db != "GeoLite2-City" {
					t.Errorf("the database is %q", db)
				}
				if again := compiled.Load() > before; again != (pattern == "geo-*") {
					t.Errorf("compiled again: %v", again)
				}
				if data, err := os.ReadFile(found[0]); pattern != "hosts.json" && (err != nil || bytes.Equal(data, with)) {
					t.Errorf("%s was not replaced: %v", pattern, err)
				}
			})
		}
	}
}

// A cache that cannot be written costs time, and nothing else.
func TestCacheDirectoryCannotBeWritten(t *testing.T) {
	city := needGeo(t, "maxmind/GeoLite2-City-Test.mmdb")
	dir := newFiles(t, 3)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	st := startIn(t, dir, func(o *Options) {
		// Not even root can make a directory below a file.
		o.Config.CacheDir = filepath.Join(o.Config.Network, "cache")
		o.Config.Geo.Location = city
	})
	if !st.degraded("cache_dir", "nothing is kept for the next start: mkdir") {
		t.Error("it is not said that nothing is kept")
	}
	until(t, "orders", func() bool { return st.table.Load().orders != nil })
	if db := st.Status().Database; db != "GeoLite2-City" {
		t.Errorf("the database is %q", db)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if list := st.list("/mirrorlist/9/baseos"); len(list) != 3 {
		t.Errorf("the list is %q, want 3 mirrors", list)
	}
}

// Two servers on one cache directory compile a database once, and none of them
// finds anything that it cannot use.
func TestTwoServersShareACacheDirectory(t *testing.T) {
	t.Parallel()
	city, location := needGeo(t, "maxmind/GeoLite2-City-Test.mmdb"), needGeo(t, "ipinfo/ipinfo_location_sample.mmdb")
	cache := t.TempDir()
	mmdb := filepath.Join(t.TempDir(), "location.mmdb")
	replaceFile(t, city, mmdb)
	var compiled, running atomic.Int64
	var servers []*station
	for range 2 {
		servers = append(servers, startIn(t, newFiles(t, 3), func(o *Options) {
			o.Config.CacheDir, o.Config.Geo.Location = cache, mmdb
			o.Compile = func(_ context.Context, mmdb, out string) error {
				compiled.Add(1)
				if running.Add(1) > 1 {
					t.Error("two compile at the same time")
				}
				defer running.Add(-1)
				return geo.Compile(mmdb, out)
			}
		}))
	}
	want := map[string]string{city: servers[0].Status().Database}
	for i := range 6 {
		from := []string{location, city}[i%2]
		replaceFile(t, from, mmdb)
		for _, st := range servers {
			before := want[[]string{city, location}[i%2]]
			until(t, "another database", func() bool { return st.Status().Database != before })
			want[from] = st.Status().Database
			until(t, "all well", st.fine)
		}
	}
	if n := compiled.Load(); n != 7 {
		t.Errorf("compiled %d times, want once for each of 7 states of the file", n)
	}
}

// Mapped databases are given back when nobody looks into them any more, not
// before and not never.
func TestManyDatabasesUnderLoad(t *testing.T) {
	t.Parallel()
	city, location := needGeo(t, "maxmind/GeoLite2-City-Test.mmdb"), needGeo(t, "ipinfo/ipinfo_location_sample.mmdb")
	st := startIn(t, newFiles(t, 8), func(o *Options) {
		o.Config.Geo.Location = filepath.Join(filepath.Dir(o.Config.Network), "location.mmdb")
		o.Config.TrustedProxies = []string{"127.0.0.0/8"}
		replaceFile(t, city, o.Config.Geo.Location)
	})
	mmdb := filepath.Join(st.dir, "location.mmdb")
	done := make(chan struct{})
	var load sync.WaitGroup
	for range 3 {
		load.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				// All of them decide by a place, and read the names in it.
				addr := []string{"89.160.20.113", "2.125.160.216", "77.174.56.224", "2001:218::1"}[i%4]
				e, err := st.Explain(Inquiry{Version: "9", Repo: "baseos", Addr: netip.MustParseAddr(addr)})
				if err != nil {
					t.Errorf("explain during a reload: %v", err)
					return
				}
				if n := len(e.Candidates); n != 8 {
					t.Errorf("explain during a reload: %d mirrors, want 8", n)
					return
				}
			}
		})
	}
	const rounds = 20
	for i := range rounds {
		before := st.Status().Database
		replaceFile(t, []string{location, city}[i%2], mmdb)
		until(t, "another database", func() bool { return st.Status().Database != before })
		runtime.GC()
	}
	close(done)
	load.Wait()
	maps := func() int {
		data, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Skipf("no way to see what is mapped: %v", err)
		}
		return strings.Count(string(data), st.opts.Config.CacheDir+"/geo-")
	}
	until(t, "that only the database in use is mapped", func() bool {
		runtime.GC()
		return maps() <= 1
	})
}

// A reload as often as it goes, while lists are asked for: each list is that of
// one network, and no request fails.
func TestReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	st := startIn(t, newFiles(t, 10), func(o *Options) {
		o.Config.Geo = Geo{demoGeo, demoGeo}
	})
	// In each network all URLs are others. Nobody knows when this is scheduled
	// again, so it says that it writes in the way that git does.
	lock := filepath.Join(st.dir, ".git", "index.lock")
	if err := os.Mkdir(filepath.Dir(lock), 0o755); err != nil {
		t.Fatal(err)
	}
	network := func(tag string) {
		writeFile(t, lock, "")
		for i := range 10 {
			name := fmt.Sprintf("m%d.example.org", i)
			text := strings.ReplaceAll(mirrorYAML(name, ""), "/linux/", "/"+tag+"/")
			// One rename a file: that no two of them are mixed is what is tested.
			writeFile(t, filepath.Join(st.dir, "next"), text)
			if err := os.Rename(filepath.Join(st.dir, "next"), filepath.Join(st.dir, "mirrors.d", name+".yml")); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(lock); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	var load sync.WaitGroup
	var lists atomic.Int64
	for range 4 {
		load.Go(func() {
			client := &http.Client{Transport: new(http.Transport)}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-done:
					return
				default:
				}
				resp, err := client.Get(st.main + "/mirrorlist/9/baseos")
				if err != nil {
					t.Errorf("a request failed: %v", err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("a request failed: %s %v", resp.Status, err)
					return
				}
				lines := strings.Split(string(body), "\n")
				of := map[string]int{}
				for _, line := range lines {
					_, path, _ := strings.Cut(strings.TrimPrefix(line, "http://"), "/")
					tag, _, _ := strings.Cut(path, "/")
					of[tag]++
				}
				if len(lines) != 10 || len(of) != 1 {
					t.Errorf("a list of more than one network:\n%s", body)
					return
				}
				lists.Add(1)
			}
		})
	}
	for i := range 12 {
		tag := "net" + strconv.Itoa(i)
		network(tag)
		if err := st.Reload(t.Context(), true); err != nil {
			t.Errorf("reload %d: %v", i, err)
		}
		if list := st.list("/mirrorlist/9/baseos"); !strings.Contains(list[0], "/"+tag+"/") {
			t.Errorf("after reload %d the list begins with %s", i, list[0])
		}
	}
	close(done)
	load.Wait()
	if lists.Load() < 100 {
		t.Errorf("only %d lists were asked for meanwhile", lists.Load())
	}
}

// Findings come from a file that a checker replaces.
func TestFindingsAreReadAsTheyChange(t *testing.T) {
	t.Parallel()
	findings := filepath.Join(t.TempDir(), "state")
	put := func(text string) {
		if err := os.MkdirAll(findings, 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(findings, "new"), text)
		if err := os.Rename(filepath.Join(findings, "new"), filepath.Join(findings, "snapshot.json")); err != nil {
			t.Fatal(err)
		}
	}
	// say is a snapshot in which one mirror has a health and the other is fresh.
	say := func(taken time.Time, health string) string {
		return fmt.Sprintf(`{"taken":%q,"mirrors":{"m0.example.org":{"health":{"9.8/baseos/x86_64":%q}},"m1.example.org":{"health":{"9.8/baseos/x86_64":"fresh"}}}}`,
			taken.Format(time.RFC3339), health)
	}
	st := startIn(t, newFiles(t, 2), func(o *Options) { o.Config.State = "dir:" + findings })
	listed := func() int { return len(st.list("/mirrorlist/9/baseos?arch=x86_64")) }
	if n := listed(); n != 2 || !st.fine() {
		t.Errorf("%d mirrors before a checker ever ran, want 2 and no complaint", n)
	}
	put(say(time.Now(), "stale"))
	until(t, "one is stale", func() bool { return listed() == 1 })
	// That it is looked at from time to time is shown; a reload looks at once.
	next := func(text string) {
		put(text)
		_ = st.Reload(t.Context(), false) // what is wrong is what is tested
	}
	next(say(time.Now(), "lagging"))
	until(t, "it only lags", func() bool { return listed() == 2 })
	next(say(time.Now(), "a word of the future"))
	until(t, "a verdict that is not known", func() bool { return listed() == 2 && st.fine() })
	next(say(time.Now(), "broken"))
	until(t, "it is broken", func() bool { return listed() == 1 })
	next("{")
	until(t, "half a file", func() bool { return st.degraded("state", "snapshot.json: unexpected end of JSON input") })
	if n := listed(); n != 1 {
		t.Errorf("%d mirrors with half a file, want still 1", n)
	}
	if err := os.RemoveAll(findings); err != nil {
		t.Fatal(err)
	}
	until(t, "no file", func() bool { return st.degraded("state", "no snapshot yet") })
	if n := listed(); n != 1 {
		t.Errorf("%d mirrors after the findings were removed, want still 1", n)
	}
	next(say(time.Now().Add(-2*time.Hour), "stale"))
	until(t, "findings that are too old", func() bool { return st.degraded("state age", "every health is unknown") && listed() == 2 })
	next(say(time.Now(), "fresh"))
	until(t, "findings that are new again", func() bool { return st.fine() && listed() == 2 })
}

// A weight that an administrator puts in place of a bandwidth makes new draws,
// and leaves those alone that requests may still be reading.
func TestDrawsFollowDecisions(t *testing.T) {
	t.Parallel()
	findings := t.TempDir()
	put := func(weight int) {
		writeFile(t, filepath.Join(findings, "new"), fmt.Sprintf(`{"taken":%q,"mirrors":{"m1.example.org":{"override":{"weight":%d}}}}`, time.Now().Format(time.RFC3339), weight))
		if err := os.Rename(filepath.Join(findings, "new"), filepath.Join(findings, "snapshot.json")); err != nil {
			t.Fatal(err)
		}
	}
	st := startIn(t, newFiles(t, 3), func(o *Options) { o.Config.State = "dir:" + findings })
	check := func(table *Table, weights ...int) {
		t.Helper()
		if !slices.Equal(table.weights, weights) {
			t.Fatalf("the weights are %v, want %v", table.weights, weights)
		}
		for _, d := range table.draws {
			whole := newDraw(d.hour, table.names, weights, table.secret)
			for class := d.first; class < d.end; class++ {
				if !slices.Equal(d.row(class), whole.row(class)) {
					t.Fatalf("class %d of hour %d draws %v, want %v as of weights %v", class, d.hour, d.row(class), whole.row(class), weights)
				}
			}
		}
	}
	before := st.table.Load()
	check(before, 1000, 1000, 1000)
	put(20)
	until(t, "the weight is in force", func() bool { return st.table.Load().weights[1] != 1000 })
	forced := st.table.Load()
	check(forced, 1000, 20, 1000)
	check(before, 1000, 1000, 1000)
	put(0)
	until(t, "the decision is taken back", func() bool { return st.table.Load().weights[1] != 20 })
	check(st.table.Load(), 1000, 1000, 1000)
	check(forced, 1000, 20, 1000)
}

func TestStartRefuses(t *testing.T) {
	good := newFiles(t, 1)
	short := filepath.Join(t.TempDir(), "secret")
	writeFile(t, short, "short")
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string // of the error
	}{
		{"no network", func(c *Config) { c.Network = "" }, `missing "network": write network: network.yml, the file that describes the network`},
		{"a network file that is not there", func(c *Config) { c.Network = filepath.Join(good, "none.yml") }, "none.yml: no such file or directory"},
		{"a listen address without port", func(c *Config) { c.Listen = "localhost" }, `listen: "localhost" is not an address; write HOST:PORT, such as 127.0.0.1:8080`},
		{"an admin address without port", func(c *Config) { c.AdminListen = "::1" }, `admin_listen: "::1" is not an address; write HOST:PORT, such as 127.0.0.1:8080`},
		{"a certificate without its key", func(c *Config) { c.TLS.Cert = "cert.pem" }, "tls: one file is missing; write both tls.cert and tls.key"},
		{"a certificate that is not there", func(c *Config) { c.TLS = TLS{"no.pem", "no.key"} }, "tls: no.pem and no.key: open no.pem: no such file or directory"},
		{"a proxy that is a name", func(c *Config) { c.TrustedProxies = []string{"proxy.example.org"} }, `trusted_proxies: "proxy.example.org" is not a network; write one such as 127.0.0.0/8 or 192.0.2.1`},
		{"a cloud that nobody knows", func(c *Config) { c.CloudRanges = map[string]string{"ibm": "x.json"} }, `cloud_ranges: unknown provider "ibm"; write one of aws, azure, gcp, oci`},
		{"a limit that is too large", func(c *Config) { c.Limit = 101 }, "limit: 101 is out of range; write 1 to 100"},
		{"a negative limit", func(c *Config) { c.Limit = -1 }, "limit: -1 is out of range; write 1 to 100"},
		{"findings that are old at once", func(c *Config) { c.StateMaxAge = time.Second }, "state_max_age: 1s is too short; write 1m or more"},
		{"a state in another store", func(c *Config) { c.State = "postgres://me:secret@localhost" }, `state: not a place that is known; write dir:PATH, redis://HOST:PORT/DB, redis+unix:///SOCKET or redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DB; rediss in place of redis is with TLS; or leave it out`},
		{"a secret that is not there", func(c *Config) { c.SecretFile = "none" }, "secret_file: open none: no such file or directory"},
		{"a short secret", func(c *Config) { c.SecretFile = short }, "is too short; write at least 16 random characters into it"},
		{"two faults", func(c *Config) { c.Limit, c.Network = 101, "" }, "limit: 101 is out of range; write 1 to 100\n" + `missing "network"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts, _ := optionsFor(t, good)
			tt.change(&opts.Config)
			_, err := New(t.Context(), opts)
			wantError(t, err, tt.want)
		})
	}
}

// An untouched network file of the service that is replaced is enough.
func TestStartWithNothingButANetworkFile(t *testing.T) {
	const real = "../../shared/testdata/network/config.yml"
	if _, err := os.Stat(real); err != nil {
		t.Skipf("the real network is not here: %v", err)
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	log := new(testworld.Output)
	s, err := New(t.Context(), Options{Config: Config{Network: real}, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if n := s.Status().Mirrors; n < 240 {
		t.Errorf("%d mirrors, want the real ones", n)
	}
	for input := range s.Status().Problems {
		if input != "mirrors" { // some are bad, and reported
			t.Errorf("%s: %q", input, s.Status().Problems[input])
		}
	}
	if !strings.Contains(log.String(), "no secret_file") {
		t.Errorf("the log does not warn of the missing secret:\n%s", log)
	}
	h, _ := s.Handlers()
	for _, target := range []string{"/mirrorlist/9/baseos", "/mirrorlist/8/appstream", "/mirrorlist/10-kitten/baseos", "/mirrorlist/8.3/baseos"} {
		if w := serveOne(h, "GET", target, "192.0.2.1:1234", nil); w.Code != http.StatusOK || w.Body.Len() == 0 {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}
