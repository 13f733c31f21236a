package firehose_test

import (
	"errors"
	"testing"

	"cistern/store"
	"cistern/store/storetest"
)

// TestTip: a connection without a cursor has the source's listing compared with what we hold, for
// nothing tells of what passed before it; but not while no copy has been begun, for fetches read
// all that was there before.
func TestTip(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		state store.State // of the one repository, 0 for none
		fetch bool        // its copy was begun
		lives int         // connections
		want  bool
	}{
		"an empty store has nothing to compare":                {0, false, 2, false},
		"fetches wait for the first connection":                {store.StatePending, false, 1, false},
		"accounts may have come between the two connections":   {store.StatePending, false, 2, true},
		"a complete copy, made by an earlier process":          {store.StateSynced, false, 1, true},
		"a complete copy, with commits to apply":               {store.StateDraining, true, 1, true},
		"a copy that failed before, and may be older":          {store.StateResync, false, 1, true},
		"the first copy is on its way":                         {store.StatePending, true, 1, true},
		"the first copy was begun between the two connections": {store.StatePending, true, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newServer(t, func(n int, cl *client) {
				if n == c.lives-1 {
					cl.stay()
				}
			})
			s := newStage(t, h.source)
			if c.state != 0 {
				s.put("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", c.state, c.fetch)
			}
			if s.r.Tried() {
				t.Error("tried before it ran")
			}
			s.run()
			s.until("the connections", func() bool { return len(h.asked()) == c.lives && s.status(h.url).Running && s.r.Tried() })
			if c.want {
				s.until("a listing to be compared", func() bool { return s.reconciling(h.url) })
			} else if s.reconciling(h.url) {
				t.Error("a listing is to be compared")
			}
		})
	}
}

// put has the store hold a repository in a state, and a fetch of it under way.
func (s *stage) put(did string, state store.State, fetch bool) {
	s.t.Helper()
	update := func(change func(b *store.Batch, r *store.Repo)) (row store.Repo) {
		s.t.Helper()
		wait, err := s.store.UpdateRepo(did, func(b *store.Batch, r *store.Repo) error {
			change(b, r)
			b.PutRepo(r)
			row = *r
			return nil
		})
		if err == nil {
			err = wait()
		}
		if err != nil {
			s.t.Fatal(err)
		}
		return row
	}
	row := update(func(b *store.Batch, r *store.Repo) { b.Track(r, store.ByOperator, store.PriorityOperator) })
	if state == store.StateSynced || state == store.StateDraining {
		im := storetest.Records{}.Import(row, storetest.Rev(1))
		im.Done = func(_ store.Repo, err error) {
			if err != nil {
				s.t.Error(err)
			}
		}
		if err := errors.Join(s.store.Import(s.t.Context(), im), s.store.FlushImports()); err != nil {
			s.t.Fatal(err)
		}
	}
	update(func(b *store.Batch, r *store.Repo) {
		if fetch {
			s.store.BeginFetch(did)
		}
		if state == store.StateDraining {
			b.Enqueue(r, store.PriorityRetry)
			if !b.Buffer(r, "3kaaaaaaaaa22", []byte("a commit")) {
				s.t.Error("not buffered")
			}
			b.Complete(r)
		} else if state != r.State {
			storetest.Reach(b, r, state)
		}
	})
}
