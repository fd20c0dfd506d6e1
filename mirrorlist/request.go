package mirrorlist

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"

	"meridian/mirrorlist/stats"
	"meridian/schema"
)

// A refusal is an answer to a request that cannot be served: a status, and one
// sentence that says what to write instead.
type refusal struct {
	code int
	text string

	// envelope: as JSON, the way clients of these URLs have always got a 404.
	envelope bool
}

func (r *refusal) Error() string { return r.text }

func notFound(format string, args ...any) *refusal {
	return &refusal{http.StatusNotFound, fmt.Sprintf(format, args...), true}
}

func badRequest(format string, args ...any) *refusal {
	return &refusal{http.StatusBadRequest, fmt.Sprintf(format, args...), false}
}

// params are the parameters of a list that mean something. Empty values count as
// absent, and the first of a repeated one counts.
type params struct {
	arch, protocol, country, repo string

	age uint8 // of a system that asks to be counted, from countme; 0 if it does not
}

// parseParams reads a raw query without building a map of it. What it cannot
// unescape counts as absent, like every parameter it does not know.
func parseParams(query string) (p params) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		name, value, _ := strings.Cut(pair, "=")
		var into *string
		switch name {
		case "arch":
			into = &p.arch
		case "protocol":
			into = &p.protocol
		case "country":
			into = &p.country
		case "repo":
			into = &p.repo
		case "countme":
			if p.age == 0 {
				p.age = stats.ParseAge(value)
			}
			continue
		default:
			continue
		}
		if *into != "" || value == "" {
			continue
		}
		if isEscaped(value) {
			var err error
			if value, err = url.QueryUnescape(value); err != nil {
				continue
			}
		}
		*into = value
	}
	return p
}

// isEscaped reports whether a value is other than it stands in the query. It is
// short: two searches cost more than one loop.
func isEscaped(value string) bool {
	for i := range len(value) {
		if c := value[i]; c == '%' || c == '+' {
			return true
		}
	}
	return false
}

// parseScheme reads the protocol parameter.
func parseScheme(s string) (scheme, *refusal) {
	switch {
	case s == "":
		return anyScheme, nil
	case strings.EqualFold(s, "http"):
		return httpScheme, nil
	case strings.EqualFold(s, "https"):
		return httpsScheme, nil
	}
	return 0, badRequest("unknown protocol %q: write protocol=http or protocol=https, or leave it out", clip(s))
}

// parseCountry reads the country parameter. UK is what people write for GB.
func parseCountry(s string) (c [2]byte, no *refusal) {
	if s == "" {
		return c, nil
	}
	if len(s) != 2 || !isLetter(s[0]) || !isLetter(s[1]) {
		return c, badRequest("malformed country %q: write one code of two letters, such as country=DE", clip(s))
	}
	c[0], c[1] = s[0]&^0x20, s[1]&^0x20
	if c == [2]byte{'U', 'K'} {
		c = [2]byte{'G', 'B'}
	}
	return c, nil
}

func isLetter(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

// clip keeps what a client sent short enough to be repeated to it.
func clip(s string) string {
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

// listRequest turns the names of a list into a question. When the answer is the
// vault, whatever else was asked, vault is its only URL.
func (t *Table) listRequest(version, repo, userAgent string, p params) (q question, vault string, no *refusal) {
	r := t.release(version)
	if r == nil {
		return q, "", t.unknownVersion(version)
	}
	found := r.repos[repo]
	if found == nil {
		return q, "", t.unknownRepo(repo)
	}
	slot := allArches
	if p.arch != "" {
		a := r.arch(p.arch)
		if a < 0 {
			return q, "", unknownArch(r, p.arch)
		}
		slot = r.archSlot(a)
	} else if t.snap != nil {
		slot = r.slotOf(userAgent)
	}
	q.slot, q.tree = found.slots[slot], r.tree
	named := q.slot
	if p.arch == "" {
		named = found.slots[allArches] // who names no arch puts in its own
	}
	if no := t.health[q.slot].gone; no != nil {
		return q, "", no
	}
	if q.suffix = t.slots[named].suffix; found.vault {
		return q, t.network.VaultMirror + q.suffix, nil
	}
	if q.want, no = parseScheme(p.protocol); no != nil {
		return q, "", no
	}
	if q.country, no = parseCountry(p.country); no != nil {
		return q, "", no
	}
	return q, "", nil
}

// isoRequest turns the names of a list of ISO images into a question, like
// listRequest.
func (t *Table) isoRequest(version, arch string, p params) (q question, vault string, no *refusal) {
	r := t.release(version)
	if r == nil {
		return q, "", t.unknownVersion(version)
	}
	a := r.arch(arch)
	if a < 0 {
		return q, "", unknownArch(r, arch)
	}
	q.slot, q.tree, q.public = r.isos[a], r.tree, true
	if no := t.health[q.slot].gone; no != nil {
		return q, "", no
	}
	if q.suffix = t.slots[q.slot].suffix; r.vault {
		return q, t.network.VaultMirror + q.suffix, nil
	}
	if q.want, no = parseScheme(p.protocol); no != nil {
		return q, "", no
	}
	if q.country, no = parseCountry(p.country); no != nil {
		return q, "", no
	}
	return q, "", nil
}

// splitRepo splits the NAME-VERSION of the query form. Both may contain a "-":
// the first split of which both halves are known wins.
func (t *Table) splitRepo(s string) (repo, version string, no *refusal) {
	for i := range len(s) {
		if s[i] != '-' {
			continue
		}
		if _, ok := t.network.Repo(s[:i]); ok && t.release(s[i+1:]) != nil {
			return s[:i], s[i+1:], nil
		}
	}
	return "", "", notFound("unknown repository and version %q: write NAME-VERSION, such as repo=%s", clip(s), t.exampleRepo())
}

// slotOf finds the slot for a client that named no arch but says in its
// User-Agent what it is, as libdnf does: libdnf (NAME VERSION; VARIANT;
// OS.ARCH). It serves health alone: the URLs keep $basearch.
func (r *release) slotOf(userAgent string) int {
	if !strings.HasPrefix(userAgent, "libdnf") {
		return allArches
	}
	_, last, ok := strings.Cut(userAgent[strings.LastIndexByte(userAgent, ';')+1:], ".")
	if !ok {
		return allArches
	}
	arch := strings.TrimRight(last, ") ")
	if arch == "x86_64" {
		return r.x86Slot()
	}
	if a := r.arch(arch); a >= 0 {
		return r.archSlot(a)
	}
	return allArches
}

func (t *Table) unknownVersion(version string) *refusal {
	return notFound("Unknown version %q. Write one of: %s", clip(version), strings.Join(t.versionNames(), ", "))
}

// versionNames lists what clients may ask for, in the order of the network file.
func (g *geometry) versionNames() []string {
	var out []string
	seen := map[schema.Version]bool{}
	for _, list := range [][]schema.Version{g.network.Versions, g.network.Served(), g.network.Vault} {
		for _, v := range list {
			if !seen[v] {
				seen[v] = true
				out = append(out, string(v))
			}
		}
	}
	return out
}

func (t *Table) unknownRepo(repo string) *refusal {
	names := make([]string, len(t.network.Repos))
	for i, r := range t.network.Repos {
		names[i] = r.Name
	}
	return notFound("Unknown repository %q. Write one of: %s", clip(repo), strings.Join(names, ", "))
}

func unknownArch(r *release, arch string) *refusal {
	names := make([]string, len(r.arches))
	for i, a := range r.arches {
		names[i] = string(a)
	}
	return notFound("Unknown architecture %q for version %s. Write one of: %s", clip(arch), r.version, strings.Join(names, ", "))
}

// exampleNames are a repository and a version of it that can be asked for.
func (t *Table) exampleNames() (repo, version string) {
	for i := range t.network.Repos {
		r := &t.network.Repos[i]
		for _, v := range t.network.Served() {
			if !r.Vault && t.network.Allows(v, r, "") {
				return r.Name, string(v)
			}
		}
	}
	return "baseos", "9"
}

func (t *Table) exampleRepo() string {
	repo, version := t.exampleNames()
	return repo + "-" + version
}

// clientOf finds out who asks. The peer is the client, unless it is a trusted
// proxy: then the right-most address of X-Forwarded-For that is not a trusted
// proxy itself, or the value of header when that is configured. A proxy that
// names nobody, or something that is no address, makes a client without one:
// never everything.
func clientOf(r *http.Request, trusted []netip.Prefix, header string, secret uint64) client {
	peer := peerClient(r, secret)
	if !contains(trusted, peer.addr) {
		return peer
	}
	if header != "" {
		// Two of them are a client's beside the proxy's, and nobody knows which.
		v := strings.Join(r.Header.Values(header), "\n")
		if a, ok := parseAddr(v); ok {
			return knownClient(a, secret)
		}
		return namelessClient(v, secret)
	}
	var leftmost netip.Addr
	lines := r.Header["X-Forwarded-For"]
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			var last string
			if j := strings.LastIndexByte(rest, ','); j >= 0 {
				rest, last = rest[:j], rest[j+1:]
			} else {
				last, more = rest, false
			}
			a, ok := parseAddr(last)
			if !ok {
				return namelessClient(lines[i], secret)
			}
			if !contains(trusted, a) {
				return knownClient(a, secret)
			}
			leftmost = a
		}
	}
	if leftmost.IsValid() {
		return knownClient(leftmost, secret) // a proxy asks for itself
	}
	return namelessClient("", secret)
}

func knownClient(a netip.Addr, secret uint64) client {
	if !a.IsValid() {
		return namelessClient("", secret)
	}
	return client{addr: a, hash: prefixHash(a, secret)}
}

// namelessClient keeps what was sent instead of an address, so that such clients
// do not all get one order.
func namelessClient(sent string, secret uint64) client {
	return client{hash: xxh3.HashStringSeed(sent, secret)}
}

// caller is who is at the other end of a connection, if that is the client.
type caller struct {
	client
	secret uint64 // of the hash
}

type callerKey struct{}

// withCaller is a http.Server's ConnContext. It reads the address of a connection
// once for all requests: dnf makes two for each repository, and proxies make many.
func (s *Server) withCaller(ctx context.Context, conn net.Conn) context.Context {
	secret := s.table.Load().secret
	return context.WithValue(ctx, callerKey{}, &caller{knownClient(peerOf(conn.RemoteAddr().String()), secret), secret})
}

// peerClient takes the peer of a request for its client.
func peerClient(r *http.Request, secret uint64) client {
	if c, ok := r.Context().Value(callerKey{}).(*caller); ok && c.secret == secret {
		return c.client
	}
	return knownClient(peerOf(r.RemoteAddr), secret)
}

// peerOf reads the address of a connection.
func peerOf(remote string) netip.Addr {
	a, _ := parseAddr(remote)
	return a
}

// parseAddr reads an address with or without a port, as proxies write it: ip,
// ip:port, [v6], [v6]:port. IPv4-mapped addresses are unmapped and zones are
// dropped.
func parseAddr(s string) (netip.Addr, bool) {
	s = strings.Trim(s, " \t")
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 || end+1 < len(s) && (s[end+1] != ':' || !isPort(s[end+2:])) {
			return netip.Addr{}, false
		}
		s = s[1:end]
	} else if i := strings.IndexByte(s, ':'); i >= 0 && strings.IndexByte(s[i+1:], ':') < 0 {
		if !isPort(s[i+1:]) {
			return netip.Addr{}, false
		}
		s = s[:i]
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, false
	}
	return a.Unmap().WithZone(""), true
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// hostOf returns the host of a base URL, without port.
func hostOf(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
