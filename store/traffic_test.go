package store_test

import (
	"testing"

	"cistern/store"
	"cistern/store/storetest"
)

func TestTraffic(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	if got, err := s.Traffic(); err != nil || got != (store.Traffic{}) {
		t.Errorf("%+v of a new store, %v", got, err)
	}
	for _, want := range []store.Traffic{{Day: 20260501, Bytes: 1 << 40}, {Day: 20260502}} {
		b := s.NewBatch()
		b.PutTraffic(want)
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Traffic(); err != nil || got != want {
			t.Errorf("%+v, want %+v (%v)", got, want, err)
		}
	}
}
