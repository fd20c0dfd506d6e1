package checker

import (
	"encoding/json"
	"fmt"
	"runtime"
	"testing"
	"time"

	"meridian/checker/state"
)

// What a checker knows of a whole network, three generations of each repository
// remembered, with the snapshot that was stored last: the live heap, in MB.
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
		stored := &state.Snapshot{Taken: w.now, Mirrors: map[string]*state.Status{}, Truth: map[state.Key]state.Truth{}}
		for k, t := range w.truth {
			stored.Truth[k] = *t
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
			// What was stored is another copy, as after a restart.
			text, err := json.Marshal(m.status)
			if err != nil {
				b.Fatal(err)
			}
			old := new(state.Status)
			if err := json.Unmarshal(text, old); err != nil {
				b.Fatal(err)
			}
			stored.Mirrors[name] = old
		}
		b.ReportMetric(live()-before, "MB")
		runtime.KeepAlive(w)
		runtime.KeepAlive(stored)
	}
}
