package store_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// history is the fate of one repository: its contents after each rev. The first is imported, the
// others are applied; a nil one is a wipe, and the next is imported anew.
type history struct {
	did   string
	steps []storetest.Records
}

func histories(rng *rand.Rand, repos int) []history {
	out := make([]history, repos)
	for i := range out {
		m := storetest.Random(rng, 4+rng.IntN(14))
		out[i] = history{did: storetest.DID(i + 1), steps: []storetest.Records{m}}
		for range 3 {
			m = maps.Clone(m)
			for p := range maps.Clone(m) {
				switch rng.IntN(6) {
				case 0:
					delete(m, p)
				case 1:
					m[p] = storetest.Text(fmt.Sprint("changed ", rng.IntN(100)))
				}
			}
			out[i].steps = append(out[i].steps, m)
		}
		if i%4 == 3 {
			out[i].steps[2] = nil
		}
	}
	return out
}

// revOf returns the rev of a step; the row's rev shows where a crashed run continues.
func revOf(step int) string { return storetest.Rev(step + 1) }

// play brings every repository from where its row stands to the end of its history.
func play(t testing.TB, s *store.Store, hs []history) {
	t.Helper()
	for step := range hs[0].steps {
		for _, h := range hs {
			playStep(t, s, h, step)
		}
		if err := s.FlushImports(); err != nil {
			t.Fatal(err)
		}
	}
}

func playStep(t testing.TB, s *store.Store, h history, step int) {
	t.Helper()
	unlock := s.Lock(h.did)
	r, err := s.RepoOrNew(h.did)
	unlock()
	if err != nil {
		t.Fatal(err)
	}
	// SeenRev carries how far a wiped repository had come.
	if r.Rev >= revOf(step) || r.SeenRev >= revOf(step) {
		return
	}
	m := h.steps[step]
	switch {
	case m == nil:
		wipeAt(t, s, h.did, revOf(step))
	case r.Ordinal == 0:
		im := m.Import(add(t, s, h.did), revOf(step))
		im.Done = func(store.Repo, error) {}
		if err := s.Import(t.Context(), im); err != nil {
			t.Fatal(err)
		}
	default:
		diffTo(t, s, h, m, revOf(step))
	}
}

func wipeAt(t testing.TB, s *store.Store, did, rev string) {
	t.Helper()
	unlock := s.Lock(did)
	defer unlock()
	r, err := s.Repo(did)
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	if err := b.Wipe(&r); err != nil {
		t.Fatal(err)
	}
	r.State, r.SeenRev = store.StateIdle, rev
	b.Account(&r)
	b.ForgeRepo(&r)
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
}

// diffTo applies the difference to the stored records, in two batches: the first without moving the
// rev.
func diffTo(t testing.TB, s *store.Store, h history, m storetest.Records, rev string) {
	t.Helper()
	unlock := s.Lock(h.did)
	defer unlock()
	r, err := s.Repo(h.did)
	if err != nil {
		t.Fatal(err)
	}
	var ops []store.Op
	rows, err := s.Rows(r.Ordinal)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		if p := rows.Row().Path; m[string(p)] == nil {
			ops = append(ops, store.Op{Path: bytes.Clone(p)})
		}
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Paths() {
		ops = append(ops, store.Op{Path: []byte(p), CID: repo.HashCID(m[p]), Record: m[p]})
	}
	half := len(ops) / 2
	for i, part := range [][]store.Op{ops[:half], ops[half:]} {
		b := s.NewBatch()
		if err := b.Apply(&r, true, rev, part); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			data := repo.HashCID([]byte(rev))
			r.Rev, r.Data, r.Commit = rev, data, storetest.Commit(h.did, rev, data)
		}
		b.ForgeRepo(&r)
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
	}
}

// told returns every event published so far, as text by id.
func told(t testing.TB, s *store.Store) map[uint64]string {
	t.Helper()
	out, _ := toldUpTo(t, s)
	return out
}

// toldUpTo is like told, and also returns the position of a reader of the events.
func toldUpTo(t testing.TB, s *store.Store) (out map[uint64]string, position uint64) {
	t.Helper()
	out = map[uint64]string{}
	for position = s.Tail(); position <= s.Head(); {
		next, err := s.ReadLog(t.Context(), position, 1000, func(e *store.Event) error {
			out[e.ID] = fmt.Sprint(e.Kind, e.DID, e.Action, string(e.Collection), string(e.Rkey), e.CID, e.Rev, e.Time)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if next == position {
			break // before an event that a batch hides which is not durable
		}
		position = next
	}
	return out, position
}

// TestCrash clones the file system at every named step (batches applied and synced, before and
// after each ingest, after each flip, between the batches of a small group), with none, some or all
// of what was not synced, and opens the clone: it must check clean, hold every published event
// under its id, show none that a reader had passed over, and end like the run that never crashed.
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	for _, small := range []int64{1 << 20, 1} {
		t.Run(fmt.Sprint("small=", small), func(t *testing.T) {
			t.Parallel()
			rng := seeded(t)
			hs := histories(rng, 5)
			o := store.Options{FS: vfs.NewMem(), Dir: "db", SmallBytes: small, GroupBytes: 1 << 10, TableBytes: 700}
			plain := storetest.Open(t, o)
			play(t, plain, hs)
			want := held(t, plain)

			fs := vfs.NewCrashableMem()
			o.FS = fs
			var s *store.Store
			steps := map[string]int{}
			busy := false
			o.Step = func(name string) {
				if s == nil || busy {
					return
				}
				busy = true // the clone's own steps are of no interest
				defer func() { busy = false }()
				steps[name]++
				published, position := toldUpTo(t, s)
				percent := []int{0, 50, 100}[rng.IntN(3)]
				clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
				recovered(t, o, clone, hs, published, position, want)
			}
			var err error
			if s, err = store.Open(o); err != nil {
				t.Fatal(err)
			}
			play(t, s, hs)
			if d := cmp.Diff(want, held(t, s)); d != "" {
				t.Errorf("uncrashed runs differ:\n%s", d)
			}
			s2 := s
			s = nil
			if err := s2.Close(); err != nil {
				t.Error(err)
			}
			for _, name := range map[bool][]string{true: {"applied", "synced", "flipped"}, false: {"applied", "synced", "before ingest", "after ingest", "flipped"}}[small > 1] {
				if steps[name] == 0 {
					t.Errorf("no crash at step %q: %v", name, steps)
				}
			}
		})
	}
}

func recovered(t *testing.T, o store.Options, clone *vfs.MemFS, hs []history, published map[uint64]string, position uint64, want map[string]storetest.Records) {
	t.Helper()
	o.FS, o.Step = clone, nil
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Check(t, s)
	now := told(t, s)
	for id, e := range now {
		if _, ok := published[id]; !ok && id < position {
			t.Errorf("event %d is shown after the crash, and a reader has passed it without it: %s", id, e)
		}
	}
	hidden := map[string]bool{}
	for id, e := range published {
		// A wipe that was not published yet may have survived: its repository's events no longer
		// expand.
		if got, ok := now[id]; ok && got != e {
			t.Errorf("event %d was %s and is %s", id, e, got)
		} else if !ok {
			hidden[e] = true
		}
	}
	if len(hidden) > 0 && s.Head() == maxID(published) {
		t.Errorf("%d published events are gone", len(hidden))
	}
	play(t, s, hs)
	storetest.Check(t, s)
	if d := cmp.Diff(want, held(t, s)); d != "" {
		t.Errorf("after a crash the run ends differently:\n%s", d)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func maxID(m map[uint64]string) (top uint64) {
	for id := range m {
		top = max(top, id)
	}
	return top
}
