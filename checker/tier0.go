package checker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"meridian/builder/repodata"
	"meridian/checker/state"
	"meridian/internal/fetch"
)

// Origins are the tier0s of a network: by tree ("main", the name of an optional
// module, "vault") the base URLs or paths of one or more, in the order in which
// they are asked. In YAML it is one of them, which is that of the main tree, or
// a map; where there are several of a tree, a list.
type Origins map[string][]string

// Names of trees that are not optional modules.
const (
	mainTree  = "main"
	vaultTree = "vault"
)

// UnmarshalYAML reads each of the forms.
func (o *Origins) UnmarshalYAML(unmarshal func(any) error) error {
	var bases oneOrMore
	if unmarshal(&bases) == nil {
		*o = Origins{mainTree: bases}
		return nil
	}
	var trees map[string]oneOrMore
	if err := unmarshal(&trees); err != nil {
		return errors.New("origin is no URL, no list of URLs, and no map of them; write origin: https://tier0.example.org/, or a line for each tree")
	}
	*o = Origins{}
	for tree, bases := range trees {
		(*o)[tree] = bases
	}
	return nil
}

// oneOrMore is a text, or a list of texts.
type oneOrMore []string

func (l *oneOrMore) UnmarshalYAML(unmarshal func(any) error) error {
	var one string
	if unmarshal(&one) == nil {
		*l = oneOrMore{one}
		return nil
	}
	var many []string
	if err := unmarshal(&many); err != nil {
		return err
	}
	*l = many
	return nil
}

// Rooted returns o with relative paths below dir.
func (o Origins) Rooted(dir string) Origins {
	all := make(Origins, len(o))
	for tree, bases := range o {
		for _, base := range bases {
			if base != "" && !strings.Contains(base, "://") && !filepath.IsAbs(base) {
				base = filepath.Join(dir, base)
			}
			all[tree] = append(all[tree], base)
		}
	}
	return all
}

// A tier0 is one place that a tree is published at.
type tier0 struct {
	tree string
	base string // as people know it: a URL, or the path of a directory; ends in "/"
	documents
}

// documents are the files of a tier0, by their path below its base.
type documents interface {
	// read asks for a whole document. With the stamp of the copy that the caller
	// has, the reply may be that it is unchanged.
	read(ctx context.Context, path string, known stamp) reply

	// size asks how long a file is.
	size(ctx context.Context, path string) reply

	// copy writes a file to w, of at most most bytes and one more, which says that
	// there are more. When ctx ends it returns; what writes to w may do so once
	// more then.
	copy(ctx context.Context, path string, w io.Writer, most int64) error
}

// A stamp tells, without reading it, whether a document is still the one that was
// read. The zero value is that of no copy.
type stamp struct {
	web  fetch.Validators
	file os.FileInfo
}

// A reply is what a tier0 says to one question.
type reply struct {
	outcome   Outcome
	unchanged bool // Served, and the caller has it
	body      []byte
	stamp     stamp
	size      int64 // of the file in bytes; negative when it is not told

	// err says why it is not Served. broken: it was no whole answer, so others of
	// this tier0 may be as long in coming.
	err    error
	broken bool

	// evidence writes down the question and what came back, with what the caller
	// found wrong with it, or nil.
	evidence func(wrong error) *state.Evidence
}

const (
	// tier0Timeout is for one document. Those that are read whole are small.
	tier0Timeout = 15 * time.Second

	// stampAge is what separates two contents of one file for sure: times of files
	// have seconds, and writers write more than once in one.
	stampAge = 2 * time.Second
)

// newTier0 returns the tier0 that a setting names.
func newTier0(tree, base string, client *fetch.Client, vantage string) (*tier0, error) {
	path := base
	if strings.Contains(base, "://") {
		u, err := url.Parse(base)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%q is no URL; write one such as https://tier0.example.org/", base)
		case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
			return nil, fmt.Errorf("%q has more than a host and a path; write https://HOST/PATH/", u.Redacted())
		case u.Scheme == "http" || u.Scheme == "https":
			if u.Hostname() == "" {
				return nil, fmt.Errorf("%q names no host; write https://HOST/PATH/", base)
			}
			base = strings.TrimSuffix(base, "/") + "/"
			return &tier0{tree, base, &website{base, client, vantage}}, nil
		case u.Scheme != "file":
			return nil, fmt.Errorf("%q has the scheme %q; write https, http, or file", base, u.Scheme)
		case u.Host != "" && u.Host != "localhost":
			return nil, fmt.Errorf("%q names the host %q, whose files are not here; write file:///PATH/", base, u.Host)
		}
		path = u.Path
	}
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%q is neither a URL nor an absolute path; write https://HOST/PATH/ or /PATH/", base)
	}
	path = strings.TrimSuffix(filepath.Clean(path), "/") + "/"
	return &tier0{tree, path, newDirectory(path, vantage)}, nil
}

// A website is a tier0 that is asked over HTTP.
type website struct {
	base    string
	client  *fetch.Client
	vantage string
}

func (w *website) do(ctx context.Context, r fetch.Request) (reply, *answer) {
	a := request(ctx, w.client, r)
	out := reply{outcome: a.outcome, body: a.resp.Body, size: a.size(), err: a.err, broken: a.err != nil}
	out.evidence = func(wrong error) *state.Evidence { return a.evidence(w.vantage, wrong) }
	if a.outcome != Served && out.err == nil {
		out.err = fmt.Errorf("it answers with status %d", a.resp.Status)
	}
	return out, a
}

func (w *website) read(ctx context.Context, path string, known stamp) reply {
	out, a := w.do(ctx, fetch.Request{URL: w.base + path, Header: noCache, Known: known.web})
	if a.resp.Status == http.StatusNotModified && a.err == nil {
		out.outcome, out.unchanged, out.err = Served, true, nil
	}
	if out.outcome == Served && !out.unchanged {
		out.stamp.web = steady(a.resp)
	}
	return out
}

// steady returns the validators of an answer, unless the file may change once
// more without them changing: most servers make both of them out of its size and
// of the second in which it was written.
func steady(resp *fetch.Response) fetch.Validators {
	v := resp.Validators()
	if v.LastModified == "" {
		return v
	}
	written, err := http.ParseTime(v.LastModified)
	if err != nil {
		return fetch.Validators{}
	}
	asked, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil || asked.Sub(written) < stampAge {
		return fetch.Validators{}
	}
	return v
}

func (w *website) size(ctx context.Context, path string) reply {
	r := fetch.Request{URL: w.base + path, Method: http.MethodHead, Header: noCache}
	out, a := w.do(ctx, r)
	if a.headRefused() {
		out, _ = w.do(ctx, oneByte(r))
	}
	return out
}

func (w *website) copy(ctx context.Context, path string, to io.Writer, most int64) error {
	resp, err := w.client.Do(ctx, fetch.Request{URL: w.base + path, Header: noCache, MaxBytes: most + 1, Timeout: listTimeout, To: to})
	if err == nil && resp.Status != http.StatusOK {
		err = fmt.Errorf("%s: it answers with status %d", resp.URL, resp.Status)
	}
	return err
}

// A directory is a tier0 whose files are here.
type directory struct {
	root    string // ends in "/"
	vantage string

	// slots are taken by whoever touches a file, for as long as that takes. On a
	// network file system whose server is gone that is for ever, and nothing ends
	// it: so only a few may hang.
	slots chan struct{}
}

func newDirectory(root, vantage string) *directory {
	return &directory{root, vantage, make(chan struct{}, 4)}
}

// touch calls f, and waits for it as long as a tier0 may take.
func (d *directory) touch(ctx context.Context, method, path string, f func(name string) (reply, error)) reply {
	ctx, cancel := context.WithTimeout(ctx, tier0Timeout)
	defer cancel()
	name := filepath.Join(d.root, filepath.FromSlash(path))
	at := time.Now()
	done := make(chan reply, 1)
	go func() {
		select {
		case d.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		defer func() { <-d.slots }()
		out, err := f(name)
		if err != nil {
			out.outcome, out.err = d.outcome(err), err
		}
		done <- out
	}()
	var out reply
	select {
	case out = <-done:
	case <-ctx.Done():
		out = reply{outcome: Unreachable, broken: true, err: fmt.Errorf("the file system does not answer within %v", tier0Timeout)}
	}
	evidenceOf := (&url.URL{Scheme: "file", Path: name}).String()
	body := out.body
	out.evidence = func(wrong error) *state.Evidence {
		e := &state.Evidence{At: at.UTC(), Vantage: d.vantage, Method: method, URL: evidenceOf, Body: escape(body, maxEvidenceBody)}
		if wrong == nil {
			wrong = out.err
		}
		if wrong != nil {
			e.Error = escape([]byte(wrong.Error()), maxEvidenceValue)
		}
		return e
	}
	return out
}

var (
	errNotRegular = errors.New("it is not a regular file")
	errTooLong    = errors.New("it is longer than any such file is")
)

// outcome says what an error of the file system means, in the words of HTTP.
func (d *directory) outcome(err error) Outcome {
	switch {
	case errors.Is(err, errNotRegular), errors.Is(err, errTooLong):
		return Garbage
	case errors.Is(err, fs.ErrPermission):
		return Refused
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		// What is not mounted does not answer; it is not empty.
		if _, err := os.Stat(d.root); err != nil {
			return Unreachable
		}
		return Missing
	}
	return Unreachable
}

func (d *directory) read(ctx context.Context, path string, known stamp) reply {
	return d.touch(ctx, http.MethodGet, path, func(name string) (reply, error) {
		out := reply{outcome: Served, size: -1}
		f, info, err := openRegular(name)
		if err != nil {
			return out, err
		}
		defer f.Close()
		opened := time.Now()
		out.size = info.Size()
		if was := known.file; was != nil && os.SameFile(info, was) && info.Size() == was.Size() && info.ModTime().Equal(was.ModTime()) {
			out.unchanged = true
			return out, nil
		}
		if out.body, err = io.ReadAll(io.LimitReader(f, repodata.MaxRepomd+1)); err != nil {
			return out, err
		}
		if len(out.body) > repodata.MaxRepomd {
			return out, errTooLong
		}
		if opened.Sub(info.ModTime()) >= stampAge {
			out.stamp.file = info
		}
		return out, nil
	})
}

func (d *directory) size(ctx context.Context, path string) reply {
	return d.touch(ctx, http.MethodHead, path, func(name string) (reply, error) {
		info, err := os.Stat(name)
		if err != nil {
			return reply{}, err
		}
		if !info.Mode().IsRegular() {
			return reply{}, errNotRegular
		}
		return reply{outcome: Served, size: info.Size()}, nil
	})
}

func (d *directory) copy(ctx context.Context, path string, w io.Writer, most int64) error {
	done := make(chan error, 1)
	go func() {
		select {
		case d.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		defer func() { <-d.slots }()
		f, _, err := openRegular(filepath.Join(d.root, filepath.FromSlash(path)))
		if err == nil {
			_, err = io.Copy(w, io.LimitReader(f, most+1))
			f.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// openRegular opens a file, and nothing that would have to be waited for.
func openRegular(name string) (*os.File, os.FileInfo, error) {
	// Opened in this way, a pipe does not wait for its writer.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// userAgent is what the checker calls itself.
func userAgent(version, contact string) string {
	agent := "meridian-checker"
	if version != "" {
		agent += "/" + version
	}
	if contact != "" {
		agent += " (+" + contact + ")"
	}
	return agent
}
