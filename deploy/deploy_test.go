// Package deploy_test checks the files of this directory as far as that can be
// done without a machine to install them on. It starts no service.
package deploy_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"meridian/internal/testworld"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// parseUnit returns the settings of a unit by "Section.Key"; what is set twice
// has several values.
func parseUnit(t *testing.T, name string) map[string][]string {
	t.Helper()
	settings := make(map[string][]string)
	section := ""
	n := 0
	for line := range strings.Lines(read(t, name)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '[' && line[len(line)-1] == ']' {
			section = line[1 : len(line)-1]
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section == "" || strings.TrimSpace(key) != key {
			t.Fatalf("%s:%d: %q is neither a section nor a setting in one", name, n, line)
		}
		settings[section+"."+key] = append(settings[section+"."+key], value)
	}
	return settings
}

func units(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("*.service")
	if err != nil || len(names) == 0 {
		t.Fatalf("units: %q, %v", names, err)
	}
	return names
}

func TestUnitsConfineTheirDaemon(t *testing.T) {
	want := map[string]string{
		"Service.User":                   "meridian",
		"Service.NoNewPrivileges":        "yes",
		"Service.ProtectSystem":          "strict",
		"Service.ProtectHome":            "yes",
		"Service.PrivateTmp":             "yes",
		"Service.MemoryDenyWriteExecute": "yes",
		"Service.CapabilityBoundingSet":  "",
		"Service.Restart":                "on-failure",
		"Install.WantedBy":               "multi-user.target",
	}
	for _, unit := range units(t) {
		got := parseUnit(t, unit)
		for key, value := range want {
			if !slices.Equal(got[key], []string{value}) {
				t.Errorf("%s: %s is %q, want %q", unit, key, got[key], value)
			}
		}
		if len(got["Service.SystemCallFilter"]) == 0 {
			t.Errorf("%s: SystemCallFilter is not set", unit)
		}
		// Without it daemons look for their cache in the home directory.
		if len(got["Service.CacheDirectory"]) > 0 && !slices.Contains(got["Service.Environment"], "XDG_CACHE_HOME=%C") {
			t.Errorf("%s: CacheDirectory is set, and XDG_CACHE_HOME is not: %q", unit, got["Service.Environment"])
		}
		if user := "u " + strings.Join(got["Service.User"], " ") + " "; !strings.Contains(read(t, "meridian.sysusers"), "\n"+user) {
			t.Errorf("%s: the user %q is not in meridian.sysusers", unit, got["Service.User"])
		}
	}
}

// systemd waits for a daemon of Type=notify until it says that it is ready, and
// kills one that never does. SIGHUP ends a program that does not listen to it.
func TestUnitsAskOfTheDaemonWhatItDoes(t *testing.T) {
	for _, unit := range units(t) {
		name := strings.TrimSuffix(strings.TrimPrefix(unit, "meridian-"), ".service")
		sources, err := filepath.Glob("../cmd/" + name + "/*.go")
		if err != nil || len(sources) == 0 {
			t.Errorf("%s: there is no command cmd/%s", unit, name)
			continue
		}
		var code strings.Builder
		for _, s := range sources {
			code.WriteString(read(t, s))
		}
		got := parseUnit(t, unit)
		if slices.Contains(got["Service.Type"], "notify") && !strings.Contains(code.String(), "daemon.SayReady(") {
			t.Errorf("%s: Type=notify, but cmd/%s never calls daemon.SayReady", unit, name)
		}
		if len(got["Service.ExecReload"]) > 0 && !strings.Contains(code.String(), "daemon.OnHangup(") {
			t.Errorf("%s: reloads with SIGHUP, but cmd/%s never calls daemon.OnHangup", unit, name)
		}
	}
}

func TestSystemdAcceptsTheUnits(t *testing.T) {
	analyze := testworld.Need(t, "systemd-analyze")
	for _, unit := range units(t) {
		// verify wants the program to be there.
		text := regexp.MustCompile(`(?m)^ExecStart=\S+`).ReplaceAllString(read(t, unit), "ExecStart=/bin/true")
		copied := write(t, filepath.Join(t.TempDir(), unit), text)
		if out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", copied).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify %s: %v\n%s", unit, err, out)
		}
	}
}

func TestContainerfile(t *testing.T) {
	text := read(t, "Containerfile")
	goMod := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	for _, want := range []string{
		"\nARG GO_IMAGE=golang:" + goMod[1] + "\nFROM ${GO_IMAGE} AS build\n", // what go.mod asks for
		"RUN CGO_ENABLED=0 go build ",
		"\nFROM scratch\n",
		"\nUSER 65532:65532\n",
		"\nENV XDG_CACHE_HOME=/var/cache\n", // of which the server uses meridian, made above
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the Containerfile has no %q", want)
		}
	}
	for _, m := range regexp.MustCompile(`\./cmd/[a-z]+`).FindAllString(text, -1) {
		if _, err := os.Stat(filepath.Join("..", m)); err != nil {
			t.Errorf("the Containerfile builds %s: %v", m, err)
		}
	}
}

func TestInstall(t *testing.T) {
	root := t.TempDir()
	tree := filepath.Join(root, "tree")
	// A checkout in which one command has been built.
	for _, dir := range []string{"bin", "deploy", "cmd/mirrorlist"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range append(units(t), "install", "nginx.conf", "meridian.sysusers") {
		write(t, filepath.Join(tree, "deploy", name), read(t, name))
	}
	write(t, filepath.Join(tree, "LICENSE"), "the licence\n")
	write(t, filepath.Join(tree, "cmd/mirrorlist/example.yml"), "listen: 127.0.0.1:8080\n")

	install := func() ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), "bash", filepath.Join(tree, "deploy/install"))
		cmd.Env = append(os.Environ(), "DESTDIR="+filepath.Join(root, "staged"), "PREFIX=/opt/m")
		return cmd.CombinedOutput()
	}
	if out, err := install(); err == nil || !strings.Contains(string(out), "make build") {
		t.Errorf("install before build: %v, want an error that names make build\n%s", err, out)
	}
	program := write(t, filepath.Join(tree, "bin/mirrorlist"), "a program")
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := install(); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
	installed := filepath.Join(root, "staged/opt/m")
	if info, err := os.Stat(filepath.Join(installed, "bin/meridian-mirrorlist")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the command is installed as %v, %v; want mode 0755", info, err)
	}
	unit := read(t, filepath.Join(installed, "lib/systemd/system/meridian-mirrorlist.service"))
	if !strings.Contains(unit, "\nExecStart=/opt/m/bin/meridian-mirrorlist serve ") {
		t.Errorf("the unit does not start what was installed:\n%s", unit)
	}
	for _, name := range []string{"share/doc/meridian/mirrorlist.yml", "share/doc/meridian/nginx.conf", "lib/sysusers.d/meridian.conf"} {
		if _, err := os.Stat(filepath.Join(installed, name)); err != nil {
			t.Error(err)
		}
	}
}

// The example, with the real nginx: whatever a client says of its address, the
// server is told the one that it has.
func TestNginxReplacesForwardedFor(t *testing.T) {
	nginx := testworld.Need(t, "nginx")
	got := make(chan *http.Request, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r
		io.WriteString(w, "https://mirror.example.org/9/")
	}))
	defer backend.Close()

	// Not t.TempDir: a socket path is at most 107 bytes long.
	dir, err := os.MkdirTemp("", "nginx")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cert, key := certificate(t, dir)
	socket := filepath.Join(dir, "http")
	site := strings.NewReplacer(
		"server 127.0.0.1:8080;", "server "+backend.Listener.Addr().String()+";",
		"listen 80;", "listen 127.0.0.1:0;",
		"listen [::]:80;", "listen unix:"+socket+";",
		"listen 443 ssl;", "listen unix:"+filepath.Join(dir, "https")+" ssl;",
		"listen [::]:443 ssl;", "",
		"/etc/meridian/tls/fullchain.pem", cert,
		"/etc/meridian/tls/privkey.pem", key,
	).Replace(read(t, "nginx.conf"))
	site = strings.Replace(site, "listen 127.0.0.1:0;", "set_real_ip_from unix:; real_ip_header X-Test-Peer;", 1)
	paths := ""
	for _, p := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		paths += fmt.Sprintf("%s_temp_path %s/%s;\n", p, dir, p)
	}
	conf := write(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(
		"daemon off; master_process off; pid %s/pid; error_log stderr;\nevents {}\nhttp {\naccess_log off;\n%s%s}\n", dir, paths, site))

	var log bytes.Buffer
	server := exec.Command(nginx, "-p", dir, "-e", "stderr", "-c", conf)
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- server.Wait() }()
	defer func() {
		server.Process.Kill()
		<-exited
	}()
	waitForSocket(t, socket, exited, &log)

	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableCompression: true,
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://mirrors.example.org//mirrorlist/9/baseos?arch=x86_64", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Test-Peer", "192.0.2.7") // the address that the connection would have
	req.Header.Set("X-Forwarded-For", "203.0.113.99, 198.51.100.1")
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "https://mirror.example.org/9/" {
		t.Errorf("the body is %q, %v; want it as the server sent it", body, err)
	}
	asked := <-got
	if xff := asked.Header.Values("X-Forwarded-For"); !slices.Equal(xff, []string{"192.0.2.7"}) {
		t.Errorf("the server was told %q, want the address of the peer alone", xff)
	}
	if asked.Host != "mirrors.example.org" || asked.RequestURI != "//mirrorlist/9/baseos?arch=x86_64" {
		t.Errorf("the server was asked for %s %s, want what the client asked for", asked.Host, asked.RequestURI)
	}
}

// waitForSocket returns when something accepts connections there.
func waitForSocket(t *testing.T, socket string, exited chan error, log *bytes.Buffer) {
	t.Helper()
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case err := <-exited:
			exited <- err
			t.Fatalf("nginx ended: %v\n%s", err, log)
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// certificate makes a key and a certificate for it, both in dir.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mirrors.example.org"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return write(t, filepath.Join(dir, "cert.pem"), block("CERTIFICATE", der)), write(t, filepath.Join(dir, "key.pem"), block("PRIVATE KEY", pkcs8))
}
