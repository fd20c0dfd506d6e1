package builder

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/zeebo/xxh3"

	"meridian/builder/repodata"
	"meridian/builder/rpm"
	"meridian/internal/durable"
)

// The cache of a repository remembers what was read: of each package its receipt,
// and where its text is in the metadata of the generation that the cache belongs
// to. It has a record for each batch, in the order of the lists, so that it is
// read and written as a stream; then a footer, and the length of that in eight
// bytes. Each record has its own hash: what is not whole is not there.

// cacheVersion changes when a renderer would write something else for the same
// package, or when the format does.
const cacheVersion = 1

const cacheMagic = "meridian repository cache\n"

// maxRecord bounds a record, and the footer: a batch has some hundred packages, and
// a path at most 4096 bytes.
const maxRecord = 16 << 20

// errNoCache says why there is nothing to reuse. It is never a failure.
type errNoCache struct{ reason string }

func (e *errNoCache) Error() string { return e.reason }

// kept is one package in a cache.
type kept struct {
	at      found
	receipt rpm.Receipt // without path

	// doubtful: the package had changed so shortly before it was read that it
	// could have changed again without a trace.
	doubtful bool

	// end is where its text ends in the batch, in each list.
	end [3]int64
}

// keptBatch is one record of a cache.
type keptBatch struct {
	segments [3]repodata.Segment
	packages []kept
}

// cacheFooter says what a cache belongs to.
type cacheFooter struct {
	Version  int        `json:"version"`
	Repomd   rpm.Digest `json:"repomd"` // of repomd.xml
	Options  string     `json:"options"`
	Extras   string     `json:"extras"`
	Packages int        `json:"packages"`
	Moved    [3]int64   `json:"moved"` // added to the offset of each segment
}

// A cacheWriter writes beside the old cache, which stays until commit.
type cacheWriter struct {
	path string
	f    *os.File
	w    *bufio.Writer
	buf  []byte
}

func newCacheWriter(path string) (*cacheWriter, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return nil, err
	}
	c := &cacheWriter{path: path, f: f, w: bufio.NewWriterSize(f, 64<<10)}
	_, err = c.w.WriteString(cacheMagic)
	return c, err
}

func (c *cacheWriter) append(b *keptBatch) error {
	buf := c.buf[:0]
	buf = binary.AppendUvarint(buf, uint64(len(b.packages)))
	for _, s := range b.segments {
		buf = binary.AppendUvarint(buf, uint64(s.Offset))
		buf = binary.AppendUvarint(buf, uint64(s.Packed))
		buf = binary.AppendUvarint(buf, uint64(s.Text))
	}
	for i := range b.packages {
		k := &b.packages[i]
		buf = appendString(buf, k.at.dir)
		buf = appendString(buf, k.at.base)
		doubt := byte(0)
		if k.doubtful {
			doubt = 1
		}
		buf = append(buf, doubt)
		buf = binary.AppendVarint(buf, k.receipt.Size)
		buf = binary.AppendVarint(buf, k.receipt.MTime)
		buf = binary.AppendVarint(buf, k.receipt.CTime)
		buf = binary.AppendUvarint(buf, k.receipt.Inode)
		buf = append(buf, k.receipt.SHA256[:]...)
		buf = append(buf, k.receipt.XXH3[:]...)
		buf = append(buf, k.receipt.Header[:]...)
		for _, end := range k.end {
			buf = binary.AppendUvarint(buf, uint64(end))
		}
	}
	c.buf = buf
	return c.record(buf)
}

func (c *cacheWriter) record(b []byte) error {
	head := binary.AppendUvarint(nil, uint64(len(b)))
	head = binary.BigEndian.AppendUint64(head, xxh3.Hash(b))
	if _, err := c.w.Write(head); err != nil {
		return err
	}
	_, err := c.w.Write(b)
	return err
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// commit puts the cache in its place.
func (c *cacheWriter) commit(footer cacheFooter) error {
	footer.Version = cacheVersion
	text, err := json.Marshal(footer)
	if err != nil {
		return err
	}
	// An empty record ends the batches.
	if err := c.record(nil); err != nil {
		return err
	}
	var tail []byte
	tail = append(tail, text...)
	tail = binary.BigEndian.AppendUint64(tail, xxh3.Hash(text))
	tail = binary.BigEndian.AppendUint64(tail, uint64(len(text)))
	if _, err := c.w.Write(tail); err != nil {
		return err
	}
	if err := c.w.Flush(); err != nil {
		return err
	}
	if err := c.f.Sync(); err != nil {
		return err
	}
	if err := c.f.Close(); err != nil {
		return err
	}
	if err := os.Rename(c.f.Name(), c.path); err != nil {
		return err
	}
	c.f = nil
	return durable.SyncDir(filepath.Dir(c.path))
}

// discard leaves the old cache as it was.
func (c *cacheWriter) discard() {
	if c.f != nil {
		c.f.Close()
		os.Remove(c.f.Name())
	}
}

// A cacheReader reads the batches of a cache in order.
type cacheReader struct {
	f      *os.File
	r      *bufio.Reader
	footer cacheFooter
	buf    []byte
	done   bool
}

// openCache opens a cache of this version. Every error is an *errNoCache.
func openCache(path string) (*cacheReader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &errNoCache{fmt.Sprintf("no cache: %v", err)}
	}
	c := &cacheReader{f: f, r: bufio.NewReaderSize(f, 64<<10)}
	if err := c.readFooter(); err != nil {
		f.Close()
		return nil, &errNoCache{fmt.Sprintf("cache %s: %v", path, err)}
	}
	return c, nil
}

func (c *cacheReader) readFooter() error {
	info, err := c.f.Stat()
	if err != nil {
		return err
	}
	var tail [16]byte
	size := info.Size()
	if size < int64(len(cacheMagic)+len(tail)) {
		return errors.New("truncated")
	}
	if _, err := c.f.ReadAt(tail[:], size-int64(len(tail))); err != nil {
		return err
	}
	n := binary.BigEndian.Uint64(tail[8:])
	if n > maxRecord || int64(n) > size-int64(len(cacheMagic)+len(tail)) {
		return errors.New("damaged at its end")
	}
	text := make([]byte, n)
	if _, err := c.f.ReadAt(text, size-int64(len(tail))-int64(n)); err != nil {
		return err
	}
	if xxh3.Hash(text) != binary.BigEndian.Uint64(tail[:]) {
		return errors.New("damaged at its end")
	}
	if err := json.Unmarshal(text, &c.footer); err != nil {
		return err
	}
	if c.footer.Version != cacheVersion {
		return fmt.Errorf("has format %d, not %d", c.footer.Version, cacheVersion)
	}
	// A damaged record must be known before anything is begun on its account.
	if err := c.rewind(); err != nil {
		return err
	}
	for !c.done {
		if err := c.record(); err != nil {
			return err
		}
	}
	return c.rewind()
}

// rewind makes next return the first batch again.
func (c *cacheReader) rewind() error {
	if _, err := c.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	c.r.Reset(c.f)
	c.done = false
	magic := make([]byte, len(cacheMagic))
	if _, err := io.ReadFull(c.r, magic); err != nil || string(magic) != cacheMagic {
		return errors.New("is no cache")
	}
	return nil
}

// record reads the next record into buf, and is done after the last.
func (c *cacheReader) record() error {
	n, err := binary.ReadUvarint(c.r)
	if err != nil {
		return err
	}
	if n > maxRecord {
		return fmt.Errorf("a record of %d bytes", n)
	}
	var sum [8]byte
	if _, err := io.ReadFull(c.r, sum[:]); err != nil {
		return err
	}
	if uint64(cap(c.buf)) < n {
		c.buf = make([]byte, n)
	}
	c.buf = c.buf[:n]
	if _, err := io.ReadFull(c.r, c.buf); err != nil {
		return err
	}
	if xxh3.Hash(c.buf) != binary.BigEndian.Uint64(sum[:]) {
		return errors.New("a record that is damaged")
	}
	c.done = n == 0
	return nil
}

// next returns the next batch, and nil after the last.
func (c *cacheReader) next() (*keptBatch, error) {
	if !c.done {
		if err := c.record(); err != nil {
			return nil, err
		}
	}
	if c.done {
		return nil, nil
	}
	d := decoder{b: c.buf}
	b := &keptBatch{}
	count := d.uvarint()
	for i := range b.segments {
		b.segments[i] = repodata.Segment{Offset: d.int() + c.footer.Moved[i], Packed: d.int(), Text: d.int()}
	}
	if count > uint64(len(d.b)) {
		return nil, fmt.Errorf("a batch of %d packages", count)
	}
	b.packages = make([]kept, count)
	dir := "" // hardly ever more than one
	for i := range b.packages {
		k := &b.packages[i]
		if s := d.string(); string(s) != dir {
			dir = string(s)
		}
		k.at = found{dir, string(d.string())}
		k.doubtful = d.byte() != 0
		k.receipt.Size, k.receipt.MTime, k.receipt.CTime, k.receipt.Inode = d.varint(), d.varint(), d.varint(), d.uvarint()
		d.copy(k.receipt.SHA256[:])
		d.copy(k.receipt.XXH3[:])
		d.copy(k.receipt.Header[:])
		for j := range k.end {
			k.end[j] = d.int()
		}
	}
	if d.bad || len(d.b) > 0 {
		return nil, errors.New("a record that is not what it should be")
	}
	return b, nil
}

func (c *cacheReader) close() { c.f.Close() }

// decoder reads the parts of a record. Its hash has been checked, so a mistake is
// one of this program; it is remembered rather than returned.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	d.skip(n)
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	d.skip(n)
	return v
}

func (d *decoder) int() int64 { return int64(d.uvarint()) }

func (d *decoder) skip(n int) {
	if n <= 0 || n > len(d.b) {
		d.bad, d.b = true, nil
		return
	}
	d.b = d.b[n:]
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) string() []byte { return d.take(int(d.uvarint())) }

func (d *decoder) copy(dst []byte) { copy(dst, d.take(len(dst))) }

// fresh tells whether the file with this stamp is what k was made of, without a
// doubt.
func (k *kept) fresh(now rpm.Stamp) bool { return !k.doubtful && k.receipt.Stamp == now }
