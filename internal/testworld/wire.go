package testworld

import (
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A Wire is a way to a server that can be cut, held up and made slow. It has a socket of its
// own, and leads to another.
type Wire struct {
	Socket string // path of the socket to connect to

	target string
	ln     net.Listener
	done   sync.WaitGroup

	mu    sync.Mutex // guards what follows
	moved *sync.Cond // bytes, or a change of mind
	up    flow
	down  flow
	slow  time.Duration // for each piece, either way; 0: not at all
	conns map[net.Conn]bool
}

// A flow is one direction of a wire, all connections together.
type flow struct {
	limit  int // bytes until all connections break; negative: none
	held   bool
	passed int
}

// NewWire leads to the socket at the path target. It ends with the test.
func NewWire(t testing.TB, target string) *Wire {
	t.Helper()
	w := &Wire{Socket: filepath.Join(TempDir(t), "wire.sock"), target: target, conns: make(map[net.Conn]bool)}
	w.moved = sync.NewCond(&w.mu)
	w.up.limit, w.down.limit = -1, -1
	ln, err := net.Listen("unix", w.Socket)
	if err != nil {
		t.Fatal(err)
	}
	w.ln = ln
	w.done.Go(w.accept)
	t.Cleanup(func() {
		ln.Close()
		w.Mend()
		w.breakAll()
		w.done.Wait()
	})
	return w
}

func (w *Wire) accept() {
	for {
		near, err := w.ln.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("unix", w.target)
		if err != nil {
			near.Close()
			continue
		}
		w.mu.Lock()
		w.conns[near], w.conns[far] = true, true
		w.mu.Unlock()
		w.done.Go(func() { w.carry(far, near, &w.up) })
		w.done.Go(func() { w.carry(near, far, &w.down) })
	}
}

// carry moves bytes of one direction of a connection until either side ends.
func (w *Wire) carry(to, from net.Conn, f *flow) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		w.mu.Lock()
		for f.held && w.conns[from] {
			w.moved.Wait()
		}
		cut := f.limit >= 0 && n > f.limit
		if cut {
			n = f.limit
		}
		if f.limit >= 0 {
			f.limit -= n
		}
		f.passed += n
		w.moved.Broadcast()
		w.mu.Unlock()
		if werr := w.write(to, buf[:n]); werr != nil || err != nil {
			return
		}
		if cut {
			w.breakAll()
			return
		}
	}
}

// slowPiece is how many bytes go through a slow wire at once.
const slowPiece = 64

func (w *Wire) write(to net.Conn, data []byte) error {
	for len(data) > 0 {
		w.mu.Lock()
		slow := w.slow
		w.mu.Unlock()
		n := len(data)
		if slow > 0 {
			n = min(n, slowPiece)
			time.Sleep(slow)
		}
		if _, err := to.Write(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func (w *Wire) breakAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.Close()
	}
	clear(w.conns)
	w.moved.Broadcast()
}

// CutUp breaks all connections after n more bytes on the way to the server, and
// new ones at once, until Mend.
func (w *Wire) CutUp(n int) { w.set(func() { w.up.limit = n }) }

// CutDown does so after n bytes on the way back.
func (w *Wire) CutDown(n int) { w.set(func() { w.down.limit = n }) }

// Hold lets nothing more through to the server until Mend, and keeps it.
func (w *Wire) Hold() { w.set(func() { w.up.held = true }) }

// Slow takes so long for every 64 bytes, either way, until Mend.
func (w *Wire) Slow(each time.Duration) { w.set(func() { w.slow = each }) }

// Mend ends what CutUp, CutDown, Hold and Slow began. What was held goes on, also that
// of clients that wait no longer.
func (w *Wire) Mend() {
	w.set(func() {
		w.up.limit, w.down.limit = -1, -1
		w.up.held, w.slow = false, 0
	})
}

func (w *Wire) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	w.moved.Broadcast()
}

// Passed returns how many bytes have gone to the server and back.
func (w *Wire) Passed() (up, down int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.up.passed, w.down.passed
}
