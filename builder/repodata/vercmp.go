package repodata

import (
	"bytes"
	"strconv"
)

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func appendUint(dst []byte, n uint64) []byte { return strconv.AppendUint(dst, n, 10) }

// compareVersions compares as rpm does: segments of digits as numbers, segments of
// letters as text, what is between them only separates, "~" is before everything
// and "^" after the end and before anything else.
func compareVersions(a, b []byte) int {
	if bytes.Equal(a, b) {
		return 0
	}
	for len(a) > 0 || len(b) > 0 {
		a, b = skipSeparators(a), skipSeparators(b)
		if at, bt := begins(a, '~'), begins(b, '~'); at || bt {
			switch {
			case !at:
				return 1
			case !bt:
				return -1
			}
			a, b = a[1:], b[1:]
			continue
		}
		if ac, bc := begins(a, '^'), begins(b, '^'); ac || bc {
			switch {
			case len(a) == 0:
				return -1
			case len(b) == 0:
				return 1
			case !ac:
				return 1
			case !bc:
				return -1
			}
			a, b = a[1:], b[1:]
			continue
		}
		if len(a) == 0 || len(b) == 0 {
			break
		}
		numeric := isDigit(a[0])
		is := isLetter
		if numeric {
			is = isDigit
		}
		var sa, sb []byte
		sa, a = segment(a, is)
		sb, b = segment(b, is)
		if len(sb) == 0 {
			// Digits are newer than letters.
			if numeric {
				return 1
			}
			return -1
		}
		if numeric {
			sa, sb = bytes.TrimLeft(sa, "0"), bytes.TrimLeft(sb, "0")
			if d := len(sa) - len(sb); d != 0 {
				return d
			}
		}
		if c := bytes.Compare(sa, sb); c != 0 {
			return c
		}
	}
	return len(a) - len(b)
}

func begins(s []byte, c byte) bool { return len(s) > 0 && s[0] == c }

func skipSeparators(s []byte) []byte {
	for len(s) > 0 && !isDigit(s[0]) && !isLetter(s[0]) && s[0] != '~' && s[0] != '^' {
		s = s[1:]
	}
	return s
}

func segment(s []byte, is func(byte) bool) (head, rest []byte) {
	n := 0
	for n < len(s) && is(s[n]) {
		n++
	}
	return s[:n], s[n:]
}
