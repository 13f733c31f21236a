package store_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// enqueue puts a repository into a queue; other states take it out.
func enqueue(t testing.TB, s *store.Store, did string, state store.State, host uint32, priority uint8) {
	t.Helper()
	nameHost(t, s, host)
	edit(t, s, did, func(_ *store.Batch, r *store.Repo) error {
		r.State, r.Pending.Host, r.Pending.Priority = state, host, priority
		return nil
	})
}

// nameHost makes a host known under that id.
func nameHost(t testing.TB, s *store.Store, id uint32) {
	t.Helper()
	if err := store.NameHost(s, id, fmt.Sprintf("pds%d.test", id)); err != nil {
		t.Fatal(err)
	}
}

// TestReposPages: any page size gives the same rows in the same order, filters too.
func TestReposPages(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	rng := seeded(t)
	for i := range 60 {
		did := storetest.DID(rng.IntN(1 << 20))
		if i%5 == 0 {
			did = "did:web:" + storetest.Rev(i) + strings.Repeat(".test", i%3)
		}
		enqueue(t, s, did, []store.State{store.StatePending, store.StateIdle}[rng.IntN(2)], uint32(rng.IntN(3)), 1)
	}
	for name, match := range map[string]func(*store.Repo) bool{
		"all":   nil,
		"state": func(r *store.Repo) bool { return r.State == store.StateIdle },
		"host":  func(r *store.Repo) bool { return r.Pending.Host == 1 },
		"none":  func(*store.Repo) bool { return false },
	} {
		list := func(limit int) (dids []string) {
			for cursor := ""; ; {
				rows, next, err := s.Repos(cursor, limit, match)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range rows {
					dids = append(dids, r.DID)
				}
				if next == "" {
					return dids
				}
				cursor = next
			}
		}
		want := list(1 << 20)
		if name == "none" != (len(want) == 0) || name == "all" && int64(len(want)) != s.Counts()["repos"] {
			t.Errorf("%s: %d rows of %v", name, len(want), s.Counts())
		}
		for _, limit := range []int{1, 2, 7, len(want), len(want) + 1} {
			if d := cmp.Diff(want, list(max(limit, 1))); d != "" {
				t.Errorf("%s by %d:\n%s", name, limit, d)
			}
		}
	}
}

// TestReposByOrdinalMissesNone: a client that continues from the last ordinal it saw, while
// groups are open, filled and flipped in any order, sees every repository once.
func TestReposByOrdinalMissesNone(t *testing.T) {
	t.Parallel()
	for name, list := range map[string]func(*store.Store, store.Ordinal, int) ([]store.Repo, error){
		"all": (*store.Store).ReposByOrdinal,
		"active": func(s *store.Store, after store.Ordinal, limit int) ([]store.Repo, error) {
			rows, _, _, err := s.ReposByCollection(nil, after, limit)
			return rows, err
		},
		"by collection": func(s *store.Store, after store.Ordinal, limit int) ([]store.Repo, error) {
			rows, _, _, err := s.ReposByCollection([]string{"app.test.all", "app.test.c1", "app.test.none"}, after, limit)
			return rows, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			missesNone(t, list)
		})
	}
}

func missesNone(t *testing.T, list func(*store.Store, store.Ordinal, int) ([]store.Repo, error)) {
	t.Helper()
	s := storetest.Open(t, store.Options{GroupBytes: 4 << 10, GroupAge: time.Hour})
	rng := seeded(t)
	var mu sync.Mutex
	done := map[string]bool{}
	seen := map[string]int{}
	last := store.Ordinal(0)
	page := func(limit int) {
		rows, err := list(s, last, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if r.Ordinal <= last {
				t.Errorf("ordinal %d after %d", r.Ordinal, last)
			}
			last = r.Ordinal
			seen[r.DID]++
		}
	}
	var writers sync.WaitGroup
	for w := range 3 {
		w := rand.New(rand.NewPCG(rng.Uint64(), uint64(w)))
		base := int(w.Uint64() >> 40)
		writers.Go(func() {
			for i := range 25 {
				did := storetest.DID(base<<8 + i)
				m := storetest.Random(w, w.IntN(20))
				m["app.test.all/x"] = storetest.Text(did)
				im := m.Import(add(t, s, did), storetest.Rev(1))
				im.Done = func(_ store.Repo, err error) {
					mu.Lock()
					defer mu.Unlock()
					done[did] = err == nil
				}
				if err := s.Import(t.Context(), im); err != nil {
					t.Error(err)
				}
				if w.IntN(4) == 0 {
					if err := s.FlushImports(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	finished := make(chan struct{})
	go func() { writers.Wait(); close(finished) }()
	for running := true; running; {
		select {
		case <-finished:
			running = false
		default:
			page(1 + rng.IntN(4))
		}
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	page(1 << 20)
	for did, ok := range done {
		if !ok || seen[did] != 1 {
			t.Errorf("%s: done %v, seen %d times", did, ok, seen[did])
		}
	}
	if len(seen) != len(done) || len(done) != 75 {
		t.Errorf("%d of %d seen", len(seen), len(done))
	}
}

// TestListRecordsPages: any page size, in both directions, gives the records of the collection and
// no other, without those whose path is not a valid collection/rkey.
func TestListRecordsPages(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	rng := seeded(t)
	m := storetest.Random(rng, 80)
	for _, near := range []string{"app.test.c1a/x", "app.test.c1.d/x", "app.test.c1-/x", "app.test.c1/-", "app.test.c1/~", "app.test.c1/!", "app.test.c1/", "app.test.c1", "app.test.c10/x"} {
		m[near] = storetest.Text(near)
	}
	w := newWorld()
	w.importRepo(t, s, storetest.DID(1), m)
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		w.change(t, s, rng, storetest.DID(1), true)
	}
	r, err := s.Repo(storetest.DID(1))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{}
	for _, p := range w.records[r.DID].Paths() {
		if collection, rkey, ok := repo.SplitPath([]byte(p)); ok {
			want[string(collection)] = append(want[string(collection)], string(rkey))
		}
	}
	collections, err := s.Collections(&r)
	if err != nil || len(collections) != len(want) {
		t.Errorf("collections %v, %v", collections, err)
	}
	for c, rkeys := range want {
		for _, reverse := range []bool{true, false} {
			if !reverse {
				rkeys = slices.Clone(rkeys)
				slices.Reverse(rkeys)
			}
			for _, limit := range []int{1, 3, len(rkeys), 100} {
				var got []string
				for cursor := ""; ; cursor = got[len(got)-1] {
					page := storetest.List(t, s, &r, c, cursor, limit, reverse)
					for _, rec := range page {
						if body := w.records[r.DID][rec.Collection+"/"+rec.Rkey]; rec.Collection != c || repo.HashCID(body) != rec.CID || string(rec.Record) != string(body) {
							t.Errorf("%s: %+v", c, rec)
						}
						got = append(got, rec.Rkey)
					}
					if len(page) < limit {
						break
					}
				}
				if d := cmp.Diff(rkeys, got); d != "" {
					t.Errorf("%s by %d, reverse %v:\n%s", c, limit, reverse, d)
				}
			}
		}
	}
}

// TestListRecordsNothing: collections without records, and any cursor that a client sends.
func TestListRecordsNothing(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	imported(t, s, storetest.DID(1), storetest.Random(seeded(t), 50))
	r, err := s.Repo(storetest.DID(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"app.test.none", "app.test", ""} {
		if page := storetest.List(t, s, &r, c, "", 10, false); len(page) > 0 {
			t.Errorf("collection %q: %v", c, page)
		}
	}
	for _, cursor := range []string{"\x00", "\xff", "!"} {
		for _, reverse := range []bool{true, false} {
			storetest.List(t, s, &r, "app.test.c1", cursor, 10, reverse)
		}
	}
}

type queued struct {
	Key store.PendingKey
	DID string
}

func scanAll(t testing.TB, s *store.Store, from uint32, fn func(queued) bool) (out []queued) {
	t.Helper()
	if err := s.ScanPending(t.Context(), from, func(k store.PendingKey, did string) bool {
		out = append(out, queued{k, did})
		return fn(queued{k, did})
	}); err != nil {
		t.Error(err)
	}
	return out
}

func next(queued) bool { return true }

// inQueue returns what ScanPending must give, in its order.
func inQueue(t testing.TB, s *store.Store, from uint32) (out []queued) {
	t.Helper()
	rows, _, err := s.Repos("", 1<<20, func(r *store.Repo) bool { return r.State == store.StatePending && r.Pending.Host >= from })
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		out = append(out, queued{r.Pending, r.DID})
	}
	slices.SortFunc(out, func(a, b queued) int {
		return strings.Compare(string(store.PendingRowKey(nil, a.Key)), string(store.PendingRowKey(nil, b.Key)))
	})
	return out
}

// TestScanPending drives queues at random, hosts and priorities at their limits included,
// and compares every scan with the rows.
func TestScanPending(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	rng := seeded(t)
	hosts := []uint32{0, 1, 2, 9, 1<<32 - 2}
	priorities := []uint8{0, 1, 2, 3, 4, 255}
	for range 150 {
		for range rng.IntN(6) {
			state := []store.State{store.StatePending, store.StatePending, store.StateIdle}[rng.IntN(3)]
			enqueue(t, s, storetest.DID(rng.IntN(40)), state, hosts[rng.IntN(len(hosts))], priorities[rng.IntN(len(priorities))])
		}
		from := hosts[rng.IntN(len(hosts))]
		want := inQueue(t, s, from)
		if d := cmp.Diff(want, scanAll(t, s, from, next)); d != "" {
			t.Fatalf("from host %d:\n%s", from, d)
		}
		if n := rng.IntN(5) + 1; len(want) >= n {
			got := 0
			part := scanAll(t, s, from, func(queued) bool {
				if got++; got == n {
					return false
				}
				return true
			})
			if d := cmp.Diff(want[:n], part); d != "" {
				t.Fatalf("%d from host %d:\n%s", n, from, d)
			}
		}
	}
}

// TestRequeueKeepsPlace: a row that is written without leaving its queue keeps its place;
// one that changes host or priority goes to the end.
func TestRequeueKeepsPlace(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	for i := range 3 {
		enqueue(t, s, storetest.DID(i), store.StatePending, 1, 3)
	}
	order := func() (out string) {
		for _, q := range scanAll(t, s, 0, next) {
			out += q.DID[len(q.DID)-1:]
		}
		return out
	}
	enqueue(t, s, storetest.DID(0), store.StatePending, 1, 3)
	if got := order(); got != "abc" {
		t.Errorf("written again: %s", got)
	}
	enqueue(t, s, storetest.DID(0), store.StatePending, 2, 3)
	enqueue(t, s, storetest.DID(0), store.StatePending, 1, 3)
	if got := order(); got != "bca" {
		t.Errorf("came back: %s", got)
	}
}

// TestScanPendingBeforeCommit: a row that got its place before a row that a scan met, and that
// commits after the scan, is not behind the front.
func TestScanPendingBeforeCommit(t *testing.T) {
	t.Parallel()
	for _, empty := range []bool{true, false} {
		s := storetest.Open(t, store.Options{})
		nameHost(t, s, 1)
		late := store.Repo{DID: storetest.DID(1), State: store.StatePending, Pending: store.PendingKey{Host: 1, Priority: 1}}
		b := s.NewBatch()
		b.ForgeRepo(&late)
		if !empty {
			enqueue(t, s, storetest.DID(2), store.StatePending, 1, 1)
		}
		scanAll(t, s, 0, next)
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(inQueue(t, s, 0), scanAll(t, s, 0, next)); d != "" {
			t.Errorf("empty queue %v:\n%s", empty, d)
		}
	}
}

// TestScanPendingMissesNone: scans that run while other goroutines enqueue, requeue and take out
// rows move the remembered fronts; in the end no waiting row is behind a front.
func TestScanPendingMissesNone(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	rng := seeded(t)
	var work sync.WaitGroup
	for w := range 4 {
		rng := rand.New(rand.NewPCG(rng.Uint64(), uint64(w)))
		work.Go(func() {
			for range 500 {
				state := []store.State{store.StatePending, store.StateIdle}[rng.IntN(2)]
				host, priority := uint32(rng.IntN(2)), uint8(1+rng.IntN(2))
				did := storetest.DID(w<<10 + rng.IntN(8))
				unlock := s.Lock(did)
				r, err := s.RepoOrNew(did)
				if err != nil {
					t.Error(err)
				}
				r.State, r.Pending.Host, r.Pending.Priority = state, host, priority
				b := s.NewBatch()
				b.ForgeRepo(&r)
				if rng.IntN(8) == 0 { // assigned and not used
					b.Discard()
				} else if _, err := b.Commit(); err != nil {
					t.Error(err)
				}
				unlock()
			}
		})
	}
	finished := make(chan struct{})
	go func() { work.Wait(); close(finished) }()
	for running := true; running; {
		select {
		case <-finished:
			running = false
		default:
			scanAll(t, s, uint32(rng.IntN(2)), func(queued) bool { return rng.IntN(3) > 0 })
		}
	}
	if d := cmp.Diff(inQueue(t, s, 0), scanAll(t, s, 0, next)); d != "" {
		t.Error(d)
	}
}

// TestEnqueueIDsAreFresh: ids rise over reopening and over the end of a lease of ids.
func TestEnqueueIDsAreFresh(t *testing.T) {
	t.Parallel()
	o := store.Options{FS: vfs.NewMem(), Dir: "db"}
	last := uint64(0)
	for i := range 3 {
		s, err := store.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		enqueue(t, s, storetest.DID(i), store.StatePending, 0, 1)
		r, err := s.Repo(storetest.DID(i))
		if err != nil {
			t.Fatal(err)
		}
		if r.Pending.Enqueue <= last {
			t.Errorf("id %d after %d", r.Pending.Enqueue, last)
		}
		last = r.Pending.Enqueue
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDueRetries(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	due := map[int]int64{1: 50, 2: 10, 3: 10, 4: 100, 5: 0, 6: 70}
	for n, at := range due {
		edit(t, s, storetest.DID(n), func(_ *store.Batch, r *store.Repo) error {
			r.State, r.Retry.Kind, r.Retry.Next = store.StateResync, store.Transport, at
			if n == 6 {
				r.State = store.StateGone // asked again as well
			}
			return nil
		})
	}
	for _, row := range []struct {
		now, next int64
		limit     int
		want      []int
	}{
		{9, 10, 10, nil},                     // none is due
		{10, 50, 10, []int{2, 3}},            // the same second, by DID
		{99, 100, 10, []int{2, 3, 1, 6}},     // one waits, one never
		{99, 50, 2, []int{2, 3}},             // a page; next is the first row behind it
		{1000, -1, 10, []int{2, 3, 1, 6, 4}}, // none waits
	} {
		dids, next, err := s.DueRetries(time.Unix(row.now, 0), row.limit)
		var want []string
		for _, n := range row.want {
			want = append(want, storetest.DID(n))
		}
		if err != nil || cmp.Diff(want, dids) != "" || next.IsZero() != (row.next < 0) || !next.IsZero() && next.Unix() != row.next {
			t.Errorf("at %d: %v, %v, %v", row.now, dids, next, err)
		}
	}
	edit(t, s, storetest.DID(2), func(_ *store.Batch, r *store.Repo) error { r.State = store.StatePending; return nil })
	if dids, _, err := s.DueRetries(time.Unix(10, 0), 10); err != nil || len(dids) != 1 {
		t.Errorf("one was requeued: %v, %v", dids, err)
	}
}

// TestHostsByID: pages of any size are all hosts, in the order in which they became known.
func TestHostsByID(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	var want []string
	for i := range 20 {
		name := fmt.Sprintf("h%d.test", i*7%20)
		want = append(want, name)
		if _, err := s.HostID(name); err != nil {
			t.Fatal(err)
		}
	}
	for limit := 1; limit < 22; limit++ {
		var got []string
		for after, more := uint32(0), true; more; {
			page, err := s.HostsByID(after, limit)
			if err != nil || len(page) > limit {
				t.Fatalf("%d hosts by %d: %v", len(page), limit, err)
			}
			for _, h := range page {
				after = h.ID
				got = append(got, h.Name)
			}
			more = len(page) > 0
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("by %d:\n%s", limit, d)
		}
	}
	if page, err := s.HostsByID(1<<32-1, 1); err != nil || len(page) > 0 {
		t.Errorf("behind the last id: %v, %v", page, err)
	}
}

func TestHostIDs(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	var work sync.WaitGroup
	var mu sync.Mutex
	ids := map[string]map[uint32]bool{}
	for range 4 {
		work.Go(func() {
			for i := range 20 {
				host := fmt.Sprintf("h%d.test:%d", i, i)
				id, err := s.HostID(host)
				if h, known := s.HostByID(id); err != nil || !known || h.Name != host || id == 0 {
					t.Errorf("%s: %d, %v; %s, %v", host, id, err, h.Name, known)
				}
				mu.Lock()
				if ids[host] == nil {
					ids[host] = map[uint32]bool{}
				}
				ids[host][id] = true
				mu.Unlock()
			}
		})
	}
	work.Wait()
	all := map[uint32]bool{}
	for host, got := range ids {
		if len(got) != 1 {
			t.Errorf("%s has ids %v", host, got)
		}
		for id := range got {
			all[id] = true
		}
	}
	if len(all) != 20 {
		t.Errorf("%d ids of 20 hosts", len(all))
	}
}
