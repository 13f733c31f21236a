package wsframe

import (
	"encoding/binary"
	"strings"
)

// The first byte of a frame: that it is final, and its kind.
const (
	Text   = 0x81
	Binary = 0x82
	// Deflated is Text with the bit of permessage-deflate (RFC 7692, section 6).
	Deflated = 0xc1
	Close    = 0x88
	Ping     = 0x89
	Pong     = 0x8a
)

const (
	// Space is the placeholder of a header: Seal replaces it.
	Space = "0000"
	// header is the size of the header of a frame of 126 to 65,535 bytes, the usual case.
	header = len(Space)
	// controlBytesMax bounds the payload of a control frame, by RFC 6455.
	controlBytesMax = 125
)

// Seal writes the header of the frame that begins at start with Space. It moves the payload if the
// header is shorter or longer.
func Seal(out []byte, start int, kind byte) []byte {
	n := len(out) - start - header
	switch {
	case n <= 125:
		copy(out[start+2:], out[start+header:])
		out = out[:len(out)-2]
		out[start+1] = byte(n)
	case n <= 0xffff:
		out[start+1] = 126
		binary.BigEndian.PutUint16(out[start+2:], uint16(n))
	default:
		out = append(out, "000000"...)
		copy(out[start+10:], out[start+header:start+header+n])
		out[start+1] = 127
		binary.BigEndian.PutUint64(out[start+2:], uint64(n))
	}
	out[start] = kind
	return out
}

// End returns the end of the frame that includes the byte at index at. If a frame begins at this
// index, it returns at.
func End(frames []byte, at int) int {
	end := 0
	for end < at {
		switch n := frames[end+1]; n {
		case 126:
			end += 4 + int(binary.BigEndian.Uint16(frames[end+2:]))
		case 127:
			end += 10 + int(binary.BigEndian.Uint64(frames[end+2:]))
		default:
			end += 2 + int(n)
		}
	}
	return end
}

// Payload returns the payload of the frame that begins frames, and what follows the frame.
func Payload(frames []byte) (payload, rest []byte) {
	at, n := 2, int(frames[1])
	switch n {
	case 126:
		at, n = 4, int(binary.BigEndian.Uint16(frames[2:]))
	case 127:
		at, n = 10, int(binary.BigEndian.Uint64(frames[2:]))
	}
	return frames[at : at+n], frames[at+n:]
}

// AppendControl appends a control frame. Its payload has at most 125 bytes:
// the rest is cut off.
func AppendControl[S string | []byte](dst []byte, kind byte, payload S) []byte {
	payload = payload[:min(len(payload), controlBytesMax)]
	return append(append(dst, kind, byte(len(payload))), payload...)
}

// AppendClose appends a close frame. A long reason is cut between two characters.
func AppendClose(dst []byte, code uint16, reason string) []byte {
	payload := binary.BigEndian.AppendUint16(nil, code)
	reason = strings.ToValidUTF8(reason[:min(len(reason), controlBytesMax-len(payload))], "")
	return AppendControl(dst, Close, string(payload)+reason)
}
