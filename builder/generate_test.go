package builder

import (
	"testing"

	"meridian/builder/rpm/rpmtest"
)

// Generate is [rpmtest.Generate].
func Generate(tb testing.TB, dir string, n int, size int64) {
	tb.Helper()
	if err := rpmtest.Generate(dir, n, size); err != nil {
		tb.Fatal(err)
	}
}

// onePackage is the i-th package, whole.
func onePackage(tb testing.TB, i int) []byte {
	tb.Helper()
	b, err := rpmtest.Package(i)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}
