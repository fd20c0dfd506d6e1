package mirrorlist

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"meridian/checker/state"
	"meridian/schema"
)

// Images are what people download: the nearest mirror that was seen with all of
// them in the right size. Of a set that nobody has looked at yet, the nearest that
// promises it.

// plainFile is a file name that can be part of a URL as it stands.
var plainFile = regexp.MustCompile(`^[A-Za-z0-9_+][A-Za-z0-9._+~-]{0,199}$`)

// An isoSet is one directory of images.
type isoSet struct {
	question
	key    state.Key
	vault  string
	images []state.Image // nil: not known
}

// isoSet finds the directory of an architecture and version: of any below /isos, of
// its own below the name of a module.
func (t *Table) isoSet(version, arch, module string) (set isoSet, no *refusal) {
	q, vault, no := t.isoRequest(version, arch, params{})
	if no != nil {
		return set, no
	}
	if module != "" && t.trees[q.tree].name != module {
		return set, notFound("version %s is at %s", t.slots[q.slot].key.Version, isoPath(t.slots[q.slot].key, t.trees[q.tree].name))
	}
	set = isoSet{question: q, key: t.slots[q.slot].key, vault: vault}
	if t.snap != nil {
		set.images = t.snap.Truth[set.key].Images
	}
	return set, nil
}

// isoPath is the page of a set.
func isoPath(k state.Key, module string) string {
	path := "/isos/" + url.PathEscape(string(k.Arch)) + "/" + url.PathEscape(string(k.Version))
	if module != "" {
		path = "/" + url.PathEscape(module) + path
	}
	return path
}

// nearest returns the mirrors of a set for the client of a request, best first:
// those that were seen to have it, then those of which that is not known.
func (s *Server) nearest(r *http.Request, t *Table, set *isoSet) []pick {
	var sc scratch
	q := &set.question
	q.client, q.limit, q.now, q.want = clientOf(r, t.trusted, t.header, t.secret), len(t.mirrors), t.now, anyScheme
	t.decide(q, &sc)
	fresh := t.health[q.slot].fresh
	picks := slices.Clone(sc.picks)
	slices.SortStableFunc(picks, func(a, b pick) int {
		switch x, y := fresh.has(a.mirror), fresh.has(b.mirror); {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	})
	// Browsers speak https.
	q.want = httpsScheme
	return picks
}

// isosPage shows which images there are.
func (s *Server) isosPage(_ *gin.Context, module string) (*response, error) {
	t := s.table.Load()
	type link struct {
		Name, URL string
		Images    int
	}
	type release struct {
		Version schema.Version
		Arches  []link
		Vault   bool
	}
	p := struct {
		page
		Releases []release
		Modules  []pageLink
	}{page: t.newPage("/isos", "ISO images", module)}
	add := func(v schema.Version, vault bool) {
		one := release{Version: v, Vault: vault}
		for _, a := range t.network.ArchesOf(v) {
			k := state.Key{Version: v, Repo: isoRepo, Arch: a}
			l := link{Name: string(a), URL: isoPath(k, module)}
			if t.snap != nil {
				l.Images = len(t.snap.Truth[k].Images)
			}
			one.Arches = append(one.Arches, l)
		}
		p.Releases = append(p.Releases, one)
	}
	for _, v := range t.network.Served() {
		if t.network.Module(v) == module {
			add(v, false)
		}
	}
	for _, v := range t.network.Vault {
		if t.network.Module(v) == module {
			add(v, true)
		}
	}
	if module == "" {
		for _, tr := range t.trees[1:] {
			p.Modules = append(p.Modules, pageLink{tr.name, "/" + url.PathEscape(tr.name) + "/isos"})
		}
	}
	return render("isos", p, shortly)
}

// isoMirrorsShown bounds the page of a set.
const isoMirrorsShown = 50

// isoPage shows the images of a version and architecture, and where to download
// them.
func (s *Server) isoPage(c *gin.Context, module string) (*response, error) {
	t := s.table.Load()
	set, no := t.isoSet(strings.TrimSuffix(c.Param("version"), ".html"), c.Param("arch"), module)
	if no != nil {
		return nil, no
	}
	type link struct {
		Mirror, Place, URL, Health string
		Page                       string
	}
	p := struct {
		page
		Path      string
		Images    []state.Image
		URLs      []link
		More      int
		Checksum  string
		Algorithm string
	}{page: t.newPage("/isos", fmt.Sprintf("ISO images of %s for %s", set.key.Version, set.key.Arch), module), Path: isoPath(set.key, t.trees[set.tree].name), Images: set.images}
	if set.vault != "" {
		u, err := url.Parse(set.vault)
		if err != nil {
			return nil, err
		}
		p.URLs = []link{{Mirror: u.Host, URL: set.vault}}
		p.Checksum = set.vault + "/CHECKSUM"
		return render("iso", p, "")
	}
	picks := s.nearest(c.Request, t, &set)
	p.More = max(0, len(picks)-isoMirrorsShown)
	for _, k := range picks[:len(picks)-p.More] {
		m := &t.mirrors[k.mirror]
		p.URLs = append(p.URLs, link{
			m.Name, joinPlace(m.Location.City, countryName(m.country)), string(t.appendURL(nil, &set.question, k)),
			t.slotHealthName(set.slot, k.mirror), mirrorURL(m.Name),
		})
	}
	if len(p.URLs) > 0 {
		p.Checksum = p.URLs[0].URL + "/CHECKSUM"
	}
	return render("iso", p, "")
}

// isoFile leads to the nearest mirror that has one file, or, for FILE.meta4, tells
// where all of them have it and what it must be.
func (s *Server) isoFile(c *gin.Context, module string) (*response, error) {
	t := s.table.Load()
	set, no := t.isoSet(c.Param("version"), c.Param("arch"), module)
	if no != nil {
		return nil, no
	}
	name := c.Param("file")
	file, meta := strings.CutSuffix(name, ".meta4")
	if !plainFile.MatchString(file) {
		return nil, notFound("%q is no file of %s: write a plain name", clip(file), isoPath(set.key, module))
	}
	image := set.image(file)
	if image == nil && set.images != nil && file != "CHECKSUM" {
		names := make([]string, len(set.images))
		for i := range set.images {
			names[i] = set.images[i].Name
		}
		return nil, notFound("there is no %q among the images of %s for %s. Write one of: %s", clip(file), set.key.Version, set.key.Arch, strings.Join(names, ", "))
	}
	var urls []metaURL
	if set.vault != "" {
		urls = []metaURL{{URL: set.vault + "/" + file, Priority: 1}}
	} else {
		for i, k := range s.nearest(c.Request, t, &set) {
			u := metaURL{URL: string(t.appendURL(nil, &set.question, k)) + "/" + file, Priority: i + 1, Location: strings.ToLower(letters(t.mirrors[k.mirror].country))}
			urls = append(urls, u)
		}
	}
	if len(urls) == 0 {
		return nil, &refusal{code: http.StatusServiceUnavailable, text: "no mirror has the images of " + string(set.key.Version) + " for " + string(set.key.Arch) + ": ask again later"}
	}
	if !meta {
		return redirect(urls[0].URL, ""), nil
	}
	if image == nil {
		return nil, notFound("nothing is known of %q that a metalink could say: download it from %s/%s", clip(file), isoPath(set.key, module), clip(file))
	}
	return metalink4(image, urls[:min(len(urls), metaURLs)], s.baseURL(c.Request, t)+isoPath(set.key, module)+"/"+name)
}

// image finds a file among those that are known.
func (set *isoSet) image(name string) *state.Image {
	for i := range set.images {
		if set.images[i].Name == name {
			return &set.images[i]
		}
	}
	return nil
}

// metaURLs is how many mirrors a metalink of an image names.
const metaURLs = 20

// A metaURL is where a file is, the best with priority 1.
type metaURL struct {
	Location string `xml:"location,attr,omitempty"`
	Priority int    `xml:"priority,attr"`
	URL      string `xml:",chardata"`
}

// ianaHashes are what RFC 5854 calls algorithms.
var ianaHashes = map[string]string{"sha1": "sha-1", "sha224": "sha-224", "sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}

// metalink4 describes a file as RFC 5854 does.
func metalink4(image *state.Image, urls []metaURL, origin string) (*response, error) {
	type hash struct {
		Type  string `xml:"type,attr"`
		Value string `xml:",chardata"`
	}
	type file struct {
		Name string    `xml:"name,attr"`
		Size *int64    `xml:"size"`
		Hash *hash     `xml:"hash"`
		URLs []metaURL `xml:"url"`
	}
	type reference struct {
		Dynamic bool   `xml:"dynamic,attr"`
		URL     string `xml:",chardata"`
	}
	doc := struct {
		XMLName   xml.Name  `xml:"urn:ietf:params:xml:ns:metalink metalink"`
		Generator string    `xml:"generator"`
		Origin    reference `xml:"origin"`
		File      file      `xml:"file"`
	}{Generator: "meridian", Origin: reference{true, origin}, File: file{Name: image.Name, URLs: urls}}
	if image.Size >= 0 {
		doc.File.Size = &image.Size
	}
	if kind, ok := ianaHashes[image.Algorithm]; ok {
		doc.File.Hash = &hash{kind, image.Digest}
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	enc := xml.NewEncoder(&b)
	enc.Indent("", " ")
	if err := enc.Encode(doc); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return &response{kind: "application/metalink4+xml", body: b.Bytes(), name: image.Name + ".meta4"}, nil
}

// apiISOs is what images there are.
type apiISOs struct {
	Sets []apiISOSet `json:"sets"`
}

type apiISOSet struct {
	Version schema.Version `json:"version"`
	Arch    schema.Arch    `json:"arch"`
	Module  string         `json:"module,omitempty"`
	Vault   bool           `json:"vault,omitempty"`
	Images  []apiImage     `json:"images" doc:"empty where nothing is known of them"`
}

type apiImage struct {
	Name      string `json:"name"`
	Size      int64  `json:"size" doc:"bytes; -1 where not known"`
	Algorithm string `json:"algorithm" doc:"of the digest, such as sha256"`
	Digest    string `json:"digest" doc:"hexadecimal"`
	URL       string `json:"url" doc:"leads to the nearest mirror; with .meta4 behind it is its metalink"`
}

// apiISODetail is a set with its mirrors.
type apiISODetail struct {
	apiISOSet
	Mirrors []apiISOMirror `json:"mirrors" doc:"nearest to the client first; those that were seen with everything before the others"`
	Next    string         `json:"next,omitempty" doc:"URL of the next part of the mirrors. Also in the header Link"`
}

type apiISOMirror struct {
	Mirror string `json:"mirror,omitempty" doc:"absent for the vault"`
	URL    string `json:"url" doc:"of the directory"`
	Health string `json:"health"`
}

func (t *Table) apiISOSet(k state.Key, module string, vault bool) apiISOSet {
	out := apiISOSet{Version: k.Version, Arch: k.Arch, Module: module, Vault: vault, Images: []apiImage{}}
	if t.snap != nil {
		for _, i := range t.snap.Truth[k].Images {
			out.Images = append(out.Images, apiImage{i.Name, i.Size, i.Algorithm, i.Digest, isoPath(k, module) + "/" + url.PathEscape(i.Name)})
		}
	}
	return out
}

// isosOperation answers /api/v1/isos.
func (s *Server) isosOperation(*gin.Context) (*response, error) {
	t := s.table.Load()
	out := apiISOs{Sets: []apiISOSet{}}
	for _, list := range [][]schema.Version{t.network.Served(), t.network.Vault} {
		for _, v := range list {
			for _, a := range t.network.ArchesOf(v) {
				out.Sets = append(out.Sets, t.apiISOSet(state.Key{Version: v, Repo: isoRepo, Arch: a}, t.network.Module(v), t.network.IsVault(v)))
			}
		}
	}
	return asJSON(out, shortly)
}

// isoOperation answers /api/v1/isos/ARCH/VERSION.
func (s *Server) isoOperation(c *gin.Context) (*response, error) {
	t := s.table.Load()
	part, no := parseSlice(c.Request.URL.Query(), mostMirrors, mostMirrors)
	if no != nil {
		return nil, no
	}
	module := ""
	if v, ok := t.network.Resolve(c.Param("version")); ok {
		module = t.network.Module(v)
	}
	set, no := t.isoSet(c.Param("version"), c.Param("arch"), module)
	if no != nil {
		return nil, no
	}
	out := apiISODetail{apiISOSet: t.apiISOSet(set.key, module, set.vault != ""), Mirrors: []apiISOMirror{}}
	if set.vault != "" {
		out.Mirrors = append(out.Mirrors, apiISOMirror{URL: set.vault, Health: state.Unknown.String()})
		return asJSON(out, "")
	}
	picks := s.nearest(c.Request, t, &set)
	from, to, next := part.cut(c, len(picks), func(i int) string { return t.mirrors[picks[i].mirror].Name })
	out.Next = next
	for _, k := range picks[from:to] {
		out.Mirrors = append(out.Mirrors, apiISOMirror{t.mirrors[k.mirror].Name, string(t.appendURL(nil, &set.question, k)), t.slotHealthName(set.slot, k.mirror)})
	}
	return paged(out, "", next)
}
