package store_test

import (
	"errors"
	"strings"
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
	for _, wrong := range []store.Maintenance{{}, {Name: "gc", Began: true, Needs: -1}, {Name: "gc", Failures: -1}} {
		b := s.NewBatch()
		b.PutMaintenance(wrong)
		if err := b.CommitSync(); err == nil {
			t.Errorf("the state %+v is written", wrong)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	is(storetest.Open(t, o))
}

// TestMaintenanceDamaged: a state with a negative number is not believed.
func TestMaintenanceDamaged(t *testing.T) {
	t.Parallel()
	for _, row := range []store.MaintenanceRow{{Began: true, Needs: -1}, {Failures: -1}} {
		s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "db"})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.SetRaw(s, store.MaintenanceKey(nil, "gc"), encoded(t, row)); err != nil {
			t.Fatal(err)
		}
		if all, err := s.Maintenance(); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), `"gc"`) {
			t.Errorf("%+v is read as %+v, %v", row, all, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
