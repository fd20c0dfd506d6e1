package geo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/netip"
	"time"
	"unsafe"

	"github.com/zeebo/xxh3"

	"meridian/internal/durable"
	"meridian/internal/hugepages"
)

// A snapshot is a file that holds a DB as it lies in memory, so that opening one
// is a matter of checking it. All numbers are little-endian.
//
//	offset  size
//	0       8     magic "MeriGeo\n"
//	8       4     version of the format, 1
//	12      4     bit 0: has locations; bit 1: has AS numbers
//	16      8     size of the whole file
//	24      8     when the database was built, in seconds since 1970
//	32      16×n  for each of the n sections: offset from the start of the file,
//	              a multiple of 64, and size in bytes
//	…             the sections in order, zeros between
//	size−8  8     xxh3 of everything before
//
// The sections, n = 12:
//
//	0       the type that the database calls itself
//	1       places, 32 bytes each: see placeRecord
//	2       the names that places point into, UTF-8, one after another
//	3, 4    locations, IPv4: first address of each range, and number of its
//	        place; 4 bytes each
//	5, 6    locations, IPv6: 16 bytes (high half first), and 4
//	7–10    AS numbers, in the same four arrays
//	11      aliases of IPv4, 16 bytes each: see alias
//
// The ranges of one kind cover every address or are empty. The number 2³²−1
// marks gaps. What look-ups read is laid out on opening: that costs little more
// than to check the ranges.
const (
	magic         = "MeriGeo\n"
	formatVersion = 1
	headerSize    = 32 + 16*sections
	trailerSize   = 8
	sectionAlign  = 64
)

const (
	flagLocation = 1 << iota
	flagASN
)

const (
	sectionType     = 0
	sectionPlaces   = 1
	sectionNames    = 2
	sectionLocation = 3 // to 6
	sectionASN      = 7 // to 10
	sectionAliases  = 11
	sections        = 12
)

// placeRecord is a Place as it lies in a snapshot.
type placeRecord struct {
	lat, lon           float64
	city, state        uint32 // where the names begin
	country, continent [2]byte
	cityLen, stateLen  uint8
	located            uint8 // 1 if lat and lon are known
	_                  uint8
}

// maxName is the length that the longest name may have, in bytes.
const maxName = math.MaxUint8

// ErrNotSnapshot is returned by Open for a file that is something else, for
// instance an .mmdb file that is still to be compiled.
var ErrNotSnapshot = errors.New("not a compiled database")

// littleEndian: on other machines a snapshot would have to be copied, and none
// of them serves mirror lists.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// encode writes db as a snapshot.
func (db *DB) encode(w io.Writer) error {
	if !littleEndian {
		return errors.ErrUnsupported
	}
	content := [sections][]byte{
		sectionType:   []byte(db.kind),
		sectionPlaces: bytesOf(db.places),
		sectionNames:  db.names,
	}
	var flags uint32
	var aliases []alias
	for _, part := range []struct {
		ranges  *Ranges
		section int
		flag    uint32
	}{{db.location, sectionLocation, flagLocation}, {db.asn, sectionASN, flagASN}} {
		if r := part.ranges; r != nil {
			flags |= part.flag
			aliases = r.aliases // those of the file that both came from
			content[part.section] = bytesOf(r.start4)
			content[part.section+1] = bytesOf(r.value4)
			content[part.section+2] = bytesOf(r.start6)
			content[part.section+3] = bytesOf(r.value6)
		}
	}
	content[sectionAliases] = bytesOf(aliases)

	header := make([]byte, headerSize)
	copy(header, magic)
	binary.LittleEndian.PutUint32(header[8:], formatVersion)
	binary.LittleEndian.PutUint32(header[12:], flags)
	binary.LittleEndian.PutUint64(header[24:], uint64(db.built.Unix()))
	offset := align(headerSize)
	end := offset
	for i, b := range content {
		binary.LittleEndian.PutUint64(header[32+16*i:], uint64(offset))
		binary.LittleEndian.PutUint64(header[40+16*i:], uint64(len(b)))
		end = offset + len(b)
		offset = align(end)
	}
	binary.LittleEndian.PutUint64(header[16:], uint64(end+trailerSize))

	hash := xxh3.New()
	hashed := io.MultiWriter(hash, w)
	written := 0
	for _, b := range append([][]byte{header}, content[:]...) {
		if _, err := hashed.Write(make([]byte, align(written)-written)); err != nil {
			return err
		}
		if _, err := hashed.Write(b); err != nil {
			return err
		}
		written = align(written) + len(b)
	}
	_, err := w.Write(binary.LittleEndian.AppendUint64(nil, hash.Sum64()))
	return err
}

func align(n int) int { return (n + sectionAlign - 1) &^ (sectionAlign - 1) }

// Open opens a snapshot that Compile or Write has made, and checks all of it.
//
// The file is mapped into memory if nobody else may write to it, and else read:
// see [durable.Map]. Its memory is held until Close.
func Open(snapshot string) (*DB, error) {
	file, err := durable.Map(snapshot)
	if err != nil {
		return nil, fmt.Errorf("geo: %w", err)
	}
	var release func() error
	db, err := decode(file.Bytes(), func(n int) (mem []byte) {
		mem, release = hugepages.Alloc(n)
		return mem
	})
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("geo: %s: %w", snapshot, err)
	}
	for _, r := range []*Ranges{db.location, db.asn} {
		if r != nil {
			file.Forget(bytesOf(r.start4))
			file.Forget(bytesOf(r.value4))
			file.Forget(bytesOf(r.start6))
			file.Forget(bytesOf(r.value6))
		}
	}
	db.release = func() error { return errors.Join(file.Close(), release()) }
	return db, nil
}

// aligned returns n bytes that begin at a multiple of 8.
func aligned(n int) []byte {
	words := make([]uint64, (n+7)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)[:n]
}

// decode checks a snapshot and returns a DB that uses its memory, which begins
// at a multiple of 8. After it no content can make a look-up fail.
//
// If the snapshot is right, it calls alloc, once, for the memory of what look-ups
// read.
func decode(data []byte, alloc memory) (*DB, error) {
	if !littleEndian {
		return nil, errors.ErrUnsupported
	}
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		return nil, ErrNotSnapshot
	}
	if len(data) < headerSize+trailerSize {
		return nil, errors.New("the file is cut short: compile the database again")
	}
	if v := binary.LittleEndian.Uint32(data[8:]); v != formatVersion {
		return nil, fmt.Errorf("format version %d, want %d: compile the database again", v, formatVersion)
	}
	if size := binary.LittleEndian.Uint64(data[16:]); size != uint64(len(data)) {
		return nil, fmt.Errorf("the file has %d bytes of %d: compile the database again", len(data), size)
	}
	body := data[:len(data)-trailerSize]
	sum := binary.LittleEndian.Uint64(data[len(body):])
	if xxh3.Hash(body) != sum {
		return nil, errors.New("the checksum does not match: compile the database again")
	}

	// From here on a fault means that a program has written nonsense.
	var content [sections][]byte
	for i := range content {
		offset := binary.LittleEndian.Uint64(data[32+16*i:])
		size := binary.LittleEndian.Uint64(data[40+16*i:])
		if offset%sectionAlign != 0 || offset < headerSize || offset > uint64(len(body)) || size > uint64(len(body))-offset {
			return nil, fmt.Errorf("section %d is outside the file", i)
		}
		content[i] = body[offset:][:size:size]
	}
	db := &DB{
		kind:  string(content[sectionType]),
		names: content[sectionNames],
		built: time.Unix(int64(binary.LittleEndian.Uint64(data[24:])), 0).UTC(),
		sum:   sum,
	}
	var aliases []alias
	if !view(&db.places, content[sectionPlaces]) || !view(&aliases, content[sectionAliases]) {
		return nil, errors.New("a section ends inside a record")
	}
	for i := range db.places {
		if err := db.places[i].check(db.names); err != nil {
			return nil, fmt.Errorf("place %d: %w", i, err)
		}
	}
	if len(aliases) > maxAliases {
		return nil, fmt.Errorf("%d aliases of IPv4, at most %d", len(aliases), maxAliases)
	}
	for _, al := range aliases {
		if al.bits > 96 {
			return nil, fmt.Errorf("alias of IPv4 with %d bits, at most 96", al.bits)
		}
	}
	flags := binary.LittleEndian.Uint32(data[12:])
	if flags&flagLocation != 0 {
		r, err := viewRanges(content[sectionLocation:], uint32(len(db.places)))
		if err != nil {
			return nil, fmt.Errorf("locations: %w", err)
		}
		r.aliases = aliases
		db.location = r
	}
	if flags&flagASN != 0 {
		r, err := viewRanges(content[sectionASN:], none)
		if err != nil {
			return nil, fmt.Errorf("AS numbers: %w", err)
		}
		r.aliases = aliases
		db.asn = r
	}
	tables := carve(alloc(db.location.tableSize() + db.asn.tableSize() + align(2*len(db.places))))
	db.location.index(tables)
	db.asn.index(tables)
	db.listCountries(tables)
	return db, nil
}

// listCountries fills db.countries.
func (db *DB) listCountries(m memory) {
	view(&db.countries, m(2*len(db.places)))
	for i := range db.countries {
		db.countries[i] = db.places[i].country
	}
}

func (p *placeRecord) check(names []byte) error {
	if uint64(p.city)+uint64(p.cityLen) > uint64(len(names)) || uint64(p.state)+uint64(p.stateLen) > uint64(len(names)) {
		return errors.New("name outside the section of names")
	}
	if p.country != [2]byte{} && !isCode(p.country) || p.continent != [2]byte{} && !isCode(p.continent) {
		return errors.New("a country or continent is not two capital letters")
	}
	if p.located != 0 && !onEarth(p.lat, p.lon) {
		return fmt.Errorf("no such coordinates: %g, %g", p.lat, p.lon)
	}
	return nil
}

func isCode(c [2]byte) bool {
	return 'A' <= c[0] && c[0] <= 'Z' && 'A' <= c[1] && c[1] <= 'Z'
}

// onEarth is false for NaN, too.
func onEarth(lat, lon float64) bool {
	return -90 <= lat && lat <= 90 && -180 <= lon && lon <= 180
}

// viewRanges makes Ranges of the four sections that content begins with. Every
// value must be below limit or mark a gap.
func viewRanges(content [][]byte, limit uint32) (*Ranges, error) {
	r := &Ranges{}
	if !view(&r.start4, content[0]) || !view(&r.value4, content[1]) || !view(&r.start6, content[2]) || !view(&r.value6, content[3]) {
		return nil, errors.New("a section ends inside a record")
	}
	if len(r.start4) != len(r.value4) || len(r.start6) != len(r.value6) {
		return nil, errors.New("not one value for each range")
	}
	if first(r.start4) != 0 || first(r.start6) != (addr6{}) {
		return nil, errors.New("the first range does not begin at the first address")
	}
	// One pass over each array with little to do: there are millions, and a start
	// waits for it.
	for i, last := 1, first(r.start4); i < len(r.start4); i++ {
		if r.start4[i] <= last {
			return nil, errors.New("the IPv4 ranges do not ascend")
		}
		last = r.start4[i]
	}
	for i, last := 1, first(r.start6); i < len(r.start6); i++ {
		if !last.less(r.start6[i]) {
			return nil, errors.New("the IPv6 ranges do not ascend")
		}
		last = r.start6[i]
	}
	for _, values := range [][]uint32{r.value4, r.value6} {
		for _, v := range values {
			if v+1 > limit { // one more than none is 0
				return nil, fmt.Errorf("value %d, limit %d", v, limit)
			}
		}
	}
	return r, nil
}

// first returns the first element, or zero.
func first[T any](s []T) (zero T) {
	if len(s) == 0 {
		return zero
	}
	return s[0]
}

// bytesOf returns the memory of s, and view makes a slice of such memory. T has
// no pointers and no hidden padding, and is aligned to at most 8 bytes.
func bytesOf[T any](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(*new(T))))
}

func view[T any](s *[]T, b []byte) bool {
	size := int(unsafe.Sizeof(*new(T)))
	if len(b) > 0 {
		*s = unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/size)
	}
	return len(b)%size == 0
}

// A Record is what a database says of one network.
type Record struct {
	Prefix netip.Prefix
	Place  *Place // nil: the database does not say where
	ASN    uint32 // 0: it does not say whose
}

// Write makes a snapshot at out from records that ascend and do not overlap, all
// IPv4 before all IPv6: for data that is in no .mmdb file. kind is what Type will
// return.
func Write(out, kind string, built time.Time, records iter.Seq[Record]) error {
	db, err := build(kind, built, records)
	if err != nil {
		return fmt.Errorf("geo: write %s: %w", out, err)
	}
	return db.write(out)
}

func build(kind string, built time.Time, records iter.Seq[Record]) (*DB, error) {
	b := newBuilder()
	for rec := range records {
		n, ok := newNetwork(rec.Prefix)
		if !ok || !b.ascends(n) {
			return nil, fmt.Errorf("network %v does not follow the one before it", rec.Prefix)
		}
		place := none
		if rec.Place != nil {
			place = b.place(*rec.Place)
		}
		b.add(n.first, n.last, n.is4, place, rec.ASN)
	}
	return b.done(kind, built), nil
}

func (db *DB) write(out string) error {
	if err := durable.Write(out, 0o644, db.encode); err != nil {
		return fmt.Errorf("geo: %w", err)
	}
	return nil
}
