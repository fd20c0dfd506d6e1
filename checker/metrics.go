package checker

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meridian/checker/notify"
	"meridian/checker/state"
)

// Metrics are about the network as a whole: no label names a mirror.
var (
	descActive     = prometheus.NewDesc("meridian_checker_active", "1 while this checker has the lease and visits mirrors, 0 while it stands by.", nil, nil)
	descReady      = prometheus.NewDesc("meridian_checker_ready", "What /readyz says.", nil, nil)
	descMirrors    = prometheus.NewDesc("meridian_checker_mirrors", "Mirrors by the worst health of what they carry.", []string{"health"}, nil)
	descKeys       = prometheus.NewDesc("meridian_checker_repositories", "Repositories on mirrors, of every version and architecture, by their health.", []string{"repo", "health"}, nil)
	descLag        = prometheus.NewDesc("meridian_checker_propagation_lag_seconds", "How long after a publication a mirror had all of it: each mirror once for each publication.", nil, nil)
	descConfirmed  = prometheus.NewDesc("meridian_checker_origin_confirmed_timestamp_seconds", "When the origin was last seen to serve what is believed, of the repository for which that is longest ago.", nil, nil)
	descOrigin     = prometheus.NewDesc("meridian_checker_origin_repositories", "Repositories that the origin is asked for each minute: all, absent, troubled (what it serves is not believed), disputed (mirrors have something newer, which it does not confirm).", []string{"state"}, nil)
	descPublished  = prometheus.NewDesc("meridian_checker_publications_total", "Publications of the origin.", nil, nil)
	descGeneration = prometheus.NewDesc("meridian_checker_generations_total", "Generations of repositories in them.", nil, nil)
	descTroubles   = prometheus.NewDesc("meridian_checker_origin_troubles_total", "How often the origin was said to be in trouble.", nil, nil)
	descVisits     = prometheus.NewDesc("meridian_checker_visits_total", "Visits of mirrors.", nil, nil)
	descRequests   = prometheus.NewDesc("meridian_checker_requests_total", "Requests that visits made.", nil, nil)
	descBytes      = prometheus.NewDesc("meridian_checker_received_bytes_total", "Bytes that mirrors sent because of visits.", nil, nil)
	descUnderWay   = prometheus.NewDesc("meridian_checker_visits_under_way", "Visits under way.", nil, nil)
	descOverdue    = prometheus.NewDesc("meridian_checker_visits_overdue", "Visits that should have begun more than a minute ago.", nil, nil)
	descBlind      = prometheus.NewDesc("meridian_checker_blind", "1 while hardly any mirror answers, so that this host is likely to have no network.", nil, nil)
	descEvents     = prometheus.NewDesc("meridian_checker_events_total", "Events, by their kind.", []string{"kind"}, nil)
	descStored     = prometheus.NewDesc("meridian_checker_stored_timestamp_seconds", "When findings were last written; absent before the first time.", nil, nil)
	descWriteErrs  = prometheus.NewDesc("meridian_checker_write_errors_total", "Writes of findings that failed.", nil, nil)
	descCerts      = prometheus.NewDesc("meridian_checker_certificates_ending", "Mirrors whose certificate ends within 21 days, or has ended.", nil, nil)
	descOverrides  = prometheus.NewDesc("meridian_checker_overrides", "Decisions of administrators that are in force: mirrors by what was decided about them, and repositories withdrawn from all.", []string{"decision"}, nil)
	descFaults     = prometheus.NewDesc("meridian_checker_problems", "Files that are wrong now, and whose last good form is in use.", []string{"input"}, nil)
	descTold       = prometheus.NewDesc("meridian_checker_notifications_total", "Events that were told to people or programs, or dropped.", []string{"way", "outcome"}, nil)
	descTellFailed = prometheus.NewDesc("meridian_checker_notification_failures_total", "Attempts to tell that failed.", []string{"way"}, nil)
	descWaiting    = prometheus.NewDesc("meridian_checker_notifications_waiting", "Events that wait to be told.", []string{"way"}, nil)
)

// endsSoon is when the end of a certificate is counted.
const endsSoon = 21 * 24 * time.Hour

// collector shows the numbers of a checker, as they are in its Standing.
type collector struct{ c *Checker }

// Collector returns the metrics of the checker.
func (c *Checker) Collector() prometheus.Collector { return collector{c} }

func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descActive, descReady, descMirrors, descKeys, descLag, descConfirmed, descOrigin, descPublished, descGeneration, descTroubles,
		descVisits, descRequests, descBytes, descUnderWay, descOverdue, descBlind, descEvents, descStored, descWriteErrs, descCerts,
		descOverrides, descFaults, descTold, descTellFailed, descWaiting,
	} {
		ch <- d
	}
}

func (col collector) Collect(ch chan<- prometheus.Metric) {
	s, now := col.c.Standing(), time.Now()
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	flag := func(d *prometheus.Desc, is bool) {
		v := 0.0
		if is {
			v = 1
		}
		gauge(d, v)
	}
	flag(descActive, s.Active)
	ready, _ := s.Readiness(now)
	flag(descReady, ready)
	flag(descBlind, s.Blind)
	count(descVisits, s.Visits)
	count(descRequests, s.Requests)
	count(descBytes, s.Bytes)
	gauge(descUnderWay, float64(s.UnderWay))
	gauge(descOverdue, float64(s.Overdue))
	for _, kind := range []string{state.HealthChanged, state.SchemeChanged, state.FamilyChanged, state.OverrideChanged, state.TLSExpiring, state.Published, state.OriginTroubled} {
		count(descEvents, s.Events[kind], kind)
	}
	ch <- s.Lags.histogram()
	count(descWriteErrs, s.WriteErrors)
	if !s.Stored.IsZero() {
		gauge(descStored, float64(s.Stored.Unix()))
	}
	count(descPublished, uint64(s.Origin.Publications))
	count(descGeneration, uint64(s.Origin.Generations))
	count(descTroubles, uint64(s.Origin.Troubles))
	for subject, texts := range s.Problems {
		gauge(descFaults, float64(len(texts)), subject)
	}
	if n, ok := col.c.opts.Notifier.(interface {
		Counts() map[string]notify.Counts
	}); ok {
		for way, c := range n.Counts() {
			count(descTold, c.Told, way, "told")
			count(descTold, c.Dropped, way, "dropped")
			count(descTellFailed, c.Failures, way)
			gauge(descWaiting, float64(c.Waiting), way)
		}
	}
	if s.Active {
		gauge(descOrigin, float64(s.Origin.Keys), "all")
		gauge(descOrigin, float64(s.Origin.Absent), "absent")
		gauge(descOrigin, float64(s.Origin.Troubled), "troubled")
		gauge(descOrigin, float64(s.Origin.Disputed), "disputed")
		if !s.Origin.Confirmed.IsZero() {
			gauge(descConfirmed, float64(s.Origin.Confirmed.Unix()))
		}
		s.collectNetwork(now, gauge)
	}
}

// collectNetwork adds what is known of the mirrors.
func (s *Standing) collectNetwork(now time.Time, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	mirrors := map[state.Health]int{}
	type onMirrors struct {
		repo   string
		health state.Health
	}
	keys := map[onMirrors]int{}
	decided := map[string]int{"disabled": 0, "draining": 0, "weight": 0, "withdrawn from one": 0, "withdrawn from all": 0}
	ending := 0
	for _, st := range s.Snapshot.Mirrors {
		mirrors[worstOf(st)]++
		for k, h := range st.Health {
			keys[onMirrors{k.Repo, h}]++
		}
		if https := st.Schemes["https"]; https != nil && !https.TLSExpires.IsZero() && https.TLSExpires.Sub(now) <= endsSoon {
			ending++
		}
		if o := st.Override; o != nil && !over(o.Until, now) {
			for what, is := range map[string]bool{"disabled": o.Disabled, "draining": o.Draining, "weight": o.Weight > 0, "withdrawn from one": len(o.Withdrawn) > 0} {
				if is {
					decided[what]++
				}
			}
		}
	}
	for _, t := range s.Snapshot.Truth {
		if t.Withdrawn != "" {
			decided["withdrawn from all"]++
		}
	}
	for h := state.Pending; h <= state.Unprobed; h++ {
		gauge(descMirrors, float64(mirrors[h]), h.String()) // also 0: an alarm compares with it
	}
	for k, n := range keys {
		gauge(descKeys, float64(n), k.repo, k.health.String())
	}
	gauge(descCerts, float64(ending))
	for what, n := range decided {
		gauge(descOverrides, float64(n), what)
	}
}

// worstOf is what a mirror is as a whole: the worst of what it carries. A
// repository that it never had is no fault, unless it has none at all.
func worstOf(st *state.Status) state.Health {
	order := []state.Health{
		state.Absent, state.Fresh, state.Ahead, state.Unprobed, state.Lagging, state.Pending, state.Stale, state.Down, state.Broken,
	}
	worst := -1
	for _, h := range st.Health {
		worst = max(worst, slices.Index(order, h))
	}
	if worst < 0 {
		return state.Pending
	}
	return order[worst]
}

// histogram shows lags to Prometheus.
func (l *Lags) histogram() prometheus.Metric {
	buckets := make(map[float64]uint64, len(LagBuckets))
	n := uint64(0)
	for i, bound := range LagBuckets {
		n += l.Within[i]
		buckets[bound.Seconds()] = n
	}
	n += l.Within[len(LagBuckets)]
	return prometheus.MustNewConstHistogram(descLag, n, l.Sum.Seconds(), buckets)
}
