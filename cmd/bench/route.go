package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

var route = section{
	name:  "route",
	about: "instructions and allocations of one request, beside gin hello world",
	run:   runRoute,
}

// The numbers of requests at which instructions are counted: the difference is
// free of what starting costs.
const (
	fewRequests  = 2000
	manyRequests = 10_000
)

// countings is how often each is counted; the median counts. What the runtime does
// about timers and memory differs by a hundredth from one process to another.
const countings = 3

func runRoute(ctx context.Context, b *bench) error {
	program, err := b.build(ctx, "mirrorlist", true)
	if err != nil {
		return err
	}
	results, err := medians(ctx, program, "^BenchmarkRoute$", 20_000)
	if err != nil {
		return err
	}
	allocs, err := results.of("Route/list", "allocs/op")
	if err != nil {
		return err
	}
	b.gate("request for a list", value{allocs, "allocs"}, 20)
	ours, err := results.of("Route/list", "cpu-ns/op")
	if err != nil {
		return err
	}
	hello, err := results.of("Route/hello", "cpu-ns/op")
	if err != nil {
		return err
	}
	b.note("request for a list, with its client, on loopback", value{ours / 1e3, "µs CPU"})
	b.note("gin hello world of equal body, with its client", value{hello / 1e3, "µs CPU"})

	const what = "instructions of a list / gin hello world"
	if !b.has("valgrind", what) {
		return nil
	}
	var each [2]float64
	for i, name := range []string{"list", "hello"} {
		var counts [countings]float64
		for j := range counts {
			few, err := instructions(ctx, b, program, name, fewRequests)
			if err != nil {
				return err
			}
			many, err := instructions(ctx, b, program, name, manyRequests)
			if err != nil {
				return err
			}
			counts[j] = (many - few) / (manyRequests - fewRequests)
		}
		each[i] = median(counts[:])
	}
	b.note("request for a list", value{each[0], "instr."})
	b.note("gin hello world of equal body", value{each[1], "instr."})
	b.gate(what, value{each[0] / each[1], "×"}, 1.15)
	return nil
}

var instructionCount = regexp.MustCompile(`Collected : (\d+)`)

// instructions counts those of a whole process that answers n requests.
func instructions(ctx context.Context, b *bench, program, name string, n int) (float64, error) {
	cmd := exec.CommandContext(ctx, "valgrind", "--tool=callgrind", "--callgrind-out-file="+filepath.Join(b.dir, "callgrind.out"),
		program, "-test.run=^$", "-test.bench=^BenchmarkRoute$/^"+name+"$", fmt.Sprintf("-test.benchtime=%dx", n))
	// No second thread, no collection and no preemption: what is left repeats.
	oneCPU(cmd, "GOGC=off", "GODEBUG=asyncpreemptoff=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("valgrind: %w\n%s", err, out)
	}
	if !strings.Contains(string(out), "BenchmarkRoute/"+name) {
		return 0, fmt.Errorf("benchmark Route/%s did not run:\n%s", name, out)
	}
	m := instructionCount.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("valgrind counted nothing:\n%s", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}
