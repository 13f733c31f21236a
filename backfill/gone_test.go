package backfill_test

import (
	"net/http"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestGoneFails: the host of a gone account is asked, and fails. That is a failure like any other:
// one request, and the next when it is due. The data stays hidden until the host reports otherwise.
func TestGoneFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	a := w.Net.Account(did)
	w.Add(did)
	w.Settle(did)
	a.SetStatus(simnet.Deactivated)
	w.Add(did)
	w.Settle(did)
	broken := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.ServerError, Status: http.StatusInternalServerError, Endpoint: "*"})
	for n := uint32(1); n <= 3; n++ {
		asked := broken.Fired()
		w.Add(did)
		w.Settle(did)
		w.looked()
		r := w.Row(did)
		if r.State != store.StateResync || r.Status != store.StatusDeactivated || r.Retry.Count != n || r.Retry.Next <= w.Clock.Now().Unix() || r.Records == 0 {
			t.Errorf("after %d failures: %v, %v %+v", n, r.State, r.Status, r.Retry)
		}
		if got := broken.Fired() - asked; got != 1 {
			t.Errorf("asked %d times, want 1", got)
		}
		w.Gauges()
	}
	broken.Clear()
	a.SetStatus(simnet.Active)
	w.Stop()
	w.start(backfill.Options{})
	w.Clock.Advance(2 * time.Hour)
	w.Run.Wake()
	w.Until("the account to return", func() bool { return w.Row(did).State == store.StateSynced })
	w.Settle(did)
	w.Equal(did)
}

// TestAccountWhileFetched: an account event that arrives while a copy is made is newer than the
// copy, and the copy is dropped.
func TestAccountWhileFetched(t *testing.T) {
	t.Parallel()
	for _, held := range []bool{false, true} {
		for _, status := range []store.Status{store.StatusTakendown, store.StatusDeleted} {
			w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
			did := w.Net.DIDs()[0]
			if held {
				w.Add(did)
				w.Settle(did)
				if _, err := w.Net.Account(did).Mutate(20); err != nil {
					t.Fatal(err)
				}
			}
			records := w.rowOrNew(did).Records
			slow := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 150 * time.Millisecond, DID: did})
			w.Add(did)
			w.Until("the fetch to begin", func() bool { return slow.Fired() > 0 })
			w.hide(did, status)
			w.Until("the task to end", func() bool { return !w.Run.InFlight(did) })
			r := w.Row(did)
			if status == store.StatusDeleted {
				records = 0
			}
			if r.State != store.StateGone || r.Status != status || r.Records != records || w.Store.Fetching(did) {
				t.Errorf("held %v: %v, %v with %d records, want %v with %d", held, r.State, r.Status, r.Records, status, records)
			}
			w.Gauges()
		}
	}
}

// rowOrNew returns a row that need not exist.
func (w *world) rowOrNew(did string) store.Repo {
	w.T.Helper()
	r, err := w.Store.RepoOrNew(did)
	if err != nil {
		w.T.Fatal(err)
	}
	return r
}

// hide applies an account event as the live side does.
func (w *world) hide(did string, status store.Status) {
	w.T.Helper()
	defer w.Store.Lock(did)()
	r := w.Row(did)
	b := w.Store.NewBatch()
	b.DropBuffer(&r)
	if status == store.StatusDeleted && r.Ordinal != 0 {
		if err := b.Wipe(&r); err != nil {
			w.T.Fatal(err)
		}
	} else {
		r.Attempt++
	}
	r.AccountTime++
	b.Hide(&r, status, store.OriginHost, store.Retry{})
	b.PutRepo(&r)
	if err := b.CommitSync(); err != nil {
		w.T.Fatal(err)
	}
}

// TestGoneLooks: the host of a gone account is asked after a day at first, and after four weeks
// once the account has been gone for long.
func TestGoneLooks(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	looks := 0
	for gone := time.Duration(0); gone < 365*day; gone += backfill.GoneDelay(gone) {
		looks++
	}
	if looks > 20 {
		t.Errorf("an account that is gone is looked at %d times in a year", looks)
	}
	for gone, want := range map[time.Duration]time.Duration{0: day, 36 * time.Hour: 36 * time.Hour, 100 * day: 28 * day, -day: day} {
		if got := backfill.GoneDelay(gone); got != want {
			t.Errorf("gone for %v: next look after %v, want %v", gone, got, want)
		}
	}
}
