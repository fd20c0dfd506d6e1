package builder

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// crashMark names the environment variable that makes this process one that kills
// itself while it makes a repository: the step, how often it comes before, the
// directory.
const crashMark = "MERIDIAN_BUILDER_CRASH"

func TestMain(m *testing.M) {
	if mark := os.Getenv(crashMark); mark != "" {
		crash(mark)
	}
	os.Exit(m.Run())
}

func crash(mark string) {
	f := strings.SplitN(mark, " ", 3)
	step, dir, left := f[0], f[2], 0
	fmt.Sscan(f[1], &left)
	_, err := Repo(context.Background(), RepoOptions{Dir: dir, Update: true, Cache: dir + ".cache", Groups: dir + ".comps", Revision: "2",
		step: func(s string) {
			if s == step {
				if left == 0 {
					syscall.Kill(os.Getpid(), syscall.SIGKILL)
				}
				left--
			}
		}})
	fmt.Println(err)
	os.Exit(0)
}

// Killed at any step, the process leaves the old repository or the new one, and
// the next run is not confused by what else it leaves.
func TestAKilledRunLeavesTheOldRepositoryOrTheNew(t *testing.T) {
	steps := []struct {
		step  string
		times int
		is    string // the revision that readers find
	}{
		{"begin", 0, "1"}, {"batch", 0, "1"}, {"batch", 2, "1"}, {"lists", 0, "1"}, {"extra", 0, "1"}, {"signature", 0, "1"},
		{"repomd", 0, "2"}, {"remove", 0, "2"}, {"remove", 2, "2"}, {"clean", 0, "2"},
	}
	for _, at := range steps {
		t.Run(fmt.Sprintf("%s %d", at.step, at.times), func(t *testing.T) {
			r := newRepository(t, 300)
			r.options.Cache = r.dir + ".cache"
			if err := os.WriteFile(r.dir+".comps", []byte("<comps/>"), 0o644); err != nil {
				t.Fatal(err)
			}
			r.make(func(o *RepoOptions) { o.Revision = "1" })
			old := r.text("primary")
			r.write("repodata/repomd.xml.asc", []byte("of revision 1"))
			r.write("Packages/new.rpm", onePackage(t, 5000))

			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", crashMark, at.step, at.times, r.dir))
			out, err := cmd.CombinedOutput()
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
				t.Fatalf("the process was not killed: %v\n%s", err, out)
			}

			all := texts(t, r.dir) // checks every checksum
			if all["revision"] != at.is {
				t.Errorf("revision %s, want %s", all["revision"], at.is)
			}
			if isOld := all["primary"] == old; isOld != (at.is == "1") {
				t.Errorf("revision %s, and the packages are the old ones: %v", all["revision"], isOld)
			}
			if _, err := os.Stat(r.path("repodata", "repomd.xml.asc")); err == nil && at.is == "2" {
				t.Error("a signature of revision 1 is beside revision 2")
			}

			// The next change removes whatever was left.
			r.write("Packages/newer.rpm", onePackage(t, 5001))
			r.make(func(o *RepoOptions) { o.Update, o.Groups = true, r.dir+".comps" })
			r.compare()
			left, err := filepath.Glob(r.path("repodata", ".*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %q, %v", left, err)
			}
			files, err := os.ReadDir(r.path("repodata"))
			if err != nil || len(files) != 6 {
				t.Errorf("%d files, %v; want three lists, two of groups and repomd.xml", len(files), err)
			}
		})
	}
}
