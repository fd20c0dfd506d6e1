package mirrorlist

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// A limiter bounds how often a client prefix may ask. Its memory is fixed
// whatever clients do: prefixes share buckets by their hash.
type limiter struct {
	rate    atomic.Uint64 // bits of a float64: tokens a second; negative: no bound
	buckets [4096]bucket
}

type bucket struct {
	mu     sync.Mutex // guards both
	tokens float64
	last   time.Time
}

// burst is how many requests a bucket allows at once, in seconds of its rate.
const burst = 4

func newLimiter(rate float64) *limiter {
	l := new(limiter)
	l.setRate(rate)
	return l
}

func (l *limiter) setRate(rate float64) { l.rate.Store(math.Float64bits(rate)) }

// allow takes a token from the bucket of a client.
func (l *limiter) allow(client uint64, now time.Time) bool {
	rate := math.Float64frombits(l.rate.Load())
	if rate < 0 {
		return true
	}
	b := &l.buckets[client%uint64(len(l.buckets))]
	b.mu.Lock()
	defer b.mu.Unlock()
	full := max(1, rate*burst)
	if b.last.IsZero() {
		b.tokens = full
	} else {
		b.tokens = min(full, b.tokens+rate*max(0, now.Sub(b.last).Seconds()))
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
