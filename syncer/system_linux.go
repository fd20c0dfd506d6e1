package syncer

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithParent ends cmd when this process ends, however it ends: an rsync that
// goes on alone would write beside the one that resumes its work.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// limitMemory bounds the address space of a child. Where that is not allowed, the
// child goes without.
func limitMemory(pid int, bytes uint64) {
	unix.Prlimit(pid, unix.RLIMIT_AS, &unix.Rlimit{Cur: bytes, Max: bytes}, nil)
}

// syncFS writes out the file system that f is on.
func syncFS(f *os.File) error { return unix.Syncfs(int(f.Fd())) }
