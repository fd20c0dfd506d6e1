package rpm

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"time"
)

// A Stamp is what the file system says of a file without reading it. Whoever
// changes a file changes its stamp: the change time cannot be set by a program,
// unlike the modification time.
type Stamp struct {
	Size  int64  `json:"size"`  // bytes
	MTime int64  `json:"mtime"` // nanoseconds since 1970
	CTime int64  `json:"ctime"` // nanoseconds since 1970
	Inode uint64 `json:"inode"`
}

// StampOf returns the stamp of what info describes.
func StampOf(info fs.FileInfo) Stamp {
	s := Stamp{Size: info.Size(), MTime: info.ModTime().UnixNano()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.CTime = time.Unix(sys.Ctim.Unix()).UnixNano()
		s.Inode = sys.Ino
	}
	return s
}

// Digest is a SHA-256, in JSON as hexadecimal digits.
type Digest [32]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText is for encoding/json.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText refuses what is not exactly one digest.
func (d *Digest) UnmarshalText(b []byte) error { return decodeHex(d[:], b) }

// XXH3 is the 128-bit hash of that name: fast, and no protection from people.
type XXH3 [16]byte

func (x XXH3) String() string { return hex.EncodeToString(x[:]) }

// MarshalText is for encoding/json.
func (x XXH3) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, x[:]), nil }

// UnmarshalText refuses what is not exactly one hash.
func (x *XXH3) UnmarshalText(b []byte) error { return decodeHex(x[:], b) }

func decodeHex(dst, b []byte) error {
	if len(b) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("%d hexadecimal digits; want %d", len(b), hex.EncodedLen(len(dst)))
	}
	_, err := hex.Decode(dst, b)
	return err
}

// A Receipt says that somebody read a whole package, and what it was. It is
// handed from who builds to who signs, indexes and publishes, so that none of
// them has to read it again.
type Receipt struct {
	Path string `json:"path"`
	Stamp
	SHA256 Digest `json:"sha256"`

	// XXH3 is zero when nobody asked for it.
	XXH3 XXH3 `json:"xxh3"`

	// Header is the SHA-256 of everything before the payload: lead, signatures
	// and header. Two packages with the same are the same package, if their
	// payloads are what their headers say.
	Header Digest `json:"header"`
}

// maxReceipt bounds a line: a path has 4096 bytes at most, each up to six in JSON.
const maxReceipt = 64 << 10

// ReadReceipts reads what WriteReceipts wrote. The error names the line.
func ReadReceipts(r io.Reader) ([]Receipt, error) {
	var receipts []Receipt
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxReceipt)
	n := 0
	for lines.Scan() {
		n++
		dec := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		dec.DisallowUnknownFields()
		var one Receipt
		if err := dec.Decode(&one); err != nil {
			return nil, fmt.Errorf("rpm: receipt %d: %w", n, err)
		}
		if one.Path == "" {
			return nil, fmt.Errorf("rpm: receipt %d has no path", n)
		}
		receipts = append(receipts, one)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("rpm: receipt %d: %w", n+1, err)
	}
	return receipts, nil
}

// WriteReceipts writes receipts as JSON, one a line.
func WriteReceipts(w io.Writer, receipts []Receipt) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, one := range receipts {
		if err := enc.Encode(one); err != nil {
			return fmt.Errorf("rpm: receipt of %s: %w", one.Path, err)
		}
	}
	return nil
}
