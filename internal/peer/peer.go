// Package peer tells whether a request was made by somebody on this host, who may
// read what names files and hosts, and have things done. It says nothing of who
// a client is: whose forwarded address is believed is for the server to decide.
package peer

import (
	"net/http"
	"net/netip"
)

// relayed are headers of requests that somebody else makes this host make: a
// proxy, or a web page in a browser.
var relayed = []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "Via", "Origin", "Sec-Fetch-Site"}

// Local reports whether r was made on this host, by nobody's proxy and by no web
// page. A proxy that names its client in a header of its own is told apart only
// when that is among headers; "" is none.
func Local(r *http.Request, headers ...string) bool {
	for _, h := range relayed {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	for _, h := range headers {
		if h != "" && r.Header.Get(h) != "" {
			return false
		}
	}
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && addr.Addr().Unmap().IsLoopback()
}
