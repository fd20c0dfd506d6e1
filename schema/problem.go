package schema

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
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

// maxProblems bounds what is said about one file: its author reads the first few,
// and a hostile file must fill neither the log nor a pull request.
const maxProblems = 100

// findings are what is wrong with one file.
type findings struct {
	file  string
	list  []Problem
	total int // with those that are not in the list
}

// keep adds a problem of the file while there is room. Messages hold keys and
// values of the file, so what cannot be printed is replaced here.
func (f *findings) keep(p Problem) {
	f.total++
	// Errors get as much room again: the one that makes a file unusable may come
	// behind any number of warnings.
	if len(f.list) >= maxProblems && !p.Error || len(f.list) >= 2*maxProblems {
		return
	}
	p.File, p.Path, p.Text, p.Remedy = f.file, printable(p.Path), printable(p.Text), printable(p.Remedy)
	f.list = append(f.list, p)
}

// all returns the problems, and behind them how many there are when the list is
// not all of them.
func (f *findings) all() []Problem {
	if f.total == len(f.list) {
		return f.list
	}
	return append(slices.Clip(f.list), Problem{
		File:   f.file,
		Text:   fmt.Sprintf("%d problems, of which %d are listed", f.total, len(f.list)),
		Remedy: "correct these first",
	})
}

// printable replaces what would end the line of a message, or colour the terminal
// of who reads it, and cuts what is too long for a line.
func printable(s string) string {
	const longest = 500
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return unicode.ReplacementChar
		}
		return c
	}, s)
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
