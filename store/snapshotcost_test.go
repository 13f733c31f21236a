package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// countingFS counts the bytes that are read of files.
type countingFS struct {
	vfs.FS
	bytes atomic.Int64
}

type countingFile struct {
	vfs.File
	bytes *atomic.Int64
}

func (f *countingFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	return countingFile{file, &f.bytes}, nil
}

func (f countingFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.bytes.Add(int64(n))
	return n, err
}

// rareStore holds 100 records a repository. One repository of some also has a record of
// app.test.rare, and one of ten times as many ten records of app.test.dense.
func rareStore(t testing.TB, records, some int) (o store.Options, fs *countingFS) {
	fs = &countingFS{FS: vfs.NewMem()}
	o = store.Options{FS: fs, Dir: "db", SmallBytes: 1, GroupBytes: 8 << 20, CacheBytes: 4 << 20}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld()
	for n := range records / 100 {
		m := storetest.Records{}
		for i := range 100 {
			m[fmt.Sprintf("app.test.%c/%s", "abcdefgh"[i%8], storetest.Rev(n*100+i))] = storetest.Text(fmt.Sprint(rand.Uint64(), rand.Uint64(), rand.Uint64(), rand.Uint64(), " post ", i, " of ", n))
		}
		if n%some == 0 {
			m["app.test.rare/"+storetest.Rev(n)] = storetest.Text(fmt.Sprint("rare ", n))
		}
		for i := 0; i < 10 && n%(10*some) == 0; i++ {
			m["app.test.dense/"+storetest.Rev(i)] = storetest.Text(fmt.Sprint("dense ", i, " of ", n))
		}
		w.importRepo(t, s, storetest.DID(n+1), m)
	}
	if err := errors.Join(s.FlushImports(), store.Compact(s), s.Close()); err != nil {
		t.Fatal(err)
	}
	return o, fs
}

// passOf reads a pass from an empty cache, and returns its records and the bytes read.
func passOf(t testing.TB, o store.Options, fs *countingFS, f *filter.Events) (records int, read int64) {
	t.Helper()
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	before := fs.bytes.Load()
	pass, at, ended := s.BeginSnapshot(f), store.RecordPosition{}, false
	for !ended {
		at, ended, err = s.ReadRecords(t.Context(), pass, at, 2000, func(*store.Event, store.RecordPosition) bool {
			records++
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	read = fs.bytes.Load() - before
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return records, read
}

// TestSnapshotOfOneCollection: what a pass over one collection reads is in proportion to the
// collection, and not to the store.
func TestSnapshotOfOneCollection(t *testing.T) {
	t.Parallel()
	rare := eventsFilter(t, filter.EventsConfig{Collections: []string{"app.test.rare"}})
	const held = 20 // repositories that hold it
	o, fs := rareStore(t, 100*5*held, 5)
	few, fewBytes := passOf(t, o, fs, rare)
	o, fs = rareStore(t, 100*20*held, 20)
	many, manyBytes := passOf(t, o, fs, rare)
	none, noneBytes := passOf(t, o, fs, eventsFilter(t, filter.EventsConfig{Collections: []string{"app.test.none", "app.none.*"}}))
	all, allBytes := passOf(t, o, fs, new(filter.Events))
	t.Logf("%d records of a store: %d bytes; of one four times as large: %d bytes; nothing: %d bytes; everything: %d bytes", few, fewBytes, manyBytes, noneBytes, allBytes)
	if few != held || many != held || none != 0 || all < 100*20*held {
		t.Errorf("passed %d, %d, %d and %d records", few, many, none, all)
	}
	if manyBytes > fewBytes*3/2 || noneBytes > 50_000 || allBytes < 3*manyBytes {
		t.Errorf("the cost of a collection is not in proportion to it")
	}
}

// BenchmarkSnapshotOfOneCollection reads two collections, each 0.1 % of 500,000 records, from an
// empty cache: one record in each of 500 repositories, and ten in each of 50.
func BenchmarkSnapshotOfOneCollection(b *testing.B) {
	o, fs := rareStore(b, 500_000, 10)
	for _, name := range []string{"all", "rare", "dense", "none"} {
		var c filter.EventsConfig
		if name != "all" {
			c.Collections = []string{"app.test." + name}
		}
		f := eventsFilter(b, c)
		b.Run(name, func(b *testing.B) {
			records, read := 0, int64(0)
			for b.Loop() {
				n, bytes := passOf(b, o, fs, f)
				records, read = records+n, read+bytes
			}
			b.ReportMetric(float64(read)/float64(b.N)/1e6, "MB-read/op")
			b.ReportMetric(float64(records)/float64(b.N), "records/op")
		})
	}
}
