package verify_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"
)

// world has the true records of repositories, and writes them into a store as fetches and firehoses
// do. It is not for concurrent use.
type world struct {
	t       testing.TB
	store   *store.Store
	rng     *rand.Rand
	records map[string]storetest.Records // by DID
	revNo   int
	using   atomic.Uint32 // version of the filter by which a fetch chooses records, math.MaxUint32 for none
}

func newWorld(t testing.TB, s *store.Store, seed uint64) *world {
	w := &world{t: t, store: s, rng: rand.New(rand.NewPCG(seed, 0)), records: map[string]storetest.Records{}}
	w.using.Store(math.MaxUint32)
	return w
}

// begin begins a fetch with the filter in force, which it returns.
func (w *world) begin(did string) (by store.FilterVersion, end func()) {
	w.using.Store(0)
	by = w.store.Filter()
	w.using.Store(by.Version)
	unlock := w.store.Lock(did)
	w.store.BeginFetch(did)
	unlock()
	return by, func() {
		unlock := w.store.Lock(did)
		w.store.EndFetch(did)
		unlock()
		w.using.Store(math.MaxUint32)
	}
}

func (w *world) rev() string { w.revNo++; return storetest.Rev(w.revNo) }

func (w *world) update(did string, change func(b *store.Batch, r *store.Repo) error) {
	w.t.Helper()
	wait, err := w.store.UpdateRepo(did, change)
	if err == nil {
		err = wait()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// hold makes the first copy of a repository.
func (w *world) hold(did string, m storetest.Records) {
	w.t.Helper()
	w.update(did, func(b *store.Batch, r *store.Repo) error {
		if r.Tracked == store.Untracked {
			b.Track(r, store.ByOperator, store.PriorityOperator)
		}
		b.PutRepo(r)
		return nil
	})
	r, err := w.store.Repo(did)
	if err != nil {
		w.t.Fatal(err)
	}
	by, end := w.begin(did)
	defer end()
	im := m.Import(r, w.rev())
	im.Filter = by.Selection
	done := make(chan error, 1)
	im.Done = func(_ store.Repo, err error) { done <- err }
	complete := im.Complete
	im.Complete = func(b *store.Batch, r *store.Repo) { r.Filter = im.Filter; complete(b, r) }
	if err := errors.Join(w.store.Import(w.t.Context(), im), w.store.FlushImports(), <-done); err != nil {
		w.t.Fatal(err)
	}
	w.records[did] = m
}

// live applies a commit with random changes.
func (w *world) live(did string) {
	w.t.Helper()
	m, rev := w.records[did], w.rev()
	paths := m.Paths()
	changed := map[string]bool{}
	var ops []store.Op
	for range 1 + w.rng.IntN(5) {
		p := fmt.Sprintf("app.test.c%d/%s", w.rng.IntN(5), storetest.Rev(w.rng.IntN(1<<30)))
		if len(paths) > 0 && w.rng.IntN(3) > 0 {
			p = paths[w.rng.IntN(len(paths))]
		}
		if changed[p] {
			continue
		}
		changed[p] = true
		if w.rng.IntN(3) == 0 {
			delete(m, p)
			ops = append(ops, store.Op{Path: []byte(p)})
			continue
		}
		m[p] = storetest.Text(fmt.Sprint("live ", w.rng.IntN(1000)))
		ops = append(ops, store.Op{Path: []byte(p), CID: repo.HashCID(m[p]), Record: m[p]})
	}
	w.update(did, func(b *store.Batch, r *store.Repo) error {
		if r.State != store.StateSynced {
			return nil // as its shard does: the next copy has the changes
		}
		if err := b.Apply(r, true, rev, ops); err != nil {
			return err
		}
		w.commit(r, rev)
		b.PutRepo(r)
		return nil
	})
}

func (w *world) commit(r *store.Repo, rev string) {
	r.Rev, r.Data = rev, w.records[r.DID].Root()
	r.Commit = storetest.Commit(r.DID, rev, r.Data)
}

// fetched writes the difference between a repository and its true records, as a fetch does, in one
// or two batches.
func (w *world) fetched(did string) {
	w.t.Helper()
	by, end := w.begin(did)
	defer end()
	m, rev := w.records[did], w.rev()
	row, err := w.store.Repo(did)
	if err != nil {
		w.t.Fatal(err)
	}
	rows, err := w.store.Rows(row.Ordinal)
	if err != nil {
		w.t.Fatal(err)
	}
	has := map[string]bool{}
	var ops []store.Op
	for rows.Next() {
		at := rows.Row()
		op := store.Op{Path: append([]byte{}, at.Path...), Keep: true}
		has[string(op.Path)] = true
		if body, ok := m[string(op.Path)]; !ok {
			op.Keep = false
		} else if repo.HashCID(body) != at.CID {
			op = store.Op{Path: op.Path, CID: repo.HashCID(body), Record: body}
		}
		ops = append(ops, op)
	}
	if err := rows.Close(); err != nil {
		w.t.Fatal(err)
	}
	for _, p := range m.Paths() {
		if !has[p] {
			ops = append(ops, store.Op{Path: []byte(p), CID: repo.HashCID(m[p]), Record: m[p]})
		}
	}
	cut := w.rng.IntN(len(ops) + 1)
	for last, part := range [][]store.Op{ops[:cut], ops[cut:]} {
		w.update(did, func(b *store.Batch, r *store.Repo) error {
			if r.Filter != by.Selection {
				r.Filter, r.Sweep = by.Selection, true
			}
			r.Torn = true
			if err := b.Apply(r, false, rev, part); err != nil {
				return err
			}
			if last == 1 {
				r.Torn, r.Sweep, r.Lacks = false, false, false
				w.commit(r, rev)
				b.Complete(r)
			}
			b.PutRepo(r)
			return nil
		})
	}
}

// wipe removes the data of a repository, and leaves it to be fetched again.
func (w *world) wipe(did string) {
	w.t.Helper()
	w.update(did, func(b *store.Batch, r *store.Repo) error {
		if err := b.Wipe(r); err != nil {
			return err
		}
		b.Enqueue(r, store.PriorityOperator)
		b.PutRepo(r)
		return nil
	})
}

// drop forgets a repository without records.
func (w *world) drop(did string) {
	w.t.Helper()
	w.update(did, func(b *store.Batch, r *store.Repo) error { return b.DropRepo(r) })
	delete(w.records, did)
}
