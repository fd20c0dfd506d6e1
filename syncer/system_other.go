//go:build !linux

package syncer

import (
	"os"
	"os/exec"
	"syscall"
)

// dieWithParent does nothing here: an rsync whose publisher was killed ends when
// it next writes to its standard output.
func dieWithParent(*exec.Cmd) {}

// limitMemory does nothing here: there is no way to limit another process.
func limitMemory(int, uint64) {}

// syncFS writes out everything: there is no way to name one file system.
func syncFS(*os.File) error {
	syscall.Sync()
	return nil
}
