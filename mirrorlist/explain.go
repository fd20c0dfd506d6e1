package mirrorlist

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"meridian/checker/state"
	"meridian/mirrorlist/geo"
	"meridian/schema"
)

// Explanation says why a client gets the list that it gets. It comes from the
// same decision as the list itself.
type Explanation struct {
	Client  ClientInfo `json:"client"`
	Version string     `json:"version"` // resolved
	Repo    string     `json:"repo"`
	Arch    string     `json:"arch,omitempty"`

	// Vault is the one answer for a version or repository kept on the vault.
	Vault string `json:"vault,omitempty"`

	Limit      int         `json:"limit"`
	Candidates []Candidate `json:"candidates"` // in order; the first Limit are listed
	Excluded   []Exclusion `json:"excluded"`   // by name

	// PrivateCandidates and PrivateExcluded count the private mirrors that were
	// left out of the two lists above, for a reader who may not see them.
	PrivateCandidates int `json:"private_candidates"`
	PrivateExcluded   int `json:"private_excluded"`
}

// ClientInfo is what routing knows of a client.
type ClientInfo struct {
	Address     string     `json:"address"`
	Place       *PlaceInfo `json:"place"` // null: not in the database
	PlaceSource string     `json:"place_source"`
	ASN         uint32     `json:"asn,omitempty"`
	ASNSource   string     `json:"asn_source"`
}

// PlaceInfo is a place in words.
type PlaceInfo struct {
	Country   string   `json:"country,omitempty"`
	Continent string   `json:"continent,omitempty"`
	State     string   `json:"state,omitempty"`
	City      string   `json:"city,omitempty"`
	Latitude  *float64 `json:"latitude"`
	Longitude *float64 `json:"longitude"`
}

// A Candidate is a mirror that may be listed, and what decided its position.
type Candidate struct {
	Position int    `json:"position"` // from 1
	Listed   bool   `json:"listed"`
	Mirror   string `json:"mirror"`
	URL      string `json:"url"`
	Tier     string `json:"tier"`
	Health   string `json:"health"`

	// Band is the number of whole 500 km between client and mirror; null outside
	// geographic tiers, and where a position is not known.
	Band       *int     `json:"band"`
	DistanceKm *int     `json:"distance_km"`
	Weight     int      `json:"weight"` // Mbit/s
	Private    bool     `json:"private,omitempty"`
	Reasons    []string `json:"reasons,omitempty"`
}

// An Exclusion is a mirror that is not listed, and why.
type Exclusion struct {
	Mirror  string `json:"mirror"`
	Reason  string `json:"reason"`
	Private bool   `json:"private,omitempty"`
}

// An Inquiry is a list that somebody wants explained: the parts of its request.
type Inquiry struct {
	Addr                    netip.Addr // invalid: a client without address
	Version, Repo           string
	Arch, Protocol, Country string
	UserAgent               string

	// All shows private mirrors too, which the public must not see.
	All bool
}

// Explain answers an inquiry. The error is for the one who asked.
func (s *Server) Explain(in Inquiry) (*Explanation, error) {
	return s.table.Load().explain(in)
}

// explain answers an inquiry.
func (t *Table) explain(in Inquiry) (*Explanation, error) {
	q, vault, no := t.listRequest(in.Version, in.Repo, in.UserAgent, params{arch: in.Arch, protocol: in.Protocol, country: in.Country})
	if no != nil {
		return nil, no
	}
	q.client = knownClient(in.Addr, t.secret)
	limit := t.limit
	q.now = t.now
	slot := &t.slots[q.slot]
	e := &Explanation{
		Client:  t.clientInfo(in.Addr),
		Version: string(slot.key.Version), Repo: slot.key.Repo, Arch: string(slot.key.Arch),
		Vault: vault, Limit: limit,
		Candidates: []Candidate{}, Excluded: []Exclusion{},
	}
	if vault != "" {
		return e, nil
	}
	// The whole order: a list is its beginning.
	q.limit, q.all = limit, true
	var s scratch
	t.decide(&q, &s)
	taken := newSet(len(t.mirrors))
	for i, p := range s.picks {
		taken.add(p.mirror)
		c := t.candidateInfo(&q, &s, p)
		c.Position, c.Listed = i+1, i < limit
		if c.Private && !in.All {
			e.PrivateCandidates++
			continue
		}
		e.Candidates = append(e.Candidates, c)
	}
	for i := range t.mirrors {
		if taken.has(uint16(i)) {
			continue
		}
		if t.mirrors[i].Private && !in.All {
			e.PrivateExcluded++
			continue
		}
		e.Excluded = append(e.Excluded, Exclusion{t.mirrors[i].Name, t.whyNot(&q, &s, uint16(i)), t.mirrors[i].Private})
	}
	return e, nil
}

// clientInfo describes an address.
func (t *Table) clientInfo(a netip.Addr) ClientInfo {
	c := ClientInfo{PlaceSource: "no database", ASNSource: "no database"}
	if a.IsValid() {
		c.Address = a.String()
	}
	if t.db.HasLocation() {
		c.PlaceSource = t.db.Type()
		c.Place = t.placeInfo(a)
	}
	if t.db.HasASN() {
		c.ASNSource = t.db.Type()
		c.ASN = t.db.ASN(a)
	}
	return c
}

// placeInfo returns the place of an address, or nil.
func (t *Table) placeInfo(a netip.Addr) *PlaceInfo {
	i := t.db.Find(a)
	if i == geo.NoPlace {
		return nil
	}
	p := t.db.Place(i)
	info := &PlaceInfo{Country: letters(p.Country), Continent: letters(p.Continent), State: p.State, City: p.City}
	if p.HasCoordinates {
		info.Latitude, info.Longitude = &p.Lat, &p.Lon
	}
	return info
}

func letters(c [2]byte) string { return strings.TrimRight(string(c[:]), "\x00") }

func (t *Table) candidateInfo(q *question, s *scratch, p pick) Candidate {
	m := &t.mirrors[p.mirror]
	c := Candidate{
		Mirror: m.Name, URL: string(t.appendURL(nil, q, p)), Tier: p.tier.String(),
		Weight: t.weights[p.mirror], Private: m.Private, Health: t.slotHealthName(q.slot, p.mirror),
	}
	if p.tier == tierCountry || p.tier == tierWorld {
		if b := int(p.key.rank()) % foreign; b != nowhere {
			c.Band = &b
		}
	}
	if m.at.known() && s.place != geo.NoPlace {
		if lat, lon, ok := t.position(s.place); ok {
			d := int(schema.Distance(lat, lon, m.lat, m.lon))
			c.DistanceKm = &d
		}
	}
	for _, why := range []struct {
		is   bool
		text string
	}{
		{p.flags&monopoly != 0, "wants its own clients for itself"},
		{p.key.sameASN(), "in the client's own ASN"},
		{p.key.sunk(), "lags behind the newest generation, so fresh ones of its band come first"},
		{p.flags&promoted != 0, "moved up because the client arrived over IPv6"},
		{p.flags&padded != 0, "outside the country that was asked for: fills the list"},
	} {
		if why.is {
			c.Reasons = append(c.Reasons, why.text)
		}
	}
	if p.flags&filled != 0 {
		if t.drain != nil && t.drain.has(p.mirror) {
			c.Reasons = append(c.Reasons, "is to be left, so it only fills the list"+t.because(p.mirror))
		} else {
			c.Reasons = append(c.Reasons, "holds a generation that was withdrawn, so it only fills the list")
		}
	}
	if w := t.bandwidth[p.mirror]; w != c.Weight {
		c.Reasons = append(c.Reasons, fmt.Sprintf("weighted by an administrator, in place of %d Mbit/s%s", w, t.because(p.mirror)))
	}
	if m.Anycast {
		c.Reasons = append(c.Reasons, "anycast: last in its band")
	}
	if m.from == fromCountry {
		c.Reasons = append(c.Reasons, "position not known: the middle of its country")
	}
	return c
}

// position returns where the clients of a place are, in degrees.
func (t *Table) position(place uint32) (lat, lon float64, ok bool) {
	p := t.db.Place(place)
	if p.HasCoordinates {
		return p.Lat, p.Lon, true
	}
	return schema.Centroid(string(p.Country[:]))
}

// slotHealthName says what is known of a mirror for a slot: the worst of its
// keys.
func (t *Table) slotHealthName(slot int, m uint16) string {
	if t.snap == nil {
		return state.Unknown.String()
	}
	worst := state.Fresh
	keys := t.slots[slot].keys
	if len(keys) == 0 {
		return state.Unknown.String()
	}
	for _, k := range keys {
		truth := t.snap.Truth[k]
		h, _, _ := verdict(t.status(m), k, &truth, t.live, t.public.has(m), t.network.AllowedOutdate, t.now)
		if badness(h) > badness(worst) {
			worst = h
		}
	}
	return worst.String()
}

// whyNot says why a mirror is not among the candidates.
func (t *Table) whyNot(q *question, s *scratch, i uint16) string {
	m := &t.mirrors[i]
	slot := &t.slots[q.slot]
	switch b := m.bases[q.tree]; {
	case b == (base{}) && q.tree > 0:
		return "has no address_optional." + t.trees[q.tree].name
	case b == (base{}):
		return "has no http or https address"
	case !slot.carry.has(i):
		return "does not carry " + strings.TrimSuffix(slot.key.String(), "/")
	case t.disabled(i):
		return "disabled by an administrator" + t.because(i)
	case slices.ContainsFunc(slot.keys, func(k state.Key) bool { return withdrawn(t.status(i).Override, k, t.now) }):
		return "withdrawn for this repository by an administrator" + t.because(i)
	case !t.health[q.slot].list.has(i):
		return "is " + t.slotHealthName(q.slot, i)
	case !t.ways[q.tree].schemes[q.want].has(i):
		return fmt.Sprintf("has no %s address", [...]string{"", "http", "https"}[q.want])
	case t.drain != nil && t.drain.has(i) && !t.public.has(i):
		return "is to be left" + t.because(i)
	case len(s.picks) == 1 && s.picks[0].flags&monopoly != 0:
		return "another mirror wants this client for itself"
	case t.serves(q.addr, s.asn, i):
		// Only public mirrors fill up a list of a country.
		return "not in the country that was asked for"
	case m.CloudType != "":
		return "in a cloud, and the client is not in its regions"
	case m.Private:
		return "private, and the client is in none of its networks"
	}
	return "ranked below the list"
}

// status returns what is known of a mirror; never nil.
func (t *Table) status(m uint16) *state.Status {
	if t.snap != nil {
		if st := t.snap.Mirrors[t.mirrors[m].Name]; st != nil {
			return st
		}
	}
	return &noStatus
}

func (t *Table) disabled(m uint16) bool {
	o := t.status(m).Override
	return inForce(o, t.now) && o.Disabled
}

// because returns the reason that an administrator gave, as the end of a
// sentence.
func (t *Table) because(m uint16) string {
	o := t.status(m).Override
	if o == nil || o.Reason == "" {
		return ""
	}
	return ": " + o.Reason
}

// serves reports whether an address is in one of the networks that a mirror is
// for.
func (t *Table) serves(a netip.Addr, asn uint32, i uint16) bool {
	return a.IsValid() && (slices.ContainsFunc(t.subnetsOf(geo.KeyOf(a)), func(on onSubnet) bool { return on.mirror == i }) ||
		slices.ContainsFunc(t.cloudsOf(geo.KeyOf(a)), func(on onCloud) bool { return on.mirror == i }) ||
		slices.Contains(t.asns[asn].declared, i))
}

// PrintJSON writes the explanation as the API gives it, indented.
func (e *Explanation) PrintJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(e)
}

// Print writes the explanation for a terminal.
func (e *Explanation) Print(w io.Writer) error {
	name := e.Version + "/" + e.Repo
	if e.Arch != "" {
		name += " " + e.Arch
	}
	fmt.Fprintf(w, "%s for %s\n", name, cmp.Or(e.Client.Address, "a client without address"))
	if p := e.Client.Place; p != nil {
		var parts []string
		for _, s := range []string{p.City, p.State, p.Country, p.Continent} {
			if s != "" {
				parts = append(parts, s)
			}
		}
		if p.Latitude != nil {
			parts = append(parts, fmt.Sprintf("(%.4f, %.4f)", *p.Latitude, *p.Longitude))
		}
		fmt.Fprintf(w, "place  %s, by %s\n", strings.Join(parts, " "), e.Client.PlaceSource)
	} else {
		fmt.Fprintf(w, "place  not known (%s)\n", e.Client.PlaceSource)
	}
	if e.Client.ASN != 0 {
		fmt.Fprintf(w, "ASN    %d, by %s\n", e.Client.ASN, e.Client.ASNSource)
	} else {
		fmt.Fprintf(w, "ASN    not known (%s)\n", e.Client.ASNSource)
	}
	if e.Vault != "" {
		_, err := fmt.Fprintf(w, "\nkept on the vault alone: %s\n", e.Vault)
		return err
	}
	listed := slices.IndexFunc(e.Candidates, func(c Candidate) bool { return !c.Listed })
	if listed < 0 {
		listed = len(e.Candidates)
	}
	if err := printList(w, e.Candidates[:listed]); err != nil {
		return err
	}
	if more := e.Candidates[listed:]; len(more) > 0 {
		fmt.Fprintf(w, "\nbehind the end of the list: %d more, the first is %s\n", len(more), more[0].name())
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(e.Excluded) > 0 {
		fmt.Fprintf(tw, "\nnot for this list:\n")
		for _, x := range e.Excluded {
			name := x.Mirror
			if x.Private {
				name += " (private)"
			}
			fmt.Fprintf(tw, "  %s\t%s\n", name, x.Reason)
		}
	}
	if n := e.PrivateCandidates + e.PrivateExcluded; n > 0 {
		fmt.Fprintf(tw, "\nprivate mirrors: %d, of which %d for this client\n", n, e.PrivateCandidates)
	}
	return tw.Flush()
}

// printList prints candidates as a table, each with its reasons below it.
func printList(w io.Writer, list []Candidate) error {
	if len(list) == 0 {
		_, err := fmt.Fprintf(w, "\nno mirror can be shown\n")
		return err
	}
	var rows strings.Builder
	tw := tabwriter.NewWriter(&rows, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "#\tmirror\ttier\tband\tkm\tMbit/s\thealth\turl\n")
	for _, c := range list {
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", c.Position, c.name(), c.Tier, number(c.Band), number(c.DistanceKm), c.Weight, c.Health, c.URL)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	head, rest, _ := strings.Cut(rows.String(), "\n")
	fmt.Fprintf(w, "\n%s\n", head)
	for _, c := range list {
		var row string
		row, rest, _ = strings.Cut(rest, "\n")
		fmt.Fprintln(w, row)
		for _, r := range c.Reasons {
			fmt.Fprintf(w, "     %s\n", r)
		}
	}
	return nil
}

// name is the name of a candidate for a terminal.
func (c *Candidate) name() string {
	if c.Private {
		return c.Mirror + " (private)"
	}
	return c.Mirror
}

func number(n *int) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

// badness orders the verdicts from good to bad.
func badness(h state.Health) int {
	return slices.Index([]state.Health{
		state.Fresh, state.Ahead, state.Unprobed, state.Lagging, state.Unknown, state.Pending,
		state.Absent, state.Stale, state.Down, state.Broken,
	}, h)
}
