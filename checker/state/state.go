// Package state holds what a checker has found out about each mirror, as
// immutable values, and stores it where mirrorlist servers can read it. It
// decides nothing: verdicts are the checker's, answers are mirrorlist's.
package state

import (
	"encoding"
	"encoding/hex"
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
	Stale                  // an older generation, superseded too long ago, or one that tier0 was not seen with
	Broken                 // unparsable, a proven lie, or an older generation after a newer one
	Absent                 // never had it: a partial mirror
	Down                   // unreachable
	Unprobed               // private, or without an address that the checker has a way to: out of its reach
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
	*h = healthNamed(string(text))
	return nil
}

func healthNamed(text string) Health {
	for i, name := range healthNames {
		if name == text {
			return Health(i)
		}
	}
	return Unknown
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

// Status is what the checker knows of one mirror. A field that is absent says
// that nothing is known: a node treats it as it treated a mirror before the
// checker had that field.
type Status struct {
	Health map[Key]Health `json:"health"`

	// Holds is the generation that the mirror was last seen to serve, where that
	// is a known one and not the newest: the key is Lagging or Stale.
	Holds map[Key]GenerationID `json:"holds,omitempty"`

	// Findings say more about keys whose own state has a story: a failure that
	// was forgiven, a lie, a mirror that must earn its way back. A key without
	// one is as its Health says, or shares the mirror's Problem.
	Findings map[Key]*Finding `json:"findings,omitempty"`

	// IPv4 and IPv6 tell whether the mirror answered on such an address.
	IPv4 Reach `json:"ipv4,omitempty"`
	IPv6 Reach `json:"ipv6"`

	// Schemes tell how each scheme that the mirror claims works, by its name
	// ("http", "https", "rsync"). One that is missing was not tried yet.
	Schemes map[string]*Scheme `json:"schemes,omitempty"`

	// Failures are the visits in a row that reached nothing at all. Strikes grow
	// with every relapse and fade with time; a mirror that has some must answer
	// well as many times in a row, counted by Successes, before it is listed
	// again.
	Failures  int `json:"failures,omitempty"`
	Strikes   int `json:"strikes,omitempty"`
	Successes int `json:"successes,omitempty"`

	// Struck is when Strikes last grew, or since when they have been fading.
	Struck time.Time `json:"struck,omitzero"`

	// Misses are the tries in a row of a scheme or family, by its name ("https",
	// "ipv6"), that failed and were forgiven.
	Misses map[string]int `json:"misses,omitempty"`

	// OtherHost is the host that answered the last time, after redirects; "" if it
	// was the mirror's own.
	OtherHost string `json:"other_host,omitempty"`

	// ClockAhead is how far the mirror's clock is ahead of ours, or behind if it is
	// negative; 0 when that is little.
	ClockAhead time.Duration `json:"clock_ahead,omitempty"` // nanoseconds

	// Apart: what one scheme or family served differs from what another did.
	Apart bool `json:"apart,omitempty"`

	// Unrouted: the checker has no way to any address of the mirror, as without IPv6
	// to one that has no other. What was Broken before still is; the rest is
	// Unprobed.
	Unrouted bool `json:"unrouted,omitempty"`

	// Visited is when the mirror was last asked anything, and Changed when a
	// verdict on it last changed by what was seen there.
	Visited time.Time `json:"visited,omitzero"`
	Changed time.Time `json:"changed,omitzero"`

	// Time is the content of the mirror's TIME file as it was last read; zero if
	// there is none. Evidence wins over it.
	Time time.Time `json:"time,omitzero"`

	// Problem is the worst thing that is wrong now, with the request that shows
	// it. Nil while nothing is.
	Problem *Problem `json:"problem,omitempty"`

	// Warnings are sentences for the operator about what does not keep the mirror
	// out of lists: a certificate that ends soon, a redirect to another host, an
	// IPv6 address that does not answer.
	Warnings []string `json:"warnings,omitempty"`

	// Override is what an administrator of the network has decided. Nil: nothing.
	Override *Override `json:"override,omitempty"`
}

// Finding is the memory of one key of one mirror.
type Finding struct {
	// Since is when the key became what its Health says.
	Since time.Time `json:"since,omitzero"`

	// Failures are the visits in a row that did not get a valid repomd.xml.
	Failures int `json:"failures,omitempty"`

	// Lied: the mirror served, under a known revision or name, bytes that tier0
	// never published. Such a key is not listed even as a last resort, and comes
	// back only by what is served being right, several times in a row.
	Lied bool `json:"lied,omitempty"`

	// Clean are the right answers in a row since it lied, flapped or fell back.
	Clean int `json:"clean,omitempty"`

	// Strikes grow each time that the key becomes unfit for lists, or falls back
	// to an older generation, and fade with time; so many answers have to be right
	// in a row, and none older than the one before. Struck is when they last grew,
	// or since when they have been fading.
	Strikes int       `json:"strikes,omitempty"`
	Struck  time.Time `json:"struck,omitzero"`

	// Path of the file whose bytes were a lie, relative to the repository; "" if
	// that was repomd.xml. Only that file can show that it is over.
	Path string `json:"path,omitempty"`

	// Never: no valid repomd.xml was seen there yet. A 404 then means that the
	// mirror is a partial one, and not that something was lost.
	Never bool `json:"never,omitempty"`

	// Last is the known generation that was answered with last, where the Health
	// of the key does not say so: an older answer is a relapse. Zero if there was
	// none, or if it is not known any more.
	Last GenerationID `json:"last,omitzero"`

	// Revision is that of the last answer where this was no known generation: of a
	// mirror that is Ahead, or has what tier0 was never seen with, or what is older
	// than all that is remembered.
	Revision string `json:"revision,omitempty"`

	Problem *Problem `json:"problem,omitempty"`
}

// Scheme is how one way to the mirror works.
type Scheme struct {
	Works Reach `json:"works"`

	// TLSExpires is the end of the validity of the certificate that was shown;
	// zero for other schemes. TLSBegins is its beginning: a certificate that lives
	// for a week does not end soon because it ends in a week.
	TLSExpires time.Time `json:"tls_expires,omitzero"`
	TLSBegins  time.Time `json:"tls_begins,omitzero"`

	Problem *Problem `json:"problem,omitempty"`
}

// Problem is one thing that is wrong, in words for the mirror's operator.
type Problem struct {
	// Reason is one sentence: what is wrong. Remedy is another: what to do.
	Reason string `json:"reason"`
	Remedy string `json:"remedy,omitempty"`

	Since    time.Time `json:"since,omitzero"`
	Evidence *Evidence `json:"evidence,omitempty"`
}

// Evidence is a request that was made and what came back, for an operator to
// repeat. It never holds a credential.
type Evidence struct {
	At      time.Time `json:"at"`
	Vantage string    `json:"vantage,omitempty"` // who asked

	Method  string   `json:"method"` // "GET", "HEAD"; "rsync" for a module listing
	URL     string   `json:"url"`
	Request []string `json:"request,omitempty"` // header lines, "Range: bytes=0-99"
	Family  string   `json:"family,omitempty"`  // "ipv4" or "ipv6" if the request was bound to one

	Redirects []string `json:"redirects,omitempty"` // every address that redirected, in order
	Final     string   `json:"final,omitempty"`     // the address that answered, if another
	Remote    string   `json:"remote,omitempty"`    // its IP:PORT
	Status    int      `json:"status,omitempty"`    // 0: no answer
	Header    []string `json:"header,omitempty"`    // of the answer, what explains it: Age, Via, X-Cache, Date, …
	Body      string   `json:"body,omitempty"`      // the first bytes, at most 512, unprintable ones escaped
	Error     string   `json:"error,omitempty"`     // of the network or the protocol
}

// Override is a decision of an administrator about one mirror.
type Override struct {
	Disabled bool      `json:"disabled,omitempty"` // never listed, to nobody
	Draining bool      `json:"draining,omitempty"` // listed only where the list is not full without it
	Weight   int       `json:"weight,omitempty"`   // in place of the bandwidth, Mbit/s; 0: none
	Reason   string    `json:"reason,omitempty"`
	Until    time.Time `json:"until,omitzero"` // zero: until it is taken back

	// Withdrawn keys are not listed for this mirror.
	Withdrawn []Key `json:"withdrawn,omitempty"`
}

// GenerationID names a generation within a key: the first eight bytes of the
// sha256 of its repomd.xml. Whoever judges bytes compares the whole hash; the
// short form says which of the known ones was found.
type GenerationID [8]byte

// MarshalText writes 16 hexadecimal digits.
func (id GenerationID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *GenerationID) UnmarshalText(text []byte) error {
	if len(text) != 2*len(id) {
		return fmt.Errorf("state: generation %q is not 16 hexadecimal digits", text)
	}
	_, err := hex.Decode(id[:], text)
	return err
}

func (id GenerationID) String() string { return hex.EncodeToString(id[:]) }

// Generation is one state of a repository that the origin published.
type Generation struct {
	Revision  string    `json:"revision"`
	Timestamp int64     `json:"timestamp"` // the newest of its data entries, seconds since 1970
	Size      int64     `json:"size"`      // of repomd.xml, bytes
	SHA256    Hash256   `json:"sha256"`    // of repomd.xml
	SHA512    Hash512   `json:"sha512"`
	FirstSeen time.Time `json:"first_seen"` // when the origin was first seen to serve it whole

	// Expired: withdrawn by an administrator, as after a security push. A mirror
	// that holds it only fills up lists; a metalink does not accept it.
	Expired bool `json:"expired,omitempty"`
}

// ID returns the short name of g.
func (g *Generation) ID() GenerationID { return GenerationID(g.SHA256[:8]) }

// Hash256 and Hash512 are digests, hexadecimal in JSON.
type (
	Hash256 [32]byte
	Hash512 [64]byte
)

// MarshalText writes 64 hexadecimal digits.
func (h Hash256) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *Hash256) UnmarshalText(text []byte) error { return unhex(h[:], text) }

func (h Hash256) String() string { return hex.EncodeToString(h[:]) }

// MarshalText writes 128 hexadecimal digits.
func (h Hash512) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *Hash512) UnmarshalText(text []byte) error { return unhex(h[:], text) }

func (h Hash512) String() string { return hex.EncodeToString(h[:]) }

func unhex(to, text []byte) error {
	if len(text) != 2*len(to) {
		return fmt.Errorf("state: a digest of %d hexadecimal digits, want %d", len(text), 2*len(to))
	}
	_, err := hex.Decode(to, text)
	return err
}

// Truth is what the origin has published for one key.
type Truth struct {
	// Generations, newest first. Those that were superseded longer ago than any
	// mirror may hold them are forgotten; the newest two never are.
	Generations []Generation `json:"generations,omitempty"`

	// Confirmed is when the origin last served the newest generation.
	Confirmed time.Time `json:"confirmed,omitzero"`

	// Expired: every generation but the newest was withdrawn at once, as after a
	// security push. A Lagging mirror then only fills up a list. It says the same
	// as Expired of each older generation.
	Expired bool `json:"expired,omitempty"`

	// Withdrawn is the reason of an administrator to serve the key to nobody; ""
	// while it is served.
	Withdrawn string `json:"withdrawn,omitempty"`

	// Absent: the origin answered, and does not have the repository.
	Absent bool `json:"absent,omitempty"`

	// Disputed is since when mirrors have been seen Ahead of a newest generation
	// that the origin could not be asked to confirm; zero while none is. After 15
	// minutes metalinks are served without hashes.
	Disputed time.Time `json:"disputed,omitzero"`

	// Problem is why what the origin serves now was not adopted. Nil while it is.
	Problem *Problem `json:"problem,omitempty"`

	// Offered is what a tier0 serves or has served lately, and what none of
	// Generations is: of several, one may be ahead of what is complete anywhere.
	// Mirrors that have it have not made it up. The last one is the newest.
	Offered []Offer `json:"offered,omitempty"`

	// Partial: the newest generation is confirmed by one tier0, and another, which
	// may have published more, cannot be asked.
	Partial bool `json:"partial,omitempty"`

	// Images are what the origin has, where the key is a set of ISO images,
	// VERSION/isos/ARCH. Such a key has nothing else.
	Images []Image `json:"images,omitempty"`
}

// An Offer is a repomd.xml that a tier0 served and that was not adopted.
type Offer struct {
	SHA256 Hash256   `json:"sha256"`
	Gone   time.Time `json:"gone,omitzero"` // since when no tier0 serves it; zero while one does
}

// An Image is one file of a set of ISO images.
type Image struct {
	Name string `json:"name"` // within VERSION/isos/ARCH
	Size int64  `json:"size"` // bytes; -1 if not known

	// Algorithm is that of Digest, "sha256", which is in hexadecimal digits.
	Algorithm string `json:"algorithm"`
	Digest    string `json:"digest"`
}

// Newest returns the newest generation, and nil before the first.
func (t *Truth) Newest() *Generation {
	if len(t.Generations) == 0 {
		return nil
	}
	return &t.Generations[0]
}

// Superseded is when the generation id was followed by the next one: zero for
// the newest and for those that are not known.
func (t *Truth) Superseded(id GenerationID) time.Time {
	for i := 1; i < len(t.Generations); i++ {
		if t.Generations[i].ID() == id {
			return t.Generations[i-1].FirstSeen
		}
	}
	return time.Time{}
}

// Snapshot is everything the checker knew at one moment. It is never changed
// after it was made.
type Snapshot struct {
	Taken   time.Time          `json:"taken"`
	Vantage string             `json:"vantage,omitempty"` // whose it is; "" of a single checker, or of all combined
	Mirrors map[string]*Status `json:"mirrors"`           // by name
	Truth   map[Key]Truth      `json:"truth,omitempty"`

	// Publications are the last ones, by their ID, and how they have reached the
	// mirrors.
	Publications map[string]*Publication `json:"publications,omitempty"`
}

// Event is one change of verdict, and why.
type Event struct {
	Time    time.Time `json:"time"`
	Vantage string    `json:"vantage,omitempty"`

	// Mirror that it is about, or "" for the origin.
	Mirror string `json:"mirror,omitempty"`

	// What has changed: see the constants.
	Kind string `json:"kind"`

	// Keys that went together From one health To another; nil if the event is
	// about something else.
	Keys []Key  `json:"keys,omitempty"`
	From Health `json:"from,omitempty"`
	To   Health `json:"to,omitempty"`

	// Lag is how long after publication the mirror was seen with the newest
	// generation, of a change to Fresh. 0 otherwise.
	Lag time.Duration `json:"lag,omitempty"` // nanoseconds

	Problem *Problem `json:"problem,omitempty"`
}

// Kinds of events.
const (
	HealthChanged   = "health"   // Keys went From … To …
	SchemeChanged   = "scheme"   // https began or ceased to work; the reason in Problem
	FamilyChanged   = "family"   // so did an address family
	OverrideChanged = "override" // an administrator decided, or a decision ended
	TLSExpiring     = "tls"      // the certificate ends soon
	Published       = "publish"  // the origin serves a new generation of Keys
	OriginTroubled  = "origin"   // what the origin serves of Keys is not believed, or it is away; without a Problem: that is over
)

// Change is what one writer puts into a store in one step: all of it or nothing.
type Change struct {
	Taken   time.Time
	Mirrors map[string]*Status // those that changed; nil removes one
	Truth   map[Key]Truth      // those that changed
	Forget  []Key              // whose truth is to be forgotten
	Events  []Event            // for the history, oldest first

	Publications map[string]*Publication // those that changed, by ID; nil removes one
}
