package state

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"time"
)

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

// decisionNode is the node whose documents are decisions.
const decisionNode = "decisions"

// document is the name of the document that d is kept in.
func (d *Decision) document() string {
	return decisionNode + "/" + url.QueryEscape(d.Verb+" "+d.Key.String())
}

// Decisions returns what administrators have decided: of each verb and key the
// last one, in the order in which that was.
func (w *Writer) Decisions(ctx context.Context) ([]Decision, error) {
	names, err := w.decisions.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	var all []Decision
	for name := range names {
		if !strings.HasPrefix(name, decisionNode+"/") {
			continue
		}
		data, err := w.decisions.Load(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		var d Decision
		if err := json.Unmarshal(data, &d); err != nil {
			return nil, fmt.Errorf("state: %s of %s: %w", name, w.store, err)
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b Decision) int {
		return cmp.Or(a.Time.Compare(b.Time), strings.Compare(a.document(), b.document()))
	})
	return all, nil
}

// Decide keeps decisions, each in the place of what was decided before with the
// same verb about the same key. It needs no lease: it is called by a person at a
// terminal while another process, here or elsewhere, is the writer. After an
// error some may be kept; they can be decided again.
func (w *Writer) Decide(ctx context.Context, decisions []Decision) error {
	for i := range decisions {
		data, err := json.Marshal(&decisions[i])
		if err != nil {
			return fmt.Errorf("state: %w", err)
		}
		err = w.decisions.Update(ctx, decisions[i].document(), func([]byte) ([]byte, error) { return data, nil })
		if err != nil {
			return fmt.Errorf("state: %w", err)
		}
	}
	return nil
}
