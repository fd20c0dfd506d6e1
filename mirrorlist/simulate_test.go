package mirrorlist

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"meridian/checker/state"
	"meridian/mirrorlist/stats"
)

// simulated returns a server on the network in dir that was not started.
func simulated(t *testing.T, dir string, change func(*Options)) *Server {
	t.Helper()
	opts, _ := optionsFor(t, dir)
	opts.Config.Geo = Geo{demoGeo, demoGeo}
	if change != nil {
		change(&opts)
	}
	s, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// cities writes mirrors into dir/mirrors.d where the demo has clients.
func cities(t *testing.T, dir string) {
	t.Helper()
	for name, more := range map[string]string{
		"berlin1": "DE, latitude: 52.5, longitude: 13.4}\nbandwidth: 100", "berlin2": "DE, latitude: 52.4, longitude: 13.3}\nbandwidth: 300",
		"munich": "DE, latitude: 48.1, longitude: 11.5}", "paris": "FR, latitude: 48.8, longitude: 2.3}", "newyork": "US, latitude: 40.7, longitude: -74}",
		"tokyo": "JP, latitude: 35.7, longitude: 139.7}", "campus": "DE}\nprivate: true\nsubnets: [192.0.2.64/26]",
	} {
		name += ".example.org"
		text := strings.Replace(mirrorYAML(name, ""), "DE}\n", more+"\n", 1)
		writeFile(t, filepath.Join(dir, "mirrors.d", name+".yml"), text)
	}
}

// someDemand are n clients from all places of the demo and from none.
func someDemand(n int) []Demand {
	rng := rand.New(rand.NewPCG(13, 14))
	nets := []string{"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8:1::/48", "2001:db8:5::/48", "10.0.0.0/8", "127.0.0.0/20"}
	out := make([]Demand, n)
	for i := range out {
		b := netip.MustParsePrefix(nets[rng.IntN(len(nets))])
		raw := b.Addr().AsSlice()
		for k := b.Bits() / 8; k < len(raw); k++ {
			raw[k] = byte(rng.IntN(256))
		}
		if b.Bits()%8 != 0 {
			raw[b.Bits()/8] %= 1 << (8 - b.Bits()%8)
		}
		a, _ := netip.AddrFromSlice(raw)
		out[i] = Demand{Addr: a, Lists: float64(1 + rng.IntN(3))}
		switch rng.IntN(8) {
		case 0:
			out[i].Version, out[i].Repo, out[i].Arch = "9.8", "appstream", "aarch64"
		case 1:
			out[i].Version = "9.7" // the vault
		case 2:
			out[i].Addr = netip.Addr{}
		case 3:
			out[i].Repo = "crb"
		}
	}
	return out
}

// The simulation agrees with explaining each list in each hour, which is the
// longest way to find out.
func TestSimulationAgreesWithExplaining(t *testing.T) {
	dir := newFiles(t, 0)
	cities(t, dir)
	s := simulated(t, dir, func(o *Options) { o.Config.ListBytes = map[string]int64{"appstream": 7} })
	demand := someDemand(1500)
	got, err := s.Simulate(t.Context(), demand, nil)
	if err != nil {
		t.Fatal(err)
	}
	type sums struct{ lists, bytes float64 }
	want := map[string]sums{}
	var lists, refused, nowhere float64
	for hour := range hoursOfDay {
		world := *s.table.Load()
		world.now = simulatedDay.Add(time.Duration(hour) * time.Hour)
		world.draws = draws{newDraw(hourOf(world.now, 0), world.names, world.weights, world.secret)}
		for i, d := range demand {
			n := d.Lists / hoursOfDay
			if d.Repo == "crb" {
				refused += n
				continue
			}
			lists += n
			in := Inquiry{Addr: d.Addr, Version: orElse(d.Version, "9"), Repo: orElse(d.Repo, "baseos"), Arch: d.Arch, All: true}
			name := stats.Vault
			if !d.Addr.IsValid() && d.Version != "9.7" {
				// Explain has no client without address but one.
				q, _, _ := world.listRequest(in.Version, in.Repo, "", params{arch: d.Arch})
				q.client, q.limit, q.now = namelessClient(fmt.Sprint(i), world.secret), world.limit, world.now
				var sc scratch
				world.decide(&q, &sc)
				name = world.mirrors[sc.picks[0].mirror].Name
				nowhere += n
			} else if d.Version != "9.7" {
				e, err := world.explain(in)
				if err != nil {
					t.Fatal(err)
				}
				name = e.Candidates[0].Mirror
				if e.Client.Place == nil {
					nowhere += n
				}
			}
			w := want[name]
			w.lists += n
			w.bytes += n * map[bool]float64{true: 7, false: defaultListBytes}[in.Repo == "appstream"]
			want[name] = w
		}
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-9*math.Abs(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	near("lists", got.Lists, lists)
	near("refused", got.Refused[`Unknown repository "crb". Write one of: baseos, appstream`], refused)
	near("without place", got.NoPlace, nowhere)
	if len(got.Mirrors) != len(s.table.Load().mirrors)+1 {
		t.Errorf("there are %d mirrors", len(got.Mirrors))
	}
	for _, m := range got.Mirrors {
		w := want[m.Name]
		near(m.Name, m.Before.Lists, w.lists)
		near(m.Name+" bytes", m.Before.Bytes, w.bytes)
		near(m.Name+" share", m.Before.Share, w.lists/lists)
		near(m.Name+" Mbit/s", m.Before.Mbits, w.bytes*8/86400/1e6)
		if m.After != nil || w.lists == 0 {
			t.Errorf("%+v", m)
		}
	}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Twice the same is the same to the last digit, on however many processors.
func TestSimulationIsTheSameEachTime(t *testing.T) {
	dir := newFiles(t, 3)
	cities(t, dir)
	after := filepath.Join(dir, "after.d")
	if err := os.CopyFS(after, os.DirFS(filepath.Join(dir, "mirrors.d"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(after, "munich.example.org.yml")); err != nil {
		t.Fatal(err)
	}
	demand := someDemand(30_000)
	for i := range demand {
		demand[i].Lists /= 7
	}
	var first *Simulation
	for range 3 {
		a, b := simulated(t, dir, nil), simulated(t, dir, func(o *Options) {
			o.MirrorsDir = after
			o.Now = func() time.Time { return time.Unix(rand.Int64N(1<<32), 0) }
		})
		got, err := a.Simulate(t.Context(), demand, b)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = got
		} else if !reflect.DeepEqual(first, got) {
			t.Fatalf("%+v, and then %+v", first, got)
		}
	}
	// The sums are those of one thread, too.
	lists := 0.0
	for _, m := range first.Mirrors {
		if m.Before != nil {
			lists += m.Before.Lists
		}
	}
	if math.Abs(lists-first.Lists) > 1e-6 {
		t.Errorf("mirrors have %v lists of %v", lists, first.Lists)
	}
}

func TestSimulationOfAChange(t *testing.T) {
	dir := newFiles(t, 0)
	cities(t, dir)
	change := func(edit func(dir string)) *Simulation {
		t.Helper()
		after := filepath.Join(t.TempDir(), "mirrors.d")
		if err := os.CopyFS(after, os.DirFS(filepath.Join(dir, "mirrors.d"))); err != nil {
			t.Fatal(err)
		}
		edit(after)
		var demand []Demand
		for i := range 256 {
			demand = append(demand, Demand{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 64)}), Lists: 10},
				Demand{Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(i % 128)}), Lists: 10})
		}
		got, err := simulated(t, dir, nil).Simulate(t.Context(), demand, simulated(t, dir, func(o *Options) { o.MirrorsDir = after }))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	find := func(s *Simulation, name string) SimulatedMirror {
		t.Helper()
		for _, m := range s.Mirrors {
			if m.Name == name+".example.org" {
				return m
			}
		}
		t.Fatalf("%s is not there", name)
		return SimulatedMirror{}
	}

	s := change(func(string) {})
	if s.Moved != 0 {
		t.Errorf("without a change %v lists move", s.Moved)
	}
	for _, m := range s.Mirrors {
		if !reflect.DeepEqual(m.Before, m.After) || m.Gain() != 0 {
			t.Errorf("without a change %s goes from %+v to %+v", m.Name, m.Before, m.After)
		}
	}

	s = change(func(dir string) {
		writeFile(t, filepath.Join(dir, "osaka.example.org.yml"), strings.Replace(mirrorYAML("osaka.example.org", ""), "DE}", "JP, latitude: 35.6, longitude: 139.6}", 1))
	})
	osaka, tokyo, berlin := find(s, "osaka"), find(s, "tokyo"), find(s, "berlin1")
	near := func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }
	if osaka.Before != nil || osaka.After.Lists == 0 || !near(tokyo.Before.Share, 0.5) || !near(tokyo.Gain(), -osaka.Gain()) {
		t.Errorf("a new mirror gains %v, and the one beside it %v", osaka.Gain(), tokyo.Gain())
	}
	if berlin.Gain() != 0 || !near(s.Moved, osaka.After.Lists) {
		t.Errorf("%v lists move, and %v to the new mirror; far away there is a change of %v", s.Moved, osaka.After.Lists, berlin.Gain())
	}

	s = change(func(dir string) {
		if err := os.Remove(filepath.Join(dir, "tokyo.example.org.yml")); err != nil {
			t.Fatal(err)
		}
	})
	if tokyo := find(s, "tokyo"); tokyo.After != nil || !near(tokyo.Gain(), -0.5) {
		t.Errorf("a mirror that goes gains %v", tokyo.Gain())
	}
	var text strings.Builder
	if err := s.Print(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"5,120 lists a day", "50.00 % of the lists begin with another mirror", "tokyo.example.org    JP  -50.00 %  50.00 %  0.9     -        -       -\n", "nothing changes for "} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, &text)
		}
	}
}

// With findings, who is not fit for lists is sent nothing, in both networks; who is
// not known yet is taken to be well. It does not matter when it is asked.
func TestSimulationWithFindings(t *testing.T) {
	dir := newFiles(t, 0)
	cities(t, dir)
	after := filepath.Join(t.TempDir(), "mirrors.d")
	if err := os.CopyFS(after, os.DirFS(filepath.Join(dir, "mirrors.d"))); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(after, "osaka.example.org.yml"), strings.Replace(mirrorYAML("osaka.example.org", ""), "DE}", "JP, latitude: 35.6, longitude: 139.6}", 1))
	k := state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}
	old := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	snap := &state.Snapshot{Taken: old, Mirrors: map[string]*state.Status{}, Truth: map[state.Key]state.Truth{k: {Confirmed: old}}}
	for name, h := range map[string]state.Health{
		"berlin1": state.Fresh, "berlin2": state.Down, "munich": state.Fresh, "paris": state.Fresh, "newyork": state.Fresh, "tokyo": state.Stale,
	} {
		snap.Mirrors[name+".example.org"] = &state.Status{Health: map[state.Key]state.Health{k: h}}
	}
	var demand []Demand
	for i := range 128 {
		demand = append(demand, Demand{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 64)}), Arch: "x86_64", Lists: 10},
			Demand{Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), Arch: "x86_64", Lists: 10})
	}
	with := func(o *Options) { o.Source = &memorySource{snap: snap} }
	got, err := simulated(t, dir, with).Simulate(t.Context(), demand, simulated(t, dir, func(o *Options) { o.MirrorsDir = after }))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range got.Mirrors {
		switch name := strings.TrimSuffix(m.Name, ".example.org"); {
		case (name == "berlin2" || name == "tokyo") && (m.Before.Lists != 0 || m.After.Lists != 0):
			t.Errorf("%s is not fit for lists, and is sent %+v, then %+v", name, m.Before, m.After)
		case name == "berlin1" && m.Before.Lists == 0, name == "osaka" && m.After.Lists == 0:
			t.Errorf("%s is sent nothing", name)
		}
	}
	if got.Moved == 0 {
		t.Error("nobody is sent to the new mirror")
	}
}

func TestSimulationOfNobody(t *testing.T) {
	s := simulated(t, newFiles(t, 1), nil)
	if _, err := s.Simulate(t.Context(), nil, nil); err == nil {
		t.Error("nobody is simulated")
	}
	for _, n := range []float64{-1, math.NaN(), math.Inf(1)} {
		if _, err := s.Simulate(t.Context(), []Demand{{Lists: n}}, nil); err == nil {
			t.Errorf("%v lists are simulated", n)
		}
	}
	got, err := s.Simulate(t.Context(), []Demand{{Lists: 0}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(got); err != nil {
		t.Errorf("no lists at all: %v", err)
	}
}

// A million lists that are served, hour by hour, are those that were simulated,
// and those that statistics have.
func TestSimulationAgreesWithAServedMillion(t *testing.T) {
	if testing.Short() {
		t.Skip("a million requests take long with the race detector")
	}
	dir := newFiles(t, 0)
	cities(t, dir)
	const million = 1_000_000
	demand := someDemand(million)
	for i := range demand {
		demand[i].Lists = 1
		if !demand[i].Addr.IsValid() {
			demand[i].Addr = netip.MustParseAddr("192.0.2.1") // served, all without address are one
		}
	}
	var clock atomic.Int64
	clock.Store(simulatedDay.Unix())
	s := simulated(t, dir, func(o *Options) {
		o.Config.Stats, o.Config.Node = "dir:"+filepath.Join(dir, "stats"), "n"
		o.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
	})
	h, _ := s.Handlers()
	served, answered := map[string]float64{}, 0.0
	w := &firstLine{header: http.Header{}}
	for hour := range hoursOfDay {
		clock.Store(simulatedDay.Add(time.Duration(hour) * time.Hour).Unix())
		s.keeper.refresh()
		for i := (hoursOfDay - hour) % hoursOfDay; i < len(demand); i += hoursOfDay {
			d := &demand[i]
			target := "/mirrorlist/" + orElse(d.Version, "9") + "/" + orElse(d.Repo, "baseos")
			if d.Arch != "" {
				target += "?arch=" + d.Arch
			}
			r, err := http.NewRequest("GET", target, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.RemoteAddr = netip.AddrPortFrom(d.Addr, 1).String()
			w.reset()
			if h.ServeHTTP(w, r); w.code == http.StatusOK {
				name := hostOf(w.line)
				if name == "vault.example.org" {
					name = stats.Vault
				}
				served[name]++
				answered++
			}
		}
	}
	got, err := s.Simulate(t.Context(), demand, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Lists != answered || answered < million/2 {
		t.Errorf("%v lists were simulated, %v served", got.Lists, answered)
	}
	for _, m := range got.Mirrors {
		if m.Before.Lists != served[m.Name] {
			t.Errorf("%s: %v lists were simulated, %v served", m.Name, m.Before.Lists, served[m.Name])
		}
	}
	if err := s.recorder.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, total := counted(t, s, stats.Mirrors, "mirror")
	if total.Count != stats.Whole(uint64(answered)) {
		t.Errorf("%d lists were counted, %v served", total.Count, answered)
	}
	for _, m := range got.Mirrors {
		name := m.Name
		if m.Private {
			name = stats.Private
		}
		if rows[name].Count != stats.Whole(uint64(served[m.Name])) {
			t.Errorf("%s: %d lists were counted, %v served", name, rows[name].Count, served[m.Name])
		}
	}
}

// firstLine keeps no more of an answer than one does here.
type firstLine struct {
	header http.Header
	code   int
	line   string
}

func (w *firstLine) reset() { clear(w.header); w.code, w.line = http.StatusOK, "" }

func (w *firstLine) Header() http.Header  { return w.header }
func (w *firstLine) WriteHeader(code int) { w.code = code }
func (w *firstLine) Write(b []byte) (int, error) {
	if w.line == "" {
		w.line, _, _ = strings.Cut(string(b), "\n")
	}
	return len(b), nil
}

func TestReadClients(t *testing.T) {
	got, err := ReadClients("f", strings.NewReader("# clients\n192.0.2.1\n\n ::ffff:192.0.2.2 2.5 # two and a half\n2001:db8::1%eth0 3 9/baseos\t\n192.0.2.3 0 9.8/appstream aarch64"))
	want := []Demand{
		{Addr: netip.MustParseAddr("192.0.2.1"), Lists: 1}, {Addr: netip.MustParseAddr("192.0.2.2"), Lists: 2.5},
		{netip.MustParseAddr("2001:db8::1"), "9", "baseos", "", 3}, {netip.MustParseAddr("192.0.2.3"), "9.8", "appstream", "aarch64", 0},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v; want %+v", got, err, want)
	}
	for text, want := range map[string]string{
		"192.0.2.1\nhere":              `f:2: "here" is no address`,
		"192.0.2.1 many":               `f:1: "many" is no number of lists a day`,
		"192.0.2.1 -1":                 `f:1: "-1" is no number of lists a day`,
		"192.0.2.1 NaN":                `f:1: "NaN" is no number of lists a day`,
		"192.0.2.1 1 baseos":           `f:1: "baseos" is no list; write VERSION/REPO`,
		"192.0.2.1 1 9/baseos a b":     `f:1: "b" is too much`,
		strings.Repeat("1", 100_000):   "token too long",
		"192.0.2.0/24":                 `"192.0.2.0/24" is no address`,
		"192.0.2.1\n" + "\x1b[31m 1 2": "is no address",
	} {
		if _, err := ReadClients("f", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

func TestReadPopulation(t *testing.T) {
	s := simulated(t, newFiles(t, 1), nil)
	got, err := s.ReadPopulation("f", strings.NewReader(
		"period,country,version,repo,arch,count\n2026-03-01,DE,9.8,baseos,x86_64,500\n2026-03-02,DE,9.8,baseos,x86_64,300\n"+
			"2026-03-01,DE,9.8,other,unnamed,8\n2026-03-01,AQ,9.8,baseos,x86_64,16\n2026-03-02,unknown,other,baseos,x86_64,32\n2026-03-02,other,9.8,baseos,x86_64,64\n"))
	if err != nil {
		t.Fatal(err)
	}
	type key struct{ country, version, repo, arch string }
	lists := map[key]float64{}
	seen := map[netip.Addr]bool{}
	db := s.table.Load().db
	for _, d := range got {
		country := "nowhere"
		if d.Addr.IsValid() {
			country = letters(db.Place(db.Find(d.Addr)).Country)
			seen[d.Addr] = true
		}
		lists[key{country, d.Version, d.Repo, d.Arch}] += d.Lists
	}
	// Antarctica is not in the demo.
	for k, want := range map[key]float64{
		{"DE", "9.8", "baseos", "x86_64"}: 400, {"DE", "9.8", "", ""}: 4, {"nowhere", "9.8", "baseos", "x86_64"}: 40, {"nowhere", "", "baseos", "x86_64"}: 16,
	} {
		if math.Abs(lists[k]-want) > 1e-6 {
			t.Errorf("%v: %v lists a day, want %v", k, lists[k], want)
		}
		delete(lists, k)
	}
	if len(lists) > 0 {
		t.Errorf("there are also %v", lists)
	}
	// Everywhere in the two networks of Berlin that the demo has in IPv4.
	if len(seen) < 300 || !seen[netip.MustParseAddr("127.0.1.7")] || !seen[netip.MustParseAddr("192.0.2.100")] {
		t.Errorf("clients are at %d addresses", len(seen))
	}
	for text, want := range map[string]string{
		"":                              "f: it is empty; write a first line such as",
		"a,b\n":                         `f:1: there is no column "country"`,
		"country\nDE\n":                 `f:1: there is no column "count"`,
		"country,count\nDE,1\nXYZ,2\n":  `f:3: "XYZ" is no country`,
		"country,count\nDE,x\n":         `f:2: "x" is no number of lists a day`,
		"country,count\nDE,1,2\n":       "wrong number of fields",
		"country,count\n\"DE,1\nFR,2\n": "extraneous or missing",
	} {
		if _, err := s.ReadPopulation("f", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := s.ReadPopulation("f", brokenReader{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a file that cannot be read: %v", err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, os.ErrClosed }

// BenchmarkSimulate compares two networks of 600 mirrors for a million clients.
func BenchmarkSimulate(b *testing.B) {
	s := &Server{}
	s.table.Store(benchTable(b, 600))
	demand := make([]Demand, 1_000_000)
	for i, q := range benchEverybody(benchTable(b, 600)) {
		for k := i; k < len(demand); k += 20_000 {
			demand[k] = Demand{Addr: q.addr, Lists: 1}
		}
	}
	for b.Loop() {
		if _, err := s.Simulate(b.Context(), demand, s); err != nil {
			b.Fatal(err)
		}
	}
}
