package state

import "testing"

// What people read first: a mail's subject, a feed's title.
func TestTitleSaysWhatHappened(t *testing.T) {
	baseos := Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}
	images := Key{Version: "9.8", Repo: "isos", Arch: "x86_64"}
	for _, tt := range []struct {
		name string
		e    Event
		want string
	}{
		{"one repository", Event{Kind: HealthChanged, Keys: []Key{baseos}, From: Fresh, To: Down, Problem: &Problem{Reason: "no answer"}},
			"9.8/baseos/x86_64 is down, before: fresh: no answer"},
		{"two", Event{Kind: HealthChanged, Keys: []Key{baseos, images}, From: Down, To: Fresh}, "9.8/baseos/x86_64 and 1 more are fresh, before: down"},
		{"a publication", Event{Kind: Published, Keys: []Key{baseos, images}}, "9.8/baseos/x86_64 and 1 more were published"},
		{"an origin that is not believed", Event{Kind: OriginTroubled, Keys: []Key{baseos}, Problem: &Problem{Reason: "it does not answer"}},
			"the origin is in trouble: it does not answer"},
		{"an origin that is over its trouble", Event{Kind: OriginTroubled, Keys: []Key{baseos}}, "the origin is as it should be again"},
		{"a kind that a newer release has", Event{Kind: "eclipse"}, "eclipse"},
	} {
		if got := tt.e.Title(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
