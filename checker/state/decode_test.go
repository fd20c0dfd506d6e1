package state

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"meridian/internal/store"
)

// statuses are ways to write one that are not ours.
var statuses = []string{
	`{}`,
	` { "health" : { "9.8/baseos/x86_64" : "fresh" , "9.8\/a\u0070pstream/x86_64":"l\u0061gging","1/2/3":null } } `,
	`{"health":null,"holds":null,"ipv6":"reached"}`,
	`{"health":{"9.8/baseos/x86_64":"fresh"},"health":{"9.8/appstream/x86_64":"stale","9.8/baseos/x86_64":"quarantined"}}`,
	`{"holds":{"9.8/baseos/x86_64":"0102030405060708","1/2/3":null},"misses":{"ipv6":3},"unknown":[{"health":{}}]}`,
	`{"health":{"9.8":"fresh"}}`,
	`{"health":{"9.8/baseos/x86_64":1}}`,
	`{"health":[]}`,
	`{"health":"fresh"}`,
	`{"holds":{"9.8/baseos/x86_64":"01"}}`,
	`{"holds":{"9.8/baseos/x86_64":{}}}`,
	`{"ipv6":7}`,
	`{"health":{}`,
	`{"health":{}}x`,
	`[]`,
	`"fresh"`,
	``,
}

// What is read by hand, because that is fast, is what the standard library reads.
func FuzzStatus(f *testing.F) {
	for _, text := range statuses {
		f.Add(text)
	}
	all, err := json.Marshal(everything().Mirrors["all.example.org"])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(all))
	// The standard library does not care for case, and so for another order.
	twice := regexp.MustCompile(`(?is)h(ealth|olds).*h(ealth|olds)`)
	exact := regexp.MustCompile(`"(health|holds)"`)
	f.Fuzz(func(t *testing.T, text string) {
		var v view
		v.keys = map[string]Key{}
		got, err := v.status(text)
		want := new(Status)
		stdErr := json.Unmarshal([]byte(text), want)
		if len(exact.FindAllString(text, -1)) != 2 && twice.MatchString(text) {
			return
		}
		switch {
		case !json.Valid([]byte(text)) || !utf8.ValidString(text):
			// Values are not looked into beyond what is needed of them.
		case strings.TrimSpace(text) == "null": // by which nothing is said
		case (err == nil) != (stdErr == nil):
			t.Errorf("%q is read as %+v, %v; want %+v, %v", text, got, err, want, stdErr)
		case err == nil && !reflect.DeepEqual(got, want):
			t.Errorf("%q is read as\n%+v\nwant\n%+v", text, got, want)
		}
	})
}

// FuzzSnapshot reads anything as the file of a state directory.
func FuzzSnapshot(f *testing.F) {
	for _, name := range []string{"snapshot.json", "snapshot-1.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"taken":"2026-07-01T12:00:00Z","mirrors":{"a":{"health":{"1/2/3":"fresh"}}},"truth":{"1/2/3":{}},"publications":{"x":{}}}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, "snapshot.json"), text, 0o644); err != nil {
			t.Fatal(err)
		}
		r := openReader(t, "dir:"+dir)
		snap, err := r.Load(t.Context())
		if err != nil {
			if snap != nil {
				t.Errorf("with %v there is %+v", err, snap)
			}
			return
		}
		for name, st := range snap.Mirrors {
			if st == nil {
				t.Errorf("nothing is said of mirror %q", name)
			}
		}
		if again, err := r.Load(t.Context()); again != snap || err != nil {
			t.Errorf("read again it is %v, %v", again, err)
		}
	})
}

// FuzzFields reads anything as two states of the fields of a record, as Redis has
// them. What is known of the first changes nothing in the second.
func FuzzFields(f *testing.F) {
	f.Add("mirrors/a", `{"health":{"1/2/3":"fresh"}}`, `{"health":{"1/2/3":"stale"},"ipv6":"reached"}`, "truth/1/2/3", `{"expired":true}`)
	f.Add("mirrors/", "null", "{}", "vantage", `"paris"`)
	f.Add("truth/1/2", "{}", "{}", "publications/x", `{"time":"2026-07-01T12:00:00Z"}`)
	f.Fuzz(func(t *testing.T, name, before, after, other, value string) {
		first := &store.Record{Taken: noon, Fields: map[string]string{name: before, other: value}}
		second := &store.Record{Taken: noon.Add(time.Minute), Fields: map[string]string{name: after, other: value}}
		var known, blank view
		known.take(first)
		got, err := known.take(second)
		want, wantErr := blank.take(second)
		if (err == nil) != (wantErr == nil) || !reflect.DeepEqual(got, want) {
			t.Errorf("read as %+v, %v; and by who knows nothing as %+v, %v", got, err, want, wantErr)
		}
		if again, errAgain := known.take(second); again != got || errAgain != err {
			t.Errorf("taken again it is %+v, %v", again, errAgain)
		}
	})
}
