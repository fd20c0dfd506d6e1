package testworld

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Fault is a way for a mirror to fail its clients. The zero value is none. A
// stale mirror has no fault of its own: let it Serve an old tree.
type Fault int

// The faults.
const (
	Healthy     Fault = iota
	Down              // refuses connections
	NotFound          // 404 for every path
	ServerError       // 500 for every path
	HTML              // 200 and a web page for every path, as a parked domain does
	Truncated         // promises the whole file, sends half and hangs up
	Slow              // sends twenty bytes a second
)

var faultNames = [...]string{"healthy", "down", "404", "500", "html", "truncated", "slow"}

func (f Fault) String() string { return faultNames[f] }

// A Hit is one request that a mirror was asked, answered or not.
type Hit struct {
	Method, Path, UserAgent string
}

// A Mirror serves a directory over HTTP from one loopback address until it is
// closed. Its methods may be called from several goroutines.
type Mirror struct {
	addr string

	mu    sync.Mutex // guards all below
	dir   string
	fault Fault
	hits  []Hit
	srv   *http.Server // nil while down
}

// StartMirror serves dir on addr, an address of this host's loopback with a port:
// "127.0.0.2:0", "[::1]:0".
func StartMirror(addr, dir string) (*Mirror, error) {
	// While it is down, its port stays its own.
	if host, port, err := net.SplitHostPort(addr); err == nil && port == "0" && strings.HasPrefix(host, "127.") {
		if addr, err = FreeAddr(host); err != nil {
			return nil, fmt.Errorf("start mirror: %w", err)
		}
	}
	ln, err := listenLoopback(addr)
	if err != nil {
		return nil, fmt.Errorf("start mirror: %w", err)
	}
	m := &Mirror{addr: ln.Addr().String(), dir: dir}
	m.serve(ln)
	return m, nil
}

// listenLoopback refuses anything that another machine could reach.
func listenLoopback(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("%s is not a loopback address; use 127.0.0.N:PORT or [::1]:PORT", addr)
	}
	return net.Listen("tcp", addr)
}

// serve runs with mu held, or before anybody else knows m.
func (m *Mirror) serve(ln net.Listener) {
	m.srv = &http.Server{Handler: m, ReadHeaderTimeout: 10 * time.Second}
	go m.srv.Serve(ln) // ends at Close, which Break(Down) and Close call
}

// Addr is the address, with port, that m listens on when it is not down.
func (m *Mirror) Addr() string { return m.addr }

// URL is the base URL of the tree, with the slash at its end.
func (m *Mirror) URL() string { return "http://" + m.addr + "/" }

// Serve makes m serve another directory from the next request on, as a sync
// would.
func (m *Mirror) Serve(dir string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dir = dir
}

// Break gives m the fault f; Healthy repairs it. Requests under way are cut off
// when m goes down. The error is that of listening again after Down.
func (m *Mirror) Break(f Fault) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
	switch {
	case f == Down && m.srv != nil:
		err := m.srv.Close()
		m.srv = nil
		return err
	case f != Down && m.srv == nil:
		ln, err := listenLoopback(m.addr)
		if err != nil {
			return fmt.Errorf("repair mirror: %w", err)
		}
		m.serve(ln)
	}
	return nil
}

// Hits are the requests so far, oldest first.
func (m *Mirror) Hits() []Hit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Hit(nil), m.hits...)
}

// Forget empties the list of Hits.
func (m *Mirror) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hits = nil
}

// Close stops listening and cuts off what is under way.
func (m *Mirror) Close() error {
	return m.Break(Down)
}

// ServeHTTP answers from the tree, or as the fault wants.
func (m *Mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.hits = append(m.hits, Hit{r.Method, r.URL.Path, r.UserAgent()})
	dir, fault := m.dir, m.fault
	m.mu.Unlock()

	files := http.FileServer(shown{http.Dir(dir)})
	switch fault {
	case NotFound:
		http.NotFound(w, r)
	case ServerError:
		http.Error(w, "internal error", http.StatusInternalServerError)
	case HTML:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, "<!DOCTYPE html>\n<html><title>Welcome</title><p>This domain is parked.</html>\n")
	case Truncated:
		files.ServeHTTP(&truncated{ResponseWriter: w}, r)
	case Slow:
		files.ServeHTTP(&dripping{w, r.Context()}, r)
	default:
		files.ServeHTTP(w, r)
	}
}

// shown is a directory as web servers show it: without names that begin with a
// dot, such as the .meridian of a tree that is published or followed.
type shown struct{ http.FileSystem }

func (s shown) Open(name string) (http.File, error) {
	if strings.Contains(name, "/.") {
		return nil, fs.ErrNotExist
	}
	f, err := s.FileSystem.Open(name)
	if err != nil {
		return nil, err
	}
	return shownFile{f}, nil
}

type shownFile struct{ http.File }

func (f shownFile) Readdir(n int) ([]fs.FileInfo, error) {
	infos, err := f.File.Readdir(n)
	return slices.DeleteFunc(infos, func(i fs.FileInfo) bool { return strings.HasPrefix(i.Name(), ".") }), err
}

// truncated sends half of the Content-Length that its header promises, and hangs
// up.
type truncated struct {
	http.ResponseWriter
	left int
}

func (t *truncated) WriteHeader(code int) {
	n, _ := strconv.Atoi(t.Header().Get("Content-Length"))
	t.left = n / 2
	t.ResponseWriter.WriteHeader(code)
}

func (t *truncated) Write(p []byte) (int, error) {
	if len(p) < t.left {
		t.left -= len(p)
		return t.ResponseWriter.Write(p)
	}
	t.ResponseWriter.Write(p[:t.left])
	// What was written must leave before the connection is cut.
	http.NewResponseController(t.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

// dripping sends twenty bytes a second until all is sent or nobody listens.
type dripping struct {
	http.ResponseWriter
	ctx context.Context // of the request
}

func (d *dripping) Write(p []byte) (int, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	sent := 0
	for part := range slices.Chunk(p, 20) {
		n, err := d.ResponseWriter.Write(part)
		sent += n
		if err == nil {
			err = http.NewResponseController(d.ResponseWriter).Flush()
		}
		if err != nil {
			return sent, err
		}
		select {
		case <-d.ctx.Done():
			return sent, d.ctx.Err()
		case <-tick.C:
		}
	}
	return sent, nil
}
