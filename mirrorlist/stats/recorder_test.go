package stats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meridian/internal/testworld"
)

// A memStore keeps documents in memory, and every edition of them. Its faults are
// what a store does at worst.
type memStore struct {
	t *testing.T

	mu       sync.Mutex // guards what follows
	docs     map[string][]byte
	editions map[string][][]byte
	fail     func(name string) (after bool, err error) // nil: never
}

func newMemStore(t *testing.T) *memStore {
	return &memStore{t: t, docs: map[string][]byte{}, editions: map[string][][]byte{}}
}

func (m *memStore) Update(_ context.Context, name string, change func([]byte) ([]byte, error)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var after bool
	var failure error
	if m.fail != nil {
		after, failure = m.fail(name)
	}
	if failure != nil && !after {
		return failure
	}
	if _, err := change(slices.Clone(m.docs[name])); err != nil { // as Redis does when somebody came between
		return err
	}
	data, err := change(slices.Clone(m.docs[name]))
	if err != nil {
		return err
	}
	if data != nil {
		m.docs[name] = data
		m.editions[name] = append(m.editions[name], data)
	}
	return failure
}

func (m *memStore) List(context.Context) (map[string]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]string{}
	for name := range m.docs {
		out[name] = fmt.Sprint(len(m.editions[name]))
	}
	return out, nil
}

func (m *memStore) Load(_ context.Context, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.docs[name] == nil {
		return nil, fs.ErrNotExist
	}
	return m.docs[name], nil
}

func (m *memStore) Remove(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.docs, name)
	return nil
}

// document returns what is stored under a name, and checks all editions of it:
// no count is small, and none grew by a small step.
func (m *memStore) document(name string) *document {
	m.t.Helper()
	p, ok := parsePart(name)
	if !ok {
		m.t.Fatalf("%q is no document", name)
	}
	before := map[cell]Value{}
	var last *document
	for _, data := range m.editions[name] {
		checkCells(m.t, name, data)
		d, err := decode(p, data)
		if err != nil {
			m.t.Fatal(err)
		}
		for c, v := range before {
			if d.cells[c].Count < v.Count {
				m.t.Errorf("%s: %v went from %d to %d", name, c, v.Count, d.cells[c].Count)
			}
		}
		for c, v := range d.cells {
			if v.Count%Least != 0 {
				m.t.Errorf("%s: %v is %d", name, c, v.Count)
			}
		}
		if d.total.Count%Least != 0 || last != nil && d.total.Count < last.total.Count {
			m.t.Errorf("%s: the total is %d", name, d.total.Count)
		}
		before, last = d.cells, d
	}
	return last
}

// checkCells looks at a document as a stranger does: no row ends with a number
// below Least.
func checkCells(t *testing.T, name string, data []byte) {
	t.Helper()
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, "[") {
			continue
		}
		fields := strings.Split(strings.TrimRight(line, "],\n"), ",")
		n := 0
		for _, f := range fields {
			var v uint64
			if _, err := fmt.Sscan(f, &v); err == nil && !strings.HasPrefix(f, `"`) {
				if n++; n == 1 && v < Least {
					t.Errorf("%s has %s", name, line)
				}
			}
		}
		if n == 0 {
			t.Errorf("%s has a row without a count: %s", name, line)
		}
	}
}

// A clock is set by hand.
type clock struct{ atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(c.Load(), 0) }
func (c *clock) set(at string) {
	t, err := time.Parse("2006-01-02 15:04:05", at)
	if err != nil {
		panic(err)
	}
	c.Store(t.Unix())
}

func newTestRecorder(store Store, node string, c *clock) *Recorder {
	return NewRecorder(Options{Store: store, Node: node, Days: 100, Now: c.now, Log: slog.New(slog.DiscardHandler)})
}

func flush(t *testing.T, r *Recorder) {
	t.Helper()
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func shut(t *testing.T, r *Recorder) {
	t.Helper()
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

var (
	germany = CountryOf([2]byte{'D', 'E'})
	france  = CountryOf([2]byte{'F', 'R'})
	small   = &Layout{Slots: []Slot{{"9.8", "baseos", "x86_64", 100}, {"9.8", "crb", "x86_64", 100}}, Mirrors: []string{"a.example.org", "b.example.org"}}
)

func times(n int, f func()) {
	for range n {
		f()
	}
}

func TestCountsAreWrittenInSteps(t *testing.T) {
	var c clock
	c.set("2026-03-01 10:00:00")
	store := newMemStore(t)
	r := newTestRecorder(store, "n", &c)
	y := r.Attach(small)
	times(9, func() { y.List(0, germany, 0) })
	flush(t, r)
	if len(store.docs) != 0 {
		t.Fatalf("nine lists are written down: %s", store.docs)
	}
	y.List(1, france, 1)
	flush(t, r)
	d := store.document("n/lists-2026-03-01")
	if d.total.Count != 10 || len(d.cells) != 0 {
		t.Errorf("of ten lists in two cells there is %+v", d)
	}
	times(3, func() { y.List(0, germany, 0) })
	flush(t, r)
	if d := store.document("n/lists-2026-03-01"); d.total.Count != 10 || d.cells[cell{"DE", "9.8", "baseos", "x86_64"}].Count != 10 || len(d.cells) != 1 {
		t.Errorf("of 13 lists in cells of 12 and 1 there is %+v", d)
	}
	if d := store.document("n/mirrors-2026-03-01"); !reflect.DeepEqual(d.cells, map[cell]Value{{"a.example.org"}: {10, 1000}}) || d.total != (Value{10, 1000}) {
		t.Errorf("of mirrors there is %+v", d)
	}
	// 22 lists in cells of 21 and 1, and then 29 in cells of 21 and 8.
	times(9, func() { y.List(0, germany, 0) })
	flush(t, r)
	editions := len(store.editions["n/lists-2026-03-01"])
	times(7, func() { y.List(1, france, 1) })
	flush(t, r)
	if d := store.document("n/lists-2026-03-01"); d.total.Count != 20 || d.cells[cell{"DE", "9.8", "baseos", "x86_64"}].Count != 20 || len(d.cells) != 1 {
		t.Errorf("of 29 lists in cells of 21 and 8 there is %+v", d)
	}
	if len(store.editions["n/lists-2026-03-01"]) != editions {
		t.Error("what has not changed by ten is written again")
	}
}

func TestCloseLosesFewerThanTen(t *testing.T) {
	var c clock
	c.set("2026-03-01 10:00:00")
	store := newMemStore(t)
	r := newTestRecorder(store, "n", &c)
	y := r.Attach(small)
	times(9, func() { y.List(0, germany, 0) })
	times(8, func() { y.List(1, germany, 0) })
	times(7, func() { y.List(1, france, 1) })
	shut(t, r)
	d := store.document("n/lists-2026-03-01")
	if want := (map[cell]Value{{"DE", "9.8", Other, Other}: {Count: 10}}); d.total.Count != 20 || !reflect.DeepEqual(d.cells, want) {
		t.Errorf("written %+v, want %v of 20", d, want)
	}
	// The next process goes on where this one stopped.
	r = newTestRecorder(store, "n", &c)
	y = r.Attach(small)
	times(10, func() { y.List(0, germany, 0) })
	times(3, func() { y.List(1, france, 1) })
	shut(t, r)
	d = store.document("n/lists-2026-03-01")
	want := map[cell]Value{{"DE", "9.8", Other, Other}: {Count: 10}, {"DE", "9.8", "baseos", "x86_64"}: {Count: 10}}
	if d.total.Count != 30 || !reflect.DeepEqual(d.cells, want) {
		t.Errorf("after a restart %+v, want %v of 30", d, want)
	}
}

// What waits when a day ends is folded, also when nothing was counted since.
func TestWhatWaitsIsFolded(t *testing.T) {
	for _, end := range []string{"stop", "midnight"} {
		t.Run(end, func(t *testing.T) {
			var c clock
			c.set("2026-03-01 10:00:00")
			store := newMemStore(t)
			r := newTestRecorder(store, "n", &c)
			y := r.Attach(small)
			times(6, func() { y.List(0, germany, 0) })
			times(7, func() { y.List(1, germany, 0) })
			flush(t, r)
			if d := store.document("n/lists-2026-03-01"); d.total.Count != 10 || len(d.cells) != 0 {
				t.Fatalf("of 13 lists in two small cells there is %+v", d)
			}
			if end == "stop" {
				shut(t, r)
			} else {
				c.set("2026-03-02 00:00:00")
				flush(t, r)
			}
			want := map[cell]Value{{"DE", "9.8", Other, Other}: {Count: 10}}
			if d := store.document("n/lists-2026-03-01"); d.total.Count != 10 || !reflect.DeepEqual(d.cells, want) {
				t.Errorf("at the end there is %+v, want %v of 10", d, want)
			}
		})
	}
}

func TestPeriodsEndAtMidnight(t *testing.T) {
	var c clock
	c.set("2026-03-01 23:59:50") // a Sunday
	store := newMemStore(t)
	r := newTestRecorder(store, "n", &c)
	y := r.Attach(small)
	sunday := func() { y.List(0, germany, 0); y.Countme(0, 1, System{1, 1}) }
	times(12, sunday)
	times(5, func() { y.List(1, germany, 0); y.Countme(1, 1, System{1, 1}) })
	flush(t, r)
	times(11, sunday)
	// What was counted before the flush after midnight belongs to the day before.
	c.set("2026-03-02 00:00:00")
	flush(t, r)
	times(14, func() { y.List(0, france, 0); y.Countme(0, 2, System{1, 1}) })
	c.set("2026-03-02 00:00:30")
	flush(t, r)
	want := map[string]uint64{
		"n/lists-2026-03-01": 20, "n/mirrors-2026-03-01": 20, "n/countme-2026-02-23": 20,
		"n/lists-2026-03-02": 10, "n/mirrors-2026-03-02": 10, "n/countme-2026-03-02": 10,
	}
	for name, total := range want {
		if d := store.document(name); d == nil || d.total.Count != total {
			t.Errorf("%s: %+v, want %d", name, d, total)
		}
	}
	if len(store.docs) != len(want) {
		t.Errorf("there are %q", slices.Sorted(maps.Keys(store.docs)))
	}
	// The five of a small cell and the three that were over of the large one were
	// folded when the day was over, and are too few.
	if d := store.document("n/lists-2026-03-01"); len(d.cells) != 1 {
		t.Errorf("cells of the first day: %v", d.cells)
	}
	if len(r.parts) != 3 {
		t.Errorf("%d parts are kept, of which 3 are open", len(r.parts))
	}
}

func TestAKilledProcessLosesWhatItHasNotFlushed(t *testing.T) {
	var c clock
	c.set("2026-03-01 10:00:00")
	store := newMemStore(t)
	r := newTestRecorder(store, "n", &c)
	y := r.Attach(small)
	times(25, func() { y.List(0, germany, 0) })
	times(9, func() { y.List(1, germany, 0) })
	flush(t, r)
	times(100, func() { y.List(0, germany, 0) }) // and no more is heard of it
	r = newTestRecorder(store, "n", &c)
	y = r.Attach(small)
	times(11, func() { y.List(1, germany, 0) })
	flush(t, r)
	d := store.document("n/lists-2026-03-01")
	want := map[cell]Value{{"DE", "9.8", "baseos", "x86_64"}: {Count: 20}, {"DE", "9.8", "crb", "x86_64"}: {Count: 10}}
	if d.total.Count != 40 || !reflect.DeepEqual(d.cells, want) {
		t.Errorf("there is %+v, want %v of 40", d, want)
	}
}

// A store that is away loses nothing, and one of which nobody knows whether it
// has written counts nothing twice.
func TestAStoreThatFails(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("after writing: %v", after), func(t *testing.T) {
			var c clock
			c.set("2026-03-01 10:00:00")
			store := newMemStore(t)
			r := newTestRecorder(store, "n", &c)
			y := r.Attach(small)
			rng := rand.New(rand.NewPCG(5, 6))
			var all, last uint64
			for i := range 300 {
				store.fail = nil
				if rng.IntN(3) > 0 {
					store.fail = func(string) (bool, error) { return after, errors.New("connection reset") }
				}
				n := rng.IntN(15)
				times(n, func() { y.List(i%2, germany, 0) })
				all += uint64(n)
				err := r.Flush(t.Context())
				if failed := store.fail != nil && all > 0 && err != nil; failed && (r.Err() == nil || !strings.Contains(r.Err().Error(), "connection reset")) {
					t.Fatalf("Err is %v", r.Err())
				}
				if d := store.document("n/lists-2026-03-01"); d != nil {
					if d.total.Count > all || d.total.Count < last {
						t.Fatalf("after %d lists there are %d, after %d", all, d.total.Count, last)
					}
					last = d.total.Count
				}
			}
			store.fail = nil
			shut(t, r)
			if d := store.document("n/lists-2026-03-01"); d.total.Count != Whole(all) {
				t.Errorf("%d lists are %d", all, d.total.Count)
			}
			if r.Err() != nil {
				t.Errorf("all is well, and Err is %v", r.Err())
			}
		})
	}
}

func TestAStoreThatIsAwayForWeeks(t *testing.T) {
	var c clock
	c.set("2026-03-01 10:00:00")
	store := newMemStore(t)
	var log bytes.Buffer
	r := newTestRecorder(store, "n", &c)
	r.Log = slog.New(slog.NewTextHandler(&log, nil))
	y := r.Attach(small)
	store.fail = func(string) (bool, error) { return false, errors.New("no route to host") }
	for range 40 {
		times(20, func() { y.List(0, germany, 0) })
		if r.Flush(t.Context()) == nil {
			t.Fatal("no error")
		}
		c.Add(86400)
	}
	if len(r.parts) > maxParts+2 {
		t.Errorf("%d parts wait", len(r.parts))
	}
	if !strings.Contains(log.String(), "counts are lost") || !strings.Contains(log.String(), "n/lists-2026-03-01") {
		t.Errorf("the log does not say what is lost: %s", &log)
	}
	store.fail = nil
	flush(t, r)
	if n := len(store.docs); n < 10 {
		t.Errorf("of what waited %d documents were written", n)
	}
}

func TestADamagedDocumentIsNotWrittenOver(t *testing.T) {
	var c clock
	c.set("2026-03-01 10:00:00")
	store := newMemStore(t)
	store.docs["n/lists-2026-03-01"] = []byte("{")
	r := newTestRecorder(store, "n", &c)
	y := r.Attach(small)
	times(20, func() { y.List(0, germany, 0) })
	err := r.Flush(t.Context())
	if err == nil || !strings.Contains(err.Error(), "n/lists-2026-03-01: the document is damaged; move it away") {
		t.Errorf("Flush: %v", err)
	}
	if string(store.docs["n/lists-2026-03-01"]) != "{" {
		t.Error("it was written over")
	}
	if d := store.document("n/mirrors-2026-03-01"); d.total.Count != 20 {
		t.Errorf("the other table has %+v", d)
	}
	delete(store.docs, "n/lists-2026-03-01")
	flush(t, r)
	if d := store.document("n/lists-2026-03-01"); d.total.Count != 20 {
		t.Errorf("after it was moved away there is %+v", d)
	}
}

func TestOldDocumentsAreRemoved(t *testing.T) {
	var c clock
	c.set("2026-06-30 10:00:00")
	store := newMemStore(t)
	today := DayOf(c.now())
	for _, name := range []string{
		part{Lists, today - 101, "n"}.name(), part{Lists, today - 101, "gone"}.name(), part{Lists, today - 100, "gone"}.name(),
		part{Countme, (today - 101).Monday(), "n"}.name(), part{Countme, (today - 120).Monday(), "n"}.name(), "n/notes", "n/lists-old",
	} {
		store.docs[name] = []byte("x")
	}
	flush(t, newTestRecorder(store, "n", &c))
	want := []string{part{Lists, today - 100, "gone"}.name(), part{Countme, (today - 101).Monday(), "n"}.name(), "n/lists-old", "n/notes"}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(store.docs)); !slices.Equal(got, want) {
		t.Errorf("kept %q, want %q", got, want)
	}
}

// Tables are replaced under requests that began with the old one, and nothing is
// lost.
func TestSwapsLoseNoCount(t *testing.T) {
	var c clock
	c.set("2026-03-01 10:00:00")
	store := newMemStore(t)
	r := newTestRecorder(store, "n", &c)
	layouts := []*Layout{layout(4, 3), layout(6, 5), layout(6, 2)}
	var current atomic.Pointer[Tally]
	current.Store(r.Attach(layouts[0]))
	var counting sync.WaitGroup
	var done atomic.Bool
	var lists, systems atomic.Uint64
	for w := range 8 {
		counting.Go(func() {
			for i := 0; !done.Load(); i++ {
				y := current.Load()
				if i%100 == 0 {
					runtime.Gosched() // the table is replaced meanwhile
				}
				y.List(i%4, germany, w%2)
				lists.Add(1)
				if i%10 == 0 {
					y.Countme(i%4, 1, System{})
					systems.Add(1)
				}
			}
		})
	}
	for i := range 100 {
		for before := lists.Load(); lists.Load() < before+1000; {
			runtime.Gosched()
		}
		current.Store(r.Attach(layouts[i%3]))
		flush(t, r)
		if i%10 == 0 {
			runtime.GC() // finds the tallies that nobody holds
		}
	}
	done.Store(true)
	counting.Wait()
	shut(t, r)
	for name, want := range map[string]uint64{"n/lists-2026-03-01": lists.Load(), "n/mirrors-2026-03-01": lists.Load(), "n/countme-2026-02-23": systems.Load()} {
		if d := store.document(name); d.total.Count != Whole(want) {
			t.Errorf("%s: %d, want %d in whole tens", name, d.total.Count, want)
		}
	}
	// The last is held, and may be counted with; the others are forgotten.
	runtime.GC()
	flush(t, r)
	flush(t, r)
	if n := len(r.attached); n != 1 {
		t.Errorf("%d tallies are attached", n)
	}
	runtime.KeepAlive(&current)
}

func TestTheSameLayoutIsTheSameTally(t *testing.T) {
	var c clock
	r := newTestRecorder(newMemStore(t), "n", &c)
	a := r.Attach(layout(4, 3))
	if r.Attach(layout(4, 3)) != a {
		t.Error("an equal layout has counters of its own")
	}
	if r.Attach(layout(4, 4)) == a {
		t.Error("another layout has the same counters")
	}
	other := layout(4, 4)
	other.Slots[1].Bytes++
	if b := r.Attach(layout(4, 4)); r.Attach(other) == b {
		t.Error("other weights have the same counters")
	}
}

// everywhere runs a test with each kind of store. open returns one of its own for
// each caller, as each process has.
func everywhere(t *testing.T, f func(t *testing.T, open func() Store)) {
	for kind, where := range map[string]func(*testing.T) string{
		"directory": func(t *testing.T) string { return "dir:" + filepath.Join(t.TempDir(), "stats") },
		"Redis":     func(t *testing.T) string { return "redis+unix://" + testworld.StartRedis(t).Socket },
	} {
		t.Run(kind, func(t *testing.T) {
			url := where(t)
			f(t, func() Store {
				t.Helper()
				store, err := Open(url)
				if err != nil {
					t.Fatal(err)
				}
				return store
			})
		})
	}
}

// Servers that have one name by mistake add up.
func TestTwoRecordersOfOneName(t *testing.T) {
	everywhere(t, func(t *testing.T, open func() Store) {
		var c clock
		c.set("2026-03-01 10:00:00")
		var wg sync.WaitGroup
		for range 4 {
			store := open()
			wg.Go(func() {
				r := newTestRecorder(store, "n", &c)
				y := r.Attach(small)
				for range 25 {
					times(11, func() { y.List(0, germany, 0) })
					if err := r.Flush(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		res, err := NewReader(open(), c.now).Query(t.Context(), Query{Table: Lists, From: DayOf(c.now()), To: DayOf(c.now())})
		if err != nil {
			t.Fatal(err)
		}
		if res.Total.Count != 4*Whole(25*11) {
			t.Errorf("%d lists are %d", 4*25*11, res.Total.Count)
		}
	})
}

// Nodes write their own documents, and readers add up those of all.
func TestSeveralNodes(t *testing.T) {
	everywhere(t, func(t *testing.T, open func() Store) {
		var c clock
		c.set("2026-03-01 10:00:00")
		for i, node := range []string{"a", "b"} {
			r := newTestRecorder(open(), node, &c)
			y := r.Attach(small)
			times(10+i, func() { y.List(0, germany, 0) })
			shut(t, r)
		}
		today := Query{Table: Lists, From: DayOf(c.now()), To: DayOf(c.now()), By: []string{"country"}}
		res, err := NewReader(open(), c.now).Query(t.Context(), today)
		if err != nil {
			t.Fatal(err)
		}
		if got := rows(res); got != "DE 20\ntotal 20" || !slices.Equal(res.Nodes, []string{"a", "b"}) {
			t.Errorf("%q have counted %s", res.Nodes, got)
		}
		c.Add(200 * 86400)
		flush(t, newTestRecorder(open(), "c", &c)) // those of the others, too
		if names, err := open().List(t.Context()); err != nil || len(names) != 0 {
			t.Errorf("after 200 days there are %v, %v", names, err)
		}
	})
}

// However the way to Redis breaks, at whatever byte, each list is counted once.
func TestRedisThatBreaksOff(t *testing.T) {
	redis := testworld.StartRedis(t)
	wire := testworld.NewWire(t, redis.Socket)
	store, err := Open("redis+unix://" + wire.Socket)
	if err != nil {
		t.Fatal(err)
	}
	var c clock
	c.set("2026-03-01 10:00:00")
	r := newTestRecorder(store, "n", &c)
	y := r.Attach(small)
	rng := rand.New(rand.NewPCG(15, 16))
	lists, broken := uint64(0), 0
	for i := range 600 {
		n := 10 + rng.IntN(10)
		times(n, func() { y.List(i%2, germany, i%2) })
		lists += uint64(n)
		switch i % 3 {
		case 0:
			wire.CutUp(i * 5)
		case 1:
			wire.CutDown(i) // in the answer to a write, too
		}
		if r.Flush(t.Context()) != nil {
			broken++
		}
		wire.Mend()
	}
	for try := 0; r.Flush(t.Context()) != nil; try++ { // the pool has broken connections
		if try == 10 {
			t.Fatalf("the way is mended, and still: %v", r.Err())
		}
	}
	total := func() uint64 {
		t.Helper()
		res, err := NewReader(store, c.now).Query(t.Context(), Query{Table: Lists, From: DayOf(c.now()), To: DayOf(c.now())})
		if err != nil {
			t.Fatal(err)
		}
		return res.Total.Count
	}
	if got := total(); got != Whole(lists) {
		t.Errorf("%d lists are counted as %d", lists, got)
	}
	if broken < 100 {
		t.Errorf("only %d flushes were broken off", broken)
	}
	redis.Kill(t)
	times(20, func() { y.List(0, germany, 0) })
	if r.Flush(t.Context()) == nil || r.Err() == nil {
		t.Error("Redis is away, and there is no error")
	}
	// It keeps nothing over a restart here: what was written is gone, and only that.
	redis.Start(t)
	shut(t, r)
	if got := total(); got < 20 || got >= 40 {
		t.Errorf("after a Redis that has forgotten all there are %d lists, want the 20 since, and fewer than ten of each of two cells", got)
	}
}

// A year of whatever clients can send takes no more memory than the layout.
func TestMemoryIsBounded(t *testing.T) {
	var c clock
	c.set("2026-03-01 10:00:00")
	store := newMemStore(t)
	r := newTestRecorder(store, "n", &c)
	y := r.Attach(layout(30, 10))
	rng := rand.New(rand.NewPCG(7, 8))
	before := heap()
	for i := range 1_000_000 {
		// A million different clients, as they look to a server.
		agent := fmt.Sprintf("libdnf (%d; variant-%d; Linux.arch%d)", i, i, i)
		y.List(rng.IntN(30), CountryOf([2]byte{byte(rng.IntN(256)), byte(rng.IntN(256))}), rng.IntN(10))
		if age := ParseAge(fmt.Sprint(i)); age != 0 {
			y.Countme(rng.IntN(30), age, SystemOf(agent))
		}
	}
	flush(t, r)
	// 30 lists × 251 countries, in a map of wide keys, pending and as written.
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("a million requests took %d bytes", grown)
	}
	n := 0
	for _, d := range r.parts {
		n += len(d.cells)
	}
	if n > 30*countryN {
		t.Errorf("%d cells are pending", n)
	}
	runtime.KeepAlive(y)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Run flushes every half minute and when the day ends, so that a request counts
// for its own day, and stops at once.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore(t)
		r := NewRecorder(Options{Store: store, Node: "n", Days: 100, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
		y := r.Attach(small)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		first := DayOf(time.Now())
		time.Sleep(24*time.Hour - 45*time.Second) // it is not in step with midnight
		times(20, func() { y.List(0, germany, 0) })
		time.Sleep(44 * time.Second)
		times(30, func() { y.List(0, germany, 0) })
		time.Sleep(2 * time.Second)
		times(40, func() { y.List(0, germany, 0) })
		time.Sleep(time.Minute)
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for day, want := range map[Day]uint64{first: 50, first + 1: 40} {
			if d := store.document(part{Lists, day, "n"}.name()); d == nil || d.total.Count != want {
				t.Errorf("%s: %+v, want %d", day, d, want)
			}
		}
	})
}

func TestOpen(t *testing.T) {
	for _, bad := range []string{"", "dir:", "redis:", "http://example.org", "/var/lib/meridian-stats"} {
		if _, err := Open(bad); err == nil || !strings.Contains(err.Error(), "write dir:") && !strings.Contains(err.Error(), "write redis") {
			t.Errorf("Open(%q): %v", bad, err)
		}
		if CheckURL(bad) == nil {
			t.Errorf("%q is right", bad)
		}
	}
}
