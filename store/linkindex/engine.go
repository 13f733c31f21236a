package linkindex

import (
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
)

const (
	bottomLevel = 6
	blockBytes  = 16 << 10
	// indexBlockBytes keeps indexes of one level for most tables.
	indexBlockBytes = 128 << 10
	openFilesMax    = 500
	// runLevels is how many runs, each a level of its own, there are before they are compacted.
	runLevels = 10
)

// engineOptions are chosen by the measurements in BENCHMARKS.md ("Backlinks"). Runs cover the whole
// key range, so that each is a level of its own until a compaction takes many of them at once.
func engineOptions(o *Options, h *health) *pebble.Options {
	p := &pebble.Options{
		FS:                          o.FS,
		ReadOnly:                    o.ReadOnly,
		CacheSize:                   o.CacheBytes + o.MemTableBytes,
		MemTableSize:                uint64(o.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		FormatMajorVersion:          pebble.FormatNewest,
		MaxOpenFiles:                openFilesMax,
		L0CompactionThreshold:       2 * runLevels,
		L0StopWritesThreshold:       60,
		LBaseMaxBytes:               512 << 20,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		Merger:                      counter,
		Logger:                      engineLogger{o.Logger, h},
		EventListener:               h.listener(),
	}
	// Tables never cross keyspaces, so that what a compaction merges rows by target with does not
	// have rows by account.
	p.Experimental.SpanPolicyFunc = func(start []byte) (pebble.SpanPolicy, []byte, error) {
		for i := range len(spaces) {
			if len(start) == 0 || start[0] < spaces[i] {
				return pebble.SpanPolicy{}, []byte{spaces[i]}, nil
			}
		}
		return pebble.SpanPolicy{}, nil, nil
	}
	for i := range p.Levels {
		l := &p.Levels[i]
		l.BlockSize = blockBytes
		l.IndexBlockSize = indexBlockBytes
		l.Compression = func() *sstable.CompressionProfile { return sstable.MinLZCompression }
		l.FilterPolicy = bloom.FilterPolicy(10)
	}
	p.Levels[bottomLevel].Compression = func() *sstable.CompressionProfile {
		return sstable.BalancedCompression
	}
	p.Levels[bottomLevel].FilterPolicy = pebble.NoFilterPolicy
	if o.tune != nil {
		o.tune(p)
	}
	p.EnsureDefaults()
	return p
}

// counter merges the rows of counts: a change of a count needs no read. A count that became zero
// stays as a row of zeros: the engine's merge to nothing (pebble.DeletableValueMerger) panics in
// compactions in version 2.1.7.
var counter = &pebble.Merger{
	Name: "cistern.counts",
	Merge: func(_, value []byte) (pebble.ValueMerger, error) {
		var m countMerger
		return &m, m.MergeNewer(value)
	},
}

// countMerger adds counts.
type countMerger struct{ Counts }

// MergeNewer implements pebble.ValueMerger.
func (m *countMerger) MergeNewer(value []byte) error {
	c, err := parseCounts(value)
	m.Records += c.Records
	m.DIDs += c.DIDs
	return err
}

// MergeOlder implements pebble.ValueMerger.
func (m *countMerger) MergeOlder(value []byte) error { return m.MergeNewer(value) }

// Finish implements pebble.ValueMerger.
func (m *countMerger) Finish(bool) ([]byte, io.Closer, error) {
	return appendCounts(nil, m.Counts), nil, nil
}

// get calls fn with the value under key, valid during the call. ok is false without the row.
func (x *Index) get(key []byte, fn func(value []byte) error) (ok bool, err error) {
	v, closer, err := x.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, errors.Join(fn(v), closer.Close())
}

// scan calls fn for each row of [lower, upper) until fn returns false.
func (x *Index) scan(lower, upper []byte, fn func(key, value []byte) (more bool, err error)) error {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	more := true
	for ok := it.First(); ok && more && err == nil; ok = it.Next() {
		more, err = fn(it.Key(), it.Value())
	}
	return errors.Join(err, it.Close())
}

// lowest and highest are before and behind all rows, also those of other versions.
var lowest, highest = []byte{0}, []byte{0xff}

// isEmpty reports whether the index has no row.
func (x *Index) isEmpty() (empty bool, err error) {
	empty = true
	err = x.scan(lowest, highest, func(_, _ []byte) (bool, error) {
		empty = false
		return false, nil
	})
	return empty, err
}

// after returns the first key behind all keys with a prefix that does not end with 0xff.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
