package hugepages

import "syscall"

// advise asks for huge pages: most systems give them to nobody else. One that has
// none says so, and the memory is as good without.
func advise(mem []byte) { _ = syscall.Madvise(mem, syscall.MADV_HUGEPAGE) }
