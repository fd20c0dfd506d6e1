// Command bench is what make bench runs: it measures this tree beside foreign
// programs and holds what it finds to the limits of the project. Large inputs are
// made once and kept in the cache directory of the user. It is never packaged,
// and what it starts listens on loopback alone.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"

	"meridian/cmd/internal/daemon"
)

const usage = `usage:
    bench [-run REGEXP]
    bench -list

bench prints one line for everything it measures: what, the value, the limit,
and "ok" or "MISSED". Lines without a limit are there to be read. It ends with
status 1 when a limit is missed; what cannot be measured here, because a program
is not installed, is named and misses nothing.

    -run REGEXP   only the sections whose name matches
    -list         print the sections, and run none

CPU time is what the kernel counts for a process, and the median of several
rounds in which everything that is compared takes turns. On a machine that
others use it still varies by a third: the line "calibration" says how fast this
machine was in the same rounds. Instructions are counted by valgrind and vary by
1 %.

Example:
    go run ./cmd/bench -run 'decision|route'
`

func main() { daemon.Main(run) }

// sections in the order in which they run.
var sections = []section{decision, route, load, pages, start, swap, checking, signing, repodata, publication}

func run(ctx context.Context, env daemon.Env) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	pattern := flags.String("run", "", "")
	list := flags.Bool("list", false, "")
	if err := daemon.ParseFlags(flags, env.Args, usage); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return daemon.Misuse("unexpected argument %q; -h lists the flags", flags.Arg(0))
	}
	wanted, err := regexp.Compile(*pattern)
	if err != nil {
		return daemon.Misuse("-run: %v", err)
	}
	var chosen []section
	for _, s := range sections {
		if wanted.MatchString(s.name) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return daemon.Misuse("-run %q matches no section; -list prints them", *pattern)
	}
	if *list {
		for _, s := range chosen {
			fmt.Fprintf(env.Stdout, "%-10s %s\n", s.name, s.about)
		}
		return nil
	}
	dir, err := os.MkdirTemp("", "meridian-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{out: env.Stdout, dir: dir}
	b.header()
	for _, s := range chosen {
		if err := s.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return b.verdict()
}
