package checker

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"meridian/checker/state"
	"meridian/schema"
)

// A propagationWorld is truth with a clock, and mirrors that are followed.
type propagationWorld struct {
	t     *testing.T
	now   time.Time
	truth map[state.Key]*state.Truth
	p     *propagation
}

func newPropagationWorld(t *testing.T, keys ...state.Key) *propagationWorld {
	w := &propagationWorld{t: t, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), truth: map[state.Key]*state.Truth{}}
	for _, k := range keys {
		w.truth[k] = &state.Truth{Generations: []state.Generation{generationOf(1)}}
	}
	w.p = newPropagation(nil, w.truthOf)
	return w
}

func (w *propagationWorld) truthOf(k state.Key) *state.Truth { return w.truth[k] }

func generationOf(n byte) (g state.Generation) {
	g.SHA256[0] = n
	return g
}

// publish makes a new generation of keys the newest.
func (w *propagationWorld) publish(n byte, keys ...state.Key) {
	for _, k := range keys {
		w.truth[k].Generations = slices.Insert(w.truth[k].Generations, 0, generationOf(n))
	}
	w.p.published(w.now, keys)
}

func mirrorIn(name, country string, mbits int) *schema.Mirror {
	return &schema.Mirror{Name: name, Bandwidth: mbits, Location: schema.Location{Country: country}}
}

func healthOf(h state.Health, keys ...state.Key) *state.Status {
	st := &state.Status{Health: map[state.Key]state.Health{}, Holds: map[state.Key]state.GenerationID{}}
	for _, k := range keys {
		st.Health[k] = h
	}
	return st
}

// lagging is a mirror that holds generation n of keys.
func lagging(n byte, keys ...state.Key) *state.Status {
	st := healthOf(state.Lagging, keys...)
	g := generationOf(n)
	for _, k := range keys {
		st.Holds[k] = g.ID()
	}
	return st
}

func (w *propagationWorld) take() map[string]*state.Publication {
	into := map[string]*state.Publication{}
	w.p.take(w.now, into)
	return into
}

// newest returns the publication that came last, after what has changed was taken.
func (w *propagationWorld) newest() *state.Publication {
	w.t.Helper()
	w.take()
	ids := slices.Sorted(maps.Keys(w.p.all))
	if len(ids) == 0 {
		w.t.Fatal("no publication is remembered")
	}
	return w.p.all[ids[len(ids)-1]]
}

func (w *propagationWorld) last() state.Sample {
	w.t.Helper()
	pub := w.newest()
	if len(pub.Samples) == 0 {
		w.t.Fatal("there is no sample")
	}
	return pub.Samples[len(pub.Samples)-1]
}

func TestPublicationArrivesMirrorByMirror(t *testing.T) {
	w := newPropagationWorld(t, baseos, appstream)
	berlin, tokyo, dead := mirrorIn("berlin", "DE", 3000), mirrorIn("tokyo", "JP", 1000), mirrorIn("dead", "DE", 500)
	w.publish(2, baseos, appstream)
	w.p.saw(berlin, lagging(1, baseos, appstream), w.now)
	w.p.saw(tokyo, lagging(1, baseos, appstream), w.now)
	w.p.saw(dead, healthOf(state.Down, baseos, appstream), w.now)
	want := state.Sample{All: state.Share{Of: 2, OfMbits: 4000}, Continents: map[string]state.Share{"EU": {Of: 1, OfMbits: 3000}, "AS": {Of: 1, OfMbits: 1000}}}
	if got := w.last(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("at once it has come to %v, want %v", got, want)
	}

	w.now = w.now.Add(7 * time.Minute)
	half := lagging(1, appstream)
	half.Health[baseos] = state.Fresh
	w.p.saw(berlin, half, w.now)
	if got := w.last(); got.All.Mirrors != 0 {
		t.Errorf("a mirror that has one of two repositories counts as one that has it: %v", got)
	}
	w.p.saw(berlin, healthOf(state.Fresh, baseos, appstream), w.now)
	want = state.Sample{After: 7 * 60, All: state.Share{Mirrors: 1, Of: 2, Mbits: 3000, OfMbits: 4000}, Continents: map[string]state.Share{"EU": {Mirrors: 1, Of: 1, Mbits: 3000, OfMbits: 3000}, "AS": {Of: 1, OfMbits: 1000}}}
	if got := w.last(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after 7 minutes it has come to %v, want %v", got, want)
	}

	// A mirror with a later generation has what this one brought as well.
	w.now = w.now.Add(time.Hour)
	w.publish(3, baseos)
	w.p.saw(tokyo, func() *state.Status {
		st := lagging(2, baseos)
		st.Health[appstream] = state.Fresh
		return st
	}(), w.now)
	w.take()
	first := w.p.all[slices.Min(slices.Collect(maps.Keys(w.p.all)))]
	if s := first.Samples[len(first.Samples)-1]; s.All.Mirrors != 2 || s.After != 67*60 {
		t.Errorf("the first publication has come to %v, want both mirrors after 67 minutes", s)
	}
	if s := w.last(); s.All.Mirrors != 0 || s.All.Of != 1 {
		t.Errorf("the second publication has come to %v, want none of the one that was seen since", s)
	}
}

func TestLagIsCountedOnceForAMirrorAndAPublication(t *testing.T) {
	w := newPropagationWorld(t, baseos, appstream)
	m := mirrorIn("berlin", "DE", 1000)
	w.publish(2, baseos, appstream)
	w.p.saw(m, lagging(1, baseos, appstream), w.now)
	w.now = w.now.Add(4 * time.Minute)
	half := lagging(1, appstream)
	half.Health[baseos] = state.Fresh
	w.p.saw(m, half, w.now)
	if w.p.lags != (Lags{}) {
		t.Errorf("a mirror that has a part counts already: %+v", w.p.lags)
	}
	w.now = w.now.Add(time.Minute)
	w.p.saw(m, healthOf(state.Fresh, baseos, appstream), w.now)
	w.p.saw(m, lagging(1, baseos), w.now) // it falls back
	w.now = w.now.Add(time.Hour)
	w.p.saw(m, healthOf(state.Fresh, baseos, appstream), w.now)
	want := Lags{Sum: 5 * time.Minute}
	want.Within[2] = 1 // 2 to 5 minutes, the bound included
	if w.p.lags != want {
		t.Errorf("the lags are %+v, want one of 5 minutes: %+v", w.p.lags, want)
	}
	w.publish(3, baseos)
	w.p.saw(m, lagging(2, baseos), w.now)
	w.now = w.now.Add(30 * time.Hour)
	w.p.saw(m, healthOf(state.Fresh, baseos, appstream), w.now)
	if n := w.p.lags.Within[len(LagBuckets)]; n != 1 {
		t.Errorf("%d lags are beyond the last bound, want the one of 30 hours", n)
	}

	// Who comes when it is there already tells nothing.
	before := w.p.lags
	w.p.saw(mirrorIn("new", "DE", 1000), healthOf(state.Fresh, baseos), w.now)
	away := mirrorIn("away", "DE", 1000)
	w.p.saw(away, healthOf(state.Down, baseos), w.now)
	w.p.saw(away, healthOf(state.Fresh, baseos), w.now)
	if w.p.lags != before {
		t.Errorf("a new mirror and one that was down have a lag: %+v", w.p.lags)
	}
}

func TestWhoIsNotFollowed(t *testing.T) {
	w := newPropagationWorld(t, baseos)
	private, cloud := mirrorIn("campus", "DE", 1000), mirrorIn("cloud", "DE", 1000)
	private.Private, cloud.CloudType = true, "gcp"
	w.publish(2, baseos)
	for _, m := range []*schema.Mirror{private, cloud} {
		w.p.saw(m, healthOf(state.Fresh, baseos), w.now)
	}
	partial := mirrorIn("partial", "DE", 1000)
	w.p.saw(partial, healthOf(state.Absent, baseos), w.now)
	leaving := mirrorIn("leaving", "DE", 1000)
	w.p.saw(leaving, healthOf(state.Fresh, baseos), w.now)
	w.p.left("leaving")
	if s := w.last(); s.All != (state.Share{}) {
		t.Errorf("counted are %+v, want nobody: private, in a cloud, without the repository, gone", s.All)
	}
}

// What is kept of a publication is bounded, however often it changes.
func TestSamplesAreBounded(t *testing.T) {
	w := newPropagationWorld(t, baseos)
	m := mirrorIn("flapping", "DE", 1000)
	w.publish(2, baseos)
	begin := w.now
	states := []*state.Status{healthOf(state.Fresh, baseos), lagging(1, baseos)}
	for i := 0; w.now.Before(begin.Add(3 * 24 * time.Hour)); i++ {
		w.p.saw(m, states[i%2], w.now)
		w.take()
		w.now = w.now.Add(7 * time.Second)
	}
	pub := w.newest()
	if n := len(pub.Samples); n != 41 {
		t.Errorf("%d samples are kept, want the first and one for each of 40 stretches", n)
	}
	if !slices.IsSortedFunc(pub.Samples, func(a, b state.Sample) int { return int(a.After - b.After) }) {
		t.Errorf("the samples are not in order: %v", pub.Samples)
	}
	if pub.Generations != nil || len(w.p.open) > 0 {
		t.Error("a publication is followed for longer than two days")
	}

	for i := range 100 {
		w.now = w.now.Add(time.Second)
		w.publish(byte(3+i), baseos)
	}
	w.p.saw(m, healthOf(state.Fresh, baseos), w.now)
	if len(w.p.all) != maxPublications || len(w.p.open) != maxPublications {
		t.Errorf("%d publications are kept and %d followed, want %d", len(w.p.all), len(w.p.open), maxPublications)
	}
	changed := w.take()
	if gone, ok := changed[pub.ID()]; !ok || gone != nil {
		t.Errorf("the oldest publication is not removed from the store: %v, %v", gone, ok)
	}
}

// What was shared is never changed: the store and pages read it meanwhile.
func TestPublicationsAreImmutable(t *testing.T) {
	w := newPropagationWorld(t, baseos)
	m := mirrorIn("berlin", "DE", 1000)
	w.publish(2, baseos)
	w.p.saw(m, lagging(1, baseos), w.now)
	var shared []*state.Publication
	var texts []string
	for i := range 50 {
		h := []*state.Status{lagging(1, baseos), healthOf(state.Fresh, baseos)}[i%2]
		w.p.saw(m, h, w.now)
		for _, pub := range w.take() {
			text, err := json.Marshal(pub)
			if err != nil {
				t.Fatal(err)
			}
			shared, texts = append(shared, pub), append(texts, string(text))
		}
		w.now = w.now.Add(50 * time.Second)
	}
	for i := range shared {
		if text, _ := json.Marshal(shared[i]); string(text) != texts[i] {
			t.Fatalf("what was taken as\n%s\nhas become\n%s", texts[i], text)
		}
	}
}

// A restart goes on where it was, and counts nobody's lag a second time.
func TestPropagationSurvivesARestart(t *testing.T) {
	w := newPropagationWorld(t, baseos)
	early, late := mirrorIn("early", "DE", 1000), mirrorIn("late", "DE", 1000)
	w.publish(2, baseos)
	w.p.saw(early, healthOf(state.Fresh, baseos), w.now)
	w.p.saw(late, lagging(1, baseos), w.now)
	text, err := json.Marshal(w.take())
	if err != nil {
		t.Fatal(err)
	}
	var known map[string]*state.Publication
	if err := json.Unmarshal(text, &known); err != nil {
		t.Fatal(err)
	}
	w.p = newPropagation(known, w.truthOf)
	w.now = w.now.Add(5 * time.Minute)
	w.p.saw(early, healthOf(state.Fresh, baseos), w.now)
	w.p.saw(late, lagging(1, baseos), w.now)
	w.now = w.now.Add(20 * time.Minute)
	w.p.saw(early, healthOf(state.Fresh, baseos), w.now)
	w.p.saw(late, healthOf(state.Fresh, baseos), w.now)
	want := Lags{Sum: 25 * time.Minute}
	want.Within[5] = 1
	if w.p.lags != want {
		t.Errorf("the lags are %+v, want the 25 minutes of the late one: %+v", w.p.lags, want)
	}
	if pub := w.newest(); len(pub.Samples) != 2 || pub.Samples[1].All.Mirrors != 2 || pub.Samples[0].All.Mirrors != 1 {
		t.Errorf("the samples are %+v, want one mirror, then two", pub.Samples)
	}
}

// From a tier0 to what mirrorlist servers read.
func TestRunRecordsPropagation(t *testing.T) {
	inBubble(t, []string{"a.example", "b.example", "c.example"}, func(s *station) {
		s.start()
		s.pass(10 * time.Minute)
		if n := len(s.stored().Publications); n != 0 {
			s.t.Errorf("what was there before the checker came is %d publications", n)
		}
		s.publish("200", base9, app9)
		s.sites["a.example"].sync(s.t)
		s.pass(5 * time.Minute)
		only := func() *state.Publication {
			for _, pub := range s.stored().Publications {
				return pub
			}
			s.t.Fatal("no publication is stored")
			return nil
		}
		if pub := only(); pub.Repositories != 2 || pub.Samples[0].All.Mirrors != 0 || pub.Samples[0].All.Of != 3 || pub.Samples[len(pub.Samples)-1].All.Mirrors != 1 {
			s.t.Errorf("after five minutes it is %s, want one of three mirrors", asJSON(s.t, pub))
		}
		// The store is away while b gets it, and the checker is another one when c
		// does.
		away := errors.New("connection refused")
		s.store.fail(away, away)
		s.sites["b.example"].sync(s.t)
		s.pass(5 * time.Minute)
		s.store.fail(nil, nil)
		s.pass(5 * time.Minute)
		if st := s.c.Standing(); st.WriteErrors == 0 || st.Events[state.Published] != 2 || st.Lags.Within[2]+st.Lags.Within[1]+st.Lags.Within[0] != 1 {
			s.t.Errorf("the checker counts %d write errors, %v, %+v", st.WriteErrors, st.Events, st.Lags)
		}
		s.halt()
		s.reopen()
		s.start()
		s.pass(time.Hour)
		s.sites["c.example"].sync(s.t)
		s.pass(quietest)
		pub := only()
		last := pub.Samples[len(pub.Samples)-1]
		if len(s.stored().Publications) != 1 || last.All.Mirrors != 3 || last.After < 75*60 || last.After > 95*60 {
			s.t.Errorf("in the end it is %s, want three mirrors after little more than 75 minutes", asJSON(s.t, pub))
		}
		s.halt()
	})
}
