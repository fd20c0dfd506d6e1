package durable

import (
	"bytes"
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
			data, release, err := Map(path)
			if err != nil {
				t.Fatal(err)
			}
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
			if !bytes.Equal(data, want) {
				t.Errorf("%d other bytes than the %d that were written", len(data), len(want))
			}
			if err := release(); err != nil {
				t.Error(err)
			}
			if isMapped(t, path) {
				t.Error("it is mapped after the release")
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
		data, release, err := Map(path)
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %d bytes, error %v", path, len(data), err)
		}
		if err := release(); err != nil {
			t.Error(err)
		}
	}
}
