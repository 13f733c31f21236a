package format

import (
	"strconv"

	"cistern/api/wire"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Tap is the format of tap. Its clients check every message, and one that they refuse is never
// acknowledged: an event that they would refuse is left out.
var Tap = &Format{Name: "tap", NewEncoder: func() Encoder { return &tapEncoder{} }}

// tapEncoder writes events as tap does. Events of records are those of Cistern's own format.
type tapEncoder struct {
	records cisternEncoder

	// refused is whether clients refuse the DID did.
	did     string
	refused bool
}

func (e *tapEncoder) Encode(dst []byte, ev *store.Event) ([]byte, Result) {
	if e.did != ev.DID {
		e.did, e.refused = ev.DID, wire.BadDID(ev.DID) != ""
	}
	if e.refused {
		return dst, LeftOut
	}
	out := strconv.AppendUint(append(dst, `{"id":`...), ev.ID, 10)
	switch ev.Kind {
	case store.KindRecord:
		var result Result
		out, result = e.records.record(out, ev)
		if result != Encoded || ev.Action != store.Delete && !isStrict(ev.Record) {
			return dst, LeftOut
		}
	case store.KindIdentity, store.KindAccount:
		out = appendTapIdentity(out, ev)
	default:
		return dst, Unknown
	}
	return append(out, "}}"...), Encoded
}

// appendTapIdentity appends an event of an account or its identity, for which tap has one type.
func appendTapIdentity(out []byte, ev *store.Event) []byte {
	out = append(out, `,"type":"identity","identity":{"did":`...)
	out = wire.AppendString(out, ev.DID)
	handle := ev.Handle
	if _, err := syntax.ParseHandle(handle); err != nil {
		handle = wire.InvalidHandle
	}
	out = wire.AppendString(append(out, `,"handle":`...), handle)
	out = strconv.AppendBool(append(out, `,"is_active":`...), !ev.Status.Hidden())
	return wire.AppendString(append(out, `,"status":`...), tapStatus(ev.Status))
}

// tapStatus returns tap's word for a status. A repository that its host does not know, and an
// account that is inactive without a known reason, may return: deactivated says that, deleted does
// not.
func tapStatus(s store.Status) string {
	if word := s.Word(); word != "" {
		return word
	}
	if s.Hidden() {
		return store.StatusDeactivated.String()
	}
	return store.StatusActive.String()
}
