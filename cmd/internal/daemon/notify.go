package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// What a daemon tells the service manager, for [Notify]: sd_notify(3).
const (
	Ready    = "READY=1"    // it answers requests; units that wait for it may start
	Stopping = "STOPPING=1" // it is draining; Main sends this one
)

// Notify tells the service manager that started this process the state it is in.
// Without one, or one that does not ask to be told, it does nothing.
func Notify(env Env, state string) error {
	path := env.getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// A leading "@" is an abstract socket, for package net as for systemd.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// Watchdog tells the service manager that the daemon is alive, twice in the time
// after which it would be restarted, as long as healthy says so. It returns nil
// when ctx ends, and at once when the service manager does not watch.
func Watchdog(ctx context.Context, env Env, healthy func() bool) error {
	limit, err := watchdogLimit(env, os.Getpid())
	if limit == 0 || err != nil {
		return err
	}
	tick := time.NewTicker(limit / 2)
	defer tick.Stop()
	for {
		if healthy() {
			if err := Notify(env, "WATCHDOG=1"); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// watchdogLimit is after how long without a sign of life the service manager
// restarts the process pid; 0 is never.
func watchdogLimit(env Env, pid int) (time.Duration, error) {
	usec := env.getenv("WATCHDOG_USEC")
	if usec == "" {
		return 0, nil
	}
	// The variables are inherited by children, which are not watched.
	if p := env.getenv("WATCHDOG_PID"); p != "" && p != strconv.Itoa(pid) {
		return 0, nil
	}
	n, err := strconv.ParseUint(usec, 10, 63)
	if err != nil || n < 2 {
		return 0, fmt.Errorf("watchdog: WATCHDOG_USEC=%q is not a number of microseconds; write 30000000 for half a minute", usec)
	}
	return time.Duration(n) * time.Microsecond, nil
}
