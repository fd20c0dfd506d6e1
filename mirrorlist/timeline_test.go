package mirrorlist

import (
	"testing"
	"time"

	"meridian/checker/state"
)

func TestTimeline(t *testing.T) {
	to := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	from := to.AddDate(0, 0, -historyDays)
	ago := func(days int) time.Time { return to.AddDate(0, 0, -days) }
	a, b := state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}, state.Key{Version: "9.8", Repo: "extras", Arch: "x86_64"}
	change := func(days int, from, to state.Health, lag time.Duration, keys ...state.Key) state.Event {
		return state.Event{Time: ago(days), Kind: state.HealthChanged, Keys: keys, From: from, To: to, Lag: lag}
	}
	both := map[state.Key]state.Health{a: state.Fresh, b: state.Fresh}
	for _, tt := range []struct {
		name   string
		now    map[state.Key]state.Health
		events []state.Event
		spans  []span
		listed float64
	}{
		{name: "a mirror of which nothing is known has no past", now: nil},
		{
			name: "before the first event nothing is known",
			now:  both, events: []state.Event{change(10, state.Unknown, state.Fresh, 0, a, b)},
			spans: []span{{ago(10), to, state.Fresh}}, listed: 1,
		},
		{
			name: "one bad repository makes the mirror bad as long as it lasts", now: both,
			events: []state.Event{
				change(1, state.Broken, state.Fresh, 0, b), change(2, state.Fresh, state.Broken, 0, b), change(4, state.Unknown, state.Fresh, 0, a, b),
			},
			spans: []span{{ago(4), ago(2), state.Fresh}, {ago(2), ago(1), state.Broken}, {ago(1), to, state.Fresh}}, listed: 0.75,
		},
		{
			name: "what was before the first day counts until it changes", now: both,
			events: []state.Event{change(9, state.Down, state.Fresh, 0, a, b), change(100, state.Fresh, state.Down, 0, a, b)},
			spans:  []span{{from, ago(9), state.Down}, {ago(9), to, state.Fresh}}, listed: 0.1,
		},
		{
			name: "a repository that it never had is nothing bad", now: map[state.Key]state.Health{a: state.Fresh, b: state.Absent},
			events: []state.Event{change(2, state.Unknown, state.Fresh, 0, a), change(2, state.Unknown, state.Absent, 0, b)},
			spans:  []span{{ago(2), to, state.Fresh}}, listed: 1,
		},
		{
			name: "an event about something else changes nothing", now: both,
			events: []state.Event{{Time: ago(1), Kind: state.TLSExpiring}, change(2, state.Unknown, state.Fresh, 0, a, b)},
			spans:  []span{{ago(2), to, state.Fresh}}, listed: 1,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			line := newTimeline(tt.now, tt.events, from, to)
			if len(line.Spans) != len(tt.spans) {
				t.Fatalf("spans %v, want %v", line.Spans, tt.spans)
			}
			for i, s := range line.Spans {
				if s != tt.spans[i] {
					t.Errorf("span %d is %v, want %v", i, s, tt.spans[i])
				}
			}
			if d := line.Listed - tt.listed; d > 0.001 || d < -0.001 {
				t.Errorf("listed %.3f of the time, want %.3f", line.Listed, tt.listed)
			}
		})
	}

	line := newTimeline(both, []state.Event{
		change(1, state.Lagging, state.Fresh, time.Hour, a, b), change(2, state.Lagging, state.Fresh, 3*time.Hour, a), change(3, state.Lagging, state.Fresh, 2*time.Hour, a),
	}, from, to)
	if got := line.medianLag(); got != 2*time.Hour {
		t.Errorf("of lags of 1, 2 and 3 hours the median is %s", got)
	}
	days := line.days()
	if len(days) != historyDays || days[historyDays-1].Day != time.Date(2026, 3, 31, 0, 0, 0, 0, time.UTC) || days[historyDays-1].Health != "fresh" || days[0].Health != "" {
		t.Errorf("the days are %d, from %v to %v", len(days), days[0], days[len(days)-1])
	}
	if days[historyDays-3].Health != "lagging" {
		t.Errorf("a day on which the mirror lagged is %q", days[historyDays-3].Health)
	}
}
