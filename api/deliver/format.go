package deliver

import (
	"cistern/store"

	"github.com/klauspost/compress/zstd"
)

// format is an encoding of events as messages. Formats are compared by identity.
type format struct {
	name string
	// encoder returns an encoder for one page. The encoder may cache what consecutive events have
	// in common.
	encoder func() encoder
	// zstd compresses every message by itself. Default: messages are text.
	zstd *zstd.Encoder
}

// encoder appends an event as a message. result reports whether the format has such events, and
// whether a record had no JSON form.
type encoder interface {
	encode(dst []byte, ev *store.Event) (out []byte, result encodeResult)
}

type encodeResult uint8

const (
	encoded encodeResult = iota
	// encodedWithout: the record has no JSON form, and the event has the reason in its place.
	encodedWithout
	// leftOut: the record has no JSON form, and the format has no field for the reason. Nothing was
	// appended.
	leftOut
	// notInFormat: consumers of the format do not know such events. Nothing was appended.
	notInFormat
)

// appendFrame appends the frame of a message. sealFrame needs headerSpace at the beginning of the
// frame.
func (f *format) appendFrame(dst, message []byte) []byte {
	start, kind := len(dst), byte(frameText)
	dst = append(dst, headerSpace...)
	if f.zstd == nil {
		dst = append(dst, message...)
	} else {
		dst, kind = f.zstd.EncodeAll(message, dst), frameBinary
	}
	return sealFrame(dst, start, kind)
}

// appendEvent appends the frame of an event, and returns the bytes of its message. plain is a
// buffer for messages before compression.
func (f *format) appendEvent(dst []byte, e encoder, ev *store.Event, plain *[]byte) (_ []byte, size int, result encodeResult) {
	if f.zstd != nil {
		if *plain, result = e.encode((*plain)[:0], ev); result >= leftOut {
			return dst, 0, result
		}
		return f.appendFrame(dst, *plain), len(*plain), result
	}
	start := len(dst)
	out, result := e.encode(append(dst, headerSpace...), ev)
	if result >= leftOut {
		return dst, 0, result
	}
	size = len(out) - start - frameHeader
	return sealFrame(out, start, frameText), size, result
}
