package store

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"meridian/internal/durable"
)

func TestDirDocuments(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "documents")
	d := OpenDirDocuments(dir)
	names := func() []string {
		t.Helper()
		list, err := d.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.Sorted(maps.Keys(list))
	}
	if got := names(); len(got) != 0 {
		t.Errorf("before there is a directory there are %q", got)
	}
	if _, err := d.Load(t.Context(), "n/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of what is not there: %v", err)
	}
	for i, want := range []string{"", "x", "xx"} {
		err := d.Update(t.Context(), "n/a", func(old []byte) ([]byte, error) {
			if string(old) != want || (old == nil) != (i == 0) {
				t.Errorf("update %d: %q, want %q", i, old, want)
			}
			return append(old, 'x'), nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	refused := errors.New("refused")
	if err := d.Update(t.Context(), "n/a", func([]byte) ([]byte, error) { return []byte("y"), refused }); !errors.Is(err, refused) {
		t.Errorf("a refused update: %v", err)
	}
	if err := d.Update(t.Context(), "n/a", func([]byte) ([]byte, error) { return nil, nil }); err != nil {
		t.Errorf("an update to nothing else: %v", err)
	}
	if data, err := d.Load(t.Context(), "n/a"); err != nil || string(data) != "xxx" {
		t.Errorf("Load: %q, %v", data, err)
	}
	// A tag tells editions apart, also of one length.
	before, _ := d.List(t.Context())
	if err := d.Update(t.Context(), "n/a", func([]byte) ([]byte, error) { return []byte("yyy"), nil }); err != nil {
		t.Fatal(err)
	}
	if after, _ := d.List(t.Context()); before["n/a"] == after["n/a"] {
		t.Errorf("both editions have the tag %q", before["n/a"])
	}
	// What a killed writer left behind, and what is not ours, is no document.
	for _, path := range []string{"n/.a.json.tmp-1", "n/notes.txt", "README", ".git/a.json"} {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("x"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(); !slices.Equal(got, []string{"n/a"}) {
		t.Errorf("there are %q", got)
	}
	for range 2 {
		if err := d.Remove(t.Context(), "n/a"); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
	if got := names(); len(got) != 0 {
		t.Errorf("after it was removed there are %q", got)
	}
	if err := os.Mkdir(filepath.Join(dir, "n", "d.json"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(t.Context(), "n/d"); err == nil || !strings.Contains(err.Error(), "is not a file") {
		t.Errorf("Load of a directory: %v", err)
	}
}

func TestUpdateWaitsForItsLock(t *testing.T) {
	dir := t.TempDir()
	d := OpenDirDocuments(dir)
	if err := os.Mkdir(filepath.Join(dir, "n"), 0o755); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		lock, err := durable.TryLock(filepath.Join(dir, "n", "lock"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error)
		update := func(ctx context.Context) {
			result <- d.Update(ctx, "n/a", func([]byte) ([]byte, error) { return []byte("x"), nil })
		}
		go update(ctx)
		synctest.Wait()
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) || !errors.Is(err, durable.ErrLocked) {
			t.Errorf("an update that was given up: %v", err)
		}
		go update(t.Context())
		synctest.Wait()
		select {
		case err := <-result:
			t.Errorf("an update that did not wait: %v", err)
		default:
		}
		if err := lock.Unlock(); err != nil {
			t.Fatal(err)
		}
		if err := <-result; err != nil {
			t.Errorf("after it was released: %v", err)
		}
	})
}
