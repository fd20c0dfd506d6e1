package signer

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/ProtonMail/go-crypto/openpgp/s2k"

	"meridian/internal/durable"
	"meridian/signer/verify"
)

// A KeyType is what Generate makes.
type KeyType string

// The types that rpm 4.18 accepts signatures of. Ed25519 is the legacy form, in
// keys of version 4: it refuses that of RFC 9580.
const (
	RSA4096 KeyType = "rsa4096"
	RSA3072 KeyType = "rsa3072"
	RSA2048 KeyType = "rsa2048"
	Ed25519 KeyType = "ed25519"
)

// rsaBits is 0 for a type that is not RSA.
var rsaBits = map[KeyType]int{RSA4096: 4096, RSA3072: 3072, RSA2048: 2048, Ed25519: 0}

// The files that WriteTo makes.
const (
	PrivateName    = "private.asc"
	PublicName     = "public.asc"
	RevocationName = "revocation.rev"
)

// NewKeyOptions say what Generate makes.
type NewKeyOptions struct {
	// Name and Email are whose key it is, as people will read it when their
	// machine asks whether to trust it. A name may end in a comment in brackets.
	Name, Email string

	// Type is RSA4096 when it is empty.
	Type KeyType

	// Life is how long the key can sign, 0 for ever. rpm 4.18 does not look at it;
	// dnf does, for metadata.
	Life time.Duration

	// Passphrase protects the private key; without one whoever reads the file can
	// sign.
	Passphrase []byte
}

// A NewKey is one that was just made, as files.
type NewKey struct {
	// Private is the armored private key, protected if that was asked for, and
	// Public what belongs to it.
	Private, Public []byte

	// Revocation withdraws the key where it is imported. It is kept elsewhere than
	// the private key, for the day when that is lost or stolen. The colon at its
	// beginning is to be taken away first, so that nobody imports it in error.
	Revocation []byte

	// Fingerprint is in hexadecimal digits.
	Fingerprint string
}

// Generate makes a key: one that certifies itself and signs, without subkeys,
// because that is what every rpm understands.
func Generate(o NewKeyOptions) (*NewKey, error) {
	if o.Type == "" {
		o.Type = RSA4096
	}
	bits, known := rsaBits[o.Type]
	if !known {
		return nil, fmt.Errorf("unknown type %q; write rsa4096, rsa3072, rsa2048 or ed25519", o.Type)
	}
	name, comment := splitName(o.Name)
	if err := checkOwner(name, comment, o.Email); err != nil {
		return nil, err
	}
	const maxLife = 1<<32 - 1 // seconds; the format has no more room
	if o.Life < 0 || o.Life/time.Second > maxLife || o.Life > 0 && o.Life < time.Second {
		return nil, fmt.Errorf("a key cannot live for %v; a second to 136 years", o.Life)
	}
	// A format of seconds: what is signed in the second of its making must not look
	// older than the key.
	now := time.Now().Truncate(time.Second)
	config := &packet.Config{
		Time:            func() time.Time { return now },
		DefaultHash:     crypto.SHA256,
		DefaultCipher:   packet.CipherAES256,
		Algorithm:       packet.PubKeyAlgoEdDSA,
		KeyLifetimeSecs: uint32(o.Life / time.Second),
		// gpg reads this, and it costs a thief a second for each guess.
		S2KConfig: &s2k.Config{S2KMode: s2k.IteratedSaltedS2K, S2KCount: 65011712, Hash: crypto.SHA256},
	}
	e, err := entity(name, comment, o.Email, bits, config)
	if err != nil {
		return nil, err
	}

	var revocation bytes.Buffer
	if err := e.RevokeKey(packet.NoReason, "", config); err != nil {
		return nil, fmt.Errorf("revocation: %w", err)
	}
	if err := e.Revocations[0].Serialize(&revocation); err != nil {
		return nil, fmt.Errorf("revocation: %w", err)
	}
	e.Revocations = nil

	var public, private bytes.Buffer
	if err := e.Serialize(&public); err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	if len(o.Passphrase) > 0 {
		if err := e.EncryptPrivateKeys(o.Passphrase, config); err != nil {
			return nil, fmt.Errorf("protect the private key: %w", err)
		}
	}
	if err := e.SerializePrivateWithoutSigning(&private, config); err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}

	k := new(NewKey)
	for _, part := range []struct {
		to   *[]byte
		kind string
		raw  []byte
	}{
		{&k.Private, openpgp.PrivateKeyType, private.Bytes()},
		{&k.Public, openpgp.PublicKeyType, public.Bytes()},
		{&k.Revocation, openpgp.PublicKeyType, revocation.Bytes()},
	} {
		if *part.to, err = armored(part.kind, part.raw); err != nil {
			return nil, err
		}
	}
	ring, err := verify.NewRing(k.Public)
	if err != nil {
		return nil, err
	}
	k.Fingerprint = ring.Fingerprints()[0]
	k.Revocation = fmt.Appendf(nil, revocationText, k.Fingerprint, k.Revocation)
	return k, nil
}

const revocationText = `This withdraws the key %s for ever.
To use it, take away the colon below and import this file with gpg beside the
public key, then publish what gpg exports.

:%s`

// entity makes a key that is not on any disk; with 0 bits it is one of Ed25519.
func entity(name, comment, email string, bits int, config *packet.Config) (*openpgp.Entity, error) {
	if bits == 0 {
		e, err := openpgp.NewEntity(name, comment, email, config)
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		e.Subkeys = nil // one for encryption, which nobody asked for
		return e, nil
	}
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	private := packet.NewRSAPrivateKey(config.Now(), key)
	e := &openpgp.Entity{
		PrimaryKey: &private.PublicKey,
		PrivateKey: private,
		Identities: make(map[string]*openpgp.Identity),
	}
	if err := e.AddUserId(name, comment, email, config); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return e, nil
}

// splitName takes the comment off the end of a name: "Example (testing)".
func splitName(s string) (name, comment string) {
	if before, after, ok := strings.Cut(s, " ("); ok && strings.HasSuffix(after, ")") {
		return before, strings.TrimSuffix(after, ")")
	}
	return s, ""
}

// checkOwner refuses what would not be one name and one address to the programs
// that show a key.
func checkOwner(name, comment, email string) error {
	for _, s := range []string{name, comment, email} {
		if !utf8.ValidString(s) || strings.ContainsAny(s, "()<>") || strings.ContainsFunc(s, unicode.IsControl) {
			return fmt.Errorf("%q cannot be in a key; leave out < >, control characters, and brackets that are not around a comment at the end", s)
		}
	}
	if strings.TrimSpace(name) == "" {
		return errors.New("the key has no name; write whose it is")
	}
	user, host, ok := strings.Cut(email, "@")
	if !ok || user == "" || host == "" || strings.ContainsAny(email, " \t") {
		return fmt.Errorf("%q is not an e-mail address; write one like packages@example.org", email)
	}
	return nil
}

// WriteTo writes the files of the key into dir, which it makes if it is not there,
// and returns their paths. Where one of them exists already it writes none: a key
// that is overwritten is lost.
func (k *NewKey) WriteTo(dir string) (private, public, revocation string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", "", err
	}
	files := []struct {
		name string
		data []byte
		perm fs.FileMode
	}{
		{PrivateName, k.Private, 0o600},
		{RevocationName, k.Revocation, 0o600},
		{PublicName, k.Public, 0o644},
	}
	var paths []string
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return "", "", "", fmt.Errorf("%s is there already; name another directory, a key is never overwritten", path)
		}
		paths = append(paths, path)
	}
	for i, f := range files {
		if err := create(paths[i], f.data, f.perm); err != nil {
			return "", "", "", err
		}
	}
	return paths[0], paths[2], paths[1], nil
}

// create makes a file that is not there yet, whole. Of two that make it at once
// one fails.
func create(path string, data []byte, perm fs.FileMode) error {
	tmp := path + ".new"
	if err := durable.WriteFile(tmp, data, perm); err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return durable.SyncDir(filepath.Dir(path))
}
