package simnet

import (
	"encoding/binary"

	"cistern/ingest/repo"
)

// Entry is one entry of a handmade tree node, which may be invalid.
type Entry struct {
	Prefix int    // bytes shared with the previous entry, as it claims
	Suffix string // the rest of the path
	Value  repo.CID
	Right  repo.CID // the subtree after the entry; zero for none
}

// EncodeNode returns a tree node; a zero left is null.
func EncodeNode(left repo.CID, entries ...Entry) []byte {
	var body []byte
	for _, e := range entries {
		body = appendEntry(body, e.Prefix, e.Suffix, e.Value, optional(e.Right))
	}
	return encodeNode(optional(left), uint64(len(entries)), body)
}

func optional(c repo.CID) any {
	if c.Defined() {
		return c
	}
	return nil
}

// Forge signs, with the account's key, a commit with a new rev for the tree whose root is data, and
// returns a CAR of the commit and the blocks, under their true CIDs. The account's Truth does not
// change; send the CAR with a Mutated fault.
func (r *repository) Forge(data repo.CID, blocks ...[]byte) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.load()
	root := commitBlock(r.did, r.tick(), data, r.key.sign)
	all := []block{root}
	for _, b := range blocks {
		all = append(all, block{cid: repo.HashCID(b), data: b})
	}
	return encodeCAR(root.cid, all)
}

// Blocks lists the blocks of the repository, the commit first, as a correct host sends them.
func (r *repository) Blocks() [][]byte {
	var all [][]byte
	for _, b := range r.snapshot().blocks() {
		all = append(all, b.data)
	}
	return all
}

// Span is the position of a block in a CAR: its section begins at Start, and its data is from Data
// to End.
type Span struct{ Start, Data, End int }

// Spans finds the blocks of a CAR that this package made.
func Spans(car []byte) []Span {
	var spans []Span
	header, n := binary.Uvarint(car)
	for at := n + int(header); at < len(car); {
		size, n := binary.Uvarint(car[at:])
		end := at + n + int(size)
		spans = append(spans, Span{Start: at, Data: at + n + repo.CIDBytes, End: end})
		at = end
	}
	return spans
}
