package checker

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"meridian/checker/state"
)

// A mirror that answers everything, and takes its time for each, does not hold its
// visit for as long as it likes. What a visit has left undone counts neither
// for it nor against it, and is done in later ones.
func TestAVisitEnds(t *testing.T) {
	const repos = 100 // a request each, and one for each of three files
	var network strings.Builder
	network.WriteString(stationNetwork)
	for i := range repos {
		fmt.Fprintf(&network, "  - {name: r%02d, path: R%02d/$basearch/os/}\n", i, i)
	}
	inBubble(t, nil, func(s *station) {
		s.write("network.yml", network.String())
		for i := range repos {
			for name, text := range testGeneration("100", fmt.Sprint(i)) {
				s.write(fmt.Sprintf("tier0/9.8/R%02d/x86_64/os/%s", i, name), string(text))
			}
		}
		slow := s.mirror("slow.example")
		slow.does(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(7 * time.Second):
			case <-r.Context().Done():
				return
			}
			slow.mu.Lock()
			body, ok := slow.holds[r.URL.Path]
			slow.mu.Unlock()
			if !ok {
				http.NotFound(w, r)
				return
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
		})
		began := time.Now()
		s.start()
		s.pass(soon + visitTimeout + probeTimeout)
		if at := s.c.Standing(); at.Visits != 1 {
			s.t.Errorf("%d visits have ended %s after the start, want one", at.Visits, time.Since(began))
		}
		count := func() (fresh, pending, other int) {
			for _, h := range s.c.Standing().Snapshot.Mirrors["slow.example"].Health {
				switch h {
				case state.Fresh:
					fresh++
				case state.Pending:
					pending++
				default:
					other++
				}
			}
			return fresh, pending, other
		}
		if _, pending, other := count(); pending < repos/4 || other > 0 {
			s.t.Errorf("after one visit %d repositories wait to be asked for, and %d are judged otherwise than fresh", pending, other)
		}
		s.pass(3 * time.Hour)
		if fresh, pending, other := count(); fresh != repos+len(stationKeys) || pending+other > 0 {
			s.t.Errorf("in the end %d are fresh, %d pending, %d otherwise", fresh, pending, other)
		}
		s.halt()
	})
}
