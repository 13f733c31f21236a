package store

import (
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	bottomLevel = 6
	// blockSize of the bottom level: large blocks compress the many small similar records
	// of a repository, and every bulk read is sequential.
	blockSizeTop    = 16 << 10
	blockSizeBottom = 32 << 10
	openFilesMax    = 1000
	// tableBytesPerSync is how many bytes of a growing import table are written before the next
	// sync: syncing 64 MiB at once when it is closed would delay the write-ahead log's syncs.
	tableBytesPerSync = 512 << 10
	// diskSlowAfter is how long a write, sync or other file operation may take before the log
	// reports a slow disk.
	diskSlowAfter = 5 * time.Second
)

// checkHealth wraps the operating system's file system so that diskSlow is called for slow
// operations. Closing the closer ends this.
func (s *Store) checkHealth(fs vfs.FS) (vfs.FS, io.Closer) {
	return vfs.WithDiskHealthChecks(fs, diskSlowAfter, nil, s.diskSlow)
}

// diskSlow is called for an operation that is still running after diskSlowAfter, and repeatedly
// until it ends.
func (s *Store) diskSlow(info vfs.DiskSlowInfo) {
	s.metrics.diskSlow.Inc()
	s.opts.Logger.Warn("disk is slow: commits and imports wait for this operation; check the disk",
		"operation", info.OpType.String(), "file", info.Path, "seconds", info.Duration.Seconds())
}

// pebbleOptions are chosen by the measurements in BENCHMARKS.md ("Pebble options").
func pebbleOptions(o Options, fatal func(error)) *pebble.Options {
	p := &pebble.Options{
		FS:       o.FS,
		ReadOnly: o.ReadOnly,
		// Pebble takes the memtables out of it
		CacheSize:                   o.CacheBytes + o.MemTableBytes,
		MemTableSize:                uint64(o.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		FormatMajorVersion:          engineFormat,
		MaxOpenFiles:                openFilesMax,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       40,
		LBaseMaxBytes:               64 << 20,
		CompactionConcurrencyRange:  func() (int, int) { return 1, max(1, runtime.GOMAXPROCS(0)/2) },
		Logger:                      engineLogger{o.Logger, fatal},
	}
	// Pebble retries a failed flush or compaction at once and without end, and commits wait for it.
	// The first such error ends the store instead: the data that was not flushed is in the
	// write-ahead log.
	p.EventListener = &pebble.EventListener{BackgroundError: func(err error) {
		fatal(fmt.Errorf("pebble: flush or compaction: %w", engineError(err)))
	}}
	// Tables never cross keyspaces: else one live row of an old repository would stretch a
	// bottom table over the place where the next import appends.
	p.Experimental.SpanPolicyFunc = func(start []byte) (pebble.SpanPolicy, []byte, error) {
		if len(start) == 0 {
			return pebble.SpanPolicy{}, nil, nil
		}
		return pebble.SpanPolicy{}, spaceEnd(start[0]), nil
	}
	for i := range p.Levels {
		l := &p.Levels[i]
		l.BlockSize = blockSizeTop
		l.IndexBlockSize = 256 << 10
		l.Compression = func() *sstable.CompressionProfile { return sstable.MinLZCompression }
		l.FilterPolicy = bloom.FilterPolicy(10)
	}
	// At the bottom zstd level 1 costs 0.5 s more per million records than MinLZ and saves a
	// quarter of the disk; level 3 saves 3 % more for another 0.65 s.
	p.Levels[bottomLevel].Compression = func() *sstable.CompressionProfile {
		return sstable.BalancedCompression
	}
	// Plain Get does not consult filters at the bottom level, so none are built there.
	p.Levels[bottomLevel].BlockSize = blockSizeBottom
	p.Levels[bottomLevel].FilterPolicy = pebble.NoFilterPolicy
	if o.tune != nil {
		o.tune(p)
	}
	p.EnsureDefaults()
	return p
}

// guard runs a write of the engine. When Pebble loses its log or manifest, it panics in the
// writer's goroutine (by Fatalf below, or by itself), and may keep its locks. guard turns the panic
// into the store's failure: if code above recovers panics, as net/http does, no store that hangs
// must be left behind.
func (s *Store) guard(write func() error) (err error) {
	if err := s.usable(); err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			s.breakDown(fmt.Errorf("%v", p))
			err = s.failure
		}
	}()
	return write()
}

// apply applies and closes a batch that is not sequenced. It waits until the store is not frozen.
func (s *Store) apply(b *pebble.Batch, o *pebble.WriteOptions) error {
	s.enterWrites()
	defer s.leaveWrites()
	return s.applyInside(b, o)
}

// applyInside is apply for callers that have passed enterWrites.
func (s *Store) applyInside(b *pebble.Batch, o *pebble.WriteOptions) error {
	if err := s.guard(func() error { return s.db.Apply(b, o) }); err != nil {
		s.fail(err) // a broken engine may still hold the batch
		return s.failure
	}
	return b.Close()
}

// engineLogger passes Pebble's messages on. Pebble calls Fatalf when its write-ahead log or its
// manifest is lost; nothing may be committed afterwards. In a goroutine of Pebble's own (a flush, a
// compaction) the panic ends the process.
type engineLogger struct {
	log   *slog.Logger
	fatal func(error)
}

func (l engineLogger) Infof(format string, args ...any) {
	l.log.Debug("storage engine", "text", fmt.Sprintf(format, args...))
}

func (l engineLogger) Errorf(format string, args ...any) {
	l.log.Error("the storage engine reports an error", "err", fmt.Sprintf(format, args...))
}

func (l engineLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf("pebble: "+format, args...)
	l.fatal(err)
	// Pebble's commit pipeline is unusable after this point and expects not to return.
	panic(err)
}
