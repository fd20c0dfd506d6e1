package testworld

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// StartRsync starts an rsync daemon on a port of 127.0.0.1 that serves modules, in
// the words of rsyncd.conf, as the user of this process. It keeps its files in
// the directory work, and returns when it accepts connections.
func StartRsync(ctx context.Context, work, modules string) (addr string, daemon *Child, err error) {
	rsync, err := program("rsync")
	if err != nil {
		return "", nil, err
	}
	if addr, err = FreeAddr("127.0.0.1"); err != nil {
		return "", nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", nil, err
	}
	var conf strings.Builder
	// Without uid and gid, a daemon of root's works as nobody.
	fmt.Fprintf(&conf, "uid = %d\ngid = %d\nuse chroot = no\nmunge symlinks = no\nreverse lookup = no\n", os.Getuid(), os.Getgid())
	fmt.Fprintf(&conf, "socket options = TCP_NODELAY\nmax connections = 0\nlog file = %s\n%s", filepath.Join(work, "rsyncd.log"), modules)
	file := filepath.Join(work, "rsyncd.conf")
	if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
		return "", nil, err
	}
	daemon, err = Start(exec.Command(rsync, "--daemon", "--no-detach", "--config="+file, "--address="+host, "--port="+port))
	if err != nil {
		return "", nil, err
	}
	if err := daemon.Listens(ctx, addr); err != nil {
		return "", nil, errors.Join(err, daemon.Stop(0))
	}
	return addr, daemon, nil
}

// Listens connects to addr until that works. It gives up when ctx ends or the
// child does.
func (c *Child) Listens(ctx context.Context, addr string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s ended before it listened on %s: %w", c.name, addr, errors.Join(c.err, err))
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen: %w; last: %w", c.name, ctx.Err(), err)
		case <-tick.C:
		}
	}
}
