package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"meridian/cmd/internal/daemon"
	"meridian/schema"
	"meridian/signer/verify"
	"meridian/syncer"
)

const publishUsage = `usage:
    syncer publish [flags] SRC DEST...
    syncer rollback [flags] [-sign COMMAND] DEST...

publish makes every tier0 DEST serve the tree SRC: packages, then metadata, then
every repomd.xml together, then TIME, fullfiletimelist and manifest.gz. What
older metadata names stays for the time of grace. It ends with status 0 when all
of them have been read back. After an interruption, run it again.
rollback brings back what the repositories held before the last publication, as
a new generation with higher revisions.

DEST is a directory, rsync://[USER@]HOST[:PORT]/MODULE[/DIR], HOST::MODULE, or
[USER@]HOST:DIR over ssh in batch mode.

    -dry-run             say what would change, and change nothing
    -json                print the report as JSON
    -pub FILE            refuse what no key in FILE has signed; may be repeated
    -url URL             where a DEST serves its tree: ask there too; may be
                         repeated
    -network FILE        a network file, for its allowed_outdate: generations
                         stay that long and 48h more
    -grace DURATION      or say how long they stay (default 60h)
    -max-delete N        how many names may leave the tree, or be deleted, at a
                         time (default a tenth and at least 1000; -1 is any)
    -replace             let packages change under the same name, which breaks
                         clients
    -sign COMMAND        rollback: what signs a repomd.xml, its arguments
                         between spaces, no shell; it is given the path and
                         leaves .asc there
    -password-file FILE  for rsync daemons
    -protocol N          speak no newer rsync protocol (30 for rsync 3.0)
    -checksum NAME       rsync's --checksum-choice (md5 for an old rsync)
    -timeout DURATION    when nothing moves (default 10m)
    -fsync               have remote rsyncs (3.2.4 or newer) sync each file to
                         disk
    -rsync PROGRAM       another rsync than the one in PATH
    -break-lock NAME     remove the lock of a publisher that is known to be gone
    -accept-clock        publish although the last publication is in the future

    syncer publish -pub key.asc compose rsync://publisher@tier0.example.org/tree
`

// list is a flag that may be repeated.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func publish(ctx context.Context, env daemon.Env, verb string, args []string) error {
	var job syncer.Job
	var pub, urls list
	flags := flag.NewFlagSet(verb, flag.ContinueOnError)
	flags.BoolVar(&job.DryRun, "dry-run", false, "")
	asJSON := flags.Bool("json", false, "")
	flags.Var(&pub, "pub", "")
	flags.Var(&urls, "url", "")
	network := flags.String("network", "", "")
	flags.DurationVar(&job.Grace, "grace", 0, "")
	flags.StringVar(&job.Rsync.PasswordFile, "password-file", "", "")
	flags.IntVar(&job.Rsync.Protocol, "protocol", 0, "")
	flags.StringVar(&job.Rsync.Checksum, "checksum", "", "")
	flags.DurationVar(&job.Rsync.Timeout, "timeout", 0, "")
	flags.BoolVar(&job.Rsync.Fsync, "fsync", false, "")
	flags.StringVar(&job.Rsync.Program, "rsync", "", "")
	flags.StringVar(&job.BreakLock, "break-lock", "", "")
	flags.BoolVar(&job.AcceptClock, "accept-clock", false, "")
	var sign string
	if verb == "rollback" {
		flags.StringVar(&sign, "sign", "", "")
	} else {
		flags.IntVar(&job.MaxDelete, "max-delete", 0, "")
		flags.BoolVar(&job.Replace, "replace", false, "")
	}
	if err := daemon.ParseFlags(flags, args, publishUsage); err != nil {
		return err
	}
	job.Dests, job.URLs = flags.Args(), urls
	if verb == "publish" && len(job.Dests) > 0 {
		job.Source, job.Dests = job.Dests[0], job.Dests[1:]
	}
	if len(job.Dests) == 0 {
		return daemon.Misuse("%s needs a destination; syncer %s -h says more", verb, verb)
	}
	if job.Grace < 0 || job.Rsync.Timeout < 0 {
		return daemon.Misuse("a duration is negative; write one like 60h")
	}
	if err := syncer.CheckProtocol(job.Rsync.Protocol); err != nil {
		return daemon.Misuse("-protocol %v", err)
	}
	if *network != "" {
		if job.Grace != 0 {
			return daemon.Misuse("-grace and -network both say how long generations stay; leave one out")
		}
		n, _, err := schema.LoadNetwork(*network)
		if err != nil {
			return err
		}
		job.Grace = n.AllowedOutdate + 48*time.Hour
	}
	if len(pub) > 0 {
		ring, err := verify.OpenRing(pub...)
		if err != nil {
			return err
		}
		job.Keys = ring
	}
	if daemon.IsTerminal(env.Stderr) {
		job.Progress = func(what string) { fmt.Fprintln(env.Stderr, what) }
	}
	do := func() (*syncer.Report, error) { return syncer.Publish(ctx, job) }
	if verb == "rollback" {
		do = func() (*syncer.Report, error) { return syncer.Rollback(ctx, job, signer(env, sign)) }
	}
	report, err := do()
	if err == nil || *asJSON {
		err = errors.Join(err, printReport(env.Stdout, report, *asJSON))
	}
	return err
}

// signer runs the command of -sign with the path of what is to be signed.
func signer(env daemon.Env, command string) syncer.Signer {
	argv := strings.Fields(command)
	if len(argv) == 0 {
		return nil
	}
	return func(ctx context.Context, repomd string) error {
		cmd := exec.CommandContext(ctx, argv[0], append(argv[1:len(argv):len(argv)], repomd)...)
		cmd.Stdout, cmd.Stderr = env.Stderr, env.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", argv[0], err)
		}
		return nil
	}
}

func printReport(w io.Writer, r *syncer.Report, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	printRepos(w, r)
	for _, d := range r.Dests {
		for _, n := range d.Notes {
			fmt.Fprintf(w, "%s: %s\n", d.Dest, n)
		}
		printChanges(w, d.Dest, d, r.DryRun)
	}
	return nil
}

// printRepos says which repositories are switched.
func printRepos(w io.Writer, r *syncer.Report) {
	for _, c := range r.Repos {
		from := c.From
		if from == "" {
			from = "new"
		}
		fmt.Fprintf(w, "%s: revision %s -> %s\n", c.Path, from, c.To)
	}
}

// printChanges says what changed, or would, in a tree.
func printChanges(w io.Writer, name string, d syncer.DestReport, dry bool) {
	switch {
	case d.Current:
		fmt.Fprintf(w, "%s: generation %d, which is current\n", name, d.Generation)
		return
	case dry:
		fmt.Fprintf(w, "%s: would be generation %d", name, d.Generation)
	default:
		fmt.Fprintf(w, "%s: generation %d", name, d.Generation)
	}
	fmt.Fprintf(w, ": %d added, %d changed, %d bytes; %d retired, %d deleted\n", d.Added, d.Changed, d.Bytes, d.Retired, d.Deleted)
}
