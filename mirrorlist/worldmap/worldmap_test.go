package worldmap

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"meridian/schema"
)

var update = flag.Bool("update", false, "make world.svg and countries.svg again from testdata/countries-110m.json")

// The picture is made here, and what is committed is what is made. The data are
// those of Natural Earth 4.1 at 1:110,000,000, which are in the public domain, in
// the TopoJSON of the package world-atlas 2.0.2 (ISC; its licence is beside them).
func TestPictureIsMadeFromItsData(t *testing.T) {
	got, err := draw("testdata/countries-110m.json")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("world.svg", got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, SVG) {
		t.Errorf("world.svg has %d bytes and is not what its data make (%d bytes); run go test -update", len(SVG), len(got))
	}
	if len(SVG) > 80_000 {
		t.Errorf("world.svg has %d bytes, want at most 80,000", len(SVG))
	}
	d := xml.NewDecoder(bytes.NewReader(SVG))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A topology is a TopoJSON file: lines that polygons share.
type topology struct {
	Transform struct{ Scale, Translate [2]float64 }
	Arcs      [][][2]float64
	Objects   struct {
		Countries, Land struct{ Geometries []geometry }
	}
}

type geometry struct {
	Type       string
	Arcs       json.RawMessage
	Properties struct{ Name string }
}

// codesOf are the codes of countries whose name in the data is not that of ISO
// 3166-1; what has no code of its own is drawn with the country that ISO counts it
// to, if there is one.
var codesOf = map[string]string{
	"W. Sahara": "EH", "United States of America": "US", "Dem. Rep. Congo": "CD", "Dominican Rep.": "DO", "Falkland Is.": "FK", "Fr. S. Antarctic Lands": "TF",
	"Central African Rep.": "CF", "Eq. Guinea": "GQ", "Turkey": "TR", "Solomon Is.": "SB", "N. Cyprus": "CY", "Somaliland": "SO", "Bosnia and Herz.": "BA",
	"Macedonia": "MK", "Kosovo": "", "S. Sudan": "SS",
}

// drawCountries makes the shapes of countries, by their codes.
func drawCountries(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var world topology
	if err := json.Unmarshal(data, &world); err != nil {
		return nil, err
	}
	byName := map[string]string{}
	for i := range 26 * 26 {
		if code := string([]byte{'A' + byte(i/26), 'A' + byte(i%26)}); schema.ValidCountry(code) {
			byName[strings.ToLower(schema.CountryName(code))] = code
		}
	}
	shapes := map[string]*pen{}
	for _, g := range world.Objects.Countries.Geometries {
		code, ok := codesOf[g.Properties.Name]
		if !ok {
			if code = byName[strings.ToLower(g.Properties.Name)]; code == "" {
				return nil, fmt.Errorf("no code is known of %q", g.Properties.Name)
			}
		}
		if code == "" {
			continue
		}
		rings, err := g.rings()
		if err != nil {
			return nil, err
		}
		if shapes[code] == nil {
			shapes[code] = new(pen)
		}
		for _, ring := range rings {
			var line [][2]float64
			for _, n := range ring {
				line = append(line, world.line(n)...)
			}
			for _, part := range cut(line) {
				shapes[code].follow(part, true)
			}
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\">\n<!-- Natural Earth, public domain: naturalearthdata.com -->\n<defs>\n", Width, Height)
	for _, code := range slices.Sorted(maps.Keys(shapes)) {
		fmt.Fprintf(&b, "<path id=\"%s\" d=\"%s\"/>\n", code, shapes[code])
	}
	b.WriteString("</defs>\n</svg>\n")
	return b.Bytes(), nil
}

func TestShapesOfCountriesAreMadeFromTheirData(t *testing.T) {
	got, err := drawCountries("testdata/countries-110m.json")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("countries.svg", got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, Countries) {
		t.Errorf("countries.svg has %d bytes and is not what its data make (%d bytes); run go test -update", len(Countries), len(got))
	}
	var doc struct {
		Paths []struct {
			ID string `xml:"id,attr"`
			D  string `xml:"d,attr"`
		} `xml:"defs>path"`
	}
	if err := xml.Unmarshal(Countries, &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Paths) < 170 {
		t.Errorf("there are %d countries", len(doc.Paths))
	}
	number := regexp.MustCompile(`-?\d+`)
	for _, p := range doc.Paths {
		if !HasShape(p.ID) {
			t.Errorf("%s is drawn, and has no shape", p.ID)
		}
		lat, lon, ok := schema.Centroid(p.ID)
		if !ok {
			t.Errorf("%s is no country", p.ID)
			continue
		}
		// The middle of a country is near its shape: no code has that of another.
		x, y := Project(lat, lon)
		var at [2]float64
		near := math.Inf(1)
		for part := range strings.SplitSeq(strings.ReplaceAll(p.D, "z", ""), "M") {
			ns := number.FindAllString(part, -1)
			for i := 0; i+1 < len(ns); i += 2 {
				dx, err1 := strconv.ParseFloat(ns[i], 64)
				dy, err2 := strconv.ParseFloat(ns[i+1], 64)
				if err1 != nil || err2 != nil {
					t.Fatalf("%s: %q, %q", p.ID, ns[i], ns[i+1])
				}
				if i == 0 {
					at = [2]float64{dx, dy}
				} else {
					at[0], at[1] = at[0]+dx, at[1]+dy
				}
				near = min(near, math.Hypot(at[0]-x, at[1]-y))
			}
		}
		if near > 160 { // Australia's is 140 from any coast
			t.Errorf("the middle of %s is %.0f units from its shape", p.ID, near)
		}
	}
	if HasShape("SG") || HasShape("") || HasShape("xx") {
		t.Error("there is a shape of what is too small to have one")
	}
}

// rings returns the rings of a geometry, each as numbers of arcs.
func (g *geometry) rings() (rings [][]int, err error) {
	if g.Type == "Polygon" {
		err = json.Unmarshal(g.Arcs, &rings)
		return rings, err
	}
	var many [][][]int
	err = json.Unmarshal(g.Arcs, &many)
	for _, one := range many {
		rings = append(rings, one...)
	}
	return rings, err
}

// line returns an arc in degrees; a negative number is one that is followed
// backwards.
func (p *topology) line(n int) [][2]float64 {
	back := n < 0
	if back {
		n = ^n
	}
	var out [][2]float64
	var x, y float64
	for _, d := range p.Arcs[n] {
		x, y = x+d[0], y+d[1]
		out = append(out, [2]float64{x*p.Transform.Scale[0] + p.Transform.Translate[0], y*p.Transform.Scale[1] + p.Transform.Translate[1]})
	}
	if back {
		slices.Reverse(out)
	}
	return out
}

// A pen writes the data of a path: whole units, relative to the point before.
type pen struct {
	strings.Builder
	x, y int
}

// follow draws a line of degrees. A long step is made of short ones, because the
// straight lines of the data are curves of the map.
func (p *pen) follow(line [][2]float64, closed bool) {
	points := [][2]int{}
	add := func(lon, lat float64) {
		x, y := Project(lat, lon)
		at := [2]int{int(math.Round(x)), int(math.Round(y))}
		if n := len(points); n == 0 || points[n-1] != at {
			points = append(points, at)
		}
	}
	for i, at := range line {
		if i > 0 {
			before := line[i-1]
			steps := int(max(math.Abs(at[0]-before[0]), math.Abs(at[1]-before[1])) / 4)
			for s := 1; s < steps; s++ {
				f := float64(s) / float64(steps)
				add(before[0]+f*(at[0]-before[0]), before[1]+f*(at[1]-before[1]))
			}
		}
		add(at[0], at[1])
	}
	if closed && len(points) < 4 || len(points) < 2 {
		return
	}
	// Points on a straight line between their neighbours say nothing.
	kept := points[:1]
	for i := 1; i < len(points); i++ {
		if n := len(kept); n > 1 {
			a, b, c := kept[n-2], kept[n-1], points[i]
			if (b[0]-a[0])*(c[1]-a[1]) == (b[1]-a[1])*(c[0]-a[0]) && (b[0]-a[0])*(c[0]-b[0])+(b[1]-a[1])*(c[1]-b[1]) > 0 {
				kept = kept[:n-1]
			}
		}
		kept = append(kept, points[i])
	}
	for i, at := range kept {
		dx, dy := at[0]-p.x, at[1]-p.y
		switch {
		case i == 0:
			fmt.Fprintf(p, "M%d %d", at[0], at[1])
		case i == 1:
			fmt.Fprintf(p, "l%s", pair(dx, dy))
		case dx < 0:
			p.WriteString(pair(dx, dy))
		default:
			p.WriteString(" " + pair(dx, dy))
		}
		p.x, p.y = at[0], at[1]
	}
	if closed {
		p.WriteByte('z')
		p.x, p.y = kept[0][0], kept[0][1]
	}
}

// cut returns the parts of a ring on this side of the 180th meridian, where the map
// ends. The data cross it as if it were not there.
func cut(ring [][2]float64) (parts [][][2]float64) {
	round := [][2]float64{ring[0]}
	west, east := ring[0][0], ring[0][0]
	for i := 1; i < len(ring); i++ {
		last := round[i-1][0]
		lon := ring[i][0] + 360*math.Round((last-ring[i][0])/360)
		round = append(round, [2]float64{lon, ring[i][1]})
		west, east = min(west, lon), max(east, lon)
	}
	if first, last := round[0], round[len(round)-1]; math.Abs(first[0]-last[0]) > 180 {
		// It goes round the pole, which is in it.
		round = append(round, [2]float64{last[0], -90}, [2]float64{first[0], -90}, first)
	}
	for shift := -360.0; shift <= 360; shift += 360 {
		if east+shift <= -180 || west+shift >= 180 {
			continue
		}
		moved := make([][2]float64, len(round))
		for i, at := range round {
			moved[i] = [2]float64{at[0] + shift, at[1]}
		}
		// Sutherland and Hodgman, one side after the other.
		moved = clip(moved, func(lon float64) float64 { return 180 - lon })
		if moved = clip(moved, func(lon float64) float64 { return lon + 180 }); len(moved) > 3 {
			parts = append(parts, moved)
		}
	}
	return parts
}

// clip keeps the part of a ring where inside is not negative.
func clip(ring [][2]float64, inside func(lon float64) float64) (out [][2]float64) {
	for i, at := range ring {
		before := ring[(i+len(ring)-1)%len(ring)]
		a, b := inside(before[0]), inside(at[0])
		if a < 0 != (b < 0) {
			f := a / (a - b)
			out = append(out, [2]float64{before[0] + f*(at[0]-before[0]), before[1] + f*(at[1]-before[1])})
		}
		if b >= 0 {
			out = append(out, at)
		}
	}
	if len(out) > 0 {
		out = append(out, out[0])
	}
	return out
}

func pair(x, y int) string {
	if y < 0 {
		return fmt.Sprintf("%d%d", x, y)
	}
	return fmt.Sprintf("%d %d", x, y)
}

func draw(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var world topology
	if err := json.Unmarshal(data, &world); err != nil {
		return nil, err
	}
	var land, borders pen
	for _, g := range world.Objects.Land.Geometries {
		rings, err := g.rings()
		if err != nil {
			return nil, err
		}
		for _, ring := range rings {
			var line [][2]float64
			for _, n := range ring {
				line = append(line, world.line(n)...)
			}
			for _, part := range cut(line) {
				land.follow(part, true)
			}
		}
	}
	used := map[int]int{}
	for _, g := range world.Objects.Countries.Geometries {
		rings, err := g.rings()
		if err != nil {
			return nil, err
		}
		for _, ring := range rings {
			for _, n := range ring {
				used[max(n, ^n)]++
			}
		}
	}
	for n := range world.Arcs {
		if used[n] > 1 { // two countries have it
			borders.follow(world.line(n), false)
		}
	}
	var sea pen
	var edge [][2]float64
	for lat := -90.0; lat <= 90; lat += 2 {
		edge = append(edge, [2]float64{-180, lat})
	}
	for lat := 90.0; lat >= -90; lat -= 2 {
		edge = append(edge, [2]float64{180, lat})
	}
	sea.follow(edge, true)

	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d">
<!-- Natural Earth, public domain: naturalearthdata.com -->
<style>.s{fill:#e6eff7}.l{fill:#c3ccd4}.b{fill:none;stroke:#fff;stroke-width:1}@media(prefers-color-scheme:dark){.s{fill:#16202a}.l{fill:#3d4954}.b{stroke:#16202a}}</style>
<path class="s" d="%s"/>
<path class="l" d="%s"/>
<path class="b" d="%s"/>
</svg>
`, Width, Height, sea.String(), land.String(), borders.String())
	return b.Bytes(), nil
}

func TestProject(t *testing.T) {
	for _, tt := range []struct {
		name     string
		lat, lon float64
		x, y     float64
	}{
		{"the middle", 0, 0, 1000, 487},
		{"the east end of the equator", 0, 180, 2000, 487},
		{"the west end of the equator", 0, -180, 0, 487},
		// The poles are lines; where they end follows from the polynomial.
		{"the east end of the north pole", 90, 180, 1592, 0},
		{"beyond the ends", 200, 500, 1592, 0},
	} {
		x, y := Project(tt.lat, tt.lon)
		if math.Abs(x-tt.x) > 2 || math.Abs(y-tt.y) > 1 {
			t.Errorf("%s is at %.1f, %.1f, want %.0f, %.0f", tt.name, x, y, tt.x, tt.y)
		}
	}
}

// Areas are true: a cell of a degree is as large as its part of the sphere,
// wherever it is.
func TestProjectionKeepsAreas(t *testing.T) {
	area := func(lat, lon float64) float64 {
		const d = 0.01
		x0, y0 := Project(lat, lon)
		x1, y1 := Project(lat, lon+d)
		x2, y2 := Project(lat+d, lon)
		return math.Abs((x1-x0)*(y2-y0)-(x2-x0)*(y1-y0)) / math.Cos(radians(lat+d/2))
	}
	want := area(0, 0)
	for _, lat := range []float64{-80, -50, -20, 20, 50, 80} {
		for _, lon := range []float64{-170, 0, 90} {
			if got := area(lat, lon); math.Abs(got/want-1) > 0.002 {
				t.Errorf("a piece at %v, %v is %.4f times as large as it should be", lat, lon, got/want)
			}
		}
	}
}

func TestWay(t *testing.T) {
	if way := Way(52.5, 13.4, 48.9, 2.4); strings.Count(way, "M") != 1 {
		t.Errorf("from Berlin to Paris: %s", way)
	}
	if way := Way(35.7, 139.7, 37.8, -122.4); strings.Count(way, "M") != 2 {
		t.Errorf("from Tokyo to San Francisco, which leads over the edge: %s", way)
	}
	for _, same := range [][4]float64{{1, 2, 1, 2}, {0, 0, 0, 180}, {90, 0, -90, 0}} {
		if way := Way(same[0], same[1], same[2], same[3]); strings.Contains(way, "N") {
			t.Errorf("%v: %s", same, way)
		}
	}
}
