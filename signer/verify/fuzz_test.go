package verify

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"
)

func sha256Of(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
func sha1Of(b []byte) []byte   { s := sha1.Sum(b); return s[:] }
func md5Of(b []byte) []byte    { s := md5.Sum(b); return s[:] }

// Whatever a package looks like, it is judged without a panic; and one that is
// found good has the header and the payload of the package that was signed.
func FuzzVerify(f *testing.F) {
	c := checker(f)
	genuine := fixture(f, "signed.rpm")
	_, header, _ := offsets(genuine)
	for _, name := range []string{"signed.rpm", "signed-rpmv3.rpm", "unsigned.rpm", "public.asc"} {
		f.Add(fixture(f, name))
	}
	f.Add(genuine[:len(genuine)-10])
	path := filepath.Join(f.TempDir(), "a.rpm")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, found := c.Package(path)
		for _, one := range found {
			if one.Kind == "" || one.Detail == "" {
				t.Errorf("a finding that says nothing: %q", found)
			}
		}
		if len(found) == 0 && !bytes.HasSuffix(b, genuine[header:]) {
			t.Error("accepted, and not what was signed")
		}
	})
}

// Whatever a signature looks like, it is judged without a panic; and it is not
// one of two messages.
func FuzzSignature(f *testing.F) {
	c := checker(f)
	message := fixture(f, "repomd.xml")
	other := append(bytes.Clone(message), '\n')
	asc := fixture(f, "repomd.xml.asc")
	packets, err := dearmor(asc)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(asc)
	f.Add(packets[0])
	f.Add(bytes.Repeat(packets[0], 3))
	f.Add(fixture(f, "public.asc"))
	f.Fuzz(func(t *testing.T, sig []byte) {
		c.Detached(message, sig)
		if found := c.Detached(other, sig); len(found) == 0 {
			t.Error("accepted for what was never signed")
		}
		// A ring of what is no key.
		if r, err := NewRing(sig); err == nil {
			(&Checker{Keys: r}).Detached(message, asc)
		}
	})
}
