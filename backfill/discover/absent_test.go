package discover_test

import (
	"slices"
	"testing"
	"time"

	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// missed records a gap in the events of a relay, as the live side does.
func (w *world) missed(relay string) {
	w.T.Helper()
	b := w.Store.NewBatch()
	b.PutReconciliation(relay, store.Reconciliation{})
	b.PutReconcileHosts(relay)
	if err := b.CommitSync(); err != nil {
		w.T.Fatal(err)
	}
	w.Wake()
}

// reconciled reports whether all comparisons requested after a gap are done.
func (w *world) reconciled() bool {
	w.T.Helper()
	_, asked, err := w.Store.ReconcileHosts()
	if err != nil {
		w.T.Fatal(err)
	}
	return !asked && len(w.passes()) == 0
}

// status checks that the row of an account has its true status.
func (w *world) status(did string) {
	w.T.Helper()
	want := w.Net.Account(did).Truth().Status
	if want == simnet.Active {
		w.Equal(did)
		return
	}
	r := w.Row(did)
	if want == simnet.Deleted && r.State == store.StateResync && r.Missing > 0 && r.Retry.Next != 0 && r.Retry.Error != "" {
		return // its host does not have it; the first answers are failures (TestGone)
	}
	if r.State == store.StateSynced || !r.Status.Hidden() {
		w.T.Errorf("%s is %v, %v; in truth %v", did, r.State, r.Status, want)
	}
}

// TestAbsentAfterGap: changes of accounts during a gap in the events of a relay are found by the
// listings of their own hosts, although the relay lists active accounts only, or has lost its data
// and lists hardly any. A deleted account is in no listing. The hosts of repositories that are
// listed and unchanged are not asked.
func TestAbsentAfterGap(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(n *simnet.Network){
		"relay of active accounts": func(*simnet.Network) {},
		"emptied relay":            func(n *simnet.Network) { n.RelayHost().Empty(1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 3, Repos: 24, RecordsMedian: 3, Manners: simnet.Indigo}})
			dids := w.Net.DIDs()
			w.Add(dids...)
			w.Settle(dids...)
			for i, status := range []simnet.Status{simnet.Deactivated, simnet.Takendown, simnet.Deleted, simnet.Deleted, simnet.Suspended} {
				w.Net.Account(dids[i]).SetStatus(status)
			}
			for _, did := range dids[5:8] {
				if _, err := w.Net.Account(did).Mutate(2); err != nil {
					t.Fatal(err)
				}
			}
			w.Net.Account(dids[8]).Migrate(w.Net.Host(0))
			lose(w.Net)
			w.missed(w.Net.Relay())
			w.Until("the listings to be compared", w.reconciled)
			w.Settle(dids...)
			for _, did := range dids {
				w.status(did)
			}
			for _, did := range dids[9:] {
				if n := len(w.Net.Account(did).Host().Log().Fetches[did]); n != 1 {
					t.Errorf("%s has not changed and was fetched %d times", did, n)
				}
			}
		})
	}
}

// TestAbsentOfPeriodicList: the periodic listing of a host shows a deleted account, too.
func TestAbsentOfPeriodicList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 10, RecordsMedian: 3, Manners: simnet.Indigo}})
	w.Filter(filter.Config{Mode: filter.ModeFull})
	w.Stop()
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: w.Net.Relay()}}, CrawlEvery: time.Hour})
	w.Until("all", func() bool { return w.Store.Counts()["synced"] == 10 && w.crawls().Ended == 3 })
	gone := w.Net.DIDs()[3]
	// The next listing would not judge what an unfinished listing or import leaves open.
	w.Until("the first listings and imports to be done with", func() bool {
		return discover.ListingsDone(w.crawl) && w.Row(gone).Ordinal < w.Store.OrdinalsEnd()
	})
	w.Net.Account(gone).SetStatus(simnet.Deleted)
	w.Clock.Advance(time.Hour)
	w.Wake()
	w.Until("the deletion to be found", func() bool { return w.Row(gone).State != store.StateSynced })
	w.Settle(w.Net.DIDs()...)
	for _, did := range w.Net.DIDs() {
		w.status(did)
	}
}

// TestAbsentImportedMeanwhile: a repository that was imported after a listing began may have been
// created after its page was read, so the listing does not show that it is absent.
func TestAbsentImportedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2, RecordsMedian: 3}})
	before, meanwhile := w.Net.DIDs()[0], w.Net.DIDs()[1]
	w.Add(before)
	w.Settle(before)
	w.Until("the import to be done with", func() bool { return w.Row(before).Ordinal < w.Store.OrdinalsEnd() })
	absent := discover.ListNothing(w.crawl, identity.HostOf(w.Row(before).PDS))
	w.Add(meanwhile)
	w.Settle(meanwhile)
	if !absent(w.Row(before)) || absent(w.Row(meanwhile)) {
		t.Errorf("absent: %v of the one held before, %v of the one imported meanwhile", absent(w.Row(before)), absent(w.Row(meanwhile)))
	}
}

// TestAbsentAfterRestart: an interrupted reconciliation reads the listing again, since the record
// of listed repositories is lost.
func TestAbsentAfterRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 6, RecordsMedian: 3}})
	dids := w.Net.DIDs()
	w.Add(dids...)
	w.Settle(dids...)
	l := newList(t)
	for _, did := range dids[:5] {
		l.entries = append(l.entries, active(did, w.Net.Account(did).Truth().Rev))
		w.Change(did, func(r *store.Repo) { r.PDS = l.URL })
	}
	w.Change(dids[5], func(r *store.Repo) { r.PDS = l.URL }) // this host does not list it
	id, err := w.Store.HostID(l.URL[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	for _, did := range dids {
		w.Change(did, func(r *store.Repo) { r.Pending.Host = id })
	}
	asked := func() int { return w.Net.Host(0).Log().Requests["com.atproto.sync.getLatestCommit"] }
	before := asked()
	l.hold = make(chan struct{})
	w.gap(l.URL)
	w.Until("the second page", func() bool { return len(l.asked()) == 2 })
	w.Stop()
	l.set(func() { close(l.hold); l.hold = nil })
	w.start(discover.Options{})
	w.Until("the pass to end", func() bool { return len(w.passes()) == 0 })
	w.Settle(dids...)
	if got, want := l.asked(), []string{"", "2", "", "2", "4"}; !slices.Equal(got, want) {
		t.Errorf("pages %q, want %q", got, want)
	}
	if n := asked() - before; n != 1 {
		t.Errorf("%d repositories were asked for, want the one that is not listed", n)
	}
	w.Equal(dids[5])
}

// TestFewAccountsOfManyPages: after a gap, a listing that is much longer than the number of stored
// repositories of its host is not read to its end: the host is asked about the accounts that were
// not named by then.
func TestFewAccountsOfManyPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 3, RecordsMedian: 3}})
	dids := w.Net.DIDs()
	w.Add(dids...)
	w.Settle(dids...)
	l := newList(t)
	for i := range 200 {
		l.entries = append(l.entries, active(storetest.DID(1000+i), ""))
	}
	id, err := w.Store.HostID(l.URL[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	for _, did := range dids {
		w.Change(did, func(r *store.Repo) { r.PDS, r.Pending.Host = l.URL, id })
	}
	if _, err := w.Net.Account(dids[1]).Mutate(2); err != nil {
		t.Fatal(err)
	}
	w.Net.Account(dids[2]).SetStatus(simnet.Deleted)
	w.gap(l.URL)
	w.Until("the pass to end", func() bool { return len(w.passes()) == 0 })
	w.Settle(dids...)
	if n := len(l.asked()); n != 10 {
		t.Errorf("%d pages were read of a hundred, to find three accounts", n)
	}
	for _, did := range dids {
		w.status(did)
	}
}
