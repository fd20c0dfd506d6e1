package checker

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"meridian/checker/state"
	"meridian/internal/fetch"
	"meridian/schema"
)

// timeFile is the marker in the root of a tree that says when it was published.
const timeFile = "TIME"

// first returns the sentinel, nil when no key is asked for that m has a tree for.
func (v *visit) first() *KeyPlan {
	for i := range v.plan.Keys {
		if k := &v.plan.Keys[i]; v.base(k.Key.Version) != "" {
			return k
		}
	}
	return nil
}

// address returns the URLs whose schemes and families are tried: those of the
// sentinel's tree, else of the main one, else of any that m has.
func (v *visit) address() schema.Address {
	if k := v.first(); k != nil {
		return v.m.AddressOf(v.plan.Network, k.Key.Version)
	}
	if v.m.Address != (schema.Address{}) {
		return v.m.Address
	}
	for _, module := range slices.Sorted(maps.Keys(v.m.AddressOptional)) {
		return v.m.AddressOptional[module]
	}
	return schema.Address{}
}

// try makes the cheap request that shows whether a way to the mirror works: for
// the sentinel's repomd.xml in the tree at base, or for TIME. It returns nil when
// the visit was ended.
func (v *visit) try(base string, family fetch.Family) *sight {
	if k := v.first(); k != nil {
		return v.repomd(fetch.Request{URL: v.repomdURL(base, k.Key), Family: family})
	}
	return v.marker(base, family, new(time.Time))
}

// marker asks for TIME and reads it.
func (v *visit) marker(base string, family fetch.Family, t *time.Time) *sight {
	s := v.document(fetch.Request{URL: base + timeFile, Family: family, MaxBytes: maxTime}, func(_ *sight, body []byte) (err error) {
		*t, err = readTime(body)
		return err
	})
	if s != nil {
		s.SHA256 = state.Hash256{} // not of a repomd.xml
	}
	return s
}

// schemes tries each scheme that m claims, and settles on the one that judges.
func (v *visit) schemes() {
	if !v.plan.Schemes {
		return
	}
	a := v.address()
	seen := map[string]*sight{}
	for _, way := range []struct{ scheme, base string }{{"http", a.HTTP}, {"https", a.HTTPS}} {
		if way.base == "" || !v.take() {
			continue
		}
		if s := v.try(way.base, fetch.AnyFamily); s != nil {
			seen[way.scheme] = s
		}
	}
	// Where the sentinel is missing on every way, or is garbage, or refused, that is
	// the sentinel's fault, and all of them work.
	asGood := Refused
	if v.first() == nil {
		asGood = Missing // of TIME alone
	}
	for _, s := range seen {
		if v.first() != nil || s.Outcome == Served {
			asGood = max(asGood, s.Outcome)
		}
	}
	v.o.Schemes = map[string]Answer{}
	for scheme, s := range seen {
		v.o.Schemes[scheme] = v.answer(s, asGood)
	}
	if a.Rsync != "" && v.take() {
		v.o.Schemes["rsync"] = v.rsync(a.Rsync)
	}

	if v.scheme == "" {
		v.scheme = "http"
	}
	other := map[string]string{"http": "https", "https": "http"}[v.scheme]
	if !v.o.Schemes[v.scheme].OK && v.o.Schemes[other].OK {
		v.scheme = other
	}
	if s := seen[v.scheme]; s != nil {
		v.sawSentinel(s)
	}
}

// askSentinel asks for the sentinel, unless trying the schemes has done so.
func (v *visit) askSentinel() {
	k := v.first()
	if k == nil || v.sentinel != nil || !v.take() {
		return
	}
	if s := v.try(v.base(k.Key.Version), fetch.AnyFamily); s != nil {
		v.sawSentinel(s)
	}
}

func (v *visit) sawSentinel(s *sight) {
	v.sentinel = s
	if k := v.first(); k != nil {
		v.note(k, v.base(k.Key.Version), s)
	}
	v.o.Clock = s.answer.clock()
}

// answer returns what a way is worth, given the outcome of one that works.
func (v *visit) answer(s *sight, asGood Outcome) Answer {
	out := Answer{
		OK:        s.Outcome == Served || s.Outcome == asGood,
		OtherHost: s.OtherHost,
		SHA256:    s.SHA256,
		Insecure:  errors.Is(s.answer.err, fetch.ErrDowngrade),
		Evidence:  s.Evidence,
	}
	if shown := s.answer.resp.TLS; shown != nil {
		out.TLSBegins, out.TLSExpires = shown.Begins, shown.Expires
		out.Insecure = out.Insecure || shown.Err != nil
	}
	out.OK = out.OK && !out.Insecure
	if out.OK && out.OtherHost == "" {
		out.Evidence = nil
	}
	return out
}

// unrouted tells whether m was not reached, and could not be: this host has no way
// to any address of the names that were asked.
func (v *visit) unrouted() bool {
	if v.first() != nil && (v.sentinel == nil || v.sentinel.Outcome != Unreachable) {
		return false
	}
	a, hosts := v.address(), 0
	families := map[Family]Answer{}
	for _, base := range []string{a.HTTP, a.HTTPS} {
		u, err := url.Parse(base)
		if base == "" || err != nil {
			continue
		}
		all, err := v.p.client.Addresses(v.ctx, u.Hostname())
		if err != nil || len(all) == 0 || slices.ContainsFunc(all, v.p.client.Routed) {
			return false
		}
		for _, addr := range all {
			if addr.Is4() {
				families[IPv4] = Answer{Untested: true}
			} else {
				families[IPv6] = Answer{Untested: true}
			}
		}
		hosts++
	}
	v.untested = families
	return hosts > 0
}

// families tries each address family that the mirror's host has addresses of.
func (v *visit) families() {
	base := v.over(v.address())
	u, err := url.Parse(base)
	if !v.plan.Families || base == "" || err != nil {
		return
	}
	all, err := v.p.client.Addresses(v.ctx, u.Hostname())
	if err != nil {
		return // there is no way to the mirror at all, as its sentinel shows
	}
	v.o.Families = map[Family]Answer{}
	for _, f := range []struct {
		name Family
		bind fetch.Family
	}{{IPv4, fetch.IPv4}, {IPv6, fetch.IPv6}} {
		of := slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return a.Is4() != (f.bind == fetch.IPv4) })
		switch {
		case len(of) == 0:
		case !slices.ContainsFunc(of, v.p.client.Routed):
			v.o.Families[f.name] = Answer{Untested: true}
		case v.take():
			s := v.try(base, f.bind)
			if s == nil {
				return
			}
			asGood := Served
			if v.sentinel != nil && v.sentinel.Outcome >= Refused {
				asGood = v.sentinel.Outcome
			}
			out := v.answer(s, asGood)
			if out.OK && v.sentinel != nil && out.SHA256 != v.sentinel.SHA256 && out.Evidence == nil {
				out.Evidence = s.answer.evidence(v.p.opts.Vantage, nil)
			}
			v.o.Families[f.name] = out
		}
	}
}

// time reads TIME.
func (v *visit) time() {
	base := v.over(v.address())
	if !v.plan.Time || base == "" || !v.take() {
		return
	}
	if s := v.marker(base, fetch.AnyFamily, &v.o.Time); s != nil && s.Outcome != Served {
		v.o.TimeEvidence = s.Evidence
	}
}

// maxTime is more than any TIME needs: seconds since 1970, and a newline.
const maxTime = 64

// readTime reads the content of TIME.
func readTime(body []byte) (time.Time, error) {
	text := strings.TrimSpace(string(body))
	n, err := strconv.ParseInt(text, 10, 64)
	// Whatever a clock may say, a year has four digits.
	if err != nil || n <= 0 || n >= 253402300800 {
		return time.Time{}, fmt.Errorf("%s has %q; it holds the seconds since 1970 at which the tree was published", timeFile, escape(body, maxTime))
	}
	return time.Unix(n, 0).UTC(), nil
}

// clock returns how far the clock of who answered is ahead of ours, 0 when that
// cannot be told.
func (a *answer) clock() time.Duration {
	if a.resp.Header.Get("Age") != "" {
		return 0
	}
	date, err := http.ParseTime(a.resp.Header.Get("Date"))
	if err != nil {
		return 0
	}
	// A Date has no fractions, and was written while we waited.
	return date.Sub(a.at).Truncate(time.Second)
}
