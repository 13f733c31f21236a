package backfill_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
)

// hostOf returns the store's id of the host of an account.
func (w *world) hostOf(h *simnet.Host) uint32 {
	w.T.Helper()
	id, err := w.Store.HostID(strings.TrimPrefix(h.URL(), "http://"))
	if err != nil {
		w.T.Fatal(err)
	}
	return id
}

// TestBan: a banned host is not asked, its repositories wait in its queue, and they are fetched
// once the ban is lifted, without a restart.
func TestBan(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 40, RecordsMedian: 3}})
	h := w.Net.Host(0)
	set := func(banned bool) {
		id, err := w.Store.SetHost(strings.TrimPrefix(h.URL(), "http://"), func(row *store.HostRow) { row.Banned = banned })
		if err != nil {
			t.Fatal(err)
		}
		w.Run.HostChanged(id)
	}
	set(true)
	w.Add(w.Net.DIDs()...)
	w.Until("the other host's repositories", func() bool { return w.Store.Counts()["synced"] == 20 })
	id := w.hostOf(h)
	w.Until("the rest to wait in its queue", func() bool {
		of, _ := w.Store.HostByID(id)
		return of.Queued == 20 && of.Accounts == 20
	})
	if n := h.Log().Requests["com.atproto.sync.getRepo"]; n != 0 {
		t.Errorf("the banned host was asked %d times", n)
	}
	if now := w.Run.HostStanding(id); now.State() != "banned" || now.Running != 0 {
		t.Errorf("it stands as %s, %+v", now.State(), now)
	}
	set(false)
	w.Until("all to be synced", func() bool { return w.Store.Counts()["synced"] == 40 })
	w.Stop()
	of, _ := w.Store.HostByID(id)
	if of.Repos != 20 || of.Bytes == 0 || of.LastSeen == 0 || of.FirstSeen == 0 || of.Queued != 0 || of.Accounts != 20 || of.Failing != 0 {
		t.Errorf("in the end its row is %+v", of)
	}
}

// TestBanInTheMiddle: a repository that waits for a permit of a host when the host is banned
// returns to the stored queue, where a later task may find that it has moved.
func TestBanInTheMiddle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 40, RecordsMedian: 3}, runner: backfill.Options{PerHost: 1}})
	h := w.Net.Host(0)
	slow := h.Inject(simnet.Fault{Kind: simnet.Latency, Delay: 200 * time.Millisecond, Endpoint: "com.atproto.sync.getRepo"})
	w.Add(w.Net.DIDs()...)
	w.Until("some to be fetched", func() bool { return w.Store.Counts()["synced"] > 20 })
	id, err := w.Store.SetHost(strings.TrimPrefix(h.URL(), "http://"), func(row *store.HostRow) { row.Banned = true })
	if err != nil {
		t.Fatal(err)
	}
	w.Run.HostChanged(id)
	slow.Clear()
	w.Until("the host to be left alone", func() bool { return w.Run.HostStanding(id).Running == 0 })
	w.Until("the rest to wait in its queue", func() bool {
		of, _ := w.Store.HostByID(id)
		return of.Queued > 10 && of.Queued == w.Store.Counts()["pending"]
	})
	for _, did := range w.Net.DIDs() {
		w.Until("nobody to be in flight", func() bool { return !w.Run.InFlight(did) })
	}
}

// TestNobodyWakes: rows that were enqueued without a call of Wake are found some time later.
func TestNobodyWakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2, RecordsMedian: 3}})
	dids := w.Net.DIDs()
	w.Add(dids[0])
	w.Settle(dids[0])
	w.Clock.Advance(2 * time.Second)
	woken := w.Clock.Now()
	w.Run.Wake()
	w.Until("it to have looked everywhere", func() bool { return backfill.ScannedAll(w.Run).After(woken) })
	w.Change(dids[1], func(r *store.Repo) {
		r.State, r.Tracked, r.Pending.Priority = store.StatePending, store.ByOperator, store.PriorityOperator
	})
	w.Clock.Advance(2 * time.Minute)
	w.Run.HostChanged(w.hostOf(w.Net.Host(0))) // the dispatcher goes round, as it does each minute
	w.Until("the other", func() bool { return w.Store.Counts()["synced"] == 2 })
}

// TestHostRules: hosts that match a pattern receive no more requests than it allows, at a time and
// in a second.
func TestHostRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{
		net: simnet.Options{Hosts: 1, Repos: 25, RecordsMedian: 3},
		runner: backfill.Options{HostRules: pace.Rules{{Glob: "*.example", Banned: true},
			{Glob: "127.0.0.1:*", Override: pace.Override{Concurrency: 2, PerSecond: 20}}, {Glob: "*", Override: pace.Override{Concurrency: 1}}}},
	})
	w.Add(w.Net.DIDs()...)
	w.Until("all to be synced", func() bool { return w.Store.Counts()["synced"] == 25 })
	log := w.Net.Host(0).Log()
	if log.InFlightMax > 2 {
		t.Errorf("%d requests at a time", log.InFlightMax)
	}
	var first, last time.Time
	for _, at := range log.Fetches {
		for _, a := range at {
			if first.IsZero() || a.Before(first) {
				first = a
			}
			if a.After(last) {
				last = a
			}
		}
	}
	// Requests arrive a little early or late.
	if d := last.Sub(first); d < 24*50*time.Millisecond-20*time.Millisecond {
		t.Errorf("25 requests came within %s", d)
	}
}

// TestHostFails: the last failure of a host is shown while it lasts, and after a restart.
func TestHostFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 3, RecordsMedian: 3}})
	w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.ServerError})
	w.Add(w.Net.DIDs()...)
	id := w.hostOf(w.Net.Host(0))
	w.Until("the host to be parked", func() bool { return !w.Run.HostStanding(id).ParkedUntil.IsZero() })
	now := w.Run.HostStanding(id)
	if now.State() != "parked" || now.FailingSince.IsZero() || !strings.Contains(now.Error, "503") {
		t.Errorf("it stands as %s, %+v", now.State(), now)
	}
	w.Stop()
	of, _ := w.Store.HostByID(id)
	if of.Failing == 0 || !strings.Contains(of.Error, "503") || of.Repos != 0 {
		t.Errorf("its row is %+v", of)
	}
}

// TestRedirectTo: a redirect causes no request to a host that is banned or parked, and not more
// requests than a host's windows allow. A refused redirect is a failure of the redirecting host,
// which is not asked again at once.
func TestRedirectTo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		row   store.HostRow
		rules pace.Rules
		most  int
	}{
		"banned":         {row: store.HostRow{Banned: true}},
		"limited":        {row: store.HostRow{Limits: store.HostLimits{PerHour: 2}}, most: 1},
		"banned by rule": {rules: pace.Rules{{Glob: "localhost:*", Banned: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 20, RecordsMedian: 3}, runner: backfill.Options{HostRules: c.rules}})
			from, to := w.Net.Host(0), w.Net.Host(1)
			target := to.URL()
			if c.rules != nil {
				// A name that no host in the table has.
				target = strings.Replace(target, "127.0.0.1", "localhost", 1)
			} else if _, err := w.Store.SetHost(strings.TrimPrefix(target, "http://"), func(row *store.HostRow) { *row = c.row }); err != nil {
				t.Fatal(err)
			}
			var sent []string
			for _, did := range w.Net.DIDs() {
				if w.Net.Account(did).Host() == from {
					sent = append(sent, did)
				}
			}
			from.Inject(simnet.Fault{Kind: simnet.Redirect, Location: target + "/xrpc/com.atproto.sync.getRepo?did=" + sent[0]})
			w.Add(sent...)
			w.Settle(sent...)
			refused := 0
			for _, did := range sent {
				if r := w.Row(did); r.State == store.StateResync && r.Retry.Kind == store.Generic && strings.Contains(r.Retry.Error, "redirect") {
					refused++
				}
			}
			if refused != len(sent)-c.most {
				t.Errorf("%d of %d were refused", refused, len(sent))
			}
			if n := to.Log().Requests["com.atproto.sync.getRepo"]; n != c.most {
				t.Errorf("the other host was asked %d times", n)
			}
			if n := from.Log().Requests["com.atproto.sync.getRepo"]; n > 2*len(sent) {
				t.Errorf("it was asked %d times itself", n)
			}
		})
	}
}

// TestNamesOfNobody: names that a host's list invents, and that no host serves, become no hosts,
// and wait in the queue of the listing host.
func TestNamesOfNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}, runner: backfill.Options{Directory: backfilltest.Directory{}}})
	id := w.hostOf(w.Net.Host(0))
	var dids []string
	for i := range 40 {
		did := fmt.Sprintf("did:web:h%d.example", i)
		dids = append(dids, did)
		w.Change(did, func(r *store.Repo) {
			r.State, r.Tracked = store.StatePending, store.ByNetwork
			r.Pending = store.PendingKey{Host: id, Priority: store.PriorityDiscovery}
		})
	}
	w.Run.Wake()
	w.Settle(dids...)
	for _, did := range dids {
		if r := w.Row(did); r.State != store.StateResync || r.Pending.Host != id {
			t.Errorf("%s: %v at host %d, %+v", did, r.State, r.Pending.Host, r.Retry)
		}
	}
	if all, _, err := w.Store.Hosts("", 100, nil); err != nil || len(all) != 1 {
		t.Errorf("%d hosts are known, %v", len(all), err)
	}
}

// TestNobodyIsAskedForSeldom: a DID without a document is looked up with growing delays, up to four
// weeks, unless its records are stored.
func TestNobodyIsAskedForSeldom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2, RecordsMedian: 3}})
	held, nobody := w.Net.DIDs()[0], w.Net.DIDs()[1]
	w.Add(held)
	w.Settle(held)
	w.Stop()
	w.start(backfill.Options{Directory: backfilltest.Directory{}})
	for did, most := range map[string]time.Duration{held: time.Hour, nobody: 28 * 24 * time.Hour} {
		w.Change(did, func(r *store.Repo) {
			r.State, r.Tracked, r.Pending.Priority, r.Retry.Count = store.StatePending, store.ByOperator, store.PriorityOperator, 30
			r.Attempt++
		})
		w.Run.Wake()
		w.Settle(did)
		r := w.Row(did)
		wait := time.Unix(r.Retry.Next, 0).Sub(w.Clock.Now())
		if r.State != store.StateResync || r.Retry.Kind != store.Generic || wait < most*89/100 || wait > most*111/100 {
			t.Errorf("it is %v, and looked up again in %s, want %s: %+v", r.State, wait, most, r.Retry)
		}
	}
}

// faltering is a directory that fails for some DIDs.
type faltering struct {
	backfill.Directory
	fails sync.Map // by DID
}

// Resolve fails for the DIDs in fails.
func (d *faltering) Resolve(ctx context.Context, did string) (identity.Identity, error) {
	if _, fails := d.fails.LoadAndDelete(did); fails {
		return identity.Identity{}, errors.New("connection reset")
	}
	return d.Directory.Resolve(ctx, did)
}

// TestLookupsRecover: lookups that fail now and then, between successful ones, do not park lookups
// for longer and longer, also for repositories whose host is known.
func TestLookupsRecover(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 24, RecordsMedian: 3}})
	w.Stop()
	d := &faltering{Directory: w.Dir}
	w.start(backfill.Options{Directory: d})
	id := w.hostOf(w.Net.Host(0))
	dids := w.Net.DIDs()
	ask := func(did string) {
		w.Change(did, func(r *store.Repo) {
			r.State, r.Tracked, r.Pending = store.StatePending, store.ByOperator, store.PendingKey{Host: id, Priority: store.PriorityOperator}
			r.Attempt++
		})
		w.Run.Wake()
		w.Settle(did)
	}
	for i := range len(dids) / 2 {
		d.fails.Store(dids[2*i], true)
		ask(dids[2*i])
		if wait := backfill.LookupsParked(w.Run); wait > time.Second {
			t.Fatalf("failure %d parks all lookups for %s", i+1, wait)
		}
		w.Clock.Advance(2 * time.Second)
		ask(dids[2*i+1])
		if r := w.Row(dids[2*i+1]); r.State != store.StateSynced {
			t.Fatalf("%v, %+v", r.State, r.Retry)
		}
	}
}
