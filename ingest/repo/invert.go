package repo

import (
	"fmt"
	"slices"
)

// Invert undoes the operations, last to first, in the tree with root data, and returns the root of
// the tree before them (the inductive proof of sync v1.1). It needs only the nodes on their paths.
// The error is ErrProof if one is missing, and ErrInvalid if the tree does not hold what the
// operations state.
func (s *Slice) Invert(data CID, ops []SliceOp) (prev CID, err error) {
	s.plant(&data)
	for i := len(ops) - 1; i >= 0; i-- {
		if err := s.takeBack(&ops[i]); err != nil {
			return CID{}, fmt.Errorf("take back %.200q: %w", ops[i].Path, err)
		}
	}
	if !s.tree.changed {
		// Without operations, the root was not read yet.
		_, err := s.open(&s.tree.top, s.tree.layer, nil, nil)
		return data, err
	}
	return *s.tree.seal(s.tree.top), nil
}

func (s *Slice) takeBack(op *SliceOp) error {
	layer := keyLayer(op.Path)
	entry, err := s.descend(op.Path, layer)
	switch {
	case err != nil:
		return err
	case entry == nil && op.CID.Defined():
		return fmt.Errorf("the tree has no such record: %w", ErrInvalid)
	case entry != nil && *entry.value != op.CID:
		return fmt.Errorf("the tree has %s there: %w", entry.value.String(), ErrInvalid)
	case op.CID == op.Prev:
		return nil
	}
	s.tree.changed = true
	switch {
	case !op.CID.Defined():
		return s.insert(op.Path, &op.Prev, layer)
	case op.Prev.Defined():
		entry.value = &op.Prev
		s.tree.touch()
		return nil
	}
	return s.remove()
}

// touch marks the nodes of the path as changed.
func (t *partTree) touch() {
	for i := range t.path {
		t.path[i].node.changed = true
	}
}

// remove removes the entry that descend has found.
func (s *Slice) remove() error {
	t := &s.tree
	t.touch()
	last := t.path[len(t.path)-1]
	n, i, hi := last.node, last.at, []byte(nil)
	if len(t.path) > 1 {
		hi = t.path[len(t.path)-2].hi
	}
	_, hi = n.bounds(i+1, nil, hi)
	merged, err := s.merge(*n.gap(i), n.entries[i].right, n.layer-1, last.lo, last.hi, hi)
	if err != nil {
		return err
	}
	*n.gap(i) = merged
	n.entries = slices.Delete(n.entries, i, i+1)
	for d := len(t.path) - 1; t.path[d].node.empty(); d-- {
		if d == 0 {
			return nil
		}
		up := t.path[d-1]
		*up.node.gap(up.at) = subtree{}
	}
	return s.trim()
}

// trim removes nodes without entries at the top. A node that is not in the slice stays: it is the
// root if the proof is valid, and otherwise the caller's comparison of the root fails.
func (s *Slice) trim() error {
	t := &s.tree
	for n := t.top.node; n != nil && len(n.entries) == 0 && !n.left.none(); n = t.top.node {
		t.top, t.layer = n.left, n.layer-1
		if t.top.node != nil {
			continue
		}
		if _, ok := s.block(t.top.id); !ok {
			return nil
		}
		if _, err := s.open(&t.top, t.layer, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// merge joins the subtrees on both sides of a key, which lie between lo and hi.
func (s *Slice) merge(l, r subtree, layer int, lo, key, hi []byte) (subtree, error) {
	if l.none() {
		return r, nil
	}
	if r.none() {
		return l, nil
	}
	a, err := s.open(&l, layer, lo, key)
	if err != nil {
		return subtree{}, err
	}
	b, err := s.open(&r, layer, key, hi)
	if err != nil {
		return subtree{}, err
	}
	end := len(a.entries)
	lo, _ = a.bounds(end, lo, nil)
	_, hi = b.bounds(0, nil, hi)
	inner, err := s.merge(*a.gap(end), b.left, layer-1, lo, key, hi)
	if err != nil {
		return subtree{}, err
	}
	*a.gap(end) = inner
	// The shorter one is copied into the longer, so that a wide node is not copied for each
	// operation.
	if len(a.entries) < len(b.entries) {
		b.left = a.left
		b.entries = slices.Insert(b.entries, 0, a.entries...)
		b.changed = true
		return subtree{node: b}, nil
	}
	a.entries = append(a.entries, b.entries...)
	a.changed = true
	return subtree{node: a}, nil
}

// insert adds a key that descend has not found.
func (s *Slice) insert(key []byte, value *CID, layer int) error {
	if layer >= layersMax {
		return fmt.Errorf("%w: %w", errTreeLayers, ErrInvalid)
	}
	t := &s.tree
	t.touch()
	last := t.path[len(t.path)-1]
	if root := t.top.node; root.empty() {
		root.layer = layer
	} else if root.layer < layer {
		for at := root.layer + 1; at <= layer; at++ {
			n := t.node(at)
			n.changed, n.left = true, t.top
			t.top = subtree{node: n}
		}
		last = step{node: t.top.node}
	}
	for last.node.layer > layer { // there is no subtree in the gap
		n := t.node(last.node.layer - 1)
		n.changed = true
		*last.node.gap(last.at) = subtree{node: n}
		last = step{node: n}
	}
	n, i := last.node, last.at
	l, r, err := s.split(*n.gap(i), layer-1, key, last.lo, last.hi)
	if err != nil {
		return err
	}
	*n.gap(i) = l
	n.entries = slices.Insert(n.entries, i, partEntry{key: key, value: value, right: r})
	return nil
}

// split splits a subtree between lo and hi into the parts left and right of key.
func (s *Slice) split(l subtree, layer int, key, lo, hi []byte) (left, right subtree, err error) {
	if l.none() {
		return subtree{}, subtree{}, nil
	}
	n, err := s.open(&l, layer, lo, hi)
	if err != nil {
		return subtree{}, subtree{}, err
	}
	i, _ := n.search(key)
	lo, hi = n.bounds(i, lo, hi)
	a, b, err := s.split(*n.gap(i), layer-1, key, lo, hi)
	switch {
	case err != nil:
		return subtree{}, subtree{}, err
	case i == len(n.entries) && b.none():
		*n.gap(i) = a
		return l, subtree{}, nil
	case i == 0 && a.none():
		n.left = b
		return subtree{}, l, nil
	}
	m := s.tree.node(layer)
	n.changed, m.changed = true, true
	if i < len(n.entries)/2 { // the shorter part is copied, as in merge
		m.left, m.entries = n.left, append(m.entries, n.entries[:i]...)
		*m.gap(i) = a
		n.left, n.entries = b, n.entries[i:]
		return subtree{node: m}, subtree{node: n}, nil
	}
	m.left, m.entries = b, append(m.entries, n.entries[i:]...)
	n.entries = n.entries[:i]
	*n.gap(i) = a
	return subtree{node: n}, subtree{node: m}, nil
}

// seal encodes the changed nodes of a subtree and returns its CID, nil if it is empty.
func (t *partTree) seal(l subtree) *CID {
	n := l.node
	if n == nil || !n.changed {
		return l.id
	}
	n.left.id = t.seal(n.left)
	for i := range n.entries {
		e := &n.entries[i]
		e.right.id = t.seal(e.right)
	}
	t.buf = n.encode(t.buf[:0])
	n.id = HashCID(t.buf)
	return &n.id
}

// encode appends the node in the one form that parseNode and Walk accept. The subtrees are sealed.
func (n *partNode) encode(dst []byte) []byte {
	dst = appendHead(append(dst, "\xa2\x61e"...), MajorArray, uint64(len(n.entries)))
	var last []byte
	for i := range n.entries {
		e := &n.entries[i]
		shared := 0
		for shared < min(len(last), len(e.key)) && last[shared] == e.key[shared] {
			shared++
		}
		last = e.key
		dst = appendHead(append(dst, "\xa4\x61k"...), MajorBytes, uint64(len(e.key)-shared))
		dst = append(append(dst, e.key[shared:]...), "\x61p"...)
		dst = appendHead(dst, MajorUint, uint64(shared))
		dst = appendLink(append(dst, "\x61t"...), e.right.id)
		dst = appendLink(append(dst, "\x61v"...), e.value)
	}
	return appendLink(append(dst, "\x61l"...), n.left.id)
}

// appendLink appends a link to a block, or null.
func appendLink(dst []byte, id *CID) []byte {
	if id == nil {
		return append(dst, CBORNull)
	}
	return append(append(dst, linkPrefix...), id[:]...)
}
