package notify

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"meridian/checker/state"
)

// A post office is a mail server on loopback that keeps what it is sent.
type postOffice struct {
	addr string
	tls  *tls.Config // nil: no STARTTLS

	mu    sync.Mutex // guards what follows
	mails []received
	busy  bool   // answers 451 to every recipient
	dead  string // a recipient that does not exist
	curt  bool   // hangs up without a word; set before anybody calls
}

type received struct {
	from string
	to   []string
	body string
}

func openPostOffice(t *testing.T, conf *tls.Config) *postOffice {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &postOffice{addr: ln.Addr().String(), tls: conf}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				p.serve(conn)
			})
		}
	})
	return p
}

func (p *postOffice) serve(conn net.Conn) {
	r := bufio.NewReader(conn)
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	say("220 post office")
	var m received
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		verb, rest, _ := strings.Cut(line, ":")
		switch verb = strings.ToUpper(verb); {
		case strings.HasPrefix(verb, "EHLO"):
			if _, secure := conn.(*tls.Conn); p.tls != nil && !secure {
				say("250-hello")
				say("250 STARTTLS")
				continue
			}
			say("250 hello")
		case verb == "STARTTLS":
			say("220 go on")
			conn = tls.Server(conn, p.tls)
			r = bufio.NewReader(conn)
		case verb == "MAIL FROM":
			m = received{from: rest}
			say("250 ok")
		case verb == "RCPT TO":
			p.mu.Lock()
			busy, dead := p.busy, p.dead
			p.mu.Unlock()
			switch {
			case busy:
				say("451 later")
			case dead != "" && strings.Contains(rest, dead):
				say("550 nobody")
			default:
				m.to = append(m.to, strings.Trim(rest, "<>"))
				say("250 ok")
			}
		case verb == "DATA":
			say("354 go on")
			var b strings.Builder
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				b.WriteString(strings.TrimPrefix(line, "."))
			}
			m.body = b.String()
			p.mu.Lock()
			p.mails = append(p.mails, m)
			p.mu.Unlock()
			say("250 ok")
		case verb == "QUIT":
			if !p.curt {
				say("221 bye")
			}
			return
		default:
			say("500 what")
		}
	}
}

func (p *postOffice) received() []received {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.mails)
}

func (p *postOffice) mailer(edit func(*Mail)) *mailer {
	s := Mail{Server: p.addr, From: "mirrors@example.org", To: []string{"admin@example.org"}, Operators: true, Plain: true}
	if edit != nil {
		edit(&s)
	}
	return newMailer(s, Options{
		Address: func(mirror string) string {
			return map[string]string{"a.example": "Op <op@a.example>", "hostile.example": "x@y.example\r\nBcc: all@example.org", "admin.example": "admin@example.org"}[mirror]
		},
		Page: func(mirror string) string { return "https://mirrors.example.org/mirrors/" + mirror },
	})
}

// parse reads a mail as its reader does.
func (m received) parse(t *testing.T) (h mail.Header, subject, body string) {
	t.Helper()
	msg, err := mail.ReadMessage(strings.NewReader(m.body))
	if err != nil {
		t.Fatalf("%v:\n%s", err, m.body)
	}
	subject, err = new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(quotedprintable.NewReader(msg.Body))
	if err != nil {
		t.Fatal(err)
	}
	return msg.Header, subject, string(data)
}

func broken(mirror string) state.Event {
	e := change(mirror, state.Fresh, state.Broken, baseos, "9.8/extras/x86_64")
	e.Problem = &state.Problem{
		Reason: "repomd.xml is a web page", Remedy: "Serve the file itself.",
		Evidence: &state.Evidence{At: e.Time, Method: "GET", URL: "http://" + mirror + "/9.8/BaseOS/x86_64/os/repodata/repomd.xml", Status: 200, Header: []string{"Content-Type: text/html"}, Body: "<html>.\n..\n€"},
	}
	return e
}

func TestMailSaysWhatToDo(t *testing.T) {
	p := openPostOffice(t, nil)
	if err := p.mailer(nil).deliver(t.Context(), []state.Event{broken("a.example")}); err != nil {
		t.Fatal(err)
	}
	mails := p.received()
	if len(mails) != 1 || !slices.Equal(mails[0].to, []string{"admin@example.org", "op@a.example"}) || !strings.Contains(mails[0].from, "mirrors@example.org") {
		t.Fatalf("sent %+v", mails)
	}
	h, subject, body := mails[0].parse(t)
	if want := "a.example: 9.8/baseos/x86_64 and 1 more are broken, before: fresh: repomd.xml is a web page"; subject != want {
		t.Errorf("subject %q, want %q", subject, want)
	}
	for _, want := range []string{"Serve the file itself.", "curl ", "http://a.example/9.8/BaseOS/x86_64/os/repodata/repomd.xml", "status 200", "Content-Type: text/html", "9.8/extras/x86_64", "https://mirrors.example.org/mirrors/a.example"} {
		if !strings.Contains(body, want) {
			t.Errorf("the mail does not say %q:\n%s", want, body)
		}
	}
	if strings.Contains(mails[0].body, "admin@example.org") || strings.Contains(mails[0].body, "op@a.example") {
		t.Errorf("recipients see each other:\n%s", mails[0].body)
	}
	if h.Get("Auto-Submitted") != "auto-generated" || h.Get("Message-Id") == "" {
		t.Errorf("header %v", h)
	}
}

func TestMailGoesToOneAddressOfTheOperator(t *testing.T) {
	p := openPostOffice(t, nil)
	m := p.mailer(nil)
	if err := m.deliver(t.Context(), []state.Event{broken("hostile.example"), broken("admin.example"), broken("unknown.example")}); err != nil {
		t.Fatal(err)
	}
	for _, got := range p.received() {
		if !slices.Equal(got.to, []string{"admin@example.org"}) || strings.Contains(got.body, "Bcc") {
			t.Errorf("sent to %q:\n%s", got.to, got.body)
		}
	}
	// A dead address of an operator does not keep administrators from it.
	p.dead = "op@a.example"
	if err := m.deliver(t.Context(), []state.Event{broken("a.example")}); err != nil {
		t.Error(err)
	}
	p.dead = "example"
	if err := m.deliver(t.Context(), []state.Event{broken("b.example")}); err == nil {
		t.Error("a mail that nobody takes is sent")
	}
}

func TestMailIsSentOnceToAServerThatHangsUp(t *testing.T) {
	p := openPostOffice(t, nil)
	p.curt = true
	if err := p.mailer(nil).deliver(t.Context(), []state.Event{broken("a.example")}); err != nil || len(p.received()) != 1 {
		t.Errorf("%v after %d mails, want none of them to be sent again", err, len(p.received()))
	}
}

// A server that cannot be talked to is tried once, and not for each mirror; all
// that was not said stays to be said.
func TestADeadMailServerIsTriedOnce(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	calls := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			calls++
			mu.Unlock()
			conn.Close() // as good as silence, and sooner
		}
	})
	m := (&postOffice{addr: ln.Addr().String()}).mailer(nil)
	err = m.deliver(t.Context(), []state.Event{broken("a.example"), broken("b.example"), broken("c.example")})
	ln.Close()
	wg.Wait()
	var part *undelivered
	if !errors.As(err, &part) || len(part.events) != 3 {
		t.Errorf("error %v, want that three events are not delivered", err)
	}
	if calls != 1 {
		t.Errorf("the server was called %d times, want once", calls)
	}
}

func TestMailIsLimited(t *testing.T) {
	p := openPostOffice(t, nil)
	m := p.mailer(func(s *Mail) { s.PerHour = 2 })
	events := []state.Event{broken("a.example"), broken("b.example"), broken("c.example")}
	part, ok := errors.AsType[*undelivered](m.deliver(t.Context(), events))
	if !ok || !errors.Is(part, errLater) || len(part.events) != 1 || len(p.received()) != 2 {
		t.Fatalf("%v, and %d mails", part, len(p.received()))
	}
	// Two mails about one mirror are a pause apart.
	m = p.mailer(nil)
	if err := m.deliver(t.Context(), events[:1]); err != nil {
		t.Fatal(err)
	}
	if err := m.deliver(t.Context(), events[:1]); !errors.Is(err, errLater) {
		t.Errorf("again within the pause: %v", err)
	}
	for name := range m.last {
		m.last[name] = time.Now().Add(-6 * time.Hour)
	}
	if err := m.deliver(t.Context(), events[:1]); err != nil {
		t.Errorf("after the pause: %v", err)
	}
	// The origin waits for no pause.
	for range 2 {
		if err := m.deliver(t.Context(), []state.Event{{Kind: state.OriginTroubled, Problem: &state.Problem{Reason: "it is away"}}}); err != nil {
			t.Errorf("about the origin: %v", err)
		}
	}
	// A server that is busy is asked again.
	p.busy = true
	part, ok = errors.AsType[*undelivered](p.mailer(nil).deliver(t.Context(), events))
	if !ok || len(part.events) != 3 || errors.Is(part, errLater) {
		t.Errorf("busy: %v", part)
	}
}

func TestNoMailAboutWhatCameBack(t *testing.T) {
	back := change("a.example", state.Broken, state.Fresh, baseos, "9.8/extras/x86_64")
	half := change("a.example", state.Broken, state.Fresh, baseos)
	tls := state.Event{Mirror: "a.example", Kind: state.TLSExpiring}
	for _, tt := range []struct {
		name   string
		events []state.Event
		want   bool
	}{
		{"it went and came back", []state.Event{broken("a.example"), back}, true},
		{"it went", []state.Event{broken("a.example")}, false},
		{"it came back from before", []state.Event{back}, false},
		{"it went, came back, and went", []state.Event{broken("a.example"), back, broken("a.example")}, false},
		{"a part of it came back", []state.Event{broken("a.example"), half}, false},
		{"it came back, and its certificate ends", []state.Event{broken("a.example"), back, tls}, false},
	} {
		if got := settled(tt.events); got != tt.want {
			t.Errorf("%s: settled = %v", tt.name, got)
		}
	}
	for _, tt := range []struct {
		name string
		e    state.Event
		want bool
	}{
		{"a mirror lags, as all do after a publication", change("a", state.Fresh, state.Lagging, baseos), false},
		{"it caught up", change("a", state.Lagging, state.Fresh, baseos), false},
		{"it is stale", change("a", state.Lagging, state.Stale, baseos), true},
		{"it is listed again", change("a", state.Stale, state.Fresh, baseos), true},
		{"it was seen for the first time", change("a", state.Pending, state.Fresh, baseos), false},
		{"it does not carry a repository", change("a", state.Pending, state.Absent, baseos), false},
		{"its certificate ends", tls, true},
		{"a publication", state.Event{Kind: state.Published}, false},
		{"the origin is in trouble", state.Event{Kind: state.OriginTroubled}, true},
	} {
		if got := worthMail(&tt.e); got != tt.want {
			t.Errorf("%s: worth a mail = %v", tt.name, got)
		}
	}
}

func TestMailIsEncrypted(t *testing.T) {
	p := openPostOffice(t, nil)
	err := p.mailer(func(s *Mail) { s.Plain = false }).deliver(t.Context(), []state.Event{broken("a.example")})
	if err == nil || !strings.Contains(err.Error(), "STARTTLS") || len(p.received()) != 0 {
		t.Errorf("without TLS: %v, and %d mails", err, len(p.received()))
	}
	// A certificate that nobody vouches for is no protection.
	p = openPostOffice(t, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}})
	err = p.mailer(func(s *Mail) { s.Plain = false }).deliver(t.Context(), []state.Event{broken("a.example")})
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok || len(p.received()) != 0 {
		t.Errorf("with a certificate of nobody: %v, and %d mails", err, len(p.received()))
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)},
		&x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
