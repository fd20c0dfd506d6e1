package checker

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"meridian/builder/repodata"
	"meridian/checker/state"
	"meridian/internal/fetch"
)

const (
	// checksumFile is to a set of ISO images what repomd.xml is to a repository.
	checksumFile = "CHECKSUM"

	// maxChecksums bounds it, in bytes, and maxImages what it may list.
	maxChecksums = 256 << 10
	maxImages    = 256
)

// images asks for the CHECKSUM of each set of images, and then for the size of
// each image.
func (v *visit) images() {
	var sets []KeyPlan
	for _, k := range v.plan.ISOs {
		if v.base(k.Key.Version) != "" {
			sets = append(sets, k)
		}
	}
	v.each(len(sets), func(i int) {
		k := &sets[i]
		base := v.base(k.Key.Version)
		if v.hopeless(base) {
			return
		}
		url := RepoURL(base, v.plan.Network, k.Key) + checksumFile
		s := v.document(fetch.Request{URL: url, MaxBytes: maxChecksums}, func(_ *sight, body []byte) error {
			images, err := readChecksums(body)
			v.mu.Lock()
			defer v.mu.Unlock()
			v.own[k.Key] = images
			return err
		})
		if s != nil {
			v.note(k, base, s)
		}
	})
	v.files(sets, func(k *KeyPlan, seen KeySeen) []repodata.Data {
		switch {
		case seen.Outcome != Served:
			return nil
		case k.Files == nil:
			return v.own[k.Key]
		}
		return k.Files
	})
}

var (
	sizeLine = regexp.MustCompile(`^# *(\S+): *([0-9]{1,15}) bytes$`)
	bsdLine  = regexp.MustCompile(`^(SHA[0-9]+) \((\S+)\) *= *([0-9a-fA-F]+)$`)
	gnuLine  = regexp.MustCompile(`^([0-9a-fA-F]{40,128}) [ *](\S+)$`)
	fileName = regexp.MustCompile(`^[A-Za-z0-9_+][A-Za-z0-9._+~-]*$`)
)

// hashOfLength are the algorithms by the length of their results in hexadecimal
// digits, for files that do not name them.
var hashOfLength = map[int]string{40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}

// readChecksums reads a CHECKSUM as distributions write them, by sha256sum(1) with
// or without --tag, signed or not, with the sizes of the files in comments. Files
// are in its order; one without a comment has the size -1.
func readChecksums(body []byte) ([]repodata.Data, error) {
	sizes := map[string]int64{}
	var files []repodata.Data
	for line := range bytes.Lines(body) {
		line = bytes.TrimSpace(line)
		var name, algorithm, sum string
		if m := sizeLine.FindSubmatch(line); m != nil {
			sizes[string(m[1])], _ = strconv.ParseInt(string(m[2]), 10, 64)
			continue
		} else if m := bsdLine.FindSubmatch(line); m != nil {
			algorithm, name, sum = string(bytes.ToLower(m[1])), string(m[2]), string(bytes.ToLower(m[3]))
		} else if m := gnuLine.FindSubmatch(line); m != nil {
			name, sum = string(m[2]), string(bytes.ToLower(m[1]))
			algorithm = hashOfLength[len(sum)]
		} else {
			continue
		}
		h := newHash(algorithm)
		if h == nil || len(sum) != hex.EncodedLen(h.Size()) {
			return nil, fmt.Errorf("%s: %q is no checksum of a kind that is known", checksumFile, escape(line, 100))
		}
		if !fileName.MatchString(name) {
			return nil, fmt.Errorf("%s: %q is no plain file name", checksumFile, escape([]byte(name), 100))
		}
		if len(files) == maxImages {
			return nil, fmt.Errorf("%s: has more than %d files", checksumFile, maxImages)
		}
		files = append(files, repodata.Data{
			Type: "iso", Location: name, Checksum: repodata.Checksum{Type: algorithm, Value: sum}, Size: -1, OpenSize: -1,
		})
	}
	for i := range files {
		if n, ok := sizes[files[i].Location]; ok {
			files[i].Size = n
		}
	}
	if len(files) == 0 {
		return nil, errors.New(checksumFile + ": names no files")
	}
	return files, nil
}

// readImageList reads a CHECKSUM as if it were a generation.
func readImageList(body []byte, seen time.Time) (state.Generation, error) {
	if _, err := readChecksums(body); err != nil {
		return state.Generation{}, err
	}
	return state.Generation{Size: int64(len(body)), SHA256: sha256.Sum256(body), SHA512: sha512.Sum512(body), FirstSeen: seen}, nil
}
