package repo

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// partTree is a tree of which some subtrees are known by their CIDs only. It reuses the memory of
// its nodes, and of keys that had to be copied from blocks.
type partTree struct {
	data    CID  // root of the tree given to plant
	changed bool // operations were undone
	top     subtree
	layer   int // of top, -1 until it was read

	path   []step      // of the descent last made
	nodes  []*partNode // nodes[:used] are in use
	used   int
	opened int // nodes read from blocks
	parsed []nodeEntry
	keys   []byte // the chunk that keys are built in
	grown  int    // bytes of all keys built
	buf    []byte // the node encoded last
}

// subtree is absent, known by its CID, or read.
type subtree struct {
	id   *CID // in a block, or in the node; stale if that has changed
	node *partNode
}

func (l subtree) none() bool { return l.id == nil && l.node == nil }

type partNode struct {
	layer   int
	changed bool
	left    subtree
	entries []partEntry
	id      CID // if changed: set by seal
}

type partEntry struct {
	key   []byte // in a block, in partTree.keys, or an operation's
	value *CID   // in a block, or an operation's
	right subtree
}

// step is a node on the way to a key, and the gap in it where the key is or would be.
type step struct {
	node   *partNode
	at     int    // index of the first entry whose key is not less
	lo, hi []byte // bounds of the subtree in that gap, nil for none
}

var (
	errSliceKeys = errors.New("keys exceed 8 MiB")
	errKeyBounds = errors.New("keys are not between those around the subtree")
)

func (n *partNode) empty() bool { return len(n.entries) == 0 && n.left.none() }

// gap returns the subtree before entry i.
func (n *partNode) gap(i int) *subtree {
	if i == 0 {
		return &n.left
	}
	return &n.entries[i-1].right
}

// search returns the index of the first entry whose key is not less than key.
func (n *partNode) search(key []byte) (i int, found bool) {
	lo, hi := 0, len(n.entries)
	for lo < hi {
		mid := (lo + hi) / 2
		switch c := bytes.Compare(n.entries[mid].key, key); {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

// bounds narrows lo and hi to the keys around gap i.
func (n *partNode) bounds(i int, lo, hi []byte) (_, _ []byte) {
	if i > 0 {
		lo = n.entries[i-1].key
	}
	if i < len(n.entries) {
		hi = n.entries[i].key
	}
	return lo, hi
}

func (t *partTree) forget() {
	t.data, t.changed, t.top, t.layer = CID{}, false, subtree{}, -1
	t.used, t.opened, t.keys, t.grown = 0, 0, t.keys[:0], 0
}

// node returns an unused node.
func (t *partTree) node(layer int) *partNode {
	if t.used == len(t.nodes) {
		t.nodes = append(t.nodes, &partNode{})
	}
	n := t.nodes[t.used]
	t.used++
	n.layer, n.changed, n.left, n.entries = layer, false, subtree{}, n.entries[:0]
	return n
}

// key returns the concatenation of the two parts of a key.
func (t *partTree) key(shared, suffix []byte) ([]byte, error) {
	n := len(shared) + len(suffix)
	if len(shared) == 0 {
		return suffix, nil
	}
	if t.grown += n; t.grown > sliceKeyBytesMax {
		return nil, errSliceKeys
	}
	from := len(t.keys)
	if cap(t.keys)-from < n {
		t.keys, from = make([]byte, 0, max(2*cap(t.keys), sliceKeyChunkBytes)), 0
	}
	t.keys = append(append(t.keys, shared...), suffix...)
	return t.keys[from:len(t.keys):len(t.keys)], nil
}

// plant sets the tree by its root.
func (s *Slice) plant(data *CID) {
	t := &s.tree
	if t.changed || t.top.none() || t.data != *data {
		t.forget()
		t.data = *data
		t.top.id = &t.data
	}
}

// Find returns the CID of the record at a path of the tree with root data, zero if the tree proves
// that the path has no record. The error is ErrProof if a node on the way is missing.
func (s *Slice) Find(data CID, path []byte) (CID, error) {
	s.plant(&data)
	entry, err := s.descend(path, keyLayer(path))
	if err != nil || entry == nil {
		return CID{}, err
	}
	return *entry.value, nil
}

// descend goes from the top to the node of the given layer in whose range key is, or as near to it
// as there are nodes, and leaves the way in path. It returns the entry of key, nil if there is
// none.
func (s *Slice) descend(key []byte, layer int) (*partEntry, error) {
	t := &s.tree
	if !ValidKey(key) {
		return nil, fmt.Errorf("tree key %q: %w: %w", key[:min(len(key), keyBytesMax)],
			errKeyLength, ErrInvalid)
	}
	t.path = t.path[:0]
	l, at, lo, hi := &t.top, t.layer, []byte(nil), []byte(nil)
	for !l.none() {
		n, err := s.open(l, at, lo, hi)
		if err != nil {
			return nil, err
		}
		i, found := n.search(key)
		lo, hi = n.bounds(i, lo, hi)
		t.path = append(t.path, step{node: n, at: i, lo: lo, hi: hi})
		if found {
			return &n.entries[i], nil
		}
		if n.layer <= layer {
			return nil, nil
		}
		l, at = n.gap(i), n.layer-1
	}
	return nil, nil
}

// open reads a subtree's node, which must be of the given layer, -1 for the root, and have its keys
// between lo and hi. With the checks of its neighbours, these are all the checks of Walk.
func (s *Slice) open(l *subtree, layer int, lo, hi []byte) (*partNode, error) {
	if l.node != nil {
		return l.node, nil
	}
	block, ok := s.block(l.id)
	if !ok {
		return nil, fmt.Errorf("tree node %s: %w", l.id.String(), ErrProof)
	}
	n, err := s.parse(block, layer, lo, hi)
	if err != nil {
		return nil, fmt.Errorf("tree node %s: %w: %w", l.id.String(), err, ErrInvalid)
	}
	l.node = n
	return n, nil
}

func (s *Slice) parse(block []byte, layer int, lo, hi []byte) (n *partNode, err error) {
	t := &s.tree
	// In a valid tree no two nodes are equal, so that no block is read twice.
	if t.opened++; t.opened > len(s.blocks) {
		return nil, errNodeCount
	}
	var left uint32
	if t.parsed, left, err = parseNode(t.parsed[:0], block); err != nil {
		return nil, err
	}
	n = t.node(layer)
	n.left = linkAt(block, left)
	n.entries = slices.Grow(n.entries, len(t.parsed))
	var key []byte
	for i := range t.parsed {
		p := &t.parsed[i]
		suffix := block[p.suffix:][:p.suffixLen]
		if err := checkSuffix(key, suffix, int(p.prefixLen)); err != nil {
			return nil, err
		}
		if key, err = t.key(key[:p.prefixLen], suffix); err != nil {
			return nil, err
		}
		n.entries = append(n.entries, partEntry{key: key, value: (*CID)(block[p.value:]),
			right: linkAt(block, p.right)})
	}
	return n, n.check(lo, hi)
}

func linkAt(block []byte, digest uint32) subtree {
	if digest == 0 {
		return subtree{}
	}
	return subtree{id: (*CID)(block[digest:])}
}

// check returns the layer of the root, or checks the place of a node.
func (n *partNode) check(lo, hi []byte) error {
	last := len(n.entries) - 1
	if last < 0 {
		switch {
		case n.layer >= 0 && n.left.none():
			return errNodeEmpty
		case n.layer < 0 && !n.left.none():
			return errNodeTop
		}
		n.layer = max(n.layer, 0)
	} else {
		if n.layer < 0 {
			n.layer = keyLayer(n.entries[0].key)
		}
		if lo != nil && bytes.Compare(n.entries[0].key, lo) <= 0 ||
			hi != nil && bytes.Compare(n.entries[last].key, hi) >= 0 {
			return errKeyBounds
		}
	}
	if n.layer >= layersMax {
		return errTreeLayers
	}
	below := !n.left.none()
	for i := range n.entries {
		below = below || !n.entries[i].right.none()
		if keyLayer(n.entries[i].key) != n.layer {
			return errKeyLayer
		}
	}
	if below && n.layer == 0 {
		return errNodeLayer
	}
	return nil
}
