package export

import (
	"maps"
	"slices"

	"cistern/ingest/repo"
	"cistern/store"
)

// outline is the upper part of a tree or of a subtree: all of its nodes from some layer up. That
// layer is the lowest with which the outline fits outlineBytesMax, and at most the layer of its
// root. So the outline of a small tree is the whole tree.
type outline struct {
	root  repo.CID
	layer int // of the root
	nodes map[repo.CID]span
	kept  [][]byte // bytes of the nodes, by layer
	bytes int
}

// span is the place of a node among the bytes of its layer.
type span struct{ layer, from, to uint32 }

// node returns a node of the outline.
func (o *outline) node(id repo.CID) (block []byte, ok bool) {
	s, ok := o.nodes[id]
	if !ok {
		return nil, false
	}
	return o.kept[s.layer][s.from:s.to], true
}

// outliner makes an outline of records that are added in the order of keys. Its memory is bounded
// by outlineBytesMax and one node of each layer. Making another outline reuses the memory.
type outliner struct {
	outline
	tree  repo.Tree
	max   int // bound of the outline
	floor int // lowest layer that is kept
	last  []byte
	also  func(id repo.CID, block []byte) // called for each node, unless nil
}

func newOutliner(bytesMax int) *outliner {
	b := &outliner{max: bytesMax}
	b.nodes = map[repo.CID]span{}
	b.tree.Node = b.add
	return b
}

// begin forgets the outline.
func (b *outliner) begin() {
	b.tree.Reset()
	clear(b.nodes)
	for i := range b.kept {
		b.kept[i] = b.kept[i][:0]
	}
	b.root, b.layer, b.bytes, b.floor = repo.CID{}, 0, 0, 0
}

// row adds a record.
func (b *outliner) row(r store.Row) bool {
	b.tree.Add(r.Path, r.CID)
	return true
}

// add takes over a node. What is added last is the root.
func (b *outliner) add(layer int, id repo.CID, block []byte) {
	if b.also != nil {
		b.also(id, block)
	}
	b.layer, b.last = layer, append(b.last[:0], block...)
	if layer < b.floor {
		return
	}
	b.keep(layer, id, block)
	for b.bytes > b.max {
		b.drop()
	}
}

func (b *outliner) keep(layer int, id repo.CID, block []byte) {
	for len(b.kept) <= layer {
		b.kept = append(b.kept, nil)
	}
	from := len(b.kept[layer])
	b.kept[layer] = append(b.kept[layer], block...)
	b.nodes[id] = span{uint32(layer), uint32(from), uint32(len(b.kept[layer]))}
	b.bytes += len(block) + nodeBookBytes
}

// drop drops the lowest layer.
func (b *outliner) drop() {
	for id, s := range b.nodes {
		if int(s.layer) == b.floor {
			delete(b.nodes, id)
			b.bytes -= int(s.to-s.from) + nodeBookBytes
		}
	}
	if b.floor < len(b.kept) {
		b.kept[b.floor] = b.kept[b.floor][:0]
	}
	b.floor++
}

// end completes the outline of a tree whose root has this CID. The root is kept, whatever its size.
func (b *outliner) end(root repo.CID) *outline {
	b.root = root
	if _, ok := b.nodes[root]; !ok && root.Defined() {
		b.keep(b.layer, root, b.last)
	}
	return &b.outline
}

// copied returns a copy of the outline that takes no more memory than it needs.
func (b *outliner) copied() *outline {
	o := b.outline
	o.nodes, o.kept = maps.Clone(o.nodes), slices.Clone(o.kept)
	for i := range o.kept {
		o.kept[i] = slices.Clip(slices.Clone(o.kept[i]))
	}
	return &o
}
