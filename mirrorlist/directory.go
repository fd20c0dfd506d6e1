package mirrorlist

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"meridian/checker/state"
	"meridian/schema"
)

// A directory is every mirror that is not private, with what tables of mirrors
// show of it: computed once for each state of the network, since a thousand
// mirrors have two hundred verdicts each.
type directory struct {
	geometry *geometry
	health   *slotHealth // the first of the findings that it was made of
	cards    []card      // by name
}

// A card is one mirror of a directory.
type card struct {
	mirror uint16
	health state.Health // as a whole
	ipv4   bool

	// behind is since when there is something newer than what it was seen with;
	// zero where that is not so, or not known.
	behind time.Time

	// text is what a search looks through, in lower case.
	text string
}

// shelf keeps the last directory.
type shelf struct {
	mu   sync.Mutex // guards last
	last *directory
}

// directory returns that of a table.
func (s *Server) directory(t *Table) *directory {
	s.shelf.mu.Lock()
	defer s.shelf.mu.Unlock()
	var first *slotHealth
	if len(t.health) > 0 {
		first = &t.health[0]
	}
	if d := s.shelf.last; d != nil && d.geometry == t.geometry && d.health == first {
		return d
	}
	d := &directory{geometry: t.geometry, health: first}
	for i := range t.mirrors {
		m := &t.mirrors[i]
		if m.Private {
			continue
		}
		st := t.status(uint16(i))
		e := card{mirror: uint16(i), ipv4: st.IPv4 == state.Reached || st.IPv4 == state.Untested && len(m.addrs.V4) > 0}
		e.health, e.behind = t.overall(uint16(i))
		e.text = strings.ToLower(strings.Join([]string{m.Name, m.Sponsor, m.Location.City, m.Location.State, countryName(m.country), letters(m.country)}, "\n"))
		d.cards = append(d.cards, e)
	}
	s.shelf.last = d
	return d
}

// overall says what is known of a mirror as a whole: the worst of its keys, and
// since when the oldest of what it holds has a successor. A repository that it
// never had is nothing bad, as long as it has others.
func (t *Table) overall(m uint16) (worst state.Health, behind time.Time) {
	if t.snap == nil {
		return state.Unknown, time.Time{}
	}
	st := t.status(m)
	public := t.public.has(m)
	if len(st.Health) == 0 {
		switch {
		case !t.live:
			return state.Unknown, time.Time{}
		case public:
			return state.Pending, time.Time{}
		}
		return state.Unprobed, time.Time{}
	}
	has := false
	worst = state.Absent
	for k := range st.Health {
		truth := t.snap.Truth[k]
		h, generation, _ := verdict(st, k, &truth, t.live, public, t.network.AllowedOutdate, t.now)
		if h == state.Absent || h == state.Unknown && k.Repo == isoRepo {
			continue
		}
		if !has || badness(h) > badness(worst) {
			has, worst = true, h
		}
		if h != state.Lagging && h != state.Stale {
			continue
		}
		since := truth.Superseded(st.Holds[k])
		if generation > 0 {
			since = truth.Generations[generation-1].FirstSeen
		}
		if !since.IsZero() && (behind.IsZero() || since.Before(behind)) {
			behind = since
		}
	}
	return worst, behind
}

// mirrorHealth names the health of a mirror as a whole.
func (t *Table) mirrorHealth(m uint16) string {
	h, _ := t.overall(m)
	return h.String()
}

// lag is how long a mirror has been behind.
func (e *card) lag(now time.Time) time.Duration {
	if e.behind.IsZero() {
		return 0
	}
	return max(0, now.Sub(e.behind))
}

// A mirrorQuery chooses mirrors out of a directory, and their order. The zero
// value chooses all, by name.
type mirrorQuery struct {
	text     []string // each is somewhere in it
	country  [2]byte
	health   string
	protocol string
	family   string

	sort string // one of mirrorSorts; "" is name
	down bool
}

// The values of parameters that choose mirrors.
var (
	mirrorSorts     = []string{"name", "sponsor", "health", "country", "city", "bandwidth", "frequency", "lag"}
	mirrorProtocols = []string{"http", "https", "rsync", "ftp"}
	mirrorFamilies  = []string{"ipv4", "ipv6"}
	healthNames     = func() (names []string) {
		for h := state.Unknown; h <= state.Unprobed; h++ {
			names = append(names, h.String())
		}
		return names
	}()
)

// parseMirrorQuery reads the parameters of a table of mirrors.
func parseMirrorQuery(v url.Values) (q mirrorQuery, no *refusal) {
	q.text = strings.Fields(strings.ToLower(clip(v.Get("q"))))
	if q.country, no = parseCountry(v.Get("country")); no != nil {
		return q, no
	}
	for _, p := range []struct {
		name string
		into *string
		of   []string
	}{
		{"health", &q.health, healthNames}, {"protocol", &q.protocol, mirrorProtocols},
		{"family", &q.family, mirrorFamilies}, {"sort", &q.sort, mirrorSorts},
	} {
		*p.into = strings.ToLower(v.Get(p.name))
		if *p.into != "" && !slices.Contains(p.of, *p.into) {
			return q, badRequest("unknown %s %q: write one of %s, or leave it out", p.name, clip(v.Get(p.name)), strings.Join(p.of, ", "))
		}
	}
	switch v.Get("order") {
	case "", "asc":
	case "desc":
		q.down = true
	default:
		return q, badRequest("unknown order %q: write order=asc or order=desc, or leave it out", clip(v.Get("order")))
	}
	return q, nil
}

// find returns the cards that a query chooses, in its order.
func (d *directory) find(t *Table, q *mirrorQuery, keep func(*card) bool) []card {
	var found []card
	for i := range d.cards {
		if e := &d.cards[i]; keep(e) && q.takes(t, e) {
			found = append(found, *e)
		}
	}
	compare := d.order(t, q.sort)
	if compare == nil {
		if q.down {
			slices.Reverse(found)
		}
		return found
	}
	// What a mirror does not say comes last in either direction; among equals the
	// name decides.
	slices.SortStableFunc(found, func(a, b card) int {
		n, last := compare(&a, &b)
		if q.down && !last {
			return -n
		}
		return n
	})
	return found
}

func (q *mirrorQuery) takes(t *Table, e *card) bool {
	m := &t.mirrors[e.mirror]
	for _, word := range q.text {
		if !strings.Contains(e.text, word) {
			return false
		}
	}
	if q.country != ([2]byte{}) && m.country != q.country || q.health != "" && e.health.String() != q.health {
		return false
	}
	switch q.protocol {
	case "http":
		return m.Address.HTTP != "" && q.reaches(t, e)
	case "https":
		return m.Address.HTTPS != "" && q.reaches(t, e)
	case "rsync":
		return m.Address.Rsync != "" && q.reaches(t, e)
	case "ftp":
		return m.Address.FTP != "" && q.reaches(t, e)
	}
	return q.reaches(t, e)
}

func (q *mirrorQuery) reaches(t *Table, e *card) bool {
	switch q.family {
	case "ipv4":
		return e.ipv4
	case "ipv6":
		return t.ipv6.has(e.mirror)
	}
	return true
}

// order compares cards by one of mirrorSorts, and says whether an empty value
// has decided; nil is by name.
func (d *directory) order(t *Table, by string) func(a, b *card) (n int, last bool) {
	texts := func(of func(m *mirror) string) func(a, b *card) (int, bool) {
		return func(a, b *card) (int, bool) {
			x, y := of(&t.mirrors[a.mirror]), of(&t.mirrors[b.mirror])
			if (x == "") != (y == "") {
				return cmp.Compare(len(y), len(x)), true
			}
			return strings.Compare(strings.ToLower(x), strings.ToLower(y)), false
		}
	}
	switch by {
	case "sponsor":
		return texts(func(m *mirror) string { return m.Sponsor })
	case "country":
		return texts(func(m *mirror) string { return countryName(m.country) })
	case "city":
		return texts(func(m *mirror) string { return m.Location.City })
	case "health":
		return func(a, b *card) (int, bool) { return cmp.Compare(badness(a.health), badness(b.health)), false }
	case "bandwidth":
		return func(a, b *card) (int, bool) {
			return cmp.Compare(t.mirrors[a.mirror].Bandwidth, t.mirrors[b.mirror].Bandwidth), false
		}
	case "frequency":
		return func(a, b *card) (int, bool) {
			return cmp.Compare(t.mirrors[a.mirror].UpdateFrequency, t.mirrors[b.mirror].UpdateFrequency), false
		}
	case "lag":
		return func(a, b *card) (int, bool) { return cmp.Compare(a.lag(t.now), b.lag(t.now)), false }
	}
	return nil
}

// countryName is what people call a country.
func countryName(c [2]byte) string {
	return cmp.Or(schema.CountryName(letters(c)), letters(c))
}
