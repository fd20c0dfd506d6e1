// Package syncer moves whole trees of repositories between machines with
// rsync(1), in an order in which no reader ever sees metadata that names a file
// that is not there: it publishes a tree to tier0, takes a publication back,
// follows what an upstream publishes, and writes and checks the list of
// everything in a tree. It never makes or changes a package, never touches a
// private key, and never writes outside the directory that it was given as a
// destination.
package syncer

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Markers are written at the top of a published tree after everything else, and
// are no part of it themselves.
const (
	// TimeFile holds the seconds since 1970 at which the tree was last known to
	// be current.
	TimeFile = "TIME"

	// ListFile is the list of all files as mirrors of Fedora read it.
	ListFile = "fullfiletimelist"

	// ManifestFile is the compact list, which followers and [Verify] read.
	ManifestFile = "manifest.gz"

	// StateDir is where a publisher keeps what it must know of a tier0: locks,
	// generations, what may be deleted and when.
	StateDir = ".meridian"
)

// builderLock is what builder repo leaves beside the repodata that it wrote.
const builderLock = ".repodata.lock"

// ours reports whether name, relative to the top of a tree, belongs to who made
// or publishes the tree, and not to the tree.
func ours(name string) bool {
	switch name {
	case TimeFile, ListFile, ManifestFile, StateDir:
		return true
	}
	return strings.HasPrefix(name, StateDir+"/") || path.Base(name) == builderLock
}

// repomd.xml, what signs it, and its key change in place: everything else in
// repodata has a name of its own in each generation.
const repodataDir = "repodata"

// A class says when a file may appear for readers.
type class int

const (
	content  class = iota // packages, and all that is no metadata
	metadata              // what repomd.xml names
	entry                 // repomd.xml and its signature: where readers begin
)

func classOf(name string) class {
	dir, base := path.Split(name)
	if path.Base(dir) != repodataDir {
		return content
	}
	switch base {
	case "repomd.xml", "repomd.xml.asc", "repomd.xml.key":
		return entry
	}
	return metadata
}

// fixed reports whether a reader may rely on the content of name, because
// metadata gives its size and checksum.
func fixed(name string) bool {
	return classOf(name) == metadata || strings.HasSuffix(name, ".rpm")
}

// problems joins what is wrong with many files into one error that fits a
// screen; nil when there are none.
func problems(what string, list []string) error {
	if len(list) == 0 {
		return nil
	}
	const shown = 20
	var b strings.Builder
	fmt.Fprintf(&b, "%s:", what)
	for i, p := range list {
		if i == shown {
			fmt.Fprintf(&b, "\n  and %d more", len(list)-shown)
			break
		}
		b.WriteString("\n  " + p)
	}
	return errors.New(b.String())
}
