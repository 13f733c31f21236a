package dump_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"cistern/dump"
	"cistern/ingest/repo"
	"cistern/objects"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/fxamacker/cbor/v2"
)

// benchStore makes a store of posts and likes, 1,000 in a repository: words, a timestamp, and in most
// a strong reference whose CID does not compress. CISTERN_BENCH_RECORDS sets the number of records
// (default 200,000).
func benchStore(b *testing.B) (s *store.Store, records int) {
	b.Helper()
	records = 200_000
	if v := os.Getenv("CISTERN_BENCH_RECORDS"); v != "" {
		var err error
		if records, err = strconv.Atoi(v); err != nil {
			b.Fatal(err)
		}
	}
	s, err := store.Open(store.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	enc, err := cbor.CanonicalEncOptions().EncMode()
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var words []string
	for range 3000 {
		w := make([]byte, 2+rng.IntN(8))
		for i := range w {
			w[i] = "etaoinshrdlucmfwypvbgkjqxz"[min(rng.IntN(26), rng.IntN(26))]
		}
		words = append(words, string(w))
	}
	record := func() []byte {
		var text []byte
		for range 4 + rng.IntN(30) {
			text = append(append(text, words[min(rng.IntN(3000), rng.IntN(3000))]...), ' ')
		}
		at := time.UnixMilli(1_767_225_600_000 + rng.Int64N(30_000_000_000)).UTC()
		m := map[string]any{"$type": "app.bsky.feed.post", "langs": []string{"en"}, "text": string(text),
			"createdAt": at.Format("2006-01-02T15:04:05.000Z")}
		if rng.IntN(10) < 6 {
			var c repo.CID
			for i := range c {
				c[i] = byte(rng.IntN(256))
			}
			m["subject"] = map[string]any{"cid": c.String(), "uri": "at://" + storetest.DID(rng.IntN(1<<40)) +
				"/app.bsky.feed.post/" + storetest.Rev(rng.IntN(1<<40))}
		}
		body, err := enc.Marshal(m)
		if err != nil {
			b.Fatal(err)
		}
		return body
	}
	pool := make([][]byte, 20_000)
	for i := range pool {
		pool[i] = record()
	}
	const each = 1000
	for n := range records / each {
		m := storetest.Records{}
		at := rng.IntN(1 << 40)
		for i := range each {
			at += 1 + rng.IntN(1<<20)
			m[fmt.Sprintf("app.bsky.feed.c%d/%s", i*4/each, storetest.Rev(at))] = pool[rng.IntN(len(pool))]
		}
		importRepo(b, s, storetest.DID(n+1), storetest.Rev(1<<40+n), m)
	}
	if err := s.FlushImports(); err != nil {
		b.Fatal(err)
	}
	return s, records
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// peak is the most memory of the heap that was seen in use.
type peak struct {
	pages int
	bytes uint64
}

func (p *peak) look(int) {
	if p.pages++; p.pages%64 == 0 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		p.bytes = max(p.bytes, m.HeapInuse)
	}
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// BenchmarkWriteFile writes all records of a store as one file, to nothing.
func BenchmarkWriteFile(b *testing.B) {
	s, records := benchStore(b)
	for _, row := range []struct {
		format string
		coding dump.Coding
	}{{"ndjson", dump.Plain}, {"ndjson", dump.Gzip}, {"ndjson", dump.Zstd}, {"parquet", dump.Plain}} {
		b.Run(row.format+"/"+cmp.Or(string(row.coding), "plain"), func(b *testing.B) {
			b.ReportAllocs()
			cpu, written, heap := cpuSeconds(), int64(0), peak{}
			for b.Loop() {
				var c counter
				w, err := dump.Compress(&c, row.coding)
				if err != nil {
					b.Fatal(err)
				}
				out, err := dump.Begin(s, events(b, nil, nil)).WriteFile(b.Context(), w, format(b, row.format),
					dump.FileOptions{}, heap.look)
				if err != nil || out.Rows != int64(records) {
					b.Fatal(out, err)
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
				written = c.n
			}
			n := float64(records) * float64(b.N)
			b.ReportMetric(n/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric((cpuSeconds()-cpu)/n*1e6, "cpu-µs/record")
			b.ReportMetric(float64(written)/float64(records), "bytes/record")
			b.ReportMetric(float64(heap.bytes)/1e6, "MB-heap")
		})
	}
}

// BenchmarkRun exports all records of a store into a directory, with parts, sums and the manifest.
func BenchmarkRun(b *testing.B) {
	s, records := benchStore(b)
	for _, name := range formats {
		b.Run(name, func(b *testing.B) {
			cpu := cpuSeconds()
			for b.Loop() {
				m, err := dump.Run(b.Context(), dump.Options{Source: s, Format: format(b, name),
					Destination: objects.NewDirectory(b.TempDir())})
				if err != nil || m.Rows != int64(records) {
					b.Fatal(m, err)
				}
			}
			n := float64(records) * float64(b.N)
			b.ReportMetric(n/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric((cpuSeconds()-cpu)/n*1e6, "cpu-µs/record")
		})
	}
}
