package repo

import "encoding/binary"

// Major types and simple values of CBOR (RFC 8949), as DAG-CBOR restricts them: the shortest
// form of every head, no indefinite lengths, no tag but 42.
const (
	MajorUint  = 0
	MajorNint  = 1
	MajorBytes = 2
	MajorText  = 3
	MajorArray = 4
	MajorMap   = 5
	MajorTag   = 6

	MajorSimple = 7

	CBORFalse = 0xf4
	CBORTrue  = 0xf5
	CBORNull  = 0xf6

	TagLink = 42
)

// linkPrefix precedes the digest in a link to a block of a repository: tag 42, a byte
// string of 37 bytes, the multibase prefix of binary, and cidPrefix.
const linkPrefix = "\xd8\x2a\x58\x25\x00" + cidPrefix

const linkBytes = len(linkPrefix) + len(CID{})

// Head reads a data item's head at b[at:]. Not ok means truncated, not in its shortest form,
// indefinite, or reserved.
func Head(b []byte, at int) (major byte, arg uint64, next int, ok bool) {
	if uint(at) >= uint(len(b)) {
		return 0, 0, 0, false
	}
	first := b[at]
	major, info := first>>5, first&31
	rest := b[at+1:]
	switch {
	case info < 24:
		return major, uint64(info), at + 1, true
	case info == 24 && len(rest) >= 1:
		arg = uint64(rest[0])
		return major, arg, at + 2, arg >= 24
	case info == 25 && len(rest) >= 2:
		arg = uint64(binary.BigEndian.Uint16(rest))
		return major, arg, at + 3, arg > 0xff
	case info == 26 && len(rest) >= 4:
		arg = uint64(binary.BigEndian.Uint32(rest))
		return major, arg, at + 5, arg > 0xffff
	case info == 27 && len(rest) >= 8:
		arg = binary.BigEndian.Uint64(rest)
		return major, arg, at + 9, arg > 0xffffffff
	}
	return 0, 0, 0, false
}

// appendHead appends a data item's head in its shortest form.
func appendHead(dst []byte, major byte, arg uint64) []byte {
	major <<= 5
	switch {
	case arg < 24:
		return append(dst, major|byte(arg))
	case arg <= 0xff:
		return append(dst, major|24, byte(arg))
	case arg <= 0xffff:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(arg))
	case arg <= 0xffffffff:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(arg))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), arg)
}

// Span reads the head of a string or byte string at b[at:] and returns where its content is.
func Span(b []byte, at int, want byte) (from, to int, ok bool) {
	major, n, from, ok := Head(b, at)
	if !ok || major != want || n > uint64(len(b)-from) {
		return 0, 0, false
	}
	return from, from + int(n), true
}

// literal reports whether b[at:] begins with want, and returns its end.
func literal(b []byte, at int, want string) (next int, ok bool) {
	next = at + len(want)
	if at < 0 || next > len(b) || string(b[at:next]) != want {
		return 0, false
	}
	return next, true
}

// Link reads a link to a block of a repository at b[at:]; the digest ends at next.
func Link(b []byte, at int) (next int, ok bool) {
	if at < 0 || len(b)-at < linkBytes || string(b[at:at+len(linkPrefix)]) != linkPrefix {
		return 0, false
	}
	return at + linkBytes, true
}
