package testworld

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// Environment of tests that kill at random moments: for how long, which make soak
// says, and with which seed, if not another one each time.
const (
	killTimeEnv = "MERIDIAN_KILL_TIME" // as time.ParseDuration reads it
	killSeedEnv = "MERIDIAN_KILL_SEED"
)

// Kills are the moments at which a test kills what it has started.
type Kills struct {
	// For is how long it is to go on; 0 says that a few kills will do.
	For time.Duration

	seed uint64
}

// RandomKills returns what the environment says. The seed is another one each
// time where the kills go on for a while, and always the same otherwise. It is
// told when the test fails: with it who is killed when, counted from what was seen
// before, is the same again, though not what that interrupts.
func RandomKills(t testing.TB) Kills {
	t.Helper()
	k := Kills{seed: 1}
	if text := os.Getenv(killTimeEnv); text != "" {
		var err error
		if k.For, err = time.ParseDuration(text); err != nil {
			t.Fatalf("%s: %v; write such as 5m", killTimeEnv, err)
		}
		k.seed = rand.Uint64()
	}
	if text := os.Getenv(killSeedEnv); text != "" {
		var err error
		if k.seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v; write the number that a failure told", killSeedEnv, err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to kill at these moments again, set %s=%d", killSeedEnv, k.seed)
		}
	})
	return k
}

// Rand returns the source of randomness of one of those who kill; it is for one
// goroutine.
func (k Kills) Rand(who uint64) *rand.Rand { return rand.New(rand.NewPCG(k.seed, who)) }
