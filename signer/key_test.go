package signer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meridian/internal/testworld"
	"meridian/signer/verify"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	secret := put(t, filepath.Join(dir, "secret"), generate(t, NewKeyOptions{Type: Ed25519, Passphrase: []byte("right")}).Private)
	open := put(t, filepath.Join(dir, "open"), generate(t, NewKeyOptions{Type: Ed25519}).Private)
	public := put(t, filepath.Join(dir, "public"), keyOf(t, "one").Public())
	text := put(t, filepath.Join(dir, "text"), []byte("hello\n"))
	endless := put(t, filepath.Join(dir, "endless"), make([]byte, maxKey+1))
	for _, tt := range []struct {
		name, path, passphrase string
		mode                   os.FileMode
		is                     error
		say                    string
	}{
		{name: "with its passphrase", path: secret, passphrase: "right"},
		{name: "with another passphrase", path: secret, passphrase: "wrong", is: ErrPassphrase, say: "wrong passphrase"},
		{name: "without the passphrase that it needs", path: secret, is: ErrPassphrase, say: "no passphrase was given"},
		{name: "of a key that needs none", path: open},
		{name: "of a key that needs none, with one", path: open, passphrase: "any"},
		{name: "that the group may read", path: open, mode: 0o640, say: "chmod 600"},
		{name: "that others may read", path: open, mode: 0o604, say: "chmod 600"},
		{name: "that others may write", path: open, mode: 0o602, say: "chmod 600"},
		{name: "that only its owner may read", path: open, mode: 0o400},
		{name: "that is public", path: public, say: "give the private key"},
		{name: "that is no key", path: text, say: "no key that can be used"},
		{name: "without end", path: endless, say: "longer than"},
		{name: "that is not there", path: filepath.Join(dir, "none"), is: os.ErrNotExist},
	} {
		t.Run("a file "+tt.name, func(t *testing.T) {
			if tt.mode == 0 {
				tt.mode = 0o600
			}
			if err := os.Chmod(tt.path, tt.mode); err != nil && tt.is == nil {
				t.Fatal(err)
			}
			k, err := Open(tt.path, []byte(tt.passphrase), "")
			if tt.is == nil && tt.say == "" {
				if err != nil {
					t.Fatal(err)
				}
				if err := k.Usable(); err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.say) {
				t.Errorf("error %v, want %v and %q in it", err, tt.is, tt.say)
			}
			if err != nil && tt.passphrase != "" && strings.Contains(err.Error(), tt.passphrase) && tt.passphrase != "wrong" {
				t.Errorf("error %v tells the passphrase", err)
			}
		})
	}
}

func TestPassphrase(t *testing.T) {
	for _, tt := range []struct{ name, text, want, say string }{
		{name: "one line", text: "a b c\n", want: "a b c"},
		{name: "no end of line", text: "abc", want: "abc"},
		{name: "the end of a line as on Windows", text: "abc\r\n", want: "abc"},
		{name: "spaces around it", text: " abc \n", want: " abc "},
		{name: "nothing", text: "", say: "no passphrase in it"},
		{name: "an empty line", text: "\n", say: "no passphrase in it"},
		{name: "two lines", text: "a\nb\n", say: "several lines"},
		{name: "a book", text: strings.Repeat("a", 5000), say: "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Passphrase(put(t, filepath.Join(t.TempDir(), "pass"), []byte(tt.text)))
			if tt.say != "" {
				if err == nil || !strings.Contains(err.Error(), tt.say) {
					t.Errorf("error %v, want %q in it", err, tt.say)
				}
				return
			}
			if err != nil || string(got) != tt.want {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestGuarded(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		name        string
		mode        os.FileMode
		credentials string
		ok          bool
	}{
		{"for its owner alone", 0o600, "", true},
		{"for its owner to read", 0o400, "", true},
		{"for the group", 0o640, "", false},
		{"for others", 0o604, "", false},
		{"for others to write", 0o602, "", false},
		{"for the group, a credential of the unit", 0o440, dir, true},
		{"for the group, a credential of a directory with a slash", 0o440, dir + "/", true},
		{"for the group, and no credential", 0o440, "/elsewhere", false},
		{"for the group, in a directory above the credentials", 0o440, dir + "/below", false},
	} {
		path := put(t, filepath.Join(dir, "secret"), nil)
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		if err := Guarded(path, tt.credentials); (err == nil) != tt.ok || err != nil && !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("a file %s: error %v, want none: %v", tt.name, err, tt.ok)
		}
	}
}

func TestGenerateRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    NewKeyOptions
		say  string
	}{
		{"an unknown type", NewKeyOptions{Name: "a", Email: "a@b", Type: "dsa"}, "write rsa4096"},
		{"no name", NewKeyOptions{Name: " ", Email: "a@b"}, "write whose it is"},
		{"no address", NewKeyOptions{Name: "a", Email: "b"}, "not an e-mail address"},
		{"an address in a name", NewKeyOptions{Name: "a <a@b>", Email: "a@b"}, "cannot be in a key"},
		{"two lines", NewKeyOptions{Name: "a\nb", Email: "a@b"}, "cannot be in a key"},
		{"a name that is not UTF-8", NewKeyOptions{Name: "\xff", Email: "a@b"}, "cannot be in a key"},
		{"a life in the past", NewKeyOptions{Name: "a", Email: "a@b", Life: -1}, "cannot live"},
		{"a life beyond what fits", NewKeyOptions{Name: "a", Email: "a@b", Life: 150 * 366 * 24 * time.Hour}, "cannot live"},
	} {
		if _, err := Generate(tt.o); err == nil || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%s: error %v, want %q in it", tt.name, err, tt.say)
		}
	}
}

func TestWriteToNeverWritesOverAKey(t *testing.T) {
	made := generate(t, NewKeyOptions{Type: Ed25519})
	for _, name := range []string{PrivateName, PublicName, RevocationName} {
		dir := t.TempDir()
		put(t, filepath.Join(dir, name), []byte("precious"))
		if _, _, _, err := made.WriteTo(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("over %s: error %v", name, err)
		}
		if got := ls(t, dir); len(got) != 1 || string(get(t, filepath.Join(dir, name))) != "precious" {
			t.Errorf("over %s: %q is there", name, got)
		}
	}
	dir := filepath.Join(t.TempDir(), "new/keys")
	private, public, revocation, err := made.WriteTo(dir)
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{private: 0o600, revocation: 0o600, public: 0o644, dir: os.ModeDir | 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, mode)
		}
	}
	if got := ls(t, dir); len(got) != 3 {
		t.Errorf("%q is there", got)
	}
	if _, err := Open(private, nil, ""); err != nil {
		t.Error(err)
	}
}

// What gpg can do with its own keys it can do with ours.
func TestGPGUsesOurKeys(t *testing.T) {
	testworld.Need(t, "gpg")
	for _, kind := range []KeyType{RSA2048, Ed25519} {
		t.Run(string(kind), func(t *testing.T) {
			made := generate(t, NewKeyOptions{Type: kind, Passphrase: []byte("our own")})
			home := testworld.TempDir(t)
			t.Cleanup(func() { exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() })
			run := func(args ...string) string {
				t.Helper()
				args = append([]string{"--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", "our own"}, args...)
				out, err := foreignProgram(t, home, "gpg", args...)
				if err != nil {
					t.Fatalf("gpg %q: %v\n%s", args, err, out)
				}
				return out
			}
			run("--import", put(t, filepath.Join(home, "private"), made.Private))
			message := put(t, filepath.Join(home, "m"), []byte("message"))
			run("--output", message+".sig", "--detach-sign", message)
			k := parseNew(t, made, "our own")
			c := verify.Checker{Keys: k.Ring()}
			if found := c.Detached([]byte("message"), get(t, message+".sig")); len(found) > 0 {
				t.Errorf("what gpg has signed with it: %q", found)
			}
			if out := run("--with-colons", "--list-keys"); !strings.Contains(out, made.Fingerprint) || !strings.Contains(out, "Test <test@example.org>") || strings.Contains(out, "sub:") {
				t.Errorf("gpg sees another key than %s:\n%s", made.Fingerprint, out)
			}

			i := bytes.Index(made.Revocation, []byte(":-----BEGIN"))
			run("--import", put(t, filepath.Join(home, "revocation"), made.Revocation[i+1:]))
			exported := filepath.Join(home, "exported")
			run("--armor", "--output", exported, "--export")
			ring, err := verify.OpenRing(exported)
			if err != nil {
				t.Fatal(err)
			}
			c.Keys = ring
			found := c.Detached([]byte("message"), get(t, message+".sig"))
			if len(found) != 1 || found[0].Kind != verify.Revoked {
				t.Errorf("after the revocation: %q", found)
			}
			if out, err := foreignProgram(t, home, "gpg", "--batch", "--import", put(t, filepath.Join(home, "colon"), made.Revocation)); err == nil {
				t.Errorf("gpg imports the revocation as it is kept:\n%s", out)
			}
		})
	}
}

// The time that counts is that of the machine, whatever its zone.
func TestKeyAndClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := generate(t, NewKeyOptions{Type: Ed25519, Life: 10 * 24 * time.Hour})
		k := parseNew(t, made, "")
		born := time.Now()
		zone := time.Local
		defer func() { time.Local = zone }()
		for _, tt := range []struct {
			after time.Duration
			zone  int // hours
			say   string
		}{
			{0, 0, ""},
			{0, -12, ""},
			{0, 14, ""},
			{9 * 24 * time.Hour, 14, ""},
			{10*24*time.Hour - time.Second, -12, ""},
			{10 * 24 * time.Hour, -12, "had expired at 2000-01-11T00:00:00Z"},
			{1000 * 24 * time.Hour, 0, "had expired"},
		} {
			time.Sleep(time.Until(born.Add(tt.after))) // no real time passes here
			time.Local = time.FixedZone("test", tt.zone*3600)
			err := k.Usable()
			if tt.say == "" && err != nil || tt.say != "" && (err == nil || !strings.Contains(err.Error(), tt.say)) {
				t.Errorf("after %v: error %v, want %q", tt.after, err, tt.say)
			}
			if tt.say == "" {
				continue
			}
			files := []verify.Artifact{{Path: "a.rpm", Rel: "a.rpm", Type: verify.Package}}
			if err := k.Sign(t.Context(), files, Options{}, func(Result) { t.Error("something was signed") }); err == nil {
				t.Error("a key that has expired signs")
			}
		}
	})
	// A clock that is behind.
	made := generate(t, NewKeyOptions{Type: Ed25519})
	synctest.Test(t, func(t *testing.T) {
		if err := parseNew(t, made, "").Usable(); err == nil || !strings.Contains(err.Error(), "before key") {
			t.Errorf("a key of the future: error %v", err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	one, other := keyOf(t, "one"), keyOf(t, "another")
	if _, err := New(one.Public(), other.private); err == nil || !strings.Contains(err.Error(), "of another public one") {
		t.Errorf("the key of somebody else: error %v", err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(one.Public(), curve); err == nil {
		t.Error("a key of another sort: no error")
	}
	if _, err := New([]byte("hello"), one.private); err == nil {
		t.Error("no key at all: no error")
	}
}

// The same private key always has the same public one: what lies beside metadata
// does not change from run to run.
func TestPublicKeyIsStable(t *testing.T) {
	made := generate(t, NewKeyOptions{Type: Ed25519, Passphrase: []byte("p")})
	for range 3 {
		if got := parseNew(t, made, "p").Public(); !bytes.Equal(got, made.Public) {
			t.Fatalf("%s\nwant\n%s", got, made.Public)
		}
	}
}
