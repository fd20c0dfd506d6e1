package syncer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/zeebo/xxh3"
)

// A Type is what a name in a tree is, as a letter.
type Type byte

// The types. Nothing else may be in a tree that is published.
const (
	File Type = 'f'
	Dir  Type = 'd'
	Link Type = 'l' // symbolic
)

// An Entry is one name in a tree.
type Entry struct {
	Path string // relative to the tree, with slashes
	Type Type

	Size    int64     // of a file, in bytes
	ModTime time.Time // of a file

	// Hashed says that XXH3, of the content of a file, is known.
	Hashed bool
	XXH3   uint64

	// SHA256 is of files in repodata, in hexadecimal; else "".
	SHA256 string

	Target string // of a link
}

// same reports whether two entries stand for the same content, as far as both
// know. What only one has hashed is compared by time, to the second, because not
// everything keeps more.
func (e *Entry) same(o *Entry) bool {
	if e.Type != o.Type || e.Size != o.Size || e.Target != o.Target {
		return false
	}
	if e.Type != File {
		return true
	}
	if e.Hashed && o.Hashed {
		return e.XXH3 == o.XXH3
	}
	return e.ModTime.Unix() == o.ModTime.Unix()
}

// A Manifest lists everything in a tree except the markers of its publisher.
type Manifest struct {
	// Time is when the tree began to be read.
	Time time.Time

	// Entries are in the order of their paths, each path once.
	Entries []Entry
}

const (
	manifestMagic = "meridian-manifest 1"

	// maxLine bounds a line of a manifest: two paths of the longest kind, each
	// byte of them escaped.
	maxLine = 1 << 16
)

// Lookup returns the entry of a path, and nil when there is none.
func (m *Manifest) Lookup(name string) *Entry {
	if m == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(m.Entries, name, func(e Entry, name string) int { return strings.Compare(e.Path, name) })
	if !ok {
		return nil
	}
	return &m.Entries[i]
}

// errLeadsOut is wrapped by the error of a link that leads out of the tree.
var errLeadsOut = errors.New("outside the tree")

// resolve follows the links on the way to name, as the kernel would, and at its
// end. Without error the entry is nil where nothing is, and where links go round
// in circles; the top of the tree is a directory.
func (m *Manifest) resolve(name string) (*Entry, error) {
	const maxLinks = 40
	at, links := &Entry{Path: ".", Type: Dir}, 0
	rest := strings.Split(name, "/")
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if at.Type != Dir {
			return nil, nil
		}
		switch part {
		case "", ".":
			continue
		case "..":
			if at.Path == "." {
				return nil, errLeadsOut
			}
			at = &Entry{Path: path.Dir(at.Path), Type: Dir}
			continue
		}
		e := m.Lookup(path.Join(at.Path, part))
		switch {
		case e == nil:
			return nil, nil
		case e.Type != Link:
			at = e
		case path.IsAbs(e.Target):
			return nil, errLeadsOut
		default:
			if links++; links > maxLinks {
				return nil, nil
			}
			rest = append(strings.Split(e.Target, "/"), rest...)
		}
	}
	return at, nil
}

// leadsToDir reports whether a link is a way to other directories.
func (m *Manifest) leadsToDir(name string) bool {
	e, err := m.resolve(name)
	return err == nil && e != nil && e.Type == Dir
}

// Write writes the compact form: one line for each entry, fields between tabs,
// and a last line with the count and a checksum, so that a part of a manifest is
// never taken for a whole one. docs/PUBLISHING.md describes it.
func (m *Manifest) Write(w io.Writer) error {
	h := xxh3.New()
	b := bufio.NewWriterSize(io.MultiWriter(w, h), 1<<16)
	fmt.Fprintf(b, "%s\t%s\n", manifestMagic, stamp(m.Time))
	var line []byte
	for i := range m.Entries {
		line = m.Entries[i].append(line[:0])
		if _, err := b.Write(line); err != nil {
			return err
		}
	}
	if err := b.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "end\t%d\t%016x\n", len(m.Entries), h.Sum64())
	return err
}

func (e *Entry) append(b []byte) []byte {
	b = append(b, byte(e.Type), '\t')
	switch e.Type {
	case File:
		b = strconv.AppendInt(b, e.Size, 10)
		b = appendStamp(append(b, '\t'), e.ModTime)
		if e.Hashed {
			b = append(b, '\t')
			b = hex.AppendEncode(b, binary.BigEndian.AppendUint64(nil, e.XXH3))
			b = append(b, '\t')
		} else {
			b = append(b, "\t-\t"...)
		}
		if e.SHA256 != "" {
			b = append(b, e.SHA256...)
		} else {
			b = append(b, '-')
		}
		b = append(b, '\t')
	case Link:
		b = appendEscaped(b, e.Target)
		b = append(b, '\t')
	}
	return append(appendEscaped(b, e.Path), '\n')
}

func stamp(t time.Time) string { return string(appendStamp(nil, t)) }

func appendStamp(b []byte, t time.Time) []byte {
	b = append(strconv.AppendInt(b, t.Unix(), 10), '.')
	// A one in front keeps the zeros, and is then overwritten by the dot.
	dot := len(b) - 1
	b = strconv.AppendInt(b[:dot], 1e9+int64(t.Nanosecond()), 10)
	b[dot] = '.'
	return b
}

func parseStamp(s string) (time.Time, error) {
	sec, nsec, ok := strings.Cut(s, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil || !ok || len(nsec) != 9 {
		return time.Time{}, fmt.Errorf("%q is not seconds with nine decimals", s)
	}
	ns, err := strconv.ParseUint(nsec, 10, 32)
	t := time.Unix(n, int64(ns)).UTC()
	if err != nil || string(appendStamp(make([]byte, 0, 32), t)) != s {
		return time.Time{}, fmt.Errorf("%q is not seconds with nine decimals", s)
	}
	return t, nil
}

// appendEscaped appends a name with every byte that would end a field, or is no
// text, as \t, \n, \r, \\ or \xHH.
func appendEscaped(b []byte, s string) []byte {
	if isPlain(s) {
		return append(b, s...)
	}
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\\':
			b = append(b, `\\`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < 0x20, r == 0x7f, r == utf8.RuneError && n == 1:
			b = fmt.Appendf(b, `\x%02x`, s[i])
		default:
			b = append(b, s[i:i+n]...)
		}
		i += n
	}
	return b
}

// isPlain reports whether a name is its own escaped form, as nearly all are.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e || s[i] == '\\' {
			return false
		}
	}
	return true
}

// unescape is the inverse of appendEscaped, and refuses every other spelling.
func unescape(s string) (string, error) {
	if isPlain(s) {
		return s, nil
	}
	if !strings.Contains(s, `\`) {
		if string(appendEscaped(nil, s)) != s {
			return "", fmt.Errorf("name %+q has bytes that must be escaped", s)
		}
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b = append(b, s[i])
			continue
		}
		if i++; i == len(s) {
			return "", fmt.Errorf("name %+q ends in the middle of an escape", s)
		}
		switch s[i] {
		case '\\':
			b = append(b, '\\')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'x':
			if len(s) < i+3 {
				return "", fmt.Errorf("name %+q ends in the middle of an escape", s)
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", fmt.Errorf("name %+q has an unknown escape", s)
			}
			b = append(b, byte(n))
			i += 2
		default:
			return "", fmt.Errorf("name %+q has an unknown escape", s)
		}
	}
	if string(appendEscaped(nil, string(b))) != s {
		return "", fmt.Errorf("name %+q is not escaped as a manifest escapes it", s)
	}
	return string(b), nil
}

// inside reports whether name can be in a tree: relative, clean, without "..".
func inside(name string) bool {
	return name != "." && fs.ValidPath(asText(name)) && !strings.ContainsRune(name, 0)
}

// asText replaces what is not UTF-8, which fs.ValidPath refuses and file systems
// do not.
func asText(name string) string { return strings.ToValidUTF8(name, "?") }

// ReadManifest reads what Write wrote, compressed with gzip or not. It refuses
// what Write cannot have written: a manifest that ends early, was changed, or
// names a path outside the tree.
func ReadManifest(r io.Reader) (*Manifest, error) {
	in := bufio.NewReaderSize(r, maxLine)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("manifest: %w", err)
		}
		in = bufio.NewReaderSize(z, maxLine)
	}
	h := xxh3.New()
	m := new(Manifest)
	for n := 1; ; n++ {
		raw, err := in.ReadSlice('\n')
		if err == io.EOF {
			return nil, errors.New("manifest: it ends before its last line; it was cut off")
		}
		if err != nil {
			return nil, fmt.Errorf("manifest: line %d: %w", n, err)
		}
		line := string(raw[:len(raw)-1])
		if n == 1 {
			if m.Time, err = parseHead(line); err != nil {
				return nil, fmt.Errorf("manifest: %w", err)
			}
		} else if tail, ok := strings.CutPrefix(line, "end\t"); ok {
			if want := fmt.Sprintf("%d\t%016x", len(m.Entries), h.Sum64()); tail != want {
				return nil, errors.New("manifest: its checksum is that of other content; it was changed")
			}
			if _, err := in.ReadByte(); err != io.EOF {
				return nil, errors.New("manifest: something follows its last line")
			}
			return m, nil
		} else if err := m.parseLine(line); err != nil {
			return nil, fmt.Errorf("manifest: line %d: %w", n, err)
		}
		h.Write(raw)
	}
}

func parseHead(line string) (time.Time, error) {
	when, ok := strings.CutPrefix(line, manifestMagic+"\t")
	if !ok {
		return time.Time{}, fmt.Errorf("it does not begin with %q", manifestMagic)
	}
	return parseStamp(when)
}

func (m *Manifest) parseLine(line string) error {
	f := strings.Split(line, "\t")
	e := Entry{Type: File}
	var err error
	switch {
	case f[0] == "f" && len(f) == 6:
		if e.Size, err = strconv.ParseInt(f[1], 10, 64); err != nil || e.Size < 0 || strconv.FormatInt(e.Size, 10) != f[1] {
			return fmt.Errorf("%q is not a size", f[1])
		}
		if e.ModTime, err = parseStamp(f[2]); err != nil {
			return err
		}
		if f[3] != "-" {
			e.Hashed = true
			if e.XXH3, err = strconv.ParseUint(f[3], 16, 64); err != nil || !isHex(f[3], 16) {
				return fmt.Errorf("%q is not an xxh3", f[3])
			}
		}
		if f[4] != "-" {
			if !isHex(f[4], 64) {
				return fmt.Errorf("%q is not a sha256", f[4])
			}
			e.SHA256 = f[4]
		}
	case f[0] == "d" && len(f) == 2:
		e.Type = Dir
	case f[0] == "l" && len(f) == 3:
		e.Type = Link
		if e.Target, err = unescape(f[1]); err != nil {
			return err
		}
	default:
		return fmt.Errorf("a line of %d fields of type %+q", len(f), f[0])
	}
	if e.Path, err = unescape(f[len(f)-1]); err != nil {
		return err
	}
	if !inside(e.Path) {
		return fmt.Errorf("%+q is not a path inside a tree", e.Path)
	}
	if n := len(m.Entries); n > 0 && m.Entries[n-1].Path >= e.Path {
		return fmt.Errorf("%+q is out of order", e.Path)
	}
	m.Entries = append(m.Entries, e)
	return nil
}

func isHex(s string, n int) bool {
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return len(s) == n
}

// WriteTimeList writes the list in the form of Fedora's fullfiletimelist, which
// quick-fedora-mirror reads. It cannot hold a name with a tab or a newline: such
// names are the error, and nothing is written.
func (m *Manifest) WriteTimeList(w io.Writer) error {
	var bad []string
	for _, e := range m.Entries {
		if strings.ContainsAny(e.Path, "\t\n\r") {
			bad = append(bad, fmt.Sprintf("%+q", e.Path))
		}
	}
	if err := problems("names that a fullfiletimelist cannot hold; rename them", bad); err != nil {
		return err
	}
	b := bufio.NewWriterSize(w, 1<<16)
	b.WriteString("[Version]\n2\n\n[Files]\n")
	var line []byte
	for _, e := range m.Entries {
		var sec int64
		if e.Type == File {
			sec = e.ModTime.Unix()
		}
		line = append(strconv.AppendInt(line[:0], sec, 10), '\t', byte(e.Type), '\t')
		line = append(strconv.AppendInt(line, e.Size, 10), '\t')
		b.Write(append(append(line, e.Path...), '\n'))
	}
	b.WriteString("\n[Checksums SHA1]\n\n[Checksums SHA256]\n")
	for _, e := range m.Entries {
		if e.SHA256 != "" {
			fmt.Fprintf(b, "%s\t%s\n", e.SHA256, e.Path)
		}
	}
	b.WriteString("\n[End]\n")
	return b.Flush()
}

// adopt takes over from an earlier manifest what is known of files that have not
// changed since. Rsync lists times to the second, which is enough for files that
// keep their content with their name, and not for others.
func (m *Manifest) adopt(earlier *Manifest) {
	for i := range m.Entries {
		e := &m.Entries[i]
		old := earlier.Lookup(e.Path)
		if old != nil && old.same(e) && (e.Type != File || fixed(e.Path) || old.ModTime.Equal(e.ModTime)) {
			*e = *old
		}
	}
}

// zipped is the compact form, compressed, and the checksum by which a state
// file knows it.
func (m *Manifest) zipped() ([]byte, error) {
	var b bytes.Buffer
	// Most of it are checksums, which do not get smaller by more effort.
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if err := m.Write(z); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// LoadManifest reads the manifest in a file. Without the file the error is
// fs.ErrNotExist.
func LoadManifest(file string) (*Manifest, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := ReadManifest(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}

// repository is the directory of the repository whose metadata name is part of,
// or "" for none. The top of a tree is ".".
func repository(name string) string {
	dir := path.Dir(name)
	if path.Base(dir) != repodataDir {
		return ""
	}
	return path.Dir(dir)
}
