package checker

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"meridian/builder/repodata"
	"meridian/schema"
)

// Whatever a mirror answers, a visit ends with facts: what is Served can be read,
// what is not has evidence that can be shown, and nothing costs more than it may.
func FuzzAnswer(f *testing.F) {
	good := repomdFile("200", 10)
	f.Add([]byte(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", ok, len(good), good)))
	f.Add([]byte(ok + "Content-Type: text/html\r\n\r\n<html>"))
	f.Add([]byte(ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: //mirror.example.org/%0a\x1b[2J\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/-5\r\n\r\nx"))
	f.Add([]byte("HTTP/1.1 404 \xff\xfe\r\nDate: Fri, 31 Dec 9999 23:59:59 GMT\r\n\r\n"))
	n := probeNetwork(f)
	m := &schema.Mirror{Name: "mirror.example.org", Address: schema.Address{HTTP: mirrorURLs.HTTP}}
	plan := Plan{
		Network: n, Schemes: true, Time: true, Budget: 40,
		Keys:    []KeyPlan{{Key: mirrorKey, Newest: sha256.Sum256(good), Confirm: true, Files: []repodata.Data{{Location: "repodata/primary.xml.gz", Size: 10}}}},
		ISOs:    []KeyPlan{{Key: ISOKeys(n)[0]}},
		Closure: []FilePlan{{Key: mirrorKey, Path: "a.rpm", Size: 10, Checksum: repodata.Checksum{Type: "sha256", Value: strings.Repeat("0", 64)}}, {Key: mirrorKey, Path: "b.rpm", Size: wholeFile + 1, Part: []byte("x")}},
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var served sync.WaitGroup
		p := NewProber(ProbeOptions{Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			served.Go(func() {
				defer theirs.Close()
				if _, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
					theirs.Write(data)
				}
			})
			return ours, nil
		}})
		defer served.Wait()
		defer p.Close()
		plan := plan
		plan.Own, plan.Sample = len(data)%2 == 0, 2
		o := p.Visit(t.Context(), m, plan)
		// Each request may be redirected three times.
		if o.Requests > plan.Budget+6 || o.Bytes > int64(o.Requests*(len(data)+64<<10)) {
			t.Errorf("%d requests, %d bytes", o.Requests, o.Bytes)
		}
		seen := o.Keys[mirrorKey]
		if seen.Outcome == Served && (seen.Size == 0 || seen.SHA256 == [32]byte{}) {
			t.Errorf("what is served is seen as %+v", seen)
		}
		if seen.Outcome != Served && (seen.Evidence == nil || seen.SHA256 != [32]byte{}) {
			t.Errorf("what is not served is seen as %+v", seen)
		}
		for _, f := range append(o.Files, seen.FilesWrong...) {
			if (f.Outcome != Served || f.Wrong != "") && f.Evidence == nil {
				t.Errorf("nothing shows what is wrong with %+v", f)
			}
		}
		if e := seen.Evidence; e != nil {
			all := append([]string{e.Body, e.Error, e.Final}, append(e.Redirects, e.Header...)...)
			for _, s := range all {
				if len(s) > 600 || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(s) {
					t.Errorf("the evidence cannot be shown: %q", s)
				}
			}
		}
	})
}

func FuzzTime(f *testing.F) {
	f.Add([]byte("1767225600\n"))
	f.Add([]byte("-0"))
	f.Add([]byte("\x00\xff 99999999999999999999"))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := readTime(body)
		if err != nil {
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("the error cannot be shown: %q", err)
			}
			return
		}
		if y := got.Year(); y < 1970 || y > 9999 {
			t.Errorf("%q is read as %v", body, got)
		}
		if again, err := readTime(fmt.Appendln(nil, got.Unix())); err != nil || !again.Equal(got) {
			t.Errorf("%v reads back as %v, %v", got, again, err)
		}
	})
}

func FuzzChecksums(f *testing.F) {
	sum := strings.Repeat("0a", 32)
	f.Add([]byte("# a.iso: 12 bytes\nSHA256 (a.iso) = " + sum + "\n"))
	f.Add([]byte(sum + " *a.iso\r\n" + sum + "  ../b.iso"))
	f.Fuzz(func(t *testing.T, body []byte) {
		files, err := readChecksums(body)
		if err == nil && len(files) == 0 || len(files) > maxImages {
			t.Errorf("%d files", len(files))
		}
		for _, d := range files {
			if !below(d.Location) || strings.Contains(d.Location, "/") || d.Size < -1 || newHash(d.Checksum.Type).Size()*2 != len(d.Checksum.Value) {
				t.Errorf("a file is %+v", d)
			}
		}
	})
}

func FuzzPrimary(f *testing.F) {
	f.Add(primaryList(listed("Packages/a.rpm", 5), listed("../b.rpm", 6)))
	f.Add([]byte(`<a><package><checksum type="x" pkgid="YES">&amp;</checksum><location href="&#x2f;"/></package></a>`))
	f.Fuzz(func(t *testing.T, list []byte) {
		packages := 0
		err := readPackages(bytes.NewReader(list), func(p FilePlan) {
			packages++
			if !below(p.Path) || p.Size < -1 || len(p.Checksum.Value) > len(list) {
				t.Errorf("a package is %+v", p)
			}
		})
		if err == io.EOF || packages > len(list) {
			t.Errorf("%d packages, %v", packages, err)
		}
	})
}

// Escaped text can be shown, fits, and says which bytes there were.
func FuzzEscape(f *testing.F) {
	f.Add([]byte("a\\\n\x00\xff\u202e…\U000e0041"), 20)
	f.Fuzz(func(t *testing.T, text []byte, most int) {
		most = 3 + (most&0xffff)%1000
		got := escape(text, most)
		if len(got) > most || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q within %d is %q", text, most, got)
		}
		if len(text)*10 <= most && strings.HasSuffix(got, "…") && !bytes.HasSuffix(text, []byte("…")) {
			t.Errorf("%q within %d is cut to %q", text, most, got)
		}
	})
}
