package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"meridian/cmd/internal/daemon"
	"meridian/internal/strictyaml"
	"meridian/internal/testworld"
	"meridian/mirrorlist"
)

// suite are the tests, and what has to be put away after them.
type suite struct{ *testing.M }

func (s suite) Run() int {
	defer func() { os.RemoveAll(built.dir) }()
	return s.M.Run()
}

func TestMain(m *testing.M) {
	testscript.Main(suite{m}, map[string]func(){
		"mirrorlist": func() { daemon.Main(run) },
	})
}

// geoData are the public test databases.
const geoData = "../../../shared/testdata/geo"

// Each script is one behaviour of the command as a person meets it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			data, err := filepath.Abs(geoData)
			env.Setenv("GEODATA", data)
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, ".cache"))
			return err
		},
		Condition: func(cond string) (bool, error) {
			if cond != "geodata" {
				return false, os.ErrInvalid
			}
			_, err := os.Stat(geoData)
			return err == nil, nil
		},
	})
}

// The example is what people begin with: it has every setting, it is right as it
// is, and it is right with every setting in use.
func TestExampleSettings(t *testing.T) {
	text, err := os.ReadFile("example.yml")
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`(?m)^#( *[a-z_]+:)`).ReplaceAllString(string(text), "$1")
	for name, text := range map[string]string{"as it is": string(text), "with every setting": all} {
		t.Run(name, func(t *testing.T) {
			var cfg mirrorlist.Config
			if err := strictyaml.Unmarshal("example.yml", []byte(text), &cfg); err != nil {
				t.Fatal(err)
			}
			if name == "as it is" {
				return
			}
			v := reflect.ValueOf(cfg)
			for i := range v.NumField() {
				if v.Field(i).IsZero() {
					t.Errorf("the setting %q is missing", v.Type().Field(i).Tag.Get("yaml"))
				}
			}
		})
	}
	// The server starts with it in the source tree, as the README says.
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	var out, errs strings.Builder
	err = run(t.Context(), daemon.Env{Args: []string{"serve", "-config", "example.yml", "-check"}, Stdout: &out, Stderr: &errs})
	if err != nil {
		t.Errorf("serve -check: %v\n%s%s", err, out.String(), errs.String())
	}
}

func TestEverySettingIsDocumented(t *testing.T) {
	testworld.ReadManual(t, "The mirrorlist server").HasSettings("key", reflect.TypeFor[mirrorlist.Config]())
}
