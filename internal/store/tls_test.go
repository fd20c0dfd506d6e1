package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meridian/internal/testworld"
)

// An authority is one that nobody trusts, for a test.
type authority struct {
	file string // its certificate
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{file: filepath.Join(t.TempDir(), name+".crt")}
	a.cert, a.key = a.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, a.file)
	return a
}

// sign makes a certificate for addresses and its key: NAME.crt and NAME.key.
func (a *authority) sign(t *testing.T, name string, ips ...string) (cert, key string) {
	t.Helper()
	base := filepath.Join(filepath.Dir(a.file), name)
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	for _, ip := range ips {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	_, private := a.issue(t, template, base+".crt")
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, base+".key", "PRIVATE KEY", der)
	return base + ".crt", base + ".key"
}

// issue writes a certificate, which is signed by a, or by itself before a has a
// certificate.
func (a *authority) issue(t *testing.T, template *x509.Certificate, file string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, file, "CERTIFICATE", der)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A Redis with TLS listens on both, and its certificate is for the first.
const tlsHost, otherTLSHost = "127.0.46.7", "127.0.46.8"

// A tlsRedis is a Redis that answers with TLS alone, and what goes with it.
type tlsRedis struct {
	ours      *authority
	addr      string
	cert, key string // of a client
	config    string // what a Sentinel beside it is set up with
}

// startTLS starts one that asks clients for a certificate, or not.
func startTLS(t *testing.T, authClients string) *tlsRedis {
	t.Helper()
	r := &tlsRedis{ours: newAuthority(t, "ours")}
	cert, key := r.ours.sign(t, "server", tlsHost)
	r.cert, r.key = r.ours.sign(t, "client")
	port := freePort(t, tlsHost)
	r.addr = net.JoinHostPort(tlsHost, port)
	var settings []string
	for _, s := range [][2]string{{"tls-cert-file", cert}, {"tls-key-file", key}, {"tls-ca-cert-file", r.ours.file}, {"tls-auth-clients", authClients}, {"tls-replication", "yes"}} {
		settings = append(settings, "--"+s[0], s[1])
		r.config += s[0] + " " + s[1] + "\n"
	}
	testworld.StartRedis(t, append(settings, "--bind", tlsHost, otherTLSHost, "--tls-port", port)...)
	return r
}

// Of rediss:// a certificate is believed that the authority in ca_file has signed
// for that host, and no other; what is wrong is said.
func TestRedisWithTLS(t *testing.T) {
	r := startTLS(t, "no")
	other := newAuthority(t, "other")
	empty := filepath.Join(t.TempDir(), "empty.crt")
	if err := os.WriteFile(empty, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	url := "rediss://" + r.addr + "/0"
	t.Run("works", func(t *testing.T) {
		w := ready(t, openURL(t, url+"?ca_file="+r.ours.file, Options{}))
		write(t, w, step(0, "n", "1"))
		s := openURL(t, url+"?ca_file="+r.ours.file, Options{})
		wantFields(t, must[*Record](t)(s.Read(t.Context(), "r", "", nil)), map[string]string{"n": "1"})
		heard := make(chan struct{}, 10)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Watch(ctx, "r", func() { heard <- struct{}{} })
		}()
		defer func() { cancel(); <-done }()
		<-heard // that it has subscribed
		write(t, w, step(1, "n", "2"))
		<-heard
	})
	for _, tt := range []struct{ name, url, want string }{
		{"without an authority", url, "is not signed by who this system trusts: x509: certificate signed by unknown authority"},
		{"with the wrong authority", url + "?ca_file=" + other.file, "is not signed by the authority in ca_file, " + other.file + ": x509: certificate signed by unknown authority"},
		{"with a file that is not there", url + "?ca_file=/nowhere/ca.crt", "ca_file: open /nowhere/ca.crt: no such file or directory"},
		{"with a file of something else", url + "?ca_file=" + empty, "ca_file: " + empty + " has no certificate; write PEM into it"},
		{"for another host", strings.Replace(url, tlsHost, otherTLSHost, 1) + "?ca_file=" + r.ours.file, "x509: certificate is valid for " + tlsHost + ", not " + otherTLSHost},
		{"with a key that is not there", url + "?ca_file=" + r.ours.file + "&cert_file=" + r.cert + "&key_file=/nowhere/key", "cert_file, key_file: open /nowhere/key: no such file or directory"},
		{"without TLS", "redis://" + r.addr + "/0", "redis://" + r.addr},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := openURL(t, tt.url, Options{}).Names(t.Context(), "r")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	t.Run("with an authority that is replaced", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "ca.crt")
		s := openURL(t, url+"?ca_file="+file, Options{})
		for _, a := range []*authority{other, r.ours} {
			text := must[[]byte](t)(os.ReadFile(a.file))
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Names(t.Context(), "r"); (err == nil) != (a == r.ours) {
				t.Errorf("with the authority %s: %v", a.file, err)
			}
		}
	})
}

// A Redis may demand a certificate of its clients, as it does by default.
func TestRedisWantsToKnowItsClients(t *testing.T) {
	r := startTLS(t, "yes")
	url := "rediss://" + r.addr + "/0?ca_file=" + r.ours.file
	w := ready(t, openURL(t, url+"&cert_file="+r.cert+"&key_file="+r.key, Options{}))
	write(t, w, step(0, "n", "1"))
	if _, err := openURL(t, url, Options{}).Names(t.Context(), "r"); err == nil || !strings.Contains(err.Error(), "it asks who connects: name a certificate with cert_file and key_file") {
		t.Errorf("without a certificate: %v", err)
	}
	stranger, key := newAuthority(t, "other").sign(t, "stranger")
	// What it says of that one may be lost: it hangs up at the same time.
	if _, err := openURL(t, url+"&cert_file="+stranger+"&key_file="+key, Options{}).Names(t.Context(), "r"); err == nil {
		t.Errorf("with the certificate of a stranger: %v", err)
	}
}

// Both the Sentinels and the Redis that they name are asked with TLS, and show a
// certificate that is believed.
func TestSentinelWithTLS(t *testing.T) {
	r := startTLS(t, "yes")
	host, port, _ := strings.Cut(r.addr, ":")
	sentinelPort := freePort(t, tlsHost)
	sentinel := net.JoinHostPort(tlsHost, sentinelPort)
	testworld.StartSentinel(t, sentinel, fmt.Sprintf("port 0\ntls-port %s\n%ssentinel monitor m %s %s 1\n", sentinelPort, r.config, host, port))
	files := "&cert_file=" + r.cert + "&key_file=" + r.key
	url := "rediss+sentinel://" + sentinel + "/m/0?ca_file="
	w := ready(t, openURL(t, url+r.ours.file+files, Options{}))
	write(t, w, step(0, "n", "1"))
	wantFields(t, must[*Record](t)(openURL(t, url+r.ours.file+files, Options{}).Read(t.Context(), "r", "", nil)), map[string]string{"n": "1"})
	other := newAuthority(t, "other")
	if _, err := openURL(t, url+other.file+files, Options{}).Names(t.Context(), "r"); err == nil || !strings.Contains(err.Error(), "is not signed by the authority in ca_file, "+other.file) {
		t.Errorf("with the wrong authority: %v", err)
	}
	if _, err := openURL(t, url+r.ours.file, Options{}).Names(t.Context(), "r"); err == nil {
		t.Error("without a certificate there is no error")
	}
}
