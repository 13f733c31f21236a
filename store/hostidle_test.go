package store_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
)

// hostsOf returns the ids of all hosts, by name.
func hostsOf(t testing.TB, s *store.Store) map[string]uint32 {
	t.Helper()
	all, next, err := s.Hosts("", 1<<20, nil)
	if err != nil || next != "" {
		t.Fatal(next, err)
	}
	out := map[string]uint32{}
	for _, h := range all {
		out[h.Name] = h.ID
	}
	return out
}

// ticking returns a clock that moves each time it is read.
func ticking(by time.Duration) func() time.Time {
	now := new(atomic.Int64)
	now.Store(1_700_000_000e9)
	return func() time.Time { return time.Unix(0, now.Add(int64(by))) }
}

// TestHostTableFull: a new host takes the place of the one that has been idle longest. A host stays
// while a row or a source names it, or it has settings; ids are not assigned twice.
func TestHostTableFull(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	fs := vfs.NewCrashableMem()
	o := store.Options{Dir: "data", FS: fs, HostsMax: 6, Now: ticking(time.Second)}
	s := storetest.Open(t, o)
	inUse(t, s, "used.a")
	for _, name := range []string{"banned.b", "limited.c"} {
		if _, err := s.SetHost(name, func(row *store.HostRow) {
			row.Banned = name == "banned.b"
			row.Limits.PerDay = map[string]int{"limited.c": 7}[name]
		}); err != nil {
			t.Fatal(err)
		}
	}
	write(t, s, func(b *store.Batch) {
		b.PutSource(store.Source{URL: "wss://firehose.d/xrpc"})
		b.PutCrawlSource(store.CrawlSource{Kind: "repos", URL: "https://crawled.e"})
	})
	given := map[string]uint32{}
	name := func(host string) error {
		t.Helper()
		id, err := s.HostID(host)
		if err != nil {
			return err
		}
		if was, again := given[host]; again && was != id && id < was {
			t.Errorf("%s has id %d, and had %d", host, id, was)
		}
		given[host] = id
		return nil
	}
	want := func(when string, names ...string) {
		t.Helper()
		all := hostsOf(t, s)
		lacks := func(name string) bool { return all[name] == 0 }
		if len(all) != len(names) || slices.ContainsFunc(names, lacks) {
			t.Errorf("%s: known are %v, want %v", when, all, names)
		}
		storetest.Check(t, s)
	}
	for _, host := range []string{"firehose.d", "crawled.e", "idle.f"} {
		if err := name(host); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		if err := name(fmt.Sprintf("new.g%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	kept := []string{"used.a", "banned.b", "limited.c", "firehose.d", "crawled.e"}
	want("one place is left", append(kept, "new.g4")...)
	inUse(t, s, "new.g4")
	for range 2 {
		if err := name("new.h"); err == nil {
			t.Error("a host has taken the place of one that is needed")
		}
	}
	want("all are needed", append(kept, "new.g4")...)
	for i, free := range []struct {
		host string
		end  func() error
	}{
		{"used.a", func() error {
			edit(t, s, didAt("used.a"), func(_ *store.Batch, r *store.Repo) error {
				r.Pending.Host = 0
				return nil
			})
			return nil
		}},
		{"banned.b", func() error {
			_, err := s.SetHost("banned.b", func(row *store.HostRow) { row.Banned = false })
			return err
		}},
		{"limited.c", func() error {
			_, err := s.SetHost("limited.c", func(row *store.HostRow) { row.Limits.PerDay = 0 })
			return err
		}},
		{"firehose.d", func() error {
			write(t, s, func(b *store.Batch) { b.DropSource("wss://firehose.d/xrpc") })
			return nil
		}},
		{"crawled.e", func() error {
			src := store.CrawlSource{Kind: "repos", URL: "https://crawled.e"}
			write(t, s, func(b *store.Batch) { b.DropCrawlSource(src) })
			return nil
		}},
	} {
		if err := free.end(); err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 {
			fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
			o.FS = fs
			s = storetest.Open(t, o)
		}
		host := fmt.Sprintf("next.i%d", i)
		if err := name(host); err != nil {
			t.Errorf("%s is no longer needed, and has kept its place: %v", free.host, err)
			continue
		}
		kept[i] = host
		inUse(t, s, host)
		want("instead of "+free.host, append(kept, "new.g4")...)
	}
	ids := map[uint32]bool{}
	for _, id := range given {
		if ids[id] {
			t.Errorf("id %d was given twice: %v", id, given)
		}
		ids[id] = true
	}
}

// TestHostIdsGoOn: ids rise beyond 1<<16 and up to the last that a row can name; then no more are
// assigned.
func TestHostIdsGoOn(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	fs := vfs.NewCrashableMem()
	s := storetest.Open(t, store.Options{Dir: "data", FS: fs, HostsMax: 3})
	store.SetNextHost(s, math.MaxUint32-2)
	for i := range 2 {
		if id, err := s.HostID(fmt.Sprintf("h.t%d", i)); err != nil || id != math.MaxUint32-2+uint32(i) {
			t.Errorf("host %d: %v", id, err)
		}
	}
	for range 2 {
		if id, err := s.HostID("last.test"); err == nil {
			t.Errorf("host %d", id)
		}
		if id, err := s.HostID("h.t1"); err != nil || id != math.MaxUint32-1 {
			t.Errorf("a known one is host %d: %v", id, err)
		}
		write(t, s, func(b *store.Batch) { b.PutReconciliation("all", store.Reconciliation{}) })
		fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
		s = storetest.Open(t, store.Options{Dir: "data", FS: fs, HostsMax: 3})
	}
}

// TestHostPinned: a batch that names a host keeps its id until it is applied or dropped, as does a
// batch that removes the last row of the host; and if the id is gone, the batch has its row
// resolved anew.
func TestHostPinned(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{HostsMax: 1})
	a, err := s.HostID("a.test")
	if err != nil {
		t.Fatal(err)
	}
	at := store.PendingKey{Host: a, Priority: 1}
	row := store.Repo{DID: storetest.DID(1), State: store.StatePending, Pending: at}
	for _, end := range []func(b *store.Batch) error{
		func(b *store.Batch) error { b.Discard(); return nil },
		func(b *store.Batch) error { return b.CommitSync() },
		func(b *store.Batch) error { return b.CommitSync() }, // takes the row away
	} {
		b := s.NewBatch()
		r, err := s.RepoOrNew(row.DID)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Known() {
			r = row
		} else {
			r.Pending.Host = 0
		}
		b.ForgeRepo(&r)
		if id, err := s.HostID("b.test"); err == nil {
			t.Fatalf("the place of a host that a batch names was given to host %d", id)
		}
		if err := end(b); err != nil {
			t.Fatal(err)
		}
	}
	if store.Pins(s) != 0 {
		t.Errorf("%d pins are left", store.Pins(s))
	}
	b, err := s.HostID("b.test")
	if err != nil || b == a {
		t.Fatal(b, err)
	}
	if _, ok := s.HostByID(a); ok {
		t.Error("a host of a table of one is there besides")
	}
	write(t, s, func(batch *store.Batch) {
		r := store.Repo{DID: storetest.DID(2), State: store.StatePending, Pending: at}
		if batch.ForgeRepo(&r); r.Pending.Host != 0 {
			t.Errorf("a row names host %d, which is gone", r.Pending.Host)
		}
	})
	err = s.NoteHosts([]uint32{a, b}, func(_ uint32, row *store.HostRow) { row.Bytes++ })
	if err != nil {
		t.Error(err)
	}
	if got := s.QueuedHosts(); !slices.Equal(got, []uint32{0}) {
		t.Errorf("queued at %v", got)
	}
}

// TestHostSiteFull: if all places of a site are taken, a new host takes the place of an idle one of
// the same site.
func TestHostSiteFull(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{HostsMax: 256}) // four of a site
	inUse(t, s, "used.evil.example")
	inUse(t, s, "other.test")
	for i := range 40 {
		if _, err := s.HostID(fmt.Sprintf("h%d.evil.example", i)); err != nil {
			t.Fatal(err)
		}
	}
	all := hostsOf(t, s)
	for _, host := range []string{"used.evil.example", "other.test", "h37.evil.example",
		"h38.evil.example", "h39.evil.example"} {
		if all[host] == 0 {
			t.Errorf("%s is not known", host)
		}
	}
	if len(all) != 5 {
		t.Errorf("known are %v", all)
	}
	for host := range all {
		inUse(t, s, host)
	}
	if id, err := s.HostID("h.evil.example"); err == nil {
		t.Errorf("a fifth became host %d", id)
	}
	if _, err := s.HostID("third.test"); err != nil {
		t.Error(err)
	}
}

// TestHostTableRandom drives a small table at random, through restarts and crashes: hosts that are
// needed stay, no id stands for two hosts, no pin is left behind, and Check finds nothing.
func TestHostTableRandom(t *testing.T) {
	t.Parallel()
	for i := range 3 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			rng := seeded(t)
			fs := vfs.NewCrashableMem()
			o := store.Options{Dir: "data", FS: fs, HostsMax: int64(5 + rng.IntN(10))}
			s := storetest.Open(t, o)
			names := map[uint32]string{} // each id that was durable, with its host
			for range 400 {
				host := fmt.Sprintf("h%d.s%d", rng.IntN(4), rng.IntN(10))
				switch rng.IntN(10) {
				case 0, 1, 2:
					_, _ = s.HostID(host)
				case 3:
					_, _ = s.SetHost(host, func(row *store.HostRow) { row.Banned = rng.IntN(3) == 0 })
				case 4:
					write(t, s, func(b *store.Batch) {
						if src := (store.Source{URL: "wss://" + host}); rng.IntN(4) == 0 {
							b.PutSource(src)
						} else {
							b.DropSource(src.URL)
						}
					})
				case 5:
					if rng.IntN(5) > 0 {
						break
					}
					clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
					storetest.Check(t, s)
					fs, o.FS = clone, clone
					s = storetest.Open(t, o)
					storetest.Check(t, s)
				default:
					randomRow(t, s, rng, host)
				}
				if store.Pins(s) != 0 {
					t.Fatalf("%d pins are left", store.Pins(s))
				}
			}
			write(t, s, func(b *store.Batch) { b.PutReconciliation("durable", store.Reconciliation{}) })
			for host, id := range hostsOf(t, s) {
				if was, ok := names[id]; ok && was != host {
					t.Errorf("host %d was %s and is %s", id, was, host)
				}
				names[id] = host
			}
			if n := len(hostsOf(t, s)); int64(n) > o.HostsMax {
				t.Errorf("%d hosts of %d", n, o.HostsMax)
			}
		})
	}
}

// randomRow makes one of some repositories name a host, or drops it.
func randomRow(t testing.TB, s *store.Store, rng *rand.Rand, host string) {
	t.Helper()
	did := storetest.DID(rng.IntN(12))
	defer s.Lock(did)()
	r, err := s.RepoOrNew(did)
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	if r.Known() && rng.IntN(3) == 0 {
		if err := b.DropRepo(&r); err != nil {
			t.Fatal(err)
		}
	} else {
		b.Rehost(&r, host)
		r.State, r.Pending.Priority = []store.State{store.StatePending, store.StateIdle}[rng.IntN(2)], 1
		b.ForgeRepo(&r)
	}
	if rng.IntN(4) == 0 {
		b.Discard()
		return
	}
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
}

// TestHostTableRaces: while many batches name hosts of a table that is too small for them, no row
// comes to name a host whose place another has taken. Check confirms that for the store, and for
// each moment at which it crashes.
func TestHostTableRaces(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	fs := vfs.NewCrashableMem()
	o := store.Options{Dir: "data", FS: fs, HostsMax: 6}
	s := storetest.Open(t, o)
	var lost, named atomic.Int64
	var g errgroup.Group
	for w := range 4 {
		seed := rng.Uint64()
		g.Go(func() error {
			rng := rand.New(rand.NewPCG(seed, 0))
			for range 300 {
				id, err := s.HostID(fmt.Sprintf("h%d.s%d", rng.IntN(3), rng.IntN(9)))
				if err != nil {
					id = 0
				}
				// Other goroutines name hosts here.
				err = renamed(s, storetest.DID(10*w+rng.IntN(3)), id, func(r *store.Repo) {
					if r.Pending.Host != id {
						lost.Add(1)
					} else if id != 0 {
						named.Add(1)
					}
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		for range 10 {
			crash := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			clone, err := store.Open(store.Options{Dir: "data", FS: crash})
			if err != nil {
				return err
			}
			n, err := clone.Check(t.Context(), func(d string) { t.Error("after a crash:", d) })
			if err = errors.Join(err, clone.Close()); err != nil || n > 0 {
				return err
			}
			n, err = s.Check(t.Context(), func(d string) { t.Error("meanwhile:", d) })
			if err != nil || n > 0 {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if store.Pins(s) != 0 || named.Load() == 0 {
		t.Errorf("%d pins are left, %d rows were named", store.Pins(s), named.Load())
	}
	t.Logf("%d rows named a host, %d had lost it", named.Load(), lost.Load())
}

// renamed has a row name a host, and shows it as it was written.
func renamed(s *store.Store, did string, host uint32, show func(r *store.Repo)) error {
	defer s.Lock(did)()
	r, err := s.RepoOrNew(did)
	if err != nil {
		return err
	}
	b := s.NewBatch()
	r.State, r.Pending = store.StatePending, store.PendingKey{Host: host, Priority: 1}
	b.ForgeRepo(&r)
	show(&r)
	wait, err := b.Commit()
	if err != nil {
		return err
	}
	return wait()
}

// TestHostEvictionCrash: if a crash comes while a host takes another's place, the store has either
// the one or the other, and a row that names it has it by name.
func TestHostEvictionCrash(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	fs := vfs.NewCrashableMem()
	s := storetest.Open(t, store.Options{Dir: "data", FS: fs, HostsMax: 2})
	crash := func(when string) {
		t.Helper()
		for _, percent := range []int{0, 30, 60, 100} {
			clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
			c := storetest.Open(t, store.Options{Dir: "data", HostsMax: 2, FS: clone})
			storetest.Check(t, c)
			if all := hostsOf(t, c); len(all) > 2 {
				t.Errorf("%s: known are %v", when, all)
			}
		}
	}
	for i := range 6 {
		host := fmt.Sprintf("h.s%d", i)
		id, err := s.HostID(host)
		if err != nil {
			t.Fatal(err)
		}
		crash("named " + host)
		if err := renamed(s, storetest.DID(1), id, func(*store.Repo) {}); err != nil {
			t.Fatal(err)
		}
		crash("in use " + host)
	}
}

// TestHostsManyIdle: more hosts than one scan collects are replaced one by one, the longest idle
// first.
func TestHostsManyIdle(t *testing.T) {
	t.Parallel()
	const most = store.IdleHostsMax + 100
	s := storetest.Open(t, store.Options{HostsMax: most, Now: ticking(time.Millisecond)})
	inUse(t, s, "used.test")
	for i := range 3 * most {
		if _, err := s.HostID(fmt.Sprintf("h.s%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	all := hostsOf(t, s)
	for host := range all {
		if n := 0; strings.HasPrefix(host, "h.s") {
			if _, err := fmt.Sscanf(host, "h.s%d", &n); err != nil || n < 2*most {
				t.Errorf("%s is known (%v)", host, err)
			}
		}
	}
	if len(all) != most || store.EvictableHosts(s) != most-1 {
		t.Errorf("%d hosts are known, %d idle", len(all), store.EvictableHosts(s))
	}
}
