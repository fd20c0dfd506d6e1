package schema

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestListingTellsOneStateOfFilesFromAnother(t *testing.T) {
	dir := t.TempDir()
	file, sub := filepath.Join(dir, "file"), filepath.Join(dir, "sub")
	paths := []string{file, sub}
	before := List(paths)
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
		{"a file appears", func() { put(t, file, "one") }},
		{"it has another size", func() { put(t, file, "three") }},
		{"it has another time", func() { must(os.Chtimes(file, old, old)) }},
		{"another one of equal size and time takes its place", func() {
			put(t, file+".new", "seven")
			must(os.Chtimes(file+".new", old, old))
			must(os.Rename(file+".new", file))
		}},
		{"a directory appears", func() { must(os.Mkdir(sub, 0o755)) }},
		{"a file appears in it", func() { put(t, filepath.Join(sub, "a"), "a") }},
		{"a link appears in it", func() { must(os.Symlink("../file", filepath.Join(sub, "link"))) }},
		{"what the link leads to changes", func() { put(t, file, "twenty-one") }},
		{"the link leads nowhere", func() { must(os.Remove(file)) }},
		{"a file in it goes away", func() { must(os.Remove(filepath.Join(sub, "a"))) }},
	} {
		step.edit()
		now := List(paths)
		if now == before {
			t.Errorf("%s: the listing is the same", step.name)
		}
		if again := List(paths); again != now {
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
	put(t, filepath.Join(linked, ".git"), "gitdir: "+own+"\n")
	submodule := mkdir(filepath.Join(tree, "module"))
	modules := mkdir(filepath.Join(tree, ".git", "modules", "module"))
	put(t, filepath.Join(submodule, ".git"), "gitdir: ../.git/modules/module\n")

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
			if got := GitLock([]string{tt.path}); got != "" {
				t.Fatalf("GitLock finds %s before there is one", got)
			}
			put(t, tt.lock, "")
			defer os.Remove(tt.lock)
			if got := GitLock([]string{base, tt.path}); got != tt.lock {
				t.Errorf("GitLock(%s) = %q, want %q", tt.path, got, tt.lock)
			}
		})
	}
	t.Run("above a relative path", func(t *testing.T) {
		lock := filepath.Join(tree, ".git", "index.lock")
		put(t, lock, "")
		defer os.Remove(lock)
		t.Chdir(mirrors)
		if got := GitLock([]string{"m.yml"}); got != lock {
			t.Errorf("GitLock = %q, want %q", got, lock)
		}
	})
	t.Run("not of somebody else's work tree", func(t *testing.T) {
		put(t, filepath.Join(own, "index.lock"), "")
		defer os.Remove(filepath.Join(own, "index.lock"))
		if got := GitLock([]string{mirrors}); got != "" {
			t.Errorf("GitLock = %q, want none", got)
		}
	})
	t.Run("a file called .git that says something else", func(t *testing.T) {
		odd := mkdir(filepath.Join(base, "odd"))
		put(t, filepath.Join(odd, ".git"), "hello\n")
		if got := GitLock([]string{odd}); got != "" {
			t.Errorf("GitLock = %q, want none", got)
		}
	})
}

func TestReadTree(t *testing.T) {
	dir := write(t, map[string]string{
		"network.yml":                 smallNetwork,
		"mirrors.d/a.example.org.yml": mirrorText("a.example.org"),
		"mirrors.d/b.example.org.yml": mirrorText("b.example.org"),
		"mirrors.d/c.example.org.yml": mirrorText("c.example.org"),
	})
	network := filepath.Join(dir, "network.yml")
	file := func(name string) string { return filepath.Join(dir, "mirrors.d", name) }
	if _, err := ReadTree(filepath.Join(dir, "none.yml"), "", nil); err == nil {
		t.Error("without a network file there is no tree, and no error says so")
	}
	before, err := ReadTree(network, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		edit    func()
		mirrors string
		network string   // the fault of the network file
		faults  []string // of mirror files
		err     bool
		gone    int
	}{
		{name: "nothing is wrong", edit: func() {}, mirrors: "a.example.org b.example.org c.example.org"},
		{name: "a file becomes bad: its mirror stays", edit: func() { put(t, file("b.example.org.yml"), "name: [") },
			mirrors: "a.example.org b.example.org c.example.org", faults: []string{"b.example.org.yml:1"}},
		{name: "it stays however often it is read", edit: func() {},
			mirrors: "a.example.org b.example.org c.example.org", faults: []string{"b.example.org.yml:1"}},
		{name: "the bad file is deleted", edit: func() { os.Remove(file("b.example.org.yml")) }, mirrors: "a.example.org c.example.org", gone: 1},
		{name: "a mirror takes the name of another: the first file has it", edit: func() { put(t, file("d.yml"), mirrorText("a.example.org")) },
			mirrors: "a.example.org c.example.org", faults: []string{"d.yml"}},
		{name: "a new mirror has ftp alone", edit: func() {
			put(t, file("d.yml"), "name: d.example.org\naddress: {ftp: ftp://d.example.org/}\n")
		}, mirrors: "a.example.org c.example.org", faults: []string{"d.yml"}},
		{name: "the network file becomes bad: the old one stays", edit: func() {
			os.Remove(file("d.yml"))
			put(t, network, "versions: 9")
		}, mirrors: "a.example.org c.example.org", network: "network.yml"},
		{name: "the network file is away", edit: func() { os.Remove(network) }, mirrors: "a.example.org c.example.org", network: "network.yml"},
		{name: "the directory is away: the mirrors stay", edit: func() {
			put(t, network, smallNetwork)
			os.Rename(filepath.Join(dir, "mirrors.d"), filepath.Join(dir, "elsewhere"))
		}, mirrors: "a.example.org c.example.org", err: true},
		{name: "the directory is back", edit: func() { os.Rename(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "mirrors.d")) },
			mirrors: "a.example.org c.example.org"},
		{name: "the network asks for https", edit: func() {
			put(t, network, strings.Replace(smallNetwork, "[http, https]", "[https]", 1))
			put(t, file("c.example.org.yml"), "name: c.example.org\naddress: {http: http://c.example.org/}\n")
		}, mirrors: "a.example.org", faults: []string{"c.example.org.yml"}, gone: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.edit()
			now, err := ReadTree(network, "", before)
			if (err != nil) != tt.err || now == nil {
				t.Fatalf("error %v", err)
			}
			var names []string
			for _, m := range now.Mirrors {
				names = append(names, m.Name)
			}
			if got := strings.Join(names, " "); got != tt.mirrors {
				t.Errorf("mirrors %q, want %q", got, tt.mirrors)
			}
			if (len(now.NetworkFaults) > 0) != (tt.network != "") || tt.network != "" && !strings.Contains(now.NetworkFaults[0].Error(), tt.network) {
				t.Errorf("the network has the faults %v, want %q", now.NetworkFaults, tt.network)
			}
			ok := slices.EqualFunc(now.MirrorFaults, tt.faults, func(err error, want string) bool { return strings.Contains(err.Error(), want) })
			if !ok {
				t.Errorf("the mirrors have the faults %v, want %q", now.MirrorFaults, tt.faults)
			}
			if n := now.Gone(before); n != tt.gone {
				t.Errorf("%d mirrors are gone, want %d", n, tt.gone)
			}
			before = now
		})
	}
}
