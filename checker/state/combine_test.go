package state

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// old and fresh are generations of baseos; what is published first comes last.
var (
	old   = Generation{Revision: "1", SHA256: Hash256{1}, FirstSeen: noon.Add(-2 * time.Hour)}
	fresh = Generation{Revision: "2", SHA256: Hash256{2}, FirstSeen: noon.Add(-time.Hour)}
)

// places makes a snapshot of each status of the mirror "m", taken at noon with the
// same truth. Nil is a place that does not know the mirror.
func places(all ...*Status) []*Snapshot {
	var snaps []*Snapshot
	for i, st := range all {
		s := &Snapshot{
			Taken: noon, Vantage: string(rune('a' + i)), Mirrors: map[string]*Status{},
			Truth: map[Key]Truth{baseos: {Generations: []Generation{fresh, old}}},
		}
		if st != nil {
			s.Mirrors["m"] = st
		}
		snaps = append(snaps, s)
	}
	return snaps
}

func TestCombineHealth(t *testing.T) {
	lie := func() *Status {
		st := says(Broken)
		st.Findings = map[Key]*Finding{baseos: {Lied: true}}
		return st
	}
	unknownKey := &Status{Health: map[Key]Health{appstream: Fresh}}
	for _, tt := range []struct {
		name string
		all  []*Status
		want Health
	}{
		{"what all say is so", []*Status{says(Stale), says(Stale)}, Stale},
		{"a lie that one has proven is a lie", []*Status{says(Fresh), says(Fresh), lie()}, Broken},
		{"a lie outweighs that nobody else reaches the mirror", []*Status{says(Down), lie(), says(Down)}, Broken},
		{"what is garbage at one place alone may be that place's network", []*Status{says(Fresh), says(Fresh), says(Broken)}, Fresh},
		{"what one of two cannot reach is not down", []*Status{says(Down), says(Fresh)}, Fresh},
		{"what one of three reaches is down", []*Status{says(Down), says(Fresh), says(Down)}, Down},
		{"what two of four reach is not down", []*Status{says(Down), says(Fresh), says(Down), says(Fresh)}, Fresh},
		{"what nobody reaches is down", []*Status{says(Down), says(Down)}, Down},
		{"garbage and silence are both failures", []*Status{says(Down), says(Fresh), says(Broken)}, Down},
		{"of failures the more frequent counts", []*Status{says(Broken), says(Down), says(Broken), says(Fresh)}, Broken},
		{"of two the one that sees an older generation is believed", []*Status{says(Fresh), says(Lagging)}, Lagging},
		{"one place behind an old cache does not count among three", []*Status{says(Fresh), says(Stale), says(Fresh)}, Fresh},
		{"what most see as stale is", []*Status{says(Stale), says(Fresh), says(Stale)}, Stale},
		{"of three different ones the middle is taken", []*Status{says(Stale), says(Fresh), says(Lagging)}, Lagging},
		{"ahead is between fresh and lagging", []*Status{says(Ahead), says(Fresh), says(Lagging)}, Ahead},
		{"missing at one of two places is missing", []*Status{says(Absent), says(Fresh)}, Absent},
		{"who has not asked yet has no opinion", []*Status{says(Pending), says(Fresh), says(Pending)}, Fresh},
		{"who has not asked yet does not outvote who failed", []*Status{says(Pending), says(Down), says(Pending)}, Down},
		{"what nobody has asked yet is pending", []*Status{says(Pending), says(Pending)}, Pending},
		{"a private mirror that one can reach is judged by it", []*Status{says(Unprobed), says(Stale)}, Stale},
		{"a private mirror that nobody can reach is not judged", []*Status{says(Unprobed), says(Unprobed)}, Unprobed},
		{"a place that does not know the mirror says nothing", []*Status{nil, says(Down), nil}, Down},
		{"a place that does not know the key says nothing", []*Status{unknownKey, says(Down), unknownKey}, Down},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// It does not matter who is who, except where all are one each.
			for range tt.all {
				tt.all = append(tt.all[1:], tt.all[0])
				out := Combine(noon, places(tt.all...)...)
				if got := out.Mirrors["m"].Health[baseos]; got != tt.want {
					t.Errorf("combined to %v, want %v", got, tt.want)
				}
				if out.Vantage != "" || !out.Taken.Equal(noon) {
					t.Errorf("combined at %q, %v", out.Vantage, out.Taken)
				}
			}
		})
	}
}

func TestCombineLeavesOutTheDead(t *testing.T) {
	at := func(ago time.Duration, st *Status) *Snapshot {
		s := places(st)[0]
		s.Taken = noon.Add(-ago)
		return s
	}
	for _, tt := range []struct {
		name  string
		snaps []*Snapshot
		want  Health
		taken time.Duration // before noon
	}{
		{"a snapshot of ten minutes ago counts", []*Snapshot{at(0, says(Fresh)), at(10*time.Minute, says(Stale))}, Stale, 0},
		{"a snapshot of twenty minutes ago does not", []*Snapshot{at(0, says(Fresh)), at(20*time.Minute, says(Stale))}, Fresh, 0},
		{"nor does a lie in it", []*Snapshot{at(0, says(Fresh)), at(20*time.Minute, &Status{Health: map[Key]Health{baseos: Broken}, Findings: map[Key]*Finding{baseos: {Lied: true}}})}, Fresh, 0},
		{"if all are old, they are compared with the newest", []*Snapshot{at(24*time.Hour, says(Fresh)), at(24*time.Hour+5*time.Minute, says(Stale))}, Stale, 24 * time.Hour},
		{"a clock that is ahead silences nobody", []*Snapshot{at(-24*time.Hour, says(Fresh)), at(5*time.Minute, says(Stale))}, Stale, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := Combine(noon, tt.snaps...)
			if got := out.Mirrors["m"].Health[baseos]; got != tt.want || !out.Taken.Equal(noon.Add(-tt.taken)) {
				t.Errorf("combined to %v at %v, want %v at %v", got, out.Taken, tt.want, noon.Add(-tt.taken))
			}
		})
	}
	alone := at(0, says(Fresh))
	if Combine(noon, alone) != alone || Combine(noon, at(time.Hour, says(Stale)), alone) != alone {
		t.Error("the only one that lives is not returned as it is")
	}
}

func TestCombineTruth(t *testing.T) {
	truth := func(confirmed int, all ...Generation) Truth {
		return Truth{Generations: all, Confirmed: noon.Add(time.Duration(confirmed) * time.Minute)}
	}
	expired := func(g Generation) Generation { g.Expired = true; return g }
	edit := func(t Truth, f func(*Truth)) Truth { f(&t); return t }
	rolledBack := old
	rolledBack.FirstSeen = noon
	for _, tt := range []struct {
		name       string
		a, b, want Truth
	}{
		{"the newer generation is the truth, also if the other was confirmed later", truth(1, fresh, old), truth(2, old), truth(1, fresh, old)},
		{"of the same generation, the one confirmed last", truth(1, fresh, old), truth(2, fresh), truth(2, fresh)},
		{"a rollback is newer than what it followed", truth(2, fresh, old), truth(1, rolledBack, fresh), truth(1, rolledBack, fresh)},
		{"who knows no generation knows less", Truth{Absent: true, Confirmed: noon.Add(time.Hour)}, truth(1, old), truth(1, old)},
		{"of two who know none, the last to ask", Truth{Confirmed: noon}, Truth{Absent: true, Confirmed: noon.Add(time.Minute)}, Truth{Absent: true, Confirmed: noon.Add(time.Minute)}},
		{"a generation that is expired anywhere is", truth(1, fresh, old), truth(0, fresh, expired(old)), truth(1, fresh, expired(old))},
		{
			"expire holds for the generation that it was said at",
			truth(1, fresh, old),
			edit(truth(0, fresh, old), func(t *Truth) { t.Expired = true }),
			edit(truth(1, fresh, old), func(t *Truth) { t.Expired = true }),
		},
		{"and not for a later one", truth(1, fresh, old), edit(truth(0, old), func(t *Truth) { t.Expired = true }), truth(1, fresh, old)},
		{
			"what is withdrawn anywhere is",
			truth(1, fresh), edit(truth(0, fresh), func(t *Truth) { t.Withdrawn = "why" }),
			edit(truth(1, fresh), func(t *Truth) { t.Withdrawn = "why" }),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 {
				snaps := places(says(Fresh), says(Fresh))
				snaps[0].Truth, snaps[1].Truth = map[Key]Truth{baseos: tt.a}, map[Key]Truth{baseos: tt.b}
				before := slices.Clone(tt.a.Generations)
				if got := Combine(noon, snaps...).Truth[baseos]; !reflect.DeepEqual(got, tt.want) {
					t.Errorf("combined to\n%+v\nwant\n%+v", got, tt.want)
				}
				if !slices.Equal(tt.a.Generations, before) {
					t.Error("what was combined has been changed")
				}
				tt.a, tt.b = tt.b, tt.a
			}
		})
	}
}

// Who has not heard of a publication yet calls fresh what is lagging.
func TestCombineKnowsWhoseTruthIsOld(t *testing.T) {
	for _, tt := range []struct {
		name  string
		parts []*Status
		want  Health
		holds GenerationID
	}{
		{"one that is behind and one that is not", []*Status{says(Fresh), says(Fresh)}, Lagging, old.ID()},
		{"only the one that is behind knows the mirror", []*Status{says(Fresh), nil}, Lagging, old.ID()},
		{"the one that is not behind alone", []*Status{nil, says(Fresh)}, Fresh, GenerationID{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			snaps := places(tt.parts...)
			snaps[0].Truth = map[Key]Truth{baseos: {Generations: []Generation{old}}}
			st := Combine(noon, snaps...).Mirrors["m"]
			if st.Health[baseos] != tt.want || st.Holds[baseos] != tt.holds {
				t.Errorf("combined to %v, holding %v; want %v, holding %v", st.Health[baseos], st.Holds[baseos], tt.want, tt.holds)
			}
		})
	}
}

func TestCombineTheRest(t *testing.T) {
	at := func(hour int) time.Time { return noon.Add(time.Duration(hour-24) * time.Hour) }
	slow, page := &Problem{Reason: "it is slow", Since: at(2)}, &Problem{Reason: "it is a page", Since: at(1)}
	a := &Status{
		Health: map[Key]Health{baseos: Stale}, Holds: map[Key]GenerationID{baseos: old.ID()}, Findings: map[Key]*Finding{baseos: {Since: at(3)}},
		IPv4: Reached, IPv6: Unreached, Failures: 2, Strikes: 1, Successes: 5, Struck: at(4),
		Schemes: map[string]*Scheme{"https": {Works: Unreached, TLSExpires: at(9), Problem: page}, "http": {Works: Reached}},
		Visited: at(5), Changed: at(7), Time: at(1), Problem: slow, Warnings: []string{"w", "a"}, OtherHost: "x",
		Override: &Override{Draining: true, Reason: "moves", Until: at(30), Withdrawn: []Key{baseos}},
	}
	b := &Status{
		Health: map[Key]Health{baseos: Fresh},
		IPv4:   Unreached, IPv6: Reached, Failures: 0, Strikes: 3, Successes: 2, Struck: at(3),
		Schemes: map[string]*Scheme{"https": {Works: Reached, TLSExpires: at(8), TLSBegins: at(2)}, "rsync": {Works: Unreached, Problem: slow}},
		Visited: at(6), Changed: at(6), Time: at(2), Problem: page, Warnings: []string{"w", "b"}, Apart: true, Unrouted: true, ClockAhead: time.Hour,
		Override: &Override{Weight: 7, Withdrawn: []Key{appstream, baseos}},
	}
	want := &Status{
		Health: map[Key]Health{baseos: Stale}, Holds: map[Key]GenerationID{baseos: old.ID()}, Findings: a.Findings,
		IPv4: Reached, IPv6: Reached, Failures: 0, Strikes: 3, Successes: 2, Struck: at(4),
		Schemes: map[string]*Scheme{
			"https": {Works: Reached, TLSBegins: at(2), TLSExpires: at(8)}, "http": {Works: Reached}, "rsync": {Works: Unreached, Problem: slow},
		},
		Visited: at(6), Changed: at(7), Time: at(2), Problem: page, Warnings: []string{"a", "b", "w"}, OtherHost: "x", Apart: true, ClockAhead: time.Hour,
		Override: &Override{Draining: true, Weight: 7, Reason: "moves", Withdrawn: []Key{baseos, appstream}},
	}
	snaps := places(a, b)
	if got := Combine(noon, snaps...).Mirrors["m"]; !reflect.DeepEqual(got, want) {
		t.Errorf("combined to\n%+v\nwant\n%+v", got, want)
	}
	untested := places(&Status{IPv6: Untested, IPv4: Untested}, &Status{IPv6: Unreached})
	if got := Combine(noon, untested...).Mirrors["m"]; got.IPv4 != Untested || got.IPv6 != Unreached {
		t.Errorf("IPv4 is %v and IPv6 %v, want untested and unreached", got.IPv4, got.IPv6)
	}

	// What keeps it out at one place alone is a warning.
	one := says(Down)
	one.Problem = &Problem{Reason: "nobody answers"}
	got := Combine(noon, places(says(Fresh), one)...).Mirrors["m"]
	if got.Problem != nil || len(got.Warnings) != 1 || got.Warnings[0] != "seen from b only: nobody answers" {
		t.Errorf("the problem is %v, and the warnings %q", got.Problem, got.Warnings)
	}
}

// Every field of a status has to be thought of when it is combined.
func TestCombineKeepsEveryField(t *testing.T) {
	full := everything().Mirrors["all.example.org"]
	out := reflect.ValueOf(Combine(noon, places(full, full)...).Mirrors["m"]).Elem()
	for i := range out.NumField() {
		// A checker's own memory is of no use to anybody else.
		if name := out.Type().Field(i).Name; out.Field(i).IsZero() && name != "Misses" {
			t.Errorf("Status.%s is lost", name)
		}
	}
	if got := Combine(noon, places(full, full)...).Mirrors["m"]; !reflect.DeepEqual(got.Health, full.Health) || strings.Join(got.Warnings, "") != full.Warnings[0] {
		t.Errorf("two equal ones make another one: %+v", got)
	}
}
