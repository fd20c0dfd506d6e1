package checker

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Rooted returns s with relative paths below dir, the directory of the file that
// they were read from.
func (s Settings) Rooted(dir string) Settings {
	for _, p := range []*string{&s.Network, &s.Overrides, &s.SecretFile, &s.CacheDir, &s.OriginCAFile, &s.MirrorsCAFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	if path, ok := strings.CutPrefix(s.State, "dir:"); ok && path != "" && !filepath.IsAbs(path) {
		s.State = "dir:" + filepath.Join(dir, path)
	}
	if w := s.Notify.Webhook; w != nil && w.SecretFile != "" && !filepath.IsAbs(w.SecretFile) {
		rooted := *w
		rooted.SecretFile = filepath.Join(dir, w.SecretFile)
		s.Notify.Webhook = &rooted
	}
	if m := s.Notify.Mail; m != nil && m.PasswordFile != "" && !filepath.IsAbs(m.PasswordFile) {
		rooted := *m
		rooted.PasswordFile = filepath.Join(dir, m.PasswordFile)
		s.Notify.Mail = &rooted
	}
	s.Origin = s.Origin.Rooted(dir)
	return s
}

// Page is the URL of the page about a mirror, "" if there are no pages.
func (s *Settings) Page(mirror string) string {
	if s.PublicURL == "" {
		return ""
	}
	return strings.TrimRight(s.PublicURL, "/") + "/mirrors/" + url.PathEscape(mirror)
}

// ReadCAs returns the system's certificate authorities together with those of a
// file in PEM. Without a file it is nil, which means the system's.
func ReadCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, err
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate; write those of the authorities, each from BEGIN CERTIFICATE to END CERTIFICATE", file)
	}
	return pool, nil
}

// Check reports what is wrong with settings, and puts the defaults in.
func (s *Settings) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Network == "" {
		bad("the network is not named; write network: network.yml")
	}
	if len(s.Origin[mainTree]) == 0 {
		bad("the origin is not named; write origin: https://tier0.example.org/")
	}
	if s.State == "" {
		bad("it is not said where findings are kept; write state: dir:/var/lib/meridian")
	}
	switch {
	case s.Interval == 0:
		s.Interval = quietest
	case s.Interval < time.Second || s.Interval > quietest:
		bad("interval: %s is out of range; write 1s to 15m", s.Interval)
	}
	if s.Listen != "" {
		if _, _, err := net.SplitHostPort(s.Listen); err != nil {
			bad("listen: %q is not an address; write HOST:PORT, such as 127.0.0.1:8082", s.Listen)
		}
	}
	if u, err := url.Parse(s.PublicURL); s.PublicURL != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		bad("public_url: %q is not a URL; write one such as https://mirrors.example.org", s.PublicURL)
	}
	if err := s.Notify.Check(); err != nil {
		errs = append(errs, err)
	}
	if s.ContactURL != "" && !strings.HasPrefix(s.ContactURL, "https://") && !strings.HasPrefix(s.ContactURL, "http://") && !strings.HasPrefix(s.ContactURL, "mailto:") {
		bad("contact_url: %q is not a URL; write one such as https://mirrors.example.org/contact", s.ContactURL)
	}
	if strings.ContainsFunc(s.Vantage, func(c rune) bool {
		return c != '-' && c != '_' && !('a' <= c && c <= 'z') && !('A' <= c && c <= 'Z') && !('0' <= c && c <= '9')
	}) {
		bad("vantage: %q is not a word of letters, digits, - and _; write one such as paris", s.Vantage)
	}
	return errors.Join(errs...)
}
