package checker

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/sha512"
	"strings"
	"time"

	"meridian/builder/repodata"
	"meridian/checker/state"
)

// readGeneration reads the bytes of a repomd.xml, whoever sent them. The
// generation was first seen at the time that is given.
func readGeneration(body []byte, seen time.Time) (state.Generation, *repodata.Repomd, error) {
	m, err := repodata.ReadRepomd(bytes.NewReader(body))
	if err != nil {
		return state.Generation{}, nil, err
	}
	return state.Generation{
		Revision:  m.Revision,
		Timestamp: newestTimestamp(m),
		Size:      int64(len(body)),
		SHA256:    sha256.Sum256(body),
		SHA512:    sha512.Sum512(body),
		FirstSeen: seen,
	}, m, nil
}

// newestTimestamp returns that of the newest metadata which m names, in seconds
// since 1970.
func newestTimestamp(m *repodata.Repomd) int64 {
	var newest int64
	for i := range m.Data {
		newest = max(newest, m.Data[i].Timestamp)
	}
	return newest
}

// compareRevisions tells which of two generations of one repository is the later
// one by what they say of themselves: positive if a is, negative if b is, 0 if
// that cannot be told. Each is given by its revision and by its newest timestamp.
//
// Revisions that are whole numbers, as nearly all are, decide alone. A text, such
// as "9.8" or a date, has no order that holds for everybody: where either is one,
// the timestamps decide, and generations with the same text may follow each
// other.
func compareRevisions(a string, aTime int64, b string, bTime int64) int {
	if isWholeNumber(a) && isWholeNumber(b) {
		a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
		// Of any length: a revision is a stranger's, and may exceed an integer.
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	}
	return cmp.Compare(aTime, bTime)
}

func isWholeNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
