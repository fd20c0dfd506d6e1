// Package store keeps records where several processes find them: in a directory
// of one host, or in Redis for several hosts. A record is a set of named JSON
// fields that changes in steps, all of a step or nothing, by one writer at a
// time; a writer that was asleep while another took its place can no longer
// change anything. Beside records there are logs, which only grow and are
// bounded. The package never looks into what it keeps, retries nothing in the
// background, and logs nothing.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrNotFound is returned for a record that nobody has written yet.
var ErrNotFound = errors.New("store: nothing is there")

// ErrNotHolder is returned to a writer that is not, or is no longer, the one
// that may write, or that has not read what another has written since.
var ErrNotHolder = errors.New("store: somebody else is the writer")

// A HeldError is [ErrNotHolder] with who is the writer.
type HeldError struct {
	By string // like "process 12 of host": for people
}

func (e *HeldError) Error() string { return ErrNotHolder.Error() + ": " + e.By }

func (e *HeldError) Unwrap() error { return ErrNotHolder }

// ErrOlder is returned by Read when what is stored is of an earlier writer, and
// taken earlier, than what the reader has: a backup that was restored, or a
// server that lost what it had not replicated.
var ErrOlder = errors.New("store: what is stored is older than what was read before")

// DefaultLease is for how long a writer that says nothing remains the writer.
const DefaultLease = 30 * time.Second

// Bounds of a log. What is beyond is dropped, the oldest first, some time after.
const (
	maxLogBytes   = 1 << 20             // of the file, in a directory
	maxLogEntries = 1000                // in Redis
	maxLogAge     = 90 * 24 * time.Hour // of entries that have a time
)

// maxRecord bounds what is read: 2,000 mirrors of 1,000 keys each.
const maxRecord = 256 << 20

// Options are what else a store is opened with. The zero value works.
type Options struct {
	// Lease is for how long a writer may write without renewing that. Default
	// DefaultLease.
	Lease time.Duration

	// Getenv finds the passwords that a URL does not hold. Default os.Getenv.
	Getenv func(string) string

	// step is told each step of a writer before it is taken. For tests.
	step func(string)
}

// Store is a place for records and logs. Its methods are safe for concurrent
// use.
type Store struct {
	b     backend
	name  string
	lease time.Duration
}

// A backend is one kind of place.
type backend interface {
	names(ctx context.Context, kind string) ([]string, error)
	read(ctx context.Context, r ref, have *Record) (*Record, error)
	writer(r ref, id string, ttl time.Duration) recordWriter
	log(ctx context.Context, l ref) ([]string, error) // oldest first
	watch(ctx context.Context, kind string, changed func())
	close() error
}

// A recordWriter is how a backend writes one record. Its methods may be called
// at the same time, except commit with itself.
type recordWriter interface {
	// acquire takes the lease, or renews the one that has token; 0 is none.
	acquire(ctx context.Context, token int64) (int64, error)

	// commit replaces base, which is what is stored, by next. Whole says that base
	// is not stored, and that whatever is there gives way. The errors are errLost
	// and errMoved when nothing was changed for that reason; after another error
	// it may have been.
	commit(ctx context.Context, base, next *Record, c *Change, whole bool) (*Record, error)

	release(ctx context.Context, token int64) error
}

// unreadable is the error of a record that is there and makes no sense.
type unreadable struct{ error }

func (u *unreadable) Unwrap() error { return u.error }

var (
	errLost  = errors.New("store: the lease has ended")
	errMoved = errors.New("store: the record is not what was read")
)

// A ref names a record or a log.
type ref struct{ kind, name string }

func (r ref) String() string {
	if r.name == "" {
		return r.kind
	}
	return r.kind + "." + r.name
}

// Open returns the store that url names: dir:PATH, redis://HOST:PORT/DB,
// rediss://… (TLS), redis+unix:///SOCKET, redis+sentinel://HOST:PORT,…/MASTER/DB,
// rediss+sentinel://…. It connects to nothing and makes nothing: who reads or
// writes does. No error of it holds a part of the URL.
func Open(url string, o Options) (*Store, error) {
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	s := &Store{lease: o.Lease}
	t, err := parseURL(url)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s.name = t.String()
	if t.dir != "" {
		s.b = newDir(t.dir, o.step)
	} else {
		s.b = newRedis(t, o.Getenv, o.step)
	}
	return s, nil
}

// CheckURL reports what is wrong with a URL, and what to write instead. It
// quotes none of it.
func CheckURL(url string) error {
	_, err := parseURL(url)
	return err
}

// String is the URL without user, password and options.
func (s *Store) String() string { return s.name }

// Close ends the connections.
func (s *Store) Close() error { return s.b.close() }

// Names returns the names of the records of a kind, in order.
func (s *Store) Names(ctx context.Context, kind string) ([]string, error) {
	return s.b.names(ctx, kind)
}

// Read returns a record, or ErrNotFound. Have is what was read before, or nil:
// it comes back itself while nothing has changed, and also with the error
// ErrOlder. Fields that are the same are not fetched again.
func (s *Store) Read(ctx context.Context, kind, name string, have *Record) (*Record, error) {
	r := ref{kind, name}
	rec, err := s.b.read(ctx, r, have)
	if err == nil && rec.olderThan(have) {
		return have, fmt.Errorf("%w: %s of %s", ErrOlder, r, rec.Taken.Format(time.RFC3339))
	}
	return rec, err
}

// Log returns the newest entries of a log, the newest first, at most limit. An
// entry that was written twice is there once; what is no JSON is left out.
func (s *Store) Log(ctx context.Context, kind, name string, limit int) ([]string, error) {
	lines, err := s.b.log(ctx, ref{kind, name})
	if err != nil {
		return nil, err
	}
	oldest := time.Now().Add(-maxLogAge)
	seen := make(map[string]bool, len(lines))
	var all []string
	for _, line := range lines {
		if at := entryTime(line); seen[line] || !json.Valid([]byte(line)) || !at.IsZero() && at.Before(oldest) {
			continue
		}
		seen[line] = true
		all = append(all, line)
	}
	all = all[max(0, len(all)-limit):]
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	return all, nil
}

// Watch calls changed soon after a record of the kind has changed, and whenever
// it may have missed that, until ctx ends. It hears nothing of a directory, and
// not always of Redis: who watches also reads from time to time.
func (s *Store) Watch(ctx context.Context, kind string, changed func()) {
	s.b.watch(ctx, kind, changed)
}

// A Record is a set of fields. It is never changed after it was made.
type Record struct {
	// Taken is when its writer said that it was true. Other than fields it is
	// renewed at no cost.
	Taken time.Time

	// Fields are JSON values, by GROUP/NAME, or by NAME: then no object.
	Fields map[string]string

	stamp   stamp
	pending []LogEntry // of the last step, perhaps not in their logs yet
	src     any        // what the backend remembers of it
}

// A stamp tells two states of a record apart.
type stamp struct {
	Writer  string `json:"id"`      // unique
	Token   int64  `json:"token"`   // of the lease; a later one is greater
	Version int64  `json:"version"` // grows with each change, across writers
}

// olderThan reports whether r is from before have, by all that is known.
func (r *Record) olderThan(have *Record) bool {
	switch {
	case have == nil || r == have:
		return false
	case r.stamp.Writer == have.stamp.Writer && r.stamp.Token == have.stamp.Token:
		return r.stamp.Version < have.stamp.Version
	}
	return r.stamp.Token < have.stamp.Token && r.Taken.Before(have.Taken)
}

// A Change is one step of a record.
type Change struct {
	Taken  time.Time
	Set    map[string]string // fields and their new values
	Remove []string          // fields
	Log    []LogEntry        // in this order
}

// A LogEntry is a line for a log: a JSON object. Its age is known if it begins
// with the member "time", in RFC 3339 and UTC.
type LogEntry struct {
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	Value string `json:"entry"`
}

// check refuses what could not be read back.
func (c *Change) check() error {
	if c.Taken.IsZero() {
		return errors.New("store: a change without a time")
	}
	for name, value := range c.Set {
		group, field, grouped := strings.Cut(name, "/")
		switch {
		case group == "" || grouped && field == "" || !utf8.ValidString(name), name == fieldTaken, name == fieldWriter:
			return fmt.Errorf("store: %q cannot be the name of a field", name)
		case !json.Valid([]byte(value)):
			return fmt.Errorf("store: what is to be field %q is no JSON", name)
		case !grouped && strings.HasPrefix(strings.TrimSpace(value), "{"):
			return fmt.Errorf("store: field %q is an object: it needs a group", name)
		}
	}
	for _, e := range c.Log {
		if !json.Valid([]byte(e.Value)) || !utf8.ValidString(e.Value) || strings.ContainsAny(e.Value, "\r\n") {
			return fmt.Errorf("store: an entry of log %s is not one line of JSON", ref{e.Kind, e.Name})
		}
	}
	return nil
}

// with returns the record that c makes of r, which may be nil.
func (r *Record) with(c *Change, id string, token int64) *Record {
	next := &Record{Taken: c.Taken, Fields: make(map[string]string), stamp: stamp{Writer: id, Token: token, Version: 1}}
	if r != nil {
		next.stamp.Version = r.stamp.Version + 1
		if len(c.Set)+len(c.Remove) == 0 {
			next.Fields = r.Fields
			return next
		}
		for name, value := range r.Fields {
			next.Fields[name] = value
		}
	}
	for name, value := range c.Set {
		next.Fields[name] = value
	}
	for _, name := range c.Remove {
		delete(next.Fields, name)
	}
	return next
}

// entryTime is the time of a log entry to the second, or zero.
func entryTime(line string) time.Time {
	const begin, form = `{"time":"`, "2006-01-02T15:04:05"
	rest, ok := strings.CutPrefix(line, begin)
	if !ok || len(rest) < len(form) {
		return time.Time{}
	}
	at, err := time.Parse(form, rest[:len(form)])
	if err != nil {
		return time.Time{}
	}
	return at
}
