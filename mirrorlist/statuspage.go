package mirrorlist

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"meridian/checker/state"
	"meridian/mirrorlist/stats"
	"meridian/schema"
)

// apiStatus is how the network and this node of it are.
type apiStatus struct {
	Node    string `json:"node" doc:"which server answered"`
	Release string `json:"release" doc:"of its software"`

	Time     time.Time `json:"time"`
	Ready    bool      `json:"ready"`
	Degraded int       `json:"degraded" doc:"inputs of this node that are not as they should be"`
	Loaded   time.Time `json:"loaded" doc:"when the network and mirror files were read"`

	Database      string     `json:"database,omitempty" doc:"that says where addresses are"`
	DatabaseBuilt *time.Time `json:"database_built,omitempty"`

	Findings *apiFindings `json:"findings,omitempty" doc:"of the checker; absent where there is none"`

	Mirrors int            `json:"mirrors" doc:"that are not private"`
	Private int            `json:"private_mirrors"`
	Health  map[string]int `json:"health" doc:"how many mirrors that are not private are what, as a whole"`

	Nodes        []string         `json:"nodes" doc:"that have counted lists in the last two days; empty where nothing is counted"`
	Publications []apiPublication `json:"publications" doc:"the newest 10, newest first, each with its last sample alone; /propagation has all"`
}

type apiFindings struct {
	Taken     time.Time  `json:"taken"`
	Live      bool       `json:"live" doc:"young enough to be believed"`
	Troubled  int        `json:"troubled" doc:"repositories of which the origin serves what is not believed, or nothing"`
	Confirmed *time.Time `json:"confirmed,omitempty" doc:"when the origin last served all of what is known to be published"`
}

// apiPublication is what was published at one time, and how it reached the mirrors.
type apiPublication struct {
	Time         time.Time        `json:"time"`
	Repositories int              `json:"repositories"`
	Versions     []schema.Version `json:"versions"`
	Samples      []apiSample      `json:"samples" doc:"how far it had come, oldest first"`
}

type apiSample struct {
	After      int64               `json:"after_seconds" doc:"after the publication"`
	All        apiReach            `json:"all"`
	Continents map[string]apiReach `json:"continents" doc:"by two letters; empty for mirrors that do not say"`
}

// apiReach is a part of the public mirrors that carry what was published and answer.
type apiReach struct {
	Mirrors   int     `json:"mirrors" doc:"that have it, or something later"`
	Of        int     `json:"of"`
	Count     float64 `json:"share" doc:"0 to 1"`
	Bandwidth float64 `json:"bandwidth_share" doc:"0 to 1"`
}

func reachOf(s state.Share) apiReach {
	return apiReach{s.Mirrors, s.Of, s.Count(), s.Bandwidth()}
}

// publicationsOfStatus is how many publications the status tells of.
const publicationsOfStatus = 10

// publications are those that are remembered, newest first.
func (t *Table) publications() []apiPublication {
	out := []apiPublication{}
	if t.snap == nil {
		return out
	}
	all := slices.Collect(maps.Values(t.snap.Publications))
	slices.SortFunc(all, func(a, b *state.Publication) int { return b.Time.Compare(a.Time) })
	for _, p := range all {
		one := apiPublication{Time: p.Time.UTC(), Repositories: p.Repositories, Versions: append([]schema.Version{}, p.Versions...), Samples: []apiSample{}}
		for _, s := range p.Samples {
			sample := apiSample{After: s.After, All: reachOf(s.All), Continents: map[string]apiReach{}}
			for continent, share := range s.Continents {
				sample.Continents[continent] = reachOf(share)
			}
			one.Samples = append(one.Samples, sample)
		}
		out = append(out, one)
	}
	return out
}

func (s *Server) apiStatus(ctx context.Context, t *Table) (*apiStatus, error) {
	st := s.Status()
	out := &apiStatus{
		Node: s.opts.Config.Node, Release: cmp.Or(s.opts.Version, "unknown"), Time: s.now().UTC(), Ready: st.Mirrors > 0, Degraded: len(st.Lines()), Loaded: st.Loaded.UTC(),
		Database: st.Database, Health: map[string]int{}, Nodes: []string{}, Publications: t.publications(),
	}
	out.Publications = out.Publications[:min(len(out.Publications), publicationsOfStatus)]
	for i := range out.Publications {
		p := &out.Publications[i]
		p.Samples = p.Samples[max(0, len(p.Samples)-1):]
	}
	if st.Database != "" {
		out.DatabaseBuilt = orNil(st.Built)
	}
	cards := s.directory(t).cards
	out.Mirrors, out.Private = len(cards), len(t.mirrors)-len(cards)
	for i := range cards {
		out.Health[cards[i].health.String()]++
	}
	if t.snap != nil {
		f := &apiFindings{Taken: t.snap.Taken.UTC(), Live: t.live}
		var first time.Time
		for k, truth := range t.snap.Truth {
			if truth.Problem != nil {
				f.Troubled++
			}
			if k.Repo == isoRepo || t.network.IsVault(k.Version) || truth.Newest() == nil {
				continue
			}
			if first.IsZero() || truth.Confirmed.Before(first) {
				first = truth.Confirmed
			}
		}
		f.Confirmed = orNil(first)
		out.Findings = f
	}
	if s.statistics != nil {
		today := stats.DayOf(s.now())
		r, err := s.statistics.Query(ctx, stats.Query{Table: stats.Lists, From: today - 1, To: today})
		if err != nil {
			return nil, err
		}
		out.Nodes = append(out.Nodes, r.Nodes...)
		slices.Sort(out.Nodes)
	}
	return out, nil
}

// statusOperation answers /api/v1/status.
func (s *Server) statusOperation(c *gin.Context) (*response, error) {
	out, err := s.apiStatus(c.Request.Context(), s.table.Load())
	if err != nil {
		return nil, err
	}
	return asJSON(out, "no-cache")
}

// statusPage answers /status.
func (s *Server) statusPage(c *gin.Context) (*response, error) {
	t := s.table.Load()
	st, err := s.apiStatus(c.Request.Context(), t)
	if err != nil {
		return nil, err
	}
	p := struct {
		page
		*apiStatus
		FindingsAge, DatabaseAge time.Duration
		Counts                   []option
	}{page: t.newPage("/status", "Status", ""), apiStatus: st}
	if st.Findings != nil {
		p.FindingsAge = st.Time.Sub(st.Findings.Taken)
	}
	if st.DatabaseBuilt != nil {
		p.DatabaseAge = st.Time.Sub(*st.DatabaseBuilt)
	}
	for _, name := range healthNames {
		if n := st.Health[name]; n > 0 {
			p.Counts = append(p.Counts, option{Value: name, Name: name, Count: n})
		}
	}
	return render("status", p, "no-cache")
}

// Latest is how far a publication has come by the last sample.
func (p *apiPublication) Latest() *apiSample {
	if len(p.Samples) == 0 {
		return nil
	}
	return &p.Samples[len(p.Samples)-1]
}

// apiPublications is a part of what was published.
type apiPublications struct {
	Publications []apiPublication `json:"publications" doc:"newest first"`
	Total        int              `json:"total" doc:"how many there are in all parts"`
	Next         string           `json:"next,omitempty" doc:"URL of the next part; absent in the last one. Also in the header Link"`
}

// How many publications a part has: each has up to 41 samples of each continent.
const (
	somePublications = 10
	mostPublications = 100
)

// propagationOperation answers /api/v1/propagation.
func (s *Server) propagationOperation(c *gin.Context) (*response, error) {
	part, no := parseSlice(c.Request.URL.Query(), somePublications, mostPublications)
	if no != nil {
		return nil, no
	}
	all := s.table.Load().publications()
	from, to, next := part.cut(c, len(all), func(i int) string { return strconv.FormatInt(all[i].Time.UnixNano(), 36) })
	return paged(apiPublications{all[from:to], len(all), next}, shortly, next)
}

// A spread is one publication on its way, as a page shows it.
type spread struct {
	apiPublication
	Curves     []curve
	Parts      []curve // of continents
	Hours      []hourMark
	Continents []continentReach
	Marks      []string // the headings of Continents
}

// A curve is one line of a chart; Class says how it is drawn.
type curve struct{ Name, Class, Points string }

type hourMark struct {
	X     float64
	Label string
}

// A continentReach is the part of one continent that had a publication at each mark,
// "" where that is not known yet.
type continentReach struct {
	Name   string
	Of     int
	Shares []string
}

// The chart of a publication, in units of its own.
const (
	spreadWide, spreadHigh = 720, 200
	spreadHours            = 24
)

// spreadMarks are when the table says how far a publication had come.
var spreadMarks = []time.Duration{time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour}

var continentNames = map[string]string{
	"AF": "Africa", "AN": "Antarctica", "AS": "Asia", "EU": "Europe", "NA": "North America", "OC": "Oceania", "SA": "South America", "": "not known",
}

// continentLines are those that a chart draws, by the number of their line.
var continentLines = []string{"EU", "NA", "AS", "SA", "OC", "AF"}

// newSpread draws a publication. Between two samples nothing has changed.
func newSpread(p apiPublication, now time.Time) spread {
	out := spread{apiPublication: p}
	age := now.Sub(p.Time)
	wide := max(time.Hour, min(spreadHours*time.Hour, age))
	x := func(d time.Duration) float64 { return round1(spreadWide * float64(min(d, wide)) / float64(wide)) }
	line := func(of func(*apiSample) float64) string {
		var b []byte
		put := func(x, y float64) { b = appendPoint(b, x, round1(spreadHigh*(1-y))) }
		last := 0.0
		put(0, last)
		for _, s := range p.Samples {
			at := time.Duration(s.After) * time.Second
			if at > wide {
				break
			}
			if now := of(&s); now != last {
				put(x(at), last)
				put(x(at), now)
				last = now
			}
		}
		put(x(min(age, wide)), last)
		return string(b)
	}
	out.Curves = []curve{
		{"by bandwidth", "bandwidth", line(func(s *apiSample) float64 { return s.All.Bandwidth })},
		{"by number", "count", line(func(s *apiSample) float64 { return s.All.Count })},
	}
	step := time.Hour
	for wide/step > 8 {
		step *= 2
	}
	for d := step; d <= wide; d += step {
		out.Hours = append(out.Hours, hourMark{x(d), pageDuration(d)})
	}

	at := func(after time.Duration) *apiSample {
		var found *apiSample
		for i := range p.Samples {
			if time.Duration(p.Samples[i].After)*time.Second <= after {
				found = &p.Samples[i]
			}
		}
		return found
	}
	latest := p.Latest()
	if latest == nil {
		return out
	}
	for _, m := range spreadMarks {
		out.Marks = append(out.Marks, pageDuration(m))
	}
	row := func(name string, reach func(*apiSample) (apiReach, bool)) {
		r, ok := reach(latest)
		if !ok {
			return
		}
		one := continentReach{Name: name, Of: r.Of}
		for _, m := range spreadMarks {
			text := ""
			if s := at(m); s != nil && age >= m {
				if r, ok := reach(s); ok {
					text = portion(r.Count)
				}
			}
			one.Shares = append(one.Shares, text)
		}
		one.Shares = append(one.Shares, portion(r.Count))
		out.Continents = append(out.Continents, one)
	}
	row("All", func(s *apiSample) (apiReach, bool) { return s.All, true })
	row("All, by bandwidth", func(s *apiSample) (apiReach, bool) {
		r := s.All
		r.Count = r.Bandwidth
		return r, true
	})
	names := slices.SortedFunc(maps.Keys(latest.Continents), func(a, b string) int {
		return cmp.Compare(cmp.Or(continentNames[a], a), cmp.Or(continentNames[b], b))
	})
	for _, continent := range names {
		// One line and colour for each, whichever there are. Of few mirrors a line is
		// as good as of many, and of none there is none.
		if i := slices.Index(continentLines, continent); i >= 0 && latest.Continents[continent].Of > 0 {
			out.Parts = append(out.Parts, curve{continentNames[continent], "s" + strconv.Itoa(i), line(func(s *apiSample) float64 { return s.Continents[continent].Count })})
		}
		row(cmp.Or(continentNames[continent], continent), func(s *apiSample) (apiReach, bool) {
			r, ok := s.Continents[continent]
			return r, ok
		})
	}
	return out
}

// spreadsShown is how many publications the page has; the API has all.
const spreadsShown = 5

// propagationPage answers /propagation.
func (s *Server) propagationPage(*gin.Context) (*response, error) {
	t := s.table.Load()
	all := t.publications()
	p := struct {
		page
		Spreads []spread
		More    int
	}{page: t.newPage("/propagation", "Propagation", ""), More: max(0, len(all)-spreadsShown)}
	for _, one := range all[:len(all)-p.More] {
		p.Spreads = append(p.Spreads, newSpread(one, s.now()))
	}
	return render("propagation", p, shortly)
}
