package store

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/fxamacker/cbor/v2"
)

// codec encodes row values as deterministic CBOR behind the version byte. The rows of every live
// commit, repoV1 and entryV1, are written and read by hand, at a fifth of the cost: in the bytes
// that the encoder would write (a test compares them), and handing the decoder what is not in them.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() (codec, error) {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return codec{}, err
	}
	// What the encoder lets through has to be readable: it does not look at text.
	dec, err := cbor.DecOptions{MaxArrayElements: entryOpsMax, UTF8: cbor.UTF8DecodeInvalid}.DecMode()
	return codec{enc: enc, dec: dec}, err
}

func (c codec) encode(v any) ([]byte, error) {
	b, err := c.enc.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return append([]byte{valueVersion}, b...), nil
}

func (c codec) decode(b []byte, v any) error {
	if len(b) == 0 || b[0] != valueVersion {
		return fmt.Errorf("decode %T: version byte %.1x: %w", v, b, ErrCorrupt)
	}
	if err := c.dec.Unmarshal(b[1:], v); err != nil {
		return fmt.Errorf("decode %T: %w: %w", v, err, ErrCorrupt)
	}
	return nil
}

// CBOR's major types, in the upper bits of a head.
const (
	cborUint  = 0 << 5
	cborNeg   = 1 << 5
	cborBytes = 2 << 5
	cborText  = 3 << 5
	cborArray = 4 << 5
	cborMap   = 5 << 5
	cborTrue  = 7<<5 | 21
)

func appendHead(dst []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n <= math.MaxUint8:
		return append(dst, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), n)
}

// mapWriter appends a map of numbered fields, those without a value left out. Numbers rise.
type mapWriter struct {
	b     []byte
	start int
	n     byte
}

func beginMap(dst []byte) mapWriter { return mapWriter{b: append(dst, cborMap), start: len(dst)} }

// end gives the bytes with the map's head.
func (w *mapWriter) end() []byte {
	if w.n < 24 {
		w.b[w.start] |= w.n
		return w.b
	}
	w.b = append(w.b, 0)
	copy(w.b[w.start+2:], w.b[w.start+1:])
	w.b[w.start], w.b[w.start+1] = cborMap|24, w.n
	return w.b
}

func (w *mapWriter) key(k uint64) {
	w.n++
	w.b = appendHead(w.b, cborUint, k)
}

func (w *mapWriter) uint(k, v uint64) {
	if v != 0 {
		w.key(k)
		w.b = appendHead(w.b, cborUint, v)
	}
}

func (w *mapWriter) int(k uint64, v int64) {
	if v >= 0 {
		w.uint(k, uint64(v))
		return
	}
	w.key(k)
	w.b = appendHead(w.b, cborNeg, uint64(^v))
}

func (w *mapWriter) text(k uint64, v string) {
	if v != "" {
		w.key(k)
		w.b = append(appendHead(w.b, cborText, uint64(len(v))), v...)
	}
}

func (w *mapWriter) bytes(k uint64, v []byte) {
	if len(v) > 0 {
		w.key(k)
		w.b = append(appendHead(w.b, cborBytes, uint64(len(v))), v...)
	}
}

func (w *mapWriter) bool(k uint64, v bool) {
	if v {
		w.key(k)
		w.b = append(w.b, cborTrue)
	}
}

// appendRepo appends repoV1.
func appendRepo(dst []byte, r *Repo) []byte {
	w := beginMap(append(dst, valueVersion))
	w.key(1)
	w.b = appendHead(w.b, cborUint, uint64(r.State))
	w.uint(2, uint64(r.Status))
	w.uint(3, uint64(r.Tracked))
	w.uint(4, r.Attempt)
	w.uint(5, uint64(r.Verified))
	w.uint(6, uint64(r.Ordinal))
	w.uint(7, uint64(r.NextBlock))
	w.text(8, r.Rev)
	w.bytes(9, r.Data[:])
	w.bytes(10, r.Commit)
	w.int(11, r.Records)
	w.int(12, r.Blocks)
	w.text(13, r.PDS)
	w.text(14, r.Handle)
	w.text(15, r.Key)
	w.key(16)
	p := beginMap(w.b)
	p.uint(1, uint64(r.Pending.Host))
	p.uint(2, uint64(r.Pending.Priority))
	p.uint(3, r.Pending.Enqueue)
	w.b = p.end()
	w.key(17)
	p = beginMap(w.b)
	p.uint(1, uint64(r.Retry.Kind))
	p.uint(2, uint64(r.Retry.Count))
	p.int(3, r.Retry.Next)
	p.int(4, r.Retry.Since)
	p.text(5, r.Retry.Error)
	w.b = p.end()
	w.text(18, r.SeenRev)
	w.uint(19, uint64(r.Missing))
	w.int(20, r.Updated)
	w.int(21, r.AccountTime)
	w.int(22, r.IdentityTime)
	w.int(23, r.Resolved)
	w.uint(24, uint64(r.Breaks))
	w.int(25, r.Broken)
	w.bool(26, r.Recheck)
	w.uint(27, uint64(r.Listed))
	w.uint(28, uint64(r.Hidden))
	w.uint(29, uint64(r.Collections))
	w.bool(30, r.Torn)
	w.uint(31, uint64(r.Filter))
	w.bool(32, r.Sweep)
	w.bool(33, r.Lacks)
	w.int(34, r.Shelved)
	return w.end()
}

// appendEntry appends entryV1.
func appendEntry(dst []byte, e *entryV1) []byte {
	w := beginMap(append(dst, valueVersion))
	w.key(1)
	w.b = appendHead(w.b, cborUint, uint64(e.Kind))
	w.key(2)
	w.b = appendHead(w.b, cborUint, uint64(e.Time))
	w.key(3)
	w.b = append(appendHead(w.b, cborBytes, uint64(len(e.DID))), e.DID...)
	w.bool(4, e.Live)
	w.text(5, e.Rev)
	w.uint(6, uint64(e.Ordinal))
	w.uint(7, uint64(e.Count))
	if len(e.Ops) > 0 {
		w.key(8)
		w.b = appendHead(w.b, cborArray, uint64(len(e.Ops)))
		for i := range e.Ops {
			op := &e.Ops[i]
			w.b = appendHead(append(w.b, cborArray|3), cborUint, uint64(op.Action))
			w.b = append(appendHead(w.b, cborBytes, uint64(len(op.Path))), op.Path...)
			w.b = appendHead(w.b, cborUint, uint64(op.Block))
		}
	}
	w.uint(9, uint64(e.Status))
	w.text(10, e.Handle)
	w.text(11, e.PDS)
	w.uint(12, uint64(e.First))
	return w.end()
}
