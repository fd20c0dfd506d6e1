package signer

import (
	"bytes"
	"context"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meridian/builder/rpm"
	"meridian/internal/testworld"
	"meridian/signer/verify"
)

// An owner of keys has one of each kind for all tests: to make them takes longer
// than to use them.
var owner = struct {
	sync.Mutex
	keys map[string]*Key
}{keys: make(map[string]*Key)}

// keyOf returns the key of a name, of Ed25519 if that is in the name and of RSA
// otherwise.
func keyOf(t testing.TB, name string) *Key {
	t.Helper()
	owner.Lock()
	defer owner.Unlock()
	if k := owner.keys[name]; k != nil {
		return k
	}
	kind := RSA2048
	for _, t := range []KeyType{Ed25519, RSA3072, RSA4096} {
		if strings.Contains(name, string(t)) {
			kind = t
		}
	}
	k := parseNew(t, generate(t, NewKeyOptions{Type: kind}), "")
	owner.keys[name] = k
	return k
}

func generate(t testing.TB, o NewKeyOptions) *NewKey {
	t.Helper()
	o.Name, o.Email = "Test", "test@example.org"
	made, err := Generate(o)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func parseNew(t testing.TB, made *NewKey, passphrase string) *Key {
	t.Helper()
	k, err := parse(made.Private, []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sample is a package without signature.
func sample(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("verify/testdata/unsigned.rpm")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// enlarged returns sample with a payload of n bytes more, and all digests to match.
func enlarged(t testing.TB, n int) []byte {
	t.Helper()
	b := append(sample(t), make([]byte, n)...)
	header, payload := parts(b)
	digest := crypto.SHA256.New()
	digest.Write(b[payload:])
	copy(value(t, b, header, 5092), fmt.Sprintf("%x", digest.Sum(nil)))
	return fixDigests(t, b)
}

// fixDigests makes what the signature header says of header and payload true.
func fixDigests(t testing.TB, b []byte) []byte {
	header, payload := parts(b)
	sum := func(h crypto.Hash, b []byte) []byte {
		d := h.New()
		d.Write(b)
		return d.Sum(nil)
	}
	copy(value(t, b, 96, 273), fmt.Sprintf("%x", sum(crypto.SHA256, b[header:payload])))
	copy(value(t, b, 96, 269), fmt.Sprintf("%x", sum(crypto.SHA1, b[header:payload])))
	copy(value(t, b, 96, 1004), sum(crypto.MD5, b[header:]))
	binary.BigEndian.PutUint32(value(t, b, 96, 1000), uint32(len(b)-header))
	return b
}

// parts are where the header and the payload begin.
func parts(b []byte) (header, payload int) {
	size := func(at int) int {
		return introSize + entrySize*int(binary.BigEndian.Uint32(b[at+8:])) + int(binary.BigEndian.Uint32(b[at+12:]))
	}
	header = leadSize + size(leadSize)
	header += (8 - header%8) % 8
	return header, header + size(header)
}

// value is what a header at byte at has for a tag, and everything behind it.
func value(t testing.TB, b []byte, at int, tag rpm.Tag) []byte {
	t.Helper()
	n := int(binary.BigEndian.Uint32(b[at+8:]))
	for i := range n {
		e := b[at+introSize+entrySize*i:]
		if rpm.Tag(binary.BigEndian.Uint32(e)) == tag {
			return b[at+introSize+entrySize*n+int(binary.BigEndian.Uint32(e[8:])):]
		}
	}
	t.Fatalf("no tag %d", tag)
	return nil
}

func put(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func get(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sign signs what is at paths, and returns the results by the names below them.
func sign(t testing.TB, k *Key, o Options, paths ...string) map[string]Result {
	t.Helper()
	files, err := verify.Find(t.Context(), paths...)
	if err != nil {
		t.Fatal(err)
	}
	results := make(map[string]Result)
	if err := k.Sign(t.Context(), files, o, func(r Result) { results[r.Artifact.Rel] = r }); err != nil {
		t.Fatal(err)
	}
	return results
}

// want fails the test unless the file was dealt with like that.
func want(t testing.TB, results map[string]Result, name string, state State) Result {
	t.Helper()
	r, ok := results[name]
	if !ok {
		t.Fatalf("no result for %s", name)
	}
	if r.State != state || (r.Err != nil) != (state == Failed) {
		t.Fatalf("%s: state %d, error %v; want state %d", name, r.State, r.Err, state)
	}
	return r
}

// good fails the test unless everything at path is signed by k.
func good(t testing.TB, k *Key, paths ...string) {
	t.Helper()
	files, err := verify.Find(t.Context(), paths...)
	if err != nil {
		t.Fatal(err)
	}
	c := verify.Checker{Keys: k.Ring(), AllDigests: true}
	if err := c.Tree(t.Context(), files, func(r verify.Result) {
		if err := r.Err(); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Error(err)
	}
}

// foreignProgram runs one with a home of its own.
func foreignProgram(t testing.TB, home, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GNUPGHOME=" + home, "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// checksig has rpm judge a package by one key, and returns what it says.
func checksig(t testing.TB, k *Key, path string) string {
	t.Helper()
	testworld.Need(t, "rpm")
	home := testworld.TempDir(t)
	db := "--dbpath=" + filepath.Join(home, "db")
	if out, err := foreignProgram(t, home, "rpmkeys", db, "--import", put(t, filepath.Join(home, "key"), k.Public())); err != nil {
		t.Fatalf("rpmkeys --import: %v\n%s", err, out)
	}
	out, err := foreignProgram(t, home, "rpmkeys", db, "--checksig", "--verbose", path)
	if err != nil {
		t.Errorf("rpmkeys --checksig: %v\n%s", err, out)
	}
	return out
}

// An opaqueSigner is a key that nobody can look into, like one in a token.
type opaqueSigner struct{ crypto.Signer }

func TestSignaturesThatRPMAccepts(t *testing.T) {
	token := func(k *Key) *Key {
		k, err := New(k.Public(), opaqueSigner{k.private})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	for _, tt := range []struct {
		name string
		key  *Key
		o    Options
		want []string
	}{
		{"RSA of 4096 bits", keyOf(t, "rsa4096"), Options{}, []string{"Header V4 RSA/SHA256 Signature"}},
		{"RSA over the payload too", keyOf(t, "one"), Options{Payload: true},
			[]string{"Header V4 RSA/SHA256 Signature", "    V4 RSA/SHA256 Signature"}},
		{"legacy Ed25519", keyOf(t, "ed25519"), Options{}, []string{"Header V4 EdDSA/SHA256 Signature"}},
		{"legacy Ed25519 over the payload too", keyOf(t, "ed25519"), Options{Payload: true},
			[]string{"Header V4 EdDSA/SHA256 Signature", "    V4 EdDSA/SHA256 Signature"}},
		{"RSA in a token", token(keyOf(t, "one")), Options{}, []string{"Header V4 RSA/SHA256 Signature"}},
		{"legacy Ed25519 in a token", token(keyOf(t, "ed25519")), Options{}, []string{"Header V4 EdDSA/SHA256 Signature"}},
		{"a subkey that gpg has made", gpgKey(t), Options{Payload: true},
			[]string{"Header V4 RSA/SHA256 Signature", "    V4 RSA/SHA256 Signature"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := put(t, filepath.Join(t.TempDir(), "a.rpm"), sample(t))
			want(t, sign(t, tt.key, tt.o, path), "a.rpm", Signed)
			out := checksig(t, tt.key, path)
			for _, line := range append(tt.want, "Header SHA256 digest: OK", "Payload SHA256 digest: OK", "MD5 digest: OK") {
				if !strings.Contains(out, line) || strings.Contains(out, "BAD") || strings.Contains(out, "NOKEY") {
					t.Errorf("rpmkeys does not say %q alone:\n%s", line, out)
				}
			}
			if strings.Count(out, " Signature,") != len(tt.want) {
				t.Errorf("rpmkeys sees other signatures than %q:\n%s", tt.want, out)
			}
			good(t, tt.key, path)
		})
	}
}

// gpgKey is a private key with a subkey for signatures, protected, as gpg exports
// it.
func gpgKey(t *testing.T) *Key {
	t.Helper()
	testworld.Need(t, "gpg")
	home := testworld.TempDir(t)
	t.Cleanup(func() { exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() })
	pass := []string{"--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "from gpg"}
	run := func(args ...string) string {
		t.Helper()
		out, err := foreignProgram(t, home, "gpg", append(slices.Clone(pass), args...)...)
		if err != nil {
			t.Fatalf("gpg %q: %v\n%s", args, err, out)
		}
		return out
	}
	run("--quick-gen-key", "Test <test@example.org>", "rsa2048", "cert", "never")
	var fpr string
	for line := range strings.Lines(run("--with-colons", "--list-keys")) {
		if f := strings.Split(line, ":"); f[0] == "fpr" && fpr == "" {
			fpr = f[9]
		}
	}
	run("--quick-add-key", fpr, "rsa2048", "encr", "never")
	run("--quick-add-key", fpr, "rsa2048", "sign", "never")
	file := filepath.Join(home, "secret.asc")
	run("--armor", "--output", file, "--export-secret-keys")
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := Open(file, []byte("from gpg"), "")
	if err != nil {
		t.Fatal(err)
	}
	if k.String() == k.Fingerprint()[24:] {
		t.Error("the primary key signs, which is for certification alone")
	}
	return k
}

// Packages of old have no digest of their payload in the header: what is signed
// must cover the payload in another way.
func TestPackageWithoutPayloadDigest(t *testing.T) {
	b := sample(t)
	start, payload := parts(b)
	h, err := rpm.ParseHeader(b[start:payload])
	if err != nil {
		t.Fatal(err)
	}
	var list []entry
	n := int(binary.BigEndian.Uint32(b[start+8:]))
	for i := range n {
		tag := rpm.Tag(binary.BigEndian.Uint32(b[start+introSize+entrySize*i:]))
		if tag != 63 && tag != 5092 && tag != 5093 && tag != 5097 {
			list = append(list, valueOf(tag, h.Get(tag)))
		}
	}
	old := fixDigests(t, slices.Concat(b[:start], encode(63, list), b[payload:]))
	path := put(t, filepath.Join(t.TempDir(), "old.rpm"), old)
	k := keyOf(t, "one")
	want(t, sign(t, k, Options{}, path), "old.rpm", Signed)
	if out := checksig(t, k, path); strings.Count(out, "Signature, key ID") != 2 {
		t.Errorf("want two signatures:\n%s", out)
	}
	good(t, k, path)
	want(t, sign(t, k, Options{}, path), "old.rpm", Unchanged)
}

func TestSignKeepsThePayloadInItsPlace(t *testing.T) {
	before := sample(t)
	path := put(t, filepath.Join(t.TempDir(), "a.rpm"), before)
	for _, tt := range []struct {
		key *Key
		o   Options
	}{{keyOf(t, "rsa4096"), Options{}}, {keyOf(t, "ed25519"), Options{}}, {keyOf(t, "one"), Options{Payload: true}}} {
		want(t, sign(t, tt.key, tt.o, path), "a.rpm", Signed)
		after := get(t, path)
		h1, p1 := parts(before)
		h2, p2 := parts(after)
		if h1 != h2 || p1 != p2 || !bytes.Equal(before[h1:], after[h2:]) {
			t.Errorf("header and payload at %d, %d; want them as they were, at %d, %d", h2, p2, h1, p1)
		}
		if !bytes.Equal(before[:96], after[:96]) {
			t.Error("another lead")
		}
		good(t, tt.key, path)
	}
}

// Without room left by who built it, the payload moves and nothing else changes.
func TestSignWithoutRoom(t *testing.T) {
	b := sample(t)
	start, _ := parts(b)
	h, err := rpm.ParseHeader(b[96:start])
	if err != nil {
		t.Fatal(err)
	}
	tight := append(b[:96:96], encode(tagRegion, entries(b[96:], h))...)
	for len(tight)%8 != 0 {
		tight = append(tight, 0)
	}
	tight = append(tight, b[start:]...)
	path := put(t, filepath.Join(t.TempDir(), "a.rpm"), tight)
	k := keyOf(t, "one")
	want(t, sign(t, k, Options{}, path), "a.rpm", Signed)
	if got := get(t, path); len(got) <= len(tight) || !bytes.HasSuffix(got, b[start:]) {
		t.Errorf("%d bytes of %d, or another payload", len(got), len(tight))
	}
	checksig(t, k, path)
	good(t, k, path)
}

func TestEntriesSurvive(t *testing.T) {
	list := []entry{
		{267, rpm.TypeBin, 3, []byte("old")},
		{269, rpm.TypeString, 1, []byte("abc\x00")},
		{270, rpm.TypeInt64, 1, []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		{274, rpm.TypeStringArray, 2, []byte("one\x00two\x00")},
		{1000, rpm.TypeInt32, 2, []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		{1001, rpm.TypeInt16, 1, []byte{1, 2}},
		{1003, rpm.TypeChar, 3, []byte{7, 8, 9}},
		{1008, rpm.TypeBin, 5, make([]byte, 5)},
		{2000, rpm.TypeI18NString, 1, []byte("text\x00")},
	}
	raw := encode(tagRegion, slices.Clone(list))
	h, err := rpm.ParseHeader(raw)
	if err != nil {
		t.Fatal(err)
	}
	got := entries(raw, h)
	kept := slices.DeleteFunc(slices.Clone(list), func(e entry) bool { return e.tag == 267 || e.tag == 1008 })
	if len(got) != len(kept) {
		t.Fatalf("%d entries, want %d", len(got), len(kept))
	}
	for i, e := range got {
		if w := kept[i]; e.tag != w.tag || e.typ != w.typ || e.count != w.count || !bytes.Equal(e.data, w.data) {
			t.Errorf("%+v, want %+v", e, w)
		}
	}
	if _, err := signatureHeader(make([]entry, 31), 0); !errors.Is(err, errTooMany) {
		t.Errorf("31 entries: %v", err)
	}
}

// Who has the file open, or another name for it, keeps what he has.
func TestSignMakesANewFile(t *testing.T) {
	dir := t.TempDir()
	path, link := put(t, filepath.Join(dir, "a.rpm"), sample(t)), filepath.Join(dir, "linked")
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	old := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	before, err := open.Stat()
	if err != nil {
		t.Fatal(err)
	}

	k := keyOf(t, "one")
	want(t, sign(t, k, Options{}, path), "a.rpm", Signed)
	good(t, k, path)
	if !bytes.Equal(get(t, link), sample(t)) {
		t.Error("the other name of the file has another content")
	}
	if b, err := io.ReadAll(open); err != nil || !bytes.Equal(b, sample(t)) {
		t.Errorf("who had opened the file reads something else (%v)", err)
	}
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if os.SameFile(before, after) {
		t.Error("the same inode")
	}
	if after.Mode() != before.Mode() {
		t.Errorf("mode %v, want %v", after.Mode(), before.Mode())
	}
	// Of the same size and time, rsync would not see that it is another file.
	if !after.ModTime().After(old) {
		t.Errorf("modified at %v, want now", after.ModTime())
	}
	if names := ls(t, dir); !slices.Equal(names, []string{"a.rpm", "linked"}) {
		t.Errorf("left behind: %q", names)
	}
}

func ls(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// A link that is named stays a link; what it leads to is signed.
func TestSignThroughALink(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "pool/a.rpm"), sample(t))
	link := filepath.Join(dir, "a.rpm")
	if err := os.Symlink("pool/a.rpm", link); err != nil {
		t.Fatal(err)
	}
	want(t, sign(t, keyOf(t, "one"), Options{}, link), "a.rpm", Signed)
	if to, err := os.Readlink(link); err != nil || to != "pool/a.rpm" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	good(t, keyOf(t, "one"), filepath.Join(dir, "pool"))
}

// Below a directory a link is left alone: what it leads to may be nobody's business
// here, and would otherwise be written twice at once.
func TestLinksBelowADirectory(t *testing.T) {
	dir, k := tree(t), keyOf(t, "one")
	outside := put(t, filepath.Join(t.TempDir(), "outside.rpm"), sample(t))
	for link, to := range map[string]string{"again.rpm": "a.rpm", "outside.rpm": outside, "gone.rpm": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(dir, "Packages", link)); err != nil {
			t.Fatal(err)
		}
	}
	results := sign(t, k, Options{}, dir, filepath.Join(dir, "Packages"), filepath.Join(dir, "Packages/a.rpm"))
	want(t, results, "Packages/a.rpm", Signed)
	for _, name := range []string{"again.rpm", "outside.rpm", "gone.rpm"} {
		want(t, results, "Packages/"+name, Linked)
	}
	if _, ok := results["a.rpm"]; ok {
		t.Error("a package that was named three times was signed twice")
	}
	if !bytes.Equal(get(t, outside), sample(t)) {
		t.Error("what is outside of the directory was changed")
	}
	// Beside, all of them become files.
	out := filepath.Join(t.TempDir(), "out")
	results = sign(t, k, Options{Out: out}, filepath.Join(dir, "Packages/outside.rpm"))
	want(t, results, "outside.rpm", Signed)
	good(t, k, out)
}

const repomd = `<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>1</revision></repomd>
`

// tree is a repository with two packages.
func tree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "Packages/a.rpm"), sample(t))
	put(t, filepath.Join(dir, "Packages/b.rpm"), sample(t))
	put(t, filepath.Join(dir, "repodata/repomd.xml"), []byte(repomd))
	return dir
}

// state is everything about the files below dir that signing could change.
func state(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, name := range ls(t, dir) {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = fmt.Sprintf("%+v %x", rpm.StampOf(info), get(t, path))
	}
	return all
}

func equal(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

func TestSignTwiceChangesNothing(t *testing.T) {
	for _, o := range []Options{{}, {Payload: true}, {KeepForeign: true}} {
		dir, k := tree(t), keyOf(t, "one")
		for name, r := range sign(t, k, o, dir) {
			if r.State != Signed {
				t.Errorf("%s: state %d, error %v", name, r.State, r.Err)
			}
		}
		good(t, k, dir)
		before := state(t, dir)
		for name, r := range sign(t, k, o, dir) {
			if r.State != Unchanged {
				t.Errorf("%s, again: state %d, error %v", name, r.State, r.Err)
			}
		}
		if !equal(before, state(t, dir)) {
			t.Error("signing again changed something")
		}
	}
}

// A signature of ours that does not fit any more is made anew, also one that could
// only be noticed by reading the payload.
func TestDamagedSignatureOfOurs(t *testing.T) {
	k := keyOf(t, "one")
	for _, tag := range []rpm.Tag{verify.SigRSA, verify.SigPGP} {
		path := put(t, filepath.Join(t.TempDir(), "a.rpm"), sample(t))
		sign(t, k, Options{Payload: true}, path)
		b := get(t, path)
		value(t, b, leadSize, tag)[100] ^= 1 // in the number that is the signature
		put(t, path, b)
		want(t, sign(t, k, Options{Payload: true}, path), "a.rpm", Signed)
		good(t, k, path)
		want(t, sign(t, k, Options{Payload: true}, path), "a.rpm", Unchanged)
	}
}

func TestSignBesides(t *testing.T) {
	dir, out, k := tree(t), filepath.Join(t.TempDir(), "new/out"), keyOf(t, "one")
	before := state(t, dir)
	o := Options{Out: out}
	sign(t, k, o, dir)
	if !equal(before, state(t, dir)) {
		t.Error("what was signed has changed")
	}
	names := []string{"Packages/a.rpm", "Packages/b.rpm", "repodata/repomd.xml.asc", "repodata/repomd.xml.key"}
	if got := ls(t, out); !slices.Equal(got, names) {
		t.Errorf("written: %q, want %q", got, names)
	}
	good(t, k, filepath.Join(out, "Packages"))

	written := state(t, out)
	for name, r := range sign(t, k, o, dir) {
		if r.State != Unchanged {
			t.Errorf("%s, again: state %d, error %v", name, r.State, r.Err)
		}
	}
	if !equal(written, state(t, out)) {
		t.Error("signing again changed something")
	}

	// What is signed already comes along as it is.
	third := filepath.Join(t.TempDir(), "third")
	want(t, sign(t, k, Options{Out: third}, filepath.Join(out, "Packages")), "a.rpm", Unchanged)
	if !bytes.Equal(get(t, filepath.Join(third, "a.rpm")), get(t, filepath.Join(out, "Packages/a.rpm"))) {
		t.Error("a copy of a signed package differs")
	}

	// Another package in the place of an older one.
	b := sample(t)
	at := bytes.Index(b[4500:], []byte("A package to put")) + 4500
	b[at] = 'B'
	put(t, filepath.Join(dir, "Packages/a.rpm"), fixDigests(t, b))
	want(t, sign(t, k, o, dir), "Packages/a.rpm", Signed)
	good(t, k, filepath.Join(out, "Packages"))
}

func TestSignBesidesRefuses(t *testing.T) {
	dir, k := tree(t), keyOf(t, "one")
	none := func(Result) { t.Error("something was done") }
	for _, tt := range []struct {
		name, out, say string
		paths          []string
	}{
		{"the place where it is", dir, "leave out -out", []string{dir}},
		{"two files of one name", filepath.Join(t.TempDir(), "out"), "would both become",
			[]string{dir + "/Packages/a.rpm", put(t, filepath.Join(t.TempDir(), "a.rpm"), sample(t))}},
	} {
		files, err := verify.Find(t.Context(), tt.paths...)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Sign(t.Context(), files, Options{Out: tt.out}, none); err == nil || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%s: error %v, want %q in it", tt.name, err, tt.say)
		}
	}
}

func TestSignaturesOfOthers(t *testing.T) {
	dir, ours, theirs := tree(t), keyOf(t, "one"), keyOf(t, "another")
	sign(t, theirs, Options{Payload: true}, dir)
	before := state(t, dir)
	for name, r := range sign(t, ours, Options{KeepForeign: true}, dir) {
		if r.State != Kept {
			t.Errorf("%s: state %d, error %v; want that it is kept", name, r.State, r.Err)
		}
	}
	if !equal(before, state(t, dir)) {
		t.Error("what should be kept has changed")
	}
	results := sign(t, ours, Options{}, dir)
	for name, r := range results {
		if r.State != Signed {
			t.Errorf("%s: state %d, error %v", name, r.State, r.Err)
		}
	}
	if got := results["Packages/a.rpm"].Replaced; !slices.Equal(got, []string{theirs.String(), theirs.String()}) {
		t.Errorf("replaced %q, want two of %s", got, theirs)
	}
	good(t, ours, dir)
}

// One file that is broken stops no other, and stays as it is.
func TestBadPackagesAmongGoodOnes(t *testing.T) {
	dir, k := tree(t), keyOf(t, "one")
	b := sample(t)
	_, payload := parts(b)
	flipped := func(at int) []byte { c := slices.Clone(b); c[at] ^= 1; return c }
	bad := map[string]struct {
		data []byte
		say  string
	}{
		"payload.rpm": {flipped(payload + 50), "tampered payload"},
		"header.rpm":  {flipped(bytes.Index(b[4500:], []byte("A package")) + 4500), "tampered header"},
		"short.rpm":   {b[:len(b)-1], "truncated"},
		"half.rpm":    {b[:payload-10], "truncated"},
		"text.rpm":    {bytes.Repeat([]byte("text "), 100), "not an RPM"},
		"empty.rpm":   {nil, "truncated"},
	}
	for name, f := range bad {
		put(t, filepath.Join(dir, "Packages", name), f.data)
	}
	put(t, filepath.Join(dir, "other/repodata/repomd.xml"), []byte("<html>"))
	results := sign(t, k, Options{}, dir)
	for name, f := range bad {
		r := want(t, results, "Packages/"+name, Failed)
		if !strings.Contains(r.Err.Error(), f.say) || !strings.HasPrefix(r.Err.Error(), filepath.Join(dir, "Packages", name)+": ") {
			t.Errorf("%s: error %q, want the path and %q in it", name, r.Err, f.say)
		}
		if !bytes.Equal(get(t, filepath.Join(dir, "Packages", name)), f.data) {
			t.Errorf("%s has changed", name)
		}
	}
	want(t, results, "other/repodata/repomd.xml", Failed)
	want(t, results, "Packages/a.rpm", Signed)
	want(t, results, "Packages/b.rpm", Signed)
	want(t, results, "repodata/repomd.xml", Signed)
	good(t, k, filepath.Join(dir, "Packages/a.rpm"), filepath.Join(dir, "Packages/b.rpm"), filepath.Join(dir, "repodata"))
	for _, name := range ls(t, dir) {
		if strings.Contains(name, ".tmp-") {
			t.Errorf("left behind: %s", name)
		}
	}
}

// A package that has its signature, and lost its end since, is not passed over.
func TestTruncatedAfterItWasSigned(t *testing.T) {
	path, k := put(t, filepath.Join(t.TempDir(), "a.rpm"), sample(t)), keyOf(t, "one")
	sign(t, k, Options{}, path)
	if err := os.Truncate(path, int64(len(sample(t))-5)); err != nil {
		t.Fatal(err)
	}
	r := want(t, sign(t, k, Options{}, path), "a.rpm", Failed)
	if !strings.Contains(r.Err.Error(), "truncated: 5 bytes are missing") {
		t.Errorf("error %v", r.Err)
	}
}

func TestReceipts(t *testing.T) {
	dir, k := tree(t), keyOf(t, "one")
	results := sign(t, k, Options{Receipts: true}, dir)
	path := filepath.Join(dir, "Packages/a.rpm")
	var reader rpm.Reader
	p, err := reader.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	got := results["Packages/a.rpm"].Receipt
	if got == nil || *got != p.Receipt {
		t.Errorf("receipt %+v\nwant    %+v", got, p.Receipt)
	}
	if r := sign(t, k, Options{Receipts: true}, dir)["Packages/a.rpm"]; r.Receipt != nil {
		t.Error("a receipt for what was not read")
	}
}

func TestRepomdIsAcceptedByGPG(t *testing.T) {
	testworld.Need(t, "gpg")
	for _, k := range []*Key{keyOf(t, "one"), keyOf(t, "ed25519")} {
		dir := tree(t)
		sign(t, k, Options{}, dir)
		path := filepath.Join(dir, "repodata/repomd.xml")
		home := testworld.TempDir(t)
		ring := filepath.Join(home, "ring.gpg")
		if out, err := foreignProgram(t, home, "gpg", "--batch", "--output", ring, "--dearmor", path+".key"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		out, err := foreignProgram(t, home, "gpgv", "--keyring", ring, path+".asc", path)
		if err != nil || !strings.Contains(out, "Good signature") {
			t.Errorf("gpgv: %v\n%s", err, out)
		}

		// New metadata gets a new signature.
		put(t, path, []byte(strings.Replace(repomd, ">1<", ">2<", 1)))
		want(t, sign(t, k, Options{}, dir), "repodata/repomd.xml", Signed)
		good(t, k, dir)
		// A key that is gone comes back.
		if err := os.Remove(path + ".key"); err != nil {
			t.Fatal(err)
		}
		want(t, sign(t, k, Options{}, dir), "repodata/repomd.xml", Signed)
		if !bytes.Equal(get(t, path+".key"), k.Public()) {
			t.Error("another key")
		}
	}
}

// Who replaces a file while it is being signed wants to have it.
func TestReplacedMeanwhile(t *testing.T) {
	path, k := put(t, filepath.Join(t.TempDir(), "a.rpm"), sample(t)), keyOf(t, "one")
	f, err := verify.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	digests, found, _ := f.Integrity()
	if len(found) > 0 {
		t.Fatal(found)
	}
	signatures, err := k.signatures(f, false)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := head(f, signatures)
	if err != nil {
		t.Fatal(err)
	}
	newer := put(t, path+".new", []byte("newer"))
	if err := os.Rename(newer, path); err != nil {
		t.Fatal(err)
	}
	if _, err := write(f, path, signed, digests, false); !errors.Is(err, rpm.ErrChanged) {
		t.Errorf("error %v, want %v", err, rpm.ErrChanged)
	}
	if got := get(t, path); string(got) != "newer" {
		t.Errorf("the newer file is lost: %d bytes", len(got))
	}
}

func TestDiskIsFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	b := enlarged(t, 40<<10)
	path := put(t, filepath.Join(dir, "a.rpm"), b)
	r := want(t, sign(t, keyOf(t, "one"), Options{}, path), "a.rpm", Failed)
	if !errors.Is(r.Err, syscall.ENOSPC) {
		t.Errorf("error %v, want %v", r.Err, syscall.ENOSPC)
	}
	if !bytes.Equal(get(t, path), b) || !slices.Equal(ls(t, dir), []string{"a.rpm"}) {
		t.Errorf("the old file is not what it was, or something is left: %q", ls(t, dir))
	}
}

func TestDiskIsReadOnly(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	put(t, filepath.Join(dir, "a.rpm"), sample(t))
	put(t, filepath.Join(dir, "repodata/repomd.xml"), []byte(repomd))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	results := sign(t, keyOf(t, "one"), Options{}, dir)
	for _, name := range []string{"a.rpm", "repodata/repomd.xml"} {
		if r := want(t, results, name, Failed); !errors.Is(r.Err, syscall.EROFS) {
			t.Errorf("%s: error %v, want %v", name, r.Err, syscall.EROFS)
		}
	}
}

// What rpmsign has signed we sign anew, and the other way round: neither leaves
// something behind that the other, or rpm, stumbles over.
func TestTakingTurnsWithRPMSign(t *testing.T) {
	testworld.Need(t, "rpm")
	testworld.Need(t, "gpg")
	dir := testworld.TempDir(t)
	theirs, err := testworld.NewKey(t.Context(), filepath.Join(dir, "theirs.asc"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := theirs.Close(); err != nil {
			t.Error(err)
		}
	})
	ring, err := verify.OpenRing(theirs.Public)
	if err != nil {
		t.Fatal(err)
	}
	path := put(t, filepath.Join(dir, "a.rpm"), sample(t))
	header, _ := parts(sample(t))
	for _, k := range []*Key{keyOf(t, "one"), keyOf(t, "ed25519"), keyOf(t, "rsa4096")} {
		if err := theirs.SignPackages(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		if _, found := (&verify.Checker{Keys: ring, AllDigests: true}).Package(path); len(found) > 0 {
			t.Errorf("what rpmsign has signed: %q", found)
		}
		r := want(t, sign(t, k, Options{}, path), "a.rpm", Signed)
		if len(r.Replaced) != 1 || !strings.HasSuffix(ring.Fingerprints()[0], r.Replaced[0]) {
			t.Errorf("in the place of %q, want the key of rpmsign", r.Replaced)
		}
		checksig(t, k, path)
		good(t, k, path)
		if b := get(t, path); !bytes.Equal(b[header:], sample(t)[header:]) {
			t.Error("the header or the payload is another, or elsewhere")
		}
	}
}

func TestSignEndsWithItsContext(t *testing.T) {
	dir := tree(t)
	files, err := verify.Find(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := state(t, dir)
	err = keyOf(t, "one").Sign(ctx, files, Options{}, func(Result) {})
	if !errors.Is(err, context.Canceled) || !equal(before, state(t, dir)) {
		t.Errorf("error %v, or something was signed", err)
	}
}
