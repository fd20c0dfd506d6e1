package durable

import "syscall"

// drop takes whole pages of a mapped file out of the memory of this process.
func drop(pages []byte) { _ = syscall.Madvise(pages, syscall.MADV_DONTNEED) }
