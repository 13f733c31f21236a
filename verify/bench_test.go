package verify_test

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"
	"cistern/verify"

	"golang.org/x/sync/errgroup"
)

const (
	benchRepos   = 5000
	benchRecords = 1000 // of each
)

// benchCopy is a repository whose records have about 300 bytes, half of which compress.
func benchCopy(r store.Repo, n int) store.Import {
	const rev = "3k22222222222"
	rng := rand.New(rand.NewPCG(uint64(n), 0))
	leaves := make([]repo.Leaf, benchRecords)
	var tree repo.Tree
	var text [140]byte
	for i := range leaves {
		for j := range text {
			text[j] = byte(rng.Uint32())
		}
		body := storetest.Text(hex.EncodeToString(text[:]))
		key := fmt.Appendf(nil, "app.bsky.feed.c%d/%s", i*4/benchRecords, storetest.Rev(i))
		leaves[i] = repo.Leaf{Key: key, CID: repo.HashCID(body), Block: i, Record: body, Valid: true}
		tree.Add(key, leaves[i].CID)
	}
	data := tree.Root()
	return store.Import{DID: r.DID, Attempt: r.Attempt, Rev: rev, Blocks: len(leaves),
		Walk: func(fn func(repo.Leaf) error) error {
			for _, l := range leaves {
				if err := fn(l); err != nil {
					return err
				}
			}
			return nil
		},
		Complete: func(b *store.Batch, r *store.Repo) {
			b.Complete(r)
			r.Rev, r.Data, r.Commit = rev, data, storetest.Commit(r.DID, rev, data)
		}}
}

func benchStore(b *testing.B, repos int) *store.Store {
	b.Helper()
	s, err := store.Open(store.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	w := newWorld(b, s, 0)
	var left atomic.Int64
	left.Store(int64(repos))
	for n := range repos {
		wait, err := s.UpdateRepo(storetest.DID(n), func(b *store.Batch, r *store.Repo) error {
			b.Track(r, store.ByOperator, store.PriorityOperator)
			b.PutRepo(r)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		if n == repos-1 {
			if err := wait(); err != nil {
				b.Fatal(err)
			}
		}
	}
	var g errgroup.Group
	g.SetLimit(2)
	for n := range repos {
		g.Go(func() error {
			r, err := w.store.Repo(storetest.DID(n))
			if err != nil {
				return err
			}
			im := benchCopy(r, n)
			im.Done = func(_ store.Repo, err error) {
				if left.Add(-1); err != nil {
					b.Error(err)
				}
			}
			return s.Import(b.Context(), im)
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	if err := s.FlushImports(); err != nil || left.Load() != 0 {
		b.Fatalf("%d repositories are not stored, %v", left.Load(), err)
	}
	return s
}

// readers reads random records, one a millisecond, until ctx ends, and returns how long each took.
func readers(ctx context.Context, b *testing.B, s *store.Store, repos int) (took []time.Duration) {
	rng := rand.New(rand.NewPCG(1, 1))
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	for ctx.Err() == nil {
		<-t.C
		i := rng.IntN(benchRecords)
		began := time.Now()
		r, err := s.Repo(storetest.DID(rng.IntN(repos)))
		if err == nil {
			_, err = s.Record(&r, fmt.Sprintf("app.bsky.feed.c%d", i*4/benchRecords), storetest.Rev(i))
		}
		if took = append(took, time.Since(began)); err != nil {
			b.Error(err)
		}
	}
	slices.SortFunc(took, cmp.Compare[time.Duration])
	return took
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkVerify verifies a store of five million records on disk (of 100,000 with -short), with
// and without a reader of random records beside it. Run it with -benchtime 1x.
func BenchmarkVerify(b *testing.B) {
	repos := benchRepos
	if testing.Short() {
		repos = 100
	}
	s := benchStore(b, repos)
	for _, row := range []struct {
		share int // 0: only the reader, for ten seconds
		reads bool
	}{{100, false}, {25, false}, {0, true}, {100, true}, {25, true}} {
		b.Run(fmt.Sprintf("share=%d/reads=%v", row.share, row.reads), func(b *testing.B) {
			records := float64(repos * benchRecords * b.N)
			ctx, cancel := context.WithCancel(b.Context())
			var took []time.Duration
			var g errgroup.Group
			if row.reads {
				g.Go(func() error { took = readers(ctx, b, s, repos); return nil })
			}
			before := processorTime(b)
			for b.Loop() {
				if row.share == 0 {
					time.Sleep(10 * time.Second)
					continue
				}
				v, err := verify.New(verify.Options{Store: s, Share: row.share})
				if err == nil {
					err = v.Run(ctx, ignore)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			used := processorTime(b) - before
			cancel()
			if err := g.Wait(); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(100*used.Seconds()/b.Elapsed().Seconds(), "%CPU")
			if row.share > 0 {
				b.ReportMetric(records/b.Elapsed().Seconds(), "records/s")
				b.ReportMetric(float64(used.Nanoseconds())/records, "CPU-ns/record")
			}
			if row.reads {
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "read-p50-µs")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "read-p99-µs")
			}
		})
	}
}
