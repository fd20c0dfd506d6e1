package mirrorlist

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"meridian/internal/durable"
	"meridian/internal/fetch"
)

const (
	// maxFeedBytes bounds a document. Real ones have a few MB.
	maxFeedBytes = 32 << 20

	// feedInterval is how often a URL is asked for changes, and a file read:
	// one is somebody else's server, the other costs nothing.
	feedInterval     = time.Hour
	feedFileInterval = time.Minute

	// retryFirst is the pause after a first failure; it doubles with each
	// further one, up to the interval.
	retryFirst = time.Minute
)

// A feed is a list that others keep: it is read from a file or URL again and
// again, and the last good copy stays in memory and on disk whatever happens to
// the source. What cannot be parsed is refused, and so is a list that lost more
// than 30 % of its entries at once: that is an accident more often than news.
type feed[E any] struct {
	name      string
	source    string
	cacheFile string // "" keeps no copy on disk
	format    format[E]
	client    *fetch.Client

	// mu is held during a load, so that there is one at a time. It guards
	// restored, and the order of writes to state.
	mu       sync.Mutex
	restored bool

	state atomic.Pointer[feedState[E]] // never nil
}

// feedState is what is known of a feed. It is replaced, never changed.
type feedState[E any] struct {
	items      []E               // nil before the first good document
	sum        [sha256.Size]byte // of the document they are from
	validators fetch.Validators
	lastGood   time.Time
	err        error
	unsaved    bool // the copy on disk is another one, and could not be replaced
}

// A format is how the items of a feed are read from its document, and how they
// are kept on disk: in one line each, because providers' JSON takes a start
// longer to read than everything else together.
type format[E any] struct {
	// rules names what parse leaves out: a copy that was made by other rules is
	// another one.
	rules string

	parse func(document []byte) ([]E, error) // never none without an error
	line  func(b []byte, item E) []byte      // appends an item, without newline
	item  func(line string) (E, error)       // reads what line wrote
}

// feedStatus is a feed for readiness, metrics and the log. Source can carry a
// token and is for the admin only.
type feedStatus struct {
	Name   string
	Source string

	// Err is why the last load failed, or nil. The items are the last good ones
	// all the same.
	Err error

	// LastGood is when the source last gave the items or confirmed them; zero
	// before it ever did.
	LastGood time.Time
	Items    int
}

// newFeed returns a feed that was not loaded yet. The source is an http or
// https URL, or else the path of a file. The copy on disk goes into cacheDir,
// which exists; "" keeps none. Items are not changed any more once they were
// parsed.
func newFeed[E any](name, source, cacheDir string, client *fetch.Client, format format[E]) *feed[E] {
	f := &feed[E]{name: name, source: source, format: format, client: client}
	f.state.Store(&feedState[E]{})
	if cacheDir != "" {
		// The name holds a mirror's name, which a stranger chose: no part of a
		// path. Another source starts anew, without the old one's size.
		id := sha256.Sum256([]byte(name + "\x00" + source + "\x00" + format.rules))
		f.cacheFile = filepath.Join(cacheDir, "feed-"+hex.EncodeToString(id[:12]))
	}
	return f
}

// newCloudFeed returns the feed of a provider's ranges.
func newCloudFeed(provider, source, cacheDir string, client *fetch.Client) *feed[cloudRange] {
	regions := map[string]string{} // few, and each is there a thousand times
	return newFeed("cloud ranges of "+provider, source, cacheDir, client, format[cloudRange]{
		parse: func(document []byte) ([]cloudRange, error) { return parseCloud(provider, document) },
		line: func(b []byte, r cloudRange) []byte {
			return strconv.AppendQuote(append(r.Prefix.AppendTo(b), ' '), r.Region)
		},
		item: func(line string) (r cloudRange, err error) {
			prefix, region, _ := strings.Cut(line, " ")
			if r.Prefix, err = netip.ParsePrefix(prefix); err != nil {
				return r, err
			}
			name, ok := regions[region]
			if !ok {
				if name, err = strconv.Unquote(region); err != nil {
					return r, fmt.Errorf("region %.40q: %w", region, err)
				}
				regions[strings.Clone(region)] = name
			}
			r.Region = name
			return r, nil
		},
	})
}

// newSubnetFeed returns the feed of the subnet list that a mirror's file names
// by URL.
func newSubnetFeed(mirror, url, cacheDir string, client *fetch.Client, allowPrivate bool) *feed[netip.Prefix] {
	return newFeed("subnets of "+mirror, url, cacheDir, client, format[netip.Prefix]{
		rules: fmt.Sprintf("private %v", allowPrivate),
		parse: func(document []byte) ([]netip.Prefix, error) { return parseSubnets(document, allowPrivate) },
		line:  func(b []byte, p netip.Prefix) []byte { return p.AppendTo(b) },
		item:  netip.ParsePrefix,
	})
}

// newFeedClient returns the client for all feeds. allowPrivate is the setting
// allow_private_addresses.
func newFeedClient(allowPrivate bool) *fetch.Client {
	return fetch.New(fetch.Options{
		AllowPrivate: allowPrivate,
		MaxBytes:     maxFeedBytes,
		Gzip:         true,
		UserAgent:    "meridian-mirrorlist",
	})
}

// value returns the last good items, nil when there were none yet. They are
// shared: do not change them.
func (f *feed[E]) value() []E { return f.state.Load().items }

func (f *feed[E]) status() feedStatus {
	st := f.state.Load()
	return feedStatus{Name: f.name, Source: f.source, Err: st.err, LastGood: st.lastGood, Items: len(st.items)}
}

// restore takes the copy on disk, if there is one and nothing newer was loaded.
// It touches no network: a server begins with it and loads in the background. A
// copy that cannot be used is an error and no more: the next good document
// replaces it.
func (f *feed[E]) restore() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.restoreLocked()
}

func (f *feed[E]) restoreLocked() error {
	if f.restored || f.cacheFile == "" {
		return nil
	}
	f.restored = true
	data, err := readBounded(f.cacheFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("copy of %s: %w", f.name, err)
	}
	header, body, err := splitCopy(data)
	if err == nil && header.Source != f.source {
		err = fmt.Errorf("it is one of %q", header.Source)
	}
	items := make([]E, 0, header.Items)
	for line := range strings.Lines(string(body)) {
		if err != nil {
			break
		}
		var item E
		item, err = f.format.item(strings.TrimSuffix(line, "\n"))
		items = append(items, item)
	}
	if err == nil && len(items) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return fmt.Errorf("copy of %s: %s: %w", f.name, f.cacheFile, err)
	}
	document, err := hex.DecodeString(header.Document)
	if err != nil || len(document) != sha256.Size {
		return fmt.Errorf("copy of %s: %s: %.80q is no sum", f.name, f.cacheFile, header.Document)
	}
	f.state.Store(&feedState[E]{
		items:      items,
		sum:        [sha256.Size]byte(document),
		validators: header.Validators,
		lastGood:   header.Taken,
	})
	return nil
}

// load reads the source. It reports whether the items are others than before,
// which can be the case even with an error: the copy on disk came into use, or
// could not be written. With force a list may shrink as it likes. Whatever is
// refused, the items of before stay.
func (f *feed[E]) load(ctx context.Context, force bool) (changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.state.Load()
	restoreErr := f.restoreLocked()
	old := f.state.Load()
	next, err := f.next(ctx, old, force)
	switch {
	case err == nil:
	case ctx.Err() != nil: // being stopped says nothing about the source
		return old.sum != before.sum, err
	default:
		kept := *old
		kept.err = err
		if kept.items == nil {
			kept.err = errors.Join(err, restoreErr)
		}
		next = &kept
	}
	f.state.Store(next)
	return next.sum != before.sum, next.err
}

// next returns the state after one more look at the source. The err of the
// state itself is that of the copy on disk.
func (f *feed[E]) next(ctx context.Context, old *feedState[E], force bool) (*feedState[E], error) {
	known := old.validators
	if old.unsaved {
		known = fetch.Validators{} // its bytes are needed once more
	}
	next := *old
	next.err = nil
	body, validators, err := f.read(ctx, known)
	next.lastGood = time.Now()
	if errors.Is(err, errUnchanged) {
		return &next, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	next.validators = validators
	next.sum = sha256.Sum256(body)
	if next.sum != old.sum {
		next.items, err = f.format.parse(body)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", f.name, f.source, err)
		}
		if was, is := len(old.items), len(next.items); is*10 < was*7 && !force {
			return nil, fmt.Errorf("%s: %s: shrank from %d entries to %d, by more than 30 %%; if that is right, reload with force", f.name, f.source, was, is)
		}
	} else if !old.unsaved {
		return &next, nil
	}
	err = f.save(&next)
	next.unsaved = err != nil
	if err != nil {
		next.err = fmt.Errorf("copy of %s: %w", f.name, err)
	}
	return &next, nil
}

// errUnchanged: the source still holds the document that the validators name.
var errUnchanged = errors.New("unchanged")

// read returns the document at the source and its validators, or errUnchanged.
func (f *feed[E]) read(ctx context.Context, known fetch.Validators) ([]byte, fetch.Validators, error) {
	if !isURL(f.source) {
		body, err := readBounded(f.source)
		return body, fetch.Validators{}, err
	}
	resp, err := f.client.Get(ctx, f.source, known)
	switch {
	case err != nil:
		return nil, known, err
	case resp.Status == http.StatusNotModified:
		return nil, known, errUnchanged
	case resp.Status != http.StatusOK:
		return nil, known, fmt.Errorf("%s: status %d %s", resp.URL, resp.Status, http.StatusText(resp.Status))
	}
	return resp.Body, resp.Validators(), nil
}

func isURL(source string) bool {
	scheme, _, ok := strings.Cut(source, "://")
	return ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

// readBounded reads a file of at most maxFeedBytes.
func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var data bytes.Buffer
	if st, err := file.Stat(); err == nil {
		data.Grow(int(min(st.Size(), maxFeedBytes)) + bytes.MinRead)
	}
	if _, err := data.ReadFrom(io.LimitReader(file, maxFeedBytes+1)); err != nil {
		return nil, err
	}
	if data.Len() > maxFeedBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFeedBytes)
	}
	return data.Bytes(), nil
}

// copyHeader is the first line of the copy on disk, as JSON; the items follow, one
// a line. One file, so that the validators are never those of another document.
type copyHeader struct {
	Name     string    `json:"name"`
	Source   string    `json:"source"`
	Taken    time.Time `json:"taken"`
	Document string    `json:"document"` // the sha256 of what the items are from
	Items    int       `json:"items"`
	SHA256   string    `json:"sha256"` // of the lines
	fetch.Validators
}

func (f *feed[E]) save(st *feedState[E]) error {
	if f.cacheFile == "" {
		return nil
	}
	var body []byte
	for _, item := range st.items {
		body = append(f.format.line(body, item), '\n')
	}
	sum := sha256.Sum256(body)
	header, err := json.Marshal(copyHeader{
		Name:       f.name,
		Source:     f.source,
		Taken:      st.lastGood.UTC(),
		Document:   hex.EncodeToString(st.sum[:]),
		Items:      len(st.items),
		SHA256:     hex.EncodeToString(sum[:]),
		Validators: st.validators,
	})
	if err != nil {
		return err
	}
	return durable.WriteFile(f.cacheFile, slices.Concat(header, []byte("\n"), body), 0o600)
}

func splitCopy(data []byte) (copyHeader, []byte, error) {
	var header copyHeader
	first, body, found := bytes.Cut(data, []byte("\n"))
	if !found {
		return header, nil, errors.New("no header line")
	}
	if err := json.Unmarshal(first, &header); err != nil {
		return header, nil, fmt.Errorf("header line: %w", err)
	}
	if sum := sha256.Sum256(body); header.SHA256 != hex.EncodeToString(sum[:]) {
		return header, nil, errors.New("it is not what was saved")
	}
	if header.Items < 0 || header.Items > len(body) {
		return header, nil, fmt.Errorf("%d items do not fit into %d bytes", header.Items, len(body))
	}
	return header, body, nil
}

// run loads the feed until ctx ends, at once unless it is a file that was read
// already, and then as often as its kind of source deserves, and sooner after a
// failure. After each load that changed the
// items it sends to changed, which has room for one: a reader that has not
// looked since the last time misses nothing.
func (f *feed[E]) run(ctx context.Context, log *slog.Logger, changed chan<- struct{}) {
	log = log.With("feed", f.name)
	said := ""
	if st := f.state.Load(); !f.remote() && st.err == nil && !st.lastGood.IsZero() {
		sleep(ctx, retryDelay(f.interval(), 0))
	}
	for failures := 0; ctx.Err() == nil; {
		news, err := f.load(ctx, false)
		if news {
			nudge(changed)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			if text := err.Error(); text != said {
				said = text
				log.WarnContext(ctx, "keeping the last good copy", "items", len(f.value()), "err", err)
			}
		default:
			failures = 0
			if news || said != "" {
				said = ""
				log.InfoContext(ctx, "feed loaded", "items", len(f.value()))
			}
		}
		sleep(ctx, retryDelay(f.interval(), failures))
	}
}

func (f *feed[E]) interval() time.Duration {
	if isURL(f.source) {
		return feedInterval
	}
	return feedFileInterval
}

// retryDelay is the pause before something is done again that is due each
// interval and failed the last failures times. It varies by a tenth, so that
// neither the nodes nor the sources of one node keep step.
func retryDelay(interval time.Duration, failures int) time.Duration {
	d := interval
	if failures > 0 {
		d = min(interval, retryFirst<<min(failures-1, 20))
	}
	return d*9/10 + rand.N(d/5)
}

// sleep returns after d, or when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// nudge sends to a channel with room for one, unless something waits there.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// maxSubnets is how many prefixes one mirror may list: more than any network has
// to announce.
const maxSubnets = 1 << 16

// parseSubnets reads the list of a mirror's subnets: a JSON array of prefixes
// and addresses. The result is masked, ordered, holds nothing twice and is never
// empty. One bad entry refuses the list: whoever wrote it has the last good one
// served meanwhile.
//
// Prefixes inside private, loopback or reserved networks, or around one, are left
// out, unless allowPrivate: a list that is fetched must not be able to draw to its
// mirror the clients that reach this server from its own network.
func parseSubnets(data []byte, allowPrivate bool) ([]netip.Prefix, error) {
	var list []netip.Prefix
	dec := newDecoder(data)
	n := 0
	err := readList(dec, "subnet list", func(dec *json.Decoder) error {
		var p jsonPrefix
		if err := dec.Decode(&p); err != nil {
			return err
		}
		if n++; n > maxSubnets {
			return fmt.Errorf("the list is longer than %d entries", maxSubnets)
		}
		switch {
		case !p.IsValid():
			return errors.New("null is no prefix")
		case allowPrivate || isPublic(p.Prefix):
			list = append(list, p.Prefix)
		}
		return nil
	})
	if err == nil {
		err = endOfDocument(dec)
	}
	switch {
	case err != nil:
		return nil, err
	case len(list) == 0 && n > 0:
		return nil, errors.New("subnet list: all prefixes are private or reserved")
	case len(list) == 0:
		return nil, errors.New("subnet list: it is empty")
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Clip(slices.Compact(list)), nil
}

// ownNetworks are those that a network gives to its own hosts.
var ownNetworks = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
}

// isPublic reports whether a prefix holds public addresses, and none that a
// network gives to its own hosts.
func isPublic(p netip.Prefix) bool {
	return (fetch.Public(p.Addr()) || fetch.Public(lastAddr(p))) &&
		!slices.ContainsFunc(ownNetworks, p.Overlaps)
}

// lastAddr returns the highest address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b) // four or sixteen bytes, as they came
	return last
}
