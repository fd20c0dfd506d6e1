package state

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestCurlRepeatsTheRequest(t *testing.T) {
	for _, tt := range []struct {
		name string
		e    Evidence
		want string
	}{
		{
			"a plain GET", Evidence{Method: "GET", URL: "https://mirror.example.org/9.8/TIME"},
			"curl -q -g -sS -i --max-time 30 https://mirror.example.org/9.8/TIME | head -c 2000",
		},
		{
			"a HEAD that was bound to IPv6", Evidence{Method: "HEAD", URL: "http://mirror.example.org/", Family: "ipv6"},
			"curl -q -g -sS -I --max-time 30 -6 http://mirror.example.org/",
		},
		{
			"a part of a file", Evidence{Method: "GET", URL: "http://mirror.example.org/a.rpm", Request: []string{"Cache-Control: no-cache", "Range: bytes=0-99"}},
			"curl -q -g -sS -i --max-time 30 -H 'Cache-Control: no-cache' -H 'Range: bytes=0-99' http://mirror.example.org/a.rpm",
		},
		{
			"one that was redirected", Evidence{Method: "GET", URL: "http://mirror.example.org/", Family: "ipv4", Redirects: []string{"http://mirror.example.org/"}},
			"curl -q -g -sS -i --max-time 30 -4 -L --max-redirs 3 --proto-redir =http,https http://mirror.example.org/ | head -c 2000",
		},
		{
			"a module", Evidence{Method: "rsync", URL: "rsync://mirror.example.org/almalinux/"},
			"rsync --list-only -- rsync://mirror.example.org/almalinux/",
		},
		{
			"a URL that would be a command", Evidence{Method: "HEAD", URL: "http://mirror.example.org/'; rm -rf ~ #$(id)`id`"},
			`curl -q -g -sS -I --max-time 30 'http://mirror.example.org/'\''; rm -rf ~ #$(id)` + "`id`'",
		},
		{
			"a URL with a line end and an invisible letter", Evidence{Method: "HEAD", URL: "http://mirror.example.org/a\nid\u202e"},
			"curl -q -g -sS -I --max-time 30 http://mirror.example.org/a%0Aid%E2%80%AE",
		},
		{"an option for a URL", Evidence{Method: "GET", URL: "-o/etc/passwd"}, ""},
		{"an option for a module", Evidence{Method: "rsync", URL: "--rsh=id"}, ""},
		{"a method that is none", Evidence{Method: "GET;id", URL: "http://mirror.example.org/"}, ""},
		{"a file of headers", Evidence{Method: "HEAD", URL: "http://mirror.example.org/", Request: []string{"@/etc/passwd"}}, "curl -q -g -sS -I --max-time 30 http://mirror.example.org/"},
		{"a file of the origin", Evidence{Method: "GET", URL: "file:///srv/tier0/TIME"}, ""},
		{"nothing", Evidence{}, ""},
	} {
		if got := tt.e.Curl(); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
	if got := (*Evidence)(nil).Curl(); got != "" {
		t.Errorf("no evidence: %q", got)
	}
}

// A shell hands on the words that were meant, whatever they hold, and runs
// nothing else.
func FuzzCurl(f *testing.F) {
	f.Add("http://mirror.example.org/'$(id)`id`\"\\", "Range: bytes=0-0")
	f.Add("https://mirror.example.org/\x00\n;id", "'")
	f.Add("rsync://mirror.example.org/$IFS", "-H")
	sh, err := exec.LookPath("sh")
	if err != nil {
		f.Skip("there is no shell here")
	}
	f.Fuzz(func(t *testing.T, url, header string) {
		method := "HEAD"
		if strings.HasPrefix(url, "rsync:") {
			method = "rsync"
		}
		line := (&Evidence{Method: method, URL: url, Request: []string{header}}).Curl()
		if line == "" {
			return
		}
		// In place of the programs, functions that print their arguments.
		const stubs = "curl() { printf '%s\\n' \"$@\"; }\nrsync() { curl \"$@\"; }\n"
		cmd := exec.CommandContext(t.Context(), sh, "-c", stubs+line)
		cmd.Env = []string{"PATH=/nonexistent"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		words := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		if got := words[len(words)-1]; got != printable(url) {
			t.Errorf("%q became the word %q in\n%s", url, got, line)
		}
		if method == "HEAD" && header != "" && header[0] != '@' && !slices.Contains(words, printable(header)) {
			t.Errorf("%q is not among the words %q", header, words)
		}
	})
}
