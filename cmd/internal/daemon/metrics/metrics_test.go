package metrics

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// page returns the metrics page of reg and what the handler logged.
func page(t *testing.T, reg *prometheus.Registry) (body, log string) {
	t.Helper()
	var lines bytes.Buffer
	w := httptest.NewRecorder()
	Handler(reg, slog.New(slog.NewTextHandler(&lines, nil))).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("GET /metrics: status %d, want 200\n%s", w.Code, w.Body)
	}
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), lines.String()
}

func TestPageShowsProcessAndVersion(t *testing.T) {
	body, _ := page(t, New("v1.2.3"))
	for _, want := range []string{
		"go_goroutines ",
		"process_resident_memory_bytes ",
		"meridian_build_info{version=\"v1.2.3\"} 1\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page has no %q:\n%s", want, body)
		}
	}
}

func TestRegistriesDoNotShareCollectors(t *testing.T) {
	reg := New("a")
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "own_total"}))
	for name, other := range map[string]prometheus.Gatherer{"another registry": New("b"), "the global registry": prometheus.DefaultGatherer} {
		families, err := other.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if n := f.GetName(); n == "own_total" || (n == "meridian_build_info" && other == prometheus.DefaultGatherer) {
				t.Errorf("%s of this one is in %s", n, name)
			}
		}
	}
}

// broken is a collector that cannot tell its number.
type broken struct{ desc *prometheus.Desc }

func (b broken) Describe(c chan<- *prometheus.Desc) { c <- b.desc }

func (b broken) Collect(c chan<- prometheus.Metric) {
	c <- prometheus.NewInvalidMetric(b.desc, errors.New("redis is away"))
}

func TestOneBrokenCollectorHidesNoOther(t *testing.T) {
	reg := New("v1")
	reg.MustRegister(broken{prometheus.NewDesc("broken", "", nil, nil)})
	body, log := page(t, reg)
	if !strings.Contains(body, "meridian_build_info") {
		t.Errorf("the page lost its other metrics:\n%s", body)
	}
	if !strings.Contains(log, "redis is away") {
		t.Errorf("the log is %q, want the reason", log)
	}
}
