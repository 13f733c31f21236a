package ingest_test

import (
	"fmt"
	"testing"
	"time"

	"cistern/ingest"
	"cistern/ingest/frame"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestHostIsFollowedDirectly while relays are silent about some of its accounts, and no longer.
func TestHostIsFollowedDirectly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	w := newWorld(t)
	relay, accounts := w.net.RelayHost(), w.net.Accounts()
	relay.SetAccountLimit(1)
	a := accounts[3] // the second of its host
	w.hold(accounts...)
	r := w.read(relay.URL())
	put := func() {
		t.Helper()
		if _, err := a.Mutate(1); err != nil {
			t.Fatal(err)
		}
		w.until("the commit", func() bool { return w.row(a).Rev == a.Truth().Rev })
	}
	status := func() (st ingest.SourceStatus) {
		for _, st := range r.Sources() {
			if st.Direct {
				return st
			}
		}
		return ingest.SourceStatus{}
	}
	for range 2 { // the second time it is there
		if err := r.FollowHost(a.Host().URL()); err != nil {
			t.Fatal(err)
		}
	}
	w.until("the host to be followed", func() bool { return status().Running })
	if st := status(); !st.PDS || !st.Persisted || len(r.Sources()) != 2 {
		t.Errorf("sources %+v", r.Sources())
	}
	put() // as the relay would not have it
	needed := func() time.Time { return ingest.DirectNeeded(r) }
	first := needed()
	w.advance(ingest.HeardWithin)
	w.until("it to be needed", func() bool { return needed().After(first) })
	w.advance(ingest.DirectFor - time.Minute)
	relay.SetAccountLimit(0)
	put()
	w.until("both to be read", func() bool {
		for _, h := range []*simnet.Host{relay, a.Host()} {
			src, err := ingest.ParseSource(h.URL(), false)
			if err != nil {
				t.Fatal(err)
			}
			if at, _, err := w.store.Cursor(src.URL); at != h.Head() || err != nil {
				return false
			}
		}
		return true
	})
	if status().URL == "" {
		t.Error("the host is no longer followed, although it was needed less than a day ago")
	}
	w.advance(time.Minute)
	w.until("the host to be followed no longer", func() bool { return status().URL == "" })
	if rows, err := w.store.Sources(); len(rows) != 0 || err != nil {
		t.Errorf("sources remembered: %+v, %v", rows, err)
	}
}

// TestDirectSourceAfterRestart: a direct source is followed after a restart, and is no longer
// direct once the operator adds it by name.
func TestDirectSourceAfterRestart(t *testing.T) {
	t.Parallel()
	h, relay := steady(t, 2), steady(t, 2)
	s := newStage(t, relay.source)
	if err := s.r.FollowHost(h.URL); err != nil {
		t.Fatal(err)
	}
	s = newStageOn(t, s.store, relay.source)
	if st := s.status(h.url); !st.Direct || !st.PDS || !st.Persisted {
		t.Errorf("status %+v", st)
	}
	s.run()
	s.sees(h.url, 1, 2)
	if err := s.r.AddSource(store.Source{URL: h.URL, PDS: true}); err != nil {
		t.Fatal(err)
	}
	if st := s.status(h.url); st.Direct || !st.Persisted {
		t.Errorf("status %+v", st)
	}
}

// TestNoHostIsFollowedWithoutARelay: an operator that follows PDSes only has chosen them.
func TestNoHostIsFollowedWithoutARelay(t *testing.T) {
	t.Parallel()
	h, other := steady(t, 1), steady(t, 1)
	s := newStage(t, func(o *ingest.Options) { o.Sources = []store.Source{{URL: other.URL, PDS: true}} })
	if err := s.r.FollowHost(h.URL); err != nil || s.status(h.url).URL != "" {
		t.Errorf("%v, status %+v", err, s.status(h.url))
	}
}

// TestWhatARelayHasToSend: only commits of an account show that relays send it, and a host is
// needed while it cannot be told.
func TestWhatARelayHasToSend(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		relay func(d ingest.Direct, now time.Time)
		want  bool // the host is needed
	}{
		"nothing":           {func(ingest.Direct, time.Time) {}, true},
		"the commit":        {func(d ingest.Direct, now time.Time) { d.Relay("did:a", frame.KindCommit, true, now) }, false},
		"a #sync":           {func(d ingest.Direct, now time.Time) { d.Relay("did:a", frame.KindSync, true, now) }, false},
		"an #identity":      {func(d ingest.Direct, now time.Time) { d.Relay("did:a", frame.KindIdentity, true, now) }, true},
		"an #account":       {func(d ingest.Direct, now time.Time) { d.Relay("did:a", frame.KindAccount, true, now) }, true},
		"an invalid commit": {func(d ingest.Direct, now time.Time) { d.Relay("did:a", frame.KindCommit, false, now) }, true},
		"another account's": {func(d ingest.Direct, now time.Time) { d.Relay("did:b", frame.KindCommit, true, now) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Now()
			d := ingest.NewDirect(newStage(t).r, now)
			now = now.Add(ingest.DirectFor - ingest.HeardWithin)
			d.Host("did:a", frame.KindCommit, now)
			c.relay(d, now)
			if got := !d.Superfluous(now.Add(ingest.HeardWithin)); got != c.want {
				t.Errorf("needed: %t, want %t", got, c.want)
			}
		})
	}
}

// TestNoRoomForUnheardAccounts: accounts of other hosts that fill the memory for unheard ones do
// not have a host dropped.
func TestNoRoomForUnheardAccounts(t *testing.T) {
	t.Parallel()
	now := time.Now()
	d := ingest.NewDirect(newStage(t).r, now)
	for i := range ingest.UnheardMax {
		d.Host(fmt.Sprint("did:", i), frame.KindCommit, now)
	}
	last := now.Add(time.Hour)
	d.Host("did:last", frame.KindCommit, last)
	for i := range ingest.UnheardMax {
		d.Relay(fmt.Sprint("did:", i), frame.KindCommit, true, last)
	}
	if d.Superfluous(now.Add(ingest.DirectFor)) {
		t.Error("a host is dropped whose account there was no room for")
	}
	if !d.Superfluous(last.Add(ingest.DirectFor)) {
		t.Error("a host is followed for ever")
	}
}
