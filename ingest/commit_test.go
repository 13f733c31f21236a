package ingest_test

import (
	"fmt"
	"testing"
	"time"

	"cistern/filter"
	"cistern/ingest"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

func TestCommitsAreApplied(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.net.Accounts()[0], w.net.Accounts()[1]
	w.hold(a, b)
	w.skip()
	w.put(a, "app.test.x/one", "1")
	w.put(b, "app.test.x/one", "1")
	w.put(a, "app.test.x/one", "2")
	w.put(a, "app.test.x/two", "2")
	if _, err := a.Delete("app.test.x/one"); err != nil {
		t.Fatal(err)
	}
	w.pass()
	w.equal(a)
	w.equal(b)
	w.logs(a, "create app.test.x/one", "update app.test.x/one", "create app.test.x/two", "delete app.test.x/one")
	w.logs(b, "create app.test.x/one")
	if n := w.count("events_total", "commit", "applied"); n != 5 {
		t.Errorf("%d commits were applied, want 5", n)
	}
	if n := w.dir.lookups(a.DID()); n != 0 {
		t.Errorf("%d lookups although the row knows the key", n)
	}
	w.stop()
	if seq, _, err := w.store.Cursor("ws://relay.test"); seq != w.sent || err != nil {
		t.Errorf("cursor is %d (%v), want %d", seq, err, w.sent)
	}
}

func TestDuplicatesChangeNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	other, from := w.newFeed("ws://other.test", false), w.sent
	for i := range 20 {
		w.put(a, "app.test.x/one", string(rune('a'+i)))
	}
	w.sendTo(other, w.net.RelayHost(), from)
	w.pass()
	w.until("the other is done", func() bool { return other.Idle() })
	w.equal(a)
	w.until("the log is durable", func() bool { lines, _ := w.log(a); return len(lines) >= 20 })
	if lines, _ := w.log(a); len(lines) != 20 {
		t.Errorf("%d changes in the log, want 20: %v", len(lines), lines)
	}
	if w.row(a).Breaks != 0 {
		t.Error("a duplicate broke the chain")
	}
}

func TestUnknownRepositories(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		full    bool
		signals []string
		want    bool
		why     store.Why
	}{
		{"none", false, nil, false, store.Untracked},
		{"full", true, nil, true, store.ByNetwork},
		{"full, with a signal", true, []string{"app.test.*"}, true, store.ByNetwork},
		{"signal", false, []string{"app.test.*"}, true, store.BySignal},
		{"other signal", false, []string{"app.other.*"}, false, store.Untracked},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.stop()
			mode := filter.ModeFilter
			if c.full {
				mode = filter.ModeFull
			}
			w.follow(mode, c.signals...)
			w.start()
			a := w.net.Accounts()[0]
			w.skip()
			commit := w.put(a, "app.test.x/one", "1")
			w.pass()
			row, err := w.store.RepoOrNew(a.DID())
			if err != nil || row.Known() != c.want {
				t.Fatalf("known: %t, want %t (%v)", row.Known(), c.want, err)
			}
			if c.want && (row.State != store.StatePending || row.Tracked != c.why || row.SeenRev != commit.Rev || row.Pending.Priority != store.PriorityDiscovery) {
				t.Errorf("row %+v", row)
			}
			if c.want {
				w.until("Wake is called", w.woken)
			}
			if w.dir.lookups(a.DID()) != 0 {
				t.Error("looked up")
			}
		})
	}
}

func TestRowsThatAreNotSyncedRemember(t *testing.T) {
	t.Parallel()
	for _, state := range []store.State{store.StatePending, store.StateResync, store.StateGone} {
		t.Run(state.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			w.hold(a)
			w.skip()
			before := w.row(a)
			reach(w, a, state)
			set(w, a, func(r *store.Repo) { r.Resolved = 0 })
			commit := w.put(a, "app.test.x/one", "1")
			w.pass()
			row := w.row(a)
			if row.State != state || row.SeenRev != commit.Rev || row.Rev != before.Rev {
				t.Errorf("row is %s at %s, seen %q, want %s at %s, seen %s", row.State, row.Rev, row.SeenRev, state, before.Rev, commit.Rev)
			}
			if w.dir.lookups(a.DID()) != 0 {
				t.Error("looked up")
			}
		})
	}
}

// TestCommitsOfHearsay: an account that some host called deleted, before its own host was looked
// up, has its host asked when it commits.
func TestCommitsOfHearsay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.skip()
	set(w, a, func(r *store.Repo) {
		r.State, r.Status, r.Tracked = store.StateGone, store.StatusDeleted, store.ByNetwork
	})
	commit := w.put(a, "app.test.x/one", "1")
	w.pass()
	if row := w.row(a); row.State != store.StatePending || row.SeenRev != commit.Rev || row.Attempt != 1 {
		t.Errorf("row %+v", row)
	}
	w.until("Wake is called", w.woken)
}

// A commit that does not fit is never applied, and the repository is fetched again.
func TestCommitsThatDoNotFit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind    simnet.StreamFaultKind
		recheck bool
		outcome string
	}{
		{simnet.StreamGap, false, ""},
		{simnet.StreamForgedSignature, true, "rejected"},
		{simnet.StreamForgedRecord, true, "rejected"},
		{simnet.StreamMissingRecord, true, "rejected"},
		{simnet.StreamTooBig, true, "desynced"},
		{simnet.StreamSyncInstead, false, ""},
	} {
		t.Run(c.kind.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			w.hold(a)
			w.skip()
			before := w.row(a)
			in := w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: c.kind, DID: a.DID(), Count: 1})
			last := w.put(a, "app.test.x/one", "1")
			if c.kind == simnet.StreamGap {
				last = w.put(a, "app.test.x/two", "1")
			}
			w.pass()
			if in.Fired() != 1 {
				t.Fatal("the fault did not fire")
			}
			row := w.row(a)
			if row.State != store.StatePending || row.Rev != before.Rev || row.SeenRev != last.Rev || row.Recheck != c.recheck || row.Attempt != before.Attempt+1 {
				t.Errorf("row is %s at %s, seen %q, recheck %t", row.State, row.Rev, row.SeenRev, row.Recheck)
			}
			if c.outcome != "" && w.count("events_total", "commit", c.outcome) != 1 {
				t.Errorf("no commit was %s", c.outcome)
			}
			w.logs(a)
		})
	}
}

// One forged commit costs one lookup and one fetch.
func TestForgedExtra(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamForgedExtra, DID: a.DID(), Count: 5})
	for range 5 {
		w.put(a, "app.test.x/one", "1")
	}
	w.pass()
	row := w.row(a)
	if row.State != store.StatePending || !row.Recheck || w.dir.lookups(a.DID()) != 1 || row.Breaks != 1 {
		t.Errorf("row is %s, recheck %t, %d lookups, %d breaks", row.State, row.Recheck, w.dir.lookups(a.DID()), row.Breaks)
	}
}

func TestBudgetDelaysFetches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamSyncInstead, DID: a.DID()})
	states := map[store.State]int{}
	for i := range 5 {
		w.put(a, "app.test.x/one", fmt.Sprint(i))
		w.pass()
		row := w.row(a)
		states[row.State]++
		if row.State == store.StateResync && (row.Retry.Next <= w.clock().Unix() || row.Retry.Kind != store.Generic || row.Retry.Error == "") {
			t.Errorf("retry %+v", row.Retry)
		}
		// What a fetch would bring, but for the records.
		truth := a.Truth()
		setIn(w, a.DID(), func(b *store.Batch, r *store.Repo) {
			b.Complete(r)
			r.Rev, r.Data, r.SeenRev = truth.Rev, truth.Data, ""
			r.Commit = storetest.Commit(r.DID, truth.Rev, truth.Data)
		})
	}
	if states[store.StatePending] != 1 || states[store.StateResync] != 4 {
		t.Errorf("states after breaks: %v, want 1 pending and 4 resync", states)
	}
}

// Hosts older than sync v1.1 name neither prevData nor prev.
func TestLegacyHost(t *testing.T) {
	t.Parallel()
	for _, bare := range []bool{false, true} {
		w := newWorld(t)
		a := w.net.Accounts()[0]
		w.hold(a)
		w.skip()
		w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamNoPrevData, DID: a.DID(), Bare: bare})
		// it has been fetched in this hour
		set(w, a, func(r *store.Repo) { r.Broken = w.clock().Unix() })
		w.put(a, "app.test.x/one", "1")
		w.put(a, "app.test.x/one", "2")
		w.put(a, "app.test.x/two", "2")
		if _, err := a.Delete("app.test.x/one"); err != nil {
			t.Fatal(err)
		}
		w.pass()
		w.equal(a)
		want := store.VerifiedFull
		if bare {
			want = store.VerifiedOps
		}
		if got := w.row(a).Verified; got != want && !(bare && got == store.VerifiedFull) {
			t.Errorf("bare %t: verified %s, want %s", bare, got, want)
		}
	}
}

// TestLegacyFiltered: it is unknown what stood under a path that the filter leaves out. A commit of
// a host that does not state it is therefore applied unproven, not fetched, whether or not it names
// the tree before.
func TestLegacyFiltered(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(b body){
		"nothing of before": body.legacy,
		"only the tree before": func(b body) {
			before := b["prevData"]
			b.legacy()
			b["prevData"] = before
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			if _, err := w.store.SetFilter(filter.Config{Collections: []string{"app.test.wanted"}}); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{"app.test.wanted/old", "app.test.x/one", "app.test.x/two"} {
				w.put(a, path, "1")
			}
			w.hold(a)
			w.skip()
			// it has been fetched in this hour
			set(w, a, func(r *store.Repo) { r.Broken = w.clock().Unix() })
			for _, writes := range [][]simnet.Write{
				{{Path: "app.test.x/one", Record: simnet.EncodeRecord(simnet.Post("2"))}},
				{{Path: "app.test.wanted/one", Record: simnet.EncodeRecord(simnet.Post("3"))}},
				{{Path: "app.test.wanted/old"}, {Path: "app.test.wanted/two", Record: simnet.EncodeRecord(simnet.Post("4"))}, {Path: "app.test.x/two"}},
			} {
				if _, err := a.Commit(writes...); err != nil {
					t.Fatal(err)
				}
				w.hand(altered(t, w.next("#commit"), change))
			}
			row := w.row(a)
			if row.State != store.StateSynced || row.Verified != store.VerifiedOps || row.Rev != a.Truth().Rev || row.Records != 2 || row.Breaks != 0 {
				t.Errorf("row %+v, want rev %s", row, a.Truth().Rev)
			}
			w.logs(a, "create app.test.wanted/one", "delete app.test.wanted/old", "create app.test.wanted/two")
		})
	}
}

// TestUnprovenFetchedHourly: a host that leaves proofs out may leave operations out, so its
// repositories are fetched, but once an hour only.
func TestUnprovenFetchedHourly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	for i := range 300 {
		w.put(a, fmt.Sprintf("app.test.x/%03d", i), "1")
	}
	w.hold(a)
	w.skip()
	w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamNoPrevData, DID: a.DID(), Bare: true})
	unproven := 0
	for hour := range 3 {
		fetched := 0
		for i := range 30 {
			gone, made := fmt.Sprintf("app.test.x/%03d", 9*i+hour), fmt.Sprintf("app.test.x/%03da", 299-9*i-hour)
			if _, err := a.Commit(simnet.Write{Path: gone}, simnet.Write{Path: made, Record: simnet.EncodeRecord(simnet.Post("new"))}); err != nil {
				t.Fatal(err)
			}
			w.pass()
			row := w.row(a)
			if row.State == store.StateSynced {
				w.equal(a)
				if row.Verified == store.VerifiedOps {
					unproven++
				}
				continue
			}
			if row.State != store.StatePending || row.Recheck {
				t.Fatalf("row is %s, recheck %t", row.State, row.Recheck)
			}
			fetched++
			catchUp(w, a, gone, made)
		}
		if fetched != 1 {
			t.Errorf("hour %d: fetched %d times", hour, fetched)
		}
		w.advance(62 * time.Minute)
	}
	if unproven == 0 {
		t.Error("no commit came without its proof")
	}
}

// catchUp is a fetch that finds some records changed.
func catchUp(w *world, a *simnet.Account, paths ...string) {
	w.t.Helper()
	defer w.store.Lock(a.DID())()
	row, err := w.store.Repo(a.DID())
	if err != nil {
		w.t.Fatal(err)
	}
	truth, b := a.Truth(), w.store.NewBatch()
	var ops []store.Op
	for _, p := range paths {
		ops = append(ops, store.Op{Path: []byte(p), CID: truth.Records[p], Record: a.Record(p)})
	}
	if err := b.Apply(&row, false, truth.Rev, ops); err != nil {
		w.t.Fatal(err)
	}
	row.State, row.Rev, row.Data, row.SeenRev, row.Verified = store.StateSynced, truth.Rev, truth.Data, "", store.VerifiedFull
	row.Commit = storetest.Commit(row.DID, truth.Rev, truth.Data)
	b.PutRepo(&row)
	if err := b.CommitSync(); err != nil {
		w.t.Fatal(err)
	}
}

// TestUnprovenRowsAreLookedAt: after a commit without its proof the store may hold what the tree
// does not. A proven commit that creates it must find it; else the store would count it twice,
// which Check at the end would show.
func TestUnprovenRowsAreLookedAt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	func() {
		defer w.store.Lock(a.DID())()
		row, b, record := w.row(a), w.store.NewBatch(), simnet.EncodeRecord(simnet.Post("left over"))
		if err := b.Apply(&row, true, row.Rev, []store.Op{{Path: []byte("app.test.x/one"), CID: repo.HashCID(record), Record: record}}); err != nil {
			t.Fatal(err)
		}
		row.Verified = store.VerifiedOps
		b.PutRepo(&row)
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
	}()
	w.put(a, "app.test.x/one", "1")
	w.pass()
	w.equal(a)
	if row := w.row(a); row.Records != int64(len(a.Truth().Records)) {
		t.Errorf("counts %d records, want %d", row.Records, len(a.Truth().Records))
	}
}

func TestKeyRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamGap, DID: a.DID(), Type: "#identity"})
	a.RotateKey()
	w.put(a, "app.test.x/one", "1")
	w.pass()
	w.equal(a)
	if got := w.row(a); got.Key != a.Truth().Key {
		t.Error("the row keeps the old key")
	}
	if n := w.dir.lookups(a.DID()); n != 1 {
		t.Errorf("%d lookups, want 1", n)
	}
	w.logs(a, "identity "+a.Handle(), "create app.test.x/one")
}

func TestSync(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	a.Sync() // the rev we hold
	w.pass()
	w.equal(a)
	w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamSyncInstead, DID: a.DID(), Count: 1})
	if _, err := a.Commit(); err != nil { // the same tree under a new rev
		t.Fatal(err)
	}
	w.put(a, "app.test.x/one", "1")
	w.pass()
	w.equal(a)
	if n := w.count("events_total", "sync", "applied"); n != 1 {
		t.Errorf("%d syncs applied, want 1", n)
	}
}

func TestSkipSignatures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	w.opts.SkipSignatures = true
	w.start()
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	set(w, a, func(r *store.Repo) { r.Resolved = 0 })
	w.put(a, "app.test.x/one", "1")
	w.pass()
	w.equal(a)
	if w.row(a).Verified != store.VerifiedHashes || w.dir.lookups(a.DID()) != 0 {
		t.Errorf("verified %s, %d lookups", w.row(a).Verified, w.dir.lookups(a.DID()))
	}
}

// What a fetch would refuse, a commit does not bring in.
func TestTooManyCollections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	held := w.row(a).Collections
	set(w, a, func(r *store.Repo) { r.Collections = ingest.CollectionsMax })
	w.put(a, "app.test.x/one", "1")
	w.pass()
	set(w, a, func(r *store.Repo) { r.Collections = held })
	if row := w.row(a); row.State != store.StatePending || w.count("rejected_total", "limit") != 1 {
		t.Errorf("row is %s", row.State)
	}
	w.logs(a)
}
