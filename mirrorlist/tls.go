package mirrorlist

import (
	"crypto/tls"
	"fmt"
	"sync"
)

// certificates serves a certificate from two files, and reads them again when
// they were replaced, as ACME clients do.
type certificates struct {
	cert, key string

	mu   sync.Mutex // guards what follows
	from listing
	have *tls.Certificate
}

// get returns the certificate. A pair that is bad, or half replaced, keeps the
// old one in service.
func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from, err := list([]string{c.cert, c.key})
	if err == nil && c.have != nil && from == c.from {
		return c.have, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		if c.have != nil {
			return c.have, nil
		}
		return nil, fmt.Errorf("tls: %w", err)
	}
	c.have, c.from = &pair, from
	return c.have, nil
}
