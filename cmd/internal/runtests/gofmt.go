package main

import (
	"bytes"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// goFiles calls f with the path of every Go file below dir that the go command
// would look at.
func goFiles(dir string, f func(path string) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		switch {
		case d.IsDir() && path != dir && (name[0] == '.' || name[0] == '_' || name == "testdata"):
			return fs.SkipDir
		case d.Type().IsRegular() && strings.HasSuffix(name, ".go"):
			return f(path)
		}
		return nil
	})
}

// unformatted returns the Go files below dir that gofmt would change. One that
// cannot be parsed is left to the compiler, which says why.
func unformatted(dir string) ([]string, error) {
	var ugly []string
	err := goFiles(dir, func(path string) error {
		src, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("gofmt: %w", err)
		}
		if want, err := format.Source(src); err == nil && !bytes.Equal(src, want) {
			ugly = append(ugly, path)
		}
		return nil
	})
	return ugly, err
}
