package syncer

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	descRuns     = prometheus.NewDesc("meridian_syncer_runs_total", "Runs by how they ended.", []string{"tree", "result"}, nil)
	descRunning  = prometheus.NewDesc("meridian_syncer_running", "1 while a run is under way.", []string{"tree"}, nil)
	descSuccess  = prometheus.NewDesc("meridian_syncer_success_timestamp_seconds", "When the tree was last known to be what its upstream has.", []string{"tree"}, nil)
	descFailures = prometheus.NewDesc("meridian_syncer_failures", "Runs that failed since the last success.", []string{"tree"}, nil)
	descUpstream = prometheus.NewDesc("meridian_syncer_upstream_timestamp_seconds", "When the upstream was last known to be current, by its TIME; absent without.", []string{"tree"}, nil)
	descHeld     = prometheus.NewDesc("meridian_syncer_held_repositories", "Repositories that stay as they were because their new generation is not whole.", []string{"tree"}, nil)
	descSeconds  = prometheus.NewDesc("meridian_syncer_run_seconds", "How long the last run took that changed something.", []string{"tree"}, nil)
	descBytes    = prometheus.NewDesc("meridian_syncer_bytes_total", "Bytes over connections to the upstream, both ways.", []string{"tree"}, nil)
	descDeleted  = prometheus.NewDesc("meridian_syncer_deleted_total", "Names that were deleted.", []string{"tree"}, nil)
	descHints    = prometheus.NewDesc("meridian_syncer_hints_total", "Hints to the checker.", []string{"tree", "result"}, nil)
)

// collector shows the numbers of a service.
type collector struct{ s *Service }

// Collector returns the metrics of the service.
func (s *Service) Collector() prometheus.Collector { return collector{s} }

func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRuns, descRunning, descSuccess, descFailures, descUpstream, descHeld, descSeconds, descBytes, descDeleted, descHints} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	when := func(d *prometheus.Desc, t time.Time, labels ...string) {
		if !t.IsZero() {
			gauge(d, float64(t.Unix()), labels...)
		}
	}
	for _, j := range c.s.jobs {
		j.mu.Lock()
		st := j.status
		j.mu.Unlock()
		for r, n := range st.runs {
			count(descRuns, n, j.name, result(r).String())
		}
		running := 0.0
		if st.running {
			running = 1
		}
		gauge(descRunning, running, j.name)
		when(descSuccess, st.success, j.name)
		gauge(descFailures, float64(st.failures), j.name)
		when(descUpstream, st.upstream, j.name)
		gauge(descHeld, float64(st.held), j.name)
		gauge(descSeconds, st.seconds, j.name)
		count(descBytes, uint64(st.bytes), j.name)
		count(descDeleted, uint64(st.deleted), j.name)
		count(descHints, st.hints[0], j.name, "arrived")
		count(descHints, st.hints[1], j.name, "failed")
	}
}
