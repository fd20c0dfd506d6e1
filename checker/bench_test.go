package checker

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"meridian/checker/state"
)

// What a checker knows of a whole network, three generations of each repository
// remembered, when it has taken over what another has stored, and written all of
// it again: the live heap, and the most that the process has had of memory, in MB.
func BenchmarkNetworkInMemory(b *testing.B) {
	for b.Loop() {
		live := func() float64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return float64(m.HeapAlloc) / 1e6
		}
		before := live()
		w := newFleet(&testing.T{}, 140)
		for range 2 {
			w.now = w.now.Add(time.Hour)
			w.publish(w.keys)
		}
		all := &state.Change{Taken: w.now, Mirrors: map[string]*state.Status{}, Truth: map[state.Key]state.Truth{}}
		for k, t := range w.truth {
			all.Truth[k] = *t
		}
		for i := range 500 {
			name := fmt.Sprintf("m%03d.example.org", i)
			m := w.add(name, name, 3*time.Hour)
			o := &Observation{Mirror: name, At: w.now, Keys: map[state.Key]KeySeen{}}
			for _, k := range w.keys {
				g := w.truth[k].Generations[i%3] // some lag
				o.Keys[k] = KeySeen{Outcome: Served, SHA256: g.SHA256, Revision: g.Revision, Timestamp: g.Timestamp, FilesAsked: 1}
			}
			m.status, _ = judge(m.status, o, w.sched.truth, m.subject, ofTwelve)
			all.Mirrors[name] = m.status
		}
		url := "dir:" + b.TempDir()
		if _, err := stored(b, url, all); err != nil {
			b.Fatal(err)
		}
		successor, err := stored(b, url, all)
		if err != nil {
			b.Fatal(err)
		}
		snap, err := successor.Load(b.Context())
		if err != nil || len(snap.Mirrors) != 500 {
			b.Fatal(err)
		}
		b.ReportMetric(live()-before, "MB")
		b.ReportMetric(peakMemory(b), "peak-MB")
		runtime.KeepAlive(w)
		runtime.KeepAlive(snap)
		runtime.KeepAlive(successor)
	}
}

// stored takes over what is stored, writes all, and gives the lease back.
func stored(b *testing.B, url string, all *state.Change) (*state.Writer, error) {
	b.Helper()
	w, err := state.OpenWriter(url, state.Options{})
	if err != nil {
		return nil, err
	}
	b.Cleanup(func() { w.Close() })
	if _, err := w.Acquire(b.Context()); err != nil {
		return nil, err
	}
	if _, err := w.Load(b.Context()); err != nil && !errors.Is(err, state.ErrNoSnapshot) {
		return nil, err
	}
	if err := w.Write(b.Context(), all); err != nil {
		return nil, err
	}
	return w, w.Release(b.Context())
}

// peakMemory is the most of memory that was resident in this process, in MB.
func peakMemory(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kB float64
	if _, err := fmt.Sscan(rest, &kB); err != nil {
		b.Fatal(err)
	}
	return kB * 1024 / 1e6
}
