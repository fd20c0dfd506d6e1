package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meridian/cmd/internal/daemon"
	"meridian/signer/verify"
)

func TestProgress(t *testing.T) {
	files := make([]verify.Artifact, 10)
	for i := range files {
		files[i].Size = 3e6
	}
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		p := newProgress(daemon.Env{Stderr: &screen}, "signing", files)
		p.to = &screen // as if it were a terminal
		for i := range files {
			p.step(files[i].Size)
			time.Sleep(redraw / 2) // no real time passes here
			if i == 6 {
				p.say(&screen, "a line")
			}
		}
		p.end()
		const erase = "\r\x1b[K"
		want := erase + "signing 3 of 10 files, 9 of 30 MB" +
			erase + "signing 5 of 10 files, 15 of 30 MB" +
			erase + "signing 7 of 10 files, 21 of 30 MB" +
			erase + "a line\n" +
			erase + "signing 9 of 10 files, 27 of 30 MB" +
			erase
		if screen.String() != want {
			t.Errorf("on the screen: %q\nwant %q", &screen, want)
		}
	})
}

func TestNoProgressWithoutTerminal(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	synctest.Test(t, func(t *testing.T) {
		p := newProgress(daemon.Env{Stderr: file}, "signing", make([]verify.Artifact, 2))
		time.Sleep(time.Hour)
		p.step(1)
		p.say(file, "a line")
		p.end()
	})
	if b, err := os.ReadFile(file.Name()); err != nil || strings.TrimSpace(string(b)) != "a line" {
		t.Errorf("%q, %v", b, err)
	}
}
