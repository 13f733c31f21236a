package deliver

import (
	"encoding/binary"
	"strings"
)

// WebSocket frames (RFC 6455, section 5.2) as a server sends them: final, unmasked.
const (
	frameText   = 0x81
	frameBinary = 0x82
	frameClose  = 0x88
	framePing   = 0x89
	framePong   = 0x8a

	// frameHeader is the size of the header of a frame of 126 to 65,535 bytes, the usual case.
	frameHeader = 4
	headerSpace = "0000" // placeholder of frameHeader bytes
)

// sealFrame writes the header of the frame that begins at start with headerSpace. It moves the
// payload if the header is shorter or longer.
func sealFrame(out []byte, start int, kind byte) []byte {
	n := len(out) - start - frameHeader
	switch {
	case n <= 125:
		copy(out[start+2:], out[start+frameHeader:])
		out = out[:len(out)-2]
		out[start+1] = byte(n)
	case n <= 0xffff:
		out[start+1] = 126
		binary.BigEndian.PutUint16(out[start+2:], uint16(n))
	default:
		out = append(out, "000000"...)
		copy(out[start+10:], out[start+frameHeader:start+frameHeader+n])
		out[start+1] = 127
		binary.BigEndian.PutUint64(out[start+2:], uint64(n))
	}
	out[start] = kind
	return out
}

// frameEnd returns the end of the frame that includes the byte at index at. If a frame begins at
// this index, it returns at.
func frameEnd(frames []byte, at int) int {
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

// appendControl appends a control frame. Its payload has at most controlBytesMax.
func appendControl[S string | []byte](dst []byte, kind byte, payload S) []byte {
	payload = payload[:min(len(payload), controlBytesMax)]
	return append(append(dst, kind, byte(len(payload))), payload...)
}

// appendClose appends a close frame. A long reason is cut between two characters.
func appendClose(dst []byte, code uint16, reason string) []byte {
	payload := binary.BigEndian.AppendUint16(nil, code)
	reason = strings.ToValidUTF8(reason[:min(len(reason), controlBytesMax-len(payload))], "")
	return appendControl(dst, frameClose, string(payload)+reason)
}
