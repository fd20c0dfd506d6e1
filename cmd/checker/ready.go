package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"meridian/checker"
	"meridian/cmd/internal/daemon"
	"meridian/schema"
)

const readyUsage = `usage:
    checker ready -config checker.yml [-min SHARE] [-missing]
                  [-format text|json] VERSION

ready prints how much of the network carries each repository of a version, which
may be one of pending_versions, by number of mirrors and by bandwidth, and for
each continent. The exit status is 1 while the origin lacks a repository, or
fewer than SHARE (default 0.6) of a continent's bandwidth have one, or the
images that the origin has.

    -missing   name the mirrors that lack something too

    checker ready -config checker.yml 9.9
`

// ready prints how much of the network carries a version, and fails while that is
// not enough.
func ready(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("ready", flag.ContinueOnError)
	config := flags.String("config", "", "")
	least := flags.Float64("min", 0.6, "")
	missing := flags.Bool("missing", false, "")
	format := flags.String("format", "text", "")
	args, err := parseArgs(flags, args, readyUsage)
	if err != nil {
		return err
	}
	switch {
	case len(args) != 1:
		return daemon.Misuse("which version? write checker ready -config checker.yml 9.9")
	case *format != "text" && *format != "json":
		return daemon.Misuse("unknown format %q; write text or json", *format)
	case !(*least >= 0 && *least <= 1):
		return daemon.Misuse("-min %v is not a share; write one from 0 to 1, such as -min 0.6", *least)
	}
	c, err := openTruth(ctx, *config)
	if err != nil {
		return err
	}
	v := schema.Version(args[0])
	if to, ok := c.network.Aliases[v]; ok {
		v = to
	}
	if !slices.Contains(c.network.Served(), v) {
		return fmt.Errorf("nobody looks for version %q: write it into pending_versions of %s, and wait until the mirrors were visited", v, *config)
	}
	mirrors, _, err := schema.LoadMirrors(c.network.MirrorsDir)
	if err != nil {
		return err
	}
	shares := checker.Ready(c.network, mirrors, c.snap, v)
	if *format == "json" {
		enc := json.NewEncoder(env.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(shares)
	} else {
		err = printShares(env.Stdout, shares, *missing)
	}
	if err != nil {
		return err
	}
	return enough(shares, *least)
}

// enough is an error while a repository is not published, or has too small a part
// of the bandwidth somewhere.
func enough(shares []checker.KeyShare, least float64) error {
	worst, at := 1.0, ""
	for _, ks := range shares {
		if !ks.Published && ks.Key.Repo == "isos" {
			continue // not every version has images for every architecture
		}
		if !ks.Published {
			return fmt.Errorf("%s is not published at the origin", ks.Key)
		}
		for _, c := range checker.ContinentsOf([]checker.KeyShare{ks}) {
			if s := ks.Continents[c].Bandwidth(); s < worst {
				worst, at = s, fmt.Sprintf("%s in %s", ks.Key, cmp.Or(c, "mirrors without continent"))
			}
		}
	}
	if worst < least {
		return fmt.Errorf("not ready: %s has %.0f %% of the bandwidth, and %.0f %% are asked for (-min)", at, 100*worst, 100*least)
	}
	return nil
}

func printShares(w io.Writer, shares []checker.KeyShare, missing bool) error {
	continents := checker.ContinentsOf(shares)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(tw, "repository\tmirrors\tbandwidth")
	for _, c := range continents {
		fmt.Fprintf(tw, "\t%s", cmp.Or(c, "?"))
	}
	fmt.Fprintln(tw)
	for _, ks := range shares {
		fmt.Fprintf(tw, "%s\t%d of %d\t%.0f %%", strings.TrimSuffix(ks.Key.String(), "/"), ks.All.Mirrors, ks.All.Of, 100*ks.All.Bandwidth())
		for _, c := range continents {
			if s, ok := ks.Continents[c]; ok {
				fmt.Fprintf(tw, "\t%.0f %%", 100*s.Bandwidth())
			} else {
				fmt.Fprint(tw, "\t-")
			}
		}
		if !ks.Published {
			fmt.Fprint(tw, "\tnot published")
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil || !missing {
		return err
	}
	for _, ks := range shares {
		if len(ks.Missing) == 0 {
			continue
		}
		fmt.Fprintf(tw, "\nwithout %s:\n", ks.Key)
		for _, name := range slices.Sorted(maps.Keys(ks.Missing)) {
			fmt.Fprintf(tw, "  %s\t%s\n", name, ks.Missing[name])
		}
	}
	return tw.Flush()
}
