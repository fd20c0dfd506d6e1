package checker

import (
	"cmp"
	"fmt"
	"time"

	"meridian/checker/state"
)

// What operators are told: one sentence that says what is wrong, and another that
// says what to do. The same trouble has the same words at each visit, so that it
// can be said since when there is it; what differs is in the evidence.

// since puts into p since when there is this trouble: since that of before, if it
// is the same; else since now, unless p says so itself.
func since(before, p *state.Problem, at time.Time) *state.Problem {
	if p == nil {
		return nil
	}
	said := *p
	if said.Since.IsZero() {
		said.Since = at
	}
	if before != nil && before.Reason == p.Reason {
		said.Since = before.Since
		if said.Evidence == nil {
			said.Evidence = before.Evidence
		}
	}
	return &said
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

const (
	itselfAgain = "Nothing else has to be done: the checker asks again by itself."

	wrongClock = "the clock of the web server is wrong by more than ten minutes; what it says of the age of files misleads caches"

	waysApart = "http and https, or IPv4 and IPv6, serve different files; see that they are the same tree on the same servers"

	renewCertificate = "Renew the certificate, and see why that was not done by itself."
)

// silence is about a mirror that gave no answer to anything.
func silence(o *Observation) *state.Problem {
	p := &state.Problem{
		Reason: "the mirror does not answer",
		Remedy: "See whether the web server runs and can be reached from outside. " + itselfAgain,
	}
	refused := 0
	for _, k := range sortedKeys(o.Keys) {
		seen := o.Keys[k]
		if seen.Outcome == Refused {
			refused++
		}
		if p.Evidence == nil {
			p.Evidence = seen.Evidence
		}
	}
	for _, name := range []string{"http", "https"} {
		if a, ok := o.Schemes[name]; ok && p.Evidence == nil {
			p.Evidence = a.Evidence
		}
	}
	if refused > 0 {
		p.Reason = "the mirror refuses every request" + withStatus(p.Evidence)
		p.Remedy = "See why the web server answers so; requests of the checker name it in their User-Agent. " + itselfAgain
	}
	return p
}

// outOfReach is about a mirror that this host has no way to.
var outOfReach = state.Problem{
	Reason: "the checker has no way to any address of the mirror, which is neither judged nor taken out of lists for that",
	Remedy: "A mirror that has IPv6 only needs a checker that has it too. An IPv4 address would let this one look.",
}

func withStatus(e *state.Evidence) string {
	if e == nil || e.Status == 0 {
		return ""
	}
	return fmt.Sprintf(" with status %d", e.Status)
}

// byStatus is withStatus for what is not there.
func byStatus(e *state.Evidence) string {
	if e == nil || e.Status == 0 {
		return ""
	}
	return fmt.Sprintf(": status %d", e.Status)
}

// refusal is about one document that was not to be had, of a mirror that answers
// for others.
func refusal(k state.Key, what string, out Outcome, e *state.Evidence) *state.Problem {
	p := &state.Problem{
		Reason:   fmt.Sprintf("%s: %s is not answered", k, what),
		Remedy:   "See why this directory is not served while others are. " + itselfAgain,
		Evidence: e,
	}
	if out == Refused {
		p.Reason = fmt.Sprintf("%s: %s is refused%s", k, what, withStatus(e))
		p.Remedy = "See the permissions of the directory and the rules of the web server. " + itselfAgain
	}
	return p
}

// gone is about a repository that was there.
func gone(k state.Key, e *state.Evidence) *state.Problem {
	return &state.Problem{
		Reason:   fmt.Sprintf("%s: the repository was there and is gone%s", k, byStatus(e)),
		Remedy:   "See whether the last sync was cut short. If the mirror is not to have it, write so below carries: in its file.",
		Evidence: e,
	}
}

// garbage is about a 200 that is not the document.
func garbage(k state.Key, e *state.Evidence) *state.Problem {
	what := "repomd.xml"
	if k.Repo == isos {
		what = "the directory of images"
	}
	return &state.Problem{
		Reason:   fmt.Sprintf("%s: what is served as %s is something else", k, what),
		Remedy:   "Look at the answer below. Web pages that say that something is missing need the status 404, and files must arrive whole.",
		Evidence: e,
	}
}

// forged is about a known generation with other bytes.
func forged(k state.Key, seen *KeySeen) *state.Problem {
	return &state.Problem{
		Reason:   fmt.Sprintf("%s: repomd.xml says that it is revision %s, and has other bytes than that of tier0", k, seen.Revision),
		Remedy:   "Find out who has changed the file, and sync the repository again with rsync --checksum. It is listed again after several right answers.",
		Evidence: seen.Evidence,
	}
}

// unpublished is about a generation that the origin was asked for and does not
// have.
func unpublished(k state.Key, seen *KeySeen, t *state.Truth) *state.Problem {
	return &state.Problem{
		Reason:   fmt.Sprintf("%s: revision %s is newer than the newest that tier0 has published (%s)", k, seen.Revision, t.Newest().Revision),
		Remedy:   "Sync from tier0 or from a mirror that does, and find out where this repomd.xml is from.",
		Evidence: seen.Evidence,
	}
}

// ahead is about a generation that may be the origin's.
func ahead(k state.Key, seen *KeySeen, t *state.Truth) *state.Problem {
	reason := fmt.Sprintf("%s: revision %s is newer than what the checker has seen whole at tier0 (%s)", k, seen.Revision, t.Newest().Revision)
	if order(seen.Revision, seen.Timestamp, t.Newest()) <= 0 {
		reason = fmt.Sprintf("%s: tier0 serves revision %s in two forms, and the mirror has the one that is not confirmed", k, seen.Revision)
	}
	return &state.Problem{
		Reason:   reason,
		Remedy:   "The mirror is listed. The administrators of tier0 see why it could not be confirmed.",
		Evidence: seen.Evidence,
	}
}

const syncTogether = "If several servers or caches answer for the mirror, sync all of them before any of them shows what is new."

// relapsed is about an older generation after a newer one.
func relapsed(k state.Key, seen *KeySeen) *state.Problem {
	return &state.Problem{
		Reason:   fmt.Sprintf("%s: an older repomd.xml follows a newer one", k),
		Remedy:   syncTogether + " It is listed again when several answers in a row were in step.",
		Evidence: seen.Evidence,
	}
}

// twoAnswers is about two answers to one question.
func twoAnswers(k state.Key, seen *KeySeen) *state.Problem {
	return &state.Problem{
		Reason:   fmt.Sprintf("%s: one question after another is answered with different files", k),
		Remedy:   syncTogether,
		Evidence: cmp.Or(seen.Again.Evidence, seen.Evidence),
	}
}

// unseen is about a generation between two that tier0 was seen with.
func unseen(k state.Key, seen *KeySeen) *state.Problem {
	return &state.Problem{
		Reason:   fmt.Sprintf("%s: tier0 was never seen with revision %s, which is older than its newest", k, seen.Revision),
		Remedy:   "Sync again: the mirror is listed with the next generation that it has. If syncs bring nothing, find out where this repomd.xml is from.",
		Evidence: seen.Evidence,
	}
}

// wrongFile is about a file that repodata names, or an image.
func wrongFile(k state.Key, fs *FileSeen) *state.Problem {
	p := &state.Problem{Evidence: fs.Evidence}
	switch {
	case fs.Outcome == Missing:
		p.Reason = fmt.Sprintf("%s: %s is missing", k, fs.Path)
		p.Remedy = "Sync packages first, then the other files of repodata, and repomd.xml last. " + itselfAgain
	case fs.Outcome == Garbage:
		p.Reason = fmt.Sprintf("%s: what is served as %s is something else", k, fs.Path)
		p.Remedy = "Look at the answer below, and sync the repository again."
	default:
		p.Reason = fmt.Sprintf("%s: %s is not as published: %s", k, fs.Path, fs.Wrong)
		p.Remedy = "Sync the repository again with rsync --checksum, and see whether the disk is full or failing."
	}
	if k.Repo == isos {
		p.Remedy = "Sync the directory of images again. Repositories are not affected."
	}
	return p
}

// outdated is about an older generation that may not be handed out any more.
func outdated(k state.Key, allowed time.Duration, e *state.Evidence) *state.Problem {
	return &state.Problem{
		Reason:   fmt.Sprintf("%s: tier0 has had a newer repomd.xml for more than %s", k, short(allowed)),
		Remedy:   "See why the last syncs brought nothing: the log of rsync, the time of TIME, the disk. " + itselfAgain,
		Evidence: e,
	}
}

// flapping is about a mirror that comes and goes.
func flapping(more int) *state.Problem {
	return &state.Problem{
		Reason: "the mirror answers again after it went away several times; it is listed after more good answers in a row",
		Remedy: fmt.Sprintf("Nothing has to be done if it stays: %s to come.", count(more, "good answer is", "good answers are")),
	}
}

// brokenScheme is about one of the ways to the mirror.
func brokenScheme(name string, a Answer) *state.Problem {
	p := &state.Problem{
		Reason:   name + " does not work",
		Remedy:   "Make it work, or take the URL out of the mirror's file. Clients that ask for " + name + " are sent elsewhere meanwhile.",
		Evidence: a.Evidence,
	}
	if a.Insecure {
		p.Reason = name + " is not secure: its certificate is bad, or it leads to http"
		p.Remedy = "Renew or complete the certificate chain for this host name, and do not redirect from https to http."
	}
	return p
}

func endingCertificate(s *state.Scheme) string {
	return "the certificate of https ends on " + s.TLSExpires.UTC().Format("2 January 2006, 15:04 UTC")
}

func redirected(host string) string {
	return fmt.Sprintf("requests are redirected to %s; write the URL there into the mirror's file", host)
}

func deafFamily(f Family) string {
	if f == IPv4 {
		return "the IPv4 address does not answer"
	}
	return "the IPv6 address does not answer; correct it or take the AAAA record away"
}

func futureTime(t time.Time) string {
	return "TIME is in the future (" + t.UTC().Format(time.RFC3339) + "); it is not believed"
}

// short writes a duration as people do: 12h, not 12h0m0s.
func short(d time.Duration) string {
	if d >= time.Hour && d%time.Hour == 0 {
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return d.Round(time.Minute).String()
}
