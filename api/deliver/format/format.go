package format

import (
	"cistern/api/deliver/wsframe"
	"cistern/store"
)

// Format is an encoding of events as messages. Formats are compared by identity.
type Format struct {
	// Name names the format in errors.
	Name string
	// NewEncoder returns an encoder for one page. The encoder may cache what consecutive events have
	// in common.
	NewEncoder func() Encoder
	// packing compresses every message by itself. Default: messages are text.
	packing *packing
}

// Encoder appends an event as a message. result reports whether the format has such events, and
// whether a record had no JSON form.
type Encoder interface {
	Encode(dst []byte, ev *store.Event) (out []byte, result Result)
}

// Result says what became of an event.
type Result uint8

const (
	// Encoded: the event is the message, whole.
	Encoded Result = iota
	// Unrepresentable: the record has no JSON form, and the event has the reason in its place.
	Unrepresentable
	// LeftOut: the record has no JSON form, and the format has no field for the reason. Nothing was
	// appended.
	LeftOut
	// Unknown: consumers of the format do not know such events. Nothing was appended.
	Unknown
)

// Append appends the frame of a message.
func (f *Format) Append(dst, message []byte) []byte {
	start, kind := len(dst), byte(wsframe.Text)
	dst = append(dst, wsframe.Space...)
	if f.packing == nil {
		dst = append(dst, message...)
	} else {
		dst, kind = f.packing.pack(dst, message), f.packing.kind
	}
	return wsframe.Seal(dst, start, kind)
}

// AppendEvent appends the frame of an event, and returns the bytes of its message. plain is a
// buffer for messages before compression.
func (f *Format) AppendEvent(
	dst []byte, e Encoder, ev *store.Event, plain *[]byte,
) (_ []byte, size int, result Result) {
	if f.packing != nil {
		if *plain, result = e.Encode((*plain)[:0], ev); result >= LeftOut {
			return dst, 0, result
		}
		return f.Append(dst, *plain), len(*plain), result
	}
	start := len(dst)
	out, result := e.Encode(append(dst, wsframe.Space...), ev)
	if result >= LeftOut {
		return dst, 0, result
	}
	size = len(out) - start - len(wsframe.Space)
	return wsframe.Seal(out, start, wsframe.Text), size, result
}
