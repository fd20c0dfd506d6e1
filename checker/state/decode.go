package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"meridian/internal/store"
)

// A record has a field for each mirror, one for the truth of each key, one for
// each publication, and the vantage point.
const (
	mirrorGroup      = "mirrors/"
	truthGroup       = "truth/"
	publicationGroup = "publications/"
	vantageField     = "vantage"
)

// A view is the snapshot that a record is. What has not changed since the record
// before is not decoded again: the same Status is in both snapshots.
type view struct {
	rec  *store.Record
	snap *Snapshot // of rec

	bad *store.Record // one that could not be decoded
	err error         // and why

	keys map[string]Key // by their text
}

// take returns the snapshot of a record.
func (v *view) take(rec *store.Record) (*Snapshot, error) {
	switch {
	case rec == v.rec && v.snap != nil:
		return v.snap, nil
	case rec == v.bad:
		return nil, v.err
	}
	if v.keys == nil {
		v.keys = make(map[string]Key)
	}
	snap, err := v.decode(rec)
	if err != nil {
		v.bad, v.err = rec, err
		return nil, err
	}
	v.rec, v.snap, v.bad, v.err = rec, snap, nil, nil
	return snap, nil
}

func (v *view) decode(rec *store.Record) (*Snapshot, error) {
	snap := &Snapshot{Taken: rec.Taken, Mirrors: make(map[string]*Status, len(rec.Fields)), Truth: make(map[Key]Truth)}
	for field, value := range rec.Fields {
		known := v.rec != nil && v.rec.Fields[field] == value
		if name, ok := strings.CutPrefix(field, mirrorGroup); ok {
			if known {
				if st := v.snap.Mirrors[name]; st != nil {
					snap.Mirrors[name] = st
					continue
				}
			}
			st, err := v.status(value)
			if err != nil {
				return nil, fmt.Errorf("not a snapshot: mirror %q: %w", name, err)
			}
			snap.Mirrors[name] = st
			continue
		}
		if text, ok := strings.CutPrefix(field, truthGroup); ok {
			k, err := v.key(text)
			if err != nil {
				return nil, fmt.Errorf("not a snapshot: %w", err)
			}
			if known {
				if t, ok := v.snap.Truth[k]; ok {
					snap.Truth[k] = t
					continue
				}
			}
			var t Truth
			if err := json.Unmarshal([]byte(value), &t); err != nil {
				return nil, fmt.Errorf("not a snapshot: truth of %s: %w", text, err)
			}
			snap.Truth[k] = t
			continue
		}
		if id, ok := strings.CutPrefix(field, publicationGroup); ok {
			pub := new(Publication)
			if known && v.snap.Publications[id] != nil {
				pub = v.snap.Publications[id]
			} else if err := json.Unmarshal([]byte(value), pub); err != nil {
				return nil, fmt.Errorf("not a snapshot: publication of %s: %w", id, err)
			}
			if snap.Publications == nil {
				snap.Publications = make(map[string]*Publication)
			}
			snap.Publications[strings.Clone(id)] = pub
			continue
		}
		if field == vantageField {
			if err := json.Unmarshal([]byte(value), &snap.Vantage); err != nil {
				return nil, fmt.Errorf("not a snapshot: vantage: %w", err)
			}
		}
		// What else there is a newer release has written.
	}
	return snap, nil
}

// key reads a key. Each is in memory once.
func (v *view) key(text string) (Key, error) {
	if k, ok := v.keys[text]; ok {
		return k, nil
	}
	text = strings.Clone(text) // not a part of a whole file
	var k Key
	if err := k.UnmarshalText([]byte(text)); err != nil {
		return Key{}, err
	}
	v.keys[text] = k
	return k, nil
}

// status reads a status as encoding/json does, in a fraction of the time: nearly
// all of it is the health of keys, of which there are a hundred and more.
func (v *view) status(text string) (*Status, error) {
	st := new(Status)
	var rest strings.Builder // without what is read here
	sep := byte('{')
	err := store.Members(text, func(name, value string) error {
		switch name {
		case "health":
			return v.healths(st, value)
		case "holds":
			return v.holds(st, value)
		}
		quoted, err := json.Marshal(name)
		if err != nil {
			return err
		}
		rest.WriteByte(sep)
		sep = ','
		rest.Write(quoted)
		rest.WriteByte(':')
		rest.WriteString(value)
		return nil
	})
	if err != nil {
		if text == "null" {
			err = errors.New("nothing is said of it")
		}
		return nil, err
	}
	if sep == ',' {
		rest.WriteByte('}')
		if err := json.Unmarshal([]byte(rest.String()), st); err != nil {
			return nil, err
		}
	}
	return st, nil
}

func (v *view) healths(st *Status, text string) error {
	if text == "null" {
		return nil
	}
	if st.Health == nil {
		st.Health = make(map[Key]Health, strings.Count(text, ","))
	}
	return store.Members(text, func(name, value string) error {
		k, err := v.key(name)
		if err != nil {
			return err
		}
		var h Health
		if value != "null" {
			name, ok := store.Unquote(value)
			if !ok {
				return fmt.Errorf("health of %s: %s is no string", k, value)
			}
			h = healthNamed(name)
		}
		st.Health[k] = h
		return nil
	})
}

func (v *view) holds(st *Status, text string) error {
	if text == "null" {
		return nil
	}
	if st.Holds == nil {
		st.Holds = make(map[Key]GenerationID, strings.Count(text, ",")+1)
	}
	return store.Members(text, func(name, value string) error {
		k, err := v.key(name)
		if err != nil {
			return err
		}
		var id GenerationID
		if value != "null" {
			text, ok := store.Unquote(value)
			if !ok {
				return fmt.Errorf("generation of %s: %s is no string", k, value)
			}
			err = id.UnmarshalText([]byte(text))
		}
		st.Holds[k] = id
		return err
	})
}
