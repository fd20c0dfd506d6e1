package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"meridian/internal/testworld"
)

// shortLease is the lease of tests that wait for the end of one.
const shortLease = 150 * time.Millisecond

// A place is where the tests of every kind of store are run.
type place struct {
	url string

	// lose removes everything behind the back of whoever uses it. Save copies it,
	// and restore puts the copy back.
	lose, save, restore func(t *testing.T)
}

func (p place) isDir() bool { return strings.HasPrefix(p.url, "dir:") }

// open returns a store of the place as another process would have it.
func (p place) open(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(p.url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// everywhere runs a test with each kind of store.
func everywhere(t *testing.T, f func(t *testing.T, p place)) {
	t.Run("directory", func(t *testing.T) { f(t, dirPlace(t)) })
	t.Run("redis", func(t *testing.T) { f(t, redisPlace(t, testworld.StartRedis(t))) })
}

func dirPlace(t *testing.T) place {
	dir, copied := filepath.Join(t.TempDir(), "store"), filepath.Join(t.TempDir(), "copy")
	check := func(t *testing.T, err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return place{
		url:  "dir:" + dir,
		lose: func(t *testing.T) { check(t, os.RemoveAll(dir)) },
		save: func(t *testing.T) { check(t, os.CopyFS(copied, os.DirFS(dir))) },
		restore: func(t *testing.T) {
			check(t, os.RemoveAll(dir))
			check(t, os.CopyFS(dir, os.DirFS(copied)))
		},
	}
}

func redisPlace(_ *testing.T, r *testworld.Redis) place {
	return place{
		url:  "redis+unix://" + r.Socket,
		lose: func(t *testing.T) { r.Command(t, "FLUSHALL") },
		save: func(t *testing.T) {
			r.Command(t, "COPY", "meridian:r::head", "saved:head")
			r.Command(t, "COPY", "meridian:r::fields", "saved:fields")
			r.Command(t, "COPY", "meridian:r::versions", "saved:versions")
		},
		restore: func(t *testing.T) {
			r.Command(t, "COPY", "saved:head", "meridian:r::head", "REPLACE")
			r.Command(t, "COPY", "saved:fields", "meridian:r::fields", "REPLACE")
			r.Command(t, "COPY", "saved:versions", "meridian:r::versions", "REPLACE")
			r.Command(t, "DEL", "meridian:r::lease", "meridian:r::token")
		},
	}
}

// begin is a moment lately, as the time of records.
var begin = time.Now().UTC().Truncate(time.Second).Add(-time.Hour)

// entry is a log entry of a minute.
func entry(minute int, text string) string {
	return fmt.Sprintf(`{"time":%q,"text":%q}`, begin.Add(time.Duration(minute)*time.Minute).Format(time.RFC3339), text)
}

// step is a change that sets the fields named by pairs of name and value.
func step(minute int, pairs ...string) *Change {
	c := &Change{Taken: begin.Add(time.Duration(minute) * time.Minute), Set: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		c.Set[pairs[i]] = pairs[i+1]
	}
	return c
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// ready returns a writer that has read what there is, and has the lease.
func ready(t *testing.T, s *Store) *Writer {
	t.Helper()
	w := s.Writer("r", "")
	if _, err := w.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Read(t.Context()); err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	return w
}

// takeOver waits until the lease of another has ended, as a second checker does.
func takeOver(t *testing.T, w *Writer) {
	t.Helper()
	for tick := time.NewTicker(shortLease / 10); ; <-tick.C {
		_, err := w.Acquire(t.Context())
		if err == nil {
			return
		}
		if !errors.Is(err, ErrNotHolder) {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, w *Writer, c *Change) {
	t.Helper()
	if err := w.Write(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func wantFields(t *testing.T, rec *Record, want map[string]string) {
	t.Helper()
	if rec == nil || !maps.Equal(rec.Fields, want) {
		t.Errorf("the record is %v, want %v", rec, want)
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		reader := p.open(t, Options{})
		if _, err := reader.Read(t.Context(), "r", "", nil); !errors.Is(err, ErrNotFound) {
			t.Fatalf("before the first step: %v, want %v", err, ErrNotFound)
		}
		w := ready(t, p.open(t, Options{}))
		write(t, w, step(0, "g/a", `{"x": [1, "}"]}`, "g/b", `"b \" {"`, "h/a", "1", "z", "null", "g/ö/\"", "true"))
		first := must[*Record](t)(reader.Read(t.Context(), "r", "", nil))
		wantFields(t, first, map[string]string{"g/a": `{"x": [1, "}"]}`, "g/b": `"b \" {"`, "h/a": "1", "z": "null", "g/ö/\"": "true"})
		if !first.Taken.Equal(begin) {
			t.Errorf("taken at %v, want %v", first.Taken, begin)
		}
		if again := must[*Record](t)(reader.Read(t.Context(), "r", "", first)); again != first {
			t.Error("what has not changed is read as another record")
		}

		change := step(1, "g/b", "12", "g/c", "3")
		change.Remove = []string{"h/a", "z", "g/ö/\"", "nothing"}
		write(t, w, change)
		second := must[*Record](t)(reader.Read(t.Context(), "r", "", first))
		want := map[string]string{"g/a": `{"x": [1, "}"]}`, "g/b": "12", "g/c": "3"}
		wantFields(t, second, want)
		wantFields(t, must[*Record](t)(reader.Read(t.Context(), "r", "", nil)), want)
		wantFields(t, must[*Record](t)(w.Read(t.Context())), want)

		write(t, w, step(2)) // nothing but that it is still so
		third := must[*Record](t)(reader.Read(t.Context(), "r", "", second))
		wantFields(t, third, want)
		if third == second || !third.Taken.Equal(begin.Add(2*time.Minute)) {
			t.Errorf("taken at %v, want two minutes later than at first", third.Taken)
		}
		// A reader that missed steps in between gets the same.
		wantFields(t, must[*Record](t)(reader.Read(t.Context(), "r", "", first)), want)
	})
}

func TestWhatCannotBeReadBackIsRefused(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		w := ready(t, p.open(t, Options{}))
		for _, tt := range []struct {
			name string
			c    *Change
		}{
			{"no time", &Change{}},
			{"a name of nothing", step(0, "", "1")},
			{"a group of nothing", step(0, "/a", "1")},
			{"nothing of a group", step(0, "a/", "1")},
			{"a name that is taken", step(0, "taken", "1")},
			{"a name that is no text", step(0, "a\xff", "1")},
			{"a value that is no JSON", step(0, "a/b", "{")},
			{"a value of nothing", step(0, "a/b", "")},
			{"an object without a group", step(0, "a", " {}")},
			{"a log entry that is no JSON", &Change{Taken: begin, Log: []LogEntry{{"l", "x", "{"}}}},
			{"a log entry of two lines", &Change{Taken: begin, Log: []LogEntry{{"l", "x", "{\n}"}}}},
			{"a log entry that is no text", &Change{Taken: begin, Log: []LogEntry{{"l", "x", "\"\xff\""}}}},
		} {
			if err := w.Write(t.Context(), tt.c); err == nil {
				t.Errorf("%s: no error", tt.name)
			}
		}
		if _, err := w.Read(t.Context()); !errors.Is(err, ErrNotFound) {
			t.Errorf("afterwards there is a record, %v", err)
		}
	})
}

func TestRecordsOfAKindHaveNames(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		s := p.open(t, Options{})
		if names := must[[]string](t)(s.Names(t.Context(), "r")); len(names) != 0 {
			t.Errorf("there are %q", names)
		}
		for _, r := range []ref{{"r", "paris"}, {"r", ""}, {"other", ""}, {"rr", "x"}, {"r", "oslo"}} {
			w := s.Writer(r.kind, r.name)
			must[time.Duration](t)(w.Acquire(t.Context()))
			write(t, w, step(0, "is", strconv.Quote(r.String())))
		}
		if names, want := must[[]string](t)(s.Names(t.Context(), "r")), []string{"", "oslo", "paris"}; !slices.Equal(names, want) {
			t.Errorf("there are %q, want %q", names, want)
		}
		wantFields(t, must[*Record](t)(s.Read(t.Context(), "r", "oslo", nil)), map[string]string{"is": `"r.oslo"`})
	})
}

func TestOnlyTheHolderOfTheLeaseWrites(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		a, b := p.open(t, Options{}).Writer("r", ""), p.open(t, Options{}).Writer("r", "")
		if err := a.Write(t.Context(), step(0, "a", "1")); !errors.Is(err, ErrNotHolder) {
			t.Errorf("without a lease: %v, want %v", err, ErrNotHolder)
		}
		if err := a.Release(t.Context()); err != nil {
			t.Errorf("a release without a lease: %v", err)
		}
		left := must[time.Duration](t)(a.Acquire(t.Context()))
		if left <= 0 || left > DefaultLease {
			t.Errorf("the lease is for %v, want at most %v", left, DefaultLease)
		}
		for range 3 {
			must[time.Duration](t)(a.Acquire(t.Context()))
			if _, err := b.Acquire(t.Context()); !errors.Is(err, ErrNotHolder) || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
				t.Errorf("the second writer: %v, want %v and who has it", err, ErrNotHolder)
			}
		}
		write(t, a, step(0, "a", "1"))
		if err := b.Write(t.Context(), step(1, "a", "2")); !errors.Is(err, ErrNotHolder) {
			t.Errorf("the second writer: %v, want %v", err, ErrNotHolder)
		}
		if err := a.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := a.Write(t.Context(), step(1, "a", "2")); !errors.Is(err, ErrNotHolder) {
			t.Errorf("after its release: %v, want %v", err, ErrNotHolder)
		}
		must[time.Duration](t)(b.Acquire(t.Context()))
		if err := b.Write(t.Context(), step(1, "a", "2")); !errors.Is(err, ErrNotHolder) {
			t.Errorf("a writer that has not read what another has written: %v, want %v", err, ErrNotHolder)
		}
		wantFields(t, must[*Record](t)(b.Read(t.Context())), map[string]string{"a": "1"})
		write(t, b, step(1, "a", "2"))
		wantFields(t, must[*Record](t)(a.Read(t.Context())), map[string]string{"a": "2"})
	})
}

// A holder that sleeps past the end of its lease is no holder any more, and finds
// out at its next write, even if it could have the lease again.
func TestASleepingHolderLosesItsPlace(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		a := ready(t, p.open(t, Options{Lease: shortLease}))
		write(t, a, step(0, "by", `"a"`))
		b := p.open(t, Options{Lease: shortLease}).Writer("r", "")
		takeOver(t, b)
		wantFields(t, must[*Record](t)(b.Read(t.Context())), map[string]string{"by": `"a"`})
		write(t, b, step(1, "by", `"b"`))
		if err := a.Write(t.Context(), step(2, "by", `"a"`)); !errors.Is(err, ErrNotHolder) {
			t.Errorf("while another is the writer: %v, want %v", err, ErrNotHolder)
		}
		if err := b.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := a.Write(t.Context(), step(2, "by", `"a"`)); !errors.Is(err, ErrNotHolder) {
				t.Errorf("after another has written: %v, want %v", err, ErrNotHolder)
			}
			must[time.Duration](t)(a.Acquire(t.Context()))
		}
		wantFields(t, must[*Record](t)(a.Read(t.Context())), map[string]string{"by": `"b"`})
		write(t, a, step(2, "by", `"a"`))
	})
}

// Two writers in turn, each of which may lose its lease at any moment, and two
// readers: every step is one whole step by one writer after the one before.
func TestManyWritersOneAfterTheOther(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		const steps = 60
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var writers, readers sync.WaitGroup
		for i := range 3 {
			s := p.open(t, Options{Lease: shortLease})
			writers.Go(func() {
				w := s.Writer("r", "")
				for ctx.Err() == nil {
					if _, err := w.Acquire(ctx); err != nil {
						if !errors.Is(err, ErrNotHolder) && ctx.Err() == nil {
							t.Errorf("writer %d: %v", i, err)
							cancel()
						}
						continue
					}
					n := 0
					switch rec, err := w.Read(ctx); {
					case err == nil:
						n, _ = strconv.Atoi(rec.Fields["n/first"])
					case !errors.Is(err, ErrNotFound):
						if ctx.Err() == nil {
							t.Errorf("writer %d: %v", i, err)
							cancel()
						}
						continue
					}
					if n >= steps {
						cancel()
						return
					}
					next := strconv.Itoa(n + 1)
					err := w.Write(ctx, step(n+1, "n/first", next, "n/second", next, "by", strconv.Itoa(i)))
					if err != nil && !errors.Is(err, ErrNotHolder) && ctx.Err() == nil {
						t.Errorf("writer %d: %v", i, err)
						cancel()
					}
					if n%3 == i {
						w.Release(context.Background())
					}
				}
			})
		}
		for range 2 {
			s := p.open(t, Options{})
			readers.Go(func() {
				var have *Record
				last := 0
				for ctx.Err() == nil {
					rec, err := s.Read(ctx, "r", "", have)
					if errors.Is(err, ErrNotFound) && have == nil || ctx.Err() != nil {
						continue
					}
					if err != nil {
						t.Errorf("a reader: %v", err)
						cancel()
						continue
					}
					n, _ := strconv.Atoi(rec.Fields["n/first"])
					if rec.Fields["n/first"] != rec.Fields["n/second"] || n < last || rec != have && n == last {
						t.Errorf("after step %d there is %v", last, rec.Fields)
						cancel()
					}
					have, last = rec, n
				}
			})
		}
		writers.Wait()
		readers.Wait()
	})
}

// Whatever becomes of what is stored, its writer writes all of it again.
func TestWhatIsLostIsWrittenAgain(t *testing.T) {
	for _, tt := range []struct {
		name    string
		destroy func(t *testing.T, p place)
	}{
		{"everything is gone", func(t *testing.T, p place) { p.lose(t) }},
		{"an earlier state is back", func(t *testing.T, p place) { p.restore(t) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, p place) {
				w, reader := ready(t, p.open(t, Options{})), p.open(t, Options{})
				write(t, w, step(0, "g/a", "1", "g/b", "1"))
				p.save(t)
				change := step(1, "g/a", "2", "g/c", "2")
				change.Remove = []string{"g/b"}
				write(t, w, change)
				have := must[*Record](t)(reader.Read(t.Context(), "r", "", nil))
				tt.destroy(t, p)

				rec, err := reader.Read(t.Context(), "r", "", have)
				if !errors.Is(err, ErrNotFound) && !(errors.Is(err, ErrOlder) && rec == have) {
					t.Errorf("a reader gets %v, %v; want what it has and %v, or %v", rec, err, ErrOlder, ErrNotFound)
				}
				wantFields(t, must[*Record](t)(w.Read(t.Context())), map[string]string{"g/a": "2", "g/c": "2"})
				write(t, w, step(2, "g/d", "3"))
				want := map[string]string{"g/a": "2", "g/c": "2", "g/d": "3"}
				wantFields(t, must[*Record](t)(reader.Read(t.Context(), "r", "", have)), want)
				wantFields(t, must[*Record](t)(reader.Read(t.Context(), "r", "", nil)), want)
			})
		})
	}
}

// Of what was lost, the one who was the writer last knows most.
func TestWhatIsLostIsNotWrittenAgainByAnEarlierWriter(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		a := ready(t, p.open(t, Options{Lease: shortLease}))
		write(t, a, step(0, "by", `"a"`))
		p.lose(t)
		b := ready(t, p.open(t, Options{}))
		// Also where what told the one lease from the other has been lost.
		if _, err := a.Acquire(t.Context()); !errors.Is(err, ErrNotHolder) {
			t.Errorf("the earlier writer takes the lease of the later one: %v, want %v", err, ErrNotHolder)
		}
		if err := a.Write(t.Context(), step(1, "by", `"a"`)); !errors.Is(err, ErrNotHolder) {
			t.Errorf("the earlier writer writes: %v, want %v", err, ErrNotHolder)
		}
		write(t, b, step(1, "by", `"b"`))
		if err := b.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		takeOver(t, a)
		if err := a.Write(t.Context(), step(2, "x", "1")); !errors.Is(err, ErrNotHolder) {
			t.Errorf("what another has written is written over: %v, want %v", err, ErrNotHolder)
		}
		wantFields(t, must[*Record](t)(a.Read(t.Context())), map[string]string{"by": `"b"`})
	})
}

func TestLogsAreReadNewestFirst(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		w, reader := ready(t, p.open(t, Options{})), p.open(t, Options{})
		names := []string{"mirror.example.org", "", "..", "../../etc", ".hidden", "a b", "ä/ö", "UPPER", strings.Repeat("long", 100), strings.Repeat("long", 100) + "er"}
		for i := range 4 {
			c := step(i)
			for _, name := range names {
				c.Log = append(c.Log, LogEntry{"history", name, entry(i, name)})
			}
			write(t, w, c)
			write(t, w, c) // made twice, as when nobody knew whether it was made
		}
		for _, name := range names {
			got := must[[]string](t)(reader.Log(t.Context(), "history", name, 3))
			if want := []string{entry(3, name), entry(2, name), entry(1, name)}; !slices.Equal(got, want) {
				t.Errorf("log %q holds %q, want %q", name, got, want)
			}
			if got := must[[]string](t)(reader.Log(t.Context(), "history", name, 100)); len(got) != 4 {
				t.Errorf("log %q holds %q, want four entries", name, got)
			}
		}
		if got := must[[]string](t)(reader.Log(t.Context(), "history", "nobody", 3)); len(got) != 0 {
			t.Errorf("a log that is not there holds %q", got)
		}
	})
}

func TestLogsAreBounded(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		s := p.open(t, Options{})
		w := ready(t, s)
		old := fmt.Sprintf(`{"time":%q}`, begin.Add(-maxLogAge-time.Hour).Format(time.RFC3339))
		c := step(0)
		c.Log = []LogEntry{{"history", "a", old}}
		write(t, w, c)
		if got := must[[]string](t)(s.Log(t.Context(), "history", "a", 10)); len(got) != 0 {
			t.Errorf("an old entry is read: %q", got)
		}
		// Three times as much as there may be.
		n, size := 3*maxLogEntries, 3*maxLogBytes/maxLogEntries/3
		pad := strings.Repeat("x", size)
		for i := 0; i < n; i += 100 {
			c := step(i)
			for j := range 100 {
				c.Log = append(c.Log, LogEntry{"history", "a", entry(i+j-n, pad)})
			}
			write(t, w, c)
		}
		got := must[[]string](t)(s.Log(t.Context(), "history", "a", n))
		total := 0
		for i, e := range got {
			total += len(e) + 1
			if want := entry(-1-i, pad); e != want {
				t.Fatalf("entry %d is %.60s, want %.60s", i, e, want)
			}
		}
		if len(got) > maxLogEntries && total > maxLogBytes || len(got) < maxLogEntries/3 {
			t.Errorf("there are %d entries, %d bytes", len(got), total)
		}
	})
}

func TestAnOldLogIsForgotten(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		s := p.open(t, Options{})
		w := ready(t, s)
		for i := range 3 {
			c := step(i)
			c.Log = []LogEntry{{"history", "a", fmt.Sprintf(`{"time":%q,"n":%d}`, begin.Add(-maxLogAge-48*time.Hour).Format(time.RFC3339), i)}}
			write(t, w, c)
		}
		if stored := must[[]string](t)(s.b.log(t.Context(), ref{"history", "a"})); len(stored) != 0 {
			t.Errorf("what is too old is stored: %q", stored)
		}
	})
}

func TestDocuments(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		a, b := p.open(t, Options{}).Documents(), p.open(t, Options{}).Documents()
		if _, err := a.Load(t.Context(), "n/x"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a document that is not there: %v, want %v", err, os.ErrNotExist)
		}
		if err := a.Remove(t.Context(), "n/x"); err != nil {
			t.Errorf("removing a document that is not there: %v", err)
		}
		// Nobody's change is lost.
		var both sync.WaitGroup
		for _, d := range []Documents{a, b} {
			for range 3 {
				both.Go(func() {
					for range 5 {
						err := d.Update(t.Context(), "n/x", func(old []byte) ([]byte, error) { return append(slices.Clone(old), 'x'), nil })
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		both.Wait()
		if got := string(must[[]byte](t)(b.Load(t.Context(), "n/x"))); got != strings.Repeat("x", 30) {
			t.Errorf("thirty changes made %q", got)
		}
		tags := must[map[string]string](t)(a.List(t.Context()))
		if err := b.Update(t.Context(), "n/x", func([]byte) ([]byte, error) { return nil, nil }); err != nil {
			t.Error(err)
		}
		if now := must[map[string]string](t)(a.List(t.Context())); len(now) != 1 || !maps.Equal(now, tags) {
			t.Errorf("there is %v, want %v as before", now, tags)
		}
		if err := b.Update(t.Context(), "n/x", func([]byte) ([]byte, error) { return []byte("y"), nil }); err != nil {
			t.Error(err)
		}
		if now := must[map[string]string](t)(a.List(t.Context())); now["n/x"] == tags["n/x"] {
			t.Error("another content has the same tag")
		}
		refused := errors.New("no")
		if err := b.Update(t.Context(), "n/x", func([]byte) ([]byte, error) { return nil, refused }); !errors.Is(err, refused) {
			t.Errorf("a change that is refused: %v", err)
		}
		if err := a.Remove(t.Context(), "n/x"); err != nil {
			t.Error(err)
		}
		if now := must[map[string]string](t)(b.List(t.Context())); len(now) != 0 {
			t.Errorf("after it was removed there is %v", now)
		}
	})
}
