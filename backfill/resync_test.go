package backfill_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

// changes are the events that lead from one set of records to another.
func changes(from, to map[string]repo.CID) []string {
	var out []string
	for path, c := range to {
		if old, ok := from[path]; !ok {
			out = append(out, fmt.Sprintf("%d %s", store.Create, path))
		} else if old != c {
			out = append(out, fmt.Sprintf("%d %s", store.Update, path))
		}
	}
	for path := range from {
		if _, ok := to[path]; !ok {
			out = append(out, fmt.Sprintf("%d %s", store.Delete, path))
		}
	}
	out = slices.DeleteFunc(out, func(e string) bool { return !repo.ValidPath([]byte(e[2:])) })
	slices.Sort(out)
	return out
}

func (w *world) wantEvents(did string, from uint64, want []string) {
	w.T.Helper()
	got := w.Events(did, from)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.T.Errorf("%s: %d events, want %d\n got %.500v\nwant %.500v", did, len(got), len(want), got, want)
	}
}

// TestResync: the log gets exactly the difference, for small ones and for some over several
// batches.
func TestResync(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 12, OddKeys: 2, RecordsMax: 300}})
	dids := w.Net.DIDs()
	w.Add(dids...)
	w.Settle(dids...)
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 4 {
		head := storetest.Head(w.T, w.Store)
		before := map[string]map[string]repo.CID{}
		for i, did := range dids {
			a := w.Net.Account(did)
			before[did] = a.Truth().Records
			if i%3 != 0 { // every third has not changed at all
				if _, err := a.Mutate(1 + rng.IntN(40)); err != nil {
					t.Fatal(err)
				}
			}
			if i == 1 {
				w.rewrite(a, rng, round)
			}
		}
		w.Add(dids...)
		w.Settle(dids...)
		for _, did := range dids {
			w.Equal(did)
			w.wantEvents(did, head+1, changes(before[did], w.Net.Account(did).Truth().Records))
		}
		w.Gauges()
	}
}

// rewrite changes thousands of records, so that the difference takes several batches, or takes them
// away.
func (w *world) rewrite(a *simnet.Account, rng *rand.Rand, round int) {
	w.T.Helper()
	var writes []simnet.Write
	held := map[string]bool{}
	for _, path := range a.Paths() {
		held[path] = true
	}
	for i := range 3500 {
		wr := simnet.Write{Path: fmt.Sprintf("app.test.bulk/%05d", i)}
		if round != 2 {
			wr.Record = []byte("\xa1\x61n\x1a\x00" + string([]byte{byte(1 + rng.IntN(255)), byte(i >> 8), byte(i)}))
		}
		if wr.Record != nil || held[wr.Path] {
			writes = append(writes, wr)
		}
	}
	if _, err := a.Commit(writes...); err != nil {
		w.T.Fatal(err)
	}
}

// TestResyncAfterCrash: a crash between the batches of a difference leaves some of it written, and
// the row pending as before. The next task writes the rest, and no event comes twice.
func TestResyncAfterCrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 200}})
	did := w.Net.DIDs()[0]
	a := w.Net.Account(did)
	w.Add(did)
	w.Settle(did)
	head, before := storetest.Head(w.T, w.Store), a.Truth().Records
	if _, err := a.Mutate(100); err != nil {
		t.Fatal(err)
	}
	w.half(a, before)
	w.Run.Wake()
	w.Settle(did)
	w.Equal(did)
	w.wantEvents(did, head+1, changes(before, a.Truth().Records))
}

// half writes every second change of a resync, as a task does that ends in a crash.
func (w *world) half(a *simnet.Account, before map[string]repo.CID) {
	w.T.Helper()
	truth := a.Truth()
	unlock := w.Store.Lock(a.DID())
	defer unlock()
	r := w.Row(a.DID())
	r.State, r.Attempt = store.StatePending, r.Attempt+1
	r.Pending.Priority = store.PriorityRetry
	var ops []store.Op
	for i, e := range changes(before, truth.Records) {
		if i%2 == 0 {
			path := e[2:]
			ops = append(ops, store.Op{Path: []byte(path), CID: truth.Records[path], Record: a.Record(path)})
		}
	}
	b := w.Store.NewBatch()
	if err := b.Apply(&r, false, truth.Rev, ops); err != nil {
		w.T.Fatal(err)
	}
	b.PutRepo(&r)
	if err := b.CommitSync(); err != nil {
		w.T.Fatal(err)
	}
}

// TestMigration: the new host and key are found, whatever was stored, and the log has an identity
// event.
func TestMigration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 2}})
	did := w.Net.DIDs()[0]
	a := w.Net.Account(did)
	w.Add(did)
	w.Settle(did)
	head := storetest.Head(w.T, w.Store)
	a.Migrate(w.Net.Host(1))
	a.RotateKey()
	w.Add(did)
	w.Settle(did)
	w.Equal(did)
	if got, want := w.Events(did, head+1), []string{"identity " + w.Net.Host(1).URL()}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	r := w.Row(did)
	if h, known := w.Store.HostByID(r.Pending.Host); !known || "http://"+h.Name != w.Net.Host(1).URL() {
		t.Errorf("its next place in the queue is at %q", h.Name)
	}
}

// TestMigrationDuringAFetch: when an identity event brings another host during a request to the
// former one, the repository is queued for the new host afterwards, however that request ends.
func TestMigrationDuringAFetch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		fault simnet.Fault
		state store.State
	}{
		{"copied", simnet.Fault{Kind: simnet.Gate}, store.StateSynced},
		{"failed", simnet.Fault{Kind: simnet.ServerError}, store.StateResync},
	} {
		w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 2}})
		did := w.Net.DIDs()[0]
		a, other := w.Net.Account(did), w.Net.Host(1)
		w.Add(did)
		w.Settle(did)
		if _, err := a.Mutate(3); err != nil {
			t.Fatal(err)
		}
		id, err := w.Store.HostID(strings.TrimPrefix(other.URL(), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		c.fault.DID, c.fault.Count, c.fault.Endpoint = did, 1, "com.atproto.sync.getRepo"
		c.fault.Hook = func() {
			w.Change(did, func(r *store.Repo) { r.PDS, r.IdentityTime, r.Pending.Host = other.URL(), r.IdentityTime+1, id })
		}
		a.Host().Inject(c.fault)
		w.Add(did)
		w.Settle(did)
		if r := w.Row(did); r.State != c.state || r.Pending.Host != id || r.PDS != other.URL() {
			t.Errorf("%s: %v, queued for host %d, at %s; want host %d", c.name, r.State, r.Pending.Host, r.PDS, id)
		}
	}
}

// TestMigrationBeforeTheFirstCopy: readers may have received the identity that a failed attempt
// found.
func TestMigrationBeforeTheFirstCopy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 2}})
	did := w.Net.DIDs()[0]
	a := w.Net.Account(did)
	a.Host().Inject(simnet.Fault{Kind: simnet.BadSignature, DID: did, Count: 1})
	w.Add(did)
	w.Settle(did)
	if events := w.Events(did, 1); len(events) > 0 || w.Row(did).Key == "" {
		t.Errorf("events %v after a first attempt, row %+v", events, w.Row(did))
	}
	a.Migrate(w.Net.Host(1))
	w.Add(did)
	w.Settle(did)
	w.Equal(did)
	if events := w.Events(did, 1); !slices.Contains(events, "identity "+w.Net.Host(1).URL()) {
		t.Errorf("the log does not tell of the move: %v", events)
	}
}

// TestRememberedKey: a signature that a cached key does not verify is checked with the current key
// before the attempt counts as failed.
func TestRememberedKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	old, err := w.Dir.Resolve(t.Context(), did)
	if err != nil {
		t.Fatal(err)
	}
	w.Net.Account(did).RotateKey()
	host, err := w.Store.HostID(strings.TrimPrefix(old.PDS, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	w.Change(did, func(r *store.Repo) { // as a lookup leaves it whose host is busy
		r.State, r.Tracked, r.PDS, r.Key = store.StatePending, store.ByOperator, old.PDS, old.Key
		r.Pending = store.PendingKey{Host: host, Priority: store.PriorityOperator}
	})
	w.Run.Wake()
	w.Settle(did)
	w.Equal(did)
	if n := len(w.Net.Host(0).Log().Fetches[did]); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
}

// turning is a directory that names another host after each Purge.
type turning struct {
	backfill.Directory
	hosts  []string
	purges atomic.Int64
}

func (d *turning) Resolve(ctx context.Context, did string) (identity.Identity, error) {
	id, err := d.Directory.Resolve(ctx, did)
	id.PDS = d.hosts[d.purges.Load()%int64(len(d.hosts))]
	return id, err
}

func (d *turning) Purge(string) { d.purges.Add(1) }

// TestTurningDocument: a document that names another host whenever it is read does not make the
// repository move forever. One reading causes one attempt; then the repository waits like any
// other.
func TestTurningDocument(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 1}})
	did := w.Net.DIDs()[0]
	w.Add(did)
	w.Settle(did)
	w.Stop()
	d := &turning{Directory: w.Dir, hosts: []string{w.Net.Host(0).URL(), w.Net.Host(1).URL()}}
	r, err := backfill.New(backfill.Options{Store: w.Store, Directory: d, AllowPrivate: true, Now: w.Clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	w.Run = r
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	defer func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if _, taken := backfill.Permits(r); taken != 0 {
			t.Errorf("%d permits are taken after the end", taken)
		}
	}()
	for range 6 {
		before := d.purges.Load()
		w.Add(did)
		w.Settle(did)
		w.looked()
		if n := d.purges.Load() - before; n > 1 {
			t.Fatalf("the document was read %d times for one attempt", n)
		}
	}
}

// TestSeenRev: if a higher rev is announced while a fetch is under way, the host is asked again at
// once, but only once. Later attempts are delayed. The host has no such rev, and is not asked for
// another transfer.
func TestSeenRev(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2}})
	for _, held := range []bool{false, true} {
		did := w.Net.DIDs()[0]
		if held {
			w.Settle(did)
		}
		slow := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 200 * time.Millisecond, DID: did, Endpoint: "*"})
		asked := func() int {
			l := w.Net.Host(0).Log()
			return len(l.Fetches[did]) + l.Requests[latestCommit]
		}
		before := asked()
		w.Add(did)
		attempt := w.Row(did).Attempt
		w.Until("the fetch to begin", func() bool { return slow.Fired() > 0 })
		// The host never gets this rev.
		w.Change(did, func(r *store.Repo) { r.SeenRev = "3zzzzzzzzzzzy" })
		w.Until("the second question", func() bool { return asked() == before+2 })
		w.Change(did, func(r *store.Repo) { r.SeenRev = "3zzzzzzzzzzzz" })
		w.Settle(did)
		w.looked()
		if n := asked() - before; n != 2 {
			t.Errorf("asked %d times, want 2", n)
		}
		if r := w.Row(did); r.State != store.StateResync || r.SeenRev == "" || r.Attempt != attempt+1 {
			t.Errorf("%v, still to be seen: %s, attempt %d after %d", r.State, r.SeenRev, r.Attempt, attempt)
		}
		slow.Clear()
		w.Change(did, func(r *store.Repo) { r.SeenRev = "" })
		w.Add(did)
		w.Settle(did)
		w.Equal(did)
	}
}

// TestGone: the data of a gone account is kept, and shown again when the account returns; the data
// of an account that is not found for long enough is wiped.
func TestGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2}})
	dids := w.Net.DIDs()
	back, lost := dids[0], dids[1]
	w.Add(dids...)
	w.Settle(dids...)
	head := storetest.Head(w.T, w.Store)
	w.Net.Account(back).SetStatus(simnet.Deactivated)
	w.Net.Account(lost).SetStatus(simnet.Deleted)
	w.Add(dids...)
	w.Settle(dids...)
	if r := w.Row(back); r.State != store.StateGone || r.Status != store.StatusDeactivated || r.Records == 0 {
		t.Errorf("deactivated: %+v", r)
	}
	// Answers within minutes show that the host is faulty: they count as failures.
	for range 4 {
		w.Add(lost)
		w.Settle(lost)
	}
	if r := w.Row(lost); r.State != store.StateResync || r.Status.Hidden() || r.Missing != 5 || r.Retry.Count != 5 || r.Retry.Error == "" {
		t.Errorf("not found: %+v", r)
	}
	w.Clock.Advance(61 * time.Minute)
	w.Add(lost)
	w.Settle(lost)
	if r := w.Row(lost); r.State != store.StateGone || r.Status != store.StatusNotFound || r.Missing != 6 || r.Records == 0 || r.Retry.Error == "" {
		t.Errorf("not found for an hour: %+v", r)
	}
	w.Net.Account(back).SetStatus(simnet.Active)
	asked := func() int {
		l := w.Net.Host(0).Log()
		return l.Requests[latestCommit] + len(l.Fetches[lost])
	}
	for day := range 3 {
		checks := asked()
		w.Clock.Advance(27 * time.Hour)
		w.Run.Wake()
		w.Until("the daily check", func() bool { return asked() > checks && w.Row(lost).State == store.StateGone && !w.Run.InFlight(lost) })
		w.Settle(dids...)
		if r := w.Row(lost); (r.Ordinal == 0) != (day >= 2) {
			t.Errorf("day %d: %+v", day, r)
		}
	}
	w.Equal(back)
	if r := w.Row(lost); r.State != store.StateGone || r.Status != store.StatusDeleted || r.Records != 0 || r.Rev != "" {
		t.Errorf("wiped: %+v", r)
	}
	w.Gauges()
	if got := w.Accounts(lost, head+1); !slices.Equal(got, []string{"account notfound", "account deleted"}) {
		t.Errorf("events %v", got)
	}
	if got := w.Accounts(back, head+1); !slices.Equal(got, []string{"account deactivated", "account active"}) {
		t.Errorf("events %v", got)
	}
	// A wiped repository that returns is a first copy again.
	w.Net.Account(lost).SetStatus(simnet.Active)
	head = storetest.Head(w.T, w.Store)
	w.Clock.Advance(4 * 27 * time.Hour) // gone for 81 hours, and checked again after as many
	w.Run.Wake()
	w.Until("the account to return", func() bool { return w.Row(lost).State == store.StateSynced })
	w.Settle(lost) // the row shows when it is applied, the events when they are durable
	w.Equal(lost)
	if got := w.Events(lost, head+1); len(got) < 2 || got[0] != "account active" {
		t.Errorf("%d events, the first is not that the account is active", len(got))
	}
}

// TestGoneSeldomAsked: two answers are too few to wipe a repository, whatever the time between
// them.
func TestGoneSeldomAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	w.Add(did)
	w.Settle(did)
	for _, status := range []simnet.Status{simnet.Deleted, simnet.Deactivated, simnet.Deleted} {
		w.Net.Account(did).SetStatus(status)
		w.Add(did)
		w.Settle(did)
		// Only consecutive answers count.
		if n := w.Row(did).Missing; (n == 1) != (status == simnet.Deleted) || n > 1 {
			t.Errorf("status %v: missing %d", status, n)
		}
	}
	w.Clock.Advance(80 * time.Hour)
	for answers := uint32(2); answers <= 3; answers++ {
		w.Add(did)
		w.Settle(did)
		if r := w.Row(did); r.Missing != answers || (r.Ordinal == 0) != (answers == 3) {
			t.Errorf("after %d answers: %v, missing %d, %d records", answers, r.Status, r.Missing, r.Records)
		}
	}
}

// TestReturn: a reader at the tip receives every change of an account that was hidden and returns
// with more changes than one batch holds.
func TestReturn(t *testing.T) {
	t.Parallel()
	var w *world
	var did string
	var got []string
	cursor := uint64(0)
	w = newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}, store: store.Options{Step: func(step string) {
		if step != "synced" || cursor == 0 {
			return
		}
		got = append(got, w.Events(did, cursor)...)
		cursor = w.Store.Head() + 1
	}}})
	did = w.Net.DIDs()[0]
	a := w.Net.Account(did)
	w.Add(did)
	w.Settle(did)
	a.SetStatus(simnet.Deactivated)
	w.Add(did)
	w.Settle(did)
	before := a.Truth().Records
	w.rewrite(a, rand.New(rand.NewPCG(1, 2)), 0)
	a.SetStatus(simnet.Active)
	cursor = w.Store.Head() + 1
	w.Add(did)
	w.Settle(did)
	w.Stop()
	if len(got) == 0 || got[0] != "account active" {
		t.Fatalf("the first of %d events is not that the account is active", len(got))
	}
	// First the stored records are listed anew, then the changes since.
	listed := changes(nil, before)
	if len(got) < 1+len(listed) || !slices.Equal(slices.Sorted(slices.Values(got[1:1+len(listed)])), listed) {
		t.Fatalf("the next of %d events are not the %d records held", len(got), len(listed))
	}
	got = got[1+len(listed):]
	slices.Sort(got)
	if want := changes(before, a.Truth().Records); !slices.Equal(got, want) {
		t.Errorf("%d events, want %d", len(got), len(want))
	}
}

// TestTombstone: a DID that its directory has closed fails as generic, with growing delays.
func TestTombstone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2}})
	did := w.Net.DIDs()[0]
	w.Net.Account(did).Tombstone()
	w.Add(did, "did:plc:zzzzzzzzzzzzzzzzzzzzzzzz")
	w.Settle(did, "did:plc:zzzzzzzzzzzzzzzzzzzzzzzz")
	for _, d := range []string{did, "did:plc:zzzzzzzzzzzzzzzzzzzzzzzz"} {
		if r := w.Row(d); r.State != store.StateResync || r.Retry.Kind != store.Generic {
			t.Errorf("%s: %v %+v", d, r.State, r.Retry)
		}
	}
}

// TestSkipSignatures: the row records that signatures were not checked.
func TestSkipSignatures(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}, runner: backfill.Options{SkipSignatures: true}})
	did := w.Net.DIDs()[0]
	w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.BadSignature})
	w.Add(did)
	w.Settle(did)
	if r := w.Row(did); r.State != store.StateSynced || r.Verified != store.VerifiedHashes {
		t.Errorf("%v %v", r.State, r.Verified)
	}
}
