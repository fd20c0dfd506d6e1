// Package checker finds out what is true of a mirror network: what the origin
// has published, and which mirror serves exactly that. It asks the origin and
// the mirrors, judges what it sees, and keeps the verdicts in a store where
// mirrorlist servers read them. It never answers a client, and it believes
// nothing that it has not asked for itself.
package checker

import (
	"context"
	"time"

	"meridian/checker/notify"
	"meridian/checker/state"
	"meridian/schema"
)

// ErrNotHolder is returned by a [Store] to a writer that is not, or is no
// longer, the one that may write.
var ErrNotHolder = state.ErrNotHolder

var _ Store = (*state.Writer)(nil)

// A Store keeps what the checker finds out. The directory and Redis of
// checker/state are the two there are.
type Store interface {
	// Load returns the newest snapshot of this vantage point, or
	// state.ErrNoSnapshot.
	Load(ctx context.Context) (*state.Snapshot, error)

	// Acquire makes the caller the one writer, or renews that. It returns for
	// how long the lease is held from now on; ErrNotHolder (wrapped) if another
	// one has it.
	Acquire(ctx context.Context) (time.Duration, error)

	// Write stores a change in one step, or nothing of it; and with it what was
	// written before and is lost there, as in a Redis that restarted empty. A
	// writer whose lease has gone to another meanwhile gets ErrNotHolder and has
	// changed nothing, however late it wakes up.
	Write(ctx context.Context, c *state.Change) error

	// Release gives the lease back.
	Release(ctx context.Context) error

	// History returns the events of a mirror ("" is the origin), newest first, at
	// most limit.
	History(ctx context.Context, mirror string, limit int) ([]state.Event, error)

	// Decisions returns what administrators have decided about truth: of each verb
	// and key the last one, in any order. Those who never decided have none.
	Decisions(ctx context.Context) ([]state.Decision, error)

	// Decide keeps decisions, each in the place of what was decided before with
	// the same verb about the same key. It needs no lease: it is called by a person
	// at a terminal while another process, here or elsewhere, is the writer. When
	// it returns nil they survive a crash.
	Decide(ctx context.Context, decisions []state.Decision) error
}

// A Family is an IP version.
type Family string

// The two families.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// An Observation is what one visit to a mirror found: facts without a verdict.
// What was not asked for is absent.
type Observation struct {
	Mirror  string
	At      time.Time // when the visit began
	Vantage string

	// Families that have an address and were tried, and whether they answered.
	Families map[Family]Answer

	// Schemes that the mirror claims and that were tried: "http", "https",
	// "rsync".
	Schemes map[string]Answer

	// Time is the content of TIME, when that was asked for and could be read. When
	// it could not, TimeEvidence is why.
	Time         time.Time
	TimeEvidence *state.Evidence

	// Clock is how far the mirror's clock is ahead of this one, by the Date of an
	// answer that no cache gave; behind, when negative. It has whole seconds.
	Clock time.Duration

	// Keys whose repomd.xml was asked for; for version/isos/arch the ISO set.
	Keys map[state.Key]KeySeen

	// Files of the closure check, wrong ones and right ones.
	Files []FileSeen

	// Unrouted: the mirror was not reached, and this host has no way to any of its
	// addresses, as without IPv6 to one that has no other. Nothing but Families says
	// more.
	Unrouted bool

	// Requests and Bytes are what the visit cost the mirror.
	Requests int
	Bytes    int64
}

// An Answer is how one way to the mirror worked.
type Answer struct {
	OK         bool
	TLSExpires time.Time // of the certificate of an https answer
	TLSBegins  time.Time // of its validity

	// Insecure: the way led from https to http, or the certificate is bad.
	Insecure bool

	// OtherHost is the host that answered after redirects, if another.
	OtherHost string

	// SHA256 is that of the sentinel's repomd.xml; zero when it was not that which
	// was asked for, or not Served.
	SHA256 state.Hash256

	// Untested: this checker cannot try it, for want of an address of the family
	// or of the program.
	Untested bool

	// Evidence of the request; nil if OK, or Untested, and nothing is remarkable.
	Evidence *state.Evidence
}

// Outcome is what came of asking for one document.
type Outcome uint8

// The outcomes of a request.
const (
	Unreachable Outcome = iota // no answer, or not in time
	Refused                    // an answer that says "not now": 401, 403, 429, 5xx
	Missing                    // 404 or 410
	Garbage                    // a 200 that is not the document: HTML, truncated, too large, dripping
	Served                     // a document that can be read
)

// KeySeen is what a mirror served as the repomd.xml of one key.
type KeySeen struct {
	Outcome Outcome

	// Of what was Served: the whole file, and what it says of itself.
	SHA256   state.Hash256
	Size     int64
	Revision string

	// Timestamp is the newest of the data entries, seconds since 1970.
	Timestamp int64

	// FilesAsked is how many of the metadata files that repomd.xml names were
	// asked for their size, as at a flip: the first ones of KeyPlan.Files. Of them
	// only wrong ones are listed.
	FilesAsked int
	FilesWrong []FileSeen

	// Again is what was answered to the same question a moment later over another
	// connection, where [KeyPlan.Confirm] asked for that; nil else. It has no files
	// and no Again.
	Again *KeySeen

	// OtherHost answered after redirects; "" if it was the mirror's own.
	OtherHost string

	// Evidence of the request. Nil for what was Served by the mirror's own host
	// and is the newest generation, or cannot be compared with one.
	Evidence *state.Evidence
}

// FileSeen is one file that was compared with what repodata or the origin says
// of it.
type FileSeen struct {
	Key  state.Key
	Path string // relative to the repository, or to the ISO directory

	// Outcome is Served when the file is there; then Wrong says in a sentence
	// what differs, "" if nothing does. Content tells that bytes were compared
	// and not the size alone: what differs then is a proven lie.
	Outcome Outcome
	Wrong   string
	Content bool

	// Gone: repodata no longer names the file, so nothing was asked and nothing
	// is wrong. Next is the file that it names in the same role instead, "" if none
	// is known yet.
	Gone bool
	Next string

	Evidence *state.Evidence
}

// Settings are the keys of checker.yml. Durations are written as in Go: "15m".
type Settings struct {
	// Network is the network file (config.yml, version 3).
	Network string `yaml:"network"`

	// Origin are the base URLs or paths of tier0, in the order in which they are
	// asked, by tree: "main", the name of an optional module, "vault".
	Origin Origins `yaml:"origin"`

	// OriginCAFile and MirrorsCAFile name certificates, in PEM, of authorities that
	// are believed beside the system's when tier0, and mirrors, are asked over
	// https; "" for none. See [ReadCAs].
	OriginCAFile  string `yaml:"origin_ca_file"`
	MirrorsCAFile string `yaml:"mirrors_ca_file"`

	// State is where verdicts are kept: dir:PATH, redis://…, redis+sentinel://….
	State string `yaml:"state"`

	// Listen is the address of the checker's own listener; "" for none.
	Listen string `yaml:"listen"`

	// Interval bounds how long a mirror is left alone. Default 15m, never more.
	Interval time.Duration `yaml:"interval"`

	// Vantage names the place that this checker looks from. Default "".
	Vantage string `yaml:"vantage"`

	// PendingVersions are probed and not served: see `checker ready`.
	PendingVersions []schema.Version `yaml:"pending_versions"`

	// Overrides is the file of administrators' decisions; "" for none.
	Overrides string `yaml:"overrides"`

	// ContactURL goes into the User-Agent of every request.
	ContactURL string `yaml:"contact_url"`

	// PublicURL is where people see the pages of the network, for links; "" for
	// none.
	PublicURL string `yaml:"public_url"`

	// Notify says who is told of changes. Default: nobody.
	Notify notify.Settings `yaml:"notify"`

	// SecretFile holds what the tokens of `checker token` are derived from; ""
	// disables the hint.
	SecretFile string `yaml:"secret_file"`

	// CacheDir remembers what would otherwise be read from the origin again after
	// a restart. It is this checker's alone. Default: meridian-checker in the
	// user's cache directory.
	CacheDir string `yaml:"cache_dir"`

	// AllowPrivateAddresses is for test networks whose mirrors are on loopback.
	// They need no manners either: such mirrors are asked a hundred times as much.
	AllowPrivateAddresses bool `yaml:"allow_private_addresses"`
}
