package main

import "context"

var swap = section{
	name:  "swap",
	about: "CPU time of taking over new findings of the checker",
	run:   runSwap,
}

// swapEvery is how often the server looks for new findings, in seconds.
const swapEvery = 2

func runSwap(ctx context.Context, b *bench) error {
	program, err := b.build(ctx, "mirrorlist", true)
	if err != nil {
		return err
	}
	results, err := medians(ctx, program, "^BenchmarkSwap$", 5)
	if err != nil {
		return err
	}
	for _, s := range []struct {
		name, what string
		every      float64
	}{
		{"memory", "health of 600 mirrors × 144 keys swapped each second", 1},
		{"dir", "the same, read from the state directory each 2 s", swapEvery},
		{"dir-one", "of one mirror alone, read from the state directory each 2 s", swapEvery},
	} {
		cpu, err := results.of("Swap/"+s.name, "cpu-ns/op")
		if err != nil {
			return err
		}
		b.gate(s.what, value{cpu / 1e9 / s.every * 100, "% CPU"}, 5)
	}
	return nil
}
