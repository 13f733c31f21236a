package repo

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/bits"
	"runtime"
)

// yieldSteps is after how many nodes and records a walk lets other goroutines run, about a
// millisecond: a large repository takes seconds, and the runtime interrupts a goroutine only after
// 10 to 25 ms, which live commits would wait at each of their steps.
const yieldSteps = 1024

// Leaf is one record of a repository as the tree lists it.
type Leaf struct {
	// Key is the MST key, valid during the callback only.
	Key []byte
	// CID is the record's.
	CID CID
	// Block is the dense index of the record's block in this CAR, in [0, Blocks()); it is the
	// same for leaves with the same CID.
	Block int
	// Record is the block's bytes, valid as those of CAR.Block.
	Record []byte
	// Valid reports whether Key is a collection, a slash and a record key (ValidPath). Other keys
	// are legal in a tree but name no record of the protocol.
	Valid bool
}

// frame is a node on the way from the root to where the walk is.
type frame struct {
	node  []byte // its bytes: in the body, or a copy in own
	first int    // its entries are walker.entries[first:last]
	next  int
	last  int
	layer int
	child uint32 // offset of the digest of the subtree to visit before next, 0 for none
	at    uint64 // position of that subtree
	key   []byte // key of entry next-1, built in place
	own   []byte
}

// walker holds the walk's stack, kept between walks for its memory.
type walker struct {
	frames  []frame
	depth   int
	entries []nodeEntry
	nodes   int
	last    []byte // the key visited last, in some frame's key
	check   bool   // false: the tree has passed all checks before
	path    pathChecker
}

// Walk visits every leaf of the tree whose root is data, in key order. It checks the whole
// structure on its way; what is wrong is ErrInvalid, after the leaves before it have been visited:
//
//   - nodes are strict DAG-CBOR, present, and no more than the CAR has blocks;
//   - keys are 1 to 1024 bytes long, ascend strictly over the whole tree, are compressed by exactly
//     what they share with the one before in their node, and sit at the layer their hash demands;
//   - a subtree is exactly one layer below its node; nodes without entries are legal in between
//     only, except for the root of an empty tree;
//   - every record's block is present.
//
// A tree therefore has one form for a given set of records. An error of fn ends the walk and is
// returned as it is. Walking a tree again after a walk of it succeeded costs less, since keys
// need not be hashed again. fn must not call Walk.
func (c *CAR) Walk(data CID, fn func(Leaf) error) error {
	if c.index.slots == nil {
		return errClosed
	}
	w := &c.walker
	w.depth, w.nodes, w.entries, w.last = 0, 0, w.entries[:0], nil
	w.check = !data.Defined() || c.proven != data
	pos, err := c.locate(c.index.hash(&data), &data)
	if err == nil {
		err = c.push(pos, data, -1)
	}
	for n := 1; err == nil && w.depth > 0; n++ {
		err = c.step(fn)
		if n%yieldSteps == 0 {
			runtime.Gosched()
		}
	}
	if err == nil {
		c.proven = data
	}
	return err
}

// step visits the next subtree or leaf of the deepest node, or leaves the node.
func (c *CAR) step(fn func(Leaf) error) error {
	w := &c.walker
	f := &w.frames[w.depth-1]
	if f.child != 0 {
		id := digestAt(f.node, f.child)
		f.child = 0
		return c.push(f.at, id, f.layer-1)
	}
	if f.next == f.last {
		w.entries = w.entries[:f.first]
		w.depth--
		return nil
	}
	e := &w.entries[f.next]
	f.next++
	f.child, f.at = e.right, e.rightPos
	if err := w.advance(f, e); err != nil {
		return fmt.Errorf("tree key %q at layer %d: %w: %w", f.key, f.layer, err, ErrInvalid)
	}
	leaf := Leaf{Key: f.key, CID: digestAt(f.node, e.value), Valid: w.path.valid(f.key)}
	entry, err := c.fetch(e.valuePos, &leaf.CID)
	if err != nil {
		return err
	}
	if entry == nil {
		return fmt.Errorf("record %s of %q is missing: %w", leaf.CID.String(), f.key, ErrInvalid)
	}
	leaf.Block, leaf.Record = entryIndex(entry), entryBlock(entry)
	return fn(leaf)
}

// push enters the node at pos. Layer -1 means the root, whose layer is that of its first key.
func (c *CAR) push(pos uint64, id CID, layer int) error {
	entry, err := c.fetch(pos, &id)
	if err != nil {
		return err
	}
	if entry == nil {
		return fmt.Errorf("tree node %s is missing: %w", id.String(), ErrInvalid)
	}
	if err := c.enter(entryBlock(entry), layer); err != nil {
		return fmt.Errorf("tree node %s: %w: %w", id.String(), err, ErrInvalid)
	}
	return c.resolve(&c.walker.frames[c.walker.depth-1])
}

func (c *CAR) enter(node []byte, layer int) (err error) {
	w := &c.walker
	if w.nodes++; w.nodes > c.Blocks() {
		return errNodeCount
	}
	if w.depth == len(w.frames) {
		if w.depth > layersMax {
			return errTreeLayers
		}
		w.frames = append(w.frames, frame{key: make([]byte, 0, keyBytesMax)})
	}
	f := &w.frames[w.depth]
	if c.body.spool != nil { // the bytes are valid until the next read only
		f.own = append(f.own[:0], node...)
		node = f.own
	}
	f.node, f.first, f.key = node, len(w.entries), f.key[:0]
	w.entries, f.child, err = parseNode(w.entries, node)
	f.next, f.last = f.first, len(w.entries)
	if err != nil {
		return err
	}
	if f.layer, err = w.enterLayer(f, layer); err != nil {
		return err
	}
	w.depth++
	return nil
}

// resolve finds the blocks that the node names. Doing it for all of them at once lets the
// processor wait for several of the cache misses at a time, which is most of a walk's time.
func (c *CAR) resolve(f *frame) error {
	entries := c.walker.entries[f.first:f.last]
	if f.child != 0 {
		f.at = c.candidate(f.node, f.child)
	}
	for i := range entries {
		e := &entries[i]
		e.valuePos = c.candidate(f.node, e.value)
		if e.right != 0 {
			e.rightPos = c.candidate(f.node, e.right)
		}
	}
	if f.child != 0 {
		if err := c.confirm(&f.at, f.node, f.child); err != nil {
			return err
		}
		c.touch(f.at)
	}
	for i := range entries {
		e := &entries[i]
		if err := c.confirm(&e.valuePos, f.node, e.value); err != nil {
			return err
		}
		if e.right != 0 {
			if err := c.confirm(&e.rightPos, f.node, e.right); err != nil {
				return err
			}
			c.touch(e.rightPos)
		}
	}
	return nil
}

// candidate is the position that the digest at node[at:] has unless another has the same hash.
func (c *CAR) candidate(node []byte, at uint32) uint64 {
	pos, _ := c.index.first(c.index.hash((*CID)(node[at:])))
	return pos
}

// confirm replaces a candidate that was another's. What is spooled is left to fetch, since each
// look at it is a read.
func (c *CAR) confirm(pos *uint64, node []byte, at uint32) (err error) {
	id := (*CID)(node[at:])
	if *pos == noPos || !c.body.inMemory(*pos) || c.body.holds(*pos, id) {
		return nil
	}
	*pos, err = c.locate(c.index.hash(id), id)
	return err
}

// touch reads a byte of each of the next cache lines of the node at pos, which will be needed
// soon, so that they come while the others do. An average node has 330 bytes.
func (c *CAR) touch(pos uint64) {
	if pos == noPos || !c.body.inMemory(pos) {
		return
	}
	chunk := c.body.chunks[pos/ChunkBytes]
	from := int(pos % ChunkBytes)
	for i := from + cacheLine; i < min(from+touchLines*cacheLine, len(chunk)); i += cacheLine {
		c.touched ^= uint64(chunk[i])
	}
}

const (
	cacheLine  = 64
	touchLines = 6
)

// fetch returns the entry of a block whose candidate is pos, nil if it does not match.
func (c *CAR) fetch(pos uint64, id *CID) (entry []byte, err error) {
	for pos != noPos && err == nil {
		entry, err = c.body.entry(pos)
		if err != nil || entryHolds(entry, id) {
			return entry, err
		}
		pos, err = c.locate(c.index.hash(id), id)
	}
	return nil, err
}

// enterLayer is the layer of a node, given that its parent says it should be layer.
func (w *walker) enterLayer(f *frame, layer int) (int, error) {
	empty := f.first == f.last
	switch {
	case layer >= 0 && empty && f.child == 0:
		return 0, errNodeEmpty
	case layer >= 0:
		return layer, nil
	case w.depth > 0:
		return 0, errNodeLayer
	case empty && f.child != 0:
		return 0, errNodeTop
	case empty:
		return 0, nil
	}
	e := &w.entries[f.first]
	layer = keyLayer(f.node[e.suffix:][:e.suffixLen])
	if layer >= layersMax {
		return 0, errTreeLayers
	}
	return layer, nil
}

// advance builds the key of e from the one before it in the node and checks its place.
func (w *walker) advance(f *frame, e *nodeEntry) error {
	suffix, shared := f.node[e.suffix:][:e.suffixLen], int(e.prefixLen)
	if err := checkSuffix(f.key, suffix, shared); err != nil {
		return err
	}
	f.key = append(f.key[:shared], suffix...)
	if !w.check {
		w.last = f.key
		return nil
	}
	// In the same frame the last key has just been overwritten, and compared above.
	if len(w.last) > 0 && &w.last[0] != &f.key[0] && bytes.Compare(w.last, f.key) >= 0 {
		return errKeyOrder
	}
	w.last = f.key
	if keyLayer(f.key) != f.layer {
		return errKeyLayer
	}
	return nil
}

// checkSuffix reports whether the first bytes of key, as many as shared, and then suffix make a key
// that may follow it in its node. An empty key means that no key precedes it.
func checkSuffix(key, suffix []byte, shared int) error {
	switch {
	case shared > len(key):
		return errKeyPrefix
	case shared+len(suffix) == 0 || shared+len(suffix) > keyBytesMax:
		return errKeyLength
	case len(key) > 0:
		// What the key before it continues with decides the order of the two.
		if rest := key[shared:]; len(suffix) == 0 || len(rest) > 0 && suffix[0] < rest[0] {
			return errKeyOrder
		} else if len(rest) > 0 && suffix[0] == rest[0] {
			return errKeyShared
		}
	}
	return nil
}

func digestAt(node []byte, at uint32) CID { return CID(node[at:][:len(CID{})]) }

// keyLayer is the number of leading zero bits of the key's SHA-256, in pairs.
func keyLayer(key []byte) int {
	sum := sha256.Sum256(key)
	for i := 0; i < len(sum); i++ {
		if sum[i] != 0 {
			return i*4 + bits.LeadingZeros8(sum[i])/2
		}
	}
	return len(sum) * 4
}
