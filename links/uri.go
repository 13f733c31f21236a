package links

import (
	"bytes"
	"net/netip"
)

// Classes of bytes in URIs (RFC 3986, section 2). A byte has one.
const (
	unreserved = 1 << iota
	subDelim
	colon
	at
	slash
	question

	pathBytes  = unreserved | subDelim | colon | at | slash
	queryBytes = pathBytes | question
)

// classes has the class of each byte, 0 if no part of a URI may have the byte as it is.
var classes = func() (all [256]byte) {
	for _, c := range []struct {
		class byte
		bytes string
	}{
		{unreserved, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"},
		{subDelim, "!$&'()*+,;="},
		{colon, ":"},
		{at, "@"},
		{slash, "/"},
		{question, "?"},
	} {
		for i := range len(c.bytes) {
			all[c.bytes[i]] = c.class
		}
	}
	return all
}()

// schemeEnd returns where the colon behind a scheme stands, -1 if s does not begin with a scheme.
// It tells most texts from URIs by their first word.
func schemeEnd(s []byte) int {
	for i, b := range s {
		switch {
		case b|0x20 >= 'a' && b|0x20 <= 'z':
		case i == 0:
			return -1
		case b == ':':
			return i
		case b >= '0' && b <= '9' || b == '+' || b == '-' || b == '.':
		default:
			return -1
		}
	}
	return -1
}

// authorityEnd returns where an authority, which begins at s, ends.
func authorityEnd(s []byte) int {
	for i, b := range s {
		if b == '/' || b == '?' || b == '#' {
			return i
		}
	}
	return len(s)
}

// cutTail cuts a path from what follows it.
func cutTail(s []byte) (path, tail []byte) {
	for i, b := range s {
		if b == '?' || b == '#' {
			return s[:i], s[i:]
		}
	}
	return s, nil
}

// appendURI appends a URI: its scheme, and rest, which follows the colon.
func appendURI(dst, scheme, rest []byte) ([]byte, bool) {
	dst = appendLower(dst, scheme)
	dst = append(dst, ':')
	ok := true
	authority, has := bytes.CutPrefix(rest, []byte("//"))
	if has {
		end := authorityEnd(authority)
		dst = append(dst, "//"...)
		if dst, ok = appendAuthority(dst, authority[:end]); !ok {
			return dst, false
		}
		rest = authority[end:]
	}
	path, tail := cutTail(rest)
	from := len(dst)
	if dst, ok = appendPart(dst, path, pathBytes); !ok {
		return dst, false
	}
	dst = removeDots(dst, from)
	if !has && bytes.HasPrefix(dst[from:], []byte("//")) {
		// A path after no authority must not begin like an authority (section 6.2.2.3 leaves it open).
		dst = append(dst, "/."...)
		copy(dst[from+2:], dst[from:])
		copy(dst[from:], "/.")
	}
	return appendTail(dst, tail)
}

// appendTail appends a query and a fragment, with their marks.
func appendTail(dst, s []byte) ([]byte, bool) {
	ok := true
	query, fragment := s, []byte(nil)
	if i := bytes.IndexByte(s, '#'); i >= 0 {
		query, fragment = s[:i], s[i:]
	}
	if dst, ok = appendPart(dst, query, queryBytes); !ok || len(fragment) == 0 {
		return dst, ok
	}
	return appendPart(append(dst, '#'), fragment[1:], queryBytes)
}

// appendAuthority appends a user, a host in lower case and a port.
func appendAuthority(dst, s []byte) ([]byte, bool) {
	ok := true
	if user, rest, has := bytes.Cut(s, []byte("@")); has {
		if dst, ok = appendPart(dst, user, unreserved|subDelim|colon); !ok {
			return dst, false
		}
		dst = append(dst, '@')
		s = rest
	}
	host, port := s, []byte(nil)
	// The colon of a port stands behind the bracket of an address.
	if i := bytes.LastIndexByte(s, ':'); i > bytes.LastIndexByte(s, ']') {
		host, port = s[:i], s[i:]
	}
	for i, b := range port {
		if i > 0 && (b < '0' || b > '9') {
			return dst, false
		}
	}
	if len(host) > 0 && host[0] == '[' {
		if !validLiteral(host) {
			return dst, false
		}
		return append(appendLower(dst, host), port...), true
	}
	from := len(dst)
	if dst, ok = appendPart(dst, host, unreserved|subDelim); !ok {
		return dst, false
	}
	for i := from; i < len(dst); i++ {
		if dst[i] == '%' {
			i += 2
		} else if dst[i] >= 'A' && dst[i] <= 'Z' {
			dst[i] |= 0x20
		}
	}
	return append(dst, port...), true
}

// validLiteral reports whether a host in brackets is an IPv6 address, or one of a later version.
func validLiteral(host []byte) bool {
	if host[len(host)-1] != ']' {
		return false
	}
	inner := host[1 : len(host)-1]
	if len(inner) > 0 && inner[0]|0x20 == 'v' {
		version, address, ok := bytes.Cut(inner[1:], []byte("."))
		if !ok || len(version) == 0 || len(address) == 0 {
			return false
		}
		for _, b := range version {
			if unhex(b) < 0 {
				return false
			}
		}
		for _, b := range address {
			if classes[b]&(unreserved|subDelim|colon) == 0 {
				return false
			}
		}
		return true
	}
	a, err := netip.ParseAddr(string(inner))
	return err == nil && a.Is6() && a.Zone() == ""
}

// appendPart appends s with its escapes normalised (section 6.2.2.2). Not ok means that a byte is
// not of the allowed classes, or an escape has not two digits.
func appendPart(dst, s []byte, allowed byte) ([]byte, bool) {
	for i := 0; i < len(s); i++ {
		from := i
		for i < len(s) && classes[s[i]]&allowed != 0 {
			i++
		}
		dst = append(dst, s[from:i]...)
		if i == len(s) {
			return dst, true
		}
		if s[i] != '%' {
			return dst, false
		}
		if len(s)-i < 3 || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0 {
			return dst, false
		}
		high, low := unhex(s[i+1]), unhex(s[i+2])
		if c := byte(high<<4 | low); classes[c] == unreserved {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hexDigits[high], hexDigits[low])
		}
		i += 2
	}
	return dst, true
}

const hexDigits = "0123456789ABCDEF"

// unhex returns the value of a hexadecimal digit, -1 of another byte.
func unhex(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		return int(b - '0')
	case b|0x20 >= 'a' && b|0x20 <= 'f':
		return int(b|0x20-'a') + 10
	}
	return -1
}

// appendLower appends s with its letters in lower case. All bytes of s are ASCII.
func appendLower(dst, s []byte) []byte {
	for _, b := range s {
		if b >= 'A' && b <= 'Z' {
			b |= 0x20
		}
		dst = append(dst, b)
	}
	return dst
}

// removeDots removes the segments . and .. of the path dst[from:] (section 5.2.4). A path that does
// not begin with a slash has no hierarchy and stays.
func removeDots(dst []byte, from int) []byte {
	if from == len(dst) || dst[from] != '/' || !bytes.Contains(dst[from:], []byte("/.")) {
		return dst
	}
	out := dst[:from]
	rest := dst[from:]
	for len(rest) > 0 {
		end := len(rest)
		if i := bytes.IndexByte(rest[1:], '/'); i >= 0 {
			end = i + 1
		}
		segment := rest[1:end]
		rest = rest[end:]
		switch string(segment) {
		case ".":
		case "..":
			if i := bytes.LastIndexByte(out[from:], '/'); i >= 0 {
				out = out[:from+i]
			}
		default:
			out = append(append(out, '/'), segment...) // never passes what is still to be read
			continue
		}
		if len(rest) == 0 {
			out = append(out, '/')
		}
	}
	return out
}
