package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"
)

// TestCompact: afterwards no range tombstone is left of a repository that was wiped, and the other
// repository is as it was. A context that ended stops it.
func TestCompact(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{SmallBytes: 1})
	dids := importMany(t, s, 3)
	edit(t, s, dids[0], func(b *store.Batch, r *store.Repo) error { r.State = store.StateGone; return b.Wipe(r) })
	if err := s.CollectGarbage(t.Context(), store.NoProgress); err != nil {
		t.Fatal(err)
	}
	if n, err := store.RangeTombstones(s); n == 0 || err != nil {
		t.Fatalf("%d range tombstones to begin with, %v", n, err)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Compact(ended, func(string, int, int) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context ended: %v", err)
	}
	spaces := map[string]bool{}
	if err := s.Compact(t.Context(), func(space string, done, total int) {
		if done != len(spaces) || total != len(store.SpaceNames) {
			t.Errorf("%s is %d of %d", space, done, total)
		}
		spaces[space] = true
	}); err != nil {
		t.Fatal(err)
	}
	if !spaces["records"] {
		t.Errorf("compacted %v", spaces)
	}
	// The engine may have moved one to the bottom before, where it removes it by itself.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		n, err := store.RangeTombstones(s)
		if n == 0 && err == nil {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%d range tombstones are left, %v", n, err)
		}
	}
	if got := bulkRows(t, s); got != 6 {
		t.Errorf("%d rows, want those of two repositories", got)
	}
}
