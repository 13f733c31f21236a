package links

import "bytes"

// Limits of targets.
const (
	// targetBytesMax is the protocol's limit on an at-uri, and ours on any URI.
	targetBytesMax = 8 << 10
	// didBytesMax is the protocol's limit on a DID.
	didBytesMax = 2048
)

// Normalise returns the normal form of a subject: an at-uri, a DID, or another absolute URI, which
// are tried in this order. Not ok means that no record can link to it. It changes:
//
//   - at-uris: the scheme becomes lower-case, escapes as below. Authorities stay as they are: a
//     handle is not looked up.
//   - DIDs: nothing.
//   - URIs (RFC 3986, section 6.2.2): scheme and host become lower-case, escaped letters, digits
//     and -._~ are unescaped, other escapes get upper-case digits, and dot segments are removed.
func Normalise(subject string) (target string, ok bool) {
	b, ok := appendTarget(nil, []byte(subject))
	return string(b), ok
}

// appendTarget appends the normal form of s, or returns dst as it was and false.
func appendTarget(dst, s []byte) ([]byte, bool) {
	if len(s) > targetBytesMax {
		return dst, false
	}
	end := schemeEnd(s)
	if end <= 0 {
		return dst, false
	}
	from := len(dst)
	scheme, rest := s[:end], s[end+1:]
	if isAT(scheme) {
		if out, ok := appendATURI(dst, rest); ok {
			return out, true
		}
	}
	if validDID(s) {
		return append(dst, s...), true
	}
	out, ok := appendURI(dst[:from], scheme, rest)
	if !ok {
		return dst[:from], false
	}
	return out, true
}

func isAT(scheme []byte) bool {
	return len(scheme) == 2 && scheme[0]|0x20 == 'a' && scheme[1]|0x20 == 't'
}

// appendATURI appends an at-uri, of which rest is what follows the colon.
func appendATURI(dst, rest []byte) ([]byte, bool) {
	authority, ok := bytes.CutPrefix(rest, []byte("//"))
	if !ok {
		return dst, false
	}
	end := authorityEnd(authority)
	if end == 0 {
		return dst, false
	}
	dst = append(dst, "at://"...)
	dst, ok = appendPart(dst, authority[:end], unreserved|subDelim|colon)
	if !ok {
		return dst, false
	}
	path, query := cutTail(authority[end:])
	dst, ok = appendPart(dst, path, pathBytes)
	if !ok {
		return dst, false
	}
	return appendTail(dst, query)
}

// validDID reports whether s is a DID as the protocol has it: did:, a method of lower-case letters,
// a colon, and letters, digits and ._:%- of which neither the colon nor the percent sign is last.
func validDID(s []byte) bool {
	rest, ok := bytes.CutPrefix(s, []byte("did:"))
	if !ok || len(s) > didBytesMax {
		return false
	}
	method, id, ok := bytes.Cut(rest, []byte(":"))
	if !ok || len(method) == 0 || len(id) == 0 {
		return false
	}
	for _, b := range method {
		if b < 'a' || b > 'z' {
			return false
		}
	}
	for _, b := range id {
		if b == '~' || b != '%' && classes[b]&(unreserved|colon) == 0 {
			return false
		}
	}
	last := id[len(id)-1]
	return last != ':' && last != '%'
}
