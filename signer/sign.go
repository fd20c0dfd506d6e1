package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/xxh3"

	"meridian/builder/rpm"
	"meridian/internal/durable"
	"meridian/signer/verify"
)

// Options change what Sign does. The zero value signs in place and replaces the
// signatures of others.
type Options struct {
	// Out is a directory to write into, instead of replacing what is signed.
	// Below it, files are where they were below the directory that was searched.
	// Packages that are signed already are copied there; of metadata only what
	// Sign makes is written.
	Out string

	// KeepForeign leaves packages alone that have a signature of another key.
	// Without it they get one of this key instead.
	KeepForeign bool

	// Payload also signs header and payload together, which only rpm before 4.14
	// looks at. Packages whose header does not have a digest of the payload get
	// that signature anyway.
	Payload bool

	// Receipts has each package that is written hashed on its way, so that nobody
	// has to read it again.
	Receipts bool
}

// A State is what became of a file.
type State uint8

// What can become of a file. The zero value is that nothing did, because of an
// error.
const (
	Failed State = iota
	Signed
	Unchanged // it had the signature already
	Kept      // it has that of another key, and KeepForeign is set
	Linked    // it is a link that was found below a directory
)

// A Result is what Sign did with one file.
type Result struct {
	Artifact verify.Artifact
	State    State
	Err      error // says why it failed, and names the file

	// Replaced are the keys, by their ids, whose signatures were there before.
	Replaced []string

	// Receipt is of the package that was written, if receipts were asked for.
	Receipt *rpm.Receipt
}

// Sign signs files, some at once, and reports each: in order, and never two at
// once. What goes wrong with a file is in its Result, and the others are signed
// nevertheless. The error is about all of them: nothing was signed then, or ctx has
// ended.
//
// A file that is there several times is signed once. In place, a link is followed
// if it was named, and left alone if it was found below a directory: what it leads
// to was found there too, or was not to be touched.
func (k *Key) Sign(ctx context.Context, files []verify.Artifact, o Options, report func(Result)) error {
	if err := k.Usable(); err != nil {
		return err
	}
	if err := checkOut(files, o.Out); err != nil {
		return err
	}
	files = distinct(files, o.Out)
	return verify.InOrder(ctx, len(files), runtime.GOMAXPROCS(0),
		func(i int) Result {
			r := k.signFile(files[i], o)
			if r.Err != nil {
				r.State = Failed
				r.Err = fmt.Errorf("%s: %w", r.Artifact, bare(r.Err, r.Artifact.Path))
			}
			return r
		},
		func(_ int, r Result) { report(r) })
}

// bare is what the file system said about path, without it: it is said before.
func bare(err error, path string) error {
	if e, ok := err.(*fs.PathError); ok && e.Path == path {
		return e.Err
	}
	return err
}

// distinct leaves out what would be written where another of the files is. Nobody
// else may write a file while a worker does.
func distinct(files []verify.Artifact, out string) []verify.Artifact {
	seen := make(map[string]bool)
	var list []verify.Artifact
	for _, f := range files {
		to := filepath.Join(out, f.Rel)
		if out == "" {
			real, err := filepath.EvalSymlinks(f.Path)
			if err != nil || f.Link { // nothing will be written
				list = append(list, f)
				continue
			}
			to = real
		}
		if !seen[to] {
			list = append(list, f)
		}
		seen[to] = true
	}
	return list
}

// checkOut refuses a directory in which files would be written over each other, or
// over what they are made from.
func checkOut(files []verify.Artifact, out string) error {
	if out == "" {
		return nil
	}
	from := make(map[string]string)
	for _, f := range files {
		to := filepath.Join(out, f.Rel)
		if other, ok := from[to]; ok && other != f.Path {
			return fmt.Errorf("%s and %s would both become %s; sign them one after the other, into different directories", other, f.Path, to)
		}
		from[to] = f.Path
		a, err := os.Stat(f.Path)
		if err != nil {
			continue // which is that file's own error
		}
		if b, err := os.Stat(to); err == nil && os.SameFile(a, b) {
			return fmt.Errorf("%s is what would be signed, and where it would be written; leave out -out to sign in place", to)
		}
	}
	return nil
}

func (k *Key) signFile(a verify.Artifact, o Options) Result {
	r := Result{Artifact: a}
	if a.Link && o.Out == "" {
		r.State = Linked
		return r
	}
	from, err := filepath.EvalSymlinks(a.Path)
	if err != nil {
		r.Err = err
		return r
	}
	to := from
	if o.Out != "" {
		to = filepath.Join(o.Out, a.Rel)
		if r.Err = os.MkdirAll(filepath.Dir(to), 0o755); r.Err != nil {
			return r
		}
	}
	if a.Type == verify.Repomd {
		r.State, r.Err = k.signRepomd(from, to, o)
		return r
	}
	k.signPackage(from, to, o, &r)
	return r
}

// maxRepomd bounds metadata, and maxBeside the signature and the key beside it. All
// have a few kilobytes.
const (
	maxRepomd = 16 << 20
	maxBeside = 1 << 20
)

// readRegular reads a file of at most limit bytes, and its permissions. It opens no
// named pipe, which would be to wait for whoever writes into that.
func readRegular(path string, limit int64) ([]byte, fs.FileMode, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	b, err := readAll(f, path, limit)
	return b, info.Mode().Perm(), err
}

// signRepomd writes the signature of the metadata at from, and the key to verify
// it with, beside to.
func (k *Key) signRepomd(from, to string, o Options) (State, error) {
	message, perm, err := readRegular(from, maxRepomd)
	if err != nil {
		return Failed, err
	}
	if !bytes.Contains(message[:min(len(message), 4<<10)], []byte("<repomd")) {
		return Failed, errors.New("not the metadata of a repository: it does not begin with <repomd>")
	}

	mine := verify.Checker{Keys: k.ring}
	signature, _, err := readRegular(to+verify.SignatureSuffix, maxBeside)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Failed, err
	}
	signed := err == nil
	if signed {
		found := mine.Detached(message, signature)
		if len(found) > 0 && o.KeepForeign && foreign(found) {
			return Kept, nil
		}
		signed = len(found) == 0
	}
	state := Unchanged
	// Who finds the signature finds the key.
	if old, _, err := readRegular(to+verify.KeySuffix, maxBeside); err != nil || !bytes.Equal(old, k.cert) {
		state = Signed
		if err := durable.WriteFile(to+verify.KeySuffix, k.cert, perm); err != nil {
			return Failed, err
		}
	}
	if signed {
		return state, nil
	}
	if signature, err = k.Detach(message); err != nil {
		return Failed, err
	}
	if err := durable.WriteFile(to+verify.SignatureSuffix, signature, perm); err != nil {
		return Failed, err
	}
	return Signed, nil
}

// foreign tells whether all that is wrong is whose signature it is.
func foreign(found []verify.Finding) bool {
	for _, f := range found {
		if f.Kind != verify.ForeignKey {
			return false
		}
	}
	return true
}

// signPackage writes the package at from, signed, to to: as a new file in the place
// of the old one. What goes wrong is in r.Err.
func (k *Key) signPackage(from, to string, o Options, r *Result) {
	f, err := verify.Open(from)
	if err != nil {
		r.Err = err
		return
	}
	defer f.Close()

	digests, found, covered := f.Integrity()
	if len(found) > 0 {
		r.Err = refused(found)
		return
	}
	payload := o.Payload || !covered
	signers := f.Signers(k.ring)
	r.State = Signed
	for _, s := range signers {
		if !s.Trusted {
			r.Replaced = append(r.Replaced, s.KeyID)
		}
	}
	switch {
	case len(r.Replaced) > 0 && o.KeepForeign:
		r.State, r.Replaced = Kept, nil
	case len(r.Replaced) == 0 && complete(signers, payload):
		var ok bool
		if ok, r.Err = k.payloadFits(f, signers); r.Err != nil {
			return
		} else if ok {
			r.State = Unchanged
		}
	}

	if r.State != Signed {
		if from == to {
			// Whether the payload is whole is what verify tells. But an end that is
			// missing shows without reading it.
			r.Err = truncated(f)
			return
		}
		if same, err := sameHead(f, to); err != nil || same {
			r.Err = err
			return
		}
		r.Receipt, r.Err = write(f, to, f.Head, digests, o.Receipts)
		return
	}
	if o.Out != "" {
		// What was written by an earlier run is not made anew: a signature tells the
		// time, and would differ.
		if r.State, r.Err = k.alreadySigned(f, to, payload); r.Err != nil || r.State == Unchanged {
			r.Replaced = nil
			return
		}
	}

	signatures, err := k.signatures(f, payload)
	if err != nil {
		r.Err = err
		return
	}
	signed, err := head(f, signatures)
	if err != nil {
		r.Err = err
		return
	}
	r.Receipt, r.Err = write(f, to, signed, digests, o.Receipts)
}

// refused is the error for a package that rpm would refuse whoever signs it.
func refused(found []verify.Finding) error {
	all := make([]string, len(found))
	for i, f := range found {
		all[i] = f.String()
	}
	return fmt.Errorf("not signed, because it is broken: %s", strings.Join(all, "; "))
}

// complete tells whether signatures, all of them ours, are those that there should
// be.
func complete(signers []verify.Signer, payload bool) bool {
	var header, both bool
	for _, s := range signers {
		header = header || !s.Payload
		both = both || s.Payload
	}
	return header && (both || !payload)
}

// truncated is an error when the file is shorter than its head says.
func truncated(f *verify.File) error {
	size := f.Signature.Get(verify.SigLongSize)
	if size.Len() == 0 {
		size = f.Signature.Get(verify.SigSize)
	}
	if size.Len() == 0 || size.Uint(0) <= uint64(f.Receipt.Size-f.Start) {
		return nil
	}
	return fmt.Errorf("truncated: %d bytes are missing at the end", size.Uint(0)-uint64(f.Receipt.Size-f.Start))
}

// payloadFits tells whether those of our signatures that are of the payload fit it.
// Only where there is one the payload is read.
func (k *Key) payloadFits(f *verify.File, signers []verify.Signer) (bool, error) {
	if !slices.ContainsFunc(signers, func(s verify.Signer) bool { return s.Payload }) {
		return true, nil
	}
	c := verify.Checker{Keys: k.ring}
	d, found := c.Header(f)
	if _, err := f.Copy(d.Writers()...); err != nil {
		return false, err
	}
	return len(found)+len(d.Findings()) == 0, nil
}

// sameHead tells whether there is a package at path with the same signatures and
// the same header, and as long.
func sameHead(f *verify.File, path string) (bool, error) {
	other, err := openOther(path)
	if other == nil {
		return false, err
	}
	defer other.Close()
	return bytes.Equal(other.Head, f.Head) && other.Receipt.Size == f.Receipt.Size, nil
}

// alreadySigned is Unchanged if what is at path is the package f, signed by k.
func (k *Key) alreadySigned(f *verify.File, path string, payload bool) (State, error) {
	other, err := openOther(path)
	if other == nil {
		return Signed, err
	}
	defer other.Close()
	if !bytes.Equal(other.HeaderBytes(), f.HeaderBytes()) ||
		other.Receipt.Size-other.End != f.Receipt.Size-f.End {
		return Signed, nil
	}
	signers := other.Signers(k.ring)
	foreign := slices.ContainsFunc(signers, func(s verify.Signer) bool { return !s.Trusted })
	if foreign || !complete(signers, payload) {
		return Signed, nil
	}
	ok, err := k.payloadFits(other, signers)
	if !ok {
		return Signed, err
	}
	return Unchanged, nil
}

// openOther opens the package at path, if there is one; what is no package is as if
// there were nothing.
func openOther(path string) (*verify.File, error) {
	f, err := verify.Open(path)
	if format := (*rpm.FormatError)(nil); errors.Is(err, fs.ErrNotExist) || errors.As(err, &format) {
		return nil, nil
	}
	return f, err
}

// signatures makes those for a package. One of header and payload stands before
// what it is of, so that the payload is read for it alone.
func (k *Key) signatures(f *verify.File, payload bool) ([]entry, error) {
	header, both := verify.SigRSA, verify.SigPGP
	if !k.isRSA() {
		header, both = verify.SigDSA, verify.SigGPG
	}
	now := time.Now()
	add := func(list []entry, tag rpm.Tag, h hash.Hash) ([]entry, error) {
		sig, err := k.sign(h, now)
		if err != nil {
			return nil, err
		}
		return append(list, entry{tag, rpm.TypeBin, uint32(len(sig)), sig}), nil
	}
	h := crypto.SHA256.New()
	h.Write(f.HeaderBytes())
	list, err := add(nil, header, h)
	if err != nil || !payload {
		return list, err
	}
	h = crypto.SHA256.New()
	h.Write(f.HeaderBytes())
	if _, err := f.Copy(h); err != nil {
		return nil, err
	}
	return add(list, both, h)
}

// write makes the file to of a head and the payload of f, unless the payload is not
// what it should be. A receipt of it is returned if one is wanted.
func write(f *verify.File, to string, head []byte, digests *verify.Digests, receipt bool) (*rpm.Receipt, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	whole, fast := sha256.New(), xxh3.New()
	var size int64
	var broken error
	err = durable.Write(to, info.Mode().Perm(), func(w io.Writer) error {
		if _, err := w.Write(head); err != nil {
			return err
		}
		writers := append(digests.Writers(), w)
		if receipt {
			whole.Write(head)
			fast.Write(head)
			writers = append(writers, whole, fast)
		}
		n, err := f.Copy(writers...)
		if err != nil {
			return err
		}
		size = int64(len(head)) + n
		if found := digests.Findings(); len(found) > 0 {
			broken = refused(found)
			return broken
		}
		// Whoever put another file here meanwhile did not want it replaced by a copy
		// of the old one.
		if now, err := os.Stat(f.Name()); err != nil {
			return err
		} else if rpm.StampOf(now) != f.Receipt.Stamp {
			return rpm.ErrChanged
		}
		return nil
	})
	if broken != nil {
		return nil, broken // that it could not be written is not the point
	}
	if err != nil || !receipt {
		return nil, err
	}
	if info, err = os.Stat(to); err != nil {
		return nil, err
	}
	out := &rpm.Receipt{Path: to, Stamp: rpm.StampOf(info), XXH3: fast.Sum128().Bytes(), Header: sha256.Sum256(head)}
	whole.Sum(out.SHA256[:0])
	if out.Size != size {
		return nil, rpm.ErrChanged
	}
	return out, nil
}
