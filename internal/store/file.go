package store

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// In a directory a record is one JSON object: its time, its writer, its fields,
// and an object of fields for each group. It is written with one field a line,
// for people and grep, and read however it is laid out.
const (
	fieldTaken  = "taken"
	fieldWriter = "writer"
)

// fileWriter is the member "writer" of the object.
type fileWriter struct {
	stamp
	PID int `json:"pid,omitempty"`

	// Pending are the log entries of the last step. The file and the logs cannot
	// change at once, so the entries are here first.
	Pending []LogEntry `json:"pending,omitempty"`
}

// encode writes the record in the form of a file.
func (r *Record) encode(out io.Writer, pid int) error {
	w := bufio.NewWriter(out)
	head, err := json.Marshal(fileWriter{r.stamp, pid, r.pending})
	if err != nil {
		return err
	}
	taken, err := r.Taken.UTC().MarshalJSON()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "{\"%s\":%s,\n\"%s\":%s", fieldTaken, taken, fieldWriter, head)
	open := ""
	for _, name := range slices.SortedFunc(maps.Keys(r.Fields), byGroup) {
		group, field, grouped := strings.Cut(name, "/")
		if !grouped {
			group, field = "", name
		}
		sep := ",\n"
		if group != open {
			if open != "" {
				w.WriteString("\n}")
			}
			if open = group; group != "" {
				w.WriteString(",\n")
				writeName(w, group)
				w.WriteString("{")
				sep = "\n"
			}
		}
		w.WriteString(sep)
		writeName(w, field)
		w.WriteString(r.Fields[name])
	}
	if open != "" {
		w.WriteString("\n}")
	}
	w.WriteString("\n}\n")
	return w.Flush()
}

// byGroup orders fields: those without a group come first, and the others
// together.
func byGroup(a, b string) int {
	ga, fa, groupedA := strings.Cut(a, "/")
	gb, fb, groupedB := strings.Cut(b, "/")
	switch {
	case !groupedA && !groupedB:
		return strings.Compare(a, b)
	case !groupedA:
		return -1
	case !groupedB:
		return 1
	}
	if c := strings.Compare(ga, gb); c != 0 {
		return c
	}
	return strings.Compare(fa, fb)
}

func writeName(w *bufio.Writer, name string) {
	quoted, _ := json.Marshal(name) // a string always can be
	w.Write(quoted)
	w.WriteString(":")
}

// decode reads a record from the text of a file. The values of fields are parts
// of text, and are not looked into: they may be no JSON. Have, if not nil, makes
// it fast: a field that is as it was there is skipped at once.
func decode(text string, have *Record) (*Record, error) {
	p := &parser{text: text, rec: &Record{Fields: make(map[string]string)}, have: &Record{}}
	if have != nil {
		p.have = have
		p.rec.Fields = make(map[string]string, len(have.Fields))
	}
	if !p.object(p.member) || p.space() != 0 {
		// The standard library says what is wrong, and where.
		var any map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &any); err != nil {
			return nil, err
		}
		return nil, errors.New("not a JSON object")
	}
	for _, name := range []string{fieldTaken, fieldWriter} {
		value, ok := p.rec.Fields[name]
		if !ok {
			continue
		}
		delete(p.rec.Fields, name)
		var err error
		if name == fieldTaken {
			err = json.Unmarshal([]byte(value), &p.rec.Taken)
		} else {
			var head fileWriter
			err = json.Unmarshal([]byte(value), &head)
			p.rec.stamp, p.rec.pending = head.stamp, head.Pending
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if p.rec.Taken.Equal(time.Time{}) {
		return nil, errors.New("it does not say when it was taken")
	}
	return p.rec, nil
}

// Members calls f for each member of a JSON object, in order, with the text of its
// value, until f fails. It looks into values no further than to find their end:
// they may be no JSON.
func Members(object string, f func(name, value string) error) error {
	p := &parser{text: object}
	var err error
	ok := p.object(func(name string) bool {
		value, ok := p.value()
		if ok {
			err = f(name, value)
		}
		return ok && err == nil
	})
	if err == nil && (!ok || p.space() != 0) {
		err = errors.New("not a JSON object")
	}
	return err
}

// Unquote returns what a JSON string says, and whether it is one. Only one that
// has escapes costs an allocation.
func Unquote(quoted string) (string, bool) {
	if len(quoted) < 2 || quoted[0] != '"' {
		return "", false
	}
	if strings.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1], true
	}
	return unescape(quoted)
}

// unescape is apart so that the result of Unquote need not be on the heap.
func unescape(quoted string) (string, bool) {
	var s string
	err := json.Unmarshal([]byte(quoted), &s)
	return s, err == nil
}

// A parser finds where the fields of a file begin and end.
type parser struct {
	text  string
	at    int
	group string // that the member is in, with its slash
	rec   *Record
	have  *Record
}

// space skips white space and returns the byte after it, 0 at the end.
func (p *parser) space() byte {
	for p.at < len(p.text) {
		switch c := p.text[p.at]; c {
		case ' ', '\t', '\r', '\n':
			p.at++
		default:
			return c
		}
	}
	return 0
}

// object reads an object, whose members are read by member.
func (p *parser) object(member func(name string) bool) bool {
	if p.space() != '{' {
		return false
	}
	p.at++
	if p.space() == '}' {
		p.at++
		return true
	}
	for {
		if p.space() != '"' {
			return false
		}
		quoted, ok := p.value()
		if !ok || p.space() != ':' {
			return false
		}
		p.at++
		name, ok := Unquote(quoted)
		if !ok || p.space() == 0 || !member(name) {
			return false
		}
		switch p.space() {
		case ',':
			p.at++
		case '}':
			p.at++
			return true
		default:
			return false
		}
	}
}

// member reads a member of the whole: a field, or a group of them.
func (p *parser) member(name string) bool {
	if p.text[p.at] != '{' || name == fieldWriter {
		return p.field(name)
	}
	p.group = name + "/"
	ok := p.object(p.field)
	p.group = ""
	return ok
}

func (p *parser) field(name string) bool {
	name = p.group + name
	// A value that begins with a bracket or a quote ends where that is closed:
	// what begins with the old value is the old value.
	if old := p.have.Fields[name]; old != "" && strings.IndexByte(`{["`, old[0]) >= 0 && strings.HasPrefix(p.text[p.at:], old) {
		p.rec.Fields[name] = p.text[p.at : p.at+len(old)]
		p.at += len(old)
		return true
	}
	value, ok := p.value()
	p.rec.Fields[name] = value
	return ok
}

// value skips a value and returns it.
func (p *parser) value() (string, bool) {
	begin, depth := p.at, 0
	if strings.IndexByte(",:}]", p.text[begin]) >= 0 {
		return "", false
	}
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case '"':
			if !p.quoted() {
				return "", false
			}
		case '{', '[':
			p.at++
			depth++
			continue
		case '}', ']':
			p.at++
			depth--
		case ',', ':', ' ', '\t', '\r', '\n':
			p.at++
			continue
		default: // a number or a word
			for p.at < len(p.text) && strings.IndexByte(",:{}[]\" \t\r\n", p.text[p.at]) < 0 {
				p.at++
			}
		}
		if depth <= 0 {
			return p.text[begin:p.at], depth == 0 && p.at > begin
		}
	}
	return "", false
}

// quoted skips a string.
func (p *parser) quoted() bool {
	begin := p.at + 1
	for end := begin; ; end++ {
		i := strings.IndexByte(p.text[end:], '"')
		if i < 0 {
			return false
		}
		end += i
		// It is the end unless an odd number of backslashes is before it.
		escapes := 0
		for end-escapes > begin && p.text[end-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			p.at = end + 1
			return true
		}
	}
}
