package backfill_test

import (
	"math"
	"net/http"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/pace"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

func TestFirstCopies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Repos: 60, Empty: 3, OddKeys: 3, LegacyEvery: 5, Gzip: true}})
	w.Add(w.Net.DIDs()...)
	w.Settle(w.Net.DIDs()...)
	for _, did := range w.Net.DIDs() {
		w.Equal(did)
	}
	c := w.Store.Counts()
	if c["synced"] != 60 || c["repos"] != 60 || c["pending"] != 0 {
		t.Errorf("counts %v", c)
	}
	w.Until("nothing in flight", func() bool { return w.Run.Syncing() == 0 })
	w.Stop()
	if bodies, spools := backfill.Memory(w.Run); bodies != 0 || spools != 0 {
		t.Errorf("budgets keep %d and %d bytes", bodies, spools)
	}
}

func TestOneHostTenPermits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 300, RecordsMedian: 5}, runner: backfill.Options{PerHost: 3}})
	w.Add(w.Net.DIDs()...)
	w.Settle(w.Net.DIDs()...)
	for _, did := range w.Net.DIDs() {
		w.Equal(did)
	}
	if most := w.Net.Host(0).Log().InFlightMax; most > 3 {
		t.Errorf("the host got %d requests at a time, 3 are allowed", most)
	}
}

func TestSpooledCopies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Repos: 4, RecordsMedian: 900, RecordsMax: 950}, runner: backfill.Options{RepoMemoryBytes: 256 << 10}})
	w.Add(w.Net.DIDs()...)
	w.Settle(w.Net.DIDs()...)
	for _, did := range w.Net.DIDs() {
		w.Equal(did)
	}
	w.Stop()
	if bodies, spools := backfill.Memory(w.Run); bodies != 0 || spools != 0 {
		t.Errorf("budgets keep %d and %d bytes", bodies, spools)
	}
}

func TestUntrackedAndForeignRowsAreLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Repos: 2, Hosts: 1}})
	did := w.Net.DIDs()[0]
	hang := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 300 * time.Millisecond, DID: did})
	w.Add(did)
	w.Until("the fetch to begin", func() bool { return hang.Fired() > 0 })
	w.Untrack(did)
	w.Until("the task to end", func() bool { return !w.Run.InFlight(did) })
	if r := w.Row(did); r.State != store.StateIdle || r.Ordinal != 0 {
		t.Errorf("the outcome was not dropped: %+v", r)
	}
	hang.Clear()
	// Asked for again while in flight: the first outcome is dropped, the second counts.
	other := w.Net.DIDs()[1]
	hang = w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 300 * time.Millisecond, DID: other})
	w.Add(other)
	w.Until("the fetch to begin", func() bool { return hang.Fired() > 0 })
	w.Add(other)
	w.Settle(other)
	w.Equal(other)
	if n := len(w.Net.Host(0).Log().Fetches[other]); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
}

// TestLateRefusals: a refusal of a host does not apply to a row that another caller has changed
// meanwhile.
func TestLateRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Repos: 2, Hosts: 1}})
	for i, did := range w.Net.DIDs() {
		w.Net.Account(did).SetStatus(simnet.Deactivated)
		slow := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 200 * time.Millisecond, DID: did, Count: 1})
		w.Add(did)
		w.Until("the fetch to begin", func() bool { return slow.Fired() > 0 })
		state, fetches := store.StateGone, 2
		if i == 0 {
			w.Add(did) // a new attempt, which must follow
		} else {
			w.Untrack(did)
			state, fetches = store.StateIdle, 1
		}
		w.Settle(did)
		w.Until("the task to end", func() bool { return !w.Run.InFlight(did) })
		if r, n := w.Row(did), len(w.Net.Host(0).Log().Fetches[did]); r.State != state || n != fetches {
			t.Errorf("%v after %d fetches, want %v after %d", r.State, n, state, fetches)
		}
	}
}

// TestUntrackedPendingRow: a row in the queue that is not followed is removed from it.
func TestUntrackedPendingRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Repos: 1}})
	did := w.Net.DIDs()[0]
	w.ChangeIn(did, func(b *store.Batch, r *store.Repo) {
		b.Track(r, store.ByOperator, 0)
		r.Tracked = store.Untracked
	})
	w.Run.Wake()
	w.Settle(did)
	if r := w.Row(did); r.State != store.StateIdle {
		t.Errorf("%+v", r)
	}
}

// TestUntrackedDueRow: a due row that is not followed is removed from the queue of retries.
func TestUntrackedDueRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Repos: 1}})
	did := w.Net.DIDs()[0]
	w.ChangeIn(did, func(b *store.Batch, r *store.Repo) {
		storetest.Reach(b, r, store.StateResync)
		r.Tracked, r.Retry.Next = store.Untracked, w.Clock.Now().Unix()-1
	})
	w.Run.Wake()
	w.Until("it to be idle", func() bool { return w.Row(did).State == store.StateIdle })
}

// TestAskedDelay: the pause that a host asks for is respected, also for the refused repository.
func TestAskedDelay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Repos: 1, Hosts: 1}})
	did := w.Net.DIDs()[0]
	w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.RateLimited, RetryAfter: 30 * time.Minute})
	w.Add(did)
	w.Settle(did)
	if r := w.Row(did); r.Retry.Kind != store.RateLimited || r.Retry.Next < w.Clock.Now().Add(29*time.Minute).Unix() {
		t.Errorf("%+v at %d", r.Retry, w.Clock.Now().Unix())
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Repos: 1}})
	want := map[uint32]time.Duration{1: time.Minute, 2: 2 * time.Minute, 3: 4 * time.Minute, 6: 32 * time.Minute, 7: time.Hour,
		64: time.Hour, 65: time.Hour, math.MaxUint32: time.Hour} // large counts must not overflow
	for count, d := range want {
		for range 100 {
			if got := backfill.Delay(w.Run, count); got < d*9/10 || got > d*11/10 {
				t.Fatalf("after %d failures %s, want %s ±10 %%", count, got, d)
			}
		}
	}
}

func TestAskedWait(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		name, header, value string
		want                time.Duration
	}{
		{"seconds", "Retry-After", "30", 30 * time.Second},
		{"date", "Retry-After", now.Add(90 * time.Second).UTC().Format(http.TimeFormat), 90 * time.Second},
		{"date gone by", "Retry-After", now.Add(-time.Hour).UTC().Format(http.TimeFormat), time.Second},
		{"zero must not make us hammer", "Retry-After", "0", time.Second},
		{"a week must not silence us", "Retry-After", "604800", time.Hour},
		{"overflow", "Retry-After", "99999999999999999999999", time.Hour},
		{"negative is no number of seconds", "Retry-After", "-5", 0},
		{"words", "Retry-After", "soon", 0},
		{"epoch, as the reference PDS", "RateLimit-Reset", "1800000060", time.Minute},
		{"epoch gone by", "RateLimit-Reset", "1700000000", time.Second},
		{"delta, as the draft", "RateLimit-Reset", "42", 42 * time.Second},
		{"none", "X-Other", "1", 0},
	} {
		if got := pace.AskedWait(http.Header{http.CanonicalHeaderKey(c.header): {c.value}}, now); got != c.want {
			t.Errorf("%s: %s %q: %s, want %s", c.name, c.header, c.value, got, c.want)
		}
	}
	// A window with requests left is not the reason for the refusal.
	h := http.Header{"Ratelimit-Reset": {"300"}, "Ratelimit-Remaining": {"2999"}}
	if got := pace.AskedWait(h, now); got != 0 {
		t.Errorf("with requests left: %s", got)
	}
	h.Set("RateLimit-Remaining", "0")
	if got := pace.AskedWait(h, now); got != 5*time.Minute {
		t.Errorf("with none left: %s", got)
	}
}
