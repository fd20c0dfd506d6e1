package mirrorlist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"text/tabwriter"
	"time"

	"meridian/checker/state"
	"meridian/mirrorlist/stats"
)

// A simulation asks what clients would, with the decision of the server itself,
// and adds up who is first in the answers.

// A Demand is what one client asks for.
type Demand struct {
	// Addr is the client's; invalid for one that has no place.
	Addr netip.Addr

	// Version and Repo name the list; empty, the first of the network. Arch may be
	// empty.
	Version, Repo, Arch string

	// Lists is how many it asks for in a day.
	Lists float64
}

// A Simulation is what each mirror would be sent in a day. It depends on the
// settings, the network, the mirrors, the demand and, if there are any, the
// findings, as they were when they were taken. It depends on nothing else: no time,
// and no order in which things happen.
type Simulation struct {
	// Lists that were answered in a day, and how many of them began with another
	// mirror after the change.
	Lists float64 `json:"lists"`
	Moved float64 `json:"moved"`

	// NoPlace are those of clients whose place is not known; Empty those for which
	// there was no mirror.
	NoPlace float64 `json:"no_place"`
	Empty   float64 `json:"empty"`

	// Refused are lists that cannot be asked for, by the reason.
	Refused map[string]float64 `json:"refused,omitempty"`

	// Mirrors are all that are in the network before or after the change, by name,
	// and the vault.
	Mirrors []SimulatedMirror `json:"mirrors"`

	// Changed: there are two networks to compare.
	Changed bool `json:"changed"`
}

// A SimulatedMirror is what one mirror would be sent.
type SimulatedMirror struct {
	Name      string `json:"name"`
	Country   string `json:"country,omitempty"`
	Private   bool   `json:"private,omitempty"`
	Bandwidth int    `json:"bandwidth_mbits"` // after the change, if there is one

	// Before and After are nil where the mirror is not in the network; without a
	// change there is no After.
	Before *Sent `json:"before"`
	After  *Sent `json:"after,omitempty"`
}

// Sent is what a mirror is sent in a day: of all lists, those that it is the
// first of.
type Sent struct {
	Lists float64 `json:"lists"`
	Share float64 `json:"share"` // of all lists, 0 to 1
	Bytes float64 `json:"bytes"`
	Mbits float64 `json:"mbits"` // per second, over the whole day
}

// simulatedDay is the day of all simulations: the weighted orders of its hours
// are as good as those of any other.
var simulatedDay = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const (
	hoursOfDay = 24

	// simulatedQuestions is about how many questions few clients ask, in as many
	// different hours as that takes: the order among equals is another one in each.
	simulatedQuestions = 1_000_000

	// manyDemands is from where on it pays to compute all orders first.
	manyDemands = 20_000

	// simulatedChunk is how many demands are added up at a time. It is fixed, so
	// that sums do not depend on the number of processors.
	simulatedChunk = 4096
)

// Simulate adds up what each mirror is sent by a day of demand. With after, which
// has the same network and other mirrors, it compares the two. Neither server
// needs to run. Mirrors are as healthy as the findings of s say, in both, and all
// are taken to be well where s has none; so are those that findings do not have yet.
func (s *Server) Simulate(ctx context.Context, demand []Demand, after *Server) (*Simulation, error) {
	if len(demand) == 0 {
		return nil, errors.New("nobody asks for anything: there are no clients to simulate")
	}
	out := &Simulation{Changed: after != nil}
	kinds, of, err := kindsOf(s.table.Load(), demand, out)
	if err != nil {
		return nil, err
	}
	snap := s.table.Load().snap
	scenarios := []*scenario{newScenario(s, snap, kinds, len(demand))}
	if after != nil {
		scenarios = append(scenarios, newScenario(after, snap, kinds, len(demand)))
	}
	rounds := max(1, min(hoursOfDay, simulatedQuestions/len(demand)))
	turn := make([]int, 0, len(demand)*rounds/hoursOfDay+1)
	for hour := range hoursOfDay {
		turn = turn[:0]
		for i := range demand {
			if (hour+i)%hoursOfDay < rounds && kinds[of[i]].refusal == "" {
				turn = append(turn, i)
			}
		}
		for _, v := range scenarios {
			v.enter(hour)
		}
		chunks := slices.Collect(slices.Chunk(turn, simulatedChunk))
		sums := make([]chunkSum, len(chunks))
		var wg sync.WaitGroup
		next := make(chan int)
		for range min(runtime.GOMAXPROCS(0), len(chunks)) {
			wg.Go(func() {
				scratches := make([]scratch, len(scenarios))
				for i := range next {
					sums[i] = sumOf(scenarios, scratches, demand, of, chunks[i], 1/float64(rounds))
				}
			})
		}
		for i := range chunks {
			if ctx.Err() != nil {
				break
			}
			next <- i
		}
		close(next)
		wg.Wait()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for i := range sums { // in order: sums of fractions depend on it
			out.Lists += sums[i].lists
			out.Moved += sums[i].moved
			out.NoPlace += sums[i].noPlace
			out.Empty += sums[i].empty
			for k, v := range scenarios {
				for m, sent := range sums[i].scenarios[k] {
					v.sent[m].Lists += sent.Lists
					v.sent[m].Bytes += sent.Bytes
				}
			}
		}
	}
	out.Mirrors = sideBySide(scenarios, out.Lists)
	return out, nil
}

// A kind is what some of the demand is for.
type kind struct {
	version, repo, arch string
	refusal             string // "" for what can be asked for
}

// kindsOf tells the different kinds of a demand apart: of has the place of each in
// kinds. What is refused is counted.
func kindsOf(t *Table, demand []Demand, out *Simulation) (kinds []kind, of []int32, err error) {
	numbers := map[kind]int32{}
	repo, version := t.exampleNames()
	of = make([]int32, len(demand))
	for i := range demand {
		d := &demand[i]
		if d.Lists < 0 || math.IsNaN(d.Lists) || math.IsInf(d.Lists, 0) {
			return nil, nil, fmt.Errorf("a client asks for %v lists a day; write a number from 0", d.Lists)
		}
		k := kind{version: cmp.Or(d.Version, version), repo: cmp.Or(d.Repo, repo), arch: d.Arch}
		n, ok := numbers[k]
		if !ok {
			n = int32(len(kinds))
			numbers[k] = n
			if _, _, no := t.listRequest(k.version, k.repo, "", params{arch: k.arch}); no != nil {
				k.refusal = no.text
			}
			kinds = append(kinds, k)
		}
		of[i] = n
		if no := kinds[n].refusal; no != "" {
			if out.Refused == nil {
				out.Refused = map[string]float64{}
			}
			out.Refused[no] += d.Lists
		}
	}
	return kinds, of, nil
}

// A scenario is one network, moved from hour to hour.
type scenario struct {
	Table
	asked []question // by kind, without a client
	vault []bool     // by kind
	bytes []float64  // of one list, by kind
	sent  []Sent     // by mirror, the vault last
}

func newScenario(s *Server, snap *state.Snapshot, kinds []kind, demands int) *scenario {
	v := &scenario{Table: *s.table.Load()}
	if snap == nil {
		v.findings = newFindings(v.geometry, nil, false, simulatedDay)
	} else {
		v.findings = newFindings(v.geometry, withNewcomers(v.geometry, snap), true, snap.Taken)
	}
	v.sent = make([]Sent, len(v.mirrors)+1)
	if v.orders == nil && v.db.HasLocation() && demands >= manyDemands {
		// Not those that are saved, nor to be saved: they are of a network that is
		// only thought of.
		v.orders = v.newOrders()
	}
	for _, k := range kinds {
		q, vault, _ := v.listRequest(k.version, k.repo, "", params{arch: k.arch})
		q.limit = v.limit
		v.asked = append(v.asked, q)
		v.vault = append(v.vault, vault != "")
		v.bytes = append(v.bytes, float64(s.opts.Config.listBytes(k.repo)))
	}
	return v
}

// withNewcomers returns findings in which mirrors that have not been visited yet
// have everything: a server would not list them before, and what they will be sent
// is the question.
func withNewcomers(g *geometry, snap *state.Snapshot) *state.Snapshot {
	all := *snap
	all.Mirrors = maps.Clone(snap.Mirrors)
	well := &state.Status{Health: map[state.Key]state.Health{}}
	for i := range g.slots {
		for _, k := range g.slots[i].keys {
			well.Health[k] = state.Fresh
		}
	}
	for i := range g.mirrors {
		if m := &g.mirrors[i]; all.Mirrors[m.Name] == nil && !m.Private {
			if all.Mirrors == nil {
				all.Mirrors = map[string]*state.Status{}
			}
			all.Mirrors[m.Name] = well
		}
	}
	return &all
}

// enter moves the scenario to an hour, which all classes of clients enter at once.
func (v *scenario) enter(hour int) {
	v.now = simulatedDay.Add(time.Duration(hour) * time.Hour)
	v.draws = draws{newDraw(hourOf(v.now, 0), v.names, v.weights, v.secret)}
}

// first returns the number of the mirror that a client is sent to, that of the
// vault, or -1.
func (v *scenario) first(kind int32, c client, sc *scratch) int {
	if v.vault[kind] {
		return len(v.mirrors)
	}
	q := v.asked[kind]
	q.client, q.now = c, v.now
	if v.decide(&q, sc); len(sc.picks) == 0 {
		return -1
	}
	return int(sc.picks[0].mirror)
}

// name returns the name of a number that first returned.
func (v *scenario) name(m int) string {
	switch {
	case m < 0:
		return ""
	case m == len(v.mirrors):
		return stats.Vault
	}
	return v.mirrors[m].Name
}

// A chunkSum is what some demands add up to.
type chunkSum struct {
	lists, moved, noPlace, empty float64
	scenarios                    [][]Sent
}

// sumOf asks for the demands that are named, each for a part of its lists.
func sumOf(scenarios []*scenario, scratches []scratch, demand []Demand, of []int32, named []int, part float64) chunkSum {
	var sum chunkSum
	for _, v := range scenarios {
		sum.scenarios = append(sum.scenarios, make([]Sent, len(v.sent)))
	}
	for _, i := range named {
		n := demand[i].Lists * part
		var before string
		for k, v := range scenarios {
			c := knownClient(demand[i].Addr, v.secret)
			if !demand[i].Addr.IsValid() {
				c = namelessClient(strconv.Itoa(i), v.secret)
			}
			m := v.first(of[i], c, &scratches[k])
			if m >= 0 {
				sum.scenarios[k][m].Lists += n
				sum.scenarios[k][m].Bytes += n * v.bytes[of[i]]
			}
			if k == 0 {
				if before = v.name(m); m < 0 {
					sum.empty += n
				} else {
					sum.lists += n
				}
				if !v.vault[of[i]] && scratches[k].home == ([2]byte{}) {
					sum.noPlace += n
				}
			} else if v.name(m) != before {
				sum.moved += n
			}
		}
	}
	return sum
}

// sideBySide lists all mirrors by name, with what each was sent.
func sideBySide(scenarios []*scenario, lists float64) []SimulatedMirror {
	all := map[string]*SimulatedMirror{}
	for k, v := range scenarios {
		for m, sent := range v.sent {
			name := v.name(m)
			if m == len(v.mirrors) && sent.Lists == 0 {
				continue // nobody asked for what is on the vault
			}
			sent.Share = sent.Lists / max(lists, math.SmallestNonzeroFloat64)
			sent.Mbits = sent.Bytes * 8 / 86400 / 1e6
			s := all[name]
			if s == nil {
				s = &SimulatedMirror{Name: name}
				all[name] = s
			}
			if m < len(v.mirrors) {
				s.Country, s.Private, s.Bandwidth = letters(v.mirrors[m].country), v.mirrors[m].Private, v.weights[m]
			}
			if k == 0 {
				s.Before = &sent
			} else {
				s.After = &sent
			}
		}
	}
	out := make([]SimulatedMirror, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, *all[name])
	}
	return out
}

// Gain is how much larger the part of all lists is after the change, -1 to 1.
func (m *SimulatedMirror) Gain() float64 {
	var before, after float64
	if m.Before != nil {
		before = m.Before.Share
	}
	if m.After != nil {
		after = m.After.Share
	}
	return after - before
}

// Print writes the simulation for a terminal: who is sent most first; with a
// change, who gains most first and who loses most last, and nobody for whom
// nothing changes.
func (s *Simulation) Print(w io.Writer) error {
	fmt.Fprintf(w, "%s lists a day, %s of clients without place", count(s.Lists), percent(s.NoPlace/max(1, s.Lists)))
	if s.Empty > 0 {
		fmt.Fprintf(w, "; %s more for which there is no mirror", count(s.Empty))
	}
	fmt.Fprintln(w)
	for _, reason := range slices.Sorted(maps.Keys(s.Refused)) {
		fmt.Fprintf(w, "%s lists are refused: %s\n", count(s.Refused[reason]), reason)
	}
	mirrors := slices.Clone(s.Mirrors)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if !s.Changed {
		slices.SortStableFunc(mirrors, func(a, b SimulatedMirror) int { return cmp.Compare(b.Before.Share, a.Before.Share) })
		fmt.Fprintf(tw, "\nmirror\t\tshare\tMbit/s\tof its bandwidth\n")
		for i := range mirrors {
			m := &mirrors[i]
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", m.title(), m.Country, m.Before, m.used(m.Before))
		}
		return tw.Flush()
	}
	fmt.Fprintf(w, "%s of the lists begin with another mirror after the change\n", percent(s.Moved/max(1, s.Lists)))
	slices.SortStableFunc(mirrors, func(a, b SimulatedMirror) int { return cmp.Compare(b.Gain(), a.Gain()) })
	fmt.Fprintf(tw, "\nmirror\t\tchange\tbefore\tMbit/s\tafter\tMbit/s\tof its bandwidth\n")
	same := 0
	for i := range mirrors {
		m := &mirrors[i]
		if m.Gain() == 0 && m.Before != nil && m.After != nil {
			same++
			continue
		}
		fmt.Fprintf(tw, "%s\t%s\t%+.2f %%\t%s\t%s\t%s\n", m.title(), m.Country, 100*m.Gain(), m.Before, m.After, m.used(m.After))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nnothing changes for %d others\n", same)
	return err
}

// String is two cells of a table: the share, and Mbit/s.
func (s *Sent) String() string {
	if s == nil {
		return "-\t-"
	}
	return fmt.Sprintf("%s\t%.1f", percent(s.Share), s.Mbits)
}

// used says which part of its bandwidth a mirror needs.
func (m *SimulatedMirror) used(s *Sent) string {
	if s == nil || m.Bandwidth == 0 {
		return "-"
	}
	return percent(s.Mbits / float64(m.Bandwidth))
}

func (m *SimulatedMirror) title() string {
	if m.Private {
		return m.Name + " (private)"
	}
	return m.Name
}

func percent(x float64) string { return fmt.Sprintf("%.2f %%", 100*x) }

// count prints a number of lists, rounded, with its thousands apart.
func count(x float64) string {
	s := strconv.FormatInt(int64(math.Round(x)), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
