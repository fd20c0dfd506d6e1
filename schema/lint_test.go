package schema

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// cleanMirror has nothing for a reviewer to say; tests add to it.
func cleanMirror(name string) string {
	return "name: " + name + "\naddress:\n  https: https://" + name + "/almalinux/\n" +
		"geolocation:\n  country: AT\nemail: admin@example.org\nsponsor: " + name + "\n" // lines 4 to 7
}

// Each case is a directory of mirrors and what is said about it, file by file.
func TestLintFiles(t *testing.T) {
	const a, b = "a.example.org", "b.example.org"
	tests := []struct {
		name  string
		files map[string]string
		only  []string // the files named to the linter; none for all
		said  []string
	}{
		{name: "a clean mirror", files: map[string]string{a + ".yml": cleanMirror(a)}},
		{
			name:  "the same name",
			files: map[string]string{a + ".yml": cleanMirror(a), "copy.yml": strings.ReplaceAll(cleanMirror(a), "https://a.", "https://b.")},
			said: []string{
				`E copy.yml:1: name: "a.example.org" is the mirror of a.example.org.yml already; give every mirror its own name`,
				`W copy.yml:1: name: the file of "a.example.org" is named copy.yml; rename the file to a.example.org.yml`,
				`W copy.yml:3: address.https: the host b.example.org is not the mirror's name; name the mirror b.example.org, or use a URL on a.example.org`,
			},
		},
		{
			name:  "a clash is blamed on the file that is reviewed, though it comes first",
			files: map[string]string{"a-new.yml": strings.ReplaceAll(cleanMirror(b), "https://b.", "https://a."), b + ".yml": cleanMirror(b)},
			only:  []string{"a-new.yml"},
			said: []string{
				`E a-new.yml:1: name: "b.example.org" is the mirror of b.example.org.yml already; give every mirror its own name`,
				`W a-new.yml:1: name: the file of "b.example.org" is named a-new.yml; rename the file to b.example.org.yml`,
				`W a-new.yml:3: address.https: the host a.example.org is not the mirror's name; name the mirror a.example.org, or use a URL on b.example.org`,
			},
		},
		{
			name:  "the same URL, but for its slash",
			files: map[string]string{a + ".yml": cleanMirror(a), b + ".yml": cleanMirror(b) + "address_optional:\n  kitten:\n    http: https://a.example.org/almalinux\n"},
			said: []string{
				"E b.example.org.yml:9: address_optional.kitten.https: a.example.org.yml has the same URL; write a URL of this mirror",
				"W b.example.org.yml:10: address_optional.kitten.http: an https URL under http is read as https; write https: in front of it, or a URL that begins http://",
			},
		},
		{
			name:  "two trees of one mirror in one place",
			files: map[string]string{a + ".yml": cleanMirror(a) + "address_optional:\n  kitten:\n    https: https://a.example.org/almalinux/\n"},
			said:  []string{"W a.example.org.yml:10: address_optional.kitten.https: address.https has the same URL; write where this tree is"},
		},
		{
			name:  "nobody to write to, nowhere to be found",
			files: map[string]string{a + ".yml": mirrorText(a)},
			said: []string{
				"W a.example.org.yml:1: email: nobody can be told when the mirror breaks; write email: and an address that people read",
				"W a.example.org.yml:1: geolocation: the mirror does not say where it is; a database of addresses is asked; write geolocation: with country, and better with latitude and longitude",
			},
		},
		{
			name:  "coordinates in another country",
			files: map[string]string{a + ".yml": strings.Replace(cleanMirror(a), "AT\n", "AT\n  latitude: 40.7\n  longitude: -74\n", 1)},
			said:  []string{"W a.example.org.yml:6: geolocation.latitude: the coordinates are about 6200 km away from Austria; correct the country or the coordinates"},
		},
		{
			name:  "coordinates exchanged",
			files: map[string]string{a + ".yml": strings.Replace(cleanMirror(a), "AT\n", "AT\n  latitude: 16.37\n  longitude: 48.21\n", 1)},
			said:  []string{"W a.example.org.yml:6: geolocation.latitude: the coordinates are about 4200 km away from Austria; exchange latitude and longitude"},
		},
		{
			name:  "a sign forgotten",
			files: map[string]string{a + ".yml": strings.Replace(cleanMirror(a), "AT\n", "US\n  latitude: 40.7\n  longitude: 74\n", 1)},
			said:  []string{"W a.example.org.yml:6: geolocation.latitude: the coordinates are about 6100 km away from United States; correct the sign: south and west are negative"},
		},
		{
			name:  "coordinates over the border are fine",
			files: map[string]string{a + ".yml": strings.Replace(cleanMirror(a), "AT\n", "AT\n  latitude: 52.5\n  longitude: 13.4\n", 1)},
		},
		{
			name:  "the coordinates of nothing",
			files: map[string]string{a + ".yml": strings.Replace(cleanMirror(a), "AT\n", "AT\n  latitude: 0\n  longitude: 0\n", 1)},
			said:  []string{"W a.example.org.yml:6: geolocation.latitude: 0, 0 is in the ocean; write where the mirror is, or remove both coordinates"},
		},
		{
			name:  "coordinates without a country",
			files: map[string]string{a + ".yml": strings.Replace(cleanMirror(a), "country: AT\n", "latitude: 48\n  longitude: 16\n", 1)},
			said:  []string{"W a.example.org.yml:4: geolocation: coordinates without a country; clients of the country are not sent here first; write country: too"},
		},
		{
			name:  "another continent",
			files: map[string]string{a + ".yml": strings.Replace(cleanMirror(a), "AT\n", "AT\n  continent: AS\n", 1)},
			said:  []string{"W a.example.org.yml:6: geolocation.continent: Austria is in EU, not in AS; write EU"},
		},
		{
			name:  "wide subnets, at their own lines",
			files: map[string]string{a + ".yml": cleanMirror(a) + "subnets:\n- 10.0.0.0/16\n- 10.64.0.0/15\n- 2001:db8::/32\n- 2001:d00::/31\n"},
			said: []string{
				"W a.example.org.yml:10: subnets: 10.64.0.0/15 is wider than /16; list the networks that are yours, or tell the reviewer why",
				"W a.example.org.yml:12: subnets: 2001:d00::/31 is wider than /32; list the networks that are yours, or tell the reviewer why",
			},
		},
		{
			name: "subnets that overlap another mirror's, told to both, once a pair",
			files: map[string]string{
				a + ".yml": cleanMirror(a) + "subnets:\n- 192.0.2.0/24\n- 198.51.100.0/24\n",
				b + ".yml": cleanMirror(b) + "subnets:\n- 192.0.2.0/25\n- 192.0.2.128/25\n- 203.0.113.0/24\n",
			},
			said: []string{
				"W a.example.org.yml:9: subnets: 192.0.2.0/24 contains 192.0.2.0/25 of b.example.org.yml; keep only what is the operator's own",
				"W b.example.org.yml:9: subnets: 192.0.2.0/25 is inside 192.0.2.0/24 of a.example.org.yml; keep only what is the operator's own",
			},
		},
		{
			name: "the same subnet",
			files: map[string]string{
				a + ".yml": cleanMirror(a) + "subnets: [2001:db8::/48]\n",
				b + ".yml": cleanMirror(b) + "subnets: [2001:db8::/48]\n",
			},
			only: []string{b + ".yml"},
			said: []string{"W b.example.org.yml:8: subnets: 2001:db8::/48 is a subnet of a.example.org.yml too; keep only what is the operator's own"},
		},
		{
			name: "an ASN of another sponsor, told to both",
			files: map[string]string{
				a + ".yml": cleanMirror(a) + "asn: 64496\n",
				b + ".yml": cleanMirror(b) + "asn: [64497, 64496]\n",
			},
			said: []string{
				"W a.example.org.yml:8: asn: AS64496 is declared by b.example.org.yml too; keep it only where it is the operator's own",
				"W b.example.org.yml:8: asn: AS64496 is declared by a.example.org.yml too; keep it only where it is the operator's own",
			},
		},
		{
			name: "an ASN of the same sponsor",
			files: map[string]string{
				a + ".yml": strings.Replace(cleanMirror(a), "sponsor: "+a, "sponsor: One", 1) + "asn: 64496\n",
				b + ".yml": strings.Replace(cleanMirror(b), "sponsor: "+b, "sponsor: one", 1) + "asn: 64496\n",
			},
		},
		{
			name:  "an ASN that nobody on the Internet has, one for private use, and one of a hoster",
			files: map[string]string{a + ".yml": cleanMirror(a) + "asn: [23456, 64512, 16509]\n"},
			said: []string{
				"W a.example.org.yml:8: asn: AS16509 is Amazon, whose customers would all be sent here; remove it unless the mirror is for all of them",
				"W a.example.org.yml:8: asn: AS23456 is reserved and has no clients; write the number that your provider announces",
				"W a.example.org.yml:8: asn: AS64512 is for private use and is not seen on the Internet; write the number that your provider announces",
			},
		},
		{
			name:  "a hoster's own mirror",
			files: map[string]string{a + ".yml": strings.Replace(cleanMirror(a), "sponsor: "+a, "sponsor: Hetzner Online", 1) + "asn: 24940\n"},
		},
		{
			name:  "private for nobody",
			files: map[string]string{a + ".yml": cleanMirror(a) + "private: true\n"},
			said:  []string{"W a.example.org.yml:8: private: a private mirror without subnets or asn is listed to nobody; write subnets: or asn: to say whose clients are sent here, or private: false"},
		},
		{
			name:  "private for a cloud",
			files: map[string]string{a + ".yml": cleanMirror(a) + "private: true\ncloud_type: aws\ncloud_regions: [all]\n"},
			said:  []string{"W a.example.org.yml:9: cloud_type: the mirror takes the clients of aws; only administrators set this; remove it unless the administrators of the network agreed"},
		},
		{
			name:  "monopoly is for administrators",
			files: map[string]string{a + ".yml": cleanMirror(a) + "monopoly: true\nsubnets: [192.0.2.0/24]\n"},
			said:  []string{"W a.example.org.yml:8: monopoly: the clients of this mirror get no other, even when it fails; only administrators set this; remove it unless the administrators of the network agreed"},
		},
		{
			name:  "monopoly over nobody",
			files: map[string]string{a + ".yml": cleanMirror(a) + "monopoly: true\n"},
			said: []string{
				"W a.example.org.yml:8: monopoly: the clients of this mirror get no other, even when it fails; only administrators set this; remove it unless the administrators of the network agreed",
				"W a.example.org.yml:8: monopoly: without subnets or asn, monopoly changes nothing; write subnets: or asn:, or remove it",
			},
		},
		{
			name:  "anycast has no ASN",
			files: map[string]string{a + ".yml": cleanMirror(a) + "anycast: true\nasn: 64496\n"},
			said:  []string{"W a.example.org.yml:9: asn: an anycast mirror is not matched by ASN; remove asn or anycast"},
		},
		{
			name:  "an unknown module",
			files: map[string]string{a + ".yml": cleanMirror(a) + "address_optional:\n  kiten:\n    https: https://a.example.org/kitten/\n"},
			said:  []string{`W a.example.org.yml:9: address_optional.kiten: the network has no module "kiten"; write kitten`},
		},
		{
			name:  "too slow for the network",
			files: map[string]string{a + ".yml": cleanMirror(a) + "update_frequency: 1d\n"},
			said:  []string{"W a.example.org.yml:8: update_frequency: a mirror that syncs every 1d is too old, before it syncs, for a network that allows 12h; sync more often"},
		},
		{
			name:  "carries what the network does not have",
			files: map[string]string{a + ".yml": cleanMirror(a) + "carries:\n  versions: [\"9\", \"11\"]\n  arches: [x86_64, riscv64]\n"},
			said: []string{
				`W a.example.org.yml:9: carries.versions[1]: "11" is not a version of the network; write a version of the network`,
				`W a.example.org.yml:10: carries.arches[1]: "riscv64" is not an architecture of the network; write an architecture of the network`,
			},
		},
		{
			name:  "carries nothing",
			files: map[string]string{a + ".yml": cleanMirror(a) + "carries:\n  versions: [\"8\"]\n  arches: [s390x]\n"},
			said:  []string{"E a.example.org.yml:8: carries: the mirror carries nothing that the network serves; correct versions and arches"},
		},
		{
			name:  "carries what cannot be read, said once",
			files: map[string]string{a + ".yml": cleanMirror(a) + "carries: {arches: []}\n"},
			said:  []string{"E a.example.org.yml:8: carries.arches: nothing can be read here, so the mirror is listed for nothing; write what it has, or remove carries.arches if it has all"},
		},
		{
			name:  "a file that the server does not see is looked into",
			files: map[string]string{a + ".yaml": strings.Replace(cleanMirror(a), "AT", "UK", 1)},
			only:  []string{a + ".yaml"},
			said: []string{
				"E a.example.org.yaml: the file is not read, because its name does not end in .yml; rename it to a.example.org.yml",
				"W a.example.org.yaml:1: name: the file of \"a.example.org\" is named a.example.org.yaml; rename the file to a.example.org.yml",
				"W a.example.org.yaml:5: geolocation.country: \"UK\" is not a country code; write \"GB\"",
			},
		},
		{
			name:  "a missing slash, which the server adds",
			files: map[string]string{a + ".yml": strings.Replace(cleanMirror(a), "almalinux/", "almalinux", 1)},
			said:  []string{`W a.example.org.yml:3: address.https: "https://a.example.org/almalinux": the URL does not end in a slash; add a slash at its end`},
		},
		{
			name:  "a number in quotes, which the server reads",
			files: map[string]string{a + ".yml": cleanMirror(a) + "bandwidth: \"1000\"\nasn: \"64496\"\n"},
			said: []string{
				`W a.example.org.yml:8: bandwidth: "1000" is a text; write 1000 without quotes`,
				`W a.example.org.yml:9: asn: "64496" is not what belongs here; write a number without quotes, or a list of numbers`,
			},
		},
		{
			name:  "a text that is a number for others",
			files: map[string]string{a + ".yml": strings.Replace(cleanMirror(a), "sponsor: "+a, "sponsor: 1984", 1)},
			said:  []string{`W a.example.org.yml:7: sponsor: 1984 is a number for other software, not a text; write "1984" with the quotes`},
		},
		{
			name:  "a file that is not there",
			files: map[string]string{a + ".yml": cleanMirror(a)},
			only:  []string{"none.yml"},
			said:  []string{"E none.yml: no such file or directory; make it a file that the server may read"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := parsedNetwork(t)
			n.MirrorsDir = write(t, tt.files)
			var only []string
			for _, f := range tt.only {
				only = append(only, filepath.Join(n.MirrorsDir, f))
			}
			problems := LintFiles(n, only)
			var got []string
			for _, p := range problems {
				severity := "W "
				if p.Error {
					severity = "E "
				}
				got = append(got, severity+strings.TrimPrefix(p.String(), n.MirrorsDir+"/"))
			}
			compareSaid(t, "problems", got, tt.said)
		})
	}
}

// A file is one file however its path is spelt; a link to it is another, which the
// server reads too.
func TestLintFilesKnowsAFileAgain(t *testing.T) {
	const name = "a.example.org.yml"
	dir := write(t, map[string]string{"mirrors.d/" + name: cleanMirror("a.example.org"), "elsewhere/README": ""})
	mirrors := filepath.Join(dir, "mirrors.d")
	if err := os.Symlink(mirrors, filepath.Join(dir, "link.d")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(mirrors)
	n := parsedNetwork(t)
	n.MirrorsDir = mirrors
	spellings := []string{name, "./" + name, "../elsewhere/../mirrors.d/" + name, filepath.Join(mirrors, name), "../link.d/" + name}
	for _, p := range LintFiles(n, spellings) {
		t.Errorf("%s; want nothing, of one clean file", p)
	}
	for _, path := range spellings {
		for _, p := range LintFiles(n, []string{path}) {
			t.Errorf("%s: %s; want nothing", path, p)
		}
	}
	for _, p := range LintFiles(nil, spellings) {
		t.Errorf("%s; want nothing, without a network too", p)
	}
	if err := os.Symlink(name, "copy.yml"); err != nil {
		t.Fatal(err)
	}
	compareSaid(t, "a link to the file", said(LintFiles(n, []string{name})), []string{
		`E :1: name: "a.example.org" is the mirror of copy.yml already; give every mirror its own name`,
		"E :3: address.https: copy.yml has the same URL; write a URL of this mirror",
	})
}

func TestLintFilesWithoutDirectory(t *testing.T) {
	const a = "a.example.org"
	dir := write(t, map[string]string{
		"gone.yml":          strings.Replace(smallNetwork, "mirrors.d", "gone.d", 1),
		"absent.yml":        strings.Replace(smallNetwork, "mirrors_dir: mirrors.d\n", "", 1),
		"file.yml":          strings.Replace(smallNetwork, "mirrors.d", "gone.yml", 1),
		"new/" + a + ".yml": strings.Replace(cleanMirror(a), "AT", "UK", 1),
	})
	const remedy = "; write the directory of the mirror files, as seen from the directory of the network file"
	tests := []struct{ name, network, want string }{
		{"it is not there", "gone.yml", "E gone.yml:3: mirrors_dir: gone.d: no such file or directory" + remedy},
		{"the default is not there", "absent.yml", "E absent.yml:1: mirrors_dir: mirrors.d: no such file or directory" + remedy},
		{"it is a file", "file.yml", "E file.yml:3: mirrors_dir: gone.yml: not a directory" + remedy},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(dir)
			n, _, err := LintNetwork(tt.network)
			if err != nil || n == nil {
				t.Fatal(n, err)
			}
			compareSaid(t, "without names", named(LintFiles(n, nil)), []string{tt.want})
			compareSaid(t, "a file is looked at regardless", named(LintFiles(n, []string{"new/" + a + ".yml"})), []string{
				tt.want, `W new/a.example.org.yml:5: geolocation.country: "UK" is not a country code; write "GB"`,
			})
		})
	}
	n := parsedNetwork(t)
	n.MirrorsDir = filepath.Join(dir, "gone.d")
	if got := LintFiles(n, nil); len(got) != 1 || got[0].File != n.MirrorsDir || !got[0].Error {
		t.Errorf("got %q; want the directory named, when nobody knows who named it", said(got))
	}
}

// named is said with the files.
func named(ps []Problem) []string {
	all := said(ps)
	for i, p := range ps {
		all[i] = all[i][:2] + p.String()
	}
	return all
}

func TestLintRequiredProtocol(t *testing.T) {
	n := parsedNetwork(t)
	n.RequiredProtocols = []string{"https"}
	m, _ := ParseMirror("m.example.org.yml", []byte("name: m.example.org\naddress:\n  http: http://m.example.org/\ngeolocation:\n  country: AT\nemail: a@b\n"))
	compareSaid(t, "problems", said(Lint(n, []*Mirror{m})), []string{"E :2: address: the network requires one of https; write a URL below https"})
	if n.Offers(m) {
		t.Error("Offers says the mirror has https")
	}
}

func TestLintWithoutNetwork(t *testing.T) {
	dir := write(t, map[string]string{"x.yml": cleanMirror("a.example.org") + "address_optional:\n  any:\n    https: https://a.example.org/any/\n"})
	problems := LintFiles(nil, []string{filepath.Join(dir, "x.yml")})
	if len(problems) != 1 || problems[0].Path != "name" {
		t.Errorf("got %q; want only the name of the file, for modules are the network's", said(problems))
	}
}

func TestLintNetworkSchema(t *testing.T) {
	dir := write(t, map[string]string{"network.yml": strings.NewReplacer(
		`"9", "9.8"`, `"9", 9.8`, "path: BaseOS/Source", "path: BaseOS/Source\n    arches: x86_64",
		"allowed_outdate: 12h", "allowed_outdate: 12 hours",
	).Replace(smallNetwork)})
	n, problems, err := LintNetwork(filepath.Join(dir, "network.yml"))
	if err != nil || n == nil {
		t.Fatal(n, err)
	}
	compareSaid(t, "problems", said(problems), []string{
		`W :2: allowed_outdate: "12 hours" is read as 12h; write 12h`,
		`W :4: versions[3]: 9.8 is a number for other software, not a text; write "9.8" with the quotes`,
		`W :9: vault_mirror: "http://vault.example.org": the URL does not end in a slash; add a slash at its end`,
		`W :28: repos[3].arches: "x86_64" is a text; write [x86_64]`,
	})
}
