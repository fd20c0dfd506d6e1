package testworld

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A sample is one signed repository per arch in two generations, made once for
// all tests of this package.
type sample struct {
	dir        string
	key        *Key
	repos      []Repository
	old, fresh string // roots of mirrors at generation 1 and 2
}

var theSample struct {
	sync.Once
	*sample
	err error
}

func TestMain(m *testing.M) {
	if mark := os.Getenv(orphanMark); mark != "" {
		startAndWait(mark)
	}
	code := m.Run()
	if s := theSample.sample; s != nil {
		err := os.RemoveAll(s.dir)
		if s.key != nil {
			err = errors.Join(err, s.key.Close())
		}
		if err != nil {
			println(err.Error())
			code = 1
		}
	}
	os.Exit(code)
}

func needSample(t *testing.T) *sample {
	t.Helper()
	for _, name := range []string{"rpmbuild", "createrepo_c", "gpg"} {
		Need(t, name)
	}
	theSample.Do(func() { theSample.sample, theSample.err = makeSample() })
	if theSample.err != nil {
		t.Fatal(theSample.err)
	}
	return theSample.sample
}

func makeSample() (*sample, error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "testworld")
	if err != nil {
		return nil, err
	}
	s := &sample{dir: dir, old: filepath.Join(dir, "old"), fresh: filepath.Join(dir, "fresh")}
	if s.key, err = NewKey(ctx, filepath.Join(dir, "key.asc")); err != nil {
		return s, err
	}
	for _, r := range Repositories(SampleNetwork("http://vault.example.org/")) {
		if r.Version == "9.8" && r.Repo == "baseos" {
			s.repos = append(s.repos, r)
		}
	}
	for generation, root := range []string{s.old, s.fresh} {
		if err := Publish(ctx, root, filepath.Join(dir, "pool"), s.key, generation+1, s.repos); err != nil {
			return s, err
		}
	}
	return s, nil
}

func TestPackagesAreTheSameBytesWheneverTheyAreBuilt(t *testing.T) {
	Need(t, "rpmbuild")
	p := Package{Name: "meridian-same", Version: "1.0", Release: "1", Arch: "aarch64", Requires: []string{"nothing-else"}}
	var built [2]string
	for i := range built {
		pool := t.TempDir()
		if _, err := BuildPackages(t.Context(), pool, []Package{p}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(pool, p.File()))
		if err != nil {
			t.Fatal(err)
		}
		built[i] = string(b)
	}
	if built[0] != built[1] {
		t.Error("two builds of one package differ")
	}
}

func TestEveryRepositoryOfTheSampleIsSignedTwice(t *testing.T) {
	s := needSample(t)
	Need(t, "rpm")
	db := t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		cmd, err := command(t.Context(), db, name, args...)
		if err != nil {
			t.Fatal(err)
		}
		out, err := output(cmd)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	run("rpmkeys", "--dbpath", db, "--import", s.key.Public)
	for _, r := range s.repos {
		dir := filepath.Join(s.fresh, r.Dir())
		files, err := filepath.Glob(filepath.Join(dir, "Packages", "*.rpm"))
		if err != nil {
			t.Fatal(err)
		}
		if want := len(r.Packages(2)); len(files) != want {
			t.Errorf("%s has %d packages, want %d", r.Path, len(files), want)
		}
		for line := range strings.Lines(run("rpmkeys", append([]string{"--dbpath", db, "--checksig"}, files...)...)) {
			if !strings.Contains(line, "signatures OK") {
				t.Errorf("rpmkeys: %s", line)
			}
		}
		home := t.TempDir()
		t.Cleanup(func() { stopAgent(context.Background(), home) })
		run("gpg", "--homedir", home, "--no-autostart", "--batch", "--quiet", "--import", s.key.Public)
		run("gpg", "--homedir", home, "--no-autostart", "--batch", "--verify",
			filepath.Join(dir, "repodata", "repomd.xml.asc"), filepath.Join(dir, "repodata", "repomd.xml"))
	}
}

func TestAKeyLeavesNoAgentBehind(t *testing.T) {
	Need(t, "gpg")
	k, err := NewKey(t.Context(), filepath.Join(t.TempDir(), "key.asc"))
	if err != nil {
		t.Fatal(err)
	}
	if len(processesOf(t, k.home)) == 0 {
		t.Fatal("no process names the key's home: this test looks in the wrong place")
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	waitGone(t, k.home)
	if _, err := os.Stat(k.home); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the private key is still there: %v", err)
	}
}

// processesOf lists the command lines of the living processes that mention word.
func processesOf(t *testing.T, word string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("no /proc to see processes in")
	}
	var found []string
	for _, file := range files {
		// A process may end while we look; a zombie has an empty line.
		line, _ := os.ReadFile(file)
		if strings.Contains(string(line), word) {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// waitGone waits until no process mentions word any more.
func waitGone(t *testing.T, word string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		left := processesOf(t, word)
		if len(left) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("still running: %q", left)
		}
	}
}

func TestClientsInstallFromAMirrorOfEveryArch(t *testing.T) {
	s := needSample(t)
	m := startMirror(t, "127.0.0.1:0", s.fresh)
	list := serveText(t, m.URL()+"meridian/9.8/BaseOS/$basearch/os/")
	for name, newClient := range map[string]func(dir, arch, release string) (*Client, error){"dnf": NewDnf, "zypper": NewZypper} {
		for _, arch := range []string{"x86_64", "aarch64"} {
			t.Run(name+" for "+arch, func(t *testing.T) {
				Need(t, name)
				c, err := newClient(TempDir(t), arch, "9")
				if err != nil {
					t.Fatal(err)
				}
				if err := c.AddRepo(Source{ID: "t", Mirrorlist: list, Key: s.key.Public}); err != nil {
					t.Fatal(err)
				}
				m.Forget()
				res, err := c.Run(t.Context(), "install", "meridian-greeter")
				if err != nil || res.Code != 0 {
					t.Fatalf("%s exited %d: %v\n%s", name, res.Code, err, res.Output)
				}
				got, err := c.Installed(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				want := []string{"meridian-greeter-1.0-1.el9_8.noarch", "meridian-hello-1.2-1.el9_8." + arch}
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Errorf("installed %q, want %q", got, want)
				}
				if !slices.ContainsFunc(m.Hits(), func(h Hit) bool {
					return strings.HasSuffix(h.Path, "/meridian-hello-1.2-1.el9_8."+arch+".rpm")
				}) {
					t.Errorf("the mirror was not asked for the package: %v", m.Hits())
				}
				waitGone(t, c.dir)
			})
		}
	}
}

func TestAClientRefusesAPackageThatIsNotSigned(t *testing.T) {
	s := needSample(t)
	Need(t, "dnf")
	tree, pool := t.TempDir(), t.TempDir()
	r := s.repos[0]
	if _, err := BuildPackages(t.Context(), pool, r.Packages(1)); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(tree, r.Dir())
	if err := Compose(t.Context(), dir, pool, 1, r.Packages(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.key.SignRepo(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	m := startMirror(t, "127.0.0.1:0", tree)
	c, err := NewDnf(TempDir(t), string(r.Arch), "9")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AddRepo(Source{ID: "t", BaseURL: m.URL() + r.Dir(), Key: s.key.Public}); err != nil {
		t.Fatal(err)
	}
	res, err := c.Run(t.Context(), "install", "meridian-hello")
	if err != nil {
		t.Fatal(err)
	}
	if res.Code == 0 || !strings.Contains(res.Output, "not signed") {
		t.Errorf("dnf exited %d:\n%s", res.Code, res.Output)
	}
	if got, err := c.Installed(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("installed %q, %v", got, err)
	}
}

func TestAnOldTreeHasTheOldPackagesOnly(t *testing.T) {
	s := needSample(t)
	m := startMirror(t, "127.0.0.1:0", s.fresh)
	url := m.URL() + s.repos[0].Dir() + "/Packages/meridian-hello-1.2-1.el9_8.x86_64.rpm"
	if code, _, _ := get(t, url); code != http.StatusOK {
		t.Errorf("fresh mirror: %d", code)
	}
	m.Serve(s.old)
	if code, _, _ := get(t, url); code != http.StatusNotFound {
		t.Errorf("stale mirror: %d", code)
	}
}

func TestFaultsAreWhatTheirNamesSay(t *testing.T) {
	dir := t.TempDir()
	body := strings.Repeat("0123456789", 1000)
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
	m := startMirror(t, "127.0.0.3:0", dir)
	tests := []struct {
		fault Fault
		code  int
		check func(got string, err error) bool
	}{
		{Healthy, 200, func(got string, err error) bool { return err == nil && got == body }},
		{NotFound, 404, func(got string, err error) bool { return err == nil }},
		{ServerError, 500, func(got string, err error) bool { return err == nil }},
		{HTML, 200, func(got string, err error) bool { return err == nil && strings.HasPrefix(got, "<!DOCTYPE html>") }},
		{Truncated, 200, func(got string, err error) bool {
			return errors.Is(err, io.ErrUnexpectedEOF) && got == body[:len(body)/2]
		}},
		{Down, 0, func(got string, err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }},
		{Healthy, 200, func(got string, err error) bool { return err == nil && got == body }},
	}
	for _, tt := range tests {
		t.Run(tt.fault.String(), func(t *testing.T) {
			if err := m.Break(tt.fault); err != nil {
				t.Fatal(err)
			}
			if code, got, err := get(t, m.URL()+"file"); code != tt.code || !tt.check(got, err) {
				t.Errorf("status %d, %d bytes, %v", code, len(got), err)
			}
		})
	}
	t.Run("slow", func(t *testing.T) {
		if err := m.Break(Slow); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.URL()+"file", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		first := make([]byte, 100)
		if n, err := resp.Body.Read(first); err != nil || string(first[:n]) != body[:20] {
			t.Errorf("first read: %q, %v; want the first 20 bytes alone", first[:n], err)
		}
	})
	if want := 7; len(m.Hits()) != want { // nothing is heard while it is down
		t.Errorf("%d hits, want %d: %v", len(m.Hits()), want, m.Hits())
	}
}

// As web servers are set up: what publishers and followers keep beside a tree is
// neither served nor listed.
func TestAMirrorHidesNamesThatBeginWithADot(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".meridian/state.json", "sub/.meridian/state.json", "sub/shown"} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("x"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	m, err := StartMirror("127.0.0.1:0", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for path, want := range map[string]int{"": 200, "sub/": 200, "sub/shown": 200, ".meridian/state.json": 404, "sub/.meridian/": 404} {
		resp, err := http.Get(m.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != want || strings.Contains(string(body), ".meridian") {
			t.Errorf("/%s: %s, %q, %v; want %d and no word of .meridian", path, resp.Status, body, err, want)
		}
	}
}

func TestAMirrorListensOnIPv6Loopback(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := StartMirror("[::1]:0", dir)
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Skipf("no IPv6 on loopback: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if code, got, err := get(t, m.URL()+"file"); code != 200 || got != "x" || err != nil {
		t.Errorf("%s: %d %q %v", m.URL(), code, got, err)
	}
}

func TestAMirrorRefusesToListenWhereOthersCanReachIt(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "localhost:0"} {
		if m, err := StartMirror(addr, t.TempDir()); err == nil {
			m.Close()
			t.Errorf("StartMirror(%q) listens on %s", addr, m.Addr())
		}
	}
}

func TestTempDirOfSomebodyWhoGoesOnWriting(t *testing.T) {
	var writers sync.WaitGroup
	var dir string
	t.Run("ends first", func(t *testing.T) {
		dir = TempDir(t)
		begun := make(chan struct{})
		for w := range 4 {
			writers.Go(func() {
				for i := range 2000 { // until nothing can be put there, or long enough
					if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(w, " ", i)), nil, 0o600); err != nil {
						return
					}
					if w == 0 && i == 100 {
						close(begun)
					}
				}
			})
		}
		<-begun
	})
	writers.Wait()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

func TestAChild(t *testing.T) {
	t.Run("ends with all of its own children when it is stopped", func(t *testing.T) {
		mark := fmt.Sprintf("77001.%d", os.Getpid()) // a number of seconds that nobody else sleeps
		c := startShell(t, "trap 'exit 3' TERM; sleep "+mark+" & echo ready; wait")
		err := c.Stop(5 * time.Minute)
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 3 {
			t.Errorf("Stop: %v, want exit status 3", err)
		}
		waitGone(t, mark)
	})
	t.Run("that does not listen is killed", func(t *testing.T) {
		mark := fmt.Sprintf("77002.%d", os.Getpid())
		c := startShell(t, "trap '' TERM; echo ready; sleep "+mark)
		if err := c.Stop(0); err == nil {
			t.Error("Stop: no error from a killed child")
		}
		waitGone(t, mark)
	})
	t.Run("that ends early is not waited for", func(t *testing.T) {
		c := startShell(t, "echo ready; exit 4")
		err := c.Ready(t.Context(), "http://127.0.0.1:1/readyz")
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 4 {
			t.Errorf("Ready: %v, want exit status 4", err)
		}
	})
	t.Run("is ready when its URL says so", func(t *testing.T) {
		m := startMirror(t, "127.0.0.1:0", t.TempDir())
		if err := m.Break(ServerError); err != nil {
			t.Fatal(err)
		}
		c := startShell(t, "echo ready; sleep 77003.5")
		ready := make(chan error)
		go func() { ready <- c.Ready(t.Context(), m.URL()) }()
		for tick := time.NewTicker(time.Millisecond); len(m.Hits()) < 2; { // refused once at least
			select {
			case err := <-ready:
				t.Fatalf("Ready: %v, while the answer is 500", err)
			case <-tick.C:
			}
		}
		if err := m.Break(Healthy); err != nil {
			t.Fatal(err)
		}
		if err := <-ready; err != nil {
			t.Error(err)
		}
	})
}

// orphanMark makes this test binary start a child and a key, say so, and wait to
// be killed.
const orphanMark = "TESTWORLD_ORPHAN"

func startAndWait(mark string) {
	c, err := Start(exec.Command("/bin/sh", "-c", "exec sleep "+mark))
	if err == nil && Programs("gpg") == nil {
		var k *Key
		k, err = NewKey(context.Background(), filepath.Join(os.TempDir(), "orphan.asc"))
		if err == nil {
			print(k.home)
		}
	}
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
	println()
	<-c.Done()
	os.Exit(1)
}

func TestNothingOutlivesAParentThatIsKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux promises this")
	}
	mark := "77004.5"
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), orphanMark+"="+mark, "TMPDIR="+TempDir(t))
	stderr, err := parent.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	home, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil {
		t.Fatalf("the parent said %q, %v", home, err)
	}
	marks := []string{mark}
	if home = strings.TrimSpace(home); home != "" {
		marks = append(marks, home)
	}
	for _, mark := range marks {
		if len(processesOf(t, mark)) == 0 {
			t.Fatalf("nothing runs for %s: this test looks in the wrong place", mark)
		}
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	parent.Wait() // killed, as it was meant to be
	for _, mark := range marks {
		waitGone(t, mark)
	}
}

// startShell returns once the script has said "ready".
func startShell(t *testing.T, script string) *Child {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Stdout = w
	c, err := Start(cmd)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop(0) })
	line := make([]byte, len("ready"))
	if _, err := io.ReadFull(r, line); err != nil || string(line) != "ready" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	return c
}

func TestMissingProgramsAreAllNamedWithTheirPackages(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := Programs("createrepo_c", "rpmsign", "no-such-program")
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"createrepo_c is not installed: run make setup, or install the package createrepo-c (Debian)",
		"rpmsign is not installed: run make setup, or install the package rpm (Debian) or rpm-sign (EL)",
		"no-such-program is not among the counterparts",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

func TestRepositoriesFollowTheNetworkFile(t *testing.T) {
	var got []string
	for _, r := range Repositories(SampleNetwork("http://vault.example.org/")) {
		got = append(got, r.Path)
	}
	for path, want := range map[string]bool{
		"8.10/PowerTools/aarch64/os":         true,
		"9.8/PowerTools/aarch64/os":          false, // not in that version
		"9.8/RT/x86_64/os":                   true,
		"9.8/RT/aarch64/os":                  false, // not for that arch
		"9.8/BaseOS/x86_64_v2/os":            false,
		"10.2/BaseOS/x86_64_v2/os":           true,
		"10-kitten/extras-common/aarch64/os": true,
		"9/BaseOS/x86_64/os":                 false, // an alias has no directory
		"9.7/BaseOS/x86_64/os":               false, // vault
		"9.8/BaseOS/Source":                  false,
	} {
		if slices.Contains(got, path) != want {
			t.Errorf("has %s: %v, want %v", path, !want, want)
		}
	}
}

func startMirror(t *testing.T, addr, dir string) *Mirror {
	t.Helper()
	m, err := StartMirror(addr, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// serveText serves one text as a mirrorlist and returns its URL.
func serveText(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "list"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return startMirror(t, "127.0.0.1:0", dir).URL() + "list"
}

// get returns what was read even when the answer broke off.
func get(t *testing.T, url string) (code int, body string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func TestAFreeAddrIsNobodyElses(t *testing.T) {
	mine := make(map[string]bool)
	for range 200 {
		addr, err := FreeAddr("127.0.0.3")
		if err != nil {
			t.Fatal(err)
		}
		if mine[addr] {
			t.Fatalf("%s is handed out twice", addr)
		}
		mine[addr] = true
	}
	listen := func(addr string) net.Listener {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		return ln
	}
	// 400 of some 7,000 that the kernel tries first: without the reservation one of
	// the 200 is among them all but surely.
	for range 400 {
		if ln := listen("127.0.0.3:0"); mine[ln.Addr().String()] {
			t.Fatalf("any port is %s, which is taken", ln.Addr())
		}
	}
	for addr := range mine {
		listen(addr).Close()
		listen(addr) // and again, as after a restart
	}
	for _, host := range []string{"192.0.2.1", "0.0.0.0", "::1", "localhost", ""} {
		if addr, err := FreeAddr(host); err == nil {
			t.Errorf("FreeAddr(%q) is %s", host, addr)
		}
	}
}
