package deliver

import (
	"encoding/base64"
	"strconv"

	"cistern/api/wire"
	"cistern/store"
)

// Cistern's own formats: the JSON that hydrant sends, without or with the CBOR of records.
var (
	cisternJSON = &format{name: "cistern", encoder: func() encoder { return &cisternEncoder{} }}
	cisternCBOR = &format{name: "cistern+cbor", encoder: func() encoder { return &cisternEncoder{cbor: true} }}
)

// withTokens returns the formats of streams that begin with a snapshot, without and with CBOR.
func withTokens(epoch string) map[bool]*format {
	made := func(name string, cbor bool) *format {
		return &format{name: name, encoder: func() encoder {
			return &cisternEncoder{cbor: cbor, tokens: logTokens(epoch)}
		}}
	}
	return map[bool]*format{false: made("cistern+tokens", false), true: made("cistern+cbor+tokens", true)}
}

// cisternEncoder writes events as docs/http.md describes them.
type cisternEncoder struct {
	cbor   bool        // also include the record as base64
	tokens tokenWriter // zero: without tokens

	// head is the common part of consecutive events of one commit.
	head []byte
	did  string
	rev  string
	live bool
}

func (e *cisternEncoder) encode(dst []byte, ev *store.Event) (_ []byte, result encodeResult) {
	out := append(dst, `{"id":`...)
	out = strconv.AppendUint(out, ev.ID, 10)
	if e.tokens.head != nil {
		out = append(e.tokens.appendEvent(append(out, `,"token":"`...), ev.ID), '"')
	}
	if out, result = e.body(out, ev); result == notInFormat {
		return dst, notInFormat
	}
	return out, result
}

// body appends what follows the id of an event.
func (e *cisternEncoder) body(out []byte, ev *store.Event) (_ []byte, result encodeResult) {
	switch ev.Kind {
	case store.KindRecord:
		out, result = e.record(out, ev)
	case store.KindIdentity:
		out = appendIdentity(out, ev)
	case store.KindAccount:
		out = appendAccount(out, ev)
	default:
		return out, notInFormat
	}
	return append(out, "}}"...), result
}

func (e *cisternEncoder) record(out []byte, ev *store.Event) (_ []byte, result encodeResult) {
	if ev.DID != e.did || ev.Rev != e.rev || ev.Live != e.live || e.head == nil {
		e.did, e.rev, e.live = ev.DID, ev.Rev, ev.Live
		e.head = append(e.head[:0], `,"type":"record","record":{"live":`...)
		e.head = strconv.AppendBool(e.head, ev.Live)
		e.head = wire.AppendString(append(e.head, `,"did":`...), ev.DID)
		e.head = wire.AppendString(append(e.head, `,"rev":`...), ev.Rev)
		e.head = append(e.head, `,"collection":`...)
	}
	out = append(out, e.head...)
	out = wire.AppendString(out, ev.Collection)
	out = wire.AppendString(append(out, `,"rkey":`...), ev.Rkey)
	out = append(append(append(out, `,"action":"`...), ev.Action.String()...), '"')
	if ev.Action == store.Delete {
		return out, encoded
	}
	out, ok := wire.AppendBody(out, "record", ev.Record)
	if !ok {
		result = encodedWithout
	}
	if e.cbor {
		out = append(out, `,"cbor":"`...)
		out = append(base64.StdEncoding.AppendEncode(out, ev.Record), '"')
	}
	out = append(out, `,"cid":"`...)
	return append(ev.CID.AppendText(out), '"'), result
}

func appendIdentity(out []byte, ev *store.Event) []byte {
	out = append(out, `,"type":"identity","identity":{"did":`...)
	out = wire.AppendString(out, ev.DID)
	if ev.Handle != "" {
		out = wire.AppendString(append(out, `,"handle":`...), ev.Handle)
	}
	if ev.PDS != "" {
		out = wire.AppendString(append(out, `,"pds":`...), ev.PDS)
	}
	return out
}

func appendAccount(out []byte, ev *store.Event) []byte {
	out = append(out, `,"type":"account","account":{"did":`...)
	out = wire.AppendString(out, ev.DID)
	out = append(out, `,"active":`...)
	out = strconv.AppendBool(out, !ev.Status.Hidden())
	if status := ev.Status.Word(); status != "" {
		out = wire.AppendString(append(out, `,"status":`...), status)
	}
	return out
}
