package checker

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meridian/checker/state"
	"meridian/internal/testworld"
	"meridian/schema"
)

// listenTCP serves connections to a port of loopback with f, which closes them,
// and returns the address.
func listenTCP(t *testing.T, f func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			served.Go(func() { f(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		served.Wait()
	})
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// rsyncDaemon serves dir as the module alma: one real daemon for each connection,
// as inetd would start it.
func rsyncDaemon(t *testing.T, program, dir string) netip.AddrPort {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "rsyncd.conf")
	text := fmt.Sprintf("log file = %s\nuse chroot = no\n[alma]\npath = %s\nread only = yes\n", conf+".log", dir)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return listenTCP(t, func(c *net.TCPConn) {
		defer c.Close()
		socket, err := c.File()
		if err != nil {
			return
		}
		defer socket.Close()
		cmd := exec.Command(program, "--daemon", "--config="+conf)
		cmd.Stdin, cmd.Stdout = socket, socket
		cmd.Run() // its status is for the client to see
	})
}

func visitRsync(t *testing.T, opts ProbeOptions, raw string, edit func(*Prober)) (Answer, *Observation) {
	t.Helper()
	p := NewProber(opts)
	t.Cleanup(p.Close)
	if edit != nil {
		edit(p)
	}
	m := &schema.Mirror{Name: "mirror.example.org", Address: schema.Address{Rsync: raw}}
	o := p.Visit(t.Context(), m, Plan{Network: probeNetwork(t), Schemes: true})
	return o.Schemes["rsync"], o
}

func TestModuleOfRsyncDaemon(t *testing.T) {
	program := testworld.Need(t, "rsync")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, timeFile), []byte("1767225600\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// Variables of whoever started the checker lead rsync nowhere.
	var elsewhere atomic.Int32
	proxy := listenTCP(t, func(c *net.TCPConn) {
		elsewhere.Add(1)
		c.Close()
	})
	t.Setenv("RSYNC_PROXY", proxy.String())
	t.Setenv("RSYNC_CONNECT_PROG", "nc "+strings.ReplaceAll(proxy.String(), ":", " "))

	daemon := rsyncDaemon(t, program, dir)
	silent := listenTCP(t, func(c *net.TCPConn) {
		io.Copy(io.Discard, c)
		c.Close()
	})
	endless := listenTCP(t, func(c *net.TCPConn) {
		defer c.Close()
		for _, err := io.WriteString(c, "@RSYNCD: 31.0\n"); err == nil; {
			_, err = io.WriteString(c, strings.Repeat("welcome\n", 1000))
		}
	})
	web := listenTCP(t, func(c *net.TCPConn) {
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		c.Close()
	})
	for _, tt := range []struct {
		name, url string
		ok        bool
		err       string
	}{
		{name: "a module", url: fmt.Sprintf("rsync://%s/alma/", daemon), ok: true},
		{name: "a module without a slash", url: fmt.Sprintf("rsync://%s/alma", daemon), ok: true},
		{name: "a module that is not there", url: fmt.Sprintf("rsync://%s/ubuntu/", daemon), err: "Unknown module"},
		{name: "a directory that is not there", url: fmt.Sprintf("rsync://%s/alma/9/", daemon), err: "No such file"},
		{name: "another protocol", url: fmt.Sprintf("rsync://%s/alma/", web), err: "greeting"},
		{name: "no answer", url: fmt.Sprintf("rsync://%s/alma/", silent), err: "no whole listing within"},
		{name: "an answer without end", url: fmt.Sprintf("rsync://%s/alma/", endless), err: "no whole listing within"},
		{name: "another scheme", url: "ssh://mirror.example.org/alma/", err: "write rsync://HOST/MODULE/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, o := visitRsync(t, ProbeOptions{AllowPrivateAddresses: true, Rsync: program, Vantage: "vienna"}, tt.url, func(p *Prober) {
				if p.rsyncTimeout = 5 * time.Minute; strings.HasPrefix(tt.err, "no whole") {
					p.rsyncTimeout = time.Second
				}
			})
			if a.OK != tt.ok || a.Untested || (a.Evidence == nil) != tt.ok {
				t.Fatalf("seen as %+v", a)
			}
			if o.Requests != 1 || o.Bytes > maxListing {
				t.Errorf("%d requests, %d bytes", o.Requests, o.Bytes)
			}
			if e := a.Evidence; e != nil && (!strings.Contains(e.Error, tt.err) || e.Method != "rsync" || e.URL != tt.url || e.Vantage != "vienna") {
				t.Errorf("the evidence is %+v, want %q", e, tt.err)
			}
		})
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("%d connections went where the environment says", n)
	}
}

func TestRsyncNeverConnectsToPrivateAddresses(t *testing.T) {
	program := testworld.Need(t, "rsync")
	var reached atomic.Int32
	daemon := listenTCP(t, func(c *net.TCPConn) {
		reached.Add(1)
		c.Close()
	})
	for _, url := range []string{
		fmt.Sprintf("rsync://mirror.example.org:%d/alma/", daemon.Port()),
		fmt.Sprintf("rsync://%s/alma/", daemon),
		fmt.Sprintf("rsync://[::ffff:127.0.0.1]:%d/alma/", daemon.Port()),
	} {
		opts := ProbeOptions{Rsync: program, Lookup: func(ctx context.Context, network, host string) ([]netip.Addr, error) {
			if a, err := netip.ParseAddr(host); err == nil {
				return []netip.Addr{a}, nil
			}
			return []netip.Addr{daemon.Addr()}, nil
		}}
		a, _ := visitRsync(t, opts, url, nil)
		if a.OK || a.Evidence == nil || !strings.Contains(a.Evidence.Error, "no public address") {
			t.Errorf("%s is seen as %+v", url, a)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestRsyncIsNotTriedWithoutTheProgram(t *testing.T) {
	a, _ := visitRsync(t, ProbeOptions{AllowPrivateAddresses: true}, "rsync://127.0.0.1/alma/", func(p *Prober) { p.rsync = "" })
	if !a.Untested || a.Evidence != nil {
		t.Errorf("seen as %+v", a)
	}
}

func TestRsyncURLs(t *testing.T) {
	addr := netip.MustParseAddr("198.51.101.1")
	for _, tt := range []struct {
		raw, want string // what the program is given; "": refused
	}{
		{"rsync://mirror.example.org/almalinux/", "rsync://198.51.101.1:873/almalinux/"},
		{"rsync://mirror.example.org/almalinux", "rsync://198.51.101.1:873/almalinux/"},
		{"rsync://mirror.example.org:8873/pub/alma-linux/", "rsync://198.51.101.1:8873/pub/alma-linux/"},
		{"rsync://[2001:db8::1]/alma/", "rsync://198.51.101.1:873/alma/"},
		{"mirror.example.org::almalinux", ""}, // the loader makes a URL of it
		{"-e=id", ""},
		{"--rsh=id", ""},
		{"rsync:--rsh=id", ""},
		{"rsync://mirror.example.org/", ""},
		{"rsync://mirror.example.org", ""},
		{"rsync:///alma/", ""},
		{"rsync://user@mirror.example.org/alma/", ""},
		{"rsync://user:secret@mirror.example.org/alma/", ""},
		{"rsync://mirror.example.org/alma/?a=b", ""},
		{"rsync://mirror.example.org/alma/#a", ""},
		{"rsync://mirror.example.org/-e=id/", ""},
		{"rsync://mirror.example.org/alma/*", ""},
		{"rsync://mirror.example.org/alma/$(id)", ""},
		{"rsync://mirror.example.org/alma/a%20b", ""},
		{"rsync://mirror.example.org/alma/%0aid", ""},
		{"rsync://mirror.example.org/alma//b", ""},
		{"rsync://mirror.example.org/alma/../../etc/", ""},
		{"rsync://mirror.example.org/..", ""},
		{"rsync://mirror.example.org:0/alma/", ""},
		{"rsync://mirror.example.org:99999/alma/", ""},
		{"rsync://mirror.example.org:ssh/alma/", ""},
		{"file:///etc/", ""},
		{"http://mirror.example.org/alma/", ""},
	} {
		u, err := readRsyncURL(tt.raw)
		got := ""
		if err == nil {
			got = u.at(addr)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v shows the password", tt.raw, err)
		}
		if got != tt.want {
			t.Errorf("%q becomes %q (%v), want %q", tt.raw, got, err, tt.want)
		}
	}
}

// What operators write as HOST::MODULE is read as a URL.
func TestRsyncModuleOfAMirrorFile(t *testing.T) {
	m, _ := schema.ParseMirror("mirror.example.org.yml", []byte("name: mirror.example.org\naddress:\n  https: https://mirror.example.org/alma/\n  rsync: mirror.example.org::almalinux\n"))
	u, err := readRsyncURL(m.Address.Rsync)
	if err != nil || u.host != "mirror.example.org" || u.path != "/almalinux/" {
		t.Errorf("%q is read as %+v, %v", m.Address.Rsync, u, err)
	}
}

// Nothing that an operator writes becomes an option of rsync, or leaves its
// module.
func FuzzRsyncURL(f *testing.F) {
	f.Add("rsync://mirror.example.org:873/almalinux/9.8/")
	f.Add("rsync://[::1%25eth0]/-e/../x")
	f.Add("mirror::module")
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := readRsyncURL(raw)
		if err != nil {
			return
		}
		arg := u.at(netip.MustParseAddr("198.51.101.1"))
		if !strings.HasPrefix(arg, "rsync://198.51.101.1:") || strings.ContainsAny(arg, " \t\n'\"$`\\*?[]{}();&|<>!#%") ||
			strings.Contains(arg, "/../") || strings.Contains(arg, "/-") || strings.HasSuffix(arg, "/..") {
			t.Errorf("%q becomes %q", raw, arg)
		}
	})
}

// What a daemon says, byte by byte, ends with a bounded answer.
func FuzzRsyncOutput(f *testing.F) {
	f.Add([]byte("drwxr-xr-x          4,096 2026/01/01 00:00:00 .\n"), []byte(""), 0)
	f.Add([]byte(""), []byte("@ERROR: Unknown module 'alma'\nrsync error: error starting client-server protocol (code 5)"), 5)
	f.Add([]byte(strings.Repeat("x", 70000)), []byte("\x1b[2J\x00"), 20)
	f.Fuzz(func(t *testing.T, out, said []byte, status int) {
		var err error
		if status != 0 {
			err = fmt.Errorf("exit status %d", status)
		}
		var full bool
		list := &bounded{most: maxListing, full: func() { full = true }}
		list.Write(out)
		if list.b.Len() > maxListing || full != (len(out) > maxListing) {
			t.Errorf("%d of %d bytes are kept, full: %v", list.b.Len(), len(out), full)
		}
		e := &state.Evidence{}
		a := moduleAnswer(e, list.b.Bytes(), said, err)
		if a.OK != (status == 0) {
			t.Errorf("status %d is seen as %+v", status, a)
		}
		if len(e.Error) > maxEvidenceBody || len(e.Body) > maxEvidenceBody || escape([]byte(e.Error), 1<<20) != strings.ReplaceAll(e.Error, `\`, `\\`) {
			t.Errorf("the evidence is %q, %q", e.Error, e.Body)
		}
	})
}
