// Package geo says where an address is and which autonomous system announces
// it. It compiles databases of MaxMind and IPinfo (.mmdb files) into flat
// sorted tables, keeps those in snapshot files that open in milliseconds, and
// looks addresses up in them without allocating.
//
// It never decodes an .mmdb file while looking up, never asks the network, and
// never guesses: what a database does not say is unknown.
package geo

import (
	"encoding/binary"
	"errors"
	"iter"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"
)

// Place is where a network is, as its database says. The zero value knows
// nothing.
type Place struct {
	// Country is an ISO 3166-1 alpha-2 code and Continent one of AF, AN, AS, EU,
	// NA, OC, SA: two capital letters each, or two zero bytes where unknown.
	Country, Continent [2]byte

	// Lat and Lon are in degrees, and valid only if HasCoordinates.
	Lat, Lon       float64
	HasCoordinates bool

	// City and State are names for people to read, or empty.
	City, State string
}

// A DB is one database, or two joined. It is immutable and safe for concurrent
// use until it is closed. A nil DB knows nothing. Who gives it a finalizer that
// closes it may do so: every look-up keeps it alive until it is done.
type DB struct {
	places   []placeRecord
	names    []byte  // what the places point into
	location *Ranges // address → index of places; nil: no locations
	asn      *Ranges // address → AS number; nil: no AS numbers

	// countries are those of places, again: a decision needs no more of most, and
	// all of them together stay in a cache.
	countries [][2]byte

	sum   uint64
	built time.Time
	kind  string

	release func() error // gives the memory back
	closed  atomic.Bool
}

// Find returns the index of the place that a is in, or [NoPlace].
func (db *DB) Find(a netip.Addr) uint32 {
	place, _ := db.Lookup(KeyOf(a))
	return place
}

// ASN returns the number of the autonomous system that a belongs to, or 0.
func (db *DB) ASN(a netip.Addr) uint32 {
	_, asn := db.Lookup(KeyOf(a))
	return asn
}

// Lookup returns both: where an address is, and whose. It takes less time than to
// ask for them one after the other.
func (db *DB) Lookup(k Key) (place, asn uint32) {
	if db == nil {
		return NoPlace, 0
	}
	place, _ = db.location.Lookup(k)
	asn, ok := db.asn.Lookup(k)
	runtime.KeepAlive(db)
	if !ok {
		asn = 0
	}
	return place, asn
}

// Place returns place number i; for NoPlace, and any other number that Find
// never returns, the zero Place. Its strings are copies and outlive db.
func (db *DB) Place(i uint32) Place {
	if db == nil || uint64(i) >= uint64(len(db.places)) {
		return Place{}
	}
	r := &db.places[i]
	p := Place{
		Country:        r.country,
		Continent:      r.continent,
		Lat:            r.lat,
		Lon:            r.lon,
		HasCoordinates: r.located != 0,
		City:           string(db.names[r.city:][:r.cityLen]),
		State:          string(db.names[r.state:][:r.stateLen]),
	}
	runtime.KeepAlive(db)
	return p
}

// Country returns the country of place number i, or two zero bytes.
func (db *DB) Country(i uint32) (country [2]byte) {
	if db == nil || uint64(i) >= uint64(len(db.countries)) {
		return country
	}
	country = db.countries[i]
	runtime.KeepAlive(db)
	return country
}

// Locate returns what ranking needs of place number i, without allocating: its
// country, and its coordinates if ok.
func (db *DB) Locate(i uint32) (country [2]byte, lat, lon float64, ok bool) {
	if db == nil || uint64(i) >= uint64(len(db.places)) {
		return country, 0, 0, false
	}
	r := &db.places[i]
	country, lat, lon, ok = r.country, r.lat, r.lon, r.located != 0
	runtime.KeepAlive(db)
	return country, lat, lon, ok
}

// A Span is a range of IPv4 addresses, as numbers, that are in one place.
type Span struct {
	First, Last uint32
	Place       uint32
}

// Spans returns all ranges of IPv4 addresses that are in a place, in ascending
// order.
func (db *DB) Spans() iter.Seq[Span] {
	return func(yield func(Span) bool) {
		if !db.HasLocation() {
			return
		}
		defer runtime.KeepAlive(db)
		r := db.location
		for i, place := range r.value4 {
			last := ^uint32(0)
			if i+1 < len(r.start4) {
				last = r.start4[i+1] - 1
			}
			if place != none && !yield(Span{r.start4[i], last, place}) {
				return
			}
		}
	}
}

// Places returns how many places there are; their numbers count from 0.
func (db *DB) Places() int {
	if db == nil {
		return 0
	}
	return len(db.places)
}

// HasLocation reports whether the database says where addresses are.
func (db *DB) HasLocation() bool { return db != nil && db.location != nil }

// HasASN reports whether the database knows autonomous systems.
func (db *DB) HasASN() bool { return db != nil && db.asn != nil }

// Sum identifies the content: two databases of equal Sum answer alike and
// number their places alike. It is 0 for a nil DB.
func (db *DB) Sum() uint64 {
	if db == nil {
		return 0
	}
	return db.sum
}

// Built is when the maker of the database built it; of two joined, the older
// time. It is the zero Time for a nil DB.
func (db *DB) Built() time.Time {
	if db == nil {
		return time.Time{}
	}
	return db.built
}

// Type is the type that the database calls itself, "GeoLite2-City"; of two
// joined, both with " + " between.
func (db *DB) Type() string {
	if db == nil {
		return ""
	}
	return db.kind
}

// Close gives the memory of db back. It must not be called before the last
// look-up has returned; after it db knows nothing. A second Close does nothing.
func (db *DB) Close() error {
	if db == nil || !db.closed.CompareAndSwap(false, true) {
		return nil
	}
	db.places, db.countries, db.names, db.location, db.asn = nil, nil, nil, nil, nil
	if db.release == nil {
		return nil
	}
	return db.release()
}

// Join makes one database that has its places from location and its AS numbers
// from asn, whatever else the two may carry. Either may be nil: without asn,
// location serves for both. The result owns both: close it, not them.
func Join(location, asn *DB) *DB {
	if asn == nil || asn == location {
		return location
	}
	j := &DB{
		asn:   asn.asn,
		sum:   asn.sum,
		built: asn.built,
		kind:  asn.kind,
	}
	if location != nil {
		j.places, j.countries, j.names, j.location = location.places, location.countries, location.names, location.location
		j.sum = joinSums(location.sum, asn.sum)
		j.kind = location.kind + " + " + asn.kind
		if location.built.Before(asn.built) {
			j.built = location.built
		}
	} else {
		// Not the Sum of asn itself, which may have places that j has not.
		j.sum = joinSums(0, asn.sum)
	}
	j.release = func() error {
		return errors.Join(location.Close(), asn.Close())
	}
	return j
}

func joinSums(location, asn uint64) uint64 {
	b := binary.LittleEndian.AppendUint64(nil, location)
	return xxh3.Hash(binary.LittleEndian.AppendUint64(b, asn))
}
