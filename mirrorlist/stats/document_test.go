package stats

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestFold(t *testing.T) {
	type counts map[string]uint64
	for _, tt := range []struct {
		name  string
		table *Table
		in    counts
		want  counts
	}{
		{name: "nothing"},
		{
			name: "what is large enough stays, to the last",
			in:   counts{"DE 9.8 baseos x86_64": 10, "FR 9.8 baseos x86_64": 9},
			want: counts{"DE 9.8 baseos x86_64": 10},
		},
		{
			name: "the arch is given up first",
			in:   counts{"DE 9.8 baseos x86_64": 6, "DE 9.8 baseos aarch64": 5, "DE 9.8 crb aarch64": 1},
			want: counts{"DE 9.8 baseos other": 10},
		},
		{
			name: "then the repository, then the version",
			in:   counts{"DE 9.8 baseos x86_64": 6, "DE 9.8 crb x86_64": 5, "FR 9.8 baseos x86_64": 5, "FR 10.2 baseos x86_64": 6},
			want: counts{"DE 9.8 other other": 10, "FR other other other": 10},
		},
		{
			name: "what nothing is left of is not listed",
			in:   counts{"DE 9.8 baseos x86_64": 6, "FR 9.8 baseos x86_64": 6},
			want: counts{},
		},
		{
			name: "what is over a step of a large cell is folded as a small one is",
			in:   counts{"DE 9.8 baseos x86_64": 1019, "DE 9.8 crb x86_64": 3},
			want: counts{"DE 9.8 baseos x86_64": 1010, "DE 9.8 other other": 10},
		},
		{
			name: "who folded joins those who were there",
			in:   counts{"DE 9.8 baseos x86_64": 9, "DE 9.8 baseos aarch64": 9, "DE 9.8 baseos other": 40},
			want: counts{"DE 9.8 baseos other": 50},
		},
		{
			name: "of systems the variant is first, and the version last", table: Countme,
			in: counts{
				"9.8 baseos x86_64 1 server x86_64": 5, "9.8 baseos x86_64 1 generic x86_64": 6,
				"9.8 crb x86_64 1 server x86_64": 5, "9.8 crb x86_64 2 server x86_64": 4, "9.8 extras x86_64 2 server x86_64": 4,
			},
			want: counts{"9.8 baseos x86_64 1 other x86_64": 10, "9.8 other other other other other": 10},
		},
		{
			name: "mirrors have one attribute alone", table: Mirrors,
			in:   counts{"a.example.org": 9, "b.example.org": 9, "c.example.org": 10},
			want: counts{"c.example.org": 10},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := tt.table
			if table == nil {
				table = Lists
			}
			in := map[cell]Value{}
			for k, n := range tt.in {
				var c cell
				copy(c[:], strings.Fields(k))
				in[c] = Value{Count: n}
			}
			got := counts{}
			for c, v := range fold(table, in) {
				got[strings.Join(c[:len(table.Columns)], " ")] = v.Count
			}
			if len(got)+len(tt.want) > 0 && !reflect.DeepEqual(got, tt.want) {
				t.Errorf("fold(%v) = %v, want %v", tt.in, got, tt.want)
			}
		})
	}
}

// randomCells are n cells of few and of many.
func randomCells(rng *rand.Rand, t *Table, n int) map[cell]Value {
	out := map[cell]Value{}
	for range n {
		var c cell
		for i := range t.Columns {
			c[i] = fmt.Sprint(rng.IntN(3))
		}
		v := out[c]
		v.add(Value{Count: uint64(rng.IntN(1 + rng.IntN(20))), Bytes: rng.Uint64N(1000)})
		if out[c] = v; v.Count == 0 {
			delete(out, c)
		}
	}
	return out
}

// However cells are distributed, folding makes none that is too small, counts
// nothing twice, and drops fewer than Least.
func TestFoldDropsLessThanOneCell(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		table := Tables[i%len(Tables)]
		in := randomCells(rng, table, rng.IntN(60))
		var all, left Value
		for _, v := range in {
			all.add(v)
		}
		rest := uint64(0) // what has no attribute left
		for c, v := range fold(table, in) {
			left.add(v)
			if v.Count < Least || c == table.all() {
				t.Fatalf("%s: %v of %d", table.Name, c, v.Count)
			}
		}
		if left.Count > all.Count || left.Bytes > all.Bytes {
			t.Fatalf("%s: %v became %v", table.Name, all, left)
		}
		rest = all.Count - left.Count
		// It is large only if it is from different values of the last column.
		last := table.fold[len(table.fold)-1]
		dropped := map[string]uint64{}
		for c, v := range in {
			dropped[c[last]] += v.Count
		}
		for c, v := range fold(table, in) {
			dropped[c[last]] -= v.Count
		}
		sum := uint64(0)
		for value, n := range dropped {
			if sum += n; n >= Least {
				t.Fatalf("%s: %d with %q are dropped", table.Name, n, value)
			}
		}
		if sum != rest {
			t.Fatalf("%s: %d are dropped, and %d", table.Name, sum, rest)
		}
	}
}

func TestDocumentReadsBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 300 {
		table := Tables[i%len(Tables)]
		p := part{table, table.period(Day(20000 + i)), "node-1.example.org"}
		d := &document{part: p, mark: "m", cells: fold(table, randomCells(rng, table, 50)), total: Value{Count: 1 << 20, Bytes: 1 << 30}}
		data, err := d.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := decode(p, data)
		if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		if !reflect.DeepEqual(back, d) {
			t.Fatalf("%+v reads back as %+v\n%s", d, back, data)
		}
		q, ok := parsePart(p.name())
		if !ok || q != p {
			t.Fatalf("%s is read as %v, %v", p.name(), q, ok)
		}
	}
}

// The format is a contract with later releases: this file is what the first one
// wrote.
func TestDocumentOfTheFirstRelease(t *testing.T) {
	data, err := os.ReadFile("testdata/lists-2026-03-01.json")
	if err != nil {
		t.Fatal(err)
	}
	p, _ := parsePart("node-1/lists-2026-03-01")
	d, err := decode(p, data)
	if err != nil {
		t.Fatal(err)
	}
	want := &document{part: p, mark: "SESSION-7", total: Value{Count: 2217}, cells: map[cell]Value{
		{"DE", "9.8", "baseos", "x86_64"}:    {Count: 1200},
		{"DE", "9.8", "baseos", "unnamed"}:   {Count: 1000},
		{"unknown", "9.8", "other", "other"}: {Count: 12},
	}}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("read %+v, want %+v", d, want)
	}
	again, err := d.encode()
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("it is written as %s, %v", again, err)
	}
}

func TestDocumentOfAnotherRelease(t *testing.T) {
	p, _ := parsePart("n/lists-2026-03-01")
	const head = `{"format":1,"table":"lists","period":"2026-03-01","node":"n","mark":"","new":[1],`
	for _, tt := range []struct{ name, text, want string }{
		{"columns that this release lacks are summed up", head + `"columns":["country","planet","version","repo","arch"],"total":{"count":60},"cells":[` + "\n" + `["DE","earth","9","a","b",20],` + "\n" + `["DE","mars","9","a","b",30]` + "\n]}\n", "DE 9 a b 50 of 60"},
		{"columns that it has not yet are other", head + `"columns":["country","version"],"total":{"count":60},"cells":[` + "\n" + `["DE","9",20]` + "\n]}\n", "DE 9 other other 20 of 60"},
		{"cells that are too small are not believed", head + `"columns":["country","version","repo","arch"],"total":{"count":60},"cells":[` + "\n" + `["DE","9","a","b",9],` + "\n" + `["FR","9","a","b",10]` + "\n]}\n", "FR 9 a b 10 of 60"},
		{"a total is never less than its cells", head + `"columns":["country","version","repo","arch"],"total":{"count":6},"cells":[` + "\n" + `["FR","9","a","b",10]` + "\n]}\n", "FR 9 a b 10 of 10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := decode(p, []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for c, v := range d.cells {
				got += fmt.Sprintf("%s %d of %d", strings.Join(c[:4], " "), v.Count, d.total.Count)
			}
			if got != tt.want {
				t.Errorf("read %q, want %q", got, tt.want)
			}
		})
	}
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "not whole"},
		{"half a first line", head + `"columns":["country"`, "not whole"},
		{"half of the cells", head + `"columns":["country"],"cells":[` + "\n[\"DE\",20],\n", "not whole"},
		{"half a line", head + `"columns":["country"],"cells":[` + "\n[\"DE\",2", "not whole"},
		{"a first line that is none", `{"format":,"cells":[` + "\n]}\n", "invalid character"},
		{"a later format", strings.Replace(head, `"format":1`, `"format":2`, 1) + `"columns":[],"cells":[` + "\n]}\n", "format 2 is not that of this release"},
		{"another day", strings.Replace(head, "03-01", "03-02", 1) + `"columns":[],"cells":[` + "\n]}\n", "it is of lists-2026-03-02"},
		{"another table", strings.Replace(head, `"lists"`, `"mirrors"`, 1) + `"columns":[],"cells":[` + "\n]}\n", "it is of mirrors-2026-03-01"},
		{"a short row", head + `"columns":["country","version"],"cells":[` + "\n[\"DE\",20]\n]}\n", "line 2 has 1 labels"},
		{"a label that is none", head + `"columns":["country"],"cells":[` + "\n[7,20]\n]}\n", "line 2 has 0 labels"},
		{"a label without end", head + `"columns":["country"],"cells":[` + "\n[\"DE]\n]}\n", "line 2: "},
		{"a label with a bad escape", head + `"columns":["country"],"cells":[` + "\n[\"\\x\",20]\n]}\n", "line 2: "},
		{"a count below nothing", head + `"columns":["country"],"cells":[` + "\n[\"DE\",-20]\n]}\n", "line 2: "},
		{"no count", head + `"columns":["country"],"cells":[` + "\n[\"DE\"]\n]}\n", "line 2: "},
		{"no cell", head + `"columns":["country"],"cells":[` + "\n{}\n]}\n", "line 2: "},
		{"too long", head + strings.Repeat(" ", maxDocument), "are more than a document has"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := decode(p, []byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("decode: %v, want %q", err, tt.want)
			}
		})
	}
}

func TestNamesThatAreNoDocument(t *testing.T) {
	for _, name := range []string{
		"", "lists-2026-03-01", "n/lists", "n/lists-2026-03-1", "n/list-2026-03-01", "n/countme-2026-03-01", // no Monday
		"/lists-2026-03-01", "../lists-2026-03-01", ".n/lists-2026-03-01", "n/n/lists-2026-03-01", "n m/lists-2026-03-01", "n/lists-2026-03-01-x",
	} {
		if p, ok := parsePart(name); ok {
			t.Errorf("%q is read as %v", name, p)
		}
	}
	for name, want := range map[string]bool{"": false, "a": true, "mirrors-1.example.org": true, ".": false, "..": false, "a/b": false, "a b": false, "ä": false, strings.Repeat("a", 101): false} {
		if ValidNode(name) != want {
			t.Errorf("ValidNode(%q) = %v", name, !want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	data, err := os.ReadFile("testdata/lists-2026-03-01.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	p, _ := parsePart("node-1/lists-2026-03-01")
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := decode(p, data)
		if err != nil {
			return
		}
		sum := uint64(0)
		for c, v := range d.cells {
			if v.Count < Least {
				t.Errorf("%v of %d", c, v.Count)
			}
			sum += v.Count
		}
		again, err := d.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := decode(p, again)
		if err != nil || !reflect.DeepEqual(d, back) {
			t.Errorf("%s is written as %s and reads back as %+v, %v", data, again, back, err)
		}
		if packed := pack(p, again); packed.err != nil || len(packed.counts) != len(d.cells) || packed.total != d.total {
			t.Errorf("%s is packed as %+v", again, packed)
		}
	})
}
