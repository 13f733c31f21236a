package wire

import "sync"

// bufferBytesMax is the largest buffer that is kept for a later answer.
const bufferBytesMax = 256 << 10

// Buffer is memory for the body of a long answer, which serves a later answer once this one is
// written. Without it, growing and collecting bodies takes a quarter of what a list costs.
type Buffer struct{ bytes []byte }

var buffers = sync.Pool{New: func() any { return new(Buffer) }}

// NewBuffer returns a buffer. The caller frees it when the answer is written.
func NewBuffer() *Buffer { return buffers.Get().(*Buffer) }

// Bytes returns the memory, empty.
func (b *Buffer) Bytes() []byte { return b.bytes[:0] }

// Keep takes a body that was appended to Bytes. The body is valid until Free.
func (b *Buffer) Keep(body []byte) { b.bytes = body }

// Free gives the memory to a later answer.
func (b *Buffer) Free() {
	if cap(b.bytes) <= bufferBytesMax {
		buffers.Put(b)
	}
}
