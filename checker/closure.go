package checker

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"meridian/builder/repodata"
	"meridian/checker/state"
	"meridian/internal/fetch"
)

// A FilePlan asks for one file that repodata names.
type FilePlan struct {
	Key  state.Key
	Path string // relative to the repository
	Size int64  // bytes; negative if it is not known

	// Checksum of the whole file. A file of at most 2 MiB, or of MaxMetadata when
	// Metadata says that it is some, is read whole and compared with it. The zero
	// value is unknown.
	Checksum repodata.Checksum
	Metadata bool

	// Part is what the origin has of a larger file from Offset on: the mirror's
	// bytes are compared with it. Nil: the size has to do.
	Offset int64
	Part   []byte
}

const (
	// wholeFile bounds the packages that are read whole, in bytes. Most are
	// smaller.
	wholeFile = 2 << 20

	// MaxMetadata bounds the files of metadata that are read whole, in bytes.
	MaxMetadata = 24 << 20

	// maxPrimary bounds a list of packages when it is decompressed, in bytes. That
	// of a whole distribution has some 100 MB.
	maxPrimary = 1 << 30
)

// MetadataPlan returns the plan of a file that repomd.xml names.
func MetadataPlan(k state.Key, d *repodata.Data) FilePlan {
	return FilePlan{Key: k, Path: d.Location, Size: d.Size, Checksum: d.Checksum, Metadata: true}
}

// whole tells whether the file is to be read from its beginning to its end.
func (f *FilePlan) whole() bool {
	most := int64(wholeFile)
	if f.Metadata {
		most = MaxMetadata
	}
	return newHash(f.Checksum.Type) != nil && f.Size >= 0 && f.Size <= most
}

// closure compares files with what is known of them.
func (v *visit) closure(plans []FilePlan) {
	v.each(len(plans), func(i int) {
		f := &plans[i]
		base := v.base(f.Key.Version)
		if v.hopeless(base) {
			return
		}
		url := RepoURL(base, v.plan.Network, f.Key) + f.Path
		var seen *FileSeen
		if f.whole() {
			seen = v.wholeFile(url, f)
		} else {
			seen = v.size(url, f.Size)
			if seen != nil && seen.Outcome == Served && seen.Wrong == "" && len(f.Part) > 0 && v.take() {
				seen = v.part(url, f)
			}
		}
		if seen == nil {
			return
		}
		seen.Key, seen.Path = f.Key, f.Path
		v.mu.Lock()
		defer v.mu.Unlock()
		if seen.Outcome == Unreachable {
			v.trouble[base]++
		}
		v.o.Files = append(v.o.Files, *seen)
	})
}

// wholeFile reads a file and compares its size and hash.
func (v *visit) wholeFile(url string, f *FilePlan) *FileSeen {
	h := newHash(f.Checksum.Type)
	n := new(counter)
	// Room for a byte too many: it says that the file is longer.
	a := v.ask(fetch.Request{URL: url, To: io.MultiWriter(h, n), MaxBytes: f.Size + 1, Timeout: timeFor(f.Size)})
	if a == nil {
		return nil
	}
	seen := &FileSeen{Outcome: a.outcome}
	longer := a.resp.Status == http.StatusOK && errors.Is(a.err, fetch.ErrTooLarge)
	got := hex.EncodeToString(h.Sum(nil))
	switch {
	case longer || a.outcome == Served && n.n > f.Size:
		seen.Outcome, seen.Wrong = Served, fmt.Sprintf("it is longer than %d bytes, which are right", f.Size)
	case a.outcome != Served:
	case n.n < f.Size:
		seen.Wrong = fmt.Sprintf("it is %d bytes long; %d are right", n.n, f.Size)
	case got != f.Checksum.Value:
		seen.Content, seen.Wrong = true, fmt.Sprintf("its %s is %s; repodata says %s", f.Checksum.Type, got, f.Checksum.Value)
	default:
		seen.Content = true
		return seen
	}
	seen.Evidence = a.evidence(v.p.opts.Vantage, nil)
	return seen
}

// timeFor is how long a file of some bytes may take.
func timeFor(bytes int64) time.Duration {
	const slowest = 64 << 10 // bytes a second
	return probeTimeout + time.Duration(max(0, bytes)/slowest)*time.Second
}

// sample compares files of some repositories, chosen at random, by what the
// mirror itself says of them.
func (v *visit) sample() {
	if v.plan.Sample == 0 {
		return
	}
	rnd := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	var served []state.Key
	for _, k := range v.plan.Keys {
		if len(v.own[k.Key]) > 0 {
			served = append(served, k.Key)
		}
	}
	rnd.Shuffle(len(served), func(i, j int) { served[i], served[j] = served[j], served[i] })
	for _, k := range served[:min(v.plan.Sample, len(served))] {
		files := v.own[k]
		primary := slices.IndexFunc(files, func(d repodata.Data) bool { return d.Type == "primary" })
		if primary < 0 {
			continue
		}
		plans := v.samplePrimary(k, &files[primary], rnd)
		if d := &files[rnd.IntN(len(files))]; d.Type != "primary" {
			plans = append(plans, MetadataPlan(k, d))
		}
		v.closure(plans)
	}
}

// samplePrimary reads the list of packages of a repository, which is one file that
// is compared, and returns packages at random that are more.
func (v *visit) samplePrimary(k state.Key, d *repodata.Data, rnd *rand.Rand) []FilePlan {
	if d.Size > MaxMetadata || newHash(d.Checksum.Type) == nil || !v.take() {
		return nil
	}
	type result struct {
		sample []FilePlan
		err    error
	}
	from, to := io.Pipe()
	done := make(chan result)
	go func() {
		sample, err := samplePackages(from, k, d, 8, rnd, nil)
		from.CloseWithError(err)
		done <- result{sample, err}
	}()
	a := v.ask(fetch.Request{
		URL: RepoURL(v.base(k.Version), v.plan.Network, k) + d.Location,
		To:  to, MaxBytes: MaxMetadata, Timeout: timeFor(d.Size),
	})
	if a == nil {
		to.CloseWithError(context.Canceled)
		<-done
		return nil
	}
	to.CloseWithError(a.err)
	r := <-done
	if errors.Is(r.err, errPacked) {
		return []FilePlan{MetadataPlan(k, d)}
	}
	seen := FileSeen{Key: k, Path: d.Location, Outcome: a.outcome, Content: true}
	if r.err != nil && (a.outcome == Served || errors.Is(a.err, r.err)) {
		seen.Outcome, seen.Wrong = Served, r.err.Error()
		seen.Evidence = a.evidence(v.p.opts.Vantage, r.err)
	} else if a.outcome != Served {
		seen.Evidence = a.evidence(v.p.opts.Vantage, nil)
	}
	v.o.Files = append(v.o.Files, seen)
	// Those that can be read whole say more.
	slices.SortStableFunc(r.sample, func(a, b FilePlan) int {
		switch {
		case a.whole() == b.whole():
			return 0
		case a.whole():
			return -1
		}
		return 1
	})
	return r.sample[:min(2, len(r.sample))]
}

// part compares some bytes in the middle of a file, whose size is right.
func (v *visit) part(url string, f *FilePlan) *FileSeen {
	n := int64(len(f.Part))
	header := noCache.Clone()
	header.Set("Range", fmt.Sprintf("bytes=%d-%d", f.Offset, f.Offset+n-1))
	a := v.ask(fetch.Request{URL: url, Header: header, MaxBytes: n})
	if a == nil {
		return nil
	}
	seen := &FileSeen{Outcome: a.outcome}
	if a.outcome == Served && a.resp.Status != http.StatusPartialContent {
		return seen // no ranges are to be had here
	}
	if a.outcome == Served && int64(len(a.resp.Body)) == n {
		seen.Content = true
		if bytes.Equal(a.resp.Body, f.Part) {
			return seen
		}
		seen.Wrong = fmt.Sprintf("bytes %d to %d are not those of the origin", f.Offset, f.Offset+n-1)
	} else if a.outcome == Served {
		seen.Outcome = Garbage
	}
	seen.Evidence = a.evidence(v.p.opts.Vantage, nil)
	return seen
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// newHash returns nil for an algorithm whose results prove nothing, or that is
// not known.
func newHash(name string) hash.Hash {
	switch name {
	case "sha", "sha1":
		return sha1.New()
	case "sha224":
		return sha256.New224()
	case "sha256":
		return sha256.New()
	case "sha384":
		return sha512.New384()
	case "sha512":
		return sha512.New()
	}
	return nil
}

// SamplePackages reads a list of packages, primary as d of a generation of k
// names it, and returns n of them at random, each as probable as the other. The
// list is compared with the checksum of d: when it is another one, or does not
// end, there is no sample. Packages that are not below the repository are passed
// over.
func SamplePackages(primary io.Reader, k state.Key, d *repodata.Data, n int, rnd *rand.Rand) ([]FilePlan, error) {
	sample, err := samplePackages(primary, k, d, n, rnd, nil)
	if err != nil {
		return nil, fmt.Errorf("%s of %v: %w", d.Location, k, err)
	}
	return sample, nil
}

// samplePackages also calls each, unless it is nil, for every package.
func samplePackages(primary io.Reader, k state.Key, d *repodata.Data, n int, rnd *rand.Rand, each func(*FilePlan)) ([]FilePlan, error) {
	sum := newHash(d.Checksum.Type)
	if sum == nil {
		return nil, fmt.Errorf("its checksum is %s, which proves nothing", d.Checksum.Type)
	}
	most := int64(maxPrimary)
	if d.Size >= 0 {
		most = d.Size
	}
	raw := io.TeeReader(io.LimitReader(primary, most+1), sum)
	// What is not the list need not be readable as one: that says less.
	other := func() error {
		if _, err := io.Copy(io.Discard, raw); err != nil {
			return err
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != d.Checksum.Value {
			return fmt.Errorf("its %s is %s; repomd.xml says %s", d.Checksum.Type, got, d.Checksum.Value)
		}
		return nil
	}
	open, err := decompress(raw, d.Location)
	if errors.Is(err, errPacked) {
		return nil, err
	} else if err != nil {
		return nil, cmp.Or(other(), err)
	}
	defer open.Close()
	var sample []FilePlan
	total := 0
	err = readPackages(io.LimitReader(open, maxPrimary), func(f FilePlan) {
		f.Key = k
		if each != nil {
			each(&f)
		}
		total++
		if len(sample) < n {
			sample = append(sample, f)
		} else if i := rnd.IntN(total); i < n {
			sample[i] = f
		}
	})
	if err := cmp.Or(other(), err); err != nil {
		return nil, err
	}
	return sample, nil
}

// decompress returns the content of a file, by its name.
func decompress(r io.Reader, name string) (io.ReadCloser, error) {
	switch path.Ext(name) {
	case ".gz":
		return gzip.NewReader(bufio.NewReader(r))
	case ".zst":
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case ".xml":
		return io.NopCloser(r), nil
	}
	return nil, fmt.Errorf("%q: %w", path.Ext(name), errPacked)
}

// errPacked is about a list that nobody here can read; clients may.
var errPacked = errors.New("it is not compressed in a way that can be read here: gz or zst")

// readPackages calls f for each package of a list that is below the repository.
// It keeps nothing else of the list.
func readPackages(r io.Reader, f func(FilePlan)) error {
	guard := &tokenGuard{Reader: bufio.NewReaderSize(r, 64<<10)}
	dec := xml.NewDecoder(guard)
	var (
		at      FilePlan
		base    bool
		sumType string
		text    *strings.Builder // of the checksum, while inside of it
		depth   int
	)
	for {
		guard.read = 0
		tok, err := dec.RawToken()
		if err == io.EOF && depth == 0 {
			return nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			depth++
			if depth == 2 {
				at, base, sumType = FilePlan{Size: -1}, false, ""
			}
			if depth != 3 {
				break
			}
			switch tok.Name.Local {
			case "checksum":
				if sumType = strings.ToLower(attr(tok, "type")); attr(tok, "pkgid") == "YES" {
					text = new(strings.Builder)
				}
			case "size":
				if n, err := strconv.ParseInt(attr(tok, "package"), 10, 64); err == nil && n >= 0 {
					at.Size = n
				}
			case "location":
				at.Path, base = attr(tok, "href"), attr(tok, "base") != ""
			}
		case xml.CharData:
			if text != nil && text.Len() < 256 {
				text.Write(tok)
			}
		case xml.EndElement:
			if text != nil {
				at.Checksum = repodata.Checksum{Type: sumType, Value: strings.ToLower(strings.TrimSpace(text.String()))}
				text = nil
			}
			if depth == 2 && tok.Name.Local == "package" && !base && below(at.Path) {
				f(at)
			}
			depth--
		}
	}
}

// A tokenGuard bounds what a decoder may read for one token, because it keeps all
// of that.
type tokenGuard struct {
	*bufio.Reader
	read int
}

// maxToken is more than any description of a package has, in bytes.
const maxToken = 4 << 20

// ReadByte is all that the decoder reads with.
func (g *tokenGuard) ReadByte() (byte, error) {
	if g.read++; g.read > maxToken {
		return 0, fmt.Errorf("a text or tag of more than %d bytes", maxToken)
	}
	return g.Reader.ReadByte()
}

func attr(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// below tells whether a location stays inside of the repository, and is a path
// and nothing else of a URL.
func below(p string) bool {
	return p != "" && len(p) <= 1024 && !path.IsAbs(p) && path.Clean(p) == p && p != ".." && !strings.HasPrefix(p, "../") &&
		escape([]byte(p), 2048) == p && !strings.ContainsAny(p, `\?#%`)
}
