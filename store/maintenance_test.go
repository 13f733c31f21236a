package store_test

import (
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// TestMaintenance: the state of each operation is that of the last write, also after a restart.
func TestMaintenance(t *testing.T) {
	t.Parallel()
	o := store.Options{FS: vfs.NewMem(), Dir: "db"}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	gc := store.Maintenance{Name: "gc", Began: true, Needs: 1, Behind: []string{"prune"}, Next: true, Waiting: []string{"a", "b"},
		Ended: 2, Succeeded: 1, Error: "none", Failures: 4, Due: 3}
	prune := store.Maintenance{Name: "prune", Ended: 1, Due: 4}
	write(t, s, func(b *store.Batch) { b.PutMaintenance(store.Maintenance{Name: "gc", Failures: 9}) })
	write(t, s, func(b *store.Batch) { b.PutMaintenance(prune); b.PutMaintenance(gc) })
	is := func(s *store.Store) {
		t.Helper()
		all, err := s.Maintenance()
		if diff := cmp.Diff([]store.Maintenance{gc, prune}, all); diff != "" || err != nil {
			t.Error(err, diff)
		}
	}
	is(s)
	b := s.NewBatch()
	b.PutMaintenance(store.Maintenance{})
	if err := b.CommitSync(); err == nil {
		t.Error("a state without a name is written")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	is(storetest.Open(t, o))
}
