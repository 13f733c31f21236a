package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"
)

// Store is the whole state of Cistern on disk. Its methods may be called from any goroutine.
type Store struct {
	opts      Options
	db        *pebble.DB
	engine    *pebble.Options
	codec     codec
	seq       sequencer
	recent    recent
	locks     locks
	hosts     hosts
	filters   filters
	slots     slots
	ords      ordinals
	queue     enqueuer
	retries   retries
	buffers   buffers
	caches    caches
	totals    totals
	garbage   garbage
	unsettled unsettled
	pruner    pruner
	ages      ages
	anchors   anchors
	segments  segments
	growth    growth
	backlogs  backlogs
	frost     frost
	logBytes  atomic.Int64 // of the events from the tail on, as Prune last counted them
	epoch     string
	ephemeral bool // as the store was created
	restored  bool // the directory was restored from a backup and is opened for the first time
	metrics   *metrics

	checkpoints checkpoints

	failOnce sync.Once
	failed   chan struct{} // closed when the store can no longer be written
	failure  error         // set before failed is closed

	breakOnce sync.Once
	broken    chan struct{} // closed after failed: the engine may hold its locks for ever

	closeOnce sync.Once
	closeErr  error
	health    io.Closer // ends the health checks of the disk; nil if there are none
}

// Open opens the store in o.Dir, creates it if it is missing, and deletes the rows of import groups
// that a crash left open. Imports are flipped by age only while Run runs.
func Open(o Options) (*Store, error) {
	watched := o.FS == nil
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	s := &Store{opts: o, codec: c, failed: make(chan struct{}), broken: make(chan struct{})}
	s.locks.held = map[string]*didLock{}
	s.caches.init()
	if err := s.refuseHalf(); err != nil {
		return nil, err
	}
	if o.ReadOnly || o.MustExist {
		if err := exists(o); err != nil {
			return nil, err
		}
	}
	if s.metrics, err = newMetrics(o.Registerer, s); err != nil {
		return nil, err
	}
	if watched {
		o.FS, s.health = s.checkHealth(o.FS)
	}
	o.FS = freezeFS{o.FS, &s.frost.files} // outermost: an operation that waits is not a slow disk
	s.opts.FS = o.FS
	s.engine = pebbleOptions(o, s.breakDown)
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.closeHealth())
	}
	return s, nil
}

// open creates the directory, opens the engine, and loads the state that is kept in memory.
func (s *Store) open() (err error) {
	o := &s.opts
	if !o.ReadOnly {
		if err := o.FS.MkdirAll(o.Dir, 0o755); err != nil {
			return fmt.Errorf("make store directory %s: %w", o.Dir, err)
		}
	}
	if s.db, err = pebble.Open(o.Dir, s.engine); err != nil {
		return openError(o.Dir, err)
	}
	if err := s.load(); err != nil {
		return errors.Join(fmt.Errorf("open store %s: %w", o.Dir, err), s.db.Close())
	}
	return nil
}

func (s *Store) closeHealth() error {
	if s.health == nil {
		return nil
	}
	return s.health.Close()
}

// load reads the state that is kept in memory, and repairs the store after a crash.
func (s *Store) load() error {
	for _, step := range []func() error{s.loadFormat, s.renewEpoch, s.dropCheckpoints, s.loadCounts,
		s.loadLog, s.loadTotals, s.loadPostings, s.loadEnqueue, s.loadHosts, s.loadFilters,
		s.loadCursors, s.loadGarbage, s.loadAges, s.loadSegments, s.recoverLeases, s.loadBuffers,
		s.openSlots} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Run flips import groups that have reached their age, until ctx ends or the store fails. It flips
// the groups that are still open when ctx ends. When the engine broke, Run does not wait for
// goroutines that may be stuck in it: the process should end. Pruning and collecting garbage are
// the caller's: see Prune and CollectGarbage.
func (s *Store) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-s.failed:
			return s.failure
		}
	})
	g.Go(func() error { return s.runImports(ctx) })
	var all errgroup.Group
	ended := make(chan struct{})
	all.Go(func() error { defer close(ended); return g.Wait() })
	select {
	case <-ended:
		return all.Wait()
	case <-s.broken:
		return s.failure
	}
}

// Close closes the store. It is idempotent. Batches that were not committed are lost. A broken
// engine is not closed, since that could wait for ever: the process should end, and opening the
// store recovers all that was durable.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		select {
		case <-s.broken:
			s.closeErr = fmt.Errorf("not closed: %w", s.failure)
		default:
			s.Thaw() // closing writes
			s.closeErr = errors.Join(s.db.Close(), s.closeHealth())
		}
	})
	return s.closeErr
}

// fail records the first error. Nothing may be written after it.
func (s *Store) fail(err error) {
	s.failOnce.Do(func() {
		s.failure = fmt.Errorf("store failed: %w", err)
		close(s.failed)
	})
}

// breakDown is like fail, for an error after which the engine must not be used at all, not even
// closed.
func (s *Store) breakDown(err error) {
	s.fail(err)
	s.breakOnce.Do(func() { close(s.broken) })
}

// usable returns the failure of the store, nil if it has not failed.
func (s *Store) usable() error {
	select {
	case <-s.failed:
		return s.failure
	default:
		return nil
	}
}

// Ready returns why the store cannot serve, nil if it can: a write failed (invariant 13), or a row
// cannot be read. It reads one row, so that it may be asked often.
func (s *Store) Ready() error {
	if err := s.usable(); err != nil {
		return err
	}
	_, err := s.meta(s.db, metaFormat)
	return err
}

func (s *Store) now() time.Time { return s.opts.Now() }

// reader is the interface that the database, its snapshots and views share.
type reader interface {
	Get(key []byte) ([]byte, io.Closer, error)
	NewIter(o *pebble.IterOptions) (*pebble.Iterator, error)
}

// get calls fn with the value under key, valid during the call, or returns ErrNotFound.
func get(r reader, key []byte, fn func(value []byte) error) error {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return ErrNotFound
	}
	if err != nil {
		return engineError(err)
	}
	err = fn(v)
	return errors.Join(err, closer.Close())
}

// engineError adds ErrCorrupt to an error by which Pebble reports damage.
func engineError(err error) error {
	if err != nil && pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// scan calls fn for each row of [lower, upper) until fn returns false.
func scan(r reader, lower, upper []byte, fn func(key, value []byte) (more bool, err error)) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return engineError(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		more, err := fn(it.Key(), it.Value())
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !more {
			break
		}
	}
	return engineError(it.Close())
}

// loadRepo reads a repository's row through r.
func (s *Store) loadRepo(r reader, did string) (Repo, error) {
	row := Repo{DID: did}
	err := get(r, repoKey(nil, did), func(v []byte) error { return s.codec.decode(v, &row) })
	if err != nil {
		return Repo{}, err
	}
	row.loaded = row.rowState()
	return row, nil
}

// Repo returns the row of a repository, or ErrNotFound. The caller may replace the byte slices in
// it, but must not write into them.
func (s *Store) Repo(did string) (Repo, error) {
	if row, ok := s.caches.rows.get(did); ok {
		return row, nil
	}
	row, err := s.loadRepo(s.db, did)
	if err != nil && !errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("read repository %s: %w", did, err)
	}
	return row, err
}

// RepoOrNew returns the row of a repository, or a new row that is not on disk yet.
func (s *Store) RepoOrNew(did string) (Repo, error) {
	row, err := s.Repo(did)
	if errors.Is(err, ErrNotFound) {
		return Repo{DID: did}, nil
	}
	return row, err
}
