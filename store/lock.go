package store

import "sync"

// locks has one mutex for each DID that a caller holds or waits for. Some rows that belong to no
// repository have a lock too, by their key (LockCrawlMark, LockReconciliation, LockReconcileHosts,
// LockRefilterCursor).
type locks struct {
	mu   sync.Mutex
	held map[string]*didLock // mu guards
}

type didLock struct {
	mu   sync.Mutex
	refs int // guarded by locks.mu
}

// Lock gives the caller the sole right to write did's rows until unlock. A caller that takes
// several locks takes them in ascending order of DID. It holds a lock until the batch is applied,
// not until it is synced: the log's order makes a durable batch imply its predecessors.
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
