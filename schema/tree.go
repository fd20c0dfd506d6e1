package schema

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A Tree is a network file and its mirrors as a daemon uses them: of each file
// the last good form. It is never changed after it was read.
type Tree struct {
	Network *Network

	// Mirrors by name, each name once; those without a URL of a protocol that the
	// network requires are left out.
	Mirrors []*Mirror

	// NetworkFaults and MirrorFaults are what is wrong with the files now, one
	// sentence each.
	NetworkFaults, MirrorFaults []error

	forms map[string]*Mirror // by file
}

// ReadTree reads a network file and the directory of mirrors that it names, unless
// mirrorsDir is another one. prev is the tree that was read before, or nil. A network file that cannot be used
// keeps the one before it, and so does a mirror file, unless it was deleted. The
// error says that there is no network yet, or that the directory cannot be read;
// then there may be a tree nevertheless, which has the mirrors of prev.
func ReadTree(networkFile, mirrorsDir string, prev *Tree) (*Tree, error) {
	t := &Tree{}
	network, problems, err := LoadNetwork(networkFile)
	switch {
	case err == nil:
		if mirrorsDir != "" {
			network.MirrorsDir = mirrorsDir
		}
		t.Network, t.NetworkFaults = network, faults(problems)
	case prev == nil || prev.Network == nil:
		return nil, err
	default:
		t.Network, t.NetworkFaults = prev.Network, []error{err}
	}
	list, problems, err := LoadMirrors(t.Network.MirrorsDir)
	if err != nil {
		if prev != nil {
			t.Mirrors, t.forms = prev.Mirrors, prev.forms
		}
		return t, err
	}
	t.MirrorFaults = faults(problems)
	t.forms = make(map[string]*Mirror, len(list))
	for _, m := range list {
		t.forms[m.File] = m
	}
	if prev != nil {
		for file, m := range prev.forms {
			if t.forms[file] == nil {
				if _, err := os.Stat(filepath.Join(t.Network.MirrorsDir, file)); err == nil {
					t.forms[file] = m // bad now
				}
			}
		}
	}
	// By file, so that of two mirrors with one name the same one always wins.
	names := map[string]string{}
	for _, file := range slices.Sorted(maps.Keys(t.forms)) {
		m := t.forms[file]
		switch other := names[m.Name]; {
		case other != "":
			t.MirrorFaults = append(t.MirrorFaults, fmt.Errorf("%s: the name %q is that of %s; give each mirror a name of its own", file, m.Name, other))
		case !t.Network.Offers(m):
			t.MirrorFaults = append(t.MirrorFaults, fmt.Errorf("%s: address: none of the protocols that the network requires; add one of %s", file, strings.Join(t.Network.RequiredProtocols, ", ")))
		default:
			names[m.Name] = file
			t.Mirrors = append(t.Mirrors, m)
		}
	}
	slices.SortFunc(t.Mirrors, func(a, b *Mirror) int { return strings.Compare(a.Name, b.Name) })
	return t, nil
}

// faults returns the problems that cost something, as errors.
func faults(ps []Problem) []error {
	var out []error
	for _, p := range ps {
		if p.Error {
			out = append(out, fmt.Errorf("%s", p))
		}
	}
	return out
}

// Gone counts the mirrors of prev that t has not.
func (t *Tree) Gone(prev *Tree) int {
	n := 0
	for _, m := range prev.Mirrors {
		if _, ok := slices.BinarySearchFunc(t.Mirrors, m.Name, func(m *Mirror, name string) int { return strings.Compare(m.Name, name) }); !ok {
			n++
		}
	}
	return n
}

// A Listing identifies the state of files: their names, sizes and times. Equal
// listings mean that nothing was edited in between. Who reads files that people
// edit waits for two equal ones in a row, and for git to have finished: see
// [GitLock].
type Listing uint64

// List takes the listing of files, and of all that lies directly in directories.
// What is missing, or cannot be looked at, is part of it.
func List(paths []string) Listing {
	h := fnv.New64a()
	var b []byte
	// What is added cannot be taken for anything else: no path holds a zero byte,
	// and the numbers behind it have one length.
	add := func(path string, fi fs.FileInfo, err error) {
		b = append(append(b[:0], path...), 0)
		if err != nil {
			b = append(append(append(b, 'e'), err.Error()...), 0)
		} else {
			b = append(b, 'f')
			for _, v := range []uint64{uint64(fi.Mode()), uint64(fi.Size()), uint64(fi.ModTime().UnixNano()), inodeOf(fi)} {
				b = binary.LittleEndian.AppendUint64(b, v)
			}
		}
		_, _ = h.Write(b)
	}
	for _, path := range paths {
		fi, err := os.Stat(path)
		add(path, fi, err)
		if err != nil || !fi.IsDir() {
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			add(path, nil, err)
		}
		for _, e := range entries {
			// Stat, not the entry: what a link points to is what counts.
			name := filepath.Join(path, e.Name())
			fi, err := os.Stat(name)
			add(name, fi, err)
		}
	}
	return Listing(h.Sum64())
}

// inodeOf tells a file from another one that was moved into its place.
func inodeOf(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// GitLock returns the lock that git holds on a work tree around one of paths, or
// "". Git holds it from before the first file that it writes until after the
// last.
func GitLock(paths []string) string {
	seen := map[string]bool{}
	look := func(path string) string {
		for dir := path; !seen[dir]; dir = filepath.Dir(dir) {
			seen[dir] = true
			lock := filepath.Join(gitDir(filepath.Join(dir, ".git")), "index.lock")
			if _, err := os.Lstat(lock); err == nil {
				return lock
			}
		}
		return ""
	}
	for _, path := range paths {
		path, err := filepath.Abs(path)
		if err != nil {
			continue
		}
		if lock := look(path); lock != "" {
			return lock
		}
		// The work tree may be where a link leads to.
		if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
			if lock := look(real); lock != "" {
				return lock
			}
		}
	}
	return ""
}

// gitDir returns the directory that git keeps its own files in. A linked work
// tree and a submodule have it elsewhere, and a file that says where.
func gitDir(path string) string {
	fi, err := os.Stat(path)
	if err != nil || !fi.Mode().IsRegular() || fi.Size() > 4096 {
		return path
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return path
	}
	dir, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "gitdir: ")
	if !ok {
		return path
	}
	if filepath.IsAbs(dir) {
		return dir
	}
	return filepath.Join(filepath.Dir(path), dir)
}
