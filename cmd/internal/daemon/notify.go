package daemon

import (
	"fmt"
	"log/slog"
	"net"
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
	// A manager that reads nothing holds nobody up.
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// SayReady tells the service manager that the daemon is ready. One that cannot be
// told will end the daemon, so the log says why.
func SayReady(env Env, log *slog.Logger) {
	if err := Notify(env, Ready); err != nil {
		log.Warn("service manager was not told", "err", err)
	}
}
