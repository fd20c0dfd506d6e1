package state

import (
	"fmt"
	"slices"
	"strings"
)

// Curl returns a line that repeats the request from a shell: curl for HTTP, and
// rsync for a module. Whatever a URL or a header holds, the shell hands it on as
// it is, and the program takes it for what it is. It is "" for what neither can
// repeat: a file, or nothing.
func (e *Evidence) Curl() string {
	if e == nil {
		return ""
	}
	url := printable(e.URL)
	switch {
	case e.Method == "rsync" && strings.HasPrefix(url, "rsync://"):
		return "rsync --list-only -- " + quote(url)
	case e.Method != "GET" && e.Method != "HEAD", !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://"):
		return ""
	}
	// -q: no file of settings changes what it does; -g: it would make several URLs
	// of one with brackets.
	line := []string{"curl", "-q", "-g", "-sS", "-i", "--max-time", "30"}
	if e.Method == "HEAD" {
		line[4] = "-I"
	}
	switch e.Family {
	case "ipv4":
		line = append(line, "-4")
	case "ipv6":
		line = append(line, "-6")
	}
	if len(e.Redirects) > 0 {
		line = append(line, "-L", "--max-redirs", "3", "--proto-redir", "=http,https")
	}
	ranged := false
	for _, h := range e.Request {
		if h = printable(h); h != "" && !strings.HasPrefix(h, "@") { // that would be a file of headers
			line = append(line, "-H", quote(h))
			ranged = ranged || strings.HasPrefix(h, "Range:")
		}
	}
	line = append(line, quote(url))
	if e.Method == "GET" && !ranged {
		line = append(line, "| head -c 2000") // it may be endless
	}
	return strings.Join(line, " ")
}

// printable returns s with what does not belong on a command line, or would make
// it look like another one, as a URL has it.
func printable(s string) string {
	bad := func(b byte) bool { return b < ' ' || b > '~' }
	if !slices.ContainsFunc([]byte(s), bad) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if bad(s[i]) {
			fmt.Fprintf(&b, "%%%02X", s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// quote returns s as one word of a POSIX shell.
func quote(s string) string {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./:@%+=,"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
