package notify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/smtp"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"meridian/checker/state"
)

// Mail sends what operators must know by SMTP: that their mirror is not listed
// any more, that it is again, that its certificate ends.
type Mail struct {
	// Server is HOST:PORT of the mail server. Port 465 is TLS from the first byte;
	// on others STARTTLS is demanded, unless Plain.
	Server string `yaml:"server"`

	From string `yaml:"from"` // address of the sender

	// To are administrators, who get all mails. Operators adds the operator of
	// the mirror, by the address in its file.
	To        []string `yaml:"to"`
	Operators bool     `yaml:"operators"`

	// User and PasswordFile, when the server wants to know who sends.
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password_file"`

	// Plain does without TLS. For a server on this host.
	Plain bool `yaml:"plain"`

	// Batch is how long events are gathered into one mail. Default 10m.
	Batch time.Duration `yaml:"batch"`

	// Pause is the least time between two mails about one mirror. What happens
	// within it is told together afterwards. Default 6h.
	Pause time.Duration `yaml:"pause"`

	// PerHour is the most mails sent within an hour. Default 60.
	PerHour int `yaml:"per_hour"`
}

func (m *Mail) check() error {
	var errs []error
	if _, _, err := net.SplitHostPort(m.Server); err != nil {
		errs = append(errs, fmt.Errorf("notify.mail.server: %q is not HOST:PORT; write one like smtp.example.org:587", m.Server))
	}
	if _, err := mail.ParseAddress(m.From); err != nil {
		errs = append(errs, fmt.Errorf("notify.mail.from: %q is not an address; write one like mirrors@example.org", m.From))
	}
	for _, to := range m.To {
		if _, err := mail.ParseAddress(to); err != nil {
			errs = append(errs, fmt.Errorf("notify.mail.to: %q is not an address; write one like admin@example.org", to))
		}
	}
	if len(m.To) == 0 && !m.Operators {
		errs = append(errs, errors.New("notify.mail: nobody to write to; write to: [ADDRESS], or operators: true"))
	}
	if m.User != "" && m.PasswordFile == "" {
		errs = append(errs, errors.New("notify.mail.password_file: missing for the user; name a file that holds the password"))
	}
	for name, d := range map[string]time.Duration{"batch": m.Batch, "pause": m.Pause} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("notify.mail.%s: %v is negative", name, d))
		}
	}
	if m.PerHour < 0 {
		errs = append(errs, fmt.Errorf("notify.mail.per_hour: %d is negative; leave mail out to send none", m.PerHour))
	}
	return errors.Join(errs...)
}

// worthMail chooses what an operator has to act upon, or waits for.
func worthMail(e *state.Event) bool {
	switch e.Kind {
	case state.TLSExpiring, state.OverrideChanged, state.OriginTroubled:
		return true
	case state.SchemeChanged:
		return e.Problem != nil
	case state.HealthChanged:
		return unlisted(e.To) || unlisted(e.From) && e.To.Listable()
	}
	return false
}

// unlisted are the verdicts that somebody can do something about.
func unlisted(h state.Health) bool {
	return h == state.Stale || h == state.Broken || h == state.Down
}

// A mailer is used by one goroutine.
type mailer struct {
	settings Mail
	address  func(mirror string) string
	page     func(mirror string) string
	password string

	// last is when a mail about a mirror was sent, and sent the times of all of
	// the last hour.
	last map[string]time.Time
	sent []time.Time
}

func newMailer(s Mail, o Options) *mailer {
	s.Batch, s.Pause, s.PerHour = cmp.Or(s.Batch, 10*time.Minute), cmp.Or(s.Pause, 6*time.Hour), cmp.Or(s.PerHour, 60)
	return &mailer{settings: s, address: o.Address, page: o.Page, password: o.Password, last: map[string]time.Time{}}
}

// deliver sends one mail for each mirror that there is something to say of.
func (m *mailer) deliver(ctx context.Context, events []state.Event) error {
	now := time.Now()
	maps.DeleteFunc(m.last, func(_ string, t time.Time) bool { return now.Sub(t) >= m.settings.Pause })
	m.sent = slices.DeleteFunc(m.sent, func(t time.Time) bool { return now.Sub(t) >= time.Hour })

	byMirror := map[string][]state.Event{}
	for _, e := range events {
		byMirror[e.Mirror] = append(byMirror[e.Mirror], e)
	}
	var later []state.Event
	var reason error
	dead := false
	for _, mirror := range slices.Sorted(maps.Keys(byMirror)) {
		about := byMirror[mirror]
		if settled(about) {
			continue
		}
		to := m.recipients(mirror)
		if len(to) == 0 {
			continue
		}
		if dead {
			later = append(later, about...)
			continue
		}
		// The origin is everybody's trouble: that it is gone is not told hours after
		// that somebody has decided something.
		if _, paused := m.last[mirror]; paused && mirror != "" || len(m.sent) >= m.settings.PerHour {
			later = append(later, about...)
			reason = cmp.Or(reason, errLater)
			continue
		}
		if err := m.send(ctx, to, m.message(mirror, to, about)); err != nil {
			later = append(later, about...)
			reason = err
			// Of what the server refuses it may take the next; a server that cannot
			// be talked to is not waited for once more for each.
			_, answered := errors.AsType[*textproto.Error](err)
			dead = !answered
			continue
		}
		m.last[mirror] = now
		m.sent = append(m.sent, now)
	}
	if len(later) > 0 {
		return &undelivered{later, reason}
	}
	return nil
}

// settled reports whether a mirror went and came back meanwhile, and nothing else
// happened: no reason to write.
func settled(events []state.Event) bool {
	down := map[state.Key]bool{}
	for _, e := range events {
		if e.Kind != state.HealthChanged || len(e.Keys) == 0 {
			return false
		}
		for _, k := range e.Keys {
			if _, seen := down[k]; !seen && !unlisted(e.To) {
				return false // it came back from before
			}
			down[k] = unlisted(e.To)
		}
	}
	for _, still := range down {
		if still {
			return false
		}
	}
	return true
}

func (m *mailer) recipients(mirror string) []string {
	to := slices.Clone(m.settings.To)
	if m.settings.Operators && mirror != "" && m.address != nil {
		// What a stranger wrote must be one address and nothing more.
		if a, err := mail.ParseAddress(m.address(mirror)); err == nil && !slices.Contains(to, a.Address) {
			to = append(to, a.Address)
		}
	}
	return to
}

// message writes a mail. Administrators and operators do not see each other's
// addresses: the header names nobody.
func (m *mailer) message(mirror string, to []string, events []state.Event) []byte {
	var b bytes.Buffer
	header := func(name, value string) {
		fmt.Fprintf(&b, "%s: %s\r\n", name, strings.NewReplacer("\r", " ", "\n", " ").Replace(value))
	}
	about := cmp.Or(mirror, "the origin")
	subject := events[len(events)-1].Title()
	if len(events) > 1 {
		subject = fmt.Sprintf("%s (and %d more)", subject, len(events)-1)
	}
	header("From", m.settings.From)
	header("To", "undisclosed-recipients:;")
	header("Date", time.Now().Format(time.RFC1123Z))
	header("Message-ID", "<"+rand.Text()+"@"+domain(m.settings.From)+">")
	header("Subject", mime.QEncoding.Encode("utf-8", clip(about+": "+subject, 200)))
	header("Auto-Submitted", "auto-generated")
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	w := quotedprintable.NewWriter(&b)
	for i := range events {
		e := &events[i]
		fmt.Fprintf(w, "%s\n%s\n", e.Time.UTC().Format("2006-01-02 15:04:05 UTC"), e.Title())
		if d := e.Details(); d != "" {
			fmt.Fprintf(w, "%s\n", d)
		}
		fmt.Fprintln(w)
	}
	if m.page != nil && mirror != "" {
		if page := m.page(mirror); page != "" {
			fmt.Fprintf(w, "More about this mirror: %s\n", page)
		}
	}
	w.Close() // to a buffer: no error
	return b.Bytes()
}

// domain is what stands behind the @ of an address that was checked.
func domain(address string) string {
	if a, err := mail.ParseAddress(address); err == nil {
		_, d, _ := strings.Cut(a.Address, "@")
		return d
	}
	return "localhost"
}

func clip(s string, most int) string {
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// sendTimeout bounds one conversation with the mail server.
const sendTimeout = time.Minute

func (m *mailer) send(ctx context.Context, to []string, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(m.settings.Server)
	if err != nil {
		return err
	}
	conf := &tls.Config{ServerName: host}
	var conn net.Conn
	if port == "465" {
		conn, err = (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", m.settings.Server)
	} else {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", m.settings.Server)
	}
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	defer conn.Close()
	if end, ok := ctx.Deadline(); ok {
		conn.SetDeadline(end)
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := m.talk(conn, host, port == "465", conf, to, message); err != nil {
		return fmt.Errorf("mail: %s: %w", m.settings.Server, err)
	}
	return nil
}

func (m *mailer) talk(conn net.Conn, host string, secure bool, conf *tls.Config, to []string, message []byte) error {
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return err
	}
	if !secure && !m.settings.Plain {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return errors.New("the server has no STARTTLS; use port 465, or write plain: true for a server on this host")
		}
		if err := c.StartTLS(conf); err != nil {
			return err
		}
	}
	if m.settings.User != "" {
		if err := c.Auth(smtp.PlainAuth("", m.settings.User, m.password, host)); err != nil {
			return err
		}
	}
	from, err := mail.ParseAddress(m.settings.From)
	if err != nil {
		return err
	}
	if err := c.Mail(from.Address); err != nil {
		return err
	}
	accepted := 0
	var refused error
	for _, r := range to {
		a, err := mail.ParseAddress(r)
		if err == nil {
			err = c.Rcpt(a.Address)
		}
		if err != nil {
			// One operator's dead address does not keep the administrators from it.
			refused = err
			continue
		}
		accepted++
	}
	if accepted == 0 {
		return refused
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(message); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	// The server has taken the mail: one that hangs up now is not sent it again.
	_ = c.Quit()
	return nil
}
