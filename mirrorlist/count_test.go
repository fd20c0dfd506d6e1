package mirrorlist

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meridian/mirrorlist/stats"
)

// withStats makes a server keep statistics in dir, know the places of the demo,
// and believe proxies on loopback. It is noon for it, so that no day ends.
func withStats(dir string) func(*Options) {
	noon := stats.DayOf(time.Now()).Time().Add(12 * time.Hour)
	return func(o *Options) {
		o.Now = func() time.Time { return noon }
		o.Config.Stats, o.Config.Node = "dir:"+dir, "node-1"
		o.Config.Geo = Geo{demoGeo, demoGeo}
		o.Config.TrustedProxies = []string{"127.0.0.0/8"}
	}
}

// counted asks what all nodes have counted so far, by columns.
func counted(t *testing.T, s *Server, table *stats.Table, by ...string) (rows map[string]stats.Value, total stats.Value) {
	t.Helper()
	today := stats.DayOf(s.now())
	res, err := s.Statistics().Query(t.Context(), stats.Query{Table: table, From: today - 7, To: today, By: by})
	if err != nil {
		t.Fatal(err)
	}
	rows = map[string]stats.Value{}
	for _, r := range res.Rows {
		rows[strings.Join(r.Labels, " ")] = r.Value
	}
	return rows, res.Total
}

func TestStatisticsOfWhatWasServed(t *testing.T) {
	dir := newFiles(t, 3)
	writeFile(t, dir+"/mirrors.d/zq7.yml", mirrorYAML("zq7private.example.org", "private: true\nsubnets: [203.0.113.0/25]\n"))
	st := startIn(t, dir, func(o *Options) {
		withStats(filepath.Join(dir, "stats"))(o)
		o.Config.ListBytes = map[string]int64{"appstream": 700, "*": 300}
	})
	h, _ := st.Handlers()
	method := "GET"
	ask := func(n int, client, target, agent string, want int) {
		t.Helper()
		for range n {
			w := serveOne(h, method, target, "127.0.0.1:1", map[string]string{"X-Forwarded-For": client, "User-Agent": agent})
			if w.Code != want {
				t.Fatalf("%s: %d %s", target, w.Code, w.Body)
			}
		}
	}
	const libdnf = "libdnf (AlmaLinux 9.8; server; Linux.aarch64)"
	ask(20, "192.0.2.1", "/mirrorlist/9/baseos?arch=x86_64", "", 200)
	ask(20, "192.0.2.200", "/mirrorlist/9/appstream?countme=2", libdnf, 200)
	ask(10, "203.0.113.1", "/mirrorlist?repo=baseos-9.8&arch=aarch64&countme=1", libdnf, 200) // of the private mirror
	ask(10, "10.1.2.3", "/isolist/9/x86_64", "", 200)
	ask(10, "2001:db8:1::1", "/mirrorlist/9.7/baseos?countme=4&arch=x86_64", "curl", 200) // the vault
	ask(20, "192.0.2.1", "/metalink/9/baseos?arch=aarch64&countme=3", libdnf, 200)
	ask(10, "192.0.2.1", "/metalink/9.7/baseos?arch=aarch64", libdnf, 200)
	ask(10, "nobody", "/mirrorlist/9/baseos", "", 200)
	ask(50, "192.0.2.1", "/mirrorlist/80/baseos?countme=1", libdnf, 404)
	ask(50, "192.0.2.1", "/mirrorlist/9/baseos?country=x&countme=1", libdnf, 400)
	ask(50, "192.0.2.1", "/mirrorlist/9/baseos?arch=x86_64&countme=7", libdnf, 200)
	ask(50, "192.0.2.1", "/", "", 200)
	method = "HEAD" // is no list
	ask(50, "192.0.2.1", "/mirrorlist/9/baseos?arch=x86_64&countme=1", libdnf, 200)
	ask(50, "192.0.2.1", "/metalink/9/baseos?arch=x86_64", libdnf, 200)
	ask(50, "192.0.2.1", "/metalink/9.7/baseos?arch=aarch64", libdnf, 200)
	ask(50, "192.0.2.1", "/isolist/9/x86_64", libdnf, 200)
	if err := st.stop(); err != nil {
		t.Fatal(err)
	}

	got, total := counted(t, st.Server, stats.Lists, "country", "version", "repo", "arch")
	want := map[string]uint64{
		"DE 9.8 baseos x86_64": 70, "FR 9.8 appstream unnamed": 20, "JP 9.8 baseos aarch64": 10, "unknown 9.8 isos x86_64": 10,
		"DE 9.7 baseos x86_64": 10, "unknown 9.8 baseos unnamed": 10, "DE 9.8 baseos aarch64": 20, "DE 9.7 baseos aarch64": 10,
	}
	compare := func(what string, got map[string]stats.Value, want map[string]uint64) {
		t.Helper()
		for k, v := range got {
			if want[k] != v.Count {
				t.Errorf("%s: %s %d, want %d", what, k, v.Count, want[k])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	compare("lists", got, want)
	if total.Count != 160 {
		t.Errorf("%d lists, want 160", total.Count)
	}
	got, _ = counted(t, st.Server, stats.Countme, "version", "repo", "arch", "age", "variant", "system")
	compare("systems", got, map[string]uint64{
		"9.8 appstream unnamed 2 server aarch64": 20, "9.8 baseos aarch64 1 server aarch64": 10, "9.7 baseos x86_64 4 other other": 10,
		"9.8 baseos aarch64 3 server aarch64": 20,
	})
	got, total = counted(t, st.Server, stats.Mirrors, "mirror")
	if got[stats.Private].Count != 10 || got[stats.Vault].Count != 20 || total.Count != 160 || total.Bytes != 20*700+140*300 {
		t.Errorf("mirrors: %v of %v", got, total)
	}
	for name := range got {
		if strings.Contains(name, "zq7") {
			t.Errorf("the private mirror is named: %v", got)
		}
	}
}

// What is written has nothing of a request in it: no address, no User-Agent, no
// query, however they look, and no number below ten.
func TestStatisticsKeepNothingOfARequest(t *testing.T) {
	dir := newFiles(t, 4)
	where := filepath.Join(dir, "stats")
	st := startIn(t, dir, withStats(where))
	h, _ := st.Handlers()
	rng := rand.New(rand.NewPCG(11, 12))
	// Each part of a request has a word in it that nothing else has.
	const secret = "zq7"
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	clients := []string{"192.0.2.77", "192.0.2.177", "198.51.100.77", "203.0.113.77", "2001:db8:5::77", "100.64.77.77", secret}
	var served atomic.Uint64
	for i := range 20_000 {
		agent := pick("libdnf ("+secret+"; generic; Linux.x86_64)", "libdnf (AlmaLinux 9.8; "+secret+"; Linux.x86_64)", "libdnf (AlmaLinux 9.8; server; Linux."+secret+")",
			"libdnf (AlmaLinux 9.8; kde; Linux.aarch64)", secret, "", fmt.Sprintf("libdnf (a; %s-%d; Linux.x86_64)", secret, i))
		query := url.Values{}
		for _, name := range []string{"arch", "countme", "country", "protocol", secret} {
			if rng.IntN(2) == 0 {
				query.Set(name, pick("x86_64", "aarch64", "1", "2", "3", "4", "44", "DE", "http", secret, "", fmt.Sprint(i)))
			}
		}
		target := pick("/mirrorlist/9/baseos", "/mirrorlist/9/appstream", "/mirrorlist/9.99/baseos", "/mirrorlist/9.7/baseos", "/isolist/9/x86_64", "/mirrorlist/"+secret+"/baseos", "/mirrorlist/9/"+secret, "/"+secret)
		w := serveOne(h, "GET", target+"?"+query.Encode(), "127.0.0.1:1", map[string]string{
			"X-Forwarded-For": pick(clients...), "User-Agent": agent, "Referer": secret, "Cookie": secret, "Accept-Language": secret,
		})
		if w.Code == http.StatusOK && !strings.HasPrefix(target, "/"+secret) {
			served.Add(1)
		}
		if i%3000 == 2999 {
			if err := st.recorder.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			checkStatistics(t, where, secret, "77")
		}
	}
	if err := st.stop(); err != nil {
		t.Fatal(err)
	}
	if n := checkStatistics(t, where, secret, "77"); n < 30 {
		t.Errorf("there are %d cells", n)
	}
	if _, total := counted(t, st.Server, stats.Lists); total.Count != stats.Whole(served.Load()) || total.Count < 3000 {
		t.Errorf("%d lists were counted, %d were served", total.Count, served.Load())
	}
	// Nor is there any of it in what is exported.
	today := stats.DayOf(st.now())
	for _, table := range stats.Tables {
		res, err := st.Statistics().Query(t.Context(), stats.Query{Table: table, From: today - 7, To: today, By: table.Columns})
		if err != nil {
			t.Fatal(err)
		}
		var csv strings.Builder
		if err := res.WriteCSV(&csv); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(res)
		if err != nil {
			t.Fatal(err)
		}
		if both := csv.String() + string(text); strings.Contains(both, secret) {
			t.Errorf("exported: %s", both)
		}
		for _, row := range res.Rows {
			if row.Count < stats.Least {
				t.Errorf("exported: %v", row)
			}
		}
	}
}

// Whoever reads every edition of every export, and subtracts what can be
// subtracted, of one edition, of two that follow each other, or of two tables, gets
// no number of lists between nothing and ten: all of them are whole tens.
func TestNoExportTellsOfFewerThanTen(t *testing.T) {
	dir := newFiles(t, 3)
	var clock atomic.Int64
	clock.Store(time.Date(2026, 3, 1, 23, 0, 0, 0, time.UTC).Unix()) // the end of a day and of a week
	st := startIn(t, dir, func(o *Options) {
		withStats(filepath.Join(dir, "stats"))(o)
		o.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
		o.Config.RequestsPerSecond = -1
	})
	h, _ := st.Handlers()
	get := func(h http.Handler, target string) string {
		t.Helper()
		w := serveOne(h, "GET", target, "127.0.0.1:1", map[string]string{"X-Forwarded-For": "192.0.2.1"})
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", target, w.Code, w.Body)
		}
		return w.Body.String()
	}
	whole := func(where string, n float64) {
		t.Helper()
		if int(n)%stats.Least != 0 {
			t.Errorf("%s has %v", where, n)
		}
	}
	numbers, served := 0, 0
	look := func() {
		t.Helper()
		if err := st.recorder.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, table := range stats.Tables {
			for _, by := range []string{"period", strings.Join(table.Columns, ","), "period," + table.Columns[0], table.Columns[len(table.Columns)-1]} {
				target := "/api/v1/statistics/" + table.Name
				query := "?from=2026-02-01&to=2026-03-31&by=" + by
				var r stats.Result
				if err := json.Unmarshal([]byte(get(h, target+query)), &r); err != nil {
					t.Fatal(err)
				}
				whole(target+query+": the total", float64(r.Total.Count))
				rest := r.Total.Count
				for _, row := range r.Rows {
					numbers++
					whole(fmt.Sprintf("%s%s: %v", target, query, row.Labels), float64(row.Count))
					rest -= row.Count
				}
				whole(target+query+": what is in no row", float64(rest))
				lines, err := csv.NewReader(strings.NewReader(get(h, target+".csv"+query))).ReadAll()
				if err != nil || len(lines) != len(r.Rows)+1 {
					t.Fatalf("%s.csv%s: %d lines: %v", target, query, len(lines), err)
				}
				at := slices.Index(lines[0], "count")
				for _, line := range lines[1:] {
					n, err := strconv.ParseFloat(line[at], 64)
					if err != nil {
						t.Fatal(err)
					}
					whole(fmt.Sprintf("%s.csv%s: %v", target, query, line), n)
				}
			}
		}
		page, _ := st.get(st.admin + "/metrics")
		for _, m := range regexp.MustCompile(`(?m)^(meridian_mirrorlist_(?:lists|systems|first_line)\S*) (\S+)$`).FindAllStringSubmatch(page, -1) {
			n, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				t.Fatal(err)
			}
			numbers++
			whole("/metrics: "+m[1], n)
		}
	}
	rng := rand.New(rand.NewPCG(17, 18))
	for round := range 40 {
		for range rng.IntN(25) {
			client := []string{"192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.200", "203.0.113.7", "10.0.0.1", "2001:db8:1::1"}[rng.IntN(7)]
			target := []string{"/mirrorlist/9/baseos?arch=x86_64&countme=1", "/mirrorlist/9/baseos?arch=aarch64&countme=2", "/mirrorlist/9/appstream", "/metalink/9/baseos?arch=x86_64", "/mirrorlist/9.7/baseos"}[rng.IntN(5)]
			w := serveOne(h, "GET", target, "127.0.0.1:1", map[string]string{"X-Forwarded-For": client, "User-Agent": "libdnf (AlmaLinux 9.8; server; Linux.x86_64)"})
			if w.Code != http.StatusOK {
				t.Fatalf("%s: %d", target, w.Code)
			}
			served++
		}
		look()
		if round == 20 {
			clock.Add(2 * 3600) // what waits is folded
			look()
		}
	}
	clock.Add(24 * 3600)
	look()
	if numbers < 1000 || served < 300 {
		t.Errorf("%d numbers about %d lists were looked at", numbers, served)
	}
}

// Whatever is in a request, statistics have no label but those of the network and
// of the vocabulary.
func FuzzStatistics(f *testing.F) {
	dir := newFiles(f, 3)
	where := filepath.Join(dir, "stats")
	opts := Options{Config: Config{Network: filepath.Join(dir, "network.yml"), CacheDir: f.TempDir(), AllowPrivateAddresses: true}, Log: slog.New(slog.DiscardHandler), Resolver: noNames{}}
	withStats(where)(&opts)
	s, err := New(f.Context(), opts)
	if err != nil {
		f.Fatal(err)
	}
	h, _ := s.Handlers()
	words := map[string]bool{stats.Other: true, stats.Unknown: true, stats.Unnamed: true, stats.Private: true, stats.Vault: true}
	t := s.table.Load()
	for _, slot := range t.slots {
		words[string(slot.key.Version)], words[slot.key.Repo], words[string(slot.told)] = true, true, true
	}
	for i := range t.mirrors {
		words[t.mirrors[i].Name] = true
	}
	for _, word := range strings.Fields("DE FR US GB BR JP IN AU ZA 1 2 3 4 generic server workstation cloud container coreos iot kde xfce cinnamon matecompiz silverblue kinoite snappy soas x86_64 x86_64_v2 aarch64 ppc64le s390x riscv64 i386") {
		words[word] = true
	}
	f.Add("/mirrorlist/9/baseos?countme=1", "libdnf (AlmaLinux 9.8; generic; Linux.x86_64)", "192.0.2.1")
	f.Add("/mirrorlist/9.8/baseos?countme=4&arch=aarch64", "libdnf (a; b; Linux.c)", "nobody")
	f.Add("/metalink/9/baseos?arch=x86_64&countme=2", "(; ; )", "2001:db8:5::1, 127.0.0.1")
	f.Add("/isolist/9/x86_64", "", "")
	f.Fuzz(func(t *testing.T, target, agent, forwarded string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		r := &http.Request{Method: "GET", URL: u, Host: "m", RemoteAddr: "127.0.0.1:1", Header: http.Header{"User-Agent": {agent}, "X-Forwarded-For": {forwarded}}}
		for range stats.Least {
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
		if err := s.recorder.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		today := stats.DayOf(s.now())
		for _, table := range stats.Tables {
			store, err := stats.Open("dir:" + where)
			if err != nil {
				t.Fatal(err)
			}
			res, err := stats.NewReader(store, s.now).Query(t.Context(), stats.Query{Table: table, From: today - 7, To: today, By: table.Columns})
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range res.Rows {
				for _, label := range row.Labels {
					if !words[label] {
						t.Errorf("%s has %q after %q for %q with %q", table.Name, label, target, forwarded, agent)
					}
				}
				if row.Count < stats.Least {
					t.Errorf("%s has %v", table.Name, row)
				}
			}
		}
	})
}

// checkStatistics looks at each file below dir as a stranger does. It returns the
// number of cells.
func checkStatistics(t *testing.T, dir string, words ...string) (cells int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var doc struct {
			Cells [][]any
			Total struct{ Count float64 }
		}
		if err := json.Unmarshal(data, &doc); err != nil {
			return err
		}
		for _, row := range doc.Cells {
			cells++
			for _, v := range row {
				switch v := v.(type) {
				case string:
					for _, word := range words {
						if _, err := netip.ParseAddr(v); err == nil || strings.Contains(v, word) {
							t.Errorf("%s has %q", path, v)
						}
					}
				case float64:
					if v < stats.Least {
						t.Errorf("%s has %v", path, row)
					}
				}
			}
		}
		if doc.Total.Count < stats.Least || int(doc.Total.Count)%stats.Least != 0 {
			t.Errorf("%s has a total of %v", path, doc.Total.Count)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return cells
}

// Metrics have the last whole week and day of all nodes, and nothing of the
// present ones.
func TestStatisticsAsMetrics(t *testing.T) {
	dir := newFiles(t, 2)
	var clock atomic.Int64
	clock.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Unix()) // a Sunday
	st := startIn(t, dir, func(o *Options) {
		withStats(filepath.Join(dir, "stats"))(o)
		o.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
	})
	h, _ := st.Handlers()
	for i := range 50 {
		serveOne(h, "GET", "/mirrorlist/9/baseos?arch=x86_64&countme=1", fmt.Sprintf("192.0.2.%d:1", i/30*200), map[string]string{"User-Agent": "libdnf (AlmaLinux 9.8; kde; Linux.x86_64)"})
	}
	if err := st.recorder.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`meridian_mirrorlist_systems{repo="baseos",system="x86_64",version="9.8"} 50`,
		`meridian_mirrorlist_lists_by_country{country="DE"} 30`, `meridian_mirrorlist_lists_by_country{country="FR"} 20`,
	}
	for _, over := range []bool{false, true} {
		page, _ := st.get(st.admin + "/metrics")
		for _, line := range want {
			if strings.Contains(page, line) != over {
				t.Errorf("the week is over: %v; the page has %s: %v", over, line, !over)
			}
		}
		clock.Add(86400)
	}
}

// Reloads replace tables, and what numbers mean in them, under requests that
// began before. Every list that a client got is counted once.
func TestStatisticsDuringReloads(t *testing.T) {
	dir := newFiles(t, 5)
	where := filepath.Join(dir, "stats")
	st := startIn(t, dir, withStats(where))
	h, _ := st.Handlers()
	var served atomic.Uint64
	var done atomic.Bool
	var wg sync.WaitGroup
	for i := range 4 {
		client := fmt.Sprintf("192.0.2.%d:1", 1+i*50)
		wg.Go(func() {
			for !done.Load() {
				r := httptest.NewRequest("GET", "/mirrorlist/9/baseos?arch=x86_64", nil)
				r.RemoteAddr = client
				w := httptest.NewRecorder()
				if h.ServeHTTP(w, r); w.Code == http.StatusOK {
					served.Add(1)
				}
			}
		})
	}
	for i := range 6 {
		name := fmt.Sprintf("mirrors.d/a%d.yml", i%3) // comes and goes, before all others
		if i < 3 {
			st.write(name, mirrorYAML(fmt.Sprintf("a%d.example.org", i), ""))
		} else if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := st.Reload(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if err := st.recorder.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	done.Store(true)
	wg.Wait()
	if err := st.stop(); err != nil {
		t.Fatal(err)
	}
	for _, table := range []*stats.Table{stats.Lists, stats.Mirrors} {
		if _, total := counted(t, st.Server, table); total.Count != stats.Whole(served.Load()) {
			t.Errorf("%s: %d were counted, %d were served", table.Name, total.Count, served.Load())
		}
	}
	rows, _ := counted(t, st.Server, stats.Mirrors, "mirror")
	for name := range rows {
		if !strings.HasSuffix(name, ".example.org") && name != stats.Other {
			t.Errorf("a mirror is called %q", name)
		}
	}
}

// A restart goes on with what was written. What is over ten is lost each time.
func TestStatisticsOverARestart(t *testing.T) {
	dir := newFiles(t, 2)
	where := filepath.Join(dir, "stats")
	for i, step := range []struct{ lists, want int }{{7, 0}, {20, 20}, {7, 20}, {11, 30}} {
		st := startIn(t, dir, withStats(where))
		for range step.lists {
			st.list("/mirrorlist/9/baseos")
		}
		if err := st.stop(); err != nil {
			t.Fatal(err)
		}
		if _, total := counted(t, st.Server, stats.Lists); total.Count != uint64(step.want) {
			t.Errorf("after start %d: %d lists, want %d", i+1, total.Count, step.want)
		}
	}
}

func TestStatisticsThatCannotBeWritten(t *testing.T) {
	dir := newFiles(t, 2)
	writeFile(t, filepath.Join(dir, "stats"), "a file, where a directory should be")
	st := startIn(t, dir, withStats(filepath.Join(dir, "stats")))
	for range 20 {
		if len(st.list("/mirrorlist/9/baseos")) != 2 {
			t.Fatal("lists are not served")
		}
	}
	if st.recorder.Flush(t.Context()) == nil {
		t.Fatal("there is no error")
	}
	until(t, "readiness says so", func() bool { return st.degraded("stats", "not a directory") })
	if err := os.Remove(filepath.Join(dir, "stats")); err != nil {
		t.Fatal(err)
	}
	if err := st.recorder.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "all is well again", st.fine)
	if _, total := counted(t, st.Server, stats.Lists); total.Count != 20 {
		t.Errorf("%d lists were counted", total.Count)
	}
}

func TestStatisticsSettings(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"another kind of place", func(c *Config) { c.Stats = "/var/lib/stats" }, "stats: not a place that is known; write dir:PATH, redis://HOST:PORT/DB"},
		{"a password in what is wrong", func(c *Config) { c.Stats = "redis://:zq7@h:1:1/" }, "stats: "},
		{"too few days", func(c *Config) { c.StatsDays = 7 }, "stats_days: 7 is too few; write 35 or more"},
		{"a name that is a path", func(c *Config) { c.Node = "../n" }, `node: "../n" is no name of a node`},
		{"fewer bytes than none", func(c *Config) { c.ListBytes = map[string]int64{"*": -1} }, "list_bytes: *: -1 is less than nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts, _ := optionsFor(t, newFiles(t, 1))
			tt.change(&opts.Config)
			if _, err := New(t.Context(), opts); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "zq7") {
				t.Errorf("New: %v, want %q", err, tt.want)
			}
		})
	}
	// Without the setting nothing is kept, and nothing is there to be read.
	opts, _ := optionsFor(t, newFiles(t, 1))
	s, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if s.Statistics() != nil || s.table.Load().tally != nil {
		t.Error("statistics are kept of which nobody has said where")
	}
}
