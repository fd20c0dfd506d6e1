package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"meridian/cmd/internal/daemon"
	"meridian/mirrorlist"
)

const simulateUsage = `usage:
    mirrorlist simulate -config mirrorlist.yml
                        (-clients FILE | -population FILE)
                        [-change DIR] [-state DIR] [-format text|json]

simulate says what each mirror is sent in a day: its share of the lists that it
is the first of, and the Mbit/s that this comes to by list_bytes of the
settings. With -change it compares the network with one that has the mirrors of
DIR instead, such as mirrors.d with a pull request in it: who gains, who loses.

It decides with the code of the server. The same files give the same numbers,
and nothing is asked of the network. All mirrors are taken to be well; with
-state, a directory or a URL as in the settings, they are as the findings there
say, at the moment when they were taken, and only mirrors without any are well.
Mirrors without coordinates are where the server of this cache_dir last saw
their hosts, or else in the middle of their countries.

-clients has one client a line: ADDRESS LISTS VERSION/REPO ARCH, of which only
the address is required; LISTS is how many it asks for in a day. -population is
CSV with the columns country and count, and perhaps version, repo, arch and
period, as "mirrorlist stats -format csv" writes it; clients are spread evenly
over the IPv4 addresses that the database has in a country. A "-" reads standard
input.

example:
    mirrorlist stats -config mirrorlist.yml \
        -by period,country,version,repo,arch -format csv >population.csv
    mirrorlist simulate -config mirrorlist.yml -population population.csv \
        -change ../pull-request/mirrors.d
`

func simulate(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("simulate", flag.ContinueOnError)
	config := flags.String("config", "", "")
	clients := flags.String("clients", "", "")
	population := flags.String("population", "", "")
	change := flags.String("change", "", "")
	findings := flags.String("state", "", "")
	format := flags.String("format", "text", "")
	if err := daemon.ParseFlags(flags, args, simulateUsage); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return daemon.Misuse("simulate takes no argument %q: everything is a flag", flags.Arg(0))
	case (*clients == "") == (*population == ""):
		return daemon.Misuse("who asks? write either -clients FILE or -population FILE")
	case *format != "text" && *format != "json":
		return daemon.Misuse("unknown format %q: write -format text or -format json", *format)
	}
	before, err := loadNetwork(ctx, env, *config, "", *findings)
	if err != nil {
		return err
	}
	if *findings != "" && before.Status().Snapshot.IsZero() {
		return errors.New("there are no findings at -state: write the directory or URL that the checker has as state")
	}
	var demand []mirrorlist.Demand
	if *clients != "" {
		demand, err = readDemand(env, *clients, mirrorlist.ReadClients)
	} else {
		demand, err = readDemand(env, *population, before.ReadPopulation)
	}
	if err != nil {
		return err
	}
	var after *mirrorlist.Server
	if *change != "" {
		if after, err = loadNetwork(ctx, env, *config, *change, ""); err != nil {
			return err
		}
	}
	result, err := before.Simulate(ctx, demand, after)
	if err != nil {
		return err
	}
	if *format == "json" {
		return writeJSON(env.Stdout, result)
	}
	return result.Print(env.Stdout)
}

// loadNetwork reads what a server would, and says what is wrong with it. With
// mirrors they come from that directory, and with findings it knows those of that
// directory or URL.
func loadNetwork(ctx context.Context, env daemon.Env, config, mirrors, findings string) (*mirrorlist.Server, error) {
	cfg, err := readConfig(config)
	if err != nil {
		return nil, err
	}
	// No findings but those that are asked for: they change. No statistics: nothing
	// is served.
	cfg.State, cfg.Stats = findings, ""
	if findings != "" && !strings.Contains(findings, ":") {
		cfg.State = "dir:" + findings
	}
	if mirrors != "" {
		if info, err := os.Stat(mirrors); err != nil || !info.IsDir() {
			return nil, daemon.Misuse("-change %q is no directory: write one that has all mirrors, with the change in it", mirrors)
		}
	}
	s, err := mirrorlist.New(ctx, mirrorlist.Options{
		Config: cfg, MirrorsDir: mirrors, Log: daemon.NewLogger(env.Stderr, slog.LevelError), Compile: compileInChild,
	})
	if err != nil {
		return nil, err
	}
	for _, line := range s.Status().Lines() {
		fmt.Fprintln(env.Stderr, "mirrorlist:", line)
	}
	return s, nil
}

// readDemand opens a file of clients, "-" being standard input.
func readDemand(env daemon.Env, path string, read func(string, io.Reader) ([]mirrorlist.Demand, error)) ([]mirrorlist.Demand, error) {
	if path == "-" {
		return read("standard input", env.Stdin)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(path, f)
}
