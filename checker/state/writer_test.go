package state

import (
	"errors"
	"path/filepath"
	"testing"
	"time"
)

func TestWriterKeepsWhatItIsGiven(t *testing.T) {
	url := "dir:" + filepath.Join(t.TempDir(), "state")
	w, err := OpenWriter(url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(t.Context(), &Change{}); !errors.Is(err, ErrNotHolder) {
		t.Errorf("without the lease: %v, want %v", err, ErrNotHolder)
	}
	if _, err := w.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	key := Key{"9.8", "baseos", "x86_64"}
	for _, c := range []*Change{
		{Taken: at, Mirrors: map[string]*Status{"a": {Health: map[Key]Health{key: Fresh}}, "b": {}}, Events: []Event{{Time: at, Mirror: "a", To: Fresh}}},
		{Taken: at.Add(time.Minute), Mirrors: map[string]*Status{"b": nil}, Truth: map[Key]Truth{key: {Expired: true}}, Events: []Event{{Time: at, Mirror: "a", To: Lagging}}},
	} {
		if err := w.Write(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	other, err := OpenWriter(url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Acquire(t.Context()); !errors.Is(err, ErrNotHolder) {
		t.Errorf("the second writer: %v, want %v", err, ErrNotHolder)
	}
	got, err := other.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Mirrors) != 1 || got.Mirrors["a"].Health[key] != Fresh || !got.Truth[key].Expired || !got.Taken.Equal(at.Add(time.Minute)) {
		t.Errorf("read %+v", got)
	}
	if h, err := other.History(t.Context(), "a", 1); err != nil || len(h) != 1 || h[0].To != Lagging {
		t.Errorf("the newest event is %+v, %v", h, err)
	}
	if err := w.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Acquire(t.Context()); err != nil {
		t.Errorf("after it was released: %v", err)
	}
}
