package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meridian/checker"
	"meridian/checker/state"
	"meridian/cmd/internal/daemon"
)

// readyWorld is a directory with the settings of a checker, three mirrors, and
// what was found out about a coming version.
func readyWorld(t *testing.T, edit func(*state.Snapshot)) (config string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("network.yml", "config_version: 3\nmirrors_dir: mirrors.d\nallowed_outdate: 12h\nversions: [\"9\", \"9.8\"]\nduplicated_versions: {\"9\": \"9.8\"}\n"+
		"arches: {\"9\": [x86_64]}\nrequired_protocols: [http]\nrepos: [{name: baseos, path: BaseOS/$basearch/os/}]\n")
	write("checker.yml", "network: network.yml\norigin: tree\nstate: dir:state\npending_versions: [\"9.9\"]\nsecret_file: secret\n")
	write("secret", "a secret of sixteen bytes or more\n")
	for name, place := range map[string]string{"a.example": "DE", "b.example": "FR", "c.example": "JP"} {
		write("mirrors.d/"+name+".yml", "name: "+name+"\naddress: {http: http://"+name+"/}\nsponsor: X\nsponsor_url: https://x.example/\nemail: x@x.example\ngeolocation: {country: "+place+"}\n")
	}
	key := state.Key{Version: "9.9", Repo: "baseos", Arch: "x86_64"}
	isos := state.Key{Version: "9.9", Repo: "isos", Arch: "x86_64"}
	status := func(h state.Health) *state.Status {
		return &state.Status{Health: map[state.Key]state.Health{key: h, isos: state.Fresh}}
	}
	truth := state.Truth{Generations: []state.Generation{{Revision: "1"}}}
	snap := &state.Snapshot{
		Taken:   time.Now(),
		Mirrors: map[string]*state.Status{"a.example": status(state.Fresh), "b.example": status(state.Fresh), "c.example": status(state.Fresh)},
		Truth:   map[state.Key]state.Truth{key: truth, isos: {Images: []state.Image{{Name: "boot.iso", Size: 1}}}},
	}
	if edit != nil {
		edit(snap)
	}
	data, err := json.Marshal(snap)
	if err != nil {
		t.Fatal(err)
	}
	write("state/snapshot.json", string(data))
	return filepath.Join(dir, "checker.yml")
}

func command(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out strings.Builder
	err = run(t.Context(), daemon.Env{Args: args, Stdout: &out, Stderr: &out})
	return out.String(), err
}

func TestReadyIsTheGateOfAVersion(t *testing.T) {
	key := state.Key{Version: "9.9", Repo: "baseos", Arch: "x86_64"}
	isos := state.Key{Version: "9.9", Repo: "isos", Arch: "x86_64"}
	for _, tt := range []struct {
		name string
		edit func(*state.Snapshot)
		args []string
		want string // of the error; "" for none
		says string // of what is printed
	}{
		{"everybody has it", nil, []string{"9.9"}, "", "9.9/baseos/x86_64  3 of 3   100 %      100 %  100 %"},
		{"one of two in Europe has not", func(s *state.Snapshot) { s.Mirrors["b.example"].Health[key] = state.Lagging }, []string{"9.9"},
			"not ready: 9.9/baseos/x86_64 in EU has 50 % of the bandwidth, and 60 % are asked for", "2 of 3"},
		{"which is enough when less is asked for", func(s *state.Snapshot) { s.Mirrors["b.example"].Health[key] = state.Lagging }, []string{"-min", "0.5", "9.9"}, "", "50 %"},
		{"and who that is", func(s *state.Snapshot) { s.Mirrors["b.example"].Health[key] = state.Lagging }, []string{"9.9", "-missing"}, "not ready", "\nwithout 9.9/baseos/x86_64:\n  b.example  lagging\n"},
		{"the origin has it not", func(s *state.Snapshot) { delete(s.Truth, key) }, []string{"9.9"}, "9.9/baseos/x86_64 is not published", "not published"},
		{"the images are not everywhere", func(s *state.Snapshot) { s.Mirrors["c.example"].Health[isos] = state.Absent }, []string{"9.9"},
			"not ready: 9.9/isos/x86_64 in AS has 0 % of the bandwidth", "9.9/isos/x86_64    2 of 3   67 %       0 %    100 %"},
		{"the origin has no images, which hold nothing back", func(s *state.Snapshot) {
			delete(s.Truth, isos)
			for _, st := range s.Mirrors {
				st.Health[isos] = state.Absent
			}
		}, []string{"9.9"}, "", "not published"},
		{"a version that nobody looks for", nil, []string{"9.10"}, "pending_versions", ""},
		{"no version", nil, nil, "which version", ""},
		{"a share that is none", nil, []string{"-min", "60", "9.9"}, "not a share", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := command(t, append([]string{"ready", "-config", readyWorld(t, tt.edit)}, tt.args...)...)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if !strings.Contains(out, tt.says) {
				t.Errorf("printed\n%s\nwithout %q", out, tt.says)
			}
		})
	}
	out, err := command(t, "ready", "-config", readyWorld(t, nil), "-format", "json", "9.9")
	var shares []checker.KeyShare
	if err != nil || json.Unmarshal([]byte(out), &shares) != nil || len(shares) == 0 {
		t.Errorf("as JSON: %v\n%s", err, out)
	}
}

func TestTokenIsOfOneMirror(t *testing.T) {
	config := readyWorld(t, nil)
	out, err := command(t, "token", "-config", config, "a.example", "b.example")
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("a secret of sixteen bytes or more")
	if want := checker.Token(secret, "a.example") + "\n" + checker.Token(secret, "b.example") + "\n"; out != want {
		t.Errorf("printed %q, want %q", out, want)
	}
	var tokens, warnings strings.Builder
	err = run(t.Context(), daemon.Env{Args: []string{"token", "-config", config, "a.example", "nobody.example"}, Stdout: &tokens, Stderr: &warnings})
	if want := checker.Token(secret, "a.example") + "\n" + checker.Token(secret, "nobody.example") + "\n"; err != nil || tokens.String() != want {
		t.Errorf("printed %q, %v, want %q", tokens.String(), err, want)
	}
	if w := warnings.String(); strings.Count(w, "\n") != 1 || !strings.Contains(w, `no mirror "nobody.example"`) {
		t.Errorf("warned %q", w)
	}
	path := filepath.Join(filepath.Dir(config), "secret")
	if err := os.WriteFile(path, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := command(t, "token", "-config", config, "a.example"); err == nil || !strings.Contains(err.Error(), "write at least 16 random ones") {
		t.Errorf("with a short secret: %v", err)
	}
	if _, err := command(t, "token", "-config", config); err == nil {
		t.Error("a token of nobody")
	}
}
