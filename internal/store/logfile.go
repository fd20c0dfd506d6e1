package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const logExt = ".jsonl"

func (d *dir) logFile(l ref) string {
	return filepath.Join(d.path, l.kind, fileName(l.name)+logExt)
}

// fileName makes a name safe: it cannot leave its directory, hide, or be too
// long. Names that differ stay different.
func fileName(name string) string {
	const longest = 200
	if name == "" {
		return "%"
	}
	safe := url.QueryEscape(name)
	if strings.HasPrefix(safe, ".") {
		safe = "%2E" + safe[1:]
	}
	if len(safe) > longest {
		sum := sha256.Sum256([]byte(name))
		safe = safe[:longest-33] + "-" + hex.EncodeToString(sum[:16])
	}
	return safe
}

func (d *dir) log(_ context.Context, l ref) ([]string, error) {
	text, err := os.ReadFile(d.logFile(l))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return lines(text), nil
}

// lines returns the lines of a log without their ends. One whose writer was killed
// may be a part of an entry, with or without an end.
func lines(text []byte) []string {
	var all []string
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSuffix(line, []byte("\n")); len(line) > 0 {
			all = append(all, string(line))
		}
	}
	return all
}

// heal adds what a killed holder has not: the entries of its last step. Here it
// is only for those who read the log now; commit insists on it.
func (w *dirWriter) heal(token int64) {
	if rec, err := w.d.read(context.Background(), w.ref, nil); err == nil {
		_ = w.flush(rec, token)
	}
}

// flush adds the log entries of the last step of rec to their logs. They may be
// there already: a log has each entry once, however often it is written.
func (w *dirWriter) flush(rec *Record, token int64) error {
	w.logs.Lock()
	defer w.logs.Unlock()
	if len(rec.pending) == 0 || w.flushed == rec.stamp {
		return nil
	}
	byLog := map[ref][]byte{}
	var order []ref
	for _, p := range rec.pending {
		l := ref{p.Kind, p.Name}
		if byLog[l] == nil {
			order = append(order, l)
		}
		byLog[l] = append(append(byLog[l], p.Value...), '\n')
	}
	for _, l := range order {
		w.d.step("log")
		if err := w.append(l, byLog[l], token); err != nil {
			return fmt.Errorf("log %s: %w", l, err)
		}
		w.prune(l.kind)
	}
	w.flushed = rec.stamp
	return nil
}

// append adds whole lines to a log. What an earlier writer has left half written is
// given an end, and not cut off: that writer may be alive, and what looks like half
// a line be one that is just being written, or be followed by others by the time
// that it would be cut.
func (w *dirWriter) append(l ref, text []byte, token int64) (err error) {
	path := w.d.logFile(l)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	size := fi.Size()
	last := []byte{'\n'}
	if size > 0 {
		if _, err := f.ReadAt(last, size-1); err != nil {
			return err
		}
	}
	if last[0] != '\n' {
		text = append([]byte{'\n'}, text...)
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	size += int64(len(text))
	head := make([]byte, 64)
	n, _ := f.ReadAt(head, 0)
	first := entryTime(string(head[:n]))
	if size > maxLogBytes || !first.IsZero() && time.Since(first) > maxLogAge+24*time.Hour {
		// A log that is too long for now does no harm.
		_ = w.compact(path, token)
	}
	return nil
}

// prune removes the logs of a kind that nobody has written to for as long as
// entries are kept: of mirrors that are gone. It looks once a day.
func (w *dirWriter) prune(kind string) {
	now := time.Now()
	if now.Sub(w.pruned[kind]) < 24*time.Hour {
		return
	}
	w.pruned[kind] = now
	dir := filepath.Join(w.d.path, kind)
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if fi, err := f.Info(); err == nil && strings.HasSuffix(f.Name(), logExt) && now.Sub(fi.ModTime()) > maxLogAge {
			os.Remove(filepath.Join(dir, f.Name()))
		}
	}
}

// compact drops the oldest entries of a log, down to half of what it may have.
func (w *dirWriter) compact(path string, token int64) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	keep := lines(text)
	oldest, size := time.Now().Add(-maxLogAge), 0
	for i := len(keep) - 1; i >= 0; i-- {
		at := entryTime(keep[i])
		if size += len(keep[i]) + 1; size > maxLogBytes/2 || !at.IsZero() && at.Before(oldest) {
			keep = keep[i+1:]
			break
		}
	}
	w.d.step("compact")
	staged, _, err := w.stage(path, token, func(out io.Writer) error {
		for _, line := range keep {
			if _, err := io.WriteString(out, line+"\n"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.d.step("compact check")
	if err := w.holds(token); err != nil {
		staged.Discard()
		return err
	}
	w.d.step("compact rename")
	return staged.Commit()
}
