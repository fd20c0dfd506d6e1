package main

import "context"

var checking = section{
	name:  "checker",
	about: "what the checker costs: a probe beside a bare client, a visit that finds nothing new, a whole network in memory",
	run:   runChecking,
}

func runChecking(ctx context.Context, b *bench) error {
	program, err := b.build(ctx, "checker", true)
	if err != nil {
		return err
	}
	ratio, err := visitRatio(ctx, program)
	if err != nil {
		return err
	}
	b.gate("a probe beside a bare Go client", value{ratio, "×"}, 1.5)

	judged, err := medians(ctx, program, "^BenchmarkJudgeUnchanged$", 200)
	if err != nil {
		return err
	}
	allocs, err := judged.of("JudgeUnchanged", "allocs/op")
	if err != nil {
		return err
	}
	b.gate("verdict of 140 repositories in which nothing is new", value{allocs, "allocs"}, 8)

	held, err := medians(ctx, program, "^BenchmarkNetworkInMemory$", 1)
	if err != nil {
		return err
	}
	live, err := held.of("NetworkInMemory", "MB")
	if err != nil {
		return err
	}
	peak, err := held.of("NetworkInMemory", "peak-MB")
	if err != nil {
		return err
	}
	b.gate("most resident memory with 500 mirrors × 140 repositories", value{peak, "MB"}, 300)
	b.note("of that alive", value{live, "MB"})
	return nil
}

// visitRatio is what a request of a visit costs beside one of a bare client. Each
// round is one process of one thread, and has a ratio of its own: what else the
// machine does slows down both. The server that answers them is another process.
func visitRatio(ctx context.Context, program string) (float64, error) {
	var ratios []float64
	for range rounds {
		visits, err := runBenchmarks(ctx, program, "^BenchmarkVisit$", 20)
		if err != nil {
			return 0, err
		}
		ours, err := visits.of("Visit/keys=140", "cpu-ns/request")
		if err != nil {
			return 0, err
		}
		bare, err := visits.of("Visit/bare=140", "cpu-ns/request")
		if err != nil {
			return 0, err
		}
		ratios = append(ratios, ours/bare)
	}
	return median(ratios), nil
}
