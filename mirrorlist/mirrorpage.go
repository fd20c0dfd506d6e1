package mirrorlist

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"meridian/checker/atom"
	"meridian/checker/state"
	"meridian/mirrorlist/stats"
	"meridian/schema"
)

// apiMirrorDetail is everything public about one mirror.
type apiMirrorDetail struct {
	apiMirror
	Addresses apiHostAddresses `json:"addresses" doc:"what its host name resolves to"`
	Checked   *time.Time       `json:"checked,omitempty" doc:"when it was last asked anything"`
	Ways      []apiWay         `json:"ways" doc:"protocols and address families that were tried"`
	Repos     []apiRepoHealth  `json:"repositories" doc:"what is known of each repository, and each set of ISO images (repo isos)"`
	Problem   *apiFault        `json:"problem,omitempty" doc:"the worst thing that is wrong"`
	Warnings  []string         `json:"warnings,omitempty" doc:"what is wrong, and does not keep it out of lists"`
	Decision  *apiDecision     `json:"decision,omitempty" doc:"what an administrator of the network has decided"`
	Share     *apiShare        `json:"share,omitempty" doc:"its part of what all mirrors were sent in the last 7 whole days; absent where nothing is counted"`
}

type apiHostAddresses struct {
	IPv4 []string `json:"ipv4"`
	IPv6 []string `json:"ipv6"`
}

// apiWay is how a mirror is reached.
type apiWay struct {
	Name       string     `json:"name" doc:"http, https, rsync, ipv4 or ipv6"`
	Works      string     `json:"works" doc:"reached, unreached or untested"`
	TLSExpires *time.Time `json:"tls_expires,omitempty" doc:"the end of its certificate"`
	Problem    *apiFault  `json:"problem,omitempty"`
}

// apiRepoHealth is what is known of one repository of a mirror.
type apiRepoHealth struct {
	Version     schema.Version `json:"version"`
	Repo        string         `json:"repo"`
	Arch        schema.Arch    `json:"arch,omitempty"`
	Health      string         `json:"health"`
	Since       *time.Time     `json:"since,omitempty"`
	Revision    string         `json:"revision,omitempty" doc:"of the generation that it was seen with, where that is known"`
	BehindSince *time.Time     `json:"behind_since,omitempty" doc:"when that was superseded"`
	Problem     *apiFault      `json:"problem,omitempty"`
}

// apiFault is what is wrong, and the request that shows it.
type apiFault struct {
	Reason  string     `json:"reason"`
	Remedy  string     `json:"remedy,omitempty"`
	Since   *time.Time `json:"since,omitempty"`
	Curl    string     `json:"curl,omitempty" doc:"a line for a shell that repeats the request"`
	Request *apiProof  `json:"request,omitempty"`
}

// apiProof is a request and what came back.
type apiProof struct {
	At        time.Time `json:"at"`
	Method    string    `json:"method"`
	URL       string    `json:"url"`
	Family    string    `json:"family,omitempty"`
	Redirects []string  `json:"redirects,omitempty"`
	Final     string    `json:"final,omitempty" doc:"the address that answered, if another"`
	Remote    string    `json:"remote,omitempty"`
	Status    int       `json:"status,omitempty"`
	Header    []string  `json:"header,omitempty"`
	Body      string    `json:"body,omitempty" doc:"how it began"`
	Error     string    `json:"error,omitempty"`
}

type apiDecision struct {
	Disabled  bool       `json:"disabled,omitempty" doc:"listed to nobody"`
	Draining  bool       `json:"draining,omitempty" doc:"only fills up lists"`
	Withdrawn []string   `json:"withdrawn,omitempty" doc:"repositories that it is not listed for, as version/repo/arch"`
	Weight    int        `json:"weight,omitempty" doc:"in place of the bandwidth, Mbit/s"`
	Reason    string     `json:"reason,omitempty"`
	Until     *time.Time `json:"until,omitempty"`
}

type apiShare struct {
	Lists    float64 `json:"lists" doc:"part of the lists in which it was first, 0 to 1"`
	Bytes    float64 `json:"bytes" doc:"part of the bytes that those lists are expected to lead to"`
	Expected int64   `json:"expected_bytes_per_day"`
	Days     int     `json:"days" doc:"days of which anything is known"`
}

func faultOf(p *state.Problem) *apiFault {
	if p == nil || p.Reason == "" {
		return nil
	}
	f := &apiFault{Reason: p.Reason, Remedy: p.Remedy, Since: orNil(p.Since)}
	if e := p.Evidence; e != nil {
		f.Curl = e.Curl()
		f.Request = &apiProof{
			At: e.At.UTC(), Method: e.Method, URL: e.URL, Family: e.Family, Redirects: e.Redirects, Final: e.Final, Remote: e.Remote,
			Status: e.Status, Header: e.Header, Body: e.Body, Error: e.Error,
		}
	}
	return f
}

// mirrorDetail tells everything public about a mirror.
func (s *Server) mirrorDetail(ctx context.Context, t *Table, e *card) (*apiMirrorDetail, error) {
	m, st := &t.mirrors[e.mirror], t.status(e.mirror)
	d := &apiMirrorDetail{
		apiMirror: t.apiMirror(e), Checked: orNil(st.Visited), Ways: []apiWay{}, Repos: []apiRepoHealth{},
		Addresses: apiHostAddresses{[]string{}, []string{}},
		Problem:   faultOf(st.Problem), Warnings: st.Warnings,
	}
	for _, a := range m.addrs.V4 {
		d.Addresses.IPv4 = append(d.Addresses.IPv4, a.String())
	}
	for _, a := range m.addrs.V6 {
		d.Addresses.IPv6 = append(d.Addresses.IPv6, a.String())
	}
	if t.snap != nil {
		for _, name := range slices.Sorted(maps.Keys(st.Schemes)) {
			if sc := st.Schemes[name]; sc != nil {
				d.Ways = append(d.Ways, apiWay{name, sc.Works.String(), orNil(sc.TLSExpires), faultOf(sc.Problem)})
			}
		}
		d.Ways = append(d.Ways, apiWay{Name: "ipv4", Works: st.IPv4.String()}, apiWay{Name: "ipv6", Works: st.IPv6.String()})
	}
	for k := range st.Health {
		truth := t.snap.Truth[k]
		h, generation, _ := verdict(st, k, &truth, t.live, t.public.has(e.mirror), t.network.AllowedOutdate, t.now)
		one := apiRepoHealth{Version: k.Version, Repo: k.Repo, Arch: k.Arch, Health: h.String()}
		if f := st.Findings[k]; f != nil {
			one.Since, one.Revision, one.Problem = orNil(f.Since), f.Revision, faultOf(f.Problem)
		}
		if id, ok := st.Holds[k]; ok && generation == 0 {
			generation = slices.IndexFunc(truth.Generations, func(g state.Generation) bool { return g.ID() == id })
		}
		switch {
		case h == state.Fresh && len(truth.Generations) > 0:
			one.Revision = truth.Generations[0].Revision
		case generation > 0:
			one.Revision = truth.Generations[generation].Revision
			one.BehindSince = orNil(truth.Generations[generation-1].FirstSeen)
		}
		d.Repos = append(d.Repos, one)
	}
	versions := t.versionNames()
	slices.SortFunc(d.Repos, func(a, b apiRepoHealth) int {
		return cmp.Or(
			cmp.Compare(slices.Index(versions, string(a.Version)), slices.Index(versions, string(b.Version))),
			strings.Compare(string(a.Version), string(b.Version)), strings.Compare(a.Repo, b.Repo), strings.Compare(string(a.Arch), string(b.Arch)))
	})
	if o := st.Override; inForce(o, t.now) {
		d.Decision = &apiDecision{Disabled: o.Disabled, Draining: o.Draining, Weight: o.Weight, Reason: o.Reason, Until: orNil(o.Until)}
		for _, k := range o.Withdrawn {
			d.Decision.Withdrawn = append(d.Decision.Withdrawn, strings.TrimSuffix(k.String(), "/"))
		}
	}
	share, err := s.shareOf(ctx, m.Name)
	d.Share = share
	return d, err
}

// shareDays is of how many days a share of the traffic is told.
const shareDays = 7

// shareOf is what a mirror was sent in the last whole days; nil where nothing is
// counted.
func (s *Server) shareOf(ctx context.Context, name string) (*apiShare, error) {
	if s.statistics == nil {
		return nil, nil
	}
	today := stats.DayOf(s.now())
	days, err := s.statistics.Mirror(ctx, name, today-shareDays, today-1)
	if err != nil {
		return nil, err
	}
	out := &apiShare{Days: len(days)}
	for _, d := range days {
		out.Lists += d.Requests / float64(len(days))
		out.Bytes += d.Volume / float64(len(days))
		out.Expected += int64(d.Bytes) / int64(len(days))
	}
	return out, nil
}

// mirrorOperation answers /api/v1/mirrors/NAME.
func (s *Server) mirrorOperation(c *gin.Context) (*response, error) {
	t := s.table.Load()
	e, err := s.cardNamed(t, c.Param("name"))
	if err != nil {
		return nil, err
	}
	d, err := s.mirrorDetail(c.Request.Context(), t, e)
	if err != nil {
		return nil, err
	}
	return asJSON(d, shortly)
}

// How many events a part has.
const (
	someEvents = 100
	mostEvents = 1000
)

// apiHistory is a part of what happened to a mirror.
type apiHistory struct {
	Mirror string     `json:"mirror"`
	Listed float64    `json:"listed" doc:"part of the last 90 days, as far as they are known, in which it could be listed for all that it has, 0 to 1"`
	Spans  []apiSpan  `json:"spans" doc:"what the mirror was as a whole in the last 90 days, oldest first; in the first part alone"`
	Events []apiEvent `json:"events" doc:"newest first"`
	Total  int        `json:"total" doc:"events in all parts"`
	Next   string     `json:"next,omitempty" doc:"URL of the next part of the events"`
}

type apiSpan struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Health string    `json:"health"`
}

// apiEvent is one change.
type apiEvent struct {
	Time  time.Time `json:"time"`
	Kind  string    `json:"kind" doc:"health, scheme, family, override, tls, publish, origin, or one of a later release"`
	Title string    `json:"title" doc:"what happened, for people"`
	Keys  []string  `json:"keys,omitempty" doc:"as version/repo/arch"`
	From  string    `json:"from,omitempty" doc:"health before"`
	To    string    `json:"to,omitempty" doc:"health after"`
	Lag   float64   `json:"lag_seconds,omitempty" doc:"how long after the publication the mirror had it"`
	Fault *apiFault `json:"problem,omitempty"`
}

// LagText is the lag for people.
func (e *apiEvent) LagText() string {
	return pageDuration(time.Duration(e.Lag * float64(time.Second)))
}

func eventOf(e *state.Event) apiEvent {
	out := apiEvent{Time: e.Time.UTC(), Kind: e.Kind, Title: e.Title(), Lag: e.Lag.Seconds(), Fault: faultOf(e.Problem)}
	for _, k := range e.Keys {
		out.Keys = append(out.Keys, strings.TrimSuffix(k.String(), "/"))
	}
	if e.Kind == state.HealthChanged {
		out.From, out.To = e.From.String(), e.To.String()
	}
	return out
}

// historyOperation answers /api/v1/mirrors/NAME/history.
func (s *Server) historyOperation(c *gin.Context) (*response, error) {
	t := s.table.Load()
	card, err := s.cardNamed(t, c.Param("name"))
	if err != nil {
		return nil, err
	}
	part, no := parseSlice(c.Request.URL.Query(), someEvents, mostEvents)
	if no != nil {
		return nil, no
	}
	name := t.mirrors[card.mirror].Name
	events, err := s.history(c.Request.Context(), name)
	if err != nil {
		return nil, err
	}
	line := t.timeline(card.mirror, events)
	// New ones come before all others, so that how many of one moment are before an
	// event stays what it is.
	from, to, next := part.cut(c, len(events), func(i int) string {
		same := 0
		for same < i && events[i-same-1].Time.Equal(events[i].Time) {
			same++
		}
		return strconv.FormatInt(events[i].Time.UnixNano(), 36) + "." + strconv.Itoa(same)
	})
	out := apiHistory{Mirror: name, Listed: line.Listed, Spans: []apiSpan{}, Events: []apiEvent{}, Total: len(events), Next: next}
	for _, s := range line.Spans {
		if part.last != "" {
			break
		}
		out.Spans = append(out.Spans, apiSpan{s.From.UTC(), s.To.UTC(), s.Health.String()})
	}
	for i := range events[from:to] {
		out.Events = append(out.Events, eventOf(&events[from+i]))
	}
	return paged(out, shortly, next)
}

// timeline is the past of a mirror.
func (t *Table) timeline(m uint16, events []state.Event) timeline {
	return newTimeline(t.status(m).Health, events, t.now.AddDate(0, 0, -historyDays), t.now)
}

// A matrix is the health of a mirror for one version.
type matrix struct {
	Version schema.Version
	Arches  []string
	Rows    []matrixRow
}

type matrixRow struct {
	Repo  string
	Cells []string // by arch; "" where there is none
	Whole string   // of a repository that is not per architecture
}

// matrices arranges what is known of the repositories of a mirror.
func matrices(repos []apiRepoHealth) []matrix {
	var out []matrix
	for start := 0; start < len(repos); {
		end := start
		for end < len(repos) && repos[end].Version == repos[start].Version {
			end++
		}
		m := matrix{Version: repos[start].Version}
		for _, r := range repos[start:end] {
			if r.Arch != "" && !slices.Contains(m.Arches, string(r.Arch)) {
				m.Arches = append(m.Arches, string(r.Arch))
			}
		}
		slices.Sort(m.Arches)
		for _, r := range repos[start:end] {
			if n := len(m.Rows); n == 0 || m.Rows[n-1].Repo != r.Repo {
				m.Rows = append(m.Rows, matrixRow{Repo: r.Repo, Cells: make([]string, len(m.Arches))})
			}
			row := &m.Rows[len(m.Rows)-1]
			if r.Arch == "" {
				row.Whole = r.Health
			} else {
				row.Cells[slices.Index(m.Arches, string(r.Arch))] = r.Health
			}
		}
		out = append(out, m)
		start = end
	}
	return out
}

// advice is what an operator may do about a mirror of some health, in general; what
// was seen says more.
var advice = map[string]string{
	"lagging": "Nothing, as long as the mirror syncs as often as it promises: after a publication it is behind until its next sync.",
	"stale":   "Look at the log of the last sync, and at the free space. A mirror is listed again as soon as it was seen with a generation that is recent enough.",
	"broken":  "Repeat the request below. What the mirror serves is not what was published: a cache or a proxy in front of it, a sync that was cut off, a second server that is behind, or another site on its name.",
	"down":    "Repeat the request below from another network: a firewall, a full disk, an expired certificate, or a name that has moved.",
	"absent":  "The mirror has none of what its file promises. Sync it, or say in its file what it carries.",
	"pending": "Nothing: it is new, and will be visited within a minute.",
	"ahead":   "Nothing: the mirror has something newer than what is known to be published. It is listed.",
	"unknown": "Nothing: findings are missing or too old, so everybody is listed.",
}

// How many events a page has, and header lines of an answer that went wrong; the
// API has all.
const (
	eventsShown  = 30
	headersShown = 8
)

// mirrorPage answers /mirrors/NAME.
func (s *Server) mirrorPage(c *gin.Context) (*response, error) {
	t := s.table.Load()
	card, err := s.cardNamed(t, c.Param("name"))
	if err != nil {
		return nil, err
	}
	ctx := c.Request.Context()
	d, err := s.mirrorDetail(ctx, t, card)
	if err != nil {
		return nil, err
	}
	events, err := s.history(ctx, d.Name)
	if err != nil {
		return nil, err
	}
	line := t.timeline(card.mirror, events)
	p := struct {
		page
		*apiMirrorDetail
		Place          string
		Advice         string
		Worst          *apiFault // nil where it is one of Faults
		Matrices       []matrix
		Faults         []repoFaults
		Remembered     bool
		Days           []timelineDay
		ListedShare    float64
		Median         time.Duration
		Lags           lagChart
		Events         []apiEvent
		More           int
		Path, RepoFile string
		Live           bool
		Seen           bool
	}{
		page: t.newPage("", d.Name, ""), apiMirrorDetail: d,
		Place:  joinPlace(d.City, d.apiMirror.State, countryName(t.mirrors[card.mirror].country)),
		Advice: advice[d.Health], Matrices: matrices(d.Repos), Faults: faultsOf(d.Repos),
		Remembered: len(events) > 0, Days: line.days(), ListedShare: line.Listed, Median: line.medianLag(), Lags: newLagChart(&line),
		More: max(0, len(events)-eventsShown), Path: "/mirrors/" + url.PathEscape(d.Name),
		Live: t.live, Seen: t.snap != nil,
	}
	if w := d.Problem; w != nil && !slices.ContainsFunc(p.Faults, func(f repoFaults) bool { return f.Reason == w.Reason }) {
		p.Worst = w
	}
	for i := range events[:min(len(events), eventsShown)] {
		e := eventOf(&events[i])
		e.Title = shorten(e.Title, 300)
		p.Events = append(p.Events, e)
	}
	return render("mirror", p, shortly)
}

// joinPlace writes a place from its parts, of which a city may be its own state.
func joinPlace(parts ...string) string {
	return strings.Join(slices.Compact(slices.DeleteFunc(parts, func(s string) bool { return s == "" })), ", ")
}

// repoFaults are repositories with one problem between them.
type repoFaults struct {
	Names []string
	More  int
	apiFault
	Health string
}

// maxFaults bounds how many problems a page shows, and how many names each.
const (
	maxFaults      = 5
	maxFaultsNames = 6
)

// faultsOf groups repositories by what is wrong with them.
func faultsOf(repos []apiRepoHealth) []repoFaults {
	var out []repoFaults
	for _, r := range repos {
		if r.Problem == nil {
			continue
		}
		name := strings.TrimSuffix(state.Key{Version: r.Version, Repo: r.Repo, Arch: r.Arch}.String(), "/")
		i := slices.IndexFunc(out, func(f repoFaults) bool { return f.Reason == r.Problem.Reason && f.Health == r.Health })
		switch {
		case i < 0 && len(out) < maxFaults:
			out = append(out, repoFaults{Names: []string{name}, apiFault: *r.Problem, Health: r.Health})
		case i >= 0 && len(out[i].Names) < maxFaultsNames:
			out[i].Names = append(out[i].Names, name)
		case i >= 0:
			out[i].More++
		}
	}
	return out
}

// A lagChart draws how long a mirror took after publications: of each day the
// longest.
type lagChart struct {
	Bars []lagBar
	Top  time.Duration // of the chart
}

type lagBar struct {
	X     int
	Y, H  float64
	Title string
}

// The chart is as wide as the strip of days above it, ten units a day.
const lagChartHeight = 80

func newLagChart(l *timeline) (chart lagChart) {
	first := l.To.UTC().Truncate(24*time.Hour).AddDate(0, 0, 1-historyDays)
	longest := map[int]lagAt{}
	for _, lag := range l.Lags {
		day := int(lag.At.Sub(first) / (24 * time.Hour))
		if !lag.At.Before(first) && lag.Lag > longest[day].Lag {
			longest[day] = lag
			chart.Top = max(chart.Top, lag.Lag)
		}
	}
	for _, day := range slices.Sorted(maps.Keys(longest)) {
		lag := longest[day]
		h := max(1, lagChartHeight*float64(lag.Lag)/float64(chart.Top))
		chart.Bars = append(chart.Bars, lagBar{
			X: 10*day + 1, Y: round1(lagChartHeight - h), H: round1(h),
			Title: lag.At.UTC().Format("2006-01-02 15:04") + " UTC: " + pageDuration(lag.Lag),
		})
	}
	return chart
}

func round1(f float64) float64 { return float64(int(f*10+0.5)) / 10 }

// mirrorFeed answers /mirrors/NAME/feed.atom.
func (s *Server) mirrorFeed(c *gin.Context) (*response, error) {
	t := s.table.Load()
	card, err := s.cardNamed(t, c.Param("name"))
	if err != nil {
		return nil, err
	}
	name := t.mirrors[card.mirror].Name
	events, err := s.history(c.Request.Context(), name)
	if err != nil {
		return nil, err
	}
	base := s.baseURL(c.Request, t)
	path := base + "/mirrors/" + url.PathEscape(name)
	var b bytes.Buffer
	if err := atom.Write(&b, atom.Source{Mirror: name, Self: path + "/feed.atom", Page: path}, events); err != nil {
		return nil, err
	}
	return &response{kind: atom.ContentType, body: b.Bytes(), cache: shortly, vary: "Host"}, nil
}

// badgeColors are dark enough for white letters.
var badgeColors = map[state.Health]string{
	state.Fresh: "#1a7f37", state.Ahead: "#1a7f37", state.Lagging: "#8a5a00", state.Pending: "#57606a", state.Unknown: "#57606a",
	state.Unprobed: "#57606a", state.Absent: "#57606a", state.Stale: "#a11425", state.Broken: "#a11425", state.Down: "#a11425",
}

// mirrorBadge answers /mirrors/NAME/badge.svg: the health as a small picture for an
// operator's own page.
func (s *Server) mirrorBadge(c *gin.Context) (*response, error) {
	t := s.table.Load()
	card, err := s.cardNamed(t, c.Param("name"))
	if err != nil {
		return nil, err
	}
	const left, letter = 50, 7 // of "mirror"; of one letter, roughly
	word := card.health.String()
	right := len(word)*letter + 14
	svg := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="20" role="img" aria-label="mirror: %s"><title>mirror: %[2]s</title><rect width="%[1]d" height="20" rx="3" fill="#3b434b"/><path d="M%[3]d 0h%[4]da3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-%[4]dz" fill="%[5]s"/><g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle"><text x="%[6]d" y="14">mirror</text><text x="%[7]d" y="14">%[2]s</text></g></svg>`,
		left+right, word, left, right-3, badgeColors[card.health], left/2, left+right/2)
	return &response{kind: "image/svg+xml", body: []byte(svg + "\n"), cache: "public, max-age=300"}, nil
}

// baseURL is how the outside reaches this server: what the settings say, or else
// what the request does.
func (s *Server) baseURL(r *http.Request, t *Table) string {
	if t.base != "" {
		return t.base
	}
	scheme := "http"
	if r.TLS != nil || contains(t.trusted, peerOf(r.RemoteAddr)) && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}
