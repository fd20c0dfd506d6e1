package state

import (
	"fmt"
	"strings"
)

// Title says what happened in one line, without naming the mirror: "9.8/baseos/x86_64
// and 136 more are down, were fresh: no answer within 30s".
func (e *Event) Title() string {
	var b strings.Builder
	switch e.Kind {
	case HealthChanged:
		verb := "is"
		switch n := len(e.Keys); {
		case n == 0:
			b.WriteString("everything")
		case n == 1:
			b.WriteString(e.Keys[0].name())
		default:
			fmt.Fprintf(&b, "%s and %d more", e.Keys[0].name(), n-1)
			verb = "are"
		}
		fmt.Fprintf(&b, " %s %s", verb, e.To)
		if e.From != Unknown {
			fmt.Fprintf(&b, ", before: %s", e.From)
		}
	case SchemeChanged:
		b.WriteString("a protocol changed")
	case FamilyChanged:
		b.WriteString("an address family changed")
	case OverrideChanged:
		b.WriteString("an administrator decided")
	case TLSExpiring:
		b.WriteString("the certificate ends soon")
	case Published:
		switch n := len(e.Keys); n {
		case 0:
			b.WriteString("published")
		case 1:
			fmt.Fprintf(&b, "%s was published", e.Keys[0].name())
		default:
			fmt.Fprintf(&b, "%s and %d more were published", e.Keys[0].name(), n-1)
		}
	case OriginTroubled:
		if e.Problem == nil {
			return "the origin is as it should be again"
		}
		b.WriteString("the origin is in trouble")
	default: // of a newer release
		b.WriteString(e.Kind)
	}
	if e.Problem != nil && e.Problem.Reason != "" {
		b.WriteString(": " + e.Problem.Reason)
	}
	return b.String()
}

// name is the key for people: VERSION/REPO for what has no architecture.
func (k Key) name() string { return strings.TrimSuffix(k.String(), "/") }

// Details is what an operator needs beyond the title: the keys, the remedy, and
// the request that shows the problem, as lines of text. It names no address of
// anybody but the mirror itself.
func (e *Event) Details() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	const most = 20
	for i, k := range e.Keys {
		if i == most {
			line("  … and %d more", len(e.Keys)-most)
			break
		}
		line("  %s", k.name())
	}
	if e.Lag > 0 {
		line("%s after publication", e.Lag.Round(1e9))
	}
	if p := e.Problem; p != nil {
		line("%s", p.Reason)
		if p.Remedy != "" {
			line("%s", p.Remedy)
		}
		if ev := p.Evidence; ev != nil {
			line("")
			line("  %s", ev.Curl())
			if ev.Final != "" && ev.Final != ev.URL {
				line("  answered by %s", ev.Final)
			}
			if ev.Remote != "" {
				line("  at %s", ev.Remote)
			}
			if ev.Status != 0 {
				line("  status %d", ev.Status)
			}
			for _, h := range ev.Header {
				line("  %s", h)
			}
			if ev.Error != "" {
				line("  %s", ev.Error)
			}
			if ev.Body != "" {
				line("  it began with: %s", ev.Body)
			}
			line("  asked at %s", ev.At.UTC().Format("2006-01-02 15:04:05 UTC"))
			if ev.Vantage != "" {
				line("  from %s", ev.Vantage)
			}
		}
	}
	return strings.TrimRight(b.String(), "\n")
}
