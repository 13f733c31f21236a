package ingest_test

import (
	"testing"
	"time"

	"cistern/ingest/firehose"
	"cistern/ingest/simnet"
)

// TestHostIsFollowedDirectly while relays are silent about some of its accounts, and no longer.
func TestHostIsFollowedDirectly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	const day = 24 * time.Hour
	w := newWorld(t)
	relay, accounts := w.net.RelayHost(), w.net.Accounts()
	relay.SetAccountLimit(1)
	a, heard := accounts[3], accounts[0] // the second of its host, and the first of the other
	w.hold(accounts...)
	w.read(relay.URL())
	put := func() {
		t.Helper()
		if _, err := a.Mutate(1); err != nil {
			t.Fatal(err)
		}
		w.until("the commit", func() bool { return w.row(a).Rev == a.Truth().Rev })
	}
	status := func(h *simnet.Host) (st firehose.Status) {
		src, err := firehose.ParseSource(h.URL(), true)
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range w.sources.Status() {
			if st.URL == src.URL {
				return st
			}
		}
		return firehose.Status{}
	}
	for _, h := range []*simnet.Host{a.Host(), heard.Host(), a.Host()} { // the last one is there already
		if err := w.sources.FollowHost(h.URL()); err != nil {
			t.Fatal(err)
		}
	}
	w.connected(relay, a.Host(), heard.Host())
	w.until("the host to be followed", func() bool { return status(a.Host()).Running })
	if st := status(a.Host()); !st.PDS || !st.Direct || !st.Persisted || len(w.sources.Status()) != 3 {
		t.Errorf("sources %+v", w.sources.Status())
	}
	put() // as the relay would not have it
	w.advance(day)
	w.until("the other host to be followed no longer", func() bool { return status(heard.Host()).URL == "" })
	if status(a.Host()).URL == "" {
		t.Error("the host is no longer followed, although no relay sent its commit")
	}
	relay.SetAccountLimit(0)
	put()
	w.until("both to be read", func() bool {
		for _, h := range []*simnet.Host{relay, a.Host()} {
			src, err := firehose.ParseSource(h.URL(), false)
			if err != nil {
				t.Fatal(err)
			}
			if at, _, err := w.store.Cursor(src.URL); at != h.Head() || err != nil {
				return false
			}
		}
		return true
	})
	w.advance(day)
	w.until("the host to be followed no longer", func() bool { return status(a.Host()).URL == "" })
	if rows, err := w.store.Sources(); len(rows) != 0 || err != nil {
		t.Errorf("sources remembered: %+v, %v", rows, err)
	}
}
