package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// buffers knows what is buffered of whom, and who is being fetched.
type buffers struct {
	mu       sync.Mutex
	of       map[string]buffered // mu guards
	bytes    int64               // mu guards: of all
	fetching map[string]struct{} // mu guards
	begun    bool                // mu guards: FetchBegun
}

// buffered is what is kept of one repository.
type buffered struct {
	commits int
	bytes   int64
	rev     string // the highest; it may have been drained already
	// low is a rev below which nothing is buffered: a scan that starts there skips the tombstones
	// of drained commits.
	low string
}

func (q *buffers) get(did string) (one buffered, total int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.of[did], q.bytes
}

// apply takes over what a batch made of some repositories, whose locks its owner holds.
func (q *buffers) apply(changes map[string]buffered) {
	if len(changes) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for did, now := range changes {
		q.bytes += now.bytes - q.of[did].bytes
		if now.commits == 0 {
			delete(q.of, did)
			continue
		}
		q.of[did] = now
	}
}

// copied is what is buffered of everybody.
func (q *buffers) copied() map[string]buffered {
	q.mu.Lock()
	defer q.mu.Unlock()
	return maps.Clone(q.of)
}

// Buffer keeps a live commit that arrived while r is being fetched (Fetching), as the message it came in.
// Over the limits of a repository or of the store (limits.go) nothing is kept: everything buffered
// of r is dropped, r.SeenRev raised to rev, and kept is false. A rev that is buffered already stays
// as it came first. The caller holds r's lock and writes r, after.
func (b *Batch) Buffer(r *Repo, rev string, message []byte) (kept bool) {
	if len(rev) != revBytes {
		b.fail(fmt.Errorf("buffer %s of %s: a rev has %d bytes", rev, r.DID, revBytes))
		return false
	}
	now, total := b.buffered(r.DID)
	key := bufferKey(b.key[:0], r.DID, rev)
	if rev <= now.rev {
		held, err := holds(b.s.db, key)
		if held || err != nil || b.buffers[r.DID].rev == rev {
			b.fail(err)
			return err == nil
		}
	}
	size := int64(len(message))
	if now.bytes+size > bufferBytesMax || total+size > bufferTotalMax {
		b.DropBuffer(r)
		r.SeenRev = max(r.SeenRev, rev)
		return false
	}
	b.set(key, message)
	b.deltas[countBuffered]++
	b.setBuffered(r.DID, buffered{commits: now.commits + 1, bytes: now.bytes + size, rev: max(now.rev, rev), low: min(now.low, rev)})
	return true
}

// buffered is what stands buffered of a repository, and of all, with this batch.
func (b *Batch) buffered(did string) (one buffered, total int64) {
	one, total = b.s.buffers.get(did)
	if now, ok := b.buffers[did]; ok {
		one = now
	}
	return one, total + b.bufferBytes
}

func (b *Batch) setBuffered(did string, now buffered) {
	if b.buffers == nil {
		b.buffers = map[string]buffered{}
	}
	was, _ := b.buffered(did)
	b.bufferBytes += now.bytes - was.bytes
	b.buffers[did] = now
}

// holds says whether a row stands under key.
func holds(r reader, key []byte) (bool, error) {
	err := get(r, key, func([]byte) error { return nil })
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Unbuffer removes the first buffered commit, after it was drained. Call it once for each rev in a
// batch.
func (b *Batch) Unbuffer(r *Repo, rev string) {
	key := bufferKey(b.key[:0], r.DID, rev)
	var size int64
	err := get(b.s.db, key, func(v []byte) error { size = int64(len(v)); return nil })
	if errors.Is(err, ErrNotFound) {
		return
	}
	now, _ := b.buffered(r.DID)
	now.commits--
	now.bytes -= size
	now.low = rev
	if err == nil && (now.commits < 0 || now.bytes < 0) {
		err = fmt.Errorf("buffered commit %s of %s was counted never: %w", rev, r.DID, ErrCorrupt)
	}
	if err != nil {
		b.fail(err)
		return
	}
	b.delete(key)
	b.deltas[countBuffered]--
	b.setBuffered(r.DID, now)
}

// DropBuffer removes everything buffered of r, and raises r.SeenRev to the highest rev of it.
func (b *Batch) DropBuffer(r *Repo) {
	now, _ := b.buffered(r.DID)
	if now.commits == 0 {
		return
	}
	b.fail(b.b.DeleteRange(bufferKey(nil, r.DID, ""), bufferEnd(r.DID), nil))
	r.SeenRev = max(r.SeenRev, now.rev)
	b.deltas[countBuffered] -= int64(now.commits)
	b.setBuffered(r.DID, buffered{})
}

// settleBuffer keeps invariant 10 when r is about to be written.
func (b *Batch) settleBuffer(r *Repo) {
	now, _ := b.buffered(r.DID)
	switch {
	case r.State == StateDraining && now.commits == 0:
		b.fail(fmt.Errorf("repository %s is to be draining and nothing is buffered of it", r.DID))
	case r.State == StateSynced && now.commits > 0:
		b.fail(fmt.Errorf("repository %s is to be synced and %d commits are buffered of it", r.DID, now.commits))
	case r.State != StatePending && r.State != StateDraining:
		b.DropBuffer(r) // nobody will drain them: untracked, gone
	}
}

// Buffered is the number of commits buffered for did, without a look at the disk.
func (s *Store) Buffered(did string) int {
	now, _ := s.buffers.get(did)
	return now.commits
}

// BufferedCommits calls fn for the commits buffered for did in the order of their revs. message is
// valid during the call.
func (s *Store) BufferedCommits(did string, fn func(rev string, message []byte) error) error {
	now, _ := s.buffers.get(did)
	return scan(s.db, bufferKey(nil, did, now.low), bufferEnd(did), func(key, value []byte) (bool, error) {
		_, rev, err := parseBufferKey(key)
		if err != nil {
			return false, err
		}
		return true, fn(rev, value)
	})
}

// bufferedDIDs are those of whom anything is buffered, in order.
func (s *Store) bufferedDIDs() []string {
	s.buffers.mu.Lock()
	defer s.buffers.mu.Unlock()
	return slices.Sorted(maps.Keys(s.buffers.of))
}

// Draining are the DIDs of the repositories in StateDraining.
func (s *Store) Draining() ([]string, error) {
	var out []string
	for _, did := range s.bufferedDIDs() {
		r, err := s.Repo(did)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		if err == nil && r.State == StateDraining {
			out = append(out, did)
		}
	}
	return out, nil
}

// BeginFetch says that a copy of did is about to be asked for: from now on its live commits are
// buffered. The caller holds did's lock. It is kept in memory only: after a crash no fetch is in flight.
func (s *Store) BeginFetch(did string) {
	s.buffers.mu.Lock()
	defer s.buffers.mu.Unlock()
	s.buffers.fetching[did] = struct{}{}
	s.buffers.begun = true
}

// FetchBegun reports whether any copy was begun since the store was opened.
func (s *Store) FetchBegun() bool {
	s.buffers.mu.Lock()
	defer s.buffers.mu.Unlock()
	return s.buffers.begun
}

// EndFetch takes BeginFetch back, under the same lock.
func (s *Store) EndFetch(did string) {
	s.buffers.mu.Lock()
	defer s.buffers.mu.Unlock()
	delete(s.buffers.fetching, did)
}

// Fetching says whether a copy of did is being fetched. The answer holds as long as did's lock is held.
func (s *Store) Fetching(did string) bool {
	s.buffers.mu.Lock()
	defer s.buffers.mu.Unlock()
	_, ok := s.buffers.fetching[did]
	return ok
}

// loadBuffers counts what is buffered, and drops what a crash left of repositories whose fetch
// had not ended: only their drain would have used it.
func (s *Store) loadBuffers() error {
	q := &s.buffers
	q.of, q.fetching = map[string]buffered{}, map[string]struct{}{}
	err := scan(s.db, []byte{spaceBuffer}, spaceEnd(spaceBuffer), func(key, value []byte) (bool, error) {
		did, rev, err := parseBufferKey(key)
		now := q.of[did]
		q.of[did] = buffered{commits: now.commits + 1, bytes: now.bytes + int64(len(value)), rev: rev}
		q.bytes += int64(len(value))
		return true, err
	})
	if err != nil || s.opts.ReadOnly {
		return err
	}
	for page := range slices.Chunk(s.bufferedDIDs(), bufferPage) {
		if err := s.recoverBuffers(page); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) recoverBuffers(dids []string) error {
	b := s.NewBatch()
	for _, did := range dids {
		r, err := s.RepoOrNew(did)
		if err != nil {
			b.Discard()
			return err
		}
		if r.State == StateDraining {
			continue
		}
		b.DropBuffer(&r)
		if r.Known() {
			b.PutRepo(&r)
		}
	}
	return b.CommitSync()
}

func bufferEnd(did string) []byte { return append(bufferKey(nil, did, ""), 0xff) }
