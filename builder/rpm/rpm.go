// Package rpm reads what an RPM file says of itself, and hashes the file while
// doing so: each byte is read once. What it reads comes from strangers, so sizes,
// counts and offsets are checked against the file before they are believed. It
// verifies no signature, unpacks no payload, and never writes to a package.
package rpm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The parts of a file that come before the payload: a lead, which is obsolete
// but there, and two headers of the same form. The first holds signatures and is
// padded to eight bytes, the second describes the package.
const (
	leadSize    = 96
	introSize   = 16 // magic, four reserved bytes, number of entries, bytes of data
	entrySize   = 16 // tag, type, offset, count
	sigAlign    = 8
	leadMagic   = "\xed\xab\xee\xdb"
	headerMagic = "\x8e\xad\xe8\x01"
)

// What rpm itself accepts. A file that claims more is refused before anything is
// read or allocated for it.
const (
	maxSignatureEntries = 32
	maxSignatureData    = 64 << 20
	maxEntries          = 0xffff
	maxData             = 0x0fffffff
)

// A FormatError says why a file is not a package that can be used. Whoever reads
// a directory of packages leaves this one out and goes on.
type FormatError struct {
	// Reason is for people: what is wrong, with the numbers that show it.
	Reason string
}

func (e *FormatError) Error() string { return e.Reason }

func malformed(format string, args ...any) error {
	return &FormatError{fmt.Sprintf(format, args...)}
}

// ErrChanged is returned when a file changed while it was read: what was hashed
// may never have been one file.
var ErrChanged = errors.New("changed while it was read")

// intro is the beginning of a header: what comes, and how much of it.
type intro struct {
	entries, data int64
}

func (i intro) size() int64 { return introSize + i.entries*entrySize + i.data }

// parseIntro reads the first introSize bytes of a header, called name in errors.
func parseIntro(b []byte, name string, entries, data int64) (intro, error) {
	if string(b[:4]) != headerMagic {
		return intro{}, malformed("no %s where it should be: it begins with % x, not with % x", name, b[:4], headerMagic)
	}
	i := intro{
		entries: int64(binary.BigEndian.Uint32(b[8:])),
		data:    int64(binary.BigEndian.Uint32(b[12:])),
	}
	switch {
	case i.entries == 0:
		return i, malformed("the %s has no entries", name)
	case i.entries > entries:
		return i, malformed("the %s claims %d entries; rpm accepts %d", name, i.entries, entries)
	case i.data > data:
		return i, malformed("the %s claims %d bytes of data; rpm accepts %d", name, i.data, data)
	}
	return i, nil
}

// A layout is where the headers of a file are, in bytes from its beginning.
type layout struct {
	signature intro
	header    intro
	start     int64 // of the main header
	end       int64 // of the main header, and the beginning of the payload
}

// parseLead reads the lead and the intro of the signature header, which are the
// first leadSize+introSize bytes of a file.
func parseLead(b []byte) (layout, error) {
	if string(b[:4]) != leadMagic {
		return layout{}, malformed("not an RPM: it begins with % x, not with % x", b[:4], leadMagic)
	}
	sig, err := parseIntro(b[leadSize:], "signature header", maxSignatureEntries, maxSignatureData)
	if err != nil {
		return layout{}, err
	}
	start := leadSize + sig.size()
	start += (sigAlign - start%sigAlign) % sigAlign
	return layout{signature: sig, start: start}, nil
}

// parseHeader completes l with the intro of the main header, of a file of size
// bytes.
func (l *layout) parseHeader(b []byte, size int64) (err error) {
	l.header, err = parseIntro(b, "header", maxEntries, maxData)
	if err != nil {
		return err
	}
	l.end = l.start + l.header.size()
	if l.end > size {
		return malformed("truncated: the header ends at byte %d of a file of %d", l.end, size)
	}
	return nil
}

// headers returns the two headers of head, which is everything before the
// payload.
func (l *layout) headers(head []byte) (signature, header *Header, err error) {
	signature, err = newHeader(head[leadSize:leadSize+l.signature.size()], l.signature)
	if err != nil {
		return nil, nil, fmt.Errorf("signature header: %w", err)
	}
	header, err = newHeader(head[l.start:l.end], l.header)
	if err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}
	return signature, header, nil
}
