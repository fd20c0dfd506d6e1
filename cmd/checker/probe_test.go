package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"meridian/builder/repodata"
	"meridian/checker"
	"meridian/checker/state"
	"meridian/cmd/internal/daemon"
	"meridian/internal/testworld"
	"meridian/schema"
)

const probeNetwork = `
config_version: 3
allowed_outdate: 12h
versions: ["9", "9.8"]
duplicated_versions: {"9": "9.8"}
arches: {"9": [x86_64]}
repos:
  - {name: baseos, path: BaseOS/$basearch/os/}
  - {name: appstream, path: AppStream/$basearch/os/}
`

// writeFiles writes files below dir, by their paths.
func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for path, text := range files {
		path = filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// mirrorTree returns the files of a small mirror: two repositories with a package
// each, images, TIME.
func mirrorTree(t *testing.T, revision int, made time.Time) map[string]string {
	t.Helper()
	files := map[string]string{"TIME": fmt.Sprintln(made.Unix())}
	for _, repo := range []string{"BaseOS", "AppStream"} {
		const rpm = "the bytes of a package"
		list := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" packages="1"><package type="rpm"><name>hello</name>
<checksum type="sha256" pkgid="YES">%x</checksum><size package="%d"/><location href="Packages/hello.rpm"/></package></metadata>`, sha256.Sum256([]byte(rpm)), len(rpm))
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		w.Write([]byte(list))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		md := repodata.Repomd{Revision: fmt.Sprint(revision), Data: []repodata.Data{{
			Type: "primary", Location: "repodata/primary.xml.gz", Timestamp: made.Unix(), Size: int64(packed.Len()), OpenSize: -1,
			Checksum: repodata.Checksum{Type: "sha256", Value: fmt.Sprintf("%x", sha256.Sum256(packed.Bytes()))},
		}}}
		dir := "9.8/" + repo + "/x86_64/os/"
		files[dir+"Packages/hello.rpm"] = rpm
		files[dir+"repodata/primary.xml.gz"] = packed.String()
		files[dir+"repodata/repomd.xml"] = string(md.Marshal())
	}
	const iso = "an image"
	files["9.8/isos/x86_64/boot.iso"] = iso
	files["9.8/isos/x86_64/CHECKSUM"] = fmt.Sprintf("# boot.iso: %d bytes\nSHA256 (boot.iso) = %x\n", len(iso), sha256.Sum256([]byte(iso)))
	return files
}

// runProbe runs the command as a person would, and returns what it printed.
func runProbe(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	err := run(t.Context(), daemon.Env{Args: append([]string{"probe"}, args...), Stdout: &out, Stderr: &errs})
	if err != nil {
		status = 1
		if err.Error() != daemon.Exit(1).Error() {
			errs.WriteString(err.Error())
		}
	}
	return status, out.String(), errs.String()
}

func TestProbe(t *testing.T) {
	now := time.Now()
	whole := mirrorTree(t, 200, now.Add(-time.Hour))
	edited := func(edit func(map[string]string)) map[string]string {
		files := map[string]string{}
		for k, v := range whole {
			files[k] = v
		}
		edit(files)
		return files
	}
	const base, app = "9.8/BaseOS/x86_64/os/", "9.8/AppStream/x86_64/os/"
	for _, tt := range []struct {
		name   string
		files  map[string]string // that the mirror serves
		tier0  bool              // that it is compared with tier0
		older  map[string]string // what tier0 has, unless it is the whole tree
		more   string            // in the mirror's file
		status int
		want   []string
	}{
		{
			name: "a mirror that is fine", files: whole, tier0: true, status: 0,
			want: []string{"ok       http: works", "ok       IPv4: answers", "skipped  IPv6: the host has no such address", "ok       TIME: ", "UTC, 1h ago",
				"ok       repositories: 2 of 2", "ok       images: 1 of 1", "ok       some at random: 4 files are as repodata says", "7 ok, 1 skipped; 13 requests"},
		},
		{
			name: "a mirror that is fine, as far as it says itself", files: whole, status: 0,
			want: []string{"ok       repositories: 2 of 2", "ok       images: 1 of 1"},
		},
		{
			name: "a repository is missing", tier0: true, status: 1,
			files: edited(func(f map[string]string) { delete(f, app+"repodata/repomd.xml") }),
			want: []string{"failed   9.8/appstream/x86_64: the mirror does not have it: status 404", "status 404; from 127.0.0.1:", "$ curl -q -g -sS -i --max-time 30 -H 'Cache-Control: no-cache' http://127.0.0.1:",
				"Sync it too; if the mirror is not to have it, write so below carries: in its file.", "ok       repositories: 1 of 2"},
		},
		{
			name: "a repository is missing from what a partial mirror promises", tier0: true, more: "carries: {versions: [\"9.8\"], arches: [x86_64]}\n", status: 1,
			files: edited(func(f map[string]string) { delete(f, app+"repodata/repomd.xml") }),
			want:  []string{"failed   9.8/appstream/x86_64"},
		},
		{
			name: "a repository is missing, perhaps everywhere", status: 0,
			files: edited(func(f map[string]string) { delete(f, app+"repodata/repomd.xml") }),
			want:  []string{"warning  9.8/appstream/x86_64: the mirror does not have it: status 404", "Whether tier0 has it is not known here."},
		},
		{
			name: "primary is missing", tier0: true, status: 1,
			files: edited(func(f map[string]string) { delete(f, base+"repodata/primary.xml.gz") }),
			want:  []string{"failed   9.8/baseos/x86_64: repodata/primary.xml.gz is missing", "$ curl -q -g -sS -I", "Sync packages first"},
		},
		{
			name: "primary is short", status: 1,
			files: edited(func(f map[string]string) { f[base+"repodata/primary.xml.gz"] += "x" }),
			want:  []string{"failed   9.8/baseos/x86_64: repodata/primary.xml.gz is not as published: it is ", "bytes long"},
		},
		{
			name: "primary has other bytes, and is no gzip any more", tier0: true, status: 1,
			files: edited(func(f map[string]string) {
				p := f[base+"repodata/primary.xml.gz"]
				f[base+"repodata/primary.xml.gz"] = p[:len(p)-8] + "XXXX" + p[len(p)-4:] // the checksum of gzip itself
			}),
			want: []string{"failed   9.8/baseos/x86_64: repodata/primary.xml.gz is not as published: its sha256 is "},
		},
		{
			name: "a package has other bytes", status: 1,
			files: edited(func(f map[string]string) { f[base+"Packages/hello.rpm"] = "the bytes of a PACKAGE" }),
			want:  []string{"failed   9.8/baseos/x86_64: Packages/hello.rpm is not as published: its sha256 is "},
		},
		{
			name: "web pages in place of everything", tier0: true, status: 1,
			files: map[string]string{"9.8/BaseOS/x86_64/os/repodata/repomd.xml": "<!DOCTYPE html>\n<title>Parked</title>", "9.8/AppStream/x86_64/os/repodata/repomd.xml": "<html>"},
			want:  []string{"ok       http: works", "failed   9.8/baseos/x86_64: what is served as repomd.xml is something else", `document type, which no repomd.xml needs; it begins <!DOCTYPE html>\n<title>`},
		},
		{
			name: "an older generation that may still be handed out", tier0: true, status: 0, files: mirrorTree(t, 100, now.Add(-3*time.Hour)),
			want: []string{"warning  9.8/baseos/x86_64: tier0 has a newer repomd.xml"},
		},
		{
			name: "an older generation", tier0: true, older: mirrorTree(t, 150, now.Add(-20*time.Hour)), status: 1, files: mirrorTree(t, 100, now.Add(-100*time.Hour)),
			want: []string{"warning  TIME is from ", "100h ago; a mirror may be 12h behind", "failed   9.8/baseos/x86_64: tier0 has had a newer repomd.xml for more than 12h"},
		},
		{
			name: "an image is missing", status: 1,
			files: edited(func(f map[string]string) { delete(f, "9.8/isos/x86_64/boot.iso") }),
			want:  []string{"failed   9.8/isos/x86_64: boot.iso is missing"},
		},
		{
			name: "no images, and none are promised", tier0: true, more: "carries: {isos: false}\n", status: 0,
			files: edited(func(f map[string]string) { delete(f, "9.8/isos/x86_64/CHECKSUM") }),
			want:  []string{"ok       repositories: 2 of 2"},
		},
		{
			name: "a file with an error", files: whole, more: "bandwidth: much\n", status: 1,
			want: []string{`5: bandwidth: `, "ok       http: works"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			published := whole
			if tt.older != nil {
				published = tt.older
			}
			writeFiles(t, filepath.Join(dir, "tier0"), published)
			writeFiles(t, filepath.Join(dir, "mirror"), tt.files)
			s := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(dir, "mirror"))))
			t.Cleanup(s.Close)
			writeFiles(t, dir, map[string]string{
				"network.yml":   probeNetwork,
				"127.0.0.1.yml": fmt.Sprintf("name: 127.0.0.1\naddress: {http: %q}\nemail: admin@example.org\ngeolocation: {country: AT}\n%s", s.URL+"/", tt.more),
			})
			args := []string{"-network", filepath.Join(dir, "network.yml"), "-allow-private-addresses", filepath.Join(dir, "127.0.0.1.yml")}
			if tt.tier0 {
				args = append(args, "-origin", filepath.Join(dir, "tier0"))
			}
			status, out, errs := runProbe(t, args...)
			if status != tt.status || errs != "" {
				t.Errorf("status %d, standard error %q", status, errs)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("it does not say %q", want)
				}
			}
			if tt.status == 0 && strings.Contains(out, "failed") {
				t.Error("it says that something failed")
			}
			if t.Failed() {
				t.Log(out)
			}
			// The other format says the same.
			status, out, _ = runProbe(t, append(args, "-format=json")...)
			var list []jsonProbed
			if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
				t.Fatalf("%v in\n%s", err, out)
			}
			if status != tt.status || list[0].Failed != (tt.status == 1) || list[0].Mirror != "127.0.0.1" || list[0].Requests == 0 {
				t.Errorf("status %d, json %+v", status, list[0])
			}
		})
	}
}

func TestProbeOfAMirrorThatIsDown(t *testing.T) {
	dir := t.TempDir()
	nobody, err := testworld.FreeAddr("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, map[string]string{
		"network.yml":   probeNetwork,
		"127.0.0.1.yml": fmt.Sprintf("name: 127.0.0.1\naddress: {http: %q}\nemail: admin@example.org\ngeolocation: {country: AT}\n", "http://"+nobody+"/"),
		"broken.yml":    "name: [",
	})
	status, out, _ := runProbe(t, "-network", filepath.Join(dir, "network.yml"), "-allow-private-addresses", filepath.Join(dir, "127.0.0.1.yml"), filepath.Join(dir, "broken.yml"))
	for _, want := range []string{"failed   127.0.0.1: the mirror does not answer", "connection refused", "See whether the web server runs and can be reached from outside.\n", "1 failed; 2 requests", "the mirror is not asked before its file can be read"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if status != 1 {
		t.Errorf("status %d", status)
	}
	if t.Failed() {
		t.Log(out)
	}
}

func TestProbeNeverAsksPrivateAddressesByItself(t *testing.T) {
	dir := t.TempDir()
	asked := false
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	t.Cleanup(s.Close)
	writeFiles(t, dir, map[string]string{
		"network.yml":   probeNetwork,
		"127.0.0.1.yml": fmt.Sprintf("name: 127.0.0.1\naddress: {http: %q}\nemail: admin@example.org\ngeolocation: {country: AT}\n", s.URL+"/"),
	})
	status, out, _ := runProbe(t, "-network", filepath.Join(dir, "network.yml"), filepath.Join(dir, "127.0.0.1.yml"))
	if status != 1 || !strings.Contains(out, "not a public address") || asked {
		t.Errorf("status %d, asked: %v\n%s", status, asked, out)
	}
}

// With the settings of a checker, the network, the origin and private addresses
// are what they say. A repository with real packages passes every check.
func TestProbeWithSettingsOfAChecker(t *testing.T) {
	w := newTier0(t)
	for _, repo := range []string{"BaseOS", "AppStream", "CRB"} {
		w.compose(repo, 1)
	}
	s := httptest.NewServer(http.FileServer(http.Dir(w.tree)))
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "127.0.0.1.yml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "name: 127.0.0.1\naddress: {http: %q}\nemail: admin@example.org\ngeolocation: {country: AT}\ncarries: {isos: false}\n", s.URL+"/"), 0o644); err != nil {
		t.Fatal(err)
	}
	settings, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.config, append(settings, "allow_private_addresses: true\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	status, out, errs := runProbe(t, "-config", w.config, file)
	if status != 0 || errs != "" || !strings.Contains(out, "ok       some at random:") {
		t.Errorf("status %d, %s\n%s", status, errs, out)
	}
}

func TestProbeIsInterrupted(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("interrupted")
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel(stop)
		<-r.Context().Done()
	}))
	t.Cleanup(s.Close)
	writeFiles(t, dir, map[string]string{
		"network.yml":   probeNetwork,
		"127.0.0.1.yml": fmt.Sprintf("name: 127.0.0.1\naddress: {http: %q}\nemail: admin@example.org\ngeolocation: {country: AT}\n", s.URL+"/"),
	})
	var out bytes.Buffer
	err := run(ctx, daemon.Env{
		Args:   []string{"probe", "-network", filepath.Join(dir, "network.yml"), "-allow-private-addresses", filepath.Join(dir, "127.0.0.1.yml")},
		Stdout: &out, Stderr: &out,
	})
	if !errors.Is(err, context.Canceled) || out.Len() > 0 {
		t.Errorf("%v, and printed %q", err, out.String())
	}
}

// One line with what to do, and not one for each repository.
func TestProbeWithAWrongOrigin(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"network.yml":   probeNetwork,
		"empty/TIME":    "1767225600\n",
		"127.0.0.1.yml": "name: 127.0.0.1\naddress: {http: \"http://127.0.0.1:9/\"}\nemail: admin@example.org\ngeolocation: {country: AT}\n",
	})
	for _, tier0 := range []string{"nowhere", "empty"} {
		var out bytes.Buffer
		err := run(t.Context(), daemon.Env{
			Args:   []string{"probe", "-network", filepath.Join(dir, "network.yml"), "-allow-private-addresses", "-origin", filepath.Join(dir, tier0), filepath.Join(dir, "127.0.0.1.yml")},
			Stdout: &out, Stderr: &out,
		})
		if err == nil || out.Len() > 0 || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "correct -origin") {
			t.Errorf("%s: %v, and printed %q", tier0, err, out.String())
		}
	}
}

// What is not told in full is named before the next line, each once.
func TestTroublesThatAreNotToldInFull(t *testing.T) {
	var checks []checker.Check
	for _, name := range []string{"a", "a", "b", "a", "c", "c", "d"} {
		checks = append(checks, checker.Check{Group: "files", Name: name, Result: checker.Failed, Text: "wrong", Problem: &state.Problem{}})
	}
	checks = append(checks, checker.Check{Group: "files", Name: "some at random", Result: checker.Passed, Text: "fine"})
	var b strings.Builder
	printGroup(&b, checks)
	want := "  failed   a: wrong\n  failed   a: wrong\n  failed   b: wrong\n           and so on: c d and 2 more of these\n  ok       some at random: fine\n"
	if b.String() != want {
		t.Errorf("printed\n%swant\n%s", &b, want)
	}
}

// The report as a whole, as people see it.
func TestReportOfAProbe(t *testing.T) {
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	missing := func(k string) checker.Check {
		return checker.Check{Group: "repositories", Name: k, Result: checker.Failed, Text: k + ": the mirror does not have it: status 404", Problem: &state.Problem{
			Remedy: "Sync it too.", Evidence: &state.Evidence{At: at, Method: "GET", URL: "http://mirror.example.org/" + k, Status: 404, Remote: "198.51.101.1:80"},
		}}
	}
	checks := []checker.Check{
		{Group: "ways", Name: "http", Result: checker.Passed, Text: "works"},
		{Group: "ways", Name: "https", Result: checker.Failed, Text: "https is not secure: its certificate is bad, or it leads to http", Problem: &state.Problem{
			Remedy:   "Renew the certificate.",
			Evidence: &state.Evidence{At: at, Method: "GET", URL: "https://mirror.example.org/TIME", Family: "ipv6", Remote: "[2001:db8::1]:443", Error: "tls: certificate has expired"},
		}},
		{Group: "ways", Name: "IPv6", Result: checker.Skipped, Text: "there is no way from here to such an address"},
		{Group: "markers", Name: "TIME", Result: checker.Warning, Text: "TIME cannot be read", Problem: &state.Problem{
			Remedy:   "Sync the root of the tree too.",
			Evidence: &state.Evidence{At: at, Method: "GET", URL: "http://mirror.example.org/it's", Status: 200, Final: "http://mirror.example.org/login", Error: "TIME has \"<html>\"", Body: "<html>" + strings.Repeat("x", 100)},
		}},
		{Group: "repositories", Name: "9.8/a/x86_64", Result: checker.Passed, Text: "the newest"},
		{Group: "repositories", Name: "9.8/b/x86_64", Result: checker.Skipped, Text: "tier0 does not have it"},
		{Group: "repositories", Name: "9.8/c/x86_64", Result: checker.Skipped, Text: "tier0 does not have it"},
	}
	for i := range 8 {
		checks = append(checks, missing(fmt.Sprintf("9.8/r%d/x86_64", i)))
	}
	all := []probed{
		{
			file:     "mirror.example.org.yml",
			mirror:   &schema.Mirror{Name: "mirror.example.org"},
			problems: []schema.Problem{{File: "mirror.example.org.yml", Line: 3, Path: "email", Text: "nobody can be told when the mirror breaks", Remedy: "write email: and an address that people read"}},
			found:    &checker.Examination{Checks: checks, Took: 2340 * time.Millisecond, Observation: &checker.Observation{Requests: 31, Bytes: 1234567}},
		},
		{file: "broken.yml", problems: []schema.Problem{{File: "broken.yml", Line: 1, Error: true, Text: "the file is not YAML", Remedy: "correct it"}}},
	}
	for name, print := range reports {
		golden := filepath.Join("testdata", "probe."+name)
		var got bytes.Buffer
		if err := print(&got, all); err != nil {
			t.Fatal(err)
		}
		if os.Getenv("UPDATE_SCRIPTS") != "" {
			if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("the report is\n%s\nwant, as in %s,\n%s", got.Bytes(), golden, want)
		}
	}
}

func TestProgressOfAProbe(t *testing.T) {
	var out bytes.Buffer
	a := &asked{to: &out}
	a.begin("mirror.example.org")
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { a.asking("GET", "http://mirror.example.org/"+strings.Repeat("x", 100)+"/\x1b[2Jrepomd.xml") })
	}
	both.Wait()
	a.end()
	a.end()
	if got := out.String(); strings.Count(got, "\x1b") != strings.Count(got, "\x1b[K") || !strings.HasSuffix(got, "\r\x1b[K") || !strings.Contains(got, "   1  ") {
		t.Errorf("the terminal gets %q", got)
	}
	out.Reset()
	silent := &asked{to: &out, mute: true}
	silent.asking("GET", "http://mirror.example.org/")
	silent.end()
	if out.Len() > 0 {
		t.Errorf("what is no terminal gets %q", out.String())
	}
}
