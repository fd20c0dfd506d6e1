// Package daemon is what every command of this tree does the same way: its
// streams, its signals, its exit status, its log, and what it tells the service
// manager. It depends on the standard library alone, so that no command carries
// more than it needs; it never reads a settings file and never decides what a
// command does.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
)

// Env is what a command has of the process around it. A test fills one in and
// calls run as Main would.
type Env struct {
	// Args are the arguments, without the name of the program.
	Args []string

	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer

	// Getenv looks up an environment variable. The environment carries secrets
	// and what the service manager says; settings are in a file. Nil is an empty
	// environment.
	Getenv func(key string) string
}

func (e Env) getenv(key string) string {
	if e.Getenv == nil {
		return ""
	}
	return e.Getenv(key)
}

// Main runs a command and exits. The context that run is given ends with the
// first SIGINT or SIGTERM, which the service manager is told; a second one kills
// the process, so that a stop that hangs can always be cut short. SIGHUP is left
// alone: see [OnHangup].
//
// The exit status is 0 when run returns nil or [Help], 2 after [Usage] and
// [Misuse], that of [Exit], and 1 after any other error, which is printed as
// "name: err". A daemon that was asked to stop, and did, returns nil; a command
// that was interrupted halfway returns the error of its context, and Main prints
// which signal it was.
//
// What libraries write to the standard logger goes to standard error, one line a
// minute at most.
//
// "version" as the only argument is answered here, for all commands alike.
func Main(run func(ctx context.Context, env Env) error) {
	env := Env{
		Args:   os.Args[1:],
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		Getenv: os.Getenv,
	}
	log.SetFlags(0)
	log.SetOutput(&libraryLog{to: NewLogger(env.Stderr, slog.LevelInfo)})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		first := <-signals
		// When the first thing stops, a second signal kills already, and the service
		// manager knows: signal.NotifyContext leaves both to chance.
		signal.Stop(signals)
		select {
		case second := <-signals: // it came before that
			syscall.Kill(os.Getpid(), second.(syscall.Signal))
		default:
		}
		Notify(env, Stopping) // who started us waits for the exit either way
		cancel(fmt.Errorf("%v signal received", first))
	}()
	os.Exit(execute(ctx, filepath.Base(os.Args[0]), env, run))
}

// execute is Main without the process: it returns the exit status.
func execute(ctx context.Context, name string, env Env, run func(context.Context, Env) error) int {
	if len(env.Args) == 1 && slices.Contains([]string{"version", "-version", "--version"}, env.Args[0]) {
		fmt.Fprintln(env.Stdout, name, Version())
		return 0
	}
	err := run(ctx, env)
	if err == nil {
		return 0
	}
	if said, ok := errors.AsType[*ending](err); ok {
		out := env.Stderr
		if said.status == 0 {
			out = env.Stdout
		}
		if said.blame != "" {
			fmt.Fprintf(out, "%s: %s\n", name, said.blame)
		}
		fmt.Fprint(out, said.text)
		return said.status
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	fmt.Fprintf(env.Stderr, "%s: %v\n", name, err)
	return 1
}

// ending is an error that says how the program ends rather than what failed.
type ending struct {
	status int
	blame  string // one line, printed after the name of the program
	text   string // printed as it is
}

func (e *ending) Error() string {
	if e.blame != "" {
		return e.blame
	}
	return fmt.Sprintf("exit status %d", e.status)
}

// Help ends the program with status 0 and text, a whole help page, on standard
// output: the user asked for it.
func Help(text string) error { return &ending{status: 0, text: text} }

// Usage ends the program with status 2 and text, a whole help page, on standard
// error: the command line is not one that the program understands.
func Usage(text string) error { return &ending{status: 2, text: text} }

// Misuse ends the program with status 2 and one line on standard error: what is
// wrong with the command line, and what to write instead.
func Misuse(format string, args ...any) error {
	return &ending{status: 2, blame: fmt.Sprintf(format, args...)}
}

// Exit ends the program with status and prints nothing: what there was to say is
// on the screen already.
func Exit(status int) error { return &ending{status: status} }

// Verb splits the command line of a command that has several: the verb and the
// arguments after it. Without any argument the error is [Usage], and where the
// first one asks for help it is [Help].
func Verb(env Env, usage string) (verb string, args []string, err error) {
	if len(env.Args) == 0 {
		return "", nil, Usage(usage)
	}
	switch env.Args[0] {
	case "-h", "-help", "--help", "help":
		return "", nil, Help(usage)
	}
	return env.Args[0], env.Args[1:], nil
}

// ParseFlags parses args with flags and leaves the rest in flags.Args. The error
// is [Help] of usage for -h or help alone, and [Misuse] with what is wrong for a
// flag that flags does not know or a value that it refuses.
func ParseFlags(flags *flag.FlagSet, args []string, usage string) error {
	if len(args) == 1 && args[0] == "help" {
		return Help(usage)
	}
	flags.Init(flags.Name(), flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	switch err := flags.Parse(args); {
	case err == nil:
		return nil
	case errors.Is(err, flag.ErrHelp):
		return Help(usage)
	default:
		return Misuse("%v; -h lists the flags", err)
	}
}

// OnHangup calls reload each time that SIGHUP asks the daemon to read its files
// again; hangups that come while it runs are one more call. They do not end the
// process any more, until stop is called, which ends the context of a reload that
// runs and waits for it.
func OnHangup(ctx context.Context, reload func(context.Context)) (stop func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				reload(ctx)
			}
		}
	}()
	return func() {
		cancel()
		<-done
		signal.Stop(hup)
	}
}
