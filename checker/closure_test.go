package checker

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"meridian/builder/repodata"
	"meridian/checker/state"
)

// primaryList is a list of packages as createrepo_c writes them.
func primaryList(packages ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="%d">`, len(packages))
	for _, p := range packages {
		b.WriteString(p)
	}
	b.WriteString("</metadata>\n")
	return b.Bytes()
}

func listed(location string, size int) string {
	return fmt.Sprintf(`
<package type="rpm">
  <name>hello</name>
  <version epoch="0" ver="1" rel="1"/>
  <checksum type="sha256" pkgid="YES">%064x</checksum>
  <time file="1" build="1"/>
  <size package="%d" installed="3" archive="4"/>
  <location href="%s"/>
  <format><rpm:license>GPL &amp; others</rpm:license><file>/usr/bin/hello</file></format>
</package>`, size, size, location)
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// primaryData is the entry of repomd.xml for a compressed list.
func primaryData(location string, packed []byte) *repodata.Data {
	return &repodata.Data{
		Type: "primary", Location: location, Size: int64(len(packed)), OpenSize: -1,
		Checksum: repodata.Checksum{Type: "sha256", Value: hexSum(packed)},
	}
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func TestSampleOfPackages(t *testing.T) {
	var all []string
	for i := range 20 {
		all = append(all, listed(fmt.Sprintf("Packages/p%02d.rpm", i), i))
	}
	list := primaryList(all...)
	var zst bytes.Buffer
	w, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(list)
	w.Close()

	for name, packed := range map[string][]byte{
		"repodata/primary.xml.gz":  gzipped(t, list),
		"repodata/primary.xml.zst": zst.Bytes(),
		"repodata/primary.xml":     list,
	} {
		drawn := map[string]int{}
		rnd := rand.New(rand.NewPCG(1, 2))
		const rounds = 50
		for range rounds {
			sample, err := SamplePackages(bytes.NewReader(packed), mirrorKey, primaryData(name, packed), 4, rnd)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(sample) != 4 {
				t.Fatalf("%s: a sample of %d, want 4", name, len(sample))
			}
			for _, f := range sample {
				drawn[f.Path]++
				if want := fmt.Sprintf("Packages/p%02d.rpm", f.Size); f.Path != want || f.Key != mirrorKey || f.Checksum != (repodata.Checksum{Type: "sha256", Value: fmt.Sprintf("%064x", f.Size)}) {
					t.Fatalf("%s: %+v, want %s", name, f, want)
				}
			}
		}
		// Each is drawn in a fifth of the rounds; with this seed none is far from it.
		for path, n := range drawn {
			if n < rounds/5/3 || n > rounds/5*2 {
				t.Errorf("%s: %s was drawn %d times of %d", name, path, n, rounds)
			}
		}
		if len(drawn) != len(all) {
			t.Errorf("%s: %d packages were ever drawn, of %d", name, len(drawn), len(all))
		}
	}
}

func TestSampleIsRefused(t *testing.T) {
	good := primaryList(listed("a.rpm", 1))
	packed := gzipped(t, good)
	for _, tt := range []struct {
		name, location string
		list           []byte
		data           *repodata.Data
		err            string
	}{
		{name: "another list than repomd.xml names", list: gzipped(t, primaryList(listed("b.rpm", 1))), data: primaryData("p.xml.gz", packed), err: "repomd.xml says"},
		{name: "a list that is cut off", list: packed[:len(packed)-12], data: primaryData("p.xml.gz", packed), err: "repomd.xml says"},
		{name: "a list with something behind it", list: append(slices.Clone(packed), 'x'), data: primaryData("p.xml.gz", packed), err: "repomd.xml says"},
		{name: "what is no gzip, and not what repomd.xml names", list: []byte("<html>"), data: primaryData("p.xml.gz", packed), err: "repomd.xml says"},
		{name: "what is no gzip, and what repomd.xml names", list: []byte("<html><html>"), data: primaryData("p.xml.gz", []byte("<html><html>")), err: "gzip"},
		{name: "no XML", list: gzipped(t, []byte("<html><p>")), data: primaryData("p.xml.gz", gzipped(t, []byte("<html><p>"))), err: "unexpected EOF"},
		{name: "a way to compress that is not known", list: packed, data: primaryData("p.xml.bz2", packed), err: "gz or zst"},
		{name: "a checksum that proves nothing", list: packed, data: &repodata.Data{Location: "p.xml.gz", Checksum: repodata.Checksum{Type: "md5", Value: "00"}}, err: "proves nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sample, err := SamplePackages(bytes.NewReader(tt.list), mirrorKey, tt.data, 10, rand.New(rand.NewPCG(1, 2)))
			if err == nil || !strings.Contains(err.Error(), tt.err) || sample != nil {
				t.Errorf("got %v, %v; want an error with %q", sample, err, tt.err)
			}
		})
	}
	t.Run("one text without end", func(t *testing.T) {
		endless := func() io.Reader {
			return io.MultiReader(strings.NewReader("<metadata><package><name>"), &repeated{text: strings.Repeat("x", 4096), n: maxToken/4096 + 100})
		}
		sum := sha256.New() // it is what was meant, or that would be said instead
		if _, err := io.Copy(sum, endless()); err != nil {
			t.Fatal(err)
		}
		d := &repodata.Data{Location: "p.xml", Size: -1, Checksum: repodata.Checksum{Type: "sha256", Value: hex.EncodeToString(sum.Sum(nil))}}
		if _, err := SamplePackages(endless(), mirrorKey, d, 1, rand.New(rand.NewPCG(1, 2))); err == nil || !strings.Contains(err.Error(), "a text or tag of more than") {
			t.Errorf("error %v", err)
		}
	})
}

// repeated is text again and again, n times.
type repeated struct {
	text string
	n    int
	rest string
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.rest == "" {
		if r.n == 0 {
			return 0, io.EOF
		}
		r.n--
		r.rest = r.text
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func TestSamplePassesOverWhatIsElsewhere(t *testing.T) {
	packages := []string{listed("Packages/good.rpm", 7)}
	for _, location := range []string{"../a.rpm", "/etc/passwd", "a/../../b.rpm", "", "a.rpm?b", "a.rpm#b", "a%2e.rpm", `a\b.rpm`, "a&#10;b.rpm", "a//b.rpm", "a\u202eb.rpm"} {
		packages = append(packages, listed(location, 1))
	}
	packages = append(packages, strings.Replace(listed("elsewhere.rpm", 1), "<location ", `<location xml:base="http://other.example.org/" `, 1))
	packed := gzipped(t, primaryList(packages...))
	sample, err := SamplePackages(bytes.NewReader(packed), mirrorKey, primaryData("p.xml.gz", packed), 100, rand.New(rand.NewPCG(1, 2)))
	if err != nil || len(sample) != 1 || sample[0].Path != "Packages/good.rpm" {
		t.Errorf("got %+v, %v; want the one good package", sample, err)
	}
}

func TestClosureFindsWrongFiles(t *testing.T) {
	small, large := bytes.Repeat([]byte("small "), 100), bytes.Repeat([]byte("large "), wholeFile/6+1000)
	other := bytes.Clone(small)
	other[300] ^= 1
	otherLarge := bytes.Clone(large)
	otherLarge[1005] ^= 1
	const dir = "alma/9.8/BaseOS/x86_64/os/"
	plan := func(path string, data []byte) FilePlan {
		return FilePlan{Key: mirrorKey, Path: path, Size: int64(len(data)), Checksum: repodata.Checksum{Type: "sha256", Value: hexSum(data)}}
	}
	part := func(f FilePlan) FilePlan {
		f.Offset, f.Part = 1000, large[1000:1100]
		return f
	}
	unknown := plan("Packages/a.rpm", small)
	unknown.Checksum.Type = "md5"

	for _, tt := range []struct {
		name     string
		has      []byte // nil: nothing
		f        FilePlan
		noRanges bool

		outcome  Outcome
		wrong    string // part of it
		content  bool
		requests int
	}{
		{name: "a small package that is right", has: small, f: plan("a.rpm", small), outcome: Served, content: true, requests: 1},
		{name: "a small package with other bytes", has: other, f: plan("a.rpm", small), outcome: Served, content: true, wrong: "its sha256 is " + hexSum(other), requests: 1},
		{name: "a small package that is short", has: small[:500], f: plan("a.rpm", small), outcome: Served, wrong: "it is 500 bytes long; 600 are right", requests: 1},
		{name: "a small package that is long", has: append(small[:600:600], "more"...), f: plan("a.rpm", small), outcome: Served, wrong: "it is longer than 600 bytes", requests: 1},
		{name: "a package that is missing", f: plan("a.rpm", small), outcome: Missing, requests: 1},
		{name: "a package whose checksum proves nothing", has: other, f: unknown, outcome: Served, requests: 1},
		{name: "a large package by its size", has: otherLarge, f: plan("b.rpm", large), outcome: Served, requests: 1},
		{name: "a large package that is short", has: large[1:], f: part(plan("b.rpm", large)), outcome: Served, wrong: "bytes long", requests: 2},
		{name: "a large package by some of its bytes", has: large, f: part(plan("b.rpm", large)), outcome: Served, content: true, requests: 2},
		{name: "a large package with other bytes", has: otherLarge, f: part(plan("b.rpm", large)), outcome: Served, content: true, wrong: "bytes 1000 to 1099 are not those of the origin", requests: 2},
		{name: "a large package where there are no ranges", has: otherLarge, f: part(plan("b.rpm", large)), noRanges: true, outcome: Served, requests: 2},
		{name: "large metadata is read whole", has: otherLarge, f: MetadataPlan(mirrorKey, primaryData("b.rpm", large)), outcome: Served, content: true, wrong: "repodata says", requests: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			requests := 0
			p, m := probeOf(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests++
				if tt.has == nil || !strings.HasPrefix(r.URL.Path, "/"+dir) {
					http.NotFound(w, r)
					return
				}
				if tt.noRanges {
					r.Header.Del("Range")
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(tt.has))
			}))
			o := p.Visit(t.Context(), m, Plan{Network: probeNetwork(t), Closure: []FilePlan{tt.f}})
			if len(o.Files) != 1 {
				t.Fatalf("%d files were seen", len(o.Files))
			}
			f := o.Files[0]
			if f.Outcome != tt.outcome || f.Content != tt.content || !strings.Contains(f.Wrong, tt.wrong) || (f.Wrong == "") != (tt.wrong == "") || f.Key != mirrorKey || f.Path != tt.f.Path {
				t.Errorf("seen as %+v", f)
			}
			if fine := f.Outcome == Served && f.Wrong == ""; (f.Evidence == nil) != fine {
				t.Errorf("evidence %+v", f.Evidence)
			}
			if requests != tt.requests || o.Requests != tt.requests {
				t.Errorf("%d requests, %d counted; want %d", requests, o.Requests, tt.requests)
			}
		})
	}
}

func TestImagesOfAMirror(t *testing.T) {
	key := state.Key{Version: "9.8", Repo: "isos", Arch: "x86_64"}
	const dir = "alma/9.8/isos/x86_64/"
	sums := []byte("# boot.iso: 4 bytes\nSHA256 (boot.iso) = " + hexSum([]byte("boot")) + "\n# dvd.iso: 3 bytes\nSHA256 (dvd.iso) = " + hexSum([]byte("dvd")) + "\n")
	images, err := readChecksums(sums)
	if err != nil {
		t.Fatal(err)
	}
	whole := map[string][]byte{dir + "CHECKSUM": sums, dir + "boot.iso": []byte("boot"), dir + "dvd.iso": []byte("dvd")}
	without := func(name string, body []byte) map[string][]byte {
		files := map[string][]byte{}
		for k, v := range whole {
			if k != dir+name {
				files[k] = v
			} else if body != nil {
				files[k] = body
			}
		}
		return files
	}
	for _, tt := range []struct {
		name    string
		files   map[string][]byte
		known   []repodata.Data
		outcome Outcome
		asked   int
		wrong   []string
	}{
		{"the whole set", whole, images, Served, 2, nil},
		{"the whole set, by the mirror's own list", whole, nil, Served, 2, nil},
		{"an image is missing", without("dvd.iso", nil), images, Served, 2, []string{"dvd.iso: "}},
		{"an image is short", without("boot.iso", []byte("bo")), nil, Served, 2, []string{"boot.iso: it is 2 bytes long; 4 are right"}},
		{"there are no images", nil, images, Missing, 0, nil},
		{"a web page in place of CHECKSUM", without("CHECKSUM", []byte("<html>")), images, Garbage, 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, m := probeOf(t, &tree{files: tt.files})
			o := p.Visit(t.Context(), m, Plan{Network: probeNetwork(t), ISOs: []KeyPlan{{Key: key, Newest: sha256.Sum256(sums), Files: tt.known}}})
			seen := o.Keys[key]
			var wrong []string
			for _, f := range seen.FilesWrong {
				wrong = append(wrong, f.Path+": "+f.Wrong)
			}
			if seen.Outcome != tt.outcome || seen.FilesAsked != tt.asked || !slices.Equal(wrong, tt.wrong) || (seen.Evidence == nil) != (tt.outcome == Served) {
				t.Errorf("seen as %+v, wrong %q", seen, wrong)
			}
		})
	}
}

func TestReadChecksums(t *testing.T) {
	sum := strings.Repeat("0a", 32)
	for _, tt := range []struct {
		name, text string
		want       string // NAME SIZE ALGORITHM of each
		err        string
	}{
		{"with tags and sizes", "# a.iso: 12 bytes\nSHA256 (a.iso) = " + sum + "\n", "a.iso 12 sha256", ""},
		{"sizes after the sums, CR LF", "SHA256 (a.iso) = " + sum + "\r\n# a.iso: 12 bytes\r\n", "a.iso 12 sha256", ""},
		{"of sha256sum", sum + "  a.iso\n" + sum + " *b.iso\n", "a.iso -1 sha256, b.iso -1 sha256", ""},
		{"signed", "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSHA256 (a.iso) = " + sum + "\n-----BEGIN PGP SIGNATURE-----\n\niQ\n", "a.iso -1 sha256", ""},
		{"longer sums", "SHA512 (a.iso) = " + sum + sum + "\n", "a.iso -1 sha512", ""},
		{"no files", "# nothing\n", "", "names no files"},
		{"a web page", "<html><title>404</title></html>", "", "names no files"},
		{"a path", "SHA256 (../a.iso) = " + sum + "\n", "", "no plain file name"},
		{"an option", "SHA256 (-rf) = " + sum + "\n", "", "no plain file name"},
		{"a short sum", "SHA256 (a.iso) = 0a\n", "", "no checksum of a kind"},
		{"an unknown algorithm", "SHA3 (a.iso) = " + sum + "\n", "", "no checksum of a kind"},
		{"too many", strings.Repeat("SHA256 (a.iso) = "+sum+"\n", maxImages+1), "", "more than"},
	} {
		files, err := readChecksums([]byte(tt.text))
		var got []string
		for _, f := range files {
			got = append(got, fmt.Sprintf("%s %d %s", f.Location, f.Size, f.Checksum.Type))
		}
		if strings.Join(got, ", ") != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %q, %v; want %q, %q", tt.name, got, err, tt.want, tt.err)
		}
	}
}
