package ingest_test

import (
	"testing"

	"cistern/store"
)

// TestTip: a connection without a cursor has the source's listing compared with what we hold, for nothing tells of what
// passed before it; but not while no copy has been begun, for fetches read all that was there before.
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
			h := newFirehose(t, func(n int, cl *client) {
				if n == c.lives-1 {
					cl.stay()
				}
			})
			s := newStage(t, h.source)
			if c.state != 0 {
				b, row := s.store.NewBatch(), &store.Repo{DID: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", State: c.state, Tracked: store.ByOperator}
				if c.fetch {
					s.store.BeginFetch(row.DID)
				}
				if c.state == store.StateDraining && !b.Buffer(row, "3kaaaaaaaaa22", []byte("a commit")) {
					t.Fatal("not buffered")
				}
				b.PutRepo(row)
				if err := b.CommitSync(); err != nil {
					t.Fatal(err)
				}
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
