package mirrorlist

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func explained(t *testing.T, s *Server, in Inquiry) *Explanation {
	t.Helper()
	e, err := s.Explain(in)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// The User-Agent of an inquiry decides about health as that of a request does, and
// stays out of the URLs.
func TestExplanationOfUserAgent(t *testing.T) {
	s := startWorld(t, map[string][]byte{
		"mirrors.d/a.yml": []byte(`{name: a.example, address: {http: http://a.example/}}`),
		"state/snapshot.json": []byte(`{"taken": "2026-11-22T11:59:00Z", "mirrors": {"a.example": {"health": {
			"9.8/baseos/x86_64": "down", "9.8/baseos/aarch64": "fresh"}}}}`),
	})
	in := Inquiry{Addr: netip.MustParseAddr("192.0.2.1"), Version: "9", Repo: "baseos"}
	if e := explained(t, s, in); len(e.Candidates) != 1 || e.Candidates[0].Tier != tierAny.String() || e.Candidates[0].Health != "down" {
		t.Errorf("for all arches: %+v", e.Candidates)
	}
	in.UserAgent = "libdnf (Distro 9.8; generic; Linux.aarch64)"
	e := explained(t, s, in)
	if len(e.Candidates) != 1 || e.Candidates[0].Health != "fresh" || e.Candidates[0].URL != "http://a.example/9.8/BaseOS/$basearch/os/" || e.Arch != "aarch64" {
		t.Errorf("for aarch64: %+v", e)
	}
}

// Wrong inquiries are refused as wrong requests are.
func TestExplanationRefuses(t *testing.T) {
	s := startWorld(t, map[string][]byte{"mirrors.d/a.yml": []byte(`{name: a.example, address: {http: http://a.example/}}`)})
	for _, tt := range []struct {
		name string
		in   Inquiry
		code int
	}{
		{"an unknown version", Inquiry{Version: "7", Repo: "baseos"}, http.StatusNotFound},
		{"an unknown repository", Inquiry{Version: "9", Repo: "base"}, http.StatusNotFound},
		{"an unknown arch", Inquiry{Version: "9", Repo: "baseos", Arch: "sparc"}, http.StatusNotFound},
		{"a malformed country", Inquiry{Version: "9", Repo: "baseos", Country: "DEU"}, http.StatusBadRequest},
		{"an unknown protocol", Inquiry{Version: "9", Repo: "baseos", Protocol: "ftp"}, http.StatusBadRequest},
	} {
		_, err := s.Explain(tt.in)
		var no *refusal
		if !errors.As(err, &no) || no.code != tt.code {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// The fields of the JSON are a contract.
func TestExplanationJSON(t *testing.T) {
	s := startWorld(t, map[string][]byte{
		"mirrors.d/a.yml": []byte(`{name: a.example, address: {http: http://a.example/}, geolocation: {country: DE}}`),
		"mirrors.d/b.yml": []byte(`{name: b.example, private: true, address: {http: http://b.example/}, subnets: [198.51.100.0/24]}`),
	})
	var b strings.Builder
	e := explained(t, s, Inquiry{Addr: netip.MustParseAddr("192.0.2.1"), Version: "9", Repo: "baseos", Arch: "x86_64", All: true})
	if err := e.PrintJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Client, Place        map[string]any
		Candidates, Excluded []map[string]any
		Version, Repo, Arch  string
		Limit                int
		Private_candidates   *int
		Private_excluded     *int
	}
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	keys := func(m map[string]any) string { return strings.Join(slices.Sorted(maps.Keys(m)), " ") }
	if len(got.Candidates) != 1 || len(got.Excluded) != 1 || got.Private_candidates == nil || got.Private_excluded == nil {
		t.Fatalf("%s", b.String())
	}
	for _, tt := range []struct{ what, got, want string }{
		{"the question", got.Version + " " + got.Repo + " " + got.Arch, "9.8 baseos x86_64"},
		{"the client", keys(got.Client), "address asn asn_source place place_source"},
		{"a candidate", keys(got.Candidates[0]), "band distance_km health listed mirror position reasons tier url weight"},
		{"an excluded one", keys(got.Excluded[0]), "mirror private reason"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s has %s, want %s", tt.what, tt.got, tt.want)
		}
	}
}
