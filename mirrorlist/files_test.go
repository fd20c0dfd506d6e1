package mirrorlist

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDirectoriesAreWatchedFromOutsideToo(t *testing.T) {
	dir := t.TempDir()
	mirrors := filepath.Join(dir, "mirrors.d")
	if err := os.Mkdir(mirrors, 0o755); err != nil {
		t.Fatal(err)
	}
	got := dirsOf([]string{filepath.Join(dir, "network.yml"), mirrors, filepath.Join(dir, "later", "db.mmdb")})
	want := []string{dir, mirrors, filepath.Join(dir, "later")}
	if !slices.Equal(got, want) {
		t.Errorf("dirsOf = %s, want %s", strings.Join(got, " "), strings.Join(want, " "))
	}
}

func TestUnrestSaysWhatToDo(t *testing.T) {
	for lock, want := range map[string]string{
		"/w/.git/index.lock": "/w/.git/index.lock is there for longer than 30s: finish what git does, or delete it",
		"":                   "files keep changing for longer than 30s: nothing is read until they rest",
	} {
		if got := unrest(lock, settleTries).Error(); got != want {
			t.Errorf("unrest(%q) = %s, want %s", lock, got, want)
		}
	}
}
