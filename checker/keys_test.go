package checker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"meridian/checker/state"
	"meridian/schema"
)

// realData is what was recorded of a network of today; not every checkout has it.
const realData = "../../shared/testdata"

func needRealData(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(realData); err != nil {
		t.Skipf("the recorded data is not here: %v", err)
	}
}

func parsedNetwork(t testing.TB, text string) *schema.Network {
	t.Helper()
	n, problems := schema.ParseNetwork("network.yml", []byte(text))
	for _, p := range problems {
		if p.Error {
			t.Fatal(p)
		}
	}
	return n
}

func parsedMirror(t testing.TB, text string) *schema.Mirror {
	t.Helper()
	m, problems := schema.ParseMirror("m.yml", []byte(text))
	for _, p := range problems {
		if p.Error {
			t.Fatal(p)
		}
	}
	return m
}

const keysNetwork = `config_version: 3
versions: ["8", "8.10", "9", "9.8"]
optional_module_versions: {kitten: ["10"]}
duplicated_versions: {"8": "8.10", "9": "9.8"}
vault_versions: ["9.7", "8.9"]
vault_mirror: https://vault.example.org/
arches:
  "8": [x86_64, aarch64]
  "9": [x86_64, aarch64]
  10-kitten: [x86_64, x86_64_v2]
repos:
  - {name: baseos, path: BaseOS/$basearch/os/}
  - {name: nfv, path: NFV/$basearch/os, versions: ["9.8", "8"], arches: [x86_64]}
  - {name: scripts, path: tools/, versions: ["9.8"]}
  - {name: devel, path: "devel/${basearch}/os/", versions: ["10-kitten"]}
  - {name: source, path: BaseOS/Source/, vault: true, versions: ["9"]}
`

func keyStrings(keys []state.Key) []string {
	var all []string
	for _, k := range keys {
		all = append(all, k.String())
	}
	return all
}

func TestKeys(t *testing.T) {
	n := parsedNetwork(t, keysNetwork)
	whole := "address: {https: https://m.example.org/linux}\n"
	kitten := whole + "address_optional: {kitten: {http: http://m.example.org/kitten}}\n"
	served8and9 := []string{
		"8.10/baseos/x86_64", "8.10/baseos/aarch64", "8.10/nfv/x86_64",
		"9.8/baseos/x86_64", "9.8/baseos/aarch64", "9.8/nfv/x86_64", "9.8/scripts/",
	}
	ofKitten := []string{"10-kitten/baseos/x86_64", "10-kitten/baseos/x86_64_v2", "10-kitten/devel/x86_64", "10-kitten/devel/x86_64_v2"}
	mirror := func(text string) *schema.Mirror { return parsedMirror(t, "name: m.example.org\n"+text) }
	for _, tt := range []struct {
		name string
		got  []state.Key
		want []string
	}{
		{"a network has what its file admits, aliases under the version they stand for", Keys(n), slices.Concat(served8and9, ofKitten)},
		{"the vault has its repositories of every version, and everything of its own versions", VaultKeys(n), []string{
			"9.8/source/", "9.7/baseos/x86_64", "9.7/baseos/aarch64", "8.9/baseos/x86_64", "8.9/baseos/aarch64", "8.9/nfv/x86_64", "9.7/source/",
		}},
		{"a mirror of the main tree has nothing of a module", KeysOf(n, mirror(whole)), served8and9},
		{"a mirror of both trees has everything", KeysOf(n, mirror(kitten)), slices.Concat(served8and9, ofKitten)},
		{"a mirror whose module is on rsync alone does not have it", KeysOf(n, mirror(whole+"address_optional: {kitten: {rsync: rsync://m.example.org/kitten}}\n")), served8and9},
		{"a partial mirror has what it carries", KeysOf(n, mirror(kitten+"carries: {versions: [\"9\"], arches: [aarch64]}\n")),
			[]string{"9.8/baseos/aarch64", "9.8/scripts/"}},
		{"the images of a mirror follow its trees", ISOKeysOf(n, mirror(whole)), []string{"8.10/isos/x86_64", "8.10/isos/aarch64", "9.8/isos/x86_64", "9.8/isos/aarch64"}},
		{"a mirror may have no images", ISOKeysOf(n, mirror(whole+"carries: {isos: false}\n")), nil},
	} {
		got := keyStrings(tt.got)
		slices.Sort(got)
		slices.Sort(tt.want)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", tt.name, got, tt.want)
		}
	}
}

func TestRepoURL(t *testing.T) {
	n := parsedNetwork(t, keysNetwork)
	for key, want := range map[string]string{
		"9.8/baseos/aarch64":        "http://m.example.org/linux/9.8/BaseOS/aarch64/os/",
		"9.8/nfv/x86_64":            "http://m.example.org/linux/9.8/NFV/x86_64/os/", // written without the last slash
		"9.8/scripts/":              "http://m.example.org/linux/9.8/tools/",
		"10-kitten/devel/x86_64_v2": "http://m.example.org/linux/10-kitten/devel/x86_64_v2/os/",
		"9.8/isos/x86_64":           "http://m.example.org/linux/9.8/isos/x86_64/",
		"9.8/unheard-of/x86_64":     "",
	} {
		var k state.Key
		if err := k.UnmarshalText([]byte(key)); err != nil {
			t.Fatal(err)
		}
		if got := RepoURL("http://m.example.org/linux/", n, k); got != want {
			t.Errorf("%s is at %q, want %q", key, got, want)
		}
	}
}

func TestPendingVersionHasWhatItsMajorHas(t *testing.T) {
	n := parsedNetwork(t, keysNetwork)
	before := fmt.Sprint(*n)
	got := keyStrings(Keys(WithPending(n, []schema.Version{"9.9", "9.8", "8.9"})))
	added := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return slices.Contains(keyStrings(Keys(n)), s) })
	want := []string{"9.9/baseos/x86_64", "9.9/baseos/aarch64", "9.9/nfv/x86_64", "9.9/scripts/"}
	if !slices.Equal(added, want) {
		t.Errorf("9.9 to come, 9.8 served, 8.9 in the vault: added %q, want %q", added, want)
	}
	if fmt.Sprint(*n) != before {
		t.Errorf("the network itself was changed to %v", *n)
	}
}

// Every key of the network of today has a place, and is there once.
func TestKeysOfTheRealNetwork(t *testing.T) {
	needRealData(t)
	n, _, err := schema.LoadNetwork(filepath.Join(realData, "network", "config.yml"))
	if err != nil {
		t.Fatal(err)
	}
	keys := Keys(n)
	seen := map[state.Key]bool{}
	for _, k := range keys {
		if seen[k] {
			t.Errorf("%s is there twice", k)
		}
		seen[k] = true
		if n.IsVault(k.Version) || RepoURL("http://h/", n, k) == "" {
			t.Errorf("%s is in the vault, or nowhere", k)
		}
	}
	t.Logf("%d repositories on the mirrors, %d in the vault, %d sets of images", len(keys), len(VaultKeys(n)), len(ISOKeys(n)))
	if len(keys) < 100 || len(keys) > 200 {
		t.Errorf("%d repositories; a network of this kind has about 140", len(keys))
	}
}
