package checker

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meridian/builder/repodata"
	"meridian/checker/state"
	"meridian/schema"
)

// Each row is an observation of a mirror that is fine but for one thing, and what
// is said of that thing.
func TestExaminationOfAnObservation(t *testing.T) {
	n := probeNetwork(t)
	m := &schema.Mirror{Name: "mirror.example.org", Address: mirrorURLs}
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	shown := func(status int) *state.Evidence {
		return &state.Evidence{At: at, Method: "GET", URL: mirrorURLs.HTTP, Status: status}
	}
	iso := state.Key{Version: "9.8", Repo: isos, Arch: "x86_64"}
	sum := func(b byte) (s state.Hash256) { s[0] = b; return s }
	repomd := func(o *Observation, edit func(*KeySeen)) {
		seen := o.Keys[mirrorKey]
		edit(&seen)
		o.Keys[mirrorKey] = seen
	}
	for _, tt := range []struct {
		name  string
		edit  func(o *Observation)
		truth map[state.Key]state.Truth // in place of one that is like the mirror
		want  string                    // RESULT NAME: TEXT of what is not "ok"; "" if all is
	}{
		{name: "a mirror that is fine", edit: func(*Observation) {}},
		{
			name: "a certificate that is bad",
			edit: func(o *Observation) { o.Schemes["https"] = Answer{Insecure: true, Evidence: shown(0)} },
			want: "failed https: https is not secure: its certificate is bad, or it leads to http",
		},
		{
			name: "a certificate that ends soon",
			edit: func(o *Observation) {
				o.Schemes["https"] = Answer{OK: true, TLSBegins: at.Add(-80 * 24 * time.Hour), TLSExpires: at.Add(10 * 24 * time.Hour)}
			},
			want: "warning https: the certificate of https ends on 11 July 2026, 12:00 UTC",
		},
		{
			name: "rsync that cannot be tried",
			edit: func(o *Observation) { o.Schemes["rsync"] = Answer{Untested: true} },
			want: "skipped rsync: it cannot be tried: rsync is not installed here, or there is no way from here to its address",
		},
		{
			name: "a module that is not there",
			edit: func(o *Observation) { o.Schemes["rsync"] = Answer{Evidence: shown(0)} },
			want: "failed rsync: rsync does not work",
		},
		{
			name: "IPv6 that does not answer",
			edit: func(o *Observation) { o.Families[IPv6] = Answer{Evidence: shown(0)} },
			want: "failed IPv6: the IPv6 address does not answer",
		},
		{
			name: "IPv6 with another site",
			edit: func(o *Observation) { o.Families[IPv6] = Answer{Evidence: shown(404)} },
			want: "failed IPv6: over IPv6 the mirror serves something else",
		},
		{
			name: "IPv4 that does not answer",
			edit: func(o *Observation) { o.Families[IPv4] = Answer{Evidence: shown(0)} },
			want: "failed IPv4: the IPv4 address does not answer",
		},
		{
			name: "IPv6 that this machine does not have",
			edit: func(o *Observation) { o.Families[IPv6] = Answer{Untested: true} },
			want: "skipped IPv6: there is no way from here to such an address",
		},
		{
			name: "no IPv6 address",
			edit: func(o *Observation) { delete(o.Families, IPv6) },
			want: "skipped IPv6: the host has no such address",
		},
		{
			name: "another generation over IPv6",
			edit: func(o *Observation) { o.Families[IPv6] = Answer{OK: true, SHA256: sum(9), Evidence: shown(200)} },
			want: "warning same files: http and https, or IPv4 and IPv6, serve different files",
		},
		{
			name: "another host after redirects",
			edit: func(o *Observation) {
				repomd(o, func(k *KeySeen) { k.OtherHost = "cdn.example.net" })
			},
			want: "warning redirects: requests are redirected to cdn.example.net",
		},
		{
			name: "no TIME",
			edit: func(o *Observation) { o.Time, o.TimeEvidence = time.Time{}, shown(404) },
			want: "warning TIME: TIME cannot be read",
		},
		{
			name: "a TIME in the future",
			edit: func(o *Observation) { o.Time = at.Add(time.Hour) },
			want: "warning TIME: TIME is in the future (2026-07-01T13:00:00Z); it is not believed",
		},
		{
			name: "a clock that is wrong",
			edit: func(o *Observation) { o.Clock = -time.Hour },
			want: "warning clock: the clock of the web server is wrong by more than ten minutes; what it says of the age of files misleads caches",
		},
		{
			name: "two servers out of step",
			edit: func(o *Observation) {
				repomd(o, func(k *KeySeen) { k.Again = &KeySeen{Outcome: Served, SHA256: sum(9), Evidence: shown(200)} })
			},
			want: "failed 9.8/baseos/x86_64: 9.8/baseos/x86_64: one question after another is answered with different files",
		},
		{
			name: "a second server that does not answer",
			edit: func(o *Observation) {
				repomd(o, func(k *KeySeen) { k.Again = &KeySeen{Outcome: Unreachable, Evidence: shown(0)} })
			},
		},
		{
			name: "a repository that is refused",
			edit: func(o *Observation) { o.Keys[mirrorKey] = KeySeen{Outcome: Refused, Evidence: shown(403)} },
			want: "failed 9.8/baseos/x86_64: 9.8/baseos/x86_64: repomd.xml is refused with status 403",
		},
		{
			name: "a repository that does not answer",
			edit: func(o *Observation) { o.Keys[mirrorKey] = KeySeen{Outcome: Unreachable, Evidence: shown(0)} },
			want: "failed 9.8/baseos/x86_64: 9.8/baseos/x86_64: repomd.xml is not answered",
		},
		{
			name: "a repository that was not asked for",
			edit: func(o *Observation) { delete(o.Keys, mirrorKey) },
			want: "skipped 9.8/baseos/x86_64: it was not asked for: too much has gone wrong before, or taken too long",
		},
		{
			name:  "a repository that tier0 does not have",
			edit:  func(o *Observation) { o.Keys[mirrorKey] = KeySeen{Outcome: Missing, Evidence: shown(404)} },
			truth: map[state.Key]state.Truth{mirrorKey: {Absent: true}},
			want:  "skipped 9.8/baseos/x86_64: tier0 does not have it",
		},
		{
			name: "a known revision with other bytes",
			edit: func(o *Observation) { repomd(o, func(k *KeySeen) { k.SHA256 = sum(7) }) },
			want: "failed 9.8/baseos/x86_64: 9.8/baseos/x86_64: repomd.xml says that it is revision 1780000000, and has other bytes than that of tier0",
		},
		{
			name: "a generation that tier0 does not have",
			edit: func(o *Observation) {
				repomd(o, func(k *KeySeen) { k.SHA256, k.Revision, k.Timestamp = sum(7), "1790000000", 1790000000 })
			},
			want: "warning 9.8/baseos/x86_64: 9.8/baseos/x86_64: revision 1790000000 is newer than the newest that tier0 has published (1780000000)",
		},
		{
			name: "several files of metadata",
			edit: func(o *Observation) {
				repomd(o, func(k *KeySeen) {
					k.FilesWrong = []FileSeen{{Path: "repodata/a", Outcome: Missing, Evidence: shown(404)}, {Path: "repodata/b", Outcome: Missing}}
				})
			},
			want: "failed 9.8/baseos/x86_64: 9.8/baseos/x86_64: repodata/a is missing, and 1 more file is wrong",
		},
		{
			name: "images that are not those of tier0",
			edit: func(o *Observation) { o.Keys[iso] = KeySeen{Outcome: Served, SHA256: sum(7), Evidence: shown(200)} },
			want: "failed 9.8/isos/x86_64: 9.8/isos/x86_64: CHECKSUM is not that of tier0",
		},
		{
			name:  "no images, as at tier0",
			edit:  func(o *Observation) { o.Keys[iso] = KeySeen{Outcome: Missing, Evidence: shown(404)} },
			truth: map[state.Key]state.Truth{iso: {Absent: true}},
			want:  "skipped 9.8/isos/x86_64: tier0 does not have them",
		},
		{
			name:  "no images, and tier0 is not known",
			edit:  func(o *Observation) { o.Keys[iso] = KeySeen{Outcome: Missing, Evidence: shown(404)} },
			truth: map[state.Key]state.Truth{},
			want:  "skipped 9.8/isos/x86_64: there are none, and whether tier0 has them is not known here",
		},
		{
			name: "a package that does not answer",
			edit: func(o *Observation) {
				o.Files = []FileSeen{{Key: mirrorKey, Path: "Packages/a.rpm", Outcome: Unreachable, Evidence: shown(0)}}
			},
			want: "failed 9.8/baseos/x86_64: 9.8/baseos/x86_64: Packages/a.rpm is not answered",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ok := Answer{OK: true, SHA256: sum(1)}
			secure := ok
			secure.TLSBegins, secure.TLSExpires = at.Add(-24*time.Hour), at.Add(80*24*time.Hour)
			o := &Observation{
				At: at, Time: at.Add(-time.Hour), Keys: map[state.Key]KeySeen{},
				Schemes:  map[string]Answer{"http": ok, "https": secure, "rsync": {OK: true}},
				Families: map[Family]Answer{IPv4: ok, IPv6: ok},
				Files:    []FileSeen{{Key: mirrorKey, Path: "Packages/a.rpm", Outcome: Served, Content: true}},
			}
			truth := map[state.Key]state.Truth{}
			for _, k := range slices.Concat(KeysOf(n, m), ISOKeysOf(n, m)) {
				o.Keys[k] = KeySeen{Outcome: Served, SHA256: sum(1), Revision: "1780000000", Timestamp: 1780000000}
				truth[k] = state.Truth{Generations: []state.Generation{{SHA256: sum(1), Revision: "1780000000", Timestamp: 1780000000, FirstSeen: at.Add(-time.Hour)}}}
			}
			if tt.truth != nil {
				truth = tt.truth
			}
			tt.edit(o)
			e := &examiner{o: o, n: n, m: m, truth: truth}
			e.look()
			var got []string
			for _, c := range e.checks {
				if (c.Problem != nil) != (c.Result == Failed || c.Result == Warning) || c.Text == "" {
					t.Errorf("a check is %+v", c)
				}
				if c.Problem != nil && (c.Problem.Remedy == "" || strings.Contains(c.Problem.Remedy, itselfAgain)) {
					t.Errorf("the remedy of %q is %q", c.Text, c.Problem.Remedy)
				}
				if c.Result != Passed {
					got = append(got, fmt.Sprintf("%s %s: %s", c.Result, c.Name, c.Text))
				}
			}
			if strings.Join(got, "\n") != tt.want {
				t.Errorf("it is said\n%s\nwant\n%s", strings.Join(got, "\n"), tt.want)
			}
		})
	}
}

// Files of a mirror are compared with its own repodata, from repomd.xml to the
// packages.
func TestVisitComparesAMirrorWithItself(t *testing.T) {
	n := probeNetwork(t)
	rpm := []byte("the bytes of a package")
	entry := strings.Replace(listed("Packages/hello.rpm", len(rpm)), fmt.Sprintf("%064x", len(rpm)), hexSum(rpm), 1)
	primary := gzipped(t, primaryList(entry))
	group := []byte("<comps/>")
	md := repodata.Repomd{Revision: "1", Data: []repodata.Data{
		{Type: "group", Location: "repodata/comps.xml", Size: int64(len(group)), OpenSize: -1, Checksum: repodata.Checksum{Type: "sha256", Value: hexSum(group)}},
		*primaryData("repodata/primary.xml.gz", primary),
	}}
	const dir = "alma/9.8/BaseOS/x86_64/os/"
	good := map[string][]byte{
		dir + "repodata/repomd.xml": md.Marshal(), dir + "repodata/primary.xml.gz": primary, dir + "repodata/comps.xml": group, dir + "Packages/hello.rpm": rpm,
	}
	changed := bytes.Clone(primary)
	changed[len(changed)-1] ^= 1 // of the length that gzip has at its end
	for _, tt := range []struct {
		name  string
		path  string
		bytes []byte // nil: missing
		asked int
		wrong string // of files of metadata, by size
		files string // PATH: OUTCOME WRONG of those compared, the right ones without
	}{
		{name: "all is there", path: dir + "other", asked: 2, files: "Packages/hello.rpm, repodata/primary.xml.gz"},
		{name: "another package", path: dir + "Packages/hello.rpm", bytes: []byte("the bytes of A package"), asked: 2, files: "Packages/hello.rpm: its sha256 is, repodata/primary.xml.gz"},
		{name: "no package", path: dir + "Packages/hello.rpm", asked: 2, files: "Packages/hello.rpm: 404, repodata/primary.xml.gz"},
		{name: "another primary", path: dir + "repodata/primary.xml.gz", bytes: changed, asked: 2, files: "repodata/primary.xml.gz: its sha256 is"},
		{name: "no primary", path: dir + "repodata/primary.xml.gz", asked: 2, wrong: "repodata/primary.xml.gz", files: "repodata/primary.xml.gz: 404"},
		{name: "no groups", path: dir + "repodata/comps.xml", asked: 2, wrong: "repodata/comps.xml", files: "Packages/hello.rpm, repodata/primary.xml.gz"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string][]byte{}
			for path, body := range good {
				files[path] = body
			}
			if tt.bytes != nil {
				files[tt.path] = tt.bytes
			} else {
				delete(files, tt.path)
			}
			p, m := probeOf(t, &tree{files: files})
			o := p.Visit(t.Context(), m, Plan{Network: n, Own: true, Sample: 5, Keys: []KeyPlan{{Key: mirrorKey}}})
			seen := o.Keys[mirrorKey]
			var wrong []string
			for _, f := range seen.FilesWrong {
				wrong = append(wrong, f.Path)
			}
			if seen.Outcome != Served || seen.FilesAsked != tt.asked || strings.Join(wrong, " ") != tt.wrong {
				t.Errorf("seen as %+v, wrong %q", seen, wrong)
			}
			var compared []string
			for _, f := range o.Files {
				if f.Path == "repodata/comps.xml" {
					continue // whether it is among them is chance
				}
				text := f.Path
				switch {
				case f.Outcome == Missing:
					text += ": 404"
				case strings.Contains(f.Wrong, "sha256 is"):
					text += ": its sha256 is"
				case strings.Contains(f.Wrong, "its sha256 is"):
					text += ": its sha256 is"
				case f.Wrong != "":
					text += ": " + f.Wrong
				}
				if (f.Evidence == nil) != (text == f.Path) {
					t.Errorf("%s has the evidence %+v", text, f.Evidence)
				}
				compared = append(compared, text)
			}
			slices.Sort(compared)
			if got := strings.Join(compared, ", "); got != tt.files {
				t.Errorf("compared: %s; want %s", got, tt.files)
			}
		})
	}
}

func TestReadTruth(t *testing.T) {
	n := probeNetwork(t)
	dir := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	good := repomdFile("200", 10)
	write("9.8/BaseOS/x86_64/os/repodata/repomd.xml", string(good))
	write("9.8/AppStream/x86_64/os/repodata/repomd.xml", "<html>")
	write("9.8/isos/x86_64/CHECKSUM", "SHA256 (a.iso) = "+strings.Repeat("0a", 32)+"\n")
	keys := slices.Concat(Keys(n), ISOKeys(n))
	truth, err := ReadTruth(t.Context(), n, Origins{"main": {dir}}, keys, ProbeOptions{})
	if err == nil || !strings.Contains(err.Error(), "9.8/appstream/x86_64 at "+dir) || strings.Count(err.Error(), "\n") != 0 {
		t.Errorf("error %v", err)
	}
	for k, tr := range truth {
		g := tr.Newest()
		switch k.String() {
		case "9.8/baseos/x86_64":
			if g == nil || g.Revision != "200" || g.Size != int64(len(good)) || !g.FirstSeen.Equal(time.Unix(1767225600, 0)) {
				t.Errorf("%v is %+v", k, tr)
			}
		case "9.8/isos/x86_64":
			if g == nil || g.SHA256 == (state.Hash256{}) {
				t.Errorf("%v is %+v", k, tr)
			}
		default:
			if !tr.Absent || k.Version != "9.8" { // the module has no tier0
				t.Errorf("%v is %+v", k, tr)
			}
		}
	}
	if len(truth) != 5 {
		t.Errorf("%d of 6 keys of the main tree: %v", len(truth), truth)
	}
	if _, err := ReadTruth(t.Context(), n, Origins{"other": {dir}}, keys, ProbeOptions{}); err == nil {
		t.Error("a tree that the network does not have is taken")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if truth, err := ReadTruth(ended, n, Origins{"main": {"http://127.0.0.1:9/"}}, keys, ProbeOptions{}); err == nil || len(truth) > 0 {
		t.Errorf("after the end: %v, %v", truth, err)
	}
}
