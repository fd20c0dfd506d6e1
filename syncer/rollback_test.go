package syncer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeSign is a signature for tests that do not look at it.
func fakeSign(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return "signature of " + sum(b)
}

func signRelease(t testing.TB, dir string) {
	t.Helper()
	for _, repo := range releaseRepos {
		file := filepath.Join(dir, repo, "repodata/repomd.xml")
		write(t, "", map[string]string{file + ".asc": fakeSign(t, file)})
	}
}

// wantContent checks that clients get the packages of generation n by metadata
// with the revision, and that its signature is of it.
func (t0 tier0) wantContent(t testing.TB, n int, revision string, signed bool) {
	t.Helper()
	for _, repo := range releaseRepos {
		got, packages, err := overFiles(t0.dir).metadataOf(repo)
		if err == nil {
			err = overFiles(t0.dir).packages(repo, packages)
		}
		if err != nil || got != revision {
			t.Errorf("clients read revision %s, %v; want %s", got, err, revision)
		}
		for name := range packages {
			if !strings.Contains(name, "-"+string(rune('0'+n))+"-1.") {
				t.Errorf("clients find %s, want packages of generation %d", name, n)
			}
		}
		file := filepath.Join(t0.dir, repo, "repodata/repomd.xml")
		asc, err := os.ReadFile(file + ".asc")
		if signed && string(asc) != fakeSign(t, file) {
			t.Errorf("%s: its signature is %q, %v", file, asc, err)
		}
		if !signed && err == nil {
			t.Errorf("%s has a signature, %q", file, asc)
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

func TestRollback(t *testing.T) {
	eachTier(t, func(t *testing.T, t0 tier0) {
		src := t.TempDir()
		for n := 1; n <= 2; n++ {
			release(t, src, n)
			signRelease(t, src)
			t0.mustPublish(t, Job{}, src)
		}
		job := Job{Dests: []string{t0.dest}, Rsync: t0.job.Rsync}
		sign := func(_ context.Context, file string) error {
			write(t, "", map[string]string{file + ".asc": fakeSign(t, file)})
			return nil
		}
		report, err := Rollback(t.Context(), job, sign)
		if err != nil {
			t.Fatal(err)
		}
		t0.wantContent(t, 1, "1003", true)
		if len(report.Repos) != 2 || report.Repos[0].From != "1002" || report.Repos[0].To != "1003" || report.Dests[0].Generation != 3 {
			t.Errorf("report %+v, want two repositories from 1002 to 1003, in generation 3", report)
		}
		// And back again: what was rolled back is what was there before.
		if _, err := Rollback(t.Context(), job, sign); err != nil {
			t.Fatal(err)
		}
		t0.wantContent(t, 2, "1004", true)
		// A build that does not count on is refused, and the next one is not.
		release(t, src, 3)
		signRelease(t, src)
		if _, err := t0.publish(t, Job{}, src); err == nil || !strings.Contains(err.Error(), "goes back from revision 1004 to 1003") {
			t.Errorf("publishing revision 1003: %v, want it refused", err)
		}
		release(t, src, 5)
		signRelease(t, src)
		t0.mustPublish(t, Job{}, src)
		t0.wantContent(t, 5, "1005", true)
		// Everything of the others goes in the end.
		for n := 6; n <= 7; n++ {
			release(t, src, n)
			t0.mustPublish(t, Job{Grace: time.Nanosecond}, src)
		}
		t0.wantContent(t, 7, "1007", false)
		for name := range snapshot(t, t0.dir) {
			if strings.Contains(name, "-1-1.") || strings.Contains(name, "-2-1.") {
				t.Errorf("%s was never deleted", name)
			}
		}
	})
}

// Rollback keeps what it returns to, whatever the age of that.
func TestRollbackBringsBackWhatWasAboutToGo(t *testing.T) {
	t0, src := directory(t), t.TempDir()
	now := time.Now()
	at := func(d time.Duration) func() time.Time { return func() time.Time { return now.Add(d) } }
	release(t, src, 1)
	t0.mustPublish(t, Job{now: at(0)}, src)
	release(t, src, 2)
	t0.mustPublish(t, Job{now: at(time.Hour)}, src)
	if _, err := Rollback(t.Context(), Job{Dests: []string{t0.dest}, now: at(1000 * time.Hour)}, nil); err != nil {
		t.Fatal(err)
	}
	t0.wantContent(t, 1, "1003", false)
	release(t, src, 4)
	t0.mustPublish(t, Job{now: at(5000 * time.Hour)}, src)
	t0.wantContent(t, 4, "1004", false)
}

func TestRollbackAfterAKill(t *testing.T) {
	for _, step := range []string{"content", "switched", "confirmed", "marked"} {
		t.Run(step, func(t *testing.T) {
			t0, src := directory(t), t.TempDir()
			release(t, src, 1)
			t0.mustPublish(t, Job{}, src)
			release(t, src, 2)
			t0.killedAt(t, src, step)
			if _, err := Rollback(t.Context(), Job{Dests: []string{t0.dest}}, nil); err != nil {
				t.Fatal(err)
			}
			revision := "1003"
			if step == "content" {
				revision = "1002" // nothing was switched, so this is the first above 1001
			}
			t0.wantContent(t, 1, revision, false)
		})
	}
}

func TestRollbackRefuses(t *testing.T) {
	t0, src := directory(t), t.TempDir()
	job := Job{Dests: []string{t0.dest}}
	if _, err := Rollback(t.Context(), job, nil); !errors.Is(err, errNoState) {
		t.Errorf("nothing was published: %v, want %v", err, errNoState)
	}
	release(t, src, 1)
	signRelease(t, src)
	t0.mustPublish(t, Job{}, src)
	if _, err := Rollback(t.Context(), job, nil); err == nil || !strings.Contains(err.Error(), "nothing to go back to") {
		t.Errorf("the first generation: %v, want that there is nothing before", err)
	}
	release(t, src, 2)
	signRelease(t, src)
	t0.mustPublish(t, Job{}, src)
	for _, tt := range []struct {
		name string
		sign Signer
		want string
	}{
		{"nobody signs", nil, "add -sign COMMAND"},
		{"the signer fails", func(context.Context, string) error { return errors.New("no token") }, "sign: no token"},
		{"the signer does nothing", func(context.Context, string) error { return nil }, "left no signature"},
		{"the signer changes the file", func(_ context.Context, file string) error { return os.WriteFile(file, nil, 0o600) }, "changed what it was to sign"},
	} {
		if _, err := Rollback(t.Context(), job, tt.sign); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	t0.wantContent(t, 2, "1002", true)

	other := directory(t)
	release(t, src, 3)
	other.mustPublish(t, Job{}, src)
	release(t, src, 4)
	other.mustPublish(t, Job{}, src)
	both := Job{Dests: []string{t0.dest, other.dest}}
	if _, err := Rollback(t.Context(), both, nil); err == nil || !strings.Contains(err.Error(), "one at a time") {
		t.Errorf("two tier0s of different history: %v, want them apart", err)
	}
	remove(t, other.dir, releaseRepos[0]+"/Packages/p0-3-1.x86_64.rpm")
}
