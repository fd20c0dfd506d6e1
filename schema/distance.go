package schema

import "math"

// EarthRadius in km: the mean radius of IUGG, the one that the recorded routing
// decisions were made with.
const EarthRadius = 6371.0088

// Distance returns the great-circle distance in km of two positions in degrees,
// by the haversine formula.
func Distance(lat1, lon1, lat2, lon2 float64) float64 {
	const rad = math.Pi / 180
	sinLat := math.Sin((lat2 - lat1) * rad / 2)
	sinLon := math.Sin((lon2 - lon1) * rad / 2)
	h := sinLat*sinLat + math.Cos(lat1*rad)*math.Cos(lat2*rad)*sinLon*sinLon
	// Rounding may carry antipodes past 1, where Asin has no value.
	return 2 * EarthRadius * math.Asin(math.Min(1, math.Sqrt(h)))
}
