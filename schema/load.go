package schema

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"meridian/internal/strictyaml"
)

// ErrNetwork is wrapped by the error of LoadNetwork about a file that was read
// but cannot be used.
var ErrNetwork = errors.New("the network file cannot be used")

// LoadNetwork reads the network file at path. Problems may be reported about a
// network that can be used; when it cannot, the error says so, and wraps
// ErrNetwork unless the file could not be read.
func LoadNetwork(path string) (*Network, []Problem, error) {
	data, err := strictyaml.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("schema: %w", err)
	}
	n, problems := ParseNetwork(path, data)
	if n == nil {
		for _, p := range problems {
			if p.Error {
				return nil, problems, fmt.Errorf("schema: %w: %s", ErrNetwork, p)
			}
		}
		return nil, problems, fmt.Errorf("schema: %s: %w", path, ErrNetwork)
	}
	n.MirrorsDir = mirrorsDir(path, n.MirrorsDir)
	return n, problems, nil
}

// LoadMirrors reads every *.yml file of dir. A file that cannot be used is
// reported and stops no other; so is a *.yaml file, which no program of the
// network reads. Mirrors are sorted by file name. Of two mirrors of one name the
// first counts. The error is about dir itself.
func LoadMirrors(dir string) ([]*Mirror, []Problem, error) {
	paths, problems, err := mirrorFiles(dir)
	if err != nil {
		return nil, nil, err
	}
	var mirrors []*Mirror
	files := map[string]string{} // by mirror name
	for _, path := range paths {
		m, found := LoadMirror(path)
		problems = append(problems, found...)
		if m == nil {
			continue
		}
		if first, ok := files[m.Name]; ok {
			problems = append(problems, duplicateName(path, m, first))
			continue
		}
		files[m.Name] = m.File
		mirrors = append(mirrors, m)
	}
	SortProblems(problems)
	return mirrors, problems, nil
}

// mirrorFiles returns the paths of the mirror files in dir, sorted, and reports
// those whose names keep them from being read.
func mirrorFiles(dir string) (paths []string, problems []Problem, err error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, nil, fmt.Errorf("schema: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			continue // an editor's, or git's
		}
		if filepath.Ext(e.Name()) == ".yml" {
			paths = append(paths, path)
			continue
		}
		problems = append(problems, nameProblems(path)...)
	}
	return paths, problems, nil
}

// nameProblems reports a name that nearly is that of a mirror file.
func nameProblems(path string) []Problem {
	ext := filepath.Ext(path)
	switch strings.ToLower(ext) {
	case ".yml", ".yaml":
		if ext == ".yml" {
			return nil
		}
	default:
		return nil
	}
	return []Problem{{
		File: path, Error: true,
		Text:   "the file is not read, because its name does not end in .yml",
		Remedy: "rename it to " + printable(strings.TrimSuffix(filepath.Base(path), ext)) + ".yml",
	}}
}

func duplicateName(path string, m *Mirror, first string) Problem {
	return Problem{
		File: path, Line: m.line("name"), Path: "name", Error: true,
		Text:   fmt.Sprintf("%q is the mirror of %s already; this file is left out", m.Name, first),
		Remedy: "give every mirror its own name",
	}
}

// LoadMirror reads the mirror file at path. The mirror is nil when the file
// cannot be read or used.
func LoadMirror(path string) (*Mirror, []Problem) {
	data, err := strictyaml.ReadFile(path)
	if err != nil {
		return nil, []Problem{unreadable(path, err)}
	}
	return ParseMirror(path, data)
}

func unreadable(path string, err error) Problem {
	p := Problem{File: path, Error: true, Text: err.Error(), Remedy: "make it a file that the server may read"}
	var pathErr *fs.PathError
	switch {
	case errors.Is(err, strictyaml.ErrTooLarge):
		p.Text, p.Remedy = "the file is "+strictyaml.ErrTooLarge.Error(), "keep lists of subnets elsewhere and write their URL"
	case errors.As(err, &pathErr):
		p.Text = pathErr.Err.Error() // the file is named before it
	}
	return p
}
