package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// calm waits until the server has as few goroutines and connections as before.
func (d *daemonChild) calm(before float64) {
	d.t.Helper()
	// A connection of a client of this test may come and go meanwhile.
	eventually(d.t, "that nothing is left of it", func() bool { return d.metric("go_goroutines") <= before+5 })
}

func (d *daemonChild) dial() net.Conn {
	d.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	// For a test that would never end.
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		d.t.Fatal(err)
	}
	return conn
}

// Ten thousand clients that keep their connection, and say no more, keep nobody
// from the lists.
func TestIdleConnections(t *testing.T) {
	// Go has raised the soft limit of this process and of its child to the hard
	// one. Both need some for themselves.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n := 10_000
	if room := int(min(limit.Max, 1<<30)) - 200; room < n {
		n = room
		t.Logf("only %d connections: the limit of open files is %d", n, limit.Max)
	}
	if n < 500 {
		t.Skipf("the limit of open files is %d, want 10,200", limit.Max)
	}
	d := startDaemon(t, 3, "")
	before := d.metric("go_goroutines")
	memory := d.metric("process_resident_memory_bytes")

	addr := strings.TrimPrefix(d.url, "http://")
	conns := make([]net.Conn, n)
	var dialing sync.WaitGroup
	for part := range 8 {
		dialing.Go(func() {
			for i := part; i < n; i += 8 {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				conns[i] = conn
				// Each has been a good client once.
				fmt.Fprint(conn, "GET /mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				io.Copy(io.Discard, resp.Body)
			}
		})
	}
	dialing.Wait()
	if t.Failed() {
		return
	}
	if open := d.metric("process_open_fds"); open < float64(n) {
		t.Errorf("the server has %v open files, want more than the %d connections", open, n)
	}
	for range 20 {
		if lines := len(d.list()); lines != 3 {
			t.Errorf("a list has %d lines, want 3", lines)
		}
	}
	d.writeMirror("new.example.org", "linux")
	eventually(t, "a reload", func() bool { return len(d.list()) == 4 })
	grown := d.metric("process_resident_memory_bytes") - memory
	t.Logf("%d idle connections take %.1f kB each", n, grown/float64(n)/1000)
	if each := grown / float64(n); each > 64<<10 {
		t.Errorf("%d idle connections take %.0f bytes each, want less than 64 KiB", n, each)
	}
	for _, conn := range conns {
		conn.Close()
	}
	d.calm(before)
}

// Whatever strangers send, the server answers the next one and keeps nothing.
func TestHostileClients(t *testing.T) {
	d := startDaemon(t, 3, "")
	before := d.metric("go_goroutines")
	heap := func() float64 { return d.metric("go_memstats_heap_inuse_bytes") }
	memory := heap()
	const good = "GET /mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, tt := range []struct {
		name string
		text string
		want string // the beginning of the first answer; "" is anything, or none
		more int    // times, at once
	}{
		{"a header of 1 MB", "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "HTTP/1.1 431 ", 50},
		{"a URL of 1 MB", "GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 431 ", 50},
		{"a URL of 8 kB", "GET /mirrorlist/9/" + strings.Repeat("%41", 2700) + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 ", 50},
		{"a query of 8 kB", "GET /mirrorlist/9/baseos?" + strings.Repeat("a=b&", 2000) + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 ", 50},
		{"pipelined garbage", good + strings.Repeat("\x00\xff\r\n", 10_000), "HTTP/1.1 200 ", 50},
		{"a thousand pipelined requests", strings.Repeat(good, 1000), "HTTP/1.1 200 ", 10},
		{"a thousand pipelined requests of somebody who does not read", strings.Repeat(good, 1000), "", 10},
		{"a length and chunks", "GET /mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + good, "HTTP/1.1 200 ", 50},
		{"a body of 10 MB", "GET /mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" + strings.Repeat("x", 10_000_000), "HTTP/1.1 200 ", 4},
		{"a body of which the half is missing", "GET /mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nxx", "", 50},
		{"chunks without end", "GET /mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\nx\r\n", 100_000), "HTTP/1.1 200 ", 10},
		{"a chunk of all there is", "GET /mirrorlist/9/baseos HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx", "HTTP/1.1 200 ", 10},
		{"HTTP/1.0", "GET /mirrorlist/9/baseos HTTP/1.0\r\n\r\n", "HTTP/1.0 200 ", 50},
		{"a target with a host", "GET http://x.example/mirrorlist/9/baseos HTTP/1.1\r\nHost: y\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 ", 50},
		{"null bytes", strings.Repeat("\x00", 10_000) + "\r\n\r\n", "HTTP/1.1 400 ", 50},
		{"nothing", "", "", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var clients sync.WaitGroup
			for range tt.more {
				clients.Go(func() {
					conn, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
						t.Error(err)
						return
					}
					if tt.want == "" {
						io.WriteString(conn, tt.text) // and gone
						return
					}
					go io.WriteString(conn, tt.text) // the answer may come before all was read
					line, err := bufio.NewReader(conn).ReadString('\n')
					if err != nil || !strings.HasPrefix(line, tt.want) {
						t.Errorf("the answer is %q, %v, want %s", line, err, tt.want)
					}
				})
			}
			clients.Wait()
			if n := len(d.list()); n != 3 {
				t.Errorf("after it a list has %d lines, want 3", n)
			}
			d.calm(before)
		})
	}
	// The collector runs when it wants to; that it has is what is waited for.
	eventually(t, "that the memory is given back", func() bool {
		d.list()
		return heap() < memory+(32<<20)
	})
	select {
	case <-d.Done():
		t.Errorf("the server has ended: %v", d.Err())
	default:
	}
	if log := d.Log(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "panic") {
		t.Error("the log has errors")
	}
}

// Clients that drip their header occupy no more than their connection, and are
// cut off while others are served: by the timeout of ten seconds, which is the
// only one in these tests that is waited for.
func TestDrippingClients(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes ten seconds, which is the timeout of a header")
	}
	t.Parallel()
	d := startDaemon(t, 3, "")
	before := d.metric("go_goroutines")
	var dripping sync.WaitGroup
	for range 200 {
		conn := d.dial()
		dripping.Go(func() {
			defer conn.Close()
			fmt.Fprint(conn, "GET /mirrorlist/9/baseos HTTP/1.1\r\n")
			go func() {
				tick := time.NewTicker(100 * time.Millisecond)
				defer tick.Stop()
				for i := 0; ; i++ {
					if _, err := fmt.Fprintf(conn, "X-%d: y\r\n", i); err != nil {
						return // cut off
					}
					<-tick.C
				}
			}()
			// Until the server ends it; not even half a header is answered.
			answer, _ := io.ReadAll(conn)
			if strings.Contains(string(answer), " 200 ") {
				t.Errorf("half a header was answered:\n%s", answer)
			}
		})
	}
	if n := len(d.list()); n != 3 {
		t.Errorf("meanwhile a list has %d lines, want 3", n)
	}
	dripping.Wait()
	d.calm(before)
}
