package main

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// A logged request is what one line of an access log tells of it.
type logged struct {
	client netip.Addr
	method string
	target *url.URL // path and query alone
	agent  string   // "" where the log has none
}

// parseLine reads a line of an access log: in the combined format, which nginx and
// Apache write, with whatever follows it, or in that of gin.
func parseLine(line string) (r logged, ok bool) {
	if strings.HasPrefix(line, "[GIN] ") {
		return parseGin(line)
	}
	// ADDRESS IDENT USER [TIME] "METHOD TARGET PROTOCOL" STATUS BYTES "REFERER" "AGENT"
	addr, rest, _ := strings.Cut(line, " ")
	if r.client, ok = clientAddr(addr); !ok {
		return r, false
	}
	_, rest, ok = strings.Cut(rest, "] ")
	if !ok {
		return r, false
	}
	request, rest, ok := quoted(rest)
	if !ok || !r.request(request) {
		return r, false
	}
	if i := strings.IndexByte(rest, '"'); i >= 0 {
		_, rest, _ = quoted(rest[i:])
		if i := strings.IndexByte(rest, '"'); i >= 0 {
			r.agent, _, _ = quoted(rest[i:])
		}
	}
	if r.agent == "-" {
		r.agent = ""
	}
	// What no client could send again.
	r.agent = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return -1
		}
		return c
	}, r.agent)
	return r, true
}

// parseGin reads [GIN] TIME | STATUS | LATENCY | ADDRESS | METHOD "TARGET".
func parseGin(line string) (r logged, ok bool) {
	fields := strings.SplitN(line, "|", 5)
	if len(fields) != 5 {
		return r, false
	}
	if r.client, ok = clientAddr(strings.TrimSpace(fields[3])); !ok {
		return r, false
	}
	method, rest, ok := strings.Cut(strings.TrimSpace(fields[4]), " ")
	if !ok {
		return r, false
	}
	target, err := strconv.Unquote(strings.TrimSpace(rest))
	return r, err == nil && r.request(method+" "+target)
}

// request reads METHOD TARGET, and what follows.
func (r *logged) request(s string) bool {
	words := strings.Split(s, " ")
	if len(words) < 2 || len(words) > 3 || !strings.HasPrefix(words[1], "/") {
		return false
	}
	u, err := url.ParseRequestURI(words[1])
	if err != nil || u.Host != "" {
		return false
	}
	r.method, r.target = words[0], u
	return true
}

func clientAddr(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, false
	}
	return a.Unmap().WithZone(""), true
}

// quoted reads a quoted field, in which servers write \" or \x22 for a quote.
func quoted(s string) (field, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		return "", s, false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i+3 < len(s) && s[i+1] == 'x' {
				if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
					b.WriteByte(byte(n))
					i += 3
					continue
				}
			}
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

// isList reports whether a request is for what both servers answer with mirrors.
func (r *logged) isList() bool {
	if r.method != "GET" && r.method != "HEAD" {
		return false
	}
	for _, prefix := range []string{"/mirrorlist", "/metalink", "/isolist"} {
		if rest, ok := strings.CutPrefix(r.target.Path, prefix); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

// uncounted returns the target without countme: replaying it would count the
// system once more.
func (r *logged) uncounted() string {
	u := url.URL{Path: r.target.Path, RawPath: r.target.RawPath}
	pairs := strings.Split(r.target.RawQuery, "&")
	u.RawQuery = strings.Join(slices.DeleteFunc(pairs, func(pair string) bool {
		return pair == "" || pair == "countme" || strings.HasPrefix(pair, "countme=")
	}), "&")
	return u.String()
}

// shown returns what may be printed of a target: its path, and the parameters
// that a list depends on. Everything else is the client's.
func (r *logged) shown() string {
	u := url.URL{Path: r.target.Path}
	values := url.Values{}
	for name, all := range r.target.Query() {
		switch name {
		case "arch", "repo", "protocol", "country":
			values[name] = all
		}
	}
	u.RawQuery = values.Encode()
	s := u.String()
	if len(s) > maxShown {
		s = s[:maxShown] + "…"
	}
	return s
}

// maxShown bounds what is printed of what somebody else wrote.
const maxShown = 200
