package state

import "time"

// A Decision is what an administrator has said about the truth of one key. It
// names the bytes that it is about and not a time, so that a daemon may apply it
// late, twice, or on another machine, and it never reaches further than was
// meant.
type Decision struct {
	Time time.Time `json:"time"`
	By   string    `json:"by,omitempty"` // USER@HOST, for people

	Verb string `json:"verb"` // see the constants
	Key  Key    `json:"key"`

	// Generation is the sha256 of the repomd.xml that it is about: for Expire the
	// last one that is withdrawn, for Accept the one that is believed. A decision
	// waits for what it needs: that the last one to be withdrawn was followed by
	// another, or that the one to be believed is there whole.
	Generation Hash256 `json:"generation"`

	// Instead is that of the newest generation when Accept was said; zero if there
	// was none. Once another one is the newest, the decision is spent.
	Instead Hash256 `json:"instead,omitzero"`
}

// What can be decided.
const (
	Expire = "expire" // withdraw Generation, and every one that it followed
	Accept = "accept" // believe Generation, whatever its revision says
)
