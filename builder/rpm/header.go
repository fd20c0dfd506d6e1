package rpm

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// A Type is the form of a value in a header.
type Type uint32

// The types that exist. A string array of one element and a string have the same
// bytes.
const (
	TypeChar Type = iota + 1
	TypeInt8
	TypeInt16
	TypeInt32
	TypeInt64
	TypeString
	TypeBin
	TypeStringArray
	TypeI18NString
)

// widths are the bytes of one element, 0 for strings, whose end is a NUL.
var widths = [...]int{TypeChar: 1, TypeInt8: 1, TypeInt16: 2, TypeInt32: 4, TypeInt64: 8,
	TypeString: 0, TypeBin: 1, TypeStringArray: 0, TypeI18NString: 0}

// A Header is one of the two headers of a package, checked: every value that it
// names is inside of it, and none is part of another. It refers to the memory
// that it was parsed from.
type Header struct {
	index []byte // entries of entrySize bytes
	data  []byte
}

// ParseHeader checks a whole header, with its magic, as it stands in a file or as
// it is stored elsewhere. The header refers to b.
func ParseHeader(b []byte) (*Header, error) {
	if len(b) < introSize {
		return nil, malformed("truncated: %d bytes are not even the beginning of a header", len(b))
	}
	i, err := parseIntro(b, "header", maxEntries, maxData)
	if err != nil {
		return nil, err
	}
	if i.size() > int64(len(b)) {
		return nil, malformed("truncated: a header of %d bytes in %d", i.size(), len(b))
	}
	return newHeader(b[:i.size()], i)
}

// newHeader checks the header in b, which is exactly as long as its intro says.
func newHeader(b []byte, i intro) (*Header, error) {
	split := introSize + i.entries*entrySize
	h := &Header{index: b[introSize:split], data: b[split:]}
	if err := h.check(); err != nil {
		return nil, err
	}
	return h, nil
}

// span is where the data of an entry is.
type span struct {
	start, end int
	tag        Tag
}

func (h *Header) check() error {
	n := len(h.index) / entrySize
	spans := make([]span, 0, n)
	for i := range n {
		e := h.entry(i)
		s, err := h.extent(e)
		if err != nil {
			return err
		}
		spans = append(spans, s)
	}
	// The writers that there are put values in the order of their tags, so this
	// is hardly ever work.
	byStart := func(a, b span) int { return cmp.Compare(a.start, b.start) }
	if !slices.IsSortedFunc(spans, byStart) {
		slices.SortFunc(spans, byStart)
	}
	for i := 1; i < len(spans); i++ {
		if a, b := spans[i-1], spans[i]; a.end > b.start {
			return malformed("the values of tags %d and %d overlap at byte %d", a.tag, b.tag, b.start)
		}
	}
	return nil
}

type entry struct {
	tag           Tag
	typ           Type
	offset, count uint32
}

func (h *Header) entry(i int) entry {
	b := h.index[i*entrySize : (i+1)*entrySize]
	return entry{
		tag:    Tag(binary.BigEndian.Uint32(b)),
		typ:    Type(binary.BigEndian.Uint32(b[4:])),
		offset: binary.BigEndian.Uint32(b[8:]),
		count:  binary.BigEndian.Uint32(b[12:]),
	}
}

// extent returns which bytes of the data belong to e.
func (h *Header) extent(e entry) (span, error) {
	size := int64(len(h.data))
	switch {
	case e.typ == 0 || e.typ >= Type(len(widths)):
		return span{}, malformed("tag %d has type %d, which does not exist", e.tag, e.typ)
	case e.count == 0:
		return span{}, malformed("tag %d has no elements", e.tag)
	case int64(e.offset) > size:
		return span{}, malformed("tag %d is at byte %d of %d", e.tag, e.offset, size)
	}
	s := span{start: int(e.offset), tag: e.tag}
	if w := int64(widths[e.typ]); w > 0 {
		if int64(e.offset)%w != 0 && e.typ != TypeBin {
			return span{}, malformed("tag %d is at byte %d, which is no multiple of %d", e.tag, e.offset, w)
		}
		if int64(e.count) > (size-int64(e.offset))/w {
			return span{}, malformed("tag %d claims %d elements of %d bytes at byte %d of %d", e.tag, e.count, w, e.offset, size)
		}
		s.end = int(int64(e.offset) + int64(e.count)*w)
		return s, nil
	}
	if e.typ == TypeString && e.count != 1 {
		return span{}, malformed("tag %d claims to be one string of %d", e.tag, e.count)
	}
	// A string takes a byte at least, which bounds the loop.
	if int64(e.count) > size-int64(e.offset) {
		return span{}, malformed("tag %d claims %d strings at byte %d of %d", e.tag, e.count, e.offset, size)
	}
	s.end = s.start
	for range e.count {
		i := bytes.IndexByte(h.data[s.end:], 0)
		if i < 0 {
			return span{}, malformed("tag %d has a string without end at byte %d of %d", e.tag, s.end, size)
		}
		s.end += i + 1
	}
	return s, nil
}

// Get returns the value of tag; the zero Value, which has no elements, when the
// header has none. Where a tag is there twice the later one holds: rpm appends
// what it changes.
func (h *Header) Get(tag Tag) Value {
	for i := len(h.index)/entrySize - 1; i >= 0; i-- {
		if Tag(binary.BigEndian.Uint32(h.index[i*entrySize:])) != tag {
			continue
		}
		e := h.entry(i)
		return Value{typ: e.typ, count: int(e.count), data: h.data[e.offset:]}
	}
	return Value{}
}

// Has tells whether the header has tag.
func (h *Header) Has(tag Tag) bool { return h.Get(tag).count > 0 }

// A Value is a list of numbers, of strings, or of bytes. It refers to the memory
// of its header.
type Value struct {
	typ   Type
	count int
	data  []byte // from the first element to the end of the header
}

// Len is the number of elements: 0 when there is no such tag.
func (v Value) Len() int { return v.count }

// Type is the form of the elements.
func (v Value) Type() Type { return v.typ }

// Uint returns element i, or 0 where there is none or it is no number. Numbers in
// headers have no sign.
func (v Value) Uint(i int) uint64 {
	if i < 0 || i >= v.count {
		return 0
	}
	switch v.typ {
	case TypeChar, TypeInt8:
		return uint64(v.data[i])
	case TypeInt16:
		return uint64(binary.BigEndian.Uint16(v.data[2*i:]))
	case TypeInt32:
		return uint64(binary.BigEndian.Uint32(v.data[4*i:]))
	case TypeInt64:
		return binary.BigEndian.Uint64(v.data[8*i:])
	}
	return 0
}

// IsString tells whether the elements are strings.
func (v Value) IsString() bool {
	return v.count > 0 && (v.typ == TypeString || v.typ == TypeStringArray || v.typ == TypeI18NString)
}

// First returns the first string, nil where there is none. Of a text in several
// languages that is the one for the locale C.
func (v Value) First() []byte {
	all := v.Strings()
	s, _ := all.Next()
	return s
}

// Bytes returns what a binary value holds, nil for all others.
func (v Value) Bytes() []byte {
	if v.typ != TypeBin {
		return nil
	}
	return v.data[:v.count:v.count]
}

// Strings returns the strings in order; there are none in other values.
func (v Value) Strings() Strings {
	if !v.IsString() {
		return Strings{}
	}
	return Strings{v.data, v.count}
}

// Strings walks over the strings of a Value.
type Strings struct {
	rest []byte
	n    int
}

// Next returns the next string, without the NUL that ends it, and false after the
// last.
func (s *Strings) Next() ([]byte, bool) {
	if s.n == 0 {
		return nil, false
	}
	s.n--
	i := bytes.IndexByte(s.rest, 0)
	str := s.rest[:i:i]
	s.rest = s.rest[i+1:]
	return str, true
}
