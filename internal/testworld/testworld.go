// Package testworld builds small mirror networks out of real parts: packages
// made by rpmbuild, repositories made by createrepo_c and signed by gpg, mirrors
// that listen on loopback and misbehave on request, and dnf and zypper with an
// installation root of their own. Tests and the demo share it. It never talks to
// another machine, never reads or changes the state of this one outside the
// directories that it is given, and is never linked into a daemon.
package testworld

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"meridian/internal/testworld/counterpart"
)

// companions are programs that nothing of ours is tested against, but that come
// with those that are.
var companions = []counterpart.Program{
	{Name: "gpg-agent", Debian: "gpg-agent", EL: "gnupg2"},
	{Name: "gpgconf", Debian: "gnupg", EL: "gnupg2"},
	{Name: "rpmkeys", Debian: "rpm", EL: "rpm"},
	{Name: "rpmsign", Debian: "rpm", EL: "rpm-sign"},
}

// Programs reports all of the named programs that are not installed, as one
// error that says how to get them; nil when everything is there.
func Programs(names ...string) error {
	var errs []error
	for _, name := range names {
		if _, err := program(name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// program returns the path of one of the counterparts or their companions.
func program(name string) (string, error) {
	known, err := counterpart.All()
	if err != nil {
		return "", err
	}
	for _, c := range append(known, companions...) {
		if c.Name == name {
			return c.Find()
		}
	}
	return "", fmt.Errorf("%s is not among the counterparts: add a line to counterparts.txt", name)
}

// environ is what every program is started with: a language that messages can
// be read in, a home directory below dir, and nothing of the caller's own but
// the search path. Go's variables stay away too: a builder that listens to
// GOFLAGS is not among these programs.
func environ(dir string, more ...string) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin",
		"LC_ALL=C",
		"TZ=UTC",
		"HOME=" + dir,
		"TMPDIR=" + dir,
	}
	return append(env, more...)
}

// output runs cmd and returns what it printed, both streams in order. An error
// carries the program's own words, for that is what helps.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, text)
	}
	return text, nil
}

// command is exec.CommandContext for a program that must be installed, run
// with the environment above. home must exist.
func command(ctx context.Context, home, name string, args ...string) (*exec.Cmd, error) {
	path, err := program(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = environ(home)
	return cmd, nil
}

// TempDir is t.TempDir for programs with processes of their own. Its path leaves
// room for the name of a socket: gpg puts some below the roots of clients. And it
// can be removed while a process that has been told to end still puts files there,
// as those of a browser do.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tick, late := time.NewTicker(10*time.Millisecond), time.After(5*time.Minute)
		defer tick.Stop()
		for {
			err := os.RemoveAll(dir)
			if err == nil {
				return
			}
			if !errors.Is(err, syscall.ENOTEMPTY) {
				t.Error(err)
				return
			}
			select {
			case <-tick.C:
			case <-late:
				t.Error(err)
				return
			}
		}
	})
	return dir
}
