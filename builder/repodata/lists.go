package repodata

import (
	"bufio"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"meridian/internal/durable"
)

// NewHash returns the constructor of a checksum that may be written: sha256,
// sha384 or sha512.
func NewHash(name string) (func() hash.Hash, error) {
	switch name {
	case "sha256":
		return sha256.New, nil
	case "sha384":
		return sha512.New384, nil
	case "sha512":
		return sha512.New, nil
	case "md5", "sha", "sha1":
		return nil, fmt.Errorf("checksum %q protects nobody any more; write sha256", name)
	}
	return nil, fmt.Errorf("unknown checksum %q; write sha256, sha384 or sha512", name)
}

// A Segment is where a batch is in one of the files: where it begins, how many
// bytes it has there, and how many before compression.
type Segment struct {
	Offset, Packed, Text int64
}

// Output says how metadata is to be written.
type Output struct {
	// Dir is the directory repodata itself. It exists.
	Dir string

	Compression Compression

	// Checksum is the algorithm of the checksums in repomd.xml and of the names
	// of files. Required.
	Checksum string

	// Time is the modification time of the files, to the second. FixedTime gives
	// it also to a file that is there already with the same content.
	Time      time.Time
	FixedTime bool
}

// A Writer writes the three lists into hidden files, and gives them their names
// when they are complete. Nothing that a reader may be using is touched.
type Writer struct {
	out      Output
	promised int
	packer   *Packer
	lists    [3]*list
}

// NewWriter begins three lists of so many packages. Close must be called.
func NewWriter(out Output, packages int) (*Writer, error) {
	w := &Writer{out: out, promised: packages, packer: NewPacker(out.Compression)}
	for i := range w.lists {
		l, err := newList(out, i)
		if err == nil {
			w.lists[i] = l
			err = l.begin(w.packer, packages)
		}
		if err != nil {
			w.Close()
			return nil, err
		}
	}
	return w, nil
}

// Append adds a batch that was packed, and returns where it is in each file.
func (w *Writer) Append(b *Batch) (at [3]Segment, err error) {
	for i, l := range w.lists {
		if at[i], err = l.append(b.packed[i], b.text(i)); err != nil {
			return at, fmt.Errorf("write %s: %w", listNames[i], err)
		}
	}
	return at, nil
}

// Finish ends the lists, makes them durable, and gives them their names. packages
// is how many there really are; when that is not what was promised, the files are
// written once more, because the number stands at their beginning and is part of
// every checksum. Segments stay where they are relative to each other: moved is
// by how many bytes, for each file.
func (w *Writer) Finish(packages int) (data []Data, moved [3]int64, err error) {
	for i := range w.lists {
		if packages != w.promised {
			if moved[i], err = w.rewrite(i, packages); err != nil {
				return nil, moved, fmt.Errorf("rewrite %s: %w", listNames[i], err)
			}
		}
		d, err := w.lists[i].finish(w.packer, w.out)
		if err != nil {
			return nil, moved, fmt.Errorf("write %s: %w", listNames[i], err)
		}
		data = append(data, d)
	}
	return data, moved, durable.SyncDir(w.out.Dir)
}

// rewrite copies a list behind another opening.
func (w *Writer) rewrite(i, packages int) (moved int64, err error) {
	old := w.lists[i]
	if err := old.w.Flush(); err != nil {
		return 0, err
	}
	l, err := newList(w.out, i)
	if err != nil {
		return 0, err
	}
	defer old.discard()
	w.lists[i] = l
	if err := l.begin(w.packer, packages); err != nil {
		return 0, err
	}
	var packed, text []byte
	for _, s := range old.segments {
		packed, text, err = w.packer.load(old.f, s, packed[:0], text[:0])
		if err != nil {
			return 0, err
		}
		at, err := l.append(packed, text)
		if err != nil {
			return 0, err
		}
		moved = at.Offset - s.Offset
	}
	return moved, nil
}

// Close removes what was not finished.
func (w *Writer) Close() {
	for _, l := range w.lists {
		if l != nil {
			l.discard()
		}
	}
	w.packer.Close()
}

// load reads a segment of f.
func (p *Packer) load(f io.ReaderAt, s Segment, packed, text []byte) (_, _ []byte, err error) {
	packed = append(packed, make([]byte, s.Packed)...)
	if _, err := f.ReadAt(packed, s.Offset); err != nil {
		return nil, nil, err
	}
	text, err = p.unpack(text, packed, int(s.Text))
	return packed, text, err
}

// Load fills b with what the files have at the segments: text and compressed form.
func (p *Packer) Load(files [3]*os.File, at [3]Segment, b *Batch) (err error) {
	b.Reset()
	texts := [3]*[]byte{&b.Text.Primary, &b.Text.Filelists, &b.Text.Other}
	for i, f := range files {
		if b.packed[i], *texts[i], err = p.load(f, at[i], b.packed[i], *texts[i]); err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
	}
	return nil
}

// list is one of the files while it is written.
type list struct {
	i        int
	tmp      *temporary
	f        *os.File
	w        *bufio.Writer
	gzip     bool
	sum      hash.Hash // of the file
	open     hash.Hash // of the text
	crc      uint32
	size     int64
	openSize int64
	segments []Segment
}

// gzipHeader has no name, no time, and no system in it: the same text is the same
// file.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}

// deflateEnd is an empty last block.
var deflateEnd = []byte{0x03, 0x00}

func newList(out Output, i int) (*list, error) {
	newHash, err := NewHash(out.Checksum)
	if err != nil {
		return nil, err
	}
	tmp, err := newTemporary(out.Dir, listNames[i])
	if err != nil {
		return nil, err
	}
	return &list{i: i, tmp: tmp, f: tmp.f, w: bufio.NewWriterSize(tmp.f, 256<<10), gzip: out.Compression == Gzip,
		sum: newHash(), open: newHash()}, nil
}

// raw writes bytes that are not the compressed form of anything.
func (l *list) raw(b []byte) error {
	l.sum.Write(b)
	l.size += int64(len(b))
	_, err := l.w.Write(b)
	return err
}

func (l *list) segment(packed, text []byte) error {
	l.open.Write(text)
	l.openSize += int64(len(text))
	if l.gzip {
		l.crc = crc32.Update(l.crc, crc32.IEEETable, text)
	}
	return l.raw(packed)
}

func (l *list) begin(p *Packer, packages int) error {
	if l.gzip {
		if err := l.raw(gzipHeader); err != nil {
			return err
		}
	}
	text := opening(l.i, packages)
	packed, err := p.pack(nil, text)
	if err != nil {
		return err
	}
	return l.segment(packed, text)
}

func (l *list) append(packed, text []byte) (Segment, error) {
	s := Segment{l.size, int64(len(packed)), int64(len(text))}
	l.segments = append(l.segments, s)
	return s, l.segment(packed, text)
}

func (l *list) finish(p *Packer, out Output) (d Data, err error) {
	text := []byte(closings[l.i])
	packed, err := p.pack(nil, text)
	if err == nil {
		err = l.segment(packed, text)
	}
	if err == nil && l.gzip {
		end := append([]byte(nil), deflateEnd...)
		end = binary.LittleEndian.AppendUint32(end, l.crc)
		end = binary.LittleEndian.AppendUint32(end, uint32(l.openSize))
		err = l.raw(end)
	}
	if err == nil {
		err = l.w.Flush()
	}
	if err != nil {
		return d, err
	}
	d = Data{
		Type:     listNames[l.i],
		Checksum: Checksum{out.Checksum, hex.EncodeToString(l.sum.Sum(nil))},
		Open:     Checksum{out.Checksum, hex.EncodeToString(l.open.Sum(nil))},
		Size:     l.size,
		OpenSize: l.openSize,
	}
	return d, l.tmp.keep(out, &d, listNames[l.i]+".xml."+out.Compression.String())
}

func (l *list) discard() { l.tmp.discard() }

// temporary is a file that has no name yet, because its name depends on what will
// be in it.
type temporary struct {
	f    *os.File
	done bool
}

// tmpMark is in the names of temporary files, which are hidden as well.
const tmpMark = ".tmp-"

func newTemporary(dir, name string) (*temporary, error) {
	f, err := os.CreateTemp(dir, "."+name+tmpMark+"*")
	if err != nil {
		return nil, err
	}
	return &temporary{f: f}, nil
}

// keep makes the content durable and gives the file its name, which is durable
// when the directory was synced. A file that is there already with the same content
// stays. It completes d, whose checksum becomes part of the name.
func (t *temporary) keep(out Output, d *Data, name string) error {
	name = d.Checksum.Value + "-" + name
	d.Location = Dir + "/" + name
	d.Timestamp = out.Time.Unix()
	path := filepath.Join(out.Dir, name)
	if there, err := os.Open(path); err == nil {
		defer there.Close()
		info, err := there.Stat()
		if err == nil && Verify(there, d) == nil {
			t.discard()
			if out.FixedTime {
				return os.Chtimes(path, out.Time, out.Time)
			}
			d.Timestamp = info.ModTime().Unix()
			return nil
		}
	}
	if err := t.f.Chmod(0o644); err != nil {
		return err
	}
	if err := os.Chtimes(t.f.Name(), out.Time, out.Time); err != nil {
		return err
	}
	if err := t.f.Sync(); err != nil {
		return err
	}
	if err := t.f.Close(); err != nil {
		return err
	}
	if err := os.Rename(t.f.Name(), path); err != nil {
		return err
	}
	t.done = true
	return nil
}

// Verify reads r to its end and tells whether it is the file that d describes.
func Verify(r io.Reader, d *Data) error {
	newHash, err := NewHash(d.Checksum.Type)
	if err != nil {
		return err
	}
	sum := newHash()
	n, err := io.Copy(sum, r)
	switch {
	case err != nil:
		return err
	case d.Size >= 0 && n != d.Size:
		return fmt.Errorf("%s has %d bytes, not %d", d.Location, n, d.Size)
	case hex.EncodeToString(sum.Sum(nil)) != d.Checksum.Value:
		return fmt.Errorf("%s has another checksum than repomd.xml says", d.Location)
	}
	return nil
}

func (t *temporary) discard() {
	if !t.done {
		t.f.Close()
		os.Remove(t.f.Name())
		t.done = true
	}
}

// RemoveTemporaries removes what a writer left in dir that was killed. No other
// may be at work there.
func RemoveTemporaries(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && strings.Contains(e.Name(), tmpMark) {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
