package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// buffers knows which live commits are buffered, and which repositories are being fetched.
type buffers struct {
	mu       sync.Mutex
	of       map[string]buffered // mu guards
	bytes    int64               // mu guards: bytes buffered for all repositories
	fetching map[string]struct{} // mu guards
	begun    bool                // mu guards: FetchBegun
}

// buffered describes the commits buffered for one repository.
type buffered struct {
	commits int
	bytes   int64
	rev     string // highest rev; it may have been drained already
	// low is a rev below which nothing is buffered: a scan that starts there skips the tombstones
	// of drained commits.
	low string
}

func (q *buffers) get(did string) (one buffered, total int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.of[did], q.bytes
}

// apply takes over the changes of a batch. The caller holds the locks of the repositories.
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

// copied returns a copy of what is buffered for each repository.
func (q *buffers) copied() map[string]buffered {
	q.mu.Lock()
	defer q.mu.Unlock()
	return maps.Clone(q.of)
}

// Buffer keeps a live commit that arrived while r is being fetched (Fetching), as the message it
// came in. Beyond the limit of a repository or of the store (limits.go) nothing is kept: all
// commits buffered for r are dropped, r.SeenRev is raised to rev, and kept is false. If the rev is
// buffered already, the first message stays. The caller holds r's lock and writes r afterwards.
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
	b.setBuffered(r.DID, buffered{commits: now.commits + 1, bytes: now.bytes + size,
		rev: max(now.rev, rev), low: min(now.low, rev)})
	return true
}

// buffered returns what is buffered for a repository, and the bytes buffered for all, including the
// changes of this batch.
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

// holds reports whether a row exists under key.
func holds(r reader, key []byte) (bool, error) {
	err := get(r, key, func([]byte) error { return nil })
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Unbuffer removes the first buffered commit, after it was drained. It must be called once for each
// rev in a batch.
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
		err = fmt.Errorf("buffered commit %s of %s is not counted: %w", rev, r.DID, ErrCorrupt)
	}
	if err != nil {
		b.fail(err)
		return
	}
	b.delete(key)
	b.deltas[countBuffered]--
	b.setBuffered(r.DID, now)
}

// DropBuffer removes all commits buffered for r, and raises r.SeenRev to the highest rev of them.
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

// settleBuffer maintains invariant 10 when r is about to be written.
func (b *Batch) settleBuffer(r *Repo) {
	now, _ := b.buffered(r.DID)
	switch {
	case r.State == StateDraining && now.commits == 0:
		b.fail(fmt.Errorf("repository %s would be draining without buffered commits", r.DID))
	case r.State == StateSynced && now.commits > 0:
		b.fail(fmt.Errorf("repository %s would be synced with %d buffered commits", r.DID, now.commits))
	case r.State != StatePending && r.State != StateDraining:
		b.DropBuffer(r) // untracked or gone: the commits will never be drained
	}
}

// Buffered returns the number of commits buffered for did, from memory.
func (s *Store) Buffered(did string) int {
	now, _ := s.buffers.get(did)
	return now.commits
}

// BufferedCommits calls fn for the commits buffered for did in the order of their revs. message is
// valid during the call.
func (s *Store) BufferedCommits(did string, fn func(rev string, message []byte) error) error {
	now, _ := s.buffers.get(did)
	return scan(s.db, bufferKey(nil, did, now.low), bufferEnd(did),
		func(key, value []byte) (bool, error) {
			_, rev, err := parseBufferKey(key)
			if err != nil {
				return false, err
			}
			return true, fn(rev, value)
		})
}

// bufferedDIDs returns the DIDs of the repositories with buffered commits, in order.
func (s *Store) bufferedDIDs() []string {
	s.buffers.mu.Lock()
	defer s.buffers.mu.Unlock()
	return slices.Sorted(maps.Keys(s.buffers.of))
}

// Draining returns the DIDs of the repositories in StateDraining.
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

// BeginFetch records that a copy of did is about to be requested: from now on its live commits are
// buffered. The caller holds did's lock. The record is in memory only, as no fetch survives a
// crash.
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

// EndFetch ends what BeginFetch began, under the same lock.
func (s *Store) EndFetch(did string) {
	s.buffers.mu.Lock()
	defer s.buffers.mu.Unlock()
	delete(s.buffers.fetching, did)
}

// Fetching reports whether a copy of did is being fetched. The answer is valid while did's lock is
// held.
func (s *Store) Fetching(did string) bool {
	s.buffers.mu.Lock()
	defer s.buffers.mu.Unlock()
	_, ok := s.buffers.fetching[did]
	return ok
}

// loadBuffers counts the buffered commits, and drops those of repositories whose fetch had not
// ended before a crash: only the drain after that fetch would have used them.
func (s *Store) loadBuffers() error {
	q := &s.buffers
	q.of, q.fetching = map[string]buffered{}, map[string]struct{}{}
	err := scan(s.db, []byte{spaceBuffer}, spaceEnd(spaceBuffer),
		func(key, value []byte) (bool, error) {
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
