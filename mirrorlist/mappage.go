package mirrorlist

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"

	"github.com/gin-gonic/gin"

	"meridian/checker/state"
	"meridian/mirrorlist/worldmap"
	"meridian/schema"
)

// A worldView is a picture of a part of the world with mirrors in it.
type worldView struct {
	Left, Top, Wide, High float64 // what is seen of the whole map
	Points                []mapPoint
	Ways                  []string // from You to mirrors
	You                   *mapPoint
	Label                 string
	Unplaced              int // mirrors without a position

	Font, Line float64 // in units of the map, so that they look the same at any zoom
}

// A mapPoint is a mirror, or several that are too near each other to be told apart.
type mapPoint struct {
	X, Y, R float64
	Health  string
	Title   string
	URL     string
	Count   int
}

// A pin is a mirror that is to be shown.
type pin struct {
	name     string
	health   state.Health
	lat, lon float64
	country  [2]byte
}

// maxZoom is how much larger than the whole the map may be.
const maxZoom = 32

// newWorldView is the part of the map around a point of it, that is zoom times as
// large as the whole.
func newWorldView(x, y, zoom float64) *worldView {
	v := &worldView{Wide: worldmap.Width / zoom, High: worldmap.Height / zoom}
	v.Left = max(0, min(worldmap.Width-v.Wide, x-v.Wide/2))
	v.Top = max(0, min(worldmap.Height-v.High, y-v.High/2))
	v.Font, v.Line = 22/zoom, 2.5/zoom
	return v
}

// place puts pins on the map: those that would overlap become one.
func (v *worldView) place(pins []pin, zoom float64, link func(cluster []pin, x, y float64) string) {
	type cell struct{ x, y int }
	size := 44 / zoom
	groups := map[cell][]pin{}
	for _, p := range pins {
		x, y := worldmap.Project(p.lat, p.lon)
		if x < v.Left || x > v.Left+v.Wide || y < v.Top || y > v.Top+v.High {
			continue
		}
		c := cell{int(x / size), int(y / size)}
		groups[c] = append(groups[c], p)
	}
	// What is on both sides of the edge of a cell belongs together: the large ones
	// take in the small ones beside them.
	cells := slices.SortedFunc(maps.Keys(groups), func(a, b cell) int {
		return cmp.Or(cmp.Compare(len(groups[b]), len(groups[a])), cmp.Compare(a.y, b.y), cmp.Compare(a.x, b.x))
	})
	for i, c := range cells {
		for _, other := range cells[i+1:] {
			if max(c.x-other.x, other.x-c.x) <= 1 && max(c.y-other.y, other.y-c.y) <= 1 {
				groups[c] = append(groups[c], groups[other]...)
				groups[other] = nil
			}
		}
	}
	for _, c := range cells {
		group := groups[c]
		if len(group) == 0 {
			continue
		}
		point := mapPoint{Count: len(group)}
		count := map[state.Health]int{}
		for _, p := range group {
			x, y := worldmap.Project(p.lat, p.lon)
			point.X += x / float64(len(group))
			point.Y += y / float64(len(group))
			count[p.health]++
		}
		most := group[0].health
		for h, n := range count {
			if n > count[most] || n == count[most] && badness(h) > badness(most) {
				most = h
			}
		}
		point.Health = most.String()
		point.R = round1((9 + 5*math.Log2(float64(len(group)))) / zoom)
		if len(group) == 1 {
			point.Title = group[0].name + ": " + point.Health
		} else {
			point.Title = fmt.Sprintf("%d mirrors", len(group))
			for _, h := range healthNames {
				for have, n := range count {
					if have.String() == h {
						point.Title += fmt.Sprintf(", %d %s", n, h)
					}
				}
			}
		}
		point.URL = link(group, point.X, point.Y)
		point.X, point.Y = round1(point.X), round1(point.Y)
		v.Points = append(v.Points, point)
	}
	// The large ones below the small ones, and in one order each time.
	slices.SortFunc(v.Points, func(a, b mapPoint) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Y, b.Y), cmp.Compare(a.X, b.X))
	})
}

// lead draws the ways from a client to mirrors.
func (v *worldView) lead(lat, lon float64, to []pin, zoom float64) {
	x, y := worldmap.Project(lat, lon)
	v.You = &mapPoint{X: round1(x), Y: round1(y), R: round1(30 / zoom)}
	for _, p := range to {
		v.Ways = append(v.Ways, worldmap.Way(lat, lon, p.lat, p.lon))
	}
}

// clientPosition is where the map shows a client, if that is known.
func clientPosition(e *Explanation) (lat, lon float64, ok bool) {
	p := e.Client.Place
	if p == nil {
		return 0, 0, false
	}
	if p.Latitude != nil {
		return *p.Latitude, *p.Longitude, true
	}
	return schema.Centroid(p.Country)
}

// pinsOf are the listed mirrors of an explanation that have a position.
func (t *Table) pinsOf(e *Explanation) (pins []pin) {
	for _, c := range e.Candidates {
		i, ok := t.byName[c.Mirror]
		if !ok || !c.Listed || !t.mirrors[i].at.known() {
			continue
		}
		h, _ := t.overall(i)
		m := &t.mirrors[i]
		pins = append(pins, pin{m.Name, h, m.lat, m.lon, m.country})
	}
	return pins
}

// mirrorURL is the page of a mirror.
func mirrorURL(name string) string { return "/mirrors/" + url.PathEscape(name) }

// mapPage answers /map.
func (s *Server) mapPage(c *gin.Context) (*response, error) {
	t := s.table.Load()
	values := c.Request.URL.Query()
	number := func(name string, preset, least, most float64) (float64, *refusal) {
		text := values.Get(name)
		if text == "" {
			return preset, nil
		}
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || f < least || f > most {
			return 0, badRequest("malformed %s %q: write a number from %g to %g, or leave it out", name, clip(text), least, most)
		}
		return f, nil
	}
	zoom, no := number("zoom", 1, 1, maxZoom)
	if no != nil {
		return nil, no
	}
	x, no := number("x", worldmap.Width/2, 0, worldmap.Width)
	if no != nil {
		return nil, no
	}
	y, no := number("y", worldmap.Height/2, 0, worldmap.Height)
	if no != nil {
		return nil, no
	}

	view := newWorldView(x, y, zoom)
	var pins []pin
	counts := map[string]int{}
	for _, e := range s.directory(t).cards {
		m := &t.mirrors[e.mirror]
		counts[e.health.String()]++
		if !m.at.known() {
			view.Unplaced++
			continue
		}
		pins = append(pins, pin{m.Name, e.health, m.lat, m.lon, m.country})
	}
	closer := func(x, y, zoom float64) string {
		v := url.Values{"x": {strconv.Itoa(int(x))}, "y": {strconv.Itoa(int(y))}}
		if zoom <= 1 {
			return "/map"
		}
		v.Set("zoom", strconv.FormatFloat(zoom, 'g', -1, 64))
		return "/map?" + v.Encode()
	}
	view.place(pins, zoom, func(group []pin, x, y float64) string {
		switch {
		case len(group) == 1:
			return mirrorURL(group[0].name)
		case zoom < maxZoom:
			return closer(x, y, min(maxZoom, zoom*4))
		}
		return "/?country=" + letters(group[0].country)
	})
	view.Label = fmt.Sprintf("Map of %d mirrors by health", len(pins))

	p := struct {
		page
		View       *worldView
		Counts     []option
		Moves      []pageLink
		Version    string
		Repo       string
		YourPlace  string
		HasAddress bool
		Listed     int
	}{page: t.newPage("/map", "Map", ""), View: view}
	for _, name := range healthNames {
		if n := counts[name]; n > 0 {
			p.Counts = append(p.Counts, option{Value: name, Name: name, Count: n})
		}
	}
	midX, midY := view.Left+view.Wide/2, view.Top+view.High/2
	if zoom < maxZoom {
		p.Moves = append(p.Moves, pageLink{"Larger", closer(midX, midY, min(maxZoom, zoom*2))})
	}
	if zoom > 1 {
		p.Moves = append(p.Moves,
			pageLink{"Smaller", closer(midX, midY, zoom/2)},
			pageLink{"West", closer(max(0, midX-view.Wide/2), midY, zoom)}, pageLink{"East", closer(min(worldmap.Width, midX+view.Wide/2), midY, zoom)},
			pageLink{"North", closer(midX, max(0, midY-view.High/2), zoom)}, pageLink{"South", closer(midX, min(worldmap.Height, midY+view.High/2), zoom)},
			pageLink{"Whole world", "/map"})
	}

	// Yours are those of the first list that people use.
	p.Repo, p.Version = t.exampleNames()
	in, _ := t.inquiry(c.Request)
	in.Version, in.Repo = p.Version, p.Repo
	if e, err := t.explain(in); err == nil {
		if lat, lon, ok := clientPosition(e); ok {
			to := t.pinsOf(e)
			view.lead(lat, lon, to, zoom)
			p.Listed, p.HasAddress = len(to), true
			p.YourPlace = placeWords(e.Client.Place)
		}
	}
	return render("map", p, "")
}

// placeWords is a place for people.
func placeWords(p *PlaceInfo) string {
	if p == nil {
		return ""
	}
	return joinPlace(p.City, p.State, countryName(twoLetters(p.Country)))
}

// apiMap is the mirrors as GeoJSON (RFC 7946).
type apiMap struct {
	Type     string       `json:"type" doc:"FeatureCollection"`
	Features []apiFeature `json:"features"`
	Next     string       `json:"next,omitempty" doc:"URL of the next part; absent in the last one. Also in the header Link"`
}

type apiFeature struct {
	Type       string        `json:"type" doc:"Feature"`
	Geometry   apiPoint      `json:"geometry"`
	Properties apiMapDetails `json:"properties"`
}

type apiPoint struct {
	Type        string    `json:"type" doc:"Point"`
	Coordinates []float64 `json:"coordinates" doc:"longitude and latitude, degrees"`
}

type apiMapDetails struct {
	Name      string `json:"name"`
	Health    string `json:"health"`
	Country   string `json:"country,omitempty"`
	Bandwidth int    `json:"bandwidth_mbits"`
}

// mapOperation answers /api/v1/map.
func (s *Server) mapOperation(c *gin.Context) (*response, error) {
	t := s.table.Load()
	part, no := parseSlice(c.Request.URL.Query(), mostMirrors, mostMirrors)
	if no != nil {
		return nil, no
	}
	var placed []card
	for _, e := range s.directory(t).cards {
		if t.mirrors[e.mirror].at.known() {
			placed = append(placed, e)
		}
	}
	from, to, next := part.cut(c, len(placed), func(i int) string { return t.mirrors[placed[i].mirror].Name })
	out := apiMap{Type: "FeatureCollection", Features: []apiFeature{}, Next: next}
	for _, e := range placed[from:to] {
		m := &t.mirrors[e.mirror]
		out.Features = append(out.Features, apiFeature{
			"Feature", apiPoint{"Point", []float64{m.lon, m.lat}}, apiMapDetails{m.Name, e.health.String(), letters(m.country), m.Bandwidth},
		})
	}
	return paged(out, shortly, next)
}
