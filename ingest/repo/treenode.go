package repo

import "fmt"

// TreeNode is a tree node, decoded. The zero value has no entries.
type TreeNode struct {
	Left    CID // subtree left of the first entry; zero: null
	Entries []TreeEntry

	parsed []nodeEntry
	keys   []byte
}

// TreeEntry is an entry of a node.
type TreeEntry struct {
	Key   []byte
	Value CID // of the record
	Right CID // subtree right of the key; zero: null
}

// Parse decodes a node into n, and reuses the memory of n. It keeps no reference to block. The
// error is ErrInvalid; the layers and bounds of keys are not checked.
func (n *TreeNode) Parse(block []byte) error {
	parsed, left, err := parseNode(n.parsed[:0], block)
	n.parsed, n.Entries, n.keys = parsed, n.Entries[:0], n.keys[:0]
	if err != nil {
		return fmt.Errorf("tree node: %w: %w", err, ErrInvalid)
	}
	n.Left = optionalDigest(block, left)
	var key []byte
	for i := range parsed {
		p := &parsed[i]
		suffix, shared := block[p.suffix:][:p.suffixLen], int(p.prefixLen)
		if err := checkSuffix(key, suffix, shared); err != nil {
			return fmt.Errorf("tree node: %w: %w", err, ErrInvalid)
		}
		from := len(n.keys)
		n.keys = append(append(n.keys, key[:shared]...), suffix...)
		key = n.keys[from:len(n.keys):len(n.keys)]
		n.Entries = append(n.Entries, TreeEntry{Key: key, Value: digestAt(block, p.value),
			Right: optionalDigest(block, p.right)})
	}
	return nil
}

// optionalDigest returns the digest at an offset, or the zero CID for offset 0.
func optionalDigest(block []byte, at uint32) CID {
	if at == 0 {
		return CID{}
	}
	return digestAt(block, at)
}
