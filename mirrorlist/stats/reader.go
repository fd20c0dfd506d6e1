package stats

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Query asks for sums of one table.
type Query struct {
	Table *Table

	// From and To are the first and the last day: a period counts when it begins
	// on one of them or between.
	From, To Day

	// By are the columns to tell apart, and in which order; "period" is one more
	// of every table. Without any there is one sum.
	By []string

	// Where takes only cells with these labels, by column.
	Where map[string]string
}

// A Result is the answer to a query.
type Result struct {
	Table string   `json:"table"`
	From  Day      `json:"from"`
	To    Day      `json:"to"`
	By    []string `json:"by"`

	// Rows are by period, then the largest first. None is below Least: of those
	// that are, and of what was folded, Other has the sum, if it is not too small
	// itself.
	Rows []Row `json:"rows"`

	// Total is the sum of all rows, and of what is in none: that is a multiple of
	// Least too, or nothing.
	Total Value `json:"total"`

	// Nodes are those that have counted something, and Unread the documents that
	// are damaged, or were written by a later release.
	Nodes  []string `json:"nodes"`
	Unread []string `json:"unread,omitempty"`
}

// A Row is one sum.
type Row struct {
	Labels []string `json:"labels"` // in the order of Result.By
	Value
}

// Period is the name of the column that every table has besides its own.
const Period = "period"

// Check finds what cannot be asked, and says what to write instead.
func (q *Query) Check() error {
	if q.Table == nil {
		return errors.New("stats: no table")
	}
	columns := append([]string{Period}, q.Table.Columns...)
	for i, by := range q.By {
		if !slices.Contains(columns, by) {
			return fmt.Errorf("unknown column %q of %s: write one of %s", by, q.Table.Name, strings.Join(columns, ", "))
		}
		if slices.Contains(q.By[:i], by) {
			return fmt.Errorf("column %q is there twice: write it once", by)
		}
	}
	for column := range q.Where {
		if q.Table.column(column) < 0 {
			return fmt.Errorf("unknown column %q of %s: write one of %s", column, q.Table.Name, strings.Join(q.Table.Columns, ", "))
		}
	}
	if q.To < q.From {
		return fmt.Errorf("%s is before %s: write the first day first", q.To, q.From)
	}
	return nil
}

// Times and sizes of a reader.
const (
	listEvery = 5 * time.Second
	maxCached = 2_000_000 // cells, of 16 to 30 bytes each
)

// A Reader sums up what all nodes have written. Documents that have not changed
// are read once, as long as there is room to keep them. It is safe for concurrent
// use.
type Reader struct {
	store Store
	now   func() time.Time
	room  int // cells that are kept at most

	mu     sync.Mutex // guards what follows
	listed time.Time
	names  map[string]string // documents and their tags
	cache  map[string]*table
	cached int   // cells in cache
	uses   int64 // counts queries, to find the document that was asked for longest ago
}

// table is a document in little room.
type table struct {
	part
	tag     string
	used    int64
	err     error // why it cannot be read
	total   Value
	labels  []string // what ids stand for
	ids     []uint16 // by cell, then column
	counts  []uint64
	bytes   []uint64 // nil: all 0
	columns int
}

// NewReader returns a reader of all that is in a store.
func NewReader(store Store, now func() time.Time) *Reader {
	return &Reader{store: store, now: now, room: maxCached, cache: map[string]*table{}}
}

// Query sums up what was written until now, or a few seconds ago. What cannot be
// asked is an error that says what to write instead.
func (r *Reader) Query(ctx context.Context, q Query) (*Result, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names == nil || r.now().Sub(r.listed).Abs() >= listEvery {
		names, err := r.store.List(ctx)
		if err != nil {
			return nil, fmt.Errorf("stats: %w", err)
		}
		r.names, r.listed = names, r.now()
		for name := range r.cache {
			if _, ok := names[name]; !ok {
				r.forget(name)
			}
		}
	}
	r.uses++
	out := &Result{Table: q.Table.Name, From: q.From, To: q.To, By: append([]string{}, q.By...), Rows: []Row{}, Nodes: []string{}}
	s := newSummer(&q)
	for _, name := range slices.Sorted(maps.Keys(r.names)) {
		p, ok := parsePart(name)
		if !ok || p.table != q.Table || p.start < q.From || p.start > q.To {
			continue
		}
		t, err := r.load(ctx, p, r.names[name])
		if err != nil {
			return nil, fmt.Errorf("stats: %s: %w", name, err)
		}
		if t == nil {
			continue
		}
		if t.err != nil {
			out.Unread = append(out.Unread, name+": "+t.err.Error())
			continue
		}
		if !slices.Contains(out.Nodes, p.node) {
			out.Nodes = append(out.Nodes, p.node)
		}
		s.add(t)
	}
	s.finish(out)
	return out, nil
}

// load returns a document from the cache or the store; nil if it was removed
// meanwhile.
func (r *Reader) load(ctx context.Context, p part, tag string) (*table, error) {
	name := p.name()
	if t := r.cache[name]; t != nil && t.tag == tag {
		t.used = r.uses
		return t, nil
	}
	data, err := r.store.Load(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t := pack(p, data)
	t.tag, t.used = tag, r.uses
	r.forget(name)
	r.cache[name] = t
	for r.cached += len(t.counts); r.cached > r.room && len(r.cache) > 1; {
		oldest := ""
		for n, t := range r.cache {
			if n != name && (oldest == "" || t.used < r.cache[oldest].used) {
				oldest = n
			}
		}
		r.forget(oldest)
	}
	return t, nil
}

func (r *Reader) forget(name string) {
	if t := r.cache[name]; t != nil {
		r.cached -= len(t.counts)
		delete(r.cache, name)
	}
}

// maxLabels is what an id of a label can count.
const maxLabels = 1 << 16

// pack reads a document.
func pack(p part, data []byte) *table {
	n := len(p.table.Columns)
	t := &table{part: p, columns: n}
	numbers := map[string]uint16{}
	head, err := scan(p, data, func(c cell, v Value) {
		for _, label := range c[:n] {
			id, ok := numbers[label]
			if !ok {
				id = uint16(len(t.labels))
				numbers[label] = id
				t.labels = append(t.labels, label)
			}
			t.ids = append(t.ids, id)
		}
		t.counts = append(t.counts, v.Count)
		if v.Bytes != 0 && t.bytes == nil {
			t.bytes = make([]uint64, len(t.counts)-1)
		}
		if t.bytes != nil {
			t.bytes = append(t.bytes, v.Bytes)
		}
	})
	if err == nil && len(t.labels) > maxLabels {
		err = fmt.Errorf("%d labels are more than a document has (%d)", len(t.labels), maxLabels)
	}
	if err != nil {
		return &table{part: p, err: err}
	}
	t.total = head.Total
	return t
}

// A summer adds documents up by the columns of a query.
type summer struct {
	q       *Query
	columns []int // of q.By; -1 is the period
	sums    map[sum]Value
	totals  map[Day]Value // of everything, by period
}

// sum is the key of one sum: the labels of By without the period.
type sum struct {
	period Day // 0 when it is not asked for
	cell
}

func newSummer(q *Query) *summer {
	s := &summer{q: q, sums: map[sum]Value{}, totals: map[Day]Value{}}
	for _, by := range q.By {
		s.columns = append(s.columns, q.Table.column(by))
	}
	return s
}

// period is the part of a key that all of a document has.
func (s *summer) period(t *table) (d Day) {
	if slices.Contains(s.columns, -1) {
		d = t.start
	}
	return d
}

func (s *summer) add(t *table) {
	// Sums of this document by ids first: few of its cells end up in many rows.
	var where [maxColumns]int // id that is wanted, or -1
	for i := range where {
		where[i] = -1
	}
	for column, label := range s.q.Where {
		id := slices.Index(t.labels, label)
		if id < 0 {
			return
		}
		where[t.table.column(column)] = id
	}
	own := map[[maxColumns]uint16]Value{}
	n := t.columns
next:
	for i := range t.counts {
		ids := t.ids[i*n : (i+1)*n]
		for k, id := range ids {
			if where[k] >= 0 && where[k] != int(id) {
				continue next
			}
		}
		var key [maxColumns]uint16
		for k, c := range s.columns {
			if c >= 0 {
				key[k] = ids[c]
			}
		}
		v := own[key]
		v.Count += t.counts[i]
		if t.bytes != nil {
			v.Bytes += t.bytes[i]
		}
		own[key] = v
	}
	period := s.period(t)
	for ids, v := range own {
		k := sum{period: period}
		for i, c := range s.columns {
			if c >= 0 {
				k.cell[i] = t.labels[ids[i]]
			}
		}
		old := s.sums[k]
		old.add(v)
		s.sums[k] = old
		if len(s.q.Where) > 0 {
			s.addTotal(period, v)
		}
	}
	if len(s.q.Where) == 0 {
		s.addTotal(period, t.total)
	}
}

func (s *summer) addTotal(d Day, v Value) {
	old := s.totals[d]
	old.add(v)
	s.totals[d] = old
}

// finish turns sums into rows.
func (s *summer) finish(out *Result) {
	rest := maps.Clone(s.totals)
	var others cell
	for i, c := range s.columns {
		if c >= 0 {
			others[i] = Other
		}
	}
	for k, v := range s.sums {
		if v.Count < Least {
			delete(s.sums, k)
			continue
		}
		left := rest[k.period]
		left.Count -= v.Count
		left.Bytes -= min(left.Bytes, v.Bytes) // cells of large files may have come first
		rest[k.period] = left
	}
	for d, v := range rest {
		k := sum{d, others}
		old := s.sums[k]
		old.add(v)
		if old.Count >= Least {
			s.sums[k] = old
		}
	}
	for k, v := range s.sums {
		labels := make([]string, len(s.columns))
		for i, c := range s.columns {
			if labels[i] = k.cell[i]; c < 0 {
				labels[i] = k.period.String()
			}
		}
		out.Rows = append(out.Rows, Row{labels, v})
	}
	at := slices.Index(s.columns, -1)
	slices.SortFunc(out.Rows, func(a, b Row) int {
		if at >= 0 && a.Labels[at] != b.Labels[at] {
			return strings.Compare(a.Labels[at], b.Labels[at])
		}
		if a.Count != b.Count {
			if a.Count > b.Count {
				return -1
			}
			return 1
		}
		return slices.Compare(a.Labels, b.Labels)
	})
	for _, v := range s.totals {
		out.Total.add(v)
	}
}

// A Share is what one mirror was sent in one day, as far as is known.
type Share struct {
	Day   Day `json:"day"`
	Value     // of this mirror

	// Requests and Bytes are the parts of all, 0 to 1, that this mirror was sent.
	Requests float64 `json:"requests_share"`
	Volume   float64 `json:"bytes_share"`
}

// Mirror returns what a mirror was sent on each day of which anything is known. A
// day on which it was sent too little to be told apart has a share of 0.
func (r *Reader) Mirror(ctx context.Context, name string, from, to Day) ([]Share, error) {
	all, err := r.Query(ctx, Query{Table: Mirrors, From: from, To: to, By: []string{Period}})
	if err != nil {
		return nil, err
	}
	own, err := r.Query(ctx, Query{Table: Mirrors, From: from, To: to, By: []string{Period}, Where: map[string]string{"mirror": name}})
	if err != nil {
		return nil, err
	}
	out := make([]Share, len(all.Rows))
	for i, row := range all.Rows {
		s := &out[i]
		if err := s.Day.UnmarshalText([]byte(row.Labels[0])); err != nil {
			return nil, err
		}
		for _, o := range own.Rows {
			if o.Labels[0] == row.Labels[0] {
				s.Value = o.Value
			}
		}
		s.Requests, s.Volume = ratio(s.Count, row.Count), ratio(s.Bytes, row.Bytes)
	}
	return out, nil
}

func ratio(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}
