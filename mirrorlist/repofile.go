package mirrorlist

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"meridian/schema"
)

// A client takes part in the network by its .repo file. Here it gets one that is
// ready, and a line that puts this network in place of the one it has.

// repoForm is what a .repo file is to be.
type repoForm struct {
	version schema.Version
	kind    string // "mirrorlist" or "metalink"
	https   bool   // only mirrors with https
	gpgKey  string
}

// parseRepoForm reads the question.
func (t *Table) parseRepoForm(version string, values func(string) string) (f repoForm, no *refusal) {
	r := t.release(version)
	if r == nil {
		return f, t.unknownVersion(version)
	}
	f = repoForm{version: r.version, kind: values("list"), gpgKey: values("gpgkey")}
	switch f.kind {
	case "":
		f.kind = "metalink"
	case "mirrorlist", "metalink":
	default:
		return f, badRequest("unknown list %q: write list=metalink or list=mirrorlist, or leave it out", clip(f.kind))
	}
	switch p := values("protocol"); p {
	case "", "http": // http mirrors too
	case "https":
		f.https = true
	default:
		return f, badRequest("unknown protocol %q: write protocol=https, or leave it out", clip(p))
	}
	if f.gpgKey != "" && (!strings.HasPrefix(f.gpgKey, "file:///") && !strings.HasPrefix(f.gpgKey, "https://") || strings.ContainsAny(f.gpgKey, " \t\r\n[]") || len(f.gpgKey) > 300) {
		return f, badRequest("malformed gpgkey %q: write the URL of a key, file:///… or https://…", clip(f.gpgKey))
	}
	return f, nil
}

// repoFileOf writes a .repo file.
func (t *Table) repoFileOf(f repoForm, base string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The repositories of %s, from the mirrors near you.\n# Metalinks carry the hash of what was published, so that no mirror can change it or keep it back.\n", f.version)
	r := t.release(string(f.version))
	for i := range t.network.Repos {
		repo := &t.network.Repos[i]
		if repo.Vault && !r.vault || !t.network.Allows(f.version, repo, "") {
			continue
		}
		var params []string
		if f.kind == "metalink" {
			params = append(params, "arch=$basearch")
		}
		if f.https {
			params = append(params, "protocol=https")
		}
		query := strings.Join(params, "&")
		if query != "" {
			query = "?" + query
		}
		enabled := 0
		if slices.Contains(alwaysEnabled, strings.ToLower(repo.Name)) {
			enabled = 1
		}
		fmt.Fprintf(&b, "\n[%s]\nname=%s %s\n%s=%s/%s/%s/%s%s\nenabled=%d\ngpgcheck=1\n", repo.Name, repo.Name, f.version, f.kind, base, f.kind, f.version, repo.Name, query, enabled)
		if f.gpgKey != "" {
			fmt.Fprintf(&b, "gpgkey=%s\n", f.gpgKey)
		}
		b.WriteString("countme=1\n")
	}
	return b.String()
}

// alwaysEnabled are the repositories that an EL system cannot do without.
var alwaysEnabled = []string{"baseos", "appstream", "extras"}

// switchLine makes dnf on an EL system that asks another server of this kind ask
// this one. It edits the files that are there, so that their keys and what is enabled
// stay, keeps a copy of each, and touches only lines that name repositories of the
// network, in either form of a list: those of other people stay as they are. Who was
// protected by metalinks stays so.
func (t *Table) switchLine(base string) string {
	var names []string
	for _, r := range t.network.Repos {
		names = append(names, r.Name)
	}
	repos := `(` + strings.Join(names, "|") + `)`
	// In the form with ?repo= a digit or $releasever ends the name: baseos-debug-9 is
	// another repository.
	return `sudo sed -ri.before-switch 's,^(mirrorlist|metalink)=.*/(mirrorlist|metalink)(/([^/?]+)/` + repos + `([/?].*)?|\?repo=` + repos + `-([0-9$][^&]*)(&.*)?)$,\1=` + base + `/\1/\4\8/\5\7?arch=$basearch,' /etc/yum.repos.d/*.repo && sudo dnf clean metadata`
}

// repoFile answers /repo-file/VERSION, a file for /etc/yum.repos.d, and
// /repo-file, the page about it.
func (s *Server) repoFile(c *gin.Context) (*response, error) {
	t := s.table.Load()
	version := strings.TrimSuffix(c.Param("version"), ".repo")
	f, no := t.parseRepoForm(version, c.Query)
	if no != nil {
		return nil, no
	}
	return &response{
		kind: "text/plain; charset=utf-8", body: []byte(t.repoFileOf(f, s.baseURL(c.Request, t))), name: "meridian-" + string(f.version) + ".repo",
		cache: "no-cache", vary: "Host",
	}, nil
}

// repoFilePage answers /repo-file.
func (s *Server) repoFilePage(c *gin.Context) (*response, error) {
	t := s.table.Load()
	values := c.Request.URL.Query()
	version := values.Get("version")
	if version == "" {
		_, version = t.exampleNames()
	}
	f, no := t.parseRepoForm(version, values.Get)
	if no != nil {
		return nil, no
	}
	base := s.baseURL(c.Request, t)
	query := "?list=" + f.kind
	if f.https {
		query += "&protocol=https"
	}
	if f.gpgKey != "" {
		query += "&gpgkey=" + f.gpgKey
	}
	p := struct {
		page
		Versions            []string
		Version, List, Text string
		HTTPS               bool
		GPGKey              string
		File, Line, Switch  string
	}{
		page: t.newPage("/repo-file", "Use these mirrors", ""), Versions: t.versionNames(), Version: version, List: f.kind, HTTPS: f.https, GPGKey: f.gpgKey,
		Text: t.repoFileOf(f, base), File: "/repo-file/" + string(f.version) + query,
		Line:   "sudo curl -fsS -o /etc/yum.repos.d/meridian.repo '" + base + "/repo-file/" + string(f.version) + query + "'",
		Switch: t.switchLine(base),
	}
	return render("repofile", p, "")
}
