package testworld

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A Client is a dnf or a zypper as somebody's machine has it: with an
// installation root, settings, caches and keys of its own, all below one
// directory, and nothing of the machine that it really runs on.
type Client struct {
	program string // "dnf" or "zypper"
	dir     string
	arch    string
	release string
}

// NewDnf sets up a dnf below dir, which must be absolute and not in use by another
// client. It installs for arch ("x86_64"; any, with --forcearch) and puts release
// in the place of $releasever.
func NewDnf(dir, arch, release string) (*Client, error) {
	c := &Client{"dnf", dir, arch, release}
	return c, c.write(map[string]string{"dnf.conf": "[main]\n"})
}

// NewZypper is NewDnf for zypper.
func NewZypper(dir, arch, release string) (*Client, error) {
	c := &Client{"zypper", dir, arch, release}
	return c, c.write(map[string]string{"zypp.conf": "[main]\narch = " + arch + "\n"})
}

// A Source is one section of a .repo file. Exactly one of the three URLs is set.
type Source struct {
	ID string

	Mirrorlist, Metalink, BaseURL string

	// Key is the armored public key that packages and metadata must be signed
	// with.
	Key string

	// Countme has dnf say once a week how old its system is.
	Countme bool
}

// AddRepo gives the client one repository to install from.
func (c *Client) AddRepo(s Source) error {
	var b strings.Builder
	fmt.Fprintf(&b, "[%s]\nname=%[1]s\nenabled=1\n", s.ID)
	for _, kv := range [][2]string{{"mirrorlist", s.Mirrorlist}, {"metalink", s.Metalink}, {"baseurl", s.BaseURL}} {
		if kv[1] != "" {
			fmt.Fprintf(&b, "%s=%s\n", kv[0], kv[1])
		}
	}
	fmt.Fprintf(&b, "gpgcheck=1\nrepo_gpgcheck=1\ngpgkey=file://%s\n", s.Key)
	if c.program == "dnf" {
		// Fail at once and for good: a test is no place for patience.
		b.WriteString("retries=1\nskip_if_unavailable=0\nmetadata_expire=0\n")
		if s.Countme {
			b.WriteString("countme=1\n")
		}
	} else {
		b.WriteString("type=rpm-md\nautorefresh=1\n")
	}
	return c.write(map[string]string{filepath.Join(c.reposDir(), s.ID+".repo"): b.String()})
}

// AddRepoFile gives the client a .repo file as it is.
func (c *Client) AddRepoFile(name, text string) error {
	return c.write(map[string]string{filepath.Join(c.reposDir(), name): text})
}

// RepoFiles is the directory of the client's .repo files.
func (c *Client) RepoFiles() string { return filepath.Join(c.dir, c.reposDir()) }

// Root is the installation root.
func (c *Client) Root() string { return filepath.Join(c.dir, "root") }

// reposDir is relative to dir. zypper looks for it in its root.
func (c *Client) reposDir() string {
	if c.program == "zypper" {
		return "root/etc/zypp/repos.d"
	}
	return "repos.d"
}

func (c *Client) write(files map[string]string) error {
	if !filepath.IsAbs(c.dir) {
		return fmt.Errorf("%s: %q is not an absolute path; the installation root must be one", c.program, c.dir)
	}
	for name, text := range files {
		file := filepath.Join(c.dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("%s: %w", c.program, err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return fmt.Errorf("%s: %w", c.program, err)
		}
	}
	return nil
}

// Args are the arguments that confine the program to the client's own
// directories, followed by args. They are also what a person pastes into a
// shell.
func (c *Client) Args(args ...string) []string {
	var own []string
	if c.program == "zypper" {
		own = []string{"--root", c.Root(), "--non-interactive", "--gpg-auto-import-keys", "--releasever", c.release}
	} else {
		own = []string{"-y", "--config=" + filepath.Join(c.dir, "dnf.conf"),
			"--installroot=" + c.Root(), "--releasever=" + c.release, "--forcearch=" + c.arch,
			"--setopt=reposdir=" + filepath.Join(c.dir, c.reposDir()),
			"--setopt=varsdir=" + filepath.Join(c.dir, "vars"),
			// Neither the machine's plugins nor its module platform are ours.
			"--setopt=pluginpath=" + filepath.Join(c.dir, "plugins"),
			"--setopt=module_platform_id=platform:el" + major(c.release)}
	}
	return append(own, args...)
}

// major is the part of a version that names the family: 9 of 9.8, 10 of 10-kitten.
func major(release string) string {
	if i := strings.IndexAny(release, ".-"); i >= 0 {
		return release[:i]
	}
	return release
}

// A Result is what a program printed, both streams in order, and its exit
// status.
type Result struct {
	Output string
	Code   int
}

// Run runs the program with Args(args...). The error is about running it at all;
// what it thinks of its task is in the Result.
func (c *Client) Run(ctx context.Context, args ...string) (Result, error) {
	cmd, err := c.command(ctx, c.program, c.Args(args...)...)
	if err != nil {
		return Result{}, err
	}
	out, err := c.wait(cmd)
	res := Result{Output: out, Code: cmd.ProcessState.ExitCode()}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		err = nil
	}
	return res, errors.Join(err, c.Close())
}

// Installed lists the packages of the installation root as rpm's database has
// them, by NEVRA. Keys are not packages.
func (c *Client) Installed(ctx context.Context) ([]string, error) {
	cmd, err := c.command(ctx, "rpm", "--root", c.Root(), "--query", "--all",
		"--queryformat", "%{name}-%{version}-%{release}.%{arch}\n")
	if err != nil {
		return nil, err
	}
	out, err := c.wait(cmd)
	if err != nil {
		return nil, fmt.Errorf("list what %s installed: %w", c.program, err)
	}
	var pkgs []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "gpg-pubkey-") {
			pkgs = append(pkgs, line)
		}
	}
	return pkgs, nil
}

// command prepares a program that believes that it is root. HOME matters: Debian's
// rpm keeps its database at that path inside the root.
func (c *Client) command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	home := filepath.Join(c.dir, "home")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	cmd, err := command(ctx, home, name, args...)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env,
		"ZYPP_CONF="+filepath.Join(c.dir, "zypp.conf"),
		"ZYPPTMPDIR="+home) // it heeds no TMPDIR
	asRoot(cmd)
	return cmd, nil
}

// wait runs cmd to its end, as a child that cannot outlive this process, and
// returns what it printed.
func (c *Client) wait(cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	child, err := Start(cmd)
	if err != nil {
		return "", err
	}
	if err := child.Err(); err != nil {
		return out.String(), fmt.Errorf("%w\n%s", err, bytes.TrimSpace(out.Bytes()))
	}
	return out.String(), nil
}

// Close ends the agents that gpg left running for the keyrings of the client's
// repositories. Run does so itself; whoever runs the program in another way calls
// Close afterwards.
func (c *Client) Close() error {
	keyrings, err := filepath.Glob(filepath.Join(c.Root(), "var/cache/dnf/*/pubring"))
	if err != nil {
		return fmt.Errorf("%s: %w", c.program, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var errs []error
	for _, dir := range keyrings {
		errs = append(errs, stopAgent(ctx, dir))
	}
	return errors.Join(errs...)
}
