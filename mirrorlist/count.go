package mirrorlist

import (
	"net/http"
	"os"

	"meridian/mirrorlist/stats"
)

// defaultListBytes is what a list is taken to lead its client to download from
// the first mirror where list_bytes does not say. It is an assumption: a list stands
// for half of a transaction, which asks twice, and most find nothing new.
// docs/OPERATING.md says how to measure it.
const defaultListBytes = 4_000_000

// everyRepo is the key of list_bytes for repositories that are not in it.
const everyRepo = "*"

// listBytes returns what one list of a repository leads to, in bytes.
func (c *Config) listBytes(repo string) uint64 {
	for _, key := range []string{repo, everyRepo} {
		if n, ok := c.ListBytes[key]; ok {
			return uint64(n)
		}
	}
	return defaultListBytes
}

// nodeName is the default of Config.Node: the name of this host.
func nodeName() string {
	name, err := os.Hostname()
	if err != nil || !stats.ValidNode(name) {
		return "node"
	}
	return name
}

// Statistics reads what all nodes have counted; nil without a place for it in the
// settings.
func (s *Server) Statistics() *stats.Reader { return s.statistics }

// statsLayout says what the numbers of slots and mirrors mean to statistics. The
// names of private mirrors stay out.
func statsLayout(g *geometry, cfg *Config) *stats.Layout {
	l := &stats.Layout{Slots: make([]stats.Slot, len(g.slots)), Mirrors: make([]string, len(g.mirrors))}
	for i := range g.slots {
		s := &g.slots[i]
		l.Slots[i] = stats.Slot{Version: string(s.key.Version), Repo: s.key.Repo, Arch: string(s.told), Bytes: cfg.listBytes(s.key.Repo)}
		if s.told == "" {
			l.Slots[i].Arch = stats.Unnamed
		}
	}
	for i := range g.mirrors {
		if l.Mirrors[i] = g.mirrors[i].Name; g.mirrors[i].Private {
			l.Mirrors[i] = stats.Private
		}
	}
	return l
}

// count counts the list that a request is answered with: sc holds the decision.
// Who asks for the header alone (HEAD) gets no list: no dnf does, and nothing
// follows.
func (t *Table) count(r *http.Request, slot int, p *params, sc *scratch) {
	if r.Method != http.MethodGet {
		return
	}
	t.slots[slot].served.Add(1)
	if t.tally == nil {
		return
	}
	t.tally.List(slot, stats.CountryOf(sc.home), int(sc.picks[0].mirror))
	if p.age != 0 {
		t.tally.Countme(slot, p.age, stats.SystemOf(r.UserAgent()))
	}
}

// countVault counts a list that is the vault alone, which takes no decision.
func (t *Table) countVault(r *http.Request, slot int, p *params) {
	if r.Method != http.MethodGet {
		return
	}
	t.slots[slot].served.Add(1)
	if t.tally == nil {
		return
	}
	var home [2]byte
	if c := clientOf(r, t.trusted, t.header, t.secret); c.addr.IsValid() {
		home = t.db.Country(t.db.Find(c.addr))
	}
	t.tally.ListOfVault(slot, stats.CountryOf(home))
	if p.age != 0 {
		t.tally.Countme(slot, p.age, stats.SystemOf(r.UserAgent()))
	}
}
