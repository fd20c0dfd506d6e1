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
	// Both are measured in one process of one thread, together with the server that
	// answers them: what it costs is the same for both, and makes the ratio smaller
	// than that of the clients alone.
	visits, err := medians(ctx, program, "^BenchmarkVisit$", 10)
	if err != nil {
		return err
	}
	ours, err := visits.of("Visit/keys=140", "cpu-ns/request")
	if err != nil {
		return err
	}
	bare, err := visits.of("Visit/bare=140", "cpu-ns/request")
	if err != nil {
		return err
	}
	b.gate("a probe beside a bare Go client, server included", value{ours / bare, "×"}, 1.5)

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
	megabytes, err := held.of("NetworkInMemory", "MB")
	if err != nil {
		return err
	}
	b.gate("500 mirrors × 140 repositories in memory", value{megabytes, "MB"}, 300)
	return nil
}
