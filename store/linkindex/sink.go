package linkindex

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
)

const (
	// smallRows is the size of a run up to which it is written by a batch: some 2 MiB in the
	// memtable. Tables of fewer rows would cost more, by their syncs and as levels of their own.
	smallRows = 40_000
	// tableBytesPerSync spreads the writing of a table, as of the store's imports.
	tableBytesPerSync = 512 << 10
)

// sink takes the rows of a run: in a batch, or in one sorted table for each keyspace.
type sink struct {
	x      *Index
	batch  *pebble.Batch // nil with tables
	mu     sync.Mutex
	tables []*rows // mu guards
	paths  []string
}

// rows takes the rows of one keyspace, which rise, so that a table needs no sorting. err is the
// first error.
type rows struct {
	batch *pebble.Batch
	table *sstable.Writer // nil with a batch, or after an error
	err   error
}

// newSink returns the sink of a run of about so many rows.
func (x *Index) newSink(rows int) *sink {
	if rows <= x.opts.smallRows {
		return &sink{x: x, batch: x.db.NewBatch()}
	}
	return &sink{x: x}
}

// parts calls functions that write one keyspace or several each, with tables at the same time.
func (k *sink) parts(all ...func() error) error {
	var g errgroup.Group
	if k.batch != nil {
		g.SetLimit(1)
	}
	for _, part := range all {
		g.Go(part)
	}
	return g.Wait()
}

// rows returns what takes the rows of a keyspace. It is called once for each keyspace.
func (k *sink) rows(space byte) *rows {
	if k.batch != nil {
		return &rows{batch: k.batch}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.x.tables++
	name := path.Join(k.x.runDir(), fmt.Sprintf("%d.sst", k.x.tables))
	f, err := k.x.opts.FS.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return &rows{err: fmt.Errorf("create the table %s: %w", name, err)}
	}
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: tableBytesPerSync})
	o := k.x.engine.MakeWriterOptions(0, k.x.db.TableFormat())
	if space == spaceDistinct {
		o.FilterPolicy = pebble.NoFilterPolicy // no row of it is looked up by its whole key
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), o)
	k.paths, k.tables = append(k.paths, name), append(k.tables, &rows{table: w})
	return k.tables[len(k.tables)-1]
}

func (o *rows) set(key, value []byte) {
	if o.batch != nil {
		o.note(o.batch.Set(key, value, nil))
	} else if o.err == nil {
		o.note(o.table.Set(key, value))
	}
}

func (o *rows) delete(key []byte) {
	if o.batch != nil {
		o.note(o.batch.Delete(key, nil))
	} else if o.err == nil {
		o.note(o.table.Delete(key))
	}
}

// merge adds to a row of counts.
func (o *rows) merge(key, value []byte) {
	if o.batch != nil {
		o.note(o.batch.Merge(key, value, nil))
	} else if o.err == nil {
		o.note(o.table.Merge(key, value))
	}
}

func (o *rows) note(err error) {
	if o.err == nil {
		o.err = err
	}
}

// finish writes everything in one step, unless err is not nil: then nothing is written. The state
// is in every run, so that the engine keeps the order of a batch and of tables that follow it.
func (k *sink) finish(err error) error {
	x := k.x
	if k.batch == nil {
		for _, t := range k.tables {
			err = errors.Join(err, t.table.Close())
		}
		if err == nil {
			err = x.write(func() error { return x.db.Ingest(context.Background(), k.paths) })
		}
		if err != nil && !x.health.abandoned() {
			err = errors.Join(err, x.clearRun())
		}
		return err
	}
	if err == nil {
		err = x.write(func() error { return x.db.Apply(k.batch, pebble.NoSync) })
	}
	if x.health.abandoned() {
		return err // the engine may still use the batch
	}
	return errors.Join(err, k.batch.Close())
}

// write runs a write of the engine, and notes the size on disk then.
func (x *Index) write(write func() error) error {
	return x.health.guard(x.stop, func() error {
		err := write()
		if err == nil {
			x.measure()
		}
		return err
	})
}
