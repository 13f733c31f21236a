package ingest_test

import (
	"fmt"
	"testing"

	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestRedundantOperations: what a commit's operations come to is applied, without a fetch and
// without an event for what did not change.
func TestRedundantOperations(t *testing.T) {
	t.Parallel()
	record := func(text string) []byte { return simnet.EncodeRecord(simnet.Post(text)) }
	put := func(path, text string) simnet.Write { return simnet.Write{Path: path, Record: record(text)} }
	drop := func(path string) simnet.Write { return simnet.Write{Path: path, Absent: true} }
	const held, new, beside = "app.test.x/held", "app.test.x/new", "app.test.x/beside"
	for _, c := range []struct {
		name   string
		writes []simnet.Write
		log    []string
	}{
		{"no operations", nil, nil},
		{"update to what is there", []simnet.Write{put(held, "1")}, nil},
		{"update to what is there, beside a create", []simnet.Write{put(held, "1"), put(beside, "1")}, []string{"create " + beside}},
		{"delete of nothing", []simnet.Write{drop(new)}, nil},
		{"delete of nothing, beside a create", []simnet.Write{drop(new), put(beside, "1")}, []string{"create " + beside}},
		{"create and delete", []simnet.Write{put(new, "1"), drop(new)}, nil},
		{"create and delete, around a create", []simnet.Write{put(new, "1"), put(beside, "1"), drop(new)}, []string{"create " + beside}},
		{"delete and create", []simnet.Write{drop(held), put(held, "2")}, []string{"update " + held}},
		{"delete and create the same", []simnet.Write{drop(held), put(held, "1")}, nil},
		{"update twice", []simnet.Write{put(held, "2"), put(held, "3")}, []string{"update " + held}},
		{"update there and back", []simnet.Write{put(held, "2"), put(held, "1")}, nil},
		{"update and delete", []simnet.Write{put(held, "2"), drop(held)}, []string{"delete " + held}},
		{"create twice over", []simnet.Write{put(new, "1"), drop(new), put(new, "2")}, []string{"create " + new}},
	} {
		for _, legacy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, legacy %t", c.name, legacy), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				a := w.net.Accounts()[0]
				w.put(a, held, "1")
				w.hold(a)
				w.skip()
				if legacy {
					w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamNoPrevData, DID: a.DID()})
				}
				if _, err := a.Commit(c.writes...); err != nil {
					t.Fatal(err)
				}
				w.pass()
				w.equal(a)
				w.put(a, "app.test.x/last", "1")
				w.pass()
				w.equal(a)
				w.logs(a, append(c.log, "create app.test.x/last")...)
				if row := w.row(a); row.Breaks != 0 || row.Verified != store.VerifiedFull {
					t.Errorf("%d breaks, verified %s", row.Breaks, row.Verified)
				}
			})
		}
	}
}

// TestDeleteOfNothingFiltered: what stood at a path that the filter leaves out is proven too, if it
// is nothing.
func TestDeleteOfNothingFiltered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	if _, err := w.store.SetFilter(filter.Config{Collections: []string{"app.test.wanted"}}); err != nil {
		t.Fatal(err)
	}
	w.hold(a)
	w.skip()
	created := simnet.Write{Path: "app.test.wanted/one", Record: simnet.EncodeRecord(simnet.Post("1"))}
	if _, err := a.Commit(simnet.Write{Path: "app.test.x/nothing", Absent: true}, created); err != nil {
		t.Fatal(err)
	}
	w.pass()
	if row := w.row(a); row.State != store.StateSynced || row.Verified != store.VerifiedFull || row.Rev != a.Truth().Rev || row.Breaks != 0 {
		t.Errorf("row %+v", row)
	}
	w.logs(a, "create app.test.wanted/one")
}

// TestTreeThatIsHeld: a commit that leads to the tree we hold moves the rev, even if the tree
// before it is one we missed.
func TestTreeThatIsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamGap, DID: a.DID(), Count: 1})
	w.put(a, "app.test.x/one", "1")
	if _, err := a.Delete("app.test.x/one"); err != nil {
		t.Fatal(err)
	}
	w.pass()
	w.equal(a)
	w.put(a, "app.test.x/two", "1")
	w.pass()
	w.equal(a)
	w.logs(a, "create app.test.x/two")
	if row := w.row(a); row.Breaks != 0 {
		t.Errorf("%d breaks", row.Breaks)
	}
}

// TestSince: where inversion leads to the tree we hold, since is not asked. Without that proof it
// has to fit.
func TestSince(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(b body)
		synced bool
	}{
		{"another rev", func(b body) { b["since"] = "3ljcf22222222" }, true},
		{"null", func(b body) { b["since"] = nil }, true},
		{"null, without prevData", func(b body) { b["since"] = nil; delete(b, "prevData") }, true},
		{"another rev, without proof", func(b body) { b["since"] = "3ljcf22222222"; b.legacy() }, false},
		{"null, without proof", func(b body) { b["since"] = nil; b.legacy() }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			if _, err := w.store.SetFilter(filter.Config{Collections: []string{"app.test.wanted"}}); err != nil {
				t.Fatal(err)
			}
			w.put(a, "app.test.x/one", "1")
			w.hold(a)
			w.skip()
			w.put(a, "app.test.x/one", "2")
			w.hand(altered(t, w.next("#commit"), c.change))
			if row := w.row(a); (row.State == store.StateSynced) != c.synced || (row.Breaks == 0) != c.synced {
				t.Errorf("row is %s, %d breaks", row.State, row.Breaks)
			}
		})
	}
}
