package ingest_test

import (
	"errors"
	"testing"

	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// tellings are an event of each kind.
var tellings = map[string]func(t *testing.T, w *world, a *simnet.Account){
	"commit":           func(_ *testing.T, w *world, a *simnet.Account) { w.put(a, "app.test.x/one", "1") },
	"sync":             func(_ *testing.T, _ *world, a *simnet.Account) { a.Sync() },
	"identity":         func(_ *testing.T, _ *world, a *simnet.Account) { a.AnnounceIdentity() },
	"account":          func(_ *testing.T, _ *world, a *simnet.Account) { a.Announce(true, simnet.Active) },
	"inactive account": func(_ *testing.T, _ *world, a *simnet.Account) { a.SetStatus(simnet.Deactivated) },
	"deleted account":  func(_ *testing.T, _ *world, a *simnet.Account) { a.SetStatus(simnet.Deleted) },
}

// TestWhyUnknownRepositoriesAreFollowed has an unknown account told of by each kind of event.
func TestWhyUnknownRepositoriesAreFollowed(t *testing.T) {
	t.Parallel()
	type want struct {
		why   store.Why
		state store.State
	}
	pending, gone := want{store.ByNetwork, store.StatePending}, want{store.ByNetwork, store.StateGone}
	for name, c := range map[string]struct {
		config filter.Config
		want   map[string]want
	}{
		"full":   {filter.Config{Mode: filter.ModeFull}, map[string]want{"commit": pending, "sync": pending, "account": pending, "inactive account": gone, "deleted account": gone}},
		"signal": {filter.Config{Signals: []string{"app.test.*"}}, map[string]want{"commit": {store.BySignal, store.StatePending}}},
		"none":   {filter.Config{Collections: []string{"app.test.*"}}, nil},
	} {
		for kind, tell := range tellings {
			for _, excluded := range []bool{false, true} {
				t.Run(name+" "+kind, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					a := w.net.Accounts()[0]
					config, want, known := c.config, c.want[kind], false
					if _, known = c.want[kind]; excluded {
						config.Excludes, known = []string{a.DID()}, false
					}
					if _, err := w.store.SetFilter(config); err != nil {
						t.Fatal(err)
					}
					w.skip()
					tell(t, w, a)
					w.pass()
					row, err := w.store.Repo(a.DID())
					if !known {
						if !errors.Is(err, store.ErrNotFound) {
							t.Errorf("excluded %v: %v, row %+v", excluded, err, row)
						}
						return
					}
					if err != nil || row.Tracked != want.why || row.State != want.state {
						t.Errorf("%v: row is %s, tracked %s, want %s, %s", err, row.State, row.Tracked, want.state, want.why)
					}
				})
			}
		}
	}
}

// TestExcludedRowsStayAsTheyAre until they are dropped: an excluded account has no events.
func TestExcludedRowsStayAsTheyAre(t *testing.T) {
	t.Parallel()
	for kind, tell := range tellings {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			w.hold(a)
			w.skip()
			before, head := w.row(a), storetest.Head(w.t, w.store)
			if _, err := w.store.SetFilter(filter.Config{Mode: filter.ModeFull, Excludes: []string{a.DID()}}); err != nil {
				t.Fatal(err)
			}
			tell(t, w, a)
			w.pass()
			if diff := cmp.Diff(before, w.row(a), cmp.AllowUnexported(store.Repo{}), cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "loaded" }, cmp.Ignore())); diff != "" {
				t.Errorf("the row has changed: %s", diff)
			}
			if storetest.Head(w.t, w.store) != head {
				t.Error("something was told")
			}
		})
	}
}
