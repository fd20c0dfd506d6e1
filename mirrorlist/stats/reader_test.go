package stats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// put stores a document of counts by labels; the total is theirs and rest more.
func put(t *testing.T, store *memStore, name string, rest uint64, counts map[string]Value) {
	t.Helper()
	p, ok := parsePart(name)
	if !ok {
		t.Fatalf("%q is no document", name)
	}
	d := &document{part: p, cells: map[cell]Value{}, total: Value{Count: rest}}
	for labels, v := range counts {
		var c cell
		copy(c[:], strings.Fields(labels))
		d.cells[c] = v
		d.total.add(v)
	}
	data, err := d.encode()
	if err != nil {
		t.Fatal(err)
	}
	store.docs[name] = data
	store.editions[name] = append(store.editions[name], data)
}

func day(t *testing.T, s string) (d Day) {
	t.Helper()
	if err := d.UnmarshalText([]byte(s)); err != nil {
		t.Fatal(err)
	}
	return d
}

// rows prints the rows of a result.
func rows(r *Result) string {
	var b strings.Builder
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "%s %d", strings.Join(row.Labels, " "), row.Count)
		if row.Bytes > 0 {
			fmt.Fprintf(&b, " %d", row.Bytes)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "total %d", r.Total.Count)
	return b.String()
}

func twoNodes(t *testing.T) *memStore {
	store := newMemStore(t)
	n := func(n uint64) Value { return Value{Count: n} }
	put(t, store, "a/lists-2026-03-01", 9, map[string]Value{"DE 9.8 baseos x86_64": n(100), "FR 9.8 baseos x86_64": n(10)})
	put(t, store, "b/lists-2026-03-01", 5, map[string]Value{"DE 9.8 baseos x86_64": n(50), "DE 10.2 baseos aarch64": n(20), "FR 9.8 other other": n(11)})
	put(t, store, "b/lists-2026-03-02", 3, map[string]Value{"JP 9.8 baseos x86_64": n(30)})
	put(t, store, "b/lists-2026-03-03", 0, map[string]Value{"JP 9.8 baseos x86_64": n(1000)})
	put(t, store, "b/mirrors-2026-03-01", 40, map[string]Value{"m1": {60, 600}, "m2": {20, 200}})
	put(t, store, "a/mirrors-2026-03-01", 0, map[string]Value{"m1": {30, 900}})
	put(t, store, "a/mirrors-2026-03-02", 0, map[string]Value{"m2": {10, 10}})
	put(t, store, "a/countme-2026-02-23", 0, map[string]Value{"9.8 baseos x86_64 1 generic x86_64": n(40), "9.8 baseos x86_64 4 server x86_64": n(60)})
	store.docs["b/README"] = []byte("not ours")
	return store
}

func TestQuery(t *testing.T) {
	for _, tt := range []struct {
		name  string
		query Query
		want  string
	}{
		{"one sum", Query{Table: Lists}, "238\ntotal 238"},
		{"by country, with what is folded", Query{Table: Lists, By: []string{"country"}}, "DE 170\nJP 30\nFR 21\nother 17\ntotal 238"},
		{"by day", Query{Table: Lists, By: []string{Period}}, "2026-03-01 205\n2026-03-02 33\ntotal 238"},
		{
			"by day and version, a small rest being left out", Query{Table: Lists, By: []string{Period, "version"}},
			"2026-03-01 9.8 171\n2026-03-01 10.2 20\n2026-03-01 other 14\n2026-03-02 9.8 30\ntotal 238",
		},
		{
			"columns in the order that is asked for", Query{Table: Lists, By: []string{"repo", Period, "country"}},
			"baseos 2026-03-01 DE 170\nother 2026-03-01 other 14\nother 2026-03-01 FR 11\nbaseos 2026-03-01 FR 10\nbaseos 2026-03-02 JP 30\ntotal 238",
		},
		{"one country", Query{Table: Lists, By: []string{"version"}, Where: map[string]string{"country": "DE"}}, "9.8 150\n10.2 20\ntotal 170"},
		{"two conditions", Query{Table: Lists, Where: map[string]string{"country": "DE", "arch": "aarch64"}}, "20\ntotal 20"},
		{"what there is none of", Query{Table: Lists, By: []string{"version"}, Where: map[string]string{"country": "AQ"}}, "total 0"},
		{"mirrors have bytes", Query{Table: Mirrors, By: []string{"mirror"}}, "m1 90 1500\nother 40\nm2 30 210\ntotal 160"},
		{"a week", Query{Table: Countme, By: []string{"age", "variant"}}, "4 server 60\n1 generic 40\ntotal 100"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReader(twoNodes(t), new(clock).now)
			tt.query.From, tt.query.To = day(t, "2026-02-20"), day(t, "2026-03-02")
			for range 2 { // the second time from the cache
				res, err := r.Query(t.Context(), tt.query)
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.TrimSpace(rows(res)); got != tt.want {
					t.Errorf("got\n%s\nwant\n%s", got, tt.want)
				}
			}
		})
	}
	r := NewReader(twoNodes(t), new(clock).now)
	for _, tt := range []struct {
		query Query
		want  string
	}{
		{Query{}, "no table"},
		{Query{Table: Lists, By: []string{"age"}}, `unknown column "age" of lists: write one of period, country, version, repo, arch`},
		{Query{Table: Lists, By: []string{"arch", "arch"}}, `column "arch" is there twice`},
		{Query{Table: Mirrors, Where: map[string]string{"period": "x"}}, `unknown column "period" of mirrors: write one of mirror`},
		{Query{Table: Lists, From: 5, To: 4}, "1970-01-05 is before 1970-01-06: write the first day first"},
	} {
		if _, err := r.Query(t.Context(), tt.query); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.query, err, tt.want)
		}
	}
}

// Whatever is asked of whatever nodes have written, no row is small and nothing
// is counted twice.
func TestMergingAgreesWithAddingUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for range 60 {
		store := newMemStore(t)
		sums := map[cell]uint64{}
		total := uint64(0)
		table := Tables[rng.IntN(len(Tables))]
		for node := range 1 + rng.IntN(4) {
			for n := range rng.IntN(4) {
				p := part{table, table.period(100) + Day(n)*table.length(), fmt.Sprint("n", node)}
				d := &document{part: p, cells: fold(table, randomCells(rng, table, 100)), total: Value{Count: rng.Uint64N(12)}}
				for c, v := range d.cells {
					sums[c] += v.Count
					d.total.add(v)
				}
				total += d.total.Count
				data, err := d.encode()
				if err != nil {
					t.Fatal(err)
				}
				store.docs[p.name()] = data
			}
		}
		var by []string
		for _, c := range append([]string{Period}, table.Columns...) {
			if rng.IntN(2) == 0 {
				by = append(by, c)
			}
		}
		res, err := NewReader(store, new(clock).now).Query(t.Context(), Query{Table: table, From: 0, To: 1000, By: by})
		if err != nil {
			t.Fatal(err)
		}
		if res.Total.Count != total {
			t.Fatalf("by %q the total is %d, want %d", by, res.Total.Count, total)
		}
		want, got := map[string]uint64{}, map[string]uint64{}
		listed := uint64(0)
		if at := slices.Index(by, Period); at >= 0 {
			by = slices.Delete(by, at, at+1)
			for i := range res.Rows {
				res.Rows[i].Labels = slices.Delete(res.Rows[i].Labels, at, at+1)
			}
		}
		for c, n := range sums {
			var labels []string
			for _, name := range by {
				labels = append(labels, c[table.column(name)])
			}
			want[strings.Join(labels, " ")] += n
		}
		for _, row := range res.Rows {
			if row.Count < Least {
				t.Fatalf("by %q there is %v of %d", by, row.Labels, row.Count)
			}
			got[strings.Join(row.Labels, " ")] += row.Count
			listed += row.Count
		}
		rest := strings.TrimSpace(strings.Repeat(Other+" ", len(by)))
		delete(want, rest)
		delete(got, rest)
		if !maps.Equal(got, want) || listed > total {
			t.Fatalf("by %q: %v, want %v; %d of %d", by, got, want, listed, total)
		}
	}
}

func TestMirror(t *testing.T) {
	r := NewReader(twoNodes(t), new(clock).now)
	got, err := r.Mirror(t.Context(), "m1", day(t, "2026-01-01"), day(t, "2026-04-01"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Share{
		{Day: day(t, "2026-03-01"), Value: Value{90, 1500}, Requests: 90. / 150, Volume: 1500. / 1700},
		{Day: day(t, "2026-03-02")},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("shares are %+v, want %+v", got, want)
	}
}

// One damaged document does not hide the others, and says which it is.
func TestADocumentThatCannotBeRead(t *testing.T) {
	store := twoNodes(t)
	store.docs["c/lists-2026-03-01"] = []byte("{")
	res, err := NewReader(store, new(clock).now).Query(t.Context(), Query{Table: Lists, From: 0, To: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Unread) != 1 || !strings.HasPrefix(res.Unread[0], "c/lists-2026-03-01: ") || res.Total.Count != 1238 || !slices.Equal(res.Nodes, []string{"a", "b"}) {
		t.Errorf("%+v", res)
	}
}

// countingStore counts what is read of a store.
type countingStore struct {
	*memStore
	loads, lists int
}

func (s *countingStore) Load(ctx context.Context, name string) ([]byte, error) {
	s.loads++
	return s.memStore.Load(ctx, name)
}

func (s *countingStore) List(ctx context.Context) (map[string]string, error) {
	s.lists++
	return s.memStore.List(ctx)
}

func TestDocumentsAreReadOnce(t *testing.T) {
	var c clock
	store := &countingStore{memStore: twoNodes(t)}
	r := NewReader(store, c.now)
	ask := func() string {
		t.Helper()
		res, err := r.Query(t.Context(), Query{Table: Lists, From: 0, To: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return rows(res)
	}
	first := ask()
	if ask() != first || store.loads != 4 || store.lists != 1 {
		t.Errorf("read %d documents and %d lists for two questions", store.loads, store.lists)
	}
	put(t, store.memStore, "b/lists-2026-03-02", 0, map[string]Value{"JP 9.8 baseos x86_64": {Count: 40}})
	c.Add(5)
	if got := ask(); got == first || store.loads != 5 || store.lists != 2 {
		t.Errorf("after a change: %s; read %d documents and %d lists", got, store.loads, store.lists)
	}
	delete(store.docs, "b/lists-2026-03-02")
	c.Add(5)
	ask()
	if len(r.cache) != 3 {
		t.Errorf("%d documents are kept of 3", len(r.cache))
	}
	// However much there is, what is kept is bounded.
	r.room = 1000
	big := map[string]Value{}
	for i := range r.room / 20 {
		big[fmt.Sprintf("%d 9.8 a b", i)] = Value{Count: 10}
	}
	for i := range 25 {
		put(t, store.memStore, part{Lists, Day(i), "big"}.name(), 0, big)
	}
	c.Add(5)
	ask()
	if r.cached > r.room {
		t.Errorf("%d cells are kept", r.cached)
	}
	sum := 0
	for _, d := range r.cache {
		sum += len(d.counts)
	}
	if sum != r.cached || sum < r.room/2 {
		t.Errorf("%d cells are kept, %d are counted", sum, r.cached)
	}
}

func TestQueryOfAStoreThatIsAway(t *testing.T) {
	store := &brokenStore{twoNodes(t)}
	if _, err := NewReader(store, new(clock).now).Query(t.Context(), Query{Table: Lists}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("Query: %v", err)
	}
}

type brokenStore struct{ *memStore }

func (brokenStore) List(context.Context) (map[string]string, error) { return nil, os.ErrPermission }

func TestResultIsWritten(t *testing.T) {
	r := NewReader(twoNodes(t), new(clock).now)
	for _, tt := range []struct {
		query     Query
		csv, json string
	}{
		{
			Query{Table: Mirrors, By: []string{Period, "mirror"}},
			"period,mirror,count,bytes\n2026-03-01,m1,90,1500\n2026-03-01,other,40,0\n2026-03-01,m2,20,200\n2026-03-02,m2,10,10\n",
			`{"table":"mirrors","from":"2026-03-01","to":"2026-03-02","by":["period","mirror"],"rows":[` +
				`{"labels":["2026-03-01","m1"],"count":90,"bytes":1500},{"labels":["2026-03-01","other"],"count":40},` +
				`{"labels":["2026-03-01","m2"],"count":20,"bytes":200},{"labels":["2026-03-02","m2"],"count":10,"bytes":10}],` +
				`"total":{"count":160,"bytes":1710},"nodes":["a","b"]}`,
		},
		{
			Query{Table: Lists, Where: map[string]string{"country": "AQ"}},
			"count\n",
			`{"table":"lists","from":"2026-03-01","to":"2026-03-02","by":[],"rows":[],"total":{"count":0},"nodes":["a","b"]}`,
		},
	} {
		tt.query.From, tt.query.To = day(t, "2026-03-01"), day(t, "2026-03-02")
		res, err := r.Query(t.Context(), tt.query)
		if err != nil {
			t.Fatal(err)
		}
		var csv strings.Builder
		if err := res.WriteCSV(&csv); err != nil || csv.String() != tt.csv {
			t.Errorf("CSV is %q, %v; want %q", &csv, err, tt.csv)
		}
		if got, err := json.Marshal(res); err != nil || string(got) != tt.json {
			t.Errorf("JSON is %s, %v; want %s", got, err, tt.json)
		}
	}
}

// The directory of one node can be read by people, and is all that it writes.
func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "stats")
	store, err := Open("dir:" + dir)
	if err != nil {
		t.Fatal(err)
	}
	var c clock
	c.set("2026-03-01 10:00:00")
	for i, node := range []string{"a", "b"} {
		r := newTestRecorder(store, node, &c)
		y := r.Attach(small)
		times(10+i, func() { y.List(0, germany, 0) })
		shut(t, r)
	}
	var files []string
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			files = append(files, rel)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a/lists-2026-03-01.json", "a/lock", "a/mirrors-2026-03-01.json", "b/lists-2026-03-01.json", "b/lock", "b/mirrors-2026-03-01.json"}; !slices.Equal(files, want) {
		t.Errorf("files are %q, want %q", files, want)
	}
}

// BenchmarkQuery sums up 90 days of three nodes, of 4,800 cells each.
func BenchmarkQuery(b *testing.B) {
	store := newMemStore(nil)
	rng := rand.New(rand.NewPCG(1, 1))
	for d := range 90 {
		for node := range 3 {
			p := part{Lists, Day(d), fmt.Sprint(node)}
			doc := &document{part: p, cells: map[cell]Value{}}
			for i := range 7000 {
				c := cell{fmt.Sprint(i % 200), fmt.Sprint(i / 200 % 3), fmt.Sprint(i / 600 % 8), fmt.Sprint(i % 2)}
				doc.cells[c] = Value{Count: 10 + rng.Uint64N(1000)}
			}
			data, err := doc.encode()
			if err != nil {
				b.Fatal(err)
			}
			store.docs[p.name()] = data
		}
	}
	ask := func(b *testing.B, r *Reader) {
		if _, err := r.Query(b.Context(), Query{Table: Lists, To: 90, By: []string{Period, "version"}}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ask(b, NewReader(store, new(clock).now))
		}
	})
	b.Run("again", func(b *testing.B) {
		r := NewReader(store, new(clock).now)
		b.ReportAllocs()
		for b.Loop() {
			ask(b, r)
		}
	})
}
