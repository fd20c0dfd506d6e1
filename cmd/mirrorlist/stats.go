package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"meridian/cmd/internal/daemon"
	"meridian/mirrorlist/stats"
)

const statsUsage = `usage:
    mirrorlist stats -config mirrorlist.yml [-table lists|mirrors|countme]
                     [-by COLUMN,...] [-where COLUMN=LABEL,...]
                     [-from DAY] [-to DAY] [-format text|csv|json]

stats sums up what all nodes have counted. The columns of a table, and what they
mean, are in docs/OPERATING.md; "period" is the day or the first day of the
week. Without -by all columns are told apart, without -from the last 30 days are
summed up. What was folded because it was too little is "other".

example:
    mirrorlist stats -config mirrorlist.yml -by country -from 2026-03-01
    mirrorlist stats -config mirrorlist.yml -table mirrors -by period \
        -where mirror=mirror.example.org
    mirrorlist stats -config mirrorlist.yml \
        -by period,country,version,repo,arch -format csv >population.csv
`

func showStats(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("stats", flag.ContinueOnError)
	config := flags.String("config", "", "")
	table := flags.String("table", stats.Lists.Name, "")
	by := flags.String("by", "", "")
	where := flags.String("where", "", "")
	from := flags.String("from", "", "")
	to := flags.String("to", "", "")
	format := flags.String("format", "text", "")
	if err := daemon.ParseFlags(flags, args, statsUsage); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return daemon.Misuse("stats takes no argument %q: everything is a flag", flags.Arg(0))
	}
	q := stats.Query{Table: stats.TableNamed(*table), To: stats.DayOf(time.Now())}
	if q.Table == nil {
		return daemon.Misuse("unknown table %q: write -table lists, mirrors or countme", *table)
	}
	if *to != "" {
		if err := q.To.UnmarshalText([]byte(*to)); err != nil {
			return daemon.Misuse("-to: %v", err)
		}
	}
	q.From = q.To - 30
	if *from != "" {
		if err := q.From.UnmarshalText([]byte(*from)); err != nil {
			return daemon.Misuse("-from: %v", err)
		}
	}
	if q.By = q.Table.Columns; *by != "" {
		q.By = strings.Split(*by, ",")
	}
	if *where != "" {
		q.Where = map[string]string{}
		for pair := range strings.SplitSeq(*where, ",") {
			column, label, ok := strings.Cut(pair, "=")
			if !ok {
				return daemon.Misuse("-where %q is not COLUMN=LABEL: write one such as country=DE", pair)
			}
			q.Where[column] = label
		}
	}
	print, err := printer(*format)
	if err != nil {
		return err
	}
	cfg, err := readConfig(*config)
	if err != nil {
		return err
	}
	if cfg.Stats == "" {
		return fmt.Errorf("%s keeps no statistics: write stats: dir:PATH into it", *config)
	}
	store, err := stats.Open(cfg.Stats)
	if err != nil {
		return err
	}
	res, err := stats.NewReader(store, time.Now).Query(ctx, q)
	if err != nil {
		return err
	}
	for _, line := range res.Unread {
		fmt.Fprintln(env.Stderr, "mirrorlist: not read:", line)
	}
	return print(env.Stdout, res)
}

func printer(format string) (func(io.Writer, *stats.Result) error, error) {
	switch format {
	case "csv":
		return func(w io.Writer, r *stats.Result) error { return r.WriteCSV(w) }, nil
	case "json":
		return func(w io.Writer, r *stats.Result) error { return writeJSON(w, r) }, nil
	case "text":
		return printStats, nil
	}
	return nil, daemon.Misuse("unknown format %q: write -format text, csv or json", format)
}

// writeJSON prints a value for people and programs.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printStats prints rows as a table, with the share of each.
func printStats(w io.Writer, r *stats.Result) error {
	bytes := r.Table == stats.Mirrors.Name
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, name := range r.By {
		fmt.Fprintf(tw, "%s\t", name)
	}
	fmt.Fprint(tw, "count\tshare")
	if bytes {
		fmt.Fprint(tw, "\tGB")
	}
	fmt.Fprintln(tw)
	line := func(v stats.Value) {
		fmt.Fprintf(tw, "%d\t%.2f %%", v.Count, 100*float64(v.Count)/max(1, float64(r.Total.Count)))
		if bytes {
			fmt.Fprintf(tw, "\t%.1f", float64(v.Bytes)/1e9)
		}
		fmt.Fprintln(tw)
	}
	for _, row := range r.Rows {
		for _, label := range row.Labels {
			fmt.Fprintf(tw, "%s\t", label)
		}
		line(row.Value)
	}
	if len(r.By) > 0 {
		fmt.Fprint(tw, "total", strings.Repeat("\t", len(r.By)))
		line(r.Total)
	}
	return tw.Flush()
}
