package repo

// Tree computes the root of the tree of a repository from its records, which are added in the order
// of their keys. It holds one open node of each layer, so that its memory does not grow with the
// number of records. The zero value is an empty tree.
type Tree struct {
	// Node, if it is set, is called for each node once it is complete: children before their
	// parents, and the root last. Layer 0 is the lowest. block is the node in DAG-CBOR, valid
	// during the call.
	Node func(layer int, id CID, block []byte)

	open    []openNode // by layer
	illegal bool
	buf     []byte // scratch
}

// openNode is the last node of a layer, to which entries are still added.
type openNode struct {
	count   int
	entries []byte // of the last entry only what precedes its links
	left    CID    // zero: null
	key     []byte // of the last entry
	value   CID    // of the last entry
	right   CID    // of the last entry; zero: null
}

// Reset empties the tree, and keeps its memory.
func (t *Tree) Reset() {
	for i := range t.open {
		t.open[i].reset()
	}
	t.open, t.illegal = t.open[:0], false
}

// Add adds a record. key must follow the keys that were added before; it is copied.
func (t *Tree) Add(key []byte, value CID) {
	layer := keyLayer(key)
	if layer > layersMax {
		t.illegal = true
	}
	if t.illegal {
		return
	}
	t.grow(layer)
	// The subtrees left of the key are complete.
	for l := range layer {
		t.close(l)
	}
	n := &t.open[layer]
	n.add(key, value)
	if len(n.entries) > blockBytesMax {
		t.illegal = true
	}
}

// grow makes nodes up to a layer. It reuses those that Reset left.
func (t *Tree) grow(layer int) {
	for len(t.open) <= layer {
		if len(t.open) < cap(t.open) {
			t.open = t.open[:len(t.open)+1]
		} else {
			t.open = append(t.open, openNode{})
		}
	}
}

// close ends the open node of a layer and links it into the layer above.
func (t *Tree) close(layer int) {
	if n := &t.open[layer]; n.count == 0 && !n.left.Defined() {
		return
	}
	id := t.seal(layer)
	if above := &t.open[layer+1]; above.count == 0 {
		above.left = id
	} else {
		above.right = id
	}
}

// Root returns the root, or the zero CID if no legal tree has these records: a node would exceed
// the limit on blocks, or a key the limit on layers. The tree must be reset before further use.
func (t *Tree) Root() CID {
	if t.illegal {
		return CID{}
	}
	t.grow(0)
	// The highest layer has an entry, unless the tree is empty.
	top := len(t.open) - 1
	for l := range top {
		t.close(l)
	}
	return t.seal(top)
}

// Subtree is like Root for the records between two neighbours of a larger tree: it returns the CID
// of their subtree, whose top node is in the given layer and may have no entries. It is zero if a
// record belongs to a higher layer.
func (t *Tree) Subtree(layer int) CID {
	t.grow(layer)
	if len(t.open) > layer+1 {
		return CID{}
	}
	return t.Root()
}

// seal returns the CID of the open node of a layer and empties it.
func (t *Tree) seal(layer int) CID {
	n := &t.open[layer]
	n.link()
	b := appendHead(append(t.buf[:0], "\xa2\x61e"...), MajorArray, uint64(n.count))
	b = append(append(b, n.entries...), "\x61l"...)
	b = appendLink(b, n.left.orNil())
	t.buf = b
	n.reset()
	id := HashCID(b)
	if t.Node != nil {
		t.Node(layer, id, b)
	}
	return id
}

func (n *openNode) reset() {
	*n = openNode{entries: n.entries[:0], key: n.key[:0]}
}

func (n *openNode) add(key []byte, value CID) {
	n.link()
	shared := 0
	for shared < min(len(n.key), len(key)) && n.key[shared] == key[shared] {
		shared++
	}
	n.entries = appendHead(append(n.entries, "\xa4\x61k"...), MajorBytes, uint64(len(key)-shared))
	n.entries = append(append(n.entries, key[shared:]...), "\x61p"...)
	n.entries = appendHead(n.entries, MajorUint, uint64(shared))
	n.key, n.value, n.right = append(n.key[:0], key...), value, CID{}
	n.count++
}

// link appends the links of the last entry, whose right subtree is complete.
func (n *openNode) link() {
	if n.count == 0 {
		return
	}
	n.entries = appendLink(append(n.entries, "\x61t"...), n.right.orNil())
	n.entries = appendLink(append(n.entries, "\x61v"...), &n.value)
}

// orNil returns nil for the zero CID.
func (c *CID) orNil() *CID {
	if !c.Defined() {
		return nil
	}
	return c
}
