package frame

import (
	"encoding/binary"
	"strings"
	"time"
	"unicode/utf8"

	"cistern/ingest/repo"
)

// Major types of CBOR (RFC 8949). Heads are in their shortest form and lengths definite, as
// DAG-CBOR has them.
const (
	majorUint   = 0
	majorNint   = 1
	majorBytes  = 2
	majorText   = 3
	majorArray  = 4
	majorMap    = 5
	majorTag    = 6
	majorSimple = 7

	cborFalse = 0xf4
	cborTrue  = 0xf5
	cborNull  = 0xf6

	tagLink = 42
)

// linkPrefix stands before the digest in a link to a block of a repository: tag 42, a byte
// string of 37 bytes, the multibase prefix of binary, CIDv1, dag-cbor, sha2-256 of 32 bytes.
const linkPrefix = "\xd8\x2a\x58\x25\x00\x01\x71\x12\x20"

const linkBytes = len(linkPrefix) + len(repo.CID{})

// reader takes values from a message. The first that is not what was asked for sets why, and from
// then on nothing is read.
type reader struct {
	b   []byte
	at  int
	why string
}

func (r *reader) fail(why string) {
	if r.why == "" {
		r.why = why
	}
}

func (r *reader) failed() bool { return r.why != "" }

// left is the number of bytes not read yet.
func (r *reader) left() int { return len(r.b) - r.at }

// head reads the head of an item.
func (r *reader) head() (major byte, arg uint64) {
	if r.failed() || r.at >= len(r.b) {
		r.fail("truncated")
		return 0, 0
	}
	first, rest := r.b[r.at], r.b[r.at+1:]
	major, info := first>>5, first&31
	if info < 24 {
		r.at++
		return major, uint64(info)
	}
	size := 1 << (info - 24)
	if info > 27 || len(rest) < size {
		r.fail("truncated, indefinite or reserved")
		return 0, 0
	}
	var least uint64
	switch size {
	case 1:
		arg, least = uint64(rest[0]), 24
	case 2:
		arg, least = uint64(binary.BigEndian.Uint16(rest)), 1<<8
	case 4:
		arg, least = uint64(binary.BigEndian.Uint32(rest)), 1<<16
	case 8:
		arg, least = binary.BigEndian.Uint64(rest), 1<<32
	}
	switch {
	case major == majorSimple && size == 1:
		least = 32 // smaller ones would be the simple values of one byte
	case major == majorSimple:
		least = 0 // the bits of a float
	}
	if arg < least {
		r.fail("not in its shortest form")
		return 0, 0
	}
	r.at += 1 + size
	return major, arg
}

// want reads the head of an item of that type, and gives its argument.
func (r *reader) want(major byte, why string) uint64 {
	got, arg := r.head()
	if got != major {
		r.fail(why)
	}
	if r.failed() {
		return 0
	}
	return arg
}

// span reads a string, text or bytes; it refers to the message.
func (r *reader) span(major byte, why string) []byte {
	n := r.want(major, why)
	if n > uint64(r.left()) {
		r.fail("truncated")
		return nil
	}
	from := r.at
	r.at += int(n)
	return r.b[from:r.at:r.at]
}

// count reads the head of an array or a map, whose items take a byte at least.
func (r *reader) count(major byte, why string) int {
	n := r.want(major, why)
	if n > uint64(r.left()) {
		r.fail("truncated")
		return 0
	}
	return int(n)
}

// null reads a null if there is one.
func (r *reader) null() bool {
	if r.failed() || r.at >= len(r.b) || r.b[r.at] != cborNull {
		return false
	}
	r.at++
	return true
}

func (r *reader) bool() bool {
	if r.failed() || r.at >= len(r.b) || r.b[r.at]|1 != cborTrue {
		r.fail("no boolean")
		return false
	}
	r.at++
	return r.b[r.at-1] == cborTrue
}

// seq reads a sequence number.
func (r *reader) seq() int64 {
	n := r.want(majorUint, "no positive integer")
	if n == 0 || n > seqMax {
		r.fail("no sequence number")
		return 0
	}
	return int64(n)
}

// op reads the small integer of a header; what no int8 holds is 0, which no op is.
func (r *reader) op() int8 {
	major, n := r.head()
	switch {
	case major != majorUint && major != majorNint:
		r.fail("no integer")
	case n > 126:
	case major == majorNint:
		return -1 - int8(n)
	default:
		return int8(n)
	}
	return 0
}

// text reads UTF-8 of at most limit bytes and copies it.
func (r *reader) text(limit int) string {
	s := r.span(majorText, "no text")
	switch {
	case len(s) > limit:
		r.fail("too long")
	case !utf8.Valid(s):
		r.fail("no UTF-8")
	default:
		return string(s)
	}
	return ""
}

// textOrNull is text, "" for null.
func (r *reader) textOrNull(limit int) string {
	if r.null() {
		return ""
	}
	return r.text(limit)
}

// cut reads text meant for a log, and mends what is wrong with it.
func (r *reader) cut(limit int) string {
	if r.null() {
		return ""
	}
	s := r.span(majorText, "no text")
	return strings.ToValidUTF8(string(s[:min(len(s), limit)]), "")
}

// action is text, without a copy for the usual ones.
func (r *reader) action() string {
	at := r.at
	switch s := r.span(majorText, "no text"); string(s) {
	case "create":
		return "create"
	case "update":
		return "update"
	case "delete":
		return "delete"
	}
	if !r.failed() {
		r.at = at
	}
	return r.text(wordBytesMax)
}

// micros reads a datetime; 0 for any other item.
func (r *reader) micros() int64 {
	if r.at >= len(r.b) || r.b[r.at]>>5 != majorText {
		r.skip(depthMax)
		return 0
	}
	s := r.span(majorText, "no text")
	if len(s) > timeBytesMax {
		return 0
	}
	t, err := time.Parse(time.RFC3339Nano, string(s))
	if err != nil {
		return 0
	}
	return max(0, t.UnixMicro())
}

// link reads a link; other says that it leads to no block of a repository.
func (r *reader) link() (id repo.CID, other bool) {
	if r.left() >= linkBytes && !r.failed() && string(r.b[r.at:r.at+len(linkPrefix)]) == linkPrefix {
		r.at += linkBytes
		return repo.CID(r.b[r.at-len(id) : r.at]), false
	}
	if r.want(majorTag, "no link") != tagLink {
		r.fail("no link")
	}
	s := r.span(majorBytes, "no link")
	if len(s) < 2 || len(s) > linkBytesMax || s[0] != 0 {
		r.fail("no link")
	}
	return repo.CID{}, true
}

// linkOrNull reads a link to a block of a repository, zero for null.
func (r *reader) linkOrNull() repo.CID {
	if r.null() {
		return repo.CID{}
	}
	id, other := r.link()
	if other || !id.Defined() {
		r.fail("no link to a block of a repository")
	}
	return id
}

// end says what is wrong with the message after its last item was read, "" if nothing is.
func (r *reader) end() string {
	if !r.failed() && r.left() > 0 {
		r.fail("something follows the body")
	}
	return r.why
}

// skip passes over an item of any type.
func (r *reader) skip(depth int) {
	major, n := r.head()
	switch {
	case r.failed():
	case depth == 0:
		r.fail("nested too deeply")
	case major == majorBytes || major == majorText:
		if n > uint64(r.left()) {
			r.fail("truncated")
			return
		}
		r.at += int(n)
	case major == majorArray || major == majorMap:
		if n > uint64(r.left()) {
			r.fail("truncated")
			return
		}
		if major == majorMap {
			n *= 2
		}
		for i := uint64(0); i < n && !r.failed(); i++ {
			r.skip(depth - 1)
		}
	case major == majorTag:
		r.skip(depth - 1)
	}
}
