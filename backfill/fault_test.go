package backfill_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// faultCase is a fault, and the row that must follow from it.
type faultCase struct {
	fault  simnet.Fault
	kind   store.ErrorKind
	status store.Status // not active: gone
	says   string       // part of the error
}

func faultCases() []faultCase {
	return []faultCase{
		{fault: simnet.Fault{Kind: simnet.RateLimited, RetryAfter: 2 * time.Second}, kind: store.RateLimited},
		{fault: simnet.Fault{Kind: simnet.RateLimited, RetryAs: simnet.RetryUnsaid}, kind: store.RateLimited},
		{fault: simnet.Fault{Kind: simnet.ServerError}, kind: store.Transport},
		{fault: simnet.Fault{Kind: simnet.ServerError, Status: 500}, kind: store.Transport},
		{fault: simnet.Fault{Kind: simnet.ServerError, Status: 403}, kind: store.Generic},
		// Without RepoNotFound: from a proxy.
		{fault: simnet.Fault{Kind: simnet.ServerError, Status: 404}, kind: store.Generic},
		{fault: simnet.Fault{Kind: simnet.Unavailable, Account: simnet.Deleted}, kind: store.Generic},
		{fault: simnet.Fault{Kind: simnet.Unavailable, Account: simnet.Takendown}, status: store.StatusTakendown},
		{fault: simnet.Fault{Kind: simnet.Unavailable, Account: simnet.Suspended}, status: store.StatusSuspended},
		{fault: simnet.Fault{Kind: simnet.Unavailable, Account: simnet.Deactivated}, status: store.StatusDeactivated},
		{fault: simnet.Fault{Kind: simnet.Hang}, kind: store.Transport},
		{fault: simnet.Fault{Kind: simnet.Garbage}, kind: store.Generic},
		{fault: simnet.Fault{Kind: simnet.Redirect, Location: "ftp://127.0.0.1/"}, kind: store.Generic},
		{fault: simnet.Fault{Kind: simnet.Redirect, Location: "http://127.0.0.1:1/"}, kind: store.Transport},
		{fault: simnet.Fault{Kind: simnet.RedirectLoop}, kind: store.Generic},
		{fault: simnet.Fault{Kind: simnet.GzipBomb, Bytes: 256 << 20}, kind: store.Generic, says: "expands"},
		{fault: simnet.Fault{Kind: simnet.WrongHash}, kind: store.Generic, says: "hash"},
		{fault: simnet.Fault{Kind: simnet.WrongDID}, kind: store.Generic, says: "the commit is of"},
		{fault: simnet.Fault{Kind: simnet.FutureRev}, kind: store.Generic, says: "in the future"},
		{fault: simnet.Fault{Kind: simnet.BadSignature}, kind: store.Generic, says: "signature"},
		{fault: simnet.Fault{Kind: simnet.HighS}, kind: store.Generic, says: "signature"},
		{fault: simnet.Fault{Kind: simnet.MissingRecord}, kind: store.Generic, says: "missing"},
		{fault: simnet.Fault{Kind: simnet.MissingNode}, kind: store.Generic, says: "missing"},
		{fault: simnet.Fault{Kind: simnet.Truncated}, kind: store.Transport},
		{fault: simnet.Fault{Kind: simnet.Reset}, kind: store.Transport},
		{fault: simnet.Fault{Kind: simnet.SlowDrip, Bytes: 16}, kind: store.Transport},
	}
}

// TestFaults injects each fault into a first copy. Nothing is stored, the row records the failure
// and the time of the next attempt, the other repository of the host is copied, and both are copied
// once the fault is over.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	cases := faultCases()
	w := newWorld(t, worldOptions{
		net:    simnet.Options{Hosts: len(cases), Repos: 2 * len(cases), RecordsMedian: 30},
		runner: backfill.Options{IdleTimeout: 2 * time.Second, Concurrency: 64},
	})
	dids := w.Net.DIDs()
	bad, good := dids[:len(cases)], dids[len(cases):]
	injections := make([]*simnet.Injection, len(cases))
	for i, c := range cases {
		c.fault.DID = bad[i]
		injections[i] = w.Net.Account(bad[i]).Host().Inject(c.fault)
	}
	w.Add(dids...)
	w.Settle(bad...)
	counts := w.Store.Counts()
	want := map[string]int64{}
	for i, c := range cases {
		name := fmt.Sprintf("%v %+v", c.fault.Kind, c.fault)
		if injections[i].Fired() == 0 {
			t.Errorf("%s: never met", name)
		}
		r := w.Row(bad[i])
		if r.Ordinal != 0 || r.Rev != "" || r.Records != 0 {
			t.Errorf("%s: something was stored: %+v", name, r)
		}
		if c.status != store.StatusActive {
			want["gone"]++
			if r.State != store.StateGone || r.Status != c.status || r.Retry.Kind != store.NoError || r.Retry.Next == 0 {
				t.Errorf("%s: %v %v %+v", name, r.State, r.Status, r.Retry)
			}
			continue
		}
		want["resync"]++
		want["error_"+c.kind.String()]++
		wait := time.Duration(r.Retry.Next-w.Clock.Now().Unix()) * time.Second
		if r.State != store.StateResync || r.Retry.Kind != c.kind || r.Retry.Count != 1 || r.Retry.Error == "" || !strings.Contains(r.Retry.Error, c.says) || wait < 45*time.Second || wait > 67*time.Second {
			t.Errorf("%s: %v %+v in %s, want %v", name, r.State, r.Retry, wait, c.kind)
		}
	}
	w.Clock.Advance(time.Minute) // parked hosts return
	w.Run.Wake()
	w.Settle(good...)
	for _, did := range good {
		w.Equal(did)
	}
	for name, n := range want {
		if got := counts[name]; got != n {
			t.Errorf("gauge %s is %d, want %d", name, got, n)
		}
	}
	w.Gauges()

	for _, h := range w.Net.Hosts() {
		h.ClearFaults()
	}
	// An attempt that began before may fail after the first of these hours.
	w.Until("everything to be synced", func() bool {
		w.Clock.Advance(time.Hour)
		w.Run.Wake()
		time.Sleep(10 * time.Millisecond)
		return w.Store.Counts()["synced"] == int64(len(dids))
	})
	for _, did := range dids {
		w.Equal(did)
	}
	w.Until("nothing in flight", func() bool { return w.Run.Syncing() == 0 })
}

// TestFaultsOnResync: the stored copy stays as it is when a later copy is bad.
func TestFaultsOnResync(t *testing.T) {
	t.Parallel()
	cases := []struct {
		kind simnet.FaultKind
		want store.ErrorKind
	}{
		{simnet.StaleRev, store.Generic}, {simnet.BadSignature, store.Generic}, {simnet.MissingNode, store.Generic},
		{simnet.MissingRecord, store.Generic}, {simnet.Truncated, store.Transport}, {simnet.WrongDID, store.Generic},
	}
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: len(cases), Repos: len(cases)}})
	dids := w.Net.DIDs()
	w.Add(dids...)
	w.Settle(dids...)
	head := storetest.Head(w.T, w.Store)
	before := map[string]store.Repo{}
	for i, c := range cases {
		before[dids[i]] = w.Row(dids[i])
		w.Net.Account(dids[i]).Host().Inject(simnet.Fault{Kind: c.kind})
		if c.kind != simnet.StaleRev { // otherwise the stale rev would be older than the stored one
			if _, err := w.Net.Account(dids[i]).Mutate(5); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.Add(dids...)
	w.Settle(dids...)
	for i, c := range cases {
		r, old := w.Row(dids[i]), before[dids[i]]
		if r.State != store.StateResync || r.Retry.Kind != c.want {
			t.Errorf("%v: %v %+v", c.kind, r.State, r.Retry)
		}
		if r.Rev != old.Rev || r.Data != old.Data || r.Records != old.Records || r.Ordinal != old.Ordinal {
			t.Errorf("%v: the row changed: %+v", c.kind, r)
		}
		if e := w.Events(dids[i], head+1); len(e) > 0 {
			t.Errorf("%v: events %v", c.kind, e)
		}
	}
	w.Gauges()
	for _, h := range w.Net.Hosts() {
		h.ClearFaults()
	}
	w.Clock.Advance(2 * time.Hour)
	w.Run.Wake()
	w.Until("everything to be synced", func() bool { return w.Store.Counts()["synced"] == int64(len(dids)) })
	for _, did := range dids {
		w.Equal(did)
	}
}

// TestBackoffCurve: a dead host's attempts follow the curve, over restarts too.
func TestBackoffCurve(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 5}})
	did := w.Net.DIDs()[0]
	if err := w.Net.Host(0).Down(); err != nil {
		t.Fatal(err)
	}
	w.Add(did)
	var since int64
	for n, minutes := range []int{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		w.Settle(did)
		r := w.Row(did)
		if n == 0 {
			since = r.Retry.Since
		}
		left := time.Unix(r.Retry.Next, 0).Sub(w.Clock.Now())
		want := time.Duration(minutes) * time.Minute
		if r.State != store.StateResync || r.Retry.Kind != store.Transport || r.Retry.Count != uint32(n+1) || r.Retry.Since != since {
			t.Fatalf("after %d failures: %v %+v, since %d", n+1, r.State, r.Retry, since)
		}
		if left < want*9/10-5*time.Second || left > want*11/10+time.Second {
			t.Fatalf("after %d failures: again in %s, want %s ±10 %%", n+1, left, want)
		}
		if c := w.Store.Counts(); c["resync"] != 1 || c["error_transport"] != 1 || c["pending"] != 0 {
			t.Fatalf("after %d failures: %v", n+1, c)
		}
		if n%2 == 1 {
			w.Stop()
			w.start(backfill.Options{})
		}
		w.Clock.Advance(left - 5*time.Second)
		w.Run.Wake()
		w.looked()
		if r := w.Row(did); r.State != store.StateResync || r.Retry.Count != uint32(n+1) {
			t.Fatalf("after %d failures: tried five seconds early: %+v", n+1, r)
		}
		w.Clock.Advance(6 * time.Second)
		w.Run.Wake()
		w.Until("the next attempt", func() bool { return w.Row(did).Retry.Count > uint32(n+1) })
	}
	if err := w.Net.Host(0).Up(); err != nil {
		t.Fatal(err)
	}
	w.Clock.Advance(2 * time.Hour)
	w.Run.Wake()
	w.Until("the repository to heal", func() bool { return w.Row(did).State == store.StateSynced })
	w.Equal(did)
}

// TestRateLimitedHostWaits: one repository gets the 429. The other repositories of the host stay
// pending without an attempt, and are fetched when the host may be asked again.
func TestRateLimitedHostWaits(t *testing.T) {
	t.Parallel()
	for _, form := range []simnet.RetryForm{simnet.RetrySeconds, simnet.RateLimitReset} {
		w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 40, RecordsMedian: 5}, runner: backfill.Options{PerHost: 1}})
		limited := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.RateLimited, RetryAfter: 10 * time.Minute, RetryAs: form})
		w.Add(w.Net.DIDs()...)
		w.Until("the other host's repositories", func() bool { return w.Store.Counts()["synced"] == 20 })
		w.Until("the 429", func() bool { return w.Store.Counts()["error_ratelimited"] == 1 })
		w.looked()
		if c := w.Store.Counts(); limited.Fired() != 1 || c["pending"] != 19 || c["resync"] != 1 {
			t.Errorf("%d requests, counts %v", limited.Fired(), c)
		}
		if _, taken := backfill.Permits(w.Run); taken != 0 {
			t.Errorf("%d permits are taken while everybody waits", taken)
		}
		limited.Clear()
		for _, did := range w.Net.DIDs() {
			if r := w.Row(did); r.State == store.StatePending && r.Retry != (store.Retry{}) {
				t.Errorf("%s waits and remembers %+v", did, r.Retry)
			}
		}
		w.Clock.Advance(15 * time.Minute)
		w.Run.Wake()
		w.Until("all to be synced", func() bool { return w.Store.Counts()["synced"] == 40 })
		w.Stop()
	}
}

// TestParkedOnce: concurrent requests that fail together count as one fault of their host. The host
// is parked for a second, then tried by one request, and by more once that has succeeded.
func TestParkedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 20, RecordsMedian: 3}})
	h := w.Net.Host(0)
	fail, answer := make(chan struct{}), make(chan struct{})
	h.Inject(simnet.Fault{Kind: simnet.Latency, Hook: func() { <-fail }})
	h.Inject(simnet.Fault{Kind: simnet.ServerError})
	w.Add(w.Net.DIDs()...)
	w.Until("all permits to be taken", func() bool { return h.Log().InFlight == 4 })
	close(fail)
	w.Until("their failures", func() bool { return w.Store.Counts()["resync"] == 4 })
	h.ClearFaults()
	h.Inject(simnet.Fault{Kind: simnet.Latency, Hook: func() { <-answer }})
	h.ResetLog()
	w.Clock.Advance(2 * time.Second)
	w.Run.Wake()
	w.Until("the trial", func() bool { return h.Log().InFlight > 0 })
	if err := backfill.Look(t.Context(), w.Run); err != nil {
		t.Fatal(err)
	}
	if n := w.Run.HostStanding(w.hostOf(h)).Running; n != 1 {
		t.Errorf("%d requests try the host", n)
	}
	close(answer)
	w.Until("the others", func() bool { return w.Store.Counts()["synced"] == 16 })
}

// TestHangingHost: a host that never answers holds its own permits only, and the first in the queue
// are its repositories.
func TestHangingHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{
		net:    simnet.Options{Hosts: 2, Repos: 400, RecordsMedian: 3},
		runner: backfill.Options{PerHost: 2, Concurrency: 8, IdleTimeout: time.Hour, FetchTimeout: time.Hour},
	})
	w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Hang})
	var hanging, healthy []string
	for _, a := range w.Net.Accounts() {
		if a.Host() == w.Net.Host(0) {
			hanging = append(hanging, a.DID())
		} else {
			healthy = append(healthy, a.DID())
		}
	}
	w.Add(hanging...)
	w.Add(healthy...)
	// No request to the hanging host ends before the test does: the other repositories settle
	// meanwhile.
	w.Settle(healthy...)
	if c := w.Store.Counts(); c["synced"] != int64(len(healthy)) || c["pending"] != int64(len(hanging)) {
		t.Errorf("counts %v", c)
	}
	if _, taken := backfill.Permits(w.Run); taken > 2*2 { // its own and the global ones
		t.Errorf("the hanging host holds %d permits", taken)
	}
}
