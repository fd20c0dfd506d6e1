package signer

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"meridian/signer/verify"
)

// sizes of payloads: a package of text, one of the usual size, and a large one.
var sizes = []int{10 << 10, 600 << 10, 20 << 20}

func BenchmarkSign(b *testing.B) {
	for _, kind := range []string{"rsa4096", "ed25519"} {
		for _, size := range sizes {
			b.Run(fmt.Sprintf("%s/%dKiB", kind, size>>10), func(b *testing.B) {
				k := keyOf(b, kind)
				data := enlarged(b, size)
				dir := b.TempDir()
				path := put(b, filepath.Join(dir, "a.rpm"), data)
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				for b.Loop() {
					out := filepath.Join(dir, "out")
					if r := k.signFile(verify.Artifact{Path: path, Rel: "a.rpm", Type: verify.Package}, Options{Out: out}); r.Err != nil || r.State != Signed {
						b.Fatal(r.State, r.Err)
					}
					b.StopTimer()
					if err := os.Remove(filepath.Join(out, "a.rpm")); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			})
		}
	}
}

// The floor is what reading and hashing the file alone costs.
func BenchmarkVerify(b *testing.B) {
	for _, size := range sizes {
		k := keyOf(b, "rsa4096")
		path := put(b, filepath.Join(b.TempDir(), "a.rpm"), enlarged(b, size))
		if r := k.signFile(verify.Artifact{Path: path, Rel: "a.rpm", Type: verify.Package}, Options{}); r.Err != nil {
			b.Fatal(r.Err)
		}
		c := verify.Checker{Keys: k.Ring()}
		name := fmt.Sprintf("%dKiB", size>>10)
		b.Run("package/"+name, func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, found := c.Package(path); len(found) > 0 {
					b.Fatal(found)
				}
			}
		})
		b.Run("floor/"+name, func(b *testing.B) {
			b.SetBytes(int64(size))
			buf := make([]byte, 256<<10)
			for b.Loop() {
				f, err := os.Open(path)
				if err != nil {
					b.Fatal(err)
				}
				h := sha256.New()
				if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, buf); err != nil {
					b.Fatal(err)
				}
				f.Close()
				h.Sum(nil)
			}
		})
	}
}

func BenchmarkSignatureHeader(b *testing.B) {
	path := put(b, filepath.Join(b.TempDir(), "a.rpm"), sample(b))
	f, err := verify.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	sig := []entry{{verify.SigRSA, 7, 566, bytes.Repeat([]byte{1}, 566)}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := head(f, sig); err != nil {
			b.Fatal(err)
		}
	}
}
