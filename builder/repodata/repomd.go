package repodata

import (
	"bytes"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Dir is where metadata is in a repository, and Name is the file that names the
// others.
const (
	Dir  = "repodata"
	Name = "repomd.xml"
)

// What a repomd.xml may hold. Those of distributions have some 20 kB and 20
// entries.
const (
	MaxRepomd  = 1 << 20 // bytes
	maxEntries = 256
	maxDepth   = 8
	maxValue   = 4096 // bytes of one text
)

// A Repomd is the content of a repomd.xml: a generation of a repository.
type Repomd struct {
	// Revision grows with each generation. It is a number nearly everywhere, and
	// text for who asks createrepo_c for it.
	Revision string

	Data []Data
}

// A Data entry names one file of metadata.
type Data struct {
	Type string // "primary", "filelists", "other", "group", "modules", "updateinfo", …

	// Checksum is of the file as it lies there, Open of what is in it when it is
	// compressed; otherwise Open is the zero Checksum.
	Checksum, Open Checksum

	// Location is relative to the repository and stays inside of it.
	Location string

	// Timestamp is in seconds since 1970.
	Timestamp int64

	// Size and OpenSize are in bytes; negative when the file does not say.
	Size, OpenSize int64
}

// A Checksum is the name of an algorithm and lower-case hexadecimal digits.
type Checksum struct {
	Type, Value string
}

// sumBytes are the algorithms that clients know, and the length of their results.
// "sha" is what yum called sha1.
var sumBytes = map[string]int{"md5": 16, "sha": 20, "sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64}

// CheckRevision tells whether s can be a revision: text on one line.
func CheckRevision(s string) error { return checkText("revision", s) }

// Lookup returns the entry of a type, and nil when there is none.
func (m *Repomd) Lookup(typ string) *Data {
	for i := range m.Data {
		if m.Data[i].Type == typ {
			return &m.Data[i]
		}
	}
	return nil
}

// xmlRepomd and xmlData are the form of the file. What is not here is ignored.
type xmlRepomd struct {
	XMLName  xml.Name  `xml:"repomd"`
	Revision string    `xml:"revision"`
	Data     []xmlData `xml:"data"`
}

type xmlData struct {
	Type      string      `xml:"type,attr"`
	Checksum  xmlChecksum `xml:"checksum"`
	Open      xmlChecksum `xml:"open-checksum"`
	Location  xmlLocation `xml:"location"`
	Timestamp string      `xml:"timestamp"`
	Size      string      `xml:"size"`
	OpenSize  string      `xml:"open-size"`
}

type xmlChecksum struct {
	Type  string `xml:"type,attr"`
	Value string `xml:",chardata"`
}

type xmlLocation struct {
	Href string `xml:"href,attr"`
	Base string `xml:"base,attr"`
}

// ReadRepomd reads a repomd.xml from a stranger: at most MaxRepomd bytes, no
// entities, no nesting. Each entry must have a type of its own, a location inside
// the repository and a checksum, because a client that finds none checks nothing.
func ReadRepomd(r io.Reader) (*Repomd, error) {
	m, err := readRepomd(r)
	if err != nil {
		return nil, fmt.Errorf("repomd.xml: %w", err)
	}
	return m, nil
}

func readRepomd(r io.Reader) (*Repomd, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxRepomd+1))
	if err != nil {
		return nil, err
	}
	if len(text) > MaxRepomd {
		return nil, fmt.Errorf("longer than %d bytes", MaxRepomd)
	}
	if err := checkForm(text); err != nil {
		return nil, err
	}
	var doc xmlRepomd
	if err := xml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	m := &Repomd{Revision: strings.TrimSpace(doc.Revision)}
	if err := checkText("revision", m.Revision); err != nil {
		return nil, err
	}
	if len(doc.Data) == 0 {
		return nil, errors.New("names no metadata")
	}
	for i := range doc.Data {
		d, err := doc.Data[i].data()
		if err != nil {
			return nil, fmt.Errorf("data %q: %w", shorten(doc.Data[i].Type), err)
		}
		if m.Lookup(d.Type) != nil {
			return nil, fmt.Errorf("data %q is there twice", d.Type)
		}
		m.Data = append(m.Data, d)
	}
	return m, nil
}

// checkForm refuses what is well-formed and no repomd.xml, before anything is
// allocated for it.
func checkForm(text []byte) error {
	dec := xml.NewDecoder(bytes.NewReader(text))
	depth, entries, roots := 0, 0, 0
	for {
		tok, err := dec.RawToken()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			depth++
			if depth == 1 {
				roots++
			}
			if tok.Name.Local == "data" {
				entries++
			}
			switch {
			case roots > 1:
				return errors.New("has something after its root element")
			case depth > maxDepth:
				return fmt.Errorf("is nested deeper than %d elements", maxDepth)
			case entries > maxEntries:
				return fmt.Errorf("has more than %d entries", maxEntries)
			}
		case xml.EndElement:
			depth--
		case xml.Directive:
			return errors.New("has a document type, which no repomd.xml needs")
		case xml.CharData:
			if depth == 0 && len(bytes.TrimSpace(tok)) > 0 {
				return errors.New("has text outside of its root element")
			}
		}
	}
	if roots == 0 {
		return errors.New("is not XML")
	}
	return nil
}

func (x *xmlData) data() (d Data, err error) {
	d.Type = x.Type
	if d.Type == "" {
		return d, errors.New("has no type")
	}
	if err := checkText("type", d.Type); err != nil {
		return d, err
	}
	if x.Location.Base != "" {
		return d, fmt.Errorf("is on another server, %q; metadata belongs beside repomd.xml", shorten(x.Location.Base))
	}
	d.Location = x.Location.Href
	if err := checkLocation(d.Location); err != nil {
		return d, err
	}
	if d.Checksum, err = x.Checksum.checksum(); err != nil {
		return d, fmt.Errorf("checksum: %w", err)
	}
	if x.Open != (xmlChecksum{}) {
		if d.Open, err = x.Open.checksum(); err != nil {
			return d, fmt.Errorf("open-checksum: %w", err)
		}
	}
	// yum wrote the time with a fraction.
	seconds, _, _ := strings.Cut(strings.TrimSpace(x.Timestamp), ".")
	if seconds != "" {
		if d.Timestamp, err = strconv.ParseInt(seconds, 10, 64); err != nil {
			return d, fmt.Errorf("timestamp %q is not a number", shorten(x.Timestamp))
		}
	}
	if d.Size, err = size(x.Size); err != nil {
		return d, fmt.Errorf("size: %w", err)
	}
	if d.OpenSize, err = size(x.OpenSize); err != nil {
		return d, fmt.Errorf("open-size: %w", err)
	}
	return d, nil
}

func (x xmlChecksum) checksum() (Checksum, error) {
	c := Checksum{Type: strings.ToLower(strings.TrimSpace(x.Type)), Value: strings.ToLower(strings.TrimSpace(x.Value))}
	want, ok := sumBytes[c.Type]
	if !ok {
		return c, fmt.Errorf("%q is no algorithm that clients know", shorten(x.Type))
	}
	if b, err := hex.DecodeString(c.Value); err != nil || len(b) != want {
		return c, fmt.Errorf("%q is not %d hexadecimal digits", shorten(c.Value), 2*want)
	}
	return c, nil
}

func size(s string) (int64, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no number of bytes", shorten(s))
	}
	return n, nil
}

// checkLocation refuses what could lead out of the repository, on a disk or on a
// server.
func checkLocation(s string) error {
	switch {
	case s == "":
		return errors.New("has no location")
	case checkText("location", s) != nil:
		return checkText("location", s)
	case path.IsAbs(s), strings.ContainsAny(s, `\?#%:`):
		return fmt.Errorf("location %q is not a plain relative path", shorten(s))
	case path.Clean(s) != s, s == ".", s == "..", strings.HasPrefix(s, "../"):
		return fmt.Errorf("location %q does not stay inside the repository", shorten(s))
	}
	return nil
}

func checkText(what, s string) error {
	if len(s) > maxValue {
		return fmt.Errorf("%s of %d bytes; %d are enough", what, len(s), maxValue)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s is not UTF-8", what)
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return fmt.Errorf("%s has the control character %U", what, c)
		}
	}
	return nil
}

// shorten keeps the words of strangers to what fits a line of a log.
func shorten(s string) string {
	const enough = 80
	if len(s) > enough {
		return s[:enough] + "…"
	}
	return s
}

// Marshal returns the file, as createrepo_c writes it.
func (m *Repomd) Marshal() []byte {
	var b []byte
	b = append(b, xmlDeclaration...)
	b = append(b, `<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">`+"\n"...)
	b = textLine(b, "  ", "revision", m.Revision)
	for i := range m.Data {
		d := &m.Data[i]
		b = append(b, `  <data type="`...)
		b, _ = appendAttr(b, []byte(d.Type), false)
		b = append(b, "\">\n"...)
		b = sumLine(b, "checksum", d.Checksum)
		if d.Open != (Checksum{}) {
			b = sumLine(b, "open-checksum", d.Open)
		}
		b = append(b, `    <location href="`...)
		b, _ = appendAttr(b, []byte(d.Location), false)
		b = append(b, "\"/>\n"...)
		b = textLine(b, "    ", "timestamp", strconv.FormatInt(d.Timestamp, 10))
		if d.Size >= 0 {
			b = textLine(b, "    ", "size", strconv.FormatInt(d.Size, 10))
		}
		if d.OpenSize >= 0 {
			b = textLine(b, "    ", "open-size", strconv.FormatInt(d.OpenSize, 10))
		}
		b = append(b, "  </data>\n"...)
	}
	return append(b, "</repomd>\n"...)
}

func textLine(b []byte, indent, name, text string) []byte {
	b = append(append(append(append(b, indent...), '<'), name...), '>')
	b, _ = appendText(b, []byte(text), false)
	return append(append(append(b, "</"...), name...), ">\n"...)
}

func sumLine(b []byte, name string, c Checksum) []byte {
	b = append(append(append(append(b, "    <"...), name...), ` type="`...), c.Type...)
	b = append(append(append(b, `">`...), c.Value...), "</"...)
	return append(append(b, name...), ">\n"...)
}
