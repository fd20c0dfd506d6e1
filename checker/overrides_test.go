package checker

import (
	"strings"
	"testing"
	"time"

	"meridian/checker/state"
)

func TestOverridesAreChecked(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Overrides
		want string // "" for none
	}{
		{"nothing", Overrides{}, ""},
		{"a disabled mirror", Overrides{Mirrors: map[string]MirrorOverride{"a": {Disabled: true, Reason: "moving"}}}, ""},
		{"a mirror about which nothing is said", Overrides{Mirrors: map[string]MirrorOverride{"a": {Reason: "moving"}}}, "mirrors.a: nothing is decided"},
		{"no reason", Overrides{Mirrors: map[string]MirrorOverride{"a": {Draining: true}}}, "mirrors.a.reason: missing"},
		{"two decisions that exclude each other", Overrides{Mirrors: map[string]MirrorOverride{"a": {Disabled: true, Draining: true, Reason: "x"}}}, "write one of them"},
		{"a negative weight", Overrides{Mirrors: map[string]MirrorOverride{"a": {Weight: -1, Reason: "x"}}}, "mirrors.a.weight: -1 is negative"},
		{"a withdrawn repository", Overrides{Withdrawn: []Withdrawal{{Key: "9.8/*/x86_64", Reason: "x"}}}, ""},
		{"a key that is none", Overrides{Withdrawn: []Withdrawal{{Key: "9.8", Reason: "x"}}}, `withdrawn[0].key: "9.8" is not VERSION/REPO/ARCH`},
		{"a pattern that is none", Overrides{Withdrawn: []Withdrawal{{Key: "9.8/[/x", Reason: "x"}}}, "no brackets"},
		{"a withdrawal without reason", Overrides{Withdrawn: []Withdrawal{{Key: "9.8/nfv/*"}}}, "withdrawn[0].reason: missing"},
		{"a key of a mirror that is none", Overrides{Mirrors: map[string]MirrorOverride{"a": {Withdrawn: []string{"baseos"}, Reason: "x"}}}, "mirrors.a.withdrawn"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.o.Check()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check: %v, want %q", err, tt.want)
			}
		})
	}
}

func TestOverridesHoldUntilTheyEnd(t *testing.T) {
	baseos := state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}
	source := state.Key{Version: "9.8", Repo: "source"}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	o := &Overrides{
		Mirrors: map[string]MirrorOverride{
			"a": {Disabled: true, Reason: "moving", Until: now.Add(time.Hour)},
			"b": {Weight: 200, Withdrawn: []string{"9.8/source/*"}, Reason: "slow disks"},
		},
		Withdrawn: []Withdrawal{{Key: "9.8/base*/*", Reason: "a broken build", Until: now.Add(2 * time.Hour)}},
	}
	keys := []state.Key{baseos, source}
	if d := o.of("a", keys, now); d == nil || !d.Disabled || d.Reason != "moving" {
		t.Errorf("a: %+v", d)
	}
	if d := o.of("a", keys, now.Add(time.Hour)); d != nil {
		t.Errorf("a, when it has ended: %+v", d)
	}
	if d := o.of("b", keys, now); d == nil || d.Weight != 200 || len(d.Withdrawn) != 1 || d.Withdrawn[0] != source {
		t.Errorf("b: %+v", d)
	}
	if d := o.of("c", keys, now); d != nil {
		t.Errorf("c: %+v", d)
	}
	if r := o.withdrawn(baseos, now); r != "a broken build" {
		t.Errorf("baseos is withdrawn for %q", r)
	}
	if r := o.withdrawn(baseos, now.Add(2*time.Hour)) + o.withdrawn(source, now); r != "" {
		t.Errorf("withdrawn for %q", r)
	}
	for i, want := range []time.Time{now.Add(time.Hour), now.Add(2 * time.Hour), {}} {
		if got := o.changes(now.Add(time.Duration(i) * time.Hour)); !got.Equal(want) {
			t.Errorf("after %d hours the next change is %v, want %v", i, got, want)
		}
	}
	if u := o.Unknown([]string{"a"}, []state.Key{baseos}); len(u) != 2 || !strings.Contains(u[0], "mirrors.b") || !strings.Contains(u[1], "9.8/source/*") {
		t.Errorf("unknown: %q", u)
	}
	var none *Overrides
	if none.of("a", keys, now) != nil || none.withdrawn(baseos, now) != "" || !none.changes(now).IsZero() {
		t.Error("no overrides decide something")
	}
}

func TestDecisionsAreTold(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	drained := &state.Override{Draining: true, Reason: "moving", Until: at.Add(time.Hour)}
	for _, tt := range []struct {
		name    string
		was, is *state.Override
		want    string // "" for no event
	}{
		{"nothing is as it was", nil, nil, ""},
		{"the same decision", drained, &state.Override{Draining: true, Reason: "moving", Until: at.Add(time.Hour)}, ""},
		{"it begins", nil, drained, "drained by an administrator: moving, until 2026-11-22T13:00:00Z"},
		{"it ends", drained, nil, "the decision of an administrator has ended: moving"},
		{"it becomes another", drained, &state.Override{Disabled: true, Weight: 5, Reason: "gone"}, "disabled, weighted with 5 Mbit/s by an administrator: gone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := overridden("a", tt.was, tt.is, at, "")
			if (e == nil) != (tt.want == "") || e != nil && e.Problem.Reason != tt.want {
				t.Errorf("%+v, want %q", e, tt.want)
			}
		})
	}
}

func TestToken(t *testing.T) {
	secret := []byte("a secret of sixteen bytes")
	a := Token(secret, "a.example.org")
	if len(a) != 32 || !validToken(secret, "a.example.org", a) {
		t.Errorf("token %q is not valid", a)
	}
	for _, tt := range []struct {
		name          string
		secret        string
		mirror, token string
	}{
		{"of another mirror", string(secret), "b.example.org", a},
		{"by another secret", "another secret of the same kind", "a.example.org", a},
		{"cut off", string(secret), "a.example.org", a[:31]},
		{"empty", string(secret), "a.example.org", ""},
		{"when there is no secret", "", "a.example.org", Token(nil, "a.example.org")},
	} {
		if validToken([]byte(tt.secret), tt.mirror, tt.token) {
			t.Errorf("a token %s is valid", tt.name)
		}
	}
}
