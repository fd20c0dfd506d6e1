package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"meridian/builder/rpm/rpmtest"
)

var repodata = section{
	name:  "repo",
	about: "CPU time and memory of builder repo beside createrepo_c",
	run:   runRepo,
}

// What is indexed: as many bytes as 2,000 packages of a distribution have, and as
// many packages as all of its repositories.
const (
	timedPackages = 2000
	timedSize     = 600_000
	manyPackages  = 50_000
	manySize      = 20_000
	touched       = 20
)

func runRepo(ctx context.Context, b *bench) error {
	if !b.has("createrepo_c", "builder repo, beside createrepo_c") {
		return nil
	}
	program, err := b.build(ctx, "cmd/builder", false)
	if err != nil {
		return err
	}
	r := &repoBench{b: b, builder: program, used: map[string][]time.Duration{}}
	if err := r.time(ctx); err != nil {
		return err
	}
	return r.memory(ctx)
}

// repoBench runs two programs on one directory.
type repoBench struct {
	b       *bench
	builder string
	dir     string
	used    map[string][]time.Duration
}

func (r *repoBench) generate(name string, n int, size int64) error {
	r.dir = filepath.Join(r.b.dir, name)
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	return rpmtest.Generate(r.dir, n, size)
}

func (r *repoBench) ours(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{"repo", "-quiet", "-cache", r.dir + ".cache"}, args...)
	return exec.CommandContext(ctx, r.builder, append(args, r.dir)...)
}

// theirs writes beside the packages, so that neither finds what the other left.
func (r *repoBench) theirs(ctx context.Context, args ...string) (*exec.Cmd, error) {
	out := r.dir + ".theirs"
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	args = append([]string{"--quiet", "--outputdir", out}, args...)
	return exec.CommandContext(ctx, "createrepo_c", append(args, r.dir)...), nil
}

// time compares CPU times: cold, and after some packages were touched.
func (r *repoBench) time(ctx context.Context) error {
	if err := r.generate("repo", timedPackages, timedSize); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(r.dir, "*.rpm"))
	if err != nil {
		return err
	}
	// Whoever reads a file first pays for having it in memory.
	if _, err := usedBy(r.ours(ctx)); err != nil {
		return err
	}
	for round := range rounds {
		for _, run := range []struct {
			name string
			ours bool
			args []string
		}{
			{"cold", true, nil},
			{"default", false, nil},
			{"no database", false, []string{"--no-database"}},
			{"", true, nil}, // so that both updates come upon what they wrote last
			{"touch", true, nil},
			{"updated", true, []string{"-update"}},
			{"update", false, []string{"--no-database", "--update"}},
			{"unchanged", true, []string{"-update"}},
		} {
			if run.name == "touch" {
				at := time.Unix(1600000000+int64(round), 0)
				for i := range touched {
					if err := os.Chtimes(files[i*len(files)/touched], at, at); err != nil {
						return err
					}
				}
				continue
			}
			cmd := r.ours(ctx, run.args...)
			if !run.ours {
				if cmd, err = r.theirs(ctx, run.args...); err != nil {
					return err
				}
			}
			used, err := usedBy(cmd)
			if err != nil {
				return err
			}
			r.used[run.name] = append(r.used[run.name], used)
		}
	}
	seconds := func(name string) float64 { return median(r.used[name]).Seconds() }
	r.b.note("2,000 packages, cold", value{seconds("cold"), "s CPU"})
	r.b.note("the same by createrepo_c", value{seconds("default"), "s CPU"})
	r.b.note("the same without databases", value{seconds("no database"), "s CPU"})
	r.b.gate("repo cold / createrepo_c", value{seconds("cold") / seconds("default"), "×"}, 1/1.7)
	r.b.gate("repo cold / createrepo_c --no-database", value{seconds("cold") / seconds("no database"), "×"}, 1/1.3)
	r.b.gate("repo -update, 20 touched / createrepo_c --update", value{seconds("updated") / seconds("update"), "×"}, 1/2.5)
	r.b.note("repo -update, unchanged / createrepo_c --update", value{seconds("unchanged") / seconds("update"), "×"})
	return nil
}

// memory compares the largest resident sets.
func (r *repoBench) memory(ctx context.Context) error {
	if err := r.generate("many", manyPackages, manySize); err != nil {
		return err
	}
	var mb [4]float64
	for i, run := range []func() (*exec.Cmd, error){
		func() (*exec.Cmd, error) { return r.ours(ctx), nil },
		func() (*exec.Cmd, error) { return r.theirs(ctx) },
		func() (*exec.Cmd, error) {
			now := time.Now()
			return r.ours(ctx, "-update"), os.Chtimes(filepath.Join(r.dir, "package-00000-1.0-1.el9.x86_64.rpm"), now, now)
		},
		func() (*exec.Cmd, error) { return r.theirs(ctx, "--update") },
	} {
		cmd, err := run()
		if err != nil {
			return err
		}
		if mb[i], err = peak(ctx, cmd.Args); err != nil {
			return err
		}
	}
	r.b.note("50,000 packages, cold", value{mb[0], "MB"})
	r.b.note("50,000 packages, -update", value{mb[2], "MB"})
	r.b.gate("memory cold / createrepo_c", value{mb[0] / mb[1], "×"}, 1.2)
	r.b.gate("memory -update / createrepo_c --update", value{mb[2] / mb[3], "×"}, 1)
	return nil
}

// peak runs a program to its end and returns the most memory it had, in MB. It asks
// while the program runs: what the kernel says at its end includes what this
// process had when it started the other.
func peak(ctx context.Context, args []string) (mb float64, err error) {
	p, err := spawn(ctx, args[0], args[1:]...)
	if err != nil {
		return 0, err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			// It may have ended; what it had before stands.
			if m, err := p.memory(); err == nil {
				mb = max(mb, m["VmHWM"])
			}
		case <-p.done:
			if !p.cmd.ProcessState.Success() {
				return 0, fmt.Errorf("%s: %s\n%s", args[0], p.cmd.ProcessState, &p.stderr)
			}
			return mb, ctx.Err()
		}
	}
}
