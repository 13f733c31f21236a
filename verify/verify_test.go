package verify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/backfill/refilter"
	"cistern/filter"
	"cistern/gate"
	"cistern/loop"
	"cistern/store"
	"cistern/store/storetest"
	"cistern/verify"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

func ignore(string, int64, int64) {}

// verifier has the logs and metrics of a Verifier.
type verifier struct {
	*verify.Verifier
	log    bytes.Buffer
	reg    *prometheus.Registry
	queued int
}

func newVerifier(t testing.TB, s *store.Store) *verifier {
	t.Helper()
	v := &verifier{reg: prometheus.NewRegistry()}
	var err error
	v.Verifier, err = verify.New(verify.Options{Store: s, Share: 100, Registerer: v.reg,
		Queued: func() { v.queued++ }, Logger: slog.New(slog.NewTextHandler(&v.log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// count returns the sum of a metric.
func (v *verifier) count(t testing.TB, name string) (n float64) {
	t.Helper()
	all, err := v.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.Metric {
			if f.GetName() == name {
				n += m.Counter.GetValue()
			}
		}
	}
	return n
}

func open(t testing.TB, fs vfs.FS) *store.Store {
	t.Helper()
	s, err := store.Open(store.Options{FS: fs, Dir: "db", GroupAge: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closed(t testing.TB, s *store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRepairs: a run names a repository with a changed body and one with a wrong count, counts both,
// corrects the count, and queues the other, whose copy then makes the store whole.
func TestRepairs(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	s := open(t, fs)
	w := newWorld(t, s, 1)
	for n := range 5 {
		w.hold(storetest.DID(n), storetest.Random(w.rng, 50))
	}
	victim, other := storetest.DID(2), storetest.DID(3)
	r, err := s.Repo(victim)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Repo(other)
	if err != nil {
		t.Fatal(err)
	}
	names, err := s.Collections(&o)
	if err != nil {
		t.Fatal(err)
	}
	closed(t, s)
	storetest.Damage(t, fs, "db", func(d *storetest.Damager) {
		d.Edit(d.Key('b', r.Ordinal, []byte{0, 0, 0, 0}), func(v []byte) []byte { v[len(v)-1] ^= 1; return v })
		count := append([]byte{'d'}, names[0]+"\x00"...)
		d.Edit(append(count, d.Key(0, o.Ordinal, nil)[1:]...), func(v []byte) []byte { v[0]++; return v })
	})
	s = open(t, fs)
	defer closed(t, s)
	w.store = s
	v := newVerifier(t, s)
	err = v.Run(t.Context(), ignore)
	var found *verify.DifferencesError
	if !errors.As(err, &found) || found.Repos != 2 || found.Differences < 2 || errors.Is(err, store.ErrCorrupt) ||
		!strings.Contains(err.Error(), "the first: "+victim+": record ") {
		t.Fatalf("the result is %v", err)
	}
	for _, want := range []string{"did=" + victim, "did=" + other, "its body hashes to",
		"collection " + names[0], `then=corrected`, `then="queued for another copy"`} {
		if !strings.Contains(v.log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, &v.log)
		}
	}
	if n := v.count(t, "cistern_verify_differences_total"); n != float64(found.Differences) {
		t.Errorf("%v differences are counted, %d found", n, found.Differences)
	}
	row, err := s.Repo(victim)
	if err != nil || row.State != store.StatePending || !row.Torn || v.queued == 0 {
		t.Errorf("the damaged repository is %s, torn %v, %v", row.State, row.Torn, err)
	}
	w.fetched(victim)
	if err := v.Run(t.Context(), ignore); err != nil {
		t.Errorf("after the copy: %v", err)
	}
	storetest.Check(t, s)
}

// TestRepairsOnce: a repository that is damaged again at the same rev is not queued again.
func TestRepairsOnce(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	s := open(t, fs)
	w := newWorld(t, s, 1)
	did := storetest.DID(1)
	w.hold(did, storetest.Records{"app.test.a/1": storetest.Text("x"), "app.test.a/2": storetest.Text("y")})
	v := newVerifier(t, s)
	lie := func() { // the records no longer make the root, and no row tells it
		w.update(did, func(b *store.Batch, r *store.Repo) error {
			r.Data = w.records[did].Root()
			r.Data[1] ^= 1
			r.Commit = storetest.Commit(did, r.Rev, r.Data)
			b.PutRepo(r)
			return nil
		})
	}
	for n := range 2 {
		lie()
		if err := v.Run(t.Context(), ignore); !errors.As(err, new(*verify.DifferencesError)) {
			t.Fatalf("the result is %v", err)
		}
		r, err := s.Repo(did)
		if err != nil {
			t.Fatal(err)
		}
		if r.Torn != (n == 0) || v.queued != 1 {
			t.Errorf("run %d: torn %v, queued %d times", n, r.Torn, v.queued)
		}
		// A fetch of the same rev.
		w.update(did, func(b *store.Batch, r *store.Repo) error {
			if r.Torn = false; r.State != store.StateSynced {
				b.Complete(r)
			}
			b.PutRepo(r)
			return nil
		})
	}
	if !strings.Contains(v.log.String(), "another copy of this rev did not repair it") {
		t.Errorf("the log does not say so:\n%s", &v.log)
	}
	closed(t, s)
}

// TestResume: runs that are cancelled at random, over a store that is closed and opened in between,
// look at every repository exactly once.
func TestResume(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			fs := vfs.NewMem()
			s := open(t, fs)
			w := newWorld(t, s, seed)
			copies := 1 + w.rng.IntN(30)
			for n := range 40 {
				if n < copies {
					w.hold(storetest.DID(n), storetest.Random(w.rng, w.rng.IntN(20)))
				} else {
					w.update(storetest.DID(n), func(b *store.Batch, r *store.Repo) error {
						b.Track(r, store.ByOperator, store.PriorityOperator)
						b.PutRepo(r)
						return nil
					})
				}
			}
			seen := map[string]int{}
			for runs, ended := 0, false; !ended; runs++ {
				if runs > 100 {
					t.Fatal("the walk does not move on")
				}
				ctx, cancel := context.WithCancel(t.Context())
				steps := 1 + w.rng.IntN(10)
				err := newVerifier(t, s).Run(ctx, func(did string, done, total int64) {
					seen[did]++
					if steps--; steps == 0 {
						cancel()
					}
					if done < int64(len(seen))-1 || total != 40 {
						t.Errorf("%d of %d are done after %d copies", done, total, len(seen)-1)
					}
				})
				cancel()
				if ended = err == nil; !ended && !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				closed(t, s)
				s = open(t, fs)
			}
			for n := range copies {
				if seen[storetest.DID(n)] != 1 {
					t.Errorf("DID %d was seen %d times", n, seen[storetest.DID(n)])
				}
			}
			at, err := s.VerifyCursor()
			if err != nil || at != (store.VerifyCursor{}) || len(seen) != copies {
				t.Errorf("%d of %d copies were seen, and the place is %+v (%v)", len(seen), copies, at, err)
			}
			closed(t, s)
		})
	}
}

// TestNoFalseDifference runs walks beside imports, live commits, fetches, deletions, prunings and
// changes of the filter, with the pass that adapts repositories to it. None may find a difference.
func TestNoFalseDifference(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			s := storetest.Open(t, store.Options{GroupAge: time.Millisecond})
			v, w := newVerifier(t, s), newWorld(t, s, seed)
			w.hold(storetest.DID(0), storetest.Random(rand.New(rand.NewPCG(seed, 1)), 5000))
			r, err := refilter.New(refilter.Options{Store: s, Gate: new(gate.Gate),
				WorksBefore: func(version uint32) bool { return w.using.Load() < version }, Queued: func(uint32) {}, Due: func(int64) {},
				DeadDelay: func() time.Duration { return time.Hour }})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			walks := 0
			var g errgroup.Group
			g.Go(func() error { return loop.Quiet(ctx, r.Run(ctx)) })
			g.Go(func() error {
				for ctx.Err() == nil {
					if err := v.Run(ctx, ignore); loop.Quiet(ctx, err) != nil {
						return err
					}
					walks++
				}
				return nil
			})
			for range 120 {
				w.step(r.Wake)
			}
			cancel()
			if err := g.Wait(); err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, err, &v.log)
			}
			if err := v.Run(t.Context(), ignore); err != nil {
				t.Errorf("at the end: %v", err)
			}
			if n := v.count(t, "cistern_verify_differences_total"); n != 0 {
				t.Errorf("seed %d: %v differences were counted", seed, n)
			}
			t.Logf("seed %d: %d walks, %v looks", seed, walks,
				v.count(t, "cistern_verify_repos_total"))
		})
	}
}

// step makes one random change.
func (w *world) step(filtered func()) {
	w.t.Helper()
	did := storetest.DID(w.rng.IntN(8))
	row, err := w.store.RepoOrNew(did)
	if err != nil {
		w.t.Fatal(err)
	}
	switch n := w.rng.IntN(20); {
	case n == 0:
		c := filter.Config{Store: []string{filter.StoreWanted, filter.StoreAll}[w.rng.IntN(2)]}
		for i := range w.rng.IntN(3) {
			c.Collections = append(c.Collections, fmt.Sprintf("app.test.c%d", i+w.rng.IntN(3)))
		}
		if _, err := w.store.SetFilter(c); err != nil && !errors.Is(err, store.ErrFilters) {
			w.t.Fatal(err)
		}
		filtered()
	case n == 1:
		if err := w.store.Prune(w.t.Context(), func(_, _ int64) {}); err != nil {
			w.t.Fatal(err)
		}
	case n == 2:
		if err := w.store.CollectGarbage(w.t.Context(), func(_, _ int64) {}); err != nil {
			w.t.Fatal(err)
		}
	case row.Ordinal == 0:
		w.hold(did, storetest.Random(w.rng, w.rng.IntN(100)))
	case n == 3 && did != storetest.DID(0) && row.State == store.StateSynced:
		if w.wipe(did); w.rng.IntN(2) == 0 {
			w.drop(did)
		}
	case row.State == store.StatePending, n == 4 && row.State == store.StateSynced:
		w.update(did, func(b *store.Batch, r *store.Repo) error {
			b.Enqueue(r, store.PriorityOperator)
			b.PutRepo(r)
			return nil
		})
		w.fetched(did)
	default:
		for range w.rng.IntN(6) {
			w.live(did)
		}
	}
}

// TestShare: a walk works for its share of the time, whatever the length of its pieces of work.
func TestShare(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ share, pieces, millis int }{
		{100, 10, 50}, {25, 10, 50}, {25, 1000, 3}, {1, 3, 40}, {50, 1, 700},
	} {
		synctest.Test(t, func(t *testing.T) {
			rest := verify.Rest(row.share)
			begin := time.Now()
			for range row.pieces {
				time.Sleep(time.Duration(row.millis) * time.Millisecond) // the work
				if err := rest(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			worked := time.Duration(row.pieces*row.millis) * time.Millisecond
			want, took := worked*100/time.Duration(row.share), time.Since(begin)
			// Work of less than restMin may not have had its rest yet.
			if took > want || want-took > 10*time.Millisecond*time.Duration(100/row.share) {
				t.Errorf("share %d: %s of work took %s, want %s", row.share, worked, took, want)
			}
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			begin = time.Now()
			for err := error(nil); err == nil; err = rest(ctx) {
				time.Sleep(500 * time.Millisecond)
			}
			if took := time.Since(begin); took > 1500*time.Millisecond {
				t.Errorf("share %d: cancelled after 1 s, it ended after %s", row.share, took)
			}
		})
	}
}

// TestOptions: New refuses what is wrong, all at once.
func TestOptions(t *testing.T) {
	t.Parallel()
	_, err := verify.New(verify.Options{Share: 101})
	if err == nil || !strings.Contains(err.Error(), "no store") || !strings.Contains(err.Error(), "101 percent") {
		t.Errorf("the error is %v", err)
	}
}
