package format

import (
	"cistern/api/deliver/wsframe"
	"cistern/store"
)

// RecordEncoder writes records of a pass over all records as events in Cistern's own format, with
// the token instead of an id.
type RecordEncoder struct {
	cisternEncoder
	format *Format
	order  store.PassOrder
	tokens TokenWriter
	plain  []byte // a message before compression
}

// Records returns an encoder for one page of a pass. epoch is that of the store.
func (s *Set) Records(epoch string, p *store.Pass, v Variant) *RecordEncoder {
	return &RecordEncoder{cisternEncoder: cisternEncoder{cbor: v.CBOR}, format: s.Cistern(v),
		order: p.Order, tokens: PassTokens(epoch, p)}
}

// Append appends the frame of a record whose place in the pass is at.
func (e *RecordEncoder) Append(
	dst []byte, ev *store.Event, at store.RecordPosition,
) (_ []byte, result Result) {
	if e.format.packing != nil {
		e.plain, result = e.message(e.plain[:0], ev, at)
		return e.format.Append(dst, e.plain), result
	}
	start := len(dst)
	out, result := e.message(append(dst, wsframe.Space...), ev, at)
	return wsframe.Seal(out, start, wsframe.Text), result
}

func (e *RecordEncoder) message(
	dst []byte, ev *store.Event, at store.RecordPosition,
) ([]byte, Result) {
	out := append(dst, `{"snapshot":true,"token":"`...)
	out = append(e.tokens.AppendRecord(out, e.order, at), '"')
	return e.body(out, ev)
}
