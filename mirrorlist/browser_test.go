package mirrorlist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"meridian/checker/state"
	"meridian/internal/testworld"
	"meridian/mirrorlist/stats"
)

// browserWorld is pagesWorld in the middle of a network of some size, with findings,
// a past and statistics. One of its mirrors has a script for a sponsor.
func browserWorld(t *testing.T) *httptest.Server {
	t.Helper()
	files, world := maps.Clone(pagesWorld), newCheckedWorld()
	files["mirrors.d/hostile.yml"] = strings.Replace(files["mirrors.d/hostile.yml"], "country: AT,", "country: AT, latitude: 47.1, longitude: 15.4,", 1)
	x86 := state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}
	healths := []state.Health{state.Fresh, state.Fresh, state.Fresh, state.Lagging, state.Fresh, state.Down, state.Stale}
	cities := []struct {
		country, name string
		lat, lon      float64
	}{
		{"DE", "Berlin", 52.5, 13.4}, {"DE", "Hamburg", 53.6, 10}, {"FR", "Paris", 48.9, 2.4}, {"US", "New York", 40.7, -74}, {"US", "Seattle", 47.6, -122.3},
		{"BR", "São Paulo", -23.5, -46.6}, {"ZA", "Cape Town", -33.9, 18.4}, {"IN", "Mumbai", 19.1, 72.9}, {"JP", "Tokyo", 35.7, 139.7}, {"AU", "Sydney", -33.9, 151.2},
	}
	for i := range 240 {
		c := cities[i%len(cities)]
		name := fmt.Sprintf("mirror%03d.example.net", i)
		files["mirrors.d/"+name+".yml"] = fmt.Sprintf("name: %s\naddress: {http: http://%[1]s/linux/, https: https://%[1]s/linux/, rsync: rsync://%[1]s/linux/}\nsponsor: University %d\nsponsor_url: https://u%[2]d.example.net/\nbandwidth: %d\nupdate_frequency: %dh\ngeolocation: {country: %s, city: %s, latitude: %g, longitude: %g}\n",
			name, i, 100*(1+i%50), 1+i%12, c.country, c.name, c.lat+float64(i%7)/5, c.lon+float64(i%11)/5)
		h := healths[i%len(healths)]
		st := &state.Status{Health: map[state.Key]state.Health{x86: h, {Version: "9.8", Repo: isoRepo, Arch: "x86_64"}: state.Fresh}, IPv4: state.Reached, Visited: pagesNow.Add(-time.Minute)}
		if h == state.Lagging || h == state.Stale {
			st.Holds = map[state.Key]state.GenerationID{x86: world.snap.Truth[x86].Generations[1].ID()}
		}
		world.snap.Mirrors[name] = st
	}
	dir := t.TempDir()
	where := filepath.Join(dir, "statistics")
	store, err := stats.Open("dir:" + where)
	if err != nil {
		t.Fatal(err)
	}
	recorder := stats.NewRecorder(stats.Options{Store: store, Node: "node-1", Days: 400, Now: func() time.Time { return pagesNow }})
	tally := recorder.Attach(&stats.Layout{
		Slots:   []stats.Slot{{Version: "9.8", Repo: "baseos", Arch: "x86_64", Bytes: 1000}, {Version: "9.8", Repo: "extras", Arch: "x86_64", Bytes: 1000}},
		Mirrors: []string{"mirror000.example.net", "mirror003.example.net"},
	})
	for i, country := range []string{"DE", "US", "JP", "BR"} {
		for range 500 * (i + 1) {
			tally.List(i%2, stats.CountryOf(twoLetters(country)), i%2)
			tally.Countme(i%2, uint8(1+i), stats.System{})
		}
	}
	if err := recorder.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := pagesServer(t, files, func(o *Options) {
		o.Source, o.Now = world, func() time.Time { return pagesNow }
		o.Config.Geo = Geo{Location: demoGeo, ASN: demoGeo}
		o.Config.Stats = "dir:" + where
		o.Config.Node = "node-1"
	})
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

// A visitor is a browser that looks at one server, and notes what it should not have
// to.
type visitor struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu    sync.Mutex // guards wrong
	wrong []string
}

func newVisitor(t *testing.T, base string) *visitor {
	t.Helper()
	path := testworld.Need(t, "chromium")
	flags := append([]chromedp.ExecAllocatorOption{}, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.ExecPath(path), chromedp.UserDataDir(testworld.TempDir(t)), chromedp.WSURLReadTimeout(5*time.Minute))
	for _, name := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage", "hide-scrollbars"} {
		flags = append(flags, chromedp.Flag(name, true))
	}
	// A page that comes back out of the cache has no context that chromedp knows.
	flags = append(flags, chromedp.Flag("disable-features", "BackForwardCache"))
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	t.Cleanup(cancel)
	ctx, end := chromedp.NewExecAllocator(ctx, flags...)
	t.Cleanup(end)
	ctx, end = chromedp.NewContext(ctx)
	t.Cleanup(end)
	v := &visitor{t: t, ctx: ctx, base: base}
	note := func(format string, args ...any) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
	}
	chromedp.ListenTarget(ctx, func(ev any) {
		switch e := ev.(type) {
		case *network.EventRequestWillBeSent:
			if u := e.Request.URL; !strings.HasPrefix(u, base+"/") && !strings.HasPrefix(u, "about:") {
				note("a request to another place: %s", u)
			}
		case *network.EventLoadingFailed:
			if !e.Canceled {
				note("a request failed: %s %s", e.ErrorText, e.BlockedReason)
			}
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning {
				note("the console says: %v", e.Args)
			}
		case *runtime.EventExceptionThrown:
			note("an exception: %s", e.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			if e.Entry.Level == log.LevelError || e.Entry.Source == log.SourceSecurity {
				note("the log says: %s %s", e.Entry.Text, e.Entry.URL)
			}
		}
	})
	v.do(network.Enable(), log.Enable(), runtime.Enable())
	return v
}

func (v *visitor) do(actions ...chromedp.Action) {
	v.t.Helper()
	if err := chromedp.Run(v.ctx, actions...); err != nil {
		v.t.Fatal(err)
	}
}

// open looks at a page.
func (v *visitor) open(path string) {
	v.t.Helper()
	v.do(chromedp.Navigate(v.base+path), chromedp.WaitReady("footer"))
}

// until waits for a condition of the page.
func (v *visitor) until(what, condition string) {
	v.t.Helper()
	var ok bool
	err := chromedp.Run(v.ctx, chromedp.Poll("!!("+condition+")", &ok, chromedp.WithPollingTimeout(5*time.Minute)))
	for range 3 { // a page that goes takes the question with it
		if err == nil || errors.Is(err, chromedp.ErrPollingTimeout) || v.ctx.Err() != nil {
			break
		}
		err = chromedp.Run(v.ctx, chromedp.Poll("!!("+condition+")", &ok, chromedp.WithPollingTimeout(5*time.Minute)))
	}
	if err != nil {
		var text string
		_ = chromedp.Run(v.ctx, chromedp.Evaluate("location.href + '\\n' + document.body.innerText.slice(0, 2000)", &text))
		v.t.Fatalf("%s: %v\n%s", what, err, text)
	}
}

// shoot keeps a picture of the whole page.
func (v *visitor) shoot(name string) {
	v.t.Helper()
	var png []byte
	v.do(chromedp.FullScreenshot(&png, 100))
	if err := os.WriteFile(filepath.Join(v.t.ArtifactDir(), name+".png"), png, 0o644); err != nil {
		v.t.Error(err)
	}
}

// fine fails the test for all that was noted until now.
func (v *visitor) fine(where string) {
	v.t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, w := range v.wrong {
		v.t.Errorf("%s: %s", where, w)
	}
	v.wrong = nil
}

// look is how a page is shown.
type look struct {
	name   string
	wide   int64
	scheme string
}

var looks = []look{{"light", 1280, "light"}, {"dark", 1280, "dark"}, {"phone", 360, "light"}}

func (v *visitor) as(l look) {
	v.t.Helper()
	v.do(chromedp.EmulateViewport(l.wide, 800), emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: l.scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}))
}

var browserPages = []struct{ name, path string }{
	{"mirrors", "/"}, {"module", "/kitten"}, {"mirror", "/mirrors/hostile.example.org"}, {"map", "/map?ip=203.0.113.7"}, {"europe", "/map?x=1050&y=180&zoom=8"}, {"isos", "/isos"}, {"iso", "/isos/x86_64/9.8"},
	{"explain", "/explain?ip=203.0.113.7&mirror=hostile.example.org"}, {"propagation", "/propagation"}, {"statistics", "/statistics"}, {"status", "/status"}, {"repo-file", "/repo-file"},
}

// Every page, in each look: nothing in it may be wrong for axe-core, wider than the
// screen, said on the console, or asked of anybody else.
func TestEveryPageInABrowser(t *testing.T) {
	srv := browserWorld(t)
	v := newVisitor(t, srv.URL)
	axe, err := os.ReadFile("testdata/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range looks {
		v.as(l)
		for _, p := range browserPages {
			where := p.name + ", " + l.name
			v.open(p.path)
			var sizes struct{ Page, Screen float64 }
			v.do(chromedp.Evaluate(`({Page: document.documentElement.scrollWidth, Screen: innerWidth})`, &sizes))
			if sizes.Page > sizes.Screen {
				t.Errorf("%s: the page is %.0f wide, and the screen %.0f", where, sizes.Page, sizes.Screen)
			}
			var violations []struct {
				ID, Impact, Help string
				Nodes            []struct{ HTML, FailureSummary string }
			}
			v.do(chromedp.Evaluate(string(axe)+";0", nil), chromedp.Evaluate(`axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations)`, &violations,
				func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
			for _, bad := range violations {
				if bad.Impact == "serious" || bad.Impact == "critical" {
					t.Errorf("%s: %s (%s), %d times, such as %s: %s", where, bad.Help, bad.ID, len(bad.Nodes), bad.Nodes[0].HTML, bad.Nodes[0].FailureSummary)
				} else {
					t.Logf("%s: %s (%s): %s", where, bad.Help, bad.Impact, bad.Nodes[0].HTML)
				}
			}
			v.shoot(p.name + "-" + l.name)
			v.fine(where)
		}
	}
}

// A person looks for mirrors, follows one, and asks why it is in a list.
func TestPersonUsesThePages(t *testing.T) {
	srv := browserWorld(t)
	v := newVisitor(t, srv.URL)
	v.as(looks[0])
	first := `document.querySelector("table.mirrors tbody th").textContent`

	v.open("/")
	v.do(chromedp.Evaluate("window.stays = true", nil))
	v.do(chromedp.SendKeys("#q", "mirror11", chromedp.ByQuery))
	v.until("a search as it is typed", `document.querySelector("#found [role=status]").textContent.startsWith("10 of 241")`)
	v.do(chromedp.Evaluate(`(() => { const q = document.querySelector("#q"); q.value = ""; q.dispatchEvent(new Event("input", {bubbles: true})); })()`, nil))
	v.until("the search taken back", `document.querySelector("#found [role=status]").textContent.startsWith("Mirrors 1 to 100 of 241")`)
	v.do(chromedp.Evaluate(`(() => { const s = document.querySelector("#country"); s.value = "JP"; s.dispatchEvent(new Event("input", {bubbles: true})); })()`, nil))
	v.until("a filter", `document.querySelector("#found [role=status]").textContent.startsWith("24 of 241") && location.search.includes("country=JP")`)
	v.do(chromedp.Click(`//thead//a[text()="Mbit/s"]`, chromedp.BySearch))
	v.until("sorted", `document.querySelector("th[aria-sort=ascending]").textContent === "Mbit/s"`)
	v.do(chromedp.Click(`//thead//a[text()="Mbit/s"]`, chromedp.BySearch))
	v.until("sorted the other way", `document.querySelector("th[aria-sort=descending]") && document.activeElement.textContent === "Mbit/s"`)
	v.until("with the largest first", first+` === "mirror048.example.net"`)
	var stays bool
	v.do(chromedp.Evaluate("window.stays === true", &stays))
	if !stays {
		t.Error("the page was loaded again for a search, a filter or an order")
	}
	v.fine("the table")

	v.do(chromedp.Click(`//a[text()="mirror048.example.net"]`, chromedp.BySearch))
	v.until("the page of the mirror", `document.title === "mirror048.example.net"`)
	v.do(chromedp.Evaluate("history.back()", nil))
	v.until("back at the table as it was", `document.querySelector("#country") && document.querySelector("#country").value === "JP" && document.querySelector("th[aria-sort=descending]")`)

	v.open("/explain")
	v.do(chromedp.SendKeys("#ip", "192.0.2.7", chromedp.ByQuery), chromedp.SendKeys("#mirror", "mirror000.example.net", chromedp.ByQuery), chromedp.Click("form.filter button", chromedp.ByQuery))
	v.until("an address explained", `document.body.textContent.includes("The address 192.0.2.7") && document.querySelector("[role=status]").textContent.includes("mirror000.example.net")`)
	v.fine("explain")

	v.open("/map")
	var href string
	var ok bool
	v.do(chromedp.AttributeValue("svg.world a", "href", &href, &ok, chromedp.ByQuery))
	v.open(href)
	v.until("nearer", `document.querySelectorAll("svg.world circle").length > 0 && location.search.includes("zoom")`)
	v.fine("the map")

	// Countries are shaded: their shapes come out of a file of their own.
	v.open("/statistics")
	v.until("the shape of a country", `document.querySelector('svg.world use[href$="#US"]').getBoundingClientRect().width > 100`)
	v.fine("statistics")

	// By the keyboard alone: the first stop leads to the content.
	v.open("/status")
	v.do(chromedp.KeyEvent("\t"), chromedp.KeyEvent("\r"))
	v.until("the skip link", `location.hash === "#main" && document.activeElement.id === "main"`)
	v.fine("the keyboard")
}

// Without a script the same can be done, with a page for each step.
func TestPagesWithoutAScript(t *testing.T) {
	srv := browserWorld(t)
	v := newVisitor(t, srv.URL)
	v.do(emulation.SetScriptExecutionDisabled(true))
	v.as(looks[0])
	v.open("/")
	v.do(chromedp.SendKeys("#q", "mirror11", chromedp.ByQuery), chromedp.Submit("#q", chromedp.ByQuery), chromedp.WaitVisible(`//p[@role="status"][starts-with(., "10 of 241")]`, chromedp.BySearch))
	var at string
	v.do(chromedp.Click(`//thead//a[text()="City"]`, chromedp.BySearch), chromedp.WaitVisible(`th[aria-sort=ascending]`, chromedp.ByQuery), chromedp.Location(&at))
	if u, err := url.Parse(at); err != nil || u.Query().Get("q") != "mirror11" || u.Query().Get("sort") != "city" {
		t.Errorf("the sorted table is at %s", at)
	}
	v.open("/map")
	v.do(chromedp.Click(`//nav[@aria-label="Parts of the map"]//a[text()="Larger"]`, chromedp.BySearch), chromedp.WaitVisible(`//a[text()="Whole world"]`, chromedp.BySearch), chromedp.Location(&at))
	if u, err := url.Parse(at); err != nil || u.Path != "/map" || u.Query().Get("zoom") != "2" {
		t.Errorf("the larger map is at %s", at)
	}
	v.fine("without a script")
}

// What a script for a sponsor would do is done nowhere.
func TestScriptsOfOthersDoNotRun(t *testing.T) {
	srv := browserWorld(t)
	v := newVisitor(t, srv.URL)
	var alerts int
	chromedp.ListenTarget(v.ctx, func(ev any) {
		if strings.Contains(fmt.Sprintf("%T", ev), "JavascriptDialogOpening") {
			alerts++
		}
	})
	for _, path := range []string{"/?q=hostile", "/mirrors/hostile.example.org", "/explain?mirror=%3Cscript%3Ealert(1)%3C/script%3E&ip=%22%3E%3Cimg%20src=x%20onerror=alert(1)%3E", "/?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E"} {
		resp, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		v.open(path)
		var scripts []string
		v.do(chromedp.Evaluate(`[...document.querySelectorAll("script, img[onerror], b")].map(e => e.outerHTML)`, &scripts))
		if len(scripts) != 1 || !strings.Contains(scripts[0], "/assets/page.js") {
			text, _ := json.Marshal(scripts)
			t.Errorf("%s: the page has %s", path, text)
		}
	}
	if alerts > 0 {
		t.Errorf("%d scripts of others ran", alerts)
	}
}
