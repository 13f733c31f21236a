package store_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// slowLog is a file system whose write-ahead logs are not synced while shut is held.
type slowLog struct {
	*storetest.CrashFS
	shut *sync.RWMutex
}

type slowFile struct {
	vfs.File
	shut *sync.RWMutex
}

func (f slowFile) Sync() error     { f.shut.RLock(); defer f.shut.RUnlock(); return f.File.Sync() }
func (f slowFile) SyncData() error { f.shut.RLock(); defer f.shut.RUnlock(); return f.File.SyncData() }

func (fs slowLog) slow(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return slowFile{f, fs.shut}, nil
}

func (fs slowLog) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.CrashFS.Create(name, c)
	return fs.slow(name, f, err)
}

func (fs slowLog) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.CrashFS.ReuseForWrite(old, name, c)
	return fs.slow(name, f, err)
}

// mixed is a store under random changes that are not waited for, and a log that is not written for
// a while.
type mixed struct {
	t     *testing.T
	rng   *rand.Rand
	fs    slowLog
	s     *store.Store
	clock *clock
	waits []func() error // of batches that were applied since settle
	shut  bool           // the log is not written
	rev   int
}

// open opens a store that crashes with fs.
func (m *mixed) open(fs *storetest.CrashFS) {
	m.fs = slowLog{fs, new(sync.RWMutex)}
	var err error
	if m.s, err = store.Open(store.Options{FS: m.fs, Dir: "db", Now: m.clock.now, SmallBytes: 1 << 20}); err != nil {
		m.t.Fatal(err)
	}
}

// settle writes the log out, and waits for all batches in any order.
func (m *mixed) settle() {
	if m.shut {
		m.fs.shut.Unlock()
		m.shut = false
	}
	m.rng.Shuffle(len(m.waits), func(i, j int) { m.waits[i], m.waits[j] = m.waits[j], m.waits[i] })
	for _, wait := range m.waits {
		if err := wait(); err != nil {
			m.t.Fatal(err)
		}
	}
	m.waits = nil
}

// hold keeps the log from being written until settle.
func (m *mixed) hold() {
	if !m.shut {
		m.fs.shut.Lock()
		m.shut = true
	}
}

// edit changes a row without waiting.
func (m *mixed) edit(did string, fn func(b *store.Batch, r *store.Repo) error) {
	defer m.s.Lock(did)()
	r, err := m.s.RepoOrNew(did)
	if err != nil {
		m.t.Fatal(err)
	}
	b := m.s.NewBatch()
	if err := fn(b, &r); err != nil {
		m.t.Fatal(err)
	}
	wait, err := b.Commit()
	if err != nil {
		m.t.Fatal(err)
	}
	m.waits = append(m.waits, wait)
}

// ops deletes and replaces some records of a repository, or deletes all.
func (m *mixed) ops(r *store.Repo, all bool) (ops []store.Op) {
	rows, err := m.s.Rows(r.Ordinal)
	if err != nil {
		m.t.Fatal(err)
	}
	for rows.Next() {
		if all || m.rng.IntN(4) == 0 {
			ops = append(ops, store.Op{Path: bytes.Clone(rows.Row().Path)})
		} else if m.rng.IntN(4) == 0 {
			body := storetest.Text(fmt.Sprint("text ", m.rng.IntN(10)))
			ops = append(ops, store.Op{Path: bytes.Clone(rows.Row().Path), CID: repo.HashCID(body), Record: body})
		}
	}
	if err := rows.Close(); err != nil {
		m.t.Fatal(err)
	}
	return ops
}

// step does one thing to one of a few repositories, or to the store.
func (m *mixed) step() {
	did := storetest.DID(1 + m.rng.IntN(5))
	r, err := m.s.RepoOrNew(did)
	if err != nil {
		m.t.Fatal(err)
	}
	m.rev++
	switch n := m.rng.IntN(20); {
	case n < 3:
		m.settle()
	case n < 6:
		m.hold()
	case n == 6:
		if err := store.Collect(m.s); err != nil {
			m.t.Fatal(err)
		}
	case n == 7:
		m.settle()
		to := m.s.Tail() + m.rng.Uint64N(m.s.Head()+2-m.s.Tail())
		if _, err := store.PrunePage(m.s, to); err != nil {
			m.t.Fatal(err)
		}
	case n == 8:
		m.settle()
		m.clock.tick([]time.Duration{time.Minute, time.Hour, -time.Hour, 400 * time.Hour, -400 * time.Hour}[m.rng.IntN(5)])
		if err := store.Retain(m.t.Context(), m.s, time.Hour); err != nil {
			m.t.Fatal(err)
		}
	case n == 9: // without waiting for anything
		if err := m.s.NewBatch().CommitSync(); err != nil {
			m.t.Fatal(err)
		}
	case r.Ordinal == 0:
		m.settle()
		im := storetest.Random(m.rng, 1+m.rng.IntN(12)).Import(add(m.t, m.s, did), storetest.Rev(m.rev))
		im.Done = func(store.Repo, error) {}
		if err := m.s.Import(m.t.Context(), im); err != nil {
			m.t.Fatal(err)
		}
		if m.rng.IntN(3) == 0 { // a second copy, which is abandoned
			if err := m.s.Import(m.t.Context(), im); err != nil {
				m.t.Fatal(err)
			}
		}
		if err := m.s.FlushImports(); err != nil {
			m.t.Fatal(err)
		}
	case n < 13:
		m.edit(did, func(b *store.Batch, r *store.Repo) error {
			err := b.Apply(r, true, storetest.Rev(m.rev), m.ops(r, false))
			data := repo.HashCID([]byte(fmt.Sprint(m.rev)))
			r.Rev, r.Data, r.Commit = storetest.Rev(m.rev), data, storetest.Commit(did, storetest.Rev(m.rev), data)
			b.ForgeRepo(r)
			return err
		})
	case n < 16:
		m.edit(did, func(b *store.Batch, r *store.Repo) (err error) {
			if r.Status.Hidden() {
				r.Status = store.StatusActive
				err = b.Relist(r)
			} else {
				r.Status = store.StatusDeactivated
			}
			b.Account(r)
			b.ForgeRepo(r)
			return err
		})
	case n < 18:
		m.edit(did, func(b *store.Batch, r *store.Repo) error {
			err := b.Wipe(r)
			r.State, r.Status = store.StateIdle, store.StatusActive
			b.ForgeRepo(r)
			return err
		})
	default:
		m.edit(did, func(b *store.Batch, r *store.Repo) error {
			if err := b.Apply(r, false, r.Rev, m.ops(r, true)); err != nil {
				return err
			}
			return b.DropRepo(r)
		})
	}
}

// crash opens what a crash at this moment leaves, and continues with it.
func (m *mixed) crash() {
	published, position := toldUpTo(m.t, m.s)
	tail := m.s.Tail()
	clone := m.fs.Clone(m.rng, []int{0, 0, 50, 100}[m.rng.IntN(4)])
	was := m.s
	m.settle()
	if err := was.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.open(clone)
	storetest.Check(m.t, m.s)
	if m.s.Tail() > tail {
		m.t.Errorf("the tail was %d and is %d", tail, m.s.Tail())
	}
	now := told(m.t, m.s)
	for _, id := range slices.Sorted(maps.Keys(now)) {
		if got, ok := published[id]; id >= tail && id < position && (!ok || got != now[id]) {
			m.t.Errorf("event %d is shown as %q after the crash, and a reader before it was given %q", id, now[id], got)
		}
	}
	if m.s.Head()+1 < position {
		m.t.Errorf("a reader stands at %d, and the head is %d", position, m.s.Head())
	}
}

// TestCrashUnsynced changes, hides, shows, wipes and drops repositories without waiting for the
// disk, prunes and collects beside that, and crashes now and then while the log has not been
// written for a while. What is left checks clean, shows no event that a reader could have passed
// without it, and is cleared away completely at the end.
func TestCrashUnsynced(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	for range 4 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			m := &mixed{t: t, rng: seeded(t), clock: newClock()}
			m.open(storetest.NewCrashFS())
			for range 12 {
				for range 5 + m.rng.IntN(30) {
					m.step()
				}
				m.crash()
			}
			m.settle()
			if err := store.Collect(m.s); err != nil {
				t.Fatal(err)
			}
			storetest.Check(t, m.s)
			for range 5 {
				m.step()
			}
			m.settle()
			if err := store.Prune(t.Context(), m.s, m.s.Head()+1); err != nil {
				t.Fatal(err)
			}
			if err := store.Collect(m.s); err != nil {
				t.Fatal(err)
			}
			storetest.Check(t, m.s)
			for _, space := range []byte{store.SpaceDropped, store.SpaceGarbage, store.SpaceDroppedAt, store.SpaceEvent} {
				if err := store.ScanRaw(m.s, space, func(key, _ []byte) { t.Errorf("%x is left", key) }); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
