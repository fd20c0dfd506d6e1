package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The form of the file is a promise: people grep it, and other releases read it.
func TestFileOfARecord(t *testing.T) {
	rec := &Record{
		Taken:   time.Date(2026, 7, 1, 14, 30, 0, 0, time.FixedZone("", 2*60*60)),
		Fields:  map[string]string{"b": "2", "a": `"x"`, "mirrors/b.example.org": `{"health":{}}`, "mirrors/a.example.org": "{}", "truth/9.8/baseos/x86_64": "null"},
		stamp:   stamp{"ID", 7, 8},
		pending: []LogEntry{{"history", "a.example.org", `{"<":">"}`}},
	}
	const want = `{"taken":"2026-07-01T12:30:00Z",
"writer":{"id":"ID","token":7,"version":8,"pid":9,"pending":[{"kind":"history","name":"a.example.org","entry":"{\"\u003c\":\"\u003e\"}"}]},
"a":"x",
"b":2,
"mirrors":{
"a.example.org":{},
"b.example.org":{"health":{}}
},
"truth":{
"9.8/baseos/x86_64":null
}
}
`
	var b strings.Builder
	if err := rec.encode(&b, 9); err != nil || b.String() != want {
		t.Fatalf("written as\n%s%v, want\n%s", &b, err, want)
	}
	got, err := decode(want, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Taken.Equal(rec.Taken) || got.stamp != rec.stamp || !maps.Equal(got.Fields, rec.Fields) || !reflect.DeepEqual(got.pending, rec.pending) {
		t.Errorf("read as %+v, want %+v", got, rec)
	}
}

func TestFileInAnyForm(t *testing.T) {
	const text = "\t{ \"taken\" :\"2026-07-01T12:30:00Z\" , \"g\" : { } , \"h\":{ \"\\u0061\" : [ 1 , { \"]\" : \"}\\\"\" } ] ,\"b\":-1.5e3 }\r\n,\"list\":[{}],\"no\":null,\"yes\":true } \n"
	want := map[string]string{"h/a": `[ 1 , { "]" : "}\"" } ]`, "h/b": "-1.5e3", "list": "[{}]", "no": "null", "yes": "true"}
	first, err := decode(text, nil)
	if err != nil || !maps.Equal(first.Fields, want) {
		t.Fatalf("read as %v, %v, want %v", first, err, want)
	}
	// With what was read before at hand, values that begin like the old ones are
	// not taken for them.
	for _, change := range [][2]string{{"-1.5e3", "-1.5e33"}, {"true", "false"}, {`[ 1 ,`, `[ 12 ,`}, {"[{}]", "[{}, 1]"}, {"null", `"null"`}, {`"h"`, `"i"`}} {
		text := strings.Replace(text, change[0], change[1], 1)
		alone, err := decode(text, nil)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := decode(text, first); err != nil || !maps.Equal(again.Fields, alone.Fields) || maps.Equal(again.Fields, want) {
			t.Errorf("%s for %s is read as %v, %v; want %v", change[1], change[0], again.Fields, err, alone.Fields)
		}
	}
}

func TestFileThatIsNone(t *testing.T) {
	const good = `{"taken":"2026-07-01T12:00:00Z","g":{"a":1}}`
	have, err := decode(good, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"an empty file", "", "unexpected end of JSON input"},
		{"half a file", good[:20], "unexpected end of JSON input"},
		{"a file without its end", good[:len(good)-1], "unexpected end of JSON input"},
		{"two of them", good + good, "after top-level value"},
		{"no JSON", "taken: now", "invalid character"},
		{"a list", "[]", "cannot unmarshal array"},
		{"null", "null", "not a JSON object"},
		{"no time", "{}", "it does not say when it was taken"},
		{"a time that is none", `{"taken":"yesterday"}`, "yesterday"},
		{"a writer that is none", `{"taken":"2026-07-01T12:00:00Z","writer":1}`, "writer: json: cannot unmarshal"},
		{"no comma", `{"taken":"2026-07-01T12:00:00Z" "a":1}`, "invalid character"},
		{"no value", `{"taken":"2026-07-01T12:00:00Z","a":}`, "invalid character"},
		{"no name", `{"taken":"2026-07-01T12:00:00Z",:1}`, "invalid character"},
		{"no colon", `{"taken":"2026-07-01T12:00:00Z","a",1}`, "invalid character"},
	} {
		for _, have := range []*Record{nil, have} {
			if rec, err := decode(tt.text, have); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s is read as %v, %v; want an error with %q", tt.name, rec, err, tt.want)
			}
		}
	}
}

// FuzzRecord reads anything as the file of a record: what is read, with or without
// an earlier one at hand, is what is written again.
func FuzzRecord(f *testing.F) {
	f.Add(`{"taken":"2026-07-01T12:00:00Z","writer":{"id":"x","token":1,"version":2,"pending":[{"kind":"h","name":"n","entry":"{}"}]},"v":"x","g":{"a":{"b":[1]},"c":null}}`,
		`{"taken":"2026-07-01T12:00:01Z","g":{"a":{"b":[1]},"d":1.5}}`)
	f.Add(`{"taken":"2026-07-01T12:00:00Z","a":{"":{}}}`, ` { } `)
	f.Fuzz(func(t *testing.T, before, text string) {
		have, err := decode(before, nil)
		if err != nil {
			have = nil
		}
		rec, err := decode(text, nil)
		var std struct{ Taken time.Time }
		if stdErr := json.Unmarshal([]byte(text), &std); err == nil && stdErr == nil && !std.Taken.Equal(rec.Taken) && !strings.Contains(text, `\u`) && strings.Count(strings.ToLower(text), "taken") == 1 {
			t.Errorf("taken at %v, and the standard library says %v", rec.Taken, std.Taken)
		}
		with, errWith := decode(text, have)
		if (err == nil) != (errWith == nil) || err == nil && (!maps.Equal(rec.Fields, with.Fields) || rec.stamp != with.stamp || !rec.Taken.Equal(with.Taken)) {
			t.Fatalf("read as %+v, %v, and with an earlier one at hand as %+v, %v", rec, err, with, errWith)
		}
		if err != nil || !json.Valid([]byte(text)) {
			return // values are not looked into
		}
		var b strings.Builder
		if rec.encode(&b, 1) != nil {
			return // a year that JSON cannot write
		}
		if again, err := decode(b.String(), nil); err != nil || again.stamp != rec.stamp {
			t.Errorf("written again as %s it is read as %+v, %v", &b, again, err)
		}
	})
}

// FuzzLog reads anything as a log: of what is there, lines that are JSON are
// entries, once each, and more can be written behind it, where nothing is cut off.
func FuzzLog(f *testing.F) {
	f.Add([]byte("{\"time\":\"2026-07-01T12:00:00Z\"}\n{}\n{}\nnot this\n\r\n{\"torn\":"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		s := openURL(t, "dir:"+dir, Options{})
		if err := os.MkdirAll(filepath.Join(dir, "log"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "log", "x.jsonl"), text, 0o644); err != nil {
			t.Fatal(err)
		}
		before := must[[]string](t)(s.Log(t.Context(), "log", "x", 1<<20))
		seen := map[string]bool{}
		for _, e := range before {
			if seen[e] || !json.Valid([]byte(e)) {
				t.Errorf("entry %q", e)
			}
			seen[e] = true
		}
		last := `{"this":"is the last entry of all"}`
		if seen[last] {
			return
		}
		w := s.b.writer(ref{"r", ""}, "", time.Minute).(*dirWriter)
		if err := w.append(ref{"log", "x"}, []byte(last+"\n"), 0); err != nil {
			t.Fatal(err)
		}
		// Another writer may be about to write the rest of what looks like half a line.
		if now := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "log", "x.jsonl"))); !bytes.HasPrefix(now, text) {
			t.Errorf("of %q is left %q", text, now)
		}
		if after := must[[]string](t)(s.Log(t.Context(), "log", "x", 1<<20)); !slices.Equal(after[1:], before) || after[0] != last {
			t.Errorf("after one more entry there are %q, before there were %q", after, before)
		}
	})
}

// A disk that is full keeps what it has, and loses no entry of a log.
func TestDirectoryOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	s := openURL(t, "dir:"+dir, Options{Lease: shortLease})
	w := ready(t, s)
	t.Cleanup(func() { w.Release(context.Background()) }) // before it is unmounted
	full := filepath.Join(dir, "full")
	// As the disk fills up page by page, each step of a write fails in turn: of a
	// step of several pages, first the record, and then only its log.
	stored, failed, late := 0, 0, 0
	for free := 64 << 10; free >= 0; free -= 4096 {
		// What is there before is small, so that to replace it makes no room.
		if err := fill(full, dir, 96<<10); err != nil {
			t.Fatal(err)
		}
		write(t, w, step(stored, "g/a", "null"))
		if err := fill(full, dir, free); err != nil {
			t.Fatal(err)
		}
		stored++
		c := step(stored, "g/a", `"`+strings.Repeat("a", 9000+stored)+`"`)
		for _, name := range []string{"x", "y", "z"} {
			c.Log = append(c.Log, LogEntry{"log", name, entry(stored, strings.Repeat("e", 5000))})
		}
		before, _ := s.Read(t.Context(), "r", "", nil)
		err := w.Write(t.Context(), c)
		rec, readErr := s.Read(t.Context(), "r", "", nil)
		switch {
		case err == nil:
			if readErr != nil || rec.Fields["g/a"] != c.Set["g/a"] {
				t.Errorf("with %d bytes free it is written, and read as %v, %v", free, rec, readErr)
			}
			if got := must[[]string](t)(s.Log(t.Context(), "log", "z", 1)); len(got) == 0 || got[0] != c.Log[2].Value {
				late++
			}
		case !errors.Is(err, syscall.ENOSPC):
			t.Errorf("with %d bytes free: %v, want %v", free, err, syscall.ENOSPC)
		default:
			failed++
			stored--
			if before != nil && (readErr != nil || rec.stamp != before.stamp) {
				t.Errorf("with %d bytes free it is not written, and read as %v, %v", free, rec, readErr)
			}
		}
		// To have the lease costs no room.
		if _, err := w.Acquire(t.Context()); err != nil {
			t.Errorf("with %d bytes free the lease: %v", free, err)
		}
	}
	if failed == 0 || late == 0 {
		t.Errorf("%d writes failed, and the log of %d: the test shows less than it should", failed, late)
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	write(t, w, step(stored))
	for _, name := range []string{"x", "y", "z"} {
		if got := must[[]string](t)(s.Log(t.Context(), "log", name, 1000)); len(got) != stored {
			t.Errorf("log %s has %d entries, want all %d", name, len(got), stored)
		}
	}
}

// fill makes a file so large that so many bytes of its file system are free.
func fill(path, dir string, free int) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return err
	}
	size := int64(0)
	if fi, err := os.Stat(path); err == nil {
		size = fi.Size()
	}
	size += int64(st.Bfree)*st.Bsize - int64(free)
	if size < 0 {
		return os.WriteFile(path, nil, 0o600)
	}
	return os.WriteFile(path, make([]byte, size), 0o600)
}
