package builder

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// The packages are sparse: what is measured is reading, hashing and writing, not
// the disk. Ratios against createrepo_c are in cmd/bench.
func BenchmarkRepo(b *testing.B) {
	const size = 600_000
	for _, n := range []int{500} {
		dir := b.TempDir()
		Generate(b, dir, n, size)
		cache := filepath.Join(b.TempDir(), "cache")
		run := func(b *testing.B, o RepoOptions, before func(i int)) {
			o.Dir, o.Cache = dir, cache
			b.SetBytes(int64(n) * size)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if before != nil {
					before(i)
				}
				report, err := Repo(b.Context(), o)
				if err != nil {
					b.Fatal(err)
				}
				if report.Packages != n {
					b.Fatalf("%+v", report)
				}
			}
		}
		b.Run(fmt.Sprintf("cold/packages=%d", n), func(b *testing.B) { run(b, RepoOptions{}, nil) })
		b.Run(fmt.Sprintf("unchanged/packages=%d", n), func(b *testing.B) { run(b, RepoOptions{Update: true}, nil) })
		b.Run(fmt.Sprintf("one changed/packages=%d", n), func(b *testing.B) {
			files, err := filepath.Glob(filepath.Join(dir, "*.rpm"))
			if err != nil {
				b.Fatal(err)
			}
			run(b, RepoOptions{Update: true}, func(i int) {
				b.StopTimer()
				defer b.StartTimer()
				f := files[i%len(files)]
				info, err := os.Stat(f)
				if err != nil {
					b.Fatal(err)
				}
				at := info.ModTime().Add(1e9)
				if err := os.Chtimes(f, at, at); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}
