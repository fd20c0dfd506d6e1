// Package signer puts signatures on packages and on repository metadata. It is
// the only package that touches a private key: it reads key files, makes them, and
// never hands a key out, prints one, or takes a passphrase from anywhere but its
// caller. It never changes a file in place and never talks to the network.
package signer

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/eddsa"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"meridian/signer/verify"
)

// A Key signs. It can sign many things at once.
type Key struct {
	// private makes the bare signatures: a key in memory here, a key in a token
	// elsewhere. Nothing above it knows which.
	private crypto.Signer

	public *packet.PublicKey // of private: a primary key, or a subkey
	cert   []byte            // the public key with all its parts, armored
	ring   *verify.Ring      // of cert
}

// ErrPassphrase is the error for a key that needs another passphrase than the one
// given, or one at all.
var ErrPassphrase = errors.New("wrong passphrase")

// maxKey bounds a key file.
const maxKey = 1 << 20

// Open reads the private key in the file path. A key without passphrase takes none.
// credentials is the directory in which the service manager leaves secrets, or "".
//
// Nobody but its owner may be allowed to read the file, unless it is one of the
// credentials: those are the service manager's to guard, and may look as if a group
// could read them.
func Open(path string, passphrase []byte, credentials string) (*Key, error) {
	b, err := readKey(path, credentials)
	if err != nil {
		return nil, err
	}
	k, err := parse(b, passphrase)
	switch {
	case errors.Is(err, ErrPassphrase) && len(passphrase) == 0:
		return nil, fmt.Errorf("%s: the key is protected and no passphrase was given: %w", path, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// Guarded is an error when others than its owner may read the file path, as far as
// its permissions tell. Open asks that of keys; of passphrases somebody should be
// told.
func Guarded(path, credentials string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return guarded(info, path, credentials)
}

func guarded(info fs.FileInfo, path, credentials string) error {
	if credentials != "" && filepath.Dir(filepath.Clean(path)) == filepath.Clean(credentials) {
		return nil
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 {
		return fmt.Errorf("%s: others may read or write it (mode %04o), so it is no secret; run: chmod 600 %[1]s", path, mode.Perm())
	}
	return nil
}

// readKey reads a file that is as Open wants it.
func readKey(path, credentials string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := guarded(info, path, credentials); err != nil {
		return nil, err
	}
	return readAll(f, path, maxKey)
}

// readAll reads what is left of f, at most limit bytes.
func readAll(f io.Reader, path string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: longer than %d bytes, which no such file is", path, limit)
	}
	return b, nil
}

// Passphrase returns what the file path says, which is one line.
func Passphrase(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := readAll(f, path, 4<<10)
	if err != nil {
		return nil, err
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	switch {
	case len(b) == 0:
		return nil, fmt.Errorf("%s: no passphrase in it; write one, on one line", path)
	case bytes.ContainsAny(b, "\n\r\x00"):
		return nil, fmt.Errorf("%s: several lines; a passphrase is one", path)
	}
	return b, nil
}

// parse reads an armored or binary private key with everything that belongs to it.
func parse(b, passphrase []byte) (*Key, error) {
	body := b
	if bytes.Contains(b, []byte("-----BEGIN PGP")) {
		block, err := armor.Decode(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("armor: %w", err)
		}
		if block.Type != openpgp.PrivateKeyType {
			return nil, fmt.Errorf("a %s; give the private key", strings.ToLower(block.Type))
		}
		if body, err = io.ReadAll(block.Body); err != nil {
			return nil, fmt.Errorf("armor: %w", err)
		}
	}
	list, err := openpgp.ReadKeyRing(bytes.NewReader(body))
	switch {
	case err != nil:
		return nil, fmt.Errorf("no key that can be used: %w", err)
	case len(list) != 1:
		return nil, fmt.Errorf("%d keys; keep one in a file", len(list))
	}
	e := list[0]
	public, private, err := signing(e)
	if err != nil {
		return nil, err
	}
	// What Decrypt says depends on what the noise looks like that comes out.
	if private.Encrypted && (len(passphrase) == 0 || private.Decrypt(passphrase) != nil) {
		return nil, ErrPassphrase
	}
	var s crypto.Signer
	switch p := private.PrivateKey.(type) {
	case crypto.Signer:
		s = p
	case *eddsa.PrivateKey:
		s = ed25519.NewKeyFromSeed(p.D)
	}
	cert, err := publicHalf(body)
	if err != nil {
		return nil, err
	}
	return newKey(cert, public, s)
}

// signing returns the part of e that signs: the newest subkey for signatures, or
// the primary key where there is none.
func signing(e *openpgp.Entity) (*packet.PublicKey, *packet.PrivateKey, error) {
	type part struct {
		public  *packet.PublicKey
		private *packet.PrivateKey
		self    *packet.Signature
	}
	self, _ := e.PrimarySelfSignature()
	parts := []part{{e.PrimaryKey, e.PrivateKey, self}}
	for _, s := range e.Subkeys {
		if len(s.Revocations) == 0 {
			parts = append(parts, part{s.PublicKey, s.PrivateKey, s.Sig})
		}
	}
	var best *part
	for _, expired := range []bool{false, true} {
		for i, p := range parts {
			switch {
			case p.private == nil || p.private.Dummy() || p.self == nil:
			case !p.public.PubKeyAlgo.CanSign() || p.self.FlagsValid && !p.self.FlagSign || i > 0 && !p.self.FlagsValid:
			case p.public.KeyExpired(p.self, time.Now()) != expired:
			case best == nil || best == &parts[0] || p.public.CreationTime.After(best.public.CreationTime):
				best = &parts[i]
			}
		}
		if best != nil {
			break
		}
	}
	// An expired key is returned too: why it cannot sign is said when it is used.
	if best == nil {
		return nil, nil, errors.New("no private key for signatures in it")
	}
	return best.public, best.private, nil
}

// New returns a Key whose private part is elsewhere, in a token for instance: cert
// is its public key, armored or not, and s makes the bare signatures. It is how a
// key gets here that cannot be read from a file.
func New(cert []byte, s crypto.Signer) (*Key, error) {
	if bytes.Contains(cert, []byte("-----BEGIN PGP")) {
		block, err := armor.Decode(bytes.NewReader(cert))
		if err != nil {
			return nil, fmt.Errorf("armor: %w", err)
		}
		if cert, err = io.ReadAll(block.Body); err != nil {
			return nil, fmt.Errorf("armor: %w", err)
		}
	}
	list, err := openpgp.ReadKeyRing(bytes.NewReader(cert))
	if err != nil || len(list) != 1 {
		return nil, errors.Join(errors.New("want one public key"), err)
	}
	parts := []*packet.PublicKey{list[0].PrimaryKey}
	for _, sub := range list[0].Subkeys {
		parts = append(parts, sub.PublicKey)
	}
	for _, p := range parts {
		if same(p, s.Public()) {
			return newKey(cert, p, s)
		}
	}
	return nil, errors.New("the private key is of another public one")
}

// same tells whether p, of OpenPGP, is the key q.
func same(p *packet.PublicKey, q crypto.PublicKey) bool {
	switch p := p.PublicKey.(type) {
	case *rsa.PublicKey:
		return p.Equal(q)
	case *eddsa.PublicKey:
		return ed25519.PublicKey(p.X).Equal(q)
	}
	return false
}

// newKey is where all keys come from. cert is not armored.
func newKey(cert []byte, public *packet.PublicKey, s crypto.Signer) (*Key, error) {
	switch public.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly, packet.PubKeyAlgoEdDSA:
	default:
		return nil, fmt.Errorf("a key of algorithm %d, whose signatures rpm 4.18 refuses; make one of RSA or legacy Ed25519 with signer keygen", public.PubKeyAlgo)
	}
	if s == nil || !same(public, s.Public()) {
		return nil, errors.New("the private key is of another public one")
	}
	text, err := armored(openpgp.PublicKeyType, cert)
	if err != nil {
		return nil, err
	}
	ring, err := verify.NewRing(text)
	if err != nil {
		return nil, err
	}
	return &Key{private: s, public: public, cert: text, ring: ring}, nil
}

// publicHalf returns the packets of a private key with the private parts left out:
// everything else stays as it is, in its order.
func publicHalf(private []byte) ([]byte, error) {
	var out bytes.Buffer
	in := packet.NewOpaqueReader(bytes.NewReader(private))
	for {
		op, err := in.Next()
		if err == io.EOF {
			return out.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		const secretKey, secretSubkey = 5, 7
		if op.Tag == secretKey || op.Tag == secretSubkey {
			p, err := op.Parse()
			if err != nil {
				return nil, err
			}
			k, ok := p.(*packet.PrivateKey)
			if !ok {
				return nil, errors.New("not a private key")
			}
			if err := k.PublicKey.Serialize(&out); err != nil {
				return nil, err
			}
			continue
		}
		if err := op.Serialize(&out); err != nil {
			return nil, err
		}
	}
}

// armored returns b as text, with the checksum that gpg and rpm look for.
func armored(kind string, b []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := armor.Encode(&out, kind, nil)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// Public is the public key, armored, as rpm --import and gpgkey= take it.
func (k *Key) Public() []byte { return bytes.Clone(k.cert) }

// Ring is the public key as what signatures are judged by.
func (k *Key) Ring() *verify.Ring { return k.ring }

// Fingerprint is that of the primary key, in hexadecimal digits.
func (k *Key) Fingerprint() string { return k.ring.Fingerprints()[0] }

// String names the part of the key that signs, without giving anything away.
func (k *Key) String() string { return fmt.Sprintf("%016X", k.public.KeyId) }

// Detach returns the signature of message, armored, as it stands in
// repomd.xml.asc.
func (k *Key) Detach(message []byte) ([]byte, error) {
	h := crypto.SHA256.New()
	h.Write(message)
	sig, err := k.sign(h, time.Now())
	if err != nil {
		return nil, err
	}
	text, err := armored(openpgp.SignatureType, sig)
	if err != nil {
		return nil, err
	}
	c := verify.Checker{Keys: k.ring}
	if found := c.Detached(message, text); len(found) > 0 {
		return nil, fmt.Errorf("key %s: what it signs would not be accepted: %s", k, found[0])
	}
	return text, nil
}

// sign returns a signature packet of version 4 of what was written into signed,
// which is a SHA-256. It is written here, and not by go-crypto, because that signs
// with Ed25519 only by keys in its own memory.
func (k *Key) sign(signed hash.Hash, now time.Time) ([]byte, error) {
	const (
		creationTime      = 2
		issuer            = 16
		issuerFingerprint = 33
		binaryDocument    = 0
		sha256            = 8
	)
	hashed := []byte{byte(2 + len(k.public.Fingerprint)), issuerFingerprint, byte(k.public.Version)}
	hashed = append(hashed, k.public.Fingerprint...)
	hashed = append(hashed, 5, creationTime)
	hashed = binary.BigEndian.AppendUint32(hashed, uint32(now.Unix()))

	body := []byte{4, binaryDocument, byte(k.public.PubKeyAlgo), sha256}
	body = binary.BigEndian.AppendUint16(body, uint16(len(hashed)))
	body = append(body, hashed...)

	signed.Write(body)
	signed.Write(binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(body))))
	digest := signed.Sum(nil)

	body = append(body, 0, 10, 9, issuer)
	body = binary.BigEndian.AppendUint64(body, k.public.KeyId)
	body = append(body, digest[:2]...)
	if k.isRSA() {
		s, err := k.private.Sign(rand.Reader, digest, crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("sign with key %s: %w", k, err)
		}
		// A token that errs gives its key away to who can compare.
		if err := rsa.VerifyPKCS1v15(k.public.PublicKey.(*rsa.PublicKey), crypto.SHA256, digest, s); err != nil {
			return nil, fmt.Errorf("key %s made a signature that does not fit: %w", k, err)
		}
		body = appendMPI(body, s)
	} else {
		// Of Ed25519 the digest is the message.
		s, err := k.private.Sign(rand.Reader, digest, crypto.Hash(0))
		if err != nil {
			return nil, fmt.Errorf("sign with key %s: %w", k, err)
		}
		if !ed25519.Verify(k.public.PublicKey.(*eddsa.PublicKey).X, digest, s) {
			return nil, fmt.Errorf("key %s made a signature that does not fit", k)
		}
		body = appendMPI(body, s[:32])
		body = appendMPI(body, s[32:])
	}
	// Tag 2 in the old format with two bytes of length, which every rpm reads.
	out := binary.BigEndian.AppendUint16([]byte{0x89}, uint16(len(body)))
	return append(out, body...), nil
}

// appendMPI appends a number as OpenPGP writes it: its bits, and its bytes without
// leading zeros.
func appendMPI(b, number []byte) []byte {
	n := new(big.Int).SetBytes(number)
	b = binary.BigEndian.AppendUint16(b, uint16(n.BitLen()))
	return append(b, n.Bytes()...)
}

func (k *Key) isRSA() bool {
	_, ok := k.public.PublicKey.(*rsa.PublicKey)
	return ok
}

// Usable says why the key cannot sign now: it has expired, was revoked, or is
// from the future of this machine's clock.
func (k *Key) Usable() error {
	// What would be found about a signature is what counts.
	_, err := k.Detach(nil)
	return err
}
