package checker

import (
	"path/filepath"
	"strings"
)

// Rooted returns s with relative paths below dir, the directory of the file that
// they were read from.
func (s Settings) Rooted(dir string) Settings {
	for _, p := range []*string{&s.Network, &s.Overrides, &s.SecretFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	if path, ok := strings.CutPrefix(s.State, "dir:"); ok && path != "" && !filepath.IsAbs(path) {
		s.State = "dir:" + filepath.Join(dir, path)
	}
	s.Origin = s.Origin.Rooted(dir)
	return s
}
