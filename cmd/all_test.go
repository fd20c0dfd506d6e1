// Package cmd_test holds the tree to its rules: who may import whom, what is
// linked into each command, what every package and file has to say of itself. It
// parses the files in the test process, so go test caches no verdict of files
// that have changed since; nothing here looks at what the code does.
package cmd_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite cmd/*/modules.txt from what is linked now")

// mayImport says which packages of this module each package may import. Test
// files may import the test packages too. The commands, which are the only place
// where the parts meet, may import anything and are not listed.
var mayImport = map[string][]string{
	"builder":             {"schema", "builder/repodata", "builder/rpm", "signer/verify", "internal/durable"},
	"builder/repodata":    {"builder/rpm", "internal/durable"},
	"builder/rpm":         {},
	"builder/rpm/rpmtest": {"builder/rpm"},

	"checker":        {"schema", "checker/state", "checker/notify", "checker/atom", "builder/repodata", "internal/fetch", "internal/peer"},
	"checker/atom":   {"checker/state"},
	"checker/notify": {"checker/state"},
	"checker/state":  {"schema", "internal/store"},

	"mirrorlist":             {"schema", "checker/state", "checker/atom", "mirrorlist/geo", "mirrorlist/stats", "mirrorlist/worldmap", "internal/fetch", "internal/peer", "internal/durable", "internal/hugepages"},
	"mirrorlist/geo":         {"internal/durable", "internal/hugepages"},
	"mirrorlist/geo/geotest": {"mirrorlist/geo", "internal/durable"},
	"mirrorlist/stats":       {"schema", "internal/store"},
	"mirrorlist/worldmap":    {"schema"}, // its tests, for the codes of countries

	"schema": {"internal/strictyaml"},

	"signer":        {"signer/verify", "builder/rpm", "internal/strictyaml", "internal/durable"},
	"signer/client": {"builder/rpm"},
	"signer/verify": {"builder/rpm"},

	"syncer": {"schema", "builder/repodata", "signer/verify", "internal/fetch", "internal/peer", "internal/durable"},

	"internal/durable":    {},
	"internal/fetch":      {},
	"internal/hugepages":  {},
	"internal/peer":       {},
	"internal/store":      {"internal/durable"},
	"internal/strictyaml": {},

	"internal/testworld":             {"schema", "builder/rpm", "builder/repodata", "internal/testworld/counterpart"},
	"internal/testworld/counterpart": {},

	"deploy": {},

	"cmd":                         {},
	"cmd/internal/daemon":         {},
	"cmd/internal/daemon/metrics": {},
	"cmd/internal/runtests":       {"cmd/internal/daemon", "internal/testworld/counterpart"},
}

// A library is a third-party module, by a prefix of its import paths.
type library struct {
	path string

	// in are the packages that may import it, besides test files.
	in []string

	// metrics: files named metrics.go may, whatever their package.
	metrics bool
}

// libraries has one entry for each job; what is not here may be imported nowhere.
// With no package it is for tests, and for what is only linked into tests.
var libraries = []library{
	{path: "github.com/gin-gonic/gin", in: []string{"mirrorlist"}},
	{path: "github.com/gaissmai/bart", in: []string{"mirrorlist"}},
	{path: "github.com/fsnotify/fsnotify", in: []string{"mirrorlist"}},
	{path: "golang.org/x/time", in: []string{"mirrorlist"}},
	{path: "github.com/oschwald/maxminddb-golang/v2", in: []string{"mirrorlist/geo"}},
	{path: "github.com/oschwald/geoip2-golang/v2", in: []string{"mirrorlist/geo"}},
	{path: "github.com/zeebo/xxh3", in: []string{"mirrorlist", "mirrorlist/geo", "internal/durable", "builder", "builder/rpm", "signer", "syncer", "cmd/bench"}},
	{path: "github.com/redis/go-redis/v9", in: []string{"internal/store"}},
	{path: "gopkg.in/yaml.v3", in: []string{"internal/strictyaml", "schema", "builder"}},
	{path: "github.com/santhosh-tekuri/jsonschema/v5", in: []string{"schema"}},
	{path: "github.com/prometheus/client_golang", in: []string{"cmd/internal/daemon/metrics"}, metrics: true},
	{path: "github.com/klauspost/compress", in: []string{"builder", "builder/repodata", "builder/rpm", "checker", "syncer"}},
	{path: "github.com/ProtonMail/go-crypto", in: []string{"signer", "signer/verify"}},
	{path: "github.com/sassoftware/go-rpmutils", in: []string{"signer", "signer/verify"}},
	{path: "github.com/ThalesGroup/crypto11", in: []string{"signer"}},
	{path: "golang.org/x/sync", in: []string{"mirrorlist", "checker", "checker/notify", "syncer", "builder", "signer", "cmd/mirrorlist", "cmd/checker", "cmd/syncer", "cmd/builder", "cmd/signer", "cmd/demo", "cmd/bench"}},
	{path: "golang.org/x/sys", in: []string{"internal/durable", "internal/fetch", "internal/testworld", "mirrorlist/geo", "syncer", "cmd/bench"}},

	{path: "github.com/chromedp/chromedp"},
	{path: "github.com/chromedp/cdproto"},
	{path: "github.com/google/rpmpack", in: testPackages},
	{path: "github.com/maxmind/mmdbwriter", in: testPackages},
	{path: "github.com/rogpeppe/go-internal"},
	{path: "golang.org/x/tools"},
}

// testPackages are imported by test files, by what is not packaged, and by each
// other, but never by what runs in production.
var testPackages = []string{"internal/testworld", "internal/testworld/counterpart", "mirrorlist/geo/geotest", "builder/rpm/rpmtest"}

// notPackaged are the commands that nobody installs.
var notPackaged = []string{"cmd/demo", "cmd/bench", "cmd/internal/runtests"}

// neverLinked are modules that a command must not carry, however they come in,
// and why.
var neverLinked = []struct{ command, module, why string }{
	{"signer", "github.com/gin-gonic/gin", "the process that holds private keys has no HTTP framework"},
	{"signer", "github.com/redis/go-redis/v9", "the process that holds private keys talks to no database"},
	{"signer", "github.com/oschwald/maxminddb-golang/v2", "the process that holds private keys needs no places"},
}

func TestTreeKeepsItsRules(t *testing.T) {
	problems, err := check("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

// The rules themselves: a tree that breaks each of them is refused for exactly
// the reasons that it lists.
func TestBadTreeIsRefused(t *testing.T) {
	const file = "testdata/bad.txtar"
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	last := len(archive.Files) - 1
	if archive.Files[last].Name != "want" {
		t.Fatalf("%s ends with %s; end it with the problems, in a file named want", file, archive.Files[last].Name)
	}
	for i := range archive.Files {
		// Spelt out, it would be a problem of this tree too.
		archive.Files[i].Data = bytes.ReplaceAll(archive.Files[i].Data, []byte("WHERE"), []byte("work"))
	}
	want := strings.Split(strings.TrimSpace(string(archive.Files[last].Data)), "\n")
	archive.Files = archive.Files[:last]

	dir := t.TempDir()
	if err := txtar.Write(archive, dir); err != nil {
		t.Fatal(err)
	}
	got, err := check(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range got {
		if !slices.Contains(want, p) {
			t.Errorf("not expected: %s", p)
		}
	}
	for _, p := range want {
		if !slices.Contains(got, p) {
			t.Errorf("not found: %s", p)
		}
	}
}

// commands returns the names of the commands, those of cmd/internal excepted.
func commands(t *testing.T) []string {
	t.Helper()
	mains, err := filepath.Glob("*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range mains {
		names = append(names, filepath.Dir(path))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// The go command is run below, which the test cache does not see. It sees the
// files that this process opens, so every source file of the tree is opened here.
func readSources(t *testing.T) {
	t.Helper()
	if _, err := load(".."); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../go.mod", "../go.sum"} {
		if _, err := os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryCommandAnswersHelp(t *testing.T) {
	readSources(t)
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", bin, "./...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build ./cmd/...: %v\n%s", err, out)
	}
	for _, name := range commands(t) {
		t.Run(name, func(t *testing.T) {
			for _, arg := range []string{"-h", "--help", "help"} {
				var stdout, stderr bytes.Buffer
				cmd := exec.CommandContext(t.Context(), filepath.Join(bin, name), arg)
				cmd.Stdout, cmd.Stderr = &stdout, &stderr
				err := cmd.Run()
				if err != nil || !strings.HasPrefix(stdout.String(), "usage:\n") || stderr.Len() > 0 {
					t.Errorf("%s %s: %v, stdout %q, stderr %q; want status 0 and a page that begins with \"usage:\" on stdout",
						name, arg, err, &stdout, &stderr)
				}
			}
		})
	}
}

// A new module in a command is seen in review: the list is committed.
func TestLinkedModulesAreCommitted(t *testing.T) {
	readSources(t)
	linked := linkedModules(t)
	for _, name := range commands(t) {
		t.Run(name, func(t *testing.T) {
			got, ok := linked[name]
			if !ok {
				t.Fatalf("go list ./cmd/... knows no command in cmd/%s", name)
			}
			file := filepath.Join(name, "modules.txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("cmd/%s lists\n%sand it links\n%sif that is meant, run: go test ./cmd -run TestLinkedModules -update", file, want, got)
			}
			for _, n := range neverLinked {
				if n.command == name && slices.Contains(strings.Fields(got), n.module) {
					t.Errorf("cmd/%s links %s: %s", name, n.module, n.why)
				}
			}
		})
	}
}

// linkedModules returns the third-party modules of each command, one a line, for
// the platform that packages are made for.
func linkedModules(t *testing.T) map[string]string {
	t.Helper()
	// A line for each package: its path, its module, and what a command links.
	const format = "{{.ImportPath}}\t{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}\t{{if eq .Name \"main\"}}{{join .Deps \" \"}}{{end}}"
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", format, "./...")
	list.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	var stderr bytes.Buffer
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list -deps ./cmd/...: %v\n%s", err, &stderr)
	}
	moduleOf := make(map[string]string) // by package
	deps := make(map[string][]string)   // by command
	for line := range strings.Lines(string(out)) {
		field := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(field) != 3 {
			t.Fatalf("go list printed %q; want three fields", line)
		}
		moduleOf[field[0]] = field[1]
		if name, ok := strings.CutPrefix(field[0], module+"/cmd/"); ok && field[2] != "" {
			deps[name] = strings.Fields(field[2])
		}
	}
	linked := make(map[string]string)
	for name, packages := range deps {
		var modules []string
		for _, p := range packages {
			if m := moduleOf[p]; m != "" {
				modules = append(modules, m+"\n")
			}
		}
		slices.Sort(modules)
		linked[name] = strings.Join(slices.Compact(modules), "")
	}
	return linked
}
