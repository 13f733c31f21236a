package store_test

import (
	"fmt"
	"testing"

	"cistern/store"
	"cistern/store/storetest"
)

// BenchmarkCheck checks stores of 100,000 records on disk, with a log that lists all of them and has
// commits. For each part it reports the time of the processors over that which its cost says, and for the whole the
// largest difference between the share of the progress and that of the time that has passed.
func BenchmarkCheck(b *testing.B) {
	for _, row := range []struct{ repos, records, commits int }{{200, 500, 1000}, {5000, 20, 20_000}} {
		b.Run(fmt.Sprintf("repos=%d,commits=%d", row.repos, row.commits), func(b *testing.B) {
			dir := b.TempDir()
			s, err := store.Open(store.Options{Dir: dir})
			if err != nil {
				b.Fatal(err)
			}
			w := newBenchWorld(b)
			for n := range row.repos {
				benchAppend(b, s, storetest.DID(1+n), w.repository(row.records))
			}
			if err := s.FlushImports(); err != nil {
				b.Fatal(err)
			}
			for n := range row.commits {
				benchCommit(b, s, storetest.DID(1+w.rng.IntN(row.repos)), w.record(), storetest.Rev(1<<45+n))
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			if s, err = store.Open(store.Options{Dir: dir, ReadOnly: true}); err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			b.ResetTimer()
			for range b.N {
				benchCheck(b, s)
			}
		})
	}
}

func benchCheck(b *testing.B, s *store.Store) {
	type moment struct{ at, share float64 }
	var moments []moment
	var parts []string
	took, rows := map[string]float64{}, map[string]int64{}
	begun := cpuSeconds()
	last := begun
	var at store.CheckProgress
	_, err := s.CheckWithProgress(b.Context(), func(string) {}, func(p store.CheckProgress) {
		now := cpuSeconds()
		took[at.Part] += now - last
		rows[at.Part] += p.Done - at.Done
		if p.Part != at.Part {
			parts = append(parts, p.Part)
		}
		last, at = now, p
		moments = append(moments, moment{now - begun, float64(p.Done) / float64(p.Total)})
	})
	if err != nil {
		b.Fatal(err)
	}
	total := cpuSeconds() - begun
	worst := 0.0
	for _, m := range moments {
		worst = max(worst, max(m.share-m.at/total, m.at/total-m.share))
	}
	for _, part := range parts {
		// Done is in nanoseconds as they were measured before.
		b.ReportMetric(took[part]*1e9/max(1, float64(rows[part])), part+"-time/told")
	}
	b.ReportMetric(100*worst, "worst-%")
}
