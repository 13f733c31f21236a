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
	w.t.Helper()
	b := w.store.NewBatch()
	b.PutReconciliation(relay, store.Reconciliation{})
	b.PutReconcileHosts(relay)
	if err := b.CommitSync(); err != nil {
		w.t.Fatal(err)
	}
	w.wake()
}

// reconciled reports whether all comparisons requested after a gap are done.
func (w *world) reconciled() bool {
	w.t.Helper()
	_, asked, err := w.store.ReconcileHosts()
	if err != nil {
		w.t.Fatal(err)
	}
	return !asked && len(w.passes()) == 0
}

// status checks that the row of an account has its true status.
func (w *world) status(did string) {
	w.t.Helper()
	want := w.net.Account(did).Truth().Status
	if want == simnet.Active {
		w.equal(did)
		return
	}
	r := w.row(did)
	if want == simnet.Deleted && r.State == store.StateResync && r.Missing > 0 && r.Retry.Next != 0 && r.Retry.Error != "" {
		return // its host does not have it; the first answers are failures (TestGone)
	}
	if r.State == store.StateSynced || !r.Status.Hidden() {
		w.t.Errorf("%s is %v, %v; in truth %v", did, r.State, r.Status, want)
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
			dids := w.net.DIDs()
			w.add(dids...)
			w.settle(dids...)
			for i, status := range []simnet.Status{simnet.Deactivated, simnet.Takendown, simnet.Deleted, simnet.Deleted, simnet.Suspended} {
				w.net.Account(dids[i]).SetStatus(status)
			}
			for _, did := range dids[5:8] {
				if _, err := w.net.Account(did).Mutate(2); err != nil {
					t.Fatal(err)
				}
			}
			w.net.Account(dids[8]).Migrate(w.net.Host(0))
			lose(w.net)
			w.missed(w.net.Relay())
			w.until("the listings to be compared", w.reconciled)
			w.settle(dids...)
			for _, did := range dids {
				w.status(did)
			}
			for _, did := range dids[9:] {
				if n := len(w.net.Account(did).Host().Log().Fetches[did]); n != 1 {
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
	w.filter(filter.Config{Mode: filter.ModeFull})
	w.stop()
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: w.net.Relay()}}, CrawlEvery: time.Hour})
	w.until("all", func() bool { return w.store.Counts()["synced"] == 10 && w.crawls().Ended == 3 })
	gone := w.net.DIDs()[3]
	// The next listing would not judge what an unfinished listing or import leaves open.
	w.until("the first listings and imports to be done with", func() bool {
		return discover.ListingsDone(w.crawl) && w.row(gone).Ordinal < w.store.OrdinalsEnd()
	})
	w.net.Account(gone).SetStatus(simnet.Deleted)
	w.clock.advance(time.Hour)
	w.wake()
	w.until("the deletion to be found", func() bool { return w.row(gone).State != store.StateSynced })
	w.settle(w.net.DIDs()...)
	for _, did := range w.net.DIDs() {
		w.status(did)
	}
}

// TestAbsentImportedMeanwhile: a repository that was imported after a listing began may have been
// created after its page was read, so the listing does not show that it is absent.
func TestAbsentImportedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2, RecordsMedian: 3}})
	before, meanwhile := w.net.DIDs()[0], w.net.DIDs()[1]
	w.add(before)
	w.settle(before)
	w.until("the import to be done with", func() bool { return w.row(before).Ordinal < w.store.OrdinalsEnd() })
	absent := discover.ListNothing(w.crawl, identity.HostOf(w.row(before).PDS))
	w.add(meanwhile)
	w.settle(meanwhile)
	if !absent(w.row(before)) || absent(w.row(meanwhile)) {
		t.Errorf("absent: %v of the one held before, %v of the one imported meanwhile", absent(w.row(before)), absent(w.row(meanwhile)))
	}
}

// TestAbsentAfterRestart: an interrupted reconciliation reads the listing again, since the record
// of listed repositories is lost.
func TestAbsentAfterRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 6, RecordsMedian: 3}})
	dids := w.net.DIDs()
	w.add(dids...)
	w.settle(dids...)
	l := newList(t)
	for _, did := range dids[:5] {
		l.entries = append(l.entries, active(did, w.net.Account(did).Truth().Rev))
		w.change(did, func(r *store.Repo) { r.PDS = l.URL })
	}
	w.change(dids[5], func(r *store.Repo) { r.PDS = l.URL }) // this host does not list it
	id, err := w.store.HostID(l.URL[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	for _, did := range dids {
		w.change(did, func(r *store.Repo) { r.Pending.Host = id })
	}
	asked := func() int { return w.net.Host(0).Log().Requests["com.atproto.sync.getLatestCommit"] }
	before := asked()
	l.hold = make(chan struct{})
	w.gap(l.URL)
	w.until("the second page", func() bool { return len(l.asked()) == 2 })
	w.stop()
	l.set(func() { close(l.hold); l.hold = nil })
	w.start(discover.Options{})
	w.until("the pass to end", func() bool { return len(w.passes()) == 0 })
	w.settle(dids...)
	if got, want := l.asked(), []string{"", "2", "", "2", "4"}; !slices.Equal(got, want) {
		t.Errorf("pages %q, want %q", got, want)
	}
	if n := asked() - before; n != 1 {
		t.Errorf("%d repositories were asked for, want the one that is not listed", n)
	}
	w.equal(dids[5])
}

// TestFewAccountsOfManyPages: after a gap, a listing that is much longer than the number of stored
// repositories of its host is not read to its end: the host is asked about the accounts that were
// not named by then.
func TestFewAccountsOfManyPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 3, RecordsMedian: 3}})
	dids := w.net.DIDs()
	w.add(dids...)
	w.settle(dids...)
	l := newList(t)
	for i := range 200 {
		l.entries = append(l.entries, active(storetest.DID(1000+i), ""))
	}
	id, err := w.store.HostID(l.URL[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	for _, did := range dids {
		w.change(did, func(r *store.Repo) { r.PDS, r.Pending.Host = l.URL, id })
	}
	if _, err := w.net.Account(dids[1]).Mutate(2); err != nil {
		t.Fatal(err)
	}
	w.net.Account(dids[2]).SetStatus(simnet.Deleted)
	w.gap(l.URL)
	w.until("the pass to end", func() bool { return len(w.passes()) == 0 })
	w.settle(dids...)
	if n := len(l.asked()); n != 10 {
		t.Errorf("%d pages were read of a hundred, to find three accounts", n)
	}
	for _, did := range dids {
		w.status(did)
	}
}
