package ingest_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"cistern/ingest"
	"cistern/ingest/frame"
	"cistern/ingest/repo"
)

// TestProofOfLyingOps: a host may state any operations for a change of its tree, several on one
// path, with false prevs, with some left out. If taking them back leads to the tree before, then
// what is written leads to the tree after.
func TestProofOfLyingOps(t *testing.T) {
	t.Parallel()
	proven, refused := 0, 0
	for seed := range uint64(600) {
		rng := rand.New(rand.NewPCG(seed, 9))
		m := newProofMaker(t, 6)
		before, _ := m.tree()
		was := maps.Clone(m.held)
		paths := append(slices.Sorted(maps.Keys(m.held)), "a/b", "z/z", proofNew)
		texts := []string{"x", "y", was[paths[0]], was[paths[1]]}
		for range rng.IntN(4) {
			if path := paths[rng.IntN(len(paths))]; rng.IntN(3) == 0 {
				delete(m.held, path)
			} else {
				m.held[path] = texts[rng.IntN(len(texts))]
			}
		}
		f, _ := m.commit(nil)
		f.Ops = honestOps(was, m.held)
		for range rng.IntN(4) {
			f.Ops = lie(rng, f.Ops, paths, texts)
		}
		m.fill(f, slices.Concat(texts, slices.Collect(maps.Values(m.held)), slices.Collect(maps.Values(was)))...)
		var p ingest.Proof
		if err := p.Read(f, proofNow); err != nil {
			refused++
			continue
		}
		root, err := p.Before(func(path []byte) (repo.CID, error) { return cidIn(was, string(path)), nil })
		if err != nil || root != before {
			refused++
			continue
		}
		proven++
		got := map[string]repo.CID{}
		for path := range was {
			got[path] = cidIn(was, path)
		}
		for _, op := range p.Writes(nil) {
			if got[string(op.Path)] = op.CID; op.CID.Defined() && repo.HashCID(op.Record) != op.CID {
				t.Fatalf("seed %d: at %s another record is written", seed, op.Path)
			}
		}
		for _, path := range paths {
			if want := cidIn(m.held, path); got[path] != want {
				t.Fatalf("seed %d: at %s the tree has %s, written was %s; operations %+v", seed, path, want, got[path], f.Ops)
			}
		}
	}
	if proven < 100 || refused < 100 {
		t.Errorf("%d proven and %d refused: the test shows nothing", proven, refused)
	}
}

// cidIn is the CID of a record in a map of texts, zero if there is none.
func cidIn(held map[string]string, path string) repo.CID {
	text, ok := held[path]
	if !ok {
		return repo.CID{}
	}
	return repo.HashCID(proofRecord(text))
}

// honestOps are the operations that lead from one state to another.
func honestOps(was, now map[string]string) (ops []frame.Op) {
	for _, path := range slices.Sorted(maps.Keys(was)) {
		if _, ok := now[path]; !ok {
			ops = append(ops, frame.Op{Action: "delete", Path: []byte(path), Prev: cidIn(was, path)})
		}
	}
	for _, path := range slices.Sorted(maps.Keys(now)) {
		switch text, ok := was[path]; {
		case !ok:
			ops = append(ops, frame.Op{Action: "create", Path: []byte(path), CID: cidIn(now, path)})
		case text != now[path]:
			ops = append(ops, frame.Op{Action: "update", Path: []byte(path), CID: cidIn(now, path), Prev: cidIn(was, path)})
		}
	}
	return ops
}

// lie changes, leaves out or adds an operation.
func lie(rng *rand.Rand, ops []frame.Op, paths, texts []string) []frame.Op {
	ops = slices.Clone(ops)
	cid := func() repo.CID { return repo.HashCID(proofRecord(texts[rng.IntN(len(texts))])) }
	if len(ops) == 0 || rng.IntN(2) == 0 {
		op := frame.Op{Action: []string{"create", "update", "delete"}[rng.IntN(3)], Path: []byte(paths[rng.IntN(len(paths))])}
		if op.Action != "delete" {
			op.CID = cid()
		}
		if rng.IntN(2) == 0 {
			op.Prev = cid()
		}
		return slices.Insert(ops, rng.IntN(len(ops)+1), op)
	}
	op := &ops[rng.IntN(len(ops))]
	switch rng.IntN(4) {
	case 0:
		op.Prev = repo.CID{}
	case 1:
		op.Prev = cid()
	case 2:
		again := *op
		return slices.Insert(ops, rng.IntN(len(ops)+1), again)
	case 3:
		return slices.DeleteFunc(ops, func(o frame.Op) bool { return fmt.Sprint(o) == fmt.Sprint(*op) })
	}
	return ops
}
