package geo

import (
	"math"
	"strconv"
	"strings"

	"github.com/oschwald/maxminddb-golang/v2/mmdbdata"
)

// record is what one record of an .mmdb file says, whichever schema it has. The
// schemas differ in the names and kinds of their fields, and never give one name
// two meanings, but for two:
//
//   - "country" and "continent" are a map (MaxMind), a code (IPinfo, older) or a
//     name beside "country_code" and "continent_code" (IPinfo, newer);
//   - "country" beside "asn" and "name" is where that autonomous system is
//     registered (IPinfo, ASN): no place.
//
// A field of an unknown name or of an unexpected kind is passed over. Only what
// cannot be decoded at all is an error.
type record struct {
	asn uint32

	country, countryCode     string
	continent, continentCode string
	city, state              string
	lat, lon                 float64 // NaN: unknown

	// seen are the fields that were there, be they empty.
	seen fields
}

type fields uint8

const (
	seenCountry   fields = 1 << iota
	seenElsewhere        // another field that tells a place
	seenFlatASN
	seenName
)

// hasPlace reports whether the database has an opinion on where the network is,
// be it "nowhere in particular".
func (r *record) hasPlace() bool {
	if r.seen&seenElsewhere != 0 {
		return true
	}
	holder := r.seen&seenFlatASN != 0 && r.seen&seenName != 0
	return r.seen&seenCountry != 0 && !holder
}

func (r *record) place() Place {
	p := Place{
		Country:   code(r.countryCode, r.country),
		Continent: code(r.continentCode, r.continent),
		Lat:       r.lat,
		Lon:       r.lon,
		City:      r.city,
		State:     r.state,
	}
	p.HasCoordinates = onEarth(p.Lat, p.Lon)
	return p
}

// code returns the first of the candidates that is two letters, as capitals.
func code(candidates ...string) [2]byte {
	for _, s := range candidates {
		if len(s) == 2 {
			c := [2]byte([]byte(strings.ToUpper(s)))
			if isCode(c) {
				return c
			}
		}
	}
	return [2]byte{}
}

// UnmarshalMaxMindDBCursor reads the map at c.
func (r *record) UnmarshalMaxMindDBCursor(c mmdbdata.Cursor) (mmdbdata.Cursor, error) {
	*r = record{lat: math.NaN(), lon: math.NaN()}
	return eachField(c, func(key string, c mmdbdata.Cursor) (mmdbdata.Cursor, error) {
		switch key {
		// IPinfo
		case "asn":
			r.seen |= seenFlatASN
			return readASN(c, &r.asn)
		case "name":
			r.seen |= seenName
		case "country_code":
			r.seen |= seenElsewhere
			return readText(c, &r.countryCode)
		case "continent_code":
			r.seen |= seenElsewhere
			return readText(c, &r.continentCode)
		case "region":
			r.seen |= seenElsewhere
			return readText(c, &r.state)
		case "lat", "latitude":
			r.seen |= seenElsewhere
			return readNumber(c, &r.lat)
		case "lng", "longitude":
			r.seen |= seenElsewhere
			return readNumber(c, &r.lon)

		// both
		case "country":
			r.seen |= seenCountry
			return readNamed(c, &r.country, "iso_code")
		case "continent":
			r.seen |= seenElsewhere
			return readNamed(c, &r.continent, "code")
		case "city":
			r.seen |= seenElsewhere
			return readNamed(c, &r.city, "names")

		// MaxMind
		case "subdivisions":
			r.seen |= seenElsewhere
			return readFirst(c, &r.state)
		case "location":
			return eachField(c, func(key string, c mmdbdata.Cursor) (mmdbdata.Cursor, error) {
				switch key {
				case "latitude":
					r.seen |= seenElsewhere
					return readNumber(c, &r.lat)
				case "longitude":
					r.seen |= seenElsewhere
					return readNumber(c, &r.lon)
				}
				return c.Skip()
			})
		case "autonomous_system_number":
			return readASN(c, &r.asn)
		case "traits":
			return eachField(c, func(key string, c mmdbdata.Cursor) (mmdbdata.Cursor, error) {
				if key == "autonomous_system_number" {
					return readASN(c, &r.asn)
				}
				return c.Skip()
			})
		}
		return c.Skip()
	})
}

// eachField calls f for each field of the map at c; anything but a map has none.
func eachField(c mmdbdata.Cursor, f func(key string, c mmdbdata.Cursor) (mmdbdata.Cursor, error)) (mmdbdata.Cursor, error) {
	if k, err := c.Kind(); err != nil || k != mmdbdata.KindMap {
		return c.Skip()
	}
	m, err := c.Map()
	if err != nil {
		return c, err
	}
	var next mmdbdata.Cursor
	for {
		key, value, ok := m.Next(next)
		if !ok {
			return m.End()
		}
		if next, err = f(string(key), value); err != nil {
			return next, err
		}
	}
}

// readNamed reads a string, or of a map the field that is named: a string again,
// or "names", a map of names by language.
func readNamed(c mmdbdata.Cursor, s *string, field string) (mmdbdata.Cursor, error) {
	if k, err := c.Kind(); err != nil || k != mmdbdata.KindMap {
		return readText(c, s)
	}
	return eachField(c, func(key string, c mmdbdata.Cursor) (mmdbdata.Cursor, error) {
		switch key {
		case field:
			if field == "names" {
				return readName(c, s)
			}
			return readText(c, s)
		}
		return c.Skip()
	})
}

// readName reads the English name, or else the first.
func readName(c mmdbdata.Cursor, s *string) (mmdbdata.Cursor, error) {
	return eachField(c, func(key string, c mmdbdata.Cursor) (mmdbdata.Cursor, error) {
		if key == "en" || *s == "" {
			return readText(c, s)
		}
		return c.Skip()
	})
}

// readFirst reads the name of the first, largest subdivision.
func readFirst(c mmdbdata.Cursor, s *string) (mmdbdata.Cursor, error) {
	if k, err := c.Kind(); err != nil || k != mmdbdata.KindSlice {
		return c.Skip()
	}
	list, err := c.Slice()
	if err != nil {
		return c, err
	}
	var next mmdbdata.Cursor
	for {
		i, value, ok := list.Next(next)
		if !ok {
			return list.End()
		}
		if i == 0 {
			next, err = readNamed(value, s, "names")
		} else {
			next, err = value.Skip()
		}
		if err != nil {
			return next, err
		}
	}
}

// textKinds are the kinds whose size readText limits.
var textKinds = mmdbdata.NewKindSet(mmdbdata.KindString)

// readText reads a string of a reasonable length.
func readText(c mmdbdata.Cursor, s *string) (mmdbdata.Cursor, error) {
	k, err := c.Kind()
	if err != nil || k != mmdbdata.KindString || c.CheckMaxSize(textKinds, maxName) != nil {
		return c.Skip()
	}
	text, next, err := c.ReadString()
	if err != nil {
		return next, err
	}
	*s = text
	return next, nil
}

// readNumber reads a number, or a string that is one.
func readNumber(c mmdbdata.Cursor, x *float64) (mmdbdata.Cursor, error) {
	k, err := c.Kind()
	if err != nil {
		return c, err
	}
	switch k {
	case mmdbdata.KindFloat64, mmdbdata.KindFloat32:
		value, next, err := c.ReadFloat()
		*x = value
		return next, err
	case mmdbdata.KindInt32, mmdbdata.KindUint16, mmdbdata.KindUint32, mmdbdata.KindUint64:
		value, signed, next, err := c.ReadInteger()
		*x = float64(value)
		if signed {
			*x = float64(int64(value))
		}
		return next, err
	case mmdbdata.KindString:
		var s string
		next, err := readText(c, &s)
		if value, err := strconv.ParseFloat(s, 64); err == nil {
			*x = value
		}
		return next, err
	}
	return c.Skip()
}

// readASN reads an AS number: 13335, "13335" or "AS13335".
func readASN(c mmdbdata.Cursor, asn *uint32) (mmdbdata.Cursor, error) {
	k, err := c.Kind()
	if err != nil {
		return c, err
	}
	if k == mmdbdata.KindString {
		var s string
		next, err := readText(c, &s)
		if len(s) > 2 && strings.EqualFold(s[:2], "AS") {
			s = s[2:]
		}
		if n, err := strconv.ParseUint(s, 10, 32); err == nil {
			*asn = uint32(n)
		}
		return next, err
	}
	value := math.NaN()
	next, err := readNumber(c, &value)
	if value >= 0 && value <= math.MaxUint32 && value == math.Trunc(value) {
		*asn = uint32(value)
	}
	return next, err
}
