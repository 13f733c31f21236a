package store_test

import (
	"errors"
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestLostEvent: a row of the log that is not there is corruption wherever it stood; a reader must
// neither pass over it nor ask for it for ever.
func TestLostEvent(t *testing.T) {
	t.Parallel()
	for lost := range uint64(3) {
		s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "db"})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			newWorld().importRepo(t, s, storetest.DID(n+1), storetest.Records{"app.test.a/1": storetest.Text("x")})
			if err := s.FlushImports(); err != nil {
				t.Fatal(err)
			}
		}
		if err := store.DeleteRaw(s, store.EventKey(nil, lost+1)); err != nil {
			t.Fatal(err)
		}
		given := uint64(0)
		next, err := s.ReadLog(t.Context(), 0, 100, func(*store.Event) error { given++; return nil })
		if given != lost || next != lost+1 || !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("event %d lost: %d given, next %d, %v", lost+1, given, next, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
