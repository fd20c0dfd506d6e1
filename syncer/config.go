package syncer

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Config is the settings file of a syncer that follows upstreams.
type Config struct {
	// Listen is the address for /metrics, /readyz, /healthz and /-/follow.
	// Default none.
	Listen string `yaml:"listen"`

	// Trees are what is followed, by a name for logs and metrics.
	Trees map[string]Tree `yaml:"trees"`
}

// Tree is how one tree is kept. The zero value of every field but Upstream and
// Path works.
type Tree struct {
	// Upstream is what is followed; see [Follower].
	Upstream string `yaml:"upstream"`

	// Path is the directory to keep. It must exist.
	Path string `yaml:"path"`

	// Interval is how often the upstream is asked whether something is new, give
	// or take a tenth. After a failure it doubles, up to four hours. Default 10m.
	Interval time.Duration `yaml:"interval"`

	// ListInterval is how often an upstream that has no manifest is listed whole.
	// Default 4h.
	ListInterval time.Duration `yaml:"list_interval"`

	// Exclude, Grace and MaxDelete are those of [Follower].
	Exclude   []string      `yaml:"exclude"`
	Grace     time.Duration `yaml:"grace"`
	MaxDelete int           `yaml:"max_delete"`

	// Pub are files of public keys, of which one must have signed what is new.
	// Default none: signatures are not looked at.
	Pub []string `yaml:"pub"`

	// PasswordFile, Protocol, Checksum, Timeout and Rsync are those of [Rsync].
	PasswordFile string        `yaml:"password_file"`
	Protocol     int           `yaml:"protocol"`
	Checksum     string        `yaml:"checksum"`
	Timeout      time.Duration `yaml:"timeout"`
	Rsync        string        `yaml:"rsync"`

	// Synced is the checker to tell that there is something new. Default none.
	Synced Synced `yaml:"synced"`
}

// Synced says to whom, and as which mirror, a hint is sent.
type Synced struct {
	URL       string `yaml:"url"`        // of the checker: https://mirrors.example.org
	Mirror    string `yaml:"mirror"`     // the name of this mirror in mirrors.d
	TokenFile string `yaml:"token_file"` // what "checker token NAME" printed
}

// The defaults of a Tree, and the longest time between two tries.
const (
	defaultInterval     = 10 * time.Minute
	defaultListInterval = 4 * time.Hour
	maxBackoff          = 4 * time.Hour
)

// Rooted returns the settings with every relative path made relative to dir, the
// directory of the file that they are from.
func (c Config) Rooted(dir string) Config {
	c.Trees = maps.Clone(c.Trees)
	for name, t := range c.Trees {
		for _, p := range []*string{&t.Path, &t.PasswordFile, &t.Synced.TokenFile} {
			*p = rooted(dir, *p)
		}
		if strings.Contains(t.Rsync, "/") {
			t.Rsync = rooted(dir, t.Rsync)
		}
		if p, err := parsePlace("upstream", t.Upstream); err == nil && p.kind == onDisk {
			t.Upstream = rooted(dir, t.Upstream)
		}
		t.Pub = slices.Clone(t.Pub)
		for i := range t.Pub {
			t.Pub[i] = rooted(dir, t.Pub[i])
		}
		c.Trees[name] = t
	}
	return c
}

func rooted(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// treeName is what may stand in a URL and in a metric as it is.
var treeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// check finds what is wrong with settings, and puts the defaults in.
func (c *Config) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			bad("listen: %q is not an address; write HOST:PORT, such as 127.0.0.1:8083", c.Listen)
		}
	}
	if len(c.Trees) == 0 {
		bad(`missing "trees": write at least one, such as trees: {almalinux: {upstream: rsync://HOST/MODULE, path: /srv/mirror}}`)
	}
	c.Trees = maps.Clone(c.Trees)
	names := slices.Sorted(maps.Keys(c.Trees))
	for _, name := range names {
		if !treeName.MatchString(name) {
			bad("trees: %q is no name; write letters, digits, dots and dashes", name)
		}
		t := c.Trees[name]
		t.check(func(format string, args ...any) { bad("trees: "+name+": "+format, args...) })
		c.Trees[name] = t
		for _, other := range names[:slices.Index(names, name)] {
			if within(t.Path, c.Trees[other].Path) || within(c.Trees[other].Path, t.Path) {
				bad("trees: %s and %s: one path is in the other; give each a directory of its own", other, name)
			}
		}
	}
	return errors.Join(errs...)
}

func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && path != "" && dir != "" && filepath.IsLocal(rel)
}

func (t *Tree) check(bad func(format string, args ...any)) {
	if _, err := parsePlace("upstream", t.Upstream); err != nil {
		bad("%v", err)
	}
	if t.Path == "" {
		bad(`missing "path": write the directory to keep, which must exist`)
	}
	for _, p := range t.Exclude {
		if err := checkPattern(p); err != nil {
			bad("exclude: %v", err)
		}
	}
	for _, d := range []struct {
		key   string
		value *time.Duration
		least time.Duration
		usual time.Duration
	}{
		{"interval", &t.Interval, time.Second, defaultInterval},
		{"list_interval", &t.ListInterval, time.Second, defaultListInterval},
		{"grace", &t.Grace, time.Nanosecond, 0},
		{"timeout", &t.Timeout, time.Second, 0},
	} {
		if *d.value = cmp.Or(*d.value, d.usual); *d.value != 0 && *d.value < d.least {
			bad("%s: %v is too short; write one such as 10m", d.key, *d.value)
		}
	}
	if err := CheckProtocol(t.Protocol); err != nil {
		bad("protocol: %v", err)
	}
	if s := t.Synced; s != (Synced{}) {
		u, err := url.Parse(s.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			bad("synced: url: %q is not that of a checker; write one such as https://mirrors.example.org", s.URL)
		}
		if s.Mirror == "" || s.TokenFile == "" {
			bad("synced: write mirror, its name in mirrors.d, and token_file, which holds what \"checker token NAME\" prints")
		}
	}
}

// CheckProtocol says what is wrong with a version of rsync's protocol; 0 is any.
func CheckProtocol(v int) error {
	if v != 0 && (v < 30 || v > 32) {
		return fmt.Errorf("%d: rsync 3 speaks 30, 31 and 32", v)
	}
	return nil
}
