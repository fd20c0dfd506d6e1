package mirrorlist

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"
)

// Bounds of what the page of an explanation shows; the API has all.
const (
	candidatesShown = 20 // behind the end of the list
	excludedShown   = 100
)

// explainPage answers /explain: the decision as a person can read it.
func (s *Server) explainPage(c *gin.Context) (*response, error) {
	t := s.table.Load()
	values := c.Request.URL.Query()
	p := struct {
		page
		IP, Version, Repo, Arch, Protocol, Country, Mirror string

		Versions, Repos, Arches []string
		Error                   string
		E                       *Explanation
		Place, CountryName      string
		Own                     bool
		Listed, Behind          []Candidate
		MoreBehind              int
		Excluded                []Exclusion
		MoreExcluded            int
		Private                 int
		Found                   string // what is asked about one mirror
		View                    *worldView
		API, List               string
	}{
		page: t.newPage("/explain", "Why this list", ""),
		IP:   clip(values.Get("ip")), Version: values.Get("version"), Repo: values.Get("repo"), Arch: values.Get("arch"),
		Protocol: values.Get("protocol"), Country: values.Get("country"), Mirror: strings.TrimSpace(clip(values.Get("mirror"))),
		Versions: t.versionNames(),
	}
	for _, r := range t.network.Repos {
		p.Repos = append(p.Repos, r.Name)
	}
	for _, v := range t.network.Served() {
		for _, a := range t.network.ArchesOf(v) {
			if !slices.Contains(p.Arches, string(a)) {
				p.Arches = append(p.Arches, string(a))
			}
		}
	}
	repo, version := t.exampleNames()
	if p.Version == "" {
		p.Version = version
	}
	if p.Repo == "" {
		p.Repo = repo
	}
	in, no := t.inquiry(c.Request)
	in.Version, in.Repo = p.Version, p.Repo
	p.Own = values.Get("ip") == ""
	var err error
	if no != nil {
		err = no
	} else {
		p.E, err = t.explain(in)
	}
	if err != nil {
		var no *refusal
		if !errors.As(err, &no) {
			return nil, err
		}
		p.Error = no.text
		r, err := render("explain", p, "")
		if err == nil {
			r.code = no.code
		}
		return r, err
	}

	e := p.E
	p.Place = placeWords(e.Client.Place)
	p.Private = e.PrivateCandidates + e.PrivateExcluded
	for _, cand := range e.Candidates {
		if cand.Listed {
			p.Listed = append(p.Listed, cand)
		} else {
			p.Behind = append(p.Behind, cand)
		}
	}
	p.Excluded = e.Excluded
	if p.Mirror != "" {
		p.Found = t.standing(e, p.Mirror)
	}
	p.MoreBehind, p.MoreExcluded = max(0, len(p.Behind)-candidatesShown), max(0, len(p.Excluded)-excludedShown)
	p.Behind, p.Excluded = p.Behind[:len(p.Behind)-p.MoreBehind], p.Excluded[:len(p.Excluded)-p.MoreExcluded]

	if pins := t.pinsOf(e); len(pins) > 0 {
		p.View = newWorldView(0, 0, 1)
		p.View.place(pins, 1, func(group []pin, _, _ float64) string {
			if len(group) == 1 {
				return mirrorURL(group[0].name)
			}
			return "/map"
		})
		p.View.Label = "Map of the listed mirrors"
		if lat, lon, ok := clientPosition(e); ok {
			p.View.lead(lat, lon, pins, 1)
		}
	}
	p.API = "/api/v1/explain?" + explainQuery(c.Request, p.Version, p.Repo)
	return render("explain", p, "")
}

// explainQuery is the query of the same question to the API.
func explainQuery(r *http.Request, version, repo string) string {
	v := r.URL.Query()
	v.Del("mirror")
	for name := range v {
		if v.Get(name) == "" {
			v.Del(name)
		}
	}
	v.Set("version", version)
	v.Set("repo", repo)
	return v.Encode()
}

// standing says where one mirror is in an explanation. A private one is not spoken
// of.
func (t *Table) standing(e *Explanation, name string) string {
	for _, c := range e.Candidates {
		if strings.EqualFold(c.Mirror, name) {
			if c.Listed {
				return c.Mirror + " is number " + strconv.Itoa(c.Position) + " of the list."
			}
			return c.Mirror + " is number " + strconv.Itoa(c.Position) + ", and a list has " + strconv.Itoa(e.Limit) + ": others are nearer, or come first by lot."
		}
	}
	for _, x := range e.Excluded {
		if strings.EqualFold(x.Mirror, name) {
			return x.Mirror + " is not for this list: " + x.Reason + "."
		}
	}
	return "No public mirror is called " + name + "."
}
