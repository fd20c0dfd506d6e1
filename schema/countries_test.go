package schema

import (
	"bufio"
	"encoding/json"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestCountries(t *testing.T) {
	if len(countries) != 249 {
		t.Errorf("%d countries, want the 249 of ISO 3166-1", len(countries))
	}
	known := map[string]bool{}
	for _, c := range continents {
		known[c.code] = true
	}
	for i, c := range countries {
		if i > 0 && countries[i-1].code >= c.code {
			t.Errorf("%s stands behind %s; lookups need the codes sorted", c.code, countries[i-1].code)
		}
		if !known[c.continent] || c.name == "" || math.Abs(c.lat) > 90 || math.Abs(c.lon) > 180 {
			t.Errorf("%+v is not a country", c)
		}
		if !ValidCountry(c.code) || CountryName(c.code) != c.name || Continent(c.code) != c.continent {
			t.Errorf("%s is not found", c.code)
		}
		if km := outside(c.code, c.lat, c.lon); km > 0 {
			t.Errorf("the middle of %s is %.0f km outside of it", c.code, km)
		}
		// Its name, and its name as people type it, mean it.
		for _, word := range []string{c.name, strings.ToUpper(c.name), strings.ToLower(c.code)} {
			if code, ok := countryCode(word); !ok || code != c.code {
				t.Errorf("countryCode(%q) = %q, want %q", word, code, c.code)
			}
		}
	}
	for word, code := range otherNames {
		if !ValidCountry(code) || word != strings.ToLower(word) {
			t.Errorf("%q means %q; want a small word and a code", word, code)
		}
	}
	for code := range extents {
		if !ValidCountry(code) {
			t.Errorf("extents of %q, which is no country", code)
		}
	}
	for _, code := range []string{"", "UK", "XX", "de", "DEU"} {
		if _, _, ok := Centroid(code); ok || ValidCountry(code) || CountryName(code) != "" || Continent(code) != "" {
			t.Errorf("%q is taken for a country", code)
		}
	}
}

// The editor's list of countries is the loader's.
func TestSchemaKnowsTheSameKeysAndCountries(t *testing.T) {
	type object struct {
		Properties map[string]struct {
			Enum       []string
			Properties map[string]struct{ Enum []any }
			Items      struct{ Properties map[string]any }
		}
	}
	read := func(name string) (o object) {
		data, err := Schemas.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	same := func(what string, got, want []string) {
		got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
		if !slices.Equal(got, want) {
			t.Errorf("%s: the schema has %v, the loader %v", what, got, want)
		}
	}
	keys := func(o object, key string) (all []string) {
		for k := range o.Properties[key].Properties {
			all = append(all, k)
		}
		return all
	}
	m, n := read("mirror.schema.json"), read("network.schema.json")
	var top []string
	for k := range m.Properties {
		top = append(top, k)
	}
	same("mirror", top, mirrorKeys)
	same("address", keys(m, "address"), addressKeys)
	same("geolocation", keys(m, "geolocation"), geolocationKeys)
	same("carries", keys(m, "carries"), carriesKeys)
	top = nil
	for k := range n.Properties {
		top = append(top, k)
	}
	same("network", top, networkKeys)
	var repo []string
	for k := range n.Properties["repos"].Items.Properties {
		repo = append(repo, k)
	}
	same("repos", repo, repoKeys)

	var codes, want []string
	for _, c := range m.Properties["geolocation"].Properties["country"].Enum {
		codes = append(codes, c.(string))
	}
	for _, c := range countries {
		want = append(want, c.code)
	}
	same("countries", codes, want)
}

// The time zone database names a city for each zone of a country; each must be
// inside of it, or the linter would complain about mirrors that are right.
func TestCitiesAreInTheirCountries(t *testing.T) {
	const tab = "/usr/share/zoneinfo/zone.tab"
	f, err := os.Open(tab)
	if err != nil {
		t.Skipf("no time zones to compare with: %v", err)
	}
	defer f.Close()
	cities := 0
	for in := bufio.NewScanner(f); in.Scan(); {
		fields := strings.Fields(in.Text())
		if len(fields) < 3 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		at := fields[1]
		split := strings.LastIndexAny(at, "+-")
		lat, lon := degreesMinutes(t, at[:split], 2), degreesMinutes(t, at[split:], 3)
		cities++
		if km := outside(fields[0], lat, lon); km > farFromCountry/2 {
			t.Errorf("%s at %.1f %.1f is %.0f km outside of %s", fields[2], lat, lon, km, fields[0])
		}
	}
	if cities < 300 {
		t.Errorf("%s has only %d cities", tab, cities)
	}
}

// degreesMinutes reads ±DDMM or ±DDMMSS, with the given number of digits for the
// degrees.
func degreesMinutes(t *testing.T, s string, digits int) float64 {
	t.Helper()
	degrees, err1 := strconv.Atoi(s[1 : 1+digits])
	minutes, err2 := strconv.Atoi(s[1+digits : 3+digits])
	if err1 != nil || err2 != nil {
		t.Fatalf("%q is no position", s)
	}
	value := float64(degrees) + float64(minutes)/60
	if s[0] == '-' {
		return -value
	}
	return value
}

func TestDistance(t *testing.T) {
	const half = math.Pi * EarthRadius
	tests := []struct {
		name                   string
		lat1, lon1, lat2, lon2 float64
		want                   float64
	}{
		{"here", 48.2, 16.4, 48.2, 16.4, 0},
		{"a quarter along the equator", 0, 0, 0, 90, half / 2},
		{"pole to pole", 90, 0, -90, 123, half},
		{"antipodes, where rounding leaves the domain of arcsine", 0.3, 17, -0.3, -163, half},
		{"over the date line", 0, 179, 0, -179, half / 90},
		{"Vienna to New York", 48.2082, 16.3738, 40.7128, -74.0060, 6796.34},
	}
	for _, tt := range tests {
		if got := Distance(tt.lat1, tt.lon1, tt.lat2, tt.lon2); math.Abs(got-tt.want) > 1 || math.IsNaN(got) {
			t.Errorf("%s: %.2f km, want %.2f", tt.name, got, tt.want)
		}
	}
}
