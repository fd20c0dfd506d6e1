package main

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestParseLine(t *testing.T) {
	for _, tt := range []struct {
		name, line            string
		client, target, agent string // target as it is asked for again; "" is no list
		ok                    bool
	}{
		{
			name: "nginx, combined", ok: true,
			line:   `192.0.2.1 - - [01/Mar/2026:12:00:00 +0000] "GET /mirrorlist/9/baseos?arch=x86_64&countme=2 HTTP/1.1" 200 512 "-" "libdnf (AlmaLinux 9.8; generic; Linux.x86_64)"`,
			client: "192.0.2.1", target: "/mirrorlist/9/baseos?arch=x86_64", agent: "libdnf (AlmaLinux 9.8; generic; Linux.x86_64)",
		},
		{
			name: "with more behind it, and a user", ok: true,
			line:   `2001:db8::1 - alice [01/Mar/2026:12:00:00 +0000] "GET /metalink?repo=baseos-9&arch=aarch64&countme=1 HTTP/2.0" 200 512 "https://example.org/" "x" "203.0.113.9" rt=0.1`,
			client: "2001:db8::1", target: "/metalink?repo=baseos-9&arch=aarch64", agent: "x",
		},
		{
			name: "common format, without an agent", ok: true,
			line:   `::ffff:192.0.2.1 - - [01/Mar/2026:12:00:00 +0000] "HEAD /isolist/9/x86_64 HTTP/1.0" 200 -`,
			client: "192.0.2.1", target: "/isolist/9/x86_64",
		},
		{
			name: "escapes of nginx and Apache", ok: true,
			line:   `192.0.2.1 - - [01/Mar/2026:12:00:00 +0000] "GET /mirrorlist/9/baseos HTTP/1.1" 200 1 "\"a\" [x] " "li\x22bd\\nf\x1b[31m"`,
			client: "192.0.2.1", target: "/mirrorlist/9/baseos", agent: `li"bd\nf[31m`,
		},
		{
			name: "gin", ok: true,
			line:   `[GIN] 2026/03/01 - 12:00:00 | 200 |      25.1µs |       192.0.2.1 | GET      "/mirrorlist/9/baseos?countme=1&protocol=https"`,
			client: "192.0.2.1", target: "/mirrorlist/9/baseos?protocol=https",
		},
		{
			name: "parameters that no server knows are kept, escaped as they were", ok: true,
			line:   `192.0.2.1 - - [t] "GET /mirrorlist/9/base%6fs?infra=stock&&a=%41+b HTTP/1.1" 200 1 "-" "-"`,
			client: "192.0.2.1", target: "/mirrorlist/9/base%6fs?infra=stock&a=%41+b",
		},
		{name: "another page", ok: true, line: `192.0.2.1 - - [t] "GET /mirrorlists HTTP/1.1" 200 1 "-" "-"`, client: "192.0.2.1"},
		{name: "another method", ok: true, line: `192.0.2.1 - - [t] "POST /mirrorlist/9/baseos HTTP/1.1" 405 1 "-" "-"`, client: "192.0.2.1"},
		{name: "a name instead of an address", line: `host.example.org - - [t] "GET /mirrorlist/9/baseos HTTP/1.1" 200 1 "-" "-"`},
		{name: "no request", line: `192.0.2.1 - - [t] "-" 400 0 "-" "-"`},
		{name: "a request of a proxy", line: `192.0.2.1 - - [t] "GET http://example.org/mirrorlist/9/baseos HTTP/1.1" 200 1 "-" "-"`},
		{name: "a path that begins like a host", ok: true, client: "192.0.2.1", line: `192.0.2.1 - - [t] "GET //example.org/mirrorlist/9/baseos HTTP/1.1" 200 1 "-" "-"`},
		{name: "bytes of TLS", line: `192.0.2.1 - - [t] "\x16\x03\x01" 400 0 "-" "-"`},
		{name: "cut off", line: `192.0.2.1 - - [t] "GET /mirrorlist/9/baseos`},
		{name: "no time", line: `192.0.2.1 - - "GET /mirrorlist/9/baseos HTTP/1.1" 200 1`},
		{name: "empty", line: ""},
		{name: "gin, cut off", line: `[GIN] 2026/03/01 - 12:00:00 | 200 | 25.1µs | 192.0.2.1 | GET "/mirrorlist`},
		{name: "gin, another line", line: `[GIN] listening`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, ok := parseLine(tt.line)
			if ok != tt.ok {
				t.Fatalf("read %+v, %v", r, ok)
			}
			if !ok {
				return
			}
			if r.client != netip.MustParseAddr(tt.client) || r.isList() != (tt.target != "") {
				t.Errorf("client %v, a list: %v", r.client, r.isList())
			}
			if r.isList() && (r.uncounted() != tt.target || r.agent != tt.agent) {
				t.Errorf("target %q, agent %q; want %q, %q", r.uncounted(), r.agent, tt.target, tt.agent)
			}
		})
	}
}

// What is shown of a request has nothing in it that only its client would say.
func TestShownTarget(t *testing.T) {
	for target, want := range map[string]string{
		"/mirrorlist/9/baseos?arch=x86_64&token=secret&ip=192.0.2.1&countme=1": "/mirrorlist/9/baseos?arch=x86_64",
		"/mirrorlist?repo=baseos-9&country=DE&protocol=http":                   "/mirrorlist?country=DE&protocol=http&repo=baseos-9",
		"/mirrorlist/" + strings.Repeat("a", 500):                              "/mirrorlist/" + strings.Repeat("a", maxShown-len("/mirrorlist/")) + "…",
	} {
		r, ok := parseLine(`192.0.2.1 - - [t] "GET ` + target + ` HTTP/1.1" 200 1 "-" "-"`)
		if got := r.shown(); !ok || got != want {
			t.Errorf("%s is shown as %q, want %q", target, got, want)
		}
	}
}

// Whatever is in a log, what is read of it can be asked for again.
func FuzzParseLine(f *testing.F) {
	for _, line := range []string{
		`192.0.2.1 - - [01/Mar/2026:12:00:00 +0000] "GET /mirrorlist/9/baseos?a=b HTTP/1.1" 200 512 "-" "libdnf (AlmaLinux 9.8; generic; Linux.x86_64)"`,
		`[GIN] 2026/03/01 - 12:00:00 | 200 | 25.1µs | 192.0.2.1 | GET "/mirrorlist/9/baseos"`,
		`192.0.2.1 - - [t] "GET /mirrorlist/%zz?x=\x0a HTTP/1.1" 200 1 "\x" "\`,
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, ok := parseLine(line)
		if !ok || !r.isList() {
			return
		}
		req, err := http.NewRequest(r.method, "http://example.org"+r.uncounted(), nil)
		if err != nil || req.URL.Host != "example.org" || strings.Contains(req.URL.RawQuery, "countme=") || !strings.HasPrefix(req.URL.Path, "/") {
			t.Fatalf("%q asks for %q: %v", line, r.uncounted(), err)
		}
		req.Header.Set("User-Agent", r.agent)
		if err := req.Write(discard{}); err != nil {
			t.Fatalf("%q cannot be asked for again: %v", line, err)
		}
		if !r.client.IsValid() || r.client.Zone() != "" {
			t.Fatalf("%q is from %v", line, r.client)
		}
		r.shown()
	})
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
