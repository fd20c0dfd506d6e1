package mirrorlist

import (
	"encoding/xml"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"meridian/checker/state"
)

// The elements of a metalink that clients look at.
type metalinkDoc struct {
	Files []struct {
		Name         string           `xml:"name,attr"`
		Timestamp    int64            `xml:"timestamp"`
		Size         int64            `xml:"size"`
		Verification *verificationDoc `xml:"verification"`
		Alternates   []struct {
			Timestamp    int64            `xml:"timestamp"`
			Size         int64            `xml:"size"`
			Verification *verificationDoc `xml:"verification"`
		} `xml:"alternates>alternate"`
		URLs []struct {
			Protocol   string `xml:"protocol,attr"`
			Preference int    `xml:"preference,attr"`
			Text       string `xml:",chardata"`
		} `xml:"resources>url"`
	} `xml:"files>file"`
}

type verificationDoc struct {
	Hashes []struct {
		Type string `xml:"type,attr"`
		Text string `xml:",chardata"`
	} `xml:"hash"`
}

func (v *verificationDoc) hash(typ string) string {
	if v != nil {
		for _, h := range v.Hashes {
			if h.Type == typ {
				return h.Text
			}
		}
	}
	return ""
}

// Whatever the network and its health: a metalink is XML, its mirrors are those
// of the list in the same order, without those that could only be tried in vain,
// and a hash is in it only together with somebody who serves it. A generation that
// was withdrawn or is too old is accepted only where nobody in the answer has a
// better one, and only if somebody in the answer has it.
func TestMetalinkOfAnyWorld(t *testing.T) {
	eachWorld(t, func(t *testing.T, w *world, r *rand.Rand, requests int) {
		table := w.table(true)
		table.limit, table.now = w.limit, w.now
		var s scratch
		pinned, free := 0, 0
		for range requests / 10 {
			e := w.enquiry(r)
			if e.iso || e.arch == "" && e.repo != "source" {
				continue
			}
			e.now = w.now
			q, refused := e.ask(table)
			if refused {
				continue
			}
			table.decide(&q, &s)
			if len(s.picks) == 0 {
				continue
			}
			list := lines(table, &q, s.picks)
			body := table.appendMetalink(nil, &q, "", &s)
			var doc metalinkDoc
			if err := xml.Unmarshal(body, &doc); err != nil {
				t.Fatalf("%+v: %v\n%s", e, err, body)
			}
			if len(doc.Files) != 1 || doc.Files[0].Name != "repomd.xml" || len(doc.Files[0].URLs) == 0 {
				t.Fatalf("%+v:\n%s", e, body)
			}
			f := &doc.Files[0]
			last := 101
			for _, u := range f.URLs {
				if u.Preference >= last || u.Preference < 1 || !strings.HasPrefix(u.Text, u.Protocol+"://") {
					t.Errorf("%+v: %+v after preference %d", e, u, last)
				}
				last = u.Preference
				base, ok := strings.CutSuffix(u.Text, "repodata/repomd.xml")
				for len(list) > 0 && list[0] != base {
					list = list[1:]
				}
				if !ok || len(list) == 0 {
					t.Fatalf("%+v: %s is not in the list, or not there", e, u.Text)
				}
			}
			var truth state.Truth
			if w.in.snap != nil {
				truth = w.in.snap.Truth[table.slots[q.slot].truth]
			}
			current, held := false, map[string]bool{}
			for _, p := range s.picks {
				switch i := w.holds(table, p.mirror, table.slots[q.slot].truth); {
				case i == 0 || i > 0 && w.current(&truth, i):
					current = true
				case i > 0:
					held[truth.Generations[i].SHA256.String()] = true
				}
			}
			if f.Verification == nil {
				if looked := len(table.slots[q.slot].keys) > 0; looked && (current || len(held) > 0) {
					t.Errorf("%+v: anything passes, and somebody has what is known:\n%s", e, body)
				}
				if f.Size != 0 || len(f.Alternates) > 0 {
					t.Errorf("%+v: a size or alternates without a hash:\n%s", e, body)
				}
				free++
				continue
			}
			pinned++
			accepted := map[string]bool{f.Verification.hash("sha256"): true}
			for _, a := range f.Alternates {
				accepted[a.Verification.hash("sha256")] = true
			}
			served := false
			for _, p := range s.picks {
				st := table.status(p.mirror)
				k := table.slots[q.slot].truth
				switch table.verdictOf(p.mirror, k) {
				case state.Fresh:
					served = served || accepted[truth.Generations[0].SHA256.String()]
				case state.Lagging, state.Stale:
					for i := range truth.Generations {
						if g := &truth.Generations[i]; g.ID() == st.Holds[k] && accepted[g.SHA256.String()] {
							served = true
						}
					}
				case state.Unprobed, state.Unknown, state.Pending:
					served = true // for all that is known
				}
			}
			if !served {
				t.Errorf("%+v: a hash that nobody serves:\n%s", e, body)
			}
			for i := 1; i < len(truth.Generations); i++ {
				sum := truth.Generations[i].SHA256.String()
				if accepted[sum] && !w.current(&truth, i) && (current || !held[sum]) {
					t.Errorf("%+v: generation %d is accepted, and should not be:\n%s", e, i, body)
				}
			}
		}
		if len(w.in.mirrors) >= 20 && w.live && w.in.snap != nil && pinned == 0 || (!w.live || w.in.snap == nil) && pinned > 0 {
			t.Errorf("%d metalinks with hashes, %d without", pinned, free)
		}
	})
}

// holds returns which generation a mirror was seen with, negative if that is not
// known, or nothing is known any more.
func (w *world) holds(t *Table, m uint16, k state.Key) int {
	if w.in.snap == nil || !w.live {
		return -1
	}
	switch t.verdictOf(m, k) {
	case state.Fresh:
		return 0
	case state.Lagging, state.Stale:
		id, ok := t.status(m).Holds[k]
		older := func(g state.Generation) bool { return ok && g.ID() == id }
		if i := slices.IndexFunc(w.in.snap.Truth[k].Generations, older); i > 0 {
			return i
		}
	}
	return -1
}

// current tells whether an older generation was neither withdrawn nor superseded
// too long ago.
func (w *world) current(truth *state.Truth, i int) bool {
	return !truth.Expired && !truth.Generations[i].Expired && w.now.Before(truth.Generations[i-1].FirstSeen.Add(24*time.Hour))
}

// verdictOf is what a request at the table's moment knows.
func (t *Table) verdictOf(m uint16, k state.Key) state.Health {
	truth := t.snap.Truth[k]
	h, _, _ := verdict(t.status(m), k, &truth, t.live, t.public.has(m), t.network.AllowedOutdate, t.now)
	return h
}

func TestTextIsEscaped(t *testing.T) {
	const hostile = `a&b<c>"d"'`
	var got struct {
		A string `xml:"a,attr"`
		B string `xml:"b"`
	}
	doc := append(appendEscaped([]byte(`<x a="`), hostile), `"><b>`...)
	doc = append(appendEscaped(doc, hostile), "</b></x>"...)
	if err := xml.Unmarshal(doc, &got); err != nil || got.A != hostile || got.B != hostile {
		t.Errorf("%s reads as %+v, %v", doc, got, err)
	}
}
