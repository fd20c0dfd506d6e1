package fetch

import (
	"net/netip"
	"testing"
)

func TestPublic(t *testing.T) {
	for _, tt := range []struct {
		name string
		addr string
		want bool
	}{
		{"a resolver everybody knows", "8.8.8.8", true},
		{"the same over IPv6", "2001:4860:4860::8888", true},
		{"the last address before multicast", "223.255.255.255", true},
		{"unspecified", "0.0.0.0", false},
		{"this network", "0.1.2.3", false},
		{"private, ten", "10.1.2.3", false},
		{"private, 172.16", "172.31.255.255", false},
		{"just beyond 172.16/12", "172.32.0.0", true},
		{"private, 192.168", "192.168.1.1", false},
		{"carrier-grade NAT", "100.127.255.255", false},
		{"just beyond carrier-grade NAT", "100.128.0.0", true},
		{"loopback", "127.0.0.1", false},
		{"all of loopback", "127.255.0.9", false},
		{"cloud metadata", "169.254.169.254", false},
		{"protocol assignments", "192.0.0.8", false},
		{"documentation", "192.0.2.1", false},
		{"benchmarks", "198.19.255.255", false},
		{"multicast", "224.0.0.251", false},
		{"reserved", "250.1.1.1", false},
		{"broadcast", "255.255.255.255", false},

		{"unspecified, IPv6", "::", false},
		{"loopback, IPv6", "::1", false},
		{"link-local", "fe80::1", false},
		{"a zone", "2001:4860:4860::8888%eth0", false},
		{"unique local", "fd00::1", false},
		{"multicast, IPv6", "ff02::1", false},
		{"site-local, withdrawn", "fec0::1", false},
		{"IPv4-compatible", "::8.8.8.8", false},
		{"documentation, IPv6", "2001:db8::1", false},
		{"the newer documentation block", "3fff:fff::1", false},
		{"Teredo", "2001:0:4136:e378:8000:63bf:3fff:fdd2", false},
		{"unallocated", "4000::1", false},
		{"segment routing", "5f00::1", false},

		{"IPv4-mapped public", "::ffff:8.8.8.8", true},
		{"IPv4-mapped loopback", "::ffff:127.0.0.1", false},
		{"NAT64 of a public address", "64:ff9b::8.8.8.8", true},
		{"NAT64 of a private address", "64:ff9b::10.0.0.1", false},
		{"NAT64 with the local prefix", "64:ff9b:1::8.8.8.8", false},
		{"6to4 of a public address", "2002:808:808::1", true},
		{"6to4 of a private address", "2002:a00:1::1", false},
		{"6to4 of loopback", "2002:7f00:1::1", false},
	} {
		if got := Public(netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("%s: Public(%s) = %v, want %v", tt.name, tt.addr, got, tt.want)
		}
	}
	if Public(netip.Addr{}) {
		t.Error("the invalid address is public")
	}
}

// FuzzPublic holds Public against what net/netip knows of the same address.
func FuzzPublic(f *testing.F) {
	for _, s := range []string{"8.8.8.8", "10.0.0.1", "::1", "2001:db8::1", "64:ff9b::7f00:1"} {
		f.Add(netip.MustParseAddr(s).AsSlice())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok || !Public(a) {
			return
		}
		u := a.Unmap()
		if !u.IsGlobalUnicast() || u.IsPrivate() || u.IsLoopback() || u.IsLinkLocalUnicast() || u.IsMulticast() || u.IsUnspecified() {
			t.Errorf("%s is public", a)
		}
		if a.Is4() && !Public(netip.AddrFrom16(a.As16())) {
			t.Errorf("%s is public, its mapped form is not", a)
		}
	})
}
