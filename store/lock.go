package store

import "sync"

// locks gives out one mutex for each DID while a caller holds it or waits for it. Some rows that
// belong to no repository have a lock too, by their key (LockCrawlMark, LockReconciliation,
// LockReconcileHosts, LockRefilterCursor).
type locks struct {
	mu   sync.Mutex
	held map[string]*didLock // mu guards
}

type didLock struct {
	mu   sync.Mutex
	refs int // guarded by locks.mu
}

// Lock gives the caller the sole right to write did's rows until unlock. Who takes several
// takes them in ascending order of DID. The lock is held until the batch is applied, not
// until it is synced: the log's order makes a durable successor imply its predecessors.
func (s *Store) Lock(did string) (unlock func()) {
	s.locks.mu.Lock()
	l := s.locks.held[did]
	if l == nil {
		l = &didLock{}
		s.locks.held[did] = l
	}
	l.refs++
	s.locks.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		s.locks.mu.Lock()
		if l.refs--; l.refs == 0 {
			delete(s.locks.held, did)
		}
		s.locks.mu.Unlock()
	}
}
