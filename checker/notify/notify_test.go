package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meridian/checker/state"
	"meridian/internal/testworld"
)

func change(mirror string, from, to state.Health, keys ...string) state.Event {
	e := state.Event{Time: time.Now(), Mirror: mirror, Kind: state.HealthChanged, From: from, To: to}
	for _, k := range keys {
		var key state.Key
		if err := key.UnmarshalText([]byte(k)); err != nil {
			panic(err)
		}
		e.Keys = append(e.Keys, key)
	}
	return e
}

const baseos = "9.8/baseos/x86_64"

// A script is a delivery that goes as a test wants.
type script struct {
	mu        sync.Mutex // guards what follows
	delivered [][]state.Event
	errs      []error // of the next deliveries
}

func (s *script) deliver(_ context.Context, events []state.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) > 0 {
		err := s.errs[0]
		s.errs = s.errs[1:]
		if err != nil {
			return err
		}
	}
	s.delivered = append(s.delivered, slices.Clone(events))
	return nil
}

func (s *script) told() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.delivered {
		n += len(d)
	}
	return n
}

// run runs a notifier with one scripted way within a bubble, until the test ends it.
func (s *script) run(t *testing.T, wait time.Duration) (n *Notifier, stop func()) {
	n = &Notifier{log: slog.New(slog.DiscardHandler)}
	n.add("script", wait, everything, s.deliver)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	return n, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestEventsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s script
		n, stop := s.run(t, 10*time.Minute)
		n.Notify([]state.Event{change("a", state.Fresh, state.Down)})
		time.Sleep(9 * time.Minute)
		n.Notify([]state.Event{change("b", state.Fresh, state.Down)})
		synctest.Wait()
		if s.told() != 0 {
			t.Error("told before the wait was over")
		}
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if len(s.delivered) != 1 || s.told() != 2 {
			t.Errorf("told %v, want both at once", s.delivered)
		}
		stop()
	})
}

func TestFailedDeliveriesAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := change("a", state.Fresh, state.Down), change("b", state.Fresh, state.Down)
		down := errors.New("down")
		s := script{errs: []error{down, down, down, &undelivered{[]state.Event{b}, down}}}
		n, stop := s.run(t, 0)
		n.Notify([]state.Event{a, b})
		time.Sleep(6 * time.Second) // after 0, 1, 3 seconds; not yet the one after 7
		synctest.Wait()
		if c := n.Counts()["script"]; c.Failures != 3 || c.Waiting != 2 || c.Told != 0 {
			t.Errorf("after three attempts: %+v", c)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		// The part that was delivered is not told twice.
		if c := n.Counts()["script"]; c.Failures != 4 || c.Waiting != 0 || c.Told != 2 {
			t.Errorf("in the end: %+v", c)
		}
		if len(s.delivered) != 1 || s.delivered[0][0].Mirror != "b" {
			t.Errorf("told %+v", s.delivered)
		}
		stop()
	})
}

func TestOldNewsIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s script
		for range 1000 {
			s.errs = append(s.errs, errors.New("down"))
		}
		n, stop := s.run(t, 0)
		n.Notify([]state.Event{change("a", state.Fresh, state.Down)})
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if c := n.Counts()["script"]; c.Dropped != 1 || c.Waiting != 0 {
			t.Errorf("a day later: %+v", c)
		}
		if left := len(s.errs); left < 1000-200 {
			t.Errorf("%d attempts within a day", 1000-left)
		}
		stop()
	})
}

func TestTheQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script{}
		n, stop := s.run(t, time.Hour)
		for i := range 10 * maxQueue {
			n.Notify([]state.Event{change(fmt.Sprint(i), state.Fresh, state.Down)})
		}
		if c := n.Counts()["script"]; c.Waiting != maxQueue || c.Dropped != 9*maxQueue {
			t.Errorf("%+v", c)
		}
		stop()
		if len(s.delivered) != 1 || s.delivered[0][0].Mirror != fmt.Sprint(9*maxQueue) {
			t.Error("the newest are not those that were told at the end")
		}
	})
}

func TestWhatWaitsIsToldAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s script
		n, stop := s.run(t, time.Hour)
		n.Notify([]state.Event{change("a", state.Fresh, state.Down)})
		synctest.Wait()
		stop()
		if s.told() != 1 {
			t.Errorf("told %d events", s.told())
		}
	})
}

func TestWebhook(t *testing.T) {
	secret := []byte("a secret of the webhook")
	var posts []int
	status := http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if got := r.Header.Get(SignatureHeader); got != Sign(secret, body) {
			t.Errorf("signature %q", got)
		}
		var doc struct{ Events []state.Event }
		if err := json.Unmarshal(body, &doc); err != nil {
			t.Errorf("%v: %s", err, body)
		}
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s of %s", r.Method, r.Header.Get("Content-Type"))
		}
		posts = append(posts, len(doc.Events))
		if len(posts) > 2 {
			status = http.StatusServiceUnavailable
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
	}))
	defer srv.Close()
	var events []state.Event
	for i := range 250 {
		events = append(events, change(fmt.Sprint(i), state.Fresh, state.Down, baseos))
	}
	hook := Webhook{URL: srv.URL + "/hook?token=hidden"}
	deliver := hook.deliverer(Options{Secret: secret})
	err := deliver(t.Context(), events)
	part, ok := errors.AsType[*undelivered](err)
	if !ok || len(part.events) != 50 || part.events[0].Mirror != "200" || !slices.Equal(posts, []int{100, 100, 50}) {
		t.Errorf("posts %v, %v", posts, err)
	}
	if strings.Contains(fmt.Sprint(err), "hidden") {
		t.Errorf("the error shows the URL: %v", err)
	}
	// A redirect is not followed: the body is for this host.
	status, posts = http.StatusTemporaryRedirect, nil
	if err := deliver(t.Context(), events[:1]); err == nil || len(posts) != 1 {
		t.Errorf("redirected: %v, %v", posts, err)
	}
	nobody, err := testworld.FreeAddr("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	hook.URL = "http://" + nobody + "/hook?token=hidden"
	if err := hook.deliverer(Options{Secret: secret})(t.Context(), events[:1]); err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    Settings
		want string // "" for none
	}{
		{"nothing", Settings{}, ""},
		{"a webhook", Settings{Webhook: &Webhook{URL: "https://hooks.example.org/x"}}, ""},
		{"a webhook that is no URL", Settings{Webhook: &Webhook{URL: "hooks.example.org"}}, "notify.webhook.url"},
		{"mail to administrators", Settings{Mail: &Mail{Server: "smtp.example.org:587", From: "m@example.org", To: []string{"a@example.org"}}}, ""},
		{"mail to nobody", Settings{Mail: &Mail{Server: "smtp.example.org:587", From: "m@example.org"}}, "nobody to write to"},
		{"mail without a port", Settings{Mail: &Mail{Server: "smtp.example.org", From: "m@example.org", Operators: true}}, "notify.mail.server"},
		{"mail from no address", Settings{Mail: &Mail{Server: "smtp.example.org:25", From: "m", Operators: true}}, "notify.mail.from"},
		{"mail to no address", Settings{Mail: &Mail{Server: "smtp.example.org:25", From: "m@example.org", To: []string{"all of them"}}}, "notify.mail.to"},
		{"a user without password", Settings{Mail: &Mail{Server: "smtp.example.org:25", From: "m@example.org", Operators: true, User: "m"}}, "password_file"},
		{"a negative pause", Settings{Mail: &Mail{Server: "smtp.example.org:25", From: "m@example.org", Operators: true, Pause: -1}}, "notify.mail.pause"},
		{"a negative number of mails", Settings{Mail: &Mail{Server: "smtp.example.org:25", From: "m@example.org", Operators: true, PerHour: -1}}, "notify.mail.per_hour"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.s.Check()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check: %v, want %q", err, tt.want)
			}
		})
	}
}
