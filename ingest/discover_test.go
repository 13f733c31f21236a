package ingest_test

import (
	"errors"
	"slices"
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

// TestExcludedRowsAreFollowed until they are dropped. The exclusion may be lifted before the pass of
// the filter drops the row, and nothing would say then what the row lacks.
func TestExcludedRowsAreFollowed(t *testing.T) {
	t.Parallel()
	for kind, tell := range tellings {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			rows, heads := map[bool]store.Repo{}, map[bool]uint64{}
			for _, excluded := range []bool{false, true} {
				w := newWorld(t)
				a := w.net.Accounts()[0]
				w.hold(a)
				w.skip()
				config := filter.Config{Mode: filter.ModeFull}
				if excluded {
					config.Excludes = []string{a.DID()}
				}
				if _, err := w.store.SetFilter(config); err != nil {
					t.Fatal(err)
				}
				tell(t, w, a)
				w.pass()
				rows[excluded], heads[excluded] = w.row(a), storetest.Head(w.t, w.store)
			}
			times := cmp.FilterPath(func(p cmp.Path) bool {
				return slices.Contains([]string{"loaded", "PDS", "Updated", "Resolved", "AccountTime", "IdentityTime", "Retry.Next", "Retry.Since"}, p.String())
			}, cmp.Ignore())
			if diff := cmp.Diff(rows[false], rows[true], cmp.AllowUnexported(store.Repo{}), times); diff != "" {
				t.Errorf("of an excluded account the row differs: %s", diff)
			}
			if heads[false] != heads[true] {
				t.Errorf("%d events are told, of an excluded account %d", heads[false], heads[true])
			}
		})
	}
}
