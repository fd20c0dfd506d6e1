package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"time"

	"meridian/cmd/internal/daemon"
	"meridian/signer/verify"
)

func verifyTrees(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("verify", flag.ContinueOnError)
	var pubs []string
	flags.Func("pub", "", func(s string) error { pubs = append(pubs, s); return nil })
	var c verify.Checker
	flags.Func("at", "", func(s string) (err error) { c.At, err = parseTime(s); return err })
	flags.BoolVar(&c.AllDigests, "all-digests", false, "")
	verbose := flags.Bool("v", false, "")
	if err := daemon.ParseFlags(flags, args, usage); err != nil {
		return err
	}
	switch {
	case len(pubs) == 0:
		return daemon.Misuse("whose signatures are good? Write -pub FILE, a public key")
	case flags.NArg() == 0:
		return daemon.Misuse("verify what? Name packages, repomd.xml, or directories that have them")
	}
	var err error
	if c.Keys, err = verify.OpenRing(pubs...); err != nil {
		return daemon.Misuse("-pub: %v", err)
	}
	files, err := find(ctx, flags.Args())
	if err != nil {
		return err
	}
	bad := 0
	p := newProgress(env, "verifying", files)
	err = c.Tree(ctx, files, func(r verify.Result) {
		if len(r.Findings) > 0 {
			bad++
		} else if *verbose {
			p.say(env.Stdout, "%s: good", r.Artifact)
		}
		for i, f := range r.Findings {
			if !slices.Contains(r.Findings[:i], f) { // two signatures may be wrong in the same way
				p.say(env.Stdout, "%s: %s", r.Artifact, f)
			}
		}
		p.step(r.Artifact.Size)
	})
	p.end()
	if err != nil {
		return err
	}
	if bad > 0 {
		fmt.Fprintf(env.Stdout, "%d of %d files are not signed as they should be\n", bad, len(files))
		return daemon.Exit(1)
	}
	fmt.Fprintf(env.Stdout, "%d files are signed as they should be\n", len(files))
	return nil
}

// parseTime reads a moment, of UTC where it does not say otherwise.
func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; write 2006-01-02 or 2006-01-02T15:04:05Z", s)
}
