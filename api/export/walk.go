package export

import (
	"context"
	"errors"
	"fmt"

	"cistern/api/clients"
	"cistern/ingest/repo"
	"cistern/store"
)

// errMismatch means that the records do not make the tree that the commit signs.
var errMismatch = errors.New("the records do not make the tree of the commit")

// scan calls fn for the record rows behind one key and before another, until fn returns false.
func scan(ctx context.Context, v *store.RepoView, lo, hi []byte, fn func(store.Row) bool) error {
	n := 0
	err := v.Scan(lo, hi, func(row store.Row) error {
		if !fn(row) {
			return errStop
		}
		if n++; n%yieldSteps == 0 {
			return clients.Yield(ctx)
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// errStop ends a scan.
var errStop = errors.New("stop")

// walk writes a part of a tree in pre-order: a node before what it leads to, and then, in the order
// of its entries, its subtrees and records. The nodes of the upper layers are in an outline. A
// subtree below is rebuilt from its record rows when the walk comes to it, as an outline of its
// own, which is the whole subtree unless an attacker has chosen keys to make it large. Rows are
// therefore read twice, by the scan of the subtree and for the records. The memory is that of two
// outlines and one node of each layer.
type walk struct {
	ctx   context.Context
	view  *store.RepoView
	part  *Part
	since string // write no records up to this rev; "": write all
	out   *carWriter

	outlineMax int        // bytes
	outlines   []*outline // of the tree, and of the subtrees that the walk is in
	builders   []*outliner
	nodes      []*repo.TreeNode // by depth
	depth      int
	steps      int
}

// run writes the nodes and records.
func (w *walk) run(tree *outline) error {
	w.outlines = append(w.outlines[:0], tree)
	return w.subtree(tree.root, tree.layer, nil, nil)
}

// subtree writes a subtree whose top node is in a layer, and whose keys are between lo and hi.
func (w *walk) subtree(id repo.CID, layer int, lo, hi []byte) error {
	block, ok := w.outlines[len(w.outlines)-1].node(id)
	if !ok {
		o, err := w.rebuild(id, layer, lo, hi)
		if err != nil {
			return err
		}
		w.outlines = append(w.outlines, o)
		defer func() { w.outlines = w.outlines[:len(w.outlines)-1] }()
		block, _ = o.node(id)
	}
	if err := w.out.block(id, block); err != nil {
		return err
	}
	n := w.enter()
	defer func() { w.depth-- }()
	if err := n.Parse(block); err != nil {
		return err
	}
	child, before := n.Left, lo
	for i := range n.Entries {
		e := &n.Entries[i]
		if err := w.child(child, layer-1, before, e.Key); err != nil {
			return err
		}
		if w.part.holds(e.Key) {
			if err := w.record(e.Key, e.Value); err != nil {
				return err
			}
		}
		child, before = e.Right, e.Key
	}
	return w.child(child, layer-1, before, hi)
}

// enter returns the memory of a node at the next depth.
func (w *walk) enter() *repo.TreeNode {
	if w.depth++; w.depth > len(w.nodes) {
		w.nodes = append(w.nodes, &repo.TreeNode{})
	}
	return w.nodes[w.depth-1]
}

// child writes the subtree between two keys, if there is one and it may have keys of the part.
func (w *walk) child(id repo.CID, layer int, lo, hi []byte) error {
	if !id.Defined() || !w.part.meets(lo, hi) {
		return nil
	}
	return w.subtree(id, layer, lo, hi)
}

// rebuild makes the outline of a subtree from its rows.
func (w *walk) rebuild(id repo.CID, layer int, lo, hi []byte) (*outline, error) {
	depth := len(w.outlines) - 1
	if depth == len(w.builders) {
		w.builders = append(w.builders, newOutliner(w.outlineMax))
	}
	b := w.builders[depth]
	b.begin()
	if err := scan(w.ctx, w.view, lo, hi, b.row); err != nil {
		return nil, err
	}
	o := b.end(b.tree.Subtree(layer))
	if o.root != id {
		return nil, fmt.Errorf("subtree %s between %q and %q: %w", id, lo, hi, errMismatch)
	}
	return o, nil
}

// record writes the record of an entry.
func (w *walk) record(key []byte, id repo.CID) error {
	if w.steps++; w.steps%yieldSteps == 0 {
		if err := clients.Yield(w.ctx); err != nil {
			return err
		}
	}
	row, err := w.view.Find(key)
	switch {
	case errors.Is(err, store.ErrNotFound), err == nil && row.CID != id:
		return fmt.Errorf("record %q: %w", key, errMismatch)
	case err != nil:
		return err
	case row.Shelved:
		return fmt.Errorf("record %q: %w", key, ErrIncomplete)
	case string(row.Rev) <= w.since:
		return nil
	}
	body, err := w.view.Body(row.Block)
	if err != nil {
		return err
	}
	if repo.HashCID(body) != id {
		return fmt.Errorf("body of record %q: %w", key, errMismatch)
	}
	return w.out.block(id, body)
}
