package refilter_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"cistern/backfill/refilter"
	"cistern/filter"
	"cistern/gate"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// stage is a store and a Runner that is not running: tests take its steps.
type stage struct {
	t     *testing.T
	store *store.Store
	run   *refilter.Runner
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s, err := store.Open(store.Options{Dir: "db", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		storetest.Check(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	r, err := refilter.New(refilter.Options{
		Store: s, Gate: new(gate.Gate),
		WorksBefore: func(uint32) bool { return false },
		Queued:      func(uint32) {}, Due: func(int64) {},
		DeadDelay: func() time.Duration { return time.Hour },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &stage{t: t, store: s, run: r}
}

func (s *stage) filter(c filter.Config) {
	s.t.Helper()
	if _, err := s.store.SetFilter(c); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) row(did string) store.Repo {
	s.t.Helper()
	r, err := s.store.Repo(did)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// change changes and writes a row.
func (s *stage) change(did string, change func(b *store.Batch, r *store.Repo)) {
	s.t.Helper()
	wait, err := s.store.UpdateRepo(did, func(b *store.Batch, r *store.Repo) error {
		change(b, r)
		b.PutRepo(r)
		return nil
	})
	if err == nil {
		err = wait()
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// hold follows a repository and stores a copy of it, by the filter in force.
func (s *stage) hold(did string, records storetest.Records) {
	s.t.Helper()
	s.change(did, func(b *store.Batch, r *store.Repo) { b.Track(r, store.ByOperator, store.PriorityOperator) })
	im := records.Import(s.row(did), storetest.Rev(1))
	im.Filter = s.store.Filter().Selection
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			s.t.Error(err)
		}
	}
	if err := errors.Join(s.store.Import(s.t.Context(), im), s.store.FlushImports()); err != nil {
		s.t.Fatal(err)
	}
}

// many are n records of one collection.
func many(n int) storetest.Records {
	m := storetest.Records{}
	for i := range n {
		m[fmt.Sprintf("%s/%06d", posts, i)] = storetest.Text(fmt.Sprint("text ", i))
	}
	return m
}
