package store_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/fxamacker/cbor/v2"
)

// benchWorld makes repositories whose records look like posts and likes: words, a TID, a
// timestamp, and in most a strong reference whose CID does not compress.
type benchWorld struct {
	rng   *rand.Rand
	enc   cbor.EncMode
	words []string
	pool  []benchLeaf // records are drawn from it, as making them costs more than storing them
}

func newBenchWorld(b testing.TB) *benchWorld {
	enc, err := cbor.CanonicalEncOptions().EncMode()
	if err != nil {
		b.Fatal(err)
	}
	w := &benchWorld{rng: rand.New(rand.NewPCG(1, 2)), enc: enc}
	for range 3000 {
		word := make([]byte, 2+w.rng.IntN(8))
		for i := range word {
			word[i] = "etaoinshrdlucmfwypvbgkjqxz"[min(w.rng.IntN(26), w.rng.IntN(26))]
		}
		w.words = append(w.words, string(word))
	}
	for range 100_000 {
		r := w.record()
		w.pool = append(w.pool, benchLeaf{cid: repo.HashCID(r), record: r})
	}
	return w
}

func (w *benchWorld) record() []byte {
	var text []byte
	for range 4 + w.rng.IntN(30) {
		text = append(append(text, w.words[min(w.rng.IntN(3000), w.rng.IntN(3000))]...), ' ')
	}
	m := map[string]any{"$type": "app.bsky.feed.post", "langs": []string{"en"}, "text": string(text),
		"createdAt": fmt.Sprintf("2026-0%d-1%dT0%d:%d:17.%dZ", 1+w.rng.IntN(9), w.rng.IntN(9), w.rng.IntN(9), 10+w.rng.IntN(49), w.rng.IntN(999))}
	if w.rng.IntN(10) < 6 {
		var digest [32]byte
		for i := 0; i < 32; i += 8 {
			binary.LittleEndian.PutUint64(digest[i:], w.rng.Uint64())
		}
		m["subject"] = map[string]any{"cid": repo.CID(digest).String(), "uri": "at://" + storetest.DID(w.rng.IntN(1<<40)) + "/app.bsky.feed.post/" + storetest.Rev(w.rng.IntN(1<<40))}
	}
	v, err := w.enc.Marshal(m)
	if err != nil {
		panic(err)
	}
	return v
}

type benchLeaf struct {
	path   []byte
	cid    repo.CID
	record []byte
}

// repository makes n records in path order. Paths rise within a collection.
func (w *benchWorld) repository(n int) []benchLeaf {
	leaves := make([]benchLeaf, n)
	at, from := w.rng.IntN(1<<40), w.rng.IntN(len(w.pool))
	for i := range leaves {
		at += 1 + w.rng.IntN(1<<20)
		leaves[i] = w.pool[(from+i)%len(w.pool)]
		leaves[i].path = []byte("app.bsky.feed.c" + strconv.Itoa(i*4/n) + "/" + storetest.Rev(at))
	}
	return leaves
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// BenchmarkImport writes first copies with live commits to earlier repositories in between,
// until compaction has settled: CPU per million records of the store alone (the making of
// the data is not counted), write amplification (table bytes written by ingesting, flushing
// and compacting, over those ingested and flushed), and bytes on disk. CISTERN_BENCH_MB sets
// the size (default 400).
func BenchmarkImport(b *testing.B) {
	minlz := func() *sstable.CompressionProfile { return sstable.MinLZCompression }
	zstd := func() *sstable.CompressionProfile { return sstable.ZstdCompression }
	balanced := func() *sstable.CompressionProfile { return sstable.BalancedCompression }
	bottom := func(c func() *sstable.CompressionProfile, block int) func(*pebble.Options) {
		return func(p *pebble.Options) {
			p.Levels[6].Compression, p.Levels[6].BlockSize = c, block
		}
	}
	batches := store.Options{SmallBytes: 1 << 40, GroupAge: 400 * time.Millisecond}
	batches64 := batches
	batches64.MemTableBytes = 64 << 20
	for _, row := range []struct {
		name string
		opts store.Options
		tune func(*pebble.Options)
	}{
		{"chosen", store.Options{}, nil},
		{"minlz-32k", store.Options{}, bottom(minlz, 32<<10)},
		{"minlz-64k", store.Options{}, bottom(minlz, 64<<10)},
		{"zstd1-16k", store.Options{}, bottom(balanced, 16<<10)},
		{"zstd1-64k", store.Options{}, bottom(balanced, 64<<10)},
		{"zstd3-32k", store.Options{}, bottom(zstd, 32<<10)},
		{"tables-cross-keyspaces", store.Options{}, func(p *pebble.Options) { p.Experimental.SpanPolicyFunc = nil }},
		{"batches", batches, nil},
		{"batches-memtable-64m", batches64, nil},
	} {
		b.Run(row.name, func(b *testing.B) {
			for range b.N {
				benchImport(b, row.opts, row.tune)
			}
		})
	}
}

func benchImport(b *testing.B, o store.Options, tune func(*pebble.Options)) {
	size := int64(400)
	if v := os.Getenv("CISTERN_BENCH_MB"); v != "" {
		var err error
		if size, err = strconv.ParseInt(v, 10, 64); err != nil {
			b.Fatal(err)
		}
	}
	o.Dir = b.TempDir()
	s, err := store.Open(store.Tuned(o, tune))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	w := newBenchWorld(b)
	var cpu float64
	var bytes, records, live int64
	for n := 1; bytes < size<<20; n++ {
		leaves := w.repository(20 + int(w.rng.ExpFloat64()*1500))
		for _, l := range leaves {
			bytes += int64(len(l.record))
		}
		records += int64(len(leaves))
		did := storetest.DID(n)
		start := cpuSeconds()
		benchAppend(b, s, did, leaves)
		cpu += cpuSeconds() - start
		if n%20 != 0 {
			continue
		}
		for range 40 { // some thirty of a thousand writes are live
			body := w.record()
			start := cpuSeconds()
			benchCommit(b, s, storetest.DID(1+w.rng.IntN(n/2)), body, storetest.Rev(1<<45+int(live)))
			cpu += cpuSeconds() - start
			live++
		}
	}
	start := cpuSeconds()
	if err := s.FlushImports(); err != nil {
		b.Fatal(err)
	}
	quiet(s, 5, 50*time.Millisecond)
	cpu += cpuSeconds() - start
	m := store.Metrics(s)
	total := m.Total()
	b.ReportMetric(cpu/float64(records)*1e6, "cpu-s/Mrecord")
	b.ReportMetric(float64(total.TableBytesFlushed+total.TableBytesCompacted+total.TableBytesIngested)/float64(total.TableBytesFlushed+total.TableBytesIngested), "write-amp")
	b.ReportMetric(float64(m.DiskSpaceUsage())/float64(records), "disk-B/record")
	b.ReportMetric(float64(bytes)/float64(records), "raw-B/record")
	b.ReportMetric(float64(records), "records")
	b.ReportMetric(float64(live), "live-commits")
	b.ReportMetric(float64(m.Levels[6].TablesCount), "bottom-tables")
	b.ReportMetric(0, "ns/op")
}

func benchAppend(b testing.TB, s *store.Store, did string, leaves []benchLeaf) {
	rev := storetest.Rev(1)
	im := storetest.Records{}.Import(add(b, s, did), rev)
	im.Blocks = len(leaves)
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			b.Error(err)
		}
	}
	im.Walk = func(fn func(repo.Leaf) error) error {
		for i, l := range leaves {
			if err := fn(repo.Leaf{Key: l.path, CID: l.cid, Block: i, Record: l.record, Valid: true}); err != nil {
				return err
			}
		}
		return nil
	}
	if err := s.Import(b.Context(), im); err != nil {
		b.Fatal(err)
	}
}

func benchCommit(b *testing.B, s *store.Store, did string, body []byte, rev string) {
	r, err := s.Repo(did)
	if err != nil {
		b.Fatal(err)
	}
	if r.Ordinal == 0 {
		return // still in an open group
	}
	batch := s.NewBatch()
	if err := batch.Apply(&r, true, rev, []store.Op{{Path: []byte("app.bsky.feed.c0/" + rev), CID: repo.HashCID(body), Record: body}}); err != nil {
		b.Fatal(err)
	}
	r.Rev = rev
	batch.ForgeRepo(&r)
	wait, err := batch.Commit()
	if err != nil {
		b.Fatal(err)
	}
	if err := wait(); err != nil {
		b.Fatal(err)
	}
}
