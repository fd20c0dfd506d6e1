package mirrorlist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meridian/internal/fetch"
)

// words is the parser of the test feeds: one item a word, "bad" is none.
func words(data []byte) ([]string, error) {
	list := strings.Fields(string(data))
	if len(list) == 0 || slices.Contains(list, "bad") {
		return nil, errors.New("not words")
	}
	return list, nil
}

// wordFormat keeps them one a line.
var wordFormat = format[string]{
	parse: words,
	line:  func(b []byte, word string) []byte { return append(b, word...) },
	item:  func(line string) (string, error) { return line, nil },
}

// nWords returns a document of n items that differs with each tag.
func nWords(tag string, n int) string { return strings.Repeat(tag+" ", n) }

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFeedKeepsTheLastGoodCopy(t *testing.T) {
	source := filepath.Join(t.TempDir(), "list")
	f := newFeed("words", source, t.TempDir(), nil, wordFormat)
	const absent = "\x00"
	for _, step := range []struct {
		name    string
		content string
		force   bool
		changed bool
		items   int
		err     string
	}{
		{name: "no file yet", content: absent, err: "no such file"},
		{name: "a first document that is bad", content: "bad", err: "words: " + source + ": not words"},
		{name: "a first good document", content: nWords("a", 10), changed: true, items: 10},
		{name: "the same again", content: nWords("a", 10), items: 10},
		{name: "the file goes away", content: absent, items: 10, err: "no such file"},
		{name: "the file is back", content: nWords("a", 10), items: 10},
		{name: "a bad edit", content: "a bad b", items: 10, err: "not words"},
		{name: "an empty file", content: "", items: 10, err: "not words"},
		{name: "a bad edit is no matter of force", content: "bad", force: true, items: 10, err: "not words"},
		{name: "three of ten are gone", content: nWords("b", 7), changed: true, items: 7},
		{name: "ten again", content: nWords("a", 10), changed: true, items: 10},
		{name: "four of ten are too many", content: nWords("c", 6), items: 10, err: "shrank from 10 entries to 6"},
		{name: "three of ten, again", content: nWords("b", 7), changed: true, items: 7},
		{name: "three of seven are too many", content: nWords("c", 4), items: 7, err: "shrank from 7 entries to 4"},
		{name: "and stay too many", content: nWords("c", 4), items: 7, err: "reload with force"},
		{name: "unless somebody insists", content: nWords("c", 4), force: true, changed: true, items: 4},
		{name: "growth needs nobody", content: nWords("d", 4000), changed: true, items: 4000},
		{name: "other items, as many", content: nWords("e", 4000), changed: true, items: 4000},
	} {
		if step.content == absent {
			os.Remove(source)
		} else {
			writeFile(t, source, step.content)
		}
		began := time.Now()
		changed, err := f.load(t.Context(), step.force)
		st := f.status()
		if changed != step.changed || len(f.value()) != step.items || st.Items != step.items {
			t.Errorf("%s: changed %v, %d items (status says %d); want %v, %d", step.name, changed, len(f.value()), st.Items, step.changed, step.items)
		}
		if !errors.Is(st.Err, err) {
			t.Errorf("%s: load says %v, status %v", step.name, err, st.Err)
		}
		if confirmed := !st.LastGood.Before(began); confirmed != (step.err == "") {
			t.Errorf("%s: last good at %v, load began at %v", step.name, st.LastGood, began)
		}
		if step.err == "" && err != nil || step.err != "" && (err == nil || !strings.Contains(err.Error(), step.err)) {
			t.Errorf("%s: error %v, want %q", step.name, err, step.err)
		}
	}
}

func TestFeedAfterRestart(t *testing.T) {
	for _, tt := range []struct {
		name    string
		spoil   func(copy []byte) []byte
		content string // of the source after the restart; "" is gone
		items   int
		first   string
		err     string
	}{
		{name: "the source is away: the copy serves", items: 10, first: "a", err: "no such file"},
		{name: "the source is bad: the copy serves", content: "bad", items: 10, first: "a", err: "not words"},
		{name: "the source shrank meanwhile: the copy serves", content: "c c", items: 10, first: "a", err: "shrank from 10"},
		{name: "the source changed meanwhile", content: nWords("b", 9), items: 9, first: "b"},
		{
			name:  "a copy that was cut is not used",
			spoil: func(b []byte) []byte { return b[:len(b)-1] },
			err:   "it is not what was saved",
		},
		{
			name:  "an empty copy is not used",
			spoil: func([]byte) []byte { return nil },
			err:   "no header line",
		},
		{
			name:  "a copy that is something else is not used",
			spoil: func([]byte) []byte { return []byte("a a a\n") },
			err:   "header line: invalid character",
		},
		{
			name:  "a copy of another source is not used",
			spoil: func(b []byte) []byte { return []byte(strings.Replace(string(b), `"source":"`, `"source":"x`, 1)) },
			err:   "it is one of",
		},
		{
			name:    "a copy that cannot be used stands in nobody's way",
			spoil:   func(b []byte) []byte { return b[:10] },
			content: "c c", items: 2, first: "c",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			source, cache := filepath.Join(t.TempDir(), "list"), t.TempDir()
			writeFile(t, source, nWords("a", 10))
			f := newFeed("words of ../../mirror", source, cache, nil, wordFormat)
			if _, err := f.load(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if filepath.Dir(f.cacheFile) != cache {
				t.Fatalf("the copy is at %s, outside %s", f.cacheFile, cache)
			}
			if tt.spoil != nil {
				data, err := os.ReadFile(f.cacheFile)
				if err != nil {
					t.Fatal(err)
				}
				writeFile(t, f.cacheFile, string(tt.spoil(data)))
			}
			if tt.content == "" {
				os.Remove(source)
			} else {
				writeFile(t, source, tt.content)
			}

			f = newFeed(f.name, source, cache, nil, wordFormat)
			changed, err := f.load(t.Context(), false)
			wantError(t, err, tt.err)
			if len(f.value()) != tt.items || tt.items > 0 && f.value()[0] != tt.first {
				t.Errorf("items %q, want %d times %q", f.value(), tt.items, tt.first)
			}
			if changed != (tt.items > 0) {
				t.Errorf("changed is %v", changed)
			}
			if again := f.restore(); again != nil || len(f.value()) != tt.items {
				t.Errorf("restore after a load: %v, %d items", again, len(f.value()))
			}
		})
	}
}

func TestFeedRestoresWithoutItsSource(t *testing.T) {
	source, cache := filepath.Join(t.TempDir(), "list"), t.TempDir()
	f := newFeed("words", source, cache, nil, wordFormat)
	if err := f.restore(); err != nil || f.value() != nil {
		t.Errorf("nothing to restore: %v, %q", err, f.value())
	}
	writeFile(t, source, "a b")
	f.load(t.Context(), false)
	want := f.status()

	f = newFeed("words", source, cache, nil, wordFormat)
	if err := f.restore(); err != nil {
		t.Fatal(err)
	}
	if got := f.status(); got.Items != 2 || !got.LastGood.Equal(want.LastGood) || got.Err != nil {
		t.Errorf("status %+v, want %+v", got, want)
	}
	if changed, err := f.load(t.Context(), false); changed || err != nil {
		t.Errorf("the source holds what was restored, yet changed is %v, %v", changed, err)
	}
}

func TestFeedSavesItsCopyWhenThatIsPossibleAgain(t *testing.T) {
	url, asked := documentServer(t)
	cache := filepath.Join(t.TempDir(), "later")
	f := newFeed("words", url+"/list", cache, newFeedClient(true), wordFormat)
	changed, err := f.load(t.Context(), false)
	if !changed || len(f.value()) != 3 {
		t.Errorf("a list that cannot be saved is used all the same: changed %v, items %q", changed, f.value())
	}
	wantError(t, err, "copy of words")

	if err := os.Mkdir(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	if changed, err := f.load(t.Context(), false); changed || err != nil {
		t.Errorf("second load: changed %v, %v", changed, err)
	}
	if _, err := os.Stat(f.cacheFile); err != nil {
		t.Error(err)
	}
	f.load(t.Context(), false)
	if got := asked(); !slices.Equal(got, []string{"/list", "/list", "/list unless"}) {
		t.Errorf("requests %q", got)
	}
}

// documentServer serves /list with an ETag. It returns its URL, and what was
// asked of it.
func documentServer(t *testing.T) (url string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var log []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		line := r.URL.Path
		if r.Header.Get("If-None-Match") != "" {
			line += " unless"
		}
		log = append(log, line)
		switch r.URL.Path {
		case "/list":
			w.Header().Set("Etag", `"1"`)
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader("a b c"))
		case "/moved":
			http.Redirect(w, r, "/list", http.StatusFound)
		case "/partial":
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, "a b c")
		default:
			http.Error(w, "a page of words", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(log)
	}
}

func TestFeedOfURL(t *testing.T) {
	url, asked := documentServer(t)
	client := newFeedClient(true)
	t.Cleanup(client.CloseIdleConnections)
	cache := t.TempDir()
	for _, tt := range []struct {
		name    string
		path    string
		changed bool
		items   int
		err     string
		asked   []string
	}{
		{name: "a first time", path: "/list", changed: true, items: 3, asked: []string{"/list"}},
		{name: "after a restart only changes are asked for", path: "/list", changed: true, items: 3, asked: []string{"/list unless"}},
		{name: "redirected", path: "/moved", changed: true, items: 3, asked: []string{"/moved", "/list"}},
		{name: "an error page is no document", path: "/gone", err: "status 503 Service Unavailable", asked: []string{"/gone"}},
		{name: "a part is no document", path: "/partial", err: "status 206", asked: []string{"/partial"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := len(asked())
			f := newFeed("words", url+tt.path, cache, client, wordFormat)
			changed, err := f.load(t.Context(), false)
			wantError(t, err, tt.err)
			if changed != tt.changed || len(f.value()) != tt.items {
				t.Errorf("changed %v, items %q", changed, f.value())
			}
			if got := asked()[before:]; !slices.Equal(got, tt.asked) {
				t.Errorf("requests %q, want %q", got, tt.asked)
			}
		})
	}
}

func TestFeedClientAsksNoPrivateAddress(t *testing.T) {
	url, asked := documentServer(t)
	f := newFeed("words", url+"/list", "", newFeedClient(false), wordFormat)
	_, err := f.load(t.Context(), false)
	wantError(t, err, "not a public address")
	if got := asked(); len(got) != 0 {
		t.Errorf("requests %q", got)
	}
}

func TestFeedClientBoundsWhatItReads(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(maxFeedBytes+1))
	}))
	t.Cleanup(s.Close)
	f := newFeed("words", s.URL, "", newFeedClient(true), wordFormat)
	if _, err := f.load(t.Context(), false); !errors.Is(err, fetch.ErrTooLarge) {
		t.Errorf("a document larger than %d bytes: %v", maxFeedBytes, err)
	}
}

func TestFeedThatIsStoppedBlamesNobody(t *testing.T) {
	url, _ := documentServer(t)
	f := newFeed("words", url+"/list", "", newFeedClient(true), wordFormat)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if changed, err := f.load(ctx, false); changed || !errors.Is(err, context.Canceled) {
		t.Errorf("changed %v, %v", changed, err)
	}
	if st := f.status(); st.Err != nil {
		t.Errorf("status says %v", st.Err)
	}
}

func TestCloudAndSubnetFeeds(t *testing.T) {
	dir := t.TempDir()
	aws, list := filepath.Join(dir, "aws.json"), filepath.Join(dir, "subnets.json")
	writeFile(t, aws, `{"prefixes": [{"ip_prefix": "52.94.76.0/22", "region": "us-west-2"}]}`)
	writeFile(t, list, `["10.0.0.0/24", "8.8.8.0/24"]`)
	clouds := newCloudFeed("aws", aws, "", nil)
	if _, err := clouds.load(t.Context(), false); err != nil || len(clouds.value()) != 1 {
		t.Errorf("clouds: %v, %v", clouds.value(), err)
	}
	for allow, want := range map[bool]int{false: 1, true: 2} {
		subnets := newSubnetFeed("mirror.example.org", list, "", nil, allow)
		if _, err := subnets.load(t.Context(), false); err != nil || len(subnets.value()) != want {
			t.Errorf("subnets with private ones allowed %v: %v, %v", allow, subnets.value(), err)
		}
	}
}

func TestFeedRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := filepath.Join(t.TempDir(), "list")
		var parsed atomic.Int32
		counting := wordFormat
		counting.parse = func(data []byte) ([]string, error) {
			parsed.Add(1)
			return words(data)
		}
		f := newFeed("words", source, "", nil, counting)
		var lines strings.Builder
		log := slog.New(slog.NewTextHandler(&lines, nil))
		ctx, cancel := context.WithCancel(t.Context())
		changed := make(chan struct{}, 1)
		var running sync.WaitGroup
		running.Go(func() { f.run(ctx, log, changed) })
		looked := func() bool {
			select {
			case <-changed:
				return true
			default:
				return false
			}
		}

		time.Sleep(10 * time.Minute)
		if looked() || f.status().Err == nil {
			t.Errorf("without a file: changed, or no error")
		}
		writeFile(t, source, "a b c")
		time.Sleep(2 * feedFileInterval)
		if !looked() || len(f.value()) != 3 {
			t.Errorf("the file that appeared was not read: %q", f.value())
		}
		time.Sleep(time.Hour)
		if looked() || parsed.Load() != 1 {
			t.Errorf("an unchanged file was parsed %d times", parsed.Load())
		}
		writeFile(t, source, "a b c d")
		time.Sleep(2 * feedFileInterval)
		writeFile(t, source, "a b c d e")
		time.Sleep(2 * feedFileInterval)
		if !looked() || looked() || len(f.value()) != 5 {
			t.Errorf("two changes are one signal to a reader that was busy: %q", f.value())
		}
		cancel()
		running.Wait()
		if n := strings.Count(lines.String(), "\n"); n != 4 {
			t.Errorf("%d lines logged, want one for the missing file and one for each change:\n%s", n, &lines)
		}
	})
}

func TestRetryDelay(t *testing.T) {
	for _, tt := range []struct {
		interval time.Duration
		failures int
		want     time.Duration // within a tenth
	}{
		{time.Hour, 0, time.Hour},
		{time.Hour, 1, time.Minute},
		{time.Hour, 2, 2 * time.Minute},
		{time.Hour, 6, 32 * time.Minute},
		{time.Hour, 7, time.Hour},
		{time.Hour, 1 << 40, time.Hour},
		{time.Minute, 0, time.Minute},
		{time.Minute, 3, time.Minute},
	} {
		seen := map[time.Duration]bool{}
		for range 100 {
			d := retryDelay(tt.interval, tt.failures)
			seen[d] = true
			if d < tt.want*9/10 || d > tt.want*11/10 {
				t.Errorf("retryDelay(%v, %d) = %v, want about %v", tt.interval, tt.failures, d, tt.want)
			}
		}
		if len(seen) < 2 {
			t.Errorf("retryDelay(%v, %d) is always the same", tt.interval, tt.failures)
		}
	}
}

var subnetLists = []struct {
	name    string
	data    string
	private bool
	want    []string
	err     string
}{
	{name: "both families, in any order", data: `["2001:67c:2e8::/48", "193.0.0.0/21"]`, want: []string{"193.0.0.0/21", "2001:67c:2e8::/48"}},
	{name: "bare addresses", data: `["8.8.8.8", "2001:4860:4860::8888"]`, want: []string{"8.8.8.8/32", "2001:4860:4860::8888/128"}},
	{name: "host bits", data: `["193.0.0.77/21", "193.0.0.0/21"]`, want: []string{"193.0.0.0/21"}},
	{name: "an IPv4-mapped prefix is the IPv4 one", data: `["::ffff:193.0.0.0/117"]`, want: []string{"193.0.0.0/21"}},
	{name: "private networks are left out", data: `["10.0.0.0/8", "fd00:1::/32", "127.0.0.1", "::ffff:192.168.0.0/112", "193.0.0.0/21"]`, want: []string{"193.0.0.0/21"}},
	{name: "private networks are kept where they are allowed", data: `["10.0.0.0/8", "127.0.0.1"]`, private: true, want: []string{"10.0.0.0/8", "127.0.0.1/32"}},
	{name: "a wide network around a private one is left out", data: `["192.0.0.0/8", "100.0.0.0/8", "172.0.0.0/8", "193.0.0.0/8"]`, want: []string{"193.0.0.0/8"}},
	{name: "only private networks", data: `["10.0.0.0/8"]`, err: "all prefixes are private"},
	{name: "no entry", data: `[]`, err: "subnet list: it is empty"},
	{name: "no document", data: ` `, err: "subnet list: the document ends early"},
	{name: "an object", data: `{"prefixes": ["193.0.0.0/21"]}`, err: "{ where [ should be"},
	{name: "one prefix for a list", data: `"193.0.0.0/21"`, err: "193.0.0.0/21 where [ should be"},
	{name: "the second entry is none", data: `["193.0.0.0/21", "193.0.0.0/33"]`, err: `subnet list[1]: "193.0.0.0/33" is neither`},
	{name: "a zone", data: `["fe80::1%eth0"]`, private: true, err: "is neither"},
	{name: "null", data: `[null]`, err: "subnet list[0]: null is no prefix"},
	{name: "a number", data: `[1]`, err: "subnet list[0]: a JSON number does not belong here"},
	{name: "a list in the list", data: `[["193.0.0.0/21"]]`, err: "subnet list[0]: a JSON array does not belong here"},
	{name: "too wide", data: `["192.0.0.0/7"]`, err: "too wide; write /8"},
	{name: "too wide, IPv6", data: `["2a00::/12"]`, err: "too wide; write /16"},
	{name: "cut", data: `["193.0.0.0/21"`, err: "subnet list: the document ends early"},
	{name: "something behind", data: `["193.0.0.0/21"] x`, err: "something follows"},
	{name: "a page", data: "<html>", err: "invalid character '<'"},
}

func TestParseSubnets(t *testing.T) {
	for _, tt := range subnetLists {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseSubnets([]byte(tt.data), tt.private)
			wantError(t, err, tt.err)
			var want []netip.Prefix
			for _, s := range tt.want {
				want = append(want, netip.MustParsePrefix(s))
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestParseSubnetsBoundsTheList(t *testing.T) {
	var list []string
	for i := range maxSubnets + 1 {
		list = append(list, fmt.Sprintf("%d.%d.%d.0/24", 11+i>>16, i>>8&255, i&255))
	}
	data, _ := json.Marshal(list[:maxSubnets])
	if got, err := parseSubnets(data, false); err != nil || len(got) != maxSubnets {
		t.Errorf("%d prefixes, %v", len(got), err)
	}
	data, _ = json.Marshal(list)
	_, err := parseSubnets(data, false)
	wantError(t, err, "longer than 65536 entries")
}

func FuzzSubnets(f *testing.F) {
	for _, tt := range subnetLists {
		f.Add([]byte(tt.data), tt.private)
	}
	f.Fuzz(func(t *testing.T, data []byte, private bool) {
		got, err := parseSubnets(data, private)
		if (err == nil) != (len(got) > 0) {
			t.Fatalf("%d prefixes and %v", len(got), err)
		}
		if err != nil {
			return
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseSubnets(text, private); err != nil || !slices.Equal(got, again) {
			t.Errorf("%s is read as %v, %v", text, again, err)
		}
	})
}
