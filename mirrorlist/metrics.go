package mirrorlist

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meridian/mirrorlist/stats"
)

// counts are what happened since the start, for metrics. Nothing in them is
// about a client.
type counts struct {
	codes [600]atomic.Uint64 // answers by status
	tiers [tierAny + 1]atomic.Uint64
	empty atomic.Uint64 // lists that no mirror could be put in
}

func (c *counts) status(code int) {
	if 0 <= code && code < len(c.codes) {
		c.codes[code].Add(1)
	}
}

// picked counts what decided the first line of a list.
func (c *counts) picked(t tier) { c.tiers[t].Add(1) }

var (
	descLists    = prometheus.NewDesc("meridian_mirrorlist_lists_total", "Lists served, by what they were for, in whole tens.", []string{"version", "repo", "arch"}, nil)
	descAnswers  = prometheus.NewDesc("meridian_mirrorlist_answers_total", "Answers by HTTP status.", []string{"code"}, nil)
	descTiers    = prometheus.NewDesc("meridian_mirrorlist_first_line_total", "Lists by what decided their first line, in whole tens.", []string{"tier"}, nil)
	descEmpty    = prometheus.NewDesc("meridian_mirrorlist_empty_total", "Requests for which there was no mirror at all.", nil, nil)
	descMirrors  = prometheus.NewDesc("meridian_mirrorlist_mirrors", "Mirrors in the routing table.", []string{"kind"}, nil)
	descLoaded   = prometheus.NewDesc("meridian_mirrorlist_loaded_timestamp_seconds", "When network and mirror files were last read whole.", nil, nil)
	descBuilt    = prometheus.NewDesc("meridian_mirrorlist_database_timestamp_seconds", "When the geolocation database in use was built by its maker.", nil, nil)
	descSnapshot = prometheus.NewDesc("meridian_mirrorlist_snapshot_timestamp_seconds", "When the findings in use were taken; absent without any.", nil, nil)
	descProblems = prometheus.NewDesc("meridian_mirrorlist_problems", "Inputs that are wrong now, and whose last good form is in use.", []string{"input"}, nil)
	descFeedGood = prometheus.NewDesc("meridian_mirrorlist_feed_timestamp_seconds", "When a fetched list was last good.", []string{"feed"}, nil)
	descFeedLen  = prometheus.NewDesc("meridian_mirrorlist_feed_entries", "Entries of a fetched list in use.", []string{"feed"}, nil)
	descCert     = prometheus.NewDesc("meridian_mirrorlist_certificate_expiry_timestamp_seconds", "When the certificate that is served ends; absent without TLS.", nil, nil)
	descHosts    = prometheus.NewDesc("meridian_mirrorlist_unresolved_hosts", "Hosts of mirrors whose last name look-up failed; the last good addresses are in use.", nil, nil)
	descSystems  = prometheus.NewDesc("meridian_mirrorlist_systems", "Systems that were counted in the last whole week, by all nodes; absent without statistics.", []string{"version", "repo", "system"}, nil)
	descCountry  = prometheus.NewDesc("meridian_mirrorlist_lists_by_country", "Lists of the last whole day, by all nodes; absent without statistics.", []string{"country"}, nil)
	descFeedBad  = prometheus.NewDesc("meridian_mirrorlist_feed_failing", "1 while a list cannot be fetched or is refused.", []string{"feed"}, nil)
)

// statsTimeout bounds how long a scrape waits for the store of statistics.
const statsTimeout = 2 * time.Second

// collector shows a server's numbers. It reads the table in service, so that a
// request pays for nothing but its counters.
type collector struct{ s *Server }

// Collector returns the metrics of the server.
func (s *Server) Collector() prometheus.Collector { return collector{s} }

func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descLists, descAnswers, descTiers, descEmpty, descMirrors, descLoaded, descBuilt, descSnapshot, descProblems, descFeedGood, descFeedLen, descFeedBad, descCert, descHosts, descSystems, descCountry} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	s, t, st := c.s, c.s.table.Load(), c.s.Status()
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	seen := map[*atomic.Uint64]bool{}
	for i := range t.slots {
		sl := &t.slots[i]
		if n := stats.Whole(sl.served.Load()); n > 0 && !seen[sl.served] {
			seen[sl.served] = true
			count(descLists, n, string(sl.key.Version), sl.key.Repo, string(sl.key.Arch))
		}
	}
	for code := range s.counts.codes {
		if n := s.counts.codes[code].Load(); n > 0 {
			count(descAnswers, n, strconv.Itoa(code))
		}
	}
	for i := range s.counts.tiers {
		count(descTiers, stats.Whole(s.counts.tiers[i].Load()), tier(i).String())
	}
	count(descEmpty, s.counts.empty.Load())
	gauge(descMirrors, float64(t.public.count()), "public")
	gauge(descMirrors, float64(len(t.mirrors)-t.public.count()), "private or cloud")
	gauge(descHosts, float64(st.unresolved))
	gauge(descLoaded, float64(st.Loaded.Unix()))
	if !st.Built.IsZero() {
		gauge(descBuilt, float64(st.Built.Unix()))
	}
	if !st.Snapshot.IsZero() {
		gauge(descSnapshot, float64(st.Snapshot.Unix()))
	}
	if cert := s.cert.Load(); cert != nil {
		gauge(descCert, float64(cert.Leaf.NotAfter.Unix()))
	}
	if s.statistics != nil {
		today := stats.DayOf(s.now())
		week, yesterday := today.Monday()-7, today-1
		for desc, q := range map[*prometheus.Desc]stats.Query{
			descSystems: {Table: stats.Countme, From: week, To: week, By: []string{"version", "repo", "system"}},
			descCountry: {Table: stats.Lists, From: yesterday, To: yesterday, By: []string{"country"}},
		} {
			// What is too small to be told apart is folded in what is read.
			ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
			res, err := s.statistics.Query(ctx, q)
			cancel()
			if err != nil {
				continue // readiness says what is wrong with the store
			}
			for _, row := range res.Rows {
				gauge(desc, float64(row.Count), row.Labels...)
			}
		}
	}
	for subject, texts := range st.Problems {
		gauge(descProblems, float64(len(texts)), subject)
	}
	for _, f := range st.feeds {
		failing := 0.0
		if f.Err != nil {
			failing = 1
		}
		gauge(descFeedBad, failing, f.Name)
		gauge(descFeedLen, float64(f.Items), f.Name)
		if !f.LastGood.IsZero() {
			gauge(descFeedGood, float64(f.LastGood.Unix()), f.Name)
		}
	}
}
