package counterpart

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryProgramIsCountedSomewhere(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, p := range all {
		if names[p.Name] {
			t.Errorf("%s is there twice", p.Name)
		}
		names[p.Name] = true
	}
	for _, p := range all {
		if !names[p.Counted] {
			t.Errorf("%s is counted as %q, which is no program of the table", p.Name, p.Counted)
		}
	}
}

func TestBadLineIsNamed(t *testing.T) {
	for _, line := range []string{"dnf dnf dnf", "dnf dnf dnf dnf --version maybe"} {
		_, err := parse("# head\n" + line + "\n")
		if err == nil || !strings.HasPrefix(err.Error(), "counterparts.txt:2: ") {
			t.Errorf("%q: %v, want an error that names line 2", line, err)
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	p := Program{Name: "no-such-counterpart", Debian: "its-package"}
	path := filepath.Join(dir, p.Name)

	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := p.Find()
	if err == nil || !strings.Contains(err.Error(), "its-package (Debian) or (none) (EL)") {
		t.Errorf("a file that cannot be run: %v, want an error that names the packages", err)
	}

	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := p.Find(); got != path || err != nil {
		t.Errorf("Find = %q, %v; want %q", got, err, path)
	}
}
