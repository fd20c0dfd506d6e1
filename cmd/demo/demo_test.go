package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"meridian/cmd/internal/daemon"
	"meridian/internal/testworld"
)

func TestTheDemoChecksItself(t *testing.T) {
	need(t)
	stdout, err := demoRun(t, "-listen", freeAddr(t), "-check")
	if err != nil {
		t.Fatalf("demo -check: %v\n%s", err, stdout)
	}
	if !strings.Contains(stdout, "ok      dnf ") {
		t.Errorf("the dnf line was not tried:\n%s", stdout)
	}
	nothingLeft(t)
}

// The screen is followed as a person would: the lines are pasted while the demo
// runs, and then it is interrupted.
func TestTheDemoShowsLinesThatWorkAsTheyAre(t *testing.T) {
	need(t)
	dir := filepath.Join(testworld.TempDir(t), "demo")
	t.Setenv("TMPDIR", testworld.TempDir(t))
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	listen := freeAddr(t)
	args := []string{"-listen", listen, "-dir", dir}
	r, w := io.Pipe()
	var stderr bytes.Buffer // read only after the end
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, daemon.Env{Args: args, Stdout: w, Stderr: &stderr})
		w.Close()
		ended <- err
	}()

	var screen, paste []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		screen = append(screen, line)
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "dnf ") || strings.HasPrefix(line, "unshare ") || strings.HasPrefix(line, "rpm ") {
			paste = append(paste, line)
		}
		if strings.HasPrefix(line, "Ctrl-C") {
			break
		}
	}
	if len(paste) != 2 {
		t.Errorf("%d lines to paste, want dnf and rpm", len(paste))
	}
	for _, line := range paste {
		out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", line).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
		if strings.Contains(line, "--query") && !strings.HasPrefix(string(out), "meridian-hello-1.") {
			t.Errorf("%s: %s", line, out)
		}
	}
	installEverywhere(t, "http://"+listen+"/", filepath.Join(dir, "keys", "public.asc"))
	interrupt()
	for lines.Scan() { // so that the demo can say goodbye
		screen = append(screen, lines.Text())
	}
	if err := <-ended; err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	if t.Failed() {
		t.Logf("the screen:\n%s\n\nthe log:\n%s", strings.Join(screen, "\n"), stderr.String())
	}
	nothingLeft(t)
}

// installEverywhere takes a package the whole way: dnf and zypper, for two
// versions and two architectures, by mirrorlist and by metalink.
func installEverywhere(t *testing.T, url, key string) {
	t.Helper()
	for client, make := range map[string]func(dir, arch, release string) (*testworld.Client, error){"dnf": testworld.NewDnf, "zypper": testworld.NewZypper} {
		for _, way := range []string{"mirrorlist", "metalink"} {
			for release, tag := range map[string]string{"9": "el9_8", "10": "el10_2"} {
				for _, arch := range []string{"x86_64", "aarch64"} {
					t.Run(strings.Join([]string{client, way, release, arch}, " "), func(t *testing.T) {
						testworld.Need(t, client)
						c, err := make(testworld.TempDir(t), arch, release)
						if err != nil {
							t.Fatal(err)
						}
						src := testworld.Source{ID: "demo", Key: key}
						ask := url + way + "/$releasever/baseos?arch=$basearch"
						if way == "metalink" {
							src.Metalink = ask
						} else {
							src.Mirrorlist = ask
						}
						if err := c.AddRepo(src); err != nil {
							t.Fatal(err)
						}
						res, err := c.Run(t.Context(), "install", demoPackage)
						if err != nil || res.Code != 0 {
							t.Fatalf("exit status %d: %v\n%s", res.Code, err, res.Output)
						}
						got, err := c.Installed(t.Context())
						if err != nil {
							t.Fatal(err)
						}
						if len(got) != 1 || !strings.HasPrefix(got[0], demoPackage+"-1.") || !strings.HasSuffix(got[0], tag+"."+arch) {
							t.Errorf("installed %q, want %s of %s for %s", got, demoPackage, tag, arch)
						}
					})
				}
			}
		}
	}
}

func TestTheDemoChoosesAPortWhenItsOwnIsTaken(t *testing.T) {
	m, err := testworld.StartMirror("127.0.0.1:0", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if taken, err := isTaken(m.Addr()); !taken || err != nil {
		t.Errorf("isTaken(%s) = %v, %v, but a server listens on it", m.Addr(), taken, err)
	}
	addr := freeAddr(t)
	if taken, err := isTaken(addr); taken || err != nil {
		t.Errorf("isTaken(%s) = %v, %v, but nobody listens on it", addr, taken, err)
	}
	if _, err := isTaken("192.0.2.1:80"); err == nil || !strings.Contains(err.Error(), "write an address of this machine") {
		t.Errorf("isTaken of another machine's address: %v", err)
	}
}

func TestTheDemoRefusesADirectoryThatHoldsSomething(t *testing.T) {
	need(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "mine")
	if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := demoRun(t, "-dir", dir)
	if err == nil || !strings.Contains(err.Error(), "is not empty; name a directory that is") {
		t.Errorf("demo -dir: %v", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "mine" {
		t.Errorf("the file in it: %q, %v", b, err)
	}
}

func TestTheDemoNamesEveryMissingProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := demoRun(t, "-check")
	if err == nil {
		t.Fatal("no error without any program")
	}
	for _, want := range []string{"rpmbuild", "rsync"} {
		if !strings.Contains(err.Error(), want+" is not installed") {
			t.Errorf("%s is not named: %v", want, err)
		}
	}
}

func TestQuoteIsUndoneByTheShell(t *testing.T) {
	for _, arg := range []string{"", "plain", "--a=b/c.d", "$basearch", "it's", `two  words`, "a&b?c=*", `\`, "ö"} {
		out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", "printf %s "+quote(arg)).Output()
		if err != nil || string(out) != arg {
			t.Errorf("quote(%q) = %s, which the shell reads as %q, %v", arg, quote(arg), out, err)
		}
	}
}

// need skips the test where a program is missing that the demo runs.
func need(t *testing.T) {
	t.Helper()
	for _, name := range []string{"rpmbuild", "rsync", "dnf", "rpm"} {
		testworld.Need(t, name)
	}
}

// demoRun runs the demo to its end in a TMPDIR of its own, and returns what it
// printed.
func demoRun(t *testing.T, args ...string) (string, error) {
	t.Helper()
	t.Setenv("TMPDIR", testworld.TempDir(t))
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), daemon.Env{Args: args, Stdout: &stdout, Stderr: &stderr})
	return stdout.String() + stderr.String(), err
}

// nothingLeft looks into the TMPDIR that the demo had.
func nothingLeft(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		t.Errorf("the demo left %s behind", f.Name())
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := testworld.FreeAddr("127.0.45.1")
	if err != nil {
		t.Fatal(err)
	}
	return addr
}
