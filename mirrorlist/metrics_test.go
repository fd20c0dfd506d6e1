package mirrorlist

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meridian/checker/state"
	"meridian/internal/testworld"
)

func TestEveryMetricIsDocumented(t *testing.T) {
	ch := make(chan *prometheus.Desc, 100)
	collector{}.Describe(ch)
	close(ch)
	var all []fmt.Stringer
	for d := range ch {
		all = append(all, d)
	}
	testworld.ReadManual(t, "The mirrorlist server").HasMetrics(all)
}

func TestMetricsCountWhatWasServed(t *testing.T) {
	dir := newFiles(t, 3)
	writeFile(t, dir+"/mirrors.d/private.yml", mirrorYAML("private.example.org", "private: true\nsubnets: [10.0.0.0/8]\n"))
	st := startIn(t, dir, func(o *Options) { o.Config.Geo = Geo{demoGeo, demoGeo} })
	for range 23 {
		st.list("/mirrorlist/9/baseos?arch=x86_64")
	}
	for range 10 {
		st.list("/mirrorlist?repo=appstream-9.8")
	}
	for range 9 {
		st.list("/mirrorlist/9/appstream?arch=x86_64")
	}
	st.list("/mirrorlist/80/baseos")
	page, _ := st.get(st.main + "/metrics")
	for _, want := range []string{
		`meridian_mirrorlist_lists_total{arch="x86_64",repo="baseos",version="9.8"} 20`,
		`meridian_mirrorlist_lists_total{arch="",repo="appstream",version="9.8"} 10`,
		`meridian_mirrorlist_answers_total{code="200"} 42`,
		`meridian_mirrorlist_answers_total{code="404"} 1`,
		`meridian_mirrorlist_empty_total 0`,
		`meridian_mirrorlist_mirrors{kind="public"} 3`,
		`meridian_mirrorlist_mirrors{kind="private or cloud"} 1`,
		`meridian_mirrorlist_first_line_total{tier="no place"} 40`,
		"meridian_mirrorlist_database_timestamp_seconds 1.7672256e+09",
		"meridian_mirrorlist_loaded_timestamp_seconds ",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s:\n%s", want, page)
		}
	}
	for _, absent := range []string{`{arch="x86_64",repo="appstream"`, "meridian_mirrorlist_problems{", "meridian_mirrorlist_snapshot_timestamp_seconds", "meridian_mirrorlist_certificate"} {
		if strings.Contains(page, absent) {
			t.Errorf("the page has %s:\n%s", absent, page)
		}
	}
	// Counters are those of the server, not of a table.
	if err := st.Reload(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	page, _ = st.get(st.main + "/metrics")
	if want := `meridian_mirrorlist_lists_total{arch="x86_64",repo="baseos",version="9.8"} 20`; !strings.Contains(page, want) {
		t.Errorf("after a reload the page has no %s", want)
	}
}

func TestMetricsTellHowOldFindingsAre(t *testing.T) {
	taken := time.Now().Add(-2 * time.Hour)
	st := startIn(t, newFiles(t, 1), func(o *Options) { o.Source = &memorySource{snap: &state.Snapshot{Taken: taken}} })
	page, _ := st.get(st.main + "/metrics")
	want := "meridian_mirrorlist_snapshot_timestamp_seconds " + strconv.FormatFloat(float64(taken.Unix()), 'g', -1, 64)
	if !strings.Contains(page, want) {
		t.Errorf("the page has no %s:\n%s", want, page)
	}
	if !st.degraded("state age", "every health is unknown") {
		t.Error("it is not said that the findings are too old")
	}
	if list := st.list("/mirrorlist/9/baseos"); len(list) != 1 {
		t.Errorf("with findings that are too old the list is %q", list)
	}
}

// A scrape in the middle of reloads sees one state of everything: no duplicate
// series, which would fail the whole page.
func TestMetricsDuringReloads(t *testing.T) {
	st := startIn(t, newFiles(t, 3), nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 5 {
			if err := st.Reload(t.Context(), true); err != nil {
				t.Error(err)
			}
		}
	}()
	for scrapes := 0; ; scrapes++ {
		select {
		case <-done:
			if scrapes == 0 {
				t.Error("nothing was scraped meanwhile")
			}
			return
		default:
		}
		if page, code := st.get(st.main + "/metrics"); code != 200 {
			t.Fatalf("a scrape failed: %d %s", code, page)
		}
	}
}
