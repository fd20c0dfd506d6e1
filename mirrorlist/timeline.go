package mirrorlist

import (
	"cmp"
	"context"
	"slices"
	"time"

	"meridian/checker/state"
)

// A Historian is a Source that remembers what happened. Of one that does not,
// pages show the present alone.
type Historian interface {
	// History returns the events of a mirror ("" is the origin), newest first, at
	// most limit.
	History(ctx context.Context, mirror string, limit int) ([]state.Event, error)
}

var _ Historian = (*state.Reader)(nil)

// Bounds of what is read of the past.
const (
	maxEvents   = 20_000 // of one mirror
	historyDays = 90
)

// history reads the events of one mirror, newest first. Without a Historian there
// are none.
func (s *Server) history(ctx context.Context, mirror string) ([]state.Event, error) {
	h, ok := s.keeper.source.(Historian)
	if !ok {
		return nil, nil
	}
	return h.History(ctx, mirror, maxEvents)
}

// A span is a time in which a mirror as a whole was of one health.
type span struct {
	From, To time.Time
	Health   state.Health
}

// A timeline is what is remembered of one mirror.
type timeline struct {
	From, To time.Time // what it is about
	Spans    []span    // oldest first, without gaps, from the first that is known
	Lags     []lagAt   // oldest first: how long after a publication it was there

	// Listed is the part of the time that is known in which it could be listed for
	// everything that it has.
	Listed float64
}

type lagAt struct {
	At  time.Time
	Lag time.Duration
}

// A healthCount counts the keys of one mirror by their health.
type healthCount [state.Unprobed + 1]int

// worst is the health of the whole, as overall has it.
func (n *healthCount) worst() state.Health {
	worst, has := state.Absent, false
	for h := range n {
		if health := state.Health(h); n[h] > 0 && health != state.Absent && (!has || badness(health) > badness(worst)) {
			worst, has = health, true
		}
	}
	return worst
}

// newTimeline goes back from what is known now, event by event.
func newTimeline(now map[state.Key]state.Health, events []state.Event, from, to time.Time) timeline {
	line := timeline{From: from, To: to}
	if len(now) == 0 {
		return line
	}
	health := make(map[state.Key]state.Health, len(now))
	var count healthCount
	for k, h := range now {
		if int(h) < len(count) {
			health[k] = h
			count[h]++
		}
	}
	end := to
	add := func(start time.Time) {
		if !start.Before(end) {
			return
		}
		h := count.worst()
		if n := len(line.Spans); n > 0 && line.Spans[n-1].Health == h {
			line.Spans[n-1].From = start
		} else {
			line.Spans = append(line.Spans, span{start, end, h})
		}
		end = start
	}
	known := to // since when anything is known
	for i := range events {
		e := &events[i]
		if e.Time.After(to) {
			continue
		}
		if e.Time.Before(from) {
			known = from
			break
		}
		known = e.Time
		if e.Kind != state.HealthChanged {
			continue
		}
		if e.Lag > 0 && e.To == state.Fresh {
			line.Lags = append(line.Lags, lagAt{e.Time, e.Lag})
		}
		add(e.Time)
		for _, k := range e.Keys {
			h, ok := health[k]
			if !ok || int(e.From) >= len(count) {
				continue // not asked for any more
			}
			count[h]--
			if e.From == state.Unknown {
				delete(health, k) // it began with this
				continue
			}
			health[k] = e.From
			count[e.From]++
		}
	}
	if len(health) > 0 {
		add(known)
	}
	slices.Reverse(line.Spans)
	slices.Reverse(line.Lags)
	var listed, all time.Duration
	for _, s := range line.Spans {
		all += s.To.Sub(s.From)
		if s.Health.Listable() {
			listed += s.To.Sub(s.From)
		}
	}
	if all > 0 {
		line.Listed = float64(listed) / float64(all)
	}
	return line
}

// A day of a timeline is the worst of it.
type timelineDay struct {
	Day    time.Time
	Health string // "" where nothing is known
	X      int    // where it begins in a picture 900 wide
}

// days cuts a timeline into days of UTC, the last one today.
func (l *timeline) days() []timelineDay {
	var out []timelineDay
	last := l.To.UTC().Truncate(24 * time.Hour)
	i := 0
	for x := range historyDays {
		day := last.AddDate(0, 0, x-historyDays+1)
		end := day.AddDate(0, 0, 1)
		for i < len(l.Spans) && !l.Spans[i].To.After(day) {
			i++
		}
		d := timelineDay{Day: day, X: 10*x + 1}
		worst := state.Fresh
		for j := i; j < len(l.Spans) && l.Spans[j].From.Before(end); j++ {
			if h := l.Spans[j].Health; d.Health == "" || badness(h) > badness(worst) {
				worst = h
				d.Health = h.String()
			}
		}
		out = append(out, d)
	}
	return out
}

// medianLag is the middle one of the times that a mirror took.
func (l *timeline) medianLag() time.Duration {
	if len(l.Lags) == 0 {
		return 0
	}
	lags := slices.Clone(l.Lags)
	slices.SortFunc(lags, func(a, b lagAt) int { return cmp.Compare(a.Lag, b.Lag) })
	return lags[len(lags)/2].Lag
}
