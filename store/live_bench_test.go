package store_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const liveRepos = 1000

// liveStore holds 1,000 repositories of 20 records.
func liveStore(b *testing.B) *store.Store {
	s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "db"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() }) //nolint:errcheck // of a benchmark
	w := newBenchWorld(b)
	for n := range liveRepos {
		benchAppend(b, s, storetest.DID(1+n), w.repository(20))
	}
	if err := s.FlushImports(); err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkLive is the store's share of following a firehose: for each commit the row is read
// twice, as the ingest does, 1.2 ops are applied and the row is written; batches carry a cursor,
// and their waits are called some batches later. The file system is in memory: no sync is counted.
func BenchmarkLive(b *testing.B) {
	for _, size := range []int{1, 8, 32} {
		b.Run(fmt.Sprint("batch=", size), func(b *testing.B) { benchLive(b, size) })
	}
}

func benchLive(b *testing.B, size int) {
	s := liveStore(b)
	rng := rand.New(rand.NewPCG(3, 4))
	var waits []func() error
	waitFor := func(left int) {
		for len(waits) > left {
			if err := waits[0](); err != nil {
				b.Fatal(err)
			}
			waits = waits[1:]
		}
	}
	body := make([]byte, 300)
	commit := storetest.Commit(storetest.DID(1), storetest.Rev(1), repo.CID{})
	var ops []store.Op
	var unlocks []func()
	b.ReportAllocs()
	b.ResetTimer()
	start := cpuSeconds()
	for n := 0; n < b.N; {
		batch := s.NewBatch()
		first := rng.IntN(liveRepos - size)
		for i := 0; i < size && n < b.N; i++ {
			did := storetest.DID(1 + first + i)
			if _, err := s.Repo(did); err != nil {
				b.Fatal(err)
			}
			unlocks = append(unlocks, s.Lock(did))
			r, err := s.Repo(did)
			if err != nil {
				b.Fatal(err)
			}
			rev := storetest.Rev(1<<45 + n)
			ops = ops[:0]
			for k := range 1 + n%5/4 {
				binary.LittleEndian.PutUint64(body, uint64(n*2+k))
				path := []byte("app.bsky.feed.c" + string('0'+rune(rng.IntN(4))) + "/" + storetest.Rev(1<<40+2*n+k))
				ops = append(ops, store.Op{Path: path, CID: repo.CID(body[:32]), Record: body, New: true})
			}
			if err := batch.Apply(&r, true, rev, ops); err != nil {
				b.Fatal(err)
			}
			r.Rev, r.Commit = rev, commit
			batch.ForgeRepo(&r)
			n++
		}
		seq := int64(n)
		batch.SetCursor("wss://relay.test", func() int64 { return seq })
		wait, err := batch.Commit()
		if err != nil {
			b.Fatal(err)
		}
		for _, unlock := range unlocks {
			unlock()
		}
		unlocks = unlocks[:0]
		waits = append(waits, wait)
		waitFor(16)
	}
	waitFor(0)
	b.ReportMetric((cpuSeconds()-start)/float64(b.N)*1e6, "cpu-us/commit")
}

// BenchmarkRepo reads a row.
func BenchmarkRepo(b *testing.B) {
	s := liveStore(b)
	b.ReportAllocs()
	b.ResetTimer()
	for n := range b.N {
		if _, err := s.Repo(storetest.DID(1 + n%liveRepos)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRecord reads a record.
func BenchmarkRecord(b *testing.B) {
	s := liveStore(b)
	var all []store.Record
	var repos []store.Repo
	for n := range liveRepos {
		row, err := s.Repo(storetest.DID(1 + n))
		if err != nil {
			b.Fatal(err)
		}
		some := storetest.List(b, s, &row, "app.bsky.feed.c1", "", 1, false)
		if len(some) != 1 {
			b.Fatal(some)
		}
		all, repos = append(all, some[0]), append(repos, row)
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		r := all[n%liveRepos]
		if _, err := s.Record(&repos[n%liveRepos], r.Collection, r.Rkey); err != nil {
			b.Fatal(err)
		}
	}
}
