package geo

import (
	"math"
	"time"
	"unicode"
	"unicode/utf8"
)

// builder makes a DB of networks that come in ascending order, IPv4 and IPv6
// apart.
type builder struct {
	location, asn ranger
	aliases       []alias

	places  []placeRecord
	numbers map[Place]uint32
	names   []byte
	offsets map[string]uint32 // of the names
}

func newBuilder() *builder {
	return &builder{numbers: map[Place]uint32{}, offsets: map[string]uint32{}}
}

// place returns the number of a place: equal places share one.
func (b *builder) place(p Place) uint32 {
	p = p.clean()
	if i, ok := b.numbers[p]; ok {
		return i
	}
	i := uint32(len(b.places))
	r := placeRecord{
		lat: p.Lat, lon: p.Lon,
		country: p.Country, continent: p.Continent,
		city: b.name(p.City), cityLen: uint8(len(p.City)),
		state: b.name(p.State), stateLen: uint8(len(p.State)),
	}
	if p.HasCoordinates {
		r.located = 1
	}
	b.places = append(b.places, r)
	b.numbers[p] = i
	return i
}

func (b *builder) name(s string) uint32 {
	if offset, ok := b.offsets[s]; ok {
		return offset
	}
	offset := uint32(len(b.names))
	b.names = append(b.names, s...)
	b.offsets[s] = offset
	return offset
}

// clean drops from p what is not true of any place, so that p can be compared
// and printed.
func (p Place) clean() Place {
	if !isCode(p.Country) {
		p.Country = [2]byte{}
	}
	if !isCode(p.Continent) {
		p.Continent = [2]byte{}
	}
	if !p.HasCoordinates || !onEarth(p.Lat, p.Lon) {
		p.Lat, p.Lon, p.HasCoordinates = 0, 0, false
	}
	// -0 and 0 are the same place and must be the same bits.
	p.Lat, p.Lon = p.Lat+0, p.Lon+0
	p.City, p.State = cleanName(p.City), cleanName(p.State)
	return p
}

func cleanName(s string) string {
	if len(s) > maxName || !utf8.ValidString(s) {
		return ""
	}
	for _, c := range s {
		if unicode.IsControl(c) {
			return ""
		}
	}
	return s
}

// ascends reports whether n is after all networks so far.
func (b *builder) ascends(n network) bool {
	started6 := b.location.full6 || b.asn.full6 || b.location.next6 != (addr6{}) || b.asn.next6 != (addr6{})
	if n.is4 {
		return !started6 && n.first.lo >= max(b.location.next4, b.asn.next4)
	}
	return !b.location.full6 && !b.asn.full6 && !n.first.less(b.location.next6) && !n.first.less(b.asn.next6)
}

// add says what is known of the addresses first to last; place may be none and
// asn 0.
func (b *builder) add(first, last addr6, is4 bool, place, asn uint32) {
	if place != none {
		b.location.add(first, last, is4, place)
	}
	if asn != 0 && asn != math.MaxUint32 {
		b.asn.add(first, last, is4, asn)
	}
}

// done returns what has been collected. It has no locations if no network had
// one, and no AS numbers likewise.
func (b *builder) done(kind string, built time.Time) *DB {
	db := &DB{kind: kind, built: built.UTC(), places: b.places, names: b.names}
	if r := b.location.done(); r.Len() > 0 {
		r.aliases = b.aliases
		db.location = r
	}
	if r := b.asn.done(); r.Len() > 0 {
		r.aliases = b.aliases
		db.asn = r
	}
	db.listCountries(aligned)
	return db
}
