package ingest

import (
	"sync"

	"cistern/ingest/frame"
)

// event is one message of a source, from its socket until nothing needs its memory.
type event struct {
	src *source
	// seq is the event's number in src.tracker, what finish wants; 0 if the tracker does not know the event, which finish
	// passes over. The number that the host gave is frame.Seq: two of them may be alike when a host starts anew.
	seq     int64
	message []byte
	frame   frame.Frame // refers to message
	// broken is why the message could not be decoded, nil if it was. frame then has only the DID
	// and rev of a #commit or #sync.
	broken error

	buffer *buffer
	cost   int64 // its memory, taken from Options.QueueBytes
}

// buffer is memory for one message.
type buffer struct {
	b     []byte // all of it
	class int
}

// pool keeps events and buffers for later ones. The garbage collector takes what nobody uses.
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

// grow is a buffer of the next class that begins with what b holds; b is gone. There must be a next class.
func (p *pool) grow(b *buffer) *buffer {
	larger := p.buffer(b.class + 1)
	copy(larger.b, b.b)
	p.putBuffer(b)
	return larger
}

// release is called once nothing needs e any more. Its message is overwritten by later ones.
func (r *Runner) release(e *event) { r.sources.release(e) }

func (s *sources) release(e *event) {
	s.queue.Release(e.cost)
	s.queued.Add(-e.cost)
	s.pool.put(e)
}
