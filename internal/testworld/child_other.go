//go:build !linux

package testworld

import (
	"os/exec"
	"syscall"
)

// ownGroup makes cmd the head of a process group of its own. Only Linux can also
// promise that it ends with its parent.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// asRoot does nothing: rpm needs a real root where there are no user namespaces.
func asRoot(*exec.Cmd) {}
