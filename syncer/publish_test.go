package syncer

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"meridian/builder/repodata"
	"meridian/internal/testworld"
)

// childEnv makes the test binary run one job and kill itself with SIGKILL after
// a step of it.
const childEnv = "SYNCER_TEST_JOB"

type childJob struct {
	Source, Dest string
	Rsync        Rsync
	KillStep     string
	Follow       bool // Source is an upstream
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		var c childJob
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			fmt.Println(err)
			os.Exit(2)
		}
		step := func(step string) {
			if step == c.KillStep {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		}
		var err error
		if c.Follow {
			_, err = Follow(context.Background(), Follower{Upstream: c.Source, Tree: c.Dest, Rsync: c.Rsync, step: step})
		} else {
			_, err = Publish(context.Background(), Job{Source: c.Source, Dests: []string{c.Dest}, Rsync: c.Rsync, step: step})
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// run is the job in another process.
func (c childJob) run(t testing.TB) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	return cmd
}

// killed runs the job in another process that ends with SIGKILL after a step.
func (c childJob) killed(t testing.TB) {
	t.Helper()
	out, err := c.run(t).CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the process that was to be killed after %q ended with %v\n%s", c.KillStep, err, out)
	}
}

// killedAt publishes and is killed.
func (t0 tier0) killedAt(t testing.TB, src, step string) {
	t.Helper()
	childJob{Source: src, Dest: t0.dest, Rsync: t0.job.Rsync, KillStep: step}.killed(t)
}

// makeRepo writes a repository with the given packages, name → content, and
// nothing else in it: each generation is a whole new one, as a compose is.
func makeRepo(t testing.TB, dir string, revision int, packages map[string]string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	var primary bytes.Buffer
	fmt.Fprintf(&primary, `<?xml version="1.0" encoding="UTF-8"?>`+"\n"+`<metadata xmlns="http://linux.duke.edu/metadata/common" packages="%d">`+"\n", len(packages))
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		text := packages[name]
		write(t, dir, map[string]string{"Packages/" + name: text})
		fmt.Fprintf(&primary, `<package type="rpm"><name>x</name><checksum type="sha256" pkgid="YES">%x</checksum>`+
			`<description>a > b, &lt;size package="1"/&gt;<!-- <package> --></description>`+
			`<size package="%d" installed="1" archive="1"/><location href="Packages/%s"/></package>`+"\n",
			sha256.Sum256([]byte(text)), len(text), html.EscapeString(name))
	}
	primary.WriteString("</metadata>\n")
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(primary.Bytes())
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	name := "repodata/" + sum(zipped.Bytes()) + "-primary.xml.gz"
	md := &repodata.Repomd{Revision: strconv.Itoa(revision), Data: []repodata.Data{{
		Type:     "primary",
		Checksum: repodata.Checksum{Type: "sha256", Value: sum(zipped.Bytes())},
		Open:     repodata.Checksum{Type: "sha256", Value: sum(primary.Bytes())},
		Location: name, Timestamp: int64(revision),
		Size: int64(zipped.Len()), OpenSize: int64(primary.Len()),
	}}}
	write(t, dir, map[string]string{name: zipped.String(), "repodata/repomd.xml": string(md.Marshal())})
}

// release is a tree of two repositories in which every package is of generation
// n, of no size that another one has.
func release(t testing.TB, dir string, n int) {
	t.Helper()
	for _, repo := range []string{"9/BaseOS/x86_64/os", "9/AppStream/x86_64/os"} {
		packages := make(map[string]string)
		for i := range 6 {
			name := fmt.Sprintf("p%d-%d-1.x86_64.rpm", i, n)
			packages[name] = strings.Repeat(name, 1+n+i)
		}
		makeRepo(t, filepath.Join(dir, repo), 1000+n, packages)
	}
	write(t, dir, map[string]string{"README": fmt.Sprintf("generation %d\n", n)})
}

var releaseRepos = []string{"9/BaseOS/x86_64/os", "9/AppStream/x86_64/os"}

// A reader reads a repository as a client does. get returns an error for what is
// not there.
type reader struct {
	get func(name string) ([]byte, error)
}

func overFiles(dir string) reader {
	return reader{func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) }}
}

func overHTTP(base string) reader {
	return reader{func(name string) ([]byte, error) {
		resp, err := http.Get(base + "/" + escapePath(name))
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != 200 {
			err = errors.New(resp.Status)
		}
		return b, err
	}}
}

// metadataOf reads repomd.xml and primary: what a client keeps.
func (r reader) metadataOf(repo string) (revision string, packages map[string]string, err error) {
	b, err := r.get(path.Join(repo, "repodata/repomd.xml"))
	if err != nil {
		return "", nil, err
	}
	md, err := repodata.ReadRepomd(bytes.NewReader(b))
	if err != nil {
		return "", nil, err
	}
	packages = make(map[string]string)
	for _, d := range md.Data {
		b, err := r.get(path.Join(repo, d.Location))
		if err != nil {
			return "", nil, fmt.Errorf("revision %s: %w", md.Revision, err)
		}
		if int64(len(b)) != d.Size || sum(b) != d.Checksum.Value {
			return "", nil, fmt.Errorf("revision %s: %s is not what repomd.xml says", md.Revision, d.Location)
		}
		if d.Type != "primary" {
			continue
		}
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return "", nil, err
		}
		var primary struct {
			Packages []struct {
				Checksum string `xml:"checksum"`
				Location struct {
					Href string `xml:"href,attr"`
				} `xml:"location"`
			} `xml:"package"`
		}
		if err := xml.NewDecoder(z).Decode(&primary); err != nil {
			return "", nil, err
		}
		for _, p := range primary.Packages {
			packages[p.Location.Href] = p.Checksum
		}
	}
	return md.Revision, packages, nil
}

// packages reads all that metadata names.
func (r reader) packages(repo string, packages map[string]string) error {
	for href, want := range packages {
		b, err := r.get(path.Join(repo, href))
		if err != nil {
			return err
		}
		if s := sha256.Sum256(b); hex.EncodeToString(s[:]) != want {
			return fmt.Errorf("%s has other content than its metadata says", href)
		}
	}
	return nil
}

func (r reader) read(repo string) (revision string, err error) {
	revision, packages, err := r.metadataOf(repo)
	if err == nil && len(packages) == 0 {
		err = errors.New("no packages")
	}
	if err == nil {
		err = r.packages(repo, packages)
	}
	if err != nil {
		err = fmt.Errorf("%s, revision %s: %w", repo, revision, err)
	}
	return revision, err
}

// tier0 is a destination of each kind that a test publishes to.
type tier0 struct {
	dest string
	dir  string // where it is, really
	job  Job    // with what it takes to reach it
}

var tierKinds = map[string]func(t testing.TB) tier0{
	"directory": func(t testing.TB) tier0 {
		testworld.Need(t, "rsync")
		dir := t.TempDir()
		return tier0{dest: dir, dir: dir}
	},
	"daemon": func(t testing.TB) tier0 { return daemonTier(t, Rsync{}) },
	"daemon of old": func(t testing.TB) tier0 {
		return daemonTier(t, Rsync{Protocol: 30, Checksum: "md5"})
	},
}

// daemonTier starts an rsync daemon with a module that wants a password.
func daemonTier(t testing.TB, r Rsync) tier0 {
	t.Helper()
	testworld.Need(t, "rsync")
	work, module := t.TempDir(), t.TempDir()
	dir := filepath.Join(module, "pub", "a name")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	secrets, password := filepath.Join(work, "secrets"), filepath.Join(work, "password")
	for file, text := range map[string]string{secrets: "publisher:open sesame\n", password: "open sesame\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addr, daemon, err := testworld.StartRsync(t.Context(), work,
		fmt.Sprintf("[tree]\npath = %s\nread only = no\nauth users = publisher\nsecrets file = %s\n", module, secrets))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { daemon.Stop(10 * time.Second) })
	r.PasswordFile = password
	return tier0{dest: "rsync://publisher@" + addr + "/tree/pub/a name", dir: dir, job: Job{Rsync: r}}
}

func (t0 tier0) publish(t testing.TB, job Job, src string) (*Report, error) {
	t.Helper()
	job.Source, job.Dests, job.Rsync = src, []string{t0.dest}, t0.job.Rsync
	return Publish(t.Context(), job)
}

func (t0 tier0) mustPublish(t testing.TB, job Job, src string) DestReport {
	t.Helper()
	report, err := t0.publish(t, job, src)
	if err != nil {
		t.Fatal(err)
	}
	return report.Dests[0]
}

// wantGeneration checks that clients get generation n, whole, and that the tree
// is what its manifest says.
func (t0 tier0) wantGeneration(t testing.TB, n int) {
	t.Helper()
	for _, repo := range releaseRepos {
		if got, err := overFiles(t0.dir).read(repo); err != nil || got != strconv.Itoa(1000+n) {
			t.Errorf("clients read revision %s, %v; want %d", got, err, 1000+n)
		}
	}
	v, err := VerifyTree(t.Context(), t0.dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range v.Findings {
		t.Errorf("the tree is not as its manifest says: %+v", f)
	}
}

// eachTier runs a test against every kind of destination.
func eachTier(t *testing.T, test func(t *testing.T, t0 tier0)) {
	for _, kind := range slices.Sorted(maps.Keys(tierKinds)) {
		t.Run(kind, func(t *testing.T) {
			if kind == "daemon of old" && !strings.HasPrefix(t.Name(), "TestPublish/") && !soak {
				t.Skip("TestPublish shows that it works; make soak runs everything with it")
			}
			t.Parallel() // a daemon makes its clients wait, and needs no processor
			test(t, tierKinds[kind](t))
		})
	}
}

func TestPublish(t *testing.T) {
	eachTier(t, func(t *testing.T, t0 tier0) {
		src := t.TempDir()
		release(t, src, 1)
		if err := os.Symlink("9", filepath.Join(src, "latest")); err != nil {
			t.Fatal(err)
		}
		write(t, src, map[string]string{"not utf-8 \xff": "1", "10/empty/": "", "9/" + builderLock: ""}) // the lock stays behind
		got := t0.mustPublish(t, Job{}, src)
		if got.Generation != 1 || got.Current || got.Added != 19 || got.Deleted != 0 {
			t.Errorf("first publication: %+v, want generation 1 with 19 files and links", got)
		}
		t0.wantGeneration(t, 1)
		if b, err := os.ReadFile(filepath.Join(t0.dir, "not utf-8 \xff")); string(b) != "1" {
			t.Errorf("a name that is not UTF-8: %q, %v", b, err)
		}

		// The same again changes nothing but TIME.
		before := snapshot(t, t0.dir)
		got = t0.mustPublish(t, Job{now: func() time.Time { return time.Now().Add(time.Hour) }}, src)
		if !got.Current || got.Generation != 1 || got.Added+got.Changed != 0 {
			t.Errorf("the same again: %+v, want nothing", got)
		}
		after := snapshot(t, t0.dir)
		if before[TimeFile] == after[TimeFile] {
			t.Error("TIME was not written")
		}
		delete(before, TimeFile)
		delete(after, TimeFile)
		if !maps.Equal(before, after) {
			t.Errorf("publishing the same again changed %v", difference(before, after))
		}

		// The next generation leaves the one before it readable.
		_, old, err := overFiles(t0.dir).metadataOf(releaseRepos[0])
		if err != nil {
			t.Fatal(err)
		}
		release(t, src, 2)
		if err := os.Remove(filepath.Join(src, "not utf-8 \xff")); err != nil {
			t.Fatal(err)
		}
		got = t0.mustPublish(t, Job{}, src)
		if got.Generation != 2 || got.Changed != 3 || got.Retired != 15 {
			t.Errorf("second publication: %+v, want generation 2 with 3 changed files and 15 retired", got)
		}
		t0.wantGeneration(t, 2)
		if err := overFiles(t0.dir).packages(releaseRepos[0], old); err != nil {
			t.Errorf("with metadata of generation 1: %v", err)
		}
		if locks, err := os.ReadDir(filepath.Join(t0.dir, lockDir)); err != nil || len(locks) != 0 {
			t.Errorf("locks left behind: %v, %v", locks, err)
		}
	})
}

// snapshot is every file below dir with its content, and its inode, so that one
// that was replaced by the same shows.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var b []byte
		if d.Type().IsRegular() {
			if b, err = os.ReadFile(p); err != nil {
				return err
			}
		}
		rel, err := filepath.Rel(dir, p)
		files[rel] = fmt.Sprintf("%d %v %s", info.Sys().(*syscall.Stat_t).Ino, info.ModTime(), b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func difference(a, b map[string]string) []string {
	var names []string
	for name := range a {
		if a[name] != b[name] {
			names = append(names, name)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// What nobody can rely on any more goes, and not a moment earlier.
func TestOldGenerationsExpire(t *testing.T) {
	eachTier(t, func(t *testing.T, t0 tier0) {
		src := t.TempDir()
		now := time.Now()
		at := func(d time.Duration) Job {
			return Job{Grace: 60 * time.Hour, now: func() time.Time { return now.Add(d) }}
		}
		var metadata []map[string]string
		for n, when := range []time.Duration{0, time.Hour, 2 * time.Hour, 60*time.Hour + time.Minute, 61*time.Hour + time.Minute, 1000 * time.Hour} {
			release(t, src, n)
			if n == 3 {
				write(t, src, map[string]string{"gone/soon": "x"})
			} else if err := os.RemoveAll(filepath.Join(src, "gone")); err != nil {
				t.Fatal(err)
			}
			t0.mustPublish(t, at(when), src)
			t0.wantGeneration(t, n)
			_, m, err := overFiles(t0.dir).metadataOf(releaseRepos[0])
			if err != nil {
				t.Fatal(err)
			}
			metadata = append(metadata, m)
			// Generation 0 was superseded at 1h and 1 at 2h: both are there at 60h01,
			// 0 is gone at 61h01. At 1000h only two are left.
			oldest := []int{0, 0, 0, 0, 1, 4}[n]
			for i, m := range metadata {
				err := overFiles(t0.dir).packages(releaseRepos[0], m)
				if kept := err == nil; kept != (i >= oldest) {
					t.Errorf("after %v: generation %d is whole: %v (%v), want those from %d on", when, i, kept, err, oldest)
				}
			}
		}
		if _, err := os.Lstat(filepath.Join(t0.dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a directory that left the tree is still there: %v", err)
		}
	})
}

// Killed after any step, readers find whole repositories, and publishing again,
// the same or another tree, mends what there is to mend.
func TestPublisherIsKilled(t *testing.T) {
	for _, kind := range []string{"directory", "daemon"} {
		t.Run(kind, func(t *testing.T) {
			for _, step := range steps {
				for _, next := range []string{"the same", "another"} {
					if kind == "daemon" && !soak && (step != "switched" || next == "the same") {
						continue // a tenth of a second for each of many runs of rsync
					}
					t.Run(step+", then "+next, func(t *testing.T) {
						t.Parallel()
						t0, src := tierKinds[kind](t), t.TempDir()
						release(t, src, 1)
						t0.mustPublish(t, Job{}, src)
						release(t, src, 2)
						t0.killedAt(t, src, step)
						for _, repo := range releaseRepos {
							if _, err := overFiles(t0.dir).read(repo); err != nil {
								t.Errorf("after the kill: %v", err)
							}
						}
						n := 2
						if next == "another" {
							n = 3
							release(t, src, 3)
						}
						got := t0.mustPublish(t, Job{}, src)
						if len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "the process has ended") {
							t.Errorf("notes %q, want one of the lock that was left", got.Notes)
						}
						t0.wantGeneration(t, n)
						// When everything but the newest two has expired, nothing is left of
						// what was begun.
						for i := range 2 {
							release(t, src, n+1+i)
							t0.mustPublish(t, Job{Grace: time.Nanosecond}, src)
						}
						t0.wantGeneration(t, n+2)
						for name := range snapshot(t, t0.dir) {
							if strings.Contains(name, fmt.Sprintf("-%d-1.", 2)) && n+1 > 2 {
								t.Errorf("%s of the killed publication was never deleted", name)
							}
						}
					})
				}
			}
		})
	}
}

// Readers that never pause see whole repositories while generations follow each
// other and publishers are killed.
func TestReadersSeeWholeRepositories(t *testing.T) {
	reads := 300
	if soak {
		reads = 10_000
	}
	t0 := tierKinds["directory"](t)
	src := t.TempDir()
	release(t, src, 0)
	t0.mustPublish(t, Job{}, src)
	r := startReaders(t, t0.dir)
	// Until enough was read, and each step was the last one of some publisher.
	n := 0
	for r.done() < int64(reads) || n < len(steps) {
		n++
		release(t, src, n)
		t0.killedAt(t, src, steps[n%len(steps)])
		t0.mustPublish(t, Job{}, src)
	}
	seen := r.stop()
	if seen < len(steps)/2 {
		t.Errorf("%d of %d generations were seen, want most", seen, n)
	}
	t.Logf("%d reads of %d generations", r.done(), n)
}

// readers read the repositories of a tree over HTTP, again and again.
type readers struct {
	n    atomic.Int64
	stop func() (generations int) // waits for them; may be called again
}

func (r *readers) done() int64 { return r.n.Load() }

// startReaders has two read until the end of the test, if not before. A read that
// does not find a whole repository fails it.
func startReaders(t *testing.T, dir string) *readers {
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	r, end := new(readers), make(chan struct{})
	seen := make([]map[string]bool, 2) // by each
	var wg sync.WaitGroup
	for i := range seen {
		seen[i] = make(map[string]bool)
		wg.Go(func() {
			client := overHTTP(srv.URL)
			for n := i; ; n++ {
				select {
				case <-end:
					return
				default:
				}
				revision, err := client.read(releaseRepos[n%2])
				if err != nil {
					t.Errorf("read %d: %v", r.n.Load(), err)
				}
				seen[i][revision] = true
				r.n.Add(1)
			}
		})
	}
	r.stop = sync.OnceValue(func() int {
		close(end)
		wg.Wait()
		srv.Close()
		maps.Copy(seen[0], seen[1])
		return len(seen[0])
	})
	t.Cleanup(func() { r.stop() })
	return r
}

// A client that read metadata just before it was replaced finds all packages of
// it as long as the grace lasts.
func TestReaderWithOldMetadata(t *testing.T) {
	t0 := tierKinds["directory"](t)
	src := t.TempDir()
	r := overFiles(t0.dir)
	var old []map[string]string
	for n := range 6 {
		release(t, src, n)
		t0.mustPublish(t, Job{}, src)
		for i, packages := range old {
			if err := r.packages(releaseRepos[0], packages); err != nil {
				t.Errorf("at generation %d, with metadata of %d: %v", n, i, err)
			}
		}
		_, packages, err := r.metadataOf(releaseRepos[0])
		if err != nil {
			t.Fatal(err)
		}
		old = append(old, packages)
	}
}
