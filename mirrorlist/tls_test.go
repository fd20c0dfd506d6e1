package mirrorlist

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newPair returns a certificate for loopback with a serial number, and its key,
// as PEM.
func newPair(t *testing.T, serial int64) (cert, key string) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Unix(4_000_000_000, 0), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return encode("CERTIFICATE", der), encode("EC PRIVATE KEY", keyDER)
}

func TestTLS(t *testing.T) {
	cert1, key1 := newPair(t, 1)
	cert2, key2 := newPair(t, 2)
	cert3, key3 := newPair(t, 3)
	roots := x509.NewCertPool()
	for _, c := range []string{cert1, cert2, cert3} {
		roots.AppendCertsFromPEM([]byte(c))
	}
	st := startIn(t, newFiles(t, 2), func(o *Options) {
		dir := filepath.Dir(o.Config.Network)
		o.Config.AdminListen = "127.0.0.1:0"
		o.Config.TLS = TLS{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
		writeFile(t, o.Config.TLS.Cert, cert1)
		writeFile(t, o.Config.TLS.Key, key1)
	})
	// get asks over a connection of its own, and returns the serial number of the
	// certificate and the protocol.
	get := func(h2 bool) (serial int64, proto, body string) {
		t.Helper()
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: h2}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Get(st.main + "/mirrorlist/9/baseos")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64(), resp.Proto, string(b)
	}
	serial := func() int64 { n, _, _ := get(false); return n }

	for h2, want := range map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"} {
		n, proto, body := get(h2)
		if n != 1 || proto != want || strings.Count(body, "\n") != 1 {
			t.Errorf("certificate %d over %s, want 1 over %s: %q", n, proto, want, body)
		}
	}
	if page, _ := st.get(st.admin + "/metrics"); !strings.Contains(page, "meridian_mirrorlist_certificate_expiry_timestamp_seconds 4e+09") {
		t.Errorf("the metrics do not tell when the certificate ends:\n%s", page)
	}
	old, err := tls.Dial("tcp", strings.TrimPrefix(st.main, "https://"), &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	if err == nil {
		old.Close()
		t.Error("TLS 1.1 is spoken")
	}

	// A connection that is open stays with the certificate that it began with.
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: false}
	defer tr.CloseIdleConnections()
	kept := &http.Client{Transport: tr}
	ask := func() {
		t.Helper()
		resp, err := kept.Get(st.main + "/mirrorlist/9/baseos")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if n := resp.TLS.PeerCertificates[0].SerialNumber.Int64(); n != 1 {
			t.Errorf("the open connection has certificate %d", n)
		}
	}
	ask()

	st.write("cert.pem", cert2) // half of the pair
	until(t, "a pair that does not match", func() bool { return st.degraded("tls", "cert.pem and "+filepath.Join(st.dir, "key.pem")+": ") })
	if n := serial(); n != 1 {
		t.Errorf("with half a pair certificate %d is served, want still 1", n)
	}
	st.write("key.pem", key2)
	until(t, "the second pair", func() bool { return serial() == 2 && st.fine() })
	ask()

	st.write("cert.pem", "no certificate at all")
	until(t, "a broken certificate", func() bool { return st.degraded("tls", "cert.pem") })
	if n := serial(); n != 2 {
		t.Errorf("with a broken file certificate %d is served, want still 2", n)
	}
	st.write("cert.pem", cert3)
	st.write("key.pem", key3)
	until(t, "the third pair", func() bool { return serial() == 3 && st.fine() })
}

// Who speaks no TLS is told so, and the next one is served.
func TestPlainRequestToTLS(t *testing.T) {
	cert, key := newPair(t, 1)
	st := startIn(t, newFiles(t, 1), func(o *Options) {
		dir := filepath.Dir(o.Config.Network)
		o.Config.TLS = TLS{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
		writeFile(t, o.Config.TLS.Cert, cert)
		writeFile(t, o.Config.TLS.Key, key)
	})
	resp, err := http.Get(strings.Replace(st.main, "https://", "http://", 1) + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("status %s, want 400", fmt.Sprint(resp.StatusCode))
	}
	conn, err := tls.Dial("tcp", strings.TrimPrefix(st.main, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
