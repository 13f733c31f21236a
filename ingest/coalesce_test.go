package ingest_test

import (
	"fmt"
	"testing"

	"cistern/filter"
	"cistern/store"
)

// A PDS that floods us with commits of an account of another host has nothing fetched again: not
// even when so many wait for the document that only revs are kept.
func TestForeignFloodFetchesNothing(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprint("own ", own), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(w *world) { w.opts.Shards, w.hose.QueueBytes = 1, 64<<10 })
			a := w.net.Accounts()[0]
			host := w.net.Host(0)
			if (host == a.Host()) != own {
				host = w.net.Host(1)
			}
			w.hold(a)
			w.skip()
			set(w, a, func(r *store.Repo) { r.Resolved = 0 })
			answer := w.dir.stall(a.DID())
			feed := w.newFeed("ws"+host.URL()[len("http"):], true)
			before := a.Host().Head()
			for i := range 100 {
				w.put(a, "app.test.x/one", fmt.Sprint(i))
			}
			for _, m := range a.Host().Messages(before) {
				if err := feed.Send(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
			w.until("some are coalesced", func() bool { return w.count("coalesced_total") > 0 })
			answer()
			w.until("all is done", func() bool { return feed.Idle() })
			want := store.StateSynced
			if own {
				want = store.StatePending
			}
			if row := w.row(a); row.State != want {
				t.Errorf("it is %s, want %s: %s", row.State, want, row.Retry.Error)
			}
		})
	}
}

// An unknown account that loses its events to another PDS's flood is followed all the same.
func TestCoalescedAreDiscovered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.opts.Shards, w.hose.QueueBytes = 1, 64<<10 })
	w.follow(filter.ModeFull)
	w.stop()
	w.start()
	a := w.net.Accounts()[0]
	host := w.net.Host(0)
	if host == a.Host() {
		host = w.net.Host(1)
	}
	w.skip()
	answer := w.dir.stall(a.DID())
	foreign := w.newFeed("ws"+host.URL()[len("http"):], true)
	before := a.Host().Head()
	for i := range 100 {
		w.put(a, "app.test.x/one", fmt.Sprint(i))
	}
	for _, m := range a.Host().Messages(before) {
		if err := foreign.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	w.until("some are coalesced", func() bool { return w.count("coalesced_total") > 0 })
	w.skip()
	w.put(a, "app.test.x/one", "last")
	w.send()
	w.until("all is taken", func() bool { return w.count("queued_events") == 0 })
	answer()
	w.settle()
	w.until("all is done", func() bool { return foreign.Idle() })
	if row := w.row(a); row.State != store.StatePending || row.SeenRev != a.Truth().Rev {
		t.Errorf("it is %s, seen %q, want pending and %s", row.State, row.SeenRev, a.Truth().Rev)
	}
}
