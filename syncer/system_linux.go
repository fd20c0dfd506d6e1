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

// syncFS writes out the file system that f is on.
func syncFS(f *os.File) error { return unix.Syncfs(int(f.Fd())) }
