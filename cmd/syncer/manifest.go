package main

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"meridian/cmd/internal/daemon"
	"meridian/internal/durable"
	"meridian/syncer"
)

const manifestUsage = `usage:
    syncer manifest [-format compact|fedora] [-o FILE] [-previous FILE] TREE

manifest prints a line for every name in TREE. Files are hashed with xxh3, and
those in repodata with sha256 too. TIME, fullfiletimelist, manifest.gz and
.meridian at the top of TREE belong to the publisher and are left out.

    -format compact   all there is to know, as verify reads it (default); fedora
                      is the fullfiletimelist that quick-fedora-mirror reads
    -o FILE           write FILE instead, whole or not at all; compressed when
                      its name ends in .gz
    -previous FILE    a compact list of earlier: what has the same size and time
                      is not read again (default: FILE of -o, if it is one)

    syncer manifest -o tree.gz tree
`

func manifest(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("manifest", flag.ContinueOnError)
	format := flags.String("format", "compact", "")
	out := flags.String("o", "", "")
	before := flags.String("previous", "", "")
	if err := daemon.ParseFlags(flags, args, manifestUsage); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return daemon.Misuse("manifest takes one tree, not %d; syncer manifest -h says more", flags.NArg())
	}
	if *format != "compact" && *format != "fedora" {
		return daemon.Misuse("-format %q is unknown; write compact or fedora", *format)
	}
	previous, err := previousManifest(*before, *out, *format)
	if err != nil {
		return err
	}
	m, err := syncer.Read(ctx, flags.Arg(0), previous)
	if err != nil {
		return err
	}
	print := m.Write
	if *format == "fedora" {
		print = m.WriteTimeList
	}
	if *out == "" {
		return print(env.Stdout)
	}
	return durable.Write(*out, 0o644, func(w io.Writer) error {
		if !strings.HasSuffix(*out, ".gz") {
			return print(w)
		}
		z := gzip.NewWriter(w)
		if err := print(z); err != nil {
			return err
		}
		return z.Close()
	})
}

// previousManifest reads the list that was named, and else the one that is going
// to be replaced, if there is one.
func previousManifest(named, out, format string) (*syncer.Manifest, error) {
	if named != "" {
		return syncer.LoadManifest(named)
	}
	if out == "" || format != "compact" {
		return nil, nil
	}
	m, err := syncer.LoadManifest(out)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w; remove the file, or name another with -o", err)
	}
	return m, nil
}

const verifyUsage = `usage:
    syncer verify [-sample N] [-manifest FILE] [-json] TREE

verify compares TREE with the list of what should be there and prints one line
for each difference: missing, extra, torn (another size) or changed (another
content). The exit status is 1 when there is one.

    -sample N        read the content of only N files, chosen anew each time;
                     names and sizes are always compared
    -manifest FILE   a list that "syncer manifest" made (default
                     TREE/manifest.gz, which comes with a published tree)
    -json            print one JSON object

    syncer verify -sample 1000 .
`

func verifyTree(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("verify", flag.ContinueOnError)
	sample := flags.Int("sample", 0, "")
	file := flags.String("manifest", "", "")
	asJSON := flags.Bool("json", false, "")
	if err := daemon.ParseFlags(flags, args, verifyUsage); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return daemon.Misuse("verify takes one tree, not %d; syncer verify -h says more", flags.NArg())
	}
	if *sample < 0 {
		return daemon.Misuse("-sample %d is negative; leave it out to read everything", *sample)
	}
	v, err := findings(ctx, flags.Arg(0), *file, *sample)
	if err != nil {
		return err
	}
	if *asJSON {
		enc := json.NewEncoder(env.Stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(v); err != nil {
			return err
		}
	} else {
		for _, f := range v.Findings {
			line := fmt.Sprintf("%s: %+q", f.Kind, f.Path)
			if f.Detail != "" {
				line += ": " + f.Detail
			}
			fmt.Fprintln(env.Stdout, line)
		}
		fmt.Fprintf(env.Stdout, "%d of %d files read, %d bytes, %d differences\n", v.Hashed, v.Files, v.Bytes, len(v.Findings))
	}
	if len(v.Findings) > 0 {
		return daemon.Exit(1)
	}
	return nil
}

func findings(ctx context.Context, tree, file string, sample int) (*syncer.Verdict, error) {
	if file == "" {
		return syncer.VerifyTree(ctx, tree, sample)
	}
	m, err := syncer.LoadManifest(file)
	if err != nil {
		return nil, err
	}
	return syncer.Verify(ctx, tree, m, sample)
}
