package simnet

import (
	"bytes"
	"slices"
	"strings"
	"sync"

	"github.com/bluesky-social/indigo/atproto/repo/mst"

	"cistern/ingest/repo"
)

// leaf is one record of a repository.
type leaf struct {
	path   string
	cid    repo.CID
	data   []byte
	height int // of the MST layer its path belongs to
}

func newLeaf(path string, data []byte) leaf {
	return leaf{path, repo.HashCID(data), data, mst.HeightForKey([]byte(path))}
}

// snapshot is one commit of a repository. It never changes.
type snapshot struct {
	did    string
	rev    string
	data   repo.CID // root of the tree
	leaves []leaf   // sorted by path
	tree   []block  // nodes and records in preorder, equal blocks repeated
	nodes  []extent // of the nodes
	root   block    // the commit
	order  func() []block
	known  func() map[repo.CID]block
}

// newSnapshot builds the tree over sorted leaves and signs a commit of it.
func newSnapshot(did, rev string, leaves []leaf, key *signer, preorder bool) *snapshot {
	s := &snapshot{did: did, rev: rev, leaves: leaves}
	s.data, s.tree, s.nodes = buildTree(leaves)
	s.root = commitBlock(did, rev, s.data, key.sign)
	s.order = sync.OnceValue(func() []block { return carOrder(s.tree, preorder) })
	s.known = sync.OnceValue(s.knownBlocks)
	return s
}

// blocks lists the CAR's blocks in the order they are sent, in a slice of the caller's own; the
// bytes are shared.
func (s *snapshot) blocks() []block { return append([]block{s.root}, s.order()...) }

// find is the position of path among the leaves, or where it would be.
func (s *snapshot) find(path string) (int, bool) {
	return slices.BinarySearchFunc(s.leaves, path,
		func(l leaf, p string) int { return strings.Compare(l.path, p) })
}

// proof lists the nodes that cover the ops of the commit: those on the way to each path and to its
// neighbours on both sides, which suffice to take the ops back (sync v1.1). All new nodes are among
// them.
func (s *snapshot) proof(ops []Op) []block {
	var wanted []int // leaves to which the way is shown
	for _, op := range ops {
		i, found := s.find(op.Path)
		wanted = append(wanted, i-1, i)
		if found {
			wanted = append(wanted, i+1)
		}
	}
	slices.Sort(wanted)
	proof := []block{s.tree[0]}
	for _, n := range s.nodes[1:] {
		if i, _ := slices.BinarySearch(wanted, n.from); i < len(wanted) && wanted[i] < n.to {
			proof = append(proof, s.tree[n.at])
		}
	}
	return proof
}

// newNodes lists the nodes that old does not have, and the root.
func (s *snapshot) newNodes(old *snapshot) []block {
	had := make(map[repo.CID]bool)
	if old != nil {
		for _, n := range old.nodes {
			had[old.tree[n.at].cid] = true
		}
	}
	nodes := []block{s.tree[0]}
	for _, n := range s.nodes[1:] {
		if b := s.tree[n.at]; !had[b.cid] {
			nodes = append(nodes, b)
		}
	}
	return nodes
}

// carOrder drops repeated blocks and puts the rest in the order of transfer: as walked, or by
// falling CID, as the reference PDS does for blocks written at one rev.
func carOrder(tree []block, preorder bool) []block {
	seen := make(map[repo.CID]bool, len(tree))
	unique := make([]block, 0, len(tree))
	for _, b := range tree {
		if !seen[b.cid] {
			seen[b.cid] = true
			unique = append(unique, b)
		}
	}
	if !preorder {
		slices.SortFunc(unique, func(x, y block) int { return bytes.Compare(y.cid[:], x.cid[:]) })
	}
	return unique
}

// commitBlock makes a commit and has it signed by sign, which a hostile host may replace.
func commitBlock(did, rev string, data repo.CID, sign func([]byte) []byte) block {
	commit := map[string]any{"did": did, "version": 3, "prev": nil, "data": data, "rev": rev}
	commit["sig"] = sign(appendValue(nil, commit))
	b := appendValue(nil, commit)
	return block{cid: repo.HashCID(b), data: b}
}

// buildTree makes the MST of sorted leaves bottom-up: its root and all blocks, records included.
func buildTree(leaves []leaf) (repo.CID, []block, []extent) {
	top := 0
	for _, l := range leaves {
		top = max(top, l.height)
	}
	t := treeBuilder{blocks: make([]block, 0, len(leaves)*5/4+1)}
	root := t.build(leaves, top)
	return root, t.blocks, t.nodes
}

// extent is a node's place among the blocks and the leaves it covers.
type extent struct{ at, from, to int }

type treeBuilder struct {
	blocks []block
	nodes  []extent
	leaves int // how many are in blocks
}

// build makes the node for leaves at a layer and, before it, all below. The node stands
// in front of what it links to.
func (t *treeBuilder) build(leaves []leaf, layer int) repo.CID {
	at := len(t.blocks)
	t.blocks = append(t.blocks, block{})
	t.nodes = append(t.nodes, extent{at, t.leaves, t.leaves + len(leaves)})
	n := slices.IndexFunc(leaves, func(l leaf) bool { return l.height == layer })
	if n < 0 {
		n = len(leaves)
	}
	left := t.link(leaves[:n], layer-1)
	entries, count, prev := []byte(nil), uint64(0), ""
	for rest := leaves[n:]; len(rest) > 0; count++ {
		l := rest[0]
		end := 1
		for end < len(rest) && rest[end].height != layer {
			end++
		}
		t.blocks = append(t.blocks, block{l.cid, l.data, true})
		t.leaves++
		right := t.link(rest[1:end], layer-1)
		shared := mst.CountPrefixLen([]byte(prev), []byte(l.path))
		entries = appendEntry(entries, shared, l.path[shared:], l.cid, right)
		prev, rest = l.path, rest[end:]
	}
	node := encodeNode(left, count, entries)
	cid := repo.HashCID(node)
	t.blocks[at] = block{cid: cid, data: node}
	return cid
}

// link builds the subtree of leaves and returns its CID, or nil for none.
func (t *treeBuilder) link(leaves []leaf, layer int) any {
	if len(leaves) == 0 {
		return nil
	}
	return t.build(leaves, layer)
}

// appendEntry writes one entry of a node: its path is what it adds to the one before.
func appendEntry(b []byte, shared int, suffix string, value repo.CID, right any) []byte {
	b = appendHead(b, 5, 4)
	b = append(appendHead(appendText(b, "k"), 2, uint64(len(suffix))), suffix...)
	b = appendInt(appendText(b, "p"), int64(shared))
	b = appendValue(appendText(b, "t"), right)
	return appendValue(appendText(b, "v"), value)
}

// encodeNode is the node that holds encoded entries.
func encodeNode(left any, count uint64, entries []byte) []byte {
	node := appendHead(make([]byte, 0, len(entries)+64), 5, 2)
	node = append(appendHead(appendText(node, "e"), 4, count), entries...)
	return appendValue(appendText(node, "l"), left)
}
