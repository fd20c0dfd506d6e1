package signer

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"meridian/builder/rpm"
	"meridian/signer/verify"
)

// Tags of the signature header that only who writes one has to know.
const (
	tagRegion   rpm.Tag = 62   // the header's own frame
	tagReserved rpm.Tag = 1008 // room, so that a signature moves no payload
)

// Sizes of the parts of a package file, in bytes.
const (
	leadSize  = 96
	introSize = 16
	entrySize = 16
)

// An entry is one value of a signature header that is being written.
type entry struct {
	tag   rpm.Tag
	typ   rpm.Type
	count uint32
	data  []byte
}

// entries returns what stays of a signature header when it is signed anew:
// everything but the frame, the room, and the signatures. raw is the header as it
// is in the file, and h the same, checked.
func entries(raw []byte, h *rpm.Header) []entry {
	var list []entry
	n := int(binary.BigEndian.Uint32(raw[8:]))
	for i := range n {
		tag := rpm.Tag(binary.BigEndian.Uint32(raw[introSize+i*entrySize:]))
		seen := slices.ContainsFunc(list, func(e entry) bool { return e.tag == tag })
		if seen || tag == tagRegion || tag == tagReserved || verify.IsSignature(tag) {
			continue
		}
		list = append(list, valueOf(tag, h.Get(tag)))
	}
	return list
}

// valueOf returns the bytes of a value as they stand in a header.
func valueOf(tag rpm.Tag, v rpm.Value) entry {
	e := entry{tag, v.Type(), uint32(v.Len()), nil}
	switch v.Type() {
	case rpm.TypeChar, rpm.TypeInt8:
		for i := range v.Len() {
			e.data = append(e.data, byte(v.Uint(i)))
		}
	case rpm.TypeInt16:
		for i := range v.Len() {
			e.data = binary.BigEndian.AppendUint16(e.data, uint16(v.Uint(i)))
		}
	case rpm.TypeInt32:
		for i := range v.Len() {
			e.data = binary.BigEndian.AppendUint32(e.data, uint32(v.Uint(i)))
		}
	case rpm.TypeInt64:
		for i := range v.Len() {
			e.data = binary.BigEndian.AppendUint64(e.data, v.Uint(i))
		}
	case rpm.TypeBin:
		e.data = v.Bytes()
	default:
		all := v.Strings()
		for s, ok := all.Next(); ok; s, ok = all.Next() {
			e.data = append(append(e.data, s...), 0)
		}
	}
	return e
}

// alignment is that of the first element of a value of type t.
func alignment(t rpm.Type) int {
	switch t {
	case rpm.TypeInt16:
		return 2
	case rpm.TypeInt32:
		return 4
	case rpm.TypeInt64:
		return 8
	}
	return 1
}

// errTooMany is the error for a header with more entries than rpm reads.
var errTooMany = errors.New("the signature header has no room for a signature: rpm reads 32 entries")

// signatureHeader returns a signature header with the entries of list. Where that
// is possible it has as many bytes as the one before had, so that the payload
// stays where it is: rpmbuild leaves room for that.
func signatureHeader(list []entry, before int) ([]byte, error) {
	if len(list) > 30 { // and the frame, and the room
		return nil, errTooMany
	}
	room := func(n int) entry {
		return entry{tagReserved, rpm.TypeBin, uint32(n), make([]byte, n)}
	}
	with := encode(tagRegion, append(slices.Clip(list), room(1)))
	if n := 1 + before - len(with); n >= 1 {
		return encode(tagRegion, append(slices.Clip(list), room(n))), nil
	}
	return encode(tagRegion, list), nil
}

// encode writes a header whose frame has the tag region. Entries are sorted by tag, as
// rpm wants them.
func encode(region rpm.Tag, list []entry) []byte {
	slices.SortFunc(list, func(a, b entry) int { return cmp.Compare(a.tag, b.tag) })
	frame := func(b []byte, offset uint32) []byte {
		b = binary.BigEndian.AppendUint32(b, uint32(region))
		b = binary.BigEndian.AppendUint32(b, uint32(rpm.TypeBin))
		b = binary.BigEndian.AppendUint32(b, offset)
		return binary.BigEndian.AppendUint32(b, entrySize)
	}
	var index, data []byte
	for _, e := range list {
		for a := alignment(e.typ); len(data)%a != 0; {
			data = append(data, 0)
		}
		index = binary.BigEndian.AppendUint32(index, uint32(e.tag))
		index = binary.BigEndian.AppendUint32(index, uint32(e.typ))
		index = binary.BigEndian.AppendUint32(index, uint32(len(data)))
		index = binary.BigEndian.AppendUint32(index, e.count)
		data = append(data, e.data...)
	}
	n := uint32(len(list) + 1)
	end := uint32(len(data))
	data = frame(data, -n*entrySize)

	out := []byte("\x8e\xad\xe8\x01\x00\x00\x00\x00")
	out = binary.BigEndian.AppendUint32(out, n)
	out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
	out = frame(out, end)
	out = append(out, index...)
	return append(out, data...)
}

// head returns what comes before the payload of a signed package: the lead as it
// was, the new signatures, and the header as it was.
func head(f *verify.File, signatures []entry) ([]byte, error) {
	sig, err := signatureHeader(append(entries(f.Head[leadSize:], f.Signature), signatures...), signatureSize(f.Head))
	if err != nil {
		return nil, err
	}
	out := append(f.Head[:leadSize:leadSize], sig...)
	for len(out)%8 != 0 {
		out = append(out, 0)
	}
	return append(out, f.HeaderBytes()...), nil
}

// signatureSize is how long the signature header of a package is, without what it
// is padded with.
func signatureSize(head []byte) int {
	n := int(binary.BigEndian.Uint32(head[leadSize+8:]))
	return introSize + n*entrySize + int(binary.BigEndian.Uint32(head[leadSize+12:]))
}
