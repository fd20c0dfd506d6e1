package mirrorlist

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/zeebo/xxh3"
)

// fuzzWorld has what must not leave the server, under names that no answer
// contains by chance.
var fuzzWorld = map[string][]byte{
	"mirrorlist.yml": []byte("trusted_proxies: [10.0.0.0/8]\nlimit: 3\n"),
	"mirrors.d/a.yml": []byte(`{name: a.example, email: zq7mail@a.example, address: {http: http://a.example/}, address_optional: {kitten: {https: https://a.example/k/}},
  geolocation: {country: DE}, subnets: [198.51.100.64/26]}`),
	"mirrors.d/b.yml": []byte(`{name: b.example, address: {http: http://b.example/, https: https://b.example/}, geolocation: {country: FR}, asn: [64503]}`),
	"mirrors.d/c.yml": []byte(`{name: c.example, address: {https: https://c.example/}, geolocation: {country: US}, anycast: true}`),
	"mirrors.d/d.yml": []byte(`{name: d.example, address: {http: http://d.example/}, geolocation: {country: JP}, carries: {arches: [aarch64]}}`),
	"mirrors.d/private.yml": []byte(`{name: zq7private.example, private: true, email: zq7mail@private.example, address: {http: http://zq7private.example/},
  sponsor: zq7private, subnets: [198.51.100.0/27], asn: [64504], geolocation: {country: DE}}`),
}

// A request of any form makes no panic and no 5xx but 503, gets no more URLs than
// the limit says and none twice, and learns nothing of the private mirror unless
// it is one of that mirror's own clients asking for a list.
func FuzzRequest(f *testing.F) {
	get := func(target, headers string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: m\r\n" + headers + "\r\n"
	}
	for _, seed := range []string{
		get("/mirrorlist/9/baseos", ""), get("/mirrorlist/9/baseos/?arch=x86_64&country=UK&protocol=https&countme=2", ""),
		get("/mirrorlist/10-kitten/baseos?arch=aarch64", "X-Forwarded-For: 198.51.100.1, 10.0.0.9\r\n"),
		get("/mirrorlist/9.99-beta/source", "X-Forwarded-For: [2001:db8:1::1]:80\r\nUser-Agent: libdnf (Distro 9.8; generic; Linux.x86_64)\r\n"),
		get("/mirrorlist?repo=extras-common-10-kitten&arch=", ""), get("/mirrorlist/9.7/baseos-debug?country=%4", ""),
		get("/isolist/9/x86_64", "Accept: text/plain\r\n"), get("/isolist/10/x86_64_v2", ""),
		get("/api/v1/explain?version=9&repo=baseos&ip=198.51.100.1", ""), get("/api/v1/explain?repo=baseos-9&user_agent=libdnf", ""),
		get("/api/v1/mirrors", ""), get("/api/v1/mirrors/a.example", ""), get("/api/v1/network", ""),
		get("/debug/json/ip_info", "Cookie: x\r\n"), get("/debug/json/nearest_mirrors", ""), get("/debug/json/all_mirrors", ""), get("/debug/html/all", ""),
		get("/healthz", ""), get("/readyz", ""), get("//mirrorlist//9/baseos/", ""), get("/%2e%2e/%00?%", ""), get("http://other/mirrorlist/9/baseos", ""),
		"POST /-/reload HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: m\r\n\r\n", "HEAD /mirrorlist/9/baseos HTTP/1.0\r\n\r\n",
		get("/mirrorlist/"+strings.Repeat("9", 5000)+"/"+strings.Repeat("b", 5000), ""), get("/mirrorlist/9/baseos?"+strings.Repeat("country=ÄÖ&", 500), ""),
		get("/", "Accept-Language: de\r\n"), get("/isos/x86_64/9", ""), get("/mirrors/a.example", ""), get("/map", ""), get("/kitten", ""),
	} {
		for peer := range uint8(4) {
			f.Add([]byte(seed), peer)
		}
	}
	s := startWorld(f, fuzzWorld)
	h, _ := s.Handlers()
	f.Fuzz(func(t *testing.T, raw []byte, peer uint8) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(raw))))
		if err != nil {
			return // net/http answers 400
		}
		r.RemoteAddr = []string{"203.0.113.200:1", "198.51.100.1:1", "10.0.0.1:1", "[2001:db8:4::1]:1"}[peer%4]
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != http.StatusServiceUnavailable {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
		body := w.Body.String()

		var urls []string
		list := w.Code == http.StatusOK && (strings.HasPrefix(r.URL.Path, "/mirrorlist") || strings.HasPrefix(r.URL.Path, "/isolist/"))
		switch {
		case list && strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain"):
			urls = strings.Split(body, "\n")
		case list:
			if err := json.Unmarshal(w.Body.Bytes(), &urls); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
		}
		if list && (len(urls) == 0 || len(urls) > 3) {
			t.Fatalf("%d URLs: %q", len(urls), urls)
		}
		for i, u := range urls {
			if !strings.HasPrefix(u, "http://") && !strings.HasPrefix(u, "https://") || slices.Contains(urls[:i], u) {
				t.Fatalf("line %d of %q", i, urls)
			}
		}

		if strings.Contains(strings.ToLower(string(raw)), "zq7") {
			return // what a client sends, it may hear again
		}
		table := s.table.Load()
		client := clientOf(r, table.trusted, table.header, table.secret)
		own := strings.HasPrefix(r.URL.Path, "/mirrorlist") && table.serves(client.addr, table.db.ASN(client.addr), table.byName["zq7private.example"])
		if strings.Contains(body, "zq7mail") || strings.Contains(body, "zq7private") && !own {
			t.Fatalf("%s learns of the private mirror: %s", client.addr, body)
		}
	})
}

// Of each parameter the first that has a value counts, as url.ParseQuery reads it.
func FuzzParams(f *testing.F) {
	for _, seed := range []string{
		"", "arch=x86_64&country=DE", "arch=&arch=b", "country=%44%45", "repo=a%2Bb+c&protocol", "country=%zz&country=FR", "&&=&==", "arch=a;b", "arch=\x00", "protocol=https=",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got := parseParams(query)
		if strings.Contains(query, ";") {
			return // which ParseQuery refuses
		}
		// Names are not unescaped here.
		var pairs []string
		for pair := range strings.SplitSeq(query, "&") {
			if name, _, _ := strings.Cut(pair, "="); !strings.ContainsAny(name, "%+") {
				pairs = append(pairs, pair)
			}
		}
		values, _ := url.ParseQuery(strings.Join(pairs, "&")) // reports what is broken, and reads the rest
		for name, v := range map[string]string{"arch": got.arch, "protocol": got.protocol, "country": got.country, "repo": got.repo} {
			want := ""
			if i := slices.IndexFunc(values[name], func(v string) bool { return v != "" }); i >= 0 {
				want = values[name][i]
			}
			if v != want {
				t.Errorf("%s of %q is %q, want %q", name, query, v, want)
			}
		}
	})
}

// What is read as an address is one, in its one plain form; whatever net/netip
// reads as an address, or an address with a port, is read.
func FuzzParseAddr(f *testing.F) {
	for _, seed := range []string{
		"", "192.0.2.1", "192.0.2.1:80", "[2001:db8::1]:443", "2001:db8::1", "[::ffff:192.0.2.1]:1", "fe80::1%eth0", "[fe80::1%25eth0]:1", "::192.0.2.1", "unknown",
		"[]:", "192.0.2.1:", "1.2.3.4:99999", " 192.0.2.1\t", "192.0.2.1, 192.0.2.2", "[192.0.2.1]",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, ok := parseAddr(s)
		var want netip.Addr
		if b, err := netip.ParseAddr(s); err == nil {
			want = b
		} else if p, err := netip.ParseAddrPort(s); err == nil {
			want = p.Addr()
		}
		// A zone may be anything, and nobody calls an interface "]:1".
		if want.IsValid() && !strings.Contains(want.Zone(), "]") && (!ok || a != want.Unmap().WithZone("")) {
			t.Fatalf("%q is %v, %t; want %v", s, a, ok, want)
		}
		if !ok {
			return
		}
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
			t.Fatalf("%q is %v", s, a)
		}
		for _, form := range []string{a.String(), " " + netip.AddrPortFrom(a, 8080).String(), "[" + a.String() + "]"} {
			if b, ok := parseAddr(form); !ok || b != a {
				t.Fatalf("%q is %v, and in the form %q it is %v", s, a, form, b)
			}
		}
	})
}

// Whatever is in a file of orders whose checksum is right: it is refused, or can
// be walked from end to end, and is the same when written again.
func FuzzOrders(f *testing.F) {
	const key, mirrors, head = 7, 40, len(ordersMagic) + 16
	for _, o := range []*orders{
		{start: []uint32{0}}, {start: []uint32{0, 0, 0}}, {start: []uint32{0, 2, 5}, data: []uint16{bandMark, 5, bandMark + 64, 1, 39}}, {start: []uint32{3, 1}, data: []uint16{bandMark, 1, 5}},
		{start: []uint32{0, 2}, data: []uint16{0, 5}}, {start: []uint32{0, 2}, data: []uint16{bandMark, 40}}, {start: []uint32{0, 2}, data: []uint16{bandMark + ranks, 1}}, {start: []uint32{0, 1}, data: []uint16{bandMark}},
	} {
		file := o.encode(key)
		f.Add(uint32(len(o.start)), uint32(len(o.data)), file[head:len(file)-8])
	}
	f.Fuzz(func(t *testing.T, starts, n uint32, content []byte) {
		file := binary.LittleEndian.AppendUint64([]byte(ordersMagic), key)
		file = binary.LittleEndian.AppendUint32(file, starts)
		file = binary.LittleEndian.AppendUint32(file, n)
		file = append(file, content...)
		file = binary.LittleEndian.AppendUint64(file, xxh3.Hash(file))
		o, err := decodeOrders(file, key, mirrors)
		if err != nil {
			return
		}
		for place := range uint32(len(o.start)) {
			for of := o.of(place); len(of) > 0; {
				var rank int
				var list []uint16
				rank, list, of = nextBand(of)
				if rank >= ranks || slices.ContainsFunc(list, func(m uint16) bool { return m >= mirrors }) {
					t.Fatalf("place %d has rank %d with %v", place, rank, list)
				}
			}
		}
		if string(o.encode(key)) != string(file) {
			t.Fatal("written again it is another file")
		}
	})
}
