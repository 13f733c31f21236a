package firehose_test

import (
	"fmt"
	"testing"
	"time"

	"cistern/ingest/firehose"
	"cistern/ingest/frame"
	"cistern/store"
)

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
	if err := s.r.Add(store.Source{URL: h.URL, PDS: true}); err != nil {
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
	s := newStage(t, func(o *firehose.Options) { o.Sources = []store.Source{{URL: other.URL, PDS: true}} })
	if err := s.r.FollowHost(h.URL); err != nil || s.status(h.url).URL != "" {
		t.Errorf("%v, status %+v", err, s.status(h.url))
	}
}

// TestWhatARelayHasToSend: only commits of an account show that relays send it, and a host is
// needed while it cannot be told.
func TestWhatARelayHasToSend(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		relay func(d firehose.Direct, now time.Time)
		want  bool // the host is needed
	}{
		"nothing":           {func(firehose.Direct, time.Time) {}, true},
		"the commit":        {func(d firehose.Direct, now time.Time) { d.Relay("did:a", frame.KindCommit, true, now) }, false},
		"a #sync":           {func(d firehose.Direct, now time.Time) { d.Relay("did:a", frame.KindSync, true, now) }, false},
		"an #identity":      {func(d firehose.Direct, now time.Time) { d.Relay("did:a", frame.KindIdentity, true, now) }, true},
		"an #account":       {func(d firehose.Direct, now time.Time) { d.Relay("did:a", frame.KindAccount, true, now) }, true},
		"an invalid commit": {func(d firehose.Direct, now time.Time) { d.Relay("did:a", frame.KindCommit, false, now) }, true},
		"another account's": {func(d firehose.Direct, now time.Time) { d.Relay("did:b", frame.KindCommit, true, now) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Now()
			d := firehose.NewDirect(newStage(t).r, now)
			now = now.Add(firehose.DirectFor - firehose.HeardWithin)
			d.Host("did:a", frame.KindCommit, now)
			c.relay(d, now)
			if got := !d.Superfluous(now.Add(firehose.HeardWithin)); got != c.want {
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
	d := firehose.NewDirect(newStage(t).r, now)
	for i := range firehose.UnheardMax {
		d.Host(fmt.Sprint("did:", i), frame.KindCommit, now)
	}
	last := now.Add(time.Hour)
	d.Host("did:last", frame.KindCommit, last)
	for i := range firehose.UnheardMax {
		d.Relay(fmt.Sprint("did:", i), frame.KindCommit, true, last)
	}
	if d.Superfluous(now.Add(firehose.DirectFor)) {
		t.Error("a host is dropped whose account there was no room for")
	}
	if !d.Superfluous(last.Add(firehose.DirectFor)) {
		t.Error("a host is followed for ever")
	}
}
