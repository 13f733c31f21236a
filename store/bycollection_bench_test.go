package store_test

import (
	"fmt"
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkByCollection reads the first 100 records of a collection that 100, 1,000 or 10,000
// repositories have, by repository and by time, and totals.
func BenchmarkByCollection(b *testing.B) {
	for _, repos := range []int{100, 1000, 10_000} {
		s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "db"})
		if err != nil {
			b.Fatal(err)
		}
		w := newBenchWorld(b)
		for n := range repos {
			benchAppend(b, s, storetest.DID(1+n), w.repository(200))
		}
		if err := s.FlushImports(); err != nil {
			b.Fatal(err)
		}
		const collection = "app.bsky.feed.c1"
		n := 0
		some := func(*store.Event) bool { n++; return n%100 != 0 }
		for name, read := range map[string]func() error{
			"by repository": func() error {
				_, _, err := s.RecordsByRepo(b.Context(), collection, store.RecordPlace{}, 10_000, some)
				return err
			},
			"by time": func() error {
				_, _, err := s.RecordsByTime(b.Context(), store.TimeOrder{Collection: collection, Limit: 100}, some)
				return err
			},
			"total of 30 days": func() error { _, _, err := s.CollectionTotal(collection, 30); return err },
			"all totals":       func() error { _, err := s.CollectionTotals("", "", 100); return err },
		} {
			b.Run(fmt.Sprintf("%s/repositories=%d", name, repos), func(b *testing.B) {
				start := cpuSeconds()
				for b.Loop() {
					if err := read(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric((cpuSeconds()-start)/float64(b.N)*1e6, "cpu-us/page")
			})
		}
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}
}
