package ingest_test

import (
	"bytes"
	"slices"
	"testing"

	"cistern/ingest"
	"cistern/ingest/frame"
	"cistern/ingest/repo"
)

// write puts a record into what is held, and gives its CID and that of the record before.
func (m *proofMaker) write(path, text string) (was, now repo.CID) {
	was = repo.HashCID(proofRecord(m.held[path]))
	m.held[path] = text
	return was, repo.HashCID(proofRecord(text))
}

// fill gives a message the blocks of the tree that is held, and some records.
func (m *proofMaker) fill(f *frame.Frame, records ...string) {
	data, nodes := m.tree()
	blocks := append([][]byte{m.sign(f.DID, f.Rev, data)}, nodes...)
	for _, text := range records {
		blocks = append(blocks, proofRecord(text))
	}
	f.Commit, f.Blocks = repo.HashCID(blocks[0]), proofCAR(blocks...)
}

// TestProofNet has several operations on one path, and operations that change nothing, as the
// reference PDS emits them: each names the record before the commit as its prev.
func TestProofNet(t *testing.T) {
	t.Parallel()
	const other = "app.bsky.feed.like/3l00007"
	for _, c := range []struct {
		name string
		ops  func(m *proofMaker) []frame.Op
		want []string // paths of what is written
	}{
		{"create and delete", func(*proofMaker) []frame.Op {
			return []frame.Op{{Action: "create", Path: []byte("a/b"), CID: repo.HashCID(proofRecord("gone"))}, {Action: "delete", Path: []byte("a/b")}}
		}, nil},
		{"delete and create", func(m *proofMaker) []frame.Op {
			was, now := m.write(other, "again")
			return []frame.Op{{Action: "delete", Path: []byte(other), Prev: was}, {Action: "create", Path: []byte(other), CID: now, Prev: was}}
		}, []string{other}},
		{"delete and create the same", func(m *proofMaker) []frame.Op {
			was := repo.HashCID(proofRecord(m.held[other]))
			return []frame.Op{{Action: "delete", Path: []byte(other), Prev: was}, {Action: "create", Path: []byte(other), CID: was, Prev: was}}
		}, nil},
		{"update twice", func(m *proofMaker) []frame.Op {
			was, now := m.write(other, "second")
			first := repo.HashCID(proofRecord("first"))
			return []frame.Op{{Action: "update", Path: []byte(other), CID: first, Prev: was}, {Action: "update", Path: []byte(other), CID: now, Prev: was}}
		}, []string{other}},
		{"update twice, each stating the one before", func(m *proofMaker) []frame.Op {
			was, now := m.write(other, "second")
			first := repo.HashCID(proofRecord("first"))
			return []frame.Op{{Action: "update", Path: []byte(other), CID: first, Prev: was}, {Action: "update", Path: []byte(other), CID: now, Prev: first}}
		}, []string{other}},
		{"update there and back", func(m *proofMaker) []frame.Op {
			was, first := repo.HashCID(proofRecord(m.held[other])), repo.HashCID(proofRecord("first"))
			return []frame.Op{{Action: "update", Path: []byte(other), CID: first, Prev: was}, {Action: "update", Path: []byte(other), CID: was, Prev: was}}
		}, nil},
		{"update of nothing, without its record", func(m *proofMaker) []frame.Op {
			was := repo.HashCID(proofRecord(m.held[other]))
			return []frame.Op{{Action: "update", Path: []byte(other), CID: was, Prev: was}}
		}, nil},
		{"update of what the tree does not have to what it does not have", func(*proofMaker) []frame.Op {
			cid := repo.HashCID(proofRecord("nowhere"))
			return []frame.Op{{Action: "update", Path: []byte("a/b"), CID: cid, Prev: cid}}
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newProofMaker(t, 30)
			before, _ := m.tree()
			ops := c.ops(m)
			// one of the ordinary kind beside them
			f, _ := m.commit(map[string]string{proofNew: "created"})
			var records []string
			for i := range ops {
				if i%2 == 0 {
					f.Ops = append([]frame.Op{ops[i]}, f.Ops...)
				} else {
					f.Ops = append(f.Ops, ops[i])
				}
			}
			for _, path := range append(c.want, proofNew) {
				records = append(records, m.held[path])
			}
			m.fill(f, records...)
			var p ingest.Proof
			if err := p.Read(f, proofNow); err != nil || !p.Whole() {
				t.Fatal(p.Whole(), err)
			}
			if got, err := p.Before(proofNothing); err != nil || got != before {
				t.Errorf("before: %s, want %s: %v", got, before, err)
			}
			var paths []string
			for _, op := range p.Writes(nil) {
				paths = append(paths, string(op.Path))
				if !bytes.Equal(op.Record, proofRecord(m.held[string(op.Path)])) {
					t.Errorf("%s: record %q", op.Path, op.Record)
				}
			}
			if want := append(c.want, proofNew); !slices.Equal(paths, want) {
				t.Errorf("writes %q, want %q", paths, want)
			}
		})
	}
}

// TestProofWithoutNodes: a commit that changes nothing brings no tree nodes, and the tree before it
// is its own.
func TestProofWithoutNodes(t *testing.T) {
	t.Parallel()
	m := newProofMaker(t, 30)
	data, _ := m.tree()
	was := repo.HashCID(proofRecord(m.held[proofOld]))
	for name, ops := range map[string][]frame.Op{
		"no operations":                 nil,
		"a delete of what is not there": {{Action: "delete", Path: []byte(proofNew)}},
		"an update to what is there":    {{Action: "update", Path: []byte(proofOld), CID: was, Prev: was}},
		"create and delete": {
			{Action: "create", Path: []byte(proofNew), CID: was}, {Action: "delete", Path: []byte(proofNew)},
		},
	} {
		f, _ := m.commit(nil)
		f.Ops = ops
		root := m.sign(f.DID, f.Rev, data)
		f.Commit, f.Blocks = repo.HashCID(root), proofCAR(root)
		var p ingest.Proof
		if err := p.Read(f, proofNow); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := p.Before(func([]byte) (repo.CID, error) { return repo.CID{}, nil }); err != nil || got != data {
			t.Errorf("%s: before %s, want %s: %v", name, got, data, err)
		}
	}
}
