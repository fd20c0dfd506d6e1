package mirrorlist

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// recorded is what the replaced service answered, over a synthetic world.
const recorded = "../../shared/testdata/decisions"

// A fact is one line of decisions.jsonl or matrix.jsonl; README.md beside them
// explains the fields.
type fact struct {
	URL     string   `json:"url"`
	IP      string   `json:"ip"`
	Country *string  `json:"country"`
	Group   string   `json:"group"`
	Status  int      `json:"status"`
	CT      string   `json:"ct"`
	Kind    string   `json:"kind"`
	Exact   string   `json:"exact"`
	Suffix  string   `json:"suffix"`
	Segs    []seg    `json:"segs"`
	Answer  []string `json:"answer"`
	JSON    bool     `json:"json"`
	Tags    []string `json:"tags"`
	N       int      `json:"n"`
}

// lines is how many lines were recorded.
func (f fact) lines() (n int) {
	for _, s := range f.Segs {
		n += s.take
	}
	return n
}

func (f fact) has(tag string) bool { return slices.Contains(f.Tags, tag) }

// A seg is the next so many lines, distinct members of a set in any order.
type seg struct {
	take int
	set  []string
}

func (s *seg) UnmarshalJSON(data []byte) error {
	var pair []json.RawMessage
	if err := json.Unmarshal(data, &pair); err != nil || len(pair) != 2 {
		return fmt.Errorf("a segment is [take, [base, …]]: %w", err)
	}
	return errors.Join(json.Unmarshal(pair[0], &s.take), json.Unmarshal(pair[1], &s.set))
}

// recordedWorld starts a server on the recorded network, as its README says.
func recordedWorld(t *testing.T) (*Server, string) {
	t.Helper()
	if _, err := os.Stat(recorded); err != nil {
		t.Skipf("the recorded decisions are not here: %v", err)
	}
	clouds := map[string]string{}
	for _, name := range Clouds {
		clouds[name] = filepath.Join(recorded, "cloud", name+".json")
	}
	s, err := New(t.Context(), Options{
		Config: Config{
			Network:        filepath.Join(recorded, "config.yml"),
			Geo:            Geo{filepath.Join(recorded, "location.mmdb"), filepath.Join(recorded, "asn.mmdb")},
			TrustedProxies: []string{"127.0.0.1/32"},
			CloudRanges:    clouds,
			CacheDir:       t.TempDir(),

			RequestsPerSecond: -1,
		},
		Log:      slog.New(slog.NewTextHandler(io.Discard, nil)),
		Resolver: noNames{},
		// The order inside a band changes by the hour, and with it which answers
		// are the recorded ones by chance.
		Now: func() time.Time { return time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC) },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.keeper.build(true)
	if st := s.Status(); st.Mirrors != 255 {
		t.Fatalf("the recorded network has 255 mirrors, and we have %d: %v", st.Mirrors, st.Lines())
	}
	h, _ := s.Handlers()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return s, srv.URL
}

// noNames is a resolver that knows no host: the recorded world has no addresses.
type noNames struct{}

func (noNames) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// A reply is what we say to a recorded request.
type reply struct {
	status int
	ct     string
	header http.Header
	body   string
	lines  []string // of a list, or the elements of a JSON array
}

// ask sends a request as a proxy for a client does. The target is sent as it is.
func ask(t *testing.T, base, method, target, client string) reply {
	t.Helper()
	addr := strings.TrimPrefix(base, "http://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	forwarded := ""
	if client != "" {
		forwarded = "X-Forwarded-For: " + client + "\r\n"
	}
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: HOST\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\nConnection: close\r\n%s\r\n", method, target, forwarded)
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	a := reply{status: resp.StatusCode, ct: resp.Header.Get("Content-Type"), header: resp.Header, body: string(body)}
	if strings.HasPrefix(a.body, "[") {
		if err := json.Unmarshal(body, &a.lines); err != nil {
			t.Fatalf("%s: %v", target, err)
		}
	} else if a.body != "" {
		a.lines = strings.Split(a.body, "\n")
	}
	return a
}

// bases strips the suffix that every line of a list has.
func (a reply) bases(suffix string) ([]string, error) {
	var out []string
	for _, l := range a.lines {
		b, ok := strings.CutSuffix(l, suffix)
		if !ok {
			return nil, fmt.Errorf("line %q does not end in %q", l, suffix)
		}
		out = append(out, b)
	}
	return out, nil
}

// follows reports whether lines are what the segments demand; rest is what comes
// after them.
func follows(lines []string, segs []seg) (rest []string, err error) {
	for i, s := range segs {
		if len(lines) < s.take {
			return nil, fmt.Errorf("segment %d wants %d lines, and %d are left", i, s.take, len(lines))
		}
		seen := map[string]bool{}
		for _, l := range lines[:s.take] {
			if !slices.Contains(s.set, l) || seen[l] {
				return nil, fmt.Errorf("segment %d: %q is not one of %d expected mirrors, or stands twice", i, l, len(s.set))
			}
			seen[l] = true
		}
		lines = lines[s.take:]
	}
	return lines, nil
}

// check compares an answer with a fact to the letter.
func (f fact) check(a reply) error {
	if a.status != f.Status {
		return fmt.Errorf("status %d, recorded %d", a.status, f.Status)
	}
	if f.Status != http.StatusOK {
		return nil
	}
	if a.ct != f.CT {
		return fmt.Errorf("content type %q, recorded %q", a.ct, f.CT)
	}
	return f.checkLines(a)
}

// checkLines compares the lines alone.
func (f fact) checkLines(a reply) error {
	if f.Exact != "" {
		if len(a.lines) != 1 || a.lines[0] != f.Exact {
			return fmt.Errorf("answered %q, recorded %q", a.lines, f.Exact)
		}
		return nil
	}
	bases, err := a.bases(f.Suffix)
	if err != nil {
		return err
	}
	if f.N > 0 { // the matrix counts
		if len(bases) != f.N {
			return fmt.Errorf("%d lines, recorded %d", len(bases), f.N)
		}
		return nil
	}
	rest, err := follows(bases, f.Segs)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d lines follow after the recorded ones", len(rest))
	}
	return err
}

// A difference is an entry of docs/DIFFERENCES.md: covers says whether an answer
// that is not the recorded one is what the entry promises instead.
type difference func(s *Server, f fact, a reply) error

var notThis = errors.New("another matter")

// tenPublic demands a full list of different public mirrors.
func tenPublic(s *Server, f fact, a reply) error {
	if a.status != http.StatusOK {
		return fmt.Errorf("status %d", a.status)
	}
	if len(a.lines) != 10 {
		return fmt.Errorf("%d lines instead of 10", len(a.lines))
	}
	seen := map[string]bool{}
	for _, l := range a.lines {
		if seen[l] {
			return fmt.Errorf("%q stands twice", l)
		}
		seen[l] = true
		if !s.isPublic(l) {
			return fmt.Errorf("%q is no public mirror", l)
		}
	}
	return nil
}

// isPublic reports whether a line is a URL on a mirror that anybody may have.
func (s *Server) isPublic(line string) bool {
	t := s.table.Load()
	i := t.mirrorOf(line)
	return i >= 0 && t.public.has(uint16(i))
}

func query(f fact, key string) string {
	_, q, _ := strings.Cut(f.URL, "?")
	for pair := range strings.SplitSeq(q, "&") {
		if v, ok := strings.CutPrefix(pair, key+"="); ok {
			return v
		}
	}
	return ""
}

// differences are the entries of docs/DIFFERENCES.md that cover whole answers,
// by name. compare knows two more, which only change a part.
var differences = map[string]difference{
	"bands": func(s *Server, f fact, a reply) error {
		if f.Kind != "bands" || f.has("own-asn-order") || f.has("bug:uk-is-not-gb") {
			return notThis
		}
		return sameBands(s, f, a)
	},
	"own-asn": func(s *Server, f fact, a reply) error {
		if !f.has("own-asn-order") {
			return notThis
		}
		return sameBands(s, f, a)
	},
	"no-place": func(s *Server, f fact, a reply) error {
		if c := query(f, "country"); f.Kind != "all" || c == "UK" || c == "GB" || f.has("bug:unparseable-ip-gets-private") {
			return notThis
		}
		bases, err := a.bases(f.Suffix)
		if err != nil {
			return err
		}
		for _, b := range bases {
			if !slices.Contains(f.Segs[0].set, b) {
				return fmt.Errorf("%q is none of the recorded mirrors", b)
			}
		}
		return tenPublic(s, f, a)
	},
	"no-country": func(s *Server, f fact, a reply) error {
		if !f.has("bug:no-country-500") {
			return notThis
		}
		return tenPublic(s, f, a)
	},
	"no-address": func(s *Server, f fact, a reply) error {
		if !f.has("bug:unparseable-ip-gets-private") {
			return notThis
		}
		return tenPublic(s, f, a)
	},
	"uk-is-gb": func(s *Server, f fact, a reply) error {
		if c := query(f, "country"); !f.has("bug:uk-is-not-gb") && (f.Kind != "all" || c != "UK" && c != "GB") {
			return notThis
		}
		return tenPublicOrOnNet(s, f, a)
	},
	"scheme-key": func(s *Server, f fact, a reply) error {
		// The mirrors in question count on neither side; what is left is the same
		// up to where one of the lists ends.
		proto := query(f, "protocol")
		if f.Kind != "bands" || proto == "" {
			return notThis
		}
		moved := s.movedMirrors()
		t := s.table.Load()
		keep := func(bases []string) (out []string, dropped bool) {
			for _, b := range bases {
				if moved[t.mirrorOf(b)] {
					dropped = true
					continue
				}
				out = append(out, b)
			}
			return out, dropped
		}
		bases, err := a.bases(f.Suffix)
		if err != nil {
			return err
		}
		ours, one := keep(bases)
		theirs, other := keep(f.Answer)
		if !one && !other {
			return notThis
		}
		for _, b := range bases {
			if !strings.HasPrefix(b, proto+"://") {
				return fmt.Errorf("%q has not the protocol that was asked for", b)
			}
		}
		n := min(len(ours), len(theirs))
		got, err := s.ranks(f, ours[:n])
		if err != nil {
			return err
		}
		want, err := s.ranks(f, theirs[:n])
		if err != nil {
			return err
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("ranks %v, recorded %v", got, want)
		}
		return nil
	},
	"monopoly-first": func(s *Server, f fact, a reply) error {
		if !f.has("bug:monopoly-lost-by-filter") && f.Kind != "empty" {
			return notThis
		}
		if len(a.lines) != 1 {
			return fmt.Errorf("%d lines instead of the monopoly mirror alone", len(a.lines))
		}
		t := s.table.Load()
		if i := t.mirrorOf(a.lines[0]); i < 0 || !t.monopoly.has(uint16(i)) {
			return fmt.Errorf("%q is no monopoly mirror", a.lines[0])
		}
		return nil
	},
	"families": func(s *Server, f fact, a reply) error {
		if !f.has("bug:family-confusion") {
			return notThis
		}
		return tenPublic(s, f, a)
	},
	"exact-versions": func(s *Server, f fact, a reply) error {
		if !f.has("bug:version-prefix") {
			return notThis
		}
		if a.status != http.StatusNotFound {
			return fmt.Errorf("status %d instead of 404", a.status)
		}
		return nil
	},
}

// sameBands demands that line by line the mirror is as near, counted in whole
// bands, as the one that was recorded.
func sameBands(s *Server, f fact, a reply) error {
	bases, err := a.bases(f.Suffix)
	if err != nil {
		return err
	}
	got, err := s.ranks(f, bases)
	if err != nil {
		return err
	}
	want, err := s.ranks(f, f.Answer)
	if err != nil {
		return err
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("ranks %v, recorded %v", got, want)
	}
	return nil
}

// ranks says of each base URL how near it is for the client of a fact: on-net,
// or the rank of its band.
func (s *Server) ranks(f fact, bases []string) (out []string, err error) {
	t := s.table.Load()
	addr := netip.MustParseAddr(f.IP)
	var sc scratch
	q := question{client: knownClient(addr, 0), limit: len(t.mirrors), public: f.JSON, now: s.now()}
	u, err := url.Parse(f.URL)
	if err != nil {
		return nil, err
	}
	if country, no := parseCountry(u.Query().Get("country")); no == nil {
		q.country = country
	}
	t.decide(&q, &sc)
	site := t.siteOf(t.db.Find(addr))
	seen := map[int]bool{}
	for _, b := range bases {
		i := t.mirrorOf(b)
		if i < 0 || seen[i] {
			return nil, fmt.Errorf("%q is no mirror, or stands twice", b)
		}
		seen[i] = true
		onNet := slices.ContainsFunc(sc.picks, func(p pick) bool { return int(p.mirror) == i && p.tier < tierCountry })
		if onNet {
			out = append(out, "on-net")
			continue
		}
		m := &t.mirrors[i]
		out = append(out, strconv.Itoa(site.rankOf(&seat{country: m.country, at: m.at})))
	}
	return out, nil
}

// mirrorOf returns the mirror that a URL is on, or -1.
func (t *Table) mirrorOf(url string) int {
	best, longest := -1, 0
	for i := range t.mirrors {
		for _, b := range t.mirrors[i].bases {
			for _, base := range []string{b.http, b.https} {
				if base != "" && strings.HasPrefix(url, base) && len(base) > longest {
					best, longest = i, len(base)
				}
			}
		}
	}
	return best
}

// wrongKey is a URL under a key of another scheme.
var wrongKey = regexp.MustCompile(`(?m)^\s+(?:http:\s+https:|https:\s+http:)`)

// movedMirrors are those whose files have a URL under the key of another scheme,
// by number.
func (s *Server) movedMirrors() map[int]bool {
	out := map[int]bool{}
	t := s.table.Load()
	for i := range t.mirrors {
		data, err := os.ReadFile(filepath.Join(recorded, "mirrors.d", t.mirrors[i].File))
		if err == nil && wrongKey.Match(data) {
			out[i] = true
		}
	}
	return out
}

// tenPublicOrOnNet is tenPublic for clients whose first lines may be mirrors of
// their own network.
func tenPublicOrOnNet(s *Server, f fact, a reply) error {
	if f.has("onnet") {
		for len(a.lines) > 0 && !s.isPublic(a.lines[0]) {
			a.lines = a.lines[1:]
		}
		if len(a.lines) > 0 && a.status == http.StatusOK {
			return nil
		}
	}
	return tenPublic(s, f, a)
}

// entry is the heading of an entry in docs/DIFFERENCES.md.
var entry = regexp.MustCompile("(?m)^## `([a-z0-9-]+)` \\(([0-9]+)\\)$")

func TestRecordedDecisions(t *testing.T) {
	s, base := recordedWorld(t)
	used := map[string]int{}

	facts := 0
	eachLine(t, "decisions.jsonl.gz", func(line []byte) {
		var f fact
		if err := json.Unmarshal(line, &f); err != nil {
			t.Fatal(err)
		}
		facts++
		compare(t, s, f, ask(t, base, "GET", f.URL, f.IP), used)
	})
	if facts != 1500 {
		t.Errorf("%d facts, want all 1,500", facts)
	}

	rows := 0
	eachLine(t, "matrix.jsonl.gz", func(line []byte) {
		var f fact
		if err := json.Unmarshal(line, &f); err != nil {
			t.Fatal(err)
		}
		rows++
		compare(t, s, f, ask(t, base, "GET", f.URL, "5.6.7.8"), used)
	})
	if rows != 2852 {
		t.Errorf("%d rows of the matrix, want all 2,852", rows)
	}

	seen := 0
	for _, r := range recordedHTTP(t) {
		seen++
		a := ask(t, base, r.method, r.target, r.client)
		compareHTTP(t, s, r, a, used)
	}
	if seen < 90 {
		t.Errorf("%d recorded HTTP behaviours, want all", seen)
	}

	doc, err := os.ReadFile("../docs/DIFFERENCES.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range entry.FindAllSubmatch(doc, -1) {
		documented[string(m[1])] = string(m[2])
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if used[name] == 0 {
			t.Errorf("docs/DIFFERENCES.md: entry %q covers nothing that was recorded; delete it", name)
		} else if got := strconv.Itoa(used[name]); got != documented[name] {
			t.Errorf("docs/DIFFERENCES.md: entry %q says that it covers %s, and it covers %s", name, documented[name], got)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(used)) {
		if documented[name] == "" {
			t.Errorf("difference %q has no entry in docs/DIFFERENCES.md", name)
		}
	}
}

// padded reports whether an answer goes on where the recorded one ended because
// a country had no more mirrors.
func (f fact) padded(a reply) bool {
	country := query(f, "country")
	british := f.has("bug:uk-is-not-gb") || f.Kind == "all" && (country == "UK" || country == "GB")
	return country != "" && !british && f.Exact == "" && f.Status == a.status && f.lines() < len(a.lines) && len(a.lines) > 1
}

// compare compares an answer with a fact, and finds the entries that cover what
// is different.
func compare(t *testing.T, s *Server, f fact, a reply, used map[string]int) {
	t.Helper()
	if f.JSON && a.status == http.StatusOK && a.ct == ctJSON && f.CT == ctPlain {
		used["json-type"]++
		a.ct = f.CT
	}
	if n := f.lines(); f.padded(a) {
		if err := tenPublicOrOnNet(s, f, a); err != nil {
			t.Errorf("%s for %s: padded, and %v", f.URL, f.IP, err)
		}
		used["padded-country"]++
		a.lines = a.lines[:n]
	}
	wrong := f.check(a)
	if wrong == nil {
		return
	}
	var why []string
	for _, name := range slices.Sorted(maps.Keys(differences)) {
		switch err := differences[name](s, f, a); {
		case err == nil:
			used[name]++
			return
		case err != notThis:
			why = append(why, fmt.Sprintf("%s does not cover it: %v", name, err))
		}
	}
	t.Errorf("%s for %s %v: %v\n  got %q\n  %s", f.URL, f.IP, f.Tags, wrong, a.lines, strings.Join(why, "\n  "))
}

func eachLine(t *testing.T, name string, f func(line []byte)) {
	t.Helper()
	file, err := os.Open(filepath.Join(recorded, name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(z)
	sc.Buffer(nil, 4<<20)
	for sc.Scan() {
		f(sc.Bytes())
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
}

// A recordedRequest is one block of http.txt.
type recordedRequest struct {
	name, method, target, client string
	status                       int
	ct, location, allow          string
	lines                        string // a number, or "many"
	newline                      string // no, yes, empty
	first                        []string
	leaked                       int
}

func recordedHTTP(t *testing.T) []recordedRequest {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(recorded, "http.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var out []recordedRequest
	var r *recordedRequest
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "## XFF ["):
			out = append(out, recordedRequest{
				name: line[3:], method: "GET", target: "/mirrorlist/9/baseos", client: strings.TrimSuffix(line[len("## XFF ["):], "]"),
			})
			r = &out[len(out)-1]
		case strings.HasPrefix(line, "## "):
			name, target, _ := strings.Cut(line[3:], "  [")
			out = append(out, recordedRequest{name: name, method: "GET", target: strings.TrimSuffix(target, "]"), client: "5.6.7.8"})
			r = &out[len(out)-1]
			if slices.Contains([]string{"HEAD", "POST", "OPTIONS", "DELETE"}, name) {
				r.method = name
			}
		case r == nil || strings.TrimSpace(line) == "":
		case r.status == 0:
			r.head(t, strings.TrimSpace(line))
		default:
			r.first = append(r.first, strings.TrimSpace(line))
		}
	}
	return out
}

// head reads the line of a block that says status and headers.
func (r *recordedRequest) head(t *testing.T, line string) {
	t.Helper()
	line = strings.TrimPrefix(line, "HTTP/1.1 ")
	n, err := strconv.Atoi(line[:3])
	if err != nil {
		t.Fatalf("%s: no status in %q", r.name, line)
	}
	r.status = n
	if !strings.Contains(line, "|") { // an XFF block
		fields := strings.Fields(line[4:])
		r.ct = strings.Join(fields[:len(fields)-3], " ")
		r.lines = strings.TrimPrefix(fields[len(fields)-2], "lines=")
		r.newline = "no"
		if r.leaked, err = strconv.Atoi(strings.TrimPrefix(fields[len(fields)-1], "private_leaked=")); err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		return
	}
	for field := range strings.SplitSeq(line, "|") {
		key, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		switch key {
		case "ct":
			r.ct = value
		case "loc":
			r.location = value
		case "allow":
			r.allow = value
		case "lines":
			r.lines = value
		case "endsNL":
			r.newline = value
		}
	}
}

// check compares an answer with what was recorded, as far as http.txt says it.
func (r recordedRequest) check(s *Server, a reply) error {
	var errs []error
	differ := func(what, got, want string) {
		if got != want {
			errs = append(errs, fmt.Errorf("%s %q, recorded %q", what, got, want))
		}
	}
	differ("status", strconv.Itoa(a.status), strconv.Itoa(r.status))
	differ("content type", a.ct, r.ct)
	sorted := func(allow string) string {
		methods := strings.Split(allow, ", ")
		slices.Sort(methods)
		return strings.Join(methods, ", ")
	}
	differ("Allow", sorted(a.header.Get("Allow")), sorted(r.allow))
	differ("Location", strings.TrimPrefix(a.header.Get("Location"), "http://HOST"), strings.TrimPrefix(r.location, "http://HOST"))
	if r.method == "HEAD" || r.method == "OPTIONS" || a.status != http.StatusOK || len(errs) > 0 {
		return errors.Join(errs...)
	}
	if strings.HasPrefix(a.ct, "application/json") {
		return r.checkJSON(a)
	}
	if strings.HasPrefix(a.ct, "text/html") {
		return nil // pages are read by people
	}
	if r.lines != "many" {
		differ("lines", strconv.Itoa(len(a.lines)), r.lines)
	} else if len(a.lines) <= 10 {
		errs = append(errs, fmt.Errorf("%d lines, recorded more than 10", len(a.lines)))
	}
	newline := "no"
	if a.body == "" {
		newline = "empty"
	} else if strings.HasSuffix(a.body, "\n") {
		newline = "yes"
	}
	differ("final newline", newline, r.newline)
	for i, want := range r.first {
		if i >= len(a.lines) {
			break
		}
		got := a.lines[i]
		if suffix, ok := strings.CutPrefix(want, "MIRROR/"); ok {
			if !strings.HasSuffix(got, "/"+suffix) {
				errs = append(errs, fmt.Errorf("line %q, recorded %q", got, want))
			}
			continue
		}
		differ("line", got, want)
	}
	leaked := 0
	for _, l := range a.lines {
		if t := s.table.Load(); !s.isPublic(l) && !strings.HasPrefix(l, t.network.VaultMirror) {
			leaked++
		}
	}
	differ("private mirrors", strconv.Itoa(leaked), strconv.Itoa(r.leaked))
	return errors.Join(errs...)
}

// checkJSON compares the outer form of a JSON answer.
func (r recordedRequest) checkJSON(a reply) error {
	var got map[string]json.RawMessage
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		return err
	}
	for _, key := range []string{"result", "status", "timestamp"} {
		if got[key] == nil {
			return fmt.Errorf("no %q in the envelope %q", key, a.body)
		}
	}
	return nil
}

// An httpDifference says whether an entry covers a recorded behaviour that ours
// differs from.
type httpDifference func(s *Server, r recordedRequest, a reply) error

func want(a reply, status int, ct string) error {
	if a.status != status || a.ct != ct {
		return fmt.Errorf("answered %d %s", a.status, a.ct)
	}
	return nil
}

const (
	ctPlain = "text/plain; charset=utf-8"
	ctJSON  = "application/json"
	ctHTML  = "text/html; charset=utf-8"
)

var httpDifferences = map[string]httpDifference{
	"plain-errors": func(_ *Server, r recordedRequest, a reply) error {
		if r.ct != ctHTML || a.status != r.status || r.status == http.StatusOK && r.method != "OPTIONS" {
			return notThis
		}
		if redirect := a.status == http.StatusPermanentRedirect; a.ct != ctPlain && !redirect && r.method != "OPTIONS" {
			return fmt.Errorf("content type %q", a.ct)
		}
		return nil
	},
	"bad-parameter": func(_ *Server, r recordedRequest, a reply) error {
		sentence := len(r.first) > 0 && strings.HasPrefix(r.first[0], "Invalid input")
		if !sentence && r.name != "country-nonascii" || r.name == "proto-upper" {
			return notThis
		}
		return want(a, 400, ctPlain)
	},
	"protocol-case": func(s *Server, r recordedRequest, a reply) error {
		if r.name != "proto-upper" {
			return notThis
		}
		return tenPublic(s, fact{}, a)
	},
	"padded-country": func(s *Server, r recordedRequest, a reply) error {
		if r.name != "country-none" {
			return notThis
		}
		return tenPublic(s, fact{}, a)
	},
	"uk-is-gb": func(s *Server, r recordedRequest, a reply) error {
		if r.name != "country-uk" {
			return notThis
		}
		return tenPublic(s, fact{}, a)
	},
	"exact-versions": func(_ *Server, r recordedRequest, a reply) error {
		if !strings.HasPrefix(r.name, "version-") && !strings.HasPrefix(r.name, "kitten-") {
			return notThis
		}
		return want(a, 404, ctJSON)
	},
	"double-slash": func(_ *Server, r recordedRequest, a reply) error {
		if r.name != "double-slash-start" {
			return notThis
		}
		if a.status != 308 || a.header.Get("Location") != "/mirrorlist/9/baseos" {
			return fmt.Errorf("answered %d to %q", a.status, a.header.Get("Location"))
		}
		return nil
	},
	"json-type": func(_ *Server, r recordedRequest, a reply) error {
		if !strings.HasPrefix(r.name, "isolist") || r.status != 200 || a.status != 200 {
			return notThis
		}
		if r.name == "isolist-country" && len(a.lines) != 10 {
			return fmt.Errorf("%d lines", len(a.lines))
		}
		return want(a, 200, ctJSON)
	},
	"iso-arch": func(_ *Server, r recordedRequest, a reply) error {
		if !slices.Contains([]string{"isolist-badarch", "isolist-quote", "isolist-unicode"}, r.name) {
			return notThis
		}
		return want(a, 404, ctJSON)
	},
	"logo": func(_ *Server, r recordedRequest, a reply) error {
		if r.name != "static" {
			return notThis
		}
		return want(a, 404, ctPlain)
	},
	"metalink": func(_ *Server, r recordedRequest, a reply) error {
		if r.name != "metalink" {
			return notThis
		}
		return want(a, 400, ctPlain)
	},
	"query-form": func(s *Server, r recordedRequest, a reply) error {
		switch r.name {
		case "legacy-query":
			return tenPublic(s, fact{}, a)
		case "mirrorlist-only":
			return want(a, 400, ctPlain)
		}
		return notThis
	},
	"no-place": func(s *Server, r recordedRequest, a reply) error {
		if !strings.HasPrefix(r.name, "XFF") || r.lines != "many" || r.leaked > 0 {
			return notThis
		}
		return tenPublic(s, fact{}, a)
	},
	"no-address": func(s *Server, r recordedRequest, a reply) error {
		if r.leaked == 0 {
			return notThis
		}
		return tenPublic(s, fact{}, a)
	},
	"no-country": func(s *Server, r recordedRequest, a reply) error {
		if !strings.HasPrefix(r.name, "XFF") || r.status != 500 {
			return notThis
		}
		return tenPublic(s, fact{}, a)
	},
}

func compareHTTP(t *testing.T, s *Server, r recordedRequest, a reply, used map[string]int) {
	t.Helper()
	wrong := r.check(s, a)
	if wrong == nil {
		return
	}
	var why []string
	for _, name := range slices.Sorted(maps.Keys(httpDifferences)) {
		switch err := httpDifferences[name](s, r, a); {
		case err == nil:
			used[name]++
			return
		case err != notThis:
			why = append(why, fmt.Sprintf("%s does not cover it: %v", name, err))
		}
	}
	t.Errorf("%s %s (%s) for %q: %v\n  got %d %s %.300q\n  %s", r.method, r.target, r.name, r.client, wrong, a.status, a.ct, a.body, strings.Join(why, "\n  "))
}
