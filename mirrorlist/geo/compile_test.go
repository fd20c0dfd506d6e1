package geo

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/oschwald/maxminddb-golang/v2"
)

// shared returns the path of test data that is not part of this tree, and skips
// the test where it is absent.
func shared(t testing.TB, path string) string {
	t.Helper()
	path = filepath.Join("..", "..", "..", "shared", "testdata", path)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no %s here", path)
	}
	return path
}

// compiled compiles an .mmdb file and opens the result.
func compiled(t testing.TB, mmdb string) *DB {
	t.Helper()
	out := filepath.Join(t.TempDir(), "snapshot")
	if err := Compile(mmdb, out); err != nil {
		t.Fatal(err)
	}
	db, err := Open(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func place(continent, country, state, city string, latLon ...float64) *Place {
	p := &Place{City: city, State: state}
	copy(p.Continent[:], continent)
	copy(p.Country[:], country)
	if len(latLon) == 2 {
		p.Lat, p.Lon, p.HasCoordinates = latLon[0], latLon[1], true
	}
	return p
}

// wantAnswer checks what db says of a; a nil place is NoPlace.
func wantAnswer(t *testing.T, db *DB, a netip.Addr, want *Place, asn uint32) {
	t.Helper()
	i := db.Find(a)
	switch {
	case want == nil && i != NoPlace:
		t.Errorf("%v is at %+v, want no place", a, db.Place(i))
	case want != nil && i == NoPlace:
		t.Errorf("%v is nowhere, want %+v", a, *want)
	case want != nil && db.Place(i) != *want:
		t.Errorf("%v is at %+v, want %+v", a, db.Place(i), *want)
	}
	if got := db.ASN(a); got != asn {
		t.Errorf("%v is in AS%d, want AS%d", a, got, asn)
	}
}

func TestKnownAnswers(t *testing.T) {
	linkoping := place("EU", "SE", "Östergötland County", "Linköping", 58.4167, 15.6167)
	london := place("EU", "GB", "England", "London", 51.5142, -0.0931)
	sydney := place("OC", "AU", "New South Wales", "Sydney", -33.86785, 151.20732)
	type answer struct {
		addr  string
		place *Place
		asn   uint32
	}
	for _, tt := range []struct {
		file    string
		answers []answer
	}{
		{"maxmind/GeoLite2-City-Test.mmdb", []answer{
			{"89.160.20.113", linkoping, 0},
			{"::ffff:89.160.20.113", linkoping, 0},
			{"::89.160.20.113", nil, 0},
			{"81.2.69.142", london, 0},
			{"2002:5102:458e::1", london, 0},   // 6to4
			{"2001:0:5102:458e::1", london, 0}, // Teredo
			{"2001:0:5102:458e::1%1", nil, 0},  // with a zone
			{"2.125.160.216", place("EU", "GB", "England", "Boxford", 51.75, -1.25), 0},
			{"175.16.199.1", place("AS", "CN", "Jilin Sheng", "Changchun", 43.88, 125.3228), 0},
			{"216.160.83.56", place("NA", "US", "Washington", "Milton", 47.2513, -122.3149), 0},
			{"67.43.156.1", place("AS", "BT", "", "", 27.5, 90.5), 0},
			{"10.0.0.1", nil, 0},
		}},
		{"maxmind/GeoIP2-City-Test.mmdb", []answer{
			{"89.160.20.113", linkoping, 0},
			{"2.3.3.1", place("EU", "", "", ""), 0}, // a continent and nothing else
		}},
		{"maxmind/GeoLite2-Country-Test.mmdb", []answer{
			{"89.160.20.113", place("EU", "SE", "", ""), 0},
			{"216.160.83.56", place("NA", "US", "", ""), 0},
		}},
		{"maxmind/GeoIP2-Enterprise-Test.mmdb", []answer{
			{"89.160.20.113", linkoping, 29518},
			{"1.9.127.107", nil, 0}, // traits and nothing else
		}},
		{"maxmind/GeoLite2-ASN-Test.mmdb", []answer{
			{"1.0.0.1", nil, 15169},
			{"1.128.0.0", nil, 1221},
			{"89.160.20.113", nil, 29518},
		}},
		{"maxmind/GeoIP2-ISP-Test.mmdb", []answer{
			{"1.128.0.0", nil, 1221},
			{"4.0.0.1", nil, 0}, // an ISP without a number
		}},
		{"ipinfo/ip_geolocation_standard_sample.mmdb", []answer{
			{"77.174.56.224", place("", "NL", "North Holland", "Weesp", 52.3075, 5.04167), 0},
			{"12.88.31.154", place("", "US", "Louisiana", "Monroe", 32.50931, -92.1193), 0},
		}},
		{"ipinfo/ipinfo_location_sample.mmdb", []answer{{"1.0.0.0", sydney, 0}}},
		{"ipinfo/ipinfo_core_sample.mmdb", []answer{{"1.0.0.0", sydney, 13335}}},
		{"ipinfo/ipinfo_lite_sample.mmdb", []answer{
			{"1.0.0.0", place("OC", "AU", "", ""), 13335},
			{"1.0.1.0", place("AS", "CN", "", ""), 0},
		}},
		{"ipinfo/ip_country_asn_sample.mmdb", []answer{
			{"1.0.0.0", place("OC", "AU", "", ""), 13335},
			{"1.0.1.0", place("AS", "CN", "", ""), 0},
		}},
		{"ipinfo/asn_sample.mmdb", []answer{{"3.0.0.1", nil, 16509}}},
		// Its country is that of the holder of the number, not of the address.
		{"ipinfo/ipinfo_asn_sample.mmdb", []answer{{"1.0.0.0", nil, 13335}, {"1.0.16.1", nil, 2519}}},
	} {
		t.Run(filepath.Base(tt.file), func(t *testing.T) {
			db := compiled(t, shared(t, filepath.Join("geo", tt.file)))
			var hasPlace, hasASN bool
			for _, a := range tt.answers {
				wantAnswer(t, db, addr(a.addr), a.place, a.asn)
				hasPlace = hasPlace || a.place != nil
				hasASN = hasASN || a.asn != 0
			}
			if db.HasLocation() != hasPlace || db.HasASN() != hasASN {
				t.Errorf("HasLocation %v, HasASN %v; want %v, %v", db.HasLocation(), db.HasASN(), hasPlace, hasASN)
			}
			if db.Type() == "" || db.Built().Year() < 2024 || db.Sum() == 0 {
				t.Errorf("type %q, built %v, sum %x", db.Type(), db.Built(), db.Sum())
			}
		})
	}
}

// At both ends of every network our answer is what the library reads there.
func TestEveryNetworkOfMaxMind(t *testing.T) {
	for _, file := range []string{"GeoLite2-City-Test.mmdb", "GeoIP2-City-Test.mmdb", "GeoIP2-Enterprise-Test.mmdb", "GeoLite2-Country-Test.mmdb"} {
		path := shared(t, "geo/maxmind/"+file)
		db := compiled(t, path)
		r, err := maxminddb.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		networks := 0
		for n := range r.Networks(maxminddb.IncludeNetworksWithoutData()) {
			var rec struct {
				City struct {
					Names map[string]string `maxminddb:"names"`
				} `maxminddb:"city"`
				Country struct {
					Code string `maxminddb:"iso_code"`
				} `maxminddb:"country"`
				Continent struct {
					Code string `maxminddb:"code"`
				} `maxminddb:"continent"`
				Location struct {
					Lat *float64 `maxminddb:"latitude"`
					Lon *float64 `maxminddb:"longitude"`
				} `maxminddb:"location"`
			}
			if err := n.Decode(&rec); err != nil {
				t.Fatal(err)
			}
			ends, _ := newNetwork(n.Prefix())
			for _, a := range []addr6{ends.first, ends.last} {
				got := db.Place(db.Find(toAddr(a, ends.is4)))
				want := *place(rec.Continent.Code, rec.Country.Code, got.State, rec.City.Names["en"])
				if rec.Location.Lat != nil {
					want.Lat, want.Lon, want.HasCoordinates = *rec.Location.Lat, *rec.Location.Lon, true
				}
				if got != want {
					t.Errorf("%s: %v: %+v, want %+v", file, n.Prefix(), got, want)
				}
			}
			networks++
		}
		if networks < 500 {
			t.Errorf("%s: %d networks, expected more", file, networks)
		}
	}
}

// Each database that is broken on purpose is refused for what is wrong with it,
// and what was compiled before stays.
func TestBadDatabases(t *testing.T) {
	const (
		cut     = "unexpected end of database"
		useless = `no record of this database, of type "Test", has a place or an AS number`
	)
	want := map[string]string{
		"GeoIP2-City-Test-Broken-Double-Format.mmdb":   "float 64 size of 5",
		"GeoIP2-City-Test-Invalid-Node-Count.mmdb":     "invalid metadata",
		"MaxMind-DB-test-broken-pointers-24.mmdb":      cut,
		"MaxMind-DB-test-broken-search-tree-24.mmdb":   errDeep.Error(),
		"bad-unicode-in-map-key.mmdb":                  errPointer.Error(),
		"cyclic-data-structure.mmdb":                   cut,
		"invalid-bytes-length.mmdb":                    cut,
		"invalid-data-record-offset.mmdb":              "unknown type",
		"invalid-map-key-length.mmdb":                  cut,
		"invalid-string-length.mmdb":                   cut,
		"libmaxminddb-deep-array-nesting.mmdb":         useless,
		"libmaxminddb-deep-nesting.mmdb":               useless,
		"libmaxminddb-metadata-marker-only.mmdb":       cut,
		"libmaxminddb-offset-integer-overflow.mmdb":    cut,
		"libmaxminddb-oversized-array.mmdb":            cut,
		"libmaxminddb-oversized-map.mmdb":              cut,
		"libmaxminddb-separator-record-max-left.mmdb":  errPointer.Error(),
		"libmaxminddb-separator-record-min-left.mmdb":  errPointer.Error(),
		"libmaxminddb-separator-record-min-right.mmdb": errPointer.Error(),
		"libmaxminddb-uint64-max-epoch.mmdb":           "build_epoch is 18446744073709551615",
		"metadata-is-an-uint128.mmdb":                  cut,
		"unexpected-bytes.mmdb":                        "cannot unmarshal",
		// The fault is where this reader never looks.
		"libmaxminddb-corrupt-search-tree.mmdb":          useless,
		"libmaxminddb-empty-array-last-in-metadata.mmdb": useless,
		"libmaxminddb-empty-map-last-in-metadata.mmdb":   useless,
	}
	files, err := filepath.Glob(filepath.Join(shared(t, "geo/maxmind-bad"), "*.mmdb"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(want) {
		t.Errorf("%d bad databases, %d expectations", len(files), len(want))
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "snapshot")
			if err := os.WriteFile(out, []byte("old"), 0o644); err != nil {
				t.Fatal(err)
			}
			err := Compile(file, out)
			if err == nil || want[name] == "" || !strings.Contains(err.Error(), want[name]) {
				t.Errorf("error %v, want %q in it", err, want[name])
			} else if !strings.Contains(err.Error(), file) {
				t.Errorf("error %v does not name the file", err)
			}
			if got, _ := os.ReadFile(out); string(got) != "old" {
				t.Errorf("the old snapshot was replaced by %d bytes", len(got))
			}
		})
	}
}

func TestCompileRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{"a directory": dir, "nothing": filepath.Join(dir, "none"), "a device": os.DevNull} {
		if err := Compile(path, filepath.Join(dir, "out")); err == nil {
			t.Errorf("%s was compiled", name)
		}
		if _, err := Open(path); err == nil {
			t.Errorf("%s was opened", name)
		}
	}
}

// The recorded service read the same two databases with MaxMind's library.
func TestRecordedDecisions(t *testing.T) {
	db := Join(compiled(t, shared(t, "decisions/location.mmdb")), compiled(t, shared(t, "decisions/asn.mmdb")))
	f, err := os.Open(shared(t, "decisions/decisions.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<20)
	facts, compatible := 0, 0
	for lines.Scan() {
		var fact struct {
			IP      string
			Country *string
			ASN     *uint32
		}
		if err := json.Unmarshal(lines.Bytes(), &fact); err != nil {
			t.Fatal(err)
		}
		a, err := netip.ParseAddr(fact.IP)
		if err != nil {
			continue // recorded to see what becomes of it
		}
		if a.Is6() && !a.Is4In6() && a.Compare(addr("::ffff:ffff")) <= 0 {
			// That library takes ::a.b.c.d for a.b.c.d; we do not.
			compatible++
			wantAnswer(t, db, a, nil, 0)
			continue
		}
		facts++
		i := db.Find(a)
		var country *string
		if i != NoPlace {
			s := strings.Trim(string(new(db.Place(i)).Country[:]), "\x00")
			country = &s
		}
		if (country == nil) != (fact.Country == nil) || country != nil && *country != *fact.Country {
			t.Errorf("%v is in country %v, recorded %v", a, text(country), text(fact.Country))
		}
		asn := uint32(0)
		if fact.ASN != nil {
			asn = *fact.ASN
		}
		if got := db.ASN(a); got != asn {
			t.Errorf("%v is in AS%d, recorded AS%d", a, got, asn)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if facts < 1400 || compatible == 0 {
		t.Errorf("%d facts and %d of IPv4-compatible clients, expected more", facts, compatible)
	}
}

func text(s *string) string {
	if s == nil {
		return "none"
	}
	return `"` + *s + `"`
}

// write makes an .mmdb file with one record for each network.
func write(t testing.TB, opts mmdbwriter.Options, records map[string]mmdbtype.DataType) string {
	t.Helper()
	opts.DatabaseType = "Made up"
	opts.IncludeReservedNetworks = true
	tree, err := mmdbwriter.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	for network, rec := range records {
		_, n, err := net.ParseCIDR(network)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Insert(n, rec); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "made-up.mmdb"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := tree.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func TestRecords(t *testing.T) {
	type m = mmdbtype.Map
	type s = mmdbtype.String
	names := func(kv ...string) m {
		n := m{}
		for i := 0; i < len(kv); i += 2 {
			n[s(kv[i])] = s(kv[i+1])
		}
		return m{"names": n}
	}
	long := s(strings.Repeat("x", maxName+1))
	for _, tt := range []struct {
		name   string
		record mmdbtype.DataType
		place  *Place
		asn    uint32
	}{
		{"an AS number as a number", m{"asn": mmdbtype.Uint32(13335)}, nil, 13335},
		{"as a signed number", m{"asn": mmdbtype.Int32(13335)}, nil, 13335},
		{"below zero", m{"asn": mmdbtype.Int32(-1)}, nil, 0},
		{"as a string", m{"asn": s("AS13335")}, nil, 13335},
		{"in small letters", m{"asn": s("as13335")}, nil, 13335},
		{"as digits", m{"asn": s("13335")}, nil, 13335},
		{"of four bytes", m{"asn": s("AS4200000001")}, nil, 4200000001},
		{"too large", m{"asn": s("AS4294967296")}, nil, 0},
		{"empty", m{"asn": s("")}, nil, 0},
		{"half of it", m{"asn": s("AS")}, nil, 0},
		{"in a map", m{"asn": m{"number": s("AS1")}}, nil, 0},
		{"a reserved one", m{"asn": s("AS4294967295")}, nil, 0},
		{"MaxMind's", m{"autonomous_system_number": mmdbtype.Uint32(64500)}, nil, 64500},
		{"MaxMind's among traits", m{"traits": m{"autonomous_system_number": mmdbtype.Uint64(64500)}}, nil, 64500},

		{"a country as a code", m{"country": s("DE")}, place("", "DE", "", ""), 0},
		{"in small letters", m{"country": s("de")}, place("", "DE", "", ""), 0},
		{"by its name", m{"country": s("Germany")}, place("", "", "", ""), 0},
		{"by its name, and a code", m{"country": s("Germany"), "country_code": s("DE")}, place("", "DE", "", ""), 0},
		{"two letters that are a name", m{"country": s("XX"), "country_code": s("DE")}, place("", "DE", "", ""), 0},
		{"no letters", m{"country": s("12")}, place("", "", "", ""), 0},
		{"two letters of another script", m{"country": s("é")}, place("", "", "", ""), 0},
		{"empty", m{"country": s("")}, place("", "", "", ""), 0},
		{"a number", m{"country": mmdbtype.Uint32(276)}, place("", "", "", ""), 0},
		{"in a map", m{"country": m{"iso_code": s("DE")}}, place("", "DE", "", ""), 0},
		{"in a map without it", m{"country": m{"geoname_id": mmdbtype.Uint32(1)}}, place("", "", "", ""), 0},
		{"registered elsewhere", m{"registered_country": m{"iso_code": s("DE")}, "asn": s("AS1")}, nil, 1},
		{"of the holder of a number", m{"asn": s("AS1"), "name": s("X"), "country": s("DE")}, nil, 1},
		{"of the network, beside a number", m{"asn": s("AS1"), "as_name": s("X"), "country": s("DE")}, place("", "DE", "", ""), 1},
		{"of a network with a city, beside a number", m{"asn": s("AS1"), "name": s("X"), "country": s("DE"), "city": s("Y")}, place("", "DE", "", "Y"), 1},

		{"a continent as a code", m{"continent": s("EU")}, place("EU", "", "", ""), 0},
		{"by its name, and a code", m{"continent": s("Europe"), "continent_code": s("EU")}, place("EU", "", "", ""), 0},
		{"in a map", m{"continent": m{"code": s("EU")}}, place("EU", "", "", ""), 0},

		{"coordinates as strings", m{"lat": s("50.11"), "lng": s("-8.68")}, place("", "", "", "", 50.11, -8.68), 0},
		{"as numbers", m{"latitude": mmdbtype.Float64(50.11), "longitude": mmdbtype.Float64(-8.68)}, place("", "", "", "", 50.11, -8.68), 0},
		{"as short numbers", m{"latitude": mmdbtype.Float32(50.5), "longitude": mmdbtype.Float32(-8.5)}, place("", "", "", "", 50.5, -8.5), 0},
		{"as whole numbers", m{"latitude": mmdbtype.Int32(-50), "longitude": mmdbtype.Uint16(8)}, place("", "", "", "", -50, 8), 0},
		{"in a map", m{"location": m{"latitude": mmdbtype.Float64(1), "longitude": mmdbtype.Float64(2)}}, place("", "", "", "", 1, 2), 0},
		{"at the pole", m{"lat": s("-90"), "lng": s("180")}, place("", "", "", "", -90, 180), 0},
		{"beyond the pole", m{"lat": s("90.1"), "lng": s("0")}, place("", "", "", ""), 0},
		{"beyond the date line", m{"lat": s("0"), "lng": s("180.1")}, place("", "", "", ""), 0},
		{"not a number", m{"lat": s("NaN"), "lng": s("0")}, place("", "", "", ""), 0},
		{"empty", m{"lat": s(""), "lng": s("")}, place("", "", "", ""), 0},
		{"only one", m{"lat": s("50")}, place("", "", "", ""), 0},
		{"without a country", m{"country": s(""), "lat": s("1"), "lng": s("2")}, place("", "", "", "", 1, 2), 0},

		{"a city as a string", m{"city": s("Köln"), "region": s("NRW")}, place("", "", "NRW", "Köln"), 0},
		{"in English", m{"city": names("de", "Köln", "en", "Cologne", "fr", "Cologne-fr")}, place("", "", "", "Cologne"), 0},
		{"in no English", m{"city": names("de", "Köln")}, place("", "", "", "Köln"), 0},
		{"the largest subdivision", m{"subdivisions": mmdbtype.Slice{names("en", "England"), names("en", "West Berkshire")}}, place("", "", "England", ""), 0},
		{"no subdivision", m{"subdivisions": mmdbtype.Slice{}}, place("", "", "", ""), 0},
		{"a name that is too long", m{"city": long, "country": s("DE")}, place("", "DE", "", ""), 0},
		{"a name of control characters", m{"city": s("a\x1b[31mb"), "country": s("DE")}, place("", "DE", "", ""), 0},
		{"a name that is not UTF-8", m{"city": s("\xff"), "country": s("DE")}, place("", "DE", "", ""), 0},

		{"nothing", m{}, nil, 0},
		{"other fields only", m{"traits": m{"is_anonymous": mmdbtype.Bool(true)}, "x": mmdbtype.Slice{m{}}}, nil, 0},
		{"no map", s("DE"), nil, 0},
		{"a map of maps in the wrong places", m{"city": mmdbtype.Slice{}, "subdivisions": m{}, "location": s("x"), "traits": s("y"), "asn": s("AS1")}, place("", "", "", ""), 1},
	} {
		db := compiled(t, write(t, mmdbwriter.Options{}, map[string]mmdbtype.DataType{
			"192.0.2.0/24":  tt.record,
			"2001:db8::/32": m{"country": s("FR"), "asn": s("AS64511")}, // a database cannot be of nothing
		}))
		t.Run(tt.name, func(t *testing.T) { wantAnswer(t, db, addr("192.0.2.1"), tt.place, tt.asn) })
	}
}

func TestTrees(t *testing.T) {
	de := mmdbtype.Map{"country": mmdbtype.String("DE"), "asn": mmdbtype.String("AS64500")}
	fr := mmdbtype.Map{"country": mmdbtype.String("FR"), "asn": mmdbtype.String("AS64501")}
	germany, france := place("", "DE", "", ""), place("", "FR", "", "")
	for _, size := range []int{24, 28, 32} {
		t.Run("of IPv4 alone", func(t *testing.T) {
			db := compiled(t, write(t, mmdbwriter.Options{IPVersion: 4, RecordSize: size},
				map[string]mmdbtype.DataType{"192.0.2.0/25": de, "192.0.2.128/25": fr}))
			wantAnswer(t, db, addr("192.0.2.127"), germany, 64500)
			wantAnswer(t, db, addr("192.0.2.128"), france, 64501)
			wantAnswer(t, db, addr("192.0.3.0"), nil, 0)
			wantAnswer(t, db, addr("::192.0.2.1"), nil, 0)
			wantAnswer(t, db, addr("2002:c000:201::"), nil, 0)
		})
		t.Run("with aliases", func(t *testing.T) {
			db := compiled(t, write(t, mmdbwriter.Options{RecordSize: size},
				map[string]mmdbtype.DataType{"192.0.2.0/24": de, "2003::/16": fr, "2001:db8::/128": fr, "::1:0:0:0/128": fr}))
			wantAnswer(t, db, addr("192.0.2.1"), germany, 64500)
			wantAnswer(t, db, addr("2002:c000:201::"), germany, 64500)
			wantAnswer(t, db, addr("2001:0:c000:201::"), germany, 64500)
			wantAnswer(t, db, addr("2003::"), france, 64501)
			wantAnswer(t, db, addr("2001:db8::"), france, 64501)
			wantAnswer(t, db, addr("2001:db8::1"), nil, 0)
			wantAnswer(t, db, addr("::1:0:0:0"), france, 64501)
			// The IPv4 network is there once, however many aliases there are.
			if got := db.location.Len(); got != 4 {
				t.Errorf("%d ranges, want 4", got)
			}
			if got := len(db.location.aliases); got != 3 {
				t.Errorf("%d aliases, want 3", got)
			}
		})
	}
	t.Run("in which one record covers IPv4 and more", func(t *testing.T) {
		db := compiled(t, write(t, mmdbwriter.Options{DisableIPv4Aliasing: true},
			map[string]mmdbtype.DataType{"::/3": de, "2000::/3": fr}))
		for _, a := range []string{"0.0.0.0", "192.0.2.1", "255.255.255.255", "::1", "1fff::"} {
			wantAnswer(t, db, addr(a), germany, 64500)
		}
		wantAnswer(t, db, addr("2001:db8::1"), france, 64501)
		wantAnswer(t, db, addr("4000::"), nil, 0)
	})
	t.Run("without IPv4", func(t *testing.T) {
		db := compiled(t, write(t, mmdbwriter.Options{DisableIPv4Aliasing: true},
			map[string]mmdbtype.DataType{"2001:db8::/32": fr}))
		wantAnswer(t, db, addr("2001:db8::1"), france, 64501)
		wantAnswer(t, db, addr("32.1.13.184"), nil, 0)
	})
}

// rawMMDB makes a database of the nodes given, by hand, so that it can be as
// wrong as one likes. A value is a node, or len(nodes) for nothing, or beyond
// that + 16 an offset in data.
func rawMMDB(ipVersion uint16, nodes [][2]uint32, data []byte) []byte {
	var b []byte
	for _, n := range nodes {
		b = binary.BigEndian.AppendUint32(b, n[0])
		b = binary.BigEndian.AppendUint32(b, n[1])
	}
	b = append(b, make([]byte, 16)...)
	b = append(b, data...)
	b = append(b, "\xab\xcd\xefMaxMind.com"...)
	str := func(s string) []byte { return append([]byte{2<<5 | byte(len(s))}, s...) }
	num := func(v uint32) []byte { return binary.BigEndian.AppendUint32([]byte{6<<5 | 4}, v) }
	fields := [][2][]byte{
		{str("node_count"), num(uint32(len(nodes)))},
		{str("record_size"), num(32)},
		{str("ip_version"), num(uint32(ipVersion))},
		{str("database_type"), str("Hostile")},
		{str("build_epoch"), num(1_700_000_000)},
		{str("binary_format_major_version"), num(2)},
	}
	b = append(b, 7<<5|byte(len(fields)))
	for _, f := range fields {
		b = append(append(b, f[0]...), f[1]...)
	}
	return b
}

// germany is {"country": "DE"} as a record.
const germanyRecord = "\xe1\x47country\x42DE"

// hostile are databases that would keep a reader busy for ever, or make it fall
// over, and why they are refused.
func hostile() map[string]struct {
	mmdb []byte
	want error
} {
	// ladder: both branches of each node lead to the next, so that n nodes have
	// 2ⁿ paths, all to the same end.
	ladder := func(n int, end uint32) [][2]uint32 {
		nodes := make([][2]uint32, n)
		for i := range nodes {
			nodes[i] = [2]uint32{uint32(i + 1), uint32(i + 1)}
		}
		nodes[n-1] = [2]uint32{end, end}
		return nodes
	}
	record := func(n int) uint32 { return uint32(n) + 16 }

	// Node 96 holds IPv4, and every path of 96 steps ends there.
	aliases := ladder(97, record(97))
	cycle4 := ladder(97, 96)
	// A chain in which each node turns off to IPv4 at depth 1, 2, 3, …
	many := make([][2]uint32, 97)
	for i := range many {
		many[i] = [2]uint32{uint32(i + 1), 96}
	}
	many[96] = [2]uint32{record(97), 97}

	type h = struct {
		mmdb []byte
		want error
	}
	return map[string]h{
		"more paths than can be walked":               {rawMMDB(6, ladder(128, record(128)), []byte(germanyRecord)), errShared},
		"more paths to nothing than can be walked":    {rawMMDB(6, ladder(128, 128), nil), errShared},
		"more paths of IPv4 than can be walked":       {rawMMDB(4, ladder(32, record(32)), []byte(germanyRecord)), errShared},
		"more aliases than can be walked":             {rawMMDB(6, aliases, []byte(germanyRecord)), errAliases},
		"more aliases than there should be":           {rawMMDB(6, many, []byte(germanyRecord)), errAliases},
		"a root that is its own branch":               {rawMMDB(6, [][2]uint32{{0, 0}}, nil), errDeep},
		"a right branch that leads back":              {rawMMDB(6, [][2]uint32{{1, 0}}, nil), errDeep},
		"an IPv4 tree that contains itself":           {rawMMDB(6, cycle4, nil), errDeep},
		"an IPv4 tree deeper than 32":                 {rawMMDB(4, ladder(40, record(40)), []byte(germanyRecord)), errDeep},
		"a tree deeper than 128":                      {rawMMDB(6, ladder(140, record(140)), []byte(germanyRecord)), errDeep},
		"a record in the separator":                   {rawMMDB(4, [][2]uint32{{1, 1 + 15}}, []byte(germanyRecord)), errPointer},
		"a record beyond the data":                    {rawMMDB(4, [][2]uint32{{1, record(1) + 1000}}, []byte(germanyRecord)), errPointer},
		"a record at the end of the data":             {rawMMDB(4, [][2]uint32{{1, record(1) + uint32(len(germanyRecord))}}, []byte(germanyRecord)), errPointer},
		"a record at the highest offset there can be": {rawMMDB(4, [][2]uint32{{1, 1<<32 - 1}}, []byte(germanyRecord)), errPointer},
	}
}

func TestHostileTrees(t *testing.T) {
	// The helper makes good databases, too.
	good, err := compile(rawMMDB(4, [][2]uint32{{1, 1 + 16}}, []byte(germanyRecord)), time.Now().Add(maxTime))
	if err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, good, addr("192.0.2.1"), place("", "DE", "", ""), 0)

	for name, h := range hostile() {
		t.Run(name, func(t *testing.T) {
			db, err := compile(h.mmdb, time.Now().Add(maxTime))
			if !errors.Is(err, h.want) {
				t.Errorf("compile = %v, %v; want %v", db, err, h.want)
			}
		})
	}
}

// pointer is a pointer to an offset in the data.
func pointer(offset uint32) string {
	return "\x38" + string(binary.BigEndian.AppendUint32(nil, offset))
}

// mapOf is a map of n entries, that are in body.
func mapOf(n int, body string) string {
	if n < 29 {
		return string([]byte{0xe0 | byte(n)}) + body
	}
	n -= 285
	return string([]byte{0xe0 | 30, byte(n >> 8), byte(n)}) + body
}

// One record can name the same large map again and again.
func TestRecordThatMultiplies(t *testing.T) {
	const entries = 500 // of more, the library itself adds up what they hold
	// At 0 a map of many languages without English, each with no name; behind it
	// the record: many cities whose names are that map.
	names := mapOf(entries, strings.Repeat("\x42xx\x40", entries))
	city := mapOf(1, "\x45names"+pointer(0))
	cityAt := uint32(len(names))
	record := mapOf(entries, strings.Repeat("\x44city"+pointer(cityAt), entries))
	data := names + city + record
	at := uint32(len(names) + len(city))

	mmdb := rawMMDB(4, [][2]uint32{{1, 1 + 16 + at}}, []byte(data))
	if db, err := compile(mmdb, time.Now().Add(maxTime)); !errors.Is(err, errFields) {
		t.Errorf("compile = %v, %v; want %v", db, err, errFields)
	}
	// The same with few cities is what it says.
	few := mapOf(2, "\x44city"+pointer(cityAt)+"\x47country\x42DE")
	db, err := compile(rawMMDB(4, [][2]uint32{{1, 1 + 16 + at}}, []byte(names+city+few)), time.Now().Add(maxTime))
	if err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, db, addr("192.0.2.1"), place("", "DE", "", ""), 0)
}

func TestRecordsThatTakeTooLong(t *testing.T) {
	mmdb := rawMMDB(4, [][2]uint32{{1, 1 + 16}}, []byte(germanyRecord))
	if _, err := compile(mmdb, time.Now().Add(-time.Second)); !errors.Is(err, errTime) {
		t.Errorf("error %v, want %v", err, errTime)
	}
}

// Every prefix of a database, and the database with any byte changed, is refused
// or compiled to something that can be used.
func TestDamagedDatabases(t *testing.T) {
	de := mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String("DE")}, "location": mmdbtype.Map{"latitude": mmdbtype.Float64(1), "longitude": mmdbtype.Float64(2)}}
	path := write(t, mmdbwriter.Options{BuildEpoch: 1_700_000_000}, map[string]mmdbtype.DataType{"192.0.2.0/24": de, "2001:db8::/32": mmdbtype.Map{"asn": mmdbtype.String("AS64500")}})
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := compile(good[:n], time.Now().Add(maxTime)); err == nil {
			t.Errorf("the first %d of %d bytes were compiled", n, len(good))
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	compiledAnyway := 0
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= byte(1 + rng.IntN(255))
		if tryMMDB(t, bad) {
			compiledAnyway++
		}
	}
	if compiledAnyway == 0 || compiledAnyway == len(good) {
		t.Errorf("%d of %d damaged databases were compiled", compiledAnyway, len(good))
	}
}

// tryMMDB compiles what may be a database. What compiles must survive being
// written, opened and used.
func tryMMDB(t testing.TB, mmdb []byte) bool {
	t.Helper()
	db, err := compile(mmdb, time.Now().Add(maxTime))
	if err != nil {
		return false
	}
	var b bytes.Buffer
	if err := db.encode(&b); err != nil {
		t.Fatal(err)
	}
	data := aligned(b.Len())
	copy(data, b.Bytes())
	opened, err := decode(data, aligned)
	if err != nil {
		t.Fatalf("what was compiled cannot be opened: %v", err)
	}
	for _, a := range sampleAddrs {
		i := opened.Find(a)
		if i != db.Find(a) || opened.ASN(a) != db.ASN(a) || opened.Place(i) != db.Place(i) {
			t.Fatalf("%v has other answers after opening", a)
		}
	}
	use(t, opened)
	return true
}

var sampleAddrs = []netip.Addr{
	{}, addr("0.0.0.0"), addr("255.255.255.255"), addr("192.0.2.1"), addr("10.255.255.255"), addr("::"), addr("::1.2.3.4"),
	addr("2001:db8::1"), addr("2001::1"), addr("2002:c000:201::"), addr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
	addr("fe80::1%eth0"), addr("::ffff:1.2.3.4"), addr("8000::"), addr("128.0.0.0"),
}

// use asks db everything; nothing may fail.
func use(t testing.TB, db *DB) {
	t.Helper()
	for _, a := range sampleAddrs {
		if i := db.Find(a); i != NoPlace && int(i) >= db.Places() {
			t.Fatalf("Find(%v) = %d of %d places", a, i, db.Places())
		}
		db.ASN(a)
	}
	for i := range db.Places() {
		db.Place(uint32(i))
	}
	db.Type()
	db.Built()
}

func FuzzMMDB(f *testing.F) {
	for _, pattern := range []string{"maxmind/GeoLite2-City-Test.mmdb", "maxmind/GeoLite2-ASN-Test.mmdb", "ipinfo/*.mmdb", "maxmind-bad/*.mmdb"} {
		files, err := filepath.Glob(filepath.Join("..", "..", "..", "shared", "testdata", "geo", pattern))
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files { // none where the data is absent
			b, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	for _, h := range hostile() {
		f.Add(h.mmdb)
	}
	f.Add(rawMMDB(4, [][2]uint32{{1, 1 + 16}}, []byte(germanyRecord)))
	f.Fuzz(func(t *testing.T, mmdb []byte) { tryMMDB(t, mmdb) })
}
