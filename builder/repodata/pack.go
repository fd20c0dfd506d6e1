package repodata

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// A Compression is how lists are compressed. The zero value is Gzip, which every
// client can read.
type Compression int

// Clients of EL7 cannot read Zstd.
const (
	Gzip Compression = iota
	Zstd
)

// ParseCompression reads the name of a compression: gz or zst.
func ParseCompression(s string) (Compression, error) {
	switch strings.TrimPrefix(s, ".") {
	case "gz", "gzip":
		return Gzip, nil
	case "zst", "zstd":
		return Zstd, nil
	}
	return 0, fmt.Errorf("unknown compression %q; write gz or zst", s)
}

// String is also what the names of files end with.
func (c Compression) String() string {
	if c == Zstd {
		return "zst"
	}
	return "gz"
}

// A Batch is a run of packages in all lists, as XML and compressed. Batches are
// compressed on their own, by as many goroutines as there are, and follow each
// other in a file, which is one gzip file all the same.
type Batch struct {
	Text   Lists
	packed [3][]byte
}

func (b *Batch) text(list int) []byte {
	return [3][]byte{b.Text.Primary, b.Text.Filelists, b.Text.Other}[list]
}

// Reset empties b and keeps its memory.
func (b *Batch) Reset() {
	b.Text = Lists{b.Text.Primary[:0], b.Text.Filelists[:0], b.Text.Other[:0]}
	for i := range b.packed {
		b.packed[i] = b.packed[i][:0]
	}
}

// A Packer compresses and decompresses batches. It is for one goroutine.
type Packer struct {
	compression Compression
	deflate     *flate.Writer
	inflate     io.ReadCloser
	enc         *zstd.Encoder
	dec         *zstd.Decoder
	out         bytes.Buffer
}

// gzipLevel is where a better compression begins to cost more than it saves.
const gzipLevel = 6

// NewPacker returns a Packer.
func NewPacker(c Compression) *Packer {
	return &Packer{compression: c}
}

// Pack compresses the text of b.
func (p *Packer) Pack(b *Batch) (err error) {
	for list := range b.packed {
		if b.packed[list], err = p.pack(b.packed[list][:0], b.text(list)); err != nil {
			return fmt.Errorf("compress: %w", err)
		}
	}
	return nil
}

func (p *Packer) pack(dst, text []byte) (_ []byte, err error) {
	if p.compression == Zstd {
		if p.enc == nil {
			p.enc, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
			if err != nil {
				return nil, err
			}
		}
		return p.enc.EncodeAll(text, dst), nil
	}
	if p.deflate == nil {
		if p.deflate, err = flate.NewWriter(nil, gzipLevel); err != nil {
			return nil, err
		}
	}
	p.out.Reset()
	p.deflate.Reset(&p.out)
	if _, err := p.deflate.Write(text); err != nil {
		return nil, err
	}
	// Flush ends at a byte and without the mark of the end, so that another
	// segment can follow.
	if err := p.deflate.Flush(); err != nil {
		return nil, err
	}
	return append(dst, p.out.Bytes()...), nil
}

// unpack appends the size bytes that packed holds.
func (p *Packer) unpack(dst, packed []byte, size int) (_ []byte, err error) {
	if p.compression == Zstd {
		if p.dec == nil {
			if p.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1)); err != nil {
				return nil, err
			}
		}
		before := len(dst)
		if dst, err = p.dec.DecodeAll(packed, dst); err == nil && len(dst)-before != size {
			err = fmt.Errorf("%d bytes where %d should be", len(dst)-before, size)
		}
		return dst, err
	}
	if p.inflate == nil {
		p.inflate = flate.NewReader(bytes.NewReader(packed))
	} else if err := p.inflate.(flate.Resetter).Reset(bytes.NewReader(packed), nil); err != nil {
		return nil, err
	}
	before := len(dst)
	dst = append(dst, make([]byte, size)...)
	_, err = io.ReadFull(p.inflate, dst[before:])
	return dst, err
}

// Close gives back what the Packer holds.
func (p *Packer) Close() {
	if p.enc != nil {
		p.enc.Close()
	}
	if p.dec != nil {
		p.dec.Close()
	}
}
