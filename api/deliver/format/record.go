package format

import (
	"cistern/api/deliver/wsframe"
	"cistern/store"
)

// RecordEncoder writes records of a pass over all records as events in Cistern's own format, with
// the token instead of an id.
type RecordEncoder struct {
	cisternEncoder
	order  store.PassOrder
	tokens TokenWriter
}

// NewRecordEncoder returns an encoder for one page of a pass, without or with CBOR. epoch is that of
// the store.
func NewRecordEncoder(epoch string, p *store.Pass, cbor bool) *RecordEncoder {
	return &RecordEncoder{cisternEncoder: cisternEncoder{cbor: cbor}, order: p.Order,
		tokens: PassTokens(epoch, p)}
}

// Append appends the frame of a record whose place in the pass is at.
func (e *RecordEncoder) Append(dst []byte, ev *store.Event, at store.RecordPosition) ([]byte, Result) {
	start := len(dst)
	out := append(append(dst, wsframe.Space...), `{"snapshot":true,"token":"`...)
	out = append(e.tokens.AppendRecord(out, e.order, at), '"')
	out, result := e.body(out, ev)
	return wsframe.Seal(out, start, wsframe.Text), result
}
