package checker

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"meridian/checker/state"
)

// Overrides are what administrators of the network have decided against what is
// seen: one file, read again within seconds of a change.
type Overrides struct {
	Mirrors   map[string]MirrorOverride `yaml:"mirrors"`   // by name
	Withdrawn []Withdrawal              `yaml:"withdrawn"` // for all mirrors
}

// MirrorOverride is a decision about one mirror.
type MirrorOverride struct {
	Disabled bool `yaml:"disabled"` // never listed, to nobody
	Draining bool `yaml:"draining"` // listed only where the list is not full without it
	Weight   int  `yaml:"weight"`   // in place of its bandwidth, Mbit/s

	// Withdrawn are repositories that this mirror is not listed for: see
	// Withdrawal.Key.
	Withdrawn []string `yaml:"withdrawn"`

	Reason string    `yaml:"reason"`
	Until  time.Time `yaml:"until"` // zero: until it is taken out of the file
}

// Withdrawal takes repositories from everybody: they are answered with 404 and
// the reason.
type Withdrawal struct {
	// Key is VERSION/REPO/ARCH, in each part of which * stands for any text:
	// "9.8/nfv/*".
	Key    string    `yaml:"key"`
	Reason string    `yaml:"reason"`
	Until  time.Time `yaml:"until"` // zero: until it is taken out of the file
}

// Check reports what is wrong with overrides by themselves: each fault names its
// key, and says what to write instead.
func (o *Overrides) Check() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(o.Mirrors)) {
		m, at := o.Mirrors[name], "mirrors."+name
		if !m.Disabled && !m.Draining && m.Weight == 0 && len(m.Withdrawn) == 0 {
			errs = append(errs, fmt.Errorf("%s: nothing is decided; write disabled: true, draining: true, weight: MBITS or withdrawn: [KEY]", at))
		}
		if m.Disabled && m.Draining {
			errs = append(errs, fmt.Errorf("%s: disabled and draining; a disabled mirror is not listed at all, write one of them", at))
		}
		if m.Weight < 0 {
			errs = append(errs, fmt.Errorf("%s.weight: %d is negative; write Mbit/s, or disabled: true", at, m.Weight))
		}
		if strings.TrimSpace(m.Reason) == "" {
			errs = append(errs, fmt.Errorf("%s.reason: missing; its operator will want to know", at))
		}
		for _, k := range m.Withdrawn {
			if err := checkPattern(k); err != nil {
				errs = append(errs, fmt.Errorf("%s.withdrawn: %w", at, err))
			}
		}
	}
	for i, w := range o.Withdrawn {
		at := fmt.Sprintf("withdrawn[%d]", i)
		if err := checkPattern(w.Key); err != nil {
			errs = append(errs, fmt.Errorf("%s.key: %w", at, err))
		}
		if strings.TrimSpace(w.Reason) == "" {
			errs = append(errs, fmt.Errorf("%s.reason: missing; it is what clients are answered", at))
		}
	}
	return errors.Join(errs...)
}

// Unknown returns the entries that concern nothing that there is, in words.
func (o *Overrides) Unknown(mirrors []string, keys []state.Key) (all []string) {
	nobody := func(pattern string) bool {
		return !slices.ContainsFunc(keys, func(k state.Key) bool { return matchesKey(pattern, k) })
	}
	for _, name := range slices.Sorted(maps.Keys(o.Mirrors)) {
		if !slices.Contains(mirrors, name) {
			all = append(all, fmt.Sprintf("mirrors.%s: no mirror has this name", name))
		}
		for _, p := range o.Mirrors[name].Withdrawn {
			if nobody(p) {
				all = append(all, fmt.Sprintf("mirrors.%s.withdrawn: no repository is %q", name, p))
			}
		}
	}
	for i, w := range o.Withdrawn {
		if nobody(w.Key) {
			all = append(all, fmt.Sprintf("withdrawn[%d].key: no repository is %q", i, w.Key))
		}
	}
	return all
}

func checkPattern(p string) error {
	if strings.Count(p, "/") != 2 {
		return fmt.Errorf("%q is not VERSION/REPO/ARCH; write one like 9.8/nfv/*", p)
	}
	if _, err := path.Match(p, ""); err != nil {
		return fmt.Errorf("%q: %w; write * for any text, and no brackets", p, err)
	}
	return nil
}

// matchesKey reports whether a pattern that was checked stands for k.
func matchesKey(pattern string, k state.Key) bool {
	ok, err := path.Match(pattern, k.String())
	return ok && err == nil
}

// of returns what is decided about a mirror now, nil for nothing. keys are those
// of the mirror.
func (o *Overrides) of(mirror string, keys []state.Key, now time.Time) *state.Override {
	if o == nil {
		return nil
	}
	m, ok := o.Mirrors[mirror]
	if !ok || over(m.Until, now) {
		return nil
	}
	d := &state.Override{Disabled: m.Disabled, Draining: m.Draining, Weight: m.Weight, Reason: m.Reason, Until: m.Until}
	for _, k := range keys {
		if slices.ContainsFunc(m.Withdrawn, func(p string) bool { return matchesKey(p, k) }) {
			d.Withdrawn = append(d.Withdrawn, k)
		}
	}
	return d
}

// withdrawn returns the reason why k is served to nobody now, "" if it is.
func (o *Overrides) withdrawn(k state.Key, now time.Time) string {
	if o == nil {
		return ""
	}
	for _, w := range o.Withdrawn {
		if !over(w.Until, now) && matchesKey(w.Key, k) {
			return w.Reason
		}
	}
	return ""
}

// changes is when the next decision ends by itself; zero for never.
func (o *Overrides) changes(now time.Time) (next time.Time) {
	if o == nil {
		return next
	}
	note := func(until time.Time) {
		if !until.IsZero() && until.After(now) && (next.IsZero() || until.Before(next)) {
			next = until
		}
	}
	for _, m := range o.Mirrors {
		note(m.Until)
	}
	for _, w := range o.Withdrawn {
		note(w.Until)
	}
	return next
}

func over(until, now time.Time) bool { return !until.IsZero() && !now.Before(until) }

// overridden tells of a change from one decision about a mirror to another; nil
// when they are the same.
func overridden(mirror string, was, is *state.Override, at time.Time, vantage string) *state.Event {
	if sameOverride(was, is) {
		return nil
	}
	p := &state.Problem{Since: at}
	switch {
	case is == nil:
		p.Reason = "the decision of an administrator has ended: " + cmp.Or(was.Reason, "no reason was given")
	default:
		var what []string
		if is.Disabled {
			what = append(what, "disabled")
		}
		if is.Draining {
			what = append(what, "drained")
		}
		if is.Weight > 0 {
			what = append(what, fmt.Sprintf("weighted with %d Mbit/s", is.Weight))
		}
		if n := len(is.Withdrawn); n > 0 {
			what = append(what, fmt.Sprintf("taken out of the lists of %d repositories", n))
		}
		if len(what) == 0 {
			what = append(what, "left as it is")
		}
		p.Reason = strings.Join(what, ", ") + " by an administrator: " + cmp.Or(is.Reason, "no reason was given")
		if !is.Until.IsZero() {
			p.Reason += ", until " + is.Until.UTC().Format(time.RFC3339)
		}
	}
	return &state.Event{Time: at, Vantage: vantage, Mirror: mirror, Kind: state.OverrideChanged, Problem: p}
}

func sameOverride(a, b *state.Override) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Disabled == b.Disabled && a.Draining == b.Draining && a.Weight == b.Weight &&
		a.Reason == b.Reason && a.Until.Equal(b.Until) && slices.Equal(a.Withdrawn, b.Withdrawn)
}
