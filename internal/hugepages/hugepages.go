// Package hugepages gives out memory for tables of many megabytes that are read
// all over, outside of the Go heap: on huge pages where the system has them. A
// table of 20 MB is 5,000 pages of 4 KB, which no processor remembers the places
// of, and ten huge ones, which all do.
package hugepages

import (
	"syscall"
	"unsafe"
)

// size is that of a huge page, on x86-64 and on most other machines.
const size = 2 << 20

// Alloc returns n bytes of zeros that begin at a multiple of 8. It never fails:
// where there are no huge pages, or for less than one, they are ordinary memory.
// What nobody touches takes none, to the next huge page.
//
// Release gives them back, once and after the last use: no collector knows who
// uses them. It is never nil.
func Alloc(n int) (mem []byte, release func() error) {
	if n >= size {
		// Room to begin where a huge page does.
		all, err := syscall.Mmap(-1, 0, n+size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
		if err == nil {
			mem = all[-uintptr(unsafe.Pointer(unsafe.SliceData(all)))%size:][:n:n]
			advise(mem)
			return mem, func() error { return syscall.Munmap(all) }
		}
	}
	words := make([]uint64, (n+7)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)[:n:n], func() error { return nil }
}

// Make returns n zeros on the Go heap, where the collector knows who uses them,
// also on huge pages as far as it fills some. What is fresh from the system and is
// written once then costs a fault for each huge page and not for each 4 KB.
func Make(n int) []uint32 {
	s := make([]uint32, n)
	mem := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), 4*n)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(mem))) % size)
	if whole := (len(mem) - skip) &^ (size - 1); whole > 0 {
		advise(mem[skip:][:whole])
	}
	return s
}
