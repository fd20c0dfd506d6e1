package main

import "context"

var decision = section{
	name:  "decision",
	about: "CPU time and allocations of one routing decision",
	run:   runDecision,
}

// decisions are the benchmarks of the decision and their limits in µs of CPU
// time; 0 is none.
var decisions = []struct {
	name, what string
	limit      float64
}{
	{"median", "median place", 1.5},
	{"no-place", "no place", 4},
	{"128-in-a-band", "128 mirrors in one band", 4},
	{"everybody", "mean of all clients", 0},
	{"ipv6", "over IPv6", 0},
	{"on-net", "inside a subnet", 0},
	{"country", "country asked for", 0},
	{"rare-arch", "arch that few mirrors have", 0},
}

func runDecision(ctx context.Context, b *bench) error {
	program, err := b.build(ctx, "mirrorlist", true)
	if err != nil {
		return err
	}
	results, err := medians(ctx, program, "^(BenchmarkCalibrate|BenchmarkDecide)$", 50_000)
	if err != nil {
		return err
	}
	steps, err := results.of("Calibrate", "cpu-ns/op")
	if err != nil {
		return err
	}
	b.note("calibration: 1,000 dependent multiplications", value{steps / 1e3, "µs CPU"})
	for _, d := range decisions {
		what := "decision, " + d.what
		cpu, err := results.of("Decide/"+d.name, "cpu-ns/op")
		if err != nil {
			return err
		}
		allocs, err := results.of("Decide/"+d.name, "allocs/op")
		if err != nil {
			return err
		}
		if d.limit > 0 {
			b.gate(what, value{cpu / 1e3, "µs CPU"}, d.limit)
		} else {
			b.note(what, value{cpu / 1e3, "µs CPU"})
		}
		b.note(what+" / calibration", value{cpu / steps, "×"})
		b.gate(what, value{allocs, "allocs"}, 0)
	}
	return nil
}
