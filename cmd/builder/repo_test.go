package main

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"meridian/builder"
)

func TestProgress(t *testing.T) {
	steps := func(p *progress) {
		p.done(64, 200)
		p.refused("a\nb.rpm", errors.New("no package"))
		p.done(200, 200)
		if err := p.end(builder.RepoReport{Packages: 199, Read: 7, Refused: 1, Changed: true, Revision: "5"}, nil); err == nil {
			t.Error("a package was left out, and the exit status does not say so")
		}
	}
	const refusal = "builder: \"a\\nb.rpm\": left out: no package\n"
	const summary = "builder: 199 packages, 7 of them read, 1 left out, in 60.0 s: revision 5\n"
	for name, tt := range map[string]struct {
		p    progress
		want string
	}{
		"a terminal has one line that is written over": {progress{terminal: true, last: time.Now().Add(-time.Minute)},
			"\r\x1b[K64 of 200 packages\r\x1b[K" + refusal + summary},
		"a log has a line now and then": {progress{last: time.Now().Add(-time.Minute)},
			"builder: 64 of 200 packages\n" + refusal + summary},
		"a short run says nothing on the way": {progress{}, refusal + summary},
		"quiet":                               {progress{quiet: true, terminal: true}, refusal},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			tt.p.w, tt.p.start = &out, time.Now().Add(-time.Minute)
			if name == "a short run says nothing on the way" {
				tt.p.last = time.Now()
			}
			steps(&tt.p)
			if out.String() != tt.want {
				t.Errorf("%q, want %q", out.String(), tt.want)
			}
		})
	}
}
