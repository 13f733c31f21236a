package repo

import (
	"errors"
	"fmt"
	"io"
)

// CAROptions bounds one ReadCAR. The zero value is usable.
type CAROptions struct {
	// MemoryBytes is how much of the body is kept in memory before spooling. Default 64 MiB.
	MemoryBytes int64
	// BytesMax bounds the CAR; a larger one is ErrInvalid. Default 4 GiB, at most 16 GiB.
	BytesMax int64
	// BlocksMax bounds the number of distinct blocks; more are ErrInvalid. Default 25,165,824,
	// at most eight times that. The index, which MemoryBytes and Grow do not count but
	// GrowIndex does, takes 11 to 21 bytes a block.
	BlocksMax int
	// Spool opens a spool, at most once a CAR, when memory is exhausted. With nil that is an
	// error, though not ErrInvalid.
	Spool func() (Spool, error)
	// Rootless accepts a CAR without roots, as in answers that are not a repository; its Root is
	// zero.
	Rootless bool
	// Chunks takes memory from a pool and returns it on Close. Nil: allocated each time.
	Chunks *ChunkPool
	// Grow is asked before the body takes the given number of bytes more of memory, from the
	// first on; false means to spool from here on. Nil: always true.
	Grow func(bytes int64) bool
	// GrowIndex is asked before the index takes the given number of bytes, once it has 128 KiB; it
	// keeps half as many meanwhile. An error ends the reading and is returned wrapped. Nil: always
	// nil.
	GrowIndex func(bytes int64) error
}

func (o CAROptions) withDefaults() CAROptions {
	if o.MemoryBytes == 0 {
		o.MemoryBytes = 64 << 20
	}
	if o.BytesMax == 0 {
		o.BytesMax = bytesMax
	}
	if o.BlocksMax == 0 {
		o.BlocksMax = blocksMax
	}
	return o
}

func (o CAROptions) validate() error {
	var errs []error
	if o.MemoryBytes < 0 {
		errs = append(errs, fmt.Errorf("MemoryBytes %d is negative", o.MemoryBytes))
	}
	if o.BytesMax < 0 || o.BytesMax > bytesCeiling {
		errs = append(errs, fmt.Errorf("BytesMax %d is not in 0..%d", o.BytesMax, int64(bytesCeiling)))
	}
	if o.BlocksMax < 0 || o.BlocksMax > blocksCeiling {
		errs = append(errs, fmt.Errorf("BlocksMax %d is not in 0..%d", o.BlocksMax, blocksCeiling))
	}
	return errors.Join(errs...)
}

// CAR is a CAR v1 that was read to its end: every block that it hands out hashes to its CID.
type CAR struct {
	root      CID
	bytes     int64
	blocksMax int
	index     index
	rootless  bool
	growIndex func(bytes int64) error
	body      body
	arrived   []arrival
	walker    walker
	touched   uint64 // nothing, but the compiler must not see that
	proven    CID    // data CID of the tree that a Walk has passed without error
}

// ReadCAR reads a CAR v1 to the end of r. Every block is hashed against its CID as it arrives,
// except for blocks whose CID is not v1, dag-cbor, sha2-256: they are skipped, as no repository can
// name them. A section without a CID is ErrInvalid, and so is a body that ends inside a section
// (also io.ErrUnexpectedEOF). Blocks that stand there twice are kept once. Errors of r are wrapped
// and not ErrInvalid. A body that ends between two sections is complete as far as ReadCAR can tell:
// Walk finds out what is missing.
func ReadCAR(r io.Reader, o CAROptions) (*CAR, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	c := &CAR{
		blocksMax: o.BlocksMax,
		rootless:  o.Rootless,
		index:     newIndex(),
		growIndex: o.GrowIndex,
		arrived:   make([]arrival, 0, arrivalsMax),
		body: body{
			source:   source{r: r, limit: o.BytesMax},
			pool:     o.Chunks,
			grow:     o.Grow,
			open:     o.Spool,
			memories: o.MemoryBytes,
		},
	}
	if err := c.read(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *CAR) read() (err error) {
	if c.root, err = c.body.header(c.rootless); err != nil {
		return err
	}
	for err == nil {
		err = c.readBlock()
	}
	if err != io.EOF {
		return err
	}
	if err := c.settle(); err != nil {
		return err
	}
	c.bytes = c.body.total
	return c.body.finish()
}

func (c *CAR) readBlock() error {
	entry, pos, err := c.body.section(CIDBytes + blockBytesMax)
	if err == io.EOF {
		return io.EOF
	}
	if err == nil && isForeign(entry) {
		return nil
	}
	if err == nil && len(entry) < CIDBytes {
		err = fmt.Errorf("section of %d bytes: %w", len(entry), ErrInvalid)
	}
	var want CID
	if err == nil {
		want, err = ParseCIDBytes(entry[:CIDBytes])
	}
	if err != nil {
		return fmt.Errorf("block %d: %w", c.Blocks()+len(c.arrived), err)
	}
	if HashCID(entryBlock(entry)) != want {
		return fmt.Errorf("block %s does not hash to its CID: %w", want.String(), ErrInvalid)
	}
	if pos >= noPos-1 {
		return fmt.Errorf("CAR does not fit into %d bytes of memory and spool: %w",
			uint64(noPos), ErrInvalid)
	}
	c.arrived = append(c.arrived, arrival{hash: c.index.hash(&want), pos: pos})
	if len(c.arrived) < arrivalsMax && c.body.inMemory(pos) {
		return nil
	}
	return c.settle()
}

// arrival is a block that was checked and is not in the index yet.
type arrival struct{ hash, pos uint64 }

// arrivalsMax is how many blocks in memory enter the index together, so that the cache misses
// of their slots overlap. A spooled one enters at once: its section must be complete when written.
const arrivalsMax = 16

// settle enters what has arrived into the index, except for duplicates.
func (c *CAR) settle() error {
	for _, a := range c.arrived {
		c.touched ^= c.index.slots[c.index.home(a.hash)]
	}
	for _, a := range c.arrived {
		entry, err := c.body.entry(a.pos)
		if err != nil {
			return err
		}
		id := entryDigest(entry)
		known, err := c.locate(a.hash, &id)
		if err != nil {
			return err
		}
		if known != noPos {
			continue
		}
		if c.index.count >= c.blocksMax {
			return fmt.Errorf("CAR exceeds %d blocks: %w", c.blocksMax, ErrTooLarge)
		}
		if err := c.askIndex(); err != nil {
			return fmt.Errorf("index %d blocks: %w", c.index.count+1, err)
		}
		setEntryIndex(entry, c.index.count)
		c.index.add(a.hash, a.pos)
	}
	c.arrived = c.arrived[:0]
	return nil
}

// askIndex asks for the memory that the next block of the index needs.
func (c *CAR) askIndex() error {
	if c.growIndex == nil || !c.index.full() || len(c.index.slots) < indexAskedMin {
		return nil
	}
	return c.growIndex(int64(len(c.index.slots)) * 2 * 8)
}

// locate returns the position of the block with this CID, whose hash is h, or noPos.
func (c *CAR) locate(h uint64, id *CID) (uint64, error) {
	pos, slot := c.index.first(h)
	for pos != noPos {
		e, err := c.body.entry(pos)
		if err != nil {
			return noPos, err
		}
		if entryHolds(e, id) {
			break
		}
		pos, slot = c.index.next(h, slot)
	}
	return pos, nil
}

var errClosed = errors.New("CAR is closed")

// Root is the CID of the commit.
func (c *CAR) Root() CID { return c.root }

// Blocks is the number of distinct blocks.
func (c *CAR) Blocks() int { return c.index.count }

// Bytes is the length of the CAR as it was read.
func (c *CAR) Bytes() int64 { return c.bytes }

// Block returns a block's bytes: valid until Close while all of the CAR is in memory, until the
// next call (of Walk as well) when part of it is spooled. They must not be changed.
func (c *CAR) Block(id CID) ([]byte, bool, error) {
	if c.index.slots == nil {
		return nil, false, errClosed
	}
	pos, err := c.locate(c.index.hash(&id), &id)
	if pos == noPos || err != nil {
		return nil, false, err
	}
	e, err := c.body.entry(pos)
	if err != nil {
		return nil, false, err
	}
	return entryBlock(e), true, nil
}

// Close returns the memory to its pool and closes the spool. Closing again does nothing.
func (c *CAR) Close() error {
	c.index = index{count: c.index.count}
	c.walker = walker{}
	return c.body.close()
}
