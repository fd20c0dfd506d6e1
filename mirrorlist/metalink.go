package mirrorlist

import (
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"meridian/checker/state"
)

// A metalink names mirrors of a repository's repomd.xml together with the size
// and the hashes that the file must have, so that no mirror can serve an older or
// another one. The format is that of Fedora's MirrorManager, which librepo and
// zypper read: metalink 3.0, and the prefix mm0 for what that does not have.

// metalinkMaxAge is how old findings may be before nobody vouches for a hash any
// more: one that no mirror serves would stop every client.
const metalinkMaxAge = 15 * time.Minute

// When the mirrors that were seen with the newest generation hold freshAll of the
// bandwidth, and this many are in an answer, older generations are not accepted
// any more: zypper tries four.
const enoughFresh = 4

var typeMetalink = []string{"application/metalink+xml"}

// metalink answers /metalink/VERSION/REPO.
func (s *Server) metalink(c *gin.Context) error {
	return s.answerMetalink(c, s.table.Load(), c.Param("version"), c.Param("repo"), parseParams(c.Request.URL.RawQuery))
}

// metalinkByQuery answers /metalink?repo=NAME-VERSION&arch=ARCH.
func (s *Server) metalinkByQuery(c *gin.Context) error {
	t := s.table.Load()
	p := parseParams(c.Request.URL.RawQuery)
	if p.repo == "" {
		return badRequest(`missing "repo": try /metalink?repo=%s&arch=x86_64`, t.exampleRepo())
	}
	repo, version, no := t.splitRepo(p.repo)
	if no != nil {
		return no
	}
	return s.answerMetalink(c, t, version, repo, p)
}

func (s *Server) answerMetalink(c *gin.Context, t *Table, version, repo string, p params) error {
	q, vault, no := t.listRequest(version, repo, "", p)
	if no != nil {
		return no
	}
	slot := &t.slots[q.slot]
	if p.arch == "" && slot.perArch {
		// One hash is of one architecture, and the User-Agent does not always tell
		// which: x86_64_v2 systems say x86_64.
		return badRequest("missing \"arch\": write metalink=…/metalink/%s/%s?arch=$basearch", clip(version), clip(repo))
	}
	h := c.Writer.Header()
	h["Content-Type"], h["Cache-Control"] = typeMetalink, noStore
	if t.date != nil {
		h["Date"] = t.date
	}
	sc := scratches.Get().(*scratch) // after a panic it is not used again
	if vault == "" {
		if no := s.decide(c.Request, t, &q, sc); no != nil {
			scratches.Put(sc)
			return no
		}
	}
	sc.body = t.appendMetalink(sc.body[:0], &q, vault, sc)
	if vault != "" {
		t.countVault(c.Request, q.slot, &p)
	} else {
		t.count(c.Request, q.slot, &p, sc) // as it is listed: proofs drop mirrors
	}
	declareLength(h, len(sc.body))
	_, err := c.Writer.Write(sc.body)
	scratches.Put(sc)
	return hungUp(err)
}

// A proof is what a metalink says that the file must be.
type proof struct {
	truth *state.Truth // nil: the document is served without hashes

	// alternates are the older generations that are accepted too, as indices of
	// truth.Generations, newest first.
	alternates []int
}

// prove chooses what the mirrors of an answer are to be held to, and drops from
// the answer those that could not pass.
func (t *Table) prove(q *question, s *scratch, vault string) (p proof) {
	if t.snap == nil || !t.live || t.now.Sub(t.snap.Taken) > metalinkMaxAge {
		return proof{}
	}
	truth, ok := t.snap.Truth[t.slots[q.slot].truth]
	if !ok || len(truth.Generations) == 0 {
		return proof{}
	}
	if !truth.Disputed.IsZero() && t.now.Sub(truth.Disputed) > metalinkMaxAge {
		return proof{}
	}
	p.truth = &truth
	if vault != "" {
		return p
	}
	if len(t.slots[q.slot].keys) == 0 {
		return proof{} // nobody looks who has it
	}
	h := &t.health[q.slot]
	// served: a pick was seen with something that is accepted. any: one was, or
	// may have it.
	fresh, served, any := 0, false, false
	for _, pick := range s.picks {
		if h.fresh.has(pick.mirror) {
			fresh++
		}
	}
	over := fresh >= enoughFresh && t.mostlyFresh(h)
	accept := func(i int) {
		for _, have := range p.alternates {
			if have == i {
				return
			}
		}
		p.alternates = append(p.alternates, i)
	}
	kept := s.picks[:0]
	for _, pick := range s.picks {
		m := pick.mirror
		switch {
		case h.fresh.has(m):
			served = true
		case h.lag.has(m):
			i, known := h.holds(m)
			if !known || over || !t.acceptable(&truth, i) {
				if fresh > 0 {
					continue // it could only be tried in vain
				}
				break
			}
			accept(i)
			served = true
		case t.ahead(q.slot, m):
			// The origin has not confirmed what it has.
			if fresh > 0 {
				continue
			}
		case t.unseen(q.slot, m):
			// Nobody looks into a private network: it has one of those that it may
			// have.
			for i := 1; i < len(truth.Generations); i++ {
				if t.acceptable(&truth, i) {
					accept(i)
				}
			}
			any = true
		}
		kept = append(kept, pick)
	}
	s.picks = kept
	if !served {
		// Right after an expire nobody may have the newest yet. What these mirrors do
		// have beats nothing, and without hashes whatever was ever signed would pass.
		for _, pick := range s.picks {
			if i, known := t.leftover(q.slot, pick.mirror, &truth); known {
				accept(i)
				served = true
			}
		}
	}
	if !served && !any {
		return proof{} // a hash that nobody serves
	}
	// Newest first, whatever order the mirrors came in.
	for i := range p.alternates {
		for j := i; j > 0 && p.alternates[j-1] > p.alternates[j]; j-- {
			p.alternates[j-1], p.alternates[j] = p.alternates[j], p.alternates[j-1]
		}
	}
	return p
}

// acceptable reports whether an older generation may still be used.
func (t *Table) acceptable(truth *state.Truth, i int) bool {
	if i < 1 || i >= len(truth.Generations) || truth.Expired || truth.Generations[i].Expired {
		return false
	}
	outdate := t.network.AllowedOutdate
	return outdate <= 0 || t.now.Before(truth.Generations[i-1].FirstSeen.Add(outdate))
}

// leftover returns which older generation a mirror was seen with, also when it was
// withdrawn or is too old.
func (t *Table) leftover(slot int, m uint16, truth *state.Truth) (generation int, known bool) {
	k, st := t.slots[slot].keys[0], t.status(m)
	switch healthOf(st, k, t.live, t.public.has(m)) {
	case state.Lagging, state.Stale:
	default:
		return 0, false
	}
	id, known := st.Holds[k]
	if !known {
		return 0, false
	}
	i := slices.IndexFunc(truth.Generations, func(g state.Generation) bool { return g.ID() == id })
	return i, i > 0
}

// unseen reports whether nobody has looked what a mirror serves for a slot.
func (t *Table) unseen(slot int, m uint16) bool {
	switch healthOf(t.status(m), t.slots[slot].keys[0], t.live, t.public.has(m)) {
	case state.Unprobed, state.Unknown, state.Pending:
		return true
	}
	return false
}

// ahead reports whether a mirror was seen with something newer than is known.
func (t *Table) ahead(slot int, m uint16) bool {
	return healthOf(t.status(m), t.slots[slot].keys[0], t.live, t.public.has(m)) == state.Ahead
}

// mostlyFresh reports whether the public mirrors with the newest generation hold
// most of the bandwidth of those that may be listed.
func (t *Table) mostlyFresh(h *slotHealth) bool {
	fresh, all := 0, 0
	for i, w := range t.weights {
		if m := uint16(i); h.list.has(m) && t.public.has(m) {
			all += w
			if h.fresh.has(m) {
				fresh += w
			}
		}
	}
	return float64(fresh) >= freshAll*float64(all)
}

// appendMetalink appends the answer as a metalink.
func (t *Table) appendMetalink(b []byte, q *question, vault string, s *scratch) []byte {
	p := t.prove(q, s, vault)
	b = append(b, `<?xml version="1.0" encoding="utf-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" type="dynamic" pubdate="`...)
	if t.date != nil {
		b = append(b, t.date[0]...)
	} else {
		b = t.now.UTC().AppendFormat(b, http.TimeFormat)
	}
	b = append(b, `" generator="meridian" xmlns:mm0="http://fedorahosted.org/mirrormanager">
 <files>
  <file name="repomd.xml">
`...)
	if p.truth != nil {
		b = appendGeneration(b, "   ", &p.truth.Generations[0])
		if len(p.alternates) > 0 {
			b = append(b, "   <mm0:alternates>\n"...)
			for _, i := range p.alternates {
				b = append(b, "    <mm0:alternate>\n"...)
				b = appendGeneration(b, "     ", &p.truth.Generations[i])
				b = append(b, "    </mm0:alternate>\n"...)
			}
			b = append(b, "   </mm0:alternates>\n"...)
		}
	}
	b = append(b, "   <resources maxconnections=\"1\">\n"...)
	if vault != "" {
		b = appendResource(b, vault, "", [2]byte{}, 100)
	} else {
		urls := t.ways[q.tree].urls[q.want]
		for i, pick := range s.picks {
			// zypper goes by preference, librepo by the order of the document.
			b = appendResource(b, urls[pick.mirror], q.suffix, t.mirrors[pick.mirror].country, max(1, 100-i))
		}
	}
	return append(b, "   </resources>\n  </file>\n </files>\n</metalink>\n"...)
}

func appendGeneration(b []byte, indent string, g *state.Generation) []byte {
	b = append(append(b, indent...), "<mm0:timestamp>"...)
	b = strconv.AppendInt(b, g.Timestamp, 10)
	b = append(append(append(b, "</mm0:timestamp>\n"...), indent...), "<size>"...)
	b = strconv.AppendInt(b, g.Size, 10)
	b = append(append(append(b, "</size>\n"...), indent...), "<verification>\n"...)
	b = append(append(b, indent...), ` <hash type="sha256">`...)
	b = hex.AppendEncode(b, g.SHA256[:])
	b = append(append(append(b, "</hash>\n"...), indent...), ` <hash type="sha512">`...)
	b = hex.AppendEncode(b, g.SHA512[:])
	return append(append(append(b, "</hash>\n"...), indent...), "</verification>\n"...)
}

// appendResource appends one URL of repomd.xml: base and suffix are the
// repository's.
func appendResource(b []byte, base, suffix string, country [2]byte, preference int) []byte {
	scheme := "http"
	if len(base) > 5 && base[4] == 's' {
		scheme = "https"
	}
	b = append(append(b, `    <url protocol="`...), scheme...)
	b = append(append(append(b, `" type="`...), scheme...), '"')
	if country != ([2]byte{}) {
		b = append(append(append(b, ` location="`...), country[:]...), '"')
	}
	b = append(b, ` preference="`...)
	b = strconv.AppendInt(b, int64(preference), 10)
	b = append(b, `">`...)
	b = appendEscaped(appendEscaped(b, base), suffix)
	return append(b, "repodata/repomd.xml</url>\n"...)
}

// appendEscaped appends text of XML. URLs have been checked to be URLs: what a
// document could not hold at all is not in them.
func appendEscaped(b []byte, s string) []byte {
	for i := range len(s) {
		switch s[i] {
		case '&':
			b = append(b, "&amp;"...)
		case '<':
			b = append(b, "&lt;"...)
		case '>':
			b = append(b, "&gt;"...)
		case '"':
			b = append(b, "&#34;"...)
		default:
			b = append(b, s[i])
		}
	}
	return b
}
