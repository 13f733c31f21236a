package format

import (
	"encoding/base64"
	"strconv"
	"time"

	"cistern/api/wire"
	"cistern/store"
)

// cistern returns a form of Cistern's own format, which is the JSON that hydrant sends, before
// compression.
func cistern(v Variant, epoch string) *Format {
	name := "cistern"
	if v.CBOR {
		name += "+cbor"
	}
	if v.Tokens {
		name += "+tokens"
	}
	return &Format{Name: name, NewEncoder: func() Encoder {
		e := &cisternEncoder{cbor: v.CBOR}
		if v.Tokens {
			e.tokens = LogTokens(epoch)
		}
		return e
	}}
}

// Snapshot is Cistern's own format of the records of a snapshot that are acknowledged by a number.
var Snapshot = &Format{Name: "cistern+snapshot",
	NewEncoder: func() Encoder { return &cisternEncoder{snapshot: true} }}

// cisternEncoder writes events as docs/http.md describes them.
type cisternEncoder struct {
	snapshot bool        // the events are records of a snapshot, with numbers as ids
	cbor     bool        // also include the record as base64
	tokens   TokenWriter // zero: without tokens

	// head is the common part of consecutive events of one commit.
	head []byte
	did  string
	rev  string
	live bool
}

func (e *cisternEncoder) Encode(dst []byte, ev *store.Event) (_ []byte, result Result) {
	out := append(dst, `{"id":`...)
	out = strconv.AppendUint(out, ev.ID, 10)
	if e.tokens.head != nil {
		out = append(e.tokens.AppendEvent(append(out, `,"token":"`...), ev.ID), '"')
	}
	if e.snapshot {
		out = append(out, `,"snapshot":true`...)
	}
	if out, result = e.body(out, ev); result == Unknown {
		return dst, Unknown
	}
	return out, result
}

// body appends what follows the id of an event.
func (e *cisternEncoder) body(out []byte, ev *store.Event) (_ []byte, result Result) {
	switch ev.Kind {
	case store.KindRecord:
		out, result = e.record(out, ev)
	case store.KindIdentity:
		out = appendIdentity(out, ev)
	case store.KindAccount:
		out = appendAccount(out, ev)
	case store.KindRepo:
		out = appendRepo(out, ev)
	default:
		return out, Unknown
	}
	return append(out, "}}"...), result
}

func (e *cisternEncoder) record(out []byte, ev *store.Event) (_ []byte, result Result) {
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
		return out, Encoded
	}
	out, ok := wire.AppendBody(out, "record", ev.Record)
	if !ok {
		result = Unrepresentable
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

// appendRepo appends a repo event in the words of GET /repos.
func appendRepo(out []byte, ev *store.Event) []byte {
	out = wire.AppendString(append(out, `,"type":"repo","repo":{"did":`...), ev.DID)
	out = wire.AppendString(append(out, `,"state":`...), ev.Condition.String())
	if ev.Rev != "" {
		out = wire.AppendString(append(out, `,"rev":`...), ev.Rev)
	}
	switch ev.Condition {
	case store.ConditionFailing:
		out = wire.AppendString(append(out, `,"reason":`...), ev.Reason.String())
	case store.ConditionGone:
		out = wire.AppendString(append(out, `,"reason":`...), ev.Status.String())
	}
	out = appendSeconds(out, `,"since":"`, ev.Since)
	return appendSeconds(out, `,"next_look":"`, ev.NextLook)
}

// appendSeconds appends a field with a time in unix seconds, unless the time is 0.
func appendSeconds(out []byte, name string, at int64) []byte {
	if at == 0 {
		return out
	}
	out = append(out, name...)
	return append(time.Unix(at, 0).UTC().AppendFormat(out, time.RFC3339), '"')
}
