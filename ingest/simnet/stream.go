package simnet

import (
	"context"
	"slices"
	"sort"
	"sync"
	"time"
)

const subscribeRepos = "com.atproto.sync.subscribeRepos"

// stream is the firehose of one host: a log of messages in its own order with its own numbers, and
// its readers.
type stream struct {
	net    *Network
	silent bool // gaps are not announced

	// mu guards:
	mu      sync.Mutex
	log     []message
	head    int64 // seq of the newest message, or where the numbers begin
	dropped int64 // seq of the newest message that the window left behind; 0 for none
	window  int
	held    []heldEvent
	faults  []*StreamInjection
	readers map[*subscriber]struct{}
	down    bool
	changed chan struct{} // closed and replaced when readers have something to look at
}

// message is one frame in the log.
type message struct {
	pos        int64 // its place, to which cursors refer
	seq        int64 // the place that it states
	head, tail []byte
	raw        bool // head alone is the frame
	at         time.Time
}

// heldEvent waits until some events of other accounts went ahead.
type heldEvent struct {
	event *event
	ahead int
	copy  bool // the event itself went out before
}

func newStream(n *Network, start int64, window int) *stream {
	return &stream{net: n, head: start, window: window,
		readers: make(map[*subscriber]struct{}), changed: make(chan struct{})}
}

// receive takes an event of an account; own means that the host has, or had, the account.
func (s *stream) receive(e *event, own bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own = own && !e.hidden
	if own {
		s.release(func(h heldEvent) bool { return !h.copy && h.event.did == e.did })
	}
	if !s.strike(e, own) && own {
		s.append(e)
	}
}

// append puts an event at the end, and behind it those that waited for it.
func (s *stream) append(e *event) {
	s.put(message{head: e.head, tail: e.tail})
	for i := range s.held {
		if s.held[i].event.did != e.did {
			s.held[i].ahead--
		}
	}
	s.release(func(h heldEvent) bool { return h.ahead <= 0 })
}

// release puts the held events that are due at the end.
func (s *stream) release(due func(heldEvent) bool) {
	s.held = slices.DeleteFunc(s.held, func(h heldEvent) bool {
		if !due(h) {
			return false
		}
		s.put(message{head: h.event.head, tail: h.event.tail})
		return true
	})
}

// put logs a message, and numbers it unless it has a seq.
func (s *stream) put(m message) {
	s.head++
	m.pos, m.at = s.head, time.Now()
	if m.seq == 0 {
		m.seq = m.pos
	}
	s.log = append(s.log, m)
	s.trim()
	s.wake()
}

func (s *stream) trim() {
	if excess := len(s.log) - s.window; excess > 0 {
		s.dropped = s.log[excess-1].pos
		clear(s.log[:excess])
		s.log = s.log[excess:]
	}
}

func (s *stream) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// after is the index of the first message behind pos.
func (s *stream) after(pos int64) int {
	return sort.Search(len(s.log), func(i int) bool { return s.log[i].pos > pos })
}

// append writes the frame.
func (m message) append(b []byte) []byte {
	b = append(b, m.head...)
	if m.raw {
		return b
	}
	return append(appendInt(b, m.seq), m.tail...)
}

// empty forgets all messages and numbers those to come from first on.
func (s *stream) empty(first int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log, s.held = nil, nil
	s.head, s.dropped = first-1, 0
	s.disconnect()
	s.wake()
}

func (s *stream) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	if down {
		s.disconnect()
	}
}

// disconnect breaks all connections and returns their number. Called with mu held.
func (s *stream) disconnect() int {
	n := len(s.readers)
	for r := range s.readers {
		_ = r.conn.NetConn().Close()
	}
	clear(s.readers) // at once, so that a wait for connections counts new ones only
	return n
}

// Head is the seq of the newest message of the host's stream.
func (h *Host) Head() int64 {
	h.stream.mu.Lock()
	defer h.stream.mu.Unlock()
	return h.stream.head
}

// SetWindow chooses how many messages the host's stream keeps, from now on.
func (h *Host) SetWindow(messages int) {
	h.stream.mu.Lock()
	defer h.stream.mu.Unlock()
	h.stream.window = messages
	h.stream.trim()
}

// Messages lists the frames that the host's stream keeps after a cursor.
func (h *Host) Messages(cursor int64) [][]byte {
	h.stream.mu.Lock()
	defer h.stream.mu.Unlock()
	kept := h.stream.log[h.stream.after(cursor):]
	frames := make([][]byte, len(kept))
	for i, m := range kept {
		frames[i] = m.append(nil)
	}
	return frames
}

// Connections is the number of connections that read the host's stream.
func (h *Host) Connections() int {
	h.stream.mu.Lock()
	defer h.stream.mu.Unlock()
	return len(h.stream.readers)
}

// DropConnections breaks all connections to the host's stream, and returns their number.
func (h *Host) DropConnections() int {
	h.stream.mu.Lock()
	defer h.stream.mu.Unlock()
	return h.stream.disconnect()
}

// WaitConnections waits until at least n connections read the host's stream.
func (h *Host) WaitConnections(ctx context.Context, n int) error {
	return await(ctx, func() bool { return h.Connections() >= n })
}

// WaitDelivered waits until the host's stream has a connection and all connections were sent every
// message.
func (h *Host) WaitDelivered(ctx context.Context) error {
	return await(ctx, func() bool {
		h.stream.mu.Lock()
		defer h.stream.mu.Unlock()
		for r := range h.stream.readers {
			if r.pos < h.stream.head {
				return false
			}
		}
		return len(h.stream.readers) > 0
	})
}

// await polls a condition.
func await(ctx context.Context, met func() bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Settle sends what faults of the host's stream hold back.
func (h *Host) Settle() {
	h.stream.mu.Lock()
	defer h.stream.mu.Unlock()
	h.stream.release(func(heldEvent) bool { return true })
}

// Settle sends what faults hold back on any stream, so that the network falls quiet.
func (n *Network) Settle() {
	for _, h := range slices.Concat(n.hosts, n.relays) {
		h.Settle()
	}
}
