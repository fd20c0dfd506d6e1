package strictyaml

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

type settings struct {
	Listen   string        `yaml:"listen"`
	Interval time.Duration `yaml:"interval"`
	Limit    int           `yaml:"limit"`
	Private  bool          `yaml:"allow_private_addresses"`
	Proxies  []string      `yaml:"trusted_proxies"`
	Geo      struct {
		Location string `yaml:"location"`
		ASN      string `yaml:"asn"`
	} `yaml:"geo"`
	Common `yaml:",inline"`
	hidden string
}

// Common is shared by the settings of several daemons.
type Common struct {
	Network string `yaml:"network"`
	Ignored string `yaml:"-"`
}

func TestUnmarshal(t *testing.T) {
	got := settings{Limit: 10, hidden: "kept"}
	err := Unmarshal("mirrorlist.yml", []byte("listen: :8080\ninterval: 15m\nnetwork: network.yml\ngeo: {location: a.mmdb}\ntrusted_proxies: [127.0.0.0/8]\n"), &got)
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprint(got); s != "{:8080 15m0s 10 false [127.0.0.0/8] {a.mmdb } {network.yml } kept}" {
		t.Errorf("read %s; want what is written, and the default limit", s)
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "\ufeff"} {
		if err := Unmarshal("empty.yml", []byte(text), &got); err != nil || got.Limit != 10 {
			t.Errorf("%q: %v; want the defaults", text, err)
		}
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"a misspelt key, with the right one", "listen: :80\ninterwal: 15m\n", `s.yml:2: unknown key "interwal"; write interval`},
		{"a key like no other, with those there are", "colour: blue\n", `s.yml:1: unknown key "colour"; known here: listen, interval, limit, allow_private_addresses, trusted_proxies, geo, network`},
		{"a misspelt key of a group", "geo:\n  locations: x\n", `s.yml:2: unknown key "locations"; write location`},
		{"a key of another group", "geo:\n  listen: x\n", `s.yml:2: unknown key "listen"; known here: location, asn`},
		{"a key that is not for files", "Ignored: x\n", `s.yml:1: unknown key "Ignored"; known here: listen, interval, limit, allow_private_addresses, trusted_proxies, geo, network`},
		{"several mistakes at once", "a: 1\nlimit: many\n", "s.yml:1: unknown key \"a\"; known here: listen, interval, limit, allow_private_addresses, trusted_proxies, geo, network\ns.yml:2: \"many\" is not a whole number; write digits only"},
		{"a duration without a unit", "interval: soon\n", `s.yml:1: "soon" is not a duration; write a number with its unit, such as 15m or 12h`},
		{"a list where one value belongs", "listen: [a, b]\n", "s.yml:1: a list is not a text; write one value"},
		{"one value where a list belongs", "trusted_proxies: 127.0.0.1\n", `s.yml:1: "127.0.0.1" is not a list; write one item a line, each behind a dash`},
		{"one value where a group belongs", "geo: a.mmdb\n", `s.yml:1: "a.mmdb" is not a group of keys; write one key a line, indented below this one`},
		{"a word where yes or no belongs", "allow_private_addresses: maybe\n", `s.yml:1: "maybe" is not a yes or no; write true or false`},
		{"a repeated key", "limit: 1\nlimit: 2\n", `s.yml:2: the key "limit" is repeated; it stands in line 1 already; remove one of the two`},
		{"a second document", "limit: 1\n---\nlimit: 2\n", "s.yml:3: a second document begins here; put it into a file of its own"},
		{"a list", "- a\n", "s.yml:1: the file is not a list of keys; write \"key: value\" lines"},
		{"a tab", "geo:\n\tasn: x\n", "s.yml:2: a tab indents this line; write spaces"},
		{"no YAML", "a: [\n", "s.yml:1: did not find expected node content; check the indentation and the quotes of this line and the one before"},
		{"Latin-1", "listen: \xe4\n", "s.yml:1: a letter here is not UTF-8; save the file as UTF-8"},
		{"too much", strings.Repeat("#", MaxSize+1), "s.yml: the file is larger than 1024 KiB; make it smaller"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s settings
			err := Unmarshal("s.yml", []byte(tt.text), &s)
			var faults *Error
			if !errors.As(err, &faults) || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checker.yml")
	var s settings
	if err := Load(path, &s); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("limit: 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Load(path, &s); err != nil || s.Limit != 3 {
		t.Errorf("read %+v, %v", s, err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("#", MaxSize+1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Load(path, &s); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a large file: %v", err)
	}
}

// Settings of a kind that ends only when somebody says so would hold up a start
// for ever; a device has no settings.
func TestReadFileWantsARegularFile(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.yml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	regular := filepath.Join(dir, "regular.yml")
	if err := os.WriteFile(regular, []byte("limit: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.yml")
	if err := os.Symlink("regular.yml", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{os.DevNull, dir, pipe} {
		var pathErr *fs.PathError
		if data, err := ReadFile(path); !errors.As(err, &pathErr) || pathErr.Path != path || pathErr.Err.Error() != "not a regular file" {
			t.Errorf("ReadFile(%s) = %q, %v; want that it is not a regular file", path, data, err)
		}
	}
	for _, path := range []string{regular, link} {
		if data, err := ReadFile(path); err != nil || string(data) != "limit: 3\n" {
			t.Errorf("ReadFile(%s) = %q, %v", path, data, err)
		}
	}
}

func TestParseExpandsAliases(t *testing.T) {
	root, faults := Parse([]byte("a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}\nd: {<<: [*a, {z: 4}]}\n"))
	if root == nil || len(faults) > 0 {
		t.Fatal(faults)
	}
	var got map[string]map[string]int
	if err := root.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprint(got); s != "map[a:map[x:1 y:2] b:map[x:1 y:2] c:map[x:1 y:3] d:map[x:1 y:2 z:4]]" {
		t.Errorf("expanded to %s", s)
	}
	if _, faults := Parse([]byte("a: {<<: 1}\n")); len(faults) != 1 || !strings.Contains(faults[0].Text, "<< names") {
		t.Errorf("a merge of nothing: %v", faults)
	}
}

func TestParseBoundsItsFaults(t *testing.T) {
	if root, faults := Parse([]byte(strings.Repeat("a: 1\n", 1000))); root != nil || len(faults) != maxFaults {
		t.Errorf("%d faults, want %d and no more", len(faults), maxFaults)
	}
}

// What Windows writes for a quotation mark is a control character in Latin-1,
// which no document may hold.
func TestParseReadsOtherBytesToo(t *testing.T) {
	root, faults := Parse([]byte("a: it\x92s\n"))
	if root == nil || len(faults) != 1 || !faults[0].Repaired {
		t.Fatalf("%v, want it repaired", faults)
	}
	if got := root.Content[1].Value; got != "it\ufffds" {
		t.Errorf("read as %q", got)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"name", "address", "address_optional", "asn", "sponsor", "sponsor_url", "geolocation"}
	tests := []struct{ word, want string }{
		{"adress", "address"},
		{"addresses", "address"},
		{"address_options", "address_optional"},
		{"Sponsor-URL", "sponsor_url"},
		{"geo_location", "geolocation"},
		{"nmae", "name"},
		{"ans", "asn"},
		{"colour", ""},
		{"x", ""},
		{"", ""},
		{strings.Repeat("a", 1000), ""},
	}
	for _, tt := range tests {
		if got, ok := Nearest(tt.word, known); got != tt.want || ok != (tt.want != "") {
			t.Errorf("Nearest(%q) = %q, %t; want %q", Clip(tt.word), got, ok, tt.want)
		}
	}
}

func TestClip(t *testing.T) {
	long := strings.Repeat("ä", 100)
	if got := Clip(long); !utf8.ValidString(got) || len(got) > 64 || !strings.HasSuffix(got, "…") {
		t.Errorf("Clip = %q", got)
	}
	if got := Clip("short"); got != "short" {
		t.Errorf("Clip(short) = %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "a: 1", "a: &a\n  b: *a\n", "a: {<<: *b}", "\xff\xfe", "\ufeffa: b", "- a\n---\n- b", "? [a]\n: b", "a: !!binary x", "%YAML 1.1\n---\na: b"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		root, faults := Parse(data)
		if root == nil && len(faults) == 0 {
			t.Fatal("no document and no reason")
		}
		if root == nil {
			return
		}
		seen := 0
		var walk func(n *yaml.Node, depth int)
		walk = func(n *yaml.Node, depth int) {
			if seen++; depth > maxDepth || seen > maxNodes+1 || n.Kind == yaml.AliasNode {
				t.Fatalf("depth %d, %d values, kind %d", depth, seen, n.Kind)
			}
			keys := map[string]bool{}
			for i, c := range n.Content {
				if n.Kind == yaml.MappingNode && i%2 == 0 {
					if c.Kind != yaml.ScalarNode || keys[c.Value] {
						t.Fatalf("key %q of kind %d, repeated: %t", c.Value, c.Kind, keys[c.Value])
					}
					keys[c.Value] = true
				}
				walk(c, depth+1)
			}
		}
		walk(root, 0)
	})
}
