package verify

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// The bounds of repomd.xml and of the signature beside it. Both are a few
// kilobytes.
const (
	maxRepomd   = 16 << 20
	maxDetached = 1 << 20

	// maxSignatures is how many one file of signatures may have: each costs as
	// much as checking a key.
	maxSignatures = 32
)

// Detached judges a message by the signature that is not in it, armored as in
// repomd.xml.asc or binary. Of several signatures one that has nothing wrong is
// enough, as it is for dnf: metadata is signed by two keys while one follows the
// other.
func (c *Checker) Detached(message, signature []byte) []Finding {
	packets, err := dearmor(signature)
	if err != nil {
		return []Finding{finding(Damaged, "the signature: %v", err)}
	}
	now := c.now()
	var found []Finding
	for _, blob := range packets {
		one := c.detached(message, blob, now)
		if len(one) == 0 {
			return nil
		}
		found = append(found, one...)
	}
	return found
}

func (c *Checker) detached(message, blob []byte, now time.Time) []Finding {
	sig, err := parseSignature(blob)
	if err != nil {
		return []Finding{finding(Damaged, "the signature: %v", err)}
	}
	h, ok := newHash(sig)
	if !ok {
		return []Finding{finding(Algorithm, "the signature is made with %v; SHA-256 is what to use", sig.Hash)}
	}
	h.Write(message)
	return c.Keys.judge(sig, h, Tampered, now)
}

// dearmor returns the packets of a detached signature.
func dearmor(signature []byte) ([][]byte, error) {
	if len(signature) > maxDetached {
		return nil, errors.New("longer than any signature is")
	}
	if bytes.Contains(signature, []byte("-----BEGIN PGP")) {
		block, err := armor.Decode(bufio.NewReader(bytes.NewReader(signature)))
		if err != nil {
			return nil, err
		}
		if block.Type != openpgp.SignatureType {
			return nil, errors.New("a " + strings.ToLower(block.Type) + "; write a detached one")
		}
		if signature, err = io.ReadAll(block.Body); err != nil {
			return nil, err
		}
	}
	var packets [][]byte
	for len(signature) > 0 {
		n, err := packetSize(signature)
		if err != nil {
			return nil, err
		}
		if len(packets) == maxSignatures {
			return nil, errors.New("more signatures than keys that anybody has")
		}
		packets = append(packets, signature[:n])
		signature = signature[n:]
	}
	if len(packets) == 0 {
		return nil, errors.New("it is empty")
	}
	return packets, nil
}

// packetSize is how many bytes the first packet of b has, with its beginning.
func packetSize(b []byte) (int, error) {
	short := errors.New("it ends in the middle")
	if len(b) < 2 {
		return 0, short
	}
	var head, body int
	switch tag := b[0]; {
	case tag&0x80 == 0:
		return 0, errors.New("no OpenPGP signature")
	case tag&0x40 == 0: // the old format
		width := 1 << (tag & 3)
		if width == 8 {
			return 0, errors.New("a packet without length")
		}
		head = 1 + width
		if len(b) < head {
			return 0, short
		}
		for _, c := range b[1:head] {
			body = body<<8 | int(c)
		}
	case b[1] < 192:
		head, body = 2, int(b[1])
	case b[1] < 224:
		if len(b) < 3 {
			return 0, short
		}
		head, body = 3, int(b[1]-192)<<8+int(b[2])+192
	case b[1] == 255:
		head = 6
		if len(b) < head {
			return 0, short
		}
		for _, c := range b[2:head] {
			body = body<<8 | int(c)
		}
	default:
		return 0, errors.New("a packet in parts")
	}
	if body > len(b)-head {
		return 0, short
	}
	return head + body, nil
}

// Repomd judges the metadata at path by the signature beside it.
func (c *Checker) Repomd(path string) (size int64, found []Finding) {
	message, err := readRegular(path, maxRepomd)
	if err != nil {
		return 0, []Finding{boundedFinding(err)}
	}
	signature, err := readRegular(path+SignatureSuffix, maxDetached)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, []Finding{finding(Unsigned, "there is no %s%s beside it", RepomdName, SignatureSuffix)}
	case err != nil:
		f := boundedFinding(err)
		f.Detail = "the signature: " + f.Detail
		return 0, []Finding{f}
	}
	return int64(len(message)), c.Detached(message, signature)
}

// readRegular is readBounded for what lies in the tree of a stranger: to open a named
// pipe would be to wait for whoever writes into it.
func readRegular(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	return readBounded(path, limit)
}

func boundedFinding(err error) Finding {
	if long := (*tooLong)(nil); errors.As(err, &long) {
		return finding(Damaged, "longer than %d bytes, which no such file is", long.limit)
	}
	return readFinding(err)
}

// File judges one file.
func (c *Checker) File(a Artifact) Result {
	r := Result{Artifact: a}
	switch a.Type {
	case Package:
		r.Size, r.Findings = c.Package(a.Path)
	case Repomd:
		r.Size, r.Findings = c.Repomd(a.Path)
	}
	return r
}

// Tree judges files, some at once, and reports each: in order, and never two at
// once. The error is that of ctx. That something is wrong with a file is in its
// Result alone.
func (c *Checker) Tree(ctx context.Context, files []Artifact, report func(Result)) error {
	return InOrder(ctx, len(files), runtime.GOMAXPROCS(0),
		func(i int) Result { return c.File(files[i]) },
		func(_ int, r Result) { report(r) })
}
