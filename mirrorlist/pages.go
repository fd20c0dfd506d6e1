package mirrorlist

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/zeebo/xxh3"

	"meridian/mirrorlist/worldmap"
	"meridian/schema"
)

// The pages for people are rendered here. They work without a script, which only
// makes them quicker, and load nothing from anywhere else.

//go:embed pages
var pageFiles embed.FS

const typeHTML = "text/html; charset=utf-8"

// An asset is a file that pages load. Its URL has a tag of its content, so that
// browsers keep it as long as they like.
type asset struct {
	version string // for its URL

	// answer is compressed by the first who asks for it: a start does not wait.
	answer func() (*response, error)
}

var assets = func() map[string]asset {
	all := map[string]asset{}
	for name, kind := range map[string]string{
		"style.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		body, err := pageFiles.ReadFile("pages/" + name)
		if err != nil {
			panic(fmt.Sprintf("mirrorlist: embedded file: %v", err))
		}
		all[name] = newAsset(kind, body)
	}
	all["world.svg"] = newAsset("image/svg+xml", worldmap.SVG)
	all["countries.svg"] = newAsset("image/svg+xml", worldmap.Countries)
	return all
}()

func newAsset(kind string, body []byte) asset {
	sum := xxh3.Hash128(body).Bytes()
	return asset{base64.RawURLEncoding.EncodeToString(sum[:8]), sync.OnceValues(func() (*response, error) {
		a := &response{kind: kind, body: body, tag: tagOf(body)}
		return a, a.compress()
	})}
}

func assetURL(name string) string { return "/assets/" + name + "?v=" + assets[name].version }

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"asset":    assetURL,
	"time":     pageTime,
	"duration": pageDuration,
	"portion":  portion,
	"number":   groupDigits,
	"tier":     tierWords,
	"size":     pageSize,
	"headers":  func(all []string) []string { return all[:min(len(all), headersShown)] },
	"chart": func(label, head, unit string, bars []bar) any {
		return struct {
			Label, Head, Unit string
			Bars              []bar
		}{label, head, unit, bars}
	},
	"trend": func(label string, t trend) any {
		return struct {
			Label string
			Trend trend
		}{label, t}
	},
	"candidates": func(label string, list []Candidate) any {
		return struct {
			Label string
			List  []Candidate
		}{label, list}
	},
}).ParseFS(pageFiles, "pages/*.html"))

// pageTime writes a moment as people write one, in UTC; a script turns it into
// their own time.
func pageTime(v any) template.HTML {
	t, ok := v.(time.Time)
	if p, is := v.(*time.Time); is && p != nil {
		t, ok = *p, true
	}
	if !ok || t.IsZero() {
		return "never"
	}
	u := t.UTC()
	return template.HTML(`<time datetime="` + u.Format(time.RFC3339) + `">` + u.Format("2006-01-02 15:04 UTC") + `</time>`)
}

// pageDuration writes how long something takes, in the two largest units.
func pageDuration(d time.Duration) string {
	d = d.Abs()
	units := []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}}
	for i, u := range units {
		if d < u.of && i < len(units)-1 {
			continue
		}
		text := fmt.Sprintf("%d %s", d/u.of, u.name)
		if i+1 < len(units)-1 || i+1 < len(units) && d < time.Hour {
			if next := units[i+1]; d%u.of/next.of > 0 {
				text += fmt.Sprintf(" %d %s", d%u.of/next.of, next.name)
			}
		}
		return text
	}
	return ""
}

// portion writes a part of 1.
func portion(f float64) string {
	switch p := 100 * f; {
	case p == 0:
		return "0 %"
	case p < 0.1:
		return "< 0.1 %"
	case p < 10:
		return strconv.FormatFloat(p, 'f', 1, 64) + " %"
	case p < 100 && p > 99:
		return "99 %" // not everything
	default:
		return strconv.FormatFloat(p, 'f', 0, 64) + " %"
	}
}

// groupDigits writes a number with a narrow space between thousands.
func groupDigits(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// appendPoint appends a point of a line of SVG.
func appendPoint(b []byte, x, y float64) []byte {
	if len(b) > 0 {
		b = append(b, ' ')
	}
	b = strconv.AppendFloat(b, x, 'f', -1, 64)
	b = append(b, ',')
	return strconv.AppendFloat(b, y, 'f', -1, 64)
}

// tierWords says for people why a mirror is where it is in a list.
func tierWords(tier string) string {
	if words, ok := map[string]string{
		"subnet": "declares the client's addresses", "cloud region": "in the client's region of its cloud", "cloud": "in the client's cloud",
		"asn": "for the client's network", "country": "in the client's country", "world": "elsewhere",
		"no place": "drawn by lot", "fallback": "nothing else was left", "any": "nothing better was left",
	}[tier]; ok {
		return words
	}
	return tier
}

// pageSize writes a number of bytes as people do.
func pageSize(n int64) string {
	switch {
	case n < 0:
		return ""
	case n < 1000:
		return strconv.FormatInt(n, 10) + " B"
	}
	f, units := float64(n), []string{"kB", "MB", "GB", "TB", "PB"}
	i := -1
	for f >= 999.5 && i < len(units)-1 {
		f /= 1000
		i++
	}
	digits := 1
	if f >= 99.95 {
		digits = 0
	}
	return strconv.FormatFloat(f, 'f', digits, 64) + " " + units[i]
}

// A page is what every page has.
type page struct {
	Title string
	At    string // the path of its entry in the navigation
	Nav   []pageLink
}

type pageLink struct{ Name, URL string }

// pageRoutes adds the pages.
func (s *Server) pageRoutes(r *gin.Engine) {
	both := func(path string, h func(*gin.Context) (*response, error)) {
		s.get(r, path, s.dear(h))
		s.get(r, path+".html", s.dear(h))
	}
	one := func(path string, h func(*gin.Context) (*response, error)) { s.get(r, path, s.dear(h)) }
	main := func(h func(*gin.Context, string) (*response, error)) func(*gin.Context) (*response, error) {
		return func(c *gin.Context) (*response, error) { return h(c, "") }
	}
	one("/", main(s.mirrorsPage))
	one("/index.html", main(s.mirrorsPage))
	both("/isos", main(s.isosPage))
	one("/map", s.mapPage)
	one("/status", s.statusPage)
	one("/propagation", s.propagationPage)
	one("/statistics", s.statisticsPage)
	one("/repo-file", s.repoFilePage)
	one("/repo-file/:version", s.repoFile)
	one("/explain", s.explainPage)
	one("/isos/:arch/:version", main(s.isoPage))
	one("/isos/:arch/:version/:file", main(s.isoFile))
	one("/mirrors/:name", s.mirrorPage)
	one("/mirrors/:name/badge.svg", s.mirrorBadge)
	one("/mirrors/:name/feed.atom", s.mirrorFeed)
	s.get(r, "/assets/:name", serveAsset)
}

// serveAsset answers /assets/NAME.
func serveAsset(c *gin.Context) error {
	a, ok := assets[c.Param("name")]
	if !ok {
		return &refusal{code: http.StatusNotFound, text: "no such file"}
	}
	made, err := a.answer()
	if err != nil {
		return err
	}
	out := *made
	out.cache = anHour
	if c.Query("v") == a.version {
		out.cache = unchanged
	}
	return out.send(c)
}

// modulePage answers what is below the name of an optional module, which the
// network file may change at any time. It reports whether there is one.
func (s *Server) modulePage(c *gin.Context) (bool, error) {
	name, rest, _ := strings.Cut(strings.TrimPrefix(c.Request.URL.Path, "/"), "/")
	if rest == "" {
		name = strings.TrimSuffix(name, ".html")
	}
	t := s.table.Load()
	known := name != "" && slices.ContainsFunc(t.trees, func(tr tree) bool { return tr.name == name })
	if !known || c.Request.Method != http.MethodGet && c.Request.Method != http.MethodHead {
		return false, nil
	}
	var page func(*gin.Context, string) (*response, error)
	switch parts := strings.Split(rest, "/"); {
	case rest == "":
		page = s.mirrorsPage
	case rest == "isos" || rest == "isos.html":
		page = s.isosPage
	case len(parts) == 3 && parts[0] == "isos":
		c.Params = gin.Params{{Key: "arch", Value: parts[1]}, {Key: "version", Value: parts[2]}}
		page = s.isoPage
	case len(parts) == 4 && parts[0] == "isos":
		c.Params = gin.Params{{Key: "arch", Value: parts[1]}, {Key: "version", Value: parts[2]}, {Key: "file", Value: parts[3]}}
		page = s.isoFile
	default:
		return false, nil
	}
	return true, s.dear(func(c *gin.Context) (*response, error) { return page(c, name) })(c)
}

// newPage returns the page of a title and, unless that is "", a module. at is
// where it is in the navigation.
func (t *Table) newPage(at, title, module string) page {
	p := page{Title: title, At: at, Nav: []pageLink{{"Mirrors", "/"}}}
	if module != "" {
		p.Title = module + ": " + title
		p.At = path.Join("/", module, strings.TrimPrefix(at, "/"))
	}
	for _, tr := range t.trees[1:] {
		p.Nav = append(p.Nav, pageLink{tr.name, "/" + tr.name})
	}
	p.Nav = append(p.Nav, pageLink{"Map", "/map"}, pageLink{"ISO images", "/isos"}, pageLink{"Why this list", "/explain"},
		pageLink{"Propagation", "/propagation"}, pageLink{"Statistics", "/statistics"}, pageLink{"Status", "/status"}, pageLink{"Use these mirrors", "/repo-file"})
	return p
}

// render makes the answer of a page.
func render(name string, data any, cache string) (*response, error) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, data); err != nil {
		return nil, err
	}
	return &response{kind: typeHTML, body: b.Bytes(), cache: cache}, nil
}

// isPage reports whether a request that was refused is that of a person who looks
// at a page. A program that does not ask for HTML gets what it has always got.
func (s *Server) isPage(c *gin.Context) bool {
	if !strings.Contains(c.GetHeader("Accept"), "text/html") {
		return false
	}
	route := c.FullPath()
	first, _, _ := strings.Cut(strings.TrimPrefix(c.Request.URL.Path, "/"), "/")
	switch strings.TrimSuffix(first, ".html") {
	case "", "index", "isos", "mirrors", "map", "explain", "propagation", "statistics", "status", "repo-file":
		return route != ""
	}
	return route == "" && slices.ContainsFunc(s.table.Load().trees[1:], func(tr tree) bool { return tr.name == first })
}

// errorPage says to a person what is wrong.
func (s *Server) errorPage(c *gin.Context, no *refusal) {
	a, err := render("error", struct {
		page
		Text string
	}{s.table.Load().newPage("", http.StatusText(no.code), ""), no.text}, "no-store")
	if err != nil {
		c.String(no.code, "%s\n", no.text)
		return
	}
	a.code = no.code
	_ = a.send(c) // only a client that has gone is not told
}

// rowsPerPage keeps a page of the table below 100 kB.
const rowsPerPage = 100

// A mirrorRow is one line of the table of mirrors.
type mirrorRow struct {
	Name, Country, City string
	Sponsor, SponsorURL string
	Protocols           []pageLink
	IPv4, IPv6          bool
	Bandwidth           int
	Frequency, Health   string
	Lag                 time.Duration
}

// A column is one heading of a table that can be sorted.
type column struct {
	Name, Sort, URL string
	Sorted          string // "ascending", "descending" or ""
	Number          bool
}

// An option is one value of a filter, and how many mirrors have it.
type option struct {
	Value, Name string
	Count       int
	Selected    bool
}

// longest is the length of what an operator wrote that a table shows; the
// mirror's own page has all of it.
const longest = 60

func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// mirrorsPage shows the public mirrors of a tree.
func (s *Server) mirrorsPage(c *gin.Context, module string) (*response, error) {
	t := s.table.Load()
	values := c.Request.URL.Query()
	q, no := parseMirrorQuery(values)
	if no != nil {
		return nil, no
	}
	number := 1
	if text := values.Get("page"); text != "" {
		var err error
		if number, err = strconv.Atoi(text); err != nil || number < 1 {
			return nil, badRequest("malformed page %q: write a number from 1, or leave it out", clip(text))
		}
	}
	if q.sort == "" {
		q.sort = "country"
	}
	d := s.directory(t)
	tr := slices.IndexFunc(t.trees, func(tr tree) bool { return tr.name == module })
	inTree := func(e *card) bool { return t.public.has(e.mirror) && t.mirrors[e.mirror].bases[tr] != (base{}) }
	found := d.find(t, &q, inTree)

	repo, version := t.exampleNames()
	p := struct {
		page
		Path, Example      string
		Text, Sort         string
		Descending         bool
		Protocol, Family   string
		Filtered           bool
		All, Found         int
		From, To           int
		Countries          int
		Healths, Places    []option
		Protocols          []option
		Families           []option
		Columns            []column
		Rows               []mirrorRow
		First, Prev, Next  string
		Number, Pages      int
		API                string
		Snapshot           time.Time
		HasSnapshot, Stale bool
	}{
		page: t.newPage("/", "Mirrors", module), Path: "/" + module, Example: "/mirrorlist/" + version + "/" + repo,
		Text: values.Get("q"), Sort: q.sort, Descending: q.down, Protocol: q.protocol, Family: q.family,
		Filtered: len(q.text) > 0 || q.country != ([2]byte{}) || q.health != "" || q.protocol != "" || q.family != "",
		Found:    len(found), Number: number, Pages: max(1, (len(found)+rowsPerPage-1)/rowsPerPage),
		Snapshot: snapTime(t.snap), HasSnapshot: t.snap != nil, Stale: t.snap != nil && !t.live,
	}
	healths, places := map[string]int{}, map[[2]byte]int{}
	for i := range d.cards {
		if e := &d.cards[i]; inTree(e) {
			p.All++
			healths[e.health.String()]++
			if country := t.mirrors[e.mirror].country; country != ([2]byte{}) {
				places[country]++
			}
		}
	}
	p.Countries = len(places)
	for _, name := range healthNames {
		if n := healths[name]; n > 0 || name == q.health {
			p.Healths = append(p.Healths, option{name, name, n, name == q.health})
		}
	}
	for country, n := range places {
		p.Places = append(p.Places, option{letters(country), countryName(country), n, country == q.country})
	}
	if q.country != ([2]byte{}) && places[q.country] == 0 {
		p.Places = append(p.Places, option{letters(q.country), countryName(q.country), 0, true})
	}
	slices.SortFunc(p.Places, func(a, b option) int { return strings.Compare(a.Name, b.Name) })
	for _, name := range mirrorProtocols {
		p.Protocols = append(p.Protocols, option{Value: name, Name: name, Selected: name == q.protocol})
	}
	for i, name := range mirrorFamilies {
		p.Families = append(p.Families, option{Value: name, Name: [...]string{"IPv4", "IPv6"}[i], Selected: name == q.family})
	}

	link := func(change func(url.Values)) string {
		v := url.Values{}
		for _, name := range []string{"q", "country", "health", "protocol", "family", "sort", "order", "page"} {
			if value := values.Get(name); value != "" {
				v.Set(name, value)
			}
		}
		change(v)
		if len(v) == 0 {
			return p.Path
		}
		return p.Path + "?" + v.Encode()
	}
	for _, col := range []column{
		{Name: "Mirror", Sort: "name"}, {Name: "Health", Sort: "health"}, {Name: "Behind", Sort: "lag", Number: true},
		{Name: "Country", Sort: "country"}, {Name: "City", Sort: "city"}, {Name: "Sponsor", Sort: "sponsor"}, {Name: "Protocols"}, {Name: "IP"},
		{Name: "Mbit/s", Sort: "bandwidth", Number: true}, {Name: "Syncs every", Sort: "frequency", Number: true},
	} {
		if col.Sort != "" {
			next := "asc"
			if col.Sort == q.sort {
				col.Sorted = "ascending"
				if next = "desc"; q.down {
					col.Sorted, next = "descending", "asc"
				}
			}
			col.URL = link(func(v url.Values) {
				v.Del("page")
				v.Set("sort", col.Sort)
				if v.Del("order"); next == "desc" {
					v.Set("order", next)
				}
			})
		}
		p.Columns = append(p.Columns, col)
	}
	turn := func(to int) string {
		return link(func(v url.Values) {
			if v.Del("page"); to > 1 {
				v.Set("page", strconv.Itoa(to))
			}
		})
	}
	if number > 1 {
		p.First, p.Prev = turn(1), turn(min(number-1, p.Pages))
	}
	if number < p.Pages {
		p.Next = turn(number + 1)
	}
	p.From = min((number-1)*rowsPerPage, len(found))
	p.To = min(p.From+rowsPerPage, len(found))
	for _, e := range found[p.From:p.To] {
		p.Rows = append(p.Rows, t.mirrorRow(&e, module))
	}
	p.From = min(p.From+1, p.To)
	return render("mirrors", p, shortly)
}

// mirrorRow is the line of a mirror in the table of a tree.
func (t *Table) mirrorRow(e *card, module string) mirrorRow {
	m := &t.mirrors[e.mirror]
	row := mirrorRow{
		Name: m.Name, Country: countryName(m.country), City: shorten(m.Location.City, longest), Sponsor: shorten(m.Sponsor, longest), SponsorURL: m.SponsorURL,
		IPv4: e.ipv4, IPv6: t.ipv6.has(e.mirror), Bandwidth: t.mirrors[e.mirror].Bandwidth, Frequency: schema.FormatDuration(m.UpdateFrequency),
		Health: e.health.String(), Lag: e.lag(t.now),
	}
	if len(row.SponsorURL) > 2*longest {
		row.SponsorURL = ""
	}
	address := m.Address
	if module != "" {
		address = m.AddressOptional[module]
	}
	// No link to rsync and ftp: browsers have no use for them.
	for _, l := range []pageLink{{"http", address.HTTP}, {"https", address.HTTPS}} {
		if l.URL != "" {
			row.Protocols = append(row.Protocols, l)
		}
	}
	for _, l := range []pageLink{{"rsync", address.Rsync}, {"ftp", address.FTP}} {
		if l.URL != "" {
			row.Protocols = append(row.Protocols, pageLink{Name: l.Name})
		}
	}
	return row
}
