package repo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Spool takes the part of a CAR's body that does not fit into memory.
type Spool interface {
	io.Writer
	io.ReaderAt
	io.Closer
}

var errNoSpool = errors.New("CAR body exceeds the memory given and there is no spool")

// An entry is what the body keeps of a block: its dense index (4 bytes), its length (4), its
// digest, its bytes, and padding to a multiple of entryAlign so that positions take fewer bits.
const (
	entryAlign     = 8
	entryHeadBytes = 8 + len(CID{})

	chunkUnits = ChunkBytes / entryAlign

	// spoolReadBytes is read at once from the spool: most entries are shorter.
	spoolReadBytes = 1 << 10
)

func entrySize(block int) int {
	return (entryHeadBytes + block + entryAlign - 1) &^ (entryAlign - 1)
}

func entryBlock(e []byte) []byte  { return e[entryHeadBytes:] }
func entryIndex(e []byte) int     { return int(binary.LittleEndian.Uint32(e)) }
func entryDigest(e []byte) []byte { return e[8:entryHeadBytes] }

// body holds entries in the order of their arrival: chunks of memory first, the spool after them.
// A position counts steps of entryAlign bytes; chunk n begins at n*chunkUnits, and the spool
// where the chunks end. An entry longer than a chunk has one of its own.
type body struct {
	pool     *ChunkPool
	grow     func(bytes int64) bool
	open     func() (Spool, error)
	memory   int64 // bytes of the chunks
	memories int64 // limit on memory

	chunks [][]byte
	last   int // index of the chunk being filled, -1 before the first
	used   int // bytes of it

	spool     Spool
	spoolBase uint64 // position of the spool's first byte
	spooled   int64  // bytes written to the spool
	pending   []byte // to be written next; also where entries are assembled
	scratch   []byte // the entry read last
}

// reserve makes room for an entry with a block of n bytes and returns it with the position it
// will have. Nothing is kept until keep is called.
func (b *body) reserve(n int) (entry []byte, pos uint64, err error) {
	size := entrySize(n)
	if b.spool == nil {
		if entry, pos, ok := b.reserveMemory(size); ok {
			return entry[:entryHeadBytes+n], pos, nil
		}
		if err := b.openSpool(); err != nil {
			return nil, 0, err
		}
	}
	if len(b.pending)+size > cap(b.pending) {
		if err := b.flush(); err != nil {
			return nil, 0, err
		}
	}
	if size > cap(b.pending) {
		b.pool.put(b.pending[:cap(b.pending)])
		b.pending = make([]byte, 0, size)
	}
	at := len(b.pending)
	return b.pending[at : at+entryHeadBytes+n], b.spoolBase + uint64(b.spooled+int64(at))/entryAlign, nil
}

func (b *body) reserveMemory(size int) (entry []byte, pos uint64, ok bool) {
	if size > ChunkBytes {
		if !b.mayGrow(int64(size)) {
			return nil, 0, false
		}
		// It is kept where it is even if the block turns out to be a duplicate: rare enough.
		b.chunks = append(b.chunks, make([]byte, size))
		return b.chunks[len(b.chunks)-1], uint64(len(b.chunks)-1) * chunkUnits, true
	}
	if b.last < 0 || b.used+size > len(b.chunks[b.last]) {
		nth := len(b.chunks)
		for size > chunkSize(b.pool, nth) {
			nth++
		}
		if !b.mayGrow(int64(chunkSize(b.pool, nth))) {
			return nil, 0, false
		}
		b.chunks = append(b.chunks, b.pool.get(nth))
		b.last, b.used = len(b.chunks)-1, 0
	}
	return b.chunks[b.last][b.used:], uint64(b.last)*chunkUnits + uint64(b.used)/entryAlign, true
}

func (b *body) mayGrow(n int64) bool {
	if b.memory+n > b.memories || b.grow != nil && !b.grow(n) {
		return false
	}
	b.memory += n
	return true
}

func (b *body) openSpool() error {
	if b.open == nil {
		return errNoSpool
	}
	s, err := b.open()
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	b.spool, b.spoolBase = s, uint64(len(b.chunks))*chunkUnits
	b.pending = b.pool.get(2)[:0]
	return nil
}

// keep completes the entry that was reserved last.
func (b *body) keep(entry []byte, index int, digest *CID) {
	binary.LittleEndian.PutUint32(entry, uint32(index))
	binary.LittleEndian.PutUint32(entry[4:], uint32(len(entry)-entryHeadBytes))
	copy(entry[8:], digest[:])
	size := entrySize(len(entry) - entryHeadBytes)
	switch {
	case b.spool != nil:
		b.pending = b.pending[:len(b.pending)+size]
	case size <= ChunkBytes:
		b.used += size
	}
}

func (b *body) flush() error {
	if len(b.pending) == 0 {
		return nil
	}
	n, err := b.spool.Write(b.pending)
	if err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	b.spooled += int64(n)
	b.pending = b.pending[:0]
	return nil
}

func (b *body) inMemory(pos uint64) bool { return b.spool == nil || pos < b.spoolBase }

// entry reads the entry at pos. From the spool it is valid until the next call.
func (b *body) entry(pos uint64) ([]byte, error) {
	if b.inMemory(pos) {
		return cutEntry(b.chunks[pos/chunkUnits][pos%chunkUnits*entryAlign:]), nil
	}
	at := int64(pos-b.spoolBase) * entryAlign
	if at >= b.spooled {
		return cutEntry(b.pending[at-b.spooled:]), nil
	}
	return b.readSpool(at)
}

// holds says whether the entry at pos has the digest. It is for entries in memory.
func (b *body) holds(pos uint64, digest *CID) bool {
	return CID(b.chunks[pos/chunkUnits][pos%chunkUnits*entryAlign+8:][:len(CID{})]) == *digest
}

func cutEntry(b []byte) []byte {
	return b[:entryHeadBytes+int(binary.LittleEndian.Uint32(b[4:]))]
}

func (b *body) readSpool(at int64) ([]byte, error) {
	if b.scratch == nil {
		b.scratch = make([]byte, spoolReadBytes)
	}
	n := int(min(int64(len(b.scratch)), b.spooled-at))
	if _, err := b.spool.ReadAt(b.scratch[:n], at); err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	size := entryHeadBytes + int(binary.LittleEndian.Uint32(b.scratch[4:]))
	if size > n {
		if size > entryHeadBytes+blockBytesMax || int64(size) > b.spooled-at {
			return nil, fmt.Errorf("read spool: entry of %d bytes at %d is not what was written", size, at)
		}
		b.scratch = append(b.scratch[:n], make([]byte, size-n)...)
		if _, err := b.spool.ReadAt(b.scratch[n:size], at+int64(n)); err != nil {
			return nil, fmt.Errorf("read spool: %w", err)
		}
	}
	return b.scratch[:size], nil
}

func (b *body) close() error {
	for _, c := range b.chunks {
		b.pool.put(c)
	}
	b.pool.put(b.pending[:cap(b.pending)])
	spool := b.spool
	*b = body{last: -1}
	if spool == nil {
		return nil
	}
	return spool.Close()
}
