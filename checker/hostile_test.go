package checker

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meridian/builder/repodata"
	"meridian/checker/state"
	"meridian/schema"
)

// raw answers each request on a connection, without any server between, and
// closes it after the first that answer ends with an error.
func raw(answer func(c net.Conn, r *http.Request) error) func(net.Conn) {
	return func(c net.Conn) {
		defer c.Close()
		in := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(in)
			if err != nil || answer(c, r) != nil {
				return
			}
		}
	}
}

// answers replies with text, byte by byte as it stands, and ends the connection.
func answers(text string) func(net.Conn) {
	return raw(func(c net.Conn, _ *http.Request) error {
		io.WriteString(c, text)
		return io.EOF
	})
}

// forever answers with a beginning, and then with more until nobody listens.
func forever(beginning, more string, pause time.Duration) func(net.Conn) {
	return raw(func(c net.Conn, _ *http.Request) error {
		_, err := io.WriteString(c, beginning)
		for err == nil {
			time.Sleep(pause)
			_, err = io.WriteString(c, more)
		}
		return err
	})
}

const ok = "HTTP/1.1 200 OK\r\n"

// Each way to be a bad mirror has its outcome, a cost that is known, and evidence
// of what was asked and what came.
func TestHostileMirrors(t *testing.T) {
	good := repomdFile("200", 10)
	goodAnswer := fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", ok, len(good), good)
	redirect := func(to string) string {
		return "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + to + "\r\n\r\n"
	}
	bomb := gzipped(t, make([]byte, 4<<20))
	kilobyte := strings.Repeat("x", 1<<10)

	for _, tt := range []struct {
		name   string
		answer func(net.Conn)

		outcome  Outcome
		status   int           // of the evidence
		err      string        // in it
		body     string        // in it
		requests int           // at most; 0 is 1
		bytes    int64         // at most; 0 is 4096
		takes    time.Duration // at most; 0 is none
	}{
		{
			name:    "a web page with status 200",
			answer:  answers(ok + "Content-Type: text/html\r\nContent-Length: 35\r\n\r\n<!DOCTYPE html><title>Parked</title>"),
			outcome: Garbage, status: 200, err: "document type", body: "<!DOCTYPE html>",
		},
		{
			name: "a login page after a redirect",
			answer: raw(func(c net.Conn, r *http.Request) error {
				if r.URL.Path == "/login" {
					_, err := io.WriteString(c, ok+"Content-Length: 13\r\n\r\n<html></html>")
					return err
				}
				_, err := io.WriteString(c, redirect("/login"))
				return err
			}),
			outcome: Garbage, status: 200, err: "expected element type <repomd>", requests: 2,
		},
		{name: "an empty file", answer: answers(ok + "Content-Length: 0\r\n\r\n"), outcome: Garbage, status: 200, err: "is not XML"},
		{name: "half of the file", answer: answers(goodAnswer[:len(goodAnswer)-200]), outcome: Garbage, status: 200, err: "unexpected EOF", body: "<?xml"},
		{
			name:    "half of the file, as if it were all",
			answer:  answers(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", ok, len(good)/2, good[:len(good)/2])),
			outcome: Garbage, status: 200, err: "XML syntax error",
		},
		{
			name:    "a Content-Length that is too small",
			answer:  answers(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", ok, len(good)-20, good)),
			outcome: Garbage, status: 200, err: "XML syntax error",
		},
		{
			name:    "a Content-Length that is too large",
			answer:  answers(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", ok, len(good)+20, good)),
			outcome: Garbage, status: 200, err: "unexpected EOF",
		},
		{name: "two Content-Lengths", answer: answers(ok + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"), outcome: Garbage, err: "Content-Length"},
		{name: "a Content-Length that is no number", answer: answers(ok + "Content-Length: -5\r\n\r\nabc"), outcome: Garbage, err: "Content-Length"},
		{
			name:    "a promise of a terabyte",
			answer:  answers(ok + "Content-Length: 1099511627776\r\n\r\nabc"),
			outcome: Garbage, status: 200, err: "body too large",
		},
		{
			name:    "a body without end",
			answer:  forever(ok+"Connection: close\r\n\r\n", kilobyte, 0),
			outcome: Garbage, status: 200, err: "body too large", body: "xxxx", bytes: repodata.MaxRepomd + 64<<10,
		},
		{
			name:    "chunks without end",
			answer:  forever(ok+"Transfer-Encoding: chunked\r\n\r\n", "400\r\n"+kilobyte+"\r\n", 0),
			outcome: Garbage, status: 200, err: "body too large", bytes: repodata.MaxRepomd + 64<<10,
		},
		{
			name:    "a compressed bomb that nobody asked for",
			answer:  answers(fmt.Sprintf("%sContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", ok, len(bomb), bomb)),
			outcome: Garbage, status: 200, bytes: int64(len(bomb)) + 4096,
		},
		{
			name:    "the right file, compressed although nobody asked for that",
			answer:  answers(fmt.Sprintf("%sContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", ok, len(gzipped(t, good)), gzipped(t, good))),
			outcome: Garbage, status: 200,
		},
		{
			name:    "twenty bytes a second",
			answer:  forever(ok+"Content-Length: 100000\r\n\r\n", kilobyte[:20], time.Second),
			outcome: Garbage, status: 200, err: "body too slow", takes: 15 * time.Second,
		},
		{
			name:    "a body that stops",
			answer:  forever(ok+"Content-Length: 100000\r\n\r\n"+kilobyte, "", time.Second),
			outcome: Garbage, status: 200, err: "body too slow", takes: 15 * time.Second,
		},
		{name: "no answer at all", answer: forever("", "", time.Second), outcome: Unreachable, err: "no whole answer within 20s", takes: 20 * time.Second},
		{
			name:    "a header that comes letter by letter",
			answer:  forever(ok, "X", time.Second),
			outcome: Unreachable, err: "no whole answer within 20s", takes: 20 * time.Second,
		},
		{name: "a header without end", answer: forever(ok, "X-Y: "+kilobyte+"\r\n", 0), outcome: Garbage, err: "headers exceeded", bytes: 128 << 10},
		{name: "one line of header without end", answer: forever(ok+"X-Y: ", kilobyte, 0), outcome: Garbage, err: "headers exceeded", bytes: 128 << 10},
		{name: "interim answers without end", answer: forever("", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 0), outcome: Garbage, err: "headers exceeded", bytes: 128 << 10},
		{name: "a trailer without end", answer: forever(ok+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", "X-Y: "+kilobyte+"\r\n", 0), outcome: Garbage, status: 200, err: "trailer", bytes: 128 << 10},
		{name: "a chunk of no size", answer: answers(ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"), outcome: Garbage, status: 200, err: "invalid byte in chunk length"},
		{name: "another protocol", answer: answers("SSH-2.0-OpenSSH_9.2p1\r\n"), outcome: Garbage, err: "malformed HTTP"},
		{name: "a switch to another protocol", answer: answers("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), outcome: Garbage, status: 101, err: "not a final one"},
		{
			name: "a connection that is cut in the middle",
			answer: raw(func(c net.Conn, _ *http.Request) error {
				io.WriteString(c, ok+"Transfer-Encoding: chunked\r\n\r\n400\r\n"+kilobyte[:500])
				return io.EOF
			}),
			outcome: Garbage, status: 200, err: "unexpected EOF",
		},
		{name: "a connection that is cut at once", answer: answers(""), outcome: Unreachable, err: "EOF"},
		{name: "a redirect to itself", answer: raw(func(c net.Conn, r *http.Request) error {
			_, err := io.WriteString(c, redirect(r.URL.Path))
			return err
		}), outcome: Garbage, status: 302, err: "too many redirects", requests: 4},
		{name: "a redirect without end, with bodies", answer: raw(func(c net.Conn, r *http.Request) error {
			_, err := io.WriteString(c, ok[:9]+"302 Found\r\nConnection: close\r\nLocation: "+r.URL.Path+"x\r\n\r\n")
			for err == nil {
				_, err = io.WriteString(c, kilobyte)
			}
			return err
		}), outcome: Garbage, status: 302, err: "too many redirects", requests: 4, bytes: 64 << 10},
		{name: "a redirect to a private address", answer: answers(redirect("http://10.0.0.1/latest/meta-data/")), outcome: Garbage, err: "not a public address"},
		{name: "a redirect to a name with a private address", answer: answers(redirect("http://inside.example.org/")), outcome: Garbage, err: "not a public address"},
		{name: "a redirect to a file", answer: answers(redirect("file:///etc/passwd")), outcome: Garbage, status: 302, err: `scheme "file"`},
		{name: "a redirect to credentials", answer: answers(redirect("http://user:secret@mirror.example.org/")), outcome: Garbage, status: 302, err: "credentials"},
		{name: "a redirect to nowhere", answer: answers("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"), outcome: Garbage, status: 302},
		{name: "not modified, although nothing was known", answer: answers("HTTP/1.1 304 Not Modified\r\n\r\n"), outcome: Garbage, status: 304, err: "304"},
		{name: "no content", answer: answers("HTTP/1.1 204 No Content\r\n\r\n"), outcome: Garbage, status: 204},
		{name: "a part that nobody asked for", answer: answers(strings.Replace(goodAnswer, "200 OK", "206 Partial Content", 1)), outcome: Garbage, status: 206},
		{name: "forbidden", answer: answers("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), outcome: Refused, status: 403},
		{name: "too many requests", answer: answers("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nRetry-After: 60\r\n\r\n"), outcome: Refused, status: 429},
		{name: "unavailable", answer: answers("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"), outcome: Refused, status: 503},
		{name: "gone", answer: answers("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"), outcome: Missing, status: 410},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet(t)
				n.host("mirror.example.org", "198.51.101.1")
				n.host("inside.example.org", "192.168.1.1")
				var inside atomic.Int32
				for _, addr := range []string{"10.0.0.1:80", "192.168.1.1:80"} {
					n.listen(addr, raw(func(net.Conn, *http.Request) error {
						inside.Add(1)
						return io.EOF
					}))
				}
				n.listen("198.51.101.1:80", tt.answer)
				m := &schema.Mirror{Name: "mirror.example.org", Address: schema.Address{HTTP: mirrorURLs.HTTP}}
				began := time.Now()
				o := n.prober(t, nil).Visit(t.Context(), m, Plan{Network: probeNetwork(t), Keys: []KeyPlan{{Key: mirrorKey}}})

				seen := o.Keys[mirrorKey]
				if seen.Outcome != tt.outcome || seen.SHA256 != (state.Hash256{}) {
					t.Errorf("seen as %+v", seen)
				}
				if took := time.Since(began); took > tt.takes {
					t.Errorf("it took %v, want at most %v", took, tt.takes)
				}
				if most := max(1, tt.requests); o.Requests > most {
					t.Errorf("%d requests, want at most %d", o.Requests, most)
				}
				if most := max(4096, tt.bytes); o.Bytes > most {
					t.Errorf("%d bytes, want at most %d", o.Bytes, most)
				}
				if inside.Load() != 0 {
					t.Error("a private address was asked")
				}
				e := seen.Evidence
				if e == nil {
					t.Fatal("there is no evidence")
				}
				if e.Status != tt.status || !strings.Contains(e.Error, tt.err) || !strings.Contains(e.Body, tt.body) ||
					e.Method != "GET" || e.URL != "http://mirror.example.org/"+mirrorRepomd || !strings.HasSuffix(e.Remote, ":80") || !e.At.Equal(began) || e.Curl() == "" {
					t.Errorf("the evidence is %+v", e)
				}
				if strings.Contains(fmt.Sprint(e), "secret") && !strings.Contains(tt.name, "credentials") {
					t.Errorf("a password is in %+v", e)
				}
			})
		})
	}
}

func TestHostileCertificates(t *testing.T) {
	good := repomdFile("200", 10)
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name string
		cert func(t *testing.T, ca *testCA) *tls.Certificate
		err  string
	}{
		{"expired", func(t *testing.T, ca *testCA) *tls.Certificate {
			return ca.certificate(t, "mirror.example.org", time.Now().Add(-90*day), 89*day)
		}, "expired or is not yet valid"},
		{"not valid yet", func(t *testing.T, ca *testCA) *tls.Certificate {
			return ca.certificate(t, "mirror.example.org", time.Now().Add(day), 90*day)
		}, "expired or is not yet valid"},
		{"for another name", func(t *testing.T, ca *testCA) *tls.Certificate {
			return ca.certificate(t, "other.example.org", time.Now(), 90*day)
		}, "certificate is valid for other.example.org, not mirror.example.org"},
		{"by nobody we know", func(t *testing.T, _ *testCA) *tls.Certificate {
			return newTestCA(t).certificate(t, "mirror.example.org", time.Now(), 90*day)
		}, "unknown authority"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, ca := newMemNet(t), newTestCA(t)
				n.host("mirror.example.org", "198.51.101.1")
				cert := tt.cert(t, ca)
				tr := &tree{files: map[string][]byte{mirrorRepomd: good}}
				n.serve("198.51.101.1:443", tr, cert)
				n.serve("198.51.101.1:80", tr, nil)
				m := &schema.Mirror{Name: "mirror.example.org", Address: mirrorURLs}
				o := n.prober(t, ca).Visit(t.Context(), m, Plan{Network: probeNetwork(t), Schemes: true, Keys: []KeyPlan{{Key: mirrorKey}}})
				a := o.Schemes["https"]
				if a.OK || !a.Insecure || a.Evidence == nil || a.TLSExpires.IsZero() || a.TLSBegins.IsZero() {
					t.Fatalf("https is seen as %+v with %+v", a, a.Evidence)
				}
				if e := a.Evidence; !strings.Contains(e.Error, tt.err) || e.Remote != "198.51.101.1:443" || e.Status != 0 {
					t.Errorf("the evidence is %+v", e)
				}
				// The mirror is judged by the scheme that works.
				if seen := o.Keys[mirrorKey]; seen.Outcome != Served || !o.Schemes["http"].OK {
					t.Errorf("http is seen as %+v, the sentinel as %+v", o.Schemes["http"], seen)
				}
				if len(tr.log) != 1 {
					t.Errorf("requests: %q; want the one over http", tr.log)
				}
			})
		})
	}
}

func TestHTTPSThatLeadsToHTTP(t *testing.T) {
	good := repomdFile("200", 10)
	synctest.Test(t, func(t *testing.T) {
		n, ca := newMemNet(t), newTestCA(t)
		n.host("mirror.example.org", "198.51.101.1")
		cert := ca.certificate(t, "mirror.example.org", time.Now(), 90*24*time.Hour)
		n.serve("198.51.101.1:443", http.RedirectHandler(mirrorURLs.HTTP, http.StatusFound), cert)
		n.serve("198.51.101.1:80", &tree{files: map[string][]byte{mirrorRepomd: good}}, nil)
		m := &schema.Mirror{Name: "mirror.example.org", Address: mirrorURLs}
		o := n.prober(t, ca).Visit(t.Context(), m, Plan{Network: probeNetwork(t), Schemes: true, Scheme: "https", Keys: []KeyPlan{{Key: mirrorKey}}})
		if a := o.Schemes["https"]; a.OK || !a.Insecure || a.Evidence == nil || !strings.Contains(a.Evidence.Error, "from https to http") {
			t.Errorf("https is seen as %+v", a)
		}
		if a := o.Schemes["http"]; !a.OK || a.Insecure {
			t.Errorf("http is seen as %+v", a)
		}
	})
}

func TestRedirectToAnotherHostIsNoted(t *testing.T) {
	good := repomdFile("200", 10)
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		n.host("mirror.example.org", "198.51.101.1")
		n.host("cdn.example.net", "198.51.101.2")
		n.serve("198.51.101.1:80", http.RedirectHandler("http://cdn.example.net/a", http.StatusFound), nil)
		n.serve("198.51.101.2:80", &tree{files: map[string][]byte{"a": good}}, nil)
		m := &schema.Mirror{Name: "mirror.example.org", Address: schema.Address{HTTP: mirrorURLs.HTTP}}
		o := n.prober(t, nil).Visit(t.Context(), m, Plan{Network: probeNetwork(t), Schemes: true, Keys: []KeyPlan{{Key: mirrorKey}}})
		seen := o.Keys[mirrorKey]
		if seen.Outcome != Served || seen.OtherHost != "cdn.example.net" || seen.Evidence == nil ||
			seen.Evidence.Final != "http://cdn.example.net/a" || len(seen.Evidence.Redirects) != 1 || seen.Evidence.Remote != "198.51.101.2:80" {
			t.Errorf("the sentinel is seen as %+v with %+v", seen, seen.Evidence)
		}
		if a := o.Schemes["http"]; !a.OK || a.OtherHost != "cdn.example.net" || a.Evidence == nil {
			t.Errorf("http is seen as %+v", a)
		}
	})
}

// A clock that is wrong is a fact beside what is served, and changes nothing of
// it.
func TestClockInTheFuture(t *testing.T) {
	good := repomdFile("200", 10)
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		n.host("mirror.example.org", "198.51.101.1")
		later := time.Now().Add(30 * 24 * time.Hour)
		n.serve("198.51.101.1:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", later.UTC().Format(http.TimeFormat))
			w.Header().Set("Last-Modified", later.UTC().Format(http.TimeFormat))
			if strings.HasSuffix(r.URL.Path, "/TIME") {
				fmt.Fprintln(w, later.Unix())
				return
			}
			w.Write(good)
		}), nil)
		m := &schema.Mirror{Name: "mirror.example.org", Address: schema.Address{HTTP: mirrorURLs.HTTP}}
		o := n.prober(t, nil).Visit(t.Context(), m, Plan{Network: probeNetwork(t), Time: true, Keys: []KeyPlan{{Key: mirrorKey, Newest: sha256.Sum256(good)}}})
		if seen := o.Keys[mirrorKey]; seen.Outcome != Served || seen.Evidence != nil {
			t.Errorf("the sentinel is seen as %+v", seen)
		}
		if o.Time.Unix() != later.Unix() || o.Clock != 30*24*time.Hour {
			t.Errorf("TIME is %v, the clock is %v ahead", o.Time, o.Clock)
		}
	})
}

// Two servers behind one name that are not in step: each answer is seen as what
// it is, and nothing is remembered of the other.
func TestBackendsThatDiffer(t *testing.T) {
	newer, older := repomdFile("200", 10), repomdFile("100", 10)
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		n.host("mirror.example.org", "198.51.101.1")
		asked := 0
		n.serve("198.51.101.1:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			w.Header().Set("X-Served-By", fmt.Sprint("backend-", asked%2))
			w.Write([][]byte{older, newer}[asked%2])
		}), nil)
		m := &schema.Mirror{Name: "mirror.example.org", Address: schema.Address{HTTP: mirrorURLs.HTTP}}
		p := n.prober(t, nil)
		plan := Plan{Network: probeNetwork(t), Keys: []KeyPlan{{Key: mirrorKey, Newest: sha256.Sum256(newer)}}}
		for i, want := range []string{"200", "100", "200", "100"} {
			seen := p.Visit(t.Context(), m, plan).Keys[mirrorKey]
			if seen.Outcome != Served || seen.Revision != want {
				t.Errorf("visit %d sees %+v, want revision %s", i, seen, want)
			}
			if e := seen.Evidence; want == "100" && (e == nil || !strings.Contains(fmt.Sprint(e.Header), "X-Served-By: backend-0")) {
				t.Errorf("visit %d: the evidence does not tell the backend: %+v", i, e)
			}
		}
		plan.Families = true
		o := p.Visit(t.Context(), m, plan)
		if a := o.Families[IPv4]; !a.OK || a.Evidence == nil || a.SHA256 != sha256.Sum256(older) {
			t.Errorf("one visit that saw both says of IPv4 %+v", a)
		}
	})
}

// What is to be confirmed is asked for twice, over two connections: of a name with
// two addresses each server is asked, and a balancer has to choose again.
func TestASecondQuestionGoesToAnotherServer(t *testing.T) {
	newer, older := repomdFile("200", 10), repomdFile("100", 10)
	for _, tt := range []struct {
		name    string
		addrs   []string
		budget  int
		first   []byte // of the first address or connection
		second  []byte
		again   string // revision; "" for no second answer
		outcome Outcome
	}{
		{"two addresses out of step", []string{"198.51.101.1", "198.51.101.2"}, 0, newer, older, "100", Served},
		{"two addresses in step", []string{"198.51.101.1", "198.51.101.2"}, 0, newer, newer, "200", Served},
		{"two addresses, of which the second is behind in the other sense", []string{"198.51.101.1", "198.51.101.2"}, 0, older, newer, "200", Served},
		{"one address and two servers", []string{"198.51.101.1"}, 0, newer, older, "100", Served},
		{"two IPv6 addresses", []string{"2001:678::1", "2001:678::2"}, 0, newer, older, "100", Served},
		{"a page for the second question", []string{"198.51.101.1"}, 0, newer, []byte("<html>"), "", Garbage},
		{"no request left", []string{"198.51.101.1"}, 1, newer, older, "", Served},
		{"a page for the first question", []string{"198.51.101.1"}, 0, []byte("<html>"), newer, "", Served},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet(t)
				n.host("mirror.example.org", tt.addrs...)
				conns := 0
				for i, addr := range tt.addrs {
					n.listen(net.JoinHostPort(addr, "80"), func(c net.Conn) {
						body := tt.first
						if i > 0 || len(tt.addrs) == 1 && conns > 0 {
							body = tt.second
						}
						conns++
						raw(func(c net.Conn, _ *http.Request) error {
							_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
							return err
						})(c)
					})
				}
				m := &schema.Mirror{Name: "mirror.example.org", Address: schema.Address{HTTP: mirrorURLs.HTTP}}
				plan := Plan{Network: probeNetwork(t), Budget: tt.budget, Keys: []KeyPlan{{Key: mirrorKey, Newest: sha256.Sum256(newer), Confirm: true}}}
				o := n.prober(t, nil).Visit(t.Context(), m, plan)
				again := o.Keys[mirrorKey].Again
				if tt.again == "" && tt.outcome == Served {
					if again != nil {
						t.Fatalf("it is asked again: %+v", again)
					}
					return
				}
				if again == nil || again.Outcome != tt.outcome || again.Revision != tt.again {
					t.Fatalf("the second answer is %+v, want %v with revision %q", again, tt.outcome, tt.again)
				}
				if wrong := tt.again != "200"; wrong != (again.Evidence != nil) {
					t.Errorf("the evidence of the second answer is %+v", again.Evidence)
				}
				if o.Requests != 2 || conns != 2 {
					t.Errorf("%d requests over %d connections, want two", o.Requests, conns)
				}
				if len(tt.addrs) > 1 && (len(n.dials) != 2 || n.dials[0].Addr() == n.dials[1].Addr()) {
					t.Errorf("dialed %v, want both addresses", n.dials)
				}
			})
		})
	}
}

// A mirror that wastes time or bytes on every repository is left before it has
// wasted much.
func TestCostOfAHostileMirrorIsBounded(t *testing.T) {
	n0 := probeNetwork(t)
	plan := Plan{Network: n0}
	for i := range 140 {
		plan.Keys = append(plan.Keys, KeyPlan{Key: state.Key{Version: "9.8", Repo: "baseos", Arch: schema.Arch(fmt.Sprint("arch", i))}})
	}
	for _, tt := range []struct {
		name   string
		answer func(net.Conn)
		keys   int
		bytes  int64
		takes  time.Duration
	}{
		{"bodies without end", forever(ok+"\r\n", strings.Repeat("x", 1<<10), 0), costlyFailures + 1, 5 << 20, 0},
		{"bodies that drip", forever(ok+"\r\n", "x", time.Second), costlyFailures + 1, 4096, 40 * time.Second},
		{"no answers", forever("", "", time.Second), 1, 0, 20 * time.Second},
		{"pages of almost a megabyte", answers(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", ok, 1<<20, bytes.Repeat([]byte("<p>"), 1<<20/3))), 34, 35 << 20, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet(t)
				n.host("mirror.example.org", "198.51.101.1")
				n.listen("198.51.101.1:80", tt.answer)
				m := &schema.Mirror{Name: "mirror.example.org", Address: schema.Address{HTTP: mirrorURLs.HTTP}}
				began := time.Now()
				o := n.prober(t, nil).Visit(t.Context(), m, plan)
				if len(o.Keys) > tt.keys || o.Requests > tt.keys || o.Bytes > tt.bytes || time.Since(began) > tt.takes {
					t.Errorf("%d keys, %d requests, %d bytes, %v; want at most %d, %d, %v", len(o.Keys), o.Requests, o.Bytes, time.Since(began), tt.keys, tt.bytes, tt.takes)
				}
			})
		})
	}
}

// What was not answered when the visit was ended is not held against the mirror.
func TestVisitThatIsEndedBlamesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		n.host("mirror.example.org", "198.51.101.1")
		n.listen("198.51.101.1:80", forever("", "", time.Second))
		m := &schema.Mirror{Name: "mirror.example.org", Address: schema.Address{HTTP: mirrorURLs.HTTP}}
		for _, plan := range []Plan{
			{Keys: []KeyPlan{{Key: mirrorKey}}},
			{Schemes: true, Families: true, Time: true},
			{ISOs: []KeyPlan{{Key: state.Key{Version: "9.8", Repo: isos, Arch: "x86_64"}}}},
			{Closure: []FilePlan{{Key: mirrorKey, Path: "a.rpm", Size: 5}}},
		} {
			plan.Network = probeNetwork(t)
			ctx, cancel := contextFor(t, time.Second)
			o := n.prober(t, nil).Visit(ctx, m, plan)
			cancel()
			if len(o.Keys)+len(o.Schemes)+len(o.Families)+len(o.Files) > 0 || o.TimeEvidence != nil {
				t.Errorf("%+v sees %+v", plan, o)
			}
		}
	})
}
