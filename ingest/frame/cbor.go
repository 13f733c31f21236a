package frame

import (
	"strings"
	"time"
	"unicode/utf8"

	"cistern/ingest/repo"
)

// The first bytes of floats, which are skipped anywhere.
const (
	floatHalf   = 0xf9
	floatDouble = 0xfb
)

// reader reads values from a message. The first value that is not of the type asked for sets why,
// and nothing is read after it.
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

// left returns the number of bytes not read yet.
func (r *reader) left() int { return len(r.b) - r.at }

// head reads the head of an item. It skips the whole of a float, which repositories do not have.
func (r *reader) head() (major byte, arg uint64) {
	if r.failed() {
		return 0, 0
	}
	if r.at < len(r.b) && r.b[r.at] >= floatHalf && r.b[r.at] <= floatDouble {
		n := 1 + 2<<(r.b[r.at]-floatHalf)
		if n > r.left() {
			r.fail("truncated")
			return 0, 0
		}
		r.at += n
		return repo.MajorSimple, 0
	}
	major, arg, next, ok := repo.Head(r.b, r.at)
	// simple values below 32 have one byte
	if !ok || major == repo.MajorSimple && next-r.at > 1 && arg < 32 {
		r.fail("truncated, not in its shortest form, indefinite or reserved")
		return 0, 0
	}
	r.at = next
	return major, arg
}

// want reads the head of an item of a major type and returns its argument.
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

// span reads a text or byte string. The result refers to the message.
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

// count reads the head of an array or a map. Each of its items takes a byte at least.
func (r *reader) count(major byte, why string) int {
	n := r.want(major, why)
	if n > uint64(r.left()) {
		r.fail("truncated")
		return 0
	}
	return int(n)
}

// null reads a null if it is next, and reports whether it was.
func (r *reader) null() bool {
	if r.failed() || r.at >= len(r.b) || r.b[r.at] != repo.CBORNull {
		return false
	}
	r.at++
	return true
}

func (r *reader) bool() bool {
	if r.failed() || r.at >= len(r.b) || r.b[r.at]|1 != repo.CBORTrue {
		r.fail("no boolean")
		return false
	}
	r.at++
	return r.b[r.at-1] == repo.CBORTrue
}

// seq reads a sequence number.
func (r *reader) seq() int64 {
	n := r.want(repo.MajorUint, "no positive integer")
	if n == 0 || n > seqMax {
		r.fail("no sequence number")
		return 0
	}
	return int64(n)
}

// op reads the op of a header: 0, which is not an op, for an integer that does not fit into an
// int8.
func (r *reader) op() int8 {
	major, n := r.head()
	switch {
	case major != repo.MajorUint && major != repo.MajorNint:
		r.fail("no integer")
	case n > 126:
	case major == repo.MajorNint:
		return -1 - int8(n)
	default:
		return int8(n)
	}
	return 0
}

// text reads UTF-8 of at most limit bytes and copies it.
func (r *reader) text(limit int) string {
	s := r.span(repo.MajorText, "no text")
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

// textOrNull reads text, or "" for null.
func (r *reader) textOrNull(limit int) string {
	if r.null() {
		return ""
	}
	return r.text(limit)
}

// cut reads text meant for a log, cuts it off at the limit and replaces invalid UTF-8.
func (r *reader) cut(limit int) string {
	if r.null() {
		return ""
	}
	s := r.span(repo.MajorText, "no text")
	return strings.ToValidUTF8(string(s[:min(len(s), limit)]), "")
}

// action reads an action, without an allocation for the known ones.
func (r *reader) action() string {
	at := r.at
	switch s := r.span(repo.MajorText, "no text"); string(s) {
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
	if r.at >= len(r.b) || r.b[r.at]>>5 != repo.MajorText {
		r.skip(depthMax)
		return 0
	}
	s := r.span(repo.MajorText, "no text")
	if len(s) > timeBytesMax {
		return 0
	}
	t, err := time.Parse(time.RFC3339Nano, string(s))
	if err != nil {
		return 0
	}
	return max(0, t.UnixMicro())
}

// link reads a link. other reports that its CID is not of the form of a block of a repository.
func (r *reader) link() (id repo.CID, other bool) {
	if next, ok := repo.Link(r.b, r.at); ok && !r.failed() {
		r.at = next
		return repo.CID(r.b[next-len(id) : next]), false
	}
	if r.want(repo.MajorTag, "no link") != repo.TagLink {
		r.fail("no link")
	}
	s := r.span(repo.MajorBytes, "no link")
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

// end returns what is wrong with the message once its last item was read, "" if it is valid.
func (r *reader) end() string {
	if !r.failed() && r.left() > 0 {
		r.fail("something follows the body")
	}
	return r.why
}

// skip skips an item of any type.
func (r *reader) skip(depth int) {
	major, n := r.head()
	switch {
	case r.failed():
	case depth == 0:
		r.fail("nested too deeply")
	case major == repo.MajorBytes || major == repo.MajorText:
		if n > uint64(r.left()) {
			r.fail("truncated")
			return
		}
		r.at += int(n)
	case major == repo.MajorArray || major == repo.MajorMap:
		if n > uint64(r.left()) {
			r.fail("truncated")
			return
		}
		if major == repo.MajorMap {
			n *= 2
		}
		for i := uint64(0); i < n && !r.failed(); i++ {
			r.skip(depth - 1)
		}
	case major == repo.MajorTag:
		r.skip(depth - 1)
	}
}
