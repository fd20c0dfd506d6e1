package mirrorlist

import (
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	// allowed asks n times at once.
	allowed := func(l *limiter, client uint64, at time.Time, n int) (yes int) {
		for range n {
			if l.allow(client, at) {
				yes++
			}
		}
		return yes
	}

	l := newLimiter(5)
	if got := allowed(l, 1, start, 100); got != 5*burst {
		t.Errorf("at first %d requests at once are allowed, want %d", got, 5*burst)
	}
	if got := allowed(l, 2, start, 100); got != 5*burst {
		t.Errorf("another client is allowed %d", got)
	}
	if got := allowed(l, 1, start.Add(time.Second), 100); got != 5 {
		t.Errorf("a second later %d more are allowed, want 5", got)
	}
	if got := allowed(l, 1, start.Add(-time.Hour), 100); got != 0 {
		t.Errorf("a clock that goes back allows %d", got)
	}
	if got := allowed(l, 1, start.Add(24*time.Hour), 1000); got != 5*burst {
		t.Errorf("after a day of rest %d are allowed, want %d", got, 5*burst)
	}

	slow := newLimiter(0.1)
	if got := allowed(slow, 1, start, 10); got != 1 {
		t.Errorf("a rate below one allows %d at first, want 1", got)
	}
	if got := allowed(slow, 1, start.Add(9*time.Second), 10) + allowed(slow, 1, start.Add(10*time.Second), 10); got != 1 {
		t.Errorf("one in ten seconds allows %d in ten seconds", got)
	}

	slow.setRate(-1)
	if got := allowed(slow, 1, start, 1000); got != 1000 {
		t.Errorf("without a bound %d of 1,000 are allowed", got)
	}
}
