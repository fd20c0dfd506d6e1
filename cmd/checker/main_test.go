package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"meridian/cmd/internal/daemon"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"checker": func() { daemon.Main(run) },
	})
}

// Each script is one behaviour of the command as a person meets it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
	})
}
