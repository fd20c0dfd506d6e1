package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meridian/checker"
	"meridian/checker/notify"
	"meridian/checker/state"
	"meridian/cmd/internal/daemon"
	"meridian/internal/strictyaml"
	"meridian/internal/testworld"
)

// checkerWorld is a tier0 and two mirrors of it on loopback: one that is in step,
// and one that serves web pages.
func checkerWorld(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	tree := mirrorTree(t, 200, time.Now().Add(-time.Hour))
	writeFiles(t, filepath.Join(dir, "tier0"), tree)
	good := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(dir, "tier0"))))
	t.Cleanup(good.Close)
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>welcome</html>")) }))
	t.Cleanup(bad.Close)
	writeFiles(t, dir, map[string]string{
		"network.yml":                probeNetwork,
		"mirrors.d/good.example.yml": "name: good.example\naddress: {http: " + good.URL + "/}\n",
		"mirrors.d/bad.example.yml":  "name: bad.example\naddress: {http: " + bad.URL + "/}\n",
		"checker.yml": "network: network.yml\norigin: tier0\nstate: dir:state\noverrides: overrides.yml\ninterval: 2s\n" +
			"allow_private_addresses: true\n",
	})
	return dir
}

func TestOnceSaysWhatIsWrong(t *testing.T) {
	dir := checkerWorld(t)
	var out, errs strings.Builder
	err := run(t.Context(), daemon.Env{Args: []string{"once", "-config", filepath.Join(dir, "checker.yml")}, Stdout: &out, Stderr: &errs})
	if err != nil {
		t.Fatalf("%v\n%s%s", err, &out, &errs)
	}
	want := `2 mirrors visited, 2 answered
       3 fresh
       3 broken
bad.example: 9.8/baseos/x86_64: what is served as repomd.xml is something else (and 2 more repositories)
`
	if out.String() != want {
		t.Errorf("once prints\n%s\nwant\n%s%s", &out, want, &errs)
	}
	if snap := readState(t, dir); snap.Mirrors["good.example"].Health[state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}] != state.Fresh {
		t.Errorf("nothing is stored of good.example: %+v", snap.Mirrors["good.example"])
	}
}

func TestOnceWithoutAnOrigin(t *testing.T) {
	dir := checkerWorld(t)
	if err := os.RemoveAll(filepath.Join(dir, "tier0")); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), daemon.Env{Args: []string{"once", "-config", filepath.Join(dir, "checker.yml")}, Stdout: new(bytes.Buffer), Stderr: new(bytes.Buffer)})
	if err == nil || !strings.Contains(err.Error(), "the origin has none of the repositories") {
		t.Errorf("without an origin once ends with %v", err)
	}
}

func TestOnceBesideAnotherChecker(t *testing.T) {
	dir := checkerWorld(t)
	w, err := state.OpenWriter("dir:"+filepath.Join(dir, "state"), state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	if _, err := w.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	err = run(t.Context(), daemon.Env{Args: []string{"once", "-config", filepath.Join(dir, "checker.yml")}, Stdout: new(bytes.Buffer), Stderr: new(bytes.Buffer)})
	want := fmt.Sprintf("another checker writes here (process %d): stop it, or look at what it knows with checker origin", os.Getpid())
	if err == nil || err.Error() != want {
		t.Errorf("beside another checker once ends with\n%v\nwant\n%s", err, want)
	}
}

// What an error is about is said once: the command puts its name before it.
func TestErrorsOfTheCheckerHaveNoPrefix(t *testing.T) {
	dir := checkerWorld(t)
	writeFiles(t, dir, map[string]string{"network.yml": "versions: ["})
	err := run(t.Context(), daemon.Env{Args: []string{"run", "-config", filepath.Join(dir, "checker.yml")}, Stdout: new(bytes.Buffer), Stderr: new(bytes.Buffer)})
	if err == nil || strings.HasPrefix(err.Error(), "checker: ") {
		t.Errorf("a network that cannot be read: %v", err)
	}
}

func readState(t *testing.T, dir string) *state.Snapshot {
	t.Helper()
	r, err := state.OpenReader("dir:"+filepath.Join(dir, "state"), state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	snap, err := r.Load(t.Context())
	if err != nil {
		return &state.Snapshot{}
	}
	return snap
}

// The daemon finds out, takes up decisions and files while it runs, and stops
// without an error.
func TestRun(t *testing.T) {
	dir := checkerWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log testworld.Output
	end := make(chan error, 1)
	go func() {
		end <- run(ctx, daemon.Env{Args: []string{"run", "-config", filepath.Join(dir, "checker.yml")}, Stdout: &log, Stderr: &log})
	}()
	until := func(what string, ok func(snap *state.Snapshot) bool) {
		t.Helper()
		deadline := time.Now().Add(5 * time.Minute)
		for !ok(readState(t, dir)) {
			if time.Now().After(deadline) {
				t.Fatalf("%s does not come:\n%s", what, log.String())
			}
			select {
			case err := <-end:
				t.Fatalf("run ends with %v\n%s", err, log.String())
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	key := state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}
	health := func(snap *state.Snapshot, mirror string) state.Health {
		if st := snap.Mirrors[mirror]; st != nil {
			return st.Health[key]
		}
		return state.Unknown
	}
	until("the first verdict", func(snap *state.Snapshot) bool {
		return health(snap, "good.example") == state.Fresh && health(snap, "bad.example") == state.Broken
	})
	writeFiles(t, dir, map[string]string{"overrides.yml": "mirrors:\n  good.example: {draining: true, reason: a disk is full}\n"})
	until("the decision", func(snap *state.Snapshot) bool {
		o := snap.Mirrors["good.example"].Override
		return o != nil && o.Draining && o.Reason == "a disk is full"
	})
	writeFiles(t, filepath.Join(dir, "tier0"), mirrorTree(t, 300, time.Now()))
	until("the publication", func(snap *state.Snapshot) bool {
		truth := snap.Truth[key]
		return truth.Newest().Revision == "300" && health(snap, "good.example") == state.Fresh
	})
	cancel()
	if err := <-end; err != nil {
		t.Errorf("run ends with %v when it is stopped\n%s", err, log.String())
	}
}

func newTestChecker(t *testing.T) (*checker.Checker, error) {
	t.Helper()
	dir := checkerWorld(t)
	s, _, err := readSettings(filepath.Join(dir, "checker.yml"))
	if err != nil {
		return nil, err
	}
	return checker.New(checker.Options{Settings: s, Log: slog.New(slog.DiscardHandler)})
}

// What the daemon tells, and to whom: over its listener, and by a webhook.
func TestRunTells(t *testing.T) {
	dir := checkerWorld(t)
	type post struct {
		body      []byte
		signature string
	}
	posts := make(chan post, 100)
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		posts <- post{body, r.Header.Get(notify.SignatureHeader)}
	}))
	t.Cleanup(hook.Close)
	settings, err := os.ReadFile(filepath.Join(dir, "checker.yml"))
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, map[string]string{
		"checker.yml": string(settings) + "listen: 127.0.0.1:0\nsecret_file: secret\nnotify:\n  webhook: {url: '" + hook.URL + "', secret_file: hook}\n",
		"secret":      "0123456789abcdef\n", "hook": "shared\n",
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log testworld.Output
	end := make(chan error, 1)
	go func() {
		end <- run(ctx, daemon.Env{Args: []string{"run", "-config", filepath.Join(dir, "checker.yml")}, Stdout: &log, Stderr: &log})
	}()
	await := func(what string, ok func() bool) {
		t.Helper()
		deadline := time.Now().Add(5 * time.Minute)
		for !ok() {
			if time.Now().After(deadline) {
				t.Fatalf("%s does not come:\n%s", what, log.String())
			}
			select {
			case err := <-end:
				t.Fatalf("run ends with %v\n%s", err, log.String())
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	var base string
	await("the listener", func() bool {
		_, rest, ok := strings.Cut(log.String(), "msg=listening addr=")
		addr, _, whole := strings.Cut(rest, "\n")
		base = "http://" + addr
		return ok && whole
	})
	do := func(method, path, token string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	await("the end of the first round", func() bool {
		code, body := do("GET", "/readyz", "")
		return code == http.StatusOK && body == "ready\n"
	})
	if _, page := do("GET", "/metrics", ""); !strings.Contains(page, "\nmeridian_checker_mirrors{health=\"broken\"} 1\n") || !strings.Contains(page, "meridian_build_info{") {
		t.Errorf("/metrics:\n%s", page)
	}
	await("the history, a second later at most", func() bool {
		code, feed := do("GET", "/mirrors/bad.example/feed.atom", "")
		return code == http.StatusOK && strings.Contains(feed, "broken")
	})

	var told []state.Event
	await("the webhook", func() bool {
		for {
			select {
			case p := <-posts:
				if want := notify.Sign([]byte("shared"), p.body); p.signature != want {
					t.Fatalf("the signature is %q, want %q", p.signature, want)
				}
				var batch struct{ Events []state.Event }
				if err := json.Unmarshal(p.body, &batch); err != nil {
					t.Fatal(err)
				}
				told = append(told, batch.Events...)
			default:
				return slices.ContainsFunc(told, func(e state.Event) bool { return e.Mirror == "bad.example" && e.To == state.Broken })
			}
		}
	})

	// A bad edit of the decisions is said, and changes nothing; a good one is in
	// force within seconds, and told.
	writeFiles(t, dir, map[string]string{"overrides.yml": "mirrors:\n  good.example: {disabled: yes please}\n"})
	await("the complaint", func() bool {
		_, body := do("GET", "/readyz", "")
		return strings.HasPrefix(body, "ready\ndegraded: overrides: ") && strings.Contains(body, "overrides.yml:2: ")
	})
	writeFiles(t, dir, map[string]string{"overrides.yml": "mirrors:\n  good.example: {weight: 7, reason: slow}\n"})
	await("the decision", func() bool {
		_, page := do("GET", "/metrics", "")
		return strings.Contains(page, "\nmeridian_checker_overrides{decision=\"weight\"} 1\n") && strings.Contains(page, "\nmeridian_checker_events_total{kind=\"override\"} 1\n")
	})

	var printed strings.Builder
	if err := run(t.Context(), daemon.Env{Args: []string{"token", "-config", filepath.Join(dir, "checker.yml"), "good.example"}, Stdout: &printed, Stderr: &printed}); err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(printed.String())
	if code, body := do("POST", "/api/v1/mirrors/good.example/synced", token); code != http.StatusAccepted {
		t.Errorf("a hint with the token that is printed: %d %s", code, body)
	}
	if code, _ := do("POST", "/api/v1/mirrors/bad.example/synced", token); code != http.StatusUnauthorized {
		t.Errorf("a hint with another mirror's token: %d", code)
	}
	cancel()
	if err := <-end; err != nil {
		t.Errorf("run ends with %v\n%s", err, log.String())
	}
}

func TestSecretsThatAreMissing(t *testing.T) {
	dir := checkerWorld(t)
	settings, err := os.ReadFile(filepath.Join(dir, "checker.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for more, want := range map[string]string{
		"notify: {webhook: {url: 'http://127.0.0.1:1/', secret_file: none}}\n":                                                "notify.webhook.secret_file: open " + filepath.Join(dir, "none"),
		"notify: {mail: {server: '127.0.0.1:25', from: a@example.org, to: [b@example.org], user: u, password_file: empty}}\n": "notify.mail.password_file: " + filepath.Join(dir, "empty") + " is empty; write the secret into it",
		"listen: 127.0.0.1:0\nsecret_file: empty\n":                                                                           "0 characters are too few for a secret",
		"notify: {webhook: {url: nonsense}}\n":                                                                                "notify.webhook.url: not a URL; write one like",
		"public_url: mirrors.example.org\n":                                                                                   "public_url: \"mirrors.example.org\" is not a URL; write one such as https://mirrors.example.org",
	} {
		writeFiles(t, dir, map[string]string{"checker.yml": string(settings) + more, "empty": "\n"})
		err := run(t.Context(), daemon.Env{Args: []string{"run", "-config", filepath.Join(dir, "checker.yml")}, Stdout: io.Discard, Stderr: io.Discard})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", more, err, want)
		}
	}
}

// The example is what people begin with: it has every setting, and is right as it
// is, and with every setting in use.
func TestExampleSettings(t *testing.T) {
	text, err := os.ReadFile("example.yml")
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`(?m)^#origin:.*\n`).ReplaceAllString(string(text), "")
	all = regexp.MustCompile(`(?m)^#( *[a-z_]+:)`).ReplaceAllString(all, "$1")
	other := regexp.MustCompile(`(?m)^origin:.*\n#`).ReplaceAllString(string(text), "")
	for name, text := range map[string]string{"as it is": string(text), "with every setting": all, "with the other origin": other} {
		t.Run(name, func(t *testing.T) {
			var s checker.Settings
			if err := strictyaml.Unmarshal("example.yml", []byte(text), &s); err != nil {
				t.Fatal(err)
			}
			if err := s.Check(); err != nil {
				t.Error(err)
			}
			if name != "with every setting" {
				return
			}
			for v, i := reflect.ValueOf(s), 0; i < v.NumField(); i++ {
				if v.Field(i).IsZero() {
					t.Errorf("the setting %q is missing", v.Type().Field(i).Tag.Get("yaml"))
				}
			}
		})
	}
}

// Every setting and every verdict is in the manual.
func TestTheManualIsComplete(t *testing.T) {
	manual := testworld.ReadManual(t, "The checker")
	manual.HasSettings("key", reflect.TypeFor[checker.Settings]())
	manual.HasSettings("key of `notify`", reflect.TypeFor[notify.Settings]())
	c, err := newTestChecker(t)
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan *prometheus.Desc, 100)
	c.Collector().Describe(ch)
	close(ch)
	var all []fmt.Stringer
	for d := range ch {
		all = append(all, d)
	}
	manual.HasMetrics(all)
	names := map[string]bool{}
	for _, d := range all {
		names[metricName.FindString(d.String())] = true
	}
	text, err := os.ReadFile("../../docs/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, alarms, _ := strings.Cut(string(text), "\n## Alarms of the checker\n")
	alarms, _, _ = strings.Cut(alarms, "\n## ")
	rows := 0
	for line := range strings.Lines(alarms) {
		for _, name := range metricName.FindAllString(line, -1) {
			if rows++; !names[strings.TrimSuffix(name, "_bucket")] {
				t.Errorf("docs/OPERATING.md has an alarm for %s, which is no metric: %s", name, line)
			}
		}
	}
	if rows < 10 {
		t.Errorf("docs/OPERATING.md names metrics in %d places of its alarms; is the table still where it was?", rows)
	}
	for h := state.Unknown; h <= state.Unprobed; h++ {
		if !slices.Contains(manual.Names("verdict"), h.String()) {
			t.Errorf("docs/OPERATING.md does not have the verdict %s", h)
		}
	}
}

var metricName = regexp.MustCompile(`meridian_checker_[a-z0-9_]+`)
