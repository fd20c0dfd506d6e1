package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"meridian/internal/testworld"
)

// noon is a moment lately: what is older than 90 days is history no more.
var noon = time.Now().UTC().Truncate(24 * time.Hour)

var (
	baseos    = Key{"9.8", "baseos", "x86_64"}
	appstream = Key{"9.8", "appstream", "aarch64"}
)

// everywhere runs a test with each kind of store.
func everywhere(t *testing.T, f func(t *testing.T, url string)) {
	t.Run("directory", func(t *testing.T) { f(t, "dir:"+filepath.Join(t.TempDir(), "state")) })
	t.Run("redis", func(t *testing.T) { f(t, "redis+unix://"+testworld.StartRedis(t).Socket) })
}

func openWriter(t *testing.T, url, vantage string) *Writer {
	t.Helper()
	w, err := OpenWriter(url, Options{Vantage: vantage})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func openReader(t *testing.T, url string) *Reader {
	t.Helper()
	r, err := OpenReader(url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// holder returns a writer that has the lease.
func holder(t *testing.T, url, vantage string) *Writer {
	t.Helper()
	w := openWriter(t, url, vantage)
	if _, err := w.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Load(t.Context()); err != nil && !errors.Is(err, ErrNoSnapshot) {
		t.Fatal(err)
	}
	return w
}

func write(t *testing.T, w *Writer, c *Change) {
	t.Helper()
	if err := w.Write(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, from interface {
	Load(context.Context) (*Snapshot, error)
}) *Snapshot {
	t.Helper()
	snap, err := from.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

// text is what a snapshot says, for people.
func text(t *testing.T, s *Snapshot) []byte {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// says is a status that says one thing of baseos.
func says(h Health) *Status { return &Status{Health: map[Key]Health{baseos: h}} }

func TestWhatIsWrittenIsLoaded(t *testing.T) {
	everywhere(t, func(t *testing.T, url string) {
		w, other, r := openWriter(t, url, ""), openWriter(t, url, ""), openReader(t, url)
		for _, from := range []interface {
			Load(context.Context) (*Snapshot, error)
		}{w, r} {
			if snap, err := from.Load(t.Context()); snap != nil || !errors.Is(err, ErrNoSnapshot) {
				t.Errorf("before anything is written: %v, %v, want %v", snap, err, ErrNoSnapshot)
			}
		}
		if err := w.Write(t.Context(), &Change{Taken: noon}); !errors.Is(err, ErrNotHolder) {
			t.Errorf("without the lease: %v, want %v", err, ErrNotHolder)
		}
		if d, err := w.Acquire(t.Context()); err != nil || d <= 0 {
			t.Fatal(d, err)
		}
		want := everything()
		want.Taken, want.Vantage = noon, "" // w's
		write(t, w, &Change{Taken: noon, Mirrors: want.Mirrors, Truth: want.Truth, Publications: want.Publications})
		for _, from := range []interface {
			Load(context.Context) (*Snapshot, error)
		}{w, other, r} {
			if got := load(t, from); !reflect.DeepEqual(got, want) {
				t.Errorf("loaded\n%s\nwant\n%s", text(t, got), text(t, want))
			}
		}

		first := load(t, r)
		if again := load(t, r); again != first {
			t.Error("what has not changed is another snapshot")
		}
		write(t, w, &Change{
			Taken:   noon.Add(time.Minute),
			Mirrors: map[string]*Status{"new.example.org": says(Pending), "empty.example.org": nil},
			Truth:   map[Key]Truth{appstream: {Absent: true}},
			Forget:  []Key{baseos},

			Publications: map[string]*Publication{"2026-08-01": {Repositories: 7}},
		})
		second := load(t, r)
		if _, ok := second.Truth[baseos]; ok || !second.Truth[appstream].Absent {
			t.Errorf("the truth is %v", second.Truth)
		}
		if second.Mirrors["empty.example.org"] != nil || second.Mirrors["new.example.org"].Health[baseos] != Pending {
			t.Errorf("the mirrors are %v", second.Mirrors)
		}
		if second.Mirrors["all.example.org"] != first.Mirrors["all.example.org"] {
			t.Error("a mirror of which nothing new is said has another status")
		}
		for id, pub := range first.Publications {
			if len(second.Publications) != 2 || second.Publications["2026-08-01"].Repositories != 7 || second.Publications[id] != pub {
				t.Errorf("the publications are %v, want another one beside that of before", second.Publications)
			}
		}
		write(t, w, &Change{Taken: noon.Add(2 * time.Minute), Publications: map[string]*Publication{"2026-08-01": nil}})
		third := load(t, r)
		if !reflect.DeepEqual(third.Publications, first.Publications) {
			t.Errorf("after one was removed the publications are %v", third.Publications)
		}
		if third == second || third.Taken != noon.Add(2*time.Minute) || third.Mirrors["new.example.org"] != second.Mirrors["new.example.org"] {
			t.Errorf("after nothing but the time has changed: %+v", third)
		}
	})
}

func TestOneOfTwoCheckersWrites(t *testing.T) {
	everywhere(t, func(t *testing.T, url string) {
		a, b, elsewhere := holder(t, url, ""), openWriter(t, url, ""), openWriter(t, url, "oslo")
		write(t, a, &Change{Taken: noon, Mirrors: map[string]*Status{"a": says(Fresh)}})
		if _, err := b.Acquire(t.Context()); !errors.Is(err, ErrNotHolder) {
			t.Errorf("the second checker: %v, want %v", err, ErrNotHolder)
		}
		if _, err := elsewhere.Acquire(t.Context()); err != nil {
			t.Errorf("the first checker at another place: %v", err)
		}
		if err := a.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Write(t.Context(), &Change{Taken: noon}); !errors.Is(err, ErrNotHolder) {
			t.Errorf("a checker that does not know what the first has found: %v, want %v", err, ErrNotHolder)
		}
		if snap := load(t, b); snap.Mirrors["a"].Health[baseos] != Fresh {
			t.Errorf("loaded %v", snap)
		}
		write(t, b, &Change{Taken: noon})
	})
}

func TestHistory(t *testing.T) {
	everywhere(t, func(t *testing.T, url string) {
		paris, oslo, r := holder(t, url, "paris"), holder(t, url, "oslo"), openReader(t, url)
		at := func(minute int) time.Time { return noon.Add(time.Duration(minute) * time.Minute) }
		for i := range 3 {
			for j, w := range []*Writer{paris, oslo} {
				write(t, w, &Change{Taken: at(i), Events: []Event{
					{Time: at(2*i + j).In(time.FixedZone("", 3600)), Mirror: "a.example.org", Kind: HealthChanged, Keys: []Key{baseos}, From: Health(i), To: Health(i + 1)},
					{Time: at(2*i + j), Kind: Published, Vantage: w.vantage},
				}})
			}
		}
		got, err := r.History(t.Context(), "a.example.org", 4)
		if err != nil || len(got) != 4 {
			t.Fatalf("%v, %v; want four events", got, err)
		}
		for i, e := range got {
			if !e.Time.Equal(at(5-i)) || e.Mirror != "a.example.org" || e.To != Health((5-i)/2+1) {
				t.Errorf("event %d of all places is %+v", i, e)
			}
		}
		for _, tt := range []struct {
			w    *Writer
			want []time.Time
		}{{paris, []time.Time{at(4), at(2), at(0)}}, {oslo, []time.Time{at(5), at(3), at(1)}}} {
			got, err := tt.w.History(t.Context(), "", 10)
			if err != nil || len(got) != 3 {
				t.Fatalf("%v, %v; want three events", got, err)
			}
			for i, e := range got {
				if !e.Time.Equal(tt.want[i]) || e.Mirror != "" || e.Vantage != tt.w.vantage {
					t.Errorf("event %d of the origin at %s is %+v", i, tt.w.vantage, e)
				}
			}
		}
		if got, err := r.History(t.Context(), "b.example.org", 4); err != nil || len(got) != 0 {
			t.Errorf("a mirror without events has %v, %v", got, err)
		}
	})
}

func TestDecisions(t *testing.T) {
	everywhere(t, func(t *testing.T, url string) {
		w, terminal := holder(t, url, ""), openWriter(t, url, "")
		if got, err := w.Decisions(t.Context()); err != nil || len(got) != 0 {
			t.Errorf("before any: %v, %v", got, err)
		}
		first := Decision{Time: noon, By: "me@here", Verb: Expire, Key: baseos, Generation: Hash256{1}}
		second := Decision{Time: noon.Add(time.Second), Verb: Accept, Key: baseos, Generation: Hash256{2}, Instead: Hash256{1}}
		instead := Decision{Time: noon.Add(time.Minute), Verb: Expire, Key: baseos, Generation: Hash256{3}}
		other := Decision{Time: noon.Add(time.Hour), Verb: Expire, Key: Key{"10", "isos", ""}}
		for _, some := range [][]Decision{{first, second}, {instead, other}, {other}, nil} {
			if err := terminal.Decide(t.Context(), some); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := w.Decisions(t.Context()); err != nil || !reflect.DeepEqual(got, []Decision{second, instead, other}) {
			t.Errorf("decided: %+v, %v", got, err)
		}
	})
}

func TestVantagePointsAreCombined(t *testing.T) {
	everywhere(t, func(t *testing.T, url string) {
		r := openReader(t, url)
		paris, oslo := holder(t, url, "paris"), holder(t, url, "oslo")
		write(t, paris, &Change{
			Taken: noon, Mirrors: map[string]*Status{"a": says(Down), "b": says(Fresh), "c": says(Fresh)},
			Publications: map[string]*Publication{"1": {}, "2": {}},
		})
		if snap := load(t, r); snap.Vantage != "paris" || snap.Mirrors["a"].Health[baseos] != Down {
			t.Errorf("one alone: %+v", snap)
		}
		write(t, oslo, &Change{Taken: noon, Mirrors: map[string]*Status{"a": says(Fresh), "b": says(Fresh)}, Publications: map[string]*Publication{"3": {}}})
		first := load(t, r)
		if len(first.Publications) != 2 || first.Publications["1"] == nil {
			t.Errorf("both: the publications are %v, want those of who has seen most", first.Publications)
		}
		if first.Vantage != "" || first.Mirrors["a"].Health[baseos] != Fresh || len(first.Mirrors) != 3 {
			t.Errorf("both: %+v", first)
		}
		if load(t, r) != first {
			t.Error("what has not changed is combined to another snapshot")
		}
		write(t, oslo, &Change{Taken: noon.Add(time.Minute), Mirrors: map[string]*Status{"a": says(Down)}})
		second := load(t, r)
		if second.Mirrors["a"].Health[baseos] != Down || second.Taken != noon.Add(time.Minute) {
			t.Errorf("both say down: %+v", second)
		}
		if second.Mirrors["b"] != first.Mirrors["b"] || second.Mirrors["c"] != first.Mirrors["c"] {
			t.Error("a mirror of which nobody says anything new has another status")
		}
		write(t, oslo, &Change{Taken: noon.Add(time.Hour)})
		if snap := load(t, r); snap.Vantage != "oslo" || len(snap.Mirrors) != 2 {
			t.Errorf("the other has not written for an hour: %+v", snap)
		}
	})
}

// follow runs Follow until the test ends, and returns a channel with room for one
// more call of changed than anybody has taken notice of.
func follow(t *testing.T, r *Reader) <-chan struct{} {
	changed, done := make(chan struct{}, 1), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(done)
		r.Follow(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return changed
}

// await waits until what r loads is as it should be, woken up by changed alone.
func await(t *testing.T, r *Reader, changed <-chan struct{}, what string, ok func(*Snapshot, error) bool) {
	t.Helper()
	late := time.After(5 * time.Minute)
	for {
		if ok(r.Load(t.Context())) {
			return
		}
		select {
		case <-changed:
		case <-late:
			snap, err := r.Load(t.Context())
			t.Fatalf("%s: no news; it loads %v, %v", what, snap, err)
		}
	}
}

func TestFollow(t *testing.T) {
	everywhere(t, func(t *testing.T, url string) {
		r := openReader(t, url)
		changed := follow(t, r)
		await(t, r, changed, "nothing yet", func(s *Snapshot, err error) bool { return s == nil && errors.Is(err, ErrNoSnapshot) })
		w := holder(t, url, "")
		for i := range 5 {
			name := fmt.Sprint(i)
			write(t, w, &Change{Taken: noon.Add(time.Duration(i) * time.Second), Mirrors: map[string]*Status{name: says(Fresh)}})
			await(t, r, changed, "step "+name, func(s *Snapshot, err error) bool { return err == nil && s.Mirrors[name] != nil })
		}
	})
}

// Redis may be killed, and come back empty. Nodes keep what they have and say
// what is wrong; the checker writes everything again.
func TestRedisComesBackEmpty(t *testing.T) {
	server := testworld.StartRedis(t)
	url := "redis+unix://" + server.Socket
	w, r := holder(t, url, ""), openReader(t, url)
	r.poll = 50 * time.Millisecond // a new subscription alone need not be in time
	changed := follow(t, r)
	write(t, w, &Change{Taken: noon, Mirrors: map[string]*Status{"a": says(Fresh), "b": says(Broken)}, Truth: map[Key]Truth{baseos: {Expired: true}}})
	complete := func(s *Snapshot, err error) bool {
		return s != nil && len(s.Mirrors) == 2 && s.Mirrors["b"].Health[baseos] == Broken && s.Truth[baseos].Expired
	}
	await(t, r, changed, "all is well", func(s *Snapshot, err error) bool { return err == nil && complete(s, err) })

	server.Kill(t)
	await(t, r, changed, "Redis is away", func(s *Snapshot, err error) bool { return err != nil && complete(s, err) })
	if err := w.Write(t.Context(), &Change{Taken: noon.Add(time.Minute)}); err == nil || errors.Is(err, ErrNotHolder) {
		t.Errorf("writing to a Redis that is away: %v", err)
	}
	if _, err := w.Acquire(t.Context()); err == nil || errors.Is(err, ErrNotHolder) {
		t.Errorf("the lease of a Redis that is away: %v", err)
	}

	server.Start(t)
	await(t, r, changed, "Redis is empty", func(s *Snapshot, err error) bool { return errors.Is(err, ErrNoSnapshot) && complete(s, err) })
	write(t, w, &Change{Taken: noon.Add(2 * time.Minute), Mirrors: map[string]*Status{"a": says(Lagging)}})
	await(t, r, changed, "the checker is back", func(s *Snapshot, err error) bool {
		return err == nil && complete(s, err) && s.Mirrors["a"].Health[baseos] == Lagging
	})
	if fresh := load(t, openReader(t, url)); !complete(fresh, nil) {
		t.Errorf("Redis has %+v", fresh)
	}
}

// While Redis hangs, nobody who loads waits for it.
func TestLoadDoesNotWait(t *testing.T) {
	server := testworld.StartRedis(t)
	wire := testworld.NewWire(t, server.Socket)
	write(t, holder(t, "redis+unix://"+server.Socket, ""), &Change{Taken: noon, Mirrors: map[string]*Status{"a": says(Fresh)}})
	r := openReader(t, "redis+unix://"+wire.Socket)
	r.poll = time.Millisecond
	changed := follow(t, r)
	await(t, r, changed, "all is well", func(s *Snapshot, err error) bool { return err == nil })
	wire.Hold()
	// A look that is under way, or begins now, ends after its timeout alone.
	for range 1000 {
		if snap, err := r.Load(t.Context()); snap == nil || err != nil {
			t.Fatal(snap, err)
		}
	}
	wire.Mend()
	await(t, r, changed, "all is well again", func(s *Snapshot, err error) bool { return err == nil })
}

func TestVantagePointsAreWords(t *testing.T) {
	for _, bad := range []string{"a b", "a/b", "../x", "ö", "a.b", "a:b"} {
		if _, err := OpenWriter("dir:/nowhere", Options{Vantage: bad}); err == nil || !strings.Contains(err.Error(), "write such as paris") {
			t.Errorf("vantage %q: %v", bad, err)
		}
	}
}
