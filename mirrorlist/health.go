package mirrorlist

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"meridian/checker/state"
)

// findings are what a snapshot says of a network, arranged for requests.
type findings struct {
	snap *state.Snapshot // nil: nothing was ever checked
	live bool            // snap is young enough to be believed

	health  []slotHealth // by slot
	ipv6    set          // answered over IPv6, or has an AAAA record and was not tested
	drain   set          // administrators want them to be left; nil: none
	weights []int        // Mbit/s: the bandwidth, or what an administrator has put in its place
	ways    []addresses  // by tree: those of the geometry that work

	// until is when time alone changes the above; zero: never.
	until time.Time
}

// slotHealth is what is known of the mirrors for one slot.
type slotHealth struct {
	list  set  // may be listed
	lag   set  // of list: an older generation
	fill  set  // of list: only where the list is not full without
	fresh set  // of list: seen with the newest generation
	any   set  // may be listed when nothing else is left
	lags  bool // lag is not empty
	fills bool // fill is not empty

	// held says which generation each of lag has, by the number of the mirror,
	// where that is known. Of slots with one key.
	held []holding

	// gone is the answer to everybody, when there is nothing to list.
	gone *refusal
}

// A holding is a generation, as an index of Truth.Generations, on a mirror.
type holding struct {
	mirror, generation uint16
}

// holds returns which generation a lagging mirror has.
func (h *slotHealth) holds(m uint16) (generation int, known bool) {
	i, ok := slices.BinarySearchFunc(h.held, m, func(on holding, m uint16) int { return cmp.Compare(on.mirror, m) })
	if !ok {
		return 0, false
	}
	return int(h.held[i].generation), true
}

// newFindings arranges a snapshot at a moment. Without one, or with one that is
// too old to be believed, every health is Unknown, except that proven lies and
// the decisions of administrators are remembered.
func newFindings(g *geometry, snap *state.Snapshot, live bool, now time.Time) findings {
	f := findings{snap: snap, live: live, health: make([]slotHealth, len(g.slots)), ipv6: newSet(len(g.mirrors)), weights: g.bandwidth, ways: g.promised}
	statuses := make([]*state.Status, len(g.mirrors))
	for i := range g.mirrors {
		statuses[i] = &noStatus
		if snap != nil {
			if st := snap.Mirrors[g.mirrors[i].Name]; st != nil {
				statuses[i] = st
			}
		}
	}
	off := f.addOverrides(g, statuses, now)
	for i := range g.mirrors {
		if r := statuses[i].IPv6; r == state.Reached || r == state.Untested && len(g.mirrors[i].addrs.V6) > 0 {
			f.ipv6.add(uint16(i))
		}
	}
	if live {
		f.addWays(g, statuses)
	}
	for i := range g.slots {
		f.addSlot(g, i, statuses, off, now)
	}
	return f
}

// changesAt notes a moment at which findings change by themselves.
func (f *findings) changesAt(when time.Time) {
	if f.until.IsZero() || when.Before(f.until) {
		f.until = when
	}
}

// addOverrides takes what administrators decided. It returns the mirrors that
// are disabled, nil for none.
func (f *findings) addOverrides(g *geometry, statuses []*state.Status, now time.Time) (off set) {
	for i, st := range statuses {
		o := st.Override
		if !inForce(o, now) {
			continue
		}
		if !o.Until.IsZero() {
			f.changesAt(o.Until)
		}
		if o.Weight > 0 && o.Weight != g.bandwidth[i] {
			if &f.weights[0] == &g.bandwidth[0] {
				f.weights = slices.Clone(g.bandwidth)
			}
			f.weights[i] = o.Weight
		}
		if !o.Disabled && !o.Draining {
			continue
		}
		into := &f.drain
		if o.Disabled {
			into = &off
		}
		if *into == nil {
			*into = newSet(len(g.mirrors))
		}
		into.add(uint16(i))
	}
	return off
}

// addWays leaves out the schemes that were seen not to work. A mirror keeps what
// it promises when nothing works: that is for its health to say.
func (f *findings) addWays(g *geometry, statuses []*state.Status) {
	dead := func(i int) (http, https bool) {
		is := func(name string) bool {
			s := statuses[i].Schemes[name]
			return s != nil && s.Works == state.Unreached
		}
		return is("http"), is("https")
	}
	if !slices.ContainsFunc(statuses, func(st *state.Status) bool {
		for _, s := range st.Schemes {
			if s != nil && s.Works == state.Unreached {
				return true
			}
		}
		return false
	}) {
		return
	}
	f.ways = make([]addresses, len(g.trees))
	for t := range g.trees {
		f.ways[t] = newAddresses(len(g.mirrors), func(i int) base {
			b := g.mirrors[i].bases[t]
			left := b
			http, https := dead(i)
			if http {
				left.http = ""
			}
			if https {
				left.https = ""
			}
			if left == (base{}) {
				return b
			}
			return left
		})
	}
}

// addSlot says what is known of the mirrors for one slot.
func (f *findings) addSlot(g *geometry, i int, statuses []*state.Status, off set, now time.Time) {
	s, h := &g.slots[i], &f.health[i]
	h.gone = f.goneFor(s)
	if f.snap == nil || len(s.keys) == 0 {
		*h = slotHealth{list: s.carry, any: s.carry, lag: g.none, fill: g.none, fresh: g.none, gone: h.gone}
		if off != nil {
			h.list = newSet(len(g.mirrors))
			h.list.without(s.carry, off)
			h.any = h.list
		}
		if f.drain != nil {
			h.fill, h.fills = newSet(len(g.mirrors)), true
			h.fill.and(h.list, f.drain)
		}
		return
	}
	// One piece of memory: a request reads several of them.
	n := len(s.carry)
	all := make(set, 5*n)
	h.list, h.lag, h.fill, h.fresh, h.any = all[:n:n], all[n:2*n:2*n], all[2*n:3*n:3*n], all[3*n:4*n:4*n], all[4*n:]
	truths := make([]state.Truth, len(s.keys))
	for j, k := range s.keys {
		truths[j] = f.snap.Truth[k]
	}
	outdate := g.network.AllowedOutdate
	s.carry.each(func(m uint16) {
		if off != nil && off.has(m) {
			return
		}
		st := statuses[m]
		list, lag, any, fresh, expired := true, false, true, true, false
		generation := -1
		for j, k := range s.keys {
			truth := &truths[j]
			health, old, ends := verdict(st, k, truth, f.live, g.public.has(m), outdate, now)
			if withdrawn(st.Override, k, now) {
				list, any = false, false
			}
			if !ends.IsZero() {
				f.changesAt(ends)
			}
			fresh = fresh && health == state.Fresh
			switch health {
			case state.Lagging:
				lag, generation = true, old
				expired = expired || truth.Expired || old > 0 && truth.Generations[old].Expired
			case state.Broken:
				list, any = false, false
			default:
				list = list && health.Listable()
			}
		}
		if any {
			h.any.add(m)
		}
		if !list {
			return
		}
		h.list.add(m)
		if fresh {
			h.fresh.add(m)
		}
		if lag {
			h.lag.add(m)
			h.lags = true
			if len(s.keys) == 1 && generation > 0 {
				h.held = append(h.held, holding{m, uint16(min(generation, 1<<16-1))})
			}
		}
		if lag && expired || f.drain != nil && f.drain.has(m) {
			h.fill.add(m)
			h.fills = true
		}
	})
}

// goneFor returns the answer to who asks for what an administrator has
// withdrawn, or for what neither the network file nor the origin has.
func (f *findings) goneFor(s *slot) *refusal {
	if f.snap == nil {
		return nil
	}
	of := s.key.Repo + " of " + string(s.key.Version)
	if s.key.Arch != "" {
		of += " for " + string(s.key.Arch)
	}
	if len(s.excluded) > 0 && f.live && !slices.ContainsFunc(s.excluded, func(k state.Key) bool { return !f.snap.Truth[k].Absent }) {
		return &refusal{http.StatusNotFound, "There is no " + of + ": neither the network file nor the origin has it", true}
	}
	keys := s.keys
	if len(keys) == 0 {
		keys = []state.Key{s.key}
	}
	reason := ""
	for _, k := range keys {
		if reason = f.snap.Truth[k].Withdrawn; reason == "" {
			return nil
		}
	}
	return &refusal{http.StatusNotFound, of + " is withdrawn: " + reason, true}
}

// verdict is what is known of a mirror for one key at a moment. Of one that lags
// it says which generation the mirror holds, 0 if that is not known, and when that
// one is too old. The checker says Stale when it looks; a clock does not wait.
func verdict(st *state.Status, k state.Key, truth *state.Truth, live, public bool, outdate time.Duration, now time.Time) (h state.Health, generation int, ends time.Time) {
	h = healthOf(st, k, live, public)
	if h != state.Lagging {
		return h, 0, time.Time{}
	}
	id, known := st.Holds[k]
	if !known {
		return h, 0, time.Time{}
	}
	generation = slices.IndexFunc(truth.Generations, func(g state.Generation) bool { return g.ID() == id })
	if generation < 1 {
		return h, 0, time.Time{}
	}
	if outdate > 0 {
		if ends = truth.Generations[generation-1].FirstSeen.Add(outdate); !now.Before(ends) {
			return state.Stale, generation, time.Time{}
		}
	}
	return h, generation, ends
}

// inForce reports whether a decision of an administrator holds now.
func inForce(o *state.Override, now time.Time) bool {
	return o != nil && (o.Until.IsZero() || now.Before(o.Until))
}

// withdrawn reports whether an administrator took a key from a mirror.
func withdrawn(o *state.Override, k state.Key, now time.Time) bool {
	return inForce(o, now) && slices.Contains(o.Withdrawn, k)
}

// healthOf says what a snapshot tells of a mirror for one key. From one that is
// no longer live, only proven lies are remembered.
func healthOf(st *state.Status, k state.Key, live, public bool) state.Health {
	h, ok := st.Health[k]
	switch {
	case !live && h == state.Broken:
		return state.Broken
	case !live:
		return state.Unknown
	case ok:
		return h
	case k.Repo == isoRepo:
		return state.Unknown // asked for once a day: a list before that beats none
	case public:
		return state.Pending
	}
	return state.Unprobed
}

var noStatus state.Status

// isoRepo is the Repo in the key of a set of ISO images.
const isoRepo = "isos"
