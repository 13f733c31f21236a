package store

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// checkpointsMax bounds the checkpoints that exist at a time. Each keeps on disk what the store had
// when it was made, though the store may have deleted it since.
const checkpointsMax = 4

// checkpointTries is how often a checkpoint is made anew that does not open. The engine copies its
// write-ahead log while it is written, so that a copy may have a later page without an earlier one.
const checkpointTries = 3

// checkpoints counts the checkpoints of a store, and keeps ingestions out of them.
type checkpoints struct {
	// tables is held for reading while tables are ingested, and for writing while the engine copies
	// itself: it takes the list of its tables first and the write-ahead log last. A group of imports
	// that was ingested and flipped in between would be visible in the copy without its tables.
	tables sync.RWMutex

	// mu guards:
	mu   sync.Mutex
	open int
	next int // names the next directory
}

// Checkpoint is a copy of the store as it was at one moment, in a directory of its own below that
// of the store. Tables are hard links, so it takes little time and space at first; it then keeps
// the space of tables that the store no longer needs.
type Checkpoint struct {
	Dir    string // has files only; they do not change
	Head   uint64 // newest event id that the copy has
	Epoch  string
	Format int // FormatVersion of the store

	store *Store
	once  sync.Once
	err   error
}

// Checkpoint copies the store while it is read and written. The copy has everything that was
// durable before the call, as a crash at one moment would leave it, and was opened once to see that
// it is whole. Close removes it, and so does the next Open of the store, in case nothing else did.
// It returns ErrCheckpoints if as many checkpoints exist as are allowed.
func (s *Store) Checkpoint(ctx context.Context) (*Checkpoint, error) {
	if s.opts.ReadOnly {
		return nil, errors.New("checkpoint: the store is open for reading only")
	}
	number, err := s.checkpoints.begin()
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		c := &Checkpoint{store: s, Format: FormatVersion,
			Dir: path.Join(s.checkpointsDir(), strconv.Itoa(number)+"-"+strconv.Itoa(try))}
		err := ctx.Err()
		if err == nil {
			err = s.makeCheckpoint(c)
		}
		if err == nil {
			return c, nil
		}
		err = errors.Join(fmt.Errorf("checkpoint %s: %w", c.Dir, err), s.opts.FS.RemoveAll(c.Dir))
		if try == checkpointTries || ctx.Err() != nil || s.usable() != nil {
			s.checkpoints.end()
			return nil, err
		}
		s.opts.Logger.Warn("a checkpoint failed and is made again", "err", err)
	}
}

// makeCheckpoint makes the directory of c and reads what the copy has.
func (s *Store) makeCheckpoint(c *Checkpoint) error {
	if err := s.guard(func() error { return s.copyEngine(c.Dir) }); err != nil {
		return err
	}
	copied, err := Open(Options{Dir: c.Dir, FS: s.opts.FS, ReadOnly: true, CacheBytes: 1 << 20,
		MemTableBytes: s.opts.MemTableBytes})
	if err != nil {
		return err
	}
	c.Head, c.Epoch = copied.Head(), copied.Epoch()
	// Opening it has left a lock file, which is not part of the copy.
	return errors.Join(copied.Close(), s.opts.FS.Remove(path.Join(c.Dir, lockName)))
}

// copyEngine copies the files of the engine. Ingestions wait for it, and nothing else does.
func (s *Store) copyEngine(dir string) error {
	s.enterWrites()
	defer s.leaveWrites()
	s.checkpoints.tables.Lock()
	defer s.checkpoints.tables.Unlock()
	return s.db.Checkpoint(dir, pebble.WithFlushedWAL())
}

// ingest adds tables to the engine.
func (s *Store) ingest(tables []string) error {
	s.enterWrites()
	defer s.leaveWrites()
	s.checkpoints.tables.RLock()
	defer s.checkpoints.tables.RUnlock()
	return s.guard(func() error { return s.db.Ingest(context.Background(), tables) })
}

// Close removes the copy. It is idempotent.
func (c *Checkpoint) Close() error {
	c.once.Do(func() {
		c.err = c.store.opts.FS.RemoveAll(c.Dir)
		c.store.checkpoints.end()
	})
	return c.err
}

func (c *checkpoints) begin() (number int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == checkpointsMax {
		return 0, fmt.Errorf("%w: %d", ErrCheckpoints, c.open)
	}
	c.open++
	c.next++
	return c.next, nil
}

func (c *checkpoints) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
}

func (s *Store) checkpointsDir() string { return path.Join(s.opts.Dir, "checkpoints") }

// dropCheckpoints removes the checkpoints of a process that ended before it removed them.
func (s *Store) dropCheckpoints() error {
	if s.opts.ReadOnly {
		return nil
	}
	return s.opts.FS.RemoveAll(s.checkpointsDir())
}
