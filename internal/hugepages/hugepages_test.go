package hugepages

import (
	"testing"
	"unsafe"
)

func TestAlloc(t *testing.T) {
	for _, tt := range []struct {
		name string
		n    int
	}{
		{"nothing", 0},
		{"one byte", 1},
		{"less than a huge page", size - 1},
		{"a huge page", size},
		{"some of them and a part", 3*size + 12345},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Again, because memory that was given back must come as zeros.
			for range 3 {
				mem, release := Alloc(tt.n)
				if len(mem) != tt.n || cap(mem) != tt.n {
					t.Fatalf("%d bytes, and room for %d, want %d", len(mem), cap(mem), tt.n)
				}
				begin := uintptr(unsafe.Pointer(unsafe.SliceData(mem)))
				if align := uintptr(min(tt.n, 8)); align > 0 && begin%align != 0 {
					t.Errorf("it begins at %#x", begin)
				}
				if tt.n >= size && begin%size != 0 {
					t.Errorf("it begins at %#x, inside of a huge page", begin)
				}
				for i, b := range mem {
					if b != 0 {
						t.Fatalf("byte %d is %d", i, b)
					}
					mem[i] = 0xff
				}
				if err := release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestMake(t *testing.T) {
	for _, n := range []int{0, 1, size / 4, 5*size/4 + 3} {
		s := Make(n)
		if len(s) != n {
			t.Errorf("%d numbers, want %d", len(s), n)
		}
		for i := range s {
			if s[i] != 0 {
				t.Fatalf("number %d of %d is %d", i, n, s[i])
			}
			s[i] = 1
		}
	}
}
