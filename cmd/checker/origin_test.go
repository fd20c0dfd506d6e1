package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"meridian/checker"
	"meridian/checker/state"
	"meridian/cmd/internal/daemon"
	"meridian/internal/strictyaml"
	"meridian/internal/testworld"
	"meridian/syncer"
)

const originNetwork = `
config_version: 3
allowed_outdate: 720h
versions: ["9", "9.8"]
duplicated_versions: {"9": "9.8"}
arches: {"9": [x86_64]}
repos:
  - {name: baseos, path: BaseOS/$basearch/os/}
  - {name: appstream, path: AppStream/$basearch/os/}
  - {name: crb, path: CRB/$basearch/os/}
`

// A tier0 is a tree of real repositories, and a checker's settings for it.
type tier0 struct {
	t      *testing.T
	tree   string
	pool   string
	config string
	now    time.Time // of the next poll
}

func newTier0(t *testing.T) *tier0 {
	t.Helper()
	testworld.Need(t, "createrepo_c")
	testworld.Need(t, "rpmbuild")
	dir := t.TempDir()
	w := &tier0{t: t, tree: filepath.Join(dir, "tree"), pool: filepath.Join(dir, "pool"), config: filepath.Join(dir, "checker.yml"), now: time.Now()}
	for name, text := range map[string]string{
		"network.yml": originNetwork,
		"checker.yml": "network: network.yml\norigin: tree\nstate: dir:state\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(w.pool, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := testworld.BuildPackages(t.Context(), w.pool, w.packages(3)); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *tier0) packages(generation int) (pkgs []testworld.Package) {
	for g := range generation {
		pkgs = append(pkgs, testworld.Package{Name: "hello", Version: fmt.Sprint("1.", g), Release: "1.el9", Arch: "noarch"})
	}
	return pkgs
}

func (w *tier0) dir(repo string) string { return filepath.Join(w.tree, "9.8", repo, "x86_64", "os") }

// compose makes the next generation of a repository with createrepo_c.
func (w *tier0) compose(repo string, revision int) {
	w.t.Helper()
	if err := testworld.Compose(w.t.Context(), w.dir(repo), w.pool, revision, w.packages(1+revision%3)); err != nil {
		w.t.Fatal(err)
	}
}

// poll does what the daemon does: it takes the lease, asks, and writes.
func (w *tier0) poll() {
	w.t.Helper()
	ctx := w.t.Context()
	s, n, err := readSettings(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	store, err := state.OpenWriter(s.State, state.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := store.Acquire(ctx); err != nil {
		w.t.Fatal(err)
	}
	defer store.Release(ctx)
	known := map[state.Key]state.Truth{}
	snap, err := store.Load(ctx)
	switch {
	case err == nil:
		known = snap.Truth
	case !errors.Is(err, state.ErrNoSnapshot):
		w.t.Fatal(err)
	}
	o, err := checker.NewOrigin(checker.OriginOptions{Network: n, Tier0s: s.Origin, Known: known, Decisions: store.Decisions})
	if err != nil {
		w.t.Fatal(err)
	}
	defer o.Close()
	truth, events, err := o.Poll(ctx, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := store.Write(ctx, &state.Change{Taken: w.now, Truth: truth, Events: events}); err != nil {
		w.t.Fatal(err)
	}
	w.now = w.now.Add(time.Minute)
}

// checker runs the command and wants its standard output to match patterns, one a
// line, as many as there are lines.
func (w *tier0) checker(status int, args []string, lines ...string) {
	w.t.Helper()
	var stdout, stderr bytes.Buffer
	env := daemon.Env{
		Args: append([]string{"origin", "-config", w.config}, args...), Stdout: &stdout, Stderr: &stderr,
		Getenv: func(key string) string { return map[string]string{"USER": "ada"}[key] },
	}
	err := run(w.t.Context(), env)
	if (err != nil) != (status != 0) || err != nil && err.Error() != fmt.Sprintf("exit status %d", status) {
		w.t.Errorf("checker origin %q: %v, want status %d", args, err, status)
	}
	got := strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
	ok := len(got) == len(lines)
	for i := 0; ok && i < len(got); i++ {
		ok = regexp.MustCompile("^(?:" + lines[i] + ")$").MatchString(strings.TrimRight(got[i], " "))
	}
	if !ok {
		w.t.Errorf("checker origin %q printed\n%s\nwant\n%s", args, &stdout, strings.Join(lines, "\n"))
	}
}

func TestOriginCommand(t *testing.T) {
	w := newTier0(t)
	const (
		asOf = `as of 20..-..-.. ..:..:.., .*`
		head = `REPOSITORY +REVISION +SEEN +AGE +SIZE +SHA256`
		tail = ` +20..-..-.. ..:..:.. +\w+ +[0-9]+ +[0-9a-f]{16} +`
		acts = `a checker that runs acts on it within seconds; another one when it starts`
	)
	row := func(repo string, revision int, note string) string {
		return fmt.Sprintf("9.8/%s/x86_64 +%d%s%s", repo, revision, tail, note)
	}
	noCRB := `9.8/crb/x86_64 +- +- +- +- +- +not at the origin`

	w.checker(0, nil, `dir:.*: nothing was found out yet; checker run does`, head)
	w.compose("BaseOS", 10)
	w.compose("AppStream", 10)
	w.poll()
	w.checker(0, nil, asOf, "", head, row("baseos", 10, "newest"), row("appstream", 10, "newest"), noCRB)
	w.checker(0, []string{"expire", "9/baseos"}, `9.8/baseos/x86_64: has no older generation than revision 10`)
	w.checker(1, []string{"expire", "9.8/crb"}, `9.8/crb/x86_64: nothing that was published is known`)

	w.compose("BaseOS", 11)
	w.poll()
	w.checker(0, []string{"9/base*"}, asOf, "", head, row("baseos", 11, "newest"), row("baseos", 10, `superseded \w+ ago`))
	w.checker(0, []string{"expire", "9/baseos"}, `9.8/baseos/x86_64: revision 11 stays, first seen .*; 1 older withdrawn`, acts)
	w.poll()
	w.checker(0, []string{"9.8/baseos/x86_64"}, asOf, "", head, row("baseos", 11, "newest"), row("baseos", 10, `superseded \w+ ago, expired`))

	t.Run("expire waits for what the checker has not seen", func(t *testing.T) {
		w.t = t
		w.compose("BaseOS", 12)
		w.checker(0, []string{"expire", "9.8/baseos/x86_64"}, `9.8/baseos/x86_64: revision 12, which was published just now, stays; as soon as the checker has seen it whole, 2 older withdrawn`, acts)
		w.checker(0, []string{"9/baseos"}, asOf, "", head, row("baseos", 11, "newest"), row("baseos", 10, `superseded \w+ ago, expired`),
			"", "9.8/baseos/x86_64", `    ada@\S+ has withdrawn revision 11, at .*: as soon as something follows it`)
		w.poll()
		w.checker(0, []string{"9/baseos"}, asOf, "", head, row("baseos", 12, "newest"), row("baseos", 11, `superseded \w+ ago, expired`), row("baseos", 10, `superseded \w+ ago, expired`))
	})
	t.Run("accept", func(t *testing.T) {
		w.t = t
		w.checker(0, []string{"accept", "9/appstream"}, `9.8/appstream/x86_64: .*/tree/ serves revision 10, which is believed`)
		w.compose("AppStream", 9)
		w.poll()
		w.checker(0, []string{"9/appstream"}, asOf, "", head, row("appstream", 10, "newest"),
			"", "9.8/appstream/x86_64", "    .*/tree/ serves revision 9, which is older than 10", "    since .*", "    publish again .*checker origin accept 9.8/appstream/x86_64", "    file:///.*/repodata/repomd.xml")
		w.checker(0, []string{"accept", "9/appstream"}, `9.8/appstream/x86_64: revision 9 is accepted in place of 10`, acts)
		w.checker(0, []string{"9/appstream", "-format=text"}, asOf, "", head, row("appstream", 10, "newest"),
			"", "9.8/appstream/x86_64", "    .*", "    since .*", "    publish .*", "    file:///.*",
			"", "9.8/appstream/x86_64", `    ada@\S+ accepts [0-9a-f]{16}, at .*: that was not seen whole since`)
		w.poll()
		w.checker(0, []string{"9/appstream"}, asOf, "", head, row("appstream", 9, "newest"), row("appstream", 10, `superseded \w+ ago`))
		w.checker(1, []string{"accept", "9/crb"}, `9.8/crb/x86_64: cannot be accepted: .*/tree/ does not have it`)
		w.compose("AppStream", 11)
		w.checker(0, []string{"accept", "9/appstream"}, `9.8/appstream/x86_64: revision 11 at .*/tree/ follows what is believed; nothing needs to be accepted`)
		if err := os.RemoveAll(w.dir("AppStream")); err != nil {
			t.Fatal(err)
		}
		w.checker(1, []string{"accept", "9/appstream"}, `9.8/appstream/x86_64: cannot be accepted: .*/tree/ does not have it any more`)
	})
	t.Run("json", func(t *testing.T) {
		w.t = t
		var out bytes.Buffer
		if err := run(t.Context(), daemon.Env{Args: []string{"origin", "-format=json", "9/baseos", "-config=" + w.config}, Stdout: &out}); err != nil {
			t.Fatal(err)
		}
		var list []jsonTruth
		if err := json.Unmarshal(out.Bytes(), &list); err != nil {
			t.Fatal(err)
		}
		if len(list) != 1 || list[0].Key.Repo != "baseos" || len(list[0].Generations) != 3 || !list[0].Expired || len(list[0].Decisions) != 1 {
			t.Errorf("printed %s", &out)
		}
		out.Reset()
		err := run(t.Context(), daemon.Env{Args: []string{"origin", "-format=json", "-config=" + w.config, "accept", "9/crb"}, Stdout: &out})
		var outcomes []outcome
		if json.Unmarshal(out.Bytes(), &outcomes) != nil || len(outcomes) != 1 || !outcomes[0].Refused || err == nil {
			t.Errorf("%v, printed %s", err, &out)
		}
	})
	t.Run("misuse", func(t *testing.T) {
		for _, tt := range []struct {
			args []string
			want string
		}{
			{[]string{"origin"}, "missing -config: write -config checker.yml"},
			{[]string{"origin", "-config", w.config, "expire"}, "expire of what? write VERSION/REPO/ARCH"},
			{[]string{"origin", "-config", w.config, "accept", "9/extras"}, `no repository "9/extras"; write VERSION/REPO/ARCH, such as 9.8/baseos/x86_64`},
			{[]string{"origin", "-config", w.config, "[/x"}, "is no pattern"},
			{[]string{"origin", "-config", w.config, "-format", "xml"}, "write text or json"},
		} {
			if err := run(t.Context(), daemon.Env{Args: tt.args, Stdout: new(bytes.Buffer)}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("checker %q: %v, want %q", tt.args, err, tt.want)
			}
		}
	})
}

// While syncer publishes generation after generation, whoever asks without a pause,
// by path and over HTTP, believes whole generations in their order and nothing
// else, and finds nothing wrong.
func TestPublishWhileTheOriginIsAsked(t *testing.T) {
	testworld.Need(t, "rsync")
	w := newTier0(t)
	dest := t.TempDir()
	server := httptest.NewServer(http.FileServer(http.Dir(dest)))
	t.Cleanup(server.Close)
	repos := map[string]state.Key{
		"BaseOS":    {Version: "9.8", Repo: "baseos", Arch: "x86_64"},
		"AppStream": {Version: "9.8", Repo: "appstream", Arch: "x86_64"},
		"CRB":       {Version: "9.8", Repo: "crb", Arch: "x86_64"},
	}
	published := map[state.Key][]state.Hash256{} // oldest first
	publish := func(revision int) {
		t.Helper()
		for repo, k := range repos {
			if revision > 10 && repo == "CRB" && revision%2 == 0 {
				continue // not every one changes every time
			}
			w.compose(repo, revision)
			text, err := os.ReadFile(filepath.Join(w.dir(repo), "repodata", "repomd.xml"))
			if err != nil {
				t.Fatal(err)
			}
			published[k] = append(published[k], sha256.Sum256(text))
		}
		if _, err := syncer.Publish(t.Context(), syncer.Job{Source: w.tree, Dests: []string{dest}, MaxDelete: -1}); err != nil {
			t.Fatal(err)
		}
	}
	publish(10)

	_, n, err := readSettings(w.config)
	if err != nil {
		t.Fatal(err)
	}
	type view struct {
		base     string
		believed map[state.Key][]state.Hash256 // oldest first
		events   []state.Event
		polls    atomic.Int32
	}
	views := []*view{{base: dest}, {base: server.URL}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, len(views))
	for _, v := range views {
		v.believed = map[state.Key][]state.Hash256{}
		go func() {
			o, err := checker.NewOrigin(checker.OriginOptions{Network: n, Tier0s: checker.Origins{"main": {v.base}}})
			if err != nil {
				done <- err
				return
			}
			defer o.Close()
			for now := time.Now(); ; now = now.Add(time.Minute) { // whenever it is asked, all is due
				truth, events, err := o.Poll(ctx, now)
				if err != nil {
					done <- nil
					return
				}
				for k, tr := range truth {
					have := v.believed[k]
					if g := tr.Newest(); g != nil && (len(have) == 0 || have[len(have)-1] != g.SHA256) {
						v.believed[k] = append(have, g.SHA256)
					}
				}
				v.events = append(v.events, events...)
				v.polls.Add(1)
			}
		}()
	}
	// Each looks at each generation at least twice, so that none is left out.
	seen := func() {
		t.Helper()
		for _, v := range views {
			for was := v.polls.Load(); v.polls.Load() < was+2; {
				time.Sleep(time.Millisecond)
			}
		}
	}
	seen()
	for revision := 11; revision < 14; revision++ {
		publish(revision)
		seen()
	}
	cancel()
	for range views {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range views {
		for k, want := range published {
			// What was believed when: a quick machine asks for so many minutes that the
			// first ones are forgotten already.
			got := v.believed[k]
			if !slices.Equal(got, want) {
				t.Errorf("%s: %s: believed %d generations, want the %d that were published:\n%v\n%v", v.base, k, len(got), len(want), got, want)
			}
		}
		publications := 0
		for _, e := range v.events {
			if e.Problem != nil {
				t.Errorf("%s: %v: %s", v.base, e.Keys, e.Problem.Reason)
			}
			if e.Kind == state.Published {
				publications++
			}
		}
		if publications != 4 {
			t.Errorf("%s: %d publications were told, want 4", v.base, publications)
		}
	}
}

func TestOriginSettings(t *testing.T) {
	type settings struct {
		Origin checker.Origins `yaml:"origin"`
	}
	for _, tt := range []struct {
		name, text string
		want       checker.Origins
		err        string
	}{
		{"one URL is that of the main tree", "origin: https://tier0.example.org/", checker.Origins{"main": {"https://tier0.example.org/"}}, ""},
		{"several are tier0s of the main tree", "origin: [https://a.example.org/, /srv/b]", checker.Origins{"main": {"https://a.example.org/", "/srv/b"}}, ""},
		{"a relative path is below the settings", "origin: tree", checker.Origins{"main": {"/etc/meridian/tree"}}, ""},
		{"trees", "origin: {main: /srv/a, kitten: [/srv/k, file:///srv/l], vault: https://vault.example.org/}",
			checker.Origins{"main": {"/srv/a"}, "kitten": {"/srv/k", "file:///srv/l"}, "vault": {"https://vault.example.org/"}}, ""},
		{"something else", "origin: {main: {url: x}}", nil, "write origin: https://tier0.example.org/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s settings
			err := strictyaml.Unmarshal("checker.yml", []byte(tt.text), &s)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "checker.yml") {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Origin.Rooted("/etc/meridian"); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestOriginShowsWhatIsWithdrawn(t *testing.T) {
	c := &truth{snap: &state.Snapshot{Taken: time.Now(), Truth: map[state.Key]state.Truth{
		circleKey: {Withdrawn: "it eats disks", Generations: []state.Generation{{Revision: "2"}, {Revision: "1"}}},
	}}}
	var out strings.Builder
	if err := c.print(&out, []state.Key{circleKey}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), `newest, withdrawn from everybody: "it eats disks"`); n != 1 {
		t.Errorf("said %d times:\n%s", n, &out)
	}
}
