// Package worldmap draws places on a map of the world: where a point is on it, and
// the way between two. The picture under them is made from the public-domain data
// of Natural Earth, in the Equal Earth projection, which keeps areas comparable. It
// knows nothing of mirrors.
package worldmap

import (
	"bytes"
	_ "embed"
	"math"
	"strconv"
)

// SVG is the picture: land and borders, in light and dark.
//
//go:embed world.svg
var SVG []byte

// Countries is the shapes of countries, for <use>: each is a path without colour,
// whose id is the code of ISO 3166-1 and whose units are those of the picture. Those
// that are too small for it are not there: see [HasShape].
//
//go:embed countries.svg
var Countries []byte

// HasShape reports whether a country of two capital letters is in Countries.
func HasShape(code string) bool {
	return len(code) == 2 && bytes.Contains(Countries, []byte(`<path id="`+code+`" `))
}

// Width and Height are of the picture, in its own units.
const (
	Width  = 2000
	Height = 974
)

// The polynomial of the projection (Šavrič, Patterson and Jenny, 2018).
const (
	a1 = 1.340264
	a2 = -0.081106
	a3 = 0.000893
	a4 = 0.003796
)

// scale makes the equator as long as the picture is wide.
var scale = Width / (4 * math.Pi / (math.Sqrt(3) * a1))

// Project returns where a place, in degrees, is in the picture.
func Project(lat, lon float64) (x, y float64) {
	lat, lon = max(-90, min(90, lat)), max(-180, min(180, lon))
	th := math.Asin(math.Sqrt(3) / 2 * math.Sin(radians(lat)))
	t2 := th * th
	t6 := t2 * t2 * t2
	x = 2 * math.Sqrt(3) * radians(lon) * math.Cos(th) / (3 * (9*a4*t6*t2 + 7*a3*t6 + 3*a2*t2 + a1))
	y = th * (a4*t6*t2 + a3*t6 + a2*t2 + a1)
	return Width/2 + scale*x, Height/2 - scale*y
}

func radians(deg float64) float64 { return deg * math.Pi / 180 }

// Way returns the shortest way between two places as the data of an SVG path. Where
// it leaves the picture on one side it comes back on the other.
func Way(lat1, lon1, lat2, lon2 float64) string {
	from, to := vector(lat1, lon1), vector(lat2, lon2)
	angle := math.Acos(max(-1, min(1, from[0]*to[0]+from[1]*to[1]+from[2]*to[2])))
	steps := max(1, int(math.Ceil(angle/radians(3))))
	var b []byte
	last := math.NaN()
	for i := range steps + 1 {
		f := float64(i) / float64(steps)
		p, q := 1-f, f
		if s := math.Sin(angle); s > 1e-9 {
			p, q = math.Sin((1-f)*angle)/s, math.Sin(f*angle)/s
		}
		v := [3]float64{p*from[0] + q*to[0], p*from[1] + q*to[1], p*from[2] + q*to[2]}
		lat, lon := math.Atan2(v[2], math.Hypot(v[0], v[1]))*180/math.Pi, math.Atan2(v[1], v[0])*180/math.Pi
		verb := byte('L')
		if math.IsNaN(last) || math.Abs(lon-last) > 180 {
			verb = 'M'
		}
		last = lon
		x, y := Project(lat, lon)
		b = append(b, verb)
		b = strconv.AppendFloat(b, x, 'f', 1, 64)
		b = append(b, ' ')
		b = strconv.AppendFloat(b, y, 'f', 1, 64)
	}
	return string(b)
}

func vector(lat, lon float64) [3]float64 {
	la, lo := radians(lat), radians(lon)
	return [3]float64{math.Cos(la) * math.Cos(lo), math.Cos(la) * math.Sin(lo), math.Sin(la)}
}
