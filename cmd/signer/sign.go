package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"meridian/builder/rpm"
	"meridian/cmd/internal/daemon"
	"meridian/internal/durable"
	"meridian/signer"
	"meridian/signer/verify"
)

func sign(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("sign", flag.ContinueOnError)
	keyFile := flags.String("key", "", "")
	passphraseFile := flags.String("passphrase-file", "", "")
	out := flags.String("out", "", "")
	foreign := flags.String("foreign", "replace", "")
	v3 := flags.Bool("rpmv3", false, "")
	receiptFile := flags.String("receipts", "", "")
	verbose := flags.Bool("v", false, "")
	if err := daemon.ParseFlags(flags, args, usage); err != nil {
		return err
	}
	switch {
	case *keyFile == "":
		return daemon.Misuse("sign with what? Write -key FILE, a private key that signer keygen or gpg has made")
	case flags.NArg() == 0:
		return daemon.Misuse("sign what? Name packages, repomd.xml, or directories that have them")
	case *foreign != "replace" && *foreign != "keep":
		return daemon.Misuse("-foreign %q; write replace or keep", *foreign)
	}
	secret, err := passphrase(env, *passphraseFile)
	if err != nil {
		return err
	}
	key, err := signer.Open(*keyFile, secret, credentials(env))
	if errors.Is(err, signer.ErrPassphrase) && secret == nil {
		return daemon.Misuse("%v; write -passphrase-file FILE, or give the unit the credential %s", err, credential)
	}
	if err != nil {
		return err
	}
	for _, path := range flags.Args() {
		if *out != "" && isBelow(*out, path) {
			return daemon.Misuse("-out %s is below %s, and would be signed too the next time; name a directory elsewhere", *out, path)
		}
	}
	files, err := find(ctx, flags.Args())
	if err != nil {
		return err
	}

	var counts [signer.Linked + 1]int
	var receipts []rpm.Receipt
	var packages []string // that were replaced
	p := newProgress(env, "signing", files)
	err = key.Sign(ctx, files, signer.Options{
		Out:         *out,
		KeepForeign: *foreign == "keep",
		Payload:     *v3,
		Receipts:    *receiptFile != "",
	}, func(r signer.Result) {
		counts[r.State]++
		if r.Receipt != nil {
			receipts = append(receipts, *r.Receipt)
		}
		if *out == "" && r.State == signer.Signed && r.Artifact.Type == verify.Package {
			packages = append(packages, r.Artifact.Path)
		}
		switch {
		case r.Err != nil:
			p.say(env.Stderr, "%v", r.Err)
		case len(r.Replaced) > 0:
			p.say(env.Stdout, "%s: signed, in the place of key %s", r.Artifact, r.Replaced[0])
		case r.State == signer.Kept:
			p.say(env.Stdout, "%s: kept, another key has signed it", r.Artifact)
		case r.State == signer.Linked:
			p.say(env.Stdout, "%s: a link, left alone; name what it leads to", r.Artifact)
		case *verbose && r.State == signer.Signed:
			p.say(env.Stdout, "%s: signed", r.Artifact)
		case *verbose:
			p.say(env.Stdout, "%s: unchanged", r.Artifact)
		}
		p.step(r.Artifact.Size)
	})
	p.end()
	if *receiptFile != "" {
		// Also after an error: what is signed is signed.
		var b bytes.Buffer
		if err := rpm.WriteReceipts(&b, receipts); err != nil {
			return err
		}
		if err := durable.WriteFile(*receiptFile, b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	for _, f := range stale(files, packages) {
		fmt.Fprintf(env.Stderr, "%s: does not describe the packages that were signed now; run builder repo, then sign it again\n", f)
	}
	fmt.Fprintf(env.Stdout, "key %s: %d signed, %d unchanged", key, counts[signer.Signed], counts[signer.Unchanged])
	if n := counts[signer.Kept]; n > 0 {
		fmt.Fprintf(env.Stdout, ", %d kept", n)
	}
	if n := counts[signer.Failed]; n > 0 {
		fmt.Fprintf(env.Stdout, ", %d not signed\n", n)
		return daemon.Exit(1)
	}
	fmt.Fprintln(env.Stdout)
	return nil
}

// find lists what there is to do. That there is nothing is an error of who asked.
func find(ctx context.Context, paths []string) ([]verify.Artifact, error) {
	files, err := verify.Find(ctx, paths...)
	if err != nil && ctx.Err() == nil {
		return nil, daemon.Misuse("%v", err)
	}
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, daemon.Misuse("there is neither a package nor a repomd.xml below %q", paths)
	}
	return files, nil
}

// isBelow tells whether the path a is that of b, or in it.
func isBelow(a, b string) bool {
	a, errA := filepath.Abs(a)
	b, errB := filepath.Abs(b)
	if errA != nil || errB != nil {
		return false
	}
	rel, err := filepath.Rel(b, a)
	return err == nil && filepath.IsLocal(rel)
}

// stale returns the metadata, of what was found, that no longer describes its
// packages because those were signed.
func stale(files []verify.Artifact, signed []string) []verify.Artifact {
	var list []verify.Artifact
	for _, f := range files {
		if f.Type != verify.Repomd {
			continue
		}
		repo := filepath.Dir(filepath.Dir(f.Path)) + string(filepath.Separator)
		if slices.ContainsFunc(signed, func(path string) bool { return strings.HasPrefix(path, repo) }) {
			list = append(list, f)
		}
	}
	return list
}
