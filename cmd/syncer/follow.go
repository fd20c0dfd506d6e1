package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"

	"meridian/cmd/internal/daemon"
	"meridian/cmd/internal/daemon/metrics"
	"meridian/internal/strictyaml"
	"meridian/syncer"
)

const followUsage = `usage:
    syncer run  -config syncer.yml [-check] [-v]
    syncer once -config syncer.yml [flags] [TREE...]

run is the daemon of a mirror: it keeps trees as their upstreams publish them.
Each is asked for two small files; when they have changed, what is new is
fetched beside the tree, verified, and switched so that no reader ever finds
half of a repository. What older metadata names stays for a time of grace.
SIGHUP and "POST /-/follow" have all trees followed at once. It may be stopped,
and killed, at any time: the next run goes on from there. With -check it says
what is wrong with the settings, and exits.

once follows the trees named, or all, and ends. Where another process follows
already, that one does it once more. The exit status is 0 when all trees are
what their upstreams have.

    -dry-run          say what would change, and change nothing
    -json             print the reports as JSON, one a line
    -full             read the whole tree, and mend what is damaged in it
    -max-delete N     how many names may leave a tree, or be deleted, this time
    -accept-older     follow an upstream that went back to an older generation
    -accept-clock     follow although the last run is in the future
    -break-lock NAME  remove the lock of a process that is known to be gone
    -v                run: log also that nothing was new

    syncer once -config /etc/meridian/syncer.yml
`

// openService reads the settings file and checks it.
func openService(config string, log *slog.Logger) (*syncer.Service, error) {
	if config == "" {
		return nil, daemon.Misuse("missing -config: write -config syncer.yml")
	}
	var cfg syncer.Config
	if err := strictyaml.Load(config, &cfg); err != nil {
		return nil, err
	}
	s, err := syncer.NewService(cfg.Rooted(filepath.Dir(config)), log)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", config, err)
	}
	return s, nil
}

func follow(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	config := flags.String("config", "", "")
	check := flags.Bool("check", false, "")
	verbose := flags.Bool("v", false, "")
	if err := daemon.ParseFlags(flags, args, followUsage); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return daemon.Misuse("run takes no argument %q: the trees are in the file of -config", flags.Arg(0))
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	log := daemon.NewLogger(env.Stderr, level)
	s, err := openService(*config, log)
	if err != nil || *check {
		return err
	}
	reg := metrics.New(daemon.Version())
	reg.MustRegister(s.Collector())

	stop := daemon.OnHangup(ctx, func(context.Context) { s.Ask("") })
	defer stop()
	return s.Run(ctx, metrics.Handler(reg, log), func(addr string) {
		log.Info("following", "addr", addr, "trees", len(s.Names()))
		daemon.SayReady(env, log)
	})
}

func once(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("once", flag.ContinueOnError)
	config := flags.String("config", "", "")
	var with syncer.Follower
	flags.BoolVar(&with.DryRun, "dry-run", false, "")
	flags.BoolVar(&with.Full, "full", false, "")
	flags.BoolVar(&with.AcceptOlder, "accept-older", false, "")
	flags.BoolVar(&with.AcceptClock, "accept-clock", false, "")
	flags.IntVar(&with.MaxDelete, "max-delete", 0, "")
	flags.StringVar(&with.BreakLock, "break-lock", "", "")
	asJSON := flags.Bool("json", false, "")
	if err := daemon.ParseFlags(flags, args, followUsage); err != nil {
		return err
	}
	s, err := openService(*config, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	trees := flags.Args()
	if len(trees) == 0 {
		trees = s.Names()
	}
	for _, name := range trees {
		if !slices.Contains(s.Names(), name) {
			return daemon.Misuse("no tree %q in %s; it has %v", name, *config, s.Names())
		}
	}
	bad := false
	for _, name := range trees {
		report, err := s.Once(ctx, name, func(f *syncer.Follower) {
			f.DryRun, f.Full, f.AcceptOlder, f.AcceptClock, f.BreakLock = with.DryRun, with.Full, with.AcceptOlder, with.AcceptClock, with.BreakLock
			if with.MaxDelete != 0 {
				f.MaxDelete = with.MaxDelete
			}
			if daemon.IsTerminal(env.Stderr) {
				f.Progress = func(what string) { fmt.Fprintf(env.Stderr, "%s: %s\n", name, what) }
			}
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := printFollowed(env.Stdout, name, report, err, *asJSON); err != nil {
			return err
		}
		if err != nil && !errors.Is(err, syncer.ErrAsked) {
			fmt.Fprintf(env.Stderr, "syncer: %s: %v\n", name, err)
			bad = true
		}
	}
	if bad {
		return daemon.Exit(1)
	}
	return nil
}

// printFollowed prints what a run changed; err is how it ended.
func printFollowed(w io.Writer, name string, r *syncer.Report, err error, asJSON bool) error {
	if asJSON {
		line := struct {
			Tree  string `json:"tree"`
			Error string `json:"error,omitempty"`
			*syncer.Report
		}{Tree: name, Report: r}
		if err != nil {
			line.Error = err.Error()
		}
		return json.NewEncoder(w).Encode(line)
	}
	printRepos(w, r)
	d := r.Dests[0]
	for _, n := range d.Notes {
		fmt.Fprintf(w, "%s: %s\n", name, n)
	}
	switch {
	case errors.Is(err, syncer.ErrAsked):
		fmt.Fprintf(w, "%s: %v\n", name, err)
	case err != nil && !errors.Is(err, syncer.ErrIncomplete):
		// It is said on standard error, and nothing changed.
	case r.Behind:
		fmt.Fprintf(w, "%s: generation %d; the upstream is older\n", name, d.Generation)
	default:
		printChanges(w, name, d, r.DryRun)
	}
	return nil
}
