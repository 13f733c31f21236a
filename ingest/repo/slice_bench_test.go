package repo_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"cistern/ingest/repo"
)

// liveCommit is a message's CAR as the network has them: 8,000 records, one of them new, its commit, about 3 kB.
func liveCommit(t testing.TB, seed uint64) (car []byte, before repo.CID, ops []repo.SliceOp) {
	t.Helper()
	w := newWorld(8000, seed)
	r := rand.New(rand.NewPCG(seed, 5))
	held := records{}
	for _, l := range w.leaves {
		held[l.key] = l.cid
	}
	record := newBlock(cborText(nil, string(bytes.Repeat([]byte("x"), 350))))
	op := repo.SliceOp{Path: []byte(fmt.Sprintf("app.bsky.feed.like/3l%011d", r.IntN(56000)*10+3)), CID: record.cid}
	c := &change{before: held, ops: []repo.SliceOp{op}}
	before, _ = held.tree()
	held[string(op.Path)] = op.CID
	data, nodes := held.tree()
	commit := newBlock(encodeCommit(testDID, testRev, data, bytes.Repeat([]byte{1}, 64)))
	blocks := append([]block{commit, record}, c.covering(nodes)...)
	return encodeCAR(commit.cid, blocks), before, c.ops
}

func readInvert(t testing.TB, s *repo.Slice, car []byte, before repo.CID, ops []repo.SliceOp) {
	if err := s.Read(car); err != nil {
		t.Fatal(err)
	}
	b, _ := s.Block(s.Root())
	data := repo.CID(b[len(b)-len("\x64prev\xf6\x67version\x03")-len(repo.CID{}):])
	if got, err := s.Invert(data, ops); err != nil || got != before {
		t.Fatal(got, before, err)
	}
}

// TestSliceAllocations is what makes 10,000 commits cost a tenth of a second.
func TestSliceAllocations(t *testing.T) {
	car, before, ops := liveCommit(t, 1)
	var s repo.Slice
	if n := testing.AllocsPerRun(100, func() { readInvert(t, &s, car, before, ops) }); n > 0 {
		t.Fatalf("%v allocations for a commit of %d bytes", n, len(car))
	}
}

func BenchmarkSlice(b *testing.B) {
	const kinds = 16
	var cars [kinds][]byte
	var befores [kinds]repo.CID
	var ops [kinds][]repo.SliceOp
	bytes := 0
	for i := range cars {
		cars[i], befores[i], ops[i] = liveCommit(b, uint64(i))
		bytes += len(cars[i])
	}
	b.SetBytes(int64(bytes / kinds))
	b.ReportAllocs()
	var s repo.Slice
	i := 0
	for b.Loop() {
		readInvert(b, &s, cars[i%kinds], befores[i%kinds], ops[i%kinds])
		i++
	}
}
