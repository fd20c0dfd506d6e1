package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"meridian/checker"
	"meridian/checker/notify"
	"meridian/checker/state"
	"meridian/cmd/internal/daemon"
	"meridian/cmd/internal/daemon/metrics"
	"meridian/internal/strictyaml"
)

const runUsage = `usage:
    checker run -config checker.yml [-v]

run is the daemon. It visits every mirror of the network, compares what they
have with what the origin has published, and keeps what it finds out where
mirrorlist servers read it. Of several that share a state one does so, and the
others stand by. The network, the mirrors and the overrides are read again when
they change; SIGHUP reads them at once, and accepts that many mirrors are gone.

    -v   log more

    checker run -config /etc/meridian/checker.yml
`

const onceUsage = `usage:
    checker once -config checker.yml [-v]

once visits every mirror once, those that fail a second time a minute later,
keeps what it finds out, and prints what is wrong. It cannot be used beside a
checker that runs.

    -v   log every change

The exit status is 1 when nothing could be found out, or not be kept. What is
wrong with single mirrors does not change it.

    checker once -config checker.yml
`

// A service is a checker, and who tells people of what it finds out.
type service struct {
	*checker.Checker
	settings checker.Settings
	log      *slog.Logger
	notifier *notify.Notifier
}

// newService reads the flags of run and once, and makes the checker.
func newService(env daemon.Env, name, help string, args []string, quiet slog.Level) (*service, error) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	config := flags.String("config", "", "")
	verbose := flags.Bool("v", false, "")
	rest, err := parseArgs(flags, args, help)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, daemon.Misuse("%s takes no argument %q: settings are in the file of -config", name, rest[0])
	}
	s, _, err := readSettings(*config)
	if err != nil {
		return nil, err
	}
	if *verbose {
		quiet -= 4 // the next level
	}
	v := &service{settings: s, log: daemon.NewLogger(env.Stderr, quiet)}
	if v.notifier, err = v.newNotifier(); err != nil {
		return nil, err
	}
	v.Checker, err = checker.New(checker.Options{
		Settings: s, Log: v.log, Version: daemon.Version(), Notifier: v.notifier,
		ReadOverrides: func() (*checker.Overrides, error) {
			var o checker.Overrides
			err := strictyaml.Load(s.Overrides, &o)
			return &o, err
		},
	})
	return v, err
}

// newNotifier reads the secrets that telling people takes.
func (v *service) newNotifier() (*notify.Notifier, error) {
	o := notify.Options{Log: v.log, Page: v.settings.Page, Address: v.address}
	var err error
	if w := v.settings.Notify.Webhook; w != nil && w.SecretFile != "" {
		if o.Secret, err = secretIn(w.SecretFile); err != nil {
			return nil, fmt.Errorf("notify.webhook.secret_file: %w", err)
		}
	}
	if m := v.settings.Notify.Mail; m != nil && m.PasswordFile != "" {
		password, err := secretIn(m.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("notify.mail.password_file: %w", err)
		}
		o.Password = string(password)
	}
	return notify.New(v.settings.Notify, o), nil
}

// secretIn reads a secret that somebody else has chosen: its length is theirs.
func secretIn(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if data = bytes.TrimSpace(data); len(data) == 0 {
		return nil, fmt.Errorf("%s is empty; write the secret into it", path)
	}
	return data, nil
}

// address is the e-mail address of the operator of a mirror.
func (v *service) address(mirror string) string {
	for _, m := range v.Standing().Mirrors {
		if m.Name == mirror {
			return m.Email
		}
	}
	return ""
}

// telling runs work while people are told of what it does, and until they are.
func (v *service) telling(ctx context.Context, work func() error) error {
	ctx, quiet := context.WithCancel(context.WithoutCancel(ctx))
	defer quiet()
	told := make(chan error, 1)
	go func() { told <- v.notifier.Run(ctx) }()
	err := work()
	quiet()
	return errors.Join(err, <-told)
}

// runDaemon checks the network until it is stopped.
func runDaemon(ctx context.Context, env daemon.Env, args []string) (err error) {
	c, err := newService(env, "run", runUsage, args, slog.LevelInfo)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	ln, opts, err := c.listen()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	stop := daemon.OnHangup(ctx, func(ctx context.Context) {
		if err := c.Reload(ctx, true); err != nil && ctx.Err() == nil {
			c.log.Warn("reloaded, except", "err", err)
		}
	})
	defer stop()
	daemon.SayReady(env, c.log) // who stands by is as ready as it can be
	if ln != nil {
		c.log.Info("listening", "addr", ln.Addr())
		g.Go(func() error { return c.Serve(ctx, ln, opts) })
	}
	g.Go(func() error {
		return c.telling(ctx, func() error { return c.Run(ctx) })
	})
	return g.Wait()
}

// listen opens the listener, nil if the settings name none.
func (v *service) listen() (net.Listener, checker.ListenOptions, error) {
	var o checker.ListenOptions
	if v.settings.Listen == "" {
		return nil, o, nil
	}
	var err error
	if v.settings.SecretFile != "" {
		if o.Secret, err = readSecret(v.settings.SecretFile); err != nil {
			return nil, o, err
		}
	}
	reg := metrics.New(daemon.Version())
	reg.MustRegister(v.Collector())
	o.Metrics = metrics.Handler(reg, v.log)
	ln, err := net.Listen("tcp", v.settings.Listen)
	return ln, o, err
}

// once visits every mirror once.
func once(ctx context.Context, env daemon.Env, args []string) (err error) {
	c, err := newService(env, "once", onceUsage, args, slog.LevelWarn+1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	var r *checker.Round
	err = c.telling(ctx, func() (err error) {
		r, err = c.Once(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if err := printRound(env.Stdout, r); err != nil {
		return err
	}
	known := false
	for _, t := range r.Snapshot.Truth {
		known = known || t.Newest() != nil
	}
	switch {
	case !known:
		return errors.New("the origin has none of the repositories, or does not answer: checker origin says why")
	case r.Mirrors > 0 && r.Answered == 0:
		return errors.New("no mirror answers: see whether this host has a network")
	}
	return nil
}

// printRound prints how many repositories of mirrors are in which health, and
// what is wrong with mirrors.
func printRound(w io.Writer, r *checker.Round) error {
	count := map[state.Health]int{}
	var wrong []string
	for name, st := range r.Snapshot.Mirrors {
		for _, h := range st.Health {
			count[h]++
		}
		if st.Problem != nil {
			wrong = append(wrong, name)
		}
	}
	slices.Sort(wrong)
	var b strings.Builder
	fmt.Fprintf(&b, "%d mirrors visited, %d answered\n", r.Mirrors, r.Answered)
	for h := state.Unknown; h <= state.Unprobed; h++ {
		if n := count[h]; n > 0 {
			fmt.Fprintf(&b, "%8d %s\n", n, h)
		}
	}
	for _, name := range wrong {
		fmt.Fprintf(&b, "%s: %s\n", name, r.Snapshot.Mirrors[name].Problem.Reason)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
