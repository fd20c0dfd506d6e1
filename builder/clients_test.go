package builder_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meridian/builder"
	"meridian/builder/repodata"
	"meridian/internal/testworld"
)

// modules is a stream that hides what it does not have, so a client that reads it
// can be seen to.
const modules = `---
document: modulemd
version: 2
data:
  name: meridian
  stream: "1"
  version: 1
  context: 00000000
  arch: x86_64
  summary: A module
  description: A module
  license: {module: [MIT]}
  artifacts:
    rpms: [meridian-modular-0:1.0-1.x86_64]
...
---
document: modulemd-defaults
version: 1
data:
  module: meridian
  stream: "1"
...
`

const comps = `<?xml version="1.0" encoding="UTF-8"?>
<comps>
  <group>
    <id>meridian-tools</id>
    <name>Meridian tools</name>
    <uservisible>true</uservisible>
    <packagelist><packagereq type="mandatory">meridian-greeter</packagereq></packagelist>
  </group>
</comps>
`

// Lists of several batches are several compressed pieces in one file. Clients have
// to read past the end of the first.
func TestClientsInstallFromARepository(t *testing.T) {
	for _, name := range []string{"rpmbuild", "gpg"} {
		testworld.Need(t, name)
	}
	ctx, dir := t.Context(), testworld.TempDir(t)
	key, err := testworld.NewKey(ctx, filepath.Join(dir, "key.asc"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := key.Close(); err != nil {
			t.Error(err)
		}
	}()
	packages := []testworld.Package{
		{Name: "meridian-greeter", Version: "1.0", Release: "1", Arch: "noarch", Requires: []string{"zz-hello >= 1.2"}},
		{Name: "zz-hello", Version: "1.2", Release: "1", Arch: "x86_64"},
	}
	pool := filepath.Join(dir, "pool")
	if err := os.Mkdir(pool, 0o755); err != nil {
		t.Fatal(err)
	}
	built, err := testworld.BuildPackages(ctx, pool, packages)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.SignPackages(ctx, built...); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	groups, streams := write("comps.xml", comps), write("modules.yaml", modules)

	tree := filepath.Join(dir, "tree")
	for _, compression := range []repodata.Compression{repodata.Gzip, repodata.Zstd} {
		repo := filepath.Join(tree, compression.String())
		if err := os.MkdirAll(filepath.Join(repo, "Packages"), 0o755); err != nil {
			t.Fatal(err)
		}
		builder.Generate(t, filepath.Join(repo, "Packages"), 400, 0)
		for _, p := range built {
			if err := os.Link(p, filepath.Join(repo, "Packages", filepath.Base(p))); err != nil {
				t.Fatal(err)
			}
		}
		report, err := builder.Repo(ctx, builder.RepoOptions{Dir: repo, Compression: compression, Groups: groups, Modules: streams})
		if err != nil {
			t.Fatal(err)
		}
		if report.Packages != 402 || report.Refused != 0 {
			t.Fatalf("%s: %+v", compression, report)
		}
		if err := key.SignRepo(ctx, repo); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(http.FileServer(http.Dir(tree)))
	defer server.Close()

	for name, newClient := range map[string]func(dir, arch, release string) (*testworld.Client, error){
		"dnf": testworld.NewDnf, "zypper": testworld.NewZypper} {
		for _, compression := range []repodata.Compression{repodata.Gzip, repodata.Zstd} {
			t.Run(name+" reads "+compression.String(), func(t *testing.T) {
				testworld.Need(t, name)
				c, err := newClient(testworld.TempDir(t), "x86_64", "9")
				if err != nil {
					t.Fatal(err)
				}
				if err := c.AddRepo(testworld.Source{ID: "t", BaseURL: server.URL + "/" + compression.String(), Key: key.Public}); err != nil {
					t.Fatal(err)
				}
				res, err := c.Run(t.Context(), "install", "meridian-greeter")
				if err != nil || res.Code != 0 {
					t.Fatalf("%s exited %d: %v\n%s", name, res.Code, err, res.Output)
				}
				got, err := c.Installed(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(got)
				if want := []string{"meridian-greeter-1.0-1.noarch", "zz-hello-1.2-1.x86_64"}; !slices.Equal(got, want) {
					t.Errorf("installed %q, want %q", got, want)
				}
				if name != "dnf" {
					return
				}
				for _, ask := range []struct {
					args []string
					want string
				}{
					{[]string{"group", "info", "meridian-tools"}, "meridian-greeter"},
					{[]string{"module", "list"}, "meridian 1 [d]"},
					{[]string{"repoquery", "--whatprovides", "/usr/bin/package-00399-file-012"}, "package-00399"},
				} {
					res, err := c.Run(t.Context(), ask.args...)
					if err != nil || !strings.Contains(strings.Join(strings.Fields(res.Output), " "), ask.want) {
						t.Errorf("dnf %q: %v\n%s\nwant %q", ask.args, err, res.Output, ask.want)
					}
				}
			})
		}
	}
}
