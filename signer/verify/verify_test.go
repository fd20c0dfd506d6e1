package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"meridian/internal/testworld"
)

// later is a moment after everything in testdata was signed.
var later = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// fixture returns a file of testdata, to change. unsigned.rpm was made by rpmbuild,
// and the others from it by signer, with a key whose private half was not kept.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func checker(t testing.TB) *Checker {
	t.Helper()
	ring, err := OpenRing("testdata/public.asc")
	if err != nil {
		t.Fatal(err)
	}
	return &Checker{Keys: ring, At: later}
}

// put writes a file into a new directory.
func put(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func kinds(found []Finding) []Kind {
	var list []Kind
	for _, f := range found {
		list = append(list, f.Kind)
	}
	return list
}

// offsets of the parts of a package.
func offsets(b []byte) (signatures, header, payload int) {
	size := func(at int) int {
		return 16 + 16*int(binary.BigEndian.Uint32(b[at+8:])) + int(binary.BigEndian.Uint32(b[at+12:]))
	}
	header = 96 + size(96)
	header += (8 - header%8) % 8
	return 96, header, header + size(header)
}

// valueAt is where the value of a tag is in a header that begins at byte at.
func valueAt(t testing.TB, b []byte, at int, tag uint32) int {
	t.Helper()
	n := int(binary.BigEndian.Uint32(b[at+8:]))
	for i := range n {
		if e := b[at+16+16*i:]; binary.BigEndian.Uint32(e) == tag {
			return at + 16 + 16*n + int(binary.BigEndian.Uint32(e[8:]))
		}
	}
	t.Fatalf("no tag %d", tag)
	return 0
}

func TestPackage(t *testing.T) {
	signed := fixture(t, "signed.rpm")
	_, header, payload := offsets(signed)
	flip := func(at int) func(b []byte) []byte {
		return func(b []byte) []byte { b[at] ^= 0x01; return b }
	}
	// name is a string of the header that can be changed without breaking its form.
	name := bytes.Index(signed[header:], []byte("meridian-sample")) + header
	for _, tt := range []struct {
		name   string
		file   string // default signed.rpm
		change func(b []byte) []byte
		want   []Kind
		say    string // in the first finding
	}{
		{name: "signed"},
		{name: "signed over header and payload too", file: "signed-rpmv3.rpm"},
		{name: "unsigned", file: "unsigned.rpm", want: []Kind{Unsigned}, say: "no signature"},
		{name: "a bit of the header", change: flip(name), want: []Kind{TamperedHeader, TamperedHeader, TamperedHeader}, say: "SHA-256"},
		{name: "the header, with digests to match", change: func(b []byte) []byte {
			b[name] ^= 1
			return fixDigests(t, b)
		}, want: []Kind{TamperedHeader}, say: "signature of key"},
		{name: "a bit of the payload", change: flip(payload + 100), want: []Kind{TamperedPayload}, say: "the header says"},
		{name: "the last bit of the payload", change: flip(len(signed) - 1), want: []Kind{TamperedPayload}},
		{name: "a bit of the payload, with two signatures", file: "signed-rpmv3.rpm", change: flip(payload + 100),
			want: []Kind{TamperedPayload, TamperedPayload}},
		{name: "a byte too many", change: func(b []byte) []byte { return append(b, 0) }, want: []Kind{TamperedPayload}},
		{name: "a byte too few", change: func(b []byte) []byte { return b[:len(b)-1] }, want: []Kind{Truncated}, say: "1 bytes are missing"},
		{name: "no payload", change: func(b []byte) []byte { return b[:payload] }, want: []Kind{Truncated}},
		{name: "half a header", change: func(b []byte) []byte { return b[:header+100] }, want: []Kind{Truncated}},
		{name: "half a lead", change: func(b []byte) []byte { return b[:50] }, want: []Kind{Truncated}},
		{name: "empty", change: func([]byte) []byte { return nil }, want: []Kind{Truncated}},
		{name: "a page of HTML", change: func([]byte) []byte { return bytes.Repeat([]byte("<html>"), 100) }, want: []Kind{Damaged}, say: "not an RPM"},
		{name: "a signature that is none", change: func(b []byte) []byte {
			b[valueAt(t, b, 96, uint32(SigRSA))] = 0
			return b
		}, want: []Kind{Damaged}, say: "no OpenPGP signature"},
		{name: "a signature of another time", change: func(b []byte) []byte {
			b[valueAt(t, b, 96, uint32(SigRSA))+36] ^= 1
			return b
		}, want: []Kind{TamperedHeader}},
		{name: "a signature of another key", change: func(b []byte) []byte {
			at := valueAt(t, b, 96, uint32(SigRSA))
			fp := bytes.Index(b[at:], []byte{23 - 1, 33, 4})
			b[at+fp+3+19] ^= 1
			id := bytes.Index(b[at:], []byte{9, 16})
			b[at+id+2+7] ^= 1
			return b
		}, want: []Kind{ForeignKey}, say: "not among the trusted"},
		{name: "an entry that is not marked as signed", change: func(b []byte) []byte {
			at := valueAt(t, b, header, 63)
			binary.BigEndian.PutUint32(b[at+8:], binary.BigEndian.Uint32(b[at+8:])+16)
			return fixDigests(t, b)
		}, want: []Kind{TamperedHeader, TamperedHeader}, say: "entries are marked as signed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := tt.file
			if file == "" {
				file = "signed.rpm"
			}
			b := fixture(t, file)
			if tt.change != nil {
				b = tt.change(b)
			}
			_, found := checker(t).Package(put(t, "a.rpm", b))
			if !slices.Equal(kinds(found), tt.want) {
				t.Fatalf("found %q, want %q", found, tt.want)
			}
			if tt.say != "" && !strings.Contains(found[0].String(), tt.say) {
				t.Errorf("found %q, want %q in it", found[0], tt.say)
			}
		})
	}
}

// fixDigests makes those that nobody has signed fit the header again.
func fixDigests(t testing.TB, b []byte) []byte {
	_, header, payload := offsets(b)
	h := b[header:payload]
	copy(b[valueAt(t, b, 96, uint32(SigSHA256)):], fmt.Sprintf("%x", sha256Of(h)))
	copy(b[valueAt(t, b, 96, uint32(SigSHA1)):], fmt.Sprintf("%x", sha1Of(h)))
	copy(b[valueAt(t, b, 96, uint32(SigMD5)):], md5Of(b[header:]))
	return b
}

// Nobody but the file system is to blame for these.
func TestFilesThatAreNoPackages(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.rpm"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("gone", filepath.Join(dir, "link.rpm")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "dir.rpm"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Kind{"pipe.rpm": Damaged, "link.rpm": Unreadable, "dir.rpm": Damaged} {
		_, found := checker(t).Package(filepath.Join(dir, name))
		if !slices.Equal(kinds(found), []Kind{want}) {
			t.Errorf("%s: found %q, want %q", name, found, want)
		}
	}
	for _, pipe := range []string{"", SignatureSuffix} {
		path := put(t, RepomdName, fixture(t, RepomdName))
		os.Remove(path + pipe)
		if err := syscall.Mkfifo(path+pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, found := checker(t).Repomd(path); !slices.Equal(kinds(found), []Kind{Damaged}) {
			t.Errorf("repomd.xml%s: found %q, want %q", pipe, found, Damaged)
		}
	}
}

// MD5 is what EL 7 looks at: asked for, it is checked, and otherwise nobody waits
// for it.
func TestAllDigests(t *testing.T) {
	b := fixture(t, "signed.rpm")
	b[valueAt(t, b, 96, uint32(SigMD5))] ^= 1
	path := put(t, "a.rpm", b)
	c := checker(t)
	if _, found := c.Package(path); len(found) > 0 {
		t.Errorf("found %q", found)
	}
	c.AllDigests = true
	if _, found := c.Package(path); !slices.Equal(kinds(found), []Kind{TamperedPayload}) {
		t.Errorf("with all digests: found %q, want %q", found, TamperedPayload)
	}
}

// Whatever bit is wrong: what rpm refuses is found here, and what is refused here
// rpm refuses too, or does not look at.
func TestFlippedBitsAsRPMSeesThem(t *testing.T) {
	testworld.Need(t, "rpm")
	dir := testworld.TempDir(t)
	db := filepath.Join(dir, "db")
	rpmkeys := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "rpmkeys", append([]string{"--dbpath", db}, args...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C"}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := rpmkeys("--import", "testdata/public.asc"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := checker(t)
	c.AllDigests = true
	const flips = 150
	for _, file := range []string{"signed.rpm", "signed-rpmv3.rpm"} {
		good := fixture(t, file)
		if out, err := rpmkeys("--checksig", filepath.Join("testdata", file)); err != nil || !strings.Contains(out, "digests signatures OK") {
			t.Fatalf("rpmkeys does not accept %s: %v\n%s", file, err, out)
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		var paths []string
		for i := range flips {
			b := slices.Clone(good)
			// The lead is of no use to anybody.
			at := 96 + rnd.IntN(len(b)-96)
			b[at] ^= 1 << rnd.IntN(8)
			path := filepath.Join(dir, fmt.Sprintf("%d-%d-%s", i, at, file))
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, path)
		}
		out, _ := rpmkeys(append([]string{"--checksig"}, paths...)...)
		agreed := 0
		for _, path := range paths {
			ok := strings.Contains(out, path+": digests signatures OK\n")
			_, found := c.Package(path)
			if !ok && len(found) == 0 {
				t.Errorf("rpm refuses %s, and nothing is found here:\n%s", filepath.Base(path), grep(out, path))
			}
			if ok == (len(found) == 0) {
				agreed++
			} else {
				t.Logf("%s: rpm accepts it: %q", filepath.Base(path), found)
			}
		}
		if agreed < flips*9/10 {
			t.Errorf("%s: of %d verdicts only %d are those of rpm", file, flips, agreed)
		}
	}
}

func grep(text, word string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func TestRepomd(t *testing.T) {
	xml, asc := fixture(t, "repomd.xml"), fixture(t, "repomd.xml.asc")
	for _, tt := range []struct {
		name     string
		xml, asc []byte
		want     []Kind
	}{
		{"signed", xml, asc, nil},
		{"without signature", xml, nil, []Kind{Unsigned}},
		{"with a space more", append(slices.Clone(xml), ' '), asc, []Kind{Tampered}},
		{"empty", []byte{}, asc, []Kind{Tampered}},
		{"with an empty signature", xml, []byte{}, []Kind{Damaged}},
		{"with a page of HTML for a signature", xml, []byte("<html>not found</html>"), []Kind{Damaged}},
		{"with half a signature", xml, asc[:len(asc)/2], []Kind{Damaged}},
		{"with a key for a signature", xml, fixture(t, "public.asc"), []Kind{Damaged}},
		{"of endless length", bytes.Repeat([]byte(" "), maxRepomd+1), asc, []Kind{Damaged}},
		{"with a signature of endless length", xml, bytes.Repeat([]byte("a"), maxDetached+1), []Kind{Damaged}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := put(t, RepomdName, tt.xml)
			if tt.asc != nil {
				if err := os.WriteFile(path+SignatureSuffix, tt.asc, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if _, found := checker(t).Repomd(path); !slices.Equal(kinds(found), tt.want) {
				t.Errorf("found %q, want %q", found, tt.want)
			}
		})
	}
}

// A key that lies beside the metadata proves nothing.
func TestKeyBesideTheMetadataIsNotTrusted(t *testing.T) {
	other := gpgKey(t, "rsa2048", "")
	path := put(t, RepomdName, fixture(t, "repomd.xml"))
	other.gpg(t, "--armor", "--output", path+SignatureSuffix, "--detach-sign", path)
	if err := os.WriteFile(path+KeySuffix, other.public(t), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, found := checker(t).Repomd(path); !slices.Equal(kinds(found), []Kind{ForeignKey}) {
		t.Errorf("found %q, want %q", found, ForeignKey)
	}
}

// While one key follows another, metadata carries the signatures of both.
func TestOneGoodSignatureOfSeveral(t *testing.T) {
	other := gpgKey(t, "rsa2048", "")
	message := fixture(t, "repomd.xml")
	path := put(t, RepomdName, message)
	other.gpg(t, "--output", path+".sig", "--detach-sign", path)
	foreign, err := os.ReadFile(path + ".sig")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := dearmor(fixture(t, "repomd.xml.asc"))
	if err != nil {
		t.Fatal(err)
	}
	c := checker(t)
	if found := c.Detached(message, append(slices.Clone(foreign), ours[0]...)); len(found) > 0 {
		t.Errorf("a foreign signature and ours: found %q", found)
	}
	if found := c.Detached(message, foreign); !slices.Equal(kinds(found), []Kind{ForeignKey}) {
		t.Errorf("a foreign signature alone: found %q", found)
	}
	if found := c.Detached(message, bytes.Repeat(foreign, maxSignatures+1)); !slices.Equal(kinds(found), []Kind{Damaged}) {
		t.Errorf("too many signatures: found %q", found)
	}
}

// A gpg is one with a keyring of its own.
type gpg struct {
	home string
	at   string // its time, "" for now
}

// gpgKey makes a key of an algorithm as gpg names it, whose clock stands at a time
// like 20200101T000000.
func gpgKey(t *testing.T, algorithm, at string, more ...string) *gpg {
	t.Helper()
	testworld.Need(t, "gpg")
	g := &gpg{testworld.TempDir(t), at}
	t.Cleanup(func() { exec.Command("gpgconf", "--homedir", g.home, "--kill", "all").Run() })
	g.gpg(t, append([]string{"--passphrase", "", "--quick-gen-key", "Test <test@example.org>", algorithm, "sign"}, more...)...)
	return g
}

func (g *gpg) gpg(t *testing.T, args ...string) []byte {
	t.Helper()
	own := []string{"--homedir", g.home, "--batch", "--yes", "--quiet", "--pinentry-mode", "loopback"}
	if g.at != "" {
		own = append(own, "--faked-system-time", g.at)
	}
	cmd := exec.CommandContext(t.Context(), "gpg", append(own, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + g.home, "LC_ALL=C"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gpg %q: %v\n%s", args, err, &stderr)
	}
	return out
}

func (g *gpg) public(t *testing.T) []byte { return g.gpg(t, "--armor", "--export") }

func (g *gpg) sign(t *testing.T, message string, args ...string) []byte {
	t.Helper()
	return g.gpg(t, append(args, "--armor", "--output", "-", "--detach-sign", put(t, "m", []byte(message)))...)
}

func (g *gpg) ring(t *testing.T) *Ring {
	t.Helper()
	r, err := NewRing(g.public(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTimes(t *testing.T) {
	day := func(s string) time.Time {
		at, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	g := gpgKey(t, "rsa2048", "20200101T000000", "seconds=31536000") // to the end of 2020-12-30
	ring := g.ring(t)
	inTime := func(args ...string) []byte {
		g.at = "20200601T000000"
		return g.sign(t, "m", args...)
	}
	for _, tt := range []struct {
		name string
		sig  []byte
		at   string
		want []Kind
		say  string
	}{
		{"while the key is good", inTime(), "2020-07-01", nil, ""},
		{"the day after it was signed", inTime(), "2020-06-02", nil, ""},
		{"before it was signed", inTime(), "2020-05-01", []Kind{Future}, "set the clocks"},
		{"after the key has expired", inTime(), "2021-07-01", []Kind{Expired}, "after it had signed"},
		{"after the signature has expired", inTime("--default-sig-expire", "10d"), "2020-07-01", []Kind{Expired}, "the signature was good until"},
		{"while the signature is good", inTime("--default-sig-expire", "10d"), "2020-06-05", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Checker{Keys: ring, At: day(tt.at)}
			found := c.Detached([]byte("m"), tt.sig)
			if !slices.Equal(kinds(found), tt.want) {
				t.Fatalf("found %q, want %q", found, tt.want)
			}
			if tt.say != "" && !strings.Contains(found[0].Detail, tt.say) {
				t.Errorf("found %q, want %q in it", found[0], tt.say)
			}
		})
	}
	// Signed with a key that lived longer, judged by one that lives shorter: only so
	// does gpg sign with a key that has expired.
	t.Run("signed when the key had expired", func(t *testing.T) {
		before := g.public(t)
		g.at = "20200601T000000"
		g.gpg(t, "--passphrase", "", "--quick-set-expire", fpr(t, g), "seconds=63072000")
		g.at = "20210601T000000"
		sig := g.sign(t, "m")
		r, err := NewRing(before)
		if err != nil {
			t.Fatal(err)
		}
		c := Checker{Keys: r, At: day("2021-07-01")}
		found := c.Detached([]byte("m"), sig)
		if !slices.Equal(kinds(found), []Kind{Expired}) || !strings.Contains(found[0].Detail, "had expired at") {
			t.Errorf("found %q, want that the key had expired", found)
		}
	})
}

// fpr is the fingerprint of the one key that g has.
func fpr(t *testing.T, g *gpg) string {
	t.Helper()
	for line := range strings.Lines(string(g.gpg(t, "--with-colons", "--list-keys"))) {
		if strings.HasPrefix(line, "fpr:") {
			return strings.Trim(strings.TrimPrefix(line, "fpr:"), ":\n")
		}
	}
	t.Fatal("gpg lists no key")
	return ""
}

func TestRevokedKey(t *testing.T) {
	g := gpgKey(t, "rsa2048", "")
	sig := g.sign(t, "m")
	c := Checker{Keys: g.ring(t)}
	if found := c.Detached([]byte("m"), sig); len(found) > 0 {
		t.Fatalf("before: found %q", found)
	}
	rev, err := os.ReadFile(filepath.Join(g.home, "openpgp-revocs.d", fpr(t, g)+".rev"))
	if err != nil {
		t.Fatal(err)
	}
	g.gpg(t, "--import", put(t, "rev", bytes.Replace(rev, []byte(":-----"), []byte("-----"), 1)))
	c.Keys = g.ring(t)
	if found := c.Detached([]byte("m"), sig); !slices.Equal(kinds(found), []Kind{Revoked}) {
		t.Errorf("found %q, want %q", found, Revoked)
	}
}

func TestAlgorithms(t *testing.T) {
	for _, tt := range []struct {
		name, algorithm string
		args            []string
		want            []Kind
	}{
		{"RSA", "rsa2048", nil, nil},
		{"RSA with SHA-512", "rsa2048", []string{"--digest-algo", "SHA512"}, nil},
		{"legacy Ed25519", "ed25519", nil, nil},
		{"RSA with SHA-1", "rsa2048", []string{"--digest-algo", "SHA1"}, []Kind{Algorithm}},
		{"RSA of 1024 bits", "rsa1024", nil, []Kind{Algorithm}},
		{"ECDSA", "nistp256", nil, []Kind{Algorithm}},
		{"DSA", "dsa2048", nil, []Kind{Algorithm}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := gpgKey(t, tt.algorithm, "")
			sig := g.sign(t, "m", tt.args...)
			c := Checker{Keys: g.ring(t)}
			if found := c.Detached([]byte("m"), sig); !slices.Equal(kinds(found), tt.want) {
				t.Errorf("found %q, want %q", found, tt.want)
			}
		})
	}
}

func TestSubkeySigns(t *testing.T) {
	g := gpgKey(t, "rsa2048", "")
	g.gpg(t, "--passphrase", "", "--quick-add-key", fpr(t, g), "rsa2048", "sign", "never")
	sig := g.sign(t, "m") // gpg takes the newest
	c := Checker{Keys: g.ring(t)}
	if found := c.Detached([]byte("m"), sig); len(found) > 0 {
		t.Errorf("found %q", found)
	}
	p, err := dearmor(sig)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parseSignature(p[0])
	if err != nil {
		t.Fatal(err)
	}
	if k := c.Keys.by(parsed); len(k) != 1 || k[0].sub == nil {
		t.Errorf("signed by %v, want a subkey", k)
	}
}

func TestNewRing(t *testing.T) {
	public := fixture(t, "public.asc")
	for _, tt := range []struct {
		name string
		in   []byte
		keys int
		err  string
	}{
		{"one key", public, 1, ""},
		{"two keys with text between them", slices.Concat([]byte("# first\n"), public, []byte("\n# second\n"), public), 2, ""},
		{"no key", []byte("hello\n"), 0, "no public key"},
		{"nothing", nil, 0, "no public key"},
		{"a signature", fixture(t, "repomd.xml.asc"), 0, "no public key"},
		{"half a key", public[:len(public)/2], 0, "armor"},
		{"too much", make([]byte, maxKeys+1), 0, "the bound is"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := NewRing(tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q in it", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := len(r.Fingerprints()); got != tt.keys {
				t.Errorf("%d keys, want %d", got, tt.keys)
			}
		})
	}
	t.Run("a private key", func(t *testing.T) {
		g := gpgKey(t, "ed25519", "")
		if _, err := NewRing(g.gpg(t, "--armor", "--export-secret-keys")); err == nil || !strings.Contains(err.Error(), "give the public one") {
			t.Errorf("error %v", err)
		}
	})
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b/2.rpm", "a/1.rpm", "a/repodata/repomd.xml", "a/repodata/repomd.xml.asc", "a/README", "a/.1.rpm.tmp-77.rpm"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"c.rpm": "a/1.rpm", "d": "a", "e.rpm": "nowhere", "f.rpm": "a"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Find(t.Context(), dir, filepath.Join(dir, "b/2.rpm"), filepath.Join(dir, "d"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range found {
		rel, _ := filepath.Rel(dir, a.Path)
		got = append(got, rel+" "+a.Rel)
	}
	want := []string{
		"a/1.rpm a/1.rpm", "a/repodata/repomd.xml a/repodata/repomd.xml", "b/2.rpm b/2.rpm", "c.rpm c.rpm", "e.rpm e.rpm",
		"b/2.rpm 2.rpm",
		"d/1.rpm 1.rpm", "d/repodata/repomd.xml repodata/repomd.xml",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %q\nwant  %q", got, want)
	}
	if _, err := Find(t.Context(), filepath.Join(dir, "a/README")); err == nil || !strings.Contains(err.Error(), "neither a package nor metadata") {
		t.Errorf("a file of another sort: %v", err)
	}
	if _, err := Find(t.Context(), filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a file that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Find(ctx, dir); err != context.Canceled {
		t.Errorf("after the end: %v", err)
	}
}

// Names are chosen by strangers: none makes a second line, or a word of its own.
func TestArtifactPrintsAsOneWord(t *testing.T) {
	for path, want := range map[string]string{
		"a/b.rpm":            "a/b.rpm",
		"a b.rpm":            "a b.rpm",
		"a.rpm: good\nb.rpm": `"a.rpm: good\nb.rpm"`,
		"\xff.rpm":           `"\xff.rpm"`,
		"\x1b[2Ja.rpm":       `"\x1b[2Ja.rpm"`,
		"\u202egpj.rpm":      `"\u202egpj.rpm"`,
		"Прага.rpm":          "Прага.rpm",
	} {
		if got := (Artifact{Path: path}).String(); got != want {
			t.Errorf("%q prints as %s, want %s", path, got, want)
		}
	}
}

func TestTreeReportsInOrder(t *testing.T) {
	dir := t.TempDir()
	good := fixture(t, "signed.rpm")
	var want []string
	for i := range 40 {
		b := slices.Clone(good)
		name := fmt.Sprintf("%02d.rpm", i)
		if i%3 == 0 {
			b[len(b)-1] ^= 1
			want = append(want, name+" [tampered payload]")
		} else {
			want = append(want, name+" []")
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := Find(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = checker(t).Tree(t.Context(), files, func(r Result) {
		got = append(got, fmt.Sprintf("%s %v", r.Artifact.Rel, kinds(r.Findings)))
		if (r.Err() == nil) != (len(r.Findings) == 0) {
			t.Errorf("%s: %v", r.Artifact, r.Err())
		}
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("error %v, reported %q\nwant %q", err, got, want)
	}
}

func TestInOrderEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var done []int
	err := InOrder(ctx, 1000, 4, func(i int) int {
		if i == 100 {
			cancel()
		}
		return i
	}, func(i, r int) {
		if i != r {
			t.Errorf("result %d is that of %d", i, r)
		}
		done = append(done, i)
	})
	if err != context.Canceled {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if len(done) < 101 || len(done) == 1000 || !slices.IsSorted(done) {
		t.Errorf("%d were done, from %d to %d", len(done), done[0], done[len(done)-1])
	}
	if err := InOrder(t.Context(), 0, 4, func(int) int { return 0 }, func(int, int) {}); err != nil {
		t.Errorf("of nothing: %v", err)
	}
}

// A file that is replaced or grows while it is read is no finding about either.
func TestFileChangesWhileItIsRead(t *testing.T) {
	path := put(t, "a.rpm", fixture(t, "signed.rpm"))
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(path, 5000); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Copy(io.Discard); err == nil || !strings.Contains(err.Error(), "changed while") {
		t.Errorf("error %v, want that it changed", err)
	}
}

func TestDetailsNameNoPathTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.rpm")
	_, found := checker(t).Package(path)
	if len(found) != 1 || found[0].String() != "unreadable: no such file or directory" {
		t.Errorf("found %q", found)
	}
}
