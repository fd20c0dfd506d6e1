package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"meridian/internal/testworld"
	"meridian/mirrorlist/geo/geotest"
)

var load = section{
	name:  "load",
	about: "CPU time of a request under load, beside gin hello world and nginx",
	run:   runLoad,
}

const (
	connections = 16
	perRound    = 20_000 // requests
)

// A rival is one of the servers that take turns.
type rival struct {
	name     string
	addr     string
	process  *process
	requests [][]byte

	cpu, p99 []time.Duration // of a request, by round
}

func runLoad(ctx context.Context, b *bench) (err error) {
	program, err := b.build(ctx, "cmd/mirrorlist", false)
	if err != nil {
		return err
	}
	tests, err := b.build(ctx, "mirrorlist", true)
	if err != nil {
		return err
	}
	w, err := newWorld()
	if err != nil {
		return err
	}
	var rivals []*rival
	defer func() {
		for _, r := range rivals {
			err = errors.Join(err, r.process.stop())
		}
	}()
	p, err := w.serve(ctx, program)
	if err != nil {
		return err
	}
	asked := requests(w.addr, geotest.Clients(10_000, 15))
	rivals = append(rivals, &rival{name: "list", addr: w.addr, process: p, requests: asked})
	body, err := bodyOf(ctx, w.url(listPath), geotest.Clients(1, 15)[0])
	if err != nil {
		return err
	}

	addr, err := testworld.FreeAddr("127.0.0.1")
	if err != nil {
		return err
	}
	if p, err = spawn(ctx, tests, "-test.run=^TestServeHello$", "-hello.addr="+addr, "-hello.body="+body); err != nil {
		return err
	}
	rivals = append(rivals, &rival{name: "gin hello world", addr: addr, process: p, requests: asked})
	if err := p.ready(ctx, "http://"+addr+listPath); err != nil {
		return err
	}

	if b.has("nginx", "CPU time of a list / nginx") {
		n, err := startNginx(ctx, b, body)
		if err != nil {
			return err
		}
		n.requests = asked
		rivals = append(rivals, n)
		if err := n.process.ready(ctx, "http://"+n.addr+listPath); err != nil {
			return err
		}
	}

	for range rounds {
		for _, r := range rivals {
			if err := r.round(ctx); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	ours := rivals[0]
	for _, r := range rivals {
		b.note("request under load: "+r.name, value{float64(median(r.cpu)) / 1e3, "µs CPU"})
		if r != ours {
			var ratios []float64
			for i, cpu := range r.cpu {
				ratios = append(ratios, float64(ours.cpu[i])/float64(cpu))
			}
			b.note("list / "+r.name, value{median(ratios), "×"})
		}
		b.note("99 % are answered within: "+r.name, value{float64(median(r.p99)) / 1e6, "ms"})
	}
	return nil
}

// round lets one rival answer for a while.
func (r *rival) round(ctx context.Context) error {
	before, err := r.process.cpu()
	if err != nil {
		return err
	}
	latencies, err := generate(ctx, r.addr, r.requests, perRound)
	if err != nil {
		return err
	}
	after, err := r.process.cpu()
	if err != nil {
		return err
	}
	r.cpu = append(r.cpu, (after-before)/time.Duration(len(latencies)))
	r.p99 = append(r.p99, latencies[len(latencies)*99/100])
	return nil
}

// listPath is what everybody asks for.
const listPath = "/mirrorlist/9/baseos?arch=x86_64"

// requests are those of clients behind a proxy on this host.
func requests(host string, clients []netip.Addr) [][]byte {
	list := make([][]byte, len(clients))
	for i, a := range clients {
		list[i] = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: libdnf (AlmaLinux 9.8; generic; Linux.x86_64)\r\nAccept: */*\r\nX-Forwarded-For: %s\r\n\r\n", listPath, host, a)
	}
	return list
}

// bodyOf is the list that one client is given.
func bodyOf(ctx context.Context, url string, client netip.Addr) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Forwarded-For", client.String())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return string(body), err
}

// startNginx starts one process of nginx that answers everything with body.
func startNginx(ctx context.Context, b *bench, body string) (*rival, error) {
	addr, err := testworld.FreeAddr("127.0.0.1")
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(body, "$'\\") {
		return nil, fmt.Errorf("nginx would read more into the body %q", body)
	}
	dir := filepath.Join(b.dir, "nginx")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr error;
events { worker_connections 1024; }
http {
    access_log off;
    default_type text/plain;
    client_body_temp_path %[1]s/body;
    proxy_temp_path %[1]s/proxy;
    fastcgi_temp_path %[1]s/fastcgi;
    uwsgi_temp_path %[1]s/uwsgi;
    scgi_temp_path %[1]s/scgi;
    keepalive_requests 1000000000;
    server {
        listen %[2]s;
        location / { return 200 '%[3]s'; }
    }
}
`, dir, addr, body)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	p, err := spawn(ctx, "nginx", "-p", dir, "-c", conf)
	if err != nil {
		return nil, err
	}
	return &rival{name: "nginx return 200", addr: addr, process: p}, nil
}

// generate sends n requests over kept connections, on each the next when the one
// before is answered, and returns how long each took, the shortest first.
func generate(ctx context.Context, addr string, requests [][]byte, n int) ([]time.Duration, error) {
	each := n / connections
	times := make([][]time.Duration, connections)
	g, ctx := errgroup.WithContext(ctx)
	for c := range connections {
		g.Go(func() error {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return err
			}
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			r := bufio.NewReader(conn)
			times[c] = make([]time.Duration, each)
			for i := range each {
				begun := time.Now()
				if _, err := conn.Write(requests[(c*each+i)%len(requests)]); err != nil {
					return err
				}
				if err := skipAnswer(r); err != nil {
					return err
				}
				times[c][i] = time.Since(begun)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := slices.Concat(times...)
	slices.SortFunc(all, cmp.Compare[time.Duration])
	return all, nil
}

// skipAnswer reads one answer with status 200 and a Content-Length, in as little
// time as that takes.
func skipAnswer(r *bufio.Reader) error {
	length, first := -1, true
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("the server answers %q", line)
		}
		first = false
		if len(line) <= 2 {
			break
		}
		const name = "Content-Length: "
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			length = 0
			for _, d := range bytes.TrimSpace(line[len(name):]) {
				length = length*10 + int(d-'0')
			}
		}
	}
	if length < 0 {
		return errors.New("the answer has no Content-Length")
	}
	_, err := r.Discard(length)
	return err
}
