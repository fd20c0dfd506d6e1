package mirrorlist

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"meridian/schema"
)

// The debug endpoints are those of the service that was replaced, and their form
// is a contract.

// debugMirror is a mirror in the form of the debug endpoints, minus what they
// leaked: e-mail addresses, subnets, and private mirrors altogether.
type debugMirror struct {
	Name            string            `json:"name"`
	ASN             []string          `json:"asn"`
	CloudType       string            `json:"cloud_type"`
	CloudRegion     string            `json:"cloud_region"`
	Geolocation     map[string]string `json:"geolocation"`
	HasFullISOSet   bool              `json:"has_full_iso_set"`
	OptionalModules string            `json:"has_optional_modules"`
	IP              string            `json:"ip"`
	IPASN           string            `json:"ip_asn"`
	IPv6            bool              `json:"ipv6"`
	Location        map[string]any    `json:"location"`
	Monopoly        bool              `json:"monopoly"`
	Private         bool              `json:"private"`
	Sponsor         string            `json:"sponsor_name"`
	SponsorURL      string            `json:"sponsor_url"`
	Status          string            `json:"status"`
	UpdateFrequency string            `json:"update_frequency"`
	URLs            apiAddress        `json:"urls"`
	ModuleURLs      map[string]any    `json:"module_urls"`
}

func (t *Table) debugMirror(i uint16) debugMirror {
	m := &t.mirrors[i]
	d := debugMirror{
		Name: m.Name, ASN: []string{}, CloudType: m.CloudType, CloudRegion: strings.Join(m.CloudRegions, ","),
		Geolocation: map[string]string{
			"continent": m.Location.Continent, "country": letters(m.country),
			"state_province": m.Location.State, "city": m.Location.City,
		},
		HasFullISOSet: !m.Carries.NoISOs, IPv6: t.ipv6.has(i), Monopoly: m.Monopoly, Sponsor: m.Sponsor, SponsorURL: m.SponsorURL,
		Status: t.mirrorHealth(i), UpdateFrequency: schema.FormatDuration(m.UpdateFrequency),
		URLs: addressOf(m.Address), ModuleURLs: map[string]any{}, Location: map[string]any{"latitude": nil, "longitude": nil},
	}
	if a := m.addrs.first(); a.IsValid() {
		d.IP = a.String()
	}
	if t.ownASN[i] != 0 {
		d.IPASN = strconv.FormatUint(uint64(t.ownASN[i]), 10)
	}
	for _, n := range m.ASN {
		d.ASN = append(d.ASN, strconv.FormatUint(uint64(n), 10))
	}
	if m.at.known() {
		d.Location = map[string]any{"latitude": m.lat, "longitude": m.lon}
	}
	var modules []string
	for name, a := range m.AddressOptional {
		modules = append(modules, name)
		d.ModuleURLs[name] = addressOf(a)
	}
	slices.Sort(modules)
	d.OptionalModules = strings.Join(modules, ",")
	return d
}

// debugIP answers /debug/json/ip_info: what this server sees of a request.
func (s *Server) debugIP(c *gin.Context) (*response, error) {
	t := s.table.Load()
	result := map[string]any{}
	for name, values := range c.Request.Header {
		switch name {
		case "Authorization", "Cookie", "Proxy-Authorization":
		default:
			result[name] = strings.Join(values, ", ")
		}
	}
	result["Host"] = c.Request.Host
	client := clientOf(c.Request, t.trusted, t.header, t.secret)
	places := map[string]any{}
	for _, a := range []string{peerOf(c.Request.RemoteAddr).String(), client.addr.String()} {
		if addr, ok := parseAddr(a); ok {
			places[a] = t.debugPlace(addr)
		}
	}
	result["geodata"] = places
	return s.inEnvelope(result)
}

func (t *Table) debugPlace(a netip.Addr) map[string]any {
	out := map[string]any{"city": nil, "continent": nil, "country": nil, "latitude": nil, "longitude": nil, "state": nil}
	p := t.placeInfo(a)
	if p == nil {
		return out
	}
	for key, v := range map[string]string{"city": p.City, "continent": p.Continent, "country": p.Country, "state": p.State} {
		if v != "" {
			out[key] = v
		}
	}
	if p.Latitude != nil {
		out["latitude"], out["longitude"] = *p.Latitude, *p.Longitude
	}
	return out
}

// debugNearest answers /debug/json/nearest_mirrors: the mirrors of the list that
// the caller gets, by name.
func (s *Server) debugNearest(c *gin.Context) (*response, error) {
	t := s.table.Load()
	name, version := t.exampleNames()
	q, _, no := t.listRequest(version, name, "", params{})
	if no != nil {
		return nil, no
	}
	var sc scratch
	if err := s.decide(c.Request, t, &q, &sc); err != nil {
		return nil, err
	}
	mirrors := map[string]debugMirror{}
	for _, p := range sc.picks {
		if !t.mirrors[p.mirror].Private {
			mirrors[t.mirrors[p.mirror].Name] = t.debugMirror(p.mirror)
		}
	}
	places := map[string]any{}
	if q.addr.IsValid() {
		places[q.addr.String()] = t.debugPlace(q.addr)
	}
	return s.inEnvelope(map[string]any{"geodata": places, "mirrors": mirrors})
}

// debugAll answers /debug/json/all_mirrors.
func (s *Server) debugAll(*gin.Context) (*response, error) {
	t := s.table.Load()
	mirrors := map[string]debugMirror{}
	for i := range t.mirrors {
		if !t.mirrors[i].Private {
			mirrors[t.mirrors[i].Name] = t.debugMirror(uint16(i))
		}
	}
	return s.inEnvelope(mirrors)
}

var debugPage = template.Must(template.New("all").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>All mirrors</title>
</head>
<body>
<h1>All mirrors</h1>
<table>
<thead><tr><th>Name</th><th>Status</th><th>Country</th><th>City</th><th>IP</th><th>ASN of the IP</th><th>IPv6</th><th>URLs</th></tr></thead>
<tbody>
{{- range .}}
<tr><td>{{.Name}}</td><td>{{.Status}}</td><td>{{.Geolocation.country}}</td><td>{{.Geolocation.city}}</td><td>{{.IP}}</td><td>{{.IPASN}}</td><td>{{if .IPv6}}yes{{else}}no{{end}}</td><td>{{range .URLs}}{{.}} {{end}}</td></tr>
{{- end}}
</tbody>
</table>
</body>
</html>
`))

// debugTable answers /debug/html/all.
func (s *Server) debugTable(*gin.Context) (*response, error) {
	t := s.table.Load()
	var rows []debugMirror
	for i := range t.mirrors {
		if !t.mirrors[i].Private {
			rows = append(rows, t.debugMirror(uint16(i)))
		}
	}
	var b bytes.Buffer
	if err := debugPage.Execute(&b, rows); err != nil {
		return nil, err
	}
	return &response{kind: typeHTML, body: b.Bytes()}, nil
}

// Status is what an administrator wants to know of a server.
type Status struct {
	Mirrors  int                 `json:"mirrors"`
	Loaded   time.Time           `json:"loaded"` // the network and mirror files
	Database string              `json:"database,omitempty"`
	Built    time.Time           `json:"database_built,omitzero"`
	Snapshot time.Time           `json:"snapshot,omitzero"` // findings
	Problems map[string][]string `json:"problems,omitempty"`

	feeds      []feedStatus
	unresolved int // hosts of mirrors whose last look-up failed
}

// Status returns the state of the inputs: what is in use, and what is wrong.
func (s *Server) Status() *Status { return s.status.Load() }

func (s *Server) healthz(c *gin.Context) error {
	c.String(http.StatusOK, "ok\n")
	return nil
}

// readyz answers 200 as long as there are lists to serve, and says what is wrong
// all the same: an old list is better than none.
// The lines name files and private mirrors, so strangers get their number.
func (s *Server) readyz(c *gin.Context, all bool) error {
	st := s.Status()
	var b strings.Builder
	code := http.StatusOK
	if st.Mirrors == 0 {
		code = http.StatusServiceUnavailable
		b.WriteString("not ready: there are no mirrors\n")
	} else {
		b.WriteString("ready\n")
	}
	lines := st.Lines()
	if n := len(lines); n > 0 && !all {
		lines = []string{fmt.Sprintf("degraded: %d inputs are not as they should be: ask on this host, or on admin_listen", n)}
	}
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	c.String(code, "%s", b.String())
	return nil
}

// Lines lists what is wrong, one thing a line.
func (st *Status) Lines() []string {
	var out []string
	for subject, texts := range st.Problems {
		for _, t := range texts {
			out = append(out, "degraded: "+subject+": "+t)
		}
	}
	for _, f := range st.feeds {
		if f.Err != nil {
			out = append(out, "degraded: "+f.Name+": "+f.Err.Error())
		}
	}
	slices.Sort(out)
	return out
}
