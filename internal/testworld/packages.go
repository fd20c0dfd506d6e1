package testworld

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

// A Package is an RPM without purpose: one small text file that names it.
type Package struct {
	Name, Version, Release string

	// Arch is "noarch" or an RPM architecture; it need not be this machine's,
	// because nothing is compiled.
	Arch string

	// Requires as in a spec file, one requirement each.
	Requires []string
}

// NEVRA is the name that dnf and rpm print: name-version-release.arch. The epoch
// is always 0 and left out.
func (p Package) NEVRA() string {
	return p.Name + "-" + p.Version + "-" + p.Release + "." + p.Arch
}

// File is the base name of the package's file.
func (p Package) File() string { return p.NEVRA() + ".rpm" }

// AutoReq is off because rpm on Debian, where the tests also run, cannot satisfy
// what it would find: no package there provides /bin/sh or libc to rpm.
var spec = template.Must(template.New("spec").Parse(`Name: {{.Name}}
Version: {{.Version}}
Release: {{.Release}}
Summary: A sample package of Meridian's test world
License: Apache-2.0
URL: https://www.example.org/{{.Name}}
AutoReq: no
{{- range .Requires}}
Requires: {{.}}
{{- end}}
{{- if eq .Arch "noarch"}}
BuildArch: noarch
{{- end}}

%description
One text file that says which package it came from.

%install
mkdir -p %{buildroot}/usr/share/{{.Name}}
echo "{{.NEVRA}}" > %{buildroot}/usr/share/{{.Name}}/version

%files
/usr/share/{{.Name}}

%changelog
* Mon Jan 05 2026 Meridian <packages@example.org> - {{.Version}}-{{.Release}}
- Sample package
`))

// BuildPackages makes each package with rpmbuild and leaves it, unsigned, in
// the existing directory pool under its File name. The same package always has
// the same bytes. Packages that pool already has, signed perhaps, stay as they
// are; the paths of the new ones are returned.
func BuildPackages(ctx context.Context, pool string, pkgs []Package) (built []string, err error) {
	work, err := os.MkdirTemp("", "meridian-rpmbuild-")
	if err != nil {
		return nil, fmt.Errorf("build packages: %w", err)
	}
	defer os.RemoveAll(work)

	// One run of rpmbuild takes many spec files but one target.
	var targets []string
	specs := make(map[string][]string)
	for i, p := range pkgs {
		rpm := filepath.Join(pool, p.File())
		if _, err := os.Stat(rpm); err == nil {
			continue
		}
		built = append(built, rpm)
		var b bytes.Buffer
		if err := spec.Execute(&b, p); err != nil {
			return nil, fmt.Errorf("build %s: %w", p.NEVRA(), err)
		}
		file := filepath.Join(work, fmt.Sprintf("%d-%s.spec", i, p.Name))
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			return nil, fmt.Errorf("build %s: %w", p.NEVRA(), err)
		}
		if specs[p.Arch] == nil {
			targets = append(targets, p.Arch)
		}
		specs[p.Arch] = append(specs[p.Arch], file)
	}
	for _, arch := range targets {
		args := []string{"-bb", "--quiet", "--target", arch + "-linux",
			"--define", "_topdir " + work,
			"--define", "_rpmdir " + pool,
			"--define", "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
			"--define", "_buildhost localhost",
			"--define", "use_source_date_epoch_as_buildtime 1",
			"--define", "clamp_mtime_to_source_date_epoch 1",
			// Nothing here has debug information to split off.
			"--define", "debug_package %{nil}",
		}
		cmd, err := command(ctx, work, "rpmbuild", append(args, specs[arch]...)...)
		if err != nil {
			return nil, err
		}
		cmd.Env = append(cmd.Env, "SOURCE_DATE_EPOCH=1767571200") // the day of the changelog entry
		if _, err := output(cmd); err != nil {
			return nil, fmt.Errorf("build packages for %s: %w", arch, err)
		}
	}
	return built, nil
}
