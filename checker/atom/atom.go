// Package atom writes what happened to a mirror as a feed that people subscribe
// to (RFC 4287). It decides nothing about what is worth telling: that is the
// history's.
package atom

import (
	"crypto/sha256"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/url"
	"time"

	"meridian/checker/state"
)

// ContentType of a feed.
const ContentType = "application/atom+xml; charset=utf-8"

// maxEntries bounds a feed. Readers keep what they have seen.
const maxEntries = 50

// A Source is whose events a feed tells.
type Source struct {
	Mirror string // its name
	Self   string // the URL of the feed itself
	Page   string // the URL of a page about the mirror; "" for none
}

type feed struct {
	XMLName xml.Name `xml:"http://www.w3.org/2005/Atom feed"`
	ID      string   `xml:"id"`
	Title   string   `xml:"title"`
	Updated string   `xml:"updated"`
	Author  person   `xml:"author"`
	Links   []link   `xml:"link"`
	Entries []entry  `xml:"entry"`
}

type person struct {
	Name string `xml:"name"`
}

type link struct {
	Rel  string `xml:"rel,attr,omitempty"`
	Href string `xml:"href,attr"`
}

type entry struct {
	ID      string `xml:"id"`
	Title   string `xml:"title"`
	Updated string `xml:"updated"`
	Links   []link `xml:"link"`
	Content text   `xml:"content"`
}

type text struct {
	Type string `xml:"type,attr"`
	Body string `xml:",chardata"`
}

// Write writes the newest events of a mirror, given newest first. A feed without
// events is one too: it is dated to the epoch, so that it does not change.
func Write(w io.Writer, src Source, events []state.Event) error {
	updated := time.Unix(0, 0)
	if len(events) > 0 {
		updated = events[0].Time
	}
	f := feed{
		ID:      tag(src.Mirror, ""),
		Title:   "Mirror " + src.Mirror,
		Updated: stamp(updated),
		Author:  person{"Meridian"},
		Links:   []link{{"self", src.Self}},
	}
	if src.Page != "" {
		f.Links = append(f.Links, link{"alternate", src.Page})
	}
	for i := range events[:min(len(events), maxEntries)] {
		e := &events[i]
		id, err := identify(e)
		if err != nil {
			return fmt.Errorf("atom: %w", err)
		}
		one := entry{ID: tag(src.Mirror, id), Title: e.Title(), Updated: stamp(e.Time), Content: text{"text", e.Details()}}
		if src.Page != "" {
			one.Links = []link{{"alternate", src.Page}}
		}
		f.Entries = append(f.Entries, one)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(f); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// identify names an event by what it says, so that its entry has one ID for ever.
func identify(e *state.Event) (string, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return fmt.Sprintf("%x", sum[:8]), nil
}

// tag makes a tag URI (RFC 4151), which names without saying where something is.
func tag(mirror, entry string) string {
	id := "tag:" + "meridian.invalid,2026:mirrors/" + url.PathEscape(mirror)
	if entry != "" {
		id += "/" + entry
	}
	return id
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
