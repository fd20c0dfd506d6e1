// Package builder makes repositories out of packages: it finds them, has each read
// once, writes the metadata, and puts repomd.xml in its place last, so that a crash
// at any moment leaves the old repository or the new one. It never changes, moves
// or deletes a package, and never signs.
package builder
