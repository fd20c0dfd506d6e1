package checker

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"meridian/checker/state"
	"meridian/schema"
)

const (
	// maxPublications are remembered. A day of a busy network has ten.
	maxPublications = 24

	// followFor is how long it is watched how a publication arrives.
	followFor = 48 * time.Hour
)

// atOnce is how soon after a publication a mirror has it that had it before the
// origin was asked.
const atOnce = 30 * time.Second

// sampleSteps are how long a stretch of time after a publication one sample stands
// for, up to which time.
var sampleSteps = []struct{ until, step time.Duration }{
	{30 * time.Minute, 2 * time.Minute},
	{2 * time.Hour, 10 * time.Minute},
	{12 * time.Hour, time.Hour},
	{followFor, 6 * time.Hour},
}

// sampleCell numbers these stretches.
func sampleCell(after time.Duration) (cell int) {
	from := time.Duration(0)
	for _, s := range sampleSteps {
		if after < s.until {
			return cell + int(max(0, after-from)/s.step)
		}
		cell += int((s.until - from) / s.step)
		from = s.until
	}
	return cell
}

// LagBuckets are the upper bounds of [Lags].
var LagBuckets = [...]time.Duration{
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour,
}

// Lags count how long after a publication mirrors had all of it: each mirror once
// for each publication, however many repositories that changed.
type Lags struct {
	Within [len(LagBuckets) + 1]uint64 // a bound, and not the one before; the last is beyond all
	Sum    time.Duration
}

func (l *Lags) add(lag time.Duration) {
	i, _ := slices.BinarySearch(LagBuckets[:], lag)
	l.Within[i]++
	l.Sum += lag
}

// A propagation follows publications to the mirrors. It belongs to the loop.
type propagation struct {
	truth truths
	all   map[string]*state.Publication // by ID; what is in it is never changed
	open  map[string]*spread            // of these, those that are followed
	lags  Lags

	changed map[string]*state.Publication // since it was taken
}

// A spread is where a publication has arrived.
type spread struct {
	keys    []state.Key
	mirrors map[string]arrival
	news    bool // it has come further, or less far, since the last sample
}

// An arrival is what one mirror has of a publication.
type arrival struct {
	counts  bool // the mirror answers with some generation
	has     bool // this one or later ones, of everything
	arrived bool // it had it once

	mbits     int
	continent string
}

// newPropagation goes on with what was known before.
func newPropagation(known map[string]*state.Publication, truth truths) *propagation {
	p := &propagation{truth: truth, all: map[string]*state.Publication{}, open: map[string]*spread{}, changed: map[string]*state.Publication{}}
	for id, pub := range known {
		p.all[id] = pub
		if len(pub.Generations) > 0 {
			p.follow(id)
		}
	}
	return p
}

func (p *propagation) follow(id string) {
	p.open[id] = &spread{keys: sortedKeys(p.all[id].Generations), mirrors: map[string]arrival{}, news: true}
}

// published begins to follow what the origin has published; truth has it already.
// Then every mirror has to be seen.
func (p *propagation) published(at time.Time, keys []state.Key) {
	pub := &state.Publication{Time: at.UTC(), Repositories: len(keys), Generations: map[state.Key]state.GenerationID{}}
	for _, k := range slices.SortedFunc(slices.Values(keys), compareKeys) {
		if t := p.truth(k); t != nil && t.Newest() != nil {
			pub.Generations[k] = t.Newest().ID()
			if !slices.Contains(pub.Versions, k.Version) {
				pub.Versions = append(pub.Versions, k.Version)
			}
		}
	}
	if len(pub.Generations) == 0 {
		return
	}
	id := pub.ID()
	p.all[id], p.changed[id] = pub, pub
	p.follow(id)
	for ids := slices.Sorted(maps.Keys(p.all)); len(ids) > maxPublications; ids = ids[1:] {
		delete(p.all, ids[0])
		delete(p.open, ids[0])
		p.changed[ids[0]] = nil
	}
}

// saw takes what is known of a mirror now.
func (p *propagation) saw(m *schema.Mirror, st *state.Status, now time.Time) {
	if m.Private || m.CloudType != "" {
		p.left(m.Name) // not asked, or for its own network alone
		return
	}
	for id, s := range p.open {
		pub := p.all[id]
		was := s.mirrors[m.Name]
		is := arrival{
			arrived: was.arrived, mbits: max(1, m.Bandwidth),
			continent: cmp.Or(m.Location.Continent, schema.Continent(m.Location.Country)),
		}
		is.counts, is.has = p.holds(pub, s.keys, st)
		if is.has && !was.arrived {
			is.arrived = true
			// Of a mirror that was not seen without it nobody knows how long it took:
			// it is new, or was away, or this process is new.
			if lag := max(0, now.Sub(pub.Time)); was.counts || lag < atOnce {
				p.lags.add(lag)
			}
		}
		if is != was {
			s.mirrors[m.Name] = is
			s.news = true
		}
	}
}

// holds tells whether a mirror has some generation of what was published, and
// whether it has this one, or later ones, of all that it has.
func (p *propagation) holds(pub *state.Publication, keys []state.Key, st *state.Status) (some, all bool) {
	all = true
	for _, k := range keys {
		switch st.Health[k] {
		case state.Fresh, state.Ahead:
			some = true
		case state.Lagging, state.Stale:
			some = true
			all = all && p.reached(k, pub.Generations[k], st)
		}
	}
	return some, some && all
}

// reached tells whether an old generation that a mirror holds is the given one or
// a later one.
func (p *propagation) reached(k state.Key, id state.GenerationID, st *state.Status) bool {
	held, known := st.Holds[k]
	t := p.truth(k)
	if !known || t == nil {
		return false
	}
	for _, g := range t.Generations { // newest first
		switch g.ID() {
		case held:
			return true
		case id:
			return false
		}
	}
	return false
}

// left forgets a mirror.
func (p *propagation) left(mirror string) {
	for _, s := range p.open {
		if _, ok := s.mirrors[mirror]; ok {
			delete(s.mirrors, mirror)
			s.news = true
		}
	}
}

// take adds what has changed since it was called last to what is to be stored;
// nil removes.
func (p *propagation) take(now time.Time, into map[string]*state.Publication) {
	for id, s := range p.open {
		pub := *p.all[id]
		after := now.Sub(pub.Time)
		over := after >= followFor
		if !s.news && !over {
			continue
		}
		s.news = false
		if over {
			pub.Generations = nil
			delete(p.open, id)
		} else {
			pub.Samples = append(slices.Clip(pub.Samples), s.sample(after))
			// The first one stays: a line begins where it began.
			if n := len(pub.Samples); n > 2 && sampleCell(after) == sampleCell(time.Duration(pub.Samples[n-2].After)*time.Second) {
				pub.Samples = slices.Delete(slices.Clone(pub.Samples), n-2, n-1)
			}
		}
		p.all[id], p.changed[id] = &pub, &pub
	}
	maps.Copy(into, p.changed)
	clear(p.changed)
}

func (s *spread) sample(after time.Duration) state.Sample {
	out := state.Sample{After: int64(after / time.Second), Continents: map[string]state.Share{}}
	for _, a := range s.mirrors {
		if !a.counts {
			continue
		}
		out.All.Add(a.has, a.mbits)
		c := out.Continents[a.continent]
		c.Add(a.has, a.mbits)
		out.Continents[a.continent] = c
	}
	return out
}
