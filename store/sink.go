package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The keyspaces that an import appends to, each as a sorted run.
const (
	tableRecord = iota
	tableBlock
	tableListing
	tableRef
	tableKinds
)

// importBatchBytes bounds the batches of a small group, so that other batches do not wait long
// behind them in the commit pipeline.
const importBatchBytes = 2 << 20

// sink takes the rows of an import group. It keeps them in memory while the group is small, and
// then writes them into tables.
type sink struct {
	s      *Store
	size   int64
	arenas [tableKinds][]byte // runs of klen, vlen (uvarint), key, value
	tables [tableKinds]*sstable.Writer
	paths  []string
	spill  bool
}

func (k *sink) init(s *Store) { k.s = s }

// bytes returns the size of all rows put so far, uncompressed.
func (k *sink) bytes() int64 { return k.size }

// tabled reports whether rows went into tables.
func (k *sink) tabled() bool { return k.spill }

// put adds a row. Keys rise within a table kind.
func (k *sink) put(kind int, key, value []byte) error {
	k.size += int64(len(key) + len(value))
	if k.spill {
		return k.tablePut(kind, key, value)
	}
	a := binary.AppendUvarint(k.arenas[kind], uint64(len(key)))
	a = binary.AppendUvarint(a, uint64(len(value)))
	k.arenas[kind] = append(append(a, key...), value...)
	if k.size <= k.s.opts.SmallBytes {
		return nil
	}
	k.spill = true
	for kind := range k.arenas {
		if err := k.drain(kind,
			func(key, value []byte) error { return k.tablePut(kind, key, value) }); err != nil {
			return err
		}
	}
	return nil
}

// drain passes the rows kept in memory to fn and drops them.
func (k *sink) drain(kind int, fn func(key, value []byte) error) error {
	a := k.arenas[kind]
	for len(a) > 0 {
		klen, n := binary.Uvarint(a)
		vlen, m := binary.Uvarint(a[n:])
		a = a[n+m:]
		if err := fn(a[:klen], a[klen:klen+vlen]); err != nil {
			return err
		}
		a = a[klen+vlen:]
	}
	k.arenas[kind] = nil
	return nil
}

func (k *sink) tablePut(kind int, key, value []byte) error {
	w := k.tables[kind]
	if w == nil {
		var err error
		if w, err = k.openTable(); err != nil {
			return err
		}
		k.tables[kind] = w
	}
	if err := w.Set(key, value); err != nil {
		return err
	}
	if w.Raw().EstimatedSize() < uint64(k.s.opts.TableBytes) {
		return nil
	}
	k.tables[kind] = nil
	return w.Close()
}

func (s *Store) importDir() string { return path.Join(s.opts.Dir, "import") }

func (k *sink) openTable() (*sstable.Writer, error) {
	name := path.Join(k.s.importDir(), fmt.Sprintf("%d.sst", k.s.metrics.tableSeq.Add(1)))
	f, err := k.s.opts.FS.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("create import table %s: %w", name, err)
	}
	k.paths = append(k.paths, name)
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: tableBytesPerSync})
	return sstable.NewWriter(objstorageprovider.NewFileWritable(f),
		k.s.engine.MakeWriterOptions(bottomLevel, k.s.db.TableFormat())), nil
}

// finishTables closes the tables, durably, and returns their paths.
func (k *sink) finishTables() ([]string, error) {
	var errs []error
	for kind, w := range k.tables {
		if w != nil {
			errs = append(errs, w.Close())
			k.tables[kind] = nil
		}
	}
	return k.paths, errors.Join(errs...)
}

// applyBatches writes the rows kept in memory. They are not synced: the flip follows them
// in the write-ahead log.
func (k *sink) applyBatches(s *Store) error {
	b := s.db.NewBatch()
	for kind := range k.arenas {
		err := k.drain(kind, func(key, value []byte) error {
			if err := b.Set(key, value, nil); err != nil || b.Len() < importBatchBytes {
				return err
			}
			err := s.apply(b, pebble.NoSync)
			b = s.db.NewBatch()
			s.opts.Step("import batch")
			return err
		})
		if err != nil {
			return errors.Join(err, b.Close())
		}
	}
	return s.apply(b, pebble.NoSync)
}

// close drops what is left after a failure. Opening the store removes the files.
func (k *sink) close() {
	for kind, w := range k.tables {
		if w != nil {
			w.Raw().Close() //nolint:errcheck // the group failed already
			k.tables[kind] = nil
		}
	}
}
