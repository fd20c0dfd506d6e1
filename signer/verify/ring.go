package verify

import (
	"bufio"
	"bytes"
	"crypto"
	_ "crypto/sha256" // what signatures are made with
	_ "crypto/sha512" // what signatures are made with
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// maxKeys bounds a file of keys, and maxSignature what one signature may be: a
// thousand bytes are usual.
const (
	maxKeys      = 4 << 20
	maxSignature = 64 << 10
)

// A Ring is a set of public keys that are trusted. It does not change.
type Ring struct {
	keys openpgp.EntityList
}

// NewRing reads public keys, armored as rpm --import takes them (with several
// blocks, and text between them) or binary.
func NewRing(keys []byte) (*Ring, error) {
	r := new(Ring)
	if len(keys) > maxKeys {
		return nil, fmt.Errorf("%d bytes of keys; the bound is %d", len(keys), maxKeys)
	}
	if !bytes.Contains(keys, []byte("-----BEGIN PGP")) {
		if err := r.add(bytes.NewReader(keys)); err != nil {
			return nil, err
		}
		return r, nil
	}
	in := bufio.NewReader(bytes.NewReader(keys))
	for {
		block, err := armor.Decode(in)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("armor: %w", err)
		}
		// The end of a block is found by reading it.
		body, err := io.ReadAll(block.Body)
		if err != nil {
			return nil, fmt.Errorf("armor: %w", err)
		}
		switch block.Type {
		case openpgp.PublicKeyType:
			if err := r.add(bytes.NewReader(body)); err != nil {
				return nil, err
			}
		case openpgp.PrivateKeyType:
			return nil, errPrivate
		}
	}
	if len(r.keys) == 0 {
		return nil, errors.New("no public key; write one that begins with -----BEGIN PGP PUBLIC KEY BLOCK-----")
	}
	return r, nil
}

var errPrivate = errors.New("a private key; give the public one, and keep this one where nobody else reads it")

func (r *Ring) add(keys io.Reader) error {
	list, err := openpgp.ReadKeyRing(keys)
	if err != nil {
		return fmt.Errorf("no public key that can be used: %w", err)
	}
	if len(list) == 0 {
		return errors.New("no public key")
	}
	for _, e := range list {
		if e.PrivateKey != nil {
			return errPrivate
		}
		if self, _ := e.PrimarySelfSignature(); self == nil {
			return fmt.Errorf("key %s has no valid signature of its own", fingerprint(e.PrimaryKey))
		}
	}
	r.keys = append(r.keys, list...)
	return nil
}

// OpenRing reads the keys of several files into one Ring.
func OpenRing(paths ...string) (*Ring, error) {
	all := new(Ring)
	for _, path := range paths {
		keys, err := readBounded(path, maxKeys)
		if err != nil {
			return nil, err
		}
		one, err := NewRing(keys)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all.keys = append(all.keys, one.keys...)
	}
	return all, nil
}

// Fingerprints are those of the primary keys, in hexadecimal digits.
func (r *Ring) Fingerprints() []string {
	var all []string
	for _, e := range r.keys {
		all = append(all, fingerprint(e.PrimaryKey))
	}
	return all
}

func fingerprint(k *packet.PublicKey) string {
	return strings.ToUpper(hex.EncodeToString(k.Fingerprint))
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, &tooLong{path, limit}
	}
	return b, nil
}

// tooLong is the error about a file that is longer than its kind ever is.
type tooLong struct {
	path  string
	limit int64
}

func (e *tooLong) Error() string {
	return fmt.Sprintf("%s: longer than %d bytes, which no such file is", e.path, e.limit)
}

// parseSignature reads the one signature packet that b is.
func parseSignature(b []byte) (*packet.Signature, error) {
	if len(b) > maxSignature {
		return nil, fmt.Errorf("%d bytes; the bound is %d", len(b), maxSignature)
	}
	// The tag, in the old and in the new format.
	if len(b) == 0 || b[0]&0xfc != 0x88 && b[0] != 0xc2 {
		return nil, errors.New("no OpenPGP signature")
	}
	in := bytes.NewReader(b)
	p, err := packet.Read(in)
	if err != nil {
		return nil, err
	}
	sig, ok := p.(*packet.Signature)
	switch {
	case !ok:
		return nil, errors.New("no OpenPGP signature")
	case in.Len() > 0:
		return nil, fmt.Errorf("%d bytes follow the signature", in.Len())
	case sig.Version != 4:
		return nil, fmt.Errorf("version %d; rpm 4.18 reads 4", sig.Version)
	case sig.SigType != packet.SigTypeBinary:
		return nil, fmt.Errorf("type 0x%02x, which is not one of a file", uint8(sig.SigType))
	case sig.IssuerKeyId == nil:
		return nil, errors.New("it does not say whose it is")
	case sig.CreationTime.IsZero():
		return nil, errors.New("it does not say when it was made")
	}
	return sig, nil
}

// newHash returns the hash that sig is made with, or false when that is none to
// rely on.
func newHash(sig *packet.Signature) (hash.Hash, bool) {
	switch sig.Hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
		return sig.Hash.New(), true
	}
	return nil, false
}

// candidate is a key that may have made a signature.
type candidate struct {
	entity *openpgp.Entity
	key    *packet.PublicKey
	self   *packet.Signature // binds key, and says how long and what for
	sub    *openpgp.Subkey   // nil for a primary key
}

// by returns the keys that sig says it is made by: hardly ever more than one.
func (r *Ring) by(sig *packet.Signature) []candidate {
	var list []candidate
	for _, e := range r.keys {
		if names(sig, e.PrimaryKey) {
			self, _ := e.PrimarySelfSignature()
			list = append(list, candidate{e, e.PrimaryKey, self, nil})
		}
		for i := range e.Subkeys {
			sub := &e.Subkeys[i]
			if names(sig, sub.PublicKey) {
				list = append(list, candidate{e, sub.PublicKey, sub.Sig, sub})
			}
		}
	}
	return list
}

// names tells whether sig says that k made it. Where it gives both a fingerprint
// and an id, both must be right: rpm looks at one, gpg at the other.
func names(sig *packet.Signature, k *packet.PublicKey) bool {
	return sig.CheckKeyIdOrFingerprint(k) && *sig.IssuerKeyId == k.KeyId
}

// judge says what is wrong with sig, the signature of what was written into
// signed. Where it does not fit, that is tampering of the kind given.
func (r *Ring) judge(sig *packet.Signature, signed hash.Hash, tampered Kind, now time.Time) []Finding {
	keys := r.by(sig)
	if len(keys) == 0 {
		return []Finding{finding(ForeignKey, "signed by key %016X, which is not among the trusted ones", *sig.IssuerKeyId)}
	}
	if k := fitting(keys, sig, signed); k != nil {
		return k.judge(sig, now)
	}
	return []Finding{finding(tampered, "the signature of key %016X does not fit", *sig.IssuerKeyId)}
}

// fits tells whether sig is the signature, by a key of the ring, of what was
// written into signed.
func (r *Ring) fits(sig *packet.Signature, signed hash.Hash) bool {
	return fitting(r.by(sig), sig, signed) != nil
}

// fitting returns which of keys made sig, nil if none did.
func fitting(keys []candidate, sig *packet.Signature, signed hash.Hash) *candidate {
	digest := frozen{signed, nil}
	for i := range keys {
		// What is nobody's proof, the first bytes of the hash, has to fit as well:
		// rpm refuses the package otherwise.
		if packet.VerifyHashTag(&digest, sig) == nil && keys[i].key.VerifySignature(&digest, sig) == nil {
			return &keys[i]
		}
	}
	return nil
}

// frozen is a hash that can be asked again and again: go-crypto writes the end of
// the signature into the hash that it is given.
type frozen struct {
	hash.Hash
	sum []byte
}

func (f *frozen) Write(p []byte) (int, error) {
	if f.sum != nil {
		return len(p), nil
	}
	return f.Hash.Write(p)
}

func (f *frozen) Sum(b []byte) []byte {
	if f.sum == nil {
		f.sum = f.Hash.Sum(nil)
	}
	return append(b, f.sum...)
}

// minRSA is what is asked of an RSA key, in bits.
const minRSA = 2048

// judge says what is wrong with a signature that fits the key.
func (k *candidate) judge(sig *packet.Signature, now time.Time) []Finding {
	var found []Finding
	add := func(kind Kind, format string, args ...any) { found = append(found, finding(kind, format, args...)) }
	name := fmt.Sprintf("key %016X", k.key.KeyId)

	if why := unfit(k.key); why != "" {
		add(Algorithm, "%s is %s; sign with RSA of 2048 bits or more, or with legacy Ed25519", name, why)
	}
	if k.sub != nil && !(k.self.FlagsValid && k.self.FlagSign) || k.self.FlagsValid && !k.self.FlagSign {
		add(ForeignKey, "%s is not one for signatures", name)
	}

	made := sig.CreationTime
	if made.After(now.Add(leeway)) {
		add(Future, "signed at %s, which is later than %s; set the clocks", stamp(made), stamp(now))
	}
	if made.Before(k.key.CreationTime) {
		add(Damaged, "signed at %s, before %s was made at %s", stamp(made), name, stamp(k.key.CreationTime))
	}
	if life := sig.SigLifetimeSecs; life != nil && *life != 0 {
		if end := made.Add(time.Duration(*life) * time.Second); !now.Before(end) {
			add(Expired, "the signature was good until %s", stamp(end))
		}
	}
	switch end := k.end(); {
	case end.IsZero():
	case !made.Before(end):
		add(Expired, "signed at %s, when %s had expired at %s", stamp(made), name, stamp(end))
	case !now.Before(end):
		add(Expired, "%s expired at %s, after it had signed at %s", name, stamp(end), stamp(made))
	}

	revocations := k.entity.Revocations
	if k.sub != nil {
		revocations = append(revocations[:len(revocations):len(revocations)], k.sub.Revocations...)
	}
	for _, r := range revocations {
		// When it was revoked makes no difference: who has a stolen key dates his
		// signatures as he likes.
		why := ""
		if r.RevocationReasonText != "" {
			why = fmt.Sprintf(": %q", r.RevocationReasonText)
		}
		add(Revoked, "%s was revoked at %s%s", name, stamp(r.CreationTime), why)
		break
	}
	return found
}

// end is when the key expires, alone or with the primary key that it belongs to.
// The zero time is never.
func (k *candidate) end() time.Time {
	end := expiry(k.key, k.self)
	if k.sub != nil {
		self, _ := k.entity.PrimarySelfSignature()
		if e := expiry(k.entity.PrimaryKey, self); end.IsZero() || !e.IsZero() && e.Before(end) {
			end = e
		}
	}
	return end
}

func expiry(k *packet.PublicKey, self *packet.Signature) time.Time {
	if self.KeyLifetimeSecs == nil || *self.KeyLifetimeSecs == 0 {
		return time.Time{}
	}
	return k.CreationTime.Add(time.Duration(*self.KeyLifetimeSecs) * time.Second)
}

// unfit says why rpm 4.18 refuses a key, or nobody should trust it; "" for a good
// one.
func unfit(k *packet.PublicKey) string {
	switch k.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		if bits, err := k.BitLength(); err != nil || bits < minRSA {
			return fmt.Sprintf("RSA of %d bits, which is too short", bits)
		}
		return ""
	case packet.PubKeyAlgoEdDSA:
		if curve, err := k.Curve(); err != nil || curve != packet.Curve25519 {
			return "EdDSA of a curve that rpm 4.18 refuses"
		}
		return ""
	case packet.PubKeyAlgoDSA:
		return "DSA, which is broken"
	}
	return fmt.Sprintf("of algorithm %d, which rpm 4.18 refuses", k.PubKeyAlgo)
}

// stamp prints a time so that nobody has to ask of which zone.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
