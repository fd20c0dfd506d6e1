package mirrorlist

import (
	"math"

	"meridian/schema"
)

// bandKm is the width of a band: mirrors whose distance differs by less are
// equally near for a client.
const bandKm = 500

// Bands 0 to maxBand-1 are distances; nowhere is the band of a mirror whose
// position is not known, after all others.
const (
	maxBand = 41 // half the circumference is 20,015 km
	nowhere = maxBand
)

// foreign is added to the band of a mirror outside the client's country, so
// that a rank is one small number and whole bands sort by it.
const foreign = 64

// point is a position on the unit sphere. The zero value is no position.
type point struct{ x, y, z float64 }

func pointAt(lat, lon float64) point {
	sin, cos := math.Sincos(lat * math.Pi / 180)
	sinλ, cosλ := math.Sincos(lon * math.Pi / 180)
	return point{cos * cosλ, cos * sinλ, sin}
}

func (p point) known() bool { return p != point{} }

// chord returns the square of the straight distance between two points, 0 to 4.
// It grows with the distance along the surface and needs no trigonometry.
func (p point) chord(q point) float64 {
	x, y, z := p.x-q.x, p.y-q.y, p.z-q.z
	return x*x + y*y + z*z
}

// bandEdges[b] is the square of the chord at which band b begins. bandHint[i] is
// the band at the lower end of the i-th of 4096 equal parts of [0, 4].
var bandEdges, bandHint = func() (edges [maxBand + 1]float64, hint [4097]uint8) {
	for b := range edges {
		s := math.Sin(math.Min(float64(b)*bandKm/(2*schema.EarthRadius), math.Pi/2))
		edges[b] = 4 * s * s
	}
	edges[maxBand] = math.Inf(1)
	for i := range hint {
		b := 0
		for float64(i)/1024 >= edges[b+1] {
			b++
		}
		hint[i] = uint8(b)
	}
	return edges, hint
}()

// band returns the band of two points that far apart. It is int(km)/500 of the
// haversine distance without computing it.
func band(chord float64) int {
	b := int(bandHint[int(chord*1024)])
	for chord >= bandEdges[b+1] {
		b++
	}
	return b
}
