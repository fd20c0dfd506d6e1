package checker

import (
	"context"
	"crypto/sha256"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meridian/checker/state"
	"meridian/schema"
)

// mirrorURLs are those of the mirror in memory; mirrorKey is its sentinel.
var (
	mirrorURLs = schema.Address{HTTP: "http://mirror.example.org/alma/", HTTPS: "https://mirror.example.org/alma/"}
	mirrorKey  = state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}
)

const mirrorRepomd = "alma/9.8/BaseOS/x86_64/os/repodata/repomd.xml"

// prober returns one whose network is n, and which trusts ca unless nil.
func (n *memNet) prober(t *testing.T, ca *testCA) *Prober {
	t.Helper()
	opts := ProbeOptions{Dial: n.Dial, Lookup: n.Lookup, Vantage: "vienna"}
	if ca != nil {
		opts.RootCAs = ca.pool()
	}
	p := NewProber(opts)
	n.close = append(n.close, p.Close)
	return p
}

func TestEachSchemeIsTried(t *testing.T) {
	body := repomdFile("200", 10)
	files := map[string][]byte{mirrorRepomd: body, "alma/TIME": []byte("1767225600\n")}
	synctest.Test(t, func(t *testing.T) {
		n, ca := newMemNet(t), newTestCA(t)
		n.host("mirror.example.org", "198.51.101.1")
		tr := &tree{files: files}
		n.serve("198.51.101.1:80", tr, nil)
		cert := ca.certificate(t, "mirror.example.org", time.Now().Add(-24*time.Hour), 40*24*time.Hour)
		n.serve("198.51.101.1:443", tr, cert)
		m := &schema.Mirror{Name: "mirror.example.org", Address: mirrorURLs}
		o := n.prober(t, ca).Visit(t.Context(), m, Plan{
			Network: probeNetwork(t), Schemes: true, Families: true, Time: true, Keys: []KeyPlan{{Key: mirrorKey}},
		})
		for _, scheme := range []string{"http", "https"} {
			if a := o.Schemes[scheme]; !a.OK || a.Insecure || a.Evidence != nil || a.SHA256 != sha256.Sum256(body) {
				t.Errorf("%s is seen as %+v", scheme, a)
			}
		}
		if a := o.Schemes["https"]; !a.TLSExpires.Equal(time.Now().Add(39*24*time.Hour).Truncate(time.Second)) || !a.TLSBegins.Equal(time.Now().Add(-24*time.Hour).Truncate(time.Second)) {
			t.Errorf("the certificate is valid from %v to %v", a.TLSBegins, a.TLSExpires)
		}
		if a := o.Families[IPv4]; !a.OK || len(o.Families) != 1 {
			t.Errorf("families are seen as %+v; want IPv4 alone, working", o.Families)
		}
		if !o.Time.Equal(time.Unix(1767225600, 0)) {
			t.Errorf("TIME is read as %v", o.Time)
		}
		if seen := o.Keys[mirrorKey]; seen.Outcome != Served || seen.Evidence != nil {
			t.Errorf("the sentinel is seen as %+v", seen)
		}
		// The sentinel over http, over https and over IPv4, and TIME: nothing twice.
		if o.Requests != 4 || len(tr.log) != 4 {
			t.Errorf("%d requests counted, made: %q", o.Requests, tr.log)
		}
	})
}

func TestAnotherSchemeJudgesWhenOneDoesNotWork(t *testing.T) {
	body := repomdFile("200", 10)
	synctest.Test(t, func(t *testing.T) {
		n, ca := newMemNet(t), newTestCA(t)
		n.host("mirror.example.org", "198.51.101.1")
		cert := ca.certificate(t, "mirror.example.org", time.Now(), 90*24*time.Hour)
		n.serve("198.51.101.1:443", &tree{files: map[string][]byte{mirrorRepomd: body}}, cert)
		m := &schema.Mirror{Name: "mirror.example.org", Address: mirrorURLs}
		o := n.prober(t, ca).Visit(t.Context(), m, Plan{Network: probeNetwork(t), Schemes: true, Keys: []KeyPlan{{Key: mirrorKey}}})
		if a := o.Schemes["http"]; a.OK || a.Evidence == nil || !strings.Contains(a.Evidence.Error, "connection refused") {
			t.Errorf("http is seen as %+v", a)
		}
		if a := o.Schemes["https"]; !a.OK {
			t.Errorf("https is seen as %+v", a)
		}
		if seen := o.Keys[mirrorKey]; seen.Outcome != Served {
			t.Errorf("the sentinel is seen as %+v", seen)
		}
	})
}

func TestEachFamilyIsReached(t *testing.T) {
	newer, older := repomdFile("200", 10), repomdFile("100", 10)
	for _, tt := range []struct {
		name   string
		ipv6   http.Handler // nil: nothing listens
		ok     bool
		status int // of the evidence; -1: there is none
	}{
		{"both work", &tree{files: map[string][]byte{mirrorRepomd: newer}}, true, -1},
		{"nothing listens on IPv6", nil, false, 0},
		{"another site answers on IPv6", http.NotFoundHandler(), false, 404},
		{"an older generation is there on IPv6", &tree{files: map[string][]byte{mirrorRepomd: older}}, true, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet(t)
				n.host("mirror.example.org", "198.51.101.1", "2001:470::1")
				n.serve("198.51.101.1:80", &tree{files: map[string][]byte{mirrorRepomd: newer}}, nil)
				if tt.ipv6 != nil {
					n.serve("[2001:470::1]:80", tt.ipv6, nil)
				}
				m := &schema.Mirror{Name: "mirror.example.org", Address: mirrorURLs}
				o := n.prober(t, nil).Visit(t.Context(), m, Plan{Network: probeNetwork(t), Families: true, Keys: []KeyPlan{{Key: mirrorKey}}})
				if a := o.Families[IPv4]; !a.OK || a.Evidence != nil {
					t.Errorf("IPv4 is seen as %+v", a)
				}
				a, tried := o.Families[IPv6]
				if !tried || a.OK != tt.ok || a.Untested || (a.Evidence == nil) != (tt.status < 0) {
					t.Fatalf("IPv6 is seen as %+v", a)
				}
				if e := a.Evidence; e != nil && (e.Status != tt.status || e.Family != "ipv6") {
					t.Errorf("the evidence is %+v", e)
				}
			})
		})
	}
}

// An address of a family that this host has no way to says nothing about the
// mirror.
func TestFamilyOfWhichThisHostHasNoneIsUntested(t *testing.T) {
	p := NewProber(ProbeOptions{AllowPrivateAddresses: true, Lookup: func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("2001:470::1")}, nil
	}})
	t.Cleanup(p.Close)
	if p.client.Routed(netip.MustParseAddr("2001:470::1")) {
		t.Skip("this machine has IPv6")
	}
	s := httptest.NewServer(&tree{files: map[string][]byte{mirrorRepomd: repomdFile("200", 10)}})
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	m := &schema.Mirror{Name: "mirror.example.org", Address: schema.Address{HTTP: "http://localhost:" + port + "/alma/"}}
	o := p.Visit(t.Context(), m, Plan{Network: probeNetwork(t), Families: true, Keys: []KeyPlan{{Key: mirrorKey}}})
	if a := o.Families[IPv4]; !a.OK || a.Untested {
		t.Errorf("IPv4 is seen as %+v with %+v", a, a.Evidence)
	}
	if a := o.Families[IPv6]; a.OK || !a.Untested || a.Evidence != nil {
		t.Errorf("IPv6 is seen as %+v", a)
	}
}

// An address of the only kind that a name has says nothing about the mirror
// either.
func TestMirrorWithoutAWayToItIsNotDeaf(t *testing.T) {
	v6 := netip.MustParseAddr("2001:470::1")
	p := NewProber(ProbeOptions{Lookup: func(context.Context, string, string) ([]netip.Addr, error) { return []netip.Addr{v6}, nil }})
	t.Cleanup(p.Close)
	if p.client.Routed(v6) {
		t.Skip("this machine has IPv6")
	}
	m := &schema.Mirror{Name: "mirror.example.org", Address: mirrorURLs}
	for _, schemes := range []bool{true, false} {
		o := p.Visit(t.Context(), m, Plan{Network: probeNetwork(t), Schemes: schemes, Families: schemes, Time: true, Keys: []KeyPlan{{Key: mirrorKey}}})
		if _, tried := o.Families[IPv4]; !o.Unrouted || len(o.Keys) > 0 || len(o.Schemes) > 0 || tried || !o.Families[IPv6].Untested {
			t.Errorf("schemes %v: the mirror is seen as %+v", schemes, o)
		}
	}
	checks := Examine(t.Context(), p, probeNetwork(t), m, nil).Checks
	if len(checks) != 1 || checks[0].Result != Warning || !strings.Contains(checks[0].Text, "no way to any address") {
		t.Errorf("the checks are %+v", checks)
	}
}

// A mirror without the sentinel's repository is a partial one: its schemes and
// families work.
func TestMissingSentinelIsNoBrokenWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		n.host("mirror.example.org", "198.51.101.1")
		n.serve("198.51.101.1:80", http.NotFoundHandler(), nil)
		m := &schema.Mirror{Name: "mirror.example.org", Address: schema.Address{HTTP: mirrorURLs.HTTP}}
		o := n.prober(t, nil).Visit(t.Context(), m, Plan{Network: probeNetwork(t), Schemes: true, Families: true, Keys: []KeyPlan{{Key: mirrorKey}}})
		if a := o.Schemes["http"]; !a.OK || a.Evidence != nil {
			t.Errorf("http is seen as %+v", a)
		}
		if a := o.Families[IPv4]; !a.OK {
			t.Errorf("IPv4 is seen as %+v", a)
		}
		if seen := o.Keys[mirrorKey]; seen.Outcome != Missing || seen.Evidence == nil {
			t.Errorf("the sentinel is seen as %+v", seen)
		}
	})
}

func TestWaysAreTriedByTIMEWithoutKeys(t *testing.T) {
	for _, tt := range []struct {
		name, content string
		ok            bool
	}{
		{"seconds", "1767225600\n", true},
		{"a web page", "<html>", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newMemNet(t)
			n.host("mirror.example.org", "198.51.101.1")
			n.serve("198.51.101.1:80", &tree{files: map[string][]byte{"alma/TIME": []byte(tt.content)}}, nil)
			m := &schema.Mirror{Name: "mirror.example.org", Address: schema.Address{HTTP: mirrorURLs.HTTP}}
			o := n.prober(t, nil).Visit(t.Context(), m, Plan{Network: probeNetwork(t), Schemes: true, Time: true})
			if o.Schemes["http"].OK != tt.ok || o.Time.IsZero() == tt.ok || (o.TimeEvidence == nil) != tt.ok {
				t.Errorf("%s: http is seen as %+v, TIME as %v with %+v", tt.name, o.Schemes["http"], o.Time, o.TimeEvidence)
			}
		})
	}
}

func TestReadTime(t *testing.T) {
	for _, tt := range []struct {
		text string
		want int64 // 0: refused
	}{
		{"1767225600", 1767225600},
		{" 1767225600\r\n", 1767225600},
		{"4102444800\n", 4102444800}, // a clock in the future is not for a parser to judge
		{"", 0},
		{"0", 0},
		{"-5", 0},
		{"1e9", 0},
		{"99999999999999999999", 0},
		{"999999999999999", 0},
		{"Thu Jan  1 00:00:00 UTC 2026", 0},
		{"<!DOCTYPE html>", 0},
	} {
		got, err := readTime([]byte(tt.text))
		if (err == nil) != (tt.want != 0) || err == nil && got.Unix() != tt.want {
			t.Errorf("%q is read as %v, %v", tt.text, got, err)
		}
	}
}

// However a mirror is asked, it sees two connections at a time.
func TestNoMoreThanTwoConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ca := newMemNet(t), newTestCA(t)
		n.host("mirror.example.org", "198.51.101.1")
		cert := ca.certificate(t, "mirror.example.org", time.Now(), 90*24*time.Hour)
		slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			http.NotFound(w, r)
		})
		n.serve("198.51.101.1:80", slow, nil)
		n.serve("198.51.101.1:443", slow, cert)
		p := n.prober(t, ca)
		m := &schema.Mirror{Name: "mirror.example.org", Address: mirrorURLs}
		plan := Plan{Network: probeNetwork(t), Schemes: true, Families: true, Time: true}
		for _, k := range KeysOf(plan.Network, m) {
			plan.Keys = append(plan.Keys, KeyPlan{Key: k})
		}
		o := p.Visit(t.Context(), m, plan)
		if o.Requests != 2+1+1+3 {
			t.Errorf("%d requests", o.Requests)
		}
		if n.most > 2 {
			t.Errorf("%d connections at a time", n.most)
		}
	})
}
