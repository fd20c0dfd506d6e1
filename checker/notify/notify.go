// Package notify tells people what became of a mirror: programs by a webhook,
// operators and administrators by mail. Nothing it does delays or changes a
// verdict: what cannot be delivered is tried again for a while, and then dropped
// with a line in the log.
package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"meridian/checker/state"
)

// Settings say who is told. The zero value tells nobody.
type Settings struct {
	Webhook *Webhook `yaml:"webhook"`
	Mail    *Mail    `yaml:"mail"`
}

// Check reports what is wrong with settings, by the name of the key.
func (s *Settings) Check() error {
	var errs []error
	if s.Webhook != nil {
		errs = append(errs, s.Webhook.check())
	}
	if s.Mail != nil {
		errs = append(errs, s.Mail.check())
	}
	return errors.Join(errs...)
}

// maxQueue bounds the events that wait to be told, for each way.
const maxQueue = 2000

// Options are what a Notifier needs beside its settings.
type Options struct {
	Log *slog.Logger

	// Address returns the e-mail address of the operator of a mirror, "" if there
	// is none.
	Address func(mirror string) string

	// Page returns the URL of a page about a mirror, "" if there is none.
	Page func(mirror string) string

	// Secret is the key of the webhook's signature, and Password that of the mail
	// server's user.
	Secret   []byte
	Password string
}

// A Notifier tells what it is given in Notify while Run runs.
type Notifier struct {
	log  *slog.Logger
	ways []*way
}

// A way is one kind of delivery with its queue.
type way struct {
	name    string
	wants   func(e *state.Event) bool
	deliver func(ctx context.Context, events []state.Event) error

	// wait is how long events are gathered before they are delivered together.
	wait time.Duration

	log    *slog.Logger
	wake   chan struct{} // holds one
	mu     sync.Mutex    // guards what follows
	queue  []state.Event
	counts Counts
}

// Counts are what became of events on one way since the start.
type Counts struct {
	Told, Dropped, Failures uint64
	Waiting                 int
}

// New returns a notifier. The settings have been checked.
func New(s Settings, o Options) *Notifier {
	n := &Notifier{log: o.Log}
	if s.Webhook != nil {
		n.add("webhook", 0, everything, s.Webhook.deliverer(o))
	}
	if s.Mail != nil {
		m := newMailer(*s.Mail, o)
		n.add("mail", m.settings.Batch, worthMail, m.deliver)
	}
	return n
}

func (n *Notifier) add(name string, wait time.Duration, wants func(*state.Event) bool, deliver func(context.Context, []state.Event) error) {
	n.ways = append(n.ways, &way{
		name: name, wait: wait, wants: wants, deliver: deliver,
		log: n.log.With("way", name), wake: make(chan struct{}, 1),
	})
}

func everything(*state.Event) bool { return true }

// Notify takes events to be told. It never blocks: when too many wait, the oldest
// are dropped and counted.
func (n *Notifier) Notify(events []state.Event) {
	for _, w := range n.ways {
		w.put(events)
	}
}

func (w *way) put(events []state.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := len(w.queue)
	for i := range events {
		if w.wants(&events[i]) {
			w.queue = append(w.queue, events[i])
		}
	}
	w.bound()
	if len(w.queue) > before {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// bound drops the oldest of too many. It runs with mu held.
func (w *way) bound() {
	if over := len(w.queue) - maxQueue; over > 0 {
		w.queue = slices.Delete(w.queue, 0, over)
		w.counts.Dropped += uint64(over)
	}
}

// Run delivers until ctx ends. What waits then is tried once more, for at most
// five seconds.
func (n *Notifier) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range n.ways {
		g.Go(func() error { return w.run(ctx) })
	}
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Counts returns the counts of each way by its name.
func (n *Notifier) Counts() map[string]Counts {
	out := map[string]Counts{}
	for _, w := range n.ways {
		w.mu.Lock()
		c := w.counts
		c.Waiting = len(w.queue)
		w.mu.Unlock()
		out[w.name] = c
	}
	return out
}

// errLater is the reason of what was not told because too much was told already.
var errLater = errors.New("too much at once; the rest follows")

// After a failure the next attempt waits a second, then twice as long each time,
// up to ten minutes. After a day an event is old news.
const (
	firstRetry = time.Second
	lastRetry  = 10 * time.Minute
	oldNews    = 24 * time.Hour
	laterPause = time.Minute // of what may not be told yet
	lastWords  = 5 * time.Second
)

func (w *way) run(ctx context.Context) error {
	pause := w.wait
	for {
		select {
		case <-ctx.Done():
			return w.finish(ctx)
		case <-w.wake:
		}
		for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
			if !sleep(ctx, pause) {
				return w.finish(ctx)
			}
			err := w.once(ctx)
			if err == nil {
				pause = w.wait
				break
			}
			if ctx.Err() != nil {
				return w.finish(ctx)
			}
			if errors.Is(err, errLater) {
				pause, retry = laterPause, firstRetry
				continue
			}
			w.log.WarnContext(ctx, "telling again later", "err", err, "after", retry)
			pause = retry
		}
	}
}

// once delivers what waits. What was not delivered goes back to the front.
func (w *way) once(ctx context.Context) error {
	w.mu.Lock()
	batch := w.queue
	w.queue = nil
	w.mu.Unlock()
	fresh := slices.DeleteFunc(batch, func(e state.Event) bool { return time.Since(e.Time) > oldNews })
	old := uint64(len(batch) - len(fresh))
	if len(fresh) == 0 {
		w.count(0, old, 0)
		return nil
	}
	err := w.deliver(ctx, fresh)
	var part *undelivered
	switch {
	case err == nil:
		w.count(uint64(len(fresh)), old, 0)
		return nil
	case errors.As(err, &part):
		failures := uint64(1)
		if errors.Is(err, errLater) {
			failures = 0
		}
		w.count(uint64(len(fresh)-len(part.events)), old, failures)
		fresh = part.events
	default:
		w.count(0, old, 1)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(fresh, w.queue...)
	w.bound()
	return err
}

func (w *way) count(told, dropped, failures uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.Told += told
	w.counts.Dropped += dropped
	w.counts.Failures += failures
}

// finish says the last words.
func (w *way) finish(ctx context.Context) error {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	if err := w.once(last); err != nil {
		w.mu.Lock()
		n := len(w.queue)
		w.mu.Unlock()
		w.log.WarnContext(ctx, "not told before the end", "events", n, "err", err)
	}
	return ctx.Err()
}

// undelivered is the error of a delivery of which a part failed.
type undelivered struct {
	events []state.Event
	err    error
}

func (u *undelivered) Error() string { return fmt.Sprintf("%d events: %v", len(u.events), u.err) }
func (u *undelivered) Unwrap() error { return u.err }

// sleep waits, and reports whether ctx is still there.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
