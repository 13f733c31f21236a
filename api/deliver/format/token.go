package format

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"

	"cistern/store"
)

// Token is the place of a consumer in a snapshot, or in the log behind one. As text it is base64url
// of: version(1), order(1), length and bytes of the epoch, head; and in a snapshot the end, the sum
// of the filter, the ordinal (in a pass by DID the length and the bytes of the DID instead), and
// the path. Numbers are uvarints.
type Token struct {
	Epoch string
	Order store.PassOrder // InLog: head is the last event that the consumer has, and nothing follows
	Head  uint64          // at which the snapshot began
	End   store.Ordinal   // of its pass
	Sum   uint32          // of the filter of its pass
	At    store.RecordPosition
}

// InLog is the order of a position behind a snapshot, in the log.
const InLog store.PassOrder = 0

const (
	tokenVersion = 1
	// tokenBytesMax bounds what is decoded: a path has at most 1 KiB, a DID 2 KiB.
	tokenBytesMax = 8 << 10
)

var tokenText = base64.RawURLEncoding

var errToken = errors.New("not a token of a snapshot")

// TokenWriter writes the tokens of one stream, or of one page.
type TokenWriter struct {
	head []byte // what they have in common
	buf  []byte
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// LogTokens returns a writer of tokens for events of the log.
func LogTokens(epoch string) TokenWriter {
	return TokenWriter{head: appendText([]byte{tokenVersion, byte(InLog)}, epoch)}
}

// PassTokens returns a writer of tokens for records of a pass.
func PassTokens(epoch string, p *store.Pass) TokenWriter {
	head := appendText([]byte{tokenVersion, byte(p.Order)}, epoch)
	for _, n := range [...]uint64{p.Head, uint64(p.End), uint64(p.Sum)} {
		head = binary.AppendUvarint(head, n)
	}
	return TokenWriter{head: head}
}

// AppendEvent appends the token of a consumer that has the events up to id.
func (w *TokenWriter) AppendEvent(dst []byte, id uint64) []byte {
	w.buf = binary.AppendUvarint(append(w.buf[:0], w.head...), id)
	return tokenText.AppendEncode(dst, w.buf)
}

// AppendRecord appends the token of a consumer that has the records of a pass up to a position.
func (w *TokenWriter) AppendRecord(
	dst []byte, order store.PassOrder, at store.RecordPosition,
) []byte {
	w.buf = append(w.buf[:0], w.head...)
	if order == store.ByDID {
		w.buf = appendText(w.buf, at.DID)
	} else {
		w.buf = binary.AppendUvarint(w.buf, uint64(at.Ordinal))
	}
	w.buf = append(w.buf, at.Path...)
	return tokenText.AppendEncode(dst, w.buf)
}

// tokenReader reads the parts of a token. It remembers whether one was missing.
type tokenReader struct {
	rest []byte
	bad  bool
}

func (r *tokenReader) byte() (b byte) {
	if r.bad = r.bad || len(r.rest) == 0; !r.bad {
		b, r.rest = r.rest[0], r.rest[1:]
	}
	return b
}

func (r *tokenReader) number(most uint64) uint64 {
	n, size := binary.Uvarint(r.rest)
	if r.bad = r.bad || size <= 0 || n > most; r.bad {
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *tokenReader) text() (s string) {
	n := r.number(uint64(len(r.rest)))
	if r.bad = r.bad || n > uint64(len(r.rest)); !r.bad {
		s, r.rest = string(r.rest[:n]), r.rest[n:]
	}
	return s
}

// ParseToken reads a token that a consumer sent. Any place is harmless: a consumer that makes one
// up reads from there on.
func ParseToken(text string) (t Token, err error) {
	if len(text) > tokenBytesMax {
		return t, errToken
	}
	b, err := tokenText.Strict().DecodeString(text)
	if err != nil {
		return t, errToken
	}
	r := tokenReader{rest: b}
	version := r.byte()
	t.Order, t.Epoch = store.PassOrder(r.byte()), r.text()
	t.Head = r.number(1<<63 - 1)
	if t.Order == InLog {
		r.bad = r.bad || len(r.rest) > 0
	} else {
		t.End = store.Ordinal(r.number(uint64(store.OrdinalMax)))
		t.Sum = uint32(r.number(math.MaxUint32))
		if t.Order == store.ByDID {
			t.At.DID = r.text()
		} else {
			t.At.Ordinal = store.Ordinal(r.number(uint64(store.OrdinalMax)))
		}
		t.At.Path = r.rest
	}
	if r.bad || version != tokenVersion {
		return Token{}, errToken
	}
	return t, nil
}
