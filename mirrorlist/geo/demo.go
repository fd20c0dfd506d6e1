package geo

import (
	"bytes"
	"iter"
	"net/netip"
	"time"
)

// demoNetworks are where the demo takes clients to be: the networks that are
// kept for documentation, and parts of loopback, from which one can really ask.
// The AS numbers are kept for documentation as well. In ascending order.
var demoNetworks = []struct {
	prefix  string
	asn     uint32
	country string
	contin  string
	city    string
	state   string
	lat     float64
	lon     float64
}{
	{"127.0.1.0/24", 64496, "DE", "EU", "Berlin", "Land Berlin", 52.5200, 13.4050},
	{"127.0.2.0/24", 64497, "GB", "EU", "London", "England", 51.5074, -0.1278},
	{"127.0.3.0/24", 64498, "US", "NA", "New York", "New York", 40.7128, -74.0060},
	{"127.0.4.0/24", 64499, "US", "NA", "San Francisco", "California", 37.7749, -122.4194},
	{"127.0.5.0/24", 64500, "BR", "SA", "São Paulo", "São Paulo", -23.5505, -46.6333},
	{"127.0.6.0/24", 64501, "JP", "AS", "Tokyo", "Tokyo", 35.6762, 139.6503},
	{"127.0.7.0/24", 64502, "IN", "AS", "Mumbai", "Maharashtra", 19.0760, 72.8777},
	{"127.0.8.0/24", 64503, "AU", "OC", "Sydney", "New South Wales", -33.8688, 151.2093},
	{"127.0.9.0/24", 64504, "ZA", "AF", "Cape Town", "Western Cape", -33.9249, 18.4241},
	{"192.0.2.0/25", 64496, "DE", "EU", "Berlin", "Land Berlin", 52.5200, 13.4050},
	{"192.0.2.128/25", 64505, "FR", "EU", "Paris", "Île-de-France", 48.8566, 2.3522},
	{"198.51.100.0/25", 64498, "US", "NA", "New York", "New York", 40.7128, -74.0060},
	{"198.51.100.128/25", 64499, "US", "NA", "San Francisco", "California", 37.7749, -122.4194},
	{"203.0.113.0/25", 64501, "JP", "AS", "Tokyo", "Tokyo", 35.6762, 139.6503},
	{"203.0.113.128/25", 64503, "AU", "OC", "Sydney", "New South Wales", -33.8688, 151.2093},
	{"2001:db8:1::/48", 64496, "DE", "EU", "Berlin", "Land Berlin", 52.5200, 13.4050},
	{"2001:db8:2::/48", 64497, "GB", "EU", "London", "England", 51.5074, -0.1278},
	{"2001:db8:3::/48", 64498, "US", "NA", "New York", "New York", 40.7128, -74.0060},
	{"2001:db8:5::/48", 64500, "BR", "SA", "São Paulo", "São Paulo", -23.5505, -46.6333},
	{"2001:db8:6::/48", 64501, "JP", "AS", "Tokyo", "Tokyo", 35.6762, 139.6503},
	{"2001:db8:9::/48", 64504, "ZA", "AF", "Cape Town", "Western Cape", -33.9249, 18.4241},
}

const demoType = "Meridian-Demo"

// demoBuilt is fixed: the demo is the same wherever it is made.
var demoBuilt = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func demoRecords() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for _, n := range demoNetworks {
			place := &Place{
				Country:   [2]byte([]byte(n.country)),
				Continent: [2]byte([]byte(n.contin)),
				City:      n.city, State: n.state,
				Lat: n.lat, Lon: n.lon, HasCoordinates: true,
			}
			if !yield(Record{Prefix: netip.MustParsePrefix(n.prefix), Place: place, ASN: n.asn}) {
				return
			}
		}
	}
}

// WriteDemo writes the demo database as a snapshot to out: a few cities for the
// networks that are kept for documentation and for 127.0.1.0/24 to
// 127.0.9.0/24, with locations and AS numbers.
func WriteDemo(out string) error {
	return Write(out, demoType, demoBuilt, demoRecords())
}

// Demo returns the database that WriteDemo writes, without a file.
func Demo() *DB {
	db, err := build(demoType, demoBuilt, demoRecords())
	if err != nil {
		panic("geo: the table of the demo: " + err.Error())
	}
	var b bytes.Buffer
	if err := db.encode(&b); err != nil {
		panic("geo: the demo: " + err.Error())
	}
	data := aligned(b.Len())
	copy(data, b.Bytes())
	db, err = decode(data, aligned)
	if err != nil {
		panic("geo: the demo: " + err.Error())
	}
	return db
}
