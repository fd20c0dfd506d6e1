package schema

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// wideSubnets is a mirror with a problem in each of n lines, of which the first is
// line 9.
func wideSubnets(name string, n int) string {
	var b strings.Builder
	b.WriteString(cleanMirror(name) + "subnets:\n")
	for i := range n {
		fmt.Fprintf(&b, "- 2%x:%x00::/31\n", i>>8, i&0xff)
	}
	return b.String()
}

// One hostile or generated file does not hide what is said about the others, and
// its author is told how much was not said.
func TestProblemsOfOneFileAreBounded(t *testing.T) {
	const a, b = "a.example.org", "b.example.org"
	const total = 3 * maxProblems
	tests := []struct {
		name, text string
		listed     int
		more       string // the first problem
	}{
		{"as many as are listed", wideSubnets(a, maxProblems), maxProblems, ""},
		{"one more", wideSubnets(a, maxProblems+1), maxProblems, "W a.example.org.yml: 101 problems, of which 100 are listed; correct these first"},
		{"found by the reviewer's rules", wideSubnets(a, total), maxProblems, "W a.example.org.yml: 300 problems, of which 100 are listed; correct these first"},
		{
			"found when the file is read, errors behind warnings",
			cleanMirror(a) + "asn:\n" + strings.Repeat("- AS1\n", total) + "private: perhaps\n",
			maxProblems + 1, "W a.example.org.yml: 301 problems, of which 101 are listed; correct these first",
		},
		{
			"found when the file is read and by the reviewer's rules, counted together",
			wideSubnets(a, total) + "asn:\n" + strings.Repeat("- AS1\n", total),
			maxProblems, "W a.example.org.yml: 600 problems, of which 100 are listed; correct these first",
		},
		{
			"errors alone", cleanMirror(a) + "asn:\n" + strings.Repeat("- x\n", total),
			2 * maxProblems, "W a.example.org.yml: 300 problems, of which 200 are listed; correct these first",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := parsedNetwork(t)
			n.MirrorsDir = write(t, map[string]string{a + ".yml": tt.text, b + ".yml": strings.Replace(cleanMirror(b), "AT", "UK", 1)})
			problems := LintFiles(n, nil)
			last := problems[len(problems)-1]
			if filepath.Base(last.File) != b+".yml" || last.Line != 5 {
				t.Errorf("the last problem is %s; want that of the other file", last)
			}
			problems = problems[:len(problems)-1]
			if tt.more != "" {
				compareSaid(t, "the first problem", []string{"W " + strings.TrimPrefix(problems[0].String(), n.MirrorsDir+"/")}, []string{tt.more})
				problems = problems[1:]
			}
			for _, p := range problems {
				if p.Line == 0 {
					t.Errorf("%s; want no further problem without a line", p)
				}
			}
			if len(problems) != tt.listed {
				t.Errorf("%d problems are listed, want %d", len(problems), tt.listed)
			}
		})
	}
}

// The loader bounds what it says by itself, for the log of the server.
func TestProblemsOfTheLoaderAreBounded(t *testing.T) {
	_, problems := ParseMirror("m.yml", []byte(plainMirror+"asn:\n"+strings.Repeat("- AS1\n", 5*maxProblems)))
	if len(problems) != maxProblems+1 {
		t.Fatalf("%d problems, want %d and how many there are", len(problems), maxProblems)
	}
	compareSaid(t, "the last problem", said(problems[maxProblems:]), []string{"W : 500 problems, of which 100 are listed; correct these first"})
}

// Each of the problems is looked up at its line, so looking up must not depend on
// how many lines there are.
func BenchmarkLintWideSubnets(b *testing.B) {
	for _, n := range []int{600, 60_000} {
		m, _ := ParseMirror("m.yml", []byte(wideSubnets("m.example.org", n)))
		if m == nil || len(m.Subnets) != n {
			b.Fatal("the mirror cannot be read")
		}
		b.Run(fmt.Sprintf("subnets=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Lint(nil, []*Mirror{m})
			}
		})
	}
}
