// Package rpmtest makes packages by the thousand, for tests and benchmarks that
// need as many as a distribution has. They have as many files, dependencies and
// changelogs as real ones, and are worth nothing otherwise: most payloads are holes.
// It is never linked into what is installed.
package rpmtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/rpmpack"

	"meridian/builder/rpm"
)

// Generate makes n packages in the existing directory dir. Each file is size bytes
// long at least, most of them a hole that takes no space on the disk. The same
// arguments make the same files, to their modification times.
func Generate(dir string, n int, size int64) error {
	// To make a package takes much longer than to give it another name of the
	// same length. Nobody who only reads headers sees a difference.
	var models [50][]byte
	for i := range min(n, len(models)) {
		b, err := Package(i)
		if err != nil {
			return fmt.Errorf("package %d: %w", i, err)
		}
		models[i] = b
	}
	for i := range n {
		model := i % len(models)
		name, as := fmt.Sprintf("package-%05d", i), fmt.Sprintf("package-%05d", model)
		path := filepath.Join(dir, fmt.Sprintf("%s-1.%d-1.el9.x86_64.rpm", name, model%7))
		body := bytes.ReplaceAll(models[model], []byte(as), []byte(name))
		if err := os.WriteFile(path, body, 0o644); err != nil {
			return err
		}
		if int64(len(body)) < size {
			if err := os.Truncate(path, size); err != nil {
				return err
			}
		}
		at := time.Unix(1700000000+int64(i), int64(i))
		if err := os.Chtimes(path, at, at); err != nil {
			return err
		}
	}
	return nil
}

// Package returns the i-th package, whole.
func Package(i int) ([]byte, error) {
	name := fmt.Sprintf("package-%05d", i)
	p, err := rpmpack.NewRPM(rpmpack.RPMMetaData{
		Name: name, Version: fmt.Sprintf("1.%d", i%7), Release: "1.el9", Arch: "x86_64", Epoch: uint32(i % 3),
		Summary:     "Package number " + fmt.Sprint(i),
		Description: "A package that a test made.\nIt says as much as others do, & no more; its number is " + fmt.Sprint(i) + ".",
		Licence:     "GPL-2.0-or-later AND MIT", BuildHost: "localhost", BuildTime: time.Unix(1700000000, 0),
		Vendor: "Meridian", Packager: "Meridian <packages@example.org>", URL: "https://www.example.org/" + name,
		Compressor: "gzip:1",
	})
	if err != nil {
		return nil, err
	}
	for f := range 20 + i*37%80 {
		dir := []string{"/usr/share/doc/" + name, "/usr/lib64/" + name, "/usr/share/locale/de/LC_MESSAGES", "/usr/bin"}[f%16/4]
		p.AddFile(rpmpack.RPMFile{Name: fmt.Sprintf("%s/%s-file-%03d", dir, name, f), Mode: 0o100644, Owner: "root", Group: "root"})
	}
	list := func(prefix string, n int, name, flags, version rpm.Tag) {
		var names, versions []string
		var bits []uint32
		for d := range n {
			names = append(names, fmt.Sprintf("%s%d.so.%d()(64bit)", prefix, (i*31+d*17)%5000, d))
			bits, versions = append(bits, uint32(8*(d%2))), append(versions, []string{"", "1.2-3"}[d%2])
		}
		p.AddCustomTag(int(name), rpmpack.EntryStringSlice(names))
		p.AddCustomTag(int(flags), rpmpack.EntryUint32(bits))
		p.AddCustomTag(int(version), rpmpack.EntryStringSlice(versions))
	}
	list("libprovided", 6, rpm.TagProvideName, rpm.TagProvideFlags, rpm.TagProvideVersion)
	list("librequired", 18, rpm.TagRequireName, rpm.TagRequireFlags, rpm.TagRequireVersion)
	var at []uint32
	var who, what []string
	for c := range 15 {
		at = append(at, uint32(1700000000-c*1000000-i))
		who = append(who, fmt.Sprintf("Developer %d <developer%d@example.org> - 1.%d-1", (i+c)%40, (i+c)%40, 15-c))
		what = append(what, fmt.Sprintf("- Fix number %d of %s\n- Resolves: rhbz#%d", i*c, name, 1000000+i*7919+c*104729))
	}
	p.AddCustomTag(int(rpm.TagChangelogTime), rpmpack.EntryUint32(at))
	p.AddCustomTag(int(rpm.TagChangelogName), rpmpack.EntryStringSlice(who))
	p.AddCustomTag(int(rpm.TagChangelogText), rpmpack.EntryStringSlice(what))
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
