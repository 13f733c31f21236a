package store_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// set puts a filter in force.
func set(t testing.TB, s *store.Store, c filter.Config) store.FilterVersion {
	t.Helper()
	f, err := s.SetFilter(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFilterExcludes: a change of the excludes alone is a version without a new selection; it is in
// force at once, also after a restart.
func TestFilterExcludes(t *testing.T) {
	t.Parallel()
	o := store.Options{FS: vfs.NewMem(), Dir: "db"}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	c := filter.Config{Collections: []string{"app.test.a"}}
	first := set(t, s, c)
	for i := range 10 {
		c.Excludes = append(c.Excludes, storetest.DID(i))
		f := set(t, s, c)
		if f.Version != uint32(i+2) || f.Selection != first.Selection ||
			!f.Excluded(storetest.DID(i)) || f.Readmitted != 0 {
			t.Errorf("after %d excludes: %+v", i+1, f)
		}
	}
	c.Excludes = c.Excludes[5:]
	f := set(t, s, c)
	if f.Version != 12 || f.Readmitted != 12 || !f.DiscoversSince(11) || f.DiscoversSince(12) {
		t.Errorf("after excludes were removed: %+v", f)
	}
	for range 2 {
		if d := cmp.Diff([]uint32{0, 1}, s.Selections()); d != "" {
			t.Errorf("selections (-want +got):\n%s", d)
		}
		f, err := s.FilterAt(1)
		if err != nil || len(f.Config().Excludes) != 0 || f.Excluded(storetest.DID(7)) {
			t.Errorf("the selection excludes %v, %v", f.Config().Excludes, err)
		}
		if f := s.Filter(); f.Version != 12 || f.Selection != 1 ||
			f.Excluded(storetest.DID(4)) || !f.Excluded(storetest.DID(7)) {
			t.Errorf("in force is %+v", f)
		}
		storetest.Check(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = store.Open(o); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestFilterManyChanges: the filter can be changed any number of times, as long as selections that
// no row names are deleted. At the maximum of selections, SetFilter returns an error that says what
// to wait for. Excludes can be changed all the same.
func TestFilterManyChanges(t *testing.T) {
	storetest.WithoutRace(t)
	t.Parallel()
	o := store.Options{FS: vfs.NewMem(), Dir: "db"}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	store.SetVersion(s, 1<<16-100)
	nth := func(i int) filter.Config { return only(fmt.Sprintf("app.test.c%d", i), "") }
	for i := range store.SelectionsMax {
		if f := set(t, s, nth(i)); f.Version != uint32(1<<16-99+i) || f.Selection != f.Version {
			t.Fatalf("change %d is %+v", i, f)
		}
	}
	version := s.Filter().Version
	if _, err := s.SetFilter(nth(1_000_000)); !errors.Is(err, store.ErrFilters) {
		t.Errorf("one too many: %v", err)
	}
	excluding := nth(store.SelectionsMax - 1)
	excluding.Excludes = []string{storetest.DID(1)}
	if f := set(t, s, excluding); f.Selection != version || f.Version != version+1 {
		t.Errorf("excludes: %+v", f)
	}
	m := storetest.Records{"app.test.c5/1": storetest.Text("x")}
	importBy(t, s, storetest.DID(1), m, 1<<16-94, storetest.Rev(1))
	n, err := s.DropSelections(math.MaxUint32, map[uint32]bool{1<<16 - 94: true})
	if err != nil || n != store.SelectionsMax-2 {
		t.Errorf("%d were deleted: %v", n, err)
	}
	for range 2 {
		if d := cmp.Diff([]uint32{0, 1<<16 - 94, version}, s.Selections()); d != "" {
			t.Errorf("selections (-want +got):\n%s", d)
		}
		if _, err := s.FilterAt(version - 1); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("a deleted one: %v", err)
		}
		storetest.Check(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = store.Open(o); err != nil {
			t.Fatal(err)
		}
	}
	if f := set(t, s, nth(1_000_000)); f.Version != version+2 || f.Selection != version+2 {
		t.Errorf("then: %+v", f)
	}
	store.SetVersion(s, math.MaxUint32-1)
	set(t, s, nth(1_000_001))
	if _, err := s.SetFilter(nth(1_000_002)); err == nil {
		t.Error("versions begin anew")
	}
	storetest.Check(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestFilterDiscovers compares DiscoversSince with all filters that were in force, through random
// changes: it is exact while all of them are kept, and never wrongly false once some are deleted,
// after a restart too.
func TestFilterDiscovers(t *testing.T) {
	t.Parallel()
	for _, drops := range []bool{false, true} {
		t.Run(fmt.Sprint("drops=", drops), func(t *testing.T) {
			t.Parallel()
			rng := seeded(t)
			fs := vfs.NewCrashableMem()
			s := storetest.Open(t, store.Options{FS: fs, Dir: "db"})
			was := []*filter.Filter{new(filter.Filter)} // by version
			needless := 0
			for range 150 {
				var c filter.Config
				if rng.IntN(3) == 0 {
					c.Mode = filter.ModeFull
				}
				for i := range 4 {
					if rng.IntN(2) == 0 {
						c.Signals = append(c.Signals, fmt.Sprintf("app.test.s%d", i))
					}
					if rng.IntN(4) == 0 {
						c.Excludes = append(c.Excludes, storetest.DID(i))
					}
				}
				f := set(t, s, c)
				if int(f.Version) == len(was) {
					was = append(was, f.Filter)
				}
				for since := range was {
					want := slices.ContainsFunc(was[since:], func(g *filter.Filter) bool {
						return f.Discovers(g) || readmits(f.Filter, g)
					})
					got := f.DiscoversSince(uint32(since))
					if got && !want {
						needless++
					}
					// It is not recorded which account was readmitted, and excluded again since.
					exact := !drops && uint32(since) >= f.Readmitted
					if want && !got || got && !want && exact {
						t.Fatalf("version %d since %d: %v, want %v", f.Version, since, got, want)
					}
				}
				if drops && rng.IntN(4) == 0 {
					kept := s.Selections()
					named := map[uint32]bool{kept[rng.IntN(len(kept))]: true}
					if _, err := s.DropSelections(kept[rng.IntN(len(kept))], named); err != nil {
						t.Fatal(err)
					}
				}
				if rng.IntN(20) == 0 {
					storetest.Check(t, s)
					fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
					s = storetest.Open(t, store.Options{FS: fs, Dir: "db"})
				}
			}
			t.Logf("%d times without need", needless)
		})
	}
}

// readmits reports whether f follows an account that g excludes.
func readmits(f, g *filter.Filter) bool {
	return slices.ContainsFunc(g.Config().Excludes, func(did string) bool { return !f.Excluded(did) })
}

// TestDropSelectionsCrash clones the file system at each step at which selections are added and
// deleted: a clone has either all of the selections that were to be deleted or none of them, has
// those that rows name in any case, and continues from there.
func TestDropSelectionsCrash(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	fs := storetest.NewCrashFS()
	type crash struct {
		fs   *storetest.CrashFS
		step string
	}
	var crashes []crash
	deleting := false
	s := storetest.Open(t, store.Options{FS: fs, Dir: "db", Step: func(name string) {
		for _, percent := range []int{0, 50, 100} {
			if deleting {
				crashes = append(crashes, crash{fs.Clone(rng, percent), name})
			}
		}
	}})
	for i := range 8 {
		set(t, s, only(fmt.Sprintf("app.test.c%d", i), ""))
	}
	m := storetest.Records{"app.test.c2/1": storetest.Text("x"), "app.test.c7/1": storetest.Text("y")}
	importBy(t, s, storetest.DID(1), m, 3, storetest.Rev(1))
	importBy(t, s, storetest.DID(2), m, 8, storetest.Rev(1))
	deleting = true
	before := s.Selections()
	if n, err := s.DropSelections(8, map[uint32]bool{3: true, 8: true}); n != 6 || err != nil {
		t.Fatalf("%d were deleted: %v", n, err)
	}
	after := s.Selections()
	if n, err := s.DropSelections(8, map[uint32]bool{3: true}); n != 0 || err != nil {
		t.Errorf("%d more were deleted: %v", n, err)
	}
	crashes = append(crashes, crash{fs.Clone(rng, 0), "end"})
	deleting = false
	if len(crashes) < 5 {
		t.Fatalf("%d crashes", len(crashes))
	}
	for i, c := range crashes {
		again := storetest.Open(t, store.Options{FS: c.fs, Dir: "db"})
		storetest.Check(t, again)
		got := again.Selections()
		durable := c.step == "end" || c.step == "synced"
		if !slices.Equal(got, after) && (durable || !slices.Equal(got, before)) {
			t.Errorf("crash %d, %s: selections are %v", i, c.step, got)
		}
		if f := again.Filter(); f.Version != 8 || f.Selection != 8 {
			t.Errorf("crash %d: in force is %+v", i, f)
		}
		n, err := again.DropSelections(8, map[uint32]bool{3: true})
		if err != nil || !slices.Equal(again.Selections(), after) {
			t.Errorf("crash %d: %d were deleted then, %v: %v", i, n, err, again.Selections())
		}
		if f := set(t, again, only("app.test.new", "")); f.Version != 9 || f.Selection != 9 {
			t.Errorf("crash %d: %+v", i, f)
		}
	}
}
