package ingest

import (
	"sync"

	"cistern/ingest/frame"
	"cistern/trace"
)

// event is one message of a source, from its socket until its memory is released.
type event struct {
	src *source
	// seq is the event's number in src.tracker, by which finish names it, or 0 for an event that
	// the tracker does not know, which finish ignores. The number that the host assigned is
	// frame.Seq: two events may have the same one when a host starts a new count.
	seq     int64
	message []byte
	frame   frame.Frame // refers to message
	// broken is why the message could not be decoded, nil if it was. frame then has only the DID
	// and rev of a #commit or #sync.
	broken error

	path trace.Path // of a #commit, from the socket to the log

	buffer *buffer
	cost   int64 // its memory, taken from Options.QueueBytes
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

func (p *pool) event() *event {
	if e, ok := p.events.Get().(*event); ok {
		return e
	}
	return new(event)
}

// put takes back an event and its buffer.
func (p *pool) put(e *event) {
	if e.buffer != nil {
		p.putBuffer(e.buffer)
	}
	e.path.Text("outcome", "dropped") // unless its end has taken the path
	e.path.End()
	ops := e.frame.Ops[:0]
	if clear(e.frame.Ops); cap(ops) > opsKept {
		ops = nil
	}
	*e = event{frame: frame.Frame{Ops: ops}}
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

// release returns e to the pool. Later messages overwrite its message, so that nothing may refer to
// e any more.
func (r *Runner) release(e *event) { r.sources.release(e) }

func (s *sources) release(e *event) {
	s.queue.Release(e.cost)
	s.queued.Add(-e.cost)
	s.pool.put(e)
}
