package checker

import (
	"crypto/sha256"
	"crypto/sha512"
	"testing"
	"time"

	"meridian/builder/repodata"
)

func TestCompareRevisions(t *testing.T) {
	for _, tt := range []struct {
		name  string
		a     string
		aTime int64
		b     string
		bTime int64
		want  int
	}{
		{"a higher number is later", "1700000001", 5, "1700000000", 5, 1},
		{"numbers are compared as numbers", "10", 5, "9", 5, 1},
		{"zeros in front count nothing", "0010", 5, "10", 5, 0},
		{"a number decides whatever the timestamps say", "8", 900, "9", 5, -1},
		{"numbers may be longer than any integer", "99999999999999999999999", 5, "99999999999999999999998", 9, 1},
		{"the same number tells nothing", "7", 9, "7", 5, 0},
		{"zero is a number", "0", 9, "1", 5, -1},
		{"of texts the timestamps decide", "9.8", 9, "9.10", 5, 1},
		{"the same text may follow itself", "9.8", 9, "9.8", 5, 1},
		{"the same text at the same time tells nothing", "9.8", 5, "9.8", 5, 0},
		{"a text after a number", "spring", 9, "1700000000", 5, 1},
		{"no revision is a text", "", 5, "1700000000", 9, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := compareRevisions(tt.a, tt.aTime, tt.b, tt.bTime)
			if got != tt.want {
				t.Errorf("compareRevisions(%q, %d, %q, %d) = %d, want %d", tt.a, tt.aTime, tt.b, tt.bTime, got, tt.want)
			}
			if back := compareRevisions(tt.b, tt.bTime, tt.a, tt.aTime); back != -got {
				t.Errorf("the other way round it is %d, want %d", back, -got)
			}
		})
	}
}

func TestReadGeneration(t *testing.T) {
	sum := repodata.Checksum{Type: "md5", Value: "d41d8cd98f00b204e9800998ecf8427e"}
	m := &repodata.Repomd{Revision: "17", Data: []repodata.Data{
		{Type: "primary", Checksum: sum, Location: "repodata/primary.xml", Timestamp: 40, Size: 1},
		{Type: "other", Checksum: sum, Location: "repodata/other.xml", Timestamp: 50, Size: 1},
		{Type: "group", Checksum: sum, Location: "repodata/group.xml", Size: 1},
	}}
	body, seen := m.Marshal(), time.Unix(60, 0)
	g, got, err := readGeneration(body, seen)
	if err != nil {
		t.Fatal(err)
	}
	if g.Revision != "17" || g.Timestamp != 50 || g.Size != int64(len(body)) || !g.FirstSeen.Equal(seen) || g.Expired ||
		g.SHA256 != sha256.Sum256(body) || g.SHA512 != sha512.Sum512(body) {
		t.Errorf("read %+v", g)
	}
	if len(got.Data) != 3 {
		t.Errorf("the parsed file has %d entries, want 3", len(got.Data))
	}
	if _, _, err := readGeneration([]byte("<html>parked</html>"), seen); err == nil {
		t.Error("a web page was read as repomd.xml")
	}
}
