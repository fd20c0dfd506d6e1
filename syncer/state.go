package syncer

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

const stateFile = StateDir + "/state.json"

// A state is what a publisher must know of a tier0 beyond the files that are
// there. It lies on the tier0 itself, so that any host can go on where another
// one stopped.
type state struct {
	Format int `json:"format"` // 1

	// Generations that are kept, oldest first. The last one is current.
	Generations []generation `json:"generations"`

	// Retired maps a name that the current tree does not have any more to the
	// number of the last generation that had it.
	Retired map[string]int `json:"retired,omitempty"`

	// Pending is a publication that has begun and not ended.
	Pending *pending `json:"pending,omitempty"`

	// Manifest is the sha256 of the manifest that was written with this state;
	// another one there is not to be believed.
	Manifest string `json:"manifest"`

	// Followed stands for what the upstream had when the tree was last made equal
	// to it; "" when it is not known to be.
	Followed string `json:"followed,omitempty"`

	// Listed is when an upstream without manifest was last listed, and followed to
	// the end.
	Listed time.Time `json:"listed,omitzero"`
}

// A generation is a tree that was current once.
type generation struct {
	Number    int       `json:"number"`
	Published time.Time `json:"published"`

	// Superseded is when the next one became current; zero for the current one.
	Superseded time.Time `json:"superseded,omitzero"`

	// Abandoned: its publication never ended, but some may have seen a part of it.
	Abandoned bool `json:"abandoned,omitempty"`

	// Replaced are the repositories that this generation changed, with the
	// repomd.xml that they had before.
	Replaced map[string]replaced `json:"replaced,omitempty"`
}

type replaced struct {
	Repomd []byte `json:"repomd"`
	Signed bool   `json:"signed,omitempty"`
}

type pending struct {
	Number   int                 `json:"number"`
	Started  time.Time           `json:"started"`
	Added    []string            `json:"added,omitempty"` // names that are new
	Replaced map[string]replaced `json:"replaced,omitempty"`
}

const stateFormat = 1

func parseState(b []byte) (*state, error) {
	s := new(state)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s: %w", stateFile, err)
	}
	if s.Format != stateFormat {
		return nil, fmt.Errorf("%s has format %d, and this syncer writes format %d; use the syncer that wrote it, or a newer one", stateFile, s.Format, stateFormat)
	}
	last := -1
	for _, g := range s.Generations {
		if g.Number <= last {
			return nil, fmt.Errorf("%s: generation %d follows %d", stateFile, g.Number, last)
		}
		last = g.Number
	}
	for name := range s.Retired {
		if !inside(name) || ours(name) {
			return nil, fmt.Errorf("%s: %+q is not a name in a tree", stateFile, name)
		}
	}
	if s.Pending != nil {
		for _, name := range s.Pending.Added {
			if !inside(name) || ours(name) {
				return nil, fmt.Errorf("%s: %+q is not a name in a tree", stateFile, name)
			}
		}
		if s.Pending.Number <= last {
			return nil, fmt.Errorf("%s: pending generation %d follows %d", stateFile, s.Pending.Number, last)
		}
	}
	return s, nil
}

func (s *state) bytes() ([]byte, error) {
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

func (s *state) clone() *state {
	c := *s
	c.Generations = slices.Clone(s.Generations)
	c.Retired = maps.Clone(s.Retired)
	if c.Retired == nil {
		c.Retired = make(map[string]int)
	}
	return &c
}

// current is the generation that readers see; nil before the first.
func (s *state) current() *generation {
	if len(s.Generations) == 0 {
		return nil
	}
	return &s.Generations[len(s.Generations)-1]
}

// number is that of the newest generation, begun or ended.
func (s *state) number() int {
	n := 0
	if g := s.current(); g != nil {
		n = g.Number
	}
	if s.Pending != nil {
		n = max(n, s.Pending.Number)
	}
	return n
}

// advance makes a new generation the current one. A pending one, which it takes
// the place of, is kept as long as if it had been current, because a reader may
// have seen a part of it.
func (s *state) advance(now time.Time, changed map[string]replaced) {
	n := s.number() + 1
	if g := s.current(); g != nil {
		g.Superseded = now
	}
	g := generation{Number: n, Published: now, Replaced: changed}
	if p := s.Pending; p != nil {
		for _, name := range p.Added {
			if _, ok := s.Retired[name]; !ok {
				s.Retired[name] = p.Number
			}
		}
		s.Generations = append(s.Generations, generation{Number: p.Number, Published: p.Started, Superseded: now, Abandoned: true})
		// What was there before that publication began is what a rollback is to
		// bring back, not what it left half done.
		g.Replaced = maps.Clone(p.Replaced)
		if g.Replaced == nil {
			g.Replaced = make(map[string]replaced)
		}
		for dir, r := range changed {
			if _, ok := g.Replaced[dir]; !ok {
				g.Replaced[dir] = r
			}
		}
		s.Pending = nil
	}
	s.Generations = append(s.Generations, g)
}

// expire forgets the generations whose time is over, and returns the names that
// none of the others has. The two newest that were ever whole stay, whatever the
// clock says.
func (s *state) expire(now time.Time, grace time.Duration) []string {
	whole, oldest := 0, len(s.Generations)
	for i, g := range slices.Backward(s.Generations) {
		if whole >= 2 && !g.Superseded.After(now.Add(-grace)) {
			break
		}
		if !g.Abandoned {
			whole++
		}
		oldest = i
	}
	s.Generations = slices.Clone(s.Generations[oldest:])
	var doomed []string
	for name, last := range s.Retired {
		if len(s.Generations) > 0 && last < s.Generations[0].Number {
			doomed = append(doomed, name)
		}
	}
	slices.Sort(doomed)
	return doomed
}

// checkClock refuses to publish before the last publication.
func (s *state) checkClock(now time.Time) error {
	g := s.current()
	if g == nil || !now.Before(g.Published.Add(-time.Minute)) {
		return nil
	}
	return fmt.Errorf("the clock says %s, and the last publication was at %s; set the clock, or, if it was wrong then, add -accept-clock",
		now.UTC().Format(time.RFC3339), g.Published.UTC().Format(time.RFC3339))
}

// errNoState says that nothing was ever published there with this command.
var errNoState = errors.New("nothing was published there by syncer publish")
