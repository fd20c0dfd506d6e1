package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"meridian/cmd/internal/daemon"
	"meridian/internal/testworld"
	"meridian/mirrorlist"
)

const replayNetwork = `config_version: 3
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
`

// replayFiles writes the network with mirrors in cities of the demo, and returns
// the path of its settings.
func replayFiles(t *testing.T, settings string, without ...string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write("network.yml", replayNetwork)
	write("secret", "the secret of these tests")
	write("mirrorlist.yml", "network: network.yml\nsecret_file: secret\ngeo: {location: demo, asn: demo}\ncache_dir: cache\nstats: dir:stats\nrequests_per_second: -1\n"+settings)
	for name, place := range map[string]string{
		"berlin": "DE, latitude: 52.5, longitude: 13.4}", "hamburg": "DE, latitude: 53.5, longitude: 10}", "paris": "FR, latitude: 48.8, longitude: 2.3}",
		"tokyo": "JP, latitude: 35.7, longitude: 139.6}", "campus": "DE}\nprivate: true\nsubnets: [192.0.2.64/26]",
	} {
		if strings.Contains(strings.Join(without, " "), name) {
			continue
		}
		name += ".example.org"
		write("mirrors.d/"+name+".yml", "name: "+name+"\naddress: {http: http://"+name+"/linux/}\nupdate_frequency: 3h\nsponsor: x\nsponsor_url: https://www.example.org/\nemail: a@example.org\ngeolocation: {country: "+place+"\n")
	}
	return filepath.Join(dir, "mirrorlist.yml")
}

// serveFiles serves a network on loopback.
func serveFiles(t *testing.T, config string) *httptest.Server {
	t.Helper()
	cfg, err := readConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	s, err := mirrorlist.New(t.Context(), mirrorlist.Options{Config: cfg, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	public, _ := s.Handlers()
	srv := httptest.NewServer(public)
	t.Cleanup(srv.Close)
	return srv
}

// logOf writes an access log, and returns its path.
func logOf(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func logLine(client, target string) string {
	return client + ` - - [01/Mar/2026:12:00:00 +0000] "GET ` + target + ` HTTP/1.1" 200 512 "-" "libdnf (AlmaLinux 9.8; generic; Linux.x86_64)"`
}

// runReplay runs the command, and returns what it printed.
func runReplay(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs strings.Builder
	env := daemon.Env{Args: append([]string{"replay", "-rate", "5000"}, args...), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}
	err = run(t.Context(), env)
	return out.String(), errs.String(), err
}

// Between two servers that differ in one mirror, the lists that began with it are
// those that differ, whichever way ours is asked.
func TestReplayFindsAKnownDifference(t *testing.T) {
	var lines []string
	for i := range 128 {
		lines = append(lines, logLine(fmt.Sprintf("192.0.2.%d", i%60), "/mirrorlist/9/baseos?countme=1"), logLine(fmt.Sprintf("203.0.113.%d", i), "/mirrorlist/9/baseos?arch=aarch64"))
	}
	for i := range 16 {
		lines = append(lines, logLine(fmt.Sprintf("192.0.2.%d", 64+i), "/mirrorlist/9/baseos")) // of the private mirror
	}
	lines = append(lines, logLine("192.0.2.1", "/mirrorlist/9.7/baseos"), logLine("192.0.2.1", "/metalink/9/baseos?arch=x86_64"), logLine("203.0.113.1", "/mirrorlist/80/baseos?token=zq7"),
		logLine("192.0.2.1", "/index.html"), logLine("192.0.2.1", "/isolist/9/x86_64"), "nonsense")
	log := logOf(t, lines...)
	theirs := serveFiles(t, replayFiles(t, "trusted_proxies: [127.0.0.0/8]\n", "tokyo", "campus"))
	ourFiles := replayFiles(t, "trusted_proxies: [127.0.0.0/8]\n")
	ours := serveFiles(t, ourFiles)
	for name, ourFlags := range map[string][]string{"of files": {"-config", ourFiles}, "at a URL": {"-server", ours.URL}} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, err := runReplay(t, append(ourFlags, "-log", log, "-against", theirs.URL, "-format", "json")...)
			if err != nil || stderr != "" {
				t.Fatalf("%v\n%s", err, stderr)
			}
			var got outcome
			if err := json.Unmarshal([]byte(stdout), &got); err != nil {
				t.Fatal(err)
			}
			if got.Lines != 278 || got.Asked != 276 || got.NoList != 1 || got.Unread != 1 || got.SameStatus != 276 || got.OursLost+got.Lost != 0 {
				t.Errorf("counted %+v", got)
			}
			// 128 of Tokyo, 16 of the campus: all else begins with the same mirror.
			if got.Compared != 275 || got.SameFirst != 275-128-16 {
				t.Errorf("%d of %d first lines are the same", got.SameFirst, got.Compared)
			}
			campus := "theirs is in a later tier by us: country behind subnet"
			if name == "at a URL" {
				campus = "ours is private, and not explained"
			}
			want := []difference{
				{"theirs is in a later tier by us: world behind country", 128, example{2, "/mirrorlist/9/baseos?arch=aarch64", ""}},
				{campus, 16, example{257, "/mirrorlist/9/baseos", ""}},
			}
			if fmt.Sprint(got.Reasons) != fmt.Sprint(want) {
				t.Errorf("reasons are %v, want %v", got.Reasons, want)
			}
			for _, s := range got.Shares {
				if s.Host == "tokyo.example.org" && (s.Theirs != 0 || s.Ours != 128./275) || s.Host == "campus.example.org" && (s.Theirs != 0 || s.Ours != 16./275) {
					t.Errorf("shares are %+v", got.Shares)
				}
			}
			if len(got.Shares) < 4 || got.Shares[0].Host != "tokyo.example.org" && got.Shares[1].Host != "tokyo.example.org" {
				t.Errorf("shares are %+v", got.Shares)
			}
		})
	}
	// Nothing was counted: not by us, and no system by them.
	if _, err := os.Stat(filepath.Join(filepath.Dir(ourFiles), "stats")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("statistics were kept: %v", err)
	}
}

// Another kind of server: what it is told, and what of it is understood.
func TestReplayAgainstSomethingElse(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	theirs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, fmt.Sprint(r.Method, " ", r.URL, " for ", r.Header["Cf-Connecting-Ip"], " with ", r.Header["User-Agent"], r.Header["X-Forwarded-For"], r.Header["Accept-Encoding"]))
		mu.Unlock()
		switch {
		case strings.HasSuffix(r.URL.Path, "/isolist/9/x86_64"):
			io.WriteString(w, `["http://elsewhere.example.org/iso/"]`)
		case strings.Contains(r.URL.Path, "/metalink/"):
			io.WriteString(w, `<?xml version="1.0"?><metalink><files><file><resources><url protocol="rsync">rsync://a/</url> <url protocol="https"> https://paris.example.org/x/repodata/repomd.xml </url></resources></file></files></metalink>`)
		case strings.HasSuffix(r.URL.Path, "/80/baseos"):
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, "not here, \x1b[31m192.0.2.1")
		case strings.HasSuffix(r.URL.Path, "/9.7/baseos"):
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case r.URL.Query().Get("arch") == "aarch64":
			io.WriteString(w, "\n# a comment\n  HTTP://Hamburg.example.org:80/linux/\nhttp://berlin.example.org/\n")
		default:
			io.WriteString(w, "http://nobody-knows.example.org/\n")
		}
	}))
	defer theirs.Close()
	log := logOf(t,
		logLine("192.0.2.1", "/mirrorlist/9/baseos?countme=4&x=zq7"),
		logLine("192.0.2.1", "/mirrorlist/9/baseos?arch=aarch64"),
		logLine("192.0.2.1", "/mirrorlist/80/baseos"),
		logLine("192.0.2.1", "/mirrorlist/9.7/baseos"),
		logLine("192.0.2.1", "/metalink/9/baseos?arch=x86_64"),
		logLine("2001:db8:1::1", "/isolist/9/x86_64"),
		logLine("192.0.2.1", "/mirrorlist/9/baseos?protocol=gopher"),
		strings.Replace(logLine("192.0.2.1", "/mirrorlist/9/baseos"), "GET", "HEAD", 1),
	)
	args := []string{"-log", log, "-config", replayFiles(t, "", "berlin"), "-against", theirs.URL + "/prefix/", "-header", "CF-Connecting-IP"}
	stdout, stderr, err := runReplay(t, args...)
	if err != nil || stderr != "" {
		t.Fatalf("%v\n%s", err, stderr)
	}
	for _, want := range []string{
		"8 lines: 8 lists asked of both, 0 other requests, 0 lines in no known format",
		"status: 6 of 8 (75.0 %) are the same",
		"1  ours 200, theirs 302\n          line 4: /mirrorlist/9.7/baseos\n",
		`1  ours 400, theirs 200: "unknown protocol \"gopher\": write protocol=http or protocol=https, or leave it out"`,
		"first line: 1 of 4 (25.0 %) are the same", // of aarch64
		"1  theirs is in a later tier by us: world behind country\n          line 5: /metalink/9/baseos?arch=x86_64\n",
		"1  theirs is none of our mirrors that this client may have\n          line 1: /mirrorlist/9/baseos\n",
		"1  not explained: lists of images are not\n",
		"  hamburg.example.org  ",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
	// No address, nothing that only a client would say, nothing that moves a cursor.
	for _, secret := range []string{"192.0.2", "2001:db8", "zq7", "libdnf", "\x1b"} {
		if strings.Contains(stdout, secret) {
			t.Errorf("%q is in\n%s", secret, stdout)
		}
	}
	mu.Lock()
	all := strings.Join(seen, "\n")
	mu.Unlock()
	for _, want := range []string{
		"GET /prefix/mirrorlist/9/baseos?x=zq7 for [192.0.2.1] with [libdnf (AlmaLinux 9.8; generic; Linux.x86_64)] [] []",
		"HEAD /prefix/mirrorlist/9/baseos for", "GET /prefix/isolist/9/x86_64 for [2001:db8:1::1] with",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q was not asked:\n%s", want, all)
		}
	}
	if strings.Contains(all, "countme") || strings.Contains(all, "elsewhere") {
		t.Errorf("systems are counted, or redirects followed:\n%s", all)
	}
	if stdout, _, err = runReplay(t, append(args, "-show-clients")...); err != nil || !strings.Contains(stdout, "line 1: /mirrorlist/9/baseos for 192.0.2.1\n") {
		t.Errorf("%v: the client of an example is not in\n%s", err, stdout)
	}
}

func TestReplayIsBounded(t *testing.T) {
	var asked atomic.Int64
	theirs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		for range 3 { // more than is read of an answer
			if _, err := w.Write([]byte(strings.Repeat("x", maxAnswer))); err != nil {
				return
			}
		}
	}))
	defer theirs.Close()
	files := replayFiles(t, "")
	lines := make([]string, 200)
	for i := range lines {
		lines[i] = logLine("192.0.2.1", "/mirrorlist/9/baseos?country="+strings.Repeat("é", 3*i)) // each another refusal
	}
	lines[7] = strings.Repeat("x", 3*maxLine)
	stdout, _, err := runReplay(t, "-log", logOf(t, lines...), "-config", files, "-against", theirs.URL, "-max", "50")
	if err != nil || asked.Load() != 50 || !strings.HasPrefix(stdout, "51 lines: 50 lists asked of both, 0 other requests, 1 lines in no known format\n") {
		t.Errorf("%v; asked %d times\n%s", err, asked.Load(), stdout)
	}

	nobody, err := testworld.FreeAddr("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = runReplay(t, "-log", logOf(t, lines...), "-config", files, "-against", "http://"+nobody)
	if err == nil || !strings.Contains(err.Error(), "the other server does not answer: dial tcp") || strings.Contains(err.Error(), "country") {
		t.Errorf("nobody is there: %v", err)
	}
}

// Who interrupts a replay is shown what is known by then.
func TestReplayThatIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int64
	theirs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 30 {
			cancel()
		}
	}))
	defer theirs.Close()
	lines := make([]string, 100_000)
	for i := range lines {
		lines[i] = logLine("192.0.2.1", "/mirrorlist/9/baseos")
	}
	var out strings.Builder
	err := run(ctx, daemon.Env{Args: []string{"replay", "-log", logOf(t, lines...), "-config", replayFiles(t, ""), "-against", theirs.URL, "-max", "100000", "-rate", "1000"}, Stdout: &out, Stderr: io.Discard})
	if !errors.Is(err, context.Canceled) || !regexp.MustCompile(`^\d+ lines: [1-9]\d lists asked of both`).MatchString(out.String()) {
		t.Errorf("%v\n%s", err, &out)
	}
}

func TestReplayOfWhatIsWrittenWrong(t *testing.T) {
	files, log := replayFiles(t, ""), logOf(t, logLine("192.0.2.1", "/mirrorlist/9/baseos"))
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-against", "http://x", "-config", files}, "missing -log: write -log access.log"},
		{[]string{"-log", log, "-config", files}, "missing -against: write the URL"},
		{[]string{"-log", log, "-against", "http://x"}, "which server is ours?"},
		{[]string{"-log", log, "-against", "http://x", "-config", files, "-server", "http://y"}, "which server is ours?"},
		{[]string{"-log", log, "-against", "example.org", "-config", files}, `-against: "example.org" is no URL of a server; write one such as https://mirrors.example.org`},
		{[]string{"-log", log, "-against", "http://x", "-server", "/socket"}, `-server: "/socket" is no URL`},
		{[]string{"-log", log, "-against", "http://x", "-config", files, "-rate", "0"}, "-rate 0 is out of range"},
		{[]string{"-log", log, "-against", "http://x", "-config", files, "-rate", "NaN"}, "-rate NaN is out of range"},
		{[]string{"-log", log, "-against", "http://x", "-config", files, "-max", "0"}, "-max 0 is out of range"},
		{[]string{"-log", log, "-against", "http://x", "-config", files, "-format", "csv"}, `unknown format "csv"`},
		{[]string{"-log", log, "-against", "http://x", "-config", files, "more"}, `replay takes no argument "more"`},
		{[]string{"-log", log + ".none", "-against", "http://x", "-config", files}, "no such file"},
		{[]string{"-log", log, "-against", "http://x", "-config", files + ".none"}, "no such file"},
	} {
		if _, _, err := runReplay(t, tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.args, err, tt.want)
		}
	}
}
