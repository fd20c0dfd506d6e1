package mirrorlist

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"meridian/schema"
)

// The pages for people are rendered here, need no script, and load nothing from
// anywhere.

//go:embed pages
var pageFiles embed.FS

// pageStyle is the style sheet, and pagePolicy allows it and nothing else.
var pageStyle, pagePolicy = func() (template.CSS, string) {
	css, err := pageFiles.ReadFile("pages/style.css")
	if err != nil {
		panic(fmt.Sprintf("mirrorlist: embedded style sheet: %v", err))
	}
	sum := sha256.Sum256(css)
	return template.CSS(css), "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

var pages = template.Must(template.New("").
	Funcs(template.FuncMap{"style": func() template.CSS { return pageStyle }}).
	ParseFS(pageFiles, "pages/*.html"))

// A page is what every page has.
type page struct {
	Title   string
	Modules []string
}

// pageMirror is one line of the table of mirrors.
type pageMirror struct {
	Name, Country, City     string
	Sponsor, SponsorURL     string
	Protocols               []pageLink
	IPv6                    bool
	Bandwidth               int
	UpdateFrequency, Health string
}

type pageLink struct{ Name, URL string }

// pageRoutes adds the pages.
func (s *Server) pageRoutes(r *gin.Engine) {
	both := func(path string, h func(*gin.Context) error) {
		s.get(r, path, s.limited(h))
		s.get(r, path+".html", s.limited(h))
	}
	s.get(r, "/", s.limited(func(c *gin.Context) error { return s.mirrorsPage(c, "") }))
	s.get(r, "/index.html", s.limited(func(c *gin.Context) error { return s.mirrorsPage(c, "") }))
	both("/isos", func(c *gin.Context) error { return s.isosPage(c, "") })
	s.get(r, "/isos/:arch/:version", s.limited(func(c *gin.Context) error { return s.isoPage(c, "") }))
}

// modulePage answers what is below the name of an optional module, which the
// network file may change at any time. It reports whether there is one.
func (s *Server) modulePage(c *gin.Context) (bool, error) {
	name, rest, _ := strings.Cut(strings.TrimPrefix(c.Request.URL.Path, "/"), "/")
	if rest == "" {
		name = strings.TrimSuffix(name, ".html")
	}
	t := s.table.Load()
	known := name != "" && slices.ContainsFunc(t.trees, func(tr tree) bool { return tr.name == name })
	if !known || c.Request.Method != http.MethodGet && c.Request.Method != http.MethodHead {
		return false, nil
	}
	var page func(*gin.Context, string) error
	switch parts := strings.Split(rest, "/"); {
	case rest == "":
		page = s.mirrorsPage
	case rest == "isos" || rest == "isos.html":
		page = s.isosPage
	case len(parts) == 3 && parts[0] == "isos":
		c.Params = gin.Params{{Key: "arch", Value: parts[1]}, {Key: "version", Value: parts[2]}}
		page = s.isoPage
	default:
		return false, nil
	}
	return true, s.limited(func(c *gin.Context) error { return page(c, name) })(c)
}

// countryName is what people call a country.
func countryName(c [2]byte) string {
	return cmp.Or(schema.CountryName(letters(c)), letters(c))
}

// newPage returns the page of a title and, unless that is "", a module.
func (t *Table) newPage(title, module string) page {
	p := page{Title: title}
	if module != "" {
		p.Title = module + ": " + title
	}
	for _, tr := range t.trees[1:] {
		p.Modules = append(p.Modules, tr.name)
	}
	return p
}

// mirrorsPage shows the public mirrors of a tree, by country.
func (s *Server) mirrorsPage(c *gin.Context, module string) error {
	t := s.table.Load()
	tr := slices.IndexFunc(t.trees, func(tr tree) bool { return tr.name == module })
	repo, version := t.exampleNames()
	query := url.Values{"version": {version}, "repo": {repo}}
	p := struct {
		page
		Mirrors          []pageMirror
		Example, Explain string
	}{
		page: t.newPage("Mirrors", module), Mirrors: []pageMirror{},
		Example: "/mirrorlist/" + version + "/" + repo, Explain: "/api/v1/explain?" + query.Encode(),
	}
	for i := range t.mirrors {
		m := &t.mirrors[i]
		if !t.public.has(uint16(i)) || m.bases[tr] == (base{}) {
			continue
		}
		address := m.Address
		if module != "" {
			address = m.AddressOptional[module]
		}
		row := pageMirror{
			Name: m.Name, Country: countryName(m.country), City: m.Location.City, Sponsor: m.Sponsor, SponsorURL: m.SponsorURL,
			IPv6: t.ipv6.has(uint16(i)), Bandwidth: t.bandwidth[i], UpdateFrequency: schema.FormatDuration(m.UpdateFrequency),
			Health: t.mirrorHealth(uint16(i)),
		}
		// No link to rsync and ftp: browsers have no use for them.
		for _, l := range []pageLink{{"http", address.HTTP}, {"https", address.HTTPS}} {
			if l.URL != "" {
				row.Protocols = append(row.Protocols, l)
			}
		}
		p.Mirrors = append(p.Mirrors, row)
	}
	slices.SortStableFunc(p.Mirrors, func(a, b pageMirror) int { return strings.Compare(a.Country, b.Country) })
	return writePage(c, "mirrors", p)
}

// isosPage shows which ISO images there are.
func (s *Server) isosPage(c *gin.Context, module string) error {
	t := s.table.Load()
	type release struct {
		Version schema.Version
		Arches  []schema.Arch
	}
	p := struct {
		page
		Prefix   string
		Releases []release
	}{page: t.newPage("ISO images", module)}
	if module != "" {
		p.Prefix = "/" + module
	}
	for _, v := range t.network.Served() {
		if t.network.Module(v) == module {
			p.Releases = append(p.Releases, release{v, t.network.ArchesOf(v)})
		}
	}
	return writePage(c, "isos", p)
}

// isoPage shows where to download the images of a version and arch.
func (s *Server) isoPage(c *gin.Context, module string) error {
	t := s.table.Load()
	version, arch := strings.TrimSuffix(c.Param("version"), ".html"), c.Param("arch")
	q, vault, no := t.isoRequest(version, arch, params{})
	if no != nil {
		return no
	}
	type link struct{ Mirror, Place, URL string }
	key := t.slots[q.slot].key
	p := struct {
		page
		URLs []link
	}{page: t.newPage(fmt.Sprintf("ISO images of %s for %s", key.Version, key.Arch), module)}
	if vault != "" {
		u, err := url.Parse(vault)
		if err != nil {
			return err
		}
		p.URLs = []link{{u.Host, "", vault}}
		return writePage(c, "iso", p)
	}
	// Browsers speak https, and here the whole order is shown.
	var sc scratch
	q.client, q.limit, q.now, q.want = clientOf(c.Request, t.trusted, t.header, t.secret), len(t.mirrors), t.now, anyScheme
	t.decide(&q, &sc)
	q.want = httpsScheme
	for _, k := range sc.picks {
		m := &t.mirrors[k.mirror]
		place := strings.Trim(m.Location.City+", "+countryName(m.country), ", ")
		p.URLs = append(p.URLs, link{m.Name, place, string(t.appendURL(nil, &q, k))})
	}
	return writePage(c, "iso", p)
}

// writePage renders a page whole before it sends any of it.
func writePage(c *gin.Context, name string, data any) error {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, data); err != nil {
		return err
	}
	h := c.Writer.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "private, max-age=60")
	c.Data(http.StatusOK, "text/html; charset=utf-8", b.Bytes())
	return nil
}
