package store

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// ErrFrozen means that nothing was written because the store is frozen.
var ErrFrozen = errors.New("the store is frozen: no write reaches the disk until it is thawed")

// frost keeps writes from the disk while the files of the store are copied. Writes wait at two
// doors, which Freeze shuts one after the other.
type frost struct {
	// writes is entered by whatever changes rows, before it takes a mutex that reads take too: reads
	// never wait for a frozen store.
	writes door
	// files is entered by each operation that changes the file system (freezeFS). Behind it the
	// flushes and compactions of the engine stop where they are.
	files door

	turn   sync.Mutex // held by Freeze and Thaw
	frozen bool       // turn guards

	mu      sync.Mutex
	metrics *pebble.Metrics // mu guards: those of the engine while the store is frozen, else nil
}

// Freeze makes everything that was committed durable, and then keeps all writes from the disk until
// Thaw: the files may be copied, and a store opened from the copy equals this one. Reads go on.
// Commits wait, but for Batch.CommitUnlessFrozen. If ctx ends before the store is frozen, or if it
// fails, the store is as before. Freezing a frozen store does nothing.
func (s *Store) Freeze(ctx context.Context) error {
	f := &s.frost
	f.turn.Lock()
	defer f.turn.Unlock()
	if f.frozen {
		return nil
	}
	if err := errors.Join(s.FlushImports(), ctx.Err()); err != nil {
		return fmt.Errorf("freeze store: %w", err)
	}
	if err := f.writes.shut(ctx); err != nil {
		return fmt.Errorf("freeze store: writes in flight: %w", err)
	}
	err := s.settle()
	if err == nil {
		// Later calls get these: the engine computes them under a lock that a flush may hold while it
		// waits at the door of the files.
		f.mu.Lock()
		f.metrics = s.db.Metrics()
		f.mu.Unlock()
		err = f.files.shut(ctx)
	}
	if err != nil {
		s.melt()
		return fmt.Errorf("freeze store: %w", err)
	}
	f.frozen = true
	return nil
}

// settle makes all applied batches durable and publishes their events. No batch is being applied.
func (s *Store) settle() error {
	if err := s.guard(func() error { return s.db.LogData(nil, pebble.Sync) }); err != nil {
		s.fail(err)
		return s.failure
	}
	s.seq.mu.Lock()
	head := s.seq.next - 1
	s.seq.mu.Unlock()
	s.publish(head, false)
	return nil
}

// melt lets writes through the first door again.
func (s *Store) melt() {
	s.frost.mu.Lock()
	s.frost.metrics = nil
	s.frost.mu.Unlock()
	s.frost.writes.open()
}

// Thaw lets writes go on. Thawing a store that is not frozen does nothing.
func (s *Store) Thaw() {
	f := &s.frost
	f.turn.Lock()
	defer f.turn.Unlock()
	if !f.frozen {
		return
	}
	f.frozen = false
	f.files.open()
	s.melt()
}

// Frozen returns a channel that is closed when the store is thawed, nil if it is not frozen. It is
// so from the time when Freeze keeps new writes out.
func (s *Store) Frozen() (thawed <-chan struct{}) { return s.frost.writes.ajar() }

// enterWrites waits until the store is not frozen. leaveWrites must follow. Between the two, the
// caller waits for nothing that may wait for the door.
func (s *Store) enterWrites() { s.frost.writes.enter(s.failed) }

func (s *Store) leaveWrites() { s.frost.writes.leave() }

// engineMetrics returns the metrics of the engine: while the store is frozen, those of before.
func (s *Store) engineMetrics() *pebble.Metrics {
	s.frost.mu.Lock()
	defer s.frost.mu.Unlock()
	if m := s.frost.metrics; m != nil {
		return m
	}
	return s.db.Metrics()
}
