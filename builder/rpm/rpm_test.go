package rpm

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"hash"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/rpmpack"
	"github.com/zeebo/xxh3"
)

// An item is one entry of a header that a test makes, with a data part that may
// be anything.
type item struct {
	tag, typ, offset, count uint32
}

// header makes a header of items over data.
func header(data []byte, items ...item) []byte {
	b := []byte(headerMagic + "\x00\x00\x00\x00")
	b = binary.BigEndian.AppendUint32(b, uint32(len(items)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	for _, i := range items {
		for _, n := range []uint32{i.tag, i.typ, i.offset, i.count} {
			b = binary.BigEndian.AppendUint32(b, n)
		}
	}
	return append(b, data...)
}

// file puts a lead in front of two headers, and a payload behind them.
func file(signature, header []byte) []byte {
	b := make([]byte, leadSize)
	copy(b, leadMagic+"\x03\x00")
	b = append(b, signature...)
	for len(b)%sigAlign != 0 {
		b = append(b, 0)
	}
	return append(append(b, header...), "payload"...)
}

// sound is a file with what a package must have and nothing else.
func sound() []byte {
	return file(
		header([]byte{0, 0, 0, 9}, item{uint32(SigPayloadSize), 4, 0, 1}),
		header([]byte("n\x00v\x00r\x00a\x00"), item{1000, 6, 0, 1}, item{1001, 6, 2, 1}, item{1002, 6, 4, 1}, item{1022, 6, 6, 1}))
}

func readBytes(b []byte) (*Package, error) {
	var r Reader
	return r.read(bytes.NewReader(b), int64(len(b)), true)
}

func TestSoundPackageIsRead(t *testing.T) {
	b := sound()
	p, err := readBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(p.Header.Get(TagVersion).First()); got != "v" {
		t.Errorf("version %q", got)
	}
	if got := p.Signature.Get(SigPayloadSize).Uint(0); got != 9 {
		t.Errorf("payload of %d bytes, want 9", got)
	}
	if p.Receipt.SHA256 != sha256.Sum256(b) || p.Receipt.XXH3 != xxh3.Hash128(b).Bytes() || p.Receipt.Header != sha256.Sum256(b[:p.End]) {
		t.Errorf("receipt %+v", p.Receipt)
	}
	if string(b[p.End:]) != "payload" || string(b[p.Start:p.Start+4]) != headerMagic {
		t.Errorf("the header is from %d to %d", p.Start, p.End)
	}
}

func TestHostilePackagesAreRefused(t *testing.T) {
	sig := header([]byte{0, 0, 0, 9}, item{uint32(SigPayloadSize), 4, 0, 1})
	data := []byte("n\x00v\x00r\x00a\x00")
	names := []item{{1000, 6, 0, 1}, {1001, 6, 2, 1}, {1002, 6, 4, 1}, {1022, 6, 6, 1}}
	// with makes a file whose main header has one entry more.
	with := func(i item, more ...byte) []byte {
		return file(sig, header(append(bytes.Clone(data), more...), append(append([]item(nil), names...), i)...))
	}
	at := func(b []byte, offset int, n uint32) []byte {
		b = bytes.Clone(b)
		binary.BigEndian.PutUint32(b[offset:], n)
		return b
	}
	b := sound()
	start := leadSize + 16 + 16 + 4 + 4 // of the main header
	tests := []struct {
		name, want string
		file       []byte
	}{
		{"nothing", "truncated: 0 bytes", nil},
		{"less than a lead", "truncated: 50 bytes", b[:50]},
		{"another kind of file", "not an RPM", append([]byte("!<arch>\n"), b[8:]...)},
		{"no signature header", "no signature header", at(b, leadSize, 0)},
		{"no main header", "no header", at(b, start, 0)},
		{"a signature header without entries", "has no entries", at(b, leadSize+8, 0)},
		{"more signatures than there can be", "claims 33 entries", at(b, leadSize+8, 33)},
		{"signatures of four gigabytes", "claims 4294967295 bytes", at(b, leadSize+12, 0xffffffff)},
		{"signatures beyond the file", "the signatures end at byte", at(b, leadSize+12, 5000)},
		{"more entries than there can be", "claims 65536 entries", at(b, start+8, 65536)},
		{"entries that make the size overflow", "claims 4294967295 entries", at(b, start+8, 0xffffffff)},
		{"a header of four gigabytes", "claims 4294967295 bytes", at(b, start+12, 0xffffffff)},
		{"a header beyond the file", "truncated: the header ends", at(b, start+12, 5000)},
		{"a header cut off", "truncated: the header ends", b[:len(b)-len("payload")-1]},
		{"no type", "type 0", with(item{1003, 0, 0, 1})},
		{"a type that does not exist", "type 10", with(item{1003, 10, 0, 1})},
		{"a type beyond any table", "type 4294967295", with(item{1003, 0xffffffff, 0, 1})},
		{"a list of nothing", "tag 1003 has no elements", with(item{1003, 4, 8, 0}, 0, 0, 0, 0)},
		{"an offset behind the end", "is at byte 13 of 12", with(item{1003, 4, 13, 1}, 0, 0, 0, 0)},
		{"a negative offset", "is at byte 4294967280", with(item{1003, 4, 0xfffffff0, 1}, 0, 0, 0, 0)},
		{"a number that ends behind the end", "claims 1 elements of 4 bytes", with(item{1003, 4, 8, 1}, 0, 0)},
		{"a count that overflows", "claims 1073741825 elements", with(item{1003, 4, 8, 0x40000001}, 0, 0, 0, 0)},
		{"four billion strings", "claims 4294967295 strings", with(item{1086, 8, 8, 0xffffffff}, 0, 0)},
		{"more strings than bytes", "claims 3 strings", with(item{1086, 8, 8, 3}, 0, 0)},
		{"strings that are too few", "string without end", with(item{1086, 8, 8, 2}, 'x', 0)},
		{"a string without end", "string without end", with(item{1020, 6, 8, 1}, 'x')},
		{"two strings that are one", "claims to be one string of 2", with(item{1020, 6, 8, 2}, 0, 0)},
		{"a number at an odd place", "no multiple of 4", with(item{1003, 4, 9, 1}, 0, 0, 0, 0, 0)},
		{"values that overlap", "tags 1000 and 9999 overlap at byte 0", with(item{9999, 7, 0, 4})},
		{"one value twice", "overlap", with(item{1020, 6, 6, 1})},
		{"a name that is a number", "tag 1000 has type 4", file(sig, header(make([]byte, 4), item{1000, 4, 0, 1}))},
		{"modes of 32 bits", "tag 1030 has type 4", with(item{1030, 4, 8, 1}, 0, 0, 0, 0)},
		{"a signature in the header", "tag 269, of a signature", with(item{269, 6, 8, 1}, 0)},
		{"two sizes of the payload", "there twice", with(item{1046, 4, 8, 1}, 0, 0, 0, 0)},
		{"a size of the payload that is text", "tag 1007 of the signatures", file(header([]byte("9\x00"), item{1007, 6, 0, 1}), header(data, names...))},
		{"no name", "has no name", file(sig, header([]byte("\x00"), item{1000, 6, 0, 1}))},
		{"no architecture", "has no architecture", file(sig, header(data, names[:3]...))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readBytes(tt.file)
			if _, ok := errors.AsType[*FormatError](err); !ok || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want a FormatError with %q", err, tt.want)
			}
		})
	}
}

// What a file claims must not cost more than what it has.
func TestClaimsAllocateNothing(t *testing.T) {
	b := sound()
	start := leadSize + 16 + 16 + 4 + 4
	binary.BigEndian.PutUint32(b[start+12:], maxData)
	// The file is said to be as long as it claims, and ends early.
	allocated := testing.Benchmark(func(t *testing.B) {
		for t.Loop() {
			var r Reader
			if _, err := r.readHead(bytes.NewReader(b), int64(len(b))); err == nil {
				t.Fatal("accepted")
			}
		}
	}).AllocedBytesPerOp()
	if allocated > 256<<10 {
		t.Errorf("%d bytes for a file of %d", allocated, len(b))
	}
}

func TestAFileThatShrinksWhileItIsRead(t *testing.T) {
	b := sound()
	for _, n := range []int{len(b) - 1, leadSize + 20, 10} {
		var r Reader
		if _, err := r.read(bytes.NewReader(b[:n]), int64(len(b)), true); !errors.Is(err, ErrChanged) {
			t.Errorf("%d of %d bytes: %v, want ErrChanged", n, len(b), err)
		}
	}
}

func TestHeadAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.rpm")
	if err := os.WriteFile(path, sound(), 0o644); err != nil {
		t.Fatal(err)
	}
	r := Reader{Hash: func() hash.Hash { return sha512.New() }}
	whole, err := r.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(sound())
	if !bytes.Equal(whole.Sum, sum[:]) {
		t.Errorf("sha512 %x, want %x", whole.Sum, sum)
	}
	receipt := whole.Receipt
	head, err := r.ReadHead(path)
	if err != nil {
		t.Fatal(err)
	}
	receipt.SHA256, receipt.XXH3 = Digest{}, XXH3{}
	if head.Receipt != receipt || head.Sum != nil {
		t.Errorf("%+v, want %+v", head.Receipt, receipt)
	}
	if _, err := r.Read(filepath.Dir(path)); err == nil {
		t.Error("a directory: no error")
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if StampOf(info) != receipt.Stamp || receipt.Inode == 0 || receipt.CTime == 0 {
		t.Errorf("stamp %+v, receipt %+v", StampOf(info), receipt)
	}
}

func TestValues(t *testing.T) {
	data := []byte("\x01\x02\x03\x04\x05\x06\x07\x08a\x00bc\x00\x00bin")
	h, err := ParseHeader(header(data,
		item{1, 5, 0, 1}, item{2, 8, 8, 3}, item{3, 7, 14, 3}))
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Get(1).Uint(0); got != 0x0102030405060708 {
		t.Errorf("number %x", got)
	}
	if h.Get(1).Uint(1) != 0 || h.Get(1).Uint(-1) != 0 || h.Get(1).First() != nil || h.Get(1).Bytes() != nil {
		t.Error("a number has more than itself")
	}
	all := h.Get(2).Strings()
	for _, want := range []string{"a", "bc", ""} {
		if got, ok := all.Next(); !ok || string(got) != want {
			t.Errorf("%q, %v, want %q", got, ok, want)
		}
	}
	if s, ok := all.Next(); ok {
		t.Errorf("one more: %q", s)
	}
	if got := h.Get(3).Bytes(); string(got) != "bin" || h.Get(3).Len() != 3 {
		t.Errorf("bytes %q", got)
	}
	if v := h.Get(4); v.Len() != 0 || v.Uint(0) != 0 || v.First() != nil || v.IsString() || h.Has(4) {
		t.Errorf("what is not there: %+v", v)
	}
}

func TestTheLaterOfTwoValuesHolds(t *testing.T) {
	h, err := ParseHeader(header([]byte("old\x00new\x00"), item{1000, 6, 0, 1}, item{1000, 6, 4, 1}))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(h.Get(TagName).First()); got != "new" {
		t.Errorf("%q, want new", got)
	}
}

func TestReceiptsThatAreNone(t *testing.T) {
	const digest = `"0000000000000000000000000000000000000000000000000000000000000000"`
	good := `{"path":"a","size":1,"mtime":2,"ctime":3,"inode":4,"sha256":` + digest + `,"xxh3":"00000000000000000000000000000000","header":` + digest + `}`
	if got, err := ReadReceipts(strings.NewReader(good + "\n")); err != nil || len(got) != 1 || got[0].Inode != 4 {
		t.Fatalf("%v, %v", got, err)
	}
	for name, text := range map[string]string{
		"no JSON":         "x",
		"unknown field":   `{"path":"a","md5":"x"}`,
		"no path":         `{"size":1}`,
		"a short digest":  `{"path":"a","sha256":"00"}`,
		"no hexadecimals": strings.Replace(good, "00", "zz", 1),
		"a line too long": `{"path":"` + strings.Repeat("a", maxReceipt) + `"}`,
	} {
		if _, err := ReadReceipts(strings.NewReader(good + "\n" + text + "\n")); err == nil || !strings.Contains(err.Error(), "receipt 2") {
			t.Errorf("%s: %v, want an error that names the second", name, err)
		}
	}
}

// FuzzHeader reads lead, signatures and header of anything. What is accepted must
// be readable to the last element.
func FuzzHeader(f *testing.F) {
	f.Add(sound())
	p, err := rpmpack.NewRPM(rpmpack.RPMMetaData{Name: "fuzz", Version: "1", Release: "1", Arch: "noarch"})
	if err != nil {
		f.Fatal(err)
	}
	p.AddFile(rpmpack.RPMFile{Name: "/etc/fuzz", Body: []byte("x"), Mode: 0o100644})
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readBytes(b)
		if err != nil {
			return
		}
		if p.Start < leadSize || p.End <= p.Start || p.End > int64(len(b)) {
			t.Fatalf("the header is from %d to %d of %d bytes", p.Start, p.End, len(b))
		}
		for _, h := range []*Header{p.Signature, p.Header} {
			for i := range len(h.index) / entrySize {
				v := h.Get(h.entry(i).tag)
				n := 0
				for all := v.Strings(); ; n++ {
					if _, ok := all.Next(); !ok {
						break
					}
				}
				if v.IsString() && n != v.Len() {
					t.Fatalf("%d strings of %d", n, v.Len())
				}
				if v.Len() < 1<<20 {
					for i := range v.Len() {
						v.Uint(i)
					}
				}
				v.Bytes()
			}
		}
		again, err := ParseHeader(b[p.Start:p.End])
		if err != nil || len(again.index) != len(p.Header.index) {
			t.Fatalf("the same header alone: %v", err)
		}
	})
}

func BenchmarkReadHead(b *testing.B) {
	p, err := rpmpack.NewRPM(rpmpack.RPMMetaData{Name: "bench", Version: "1", Release: "1", Arch: "noarch"})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 60 {
		p.AddFile(rpmpack.RPMFile{Name: "/usr/share/bench/" + strings.Repeat("x", i%30) + string(rune('a'+i%26)), Mode: 0o100644})
	}
	var file bytes.Buffer
	if err := p.Write(&file); err != nil {
		b.Fatal(err)
	}
	var r Reader
	b.Run("files=60", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.read(bytes.NewReader(file.Bytes()), int64(file.Len()), false); err != nil {
				b.Fatal(err)
			}
		}
	})
}
