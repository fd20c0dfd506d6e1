package checker

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// MinSecret is how long the secret must be that tokens are derived from, bytes.
const MinSecret = 16

// Token returns what the operator of a mirror sends with the hint that it has
// synced. It is derived from the secret and the mirror's name, so nothing has to
// be kept; a new secret makes all tokens void.
func Token(secret []byte, mirror string) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("meridian synced token\x00" + mirror))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// validToken compares in constant time.
func validToken(secret []byte, mirror, token string) bool {
	return len(secret) >= MinSecret && hmac.Equal([]byte(Token(secret, mirror)), []byte(token))
}
