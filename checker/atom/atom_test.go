package atom

import (
	"bytes"
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"meridian/checker/state"
)

type parsed struct {
	ID      string `xml:"id"`
	Title   string `xml:"title"`
	Updated string `xml:"updated"`
	Entries []struct {
		ID      string `xml:"id"`
		Title   string `xml:"title"`
		Content string `xml:"content"`
	} `xml:"entry"`
}

func write(t *testing.T, events []state.Event) (string, parsed) {
	t.Helper()
	var b bytes.Buffer
	src := Source{Mirror: "a.example", Self: "https://m.example.org/mirrors/a.example/feed.atom", Page: "https://m.example.org/mirrors/a.example"}
	if err := Write(&b, src, events); err != nil {
		t.Fatal(err)
	}
	var p parsed
	if err := xml.Unmarshal(b.Bytes(), &p); err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	return b.String(), p
}

func TestFeed(t *testing.T) {
	key := state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	events := []state.Event{
		{Time: at.Add(time.Hour), Mirror: "a.example", Kind: state.HealthChanged, From: state.Broken, To: state.Fresh, Keys: []state.Key{key}},
		{Time: at, Mirror: "a.example", Kind: state.HealthChanged, From: state.Fresh, To: state.Broken, Keys: []state.Key{key}, Problem: &state.Problem{
			Reason: `<script>alert("x")</script> & ]]>`, Evidence: &state.Evidence{Method: "GET", URL: "http://a.example/<b>", At: at, Body: "\x00\x1b<html>"},
		}},
	}
	text, p := write(t, events)
	if len(p.Entries) != 2 || p.Updated != "2026-11-22T13:00:00Z" || p.Title != "Mirror a.example" {
		t.Fatalf("%+v\n%s", p, text)
	}
	if strings.Contains(text, "<script>") {
		t.Errorf("text is markup:\n%s", text)
	}
	if want := `9.8/baseos/x86_64 is broken, before: fresh: <script>alert("x")</script> & ]]>`; p.Entries[1].Title != want {
		t.Errorf("title %q, want %q", p.Entries[1].Title, want)
	}
	if !strings.Contains(p.Entries[1].Content, "curl ") {
		t.Errorf("content:\n%s", p.Entries[1].Content)
	}
	// An entry keeps its ID when others come, and two differ.
	_, again := write(t, events[1:])
	if again.Entries[0].ID != p.Entries[1].ID || p.Entries[0].ID == p.Entries[1].ID || again.ID != p.ID {
		t.Errorf("IDs %q and %q, then %q", p.Entries[0].ID, p.Entries[1].ID, again.Entries[0].ID)
	}
}

func TestFeedWithoutEventsDoesNotChange(t *testing.T) {
	a, p := write(t, nil)
	b, _ := write(t, nil)
	if a != b || p.ID == "" || p.Updated == "" || len(p.Entries) != 0 {
		t.Errorf("%s\n%s", a, b)
	}
}

func TestFeedIsBounded(t *testing.T) {
	if _, p := write(t, make([]state.Event, 1000)); len(p.Entries) != maxEntries {
		t.Errorf("%d entries", len(p.Entries))
	}
}
