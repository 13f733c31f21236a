package repo

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
)

// AppendJSON appends the JSON form of a record, one map in DAG-CBOR, in a single pass: a link
// becomes {"$link":"b…"}, bytes become {"$bytes":"…"} in standard base64 without padding, keys
// keep their order, and nothing is escaped for HTML.
//
// ErrInvalid, with dst returned as it was, is what the data model or DAG-CBOR forbid: a value
// that is not a map, floats, undefined, tags other than links, indefinite or needlessly long
// heads, integers beyond 64 bits with sign, keys that are not strings or stand twice, invalid
// UTF-8, trailing bytes, more than 1 MiB, nesting beyond 128. Keys out of canonical order are
// accepted in maps of at most 64, since encoders in the wild produce them. Maps that imitate
// links, bytes or blobs ({"$link": text} and the like) are passed through unjudged, as the
// reference PDS does.
func AppendJSON(dst, block []byte) ([]byte, error) {
	t := transcoder{in: block, out: dst}
	if err := t.record(); err != nil {
		return dst, &JSONError{at: t.at, why: err}
	}
	return t.out, nil
}

// JSONError is the reason why a record has no JSON form. It is ErrInvalid.
type JSONError struct {
	at  int
	why error
}

// Error is the reason, for a log.
func (e *JSONError) Error() string { return fmt.Sprintf("record to JSON at %s", e.Reason()) }

// Unwrap makes it ErrInvalid.
func (e *JSONError) Unwrap() []error { return []error{e.why, ErrInvalid} }

// Reason is the reason, for readers of the record.
func (e *JSONError) Reason() string { return fmt.Sprintf("byte %d: %v", e.at, e.why) }

type transcoder struct {
	in  []byte
	at  int
	out []byte
}

var (
	errJSONHead   = errors.New("truncated, indefinite or not in its shortest form")
	errJSONTop    = errors.New("record is not a map")
	errJSONTail   = errors.New("bytes after the record")
	errJSONInt    = errors.New("integer exceeds 64 bits with sign")
	errJSONFloat  = errors.New("float, or a simple value other than false, true and null")
	errJSONTag    = errors.New("tag is not a link")
	errJSONLink   = errors.New("link holds no CID")
	errJSONUTF8   = errors.New("text is not UTF-8")
	errJSONKey    = errors.New("key is not text")
	errJSONTwice  = errors.New("key stands twice")
	errJSONOrder  = errors.New("keys are out of order in a map of more than 64")
	errJSONNested = errors.New("nested more than 128 deep")
)

func (t *transcoder) record() error {
	if len(t.in) > recordBytesMax {
		return fmt.Errorf("record of %d bytes exceeds %d", len(t.in), recordBytesMax)
	}
	if len(t.in) == 0 || t.in[0]>>5 != MajorMap {
		return errJSONTop
	}
	if err := t.value(depthMax); err != nil {
		return err
	}
	if t.at != len(t.in) {
		return errJSONTail
	}
	return nil
}

// value transcodes one value, in which arrays and maps may nest depth deep.
func (t *transcoder) value(depth int) error {
	major, arg, next, ok := Head(t.in, t.at)
	if !ok {
		if t.at < len(t.in) && t.in[t.at]>>5 == MajorSimple {
			return errJSONFloat
		}
		return errJSONHead
	}
	switch major {
	case MajorUint, MajorNint:
		t.at = next
		return t.integer(major, arg)
	case MajorBytes:
		return t.bytes()
	case MajorText:
		return t.text()
	case MajorArray:
		t.at = next
		return t.array(arg, depth-1)
	case MajorMap:
		t.at = next
		return t.object(arg, depth-1)
	case MajorTag:
		if arg != TagLink {
			return errJSONTag
		}
		t.at = next
		return t.link()
	}
	return t.simple()
}

func (t *transcoder) integer(major byte, arg uint64) error {
	if arg > math.MaxInt64 {
		return errJSONInt
	}
	n := int64(arg)
	if major == MajorNint {
		n = -1 - n
	}
	t.out = strconv.AppendInt(t.out, n, 10)
	return nil
}

func (t *transcoder) simple() error {
	switch t.in[t.at] {
	case CBORFalse:
		t.out = append(t.out, "false"...)
	case CBORTrue:
		t.out = append(t.out, "true"...)
	case CBORNull:
		t.out = append(t.out, "null"...)
	default:
		return errJSONFloat
	}
	t.at++
	return nil
}

func (t *transcoder) array(n uint64, depth int) error {
	if depth < 0 {
		return errJSONNested
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
		return errJSONNested
	}
	keys := mapKeys{in: t.in}
	t.out = append(t.out, '{')
	for i := range n {
		if i > 0 {
			t.out = append(t.out, ',')
		}
		from, to, ok := span(t.in, t.at, MajorText)
		if !ok {
			return errJSONKey
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
	from, to, ok := span(t.in, t.at, MajorText)
	if !ok {
		return errJSONHead
	}
	s := t.in[from:to]
	if !utf8.Valid(s) {
		return errJSONUTF8
	}
	t.at = to
	t.out = appendQuoted(t.out, s)
	return nil
}

func (t *transcoder) bytes() error {
	from, to, ok := span(t.in, t.at, MajorBytes)
	if !ok {
		return errJSONHead
	}
	t.at = to
	t.out = append(t.out, `{"$bytes":"`...)
	t.out = base64.RawStdEncoding.AppendEncode(t.out, t.in[from:to])
	t.out = append(t.out, `"}`...)
	return nil
}

// link transcodes the byte string behind tag 42: a zero byte, then any CID.
func (t *transcoder) link() error {
	from, to, ok := span(t.in, t.at, MajorBytes)
	if !ok || from == to || to-from > 1+linkBytesMax || t.in[from] != 0 {
		return errJSONLink
	}
	t.at = to
	c := t.in[from+1 : to]
	t.out = append(t.out, `{"$link":"`...)
	if isUsualCID(c) {
		t.out = cidText.AppendEncode(append(t.out, 'b'), c)
	} else {
		parsed, err := cid.Cast(c)
		if err != nil {
			return errJSONLink
		}
		t.out = append(t.out, parsed.String()...)
	}
	t.out = append(t.out, `"}`...)
	return nil
}

// isUsualCID: version 1, dag-cbor or raw (a blob), sha2-256.
func isUsualCID(c []byte) bool {
	return len(c) == CIDBytes && c[0] == 1 && (c[1] == 0x71 || c[1] == 0x55) && c[2] == 0x12 && c[3] == 0x20
}

// mapKeys finds keys that are in one map twice. In canonical order, shorter keys first and
// equally long ones by their bytes, it takes one comparison a key.
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
			return errJSONOrder
		}
		for _, other := range k.all[:k.n] {
			if bytes.Equal(k.in[other[0]:other[1]], key) {
				return errJSONTwice
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
