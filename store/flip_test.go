package store_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestFlipOfMany: a group has more members than one batch makes visible. A crash between two of the
// batches leaves the members of the first whole and nothing of the others, and no lease once the
// store is open.
func TestFlipOfMany(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	storetest.WithoutRace(t)
	t.Parallel()
	const repos, seed = 600, 3
	fs := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex // guards what follows
	var clones []*vfs.MemFS
	armed, first := false, true
	clone := func(percent int) *vfs.MemFS {
		return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
	}
	s, err := store.Open(store.Options{FS: fs, Dir: "db", GroupAge: time.Hour, Step: func(name string) {
		mu.Lock()
		defer mu.Unlock()
		for armed && name == "applied" && first {
			first = recordsOf(t, clone(0)) == 0 // until the first batch is durable, alone
		}
		for _, percent := range []int{0, 50, 100} {
			if armed {
				clones = append(clones, clone(percent))
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld()
	one := func(n int) storetest.Records {
		return storetest.Records{"app.test.a/1": storetest.Text(storetest.DID(n))}
	}
	for n := range repos {
		w.importRepo(t, s, storetest.DID(n+1), one(n+1))
	}
	// The same again, behind the first of the batches, must see what that batch made visible.
	r, err := s.Repo(storetest.DID(1))
	if err != nil {
		t.Fatal(err)
	}
	im := one(1).Import(r, storetest.Rev(9))
	dropped := 0
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			dropped++
		}
	}
	if err := s.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	armed = true
	mu.Unlock()
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	armed = false
	storetest.Check(t, s)
	w.equal(t, s)
	if dropped != 1 {
		t.Errorf("%d members were dropped", dropped)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	seen := map[int64]bool{}
	for _, clone := range clones {
		c, err := store.Open(store.Options{FS: clone, Dir: "db"})
		if err != nil {
			t.Fatal(err)
		}
		storetest.Check(t, c)
		seen[c.Counts()["records"]] = true
		leases := 0
		store.ScanRaw(c, store.SpaceLease, func(_, _ []byte) { leases++ })
		if leases != 0 {
			t.Errorf("%d leases after opening", leases)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(seen) < 3 || !seen[0] || !seen[repos] {
		t.Errorf("crashes left %v repositories", seen)
	}
}

// recordsOf returns the number of records in a clone.
func recordsOf(t *testing.T, clone *vfs.MemFS) int64 {
	s, err := store.Open(store.Options{FS: clone, Dir: "db"})
	if err != nil {
		t.Error(err)
		return -1
	}
	n := s.Counts()["records"]
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return n
}
