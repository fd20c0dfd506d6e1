package main

import (
	"os"
	"strings"
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

// Help that scrolls away is not read.
func TestHelpFitsAScreen(t *testing.T) {
	for verb, text := range map[string]string{
		"checker": usage, "run": runUsage, "once": onceUsage, "lint": lintUsage, "probe": probeUsage, "origin": originUsage, "ready": readyUsage, "token": tokenUsage,
	} {
		if n := strings.Count(text, "\n"); n > 40 {
			t.Errorf("the help of %s has %d lines, want at most 40", verb, n)
		}
		for line := range strings.Lines(text) {
			if n := len(line) - 1; n > 85 {
				t.Errorf("the help of %s has a line of %d columns, want at most 85: %s", verb, n, line)
			}
		}
	}
}
