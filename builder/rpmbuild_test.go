package builder

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"meridian/internal/testworld"
)

// spec is a package with one of everything that a spec file can say. %s is a
// program of this machine, so that rpmbuild finds real dependencies on libc.
const spec = `Name: everything
Epoch: 3
Version: 1.0~rc1^git1
Release: 2.el9
Summary: Zażółć <gęślą> & "jaźń"
Group: Tools/Odd
License: MIT AND (Apache-2.0 OR GPL-2.0-only)
URL: https://www.example.org/?a=b&c="d"
Vendor: Meridian
Packager: Meridian <packages@example.org>
Source0: source.txt
BuildRequires: (build-a or build-b)
Requires: /usr/bin/everything, /etc/everything/config, /usr/bin/env, /bin/other
Requires: everything-sub = %%{epoch}:%%{version}-%%{release}
Requires: foo >= 1:2-3, foo < 4, bar
Requires(pre): before
Requires(post): after
Requires(preun): before-removal
Requires(postun): after-removal
Requires(pretrans): before-all
Requires(posttrans): after-all
Requires(verify): verifying
Requires: (rich if poor else middle)
Requires: ((a and b) or c >= 2)
Provides: bär = 1.2, plain, everything(virtual) = 2:1-1
Conflicts: enemy < 2
Obsoletes: ancestor <= 2-1
Recommends: recommended, (x if y)
Suggests: suggested > 3
Supplements: (supplemented and langpacks-de)
Enhances: enhanced

%%description
Line one & <two>

   indented "three"
%%package sub
Summary: A part
BuildArch: noarch
%%description sub
.
%%install
mkdir -p %%{buildroot}/usr/bin %%{buildroot}/etc/everything %%{buildroot}/usr/lib "%%{buildroot}/usr/share/every thing" %%{buildroot}/usr/share/everything
cp %s %%{buildroot}/usr/bin/everything
chmod 755 %%{buildroot}/usr/bin/everything
echo > %%{buildroot}/etc/everything/config
echo > "%%{buildroot}/usr/share/every thing/ä & <b>"
for i in $(seq 2000); do : > %%{buildroot}/usr/share/everything/$i; done
ln -s ../bin/everything %%{buildroot}/usr/lib/sendmail
ln %%{buildroot}/usr/bin/everything %%{buildroot}/usr/bin/hardlink
%%pre
true
%%post -p <lua>
print("x")
%%triggerin -- other
true
%%files
/usr/bin/everything
/usr/bin/hardlink
/usr/lib/sendmail
%%dir /etc/everything
%%config(noreplace) /etc/everything/config
%%ghost /etc/everything/ghost
%%ghost %%dir /var/log/everything
"/usr/share/every thing"
%%files sub
%%doc /usr/share/everything
%%changelog
%s`

func TestPackagesOfRpmbuildAreListedAsByTheOracle(t *testing.T) {
	rpmbuild := testworld.Need(t, "rpmbuild")
	dir := t.TempDir()
	var changelog strings.Builder
	for day := 28; day > 8; day-- {
		for range 1 + day%2 {
			fmt.Fprintf(&changelog, "* %s Jan %02d 2026 Développeur <d@example.org> - 1.0-%d\n- entry & <%d>\n- second line\n\n",
				[]string{"Wed", "Thu", "Fri", "Sat", "Sun", "Mon", "Tue"}[day%7], day, day, day)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "everything.spec"), fmt.Appendf(nil, spec, rpmbuild, &changelog), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "source.txt"), []byte("source\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := newRepository(t, 0)
	for i, payload := range []string{"w6.gzdio", "w3.zstdio"} {
		cmd := exec.Command(rpmbuild, "-ba", "--quiet", "--nodeps", "--define", "_topdir "+filepath.Join(dir, payload), "--define", "_sourcedir "+dir,
			"--define", "_rpmdir "+r.path("Packages", payload), "--define", "_srcrpmdir "+r.path("Source", payload),
			"--define", "_binary_payload "+payload, "--define", "_source_payload "+payload,
			"--define", "debug_package %{nil}", filepath.Join(dir, "everything.spec"))
		cmd.Env = append(os.Environ(), "LC_ALL=C", fmt.Sprintf("SOURCE_DATE_EPOCH=%d", 1767571200+i))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("rpmbuild: %v\n%s", err, out)
		}
	}
	found := 0
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".rpm") {
			found++
		}
		return err
	})
	if err != nil || found != 6 {
		t.Fatalf("%d packages, %v", found, err)
	}
	if report := r.make(nil); report.Packages != found {
		t.Errorf("%+v, refused %q", report, r.refused)
	}
	r.compare()
	if text := r.text("primary"); !strings.Contains(text, `name="libc.so.6(GLIBC_`) {
		t.Error("no package requires a version of libc, so that rule was not tried")
	}
}
