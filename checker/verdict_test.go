package checker

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"meridian/checker/state"
	"meridian/schema"
)

// A trial is a mirror, an origin and a clock, on which a story is played.
type trial struct {
	t      *testing.T
	now    time.Time
	truth  map[state.Key]*state.Truth
	m      subject
	status *state.Status
	events []state.Event // of the last step
	last   *Observation
	made   time.Time // of the last "future"
}

var (
	baseos    = state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}
	appstream = state.Key{Version: "9.8", Repo: "appstream", Arch: "x86_64"}
	crb       = state.Key{Version: "9.8", Repo: "crb", Arch: "x86_64"}
	extras    = state.Key{Version: "9.8", Repo: "extras", Arch: "x86_64"}
	images    = state.Key{Version: "9.8", Repo: isos, Arch: "x86_64"}
)

// ofTwelve is the allowed_outdate of the trials.
var ofTwelve = rules{allowedOutdate: 12 * time.Hour}

func newTrial(t *testing.T) *trial {
	w := &trial{t: t, now: time.Unix(1_800_000_000, 0).UTC(), truth: map[state.Key]*state.Truth{}}
	w.m = subject{
		&schema.Mirror{Name: "m.example.org", Address: schema.Address{HTTP: "http://m.example.org/", HTTPS: "https://m.example.org/"}},
		newPromises([]state.Key{baseos, appstream, crb, extras, images}),
	}
	for _, k := range w.m.keys {
		if k != images {
			w.truth[k] = &state.Truth{}
			for _, ago := range []time.Duration{20 * time.Hour, 8 * time.Hour, time.Hour} {
				w.publish(k, w.now.Add(-ago))
			}
		}
	}
	return w
}

func (w *trial) publish(k state.Key, at time.Time) {
	g := state.Generation{
		Revision: strconv.FormatInt(at.Unix(), 10), Timestamp: at.Unix() - 5, FirstSeen: at,
		SHA256: sha256.Sum256([]byte(k.String() + at.String())),
	}
	t := *w.truth[k]
	t.Generations = append([]state.Generation{g}, t.Generations...)
	t.Confirmed = at
	w.truth[k] = &t
}

func (w *trial) truths(k state.Key) *state.Truth { return w.truth[k] }

// served is an answer with a generation of k, its files as they should be.
func (w *trial) served(k state.Key, generation int) KeySeen {
	g := w.truth[k].Generations[generation]
	return KeySeen{Outcome: Served, SHA256: g.SHA256, Revision: g.Revision, Timestamp: g.Timestamp, FilesAsked: 1}
}

// evidence of a request that went wrong.
var evidence = &state.Evidence{Method: "GET", URL: "http://m.example.org/9.8/BaseOS/x86_64/os/repodata/repomd.xml", Status: 500}

// sees returns the answer that a word stands for.
func (w *trial) sees(word string) (KeySeen, bool) {
	unknown := func(made time.Time) KeySeen {
		return KeySeen{
			Outcome: Served, SHA256: sha256.Sum256([]byte(baseos.String() + made.String())),
			Revision: strconv.FormatInt(made.Unix(), 10), Timestamp: made.Unix() - 5, Evidence: evidence,
		}
	}
	primary := func(fs FileSeen) KeySeen {
		s := w.served(baseos, 0)
		fs.Key, fs.Path, fs.Evidence = baseos, "repodata/primary.xml.gz", evidence
		s.FilesWrong = []FileSeen{fs}
		return s
	}
	switch word {
	case "newest":
		return w.served(baseos, 0), true
	case "newest-unasked":
		s := w.served(baseos, 0)
		s.FilesAsked = 0
		return s, true
	case "second":
		return w.served(baseos, 1), true
	case "third":
		return w.served(baseos, 2), true
	case "between":
		return unknown(w.truth[baseos].Generations[0].FirstSeen.Add(-10 * time.Minute)), true
	case "ancient":
		return unknown(time.Unix(1_700_000_000, 0)), true
	case "future":
		w.made = w.now.Add(time.Minute)
		return unknown(w.made), true
	case "it": // what was the future
		return unknown(w.made), true
	case "before-it":
		return unknown(w.made.Add(-time.Second)), true
	case "tampered":
		s := w.served(baseos, 0)
		s.SHA256[0] ^= 1
		s.Evidence = evidence
		return s, true
	case "tampered-second":
		s := w.served(baseos, 1)
		s.SHA256[0] ^= 1
		return s, true
	case "html":
		return KeySeen{Outcome: Garbage, Evidence: evidence}, true
	case "404":
		return KeySeen{Outcome: Missing, Evidence: evidence}, true
	case "503":
		return KeySeen{Outcome: Refused, Evidence: evidence}, true
	case "timeout":
		return KeySeen{Outcome: Unreachable, Evidence: evidence}, true
	case "no-primary":
		return primary(FileSeen{Outcome: Missing}), true
	case "short-primary":
		return primary(FileSeen{Outcome: Served, Wrong: "it has 5 bytes and should have 500"}), true
	case "forged-primary":
		return primary(FileSeen{Outcome: Served, Wrong: "its sha256 is another", Content: true}), true
	case "silent-primary":
		return primary(FileSeen{Outcome: Unreachable}), true
	}
	return KeySeen{}, false
}

// file returns what the closure check found that a word stands for.
func file(word string) (FileSeen, bool) {
	fs := FileSeen{Key: baseos, Path: "Packages/a.rpm", Evidence: evidence}
	switch word {
	case "file-right":
		fs.Outcome = Served
	case "file-missing":
		fs.Outcome = Missing
	case "file-short":
		fs.Outcome, fs.Wrong = Served, "it has 5 bytes and should have 500"
	case "file-forged":
		fs.Outcome, fs.Wrong, fs.Content = Served, "its bytes are others", true
	case "file-timeout":
		fs.Outcome = Unreachable
	case "file-gone":
		fs.Gone, fs.Next = true, "Packages/b.rpm"
	case "file-gone-for-good":
		fs.Gone = true
	case "next-right":
		fs.Outcome, fs.Path = Served, "Packages/b.rpm"
	case "next-forged":
		fs.Outcome, fs.Path, fs.Wrong, fs.Content = Served, "Packages/b.rpm", "its bytes are others", true
	default:
		return fs, false
	}
	return fs, true
}

// visit is an observation to which the other repositories answer well.
func (w *trial) visit() *Observation {
	w.now = w.now.Add(time.Minute)
	o := &Observation{Mirror: w.m.Name, At: w.now, Keys: map[state.Key]KeySeen{}}
	for _, k := range []state.Key{appstream, crb, extras} {
		o.Keys[k] = w.served(k, 0)
	}
	return o
}

// play plays one word of a story.
func (w *trial) play(word string) {
	w.t.Helper()
	switch {
	case word[0] == '+':
		d, err := time.ParseDuration(word[1:])
		if err != nil {
			w.t.Fatal(err)
		}
		w.now = w.now.Add(d)
		w.take(age(w.status, w.now, w.truths, w.m, ofTwelve))
		return
	case word == "publish", word == "publish-it":
		w.now = w.now.Add(time.Second)
		was := *w.truth[baseos]
		if word == "publish-it" {
			w.publish(baseos, w.made)
		} else {
			w.publish(baseos, w.now)
		}
		if w.status != nil {
			w.take(supersede(w.status, []state.Key{baseos}, func(state.Key) *state.Truth { return &was }), nil)
		}
		return
	case word == "origin-away":
		t := *w.truth[baseos]
		t.Confirmed = w.now.Add(-time.Hour)
		w.truth[baseos] = &t
		return
	case word == "origin-read":
		t := *w.truth[baseos]
		t.Confirmed = w.now.Add(time.Hour)
		w.truth[baseos] = &t
		return
	case word == "several-have-it":
		t := *w.truth[baseos]
		t.Disputed = w.now
		w.truth[baseos] = &t
		return
	case word == "offer-between":
		t := *w.truth[baseos]
		between, _ := w.sees("between")
		t.Offered = []state.Offer{{SHA256: between.SHA256}}
		w.truth[baseos] = &t
		return
	case word == "forget":
		t := *w.truth[baseos]
		t.Generations = t.Generations[:2]
		w.truth[baseos] = &t
		return
	case word == "nothing-known-of-origin":
		w.truth[baseos] = nil
		return
	case word == "origin-drops-it":
		w.truth[baseos] = &state.Truth{Absent: true}
		w.take(age(w.status, w.now, w.truths, w.m, ofTwelve))
		return
	case word == "becomes-private", word == "becomes-public":
		m := *w.m.Mirror
		m.Private = word == "becomes-private"
		w.m.Mirror = &m
		w.take(age(w.status, w.now, w.truths, w.m, ofTwelve))
		return
	}
	o := w.visit()
	if word == "silent" || word == "forbidden" {
		out := Unreachable
		if word == "forbidden" {
			out = Refused
		}
		for _, k := range []state.Key{baseos, appstream, crb} {
			o.Keys[k] = KeySeen{Outcome: out, Evidence: evidence}
		}
		delete(o.Keys, extras)
		o.Schemes = map[string]Answer{"http": {Evidence: evidence}}
	} else if word == "no-way-there" {
		o = &Observation{At: o.At, Unrouted: true, Families: map[Family]Answer{IPv6: {Untested: true}}}
	} else if first, second, twice := strings.Cut(word, "/"); twice {
		seen, ok := w.sees(first)
		again, known := w.sees(second)
		if !ok || !known {
			w.t.Fatalf("no words %q", word)
		}
		again.FilesAsked, seen.Again = 0, &again
		o.Keys[baseos] = seen
	} else if seen, ok := w.sees(word); ok {
		o.Keys[baseos] = seen
	} else if fs, ok := file(word); ok {
		o.Files = []FileSeen{fs}
		o.Keys[baseos] = w.served(baseos, 0)
	} else {
		w.t.Fatalf("no word %q", word)
	}
	w.see(o)
}

func (w *trial) see(o *Observation) {
	w.t.Helper()
	w.last = o
	prev := w.status
	before := asJSON(w.t, prev)
	w.take(judge(prev, o, w.truths, w.m, ofTwelve))
	if prev != nil && asJSON(w.t, prev) != before {
		w.t.Fatalf("the status before was changed from\n%s to\n%s", before, asJSON(w.t, prev))
	}
	again, events := judge(w.status, o, w.truths, w.m, ofTwelve)
	if len(events) > 0 || asJSON(w.t, again) != asJSON(w.t, w.status) {
		w.t.Fatalf("the same visit judged again changes\n%s to\n%s and gives events %v", asJSON(w.t, w.status), asJSON(w.t, again), events)
	}
}

// take makes the status the current one, as one that was stored and loaded.
func (w *trial) take(st *state.Status, events []state.Event) {
	w.t.Helper()
	text := asJSON(w.t, st)
	loaded := new(state.Status)
	if err := json.Unmarshal([]byte(text), loaded); err != nil {
		w.t.Fatal(err)
	}
	if again := asJSON(w.t, loaded); again != text {
		w.t.Fatalf("a status was stored as\n%s and loaded as\n%s", text, again)
	}
	w.status, w.events = loaded, events
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A story is what happens to the baseos of a mirror, word by word, each visit a
// minute after the one before: WORD, or WORD=HEALTH where the health after it
// matters, or WORD/WORD for a visit that asks twice. See sees, file and play for
// the words.
func TestJudge(t *testing.T) {
	for _, tt := range []struct{ name, story string }{
		// What is served.
		{"a new mirror is pending until it is asked", "+1m=pending"},
		{"a new mirror with the newest generation is fresh", "newest=fresh"},
		{"the newest repomd.xml alone is not yet fresh", "newest-unasked=pending newest=fresh"},
		{"a fresh mirror need not show its files at each visit", "newest=fresh newest-unasked=fresh"},
		{"an older generation that was followed an hour ago lags", "second=lagging"},
		{"an older generation that was followed eight hours ago lags", "third=lagging"},
		{"an older generation is stale as soon as allowed_outdate has passed", "third=lagging +4h=stale"},
		{"what lagged is stale without a visit", "second=lagging +10h=lagging +1h=stale"},
		{"what is stale when it is first seen is never listed", "+11h second=stale"},
		{"a generation between two known ones that tier0 was never seen with is not listed", "between=stale"},
		{"one that tier0 was seen with, and that was not adopted, lags", "offer-between between=lagging +10h50m=lagging +10m=stale"},
		{"a mirror that has what the checker has missed is listed with its next sync", "second=lagging between=stale between=stale newest=fresh"},
		{"what the checker has missed is no strike", "between=stale newest 503 503=down newest=fresh"},
		{"nobody lags with what tier0 was never seen with, however often it is seen", "newest silent silent=down publish between between between between between=stale"},
		{"a generation older than all that is remembered is stale", "ancient=stale"},
		{"a publication makes the fresh lag", "newest=fresh publish=lagging"},
		{"a mirror that syncs after a publication is fresh again", "newest=fresh publish=lagging second=lagging newest=fresh"},
		{"a mirror that never syncs becomes stale", "newest=fresh publish=lagging +12h=stale second=stale"},
		{"a stale mirror that syncs is fresh again", "newest=fresh publish +12h=stale newest=fresh"},
		{"two publications in a row do not make a mirror stale sooner", "newest publish publish=lagging +11h59m=lagging +1m=stale"},
		{"the newest repomd.xml of a lagging mirror does not make it fresh without its files", "second=lagging newest-unasked=lagging newest=fresh"},
		{"a mirror that was stale is not listed for a new repomd.xml without its files", "+11h second=stale newest-unasked=stale newest=fresh"},

		// Newer than what is known.
		{"a newer generation that the origin cannot confirm is ahead", "newest origin-away future=ahead"},
		{"a new mirror may be ahead", "origin-away future=ahead"},
		{"who was ahead of the origin is fresh when that has it too", "newest origin-away future=ahead publish-it=ahead newest=fresh"},
		{"who was ahead of the origin is fresh when that is further, and it too", "newest origin-away future=ahead +2m publish=ahead newest=fresh"},
		{"who was ahead with what the checker has then missed is not listed for it", "newest origin-away future=ahead +2m publish=ahead it=stale newest=fresh"},
		{"a newer generation that the origin was asked for and does not have is a lie", "newest origin-read future=broken"},
		{"several mirrors with the same newer generation are rather right than lying", "newest origin-read several-have-it future=ahead"},
		{"who was ahead and goes back has to be in step several times", "newest origin-away future=ahead second=broken newest=broken newest=broken newest=fresh"},
		{"so has who goes back to what the origin is known to have", "newest origin-away future=ahead newest=broken newest=broken newest=broken newest=fresh"},
		{"so has who goes from one newer generation to an older one", "newest origin-away future=ahead before-it=broken before-it=broken it=broken it=ahead"},

		// What clients choke on.
		{"a page of HTML is not forgiven", "newest=fresh html=broken"},
		{"what sent HTML once is back with the first right answer", "newest html=broken newest=fresh"},
		{"a new mirror that sends HTML is broken", "html=broken newest=fresh"},
		{"who sends HTML again and again has to be right as often", "newest html newest=fresh html=broken newest=broken newest=fresh"},
		{"HTML for HTML is one strike", "newest html html html html=broken newest=fresh"},
		{"HTML after a lag is broken, and then lagging again", "second=lagging html=broken second=lagging"},
		{"a right repomd.xml whose primary is missing is broken", "second=lagging no-primary=broken newest=fresh"},
		{"a right repomd.xml whose primary is too short is broken", "newest=fresh short-primary=broken newest=fresh"},
		{"a primary that cannot be asked for is forgiven once", "second=lagging silent-primary=lagging silent-primary=down newest=fresh"},
		{"a new mirror without primary is broken and not listed before", "no-primary=broken"},
		{"who was broken has to show the files again", "newest no-primary=broken newest-unasked=broken newest=fresh"},

		// Lies.
		{"a known revision with other bytes is broken at once", "newest=fresh tampered=broken"},
		{"an older known revision with other bytes is broken at once", "newest=fresh tampered-second=broken"},
		{"a new mirror that lies is broken", "tampered=broken"},
		{"a liar comes back after five right answers", "newest tampered=broken newest=broken newest=broken newest=broken newest=broken newest=fresh"},
		{"the right answers of a liar have to be in a row", "newest tampered newest newest newest newest tampered=broken newest newest newest newest=broken newest=fresh"},
		{"a failure breaks the row of a liar", "newest tampered newest newest newest newest timeout=broken newest newest newest newest=broken newest=fresh"},
		{"a liar that goes away is still a liar", "newest tampered silent silent silent=broken newest=broken"},
		{"a liar that takes the repository away is still a liar", "newest tampered 404=broken 404=broken newest=broken"},
		{"a liar that sends HTML is still a liar", "newest tampered html=broken newest=broken newest newest newest=broken newest=fresh"},
		{"a lie is not forgotten in time", "newest tampered +720h=broken newest=broken newest newest newest=broken newest=fresh"},
		{"a lie outlives a publication", "newest tampered publish=broken second=broken newest=broken"},
		{"what is older and right counts for a liar too", "newest tampered second second second second second=broken second=lagging"},
		{"an unknown generation does not clear a liar", "newest tampered newest newest newest newest between=broken newest newest newest newest=broken newest=fresh"},
		{"a newer generation than the origin's does not clear a liar", "newest tampered newest newest newest newest origin-away future=broken newest=fresh"},
		{"who lies again needs five more", "newest tampered newest newest newest newest newest=fresh tampered=broken newest newest newest newest=broken newest=fresh"},
		{"a forged primary is a lie", "second=lagging forged-primary=broken"},
		{"a forged primary is over with the primary", "second forged-primary=broken newest=broken newest=broken newest newest newest=broken"},
		{"nobody can clear a liar whose origin is not known", "newest tampered nothing-known-of-origin 503=broken"},

		// Closure.
		{"a right file changes nothing", "newest=fresh file-right=fresh"},
		{"a file that is missing is asked for again first", "newest=fresh file-missing=fresh file-right=fresh file-missing=fresh"},
		{"a file that is missing twice is not coming", "newest=fresh file-missing=fresh file-missing=broken"},
		{"a missing file is what has to come back", "newest file-missing file-missing=broken newest=broken file-right=fresh"},
		{"a file that repodata names no more is not missed", "newest file-missing file-missing=broken file-gone=fresh"},
		{"a file of the wrong size is broken at once", "newest file-short=broken newest=broken file-right=fresh"},
		{"a file that is not answered for says nothing", "newest=fresh file-timeout=fresh file-timeout=fresh file-timeout=fresh"},
		{"a file with other bytes is a lie", "newest=fresh file-forged=broken newest=broken"},
		{"only the file itself clears its lie", "newest file-forged newest newest newest newest newest newest=broken file-right file-right file-right file-right=broken file-right=fresh"},
		{"a lie about a file that is gone is not over with that", "newest file-forged file-gone file-gone file-gone file-gone file-gone newest newest newest=broken"},
		{"the file in its place has to be right, several times", "newest file-forged file-gone next-right next-right next-right next-right=broken next-right=fresh"},
		{"who forges the file in its place begins again", "newest file-forged file-gone next-right next-right next-right next-right next-forged=broken next-right next-right next-right next-right=broken next-right=fresh"},
		{"without a file in its place nothing is shown", "newest file-forged file-gone-for-good file-gone-for-good file-gone-for-good file-gone-for-good file-gone-for-good file-right=broken"},
		{"a liar whose file is missing is not clear", "newest file-forged file-right file-right file-right file-right file-missing=broken file-right file-right file-right file-right=broken file-right=fresh"},

		// Out of reach.
		{"a mirror that there is no way to from here is not down", "no-way-there=unprobed no-way-there=unprobed no-way-there=unprobed"},
		{"time changes nothing of what is out of reach", "newest no-way-there=unprobed +720h=unprobed publish=unprobed"},
		{"a mirror that is in reach again is judged at once", "newest no-way-there=unprobed second=lagging newest=fresh"},
		{"a mirror that is in reach again, and gives no answer, is down", "no-way-there=unprobed silent=pending silent=down no-way-there=unprobed"},
		{"a liar that is out of reach is still a liar", "newest tampered no-way-there=broken +720h=broken newest=broken newest newest newest=broken newest=fresh"},
		{"so is who was caught with something else", "newest html no-way-there=broken newest=fresh"},

		// Not there.
		{"a 404 for what a mirror never had is no fault", "404=absent 404=absent"},
		{"a partial mirror that gets the repository is listed for it", "404=absent newest=fresh"},
		{"a partial mirror without files is not yet listed for it", "404=absent newest-unasked=absent newest=fresh"},
		{"a 404 for what was there is forgiven once", "newest=fresh 404=fresh newest=fresh"},
		{"what was there and is gone is down", "newest 404=fresh 404=down"},
		{"what was there and is gone comes back by itself", "newest 404 404=down newest=fresh"},
		{"a lagging repository that is gone is down", "second 404=lagging 404=down second=lagging"},
		{"what is gone for a week is not missed any more", "newest 404 404=down +167h 404=down +1h 404=absent"},
		{"a repository of a new mirror that is down may prove to be absent", "timeout=pending timeout=down 404=absent"},
		{"a new mirror that is down as a whole may prove to be partial", "silent=pending silent=down 404=absent"},
		{"a stale repository that is gone is down", "+11h second=stale 404=stale 404=down"},
		{"an absent repository is not down when its mirror is", "404=absent silent silent silent=absent"},
		{"an absent repository that is not answered for stays absent", "404=absent timeout timeout timeout=absent"},

		// One repository that is not answered for.
		{"a single refusal is forgiven", "newest=fresh 503=fresh newest=fresh"},
		{"a second refusal is not", "newest 503=fresh 503=down"},
		{"a single timeout is forgiven", "newest=fresh timeout=fresh newest=fresh"},
		{"a second timeout is not", "newest timeout timeout=down newest=fresh"},
		{"a timeout and a refusal are two failures", "newest timeout=fresh 503=down"},
		{"failures with right answers between them are forgiven each", "newest 503=fresh newest 503=fresh newest timeout=fresh newest 503=fresh"},
		{"a lagging mirror keeps lagging through one failure", "second=lagging timeout=lagging second=lagging"},
		{"a forgiven failure does not stop time", "third timeout=lagging +4h=stale"},
		{"a repository that flaps needs more answers each time", "newest 503 503=down newest=fresh 503 503=down newest=down newest=fresh 503 503=down newest newest=down newest=fresh"},
		{"right answers that a repository owes have to be in a row", "newest 503 503 newest 503 503=down newest=down 503=down newest=down newest=fresh"},
		{"strikes of a repository fade", "newest 503 503 newest=fresh +12h 503 503=down newest=fresh"},
		{"a forgiven failure takes nothing back that was earned", "newest 503 503 newest 503 503 newest newest=fresh 503=fresh newest=fresh"},

		// The whole mirror.
		{"a mirror that is away once keeps its health", "newest=fresh silent=fresh newest=fresh"},
		{"a mirror that is away twice is down", "newest silent=fresh silent=down silent=down"},
		{"a mirror that was down returns by itself", "newest silent silent=down newest=fresh"},
		{"a mirror that was down returns with what it has", "newest publish silent silent=down second=lagging"},
		{"a lagging mirror that was down returns lagging", "second silent silent=down second=lagging"},
		{"a mirror that goes away again needs two answers", "newest silent silent newest=fresh silent silent=down newest=down newest=fresh"},
		{"a mirror that flaps needs them in a row", "newest silent silent newest silent silent=down newest=down silent=down newest=down newest=fresh"},
		{"a mirror that flaps is held to no more than eight", "newest " + strings.Repeat("silent silent newest newest newest newest newest newest newest newest ", 12) + "=fresh"},
		{"strikes of a mirror fade", "newest silent silent newest +12h silent silent=down newest=fresh"},
		{"a long outage is no flapping", "newest silent silent newest silent silent=down +24h newest=fresh"},
		{"what is wrong is seen while a mirror earns its way back", "newest silent silent newest silent silent=down tampered=broken newest=broken"},
		{"a mirror that refuses everything is down", "newest forbidden=fresh forbidden=down newest=fresh"},
		{"a forgiven outage takes nothing back that was earned", "newest silent silent newest silent silent newest newest=fresh silent=fresh newest=fresh"},
		{"a new mirror that does not answer is down", "silent=pending silent=down newest=fresh"},
		{"a broken mirror that goes away is down, and starts anew", "newest html=broken silent silent=down newest=fresh"},

		// Two servers behind one name.
		{"who falls back to the older generation is not listed", "newest=fresh second=broken"},
		{"who falls back is listed after three more answers in step", "newest second=broken newest=broken newest=broken newest=fresh"},
		{"to be in step with the older generation is as good", "newest second=broken second=broken second=broken second=lagging"},
		{"who goes forward meanwhile is in step", "newest second=broken second=broken second=broken newest=fresh"},
		{"two servers by turns are never listed", "newest second=broken newest=broken second=broken newest=broken second=broken newest=broken second=broken newest=broken"},
		{"two of three are not enough", "newest second newest newest=broken second=broken newest newest newest=broken newest=fresh"},
		{"who falls back a second time needs six", "newest second newest newest newest=fresh second=broken newest newest newest newest newest=broken newest=fresh"},
		{"who falls back again a day later needs three", "newest second newest newest newest=fresh +18h=fresh second=broken newest newest=broken newest=fresh"},
		{"who has fallen back long ago needs less", "newest second=broken +6h=broken newest=broken newest=fresh"},
		{"to go forward step by step is no falling back", "third=lagging second=lagging newest=fresh"},
		{"from the second to the third generation is falling back", "newest publish second=lagging third=broken third third=broken third=lagging"},
		{"what is stale can fall back", "+11h second=stale third=broken third third=broken third=stale"},
		{"who falls back to what tier0 was never seen with is stale in the end", "newest between=broken between between=broken between=stale"},
		{"who falls back from what tier0 was never seen with has fallen back", "between=stale second=broken"},
		{"a publication while it is counted changes nothing", "newest second=broken newest publish second=broken second=lagging newest=fresh"},
		{"what is older stays older through a publication", "newest second=broken newest newest publish third=broken third third third=broken third=lagging"},
		{"what grows too old while it is counted is stale in the end", "+7h newest second=broken second +5h second=broken second=stale"},
		{"a generation that is forgotten while it is counted is behind all others", "newest second=broken publish publish forget second=broken second=broken second=lagging"},
		{"a failure while it is counted breaks the row", "newest second newest newest 503=broken newest newest=broken newest=fresh"},
		{"HTML while it is counted breaks the row", "newest second newest newest html=broken newest newest=broken newest=fresh"},
		{"an outage while it is counted is no answer", "newest second newest newest silent silent=down newest=fresh"},
		{"an outage makes nobody forget what was served before", "newest silent silent=down second=broken second second=broken second=lagging"},
		{"nor does a refusal", "newest 503 503=down second=broken"},
		{"nor does HTML", "newest html=broken second=broken newest newest newest=broken newest=fresh"},
		{"nor does a lie", "newest tampered second newest newest newest newest=broken newest=fresh"},
		{"a mirror can fall back while it earns its way back", "newest silent silent newest silent silent=down newest=down silent=down second=broken newest newest=broken newest=fresh"},
		{"what is in step again waits for a mirror that earns its way back", "newest " + strings.Repeat("silent silent newest newest newest newest newest newest newest newest ", 8) +
			"silent silent=down newest second=broken newest newest newest=broken newest newest=broken newest=fresh"},
		{"a newest repomd.xml without its files is the newer one", "second=lagging newest-unasked=lagging second=broken"},
		{"so is one whose primary is missing", "second no-primary=broken second=broken second second second=broken second=lagging"},
		{"so is one whose primary is not answered for", "second silent-primary=lagging second=broken"},

		// Asked twice in one visit.
		{"the same answer twice is one", "newest/newest=fresh second/second=broken newest/newest newest/newest=broken newest/newest=fresh"},
		{"a new mirror that answers with two generations is not listed", "newest/second=broken newest newest=broken newest=fresh"},
		{"a mirror that syncs and answers with two generations is not listed", "second=lagging newest/second=broken"},
		{"who is late with one server is not stale but out of step", "newest publish second/third=broken"},
		{"a mirror that syncs between two questions is well", "second/newest=lagging newest=fresh"},
		{"who goes back after that has fallen back", "second/newest=lagging second=broken"},
		{"HTML for the second question is HTML", "newest/html=broken newest=fresh"},
		{"a lie for the second answer is a lie", "newest/tampered=broken newest newest newest newest=broken newest=fresh"},
		{"no answer to the second question says nothing", "newest/timeout=fresh newest/503=fresh newest/404=fresh"},
		{"no answer to the second question breaks no row", "newest second newest/timeout newest/503=broken newest/404=fresh"},
		{"who is a generation behind with one server never gets on", "newest/second=broken" + strings.Repeat(" publish second/newest=broken", 5) + " newest newest=broken newest=fresh"},
		{"servers by turns are out of step whichever comes first", "newest/second=broken second/newest=broken second/newest=broken second/newest=broken second/newest=broken"},
		{"an older generation at a publication is no falling back", "newest publish second=lagging newest=fresh"},

		// Others.
		{"a private mirror is not probed", "becomes-private=unprobed newest=unprobed tampered=unprobed"},
		{"a mirror that becomes private is not judged by what was", "newest silent silent=down becomes-private=unprobed"},
		{"a mirror that becomes public is pending", "becomes-private=unprobed becomes-public=pending newest=fresh"},
		{"without an origin everything is unknown", "nothing-known-of-origin +1m=pending 404=absent"},
		{"what the origin does not have is not judged", "newest=fresh origin-drops-it=gone"},
		{"strikes and lies survive each other", "newest 503 503 newest tampered=broken newest newest newest newest=broken newest=fresh"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newTrial(t)
			told := ""
			for _, step := range strings.Fields(tt.story) {
				word, want, expects := strings.Cut(step, "=")
				if told += " " + step; word != "" {
					w.play(word)
				}
				got := "gone"
				if w.status != nil {
					if h, ok := w.status.Health[baseos]; ok {
						got = h.String()
					}
				}
				if expects && got != want {
					t.Fatalf("%s: got %s\n%s", told, got, asJSON(t, w.status))
				}
			}
		})
	}
}

// What is said of a mirror beside the health of its repositories.
func TestJudgeWays(t *testing.T) {
	days := func(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }
	start := time.Unix(1_800_000_000, 0)
	works := map[string]Answer{"http": {OK: true}, "https": {OK: true, TLSExpires: start.Add(days(80)), TLSBegins: start.Add(-days(10))}}
	certificate := func(begins, ends time.Duration) map[string]Answer {
		return map[string]Answer{"https": {OK: true, TLSBegins: start.Add(begins), TLSExpires: start.Add(ends)}}
	}
	failing := map[string]Answer{"http": {OK: true}, "https": {Evidence: evidence}}
	insecure := map[string]Answer{"http": {OK: true}, "https": {Insecure: true, Evidence: evidence}}
	untested := map[string]Answer{"rsync": {Untested: true}}
	six := map[Family]Answer{IPv4: {OK: true}, IPv6: {OK: true}}
	noSix := map[Family]Answer{IPv4: {OK: true}, IPv6: {Evidence: evidence}}
	noAAAA := map[Family]Answer{IPv4: {OK: true}}
	blind := map[Family]Answer{IPv4: {OK: true}, IPv6: {Untested: true}}
	sums := func(four, six byte) map[Family]Answer {
		return map[Family]Answer{IPv4: {OK: true, SHA256: state.Hash256{four}}, IPv6: {OK: true, SHA256: state.Hash256{six}}}
	}
	type visit struct {
		after    time.Duration
		schemes  map[string]Answer
		families map[Family]Answer
		other    string
		time     time.Duration // of TIME, beside the clock
		clock    time.Duration // of the mirror, beside ours
	}
	for _, tt := range []struct {
		name    string
		visits  []visit
		says    string   // scheme or family, and how it works
		warns   string   // the beginning of the one warning
		events  []string // kinds and reasons of the last visit
		problem string
	}{
		{name: "a scheme that works", visits: []visit{{schemes: works}}, says: "https reached"},
		{name: "a scheme that fails once", visits: []visit{{schemes: works}, {schemes: failing}}, says: "https reached"},
		{name: "a scheme that fails twice", visits: []visit{{schemes: works}, {schemes: failing}, {schemes: failing}}, says: "https unreached",
			events: []string{"scheme: https does not work"}, problem: "https does not work"},
		{name: "a scheme that fails with successes between", visits: []visit{{schemes: works}, {schemes: failing}, {schemes: works}, {schemes: failing}}, says: "https reached"},
		{name: "a scheme that never worked", visits: []visit{{schemes: failing}, {schemes: failing}}, says: "https unreached", events: []string{"scheme: https does not work"}, problem: "https does not work"},
		{name: "a bad certificate is not forgiven", visits: []visit{{schemes: works}, {schemes: insecure}}, says: "https unreached",
			events: []string{"scheme: https is not secure: its certificate is bad, or it leads to http"}, problem: "https is not secure: its certificate is bad, or it leads to http"},
		{name: "http is not blamed for https", visits: []visit{{schemes: works}, {schemes: insecure}}, says: "http reached",
			events: []string{"scheme: https is not secure: its certificate is bad, or it leads to http"}, problem: "https is not secure: its certificate is bad, or it leads to http"},
		{name: "a scheme that works again", visits: []visit{{schemes: insecure}, {schemes: works}}, says: "https reached", events: []string{"scheme: https works again"}},
		{name: "a scheme that the operator does not claim", visits: []visit{{schemes: untested}}, says: "rsync "},
		{name: "a scheme that is not tried keeps what was known", visits: []visit{{schemes: insecure}, {}}, says: "https unreached", problem: "https is not secure: its certificate is bad, or it leads to http"},

		{name: "a family that answers", visits: []visit{{families: six}}, says: "ipv6 reached"},
		{name: "a family that fails once", visits: []visit{{families: six}, {families: noSix}}, says: "ipv6 reached"},
		{name: "a family that fails twice", visits: []visit{{families: six}, {families: noSix}, {families: noSix}}, says: "ipv6 unreached",
			warns: "the IPv6 address does not answer", events: []string{"family: the IPv6 address does not answer; correct it or take the AAAA record away"}},
		{name: "a family that answers again", visits: []visit{{families: noSix}, {families: noSix}, {families: six}}, says: "ipv6 reached", events: []string{"family: ipv6 works again"}},
		{name: "a family that has no address any more", visits: []visit{{families: six}, {families: noAAAA}}, says: "ipv6 untested"},
		{name: "a family that the checker has not", visits: []visit{{families: blind}}, says: "ipv6 untested"},
		{name: "a family that is not tried keeps what was known", visits: []visit{{families: six}, {}}, says: "ipv6 reached"},

		{name: "a certificate with 80 of 90 days left", visits: []visit{{schemes: certificate(-days(10), days(80))}}},
		{name: "a certificate with 20 of 90 days left", visits: []visit{{schemes: certificate(-days(70), days(20))}},
			warns: "the certificate of https ends on ", events: []string{"tls: the certificate of https ends on 4 February 2027, 08:00 UTC"}},
		{name: "a certificate is announced once for each threshold", visits: []visit{{schemes: certificate(-days(70), days(20))}, {}}, warns: "the certificate of https ends on "},
		{name: "a certificate that comes below a week", visits: []visit{{schemes: certificate(-days(70), days(20))}, {after: days(13) + time.Hour}},
			warns: "the certificate of https ends on ", events: []string{"tls: the certificate of https ends on 4 February 2027, 08:00 UTC"}},
		{name: "a certificate between a week and a day", visits: []visit{{schemes: certificate(-days(70), days(20))}, {after: days(14)}, {after: days(4)}}, warns: "the certificate of https ends on "},
		{name: "a certificate on its last day", visits: []visit{{schemes: certificate(-days(70), days(20))}, {after: days(14)}, {after: days(5)}},
			warns: "the certificate of https ends on ", events: []string{"tls: the certificate of https ends on 4 February 2027, 08:00 UTC"}},
		{name: "a certificate that was renewed", visits: []visit{{schemes: certificate(-days(70), days(20))}, {schemes: certificate(0, days(90))}}},
		{name: "a certificate that lives for a week, in its first days", visits: []visit{{schemes: certificate(-days(1), days(6))}}},
		{name: "a certificate that lives for a week, on its last day", visits: []visit{{schemes: certificate(-days(6), days(1))}},
			warns: "the certificate of https ends on ", events: []string{"tls: the certificate of https ends on 16 January 2027, 08:00 UTC"}},

		{name: "a redirect to another host", visits: []visit{{other: "cdn.example.net"}}, warns: "requests are redirected to cdn.example.net"},
		{name: "a redirect that has ended", visits: []visit{{other: "cdn.example.net"}, {}}},
		{name: "a TIME of now", visits: []visit{{time: time.Minute}}},
		{name: "a TIME in the future", visits: []visit{{time: time.Hour}}, warns: "TIME is in the future"},
		{name: "a TIME in the past", visits: []visit{{time: -days(90)}}},
		{name: "a clock that is right", visits: []visit{{clock: -3 * time.Second}}},
		{name: "a clock that is fast", visits: []visit{{clock: time.Hour}}, warns: "the clock of the web server is wrong"},
		{name: "a clock that is slow", visits: []visit{{clock: -time.Hour}}, warns: "the clock of the web server is wrong"},
		{name: "a clock that was corrected", visits: []visit{{clock: time.Hour}, {}}},
		{name: "families that serve the same", visits: []visit{{families: sums(1, 1)}}},
		{name: "families that serve different files", visits: []visit{{families: sums(1, 2)}}, warns: "http and https, or IPv4 and IPv6, serve different files"},
		{name: "families that have served different files", visits: []visit{{families: sums(1, 2)}, {}}, warns: "http and https, or IPv4 and IPv6, serve different files"},
		{name: "families that serve the same again", visits: []visit{{families: sums(1, 2)}, {families: sums(2, 2)}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newTrial(t)
			w.see(w.visit())
			for _, v := range tt.visits {
				w.now = w.now.Add(v.after)
				o := w.visit()
				o.Schemes, o.Families, o.Clock = v.schemes, v.families, v.clock
				for k, seen := range o.Keys {
					seen.OtherHost = v.other
					o.Keys[k] = seen
				}
				if v.time != 0 {
					o.Time = w.now.Add(v.time)
				}
				w.see(o)
				for _, k := range []state.Key{appstream, crb, extras} {
					if w.status.Health[k] != state.Fresh {
						t.Fatalf("%s is %s; a way that fails is no fault of a repository", k, w.status.Health[k])
					}
				}
			}
			way, want, _ := strings.Cut(tt.says, " ")
			got := map[string]string{"ipv4": w.status.IPv4.String(), "ipv6": w.status.IPv6.String()}
			for name, s := range w.status.Schemes {
				got[name] = s.Works.String()
			}
			if got[way] != want {
				t.Errorf("%s is %q, want %q", way, got[way], want)
			}
			switch warned := strings.Join(w.status.Warnings, "; "); {
			case tt.warns == "" && warned != "":
				t.Errorf("warned of %q", warned)
			case !strings.HasPrefix(warned, tt.warns):
				t.Errorf("warned of %q, want %q", warned, tt.warns)
			}
			var events []string
			for _, e := range w.events {
				events = append(events, e.Kind+": "+e.Problem.Reason)
			}
			if !slices.Equal(events, tt.events) {
				t.Errorf("events %q, want %q", events, tt.events)
			}
			problem := ""
			if w.status.Problem != nil {
				problem = w.status.Problem.Reason
			}
			if problem != tt.problem {
				t.Errorf("the problem is %q, want %q", problem, tt.problem)
			}
		})
	}
}

func TestJudgeImages(t *testing.T) {
	complete := KeySeen{Outcome: Served, FilesAsked: 3}
	wrong := func(fs FileSeen) KeySeen {
		fs.Key, fs.Path = images, "minimal.iso"
		return KeySeen{Outcome: Served, FilesAsked: 3, FilesWrong: []FileSeen{fs}}
	}
	for _, tt := range []struct {
		name string
		seen []KeySeen
		want state.Health
	}{
		{"a complete set is listed", []KeySeen{complete}, state.Fresh},
		{"a set without an image is not", []KeySeen{complete, wrong(FileSeen{Outcome: Missing})}, state.Absent},
		{"a set that is complete again is", []KeySeen{wrong(FileSeen{Outcome: Missing}), complete}, state.Fresh},
		{"a mirror without images is a mirror", []KeySeen{{Outcome: Missing}}, state.Absent},
		{"images that were deleted are no fault", []KeySeen{complete, {Outcome: Missing}}, state.Absent},
		{"an image of another size is one", []KeySeen{complete, wrong(FileSeen{Outcome: Served, Wrong: "it is short"})}, state.Broken},
		{"an image that cannot be asked for is forgiven once", []KeySeen{complete, wrong(FileSeen{Outcome: Unreachable})}, state.Fresh},
		{"and not twice", []KeySeen{complete, wrong(FileSeen{Outcome: Unreachable}), {Outcome: Refused}}, state.Down},
		{"a directory whose files were not asked for says nothing", []KeySeen{{Outcome: Served}}, state.Pending},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newTrial(t)
			for _, seen := range tt.seen {
				o := w.visit()
				o.Keys[images] = seen
				w.see(o)
			}
			if got := w.status.Health[images]; got != tt.want {
				t.Errorf("the images are %s, want %s: %s", got, tt.want, asJSON(t, w.status))
			}
			if got := w.status.Health[appstream]; got != state.Fresh {
				t.Errorf("appstream is %s: images say nothing of repositories", got)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	w := newTrial(t)
	o := w.visit()
	o.Keys[baseos] = w.served(baseos, 0)
	w.see(o)
	if len(w.events) != 1 || len(w.events[0].Keys) != 4 || w.events[0].From != state.Pending || w.events[0].To != state.Fresh || w.events[0].Lag != 0 {
		t.Errorf("a first visit gives %s, want one event of four keys", asJSON(t, w.events))
	}
	w.play("publish")
	if len(w.events) != 0 {
		t.Errorf("a publication is an event of mirrors: %s", asJSON(t, w.events))
	}
	w.play("+30m")
	w.play("newest")
	if len(w.events) != 1 || len(w.events[0].Keys) != 1 || w.events[0].Lag != 31*time.Minute {
		t.Errorf("a flip gives %s, want one event after 31 minutes", asJSON(t, w.events))
	}
	if !w.status.Changed.Equal(w.now) {
		t.Errorf("changed at %s, want %s", w.status.Changed, w.now)
	}
	w.play("newest")
	if len(w.events) != 0 {
		t.Errorf("nothing new gives %s", asJSON(t, w.events))
	}
	w.play("silent")
	if len(w.events) != 0 {
		t.Errorf("what is forgiven gives %s", asJSON(t, w.events))
	}
	w.play("silent")
	if len(w.events) != 2 || w.events[0].To != state.Down || len(w.events[0].Keys) != 4 || w.events[1].From != state.Pending {
		t.Errorf("an outage gives %s", asJSON(t, w.events))
	}
	if p := w.events[0].Problem; p == nil || p.Reason != "the mirror does not answer" || p.Evidence == nil {
		t.Errorf("the outage is explained by %s", asJSON(t, p))
	}
	w.play("newest")
	w.play("tampered")
	if len(w.events) != 1 || w.events[0].To != state.Broken || w.events[0].Problem == nil || w.events[0].Problem.Evidence == nil {
		t.Errorf("a lie gives %s", asJSON(t, w.events))
	}
}

// What is wrong with several repositories is said once, since when it began.
func TestWorstProblem(t *testing.T) {
	w := newTrial(t)
	w.play("newest")
	for range 3 {
		o := w.visit()
		for _, k := range []state.Key{baseos, appstream} {
			o.Keys[k] = KeySeen{Outcome: Garbage, Evidence: evidence}
		}
		w.see(o)
	}
	p := w.status.Problem
	if p == nil || p.Reason != "9.8/baseos/x86_64: what is served as repomd.xml is something else (and 1 more repository)" {
		t.Fatalf("the problem is %s", asJSON(t, p))
	}
	if want := w.now.Add(-2 * time.Minute); !p.Since.Equal(want) {
		t.Errorf("since %s, want %s", p.Since, want)
	}
	o := w.visit()
	o.Keys[crb] = KeySeen{Outcome: Served, SHA256: state.Hash256{1}, Revision: w.truth[crb].Newest().Revision, Evidence: evidence}
	w.see(o)
	if p := w.status.Problem; p == nil || !strings.HasPrefix(p.Reason, "9.8/crb/x86_64: repomd.xml says that it is revision") {
		t.Errorf("a lie does not come first: %s", asJSON(t, p))
	}
	if w.status.Findings[appstream] != nil && w.status.Health[appstream] != state.Fresh {
		t.Errorf("appstream is %s", w.status.Health[appstream])
	}
}

// A mirror that is wrong everywhere does not fill the state with evidence.
func TestEvidenceIsBounded(t *testing.T) {
	w := newTrial(t)
	var keys []state.Key
	for i := range 200 {
		k := state.Key{Version: "9.8", Repo: "r" + strconv.Itoa(i), Arch: "x86_64"}
		keys = append(keys, k)
		w.truth[k] = w.truth[baseos]
	}
	w.m.promises = newPromises(keys)
	w.now = w.now.Add(time.Minute)
	o := &Observation{At: w.now, Keys: map[state.Key]KeySeen{}}
	for _, k := range keys {
		o.Keys[k] = KeySeen{Outcome: Garbage, Evidence: evidence}
	}
	w.see(o)
	n := 0
	for _, f := range w.status.Findings {
		if f.Problem == nil {
			t.Fatal("a repository is broken without a reason")
		}
		if f.Problem.Evidence != nil {
			n++
		}
	}
	if len(w.status.Findings) != 200 || n != maxEvidence {
		t.Errorf("%d findings with %d requests, want 200 with %d", len(w.status.Findings), n, maxEvidence)
	}
}

// Whatever is seen, in whatever order: nothing panics, what was before is not
// changed, a status is the same after it was stored, a repeated visit changes
// nothing, and a liar is listed for nothing before lieAnswers right answers.
func TestJudgeAnything(t *testing.T) {
	for seed := range uint64(150) {
		w := newTrial(t)
		rnd := rand.New(rand.NewPCG(seed, 7))
		clean := map[state.Key]int{} // answers since a lie, of keys that lied
		var inStep steps
		for step := range 60 {
			if rnd.IntN(6) == 0 {
				w.play([]string{"+10m", "+7h", "+26h", "publish", "origin-away", "origin-read", "several-have-it"}[rnd.IntN(7)])
			}
			o, lies := anything(w, rnd)
			for k := range lies {
				clean[k] = 0
			}
			w.see(o)
			if h, least := w.status.Health[baseos], inStep.least(w, o, lies[baseos]); h.Listable() && inStep.n < least {
				t.Fatalf("seed %d, step %d: it fell back, and is %s after %d answers in step, want %d: %s", seed, step, h, inStep.n, least, asJSON(t, w.status))
			}
			for k, n := range clean {
				if seen, ok := o.Keys[k]; ok && !lies[k] {
					if seen.Outcome == Served {
						n++
					} else {
						n = 0
					}
					clean[k] = n
				}
				h := w.status.Health[k]
				if h.Listable() && n < lieAnswers {
					t.Fatalf("seed %d, step %d: %s is %s after a lie and %d right answers: %s", seed, step, k, h, n, asJSON(t, w.status))
				}
				if h.Listable() {
					delete(clean, k)
				}
			}
			for k, h := range w.status.Health {
				if _, held := w.status.Holds[k]; held && h != state.Lagging && h != state.Stale {
					t.Fatalf("seed %d, step %d: %s is %s, and holds an older generation", seed, step, k, h)
				}
				if f := w.status.Findings[k]; f != nil && f.Lied && h != state.Broken {
					t.Fatalf("seed %d, step %d: %s lied, and is %s", seed, step, k, h)
				}
				if _, held := w.status.Holds[k]; k == baseos && h == state.Lagging && !held {
					t.Fatalf("seed %d, step %d: what nobody has seen at tier0 lags: %s", seed, step, asJSON(t, w.status))
				}
				if h == state.Unprobed || h == state.Broken && w.status.Findings[k] == nil {
					t.Fatalf("seed %d, step %d: %s is %s for no reason", seed, step, k, h)
				}
			}
		}
	}
}

// steps follow the generations that baseos is answered with, by their revisions.
type steps struct {
	last   int       // revision
	n      int       // answers in a row that are not older than the one before
	struck time.Time // when one was older; zero: never
}

// least takes a visit that was judged, and returns how many answers have to be in
// step before the next list.
func (s *steps) least(w *trial, o *Observation, lies bool) int {
	take := func(seen *KeySeen) {
		revision, err := strconv.Atoi(seen.Revision)
		newest, _ := strconv.Atoi(w.truth[baseos].Newest().Revision)
		switch f := w.status.Findings[baseos]; {
		case seen.Outcome != Served || err != nil || lies:
			return
		case f != nil && f.Lied && revision > newest:
			return // nobody knows it
		}
		if s.n++; revision < s.last {
			s.n, s.struck = 0, w.now
		}
		s.last = revision
	}
	if seen, ok := o.Keys[baseos]; ok {
		take(&seen)
		if seen.Again != nil {
			before := s.n
			if take(seen.Again); s.n > before {
				s.n = before // to agree is no second merit
			}
		}
	}
	if w.status.Health[baseos] == state.Absent {
		*s = steps{} // it was given up
	}
	if s.struck.IsZero() {
		return 0
	}
	return relapseStrikes - int(w.now.Sub(s.struck)/strikeLife)
}

// anything is a random visit, and the keys that it catches lying.
func anything(w *trial, rnd *rand.Rand) (*Observation, map[state.Key]bool) {
	words := []string{
		"newest", "newest", "newest", "newest-unasked", "second", "third", "between", "ancient", "future", "tampered", "tampered-second",
		"html", "404", "503", "timeout", "no-primary", "short-primary", "forged-primary", "silent-primary",
	}
	files := []string{"file-right", "file-missing", "file-short", "file-forged", "file-timeout", "file-gone", "file-gone-for-good", "next-right", "next-forged"}
	o := w.visit()
	lies := map[state.Key]bool{}
	if rnd.IntN(5) > 0 {
		word := words[rnd.IntN(len(words))]
		seen, _ := w.sees(word)
		if rnd.IntN(4) == 0 {
			again, _ := w.sees(words[rnd.IntN(9)])
			seen.Again = &again
		}
		o.Keys[baseos] = seen
		lies[baseos] = word == "tampered" || word == "tampered-second" || word == "forged-primary"
	}
	if rnd.IntN(8) == 0 {
		fs, _ := file(files[rnd.IntN(len(files))])
		o.Files = append(o.Files, fs)
		lies[baseos] = lies[baseos] || fs.Content && fs.Wrong != ""
	}
	for _, k := range []state.Key{appstream, crb, extras, images} {
		switch rnd.IntN(4) {
		case 0:
			delete(o.Keys, k)
		case 1:
			o.Keys[k] = KeySeen{Outcome: Outcome(rnd.IntN(7)), Revision: strconv.Itoa(rnd.IntN(3)), Timestamp: rnd.Int64(), FilesAsked: rnd.IntN(2)}
		}
	}
	some := func() Answer {
		return Answer{
			OK: rnd.IntN(2) == 0, Insecure: rnd.IntN(4) == 0, Untested: rnd.IntN(4) == 0,
			TLSExpires: w.now.Add(time.Duration(rnd.IntN(40)) * 24 * time.Hour), TLSBegins: w.now.Add(-time.Duration(rnd.IntN(90)) * 24 * time.Hour),
		}
	}
	if rnd.IntN(3) == 0 {
		o.Schemes = map[string]Answer{"http": some(), "https": some(), "gopher": some()}
		o.Families = map[Family]Answer{IPv4: some(), IPv6: some(), "decnet": some()}
	}
	switch rnd.IntN(10) {
	case 0:
		for k := range o.Keys {
			o.Keys[k] = KeySeen{Outcome: Outcome(rnd.IntN(2))}
		}
		o.Files, o.Schemes, o.Families, lies = nil, nil, nil, map[state.Key]bool{}
	case 1:
		o.Keys, lies = nil, map[state.Key]bool{}
		o.Files = nil
	}
	maps.DeleteFunc(lies, func(_ state.Key, lied bool) bool { return !lied })
	return o, lies
}

// A round of visits that find nothing new costs next to nothing.
func BenchmarkJudgeUnchanged(b *testing.B) {
	t := &testing.T{}
	w := newTrial(t)
	var keys []state.Key
	for i := range 140 {
		k := state.Key{Version: "9.8", Repo: "r" + strconv.Itoa(i), Arch: "x86_64"}
		keys = append(keys, k)
		w.truth[k] = w.truth[baseos]
	}
	w.m.promises = newPromises(keys)
	o := &Observation{At: w.now, Keys: map[state.Key]KeySeen{}}
	for _, k := range keys {
		o.Keys[k] = w.served(k, 0)
	}
	st, _ := judge(nil, o, w.truths, w.m, ofTwelve)
	b.ReportAllocs()
	for b.Loop() {
		o.At = o.At.Add(time.Minute)
		st, _ = judge(st, o, w.truths, w.m, ofTwelve)
	}
}

// A mirror that was away earns its way back by answering. What it refuses for ever
// is no answer to that.
func TestOneRefusedRepositoryHoldsNoOtherBack(t *testing.T) {
	for _, tt := range []struct {
		name     string
		outcomes []Outcome
		want     int // successes, of 1 before
	}{
		{"all are served", []Outcome{Served, Served}, 2},
		{"one is refused", []Outcome{Served, Refused}, 2},
		{"one is missing", []Outcome{Served, Missing}, 2},
		{"one does not answer", []Outcome{Served, Unreachable}, 0},
		{"all are refused", []Outcome{Refused, Refused}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := &Observation{Keys: map[state.Key]KeySeen{}}
			for i, out := range tt.outcomes {
				o.Keys[[]state.Key{baseos, extras}[i]] = KeySeen{Outcome: out}
			}
			v := &verdict{next: state.Status{Strikes: 3, Successes: 1}}
			if held := v.returning(o); !held || v.next.Successes != tt.want {
				t.Errorf("held back %v after %d successes, want %d", held, v.next.Successes, tt.want)
			}
		})
	}
}

// Who asks why an unprobed mirror is unprobed is told.
func TestMirrorOutOfReach(t *testing.T) {
	w := newTrial(t)
	w.play("newest")
	w.now = w.now.Add(time.Minute)
	w.play("no-way-there")
	if st := w.status; !st.Unrouted || st.IPv6 != state.Untested || st.Problem == nil || !strings.Contains(st.Problem.Reason, "no way to any address") {
		t.Errorf("the status is %s", asJSON(t, st))
	}
	if len(w.events) == 0 || w.events[0].From != state.Fresh || w.events[0].To != state.Unprobed || w.events[0].Problem == nil {
		t.Errorf("the events are %+v", w.events)
	}
	w.now = w.now.Add(time.Minute)
	w.play("newest")
	if st := w.status; st.Unrouted || st.Problem != nil {
		t.Errorf("the status is %s", asJSON(t, st))
	}
}
