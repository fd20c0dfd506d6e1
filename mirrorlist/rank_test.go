package mirrorlist

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/zeebo/xxh3"
)

func TestPrefixHash(t *testing.T) {
	const secret = 7
	for _, tt := range []struct {
		name, a, b string
		same       bool
	}{
		{"neighbours in a /24 are one client", "192.0.2.1", "192.0.2.254", true},
		{"neighbours across /24s are two", "192.0.2.255", "192.0.3.0", false},
		{"addresses of a /48 are one client", "2001:db8:1::1", "2001:db8:1:ffff:ffff:ffff:ffff:ffff", true},
		{"neighbours across /48s are two", "2001:db8:1::1", "2001:db8:2::1", false},
		{"an IPv6 address is not the IPv4 one of the same first bytes", "192.0.2.1", "c000:200:4::1", false},
	} {
		a, b := netip.MustParseAddr(tt.a), netip.MustParseAddr(tt.b)
		if got := prefixHash(a, secret) == prefixHash(b, secret); got != tt.same {
			t.Errorf("%s: %s and %s are the same: %t", tt.name, a, b, got)
		}
		if prefixHash(a, secret) == prefixHash(a, secret+1) {
			t.Errorf("%s: the secret does not count", tt.name)
		}
	}
}

func mirrorNames(n int) (names []uint64, weights []int) {
	for i := range n {
		names = append(names, xxh3.HashString(fmt.Sprintf("m%d.example.org", i)))
		weights = append(weights, 1000*(1+i%3))
	}
	return names, weights
}

// A draw depends on the mirror and its own bandwidth, and on nothing else of the
// network.
func TestDrawIsTheMirrorsOwn(t *testing.T) {
	names, weights := mirrorNames(7)
	d := newDraw(500_000, names, weights, 3)
	slices.Reverse(names)
	slices.Reverse(weights)
	reversed := newDraw(500_000, names, weights, 3)
	alone := newDraw(500_000, names[2:3], weights[2:3], 3)
	wider := newDraw(500_000, names[2:3], []int{weights[2] * 10}, 3)
	for class := range classes {
		for i, score := range d.row(class) {
			if got := reversed.row(class)[6-i]; got != score {
				t.Fatalf("class %d: mirror %d draws %d, and in another order of mirrors %d", class, i, score, got)
			}
		}
		if a, b := alone.row(class)[0], reversed.row(class)[2]; a != b {
			t.Fatalf("class %d: alone a mirror draws %d, among others %d", class, a, b)
		}
		a, b := math.Float32frombits(alone.row(class)[0]), math.Float32frombits(wider.row(class)[0])
		if !(b < a) || b < 0 || math.IsInf(float64(a), 0) || math.IsNaN(float64(a)) {
			t.Fatalf("class %d: ten times the bandwidth draws %v instead of %v", class, b, a)
		}
	}
	for _, other := range []*draw{newDraw(500_001, names, weights, 3), newDraw(500_000, names, weights, 4)} {
		if slices.Equal(other.scores, reversed.scores) {
			t.Error("hour and secret do not count")
		}
	}
}

// The bits of positive floats sort as the floats do: draws are compared as
// integers.
func TestDrawsSortAsBits(t *testing.T) {
	names, weights := mirrorNames(64)
	row := newDraw(1, names, weights, 1).row(0)
	floats := make([]float32, len(row))
	for i, b := range row {
		floats[i] = math.Float32frombits(b)
	}
	byBits, byValue := slices.Clone(row), slices.Clone(floats)
	slices.Sort(byBits)
	slices.Sort(byValue)
	for i := range byBits {
		if math.Float32frombits(byBits[i]) != byValue[i] {
			t.Fatalf("place %d differs", i)
		}
	}
}

// Classes enter an hour one after the other, once an hour each.
func TestHoursBeginSpreadOverTheHour(t *testing.T) {
	start := time.Unix(1_800_000_000/3600*3600, 0)
	moved := make([]int, 60)
	for class := range classes {
		times := 0
		for minute := range 60 {
			a, b := hourOf(start.Add(time.Duration(minute)*time.Minute), class), hourOf(start.Add(time.Duration(minute+1)*time.Minute), class)
			if a != b {
				times++
				moved[minute]++
			}
		}
		if times != 1 {
			t.Fatalf("class %d changes hours %d times an hour", class, times)
		}
	}
	if most := slices.Max(moved); most > classes/60+2 {
		t.Errorf("%d of %d classes change hours in one minute", most, classes)
	}
}

// The tables that are there serve every class, now and for drawsAhead, with the
// rows that a node which has just started makes.
func TestNextDrawsAreAhead(t *testing.T) {
	names, weights := mirrorNames(2)
	var ds draws
	start := time.Unix(1_800_000_000, 0)
	made := map[int64]*draw{}
	check := func(now time.Time) {
		t.Helper()
		ds = ds.next(now, names, weights, 1)
		if len(ds) > 3 {
			t.Fatalf("%s: %d tables are kept", now, len(ds))
		}
		for _, later := range []time.Duration{0, drawsAhead / 3, drawsAhead} {
			for class := 0; class < classes; class += 5 {
				got, want := ds.at(now.Add(later), class), hourOf(now.Add(later), class)
				if got.hour != want {
					t.Fatalf("%s + %s: class %d has the table of hour %d, want %d", now, later, class, got.hour, want)
				}
				if made[want] == nil {
					made[want] = newDraw(want, names, weights, 1)
				}
				if !slices.Equal(got.row(class), made[want].row(class)) {
					t.Fatalf("%s + %s: class %d draws %v, and elsewhere %v", now, later, class, got.row(class), made[want].row(class))
				}
			}
		}
	}
	for minute := 0; minute < 300; minute += 7 {
		check(start.Add(time.Duration(minute) * time.Minute))
	}
	check(start.Add(-10 * time.Hour)) // the clock was wrong
	check(start.Add(-10*time.Hour - time.Minute))
	check(start.Add(1000 * time.Hour))

	// Outside the time that the tables are for, another one serves.
	for _, away := range []time.Duration{-5000 * time.Hour, 5000 * time.Hour} {
		for class := range classes {
			if d := ds.at(start.Add(away), class); !d.has(class) {
				t.Fatalf("%s away, class %d has a table without it", away, class)
			}
		}
	}
}

// The coin is uniform, and says nothing of the draws: else the clients that are
// sent to fresh mirrors would be those of certain mirrors.
func TestCoin(t *testing.T) {
	names, weights := mirrorNames(2)
	weights[1] = weights[0]
	tenths := make([]int, 10)
	var both [2][2]int
	for hour := range int64(16) {
		d := newDraw(500_000+hour, names, weights, 9)
		for class := range classes {
			c := d.coin(class)
			if c < 0 || c >= 1 {
				t.Fatalf("coin %v", c)
			}
			tenths[int(c*10)]++
			i, j := 0, 0
			if c < 0.5 {
				i = 1
			}
			if row := d.row(class); row[0] < row[1] {
				j = 1
			}
			both[i][j]++
		}
	}
	if x := chiSquare(tenths, slices.Repeat([]float64{0.1}, 10)); x > 27.9 { // df = 9, p = 0.001
		t.Errorf("tenths %v: χ² = %.1f", tenths, x)
	}
	if x := chiSquare([]int{both[0][0], both[0][1], both[1][0], both[1][1]}, slices.Repeat([]float64{0.25}, 4)); x > 16.3 { // df = 3
		t.Errorf("coin and draw %v: χ² = %.1f", both, x)
	}
}

// A cell is what the library and math.Log make of the same bytes.
func TestDrawIsTheLogarithmOfAHash(t *testing.T) {
	names, weights := mirrorNames(50)
	for _, secret := range []uint64{0, 3, 0xfedcba9876543210} {
		d := newDraw(500_000, names, weights, secret)
		for class := range classes {
			for i, score := range d.row(class) {
				b := binary.LittleEndian.AppendUint64(nil, names[i])
				b = binary.LittleEndian.AppendUint64(b, uint64(d.hour)<<16|uint64(class))
				want := -math.Log(float64(xxh3.HashSeed(b, secret))/(1<<64)) / float64(weights[i])
				if got := float64(math.Float32frombits(score)); math.Abs(got-want) > 4e-4*want+1e-12 {
					t.Fatalf("secret %x, class %d, mirror %d: %g, want %g", secret, class, i, got, want)
				}
			}
		}
	}
}

func TestHalvings(t *testing.T) {
	check := func(number uint64) {
		t.Helper()
		got := halvings(number)
		if want := 64 - math.Log2(float64(number)); math.Abs(float64(got)/one-want) > 4e-4*want+1e-9 {
			t.Fatalf("halvings(%#x) = %g, want %g", number, float64(got)/one, want)
		}
		if less := halvings(number - 1); less < got {
			t.Fatalf("halvings(%#x) = %d, and of one less only %d", number, got, less)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 1_000_000 {
		check(max(1, r.Uint64()>>r.IntN(64)))
	}
	for i := range 64 { // where a power or a piece of the table ends
		power := uint64(1) << i
		check(power)
		check(max(1, power-1))
		check(-power)
		check(1<<63 | power) // one of 53 is the next piece of the table
	}
	if got := halvings(math.MaxUint64); got <= 0 {
		t.Errorf("the greatest number takes %d halvings: as bits, its draw would be the last", got)
	}
	if got := halvings(0); got != 64*one {
		t.Errorf("halvings(0) = %g", float64(got)/one)
	}
}
