package repo

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// Range is a range of tree keys: those at or above Lower and below Upper.
type Range struct{ Lower, Upper []byte }

// PartialOptions are the keys that a Partial looks for, and its limits.
type PartialOptions struct {
	// Wanted are the keys of wanted records. Of the keys in Sample, one is enough, without its
	// record: see Partial.Sampled. Both are disjoint and in ascending order.
	Wanted, Sample []Range
	// BytesMax bounds the memory of blocks, keys and their index. Default 64 MiB.
	BytesMax int64
	// Grow is called before that many more bytes are allocated; false refuses them. Nil: always
	// true.
	Grow func(bytes int64) bool
}

// ErrPartialBytes means that a part is too large to be held in memory. It is not ErrInvalid.
var ErrPartialBytes = errors.New("part of a repository exceeds the memory given")

// Partial is the part of a repository in some ranges of keys. Missing returns the CIDs of the
// blocks that it needs next. All blocks are verified against the signed root: each node on the way
// to a key of the ranges passes all checks of Walk of a CAR. Of other nodes only the CIDs are
// known.
//
// Inserted blocks stay when the root changes, and are not requested again.
type Partial struct {
	options PartialOptions
	blocks  map[CID]partBlock
	bytes   int64 // of blocks
	held    int64 // estimate of all memory
	granted int64 // by Grow

	data    CID
	layer   int // of the root, -1 until it was read
	outside float64
	front   []outpost
	waiting []outpost // subtrees with missing nodes
	opened  int       // nodes read since Plant
	leaves  []partLeaf
	sorted  bool
	sampled bool

	entries []nodeEntry
	keys    [2][]byte
	path    pathChecker
}

type partBlock struct {
	data  []byte
	index int
}

type partLeaf struct {
	key  []byte
	cid  CID
	held bool // by the caller
}

// outpost is a subtree to be read, and the keys around it.
type outpost struct {
	id     CID
	layer  int    // -1: the root
	lo, hi []byte // nil for none
}

const (
	// partBookBytes is the memory of a block, a leaf or an outpost beside its bytes and keys.
	partBookBytes = 128
	// partGrowBytes is the memory requested of Grow at a time.
	partGrowBytes = ChunkBytes
)

// NewPartial returns an empty part.
func NewPartial(o PartialOptions) *Partial {
	if o.BytesMax == 0 {
		o.BytesMax = 64 << 20
	}
	return &Partial{options: o, blocks: map[CID]partBlock{}, layer: -1}
}

// Plant sets the tree by its root. Blocks held stay.
func (p *Partial) Plant(data CID) {
	for _, o := range p.waiting {
		p.held -= o.size()
	}
	for _, l := range p.leaves {
		p.held -= l.size()
	}
	p.data, p.layer, p.outside, p.opened = data, -1, 0, 0
	p.front, p.waiting, p.leaves, p.sorted, p.sampled = p.front[:0], p.waiting[:0], nil, false, false
	root := outpost{id: data, layer: -1}
	p.held += root.size()
	p.front = append(p.front, root)
}

func (o *outpost) size() int64  { return int64(partBookBytes + len(o.lo) + len(o.hi)) }
func (l *partLeaf) size() int64 { return int64(partBookBytes + len(l.key)) }

// Insert keeps a copy of a block that Missing returned.
func (p *Partial) Insert(id CID, block []byte) error {
	if len(block) > blockBytesMax {
		return fmt.Errorf("block %s has %d bytes: %w", id.String(), len(block), ErrInvalid)
	}
	if HashCID(block) != id {
		return fmt.Errorf("block %s: %w: %w", id.String(), errBlockHash, ErrInvalid)
	}
	if _, known := p.blocks[id]; known {
		return nil
	}
	if err := p.hold(int64(partBookBytes + len(block))); err != nil {
		return err
	}
	p.blocks[id] = partBlock{bytes.Clone(block), len(p.blocks)}
	p.bytes += int64(len(block))
	return nil
}

// hold takes n bytes of memory.
func (p *Partial) hold(n int64) error {
	if p.held += n; p.held > p.options.BytesMax {
		return ErrPartialBytes
	}
	for p.options.Grow != nil && p.held > p.granted {
		if !p.options.Grow(partGrowBytes) {
			return ErrPartialBytes
		}
		p.granted += partGrowBytes
	}
	return nil
}

// Blocks is the number of blocks held.
func (p *Partial) Blocks() int { return len(p.blocks) }

// Bytes is the length of all blocks held.
func (p *Partial) Bytes() int64 { return p.bytes }

// Sampled reports whether a valid path was found in the ranges to sample.
func (p *Partial) Sampled() bool { return p.sampled }

// Layer is the layer of the tree's root, -1 while the root is missing.
func (p *Partial) Layer() int { return p.layer }

// Guess estimates how many records of the tree are in the ranges and how many elsewhere, from the
// nodes read and from the layers of other subtrees: a subtree has four below it on average.
func (p *Partial) Guess() (inside, outside float64) {
	inside = float64(len(p.leaves))
	for i := range p.waiting {
		inside += fourTo(p.waiting[i].layer + 1)
	}
	return inside, p.outside
}

func fourTo(n int) float64 { return float64(uint64(1) << (2 * min(n, 31))) }

// Missing reads the tree as far as the blocks held allow, and appends the CIDs of the blocks needed
// next, each once: first nodes, and when no node is missing, records. If it appends none, the part
// is complete.
func (p *Partial) Missing(dst []CID) ([]CID, error) {
	p.front, p.waiting = append(p.front, p.waiting...), p.waiting[:0]
	for len(p.front) > 0 {
		o := p.front[len(p.front)-1]
		p.front = p.front[:len(p.front)-1]
		if o.layer >= 0 && !p.needs(o.lo, o.hi) { // a sample was found since
			p.held -= o.size()
			continue
		}
		b, ok := p.blocks[o.id]
		if !ok {
			p.waiting = append(p.waiting, o)
			continue
		}
		p.held -= o.size()
		if err := p.visit(&o, b.data); errors.Is(err, ErrPartialBytes) {
			return dst, err
		} else if err != nil {
			return dst, fmt.Errorf("tree node %s: %w: %w", o.id.String(), err, ErrInvalid)
		}
	}
	seen := map[CID]struct{}{}
	add := func(id CID) {
		if _, held := p.blocks[id]; held {
			return
		}
		if _, twice := seen[id]; !twice {
			seen[id] = struct{}{}
			dst = append(dst, id)
		}
	}
	for i := range p.waiting {
		add(p.waiting[i].id)
	}
	if len(p.waiting) > 0 {
		return dst, nil
	}
	if err := p.sort(); err != nil {
		return dst, err
	}
	for i := range p.leaves {
		if !p.leaves[i].held {
			add(p.leaves[i].cid)
		}
	}
	return dst, nil
}

// Mapped reports whether no node is missing any more: Missing returns records.
func (p *Partial) Mapped() bool { return p.sorted }

// Skip leaves out the records that the caller has: those for which held, called for each leaf in
// key order, returns true. Walk visits these leaves without a record. The part must be mapped.
func (p *Partial) Skip(held func(key []byte, id CID) bool) {
	for i := range p.leaves {
		p.leaves[i].held = held(p.leaves[i].key, p.leaves[i].cid)
	}
}

// sort sorts the leaves by key.
func (p *Partial) sort() error {
	if p.sorted {
		return nil
	}
	slices.SortFunc(p.leaves, func(a, b partLeaf) int { return bytes.Compare(a.key, b.key) })
	for i := 1; i < len(p.leaves); i++ {
		if bytes.Equal(p.leaves[i-1].key, p.leaves[i].key) {
			return fmt.Errorf("tree key %q: %w: %w", p.leaves[i].key, errKeyOrder, ErrInvalid)
		}
	}
	p.sorted = true
	return nil
}

// visit checks a node, and notes its entries in the ranges.
func (p *Partial) visit(o *outpost, block []byte) (err error) {
	// In a valid tree no two nodes are equal, so that no block is read twice.
	if p.opened++; p.opened > len(p.blocks) {
		return errNodeCount
	}
	var left uint32
	if p.entries, left, err = parseNode(p.entries[:0], block); err != nil {
		return err
	}
	if o.layer, err = p.layerOf(o, block, left); err != nil {
		return err
	}
	child, before := left, o.lo
	var key []byte
	for i := range p.entries {
		e := &p.entries[i]
		suffix, shared := block[e.suffix:][:e.suffixLen], int(e.prefixLen)
		if err := checkSuffix(key, suffix, shared); err != nil {
			return err
		}
		next := &p.keys[i%2] // the other one holds the previous key
		*next = append(append((*next)[:0], key[:shared]...), suffix...)
		key = *next
		if err := p.place(o, key, i); err != nil {
			return err
		}
		if err := p.descend(block, child, o.layer-1, before, key); err != nil {
			return err
		}
		if inside(p.options.Wanted, key) {
			l := partLeaf{key: bytes.Clone(key), cid: digestAt(block, e.value)}
			if err := p.hold(l.size()); err != nil {
				return err
			}
			p.leaves = append(p.leaves, l)
		} else {
			p.outside++
		}
		p.sampled = p.sampled || inside(p.options.Sample, key) && ValidPath(key)
		child, before = e.right, key
	}
	return p.descend(block, child, o.layer-1, before, o.hi)
}

// layerOf returns the layer of a node; for the root, the layer of its first key.
func (p *Partial) layerOf(o *outpost, block []byte, left uint32) (int, error) {
	empty := len(p.entries) == 0
	switch {
	case o.layer >= 0 && empty && left == 0:
		return 0, errNodeEmpty
	case o.layer >= 0:
		return o.layer, nil
	case empty && left != 0:
		return 0, errNodeTop
	case empty:
		p.layer = 0
		return 0, nil
	}
	e := &p.entries[0]
	layer := keyLayer(block[e.suffix:][:e.suffixLen])
	if layer >= layersMax {
		return 0, errTreeLayers
	}
	p.layer = layer
	return layer, nil
}

// place checks the place of a key. That it follows the previous key of its node was checked before.
func (p *Partial) place(o *outpost, key []byte, i int) error {
	if i == 0 && o.lo != nil && bytes.Compare(key, o.lo) <= 0 ||
		o.hi != nil && bytes.Compare(key, o.hi) >= 0 {
		return errKeyBounds
	}
	if keyLayer(key) != o.layer {
		return errKeyLayer
	}
	return nil
}

// descend notes a subtree, if there is one and it may have keys of the ranges.
func (p *Partial) descend(block []byte, digest uint32, layer int, lo, hi []byte) error {
	switch {
	case digest == 0:
		return nil
	case layer < 0:
		return errNodeLayer
	case !p.needs(lo, hi):
		p.outside += fourTo(layer + 1)
		return nil
	}
	o := outpost{digestAt(block, digest), layer, bytes.Clone(lo), bytes.Clone(hi)}
	p.front = append(p.front, o)
	return p.hold(o.size())
}

// needs reports whether a range has keys between lo and hi.
func (p *Partial) needs(lo, hi []byte) bool {
	return overlaps(p.options.Wanted, lo, hi) || !p.sampled && overlaps(p.options.Sample, lo, hi)
}

// overlaps reports whether a key above lo and below hi may be in one of the ranges; nil is no
// bound.
func overlaps(ranges []Range, lo, hi []byte) bool {
	i := 0
	if lo != nil {
		i = sort.Search(len(ranges), func(i int) bool { return bytes.Compare(ranges[i].Upper, lo) > 0 })
	}
	return i < len(ranges) && (hi == nil || bytes.Compare(ranges[i].Lower, hi) < 0)
}

// inside reports whether key is in one of the ranges.
func inside(ranges []Range, key []byte) bool {
	i := sort.Search(len(ranges), func(i int) bool { return bytes.Compare(ranges[i].Upper, key) > 0 })
	return i < len(ranges) && bytes.Compare(ranges[i].Lower, key) <= 0
}

// Close releases the blocks. Closing again does nothing.
func (p *Partial) Close() error {
	p.blocks, p.front, p.waiting, p.leaves, p.sorted = nil, nil, nil, nil, false
	return nil
}

// Walk visits the leaves of the wanted ranges in key order, as Walk of a CAR; Leaf.Block is below
// Blocks. The part must be complete: at a missing block Walk ends with ErrInvalid.
func (p *Partial) Walk(data CID, fn func(Leaf) error) error {
	if data != p.data || len(p.front)+len(p.waiting) > 0 || !p.sorted {
		return fmt.Errorf("tree of %s is not whole in the ranges: %w", data.String(), ErrInvalid)
	}
	for i := range p.leaves {
		l := &p.leaves[i]
		b, ok := p.blocks[l.cid]
		if !ok && !l.held {
			return fmt.Errorf("record %s of %q is missing: %w", l.cid.String(), l.key, ErrInvalid)
		}
		if err := fn(Leaf{Key: l.key, CID: l.cid, Block: b.index, Record: b.data,
			Valid: p.path.valid(l.key)}); err != nil {
			return err
		}
	}
	return nil
}
