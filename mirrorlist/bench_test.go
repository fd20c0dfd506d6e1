package mirrorlist

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"meridian/checker/state"
	"meridian/mirrorlist/geo"
	"meridian/mirrorlist/geo/geotest"
	"meridian/mirrorlist/stats"
	"meridian/schema"
)

// The benchmarks run in a made-up network of real size: 600 mirrors, 144
// repositories, 40,000 subnets, and databases of 3,000,000 networks and 500,000
// ranges of AS numbers. What is dear to make is kept in the cache directory of
// the user. cmd/bench runs them too, in children, and holds some to a limit; the
// names of those are a contract between the two.

// benchNow is the time of all decisions: health is live, and one class in two is
// in the second of the two hours.
var benchNow = time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)

const benchSecret = 0x5eed

// benchSubnets is how many subnets the mirrors declare together.
const benchSubnets = 40_000

// benchCrowd mirrors stand so close together that they are one band for all
// clients near them.
const benchCrowd = 128

// benchNetwork describes 18 trees of 8 repositories.
var benchNetwork = sync.OnceValue(func() *schema.Network {
	var b strings.Builder
	b.WriteString(`config_version: 3
allowed_outdate: 12h
mirrors_dir: mirrors.d
versions: ["8", "8.10", "9", "9.8", "10", "10.2"]
optional_module_versions: {kitten: ["10"]}
duplicated_versions: {"8": "8.10", "9": "9.8", "10": "10.2"}
vault_versions: ["9.7"]
vault_mirror: https://vault.example.org/
arches:
  "8": [x86_64, aarch64, ppc64le, s390x]
  "9": [x86_64, aarch64, ppc64le, s390x]
  "10": [x86_64, x86_64_v2, aarch64, ppc64le, s390x]
  10-kitten: [x86_64, x86_64_v2, aarch64, ppc64le, s390x]
required_protocols: [http, https]
repos:
`)
	for _, name := range []string{"BaseOS", "AppStream", "CRB", "extras", "HighAvailability", "NFV", "RT", "plus"} {
		fmt.Fprintf(&b, "  - {name: %s, path: %s/$basearch/os/}\n", strings.ToLower(name), name)
	}
	n, problems := schema.ParseNetwork("network.yml", []byte(b.String()))
	if slices.ContainsFunc(problems, func(p schema.Problem) bool { return p.Error }) {
		panic(fmt.Sprint(problems))
	}
	return n
})

var benchDB = sync.OnceValues(func() (*geo.DB, error) {
	dir, err := geotest.CacheDir()
	if err != nil {
		return nil, err
	}
	location, asn, err := geotest.Full.Snapshots(dir)
	if err != nil {
		return nil, err
	}
	l, err := geo.Open(location)
	if err != nil {
		return nil, err
	}
	a, err := geo.Open(asn)
	if err != nil {
		return nil, err
	}
	return geo.Join(l, a), nil
})

// benchInputs are n mirrors. Every tenth is private and holds its part of the
// subnets; a part of the public ones stands in a crowd, the others stand where
// clients are. One in twenty has s390x.
func benchInputs(tb testing.TB, n int) *inputs {
	tb.Helper()
	db, err := benchDB()
	if err != nil {
		tb.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 5))
	in := &inputs{
		network: benchNetwork(), db: db, secret: benchSecret, maxAge: time.Hour,
		hosts: map[string]hostAddrs{}, served: map[state.Key]*atomic.Uint64{},
	}
	addrs := geotest.Clients(2*n, 6)
	private := n / 10
	crowd := min(benchCrowd, n/4)
	for i := range n {
		host := fmt.Sprintf("mirror-%04d.example.org", i)
		m := &schema.Mirror{
			Name: host, File: host + ".yml", Bandwidth: []int{1000, 1000, 10_000, 100, 500}[i%5],
			Address: schema.Address{HTTP: "http://" + host + "/almalinux/", HTTPS: "https://" + host + "/almalinux/"},
		}
		if i%3 == 0 {
			m.AddressOptional = map[string]schema.Address{"kitten": {HTTPS: "https://" + host + "/kitten/"}}
		}
		p := db.Place(uint32(rng.IntN(db.Places())))
		switch {
		case i < private:
			m.Private = true
			m.Subnets = benchPrefixes(rng, benchSubnets/private)
		case i < private+crowd:
			p = db.Place(0)
		}
		m.Location = schema.Location{
			Country: string(p.Country[:]), HasCoordinates: true,
			Latitude: p.Lat + rng.Float64()/2, Longitude: p.Lon + rng.Float64()/2,
		}
		if i%20 != 0 {
			m.Carries.Arches = []schema.Arch{"x86_64", "x86_64_v2", "aarch64", "ppc64le"}
		}
		h := hostAddrs{V4: []netip.Addr{addrs[2*i%5*n/5]}}
		for _, a := range addrs[2*i : 2*i+2] {
			if a.Is6() {
				h.V6 = []netip.Addr{a}
			} else {
				h.V4 = []netip.Addr{a}
			}
		}
		in.hosts[host] = h
		in.mirrors = append(in.mirrors, m)
	}
	return in
}

// benchPrefixes are n subnets as organisations have them.
func benchPrefixes(rng *rand.Rand, n int) []netip.Prefix {
	list := make([]netip.Prefix, n)
	for i, a := range geotest.Clients(n, rng.Uint64()) {
		bits := 16 + rng.IntN(13)
		if a.Is6() {
			bits = 32 + rng.IntN(25)
		}
		list[i] = netip.PrefixFrom(a, bits).Masked()
	}
	return list
}

// benchSnapshot is what a checker finds: of a hundred mirrors, which are others
// for every seed, ten lag behind, two are stale and two are down.
func benchSnapshot(in *inputs, seed uint64) *state.Snapshot {
	rng := rand.New(rand.NewPCG(seed, 7))
	snap := &state.Snapshot{Taken: benchNow, Mirrors: map[string]*state.Status{}}
	for _, m := range in.mirrors {
		st := &state.Status{Health: map[state.Key]state.Health{}, IPv6: state.Reach(rng.IntN(3))}
		usual := state.Fresh
		switch x := rng.IntN(100); {
		case m.Private:
			usual = state.Unprobed
		case x < 10:
			usual = state.Lagging
		case x < 12:
			usual = state.Stale
		case x < 14:
			usual = state.Down
		}
		for _, v := range in.network.Served() {
			for i := range in.network.Repos {
				for _, a := range in.network.Repos[i].ArchesIn(in.network, v) {
					st.Health[state.Key{Version: v, Repo: in.network.Repos[i].Name, Arch: a}] = usual
				}
			}
		}
		snap.Mirrors[m.Name] = st
	}
	return snap
}

// benchTables has the table of each number of mirrors.
var benchTables = map[int]*Table{}

func benchTable(tb testing.TB, n int) *Table {
	tb.Helper()
	if t := benchTables[n]; t != nil {
		return t
	}
	in := benchInputs(tb, n)
	in.snap = benchSnapshot(in, 1)
	g := newGeometry(in)
	dir, err := geotest.CacheDir()
	if err != nil {
		tb.Fatal(err)
	}
	k := &keeper{log: slog.New(slog.DiscardHandler)}
	k.cache = filepath.Join(dir, fmt.Sprintf("bench-%d", n))
	if err := os.MkdirAll(k.cache, 0o755); err != nil {
		tb.Fatal(err)
	}
	t := &Table{
		geometry: g, orders: k.ordersOf(g, true), draws: draws(nil).next(benchNow, g.names, g.bandwidth, in.secret),
		findings: newFindings(g, in.snap, true, time.Time{}),
		fallback: newSet(n), limit: 10, secret: in.secret, now: benchNow, date: []string{benchNow.UTC().Format(http.TimeFormat)},
		tally: stats.NewTally(statsLayout(g, &Config{})),
	}
	benchTables[n] = t
	return t
}

// benchQuestions are what clients ask who have a place, and for whom it takes
// about as long as for half of them: the middle fifth by the number of mirrors
// that were looked at. The first is the one in the middle over IPv4.
func benchQuestions(t *Table) []question {
	type asked struct {
		question
		looked int
	}
	var all []asked
	var sc scratch
	for _, q := range benchEverybody(t) {
		t.decide(&q, &sc)
		if sc.place != geo.NoPlace && len(sc.picks) > 0 {
			all = append(all, asked{q, looked(t, &sc)})
		}
	}
	slices.SortStableFunc(all, func(a, b asked) int { return a.looked - b.looked })
	var out []question
	for _, a := range all[len(all)*2/5 : len(all)*3/5] {
		out = append(out, a.question)
	}
	middle := len(out) / 2
	for out[middle].addr.Is6() {
		middle++
	}
	out[0], out[middle] = out[middle], out[0]
	// Not in order of place or work: neighbours would share what is in caches.
	rest := out[1:]
	rand.New(rand.NewPCG(3, 3)).Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	return out
}

// looked counts the mirrors in the bands that a decision went through.
func looked(t *Table, sc *scratch) (n int) {
	last := 0
	for _, p := range sc.picks {
		if p.tier == tierCountry || p.tier == tierWorld {
			last = max(last, int(p.key.rank()))
		}
	}
	for bands := t.orders.of(sc.place); len(bands) > 0; {
		rank, mirrors, rest := nextBand(bands)
		if rank > last {
			break
		}
		n += len(mirrors)
		bands = rest
	}
	return n
}

// benchEverybody are clients from everywhere, who ask for the repository that
// everybody has.
func benchEverybody(t *Table) []question {
	var list []question
	for _, a := range geotest.Clients(20_000, 8) {
		list = append(list, benchQuestion(t, a, "9.8", "baseos", "x86_64"))
	}
	return list
}

func benchQuestion(t *Table, a netip.Addr, version, repo, arch string) question {
	q, _, no := t.listRequest(version, repo, "", params{arch: arch})
	if no != nil {
		panic(no)
	}
	q.client, q.limit, q.now = knownClient(a, t.secret), t.limit, benchNow
	return q
}

// only returns the questions that keep says yes to; sc holds the decision.
func only(b *testing.B, t *Table, list []question, keep func(q *question, sc *scratch) bool) []question {
	b.Helper()
	var sc scratch
	list = slices.Clone(list)
	list = slices.DeleteFunc(list, func(q question) bool {
		t.decide(&q, &sc)
		return !keep(&q, &sc)
	})
	if len(list) < 50 {
		b.Fatalf("only %d such clients; the world is too small", len(list))
	}
	return list
}

// cpuTime is what this process has used so far. Where other programs run, it is
// what repeats; the time on the clock does not.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs op in a loop and reports its CPU time too. That is of the whole
// process: with GOMAXPROCS=1 and without garbage, of op alone.
func measure(b *testing.B, op func(i int)) {
	b.Helper()
	b.ReportAllocs()
	runtime.GC()
	from := cpuTime(b)
	i := 0
	for b.Loop() {
		op(i)
		i++
	}
	b.ReportMetric(float64(cpuTime(b)-from)/float64(b.N), "cpu-ns/op")
}

// BenchmarkCalibrate is work that depends on the machine and on nothing in this
// tree: a thousand dependent multiplications. cmd/bench divides by it.
func BenchmarkCalibrate(b *testing.B) {
	x := uint64(1)
	measure(b, func(int) {
		for range 1000 {
			x ^= x >> 29
			x *= 0xbf58476d1ce4e5b9
		}
	})
	if x == 0 {
		b.Fatal("the product of odd numbers is odd")
	}
}

// BenchmarkDecide is the whole decision, from the address to the picks.
func BenchmarkDecide(b *testing.B) {
	t := benchTable(b, 600)
	everybody := benchEverybody(t)
	var sc scratch
	run := func(name string, list func(b *testing.B) []question) {
		b.Run(name, func(b *testing.B) {
			list := list(b)
			n := 0
			measure(b, func(i int) {
				t.decide(&list[i%len(list)], &sc)
				n += len(sc.picks)
			})
			if n == 0 {
				b.Fatal("no decision listed a mirror")
			}
		})
	}
	run("median", func(*testing.B) []question { return benchQuestions(t) })
	run("everybody", func(*testing.B) []question { return everybody })
	run("no-place", func(b *testing.B) []question {
		return only(b, t, everybody, func(q *question, sc *scratch) bool { return sc.place == geo.NoPlace && !q.addr.Is6() })
	})
	run("128-in-a-band", func(b *testing.B) []question {
		return only(b, t, everybody, func(q *question, sc *scratch) bool {
			bands := t.orders.of(sc.place)
			if len(bands) == 0 || looked(t, sc) > benchCrowd+benchCrowd/4 {
				return false
			}
			_, mirrors, _ := nextBand(bands)
			return len(mirrors) >= benchCrowd
		})
	})
	run("on-net", func(b *testing.B) []question {
		return only(b, t, everybody, func(q *question, sc *scratch) bool { return sc.picks[0].tier == tierSubnet })
	})
	run("ipv6", func(b *testing.B) []question {
		return only(b, t, everybody, func(q *question, sc *scratch) bool { return q.addr.Is6() })
	})
	run("country", func(b *testing.B) []question {
		list := slices.Clone(everybody)
		for i := range list {
			list[i].country = t.mirrors[i%len(t.mirrors)].country
		}
		return list
	})
	run("rare-arch", func(b *testing.B) []question {
		list := make([]question, len(everybody))
		for i := range list {
			list[i] = benchQuestion(t, everybody[i].addr, "9.8", "baseos", "s390x")
		}
		return list
	})
}

// BenchmarkDecideMirrors is the decision for the median place in networks of
// many sizes.
func BenchmarkDecideMirrors(b *testing.B) {
	for _, n := range []int{10, 100, 600, 2000} {
		b.Run(fmt.Sprintf("mirrors=%d", n), func(b *testing.B) {
			t := benchTable(b, n)
			list := benchQuestions(t)
			var sc scratch
			measure(b, func(i int) { t.decide(&list[i%len(list)], &sc) })
		})
	}
}

// BenchmarkAppendList writes ten URLs.
func BenchmarkAppendList(b *testing.B) {
	t := benchTable(b, 600)
	list := benchQuestions(t)
	var sc scratch
	t.decide(&list[0], &sc)
	measure(b, func(int) { sc.body = t.appendList(sc.body[:0], &list[0], sc.picks) })
}

// BenchmarkNewDraw makes the weighted orders of one hour.
func BenchmarkNewDraw(b *testing.B) {
	for _, n := range []int{10, 100, 600, 2000} {
		b.Run(fmt.Sprintf("mirrors=%d", n), func(b *testing.B) {
			names, weights := make([]uint64, n), make([]int, n)
			for i := range names {
				names[i], weights[i] = uint64(i)*0x9e3779b97f4a7c15, 1000
			}
			measure(b, func(i int) { newDraw(int64(i), names, weights, benchSecret) })
		})
	}
}

// BenchmarkNewOrders orders the mirrors for each of 140,000 places.
func BenchmarkNewOrders(b *testing.B) {
	for _, n := range []int{10, 100, 600, 2000} {
		b.Run(fmt.Sprintf("mirrors=%d", n), func(b *testing.B) {
			g := newGeometry(benchInputs(b, n))
			measure(b, func(int) {
				newOrders(g.db.Places(), func(i int) (site, bool) { return g.siteOf(uint32(i)), true }, g.seats)
			})
		})
	}
}

// BenchmarkReadOrders reads the saved orders of 140,000 places.
func BenchmarkReadOrders(b *testing.B) {
	t := benchTable(b, 600)
	data := t.orders.encode(1)
	b.SetBytes(int64(len(data)))
	measure(b, func(int) {
		if _, err := decodeOrders(data, 1, 600); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkNewGeometry arranges a network, with 40,000 subnets.
func BenchmarkNewGeometry(b *testing.B) {
	for _, n := range []int{10, 100, 600, 2000} {
		b.Run(fmt.Sprintf("mirrors=%d", n), func(b *testing.B) {
			in := benchInputs(b, n)
			measure(b, func(int) { newGeometry(in) })
		})
	}
}

// BenchmarkNewHealth computes the health of 144 repositories on each mirror.
func BenchmarkNewHealth(b *testing.B) {
	for _, n := range []int{10, 100, 600, 2000} {
		b.Run(fmt.Sprintf("mirrors=%d", n), func(b *testing.B) {
			in := benchInputs(b, n)
			g, snap := newGeometry(in), benchSnapshot(in, 1)
			measure(b, func(int) { newFindings(g, snap, true, time.Time{}) })
		})
	}
}

// BenchmarkSwap takes over findings that have changed, as the keeper does. With
// "memory" they are in this process; with "dir" they are read from the state
// directory that a checker writes, and with "dir-one" one mirror alone differs.
func BenchmarkSwap(b *testing.B) {
	in := benchInputs(b, 600)
	snaps := [2]*state.Snapshot{benchSnapshot(in, 1), benchSnapshot(in, 2)}
	run := func(name string, src Source, change func(i int)) {
		b.Run(name, func(b *testing.B) {
			s := &Server{log: slog.New(slog.DiscardHandler), now: func() time.Time { return benchNow }}
			s.keeper = newKeeper(s)
			k := s.keeper
			k.source, k.in.maxAge = src, in.maxAge
			k.feeds, k.resolver = newKeptFeeds(&k.cfg, "", k.log, k.changed), newResolver(nil, "", false)
			s.table.Store(benchTable(b, 600))
			k.refresh() // makes the weighted orders, which are of the hour
			measure(b, func(i int) {
				change(i)
				if !k.readState(context.Background()) {
					b.Fatal("the findings have not changed")
				}
				k.refresh()
			})
		})
	}

	mem := &memorySource{}
	run("memory", mem, func(i int) { mem.snap = snaps[i%2] })

	// One mirror says something else.
	one := *snaps[0]
	one.Mirrors = maps.Clone(one.Mirrors)
	one.Mirrors[in.mirrors[0].Name] = snaps[1].Mirrors[in.mirrors[0].Name]
	for _, files := range []struct {
		name  string
		snaps [2]*state.Snapshot
	}{{"dir", snaps}, {"dir-one", [2]*state.Snapshot{snaps[0], &one}}} {
		dir := b.TempDir()
		for i, snap := range files.snaps {
			data, err := json.Marshal(snap)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), data, 0o600)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		reader, err := state.OpenReader("dir:"+dir, state.Options{})
		if err != nil {
			b.Fatal(err)
		}
		run(files.name, reader, func(i int) {
			// A file of its own each time, as a checker renames it into place.
			next := filepath.Join(dir, "next")
			if err := errors.Join(os.Link(filepath.Join(dir, fmt.Sprint(i%2)), next), os.Rename(next, filepath.Join(dir, "snapshot.json"))); err != nil {
				b.Fatal(err)
			}
		})
	}
}

type memorySource struct{ snap *state.Snapshot }

func (m *memorySource) Load(context.Context) (*state.Snapshot, error) { return m.snap, nil }

// BenchmarkRoute answers requests over one kept connection on loopback with the
// real HTTP server: "list" with ours, "hello" with the least that gin can do to
// send the same body. The client is the same for both, and does no more than
// write a request and read as many bytes as the answer has.
func BenchmarkRoute(b *testing.B) {
	const target = "/mirrorlist/9/baseos?arch=x86_64"
	t := benchTable(b, 600)
	s := &Server{log: slog.New(slog.DiscardHandler), now: func() time.Time { return benchNow }, limit: newLimiter(5)}
	s.table.Store(t)
	list, _ := s.Handlers()
	client := benchQuestions(t)[0].addr
	request := "GET " + target + " HTTP/1.1\r\n" +
		"Host: mirrors.example.org\r\n" +
		"User-Agent: libdnf (AlmaLinux 9.8; generic; Linux.x86_64)\r\n" +
		"Accept: */*\r\n\r\n"
	_, body, _ := strings.Cut(string(dialTo(b, list, s.withCaller, client).first(b, request)), "\r\n\r\n")
	if strings.Count(body, "\n") != t.limit-1 {
		b.Fatalf("GET %s answers %q, want %d lines", target, body, t.limit)
	}
	hello := gin.New()
	hello.GET("/mirrorlist/9/baseos", func(c *gin.Context) { c.String(http.StatusOK, body) })

	for _, route := range []struct {
		name    string
		handler http.Handler
		each    connContext
	}{{"list", list, s.withCaller}, {"hello", hello, nil}} {
		b.Run(route.name, func(b *testing.B) {
			conn := dialTo(b, route.handler, route.each, client)
			answer := conn.first(b, request)
			if !strings.HasSuffix(string(answer), "\r\n\r\n"+body) {
				b.Fatalf("%s answers %q, want a body of %q", route.name, answer, body)
			}
			asked := []byte(request)
			measure(b, func(int) {
				if _, err := conn.Write(asked); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(conn, answer); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}

// connContext is what a http.Server calls for each connection.
type connContext func(context.Context, net.Conn) context.Context

// dialTo returns a connection to a server that has handler and each, and takes
// client for the other end.
func dialTo(b *testing.B, handler http.Handler, each connContext, client netip.Addr) benchConn {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, ConnContext: each,
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(fromClient{ln, net.TCPAddrFromAddrPort(netip.AddrPortFrom(client, 4711))}) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		conn.Close()
		srv.Close()
		<-done
	})
	return benchConn{conn}
}

type benchConn struct{ net.Conn }

// first returns the whole answer to a request; all further ones are as long.
func (c benchConn) first(b *testing.B, request string) []byte {
	b.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		b.Fatal(err)
	}
	// What has come with one read is whole: the server writes it with one write.
	answer := make([]byte, 64<<10)
	n, err := c.Read(answer)
	if err != nil {
		b.Fatal(err)
	}
	return answer[:n]
}

// fromClient is a listener whose connections come from one client.
type fromClient struct {
	net.Listener
	client net.Addr
}

func (l fromClient) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return clientConn{conn, l.client}, err
}

type clientConn struct {
	net.Conn
	client net.Addr
}

func (c clientConn) RemoteAddr() net.Addr { return c.client }

// What TestServeHello serves, and where.
var (
	helloAddr = flag.String("hello.addr", "", "serve gin hello world on this address: for cmd/bench")
	helloBody = flag.String("hello.body", "", "and say this")
)

// TestServeHello is no test: it is the server that cmd/bench compares ours with,
// here because nothing else but this package may use gin. It ends with SIGTERM.
func TestServeHello(t *testing.T) {
	if *helloAddr == "" {
		t.Skip("not asked to by cmd/bench, with -hello.addr")
	}
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	r := gin.New()
	r.GET("/mirrorlist/9/baseos", func(c *gin.Context) { c.String(http.StatusOK, *helloBody) })
	srv := &http.Server{
		Addr: *helloAddr, Handler: r, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
