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

// A Mapping is the content of a file in memory.
type Mapping struct {
	data   []byte
	mapped bool
}

// Map returns the content of the regular file at path. The file is mapped if it
// belongs to the user of this process and nobody else may write to it; any other is
// read. A mapped file must be replaced by renaming, as Write does, never
// overwritten: who reads behind its new end is killed.
func Map(path string) (*Mapping, error) {
	f, err := OpenRegular(path)
	if err != nil {
		return nil, fmt.Errorf("durable: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("durable: %w", err)
	}
	size := st.Size()
	if size > math.MaxInt-8 {
		return nil, fmt.Errorf("durable: %s has %d bytes, more than the memory", path, size)
	}
	if size > 0 && ours(st) {
		data, err := syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
		if err == nil {
			return &Mapping{data, true}, nil
		}
		// Not every file system can map: read it.
	}
	words := make([]uint64, (size+7)/8)
	data := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)[:size]
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("durable: %w", &fs.PathError{Op: "read", Path: path, Err: err})
	}
	return &Mapping{data, false}, nil
}

// Bytes returns the content, which begins at a multiple of 8 and must not be
// written to.
func (m *Mapping) Bytes() []byte { return m.data }

// Forget says that a part of Bytes will hardly be read again: what is mapped is in
// the file, and takes no memory of this process until somebody does.
func (m *Mapping) Forget(part []byte) {
	page := uintptr(os.Getpagesize())
	begin := -uintptr(unsafe.Pointer(unsafe.SliceData(part))) % page
	if !m.mapped || uintptr(len(part)) < begin+page {
		return
	}
	whole := part[begin:]
	whole = whole[:uintptr(len(whole))/page*page]
	drop(whole)
}

// Close gives the memory back, once and after the last use of it.
func (m *Mapping) Close() error {
	if !m.mapped {
		return nil
	}
	return syscall.Munmap(m.data)
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
