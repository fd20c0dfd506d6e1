package schema

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// checkProblems holds what every text must be answered with.
func checkProblems(t *testing.T, usable bool, problems []Problem) {
	t.Helper()
	if len(problems) > 2*maxProblems+1 { // and how many there are
		t.Errorf("%d problems", len(problems))
	}
	failed := false
	for _, p := range problems {
		failed = failed || p.Error
		s := p.String()
		if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
			t.Errorf("a message that is not one line of text: %q", s)
		}
		if len(s) > 1000 {
			t.Errorf("a message of %d bytes: %.200q", len(s), s)
		}
		if p.Text == "" || p.Remedy == "" || p.Line < 0 {
			t.Errorf("a problem without text, remedy or line: %+v", p)
		}
	}
	if !usable && !failed {
		t.Errorf("nothing is wrong and yet it is not usable: %q", said(problems))
	}
}

// yamlOf writes m as a tidy operator would.
func yamlOf(t *testing.T, m *Mirror) []byte {
	t.Helper()
	urls := func(a Address) map[string]string {
		all := map[string]string{}
		for _, u := range a.all() {
			all[u.scheme] = u.url
		}
		return all
	}
	out := map[string]any{
		"name": m.Name, "address": urls(m.Address), "update_frequency": FormatDuration(m.UpdateFrequency),
		"private": m.Private, "monopoly": m.Monopoly, "anycast": m.Anycast, "bandwidth": m.Bandwidth,
	}
	for key, v := range map[string]string{"sponsor": m.Sponsor, "sponsor_url": m.SponsorURL, "email": m.Email, "cloud_type": m.CloudType} {
		if v != "" {
			out[key] = v
		}
	}
	if len(m.AddressOptional) > 0 {
		modules := map[string]any{}
		for name, a := range m.AddressOptional {
			modules[name] = urls(a)
		}
		out["address_optional"] = modules
	}
	place := map[string]any{}
	for key, v := range map[string]string{"continent": m.Location.Continent, "country": m.Location.Country, "state_province": m.Location.State, "city": m.Location.City} {
		if v != "" {
			place[key] = v
		}
	}
	if m.Location.HasCoordinates {
		place["latitude"], place["longitude"] = m.Location.Latitude, m.Location.Longitude
	}
	if len(place) > 0 {
		out["geolocation"] = place
	}
	var subnets []string
	if m.SubnetsURL != "" {
		subnets = append(subnets, m.SubnetsURL)
	}
	for _, p := range m.Subnets {
		subnets = append(subnets, p.String())
	}
	if len(subnets) > 0 {
		out["subnets"] = subnets
	}
	if len(m.ASN) > 0 {
		out["asn"] = m.ASN
	}
	if m.AllRegions {
		out["cloud_regions"] = []string{"all"}
	} else if len(m.CloudRegions) > 0 {
		out["cloud_regions"] = m.CloudRegions
	}
	carries := map[string]any{}
	if len(m.Carries.Versions) > 0 {
		carries["versions"] = m.Carries.Versions
	}
	if len(m.Carries.Arches) > 0 {
		carries["arches"] = m.Carries.Arches
	}
	if m.Carries.NoISOs {
		carries["isos"] = false
	}
	if m.Carries.Nothing {
		carries["versions"] = []string{}
	}
	if len(carries) > 0 {
		out["carries"] = carries
	}
	data, err := yaml.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzMirror: any text is answered with a mirror or with an error, in bounded
// words; a mirror's URLs can stand in a list; and what was understood is
// understood again when it is written down properly.
func FuzzMirror(f *testing.F) {
	f.Add([]byte(plainMirror))
	for _, tt := range quirks() {
		f.Add([]byte(tt.text))
	}
	for _, pattern := range []string{"../mirrors.d/*.yml", realData + "/network/mirrors.d/mirror*.yml"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, problems := LintMirror("m.yml", data)
		checkProblems(t, m != nil, problems)
		loaded, _ := ParseMirror("m.yml", data)
		if !reflect.DeepEqual(m, loaded) {
			t.Fatalf("the linter reads\n%+v\nand the server\n%+v", m, loaded)
		}
		if m == nil {
			return
		}
		checkProblems(t, true, Lint(nil, []*Mirror{m}))
		for _, u := range m.Address.all() {
			if !strings.HasPrefix(u.url, u.scheme+"://") || !strings.HasSuffix(u.url, "/") || strings.ContainsFunc(u.url, func(c rune) bool { return c <= ' ' || c > '~' }) {
				t.Errorf("%q cannot stand in a list", u.url)
			}
		}
		again, problems := ParseMirror("m.yml", yamlOf(t, m))
		if again == nil {
			t.Fatalf("what was read is refused when written down: %q\n%s", said(problems), yamlOf(t, m))
		}
		again.lines, m.lines, again.subnetLines, m.subnetLines = nil, nil, nil, nil
		if !reflect.DeepEqual(m, again) {
			t.Errorf("read\n%+v\nand again\n%+v\nfrom\n%s", m, again, yamlOf(t, m))
		}
	})
}

// FuzzNetwork: any text is answered, and what a network answers about versions is
// consistent.
func FuzzNetwork(f *testing.F) {
	f.Add([]byte(smallNetwork), "9.9-beta")
	for _, v := range []string{"80", "8foo", "10-Kitten", "9-beta", "9 ", "10.1-kitten"} {
		f.Add([]byte(smallNetwork), v)
	}
	for _, path := range []string{"../network.yml", realData + "/network/config.yml"} {
		if data, err := os.ReadFile(path); err == nil {
			f.Add(data, "9.9")
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, requested string) {
		n, problems := ParseNetwork("n.yml", data)
		checkProblems(t, n != nil, problems)
		if n == nil {
			return
		}
		if v, ok := n.Resolve(requested); ok {
			if again, ok := n.Resolve(string(v)); !ok {
				t.Errorf("Resolve(%q) = %q, which does not resolve (%q)", requested, v, again)
			}
		} else if v != "" {
			t.Errorf("Resolve(%q) = %q, false", requested, v)
		}
		for _, v := range n.Served() {
			for i := range n.Repos {
				r := &n.Repos[i]
				for _, a := range r.ArchesIn(n, v) {
					if n.Allows(v, r, "") && !n.Allows(v, r, a) {
						t.Errorf("%s of %s has %s and does not allow it", r.Name, v, a)
					}
				}
			}
		}
	})
}
