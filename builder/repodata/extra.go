package repodata

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"meridian/internal/durable"
)

// Store writes what r has as a file of metadata named after its checksum and
// name: "comps.xml". compress adds the ending of the compression to it.
func Store(out Output, typ, name string, compress bool, r io.Reader) (d Data, err error) {
	newHash, err := NewHash(out.Checksum)
	if err != nil {
		return d, err
	}
	tmp, err := newTemporary(out.Dir, name)
	if err != nil {
		return d, err
	}
	defer tmp.discard()
	sum, open := newHash(), newHash()
	size, openSize := new(counter), new(counter)
	file := io.MultiWriter(tmp.f, sum, size)
	var into io.WriteCloser = nopCloser{file}
	switch {
	case compress && out.Compression == Zstd:
		into, err = zstd.NewWriter(file, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	case compress:
		into, err = gzip.NewWriterLevel(file, gzip.BestCompression)
	}
	if err != nil {
		return d, err
	}
	if _, err := io.Copy(io.MultiWriter(into, open, openSize), r); err != nil {
		return d, err
	}
	if err := into.Close(); err != nil {
		return d, err
	}
	d = Data{
		Type:     typ,
		Checksum: Checksum{out.Checksum, hex.EncodeToString(sum.Sum(nil))},
		Size:     int64(*size),
		OpenSize: -1,
	}
	if compress {
		d.Open = Checksum{out.Checksum, hex.EncodeToString(open.Sum(nil))}
		d.OpenSize = int64(*openSize)
		name += "." + out.Compression.String()
	}
	if err := tmp.keep(out, &d, name); err != nil {
		return d, err
	}
	return d, durable.SyncDir(out.Dir)
}

type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// Decompress returns what r holds, decompressed if it is gzip or zstd.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReader(r)
	magic, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(br)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		dec, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20))
		if err != nil {
			return nil, err
		}
		return dec.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}

// CheckGroups tells whether r is a comps file: well-formed, with groups that have
// an id each, and none twice.
func CheckGroups(r io.Reader) error {
	ids := make(map[string]bool)
	return walk(r, "comps", map[string]func(fields map[string]string) error{
		"group":       func(f map[string]string) error { return unique(ids, "group", f["id"]) },
		"environment": func(f map[string]string) error { return unique(ids, "environment", f["id"]) },
		"category":    func(f map[string]string) error { return unique(ids, "category", f["id"]) },
	})
}

// CheckUpdates tells whether r is an updateinfo file: well-formed, with updates
// that have an id each, and none twice.
func CheckUpdates(r io.Reader) error {
	ids := make(map[string]bool)
	return walk(r, "updates", map[string]func(fields map[string]string) error{
		"update": func(f map[string]string) error { return unique(ids, "update", f["id"]) },
	})
}

func unique(seen map[string]bool, kind, id string) error {
	switch {
	case id == "":
		return fmt.Errorf("has a %s without id", kind)
	case seen[kind+" "+id]:
		return fmt.Errorf("has %s %q twice", kind, shorten(id))
	}
	seen[kind+" "+id] = true
	return nil
}

// walk reads an XML file with this root, and hands the texts of the children of
// each of its children to the function for that name.
func walk(r io.Reader, root string, children map[string]func(map[string]string) error) error {
	dec := xml.NewDecoder(r)
	var depth int
	var rooted bool
	var child, field string
	var fields map[string]string
	var text []byte
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			depth++
			rooted = true
			switch name := tok.Name.Local; {
			case depth == 1 && name != root:
				return fmt.Errorf("its root element is %q; want %q", shorten(name), root)
			case depth == 2:
				child, fields = name, make(map[string]string)
			case depth == 3:
				field, text = name, text[:0]
			case depth > 64:
				return errors.New("is nested deeper than 64 elements")
			}
		case xml.CharData:
			if depth == 3 && len(text) < maxValue {
				text = append(text, tok...)
			}
		case xml.EndElement:
			if depth == 3 && fields[field] == "" {
				fields[field] = string(bytes.TrimSpace(text))
			}
			if check := children[child]; depth == 2 && check != nil {
				if err := check(fields); err != nil {
					line, _ := dec.InputPos()
					return fmt.Errorf("line %d: %w", line, err)
				}
			}
			depth--
		}
	}
	if !rooted {
		return fmt.Errorf("is not XML; want a root element %q", root)
	}
	return nil
}
