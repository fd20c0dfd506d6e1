package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var signing = section{
	name:  "sign",
	about: "CPU time of signing beside rpmsign, and of verifying beside hashing",
	run:   runSigning,
}

// signedSizes are the packages that are signed, by the size of what is in them:
// 0.6 MB in the mean, as in a distribution.
var signedSizes = []struct{ count, size int }{{30, 20 << 10}, {20, 300 << 10}, {10, 3 << 20}}

func runSigning(ctx context.Context, b *bench) error {
	for _, program := range []string{"rpmbuild", "rpmsign", "gpg"} {
		if !b.has(program, "signing, beside rpmsign") {
			return nil
		}
	}
	program, err := b.build(ctx, "cmd/signer", false)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "signing")
	unsigned := filepath.Join(dir, "unsigned")
	if err := buildLikeADistribution(ctx, dir, unsigned); err != nil {
		return err
	}
	keys := filepath.Join(dir, "keys")
	if _, err := output(exec.CommandContext(ctx, program, "keygen", "-out", keys, "-name", "Bench", "-email", "bench@example.org", "-no-passphrase")); err != nil {
		return err
	}
	agent, err := startAgent(ctx, filepath.Join(keys, "private.asc"))
	if err != nil {
		return err
	}
	defer agent.stop()

	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	var own, foreign []time.Duration
	packages := 0
	for range rounds {
		for _, tree := range []string{ours, theirs} {
			if err := os.RemoveAll(tree); err != nil {
				return err
			}
			if err := os.CopyFS(tree, os.DirFS(unsigned)); err != nil {
				return err
			}
		}
		files, err := filepath.Glob(filepath.Join(theirs, "*.rpm"))
		if err != nil {
			return err
		}
		packages = len(files)

		sign := exec.CommandContext(ctx, program, "sign", "-key", filepath.Join(keys, "private.asc"), ours)
		oneCPU(sign)
		used, err := usedBy(sign)
		if err != nil {
			return err
		}
		own = append(own, used)

		if used, err = agent.rpmsign(ctx, files); err != nil {
			return err
		}
		foreign = append(foreign, used)
	}
	if packages == 0 {
		return errors.New("no packages were built")
	}
	a, z := median(own).Seconds(), median(foreign).Seconds()
	b.note("signing with RSA-4096, a package", value{a / float64(packages) * 1e3, "ms CPU"})
	b.note("the same by rpmsign, gpg and its agent", value{z / float64(packages) * 1e3, "ms CPU"})
	b.gate("signing / rpmsign", value{a / z, "×"}, 1/1.5)
	return runVerifying(ctx, b, program, filepath.Join(keys, "public.asc"), ours)
}

// passes is how often the tree is verified by one process: a real one has thousands
// of packages, and starting is not what is measured.
const passes = 5

// runVerifying compares what verifying a signed tree costs with what it costs to
// read and hash it.
func runVerifying(ctx context.Context, b *bench, program, public, tree string) error {
	files, err := filepath.Glob(filepath.Join(tree, "*.rpm"))
	if err != nil {
		return err
	}
	trees := slices.Repeat([]string{tree}, passes)
	files = slices.Repeat(files, passes)
	foreign := b.has("sha256sum", "verifying / sha256sum")
	var own, floor, sum []time.Duration
	for range rounds {
		verify := exec.CommandContext(ctx, program, append([]string{"verify", "-pub", public}, trees...)...)
		oneCPU(verify)
		used, err := usedBy(verify)
		if err != nil {
			return err
		}
		own = append(own, used)
		if used, err = hashAll(files); err != nil {
			return err
		}
		floor = append(floor, used)
		if foreign {
			if used, err = usedBy(exec.CommandContext(ctx, "sha256sum", files...)); err != nil {
				return err
			}
			sum = append(sum, used)
		}
	}
	a := median(own).Seconds()
	b.note("verifying, a package", value{a / float64(len(files)) * 1e3, "ms CPU"})
	b.note("verifying / reading and hashing in one loop", value{a / median(floor).Seconds(), "×"})
	if foreign {
		b.gate("verifying / sha256sum of the same files", value{a / median(sum).Seconds(), "×"}, 1)
	}
	return nil
}

// hashAll is the least that verifying can cost.
func hashAll(files []string) (time.Duration, error) {
	before, err := ownCPU()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return 0, err
		}
		h := sha256.New()
		_, err = io.CopyBuffer(h, struct{ io.Reader }{f}, buf)
		f.Close()
		if err != nil {
			return 0, err
		}
		h.Sum(nil)
	}
	after, err := ownCPU()
	return after - before, err
}

// ownCPU is what this process has run so far.
func ownCPU() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// usedBy runs a command, and returns what it and its children have run.
func usedBy(cmd *exec.Cmd) (time.Duration, error) {
	if _, err := output(cmd); err != nil {
		return 0, err
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// buildLikeADistribution builds packages of signedSizes in one run, whose payloads
// are noise that nothing makes smaller.
func buildLikeADistribution(ctx context.Context, work, pool string) error {
	if err := os.MkdirAll(pool, 0o755); err != nil {
		return err
	}
	var spec, install strings.Builder
	spec.WriteString("Name: bench\nVersion: 1\nRelease: 1\nSummary: Noise\nLicense: Apache-2.0\nBuildArch: noarch\nAutoReq: no\n%description\nNoise.\n")
	n := 0
	for _, s := range signedSizes {
		for range s.count {
			n++
			fmt.Fprintf(&spec, "%%package -n noise%d\nSummary: Noise\n%%description -n noise%d\nNoise.\n%%files -n noise%d\n/usr/share/noise%d\n", n, n, n, n)
			fmt.Fprintf(&install, "cp %s/noise%d %%{buildroot}/usr/share/\n", work, n)
			noise := make([]byte, s.size)
			rand.Read(noise)
			if err := os.WriteFile(filepath.Join(work, fmt.Sprintf("noise%d", n)), noise, 0o644); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(&spec, "%%install\nmkdir -p %%{buildroot}/usr/share\n%s", &install)
	file := filepath.Join(work, "bench.spec")
	if err := os.WriteFile(file, []byte(spec.String()), 0o644); err != nil {
		return err
	}
	_, err := output(exec.CommandContext(ctx, "rpmbuild", "-bb", "--quiet",
		"--define", "_topdir "+work, "--define", "_rpmdir "+pool, "--define", "_build_name_fmt %%{NAME}.rpm",
		"--define", "_binary_payload w0.gzdio", file))
	return err
}

// A gpgAgent holds the key that rpmsign signs with. It does the arithmetic, so what
// it runs counts.
type gpgAgent struct {
	home  string
	pid   int
	leash io.Closer
	cmd   *exec.Cmd
}

// startAgent starts one that ends with this process, and has it take the key.
func startAgent(ctx context.Context, private string) (_ *gpgAgent, err error) {
	home, err := os.MkdirTemp("", "mgpg") // short, because of its socket
	if err != nil {
		return nil, err
	}
	g := &gpgAgent{home: home, cmd: exec.CommandContext(ctx, "gpg-agent", "--homedir", home, "--quiet", "--daemon", "cat")}
	defer func() {
		if err != nil {
			g.stop()
		}
	}()
	if g.leash, err = g.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	if err := g.ready(ctx); err != nil {
		return nil, err
	}
	if _, err := output(g.command(ctx, "gpg", "--batch", "--quiet", "--import", private)); err != nil {
		return nil, err
	}
	return g, nil
}

// ready asks the agent for its number until it answers.
func (g *gpgAgent) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := output(g.command(ctx, "gpg-connect-agent", "--no-autostart", "GETINFO pid", "/bye"))
		if _, scan := fmt.Sscanf(out, "D %d", &g.pid); scan == nil && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gpg-agent does not answer: %w", errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

func (g *gpgAgent) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(cmd.Environ(), "GNUPGHOME="+g.home)
	return cmd
}

// rpmsign signs files with the key of the agent, and returns what that has cost.
func (g *gpgAgent) rpmsign(ctx context.Context, files []string) (time.Duration, error) {
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		return 0, err
	}
	before, err := g.cpu()
	if err != nil {
		return 0, err
	}
	used, err := usedBy(g.command(ctx, "rpmsign", append([]string{"--addsign",
		"--define", "__gpg " + gpg, // Debian's rpm looks for gpg2
		"--define", "_gpg_name bench@example.org",
	}, files...)...))
	if err != nil {
		return 0, err
	}
	after, err := g.cpu()
	return used + after - before, err
}

// cpu is what all threads of the agent have run, those that have ended too. The
// kernel tells it in hundredths of a second, of which signing takes many.
func (g *gpgAgent) cpu() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.pid))
	if err != nil {
		return 0, err
	}
	// The name, in brackets, may have spaces.
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	const user, system = 11, 12
	if len(fields) <= system {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", g.pid, len(fields))
	}
	var ticks int64
	for _, i := range []int{user, system} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// stop ends the agent.
func (g *gpgAgent) stop() {
	if g.cmd.Process != nil {
		// It goes by itself when cat does, only later.
		_ = exec.Command("gpgconf", "--homedir", g.home, "--kill", "all").Run()
		g.leash.Close()
		_ = g.cmd.Wait()
	}
	os.RemoveAll(g.home)
}
