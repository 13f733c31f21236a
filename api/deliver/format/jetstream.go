package format

import (
	"strconv"
	"time"

	"cistern/api/wire"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// The formats of both versions of Jetstream.
var (
	// Jetstream1 has the number of each event besides what version 1 sends, as version 2 adds it.
	Jetstream1 = &Format{Name: "jetstream1", NewEncoder: func() Encoder { return jetstream1Encoder{} }}
	Jetstream2 = &Format{Name: "jetstream2", NewEncoder: func() Encoder { return jetstream2Encoder{} }}
)

const (
	// invalidHandle stands for a handle that is unknown or does not resolve to its account.
	invalidHandle = "handle.invalid"
	// jetstreamTime is RFC 3339 with exactly six digits of a second.
	jetstreamTime  = "2006-01-02T15:04:05.000000Z"
	subscribe2Type = `{"$type":"message","payload":{"$type":"network.bsky.jetstream.subscribeEvents#`
)

type jetstream1Encoder struct{}

func (jetstream1Encoder) Encode(dst []byte, ev *store.Event) ([]byte, Result) {
	out := wire.AppendString(append(dst, `{"did":`...), ev.DID)
	out = strconv.AppendInt(append(out, `,"time_us":`...), ev.Time, 10)
	out = strconv.AppendUint(append(out, `,"cursor":`...), ev.ID, 10)
	switch ev.Kind {
	case store.KindRecord:
		var ok bool
		if out, ok = appendCommit(append(out, `,"kind":"commit","commit":{`...), ev); !ok {
			return dst, LeftOut
		}
	case store.KindIdentity:
		out = appendSubject(append(out, `,"kind":"identity","identity":`...), ev)
	case store.KindAccount:
		out = appendSubject(append(out, `,"kind":"account","account":`...), ev)
	default:
		return dst, Unknown
	}
	return append(out, "}}"...), Encoded
}

// Jetstream2Info returns a message of version 2 about the stream.
func Jetstream2Info(name, message string) []byte {
	out := wire.AppendString([]byte(subscribe2Type+`info","name":`), name)
	out = wire.AppendString(append(out, `,"message":`...), message)
	return append(out, "}}"...)
}

type jetstream2Encoder struct{}

func (jetstream2Encoder) Encode(dst []byte, ev *store.Event) ([]byte, Result) {
	out := append(dst, subscribe2Type...)
	switch ev.Kind {
	case store.KindRecord:
		out = append(out, "commit"...)
	case store.KindIdentity:
		out = append(out, "identity"...)
	case store.KindAccount:
		out = append(out, "account"...)
	default:
		return dst, Unknown
	}
	out = strconv.AppendUint(append(out, `","seq":`...), ev.ID, 10)
	out = wire.AppendString(append(out, `,"did":`...), ev.DID)
	out = append(appendTime(append(out, `,"time":`...), ev.Time), ',')
	switch ev.Kind {
	case store.KindRecord:
		var ok bool
		if out, ok = appendCommit(out, ev); !ok {
			return dst, LeftOut
		}
		return append(out, "}}"...), Encoded
	case store.KindIdentity:
		out = append(out, `"identity":`...)
	default:
		out = append(out, `"account":`...)
	}
	return append(appendSubject(out, ev), "}}}"...), Encoded
}

// appendCommit appends the fields of a record event, the way a commit of Jetstream has them. ok is
// false if the record has no JSON form.
func appendCommit(out []byte, ev *store.Event) (_ []byte, ok bool) {
	out = wire.AppendString(append(out, `"rev":`...), ev.Rev)
	out = append(append(out, `,"operation":"`...), ev.Action.String()...)
	out = wire.AppendString(append(out, `","collection":`...), ev.Collection)
	out = wire.AppendString(append(out, `,"rkey":`...), ev.Rkey)
	if ev.Action == store.Delete {
		return out, true
	}
	out, ok = wire.AppendBody(out, "record", ev.Record)
	return append(ev.CID.AppendText(append(out, `,"cid":"`...)), '"'), ok
}

// appendSubject appends an event of subscribeRepos about an account or its identity, without its
// end. The event of the source is not kept: seq and time come from the log.
func appendSubject(out []byte, ev *store.Event) []byte {
	out = wire.AppendString(append(out, `{"did":`...), ev.DID)
	out = strconv.AppendUint(append(out, `,"seq":`...), ev.ID, 10)
	out = appendTime(append(out, `,"time":`...), ev.Time)
	if ev.Kind == store.KindIdentity {
		handle := ev.Handle
		if _, err := syntax.ParseHandle(handle); err != nil {
			handle = invalidHandle
		}
		return wire.AppendString(append(out, `,"handle":`...), handle)
	}
	out = strconv.AppendBool(append(out, `,"active":`...), !ev.Status.Hidden())
	if status := ev.Status.Word(); status != "" {
		out = wire.AppendString(append(out, `,"status":`...), status)
	}
	return out
}

// appendTime appends a time in unix microseconds.
func appendTime(out []byte, us int64) []byte {
	return append(time.UnixMicro(us).UTC().AppendFormat(append(out, '"'), jetstreamTime), '"')
}
