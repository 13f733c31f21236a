package linkindex

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// smallRows is the size of a run up to which it is written by a batch: some 2 MiB in the
	// memtable. Tables of fewer rows would cost more, by their syncs and as levels of their own.
	smallRows = 40_000
	// tableBytesPerSync spreads the writing of a table, as of the store's imports.
	tableBytesPerSync = 512 << 10
)

// sink takes the rows of a run: in a batch, or in one sorted table for each keyspace. Rows of a
// keyspace rise, so that a table needs no sorting. err is the first error.
type sink struct {
	x      *Index
	batch  *pebble.Batch // nil with tables
	tables map[byte]*sstable.Writer
	paths  []string
	err    error
}

// newSink returns the sink of a run of about so many rows.
func (x *Index) newSink(rows int) (*sink, error) {
	if err := x.failure(); err != nil {
		return nil, err
	}
	if rows <= x.opts.smallRows {
		return &sink{x: x, batch: x.db.NewBatch()}, nil
	}
	return &sink{x: x, tables: map[byte]*sstable.Writer{}}, nil
}

// table returns the table of a keyspace.
func (k *sink) table(space byte) *sstable.Writer {
	if w := k.tables[space]; w != nil || k.err != nil {
		return w
	}
	k.x.tables++
	name := path.Join(k.x.runDir(), fmt.Sprintf("%d.sst", k.x.tables))
	f, err := k.x.opts.FS.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		k.err = fmt.Errorf("create the table %s: %w", name, err)
		return nil
	}
	k.paths = append(k.paths, name)
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: tableBytesPerSync})
	k.tables[space] = sstable.NewWriter(objstorageprovider.NewFileWritable(f),
		k.x.engine.MakeWriterOptions(0, k.x.db.TableFormat()))
	return k.tables[space]
}

func (k *sink) set(key, value []byte) {
	if k.batch != nil {
		k.note(k.batch.Set(key, value, nil))
	} else if w := k.table(key[0]); k.err == nil {
		k.note(w.Set(key, value))
	}
}

func (k *sink) delete(key []byte) {
	if k.batch != nil {
		k.note(k.batch.Delete(key, nil))
	} else if w := k.table(key[0]); k.err == nil {
		k.note(w.Delete(key))
	}
}

// merge adds to a row of counts.
func (k *sink) merge(key, value []byte) {
	if k.batch != nil {
		k.note(k.batch.Merge(key, value, nil))
	} else if w := k.table(key[0]); k.err == nil {
		k.note(w.Merge(key, value))
	}
}

func (k *sink) note(err error) {
	if k.err == nil {
		k.err = err
	}
}

// finish writes everything in one step, unless err is not nil: then nothing is written. The state is
// in every run, so that the engine keeps the order of a batch and of tables that follow it.
func (k *sink) finish(err error) error {
	for _, w := range k.tables {
		err = errors.Join(err, w.Close())
	}
	err = errors.Join(err, k.err)
	switch {
	case k.batch == nil && err == nil:
		return k.x.guard(func() error { return k.x.db.Ingest(context.Background(), k.paths) })
	case k.batch == nil:
		return err
	case err != nil:
		return errors.Join(err, k.batch.Close())
	}
	if err := k.x.guard(func() error { return k.x.db.Apply(k.batch, pebble.NoSync) }); err != nil {
		return err
	}
	return k.batch.Close()
}
