package checker

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"meridian/builder/repodata"
)

// packagedGeneration returns the files of a repository by name, with packages
// whose content is given by their paths, and a list of packages that names them.
func packagedGeneration(t testing.TB, revision string, packages map[string]string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	var entries []string
	var paths []string
	for path := range packages {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		content := []byte(packages[path])
		entry := strings.Replace(listed(path, len(content)), fmt.Sprintf("%064x", len(content)), hexSum(content), 1)
		entries = append(entries, entry)
		files[path] = content
	}
	list := gzipped(t, primaryList(entries...))
	md := &repodata.Repomd{Revision: revision}
	primary := primaryData("repodata/"+hexSum(list)+"-primary.xml.gz", list)
	primary.Timestamp = 1767225600
	files[primary.Location] = list
	md.Data = append(md.Data, *primary)
	files["repodata/repomd.xml"] = md.Marshal()
	return files
}

// ordered asks for a file of the newest generation and has the list read that
// says what it is.
func ordered(t *testing.T, w *originWorld, path string) (plan *FilePlan, known bool, err error) {
	t.Helper()
	l := newLibrary(w.o, slog.New(slog.DiscardHandler))
	tr := w.truth[base9]
	id := tr.Newest().ID()
	if _, known := l.file(base9, id, path); known {
		t.Fatal("a file is known before its list was read")
	}
	err = l.read(t.Context(), edition{base9, id})
	plan, known = l.file(base9, id, path)
	return plan, known, err
}

// What one tier0 cannot say of packages another does, and what is no part of the
// generation says nothing.
func TestListsComeFromAnyTier0(t *testing.T) {
	const path = "Packages/hello-1-1.x86_64.rpm"
	files := packagedGeneration(t, "100", map[string]string{path: "hello"})
	other := packagedGeneration(t, "100", map[string]string{path: "something else"})
	var list, otherList string
	for name := range files {
		if strings.Contains(name, "primary") {
			list = name
		}
	}
	for name := range other {
		if strings.Contains(name, "primary") {
			otherList = name
		}
	}
	for _, tt := range []struct {
		name string
		edit func(t *testing.T, a, b *originWorld)
		fail string // "": it is found
		only bool   // of a directory
	}{
		{"both have it", func(*testing.T, *originWorld, *originWorld) {}, "", false},
		{"the first is away", func(t *testing.T, a, b *originWorld) {
			if err := os.Rename(a.root, a.root+".away"); err != nil {
				t.Fatal(err)
			}
		}, "", false},
		{"the first is behind", func(t *testing.T, a, b *originWorld) {
			if err := os.Remove(filepath.Join(a.dir(base9), list)); err != nil {
				t.Fatal(err)
			}
		}, "", false},
		{"the first has another list under that name", func(t *testing.T, a, b *originWorld) {
			a.put(base9, map[string][]byte{list: other[otherList]})
		}, "", false},
		{"the first has a pipe there that nobody writes to", func(t *testing.T, a, b *originWorld) {
			name := filepath.Join(a.dir(base9), list)
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mkfifo(name, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "", true},
		{"neither has the right one", func(t *testing.T, a, b *originWorld) {
			a.put(base9, map[string][]byte{list: other[otherList]})
			b.put(base9, map[string][]byte{list: other[otherList]})
		}, "repomd.xml says", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, func(t *testing.T, overHTTP bool) {
				if tt.only && overHTTP {
					return // what a web server does with it is its own matter
				}
				a, b := emptyWorld(t, overHTTP), emptyWorld(t, overHTTP)
				a.put(base9, files)
				b.put(base9, files)
				a.opts.Tier0s = Origins{"main": {a.base, b.base}}
				a.start()
				a.poll()
				tt.edit(t, a, b)
				plan, known, err := ordered(t, a, path)
				if tt.fail != "" {
					if err == nil || !strings.Contains(err.Error(), tt.fail) || known {
						t.Errorf("plan %+v, error %v, want %q", plan, err, tt.fail)
					}
					return
				}
				if err != nil || plan == nil || plan.Size != int64(len("hello")) || plan.Checksum.Value != hexSum([]byte("hello")) {
					t.Errorf("plan %+v, error %v; want what the generation names", plan, err)
				}
			})
		})
	}
}

// A list that a wrong tier0 has named a file in does not make that file one of the
// generation.
func TestAWrongListNamesNothing(t *testing.T) {
	const path = "Packages/evil-1-1.x86_64.rpm"
	files := packagedGeneration(t, "100", map[string]string{"Packages/hello-1-1.x86_64.rpm": "hello"})
	a, b := emptyWorld(t, false), emptyWorld(t, false)
	a.put(base9, files)
	b.put(base9, files)
	a.opts.Tier0s = Origins{"main": {a.base, b.base}}
	a.start()
	a.poll()
	for name := range files {
		if strings.Contains(name, "primary") {
			for other, list := range packagedGeneration(t, "100", map[string]string{path: "evil"}) {
				if strings.Contains(other, "primary") {
					a.put(base9, map[string][]byte{name: list})
				}
			}
		}
	}
	if plan, known, err := ordered(t, a, path); err != nil || !known || plan != nil {
		t.Errorf("plan %+v, known %t, error %v; want that the generation does not name it", plan, known, err)
	}
}

// A library that reads from a tier0 which hangs ends when it is told to.
func TestAHungTier0HoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory(t.TempDir()+"/", "")
		for range cap(d.slots) {
			d.slots <- struct{}{} // as many as may hang, do
		}
		t1 := &tier0{tree: mainTree, base: d.root, documents: d}
		ctx, cancel := context.WithCancel(t.Context())
		primary := primaryData("repodata/primary.xml.gz", nil)
		ended := make(chan error, 1)
		go func() {
			_, _, err := t1.packages(ctx, "repodata/primary.xml.gz", base9, primary, nil)
			ended <- err
		}()
		time.Sleep(time.Second)
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("it ends with %v and was not told to", err)
		default:
		}
		cancel()
		if err := <-ended; err == nil {
			t.Error("a list that was never read is no list")
		}
	})
}
