package mirrorlist

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// readCertificate reads the certificate of the public listener and puts it in
// service. A pair that is bad, or half replaced, leaves the old one there.
func (k *keeper) readCertificate() error {
	if k.cfg.TLS.Cert == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(k.cfg.TLS.Cert, k.cfg.TLS.Key)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", k.cfg.TLS.Cert, k.cfg.TLS.Key, err)
	}
	if pair.Leaf == nil { // only with GODEBUG=x509keypairleaf=0
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return fmt.Errorf("%s: %w", k.cfg.TLS.Cert, err)
		}
	}
	k.s.cert.Store(&pair)
	return nil
}

// tlsConfig returns the settings of the public listener. Each handshake takes the
// certificate that is in service.
func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := s.cert.Load(); c != nil {
				return c, nil
			}
			return nil, errors.New("mirrorlist: no certificate")
		},
	}
}
