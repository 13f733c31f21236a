package recordjson

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"cistern/ingest/repo"

	"github.com/ipfs/go-cid"
)

// Limits of records.
const (
	// recordBytesMax is the protocol's limit on a record.
	recordBytesMax = 1 << 20
	// depthMax bounds how deeply arrays and maps nest; the protocol recommends 32.
	depthMax = 128
	// unsortedKeysMax bounds maps whose keys are out of order, where finding duplicates is
	// quadratic: 64 keys take 2,016 comparisons.
	unsortedKeysMax = 64
	// linkBytesMax bounds the CID in a link; the usual one takes 36 bytes.
	linkBytesMax = 100
)

// cidText is the base32 of CIDs, behind the multibase letter b.
var cidText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Append appends the JSON form of a record, one map in DAG-CBOR, in a single pass: a link
// becomes {"$link":"b…"}, bytes become {"$bytes":"…"} in standard base64 without padding, keys
// keep their order, and nothing is escaped for HTML.
//
// If the data model or DAG-CBOR forbids the record, Append returns repo.ErrInvalid and dst
// unchanged. Forbidden are: a value that is not a map, floats, undefined, tags other than links,
// indefinite or needlessly long heads, integers beyond 64 bits with sign, keys that are not strings
// or occur twice, invalid UTF-8, trailing bytes, more than 1 MiB, nesting beyond 128. Keys out of
// canonical order are accepted in maps of at most 64, since encoders in the wild produce them. Maps
// that imitate links, bytes or blobs ({"$link": text} and the like) are not checked, as on the
// reference PDS.
func Append(dst, block []byte) ([]byte, error) {
	t := transcoder{in: block, out: dst}
	if err := t.record(); err != nil {
		return dst, &Error{at: t.at, why: err}
	}
	return t.out, nil
}

// Error is the reason why a record has no JSON form. It is repo.ErrInvalid.
type Error struct {
	at  int
	why error
}

// Error returns the reason, for a log.
func (e *Error) Error() string { return fmt.Sprintf("record to JSON at %s", e.Reason()) }

// Unwrap returns the cause and repo.ErrInvalid.
func (e *Error) Unwrap() []error { return []error{e.why, repo.ErrInvalid} }

// Reason returns the reason, for readers of the record.
func (e *Error) Reason() string { return fmt.Sprintf("byte %d: %v", e.at, e.why) }

type transcoder struct {
	in  []byte
	at  int
	out []byte
}

var (
	errHead   = errors.New("truncated, indefinite or not in its shortest form")
	errTop    = errors.New("record is not a map")
	errTail   = errors.New("bytes after the record")
	errInt    = errors.New("integer exceeds 64 bits with sign")
	errFloat  = errors.New("float, or a simple value other than false, true and null")
	errTag    = errors.New("tag is not a link")
	errLink   = errors.New("link holds no CID")
	errUTF8   = errors.New("text is not UTF-8")
	errKey    = errors.New("key is not text")
	errTwice  = errors.New("key stands twice")
	errOrder  = errors.New("keys are out of order in a map of more than 64")
	errNested = errors.New("nested more than 128 deep")
)

func (t *transcoder) record() error {
	if len(t.in) > recordBytesMax {
		return fmt.Errorf("record of %d bytes exceeds %d", len(t.in), recordBytesMax)
	}
	if len(t.in) == 0 || t.in[0]>>5 != repo.MajorMap {
		return errTop
	}
	if err := t.value(depthMax); err != nil {
		return err
	}
	if t.at != len(t.in) {
		return errTail
	}
	return nil
}

// value transcodes one value, in which arrays and maps may nest depth deep.
func (t *transcoder) value(depth int) error {
	major, arg, next, ok := repo.Head(t.in, t.at)
	if !ok {
		if t.at < len(t.in) && t.in[t.at]>>5 == repo.MajorSimple {
			return errFloat
		}
		return errHead
	}
	switch major {
	case repo.MajorUint, repo.MajorNint:
		t.at = next
		return t.integer(major, arg)
	case repo.MajorBytes:
		return t.bytes()
	case repo.MajorText:
		return t.text()
	case repo.MajorArray:
		t.at = next
		return t.array(arg, depth-1)
	case repo.MajorMap:
		t.at = next
		return t.object(arg, depth-1)
	case repo.MajorTag:
		if arg != repo.TagLink {
			return errTag
		}
		t.at = next
		return t.link()
	}
	return t.simple()
}

func (t *transcoder) integer(major byte, arg uint64) error {
	if arg > math.MaxInt64 {
		return errInt
	}
	n := int64(arg)
	if major == repo.MajorNint {
		n = -1 - n
	}
	t.out = strconv.AppendInt(t.out, n, 10)
	return nil
}

func (t *transcoder) simple() error {
	switch t.in[t.at] {
	case repo.CBORFalse:
		t.out = append(t.out, "false"...)
	case repo.CBORTrue:
		t.out = append(t.out, "true"...)
	case repo.CBORNull:
		t.out = append(t.out, "null"...)
	default:
		return errFloat
	}
	t.at++
	return nil
}

func (t *transcoder) array(n uint64, depth int) error {
	if depth < 0 {
		return errNested
	}
	t.out = append(t.out, '[')
	for i := range n {
		if i > 0 {
			t.out = append(t.out, ',')
		}
		if err := t.value(depth); err != nil {
			return err
		}
	}
	t.out = append(t.out, ']')
	return nil
}

func (t *transcoder) object(n uint64, depth int) error {
	if depth < 0 {
		return errNested
	}
	keys := mapKeys{in: t.in}
	t.out = append(t.out, '{')
	for i := range n {
		if i > 0 {
			t.out = append(t.out, ',')
		}
		from, to, ok := repo.Span(t.in, t.at, repo.MajorText)
		if !ok {
			return errKey
		}
		if err := keys.add(from, to); err != nil {
			return err
		}
		if err := t.text(); err != nil {
			return err
		}
		t.out = append(t.out, ':')
		if err := t.value(depth); err != nil {
			return err
		}
	}
	t.out = append(t.out, '}')
	return nil
}

func (t *transcoder) text() error {
	from, to, ok := repo.Span(t.in, t.at, repo.MajorText)
	if !ok {
		return errHead
	}
	s := t.in[from:to]
	if isPlain(s) {
		t.out = append(append(append(t.out, '"'), s...), '"')
		t.at = to
		return nil
	}
	if !utf8.Valid(s) {
		return errUTF8
	}
	t.at = to
	t.out = appendQuoted(t.out, s)
	return nil
}

// isPlain reports whether a string is ASCII and nothing in it is escaped. It may fail to find so.
func isPlain(s []byte) bool {
	const each, high = 0x0101010101010101, 0x8080808080808080
	for ; len(s) >= 8; s = s[8:] {
		w := binary.LittleEndian.Uint64(s)
		// A subtraction sets the high bit of a byte that is too small, and at times of the next one.
		if (w|(w-' '*each)|((w^'"'*each)-each)|((w^'\\'*each)-each))&high != 0 {
			return false
		}
	}
	for _, b := range s {
		if b < ' ' || b >= utf8.RuneSelf || b == '"' || b == '\\' {
			return false
		}
	}
	return true
}

func (t *transcoder) bytes() error {
	from, to, ok := repo.Span(t.in, t.at, repo.MajorBytes)
	if !ok {
		return errHead
	}
	t.at = to
	t.out = append(t.out, `{"$bytes":"`...)
	t.out = base64.RawStdEncoding.AppendEncode(t.out, t.in[from:to])
	t.out = append(t.out, `"}`...)
	return nil
}

// link transcodes the byte string behind tag 42: a zero byte, then any CID.
func (t *transcoder) link() error {
	from, to, ok := repo.Span(t.in, t.at, repo.MajorBytes)
	if !ok || from == to || to-from > 1+linkBytesMax || t.in[from] != 0 {
		return errLink
	}
	t.at = to
	c := t.in[from+1 : to]
	t.out = append(t.out, `{"$link":"`...)
	if isUsualCID(c) {
		t.out = cidText.AppendEncode(append(t.out, 'b'), c)
	} else {
		parsed, err := cid.Cast(c)
		if err != nil {
			return errLink
		}
		t.out = append(t.out, parsed.String()...)
	}
	t.out = append(t.out, `"}`...)
	return nil
}

// isUsualCID: version 1, dag-cbor or raw (a blob), sha2-256.
func isUsualCID(c []byte) bool {
	return len(c) == repo.CIDBytes && c[0] == 1 && (c[1] == 0x71 || c[1] == 0x55) && c[2] == 0x12 &&
		c[3] == 0x20
}

// mapKeys finds duplicate keys of a map. If the keys are in canonical order, shorter keys first and
// keys of equal length by their bytes, it takes one comparison a key.
type mapKeys struct {
	in       []byte
	n        int
	from, to int // the last key
	unsorted bool
	all      [unsortedKeysMax][2]int32
}

func (k *mapKeys) add(from, to int) error {
	key, last := k.in[from:to], k.in[k.from:k.to]
	if k.n > 0 && compareKeys(last, key) >= 0 {
		k.unsorted = true
	}
	if k.unsorted {
		if k.n >= unsortedKeysMax {
			return errOrder
		}
		for _, other := range k.all[:k.n] {
			if bytes.Equal(k.in[other[0]:other[1]], key) {
				return errTwice
			}
		}
	}
	if k.n < unsortedKeysMax {
		k.all[k.n] = [2]int32{int32(from), int32(to)}
	}
	k.n++
	k.from, k.to = from, to
	return nil
}

func compareKeys(a, b []byte) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return bytes.Compare(a, b)
}

const hexDigits = "0123456789abcdef"

// appendQuoted appends valid UTF-8 as a JSON string.
func appendQuoted(dst, s []byte) []byte {
	dst = append(dst, '"')
	done := 0
	for i, b := range s {
		if b >= 0x20 && b != '"' && b != '\\' {
			continue
		}
		dst = append(dst, s[done:i]...)
		done = i + 1
		switch b {
		case '"', '\\':
			dst = append(dst, '\\', b)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&15])
		}
	}
	return append(append(dst, s[done:]...), '"')
}
