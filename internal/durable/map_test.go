package durable

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// isMapped tells whether the file at path is mapped by this process.
func isMapped(t *testing.T, path string) bool {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skipf("cannot see what is mapped: %v", err)
	}
	return strings.Contains(string(maps), path)
}

func TestMap(t *testing.T) {
	for _, tt := range []struct {
		name   string
		size   int
		mode   os.FileMode
		mapped bool
	}{
		{"what only we can write is mapped", 12345, 0o644, true},
		{"what its group can write is read", 12345, 0o664, false},
		{"what everybody can write is read", 12345, 0o646, false},
		{"one byte", 1, 0o600, true},
		{"one byte that others can write", 1, 0o666, false},
		{"nothing", 0, 0o600, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			want := bytes.Repeat([]byte("content "), tt.size/8+1)[:tt.size]
			if err := os.WriteFile(path, want, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			m, err := Map(path)
			if err != nil {
				t.Fatal(err)
			}
			data := m.Bytes()
			if isMapped(t, path) != tt.mapped {
				t.Errorf("mapped: %t", !tt.mapped)
			}
			if uintptr(unsafe.Pointer(unsafe.SliceData(data)))%8 != 0 {
				t.Error("the memory does not begin at a multiple of 8")
			}
			// What a mapping is replaced by is another file; what was read is not
			// the file any more.
			if tt.mapped {
				err = WriteFile(path, []byte("new"), 0o600)
			} else {
				err = os.Truncate(path, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			m.Forget(data)
			m.Forget(data[len(data)/2:])
			if !bytes.Equal(data, want) {
				t.Errorf("%d other bytes than the %d that were written", len(data), len(want))
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if isMapped(t, path) {
				t.Error("it is mapped after Close")
			}
		})
	}
}

func TestMapRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, pipe, filepath.Join(dir, "absent"), "/dev/zero"} {
		if _, err := Map(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v", path, err)
		}
	}
}

// What is forgotten of a mapped file takes no memory, and is the same afterwards.
func TestForget(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	want := bytes.Repeat([]byte("content "), 1<<17)
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := Map(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	page := os.Getpagesize()
	for _, tt := range []struct {
		name  string
		part  []byte
		pages int // that are left
	}{
		{"all", m.Bytes(), 0},
		{"nothing", nil, len(want) / page},
		{"less than a page", m.Bytes()[1:page], len(want) / page},
		{"one page and parts of two", m.Bytes()[page-1 : 2*page+1], len(want)/page - 1},
		{"from inside of a page to the end", m.Bytes()[page+1:], 2},
	} {
		if !bytes.Equal(m.Bytes(), want) { // and all of it is in memory
			t.Fatalf("%s: the content has changed", tt.name)
		}
		m.Forget(tt.part)
		if got := residentPages(t, path); got != tt.pages {
			t.Errorf("%s forgotten: %d pages are in memory, want %d", tt.name, got, tt.pages)
		}
	}
}

// residentPages returns how many pages of a mapped file this process has in memory.
func residentPages(t *testing.T, path string) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skipf("cannot see what is in memory: %v", err)
	}
	_, after, ok := strings.Cut(string(maps), path+"\n")
	if !ok {
		t.Fatalf("%s is not mapped", path)
	}
	_, after, _ = strings.Cut(after, "\nRss:")
	var kB int
	if _, err := fmt.Sscan(after, &kB); err != nil {
		t.Fatal(err)
	}
	return kB << 10 / os.Getpagesize()
}
