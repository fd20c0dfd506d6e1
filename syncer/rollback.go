package syncer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"

	"meridian/builder/repodata"
	"meridian/signer/verify"
)

// A Signer signs the file repomd.xml, whose path it is given, and leaves the
// signature beside it, in repomd.xml.asc.
type Signer func(ctx context.Context, repomd string) error

// Rollback makes every destination serve what its repositories held before the
// last publication, as a new generation: a checker, and a client that has seen
// the bad one, believe no revision that goes back. The repositories that the
// publication changed get their former repomd.xml with a higher revision, signed
// again when it was signed. Files outside of repositories, and repositories that
// are new, stay as they are. The Source and MaxDelete of the job are not used.
//
// A publication that did not end is rolled back too, as far as it came.
func Rollback(ctx context.Context, job Job, sign Signer) (*Report, error) {
	job.Source = "rollback"
	p := newPublisher(job)
	err := p.rollback(ctx, sign)
	return p.end(), err
}

func (p *publisher) rollback(ctx context.Context, sign Signer) (err error) {
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close(ctx)) }()
	p.done("locked")

	was, err := p.before(ctx)
	if err != nil {
		return err
	}
	// The entry files of exactly these repositories are what load reads.
	for _, dir := range slices.Sorted(maps.Keys(was)) {
		p.repos = append(p.repos, &repo{dir: dir})
	}
	if err := p.each(ctx, "read what is there", (*dest).load); err != nil {
		return err
	}
	if err := p.former(ctx, was, sign); err != nil {
		return err
	}
	if err := p.each(ctx, "plan", (*dest).planRollback); err != nil {
		return err
	}
	p.src = &Manifest{Time: p.dests[0].have.Time}
	for _, d := range p.dests {
		if err := d.old.checkClock(p.began); err != nil && !p.AcceptClock {
			return fmt.Errorf("%s: %w", d, err)
		}
	}
	if p.DryRun {
		return nil
	}
	return p.steps(ctx, []step{
		{"begun", "begin", (*dest).begin},
		{"switched", "switch", (*dest).switchOver},
		{"confirmed", "confirm", (*dest).confirm},
		{"marked", "write markers", (*dest).mark},
	})
}

// before returns what the last publication replaced, which must be the same on
// all tier0s: otherwise they had different trees, and would have again.
func (p *publisher) before(ctx context.Context) (map[string]replaced, error) {
	var was map[string]replaced
	for _, d := range p.dests {
		files, err := d.read(ctx, []string{stateFile})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d, err)
		}
		if files[stateFile] == nil {
			return nil, fmt.Errorf("%s: %w", d, errNoState)
		}
		s, err := parseState(files[stateFile])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d, err)
		}
		var here map[string]replaced
		switch {
		case s.Pending != nil:
			here = s.Pending.Replaced
		case s.current() != nil:
			here = s.current().Replaced
		}
		if len(here) == 0 {
			return nil, fmt.Errorf("%s: the last publication replaced no metadata; there is nothing to go back to", d)
		}
		if was != nil && !maps.EqualFunc(was, here, func(a, b replaced) bool { return bytes.Equal(a.Repomd, b.Repomd) }) {
			return nil, fmt.Errorf("%s and %s had different trees before their last publication; roll them back one at a time", p.dests[0], d)
		}
		was = here
	}
	return was, nil
}

// former makes the repositories as they were, with a revision above all that
// tier0s have now.
func (p *publisher) former(ctx context.Context, was map[string]replaced, sign Signer) error {
	dir, err := os.MkdirTemp("", "syncer-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for i, r := range p.repos {
		top := uint64(0)
		for _, d := range p.dests {
			md := parseRepomd(d.entries[r.path("repomd.xml")])
			if md == nil {
				return fmt.Errorf("%s: %s cannot be read; publish this repository instead", d, r.path("repomd.xml"))
			}
			n, err := strconv.ParseUint(md.Revision, 10, 63)
			if err != nil {
				return fmt.Errorf("%s: the revision of %s, %+q, is not a number that can be counted up; publish the older content with a new revision instead", d, r.dir, md.Revision)
			}
			top = max(top, n)
		}
		old := was[r.dir]
		text, err := withRevision(old.Repomd, strconv.FormatUint(top+1, 10))
		if err != nil {
			return fmt.Errorf("%s: %w", r.path("repomd.xml"), err)
		}
		if r.md, err = repodata.ReadRepomd(bytes.NewReader(text)); err != nil {
			return fmt.Errorf("%s: %w", r.path("repomd.xml"), err)
		}
		file := filepath.Join(dir, strconv.Itoa(i), "repomd.xml")
		asc, err := signed(ctx, file, text, old.Signed, sign, p.Keys)
		if err != nil {
			return fmt.Errorf("%s: %w", r.path("repomd.xml"), err)
		}
		if asc != nil {
			r.files = append(r.files, small{name: r.path("repomd.xml.asc"), data: asc, modTime: p.began})
		}
		r.files = append(r.files, small{name: r.path("repomd.xml"), data: text, modTime: p.began})
		from := parseRepomd(p.dests[0].entries[r.path("repomd.xml")])
		p.report.Repos = append(p.report.Repos, RepoChange{Path: r.dir, From: from.Revision, To: r.md.Revision})
	}
	return nil
}

// signed writes text to file, has it signed, and returns the signature; nil for
// what was not signed and is not to be.
func signed(ctx context.Context, file string, text []byte, before bool, sign Signer, keys *verify.Ring) ([]byte, error) {
	if sign == nil {
		if before {
			return nil, errors.New("it was signed, and has to be signed again; add -sign COMMAND")
		}
		return nil, nil
	}
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	if err := sign(ctx, file); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, text) {
		return nil, errors.New("the command that signs changed what it was to sign")
	}
	asc, err := os.ReadFile(file + ".asc")
	if err != nil {
		return nil, fmt.Errorf("the command that signs left no signature: %w", err)
	}
	if keys == nil {
		return asc, nil
	}
	c := &verify.Checker{Keys: keys}
	for _, f := range c.Detached(text, asc) {
		return nil, fmt.Errorf("its new signature: %s", f)
	}
	return asc, nil
}

// withRevision returns a repomd.xml with another revision and everything else as
// it was, to the byte.
func withRevision(text []byte, revision string) ([]byte, error) {
	const begin, end = "<revision>", "</revision>"
	i := bytes.Index(text, []byte(begin))
	if i < 0 {
		return nil, errors.New("it has no revision")
	}
	i += len(begin)
	n := bytes.Index(text[i:], []byte(end))
	if n < 0 {
		return nil, errors.New("it has no revision")
	}
	return slices.Concat(text[:i], []byte(revision), text[i+n:]), nil
}

// planRollback finds out whether all that the former metadata names is there,
// and what only the present one needs.
func (d *dest) planRollback(ctx context.Context, p *publisher) error {
	open := func(name string) (io.ReadCloser, error) {
		got, err := d.read(ctx, []string{name})
		if err != nil {
			return nil, err
		}
		if got[name] == nil {
			return nil, fmt.Errorf("%s is not there", name)
		}
		return io.NopCloser(bytes.NewReader(got[name])), nil
	}
	current := 0
	if g := d.old.current(); g != nil {
		current = g.Number
	}
	d.planned = planned{next: d.old.clone()}
	was := make(map[string]replaced)
	live := make(map[string]bool)
	var leaving, bad []string
	for _, r := range p.repos {
		missing, err := r.closure(ctx, d.have, open)
		if err != nil {
			return err
		}
		bad = append(bad, missing...)
		if len(missing) > 0 {
			continue
		}
		names, err := r.named(open)
		if err != nil {
			return err
		}
		for _, name := range names {
			for ; name != "."; name = path.Dir(name) {
				live[name] = true
			}
		}
		now := d.entries[r.path("repomd.xml")]
		_, hadSignature := d.entries[r.path("repomd.xml.asc")]
		was[r.dir] = replaced{now, hadSignature}
		if md := parseRepomd(now); md != nil {
			present := &repo{dir: r.dir, md: md}
			// Of a publication that broke off, some may never have come.
			if names, err := present.named(open); err == nil {
				leaving = append(leaving, names...)
			}
		}
		if len(r.files) == 1 && hadSignature {
			d.drop = append(d.drop, r.path("repomd.xml.asc"))
		}
		d.entry = append(d.entry, r.files...)
	}
	if err := problems("what was published before is not complete any more; publish it again instead", bad); err != nil {
		return err
	}
	for name := range live {
		delete(d.next.Retired, name)
	}
	for _, name := range leaving {
		if _, ok := d.next.Retired[name]; !ok && !live[name] {
			d.next.Retired[name] = current
			d.report.Retired++
		}
	}
	d.changed = true
	d.next.advance(p.began, was)
	for name := range live { // advance retires what was pending
		delete(d.next.Retired, name)
	}
	d.report.Generation = d.next.number()
	d.listRollback()
	return nil
}

// listRollback is the manifest to come: what is there, with new entry files.
func (d *dest) listRollback() {
	written := make(map[string]*small)
	for i := range d.entry {
		written[d.entry[i].name] = &d.entry[i]
		d.report.Changed++
		d.report.Bytes += int64(len(d.entry[i].data))
	}
	for _, e := range d.have.Entries {
		if f := written[e.Path]; f != nil {
			e = f.entry()
			delete(written, e.Path)
		}
		if !slices.Contains(d.drop, e.Path) {
			d.listed = append(d.listed, e)
		}
	}
	for _, f := range written {
		d.listed = append(d.listed, f.entry())
	}
	slices.SortFunc(d.listed, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
}

// entry is what a manifest says of the file.
func (s *small) entry() Entry {
	h := sha256.Sum256(s.data)
	return Entry{Path: s.name, Type: File, Size: int64(len(s.data)), ModTime: s.modTime.UTC(),
		Hashed: true, XXH3: xxh3.Hash(s.data), SHA256: hex.EncodeToString(h[:])}
}

// named returns the files that the metadata of a repository names.
func (r *repo) named(open func(name string) (io.ReadCloser, error)) ([]string, error) {
	var names []string
	for _, d := range r.md.Data {
		names = append(names, path.Join(r.dir, d.Location))
	}
	primary := r.md.Lookup("primary")
	if primary == nil {
		return names, nil
	}
	f, err := open(path.Join(r.dir, primary.Location))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := decompress(f, primary.Location)
	if err != nil {
		return nil, err
	}
	defer text.Close()
	err = readPrimary(text, func(href string, _ int64) error {
		names = append(names, path.Join(r.dir, href))
		return nil
	})
	return names, err
}
