package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"meridian/checker"
	"meridian/checker/state"
	"meridian/cmd/internal/daemon"
	"meridian/internal/strictyaml"
)

const runUsage = `usage:
    checker run -config checker.yml [-v]

run is the daemon. It visits every mirror of the network, compares what they have
with what the origin has published, and keeps what it finds out where mirrorlist
servers read it. Of several that share a state one does so, and the others stand
by. The network, the mirrors and the overrides are read again when they change;
SIGHUP reads them at once, and accepts that many mirrors are gone.

    -v   log more

    checker run -config /etc/meridian/checker.yml
`

const onceUsage = `usage:
    checker once -config checker.yml [-v]

once visits every mirror once, those that fail a second time a minute later,
keeps what it finds out, and prints what is wrong. It cannot be used beside a
checker that runs.

    -v   log every change

The exit status is 1 when nothing could be found out, or not be kept. What is
wrong with single mirrors does not change it.

    checker once -config checker.yml
`

// newChecker reads the flags of run and once, and makes the checker.
func newChecker(env daemon.Env, name, help string, args []string, quiet slog.Level) (*checker.Checker, *slog.Logger, error) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	config := flags.String("config", "", "")
	verbose := flags.Bool("v", false, "")
	rest, err := parseArgs(flags, args, help)
	if err != nil {
		return nil, nil, err
	}
	if len(rest) > 0 {
		return nil, nil, daemon.Misuse("%s takes no argument %q: settings are in the file of -config", name, rest[0])
	}
	s, _, err := readSettings(*config)
	if err != nil {
		return nil, nil, err
	}
	if *verbose {
		quiet -= 4 // the next level
	}
	log := daemon.NewLogger(env.Stderr, quiet)
	c, err := checker.New(checker.Options{
		Settings: s, Log: log, Version: daemon.Version(),
		ReadOverrides: func() (*checker.Overrides, error) {
			var o checker.Overrides
			err := strictyaml.Load(s.Overrides, &o)
			return &o, err
		},
	})
	return c, log, err
}

// runDaemon checks the network until it is stopped.
func runDaemon(ctx context.Context, env daemon.Env, args []string) (err error) {
	c, log, err := newChecker(env, "run", runUsage, args, slog.LevelInfo)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	hangup, hangups := daemon.Hangup(ctx), make(chan struct{})
	go func() {
		defer close(hangups)
		for range hangup {
			if err := c.Reload(ctx, true); err != nil && ctx.Err() == nil {
				log.Warn("reloaded, except", "err", err)
			}
		}
	}()
	// Who stands by is as ready as it can be.
	if err := daemon.Notify(env, daemon.Ready); err != nil {
		log.Warn("service manager was not told", "err", err)
	}
	err = c.Run(ctx)
	cancel()
	<-hangups
	return err
}

// once visits every mirror once.
func once(ctx context.Context, env daemon.Env, args []string) (err error) {
	c, _, err := newChecker(env, "once", onceUsage, args, slog.LevelWarn+1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	r, err := c.Once(ctx)
	if err != nil {
		return err
	}
	if err := printRound(env.Stdout, r); err != nil {
		return err
	}
	known := false
	for _, t := range r.Snapshot.Truth {
		known = known || t.Newest() != nil
	}
	switch {
	case !known:
		return errors.New("the origin has none of the repositories, or does not answer: checker origin says why")
	case r.Mirrors > 0 && r.Answered == 0:
		return errors.New("no mirror answers: see whether this host has a network")
	}
	return nil
}

// printRound prints how many repositories of mirrors are in which health, and
// what is wrong with mirrors.
func printRound(w io.Writer, r *checker.Round) error {
	count := map[state.Health]int{}
	var wrong []string
	for name, st := range r.Snapshot.Mirrors {
		for _, h := range st.Health {
			count[h]++
		}
		if st.Problem != nil {
			wrong = append(wrong, name)
		}
	}
	slices.Sort(wrong)
	var b strings.Builder
	fmt.Fprintf(&b, "%d mirrors visited, %d answered\n", r.Mirrors, r.Answered)
	for h := state.Unknown; h <= state.Unprobed; h++ {
		if n := count[h]; n > 0 {
			fmt.Fprintf(&b, "%8d %s\n", n, h)
		}
	}
	for _, name := range wrong {
		fmt.Fprintf(&b, "%s: %s\n", name, r.Snapshot.Mirrors[name].Problem.Reason)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
