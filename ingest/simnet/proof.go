package simnet

import (
	"net/http"

	"cistern/ingest/repo"
)

// Names of the sync methods for parts of a repository.
const (
	getProof  = "com.atproto.sync.getRecord"
	getBlocks = "com.atproto.sync.getBlocks"
)

func sendsCAR(endpoint string) bool {
	return endpoint == getRepo || endpoint == getProof || endpoint == getBlocks
}

// cidsMax bounds the blocks that one getBlocks may name. The length of URLs has a similar effect.
const cidsMax = 1000

// getProof sends, like the reference PDS, the commit, the nodes on the way to a path, and the
// record if there is one.
func (q read) getProof() {
	a, c := q.a, q.c
	path := q.r.URL.Query().Get("collection") + "/" + q.r.URL.Query().Get("rkey")
	kind := FaultKind(0)
	if c.fault != nil {
		kind = c.fault.fault.Kind
	}
	from := a
	if kind == WrongDID {
		from = a.net.other(a)
	}
	s, root := from.faultySnapshot(kind)
	blocks := faultyBlocks(kind, append([]block{root}, s.way(path)...))
	car := encodeCAR(root.cid, blocks)
	if a.net.opts.Clutter {
		car = appendClutter(car)
	}
	c.fault.sendCAR(q.w, q.r, car)
}

// getBlocks sends the named blocks, without a root. If a block is missing, it answers an error.
func (q read) getBlocks() {
	a, c := q.a, q.c
	texts := q.r.URL.Query()["cids"]
	if len(texts) == 0 || len(texts) > cidsMax {
		writeError(q.w, http.StatusBadRequest, "InvalidRequest", "no cids, or too many")
		return
	}
	s := a.snapshot()
	blocks := []block{{}} // in place of the commit
	for _, text := range texts {
		id, err := repo.ParseCID(text)
		b, ok := s.known()[id]
		if err != nil || !ok {
			writeError(q.w, http.StatusBadRequest, "InvalidRequest", "Could not find cids: "+text)
			return
		}
		blocks = append(blocks, b)
	}
	if c.fault != nil {
		blocks = faultyBlocks(c.fault.fault.Kind, blocks)
	}
	car := appendCARHeader(nil)
	for _, b := range blocks[1:] {
		car = appendCARBlock(car, b)
	}
	if a.net.opts.Clutter {
		car = appendClutter(car)
	}
	c.fault.sendCAR(q.w, q.r, car)
}

// way lists the nodes on the way to a path, whether or not there is a record, and the record.
func (s *snapshot) way(path string) []block {
	i, found := s.find(path)
	var way []block
	for _, n := range s.nodes {
		if n.from <= i && (i < n.to || !found && i == n.to) {
			way = append(way, s.tree[n.at])
		}
	}
	if found {
		l := s.leaves[i]
		way = append(way, block{l.cid, l.data, true})
	}
	return way
}

// knownBlocks returns the blocks of a snapshot by CID, including the commit.
func (s *snapshot) knownBlocks() map[repo.CID]block {
	m := make(map[repo.CID]block, len(s.tree)+1)
	for _, b := range s.tree {
		m[b.cid] = b
	}
	m[s.root.cid] = s.root
	return m
}
