package syncer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"meridian/builder/repodata"
)

// An upstream is the tree that a follower follows. It is a stranger: what it says
// is looked at before it is used, and bounded.
type upstream struct {
	remote
	from   string // what names are relative to for rsync, and
	prefix string // what comes before each
}

// openUpstream understands where to follow from.
func openUpstream(text string, r Rsync) (*upstream, error) {
	p, err := parsePlace("upstream", text)
	if err != nil {
		return nil, err
	}
	if p.kind == onDisk {
		abs, err := filepath.Abs(text)
		if err != nil {
			return nil, err
		}
		p.text = strings.TrimRight(abs, "/") + "/"
	}
	u := &upstream{remote: remote{r, p}, from: p.text}
	if p.kind == atDaemon {
		// The daemon of rsync 3.5.0 finds no file of a list that is relative to a
		// directory inside of a module.
		module, dir := p.module()
		if u.from = module; dir != "" {
			u.prefix = dir + "./"
		}
	}
	return u, nil
}

// Bounds on what an upstream may have a follower keep or hold in memory.
const (
	maxManifestFile = 2 << 30 // bytes, compressed
	maxStamp        = 32      // bytes of TIME
)

// exactTime compares times to the nanosecond, where the upstream tells them: what
// a generation changes may have been changed by the one before in the same second.
const exactTime = "--modify-window=-1"

// look brings the markers of the upstream into the directory dir, where those of
// the last time are, and returns which of them it has: when nothing has changed,
// this is all that is ever asked.
func (u *upstream) look(ctx context.Context, dir string) (map[string]bool, stats, error) {
	there := make(map[string]bool)
	// Twice -i: also what is here already is named.
	args := u.args("-rtii", "--no-links", exactTime, "--max-size="+strconv.Itoa(maxManifestFile),
		"--from0", "--include-from=-", "--exclude=*")
	st, err := u.rsync.run(ctx, patternList(filters([]string{TimeFile, ManifestFile})), func(it item) error {
		if typ, ok := typeOf(it); ok && typ == File {
			there[it.path] = true
		}
		return nil
	}, append(args, "--", u.text, dir+"/")...)
	return there, st, err
}

// stamp reads the TIME that look left in dir; zero where it is none.
func stampIn(dir string) time.Time {
	f, err := os.Open(filepath.Join(dir, TimeFile))
	if err != nil {
		return time.Time{}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStamp))
	if err != nil {
		return time.Time{}
	}
	return parseTime(b)
}

// parseTime reads the content of TIME; zero where it is none.
func parseTime(b []byte) time.Time {
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n <= 0 {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}

// fingerprint stands for everything that an upstream has, as far as its markers
// in dir tell, and for what of it is followed. It is "" where they do not tell.
func fingerprint(dir string, there map[string]bool, exclude []string) (string, error) {
	h := sha256.New()
	for _, pattern := range exclude {
		fmt.Fprintf(h, "%q\n", pattern)
	}
	switch {
	case there[ManifestFile]:
		f, err := os.Open(filepath.Join(dir, ManifestFile))
		if err != nil {
			return "", err
		}
		defer f.Close()
		if _, err := io.Copy(h, f); err != nil {
			return "", err
		}
	case there[TimeFile] && !stampIn(dir).IsZero():
		fmt.Fprintf(h, "%s %d", TimeFile, stampIn(dir).Unix())
	default:
		return "", nil
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// entryFiles reads files that readers begin with.
func (u *upstream) entryFiles(ctx context.Context, names []string) (map[string][]byte, error) {
	if len(names) == 0 {
		return nil, nil
	}
	return u.readSmall(ctx, names, repodata.MaxRepomd)
}

// pull transfers files into the directory stage, which nobody reads. What breaks
// off goes on from there the next time. Where the tree basis has an older
// content of a file, only what differs is transferred. Files of more than max
// bytes do not come.
func (u *upstream) pull(ctx context.Context, stage, basis string, names []string, max int64, compare bool) (stats, error) {
	if len(names) == 0 {
		return stats{}, nil
	}
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = u.prefix + name
	}
	return u.rsync.push(ctx, u.from, stage+"/", list, compare, u.args(
		"--no-links", "--inplace", "--ignore-missing-args", exactTime, "--copy-dest="+basis,
		"--max-size="+strconv.FormatInt(max, 10), "--chmod=Fug-s")...)
}

// tolerate returns nil for the error of a transfer of which some may have come:
// what has not is found out by looking.
func tolerate(err error) error {
	if failed, ok := errors.AsType[*runError](err); ok && !failed.full() && (failed.code == rsyncPartial || failed.code == rsyncVanished) {
		return nil
	}
	return err
}

// trim removes from a manifest what is not to be followed: what is excluded, and
// what has no business in a tree. It returns why, for the latter.
func trim(m *Manifest, exclude []string) []string {
	m.Entries = slices.DeleteFunc(m.Entries, func(e Entry) bool { return ours(e.Path) || excluded(exclude, e.Path) })
	odd := make(map[string]string)
	for i := range m.Entries {
		e := &m.Entries[i]
		if e.Type != Link {
			continue
		}
		if _, err := m.resolve(e.Path); err != nil || leadsOut(e.Path, e.Target) != "" {
			odd[e.Path] = fmt.Sprintf("is a link to %+q, which leads out of the tree", e.Target)
		}
	}
	for i := range m.Entries {
		e := &m.Entries[i]
		dir := path.Dir(e.Path)
		switch parent := m.Lookup(dir); {
		case strings.ContainsFunc(e.Path, unicode.IsControl):
			odd[e.Path] = "has a control character in its name"
		case dir != "." && (parent == nil || parent.Type != Dir):
			odd[e.Path] = "is in a directory that is none"
		case odd[dir] != "":
			odd[e.Path] = "is in a directory that is left out"
		}
	}
	var why []string
	m.Entries = slices.DeleteFunc(m.Entries, func(e Entry) bool {
		if odd[e.Path] != "" {
			why = append(why, fmt.Sprintf("left out %+q: it %s", e.Path, odd[e.Path]))
		}
		return odd[e.Path] != ""
	})
	return why
}

// excluded reports whether a pattern matches a name or a directory that it is in.
func excluded(patterns []string, name string) bool {
	for _, p := range patterns {
		// As many parts of the name as the pattern has.
		head, depth := name, strings.Count(p, "/")
		for i := range len(name) {
			if name[i] == '/' {
				if depth--; depth < 0 {
					head = name[:i]
					break
				}
			}
		}
		if ok, _ := path.Match(p, head); ok {
			return true
		}
	}
	return false
}

// checkPattern says what is wrong with a pattern of names to exclude.
func checkPattern(p string) error {
	if _, err := path.Match(p, ""); err != nil {
		return fmt.Errorf("%q is no pattern; write one such as vault or 9*/isos", p)
	}
	if strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/") || !inside(p) {
		return fmt.Errorf("%q is not relative to the top of the tree; write one such as vault or 9*/isos, without a slash at either end", p)
	}
	return nil
}

// everything lists an upstream that has no manifest.
func (u *upstream) everything(ctx context.Context, exclude []string) (*Manifest, error) {
	var args []string
	for _, p := range exclude {
		args = append(args, "--exclude=/"+p)
	}
	m, err := u.listing(ctx, args...)
	if err != nil {
		return nil, err
	}
	m.Entries = slices.CompactFunc(m.Entries, func(a, b Entry) bool { return a.Path == b.Path })
	m.Time = time.Now().UTC()
	return m, nil
}

// repositories are those of a manifest, without their content.
func repositories(m *Manifest) []*repo {
	var list []*repo
	for _, e := range m.Entries {
		if classOf(e.Path) == entry && path.Base(e.Path) == repodata.Name {
			list = append(list, &repo{dir: repository(e.Path)})
		}
	}
	return list
}

// entryNames are the files of a repository that readers begin with, repomd.xml
// last.
func (r *repo) entryNames() []string {
	return []string{r.path("repomd.xml.key"), r.path("repomd.xml.asc"), r.path("repomd.xml")}
}

// stagedTree opens files in stage where they are there, and else in tree.
type stagedTree struct{ stage, tree *os.Root }

func (s stagedTree) open(name string) (io.ReadCloser, error) {
	f, err := s.stage.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s.tree.Open(name)
	}
	return f, err
}

// readUpstreamManifest reads the manifest that look left in dir.
func readUpstreamManifest(dir string) (*Manifest, error) {
	file := filepath.Join(dir, ManifestFile)
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m, err := ReadManifest(bytes.NewReader(b))
	if err != nil {
		// Should it have been damaged here, it is not to be compared with again.
		return nil, errors.Join(fmt.Errorf("the upstream's %w", err), os.Remove(file))
	}
	return m, nil
}
