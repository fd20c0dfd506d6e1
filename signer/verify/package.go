package verify

import (
	"bytes"
	"crypto"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"meridian/builder/rpm"
)

// Tags of the signature header, as rpm names them. Of the signatures, the first
// two are of the main header and the others of header and payload; each pair is
// for RSA and for everything else.
const (
	SigDSA      rpm.Tag = 267 // legacy Ed25519 too
	SigRSA      rpm.Tag = 268
	SigSHA1     rpm.Tag = 269 // of the header, in hexadecimal digits
	SigLongSize rpm.Tag = 270 // of header and payload, in bytes
	SigSHA256   rpm.Tag = 273 // of the header, in hexadecimal digits
	SigOpenPGP  rpm.Tag = 278 // of rpm 6
	SigSize     rpm.Tag = 1000
	SigPGP      rpm.Tag = 1002
	SigMD5      rpm.Tag = 1004 // of header and payload
	SigGPG      rpm.Tag = 1005 // legacy Ed25519 too
)

// signatures are all tags that hold one.
var signatures = []rpm.Tag{SigDSA, SigRSA, SigOpenPGP, SigPGP, SigGPG}

// IsSignature tells whether tag holds a signature, of whatever sort.
func IsSignature(tag rpm.Tag) bool { return slices.Contains(signatures, tag) }

// Tags of the main header.
const (
	tagImmutable         rpm.Tag = 63
	tagPayloadDigestAlgo rpm.Tag = 5093
)

// A File is a package whose headers are read and understood, and whose payload is
// next. It is good until it is closed.
type File struct {
	*os.File
	*rpm.Package

	// Head is everything before the payload. It is the caller's no longer after
	// Close.
	Head []byte

	reader *reader
}

// reader is the memory of reading packages.
type reader struct {
	rpm  rpm.Reader
	head []byte
	buf  []byte
}

const (
	// readSize is what is asked of the kernel at once.
	readSize = 256 << 10

	// keepHead is what a reader keeps for heads. Nearly all are smaller.
	keepHead = 4 << 20
)

var readers = sync.Pool{New: func() any { return &reader{buf: make([]byte, readSize)} }}

// errNotRegular is the error for a directory, a pipe or a device.
var errNotRegular = &rpm.FormatError{Reason: "not a regular file"}

// Open opens the package at path and reads what comes before its payload. The
// error is a [*rpm.FormatError] when it is no package, [rpm.ErrChanged] when it
// was replaced meanwhile, or what the file system said.
func Open(path string) (*File, error) {
	r := readers.Get().(*reader)
	f, err := r.open(path)
	if err != nil {
		readers.Put(r)
	}
	return f, err
}

func (r *reader) open(path string) (_ *File, err error) {
	// To open a named pipe would be to wait for whoever writes into it.
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	p, err := r.rpm.ReadHead(path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if rpm.StampOf(info) != p.Receipt.Stamp {
		return nil, rpm.ErrChanged
	}
	if int64(cap(r.head)) < p.End || cap(r.head) > keepHead {
		r.head = make([]byte, p.End)
	}
	r.head = r.head[:p.End]
	if _, err := io.ReadFull(f, r.head); err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	// What ReadHead has checked is what will be judged.
	if sha256.Sum256(r.head) != p.Receipt.Header {
		return nil, rpm.ErrChanged
	}
	return &File{File: f, Package: p, Head: r.head, reader: r}, nil
}

// Close also gives back the memory.
func (f *File) Close() error {
	if f.reader != nil {
		readers.Put(f.reader)
		f.reader = nil
	}
	return f.File.Close()
}

// HeaderBytes are what a signature of the header is of.
func (f *File) HeaderBytes() []byte { return f.Head[f.Start:f.End] }

// Copy reads the payload, from its beginning, and writes it into each of the
// writers, none of which may keep what it is given. It returns how many bytes that
// were. The error is [rpm.ErrChanged] when the file changed since it was opened.
func (f *File) Copy(to ...io.Writer) (int64, error) {
	if _, err := f.Seek(f.End, io.SeekStart); err != nil {
		return 0, err
	}
	var done int64
	for {
		n, err := f.Read(f.reader.buf)
		for _, w := range to {
			if _, err := w.Write(f.reader.buf[:n]); err != nil {
				return done, err
			}
		}
		done += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return done, err
		}
	}
	info, err := f.Stat()
	if err != nil {
		return done, err
	}
	if rpm.StampOf(info) != f.Receipt.Stamp {
		return done, rpm.ErrChanged
	}
	return done, nil
}

// Package judges the package at path.
func (c *Checker) Package(path string) (size int64, found []Finding) {
	f, err := Open(path)
	if err != nil {
		return 0, []Finding{readFinding(err)}
	}
	defer f.Close()
	d, found := c.Header(f)
	_, err = f.Copy(d.Writers()...)
	if err != nil {
		return f.End, append(found, readFinding(err))
	}
	return f.Receipt.Size, append(found, d.Findings()...)
}

// readFinding is about a file that could not be read to its end.
func readFinding(err error) Finding {
	var format *rpm.FormatError
	var path *fs.PathError
	switch {
	case errors.As(err, &format):
		// The reader says so itself where the end is missing.
		if reason, ok := strings.CutPrefix(err.Error(), "truncated: "); ok {
			return finding(Truncated, "%s", reason)
		}
		return finding(Damaged, "%v", err)
	case errors.As(err, &path):
		return finding(Unreadable, "%v", path.Err) // the path stands before it
	}
	return finding(Unreadable, "%v", err)
}

// Digests checks the payload of a package: what goes through its Writers.
type Digests struct {
	checks []*check

	// missing is how many bytes the file is shorter than its head says, which
	// nobody has signed: it explains what does not fit, and is no finding alone.
	missing uint64
}

// check is one hash that the payload goes through, and what it must become.
type check struct {
	hash.Hash
	judge func(hash.Hash) []Finding
}

// Writers take the payload.
func (d *Digests) Writers() []io.Writer {
	list := make([]io.Writer, len(d.checks))
	for i, c := range d.checks {
		list[i] = c
	}
	return list
}

// Findings says what is wrong with the payload, after all of it was written.
func (d *Digests) Findings() []Finding {
	var found []Finding
	for _, c := range d.checks {
		found = append(found, c.judge(c)...)
	}
	if len(found) > 0 && d.missing > 0 {
		// No digest fits, and this is why.
		return []Finding{finding(Truncated, "%d bytes are missing at the end", d.missing)}
	}
	return found
}

// Header judges what comes before the payload, and says what the payload has to
// be.
func (c *Checker) Header(f *File) (*Digests, []Finding) {
	d, found, covered := f.integrity(c.AllDigests)
	var signed bool
	now := c.now()
	for _, tag := range signatures {
		if !f.Signature.Has(tag) {
			continue
		}
		signed = true
		blob := f.Signature.Get(tag).Bytes()
		sig, err := parseSignature(blob)
		if tag == SigOpenPGP {
			err = errors.New("it is of rpm 6, which rpm 4.18 does not read")
		}
		if err != nil {
			found = append(found, finding(Damaged, "the signature in tag %d: %v", tag, err))
			continue
		}
		h, ok := newHash(sig)
		if !ok {
			found = append(found, finding(Algorithm, "the signature in tag %d is made with %v; SHA-256 is what to use", tag, sig.Hash))
			continue
		}
		h.Write(f.HeaderBytes())
		if tag == SigRSA || tag == SigDSA {
			found = append(found, c.Keys.judge(sig, h, TamperedHeader, now)...)
			continue
		}
		covered = true
		d.checks = append(d.checks, &check{h, func(h hash.Hash) []Finding {
			return c.Keys.judge(sig, h, TamperedPayload, now)
		}})
	}
	switch {
	case !signed:
		found = append(found, finding(Unsigned, "the package has no signature"))
	case !covered:
		found = append(found, finding(Unsigned, "the signature covers the header, and nothing covers the payload"))
	}
	return d, found
}

// Integrity judges the package without its signatures: whether it is what it was
// when it was built. All digests that rpm looks at are checked, and a payload
// that has none is an Unsigned one.
func (f *File) Integrity() (d *Digests, found []Finding, covered bool) { return f.integrity(true) }

func (f *File) integrity(all bool) (d *Digests, found []Finding, covered bool) {
	d = new(Digests)
	if err := checkRegion(f.HeaderBytes()); err != nil {
		found = append(found, finding(TamperedHeader, "%v", err))
	}
	for _, digest := range []struct {
		tag  rpm.Tag
		name string
		sum  func([]byte) []byte
	}{
		{SigSHA256, "SHA-256", func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }},
		{SigSHA1, "SHA-1", func(b []byte) []byte { s := sha1.Sum(b); return s[:] }},
	} {
		if !f.Signature.Has(digest.tag) {
			continue
		}
		got := hex.EncodeToString(digest.sum(f.HeaderBytes()))
		if want := f.Signature.Get(digest.tag).First(); !strings.EqualFold(got, string(want)) {
			found = append(found, finding(TamperedHeader, "its %s is %s, not %s", digest.name, got, printable(want)))
		}
	}

	size := f.Signature.Get(SigLongSize)
	if size.Len() == 0 {
		size = f.Signature.Get(SigSize)
	}
	if size.Len() > 0 {
		if has, want := uint64(f.Receipt.Size-f.Start), size.Uint(0); has < want {
			d.missing = want - has
		}
	}

	if f.Package.Header.Has(rpm.TagPayloadDigest) {
		h, err := payloadHash(f.Package.Header.Get(tagPayloadDigestAlgo).Uint(0))
		if err != nil {
			found = append(found, finding(Algorithm, "%v", err))
		} else {
			covered = true
			want := f.Package.Header.Get(rpm.TagPayloadDigest).First()
			d.checks = append(d.checks, &check{h, func(h hash.Hash) []Finding {
				if got := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(got, string(want)) {
					return []Finding{finding(TamperedPayload, "its digest is %s; the header says %s", got, printable(want))}
				}
				return nil
			}})
		}
	}
	if want := f.Signature.Get(SigMD5).Bytes(); want != nil && (all || !covered) {
		h := md5.New()
		h.Write(f.HeaderBytes())
		d.checks = append(d.checks, &check{h, func(h hash.Hash) []Finding {
			if got := h.Sum(nil); !bytes.Equal(got, want) {
				return []Finding{finding(TamperedPayload, "the MD5 of header and payload is %x, not %x", got, want)}
			}
			return nil
		}})
	}
	return d, found, covered
}

// printable bounds and quotes what a file says, where it is not what it should be.
func printable(b []byte) string {
	if len(b) > 128 {
		return fmt.Sprintf("%d characters", len(b))
	}
	if _, err := hex.DecodeString(string(b)); err != nil {
		return fmt.Sprintf("%q", b)
	}
	return string(b)
}

// payloadHash returns the hash for a number of OpenPGP's; rpm 4.18 writes 8.
func payloadHash(number uint64) (hash.Hash, error) {
	switch number {
	case 8:
		return crypto.SHA256.New(), nil
	case 9:
		return crypto.SHA384.New(), nil
	case 10:
		return crypto.SHA512.New(), nil
	}
	return nil, fmt.Errorf("the digest of the payload is of algorithm %d; build with SHA-256, which is 8", number)
}

// checkRegion makes sure that what rpm takes for signed is all of the header. A
// header may say that its first entries are the signed ones, and have others
// behind them: rpm hashes the first and reads all.
func checkRegion(header []byte) error {
	const intro, entry = 16, 16
	entries := int64(binary.BigEndian.Uint32(header[8:]))
	data := int64(binary.BigEndian.Uint32(header[12:]))
	first := header[intro:]
	if rpm.Tag(binary.BigEndian.Uint32(first)) != tagImmutable ||
		rpm.Type(binary.BigEndian.Uint32(first[4:])) != rpm.TypeBin ||
		binary.BigEndian.Uint32(first[12:]) != entry {
		return errors.New("nothing of it is marked as signed, as in packages before rpm 4; build it anew")
	}
	at := int64(binary.BigEndian.Uint32(first[8:]))
	if at+entry != data {
		return fmt.Errorf("%d of its %d bytes of data are marked as signed", at+entry, data)
	}
	trailer := header[intro+entries*entry+at:]
	if rpm.Tag(binary.BigEndian.Uint32(trailer)) != tagImmutable ||
		rpm.Type(binary.BigEndian.Uint32(trailer[4:])) != rpm.TypeBin ||
		binary.BigEndian.Uint32(trailer[12:]) != entry {
		return errors.New("the end of what is marked as signed is damaged")
	}
	if marked := -int64(int32(binary.BigEndian.Uint32(trailer[8:]))); marked != entries*entry {
		return fmt.Errorf("%d of its %d entries are marked as signed", marked/entry, entries)
	}
	return nil
}

// A Signer is who a signature in a package says it is by.
type Signer struct {
	KeyID string // hexadecimal digits, or "unknown"

	// Payload says that it is of header and payload, not of the header alone.
	Payload bool

	// Trusted says that the key is of the ring that was asked, and that the
	// signature fits. One of the payload was not compared with it.
	Trusted bool
}

// Signers returns those of all signatures that the package has. Neither expiry nor
// the payload is judged.
func (f *File) Signers(r *Ring) []Signer {
	var list []Signer
	for _, tag := range signatures {
		if !f.Signature.Has(tag) {
			continue
		}
		s := Signer{KeyID: "unknown"}
		if sig, err := parseSignature(f.Signature.Get(tag).Bytes()); err == nil {
			s.KeyID = fmt.Sprintf("%016X", *sig.IssuerKeyId)
			h, ok := newHash(sig)
			if s.Payload = tag != SigRSA && tag != SigDSA; s.Payload {
				s.Trusted = ok && len(r.by(sig)) > 0
			} else if ok {
				h.Write(f.HeaderBytes())
				s.Trusted = r.fits(sig, h)
			}
		}
		list = append(list, s)
	}
	return list
}
