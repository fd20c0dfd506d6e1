package syncer

import (
	"os/exec"
	"syscall"
)

// dieWithParent ends cmd when this process ends, however it ends: an rsync that
// goes on alone would write beside the one that resumes its work.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
