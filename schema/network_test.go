package schema

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const smallNetwork = `config_version: 3
allowed_outdate: 12h
mirrors_dir: mirrors.d
versions: ["8", "8.10", "9", "9.8", "10", "10.2"]
optional_module_versions:
  kitten: ["10"]
duplicated_versions: {"8": "8.10", "9": "9.8", "10": "10.2"}
vault_versions: ["8.9", "9.8-beta", "10.0"]
vault_mirror: http://vault.example.org
arches:
  "8": [x86_64, aarch64]
  "9": [x86_64, aarch64, s390x]
  "10": [x86_64, x86_64_v2, aarch64]
  10-kitten: [x86_64, x86_64_v2]
required_protocols: [http, https]
repos:
  - name: baseos
    path: BaseOS/$basearch/os/
  - name: nfv
    path: NFV/$basearch/os/
    versions: ["9.8", "10.2"]
    arches: [x86_64]
  - name: extras-common
    path: /extras-common/$basearch/os/
    versions: ["10-kitten"]
  - name: baseos-source
    path: BaseOS/Source
    vault: true
`

func parsedNetwork(t *testing.T) *Network {
	t.Helper()
	n, problems := ParseNetwork("network.yml", []byte(smallNetwork))
	if n == nil || len(problems) > 0 {
		t.Fatalf("the small network has problems: %q", said(problems))
	}
	return n
}

func TestResolve(t *testing.T) {
	n := parsedNetwork(t)
	tests := []struct{ name, requested, want string }{
		{"an exact version is itself", "9.8", "9.8"},
		{"an alias is what it stands for", "9", "9.8"},
		{"a vault version is itself", "8.9", "8.9"},
		{"a listed beta is itself", "9.8-beta", "9.8-beta"},
		{"a module version is itself", "10-kitten", "10-kitten"},
		{"the next minor gets the current one", "9.9", "9.8"},
		{"any minor gets the current one", "9.99", "9.8"},
		{"an old minor that nobody lists gets the current one", "8.2", "8.10"},
		{"the beta of a coming minor gets the current one", "10.3-beta", "10.2"},
		{"minor zero is a minor", "9.0", "9.8"},
		{"a longer number is another major", "80", ""},
		{"letters behind a major", "8foo", ""},
		{"capitals", "10-Kitten", ""},
		{"the beta of a major", "9-beta", ""},
		{"space", "9 ", ""},
		{"a minor of a module", "10.1-kitten", ""},
		{"a module of another major", "9-kitten", ""},
		{"a first digit", "1", ""},
		{"an unknown major", "7.9", ""},
		{"a leading zero", "09.8", ""},
		{"a leading zero in the minor", "9.08", ""},
		{"three parts", "9.8.1", ""},
		{"a sign", "9.-1", ""},
		{"another script's digits", "9.٣", ""},
		{"no minor", "9.", ""},
		{"two betas", "9.9-beta-beta", ""},
		{"nothing", "", ""},
		{"a way out of the directory", "9.8/../..", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := n.Resolve(tt.requested)
			if string(got) != tt.want || ok != (tt.want != "") {
				t.Errorf("Resolve(%q) = %q, %t; want %q", tt.requested, got, ok, tt.want)
			}
		})
	}
	t.Run("aliases resolve before versions of the same name", func(t *testing.T) {
		n := &Network{Versions: []Version{"9", "9.8"}, Aliases: map[Version]Version{"9": "9.8"}}
		if got, _ := n.Resolve("9"); got != "9.8" {
			t.Errorf("Resolve(9) = %q, want 9.8", got)
		}
	})
	t.Run("without an alias the highest minor is current, by number", func(t *testing.T) {
		n := &Network{Versions: []Version{"8.9", "8.10", "8.2"}}
		if got, _ := n.Resolve("8.77"); got != "8.10" {
			t.Errorf("Resolve(8.77) = %q, want 8.10", got)
		}
	})
	if n := testing.AllocsPerRun(100, func() { n.Resolve("9.99") }); n > 0 {
		t.Errorf("Resolve allocates %v times; it is on the way of every request", n)
	}
}

func TestNetworkAnswers(t *testing.T) {
	n := parsedNetwork(t)
	if got, want := n.Served(), []Version{"8.10", "9.8", "10.2", "10-kitten"}; !slices.Equal(got, want) {
		t.Errorf("Served() = %v, want %v", got, want)
	}
	if n.VaultMirror != "http://vault.example.org/" {
		t.Errorf("VaultMirror = %q, want a slash at its end", n.VaultMirror)
	}
	if !n.IsVault("8.9") || n.IsVault("9.8") || n.IsVault("9") {
		t.Errorf("IsVault is true for 8.9 (%t), 9.8 (%t), 9 (%t); want only the first", n.IsVault("8.9"), n.IsVault("9.8"), n.IsVault("9"))
	}
	if n.Module("10-kitten") != "kitten" || n.Module("10.2") != "" {
		t.Errorf("Module = %q and %q, want kitten and nothing", n.Module("10-kitten"), n.Module("10.2"))
	}
	for v, want := range map[Version]string{
		"9.8": "x86_64 aarch64 s390x", "9": "x86_64 aarch64 s390x", "9.8-beta": "x86_64 aarch64 s390x",
		"10-kitten": "x86_64 x86_64_v2", "7.9": "",
	} {
		if got := join2(n.ArchesOf(v)); got != want {
			t.Errorf("ArchesOf(%s) = %q, want %q", v, got, want)
		}
	}
	nfv, ok := n.Repo("nfv")
	if !ok {
		t.Fatal("no repository nfv")
	}
	if got := join2(nfv.ArchesIn(n, "9.8")); got != "x86_64" {
		t.Errorf("nfv in 9.8 has %q, want x86_64", got)
	}
	extras, _ := n.Repo("extras-common")
	if extras.Path != "extras-common/$basearch/os/" {
		t.Errorf("path %q, want no slash in front", extras.Path)
	}
	base, _ := n.Repo("baseos")
	if _, ok := n.Repo("BaseOS"); ok {
		t.Error("Repo found BaseOS; names are exact")
	}
	for _, tt := range []struct {
		name string
		v    Version
		r    *Repo
		a    Arch
		want bool
	}{
		{"everywhere", "10-kitten", base, "", true},
		{"listed", "9.8", nfv, "", true},
		{"not listed", "8.10", nfv, "", false},
		{"by alias", "9", nfv, "", true},
		{"its arch", "9.8", nfv, "x86_64", true},
		{"an arch of the version but not of the repository", "9.8", nfv, "s390x", false},
		{"an arch that the version lacks", "8.10", base, "s390x", false},
		{"main tree of a module's repository", "10.2", extras, "", false},
		{"module of its repository", "10-kitten", extras, "x86_64_v2", true},
	} {
		if got := n.Allows(tt.v, tt.r, tt.a); got != tt.want {
			t.Errorf("%s: Allows(%s, %s, %q) = %t, want %t", tt.name, tt.v, tt.r.Name, tt.a, got, tt.want)
		}
	}
}

func join2[T ~string](all []T) string {
	var words []string
	for _, s := range all {
		words = append(words, string(s))
	}
	return strings.Join(words, " ")
}

func TestCarriesHas(t *testing.T) {
	n := parsedNetwork(t)
	tests := []struct {
		name string
		c    Carries
		v    Version
		a    Arch
		want bool
	}{
		{"everything", Carries{}, "9.8", "x86_64", true},
		{"a version by its name", Carries{Versions: []Version{"9.8"}}, "9.8", "", true},
		{"a version by its alias", Carries{Versions: []Version{"9"}}, "9.8", "", true},
		{"a major carries its next minor", Carries{Versions: []Version{"9"}}, "9.9", "", true},
		{"a major does not carry modules", Carries{Versions: []Version{"10"}}, "10-kitten", "", false},
		{"a module by its name", Carries{Versions: []Version{"10-kitten"}}, "10-kitten", "", true},
		{"another version", Carries{Versions: []Version{"9"}}, "10.2", "", false},
		{"its arch", Carries{Arches: []Arch{"aarch64"}}, "9.8", "aarch64", true},
		{"another arch", Carries{Arches: []Arch{"aarch64"}}, "9.8", "x86_64", false},
		{"no arch asked", Carries{Arches: []Arch{"aarch64"}}, "9.8", "", true},
		{"nothing that could be read", Carries{Nothing: true}, "9.8", "", false},
		{"nothing that could be read, of an arch", Carries{Nothing: true}, "9.8", "x86_64", false},
	}
	for _, tt := range tests {
		if got := tt.c.Has(n, tt.v, tt.a); got != tt.want {
			t.Errorf("%s: %+v.Has(%s, %q) = %t, want %t", tt.name, tt.c, tt.v, tt.a, got, tt.want)
		}
	}
}

func TestParseNetworkQuirks(t *testing.T) {
	swap := func(old, new string) string {
		if !strings.Contains(smallNetwork, old) {
			t.Fatalf("the small network does not hold %q", old)
		}
		return strings.Replace(smallNetwork, old, new, 1)
	}
	tests := []struct {
		name, text string
		said       []string
		unusable   bool
	}{
		{name: "CR LF and a byte order mark", text: "\ufeff" + strings.ReplaceAll(smallNetwork, "\n", "\r\n")},
		{
			name: "no format means version 3", text: swap("config_version: 3\n", ""),
			said: []string{"W :1: config_version: the file does not say which format it has; 3 is taken; write config_version: 3"},
		},
		{
			name: "another format", text: swap("config_version: 3", "config_version: 4"), unusable: true,
			said: []string{`E :1: config_version: format "4" is not known; convert the file to version 3`},
		},
		{
			name: "an unknown key", text: swap("mirrors_dir:", "mirror_dir:"),
			said: []string{`W :3: mirror_dir: unknown key "mirror_dir" is not read; write mirrors_dir`},
		},
		{
			name: "an alias of nothing", text: swap(`"9": "9.8"`, `"9": "9.7"`),
			said: []string{`E :7: duplicated_versions.9: "9.7" is not a version of the network; the alias is left out; write one of versions, of vault_versions or of a module`},
		},
		{
			name: "a repository of an alias that is left out", text: strings.Replace(swap(`"9": "9.8"`, `"el9": "9.7", "9": "9.8"`), `["9.8", "10.2"]`, `["el9", "10.2"]`, 1),
			said: []string{
				`E :7: duplicated_versions.el9: "9.7" is not a version of the network; the alias is left out; write one of versions, of vault_versions or of a module`,
				`W :21: repos[1].versions: nfv names "el9", which is not a version of the network; write one of versions`,
			},
		},
		{
			name: "an alias of a version in the vault", text: strings.Replace(swap(`"9": "9.8"`, `"7": "7.9", "9": "9.8"`), `"8.9"`, `"7.9", "8.9"`, 1),
		},
		{
			name: "an alias of a version of a module", text: swap(`"9": "9.8"`, `"kitten": "10-kitten", "9": "9.8"`),
		},
		{
			name: "aliases of each other", text: swap(`"9": "9.8"`, `"9": "9.8", "9.8": "9"`),
			said: []string{
				`E :7: duplicated_versions.9: "9.8" is an alias itself, and has no directory; the alias is left out; write what it stands for`,
				`E :7: duplicated_versions.9.8: "9" is an alias itself, and has no directory; the alias is left out; write what it stands for`,
			},
		},
		{
			name: "an alias of an alias", text: swap(`"9": "9.8"`, `"el9": "9", "9": "9.8"`),
			said: []string{`E :7: duplicated_versions.el9: "9" is an alias itself, and has no directory; the alias is left out; write what it stands for`},
		},
		{
			name: "a version without architectures", text: swap(`  "8": [x86_64, aarch64]`+"\n", ""),
			said: []string{`E :11: arches: version 8.10 has no architecture; write a list under "8"`},
		},
		{
			name: "a version in two places", text: swap(`"10.0"]`, `"10.2"]`),
			said: []string{"E :8: vault_versions: 10.2 is in versions and in vault_versions; the vault serves it; remove it from one of the two"},
		},
		{
			name: "a vault without a mirror", text: swap("vault_mirror: http://vault.example.org\n", ""),
			said: []string{"E :1: vault_mirror: vault versions or repositories have no mirror; write vault_mirror: https://HOST/"},
		},
		{
			name: "a repository of an unknown version", text: swap(`versions: ["9.8", "10.2"]`, `versions: ["9.8", "11.0"]`),
			said: []string{`W :21: repos[1].versions: nfv names "11.0", which is not a version of the network; write one of versions`},
		},
		{
			name: "a repository twice", text: swap("name: nfv", "name: baseos"),
			said: []string{`E :19: repos[1].name: repository "baseos" stands in line 17 already; this one is left out; give it another name`},
		},
		{
			name: "a repository named like the directory of images", text: swap("name: nfv", "name: isos"),
			said: []string{`E :19: repos[1].name: "isos" is what the directory of images is called; the repository is left out; give it another name`},
		},
		{
			name: "a repository outside of the tree", text: swap("BaseOS/$basearch/os/", "../$basearch/"),
			said: []string{`E :18: repos[0].path: repository "baseos" has no usable path; it is left out; write the path below the version's directory, such as BaseOS/$basearch/os/`},
		},
		{
			name: "a number that other software misreads", text: swap(`"8.10", "9"`, `8.10, "9"`),
			said: []string{`W :4: versions[1]: other software reads 8.10 as a number and drops its last digit; write "8.10" with the quotes`},
		},
		{
			name: "no repositories", text: smallNetwork[:strings.Index(smallNetwork, "repos:")], unusable: true,
			said: []string{"E :1: repos: the network has no repository; write a list of repositories, each with name and path"},
		},
		{
			name: "an odd protocol", text: swap("[http, https]", "[HTTP, gopher]"),
			said: []string{`E :15: required_protocols: "gopher" is not a protocol of a mirror; write http or https`},
		},
		{
			name: "no YAML", text: "versions: [", unusable: true,
			said: []string{"E :1: did not find expected node content; check the indentation and the quotes of this line and the one before"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, problems := ParseNetwork("network.yml", []byte(tt.text))
			compareSaid(t, "problems", said(problems), tt.said)
			if (n == nil) != tt.unusable {
				t.Errorf("usable: %t, want %t", n != nil, !tt.unusable)
			}
		})
	}
}

// What remains of the aliases is what clients are answered with.
func TestAliases(t *testing.T) {
	const good = `"9": "9.8"`
	tests := []struct {
		name, aliases string
		resolve       map[string]Version // "" for none
	}{
		// What it gets would depend on which of the two is looked at first.
		{"an alias of an alias is left out", `"el9": "9", "9": "9.8"`, map[string]Version{"el9": "", "9": "9.8"}},
		{"an alias of nothing is left out", `"el9": "9.7", "9": "9.8"`, map[string]Version{"el9": "", "9": "9.8"}},
		{"a major whose alias is left out still has a current minor", `"9": "9.7"`, map[string]Version{"9.99": "9.8"}},
		{"an alias of an alias that is left out", `"a": "9", "9": "9.7"`, map[string]Version{"a": ""}},
		{"the same, in the other order of names", `"z": "9", "9": "9.7"`, map[string]Version{"z": ""}},
		{"an alias of a version in the vault", `"el9": "9.8-beta", "9": "9.8"`, map[string]Version{"el9": "9.8-beta"}},
		{"an alias of a version of a module", `"kitten": "10-kitten", "9": "9.8"`, map[string]Version{"kitten": "10-kitten"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, _ := ParseNetwork("network.yml", []byte(strings.Replace(smallNetwork, good, tt.aliases, 1)))
			if n == nil {
				t.Fatal("the network is not usable")
			}
			for requested, want := range tt.resolve {
				if v, ok := n.Resolve(requested); v != want || ok != (want != "") {
					t.Errorf("Resolve(%s) = %q, %t; want %q", requested, v, ok, want)
				}
			}
		})
	}
}

// The recorded matrix says for every pair of version and repository whether the
// file admits it.
func TestAllowsAgreesWithTheRecordedMatrix(t *testing.T) {
	needRealData(t)
	n, _, err := LoadNetwork(filepath.Join(realData, "decisions", "config.yml"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(realData, "decisions", "matrix.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for dec := json.NewDecoder(in); ; {
		var row struct {
			URL     string
			Allowed *bool `json:"allowed_by_config"`
			Tags    []string
		}
		if err := dec.Decode(&row); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		// Versions that the recorded service knew by their first letters only.
		if row.Allowed == nil || slices.Contains(row.Tags, "bug:version-prefix") {
			continue
		}
		parts := strings.Split(row.URL, "/")
		v, ok := n.Resolve(parts[2])
		repo, found := n.Repo(parts[3])
		if !ok || !found {
			t.Errorf("%s: version known: %t, repository known: %t", row.URL, ok, found)
			continue
		}
		compared++
		if got := n.Allows(v, repo, ""); got != *row.Allowed {
			t.Errorf("%s: Allows = %t, the matrix says %t (%q)", row.URL, got, *row.Allowed, row.Tags)
		}
	}
	if compared < 100 {
		t.Errorf("compared only %d rows", compared)
	}
	t.Logf("%d rows agree", compared)
}

func TestPathOfARepositoryForAnArch(t *testing.T) {
	for _, tt := range []struct {
		path, want string
		arch       Arch
		perArch    bool
	}{
		{"BaseOS/$basearch/os/", "BaseOS/$basearch/os/", "", true},
		{"BaseOS/$basearch/os/", "BaseOS/aarch64/os/", "aarch64", true},
		{"BaseOS/${basearch}/os/", "BaseOS/aarch64/os/", "aarch64", true},
		{"$basearch/$basearch/", "s390x/s390x/", "s390x", true},
		{"BaseOS/Source/", "BaseOS/Source/", "aarch64", false},
	} {
		r := &Repo{Path: tt.path}
		if got := r.PathFor(tt.arch); got != tt.want {
			t.Errorf("%s for %q is %s, want %s", tt.path, tt.arch, got, tt.want)
		}
		if r.PerArch() != tt.perArch {
			t.Errorf("%s is per arch: %v, want %v", tt.path, r.PerArch(), tt.perArch)
		}
	}
}
