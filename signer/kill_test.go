package signer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"meridian/signer/verify"
)

// killEnv makes the test binary sign the package whose path it holds, by one key
// and the other in turn, until it is killed. The keys are beside the package.
const killEnv = "SIGNER_TEST_SIGN"

func TestMain(m *testing.M) {
	if path := os.Getenv(killEnv); path != "" {
		fmt.Println(signForEver(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func signForEver(path string) error {
	var keys [2]*Key
	for i := range keys {
		var err error
		if keys[i], err = Open(filepath.Join(filepath.Dir(path), fmt.Sprintf("key%d", i)), nil, ""); err != nil {
			return err
		}
	}
	go func() {
		// Until the parent is gone, too.
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for i := 0; ; i++ {
		files := []verify.Artifact{{Path: path, Rel: "a.rpm", Type: verify.Package}}
		var err error
		if e := keys[i%2].Sign(context.Background(), files, Options{}, func(r Result) { err = r.Err }); e != nil {
			return e
		}
		if err != nil {
			return err
		}
	}
}

// Whenever the signer is killed, the package is one that it was before or after.
func TestKilledInTheMiddle(t *testing.T) {
	const size = 8 << 20
	dir := t.TempDir()
	path := put(t, filepath.Join(dir, "a.rpm"), enlarged(t, size))
	var both []byte
	for i := range 2 {
		made := generate(t, NewKeyOptions{Type: Ed25519})
		key := put(t, filepath.Join(dir, fmt.Sprintf("key%d", i)), made.Private)
		if err := os.Chmod(key, 0o600); err != nil {
			t.Fatal(err)
		}
		both = append(both, made.Public...)
	}
	ring, err := verify.NewRing(both)
	if err != nil {
		t.Fatal(err)
	}
	c := verify.Checker{Keys: ring, AllDigests: true}

	inode := func() os.FileInfo {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	// written is how much of the new file there is, -1 for no file.
	written := func() int64 {
		names, _ := filepath.Glob(filepath.Join(dir, ".a.rpm.tmp-*"))
		for _, name := range names {
			if info, err := os.Stat(name); err == nil {
				return info.Size()
			}
		}
		return -1
	}
	for _, step := range []struct {
		name string
		now  func(before os.FileInfo) bool
	}{
		{"when the new file is there", func(os.FileInfo) bool { return written() >= 0 }},
		{"when it has its head", func(os.FileInfo) bool { return written() > 0 }},
		{"when half of it is there", func(os.FileInfo) bool { return written() > size/2 }},
		{"when all of it is there", func(os.FileInfo) bool { return written() > size }},
		{"when it is in its place", func(before os.FileInfo) bool { return !os.SameFile(before, inode()) }},
	} {
		t.Run(step.name, func(t *testing.T) {
			before := inode()
			child := exec.CommandContext(t.Context(), os.Args[0])
			child.Env = append(os.Environ(), killEnv+"="+path)
			var out bytes.Buffer
			child.Stdout, child.Stderr = &out, &out
			stdin, err := child.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { child.Wait(); close(ended) }()
			for !step.now(before) {
				select {
				case <-ended:
					t.Fatalf("the signer ended by itself: %s", &out)
				default:
					runtime.Gosched()
				}
			}
			child.Process.Kill()
			<-ended
			_, found := c.Package(path)
			for _, f := range found {
				if f.Kind != verify.Unsigned { // as it was at first
					t.Errorf("the package is neither old nor new: %s", f)
				}
			}
			// What is left of the new one does not end in .rpm, and nobody takes it
			// for a package.
			for _, name := range ls(t, dir) {
				if strings.Contains(name, ".tmp-") {
					if strings.HasSuffix(name, ".rpm") {
						t.Errorf("left behind: %s", name)
					}
					os.Remove(filepath.Join(dir, name))
				}
			}
		})
	}
	if _, found := c.Package(path); len(found) > 0 {
		t.Errorf("after all this: %q", found)
	}
}
