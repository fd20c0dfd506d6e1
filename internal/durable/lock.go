package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// ErrLocked is returned by TryLock while somebody else holds the lock.
var ErrLocked = errors.New("locked by another process")

// A Lock is held until Unlock is called or the process ends, however it ends.
// It is advisory: it keeps out only those who ask.
type Lock struct {
	f *os.File
}

// TryLock takes the lock that the file path stands for, and writes the number
// of this process into the file for people to read. It does not wait: while the
// lock is held elsewhere, also by this process, the error is [ErrLocked] and
// names the holder.
//
// The file stays when the lock is released: to remove it would let two
// processes hold a lock of the same name. It must be on a local file system.
func TryLock(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("durable: lock: %w", err)
	}
	if err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("durable: lock %s: %w%s", path, ErrLocked, holder(f))
		}
		return nil, fmt.Errorf("durable: lock %s: %w", path, err)
	}
	if err := sign(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("durable: lock %s: %w", path, err)
	}
	return &Lock{f: f}, nil
}

// Unlock releases the lock. Calling it again does nothing.
func (l *Lock) Unlock() error {
	// To close the file would not be enough: a process that is just being started
	// has it too, until its program begins.
	unlockErr := flock(l.f, syscall.LOCK_UN)
	err := l.f.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return errors.Join(unlockErr, err)
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if err != syscall.EINTR {
			return err
		}
	}
}

// sign writes the process number over that of the previous holder. Nobody
// relies on it, so it need not be durable.
func sign(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// Holder returns the number of the process that took the lock of path last, 0 if
// that is not known.
func Holder(path string) (pid int) {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	return signed(f)
}

// holder says who holds the lock, as the tail of an error message; "" when the
// holder has not signed yet.
func holder(f *os.File) string {
	if pid := signed(f); pid != 0 {
		return fmt.Sprintf(" (process %d)", pid)
	}
	return ""
}

// signed returns the number that sign has written, 0 if there is none yet.
func signed(f *os.File) int {
	b, _ := io.ReadAll(io.NewSectionReader(f, 0, 32))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}
