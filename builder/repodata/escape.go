package repodata

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// What a byte means to the functions of this file.
const (
	plain   = iota // stands for itself everywhere
	markup         // < > &
	quote          // escaped in attributes
	space          // tab and newline: escaped in attributes
	cr             // escaped everywhere
	control        // cannot be written in XML at all
	high           // part of a character beyond ASCII, or of none
)

var class = func() (c [256]uint8) {
	for i := range c {
		switch {
		case i == '\t' || i == '\n':
			c[i] = space
		case i == '\r':
			c[i] = cr
		case i < 0x20:
			c[i] = control
		case i == '<' || i == '>' || i == '&':
			c[i] = markup
		case i == '"':
			c[i] = quote
		case i >= 0x80:
			c[i] = high
		}
	}
	return c
}()

var entities = [256]string{'<': "&lt;", '>': "&gt;", '&': "&amp;", '"': "&quot;", '\t': "&#9;", '\n': "&#10;", '\r': "&#13;"}

// appendText appends s as the content of an element. Characters beyond ASCII
// stand for themselves. ok is false when s holds something that XML cannot.
func appendText(dst, s []byte, latin1 bool) (_ []byte, ok bool) {
	s = utf8Of(s, latin1)
	from := 0
	for i := 0; i < len(s); i++ {
		switch class[s[i]] {
		case markup, cr:
			dst = append(dst, s[from:i]...)
			dst = append(dst, entities[s[i]]...)
			from = i + 1
		case control:
			return dst, false
		case high:
			// Other bytes would make the list of all packages unreadable.
			r, n := utf8.DecodeRune(s[i:])
			if n == 1 || r == 0xfffe || r == 0xffff {
				return dst, false
			}
			i += n - 1
		}
	}
	return append(dst, s[from:]...), true
}

// appendAttr appends s as the value of an attribute, without the quotes around
// it. Characters beyond ASCII are written as numbers.
func appendAttr(dst, s []byte, latin1 bool) (_ []byte, ok bool) {
	s = utf8Of(s, latin1)
	from := 0
	for i := 0; i < len(s); i++ {
		switch class[s[i]] {
		case plain:
			continue
		case markup, quote, space, cr:
			dst = append(dst, s[from:i]...)
			dst = append(dst, entities[s[i]]...)
			from = i + 1
		case control:
			return dst, false
		case high:
			if i+1 == len(s) {
				return dst, false // the oracle writes it as it is
			}
			dst = append(dst, s[from:i]...)
			r, n := decode(s[i:])
			dst = append(dst, "&#x"...)
			upper := len(dst)
			dst = strconv.AppendUint(dst, uint64(r), 16)
			copy(dst[upper:], bytes.ToUpper(dst[upper:]))
			dst = append(dst, ';')
			i += n - 1
			from = i + 1
		}
	}
	return append(dst, s[from:]...), true
}

// decode returns the character that b begins with, as the oracle's library reads
// it: the first byte says how many follow, and what they look like is not asked.
// What is no character in XML counts as single bytes, each a number of its own.
func decode(b []byte) (r rune, n int) {
	switch {
	case b[0] >= 0xc0 && b[0] < 0xe0 && len(b) > 1:
		r, n = rune(b[0]&0x1f)<<6|rune(b[1]&0x3f), 2
	case b[0] >= 0xe0 && b[0] < 0xf0 && len(b) > 2:
		r, n = rune(b[0]&0x0f)<<12|rune(b[1]&0x3f)<<6|rune(b[2]&0x3f), 3
	case b[0] >= 0xf0 && b[0] < 0xf8 && len(b) > 3:
		r, n = rune(b[0]&0x07)<<18|rune(b[1]&0x3f)<<12|rune(b[2]&0x3f)<<6|rune(b[3]&0x3f), 4
	default:
		return rune(b[0]), 1
	}
	valid := r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r < 0xd800 || r >= 0xe000 && r <= 0xfffd || r >= 0x10000 && r <= utf8.MaxRune
	if !valid {
		return rune(b[0]), 1
	}
	return r, n
}

// sequence is the length of the UTF-8 sequence that b begins with, by form alone:
// surrogates and needlessly long ones count. It is 0 where there is none.
func sequence(b []byte) int {
	n := 0
	switch {
	case b[0] < 0x80:
		return 1
	case b[0]&0xe0 == 0xc0:
		n = 2
	case b[0]&0xf0 == 0xe0:
		n = 3
	case b[0]&0xf8 == 0xf0:
		n = 4
	default:
		return 0
	}
	if len(b) < n {
		return 0
	}
	for _, c := range b[1:n] {
		if c&0xc0 != 0x80 {
			return 0
		}
	}
	return n
}

// utf8Of returns s if it has the form of UTF-8, and otherwise what s is when read
// as Latin-1, without the characters that are control codes there: text in
// another encoding is more often Windows' than Latin-1's own.
func utf8Of(s []byte, latin1 bool) []byte {
	if !latin1 || hasUTF8Form(s) {
		return s
	}
	out := make([]byte, 0, 2*len(s))
	for _, c := range s {
		switch {
		case c < 0x80:
			out = append(out, c)
		case c >= 0xc0:
			out = append(out, 0xc3, c&0x3f|0x80)
		}
	}
	return out
}

func hasUTF8Form(s []byte) bool {
	for i := 0; i < len(s); {
		if s[i] < 0x80 {
			i++
			continue
		}
		n := sequence(s[i:])
		if n == 0 {
			return false
		}
		i += n
	}
	return true
}

// hasControl tells whether s holds a byte that cannot be written in XML.
func hasControl(s []byte) bool {
	for _, c := range s {
		if class[c] == control {
			return true
		}
	}
	return false
}
