package repo_test

import (
	"bytes"
	"context"
	"testing"

	indigorepo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"

	"cistern/ingest/repo"
)

// benchRecords is the size of the large repository the project measures itself by.
const benchRecords = 250_000

// BenchmarkScanWalk reads one large repository and visits all its records. indigo's run is the
// yardstick: it reads the same bytes, without checking that all records are there. "pds" is the
// order in which the reference PDS lists blocks, "shuffled" the one that suits caches least.
func BenchmarkScanWalk(b *testing.B) {
	w := newWorld(benchRecords, 1)
	for _, order := range []struct {
		name string
		seed uint64
	}{{"pds", 0}, {"shuffled", 1}} {
		car := w.car(order.seed)
		b.Run(order.name+"/cistern", func(b *testing.B) {
			pool := repo.NewChunkPool(256 << 20)
			perRecord(b, car, func() { scanWalk(b, car, pool, 1) })
		})
		b.Run(order.name+"/cistern-twice", func(b *testing.B) {
			pool := repo.NewChunkPool(256 << 20)
			perRecord(b, car, func() { scanWalk(b, car, pool, 2) })
		})
		b.Run(order.name+"/indigo", func(b *testing.B) {
			perRecord(b, car, func() { scanWalkIndigo(b, car) })
		})
	}
}

func perRecord(b *testing.B, car []byte, run func()) {
	b.SetBytes(int64(len(car)))
	b.ReportAllocs()
	run() // fills the pool, as in a process that has been up for a while
	for b.Loop() {
		run()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRecords, "ns/record")
}

func scanWalkIndigo(b *testing.B, car []byte) {
	_, r, err := indigorepo.LoadRepoFromCAR(context.Background(), bytes.NewReader(car))
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	if err := r.MST.Walk(func([]byte, cid.Cid) error { n++; return nil }); err != nil || n != benchRecords {
		b.Fatal(n, err)
	}
}

func scanWalk(b *testing.B, car []byte, pool *repo.ChunkPool, walks int) {
	c, err := repo.ReadCAR(bytes.NewReader(car), repo.CAROptions{Chunks: pool, MemoryBytes: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	block, ok, err := c.Block(c.Root())
	if err != nil || !ok {
		b.Fatal(ok, err)
	}
	commit, err := repo.ParseCommit(block)
	if err != nil {
		b.Fatal(err)
	}
	for range walks {
		n := 0
		if err := c.Walk(commit.Data, func(repo.Leaf) error { n++; return nil }); err != nil || n != benchRecords {
			b.Fatal(n, err)
		}
	}
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
}
