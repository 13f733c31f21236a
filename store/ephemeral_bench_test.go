package store_test

import (
	"strconv"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"
)

// BenchmarkEphemeral imports 500,000 records, applies commits, lets the retention pass all events,
// and compacts: the size of the tables before and after, the CPU per million events, compactions
// that follow included, and the time of pruning and collecting garbage. In the case "one" the records are of one repository. In the cases "active" each
// repository has committed since: nothing goes whole.
func BenchmarkEphemeral(b *testing.B) {
	for _, row := range []struct {
		name      string
		ephemeral bool
		size      int // records of a repository
		active    bool
	}{
		{"records", false, 1000, false}, {"events-only", true, 1000, false},
		{"records-small", false, 50, false}, {"events-only-small", true, 50, false},
		{"records-one", false, 500_000, false}, {"events-only-one", true, 500_000, false},
		{"events-only-active", true, 1000, true}, {"events-only-one-active", true, 500_000, true},
	} {
		b.Run(row.name, func(b *testing.B) {
			for range b.N {
				benchEphemeral(b, row.ephemeral, row.size, row.active)
			}
		})
	}
}

func benchEphemeral(b *testing.B, ephemeral bool, size int, active bool) {
	const records = 500_000
	s, err := store.Open(store.Options{Dir: b.TempDir(), Ephemeral: ephemeral, Retention: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // of a benchmark
	w := newBenchWorld(b)
	for n := range records / size {
		benchAppend(b, s, storetest.DID(n+1), w.repository(size))
	}
	if err := s.FlushImports(); err != nil {
		b.Fatal(err)
	}
	update := func(n int, text string) {
		did, body := storetest.DID(n+1), storetest.Text(text)
		edit(b, s, did, func(b *store.Batch, r *store.Repo) error {
			return b.Apply(r, true, r.Rev, []store.Op{{Path: []byte("app.bsky.feed.c0/" + strconv.Itoa(n)),
				CID: repo.HashCID(body), Record: body}})
		})
	}
	for n := range min(records/size, 500) {
		update(n, "goes")
	}
	to := s.Head() + 1
	for n := 0; active && n < records/size; n++ {
		update(n, "stays")
	}
	tables := func() float64 {
		if err := store.Compact(s); err != nil { // flushes
			b.Fatal(err)
		}
		quiet(s, 5, 50*time.Millisecond)
		sizes, err := s.Sizes()
		if err != nil {
			b.Fatal(err)
		}
		return float64(sizes["records"]+sizes["blocks"]+sizes["refs"]+sizes["listings"]+
			sizes["events"]+sizes["postings"]+sizes["repos"]+sizes["collections"]) / 1e6
	}
	before := tables()
	start, began, pages := cpuSeconds(), time.Now(), 0
	for more := true; more; pages++ {
		if more, err = store.PrunePage(s, to); err != nil {
			b.Fatal(err)
		}
	}
	took := time.Since(began)
	settled := tables()
	cpu := cpuSeconds() - start
	err = s.Compact(b.Context(), func(string, int, int) {})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(cpu/float64(records)*1e6, "prune-cpu-s/Mevent")
	b.ReportMetric(took.Seconds()/float64(records)*1e6, "prune-s/Mevent")
	b.ReportMetric(float64(pages), "pages")
	b.ReportMetric(before, "before-MB")
	b.ReportMetric(settled, "after-MB")
	b.ReportMetric(tables(), "compacted-MB")
	b.ReportMetric(float64(s.Counts()["records"]), "records-left")
	b.ReportMetric(0, "ns/op")
}
