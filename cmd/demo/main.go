// Command demo is what make run starts: a small mirror network on this machine
// alone, made of the real programs. It builds sample packages, makes signed
// repositories of them, publishes those to a tier0, lets mirrors on loopback
// follow it, and starts the real servers around them as children. It is never
// packaged, asks nothing of the network, and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"meridian/cmd/internal/daemon"
)

const usage = `usage:
    demo [-listen ADDR] [-dir DIR]
    demo -check

demo shows a whole mirror network on this machine: packages, signed
repositories, a tier0, mirrors on loopback that follow it, of which some lag or
are broken, the checker that finds that out, and the server that sends clients
to mirrors. It prints what to open and what to paste, and runs until Ctrl-C.

    -listen ADDR   where the server listens; a port is chosen when this one is
                   taken (default 127.0.0.1:8080)
    -dir DIR       build the network in DIR, which is empty or does not exist,
                   and leave it there; by default it is in a temporary directory
                   and goes at the end
    -check         do what the screen says oneself, and exit: status 0 when all
                   of it works

    go run ./cmd/demo
`

func main() { daemon.Main(run) }

func run(ctx context.Context, env daemon.Env) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:8080", "")
	dir := flags.String("dir", "", "")
	check := flags.Bool("check", false, "")
	if err := daemon.ParseFlags(flags, env.Args, usage); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return daemon.Misuse("unexpected argument %q; -h lists the flags", flags.Arg(0))
	}
	d := &demo{out: env.Stdout, log: env.Stderr, begun: time.Now()}
	err := d.start(ctx, *listen, *dir)
	switch {
	case err != nil:
	case *check:
		err = d.check(ctx)
	default:
		d.show()
		select {
		case <-ctx.Done():
			fmt.Fprintln(env.Stdout, "\nStopping.")
		case <-d.checker.Done():
			err = fmt.Errorf("the checker ended by itself: %w; its log is above", d.checker.Err())
		case <-d.server.Done():
			err = fmt.Errorf("the server ended by itself: %w; its log is above", d.server.Err())
		}
	}
	return errors.Join(err, d.stop())
}

// workDir makes the directory that everything is in, and says whether it goes at
// the end.
func workDir(dir string) (_ string, temporary bool, _ error) {
	if dir == "" {
		dir, err := os.MkdirTemp("", "meridian-demo-")
		return dir, true, err
	}
	// The clients want absolute paths.
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", false, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", false, err
	}
	switch files, err := os.ReadDir(dir); {
	case err != nil:
		return "", false, err
	case len(files) > 0:
		return "", false, fmt.Errorf("%s is not empty; name a directory that is, or leave -dir out", dir)
	}
	return dir, false, nil
}
