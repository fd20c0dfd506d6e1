package checker

import (
	"maps"
	"strings"
	"testing"
	"time"

	"meridian/checker/state"
)

// A mirror whose metadata is right, and one of whose packages has the right size
// and other bytes, is found out by the packages that the daemon reads now and then,
// and taken for a liar. One whose packages are right is not.
func TestAPackageThatIsForgedIsFoundOut(t *testing.T) {
	const path = "Packages/hello-1-1.x86_64.rpm"
	inBubble(t, nil, func(s *station) {
		n := parseNetwork(t, stationNetwork)
		for _, k := range stationKeys {
			for name, text := range packagedGeneration(s.t, "100", map[string]string{path: "the package of " + k.Repo}) {
				s.write("tier0/"+RepoURL("", n, k)+name, string(text))
			}
		}
		s.mirror("good.example")
		liar := s.mirror("liar.example")
		liar.mu.Lock()
		liar.holds = maps.Clone(liar.holds)
		for name, text := range liar.holds {
			if strings.HasSuffix(name, path) {
				liar.holds[name] = []byte(strings.Repeat("x", len(text)))
			}
		}
		liar.mu.Unlock()
		s.start()
		s.pass(5 * time.Minute)
		s.wants("liar.example", "fresh") // its metadata is
		s.pass(3 * closureEvery)
		s.wants("good.example", "fresh")
		st := s.stored().Mirrors["liar.example"]
		lied := 0
		for _, k := range stationKeys {
			f := st.Findings[k]
			if f == nil || !f.Lied {
				continue
			}
			lied++
			if st.Health[k] != state.Broken || f.Path != path || f.Problem == nil || f.Problem.Evidence == nil || !strings.Contains(f.Problem.Evidence.URL, path) {
				s.t.Errorf("%s is shown as %s %s", k, st.Health[k], asJSON(s.t, f))
			}
		}
		if lied == 0 {
			s.t.Errorf("nothing was found out: %s", asJSON(s.t, st))
		}
		s.halt()
	})
}
