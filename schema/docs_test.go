package schema

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

var yamlBlock = regexp.MustCompile("(?ms)^```yaml *(\\w*)\n(.*?)^```$")

// merged returns a document with the keys of part in place of its own.
func merged(t *testing.T, whole, part string) string {
	t.Helper()
	var a, b map[string]any
	for text, to := range map[string]*map[string]any{whole: &a, part: &b} {
		if err := yaml.Unmarshal([]byte(text), to); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
	maps.Copy(a, b)
	out, err := yaml.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// lintText lints a text as the command lints a file.
func lintText(t *testing.T, n *Network, text string) []Problem {
	t.Helper()
	dir := write(t, map[string]string{"mirror.example.org.yml": text})
	if strings.Contains(text, "config_version") {
		n, problems, err := LintNetwork(filepath.Join(dir, "mirror.example.org.yml"))
		if err != nil || n == nil {
			t.Fatalf("not usable: %v %q", err, said(problems))
		}
		return problems
	}
	n.MirrorsDir = dir
	return LintFiles(n, nil)
}

// The examples of the documentation are copied by people, so nothing may be wrong
// with them.
func TestDocumentedExamplesAreClean(t *testing.T) {
	data, err := os.ReadFile("../docs/MIRRORS.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := yamlBlock.FindAllStringSubmatch(string(data), -1)
	if len(blocks) < 12 {
		t.Fatalf("found only %d examples", len(blocks))
	}
	complete := blocks[1][2] // a mirror with everything
	for i, b := range blocks {
		kind, text := b[1], b[2]
		t.Run(fmt.Sprintf("%d %s", i, kind), func(t *testing.T) {
			switch kind {
			case "mirror":
				text = merged(t, complete, text)
				if strings.Contains(text, "anycast: true") {
					text = strings.Replace(text, "asn: 64496\n", "", 1)
				}
			case "network":
				text = merged(t, strings.Replace(smallNetwork, "vault.example.org", "vault.example.org/", 1), text)
			}
			for _, p := range lintText(t, parsedNetwork(t), text) {
				// Said of every mirror that has these keys, for the reviewer.
				if (p.Path == "cloud_type" || p.Path == "monopoly") && !p.Error {
					continue
				}
				t.Errorf("%s\nin\n%s", p, text)
			}
		})
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../docs/MIRRORS.md")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	keys = append(keys, mirrorKeys...)
	keys = append(keys, networkKeys...)
	for prefix, below := range map[string][]string{"address.": addressKeys, "geolocation.": geolocationKeys, "carries.": carriesKeys, "repos.": repoKeys} {
		for _, k := range below {
			keys = append(keys, prefix+k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(k) + "` \\| [^|]+ \\| [^|]+ \\|")
		if !row.Match(data) {
			t.Errorf("docs/MIRRORS.md has no row with type and default for %s", k)
		}
	}
	// And nothing is documented that is not read.
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| [^|]+ \\| [^|]+ \\| ").FindAllStringSubmatch(string(data), -1) {
		if !slices.Contains(keys, m[1]) {
			t.Errorf("docs/MIRRORS.md documents %s, which is not read", m[1])
		}
	}
}

// What this repository ships is what others copy.
func TestOwnNetworkIsClean(t *testing.T) {
	n, problems, err := LintNetwork("../network.yml")
	if err != nil {
		t.Fatal(err)
	}
	more := LintFiles(n, nil)
	for _, p := range append(problems, more...) {
		t.Error(p)
	}
	mirrors, problems, err := LoadMirrors(n.MirrorsDir)
	if err != nil || len(mirrors) != 5 || len(problems) > 0 {
		t.Errorf("%d mirrors, %q, %v; want the five examples", len(mirrors), said(problems), err)
	}
}
