package store_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2"
)

// TestImportsLandAtTheBottom ingests 50 groups with live rows, new accounts and wipes in between,
// as during a backfill. Every ingested table must land in the bottom level and stay there, no table
// may span two keyspaces, and the bytes written to tables must stay below 1.3 times the bytes
// brought in.
func TestImportsLandAtTheBottom(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	const groups, reposPerGroup, recordsPerRepo = 50, 3, 80
	for _, row := range []struct {
		name       string
		memTable   int64
		flushEvery int
		tune       func(*pebble.Options)
	}{
		// The upper levels of a large store, scaled down with the store: flushed rows overlap the
		// place where the next imports append.
		{"large", 64 << 10, 5, func(p *pebble.Options) { p.LBaseMaxBytes = 64 << 10 }},
		// The options of a store that is opened without options.
		{"default", 0, 0, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := store.Options{SmallBytes: 1, GroupAge: time.Hour, TableBytes: 64 << 10, MemTableBytes: row.memTable}
			s := storetest.Open(t, store.Tuned(o, row.tune))
			rng := seeded(t)
			w := newWorld()
			for g := range groups {
				for i := range reposPerGroup {
					w.importRepo(t, s, storetest.DID(1+g*reposPerGroup+i), bulky(rng, recordsPerRepo))
				}
				// A compaction into the bottom that runs at this moment would keep a table a
				// level higher until it ends.
				quiet(s, 2, time.Millisecond)
				if err := s.FlushImports(); err != nil {
					t.Fatal(err)
				}
				besides(t, s, rng, w, g, (g+1)*reposPerGroup)
				if row.flushEvery > 0 && g%row.flushEvery == row.flushEvery-1 {
					if err := store.Compact(s); err != nil {
						t.Fatal(err)
					}
				}
			}
			settled(t, s)
			landed(t, s)
			apart(t, s)
		})
	}
}

// besides writes what comes during an import: live rows of any of the first repos, a row of a new
// account, now and then a wipe.
func besides(t *testing.T, s *store.Store, rng *rand.Rand, w *world, g, repos int) {
	t.Helper()
	for range 5 {
		if did := storetest.DID(1 + rng.IntN(repos)); w.records[did] != nil {
			w.change(t, s, rng, did, true)
		}
	}
	add(t, s, storetest.DID(1<<20+g))
	if did := storetest.DID(1 + rng.IntN(repos)); g%10 == 9 && w.records[did] != nil {
		w.wipe(t, s, did)
	}
}

// bulky returns records of about a kilobyte that do not compress to nothing.
func bulky(rng *rand.Rand, n int) storetest.Records {
	m := storetest.Records{}
	for len(m) < n {
		b := make([]byte, 0, 512)
		for len(b) < 500 {
			b = binary.BigEndian.AppendUint64(b, rng.Uint64())
		}
		p := fmt.Sprintf("app.test.c%d/%s", rng.IntN(4), storetest.Rev(rng.IntN(1<<30)))
		m[p] = storetest.Text(fmt.Sprintf("%x", b))
		if !repo.ValidPath([]byte(p)) {
			delete(m, p)
		}
	}
	return m
}

// settled waits until nothing is left to compact.
func settled(t testing.TB, s *store.Store) {
	t.Helper()
	if err := store.Compact(s); err != nil {
		t.Fatal(err)
	}
	quiet(s, 5, 20*time.Millisecond)
}

// quiet waits until n checks in a row have found that nothing was flushed or compacted.
func quiet(s *store.Store, n int, every time.Duration) {
	for seen := 0; seen < n; time.Sleep(every) {
		if m := store.Metrics(s); m.Compact.NumInProgress == 0 && m.Flush.NumInProgress == 0 {
			seen++
		} else {
			seen = 0
		}
	}
}

func landed(t *testing.T, s *store.Store) {
	t.Helper()
	m := store.Metrics(s)
	bottom := len(m.Levels) - 1
	var ingested, elsewhere, in, written uint64
	for i, l := range m.Levels {
		ingested += l.TablesIngested
		in += l.TableBytesIngested
		written += l.TableBytesIngested + l.TableBytesFlushed + l.TableBytesCompacted
		if i != bottom {
			elsewhere += l.TablesIngested
		}
	}
	if elsewhere > 0 {
		t.Errorf("%d of %d tables were ingested above the bottom", elsewhere, ingested)
	}
	// Brought in: the tables as ingested, and the batches as written to the log.
	wal := m.WAL.BytesIn
	amplification := float64(written) / float64(in+wal)
	t.Logf("ingested %d tables of %d bytes, batches %d bytes, written to tables %d bytes: amplification %.3f; with the log %.3f",
		ingested, in, wal, written, amplification, float64(written+m.WAL.BytesWritten)/float64(in+wal))
	if ingested == 0 || amplification > 1.3 {
		t.Errorf("write amplification is %.2f", amplification)
	}
}

// apart fails the test if a table spans two keyspaces.
func apart(t *testing.T, s *store.Store) {
	t.Helper()
	tables, err := store.Tables(s)
	if err != nil {
		t.Fatal(err)
	}
	for level, list := range tables {
		for _, f := range list {
			a, b := f.Smallest.UserKey, f.Largest.UserKey
			if a[0] == b[0] || f.Largest.IsExclusiveSentinel() && len(b) == 1 && b[0] == a[0]+1 {
				continue
			}
			t.Errorf("table %s in level %d reaches from %x to %x", f.FileNum, level, a, b)
		}
	}
}
