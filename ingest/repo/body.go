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

// body is a CAR as it arrived, cut between sections: chunks of memory first, the spool after
// them. Reading goes straight into the last piece, where sections are parsed in place; what has
// come of a section that does not fit is moved to the next piece. A section longer than a chunk
// has one of its own. Position chunk*ChunkBytes + offset; the spool begins where the chunks end.
type body struct {
	source
	pool     *ChunkPool
	grow     func(bytes int64) bool
	open     func() (Spool, error)
	memory   int64 // bytes of the chunks
	memories int64 // limit on memory

	chunks [][]byte
	cur    []byte // the last chunk, or what is to be spooled next
	base   uint64 // position of cur
	lo, hi int    // what has arrived of the next section is cur[lo:hi]

	spool     Spool
	spoolBase uint64 // position of the spool's first byte
	spooled   int64  // bytes written to the spool
	scratch   []byte // the entry read last
}

// more makes n bytes from lo on available. The error is io.EOF itself if the body ends at lo.
func (b *body) more(n int) error {
	if b.lo+n > len(b.cur) {
		if err := b.turn(n); err != nil {
			return err
		}
	}
	for b.hi-b.lo < n {
		k, err := b.read(b.cur[b.hi:])
		if err == io.EOF && b.hi > b.lo {
			return fmt.Errorf("CAR ends inside a section: %w: %w", io.ErrUnexpectedEOF, ErrInvalid)
		}
		if err != nil {
			return err
		}
		b.hi += k
	}
	return nil
}

// turn goes on to the next piece, of at least n bytes.
func (b *body) turn(n int) error {
	tail := b.cur[b.lo:b.hi]
	if b.spool == nil && b.turnMemory(n) {
		b.hi, b.lo = copy(b.cur, tail), 0
		return nil
	}
	if b.spool == nil {
		if err := b.openSpool(); err != nil {
			return err
		}
	} else if err := b.flush(); err != nil {
		return err
	}
	if small := b.cur; n > len(small) {
		defer b.pool.put(small) // tail may be a part of it
		b.cur = make([]byte, n)
	}
	b.hi, b.lo = copy(b.cur, tail), 0
	b.base = b.spoolBase + uint64(b.spooled)
	return nil
}

// turnMemory adds a chunk if that is allowed.
func (b *body) turnMemory(n int) bool {
	nth := len(b.chunks)
	for n > chunkSize(b.pool, nth) && nth < chunkGrowths {
		nth++
	}
	size := max(n, chunkSize(b.pool, nth))
	if b.memory+int64(size) > b.memories || b.grow != nil && !b.grow(int64(size)) {
		return false
	}
	b.memory += int64(size)
	if size > ChunkBytes {
		b.cur = make([]byte, size)
	} else {
		b.cur = b.pool.get(nth)
	}
	b.base = uint64(len(b.chunks)) * ChunkBytes
	b.chunks = append(b.chunks, b.cur)
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
	b.spool, b.spoolBase = s, uint64(len(b.chunks))*ChunkBytes
	b.cur = b.pool.get(chunkGrowths)
	return nil
}

// flush writes the complete sections of cur to the spool.
func (b *body) flush() error {
	n, err := b.spool.Write(b.cur[:b.lo])
	if err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	b.spooled += int64(n)
	return nil
}

// finish ends the reading.
func (b *body) finish() error {
	b.r = nil
	if b.spool == nil {
		return nil
	}
	err := b.flush()
	b.pool.put(b.cur)
	b.cur = nil
	return err
}

func (b *body) inMemory(pos uint64) bool { return b.spool == nil || pos < b.spoolBase }

// An entry is a section without its length: the block's dense index, written over the four
// bytes with which every CID begins, the digest, and the block.
const entryHeadBytes = CIDBytes

func entryIndex(e []byte) int          { return int(binary.LittleEndian.Uint32(e)) }
func setEntryIndex(e []byte, i int)    { binary.LittleEndian.PutUint32(e, uint32(i)) }
func entryDigest(e []byte) CID         { return CID(e[len(cidPrefix):]) }
func entryBlock(e []byte) []byte       { return e[entryHeadBytes:] }
func entryHolds(e []byte, c *CID) bool { return entryDigest(e) == *c }

// cutEntry cuts an entry out of bytes that begin with its section.
func cutEntry(b []byte) []byte {
	n, k := binary.Uvarint(b)
	return b[k : k+int(n)]
}

// holds reports whether the entry at pos, which is in memory, has the digest.
func (b *body) holds(pos uint64, digest *CID) bool {
	section := b.chunks[pos/ChunkBytes][pos%ChunkBytes:]
	for section[0] >= 0x80 {
		section = section[1:]
	}
	return CID(section[1+len(cidPrefix):]) == *digest
}

// entry reads the entry at pos. From the spool it is valid until the next call.
func (b *body) entry(pos uint64) ([]byte, error) {
	if b.inMemory(pos) {
		return cutEntry(b.chunks[pos/ChunkBytes][pos%ChunkBytes:]), nil
	}
	at := int64(pos - b.spoolBase)
	if at >= b.spooled {
		return cutEntry(b.cur[at-b.spooled:]), nil
	}
	return b.readSpool(at)
}

// spoolReadBytes is read at once from the spool: most sections are shorter.
const spoolReadBytes = 1 << 10

func (b *body) readSpool(at int64) ([]byte, error) {
	if b.scratch == nil {
		b.scratch = make([]byte, spoolReadBytes)
	}
	n := int(min(int64(len(b.scratch)), b.spooled-at))
	if _, err := b.spool.ReadAt(b.scratch[:n], at); err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	length, k := binary.Uvarint(b.scratch[:n])
	if k <= 0 || length < CIDBytes || length > CIDBytes+blockBytesMax ||
		int64(length) > b.spooled-at-int64(k) {
		return nil, fmt.Errorf("read spool: section at %d is not what was written", at)
	}
	if size := k + int(length); size > n {
		b.scratch = append(b.scratch[:n], make([]byte, size-n)...)
		if _, err := b.spool.ReadAt(b.scratch[n:size], at+int64(n)); err != nil {
			return nil, fmt.Errorf("read spool: %w", err)
		}
	}
	return b.scratch[k : k+int(length)], nil
}

func (b *body) close() error {
	for _, c := range b.chunks {
		b.pool.put(c)
	}
	if b.spool == nil {
		*b = body{}
		return nil
	}
	b.pool.put(b.cur)
	spool := b.spool
	*b = body{}
	return spool.Close()
}
