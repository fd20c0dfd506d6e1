package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"meridian/cmd/internal/daemon"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"signer": func() { daemon.Main(run) },
	})
}

// Each script is one behaviour of the command as a person meets it. Each finds
// packages in $FIXTURES, which are those of package verify.
func TestScripts(t *testing.T) {
	fixtures, err := filepath.Abs("../../signer/verify/testdata")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("FIXTURES", fixtures)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// flip OFFSET FILE changes a bit, counted from the end when the offset
			// is negative.
			"flip": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 2 {
					ts.Fatalf("usage: flip OFFSET FILE")
				}
				at, err := strconv.Atoi(args[0])
				ts.Check(err)
				path := ts.MkAbs(args[1])
				b, err := os.ReadFile(path)
				ts.Check(err)
				if at < 0 {
					at += len(b)
				}
				b[at] ^= 1
				ts.Check(os.WriteFile(path, b, 0o644))
			},
			// mode OCTAL FILE fails unless the file has these permissions.
			"mode": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 2 {
					ts.Fatalf("usage: mode OCTAL FILE")
				}
				info, err := os.Stat(ts.MkAbs(args[1]))
				ts.Check(err)
				if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[0] {
					ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
				}
			},
		},
	})
}
