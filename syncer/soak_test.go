//go:build soak

package syncer

// soak is set for make soak, where tests take the time that they want.
const soak = true
