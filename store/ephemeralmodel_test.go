package store_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// fleeting is the truth about one repository, and what a reader who has read every event holds.
type fleeting struct {
	did    string
	all    storetest.Records // as its host has it
	rev    string            // of all
	hidden bool
	late   bool // the store has not seen the last change: the repository must be fetched

	held storetest.Records // by the events so far
	lost map[string]bool   // records in held that no event could tell the end of
}

// ephemeralWorld drives a store that keeps events only.
type ephemeralWorld struct {
	t       *testing.T
	rng     *rand.Rand
	fs      *storetest.CrashFS
	options store.Options
	s       *store.Store
	repos   []*fleeting
	revNo   int
	next    uint64 // the reader's position
	bound   uint64 // the log is pruned up to there at most

	left  int // steps until a crash; 0: none is planned
	clone *storetest.CrashFS
	met   map[string]int
}

func (w *ephemeralWorld) open(fs *storetest.CrashFS) {
	w.t.Helper()
	w.fs, w.options.FS = fs, fs
	w.options.Step = func(name string) {
		if w.left--; w.left == 0 {
			w.clone = fs.Clone(w.rng, []int{0, 50, 100}[w.rng.IntN(3)])
			w.met["crash at "+name]++
		}
	}
	var err error
	if w.s, err = store.Open(w.options); err != nil {
		w.t.Fatal(err)
	}
}

// crash goes on with the state that a crash has left, if there was one.
func (w *ephemeralWorld) crash() (crashed bool) {
	w.t.Helper()
	if w.clone == nil {
		return false
	}
	clone := w.clone
	w.left, w.clone = 0, nil
	if err := w.s.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open(clone)
	storetest.Check(w.t, w.s)
	for _, h := range w.repos {
		r, err := w.s.RepoOrNew(h.did)
		if err != nil {
			w.t.Fatal(err)
		}
		h.late = r.Ordinal == 0 || r.Rev != h.rev || r.Torn
		h.hidden = r.Status.Hidden()
	}
	w.read()
	return true
}

// rows returns the paths of the stored records of a repository.
func (w *ephemeralWorld) rows(did string) map[string]bool {
	w.t.Helper()
	r, err := w.s.RepoOrNew(did)
	if err != nil || r.Ordinal == 0 {
		return nil
	}
	rows, err := w.s.Rows(r.Ordinal)
	if err != nil {
		w.t.Fatal(err)
	}
	paths := map[string]bool{}
	for rows.Next() {
		paths[string(rows.Row().Path)] = true
	}
	if err := rows.Close(); err != nil {
		w.t.Fatal(err)
	}
	return paths
}

func (w *ephemeralWorld) newRev() string { w.revNo++; return storetest.Rev(w.revNo) }

// mutate changes the truth, and returns the ops of a verified commit that says so, in order.
func (w *ephemeralWorld) mutate(h *fleeting) (ops []store.Op) {
	rng := w.rng
	for p, m := range storetest.Random(rng, 1+rng.IntN(5)) {
		if paths := h.all.Paths(); rng.IntN(3) > 0 && len(paths) > 0 {
			p = paths[rng.IntN(len(paths))]
		}
		if slices.ContainsFunc(ops, func(op store.Op) bool { return string(op.Path) == p }) {
			continue
		}
		was, has := h.all[p]
		op := store.Op{Path: []byte(p), Replaces: has}
		if has && rng.IntN(3) == 0 {
			delete(h.all, p)
		} else if bytes.Equal(was, m) {
			continue
		} else {
			op.Record, op.CID, op.New = m, repo.HashCID(m), !has && rng.IntN(2) == 0
			h.all[p] = m
		}
		ops = append(ops, op)
	}
	h.rev = w.newRev()
	return ops
}

// write applies ops as one commit. last moves the rev.
func (w *ephemeralWorld) write(h *fleeting, live, last bool, ops []store.Op) {
	edit(w.t, w.s, h.did, func(b *store.Batch, r *store.Repo) error {
		if err := b.Apply(r, live, h.rev, ops); err != nil {
			return err
		}
		r.Torn = !last
		if last {
			data := h.all.Root()
			r.Rev, r.Data, r.Commit = h.rev, data, storetest.Commit(h.did, h.rev, data)
		}
		return nil
	})
}

// commit applies a live commit. Its events must say what the commit says, whatever the store still
// has.
func (w *ephemeralWorld) commit(h *fleeting) {
	before, present := maps.Clone(h.all), w.rows(h.did)
	ops := w.mutate(h)
	w.write(h, true, true, ops)
	if w.crash() {
		return
	}
	var want []string
	for _, op := range ops {
		_, had := before[string(op.Path)]
		switch {
		case h.hidden || !repo.ValidPath(op.Path):
			continue
		case !op.CID.Defined():
			want = append(want, fmt.Sprint("delete ", string(op.Path)))
		case had:
			want = append(want, fmt.Sprint("update ", string(op.Path)))
		default:
			want = append(want, fmt.Sprint("create ", string(op.Path)))
		}
		if had && !present[string(op.Path)] {
			w.met["change of a record that has gone"]++
		}
		delete(h.lost, string(op.Path))
	}
	if d := cmp.Diff(want, w.read()); d != "" {
		w.t.Errorf("events of a commit of %s (-want +got):\n%s", h.did, d)
	}
}

// read reads all events that there are, as a reader does, and returns what they say of records.
func (w *ephemeralWorld) read() (told []string) {
	w.t.Helper()
	left := w.left
	w.left = 0 // crashes hit changes
	storetest.Head(w.t, w.s)
	w.left = left
	for w.next <= w.s.Head() {
		next, err := w.s.ReadLog(w.t.Context(), w.next, 1+w.rng.IntN(20), func(e *store.Event) error {
			h := w.repos[slices.IndexFunc(w.repos, func(h *fleeting) bool { return h.did == e.DID })]
			switch path := string(e.Collection) + "/" + string(e.Rkey); {
			case e.Kind == store.KindAccount && e.Status.Hidden():
				clear(h.held)
				clear(h.lost)
			case e.Kind != store.KindRecord:
			case e.Action == store.Delete:
				delete(h.held, path)
				told = append(told, "delete "+path)
			default:
				h.held[path] = bytes.Clone(e.Record)
				told = append(told, fmt.Sprint(e.Action, " ", path))
			}
			return nil
		})
		if err != nil || next == w.next {
			w.t.Fatalf("read from %d: %d, %v", w.next, next, err)
		}
		w.next = next
	}
	return told
}

// lose notes which records the reader holds on to, as no event can tell it that they have gone.
func (h *fleeting) lose(present map[string]bool) {
	for p := range h.held {
		if _, is := h.all[p]; !is && !present[p] {
			h.lost[p] = true
		}
	}
}

// fetch makes the store equal the truth: by an import, or by the difference to what is stored.
func (w *ephemeralWorld) fetch(h *fleeting) {
	r, err := w.s.RepoOrNew(h.did)
	if err != nil {
		w.t.Fatal(err)
	}
	if r.Ordinal == 0 {
		im := h.all.Import(add(w.t, w.s, h.did), h.rev)
		im.Done = func(_ store.Repo, err error) {
			if err != nil {
				w.t.Errorf("import of %s: %v", h.did, err)
			}
		}
		if err := w.s.Import(w.t.Context(), im); err != nil {
			w.t.Fatal(err)
		}
		if err := w.s.FlushImports(); err != nil {
			w.t.Fatal(err)
		}
		h.late = false
		return
	}
	present := w.rows(h.did)
	h.lose(present)
	var ops []store.Op
	for _, p := range slices.Sorted(maps.Keys(present)) {
		if h.all[p] == nil {
			ops = append(ops, store.Op{Path: []byte(p), Replaces: true})
		}
	}
	for _, p := range h.all.Paths() {
		ops = append(ops, store.Op{Path: []byte(p), CID: repo.HashCID(h.all[p]), Record: h.all[p],
			Replaces: present[p]})
	}
	half := w.rng.IntN(len(ops) + 1)
	w.write(h, false, false, ops[:half])
	w.met["refetch"]++
	if w.rng.IntN(2) == 0 { // rows go while a difference is written
		w.prune()
	}
	w.write(h, false, true, ops[half:])
	h.late = false
}

// prune removes a part of the events that were read, and perhaps not all that they leave.
func (w *ephemeralWorld) prune() {
	if w.bound < w.next {
		w.bound += 1 + w.rng.Uint64N(w.next-w.bound)
	}
	for more := true; more && w.rng.IntN(8) > 0; {
		var err error
		if more, err = store.PrunePage(w.s, w.bound); err != nil {
			w.t.Fatal(err)
		}
	}
}

// step makes one change.
func (w *ephemeralWorld) step() {
	t, rng := w.t, w.rng
	h := w.repos[rng.IntN(len(w.repos))]
	r, err := w.s.RepoOrNew(h.did)
	if err != nil {
		t.Fatal(err)
	}
	switch k := rng.IntN(30); {
	case k < 6:
		w.prune()
	case h.late || r.Ordinal == 0:
		if !h.hidden {
			w.fetch(h)
		} else if k < 20 {
			w.show(h)
		}
	case k < 20:
		w.commit(h)
		return
	case k < 23: // a gap
		w.mutate(h)
		h.late = true
	case k < 24 && !h.hidden:
		edit(t, w.s, h.did, func(b *store.Batch, r *store.Repo) error {
			r.Status = store.StatusDeactivated
			b.Account(r)
			return nil
		})
		h.hidden = true
	case k < 26 && h.hidden:
		w.show(h)
	case k < 27:
		h.lose(w.rows(h.did))
		w.drop(h)
	case k < 28:
		if err := store.Collect(w.s); err != nil {
			t.Fatal(err)
		}
	}
	if !w.crash() {
		w.read()
	}
}

// show shows an account again. The store may not have its records any more: it is fetched anew.
func (w *ephemeralWorld) show(h *fleeting) {
	edit(w.t, w.s, h.did, func(b *store.Batch, r *store.Repo) error {
		r.Status = store.StatusActive
		b.Account(r)
		if r.Ordinal == 0 {
			return nil
		}
		r.State = store.StatePending
		return b.Relist(r)
	})
	h.hidden, h.late = false, true
	w.met["shown again"]++
}

// drop forgets a repository, with the deletes of what is stored.
func (w *ephemeralWorld) drop(h *fleeting) {
	var ops []store.Op
	for _, p := range slices.Sorted(maps.Keys(w.rows(h.did))) {
		ops = append(ops, store.Op{Path: []byte(p)})
	}
	hidden := h.hidden
	dropRepo(w.t, w.s, h.did, ops, true)
	if !hidden {
		for p := range h.held {
			if !slices.ContainsFunc(ops, func(op store.Op) bool { return string(op.Path) == p }) {
				h.lost[p] = true
			}
		}
	}
	h.hidden, h.late = false, true
	w.met["dropped"]++
}

// equal compares what the reader holds with the truth, once every repository is complete.
func (w *ephemeralWorld) equal() {
	w.t.Helper()
	w.left = 0
	for _, h := range w.repos {
		if h.hidden {
			w.show(h)
		}
		if r, err := w.s.RepoOrNew(h.did); err != nil || h.late || r.Ordinal == 0 {
			w.read()
			w.fetch(h)
		}
	}
	w.read()
	for _, h := range w.repos {
		want, got := visible(map[string]storetest.Records{"": h.all})[""], maps.Clone(h.held)
		maps.DeleteFunc(got, func(p string, _ []byte) bool { return h.lost[p] && want[p] == nil })
		if d := cmp.Diff(want, got); d != "" && len(want)+len(got) > 0 {
			w.t.Errorf("%s as the log tells it (-want +got):\n%s", h.did, d)
		}
	}
	storetest.Check(w.t, w.s)
}

// empty removes all events and what they leave: nothing of any record stays.
func (w *ephemeralWorld) empty() {
	w.t.Helper()
	if err := store.Prune(w.t.Context(), w.s, w.s.Head()+1); err != nil {
		w.t.Fatal(err)
	}
	if err := w.s.CollectGarbage(w.t.Context(), store.NoProgress); err != nil {
		w.t.Fatal(err)
	}
	w.bound = w.s.Tail()
	for _, space := range []byte{store.SpaceRecord, store.SpaceBlock, store.SpaceRef,
		store.SpaceListing, store.SpaceCollection, store.SpaceEvent} {
		err := store.ScanRaw(w.s, space, func(key, _ []byte) {
			w.t.Errorf("when everything is pruned, a row is left: %q", key)
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	c := w.s.Counts()
	if c["records"] != 0 || c["blocks"] != 0 || c["collections"] != 0 || c["events"] != 0 {
		w.t.Errorf("when everything is pruned: %v", c)
	}
	storetest.Check(w.t, w.s)
}

// TestEphemeralModel drives random imports, commits, gaps, refetches, reactivations, drops, pruning
// and crashes through an ephemeral store. The events of a commit are what the commit says; a reader
// of all events holds what the hosts have, but for records that were deleted unseen; and once
// everything is pruned, nothing of any record is left.
func TestEphemeralModel(t *testing.T) {
	t.Parallel()
	for i := range storetest.Seeds(40) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			w := &ephemeralWorld{t: t, rng: seeded(t), next: 1, bound: 1, met: map[string]int{}}
			w.options = store.Options{Dir: "db", Ephemeral: true, Retention: time.Hour,
				SmallBytes: int64(1 + i%2<<20)}
			w.open(storetest.NewCrashFS())
			for n := range 4 {
				all := storetest.Random(w.rng, []int{0, 3, 40, 150}[w.rng.IntN(4)])
				w.repos = append(w.repos, &fleeting{did: storetest.DID(n + 1), all: all,
					rev: w.newRev(), late: true, held: storetest.Records{}, lost: map[string]bool{}})
			}
			for step := 0; step < 150 && !t.Failed(); step++ {
				if w.left <= 0 && w.rng.IntN(6) == 0 {
					w.left = 1 + w.rng.IntN(6)
				}
				w.step()
				if w.rng.IntN(10) == 0 && w.left <= 0 {
					storetest.Check(t, w.s)
				}
				if w.rng.IntN(40) == 0 {
					w.equal()
					w.empty()
				}
			}
			w.equal()
			w.empty()
			if err := w.s.Close(); err != nil {
				t.Error(err)
			}
			t.Log(w.met)
		})
	}
}
