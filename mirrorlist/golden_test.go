package mirrorlist

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"gopkg.in/yaml.v3"

	"meridian/mirrorlist/geo"
)

var update = flag.Bool("update", false, "write what is answered into the golden files")

// A golden world is a txtar archive: its comment says a rule; its files are those
// of a server, over the ones in testdata/base. geo is the databases as a table,
// hosts the addresses of hosts, time the clock. Then come pairs: "request: TITLE"
// has METHOD TARGET from PEER and header lines, "response" what is answered, all
// of it but the Date. EXPLAIN VERSION/REPO from ADDRESS is what the command line
// prints. Secret, time and files are fixed, so nothing is left out or replaced.
func TestGoldenWorlds(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden worlds: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if strings.TrimSpace(string(archive.Comment)) == "" {
				t.Error("the archive does not say which rule it shows")
			}
			world, exchanges := splitWorld(t, archive)
			s := startWorld(t, world)
			front := newFront(t, s)
			for _, x := range exchanges {
				t.Run(x.title, func(t *testing.T) {
					got := front.exchange(t, string(x.request.Data))
					if *update {
						x.response.Data = []byte(got)
					} else if want := string(x.response.Data); got != want {
						t.Errorf("%s\ngot:\n%s\nwant:\n%s", x.request.Data, got, want)
					}
				})
			}
			if *update && !t.Failed() {
				if err := os.WriteFile(path, txtar.Format(archive), 0o666); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

type exchange struct {
	title             string
	request, response *txtar.File
}

// splitWorld returns the files of a world, and its requests.
func splitWorld(t *testing.T, archive *txtar.Archive) (files map[string][]byte, exchanges []exchange) {
	t.Helper()
	files = map[string][]byte{}
	for i := range archive.Files {
		f := &archive.Files[i]
		switch title, ok := strings.CutPrefix(f.Name, "request: "); {
		case ok:
			if i+1 == len(archive.Files) || archive.Files[i+1].Name != "response" {
				t.Fatalf("%s has no response behind it", f.Name)
			}
			exchanges = append(exchanges, exchange{title, f, &archive.Files[i+1]})
		case f.Name == "response":
			if i == 0 || !strings.HasPrefix(archive.Files[i-1].Name, "request: ") {
				t.Fatalf("a response to nothing")
			}
		default:
			files[f.Name] = f.Data
		}
	}
	if len(exchanges) == 0 {
		t.Fatal("no requests")
	}
	return files, exchanges
}

// startWorld starts a server on files over those of testdata/base.
func startWorld(t testing.TB, files map[string][]byte) *Server {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/base")); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return data
	}

	cfg := Config{Network: "network.yml", SecretFile: "secret", CacheDir: "cache", AllowPrivateAddresses: true, RequestsPerSecond: -1}
	if len(read("geo")) > 0 {
		cfg.Geo = Geo{"geo", "geo"}
	}
	if len(read("state/snapshot.json")) > 0 {
		cfg.State = "dir:state"
	}
	settings := yaml.NewDecoder(strings.NewReader(string(read("mirrorlist.yml"))))
	settings.KnownFields(true)
	if err := settings.Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("mirrorlist.yml: %v", err)
	}
	now, err := time.Parse(time.RFC3339, strings.TrimSpace(string(read("time"))))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "cache"), 0o777); err != nil {
		t.Fatal(err)
	}
	hosts, err := json.Marshal(readHosts(t, string(read("hosts"))))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cache", "hosts.json"), hosts, 0o666); err != nil {
		t.Fatal(err)
	}
	s, err := New(t.Context(), Options{
		Config:   cfg.Rooted(dir),
		Log:      slog.New(slog.DiscardHandler),
		Compile:  compileTable,
		Resolver: noNames{},
		Now:      func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.keeper.build(true)
	for _, line := range s.Status().Lines() {
		if !strings.HasPrefix(line, "degraded: state age: ") && !strings.HasPrefix(line, "degraded: fallback_mirrors: ") {
			t.Error(line)
		}
	}
	return s
}

// readHosts reads lines of a host and its addresses.
func readHosts(t testing.TB, text string) map[string]hostAddrs {
	t.Helper()
	hosts := map[string]hostAddrs{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			t.Fatalf("hosts: %q is not a host with its addresses", line)
		}
		var h hostAddrs
		for _, f := range fields[1:] {
			if a := netip.MustParseAddr(f); a.Is4() {
				h.V4 = append(h.V4, a)
			} else {
				h.V6 = append(h.V6, a)
			}
		}
		hosts[fields[0]] = h
	}
	return hosts
}

// compileTable makes a snapshot of a table: prefix, country, continent, latitude,
// longitude, ASN, city; "-" where nothing is known.
func compileTable(_ context.Context, table, out string) error {
	data, err := os.ReadFile(table)
	if err != nil {
		return err
	}
	var records []geo.Record
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) < 6 {
			return fmt.Errorf("%s: %q has not six fields", table, line)
		}
		for i := range f {
			if f[i] == "-" {
				f[i] = ""
			}
		}
		var r geo.Record
		if r.Prefix, err = netip.ParsePrefix(f[0]); err != nil {
			return err
		}
		if f[5] != "" {
			asn, err := strconv.ParseUint(f[5], 10, 32)
			if err != nil {
				return err
			}
			r.ASN = uint32(asn)
		}
		if f[1] != "" || f[3] != "" {
			r.Place = &geo.Place{HasCoordinates: f[3] != "", City: strings.Join(f[6:], " ")}
			copy(r.Place.Country[:], f[1])
			copy(r.Place.Continent[:], f[2])
			if f[3] != "" {
				var e1, e2 error
				r.Place.Lat, e1 = strconv.ParseFloat(f[3], 64)
				r.Place.Lon, e2 = strconv.ParseFloat(f[4], 64)
				if err := errors.Join(e1, e2); err != nil {
					return err
				}
			}
		}
		records = append(records, r)
	}
	return geo.Write(out, "Golden", time.Unix(1_790_000_000, 0), slices.Values(records))
}

// A front is a real HTTP server in front of a world, on connections whose other
// end is whoever a request says.
type front struct {
	s     *Server
	conns chan net.Conn
	done  chan struct{}
}

func newFront(t testing.TB, s *Server) *front {
	f := &front{s, make(chan net.Conn), make(chan struct{})}
	h, _ := s.Handlers()
	srv := &http.Server{Handler: h, MaxHeaderBytes: maxHeader, ConnContext: s.withCaller, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(f) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the server ended: %v", err)
		}
	})
	return f
}

// Accept, Close and Addr make a front the listener of its server.
func (f *front) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

func (f *front) Close() error {
	close(f.done)
	return nil
}

func (f *front) Addr() net.Addr { return peerAddr("192.0.2.1:80") }

type peerAddr string

func (p peerAddr) Network() string { return "tcp" }
func (p peerAddr) String() string  { return string(p) }

type peerConn struct {
	net.Conn
	peer peerAddr
}

func (c peerConn) RemoteAddr() net.Addr { return c.peer }

// exchange sends the request that a text describes, and returns the response.
func (f *front) exchange(t *testing.T, text string) string {
	t.Helper()
	first, headers, _ := strings.Cut(text, "\n")
	words := strings.Fields(first)
	if len(words) != 4 || words[2] != "from" {
		t.Fatalf("%q is not METHOD TARGET from PEER", first)
	}
	method, target, from := words[0], words[1], words[3]
	if method == "EXPLAIN" {
		return f.explain(t, target, from, headers)
	}
	ours, theirs := net.Pipe()
	defer ours.Close()
	if a, err := netip.ParseAddr(from); err == nil {
		from = netip.AddrPortFrom(a, 50000).String()
	}
	f.conns <- peerConn{theirs, peerAddr(from)}
	go func() {
		fmt.Fprintf(ours, "%s %s HTTP/1.1\r\nHost: mirrors.example.org\r\nConnection: close\r\n%s\r\n", method, target, strings.ReplaceAll(headers, "\n", "\r\n"))
	}()
	resp, err := http.ReadResponse(bufio.NewReader(ours), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", resp.StatusCode)
	if resp.TransferEncoding != nil {
		fmt.Fprintf(&b, "Transfer-Encoding: %s\n", strings.Join(resp.TransferEncoding, ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(resp.Header)) {
		if name != "Date" && name != "Connection" {
			fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(resp.Header[name], " | "))
		}
	}
	if len(body) > 0 {
		fmt.Fprintf(&b, "\n%s", body)
		if body[len(body)-1] != '\n' {
			b.WriteString("\n") // Content-Length tells
		}
	}
	return b.String()
}

// explain prints what the command line prints.
func (f *front) explain(t *testing.T, target, from, settings string) string {
	t.Helper()
	var in Inquiry
	var ok bool
	if in.Version, in.Repo, ok = strings.Cut(target, "/"); !ok {
		t.Fatalf("%q is not VERSION/REPO", target)
	}
	in.Addr, _ = parseAddr(from)
	for line := range strings.Lines(settings) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Arch":
			in.Arch = value
		case "Country":
			in.Country = value
		case "Protocol":
			in.Protocol = value
		case "All":
			in.All = value == "yes"
		default:
			t.Fatalf("%q is no setting of an explanation", line)
		}
	}
	e, err := f.s.Explain(in)
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	if err := e.Print(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
