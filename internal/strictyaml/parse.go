package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Limits on the shape of a document. Real files are five levels deep and hold a
// few hundred values; an alias counts as often as it is used, so that a small
// text cannot stand for a large document.
const (
	maxDepth = 40
	maxNodes = 200_000
)

// A Fault is one mistake in the text of a document.
type Fault struct {
	Line         int // 1 is the first; 0 when the fault has no place
	Text, Remedy string

	// Effect is what Parse made of it, to be read behind "and is": "read as
	// Latin-1". Unmarshal, which refuses, leaves it out.
	Effect string

	// Repaired: the document was read regardless and nothing is lost.
	Repaired bool
}

var emptyFault = Fault{Text: "the file is empty", Remedy: "write at least its required keys"}

func isEmpty(faults []Fault) bool { return len(faults) == 1 && faults[0] == emptyFault }

// Parse reads the first document in data. Its root is a mapping in which no key
// is repeated, no key is anything but a scalar, and aliases and merge keys are
// replaced by what they stand for. The root is nil when there is none; then the
// last fault says why. With a root, faults hold what was repaired (bytes that
// are not UTF-8 are read as Latin-1) and what was left out (further documents).
func Parse(data []byte) (root *yaml.Node, faults []Fault) {
	if len(data) > MaxSize {
		return nil, []Fault{{Text: "the file is " + ErrTooLarge.Error(), Remedy: "make it smaller"}}
	}
	if bytes.HasPrefix(data, []byte{0xfe, 0xff}) || bytes.HasPrefix(data, []byte{0xff, 0xfe}) {
		return nil, []Fault{{Line: 1, Text: "the file is UTF-16", Remedy: "save it as UTF-8"}}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !utf8.Valid(data) {
		var line int
		data, line = fromLatin1(data)
		faults = append(faults, Fault{Line: line, Text: "a letter here is not UTF-8", Effect: "read as Latin-1", Remedy: "save the file as UTF-8", Repaired: true})
	}

	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	err := dec.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF):
		return nil, append(faults, emptyFault)
	case err != nil:
		return nil, append(faults, syntaxFault(data, err))
	}
	root = doc.Content[0]
	if root.ShortTag() == "!!null" {
		return nil, append(faults, emptyFault)
	}
	e := expander{}
	e.expand(root, 0)
	if len(e.faults) > 0 {
		return nil, append(faults, e.faults...)
	}
	if root = deref(root); root.Kind != yaml.MappingNode {
		return nil, append(faults, Fault{Line: root.Line, Text: "the file is not a list of keys", Remedy: `write "key: value" lines`})
	}

	var next yaml.Node
	switch err := dec.Decode(&next); {
	case errors.Is(err, io.EOF):
	case err != nil:
		f := syntaxFault(data, err)
		f.Text = "after the end of the document: " + f.Text
		faults = append(faults, f)
	case next.Content[0].ShortTag() == "!!null":
		faults = append(faults, Fault{Line: next.Content[0].Line, Text: "a second, empty document begins here", Remedy: "remove the line ---", Repaired: true})
	default:
		faults = append(faults, Fault{Line: next.Content[0].Line, Text: "a second document begins here", Effect: "left out", Remedy: "put it into a file of its own"})
	}
	return root, faults
}

// fromLatin1 replaces each byte that is not part of a UTF-8 sequence by the
// Latin-1 letter it stands for, and returns the line of the first one.
func fromLatin1(data []byte) ([]byte, int) {
	out := make([]byte, 0, len(data)+len(data)/8)
	line, first := 1, 0
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		switch {
		case r == '\n':
			line++
		case r == utf8.RuneError && n == 1:
			if first == 0 {
				first = line
			}
			// 0x80 to 0x9f are control characters in Latin-1, which no document
			// may hold.
			if r = rune(data[0]); r < 0xa0 {
				r = utf8.RuneError
			}
		}
		out = utf8.AppendRune(out, r)
		data = data[n:]
	}
	return out, first
}

// syntaxFault says what yaml.v3 says about a text that is no YAML.
func syntaxFault(data []byte, err error) Fault {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	f := Fault{Text: text, Remedy: "check the indentation and the quotes of this line and the one before"}
	if m := atLine.FindStringSubmatch(text); m != nil {
		f.Line, _ = strconv.Atoi(m[1])
		f.Text = text[len(m[0]):]
	}
	// The parser stumbles behind a tab, over what it made of it; so look for it.
	if line := tabLine(data); line > 0 && (f.Line == 0 || line <= f.Line+1) {
		return Fault{Line: line, Text: "a tab indents this line", Remedy: "write spaces"}
	}
	switch {
	case strings.Contains(f.Text, "mapping values are not allowed"):
		f.Text, f.Remedy = "a second colon in one line, or a line indented too far", "put quotes around the value, or align the line with the one before"
	case strings.Contains(f.Text, "could not find expected ':'"), strings.Contains(f.Text, "did not find expected key"):
		f.Text, f.Remedy = "this line or the one before is no \"key: value\"", "write a colon and a space behind the key, and align the keys"
	case strings.HasPrefix(f.Text, "unknown anchor"):
		f.Text, f.Remedy = "a value begins with *, which names an anchor that is not there", "put quotes around the value"
	case strings.Contains(f.Text, "cannot start any token"):
		f.Text, f.Remedy = "a value begins with a character that means something in YAML", "put quotes around the value"
	default:
		f.Text = clip(f.Text, 200) // it may quote the file
	}
	return f
}

// tabLine returns the first line that is indented with a tab, or 0.
func tabLine(data []byte) int {
	n := 0
	for line := range bytes.Lines(data) {
		n++
		indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
		if bytes.IndexByte(indent, '\t') >= 0 && len(bytes.TrimSpace(line)) > 0 {
			return n
		}
	}
	return 0
}

// deref returns what an alias stands for.
func deref(n *yaml.Node) *yaml.Node {
	for range maxDepth {
		if n.Kind != yaml.AliasNode {
			break
		}
		n = n.Alias
	}
	return n
}

// expander replaces aliases and merge keys by what they stand for, and counts.
type expander struct {
	nodes  int
	faults []Fault
}

// maxFaults is how many mistakes of a document are worth saying.
const maxFaults = 20

func (e *expander) fail(line int, text, remedy string) {
	if len(e.faults) < maxFaults {
		e.faults = append(e.faults, Fault{Line: line, Text: text, Remedy: remedy})
	}
}

// expand returns false once the document has grown past its limits.
func (e *expander) expand(n *yaml.Node, depth int) bool {
	e.nodes++
	switch {
	case depth > maxDepth:
		e.fail(n.Line, fmt.Sprintf("nested more than %d deep", maxDepth), "write less deeply")
		return false
	case e.nodes > maxNodes:
		e.fail(n.Line, fmt.Sprintf("more than %d values, aliases counted as often as they are used", maxNodes), "write fewer")
		return false
	}
	for i, c := range n.Content {
		n.Content[i] = deref(c)
		if !e.expand(n.Content[i], depth+1) {
			return false
		}
	}
	if n.Kind == yaml.MappingNode {
		e.mapping(n)
	}
	return true
}

// mapping checks the keys of n and dissolves its merge keys. What it merges was
// expanded and counted before, as a value of n.
func (e *expander) mapping(n *yaml.Node) {
	lines := make(map[string]int, len(n.Content)/2)
	var merged []*yaml.Node
	own := n.Content[:0:0]
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			e.fail(k.Line, "a list or a group of keys stands where a key belongs", "write a word before the colon")
			continue
		}
		if k.ShortTag() == "!!merge" {
			if v.Kind == yaml.SequenceNode {
				merged = append(merged, v.Content...)
			} else {
				merged = append(merged, v)
			}
			continue
		}
		if first, ok := lines[k.Value]; ok {
			e.fail(k.Line, fmt.Sprintf("the key %q is repeated; it stands in line %d already", Clip(k.Value), first), "remove one of the two")
			continue
		}
		lines[k.Value] = k.Line
		own = append(own, k, v)
	}
	if len(own) == len(n.Content) {
		return
	}
	for _, m := range merged {
		if m.Kind != yaml.MappingNode {
			e.fail(m.Line, "<< names something that is not a group of keys", "name the anchor of a group of keys")
			continue
		}
		for i := 0; i+1 < len(m.Content); i += 2 {
			if k := m.Content[i]; lines[k.Value] == 0 {
				lines[k.Value] = k.Line
				own = append(own, k, m.Content[i+1])
			}
		}
	}
	n.Content = own
}

// Clip shortens s for a message.
func Clip(s string) string { return clip(s, 60) }

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// Nearest returns the one of known that word was probably meant to be: the same
// but for capitals and separators, or a few typing mistakes away.
func Nearest(word string, known []string) (string, bool) {
	if len(word) > 60 {
		return "", false
	}
	best, bestAt := "", 1+min(3, len(word)/3)
	for _, k := range known {
		d := distance(Fold(word), Fold(k))
		// A long common beginning says that only the end went wrong:
		// address_options for address_optional.
		if p := commonPrefix(word, k); p >= 6 && p*3 >= max(len(word), len(k))*2 {
			d = min(d, 2)
		}
		if d < bestAt {
			best, bestAt = k, d
		}
	}
	return best, best != ""
}

// Fold returns a key in the form that differs from others in more than capitals
// and separators: "State-Province" is "state_province".
func Fold(key string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' {
			return '_'
		}
		return r
	}, strings.ToLower(strings.TrimSpace(key)))
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// distance is the number of letters to insert, remove, replace or exchange with
// the next one (optimal string alignment).
func distance(a, b string) int {
	before, row, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			replace := row[j]
			if a[i] != b[j] {
				replace++
			}
			next[j+1] = min(replace, next[j]+1, row[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}
