package stats

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A part names what one document is about: what one node counted for one table in
// one period.
type part struct {
	table *Table
	start Day // of the period
	node  string
}

// name is that of the document: NODE/TABLE-DAY.
func (p part) name() string { return p.node + "/" + p.table.Name + "-" + p.start.String() }

// parsePart reads the name of a document, and reports whether it is one.
func parsePart(name string) (p part, ok bool) {
	node, rest, ok := strings.Cut(name, "/")
	if !ok || !ValidNode(node) {
		return p, false
	}
	table, day, ok := strings.Cut(rest, "-")
	if !ok {
		return p, false
	}
	p.node, p.table = node, TableNamed(table)
	if p.table == nil || p.start.UnmarshalText([]byte(day)) != nil {
		return p, false
	}
	return p, p.start == p.table.period(p.start) && p.name() == name
}

// ValidNode tells whether a node may have that name, which is one of a file too.
func ValidNode(name string) bool {
	if name == "" || len(name) > 100 || name[0] == '.' {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == ""
}

// A document is what is written of a part. It has a total, and of that the cells
// that are large enough.
type document struct {
	part

	// mark names the last change, so that who is not told whether it was made can
	// find out.
	mark  string
	total Value
	cells map[cell]Value
}

// format is the number of what encode writes. Fields may be added to it; a change
// of what one means needs another number, and readers of both.
const format = 1

// maxDocument bounds what is read, in bytes: 400,000 cells.
const maxDocument = 32 << 20

// header is a document without its cells.
type header struct {
	Format  int      `json:"format"`
	Table   string   `json:"table"`
	Period  Day      `json:"period"`
	Node    string   `json:"node"`
	Mark    string   `json:"mark"`
	Columns []string `json:"columns"`
	Total   Value    `json:"total"`
}

// cellsFollow ends the first line of a document.
const cellsFollow = `,"cells":[` + "\n"

// encode writes a document: JSON, one cell a line, so that people can compare two
// editions.
func (d *document) encode() ([]byte, error) {
	head, err := json.Marshal(header{format, d.table.Name, d.start, d.node, d.mark, d.table.Columns, d.total})
	if err != nil {
		return nil, err
	}
	b := append(bytes.TrimSuffix(head, []byte("}")), cellsFollow...)
	columns := len(d.table.Columns)
	for i, c := range sortedCells(d.cells) {
		if i > 0 {
			b = append(b, ",\n"...)
		}
		v := d.cells[c]
		row := make([]any, 0, columns+2)
		for _, label := range c[:columns] {
			row = append(row, label)
		}
		row = append(row, v.Count)
		if v.Bytes != 0 {
			row = append(row, v.Bytes)
		}
		line, err := json.Marshal(row)
		if err != nil {
			return nil, err
		}
		b = append(b, line...)
	}
	if len(d.cells) > 0 {
		b = append(b, '\n')
	}
	return append(b, "]}\n"...), nil
}

func sortedCells(m map[cell]Value) []cell {
	out := make([]cell, 0, len(m))
	for c := range m {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b cell) int { return slices.Compare(a[:], b[:]) })
	return out
}

// decode reads the document of a part.
func decode(p part, data []byte) (*document, error) {
	d := &document{part: p, cells: map[cell]Value{}}
	head, err := scan(p, data, func(c cell, v Value) {
		old := d.cells[c]
		old.add(v)
		d.cells[c] = old
	})
	if err != nil {
		return nil, err
	}
	d.mark, d.total = head.Mark, head.Total
	return d, nil
}

// scan reads the document of a part cell by cell; a cell may come twice. What an
// earlier or later release wrote has other columns, perhaps: those that this one
// does not have make no difference, those that it lacks are Other.
func scan(p part, data []byte, each func(cell, Value)) (head header, err error) {
	if len(data) > maxDocument {
		return head, fmt.Errorf("%d bytes are more than a document has (%d)", len(data), maxDocument)
	}
	first, rest, ok := bytes.Cut(data, []byte(cellsFollow))
	if !ok {
		return head, errors.New("it is not whole")
	}
	if err := json.Unmarshal(append(slices.Clip(first), '}'), &head); err != nil {
		return head, err
	}
	switch {
	case head.Format != format:
		return head, fmt.Errorf("format %d is not that of this release, %d", head.Format, format)
	case head.Table != p.table.Name || head.Period != p.start:
		return head, fmt.Errorf("it is of %s-%s", head.Table, head.Period)
	}
	columns := make([]int, len(head.Columns))
	for i, name := range head.Columns {
		columns[i] = p.table.column(name)
	}
	s := scanner{known: map[string]string{}}
	var sum Value
	for n := 2; ; n++ {
		line, more, ok := bytes.Cut(rest, []byte{'\n'})
		if !ok {
			return head, errors.New("it is not whole")
		}
		if rest = more; string(line) == "]}" {
			break
		}
		if err := s.row(bytes.TrimSuffix(line, []byte{','})); err != nil {
			return head, fmt.Errorf("line %d: %w", n, err)
		}
		if len(s.labels) != len(columns) {
			return head, fmt.Errorf("line %d has %d labels; columns are %q", n, len(s.labels), head.Columns)
		}
		c := p.table.all()
		for i, label := range s.labels {
			if columns[i] >= 0 {
				c[columns[i]] = label
			}
		}
		if s.value.Count < Least {
			continue // nobody of ours wrote that
		}
		sum.add(s.value)
		each(c, s.value)
	}
	head.Total.Count, head.Total.Bytes = max(head.Total.Count, sum.Count), max(head.Total.Bytes, sum.Bytes)
	return head, nil
}

// A scanner reads the lines of cells: ["a","b",12,34]. encoding/json takes ten
// times as long, and a page of statistics is made of millions.
type scanner struct {
	known map[string]string // one copy of each: few of them are repeated often

	labels []string
	value  Value
}

func (s *scanner) row(line []byte) error {
	s.labels, s.value = s.labels[:0], Value{}
	if len(line) < 2 || line[0] != '[' || line[len(line)-1] != ']' {
		return fmt.Errorf("%q is no cell", line)
	}
	rest := line[1 : len(line)-1]
	for len(rest) > 0 && rest[0] == '"' {
		end := 1
		for end < len(rest) && rest[end] != '"' {
			if rest[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(rest) {
			return fmt.Errorf("%q is no cell", line)
		}
		label, ok := s.known[string(rest[:end+1])]
		if !ok {
			if err := json.Unmarshal(rest[:end+1], &label); err != nil {
				return err
			}
			s.known[string(rest[:end+1])] = label
		}
		s.labels = append(s.labels, label)
		rest = bytes.TrimPrefix(rest[end+1:], []byte{','})
	}
	count, volume, both := bytes.Cut(rest, []byte{','})
	var err error
	if s.value.Count, err = strconv.ParseUint(string(count), 10, 64); err == nil && both {
		s.value.Bytes, err = strconv.ParseUint(string(volume), 10, 64)
	}
	return err
}

// fold sums cells up so that each of the result may be told. What is left of a cell
// gives up its columns one after another; what is left with none is dropped, and
// remains in the total alone, as far as that may be told.
func fold(t *Table, cells map[cell]Value) map[cell]Value {
	out := map[cell]Value{}
	for step := 0; ; step++ {
		small := map[cell]Value{}
		for c, v := range cells {
			if w := v.whole(); w.Count > 0 {
				old := out[c]
				old.add(w)
				out[c] = old
				v.sub(w)
			}
			if v.Count == 0 {
				continue
			}
			if step < len(t.fold) {
				c[t.fold[step]] = Other
			}
			old := small[c]
			old.add(v)
			small[c] = old
		}
		if step == len(t.fold) {
			delete(out, t.all()) // it has no attribute, and is in the total
			return out
		}
		cells = small
	}
}
