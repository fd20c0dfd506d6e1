package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"meridian/mirrorlist/geo/geotest"
)

var start = section{
	name:  "start",
	about: "CPU time until the server is ready, its memory, and what compiling costs",
	run:   runStart,
}

func runStart(ctx context.Context, b *bench) error {
	program, err := b.build(ctx, "cmd/mirrorlist", false)
	if err != nil {
		return err
	}
	w, err := newWorld()
	if err != nil {
		return err
	}
	// The first start of all compiles the databases, and saves the orders when it
	// is ready already: only a reload waits for them.
	p, err := w.serve(ctx, program)
	if err != nil {
		return err
	}
	if err := w.settle(ctx, p); err != nil {
		return err
	}
	var used []time.Duration
	for range rounds {
		p, err := w.serve(ctx, program)
		if err != nil {
			return err
		}
		cpu, err := p.cpu()
		if err != nil {
			return err
		}
		used = append(used, cpu)
		if err := p.stop(); err != nil {
			return err
		}
	}
	b.gate("start of the server until /readyz answers", value{median(used).Seconds(), "s CPU"}, 0.2)

	if err := memoryUnderLoad(ctx, b, w, program); err != nil {
		return err
	}
	return compileAlone(ctx, b, program)
}

// settle lets a server that is ready finish and save what it makes in the
// background, and stops it.
func (w *world) settle(ctx context.Context, p *process) error {
	orders := filepath.Join(w.dir, "cache", "orders")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(orders); err == nil {
			return p.stop()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return fmt.Errorf("the server has ended:\n%s", &p.stderr)
		case <-tick.C:
		}
	}
}

// memoryUnderLoad is the memory of a server that has answered clients from
// everywhere: every part of its databases was in use.
func memoryUnderLoad(ctx context.Context, b *bench, w *world, program string) error {
	p, err := w.serve(ctx, program)
	if err != nil {
		return err
	}
	if _, err := generate(ctx, w.addr, requests(w.addr, geotest.Clients(10_000, 14)), 50_000); err != nil {
		return err
	}
	m, err := p.memory()
	if err != nil {
		return err
	}
	b.gate("resident memory of the server under load", value{m["VmRSS"], "MB"}, 200)
	b.note("of that anonymous", value{m["RssAnon"], "MB"})
	b.note("of that mapped files, which the kernel may drop", value{m["RssFile"], "MB"})
	b.note("its highest resident memory since the start", value{m["VmHWM"], "MB"})
	return p.stop()
}

// compileAlone measures the child that compiles a database.
func compileAlone(ctx context.Context, b *bench, program string) error {
	cache, err := geotest.CacheDir()
	if err != nil {
		return err
	}
	location, _, err := geotest.Full.MMDBs(cache)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, "geo", location, filepath.Join(b.dir, "location.geo"))
	if _, err := output(cmd); err != nil {
		return err
	}
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	b.note("compiling 3,000,000 networks", value{(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), "s CPU"})
	b.note("memory of the child that compiles", value{float64(u.Maxrss) * 1024 / 1e6, "MB"})
	return nil
}
