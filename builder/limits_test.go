package builder

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// mount puts a file system of its own on a directory, which only root may.
func mount(t *testing.T, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		if errors.Is(err, syscall.EPERM) {
			t.Skipf("mount %s: %v; this test wants root", target, err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(target, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestAFullDiskLeavesTheOldRepository(t *testing.T) {
	r := newRepository(t, 200)
	if err := os.Mkdir(r.path("repodata"), 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, "tmpfs", r.path("repodata"), "tmpfs", 0, "size=400k")
	r.make(nil)
	before := r.state()
	Generate(t, r.path("Packages"), 2000, 0)
	for path, stamp := range r.state() {
		if filepath.Dir(path) == r.path("Packages") {
			before[path] = stamp
		}
	}
	_, err := r.try(t.Context(), update)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, want that the disk is full", err)
	}
	if after := r.state(); !maps.Equal(before, after) {
		t.Errorf("the old repository is not what it was: %d files, were %d", len(after), len(before))
	}
	texts(t, r.dir)
}

func TestAReadOnlyRepositoryIsAnError(t *testing.T) {
	r := newRepository(t, 3)
	r.make(nil)
	r.write("Packages/new.rpm", onePackage(t, 77))
	mount(t, r.dir, r.dir, "", syscall.MS_BIND, "")
	if err := syscall.Mount("", r.dir, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := r.try(t.Context(), update); !errors.Is(err, syscall.EROFS) {
		t.Errorf("%v, want that the file system is read-only", err)
	}
}

// What is in memory at once are a few batches and the names of the packages. The
// real sizes are measured by cmd/bench, with 50,000.
func TestMemoryIsNotThatOfAllPackages(t *testing.T) {
	live := func(n int, o RepoOptions) (most uint64) {
		calls := 0
		o.Progress = func(done, total int) {
			if calls++; calls%4 != 0 {
				return
			}
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
		if _, err := Repo(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		return most
	}
	const few, many = 1000, 4000
	var peaks [2][2]uint64 // cold and updated, of few and of many
	for i, n := range []int{few, many} {
		r := newRepository(t, n)
		o := r.options
		o.Workers = 1
		peaks[0][i] = live(n, o)
		o.Update = true
		r.write("Packages/new.rpm", onePackage(t, 77))
		peaks[1][i] = live(n, o)
	}
	for i, name := range []string{"cold", "updated"} {
		// The text of a package in the lists is some 15 kB, and the largest
		// batch of many is larger than that of few.
		if grown := int64(peaks[i][1]) - int64(peaks[i][0]); grown > (many-few)*4000 {
			t.Errorf("%s: %d bytes for %d packages, %d for %d", name, peaks[i][0], few, peaks[i][1], many)
		}
	}
}
