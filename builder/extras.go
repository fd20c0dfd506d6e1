package builder

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"meridian/builder/repodata"
)

// An extra is metadata that is passed on: a file that was named, or what the
// repository has already.
type extra struct {
	kind extraKind
	path string          // of the named file
	sum  [32]byte        // of its content
	kept []repodata.Data // of the repository
}

// An extraKind is one of the files that may be passed on.
type extraKind struct {
	typ   string
	name  string // what its name in repodata ends with, before compression
	check func(io.Reader) error

	// plain: it is written as it is, for clients that read no other, and once
	// more compressed as a type of its own.
	plain bool
}

var extraKinds = []extraKind{
	{typ: "group", name: "comps.xml", check: repodata.CheckGroups, plain: true},
	{typ: "modules", name: "modules.yaml", check: checkModules},
	{typ: "updateinfo", name: "updateinfo.xml", check: repodata.CheckUpdates},
}

// groupGzip is the type of the compressed comps file.
const groupGzip = "group_gz"

// loadExtras checks every file that will be passed on, before anything is written.
func (r *run) loadExtras() error {
	for i, path := range []string{r.Groups, r.Modules, r.Updates} {
		e := extra{kind: extraKinds[i], path: path}
		switch {
		case path != "":
			sum := sha256.New()
			err := e.open(func(text io.Reader) error {
				text = io.TeeReader(text, sum)
				if err := e.kind.check(text); err != nil {
					return err
				}
				_, err := io.Copy(io.Discard, text)
				return err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			sum.Sum(e.sum[:0])
		case r.Update && r.old != nil:
			if err := r.keepExtra(&e); err != nil {
				return err
			}
		}
		if path != "" || e.kept != nil {
			r.extras = append(r.extras, e)
		}
	}
	if !r.Update || r.old == nil {
		return nil
	}
	// What others have added is not ours to drop: productid, prestodelta, …
	for _, d := range r.old.Data {
		base, _, _ := strings.Cut(d.Type, "_") // primary_db, group_xz
		if slices.Contains([]string{"primary", "filelists", "other", "group", "modules", "updateinfo"}, base) {
			continue
		}
		e := extra{kind: extraKind{typ: d.Type}}
		if err := r.keepExtra(&e); err != nil {
			return err
		}
		r.extras = append(r.extras, e)
	}
	return nil
}

// keepExtra takes over what the repository has of a kind, if that is still what
// its repomd.xml says. It does nothing where there is nothing.
func (r *run) keepExtra(e *extra) error {
	for _, typ := range []string{e.kind.typ, e.kind.typ + "_gz"} {
		d := r.old.Lookup(typ)
		if d == nil {
			continue
		}
		f, err := os.Open(filepath.Join(r.Dir, filepath.FromSlash(d.Location)))
		if err == nil {
			err = repodata.Verify(f, d)
			f.Close()
		}
		if err != nil {
			return fmt.Errorf("keep %s: %w; name another file, or do without update", typ, err)
		}
		e.kept = append(e.kept, *d)
	}
	return nil
}

// open hands the text of the named file to read.
func (e *extra) open(read func(io.Reader) error) error {
	f, err := os.Open(e.path)
	if err != nil {
		return bare(err)
	}
	defer f.Close()
	text, err := repodata.Decompress(f)
	if err != nil {
		return err
	}
	defer text.Close()
	return read(&bounded{text, maxExtra})
}

// maxExtra bounds what a file may hold. The largest updateinfo has some 50 MB.
const maxExtra = 1 << 30

// bounded fails after so many bytes: a compressed file may hold any number.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("holds more than %d bytes", int64(maxExtra))
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	return n, err
}

// store writes the extra and returns its entries.
func (e *extra) store(out repodata.Output) (data []repodata.Data, err error) {
	if e.path == "" {
		return e.kept, nil
	}
	type form struct {
		typ      string
		compress bool
	}
	forms := []form{{e.kind.typ, true}}
	switch {
	case e.kind.plain && out.Compression == repodata.Gzip:
		forms = []form{{e.kind.typ, false}, {groupGzip, true}}
	case e.kind.plain:
		forms = []form{{e.kind.typ, false}}
	}
	for _, f := range forms {
		err := e.open(func(text io.Reader) error {
			// What was checked must be what is passed on.
			sum := sha256.New()
			d, err := repodata.Store(out, f.typ, e.kind.name, f.compress, io.TeeReader(text, sum))
			if err == nil && !bytes.Equal(sum.Sum(nil), e.sum[:]) {
				err = errors.New("changed while it was read")
			}
			data = append(data, d)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.path, err)
		}
	}
	return data, nil
}

// extrasKey says what is passed on, for the comparison with the last time.
func (r *run) extrasKey() string {
	var b strings.Builder
	for i := range r.extras {
		e := &r.extras[i]
		if e.path != "" {
			fmt.Fprintf(&b, "%s %x\n", e.kind.typ, e.sum)
			continue
		}
		// Kept from a generation that was given a file: as if it were given again.
		b.WriteString(r.keptKey(e))
	}
	return b.String()
}

// keptKey is the line of the old key for what is kept. A repository that this
// cache knows nothing of has its checksum instead.
func (r *run) keptKey(e *extra) string {
	if r.cache != nil {
		for line := range strings.Lines(r.cache.footer.Extras) {
			if strings.HasPrefix(line, e.kind.typ+" ") {
				return line
			}
		}
	}
	return fmt.Sprintf("%s %s\n", e.kind.typ, e.kept[0].Checksum.Value)
}

// moduleDocuments are the kinds of documents in a stream of modulemd.
var moduleDocuments = []string{"modulemd", "modulemd-stream", "modulemd-packager", "modulemd-defaults", "modulemd-translations", "modulemd-obsoletes"}

// maxModules bounds what is parsed as YAML, which needs many times its size.
const maxModules = 64 << 20

// checkModules tells whether r is a stream of modulemd documents that clients can
// use: each of a known kind, with a version and data, and those of modules with a
// name and a stream.
func checkModules(r io.Reader) error {
	lr := &io.LimitedReader{R: r, N: maxModules + 1}
	dec := yaml.NewDecoder(lr)
	for n := 1; ; n++ {
		var doc struct {
			Document string `yaml:"document"`
			Version  int    `yaml:"version"`
			Data     struct {
				Name   yaml.Node `yaml:"name"`
				Module yaml.Node `yaml:"module"`
				Stream yaml.Node `yaml:"stream"`
			} `yaml:"data"`
		}
		err := dec.Decode(&doc)
		if lr.N == 0 {
			return fmt.Errorf("holds more than %d bytes", maxModules)
		}
		if err == io.EOF {
			if n == 1 {
				return errors.New("is empty; it wants modulemd documents")
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("document %d: %w", n, err)
		}
		if !slices.Contains(moduleDocuments, doc.Document) {
			return fmt.Errorf("document %d is %q; want one of %s", n, doc.Document, strings.Join(moduleDocuments, ", "))
		}
		if doc.Version <= 0 {
			return fmt.Errorf("document %d has no version", n)
		}
		need := map[string]yaml.Node{"module": doc.Data.Module}
		switch doc.Document {
		case "modulemd", "modulemd-stream":
			need = map[string]yaml.Node{"name": doc.Data.Name, "stream": doc.Data.Stream}
		case "modulemd-packager":
			need = nil
		}
		for key, node := range need {
			if node.Kind != yaml.ScalarNode || node.Value == "" {
				return fmt.Errorf("document %d, a %s, has no data.%s", n, doc.Document, key)
			}
		}
	}
}

func parseRepomd(text []byte) (*repodata.Repomd, error) {
	return repodata.ReadRepomd(bytes.NewReader(text))
}

// hashNamed are the files of older generations: a checksum and a kind.
var hashNamed = regexp.MustCompile(`^[0-9a-f]{32,128}-([a-z_]+\.(?:xml|yaml|sqlite))(?:\.[a-z0-9]+)?$`)

// clean removes the files of older generations that m does not name, but for the
// newest RetainOld of each kind. What has no such name is not ours.
func (r *run) clean(m *repodata.Repomd) error {
	entries, err := os.ReadDir(r.out.Dir)
	if err != nil {
		return err
	}
	type aged struct {
		name string
		at   int64
	}
	old := make(map[string][]aged)
	for _, e := range entries {
		kind := hashNamed.FindStringSubmatch(e.Name())
		named := slices.ContainsFunc(m.Data, func(d repodata.Data) bool { return d.Location == repodata.Dir+"/"+e.Name() })
		if kind == nil || named {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		old[kind[1]] = append(old[kind[1]], aged{e.Name(), info.ModTime().UnixNano()})
	}
	var errs []error
	for _, files := range old {
		slices.SortFunc(files, func(a, b aged) int {
			if a.at != b.at {
				return int(min(max(b.at-a.at, -1), 1))
			}
			return strings.Compare(a.name, b.name)
		})
		for _, f := range files[min(r.RetainOld, len(files)):] {
			errs = append(errs, os.Remove(filepath.Join(r.out.Dir, f.name)))
			r.at("remove")
		}
	}
	return errors.Join(errs...)
}
