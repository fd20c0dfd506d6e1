package state

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"meridian/internal/testworld"
	"meridian/schema"
)

// A real network, and one that grows: mirrors, and repositories of each.
const (
	benchMirrors = 500
	benchKeys    = 140
)

// benchChange is what a checker finds out about all mirrors, in one of two ways.
func benchChange(i int) *Change {
	c := &Change{Taken: noon.Add(time.Duration(i) * time.Second), Mirrors: map[string]*Status{}, Truth: map[Key]Truth{}}
	var keys []Key
	for j := range benchKeys {
		k := Key{schema.Version(fmt.Sprintf("9.%d", j%10)), fmt.Sprintf("repository%d", j/40), schema.Arch([]string{"x86_64", "aarch64", "ppc64le", "s390x"}[j/10%4])}
		keys = append(keys, k)
		c.Truth[k] = Truth{Generations: []Generation{fresh, old}, Confirmed: noon}
	}
	for m := range benchMirrors {
		st := &Status{
			Health: map[Key]Health{}, IPv4: Reached, IPv6: Unreached, Visited: noon, Changed: noon,
			Schemes: map[string]*Scheme{"http": {Works: Reached}, "https": {Works: Reached, TLSExpires: noon}},
		}
		for j, k := range keys {
			st.Health[k] = Fresh
			if (m+i+j)%10 == 0 {
				st.Health[k] = Lagging
			}
		}
		c.Mirrors[fmt.Sprintf("mirror%d.example.org", m)] = st
	}
	return c
}

// one returns the change with one of its mirrors.
func one(c *Change, i int) *Change {
	name := fmt.Sprintf("mirror%d.example.org", i%benchMirrors)
	return &Change{Taken: noon.Add(time.Duration(i) * time.Second), Mirrors: map[string]*Status{name: c.Mirrors[name]}}
}

// BenchmarkLoad is what it costs a node to take over what has changed: nothing
// but the time, one mirror, all of them.
func BenchmarkLoad(b *testing.B) {
	changes := [2]*Change{benchChange(0), benchChange(1)}
	for _, tt := range []struct {
		name   string
		change func(i int) *Change
	}{
		{"time", func(i int) *Change { return &Change{Taken: noon.Add(time.Duration(i) * time.Second)} }},
		{"one", func(i int) *Change { return one(changes[i/benchMirrors%2], i) }},
		{"all", func(i int) *Change { return changes[i%2] }},
	} {
		benchEverywhere(b, tt.name, func(b *testing.B, url string) {
			w, r := benchWriter(b, url, changes[0]), benchReader(b, url)
			last, err := r.Load(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			for i := 1; b.Loop(); i++ {
				b.StopTimer()
				if err := w.Write(b.Context(), tt.change(i)); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				snap, err := r.Load(b.Context())
				if err != nil || snap == last {
					b.Fatal("the findings have not changed", err)
				}
				last = snap
			}
		})
	}
	benchEverywhere(b, "nothing", func(b *testing.B, url string) {
		benchWriter(b, url, changes[0])
		r := benchReader(b, url)
		if _, err := r.Load(b.Context()); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := r.Load(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkWrite is what it costs a checker to store what has changed.
func BenchmarkWrite(b *testing.B) {
	changes := [2]*Change{benchChange(0), benchChange(1)}
	benchEverywhere(b, "one", func(b *testing.B, url string) {
		w := benchWriter(b, url, changes[0])
		for i := 1; b.Loop(); i++ {
			if err := w.Write(b.Context(), one(changes[i/benchMirrors%2], i)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkCombine combines three vantage points, of which one says something new
// about one mirror.
func BenchmarkCombine(b *testing.B) {
	snaps := make([]*Snapshot, 3)
	for i := range snaps {
		c := benchChange(i)
		snaps[i] = &Snapshot{Taken: noon, Vantage: fmt.Sprint(i), Mirrors: c.Mirrors, Truth: c.Truth}
	}
	var c combiner
	c.combine(noon, snaps)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		next := *snaps[i%3]
		next.Mirrors = maps.Clone(next.Mirrors)
		name := fmt.Sprintf("mirror%d.example.org", i%benchMirrors)
		st := *next.Mirrors[name]
		next.Mirrors[name] = &st
		snaps = slices.Clone(snaps)
		snaps[i%3] = &next
		c.combine(noon, snaps)
	}
}

func benchEverywhere(b *testing.B, name string, f func(b *testing.B, url string)) {
	b.Run(name+"/dir", func(b *testing.B) { b.ReportAllocs(); f(b, "dir:"+filepath.Join(b.TempDir(), "state")) })
	b.Run(name+"/redis", func(b *testing.B) { b.ReportAllocs(); f(b, "redis+unix://"+testworld.StartRedis(b).Socket) })
}

func benchWriter(b *testing.B, url string, c *Change) *Writer {
	w, err := OpenWriter(url, Options{Lease: time.Hour})
	if err == nil {
		b.Cleanup(func() { w.Close() })
		_, err = w.Acquire(b.Context())
	}
	if err == nil {
		err = w.Write(b.Context(), c)
	}
	if err != nil {
		b.Fatal(err)
	}
	return w
}

func benchReader(b *testing.B, url string) *Reader {
	r, err := OpenReader(url, Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.Close() })
	return r
}
