package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// put replaces the snapshot in dir, as a checker does.
func put(t *testing.T, dir, text string) {
	t.Helper()
	tmp := filepath.Join(dir, "tmp")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, "snapshot.json")); err != nil {
		t.Fatal(err)
	}
}

// reader opens a state directory.
func reader(t *testing.T, dir string) *Reader {
	t.Helper()
	r, err := OpenReader("dir:"+dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReaderReadsTheNewestSnapshot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	d := reader(t, dir)
	if _, err := d.Load(t.Context()); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("without the directory: %v, want %v", err, ErrNoSnapshot)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(t.Context()); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("without the file: %v, want %v", err, ErrNoSnapshot)
	}

	put(t, dir, `{"taken":"2026-07-01T12:00:00Z","mirrors":{"a.example.org":{"health":{"9.8/baseos/x86_64":"fresh"},"ipv6":"reached"}}}`)
	first, err := d.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st := first.Mirrors["a.example.org"]; st.Health[Key{"9.8", "baseos", "x86_64"}] != Fresh || st.IPv6 != Reached {
		t.Errorf("read %+v", st)
	}
	if again, err := d.Load(t.Context()); again != first || err != nil {
		t.Errorf("the same file is read as another snapshot, %v", err)
	}

	put(t, dir, `{"taken":"2026-07-01T12:01:00Z","mirrors":{}}`)
	second, err := d.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if second == first || second.Taken.Minute() != 1 {
		t.Errorf("a new file is read as the snapshot of %v", second.Taken)
	}

	// An edit in place that keeps size and inode is told by its time.
	path := filepath.Join(dir, "snapshot.json")
	if err := os.WriteFile(path, []byte(`{"taken":"2026-07-01T12:02:00Z","mirrors":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Unix(4_000_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	if third, err := d.Load(t.Context()); err != nil || third.Taken.Minute() != 2 {
		t.Errorf("a file that was written over is read as %v, %v", third, err)
	}

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if last, err := d.Load(t.Context()); !errors.Is(err, ErrNoSnapshot) || last == nil || last.Taken.Minute() != 2 {
		t.Errorf("after it was removed: %v, %v, want the last one and %v", last, err, ErrNoSnapshot)
	}
}

func TestReaderRefusesWhatIsNoSnapshot(t *testing.T) {
	const good = `{"taken":"2026-07-01T12:00:00Z","mirrors":{}}`
	for _, tt := range []struct{ name, text, want string }{
		{"an empty file", "", "unexpected end of JSON input"},
		{"half a file", good[:20], "unexpected end of JSON input"},
		{"two of them", good + good, "after top-level value"},
		{"no JSON", "taken: now", "invalid character"},
		{"null", "null", "not a JSON object"},
		{"no time", `{"mirrors":{}}`, "it does not say when it was taken"},
		{"a time that is none", `{"taken":"yesterday"}`, "yesterday"},
		{"a mirror of which nothing is said", `{"taken":"2026-07-01T12:00:00Z","mirrors":{"a.example.org":null}}`, `mirror "a.example.org": nothing is said of it`},
		{"a key that is none", `{"taken":"2026-07-01T12:00:00Z","mirrors":{"a.example.org":{"health":{"9.8":"fresh"}}}}`, `key "9.8" is not VERSION/REPO/ARCH`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			d := reader(t, dir)
			put(t, dir, tt.text)
			for range 2 { // the second time it is remembered
				snap, err := d.Load(t.Context())
				if snap != nil || err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), dir) {
					t.Errorf("Load = %v, %v, want an error about the file with %q", snap, err, tt.want)
				}
			}
			put(t, dir, good)
			if _, err := d.Load(t.Context()); err != nil {
				t.Errorf("after it was repaired: %v", err)
			}
		})
	}
	t.Run("too large", func(t *testing.T) {
		dir := t.TempDir()
		f, err := os.Create(filepath.Join(dir, "snapshot.json"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(256<<20 + 1); err != nil { // takes no room
			t.Fatal(err)
		}
		if _, err := reader(t, dir).Load(t.Context()); err == nil || !strings.Contains(err.Error(), "268435457 bytes is more than there can be") {
			t.Errorf("Load: %v", err)
		}
	})
	t.Run("a directory", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "snapshot.json"), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := reader(t, dir).Load(t.Context()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("Load: %v", err)
		}
	})
}

// A newer checker may know more than this server.
func TestReaderReadsWhatANewerReleaseWrites(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, `{
		"taken": "2026-07-01T12:00:00Z", "format": 7, "checker": {"name": "x"},
		"mirrors": {"a.example.org": {
			"health": {"9.8/baseos/x86_64": "quarantined", "9.8/appstream/x86_64": "fresh"},
			"ipv6": "flaky", "ipv4": "reached", "evidence": [1, 2, 3]}},
		"truth": {"9.8/baseos/x86_64": {"expired": true, "composes": [{"revision": 1}]}}}`)
	snap, err := reader(t, dir).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	st := snap.Mirrors["a.example.org"]
	if h := st.Health[Key{"9.8", "baseos", "x86_64"}]; h != Unknown || !h.Listable() {
		t.Errorf("a verdict that is not known reads as %v", h)
	}
	if h := st.Health[Key{"9.8", "appstream", "x86_64"}]; h != Fresh {
		t.Errorf("fresh reads as %v", h)
	}
	if st.IPv6 != Untested {
		t.Errorf("a reach that is not known reads as %v", st.IPv6)
	}
	if !snap.Truth[Key{"9.8", "baseos", "x86_64"}].Expired {
		t.Error("the truth is lost")
	}
}
