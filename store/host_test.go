package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestHostCounts: the counts of hosts follow the rows through random changes and crashes.
func TestHostCounts(t *testing.T) {
	t.Parallel()
	const seed = 11
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	fs := vfs.NewCrashableMem()
	s := storetest.Open(t, store.Options{Dir: "data", FS: fs})
	var ids []uint32
	for i := range 5 {
		id, err := s.HostID(fmt.Sprintf("h%d.test", i))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	ids = append(ids, 0)
	want := map[uint32]store.HostCounts{}
	of := map[string]store.PendingKey{}
	state := map[string]store.State{}
	for range 100 {
		b := s.NewBatch()
		for _, i := range rng.Perm(60)[:rng.IntN(8)] {
			did := fmt.Sprintf("did:web:a%d.test", i)
			r, err := s.RepoOrNew(did)
			if err != nil {
				t.Fatal(err)
			}
			r.Pending.Host = ids[rng.IntN(len(ids))]
			r.Pending.Priority = uint8(1 + rng.IntN(3))
			r.State = []store.State{store.StatePending, store.StateResync, store.StateIdle}[rng.IntN(3)]
			b.ForgeRepo(&r)
			of[did], state[did] = r.Pending, r.State
		}
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
	}
	for did, k := range of {
		c := want[k.Host]
		c.Accounts++
		if state[did] == store.StatePending {
			c.Queued++
		}
		want[k.Host] = c
	}
	same := func(s *store.Store, when string) {
		t.Helper()
		for _, id := range ids[:5] {
			if h, ok := s.HostByID(id); !ok || h.HostCounts != want[id] {
				t.Errorf("%s: host %d counts %+v, want %+v", when, id, h.HostCounts, want[id])
			}
		}
		queued := 0
		for _, id := range s.QueuedHosts() {
			if want[id].Queued == 0 {
				t.Errorf("%s: host %d has nothing queued", when, id)
			}
			queued++
		}
		for _, c := range want {
			if c.Queued > 0 {
				queued--
			}
		}
		if queued != 0 {
			t.Errorf("%s: %d hosts too many have something queued", when, queued)
		}
	}
	same(s, "written")
	if n := len(s.TakeEnqueued()); n != 6 || len(s.TakeEnqueued()) != 0 {
		t.Errorf("%d hosts were enqueued at", n)
	}
	after := storetest.Open(t, store.Options{Dir: "data", FS: fs.CrashClone(vfs.CrashCloneCfg{})})
	same(after, "after a crash")
	same(storetest.Open(t, store.Options{Dir: "data", FS: fs.CrashClone(vfs.CrashCloneCfg{}), ReadOnly: true}), "read only")
}

// inUse has a repository name a host, by a batch that is durable, and returns the host's id.
func inUse(t testing.TB, s *store.Store, host string) uint32 {
	t.Helper()
	id, err := s.HostID(host)
	if err != nil {
		t.Fatal(err)
	}
	edit(t, s, didAt(host), func(_ *store.Batch, r *store.Repo) error {
		r.State, r.Pending.Host = store.StateIdle, id
		return nil
	})
	return id
}

// didAt returns the repository that inUse makes name a host.
func didAt(host string) string {
	return "did:web:" + strings.NewReplacer(":", "-", "[", "v", "]", "").Replace(host)
}

// TestHostRows: the settings of a host are durable, and lists have every host once.
func TestHostRows(t *testing.T) {
	t.Parallel()
	fs := vfs.NewCrashableMem()
	s := storetest.Open(t, store.Options{Dir: "data", FS: fs, HostsMax: 12})
	for i := range 11 {
		inUse(t, s, fmt.Sprintf("h%02d.test", i))
	}
	limits := store.HostLimits{Concurrency: 3, PerDay: 7}
	if _, err := s.SetHost("new.test", func(row *store.HostRow) { row.Banned, row.Limits = true, limits }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.HostID("h11.test"); err == nil {
		t.Error("a thirteenth host was taken")
	}
	s = storetest.Open(t, store.Options{Dir: "data", FS: fs.CrashClone(vfs.CrashCloneCfg{})})
	if h, err := s.HostNamed("new.test"); err != nil || !h.Banned || h.Limits != limits || h.FirstSeen == 0 {
		t.Errorf("after a crash: %+v, %v", h, err)
	}
	if _, err := s.HostNamed("h11.test"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an unknown one: %v", err)
	}
	if err := s.NoteHosts([]uint32{1, 2}, func(id uint32, row *store.HostRow) { row.Bytes += int64(id); row.Error = "\xff down" }); err != nil {
		t.Fatal(err)
	}
	if h, _ := s.HostByID(2); h.Bytes != 2 || h.Error != " down" {
		t.Errorf("noted: %+v", h)
	}
	for _, limit := range []int{1, 5, 12, 100} {
		n, last := 0, ""
		for after := ""; ; {
			page, next, err := s.Hosts(after, limit, func(h *store.Host) bool { return h.Name != "h03.test" })
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range page {
				if h.Name <= last || h.Name == "h03.test" {
					t.Errorf("%s after %s", h.Name, last)
				}
				last = h.Name
				n++
			}
			if after = next; next == "" {
				break
			}
		}
		if n != 11 {
			t.Errorf("pages of %d have %d hosts", limit, n)
		}
	}
}

// TestSetHostWaitsAlone: while the settings of a host are being written to a slow disk, other
// callers can read hosts and count them.
func TestSetHostWaitsAlone(t *testing.T) {
	t.Parallel()
	var slow atomic.Bool
	began, free := make(chan struct{}, 100), make(chan struct{})
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if slow.Load() && op.Kind == errorfs.OpFileSyncData {
			began <- struct{}{}
			<-free
		}
		return nil
	}))
	s := storetest.Open(t, store.Options{FS: fs})
	slow.Store(true)
	set := make(chan error)
	go func() {
		_, err := s.SetHost("a.test", func(row *store.HostRow) { row.Banned = true })
		set <- err
	}()
	<-began
	h, err := s.HostNamed("a.test")
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	b.ForgeRepo(&store.Repo{DID: storetest.DID(1), State: store.StateIdle, Pending: store.PendingKey{Host: h.ID}})
	wait, err := b.Commit()
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-set:
		t.Errorf("it was set before it was durable: %v", err)
	default:
	}
	close(free)
	if err := errors.Join(<-set, wait()); err != nil {
		t.Fatal(err)
	}
	if h, _ := s.HostByID(h.ID); !h.Banned || h.Accounts != 1 {
		t.Errorf("it stands as %+v", h)
	}
}

// TestHostsOfOneSite: the owner of a domain or an address can make up any number of host names;
// they leave ids for other hosts, after a restart too.
func TestHostsOfOneSite(t *testing.T) {
	t.Parallel()
	fs := vfs.NewCrashableMem()
	s := storetest.Open(t, store.Options{Dir: "data", FS: fs, HostsMax: 640})
	used := map[uint32]bool{}
	for _, names := range []string{"h%d.evil.example", "%d.h.evil.example:81", "evil.example:%d", "10.0.0.1:%d", "10.0.%d.1", "[2001:db8::%d]", "[2001:db8::1]:%d"} {
		for i := 1; i < 40; i++ {
			if host := fmt.Sprintf(names, i); i < 20 {
				_, _ = s.HostID(host) // some are in use, and others of the site compete with them
			} else if id, err := s.HostID(host); err == nil {
				inUse(t, s, host)
				used[id] = true
			}
		}
	}
	for _, again := range []bool{false, true} {
		if again {
			s = storetest.Open(t, store.Options{Dir: "data", FS: fs.CrashClone(vfs.CrashCloneCfg{}), HostsMax: 640})
		}
		want := 2 * 10
		if again {
			want += 2
		}
		if all, _, err := s.Hosts("", 1000, nil); err != nil || len(all) != want {
			t.Errorf("%d hosts are known, not %d: %v", len(all), want, err)
		}
		for _, name := range []string{"x.evil.example", "10.0.0.1", "[2001:db8::f]"} {
			if id, err := s.HostID(name); err == nil {
				t.Errorf("%s became host %d", name, id)
			}
		}
		for id := range used {
			if _, ok := s.HostByID(id); !ok {
				t.Errorf("host %d has no name any more", id)
			}
		}
		for _, name := range []string{"h20.evil.example", "a.example", "localhost"} {
			if _, err := s.SetHost(name, func(*store.HostRow) {}); err != nil {
				t.Error(err)
			}
		}
	}
}
