// Package state holds what a checker has found out about each mirror, as
// immutable values, and stores it where mirrorlist servers can read it. It
// decides nothing: verdicts are the checker's, answers are mirrorlist's.
package state

import (
	"encoding"
	"fmt"
	"strings"
	"time"

	"meridian/schema"
)

// Health is how far a mirror may be trusted for one key. The zero value is
// Unknown: there is no live snapshot to tell. That is not the same as Down:
// Unknown is listed.
type Health uint8

// The verdicts, as section 7 of the design defines them.
const (
	Unknown  Health = iota // no live snapshot
	Pending                // public, and not probed yet
	Fresh                  // the newest generation
	Ahead                  // valid and newer than the newest known
	Lagging                // an older generation, superseded not long ago
	Stale                  // an older generation, superseded too long ago
	Broken                 // unparsable, or a proven lie
	Absent                 // never had it: a partial mirror
	Down                   // unreachable
	Unprobed               // private, out of the checker's reach
)

var healthNames = [...]string{"unknown", "pending", "fresh", "ahead", "lagging", "stale", "broken", "absent", "down", "unprobed"}

func (h Health) String() string {
	if int(h) < len(healthNames) {
		return healthNames[h]
	}
	return healthNames[Unknown]
}

// Listable reports whether a mirror of this health may be handed to clients.
func (h Health) Listable() bool {
	switch h {
	case Unknown, Fresh, Ahead, Lagging, Unprobed:
		return true
	}
	return false
}

// MarshalText writes the name of the verdict.
func (h Health) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads a name. One that a newer release has added reads as
// Unknown, so that a rolling upgrade never empties a list.
func (h *Health) UnmarshalText(text []byte) error {
	*h = Unknown
	for i, name := range healthNames {
		if name == string(text) {
			*h = Health(i)
		}
	}
	return nil
}

// Key names one repository as a client sees it.
type Key struct {
	Version schema.Version
	Repo    string
	Arch    schema.Arch // "" for a repository that is not per arch
}

var (
	_ encoding.TextMarshaler   = Key{}
	_ encoding.TextUnmarshaler = (*Key)(nil)
)

func (k Key) String() string { return string(k.Version) + "/" + k.Repo + "/" + string(k.Arch) }

// MarshalText writes VERSION/REPO/ARCH.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *Key) UnmarshalText(text []byte) error {
	parts := strings.Split(string(text), "/")
	if len(parts) != 3 {
		return fmt.Errorf("state: key %q is not VERSION/REPO/ARCH", text)
	}
	*k = Key{schema.Version(parts[0]), parts[1], schema.Arch(parts[2])}
	return nil
}

// Reach is what is known of one address family of a mirror.
type Reach uint8

// The zero value is Untested: the checker has no such family itself, or has not
// tried yet.
const (
	Untested Reach = iota
	Reached
	Unreached
)

var reachNames = [...]string{"untested", "reached", "unreached"}

func (r Reach) String() string {
	if int(r) < len(reachNames) {
		return reachNames[r]
	}
	return reachNames[Untested]
}

// MarshalText writes the name.
func (r Reach) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a name. One that a newer release has added reads as
// Untested.
func (r *Reach) UnmarshalText(text []byte) error {
	*r = Untested
	for i, name := range reachNames {
		if name == string(text) {
			*r = Reach(i)
		}
	}
	return nil
}

// Status is what the checker knows of one mirror.
type Status struct {
	Health map[Key]Health `json:"health"`

	// IPv6 tells whether the mirror answered on its AAAA address.
	IPv6 Reach `json:"ipv6"`
}

// Truth is what the origin has published for one key.
type Truth struct {
	// Expired: every generation but the newest was withdrawn at once, as after a
	// security push. A Lagging mirror then only fills up a list.
	Expired bool `json:"expired,omitempty"`
}

// Snapshot is everything the checker knew at one moment. It is never changed
// after it was made.
type Snapshot struct {
	Taken   time.Time          `json:"taken"`
	Mirrors map[string]*Status `json:"mirrors"` // by name
	Truth   map[Key]Truth      `json:"truth,omitempty"`
}
