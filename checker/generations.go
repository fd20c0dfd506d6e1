package checker

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"meridian/builder/repodata"
	"meridian/checker/state"
)

// generationFiles remember the repomd.xml of generations: the newest few of each
// key in memory, and all of them in a directory, if there is one. What is read
// back from there is compared with its own name, so it is written without care.
type generationFiles struct {
	dir string
	log *slog.Logger

	mu     sync.Mutex // guards what follows
	parsed map[state.Key]map[state.GenerationID]*repodata.Repomd
}

// parsedPerKey is for how many generations of a key the parsed file is kept: what
// most mirrors serve is among them.
const parsedPerKey = 4

func newGenerationFiles(dir string, log *slog.Logger) *generationFiles {
	return &generationFiles{dir: dir, log: log, parsed: map[state.Key]map[state.GenerationID]*repodata.Repomd{}}
}

// put remembers a generation of k, which is one of t.
func (f *generationFiles) put(k state.Key, t *state.Truth, seen *sighting) {
	id := seen.generation.ID()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.parsed[k][id] != nil {
		return
	}
	kept := map[state.GenerationID]*repodata.Repomd{id: seen.repomd}
	for i := range t.Generations[:min(parsedPerKey, len(t.Generations))] {
		old := t.Generations[i].ID()
		if md := f.parsed[k][old]; md != nil {
			kept[old] = md
		}
	}
	f.parsed[k] = kept
	if f.dir == "" {
		return
	}
	if err := f.write(id, seen.text); err != nil {
		f.log.Warn("metadata is not remembered over a restart", "err", err)
	}
}

func (f *generationFiles) write(id state.GenerationID, text []byte) error {
	path := f.path(id)
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, text, 0o644); err != nil {
		os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, path)
}

func (f *generationFiles) path(id state.GenerationID) string {
	return filepath.Join(f.dir, id.String()+".xml")
}

// get returns what put remembered; nil if that is nothing.
func (f *generationFiles) get(k state.Key, id state.GenerationID) *repodata.Repomd {
	f.mu.Lock()
	md := f.parsed[k][id]
	f.mu.Unlock()
	if md != nil || f.dir == "" {
		return md
	}
	text, err := os.ReadFile(f.path(id))
	if err != nil {
		return nil
	}
	if sum := sha256.Sum256(text); state.GenerationID(sum[:8]) != id {
		return nil
	}
	md, err = repodata.ReadRepomd(bytes.NewReader(text))
	if err != nil {
		return nil
	}
	return md
}

// keepOnly forgets what is not a generation of any topic.
func (f *generationFiles) keepOnly(topics []*topic) {
	keep := map[state.GenerationID]bool{}
	for _, s := range topics {
		for i := range s.truth.Generations {
			keep[s.truth.Generations[i].ID()] = true
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, all := range f.parsed {
		for id := range all {
			if !keep[id] {
				delete(all, id)
			}
		}
		if len(all) == 0 {
			delete(f.parsed, k)
		}
	}
	if f.dir == "" {
		return
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.log.Warn("remembered metadata cannot be read", "err", err)
	}
	for _, e := range entries {
		var id state.GenerationID
		name, _ := strings.CutSuffix(strings.TrimSuffix(e.Name(), ".tmp"), ".xml")
		if id.UnmarshalText([]byte(name)) == nil && (!keep[id] || strings.HasSuffix(e.Name(), ".tmp")) {
			os.Remove(filepath.Join(f.dir, e.Name()))
		}
	}
}
