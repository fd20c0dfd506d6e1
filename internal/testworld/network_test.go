package testworld

import (
	"net/netip"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"meridian/schema"
)

func TestTheNetworkIsReadBackAsItWasWritten(t *testing.T) {
	dir := t.TempDir()
	n := SampleNetwork("http://vault.example.org/")
	here := schema.Location{Country: "NO", City: "Ås", Latitude: 59.66, Longitude: 10.79, HasCoordinates: true}
	everyField := SampleMirror("mirror2.example.org", "http://mirror2.example.org/", n, here)
	everyField.UpdateFrequency = time.Hour
	everyField.Private = true
	everyField.Monopoly = true
	everyField.Subnets = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	everyField.ASN = []uint32{64496, 64497}
	everyField.Bandwidth = 400
	everyField.Carries = schema.Carries{Versions: []schema.Version{"9"}, Arches: []schema.Arch{"x86_64"}, NoISOs: true}
	cdn := SampleMirror("mirror3.example.org", "http://mirror3.example.org/", n, here)
	cdn.Anycast = true
	often := SampleMirror("mirror4.example.org", "http://mirror4.example.org/", n, here)
	often.UpdateFrequency = 15 * time.Minute
	preset := SampleMirror("mirror5.example.org", "http://mirror5.example.org/", n, here)
	preset.UpdateFrequency = 0
	n.AllowedOutdate = 90 * time.Minute
	want := []*schema.Mirror{
		SampleMirror("mirror1.example.org", "http://mirror1.example.org/", n, here),
		everyField,
		cdn,
		often,
		preset,
	}
	if err := WriteNetwork(dir, n, want); err != nil {
		t.Fatal(err)
	}

	got, problems, err := schema.LoadNetwork(filepath.Join(dir, "network.yml"))
	if err != nil || len(problems) > 0 {
		t.Fatalf("network.yml: %v, %v", err, problems)
	}
	mirrors, problems, err := schema.LoadMirrors(got.MirrorsDir)
	if err != nil || len(problems) > 0 {
		t.Fatalf("mirrors.d: %v, %v", err, problems)
	}
	if len(mirrors) != len(want) {
		t.Fatalf("%d mirrors, want %d", len(mirrors), len(want))
	}
	for i := range want {
		// What the reader fills in by itself: a default, and where it read.
		want[i].File = want[i].Name + ".yml"
		if want[i].Bandwidth == 0 {
			want[i].Bandwidth = schema.DefaultBandwidth
		}
		if want[i].UpdateFrequency == 0 {
			want[i].UpdateFrequency = schema.DefaultUpdateFrequency
		}
		equalFields(t, want[i].Name, mirrors[i], want[i])
	}
	n.MirrorsDir = filepath.Join(dir, n.MirrorsDir)
	equalFields(t, "network.yml", got, n)
}

// equalFields compares what two structs of one type export, field by field.
func equalFields[T any](t *testing.T, name string, got, want *T) {
	t.Helper()
	g, w := reflect.ValueOf(got).Elem(), reflect.ValueOf(want).Elem()
	for _, f := range reflect.VisibleFields(g.Type()) {
		if !f.IsExported() {
			continue
		}
		if a, b := g.FieldByIndex(f.Index).Interface(), w.FieldByIndex(f.Index).Interface(); !reflect.DeepEqual(a, b) {
			t.Errorf("%s: %s is %+v, want %+v", name, f.Name, a, b)
		}
	}
}
