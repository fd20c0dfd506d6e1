package syncer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
)

// A Finding is one way in which a tree is not what its manifest says.
type Finding struct {
	Path string `json:"path"`

	// Kind is "missing", "extra", "torn" (another size) or "changed" (another
	// content, type or target).
	Kind string `json:"kind"`

	Detail string `json:"detail,omitempty"`
}

// A Verdict is what Verify found out about a tree.
type Verdict struct {
	Files    int       `json:"files"`  // files that the manifest lists
	Hashed   int       `json:"hashed"` // of these, how many were read
	Bytes    int64     `json:"bytes"`  // that were read
	Findings []Finding `json:"findings,omitempty"`
}

// Verify compares a tree with a manifest. Names, types and sizes are compared
// always; the content of every file when sample is 0, else of that many, chosen
// anew each time. A tree that cannot be read is an error, a wrong one is not.
func Verify(ctx context.Context, tree string, m *Manifest, sample int) (*Verdict, error) {
	// What must not be in a tree is not in its manifest either.
	got, _, err := walk(ctx, tree)
	if err != nil {
		return nil, err
	}
	v := new(Verdict)
	var whole []*Entry // files of the right size, whose content is known
	for i := range m.Entries {
		want := &m.Entries[i]
		if want.Type == File {
			v.Files++
		}
		have := got.Lookup(want.Path)
		switch {
		case have == nil:
			v.add(want.Path, "missing", "")
		case have.Type != want.Type:
			v.add(want.Path, "changed", fmt.Sprintf("a %s, want a %s", have.Type, want.Type))
		case have.Size != want.Size:
			v.add(want.Path, "torn", fmt.Sprintf("%d bytes, want %d", have.Size, want.Size))
		case have.Target != want.Target:
			v.add(want.Path, "changed", fmt.Sprintf("leads to %+q, want %+q", have.Target, want.Target))
		case want.Type == File && want.Hashed:
			whole = append(whole, want)
		}
	}
	for _, have := range got.Entries {
		if m.Lookup(have.Path) == nil {
			v.add(have.Path, "extra", "")
		}
	}
	if sample > 0 && sample < len(whole) {
		rand.Shuffle(len(whole), func(i, j int) { whole[i], whole[j] = whole[j], whole[i] })
		whole = whole[:sample]
		slices.SortFunc(whole, func(a, b *Entry) int { return strings.Compare(a.Path, b.Path) })
	}
	if err := v.compare(ctx, tree, whole); err != nil {
		return nil, err
	}
	slices.SortFunc(v.Findings, func(a, b Finding) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return v, nil
}

func (t Type) String() string {
	switch t {
	case File:
		return "file"
	case Dir:
		return "directory"
	case Link:
		return "link"
	}
	return "nothing known"
}

func (v *Verdict) add(path, kind, detail string) {
	v.Findings = append(v.Findings, Finding{path, kind, detail})
}

// compare reads files.
func (v *Verdict) compare(ctx context.Context, tree string, files []*Entry) error {
	return readFiles(ctx, tree, files, func(want *Entry, have Entry, err error) error {
		v.Hashed++
		v.Bytes += want.Size
		switch {
		case errors.Is(err, errChanged):
			v.add(want.Path, "torn", "it changes while it is read")
		case errors.Is(err, fs.ErrNotExist):
			v.add(want.Path, "missing", "")
		case err != nil:
			v.add(want.Path, "changed", "it cannot be read: "+err.Error())
		case have.XXH3 != want.XXH3:
			v.add(want.Path, "changed", "other content of the same size")
		}
		return nil
	})
}

// VerifyTree is Verify with the manifest that was published with the tree.
func VerifyTree(ctx context.Context, tree string, sample int) (*Verdict, error) {
	m, err := LoadManifest(filepath.Join(tree, ManifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s; it comes with a published tree, and \"syncer manifest -o FILE TREE\" makes one for -manifest FILE: %w", tree, ManifestFile, err)
	}
	if err != nil {
		return nil, err
	}
	return Verify(ctx, tree, m, sample)
}
