package mirrorlist

import (
	"bytes"
	"cmp"
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"meridian/mirrorlist/stats"
	"meridian/mirrorlist/worldmap"
	"meridian/schema"
)

// statsSpan is of how many days statistics are shown where nobody says.
const statsSpan = 28

// parseStatsQuery reads what is asked of a table of statistics.
func (s *Server) parseStatsQuery(name string, v url.Values) (q stats.Query, no *refusal) {
	q.Table = stats.TableNamed(name)
	if q.Table == nil {
		names := make([]string, len(stats.Tables))
		for i, t := range stats.Tables {
			names[i] = t.Name
		}
		return q, notFound("no table is called %q: write one of %s", clip(name), strings.Join(names, ", "))
	}
	q.To = stats.DayOf(s.now())
	q.From = q.To - statsSpan
	for _, p := range []struct {
		name string
		into *stats.Day
	}{{"from", &q.From}, {"to", &q.To}} {
		if text := v.Get(p.name); text != "" {
			if err := p.into.UnmarshalText([]byte(clip(text))); err != nil {
				return q, badRequest("malformed %s: %v", p.name, err)
			}
		}
	}
	q.By = []string{stats.Period}
	if by := v.Get("by"); by != "" {
		q.By = strings.Split(by, ",")
	}
	for _, column := range q.Table.Columns {
		if value := v.Get(column); value != "" {
			if q.Where == nil {
				q.Where = map[string]string{}
			}
			q.Where[column] = value
		}
	}
	return q, nil
}

// apiStatistics is a part of the sums of a table.
type apiStatistics struct {
	stats.Result
	Found int    `json:"found" doc:"how many rows there are in all parts"`
	Next  string `json:"next,omitempty" doc:"URL of the next part of the rows; absent in the last one. Also in the header Link"`
}

// How many rows a part has.
const (
	someRows = 10_000
	mostRows = 100_000
)

// statsResult answers a question about a table.
func (s *Server) statsResult(c *gin.Context, name string) (*apiStatistics, error) {
	part, no := parseSlice(c.Request.URL.Query(), someRows, mostRows)
	if no != nil {
		return nil, no
	}
	q, no := s.parseStatsQuery(name, c.Request.URL.Query())
	if no != nil {
		return nil, no
	}
	if s.statistics == nil {
		return nil, &refusal{code: 404, text: "this network keeps no statistics: set stats in the settings of its servers"}
	}
	if err := q.Check(); err != nil {
		return nil, badRequest("%v", err)
	}
	r, err := s.statistics.Query(c.Request.Context(), q)
	if err != nil {
		return nil, err
	}
	out := &apiStatistics{Result: *r, Found: len(r.Rows)}
	from, to, next := part.cut(c, len(r.Rows), func(i int) string { return strings.Join(append([]string{""}, r.Rows[i].Labels...), "/") })
	out.Rows, out.Next = r.Rows[from:to], next
	return out, nil
}

// statisticsOperation answers /api/v1/statistics/TABLE and TABLE.csv.
func (s *Server) statisticsOperation(c *gin.Context) (*response, error) {
	name, csv := strings.CutSuffix(c.Param("table"), ".csv")
	r, err := s.statsResult(c, name)
	if err != nil {
		return nil, err
	}
	if !csv {
		return paged(r, anHour, r.Next)
	}
	var b bytes.Buffer
	if err := r.WriteCSV(&b); err != nil {
		return nil, err
	}
	return &response{kind: typeCSV, body: b.Bytes(), cache: anHour, name: name + ".csv", links: nextLink(r.Next)}, nil
}

const typeCSV = "text/csv; charset=utf-8"

// A bar is one line of a chart of bars.
type bar struct {
	Name, URL string
	Count     int
	Part      float64 // of all, 0 to 1
	Wide      float64 // 0 to 100
}

// barsShown is how many bars a chart has.
const barsShown = 12

// bars makes a chart of the rows of a result that has one label; the rest is one bar.
func bars(r *stats.Result, name func(string) string, link func(string) string) (out []bar) {
	if r == nil || r.Total.Count == 0 {
		return nil
	}
	rows := slices.Clone(r.Rows)
	// What is not told apart comes last.
	slices.SortStableFunc(rows, func(a, b stats.Row) int {
		return cmp.Compare(flagOf(a.Labels[0] == stats.Other), flagOf(b.Labels[0] == stats.Other))
	})
	rest := bar{Name: "all others"}
	most := 0
	for i, row := range rows {
		if i >= barsShown || row.Labels[0] == stats.Other {
			rest.Count += int(row.Count)
			continue
		}
		one := bar{Name: name(row.Labels[0]), Count: int(row.Count)}
		if link != nil {
			one.URL = link(row.Labels[0])
		}
		out = append(out, one)
		most = max(most, one.Count)
	}
	if rest.Count > 0 {
		out = append(out, rest)
		most = max(most, rest.Count)
	}
	for i := range out {
		out[i].Part = float64(out[i].Count) / float64(r.Total.Count)
		out[i].Wide = round1(100 * float64(out[i].Count) / float64(most))
	}
	return out
}

func flagOf(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A heat is how much was asked from one country: its shape on the map is shaded, or
// a disc where it is, if it is too small to have one.
type heat struct {
	Code  string // of the shape; "" for a disc
	X, Y  float64
	Class string
	Title string
}

// A heatStep is one shade of the map, and what it stands for.
type heatStep struct{ Class, Words string }

// heatSteps is how many shades there are. One is a third of the next: countries
// differ too much for equal steps.
const heatSteps = 5

// heats shades countries by their lists, and says what shades mean.
func heats(r *stats.Result) (out []heat, key []heatStep) {
	most := uint64(0)
	for _, row := range r.Rows {
		if schema.ValidCountry(row.Labels[0]) {
			most = max(most, row.Count)
		}
	}
	if most == 0 {
		return nil, nil
	}
	least := [heatSteps]uint64{}
	for i, n := heatSteps-1, most; i > 0; i-- {
		n = (n/3 + stats.Least - 1) / stats.Least * stats.Least // counts are whole tens
		least[i] = n
	}
	class := func(step int) string { return "heat" + strconv.Itoa(step) }
	for _, row := range r.Rows {
		code := row.Labels[0]
		lat, lon, ok := schema.Centroid(code)
		if !ok {
			continue
		}
		step := heatSteps - 1
		for step > 0 && row.Count < least[step] {
			step--
		}
		one := heat{Class: class(step), Title: schema.CountryName(code) + ": " + groupDigits(int(row.Count)) + " lists"}
		if worldmap.HasShape(code) {
			one.Code = code
		} else {
			x, y := worldmap.Project(lat, lon)
			one.X, one.Y = round1(x), round1(y)
		}
		out = append(out, one)
	}
	for step := range heatSteps {
		words := "fewer"
		if step > 0 {
			words = groupDigits(int(least[step])) + " or more"
		}
		key = append(key, heatStep{class(step), words})
	}
	// Discs above shapes.
	slices.SortStableFunc(out, func(a, b heat) int { return cmp.Compare(flagOf(a.Code == ""), flagOf(b.Code == "")) })
	return out, key
}

// A series is a line of a chart over time.
type series struct {
	Name, Class string
	Points      string
}

// A trend is a chart of lines over time.
type trend struct {
	Series     []series
	Top        int
	First, End string // of the time
	Table      []trendRow
	Names      []string
}

type trendRow struct {
	Period string
	Counts []string
}

// trendLines is how many lines a chart has, so that they can be told apart.
const trendLines = 5

// newTrend draws a result by period and one more label: the largest labels, each a
// line.
func newTrend(r *stats.Result) (t trend) {
	sums := map[string]uint64{}
	at := map[[2]string]uint64{}
	var periods []string
	for _, row := range r.Rows {
		if !slices.Contains(periods, row.Labels[0]) {
			periods = append(periods, row.Labels[0])
		}
		sums[row.Labels[1]] += row.Count
		at[[2]string{row.Labels[0], row.Labels[1]}] = row.Count
		t.Top = max(t.Top, int(row.Count))
	}
	if len(periods) == 0 {
		return t
	}
	slices.Sort(periods)
	for name := range sums {
		t.Names = append(t.Names, name)
	}
	slices.SortFunc(t.Names, func(a, b string) int {
		return cmp.Or(cmp.Compare(flagOf(a == stats.Other), flagOf(b == stats.Other)), cmp.Compare(sums[b], sums[a]), strings.Compare(a, b))
	})
	t.Names = t.Names[:min(len(t.Names), trendLines)]
	t.First, t.End = periods[0], periods[len(periods)-1]
	for i, name := range t.Names {
		var b []byte
		for j, p := range periods {
			x := 0.0
			if len(periods) > 1 {
				x = spreadWide * float64(j) / float64(len(periods)-1)
			}
			y := round1(spreadHigh * (1 - float64(at[[2]string{p, name}])/float64(t.Top)))
			b = appendPoint(b, round1(x), y)
			if len(periods) == 1 {
				b = appendPoint(b, spreadWide, y) // one point would not be seen
			}
		}
		t.Series = append(t.Series, series{name, "s" + strconv.Itoa(i), string(b)})
	}
	for _, p := range periods {
		row := trendRow{Period: p}
		for _, name := range t.Names {
			row.Counts = append(row.Counts, groupDigits(int(at[[2]string{p, name}])))
		}
		t.Table = append(t.Table, row)
	}
	return t
}

// statisticsPage answers /statistics.
func (s *Server) statisticsPage(c *gin.Context) (*response, error) {
	t := s.table.Load()
	p := struct {
		page
		Kept                                            bool
		From, To                                        string
		Lists                                           int
		Heats                                           []heat
		Key                                             []heatStep
		AllCountries                                    []bar
		Countries, Versions, Repos, Mirrors, Ages, Arch []bar
		ByDay, BySystem                                 trend
		Nodes                                           int
	}{page: t.newPage("/statistics", "Statistics", ""), Kept: s.statistics != nil}
	if !p.Kept {
		return render("statistics", p, shortly)
	}
	ctx := c.Request.Context()
	to := stats.DayOf(s.now())
	from := to - statsSpan
	p.From, p.To = from.String(), to.String()
	ask := func(ctx context.Context, table *stats.Table, from stats.Day, by ...string) (*stats.Result, error) {
		return s.statistics.Query(ctx, stats.Query{Table: table, From: from, To: to, By: by})
	}
	same := func(s string) string { return s }
	byCountry, err := ask(ctx, stats.Lists, from, "country")
	if err != nil {
		return nil, err
	}
	p.Lists, p.Nodes = int(byCountry.Total.Count), len(byCountry.Nodes)
	p.Heats, p.Key = heats(byCountry)
	country := func(code string) string { return cmp.Or(schema.CountryName(code), code) }
	p.Countries = bars(byCountry, country, nil)
	for _, row := range byCountry.Rows {
		p.AllCountries = append(p.AllCountries, bar{Name: country(row.Labels[0]), Count: int(row.Count)})
	}
	for _, q := range []struct {
		into  *[]bar
		table *stats.Table
		by    string
		name  func(string) string
		link  func(string) string
	}{
		{&p.Versions, stats.Lists, "version", same, nil}, {&p.Repos, stats.Lists, "repo", same, nil}, {&p.Arch, stats.Countme, "arch", same, nil},
		{&p.Mirrors, stats.Mirrors, "mirror", same, func(name string) string {
			if _, err := s.cardNamed(t, name); err != nil {
				return ""
			}
			return mirrorURL(name)
		}},
		{&p.Ages, stats.Countme, "age", func(age string) string {
			return cmp.Or(map[string]string{"1": "first week", "2": "first month", "3": "first half year", "4": "longer"}[age], age)
		}, nil},
	} {
		r, err := ask(ctx, q.table, from, q.by)
		if err != nil {
			return nil, err
		}
		*q.into = bars(r, q.name, q.link)
	}
	byDay, err := ask(ctx, stats.Lists, from, stats.Period, "version")
	if err != nil {
		return nil, err
	}
	p.ByDay = newTrend(byDay)
	systems, err := ask(ctx, stats.Countme, stats.DayOf(s.now().Add(-365*24*time.Hour)), stats.Period, "version")
	if err != nil {
		return nil, err
	}
	p.BySystem = newTrend(systems)
	return render("statistics", p, anHour)
}
