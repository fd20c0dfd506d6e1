package mirrorlist

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"meridian/checker/state"
	"meridian/internal/testworld"
	"meridian/mirrorlist/stats"
	"meridian/schema"
)

// pageLimit is the size of a page as it is sent to a client that takes no
// compression, in bytes. The picture of the world is a file of its own.
const pageLimit = 100_000

// fullWorld is a network of the size of a real one, at its worst: a thousand
// mirrors of every health that say much of themselves, 140 repositories, each with
// a trouble of its own and the longest evidence that the checker keeps, as many
// publications as it remembers, and statistics of every country.
func fullWorld(t testing.TB) http.Handler {
	t.Helper()
	files := bigWorld()
	network, err := os.ReadFile("../network.yml")
	if err != nil {
		t.Fatal(err)
	}
	files["network.yml"] = string(network)
	repos := bytes.Count(network, []byte("\n  - name: "))
	for name, text := range files {
		if strings.HasPrefix(name, "mirrors.d/mirror-") {
			var i int
			if _, err := fmt.Sscanf(name, "mirrors.d/mirror-%d", &i); err != nil {
				t.Fatal(err)
			}
			text = strings.Replace(text, "city: Town", fmt.Sprintf("latitude: %d.5, longitude: %d.25, city: Town", i*7%140-60, i*13%360-180), 1)
			files[name] = text + fmt.Sprintf("address_optional: {kitten: {https: https://kitten-%d.example.org/}}\n", i)
		}
	}

	world := &checkedWorld{events: map[string][]state.Event{}, snap: &state.Snapshot{
		Taken: pagesNow.Add(-time.Minute), Truth: map[state.Key]state.Truth{}, Publications: map[string]*state.Publication{}, Mirrors: map[string]*state.Status{},
	}}
	var keys []state.Key
	for _, version := range []schema.Version{"8.10", "9.8", "10.2", "10-kitten"} {
		for _, arch := range []schema.Arch{"x86_64", "aarch64", "ppc64le", "s390x"} {
			for _, repo := range []string{"baseos", "appstream", "crb", "extras", "highavailability", "nfv", "rt", "resilientstorage", "plus"} {
				keys = append(keys, state.Key{Version: version, Repo: repo, Arch: arch})
			}
			images := state.Truth{}
			for i := range 6 {
				images.Images = append(images.Images, state.Image{Name: fmt.Sprintf("Distribution-%s-%s-kind-%d.iso", version, arch, i), Size: 10_000_000_000, Algorithm: "sha256", Digest: strings.Repeat("ab", 32)})
			}
			world.snap.Truth[state.Key{Version: version, Repo: isoRepo, Arch: arch}] = images
		}
	}
	if len(keys) < 140 || repos < 9 {
		t.Fatalf("%d repositories, %d names: a real network has 140", len(keys), repos)
	}
	generations := []state.Generation{
		{Revision: "1002", Size: 3000, SHA256: state.Hash256{2}, FirstSeen: pagesNow.Add(-3 * time.Hour)},
		{Revision: "1001", Size: 3000, SHA256: state.Hash256{1}, FirstSeen: pagesNow.Add(-48 * time.Hour)},
	}
	for _, k := range keys {
		world.snap.Truth[k] = state.Truth{Generations: generations, Confirmed: pagesNow}
	}
	proof := &state.Evidence{
		At: pagesNow, Method: "GET", URL: "https://mirror.some-university.example.org/pub/linux/distribution/9.8/AppStream/x86_64/os/repodata/repomd.xml", Family: "ipv6",
		Request: []string{"Cache-Control: no-cache"}, Remote: "[2001:db8::1]:443", Status: 200, Redirects: []string{strings.Repeat("https://elsewhere.example.org/", 6)},
		Body: strings.Repeat("<b>&'\"", 85), Error: strings.Repeat("e", 200),
	}
	for i := range 12 {
		proof.Header = append(proof.Header, fmt.Sprintf("X-Cache-%d: %s", i, strings.Repeat("h", 190)))
	}
	for i := range 1000 {
		name := fmt.Sprintf("mirror-%04d.some-university.example.org", i)
		health := state.Health(i) % (state.Unprobed + 1)
		st := &state.Status{
			Health: map[state.Key]state.Health{}, Holds: map[state.Key]state.GenerationID{}, IPv4: state.Reached, IPv6: state.Reached, Visited: pagesNow,
			Schemes: map[string]*state.Scheme{"http": {Works: state.Reached}, "https": {Works: state.Unreached, TLSExpires: pagesNow, Problem: &state.Problem{Reason: "expired", Evidence: proof}}, "rsync": {Works: state.Untested}},
		}
		for _, k := range keys {
			st.Health[k] = health
			if health == state.Lagging || health == state.Stale {
				st.Holds[k] = generations[1].ID()
			}
		}
		for k := range world.snap.Truth {
			if k.Repo == isoRepo {
				st.Health[k] = []state.Health{state.Fresh, health}[i%2]
			}
		}
		world.snap.Mirrors[name] = st
	}
	// One mirror with all troubles, and a past of which each publication was one.
	worst := "mirror-0005.some-university.example.org"
	st := world.snap.Mirrors[worst]
	st.Findings = map[state.Key]*state.Finding{}
	for i, k := range keys {
		p := &state.Problem{Reason: fmt.Sprintf("trouble %d: %s", i, strings.Repeat("r", 200)), Remedy: strings.Repeat("do this. ", 20), Since: pagesNow, Evidence: proof}
		st.Health[k] = state.Health(i) % (state.Unprobed + 1)
		st.Findings[k] = &state.Finding{Since: pagesNow.Add(-time.Hour), Problem: p}
		if i == 0 {
			st.Problem = p
		}
	}
	for i := range 20 {
		st.Warnings = append(st.Warnings, fmt.Sprintf("warning %d: %s", i, strings.Repeat("w", 150)))
	}
	for i := range 2000 {
		e := state.Event{Time: pagesNow.Add(-time.Duration(i) * time.Hour), Kind: state.HealthChanged, Mirror: worst, Keys: keys, From: state.Fresh, To: state.Lagging, Problem: st.Problem}
		if i%2 == 1 {
			e.From, e.To, e.Lag = state.Lagging, state.Fresh, time.Duration(1+i%12)*time.Hour
		}
		world.events[worst] = append(world.events[worst], e)
	}
	continents := []string{"AF", "AN", "AS", "EU", "NA", "OC", "SA", ""}
	for i := range 24 {
		p := &state.Publication{Time: pagesNow.Add(-time.Duration(3+5*i) * time.Hour), Repositories: 140, Versions: []schema.Version{"8.10", "9.8", "10.2", "10-kitten"}}
		for j := range 41 {
			sample := state.Sample{After: int64(j*j) * 60, All: state.Share{Mirrors: 24 * j, Of: 1000, Mbits: 23 * j, OfMbits: 1000}, Continents: map[string]state.Share{}}
			for k, c := range continents {
				sample.Continents[c] = state.Share{Mirrors: (2 + k%2) * j, Of: 125, Mbits: 3 * j, OfMbits: 125}
			}
			p.Samples = append(p.Samples, sample)
		}
		world.snap.Publications[p.ID()] = p
	}

	kept := "dir:" + t.TempDir()
	store, err := stats.Open(kept)
	if err != nil {
		t.Fatal(err)
	}
	// A year of weeks, and a month of days.
	clock := pagesNow.AddDate(-1, 0, 0)
	recorder := stats.NewRecorder(stats.Options{Store: store, Node: "node-1", Days: 400, Now: func() time.Time { return clock }})
	layout := &stats.Layout{}
	for _, k := range keys {
		layout.Slots = append(layout.Slots, stats.Slot{Version: string(k.Version), Repo: k.Repo, Arch: string(k.Arch), Bytes: 4_000_000})
	}
	for i := range 1000 {
		layout.Mirrors = append(layout.Mirrors, fmt.Sprintf("mirror-%04d.some-university.example.org", i))
	}
	tally := recorder.Attach(layout)
	var countries []string
	for i := range 26 * 26 {
		if code := string([]byte{'A' + byte(i/26), 'A' + byte(i%26)}); schema.ValidCountry(code) {
			countries = append(countries, code)
		}
	}
	for clock.Before(pagesNow) {
		n := 0
		for i, country := range countries {
			for range 20 + i/4 {
				tally.List(n%len(keys), stats.CountryOf(twoLetters(country)), n%1000)
				tally.Countme(n%len(keys), uint8(1+n%4), stats.System{})
				n++
			}
		}
		if err := recorder.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if step := 24 * time.Hour; clock.Before(pagesNow.AddDate(0, 0, -35)) {
			clock = clock.Add(7 * step)
		} else {
			clock = clock.Add(step)
		}
	}
	if err := recorder.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return pagesServer(t, files, func(o *Options) {
		o.Source, o.Now = world, func() time.Time { return pagesNow }
		o.Config.Geo = Geo{Location: demoGeo, ASN: demoGeo}
		o.Config.Stats = kept
	})
}

// everyPage is each kind of page, with what makes it long.
var everyPage = []string{
	"/", "/?sort=bandwidth&order=desc", "/?country=DE&health=fresh&protocol=https&family=ipv4&q=university&page=1", "/?page=11", "/?q=nothing-is-like-that", "/kitten",
	"/mirrors/mirror-0005.some-university.example.org", "/mirrors/mirror-0001.some-university.example.org", "/mirrors/hostile.example.org",
	"/isos", "/kitten/isos", "/isos/x86_64/9.8", "/isos/x86_64/9.7", "/kitten/isos/x86_64/10-kitten",
	"/explain", "/explain?ip=192.0.2.7&mirror=mirror-0005.some-university.example.org&arch=x86_64", "/explain?ip=203.0.113.7", "/explain?ip=nonsense", "/explain?version=9.7",
	"/propagation", "/statistics", "/status", "/repo-file", "/repo-file?version=9&list=mirrorlist&protocol=https&gpgkey=https://example.org/key%26%22",
	"/mirrors/nobody.example.org", "/isos/mips/9",
}

// mapPages are parts of the map.
var mapPages = []string{"/map", "/map?x=1050&y=180&zoom=8", "/map?x=1050&y=180&zoom=32"}

// htmlWorlds are networks whose pages are looked at: one of which nothing is known,
// one of which much is, and one that is as large and as ill as a network can be.
func htmlWorlds(t testing.TB) map[string]http.Handler {
	checked := newCheckedWorld()
	return map[string]http.Handler{
		"nothing known": pagesServer(t, pagesWorld),
		"nothing counted": pagesServer(t, pagesWorld, func(o *Options) {
			o.Source, o.Now = checked, func() time.Time { return pagesNow }
			o.Config.Stats = "dir:" + t.TempDir()
		}),
		"no mirrors": pagesServer(t, map[string]string{"network.yml": pagesWorld["network.yml"], "mirrors.d/private.yml": pagesWorld["mirrors.d/private.yml"]}),
		"full":       fullWorld(t),
	}
}

// askHTML asks for a page as a browser does, which gets errors as pages too.
func askHTML(h http.Handler, path string) *httptest.ResponseRecorder {
	return serveOne(h, "GET", path, "192.0.2.7:1", map[string]string{"Accept": "text/html"})
}

// tidyAllows are what tidy 5.6 takes for wrong and is not, with the reason. Each is
// about an attribute that it does not know yet.
var tidyAllows = []struct{ says, because string }{
	{`<a> proprietary attribute "aria-current"`, "WAI-ARIA 1.1 has it; tidy has 1.0"},
	{`<a> proprietary attribute "href"`, "of a link inside of svg, which tidy reads as HTML; one in HTML it knows"},
	{`<a> proprietary attribute "aria-label"`, "of a link inside of svg"},
}

// validate has tidy read a page, and returns what it finds wrong.
func validate(t *testing.T, tidy string, page []byte) (wrong []string) {
	t.Helper()
	cmd := exec.Command(tidy, "-q", "-e", "--show-info", "no", "--drop-empty-elements", "no")
	cmd.Stdin = bytes.NewReader(page)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
lines:
	for line := range strings.Lines(string(out)) {
		for _, a := range tidyAllows {
			if strings.Contains(line, a.says) {
				continue lines
			}
		}
		if line = strings.TrimSpace(line); line != "" {
			wrong = append(wrong, line)
		}
	}
	return wrong
}

// Every page is HTML to a parser of somebody else, and small, whatever the network
// is like.
func TestEveryPageIsValidAndSmall(t *testing.T) {
	worlds := htmlWorlds(t)
	pages := append(slices.Clone(everyPage), mapPages...)
	t.Run("small", func(t *testing.T) {
		for _, path := range pages {
			if w := askHTML(worlds["full"], path); w.Body.Len() > pageLimit {
				t.Errorf("%s has %d bytes, want at most %d", path, w.Body.Len(), pageLimit)
			} else {
				t.Logf("%s: %d bytes", path, w.Body.Len())
			}
		}
		// What every page loads beside itself.
		n := 0
		for _, name := range []string{"style.css", "page.js", "icon.svg"} {
			made, err := assets[name].answer()
			if err != nil {
				t.Fatal(err)
			}
			n += len(made.body)
		}
		if n > pageLimit/2 {
			t.Errorf("style, script and icon have %d bytes", n)
		}
	})
	t.Run("valid", func(t *testing.T) {
		tidy := testworld.Need(t, "tidy")
		for name, h := range worlds {
			for _, path := range pages {
				w := askHTML(h, path)
				if kind := w.Header().Get("Content-Type"); kind != typeHTML {
					t.Errorf("%s, %s: %d, %s", name, path, w.Code, kind)
				}
				for _, line := range validate(t, tidy, w.Body.Bytes()) {
					t.Errorf("%s, %s: %s", name, path, line)
				}
			}
		}
		// The same with what is easily done wrong must not pass.
		page := askHTML(worlds["full"], "/").Body.String()
		for what, bad := range map[string]string{
			"an end tag is missing":   strings.Replace(page, "</table>", "", 1),
			"an id is there twice":    strings.Replace(page, `<div id="found">`, `<div id="main">`, 1),
			"a name is not escaped":   strings.Replace(page, "hostile.example.org</a>", "<hostile></a>", 1),
			"an attribute is no such": strings.Replace(page, `<table class=`, `<table klass=`, 1),
		} {
			if bad == page {
				t.Errorf("%s: the page has nothing to spoil", what)
			} else if len(validate(t, tidy, []byte(bad))) == 0 {
				t.Errorf("tidy finds nothing wrong where %s", what)
			}
		}
	})
}

func TestCountriesAreShadedByThirds(t *testing.T) {
	r := &stats.Result{}
	for code, n := range map[string]uint64{"US": 9000, "DE": 3000, "FR": 2990, "SG": 1000, "BR": 330, "JP": 10, stats.Other: 50_000, stats.Unknown: 10} {
		r.Rows = append(r.Rows, stats.Row{Labels: []string{code}, Value: stats.Value{Count: n}})
	}
	shades, key := heats(r)
	got := map[string]string{}
	for i, s := range shades {
		name, _, _ := strings.Cut(s.Title, ":")
		got[name] = s.Class
		if disc := s.Code == ""; disc != (name == "Singapore") || disc && i != len(shades)-1 {
			t.Errorf("%s is drawn as %+v, number %d", name, s, i)
		}
	}
	want := map[string]string{"United States": "heat4", "Germany": "heat4", "France": "heat3", "Singapore": "heat3", "Brazil": "heat1", "Japan": "heat0"}
	if !maps.Equal(got, want) {
		t.Errorf("shades are %v, want %v", got, want)
	}
	words := ""
	for _, k := range key {
		words += k.Words + ", "
	}
	if words != "fewer, 120 or more, 340 or more, 1\u202f000 or more, 3\u202f000 or more, " {
		t.Errorf("they stand for %s", words)
	}
	if shades, key := heats(&stats.Result{}); shades != nil || key != nil {
		t.Error("nothing is shaded")
	}
}
