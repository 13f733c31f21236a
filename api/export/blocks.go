package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"cistern/ingest/repo"
	"cistern/store"
)

// ErrTooLarge means that the requested tree nodes together take too much memory.
var ErrTooLarge = fmt.Errorf("the tree nodes asked for exceed %d bytes", foundBytesMax)

// MissingError names the blocks that a repository does not have.
type MissingError struct{ CIDs []repo.CID }

func (e *MissingError) Error() string { return "blocks are missing: " + e.names() }

// names names some of the blocks.
func (e *MissingError) names() string {
	var names []string
	for _, id := range e.CIDs[:min(len(e.CIDs), namedMax)] {
		names = append(names, id.String())
	}
	if more := len(e.CIDs) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// Blocks are blocks of a repository that were asked for by their CIDs.
type Blocks struct {
	e     *Exporter
	view  *store.RepoView
	order []repo.CID          // without repetitions
	nodes map[repo.CID][]byte // and the commit; nil: not found yet
	rows  map[repo.CID]uint32 // blocks of records
	left  int                 // not found yet
	bytes int                 // of nodes
}

// Find looks for blocks: the commit, nodes of the tree, and records. Blocks are not indexed by CID.
// Unless the commit and the outline of the tree have all that are wanted, Find reads the rows of
// the repository until it has found them. The view must stay open while Blocks is used. Errors:
// MissingError, ErrIncomplete in its place if the store does not have all records, ErrMismatch,
// ErrTooLarge, and errors of the store.
func (e *Exporter) Find(ctx context.Context, v *store.RepoView, want []repo.CID) (*Blocks, error) {
	r := v.Repo()
	f, err := v.Filter()
	if err != nil {
		return nil, err
	}
	b := &Blocks{e: e, view: v, nodes: map[repo.CID][]byte{}, rows: map[repo.CID]uint32{}}
	for _, id := range want {
		if _, twice := b.nodes[id]; !twice {
			b.nodes[id], b.order = nil, append(b.order, id)
		}
	}
	b.left = len(b.order)
	b.node(repo.HashCID(r.Commit), r.Commit)
	whole := r.Whole(f)
	if whole {
		err = b.searchTree(ctx)
	} else {
		err = b.searchRows(ctx)
	}
	switch {
	case err != nil:
		return nil, err
	case b.bytes > foundBytesMax:
		return nil, ErrTooLarge
	case b.left > 0 && (!whole || r.Shelved > 0):
		return nil, fmt.Errorf("%s: %w", r.DID, ErrIncomplete)
	case b.left > 0:
		return nil, b.missing()
	}
	return b, nil
}

// node takes over a block that is wanted.
func (b *Blocks) node(id repo.CID, block []byte) {
	if has, wanted := b.nodes[id]; wanted && has == nil {
		b.left--
		if b.bytes += len(block); b.bytes <= foundBytesMax {
			b.nodes[id] = append([]byte{}, block...)
		}
	}
}

// row takes over the record of a row if it is wanted, and reports whether the search goes on.
func (b *Blocks) row(row store.Row) bool {
	if has, wanted := b.nodes[row.CID]; wanted && has == nil && !row.Shelved {
		if _, twice := b.rows[row.CID]; !twice {
			b.left--
			b.rows[row.CID] = row.Block
		}
	}
	return !b.done()
}

// searchRows looks for records only.
func (b *Blocks) searchRows(ctx context.Context) error {
	if b.done() {
		return nil
	}
	return scan(ctx, b.view, nil, nil, b.row)
}

// searchTree looks for nodes and records.
func (b *Blocks) searchTree(ctx context.Context) error {
	r := b.view.Repo()
	known, ok := b.e.outlines.get(treeOfRepo(r))
	if ok {
		b.e.metrics.cached.Inc()
		for _, id := range b.order {
			if block, ok := known.node(id); ok {
				b.node(id, block)
			}
		}
	} else if b.e.mismatches.known(r) {
		return fmt.Errorf("%s at rev %s: %w", r.DID, r.Rev, ErrMismatch)
	}
	if b.done() {
		return nil
	}
	b.e.metrics.built.Inc()
	o := newOutliner(b.e.outlineMax)
	o.also = b.node
	err := scan(ctx, b.view, nil, nil, func(row store.Row) bool {
		o.row(row)
		return b.row(row)
	})
	if err != nil || b.done() {
		return err
	}
	_, err = b.e.proven(r, o) // the last nodes are found here
	return err
}

// done reports whether the search is over.
func (b *Blocks) done() bool { return b.left == 0 || b.bytes > foundBytesMax }

func (b *Blocks) missing() error {
	e := &MissingError{}
	for _, id := range b.order {
		if _, found := b.rows[id]; !found && b.nodes[id] == nil {
			e.CIDs = append(e.CIDs, id)
		}
	}
	return e
}

// Write writes a CAR of the blocks, without roots, in the order in which they were asked for, each
// once.
func (b *Blocks) Write(ctx context.Context, out io.Writer) error {
	c := carWriter{w: out}
	defer func() { b.e.metrics.bytes.Add(float64(c.n)) }()
	if err := c.header(repo.CID{}); err != nil {
		return err
	}
	for _, id := range b.order {
		block := b.nodes[id]
		if block == nil {
			var err error
			if block, err = b.view.Body(b.rows[id]); err != nil {
				return err
			}
			if repo.HashCID(block) != id {
				return b.e.mismatch(b.view.Repo(), fmt.Errorf("body of %s: %w", id, errMismatch))
			}
		}
		if err := errors.Join(ctx.Err(), c.block(id, block)); err != nil {
			return err
		}
	}
	return nil
}
