package rpm

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/zeebo/xxh3"
)

// A Package is what a Reader found in a file. Its headers refer to the memory of
// the Reader, and hold until that reads the next file.
type Package struct {
	// Receipt is complete after Read. After ReadHead it has no hash of the whole
	// file.
	Receipt Receipt

	// Sum is the hash of the whole file by the algorithm that the Reader was
	// given; nil when it was given none, and after ReadHead.
	Sum []byte

	Signature *Header
	Header    *Header

	// Start and End are where the header is in the file, in bytes from its
	// beginning. The payload begins at End.
	Start, End int64
}

// A Reader reads packages, one at a time, and keeps its memory between them. The
// zero value is ready.
type Reader struct {
	// Hash makes one more hash of the whole file, if it is not nil.
	Hash func() hash.Hash

	// NoXXH3 leaves out that hash, which is a twentieth of the work.
	NoXXH3 bool

	head []byte
	buf  []byte
	sha  hash.Hash
	xxh  *xxh3.Hasher
	more hash.Hash
}

const (
	// readSize is what is asked of the kernel at once.
	readSize = 256 << 10

	// keepHead is the memory that a Reader keeps for heads. Those of nearly all
	// packages are smaller; one of a hundred megabytes must not stay.
	keepHead = 4 << 20
)

// Read reads and hashes the whole file path. A symbolic link is followed. The
// error is a [*FormatError] when the file is not a package, or has no name,
// version, release and architecture; [ErrChanged] when it changed meanwhile; or
// what the file system said.
func (r *Reader) Read(path string) (*Package, error) {
	return r.open(path, true)
}

// ReadHead reads only what comes before the payload.
func (r *Reader) ReadHead(path string) (*Package, error) {
	return r.open(path, false)
}

func (r *Reader) open(path string, whole bool) (*Package, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, malformed("not a regular file")
	}
	before := StampOf(info)
	p, err := r.read(f, before.Size, whole)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	// The access time is not in a stamp, so reading changes none.
	if StampOf(info) != before {
		return nil, ErrChanged
	}
	p.Receipt.Path = path
	p.Receipt.Stamp = before
	return p, nil
}

// read reads a package of size bytes from f.
func (r *Reader) read(f io.Reader, size int64, whole bool) (*Package, error) {
	p, err := r.readHead(f, size)
	if err != nil || !whole {
		return p, err
	}
	if r.sha == nil {
		r.sha, r.xxh = sha256.New(), xxh3.New()
		r.buf = make([]byte, readSize)
		if r.Hash != nil {
			r.more = r.Hash()
		}
	}
	r.sha.Reset()
	r.xxh.Reset()
	if r.more != nil {
		r.more.Reset()
	}
	hash := func(b []byte) {
		r.sha.Write(b)
		if !r.NoXXH3 {
			r.xxh.Write(b)
		}
		if r.more != nil {
			r.more.Write(b)
		}
	}
	hash(r.head)
	for done := int64(len(r.head)); done < size; {
		n, err := f.Read(r.buf[:min(int64(len(r.buf)), size-done)])
		hash(r.buf[:n])
		done += int64(n)
		if err == io.EOF && done < size {
			return nil, ErrChanged // it was longer when it was opened
		}
		if err != nil && err != io.EOF {
			return nil, err
		}
	}
	r.sha.Sum(p.Receipt.SHA256[:0])
	if !r.NoXXH3 {
		p.Receipt.XXH3 = r.xxh.Sum128().Bytes()
	}
	if r.more != nil {
		p.Sum = r.more.Sum(nil)
	}
	return p, nil
}

// readHead reads everything before the payload into r.head, and not a byte more
// than it has checked to be there.
func (r *Reader) readHead(f io.Reader, size int64) (*Package, error) {
	if cap(r.head) > keepHead {
		r.head = nil
	}
	r.head = r.head[:0]
	if size < leadSize+introSize {
		return nil, malformed("truncated: %d bytes are not even the beginning of a package", size)
	}
	if err := r.fill(f, leadSize+introSize); err != nil {
		return nil, err
	}
	l, err := parseLead(r.head)
	if err != nil {
		return nil, err
	}
	if l.start+introSize > size {
		return nil, malformed("truncated: the signatures end at byte %d of a file of %d", l.start, size)
	}
	if err := r.fill(f, l.start+introSize); err != nil {
		return nil, err
	}
	if err := l.parseHeader(r.head[l.start:], size); err != nil {
		return nil, err
	}
	if err := r.fill(f, l.end); err != nil {
		return nil, err
	}
	p := &Package{Start: l.start, End: l.end}
	if p.Signature, p.Header, err = l.headers(r.head); err != nil {
		return nil, err
	}
	if err := checkMain(p.Header, p.Signature); err != nil {
		return nil, err
	}
	for _, must := range []struct {
		tag  Tag
		name string
	}{{TagName, "name"}, {TagVersion, "version"}, {TagRelease, "release"}, {TagArch, "architecture"}} {
		if len(p.Header.Get(must.tag).First()) == 0 {
			return nil, malformed("the header has no %s", must.name)
		}
	}
	p.Receipt.Header = sha256.Sum256(r.head)
	return p, nil
}

// fill reads until r.head has n bytes.
func (r *Reader) fill(f io.Reader, n int64) error {
	have := len(r.head)
	if int64(cap(r.head)) < n {
		grown := make([]byte, have, max(n, 64<<10))
		copy(grown, r.head)
		r.head = grown
	}
	r.head = r.head[:n]
	_, err := io.ReadFull(f, r.head[have:])
	switch err {
	case nil:
		return nil
	case io.EOF, io.ErrUnexpectedEOF:
		return ErrChanged // it was longer when it was opened
	default:
		return fmt.Errorf("read header: %w", err)
	}
}
