package mirrorlist

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// How files are waited for to come to rest.
const (
	settleEvery = 150 * time.Millisecond
	settleTries = 200 // half a minute, after which it is said that one waits
	startTries  = 60  // a start waits for nine seconds and then takes what there is
)

// unrest says what keeps files from being read after so many looks at them.
func unrest(lock string, looks int) error {
	waited := (time.Duration(looks) * settleEvery).Round(time.Second)
	if lock != "" {
		return fmt.Errorf("%s is there for longer than %s: finish what git does, or delete it", lock, waited)
	}
	return fmt.Errorf("files keep changing for longer than %s: nothing is read until they rest", waited)
}

// dirsOf returns the directories to watch for changes of paths. A directory is
// watched from outside as well: it may be replaced as a whole, or be a link that
// will lead elsewhere.
func dirsOf(paths []string) []string {
	var dirs []string
	for _, path := range paths {
		of := []string{filepath.Dir(path)}
		if fi, err := os.Stat(path); err == nil && fi.IsDir() {
			of = append(of, path)
		}
		for _, dir := range of {
			if !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}
