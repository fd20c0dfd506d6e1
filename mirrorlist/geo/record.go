package geo

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

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

	// What one record may cost. A field can be there many times, and each time
	// point to the same large map; a map cannot be longer than the file.
	deadline time.Time
	fields   int // how many more may be looked at
}

// maxFields is how many fields of a record are looked at, those of the maps in it
// included. The databases on sale have a hundred.
const maxFields = 4096

var errFields = fmt.Errorf("a record has more than %d fields", maxFields)

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
	*r = record{lat: math.NaN(), lon: math.NaN(), deadline: r.deadline, fields: maxFields}
	return r.eachField(c, func(key []byte, c mmdbdata.Cursor) (mmdbdata.Cursor, error) {
		switch string(key) {
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
			return r.readNamed(c, &r.country, "iso_code")
		case "continent":
			r.seen |= seenElsewhere
			return r.readNamed(c, &r.continent, "code")
		case "city":
			r.seen |= seenElsewhere
			return r.readNamed(c, &r.city, "names")

		// MaxMind
		case "subdivisions":
			r.seen |= seenElsewhere
			return r.readFirst(c, &r.state)
		case "location":
			return r.eachField(c, func(key []byte, c mmdbdata.Cursor) (mmdbdata.Cursor, error) {
				switch string(key) {
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
			return r.eachField(c, func(key []byte, c mmdbdata.Cursor) (mmdbdata.Cursor, error) {
				if string(key) == "autonomous_system_number" {
					return readASN(c, &r.asn)
				}
				return c.Skip()
			})
		}
		return c.Skip()
	})
}

// enter is called before the elements of a map or list are gone through.
func (r *record) enter() error {
	if time.Now().After(r.deadline) {
		return errTime
	}
	return nil
}

// eachField calls f for each field of the map at c; anything but a map has none.
func (r *record) eachField(c mmdbdata.Cursor, f func(key []byte, c mmdbdata.Cursor) (mmdbdata.Cursor, error)) (mmdbdata.Cursor, error) {
	if k, err := c.Kind(); err != nil {
		return c, err
	} else if k != mmdbdata.KindMap {
		return c.Skip()
	}
	if err := r.enter(); err != nil {
		return c, err
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
		if r.fields--; r.fields < 0 {
			return value, errFields
		}
		if next, err = f(key, value); err != nil {
			return next, err
		}
	}
}

// readNamed reads a string, or of a map the field that is named: a string again,
// or "names", a map of names by language.
func (r *record) readNamed(c mmdbdata.Cursor, s *string, field string) (mmdbdata.Cursor, error) {
	if k, err := c.Kind(); err != nil {
		return c, err
	} else if k != mmdbdata.KindMap {
		return readText(c, s)
	}
	return r.eachField(c, func(key []byte, c mmdbdata.Cursor) (mmdbdata.Cursor, error) {
		switch {
		case string(key) != field:
			return c.Skip()
		case field == "names":
			return r.readName(c, s)
		}
		return readText(c, s)
	})
}

// readName reads the English name, or else the first.
func (r *record) readName(c mmdbdata.Cursor, s *string) (mmdbdata.Cursor, error) {
	return r.eachField(c, func(key []byte, c mmdbdata.Cursor) (mmdbdata.Cursor, error) {
		if string(key) == "en" || *s == "" {
			return readText(c, s)
		}
		return c.Skip()
	})
}

// readFirst reads the name of the first, largest subdivision.
func (r *record) readFirst(c mmdbdata.Cursor, s *string) (mmdbdata.Cursor, error) {
	if k, err := c.Kind(); err != nil {
		return c, err
	} else if k != mmdbdata.KindSlice {
		return c.Skip()
	}
	if err := r.enter(); err != nil {
		return c, err
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
			next, err = r.readNamed(value, s, "names")
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
	if err != nil {
		return c, err
	}
	if k != mmdbdata.KindString || c.CheckMaxSize(textKinds, maxName) != nil {
		return c.Skip()
	}
	text, next, err := c.ReadString()
	*s = text
	return next, err
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
