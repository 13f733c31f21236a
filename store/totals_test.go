package store_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// census is the expected totals and arrivals of a store, whose clock stands unless it is moved.
type census struct {
	*world
	hidden  map[string]bool
	now     time.Time
	arrived map[string]map[string]store.Arrivals // by day and collection
}

func newCensus() *census {
	return &census{world: newWorld(), hidden: map[string]bool{}, arrived: map[string]map[string]store.Arrivals{},
		now: time.Date(2026, 12, 1, 0, 30, 0, 0, time.UTC)}
}

func (c *census) arrive(collection string, a store.Arrivals) {
	day := c.now.Format(time.DateOnly)
	if c.arrived[day] == nil {
		c.arrived[day] = map[string]store.Arrivals{}
	}
	for _, name := range []string{"", collection} {
		sum := c.arrived[day][name]
		sum.Created, sum.Updated, sum.Deleted = sum.Created+a.Created, sum.Updated+a.Updated, sum.Deleted+a.Deleted
		c.arrived[day][name] = sum
	}
}

func collectionOf(path string) string {
	collection, _, _ := strings.Cut(path, "/")
	return collection
}

// differ notes what the log tells of a change of records.
func (c *census) differ(from, to storetest.Records) {
	for p, body := range to {
		switch old, had := from[p]; {
		case !had:
			c.arrive(collectionOf(p), store.Arrivals{Created: 1})
		case string(old) != string(body):
			c.arrive(collectionOf(p), store.Arrivals{Updated: 1})
		}
	}
	for p := range from {
		if _, has := to[p]; !has {
			c.arrive(collectionOf(p), store.Arrivals{Deleted: 1})
		}
	}
}

// step makes one random change.
func (c *census) step(t testing.TB, s *store.Store, rng *rand.Rand) {
	t.Helper()
	c.now = c.now.Add(time.Duration(rng.IntN(4)) * time.Duration(rng.IntN(20)) * time.Hour)
	did := storetest.DID(1 + rng.IntN(6))
	m, has := c.records[did]
	switch n := rng.IntN(12); {
	case !has:
		m = storetest.Records{}
		for p, body := range storetest.Random(rng, rng.IntN(12)) {
			if strings.Contains(p, "/") {
				m[p] = body
			}
		}
		c.hide(t, s, did, false)
		c.importRepo(t, s, did, m)
		if err := s.FlushImports(); err != nil {
			t.Fatal(err)
		}
		c.differ(nil, m)
	case n == 0:
		c.wipe(t, s, did)
		c.hidden[did] = false // nothing is left to hide
	case n < 4:
		c.hide(t, s, did, !c.hidden[did])
	case n == 4:
		c.forget(t, s, did, rng.IntN(2) == 0)
	default:
		was := maps.Clone(m)
		c.change(t, s, rng, did, rng.IntN(2) == 0)
		if !c.hidden[did] {
			c.differ(was, m)
		}
	}
}

// hide hides an account, or shows it again.
func (c *census) hide(t testing.TB, s *store.Store, did string, hidden bool) {
	t.Helper()
	defer s.Lock(did)()
	r, err := s.RepoOrNew(did)
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	if r.Status = store.StatusActive; hidden {
		r.State, r.Status = store.StateGone, store.StatusTakendown
	} else {
		r.State = store.StateIdle
		if r.Ordinal != 0 {
			if err := b.Relist(&r); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.Account(&r)
	b.ForgeRepo(&r)
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	c.hidden[did] = hidden
}

// forget deletes the records of an account and drops it, in one batch or in two.
func (c *census) forget(t testing.TB, s *store.Store, did string, together bool) {
	t.Helper()
	var ops []store.Op
	for p := range c.records[did] {
		ops = append(ops, drop(p))
	}
	dropRepo(t, s, did, ops, together)
	if !c.hidden[did] {
		c.differ(c.records[did], nil)
	}
	delete(c.records, did)
	delete(c.hidden, did)
}

// compare compares the totals and arrivals with the records that are expected.
func (c *census) compare(t testing.TB, s *store.Store) {
	t.Helper()
	want := map[string]store.CollectionTotal{"": {}}
	for did, m := range c.records {
		if c.hidden[did] {
			continue
		}
		names := map[string]bool{}
		for p := range m {
			for _, name := range []string{"", collectionOf(p)} {
				sum := want[name]
				sum.Collection = name
				sum.Records++
				if !names[name] {
					sum.Repos++
				}
				names[name], want[name] = true, sum
			}
		}
	}
	got := map[string]store.CollectionTotal{}
	all, err := s.CollectionTotals("", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, total := range append(all, store.CollectionTotal{}) {
		name := total.Collection
		again, days, err := s.CollectionTotal(name, store.DaysKept)
		if err != nil || name != "" && again != total {
			t.Errorf("total of %q: %+v, listed as %+v (%v)", name, again, total, err)
		}
		got[name] = again
		c.compareDays(t, name, days)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("totals (-want +got):\n%s", d)
	}
	if n := s.Counts()["collection_names"]; n != int64(len(want)-1) {
		t.Errorf("%d collections are counted, want %d", n, len(want)-1)
	}
}

func (c *census) compareDays(t testing.TB, name string, days []store.Day) {
	t.Helper()
	want, got := map[string]store.Arrivals{}, map[string]store.Arrivals{}
	for day, sums := range c.arrived {
		if a, ok := sums[name]; ok {
			want[day] = a
		}
	}
	for _, d := range days {
		got[d.Begin.Format(time.DateOnly)] = d.Arrivals
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("arrivals of %q (-want +got):\n%s", name, d)
	}
}

// TestTotals: after random histories of imports, commits, takedowns, returns, wipes and drops, and
// in clones of the file system that a crash leaves after each of them, the totals of collections and
// the arrivals of days are what a recomputation finds.
func TestTotals(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(20) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 31))
			c, fs := newCensus(), vfs.NewCrashableMem()
			o := store.Options{FS: fs, Dir: "db", Now: func() time.Time { return c.now }}
			s, err := store.Open(o)
			if err != nil {
				t.Fatal(err)
			}
			for range 40 {
				c.step(t, s, rng)
				switch rng.IntN(6) {
				case 0:
					store.ForgetTotals(s)
				case 1:
					crashed := o
					crashed.FS = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * rng.IntN(3), RNG: rng})
					again, err := store.Open(crashed)
					if err != nil {
						t.Fatal(err)
					}
					c.compare(t, again)
					storetest.Check(t, again)
					if err := again.Close(); err != nil {
						t.Error(err)
					}
				case 2:
					c.compare(t, s)
					storetest.Check(t, s)
				}
			}
			c.compare(t, s)
			storetest.Check(t, s)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDaysKept: the arrivals of the last days are kept, however far apart these days are.
func TestDaysKept(t *testing.T) {
	t.Parallel()
	c := newCensus()
	s := storetest.Open(t, store.Options{Now: func() time.Time { return c.now }})
	did := storetest.DID(1)
	importBy(t, s, did, storetest.Records{"app.test.once/1": storetest.Text("x")}, 0, storetest.Rev(1))
	const days = store.DaysKept + 20
	for i := range days {
		c.now = c.now.Add(24 * time.Hour)
		if i == days/2 {
			c.now = c.now.Add(50 * 24 * time.Hour)
		}
		amend(t, s, did, storetest.Rev(2+i), func(*store.Repo) {}, put(fmt.Sprint("app.test.a/", i), "x"))
	}
	rows := 0
	if err := store.ScanRaw(s, store.SpaceDay, func(key, _ []byte) {
		if _, name, err := store.ParseDayKey(key); err == nil && len(name) == 0 {
			rows++
		}
	}); err != nil {
		t.Fatal(err)
	}
	if rows != store.DaysKept {
		t.Errorf("%d days have rows, want %d", rows, store.DaysKept)
	}
	_, got, err := s.CollectionTotal("app.test.a", days+100)
	if err != nil || len(got) != store.DaysKept+1 || !got[len(got)-1].Begin.Equal(c.now.Truncate(24*time.Hour)) {
		t.Errorf("%d days, want %d (%v)", len(got), store.DaysKept+1, err)
	}
	// The day of the import is too old by now: its arrivals are in the total's own row only.
	amend(t, s, did, storetest.Rev(days+2), func(*store.Repo) {}, drop("app.test.once/1"))
	if _, got, err := s.CollectionTotal("app.test.once", days+100); err != nil || len(got) != 1 || got[0].Deleted != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestTotalsPaging: pages of any size, joined, are the list, also of a prefix.
func TestTotalsPaging(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	m := storetest.Records{}
	names := []string{"app.a.b", "app.a.b.c", "app.a.bc", "app.a0.b", "app.b.a", "b.c.d"}
	for _, name := range names {
		m[name+"/1"] = storetest.Text("x")
	}
	importBy(t, s, storetest.DID(1), m, 0, storetest.Rev(1))
	for _, prefix := range []string{"", "app.", "app.a", "app.a.b", "app.a.b.", "c"} {
		want := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasPrefix(n, prefix) })
		for limit := 1; limit <= len(names)+1; limit++ {
			var got []string
			for after := ""; ; after = got[len(got)-1] {
				page, err := s.CollectionTotals(prefix, after, limit)
				if err != nil || len(page) > limit {
					t.Fatal(len(page), err)
				}
				if len(page) == 0 {
					break
				}
				for _, c := range page {
					got = append(got, c.Collection)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("prefix %q by %d: %q, want %q", prefix, limit, got, want)
			}
		}
	}
}

// TestTotalsTwice: a batch that writes a row several times counts each change once, and takes back
// all of them when it hides the account.
func TestTotalsTwice(t *testing.T) {
	t.Parallel()
	for _, hide := range []bool{false, true} {
		s := storetest.Open(t, store.Options{})
		did := storetest.DID(1)
		importBy(t, s, did, storetest.Records{"app.test.a/1": storetest.Text("x")}, 0, storetest.Rev(1))
		r, err := s.Repo(did)
		if err != nil {
			t.Fatal(err)
		}
		b := s.NewBatch()
		ops := []store.Op{put("app.test.a/2", "y"), put("app.test.b/1", "z")}
		if err := b.Apply(&r, true, r.Rev, ops); err != nil {
			t.Fatal(err)
		}
		b.PutRepo(&r)
		b.PutRepo(&r)
		var want []store.CollectionTotal
		if hide {
			r.Status = store.StatusTakendown
			b.PutRepo(&r)
		} else {
			want = []store.CollectionTotal{{Collection: "app.test.a", Repos: 1, Records: 2},
				{Collection: "app.test.b", Repos: 1, Records: 1}}
		}
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
		got, err := s.CollectionTotals("", "", 10)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("hidden: %v: %v (-want +got):\n%s", hide, err, d)
		}
	}
}

// TestTotalsHeld: totals that a batch is about to change stay in memory, also when many others come,
// and other batches change the same ones.
func TestTotalsHeld(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	for n := range 2 {
		importBy(t, s, storetest.DID(n), storetest.Records{"app.test.a/1": storetest.Text("x")}, 0, storetest.Rev(1))
	}
	r, err := s.Repo(storetest.DID(0))
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	if err := b.Apply(&r, true, r.Rev, []store.Op{put("app.test.a/2", "y")}); err != nil {
		t.Fatal(err)
	}
	b.PutRepo(&r)
	for n := range 3 {
		store.ForgetTotals(s)
		amend(t, s, storetest.DID(1), storetest.Rev(2+n), func(*store.Repo) {}, put(fmt.Sprint("app.test.a/9", n), "y"))
	}
	store.ForgetTotals(s)
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	got, _, err := s.CollectionTotal("app.test.a", 0)
	if want := (store.CollectionTotal{Collection: "app.test.a", Repos: 2, Records: 6}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if n := store.TotalsInMemory(s); n > 2 {
		t.Errorf("%d totals are in memory", n)
	}
}

// TestTotalsBounded: however many collections there are, few totals are in memory.
func TestTotalsBounded(t *testing.T) {
	storetest.WithoutRace(t) // one goroutine, many rows
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	const repos, each = 6, 5000
	for n := range repos {
		m := storetest.Records{}
		for i := range each {
			m[fmt.Sprintf("app.test.x%dx%d/1", n, i)] = storetest.Text("x")
		}
		importBy(t, s, storetest.DID(n), m, 0, storetest.Rev(1))
	}
	if n := store.TotalsInMemory(s); n > 2*(store.TotalsCached+each) {
		t.Errorf("%d totals are in memory", n)
	}
	for _, status := range []store.Status{store.StatusTakendown, store.StatusActive} {
		amend(t, s, storetest.DID(0), storetest.Rev(2), func(r *store.Repo) { r.Status = status })
		want := map[store.Status]int64{store.StatusTakendown: (repos - 1) * each, store.StatusActive: repos * each}[status]
		if got := s.Counts()["collection_names"]; got != want {
			t.Errorf("%s: %d collections, want %d", status, got, want)
		}
	}
}

// TestTotalsRepaired: wrong totals are found and corrected by the comparison of a store in use.
func TestTotalsRepaired(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	s, err := store.Open(store.Options{FS: fs, Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		importBy(t, s, storetest.DID(n), storetest.Records{"app.test.a/1": storetest.Text("x"), "app.test.b/1": storetest.Text("x")}, 0, storetest.Rev(1))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	storetest.Damage(t, fs, "db", func(d *storetest.Damager) {
		for name, wrong := range map[string]int64{"app.test.a": 1, "app.test.b": 9, "": 2} {
			d.Edit(store.TotalKey(nil, []byte(name)), func(v []byte) []byte {
				total, err := store.ParseTotal(v)
				if err != nil {
					t.Fatal(err)
				}
				total.Repos, total.Records = wrong, wrong
				return total.Append(nil)
			})
		}
		d.Add(store.TotalKey(nil, []byte("app.test.c")), store.Total{Repos: 2, Records: 3}.Append(nil))
	})
	s = storetest.Open(t, store.Options{FS: fs, Dir: "db"})
	for _, want := range []int{5, 0} {
		got, err := s.RepairCounters(func() error { return nil })
		if err != nil || len(got) != want {
			t.Errorf("%d differences, want %d: %q, %v", len(got), want, got, err)
		}
	}
	total, _, err := s.CollectionTotal("", 0)
	if want := (store.CollectionTotal{Repos: 3, Records: 6}); err != nil || total != want {
		t.Errorf("%+v, %v", total, err)
	}
}
