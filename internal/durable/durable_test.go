package durable

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

func TestWriteFileReplacesContentAndPermissions(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	path := filepath.Join(t.TempDir(), "f")
	for _, tt := range []struct {
		data string
		perm fs.FileMode
	}{
		{"first", 0o644},
		{"second, which is longer", 0o600},
		{"", 0o640},
	} {
		if err := WriteFile(path, []byte(tt.data), tt.perm); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != tt.data {
			t.Errorf("after WriteFile(%q): %q, %v", tt.data, got, err)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode() != tt.perm {
			t.Errorf("mode %v, want %v", st.Mode(), tt.perm)
		}
	}
	wantNames(t, filepath.Dir(path), "f")
}

func TestWriteLeavesTheTargetOfALinkAlone(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", link); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(link, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(target); string(got) != "kept" {
		t.Errorf("target of the link holds %q", got)
	}
	if got, _ := os.ReadFile(link); string(got) != "new" {
		t.Errorf("the link holds %q", got)
	}
}

func TestWriteInTheWorkingDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := WriteFile("f", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantNames(t, ".", "f")
}

// What cannot be written changes nothing and leaves nothing behind.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "old")
	if err := os.WriteFile(old, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	full := errors.New("no more to say")

	t.Run("when fill fails half way", func(t *testing.T) {
		err := Write(old, 0o644, func(w io.Writer) error {
			// More than any buffer holds.
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				t.Error(err)
			}
			return full
		})
		if !errors.Is(err, full) {
			t.Errorf("error %v, want %v in it", err, full)
		}
	})
	t.Run("when fill panics", func(t *testing.T) {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		Write(old, 0o644, func(io.Writer) error { panic("fill") })
	})
	t.Run("when the directory is a file", func(t *testing.T) {
		err := WriteFile(filepath.Join(old, "f"), nil, 0o644)
		if !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("error %v, want %v in it", err, syscall.ENOTDIR)
		}
	})
	t.Run("when the directory is not there", func(t *testing.T) {
		err := WriteFile(filepath.Join(dir, "none", "f"), nil, 0o644)
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v, want %v in it", err, fs.ErrNotExist)
		}
	})
	t.Run("when the path is a directory", func(t *testing.T) {
		sub := filepath.Join(dir, "sub")
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(sub, []byte("x"), 0o644); err == nil {
			t.Error("no error")
		}
		if err := os.Remove(sub); err != nil {
			t.Fatal(err)
		}
	})

	if got, _ := os.ReadFile(old); string(got) != "old" {
		t.Errorf("the file holds %q, want what it held before", got)
	}
	wantNames(t, dir, "old")
}

func TestWriteToAReadOnlyDirectory(t *testing.T) {
	dir := t.TempDir()
	if os.Geteuid() == 0 {
		// Permissions do not stop root; a read-only file system does.
		mount(t, dir, "size=64k")
		remountReadOnly(t, dir)
	} else if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	err := WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644)
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		t.Errorf("error %v, want that nobody may write here", err)
	}
	wantNames(t, dir)
}

func TestWriteToAFullDisk(t *testing.T) {
	dir := t.TempDir()
	mount(t, dir, "size=64k")
	path := filepath.Join(dir, "f")
	if err := WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := WriteFile(path, make([]byte, 1<<20), 0o644)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v, want %v in it", err, syscall.ENOSPC)
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Errorf("the file holds %d bytes, want what it held before", len(got))
	}
	wantNames(t, dir, "f")
}

// mount puts a small file system of its own on dir, which needs root.
func mount(t *testing.T, dir, options string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}

func remountReadOnly(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
}

func TestStageShowsNothingBeforeCommit(t *testing.T) {
	dir := t.TempDir()
	path, tmp := filepath.Join(dir, "f"), filepath.Join(dir, "next")
	if err := WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	stage := func(text string) *Staged {
		t.Helper()
		s, err := Stage(tmp, path, 0o640, func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	want := func(text string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("the file holds %q, %v; want %q", got, err, text)
		}
	}
	stage("longer than what is staged next")
	s := stage("new")
	want("old")
	if err := s.Commit(); err != nil {
		t.Error(err)
	}
	want("new")
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	wantNames(t, dir, "f")

	stage("not wanted").Discard()
	wantNames(t, dir, "f")

	// Whoever takes over removes what is staged.
	s = stage("too late")
	if err := os.Remove(tmp); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("commit of what is gone: %v, want %v in it", err, fs.ErrNotExist)
	}
	want("new")
	wantNames(t, dir, "f")
}

func TestStageFails(t *testing.T) {
	dir := t.TempDir()
	no := errors.New("no more to say")
	tmp := filepath.Join(dir, "next")
	if s, err := Stage(tmp, filepath.Join(dir, "f"), 0o644, func(io.Writer) error { return no }); s != nil || !errors.Is(err, no) {
		t.Errorf("%v, %v; want %v in it", s, err, no)
	}
	if _, err := Stage(filepath.Join(dir, "none", "next"), filepath.Join(dir, "f"), 0o644, func(io.Writer) error { return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want %v in it", err, fs.ErrNotExist)
	}
	if err := os.Mkdir(filepath.Join(dir, "f"), 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := Stage(tmp, filepath.Join(dir, "f"), 0o644, func(io.Writer) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(); err == nil {
		t.Error("a directory is replaced by a file")
	}
	wantNames(t, dir, "f")
}

// Readers that open the file again and again while it is being replaced see one
// whole content or the other.
func TestReadersSeeOldOrNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	contents := [][]byte{bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), 300_000)}
	if err := WriteFile(path, contents[0], 0o644); err != nil {
		t.Fatal(err)
	}
	var done atomic.Bool
	var reads [2]atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !done.Load() {
				got, err := os.ReadFile(path)
				switch {
				case err != nil:
					t.Error(err)
					return
				case bytes.Equal(got, contents[0]):
					reads[0].Add(1)
				case bytes.Equal(got, contents[1]):
					reads[1].Add(1)
				default:
					t.Errorf("read %d bytes that nobody wrote as a whole", len(got))
					return
				}
			}
		})
	}
	// At least 100 replacements, and more until both contents were seen often.
	for i := 1; !t.Failed() && (i <= 100 || reads[0].Load() < 10 || reads[1].Load() < 10); i++ {
		if err := WriteFile(path, contents[i%2], 0o644); err != nil {
			t.Error(err)
		}
	}
	done.Store(true)
	wg.Wait()
}

func TestSyncDir(t *testing.T) {
	if err := SyncDir(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := SyncDir(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want %v in it", err, fs.ErrNotExist)
	}
}

// wantNames fails the test unless dir holds exactly the names given.
func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}
