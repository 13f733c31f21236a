package deliver

import "cistern/store"

// format is a way to write events. Formats are compared by identity.
type format struct {
	name string
	// encoder returns an encoder for one page. It may remember what consecutive events share.
	encoder func() encoder
}

// encoder appends an event as the payload of a message. result tells whether the format has such
// events, and whether a record had no JSON form.
type encoder interface {
	encode(dst []byte, ev *store.Event) (out []byte, result encodeResult)
}

type encodeResult uint8

const (
	encoded encodeResult = iota
	// encodedWithout: the record has no JSON form, and the event says why in its place.
	encodedWithout
	// notInFormat: consumers of the format do not know such events. Nothing was appended.
	notInFormat
)
