// Command mirrorlist answers dnf and zypper with lists of mirrors, explains them,
// and shows what they do to the load of each mirror. It reads the network and
// mirror files and writes nothing but its cache and statistics.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"

	"meridian/cmd/internal/daemon"
	"meridian/cmd/internal/daemon/metrics"
	"meridian/internal/strictyaml"
	"meridian/mirrorlist"
	"meridian/mirrorlist/geo"
)

const usage = `usage:
    mirrorlist serve    -config mirrorlist.yml [-check] [-v]
    mirrorlist explain  -config mirrorlist.yml [-ip ADDR] [-arch ARCH]
                        [-protocol http|https] [-country CC]
                        [-user-agent TEXT] [-json] VERSION/REPO
    mirrorlist stats    -config mirrorlist.yml [-h for more]
    mirrorlist simulate -config mirrorlist.yml -clients FILE [-h for more]
    mirrorlist replay   -log ACCESSLOG -config mirrorlist.yml -against URL
                        [-h for more]
    mirrorlist geo      DATABASE.mmdb SNAPSHOT

serve is the daemon. Its settings are in one YAML file; SIGHUP reads all files
again, and so does POST /-/reload. With -check it reads them once, says what is
wrong, and exits.

explain prints which mirrors a client at ADDR is given for a repository, in
order, and why every other mirror is not among them. It reads the same files as
the daemon and decides with the same code.

stats sums up what was counted. simulate says what each mirror would be sent,
and what a change of mirrors.d does to that. replay asks this server and another
one for the lists of an access log, and says where they differ. Each has a help
text of its own.

geo compiles a geolocation database of MaxMind or IPinfo into the form that
serve maps. serve does this by itself, in a child process.

example:
    mirrorlist explain -config mirrorlist.yml -ip 192.0.2.1 9/baseos
`

func main() { daemon.Main(run) }

func run(ctx context.Context, env daemon.Env) error {
	verb, args, err := daemon.Verb(env, usage)
	if err != nil {
		return err
	}
	switch verb {
	case "serve":
		return serve(ctx, env, args)
	case "explain":
		return explain(ctx, env, args)
	case "stats":
		return showStats(ctx, env, args)
	case "simulate":
		return simulate(ctx, env, args)
	case "replay":
		return replay(ctx, env, args)
	case "geo":
		return compile(args)
	}
	return daemon.Misuse("unknown command %q: write serve, explain, stats, simulate, replay or geo", verb)
}

// readConfig reads a settings file.
func readConfig(path string) (mirrorlist.Config, error) {
	var cfg mirrorlist.Config
	if path == "" {
		return cfg, daemon.Misuse("missing -config: write -config mirrorlist.yml")
	}
	if err := strictyaml.Load(path, &cfg); err != nil {
		return cfg, err
	}
	return cfg.Rooted(filepath.Dir(path)), nil
}

func serve(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	config := flags.String("config", "", "")
	check := flags.Bool("check", false, "")
	verbose := flags.Bool("v", false, "")
	if err := daemon.ParseFlags(flags, args, usage); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return daemon.Misuse("serve takes no argument %q: settings are in the file of -config", flags.Arg(0))
	}
	cfg, err := readConfig(*config)
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	log := daemon.NewLogger(env.Stderr, level)
	reg := metrics.New(daemon.Version())
	resume := holdCollector()
	s, err := mirrorlist.New(ctx, mirrorlist.Options{
		Config:     cfg,
		Log:        log,
		ReadConfig: func() (mirrorlist.Config, error) { return readConfig(*config) },
		ConfigFile: *config,
		Compile:    compileInChild,
		Metrics:    metrics.Handler(reg, log),
		Version:    daemon.Version(),
	})
	resume()
	if err != nil {
		return err
	}
	if *check {
		return report(env, s.Status())
	}
	reg.MustRegister(s.Collector())

	stop := daemon.OnHangup(ctx, func(ctx context.Context) {
		if err := s.Reload(ctx, true); err != nil && ctx.Err() == nil {
			log.Warn("reloaded, except", "err", err)
		}
	})
	defer stop()
	return s.Run(ctx, func(main, admin string) {
		log.Info("serving", "addr", main, "admin", admin, "mirrors", s.Status().Mirrors)
		daemon.SayReady(env, log)
	})
}

// startMemory is how much a start may allocate before anything is collected. A
// network of 600 mirrors takes a quarter of it.
const startMemory = 256 << 20

// holdCollector keeps the garbage collector from running until resume is called,
// or startMemory is reached. Half of what a start allocates stays: collecting
// while that grows costs more than it finds.
func holdCollector() (resume func()) {
	percent := debug.SetGCPercent(-1)
	limit := debug.SetMemoryLimit(-1) // what the environment says
	debug.SetMemoryLimit(min(limit, startMemory))
	return func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
	}
}

// report prints what is wrong with the inputs, as serve -check shows it.
func report(env daemon.Env, st *mirrorlist.Status) error {
	fmt.Fprintf(env.Stdout, "%d mirrors\n", st.Mirrors)
	lines := st.Lines()
	for _, line := range lines {
		fmt.Fprintln(env.Stdout, line)
	}
	if len(lines) > 0 {
		return daemon.Exit(1)
	}
	return nil
}

func explain(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("explain", flag.ContinueOnError)
	config := flags.String("config", "", "")
	ip := flags.String("ip", "", "")
	var in mirrorlist.Inquiry
	flags.StringVar(&in.Arch, "arch", "", "")
	flags.StringVar(&in.Protocol, "protocol", "", "")
	flags.StringVar(&in.Country, "country", "", "")
	flags.StringVar(&in.UserAgent, "user-agent", "", "")
	asJSON := flags.Bool("json", false, "")
	if err := daemon.ParseFlags(flags, args, usage); err != nil {
		return err
	}
	var ok bool
	if in.Version, in.Repo, ok = strings.Cut(flags.Arg(0), "/"); !ok || flags.NArg() != 1 {
		return daemon.Misuse("explain takes one VERSION/REPO: write one such as 9/baseos, after the flags")
	}
	if *ip != "" {
		addr, err := netip.ParseAddr(*ip)
		if err != nil {
			return daemon.Misuse("-ip %q is no address: write one such as 192.0.2.1 or 2001:db8::1", *ip)
		}
		in.Addr = addr.Unmap()
	}
	cfg, err := readConfig(*config)
	if err != nil {
		return err
	}
	s, err := mirrorlist.New(ctx, mirrorlist.Options{
		Config: cfg, Log: daemon.NewLogger(env.Stderr, slog.LevelError), Compile: compileInChild,
	})
	if err != nil {
		return err
	}
	in.All = true // who can read the files may see what is in them
	e, err := s.Explain(in)
	if err != nil {
		return err
	}
	if *asJSON {
		return e.PrintJSON(env.Stdout)
	}
	return e.Print(env.Stdout)
}

func compile(args []string) error {
	flags := flag.NewFlagSet("geo", flag.ContinueOnError)
	if err := daemon.ParseFlags(flags, args, usage); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return daemon.Misuse("geo takes a database and the snapshot to write: mirrorlist geo GeoLite2-City.mmdb city.geo")
	}
	return geo.Compile(flags.Arg(0), flags.Arg(1))
}

// compileInChild compiles a database in a process of its own, whose memory is
// gone when it is done.
func compileInChild(ctx context.Context, mmdb, out string) error {
	// The program that runs, not the one that an upgrade has put into its place
	// meanwhile: that may write snapshots that this one cannot read.
	self := "/proc/self/exe"
	if _, err := os.Stat(self); err != nil {
		if self, err = os.Executable(); err != nil {
			return fmt.Errorf("compile %s: %w", mmdb, err)
		}
	}
	const name = "mirrorlist"
	cmd := exec.CommandContext(ctx, self, "geo", mmdb, out)
	cmd.Args[0] = name
	text, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if said := strings.TrimSpace(strings.TrimPrefix(string(text), name+": ")); said != "" {
		return errors.New(said)
	}
	return fmt.Errorf("compile %s in a process of its own: %w", mmdb, err)
}
