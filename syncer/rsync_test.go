package syncer

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meridian/internal/testworld"
)

// The real rsync prints what is parsed, whatever the names are.
func TestRsyncListsOddNames(t *testing.T) {
	r := &Rsync{Program: testworld.Need(t, "rsync")}
	dir := t.TempDir()
	at := time.Unix(1_700_000_000, 0)
	for _, n := range oddNames {
		write(t, dir, map[string]string{n: "12345"})
	}
	age(t, dir, at)
	if err := os.Symlink("tab\there", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var got []string
	_, err := r.run(t.Context(), nil, func(it item) error {
		switch it.op[1] {
		case 'f':
			if it.size != 5 || !it.modTime.Equal(at) {
				t.Errorf("%q has size %d and time %v, want 5 and %v", it.path, it.size, it.modTime, at)
			}
			got = append(got, it.path)
		case 'L':
			if it.path != "link" || it.target != "tab\there" {
				t.Errorf("link %q → %q, want link → tab", it.path, it.target)
			}
		}
		return nil
	}, "-rlt", "-n", "--", dir+"/", t.TempDir()+"/")
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(oddNames)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
}

func TestRsyncThatFails(t *testing.T) {
	r := &Rsync{Program: testworld.Need(t, "rsync")}
	_, err := r.run(t.Context(), nil, nil, "-r", "--", filepath.Join(t.TempDir(), "none")+"/", t.TempDir()+"/")
	if err == nil || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("a missing source: %v, want rsync's own words", err)
	}
	missing := &Rsync{Program: filepath.Join(t.TempDir(), "rsync")}
	if _, err := missing.run(t.Context(), nil, nil); err == nil || !strings.Contains(err.Error(), "install rsync") {
		t.Errorf("a missing program: %v, want how to get one", err)
	}
}

func TestRsyncEnvironment(t *testing.T) {
	got := environment([]string{"PATH=/bin", "RSYNC_RSH=evil", "RSYNC_PASSWORD=s", "LANG=de_DE", "LC_TIME=x", "TZ=Asia/Tokyo", "HOME=/root"})
	want := []string{"PATH=/bin", "RSYNC_PASSWORD=s", "HOME=/root", "LC_ALL=C", "TZ=UTC"}
	if !slices.Equal(got, want) {
		t.Errorf("environment %q, want %q", got, want)
	}
}

func TestRsyncOutput(t *testing.T) {
	const text = "sending incremental file list\n" +
		"\t>f+++++++++\t1\t2026/01/05-00:00:00\tnew\\#012line\n" +
		"\tcL+++++++++\t9\t2026/01/05-00:00:00\tl -> ../x\n" +
		"\t*deleting  \t0\t1970/01/01-00:00:00\told/\n\n" +
		"Number of regular files transferred: 3\nLiteral data: 7 bytes\nTotal bytes sent: 173\nTotal bytes received: 32\n" +
		"Total bytes sent: -1\nTotal bytes sent: many\n"
	var got []item
	st, err := parseOutput(strings.NewReader(text), func(it item) error { got = append(got, it); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if want := (stats{sent: 173, received: 32, literal: 7, files: 3}); st != want {
		t.Errorf("stats %+v, want %+v", st, want)
	}
	if len(got) != 3 || got[0].path != "new\nline" || got[1].target != "../x" || got[2].op != "*deleting  " || got[2].path != "old" {
		t.Errorf("items %+v", got)
	}
}

func TestRsyncOutputThatIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"a name above the tree":      "\t>f+++++++++\t1\t2026/01/05-00:00:00\t../etc/passwd\n",
		"an escaped one":             "\t>f+++++++++\t1\t2026/01/05-00:00:00\t\\#056\\#056/etc\n",
		"an absolute name":           "\t>f+++++++++\t1\t2026/01/05-00:00:00\t/etc/passwd\n",
		"no name":                    "\t>f+++++++++\t1\t2026/01/05-00:00:00\t\n",
		"a negative size":            "\t>f+++++++++\t-1\t2026/01/05-00:00:00\ta\n",
		"a bad time":                 "\t>f+++++++++\t1\tyesterday\ta\n",
		"a link without target":      "\tcL+++++++++\t1\t2026/01/05-00:00:00\ta\n",
		"letters of a newer version": "\t>f++++++++++++\t1\t2026/01/05-00:00:00\ta\n",
		"too few fields":             "\t>f+++++++++\ta\n",
		"a line without end":         strings.Repeat("x", maxOutputLine+1),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseOutput(strings.NewReader(text), func(item) error { return nil }); err == nil {
				t.Errorf("%q was accepted", text)
			}
		})
	}
}

func TestTailKeepsWholeLines(t *testing.T) {
	w := &tail{max: 10}
	w.Write([]byte("first line\nsecond\x1b\n"))
	if got := w.String(); got != "second?\n" {
		t.Errorf("tail %q, want the last whole line without its escape", got)
	}
}

// No output makes it panic, no name leads out of the tree, and every item prints
// back as the line that is parsed again to the same.
func FuzzRsyncOutput(f *testing.F) {
	f.Add([]byte("\t>f+++++++++\t1\t2026/01/05-00:00:00\tnew\\#012line\nTotal bytes sent: 173\n"))
	f.Add([]byte("\tcL+++++++++\t9\t2026/01/05-00:00:00\tl -> ../x\n"))
	f.Add([]byte("\t.d..t......\t4096\t2026/01/05-00:00:00\t./\n"))
	f.Add([]byte("\t>f+++++++++\t1\t2026/01/05-00:00:00\t\\#134#012 \\#\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		parseOutput(strings.NewReader(string(text)), func(it item) error {
			if it.path != "." && !inside(it.path) {
				t.Errorf("%q leads out of the tree", it.path)
			}
			back, err := parseItem(it.String())
			if it.path == "." {
				return nil
			}
			if err != nil || back != it {
				t.Errorf("%+v prints as %q, which is read as %+v, %v", it, it, back, err)
			}
			return nil
		})
	})
}
