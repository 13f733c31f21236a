package simnet

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// StreamFaultKind is a way for a stream to go wrong.
type StreamFaultKind int

// The faults of streams. The truth stays what the PDS of an account serves.
const (
	// StreamDuplicate sends an event again, with a new seq, after Ahead events of other accounts.
	StreamDuplicate StreamFaultKind = iota + 1
	// StreamReorder sends an event after Ahead (default 1) events of other accounts that came later.
	// Those of one account keep their order.
	StreamReorder
	// StreamGap never sends an event.
	StreamGap
	// StreamSeqRegression sends an event under a seq lower than the one before.
	StreamSeqRegression
	// StreamWrongHost sends an event of an account that this host has nothing to do with.
	StreamWrongHost
	// StreamHidden sends a commit of an account that is not active.
	StreamHidden
	// StreamGarbage sends a frame that is not CBOR before an event.
	StreamGarbage
	// StreamUnknownType sends a frame of an unknown type before an event.
	StreamUnknownType

	// Those from here on send something else in place of a #commit, or before it if Extra is set.

	// StreamForgedExtra sends, always before the true one, a commit that never happened: right in all
	// but the signature, which is by a key of no account.
	StreamForgedExtra
	// StreamLyingSince names a rev in since that was not the one before, or null with Bare.
	StreamLyingSince
	// StreamNoPrevData leaves out prevData and the prev of ops, as hosts before sync v1.1 do; with
	// Bare also the nodes that are not new.
	StreamNoPrevData
	// StreamForgedSignature has the commit signed by a key of no account.
	StreamForgedSignature
	// StreamForgedRecord flips one bit of a record, under its old CID.
	StreamForgedRecord
	// StreamMissingRecord leaves out one record's block.
	StreamMissingRecord
	// StreamWrongDID names another account in the message than in the commit.
	StreamWrongDID
	// StreamFutureRev sends a commit of a day after the wall clock's now.
	StreamFutureRev
	// StreamTooBig sends the deprecated form for a commit that does not fit: no ops, no blocks.
	StreamTooBig
	// StreamSyncInstead sends a #sync of the commit.
	StreamSyncInstead
	// StreamOversized sends the #commit with blocks that make the message longer than 5 MiB.
	StreamOversized
	// StreamManyOps sends the #commit with 1,001 operations.
	StreamManyOps

	// Those from here on happen to connections, when they sent After messages.

	// StreamSilent sends nothing more; pings are answered.
	StreamSilent
	// StreamDead does not even answer pings.
	StreamDead
	// StreamDisconnect breaks the connection in the middle of a frame.
	StreamDisconnect
	// StreamError ends the stream with an error frame: Error, default ConsumerTooSlow.
	StreamError
	// StreamRefused answers the upgrade with an HTTP status: Status, default 429.
	StreamRefused
	// StreamLag sends every message Delay after it came.
	StreamLag
)

// String is the name of the kind.
func (k StreamFaultKind) String() string {
	names := [...]string{"Duplicate", "Reorder", "Gap", "SeqRegression", "WrongHost", "Hidden",
		"Garbage", "UnknownType", "ForgedExtra", "LyingSince", "NoPrevData", "ForgedSignature",
		"ForgedRecord", "MissingRecord", "WrongDID", "FutureRev", "TooBig", "SyncInstead", "Oversized",
		"ManyOps", "Silent", "Dead", "Disconnect", "Error", "Refused", "Lag"}
	if k < 1 || int(k) > len(names) {
		return fmt.Sprintf("StreamFaultKind(%d)", int(k))
	}
	return "Stream" + names[k-1]
}

// inCommit reports whether the fault alters a #commit.
func (k StreamFaultKind) inCommit() bool { return k >= StreamForgedExtra && k < StreamSilent }

// inConnection reports whether the fault happens to connections rather than events.
func (k StreamFaultKind) inConnection() bool { return k >= StreamSilent }

// StreamFault describes what goes wrong on a stream, and for which events or connections.
type StreamFault struct {
	Kind StreamFaultKind
	// DID limits the fault to events of one account. Default all.
	DID string
	// Type limits the fault to one message type, such as "#identity". Default all; kinds that alter
	// a commit meet #commit only.
	Type string
	// Count is how often it fires before it is spent. Default 0, until cleared.
	Count int
	// After is how many events that it could meet pass by first; of connections, how many messages
	// each is sent.
	After int
	// Ahead is how many events of other accounts go before. Default 0, for StreamReorder 1.
	Ahead int
	// Extra has the true commit follow the altered one. Otherwise it is never sent.
	Extra bool
	// Bare changes StreamNoPrevData and StreamLyingSince: see there.
	Bare bool
	// Delay is the delay of StreamLag.
	Delay time.Duration
	// Status is the HTTP status of StreamRefused.
	Status int
	// Error is the name in StreamError's frame.
	Error string
}

// StreamInjection is a fault in force on one stream.
type StreamInjection struct {
	stream *stream
	fault  StreamFault
	// guarded by stream.mu:
	met, fired int
}

// InjectStream puts a fault in force on the host's stream. Of several that match an event the
// earliest injected fires.
func (h *Host) InjectStream(f StreamFault) *StreamInjection {
	if f.Kind == StreamReorder {
		f.Ahead = cmp.Or(f.Ahead, 1)
	}
	s := h.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	in := &StreamInjection{stream: s, fault: f}
	s.faults = append(s.faults, in)
	s.wake()
	return in
}

// ClearStreamFaults ends all faults of the host's stream, and sends what they hold back.
func (h *Host) ClearStreamFaults() {
	s := h.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
	s.release(func(heldEvent) bool { return true })
	s.wake()
}

// Fired is how often the fault met an event or a connection.
func (in *StreamInjection) Fired() int {
	in.stream.mu.Lock()
	defer in.stream.mu.Unlock()
	return in.fired
}

// Clear ends the fault.
func (in *StreamInjection) Clear() {
	s := in.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = slices.DeleteFunc(s.faults, func(other *StreamInjection) bool { return other == in })
	s.wake()
}

func (in *StreamInjection) spent() bool { return in.fault.Count > 0 && in.fired >= in.fault.Count }

// strike applies the first fault that matches an event, and reports whether there was one.
func (s *stream) strike(e *event, own bool) bool {
	for _, in := range s.faults {
		if !in.matches(e, own) {
			continue
		}
		put := in.effect(e)
		if put == nil {
			continue
		}
		if in.met++; in.met <= in.fault.After {
			continue
		}
		in.fired++
		put()
		return true
	}
	return false
}

func (in *StreamInjection) matches(e *event, own bool) bool {
	f := in.fault
	if f.Kind.inConnection() || in.spent() || (f.DID != "" && f.DID != e.did) ||
		(f.Type != "" && f.Type != e.kind) {
		return false
	}
	switch f.Kind {
	case StreamWrongHost:
		return !own && !e.hidden
	case StreamHidden:
		return e.hidden
	}
	return own && (!f.Kind.inCommit() || e.commit != nil)
}

// effect returns what the fault does with an event, nil if it does not apply.
func (in *StreamInjection) effect(e *event) func() {
	s, f := in.stream, in.fault
	before := func(m message) func() {
		return func() {
			s.put(m)
			s.append(e)
		}
	}
	switch f.Kind {
	case StreamDuplicate:
		return func() {
			s.append(e)
			s.held = append(s.held, heldEvent{e, f.Ahead, true})
			s.release(func(h heldEvent) bool { return h.ahead <= 0 })
		}
	case StreamReorder:
		if slices.ContainsFunc(s.held, func(h heldEvent) bool { return !h.copy }) {
			return nil // the event held back waits for this one
		}
		return func() { s.held = append(s.held, heldEvent{e, f.Ahead, false}) }
	case StreamGap:
		return func() {}
	case StreamSeqRegression:
		if len(s.log) < 2 {
			return nil
		}
		return func() { s.put(message{head: e.head, tail: e.tail, seq: s.head - 1}) }
	case StreamWrongHost, StreamHidden:
		return func() { s.append(e) }
	case StreamGarbage:
		return before(message{raw: true, head: []byte("<html>\xff\x00 no frame here")})
	case StreamUnknownType:
		x := newEvent("#unheard", e.did, map[string]any{"did": e.did,
			"time": e.fields["time"], "news": "none"})
		return before(message{head: x.head, tail: x.tail})
	}
	altered := e.commit.altered(e, f)
	if altered == nil {
		return nil
	}
	return func() {
		s.append(altered)
		if f.Extra || f.Kind == StreamForgedExtra {
			s.append(e)
		}
	}
}

// refusal returns the fault for an upgrade.
func (s *stream) refusal() *StreamInjection {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range s.faults {
		if in.fault.Kind == StreamRefused && !in.spent() {
			if in.met++; in.met > in.fault.After {
				in.fired++
				return in
			}
		}
	}
	return nil
}

// connectionFault returns the fault that ends a connection now; pending means that it has a message
// to send. Called with mu held.
func (s *stream) connectionFault(sub *subscriber, pending bool) *StreamInjection {
	for _, in := range s.faults {
		if in.spent() || sub.sent < in.fault.After {
			continue
		}
		switch in.fault.Kind {
		case StreamDisconnect:
			if !pending {
				continue
			}
		case StreamSilent, StreamDead, StreamError:
		default:
			continue
		}
		in.fired++
		return in
	}
	return nil
}

// lag is how long a message has to wait. Called with mu held.
func (s *stream) lag(sub *subscriber, m message) time.Duration {
	for _, in := range s.faults {
		if in.fault.Kind != StreamLag || (in.spent() && sub.lagged != m.pos) {
			continue
		}
		wait := time.Until(m.at.Add(in.fault.Delay))
		if wait > 0 && sub.lagged != m.pos {
			sub.lagged = m.pos
			in.fired++
		}
		return wait
	}
	return 0
}

// end ends a connection as the fault describes.
func (in *StreamInjection) end(sub *subscriber, m message) {
	switch in.fault.Kind {
	case StreamDead:
		sub.deaf.Store(true)
		<-sub.done
	case StreamSilent:
		<-sub.done
	case StreamError:
		sub.finish(errorFrame(cmp.Or(in.fault.Error, "ConsumerTooSlow"), "Stream consumer too slow"))
	case StreamDisconnect:
		frame := m.append(nil)
		// a final binary frame
		head := binary.BigEndian.AppendUint64([]byte{0x82, 127}, uint64(len(frame)))
		_, _ = sub.conn.NetConn().Write(append(head, frame[:len(frame)/2]...))
	}
}
