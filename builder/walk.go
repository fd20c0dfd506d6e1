package builder

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A found package: its location relative to the repository.
type found struct {
	dir  string // "" or "Packages/"
	base string
}

func (f found) href() string { return f.dir + f.base }

// compareFound is the order of packages in the lists: by the name of the file, and
// where two have the same, by directory.
func compareFound(a, b found) int {
	return cmp.Or(cmp.Compare(a.base, b.base), cmp.Compare(strings.TrimSuffix(a.dir, "/"), strings.TrimSuffix(b.dir, "/")))
}

// walk finds the packages below root: files whose names end with .rpm, also behind
// symbolic links. Those are left out whose path or name is excluded. refuse is told
// of what cannot be looked into.
func walk(ctx context.Context, root string, excluded func(string) bool, refuse func(string, error)) ([]found, error) {
	var all []found
	// A link to a directory above it would never end.
	type id struct{ dev, ino uint64 }
	above := make(map[id]bool)
	var visit func(dir string) error
	visit = func(dir string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := filepath.Join(root, dir)
		info, err := os.Stat(at)
		if err != nil {
			return err
		}
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			here := id{uint64(sys.Dev), sys.Ino}
			if above[here] {
				return nil
			}
			above[here] = true
			defer delete(above, here)
		}
		entries, err := readNames(at)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := dir + e.Name()
			if strings.HasSuffix(e.Name(), ".rpm") {
				if !excluded(name) && !excluded(e.Name()) {
					all = append(all, found{dir, e.Name()})
				}
				continue
			}
			isDir := e.IsDir()
			if e.Type()&fs.ModeSymlink != 0 {
				target, err := os.Stat(filepath.Join(root, name))
				isDir = err == nil && target.IsDir()
			}
			if !isDir {
				continue
			}
			if err := visit(name + "/"); err != nil {
				if ctx.Err() != nil {
					return err
				}
				refuse(name, err)
			}
		}
		return nil
	}
	if err := visit(""); err != nil {
		return nil, err
	}
	slices.SortFunc(all, compareFound)
	return all, nil
}

// readNames is os.ReadDir without the sorting.
func readNames(dir string) ([]fs.DirEntry, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ReadDir(-1)
}

// ReadPackageList reads a list of packages: one a line, relative to the
// repository. Empty lines do not count.
func ReadPackageList(r io.Reader) ([]string, error) {
	var list []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if line := strings.TrimRight(lines.Text(), "\r"); strings.TrimSpace(line) != "" {
			list = append(list, line)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("package list, line %d: %w", len(list)+1, err)
	}
	return list, nil
}

// errOutside is a line of a package list that leads out of the repository.
var errOutside = errors.New("not below the repository; write paths relative to it")

// listed are the packages of a list, but for those whose path is excluded: their
// name alone does not count, as in createrepo_c.
func listed(list []string, excluded func(string) bool, refuse func(string, error)) []found {
	var all []found
	for _, name := range list {
		clean := path.Clean(name)
		if path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || clean == "." {
			refuse(name, errOutside)
			continue
		}
		if excluded(clean) {
			continue
		}
		dir, base := path.Split(clean)
		all = append(all, found{dir, base})
	}
	slices.SortFunc(all, compareFound)
	return slices.Compact(all)
}

// matcher returns whether a name matches one of the patterns. Unlike those of a
// shell, * and ? also match slashes, as in createrepo_c.
func matcher(patterns []string) func(string) bool {
	return func(name string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return glob(p, name) })
	}
}

// glob goes back only to the last star, so it is never more than the product of
// the two lengths.
func glob(pattern, name string) bool {
	p, n := 0, 0
	star, mark := -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
