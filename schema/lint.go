package schema

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"meridian/internal/strictyaml"
)

// farFromCountry in km: how far from its declared country a mirror may say that
// it stands. Borders are known here only roughly.
const farFromCountry = 1000

// The widest subnets that a reviewer need not look at: a large university has an
// IPv4 /16, a provider an IPv6 /32.
const (
	widestIPv4 = 16
	widestIPv6 = 32
)

// Lint looks at mirrors as a reviewer does, each by itself and all of them
// together, and reports what ParseMirror cannot see. It opens no connection:
// whether an ASN or a subnet belongs to the operator it cannot know, only whether
// that is unlikely (another mirror claims it, it is reserved, it belongs to a
// large hosting provider). Without a network (nil), what depends on it is not
// looked at. Problems are sorted as by SortProblems.
func Lint(n *Network, mirrors []*Mirror) []Problem {
	about := map[*Mirror]*findings{}
	for _, m := range mirrors {
		about[m] = &findings{file: cmp.Or(m.path, m.File)}
	}
	lintMirrors(n, mirrors, about)
	var problems []Problem
	for _, m := range mirrors {
		problems = append(problems, about[m].all()...)
	}
	SortProblems(problems)
	return problems
}

// lintMirrors adds to about what Lint reports. Mirrors that are not in about are
// compared with the others, and not complained of.
func lintMirrors(n *Network, mirrors []*Mirror, about map[*Mirror]*findings) {
	l := &linter{n, about}
	for _, m := range mirrors {
		if about[m] == nil {
			continue
		}
		l.identity(m)
		l.place(m)
		l.reach(m)
		l.cloudsAndASN(m)
		if n != nil {
			l.againstNetwork(m)
		}
	}
	l.sameNames(mirrors)
	l.sameURLs(mirrors)
	l.sameASN(mirrors)
	l.overlaps(mirrors)
}

type linter struct {
	network *Network
	about   map[*Mirror]*findings
}

func (l *linter) add(isError bool, m *Mirror, path, remedy, text string, args ...any) {
	l.addAt(isError, m, m.line(path), path, remedy, text, args...)
}

func (l *linter) addAt(isError bool, m *Mirror, line int, path, remedy, text string, args ...any) {
	f := l.about[m]
	if f == nil {
		return
	}
	if line == 0 && f.file != "" {
		line = 1 // what is missing is missing from the top
	}
	f.keep(Problem{Line: line, Path: path, Error: isError, Text: fmt.Sprintf(text, args...), Remedy: remedy})
}

func (l *linter) warn(m *Mirror, path, remedy, text string, args ...any) {
	l.add(false, m, path, remedy, text, args...)
}

// identity: the mirror, its file and its host have one name.
func (l *linter) identity(m *Mirror) {
	if want := m.Name + ".yml"; m.File != "" && m.File != want {
		l.warn(m, "name", "rename the file to "+want, "the file of %q is named %s", m.Name, m.File)
	}
	for _, u := range m.Address.all() {
		parsed, err := url.Parse(u.url)
		if err != nil || u.scheme != "http" && u.scheme != "https" {
			continue
		}
		if host := parsed.Hostname(); !strings.EqualFold(host, m.Name) {
			l.warn(m, "address."+u.scheme, "name the mirror "+host+", or use a URL on "+m.Name, "the host %s is not the mirror's name", host)
			break
		}
	}
	// An address that cannot be read was reported when it was read.
	if m.Email == "" && !m.writes("email") {
		l.warn(m, "email", "write email: and an address that people read", "nobody can be told when the mirror breaks")
	}
}

type schemeURL struct{ scheme, url string }

// all returns the URLs of a in the order of addressKeys.
func (a Address) all() []schemeURL {
	var urls []schemeURL
	for _, scheme := range addressKeys {
		if u := *a.slot(scheme); u != "" {
			urls = append(urls, schemeURL{scheme, u})
		}
	}
	return urls
}

// place: the parts of geolocation agree.
func (l *linter) place(m *Mirror) {
	loc := m.Location
	switch {
	case loc.Country == "" && loc.HasCoordinates && !m.writes("geolocation.country"):
		l.warn(m, "geolocation", "write country: too", "coordinates without a country; clients of the country are not sent here first")
	case loc.Country == "" && !m.writes("geolocation.country"):
		l.warn(m, "geolocation", "write geolocation: with country, and better with latitude and longitude", "the mirror does not say where it is; a database of addresses is asked")
	}
	if want := Continent(loc.Country); loc.Continent != "" && want != "" && loc.Continent != want && !twoContinents[loc.Country] {
		l.warn(m, "geolocation.continent", "write "+want, "%s is in %s, not in %s", CountryName(loc.Country), want, loc.Continent)
	}
	if !loc.HasCoordinates {
		return
	}
	if loc.Latitude == 0 && loc.Longitude == 0 {
		l.warn(m, "geolocation.latitude", "write where the mirror is, or remove both coordinates", "0, 0 is in the ocean")
		return
	}
	if km := outside(loc.Country, loc.Latitude, loc.Longitude); km > farFromCountry {
		remedy := "correct the country or the coordinates"
		switch {
		case outside(loc.Country, loc.Longitude, loc.Latitude) == 0 && loc.Longitude >= -90 && loc.Longitude <= 90:
			remedy = "exchange latitude and longitude"
		case outside(loc.Country, loc.Latitude, -loc.Longitude) == 0, outside(loc.Country, -loc.Latitude, loc.Longitude) == 0:
			remedy = "correct the sign: south and west are negative"
		}
		l.warn(m, "geolocation.latitude", remedy, "the coordinates are about %d km away from %s", int(km/100)*100, CountryName(loc.Country))
	}
}

// twoContinents are countries whose operators may name either.
var twoContinents = map[string]bool{"RU": true, "TR": true, "KZ": true, "EG": true, "GE": true, "AZ": true, "AM": true, "CY": true, "ID": true}

// reach: who is sent to the mirror.
func (l *linter) reach(m *Mirror) {
	onNet := len(m.Subnets) > 0 || m.SubnetsURL != "" || len(m.ASN) > 0
	switch {
	case m.Private && !onNet && m.CloudType == "":
		l.warn(m, "private", "write subnets: or asn: to say whose clients are sent here, or private: false", "a private mirror without subnets or asn is listed to nobody")
	case m.Monopoly && !onNet && m.CloudType == "":
		l.warn(m, "monopoly", "write subnets: or asn:, or remove it", "without subnets or asn, monopoly changes nothing")
	}
	if m.Monopoly {
		l.warn(m, "monopoly", "remove it unless the administrators of the network agreed", "the clients of this mirror get no other, even when it fails; only administrators set this")
	}
	if m.Anycast && len(m.ASN) > 0 {
		l.warn(m, "asn", "remove asn or anycast", "an anycast mirror is not matched by ASN")
	}
	for i, p := range m.Subnets {
		widest := widestIPv4
		if p.Addr().Is6() {
			widest = widestIPv6
		}
		if p.Bits() < widest {
			l.subnet(m, i, "list the networks that are yours, or tell the reviewer why", "%s is wider than /%d", p, widest)
		}
	}
}

// subnet reports something about one of m.Subnets, at its own line.
func (l *linter) subnet(m *Mirror, i int, remedy, text string, args ...any) {
	line := m.line("subnets")
	if i < len(m.subnetLines) {
		line = m.subnetLines[i]
	}
	l.addAt(false, m, line, "subnets", remedy, text, args...)
}

// hosts are providers that rent out machines: who rents one and declares the
// provider's ASN is sent the clients of all its customers.
var hosts = map[uint32]string{
	14618: "Amazon", 16509: "Amazon", 8075: "Microsoft", 15169: "Google", 396982: "Google", 31898: "Oracle",
	13335: "Cloudflare", 54113: "Fastly", 20940: "Akamai", 63949: "Linode", 14061: "DigitalOcean",
	16276: "OVH", 24940: "Hetzner", 20473: "Vultr", 12876: "Scaleway", 45102: "Alibaba",
}

func (l *linter) cloudsAndASN(m *Mirror) {
	if m.CloudType != "" {
		l.warn(m, "cloud_type", "remove it unless the administrators of the network agreed", "the mirror takes the clients of %s; only administrators set this", m.CloudType)
	}
	for _, a := range m.ASN {
		switch name := hosts[a]; {
		case a == 23456 || a == 65535:
			l.warn(m, "asn", "write the number that your provider announces", "AS%d is reserved and has no clients", a)
		case a >= 64512 && a <= 65534, a >= 4200000000:
			l.warn(m, "asn", "write the number that your provider announces", "AS%d is for private use and is not seen on the Internet", a)
		case name != "" && !strings.Contains(strings.ToLower(m.Sponsor), strings.ToLower(name)) && m.CloudType == "":
			l.warn(m, "asn", "remove it unless the mirror is for all of them", "AS%d is %s, whose customers would all be sent here", a, name)
		}
	}
}

func (l *linter) againstNetwork(m *Mirror) {
	n := l.network
	if !n.Offers(m) {
		l.add(true, m, "address", "write a URL below "+strings.Join(n.RequiredProtocols, " or "), "the network requires one of %s", strings.Join(n.RequiredProtocols, ", "))
	}
	modules := make([]string, len(n.Modules))
	for i, mod := range n.Modules {
		modules[i] = mod.Name
	}
	for _, name := range slices.Sorted(maps.Keys(m.AddressOptional)) {
		if slices.Contains(modules, name) {
			continue
		}
		remedy := "remove it; the network has no modules"
		if near, ok := strictyaml.Nearest(name, modules); ok {
			remedy = "write " + near
		} else if len(modules) > 0 {
			remedy = "write one of " + strings.Join(modules, ", ")
		}
		l.warn(m, "address_optional."+name, remedy, "the network has no module %q", name)
	}
	if m.UpdateFrequency >= n.AllowedOutdate {
		l.warn(m, "update_frequency", "sync more often", "a mirror that syncs every %s is too old, before it syncs, for a network that allows %s", FormatDuration(m.UpdateFrequency), FormatDuration(n.AllowedOutdate))
	}
	var arches []Arch
	for _, all := range n.Arches {
		arches = append(arches, all...)
	}
	for i, v := range m.Carries.Versions {
		if _, ok := n.Resolve(string(v)); !ok && !n.isMajor(v) {
			l.warn(m, fmt.Sprintf("carries.versions[%d]", i), "write a version of the network", "%q is not a version of the network", v)
		}
	}
	for i, a := range m.Carries.Arches {
		if !slices.Contains(arches, a) {
			l.warn(m, fmt.Sprintf("carries.arches[%d]", i), "write an architecture of the network", "%q is not an architecture of the network", a)
		}
	}
	carriesSome := slices.ContainsFunc(n.Served(), func(v Version) bool {
		return slices.ContainsFunc(n.ArchesOf(v), func(a Arch) bool { return m.Carries.Has(n, v, a) })
	})
	if !carriesSome && !m.Carries.Nothing {
		l.add(true, m, "carries", "correct versions and arches", "the mirror carries nothing that the network serves")
	}
}

// base names a mirror's file in a message about another.
func (m *Mirror) base() string { return cmp.Or(m.File, m.Name) }

func (l *linter) sameNames(mirrors []*Mirror) {
	first := map[string]*Mirror{}
	for _, m := range mirrors {
		name := strings.ToLower(m.Name)
		if other := first[name]; other != nil {
			l.add(true, m, "name", "give every mirror its own name", "%q is the mirror of %s already", m.Name, other.base())
			continue
		}
		first[name] = m
	}
}

func (l *linter) sameURLs(mirrors []*Mirror) {
	type use struct {
		m    *Mirror
		path string
	}
	first := map[string]use{}
	look := func(m *Mirror, a Address, path string) {
		for _, u := range a.all() {
			here := use{m, path + "." + u.scheme}
			switch other := first[u.url]; {
			case other.m == nil:
				first[u.url] = here
			case other.m == m:
				l.warn(m, here.path, "write where this tree is", "%s has the same URL", other.path)
			default:
				l.add(true, m, here.path, "write a URL of this mirror", "%s has the same URL", other.m.base())
			}
		}
	}
	for _, m := range mirrors {
		look(m, m.Address, "address")
		for _, name := range slices.Sorted(maps.Keys(m.AddressOptional)) {
			look(m, m.AddressOptional[name], "address_optional."+name)
		}
	}
}

// sameASN: several mirrors of one operator may share its ASN, so this is for the
// reviewer. Both sides are told, for either may be the one that is reviewed.
func (l *linter) sameASN(mirrors []*Mirror) {
	owners := map[uint32][]*Mirror{}
	for _, m := range mirrors {
		for _, a := range m.ASN {
			owners[a] = append(owners[a], m)
		}
	}
	for _, m := range mirrors {
		for _, a := range m.ASN {
			for _, other := range owners[a] {
				if other != m && !sameOperator(m, other) {
					l.warn(m, "asn", "keep it only where it is the operator's own", "AS%d is declared by %s too", a, other.base())
					break
				}
			}
		}
	}
}

func sameOperator(a, b *Mirror) bool {
	return a.Sponsor != "" && strings.EqualFold(a.Sponsor, b.Sponsor)
}

// overlaps tells both mirrors of each pair whose subnets overlap, once a pair.
// Nesting is allowed (the longest prefix wins), but rarely meant.
func (l *linter) overlaps(mirrors []*Mirror) {
	type owned struct {
		p netip.Prefix
		m *Mirror
		i int // in m.Subnets
	}
	var all []owned
	for _, m := range mirrors {
		for i, p := range m.Subnets {
			all = append(all, owned{p, m, i})
		}
	}
	// Sorted by address and then by length, every prefix comes behind those that
	// contain it; the stack holds these.
	slices.SortStableFunc(all, func(a, b owned) int {
		return cmp.Or(a.p.Addr().Compare(b.p.Addr()), cmp.Compare(a.p.Bits(), b.p.Bits()))
	})
	type pair struct{ a, b *Mirror }
	told := map[pair]bool{}
	var around []owned
	for _, in := range all {
		for len(around) > 0 && !around[len(around)-1].p.Contains(in.p.Addr()) {
			around = around[:len(around)-1]
		}
		for _, out := range around {
			if out.m == in.m || told[pair{out.m, in.m}] {
				continue
			}
			told[pair{out.m, in.m}], told[pair{in.m, out.m}] = true, true
			const remedy = "keep only what is the operator's own"
			if in.p == out.p {
				l.subnet(in.m, in.i, remedy, "%s is a subnet of %s too", in.p, out.m.base())
				l.subnet(out.m, out.i, remedy, "%s is a subnet of %s too", in.p, in.m.base())
				continue
			}
			l.subnet(in.m, in.i, remedy, "%s is inside %s of %s", in.p, out.p, out.m.base())
			l.subnet(out.m, out.i, remedy, "%s contains %s of %s", out.p, in.p, in.m.base())
		}
		around = append(around, in)
	}
}

// LintMirror is ParseMirror for people who write the file: it also reports what
// the JSON Schema asks for and the server does without.
func LintMirror(file string, data []byte) (*Mirror, []Problem) {
	r := newReader(file)
	m := r.lintMirror(data)
	return m, r.all()
}

func (r *reader) lintMirror(data []byte) *Mirror {
	root := r.document(data)
	if root == nil {
		return nil
	}
	m := r.mirror(root)
	r.validate(mirrorSchema(), root)
	return m
}

// LintNetwork is to LoadNetwork what LintMirror is to ParseMirror. The error is
// about reading the file; a network that cannot be used is nil.
func LintNetwork(path string) (*Network, []Problem, error) {
	data, err := strictyaml.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("schema: %w", err)
	}
	r := newReader(path)
	var n *Network
	if root := r.document(data); root != nil {
		n = r.network(root)
		r.validate(networkSchema(), root)
	}
	if n != nil {
		n.MirrorsDir = mirrorsDir(path, n.MirrorsDir)
		n.path, n.dirLine = path, max(1, r.lines.of("mirrors_dir"))
	}
	problems := r.all()
	SortProblems(problems)
	return n, problems, nil
}

// LintFiles reports what is wrong with the named mirror files, by themselves and
// beside the other mirrors of the network; with no names, what is wrong with all
// of the network's. Without a network (nil) only the named files are compared. A
// directory of mirrors that cannot be read is a problem of the network file when
// n comes from LintNetwork, else of the directory.
func LintFiles(n *Network, paths []string) []Problem {
	var (
		problems []Problem
		mirrors  []*Mirror
		all      []string
	)
	if n != nil {
		var odd []Problem
		var err error
		if all, odd, err = mirrorFiles(n.MirrorsDir); err != nil {
			problems = append(problems, n.noMirrors(err))
		}
		if len(paths) == 0 {
			paths, problems = all, append(problems, odd...)
			all = nil
		}
	}
	named := map[string]bool{}
	for _, path := range paths {
		named[entry(path)] = true
	}
	// The others come first, so that a clash is blamed on a named file.
	for _, other := range all {
		if named[entry(other)] {
			continue
		}
		if m, _ := LoadMirror(other); m != nil {
			mirrors = append(mirrors, m)
		}
	}
	var found []*findings
	about := map[*Mirror]*findings{}
	for _, path := range paths {
		if !named[entry(path)] {
			continue // named twice
		}
		delete(named, entry(path))
		r := newReader(path)
		found = append(found, r.findings)
		for _, p := range nameProblems(path) {
			r.keep(p)
		}
		data, err := strictyaml.ReadFile(path)
		if err != nil {
			r.keep(unreadable(path, err))
			continue
		}
		if m := r.lintMirror(data); m != nil {
			mirrors = append(mirrors, m)
			about[m] = r.findings
		}
	}
	lintMirrors(n, mirrors, about)
	for _, f := range found {
		problems = append(problems, f.all()...)
	}
	SortProblems(problems)
	return problems
}

// noMirrors reports that the directory of mirrors cannot be read.
func (n *Network) noMirrors(err error) Problem {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err // the directory is named before it
	}
	f := findings{file: cmp.Or(n.path, n.MirrorsDir)}
	f.keep(Problem{
		Line: n.dirLine, Path: "mirrors_dir", Error: true,
		Text:   fmt.Sprintf("%s: %v", n.MirrorsDir, err),
		Remedy: "write the directory of the mirror files, as seen from the directory of the network file",
	})
	return f.list[0]
}

// entry returns one name for a file in a directory, however the path to the
// directory is spelt. A link beside the file is another entry, for the server
// reads both.
func entry(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return filepath.Clean(path)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return abs
	}
	return filepath.Join(dir, filepath.Base(abs))
}
