package durable

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// lockEnv makes the test binary take the lock it names, say so, and hold it
// until it is killed.
const lockEnv = "DURABLE_TEST_LOCK"

func TestMain(m *testing.M) {
	if path := os.Getenv(lockEnv); path != "" {
		if _, err := TryLock(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		bufio.NewReader(os.Stdin).ReadByte() // until the parent is gone, too
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestLockKeepsOthersOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != strconv.Itoa(os.Getpid())+"\n" {
		t.Errorf("the lock file holds %q, want the number of this process", got)
	}
	if second, err := TryLock(path); !errors.Is(err, ErrLocked) {
		t.Fatalf("second TryLock = %v, %v; want %v", second, err, ErrLocked)
	}
	for range 2 {
		if err := first.Unlock(); err != nil {
			t.Fatal(err)
		}
	}
	third, err := TryLock(path)
	if err != nil {
		t.Fatalf("after Unlock: %v", err)
	}
	third.Unlock()
}

// While a process is being started it has all open files of its parent.
func TestUnlockWhileAnotherHasTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	same, err := syscall.Dup(int(lock.f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(same)
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	again, err := TryLock(path)
	if err != nil {
		t.Fatalf("after Unlock: %v", err)
	}
	again.Unlock()
}

func TestLockEndsWithItsProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	// What a former holder left, longer than a number, does not show through.
	if err := os.WriteFile(path, []byte("99999999999 and more\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), lockEnv+"="+path)
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	said, _ := bufio.NewReader(stdout).ReadString('\n')
	if said != "locked\n" {
		t.Errorf("the child says %q", said)
	}

	_, err = TryLock(path)
	if !errors.Is(err, ErrLocked) {
		t.Errorf("while the child holds it: %v, want %v", err, ErrLocked)
	}
	if want := fmt.Sprintf("(process %d)", child.Process.Pid); err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not say %q", err, want)
	}

	child.Process.Kill()
	child.Wait()
	l, err := TryLock(path)
	if err != nil {
		t.Fatalf("after the child was killed: %v", err)
	}
	l.Unlock()
}

func TestLockWhereNoFileCanBe(t *testing.T) {
	if _, err := TryLock(filepath.Join(t.TempDir(), "none", "lock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want %v in it", err, os.ErrNotExist)
	}
}
