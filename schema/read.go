package schema

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"gopkg.in/yaml.v3"

	"meridian/internal/strictyaml"
)

// A reader collects what is wrong with one file, and where its values stand.
type reader struct {
	*findings
	lines lines
}

func newReader(file string) *reader {
	return &reader{&findings{file: file}, lines{}}
}

// lines holds where each path stands, so that rules that look at several files
// can name the line.
type lines map[string]int

// note keeps the first line of a path.
func (l lines) note(path string, line int) {
	if _, ok := l[path]; !ok {
		l[path] = line
	}
}

// of returns where path stands, or where the key around it does; 0 when neither
// is there.
func (l lines) of(path string) int {
	for {
		if line, ok := l[path]; ok {
			return line
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return 0
		}
		path = path[:i]
	}
}

func (r *reader) add(isError bool, line int, path, text, remedy string) {
	r.keep(Problem{Line: line, Path: path, Error: isError, Text: text, Remedy: remedy})
}

func (r *reader) errorf(n *yaml.Node, path, remedy, text string, args ...any) {
	r.add(true, n.Line, path, fmt.Sprintf(text, args...), remedy)
}

func (r *reader) warnf(n *yaml.Node, path, remedy, text string, args ...any) {
	r.add(false, n.Line, path, fmt.Sprintf(text, args...), remedy)
}

// document parses the text of the file, and reports its faults.
func (r *reader) document(data []byte) *yaml.Node {
	root, faults := strictyaml.Parse(data)
	for _, f := range faults {
		text := f.Text
		if f.Effect != "" {
			text += " and is " + f.Effect
		}
		r.add(!f.Repaired, f.Line, "", text, f.Remedy)
	}
	return root
}

// A section is one mapping of the file. Keys without a value count as absent.
type section struct {
	r      *reader
	path   string
	node   *yaml.Node
	values map[string]*yaml.Node
}

// section takes the keys of n that are known, and reports the others. elsewhere
// maps keys that people put into this section to the place where they belong.
func (r *reader) section(n *yaml.Node, path string, known []string, elsewhere map[string]string) section {
	s := section{r, path, n, map[string]*yaml.Node{}}
	if n.Kind != yaml.MappingNode {
		r.errorf(n, path, "write one key a line, indented below this one: "+strings.Join(known, ", "), "%s is not a group of keys", quote(n))
		return s
	}
	var odd []int
	for i := 0; i < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if !slices.Contains(known, k.Value) {
			odd = append(odd, i)
		} else if v.ShortTag() != "!!null" {
			s.set(k, k.Value, v)
		}
	}
	// A key in capitals is taken for the known one only when that is absent.
	for _, i := range odd {
		k, v := n.Content[i], n.Content[i+1]
		path := join(path, strictyaml.Clip(k.Value))
		fold := strictyaml.Fold(k.Value)
		if s.values[fold] == nil && slices.Contains(known, fold) {
			r.warnf(k, path, "write "+fold, "%q is read as %q", strictyaml.Clip(k.Value), fold)
			if v.ShortTag() != "!!null" {
				s.set(k, fold, v)
			}
			continue
		}
		switch near, ok := strictyaml.Nearest(k.Value, known); {
		case elsewhere[fold] != "":
			r.warnf(k, path, "write it "+elsewhere[fold], "%q does not belong here and is not read", k.Value)
		case ok:
			r.warnf(k, path, "write "+near, "unknown key %q is not read", strictyaml.Clip(k.Value))
		default:
			r.warnf(k, path, "remove it; the keys here are "+strings.Join(known, ", "), "unknown key %q is not read", strictyaml.Clip(k.Value))
		}
	}
	return s
}

func (s section) set(key *yaml.Node, name string, v *yaml.Node) {
	s.values[name] = v
	s.r.lines.note(join(s.path, name), key.Line)
}

func (s section) at(key string) string { return join(s.path, key) }

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// quote names a value in a message.
func quote(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a group of keys"
	case yaml.SequenceNode:
		return "a list"
	}
	return strconv.Quote(strictyaml.Clip(n.Value))
}

// scalar returns the single value of key, without the space around it. A list of
// one value stands for the value.
func (s section) scalar(key string) (string, *yaml.Node) {
	n := s.values[key]
	if n == nil {
		return "", nil
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) == 1 && n.Content[0].Kind == yaml.ScalarNode {
		n = n.Content[0]
		s.r.warnf(n, s.at(key), "write it behind the colon, without a dash or brackets", "a list of one value")
	}
	if n.Kind != yaml.ScalarNode {
		s.r.errorf(n, s.at(key), "write a single value", "%s where one value belongs", quote(n))
		return "", nil
	}
	v := strings.TrimSpace(n.Value)
	if v == "" {
		return "", nil
	}
	if v != n.Value && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		s.r.warnf(n, s.at(key), "remove it", "space around the value")
	}
	return v, n
}

// maxItems bounds a list of words or numbers, which is looked through once for
// each of its items, and later for each question that a client asks. Networks
// have a dozen versions; a real mirror lists four AS numbers.
const maxItems = 1000

// isFull reports a list that has maxItems already, when one more comes.
func (s section) isFull(items int, n *yaml.Node, path string) bool {
	if items < maxItems {
		return false
	}
	s.r.errorf(n, path, "write fewer", "a list of more than %d; the rest is not read", maxItems)
	return true
}

// text is scalar for what people read: one line, no control characters.
func (s section) text(key string) string {
	v, _ := s.scalar(key)
	return strings.Join(strings.FieldsFunc(v, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
}

// list returns the items of key and the path of each. A single value stands for
// a list of one.
func (s section) list(key string) (items []*yaml.Node) {
	n := s.values[key]
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.ScalarNode:
		return []*yaml.Node{n}
	case n.Kind != yaml.SequenceNode:
		s.r.errorf(n, s.at(key), "write one item a line, each behind a dash", "%s where a list belongs", quote(n))
		return nil
	}
	for i, c := range n.Content {
		if c.Kind != yaml.ScalarNode {
			s.r.errorf(c, fmt.Sprintf("%s[%d]", s.at(key), i), "write a single value behind the dash", "%s inside a list", quote(c))
			continue
		}
		if c.ShortTag() != "!!null" {
			items = append(items, c)
		}
	}
	return items
}

// boolean returns the value of key, and whether it could be read.
func (s section) boolean(key string) (value, ok bool) {
	v, n := s.scalar(key)
	if n == nil {
		return false, s.values[key] == nil
	}
	switch v {
	case "true", "True", "TRUE":
		value, ok = true, true
	case "false", "False", "FALSE":
		ok = true
	default:
		switch strings.ToLower(v) {
		case "yes", "y", "on", "1", "true":
			value, ok = true, true
		case "no", "n", "off", "0", "false":
			ok = true
		default:
			s.r.errorf(n, s.at(key), "write true or false", "%s is neither true nor false", quote(n))
			return false, false
		}
		s.r.warnf(n, s.at(key), fmt.Sprintf("write %t", value), "%s is read as %t", quote(n), value)
		return value, ok
	}
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		s.r.warnf(n, s.at(key), fmt.Sprintf("write %t without quotes", value), "%s in quotes is a text", quote(n))
	}
	return value, ok
}

// duration returns the value of key within [least, most], else preset.
func (s section) duration(key string, preset, least, most time.Duration) time.Duration {
	v, n := s.scalar(key)
	if n == nil {
		return preset
	}
	d, plain, ok := parseDuration(v)
	switch {
	case !ok:
		s.r.errorf(n, s.at(key), "write a number with its unit, such as 15m, 3h or 1d", "%s is not a duration; %s is taken", quote(n), FormatDuration(preset))
		return preset
	case d < least || d > most:
		s.r.errorf(n, s.at(key), fmt.Sprintf("write something from %s to %s", FormatDuration(least), FormatDuration(most)), "%s is out of range; %s is taken", quote(n), FormatDuration(preset))
		return preset
	case !plain:
		s.r.warnf(n, s.at(key), "write "+FormatDuration(d), "%s is read as %s", quote(n), FormatDuration(d))
	}
	return d
}

var durationUnits = map[string]time.Duration{
	"s": time.Second, "sec": time.Second, "second": time.Second,
	"m": time.Minute, "min": time.Minute, "minute": time.Minute,
	"h": time.Hour, "hr": time.Hour, "hour": time.Hour,
	"d": 24 * time.Hour, "day": 24 * time.Hour,
	"w": 7 * 24 * time.Hour, "week": 7 * 24 * time.Hour,
}

// parseDuration reads "3h", "1h30m" and, as not plain, "3 hours" or "90 Min".
func parseDuration(s string) (d time.Duration, plain, ok bool) {
	plain = true
	rest := s
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.ParseUint(rest[:digits], 10, 32)
		if err != nil {
			return 0, false, false
		}
		rest = rest[digits:]
		spaced := strings.TrimLeft(rest, " ")
		letters := len(spaced) - len(strings.TrimLeftFunc(spaced, unicode.IsLetter))
		word := spaced[:letters]
		unit, known := durationUnits[strings.ToLower(word)]
		if !known {
			unit, known = durationUnits[strings.TrimSuffix(strings.ToLower(word), "s")]
		}
		if !known || word == "" {
			return 0, false, false
		}
		if len(word) > 1 || word != strings.ToLower(word) || len(spaced) != len(rest) {
			plain = false
		}
		// 2^32 weeks overflow; anything near that is out of every range.
		if n > uint64(1<<62/unit) {
			return 0, false, false
		}
		d += time.Duration(n) * unit
		if d < 0 {
			return 0, false, false
		}
		rest = strings.TrimLeft(spaced[letters:], " ")
	}
	return d, plain, s != ""
}

// FormatDuration writes d as people do in these files: "90m", "3h", "1d".
func FormatDuration(d time.Duration) string {
	switch day := 24 * time.Hour; {
	case d == 0:
		return "0s"
	case d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	case d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	case d%time.Minute == 0:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	}
	return d.String()
}

// maxURL keeps lists of ten URLs, and messages about them, short.
const maxURL = 500

// A link is a base URL that was read, or why it was not.
type link struct {
	scheme, url string
	fault       string // "" when url can be used
	remedy      string
	note        string // what was repaired: a warning
}

// readURL reads a base URL as it stands under a key named for its scheme. A
// missing slash at the end is added without a word: half of the world forgets it.
func readURL(v, key string) link {
	l := link{scheme: key, url: v}
	// A URL goes into lists that are read line by line.
	if i := strings.IndexFunc(v, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"<>\\^`{|}", r) }); i >= 0 {
		l.fault, l.remedy = fmt.Sprintf("the URL holds %q", []rune(v[i:])[0]), "write letters, digits and -._~/:% only, and a host in its xn-- form"
		return l
	}
	// host::module is how rsync itself names a module; some put a scheme before it.
	host, module, isModule := strings.Cut(strings.TrimPrefix(v, "rsync://"), "::")
	switch {
	case isModule && validHost(host):
		l.url = "rsync://" + host + "/" + strings.TrimPrefix(module, "/")
		l.note = fmt.Sprintf("%q is not a URL", strictyaml.Clip(v))
	case !strings.Contains(v, "://"):
		l.url = key + "://" + strings.TrimLeft(v, "/")
		l.note = fmt.Sprintf("%q has no scheme", strictyaml.Clip(v))
	}
	u, err := url.Parse(l.url)
	if err != nil {
		l.fault, l.remedy = "this is not a URL", "write "+key+"://HOST/PATH/"
		return l
	}
	l.scheme = u.Scheme // in lower case
	switch {
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "rsync" && u.Scheme != "ftp":
		l.fault, l.remedy = fmt.Sprintf("%q is not a scheme of a mirror", strictyaml.Clip(u.Scheme)), "write an http, https, rsync or ftp URL"
	case u.Opaque != "" || !validHost(u.Hostname()) || strings.HasSuffix(u.Host, ":"):
		l.fault, l.remedy = fmt.Sprintf("%q is not a host name", strictyaml.Clip(u.Host)), "write "+u.Scheme+"://HOST/PATH/"
	case u.User != nil:
		l.fault, l.remedy = "the URL holds a user name, which everybody would see", "write it without"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(l.url, "#"):
		l.fault, l.remedy = "nothing can be appended to a URL with ? or #", "write a URL that ends in a path"
	case u.Port() != "" && !validPort(u.Port()):
		l.fault, l.remedy = fmt.Sprintf("%q is not a port", u.Port()), "write a number from 1 to 65535, or none"
	}
	if l.fault != "" {
		return l
	}
	u.Host = strings.ToLower(u.Host)
	l.url = u.String()
	if !strings.HasSuffix(l.url, "/") {
		l.url += "/"
	}
	// Escaping may have made it longer than it was written.
	if len(l.url) > maxURL {
		l.fault, l.remedy = fmt.Sprintf("the URL is longer than %d letters", maxURL), "write a shorter one"
		return l
	}
	if l.note != "" {
		l.remedy = "write " + l.url
	}
	return l
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// validHost tells whether s can be the host of a URL: a DNS name, or an address
// (the brackets of IPv6 are gone).
func validHost(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	if strings.Contains(s, ":") {
		return strings.Trim(s, "0123456789abcdefABCDEF:.") == ""
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// webURL reads the address of a page or a file, and says what is wrong with it.
func webURL(v string) (string, string) {
	if strings.ContainsFunc(v, func(c rune) bool {
		return unicode.IsSpace(c) || unicode.IsControl(c) || strings.ContainsRune("\"<>`\\", c)
	}) {
		return "", "it holds a space, a quote or a control character"
	}
	u, err := url.Parse(v)
	switch {
	case err != nil:
		return "", "it cannot be parsed"
	case u.Scheme != "http" && u.Scheme != "https":
		return "", "it is neither http nor https"
	case u.Opaque != "" || !validHost(u.Hostname()):
		return "", "it has no host name, or none in its xn-- form"
	case u.User != nil:
		return "", "it holds a user name"
	case len(u.String()) > maxURL: // escaping may have made it longer
		return "", fmt.Sprintf("it is longer than %d letters", maxURL)
	}
	return u.String(), ""
}
