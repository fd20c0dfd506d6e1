package testworld

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A Manual is one chapter of docs/OPERATING.md, to be compared with the code that
// it is about.
type Manual struct {
	t       testing.TB
	chapter string
	text    string
}

// ReadManual reads the chapter, such as "The checker", of the source tree that the
// current directory is in.
func ReadManual(t testing.TB, chapter string) *Manual {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "OPERATING.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "\n# "+chapter+"\n")
	if !ok {
		t.Fatalf("docs/OPERATING.md has no chapter %q", chapter)
	}
	after, _, _ = strings.Cut(after, "\n# ")
	return &Manual{t, chapter, after}
}

var code = regexp.MustCompile("`([^`]+)`")

// Names returns what tables name in their first column, if it has this heading:
// what is marked as code in a cell, or else the cell.
func (m *Manual) Names(heading string) []string {
	m.t.Helper()
	var names []string
	inside := false
	for line := range strings.Lines(m.text) {
		first, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		switch {
		case !strings.HasPrefix(line, "|"):
			inside = false
		case !inside:
			inside = first == heading
		default:
			marked := code.FindAllStringSubmatch(first, -1)
			for _, q := range marked {
				names = append(names, q[1])
			}
			if len(marked) == 0 && !strings.HasPrefix(first, "---") {
				names = append(names, first)
			}
		}
	}
	if len(names) == 0 {
		m.t.Fatalf("docs/OPERATING.md, %s: there is no table with a column %q", m.chapter, heading)
	}
	return names
}

// same compares what is documented with what is there.
func (m *Manual) same(heading string, there func(documented []string) []string) {
	m.t.Helper()
	documented := m.Names(heading)
	names := there(documented)
	for _, name := range names {
		if !slices.Contains(documented, name) {
			m.t.Errorf("docs/OPERATING.md, %s: the %s %s is missing", m.chapter, heading, name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(names, name) {
			m.t.Errorf("docs/OPERATING.md, %s: the %s %s does not exist", m.chapter, heading, name)
		}
	}
}

// HasSettings compares the table under heading with the fields of a struct that
// is read from YAML. A field that is a struct itself has a row, or all of its
// fields have, as in "tls.cert".
func (m *Manual) HasSettings(heading string, settings reflect.Type) {
	m.t.Helper()
	m.same(heading, func(documented []string) []string { return keys("", settings, documented) })
}

func keys(prefix string, settings reflect.Type, documented []string) []string {
	var all []string
	for f := range settings.Fields() {
		key := prefix + f.Tag.Get("yaml")
		of := f.Type
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if of.Kind() == reflect.Struct && !slices.Contains(documented, key) {
			all = append(all, keys(key+".", of, documented)...)
		} else {
			all = append(all, key)
		}
	}
	return all
}

var (
	described = regexp.MustCompile(`fqName: "([^"]+)", help: "[^"]+"`)
	metric    = regexp.MustCompile(`\bmeridian_[a-z_]+`)
)

// HasMetrics compares the table of metrics, and every expression that has one in
// it, with descriptions, which are each a *prometheus.Desc, and meridian_build_info,
// which every daemon has.
func (m *Manual) HasMetrics(descriptions []fmt.Stringer) {
	m.t.Helper()
	names := []string{"meridian_build_info"}
	for _, d := range descriptions {
		// A description has no other way to tell its name.
		found := described.FindStringSubmatch(d.String())
		if found == nil {
			m.t.Fatalf("a metric without name or help: %s", d)
		}
		names = append(names, found[1])
	}
	m.same("metric", func([]string) []string { return names })
	for _, name := range metric.FindAllString(m.text, -1) {
		if !slices.Contains(names, strings.TrimSuffix(name, "_bucket")) {
			m.t.Errorf("docs/OPERATING.md, %s: %s is no metric", m.chapter, name)
		}
	}
}
