package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// rounds is how often everything is measured that is compared by CPU time.
const rounds = 9

// oneCPU is the environment in which the CPU time of a process is that of the
// loop it is in.
func oneCPU(cmd *exec.Cmd, more ...string) {
	cmd.Env = append(append(cmd.Environ(), "GOMAXPROCS=1"), more...)
}

// benchmarks are the results of Go benchmarks: by name, without "Benchmark", and
// unit.
type benchmarks map[string]map[string]float64

// runBenchmarks runs the benchmarks of a test program that match pattern n times
// each, in a child of one thread.
func runBenchmarks(ctx context.Context, program, pattern string, n int) (benchmarks, error) {
	cmd := exec.CommandContext(ctx, program, "-test.run=^$", "-test.bench="+pattern, fmt.Sprintf("-test.benchtime=%dx", n))
	oneCPU(cmd)
	out, err := output(cmd)
	if err != nil {
		return nil, err
	}
	return parseBenchmarks(out)
}

// parseBenchmarks reads what go test -bench prints.
func parseBenchmarks(out string) (benchmarks, error) {
	results := benchmarks{}
	for line := range strings.Lines(out) {
		name, ok := strings.CutPrefix(line, "Benchmark")
		fields := strings.Fields(name)
		if !ok || len(fields) < 4 || len(fields)%2 != 0 {
			continue
		}
		units := map[string]float64{}
		for i := 2; i < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("benchmark %s: %w", fields[0], err)
			}
			units[fields[i+1]] = v
		}
		results[fields[0]] = units
	}
	if len(results) == 0 {
		return nil, fmt.Errorf("no benchmark ran:\n%s", out)
	}
	return results, nil
}

// medians runs benchmarks for as many rounds as it takes, and returns the median
// of each value.
func medians(ctx context.Context, program, pattern string, n int) (benchmarks, error) {
	all := map[string]map[string][]float64{}
	for range rounds {
		results, err := runBenchmarks(ctx, program, pattern, n)
		if err != nil {
			return nil, err
		}
		for name, units := range results {
			if all[name] == nil {
				all[name] = map[string][]float64{}
			}
			for unit, v := range units {
				all[name][unit] = append(all[name][unit], v)
			}
		}
	}
	middle := benchmarks{}
	for name, units := range all {
		middle[name] = map[string]float64{}
		for unit, list := range units {
			middle[name][unit] = median(list)
		}
	}
	return middle, nil
}

// of returns one value. That a benchmark is missing is a mistake in this tree.
func (r benchmarks) of(name, unit string) (float64, error) {
	v, ok := r[name][unit]
	if !ok {
		return 0, fmt.Errorf("benchmark %s reports no %s: rename it here too", name, unit)
	}
	return v, nil
}
