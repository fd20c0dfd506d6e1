package cmd_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const module = "meridian"

// tree is a checkout: the Go packages in it, and all files that hold text.
type tree struct {
	fset     *token.FileSet
	packages map[string]*pkg // by directory, "." is the root
	texts    map[string][]byte
}

type pkg struct {
	dir   string
	files []*file // in the order of their names
}

type file struct {
	name string // relative to the root, with slashes
	test bool
	ast  *ast.File
}

// load reads the tree below root, without what is not committed.
func load(root string) (*tree, error) {
	t := &tree{fset: token.NewFileSet(), packages: make(map[string]*pkg), texts: make(map[string][]byte)}
	err := filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, at)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if d.IsDir() {
			if slices.Contains([]string{".git", ".cache", "bin", "screenshots"}, name) {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || name == ".git" { // a linked work tree has a file there
			return nil
		}
		return t.add(at, name)
	})
	return t, err
}

// add reads a file; name is its path relative to the root, with slashes.
func (t *tree) add(at, name string) error {
	text, err := os.ReadFile(at)
	if err != nil {
		return err
	}
	if bytes.IndexByte(text, 0) < 0 {
		t.texts[name] = text
	}
	if !strings.HasSuffix(name, ".go") || strings.Contains("/"+name, "/testdata/") {
		return nil
	}
	parsed, err := parser.ParseFile(t.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	dir := path.Dir(name)
	if t.packages[dir] == nil {
		t.packages[dir] = &pkg{dir: dir}
	}
	t.packages[dir].files = append(t.packages[dir].files, &file{name, strings.HasSuffix(name, "_test.go"), parsed})
	return nil
}

// check returns what is wrong with the tree below root, each problem with the
// place where it is and what to do instead, sorted.
func check(root string) ([]string, error) {
	t, err := load(root)
	if err != nil {
		return nil, err
	}
	var problems []string
	for _, p := range t.packages {
		report := func(pos token.Pos, format string, args ...any) {
			at := p.dir
			if pos.IsValid() {
				where := t.fset.Position(pos)
				at = fmt.Sprintf("%s:%d", where.Filename, where.Line)
			}
			problems = append(problems, at+": "+fmt.Sprintf(format, args...))
		}
		if _, listed := mayImport[p.dir]; !listed && !strings.HasPrefix(p.dir, "cmd/") {
			report(token.NoPos, "not in the table of cmd/all_test.go; add the package and what it may import")
		}
		p.checkName(report)
		p.checkComment(report)
		for _, f := range p.files {
			p.checkImports(f, report)
			checkSkips(f, report)
			if !f.test {
				checkDocs(f, report)
				checkHelp(f, report)
			}
		}
	}
	problems = append(problems, t.checkPaths()...)
	slices.Sort(problems)
	return problems, nil
}

// reporter takes a problem. Without a position it is one of the whole package.
type reporter func(pos token.Pos, format string, args ...any)

// drawers are names of packages that say nothing of what is inside.
var drawers = []string{"base", "common", "config", "core", "helper", "helpers", "misc", "models", "pkg", "shared", "types", "util", "utils"}

func (p *pkg) checkName(report reporter) {
	name := p.files[0].ast.Name
	for _, n := range []string{path.Base(p.dir), strings.TrimSuffix(name.Name, "_test")} {
		if slices.Contains(drawers, n) {
			report(name.Pos(), "package %s is a drawer; name it after the one idea in it", n)
			return
		}
	}
}

// checkComment wants one package comment. In a directory of test files alone it
// is on one of them.
func (p *pkg) checkComment(report reporter) {
	onlyTests := !slices.ContainsFunc(p.files, func(f *file) bool { return !f.test })
	seen := 0
	for _, f := range p.files {
		if f.ast.Doc == nil || f.test != onlyTests {
			continue
		}
		seen++
		if name := f.ast.Name.Name; name != "main" && !strings.HasPrefix(f.ast.Doc.Text(), "Package "+name+" ") {
			report(f.ast.Doc.Pos(), "the package comment does not begin with \"Package %s \"", name)
		}
		if seen > 1 {
			report(f.ast.Doc.Pos(), "a second package comment; merge it into the first")
		}
	}
	if seen == 0 {
		report(token.NoPos, "no package comment; say what the package answers and what it never does")
	}
}

func (p *pkg) checkImports(f *file, report reporter) {
	for _, spec := range f.ast.Imports {
		target, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the compiler says so
		}
		first, _, _ := strings.Cut(target, "/")
		switch {
		case target == "C":
			report(spec.Pos(), "imports \"C\"; commands are built with CGO_ENABLED=0")
		case target == module || first == module:
			p.checkEdge(f, strings.TrimPrefix(target, module+"/"), spec.Pos(), report)
		case strings.Contains(first, "."):
			p.checkLibrary(f, target, spec.Pos(), report)
		}
	}
}

// checkEdge is about an import of a package of this module.
func (p *pkg) checkEdge(f *file, target string, pos token.Pos, report reporter) {
	forTests := f.test || slices.Contains(testPackages, p.dir) || slices.Contains(notPackaged, p.dir)
	switch allowed, listed := mayImport[p.dir]; {
	case slices.Contains(testPackages, target):
		if !forTests {
			report(pos, "imports %s, which is for tests, the demo and the benchmarks", target)
		}
	case listed:
		if target != p.dir && !slices.Contains(allowed, target) {
			report(pos, "%s imports %s; it may import %s", p.dir, target, orNothing(allowed))
		}
	}
}

func orNothing(list []string) string {
	if len(list) == 0 {
		return "nothing of this module"
	}
	return strings.Join(list, ", ")
}

// checkLibrary is about an import of another module's package.
func (p *pkg) checkLibrary(f *file, target string, pos token.Pos, report reporter) {
	i := slices.IndexFunc(libraries, func(l library) bool {
		return target == l.path || strings.HasPrefix(target, l.path+"/")
	})
	if i < 0 {
		report(pos, "imports %s, which is not in the table of cmd/all_test.go; there is one library for each job", target)
		return
	}
	l := libraries[i]
	switch {
	case f.test, slices.Contains(l.in, p.dir), l.metrics && path.Base(f.name) == "metrics.go":
	case len(l.in) == 0:
		report(pos, "%s imports %s, which is for test files", p.dir, target)
	default:
		also := ""
		if l.metrics {
			also = " and files named metrics.go"
		}
		report(pos, "%s imports %s, which is for %s%s", p.dir, target, strings.Join(l.in, ", "), also)
	}
}

// checkSkips wants a reason for each test that is skipped.
func checkSkips(f *file, report reporter) {
	if !slices.ContainsFunc(f.ast.Imports, func(s *ast.ImportSpec) bool { return s.Path.Value == `"testing"` }) {
		return
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		switch sel.Sel.Name {
		case "Skip", "Skipf":
			if len(call.Args) > 0 && !isEmptyString(call.Args[0]) {
				return true
			}
		case "SkipNow":
		default:
			return true
		}
		report(call.Pos(), "%s without a reason; write t.Skip(\"why\")", sel.Sel.Name)
		return true
	})
}

func isEmptyString(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && (lit.Value == `""` || lit.Value == "``")
}

// wellKnown are methods whose meaning the standard library documents.
var wellKnown = []string{"Close", "Error", "Is", "Len", "Less", "MarshalJSON", "MarshalText", "MarshalYAML", "Read", "ServeHTTP",
	"String", "Swap", "UnmarshalJSON", "UnmarshalText", "UnmarshalYAML", "Unwrap", "Write"}

// checkDocs wants a doc comment on whatever another package can name. A group of
// constants, variables or types may have one for all.
func checkDocs(f *file, report reporter) {
	for _, d := range f.ast.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Doc != nil || !d.Name.IsExported() {
				continue
			}
			if d.Recv == nil {
				report(d.Pos(), "func %s has no doc comment", d.Name.Name)
			} else if recv := receiver(d); ast.IsExported(recv) && !slices.Contains(wellKnown, d.Name.Name) {
				report(d.Pos(), "method %s.%s has no doc comment", recv, d.Name.Name)
			}
		case *ast.GenDecl:
			if d.Doc != nil {
				continue
			}
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() && s.Doc == nil && s.Comment == nil {
						report(s.Pos(), "type %s has no doc comment", s.Name.Name)
					}
				case *ast.ValueSpec:
					for _, n := range s.Names {
						if n.IsExported() && s.Doc == nil && s.Comment == nil {
							report(n.Pos(), "%s %s has no doc comment", d.Tok, n.Name)
						}
					}
				}
			}
		}
	}
}

// receiver is the name of the type that a method is of.
// The screen that a help text fits on.
const (
	screenColumns = 80
	screenLines   = 40
)

// checkHelp is about help texts, which are constants called usage or *Usage.
func checkHelp(f *file, report reporter) {
	for _, decl := range f.ast.Decls {
		d, ok := decl.(*ast.GenDecl)
		if !ok || d.Tok != token.CONST {
			continue
		}
		for _, spec := range d.Specs {
			c := spec.(*ast.ValueSpec)
			if len(c.Values) != 1 || !strings.HasSuffix(strings.ToLower(c.Names[0].Name), "usage") {
				continue
			}
			text, ok := c.Values[0].(*ast.BasicLit)
			if !ok {
				continue
			}
			help, err := strconv.Unquote(text.Value)
			if err != nil {
				continue // the compiler says so
			}
			lines := strings.Split(strings.TrimSuffix(help, "\n"), "\n")
			for _, line := range lines {
				if n := utf8.RuneCountInString(line); n > screenColumns {
					report(c.Pos(), "%s has a line of %d columns, and a terminal %d: %q", c.Names[0].Name, n, screenColumns, line)
				}
			}
			if len(lines) > screenLines {
				report(c.Pos(), "%s has %d lines; %d fit a screen", c.Names[0].Name, len(lines), screenLines)
			}
			if !strings.HasPrefix(lines[len(lines)-1], "    ") {
				report(c.Pos(), "%s does not end in an example that can be pasted", c.Names[0].Name)
			}
		}
	}
}

func receiver(d *ast.FuncDecl) string {
	e := d.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

// onOneMachine finds paths that exist where somebody worked, and nowhere else.
var onOneMachine = regexp.MustCompile(`(?:^|[^A-Za-z0-9_.-])(/(?:w[o]rk|f[a]rm|h[o]me/[a-z][a-z0-9-]*|U[s]ers/[A-Za-z]+)/)`)

func (t *tree) checkPaths() []string {
	var problems []string
	for name, text := range t.texts {
		n := 0
		for line := range bytes.Lines(text) {
			n++
			if m := onOneMachine.FindSubmatch(line); m != nil {
				problems = append(problems, fmt.Sprintf("%s:%d: a path of the machine that it was written on, %s; make it relative", name, n, m[1]))
			}
		}
	}
	return problems
}
