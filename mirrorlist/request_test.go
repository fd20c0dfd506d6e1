package mirrorlist

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"meridian/schema"
)

func TestParseParams(t *testing.T) {
	for _, tt := range []struct {
		name, query string
		want        params
	}{
		{"nothing", "", params{}},
		{"all of them", "arch=x86_64&protocol=https&country=DE&repo=baseos-9", params{arch: "x86_64", protocol: "https", country: "DE", repo: "baseos-9"}},
		{"unknown ones are passed over", "x&=y&infra=stock&arch=a", params{arch: "a"}},
		{"the first of a repeated one counts", "country=DE&country=FR", params{country: "DE"}},
		{"an empty value counts as absent", "arch=&country=&arch", params{}},
		{"an empty value leaves room for the next", "arch=&arch=x86_64", params{arch: "x86_64"}},
		{"names are told apart by case", "Arch=a&COUNTRY=DE", params{}},
		{"escapes are undone", "country=%44%45&repo=a%2Bb+c", params{country: "DE", repo: "a+b c"}},
		{"a broken escape counts as absent", "country=%zz&arch=%4", params{}},
		{"after a broken one the next counts", "country=%zz&country=FR", params{country: "FR"}},
		{"what follows a second = belongs to the value", "repo=a=b", params{repo: "a=b"}},
		{"separators alone", "&&&=&==", params{}},
		{"a system that asks to be counted", "arch=a&countme=3", params{arch: "a", age: 3}},
		{"a count that is none", "countme=5&countme=&countme=11&countme=%31", params{}},
		{"a semicolon separates nothing", "arch=a;country=DE", params{arch: "a;country=DE"}},
	} {
		if got := parseParams(tt.query); got != tt.want {
			t.Errorf("%s: %q is %+v, want %+v", tt.name, tt.query, got, tt.want)
		}
	}
}

func TestParseScheme(t *testing.T) {
	for s, want := range map[string]scheme{"": anyScheme, "http": httpScheme, "https": httpsScheme, "HTTPS": httpsScheme, "Http": httpScheme} {
		if got, no := parseScheme(s); no != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", s, got, no, want)
		}
	}
	for _, s := range []string{"ftp", "rsync", "httpss", " http", "http,https"} {
		if _, no := parseScheme(s); no == nil || no.code != http.StatusBadRequest || !strings.Contains(no.text, "write protocol=") {
			t.Errorf("%q: %v", s, no)
		}
	}
}

func TestParseCountry(t *testing.T) {
	for s, want := range map[string]string{"": "", "DE": "DE", "de": "DE", "dE": "DE", "UK": "GB", "uk": "GB", "ZZ": "ZZ"} {
		if got, no := parseCountry(s); no != nil || letters(got) != want {
			t.Errorf("%q is %q, %v; want %q", s, letters(got), no, want)
		}
	}
	for _, s := range []string{"D", "DEU", "D1", "Germany", "ÄÖ", "é", "D ", "[[", "@`", "\x00\x00"} {
		if _, no := parseCountry(s); no == nil || no.code != http.StatusBadRequest || !strings.Contains(no.text, "country=DE") {
			t.Errorf("%q: %v", s, no)
		}
	}
}

func TestParseAddr(t *testing.T) {
	for _, tt := range []struct{ name, s, want string }{
		{"IPv4", "192.0.2.1", "192.0.2.1"},
		{"IPv4 with port", "192.0.2.1:443", "192.0.2.1"},
		{"IPv6", "2001:db8::1", "2001:db8::1"},
		{"IPv6 in brackets", "[2001:db8::1]", "2001:db8::1"},
		{"IPv6 with port", "[2001:db8::1]:443", "2001:db8::1"},
		{"blanks around", " \t192.0.2.1 ", "192.0.2.1"},
		{"an IPv4-mapped address is the IPv4 one", "::ffff:192.0.2.1", "192.0.2.1"},
		{"mapped, in brackets, with port", "[::ffff:192.0.2.1]:1", "192.0.2.1"},
		{"an IPv4-compatible address is not", "::192.0.2.1", "::c000:201"},
		{"a zone is dropped", "fe80::1%eth0", "fe80::1"},
		{"a zone in brackets too", "[fe80::1%eth0]:80", "fe80::1"},
	} {
		got, ok := parseAddr(tt.s)
		if !ok || got != netip.MustParseAddr(tt.want) {
			t.Errorf("%s: %q is %v, %t; want %s", tt.name, tt.s, got, ok, tt.want)
		}
	}
	for _, s := range []string{
		"", " ", "unknown", "_hidden", "localhost", "192.0.2", "192.0.2.1.5", "192.0.2.256", "192.0.2.1:", "192.0.2.1:http", "192.0.2.1:99999",
		"192.0.2.1:-1", "192.0.2.1/24", "[2001:db8::1", "2001:db8::1]", "[2001:db8::1]443", "[2001:db8::1]:", "[2001:db8::1]:x", "[]", "[", "]", ":", "::1::",
		"192.0.2.1, 192.0.2.2", "192.0.2.1\x00", "①92.0.2.1",
	} {
		if got, ok := parseAddr(s); ok {
			t.Errorf("%q is %v", s, got)
		}
	}
}

func TestClientOf(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:f::/48")}
	for _, tt := range []struct {
		name, peer, header, value string // value: lines of the header, separated by |
		want                      string // "" for a client without address
	}{
		{"a stranger's header is not believed", "192.0.2.1:99", "", "198.51.100.1", "192.0.2.1"},
		{"a proxy names the client", "10.0.0.1:99", "", "198.51.100.1", "198.51.100.1"},
		{"a proxy on IPv6 too", "[2001:db8:f::1]:99", "", "2001:db8::5", "2001:db8::5"},
		{"an IPv4-mapped peer is the proxy", "[::ffff:10.0.0.1]:99", "", "198.51.100.1", "198.51.100.1"},
		{"what the client forged stands left of what the proxy saw", "10.0.0.1:99", "", "203.0.113.9, 198.51.100.1", "198.51.100.1"},
		{"proxies in a chain are skipped", "10.0.0.1:99", "", "203.0.113.9,198.51.100.1 , 10.9.9.9,10.0.0.2", "198.51.100.1"},
		{"a header of two lines is one chain", "10.0.0.1:99", "", "203.0.113.9|198.51.100.1, 10.0.0.2", "198.51.100.1"},
		{"the last line counts first", "10.0.0.1:99", "", "198.51.100.1|10.0.0.2", "198.51.100.1"},
		{"a proxy that asks for itself", "10.0.0.1:99", "", "10.0.0.7, 10.0.0.2", "10.0.0.7"},
		{"nobody is named", "10.0.0.1:99", "", "", ""},
		{"garbage at the right end", "10.0.0.1:99", "", "198.51.100.1, unknown", ""},
		{"garbage behind a proxy", "10.0.0.1:99", "", "198.51.100.1, unknown, 10.0.0.2", ""},
		{"garbage left of the client does not matter", "10.0.0.1:99", "", "unknown, 198.51.100.1", "198.51.100.1"},
		{"an empty end", "10.0.0.1:99", "", "198.51.100.1,", ""},
		{"a header of its own", "10.0.0.1:99", "CF-Connecting-IP", "198.51.100.1", "198.51.100.1"},
		{"a header of its own holds one address", "10.0.0.1:99", "CF-Connecting-IP", "198.51.100.1, 198.51.100.2", ""},
		{"a header of its own stands once", "10.0.0.1:99", "CF-Connecting-IP", "198.51.100.1|198.51.100.2", ""},
		{"a header of its own is missing", "10.0.0.1:99", "CF-Connecting-IP", "", ""},
		{"a header of its own from a stranger", "192.0.2.1:99", "CF-Connecting-IP", "198.51.100.1", "192.0.2.1"},
		{"a peer that is no address", "@", "", "198.51.100.1", ""},
	} {
		h := http.Header{}
		for line := range strings.SplitSeq(tt.value, "|") {
			if name := tt.header; name == "" {
				h.Add("X-Forwarded-For", line)
			} else if line != "" {
				h.Add(name, line)
				h.Set("X-Forwarded-For", "203.0.113.66") // is not looked at
			}
		}
		got := clientOf(&http.Request{RemoteAddr: tt.peer, Header: h}, proxies, tt.header, 1)
		want := netip.Addr{}
		if tt.want != "" {
			want = netip.MustParseAddr(tt.want)
		}
		if got.addr != want {
			t.Errorf("%s: %v, want %v", tt.name, got.addr, want)
		}
		if want.IsValid() && got.hash != prefixHash(want, 1) {
			t.Errorf("%s: the hash is not that of the client", tt.name)
		}
	}
}

// What a connection was found to be holds for its requests, as long as the secret
// is the one that it was found with.
func TestCallerIsReadOnceForAConnection(t *testing.T) {
	s := new(Server)
	s.table.Store(&Table{secret: 1})
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	for _, tt := range []struct {
		name, conn, remote, want string
		trusted                  []netip.Prefix
		secret                   uint64
	}{
		{name: "the peer of the connection", conn: "198.51.100.1:7", remote: "not read again", want: "198.51.100.1", secret: 1},
		{name: "over IPv6", conn: "[2001:db8::1]:7", remote: "not read again", want: "2001:db8::1", secret: 1},
		{name: "IPv4 in IPv6", conn: "[::ffff:198.51.100.1]:7", remote: "not read again", want: "198.51.100.1", secret: 1},
		{name: "a new secret since", conn: "198.51.100.1:7", remote: "198.51.100.1:7", want: "198.51.100.1", secret: 2},
		{name: "a trusted proxy", conn: "10.0.0.1:7", remote: "not read again", want: "203.0.113.9", secret: 1, trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	} {
		r := &http.Request{RemoteAddr: tt.remote, Header: http.Header{"X-Forwarded-For": {"203.0.113.9"}}}
		r = r.WithContext(s.withCaller(t.Context(), peerConn{ours, peerAddr(tt.conn)}))
		want := netip.MustParseAddr(tt.want)
		if got := clientOf(r, tt.trusted, "", tt.secret); got != (client{want, prefixHash(want, tt.secret)}) {
			t.Errorf("%s: %+v, want %v with the hash of secret %d", tt.name, got, want, tt.secret)
		}
	}
}

// Clients whose addresses are lost do not all get one order.
func TestNamelessClientsDiffer(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	seen := map[uint64]bool{}
	for _, v := range []string{"unknown", "_a", "_b"} {
		r := &http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{"X-Forwarded-For": {v}}}
		seen[clientOf(r, proxies, "", 1).hash] = true
	}
	if len(seen) != 3 {
		t.Errorf("three clients have %d orders", len(seen))
	}
}

func TestSlotOfUserAgent(t *testing.T) {
	r := &release{arches: []schema.Arch{"x86_64", "x86_64_v2", "aarch64"}}
	for _, tt := range []struct {
		agent string
		want  int
	}{
		{"", allArches},
		{"curl/8.0.1", allArches},
		{"Mozilla/5.0 (X11; Linux x86_64)", allArches},
		{"libdnf (AlmaLinux 9.8; generic; Linux.x86_64)", r.x86Slot()},
		{"libdnf (AlmaLinux 9.8; generic; Linux.x86_64_v2)", r.archSlot(1)},
		{"libdnf (Fedora Linux 41; workstation; Linux.aarch64)", r.archSlot(2)},
		{"libdnf (AlmaLinux 9.8; generic; Linux.riscv64)", allArches},
		{"libdnf (AlmaLinux 9.8; generic; Linux)", allArches},
		{"libdnf (AlmaLinux 9.8)", allArches},
		{"libdnf", allArches},
		{"libdnf (;;;", allArches},
		{"libdnf .", allArches},
	} {
		if got := r.slotOf(tt.agent); got != tt.want {
			t.Errorf("%q: slot %d, want %d", tt.agent, got, tt.want)
		}
	}
}

func TestClip(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("x", 64)} {
		if got := clip(s); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
	for _, s := range []string{strings.Repeat("x", 65), strings.Repeat("ä", 5000), strings.Repeat("€", 40)} {
		if got := clip(s); len(got) > 64+len("…") || !utf8.ValidString(got) || !strings.HasSuffix(got, "…") {
			t.Errorf("%.20q… became %q", s, got)
		}
	}
}

func TestHostOf(t *testing.T) {
	for base, want := range map[string]string{
		"https://mirror.example.org/pub/":          "mirror.example.org",
		"http://mirror.example.org:8080/":          "mirror.example.org",
		"http://[2001:db8::1]:80/":                 "2001:db8::1",
		"http://user:password@mirror.example.org/": "mirror.example.org",
		"":            "",
		"http://%zz/": "",
	} {
		if got := hostOf(base); got != want {
			t.Errorf("%q is on host %q, want %q", base, got, want)
		}
	}
}
