package schema

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Problem is one thing that is wrong with a network or mirror file.
type Problem struct {
	// File as it was named to the loader, and Line in it; 0 when the problem
	// belongs to no line.
	File string
	Line int

	// Path of the key, such as "geolocation.country" or "subnets[2]"; "" when
	// the problem belongs to no key.
	Path string

	// Error: something was lost: the value, the mirror or the whole file. Any
	// other problem is a warning: the file works as its author meant it, or a
	// reviewer has to look.
	Error bool

	Text   string // what is wrong
	Remedy string // what to write instead
}

// String returns "file:line: path: what is wrong; what to write instead".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(printable(p.File)) // named by a stranger too
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Path != "" {
		b.WriteString(p.Path)
		b.WriteString(": ")
	}
	b.WriteString(p.Text)
	if p.Remedy != "" {
		b.WriteString("; ")
		b.WriteString(p.Remedy)
	}
	return b.String()
}

// SortProblems orders ps by file, line, path and text.
func SortProblems(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.File, b.File),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Path, b.Path),
			cmp.Compare(a.Text, b.Text),
		)
	})
}
