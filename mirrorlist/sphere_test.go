package mirrorlist

import (
	"math"
	"math/rand/v2"
	"testing"

	"meridian/schema"
)

// randomPlace is uniform on the sphere.
func randomPlace(r *rand.Rand) (lat, lon float64) {
	return math.Asin(2*r.Float64()-1) * 180 / math.Pi, 360*r.Float64() - 180
}

// from returns the place so many km from another one, in some direction.
func from(lat, lon, bearing, km float64) (float64, float64) {
	const rad = math.Pi / 180
	d := km / schema.EarthRadius
	sin1, cos1 := math.Sincos(lat * rad)
	sinD, cosD := math.Sincos(d)
	sin2 := sin1*cosD + cos1*sinD*math.Cos(bearing)
	lat2 := math.Asin(math.Max(-1, math.Min(1, sin2)))
	lon2 := lon*rad + math.Atan2(math.Sin(bearing)*sinD*cos1, cosD-sin1*sin2)
	return lat2 / rad, lon2 / rad
}

func bandOf(lat1, lon1, lat2, lon2 float64) int {
	return band(pointAt(lat1, lon1).chord(pointAt(lat2, lon2)))
}

// The band is that of the haversine distance, cut to whole km.
func TestBandIsThatOfHaversine(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	seen := map[int]int{}
	for range 1_000_000 {
		lat1, lon1 := randomPlace(r)
		lat2, lon2 := randomPlace(r)
		want := int(schema.Distance(lat1, lon1, lat2, lon2)) / bandKm
		if got := bandOf(lat1, lon1, lat2, lon2); got != want {
			t.Fatalf("from (%v, %v) to (%v, %v) is band %d, want %d", lat1, lon1, lat2, lon2, got, want)
		}
		seen[want]++
	}
	if len(seen) < 40 { // the last one, around the antipode, is tiny
		t.Errorf("only %d bands were met", len(seen))
	}
}

// A millimetre decides on which side of an edge a mirror is.
func TestBandEdges(t *testing.T) {
	const mm = 1e-6
	r := rand.New(rand.NewPCG(1, 2))
	for edge := 1; edge < maxBand; edge++ {
		for range 2000 {
			lat, lon := randomPlace(r)
			bearing := 2 * math.Pi * r.Float64()
			for _, tt := range []struct {
				km   float64
				want int
			}{
				{float64(edge*bandKm) - mm, edge - 1},
				{float64(edge*bandKm) + mm, edge},
			} {
				lat2, lon2 := from(lat, lon, bearing, tt.km)
				if got := int(schema.Distance(lat, lon, lat2, lon2)) / bandKm; got != tt.want {
					t.Fatalf("the test itself is not exact at %v km", tt.km)
				}
				if got := bandOf(lat, lon, lat2, lon2); got != tt.want {
					t.Fatalf("%v km from (%v, %v) is band %d, want %d", tt.km, lat, lon, got, tt.want)
				}
			}
		}
	}
}

func TestBandAtItsEnds(t *testing.T) {
	for _, tt := range []struct {
		name                   string
		lat1, lon1, lat2, lon2 float64
		want                   int
	}{
		{"the same place is in band 0", 52.5, 13.4, 52.5, 13.4, 0},
		{"one pole whatever the longitude", 90, 0, 90, 123, 0},
		{"both sides of the date line are neighbours", 0, 179.9, 0, -179.9, 0},
		{"antipodes are in the last band", 0, 0, 0, 180, 40},
		{"poles are antipodes", 90, 0, -90, 0, 40},
		{"a quarter of the way round is 10,007 km", 0, 0, 0, 90, 20},
	} {
		if got := bandOf(tt.lat1, tt.lon1, tt.lat2, tt.lon2); got != tt.want {
			t.Errorf("%s: band %d, want %d", tt.name, got, tt.want)
		}
	}
	// Rounding can carry the square of a chord past 4.
	if got := band(math.Nextafter(4, 5)); got != 40 {
		t.Errorf("just past the antipode is band %d", got)
	}
}

func TestZeroPointIsNoPosition(t *testing.T) {
	if (point{}).known() {
		t.Error("the zero point is a position")
	}
	r := rand.New(rand.NewPCG(1, 3))
	for range 1000 {
		if lat, lon := randomPlace(r); !pointAt(lat, lon).known() {
			t.Errorf("(%v, %v) is no position", lat, lon)
		}
	}
	if !pointAt(0, 0).known() {
		t.Error("where the equator meets the zero meridian is no position")
	}
}
