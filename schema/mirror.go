package schema

import (
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"gopkg.in/yaml.v3"

	"meridian/internal/strictyaml"
)

// The keys of a mirror file, in the order in which people write them.
var (
	mirrorKeys = []string{
		"name", "address", "address_optional", "update_frequency", "sponsor", "sponsor_url", "email",
		"geolocation", "private", "monopoly", "subnets", "asn", "cloud_type", "cloud_regions",
		"bandwidth", "anycast", "carries",
	}
	addressKeys     = []string{"http", "https", "rsync", "ftp"}
	geolocationKeys = []string{"continent", "country", "state_province", "city", "latitude", "longitude"}
	carriesKeys     = []string{"versions", "arches", "isos"}

	// Keys that are indented too far or not far enough.
	misplacedInMirror  = belong("below geolocation", geolocationKeys, belong("below address", addressKeys, belong("below carries", carriesKeys, nil)))
	misplacedInSection = belong("without indentation", mirrorKeys, nil)
)

func belong(where string, keys []string, more map[string]string) map[string]string {
	m := map[string]string{}
	for k, v := range more {
		m[k] = v
	}
	for _, k := range keys {
		m[k] = where
	}
	return m
}

// cloudTypes are the providers, and other names that people give them.
var cloudTypes = map[string]string{
	"aws": "aws", "azure": "azure", "gcp": "gcp", "oci": "oci",
	"amazon": "aws", "ec2": "aws", "microsoft": "azure", "google": "gcp", "gce": "gcp", "oracle": "oci",
}

// ParseMirror reads one file of mirrors.d, whose text is data. It repairs what
// has one meaning only, leaves out what cannot be used, and reports both. The
// mirror is nil when it has no name or no http or https URL, or when the file is
// no YAML; then at least one problem is an error.
func ParseMirror(file string, data []byte) (*Mirror, []Problem) {
	r := newReader(file)
	var m *Mirror
	if root := r.document(data); root != nil {
		m = r.mirror(root)
	}
	return m, r.all()
}

func (r *reader) mirror(root *yaml.Node) *Mirror {
	s := r.section(root, "", mirrorKeys, misplacedInMirror)
	m := &Mirror{
		File:            filepath.Base(r.file),
		UpdateFrequency: s.duration("update_frequency", DefaultUpdateFrequency, time.Minute, 30*24*time.Hour),
		Sponsor:         s.text("sponsor"),
		SponsorURL:      s.sponsorURL("sponsor_url"),
		Email:           s.email("email"),
		Anycast:         s.flag("anycast"),
		Monopoly:        s.flag("monopoly"),
		Bandwidth:       s.bandwidth("bandwidth"),
		ASN:             s.asn("asn"),
	}
	name, nameNode := s.scalar("name")
	m.Name = name

	// A mirror whose privacy cannot be read may be unreachable from outside:
	// keep it from the public.
	private, ok := s.boolean("private")
	m.Private = private || !ok
	s.cloud(m)
	s.subnets(m)

	if n := s.values["geolocation"]; n != nil {
		r.location(n, m)
	}
	if n := s.values["address"]; n != nil {
		m.Address = r.address(n, "address")
	}
	if n := s.values["address_optional"]; n != nil {
		m.AddressOptional = r.modules(n)
	}
	if n := s.values["carries"]; n != nil {
		m.Carries = r.carries(n)
	}

	usable := true
	switch {
	case nameNode == nil:
		r.add(true, root.Line, "name", "the mirror has no name", "write name: and the mirror's host name")
		usable = false
	case strings.ContainsFunc(name, func(c rune) bool { return c == '/' || c == '\\' || unicode.IsControl(c) }) || len(name) > 253:
		r.errorf(nameNode, "name", "write the mirror's host name", "%s cannot name a mirror", quote(nameNode))
		usable = false
	case !validHost(name):
		r.warnf(nameNode, "name", "write the mirror's host name", "%s is not a host name", quote(nameNode))
	}
	if m.Address.HTTP == "" && m.Address.HTTPS == "" {
		at := root
		if n := s.values["address"]; n != nil {
			at = n
		}
		r.errorf(at, "address", "write https: https://HOST/PATH/ below address", "the mirror has neither an http nor an https URL")
		usable = false
	}
	if !usable {
		return nil
	}
	m.path, m.lines = r.file, r.lines
	return m
}

// line returns where path stands in the file of m, or where the key around it
// does; 0 for a mirror that was not read from a file.
func (m *Mirror) line(path string) int { return m.lines.of(path) }

// writes tells whether the file of m has that key, whatever became of it.
func (m *Mirror) writes(path string) bool {
	_, ok := m.lines[path]
	return ok
}

func (s section) flag(key string) bool {
	v, _ := s.boolean(key)
	return v
}

func (s section) sponsorURL(key string) string {
	v, n := s.scalar(key)
	if n == nil {
		return ""
	}
	u, fault := webURL(v)
	switch {
	case fault == "":
	case !strings.Contains(v, "://"):
		if u, fault = webURL("https://" + v); fault == "" {
			s.r.warnf(n, s.at(key), "write "+u, "%s has no scheme", quote(n))
		}
	}
	if fault != "" {
		s.r.errorf(n, s.at(key), "write https://HOST/", "%s is not a web address", quote(n))
		return ""
	}
	return u
}

func (s section) email(key string) string {
	v, n := s.scalar(key)
	if n == nil {
		return ""
	}
	v = strings.TrimPrefix(v, "mailto:")
	// No more is asked than that mail software will not take it for anything but
	// an address.
	local, domain, ok := strings.Cut(v, "@")
	if !ok || local == "" || domain == "" || strings.ContainsFunc(v, func(c rune) bool { return unicode.IsControl(c) || strings.ContainsRune(" \t\"<>(),;", c) }) {
		s.r.errorf(n, s.at(key), "write one address, such as mirror-admin@example.org", "%s is not an e-mail address", quote(n))
		return ""
	}
	return v
}

func (s section) bandwidth(key string) int {
	v, n := s.scalar(key)
	if n == nil {
		return DefaultBandwidth
	}
	const most = 100_000_000
	if mbit, err := strconv.Atoi(v); err == nil && mbit >= 1 && mbit <= most {
		return mbit
	}
	word := strings.ToLower(v)
	for _, tail := range []string{"/s", "ps", "bit", "b"} {
		word = strings.TrimSuffix(word, tail)
	}
	scale := 0.0
	switch {
	case strings.HasSuffix(word, "g"):
		scale = 1000
	case strings.HasSuffix(word, "m"):
		scale = 1
	}
	if scale > 0 {
		f, err := strconv.ParseFloat(strings.TrimSpace(word[:len(word)-1]), 64)
		if mbit := math.Round(f * scale); err == nil && mbit >= 1 && mbit <= most {
			s.r.warnf(n, s.at(key), fmt.Sprintf("write %d", int(mbit)), "%s is read as %d Mbit/s", quote(n), int(mbit))
			return int(mbit)
		}
	}
	s.r.errorf(n, s.at(key), "write a whole number of Mbit/s, such as 10000", "%s is not a bandwidth; %d is taken", quote(n), DefaultBandwidth)
	return DefaultBandwidth
}

// asn reads numbers, in any of the ways that people write them.
func (s section) asn(key string) (all []uint32) {
	for i, n := range s.list(key) {
		path := fmt.Sprintf("%s[%d]", s.at(key), i)
		if s.values[key].Kind == yaml.ScalarNode {
			path = s.at(key)
		}
		words := strings.FieldsFunc(n.Value, func(c rune) bool { return unicode.IsSpace(c) || c == ',' || c == ';' })
		// "AS 1" is one number.
		if len(words) == 2 && (strings.EqualFold(words[0], "AS") || strings.EqualFold(words[0], "ASN")) {
			words = []string{words[0] + words[1]}
		}
		plain := len(words) == 1
		var read []string
		for _, w := range words {
			digits := strings.TrimLeft(w, "ASNasn")
			v, err := strconv.ParseUint(digits, 10, 32)
			if err != nil || v == 0 || v == math.MaxUint32 {
				s.r.errorf(n, path, "write a number such as 64496", "%q is not the number of an autonomous system", strictyaml.Clip(w))
				continue
			}
			if plain = plain && digits == w && n.Value == w; slices.Contains(all, uint32(v)) {
				s.r.warnf(n, path, "remove one", "%d is listed twice", v)
				continue
			}
			if s.isFull(len(all), n, path) {
				return all
			}
			all = append(all, uint32(v))
			read = append(read, strconv.FormatUint(v, 10))
		}
		if !plain && len(read) > 0 {
			numbers := strictyaml.Clip(strings.Join(read, " and "))
			s.r.warnf(n, path, "write "+numbers, "%s is read as %s", quote(n), numbers)
		}
	}
	return all
}

func (s section) cloud(m *Mirror) {
	v, n := s.scalar("cloud_type")
	regions := s.list("cloud_regions")
	switch {
	case n != nil:
		known, ok := cloudTypes[strings.ToLower(v)]
		switch {
		case !ok:
			// A mirror inside a cloud is often unreachable from outside.
			s.r.errorf(n, "cloud_type", "write aws, azure, gcp or oci", "%s is not a cloud; the mirror is kept from the public", quote(n))
			m.Private = true
			return
		case known != v:
			s.r.warnf(n, "cloud_type", "write "+known, "%s is read as %q", quote(n), known)
		}
		m.CloudType = known
		if len(regions) == 0 {
			s.r.errorf(n, "cloud_regions", "write cloud_regions: [all], or the regions", "a mirror inside a cloud without regions is listed to nobody there")
		}
	case s.values["cloud_regions"] != nil && s.values["cloud_type"] == nil:
		s.r.errorf(s.values["cloud_regions"], "cloud_regions", "write cloud_type: aws, azure, gcp or oci", "regions without a cloud_type mean nothing")
		return
	}
	if n := s.values["cloud_regions"]; len(regions) > 0 && n.Kind == yaml.ScalarNode {
		s.r.warnf(n, "cloud_regions", fmt.Sprintf("write [%s]", strictyaml.Clip(strings.TrimSpace(n.Value))), "%s is not in a list", quote(n))
	}
	for _, n := range regions {
		for word := range strings.FieldsFuncSeq(n.Value, func(c rune) bool { return unicode.IsSpace(c) || c == ',' }) {
			switch {
			case strings.EqualFold(word, "all"):
				m.AllRegions = true
			case slices.Contains(m.CloudRegions, word):
			case s.isFull(len(m.CloudRegions), n, "cloud_regions"):
				return
			default:
				m.CloudRegions = append(m.CloudRegions, word)
			}
		}
	}
	if m.AllRegions && len(m.CloudRegions) > 0 {
		s.r.warnf(regions[0], "cloud_regions", "write all alone, or the regions alone", "all stands beside single regions; all counts")
		m.CloudRegions = nil
	}
}

func (s section) subnets(m *Mirror) {
	const key = "subnets"
	seen := map[netip.Prefix]bool{}
	for i, n := range s.list(key) {
		path := fmt.Sprintf("%s[%d]", key, i)
		if s.values[key].Kind == yaml.ScalarNode {
			path = key
		}
		v := strings.TrimSpace(n.Value)
		if strings.Contains(v, "://") {
			u, fault := webURL(v)
			switch {
			case fault != "":
				s.r.errorf(n, path, "write the http or https URL of a JSON list", "%s: %s", quote(n), fault)
			case m.SubnetsURL != "":
				s.r.errorf(n, path, "join the lists into one", "a second URL is not read")
			default:
				if m.SubnetsURL = u; path != key {
					s.r.warnf(n, path, "write subnets: "+u, "a URL inside a list")
				}
			}
			continue
		}
		p, note, ok := readPrefix(v)
		switch {
		case !ok:
			s.r.errorf(n, path, "write ADDRESS/LENGTH, such as 192.0.2.0/24", "%s is not a subnet", quote(n))
			continue
		case p.Bits() == 0:
			s.r.errorf(n, path, "write the networks that are yours", "%s is the whole Internet", quote(n))
			continue
		case note != "":
			s.r.warnf(n, path, "write "+p.String(), "%s %s", quote(n), note)
		}
		if seen[p] {
			s.r.warnf(n, path, "remove one", "%s is listed twice", p)
			continue
		}
		seen[p] = true
		m.Subnets = append(m.Subnets, p)
		m.subnetLines = append(m.subnetLines, n.Line)
	}
}

// readPrefix reads a network or a single address, masked and not IPv4-mapped.
// note says what was repaired.
func readPrefix(v string) (p netip.Prefix, note string, ok bool) {
	p, err := netip.ParsePrefix(v)
	if err != nil {
		a, err := netip.ParseAddr(v)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, "", false
		}
		p, note = netip.PrefixFrom(a, a.BitLen()), "has no length"
	}
	if a := p.Addr(); a.Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, "", false
		}
		p, note = netip.PrefixFrom(a.Unmap(), p.Bits()-96), "is an IPv4 network written as IPv6"
	}
	if p != p.Masked() {
		p, note = p.Masked(), fmt.Sprintf("has bits set beyond its length of %d", p.Bits())
	}
	return p, note, true
}

func (r *reader) location(n *yaml.Node, m *Mirror) {
	s := r.section(n, "geolocation", geolocationKeys, misplacedInSection)
	l := &m.Location
	l.State = s.text("state_province")
	l.City = s.text("city")

	if v, n := s.scalar("continent"); n != nil {
		code, ok := continentCode(v)
		switch {
		case !ok:
			r.errorf(n, s.at("continent"), "write AF, AN, AS, EU, NA, OC or SA", "%s is not a continent", quote(n))
		case code != v:
			r.warnf(n, s.at("continent"), "write "+code, "%s is read as %q", quote(n), code)
		}
		l.Continent = code
	}
	if v, n := s.scalar("country"); n != nil {
		l.Country = r.country(v, n, s.at("country"))
	}

	lat, latOK := s.degrees("latitude", 90)
	lon, lonOK := s.degrees("longitude", 180)
	switch {
	case latOK && lonOK:
		l.Latitude, l.Longitude, l.HasCoordinates = lat, lon, true
	case latOK && s.values["longitude"] == nil:
		r.errorf(s.values["latitude"], s.at("latitude"), "write longitude too", "a latitude alone is no place")
	case lonOK && s.values["latitude"] == nil:
		r.errorf(s.values["longitude"], s.at("longitude"), "write latitude too", "a longitude alone is no place")
	}
}

// country returns the code of what stands at n, or "".
func (r *reader) country(v string, n *yaml.Node, path string) string {
	if ValidCountry(v) {
		if v == "NO" && n.Style == 0 {
			r.warnf(n, path, `write "NO" with the quotes`, "other software reads NO as false")
		}
		return v
	}
	// Software that rewrites a file takes an unquoted NO for a boolean.
	if n.ShortTag() == "!!bool" && strings.EqualFold(v, "false") {
		r.warnf(n, path, `write "NO"`, "%s is read as Norway", quote(n))
		return "NO"
	}
	code, ok := countryCode(v)
	if !ok {
		r.errorf(n, path, "write two capitals, such as DE", "%s is not a country code", quote(n))
		return ""
	}
	r.warnf(n, path, fmt.Sprintf("write %q", code), "%s is not a country code", quote(n))
	return code
}

// degrees returns the value of key within plus or minus most.
func (s section) degrees(key string, most float64) (float64, bool) {
	v, n := s.scalar(key)
	if n == nil {
		return 0, false
	}
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || math.IsNaN(f) || math.Abs(f) > most {
		s.r.errorf(n, s.at(key), fmt.Sprintf("write degrees from -%g to %g, such as 48.21", most, most), "%s is not a %s", quote(n), key)
		return 0, false
	}
	return f, true
}

// carries reads what a partial mirror has. What cannot be read may be missing
// from the mirror, so it never stands for all.
func (r *reader) carries(n *yaml.Node) (c Carries) {
	s := r.section(n, "carries", carriesKeys, misplacedInSection)
	c.Versions = names[Version](s, "versions")
	c.Arches = names[Arch](s, "arches")
	isos, _ := s.boolean("isos")
	c.NoISOs = s.values["isos"] != nil && !isos

	unread := func(n *yaml.Node, path string) {
		r.errorf(n, path, "write what it has, or remove "+path+" if it has all", "nothing can be read here, so the mirror is listed for nothing")
		c = Carries{NoISOs: true, Nothing: true}
	}
	// Before the first call, which empties both lists.
	noVersions := s.values["versions"] != nil && len(c.Versions) == 0
	noArches := s.values["arches"] != nil && len(c.Arches) == 0
	if noVersions {
		unread(s.values["versions"], s.at("versions"))
	}
	if noArches {
		unread(s.values["arches"], s.at("arches"))
	}
	says := n.Kind != yaml.MappingNode
	for i := 1; i < len(n.Content); i += 2 {
		says = says || n.Content[i].ShortTag() != "!!null"
	}
	if says && len(s.values) == 0 {
		unread(n, "carries")
	}
	return c
}

func (r *reader) modules(n *yaml.Node) map[string]Address {
	if n.Kind != yaml.MappingNode {
		r.errorf(n, "address_optional", "write the name of a module and its URLs below it", "%s is not a group of keys", quote(n))
		return nil
	}
	all := map[string]Address{}
	for i := 0; i < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		path := join("address_optional", strictyaml.Clip(k.Value))
		if slices.Contains(addressKeys, k.Value) {
			r.warnf(k, path, "write the name of the module, and indent the URLs below it", "%q is not the name of a module", k.Value)
			continue
		}
		if v.ShortTag() == "!!null" {
			continue
		}
		r.lines.note(path, k.Line)
		if a := r.address(v, path); a != (Address{}) {
			all[k.Value] = a
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// address reads the URLs of one tree, and puts each under its own scheme.
func (r *reader) address(n *yaml.Node, path string) (a Address) {
	if n.Kind == yaml.ScalarNode {
		// One URL instead of a group: its scheme says where it belongs.
		if l := readURL(strings.TrimSpace(n.Value), "https"); l.fault == "" && l.note == "" {
			r.warnf(n, path, fmt.Sprintf("write %s: %s below it", l.scheme, l.url), "a URL where a group of keys belongs")
			*a.slot(l.scheme) = l.url
			return a
		}
	}
	s := r.section(n, path, addressKeys, misplacedInSection)
	type stray struct {
		node *yaml.Node
		key  string
		link
	}
	var strays []stray
	for _, key := range addressKeys {
		v, n := s.scalar(key)
		if n == nil {
			continue
		}
		l := readURL(v, key)
		switch {
		case l.fault != "":
			r.errorf(n, s.at(key), l.remedy, "%s: %s", quote(n), l.fault)
			continue
		case l.scheme != key:
			strays = append(strays, stray{n, key, l})
			continue
		case l.note != "":
			r.warnf(n, s.at(key), l.remedy, "%s", l.note)
		}
		*a.slot(key) = l.url
	}
	// Only now is it known which places are free.
	for _, l := range strays {
		slot := a.slot(l.scheme)
		switch {
		case l.note != "": // host::module, which only rsync has
			r.warnf(l.node, s.at(l.key), fmt.Sprintf("write %s: %s", l.scheme, l.url), "an %s URL under %s", l.scheme, l.key)
		case *slot == "":
			r.warnf(l.node, s.at(l.key), fmt.Sprintf("write %s: in front of it, or a URL that begins %s://", l.scheme, l.key), "an %s URL under %s is read as %s", l.scheme, l.key, l.scheme)
		case *slot == l.url:
			r.warnf(l.node, s.at(l.key), fmt.Sprintf("write a URL that begins %s://, or remove the line", l.key), "the %s URL stands here again", l.scheme)
		default:
			r.warnf(l.node, s.at(l.key), fmt.Sprintf("write a URL that begins %s://, or remove the line", l.key), "a second %s URL is not read", l.scheme)
		}
		if *slot == "" {
			*slot = l.url
		}
	}
	return a
}

// slot returns the field of one of addressKeys.
func (a *Address) slot(scheme string) *string {
	switch scheme {
	case "http":
		return &a.HTTP
	case "https":
		return &a.HTTPS
	case "rsync":
		return &a.Rsync
	case "ftp":
		return &a.FTP
	}
	panic("schema: no address of scheme " + scheme)
}

// names reads a list of words, each once.
func names[T ~string](s section, key string) (all []T) {
	for i, n := range s.list(key) {
		v := T(strings.TrimSpace(n.Value))
		path := fmt.Sprintf("%s[%d]", s.at(key), i)
		switch {
		case v == "" || strings.ContainsFunc(string(v), func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) || c == '/' }):
			s.r.errorf(n, path, "write one word", "%s is not a name", quote(n))
			continue
		case slices.Contains(all, v):
			s.r.warnf(n, path, "remove one", "%s is listed twice", quote(n))
			continue
		case s.isFull(len(all), n, path):
			return all
		}
		// Other software reads 8.10 without quotes as the number 8.1.
		if n.ShortTag() == "!!float" && n.Style == 0 && strings.HasSuffix(n.Value, "0") {
			s.r.warnf(n, path, fmt.Sprintf("write %q with the quotes", n.Value), "other software reads %s as a number and drops its last digit", n.Value)
		}
		all = append(all, v)
	}
	return all
}
