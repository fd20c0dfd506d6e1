// Package verify judges signatures: of packages, and of the repomd.xml of a
// repository, by public keys that its caller trusts. It is the half of signing
// that everybody may have: it touches no private key, never writes, never asks
// the network for a key, and believes no key that lies beside what it judges.
//
// What it reads comes from strangers. Everything is bounded before it is
// allocated, and what cannot be read is a [Finding] about its file, not the end
// of the run.
package verify

import (
	"fmt"
	"strings"
	"time"
)

// A Kind is a way in which something is not signed as it should be. Its text is
// part of what signer verify prints.
type Kind string

// What can be found. A file may have several.
const (
	Unsigned        Kind = "unsigned"         // no signature at all, or none that covers everything
	ForeignKey      Kind = "foreign key"      // signed by a key that is not trusted
	Expired         Kind = "expired"          // the key had expired, has expired since, or the signature has
	Revoked         Kind = "revoked"          // the owner of the key has withdrawn it
	Future          Kind = "future"           // signed later than now
	Algorithm       Kind = "algorithm"        // one that is broken, or that rpm 4.18 refuses
	TamperedHeader  Kind = "tampered header"  // the header of a package is not what was signed
	TamperedPayload Kind = "tampered payload" // its payload is not what the header says
	Tampered        Kind = "tampered"         // repomd.xml is not what was signed
	Truncated       Kind = "truncated"        // the end of the file is missing
	Damaged         Kind = "damaged"          // it cannot be understood
	Unreadable      Kind = "unreadable"       // the file system does not let it be read
)

// A Finding is one thing that is wrong. Detail says what, for people.
type Finding struct {
	Kind   Kind
	Detail string
}

func (f Finding) String() string { return string(f.Kind) + ": " + f.Detail }

func finding(kind Kind, format string, args ...any) Finding {
	return Finding{kind, fmt.Sprintf(format, args...)}
}

// A Result is what was found out about one file; without findings it is signed
// as it should be.
type Result struct {
	Artifact Artifact
	Findings []Finding

	// Size is how many bytes were judged.
	Size int64
}

// Err is nil without findings, and else an error that names the file and all of
// them, in one line.
func (r Result) Err() error {
	if len(r.Findings) == 0 {
		return nil
	}
	all := make([]string, len(r.Findings))
	for i, f := range r.Findings {
		all[i] = f.String()
	}
	return fmt.Errorf("%s: %s", r.Artifact, strings.Join(all, "; "))
}

// A Checker judges files. Its fields must not change while it does; it can judge
// many files at once.
type Checker struct {
	// Keys are those that are trusted.
	Keys *Ring

	// At is the moment that keys must not have expired at. The zero time is the
	// moment of the judgement. An earlier one is for trees that are kept although
	// their key has had its day.
	At time.Time

	// AllDigests also checks those digests of a package that nobody needs when
	// its payload is covered by a stronger one: MD5, which old tools look at. It
	// costs more than everything else together.
	AllDigests bool
}

// leeway is by how much the clock of who signs may be ahead of the one of who
// judges.
const leeway = 10 * time.Minute

// now is the time to judge by.
func (c *Checker) now() time.Time {
	if c.At.IsZero() {
		return time.Now()
	}
	return c.At
}
