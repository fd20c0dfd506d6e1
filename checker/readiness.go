package checker

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// confirmedWithin is how old the origin's oldest confirmation may be: each
	// repository is asked for once a minute.
	confirmedWithin = 5 * time.Minute

	// storedWithin is for how long findings may stay unwritten before a checker is
	// no longer ready. One that lives writes once a minute.
	storedWithin = 5 * time.Minute
)

// Readiness tells whether a checker does its work at a moment: it has visited all
// mirrors once and its findings are kept, or it stands by for one that does. The
// lines are what is wrong, whether or not it is ready: "degraded: SUBJECT: what".
func (s *Standing) Readiness(now time.Time) (ready bool, lines []string) {
	ready = true
	add := func(subject, format string, args ...any) {
		lines = append(lines, "degraded: "+subject+": "+fmt.Sprintf(format, args...))
	}
	if s.StoreErr != nil {
		since := "ever"
		if !s.Stored.IsZero() {
			since = "since " + s.Stored.Format(time.RFC3339)
		}
		add("state", "not written %s: %s", since, oneLine(s.StoreErr.Error()))
	}
	switch {
	case s.Since.IsZero():
		return false, append(lines, "starting: the state was not asked yet")
	case !s.Active && s.StoreErr != nil:
		ready = false
	case !s.Active:
		lines = append(lines, "standing by since "+s.Since.Format(time.RFC3339)+": another checker has the lease")
	default:
		ready = s.active(now, add)
	}
	for _, subject := range slices.Sorted(maps.Keys(s.Problems)) {
		for _, text := range s.Problems[subject] {
			add(subject, "%s", oneLine(text))
		}
	}
	return ready, lines
}

// active is Readiness of a checker that is the writer.
func (s *Standing) active(now time.Time, add func(subject, format string, args ...any)) (ready bool) {
	ready = true
	if !s.Complete {
		ready = false
		add("first round", "%d of %d mirrors were not visited yet", s.Unvisited, s.Visitable)
	}
	if now.Sub(s.Since) > storedWithin && now.Sub(s.Stored) > storedWithin {
		ready = false
		if s.StoreErr == nil {
			add("state", "last written %s", s.Stored.Format(time.RFC3339))
		}
	}
	switch o := &s.Origin; {
	case o.Confirmed.IsZero():
		ready = false
		add("origin", "nothing of it was seen yet: checker origin says why")
	case now.Sub(o.Confirmed) > confirmedWithin:
		add("origin", "last confirmed %s: checker origin says why", o.Confirmed.UTC().Format(time.RFC3339))
	}
	if n := s.Origin.Troubled; n > 0 {
		add("origin", "what it serves of %d repositories is not believed: checker origin says why", n)
	}
	if n := s.Origin.Disputed; n > 0 {
		add("origin", "mirrors have something newer of %d repositories, which it does not confirm: their metalinks go without hashes after 15 minutes", n)
	}
	if s.Blind {
		add("network", "hardly any mirror answers, so this host has lost its network: findings grow old")
	}
	if s.Overdue > 0 {
		add("visits", "%d are more than a minute late", s.Overdue)
	}
	return ready
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }
