package mirrorlist

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"meridian/schema"
)

// The API structs are small and own: what is not copied here does not leave the
// server. Private mirrors, subnets and e-mail addresses are never copied. Their
// doc tags, with the types, are what openapi.json says of them.

// apiMirror is one mirror of those that are not private.
type apiMirror struct {
	Name            string                `json:"name" doc:"identifies the mirror; by convention its host name"`
	Sponsor         string                `json:"sponsor"`
	SponsorURL      string                `json:"sponsor_url,omitempty"`
	URLs            apiAddress            `json:"urls" doc:"base URLs of the main tree, by protocol: http, https, rsync, ftp"`
	Modules         map[string]apiAddress `json:"modules,omitempty" doc:"base URLs of optional trees, by module"`
	UpdateFrequency string                `json:"update_frequency" doc:"how often it syncs, such as 3h"`
	Country         string                `json:"country,omitempty" doc:"ISO 3166-1 alpha-2"`
	State           string                `json:"state_province,omitempty"`
	City            string                `json:"city,omitempty"`
	Latitude        *float64              `json:"latitude" doc:"degrees; null where not known"`
	Longitude       *float64              `json:"longitude"`
	PositionFrom    string                `json:"position_from" doc:"file, address, country or none"`
	Bandwidth       int                   `json:"bandwidth_mbits" doc:"its weight among equals"`
	IPv4            bool                  `json:"ipv4" doc:"answers over IPv4, or has such an address and was not tried"`
	IPv6            bool                  `json:"ipv6"`
	ASN             uint32                `json:"asn,omitempty"`
	Cloud           string                `json:"cloud,omitempty" doc:"aws, azure, gcp or oci: listed only to clients in it"`
	CloudRegions    []string              `json:"cloud_regions,omitempty"`
	Anycast         bool                  `json:"anycast,omitempty"`
	ISOs            bool                  `json:"isos" doc:"promises to have the ISO images"`
	Health          string                `json:"health" doc:"the worst of its repositories: fresh, ahead, lagging, stale, broken, absent, down, pending, unprobed or unknown"`
	BehindSince     *time.Time            `json:"behind_since,omitempty" doc:"when the oldest of what it was seen with was superseded"`
}

type apiAddress map[string]string

func addressOf(a schema.Address) apiAddress {
	out := apiAddress{}
	for _, u := range []struct{ scheme, url string }{{"http", a.HTTP}, {"https", a.HTTPS}, {"rsync", a.Rsync}, {"ftp", a.FTP}} {
		if u.url != "" {
			out[u.scheme] = u.url
		}
	}
	return out
}

func (t *Table) apiMirror(e *card) apiMirror {
	i := e.mirror
	m := &t.mirrors[i]
	info := apiMirror{
		Name: m.Name, Sponsor: m.Sponsor, SponsorURL: m.SponsorURL, URLs: addressOf(m.Address),
		UpdateFrequency: schema.FormatDuration(m.UpdateFrequency),
		Country:         letters(m.country), State: m.Location.State, City: m.Location.City,
		PositionFrom: m.from.String(), Bandwidth: m.Bandwidth, IPv4: e.ipv4, IPv6: t.ipv6.has(i), ASN: t.ownASN[i],
		Cloud: m.CloudType, CloudRegions: m.CloudRegions, Anycast: m.Anycast, ISOs: !m.Carries.NoISOs,
		Health: e.health.String(), BehindSince: orNil(e.behind),
	}
	if m.AllRegions {
		info.CloudRegions = []string{"all"}
	}
	if m.at.known() {
		info.Latitude, info.Longitude = &m.lat, &m.lon
	}
	for name, a := range m.AddressOptional {
		if info.Modules == nil {
			info.Modules = map[string]apiAddress{}
		}
		info.Modules[name] = addressOf(a)
	}
	return info
}

// orNil leaves out a moment that never was.
func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// A slice is which part of a list that grows a request wants: at most limit things,
// behind the one that its cursor names. A cursor is what the part before told, so
// that nothing comes twice or not at all when others come and go meanwhile.
type slice struct {
	limit int
	last  string // the key of the last thing of the part before; "" for the first part
	at    int    // how many there were up to it
}

// parseSlice reads limit and cursor.
func parseSlice(v url.Values, preset, most int) (s slice, no *refusal) {
	s.limit = preset
	if text := v.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > most {
			return s, badRequest("malformed limit %q: write a number from 1 to %d, or leave it out", clip(text), most)
		}
		s.limit = n
	}
	if v.Get("offset") != "" {
		return s, badRequest("there is no offset: follow next, which has a cursor")
	}
	text := v.Get("cursor")
	if text == "" {
		return s, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	at, last, ok := strings.Cut(string(raw), "\n")
	if s.last = last; err == nil {
		s.at, err = strconv.Atoi(at)
	}
	if err != nil || !ok || last == "" || s.at < 0 {
		return s, badRequest("malformed cursor %q: write what next has, or leave it out to begin", clip(text))
	}
	return s, nil
}

// cut returns the bounds of the part of n things, and the URL of the next part, ""
// behind the last one. key names a thing, and is the same as long as it is there.
func (s slice) cut(c *gin.Context, n int, key func(i int) string) (from, to int, next string) {
	if s.last != "" {
		from = min(s.at, n) // it is gone: where it was
		for i := range n {
			if key(i) == s.last {
				from = i + 1
				break
			}
		}
	}
	to = min(from+s.limit, n)
	if to < n {
		v := c.Request.URL.Query()
		v.Set("limit", strconv.Itoa(s.limit))
		v.Set("cursor", base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(to)+"\n"+key(to-1))))
		next = c.Request.URL.Path + "?" + v.Encode()
	}
	return from, to, next
}

// paged is the answer of one part of a list.
func paged(v any, cache, next string) (*response, error) {
	a, err := asJSON(v, cache)
	if err == nil {
		a.links = nextLink(next)
	}
	return a, err
}

func nextLink(next string) string {
	if next == "" {
		return ""
	}
	return "<" + next + `>; rel="next"`
}

// mostMirrors is how many mirrors a part of a list of them has.
const mostMirrors = 1000

// apiMirrors is a part of a list of mirrors.
type apiMirrors struct {
	Mirrors []apiMirror `json:"mirrors"`
	Total   int         `json:"total" doc:"how many there are in all parts"`
	Next    string      `json:"next,omitempty" doc:"URL of the next part; absent in the last one. Also in the header Link"`
}

// mirrorsOperation answers /api/v1/mirrors.
func (s *Server) mirrorsOperation(c *gin.Context) (*response, error) {
	t := s.table.Load()
	values := c.Request.URL.Query()
	q, no := parseMirrorQuery(values)
	if no != nil {
		return nil, no
	}
	part, no := parseSlice(values, mostMirrors, mostMirrors)
	if no != nil {
		return nil, no
	}
	keep := func(*card) bool { return true }
	if module := values.Get("module"); module != "" {
		tr := slices.IndexFunc(t.trees[1:], func(tr tree) bool { return tr.name == module })
		if tr < 0 {
			return nil, badRequest("unknown module %q: /api/v1/network lists them", clip(module))
		}
		keep = func(e *card) bool { return t.mirrors[e.mirror].bases[tr+1] != (base{}) }
	}
	found := s.directory(t).find(t, &q, keep)
	from, to, next := part.cut(c, len(found), func(i int) string { return t.mirrors[found[i].mirror].Name })
	out := apiMirrors{Mirrors: []apiMirror{}, Total: len(found), Next: next}
	for i := range found[from:to] {
		out.Mirrors = append(out.Mirrors, t.apiMirror(&found[from+i]))
	}
	return paged(out, shortly, next)
}

// cardNamed finds a mirror that is not private. A private one is answered for as
// one that does not exist.
func (s *Server) cardNamed(t *Table, name string) (*card, error) {
	d := s.directory(t)
	if i, ok := t.byName[name]; ok {
		j, ok := slices.BinarySearchFunc(d.cards, i, func(e card, i uint16) int { return int(e.mirror) - int(i) })
		if ok {
			return &d.cards[j], nil
		}
	}
	return nil, &refusal{code: http.StatusNotFound, text: "no public mirror is called \"" + clip(name) + "\": / and /api/v1/mirrors list them"}
}

// apiNetwork is what can be asked for.
type apiNetwork struct {
	Versions       []apiVersion                      `json:"versions"`
	Aliases        map[schema.Version]schema.Version `json:"aliases" doc:"version that may be asked for → version that is answered"`
	Vault          []schema.Version                  `json:"vault_versions"`
	VaultMirror    string                            `json:"vault_mirror"`
	AllowedOutdate string                            `json:"allowed_outdate" doc:"how long an older generation is still handed out, such as 12h"`
	Repos          []apiRepo                         `json:"repos"`
	Mirrors        int                               `json:"public_mirrors" doc:"mirrors that are neither private nor for a cloud"`
}

type apiVersion struct {
	Version schema.Version `json:"version"`
	Arches  []schema.Arch  `json:"arches"`
	Module  string         `json:"module,omitempty"`
}

type apiRepo struct {
	Name     string           `json:"name"`
	Path     string           `json:"path" doc:"below the version, with $basearch where it is per architecture"`
	Versions []schema.Version `json:"versions,omitempty" doc:"absent: every version"`
	Arches   []schema.Arch    `json:"arches,omitempty" doc:"absent: every architecture"`
	Vault    bool             `json:"vault,omitempty"`
}

// networkOperation answers /api/v1/network.
func (s *Server) networkOperation(*gin.Context) (*response, error) {
	t := s.table.Load()
	out := apiNetwork{
		Versions: []apiVersion{}, Aliases: t.network.Aliases, Vault: t.network.Vault, VaultMirror: t.network.VaultMirror,
		AllowedOutdate: schema.FormatDuration(t.network.AllowedOutdate), Repos: []apiRepo{}, Mirrors: t.public.count(),
	}
	if out.Aliases == nil {
		out.Aliases = map[schema.Version]schema.Version{}
	}
	if out.Vault == nil {
		out.Vault = []schema.Version{}
	}
	for _, v := range t.network.Served() {
		out.Versions = append(out.Versions, apiVersion{v, t.network.ArchesOf(v), t.network.Module(v)})
	}
	for _, r := range t.network.Repos {
		out.Repos = append(out.Repos, apiRepo(r))
	}
	return asJSON(out, shortly)
}

// explainOperation answers /api/v1/explain for everybody: private mirrors are
// counted and not named.
func (s *Server) explainOperation(c *gin.Context) (*response, error) { return s.explain(c, false) }

// apiExplainAll answers it on the admin listener.
func (s *Server) apiExplainAll(c *gin.Context) (*response, error) { return s.explain(c, true) }

func (s *Server) explain(c *gin.Context, all bool) (*response, error) {
	t := s.table.Load()
	in, no := t.inquiry(c.Request)
	if no != nil {
		return nil, no
	}
	if in.Version == "" {
		name, version := t.exampleNames()
		return nil, badRequest(`missing "version" and "repo": try /api/v1/explain?version=%s&repo=%s&ip=192.0.2.1`, version, name)
	}
	in.All = all
	e, err := t.explain(in)
	if err != nil {
		return nil, err
	}
	return asJSON(e, "")
}

// inquiry reads what a request wants explained. Without a version and a repository
// it has none.
func (t *Table) inquiry(r *http.Request) (in Inquiry, no *refusal) {
	p, values := parseParams(r.URL.RawQuery), r.URL.Query()
	in = Inquiry{
		Version: values.Get("version"), Repo: p.repo, Arch: p.arch, Protocol: p.protocol, Country: p.country,
		UserAgent: values.Get("user_agent"),
	}
	if in.Version == "" && in.Repo != "" {
		if in.Repo, in.Version, no = t.splitRepo(in.Repo); no != nil {
			return in, no
		}
	}
	ip := strings.TrimSpace(values.Get("ip"))
	if ip == "" {
		in.Addr = clientOf(r, t.trusted, t.header, t.secret).addr
		return in, nil
	}
	a, ok := parseAddr(ip)
	if !ok {
		return in, badRequest("malformed address %q: write one such as 192.0.2.1 or 2001:db8::1, or leave it out for your own", clip(ip))
	}
	in.Addr = a
	return in, nil
}
