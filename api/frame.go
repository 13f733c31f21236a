package api

import (
	"encoding/binary"
	"strconv"

	"cistern/api/wire"
	"cistern/store"
)

// WebSocket frames (RFC 6455, section 5.2) as a server sends them: final, unmasked.
const (
	frameText  = 0x81
	frameClose = 0x88
	framePing  = 0x89
	framePong  = 0x8a

	// frameHeader is the size of the header of a frame of 126 to 65,535 bytes, the usual case.
	frameHeader = 4
)

// encoder appends events to a page, each as one text frame in hydrant's format.
type encoder struct {
	out     []byte
	events  int
	refused int // records that have no JSON form

	// head is the common part of consecutive events of one commit.
	head []byte
	did  string
	rev  string
	live bool
}

// event appends ev.
func (e *encoder) event(ev *store.Event) {
	start := len(e.out)
	e.out = append(e.out, `0000{"id":`...) // four bytes for the header
	e.out = strconv.AppendUint(e.out, ev.ID, 10)
	switch ev.Kind {
	case store.KindRecord:
		e.record(ev)
	case store.KindIdentity:
		e.identity(ev)
	case store.KindAccount:
		e.account(ev)
	default:
		e.out = e.out[:start] // the format has no such kind
		return
	}
	e.out = sealFrame(append(e.out, "}}"...), start)
	e.events++
}

func (e *encoder) record(ev *store.Event) {
	if ev.DID != e.did || ev.Rev != e.rev || ev.Live != e.live || e.head == nil {
		e.did, e.rev, e.live = ev.DID, ev.Rev, ev.Live
		e.head = append(e.head[:0], `,"type":"record","record":{"live":`...)
		e.head = strconv.AppendBool(e.head, ev.Live)
		e.head = wire.AppendString(append(e.head, `,"did":`...), ev.DID)
		e.head = wire.AppendString(append(e.head, `,"rev":`...), ev.Rev)
		e.head = append(e.head, `,"collection":`...)
	}
	out := append(e.out, e.head...)
	out = wire.AppendString(out, ev.Collection)
	out = wire.AppendString(append(out, `,"rkey":`...), ev.Rkey)
	out = append(append(append(out, `,"action":"`...), ev.Action.String()...), '"')
	if ev.Action != store.Delete {
		var ok bool
		if out, ok = wire.AppendBody(out, "record", ev.Record); !ok {
			e.refused++
		}
		out = append(out, `,"cid":"`...)
		out = append(ev.CID.AppendText(out), '"')
	}
	e.out = out
}

func (e *encoder) identity(ev *store.Event) {
	out := append(e.out, `,"type":"identity","identity":{"did":`...)
	out = wire.AppendString(out, ev.DID)
	if ev.Handle != "" {
		out = wire.AppendString(append(out, `,"handle":`...), ev.Handle)
	}
	if ev.PDS != "" {
		out = wire.AppendString(append(out, `,"pds":`...), ev.PDS)
	}
	e.out = out
}

func (e *encoder) account(ev *store.Event) {
	out := append(e.out, `,"type":"account","account":{"did":`...)
	out = wire.AppendString(out, ev.DID)
	out = append(out, `,"active":`...)
	out = strconv.AppendBool(out, !ev.Status.Hidden())
	if status := ev.Status.Word(); status != "" {
		out = wire.AppendString(append(out, `,"status":`...), status)
	}
	e.out = out
}

// sealFrame writes the header of the text frame that begins at start with frameHeader bytes of
// room, moving the payload when the header is shorter or longer.
func sealFrame(out []byte, start int) []byte {
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
	out[start] = frameText
	return out
}

// frameEnd returns the end of the frame with the byte at at, or at if it is between two frames.
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

// appendControl appends a control frame. Its payload has at most 125 bytes.
func appendControl[S string | []byte](dst []byte, kind byte, payload S) []byte {
	payload = payload[:min(len(payload), inboundBytesMax)]
	return append(append(dst, kind, byte(len(payload))), payload...)
}

// appendClose appends a close frame.
func appendClose(dst []byte, code uint16, reason string) []byte {
	return appendControl(dst, frameClose, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// appendError appends the frame with the reason why a stream ends.
func appendError(dst []byte, name, message string) []byte {
	start := len(dst)
	dst = append(dst, `0000{"type":"error","error":`...)
	dst = wire.AppendString(dst, name)
	dst = wire.AppendString(append(dst, `,"message":`...), message)
	return sealFrame(append(dst, '}'), start)
}
