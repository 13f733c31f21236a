package firehose

import (
	"sync"
	"time"

	"cistern/ingest/frame"
	"cistern/trace"
)

// Event is one message of a source, from its socket until its memory is released.
type Event struct {
	Source *Source
	// Number is the event's number at its source, by which Source.Finish names it, or 0 for an
	// event that Finish ignores. The number that the host assigned is Frame.Seq: two events may
	// have the same one when a host starts a new count.
	Number  int64
	Message []byte
	Frame   frame.Frame // refers to Message
	// Broken is why the message could not be decoded, nil if it was. Frame then has only the DID
	// and rev of a #commit or #sync.
	Broken error

	Trace trace.Path // of a #commit, from the socket to the log

	buffer *buffer
	cost   int64 // its memory, taken from Options.QueueBytes
}

// Cost returns the memory of the event in bytes, of Options.QueueBytes.
func (e *Event) Cost() int64 { return e.cost }

// Release frees the memory of the event. Later messages overwrite it, so that nothing may refer to
// the event any more.
func (e *Event) Release() { e.Source.set.release(e) }

// Confirm records at a time that the event is valid: it was applied, or was known already.
func (e *Event) Confirm(applied bool, now time.Time) { e.Source.set.direct.note(e, applied, now) }

// describe sets the attributes of a commit's trace, and begins its first step: it waits for its
// shard.
func (e *Event) describe() {
	if !e.Trace.On() {
		return
	}
	e.Trace.Text("did", e.Frame.DID)
	e.Trace.Text("host", e.Source.url)
	e.Trace.Text("rev", e.Frame.Rev)
	e.Trace.Number("seq", e.Frame.Seq)
	e.Trace.Number("records", int64(len(e.Frame.Ops)))
	e.Trace.Step("queue")
}

// buffer is memory for one message.
type buffer struct {
	b     []byte // with its whole capacity
	class int
}

// pool keeps events and buffers for reuse. The garbage collector frees those that are idle.
type pool struct {
	events  sync.Pool
	buffers [bufferClasses]sync.Pool
}

func (p *pool) event() *Event {
	if e, ok := p.events.Get().(*Event); ok {
		return e
	}
	return new(Event)
}

// put takes back an event and its buffer.
func (p *pool) put(e *Event) {
	if e.buffer != nil {
		p.putBuffer(e.buffer)
	}
	e.Trace.Text("outcome", "dropped") // unless its end has taken the path
	e.Trace.End()
	ops := e.Frame.Ops[:0]
	if clear(e.Frame.Ops); cap(ops) > opsKept {
		ops = nil
	}
	*e = Event{Frame: frame.Frame{Ops: ops}}
	p.events.Put(e)
}

func (p *pool) buffer(class int) *buffer {
	if b, ok := p.buffers[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, bufferBytesMin<<class), class: class}
}

func (p *pool) putBuffer(b *buffer) { p.buffers[b.class].Put(b) }

// grow returns a buffer of the next class that begins with the contents of b, and releases b. There
// must be a next class.
func (p *pool) grow(b *buffer) *buffer {
	larger := p.buffer(b.class + 1)
	copy(larger.b, b.b)
	p.putBuffer(b)
	return larger
}

func (s *Sources) release(e *Event) {
	s.queue.Release(e.cost)
	s.queued.Add(-e.cost)
	s.pool.put(e)
}
