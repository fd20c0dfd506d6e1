package syncer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"meridian/builder/repodata"
)

// A repo is one repository of a tree: its repomd.xml, and what lies beside that
// to be switched with it.
type repo struct {
	dir   string // "." for the top of the tree
	md    *repodata.Repomd
	files []small // repomd.xml last
}

func (r *repo) path(name string) string { return path.Join(r.dir, repodataDir, name) }

// repomd is the content of repomd.xml.
func (r *repo) repomd() []byte { return r.files[len(r.files)-1].data }

// readRepo reads the entry files of the repository in dir, as they are now: from
// here on they are these bytes, whatever happens to the files.
func readRepo(root *os.Root, m *Manifest, dir string) (*repo, error) {
	r := &repo{dir: dir}
	for _, base := range []string{"repomd.xml.key", "repomd.xml.asc", "repomd.xml"} {
		e := m.Lookup(r.path(base))
		if e == nil {
			continue
		}
		if e.Type != File || e.Size > repodata.MaxRepomd {
			return nil, fmt.Errorf("%s: not a file of at most %d bytes", e.Path, repodata.MaxRepomd)
		}
		b, err := root.ReadFile(e.Path)
		if err != nil {
			return nil, err
		}
		r.files = append(r.files, small{name: e.Path, data: b, modTime: e.ModTime})
	}
	var err error
	if r.md, err = repodata.ReadRepomd(bytes.NewReader(r.repomd())); err != nil {
		return nil, fmt.Errorf("%s: %w", r.path("repomd.xml"), err)
	}
	return r, nil
}

// closure returns what a client would miss in a repository: metadata that
// repomd.xml names and packages that primary names, which are not in m as it
// says. open opens a file of the tree.
func (r *repo) closure(ctx context.Context, m *Manifest, open func(name string) (io.ReadCloser, error)) ([]string, error) {
	var bad []string
	for _, d := range r.md.Data {
		name := path.Join(r.dir, d.Location)
		if why := wrong(m, name, d.Size, &d.Checksum); why != "" {
			bad = append(bad, fmt.Sprintf("%s, which %s names, %s", name, r.path("repomd.xml"), why))
		}
	}
	primary := r.md.Lookup("primary")
	if primary == nil {
		return append(bad, r.path("repomd.xml")+" names no primary metadata"), nil
	}
	if len(bad) > 0 {
		return bad, nil
	}
	name := path.Join(r.dir, primary.Location)
	f, err := open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := decompress(f, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer text.Close()
	n := 0
	err = readPrimary(text, func(href string, size int64) error {
		if n++; n&0x3ff == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if !inside(path.Clean(href)) {
			bad = append(bad, fmt.Sprintf("%s names %+q, which is outside the repository", name, href))
			return nil
		}
		file := path.Join(r.dir, href)
		why := wrong(m, file, size, nil)
		if why != "" && m.Lookup(file) == nil {
			// Some tools escape what is special in a URL.
			if plain, err := url.PathUnescape(href); err == nil && plain != href && inside(path.Clean(plain)) {
				why = wrong(m, path.Join(r.dir, plain), size, nil)
			}
		}
		if why != "" {
			bad = append(bad, fmt.Sprintf("%s, which %s names, %s", file, name, why))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return bad, nil
}

// wrong says why the file name is not the one that metadata describes; "" when
// it is. A negative size is one that is not known.
func wrong(m *Manifest, name string, size int64, sum *repodata.Checksum) string {
	e := m.Lookup(name)
	if e == nil || e.Type == Link {
		e, _ = m.resolve(name) // one that leads out leads nowhere
	}
	switch {
	case e == nil:
		return "is missing"
	case e.Type != File:
		return "is a " + e.Type.String()
	case size >= 0 && e.Size != size:
		return fmt.Sprintf("has %d bytes, want %d", e.Size, size)
	case sum != nil && sum.Type == "sha256" && e.SHA256 != "" && e.SHA256 != sum.Value:
		return "has another checksum"
	}
	return ""
}

// maxText bounds the metadata of one repository after decompression: that of
// the largest distributions is 1 GB.
const maxText = 16 << 30

// decompress reads metadata as its name says that it is compressed.
func decompress(r io.Reader, name string) (io.ReadCloser, error) {
	var plain io.Reader
	done := func() error { return nil }
	switch ext := path.Ext(name); ext {
	case ".gz":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		plain, done = z, z.Close
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, err
		}
		plain, done = z, func() error { z.Close(); return nil }
	case ".bz2":
		plain = bzip2.NewReader(r)
	case ".xml":
		plain = r
	default:
		return nil, fmt.Errorf("compressed in a way that is not known here, %q; write gz or zst", ext)
	}
	return struct {
		io.Reader
		closer
	}{io.LimitReader(plain, maxText), done}, nil
}

type closer func() error

func (c closer) Close() error { return c() }

// maxTag bounds a tag of primary metadata with its attributes.
const maxTag = 64 << 10

// readPrimary calls each with the location and the size of every package. It
// looks at tags alone, and no other part of the text is kept: the metadata of a
// distribution is gigabytes. What has a base of its own elsewhere is left out.
func readPrimary(r io.Reader, each func(href string, size int64) error) error {
	in := bufio.NewReaderSize(r, maxTag)
	var href string
	size, inPackage, elsewhere := int64(-1), false, false
	packages, known := 0, false
	for {
		tag, err := nextTag(in)
		if err == io.EOF {
			if inPackage {
				return errors.New("it ends inside a package")
			}
			if !known {
				return errors.New("it is no primary metadata")
			}
			return nil
		}
		if err != nil {
			return err
		}
		name := tag
		if i := strings.IndexAny(tag, " \t\r\n/"); i > 0 {
			name = tag[:i]
		}
		switch name {
		case "metadata":
			known = true
		case "package":
			href, size, inPackage, elsewhere = "", -1, true, false
		case "location":
			var ok bool
			if href, ok = attribute(tag, "href"); !ok {
				return errors.New("a location without href")
			}
			_, elsewhere = attribute(tag, "xml:base")
		case "size":
			text, _ := attribute(tag, "package")
			if size, err = strconv.ParseInt(text, 10, 64); err != nil || size < 0 {
				return fmt.Errorf("a package of %+q bytes", text)
			}
		}
		if tag != "/package" {
			continue
		}
		packages++
		switch {
		case !inPackage:
			return errors.New("a package ends that did not begin")
		case href == "":
			return fmt.Errorf("package %d has no location", packages)
		case size < 0:
			return fmt.Errorf("package %d, %+q, has no size", packages, href)
		}
		inPackage = false
		if elsewhere {
			continue
		}
		if err := each(href, size); err != nil {
			return err
		}
	}
}

// nextTag returns what is between the next "<" and the ">" that belongs to it,
// without those. Comments, declarations and instructions are passed over.
func nextTag(in *bufio.Reader) (string, error) {
	for {
		for {
			_, err := in.ReadSlice('<')
			if err == nil {
				break
			}
			if err != bufio.ErrBufferFull {
				return "", err
			}
		}
		if next, _ := in.Peek(3); bytes.Equal(next, []byte("!--")) {
			if err := skipPast(in, "-->"); err != nil {
				return "", err
			}
			continue
		}
		if next, _ := in.Peek(8); bytes.Equal(next, []byte("![CDATA[")) {
			if err := skipPast(in, "]]>"); err != nil {
				return "", err
			}
			continue
		}
		var tag []byte
		quote := byte(0)
		for {
			c, err := in.ReadByte()
			if err == io.EOF {
				return "", io.ErrUnexpectedEOF
			}
			if err != nil {
				return "", err
			}
			if quote == 0 && c == '>' {
				break
			}
			if quote == 0 && (c == '"' || c == '\'') {
				quote = c
			} else if c == quote {
				quote = 0
			}
			if tag = append(tag, c); len(tag) > maxTag {
				return "", fmt.Errorf("a tag of more than %d bytes", maxTag)
			}
		}
		if len(tag) > 0 && tag[0] != '?' && tag[0] != '!' {
			return strings.TrimRight(string(tag), " \t\r\n"), nil
		}
	}
}

func skipPast(in *bufio.Reader, end string) error {
	matched := 0
	for matched < len(end) {
		c, err := in.ReadByte()
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		switch {
		case c == end[matched]:
			matched++
		case matched == 2 && c == end[0]: // "--->" ends a comment too
		case c == end[0]:
			matched = 1
		default:
			matched = 0
		}
	}
	return nil
}

// attribute returns the value of an attribute of a tag.
func attribute(tag, name string) (string, bool) {
	for rest := tag; ; {
		i := strings.Index(rest, name)
		if i < 0 {
			return "", false
		}
		before := byte(0)
		if i > 0 {
			before = rest[i-1]
		}
		after := strings.TrimLeft(rest[i+len(name):], " \t\r\n")
		rest = rest[i+len(name):]
		if !strings.ContainsRune(" \t\r\n", rune(before)) || !strings.HasPrefix(after, "=") {
			continue
		}
		after = strings.TrimLeft(after[1:], " \t\r\n")
		if after == "" || after[0] != '"' && after[0] != '\'' {
			return "", false
		}
		value, _, ok := strings.Cut(after[1:], after[:1])
		return html.UnescapeString(value), ok
	}
}

// compareRevisions compares two generations of a repository: negative when a is older,
// 0 when neither can be said to be.
func compareRevisions(a, b *repodata.Repomd) int {
	x, errX := strconv.ParseUint(a.Revision, 10, 64)
	y, errY := strconv.ParseUint(b.Revision, 10, 64)
	if errX != nil || errY != nil {
		x, y = newest(a), newest(b)
	}
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

func newest(m *repodata.Repomd) uint64 {
	var t int64
	for _, d := range m.Data {
		t = max(t, d.Timestamp)
	}
	return uint64(t)
}

// parseRepomd returns nil for what is no repomd.xml.
func parseRepomd(b []byte) *repodata.Repomd {
	md, err := repodata.ReadRepomd(bytes.NewReader(b))
	if err != nil {
		return nil
	}
	return md
}

// escapePath is a path as it stands in a URL.
func escapePath(name string) string { return (&url.URL{Path: name}).EscapedPath() }
