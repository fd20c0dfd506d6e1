package mirrorlist

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// nameServer is a resolver in memory.
type nameServer struct {
	mu      sync.Mutex
	names   map[string]string // host → addresses, by blanks; absent: no such host
	broken  map[string]bool   // "host" or "host ip6": the lookup fails
	slow    time.Duration     // of each lookup
	hangs   map[string]bool   // hosts whose lookup ends with its context only
	asked   map[string]int    // lookups of both families, by host
	running map[string]int    // lookups under way, by host
	most    int               // hosts that were looked up at the same time
}

func newNameServer(names map[string]string) *nameServer {
	return &nameServer{
		names: names, broken: map[string]bool{}, hangs: map[string]bool{},
		asked: map[string]int{}, running: map[string]int{},
	}
}

// set changes what a host resolves to; "" is no such host.
func (s *nameServer) set(host, addrs string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.names, host); addrs != "" {
		s.names[host] = addrs
	}
}

// fail makes lookups fail, or not: of a host, or of "host ip6" only.
func (s *nameServer) fail(what string, fails bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken[what] = fails
}

func (s *nameServer) count(host string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[host]
}

func (s *nameServer) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[host]++
	s.running[host]++
	s.most = max(s.most, len(s.running))
	hangs, slow := s.hangs[host], s.slow
	s.mu.Unlock()
	if hangs {
		<-ctx.Done()
	} else if slow > 0 {
		sleep(ctx, slow)
	}
	s.mu.Lock()
	if s.running[host]--; s.running[host] == 0 {
		delete(s.running, host)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.broken[host] || s.broken[host+" "+network] {
		return nil, &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
	}
	var list []netip.Addr
	for _, word := range strings.Fields(s.names[host]) {
		a := netip.MustParseAddr(word)
		if a.Unmap().Is4() == (network == "ip4") {
			list = append(list, a)
		}
	}
	if list == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return list, nil
}

// show prints what is known of some hosts, each as "host=addresses".
func show(r *resolver) string {
	var out []string
	for host, h := range r.addrs() {
		line := host + "="
		for _, a := range slices.Concat(h.V4, h.V6) {
			line += a.String() + ","
		}
		out = append(out, strings.TrimSuffix(line, ","))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// begin runs a resolver in the current bubble until stop is called. news
// reports whether a change was signalled since it was last called.
func begin(t *testing.T, r *resolver) (news func() bool, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() { done <- r.run(ctx, changed) }()
	news = func() bool {
		synctest.Wait()
		select {
		case <-changed:
			return true
		default:
			return false
		}
	}
	return news, func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run ended with %v", err)
		}
	}
}

func TestResolverFollowsItsHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := newNameServer(map[string]string{
			"a.example": "8.8.8.8 8.8.4.4 8.8.8.8 2001:4860:4860::8888",
			"b.example": "9.9.9.9",
			"c.example": "2620:fe::fe",
		})
		r := newResolver(dns, t.TempDir(), false)
		news, stop := begin(t, r)
		defer stop()

		if news() || show(r) != "" {
			t.Errorf("without hosts: %s", show(r))
		}
		r.setHosts([]string{"a.example", "b.example", "1.1.1.1", "a.example"})
		if show(r) != "1.1.1.1=1.1.1.1" {
			t.Errorf("a literal address needs no lookup: %s", show(r))
		}
		const both = "1.1.1.1=1.1.1.1 a.example=8.8.4.4,8.8.8.8,2001:4860:4860::8888 b.example=9.9.9.9"
		if !news() || show(r) != both {
			t.Errorf("first answers: %s", show(r))
		}
		if n := dns.count("1.1.1.1"); n != 0 {
			t.Errorf("a literal address was looked up %d times", n)
		}

		snapshot := r.addrs()
		time.Sleep(10 * time.Hour)
		if news() || show(r) != both {
			t.Errorf("equal answers are no news: %s", show(r))
		}
		if n := dns.count("a.example"); n < 2*10 || n > 2*13 {
			t.Errorf("%d lookups of one host in ten hours, want two families an hour", n)
		}

		dns.set("b.example", "9.9.9.10")
		time.Sleep(2 * time.Hour)
		if !news() || r.addrs()["b.example"].V4[0] != netip.MustParseAddr("9.9.9.10") {
			t.Errorf("a mirror that moved: %s", show(r))
		}
		if snapshot["b.example"].V4[0] != netip.MustParseAddr("9.9.9.9") {
			t.Error("a snapshot in use was changed")
		}

		r.setHosts([]string{"b.example", "c.example"})
		if !news() || show(r) != "b.example=9.9.9.10 c.example=2620:fe::fe" {
			t.Errorf("other hosts: %s", show(r))
		}
		before := dns.count("a.example")
		time.Sleep(5 * time.Hour)
		if dns.count("a.example") != before {
			t.Error("a host that is not wanted any more is still looked up")
		}
		if got := r.addrs()["c.example"].first(); got != netip.MustParseAddr("2620:fe::fe") {
			t.Errorf("the first address of an IPv6-only host is %s", got)
		}
	})
}

func TestResolverKeepsTheLastGoodAnswer(t *testing.T) {
	const good = "a.example=8.8.8.8,2001:4860:4860::8888"
	for _, tt := range []struct {
		name    string
		change  func(*nameServer)
		want    string
		problem string // "" is none
	}{
		{"nothing happens", func(*nameServer) {}, good, ""},
		{"the name server is away", func(s *nameServer) { s.fail("a.example", true) }, good, "a.example: lookup a.example: server misbehaving"},
		{"the name is gone", func(s *nameServer) { s.set("a.example", "") }, good, "a.example: no public address"},
		{"the name points into a private network", func(s *nameServer) { s.set("a.example", "10.0.0.1 fd00::1 127.0.0.1") }, good, "a.example: no public address"},
		{"lookups hang", func(s *nameServer) { s.mu.Lock(); s.hangs["a.example"] = true; s.mu.Unlock() }, good, "a.example: context deadline exceeded"},
		{"IPv6 is given up", func(s *nameServer) { s.set("a.example", "8.8.4.4") }, "a.example=8.8.4.4", ""},
		{"IPv4 is given up", func(s *nameServer) { s.set("a.example", "2001:4860:4860::8844") }, "a.example=2001:4860:4860::8844", ""},
		{
			name: "one family fails while the other moves",
			change: func(s *nameServer) {
				s.set("a.example", "8.8.4.4")
				s.fail("a.example ip6", true)
			},
			want:    "a.example=8.8.4.4,2001:4860:4860::8888",
			problem: "server misbehaving",
		},
		{
			name: "one family fails and the other is gone",
			change: func(s *nameServer) {
				s.set("a.example", "2001:4860:4860::8844")
				s.fail("a.example ip6", true)
			},
			want:    good,
			problem: "server misbehaving",
		},
		{"a private address beside a public one", func(s *nameServer) { s.set("a.example", "192.168.0.1 8.8.4.4") }, "a.example=8.8.4.4", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dns := newNameServer(map[string]string{"a.example": "8.8.8.8 2001:4860:4860::8888"})
				cache := t.TempDir()
				r := newResolver(dns, cache, false)
				r.setHosts([]string{"a.example"})
				news, stop := begin(t, r)
				if !news() || show(r) != good {
					t.Fatalf("first answers: %s", show(r))
				}
				tt.change(dns)
				time.Sleep(2 * time.Hour)
				if changed := news(); changed != (tt.want != good) || show(r) != tt.want {
					t.Errorf("changed %v: %s, want %s", changed, show(r), tt.want)
				}
				checkProblem(t, r, tt.problem)
				stop()

				// Over a restart, with nobody to ask.
				dns.fail("a.example", true)
				r = newResolver(dns, cache, false)
				r.setHosts([]string{"a.example"})
				news, stop = begin(t, r)
				if news() || show(r) != tt.want {
					t.Errorf("after a restart: %s, want %s", show(r), tt.want)
				}
				stop()
			})
		})
	}
}

func checkProblem(t *testing.T, r *resolver, want string) {
	t.Helper()
	err := errors.Join(r.problems()...)
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("problems %v, want %q", err, want)
	}
}

func TestResolverRetriesSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := newNameServer(map[string]string{"a.example": "8.8.8.8"})
		dns.fail("a.example", true)
		r := newResolver(dns, "", false)
		r.setHosts([]string{"a.example"})
		news, stop := begin(t, r)
		defer stop()
		time.Sleep(10 * time.Minute)
		if n := dns.count("a.example") / 2; news() || n < 3 || n > 5 {
			t.Errorf("%d attempts in ten minutes of failures, want them at about 0, 1, 3, 7 minutes", n)
		}
		checkProblem(t, r, "a.example")
		dns.fail("a.example", false)
		time.Sleep(10 * time.Minute)
		if !news() || show(r) != "a.example=8.8.8.8" {
			t.Errorf("after the failure: %s", show(r))
		}
		checkProblem(t, r, "")

		dns.fail("a.example", true)
		time.Sleep(48 * time.Hour)
		before := dns.count("a.example")
		time.Sleep(10 * time.Hour)
		if n := (dns.count("a.example") - before) / 2; n < 9 || n > 12 {
			t.Errorf("%d attempts in ten hours for a host that is long dead, want one an hour", n)
		}
	})
}

func TestResolverBoundsWhatItAsksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names, hosts := map[string]string{}, []string{}
		for i := range 500 {
			host := fmt.Sprintf("m%d.example", i)
			hosts = append(hosts, host)
			names[host] = fmt.Sprintf("8.8.%d.%d", i/250, i%250)
		}
		dns := newNameServer(names)
		dns.slow = 100 * time.Millisecond
		for _, host := range hosts[:100] {
			dns.hangs[host] = true
		}
		r := newResolver(dns, "", false)
		r.setHosts(hosts)
		news, stop := begin(t, r)
		defer stop()
		time.Sleep(6 * time.Second)
		if !news() || len(r.addrs()) == 0 {
			t.Error("the hosts that answer wait for those that do not")
		}
		time.Sleep(5 * time.Minute)
		if !news() || len(r.addrs()) != 400 || len(r.problems()) != 100 {
			t.Errorf("%d hosts known, %d problems", len(r.addrs()), len(r.problems()))
		}
		if dns.most != resolveLimit {
			t.Errorf("%d hosts were looked up at the same time, want %d", dns.most, resolveLimit)
		}
	})
}

func TestResolverStopsInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := newNameServer(map[string]string{"a.example": "8.8.8.8"})
		dns.hangs["a.example"] = true
		r := newResolver(dns, "", false)
		r.setHosts([]string{"a.example"})
		_, stop := begin(t, r)
		synctest.Wait()
		stop()
		if len(dns.running) != 0 {
			t.Errorf("lookups under way after run: %v", dns.running)
		}
	})
}

func TestResolverForgetsAHostInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := newNameServer(map[string]string{"a.example": "8.8.8.8", "b.example": "9.9.9.9"})
		dns.slow = time.Second
		r := newResolver(dns, "", false)
		r.setHosts([]string{"a.example"})
		news, stop := begin(t, r)
		defer stop()
		synctest.Wait() // the lookup of a is under way
		r.setHosts([]string{"b.example"})
		time.Sleep(time.Minute)
		if !news() || show(r) != "b.example=9.9.9.9" {
			t.Errorf("known: %s", show(r))
		}
	})
}

func TestResolverAddressesThatCount(t *testing.T) {
	for _, tt := range []struct {
		name    string
		host    string
		private bool
		want    string
	}{
		{"a public address", "8.8.8.8", false, "8.8.8.8"},
		{"an IPv6 address", "2001:4860:4860::8888", false, "2001:4860:4860::8888"},
		{"an IPv4-mapped address", "::ffff:8.8.8.8", false, "8.8.8.8"},
		{"loopback", "127.0.0.1", false, ""},
		{"loopback, mapped", "::ffff:127.0.0.1", false, ""},
		{"loopback where that is allowed", "127.0.0.1", true, "127.0.0.1"},
		{"link-local with a zone where that is allowed", "fe80::1%eth0", true, "fe80::1"},
		{"no host at all", "", false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newResolver(newNameServer(nil), "", tt.private)
			r.setHosts([]string{tt.host})
			got := ""
			if a := r.addrs()[tt.host].first(); a.IsValid() {
				got = a.String()
			}
			if got != tt.want {
				t.Errorf("%q has the address %q, want %q", tt.host, got, tt.want)
			}
			if len(r.hosts) != 0 {
				t.Errorf("%v would be looked up", r.hosts)
			}
		})
	}
}

func TestResolverBoundsAddresses(t *testing.T) {
	r := newResolver(newNameServer(nil), "", false)
	var list []netip.Addr
	for i := range 1000 {
		list = append(list, netip.AddrFrom4([4]byte{8, 8, byte(i >> 8), byte(i)}))
	}
	first := r.usable(hostAddrs{V4: list})
	slices.Reverse(list)
	again := r.usable(hostAddrs{V4: list})
	if len(first.V4) != maxHostAddrs || !first.equal(again) {
		t.Errorf("%v and %v, want the same %d", first.V4, again.V4, maxHostAddrs)
	}
}

func TestResolverCopyOnDisk(t *testing.T) {
	for _, tt := range []struct {
		name    string
		content string
		private bool
		want    string
		problem string
	}{
		{name: "no copy", content: "", want: ""},
		{name: "a good copy", content: `{"a.example": {"v4": ["8.8.8.8"], "v6": ["2001:4860:4860::8888"]}}`, want: "a.example=8.8.8.8,2001:4860:4860::8888"},
		{name: "a host that is not wanted any more", content: `{"b.example": {"v4": ["8.8.8.8"]}}`, want: ""},
		{name: "private addresses from a time when they counted", content: `{"a.example": {"v4": ["10.0.0.1"]}}`, want: ""},
		{name: "private addresses while they count", content: `{"a.example": {"v4": ["10.0.0.1"]}}`, private: true, want: "a.example=10.0.0.1"},
		{name: "addresses in the wrong family", content: `{"a.example": {"v4": ["2001:4860:4860::8888", ""], "v6": ["8.8.8.8"]}}`, want: ""},
		{name: "a copy that was cut", content: `{"a.example": {"v4": ["8.8.`, problem: "copy of the hosts' addresses"},
		{name: "no addresses", content: `{"a.example": {"v4": ["x"]}}`, problem: "copy of the hosts' addresses"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.content != "" {
				writeFile(t, filepath.Join(dir, "hosts.json"), tt.content)
			}
			r := newResolver(newNameServer(nil), dir, tt.private)
			r.setHosts([]string{"a.example"})
			if got := show(r); got != tt.want {
				t.Errorf("known: %q, want %q", got, tt.want)
			}
			checkProblem(t, r, tt.problem)
		})
	}
}

func TestResolverSavesItsCopyWhenThatIsPossibleAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := newNameServer(map[string]string{"a.example": "8.8.8.8"})
		cache := filepath.Join(t.TempDir(), "later")
		r := newResolver(dns, cache, false)
		r.setHosts([]string{"a.example"})
		news, stop := begin(t, r)
		defer stop()
		if !news() || show(r) != "a.example=8.8.8.8" {
			t.Errorf("what cannot be saved is used all the same: %s", show(r))
		}
		checkProblem(t, r, "copy of the hosts' addresses")
		if err := os.Mkdir(cache, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		checkProblem(t, r, "")
		if again := newResolver(dns, cache, false); show(again) != "a.example=8.8.8.8" {
			t.Errorf("saved: %s", show(again))
		}
	})
}

func TestResolverOfTheSystem(t *testing.T) {
	if r := newResolver(nil, "", false); r.lookup != Resolver(net.DefaultResolver) {
		t.Errorf("looks up with %v", r.lookup)
	}
}
