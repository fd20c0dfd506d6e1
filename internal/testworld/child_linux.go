package testworld

import (
	"os"
	"os/exec"
	"syscall"
)

// ownGroup makes cmd the head of a process group of its own, to be killed as one,
// and has the kernel kill it when the thread that starts it ends: not even a
// killed test leaves it behind.
func ownGroup(cmd *exec.Cmd) {
	attr(cmd).Setpgid = true
	attr(cmd).Pdeathsig = syscall.SIGKILL
}

// asRoot makes cmd believe that it is root, as rpm must to install anything, when
// it is not: in a user namespace whose root is the caller.
func asRoot(cmd *exec.Cmd) {
	if os.Geteuid() == 0 {
		return
	}
	a := attr(cmd)
	a.Cloneflags |= syscall.CLONE_NEWUSER
	a.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
}

func attr(cmd *exec.Cmd) *syscall.SysProcAttr {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	return cmd.SysProcAttr
}
