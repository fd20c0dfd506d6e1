package mirrorlist

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestListingTellsOneStateOfFilesFromAnother(t *testing.T) {
	dir := t.TempDir()
	file, sub := filepath.Join(dir, "file"), filepath.Join(dir, "sub")
	paths := []string{file, sub}
	before := list(paths)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	old := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, step := range []struct {
		name string
		edit func()
	}{
		{"a file appears", func() { writeFile(t, file, "one") }},
		{"it has another size", func() { writeFile(t, file, "three") }},
		{"it has another time", func() { must(os.Chtimes(file, old, old)) }},
		{"another one of equal size and time takes its place", func() {
			writeFile(t, file+".new", "seven")
			must(os.Chtimes(file+".new", old, old))
			must(os.Rename(file+".new", file))
		}},
		{"a directory appears", func() { must(os.Mkdir(sub, 0o755)) }},
		{"a file appears in it", func() { writeFile(t, filepath.Join(sub, "a"), "a") }},
		{"a link appears in it", func() { must(os.Symlink("../file", filepath.Join(sub, "link"))) }},
		{"what the link leads to changes", func() { writeFile(t, file, "twenty-one") }},
		{"the link leads nowhere", func() { must(os.Remove(file)) }},
		{"a file in it goes away", func() { must(os.Remove(filepath.Join(sub, "a"))) }},
	} {
		step.edit()
		now := list(paths)
		if now == before {
			t.Errorf("%s: the listing is the same", step.name)
		}
		if again := list(paths); again != now {
			t.Errorf("%s: two listings of the same files differ", step.name)
		}
		before = now
	}
}

func TestGitLockIsFoundAroundAPath(t *testing.T) {
	base := t.TempDir()
	mkdir := func(path string) string {
		t.Helper()
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tree := mkdir(filepath.Join(base, "tree"))
	mirrors := mkdir(filepath.Join(tree, "a", "mirrors.d"))
	mkdir(filepath.Join(tree, ".git"))
	outside := filepath.Join(base, "link")
	if err := os.Symlink(mirrors, outside); err != nil {
		t.Fatal(err)
	}
	// A linked work tree says in a file where its own files are.
	linked := mkdir(filepath.Join(base, "linked"))
	own := mkdir(filepath.Join(tree, ".git", "worktrees", "linked"))
	writeFile(t, filepath.Join(linked, ".git"), "gitdir: "+own+"\n")
	submodule := mkdir(filepath.Join(tree, "module"))
	modules := mkdir(filepath.Join(tree, ".git", "modules", "module"))
	writeFile(t, filepath.Join(submodule, ".git"), "gitdir: ../.git/modules/module\n")

	for _, tt := range []struct {
		name, path, lock string
	}{
		{"in the work tree itself", tree, filepath.Join(tree, ".git", "index.lock")},
		{"above the directory", mirrors, filepath.Join(tree, ".git", "index.lock")},
		{"above a file", filepath.Join(mirrors, "m.yml"), filepath.Join(tree, ".git", "index.lock")},
		{"above where a link leads to", outside, filepath.Join(tree, ".git", "index.lock")},
		{"of a linked work tree", linked, filepath.Join(own, "index.lock")},
		{"of a submodule", submodule, filepath.Join(modules, "index.lock")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := gitLock([]string{tt.path}); got != "" {
				t.Fatalf("gitLock finds %s before there is one", got)
			}
			writeFile(t, tt.lock, "")
			defer os.Remove(tt.lock)
			if got := gitLock([]string{base, tt.path}); got != tt.lock {
				t.Errorf("gitLock(%s) = %q, want %q", tt.path, got, tt.lock)
			}
		})
	}
	t.Run("above a relative path", func(t *testing.T) {
		lock := filepath.Join(tree, ".git", "index.lock")
		writeFile(t, lock, "")
		defer os.Remove(lock)
		t.Chdir(mirrors)
		if got := gitLock([]string{"m.yml"}); got != lock {
			t.Errorf("gitLock = %q, want %q", got, lock)
		}
	})
	t.Run("not of somebody else's work tree", func(t *testing.T) {
		writeFile(t, filepath.Join(own, "index.lock"), "")
		defer os.Remove(filepath.Join(own, "index.lock"))
		if got := gitLock([]string{mirrors}); got != "" {
			t.Errorf("gitLock = %q, want none", got)
		}
	})
	t.Run("a file called .git that says something else", func(t *testing.T) {
		odd := mkdir(filepath.Join(base, "odd"))
		writeFile(t, filepath.Join(odd, ".git"), "hello\n")
		if got := gitLock([]string{odd}); got != "" {
			t.Errorf("gitLock = %q, want none", got)
		}
	})
}

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
