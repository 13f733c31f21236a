package repo_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	indigorepo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"

	"cistern/ingest/repo"
)

// walkAll returns the leaves of a CAR whose root is a commit.
func walkAll(c *repo.CAR) (commit repo.Commit, leaves []leaf, err error) {
	b, ok, err := c.Block(c.Root())
	if err != nil || !ok {
		return commit, nil, errors.Join(err, repo.ErrInvalid)
	}
	if commit, err = repo.ParseCommit(b); err != nil {
		return commit, nil, err
	}
	err = c.Walk(commit.Data, func(l repo.Leaf) error {
		leaves = append(leaves, leaf{key: string(l.Key), cid: l.CID})
		if repo.HashCID(l.Record) != l.CID {
			panic("a record that does not hash to its CID")
		}
		return nil
	})
	return commit, leaves, err
}

// agree reads a CAR, in memory and through a spool, and holds what is accepted against indigo.
func agree(t *testing.T, car []byte) {
	t.Helper()
	var first []leaf
	var firstErr error
	for i, o := range []repo.CAROptions{
		{},
		{MemoryBytes: 1, Spool: func() (repo.Spool, error) { return &memSpool{}, nil }},
	} {
		c, err := repo.ReadCAR(bytes.NewReader(car), o)
		var leaves []leaf
		if err == nil {
			_, leaves, err = walkAll(c)
			if closeErr := c.Close(); closeErr != nil {
				t.Fatal(closeErr)
			}
		}
		if err != nil && !errors.Is(err, repo.ErrInvalid) {
			t.Fatalf("not ErrInvalid: %v", err)
		}
		if i == 0 {
			first, firstErr = leaves, err
		} else if (firstErr == nil) != (err == nil) || !slices.Equal(leaves, first) {
			t.Fatalf("in memory %d leaves, %v; spooled %d leaves, %v", len(first), firstErr, len(leaves), err)
		}
	}
	if firstErr == nil {
		indigoAgrees(t, car, first)
	}
}

// withoutForeign leaves out the blocks of an accepted CAR that we pass over: indigo hashes them.
func withoutForeign(car []byte) []byte {
	n, k := binary.Uvarint(car)
	end := k + int(n)
	kept := slices.Clone(car[:end]) // the header
	for at := end; at < len(car); at = end {
		n, k := binary.Uvarint(car[at:])
		end = at + k + int(n)
		if bytes.HasPrefix(car[at+k:end], []byte("\x01\x71\x12\x20")) {
			kept = append(kept, car[at:end]...)
		}
	}
	return kept
}

func indigoAgrees(t *testing.T, car []byte, leaves []leaf) {
	t.Helper()
	_, r, err := indigorepo.LoadRepoFromCAR(context.Background(), bytes.NewReader(withoutForeign(car)))
	if err != nil {
		t.Fatalf("accepted, but indigo says: %v", err)
	}
	if err := r.MST.Verify(); err != nil {
		t.Fatalf("accepted, but indigo says: %v", err)
	}
	i := 0
	err = r.MST.Walk(func(key []byte, val cid.Cid) error {
		if i == len(leaves) || string(key) != leaves[i].key || val.String() != leaves[i].cid.String() {
			t.Fatalf("leaf %d: indigo has %q %s", i, key, val)
		}
		i++
		return nil
	})
	if err != nil || i != len(leaves) || r.MST.IsPartial() {
		t.Fatalf("%d leaves, indigo has %d (partial: %v): %v", len(leaves), i, r.MST.IsPartial(), err)
	}
	// The tree has one form: built anew from its leaves it has the same root.
	root, _ := buildTree(leaves)
	if got := (*r.MST.Root.CID).String(); got != root.String() {
		t.Fatalf("root %s, built anew %s", got, root)
	}
}

// FuzzReadCAR takes whole CARs.
func FuzzReadCAR(f *testing.F) {
	for _, n := range []int{0, 1, 5} {
		f.Add(newWorld(n, 1).car(0))
	}
	f.Fuzz(agree)
}

// FuzzWalk takes a list of changes to the blocks of a good repository. A changed block gets the
// right CID and the blocks that refer to it are changed too, so that the walk reaches it.
func FuzzWalk(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 10, 1})
	f.Add([]byte{2, 0, 5, 0x18, 3, 0, 5, 0})
	f.Add([]byte{5, 1, 1, 2, 4, 3, 2, 1})
	worlds := changeable()
	f.Fuzz(func(t *testing.T, changes []byte) {
		if w := changed(worlds, changes); w != nil {
			agree(t, w.car(0))
		}
	})
}

func changeable() []*world { return []*world{newWorld(3, 1), newWorld(40, 2), newWorld(300, 3)} }

// changed is one of the worlds with a list of changes made to its nodes, nil for a list that is not worth it.
func changed(worlds []*world, changes []byte) *world {
	if len(changes) == 0 || len(changes) > 64 {
		return nil
	}
	w := worlds[int(changes[0])%len(worlds)]
	nodes := slices.Clone(w.nodes)
	for rest := changes[1:]; len(rest) >= 5; rest = rest[5:] {
		mutate(nodes, w.records, rest[0], binary.BigEndian.Uint16(rest[1:]), rest[3], rest[4])
	}
	// Children stand before their parents, so that one pass carries the new CIDs upwards.
	for i := range nodes {
		old := nodes[i].cid
		nodes[i].cid = repo.HashCID(nodes[i].data)
		for j := i + 1; j < len(nodes) && old != nodes[i].cid; j++ {
			nodes[j].data = bytes.ReplaceAll(nodes[j].data, old[:], nodes[i].cid[:])
		}
	}
	return &world{data: nodes[len(nodes)-1].cid, nodes: nodes, records: w.records}
}

// mutate changes one node.
func mutate(nodes, records []block, op byte, at uint16, which, value byte) {
	n := &nodes[int(which)%len(nodes)]
	i := int(at) % len(n.data)
	links := linksOf(n.data)
	switch op % 7 {
	case 0: // a byte to another
		n.data = slices.Clone(n.data)
		n.data[i] = value
	case 1: // a byte more
		n.data = slices.Insert(slices.Clone(n.data), i, value)
	case 2: // a byte fewer
		n.data = slices.Delete(slices.Clone(n.data), i, i+1)
	case 3: // a link to another node
		if len(links) > 0 {
			n.data = relink(n.data, links[i%len(links)], nodes[int(value)%len(nodes)].cid)
		}
	case 4: // a link to another record
		if len(links) > 0 {
			n.data = relink(n.data, links[i%len(links)], records[int(value)%len(records)].cid)
		}
	case 5: // the whole of another node
		n.data = nodes[int(value)%len(nodes)].data
	case 6: // a few bits
		n.data = slices.Clone(n.data)
		n.data[i] ^= value
	}
}

// linksOf returns where the digests in a node stand.
func linksOf(node []byte) (at []int) {
	prefix := []byte("\xd8\x2a\x58\x25\x00\x01\x71\x12\x20")
	for from := 0; ; {
		i := bytes.Index(node[from:], prefix)
		if i < 0 || from+i+len(prefix)+32 > len(node) {
			return at
		}
		from += i + len(prefix)
		at = append(at, from)
	}
}

func relink(node []byte, at int, to repo.CID) []byte {
	node = slices.Clone(node)
	copy(node[at:], to[:])
	return node
}
