package peer

import (
	"net/http"
	"testing"
)

func TestLocal(t *testing.T) {
	for _, tt := range []struct {
		name   string
		remote string
		header string
		more   []string
		want   bool
	}{
		{name: "a process of this host", remote: "127.0.0.1:4000", want: true},
		{name: "any loopback address", remote: "127.9.8.7:4000", want: true},
		{name: "over IPv6", remote: "[::1]:4000", want: true},
		{name: "over IPv4 to a socket of IPv6", remote: "[::ffff:127.0.0.1]:4000", want: true},
		{name: "another host", remote: "192.0.2.1:4000"},
		{name: "another host, mapped", remote: "[::ffff:192.0.2.1]:4000"},
		{name: "no address at all", remote: "@"},
		{name: "nginx", remote: "127.0.0.1:4000", header: "X-Real-Ip"},
		{name: "a proxy that appends", remote: "127.0.0.1:4000", header: "X-Forwarded-For"},
		{name: "a proxy by the book", remote: "127.0.0.1:4000", header: "Forwarded"},
		{name: "a cache", remote: "127.0.0.1:4000", header: "Via"},
		{name: "a web page that posts to another site", remote: "127.0.0.1:4000", header: "Origin"},
		{name: "a web page that reads another site", remote: "127.0.0.1:4000", header: "Sec-Fetch-Site"},
		{name: "the header of a proxy that is named", remote: "127.0.0.1:4000", header: "CF-Connecting-IP", more: []string{"CF-Connecting-IP"}},
		{name: "a header that nobody names", remote: "127.0.0.1:4000", header: "CF-Connecting-IP", more: []string{""}, want: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: tt.remote, Header: http.Header{}}
			if tt.header != "" {
				r.Header.Set(tt.header, "192.0.2.1")
			}
			if got := Local(r, tt.more...); got != tt.want {
				t.Errorf("Local of %s with %q, %q: %t", tt.remote, tt.header, tt.more, got)
			}
		})
	}
}
