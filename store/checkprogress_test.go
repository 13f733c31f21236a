package store_test

import (
	"math/rand/v2"
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestCheckProgress: the progress of a check never goes back, ends at its total, and names each part. No
// quarter of it passes at once.
func TestCheckProgress(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(3) {
		s := storetest.Open(t, store.Options{FS: vfs.NewMem(), Dir: "db"})
		a := &storetest.Author{T: t, Store: s, Rand: rand.New(rand.NewPCG(uint64(seed), 9)), Repos: 20}
		for range 400 {
			a.Step()
		}
		var last store.CheckProgress
		parts, most := map[string]bool{}, int64(0)
		_, err := s.CheckWithProgress(t.Context(), func(d string) { t.Error(d) }, func(p store.CheckProgress) {
			if p.Done < last.Done || last.Total != 0 && p.Total != last.Total || p.Done > p.Total {
				t.Errorf("seed %d: %+v after %+v", seed, p, last)
			}
			if last.Total != 0 {
				most = max(most, p.Done-last.Done)
			}
			last = p
			parts[p.Part] = true
		})
		if err != nil {
			t.Fatal(err)
		}
		if last.Done != last.Total || last.Total == 0 || last.Repos == 0 || !parts["records"] || !parts["events"] || most > last.Total/4 {
			t.Errorf("seed %d: ends with %+v, parts %v, largest step %d", seed, last, parts, most)
		}
	}
}
