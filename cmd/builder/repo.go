package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"meridian/builder"
	"meridian/builder/repodata"
	"meridian/builder/rpm"
	"meridian/cmd/internal/daemon"
	"meridian/internal/durable"
)

func repo(ctx context.Context, env daemon.Env, args []string) error {
	var o builder.RepoOptions
	var pkglist, compression, receipts, writeReceipts string
	var quiet bool
	flags := flag.NewFlagSet("repo", flag.ContinueOnError)
	flags.BoolVar(&o.Update, "update", false, "")
	flags.StringVar(&o.Revision, "revision", "", "")
	flags.BoolVar(&o.Timestamps, "set-timestamp-to-revision", false, "")
	flags.StringVar(&o.BaseURL, "baseurl", "", "")
	flags.Func("excludes", "", func(s string) error {
		o.Excludes = append(o.Excludes, s)
		return nil
	})
	flags.StringVar(&pkglist, "pkglist", "", "")
	flags.StringVar(&o.Groups, "groupfile", "", "")
	flags.StringVar(&o.Modules, "modules", "", "")
	flags.StringVar(&o.Updates, "updateinfo", "", "")
	flags.StringVar(&compression, "compress-type", "gz", "")
	flags.StringVar(&o.Checksum, "checksum", "sha256", "")
	flags.IntVar(&o.RetainOld, "retain-old-md", 0, "")
	flags.IntVar(&o.Workers, "workers", 0, "")
	flags.StringVar(&o.Cache, "cache", "", "")
	flags.StringVar(&receipts, "receipts", "", "")
	flags.StringVar(&writeReceipts, "write-receipts", "", "")
	flags.BoolVar(&quiet, "quiet", false, "")
	if err := daemon.ParseFlags(flags, args, usage); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return daemon.Misuse("%d directories; name the one that the packages are in, after the options", flags.NArg())
	}
	o.Dir = flags.Arg(0)
	if err := check(&o, compression); err != nil {
		return err
	}

	var err error
	if pkglist != "" {
		err = readFile(pkglist, func(r io.Reader) (err error) {
			o.Packages, err = builder.ReadPackageList(r)
			if o.Packages == nil {
				o.Packages = []string{} // an empty list is not none
			}
			return err
		})
	}
	if err == nil && receipts != "" {
		err = readFile(receipts, func(r io.Reader) (err error) {
			o.Receipts, err = rpm.ReadReceipts(r)
			return err
		})
	}
	if err != nil {
		return err
	}
	if o.Cache == "" {
		if o.Cache, err = defaultCache(env, o.Dir); err != nil {
			fmt.Fprintf(env.Stderr, "builder: no cache: %v; name one with -cache\n", err)
		}
	}

	p := &progress{w: env.Stderr, terminal: daemon.IsTerminal(env.Stderr), quiet: quiet, start: time.Now()}
	o.Refused = p.refused
	o.Progress = p.done
	if writeReceipts == "" {
		return p.end(builder.Repo(ctx, o))
	}
	var report builder.RepoReport
	err = durable.Write(writeReceipts, 0o644, func(w io.Writer) error {
		var failed error
		o.Receipt = func(one rpm.Receipt) {
			failed = errors.Join(failed, rpm.WriteReceipts(w, []rpm.Receipt{one}))
		}
		var err error
		report, err = builder.Repo(ctx, o)
		return errors.Join(err, failed)
	})
	return p.end(report, err)
}

// check refuses what a person has to write otherwise.
func check(o *builder.RepoOptions, compression string) (err error) {
	if o.Compression, err = repodata.ParseCompression(compression); err != nil {
		return daemon.Misuse("-compress-type: %v", err)
	}
	if _, err := repodata.NewHash(o.Checksum); err != nil {
		return daemon.Misuse("-checksum: %v", err)
	}
	if o.RetainOld < 0 {
		return daemon.Misuse("-retain-old-md %d; write 0 or more", o.RetainOld)
	}
	if o.Workers < 0 {
		return daemon.Misuse("-workers %d; write 0 for one a processor, or more", o.Workers)
	}
	if o.BaseURL != "" {
		if u, err := url.Parse(o.BaseURL); err != nil || u.Scheme == "" {
			return daemon.Misuse("-baseurl %q is no URL; write it with https:// in front", o.BaseURL)
		}
	}
	if o.Timestamps {
		if n, err := strconv.ParseInt(o.Revision, 10, 64); err != nil || n < 0 {
			return daemon.Misuse("-set-timestamp-to-revision needs -revision with seconds since 1970, not %q", o.Revision)
		}
	}
	return nil
}

func readFile(name string, read func(io.Reader) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := read(bufio.NewReader(f)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// defaultCache is a file for the repository dir in the user's cache directory, and
// not in the repository, which is published.
func defaultCache(env daemon.Env, dir string) (string, error) {
	getenv := env.Getenv
	if getenv == nil {
		getenv = func(string) string { return "" }
	}
	base := getenv("XDG_CACHE_HOME")
	if base == "" {
		home := getenv("HOME")
		if home == "" {
			return "", errors.New("neither XDG_CACHE_HOME nor HOME is set")
		}
		base = filepath.Join(home, ".cache")
	}
	real, err := filepath.EvalSymlinks(dir)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return "", err
	}
	// Only its owner may write what will be believed.
	base = filepath.Join(base, "meridian", "builder")
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", err
	}
	return filepath.Join(base, fmt.Sprintf("repo-%x.cache", sha256.Sum256([]byte(real)))), nil
}

// progress tells a person how far it is: one line that is written over on a
// terminal, a line every ten seconds in a log.
type progress struct {
	w        io.Writer
	terminal bool
	quiet    bool
	start    time.Time
	last     time.Time
	shown    bool // the cursor is behind a line that is to be written over
}

func (p *progress) done(done, total int) {
	if p.quiet {
		return
	}
	now, every := time.Now(), 10*time.Second
	if p.terminal {
		every = 100 * time.Millisecond
	} else if p.last.IsZero() {
		p.last = p.start
	}
	if now.Sub(p.last) < every {
		return
	}
	p.last = now
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%d of %d packages", done, total)
		p.shown = true
		return
	}
	fmt.Fprintf(p.w, "builder: %d of %d packages\n", done, total)
}

// clear takes the line of the progress away, so that another can be written.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

func (p *progress) refused(path string, why error) {
	p.clear()
	fmt.Fprintf(p.w, "builder: %s: left out: %v\n", printable(path), why)
}

// printable keeps names with newlines and other surprises on one line.
func printable(path string) string {
	if q := strconv.Quote(path); q != `"`+path+`"` {
		return q
	}
	return path
}

func (p *progress) end(report builder.RepoReport, err error) error {
	p.clear()
	if err != nil {
		return err
	}
	if !p.quiet {
		var b strings.Builder
		fmt.Fprintf(&b, "builder: %d packages, %d of them read, %d left out, in %.1f s: ", report.Packages, report.Read, report.Refused, time.Since(p.start).Seconds())
		if report.Changed {
			fmt.Fprintf(&b, "revision %s\n", report.Revision)
		} else {
			fmt.Fprintf(&b, "nothing changed since revision %s\n", report.Revision)
		}
		io.WriteString(p.w, b.String())
	}
	if report.Refused > 0 {
		return daemon.Exit(1)
	}
	return nil
}
