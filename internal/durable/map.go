package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"syscall"
	"unsafe"
)

// Map returns the content of the regular file at path, in memory that begins at a
// multiple of 8 and must not be written to. The file is mapped if it belongs to
// the user of this process and nobody else may write to it; any other is read. A
// mapped file must be replaced by renaming, as Write does, never overwritten: who
// reads behind its new end is killed.
//
// Release gives the memory back, once and after the last use of it. It is never
// nil.
func Map(path string) (data []byte, release func() error, err error) {
	none := func() error { return nil }
	f, err := OpenRegular(path)
	if err != nil {
		return nil, none, fmt.Errorf("durable: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, none, fmt.Errorf("durable: %w", err)
	}
	size := st.Size()
	if size > math.MaxInt-8 {
		return nil, none, fmt.Errorf("durable: %s has %d bytes, more than the memory", path, size)
	}
	if size > 0 && ours(st) {
		data, err := syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
		if err == nil {
			return data, func() error { return syscall.Munmap(data) }, nil
		}
		// Not every file system can map: read it.
	}
	words := make([]uint64, (size+7)/8)
	data = unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)[:size]
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, none, fmt.Errorf("durable: %w", &fs.PathError{Op: "read", Path: path, Err: err})
	}
	return data, none, nil
}

// OpenRegular opens a file to read, and refuses what is not a file: to open a
// named pipe would wait for a writer.
func OpenRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ours reports whether nobody else can change the content of a file.
func ours(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Geteuid() && st.Mode().Perm()&0o022 == 0
}
