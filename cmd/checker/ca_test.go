package main

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meridian/cmd/internal/daemon"
)

// serveTLS serves a directory over https, and writes the certificate of who has
// issued that of the server to a file.
func serveTLS(t *testing.T, dir, ca string) (url string) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.FileServer(http.Dir(dir)))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that do not believe
	s.TLS = &tls.Config{}
	s.StartTLS()
	t.Cleanup(s.Close)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return s.URL + "/"
}

// A tier0, or mirrors, whose certificates an authority inside of an organisation
// has issued are believed when the settings name it, each for itself.
func TestAuthoritiesOfAnOrganisation(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	writeFiles(t, path("tree"), mirrorTree(t, 100, time.Now().Add(-time.Hour)))
	url := serveTLS(t, path("tree"), path("ca.pem"))
	mirror := path("127.0.0.1.yml")
	writeFiles(t, dir, map[string]string{
		"network.yml":   probeNetwork,
		"127.0.0.1.yml": fmt.Sprintf("name: 127.0.0.1\naddress: {https: %q}\nemail: admin@example.org\ngeolocation: {country: AT}\ncarries: {isos: false}\n", url),
		"empty.pem":     "nothing\n",
	})
	const unknown = "certificate signed by unknown authority"
	for _, tt := range []struct {
		name, settings string
		status         int
		want           string // printed
		not            string
	}{
		{"nobody is named", "", 1, unknown, "revision 100"},
		{"of tier0 alone", "origin_ca_file: ca.pem\n", 1, unknown, ""},
		{"of tier0 and mirrors", "origin_ca_file: ca.pem\nmirrors_ca_file: ca.pem\n", 0, "ok ", unknown},
		{"of mirrors alone", "mirrors_ca_file: ca.pem\n", 1, unknown, ""},
		{"a file that is not there", "origin_ca_file: gone.pem\n", 1, "origin_ca_file: open ", ""},
		{"a file without certificates", "mirrors_ca_file: empty.pem\n", 1, "has no certificate; write", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := path("checker.yml")
			text := fmt.Sprintf("network: network.yml\norigin: %s\nstate: dir:state\nallow_private_addresses: true\n%s", url, tt.settings)
			if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			status, out, errs := runProbe(t, "-config", config, mirror)
			out += errs
			if status != tt.status || !strings.Contains(out, tt.want) || tt.not != "" && strings.Contains(out, tt.not) {
				t.Errorf("status %d, want %d and %q:\n%s", status, tt.status, tt.want, out)
			}
		})
	}
}

// Whoever visits the mirrors believes in the same authorities.
func TestAuthoritiesOfARound(t *testing.T) {
	for _, tt := range []struct {
		name, settings string
		want           string // of the mirror; "": nothing could be found out
	}{
		{"nobody is named", "", ""},
		{"of tier0 alone", "origin_ca_file: ca.pem\n", "https is not secure"},
		{"of tier0 and mirrors", "origin_ca_file: ca.pem\nmirrors_ca_file: ca.pem\n", "2 fresh"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := func(name string) string { return filepath.Join(dir, name) }
			writeFiles(t, path("tree"), mirrorTree(t, 100, time.Now().Add(-time.Hour)))
			url := serveTLS(t, path("tree"), path("ca.pem"))
			plain := httptest.NewServer(http.FileServer(http.Dir(path("tree"))))
			t.Cleanup(plain.Close)
			writeFiles(t, dir, map[string]string{
				"network.yml": probeNetwork + "mirrors_dir: mirrors.d\n",
				"mirrors.d/127.0.0.1.yml": fmt.Sprintf("name: 127.0.0.1\naddress: {http: %q, https: %q}\nemail: admin@example.org\ngeolocation: {country: AT}\ncarries: {isos: false}\n",
					plain.URL+"/", url),
				"checker.yml": fmt.Sprintf("network: network.yml\norigin: %s\nstate: dir:state\ncache_dir: cache\ninterval: 1s\nallow_private_addresses: true\n%s", url, tt.settings),
			})
			var out, errs bytes.Buffer
			err := run(t.Context(), daemon.Env{Args: []string{"once", "-config", path("checker.yml")}, Stdout: &out, Stderr: &errs})
			if tt.want == "" {
				if err == nil || !strings.Contains(err.Error(), "the origin has none") {
					t.Errorf("error %v, want that nothing is known of the origin\n%s%s", err, &out, &errs)
				}
				return
			}
			if err != nil || !strings.Contains(out.String(), tt.want) {
				t.Errorf("error %v, want %q\n%s%s", err, tt.want, &out, &errs)
			}
		})
	}
}
